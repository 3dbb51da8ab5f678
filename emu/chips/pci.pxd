from libc.stdint cimport uint8_t, uint16_t, uint32_t

from emu.chips.part cimport Fields, Part


cdef enum:
    PCI_VID = 0x00
    PCI_DID = 0x02
    PCI_CMD = 0x04
    PCI_STS = 0x06
    PCI_RID = 0x08
    PCI_CLASSC = 0x09
    PCI_MLT = 0x0D
    PCI_HEADT = 0x0E
    PCI_INTLN = 0x3C
    PCI_INTPN = 0x3D
    PCI_CMD_IOSE = 1 << 0   # answers in I/O space
    PCI_MULTIFUNCTION = 0x80


cdef class PciFunction(Part):
    cdef uint8_t config[256]
    cdef uint8_t _default[256]
    cdef uint8_t _writable[256]
    cdef uint8_t _write_clear[256]

    # One register: bytes [offset, offset + size), its value after reset, the bits that software sets, and those that it
    # clears by writing 1.
    cdef void define(self, int offset, int size, uint32_t value, uint32_t writable=*, uint32_t write_clear=*) noexcept
    cdef void identify(self, uint16_t device, uint8_t revision, uint32_t class_code) noexcept
    # The register at `offset`, which is a multiple of its size.
    cdef uint32_t register16(self, int offset) noexcept nogil
    cdef uint32_t register32(self, int offset) noexcept nogil
    cdef uint32_t config_read(self, int offset, int size) noexcept nogil
    cdef void config_write(self, int offset, uint32_t value, int size) noexcept nogil
    # Makes what the registers say take effect: called after a write, a reset and a load.
    cdef void apply(self) noexcept nogil
    cdef int config_fields(self, Fields f) except -1
