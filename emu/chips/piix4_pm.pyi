"""Stub of piix4_pm.pyx, which says what the part is."""

from typing import Self

from emu._core import Bus, Clock
from emu.chips.pci import PciFunction

class Piix4Pm(PciFunction):
    def __new__(cls, clock: Clock, name: str, bus: Bus, base: int = 0) -> Self: ...
