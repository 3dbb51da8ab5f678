"""The map of a flat binary, as NASM writes it: sections with addresses and sizes, and symbols by section."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from asm.expression import SCALAR, Section, Symbol
from asm.output import flat

if TYPE_CHECKING:
    from asm.assembler import Assembler

WIDTH = 79
PARTS = frozenset(("brief", "sections", "symbols"))


def _heading(text: str, dashes: str = "--") -> str:
    return f"{dashes} {text} ".ljust(WIDTH, "-")


def symbol_map(assembler: Assembler, parts: Collection[str] = PARTS, output: str = "") -> str:
    """The map of an assembled program.

    Args:
        parts: some of PARTS.
        output: the name of the image's file.
    """
    nobits = [section for section in assembler.sections.values() if section.nobits]
    sections = [*assembler.load_order, *nobits]
    out = ["", "- NASM Map file ".ljust(WIDTH, "-"), "", f"Source file:  {assembler.name}"]
    out += [f"Output file:  {output}", ""] if output else [""]
    if parts != {"symbols"}:
        out += [_heading("Program origin"), "", f"{flat.origin(assembler):08X}", ""]
        out += [_heading("Sections (summary)"), "", *_summary(sections), ""]
    if "sections" in parts:
        out += [_heading("Sections (detailed)"), ""]
        for section in sections:
            out += [_heading(f"Section {section.name}", "----"), "", *_details(section), ""]
    if "symbols" in parts:
        out += [_heading("Symbols"), "", *_symbols(assembler, sections)]
    return "".join(f"{line}\n" for line in out)


def _summary(sections: Sequence[Section]) -> Iterator[str]:
    yield "Vstart            Start             Stop              Length    Class     Name"
    for section in sections:
        start = section.start or 0
        kind = "nobits" if section.nobits else "progbits"
        stop = start + section.size
        yield f"{section.base:16X}  {start:16X}  {stop:16X}  {section.size:08X}  {kind:8}  {section.name}"


def _details(section: Section) -> Iterator[str]:
    def given(value: int | str | None) -> str:
        return "not defined" if value is None else f"{value:16X}" if isinstance(value, int) else value

    yield f"class:     {'nobits' if section.nobits else 'progbits'}"
    yield f"length:    {section.size:16X}"
    yield f"start:     {section.start or 0:16X}"
    yield f"align:     {given(section.align)}"
    yield f"follows:   {given(section.follows)}"
    yield f"vstart:    {section.base:16X}"
    yield f"valign:    {given(section.valign)}"
    yield f"vfollows:  {given(section.vfollows)}"


def _symbols(assembler: Assembler, sections: Sequence[Section]) -> Iterator[str]:
    by_section: dict[Section, list[Symbol]] = {}
    for symbol in assembler.definitions:
        if symbol.section is not None:
            by_section.setdefault(symbol.section, []).append(symbol)
    scalars = by_section.pop(SCALAR, [])
    if scalars:
        yield from (_heading("No Section", "----"), "", "Value     Name")
        for symbol in scalars:
            yield f"{symbol.offset & 0xFFFFFFFFFFFFFFFF:08X}  {symbol.name}"
        yield from ("", "")
    for section in sections:
        symbols = by_section.get(section)
        if symbols:
            yield from (_heading(f"Section {section.name}", "----"), "")
            yield "Real              Virtual           Name"
            for symbol in symbols:
                real = (section.start or 0) + symbol.offset
                yield f"{real:16X}  {section.base + symbol.offset:16X}  {symbol.name}"
            yield ""
