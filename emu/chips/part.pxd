from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from emu._core cimport Chip


cdef class Fields:
    cdef dict values
    cdef bint loading

    cdef int flag(self, str name, bint *field) except -1
    cdef int u8(self, str name, uint8_t *field) except -1
    cdef int u16(self, str name, uint16_t *field) except -1
    cdef int u32(self, str name, uint32_t *field) except -1
    cdef int u64(self, str name, uint64_t *field) except -1
    cdef int level(self, str name, int *field) except -1
    cdef int numbers(self, str name, uint64_t *field, size_t count) except -1
    cdef int block(self, str name, uint8_t *field, size_t size) except -1


cdef class Part(Chip):
    cdef int fields(self, Fields f) except -1
