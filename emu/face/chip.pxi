# Chips, the wires between them, and the device that a user writes in Python.

cdef class Chip:
    """A part on the board: answers at ports and addresses, has events, drives and hears wires.

    Args:
        clock: the machine's clock, on which the chip lives; without one it gets a clock of its own.
        name: unique on a board; the class's name unless given.
    """

    def __cinit__(self, *args, **kwargs):
        clock = args[0] if args else kwargs.get("clock")
        name = args[1] if len(args) > 1 else kwargs.get("name")
        self.place(<Clock>clock if isinstance(clock, Clock) else Clock())
        self.name = name if isinstance(name, str) else type(self).__name__

    cdef int place(self, Clock clock) except -1:
        """Lives on this clock from now on. The old one keeps the chip alive too while anything may refer to it."""
        clock._chips.append(self)
        if self.clock is not None:
            self.clock._chips.remove(self)
        self.clock = clock
        return 0

    cdef uint32_t port_read(self, uint16_t port, int size) noexcept nogil:
        return 0xFFFFFFFF

    cdef void port_write(self, uint16_t port, uint32_t value, int size) noexcept nogil:
        pass

    cdef uint64_t mem_read(self, uint64_t address, int size) noexcept nogil:
        return 0xFFFFFFFFFFFFFFFFull

    cdef void mem_write(self, uint64_t address, uint64_t value, int size) noexcept nogil:
        pass

    cdef void event(self, int id) noexcept nogil:
        pass

    cdef void input(self, int line, int level) noexcept nogil:
        pass

    cdef uint8_t acknowledge(self) noexcept nogil:
        return 0xFF

    cdef Irq *output(self, str name) except NULL:
        raise ConfigError(f"{self.name} has no output {name!r}")

    cpdef reset(self):
        """To the state after power-on; wires and events too."""

    def save(self):
        """The state as named plain values; events are saved by the clock."""
        return {}

    def load(self, state):
        """Takes what save() gave.

        Raises:
            BadInput: it is of another version.
        """

    def connect(self, str output not None, Chip target not None, int line=0):
        """Wires the pin `output` to input number `line` of another chip, which hears of its level at once.

        Raises:
            ConfigError: there is no such output, or the two are not on one clock.
        """
        self.clock.check()
        if target.clock is not self.clock:
            raise ConfigError(f"{self.name} and {target.name} are not on one clock")
        cdef Irq *irq = self.output(output)
        irq.chip = <void *>target
        irq.line = line
        if irq.level:
            target.input(line, irq.level)
        self.clock.raise_error()

    def drive(self, int line, bint level):
        """Sets an input of this chip, as a wire would."""
        self.clock.check()
        self.input(line, level)
        self.clock.raise_error()

    def level(self, str output not None):
        """The level that the pin `output` drives, 0 or 1.

        Raises:
            ConfigError: there is no such output.
        """
        self.clock.check()
        return self.output(output).level

    def inta(self):
        """Acknowledges an interrupt as the processor does, and returns the vector."""
        self.clock.check()
        vector = self.acknowledge()
        self.clock.raise_error()
        return vector


cdef enum:
    DEVICE_OUTPUTS = 8


