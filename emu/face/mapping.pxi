# Zeros from the host, of which it gives memory for the pages that are touched: guest memory and processors are made of
# them. What was given back last is emptied and kept for the next of that size, since emptying a mapping takes the host
# less than making one. Whoever comes here has the GIL.

cdef struct Spare:
    uint8_t *at
    uint64_t size

cdef Spare spare_memory
cdef Spare spare_processor


cdef uint8_t *mapping_create(Spare *spare, uint64_t size, int flags) noexcept:
    """So many zeros; NULL where the host has no room. flags: MAP_NORESERVE or none."""
    cdef void *at
    if spare.size == size:
        at = spare.at
        spare.at, spare.size = NULL, 0
        return <uint8_t *>at
    at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0)
    return NULL if at == MAP_FAILED else <uint8_t *>at


cdef void mapping_destroy(Spare *spare, uint8_t *at, uint64_t size, uint64_t hot) noexcept:
    """Gives it back. hot: bytes at its beginning, whole pages, that the next one writes at once: they stay."""
    memset(at, 0, hot)
    if madvise(at + hot, size - hot, MADV_DONTNEED) != 0:  # the process has locked its memory
        munmap(at, size)
        return
    if spare.at != NULL:
        munmap(spare.at, spare.size)
    spare.at, spare.size = at, size
