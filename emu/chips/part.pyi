"""Stub of part.pyx, which says what the part is."""

from typing import Any, ClassVar

from emu._core import Chip

class Fields: ...

class Part(Chip):
    VERSION: ClassVar[int]
    def save(self) -> dict[str, Any]: ...
    def load(self, state: dict[str, Any]) -> None: ...
