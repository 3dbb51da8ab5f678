"""Gives every item its place: passes over the program until no symbol moves, as NASM's -Ox does.

In a pass a symbol that stands above has this pass's value, one that stands below that of the pass before; in the first
it has none, and jumps to it count as short. Only what can still change its length is looked at again: runs of bytes
whose length is known are skipped as one gap.
"""

from __future__ import annotations

from collections.abc import Sequence

from asm.expression import ExpressionError, Section, Symbol
from asm.instructions.operands import EncodeError
from asm.ir import Branch, Equ, Fixed, Instruction, Item, Probe, Switch

MAX_PASSES = 1000


class ProbeError(Exception):
    """The preprocessor would have read the source otherwise in this pass; the symbols are as before the pass."""


class Layout:
    """The state of the passes over a program that may still be growing.

    Args:
        items: the program; it may be appended to between calls of `catch_up`.
        first: the section that it starts in.
    """

    def __init__(self, items: Sequence[Item], first: Section) -> None:
        self.items = items
        self.first = first
        self.section = first
        self.offset = 0
        self.reached = 0
        self.overlay = False  # the section at hand is only being named by `absolute`
        self.before: list[tuple[Symbol, Section | None, int]] = []

    def catch_up(self) -> None:
        """Carries the first pass on to the end of the items there are."""
        if self.reached == len(self.items):
            return
        steps, self.reached = self._steps(self.reached), len(self.items)
        self._pass(steps)

    def settle(self, sections: Sequence[Section]) -> None:
        """Runs passes until nothing moves.

        Raises:
            ExpressionError: nothing settles.
            ProbeError: the preprocessor must look at the source again.
        """
        self.catch_up()
        steps = self._steps(0)
        probed = any(type(item) is Probe for _, item in steps)
        for _ in range(MAX_PASSES):
            self._leave()
            if probed:
                self._remember()
            sizes = [section.offset for section in sections]
            for section in sections:
                section.offset = 0
            self.section, self.offset = self.first, 0
            self.overlay = False
            changed = self._pass(steps)
            self._leave()
            if not changed and sizes == [section.offset for section in sections]:
                for section in sections:
                    section.size = section.offset
                return
        raise ExpressionError(f"unable to find valid values for all labels after {MAX_PASSES} passes")

    def _remember(self) -> None:
        """Notes where the symbols are, for `_pass` to go back to."""
        moving = [item.symbol if type(item) is Equ else item for item in self.items if type(item) in (Symbol, Equ)]
        self.before = [(symbol, symbol.section, symbol.offset) for symbol in moving]  # type: ignore[union-attr, misc]

    def _leave(self) -> None:
        if not self.overlay:
            self.section.offset = self.offset

    def _steps(self, start: int) -> list[tuple[int, Item]]:
        """The items that must be looked at, each with the bytes before it; the last is a gap alone."""
        steps: list[tuple[int, Item]] = []
        gap = 0
        for index in range(start, len(self.items)):
            item = self.items[index]
            kind = type(item)
            if kind is bytes:
                gap += len(item)  # type: ignore[arg-type]
            elif kind is Fixed:
                gap += len(item.data)  # type: ignore[union-attr]
            elif kind is Instruction and item.fixed:  # type: ignore[union-attr]
                gap += len(item.code.data)  # type: ignore[union-attr]
            else:
                steps.append((gap, item))
                gap = 0
        steps.append((gap, b""))
        return steps

    def _pass(self, steps: list[tuple[int, Item]]) -> bool:
        """One pass over steps, from where `section` and `offset` say; returns whether a symbol moved."""
        changed = False
        section, offset = self.section, self.offset
        for gap, item in steps:
            offset += gap
            kind = type(item)
            if kind is Symbol:
                if item.offset != offset or item.section is not section:  # type: ignore[union-attr]
                    item.offset, item.section = offset, section  # type: ignore[union-attr]
                    changed = True
                continue
            if kind is Branch and type(item.expression) is Symbol:  # type: ignore[union-attr]
                target = item.expression  # type: ignore[union-attr]
                length = item.short_length  # type: ignore[union-attr]
                if target.section is section:
                    if not -128 <= target.offset - offset - length <= 127:
                        length = item.long_length  # type: ignore[union-attr]
                elif target.section is not None:
                    length = item.long_length  # type: ignore[union-attr]
                item.length = length  # type: ignore[union-attr]
                offset += length
                continue
            if kind is bytes:
                continue
            try:
                if isinstance(item, Switch):
                    if not self.overlay:
                        section.offset = offset
                    section, offset = item.enter(section, offset)
                    self.overlay = item.overlay
                elif kind is Probe:
                    if item.differs(section, offset):  # type: ignore[union-attr]
                        for symbol, home, place in self.before:
                            symbol.section, symbol.offset = home, place
                        raise ProbeError
                else:
                    offset += item.size(section, offset)  # type: ignore[union-attr]
                    if kind is Equ:
                        changed |= item.changed  # type: ignore[union-attr]
            except (ExpressionError, EncodeError):
                continue  # of no length; if it is still wrong in the end, `emit` says so
        self.section, self.offset = section, offset
        return changed
