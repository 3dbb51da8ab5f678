# VMX as Python sees it: the current VMCS, exits counted by reason, VM entries and exits, the check that failed.

cdef extern from "emu/core/vmx.h" nogil:
    enum:
        VMCS_FIELDS
        TRANSITIONS
        TRANSITION_EXIT
    uint64_t VMCS_NONE
    ctypedef struct VmxFailureRecord "VmxFailure":
        const char *check
        const char *expected
        const char *section
        int field
        uint64_t value
    ctypedef struct VmTransition:
        uint64_t cycle
        uint64_t vmcs
        uint64_t rip
        uint64_t qualification
        uint32_t reason
        uint32_t kind
    ctypedef struct CExitCount "ExitCount":
        uint64_t count
        uint64_t cycles
    ctypedef struct Vmx:
        uint8_t on
        uint8_t controls_passed
        uint8_t host_passed
        uint8_t timer_running
        uint8_t inject
        uint8_t trap_flag_due
        uint8_t tpr_due
        uint8_t injected_length
        uint32_t launched
        uint64_t vmxon_pointer
        uint64_t current
        uint64_t timer_deadline
        uint64_t exit_cycle
        uint32_t exit_reason
        uint64_t feature_control
        uint64_t field[VMCS_FIELDS]
        CExitCount exits[EXIT_REASONS]
        uint64_t transitions
        VmxFailureRecord failure

cdef extern from "emu/core/vmx_operation.h" nogil:
    const char *vmcs_field_names[VMCS_FIELDS]
    uint16_t vmcs_field_encodings[VMCS_FIELDS]
    const char *vmx_exit_names[EXIT_REASONS]
    uint64_t vmcs_field_mask(int field)

cdef dict vmcs_fields = {}   # name to place
cdef dict exit_reasons = {}  # name to number


cdef int name_vmx() except -1:
    for place in range(VMCS_FIELDS):
        vmcs_fields[vmcs_field_names[<int>place].decode()] = place
    for number in range(EXIT_REASONS):
        if vmx_exit_names[<int>number] != NULL:
            exit_reasons[vmx_exit_names[<int>number].decode()] = number
    return 0

name_vmx()

# Exit reasons by number.
EXIT_REASON_NAMES = {number: name for name, number in exit_reasons.items()}


cdef class ExitCount:
    """VM exits of one reason: how many, and the cycles from each exit to the end of the VM entry that followed it."""
    cdef readonly uint64_t count
    cdef readonly uint64_t cycles

    def __init__(self, uint64_t count, uint64_t cycles):
        self.count, self.cycles = count, cycles

    def __eq__(self, other):
        if not isinstance(other, ExitCount):
            return NotImplemented
        return (self.count, self.cycles) == (other.count, other.cycles)

    def __hash__(self):
        return hash((self.count, self.cycles))

    def __repr__(self):
        return f"ExitCount(count={self.count}, cycles={self.cycles})"

    def __reduce__(self):
        return ExitCount, (self.count, self.cycles)


class Transition(NamedTuple):
    """A VM entry ("entry") or a VM exit ("exit"). rip is the guest's, vmcs the address of the VMCS region; reason is an
    exit's name, None for an entry; failed: the entry failed in the guest state, which ends like an exit."""

    cycle: int
    kind: str
    reason: str | None
    qualification: int
    rip: int
    vmcs: int
    failed: bool


class VmxFailure(NamedTuple):
    """A failed check of VM entry: its name, the field with its value, what would pass, the section of SDM Vol. 3."""

    check: str
    field: str
    value: int
    expected: str
    section: str

    def __str__(self) -> str:
        return f"{self.check}: {self.field} is {self.value:#x}; {self.expected} would pass (SDM Vol. 3, {self.section})"


class Vmcs(Mapping):
    """The current VMCS, a mapping from the names of SDM Appendix B in upper case to values, which can be set.

    KeyError for a name that does not exist; EmuError where no VMCS is current.
    """

    __slots__ = ("_processor",)

    def __init__(self, Processor processor not None):
        self._processor = processor

    @property
    def address(self):
        """The physical address of its region, or None where no VMCS is current."""
        cdef Processor processor = self._processor
        processor.clock.check()
        return None if processor.c.vmx.current == VMCS_NONE else processor.c.vmx.current

    def __getitem__(self, name):
        cdef Processor processor = self._processor
        cdef int place = vmcs_fields[name]
        if self.address is None:
            raise EmuError("no VMCS is current")
        return processor.c.vmx.field[place]

    def __setitem__(self, name, value):
        """Writes a field as the VMM would, read-only ones too."""
        cdef Processor processor = self._processor
        cdef int place = vmcs_fields[name]
        processor.check_writable()
        if self.address is None:
            raise EmuError("no VMCS is current")
        processor.c.vmx.field[place] = argument(value, vmcs_field_mask(place), name)
        processor.c.vmx.controls_passed = processor.c.vmx.host_passed = 0

    def __contains__(self, name):
        return name in vmcs_fields

    def __iter__(self):
        return iter(vmcs_fields)

    def __len__(self):
        return VMCS_FIELDS

    def __repr__(self):
        address = self.address
        return "<no current VMCS>" if address is None else f"<current VMCS at {address:#x}>"


