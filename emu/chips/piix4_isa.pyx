# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Intel 82371AB (PIIX4), function 0: the PCI-to-ISA bridge.

Datasheet 290562, "PCI to ISA/EIO Bridge Register Descriptions (PCI Function 0)", "Interrupt Controller, Interrupt
Steering". All interrupt requests on their way to the two 8259s come through here: the ISA bus's own, and PIRQA# to
PIRQD#, which PIRQRC routes. Where a request is shared it is asserted while anybody asserts it; the ELCR must then make
it level-sensitive. XBCS, TOM and the other registers are kept as written and have no effect: which chips answer on the
X-bus is the board's matter, and there is no ISA master. The reset control at CF9h is reset_control.pyx.
"""
from libc.stdint cimport uint8_t, uint16_t

from emu._core cimport Clock, Irq, set_irq
from emu.chips.part cimport Fields
from emu.chips.pci cimport PCI_CMD, PCI_HEADT, PCI_MULTIFUNCTION, PCI_STS, PciFunction

from emu.errors import ConfigError

cdef enum:
    XBCS = 0x4E
    PIRQRC = 0x60           # one register a PIRQ
    NOT_ROUTED = 0x80       # IRQROUTEN#
    ROUTABLE = 0xDEF8       # IRQ3-7, 9-12, 14, 15
    PIRQ_LINE = 16


cdef class Piix4Isa(PciFunction):
    """The ISA bridge. Input lines: 0-15 the ISA bus's IRQ0-IRQ15 (SCI is IRQ9), PIRQA and up; outputs IRQ0 to IRQ15."""

    #: The input line of PIRQA#, 1 where it is asserted; PIRQB# to PIRQD# follow.
    PIRQA = PIRQ_LINE

    cdef Irq irq[16]
    cdef uint16_t isa       # the ISA bus's requests
    cdef uint8_t pirq       # those of PCI

    def __cinit__(self, Clock clock not None, str name not None="piix4_isa"):
        self.name = name
        self.identify(0x7110, 1, 0x060100)
        self.define(PCI_CMD, 2, 0x0007, 0x0108)             # SCE, SERRE; the rest is wired to 1
        self.define(PCI_STS, 2, 0x0280, 0, 0xF800)
        self.define(PCI_HEADT, 1, PCI_MULTIFUNCTION)
        self.define(0x4C, 1, 0x4D, 0xFF)                    # IORT
        self.define(XBCS, 2, 0x0003, 0x07FF)
        for register in range(PIRQRC, PIRQRC + 4):
            self.define(register, 1, NOT_ROUTED, 0x8F)
        self.define(0x64, 1, 0x10, 0xFF)                    # SERIRQC
        self.define(0x69, 1, 0x02, 0xFE)                    # TOM
        self.define(0x6A, 2, 0x0000, 0x8081)                # MSTAT
        self.define(0x76, 1, 0x04, 0x8F)                    # MBDMA0
        self.define(0x77, 1, 0x04, 0x8F)                    # MBDMA1
        self.define(0x80, 1, 0x00, 0x7F)                    # APICBASE
        self.define(0x82, 1, 0x00, 0x0F)                    # DLC
        self.define(0x90, 2, 0x0000, 0xFFFF)                # PDMACFG
        self.define(0x92, 2, 0x0000, 0xFFC0)                # DDMABP0
        self.define(0x94, 2, 0x0000, 0xFFC0)                # DDMABP1
        self.define(0xB0, 4, 0x00000000, 0xFFFFFFFF)        # GENCFG
        self.define(0xCB, 1, 0x21, 0x3D)                    # RTCCFG

    cdef Irq *output(self, str name) except NULL:
        for number in range(16):
            if name == f"IRQ{number}":
                return &self.irq[<int>number]
        raise ConfigError(f"{self.name} has no output {name!r}: IRQ0 to IRQ15")

    cdef void input(self, int line, int level) noexcept nogil:
        cdef uint16_t bit
        if line < PIRQ_LINE:
            bit = <uint16_t>(1 << (line & 15))
            self.isa = self.isa | bit if level else self.isa & ~bit
        else:
            bit = <uint16_t>(1 << (line & 3))
            self.pirq = <uint8_t>(self.pirq | bit if level else self.pirq & ~bit)
        self.apply()

    cdef void apply(self) noexcept nogil:
        cdef uint16_t requests = self.isa, bit
        cdef int at
        for at in range(4):
            bit = <uint16_t>(1 << (self.config[PIRQRC + at] & 15))
            if self.pirq >> at & 1 and not self.config[PIRQRC + at] & NOT_ROUTED:
                requests |= bit & ROUTABLE
        for at in range(16):
            set_irq(&self.irq[at], requests >> at & 1)

    cdef int fields(self, Fields f) except -1:
        cdef int at
        f.u16("isa", &self.isa)
        f.u8("pirq", &self.pirq)
        for at in range(16):
            f.level(f"irq{at}", &self.irq[at].level)
        return self.config_fields(f)
