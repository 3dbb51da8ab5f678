"""Loads a kernel as a multiboot 1 boot loader does and hands the machine over to it.

Multiboot Specification version 0.6.96: "OS image format", "Machine state", "Boot information format". Loaded are ELF32
files by their program headers and any file by the addresses of its multiboot header (the a.out kludge).
"""

import os
import struct
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from emu.board import GIB, LOW_RAM, LOW_ROM, MIB, RAM_END, Board
from emu.errors import BadInput, ConfigError
from emu.host.input_file import read_file

__all__ = ["Kernel", "load_kernel"]

HEADER_MAGIC = 0x1BADB002
BOOTLOADER_MAGIC = 0x2BADB002
SEARCH = 8192  # the header lies within these first bytes
PAGE_ALIGN, MEMORY_INFO, VIDEO_MODE, ADDRESSES = 1, 2, 4, 1 << 16  # the header's flags
REQUIREMENTS = 0xFFFF  # of these flags a loader must refuse those that it does not know
INFO_MEMORY, INFO_COMMAND_LINE, INFO_MODULES, INFO_MEMORY_MAP, INFO_LOADER_NAME = 1, 4, 8, 64, 512
INFO = struct.Struct("<I2I4xI2I16x2I12xI48x")  # 116 bytes: flags, memory, command line, modules, map, loader's name
AVAILABLE, RESERVED = 1, 2
EBDA = LOW_RAM - 1024  # where a PC's firmware keeps its extended data
INFO_AT = 0x9000  # below everything that kernels are linked to
PAGE = 4096
GDT = struct.pack("<3Q", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)
CR0_PE = 1
CODE, DATA = 0x08, 0x10
CODE_ACCESS, DATA_ACCESS = 0xC09B, 0xC093  # present, accessed, 4 GiB, 32 bits, CPL 0
ELF_MAGIC = b"\x7fELF"
ELFCLASS32, ELFDATA2LSB, EM_386, PT_LOAD, SHT_SYMTAB, STT_FUNC = 1, 1, 3, 1, 2, 2
MOST = 1 << 30  # bytes of a kernel or module file
MOST_INFO = EBDA - INFO_AT


class Segment(NamedTuple):
    """Bytes of a kernel, where they go, and how much memory they take with the zeros behind them."""

    address: int
    data: bytes
    size: int


