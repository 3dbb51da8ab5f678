"""Stub of port61.pyx, which says what the part is."""

from typing import Self

from emu._core import Clock
from emu.chips.i8254 import I8254
from emu.chips.isa8 import Isa8

class Port61(Isa8):
    def __new__(cls, clock: Clock, name: str, timer: I8254) -> Self: ...
