from libc.stdint cimport uint8_t

from emu._core cimport Irq
from emu.chips.part cimport Part


cdef uint8_t set_1(uint8_t code) noexcept nogil


cdef class Ps2Device(Part):
    cdef Irq ready

    cdef bint waiting(self) noexcept nogil
    cdef uint8_t take(self) noexcept nogil
    cdef void receive(self, uint8_t value) noexcept nogil
