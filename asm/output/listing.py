"""The listing, in the format of NASM's -l: line number, offset in the section, bytes, nesting level, source line.

Fields that the placing of sections fills in stand in brackets, those relative to the next instruction in parentheses,
both with the value they have before it.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from asm.expression import ExpressionError, Linear, Section, evaluate
from asm.instructions.operands import EncodeError
from asm.ir import Branch, Fixed, Instruction, Item, Padding, Patch, Reserve, Switch, Times, address_field
from asm.preprocessor.preprocess import HIDDEN

if TYPE_CHECKING:
    from asm.assembler import Assembler

HEX_WIDTH = 18  # characters of bytes on a line
BLANK = " " * (HEX_WIDTH + 10)


class _Quiet:
    """Takes the bytes once more without saying anything."""

    def warn(self, warning: str, message: str) -> None:
        pass

    @staticmethod
    def resolve(value: int | Linear, section: Section, start: int, end: int, at: int, size: int, kind: str) -> int:
        if isinstance(value, Linear) and (value.wrt or value.terms != {section: 1}):
            return 0
        return address_field(value, section, start, end, at, size, kind)


_QUIET = _Quiet()


def listing(assembler: Assembler) -> str:
    """The listing of an assembled program whose assembler kept a record of the lines."""
    record = assembler.record or []
    sections = _sections_of_items(assembler)
    messages = _messages_of_lines(assembler)
    count = min(len(assembler.items), len(assembler.offsets))  # none where the source's errors left no layout
    out: list[str] = []
    for n, (line_number, text, level, first) in enumerate(record):
        if level == HIDDEN:
            continue
        last = min(record[n + 1][3] if n + 1 < len(record) else count, count)
        depth = f"{' ' if level < 10 else ''}<{level}>" if level else "    "
        pending = deque(messages.get(n, ()))
        is_first = True
        for row, reached in _rows(assembler, sections, first, last, assembler.spaces.get(n, ())):
            out.append(f"{line_number:6} {row}" + (f"{depth} {text}" if is_first else depth if level else ""))
            is_first = False
            while pending and (pending[0][0] <= reached or reached == last):
                out.append(f"{line_number:6}{' ' * 10}{'*' * HEX_WIDTH} {depth}  {pending.popleft()[1]}")
    return "".join(f"{line}\n" for line in out)


def _messages_of_lines(assembler: Assembler) -> dict[int, list[tuple[int, str]]]:
    """By line of the record: the item that each message comes before, and its text."""
    firsts = [first for *_, first in assembler.record or []]
    found: dict[int, list[tuple[int, str]]] = {}
    for line, item, diagnostic in assembler.listed_messages:
        if line < 0:
            line = bisect_right(firsts, item) - 1
        text = f"{diagnostic.severity}: {diagnostic.message}"
        text += f" [-w+{diagnostic.warning}]" if diagnostic.warning else ""
        found.setdefault(line, []).append((item, text))
    for listed in found.values():
        listed.sort(key=lambda entry: entry[0])
    return found


def _sections_of_items(assembler: Assembler) -> list[Section]:
    sections = []
    section = assembler.first
    for item in assembler.items:
        if type(item) is Switch:
            section = item.section
        sections.append(section)
    return sections


def _rows(
    assembler: Assembler, sections: list[Section], first: int, last: int, spaces: Sequence[tuple[int, int]]
) -> Iterator[tuple[str, int]]:
    """The columns of offset and bytes that the items of one line take, at least one, each with the last item in it.

    A line's last row comes with the number of the item behind it.
    """
    data, start = "", 0
    items = ((index, piece) for index in range(first, last) for piece in _pieces(assembler, index, sections[index]))
    absolute = ((last, piece) for space in spaces for piece in _space(assembler, *space))
    for index, (offset, piece) in itertools.chain(items, absolute):
        if len(data) + len(piece) > HEX_WIDTH:
            yield f"{start & 0xFFFFFFFF:08X} {data + '-':<{HEX_WIDTH + 1}}", index
            data = ""
        if not data:
            start = offset
        data += piece
    yield f"{start & 0xFFFFFFFF:08X} {data:<{HEX_WIDTH + 1}}" if data else BLANK, last


def _pieces(assembler: Assembler, index: int, section: Section) -> Iterator[tuple[int, str]]:
    """What an item shows: (offset, text), never cut in two."""
    item = assembler.items[index]
    offset = assembler.offsets[index]
    blanks = assembler.blanks.get(index, ())
    if index in assembler.included:
        count = assembler.repeated.get(index, 1)
        yield offset, f"<bin {_count(assembler, len(item) // max(count, 1))}>"  # type: ignore[arg-type]
        if count > 1:
            yield offset, f"<rep {_count(assembler, count)}>"
    elif type(item) is Times:
        if item.count:
            yield from _item_pieces(assembler, item.body, section, offset, blanks)
            if item.count > 1:
                yield offset, f"<rep {_count(assembler, item.count)}>"
    elif index in assembler.repeated and type(item) is bytes:
        count = assembler.repeated[index]
        if count:
            yield from _item_pieces(assembler, item[: len(item) // count], section, offset, blanks)
            if count > 1:
                yield offset, f"<rep {_count(assembler, count)}>"
    else:
        yield from _item_pieces(assembler, item, section, offset, blanks)


def _with_blanks(
    assembler: Assembler, item: bytes | Fixed, section: Section, offset: int, blanks: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, str]]:
    """Data in which ``?`` left space open."""
    spaces = iter(blanks)
    begin, size = next(spaces)
    for place, piece in _item_pieces(assembler, item, section, offset):
        if place == offset + begin:
            yield from _space(assembler, place, size)
        if not offset + begin <= place < offset + begin + size:
            yield place, piece
        elif place == offset + begin + size - 1:
            begin, size = next(spaces, (-1, 0))


def _space(assembler: Assembler, offset: int, size: int) -> Iterator[tuple[int, str]]:
    if size:
        yield offset, "??" * size if size <= 8 else f"<res {_count(assembler, size)}>"


def _count(assembler: Assembler, count: int) -> str:
    """How often, or how much: hexadecimal, or with -Ld decimal."""
    return str(count) if "d" in assembler.preprocessor.listing_flags else f"{count:X}h"


def _item_pieces(
    assembler: Assembler, item: Item, section: Section, offset: int, blanks: Sequence[tuple[int, int]] = ()
) -> Iterator[tuple[int, str]]:
    if blanks and isinstance(item, bytes | Fixed):
        yield from _with_blanks(assembler, item, section, offset, blanks)
        return
    if type(item) is bytes:
        for n, byte in enumerate(item):
            yield offset + n, f"{byte:02X}"
        return
    if type(item) is Padding:
        start = offset
        for code, count in item.parts(section, offset):
            if count:
                yield from _item_pieces(assembler, code, section, offset)
            if count > 1:
                yield start, f"<rep {_count(assembler, count)}>"
            offset += len(code) * count
        return
    if type(item) is Reserve:
        yield from _space(assembler, offset, item.size(section, offset))
        return
    if not isinstance(item, Fixed | Branch | Instruction):
        return
    try:
        item.size(section, offset)  # the form that it has here: in a repetition the last may have had another
        data = item.emit(section, offset, _QUIET)
    except (ExpressionError, EncodeError):
        return
    patches = item.patches if isinstance(item, Fixed) else item.patches()
    fields: dict[int, Patch] = {patch.offset: patch for patch in patches}
    n = 0
    while n < len(data):
        patch = fields.get(n)
        value = evaluate(patch.expression, section, offset) if patch is not None else None
        if patch is not None and patch.kind == "rel" and isinstance(value, int):
            yield offset + n, f"({(value & ((1 << 8 * patch.size) - 1)).to_bytes(patch.size, 'little').hex().upper()})"
            n += patch.size
            continue
        if patch is None or not isinstance(value, Linear) or (patch.kind == "rel" and set(value.terms) == {section}):
            yield offset + n, f"{data[n]:02X}"
            n += 1
            continue
        width = min(patch.size, assembler.format.address_size)
        text = (value.const & ((1 << 8 * width) - 1)).to_bytes(width, "little").hex().upper()
        is_distance = patch.kind == "rel" or value.terms.get(section) == -1
        yield offset + n, f"({text})" if is_distance else f"[{text}]"
        for at in range(width, patch.size):  # filled up with zeros
            yield offset + n + at, "00"
        n += patch.size
