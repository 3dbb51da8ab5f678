"""Lines of source text that code comes from."""

import linecache
from typing import NamedTuple

__all__ = ["SourceLine"]


class SourceLine(NamedTuple):
    """A line of a source file, counted from 1."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"

    @property
    def text(self) -> str:
        """What stands there; empty where the file is not to be had."""
        return linecache.getline(self.file, self.number).strip()
