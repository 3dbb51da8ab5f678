# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The keyboard of the PC/AT and PS/2: 101 keys, scan code sets 1 to 3.

PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-Key)": commands from the system, commands to the
system, scan codes, key types of set 3, typematic rate. Keys come from the host as events with a cycle; a finger waits
while the keyboard's buffer of 16 bytes has no room, so no key is lost but those that come while scanning is off.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memmove

from emu._core cimport Clock, set_irq
from emu.chips.part cimport Fields
from emu.chips.ps2_device cimport Ps2Device, set_1

from emu.errors import BadInput

cdef enum:
    BUFFER = 16
    KEYS = 4096           # from the host, not yet pressed
    LONGEST = 8           # bytes of a key: Pause in set 2
    SET_LEDS = 0xED
    ECHO = 0xEE
    SCAN_CODE_SET = 0xF0
    READ_ID = 0xF2
    SET_TYPEMATIC = 0xF3
    ENABLE = 0xF4
    DISABLE = 0xF5
    DEFAULTS = 0xF6
    ALL_TYPEMATIC = 0xF7  # F7h-FAh: key types of set 3
    ALL_BOTH = 0xFA       # typematic and make/break
    KEY_TYPEMATIC = 0xFB  # FBh-FDh: of the keys that follow
    KEY_MAKE = 0xFD
    RESEND = 0xFE
    RESET = 0xFF
    ACK = 0xFA
    BAT_OK = 0xAA
    BREAK = 0xF0          # before the code of a key that goes up, in set 2
    EXTENDED = 0xE0
    PAUSE = 0xE1          # has no break code and does not repeat
    PRINT_SCREEN = 0xE07C
    TYPEMATIC_DEFAULT = 0x2B  # 10.9 a second after 500 ms
    BAT_MILLISECONDS = 500
    EVENT_KEY = 0
    EVENT_REPEAT = 1
    EVENT_BAT = 2

cdef uint8_t[8] PAUSE_2 = [0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77]
cdef uint8_t[6] PAUSE_1 = [0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5]


# The keys of scan code set 3: one byte each, so that every key has its own.
cdef enum:
    SET_3_CODES = 0x90
    TYPE_REPEATS = 1      # typematic
    TYPE_BREAKS = 2       # make/break; a key that does neither is make only
    PRINT_SCREEN_3 = 0x57
    PAUSE_3 = 0x62

# The first three columns of keys and a few others; all that is not here has the code of set 2.
cdef uint8_t[11] FUNCTION_3 = [0x00, 0x47, 0x00, 0x27, 0x17, 0x07, 0x0F, 0x5E, 0x00, 0x4F, 0x3F]  # set 2: 00h-0Ah
cdef uint8_t[26] OTHER_3 = [  # set 2, set 3
    0x0B, 0x2F, 0x0C, 0x1F, 0x11, 0x19, 0x14, 0x11, 0x58, 0x14, 0x5D, 0x5C, 0x61, 0x13,
    0x76, 0x08, 0x77, 0x76, 0x78, 0x56, 0x79, 0x7C, 0x7B, 0x84, 0x7C, 0x7E,
]
cdef uint8_t[8] LAST_3 = [0x7E, 0x5F, 0x83, 0x37, 0x84, 0x57, 0x85, 0x00]
cdef uint8_t[34] GREY_3 = [  # set 2 without its E0h, set 3
    0x11, 0x39, 0x14, 0x58, 0x1F, 0x8B, 0x27, 0x8C, 0x2F, 0x8D, 0x4A, 0x77, 0x5A, 0x79, 0x69, 0x65, 0x6B, 0x61,
    0x6C, 0x6E, 0x70, 0x67, 0x71, 0x64, 0x72, 0x60, 0x74, 0x6A, 0x75, 0x63, 0x7A, 0x6D, 0x7D, 0x6F,
]
# Keys that are not typematic from the beginning: Caps Lock, Shift, left Ctrl and Alt are make/break, the others make
# only.
cdef uint8_t[5] BREAKING_3 = [0x14, 0x12, 0x59, 0x11, 0x19]
cdef uint8_t[41] MAKING_3 = [
    0x39, 0x58, 0x67, 0x6E, 0x65, 0x6F, 0x6D, 0x76, 0x6C, 0x6B, 0x69, 0x77, 0x75, 0x73, 0x72, 0x70, 0x7E, 0x7D,
    0x74, 0x7A, 0x71, 0x84, 0x79, 0x08, 0x07, 0x0F, 0x17, 0x1F, 0x27, 0x2F, 0x37, 0x3F, 0x47, 0x4F, 0x56, 0x5E,
    PRINT_SCREEN_3, 0x5F, PAUSE_3, 0x8B, 0x8C,
]


