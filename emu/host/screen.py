"""The screen of a display adapter in text mode, as text."""

from typing import NamedTuple, Protocol

__all__ = ["Cell", "Screen"]

# Code page 437: the display has a picture for every code, for the control codes too.
PICTURES = (
    " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
    + bytes(range(32, 127)).decode("ascii")
    + "⌂"
    + bytes(range(128, 255)).decode("cp437")
    + " "
)


class Cell(NamedTuple):
    """A place on the screen: the character, and the attribute, whose low four bits are its colour, the others the
    background's (bit 7: blinks, or a bright background)."""

    character: str
    attribute: int


class Adapter(Protocol):
    """What the screen needs of a display adapter."""

    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def rows(self) -> list[bytes]: ...
    @property
    def cursor(self) -> tuple[int, int] | None: ...
    @property
    def is_on(self) -> bool: ...
    @property
    def blinks(self) -> bool: ...


class Screen:
    """What stands on the screen now. In a graphics mode it has no lines."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter

    @property
    def on(self) -> bool:
        """Whether the adapter shows it; otherwise the screen is dark, whatever stands on it."""
        return self.adapter.is_on

    @property
    def blinks(self) -> bool:
        """Whether bit 7 of an attribute makes the character blink."""
        return self.adapter.blinks

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        return self.adapter.size

    @property
    def cursor(self) -> tuple[int, int] | None:
        """Column and row of the cursor, from 0; None where it is not to be seen."""
        return self.adapter.cursor

    @property
    def lines(self) -> list[str]:
        """Each row's characters, without the blanks at its end."""
        return ["".join(PICTURES[code] for code in row[::2]).rstrip() for row in self.adapter.rows]

    @property
    def text(self) -> str:
        """The lines up to the last one that is not blank."""
        return "\n".join(self.lines).rstrip("\n")

    @property
    def cells(self) -> list[list[Cell]]:
        """Every place, by row and column."""
        return [
            [Cell(PICTURES[row[at]], row[at + 1]) for at in range(0, len(row), 2)] for row in self.adapter.rows
        ]  # fmt: skip
