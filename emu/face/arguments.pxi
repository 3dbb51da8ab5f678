# Numbers that Python gives: what does not fit raises ValueError with one line that says what and where.

cdef extern from "Python.h":
    unsigned long long PyLong_AsUnsignedLongLong(object) noexcept  # all ones and OverflowError where it does not fit
    PyObject *PyErr_Occurred()
    void PyErr_Clear()

cdef uint64_t ALL64 = 0xFFFFFFFFFFFFFFFFull
cdef uint64_t MOST_BLOCK = 1ull << 32  # bytes of a block: all that 32 bits address


cdef uint64_t within(object value, uint64_t most) except? 0xFFFFFFFFFFFFFFFF:
    """The number, if it is within 0 to `most`."""
    if not isinstance(value, int):
        value = operator_index(value)
    cdef uint64_t number = PyLong_AsUnsignedLongLong(value)
    cdef bint fits = number <= most
    if number == ALL64 and PyErr_Occurred() != NULL:  # `try` would cost every call as much as all of this
        PyErr_Clear()
        fits = False
    if not fits:
        raise ValueError(f"{value} is not within 0 to {most:#x}")
    return number


cdef uint64_t argument(object value, uint64_t most, str name) except? 0xFFFFFFFFFFFFFFFF:
    """The same, and the message begins with the argument's name."""
    try:
        return within(value, most)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    except TypeError:
        raise TypeError(f"{name}: {value!r} is no whole number") from None


cdef uint64_t address_of(object value) except? 0xFFFFFFFFFFFFFFFF:
    """An address from Python."""
    return argument(value, ALL64, "address")


cdef object seconds_of(object value, int bits, str name):
    """Seconds from Python: a number from 0 up to 2**bits."""
    try:
        inside = 0 <= value < 2.0**bits  # a shift would be one of C's int
    except TypeError:
        raise TypeError(f"{name}: {value!r} is no number of seconds") from None
    if not inside:
        raise ValueError(f"{name}: {value!r} is not within 0 to 2**{bits}")
    return value


cdef object block(object count):
    """A block of bytes of that size, to be filled.

    Raises:
        ValueError: it is larger than 4 GiB.
        MemoryError: the host has no room for it.
    """
    cdef uint64_t size = argument(count, MOST_BLOCK, "count")
    try:
        return PyBytes_FromStringAndSize(NULL, size)
    except MemoryError:
        raise MemoryError(f"no room for a block of {size} bytes") from None
