# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""An ATA disk drive.

AT Attachment with Packet Interface - 6 (T13/1410D), "Command Block registers", "Command descriptions", "PIO data-in
command protocol", "PIO data-out command protocol", "Device timing"; -4 (T13/1153D) for what later versions dropped, as
CHS addresses, INITIALIZE DEVICE PARAMETERS, SEEK and RECALIBRATE. 28-bit and 48-bit addresses, PIO only: DMA commands
are not supported, and IDENTIFY DEVICE says so.

Mechanics of a 7200 rpm drive: the heads take 1.2 ms to the next track, 14.7 ms across the disk and about 8.5 ms on
average; a turn takes 8.33 ms, and a sector is read when it passes the head. Sectors that follow the last one are read
ahead. A write is done when the cache has it. Assumed are what no published figure was at hand for: sectors of a track,
the time that the drive's processor takes for a command, and the spin-up.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.math cimport sqrt
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from emu._core cimport Clock, Irq, set_irq
from emu.chips.part cimport Fields, Part

from emu.errors import BadInput, ConfigError, DiskError

cdef enum:
    # Status.
    ERR = 0x01
    DRQ = 0x08
    DSC = 0x10         # seek complete
    DF = 0x20          # device fault
    DRDY = 0x40
    BSY = 0x80
    READY = DRDY | DSC
    # Error.
    ABRT = 0x04
    IDNF = 0x10
    UNC = 0x40
    # Device.
    LBA = 0x40
    DEV = 0x10
    # Device control.
    NIEN = 0x02
    SRST = 0x04
    HOB = 0x80         # reads give the writes before the last ones

    # Phases: what the next event ends.
    IDLE = 0
    RESETTING
    EXECUTING
    READING
    VERIFYING
    ACCEPTING          # the first block of a write will be asked for
    WRITING
    FAILING            # with the error in `planned`
    SLEEPING           # only a reset wakes it

    # Commands.
    NOP = 0x00
    RECALIBRATE = 0x10
    READ_SECTORS = 0x20
    READ_SECTORS_EXT = 0x24
    READ_NATIVE_MAX_ADDRESS_EXT = 0x27
    READ_MULTIPLE_EXT = 0x29
    WRITE_SECTORS = 0x30
    WRITE_SECTORS_EXT = 0x34
    SET_MAX_ADDRESS_EXT = 0x37
    WRITE_MULTIPLE_EXT = 0x39
    READ_VERIFY_SECTORS = 0x40
    READ_VERIFY_SECTORS_EXT = 0x42
    SEEK = 0x70
    EXECUTE_DEVICE_DIAGNOSTIC = 0x90
    INITIALIZE_DEVICE_PARAMETERS = 0x91
    READ_MULTIPLE = 0xC4
    WRITE_MULTIPLE = 0xC5
    SET_MULTIPLE_MODE = 0xC6
    STANDBY_IMMEDIATE = 0xE0
    IDLE_IMMEDIATE = 0xE1
    STANDBY = 0xE2
    IDLE_COMMAND = 0xE3
    READ_BUFFER = 0xE4
    CHECK_POWER_MODE = 0xE5
    SLEEP = 0xE6
    FLUSH_CACHE = 0xE7
    WRITE_BUFFER = 0xE8
    FLUSH_CACHE_EXT = 0xEA
    IDENTIFY_DEVICE = 0xEC
    SET_FEATURES = 0xEF
    READ_NATIVE_MAX_ADDRESS = 0xF8
    SET_MAX = 0xF9

    # SET MAX: the features register, and the states of its security.
    SET_MAX_SET_PASSWORD = 1
    SET_MAX_LOCK = 2
    SET_MAX_UNLOCK = 3
    SET_MAX_FREEZE_LOCK = 4
    MAX_INACTIVE = 0
    MAX_UNLOCKED = 1
    MAX_LOCKED = 2
    MAX_FROZEN = 3
    MAX_TRIES = 5

    POWER_ACTIVE = 0
    POWER_STANDBY = 1

    # What a disk's error means to the drive; 0: none.
    FAULT_UNCORRECTABLE = 1
    FAULT_NOT_FOUND = 2
    FAULT_DEVICE = 3
    FAULT_ABORTED = 4

    # Times in nanoseconds, but where it says otherwise.
    COMMAND_NS = 50_000           # assumed
    BLOCK_NS = 5_000              # from one DRQ block to the next where the buffer has it; assumed
    RESET_NS = 2_000_000          # the host looks again after 2 ms at the earliest
    SPIN_UP_NS = 2_000_000_000    # assumed
    TURNS_PER_SECOND = 120
    SECTORS_PER_TRACK = 400       # assumed
    SECTOR_NS = 1_000_000_000 // TURNS_PER_SECOND // SECTORS_PER_TRACK
    HEAD_SWITCH_NS = 1_200_000
    FULL_STROKE_NS = 14_700_000
    BUFFER_SECTORS = 1024         # how far the drive reads ahead; assumed

cdef dict FAULTS = {
    "uncorrectable": FAULT_UNCORRECTABLE,
    "not_found": FAULT_NOT_FOUND,
    "write_fault": FAULT_DEVICE,
    "read_only": FAULT_ABORTED,
}


