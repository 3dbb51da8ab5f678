# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Intel 82371AB (PIIX4), function 3: power management.

Datasheet 290562, "Power Management PCI Configuration Registers (Function 3)" and "Power Management I/O Space
Registers". PMREGMISC opens the I/O block at PMBA: PMSTS, PMEN, PMCNTRL and PMTMR are ACPI's PM1 and timer, GPSTS and
GPEN its GPE0. The timer counts 315/88 MHz (3.579545 MHz). APMC and APMS lie at B2h and B3h.

There is no system management mode: what would raise SMI# sets its status bit and nothing else. APMC_EN is set after
reset, from which firmware concludes that SMM was set up before, and does not wait for its first SMI. The processor does
not stop at PLVL2 and PLVL3. There is no SMBus, so SMBBA reads as 0. Device monitors and general-purpose pins are
registers.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from emu._core cimport CHIP_STOP_POWERED_OFF, Bus, Clock, Irq, set_irq
from emu.chips.part cimport Fields
from emu.chips.pci cimport PCI_CMD, PCI_CMD_IOSE, PCI_INTLN, PCI_INTPN, PCI_STS, PciFunction

from emu.errors import ConfigError

cdef enum:
    PMBA = 0x40
    PMBA_MASK = 0xFFC0
    DEVACTB = 0x58
    APMC_EN = 1 << 25       # a write of APMC raises SMI#
    PMREGMISC = 0x80
    PMIOSE = 1 << 0
    BLOCK = 64              # ports of the I/O block

    TIMER_NUMERATOR = 315_000_000
    TIMER_DENOMINATOR = 88
    TIMER_MSB = 1 << 23     # the timer has 24 bits

    PMSTS = 0x00            # with PMEN in the upper half of the doubleword
    PMCNTRL = 0x04
    PMTMR = 0x08
    GPSTS = 0x0C            # with GPEN in the upper half
    PCNTRL = 0x10
    PLVL = 0x14
    GLBSTS = 0x18
    DEVSTS = 0x1C
    GLBEN = 0x20
    GLBCTL = 0x28
    DEVCTL = 0x2C
    GPIREG = 0x30
    GPOREG = 0x34
    APMC = 0xB2
    APMS = 0xB3

    # PMSTS and PMEN.
    TMROF_STS = 1 << 0
    BM_STS = 1 << 4
    GBL_STS = 1 << 5
    PWRBTN_STS = 1 << 8
    RTC_STS = 1 << 10
    PWRBTNOR_STS = 1 << 11
    RSM_STS = 1 << 15
    STS_MASK = TMROF_STS | BM_STS | GBL_STS | PWRBTN_STS | RTC_STS | PWRBTNOR_STS | RSM_STS
    EN_MASK = TMROF_STS | GBL_STS | PWRBTN_STS | RTC_STS  # each enables the status bit in its place
    # PMCNTRL.
    SCI_EN = 1 << 0
    BRLD_EN = 1 << 1
    GBL_RLS = 1 << 2        # write-only
    SUS_TYP = 7 << 10       # 0: soft off
    SUS_EN = 1 << 13        # write-only
    CNT_MASK = SCI_EN | BRLD_EN | SUS_TYP
    # GPSTS and GPEN.
    THRM_STS = 1 << 0
    USB_STS = 1 << 8
    GPI_STS = 1 << 9
    RI_STS = 1 << 10
    LID_STS = 1 << 11
    GP_MASK = THRM_STS | USB_STS | GPI_STS | RI_STS | LID_STS
    # GLBSTS; the bits of GP_STS, PM1_STS and DEV_STS say that a bit of another register is set.
    BIOS_STS = 1 << 0
    APM_STS = 1 << 5
    PM1_STS = 1 << 6
    GP_STS = 1 << 7
    GLB_WRITE_CLEAR = 0x0D27
    # GLBCTL.
    BIOS_RLS = 1 << 1       # write-only: sets GBL_STS

    EVENT_TIMER = 0
    EVENT_BUTTON = 1
    OVERRIDE_SECONDS = 4    # the power button held so long turns off whatever the guest does