cdef uint8_t found_in(const uint8_t *pairs, int length, uint8_t code) noexcept nogil:
    """What a list of pairs has for a code, or 0."""
    cdef int at
    for at in range(0, length, 2):
        if pairs[at] == code:
            return pairs[at + 1]
    return 0


cdef uint8_t set_3(uint32_t code) noexcept nogil:
    """The set 3 code of a set 2 code, E0h in the upper byte; 0: no key of this keyboard."""
    cdef uint8_t found
    if code == PAUSE:
        return PAUSE_3
    if code == PRINT_SCREEN:
        return PRINT_SCREEN_3
    if code >> 8:
        return found_in(GREY_3, sizeof(GREY_3), <uint8_t>code)
    if code < sizeof(FUNCTION_3):
        return FUNCTION_3[code]
    if code >= 0x7E:
        return found_in(LAST_3, sizeof(LAST_3), <uint8_t>code)
    found = found_in(OTHER_3, sizeof(OTHER_3), <uint8_t>code)
    return found if found else <uint8_t>code


cdef struct Key:
    uint64_t cycle
    uint32_t code  # set 2, EXTENDED << 8 added for the grey keys; or PAUSE
    uint32_t down


cdef uint8_t key_type(int which) noexcept nogil:
    """Of the commands that set key types, in order: typematic, make/break, make only, typematic and make/break."""
    if which == 0:
        return TYPE_REPEATS
    if which == 1:
        return TYPE_BREAKS
    return 0 if which == 2 else TYPE_REPEATS | TYPE_BREAKS


