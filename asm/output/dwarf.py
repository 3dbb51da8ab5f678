"""Line information for a debugger: DWARF Debugging Information Format, version 3.

Each section with code is a compilation unit of its own, so that its addresses are one range.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asm.expression import Section, Symbol
from asm.ir import Equ, Reserve, Switch

if TYPE_CHECKING:
    from asm.assembler import Assembler
    from asm.output.elf import Elf

VERSION = 3
DW_TAG_COMPILE_UNIT = 0x11
DW_AT_NAME, DW_AT_STMT_LIST, DW_AT_LOW_PC, DW_AT_HIGH_PC, DW_AT_LANGUAGE = 0x03, 0x10, 0x11, 0x12, 0x13
DW_AT_COMP_DIR, DW_AT_PRODUCER = 0x1B, 0x25
DW_FORM_ADDR, DW_FORM_DATA2, DW_FORM_DATA4, DW_FORM_STRING = 0x01, 0x05, 0x06, 0x08
DW_LANG_MIPS_ASSEMBLER = 0x8001
DW_LNS_COPY, DW_LNS_ADVANCE_PC, DW_LNS_ADVANCE_LINE, DW_LNS_SET_FILE = 1, 2, 3, 4
DW_LNE_END_SEQUENCE, DW_LNE_SET_ADDRESS = 1, 2
PRODUCER = "emu-asm"
_ABBREVIATION = bytes(
    (
        1, DW_TAG_COMPILE_UNIT, 0,
        DW_AT_STMT_LIST, DW_FORM_DATA4, DW_AT_LOW_PC, DW_FORM_ADDR, DW_AT_HIGH_PC, DW_FORM_ADDR,
        DW_AT_NAME, DW_FORM_STRING, DW_AT_COMP_DIR, DW_FORM_STRING, DW_AT_PRODUCER, DW_FORM_STRING,
        DW_AT_LANGUAGE, DW_FORM_DATA2, 0, 0, 0,
    )
)  # fmt: skip
# The operands of the twelve standard opcodes, and how the special ones would be made, which are not used.
_LINE_HEADER = bytes((1, 1, 0xFB, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1))

Row = tuple[int, str, int]  # offset, file, line


def uleb(value: int) -> bytes:
    """An unsigned LEB128 number."""
    made = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        made.append(low | 0x80 * bool(value))
        if not value:
            return bytes(made)


def sleb(value: int) -> bytes:
    """A signed LEB128 number."""
    made = bytearray()
    while True:
        low = value & 0x7F
        value >>= 7
        done = value == (-1 if low & 0x40 else 0)
        made.append(low | 0x80 * (not done))
        if done:
            return bytes(made)


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape") + b"\0"


class _Contents:
    """A section being written."""

    def __init__(self, elf: Elf, name: str) -> None:
        self.elf = elf
        self.section = Section(name)
        self.section.type, self.section.align = 1, 1
        self.data = bytearray()

    def number(self, value: int, size: int) -> None:
        self.data += value.to_bytes(size, "little")

    def address(self, target: Section, offset: int, size: int) -> None:
        """A place in a section, which the linker fills in."""
        value = self.elf.refer(self.section, len(self.data), target, size, offset)
        self.number(value, size)

    def close_unit(self, start: int) -> None:
        """Puts the length in front of what stands behind `start`, where there is room for it."""
        self.data[start : start + 4] = (len(self.data) - start - 4).to_bytes(4, "little")


def rows_by_section(assembler: Assembler) -> dict[Section, list[Row]]:
    """Where each statement with bytes comes from: a macro's lines from its call, those of %rep from themselves."""
    found: dict[Section, list[Row]] = {}
    section = assembler.first
    for index, item in enumerate(assembler.items):
        if isinstance(item, Switch):
            section = item.section
        elif not isinstance(item, Symbol | Equ | Reserve):
            frame, number = outer, _ = assembler.places[index]
            while outer.parent is not None and outer.kind != "file":
                if outer.kind == "macro":
                    frame, number = outer.parent
                outer, _ = outer.parent
            line = frame.file_of(number), frame.number_of(number)
            found.setdefault(section, []).append((assembler.offsets[index], *line))
    return found


def debug_sections(assembler: Assembler, elf: Elf) -> list[Section]:
    """The sections .debug_info, .debug_abbrev, .debug_line and .debug_aranges of a program."""
    info, abbreviations, lines, ranges = (
        _Contents(elf, f".debug_{name}") for name in ("info", "abbrev", "line", "aranges")
    )
    abbreviations.data += _ABBREVIATION
    word = elf.bits // 8
    for section, rows in rows_by_section(assembler).items():
        if not elf.is_code(section) or not section.size:
            continue
        program = len(lines.data)
        _line_program(lines, section, rows, word)
        unit = len(info.data)
        info.number(0, 4)
        info.number(VERSION, 2)
        info.address(abbreviations.section, 0, 4)
        info.number(word, 1)
        info.data += b"\x01"
        info.address(lines.section, program, 4)
        info.address(section, 0, word)
        info.address(section, section.size, word)
        info.data += _text(assembler.name) + _text(os.getcwd()) + _text(PRODUCER)
        info.number(DW_LANG_MIPS_ASSEMBLER, 2)
        info.close_unit(unit)
        _range(ranges, info.section, unit, section, word)
    made = []
    for contents in (info, abbreviations, lines, ranges):
        contents.section.parts = [bytes(contents.data)]
        contents.section.size = len(contents.data)
        made.append(contents.section)
    return made


def _range(ranges: _Contents, info: Section, unit: int, section: Section, word: int) -> None:
    start = len(ranges.data)
    ranges.number(0, 4)
    ranges.number(2, 2)
    ranges.address(info, unit, 4)
    ranges.data += bytes((word, 0))
    ranges.data += bytes(-(len(ranges.data) - start) % (2 * word))
    ranges.address(section, 0, word)
    ranges.number(section.size, word)
    ranges.data += bytes(2 * word)
    ranges.close_unit(start)


def _line_program(lines: _Contents, section: Section, rows: list[Row], word: int) -> None:
    files = {name: number for number, name in enumerate(dict.fromkeys(name for _, name, _ in rows), 1)}
    start = len(lines.data)
    lines.number(0, 4)
    lines.number(VERSION, 2)
    header = _LINE_HEADER + b"\0" + b"".join(_text(name) + bytes(3) for name in files) + b"\0"
    lines.number(len(header), 4)
    lines.data += header
    lines.data += bytes((0, 1 + word, DW_LNE_SET_ADDRESS))
    lines.address(section, 0, word)
    at, file, line = 0, 1, 1
    for offset, name, number in rows:
        if offset != at:
            lines.data += bytes((DW_LNS_ADVANCE_PC,)) + uleb(offset - at)
        if files[name] != file:
            lines.data += bytes((DW_LNS_SET_FILE,)) + uleb(files[name])
        if number != line:
            lines.data += bytes((DW_LNS_ADVANCE_LINE,)) + sleb(number - line)
        lines.data.append(DW_LNS_COPY)
        at, file, line = offset, files[name], number
    lines.data += bytes((DW_LNS_ADVANCE_PC,)) + uleb(section.size - at)
    lines.data += bytes((0, 1, DW_LNE_END_SEQUENCE))
    lines.close_unit(start)
