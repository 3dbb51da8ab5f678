# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The power supply's PS_ON# wire: whoever lets go of it ends the run (ATX Specification, "PS_ON#")."""

from emu._core cimport CHIP_STOP_POWERED_OFF, Clock
from emu.chips.part cimport Part


cdef class PowerSupply(Part):
    """Input line 0 high: the power goes off."""

    def __cinit__(self, Clock clock not None, str name not None="power_supply"):
        self.name = name

    cdef void input(self, int line, int level) noexcept nogil:
        if level:
            self.clock.stop(CHIP_STOP_POWERED_OFF, 0)
