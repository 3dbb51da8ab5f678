# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Port 92h: fast A20 and fast reset.

82371AB (PIIX4), "PORT 92 REGISTER". The A20 wire is high where address line 20 passes.
"""
from libc.stdint cimport uint8_t, uint16_t

from emu._core cimport Clock, Irq, lower_irq, raise_irq, set_irq
from emu.chips.isa8 cimport Isa8
from emu.chips.part cimport Fields

from emu.errors import ConfigError

cdef enum:
    FAST_INIT = 0x01  # a change from 0 to 1 pulses INIT
    FAST_A20 = 0x02
    WRITABLE = 0x03


cdef class Port92(Isa8):
    """Port 92h. Pins: A20 and INIT out; INIT is a pulse."""

    cdef Irq a20, init
    cdef uint8_t value

    def __cinit__(self, Clock clock not None, str name not None="port92"):
        self.name = name

    cpdef reset(self):
        # The keyboard controller's A20 line, ORed with this one, is high after reset, so the first fetch gets through.
        self.value = 0
        lower_irq(&self.a20)

    cdef Irq *output(self, str name) except NULL:
        if name == "A20":
            return &self.a20
        if name == "INIT":
            return &self.init
        raise ConfigError(f"{self.name} has no output {name!r}: A20, INIT")

    cdef uint8_t read8(self, uint16_t port) noexcept nogil:
        return self.value

    cdef void write8(self, uint16_t port, uint8_t value) noexcept nogil:
        cdef bint pulse = (value & ~self.value & FAST_INIT) != 0
        self.value = value & WRITABLE
        set_irq(&self.a20, (value & FAST_A20) != 0)
        if pulse:
            raise_irq(&self.init)
            lower_irq(&self.init)

    cdef int fields(self, Fields f) except -1:
        f.u8("value", &self.value)
        f.level("a20", &self.a20.level)
        return 0
