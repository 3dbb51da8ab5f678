# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Intel 8259A Programmable Interrupt Controller (datasheet 231468), with the ELCR of the 82371AB (PIIX4).

8259A: "Interrupt Sequence", "Programming the 8259A", "Initialization Command Words", "Operation Command Words".
82371AB: "ELCR1 - Interrupt Controller 1 Edge/Level Control Register", "ELCR2". One object is one chip: the board
cascades two by wires. Input lines 0-7 are IR0-IR7; line CAS carries what the master puts on CAS0-2.
"""
from libc.stdint cimport uint8_t, uint16_t

from emu._core cimport Chip, Clock, Irq, lower_irq, set_irq
from emu.chips.isa8 cimport Isa8
from emu.chips.part cimport Fields

from emu.errors import ConfigError

cdef enum:
    ICW1_IC4 = 0x01    # ICW4 will be sent
    ICW1_SNGL = 0x02   # alone: no ICW3
    ICW1_ADI = 0x04    # MCS-80: call addresses 4 bytes apart, else 8
    ICW1_LTIM = 0x08   # all inputs are level-triggered
    ICW1 = 0x10        # tells an ICW1 from the OCWs
    ICW4_UPM = 0x01    # 8086 mode
    ICW4_AEOI = 0x02
    ICW4_SFNM = 0x10   # special fully nested mode
    OCW2_EOI = 0x20
    OCW2_SL = 0x40     # the command names a level
    OCW2_R = 0x80      # rotate
    OCW3 = 0x08        # tells an OCW3 from an OCW2
    OCW3_RIS = 0x01
    OCW3_RR = 0x02
    OCW3_P = 0x04
    OCW3_SMM = 0x20
    OCW3_ESMM = 0x40
    ELCR_PORT = 0x400  # set in 4D0h and 4D1h, clear in the chip's own two ports
    CAS_LINE = 8


cdef class I8259(Isa8):
    """One 8259A. Pins: IR0-IR7 in, INT out; a master's CAS wire goes to its slave's line CAS.

    Args:
        clock: the machine's clock.
        name: tells the two chips of a pair apart in snapshots.
        master: what the SP/EN pin says; a slave gives a vector only when the master names its identity.
        elcr_mask: the inputs that the ELCR can make level-triggered; 0 for a chip without ELCR, which obeys LTIM.
    """

    #: The input line at which a slave hears CAS0-2.
    CAS = CAS_LINE

    cdef Irq int_, cas
    cdef uint8_t elcr_mask
    cdef readonly bint master
    cdef uint8_t pins       # the inputs' levels
    cdef uint8_t edges      # rises not yet acknowledged: the edge sense latches
    cdef uint8_t isr, imr, elcr
    cdef uint8_t icw1, icw2, icw3, icw4
    cdef uint8_t expected   # the next ICW, 2-4, or 0: initialised
    cdef uint8_t lowest     # the level with the lowest priority
    cdef uint8_t special_mask, rotate_in_aeoi, poll, read_isr
    cdef uint8_t cascade    # what is on CAS0-2

    def __cinit__(self, Clock clock not None, str name not None="i8259", *, bint master=True, uint8_t elcr_mask=0):
        self.name = name
        self.master = master
        self.elcr_mask = elcr_mask
        self.lowest = 7

    cpdef reset(self):
        """Power-on. The 8259A has no reset pin: until its ICWs have come nothing is delivered, here by a full IMR."""
        self.edges = self.isr = self.elcr = 0
        self.imr = 0xFF
        self.icw1 = self.icw2 = self.icw3 = self.icw4 = 0
        self.expected = 0
        self.lowest = 7
        self.special_mask = self.rotate_in_aeoi = self.poll = self.read_isr = 0
        self.update()

    cdef Irq *output(self, str name) except NULL:
        if name == "INT":
            return &self.int_
        if name == "CAS":
            return &self.cas
        raise ConfigError(f"{self.name} has no output {name!r}: INT, CAS")

    cdef void input(self, int line, int level) noexcept nogil:
        cdef uint8_t bit
        if line >= CAS_LINE:
            self.cascade = <uint8_t>level
            return
        bit = <uint8_t>(1 << (line & 7))
        if level:
            self.edges |= bit & ~self.pins
            self.pins |= bit
        else:
            # "The IR inputs must remain high until after the falling edge of the first INTA": a request that is
            # withdrawn is forgotten.
            self.edges &= ~bit
            self.pins &= ~bit
        self.update()

    cdef uint8_t irr(self) noexcept nogil:
        cdef uint8_t level_triggered = self.elcr
        if self.icw1 & ICW1_LTIM and not self.elcr_mask:
            level_triggered = 0xFF
        return (self.pins & level_triggered) | (self.edges & ~level_triggered)

    cdef int request(self) noexcept nogil:
        """The level that the priority resolver lets through, or -1."""
        cdef uint8_t pending = self.irr() & ~self.imr
        cdef uint8_t in_service = self.isr
        cdef int step, level
        cdef uint8_t bit
        if not pending:
            return -1
        if self.special_mask:
            in_service &= ~self.imr
        for step in range(1, 9):
            level = (self.lowest + step) & 7
            bit = <uint8_t>(1 << level)
            # Special fully nested mode: a slave in service may interrupt again, for its own higher levels.
            if pending & bit and (not in_service & bit or (self.icw4 & ICW4_SFNM and self.icw3 & bit and self.master)):
                return level
            if in_service & bit:
                return -1
        return -1

    cdef void update(self) noexcept nogil:
        set_irq(&self.int_, self.expected == 0 and self.request() >= 0)

    cdef int take(self) noexcept nogil:
        """The first INTA cycle, or a poll: the level goes into service. -1 where no request is there any more."""
        cdef int level = self.request()
        cdef uint8_t bit
        if level < 0:
            return -1
        bit = <uint8_t>(1 << level)
        self.edges &= ~bit
        if not self.icw4 & ICW4_AEOI:
            self.isr |= bit
        elif self.rotate_in_aeoi:
            self.lowest = <uint8_t>level
        return level

    cdef uint8_t acknowledge(self) noexcept nogil:
        """The INTA sequence. Where the request has gone, the answer is level 7 and nothing goes into service."""
        cdef int level
        cdef uint8_t vector
        if not self.master and self.cascade != (self.icw3 & 7):
            return 0xFF  # another slave is meant: this one leaves the data bus alone
        level = self.take()
        if level >= 0 and self.has_slave(level):
            (<Chip>self.cas.chip).input(self.cas.line, level)
            vector = (<Chip>self.cas.chip).acknowledge()
        else:
            vector = self.vector(7 if level < 0 else level)
        lower_irq(&self.int_)  # INT falls with INTA, so that a request still there makes an edge
        self.update()
        return vector

    cdef bint has_slave(self, int level) noexcept nogil:
        return self.master and not self.icw1 & ICW1_SNGL and self.icw3 >> level & 1 and self.cas.chip != NULL

    cdef uint8_t vector(self, int level) noexcept nogil:
        if self.icw4 & ICW4_UPM:
            return <uint8_t>((self.icw2 & 0xF8) | level)
        # MCS-80: the low byte of the CALL's address, which is what the second INTA cycle reads.
        if self.icw1 & ICW1_ADI:
            return <uint8_t>((self.icw1 & 0xE0) | level << 2)
        return <uint8_t>((self.icw1 & 0xC0) | level << 3)

    cdef uint8_t read8(self, uint16_t port) noexcept nogil:
        cdef int level
        if port & ELCR_PORT:
            return self.elcr
        if self.poll:  # the read is an interrupt acknowledge, and tells the level
            self.poll = 0
            level = self.take()
            lower_irq(&self.int_)
            self.update()
            return 0 if level < 0 else <uint8_t>(0x80 | level)
        if port & 1:
            return self.imr
        return self.isr if self.read_isr else self.irr()

    cdef void write8(self, uint16_t port, uint8_t value) noexcept nogil:
        if port & ELCR_PORT:
            self.elcr = value & self.elcr_mask
        elif port & 1:
            self.write_a0_high(value)
        elif value & ICW1:
            self.write_icw1(value)
        elif value & OCW3:
            self.write_ocw3(value)
        else:
            self.write_ocw2(value)
        self.update()

    cdef void write_icw1(self, uint8_t value) noexcept nogil:
        """Initialization Command Words 1 and 2: "the following automatically occur"."""
        self.icw1 = value
        self.edges = self.imr = self.isr = 0
        self.lowest = 7
        self.icw3 = 0 if self.master else 7
        self.special_mask = self.read_isr = self.poll = self.rotate_in_aeoi = 0
        if not value & ICW1_IC4:
            self.icw4 = 0
        self.expected = 2

    cdef void write_a0_high(self, uint8_t value) noexcept nogil:
        """ICW2 to ICW4 while they are expected, else OCW1."""
        if self.expected == 2:
            self.icw2 = value
            self.expected = 3 if not self.icw1 & ICW1_SNGL else 4 if self.icw1 & ICW1_IC4 else 0
        elif self.expected == 3:
            self.icw3 = value
            self.expected = 4 if self.icw1 & ICW1_IC4 else 0
        elif self.expected == 4:
            self.icw4 = value
            self.expected = 0
        else:
            self.imr = value

    cdef void write_ocw2(self, uint8_t value) noexcept nogil:
        cdef int level = value & 7
        if value & OCW2_EOI:
            if not value & OCW2_SL:
                level = self.highest_in_service()
            if level >= 0:
                self.isr &= ~<uint8_t>(1 << level)
                if value & OCW2_R:
                    self.lowest = <uint8_t>level
        elif value & OCW2_SL:
            if value & OCW2_R:  # set priority; without R it is no operation
                self.lowest = <uint8_t>level
        else:
            self.rotate_in_aeoi = 1 if value & OCW2_R else 0

    cdef int highest_in_service(self) noexcept nogil:
        """What a non-specific EOI ends: in special mask mode the masked levels are left in service."""
        cdef uint8_t in_service = self.isr
        cdef int step, level
        if self.special_mask:
            in_service &= ~self.imr
        for step in range(1, 9):
            level = (self.lowest + step) & 7
            if in_service >> level & 1:
                return level
        return -1

    cdef void write_ocw3(self, uint8_t value) noexcept nogil:
        if value & OCW3_ESMM:
            self.special_mask = 1 if value & OCW3_SMM else 0
        if value & OCW3_P:
            self.poll = 1
        elif value & OCW3_RR:
            self.read_isr = value & OCW3_RIS

    cdef int fields(self, Fields f) except -1:
        f.u8("pins", &self.pins)
        f.u8("edges", &self.edges)
        f.u8("isr", &self.isr)
        f.u8("imr", &self.imr)
        f.u8("elcr", &self.elcr)
        f.u8("icw1", &self.icw1)
        f.u8("icw2", &self.icw2)
        f.u8("icw3", &self.icw3)
        f.u8("icw4", &self.icw4)
        f.u8("expected", &self.expected)
        f.u8("lowest", &self.lowest)
        f.u8("special_mask", &self.special_mask)
        f.u8("rotate_in_aeoi", &self.rotate_in_aeoi)
        f.u8("poll", &self.poll)
        f.u8("read_isr", &self.read_isr)
        f.u8("cascade", &self.cascade)
        f.level("int", &self.int_.level)
        return 0
