"""Dumps of guests: the ELF core on the guest's own disk, `emu dump`, and gdb."""

import shutil
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from emu import Disk, StopReason
from emu.builtin.service_disk import make_disk, read_dump, read_hpa
from emu.cli import main
from emu.host.disk import SECTOR

from .conftest import Built
from .service import Shell, shell
from .vmm import GUEST, rom_with_guest

Capture = pytest.CaptureFixture[str]
PT_LOAD, PT_NOTE, NT_PRSTATUS, NT_PRXFPREG = 1, 4, 1, 0x46E62B7F
PI = bytes.fromhex("35c26821a2da0fc90040")  # with 64 bits of significand
WINDOW = 0xF0000000  # where memory without a linear address is shown
# A guest with 32-bit paging: 80000000h to 300000h, scattered pages at 90000000h, the rest of its memory up to 4 MiB to
# itself. Its frames and its stack are at linear addresses that are no physical ones.
GUEST_SOURCE = """
%include "x86.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "image.inc"
%include "console.inc"
main:
        mov     edi, 20000h
        mov     ecx, 4000h / 4
        xor     eax, eax
        rep stosd
        mov     dword [20000h], PAGE_P | PAGE_RW | PAGE_PS
        mov     dword [20000h + 200h * 4], 21000h | PAGE_P | PAGE_RW
        mov     dword [20000h + 240h * 4], 22000h | PAGE_P | PAGE_RW
        mov     dword [20000h + 280h * 4], 0FFC00000h | PAGE_P | PAGE_RW | PAGE_PS      ; beyond its memory
        mov     eax, 300000h | PAGE_P | PAGE_RW
        mov     edi, 21000h
.stack:
        stosd
        add     eax, 1000h
        cmp     edi, 21000h + 4 * 4
        jb      .stack
        mov     dword [22000h], 310000h | PAGE_P | PAGE_RW
        mov     dword [22004h], 308000h | PAGE_P | PAGE_RW
        mov     dword [22008h], 309000h | PAGE_P | PAGE_RW
        mov     dword [310000h], "ten "
        mov     dword [308000h], "eigh"
        mov     dword [309FFCh], "nine"
        mov     dword [700000h], "high"         ; no linear address leads there
        mov     eax, CR4_PSE
        mov     cr4, eax
        mov     eax, 20000h
        mov     cr3, eax
        mov     eax, cr0
        or      eax, CR0_PG
        mov     cr0, eax
        mov     esp, 80003000h
        xor     ebp, ebp
        call    outer
        hlt
outer:
        push    ebp
        mov     ebp, esp
        push    dword 11112222h
        call    inner
        hlt
inner:
        push    ebp
        mov     ebp, esp
        mov     eax, 12345678h
        mov     ebx, 0BBBBBBBBh
        fxrstor [fpu]
there:
        mov     [200010h], eax
        cli
        hlt
        align 16
fpu:    dw      37Fh, 3800h                     ; ST0 is pi
        db      80h
        times 24 - 5 db 0
        dd      1F80h
        times 32 - 28 db 0
        dt      3.14159265358979323846
        times 512 - 42 db 0
"""


class Load(NamedTuple):
    """A PT_LOAD."""

    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int


