"""Stub of i8042.pyx, which says what the part is."""

from typing import Self

from emu._core import Clock
from emu.chips.isa8 import Isa8
from emu.chips.ps2_device import Ps2Device

class I8042(Isa8):
    def __new__(
        cls, clock: Clock, name: str = "i8042", keyboard: Ps2Device | None = None, mouse: Ps2Device | None = None
    ) -> Self: ...
