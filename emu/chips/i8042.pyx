# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Intel 8042 as the PC's keyboard and auxiliary device controller.

PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller": status register, controller
commands, input and output port, scan code translation, time-outs. A frame has 11 bits at 12.5 kHz, so a byte to or from
a device takes 880 us. While the output buffer is full the devices are held back.
"""
from libc.stdint cimport uint8_t, uint16_t, uint64_t

from emu._core cimport Clock, Irq, lower_irq, raise_irq, set_irq
from emu.chips.isa8 cimport Isa8
from emu.chips.part cimport Fields
from emu.chips.ps2_device cimport Ps2Device, set_1

from emu.errors import ConfigError

cdef enum:
    COMMAND_PORT = 4        # 64h, else 60h
    FRAME_BITS = 11
    FRAME_HZ = 12_500
    OBF = 0x01
    IBF = 0x02
    SYS = 0x04              # as in the command byte
    CMD = 0x08              # the last write was to 64h
    UNLOCKED = 0x10
    AUXB = 0x20             # what the output buffer holds is the auxiliary device's
    TIMEOUT = 0x40
    # The command byte, byte 0 of the controller's RAM.
    KEYBOARD_INT = 0x01
    AUX_INT = 0x02
    KEYBOARD_DISABLE = 0x10
    AUX_DISABLE = 0x20
    TRANSLATE = 0x40
    AFTER_RESET = KEYBOARD_DISABLE | AUX_DISABLE | TRANSLATE
    # The output port.
    P2_RC = 0x01            # low: resets the processor
    P2_A20 = 0x02
    P2_KEYBOARD_OBF = 0x10
    P2_AUX_OBF = 0x20
    P2_WRITABLE = 0xCF
    P1 = 0xB0               # keyboard not locked, colour display, no manufacturing jumper
    READ_RAM = 0x20         # 20h-3Fh
    WRITE_RAM = 0x60        # 60h-7Fh
    DISABLE_AUX = 0xA7
    ENABLE_AUX = 0xA8
    TEST_AUX = 0xA9
    SELF_TEST = 0xAA
    TEST_KEYBOARD = 0xAB
    DISABLE_KEYBOARD = 0xAD
    ENABLE_KEYBOARD = 0xAE
    READ_P1 = 0xC0
    READ_P2 = 0xD0
    WRITE_P2 = 0xD1
    WRITE_KEYBOARD_OUTPUT = 0xD2
    WRITE_AUX_OUTPUT = 0xD3
    WRITE_AUX = 0xD4
    PULSE = 0xF0            # F0h-FFh: the lines of P2 whose bits are 0
    SELF_TEST_OK = 0x55
    BREAK = 0xF0
    RESEND = 0xFE           # what stands for a device's answer after a time-out
    # Where a byte comes from or goes to.
    CONTROLLER = 0
    KEYBOARD = 1
    AUX = 2
    EVENT_RECEIVED = 0
    EVENT_SENT = 1


cdef class I8042(Isa8):
    """The controller at 60h and 64h. Pins: IRQ1, IRQ12, A20 and RC out; input line 0: a device has bytes waiting.

    Args:
        clock: the machine's clock.
        name: unique on the board.
        keyboard, mouse: what hangs on the two ports, or None: then bytes sent there time out.
    """

    cdef Irq irq1, irq12, a20, rc
    cdef Ps2Device keyboard, mouse
    cdef uint8_t ram[32]
    cdef uint8_t p2
    cdef uint8_t dbbin, dbbout
    cdef bint input_full, output_full
    cdef bint is_command     # the last write was to 64h
    cdef bint timed_out      # what the output buffer holds stands for an answer that did not come
    cdef uint8_t source      # of what the output buffer holds
    cdef uint8_t displaced, displaced_source  # a device's byte whose place an answer of the controller took
    cdef uint8_t command     # whose data byte is awaited, or 0
    cdef uint8_t sending     # the device that a byte is on its way to, or 0
    cdef uint8_t sent        # that byte
    cdef uint8_t receiving   # the device whose frame is on its way, or 0
    cdef bint breaking       # translation: F0h was seen

    def __cinit__(
        self, Clock clock not None, str name not None="i8042", Ps2Device keyboard=None, Ps2Device mouse=None
    ):
        self.name = name
        self.keyboard = keyboard
        self.mouse = mouse
        self.reset()

    cpdef reset(self):
        """The reset pin: all lines of the output port go high, so address line 20 passes; both ports are shut."""
        cdef int at
        for at in range(32):
            self.ram[at] = 0
        self.ram[0] = AFTER_RESET
        self.input_full = self.output_full = self.is_command = self.timed_out = self.breaking = False
        self.source = self.displaced_source = self.command = self.sending = self.receiving = 0
        self.clock.cancel(self, EVENT_RECEIVED)
        self.clock.cancel(self, EVENT_SENT)
        self.p2 = P2_WRITABLE
        raise_irq(&self.a20)
        self.settle()

    cdef Irq *output(self, str name) except NULL:
        if name == "IRQ1":
            return &self.irq1
        if name == "IRQ12":
            return &self.irq12
        if name == "A20":
            return &self.a20
        if name == "RC":
            return &self.rc
        raise ConfigError(f"{self.name} has no output {name!r}: IRQ1, IRQ12, A20, RC")

    # The devices.

    cdef void input(self, int line, int level) noexcept nogil:
        self.settle()

    cdef uint64_t frame_end(self) noexcept nogil:
        return self.clock.now() + self.clock.c.hz * FRAME_BITS // FRAME_HZ

    cdef void settle(self) noexcept nogil:
        """Drives the interrupts; begins the next frame from a device where nothing stands against it."""
        set_irq(&self.irq1, self.output_full and self.source == KEYBOARD and self.ram[0] & KEYBOARD_INT != 0)
        set_irq(&self.irq12, self.output_full and self.source == AUX and self.ram[0] & AUX_INT != 0)
        if self.output_full or self.sending or self.receiving:
            return
        if not self.ram[0] & KEYBOARD_DISABLE and self.has_byte(KEYBOARD):
            self.receiving = KEYBOARD
        elif not self.ram[0] & AUX_DISABLE and self.has_byte(AUX):
            self.receiving = AUX
        if self.receiving:
            self.clock.schedule(self, EVENT_RECEIVED, self.frame_end())

    cdef bint has_byte(self, uint8_t device) noexcept nogil:
        if device == KEYBOARD:
            return self.keyboard is not None and self.keyboard.waiting()
        return self.mouse is not None and self.mouse.waiting()

    cdef void hold_back(self) noexcept nogil:
        """Inhibits the devices: a frame on its way is broken off, and its byte comes again later."""
        self.receiving = 0
        self.clock.cancel(self, EVENT_RECEIVED)

    cdef void event(self, int id) noexcept nogil:
        if id == EVENT_RECEIVED and self.receiving:
            self.frame_received()
        elif id == EVENT_SENT and self.sending:
            self.frame_sent()
        self.settle()

    cdef void frame_received(self) noexcept nogil:
        cdef uint8_t source = self.receiving
        cdef uint8_t value
        self.receiving = 0
        if self.output_full or not self.has_byte(source):
            return
        value = self.keyboard.take() if source == KEYBOARD else self.mouse.take()
        if source == KEYBOARD and self.ram[0] & TRANSLATE:
            if value == BREAK:
                self.breaking = True
                return
            value = set_1(value) | (0x80 if self.breaking else 0)
            self.breaking = False
        self.put(value, source)

    cdef void send(self, uint8_t value, uint8_t device) noexcept nogil:
        self.hold_back()
        self.sent = value
        self.sending = device
        # Sending opens the port.
        self.ram[0] &= ~<uint8_t>(KEYBOARD_DISABLE if device == KEYBOARD else AUX_DISABLE)
        self.clock.schedule(self, EVENT_SENT, self.frame_end())

    cdef void frame_sent(self) noexcept nogil:
        cdef uint8_t to = self.sending
        self.sending = 0
        if to == KEYBOARD and self.keyboard is not None:
            self.keyboard.receive(self.sent)
        elif to == AUX and self.mouse is not None:
            self.mouse.receive(self.sent)
        else:
            self.answer(RESEND, to)
            self.timed_out = True
        if self.input_full:
            self.take_input()

    # The buffers.

    cdef void put(self, uint8_t value, uint8_t source) noexcept nogil:
        self.dbbout = value
        self.source = source
        self.output_full = True
        self.timed_out = False

    cdef void answer(self, uint8_t value, uint8_t source) noexcept nogil:
        """The controller's own byte, which waits for nobody."""
        self.hold_back()
        if self.output_full and self.source != CONTROLLER:
            self.displaced = self.dbbout
            self.displaced_source = self.source
        self.put(value, source)

    cdef uint8_t read8(self, uint16_t port) noexcept nogil:
        if port & COMMAND_PORT:
            return (
                (OBF if self.output_full else 0) | (IBF if self.input_full else 0) | (self.ram[0] & SYS)
                | (CMD if self.is_command else 0) | UNLOCKED | (AUXB if self.source == AUX else 0)
                | (TIMEOUT if self.timed_out else 0)
            )
        cdef uint8_t value = self.dbbout
        self.output_full = False
        # Both requests end, if only for a moment.
        lower_irq(&self.irq1)
        lower_irq(&self.irq12)
        if self.displaced_source:
            self.put(self.displaced, self.displaced_source)
            self.displaced_source = 0
        self.settle()
        return value

    cdef void write8(self, uint16_t port, uint8_t value) noexcept nogil:
        self.dbbin = value
        self.is_command = port & COMMAND_PORT != 0
        self.input_full = True
        if not self.sending:
            self.take_input()
        self.settle()

    cdef void take_input(self) noexcept nogil:
        self.input_full = False
        if self.is_command:
            self.obey(self.dbbin)
        else:
            self.take_data(self.dbbin)

    # Commands.

    cdef void obey(self, uint8_t value) noexcept nogil:
        self.command = 0
        if READ_RAM <= value < READ_RAM + 32:
            self.answer(self.ram[value & 31], CONTROLLER)
        elif WRITE_RAM <= value < WRITE_RAM + 32 or WRITE_P2 <= value <= WRITE_AUX:
            self.command = value
        elif value == DISABLE_AUX:
            self.ram[0] |= AUX_DISABLE
            self.disabled(AUX)
        elif value == ENABLE_AUX:
            self.ram[0] &= ~<uint8_t>AUX_DISABLE
        elif value == DISABLE_KEYBOARD:
            self.ram[0] |= KEYBOARD_DISABLE
            self.disabled(KEYBOARD)
        elif value == ENABLE_KEYBOARD:
            self.ram[0] &= ~<uint8_t>KEYBOARD_DISABLE
        elif value == SELF_TEST:
            self.ram[0] = AFTER_RESET | SYS
            self.breaking = False
            self.output_full = False
            self.displaced_source = 0
            self.answer(SELF_TEST_OK, CONTROLLER)
        elif value == TEST_AUX or value == TEST_KEYBOARD:
            self.answer(0, CONTROLLER)  # neither line is stuck
        elif value == READ_P1:
            self.answer(P1, CONTROLLER)
        elif value == READ_P2:
            self.answer(self.output_port(), CONTROLLER)
        elif value >= PULSE and not value & P2_RC:
            self.pulse_rc()

    cdef void disabled(self, uint8_t device) noexcept nogil:
        if self.receiving == device:
            self.hold_back()

    cdef void take_data(self, uint8_t value) noexcept nogil:
        cdef uint8_t command = self.command
        self.command = 0
        if command == 0:
            self.send(value, KEYBOARD)
        elif command == WRITE_P2:
            self.write_p2(value)
        elif command == WRITE_KEYBOARD_OUTPUT:
            self.answer(value, KEYBOARD)
        elif command == WRITE_AUX_OUTPUT:
            self.answer(value, AUX)
        elif command == WRITE_AUX:
            self.send(value, AUX)
        else:
            self.ram[command & 31] = value
            if command == WRITE_RAM and self.receiving:
                if value & (KEYBOARD_DISABLE if self.receiving == KEYBOARD else AUX_DISABLE):
                    self.hold_back()

    cdef uint8_t output_port(self) noexcept nogil:
        return (
            self.p2 | (P2_KEYBOARD_OBF if self.output_full and self.source == KEYBOARD else 0)
            | (P2_AUX_OBF if self.output_full and self.source == AUX else 0)
        )

    cdef void write_p2(self, uint8_t value) noexcept nogil:
        cdef bint resets = (self.p2 & ~value & P2_RC) != 0
        # A processor held in reset could never let go again; here RC is a pulse and the line is high after it.
        self.p2 = (value & P2_WRITABLE) | P2_RC
        set_irq(&self.a20, (value & P2_A20) != 0)
        if resets:
            self.pulse_rc()

    cdef void pulse_rc(self) noexcept nogil:
        raise_irq(&self.rc)
        lower_irq(&self.rc)

    cdef int fields(self, Fields f) except -1:
        f.block("ram", self.ram, sizeof(self.ram))
        f.u8("p2", &self.p2)
        f.u8("dbbin", &self.dbbin)
        f.u8("dbbout", &self.dbbout)
        f.flag("input_full", &self.input_full)
        f.flag("output_full", &self.output_full)
        f.flag("is_command", &self.is_command)
        f.flag("timed_out", &self.timed_out)
        f.u8("source", &self.source)
        f.u8("displaced", &self.displaced)
        f.u8("displaced_source", &self.displaced_source)
        f.u8("command", &self.command)
        f.u8("sending", &self.sending)
        f.u8("sent", &self.sent)
        f.u8("receiving", &self.receiving)
        f.flag("breaking", &self.breaking)
        f.level("irq1", &self.irq1.level)
        f.level("irq12", &self.irq12.level)
        f.level("a20", &self.a20.level)
        return 0
