"""What -E prints: the lines that would be assembled, with %line directives that say where they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asm.diagnostics import AsmError, Diagnostic
from asm.frames import Place, SourceError

if TYPE_CHECKING:
    from asm.options import Options


def preprocess(name: str, text: str, options: Options) -> tuple[list[str], list[Diagnostic], list[str]]:
    """Preprocesses a source.

    Returns:
        The lines, the errors, and the files that it includes.
    """
    from asm.assembler import Assembler

    assembler = Assembler(name, text, options)
    lines: list[str] = []
    expected: tuple[str, int] | None = None
    try:
        for line in assembler.preprocessor:
            file, number = _file_place(assembler.preprocessor.place)
            in_macro = assembler.preprocessor.place[0].kind != "file"
            if expected != (file, number) and not (in_macro and expected == (file, number + 1)):
                lines.append(f"%line {number}+{0 if in_macro else 1} {file}")
            expected = (file, number + 1)
            lines.append(line)
            assembler.follow(line)
    except SourceError as error:
        assembler.report(error.message)
    except AsmError:
        pass  # a %fatal, which is among the errors
    return lines, assembler.errors, assembler.preprocessor.dependencies


def _file_place(place: Place) -> tuple[str, int]:
    """The file and line of a place, that of the outermost call for a macro's line."""
    frame, number = place
    while frame.kind != "file" and frame.parent is not None:
        frame, number = frame.parent
    return frame.name, frame.number_of(number)
