# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What every PCI function has: 256 bytes of configuration space.

PCI Local Bus Specification 2.1, "Configuration Space". A part says of each register what it is after reset, which bits
software sets and which it clears by writing 1; everything else is reserved, reads as 0 and keeps nothing.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from emu.chips.part cimport Fields, Part


cdef class PciFunction(Part):
    """Base of the PCI functions, which the host bridge reaches by configuration cycles."""

    cdef void define(
        self, int offset, int size, uint32_t value, uint32_t writable=0, uint32_t write_clear=0
    ) noexcept:
        cdef int at
        for at in range(size):
            self._default[offset + at] = <uint8_t>(value >> 8 * at)
            self._writable[offset + at] = <uint8_t>(writable >> 8 * at)
            self._write_clear[offset + at] = <uint8_t>(write_clear >> 8 * at)

    cdef void identify(self, uint16_t device, uint8_t revision, uint32_t class_code) noexcept:
        """The registers that say who this is; the vendor is Intel."""
        self.define(PCI_VID, 2, 0x8086)
        self.define(PCI_DID, 2, device)
        self.define(PCI_RID, 1, revision)
        self.define(PCI_CLASSC, 3, class_code)

    cpdef reset(self):
        memcpy(self.config, self._default, 256)
        self.apply()

    cdef uint32_t register16(self, int offset) noexcept nogil:
        return self.config[offset] | <uint32_t>self.config[offset + 1] << 8

    cdef uint32_t register32(self, int offset) noexcept nogil:
        return self.register16(offset) | self.register16(offset + 2) << 16

    cdef uint32_t config_read(self, int offset, int size) noexcept nogil:
        cdef uint32_t value = 0
        cdef int at
        for at in range(size):
            value |= <uint32_t>self.config[(offset + at) & 0xFF] << 8 * at
        return value

    cdef void config_write(self, int offset, uint32_t value, int size) noexcept nogil:
        cdef int at, place
        cdef uint8_t byte, old
        for at in range(size):
            place = (offset + at) & 0xFF
            byte = <uint8_t>(value >> 8 * at)
            old = self.config[place] & ~(byte & self._write_clear[place])
            self.config[place] = (old & ~self._writable[place]) | (byte & self._writable[place])
        self.apply()

    cdef void apply(self) noexcept nogil:
        pass

    cdef int config_fields(self, Fields f) except -1:
        f.block("config", self.config, 256)
        if f.loading:
            self.apply()
        return 0

    def read_config(self, int offset, int size=1):
        """What a configuration cycle reads: 1, 2 or 4 bytes at an offset below 256.

        Raises:
            ValueError: there is no such offset or size.
        """
        self.clock.check()
        check_access(offset, size)
        return self.config_read(offset, size)

    def write_config(self, int offset, uint32_t value, int size=1):
        """What a configuration cycle writes.

        Raises:
            ValueError: there is no such offset or size, or the value does not fit it.
        """
        self.clock.check()
        check_access(offset, size)
        if size < 4 and value >> 8 * size:
            raise ValueError(f"{value:#x} does not fit {size} bytes")
        self.config_write(offset, value, size)
        self.clock.raise_error()


cdef int check_access(int offset, int size) except -1:
    if size not in (1, 2, 4) or not 0 <= offset <= 256 - size:
        raise ValueError(f"configuration space has no {size} bytes at {offset:#x}")
    return 0
