# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A port whose bytes go to the host: the debug console of Bochs and QEMU, usually at E9h.

No chip of a real PC. Reading it gives E9h, by which firmware finds that it is there.
"""
from libc.stdint cimport uint8_t, uint16_t
from libc.stdlib cimport free

from emu._core cimport Clock
from emu.chips.isa8 cimport Isa8
from emu.chips.ring cimport Ring, ring_init, ring_put, ring_take

cdef enum:
    OUTPUT_SIZE = 1 << 20


cdef class DebugCon(Isa8):
    """The debug console."""

    cdef Ring sent

    def __cinit__(self, Clock clock not None, str name not None="debugcon"):
        self.name = name
        ring_init(&self.sent, OUTPUT_SIZE)

    def __dealloc__(self):
        free(self.sent.data)

    cdef uint8_t read8(self, uint16_t port) noexcept nogil:
        return 0xE9

    cdef void write8(self, uint16_t port, uint8_t value) noexcept nogil:
        ring_put(&self.sent, value)

    def take_output(self):
        """The bytes written since the last call. More than 1 MiB between two calls is dropped: see `output_lost`."""
        self.clock.check()
        return ring_take(&self.sent)

    @property
    def output_lost(self):
        """Bytes dropped so far because nobody took them."""
        return self.sent.lost
