# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""IBM VGA, as far as its text modes go: registers, 32 KiB of text memory, the signals' timing.

PS/2 Hardware Interface Technical Reference, "Video Subsystem": general, sequencer, CRT controller, graphics controller,
attribute controller and DAC registers. The text memory is ordinary memory of the machine, so that a store to it costs
what any store does; nobody is told of one, whoever shows the screen compares. There are no graphics planes: with the
memory map at A0000h nothing answers there.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from emu._core cimport Bus, Clock
from emu.chips.isa8 cimport Isa8
from emu.chips.part cimport Fields

from emu._core import Memory
from emu.errors import BadInput

cdef enum:
    TEXT_SIZE = 0x8000
    ATTRIBUTE = 0x3C0           # index and data by turns; 3C1h reads the data
    ATTRIBUTE_READ = 0x3C1
    MISC_WRITE = 0x3C2          # read: input status 0
    SEQUENCER = 0x3C4
    SEQUENCER_DATA = 0x3C5
    PEL_MASK = 0x3C6
    DAC_READ = 0x3C7            # read: the DAC's state
    DAC_WRITE = 0x3C8
    DAC_DATA = 0x3C9
    FEATURE_READ = 0x3CA
    MISC_READ = 0x3CC
    GRAPHICS = 0x3CE
    GRAPHICS_DATA = 0x3CF
    CRTC = 0x3B4                # with MISC_IOS 3D4h, likewise the others
    CRTC_DATA = 0x3B5
    STATUS_1 = 0x3BA            # write: feature control
    COLOUR_PORTS = 0x20         # the difference between 3Bxh and 3Dxh
    MISC_IOS = 0x01             # colour: the registers at 3Dxh
    MISC_RAM = 0x02             # the memory answers
    MISC_CLOCK = 0x04           # the 28.322 MHz crystal, else 25.175
    SWITCH_SENSE = 0x10
    STATUS_BLANK = 0x01         # neither of the two displays
    STATUS_VERTICAL = 0x08
    SEQ_CLOCKING = 1
    CLOCKING_8_DOTS = 0x01
    CLOCKING_HALF = 0x08
    CLOCKING_SCREEN_OFF = 0x20
    SEQ_COUNT = 5
    CRTC_H_TOTAL = 0x00
    CRTC_H_DISPLAYED = 0x01
    CRTC_V_TOTAL = 0x06
    CRTC_OVERFLOW = 0x07
    CRTC_MAX_SCAN_LINE = 0x09
    CRTC_CURSOR_START = 0x0A
    CRTC_CURSOR_END = 0x0B
    CRTC_START_HIGH = 0x0C
    CRTC_START_LOW = 0x0D
    CRTC_CURSOR_HIGH = 0x0E
    CRTC_CURSOR_LOW = 0x0F
    CRTC_V_SYNC_START = 0x10
    CRTC_V_SYNC_END = 0x11
    CRTC_V_DISPLAYED = 0x12
    CRTC_OFFSET = 0x13
    CRTC_COUNT = 0x19
    PROTECT = 0x80              # of V_SYNC_END: registers 0 to 7 cannot be written
    LINE_COMPARE_BIT_8 = 0x10   # of OVERFLOW, which can
    CURSOR_OFF = 0x20
    GC_MISC = 6
    GC_MISC_GRAPHICS = 0x01
    GC_MISC_MAP = 0x0C
    MAP_B0000 = 0x08
    MAP_B8000 = 0x0C
    GC_COUNT = 9
    ATTRIBUTE_MODE = 0x10
    ATTRIBUTE_GRAPHICS = 0x01
    ATTRIBUTE_BLINK = 0x08
    ATTRIBUTE_COUNT = 0x15
    PAS = 0x20                  # of the index: the palette belongs to the display

# Mode 3, 80 x 25 in colour, as the adapter's own BIOS leaves it ("Video Modes", register values).
cdef uint8_t[SEQ_COUNT] SEQ_MODE_3 = [3, 0, 3, 0, 2]
cdef uint8_t[CRTC_COUNT] CRTC_MODE_3 = [
    0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00, 0x4F, 0x0D, 0x0E, 0, 0, 0, 0,
    0x9C, 0x8E, 0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF,
]
cdef uint8_t[GC_COUNT] GC_MODE_3 = [0, 0, 0, 0, 0, 0x10, 0x0E, 0, 0xFF]
cdef uint8_t[ATTRIBUTE_COUNT] ATTRIBUTE_MODE_3 = [
    0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3A, 0x3B, 0x3C, 0x3D, 0x3E, 0x3F, 0x0C, 0, 0x0F, 8, 0,
]
# What can be written of each register.
cdef uint8_t[SEQ_COUNT] SEQ_MASK = [0x03, 0x3D, 0x0F, 0x3F, 0x0E]
cdef uint8_t[GC_COUNT] GC_MASK = [0x0F, 0x0F, 0x0F, 0x1F, 0x03, 0x7B, 0x0F, 0x0F, 0xFF]


