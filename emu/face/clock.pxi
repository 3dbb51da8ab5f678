# Time, and the state of a run: whoever is on the board has the clock, so the run is kept there.

cdef extern from "emu/core/clock.h" nogil:
    ctypedef void (*EventCallback)(void *owner, int id) noexcept
    ctypedef struct CEvent "Event":
        uint64_t cycle
        uint64_t sequence
        EventCallback callback
        void *owner
        int id
    ctypedef struct ClockQueue "Clock":
        uint32_t count
        uint64_t sequence
        CEvent *queue
    const uint64_t CYCLE_NEVER
    void clock_init(CClock *clock, uint64_t hz)
    void clock_free(CClock *clock)
    bint clock_schedule(CClock *clock, EventCallback callback, void *owner, int id, uint64_t cycle)
    void clock_cancel(CClock *clock, void *owner, int id)
    uint64_t clock_due(const CClock *clock, const void *owner, int id)
    uint64_t clock_next(const CClock *clock)
    void clock_run_due(CClock *clock)
    uint64_t clock_now(const CClock *clock)
    void clock_leave(CClock *clock)
    uint64_t clock_ticks(const CClock *clock, uint64_t cycle, uint64_t numerator, uint64_t denominator)
    uint64_t clock_cycle_of_tick(const CClock *clock, uint64_t ticks, uint64_t numerator, uint64_t denominator)

cdef extern from "emu/core/cpu.h" nogil:
    enum:
        REQUEST_STOP
    void cpu_pulse(CPU *cpu, uint32_t request)

cdef extern from "Python.h" nogil:
    ctypedef struct PyThreadState:
        pass
    PyThreadState *PyEval_SaveThread()
    void PyEval_RestoreThread(PyThreadState *state)
    unsigned long PyThread_get_thread_ident()


cdef void event_of_chip(void *owner, int id) noexcept nogil:
    (<Chip>owner).event(id)


