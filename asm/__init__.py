"""A NASM-compatible assembler for 16-, 32- and 64-bit x86.

>>> import asm
>>> asm.assemble("mov ax, 0x1234").binary.hex()
'b83412'
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from asm.diagnostics import AsmError, Diagnostic, Note

if TYPE_CHECKING:
    from asm.program import Program

__all__ = ["AsmError", "Diagnostic", "Note", "assemble", "assemble_file"]


def assemble(
    text: str,
    bits: int = 16,
    defines: Mapping[str, object] = {},
    include: Sequence[str | os.PathLike[str]] = (),
    filename: str = "<string>",
    *,
    optimise: bool = True,
) -> Program:
    """Assembles a source text in NASM's syntax to a flat binary.

    Args:
        text: the source.
        bits: the mode at its head, 16, 32 or 64.
        defines: single-line macros, name to value.
        include: directories for %include and incbin.
        filename: for messages; files beside it are found by %include.
        optimise: choose the shortest forms, as NASM's -Ox does.

    Returns:
        A program: ``.binary``, ``.symbols``, ``.origin``, ``.sections``, ``.lines``, ``.listing``, ``.warnings``.

    Raises:
        AsmError: the source or a name in `defines` has errors; ``.errors`` holds all of them.
        TypeError: `text` is no text, or `include` no list.
        ValueError: `bits` is none of 16, 32 and 64.

    >>> assemble("jmp start\\ntimes 3 nop\\nstart: hlt").symbols
    {'start': 5}
    """
    from asm.options import Options
    from asm.program import run

    if bits not in (16, 32, 64):
        raise ValueError(f"bits must be 16, 32 or 64, not {bits!r}")
    if not isinstance(text, str):
        raise TypeError(f"the source must be text, not {type(text).__name__}")
    if isinstance(include, str | bytes | os.PathLike):
        raise TypeError(f"include must be a list of directories, not {include!r} alone")
    options = Options(bits=bits, defines=defines, include=include, optimise=optimise)
    return run(filename, text, options)


def assemble_file(
    path: str | os.PathLike[str],
    bits: int = 16,
    defines: Mapping[str, object] = {},
    include: Sequence[str | os.PathLike[str]] = (),
    *,
    optimise: bool = True,
) -> Program:
    """Assembles a source file; see `assemble`.

    Raises:
        OSError: the file cannot be read.
    """
    from asm.preprocessor.frames import decode

    with open(path, "rb") as file:
        text = decode(file.read())
    return assemble(text, bits, defines, include, os.fspath(path), optimise=optimise)
