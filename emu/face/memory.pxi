# Guest RAM and ROM: one private anonymous mapping, of which the host spends only what is touched.

cdef extern from "emu/core/block.h" nogil:
    void blocks_written(CPU *cpu, uint64_t pa, size_t size)


cdef uint64_t memory_size(object size) except 0:
    """Bytes of a memory, which Python gave.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is not whole pages, or not within 4 KiB to 1 TiB.
    """
    try:
        number = operator_index(size)
    except TypeError:
        raise TypeError(f"a memory of {size!r} bytes: not a whole number, such as 1 << 20") from None
    if not PAGE_SIZE <= number <= 1 << 40 or number % PAGE_SIZE:
        raise ValueError(f"a memory of {number} bytes: not whole pages of {PAGE_SIZE}, or not within 4 KiB to 1 TiB")
    return number


cdef class Memory:
    """Guest memory: RAM, or the contents of a ROM. An object of the buffer protocol, read-only.

    Args:
        size: bytes, whole pages of 4096.

    Raises:
        TypeError: the size is no whole number.
        ValueError: it is not whole pages, or not within 4 KiB to 1 TiB.
        MemoryError: the host has no room for it.
    """
    cdef uint8_t *host
    cdef uint8_t *pages
    cdef readonly uint64_t size
    cdef list _buses        # where it is mapped, as weak references: decoded code there must go when the host writes
    cdef dict _saved        # the last snapshot's pages, by number; those of zeros are left out
    cdef int _views         # writable views that are alive
    cdef bint _touched      # one may have been written through since the last run
    cdef Py_ssize_t _shape[1]
    cdef Py_ssize_t _strides[1]

    def __cinit__(self, size):
        self._buses = []
        self._saved = {}
        cdef uint64_t bytes = memory_size(size)
        self.pages = <uint8_t *>calloc(bytes // PAGE_SIZE, 1)
        if self.pages != NULL:
            self.host = mapping_create(&spare_memory, bytes, MAP_NORESERVE)
        if self.host == NULL:
            raise MemoryError(f"no room for a memory of {bytes} bytes")
        self.size = bytes

    def __dealloc__(self):
        if self.host != NULL:
            mapping_destroy(&spare_memory, self.host, self.size, 0)
        free(self.pages)

    def __len__(self):
        return self.size

    cdef list buses(self):
        """The buses that it is mapped on, those that are alive."""
        return [bus for reference in self._buses if (bus := reference()) is not None]

    cdef int answers_on(self, Bus bus) except -1:
        if bus not in self.buses():
            self._buses.append(weakref(bus))
        return 0

    cdef int check(self) except -1:
        for bus in self.buses():
            (<Bus>bus).clock.check()
        return 0

    cdef int check_inside(self, uint64_t address, uint64_t count) except -1:
        if address > self.size or count > self.size - address:
            raise ValueError(f"{count:#x} bytes at {address:#x} leave a memory of {self.size:#x} bytes")
        return 0

    def read(self, address, count):
        """`count` bytes from `address`.

        Raises:
            ValueError: they leave the memory, or are no bytes at all.
        """
        self.check()
        cdef uint64_t pa = address_of(address), size = argument(count, ALL64, "count")
        self.check_inside(pa, size)
        return PyBytes_FromStringAndSize(<char *>self.host + pa, size)

    def write(self, address, data):
        """Writes bytes from `address`; code there is decoded anew.

        Raises:
            ValueError: they leave the memory.
        """
        self.check()
        self.put(address_of(address), data)

    cdef int put(self, uint64_t address, data) except -1:
        cdef Py_buffer buffer
        PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
        try:
            self.check_inside(address, buffer.len)
            if buffer.len:
                memmove(self.host + address, buffer.buf, buffer.len)
                self.written(address, buffer.len)
        finally:
            PyBuffer_Release(&buffer)
        return 0

    cdef void written(self, uint64_t address, uint64_t count) noexcept:
        """Marks pages dirty and retires the code in them."""
        cdef uint64_t page
        cdef uint8_t code = 0
        for page in range(address // PAGE_SIZE, (address + count - 1) // PAGE_SIZE + 1):
            code |= self.pages[page]
            self.pages[page] |= PAGE_DIRTY
        if code & PAGE_CODE:
            self.retire(address, count)

    cdef void retire(self, uint64_t address, uint64_t count) noexcept:
        """Retires decoded code of these bytes, wherever they are mapped."""
        cdef BusMap *bus
        cdef Region *region
        cdef uint64_t first, last, chunk
        cdef uint32_t i, j
        for mapped in self.buses():
            bus = <BusMap *>&(<Bus>mapped).c
            for i in range(bus.region_count):
                region = &bus.regions[i]
                if region.host < self.host or region.host >= self.host + self.size:
                    continue
                first = max(address, <uint64_t>(region.host - self.host))
                last = min(address + count, <uint64_t>(region.host - self.host) + region.size)
                while first < last:
                    chunk = min(last - first, PAGE_SIZE - first % PAGE_SIZE)
                    if self.pages[first // PAGE_SIZE] & PAGE_CODE:
                        for j in range(bus.cpu_count):
                            blocks_written(bus.cpus[j], region.base + first - (region.host - self.host), chunk)
                    first += chunk

    cdef void before_run(self) noexcept:
        """What a writable view may have changed counts as written."""
        if self._touched:
            self._touched = self._views > 0
            self.written(0, self.size)

    def save(self):
        """The pages that are not all zeros, by number (address / 4096): a snapshot, not to be changed.

        Pages that were not written since the last snapshot are shared with it, so it costs the dirty ones.
        """
        cdef uint64_t page, pages = self.size // PAGE_SIZE
        cdef uint8_t *host
        self.check_idle()
        self.before_run()
        saved = dict(self._saved)
        for page in range(pages):
            if self.pages[page] & PAGE_DIRTY:
                self.pages[page] &= ~<uint8_t>PAGE_DIRTY
                host = self.host + page * PAGE_SIZE
                if host[0] == 0 and memcmp(host, host + 1, PAGE_SIZE - 1) == 0:
                    saved.pop(page, None)
                else:
                    saved[page] = PyBytes_FromStringAndSize(<char *>host, PAGE_SIZE)
        self._saved = saved
        self.forget_translations()
        return saved

    def load(self, dict pages not None):
        """Makes the memory what it was when save() gave `pages`; costs what differs.

        Raises:
            BadInput: that was another memory; nothing has changed then.
        """
        cdef uint64_t page, count = self.size // PAGE_SIZE
        cdef dict saved = self._saved
        self.check_idle()
        for number, data in pages.items():
            whole = isinstance(data, bytes) and len(data) == PAGE_SIZE
            if not (whole and isinstance(number, int) and 0 <= number < count):
                raise BadInput(f"page {number!r} is none of a memory of {self.size:#x} bytes")
        self.before_run()
        changed = {number for number in saved.keys() | pages.keys() if saved.get(number) is not pages.get(number)}
        for page in range(count):
            if self.pages[page] & PAGE_DIRTY:
                changed.add(page)
        for number in changed:
            page = number
            data = pages.get(number)
            if data is None:
                memset(self.host + page * PAGE_SIZE, 0, PAGE_SIZE)
            else:
                memmove(self.host + page * PAGE_SIZE, PyBytes_AS_STRING(data), PAGE_SIZE)
            self.written(page * PAGE_SIZE, PAGE_SIZE)
            self.pages[page] &= ~<uint8_t>PAGE_DIRTY
        self._saved = dict(pages)
        self.forget_translations()

    cdef int check_idle(self) except -1:
        for bus in self.buses():
            (<Bus>bus).clock.check_idle()
        return 0

    cdef void forget_translations(self) noexcept:
        """A page that is clean again must be seen at its next store: no translation for stores may be kept."""
        cdef BusMap *bus
        cdef uint32_t i
        for mapped in self.buses():
            bus = <BusMap *>&(<Bus>mapped).c
            for i in range(bus.cpu_count):
                tlb_flush_all(<CpuState *>bus.cpus[i])

    @property
    def array(self):
        """The whole memory as a read-only numpy array of bytes, without a copy."""
        import numpy
        return numpy.frombuffer(self, dtype=numpy.uint8)

    def view(self, bint writable=False):
        """The whole memory as a numpy array of bytes, without a copy.

        While a writable view is alive every run begins by forgetting what was decoded, since anything may have changed.
        """
        import numpy
        return numpy.frombuffer(WritableView(self) if writable else self, dtype=numpy.uint8)

    cdef void fill_buffer(self, object owner, Py_buffer *buffer, int flags, bint readonly):
        self._shape[0] = self.size
        self._strides[0] = 1
        buffer.buf = self.host
        buffer.obj = owner
        buffer.len = self.size
        buffer.itemsize = 1
        buffer.readonly = readonly
        buffer.ndim = 1
        buffer.format = NULL
        if flags & PyBUF_FORMAT:
            buffer.format = "B"
        buffer.shape = self._shape if flags & PyBUF_ND else NULL
        buffer.strides = self._strides if flags & PyBUF_STRIDES == PyBUF_STRIDES else NULL
        buffer.suboffsets = NULL
        buffer.internal = NULL

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("guest memory is read-only here: use view(writable=True) or write()")
        self.fill_buffer(self, buffer, flags, True)


cdef class WritableView:
    """Exports a Memory's bytes for writing, and counts who may write."""
    cdef Memory memory

    def __cinit__(self, Memory memory not None):
        self.memory = memory

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        self.memory.check()
        self.memory._views += 1
        self.memory._touched = True
        for bus in self.memory.buses():
            (<Bus>bus)._touched = 1
        self.memory.fill_buffer(self, buffer, flags, False)

    def __releasebuffer__(self, Py_buffer *buffer):
        self.memory._views -= 1
