# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Intel 82371AB (PIIX4) power management: the ACPI fixed registers in its I/O space.

Datasheet 290562, "Power Management I/O Space Registers": PMSTS, PMEN, PMCNTRL, PMTMR. The timer counts 315/88 MHz
(3.579545 MHz). The board gives the I/O base that firmware would program as PMBA. Input lines: 0 power button,
1 the RTC's alarm.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from emu._core cimport CHIP_STOP_POWERED_OFF, Clock, Irq, set_irq
from emu.chips.part cimport Fields, Part

from emu.errors import ConfigError

cdef enum:
    TIMER_NUMERATOR = 315_000_000
    TIMER_DENOMINATOR = 88
    TIMER_MSB = 1 << 23     # the timer has 24 bits
    PMSTS = 0x00            # with PMEN in the upper half of the doubleword
    PMCNTRL = 0x04
    PMTMR = 0x08
    TMROF_STS = 1 << 0
    GBL_STS = 1 << 5
    PWRBTN_STS = 1 << 8
    RTC_STS = 1 << 10
    RSM_STS = 1 << 15
    STS_MASK = TMROF_STS | GBL_STS | PWRBTN_STS | RTC_STS | RSM_STS
    EN_MASK = TMROF_STS | GBL_STS | PWRBTN_STS | RTC_STS  # each enables the status bit in its place
    SCI_EN = 1 << 0
    BRLD_EN = 1 << 1
    GBL_RLS = 1 << 2        # write-only
    SUS_TYP = 7 << 10       # 0: soft off
    SUS_EN = 1 << 13        # write-only
    CNT_MASK = SCI_EN | BRLD_EN | SUS_TYP


cdef class Piix4Pm(Part):
    """PMSTS, PMEN, PMCNTRL and PMTMR, at a base that is a multiple of 64. Pin: SCI out.

    A write of SUS_EN with SUS_TYP 0 powers the machine off. The other sleep types are not entered.
    """

    cdef Irq sci
    cdef uint16_t sts, en, cnt
    cdef uint64_t seen  # the timer tick up to which TMROF_STS is worked out

    def __cinit__(self, Clock clock not None, str name not None="piix4_pm"):
        self.name = name

    cpdef reset(self):
        self.sts = self.en = self.cnt = 0
        self.seen = self.ticks()
        self.settle()

    cdef Irq *output(self, str name) except NULL:
        if name == "SCI":
            return &self.sci
        raise ConfigError(f"{self.name} has no output {name!r}: SCI")

    cdef void input(self, int line, int level) noexcept nogil:
        if level:
            self.catch_up()
            self.sts |= PWRBTN_STS if line == 0 else RTC_STS if line == 1 else 0
            self.settle()

    cdef uint64_t ticks(self) noexcept nogil:
        return self.clock.ticks(TIMER_NUMERATOR, TIMER_DENOMINATOR)

    cdef void catch_up(self) noexcept nogil:
        """TMROF_STS is set whenever the timer's uppermost bit changes."""
        cdef uint64_t ticks = self.ticks()
        if ticks // TIMER_MSB != self.seen // TIMER_MSB:
            self.sts |= TMROF_STS
        self.seen = ticks

    cdef void settle(self) noexcept nogil:
        """Drives SCI, and plans the timer's next overflow where that would raise it."""
        cdef uint64_t due
        set_irq(&self.sci, self.cnt & SCI_EN and self.sts & self.en != 0)
        if self.cnt & SCI_EN and self.en & ~self.sts & TMROF_STS:
            due = (self.seen // TIMER_MSB + 1) * TIMER_MSB
            self.clock.schedule(self, 0, self.clock.cycle_of_tick(due, TIMER_NUMERATOR, TIMER_DENOMINATOR))
        else:
            self.clock.cancel(self, 0)

    cdef void event(self, int id) noexcept nogil:
        self.catch_up()
        self.settle()

    cdef uint32_t port_read(self, uint16_t port, int size) noexcept nogil:
        cdef uint32_t value = 0
        self.catch_up()
        if port & 0x3C == PMSTS:
            value = self.sts | <uint32_t>self.en << 16
        elif port & 0x3C == PMCNTRL:
            value = self.cnt
        elif port & 0x3C == PMTMR:
            value = self.seen & (2 * TIMER_MSB - 1)
        return value >> 8 * (port & 3)

    cdef void port_write(self, uint16_t port, uint32_t value, int size) noexcept nogil:
        # Which bytes of the doubleword register are written, and with what.
        cdef uint32_t written = (<uint32_t>0xFFFFFFFF >> (32 - 8 * size)) << 8 * (port & 3)
        value <<= 8 * (port & 3)
        self.catch_up()
        if port & 0x3C == PMSTS:
            self.sts &= ~<uint16_t>(value & written & STS_MASK)  # a 1 clears
            self.en = <uint16_t>((self.en & ~(written >> 16)) | (value >> 16 & EN_MASK))
        elif port & 0x3C == PMCNTRL:
            self.cnt = <uint16_t>((self.cnt & ~written) | (value & CNT_MASK))
            if value & SUS_EN and not self.cnt & SUS_TYP:
                self.clock.stop(CHIP_STOP_POWERED_OFF, 0)
        self.settle()

    cdef int fields(self, Fields f) except -1:
        f.u16("pmsts", &self.sts)
        f.u16("pmen", &self.en)
        f.u16("pmcntrl", &self.cnt)
        f.u64("seen", &self.seen)
        f.level("sci", &self.sci.level)
        return 0
