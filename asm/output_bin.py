"""The flat binary: where NASM's bin format puts the sections, and the image that they make.

Sections with contents come first, .text before the others in the order of the source; one with ``start=`` heads a group
that is put at that address, and groups are in the order of their addresses. The others follow at the next multiple of
their alignment (4 if they have none). Sections without contents get addresses behind the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asm.expression import SCALAR, ExpressionError, Section, Symbol
from asm.ir import MAX_IMAGE, Switch
from asm.parse import TokenError

if TYPE_CHECKING:
    from asm.assembler import Assembler

DEFAULT_ALIGN = 4
_NUMERIC = ("align", "valign", "start", "vstart")
_NAMES = ("follows", "vfollows")
_OTHER_FORMATS = ("code", "data", "rdata", "bss", "text", "exec", "noexec", "write", "nowrite", "alloc", "noalloc", "tls")


def section_attributes(assembler: Assembler, section: Section, tokens: Sequence[str], shape: str) -> None:
    """Reads what stands behind a section's name.

    Raises:
        ParseError, TokenError, ExpressionError: an attribute is wrong.
    """
    at = 0
    while at < len(tokens):
        word = tokens[at].lower()
        if word in ("progbits", "nobits"):
            nobits = word == "nobits"
            if nobits != section.nobits and (section.attributes or section.name in (".text", ".data", ".bss")):
                raise TokenError(f"attempt to change the type of section {section.name}", tokens[at])
            section.nobits = nobits
            section.attributes.append(word)
            at += 1
        elif word in (*_NUMERIC, *_NAMES) and shape[at + 1 : at + 2] == "=":
            end = _end_of_value(tokens, shape, at + 2)
            if word in _NAMES:
                setattr(section, word, "".join(tokens[at + 2 : end]))
            else:
                value = assembler.evaluate_now(list(tokens[at + 2 : end]), shape[at + 2 : end])
                if word.endswith("align") and (value < 1 or value & (value - 1)):
                    raise TokenError(f"argument to `{word}' is not a power of two", tokens[at])
                setattr(section, word, value)
            section.attributes.append(word)
            at = end
        else:
            if word not in _OTHER_FORMATS:
                assembler.warn("other", f'ignoring unknown section attribute: "{tokens[at]}"')
            at += 1


def _end_of_value(tokens: Sequence[str], shape: str, at: int) -> int:
    """Where the value of an attribute ends: at the next attribute."""
    end = at + 1
    depth = shape[at : at + 1].count("(")
    while end < len(tokens):
        if not depth and (shape[end : end + 1] in "iId" and (shape[end - 1] in "in)" or shape[end + 1 : end + 2] == "=")):
            break
        depth += (shape[end] == "(") - (shape[end] == ")")
        end += 1
    return end


def _aligned(address: int, align: int) -> int:
    return -(-address // align) * align


def _ordered(sections: Sequence[Section]) -> list[Section]:
    """Sections with `follows` put behind the one they name."""
    result = [section for section in sections if section.follows is None]
    waiting = [section for section in sections if section.follows is not None]
    while waiting:
        names = {section.name: n for n, section in enumerate(result)}
        ready = next((section for section in waiting if section.follows in names), None)
        if ready is None:
            raise ExpressionError(
                f"section {waiting[0].name} follows an invalid or unknown section ({waiting[0].follows})"
            )
        waiting.remove(ready)
        result.insert(names[str(ready.follows)] + 1, ready)
    return result


def place(assembler: Assembler) -> None:
    """Gives every section its load address (`start`) and the address its code is made for (`base`).

    Raises:
        ExpressionError: sections overlap, or lie before the origin.
    """
    sections = list(assembler.sections.values())
    progbits = _groups_by_start(_ordered([section for section in sections if not section.nobits]))
    explicit = {section.name: section.start for section in sections if section.start is not None}
    starts: dict[str, int] = {}
    bases: dict[str, int] = {}
    origin = assembler.origin
    if origin is None:
        nonempty = next((section for section in progbits if section.size), None)
        origin = explicit.get(nonempty.name, 0) if nonempty is not None else 0
        if progbits and nonempty is not progbits[0]:
            origin = explicit.get(progbits[0].name, origin if progbits[0].size else 0)
    end = virtual_end = origin
    previous: Section | None = None
    for section in progbits:
        start = explicit.get(section.name)
        if start is None:
            start = _aligned(end, section.align or (DEFAULT_ALIGN if previous is not None else 1))
        elif section.size and start < origin:
            raise ExpressionError(f"section {section.name} begins before program origin")
        elif previous is not None and start < end and section.size and end > origin:
            raise ExpressionError(f"sections {previous.name} and {section.name} overlap")
        starts[section.name] = start
        bases[section.name] = _virtual(section, start, virtual_end, bases, assembler)
        end = start + section.size
        virtual_end = bases[section.name] + section.size
        previous = section
    for section in _ordered_nobits([section for section in sections if section.nobits]):
        start = _virtual(section, None, virtual_end, bases, assembler)
        bases[section.name] = start
        starts[section.name] = explicit.get(section.name, start)
        virtual_end = start + section.size
    for section in sections:
        section.start = starts[section.name]
        section.base = bases[section.name]
    assembler.load_order = progbits
    _define_section_symbols(assembler)


def _ordered_nobits(sections: Sequence[Section]) -> list[Section]:
    names = {section.name for section in sections}
    chained = [section for section in sections if section.follows is None or section.follows in names]
    return _ordered(chained) + [section for section in sections if section not in chained]


def _groups_by_start(sections: Sequence[Section]) -> list[Section]:
    groups: list[list[Section]] = [[]]
    for section in sections:
        if section.start is not None:
            groups.append([])
        groups[-1].append(section)
    rest = sorted(groups[1:], key=lambda group: group[0].start or 0)
    return [section for group in [groups[0], *rest] for section in group]


def _virtual(
    section: Section, start: int | None, virtual_end: int, bases: dict[str, int], assembler: Assembler
) -> int:
    """The address that a section's code is made for; `start` is None for one without contents."""
    if section.vstart is not None:
        return section.vstart
    follows = section.vfollows or (section.follows if section.nobits else None)
    if follows is not None:
        if follows not in bases:
            raise ExpressionError(f"section {section.name} follows an invalid or unknown section ({follows})")
        virtual_end = bases[follows] + assembler.sections[follows].size
    if start is None and section.start is not None:
        return section.start
    if start is not None and follows is None and section.valign is None:
        return start
    align = section.valign or (section.align if start is None else None) or DEFAULT_ALIGN
    return _aligned(virtual_end, align)