cdef class Device(Chip):
    """A user's own chip, in Python. Override what it needs of:

        read(address, size) -> int        a port or an address that it was attached at was read; size in bytes
        write(address, value, size)       ... was written
        event(id)                         the cycle given to schedule() has come
        input(line, level)                a wire that ends here changed
        reset()                           power-on or reset
        save() -> dict, load(state)       its state; needed before the machine can be saved

    An exception in any of them ends the run after the current instruction, which then reads all-ones, and comes out of
    run(). The processor's registers cannot be set in them, since an instruction is under way.
    """
    cdef Irq _wires[DEVICE_OUTPUTS]

    #: Names of the wires that start here, at most eight.
    outputs = ("irq",)

    cdef uint32_t port_read(self, uint16_t port, int size) noexcept nogil:
        return <uint32_t>self.call_read(port, size)

    cdef void port_write(self, uint16_t port, uint32_t value, int size) noexcept nogil:
        self.call_write(port, value, size)

    cdef uint64_t mem_read(self, uint64_t address, int size) noexcept nogil:
        return self.call_read(address, size)

    cdef void mem_write(self, uint64_t address, uint64_t value, int size) noexcept nogil:
        self.call_write(address, value, size)

    cdef uint64_t call_read(self, uint64_t address, int size) noexcept nogil:
        cdef uint64_t ones = 0xFFFFFFFFFFFFFFFFull >> (64 - 8 * size)
        self.clock.keep_gil()
        with gil:
            self.clock._calling += 1
            try:
                return within(self.read(address, size), ones)
            except BaseException as error:
                self.clock.store_error(error)
                return ones
            finally:
                self.clock._calling -= 1

    cdef void call_write(self, uint64_t address, uint64_t value, int size) noexcept nogil:
        self.clock.keep_gil()
        with gil:
            self.clock._calling += 1
            try:
                self.write(address, value, size)
            except BaseException as error:
                self.clock.store_error(error)
            finally:
                self.clock._calling -= 1

    cdef void event(self, int id) noexcept nogil:
        self.clock.keep_gil()
        with gil:
            self.clock._calling += 1
            try:
                (<object>self).event(id)
            except BaseException as error:
                self.clock.store_error(error)
            finally:
                self.clock._calling -= 1

    cdef void input(self, int line, int level) noexcept nogil:
        self.clock.keep_gil()
        with gil:
            self.clock._calling += 1
            try:
                heard = getattr(self, "input", None)
                if heard is not None:
                    heard(line, level)
            except BaseException as error:
                self.clock.store_error(error)
            finally:
                self.clock._calling -= 1

    cdef Irq *output(self, str name) except NULL:
        names = self.outputs
        if name not in names or names.index(name) >= DEVICE_OUTPUTS:
            raise ConfigError(f"{self.name} has no output {name!r}: `outputs` names them, at most {DEVICE_OUTPUTS}")
        return &self._wires[names.index(name)]

    def read(self, address, size):
        """What is read there; all-ones unless overridden."""
        return (1 << 8 * size) - 1

    def write(self, address, value, size):
        """Something was written; ignored unless overridden."""

    def set_irq(self, int level, str output=None):
        """Drives a wire that starts here: the first of `outputs` unless named."""
        self.clock.check()
        set_irq(self.output(self.outputs[0] if output is None else output), level != 0)

    def raise_irq(self, str output=None):
        """Drives a wire high: the first of `outputs` unless named."""
        self.set_irq(1, output)

    def lower_irq(self, str output=None):
        """Drives a wire low: the first of `outputs` unless named."""
        self.set_irq(0, output)

    def save_levels(self):
        """The levels of the wires that start here, by name; `save` is the device's own."""
        self.clock.check()
        return {name: self.output(name).level for name in self.outputs}

    def load_levels(self, dict levels not None):
        """Takes what save_levels() gave. Nobody is told: whoever a wire ends at loads what it made of it.

        Raises:
            BadInput: it is of a device with other wires.
        """
        self.clock.check_idle()
        if set(levels) != set(self.outputs):
            raise BadInput(f"{self.name}: the state has the wires {sorted(levels)}, not {sorted(self.outputs)}")
        for name, level in levels.items():
            self.output(name).level = 1 if level else 0

    def schedule(self, id, cycle):
        """Has event(id) called at that cycle, or at once where it has passed; replaces an earlier one of this id.

        Args:
            id: any number within 0 to 2**31 - 1.
            cycle: of the clock.

        Raises:
            EmuError: there is no method event.
            ValueError: one of them is out of its range.
        """
        self.clock.check()
        if not hasattr(self, "event"):
            raise EmuError(f"{self.name} schedules an event but has no method event(id)")
        self.clock.schedule(self, argument(id, 0x7FFFFFFF, "id"), argument(cycle, ALL64 - 1, "cycle"))

    def cancel(self, id):
        """Takes back schedule(id)."""
        self.clock.check()
        self.clock.cancel(self, argument(id, 0x7FFFFFFF, "id"))
