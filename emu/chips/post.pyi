"""Stub of post.pyx, which says what the part is."""

from typing import Self

from emu._core import Clock
from emu.chips.part import Part

class Post(Part):
    @property
    def count(self) -> int: ...
    @property
    def codes(self) -> list[tuple[int, int]]: ...
    def __new__(cls, clock: Clock, name: str = "post") -> Self: ...
