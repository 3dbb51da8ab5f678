"""Stub of reset_control.pyx, which says what the part is."""

from typing import Self

from emu._core import Clock
from emu.chips.isa8 import Isa8

class ResetControl(Isa8):
    def __new__(cls, clock: Clock, name: str = "reset_control") -> Self: ...
