"""A bounded queue of bytes between a chip and its backend. When it is full, what comes is dropped and counted."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport malloc


cdef struct Ring:
    uint8_t *data
    size_t capacity  # a power of two
    uint64_t head    # bytes ever put in
    uint64_t tail    # bytes ever taken out
    uint64_t lost


cdef inline int ring_init(Ring *ring, size_t capacity) except -1:
    ring.data = <uint8_t *>malloc(capacity)
    if ring.data == NULL:
        raise MemoryError()
    ring.capacity = capacity
    return 0


cdef inline size_t ring_used(const Ring *ring) noexcept nogil:
    return ring.head - ring.tail


cdef inline void ring_put(Ring *ring, uint8_t value) noexcept nogil:
    if ring.head - ring.tail == ring.capacity:
        ring.lost += 1
        return
    ring.data[ring.head & (ring.capacity - 1)] = value
    ring.head += 1


# The oldest byte; there must be one.
cdef inline uint8_t ring_get(Ring *ring) noexcept nogil:
    cdef uint8_t value = ring.data[ring.tail & (ring.capacity - 1)]
    ring.tail += 1
    return value


# A copy of what it holds.
cdef inline bytes ring_bytes(const Ring *ring):
    cdef size_t used = ring_used(ring), at
    data = PyBytes_FromStringAndSize(NULL, used)
    cdef char *to = PyBytes_AS_STRING(data)
    for at in range(used):
        to[at] = ring.data[(ring.tail + at) & (ring.capacity - 1)]
    return data


cdef inline bytes ring_take(Ring *ring):
    data = ring_bytes(ring)
    ring.tail = ring.head
    return data
