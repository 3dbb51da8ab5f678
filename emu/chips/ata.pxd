from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from emu._core cimport Irq
from emu.chips.part cimport Part


cdef enum:
    ATA_DATA = 0
    ATA_FEATURES = 1     # read: error
    ATA_COUNT = 2
    ATA_LBA_LOW = 3
    ATA_LBA_MID = 4
    ATA_LBA_HIGH = 5
    ATA_DEVICE = 6
    ATA_COMMAND = 7      # read: status
    ATA_CONTROL = 8      # read: alternate status
    ATA_BLOCK = 16       # sectors in a DRQ block at most


cdef class Ata(Part):
    cdef Irq intrq
    cdef object disk
    cdef uint64_t native         # sectors of the disk
    cdef bint read_only
    cdef readonly int number     # 0 or 1: its jumper
    cdef bint paired             # there is a drive 1 on the cable
    cdef bint selected

    # The task file, by register. 48-bit addresses take two writes: the last one and the one before.
    cdef uint8_t written[ATA_DEVICE]
    cdef uint8_t before[ATA_DEVICE]
    cdef uint8_t device, status, error, control, command, last_command
    cdef uint8_t planned         # the error that the command will end with
    cdef bint interrupt          # pending, whether INTRQ shows it or not
    cdef uint8_t phase

    # The command under way.
    cdef uint64_t lba            # of the next sector
    cdef uint32_t remaining      # sectors from there on
    cdef uint8_t buffer[ATA_BLOCK * 512]
    cdef uint32_t position, length   # bytes of the DRQ block that have gone, and of all of it

    # What commands have set.
    cdef uint16_t cylinders      # the translation that CHS addresses go by
    cdef uint8_t heads, sectors
    cdef uint8_t multiple        # sectors in a block of READ MULTIPLE; 0: not set
    cdef bint write_cache, look_ahead, eight_bit
    cdef bint revert             # a software reset goes back to the defaults
    cdef uint64_t limit          # sectors that can be accessed: the others are the Host Protected Area
    cdef uint64_t lasting_limit  # ... after the next hardware reset
    cdef bint limit_set          # SET MAX has made it lasting once since the hardware reset
    cdef uint8_t limit_by, lasting_limit_by  # which of the two commands established each; NOP: there is no area
    cdef uint8_t max_state       # of the SET MAX security
    cdef uint8_t max_tries
    cdef uint8_t password[32]
    cdef uint8_t power
    cdef uint8_t standby_count
    cdef uint64_t idle_since     # the cycle at which the last command ended

    # The mechanics.
    cdef uint64_t stream_lba, stream_cycle  # the sector that the heads come to next, and when it will be in the buffer
    cdef bint dirty              # the write cache holds sectors, the last of them at dirty_lba
    cdef uint64_t dirty_lba

    cdef void select(self, bint selected) noexcept nogil
    cdef uint8_t read_register(self, int register) noexcept nogil
    cdef void write_register(self, int register, uint8_t value) noexcept nogil
    cdef uint16_t read_data(self) noexcept nogil
    cdef void write_data(self, uint16_t value) noexcept nogil
    cdef uint8_t read_data8(self) noexcept nogil
    cdef void write_data8(self, uint8_t value) noexcept nogil

    cdef void update_intrq(self) noexcept nogil
    cdef void signature(self) noexcept nogil
    cdef void defaults(self) noexcept nogil
    cdef void translate_by_default(self) noexcept nogil
    cdef uint64_t now_plus(self, uint64_t ns) noexcept nogil
    cdef uint64_t media_time(self, uint64_t lba, uint32_t sectors) noexcept nogil
    cdef bint is_standby(self) noexcept nogil
    cdef bint locate(self) noexcept nogil
    cdef void report(self, uint64_t lba, uint32_t remaining) noexcept nogil
    cdef void begin(self, int phase, uint64_t cycle) noexcept nogil
    cdef void begin_failure(self, uint8_t error) noexcept nogil
    cdef void begin_media(self, int phase) noexcept nogil
    cdef uint32_t block(self) noexcept nogil
    cdef void start(self, uint8_t command) noexcept nogil
    cdef void done(self) noexcept nogil
    cdef void fail(self, uint8_t error, uint8_t status=*) noexcept nogil
    cdef void fail_at(self, uint64_t lba, int fault) noexcept nogil
    cdef void offer(self, uint32_t length, bint interrupt) noexcept nogil
    cdef bint fetch(self) noexcept nogil
    cdef void read_block(self) noexcept nogil
    cdef void verify(self) noexcept nogil
    cdef void write_block(self) noexcept nogil
    cdef void moved(self) noexcept nogil
    cdef bint is_output(self) noexcept nogil
    cdef int disk_read(self, uint64_t *lba, uint32_t sectors) noexcept nogil
    cdef int disk_write(self, uint64_t *lba, uint32_t sectors) noexcept nogil
    cdef int disk_flush(self) noexcept nogil
    cdef int ask_disk_read(self, uint64_t *lba, uint32_t sectors) noexcept with gil
    cdef int ask_disk_write(self, uint64_t *lba, uint32_t sectors) noexcept with gil
    cdef int ask_disk_flush(self) noexcept with gil
    cdef void execute(self) noexcept nogil
    cdef void initialize_device_parameters(self) noexcept nogil
    cdef void set_features(self) noexcept nogil
    cdef void execute_power(self, uint8_t command) noexcept nogil
    cdef void report_native_max(self) noexcept nogil
    cdef void set_max(self) noexcept nogil
    cdef void set_max_password(self) noexcept nogil
    cdef void set_max_address(self) noexcept nogil
    cdef void word(self, int number, uint32_t value) noexcept nogil
    cdef void words(self, int number, int count, uint64_t value) noexcept nogil
    cdef void text(self, int number, int count, const char *text) noexcept nogil
    cdef uint32_t reset_result(self) noexcept nogil
    cdef void identify(self) noexcept nogil
