"""Stub of part.pyx, which says what the part is."""

from typing import Any, Final

from emu._core import Chip

class Fields: ...

class Part(Chip):
    VERSION: Final = 1
    def save(self) -> dict[str, Any]: ...
    def load(self, state: dict[str, Any]) -> None: ...
