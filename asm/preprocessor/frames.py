"""Where lines come from: files, macros' bodies and repetitions being read, and the text of a source."""

from __future__ import annotations

from bisect import bisect
from typing import TypeAlias

from asm.preprocessor.macros import Call

MAX_INCLUDES = 100


class SourceError(Exception):
    """A source that cannot be read on; the error has no line of its own."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class DirectiveError(Exception):
    """A preprocessor directive that is wrong. `word` is the token at fault."""

    def __init__(self, message: str, word: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.word = word


class Frame:
    """Lines being read: a file, a macro's body or a repetition's.

    kind: ``file``, ``macro`` or ``rep``. name: of the file the lines come from. first: number there of the first line.
    parent: the place of the include, call or %rep. call: whose parameters the lines may use.
    """

    __slots__ = (
        "call",
        "conditions",
        "first",
        "iterator",
        "kind",
        "lines",
        "lists",
        "marks",
        "name",
        "number",
        "parent",
        "remaining",
        "title",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        name: str,
        lines: list[str],
        parent: Place | None,
        first: int = 1,
        title: str = "",
        call: Call | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.lines = lines
        self.parent = parent
        self.first = first
        self.title = title
        self.call = call
        self.iterator = iter(lines)
        self.number = 0  # of the line read last, from 1
        self.remaining = 0  # repetitions to come
        self.conditions = 0  # how many %if were open when the frame was entered
        self.marks: list[tuple[int, int, int, str]] = []  # of each %line: where it is, number, increment, file
        self.lists = True

    def line(self, number: int) -> str:
        """The text of a line."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def number_of(self, number: int) -> int:
        """The line's number in the file, or what a %line before it makes of that."""
        if self.marks:
            at = bisect(self.marks, number, key=_place_of_mark)
            if at:
                place, numbered, step, _ = self.marks[at - 1]
                return numbered + (number - place) * step
        return self.first + number - 1

    def file_of(self, number: int) -> str:
        """The file that the line stands in, or that a %line before it names."""
        at = bisect(self.marks, number, key=_place_of_mark)
        return self.marks[at - 1][3] if at else self.name


def _place_of_mark(mark: tuple[int, int, int, str]) -> int:
    return mark[0]


Place: TypeAlias = tuple[Frame, int]


class Condition:
    """An open %if: whether its lines are read, whether a branch has been taken, whether %else has been."""

    __slots__ = ("emitting", "had_else", "place", "taken")

    def __init__(self, emitting: bool, taken: bool, place: Place) -> None:
        self.emitting = emitting
        self.taken = taken
        self.had_else = False
        self.place = place


CONTINUED = " " * 3  # stands for a line that has been joined to the one above; told apart by identity


def decode(data: bytes) -> str:
    """A source file's text; bytes that are no UTF-8 survive into strings unchanged."""
    return data.decode("utf-8", "surrogateescape")


def source_lines(text: str) -> list[str]:
    """The lines of a source; one that ends in a backslash goes on with the next, and fillers keep the count.

    A null byte and DOS's mark of the end of a file end a line, as in NASM.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text or "\x1a" in text:
        text = text.replace("\0", "\n").replace("\x1a", "\n")
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    if "\\\n" not in text:
        return lines
    result: list[str] = []
    at = 0
    while at < len(lines):
        line, more = lines[at], 0
        while line.endswith("\\") and at + more + 1 < len(lines):
            more += 1
            line = line[:-1] + lines[at + more]
        result += [line, *[CONTINUED] * more]
        at += more + 1
    return result
