"""Stub of piix4_ide.pyx, which says what the part is."""

from typing import Self

from emu._core import Clock
from emu.chips.ata import Ata
from emu.chips.pci import PciFunction

class Piix4Ide(PciFunction):
    def __new__(cls, clock: Clock, name: str = "piix4_ide") -> Self: ...
    def attach(self, channel: int, drive: Ata) -> None: ...
