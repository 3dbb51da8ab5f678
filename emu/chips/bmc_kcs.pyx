# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The keyboard controller style interface of a management controller: two registers and their state machine.

IPMI v2.0, "Keyboard Controller Style (KCS) Interface": status register, control codes, status codes, write and read
transfers, error processing. The controller looks at a byte 10 us after it was written, until when IBF is set. Whoever
understands the messages, `brain`, is asked once a message.
"""
from libc.stdint cimport uint8_t, uint16_t

from emu._core cimport Clock
from emu.chips.isa8 cimport Isa8
from emu.chips.part cimport Fields

from emu.errors import BadInput, EmuError

cdef enum:
    COMMAND_PORT = 1        # the other is data
    MESSAGE = 256           # bytes at most
    HZ = 100_000            # one byte takes a period of it
    OBF = 0x01
    IBF = 0x02
    SMS_ATN = 0x04
    CD = 0x08               # the last write was to the command register
    IDLE_STATE = 0
    READ_STATE = 1
    WRITE_STATE = 2
    ERROR_STATE = 3
    GET_STATUS_ABORT = 0x60
    WRITE_START = 0x61
    WRITE_END = 0x62
    READ = 0x68
    NO_ERROR = 0x00
    ABORTED = 0x01
    ILLEGAL_CODE = 0x02
    LENGTH_ERROR = 0x06
    # The phases of error processing.
    ERROR_0 = 0             # none
    ERROR_1 = 1             # the data byte after GET_STATUS/ABORT is awaited
    ERROR_2 = 2             # the status code is read


cdef class BmcKcs(Isa8):
    """The interface at two ports, data and then command/status; an even address.

    Args:
        clock: the machine's clock.
        name: unique on the board.
        brain: its method `handle(request: bytes) -> bytes` answers a message.
    """

    cdef object brain
    cdef bint attention
    cdef uint8_t state, data_in, data_out, error, phase
    cdef bint input_full, output_full, is_command, ending
    cdef uint8_t message[MESSAGE]  # the request as far as it has come, then the response
    cdef uint16_t length, at

    def __cinit__(self, Clock clock not None, str name not None="bmc_kcs", object brain=None):
        self.name = name
        self.brain = brain

    cpdef reset(self):
        """The interface's reset; the controller behind it goes on."""
        self.state = IDLE_STATE
        self.error = self.phase = self.length = self.at = self.data_in = self.data_out = 0
        self.input_full = self.output_full = self.is_command = self.ending = False
        self.clock.cancel(self, 0)

    def set_attention(self, bint on):
        """SMS_ATN: a message or an event waits."""
        self.clock.check()
        self.attention = on

    cdef uint8_t read8(self, uint16_t port) noexcept nogil:
        if port & COMMAND_PORT:
            return (
                self.state << 6 | (CD if self.is_command else 0) | (SMS_ATN if self.attention else 0)
                | (IBF if self.input_full else 0) | (OBF if self.output_full else 0)
            )
        self.output_full = False
        return self.data_out

    cdef void write8(self, uint16_t port, uint8_t value) noexcept nogil:
        self.data_in = value
        self.is_command = port & COMMAND_PORT != 0
        self.input_full = True
        self.clock.schedule(self, 0, self.clock.now() + self.clock.c.hz // HZ)

    cdef void event(self, int id) noexcept nogil:
        self.input_full = False
        if self.is_command:
            self.obey(self.data_in)
        elif self.phase == ERROR_1:
            self.phase = ERROR_2
            self.state = READ_STATE
            self.put(self.error)
        elif self.state == WRITE_STATE:
            self.take(self.data_in)
        elif self.state == READ_STATE and self.data_in == READ:
            self.give()
        else:
            self.fail(ILLEGAL_CODE)

    cdef void put(self, uint8_t value) noexcept nogil:
        self.data_out = value
        self.output_full = True

    cdef void fail(self, uint8_t code) noexcept nogil:
        self.state = ERROR_STATE
        self.error = code
        self.phase = ERROR_0
        self.length = self.at = 0
        self.ending = False

    cdef void obey(self, uint8_t code) noexcept nogil:
        if code == WRITE_START:
            self.state = WRITE_STATE
            self.output_full = self.ending = False
            self.length = self.phase = self.error = 0
        elif code == WRITE_END and self.state == WRITE_STATE and self.phase == ERROR_0:
            self.ending = True
        elif code == GET_STATUS_ABORT:
            if self.state == WRITE_STATE or self.state == READ_STATE:
                self.error = ABORTED
            self.phase = ERROR_1
            self.state = WRITE_STATE
            self.output_full = self.ending = False
            self.length = self.at = 0
        else:
            self.fail(ILLEGAL_CODE)

    cdef void take(self, uint8_t value) noexcept nogil:
        """The next byte of a request; the last one, after WRITE_END, has it answered."""
        if self.length == MESSAGE:
            self.fail(LENGTH_ERROR)
            return
        self.message[self.length] = value
        self.length += 1
        if not self.ending:
            return
        self.ending = False
        if self.length < 2:
            self.fail(LENGTH_ERROR)
            return
        self.clock.keep_gil()
        with gil:
            self.ask()
        if self.state == WRITE_STATE:
            self.state = READ_STATE
            self.at = 0
            self.give()

    cdef void ask(self) noexcept:
        cdef bytes response
        cdef int at
        self.clock._calling += 1
        try:
            response = self.brain.handle((<const char *>self.message)[:self.length])
            if not 3 <= len(response) <= MESSAGE:
                raise EmuError(f"{self.name}: a response of {len(response)} bytes")
            for at in range(len(response)):
                self.message[at] = response[at]
            self.length = <uint16_t>len(response)
        except BaseException as error:
            self.fail(0xFF)  # unspecified
            self.clock.store_error(error)
        finally:
            self.clock._calling -= 1

    cdef void give(self) noexcept nogil:
        """The next byte of a response, after the last one a dummy that ends the transfer."""
        if self.phase == ERROR_2:
            self.phase = ERROR_0
            self.error = NO_ERROR
            self.at = self.length = 0
        if self.at < self.length:
            self.put(self.message[self.at])
            self.at += 1
        else:
            self.state = IDLE_STATE
            self.put(0)

    cdef int fields(self, Fields f) except -1:
        f.flag("attention", &self.attention)
        f.u8("state", &self.state)
        f.u8("data_in", &self.data_in)
        f.u8("data_out", &self.data_out)
        f.u8("error", &self.error)
        f.u8("phase", &self.phase)
        f.flag("input_full", &self.input_full)
        f.flag("output_full", &self.output_full)
        f.flag("is_command", &self.is_command)
        f.flag("ending", &self.ending)
        f.block("message", self.message, MESSAGE)
        f.u16("length", &self.length)
        f.u16("at", &self.at)
        self.state &= 3
        if self.length > MESSAGE or self.at > MESSAGE:
            raise BadInput(f"a message of more than {MESSAGE} bytes")
        return 0
