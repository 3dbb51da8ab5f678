"""Colour for source lines on a terminal, by Pygments' NASM lexer; Pygments is imported only there."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TextIO

from asm.diagnostics import Diagnostic


def wanted(stream: TextIO) -> bool:
    """The stream is a terminal and the user does not ask for plain text (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


@functools.cache
def _painter() -> Callable[[str], str]:
    from pygments import highlight
    from pygments.formatters.terminal import TerminalFormatter
    from pygments.lexers.asm import NasmLexer

    lexer, formatter = NasmLexer(stripnl=False, ensurenl=False), TerminalFormatter()
    return lambda line: str(highlight(line, lexer, formatter))


def paint(line: str) -> str:
    """A line in NASM's syntax, coloured by ECMA-48's "Select Graphic Rendition"; its characters are unchanged."""
    return _painter()(line)


def paint_diagnostic(text: str, diagnostic: Diagnostic) -> str:
    """A diagnostic's text with the source lines that it quotes in colour."""
    quoted = {line.rstrip() for line in (diagnostic.text, *(note.text for note in diagnostic.notes)) if line.strip()}
    return "\n".join(
        f"    {paint(line[4:])}" if line.startswith("    ") and line[4:] in quoted else line
        for line in text.split("\n")
    )
