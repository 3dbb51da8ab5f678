# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Intel 8254 Programmable Interval Timer (datasheet 231164): "Programming the 8254", "Mode Definitions".

CLK is 105/88 MHz (14.31818 MHz / 12), exact against the processor's clock. Counting is worked out when somebody looks
or when a connected OUT is due to change; a counter whose OUT ends nowhere costs nothing. Input lines 0-2 are
GATE0-GATE2, outputs OUT0-OUT2.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from emu._core cimport Clock, Irq, set_irq
from emu.chips.isa8 cimport Isa8
from emu.chips.part cimport Fields

from emu.errors import ConfigError

cdef enum:
    CLK_NUMERATOR = 105_000_000
    CLK_DENOMINATOR = 88
    CONTROL_PORT = 3       # A1, A0
    CONTROL_BCD = 0x01
    CONTROL_RW_LSB = 0x10  # RW0
    CONTROL_RW_MSB = 0x20  # RW1
    CONTROL_RW = 0x30      # 0 in a command: counter latch
    READ_BACK_STATUS = 0x10  # both are active low
    READ_BACK_COUNT = 0x20
    STATUS_NULL_COUNT = 0x40
    STATUS_OUTPUT = 0x80

cdef uint64_t TICK_NEVER = <uint64_t>-1


cdef inline uint32_t modulus(Counter *c) noexcept nogil:
    return 10000 if c.control & CONTROL_BCD else 65536


cdef inline bint by_trigger(Counter *c) noexcept nogil:
    """The modes in which GATE is a trigger alone and its level means nothing."""
    return c.mode == 1 or c.mode == 5


cdef inline bint periodic(Counter *c) noexcept nogil:
    return c.mode == 2 or c.mode == 3


cdef uint32_t initial_count(Counter *c) noexcept nogil:
    """What CR means: 0 is the largest count there is. Digits above 9 count as they stand."""
    cdef uint32_t count = c.count
    if c.control & CONTROL_BCD:
        count = ((count >> 12) * 1000 + (count >> 8 & 15) * 100 + (count >> 4 & 15) * 10 + (count & 15)) % 10000
    return count if count else modulus(c)


cdef uint32_t half_period(Counter *c, bint out) noexcept nogil:
    """Mode 3: an odd count keeps OUT high one CLK longer than low. A count of 1 is not allowed; it acts like 2."""
    cdef uint32_t length = (c.loaded + 1) // 2 if out else c.loaded // 2
    return length if length else 1


cdef uint64_t elapsed(Counter *c) noexcept nogil:
    """CLKs counted since the load."""
    return c.held if c.stopped else c.now - c.start


cdef uint16_t counting_element(Counter *c) noexcept nogil:
    """CE as it is read: binary or BCD."""
    cdef uint64_t gone = elapsed(c)
    cdef uint32_t size = modulus(c), value
    if c.mode == 3:  # counts by two, from an even number
        value = <uint32_t>((c.loaded & ~1u) - 2 * gone) % size
    else:
        value = <uint32_t>((c.loaded + size - gone % size) % size)
    if c.control & CONTROL_BCD:
        value = value // 1000 << 12 | value // 100 % 10 << 8 | value // 10 % 10 << 4 | value % 10
    return <uint16_t>value


cdef uint64_t next_change(Counter *c) noexcept nogil:
    """The next tick after `now` at which something happens that may change OUT, or TICK_NEVER."""
    cdef uint64_t change = TICK_NEVER
    if not c.stopped:
        if c.mode == 2:
            change = c.start + c.loaded
            if c.out and c.loaded > 1 and c.now < change - 1:
                change -= 1
        elif c.mode == 3:
            change = c.start + half_period(c, c.out)
        elif c.armed:
            change = c.start + c.loaded
            if not c.out and c.mode >= 4:  # the strobe ends
                change += 1
    return min(change, c.load_at)


cdef void load(Counter *c) noexcept nogil:
    """CR goes to the counting element, at the tick `load_at`."""
    c.start = c.load_at
    c.load_at = TICK_NEVER
    c.loaded = initial_count(c)
    c.held = 0
    c.null_count = False
    c.armed = True
    c.stopped = not c.gate and not by_trigger(c)
    if c.mode == 1:
        c.out = False
    elif c.mode >= 2:
        c.out = True


cdef void reload(Counter *c, uint64_t tick) noexcept nogil:
    """The end of a period, or in mode 3 of half of one: CR is loaded anew."""
    c.start = tick
    c.loaded = initial_count(c)
    c.null_count = False


cdef void step(Counter *c, uint64_t tick) noexcept nogil:
    """Makes the change that next_change() foretold for this tick."""
    c.now = tick
    if tick == c.load_at:
        load(c)
    elif c.mode == 2:
        if tick == c.start + c.loaded:
            c.out = True
            c.periods += 1
            reload(c, tick)
        else:
            c.out = False
    elif c.mode == 3:
        c.out = not c.out
        c.periods += c.out
        reload(c, tick)
    elif c.mode < 2:
        c.armed = False
        c.out = True
        c.periods += 1
    elif c.out:  # the strobe of modes 4 and 5 lasts one CLK
        c.out = False
    else:
        c.armed = False
        c.out = True
        c.periods += 1


