"""Stub of power_supply.pyx, which says what the part is."""

from typing import Self

from emu._core import Clock
from emu.chips.part import Part

class PowerSupply(Part):
    def __new__(cls, clock: Clock, name: str = "power_supply") -> Self: ...