class Core:
    """An ELF core file, read by the standard and by nothing of ours."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        assert data[:7] == b"\x7fELF\x01\x01\x01"
        kind, machine, version, _, at, _, _, size, entry, count = struct.unpack_from("<HHIIIIIHHH", data, 16)
        assert (kind, machine, version, size, entry) == (4, 3, 1, 52, 32)
        self.loads: list[Load] = []
        self.notes: list[tuple[str, int, bytes]] = []
        for n in range(count):
            kind, offset, vaddr, paddr, filesz, memsz, flags, align = struct.unpack_from("<8I", data, at + 32 * n)
            assert offset + filesz <= len(data)
            if kind == PT_LOAD:
                assert align == 4096 and offset % 4096 == vaddr % 4096 == 0 and flags == 7
                self.loads.append(Load(offset, vaddr, paddr, filesz, memsz))
            else:
                assert kind == PT_NOTE
                note = data[offset : offset + filesz]
                while note:
                    name_size, size, kind = struct.unpack_from("<3I", note)
                    name, body = note[12 : 12 + name_size], 12 + (name_size + 3 & ~3)
                    self.notes.append((name.rstrip(b"\0").decode(), kind, note[body : body + size]))
                    note = note[body + (size + 3 & ~3) :]

    def linear(self, address: int, size: int) -> bytes | None:
        """Memory by linear address, None where the file has none."""
        for load in self.loads:
            if load.vaddr <= address and address + size <= load.vaddr + load.memsz:
                at = address - load.vaddr
                return self.data[load.offset : load.offset + load.filesz].ljust(load.memsz, b"\0")[at : at + size]
        return None

    def physical(self, size: int) -> dict[int, bytes]:
        """The pages by their physical addresses."""
        pages: dict[int, bytes] = {}
        for load in self.loads:
            content = self.data[load.offset : load.offset + load.filesz].ljust(load.memsz, b"\0")
            for at in range(0, load.memsz, 4096):
                page = content[at : at + 4096]
                assert pages.setdefault(load.paddr + at, page) == page
        assert all(page < size for page in pages)
        return pages


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    make_disk(path)
    return path


def stop_guest(opened: Shell) -> str:
    opened.machine.serial.send(b"go\r")
    return opened.wait()


@pytest.fixture(scope="module")
def dumped(built: Built, tmp_path_factory: pytest.TempPathFactory) -> tuple[Core, bytes, str, Path]:
    """The core of the paging guest, the guest's memory, what the console said, the image."""
    folder = tmp_path_factory.mktemp("dump")
    (folder / "guest.asm").write_text(GUEST_SOURCE)
    make_disk(folder / "disk.img")
    rom = rom_with_guest(built.rom(), built.folder, folder / "guest.asm")
    with shell(rom, built.folder, disks=[Disk(folder / "disk.img")], after="stay") as opened:
        stop_guest(opened)
        said = opened.do("dump 1")
        base, size = opened.vmm.guest_memory()
        memory = opened.machine.memory.read(base, size)
    return Core(read_dump(folder / "disk.img").core), memory, said, folder / "disk.img"


def test_the_pages_are_the_guests_memory(dumped: tuple[Core, bytes, str, Path]) -> None:
    core, memory, said, _ = dumped
    pages = core.physical(len(memory))
    # A0000h to B7FFFh is nothing; then text memory; C0000h on is not of its share: FFh, then the real-mode services.
    missing = {page for page in range(0, len(memory), 4096) if page not in pages}
    assert missing == set(range(0xA0000, 0xB8000, 4096))
    for page, content in pages.items():
        if page < 0xA0000 or page >= 0x100000:
            assert content == memory[page : page + 4096], hex(page)
    assert pages[0xC0000] == b"\xff" * 4096 and pages[0xFF000] != bytes(4096)
    assert f"{len(core.data) >> 10} KiB written to the disk, sector" in said


def test_linear_addresses_are_the_guests(dumped: tuple[Core, bytes, str, Path]) -> None:
    core, _, said, _ = dumped
    assert core.linear(0x90000000, 4) == b"ten " and core.linear(0x90001000, 4) == b"eigh"
    assert core.linear(0x90002FFC, 4) == b"nine" and core.linear(0x90003000, 4) is None
    assert core.linear(0xA0000000, 4) is None and core.linear(0x400000, 4) is None
    assert core.linear(WINDOW + 0x700000, 4) == b"high"
    assert f"memory that no linear address leads to is at {WINDOW:08X}" in said
    by_start = {load.vaddr: load for load in core.loads}
    assert by_start[0x90000000].paddr == 0x310000 and by_start[0x90001000].paddr == 0x308000
    assert by_start[0x90001000].memsz == 0x2000  # two pages that follow each other both ways are one run


def test_zeros_are_not_in_the_file(dumped: tuple[Core, bytes, str, Path]) -> None:
    core, memory, _, _ = dumped
    assert len(core.data) < len(memory) // 8
    assert any(load.memsz > load.filesz > 0 for load in core.loads)
    for load in core.loads:
        content = core.data[load.offset : load.offset + load.filesz]
        assert all(any(content[at : at + 4096]) for at in range(0, load.filesz, 4096))