cdef class Piix4Pm(PciFunction):
    """Power management. Pin: SCI out. Input lines: 0 the power button, 1 the RTC's IRQ8#, 2 THRM#, 3 USB, 4 GPI1#,
    5 RI#, 6 LID; each sets its status bit when it rises (1: asserted).

    A write of SUS_EN with SUS_TYP 0 powers the machine off. The other sleep types are not entered.

    Args:
        clock: the machine's clock.
        name: unique on the board.
        bus: where the I/O block answers.
        base: a strap of this board: PMBA after reset, with the block open, so that an image without PCI code finds the
            timer and can power off. Without it PMBA is 0 and the block closed, as the datasheet says.

    Raises:
        ConfigError: the base is not a multiple of 64 below 65536.
    """

    cdef Irq sci
    cdef Bus bus
    cdef int window
    cdef uint16_t sts, en, cnt, gpsts, gpen, glbsts, glben
    cdef uint32_t pcntrl, glbctl, devctl, gporeg
    cdef uint8_t apmc, apms
    cdef uint8_t lines      # the inputs' levels
    cdef uint64_t seen      # the timer tick up to which TMROF_STS is worked out

    def __cinit__(self, Clock clock not None, str name not None, Bus bus not None, int base=0):
        if not 0 <= base <= PMBA_MASK or base & ~PMBA_MASK:
            raise ConfigError(f"{name}: {base:#x} is no base for 64 ports")
        self.name = name
        self.bus = bus
        self.window = bus.add_window(self)
        self.identify(0x7113, 1, 0x068000)
        self.define(PCI_CMD, 2, 0x0000, PCI_CMD_IOSE)
        self.define(PCI_STS, 2, 0x0280, 0, 0xF800)
        self.define(PCI_INTLN, 1, 0x00, 0xFF)
        self.define(PCI_INTPN, 1, 0x01)
        self.define(PMBA, 4, base | 1, PMBA_MASK)
        for register in range(0x44, PMREGMISC, 4):          # CNTA, CNTB, GPICTL, DEVRES, DEVACT
            self.define(register, 4, APMC_EN if register == DEVACTB else 0, 0xFFFFFFFF)
        self.define(PMREGMISC, 1, PMIOSE if base else 0, PMIOSE)
        self.define(0x90, 4, 0x00000001)                    # SMBBA

    cpdef reset(self):
        self.sts = self.en = self.cnt = 0
        self.gpsts = self.gpen = self.glbsts = self.glben = 0
        self.pcntrl = self.glbctl = self.devctl = 0
        self.gporeg = 0x7FFFBFFF
        self.apmc = self.apms = 0
        self.seen = self.ticks()
        self.clock.cancel(self, EVENT_BUTTON)
        self.settle()
        PciFunction.reset(self)

    cdef void apply(self) noexcept nogil:
        self.bus.move_window(
            self.window, self.register32(PMBA) & PMBA_MASK, BLOCK if self.config[PMREGMISC] & PMIOSE else 0
        )

    cdef Irq *output(self, str name) except NULL:
        if name == "SCI":
            return &self.sci
        raise ConfigError(f"{self.name} has no output {name!r}: SCI")

    cdef void input(self, int line, int level) noexcept nogil:
        cdef uint8_t bit = <uint8_t>(1 << (line & 7))
        if not level:
            self.lines &= ~bit
            if line == 0:
                self.clock.cancel(self, EVENT_BUTTON)
            return
        if self.lines & bit:
            return
        self.lines |= bit
        self.catch_up()
        if line == 0:
            self.sts |= PWRBTN_STS
            self.clock.schedule(self, EVENT_BUTTON, self.clock.now() + OVERRIDE_SECONDS * self.clock.c.hz)
        elif line == 1:
            self.sts |= RTC_STS
        elif line == 2:
            self.gpsts |= THRM_STS
        elif line < 7:
            self.gpsts |= <uint16_t>(USB_STS << (line - 3))
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
        set_irq(&self.sci, self.cnt & SCI_EN and (self.sts & self.en) | (self.gpsts & self.gpen) != 0)
        if self.cnt & SCI_EN and self.en & ~self.sts & TMROF_STS:
            due = (self.seen // TIMER_MSB + 1) * TIMER_MSB
            self.clock.schedule(self, EVENT_TIMER, self.clock.cycle_of_tick(due, TIMER_NUMERATOR, TIMER_DENOMINATOR))
        else:
            self.clock.cancel(self, EVENT_TIMER)

    cdef void event(self, int id) noexcept nogil:
        self.catch_up()
        if id == EVENT_BUTTON:
            self.sts = (self.sts & ~PWRBTN_STS) | PWRBTNOR_STS
            self.clock.stop(CHIP_STOP_POWERED_OFF, 0)
        self.settle()

    cdef uint32_t read_register(self, int offset) noexcept nogil:
        """The doubleword at a multiple of 4."""
        if offset == PMSTS:
            return self.sts | <uint32_t>self.en << 16
        if offset == PMCNTRL:
            return self.cnt
        if offset == PMTMR:
            return self.seen & (2 * TIMER_MSB - 1)
        if offset == GPSTS:
            return self.gpsts | <uint32_t>self.gpen << 16
        if offset == PCNTRL:
            return self.pcntrl
        if offset == GLBSTS:
            return self.glbsts | (PM1_STS if self.sts else 0) | (GP_STS if self.gpsts else 0)
        if offset == GLBEN:
            return self.glben
        if offset == GLBCTL:
            return self.glbctl
        if offset == DEVCTL:
            return self.devctl
        if offset == GPIREG:
            return 0x003FFFFF  # GPI0 to GPI21, pulled up
        if offset == GPOREG:
            return self.gporeg
        return 0  # PLVL2 and PLVL3 read as 0, DEVSTS has nothing to report

    cdef void write_register(self, int offset, uint32_t value, uint32_t written) noexcept nogil:
        """Writes the bits `written` of the doubleword at a multiple of 4; the others of `value` are 0."""
        if offset == PMSTS:
            self.sts &= ~<uint16_t>(value & STS_MASK)  # a 1 clears
            self.en = <uint16_t>((self.en & ~(written >> 16)) | (value >> 16 & EN_MASK))
        elif offset == PMCNTRL:
            self.cnt = <uint16_t>((self.cnt & ~written) | (value & CNT_MASK))
            if value & GBL_RLS:
                self.glbsts |= BIOS_STS
            if value & SUS_EN and not self.cnt & SUS_TYP:
                self.clock.stop(CHIP_STOP_POWERED_OFF, 0)
        elif offset == GPSTS:
            self.gpsts &= ~<uint16_t>(value & GP_MASK)
            self.gpen = <uint16_t>((self.gpen & ~(written >> 16)) | (value >> 16 & GP_MASK))
        elif offset == PCNTRL:
            self.pcntrl = (self.pcntrl & ~written) | (value & 0x00023E1E)
        elif offset == GLBSTS:
            self.glbsts &= ~<uint16_t>(value & GLB_WRITE_CLEAR)
        elif offset == GLBEN:
            self.glben = <uint16_t>((self.glben & ~written) | value)
        elif offset == GLBCTL:
            self.glbctl = (self.glbctl & ~written) | (value & ~<uint32_t>BIOS_RLS)
            if value & BIOS_RLS:
                self.sts |= GBL_STS
        elif offset == DEVCTL:
            self.devctl = (self.devctl & ~written) | value
        elif offset == GPOREG:
            self.gporeg = (self.gporeg & ~written) | (value & 0x7FFFFFFF)

    cdef uint32_t port_read(self, uint16_t port, int size) noexcept nogil:
        cdef uint32_t value = 0
        cdef int at
        if port == APMC:
            return self.apmc | <uint32_t>self.apms << 8
        if port == APMS:
            return self.apms
        self.catch_up()
        if (port & 3) + size <= 4:
            return self.read_register(port & (BLOCK - 4)) >> 8 * (port & 3)
        for at in range(size):
            value |= (self.port_read(<uint16_t>(port + at), 1) & 0xFF) << 8 * at
        return value

    cdef void port_write(self, uint16_t port, uint32_t value, int size) noexcept nogil:
        cdef uint32_t ones = <uint32_t>0xFFFFFFFF >> (32 - 8 * size)
        cdef int at
        if port == APMC:
            self.apmc = <uint8_t>value
            self.glbsts |= APM_STS
            if size > 1:
                self.apms = <uint8_t>(value >> 8)
        elif port == APMS:
            self.apms = <uint8_t>value
        elif (port & 3) + size <= 4:
            self.catch_up()
            self.write_register(port & (BLOCK - 4), (value & ones) << 8 * (port & 3), ones << 8 * (port & 3))
            self.settle()
        else:
            for at in range(size):
                self.port_write(<uint16_t>(port + at), value >> 8 * at & 0xFF, 1)

    cdef int fields(self, Fields f) except -1:
        f.u16("pmsts", &self.sts)
        f.u16("pmen", &self.en)
        f.u16("pmcntrl", &self.cnt)
        f.u16("gpsts", &self.gpsts)
        f.u16("gpen", &self.gpen)
        f.u16("glbsts", &self.glbsts)
        f.u16("glben", &self.glben)
        f.u32("pcntrl", &self.pcntrl)
        f.u32("glbctl", &self.glbctl)
        f.u32("devctl", &self.devctl)
        f.u32("gporeg", &self.gporeg)
        f.u8("apmc", &self.apmc)
        f.u8("apms", &self.apms)
        f.u8("lines", &self.lines)
        f.u64("seen", &self.seen)
        f.level("sci", &self.sci.level)
        return self.config_fields(f)
