# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Intel 82371AB (PIIX4), function 1: the IDE controller, with its two cables of two drives.

Datasheet 290562, "IDE Controller Register Descriptions (PCI Function 1)"; AT Attachment with Packet Interface - 6
(T13/1410D), "Register delivered data transfer", "Device 1 only / Device 0 only configurations". A channel answers at
its legacy ports while the command register's IOSE and its own IDE decode enable in IDETIM are set. There is no bus
master: BMIBA is wired to 0, and software does not find one.

An access takes the 600 ns of PIO mode 0, for which the processor waits; one to the data register of a drive whose fast
timing IDETIM enables (TIME0, TIME1) takes the sum of IORDY sample point and recovery time, in PCI clocks of 30 ns.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from emu._core cimport Clock, Irq, set_irq
from emu.chips.ata cimport ATA_COMMAND, ATA_CONTROL, ATA_DATA, ATA_DEVICE, Ata
from emu.chips.part cimport Fields
from emu.chips.pci cimport PCI_CMD, PCI_CMD_IOSE, PCI_MLT, PCI_STS, PciFunction

from emu.errors import ConfigError

cdef enum:
    IDETIM = 0x40           # one word a channel
    IDE_DECODE = 0x80       # bit 15 of it
    TIME0 = 0x01            # fast timing for drive 0; bit 4 for drive 1
    SITRE = 0x40            # bit 14: drive 1 has its times in SIDETIM
    SIDETIM = 0x44
    CMD_BME = 1 << 2
    COMPATIBLE_NS = 600
    PCI_CLOCK_NS = 30

    PRIMARY = 0x1F0
    SECONDARY = 0x170
    CONTROL = 0x206         # from the first port of a channel to its device control register
    DEV = 0x10              # in the device register
    SRST = 0x04             # in the device control register
    EXECUTE_DEVICE_DIAGNOSTIC = 0x90
    FLOATING = 0xFF         # no drive on the cable: the bus is pulled up


