"""Errors and warnings: where they are, what the line looked like and how it came to be assembled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Note(NamedTuple):
    """A step of the way to an error: the macro or include that brought the line."""

    file: str
    line: int
    message: str
    text: str = ""
    column: int = 0


class Diagnostic(NamedTuple):
    """One error or warning.

    severity: ``error``, ``fatal`` or ``warning``. file, line, column: of the place in a source file, from 1.
    text: that source line. notes: the backtrace, innermost step first. warning: the name by which it is turned off.
    """

    severity: str
    message: str
    file: str
    line: int
    column: int
    text: str
    notes: tuple[Note, ...] = ()
    warning: str = ""

    def __str__(self) -> str:
        option = f" [-w+{self.warning}]" if self.warning else ""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        parts = [f"{place}: {self.severity}: {_clipped(self.message)}{option}"]
        parts += _quote(self.text, self.column)
        for note in self.notes:
            parts.append(f"{note.file}:{note.line}: note: {_clipped(note.message)}")
            parts += _quote(note.text, note.column)
        return "\n".join(parts)


MAX_SHOWN = 300  # characters of a source line or of a message


def _clipped(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _quote(text: str, column: int) -> list[str]:
    """The line and a caret under its column; tabs are kept so that the caret stands under its character."""
    if not text.strip():
        return []
    text = _clipped(text.rstrip())
    if not 0 < column <= len(text) + 1:
        return [f"    {text}"]
    lead = "".join(c if c == "\t" else " " for c in text[: column - 1])
    return [f"    {text}", f"    {lead}^"]


class AsmError(Exception):
    """A source that does not assemble. `errors` holds every error found, `warnings` what was warned of besides."""

    def __init__(self, errors: Iterable[Diagnostic], warnings: Iterable[Diagnostic] = ()) -> None:
        self.errors = list(errors)
        self.warnings = list(warnings)
        super().__init__("\n".join(map(str, self.errors)))

    def __reduce__(self) -> tuple[type[AsmError], tuple[list[Diagnostic], list[Diagnostic]]]:
        return type(self), (self.errors, self.warnings)  # pickle would make it of its text


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """A hint at the words nearest to a misspelt one; empty where none is near."""
    import difflib  # only a source with errors needs it

    near = difflib.get_close_matches(word.lower(), list(words), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(f'`{w}' + chr(39) for w in near)}?" if near else ""
