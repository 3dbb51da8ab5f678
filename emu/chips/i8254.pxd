from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from emu._core cimport Irq
from emu.chips.isa8 cimport Isa8


cdef struct Counter:
    # Programmed.
    uint8_t control         # the control word as written, without SC
    uint8_t mode            # 0-5
    uint16_t count          # CR, the count register
    uint8_t count_lsb       # the first of two bytes, until the second comes
    bint counted            # a whole count has been written since the control word
    bint null_count         # CR has not reached the counting element yet
    bint write_msb          # the next byte written, and read, is the most significant one
    bint read_msb
    uint8_t latched         # bytes of `latch` not yet read
    uint16_t latch
    bint status_latched
    uint8_t status
    # Counting. At `now`, the counting element holds `loaded` less what has been counted since `start`.
    uint64_t now            # the tick up to which the rest is worked out
    uint64_t start          # when `loaded` was loaded
    uint64_t load_at        # when CR is to be loaded, TICK_NEVER: it is not
    uint32_t loaded         # 1-65536, in BCD 1-10000
    uint32_t held           # CLKs counted since the load, while `stopped`
    bint stopped            # by GATE, or before the first load
    bint armed              # terminal count will change OUT
    bint gate
    bint out
    uint64_t periods        # times that OUT rose by a terminal count


cdef class I8254(Isa8):
    cdef Counter counters[3]
    cdef Irq outs[3]

    # A pin of counter 0-2 sampled now, and how often it has completed its count: for what needs no wire.
    cdef bint sample(self, int index) noexcept nogil
    cdef uint64_t periods(self, int index) noexcept nogil

    cdef uint64_t tick(self) noexcept nogil
    cdef void catch_up(self, int index) noexcept nogil
    cdef void settle(self, int index) noexcept nogil
    cdef void write_control(self, uint8_t value) noexcept nogil
    cdef void write_count(self, int index, uint8_t value) noexcept nogil
    cdef void read_back(self, uint8_t value) noexcept nogil
