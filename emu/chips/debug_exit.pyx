# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A port that ends the run: a write of v gives the exit status (v << 1) | 1, which is always odd.

No chip of a real PC; the convention is that of QEMU's isa-debug-exit, so that one test image runs on both.
"""
from libc.stdint cimport int64_t, uint16_t, uint32_t

from emu._core cimport CHIP_STOP_DEBUG_EXIT, Clock
from emu.chips.part cimport Part


cdef class DebugExit(Part):
    """The debug exit port; reading it gives 0."""

    def __cinit__(self, Clock clock not None, str name not None="debug_exit"):
        self.name = name

    cdef uint32_t port_read(self, uint16_t port, int size) noexcept nogil:
        return 0

    cdef void port_write(self, uint16_t port, uint32_t value, int size) noexcept nogil:
        self.clock.stop(CHIP_STOP_DEBUG_EXIT, <int64_t>value << 1 | 1)