class Kernel:
    """A kernel with its command line and modules, ready to be put into a machine.

    Args:
        path: the kernel's name, for messages and as the first word of the command line.
        image: its bytes.
        append: the rest of the command line.
        modules: each a text, whose first word is a file's name, and that file's bytes.

    Attributes:
        symbols: of an ELF file with a symbol table.

    Raises:
        BadInput: it is no multiboot kernel, or malformed.
    """

    def __init__(self, path: str, image: bytes, append: str = "", modules: Sequence[tuple[str, bytes]] = ()) -> None:
        self.path = path
        self.command_line = f"{path} {append}".strip()
        self.modules = modules
        self.symbols: dict[str, int] = {}
        offset, flags = self.find_header(image)
        if flags & REQUIREMENTS & ~(PAGE_ALIGN | MEMORY_INFO | VIDEO_MODE):
            raise BadInput(f"{path}: its multiboot header asks for what no loader of version 1 has: flags {flags:#x}")
        if flags & ADDRESSES:
            self.segments, self.entry = self.by_addresses(image, offset)
        elif image.startswith(ELF_MAGIC):
            self.segments, self.entry = self.by_program_headers(image)
            self.symbols = elf_symbols(image)
        else:
            raise BadInput(f"{path}: neither an ELF file nor a multiboot header with addresses")
        if not self.segments:
            raise BadInput(f"{path}: nothing to load")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that boot() puts into a machine, by which a snapshot knows the kernel."""
        import hashlib

        places = [(segment.address, segment.size, len(segment.data)) for segment in self.segments]
        texts = [(text, len(data)) for text, data in self.modules]
        digest = hashlib.sha256(repr((self.command_line, self.entry, places, texts)).encode("utf-8", "surrogateescape"))
        for data in (*(segment.data for segment in self.segments), *(data for _, data in self.modules)):
            digest.update(data)
        return digest.hexdigest()

    def find_header(self, image: bytes) -> tuple[int, int]:
        """The offset and the flags of the multiboot header."""
        for offset in range(0, min(len(image), SEARCH) - 11, 4):
            magic, flags, checksum = struct.unpack_from("<3I", image, offset)
            if magic == HEADER_MAGIC and (magic + flags + checksum) & 0xFFFFFFFF == 0:
                return offset, flags
        raise BadInput(f"{self.path}: no multiboot header in its first {SEARCH} bytes")

    def by_addresses(self, image: bytes, offset: int) -> tuple[list[Segment], int]:
        """What the header's own addresses say ("The address fields of Multiboot header")."""
        try:
            header, load, load_end, bss_end, entry = struct.unpack_from("<5I", image, offset + 12)
        except struct.error:
            raise BadInput(f"{self.path}: truncated in its multiboot header") from None
        start = offset - (header - load)
        size = load_end - load if load_end else len(image) - start
        if load > header or start < 0 or size <= 0 or size > len(image) - start:
            raise BadInput(f"{self.path}: its multiboot header's addresses do not fit a file of {len(image)} bytes")
        return [Segment(load, image[start : start + size], max(size, bss_end - load))], entry

    def by_program_headers(self, image: bytes) -> tuple[list[Segment], int]:
        """The loadable segments of an ELF32 file, at their physical addresses."""
        found = []
        try:
            (machine,) = struct.unpack_from("<H", image, 18)
            if image[4] != ELFCLASS32 or image[5] != ELFDATA2LSB or machine != EM_386:
                raise BadInput(f"{self.path}: an ELF file, but not one of 32 bits for the 386")
            named, table = struct.unpack_from("<2I", image, 24)
            size, count = struct.unpack_from("<2H", image, 42)
            entry = named
            for number in range(count):
                kind, offset, virtual, physical, stored, total = struct.unpack_from("<6I", image, table + number * size)
                if kind != PT_LOAD or total == 0:
                    continue
                if stored > total or offset + stored > len(image):
                    raise BadInput(f"{self.path}: truncated: segment {number} ends beyond the file")
                if virtual <= named < virtual + total:
                    entry = physical + named - virtual  # the file names a linear address, and paging is off
                found.append(Segment(physical, image[offset : offset + stored], total))
        except (struct.error, IndexError):
            raise BadInput(f"{self.path}: truncated in its ELF headers") from None
        return found, entry

    def boot(self, board: Board) -> None:
        """Puts it into memory and the processor at its entry point, as after a loader ("Machine state").

        Raises:
            ConfigError: the machine has not memory enough, or the kernel lies where there is none.
        """
        memory = len(board.memory)
        end = 0
        for segment in self.segments:
            last = segment.address + segment.size
            in_low = last <= EBDA
            in_high = segment.address >= MIB and last <= min(memory, RAM_END)
            if not (in_low or in_high):
                raise ConfigError(
                    f"{self.path}: a segment of {segment.size:#x} bytes at {segment.address:#x} does not fit "
                    f"{memory >> 20} MiB of memory"
                )
            board.memory.write(segment.address, segment.data)
            board.memory.write(segment.address + len(segment.data), bytes(segment.size - len(segment.data)))
            end = max(end, last)
        end = max(end, MIB)
        placed = []
        for text, data in self.modules:
            start = -(-end // PAGE) * PAGE
            end = start + len(data)
            if end > min(memory, RAM_END):
                raise ConfigError(f"{text}: a module of {len(data)} bytes does not fit {memory >> 20} MiB of memory")
            board.memory.write(start, data)
            placed.append((start, end, text))
        self.write_info(board, placed)
        hand_over(board, self.entry)

    def write_info(self, board: Board, modules: list[tuple[int, int, str]]) -> None:
        """The boot information, with everything that it points to, and the descriptor table in use."""
        memory = len(board.memory)
        at = INFO_AT + INFO.size
        blob = bytearray()

        def place(data: bytes) -> int:
            address = at + len(blob)
            blob.extend(data)
            return address

        gdt = place(GDT.ljust(-(-(INFO.size + len(GDT)) // 16) * 16 - INFO.size, b"\0"))
        command_line = place(text_of(self.command_line))
        loader = place(text_of("emu"))
        texts = [place(text_of(text)) for _, _, text in modules]
        place(bytes(-len(blob) % 4))
        table = place(
            b"".join(
                struct.pack("<4I", start, end, text, 0) for (start, end, _), text in zip(modules, texts, strict=True)
            )
        )
        entries = b"".join(struct.pack("<I2QI", 20, base, size, kind) for base, size, kind in memory_map(board))
        entries_at = place(entries)
        if at + len(blob) > INFO_AT + MOST_INFO or any(
            segment.address < at + len(blob) and segment.address + segment.size > INFO_AT for segment in self.segments
        ):
            raise ConfigError(f"{self.path}: no room for the boot information at {INFO_AT:#x}")
        flags = INFO_MEMORY | INFO_COMMAND_LINE | INFO_MEMORY_MAP | INFO_LOADER_NAME | (INFO_MODULES if modules else 0)
        upper = (min(memory, RAM_END) - MIB) // 1024
        info = INFO.pack(
            flags, EBDA // 1024, upper, command_line, len(modules), table if modules else 0,
            len(entries), entries_at, loader,
        )  # fmt: skip
        board.memory.write(INFO_AT, info + blob)
        board.cpu.gdtr.base = gdt
        board.cpu.gdtr.limit = len(GDT) - 1


def memory_map(board: Board) -> list[tuple[int, int, int]]:
    """What there is of memory: (base, size, available or reserved)."""
    memory, rom = len(board.memory), len(board.rom)
    below = min(memory, RAM_END)
    found = [
        (0, EBDA, AVAILABLE),
        (EBDA, LOW_RAM - EBDA, RESERVED),
        (MIB - LOW_ROM, LOW_ROM, RESERVED),
        (MIB, below - MIB, AVAILABLE),
        (4 * GIB - rom, rom, RESERVED),
        (4 * GIB, memory - below, AVAILABLE),
    ]
    return [area for area in found if area[1]]


def text_of(text: str) -> bytes:
    """A C string; what a file name has that no text has is passed on as it is."""
    return os.fsencode(text) + b"\0"


def hand_over(board: Board, entry: int) -> None:
    """The state that the specification wants, and the chips as a PC's firmware leaves them."""
    bus, cpu = board.bus, board.cpu
    bus.port_write(0x92, 2)  # A20 open
    # Interrupt controllers: vectors 08h and 70h, all masked. Timer: 18.2 Hz.
    for port, value in (
        (0x20, 0x11), (0x21, 0x08), (0x21, 0x04), (0x21, 0x01), (0x21, 0xFF),
        (0xA0, 0x11), (0xA1, 0x70), (0xA1, 0x02), (0xA1, 0x01), (0xA1, 0xFF),
        (0x43, 0x36), (0x40, 0x00), (0x40, 0x00),
    ):  # fmt: skip
        bus.port_write(port, value)
    cpu.cr0 |= CR0_PE
    for segment in (cpu.cs, cpu.ds, cpu.es, cpu.fs, cpu.gs, cpu.ss):
        segment.selector, segment.base, segment.limit, segment.access = DATA, 0, 0xFFFFFFFF, DATA_ACCESS
    cpu.cs.selector, cpu.cs.access = CODE, CODE_ACCESS
    cpu.rflags = 2
    cpu.rax, cpu.rbx = BOOTLOADER_MAGIC, INFO_AT
    cpu.rsp = INFO_AT  # undefined by the specification; some kernels push before they set it
    cpu.rip = entry


def elf_symbols(image: bytes) -> dict[str, int]:
    """The symbols of an ELF32 file; none where it has no table or a damaged one, since they are a convenience."""
    symbols: dict[str, int] = {}
    try:
        (sections,) = struct.unpack_from("<I", image, 32)
        size, count = struct.unpack_from("<2H", image, 46)
        headers = [struct.unpack_from("<10I", image, sections + number * size) for number in range(count)]
        for _, kind, _, _, offset, length, link, _, _, _ in headers:
            if kind != SHT_SYMTAB:
                continue
            texts = headers[link][4]
            for at in range(offset, offset + length - 15, 16):
                name, value, _, info, _, section = struct.unpack_from("<3I2BH", image, at)
                if name and section and info & 15 <= STT_FUNC:
                    end = image.index(b"\0", texts + name)
                    symbols[image[texts + name : end].decode("utf-8", "replace")] = value
    except (struct.error, IndexError, ValueError):
        return {}
    return symbols


def load_kernel(path: str | os.PathLike[str], append: str = "", initrd: Sequence[str] = ()) -> Kernel:
    """Reads a kernel and its modules.

    Args:
        path: the kernel.
        append: the command line after the kernel's name.
        initrd: of each module a file's name, and after a space a text for the kernel.

    Raises:
        BadInput: a file cannot be read, or is no multiboot kernel.
    """
    modules = [(text, read_file(text.split(" ")[0], MOST, "a module")) for text in initrd]
    return Kernel(os.fspath(path), read_file(path, MOST, "a kernel"), append, modules)
