# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The gate of address line 20: open where any of the parts that drive it wants it open.

82371AB (PIIX4), "A20M#": the keyboard controller's A20GATE ORed with FAST_A20 of port 92h. Input lines 0-7.
"""
from libc.stdint cimport uint8_t

from emu._core cimport Bus, Clock
from emu.chips.part cimport Fields, Part


cdef class A20Gate(Part):
    """The gate between whoever drives A20 and the bus."""

    cdef Bus bus
    cdef uint8_t lines

    def __cinit__(self, Clock clock not None, str name not None, Bus bus not None):
        self.name = name
        self.bus = bus

    cdef void input(self, int line, int level) noexcept nogil:
        cdef uint8_t bit = <uint8_t>(1 << (line & 7))
        self.lines = self.lines | bit if level else self.lines & ~bit
        self.bus.set_a20(self.lines != 0)

    cdef int fields(self, Fields f) except -1:
        f.u8("lines", &self.lines)
        self.bus.set_a20(self.lines != 0)
        return 0
