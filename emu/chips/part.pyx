# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What the built-in chips share: their state as named fields, in one list that serves saving and loading."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from emu._core cimport Chip

from emu.errors import BadInput


cdef class Fields:
    """The fields of a chip on their way to or from a dictionary; a chip names each one once, in `Part.fields`.

    A value that does not fit its field raises OverflowError or TypeError, which `Part.load` turns into BadInput.
    """

    cdef int flag(self, str name, bint *field) except -1:
        if self.loading:
            field[0] = bool(self.values[name])
        else:
            self.values[name] = bool(field[0])
        return 0

    cdef int u8(self, str name, uint8_t *field) except -1:
        if self.loading:
            field[0] = self.values[name]
        else:
            self.values[name] = field[0]
        return 0

    cdef int u16(self, str name, uint16_t *field) except -1:
        if self.loading:
            field[0] = self.values[name]
        else:
            self.values[name] = field[0]
        return 0

    cdef int u32(self, str name, uint32_t *field) except -1:
        if self.loading:
            field[0] = self.values[name]
        else:
            self.values[name] = field[0]
        return 0

    cdef int u64(self, str name, uint64_t *field) except -1:
        if self.loading:
            field[0] = self.values[name]
        else:
            self.values[name] = field[0]
        return 0

    cdef int level(self, str name, int *field) except -1:
        """The level of a wire that starts at the chip; whoever it ends at loads what it made of it."""
        if self.loading:
            field[0] = 1 if self.values[name] else 0
        else:
            self.values[name] = field[0]
        return 0

    cdef int numbers(self, str name, uint64_t *field, size_t count) except -1:
        cdef size_t at
        if self.loading:
            if <size_t>len(self.values[name]) != count:
                raise BadInput(f"{name} has {len(self.values[name])} numbers, {count} are needed")
            for at in range(count):
                field[at] = self.values[name][at]
        else:
            self.values[name] = [field[at] for at in range(count)]
        return 0

    cdef int block(self, str name, uint8_t *field, size_t size) except -1:
        cdef bytes data
        if self.loading:
            data = self.values[name]
            if <size_t>len(data) != size:
                raise BadInput(f"{name} has {len(data)} bytes, {size} are needed")
            memcpy(field, <const char *>data, size)
        else:
            self.values[name] = (<const char *>field)[:size]
        return 0


cdef class Part(Chip):
    """Base of the built-in chips. A subclass names its fields in `fields`; VERSION grows when their meaning changes."""

    VERSION = 1

    cdef int fields(self, Fields f) except -1:
        """Passes each field that outlives an access to the method of `f` that fits its type."""
        return 0

    def save(self):
        """The chip's state: a dictionary of plain values by name, and `version`."""
        cdef Fields f = Fields()
        self.clock.check()
        f.values = {"version": self.VERSION}
        self.fields(f)
        return f.values

    def load(self, dict state not None):
        """Takes over what `save` gave.

        Raises:
            BadInput: the state is of another version or malformed; the chip is then as after `reset`.
        """
        cdef Fields f = Fields()
        self.clock.check()
        if state.get("version") != self.VERSION:
            raise BadInput(f"{self.name}: state of version {state.get('version')}, expected {self.VERSION}")
        f.values = state
        f.loading = True
        try:
            self.fields(f)
        except (KeyError, OverflowError, TypeError, BadInput) as error:
            self.reset()
            raise BadInput(f"{self.name}: malformed state: {error}") from error