cdef class Clock:
    """The machine's time and its event queue.

    Time is a count of processor cycles from power-on; every other frequency is an exact ratio to it.

    Args:
        hz: processor cycles in a second of guest time.
        wait_states: does the processor wait for slow buses, as chips ask it to? Otherwise an access to an I/O port
            takes what the instruction takes.

    Raises:
        ValueError: `hz` is not within 1 to 2**40.
    """

    def __cinit__(self, hz=1_000_000_000, bint wait_states=False):
        frequency = argument(hz, 1ull << 40, "hz")
        if frequency == 0:
            raise ValueError("a clock of 0 Hz: not within 1 to 2**40")
        clock_init(&self.c, frequency)
        self._wait_states = wait_states
        self._chips = []

    def __dealloc__(self):
        clock_free(&self.c)

    cdef uint64_t now(self) noexcept nogil:
        return clock_now(&self.c)

    cdef uint64_t wait_cycles(self, uint64_t ns) noexcept nogil:
        return (ns * self.c.hz + 999_999_999) // 1_000_000_000 if self._wait_states else 0

    cdef void wait(self, uint64_t cycles) noexcept nogil:
        if self._running != NULL:
            self.c.left -= <int64_t>cycles

    cdef void schedule(self, Chip chip, int id, uint64_t cycle) noexcept nogil:
        if not clock_schedule(&self.c, event_of_chip, <void *>chip, id, cycle):
            self.keep_gil()
            with gil:
                self.store_error(MemoryError("no room for an event"))

    cdef void cancel(self, Chip chip, int id) noexcept nogil:
        clock_cancel(&self.c, <void *>chip, id)

    cdef uint64_t due(self, Chip chip, int id) noexcept nogil:
        return clock_due(&self.c, <void *>chip, id)

    cdef uint64_t ticks(self, uint64_t numerator, uint64_t denominator) noexcept nogil:
        return clock_ticks(&self.c, clock_now(&self.c), numerator, denominator)

    cdef uint64_t ticks_at(self, uint64_t cycle, uint64_t numerator, uint64_t denominator) noexcept nogil:
        return clock_ticks(&self.c, cycle, numerator, denominator)

    cdef uint64_t cycle_of_tick(self, uint64_t ticks, uint64_t numerator, uint64_t denominator) noexcept nogil:
        return clock_cycle_of_tick(&self.c, ticks, numerator, denominator)

    cdef void stop(self, int code, int64_t status) noexcept nogil:
        if self._stop_code == CHIP_STOP_NONE:
            self._stop_code = code
            self._stop_status = status
        self.leave()

    cdef void leave(self) noexcept nogil:
        if self._running != NULL:
            cpu_pulse(self._running, REQUEST_STOP)
            clock_leave(&self.c)

    cdef void keep_gil(self) noexcept nogil:
        cdef PyThreadState *state = <PyThreadState *>self._thread_state
        if state != NULL:
            self._thread_state = NULL
            PyEval_RestoreThread(state)

    cdef void store_error(self, object error) noexcept:
        if self._error is None:
            self._error = error
        else:
            self._error.add_note(f"before the run could stop: {error!r}")
        self.leave()

    cdef int raise_error(self) except -1:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return 0

    cdef int check(self) except -1:
        if self._thread != 0 and self._thread != PyThread_get_thread_ident():
            raise RunningError("the machine runs in another thread")
        return 0

    cdef int check_idle(self) except -1:
        if self._thread != 0:
            self.check()
            raise RunningError("the machine runs: this must wait until it stops")
        return 0

    @property
    def hz(self):
        """Processor cycles in a second of guest time."""
        return self.c.hz

    @property
    def cycle(self):
        """Processor cycles since power-on."""
        self.check()
        return clock_now(&self.c)

    @property
    def next_event(self):
        """The cycle of the next event, None where nothing is scheduled."""
        self.check()
        cycle = clock_next(&self.c)
        return None if cycle == CYCLE_NEVER else cycle

    def advance(self, cycles):
        """Lets time pass without a processor, and runs the events that fall due.

        Raises:
            RunningError: a processor runs on this clock.
            ValueError: the time would pass 2**63 cycles.
        """
        self.check_idle()
        cdef uint64_t target = clock_now(&self.c) + argument(cycles, (1ull << 63) - 1, "cycles")
        if target >= 1ull << 63:
            raise ValueError(f"cannot advance by {cycles} cycles")
        self._thread = PyThread_get_thread_ident()
        try:
            while self._error is None and clock_next(&self.c) <= target:
                self.set_now(max(clock_next(&self.c), clock_now(&self.c)))
                clock_run_due(&self.c)
            if self._error is None:
                self.set_now(target)
        finally:
            self._thread = 0
        self.raise_error()

    cdef void set_now(self, uint64_t cycle) noexcept nogil:
        self.c.horizon = cycle
        self.c.left = 0

    def adopt(self, Chip chip not None):
        """The chip, which was made with a clock of its own, lives on this one from now on.

        Where another chip here has its name it gets a number, so that its state can be told from the other's.

        Raises:
            ConfigError: it shares a clock with other chips, or has events there.
        """
        self.check_idle()
        if chip.clock is not self:
            if len(chip.clock._chips) != 1 or clock_next(&chip.clock.c) != CYCLE_NEVER:
                raise ConfigError(f"{chip.name} belongs to another machine")
            names = {(<Chip>other).name for other in self._chips}
            number, name = 2, chip.name
            while chip.name in names:
                chip.name = f"{name}-{number}"
                number += 1
            chip.place(self)

    def save(self):
        """The time and what is scheduled: (chip, id, cycle) in the order in which they are due."""
        self.check_idle()
        cdef ClockQueue *queue = <ClockQueue *>&self.c
        cdef uint32_t i
        events = [(queue.queue[i].cycle, queue.queue[i].sequence, (<Chip>queue.queue[i].owner).name, queue.queue[i].id)
                  for i in range(queue.count)
                  if queue.queue[i].callback == event_of_chip]  # a processor schedules its own anew
        events.sort()
        return {"version": 1, "cycle": clock_now(&self.c), "hz": self.c.hz,
                "events": [(name, id, cycle) for cycle, _, name, id in events]}

    def load(self, dict state not None):
        """Sets the time and the events that save() gave; the chips are found by name.

        Raises:
            BadInput: another version, another frequency, an event of a chip that is not here, or malformed; nothing has
                changed then.
        """
        cdef int number
        self.check_idle()
        if state.get("version") != 1 or state.get("hz") != self.c.hz:
            raise BadInput("the clock's state is of another version or frequency")
        chips = {(<Chip>chip).name: chip for chip in self._chips}
        events = []
        try:
            now = within(state["cycle"], (1ull << 63) - 1)
            for name, id, cycle in state["events"]:
                if name not in chips:
                    raise BadInput(f"the state has an event of {name!r}, which this machine lacks")
                number = id
                events.append((chips[name], number, within(cycle, 0xFFFFFFFFFFFFFFFE)))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BadInput(f"the clock's state is malformed: {error!r}") from None
        cdef ClockQueue *queue = <ClockQueue *>&self.c
        queue.count = 0
        queue.sequence = 0
        self.set_now(now)
        for chip, id, cycle in events:
            self.schedule(chip, id, cycle)
        self.raise_error()
