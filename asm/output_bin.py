"""The flat binary: where NASM's bin format puts the sections, and the image that they make.

Sections with contents come first, .text before the others in the order of the source; one with ``start=`` heads a group
that is put at that address, and groups are in the order of their addresses. The others follow at the next multiple of
their alignment (4 if they have none). Sections without contents get addresses behind the last one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from asm.expression import SCALAR, ExpressionError, Section, Symbol
from asm.ir import MAX_IMAGE, Switch
from asm.parse import TokenError

if TYPE_CHECKING:
    from asm.assembler import Assembler

DEFAULT_ALIGN = 4
_NUMERIC = ("align", "valign", "start", "vstart")
_NAMES = ("follows", "vfollows")


def section_attributes(assembler: Assembler, section: Section, tokens: Sequence[str], shape: str) -> None:
    """Reads what stands behind a section's name.

    Raises:
        ParseError, TokenError, ExpressionError: an attribute is wrong.
    """
    at = 0
    has_type = bool(section.attributes)  # from a line before
    while at < len(tokens):
        word = tokens[at].lower()
        if word in ("progbits", "nobits"):
            nobits = word == "nobits"
            if nobits != section.nobits and (has_type or section.name in (".text", ".data", ".bss")):
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
            assembler.warn("other", f'ignoring unknown section attribute: "{tokens[at]}"')
            at += 1


def _end_of_value(tokens: Sequence[str], shape: str, at: int) -> int:
    """Where the value of an attribute ends: at the next attribute."""
    end = at + 1
    depth = shape[at : at + 1].count("(")
    while end < len(tokens):
        if not depth and (
            shape[end : end + 1] in "iId" and (shape[end - 1] in "in)" or shape[end + 1 : end + 2] == "=")
        ):
            break
        depth += (shape[end] == "(") - (shape[end] == ")")
        end += 1
    return end


def _aligned(address: int, align: int) -> int:
    return -(-address // align) * align


def _ordered(sections: Sequence[Section]) -> list[Section]:
    """Sections with `follows` put behind the one they name, each with those that come after it and say nothing."""
    groups: list[list[Section]] = [[]]
    for section in sections:
        if section.follows is not None or section.start is not None:
            groups.append([])
        groups[-1].append(section)
    result = [section for group in groups for section in group if group[0].follows is None]
    waiting = [group for group in groups if group and group[0].follows is not None]
    while waiting:
        names = {section.name: n for n, section in enumerate(result)}
        ready = next((group for group in waiting if group[0].follows in names), None)
        if ready is None:
            raise ExpressionError(
                f"section {waiting[0][0].name} follows an invalid or unknown section ({waiting[0][0].follows})"
            )
        waiting.remove(ready)
        at = names[str(ready[0].follows)] + 1
        result[at:at] = ready
    return result


def _check_mixture(sections: Iterable[Section]) -> None:
    for section in sections:
        wanted = set(section.attributes)
        if section.nobits and wanted & {"start", "align", "follows"} and wanted & {"vstart", "valign", "vfollows"}:
            raise ExpressionError(f"cannot mix real and virtual attributes in nobits section ({section.name})")


def place(assembler: Assembler) -> None:
    """Gives every section its load address (`start`) and the address its code is made for (`base`).

    Raises:
        ExpressionError: sections overlap, or lie before the origin.
    """
    sections = assembler.sections
    _check_mixture(sections.values())
    progbits = _groups_by_start(_ordered([section for section in sections.values() if not section.nobits]))
    nobits = _ordered_nobits([section for section in sections.values() if section.nobits])
    starts = _load_addresses(progbits, assembler.origin)
    chain = progbits + nobits
    before = {section.name: previous for previous, section in itertools.pairwise(chain)}
    bases: dict[str, int] = {}
    waiting: set[str] = set()

    def base(section: Section) -> int:
        if section.name not in bases:
            if section.name in waiting:
                raise ExpressionError(f"section {section.name} follows itself")
            waiting.add(section.name)
            bases[section.name] = _base(section)
        return bases[section.name]

    def _base(section: Section) -> int:
        if section.vstart is not None:
            return section.vstart
        name = section.vfollows or (section.follows if section.nobits else None)
        if name is None:
            if section.nobits and section.start is not None:
                return section.start
            if not section.nobits and section.valign is None:
                return starts[section.name]
        previous = before.get(section.name) if name is None else sections.get(name)
        if name is not None and previous is None:
            raise ExpressionError(f"section {section.name} follows an invalid or unknown section ({name})")
        if previous is None:
            end = starts.get(section.name, 0)
        elif name is None and not section.nobits:  # NASM counts from where the previous section is loaded
            end = starts[previous.name] + previous.size
        else:
            end = base(previous) + previous.size
        return _aligned(end, section.valign or (section.align if section.nobits else None) or DEFAULT_ALIGN)

    for section in chain:
        section.base = base(section)
    for section in progbits:
        section.start = starts[section.name]
    for section in nobits:
        section.start = section.base if section.start is None else section.start
    assembler.load_order = progbits
    _define_section_symbols(assembler)


def _load_addresses(progbits: Sequence[Section], origin: int | None) -> dict[str, int]:
    """Where sections with contents are loaded, by name."""
    starts: dict[str, int] = {}
    if origin is None:
        first = next((section for section in progbits if section.size), None)
        origin = first.start or 0 if first is not None and first.start is not None else 0
    end = origin
    previous: Section | None = None
    for section in progbits:
        start = section.start
        if start is None:
            start = _aligned(end, section.align or (DEFAULT_ALIGN if previous is not None else 1))
        elif section.size and start < origin:
            raise ExpressionError(f"section {section.name} begins before program origin")
        elif previous is not None and section.size and start < end and previous.size:
            raise ExpressionError(f"sections {previous.name} and {section.name} overlap")
        starts[section.name] = start
        end = start + section.size
        previous = section
    return starts


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
            result.append((section.base + assembler.offsets[index], frame.file_of(number), frame.number_of(number)))
    return result
