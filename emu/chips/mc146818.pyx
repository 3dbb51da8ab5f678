# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Motorola MC146818A real-time clock plus RAM, grown to 128 bytes as in the PC/AT, with the 128 bytes
of the 82371AB (PIIX4) beside them ("Real Time Clock Registers", RTCEI and RTCED).

MC146818A datasheet: "Time, Calendar, and Alarm Locations", "Interrupts", "Divider Stages", "Update Cycle",
"Registers". The time base is 32768 Hz, exact against the processor's clock; the host's time is never read. The time
is brought up to date when somebody looks, and there are events only while an interrupt is enabled and not yet raised.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from emu._core cimport Clock, Irq, set_irq
from emu.chips.isa8 cimport Isa8
from emu.chips.part cimport Fields

from emu.errors import ConfigError

cdef enum:
    HZ = 32768
    SECONDS = 0
    SECONDS_ALARM = 1
    MINUTES = 2
    MINUTES_ALARM = 3
    HOURS = 4
    HOURS_ALARM = 5
    DAY_OF_WEEK = 6
    DATE_OF_MONTH = 7
    MONTH = 8
    YEAR = 9
    A = 10
    B = 11
    C = 12
    D = 13
    CENTURY = 0x32  # by the PC's convention, kept by software
    A_RS = 0x0F
    A_DV = 0x70
    A_DV_RUN = 0x20  # 32768 Hz
    A_UIP = 0x80
    B_DSE = 0x01
    B_24 = 0x02
    B_DM = 0x04      # binary, not BCD
    B_SQWE = 0x08
    B_UIE = 0x10
    B_AIE = 0x20
    B_PIE = 0x40
    B_SET = 0x80
    C_UF = 0x10
    C_AF = 0x20
    C_PF = 0x40
    C_IRQF = 0x80
    D_VRT = 0x80
    HOURS_PM = 0x80  # in 12-hour mode
    ALARM_ANY = 0xC0  # an alarm byte from C0h up matches everything
    INDEX = 0x7F
    NMI_DISABLE = 0x80
    # The update cycle takes 1984 us, and UIP rises 244 us before it ("Update Cycle", Figure 12): in 32768ths.
    UPDATE_CYCLE = 65
    UIP_LEAD = 8

