"""Stub of port92.pyx, which says what the part is."""

from typing import Self

from emu._core import Clock
from emu.chips.isa8 import Isa8

class Port92(Isa8):
    def __new__(cls, clock: Clock, name: str = "port92") -> Self: ...
