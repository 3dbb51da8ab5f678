"""The user's terminal: colour where it is one, and a line that shows how far a run has come."""

import os
import sys
import time
from typing import TextIO

__all__ = ["Progress", "Style"]


class Style:
    """Colours of a stream: none where it is no terminal, or the user asks for none.

    https://no-color.org: NO_COLOR, if it is not empty, turns colour off.

    Args:
        stream: where the text goes.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.on = bool(
            stream is not None
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
            and stream.isatty()
        )

    def paint(self, code: str, text: str) -> str:
        """The text in a colour: ECMA-48's "Select Graphic Rendition" parameters."""
        return f"\033[{code}m{text}\033[0m" if self.on and text else text

    def strong(self, text: str) -> str:
        """Headings."""
        return self.paint("1", text)

    def faint(self, text: str) -> str:
        """What is beside the point."""
        return self.paint("2", text)

    def good(self, text: str) -> str:
        """What went as it should."""
        return self.paint("32", text)

    def warning(self, text: str) -> str:
        """What the user should look at."""
        return self.paint("33", text)

    def bad(self, text: str) -> str:
        """What went wrong."""
        return self.paint("1;31", text)

    def name(self, text: str) -> str:
        """What can be typed."""
        return self.paint("36", text)


class Progress:
    """A line on standard error that is written over again; nothing where that is no terminal.

    Args:
        wanted: False where something else writes to the terminal.
    """

    FIRST = 1.0  # seconds until a run counts as long
    EVERY = 0.25

    def __init__(self, wanted: bool = True) -> None:
        self.on = wanted and sys.stderr is not None and sys.stderr.isatty()
        self.due = time.monotonic() + self.FIRST
        self.width = 0

    def show(self, text: str) -> None:
        """Shows the text, cut to the terminal's width, if a quarter of a second has passed since the last."""
        now = time.monotonic()
        if self.on and now >= self.due:
            self.due = now + self.EVERY
            try:
                columns = os.get_terminal_size(sys.stderr.fileno()).columns
            except OSError:
                columns = 0
            text = text[: (columns or 80) - 1]  # some terminals do not know how wide they are
            sys.stderr.write("\r" + text.ljust(self.width))
            sys.stderr.flush()
            self.width = len(text)

    @property
    def is_due(self) -> bool:
        """Whether show() would show anything now."""
        return self.on and time.monotonic() >= self.due

    def clear(self) -> None:
        """Takes the line away."""
        if self.width:
            sys.stderr.write("\r" + " " * self.width + "\r")
            sys.stderr.flush()
            self.width = 0
