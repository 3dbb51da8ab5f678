"""Stub of i440fx.pyx, which says what the part is."""

from typing import Self

from emu._core import Bus, Chip, Clock, Memory
from emu.chips.pci import PciFunction

class I440fx(PciFunction):
    def __new__(cls, clock: Clock, name: str, bus: Bus, isa: Chip) -> Self: ...
    def attach(self, device: int, function: int, chip: PciFunction) -> None: ...
    def route(self, memory: Memory) -> None: ...
