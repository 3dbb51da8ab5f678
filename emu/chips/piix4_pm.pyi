"""Stub of piix4_pm.pyx, which says what the part is."""

from typing import Self

from emu._core import Clock
from emu.chips.part import Part

class Piix4Pm(Part):
    def __new__(cls, clock: Clock, name: str = "piix4_pm") -> Self: ...