cdef void skip_periods(Counter *c, uint64_t tick) noexcept nogil:
    """Leaves out whole periods that would pass without a change of the count, for an OUT that nobody listens to."""
    cdef uint64_t periods
    if c.mode == 2 and not c.out:
        return
    if periodic(c) and not c.stopped and c.load_at == TICK_NEVER and not c.null_count and tick > c.start:
        if c.mode == 3 and c.loaded == 1:
            periods = (tick - c.start) // 2
            c.start += 2 * periods
        else:
            periods = (tick - c.start) // c.loaded
            c.start += periods * c.loaded
        c.periods += periods
        c.now = max(c.now, c.start)


cdef class I8254(Isa8):
    """Three counters. Pins: GATE0-GATE2 in (high where nothing is connected), OUT0-OUT2."""

    def __cinit__(self, Clock clock not None, str name not None="i8254"):
        self.name = name
        cdef int index
        for index in range(3):
            self.counters[index].gate = True
        self.reset()

    cpdef reset(self):
        """Power-on leaves the counters undefined; here they stand still, in mode 0 without a count."""
        cdef Counter *c
        cdef int index
        cdef bint gate
        for index in range(3):
            c = &self.counters[index]
            gate = c.gate
            memset(c, 0, sizeof(Counter))
            c.control = CONTROL_RW
            c.gate = gate
            c.stopped = c.null_count = True
            c.loaded = modulus(c)
            c.load_at = TICK_NEVER
            c.now = self.tick()
            self.settle(index)

    cdef Irq *output(self, str name) except NULL:
        if name == "OUT0":
            return &self.outs[0]
        if name == "OUT1":
            return &self.outs[1]
        if name == "OUT2":
            return &self.outs[2]
        raise ConfigError(f"{self.name} has no output {name!r}: OUT0, OUT1, OUT2")

    cdef uint64_t tick(self) noexcept nogil:
        return self.clock.ticks(CLK_NUMERATOR, CLK_DENOMINATOR)

    cdef bint sample(self, int index) noexcept nogil:
        self.catch_up(index)
        return self.counters[index].out

    cdef uint64_t periods(self, int index) noexcept nogil:
        self.catch_up(index)
        return self.counters[index].periods

    cdef void catch_up(self, int index) noexcept nogil:
        """Brings a counter to the present; a connected OUT goes through every change on the way."""
        cdef Counter *c = &self.counters[index]
        cdef uint64_t tick = self.tick(), change
        while True:
            change = next_change(c)
            if change > tick:
                break
            step(c, change)
            if self.outs[index].chip != NULL:
                set_irq(&self.outs[index], c.out)
            else:
                skip_periods(c, tick)
        c.now = tick

    cdef void settle(self, int index) noexcept nogil:
        """After a change from outside: drives OUT and plans when to look again."""
        cdef uint64_t change
        set_irq(&self.outs[index], self.counters[index].out)
        if self.outs[index].chip != NULL:
            change = next_change(&self.counters[index])
            if change != TICK_NEVER:
                self.clock.schedule(self, index, self.clock.cycle_of_tick(change, CLK_NUMERATOR, CLK_DENOMINATOR))
            else:
                self.clock.cancel(self, index)

    cdef void event(self, int id) noexcept nogil:
        if 0 <= id < 3:
            self.catch_up(id)
            self.settle(id)

    cdef void input(self, int line, int level) noexcept nogil:
        cdef Counter *c
        if not 0 <= line < 3 or self.counters[line].gate == (level != 0):
            return
        self.catch_up(line)
        c = &self.counters[line]
        c.gate = level != 0
        if by_trigger(c) or periodic(c):
            if c.gate and c.counted:  # a trigger loads the count with the next CLK
                c.load_at = c.now + 1
            elif not c.gate and periodic(c):
                c.held = <uint32_t>elapsed(c)
                c.stopped = True
                if c.counted:
                    c.out = True
        elif c.gate and c.counted and not c.null_count:
            c.start = c.now - c.held
            c.stopped = False
        elif not c.gate and not c.stopped:
            c.held = <uint32_t>(elapsed(c) if c.armed else elapsed(c) % modulus(c))
            c.stopped = True
        self.settle(line)

    cdef void write8(self, uint16_t port, uint8_t value) noexcept nogil:
        if port & 3 == CONTROL_PORT:
            self.write_control(value)
        else:
            self.write_count(port & 3, value)

    cdef void write_control(self, uint8_t value) noexcept nogil:
        cdef int index = value >> 6
        cdef Counter *c
        if index == 3:
            self.read_back(value)
            return
        self.catch_up(index)
        c = &self.counters[index]
        if not value & CONTROL_RW:
            self.read_back(<uint8_t>(READ_BACK_STATUS | 2 << index))
            return
        # The counting element keeps its value until a count has come.
        c.loaded = modulus(c)
        c.held = <uint32_t>(elapsed(c) % modulus(c))
        c.stopped = True
        c.armed = False
        c.load_at = TICK_NEVER
        c.control = value & 0x3F
        c.mode = value >> 1 & 7
        if c.mode > 5:  # M2 does not matter in modes 2 and 3
            c.mode -= 4
        c.counted = False
        c.null_count = True
        c.write_msb = c.read_msb = value & CONTROL_RW == CONTROL_RW_MSB
        c.latched = 0
        c.status_latched = False
        c.out = c.mode != 0
        self.settle(index)

    cdef void write_count(self, int index, uint8_t value) noexcept nogil:
        cdef Counter *c = &self.counters[index]
        cdef bint both = c.control & CONTROL_RW == CONTROL_RW
        self.catch_up(index)
        if both and not c.write_msb:
            c.count_lsb = value
            c.write_msb = True
            if c.mode == 0:  # "Writing the first byte disables counting. OUT is set low immediately"
                c.held = <uint32_t>elapsed(c)
                c.stopped = True
                c.armed = False
                c.load_at = TICK_NEVER
                c.counted = False
                c.out = False
                self.settle(index)
            return
        if both:
            c.count = <uint16_t>(c.count_lsb | value << 8)
            c.write_msb = False
        else:
            c.count = <uint16_t>(value << 8) if c.control & CONTROL_RW_MSB else value
        c.null_count = True
        # Modes 1 and 5 wait for a trigger; 2 and 3, once they run, for the end of the period.
        if c.mode == 0 or c.mode == 4 or (periodic(c) and not c.counted):
            c.load_at = c.now + 1
        if c.mode == 0:
            c.out = False
        c.counted = True
        self.settle(index)

    cdef void read_back(self, uint8_t value) noexcept nogil:
        """Read-Back Command, and with READ_BACK_STATUS alone the Counter Latch Command. What is latched stays."""
        cdef Counter *c
        cdef int index
        for index in range(3):
            if not value >> (index + 1) & 1:
                continue
            self.catch_up(index)
            c = &self.counters[index]
            if not value & READ_BACK_COUNT and not c.latched:
                c.latch = counting_element(c)
                c.latched = 2 if c.control & CONTROL_RW == CONTROL_RW else 1
            if not value & READ_BACK_STATUS and not c.status_latched:
                c.status = c.control
                if c.out:
                    c.status |= STATUS_OUTPUT
                if c.null_count:
                    c.status |= STATUS_NULL_COUNT
                c.status_latched = True

    cdef uint8_t read8(self, uint16_t port) noexcept nogil:
        """Status first, then a latched count, else the counting element as it is. The control word cannot be read."""
        cdef int index = port & 3
        cdef Counter *c
        cdef uint16_t value
        cdef bint msb
        if index == CONTROL_PORT:
            return 0xFF
        c = &self.counters[index]
        if c.status_latched:
            c.status_latched = False
            return c.status
        if c.latched:
            value = c.latch
            c.latched -= 1
        else:
            self.catch_up(index)
            value = counting_element(c)
        msb = c.read_msb
        if c.control & CONTROL_RW == CONTROL_RW:
            c.read_msb = not msb
        return <uint8_t>(value >> 8) if msb else <uint8_t>value

    cdef int fields(self, Fields f) except -1:
        cdef int index
        cdef Counter *c
        cdef str prefix
        for index in range(3):
            c = &self.counters[index]
            prefix = f"counter{index}."
            f.u8(prefix + "control", &c.control)
            f.u8(prefix + "mode", &c.mode)
            f.u16(prefix + "count", &c.count)
            f.u8(prefix + "count_lsb", &c.count_lsb)
            f.flag(prefix + "counted", &c.counted)
            f.flag(prefix + "null_count", &c.null_count)
            f.flag(prefix + "write_msb", &c.write_msb)
            f.flag(prefix + "read_msb", &c.read_msb)
            f.u8(prefix + "latched", &c.latched)
            f.u16(prefix + "latch", &c.latch)
            f.flag(prefix + "status_latched", &c.status_latched)
            f.u8(prefix + "status", &c.status)
            f.u64(prefix + "now", &c.now)
            f.u64(prefix + "start", &c.start)
            f.u64(prefix + "load_at", &c.load_at)
            f.u32(prefix + "loaded", &c.loaded)
            f.u32(prefix + "held", &c.held)
            f.flag(prefix + "stopped", &c.stopped)
            f.flag(prefix + "armed", &c.armed)
            f.flag(prefix + "gate", &c.gate)
            f.flag(prefix + "out", &c.out)
            f.u64(prefix + "periods", &c.periods)
            f.level(prefix + "out_wire", &self.outs[index].level)
            if c.loaded == 0:  # no chip saves this; a period of 0 would never end
                c.loaded = modulus(c)
        return 0
