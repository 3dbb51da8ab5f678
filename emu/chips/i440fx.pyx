# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Intel 82441FX: host bridge and memory controller of the 440FX, device 0 of PCI bus 0.

Datasheet 290549, "Register Description": configuration mechanism 1 (CONFADD at CF8h, CONFDATA at CFCh), and the
registers that route memory: PAM0 to PAM6, SMRAM. The DRAM, buffer, error and turbo registers are kept as written and
have no effect: this board's DRAM needs no set-up and makes no errors, and its reset control is the ISA bridge's. There
is no system management mode, so SMRAM is seen only while DOPEN is set.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from emu._core cimport REGION_READ, REGION_WRITE, Bus, Chip, Clock
from emu.chips.part cimport Fields
from emu.chips.pci cimport PCI_CMD, PCI_MLT, PCI_STS, PciFunction

from emu.errors import ConfigError

cdef enum:
    CONFADD = 0xCF8        # only as a doubleword; other accesses are the ISA bridge's
    CF9 = 0xCF9            # the ISA bridge's reset control, which answers byte accesses in between
    CONFDATA = 0xCFC
    CONE = 1 << 31         # CONFADD: an access to CONFDATA is a configuration cycle
    CONFADD_MASK = CONE | 0x00FFFFFC
    PAM = 0x59             # seven registers; in each nibble RE and WE of a segment
    PAM_RE = 1 << 0
    PAM_WE = 1 << 1
    SEGMENTS = 13          # C0000h to EFFFFh in 16 KiB, F0000h to FFFFFh in one
    SMRAM = 0x72
    SMRAME = 1 << 3        # SMRAM is used at all
    DLCK = 1 << 4          # until reset DOPEN stays 0 and this 1
    DOPEN = 1 << 6         # the DRAM below the display's memory is seen outside SMM too
    DBASESEG = 2           # the one segment there is: A0000h to BFFFFh


