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

cdef object LIMIT = Stop(StopReason.LIMIT)
cdef object HALTED = Stop(StopReason.HALTED)
cdef object STOPPED = Stop(StopReason.STOPPED)
cdef object TRIPLE_FAULT = Stop(StopReason.TRIPLE_FAULT)
cdef object BREAKPOINT = Stop(StopReason.BREAKPOINT)


cdef int64_t host_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef StopCode run_slice(
    Clock clock, CpuState *cpu, uint64_t cycles, uint64_t instructions, uint32_t flags,
) noexcept nogil:
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
    return argument(value, 0xFFFFFFFFFFFFFFFE, name)


cdef object run_while_not(
    Processor self, object until, uint64_t every, uint64_t most, uint64_t cycle_limit, int64_t deadline,
):
    cdef uint64_t goal = saturating_add(self.c.instructions, most), asked
    if every == 0:
        raise ValueError("every: 0 instructions")
    while not until(self):
        asked = self.c.instructions
        stop = run_for(self, min(every, goal - asked), cycle_limit, deadline)
        if stop is HALTED and self.c.instructions - asked == every:
            continue  # until is asked after HLT as after any other instruction
        if stop is not LIMIT or self.c.instructions >= goal or clock_now(&self.clock.c) >= cycle_limit:
            return stop
        if deadline and host_ns() >= deadline:
            return stop
    return BREAKPOINT


cdef object run_for(Processor self, uint64_t most, uint64_t cycle_limit, int64_t deadline):
    """The run loop: slices of about a millisecond. deadline: in host_ns(), 0: none."""
    cdef CpuState *cpu = self.c
    cdef Clock clock = self.clock
    cdef uint64_t goal = saturating_add(cpu.instructions, most)
    cdef uint64_t end, before
    cdef int64_t started, taken
    cdef bint release = most > SHORT_RUN, stuck
    begin_run(self)
    try:
        started = host_ns()
        while True:
            end = min(cycle_limit, saturating_add(clock_now(&clock.c), self._slice))
            before = cpu.instructions
            clock._running = <CPU *>cpu
            if release:
                code = run_slice(clock, cpu, end, goal - cpu.instructions, self._run_flags)
            else:
                code = cpu_run(cpu, end, goal - cpu.instructions, self._run_flags)
            clock._running = NULL
            stop = settle(self, code, goal, cycle_limit)
            if stop is not None:
                return stop
            # A handler whose first instruction faults, for ever: it completes nothing, and must not outlive a limit.
            stuck = code == STOP_LIMIT and cpu.instructions == before and cpu.activity == ACTIVITY_ACTIVE
            if stuck and goal != 0xFFFFFFFFFFFFFFFF:
                return LIMIT
            taken = host_ns() - started
            if taken > SLICE_NS:
                self._slice = max(self._slice // 2, <uint64_t>LEAST_SLICE)
            elif taken < SLICE_NS // 4 and code == STOP_LIMIT:
                self._slice = min(self._slice * 2, <uint64_t>MOST_SLICE)
            PyErr_CheckSignals()
            for poll in self._polls:
                poll()
            clock.raise_error()
            if clock._stop_asked:
                return STOPPED
            started = host_ns()
            if deadline and started >= deadline:
                return LIMIT
            release = True  # a short run that waits must let other threads in
    finally:
        end_run(self)


cdef int begin_run(Processor self) except -1:
    self.clock.check_idle()
    self.clock.raise_error()
    if self.bus._touched:
        self.bus.before_run()
    self.clock._thread = PyThread_get_thread_ident()
    self.clock._stop_code = CHIP_STOP_NONE
    self._until_reached = False
    if self.c.requests & REQUEST_STOP:
        cpu_clear(self.c, REQUEST_STOP)
    return 0


cdef void end_run(Processor self) noexcept:
    self.clock._running = NULL
    self.clock._stop_asked = 0
    self.clock._thread = 0


cdef object settle(Processor self, StopCode code, uint64_t goal, uint64_t cycle_limit):
    """What a slice's end means: a Stop, an exception, or None to go on."""
    cdef CpuState *cpu = self.c
    cdef Clock clock = self.clock
    if code == STOP_RESET:
        if self._reset is None:
            cpu_reset(cpu)
        else:
            self._reset()
    clock.raise_error()
    if clock._stop_code == CHIP_STOP_POWERED_OFF:
        return Stop(StopReason.POWERED_OFF, clock._stop_status)
    if clock._stop_code == CHIP_STOP_DEBUG_EXIT:
        return Stop(StopReason.DEBUG_EXIT, clock._stop_status)
    if self._until_reached:
        return BREAKPOINT
    if clock._stop_asked:
        return STOPPED
    if code == STOP_FAULT:
        raise self.fault()
    if code == STOP_BREAKPOINT:
        return Stop(StopReason.BREAKPOINT, None, cpu.fault.vector)
    if code == STOP_HALTED:
        return HALTED
    if code == STOP_TRIPLE_FAULT:
        return TRIPLE_FAULT
    if code == STOP_REQUEST or code == STOP_HOOK or code == STOP_RESET:
        cpu_clear(cpu, REQUEST_STOP)
        return None
    if self._run_flags & RUN_STOP_HLT and cpu.activity != ACTIVITY_ACTIVE:
        return HALTED  # HLT was the last instruction of those asked for
    if cpu.instructions >= goal or clock_now(&clock.c) >= cycle_limit:
        return LIMIT
    # HLT with nothing scheduled: only the host could end that.
    if cpu.activity != ACTIVITY_ACTIVE and clock_next(&clock.c) == CYCLE_NEVER and not self._polls:
        return HALTED
    return None