def test_the_registers_are_in_the_note(dumped: tuple[Core, bytes, str, Path]) -> None:
    core, *_ = dumped
    name, kind, status = core.notes[0]
    assert (name, kind, len(status)) == ("CORE", NT_PRSTATUS, 144)
    registers = struct.unpack_from("<17I", status, 72)
    ebx, _, _, _, _, ebp, eax, ds, es, fs, gs, _, eip, cs, _, esp, ss = registers
    assert (ebx, eax) == (0xBBBBBBBB, 0x12345678) and ebp == esp == 0x80002FEC
    assert (cs, ds, es, fs, gs, ss) == (8, 16, 16, 16, 16, 16)
    assert core.linear(eip, 5) == b"\xa3\x10\x00\x20\x00"
    (name, kind, fpu), *others = core.notes[1:]
    assert (name, kind, len(fpu), fpu[32:42]) == ("LINUX", NT_PRXFPREG, 512, PI)
    assert [note[:2] for note in others] == [("EMUVMM", 0x564D)]


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_gdb_opens_it(dumped: tuple[Core, bytes, str, Path], tmp_path: Path) -> None:
    core, _, _, image = dumped
    file = tmp_path / "guest.core"
    assert main(["dump", str(image), "-o", str(file)]) == 0
    commands = ["info registers", "p $st0", "x/i $pc", "x/s 0x90000000", "x/s 0x90001000", "bt"]
    arguments = [part for command in commands for part in ("-ex", command)]
    done = subprocess.run(["gdb", "-batch", "-nx", "-c", file, *arguments], capture_output=True, text=True, timeout=60,
                          check=False)  # fmt: skip
    said = done.stdout
    assert "SIGSEGV" in said and "ebx            0xbbbbbbbb" in said
    assert "= 3.14159265358979323" in said
    assert "mov    %eax,0x200010" in said and '"ten "' in said and '"eigh"' in said
    returns = [core.linear(0x80002FEC + at, 4) for at in (4, 16)]
    trace = said[said.rindex("#0 ") :].splitlines()
    assert len(trace) == 3
    for line, address in zip(trace[1:], returns, strict=True):
        assert address is not None and f"{int.from_bytes(address, 'little'):#010x} in ?? ()" in line


def test_a_fault_is_dumped_as_the_policy_says(built: Built, disk: Path) -> None:
    """Without a shell: the built-in guest's trapped write, its dump, and on it goes."""
    before = disk.read_bytes()
    with shell(built.rom(), built.folder, disks=[Disk(disk)], flags=["shell", "dump"]) as opened:
        opened.machine.serial.send(b"go\r")
        assert opened.machine.run(seconds=10).reason is StopReason.POWERED_OFF
        said = opened.machine.serial.output.decode()
    assert "KiB written to the disk" in said and "guest     undisturbed" in said
    dump = read_dump(disk)
    assert (dump.complete, dump.vm, dump.event) == (True, 1, 1)
    hpa = read_hpa(disk)
    after = disk.read_bytes()
    room = slice(hpa.dump * SECTOR, (hpa.dump + hpa.dump_sectors) * SECTOR)
    assert before[: room.start] == after[: room.start] and before[room.stop :] == after[room.stop :]
    used = room.start + SECTOR + len(dump.core)
    assert after[used : room.stop] == before[used : room.stop]


def test_undisturbed_by_a_dump(built: Built, disk: Path) -> None:
    with shell(built.rom(), built.folder, disks=[Disk(disk)], after="stay") as opened:
        stop_guest(opened)
        first, end = opened.vmm.symbols["vm.devices"], opened.vmm.symbols["vm_size"]

        def seen() -> tuple[bytes, bytes, bytes]:
            """Memory, registers, devices and FPU; what the VMM notes of the real channel is its own."""
            base, size = opened.vmm.guest_memory()
            vm = opened.vmm.vm
            return opened.machine.memory.read(base, size), vm(GUEST, "gpr", 32), vm(GUEST, "devices", end - first)

        before = seen()
        shown, blocks = hidden_sectors(opened), opened.do("mem")
        assert "written" in opened.do("dump 1") and "written" in opened.do("dump 1")
        assert seen() == before and hidden_sectors(opened) == shown
        assert opened.do("mem") == blocks