cdef uint8_t[13] DAYS = [0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


cdef class MC146818(Isa8):
    """The clock and its battery-backed RAM, at 70h (index) and 71h (data); the extended RAM at 72h and 73h.

    Pins: IRQ out, NMI_DISABLE, which is bit 7 of the index port, and IRQ8, by which the PIIX4 tells its power
    management of the same request.

    It starts at 2000-01-01 00:00:00, a Saturday, in BCD and 24-hour mode; set_time() sets another time.
    """

    cdef Irq irq, irq8, nmi_disable
    cdef uint8_t ram[128]      # registers A to C in their places, without UIP
    cdef uint8_t extended[128]
    cdef uint8_t index, extended_index
    cdef uint64_t base         # the tick at which the divider chain was at zero
    cdef uint64_t seen         # the tick up to which the rest is worked out
    cdef uint64_t next_update  # the tick at which the next update cycle ends
    cdef bint fallen_back      # the hour that daylight saving time repeats is being repeated

    def __cinit__(self, Clock clock not None, str name not None="mc146818"):
        self.name = name
        self.ram[A] = A_DV_RUN | 6
        self.ram[B] = B_24
        self.next_update = HZ
        self.set_time(2000, 1, 1, 0, 0, 0)

    cpdef reset(self):
        """The RESET pin: time and RAM go on, on the battery."""
        self.catch_up()
        self.ram[B] &= ~<uint8_t>(B_PIE | B_AIE | B_UIE | B_SQWE)
        self.ram[C] = 0
        self.index = self.extended_index = 0
        set_irq(&self.nmi_disable, 0)
        self.settle()

    cdef Irq *output(self, str name) except NULL:
        if name == "IRQ":
            return &self.irq
        if name == "IRQ8":
            return &self.irq8
        if name == "NMI_DISABLE":
            return &self.nmi_disable
        raise ConfigError(f"{self.name} has no output {name!r}: IRQ, IRQ8, NMI_DISABLE")

    def set_time(self, int year, int month, int day, int hour, int minute, int second):
        """Sets the time, which goes on from here; day of the week and century byte follow.

        Raises:
            ValueError: there is no such time between the years 1 and 9999.
        """
        import datetime

        self.clock.check()
        weekday = datetime.datetime(year, month, day, hour, minute, second).isoweekday()
        self.catch_up()
        self.put(SECONDS, second)
        self.put(MINUTES, minute)
        self.put_hours(hour)
        self.put(DAY_OF_WEEK, weekday % 7 + 1)
        self.put(DATE_OF_MONTH, day)
        self.put(MONTH, month)
        self.put(YEAR, year % 100)
        self.ram[CENTURY] = year // 1000 << 4 | year // 100 % 10
        self.fallen_back = False

    @property
    def nvram(self):
        """All 256 bytes, as the battery keeps them: 128 with the clock's own registers, 128 extended."""
        self.clock.check()
        self.catch_up()
        return (<const char *>self.ram)[:sizeof(self.ram)] + (<const char *>self.extended)[:sizeof(self.extended)]

    @nvram.setter
    def nvram(self, bytes data not None):
        """Raises ValueError unless there are 256. Bytes 0-9 and registers A-D, which are the clock's own, stay."""
        self.clock.check()
        if len(data) != 256:
            raise ValueError(f"{len(data)} bytes of CMOS RAM: 256 are needed")
        for at in range(D + 1, 128):
            self.ram[at] = data[at]
        for at in range(128):
            self.extended[at] = data[128 + at]

    # The time registers, in the format that register B says.

    cdef uint8_t encode(self, uint32_t value) noexcept nogil:
        return <uint8_t>(value if self.ram[B] & B_DM else value // 10 << 4 | value % 10)

    cdef uint32_t decode(self, uint8_t value) noexcept nogil:
        return value if self.ram[B] & B_DM else (value >> 4) * 10 + (value & 15)

    cdef uint32_t get(self, int register) noexcept nogil:
        return self.decode(self.ram[register])

    cdef void put(self, int register, uint32_t value) noexcept nogil:
        self.ram[register] = self.encode(value)

    cdef uint32_t get_hours(self) noexcept nogil:
        cdef uint32_t hour
        if self.ram[B] & B_24:
            return self.get(HOURS)
        hour = self.decode(self.ram[HOURS] & ~<uint8_t>HOURS_PM) % 12
        return hour + 12 if self.ram[HOURS] & HOURS_PM else hour

    cdef void put_hours(self, uint32_t hour) noexcept nogil:
        if self.ram[B] & B_24:
            self.put(HOURS, hour)
        else:
            self.ram[HOURS] = self.encode((hour + 11) % 12 + 1) | (HOURS_PM if hour >= 12 else 0)

    # The passing of time.

    cdef bint running(self) noexcept nogil:
        return self.ram[A] & A_DV == A_DV_RUN

    cdef uint64_t period(self) noexcept nogil:
        """Ticks between periodic interrupts, 0 for none (Table 5, "Periodic Interrupt Rate", 32.768 kHz)."""
        cdef int rate = self.ram[A] & A_RS
        if rate == 0:
            return 0
        return <uint64_t>1 << (rate + 6 if rate < 3 else rate - 1)

    cdef void catch_up(self) noexcept nogil:
        """Brings time and flags to the present."""
        cdef uint64_t tick = self.clock.ticks(HZ, 1)
        cdef uint64_t period = self.period()
        if self.running():
            if period and (tick - self.base) // period != (self.seen - self.base) // period:
                self.ram[C] |= C_PF
            while self.next_update <= tick:
                self.next_update += HZ
                if not self.ram[B] & B_SET:
                    self.update()
        self.seen = tick

    cdef void update(self) noexcept nogil:
        """One update cycle: a second passes, then the alarm is compared."""
        cdef uint32_t second = self.get(SECONDS) + 1
        self.put(SECONDS, 0 if second >= 60 else second)
        if second >= 60:
            self.next_minute()
        if self.ram[B] & B_DSE:
            self.save_daylight()
        self.ram[C] |= C_UF
        if self.alarm(SECONDS) and self.alarm(MINUTES) and self.alarm(HOURS):
            self.ram[C] |= C_AF

    cdef bint alarm(self, int register) noexcept nogil:
        cdef uint8_t alarm = self.ram[register + 1]
        return alarm & ALARM_ANY == ALARM_ANY or alarm == self.ram[register]

    cdef void next_minute(self) noexcept nogil:
        cdef uint32_t minute = self.get(MINUTES) + 1
        cdef uint32_t hour
        self.put(MINUTES, 0 if minute >= 60 else minute)
        if minute >= 60:
            hour = self.get_hours() + 1
            self.put_hours(0 if hour >= 24 else hour)
            if hour >= 24:
                self.next_day()

    cdef void next_day(self) noexcept nogil:
        cdef uint32_t day = self.get(DATE_OF_MONTH) + 1
        cdef uint32_t month = self.get(MONTH)
        cdef uint32_t year = self.get(YEAR)
        cdef uint32_t days = DAYS[month] if 1 <= month <= 12 else 31
        if month == 2 and year % 4 == 0:
            days = 29
        self.put(DAY_OF_WEEK, self.get(DAY_OF_WEEK) % 7 + 1)
        self.fallen_back = False
        if day > days:
            day = 1
            month += 1
        if month > 12:
            month = 1
            self.put(YEAR, (year + 1) % 100)
        self.put(DATE_OF_MONTH, day)
        self.put(MONTH, month)

    cdef void save_daylight(self) noexcept nogil:
        """DSE: the last Sunday in April has no hour from 1:59:59 on, the last one in October has it twice."""
        cdef uint32_t day = self.get(DATE_OF_MONTH)
        if self.get(DAY_OF_WEEK) != 1 or self.get_hours() != 2 or self.get(MINUTES) or self.get(SECONDS):
            return
        if self.get(MONTH) == 4 and day > 30 - 7:
            self.put_hours(3)
        elif self.get(MONTH) == 10 and day > 31 - 7 and not self.fallen_back:
            self.put_hours(1)
            self.fallen_back = True

    cdef void settle(self) noexcept nogil:
        """Drives IRQ from registers B and C, and plans the next event where a change of C would raise it."""
        cdef uint8_t enabled = self.ram[B] & (B_PIE | B_AIE | B_UIE)  # PIE, AIE, UIE lie over PF, AF, UF
        cdef uint64_t due = <uint64_t>-1
        cdef uint64_t period = self.period()
        if self.ram[C] & enabled:
            self.ram[C] |= C_IRQF
        else:
            self.ram[C] &= ~<uint8_t>C_IRQF
        set_irq(&self.irq, self.ram[C] & C_IRQF != 0)
        set_irq(&self.irq8, self.ram[C] & C_IRQF != 0)
        if self.running() and not self.ram[C] & C_IRQF:
            if enabled & B_PIE and period:
                due = self.seen + period - (self.seen - self.base) % period
            if enabled & (B_AIE | B_UIE) and not self.ram[B] & B_SET:
                due = min(due, self.next_update)
        if due != <uint64_t>-1:
            self.clock.schedule(self, 0, self.clock.cycle_of_tick(due, HZ, 1))
        else:
            self.clock.cancel(self, 0)

    cdef void event(self, int id) noexcept nogil:
        self.catch_up()
        self.settle()

    # Registers.

    cdef uint8_t read8(self, uint16_t port) noexcept nogil:
        cdef uint8_t value
        if not port & 1:
            return 0xFF  # the index is write-only
        if port & 2:
            return self.extended[self.extended_index]
        self.catch_up()
        if self.index == A:
            return self.ram[A] | (A_UIP if self.updating() else 0)
        if self.index == C:
            self.settle()
            value = self.ram[C]
            self.ram[C] = 0
            self.settle()
            return value
        if self.index == D:
            return D_VRT
        return self.ram[self.index]

    cdef bint updating(self) noexcept nogil:
        return self.running() and not self.ram[B] & B_SET and self.next_update - self.seen <= UPDATE_CYCLE + UIP_LEAD

    cdef void write8(self, uint16_t port, uint8_t value) noexcept nogil:
        if port & 3 == 2:
            self.extended_index = value & INDEX
            return
        if port & 3 == 3:
            self.extended[self.extended_index] = value
            return
        if not port & 1:
            self.index = value & INDEX
            set_irq(&self.nmi_disable, (value & NMI_DISABLE) != 0)
            return
        self.catch_up()
        if self.index == A:
            self.write_a(value)
        elif self.index == B:
            if value & B_SET:
                value &= ~<uint8_t>B_UIE  # SET clears UIE
            self.ram[B] = value
        elif self.index != C and self.index != D:
            self.ram[self.index] = value
        if A <= self.index <= D:
            self.settle()

    cdef void write_a(self, uint8_t value) noexcept nogil:
        cdef bint ran = self.running()
        self.ram[A] = value & ~<uint8_t>A_UIP
        if self.running() and not ran:
            # "the first update cycle begins one-half second later"
            self.base = self.seen
            self.next_update = self.seen + HZ // 2 + UPDATE_CYCLE

    cdef int fields(self, Fields f) except -1:
        f.block("ram", self.ram, sizeof(self.ram))
        f.block("extended", self.extended, sizeof(self.extended))
        f.u8("index", &self.index)
        f.u8("extended_index", &self.extended_index)
        self.extended_index &= INDEX
        f.level("nmi_disable", &self.nmi_disable.level)
        f.u64("base", &self.base)
        f.u64("seen", &self.seen)
        f.u64("next_update", &self.next_update)
        f.flag("fallen_back", &self.fallen_back)
        f.level("irq", &self.irq.level)
        self.irq8.level = self.irq.level
        self.index &= INDEX
        return 0
