"""Stub of i8259.pyx, which says what the part is."""

from typing import Final, Self

from emu._core import Clock
from emu.chips.isa8 import Isa8

class I8259(Isa8):
    CAS: Final = 8
    @property
    def master(self) -> bool: ...
    def __new__(cls, clock: Clock, name: str = "i8259", *, master: bool = True, elcr_mask: int = 0) -> Self: ...
