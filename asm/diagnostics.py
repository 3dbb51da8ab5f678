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


# Words of other assemblers, and what stands for them here.
_ADDRESS, _BLOCK = "a label alone is its address", "labels alone mark where code begins"
_PTR = "the size stands alone: `word [bx]'; `%use masm' knows `ptr'"
_SECTION, _DATA = "a section begins with `section .text'", "`db', `dw', `dd' and `dq' lay down data"
_NO_NAME, _PUSHED = (
    "no operand names it: a call pushes it, a jump sets it",
    "no operand names it: PUSHF and POPF move it",
)
_AVX512 = "there is no AVX-512 here"
FOREIGN_WORDS = {
    "ptr": _PTR, "offset": _ADDRESS, "@data": "`seg' or the section's start says where data is", "addr": _ADDRESS,
    "proc": _BLOCK, "endp": _BLOCK, "ends": _BLOCK, "assume": "each access names its segment: `[es:bx]'",
    "end": "the source ends where its file does", ".model": _SECTION, ".code": _SECTION, ".data": _SECTION,
    ".stack": _SECTION, ".text": _SECTION, ".bss": _SECTION, ".section": _SECTION, ".386": "`cpu 386' says that",
    ".byte": _DATA, ".word": _DATA, ".long": _DATA, ".quad": _DATA, ".ascii": _DATA, ".asciz": _DATA, ".string": _DATA,
    ".global": "it is `global' here", ".globl": "it is `global' here", ".org": "it is `org' here",
    "ip": _NO_NAME, "eip": _NO_NAME, "rip": "addresses count from it by `[rel label]'", "flags": _PUSHED,
    "eflags": _PUSHED, "rflags": _PUSHED, "gdtr": "LGDT and SGDT have it", "idtr": "LIDT and SIDT have it",
    "{": _AVX512, **{f"zmm{n}": _AVX512 for n in range(32)}, **{f"k{n}": _AVX512 for n in range(8)},
    **{f"xmm{n}": _AVX512 for n in range(16, 32)}, **{f"ymm{n}": _AVX512 for n in range(16, 32)},
}  # fmt: skip


def foreign_word(word: str) -> str:
    """A remark on a word that another assembler knows; empty for others."""
    remark = FOREIGN_WORDS.get(word.lower(), "")
    return f"; {remark}" if remark else ""


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """A hint at the words nearest to a misspelt one, or a remark on one of another assembler; else empty."""
    if remark := foreign_word(word):
        return remark
    import difflib  # only a source with errors needs it

    near = difflib.get_close_matches(word.lower(), list(words), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(f'`{w}' + chr(39) for w in near)}?" if near else ""
