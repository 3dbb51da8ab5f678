"""Stub of piix4_isa.pyx, which says what the part is."""

from typing import Self

from emu._core import Clock
from emu.chips.pci import PciFunction

class Piix4Isa(PciFunction):
    PIRQA: int
    def __new__(cls, clock: Clock, name: str = "piix4_isa") -> Self: ...
