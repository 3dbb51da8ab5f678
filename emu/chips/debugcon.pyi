"""Stub of debugcon.pyx, which says what the part is."""

from typing import Self

from emu._core import Clock
from emu.chips.isa8 import Isa8

class DebugCon(Isa8):
    @property
    def output_lost(self) -> int: ...
    def __new__(cls, clock: Clock, name: str = "debugcon") -> Self: ...
    def take_output(self) -> bytes: ...