def hidden_sectors(opened: Shell) -> int:
    """Sectors that the drive shows: IDENTIFY DEVICE's words 60 and 61, asked for through the ports."""
    bus = opened.machine.board.bus
    bus.port_write(0x1F6, 0xE0, 1)
    bus.port_write(0x1F7, 0xEC, 1)
    opened.machine.run(seconds=0.1)
    words = [bus.port_read(0x1F0, 2) for _ in range(256)]
    return words[60] | words[61] << 16


def test_without_a_disk(built: Built) -> None:
    with shell(built.rom(), built.folder) as opened:
        assert opened.do("dump 1") == "service   dump: the VMM says: that VM has no disk\n"


def test_without_a_host_protected_area(built: Built, tmp_path: Path) -> None:
    make_disk(tmp_path / "disk.img", dump=0)
    with shell(built.rom(), built.folder, disks=[Disk(tmp_path / "disk.img")]) as opened:
        assert opened.do("dump 1") == "service   dump: no Host Protected Area\n"


def test_a_dump_area_that_is_too_small(built: Built, tmp_path: Path) -> None:
    make_disk(tmp_path / "disk.img", dump=64 << 10)
    with shell(built.rom(), built.folder, disks=[Disk(tmp_path / "disk.img")]) as opened:
        said = opened.do("dump 1")
        assert said.startswith("service   dump: ") and said.endswith(" KiB do not fit into the dump area of 64 KiB\n")


def test_a_drive_that_fails_in_the_middle(built: Built, disk: Path, capfd: Capture) -> None:
    """The header that says `complete` never comes; a dump of an earlier time is gone."""
    hpa = read_hpa(disk)
    opened_disk = Disk(disk)
    with shell(built.rom(), built.folder, disks=[opened_disk]) as opened:
        assert "written" in opened.do("dump 1")
        opened_disk.fail(range(hpa.dump + 100, hpa.dump + 101), "write_fault")
        said = opened.do("dump 1")
        assert said.startswith("service   dump: the drive fails: status ")
        assert opened.do("vms").startswith("VM 1 runs")
    assert not read_dump(disk).complete
    capfd.readouterr()
    assert main(["dump", str(disk)]) == 2
    assert capfd.readouterr().err == f"emu: {disk}: the dump was begun and never ended\n"
    assert main(["dump", "--list", str(disk)]) == 0
    assert capfd.readouterr().out.endswith(" bytes, NOT COMPLETE\n")


def test_emu_dump_lists_and_names_its_file(
    dumped: tuple[Core, bytes, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    core, _, _, image = dumped
    assert main(["dump", "--list", str(image)]) == 0
    out = capfd.readouterr().out
    assert out.startswith(f"{image}: VM 1, access to protected memory, time-stamp counter ")
    assert out.endswith(f", {len(core.data)} bytes, complete\n")
    monkeypatch.chdir(tmp_path)
    assert main(["dump", str(image)]) == 0
    assert (tmp_path / "disk.core").read_bytes() == core.data


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("missing", "No such file or directory"),
        ("plain", "no Host Protected Area"),
        ("empty", "the dump area is empty"),
        ("checksum", "the dump's checksum is wrong"),
        ("short", "not a multiple of 512"),
    ],
)
def test_what_emu_dump_refuses(
    dumped: tuple[Core, bytes, str, Path], tmp_path: Path, capfd: Capture, spoil: str, says: str
) -> None:
    image = tmp_path / "bad.img"
    if spoil == "plain":
        make_disk(image, dump=0)
    elif spoil == "empty":
        make_disk(image)
    elif spoil != "missing":
        data = bytearray(dumped[3].read_bytes())
        data[(read_hpa(dumped[3]).dump + 3) * SECTOR] ^= 1
        image.write_bytes(data[:-1] if spoil == "short" else data)
    assert main(["dump", str(image), "-o", str(tmp_path / "out")]) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"emu: {image}: ") and says in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
