# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""National PC16550D UART with FIFOs.

Datasheet TL/C/8652, "8.0 Registers", "8.4 Interrupt Identification Register", "8.6 FIFO Interrupt Mode Operation".
The crystal is the PC's 1.8432 MHz: a character takes its bits times 16 times the divisor of its ticks. Characters to
and from the host wait in two bounded queues. Input lines 0-3 are CTS, DSR, RI and DCD (1: asserted).
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free

from emu._core cimport Clock, Irq, set_irq
from emu.chips.isa8 cimport Isa8
from emu.chips.part cimport Fields
from emu.chips.ring cimport Ring, ring_bytes, ring_get, ring_init, ring_put, ring_take, ring_used

from emu.errors import BadInput, ConfigError

cdef enum:
    XIN = 1_843_200     # Hz
    RBR_THR = 0         # with DLAB: DLL
    IER = 1             # with DLAB: DLM
    IIR_FCR = 2
    LCR = 3
    MCR = 4
    LSR = 5
    MSR = 6
    SCR = 7
    IER_ERBFI = 0x01    # received data available, and character timeout
    IER_ETBEI = 0x02
    IER_ELSI = 0x04
    IER_EDSSI = 0x08
    IIR_NONE = 0x01
    IIR_MODEM_STATUS = 0x00
    IIR_THR_EMPTY = 0x02
    IIR_DATA_AVAILABLE = 0x04
    IIR_LINE_STATUS = 0x06
    IIR_TIMEOUT = 0x0C
    IIR_FIFOS = 0xC0
    FCR_ENABLE = 0x01
    FCR_RESET_RCVR = 0x02
    FCR_RESET_XMIT = 0x04
    FCR_TRIGGER = 0xC0
    LCR_WLS = 0x03
    LCR_STB = 0x04
    LCR_PEN = 0x08
    LCR_DLAB = 0x80
    MCR_DTR = 0x01
    MCR_RTS = 0x02
    MCR_OUT1 = 0x04
    MCR_OUT2 = 0x08
    MCR_LOOP = 0x10
    LSR_DR = 0x01
    LSR_OE = 0x02
    LSR_THRE = 0x20
    LSR_TEMT = 0x40
    MSR_DELTAS = 0x0F   # DCTS DDSR TERI DDCD
    MSR_TERI = 0x04
    MSR_CTS = 0x10
    MSR_DSR = 0x20
    MSR_RI = 0x40
    MSR_DCD = 0x80
    FIFO_SIZE = 16
    HOST_SIZE = 1 << 20  # bytes of each queue to and from the host
    EVENT_SENT = 0       # the character in the transmitter shift register is out
    EVENT_RECEIVED = 1   # a character from the host is in
    EVENT_TIMEOUT = 2

cdef uint8_t[4] TRIGGER_LEVEL = [1, 4, 8, 14]