cdef class Ata(Part):
    """One drive on an ATA cable. Pin: INTRQ out, which the drive lets go of while it is not selected.

    Args:
        clock: the machine's clock.
        name: unique on the board.
        disk: what the sectors are kept in: `sectors`, `read(lba, count)`, `write(lba, data)`, `flush()`, `save()`,
            `load(state)`, `readonly`, as emu.Disk has them. A DiskError of it becomes the drive's error.
        number: 0 or 1, the drive's jumper.

    Raises:
        ConfigError: the number is another, or the disk has more sectors than a 48-bit address reaches, or none.
    """

    VERSION = 2

    def __cinit__(self, Clock clock not None, str name not None, disk not None, int number=0):
        if number not in (0, 1):
            raise ConfigError(f"{name}: drive {number} of a cable for drives 0 and 1")
        sectors = disk.sectors
        if not 0 < sectors <= 1 << 48:
            raise ConfigError(f"{name}: a disk of {sectors} sectors")
        self.name = name
        self.disk = disk
        self.native = sectors
        self.read_only = disk.readonly
        self.number = number
        self.limit = self.lasting_limit = self.native

    cpdef reset(self):
        """Power-on or hardware reset; the disk and a lasting SET MAX stay."""
        self.revert = False
        self.limit = self.lasting_limit
        self.limit_by = self.lasting_limit_by
        self.limit_set = False
        self.max_state = MAX_INACTIVE
        self.max_tries = MAX_TRIES
        memset(self.password, 0, sizeof(self.password))
        memset(self.buffer, 0, sizeof(self.buffer))
        self.power = POWER_ACTIVE
        self.standby_count = 0
        self.control = 0
        self.command = self.last_command = NOP
        self.lba = self.remaining = 0
        self.position = self.length = 0
        self.stream_lba = self.stream_cycle = 0
        self.dirty = False
        self.dirty_lba = 0
        self.defaults()
        self.selected = self.number == 0
        self.status = BSY
        self.signature()
        self.begin(RESETTING, self.now_plus(RESET_NS))

    cdef Irq *output(self, str name) except NULL:
        if name == "INTRQ":
            return &self.intrq
        raise ConfigError(f"{self.name} has no output {name!r}: INTRQ")

    cdef void update_intrq(self) noexcept nogil:
        set_irq(&self.intrq, self.interrupt and self.selected and not self.control & NIEN)

    cdef void select(self, bint selected) noexcept nogil:
        self.selected = selected
        self.update_intrq()

    cdef void signature(self) noexcept nogil:
        """What a reset and a diagnostic leave in the task file: passed, and this is no packet device."""
        self.error = 0x01
        memset(self.written, 0, sizeof(self.written))
        memset(self.before, 0, sizeof(self.before))
        self.written[ATA_COUNT] = self.written[ATA_LBA_LOW] = 1
        self.device = 0
        self.interrupt = False
        self.update_intrq()

    cdef void defaults(self) noexcept nogil:
        """What SET FEATURES and the like can change, as after power-on."""
        self.write_cache = self.look_ahead = True
        self.eight_bit = False
        self.multiple = 0
        self.translate_by_default()

    cdef void translate_by_default(self) noexcept nogil:
        """The translation after power-on: 16 heads and 63 sectors, fewer where the disk is smaller than a cylinder."""
        cdef uint64_t cylinders
        self.sectors = <uint8_t>least(63, self.limit)
        self.heads = <uint8_t>least(16, self.limit // self.sectors)
        cylinders = self.limit // (self.heads * self.sectors)
        self.cylinders = <uint16_t>least(16383, cylinders)

    # --- time ---

    cdef uint64_t now_plus(self, uint64_t ns) noexcept nogil:
        cdef uint64_t hz = self.clock.c.hz
        return self.clock.now() + ns // 1000 * hz // 1_000_000 + ns % 1000 * hz // 1_000_000_000

    cdef uint64_t media_time(self, uint64_t lba, uint32_t sectors) noexcept nogil:
        """The cycle at which so many sectors from `lba` on will have passed the heads, which go on from there."""
        cdef uint64_t hz = self.clock.c.hz, now = self.clock.now()
        cdef uint64_t sector = SECTOR_NS * hz // 1_000_000_000, ahead = BUFFER_SECTORS * sector
        cdef uint64_t ready, distance, seek_ns, turn, angle, target
        if lba == self.stream_lba and self.look_ahead and not self.is_standby():
            ready = most(self.stream_cycle, now - least(now, ahead))
        else:
            if self.is_standby():
                self.power = POWER_ACTIVE
                self.idle_since = now
                now = self.now_plus(SPIN_UP_NS)
            distance = lba - self.stream_lba if lba > self.stream_lba else self.stream_lba - lba
            seek_ns = 0
            if distance >= SECTORS_PER_TRACK:
                seek_ns = HEAD_SWITCH_NS + <uint64_t>(
                    (FULL_STROKE_NS - HEAD_SWITCH_NS) * sqrt(<double>distance / <double>self.native)
                )
            ready = now + seek_ns // 1000 * hz // 1_000_000
            # Where in its turn the disk is then, and where the sector begins, in cycles.
            turn = most(hz // TURNS_PER_SECOND, 1)
            angle = ready % turn
            target = lba % SECTORS_PER_TRACK * turn // SECTORS_PER_TRACK
            ready += target - angle if target >= angle else turn + target - angle
        ready += sectors * sector
        self.stream_lba = lba + sectors
        self.stream_cycle = ready
        return most(ready, self.now_plus(BLOCK_NS))

    cdef bint is_standby(self) noexcept nogil:
        """Standby by command, or since the standby timer ran out."""
        cdef uint64_t seconds, count = self.standby_count
        if self.power == POWER_STANDBY or not count:
            return self.power == POWER_STANDBY
        if count <= 240:
            seconds = 5 * count
        elif count <= 251:
            seconds = 1800 * (count - 240)
        else:
            seconds = 1275 if count == 255 else 8 * 3600 if count == 253 else 1260
        return self.clock.now() - self.idle_since >= seconds * self.clock.c.hz

    # --- the task file ---

    cdef uint8_t read_register(self, int register) noexcept nogil:
        if register == ATA_COMMAND:
            self.interrupt = False
            self.update_intrq()
            return self.status
        if register == ATA_CONTROL or self.status & BSY:
            return self.status
        if register == ATA_FEATURES:
            return self.error
        if register < ATA_DEVICE:
            return self.before[register] if self.control & HOB else self.written[register]
        return self.device  # DEV as last written, which a lone drive 0 shows while it answers for drive 1 too

    cdef void write_register(self, int register, uint8_t value) noexcept nogil:
        if register == ATA_CONTROL:
            if value & SRST and not self.control & SRST:
                self.clock.cancel(self, 0)
                self.phase = RESETTING
                self.status = BSY
                self.interrupt = False
                self.command = NOP  # SET MAX must follow READ NATIVE MAX ADDRESS directly
                if self.revert:  # SET FEATURES: reverting to power-on defaults is enabled
                    self.defaults()
            elif self.control & SRST and not value & SRST:
                self.begin(RESETTING, self.now_plus(RESET_NS))
            self.control = value & (NIEN | SRST | HOB)
            self.update_intrq()
            return
        self.control &= ~HOB
        if register == ATA_COMMAND:
            if self.phase == SLEEPING or self.status & (BSY | DRQ):
                return
            self.start(value)
            return
        if self.status & (BSY | DRQ):
            return
        if register == ATA_DEVICE:
            self.device = value
            return
        self.before[register] = self.written[register]
        self.written[register] = value

    cdef bint locate(self) noexcept nogil:
        """Takes the address and the count from the task file; False where there is no such address."""
        cdef uint32_t cylinder, head, sector
        cdef uint8_t *now = self.written
        cdef uint8_t *old = self.before
        cdef uint64_t low = now[ATA_LBA_LOW] | <uint64_t>now[ATA_LBA_MID] << 8 | <uint64_t>now[ATA_LBA_HIGH] << 16
        self.remaining = now[ATA_COUNT]
        if is_ext(self.command):
            self.remaining |= <uint32_t>old[ATA_COUNT] << 8
            if not self.remaining:
                self.remaining = 65536
            self.lba = low | <uint64_t>old[ATA_LBA_LOW] << 24 | <uint64_t>old[ATA_LBA_MID] << 32 \
                | <uint64_t>old[ATA_LBA_HIGH] << 40
            return True
        if not self.remaining:
            self.remaining = 256
        head = self.device & 15
        if self.device & LBA:
            self.lba = low | <uint64_t>head << 24
            return True
        sector = now[ATA_LBA_LOW]
        cylinder = <uint32_t>(low >> 8)
        if head >= self.heads or not 0 < sector <= self.sectors:
            return False
        self.lba = (<uint64_t>cylinder * self.heads + head) * self.sectors + sector - 1
        return cylinder < self.cylinders or self.command == SET_MAX

    cdef void report(self, uint64_t lba, uint32_t remaining) noexcept nogil:
        """Puts an address and a count into the task file, as the command gave them."""
        cdef uint64_t track
        cdef bint ext = is_ext(self.command)
        self.written[ATA_COUNT] = <uint8_t>remaining
        if ext:
            self.before[ATA_COUNT] = <uint8_t>(remaining >> 8)
            self.before[ATA_LBA_LOW] = <uint8_t>(lba >> 24)
            self.before[ATA_LBA_MID] = <uint8_t>(lba >> 32)
            self.before[ATA_LBA_HIGH] = <uint8_t>(lba >> 40)
        elif self.device & LBA:
            self.device = <uint8_t>((self.device & 0xF0) | (lba >> 24 & 15))
        else:
            track = lba // self.sectors
            self.device = <uint8_t>((self.device & 0xF0) | track % self.heads)
            lba = (lba % self.sectors + 1) | (track // self.heads) << 8
        self.written[ATA_LBA_LOW] = <uint8_t>lba
        self.written[ATA_LBA_MID] = <uint8_t>(lba >> 8)
        self.written[ATA_LBA_HIGH] = <uint8_t>(lba >> 16)

    # --- the course of a command ---

    cdef void begin(self, int phase, uint64_t cycle) noexcept nogil:
        """Busy until that cycle."""
        self.phase = <uint8_t>phase
        self.status = READY | BSY
        self.clock.schedule(self, 0, cycle)

    cdef void begin_failure(self, uint8_t error) noexcept nogil:
        self.planned = error
        self.begin(FAILING, self.now_plus(COMMAND_NS))

    cdef void start(self, uint8_t command) noexcept nogil:
        self.last_command = self.command
        self.command = command
        self.error = 0
        self.interrupt = False
        self.update_intrq()
        if command in (READ_SECTORS, READ_SECTORS + 1, READ_SECTORS_EXT):
            self.begin_media(READING)
        elif command in (WRITE_SECTORS, WRITE_SECTORS + 1, WRITE_SECTORS_EXT):
            self.begin_media(ACCEPTING)
        elif command in (READ_MULTIPLE, READ_MULTIPLE_EXT) and self.multiple:
            self.begin_media(READING)
        elif command in (WRITE_MULTIPLE, WRITE_MULTIPLE_EXT) and self.multiple:
            self.begin_media(ACCEPTING)
        elif command in (READ_VERIFY_SECTORS, READ_VERIFY_SECTORS + 1, READ_VERIFY_SECTORS_EXT):
            self.begin_media(VERIFYING)
        elif command & 0xF0 == SEEK:
            self.begin_media(EXECUTING)
        elif command & 0xF0 == RECALIBRATE:
            self.begin(EXECUTING, self.media_time(0, 0))
        elif command in (FLUSH_CACHE, FLUSH_CACHE_EXT) and self.dirty:
            self.begin(EXECUTING, self.media_time(self.dirty_lba, 1))
        else:
            self.begin(EXECUTING, self.now_plus(COMMAND_NS))

    cdef void begin_media(self, int phase) noexcept nogil:
        """A command with an address."""
        if is_ext(self.command) and not self.device & LBA:
            self.begin_failure(ABRT)
        elif phase == ACCEPTING and self.read_only:
            self.begin_failure(ABRT)
        elif not self.locate() or self.lba >= self.limit:
            self.begin_failure(IDNF)
        elif phase == ACCEPTING:
            self.begin(phase, self.now_plus(COMMAND_NS))
        else:
            self.begin(phase, most(self.now_plus(COMMAND_NS), self.media_time(self.lba, self.block())))

    cdef uint32_t block(self) noexcept nogil:
        """Sectors of the next DRQ block."""
        if self.command in (READ_MULTIPLE, READ_MULTIPLE_EXT, WRITE_MULTIPLE, WRITE_MULTIPLE_EXT):
            return <uint32_t>least(self.multiple, self.remaining)
        if self.command in (READ_VERIFY_SECTORS, READ_VERIFY_SECTORS + 1, READ_VERIFY_SECTORS_EXT):
            return <uint32_t>least(ATA_BLOCK, self.remaining)
        return <uint32_t>least(1, self.remaining)

    cdef void event(self, int id) noexcept nogil:
        cdef int phase = self.phase
        self.phase = IDLE
        self.status = READY
        if phase == RESETTING:
            self.signature()
            self.idle_since = self.clock.now()
        elif phase == FAILING:
            self.fail(self.planned)
        elif phase == READING:
            self.read_block()
        elif phase == VERIFYING:
            self.verify()
        elif phase == ACCEPTING:
            self.offer(512 * self.block(), False)
        elif phase == WRITING:
            self.write_block()
        elif phase == EXECUTING:
            self.execute()

    cdef void done(self) noexcept nogil:
        """The command has ended, well or not, and says so."""
        self.status = READY | (self.status & (ERR | DF))
        self.idle_since = self.clock.now()
        self.interrupt = True
        self.update_intrq()

    cdef void fail(self, uint8_t error, uint8_t status=0) noexcept nogil:
        self.error = error
        self.status = READY | ERR | status
        self.remaining = 0
        self.done()

    cdef void fail_at(self, uint64_t lba, int fault) noexcept nogil:
        """The sector at which a transfer ends early."""
        self.report(lba, self.remaining - <uint32_t>(lba - self.lba))
        if fault == FAULT_NOT_FOUND:
            self.fail(IDNF)
        elif fault == FAULT_UNCORRECTABLE:
            self.fail(UNC)
        elif fault == FAULT_DEVICE:
            self.fail(ABRT, DF)
        else:
            self.fail(ABRT)

    cdef void offer(self, uint32_t length, bint interrupt) noexcept nogil:
        """Asks the host to move a block."""
        self.position = 0
        self.length = length
        self.status = READY | DRQ
        self.interrupt = interrupt
        self.update_intrq()

    cdef bint fetch(self) noexcept nogil:
        """Reads the next block into the buffer and goes on behind it; ends the command where that fails."""
        cdef uint32_t sectors = self.block()
        cdef uint64_t bad = self.lba
        cdef int fault = self.disk_read(&bad, sectors)
        if fault:
            self.fail_at(bad, fault)
            return False
        self.lba += sectors
        self.remaining -= sectors
        self.report(self.lba - 1, self.remaining)
        return True

    cdef void read_block(self) noexcept nogil:
        cdef uint32_t sectors = self.block()
        if self.fetch():
            self.offer(512 * sectors, True)

    cdef void verify(self) noexcept nogil:
        if self.fetch():
            if self.remaining:
                self.begin(VERIFYING, self.media_time(self.lba, self.block()))
            else:
                self.done()

    cdef void write_block(self) noexcept nogil:
        """The host has filled the buffer."""
        cdef uint32_t sectors = self.block()
        cdef uint64_t bad = self.lba
        cdef int fault
        if self.command == WRITE_BUFFER:
            self.done()
            return
        if self.command == SET_MAX:
            self.set_max_password()
            return
        fault = self.disk_write(&bad, sectors)
        if fault:
            self.fail_at(bad, fault)
            return
        self.dirty = self.write_cache
        self.dirty_lba = self.lba
        self.lba += sectors
        self.remaining -= sectors
        self.report(self.lba - 1, self.remaining)
        if self.remaining:
            self.offer(512 * self.block(), True)
        else:
            self.done()

    cdef void moved(self) noexcept nogil:
        """The host has moved the whole block."""
        self.position = self.length = 0
        self.status = READY
        self.idle_since = self.clock.now()
        if self.is_output():
            # Without the cache the sectors must have passed the heads first.
            if self.write_cache or not self.remaining:
                self.begin(WRITING, self.now_plus(BLOCK_NS))
            else:
                self.begin(WRITING, self.media_time(self.lba, self.block()))
        elif self.remaining:
            self.begin(READING, self.media_time(self.lba, self.block()))

    cdef bint is_output(self) noexcept nogil:
        """Does the command take data from the host?"""
        return self.command in (
            WRITE_SECTORS, WRITE_SECTORS + 1, WRITE_SECTORS_EXT, WRITE_MULTIPLE, WRITE_MULTIPLE_EXT, WRITE_BUFFER,
            SET_MAX,
        )

    cdef uint16_t read_data(self) noexcept nogil:
        cdef uint16_t value
        if self.eight_bit:
            return 0xFF00 | self.read_data8()
        if not self.status & DRQ or self.is_output():
            return 0xFFFF
        value = self.buffer[self.position] | <uint16_t>self.buffer[self.position + 1] << 8
        self.position += 2
        if self.position >= self.length:
            self.moved()
        return value

    cdef void write_data(self, uint16_t value) noexcept nogil:
        if self.eight_bit:
            self.write_data8(<uint8_t>value)
            return
        if not self.status & DRQ or not self.is_output():
            return
        self.buffer[self.position] = <uint8_t>value
        self.buffer[self.position + 1] = <uint8_t>(value >> 8)
        self.position += 2
        if self.position >= self.length:
            self.moved()

    cdef uint8_t read_data8(self) noexcept nogil:
        """A byte: in the 8-bit mode one of the data; otherwise the lower half of a word, whose upper half is lost."""
        cdef uint8_t value
        if not self.eight_bit:
            return <uint8_t>self.read_data()
        if not self.status & DRQ or self.is_output():
            return 0xFF
        value = self.buffer[self.position]
        self.position += 1
        if self.position >= self.length:
            self.moved()
        return value

    cdef void write_data8(self, uint8_t value) noexcept nogil:
        if not self.eight_bit:
            self.write_data(0xFF00 | value)
        elif self.status & DRQ and self.is_output():
            self.buffer[self.position] = value
            self.position += 1
            if self.position >= self.length:
                self.moved()

    # --- the disk ---

    cdef int disk_read(self, uint64_t *lba, uint32_t sectors) noexcept nogil:
        """Reads sectors into the buffer. What went wrong, if anything: FAULT_*, and `lba` is then where."""
        if lba[0] >= self.limit or sectors > self.limit - lba[0]:
            lba[0] = self.limit
            return FAULT_NOT_FOUND
        self.clock.keep_gil()
        return self.ask_disk_read(lba, sectors)

    cdef int disk_write(self, uint64_t *lba, uint32_t sectors) noexcept nogil:
        """Writes sectors from the buffer, those before the one that fails too."""
        cdef uint32_t room = <uint32_t>least(sectors, self.limit - lba[0]) if lba[0] < self.limit else 0
        cdef int fault
        self.clock.keep_gil()
        fault = self.ask_disk_write(lba, room)
        if fault or room == sectors:
            return fault
        lba[0] = self.limit
        return FAULT_NOT_FOUND

    cdef int disk_flush(self) noexcept nogil:
        self.clock.keep_gil()
        return self.ask_disk_flush()

    cdef int ask_disk_read(self, uint64_t *lba, uint32_t sectors) noexcept with gil:
        try:
            data = self.disk.read(lba[0], sectors)
            if not isinstance(data, bytes) or len(data) != 512 * sectors:
                raise ValueError(f"{self.name}: the disk gave no {sectors} sectors")
            memcpy(self.buffer, PyBytes_AS_STRING(data), 512 * sectors)
            return 0
        except DiskError as error:
            lba[0] = clip(lba[0], sectors, error.lba)
            return FAULTS.get(error.kind, FAULT_UNCORRECTABLE)
        except BaseException as error:
            self.clock.store_error(error)
            return FAULT_UNCORRECTABLE

    cdef int ask_disk_write(self, uint64_t *lba, uint32_t sectors) noexcept with gil:
        try:
            self.disk.write(lba[0], PyBytes_FromStringAndSize(<const char *>self.buffer, 512 * sectors))
            return 0
        except DiskError as error:
            lba[0] = clip(lba[0], sectors, error.lba)
            return FAULTS.get(error.kind, FAULT_DEVICE)
        except BaseException as error:
            self.clock.store_error(error)
            return FAULT_DEVICE

    cdef int ask_disk_flush(self) noexcept with gil:
        try:
            self.disk.flush()
            return 0
        except DiskError:
            return FAULT_DEVICE
        except BaseException as error:
            self.clock.store_error(error)
            return FAULT_DEVICE

    # --- commands without a transfer from or to the disk ---

    cdef void execute(self) noexcept nogil:
        cdef uint8_t command = self.command
        if command & 0xF0 == SEEK or command & 0xF0 == RECALIBRATE:
            self.done()
        elif command == IDENTIFY_DEVICE:
            self.identify()
            self.remaining = 0
            self.offer(512, True)
        elif command == READ_BUFFER:
            self.remaining = 0
            self.offer(512, True)
        elif command == WRITE_BUFFER:
            self.remaining = 0
            self.offer(512, False)
        elif command == EXECUTE_DEVICE_DIAGNOSTIC:
            self.signature()
            self.done()
            self.interrupt = self.number == 0
            self.update_intrq()
        elif command == INITIALIZE_DEVICE_PARAMETERS:
            self.initialize_device_parameters()
        elif command == SET_MULTIPLE_MODE:
            if self.written[ATA_COUNT] > ATA_BLOCK or self.written[ATA_COUNT] & (self.written[ATA_COUNT] - 1):
                self.multiple = 0  # READ MULTIPLE and WRITE MULTIPLE are disabled
                self.fail(ABRT)
            else:
                self.multiple = self.written[ATA_COUNT]
                self.done()
        elif command == SET_FEATURES:
            self.set_features()
        elif command in (FLUSH_CACHE, FLUSH_CACHE_EXT):
            if self.disk_flush():
                self.fail(ABRT, DF)
            else:
                self.dirty = False
                self.done()
        elif command in (READ_NATIVE_MAX_ADDRESS, READ_NATIVE_MAX_ADDRESS_EXT):
            if command == READ_NATIVE_MAX_ADDRESS_EXT and not self.device & LBA:
                self.command = NOP  # it does not count for SET MAX ADDRESS EXT
                self.fail(ABRT)
            else:
                self.report_native_max()
                self.done()
        elif command == SET_MAX:
            self.set_max()
        elif command == SET_MAX_ADDRESS_EXT:
            if self.last_command != READ_NATIVE_MAX_ADDRESS_EXT or not self.device & LBA:
                self.fail(ABRT)
            else:
                self.set_max_address()
        else:
            self.execute_power(command)

    cdef void initialize_device_parameters(self) noexcept nogil:
        """The translation by which CHS addresses go from now on."""
        cdef uint32_t heads = (self.device & 15) + 1, sectors = self.written[ATA_COUNT]
        if not sectors:
            self.fail(ABRT)
            return
        self.heads = <uint8_t>heads
        self.sectors = <uint8_t>sectors
        self.cylinders = <uint16_t>least(65535, self.limit // (heads * sectors))
        self.done()

    cdef void set_features(self) noexcept nogil:
        cdef uint8_t feature = self.written[ATA_FEATURES], mode = self.written[ATA_COUNT]
        if feature in (0x01, 0x81):
            self.eight_bit = feature == 0x01
        elif feature in (0x02, 0x82):
            self.write_cache = feature == 0x02
            if not self.write_cache and self.disk_flush():
                self.fail(ABRT, DF)
                return
        elif feature in (0x55, 0xAA):
            self.look_ahead = feature == 0xAA
        elif feature in (0x66, 0xCC):
            self.revert = feature == 0xCC
        elif feature != 0x03 or not (mode <= 1 or 0x08 <= mode <= 0x0C):
            # Transfer modes: the PIO default, with IORDY or without, and 0 to 4. The drive keeps up with each.
            self.fail(ABRT)
            return
        self.done()

    cdef void execute_power(self, uint8_t command) noexcept nogil:
        """Power management, with the opcodes of the first standard too; whatever is left is no command."""
        if 0x94 <= command <= 0x97:
            command += <uint8_t>(STANDBY_IMMEDIATE - 0x94)
        elif command in (0x98, 0x99):
            command = CHECK_POWER_MODE if command == 0x98 else SLEEP
        if command == CHECK_POWER_MODE:
            self.written[ATA_COUNT] = 0 if self.is_standby() else 0xFF
            self.status = READY
            self.interrupt = True
            self.update_intrq()
            return
        if command in (STANDBY, IDLE_COMMAND):
            self.standby_count = self.written[ATA_COUNT]
        elif command not in (STANDBY_IMMEDIATE, IDLE_IMMEDIATE, SLEEP):
            self.fail(ABRT)
            return
        if command in (IDLE_COMMAND, IDLE_IMMEDIATE):
            self.power = POWER_ACTIVE
        else:
            if self.dirty and self.disk_flush():
                self.fail(ABRT, DF)
                return
            self.dirty = False
            self.power = POWER_STANDBY
        self.done()
        if command == SLEEP:
            self.phase = SLEEPING

    # --- Host Protected Area ---

    cdef void report_native_max(self) noexcept nogil:
        cdef uint64_t lba = self.native - 1
        cdef uint8_t count = self.written[ATA_COUNT]
        if self.command == READ_NATIVE_MAX_ADDRESS:
            lba = least(lba, 0x0FFFFFFF)
            if not self.device & LBA:
                lba = least(lba, <uint64_t>16383 * self.heads * self.sectors - 1)
        self.report(lba, 0)
        self.written[ATA_COUNT] = count

    cdef void set_max(self) noexcept nogil:
        """Directly after READ NATIVE MAX ADDRESS it sets the address; else the features register says what it does."""
        cdef uint8_t feature = self.written[ATA_FEATURES]
        if self.last_command == READ_NATIVE_MAX_ADDRESS:
            self.set_max_address()
        elif feature == SET_MAX_SET_PASSWORD and self.max_state in (MAX_INACTIVE, MAX_UNLOCKED):
            self.offer(512, False)
        elif feature == SET_MAX_UNLOCK and self.max_state == MAX_LOCKED and self.max_tries:
            self.offer(512, False)
        elif feature == SET_MAX_LOCK and self.max_state == MAX_UNLOCKED:
            self.max_state = MAX_LOCKED
            self.done()
        elif feature == SET_MAX_FREEZE_LOCK and self.max_state in (MAX_UNLOCKED, MAX_LOCKED):
            self.max_state = MAX_FROZEN
            self.done()
        else:
            self.fail(ABRT)

    cdef void set_max_password(self) noexcept nogil:
        """The block has come; the password is words 1 to 16."""
        if self.written[ATA_FEATURES] == SET_MAX_SET_PASSWORD:
            memcpy(self.password, self.buffer + 2, 32)
            self.max_state = MAX_UNLOCKED
            self.done()
        elif memcmp(self.password, self.buffer + 2, 32) == 0:
            self.max_state = MAX_UNLOCKED
            self.max_tries = MAX_TRIES
            self.done()
        else:
            self.max_tries -= 1
            self.fail(ABRT)

    cdef void set_max_address(self) noexcept nogil:
        """The last sector that can be accessed: until the next hardware reset, or for good if bit 0 of count is set."""
        cdef bint lasting = self.written[ATA_COUNT] & 1
        # An area that one of the two commands has established is not the other one's.
        if self.max_state in (MAX_LOCKED, MAX_FROZEN) or self.limit_by not in (NOP, self.command):
            self.fail(ABRT)
            return
        if not self.locate() or self.lba >= self.native:
            self.fail(ABRT)
            return
        if lasting and self.limit_set:
            self.fail(IDNF)
            return
        self.limit = self.lba + 1
        self.limit_by = self.command if self.limit < self.native else NOP
        if lasting:
            self.lasting_limit = self.limit
            self.lasting_limit_by = self.limit_by
            self.limit_set = True
        self.translate_by_default()
        self.done()

    # --- IDENTIFY DEVICE ---

    cdef void word(self, int number, uint32_t value) noexcept nogil:
        self.buffer[2 * number] = <uint8_t>value
        self.buffer[2 * number + 1] = <uint8_t>(value >> 8)

    cdef void words(self, int number, int count, uint64_t value) noexcept nogil:
        cdef int at
        for at in range(count):
            self.word(number + at, <uint32_t>(value >> 16 * at & 0xFFFF))

    cdef void text(self, int number, int count, const char *text) noexcept nogil:
        """Characters, the first of each word in its upper byte, blanks at the end."""
        cdef int at
        cdef bint ended = False
        for at in range(2 * count):
            ended = ended or text[at] == 0
            self.buffer[2 * number + (at ^ 1)] = 32 if ended else <uint8_t>text[at]

    cdef uint32_t reset_result(self) noexcept nogil:
        """How the hardware reset went: numbered by a jumper; drive 1 asserted PDIAG-, drive 0 passed its diagnostics,
        and either detected DASP- and PDIAG- of drive 1 or answers for it. 40-conductor cable."""
        if self.number == 1:
            return 0x4B00
        return 0x403B if self.paired else 0x404B

    cdef void identify(self) noexcept nogil:
        cdef uint64_t chs = <uint64_t>self.cylinders * self.heads * self.sectors
        cdef uint32_t supported = 0x7468, at  # NOP, READ, WRITE BUFFER, HPA, look-ahead, write cache, power management
        cdef uint8_t total = 0, spt = <uint8_t>least(63, self.limit), heads = <uint8_t>least(16, self.limit // spt)
        memset(self.buffer, 0, 512)
        self.word(0, 0x0040)                                         # an ATA device, not removable
        self.word(1, <uint32_t>least(16383, self.limit // (heads * spt)))
        self.word(2, 0xC837)                                         # needs no SET FEATURES to spin up
        self.word(3, heads)
        self.word(6, spt)
        self.text(10, 10, b"EMU00000001" if self.number == 0 else b"EMU00000002")
        self.text(23, 4, b"1.0")
        self.text(27, 20, b"EMU HARD DISK")
        self.word(47, 0x8000 | ATA_BLOCK)
        self.word(48, 1)                                             # doubleword accesses to the data register
        self.word(49, 0x2E00)                                        # standby timer as the standard says, IORDY, LBA
        self.word(50, 0x4000)
        self.word(51, 0x0200)                                        # PIO mode 2 without IORDY
        self.word(53, 0x0003)                                        # words 54-58 and 64-70 are valid
        self.word(54, self.cylinders)
        self.word(55, self.heads)
        self.word(56, self.sectors)
        self.words(57, 2, chs)
        self.word(59, 0x0100 | self.multiple if self.multiple else 0)
        self.words(60, 2, least(self.limit, 0x0FFFFFFF))
        self.word(64, 0x0003)                                        # PIO modes 3 and 4
        self.word(67, 240)                                           # shortest PIO cycle without and with IORDY, ns
        self.word(68, 120)
        self.word(80, 0x007E)                                        # ATA-1 to ATA/ATAPI-6
        self.word(82, supported)
        self.word(83, 0x7500)                                        # FLUSH CACHE (EXT), 48-bit, SET MAX security
        self.word(84, 0x4000)
        self.word(85, supported & ~<uint32_t>(
            (0 if self.write_cache else 0x20) | (0 if self.look_ahead else 0x40)
        ))
        self.word(86, 0x3400 | (0x100 if self.max_state else 0))
        self.word(87, 0x4000)
        self.word(93, self.reset_result())
        self.words(100, 4, self.limit)
        self.word(255, 0x00A5)
        for at in range(511):
            total += self.buffer[at]
        self.buffer[511] = <uint8_t>-total

    # --- state ---

    cdef int fields(self, Fields f) except -1:
        f.flag("selected", &self.selected)
        f.block("written", self.written, sizeof(self.written))
        f.block("before", self.before, sizeof(self.before))
        f.u8("device", &self.device)
        f.u8("status", &self.status)
        f.u8("error", &self.error)
        f.u8("control", &self.control)
        f.u8("command", &self.command)
        f.u8("last_command", &self.last_command)
        f.flag("interrupt", &self.interrupt)
        f.u8("phase", &self.phase)
        f.u8("planned", &self.planned)
        f.u64("lba", &self.lba)
        f.u32("remaining", &self.remaining)
        f.block("buffer", self.buffer, sizeof(self.buffer))
        f.u32("position", &self.position)
        f.u32("length", &self.length)
        f.u16("cylinders", &self.cylinders)
        f.u8("heads", &self.heads)
        f.u8("sectors", &self.sectors)
        f.u8("multiple", &self.multiple)
        f.flag("write_cache", &self.write_cache)
        f.flag("look_ahead", &self.look_ahead)
        f.flag("eight_bit", &self.eight_bit)
        f.flag("revert", &self.revert)
        f.u64("limit", &self.limit)
        f.u64("lasting_limit", &self.lasting_limit)
        f.flag("limit_set", &self.limit_set)
        f.u8("limit_by", &self.limit_by)
        f.u8("lasting_limit_by", &self.lasting_limit_by)
        f.u8("max_state", &self.max_state)
        f.u8("max_tries", &self.max_tries)
        f.block("password", self.password, sizeof(self.password))
        f.u8("power", &self.power)
        f.u8("standby_count", &self.standby_count)
        f.u64("idle_since", &self.idle_since)
        f.u64("stream_lba", &self.stream_lba)
        f.u64("stream_cycle", &self.stream_cycle)
        f.flag("dirty", &self.dirty)
        f.u64("dirty_lba", &self.dirty_lba)
        f.level("intrq", &self.intrq.level)
        if not f.loading:
            f.values["disk"] = self.disk.save()
            return 0
        # A guest cannot make these, a damaged file can.
        if (
            self.multiple > ATA_BLOCK or self.length > sizeof(self.buffer) or self.position > self.length
            or self.status & DRQ and (self.position >= self.length or (self.position & 1 and not self.eight_bit))
            or not self.heads or not self.sectors or not 0 < self.limit <= self.native
            or not 0 < self.lasting_limit <= self.native or self.phase > SLEEPING
        ):
            raise BadInput("a transfer or a translation that cannot be")
        self.disk.load(f.values["disk"])
        return 0


cdef uint64_t least(uint64_t a, uint64_t b) noexcept nogil:
    return a if a < b else b


cdef uint64_t most(uint64_t a, uint64_t b) noexcept nogil:
    return a if a > b else b


cdef uint64_t clip(uint64_t first, uint32_t sectors, object lba):
    """The sector that an error names, if it is one of those that were asked for; else the first of them."""
    return lba if isinstance(lba, int) and first <= lba < first + sectors else first


cdef bint is_ext(uint8_t command) noexcept nogil:
    """Does the command take a 48-bit address?"""
    return command in (
        READ_SECTORS_EXT, READ_MULTIPLE_EXT, WRITE_SECTORS_EXT, WRITE_MULTIPLE_EXT, READ_VERIFY_SECTORS_EXT,
        READ_NATIVE_MAX_ADDRESS_EXT, SET_MAX_ADDRESS_EXT,
    )
