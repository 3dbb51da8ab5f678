"""Disassembly of a processor's memory and of files."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emu._core import Processor
    from emu.debug.source_line import SourceLine

__all__ = ["Names", "coloured", "disassemble", "listing"]

MAX_LENGTH = 15  # bytes of an instruction
PAGE_SIZE = 4096
PIECE = 256  # instructions
MOST = 1 << 20  # instructions of one call
EFER_LMA = 1 << 10
# What an instruction's text says of a place: the target of a branch, an address without registers.
TARGET = re.compile(r"(?:.* )?(?:j\w+|call|loop\w*|xbegin)(?: short| near| word| dword| qword)* (0x[0-9a-f]+|\d)")
ADDRESS = re.compile(r"\[(?:rel |abs |byte |word |dword |qword |a16 |a32 |[c-gs]s:)*(0x[0-9a-f]+|\d)\]")


class Names:
    """What symbols say of the places that instructions name.

    Args:
        symbols: name to address.
    """

    def __init__(self, symbols: Mapping[str, int]) -> None:
        self.at: dict[int, str] = {}
        for name, address in symbols.items():
            self.at.setdefault(address, name)
        self.addresses = sorted(self.at)

    def comment(self, text: str, base: int = 0) -> str:
        """A comment with the symbol that an instruction's text refers to; empty where there is none.

        The target of a branch may lie behind its symbol; an address in memory must be a symbol's own.

        Args:
            base: of the code segment, where symbols are linear addresses; data is named only where it is 0.
        """
        if not self.addresses:
            return ""
        target = TARGET.fullmatch(text)
        if target is not None:
            address = base + int(target[1], 0)
            place = bisect_right(self.addresses, address)
            if not place:
                return ""
            start = self.addresses[place - 1]
            behind = f"+{address - start:#x}" if address != start else ""
            return f" ; {self.at[start]}{behind}"
        memory = ADDRESS.search(text) if not base else None
        name = self.at.get(int(memory[1], 0)) if memory is not None else None
        return f" ; {name}" if name else ""


def disassemble(processor: "Processor", la: int, count: int = 1) -> list[tuple[int, bytes, str]]:
    """Disassembles `count` instructions from a linear address, in the processor's present code size.

    Returns:
        For each its linear address, bytes and text in NASM's syntax, where branches name offsets in the code segment;
        what is no instruction is `db`, a byte at a time. It ends early where no page is mapped, and goes on at 0 after
        the last linear address: 4 GiB - 1 outside IA-32e mode.

    Raises:
        ValueError: more than 1,048,576 instructions, whose code would be read first.
    """
    from asm.instructions.disassemble import disassemble

    if count > MOST:
        raise ValueError(f"count is at most {MOST:,}, not {count:,}")
    if count <= 0:
        return []
    last = (1 << (64 if processor.efer & EFER_LMA else 32)) - 1
    la &= last
    code = bytearray()
    while len(code) < count * MAX_LENGTH and processor.translate(at := (la + len(code)) & last) is not None:
        code += processor.read_linear(at, PAGE_SIZE - at % PAGE_SIZE)
    base = processor.cs.base if la - processor.cs.base in range(processor.cs.limit + 1) else 0
    found = disassemble(bytes(code), processor.bits, la - base, count, exact=False)
    return [((base + offset) & last, data, text) for offset, data, text in found]


def listing(
    data: bytes,
    bits: int,
    origin: int = 0,
    symbols: Mapping[str, int] | None = None,
    lines: Mapping[int, "SourceLine"] | None = None,
) -> Iterator[str]:
    """Lines of a disassembled file: address, bytes, instruction, with a line `name:` before an address that has one.

    The line of the source stands, as a comment, before the first instruction of it.

    What an instruction refers to is named in a comment behind it.
    """
    from asm.instructions.disassemble import disassemble

    names: dict[int, list[str]] = {}
    for name, address in (symbols or {}).items():
        names.setdefault(address, []).append(name)
    width = 16 if (origin + len(data) - 1) >> 32 else 8
    known = Names(symbols or {})
    labels = sorted(address - origin for address in names)
    lines = lines or {}
    source = None
    position = 0
    while position < len(data):
        yield from (f"{name}:" for name in names.get(origin + position, ()))
        # A label begins an instruction: what stands before it must not run over it.
        while labels and labels[0] <= position:
            labels.pop(0)
        end = min([*labels[:1], len(data)])
        # A piece at a time, so that the first line of a large file does not wait for the last.
        piece = data[position : min(end, position + PIECE * MAX_LENGTH)]
        for address, code, text in disassemble(piece, bits, origin + position, PIECE, exact=False):
            if (line := lines.get(address)) is not None and line != source:
                source = line
                yield f"; {line}: {line.text}"
            yield f"{address:0{width}X}  {code.hex().upper():<20}  {text}{known.comment(text)}"
            position += len(code)


def coloured(text: str) -> str:
    """An instruction's text in colour, for a terminal."""
    from asm.command.colour import paint

    return paint(text)
