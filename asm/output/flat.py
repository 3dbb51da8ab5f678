"""The flat binary: where NASM's bin format puts the sections, and the image that they make.

Sections with contents come first, .text before the others in the order of the source; one with ``start=`` heads a group
that is put at that address, and groups are in the order of their addresses. The others follow at the next multiple of
their alignment (4 if they have none). Sections without contents get addresses behind the last one.
"""

from __future__ import annotations

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
            value: int | str
            if word in _NAMES:
                value = "".join(tokens[at + 2 : end])
            else:
                value = assembler.evaluate_now(list(tokens[at + 2 : end]), shape[at + 2 : end])
            _set_attribute(section, word, value, tokens[at])
            section.attributes.append(word)
            at = end
        else:
            assembler.warn("other", f'ignoring unknown section attribute: "{tokens[at]}"')
            at += 1


def _set_attribute(section: Section, word: str, value: int | str, token: str) -> None:
    virtual = "v" if word[0] == "v" else ""
    start, align = getattr(section, f"{virtual}start"), getattr(section, f"{virtual}align")
    if word.endswith("align"):
        if not isinstance(value, int) or value < 1 or value & (value - 1):
            raise TokenError(f"argument to `{word}' is not a power of two", token)
        value = max(value, align or 1)
        if start is not None and start & (value - 1):
            raise TokenError(f"`{word}' value conflicts with the section's `{virtual}start' address", token)
    elif word.endswith("start"):
        if getattr(section, f"{virtual}follows") is not None:
            raise TokenError(f"cannot combine `{word}' and `{virtual}follows' section attributes", token)
        if start not in (None, value):
            raise TokenError(f"section's `{word}' address redefined", token)
        if align is not None and int(value) & (align - 1):
            raise TokenError(f"`{word}' address conflicts with the section's `{virtual}align' value", token)
        setattr(section, f"{virtual}align", None)
    elif start is not None:
        raise TokenError(f"cannot combine `{virtual}start' and `{word}' section attributes", token)
    setattr(section, word, value)


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


def _linked(sections: Sequence[Section]) -> list[Section]:
    """Puts the sections with `follows`, each with those behind it that say nothing, behind the one that they name.

    Raises:
        ExpressionError: there is no such section, or there are two for its place.
    """
    order = list(sections)
    at = 0
    for _ in range(len(order) ** 2 + 1):
        if at < len(order) and order[at].follows is None:
            while at + 1 < len(order) and order[at + 1].follows in (None, order[at].name):
                at += 1
            at += 1
        if at >= len(order):
            return order
        leader = order[at]
        target = next((n for n, section in enumerate(order) if section.name == leader.follows), None)
        if target is None:
            raise ExpressionError(f"section {leader.name} follows an invalid or unknown section ({leader.follows})")
        if target == at:
            raise ExpressionError(f"section {leader.name} is self following")
        if target + 1 < len(order) and order[target + 1].follows == leader.follows:
            names = f"{leader.name} and {order[target + 1].name}"
            raise ExpressionError(f"sections {names} can't both follow section {leader.follows}")
        end = at + 1
        while end < len(order) and end != target and order[end].start is None:
            end += 1
            if end < len(order) and order[end].follows not in (None, order[end - 1].name):
                break
        group = order[at:end]
        order[target + 1 : target + 1] = group
        if target < at:
            at += len(group)
            del order[at : at + len(group)]
        else:
            del order[at : at + len(group)]
    raise ExpressionError(f"section {order[at].name} follows itself by way of others")


def _sorted_by_start(sections: Sequence[Section]) -> list[Section]:
    """Groups that a section with `start` leads, in the order of their addresses."""
    groups: list[list[Section]] = [[]]
    for section in sections:
        if section.start is not None:
            groups.append([])
        groups[-1].append(section)
    rest = sorted(groups[1:], key=lambda group: group[0].start or 0)
    return [section for group in [groups[0], *rest] for section in group]


