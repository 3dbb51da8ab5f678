"""Stub of mc146818.pyx, which says what the part is."""

from typing import Self

from emu._core import Clock
from emu.chips.isa8 import Isa8

class MC146818(Isa8):
    nvram: bytes
    def __new__(cls, clock: Clock, name: str = "mc146818") -> Self: ...
    def set_time(self, year: int, month: int, day: int, hour: int, minute: int, second: int) -> None: ...
