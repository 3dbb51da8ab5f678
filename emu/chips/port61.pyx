# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Port 61h of the PC/AT: the speaker's and timer 2's gate, the refresh toggle and the NMI status.

82371AB (PIIX4), "NMISC - NMI Status and Control Register", "NMIEN - NMI Enable Register". Bits 6 and 7 report IOCHK#
and SERR#, input lines 0 and 1 (1: asserted); each is latched while its enable bit is 0 and raises NMI unless input
line 2, NMI_DISABLE, is high.
"""
from libc.stdint cimport uint8_t, uint16_t

from emu._core cimport Clock, Irq, lower_irq, set_irq
from emu.chips.i8254 cimport I8254
from emu.chips.isa8 cimport Isa8
from emu.chips.part cimport Fields

from emu.errors import ConfigError

cdef enum:
    TIM_CNT2_EN = 0x01   # GATE2
    SPKR_DAT_EN = 0x02   # OUT2 goes to the speaker
    PCI_SERR_EN = 0x04   # 1: disabled, and the latch is cleared
    IOCHK_NMI_EN = 0x08  # likewise
    WRITABLE = 0x0F
    REF_TOGGLE = 0x10
    TMR2_OUT_STS = 0x20
    IOCHK_NMI_STS = 0x40
    SERR_NMI_STS = 0x80


cdef class Port61(Isa8):
    """NMI status and control. Pins: GATE2 and NMI out, IOCHK, SERR and NMI_DISABLE in.

    Args:
        clock: the machine's clock.
        name: unique on the board.
        timer: whose counter 1 asks for refresh and whose OUT2 is read here; both are sampled when the port is read.
    """

    cdef Irq gate2, nmi
    cdef I8254 timer
    cdef uint8_t control, status
    cdef bint nmi_disable

    def __cinit__(self, Clock clock not None, str name not None, I8254 timer not None):
        self.name = name
        self.timer = timer

    cpdef reset(self):
        self.control = self.status = 0
        self.gate2.level = -1  # so that GATE2, which is high where nothing drives it, hears of the low level
        lower_irq(&self.gate2)
        lower_irq(&self.nmi)

    cdef Irq *output(self, str name) except NULL:
        if name == "GATE2":
            return &self.gate2
        if name == "NMI":
            return &self.nmi
        raise ConfigError(f"{self.name} has no output {name!r}: GATE2, NMI")

    cdef void input(self, int line, int level) noexcept nogil:
        if level and line == 0 and not self.control & IOCHK_NMI_EN:
            self.status |= IOCHK_NMI_STS
        elif level and line == 1 and not self.control & PCI_SERR_EN:
            self.status |= SERR_NMI_STS
        elif line == 2:
            self.nmi_disable = level != 0
        self.drive_nmi()

    cdef void drive_nmi(self) noexcept nogil:
        set_irq(&self.nmi, self.status != 0 and not self.nmi_disable)

    cdef uint8_t read8(self, uint16_t port) noexcept nogil:
        cdef uint8_t value = self.control | self.status
        if self.timer.periods(1) & 1:
            value |= REF_TOGGLE
        if self.timer.sample(2):
            value |= TMR2_OUT_STS
        return value

    cdef void write8(self, uint16_t port, uint8_t value) noexcept nogil:
        self.control = value & WRITABLE
        if value & IOCHK_NMI_EN:
            self.status &= ~<uint8_t>IOCHK_NMI_STS
        if value & PCI_SERR_EN:
            self.status &= ~<uint8_t>SERR_NMI_STS
        set_irq(&self.gate2, value & TIM_CNT2_EN)
        self.drive_nmi()

    cdef int fields(self, Fields f) except -1:
        f.u8("control", &self.control)
        f.u8("status", &self.status)
        f.flag("nmi_disable", &self.nmi_disable)
        f.level("gate2", &self.gate2.level)
        f.level("nmi", &self.nmi.level)
        return 0
