"""Stub of a20_gate.pyx, which says what the part is."""

from typing import Self

from emu._core import Bus, Clock
from emu.chips.part import Part

class A20Gate(Part):
    def __new__(cls, clock: Clock, name: str, bus: Bus) -> Self: ...
