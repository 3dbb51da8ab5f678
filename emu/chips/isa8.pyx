# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""An 8-bit part on the ISA bus: a wider access reaches it as byte cycles at ascending ports.

PC/AT Technical Reference, "System Board", "Data Conversion": a 16-bit access to an 8-bit device becomes two cycles. A
cycle takes 6.5 clocks of the bus at 8.33 MHz, 780 ns, for which the processor waits.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from emu.chips.part cimport Part

cdef enum:
    CYCLE_NS = 780


cdef class Isa8(Part):
    """Base of the 8-bit parts, which answer to `read8` and `write8` alone."""

    def __cinit__(self, *args, **kwargs):
        self.bus_cycle = self.clock.wait_cycles(CYCLE_NS)

    cdef uint8_t read8(self, uint16_t port) noexcept nogil:
        return 0xFF

    cdef void write8(self, uint16_t port, uint8_t value) noexcept nogil:
        pass

    cdef uint32_t port_read(self, uint16_t port, int size) noexcept nogil:
        cdef uint32_t value = self.read8(port)
        cdef int at
        for at in range(1, size):
            value |= <uint32_t>self.read8(<uint16_t>(port + at)) << 8 * at
        self.clock.wait(size * self.bus_cycle)
        return value

    cdef void port_write(self, uint16_t port, uint32_t value, int size) noexcept nogil:
        cdef int at
        self.write8(port, <uint8_t>value)
        for at in range(1, size):
            self.write8(<uint16_t>(port + at), <uint8_t>(value >> 8 * at))
        self.clock.wait(size * self.bus_cycle)
