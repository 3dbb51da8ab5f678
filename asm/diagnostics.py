"""Errors and warnings: where they are, what the line looked like and how it came to be assembled."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

from asm.operands import Far, Mem, Operand, Reg
from asm.table import REGISTERS_8, REGISTERS_8_REX, REGISTERS_16, REGISTERS_32, REGISTERS_64


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
        parts = [f"{place}: {self.severity}: {self.message}{option}"]
        parts += _quote(self.text, self.column)
        for note in self.notes:
            parts.append(f"{note.file}:{note.line}: note: {note.message}")
            parts += _quote(note.text, note.column)
        return "\n".join(parts)


def _quote(text: str, column: int) -> list[str]:
    """The line and a caret under its column; tabs are kept so that the caret stands under its character."""
    if not text.strip():
        return []
    text = text.rstrip()
    if len(text) > 300:
        text = text[:300] + "..."
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


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """A hint at the words nearest to a misspelt one; empty where none is near."""
    near = difflib.get_close_matches(word.lower(), list(words), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(f'`{w}' + chr(39) for w in near)}?" if near else ""


def nearest_forms(operands: Iterable[Operand], forms: Iterable[str], most: int = 8) -> list[str]:
    """The forms of an instruction that come nearest to operands that fit none, nearest first.

    Args:
        forms: in the manual's syntax, as ``ADD r/m32, imm8``.
    """
    given = list(operands)

    def distance(form: str) -> int:
        _, _, text = form.partition(" ")
        wanted = text.split(", ") if text else []
        total = 4 * abs(len(wanted) - len(given)) + ("moffs" in form)
        return total + sum(_mismatch(operand, spec) for operand, spec in zip(given, wanted, strict=False))

    return sorted(dict.fromkeys(forms), key=distance)[:most]


def _mismatch(operand: Operand, spec: str) -> int:
    """How far an operand is from what a form wants: 0 it fits, 1 but for its size, 3 it is of another kind."""
    if isinstance(operand, Reg):
        if spec.lower() == operand.name:
            return 0
        if not spec.startswith(("r", "Sreg", "CR", "DR")) or spec.startswith("rel"):
            return 3 if spec.islower() else 2
        return 0 if str(register_size(operand.name)) in spec else 1
    if isinstance(operand, Mem):
        if not spec.startswith(("m", "r/m")) and "/m" not in spec:
            return 3
        return 0 if not operand.size or spec.endswith(str(operand.size)) else 1
    if isinstance(operand, Far):
        return 0 if spec.startswith("ptr") else 3
    return 0 if spec.startswith(("imm", "simm", "rel", "1")) else 3


def register_size(name: str) -> int:
    """The size of a general register in bits; 0 of another."""
    sizes = {8: (REGISTERS_8, REGISTERS_8_REX), 16: (REGISTERS_16,), 32: (REGISTERS_32,), 64: (REGISTERS_64,)}
    return next((size for size, sets in sizes.items() if any(name in names for names in sets)), 0)
