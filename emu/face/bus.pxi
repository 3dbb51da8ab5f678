# The bus's face: who answers where.

cdef extern from "emu/core/bus.h" nogil:
    enum:
        PAGE_SIZE
        PAGE_CODE
        PAGE_DIRTY
        PAGE_HOOK
    ctypedef uint64_t (*BusRead)(void *self, uint64_t address, unsigned size) noexcept
    ctypedef void (*BusWrite)(void *self, uint64_t address, uint64_t value, unsigned size) noexcept
    ctypedef struct BusDevice:
        void *self
        BusRead read
        BusWrite write
    ctypedef struct Region:
        int id
        uint32_t flags
        uint64_t base
        uint64_t size
        uint8_t *host
        uint8_t *pages
        BusDevice device
    ctypedef struct BusMap "Bus":
        Region *regions
        uint32_t region_count
        uint8_t *port_owner
        BusDevice port_devices[256]
        uint32_t port_device_count
        CPU **cpus
        uint32_t cpu_count
    bint bus_init(CBus *bus)
    void bus_free(CBus *bus)
    void bus_set_a20(CBus *bus, bint enabled)
    int bus_map_memory(CBus *bus, uint64_t base, uint64_t size, uint8_t *host, uint8_t *pages, uint32_t flags)
    int bus_map_device(CBus *bus, uint64_t base, uint64_t size, BusDevice device)
    void bus_unmap(CBus *bus, int id)
    void bus_set_region_flags(CBus *bus, int id, uint32_t flags)
    bint bus_port_taken(CBus *bus, uint16_t port)
    bint bus_map_ports(CBus *bus, uint16_t first, uint32_t count, BusDevice device)
    void bus_unmap_ports(CBus *bus, uint16_t first, uint32_t count)
    int bus_add_window(CBus *bus, BusDevice device)
    void bus_move_window(CBus *bus, int window, uint16_t first, uint32_t count)
    uint64_t bus_read(CBus *bus, uint64_t address, unsigned size)
    void bus_write(CBus *bus, uint64_t address, uint64_t value, unsigned size)
    void bus_read_block(CBus *bus, uint64_t address, void *data, size_t size)
    void bus_write_block(CBus *bus, uint64_t address, const void *data, size_t size)
    uint32_t c_port_read "port_read"(CBus *bus, uint16_t port, unsigned size)
    void c_port_write "port_write"(CBus *bus, uint16_t port, uint32_t value, unsigned size)

READ = REGION_READ
WRITE = REGION_WRITE
ROM = REGION_ROM


cdef uint64_t chip_port_read(void *chip, uint64_t address, unsigned size) noexcept nogil:
    return (<Chip>chip).port_read(<uint16_t>address, <int>size)

cdef void chip_port_write(void *chip, uint64_t address, uint64_t value, unsigned size) noexcept nogil:
    (<Chip>chip).port_write(<uint16_t>address, <uint32_t>value, <int>size)

cdef uint64_t chip_mem_read(void *chip, uint64_t address, unsigned size) noexcept nogil:
    return (<Chip>chip).mem_read(address, <int>size)

cdef void chip_mem_write(void *chip, uint64_t address, uint64_t value, unsigned size) noexcept nogil:
    (<Chip>chip).mem_write(address, value, <int>size)


