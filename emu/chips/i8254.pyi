"""Stub of i8254.pyx, which says what the part is."""

from typing import Self

from emu._core import Clock
from emu.chips.isa8 import Isa8

class I8254(Isa8):
    def __new__(cls, clock: Clock, name: str = "i8254") -> Self: ...
