"""Makes diagnostics: finds the column, and the way through macros and includes that brought the line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from asm.diagnostics import Diagnostic, Note
from asm.instructions.match import REGISTER_CLASS
from asm.instructions.operands import EncodeError, Far, Mem, Operand, Reg
from asm.preprocessor.frames import Frame, Place
from asm.table import REGISTERS_8, REGISTERS_8_REX, REGISTERS_16, REGISTERS_32, REGISTERS_64
from asm.table import REGISTERS_SEG as SEGMENTS
from asm.tokens import TOKEN


def column_of(text: str, index: int) -> int:
    """The column, from 1, of the token of an index; that of the line's end where there are fewer."""
    for number, match in enumerate(match for match in TOKEN.finditer(text) if match.group(1)):
        if number == index:
            return match.start(1) + 1
    return len(TOKEN.sub(lambda m: m.group(0) if m.group(1) else "", text).rstrip()) + 1


def column_of_word(text: str, word: str) -> int:
    """The column of a token; of the first token where it is not in the line."""
    first = in_other_case = 0
    for match in TOKEN.finditer(text):
        token = match.group(1)
        if token:
            first = first or match.start(1) + 1
            if token == word or (word and word.endswith(token) and token[0] == "."):
                return match.start(1) + 1
            if token.lower() == word:
                in_other_case = in_other_case or match.start(1) + 1
    return in_other_case or first


def encode_message(error: EncodeError, operands: Sequence[Operand]) -> str:
    """An encoder's message with the forms that exist."""
    if not error.forms:
        return error.message
    forms = nearest_forms(operands, error.forms)
    message = error.message
    if sum(isinstance(operand, Mem) for operand in operands) > 1:
        message += ": only one can be in memory"
    what = "the nearest forms are" if len(forms) < len(error.forms) else "the forms are"
    return f"{message}; {what}: {'; '.join(forms)}"


def _is_in_file(frame: Frame) -> bool:
    """The frame's lines stand in the source as they are: a file's, or a repetition's outside macros."""
    return frame.kind == "file" or (frame.kind == "rep" and frame.call is None)


def make_diagnostic(
    severity: str, message: str, place: Place, text: str | None, column: int, word: str, warning: str
) -> Diagnostic:
    """A diagnostic at a place, with the backtrace of the frames around it."""
    frame, number = place
    raw = frame.line(number)
    shown = raw if text is None else text
    if not column:
        column = column_of_word(shown, word)
    notes = []
    if _is_in_file(frame):
        if shown is not raw and shown.strip() != raw.strip():
            notes.append(Note(frame.file_of(number), frame.number_of(number), "the line expands to", shown, column))
            column = column_of_word(raw, word)
    else:
        notes.append(Note(frame.file_of(number), frame.number_of(number), f"in {frame.title}", shown, column))
        column = 0
    while frame.parent is not None:
        outer, number = frame.parent
        if outer.kind != "file":
            notes.append(Note(outer.file_of(number), outer.number_of(number), f"in {outer.title}", outer.line(number)))
        elif frame.kind == "file":
            notes.append(Note(outer.file_of(number), outer.number_of(number), "included from here"))
        frame = outer
        if frame.kind == "file":
            break
    origin, number = place
    while not _is_in_file(origin) and origin.parent is not None:
        origin, number = origin.parent
    outermost, from_line = origin, number
    if origin is not place[0]:
        raw = origin.line(number)
        column = column_of_word(raw, "")
    else:
        raw = shown if text is not None and text.strip() == raw.strip() else raw
    while outermost.parent is not None:
        above, from_line = outermost.parent
        what = "included from here" if outermost.kind == "file" else f"in {outermost.title}"
        note = Note(above.file_of(from_line), above.number_of(from_line), what)
        if note not in notes:
            notes.append(note)
        outermost = above
    file = origin.file_of(number)
    return Diagnostic(severity, message, file, origin.number_of(number), column, raw, tuple(notes), warning)


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

    def first(form: str) -> int:
        """Of two forms that come as near, that with the right destination is meant."""
        _, _, text = form.partition(" ")
        return _mismatch(given[0], text.split(", ")[0]) if given and text else 0

    return sorted(dict.fromkeys(forms), key=lambda form: (distance(form), first(form)))[:most]


_CLASS_NAMES = {"sreg": "Sreg", "cr": "CR0-CR8", "dr": "DR0-DR7", "tr": "TR0-TR7", "st": "ST(i)"}


def _mismatch(operand: Operand, spec: str) -> int:
    """How far an operand is from what a form wants: 0 it fits, 1 but for its size, 3 it is of another kind."""
    if isinstance(operand, Reg):
        if spec.lower() == operand.name:
            return 0
        size = register_size(operand.name)
        if not size:
            kind = REGISTER_CLASS.get(operand.name, "")
            kind = {**dict.fromkeys(SEGMENTS, "sreg"), "st0": "st", "xmm0": "xmm"}.get(operand.name, kind)
            return 0 if spec.partition("/")[0] == _CLASS_NAMES.get(kind, kind) else 3
        if not spec.startswith("r") or spec.startswith("rel"):
            return 3 if spec.islower() else 2
        return 0 if str(size) in spec else 1
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