cdef class Vga(Isa8):
    """A VGA with its memory, at ports 3B0h-3DFh. It comes up in mode 3 with the screen clear, since no firmware of an
    adapter's own runs here.

    Args:
        clock: the machine's clock.
        name: unique on the board.
        bus: where the text memory lies, at B8000h or B0000h as the registers say.
    """

    cdef Bus bus
    cdef object text
    cdef int colour_region, mono_region
    cdef uint8_t misc, feature, pel_mask
    cdef uint8_t seq_index, crtc_index, gc_index, attribute_index
    cdef uint8_t seq[SEQ_COUNT]
    cdef uint8_t crtc[CRTC_COUNT]
    cdef uint8_t gc[GC_COUNT]
    cdef uint8_t attribute[ATTRIBUTE_COUNT]
    cdef bint attribute_data        # the next write of 3C0h is data
    cdef uint8_t dac[256 * 3]
    cdef uint16_t dac_at            # the component that is read or written next
    cdef bint dac_reads             # its state: 3C7h was written last

    def __cinit__(self, Clock clock not None, str name not None, Bus bus not None):
        self.name = name
        self.bus = bus
        self.text = Memory(TEXT_SIZE)
        self.colour_region = bus.map_memory(0xB8000, self.text)
        self.mono_region = bus.map_memory(0xB0000, self.text)
        self.reset()

    cpdef reset(self):
        cdef int at
        self.misc = MISC_IOS | MISC_RAM | MISC_CLOCK | 0x60
        self.feature = 0
        self.pel_mask = 0xFF
        self.seq_index = self.crtc_index = self.gc_index = 0
        self.attribute_index = PAS
        self.attribute_data = self.dac_reads = False
        self.dac_at = 0
        memcpy(self.seq, SEQ_MODE_3, SEQ_COUNT)
        memcpy(self.crtc, CRTC_MODE_3, CRTC_COUNT)
        memcpy(self.gc, GC_MODE_3, GC_COUNT)
        memcpy(self.attribute, ATTRIBUTE_MODE_3, ATTRIBUTE_COUNT)
        memset(self.dac, 0, sizeof(self.dac))
        for at in range(64):  # rgbRGB: the primary colours' bits with two thirds of the light, the secondary with one
            self.dac[3 * at] = 42 * (at >> 2 & 1) + 21 * (at >> 5 & 1)
            self.dac[3 * at + 1] = 42 * (at >> 1 & 1) + 21 * (at >> 4 & 1)
            self.dac[3 * at + 2] = 42 * (at & 1) + 21 * (at >> 3 & 1)
        self.text.write(0, b" \x07" * (TEXT_SIZE // 2))
        self.route()

    cdef void route(self) noexcept nogil:
        """Where the text memory answers."""
        cdef uint32_t flags = 3 if self.misc & MISC_RAM else 0
        cdef uint8_t map = self.gc[GC_MISC] & GC_MISC_MAP
        self.bus.set_region(self.colour_region, flags if map == MAP_B8000 else 0)
        self.bus.set_region(self.mono_region, flags if map == MAP_B0000 else 0)

    # What is on the screen.

    @property
    def is_text(self):
        """Whether the adapter is in a text mode."""
        self.clock.check()
        return not self.gc[GC_MISC] & GC_MISC_GRAPHICS and not self.attribute[ATTRIBUTE_MODE] & ATTRIBUTE_GRAPHICS

    @property
    def is_on(self):
        """Whether the adapter shows anything: the sequencer is not told to blank and the palette is in use."""
        self.clock.check()
        return not self.seq[SEQ_CLOCKING] & CLOCKING_SCREEN_OFF and self.attribute_index & PAS != 0

    @property
    def blinks(self):
        """Whether bit 7 of an attribute makes it blink; otherwise it is a bright background."""
        self.clock.check()
        return self.attribute[ATTRIBUTE_MODE] & ATTRIBUTE_BLINK != 0

    @property
    def size(self):
        """Columns and rows; (0, 0) in a graphics mode."""
        if not self.is_text:
            return 0, 0
        return self.crtc[CRTC_H_DISPLAYED] + 1, (self.v_displayed() + 1) // ((self.crtc[CRTC_MAX_SCAN_LINE] & 0x1F) + 1)

    @property
    def rows(self):
        """The screen from the top: for each row its characters and attributes, alternating bytes."""
        columns, count = self.size
        cdef bytes memory = self.text.read(0, TEXT_SIZE)
        cdef uint32_t at = self.crtc[CRTC_START_HIGH] << 8 | self.crtc[CRTC_START_LOW]
        cdef uint32_t first
        found = []
        for _ in range(count):
            first = 2 * at % TEXT_SIZE
            row = memory[first:first + 2 * columns]
            found.append(row + memory[:2 * columns - len(row)])  # addresses wrap
            at += 2 * self.crtc[CRTC_OFFSET]
        return found

    @property
    def cursor(self):
        """Column and row of the cursor, None where it is off or not on the screen."""
        columns, count = self.size
        cdef int first = self.crtc[CRTC_CURSOR_START] & 0x1F
        if self.crtc[CRTC_CURSOR_START] & CURSOR_OFF or first > self.crtc[CRTC_CURSOR_END] & 0x1F:
            return None
        cdef int start = self.crtc[CRTC_START_HIGH] << 8 | self.crtc[CRTC_START_LOW]
        cdef int at = (self.crtc[CRTC_CURSOR_HIGH] << 8 | self.crtc[CRTC_CURSOR_LOW]) - start
        cdef int pitch = 2 * self.crtc[CRTC_OFFSET]
        if at < 0 or pitch == 0 or at % pitch >= columns or at // pitch >= count:
            return None
        return at % pitch, at // pitch

    # The signals.

    cdef uint32_t with_overflow(self, int register, int bit_8, int bit_9) noexcept nogil:
        """A vertical register with the bits that the overflow register holds for it."""
        cdef uint32_t overflow = self.crtc[CRTC_OVERFLOW]
        return self.crtc[register] | (overflow >> bit_8 & 1) << 8 | (overflow >> bit_9 & 1) << 9

    cdef uint32_t v_displayed(self) noexcept nogil:
        return self.with_overflow(CRTC_V_DISPLAYED, 1, 6)

    cdef uint8_t status_1(self) noexcept nogil:
        """Where the beam is, from the time that has passed."""
        cdef uint64_t dot = self.clock.ticks(28_322_000 if self.misc & MISC_CLOCK else 25_175_000, 1)
        cdef uint32_t width = 8 if self.seq[SEQ_CLOCKING] & CLOCKING_8_DOTS else 9
        cdef uint32_t line, sync
        cdef uint64_t character
        if self.seq[SEQ_CLOCKING] & CLOCKING_HALF:
            width *= 2
        character = dot // width
        line = <uint32_t>(
            character // (self.crtc[CRTC_H_TOTAL] + 5) % (self.with_overflow(CRTC_V_TOTAL, 0, 5) + 2)
        )
        sync = self.with_overflow(CRTC_V_SYNC_START, 2, 7)
        if line >= sync and line < sync + ((self.crtc[CRTC_V_SYNC_END] - sync) & 0x0F):
            return STATUS_VERTICAL | STATUS_BLANK
        if line > self.v_displayed() or character % (self.crtc[CRTC_H_TOTAL] + 5) > self.crtc[CRTC_H_DISPLAYED]:
            return STATUS_BLANK
        return 0

    # Registers.

    cdef uint16_t decode(self, uint16_t port) noexcept nogil:
        """The port with the CRT controller at 3Bxh; 0 for the half that MISC_IOS does not choose."""
        if 0x3C0 <= port < 0x3D0:
            return port
        if (port >= 0x3D0) != (self.misc & MISC_IOS):
            return 0
        return port - COLOUR_PORTS if port >= 0x3D0 else port

    cdef uint8_t read8(self, uint16_t port) noexcept nogil:
        cdef uint8_t value
        port = self.decode(port)
        if port == ATTRIBUTE:
            return self.attribute_index
        if port == ATTRIBUTE_READ:
            return self.attribute[self.attribute_index & 0x1F] if self.attribute_index & 0x1F < ATTRIBUTE_COUNT else 0
        if port == MISC_WRITE:
            return SWITCH_SENSE
        if port == SEQUENCER:
            return self.seq_index
        if port == SEQUENCER_DATA:
            return self.seq[self.seq_index] if self.seq_index < SEQ_COUNT else 0
        if port == PEL_MASK:
            return self.pel_mask
        if port == DAC_READ:
            return 3 if self.dac_reads else 0
        if port == DAC_WRITE:
            return <uint8_t>(self.dac_at // 3)
        if port == DAC_DATA:
            value = self.dac[self.dac_at]
            self.dac_at = (self.dac_at + 1) % (256 * 3)
            return value
        if port == FEATURE_READ:
            return self.feature
        if port == MISC_READ:
            return self.misc
        if port == GRAPHICS:
            return self.gc_index
        if port == GRAPHICS_DATA:
            return self.gc[self.gc_index] if self.gc_index < GC_COUNT else 0
        if port == CRTC:
            return self.crtc_index
        if port == CRTC_DATA:
            return self.crtc[self.crtc_index] if self.crtc_index < CRTC_COUNT else 0
        if port == STATUS_1:
            self.attribute_data = False
            return self.status_1()
        return 0xFF

    cdef void write8(self, uint16_t port, uint8_t value) noexcept nogil:
        port = self.decode(port)
        if port == ATTRIBUTE:
            self.write_attribute(value)
        elif port == MISC_WRITE:
            self.misc = value & 0xEF
            self.route()
        elif port == SEQUENCER:
            self.seq_index = value & 7
        elif port == SEQUENCER_DATA:
            if self.seq_index < SEQ_COUNT:
                self.seq[self.seq_index] = value & SEQ_MASK[self.seq_index]
        elif port == PEL_MASK:
            self.pel_mask = value
        elif port == DAC_READ or port == DAC_WRITE:
            self.dac_at = 3 * <uint16_t>value
            self.dac_reads = port == DAC_READ
        elif port == DAC_DATA:
            self.dac[self.dac_at] = value & 0x3F
            self.dac_at = (self.dac_at + 1) % (256 * 3)
        elif port == GRAPHICS:
            self.gc_index = value & 15
        elif port == GRAPHICS_DATA:
            if self.gc_index < GC_COUNT:
                self.gc[self.gc_index] = value & GC_MASK[self.gc_index]
                self.route()
        elif port == CRTC:
            self.crtc_index = value & 0x1F
        elif port == CRTC_DATA:
            self.write_crtc(value)
        elif port == STATUS_1:
            self.feature = value & 0x0B

    cdef void write_attribute(self, uint8_t value) noexcept nogil:
        if not self.attribute_data:
            self.attribute_index = value & 0x3F
        elif self.attribute_index & 0x1F < ATTRIBUTE_COUNT:
            # The palette can be written while the display does not use it.
            if self.attribute_index & 0x1F >= ATTRIBUTE_MODE or not self.attribute_index & PAS:
                self.attribute[self.attribute_index & 0x1F] = value & (0xFF if self.attribute_index & 0x10 else 0x3F)
        self.attribute_data = not self.attribute_data

    cdef void write_crtc(self, uint8_t value) noexcept nogil:
        if self.crtc_index >= CRTC_COUNT:
            return
        if self.crtc_index <= CRTC_OVERFLOW and self.crtc[CRTC_V_SYNC_END] & PROTECT:
            if self.crtc_index == CRTC_OVERFLOW:
                value = (self.crtc[CRTC_OVERFLOW] & ~<uint8_t>LINE_COMPARE_BIT_8) | (value & LINE_COMPARE_BIT_8)
            else:
                return
        self.crtc[self.crtc_index] = value

    cdef int fields(self, Fields f) except -1:
        f.u8("misc", &self.misc)
        f.u8("feature", &self.feature)
        f.u8("pel_mask", &self.pel_mask)
        f.u8("seq_index", &self.seq_index)
        f.u8("crtc_index", &self.crtc_index)
        f.u8("gc_index", &self.gc_index)
        f.u8("attribute_index", &self.attribute_index)
        f.flag("attribute_data", &self.attribute_data)
        f.block("seq", self.seq, SEQ_COUNT)
        f.block("crtc", self.crtc, CRTC_COUNT)
        f.block("gc", self.gc, GC_COUNT)
        f.block("attribute", self.attribute, ATTRIBUTE_COUNT)
        f.block("dac", self.dac, sizeof(self.dac))
        f.u16("dac_at", &self.dac_at)
        f.flag("dac_reads", &self.dac_reads)
        if f.loading:
            if self.dac_at >= sizeof(self.dac):
                self.dac_at = 0
                raise BadInput("the DAC's index is too great")
            if not isinstance(f.values["text"], bytes) or len(f.values["text"]) != TEXT_SIZE:
                raise BadInput(f"the text memory has {TEXT_SIZE} bytes")
            self.text.write(0, f.values["text"])
            self.route()
        else:
            f.values["text"] = self.text.read(0, TEXT_SIZE)
        return 0
