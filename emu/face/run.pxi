# Running: slices of guest code without the GIL, and between them whatever the host wants.

cdef extern from "emu/core/cpu.h" nogil:
    ctypedef enum StopCode:
        STOP_LIMIT
        STOP_REQUEST
        STOP_HALTED
        STOP_TRIPLE_FAULT
        STOP_FAULT
        STOP_BREAKPOINT
        STOP_HOOK
        STOP_RESET
    enum:
        RUN_RAISE
        RUN_STOP_HLT
        RUN_STEP
    StopCode cpu_run(CpuState *cpu, uint64_t cycle_limit, uint64_t instruction_limit, uint32_t flags)

cdef extern from "<time.h>" nogil:
    enum:
        CLOCK_MONOTONIC
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *time)

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

cdef enum:
    FIRST_SLICE = 1 << 16      # cycles
    LEAST_SLICE = 1 << 12
    MOST_SLICE = 1 << 20
    SLICE_NS = 1_000_000       # host time that a slice should stay below
    SHORT_RUN = 2000           # instructions, for which the GIL is not released

cdef extern from *:
    """
    /* Another thread or a chip may set a request at any time. */
    static inline void cpu_clear(CPU *cpu, uint32_t request)
    {
        __atomic_and_fetch(&cpu->requests, ~request, __ATOMIC_RELAXED);
    }
    """
    void cpu_clear(CpuState *cpu, uint32_t request) noexcept nogil

LIMIT = Stop(StopReason.LIMIT)
HALTED = Stop(StopReason.HALTED)
STOPPED = Stop(StopReason.STOPPED)
TRIPLE_FAULT = Stop(StopReason.TRIPLE_FAULT)
BREAKPOINT = Stop(StopReason.BREAKPOINT)


cdef int64_t host_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef StopCode run_slice(Clock clock, CpuState *cpu, uint64_t cycles, uint64_t instructions, uint32_t flags) noexcept nogil:
    """A slice without the GIL. A callback that needs it takes it back and keeps it (Clock.keep_gil)."""
    clock._thread_state = PyEval_SaveThread()
    cdef StopCode code = cpu_run(cpu, cycles, instructions, flags)
    clock.keep_gil()
    return code


cdef uint64_t saturating_add(uint64_t a, uint64_t b) noexcept nogil:
    return a + b if a + b >= a else 0xFFFFFFFFFFFFFFFF


cdef uint64_t limit_of(object value, str name) except? 0xFFFFFFFFFFFFFFFF:
    """A limit from Python: None is none."""
    if value is None:
        return 0xFFFFFFFFFFFFFFFF
    try:
        return within(value, 0xFFFFFFFFFFFFFFFE)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
