# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Port 80h: the POST code display of the PC/AT (Technical Reference, "Diagnostics"), with a memory.

A guest may write here in a loop, so a write stores one number and one time and does nothing else.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from emu._core cimport Clock
from emu.chips.part cimport Fields, Part

cdef enum:
    CODES = 256  # remembered, the newest


cdef class Post(Part):
    """The codes that firmware wrote; reading the port gives the last one, before the first 0."""

    cdef uint64_t cycles[CODES]
    cdef uint8_t values[CODES]
    cdef readonly uint64_t count  # codes written since power-on

    def __cinit__(self, Clock clock not None, str name not None="post"):
        self.name = name

    cpdef reset(self):
        """The display has no reset line: what led to a reset stays to be seen."""

    cdef void port_write(self, uint16_t port, uint32_t value, int size) noexcept nogil:
        # An 8-bit part: of a wider access only the lowest byte is for this port.
        self.cycles[self.count % CODES] = self.clock.c.horizon - <uint64_t>self.clock.c.left
        self.values[self.count % CODES] = <uint8_t>value
        self.count += 1

    cdef uint32_t port_read(self, uint16_t port, int size) noexcept nogil:
        return self.values[(self.count - 1) % CODES] | <uint32_t>0xFFFFFF00

    @property
    def codes(self):
        """The last 256 codes, oldest first: (cycle, code)."""
        cdef uint64_t at
        cdef uint64_t first = self.count - CODES if self.count > CODES else 0
        self.clock.check()
        return [(self.cycles[at % CODES], self.values[at % CODES]) for at in range(first, self.count)]

    cdef int fields(self, Fields f) except -1:
        f.u64("count", &self.count)
        f.block("codes", self.values, CODES)
        f.numbers("cycles", self.cycles, CODES)
        return 0