cdef class Ps2Keyboard(Ps2Device):
    """A keyboard. Pin: READY out. Its power-on self-test takes half a second; the reset line does not reach it."""

    VERSION = 2

    cdef uint8_t replies[4]        # to commands, sent before scan codes
    cdef uint8_t reply_count
    cdef uint8_t buffer[BUFFER]    # scan codes
    cdef uint8_t count
    cdef uint8_t last              # sent last, for RESEND
    cdef uint8_t command           # whose argument is awaited, or 0
    cdef bint scanning
    cdef uint8_t scan_code_set
    cdef uint8_t types[SET_3_CODES]  # TYPE_ bits by the key's code in set 3
    cdef readonly uint8_t leds     # bit 0 Scroll Lock, 1 Num Lock, 2 Caps Lock
    cdef uint8_t typematic
    cdef uint32_t repeating        # the key that repeats, or 0
    cdef Key keys[KEYS]
    cdef uint64_t head, tail       # keys ever put in and taken out

    def __cinit__(self, Clock clock not None, str name not None="keyboard"):
        self.name = name
        self.defaults()
        self.start_test()

    cpdef reset(self):
        """There is no reset line in the cable."""

    # The host's side.

    def key(self, uint32_t code, bint down, cycle=None):
        """Lets a key go down or up, now or at a cycle, but not before the keys that wait already.

        Args:
            code: its scan code in set 2, with E000h added where E0h goes before it; E1h is Pause.

        Raises:
            ValueError: there is no such code.
            BadInput: 4096 keys wait already.
        """
        cdef Key *key
        cdef uint64_t at
        self.clock.check()
        if code != PAUSE and (code & ~<uint32_t>0xE0FF or code >> 8 not in (0, EXTENDED) or not 0 < code & 0xFF < 0x85):
            raise ValueError(f"no key has the scan code {code:#x}")
        if self.head - self.tail == KEYS:
            raise BadInput(f"{KEYS} keys wait already")
        at = self.clock.now() if cycle is None else max(<uint64_t>cycle, self.clock.now())
        if self.head != self.tail:
            at = max(at, self.keys[(self.head - 1) % KEYS].cycle)
        key = &self.keys[self.head % KEYS]
        key.cycle, key.code, key.down = at, code, down
        self.head += 1
        self.press()

    @property
    def waiting_keys(self):
        """Keys from the host that are still to be pressed or released."""
        self.clock.check()
        return self.head - self.tail

    @property
    def last_cycle(self):
        """When the last key that waits is due; now, where none waits."""
        self.clock.check()
        if self.head == self.tail:
            return self.clock.now()
        return max(self.keys[(self.head - 1) % KEYS].cycle, self.clock.now())

    cdef void press(self) noexcept nogil:
        """Presses the keys that are due, as far as there is room, and plans the next."""
        cdef Key *key
        while self.head != self.tail:
            key = &self.keys[self.tail % KEYS]
            if key.cycle > self.clock.now():
                self.clock.schedule(self, EVENT_KEY, key.cycle)
                break
            if self.scanning:
                if not self.scan(key.code, key.down != 0):
                    break  # take() comes back here
                if key.down and self.repeats(key.code):
                    self.repeating = key.code
                    self.schedule(EVENT_REPEAT, 250 * (1 + (self.typematic >> 5 & 3)), 1000)
                elif key.code == self.repeating:
                    self.stop_repeating()
            self.tail += 1
        self.settle()

    cdef bint repeats(self, uint32_t code) noexcept nogil:
        if self.scan_code_set == 3:
            return self.types[set_3(code)] & TYPE_REPEATS != 0
        return code != PAUSE

    cdef void stop_repeating(self) noexcept nogil:
        self.repeating = 0
        self.clock.cancel(self, EVENT_REPEAT)

    cdef void schedule(self, int id, uint64_t numerator, uint64_t denominator) noexcept nogil:
        """An event after a fraction of a second."""
        self.clock.schedule(self, id, self.clock.now() + self.clock.c.hz * numerator // denominator)

    cdef void event(self, int id) noexcept nogil:
        if id == EVENT_KEY:
            self.press()
        elif id == EVENT_BAT:
            self.reply(BAT_OK)
            self.scanning = True
        elif self.repeating:
            if self.head == self.tail or self.keys[self.tail % KEYS].cycle > self.clock.now():
                self.scan(self.repeating, True)  # while a finger waits nothing repeats
            # "Period = (8 + A) * 2^B * 0.00417 s", A bits 0-2, B bits 3-4
            self.schedule(EVENT_REPEAT, (8 + (self.typematic & 7)) * 417 << (self.typematic >> 3 & 3), 100_000)
        self.settle()

    # Scan codes.

    cdef bint scan(self, uint32_t code, bint down) noexcept nogil:
        """Buffers what a key sends; False where there is no room for all of it."""
        cdef uint8_t made[LONGEST]
        cdef int length = 0, at
        if self.scan_code_set == 3:
            length = self.encode_3(made, set_3(code), down)
        elif code == PAUSE:
            length = (8 if self.scan_code_set == 2 else 6) if down else 0
            for at in range(length):
                made[at] = PAUSE_2[at] if self.scan_code_set == 2 else PAUSE_1[at]
        elif code == PRINT_SCREEN:  # comes with a Shift of its own
            length = self.encode(made, length, EXTENDED << 8 | (0x12 if down else 0x7C), down)
            length = self.encode(made, length, EXTENDED << 8 | (0x7C if down else 0x12), down)
        else:
            length = self.encode(made, length, code, down)
        if self.count + length > BUFFER:
            return False
        for at in range(length):
            self.buffer[self.count] = made[at]
            self.count += 1
        return True

    cdef int encode(self, uint8_t *to, int length, uint32_t code, bint down) noexcept nogil:
        """Appends one key's make or break code; returns the new length."""
        if code >> 8:
            to[length] = EXTENDED
            length += 1
        if self.scan_code_set == 1:
            to[length] = set_1(<uint8_t>code) | (0 if down else 0x80)
            return length + 1
        if not down:
            to[length] = BREAK
            length += 1
        to[length] = <uint8_t>code
        return length + 1

    cdef int encode_3(self, uint8_t *to, uint8_t code, bint down) noexcept nogil:
        """What a key of set 3 sends; returns the length."""
        if not code or not down and not self.types[code] & TYPE_BREAKS:
            return 0
        if not down:
            to[0] = BREAK
        to[0 if down else 1] = code
        return 1 if down else 2

    cdef void default_types(self) noexcept nogil:
        cdef int at
        for at in range(SET_3_CODES):
            self.types[at] = TYPE_REPEATS
        for at in range(<int>sizeof(BREAKING_3)):
            self.types[BREAKING_3[at]] = TYPE_BREAKS
        for at in range(<int>sizeof(MAKING_3)):
            self.types[MAKING_3[at]] = 0
        self.types[0] = self.types[0x8D] = 0

    # The controller's side.

    cdef void settle(self) noexcept nogil:
        set_irq(&self.ready, self.waiting())

    cdef bint waiting(self) noexcept nogil:
        return self.reply_count + self.count != 0

    cdef uint8_t take(self) noexcept nogil:
        if self.reply_count:
            self.last = self.replies[0]
            self.reply_count -= 1
            memmove(self.replies, self.replies + 1, self.reply_count)
        elif self.count:
            self.last = self.buffer[0]
            self.count -= 1
            memmove(self.buffer, self.buffer + 1, self.count)
        self.press()
        return self.last

    cdef void reply(self, uint8_t value) noexcept nogil:
        if self.reply_count < sizeof(self.replies):
            self.replies[self.reply_count] = value
            self.reply_count += 1

    cdef void defaults(self) noexcept nogil:
        self.scan_code_set = 2
        self.default_types()
        self.typematic = TYPEMATIC_DEFAULT
        self.count = 0
        self.stop_repeating()

    cdef void start_test(self) noexcept nogil:
        """The basic assurance test."""
        self.defaults()
        self.scanning = False
        self.leds = 0
        self.schedule(EVENT_BAT, BAT_MILLISECONDS, 1000)

    cdef void receive(self, uint8_t value) noexcept nogil:
        cdef uint8_t command = self.command
        self.command = 0
        if value == RESEND:
            if not self.reply_count:
                self.reply(self.last)
        elif command and value < SET_LEDS:
            self.reply_count = 0
            self.argument(command, value)
        else:
            self.reply_count = 0  # a command ends what the one before had to say
            self.obey(value)
        self.press()

    cdef void obey(self, uint8_t value) noexcept nogil:
        cdef int key
        if value < SET_LEDS or value == 0xEF or value == 0xF1:
            self.reply(RESEND)
            return
        if value == ECHO:
            self.reply(ECHO)
            return
        self.reply(ACK)
        if value in (SET_LEDS, SCAN_CODE_SET, SET_TYPEMATIC) or value >= KEY_TYPEMATIC and value <= KEY_MAKE:
            self.command = value
            if value >= KEY_TYPEMATIC:
                self.count = 0
        elif value == READ_ID:
            self.reply(0xAB)
            self.reply(0x83)
        elif value == ENABLE:
            self.count = 0
            self.stop_repeating()
            self.scanning = True
        elif value == DISABLE or value == DEFAULTS:
            self.defaults()
            self.scanning = value == DEFAULTS
        elif value == RESET:
            self.start_test()
        elif value >= ALL_TYPEMATIC and value <= ALL_BOTH:
            self.count = 0
            for key in range(1, SET_3_CODES):
                self.types[key] = key_type(value - ALL_TYPEMATIC)

    cdef void argument(self, uint8_t command, uint8_t value) noexcept nogil:
        if command == SCAN_CODE_SET and value > 3 or command >= KEY_TYPEMATIC and not 0 < value < SET_3_CODES:
            self.reply(RESEND)
            self.command = command
            return
        self.reply(ACK)
        if command == SET_LEDS:
            self.leds = value & 7
        elif command == SET_TYPEMATIC:
            self.typematic = value & 0x7F
        elif command == SCAN_CODE_SET:
            if value == 0:
                self.reply(self.scan_code_set)
            else:
                self.scan_code_set = value
                self.count = 0
        else:  # a list of keys, up to the next command
            self.types[value] = key_type(command - KEY_TYPEMATIC)
            self.command = command

    cdef int fields(self, Fields f) except -1:
        f.block("replies", self.replies, sizeof(self.replies))
        f.u8("reply_count", &self.reply_count)
        f.block("buffer", self.buffer, BUFFER)
        f.u8("count", &self.count)
        if self.reply_count > sizeof(self.replies) or self.count > BUFFER:
            self.reply_count = self.count = 0
            raise BadInput("more bytes than a queue holds")
        f.u8("last", &self.last)
        f.u8("command", &self.command)
        f.flag("scanning", &self.scanning)
        f.u8("scan_code_set", &self.scan_code_set)
        f.block("types", self.types, SET_3_CODES)
        f.u8("leds", &self.leds)
        f.u8("typematic", &self.typematic)
        f.u32("repeating", &self.repeating)
        f.level("ready", &self.ready.level)
        self.waiting_list(f)
        return 0

    cdef int waiting_list(self, Fields f) except -1:
        """The keys that are still to come are part of the machine's future, so of its state."""
        cdef uint64_t at
        if f.loading:
            if len(f.values["keys"]) > KEYS:
                raise BadInput(f"more than {KEYS} keys")
            self.head = self.tail = 0
            for key in f.values["keys"]:
                if len(key) != 3:
                    raise BadInput("a key is a cycle, a code and up or down")
                self.keys[self.head] = Key(key[0], key[1], key[2])
                self.head += 1
        else:
            f.values["keys"] = [
                (self.keys[at % KEYS].cycle, self.keys[at % KEYS].code, self.keys[at % KEYS].down)
                for at in range(self.tail, self.head)
            ]
        return 0
