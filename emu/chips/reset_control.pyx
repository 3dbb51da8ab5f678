# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Port CF9h: the reset control register.

82371AB (PIIX4), "RC - Reset Control Register": RCPU going from 0 to 1 resets, by SRST the whole board or the processor.
"""
from libc.stdint cimport uint8_t, uint16_t

from emu._core cimport Clock, Irq, lower_irq, raise_irq
from emu.chips.isa8 cimport Isa8
from emu.chips.part cimport Fields

from emu.errors import ConfigError

cdef enum:
    SRST = 0x02  # 1: hard reset
    RCPU = 0x04
    WRITABLE = 0x06


cdef class ResetControl(Isa8):
    """Port CF9h. Pins, both pulses: RESET (the whole board) and INIT (the processor alone)."""

    cdef Irq reset_, init
    cdef uint8_t value

    def __cinit__(self, Clock clock not None, str name not None="reset_control"):
        self.name = name

    cpdef reset(self):
        self.value = 0

    cdef Irq *output(self, str name) except NULL:
        if name == "RESET":
            return &self.reset_
        if name == "INIT":
            return &self.init
        raise ConfigError(f"{self.name} has no output {name!r}: RESET, INIT")

    cdef uint8_t read8(self, uint16_t port) noexcept nogil:
        return self.value

    cdef void write8(self, uint16_t port, uint8_t value) noexcept nogil:
        cdef bint pulse = (value & ~self.value & RCPU) != 0
        cdef Irq *line = &self.reset_ if value & SRST else &self.init
        self.value = value & WRITABLE
        if pulse:
            raise_irq(line)
            lower_irq(line)

    cdef int fields(self, Fields f) except -1:
        f.u8("value", &self.value)
        return 0