cdef class Bus:
    """Physical memory and I/O ports. Where regions overlap, the one mapped last answers.

    Args:
        clock: the machine's.
    """

    def __cinit__(self, Clock clock not None):
        self.clock = clock
        self._mapped = {}
        if not bus_init(&self.c):
            raise MemoryError("no room for a bus")

    def __dealloc__(self):
        bus_free(&self.c)

    cdef void dma_read(self, uint64_t address, void *data, size_t size) noexcept nogil:
        bus_read_block(&self.c, address, data, size)

    cdef void dma_write(self, uint64_t address, const void *data, size_t size) noexcept nogil:
        bus_write_block(&self.c, address, data, size)

    cdef void set_a20(self, int enabled) noexcept nogil:
        bus_set_a20(&self.c, enabled != 0)

    cdef void set_region(self, int id, uint32_t flags) noexcept nogil:
        bus_set_region_flags(&self.c, id, flags)

    cdef int add_window(self, Chip chip) except -1:
        self.check_chip(chip)
        cdef int window = bus_add_window(&self.c, BusDevice(<void *>chip, chip_port_read, chip_port_write))
        if window < 0:
            raise ConfigError(f"{chip.name}: no room for another range of ports")
        return window

    cdef void move_window(self, int window, uint16_t first, uint32_t count) noexcept nogil:
        bus_move_window(&self.c, window, first, count)

    cdef int check_chip(self, Chip chip) except -1:
        self.clock.check()
        if chip.clock is not self.clock:
            raise ConfigError(f"{chip.name} is not on this bus's clock")
        return 0

    def map_ports(self, first, count, Chip chip not None):
        """The chip answers at I/O ports [first, first + count).

        Raises:
            ConfigError: another chip answers at one of them, or the range leaves the port space.
        """
        self.check_chip(chip)
        cdef BusMap *bus = <BusMap *>&self.c
        cdef uint32_t port
        first, count = operator_index(first), operator_index(count)
        if first < 0 or count <= 0 or first + count > 0x10000:
            raise ConfigError(f"{chip.name}: {count} ports from {first:#x} leave the port space")
        for port in range(first, first + count):
            if bus_port_taken(&self.c, <uint16_t>port):
                other = <Chip>bus.port_devices[bus.port_owner[port]].self
                raise ConfigError(f"{chip.name}: port {port:#x} belongs to {other.name}")
        if not bus_map_ports(&self.c, first, count, BusDevice(<void *>chip, chip_port_read, chip_port_write)):
            raise ConfigError(f"{chip.name}: too many chips with ports")

    def unmap_ports(self, first, count):
        """Nobody answers at these ports any more."""
        self.clock.check()
        cdef uint16_t port = port_of(first)
        bus_unmap_ports(&self.c, port, <uint32_t>argument(count, 0x10000u - port, "count"))

    def map_device(self, base, size, Chip chip not None):
        """The chip answers at physical addresses [base, base + size). Returns the region's number.

        Raises:
            ConfigError: the range is empty, leaves the address space, or has a part of a page of memory.
        """
        self.check_chip(chip)
        check_range(chip.name, base, size)
        cdef uint64_t first = base, length = size
        if (first | length) & (PAGE_SIZE - 1):
            self.check_shares_no_page(
                chip.name, first & ~<uint64_t>(PAGE_SIZE - 1), first + (length - 1) | (PAGE_SIZE - 1))
        cdef int id = bus_map_device(&self.c, first, length, BusDevice(<void *>chip, chip_mem_read, chip_mem_write))
        return self.keep_region(id, chip)

    cdef int check_shares_no_page(self, str name, uint64_t first, uint64_t last) except -1:
        """A page of memory is accessed without asking who answers, so a device takes over whole pages of it or none."""
        cdef BusMap *bus = <BusMap *>&self.c
        cdef uint32_t i
        for i in range(bus.region_count):
            if bus.regions[i].host != NULL and bus.regions[i].flags and bus.regions[i].base <= last:
                if first - bus.regions[i].base < bus.regions[i].size or bus.regions[i].base >= first:
                    raise ConfigError(f"{name}: memory lies at {first:#x} to {last:#x}: it can take whole pages of it")
        return 0

    def map_memory(self, base, Memory memory not None, offset=0, size=None, flags=3):
        """Memory answers at physical addresses from `base`, with its bytes from `offset`. Returns the region's number.

        Args:
            flags: READ, WRITE, and ROM, which takes writes and drops them.

        Raises:
            ConfigError: it is not whole pages, or leaves the memory or the address space.
        """
        self.clock.check()
        whole = memory.size
        length = whole - offset if size is None else size
        if not (0 <= offset <= whole and 0 <= length <= whole - offset):
            raise ConfigError(f"{length:#x} bytes from {offset:#x} leave a memory of {whole:#x} bytes")
        check_range("memory", base, length)
        if (base | offset | length) & (PAGE_SIZE - 1):
            raise ConfigError(f"memory at {base:#x}, {length:#x} bytes: not whole pages of {PAGE_SIZE} bytes")
        if flags & ~(REGION_READ | REGION_WRITE | REGION_ROM):
            raise ConfigError(f"memory at {base:#x}: unknown flags {flags:#x}")
        cdef uint64_t skipped = offset
        cdef uint8_t *pages = memory.pages + skipped // PAGE_SIZE
        cdef int id = bus_map_memory(&self.c, base, length, memory.host + skipped, pages, flags)
        number = self.keep_region(id, memory)
        memory.answers_on(self)
        self._touched |= memory._touched
        return number

    cdef void before_run(self) noexcept:
        self._touched = 0
        for memory in self._mapped.values():
            if isinstance(memory, Memory):
                (<Memory>memory).before_run()
                self._touched |= (<Memory>memory)._touched

    cdef object keep_region(self, int id, object answers):
        if id < 0:
            raise MemoryError("no room for another region of memory")
        self._mapped[id] = answers
        return id

    def unmap(self, region):
        """Takes a region away.

        Raises:
            ValueError: there is none of this number.
        """
        self.clock.check()
        if region not in self._mapped:
            raise ValueError(f"no region {region}")
        bus_unmap(&self.c, region)
        del self._mapped[region]

    def route(self, region, flags):
        """What a region of memory answers to from now on: READ, WRITE, ROM.

        Raises:
            ValueError: there is none of this number, or it has no such flags.
        """
        self.clock.check()
        if region not in self._mapped or flags & ~(REGION_READ | REGION_WRITE | REGION_ROM):
            raise ValueError(f"region {region}, flags {flags:#x}")
        bus_set_region_flags(&self.c, region, flags)

    @property
    def a20(self):
        """Whether address line 20 passes; otherwise it is low. In VMX operation it passes whatever this is set to."""
        return self.c.a20_mask == 0xFFFFFFFFFFFFFFFFull

    @a20.setter
    def a20(self, bint enabled):
        self.clock.check()
        bus_set_a20(&self.c, enabled)

    def port_read(self, port, size=1):
        """Reads an I/O port, as the processor does; 1, 2 or 4 bytes."""
        self.clock.check()
        value = c_port_read(&self.c, port_of(port), access_size(size, 4))
        self.clock.raise_error()
        return value

    def port_write(self, port, value, size=1):
        """Writes an I/O port, as the processor does; 1, 2 or 4 bytes."""
        self.clock.check()
        cdef unsigned bytes = access_size(size, 4)
        c_port_write(&self.c, port_of(port), <uint32_t>value_of(value, bytes), bytes)
        self.clock.raise_error()

    def mem_read(self, address, size=4):
        """Reads 1, 2, 4 or 8 bytes at a physical address in one access."""
        self.clock.check()
        value = bus_read(&self.c, address_of(address), access_size(size, 8))
        self.clock.raise_error()
        return value

    def mem_write(self, address, value, size=4):
        """Writes 1, 2, 4 or 8 bytes at a physical address in one access."""
        self.clock.check()
        cdef unsigned bytes = access_size(size, 8)
        bus_write(&self.c, address_of(address), value_of(value, bytes), bytes)
        self.clock.raise_error()

    def read(self, address, count):
        """Reads `count` bytes of physical memory, as a DMA master does; devices are read by bytes."""
        self.clock.check()
        cdef uint64_t pa = address_of(address)
        data = block(count)
        bus_read_block(&self.c, pa, PyBytes_AS_STRING(data), len(data))
        self.clock.raise_error()
        return data

    def write(self, address, data):
        """Writes bytes to physical memory, as a DMA master does; devices are written by bytes."""
        self.clock.check()
        cdef uint64_t pa = address_of(address)
        cdef Py_buffer buffer
        PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
        try:
            bus_write_block(&self.c, pa, buffer.buf, buffer.len)
        finally:
            PyBuffer_Release(&buffer)
        self.clock.raise_error()


cdef int check_range(str what, object base, object size) except -1:
    if base < 0 or size <= 0 or base + size > 1 << 64:
        raise ConfigError(f"{what}: {size:#x} bytes from {base:#x} leave the address space")
    return 0


cdef unsigned access_size(object size, unsigned most) except 0:
    """Bytes of an access, which Python gave."""
    if size not in (1, 2, 4, 8) or size > most:
        raise ValueError(f"an access of {size} bytes")
    return size


cdef uint64_t value_of(object value, unsigned size) except? 0xFFFFFFFFFFFFFFFF:
    """What is to be written in an access of that many bytes."""
    return argument(value, ALL64 >> (64 - 8 * size), "value")


cdef uint16_t port_of(object port) except? 0xFFFF:
    """An I/O port from Python."""
    return <uint16_t>argument(port, 0xFFFF, "port")
