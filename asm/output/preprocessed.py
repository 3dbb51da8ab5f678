"""What -E prints: the lines that would be assembled, with %line directives that say where they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asm.diagnostics import AsmError
from asm.preprocessor.frames import Place, SourceError
from asm.preprocessor.macros import pieces, quote

if TYPE_CHECKING:
    from asm.assembler import Assembler
    from asm.options import Options


def preprocess(name: str, text: str, options: Options) -> tuple[list[str], Assembler, list[str]]:
    """Preprocesses a source.

    Args:
        options: with `preprocess_only`.

    Returns:
        The lines as NASM prints them, what holds the errors and warnings, and the files that it includes.
    """
    from asm.assembler import Assembler

    assembler = Assembler(name, text, options)
    lines: list[str] = []
    file, number, step = "", -1, 0
    try:
        for line in assembler.preprocessor:
            line = normalised(line)
            here, at = place_of(assembler.preprocessor.place)
            if here != file:
                file, number, step = here, -1, 1
            elif not step:
                step = int(number + 1 == at)
            elif number + step == at:
                lines.append("")
                number += step
            elif number - step == at:
                step = 0  # several lines of one place: a macro
            if number == -1 and not line:
                continue
            if number != at:
                lines.append(f"%line {at}+{step} {quoted_name(file)}")
            number = at + step
            lines.append(line)
    except SourceError as error:
        assembler.report(error.message)
    except AsmError:
        pass  # a %fatal, which is among the errors
    return lines, assembler, assembler.preprocessor.dependencies


def normalised(line: str) -> str:
    """A line with each blank space a single blank."""
    return "".join([" " if part.isspace() else part for part in pieces(line)])


def place_of(place: Place) -> tuple[str, int]:
    """The file and line that NASM gives a line: where it stands, or the call of the macro that is not to be listed."""
    frame, number = place
    outer = frame
    while outer.parent is not None and (outer.kind != "file" or not outer.lists):
        if outer.kind != "rep" and not outer.lists:
            frame, number = outer.parent
        outer = outer.parent[0]
    return frame.file_of(number), frame.number_of(number)


def quoted_name(name: str) -> str:
    """A file's name as %line takes it: in quotes where it would not be taken whole otherwise."""
    edges = name[:1] + name[-1:]
    plain = name and "  " not in name and not set(edges) & set("'\"` ") and all(letter >= " " for letter in name)
    return name if plain else quote(name)