def _define_section_symbols(assembler: Assembler) -> None:
    """NASM's ``section.NAME.start``, ``.vstart`` and ``.length``."""
    for name, section in assembler.sections.items():
        values = {"start": section.start or 0, "vstart": section.base, "length": section.size}
        for suffix, value in values.items():
            symbol: Symbol | None = assembler.symbols.get(f"section.{name}.{suffix}")
            if symbol is not None and not symbol.defined:
                symbol.section, symbol.offset = SCALAR, value


def origin(assembler: Assembler) -> int:
    """The address of the image's first byte."""
    if assembler.origin is not None:
        return assembler.origin
    return next((section.start or 0 for section in assembler.load_order if section.size), 0)


def image(assembler: Assembler) -> bytes:
    """The sections with contents, with zeros between them.

    Raises:
        ExpressionError: the image is unreasonably large.
    """
    first = origin(assembler)
    result = bytearray()
    for section in assembler.load_order:
        if not section.size:
            continue
        gap = (section.start or 0) - first - len(result)
        if len(result) + gap + section.size > MAX_IMAGE:
            raise ExpressionError(f"an image of more than {MAX_IMAGE} bytes: section {section.name} starts too high")
        result += bytes(gap)
        result += b"".join(section.parts)
    return bytes(result)


def line_map(assembler: Assembler) -> list[tuple[int, str, int]]:
    """(address, file, line) of every item that has bytes or space."""
    result = []
    section = assembler.first
    for index, item in enumerate(assembler.items):
        if type(item) is Switch:
            section = item.section
        elif type(item) is not Symbol and section is not SCALAR:
            frame, number = assembler.places[index]
            result.append((section.base + assembler.offsets[index], frame.name, frame.number_of(number)))
    return result