class Exits(Mapping):
    """VM exits counted by reason: a mapping from the names of SDM Appendix C to ExitCount, zero where none was seen.

    KeyError for what is no such name.
    """

    __slots__ = ("_processor",)

    def __init__(self, Processor processor not None):
        self._processor = processor

    def __getitem__(self, name):
        cdef Processor processor = self._processor
        cdef int number = exit_reasons[name]
        processor.clock.check()
        return ExitCount(processor.c.vmx.exits[number].count, processor.c.vmx.exits[number].cycles)

    def __contains__(self, name):
        return name in exit_reasons

    def __iter__(self):
        return iter(exit_reasons)

    def __len__(self):
        return len(exit_reasons)

    def __repr__(self):
        return f"<VM exits { {name: seen.count for name, seen in self.items() if seen.count} }>"


cdef object vmx_failure_of(CpuState *cpu):
    cdef VmxFailureRecord *failure = &cpu.vmx.failure
    if failure.check == NULL:
        return None
    return VmxFailure(
        failure.check.decode(), vmcs_field_names[failure.field].decode(), failure.value, failure.expected.decode(),
        failure.section.decode(),
    )


# Without `all`: the entries of another VMCS than the entry before (that of the first is `vmcs`), the exits just before
# these, and the last transition.
cdef list vmx_transitions(CpuState *cpu, uint64_t since, bint all, uint64_t vmcs):
    cdef uint64_t total = cpu.vmx.transitions
    cdef VmTransition *one
    cdef VmTransition *after
    cdef bint is_exit
    cdef list found = []
    if since + TRANSITIONS < total:
        since = total - TRANSITIONS
    while since < total:
        one = &cpu.transitions[since % TRANSITIONS]
        since += 1
        is_exit = one.kind == TRANSITION_EXIT
        if not all and since < total:
            after = &cpu.transitions[since % TRANSITIONS] if is_exit else one
            if after.kind == TRANSITION_EXIT or after.vmcs == vmcs:
                continue
        if not is_exit:
            vmcs = one.vmcs
        found.append(Transition(
            one.cycle, "exit" if is_exit else "entry", EXIT_REASON_NAMES[one.reason & 0xFFFF] if is_exit else None,
            one.qualification, one.rip, one.vmcs, bool(one.reason >> 31),
        ))
    return found


cdef dict vmx_save(CpuState *cpu):
    cdef Vmx *vmx = &cpu.vmx
    return {
        "on": vmx.on, "launched": vmx.launched, "vmxon_pointer": vmx.vmxon_pointer, "current": vmx.current,
        "timer_running": vmx.timer_running, "timer_deadline": vmx.timer_deadline, "inject": vmx.inject,
        "trap_flag_due": vmx.trap_flag_due, "tpr_due": vmx.tpr_due, "injected_length": vmx.injected_length,
        "exit_cycle": vmx.exit_cycle, "exit_reason": vmx.exit_reason, "feature_control": vmx.feature_control,
        "fields": {name: vmx.field[<int>place] for name, place in vmcs_fields.items()},
        "exits": {name: (vmx.exits[<int>number].count, vmx.exits[<int>number].cycles)
                  for name, number in exit_reasons.items() if vmx.exits[<int>number].count},
    }


cdef int vmx_load(Vmx *vmx, dict state) except -1:
    vmx.on, vmx.launched = state["on"], state["launched"]
    vmx.vmxon_pointer, vmx.current = state["vmxon_pointer"], state["current"]
    vmx.timer_running, vmx.timer_deadline = state["timer_running"], state["timer_deadline"]
    vmx.inject, vmx.trap_flag_due, vmx.tpr_due = state["inject"], state["trap_flag_due"], state["tpr_due"]
    vmx.injected_length = state["injected_length"]
    vmx.exit_cycle, vmx.exit_reason = state["exit_cycle"], state["exit_reason"]
    if vmx.exit_reason > EXIT_REASONS:
        raise ValueError("no such exit reason")
    vmx.feature_control = state["feature_control"]
    vmx.controls_passed = vmx.host_passed = 0
    for name, place in vmcs_fields.items():
        vmx.field[<int>place] = <uint64_t>state["fields"][name] & vmcs_field_mask(place)
    for name, number in exit_reasons.items():
        count, cycles = state["exits"].get(name, (0, 0))
        vmx.exits[<int>number].count, vmx.exits[<int>number].cycles = count, cycles
    return 0