cdef class Uart16550(Isa8):
    """One UART at eight ports, a multiple of 8. Pin: INTR out, which the PC's OUT2 gates.

    Args:
        clock: the machine's clock.
        name: unique on the board.
        flow_control: the peer holds its characters back while the receiver is full; otherwise they overrun it.
    """

    cdef Irq intr
    cdef readonly bint flow_control
    cdef uint16_t divisor
    cdef uint8_t ier, fcr, lcr, mcr, lsr, msr, scr
    cdef uint8_t pins                 # CTS, DSR, RI, DCD in the bits of MSR
    cdef uint8_t receiver[FIFO_SIZE]  # the receiver FIFO, or in its first place RBR
    cdef uint8_t received             # characters in it
    cdef uint8_t transmitter[FIFO_SIZE]
    cdef uint8_t waiting              # characters in the transmitter FIFO, or in THR
    cdef uint8_t tsr                  # the transmitter shift register
    cdef bint sending
    cdef uint64_t sent_at             # the tick at which it is out
    cdef bint receiving
    cdef bint timed_out               # character timeout is due
    cdef bint thr_empty               # the THRE interrupt is pending
    cdef Ring to_host, from_host

    def __cinit__(self, Clock clock not None, str name not None="uart16550", *, bint flow_control=True):
        self.name = name
        self.flow_control = flow_control
        self.pins = MSR_CTS | MSR_DSR | MSR_DCD
        ring_init(&self.to_host, HOST_SIZE)
        ring_init(&self.from_host, HOST_SIZE)
        self.reset()

    def __dealloc__(self):
        free(self.to_host.data)
        free(self.from_host.data)

    cpdef reset(self):
        """Master reset (Table I). The divisor is undefined then; here it gives 9600 baud."""
        self.divisor = 12
        self.ier = self.fcr = self.lcr = self.mcr = self.scr = 0
        self.lsr = LSR_THRE | LSR_TEMT
        self.msr = self.pins
        self.received = self.waiting = 0
        self.sending = self.receiving = self.timed_out = self.thr_empty = False
        self.clock.cancel(self, EVENT_SENT)
        self.clock.cancel(self, EVENT_RECEIVED)
        self.clock.cancel(self, EVENT_TIMEOUT)
        self.receive_next()
        self.settle()

    cdef Irq *output(self, str name) except NULL:
        if name == "INTR":
            return &self.intr
        raise ConfigError(f"{self.name} has no output {name!r}: INTR")

    # The host's side.

    def take_output(self):
        """The characters sent since the last call. More than 1 MiB between two calls is dropped: see `output_lost`."""
        self.clock.check()
        return ring_take(&self.to_host)

    @property
    def output_lost(self):
        """Characters dropped so far because nobody took them."""
        return self.to_host.lost

    def receive(self, data):
        """Lets characters arrive from the host, one after another at the line's speed.

        Returns:
            How many were accepted: at most 1 MiB can be on its way.
        """
        cdef const unsigned char[:] view = data
        cdef size_t count, at
        self.clock.check()
        count = min(<size_t>view.shape[0], HOST_SIZE - ring_used(&self.from_host))
        for at in range(count):
            ring_put(&self.from_host, view[at])
        self.receive_next()
        return count

    @property
    def dtr(self):
        """Whether the guest asserts DTR; in loopback it is inactive."""
        self.clock.check()
        return self.mcr & (MCR_DTR | MCR_LOOP) == MCR_DTR

    # Time.

    cdef uint64_t character_ticks(self) noexcept nogil:
        """Ticks of XIN a character takes, start to stop bit; 0: the baud generator stands still."""
        cdef uint32_t half_bits = 2 * (1 + 5 + (self.lcr & LCR_WLS) + 1)
        if self.lcr & LCR_PEN:
            half_bits += 2
        if self.lcr & LCR_STB:  # a second stop bit, with five data bits half of one
            half_bits += 2 if self.lcr & LCR_WLS else 1
        return <uint64_t>8 * self.divisor * half_bits

    cdef void schedule_tick(self, int id, uint64_t tick) noexcept nogil:
        self.clock.schedule(self, id, self.clock.cycle_of_tick(tick, XIN, 1))

    cdef uint64_t tick(self) noexcept nogil:
        return self.clock.ticks(XIN, 1)

    cdef void event(self, int id) noexcept nogil:
        if id == EVENT_SENT and self.sending:
            self.sending = False
            if self.mcr & MCR_LOOP:
                self.put_received(self.tsr)
            else:
                ring_put(&self.to_host, self.tsr)
            self.send_next(self.sent_at)
        elif id == EVENT_RECEIVED and self.receiving:
            self.receiving = False
            if not self.mcr & MCR_LOOP and ring_used(&self.from_host) and self.has_room():
                self.put_received(ring_get(&self.from_host))
            self.receive_next()
        elif id == EVENT_TIMEOUT:
            self.timed_out = self.received != 0
        self.settle()

    # The transmitter.

    cdef void send_next(self, uint64_t tick) noexcept nogil:
        """Moves a waiting character to the shift register, at a tick; a transmitter FIFO that runs empty says so."""
        cdef int at
        if self.sending or self.divisor == 0:
            return
        if self.waiting == 0:
            self.lsr |= LSR_TEMT
            return
        self.tsr = self.transmitter[0] & (0xFF >> (3 - (self.lcr & LCR_WLS)))
        self.waiting -= 1
        for at in range(self.waiting):
            self.transmitter[at] = self.transmitter[at + 1]
        self.sending = True
        self.sent_at = tick + self.character_ticks()
        self.schedule_tick(EVENT_SENT, self.sent_at)
        if self.waiting == 0:
            self.lsr |= LSR_THRE
            self.thr_empty = True

    cdef void write_thr(self, uint8_t value) noexcept nogil:
        self.lsr &= ~<uint8_t>(LSR_THRE | LSR_TEMT)
        self.thr_empty = False
        if not self.fcr & FCR_ENABLE or self.waiting == FIFO_SIZE:
            self.waiting = self.waiting - 1 if self.waiting else 0  # the newest character there is overwritten
        self.transmitter[self.waiting] = value
        self.waiting += 1
        self.send_next(self.tick())

    # The receiver.

    cdef bint has_room(self) noexcept nogil:
        return not self.flow_control or self.received < (FIFO_SIZE if self.fcr & FCR_ENABLE else 1)

    cdef void receive_next(self) noexcept nogil:
        """Begins the next character from the host, if there is one and the line is free."""
        if self.receiving or self.mcr & MCR_LOOP or self.divisor == 0:
            return
        if ring_used(&self.from_host) and self.has_room():
            self.receiving = True
            self.schedule_tick(EVENT_RECEIVED, self.tick() + self.character_ticks())

    cdef void put_received(self, uint8_t value) noexcept nogil:
        value &= 0xFF >> (3 - (self.lcr & LCR_WLS))
        if not self.fcr & FCR_ENABLE:
            if self.received:
                self.lsr |= LSR_OE
            self.receiver[0] = value  # the character before is lost
            self.received = 1
        elif self.received == FIFO_SIZE:
            self.lsr |= LSR_OE        # this one is lost
        else:
            self.receiver[self.received] = value
            self.received += 1
        self.lsr |= LSR_DR
        self.restart_timeout()

    cdef uint8_t read_rbr(self) noexcept nogil:
        cdef uint8_t value = self.receiver[0]
        cdef int at
        if self.received:
            self.received -= 1
            for at in range(self.received):
                self.receiver[at] = self.receiver[at + 1]
        if self.received == 0:
            self.lsr &= ~<uint8_t>LSR_DR
        self.restart_timeout()
        self.receive_next()
        return value

    cdef void restart_timeout(self) noexcept nogil:
        """FIFO mode: four character times without a character in or out, and characters in the FIFO."""
        self.timed_out = False
        if self.fcr & FCR_ENABLE and self.received:
            self.schedule_tick(EVENT_TIMEOUT, self.tick() + 4 * self.character_ticks())
        else:
            self.clock.cancel(self, EVENT_TIMEOUT)

    # Modem control.

    cdef void input(self, int line, int level) noexcept nogil:
        cdef uint8_t bit
        if 0 <= line < 4:
            bit = <uint8_t>(MSR_CTS << line)
            self.pins = self.pins | bit if level else self.pins & ~bit
            self.update_msr()
            self.settle()

    cdef void update_msr(self) noexcept nogil:
        """The modem lines, in loopback the MCR's outputs in their place, and what has changed."""
        cdef uint8_t lines = self.pins
        cdef uint8_t changed
        if self.mcr & MCR_LOOP:
            lines = (
                (MSR_CTS if self.mcr & MCR_RTS else 0) | (MSR_DSR if self.mcr & MCR_DTR else 0)
                | (MSR_RI if self.mcr & MCR_OUT1 else 0) | (MSR_DCD if self.mcr & MCR_OUT2 else 0)
            )
        changed = (lines ^ self.msr) >> 4
        if lines & MSR_RI:
            changed &= ~<uint8_t>MSR_TERI  # only the trailing edge counts
        self.msr = lines | (self.msr & MSR_DELTAS) | changed

    # Interrupts.

    cdef uint8_t pending(self) noexcept nogil:
        """The interrupt with the highest priority, as IIR tells it."""
        cdef uint8_t trigger = TRIGGER_LEVEL[self.fcr >> 6] if self.fcr & FCR_ENABLE else 1
        if self.ier & IER_ELSI and self.lsr & LSR_OE:
            return IIR_LINE_STATUS
        if self.ier & IER_ERBFI and self.timed_out:  # bit 3 tells of it whether the trigger level is reached or not
            return IIR_TIMEOUT
        if self.ier & IER_ERBFI and self.received >= trigger:
            return IIR_DATA_AVAILABLE
        if self.ier & IER_ETBEI and self.thr_empty:
            return IIR_THR_EMPTY
        if self.ier & IER_EDSSI and self.msr & MSR_DELTAS:
            return IIR_MODEM_STATUS
        return IIR_NONE

    cdef void settle(self) noexcept nogil:
        """Drives INTR. On the PC it reaches the bus through a buffer that OUT2 opens; loopback holds OUT2 inactive."""
        set_irq(&self.intr, self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2 and self.pending() != IIR_NONE)

    # Registers.

    cdef uint8_t read8(self, uint16_t port) noexcept nogil:
        cdef int register = port & 7
        cdef uint8_t value = 0xFF
        if register == RBR_THR:
            value = <uint8_t>self.divisor if self.lcr & LCR_DLAB else self.read_rbr()
        elif register == IER:
            value = <uint8_t>(self.divisor >> 8) if self.lcr & LCR_DLAB else self.ier
        elif register == IIR_FCR:
            value = self.pending()
            if value == IIR_THR_EMPTY:
                self.thr_empty = False
            if self.fcr & FCR_ENABLE:
                value |= IIR_FIFOS
        elif register == LCR:
            value = self.lcr
        elif register == MCR:
            value = self.mcr
        elif register == LSR:
            value = self.lsr
            self.lsr &= ~<uint8_t>LSR_OE
        elif register == MSR:
            value = self.msr
            self.msr &= ~<uint8_t>MSR_DELTAS
        elif register == SCR:
            value = self.scr
        self.settle()
        return value

    cdef void write8(self, uint16_t port, uint8_t value) noexcept nogil:
        cdef int register = port & 7
        if register <= IER and self.lcr & LCR_DLAB:
            if register == RBR_THR:
                self.divisor = (self.divisor & 0xFF00) | value
            else:
                self.divisor = <uint16_t>(value << 8 | (self.divisor & 0xFF))
            self.send_next(self.tick())
            self.receive_next()
        elif register == RBR_THR:
            self.write_thr(value)
        elif register == IER:
            if value & ~self.ier & IER_ETBEI and self.lsr & LSR_THRE:
                self.thr_empty = True  # enabling the interrupt of an empty THR raises it
            self.ier = value & 0x0F
        elif register == IIR_FCR:
            self.write_fcr(value)
        elif register == LCR:
            self.lcr = value
        elif register == MCR:
            self.mcr = value & 0x1F
            self.update_msr()
            self.receive_next()
        elif register == SCR:
            self.scr = value
        self.settle()

    cdef void write_fcr(self, uint8_t value) noexcept nogil:
        cdef bint switched = ((value ^ self.fcr) & FCR_ENABLE) != 0
        if switched or value & (FCR_ENABLE | FCR_RESET_RCVR) == FCR_ENABLE | FCR_RESET_RCVR:
            self.received = 0
            self.lsr &= ~<uint8_t>LSR_DR  # OE stays until LSR is read
        if switched or value & (FCR_ENABLE | FCR_RESET_XMIT) == FCR_ENABLE | FCR_RESET_XMIT:
            if self.waiting:
                self.thr_empty = True
            self.waiting = 0
            self.lsr |= LSR_THRE
            if not self.sending:
                self.lsr |= LSR_TEMT
        self.fcr = value & (FCR_ENABLE | FCR_TRIGGER) if value & FCR_ENABLE else 0
        self.restart_timeout()
        self.receive_next()

    cdef int fields(self, Fields f) except -1:
        f.u16("divisor", &self.divisor)
        f.u8("ier", &self.ier)
        f.u8("fcr", &self.fcr)
        f.u8("lcr", &self.lcr)
        f.u8("mcr", &self.mcr)
        f.u8("lsr", &self.lsr)
        f.u8("msr", &self.msr)
        f.u8("scr", &self.scr)
        f.u8("pins", &self.pins)
        f.block("receiver", self.receiver, FIFO_SIZE)
        f.u8("received", &self.received)
        f.block("transmitter", self.transmitter, FIFO_SIZE)
        f.u8("waiting", &self.waiting)
        f.u8("tsr", &self.tsr)
        f.flag("sending", &self.sending)
        f.u64("sent_at", &self.sent_at)
        f.flag("receiving", &self.receiving)
        f.flag("timed_out", &self.timed_out)
        f.flag("thr_empty", &self.thr_empty)
        f.level("intr", &self.intr.level)
        if self.received > FIFO_SIZE or self.waiting > FIFO_SIZE:
            raise BadInput(f"more than {FIFO_SIZE} characters in a FIFO")
        self.on_the_way(f)
        return 0

    cdef int on_the_way(self, Fields f) except -1:
        """The characters from the host that have not arrived yet are part of the machine's future, so of its state."""
        cdef bytes data
        if f.loading:
            data = f.values["from_host"]
            self.from_host.tail = self.from_host.head
            for value in data[:HOST_SIZE]:
                ring_put(&self.from_host, value)
        else:
            f.values["from_host"] = ring_bytes(&self.from_host)
        return 0
