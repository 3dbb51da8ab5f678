"""The map file: sections with addresses and sizes, and symbols by section, as NASM's map of a flat binary has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asm import output_bin
from asm.expression import SCALAR, Section, Symbol

if TYPE_CHECKING:
    from asm.assembler import Assembler

WIDTH = 79


def _heading(text: str, dashes: str = "--") -> str:
    return f"{dashes} {text} ".ljust(WIDTH, "-")


def symbol_map(assembler: Assembler) -> str:
    """The map of an assembled program."""
    nobits = [section for section in assembler.sections.values() if section.nobits]
    sections = [section for section in [*assembler.load_order, *nobits] if section.size or section.parts]
    out = ["", "- NASM Map file ".ljust(WIDTH, "-"), "", f"Source file:  {assembler.name}", ""]
    out += [_heading("Program origin"), "", f"{output_bin.origin(assembler):08X}", ""]
    out += [_heading("Sections (summary)"), ""]
    out += ["Vstart            Start             Stop              Length    Class     Name"]
    for section in sections:
        start = section.start or 0
        kind = "nobits" if section.nobits else "progbits"
        stop = start + section.size
        out.append(f"{section.base:16X}  {start:16X}  {stop:16X}  {section.size:08X}  {kind:8}  {section.name}")
    out += ["", _heading("Symbols"), ""]
    by_section: dict[Section, list[Symbol]] = {}
    for symbol in assembler.symbols.values():
        if symbol.defined and symbol.section is not None and not symbol.name.startswith("..@"):
            by_section.setdefault(symbol.section, []).append(symbol)
    scalars = by_section.pop(SCALAR, [])
    if scalars:
        out += [_heading("No Section", "----"), "", "Value     Name"]
        out += [f"{symbol.offset & 0xFFFFFFFFFFFFFFFF:08X}  {symbol.name}" for symbol in scalars]
        out += ["", ""]
    for section in sections:
        symbols = by_section.get(section)
        if symbols:
            out += [_heading(f"Section {section.name}", "----"), ""]
            out += ["Real              Virtual           Name"]
            for symbol in symbols:
                real = (section.start or 0) + symbol.offset
                out.append(f"{real:16X}  {section.base + symbol.offset:16X}  {symbol.name}")
            out.append("")
    return "".join(f"{line}\n" for line in out)