cdef class Piix4Ide(PciFunction):
    """The IDE controller. Pins: IRQ14 and IRQ15 out; the drives' INTRQ come in at lines 0 to 3."""

    cdef Irq irq[2]
    cdef void *drives[4]    # by channel << 1 | number; the clock keeps them alive
    cdef uint8_t selected[2]
    cdef uint8_t intrq      # the drives' INTRQ, a bit each
    cdef uint64_t compatible_cycle
    cdef uint64_t data_cycle[4]  # processor cycles of a word to or from each drive's data register

    def __cinit__(self, Clock clock not None, str name not None="piix4_ide"):
        self.name = name
        self.compatible_cycle = clock.wait_cycles(COMPATIBLE_NS)
        self.identify(0x7111, 1, 0x010180)
        self.define(PCI_CMD, 2, 0x0000, PCI_CMD_IOSE | CMD_BME)
        self.define(PCI_STS, 2, 0x0280, 0, 0x3800)
        self.define(PCI_MLT, 1, 0x00, 0xF0)
        self.define(IDETIM, 2, 0x0000, 0xF3FF)
        self.define(IDETIM + 2, 2, 0x0000, 0xF3FF)
        self.define(SIDETIM, 1, 0x00, 0xFF)
        self.define(0x48, 1, 0x00, 0x0F)                    # UDMACTL
        self.define(0x4A, 2, 0x0000, 0x3333)                # UDMATIM

    cpdef reset(self):
        self.selected[0] = self.selected[1] = 0
        PciFunction.reset(self)

    cdef void apply(self) noexcept nogil:
        """How long the words of each drive take."""
        cdef int channel, number, times
        for channel in range(2):
            for number in range(2):
                times = self.config[IDETIM + 2 * channel + 1]  # ISP in bits 5 and 4, RTC in bits 1 and 0
                if number == 1 and times & SITRE:
                    times = self.config[SIDETIM] >> 4 * channel
                    times = (times & 12) << 2 | times & 3
                self.data_cycle[channel << 1 | number] = self.clock.wait_cycles(
                    PCI_CLOCK_NS * ((5 - (times >> 4 & 3)) + (4 - (times & 3)))
                ) if self.config[IDETIM + 2 * channel] & TIME0 << 4 * number else self.compatible_cycle

    def attach(self, int channel, Ata drive not None):
        """Puts a drive on a cable, in the place that its jumper says.

        Raises:
            ConfigError: there is one already, or no such channel.
        """
        self.clock.check()
        if channel not in (0, 1):
            raise ConfigError(f"{self.name} has channels 0 and 1, no {channel}")
        cdef int place = channel << 1 | drive.number
        if self.drives[place] != NULL:
            raise ConfigError(f"{drive.name}: {(<Ata>self.drives[place]).name} is drive {drive.number} of this cable")
        drive.connect("INTRQ", self, place)
        self.drives[place] = <void *>drive
        if self.drives[channel << 1] != NULL:
            (<Ata>self.drives[channel << 1]).paired = self.drives[channel << 1 | 1] != NULL

    cdef Irq *output(self, str name) except NULL:
        if name == "IRQ14":
            return &self.irq[0]
        if name == "IRQ15":
            return &self.irq[1]
        raise ConfigError(f"{self.name} has no output {name!r}: IRQ14, IRQ15")

    cdef void input(self, int line, int level) noexcept nogil:
        cdef uint8_t bit = <uint8_t>(1 << (line & 3))
        self.intrq = self.intrq | bit if level else self.intrq & ~bit
        set_irq(&self.irq[0], self.intrq & 3 != 0)
        set_irq(&self.irq[1], self.intrq & 12 != 0)

    cdef int channel(self, uint16_t port) noexcept nogil:
        """Whose port it is; -1 where that channel does not answer."""
        cdef int channel = 1 if port & ~CONTROL & 0xF8 == SECONDARY & 0xF8 else 0
        cdef bint answers = self.config[PCI_CMD] & PCI_CMD_IOSE and self.config[IDETIM + 2 * channel + 1] & IDE_DECODE
        return channel if answers else -1

    cdef void select(self, int channel, int number) noexcept nogil:
        cdef int at
        self.selected[channel] = <uint8_t>number
        for at in range(2):
            if self.drives[channel << 1 | at] != NULL:
                (<Ata>self.drives[channel << 1 | at]).select(at == number)

    cdef uint8_t read_register(self, int channel, int register) noexcept nogil:
        cdef void *drive = self.drives[channel << 1 | self.selected[channel]]
        if drive != NULL:
            return (<Ata>drive).read_register(register)
        drive = self.drives[channel << 1]
        if drive == NULL:  # nobody, or a lone device 1, which does not answer for device 0
            return FLOATING
        # A lone device 0 answers for device 1, with a status of 0.
        return 0 if register >= ATA_COMMAND else (<Ata>drive).read_register(register)

    cdef void write_register(self, int channel, int register, uint8_t value) noexcept nogil:
        cdef int at
        cdef bint diagnostic = register == ATA_COMMAND and value == EXECUTE_DEVICE_DIAGNOSTIC
        if register == ATA_DEVICE:
            self.select(channel, 1 if value & DEV else 0)
        for at in range(2):
            # All registers are both drives', but a command is for the selected one.
            if self.drives[channel << 1 | at] != NULL and (
                register != ATA_COMMAND or diagnostic or at == self.selected[channel]
            ):
                (<Ata>self.drives[channel << 1 | at]).write_register(register, value)
        if diagnostic or register == ATA_CONTROL and value & SRST:
            self.select(channel, 0)

    cdef uint8_t read8(self, int channel, uint16_t port) noexcept nogil:
        cdef void *drive
        if port & 7 == ATA_DATA:
            drive = self.drives[channel << 1 | self.selected[channel]]
            return FLOATING if drive == NULL else (<Ata>drive).read_data8()
        return self.read_register(channel, ATA_CONTROL if port & CONTROL == CONTROL else port & 7)

    cdef void write8(self, int channel, uint16_t port, uint8_t value) noexcept nogil:
        cdef void *drive
        if port & 7 == ATA_DATA:
            drive = self.drives[channel << 1 | self.selected[channel]]
            if drive != NULL:
                (<Ata>drive).write_data8(value)
        else:
            self.write_register(channel, ATA_CONTROL if port & CONTROL == CONTROL else port & 7, value)

    cdef uint32_t port_read(self, uint16_t port, int size) noexcept nogil:
        cdef int channel = self.channel(port), at
        cdef void *drive
        cdef uint32_t value = 0
        if channel < 0:
            return 0xFFFFFFFF
        if port & 7 == ATA_DATA and size > 1:
            drive = self.drives[channel << 1 | self.selected[channel]]
            if drive == NULL:
                return 0xFFFFFFFF
            value = (<Ata>drive).read_data()
            if size == 4:
                value |= <uint32_t>(<Ata>drive).read_data() << 16
            self.clock.wait((size >> 1) * self.data_cycle[channel << 1 | self.selected[channel]])
            return value
        for at in range(size):
            value |= <uint32_t>self.read8(channel, <uint16_t>(port + at)) << 8 * at
        self.clock.wait(size * self.compatible_cycle)
        return value

    cdef void port_write(self, uint16_t port, uint32_t value, int size) noexcept nogil:
        cdef int channel = self.channel(port), at
        cdef void *drive
        if channel < 0:
            return
        if port & 7 == ATA_DATA and size > 1:
            drive = self.drives[channel << 1 | self.selected[channel]]
            if drive != NULL:
                (<Ata>drive).write_data(<uint16_t>value)
                if size == 4:
                    (<Ata>drive).write_data(<uint16_t>(value >> 16))
                self.clock.wait((size >> 1) * self.data_cycle[channel << 1 | self.selected[channel]])
            return
        for at in range(size):
            self.write8(channel, <uint16_t>(port + at), <uint8_t>(value >> 8 * at))
        self.clock.wait(size * self.compatible_cycle)

    cdef int fields(self, Fields f) except -1:
        f.u8("selected_primary", &self.selected[0])
        f.u8("selected_secondary", &self.selected[1])
        f.u8("intrq", &self.intrq)
        f.level("irq14", &self.irq[0].level)
        f.level("irq15", &self.irq[1].level)
        self.selected[0] &= 1
        self.selected[1] &= 1
        return self.config_fields(f)