cdef class I440fx(PciFunction):
    """The host bridge, and the bus that it drives: `attach` puts functions on it.

    Args:
        clock: the machine's clock.
        name: unique on the board.
        bus: where memory is routed.
        isa: who answers byte accesses at CF9h: the PIIX4's reset control.
    """

    cdef Bus bus
    cdef Chip isa
    cdef void *functions[256]   # by device << 3 | function; the clock keeps the chips alive
    cdef int pam_region[SEGMENTS]
    cdef int smram_region
    cdef bint routed            # the regions are known
    cdef bint locked
    cdef uint32_t confadd

    def __cinit__(self, Clock clock not None, str name not None, Bus bus not None, Chip isa not None):
        self.name = name
        self.bus = bus
        self.isa = isa
        self.functions[0] = <void *>self
        self.identify(0x1237, 2, 0x060000)
        self.define(PCI_CMD, 2, 0x0006, 0x0140)            # MAE and BME are wired to 1; PERRE, SERRE
        self.define(PCI_STS, 2, 0x0280, 0, 0xF900)
        self.define(PCI_MLT, 1, 0, 0xF8)
        self.define(0x50, 2, 0x0000, 0xFFFF)               # PMCCFG
        self.define(0x52, 1, 0xFF, 0xFF)                   # DETURBO
        self.define(0x53, 1, 0x80, 0xFF)                   # DBC
        self.define(0x54, 1, 0x00, 0xFF)                   # AXC
        self.define(0x55, 2, 0x0000, 0xFFFF)               # DRT
        self.define(0x57, 1, 0x01, 0xFF)                   # DRAMC
        self.define(0x58, 1, 0x10, 0xFF)                   # DRAMT
        self.define(PAM, 1, 0, 0x30)
        for register in range(PAM + 1, PAM + 7):
            self.define(register, 1, 0, 0x33)
        for register in range(0x60, 0x68):
            self.define(register, 1, 0x01, 0xFF)           # DRB
        self.define(0x68, 1, 0x00, 0xC0)                   # FDHC
        self.define(0x70, 1, 0x20, 0xF8)                   # MTT
        self.define(0x71, 1, 0x10, 0x1F)                   # CLT
        self.define(SMRAM, 1, DBASESEG, 0x78)
        self.define(0x90, 1, 0x00, 0xFF)                   # ERRCMD
        self.define(0x91, 1, 0x00, 0x00, 0x11)             # ERRSTS
        self.define(0x93, 1, 0x00, 0xFF)                   # TRC

    cpdef reset(self):
        self.confadd = 0
        self.locked = False
        PciFunction.reset(self)

    def attach(self, int device, int function, PciFunction chip not None):
        """Puts a function on the bus, where configuration cycles to this device and function reach it.

        Raises:
            ConfigError: there is one already, or no such place.
        """
        self.clock.check()
        if not (0 <= device < 32 and 0 <= function < 8):
            raise ConfigError(f"{chip.name}: no PCI device {device} with a function {function}")
        if self.functions[device << 3 | function] != NULL:
            other = <Chip>self.functions[device << 3 | function]
            raise ConfigError(f"{chip.name}: PCI device {device}, function {function} is {other.name}")
        self.functions[device << 3 | function] = <void *>chip

    def route(self, memory):
        """Maps the DRAM that PAM and SMRAM uncover, over everything that was mapped there before.

        Args:
            memory: the RAM, at least 1 MiB; it starts at address 0.

        Raises:
            ConfigError: it is smaller, or was mapped already.
        """
        self.clock.check()
        if self.routed:
            raise ConfigError(f"{self.name}: the DRAM was mapped already")
        self.smram_region = self.bus.map_memory(0xA0000, memory, 0xA0000, 0x20000, 0)
        for segment in range(SEGMENTS):
            size = 0x10000 if segment == SEGMENTS - 1 else 0x4000
            start = 0xC0000 + 0x4000 * segment
            self.pam_region[segment] = self.bus.map_memory(start, memory, start, size, 0)
        self.routed = True
        self.apply()

    cdef void apply(self) noexcept nogil:
        cdef int segment
        cdef uint8_t bits
        if self.locked or self.config[SMRAM] & DLCK:
            self.locked = True
            self.config[SMRAM] = (self.config[SMRAM] | DLCK) & ~DOPEN
        if not self.routed:
            return
        bits = self.config[SMRAM] & (DOPEN | SMRAME)
        self.bus.set_region(self.smram_region, REGION_READ | REGION_WRITE if bits == DOPEN | SMRAME else 0)
        for segment in range(SEGMENTS):
            # PAM0 has F0000h in its upper nibble, PAM1 C0000h in its lower and C4000h in its upper one, and so on.
            bits = self.config[PAM] >> 4 if segment == SEGMENTS - 1 \
                else self.config[PAM + 1 + segment // 2] >> 4 * (segment & 1)
            self.bus.set_region(
                self.pam_region[segment],
                (REGION_READ if bits & PAM_RE else 0) | (REGION_WRITE if bits & PAM_WE else 0),
            )

    cdef void *selected(self) noexcept nogil:
        """The function that CONFADD names; nobody is on other buses, and a device without function 0 is not there."""
        cdef uint32_t place = self.confadd >> 8
        return NULL if place & 0xFF00 else self.functions[place & 0xFF]

    cdef uint32_t port_read(self, uint16_t port, int size) noexcept nogil:
        cdef uint32_t value = 0
        cdef void *function
        cdef int at
        if port == CONFADD and size == 4:
            return self.confadd
        if port >= CONFDATA:
            function = self.selected()
            if not self.confadd & CONE or function == NULL:
                return 0xFFFFFFFF  # the cycle ends by master abort
            return (<PciFunction>function).config_read((self.confadd & 0xFC) | (port & 3), size)
        for at in range(size):
            value |= self.read8(<uint16_t>(port + at)) << 8 * at
        return value

    cdef uint32_t read8(self, uint16_t port) noexcept nogil:
        if port >= CONFDATA:
            return self.port_read(port, 1) & 0xFF
        return self.isa.port_read(port, 1) & 0xFF if port == CF9 else 0xFF

    cdef void port_write(self, uint16_t port, uint32_t value, int size) noexcept nogil:
        cdef void *function
        cdef int at
        if port == CONFADD and size == 4:
            self.confadd = value & CONFADD_MASK
        elif port >= CONFDATA:
            function = self.selected()
            if self.confadd & CONE and function != NULL:
                (<PciFunction>function).config_write((self.confadd & 0xFC) | (port & 3), value, size)
        else:
            for at in range(size):
                self.write8(<uint16_t>(port + at), value >> 8 * at & 0xFF)

    cdef void write8(self, uint16_t port, uint32_t value) noexcept nogil:
        if port >= CONFDATA:
            self.port_write(port, value, 1)
        elif port == CF9:
            self.isa.port_write(port, value, 1)

    cdef int fields(self, Fields f) except -1:
        f.u32("confadd", &self.confadd)
        f.flag("smram_locked", &self.locked)
        return self.config_fields(f)
