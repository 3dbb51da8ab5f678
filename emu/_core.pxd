# cython: language_level=3
"""What the core offers to chips: the clock, the bus, wires, and the base class of every chip.

A chip is an extension of its own and reaches the core only through what is declared here; a virtual call costs a few
nanoseconds. All callbacks run without the GIL and cannot raise.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "emu/core/clock.h":
    ctypedef struct CClock "Clock":
        uint64_t horizon
        int64_t left
        uint32_t leave
        uint64_t hz


cdef extern from "emu/core/bus.h":
    enum:
        REGION_READ   # answers reads
        REGION_WRITE  # answers writes
        REGION_ROM    # drops writes
    ctypedef struct CBus "Bus":
        uint64_t a20_mask
    cdef struct CPU:
        pass


# Why a chip ends the run: the number given to Clock.stop().
cdef enum:
    CHIP_STOP_NONE
    CHIP_STOP_POWERED_OFF
    CHIP_STOP_DEBUG_EXIT


cdef class Clock:
    """The machine's time, in processor cycles, and its event queue (core/clock.h)."""
    cdef CClock c
    cdef list _chips           # a chip lives as long as its clock, so that events and wires never point at a dead one
    cdef object _error         # the first exception of a callback; the run that it happened in raises it
    cdef CPU *_running         # the processor whose slice runs, NULL between slices
    cdef void *_thread_state   # the interpreter's state while the GIL is released, else NULL
    cdef unsigned long _thread  # whose run it is; 0: nobody's
    cdef int _calling          # depth of Python callbacks in the middle of an instruction
    cdef int _stop_code        # what a chip gave to stop()
    cdef int64_t _stop_status
    cdef bint _wait_states
    cdef int _stop_asked       # stop() was called from Python

    cdef uint64_t now(self) noexcept nogil
    # An event of a chip: its `event(id)` is called at `cycle`; a later call with the same id replaces the earlier one.
    cdef void schedule(self, Chip chip, int id, uint64_t cycle) noexcept nogil
    cdef void cancel(self, Chip chip, int id) noexcept nogil
    # The cycle it is due at, all ones where it is not scheduled.
    cdef uint64_t due(self, Chip chip, int id) noexcept nogil
    # Whole periods of numerator/denominator hertz since power-on, now and at a cycle; and the first cycle at which so
    # many have passed. Exact.
    cdef uint64_t ticks(self, uint64_t numerator, uint64_t denominator) noexcept nogil
    cdef uint64_t ticks_at(self, uint64_t cycle, uint64_t numerator, uint64_t denominator) noexcept nogil
    cdef uint64_t cycle_of_tick(self, uint64_t ticks, uint64_t numerator, uint64_t denominator) noexcept nogil
    # Lets the processor whose access is under way wait for the bus; an access of the host's waits for nothing. The
    # cycles of so many nanoseconds, at most a million, or 0 on a clock without wait states.
    cdef void wait(self, uint64_t cycles) noexcept nogil
    cdef uint64_t wait_cycles(self, uint64_t ns) noexcept nogil
    # Ends the run after the current instruction: CHIP_STOP_*, and the status that run() reports.
    cdef void stop(self, int code, int64_t status) noexcept nogil
    # Makes the run loop return to Python after the current instruction.
    cdef void leave(self) noexcept nogil
    # Called by a callback that needs Python, before `with gil`: the GIL is then kept to the end of the slice.
    cdef void keep_gil(self) noexcept nogil
    cdef void store_error(self, object error) noexcept
    cdef int check(self) except -1       # raises RunningError where another thread runs the machine
    cdef int check_idle(self) except -1  # and where this one does
    cdef int raise_error(self) except -1
    cdef void set_now(self, uint64_t cycle) noexcept nogil


cdef struct Irq:
    # One end of a wire: `line` of the chip at the other end, which its `input` method hears of. NULL: not connected.
    void *chip
    int line
    int level


cdef class Chip:
    """A part on the board. Subclasses override what they answer to; the rest reads as all-ones and ignores writes."""
    cdef readonly Clock clock
    cdef readonly str name

    cdef uint32_t port_read(self, uint16_t port, int size) noexcept nogil
    cdef void port_write(self, uint16_t port, uint32_t value, int size) noexcept nogil
    cdef uint64_t mem_read(self, uint64_t address, int size) noexcept nogil
    cdef void mem_write(self, uint64_t address, uint64_t value, int size) noexcept nogil
    cdef void event(self, int id) noexcept nogil
    cdef void input(self, int line, int level) noexcept nogil   # a wire that ends at this chip changed
    cdef uint8_t acknowledge(self) noexcept nogil               # INTA: the vector (interrupt controllers)
    cdef Irq *output(self, str name) except NULL                # the wires that start here, by the datasheet's pin name
    cdef int place(self, Clock clock) except -1
    cpdef reset(self)


# Drives a wire; only changes are passed on.
cdef inline void set_irq(Irq *irq, int level) noexcept nogil:
    if irq.level != level:
        irq.level = level
        if irq.chip != NULL:
            (<Chip>irq.chip).input(irq.line, level)

cdef inline void raise_irq(Irq *irq) noexcept nogil:
    set_irq(irq, 1)

cdef inline void lower_irq(Irq *irq) noexcept nogil:
    set_irq(irq, 0)


cdef class Bus:
    """Ports and physical memory (core/bus.h); for chips also as DMA masters and for routing memory (PAM, SMRAM)."""
    cdef CBus c
    cdef object __weakref__
    cdef readonly Clock clock
    cdef dict _mapped      # what answers in each region, by its number: keeps it alive
    cdef int _touched      # a writable view of memory may have written since the last run

    cdef void dma_read(self, uint64_t address, void *data, size_t size) noexcept nogil
    cdef void dma_write(self, uint64_t address, const void *data, size_t size) noexcept nogil
    cdef void set_a20(self, int enabled) noexcept nogil
    # What a region answers to: REGION_*.
    cdef void set_region(self, int id, uint32_t flags) noexcept nogil
    # Ports that a chip moves, as a base address register says: the window's number; moved to `first`, closed by
    # count 0.
    cdef int add_window(self, Chip chip) except -1
    cdef void move_window(self, int window, uint16_t first, uint32_t count) noexcept nogil
    cdef int check_chip(self, Chip chip) except -1
    cdef int check_shares_no_page(self, str name, uint64_t first, uint64_t last) except -1
    cdef object keep_region(self, int id, object answers)
    cdef void before_run(self) noexcept
