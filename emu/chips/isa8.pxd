from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from emu.chips.part cimport Part


cdef class Isa8(Part):
    cdef uint64_t bus_cycle  # processor cycles of a cycle on the ISA bus
    cdef uint8_t read8(self, uint16_t port) noexcept nogil
    cdef void write8(self, uint16_t port, uint8_t value) noexcept nogil
    cdef uint32_t port_read(self, uint16_t port, int size) noexcept nogil
    cdef void port_write(self, uint16_t port, uint32_t value, int size) noexcept nogil