def _make_virtual(sections: Iterable[Section]) -> None:
    for section in sections:
        real = section.start is not None or section.align is not None or section.follows is not None
        virtual = section.vstart is not None or section.valign is not None or section.vfollows is not None
        if section.nobits and real and virtual:
            raise ExpressionError(f"cannot mix real and virtual attributes in nobits section ({section.name})")
        if section.nobits and real:  # which mean the same there
            section.vstart, section.valign, section.vfollows = section.start, section.align, section.follows
            section.follows = None


def place(assembler: Assembler) -> None:
    """Gives every section its load address (`start`) and the address its code is made for (`base`).

    Raises:
        ExpressionError: sections overlap, or lie before the origin.
    """
    text = assembler.first
    created = [text, *(section for section in assembler.named if section is not text)]
    _make_virtual(created)
    progbits = _sorted_by_start(_linked([section for section in created if not section.nobits]))
    nobits = [section for section in created if section.nobits]
    bases = _load(progbits, assembler.origin)
    _find_bases(bases, created, progbits, nobits)
    for section in created:
        section.base = bases[section]
    for section in nobits:
        section.start = section.base
    assembler.load_order = progbits
    _define_section_symbols(assembler)


def _load(progbits: Sequence[Section], origin: int | None) -> dict[Section, int]:
    """Gives sections with contents their load addresses; returns the bases of those that have no need of others.

    Raises:
        ExpressionError: sections overlap, or lie before the origin.
    """
    bases: dict[Section, int] = {}
    if not progbits:
        return bases
    first = progbits[0]
    if origin is None:
        origin = first.start or 0
    end = first.start if first.start is not None else _aligned(origin, first.align or 1)
    fixed = [n for n, section in enumerate(progbits) if n and section.start is not None and section.size]
    last = first
    for n, section in enumerate(progbits):
        if section.start is None and n:
            section.align = section.align or DEFAULT_ALIGN
        if section.start is None:
            section.start = _aligned(end, section.align or 1)
        if section.start < origin and (section.size or not n):
            raise ExpressionError(f"section {section.name} begins before program origin")
        if section.vstart is not None:
            bases[section] = section.vstart
        elif section.vfollows is None:
            bases[section] = section.start if section.valign is None else _aligned(end, section.valign)
        if section.start < end:
            if section.size:
                raise ExpressionError(f"sections {last.name} and {section.name} overlap")
            continue
        end = section.start + section.size
        following = next((progbits[m] for m in fixed if m > n), None)
        if following is not None and end > (following.start or 0):
            raise ExpressionError(f"sections {section.name} and {following.name} overlap")
        last = section
    return bases


def _find_bases(
    bases: dict[Section, int], created: Sequence[Section], progbits: Sequence[Section], nobits: Sequence[Section]
) -> None:
    """Works out the addresses that follow from those of other sections.

    Raises:
        ExpressionError: there is no such section, or they follow each other in a circle.
    """
    before = dict(zip(created[1:], created, strict=False))
    waiting = [section for section in (*progbits, *nobits) if section not in bases]
    while waiting:
        left = []
        for section in waiting:
            if section.vstart is not None:
                bases[section] = section.vstart
                continue
            if section.vfollows is not None:
                previous = next((other for other in created if other.name == section.vfollows), None)
                if previous is None:
                    raise ExpressionError(f"section {section.name} vfollows unknown section ({section.vfollows})")
            else:  # .bss lies behind all that is loaded, wherever it is named first
                previous = progbits[-1] if section.name == ".bss" else before[section]
            if previous not in bases:
                left.append(section)
                continue
            section.valign = section.valign or DEFAULT_ALIGN
            bases[section] = _aligned(bases[previous] + previous.size, section.valign)
        if len(left) == len(waiting):
            raise ExpressionError(f"section {left[0].name} vfollows itself by way of others")
        waiting = left


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
    return assembler.load_order[0].start or 0 if assembler.load_order else 0


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
