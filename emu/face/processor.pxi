# The processor as everything outside sees it: its life, its wires, and its state as a whole.

cdef extern from "emu/core/cpu.h" nogil:
    enum:
        ES, CS, SS, DS, FS, GS, LDTR, TR, SEGMENT_COUNT
        RSP
        REQUEST_NMI, REQUEST_RESET, REQUEST_INIT, REQUEST_MC
        ACTIVITY_ACTIVE, ACTIVITY_HLT, ACTIVITY_SHUTDOWN, ACTIVITY_WAIT_FOR_SIPI
        FLAG_ONE, FLAG_VM, FLAG_TF
        CR0_PE, CR0_PG, CR0_NW, CR0_CD, CR0_ET, CR4_PAE
        EFER_SCE, EFER_LME, EFER_LMA, EFER_NXE
        AR_ACCESSED, AR_RW, AR_DC, AR_CODE, AR_S, AR_P, AR_L, AR_DB, AR_G, AR_UNUSABLE
    ctypedef struct CSegment "Segment":
        uint64_t base
        uint32_t limit
        uint32_t access
        uint16_t selector
        uint64_t hidden
    ctypedef struct CDescriptorTable "DescriptorTable":
        uint64_t base
        uint32_t limit
    ctypedef struct CFault "Fault":
        uint8_t vector
        uint8_t has_error
        uint8_t type
        uint32_t error
        uint64_t address
    ctypedef uint8_t (*InterruptAcknowledge)(void *controller) noexcept
    ctypedef void (*HookCallback)(void *owner, int kind, uint64_t address, unsigned size, uint64_t value) noexcept
    ctypedef struct LastBranches:
        uint64_t source[LAST_BRANCHES]
        uint64_t target[LAST_BRANCHES]
        uint64_t exception_from
        uint64_t exception_to
        uint64_t top
    ctypedef struct CpuState "CPU":
        uint64_t gpr[17]
        uint64_t rip
        uint64_t instructions
        uint64_t page_walks
        uint64_t sp_mask
        CSegment seg[8]
        uint8_t cpl
        uint8_t shadow
        uint8_t activity
        uint8_t nmi_blocked
        uint8_t long_mode
        uint8_t code64
        uint8_t protected_mode
        uint8_t v86
        uint32_t requests
        uint32_t trap
        uint64_t cr0
        uint64_t cr2
        uint64_t cr3
        uint64_t cr4
        uint64_t cr8
        uint64_t dr[8]
        uint64_t efer
        uint64_t pdpte[4]
        CDescriptorTable gdtr
        CDescriptorTable idtr
        CFault fault
        uint64_t tsc_offset
        uint64_t tsc_aux
        uint64_t apic_base
        uint64_t sysenter_cs
        uint64_t sysenter_esp
        uint64_t sysenter_eip
        uint64_t star
        uint64_t lstar
        uint64_t cstar
        uint64_t fmask
        uint64_t kernel_gs_base
        uint64_t monitored
        uint64_t monitored_sum
        uint64_t random
        Fpu fpu
        uint64_t pat
        uint64_t debugctl
        uint64_t misc_enable
        uint64_t bios_sign_id
        LastBranches last_branches
        uint8_t non_root
        uint8_t in_shadow
        uint64_t eptp
        Vmx vmx
        VmTransition *transitions
        uint8_t hooks_memory
        uint8_t rep_resumed
        uint8_t charge_target
        uint8_t trap_suppressed
        uint8_t rf_loaded
        InterruptAcknowledge acknowledge
        void *interrupt_controller
        HookCallback hook
        void *hook_owner
        uint64_t hook_skip
        uint64_t fallen_to
    size_t cpu_bytes()
    size_t cpu_hot_bytes()
    CpuState *cpu_create(CBus *bus, CClock *clock, const CModel *model, void *memory)
    void cpu_destroy(CpuState *cpu)
    void cpu_reset(CpuState *cpu)
    void cpu_update_mode(CpuState *cpu)
    void cpu_set_intr(CpuState *cpu, bint level)
    uint32_t cpu_flags(const CpuState *cpu)
    void cpu_set_flags(CpuState *cpu, uint32_t value, uint32_t mask)
    bint mmu_peek(CpuState *cpu, uint64_t la, uint64_t *pa)
    int mmu_load_pdptes(CpuState *cpu, uint64_t cr3)
    void vmx_restored(CpuState *cpu)
    void tlb_flush_all(CpuState *cpu)
    void segment_update(CpuState *cpu, unsigned index)
    int segment_load(CpuState *cpu, unsigned index, uint16_t selector)

VECTOR_NAMES = {
    0: "#DE", 1: "#DB", 2: "NMI", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF", 9: "CSO", 10: "#TS",
    11: "#NP", 12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC", 19: "#XM", 20: "#VE",
}

cdef uint8_t chip_acknowledge(void *controller) noexcept nogil:
    return (<Chip>controller).acknowledge()


@cython.no_gc_clear  # the core refers to bus, clock and model until it is destroyed
cdef class Processor:
    """A processor on a bus: its registers (defined in face/registers.pxi), its run loop (face/run.pxi) and hooks.

    While another thread runs it, everything raises RunningError. In a callback of its own run the registers can be
    read (the arithmetic flags may be those of an earlier instruction, unless the callback is a hook of instructions);
    they can be written in hooks of instructions and blocks, which lie between two instructions.
    """
    cdef CpuState *c
    cdef readonly Clock clock
    cdef readonly Bus bus
    cdef readonly Model model
    cdef Pins _pins
    cdef object _controller
    cdef object _reset         # what a pulse on the reset line calls; None: the processor alone is reset
    cdef list _polls           # called between slices
    cdef dict _hooks           # kind of hook to list of Hook
    cdef HookRange *_ranges    # the same, for a look without the GIL
    cdef int _range_count
    cdef uint64_t _until
    cdef bint _has_until, _until_reached
    cdef uint32_t _run_flags   # RUN_* of every run
    cdef uint64_t _slice       # cycles of a slice, so that it takes about a millisecond of host time

    def __cinit__(self, *args, **kwargs):
        if type(self) is Processor:
            raise TypeError("Processor is abstract: Cpu is one with memory alone, BoardCpu one on a board's bus")

    cdef int build(self, Bus bus, Model model) except -1:
        """Makes the processor. The first thing that a subclass does in __cinit__."""
        self.bus = bus
        self.clock = bus.clock
        self.model = model
        self.clock.check_idle()
        self._polls = []
        self._hooks = {}
        self._slice = FIRST_SLICE
        # Without MAP_NORESERVE, which guest memory has: the host would join the two, and split them again later.
        cdef uint8_t *memory = mapping_create(&spare_processor, cpu_bytes(), 0)
        if memory != NULL:
            self.c = cpu_create(&bus.c, &bus.clock.c, model.c, memory)
        if self.c == NULL:
            if memory != NULL:
                mapping_destroy(&spare_processor, memory, cpu_bytes(), 0)
            raise MemoryError("no room for a processor")
        bus._touched = 1  # whatever views exist may have written
        return 0

    def __dealloc__(self):
        if self.c != NULL:
            cpu_destroy(self.c)
            mapping_destroy(&spare_processor, <uint8_t *>self.c, cpu_bytes(), cpu_hot_bytes())
        free(self._ranges)

    def __reduce__(self):
        raise TypeError(f"a {type(self).__name__} is neither copied nor pickled: save() and restore() carry its state")

    cdef int check_writable(self) except -1:
        if self.clock._thread != 0:
            self.clock.check()
            if self.clock._calling:
                raise RunningError("an instruction is under way: registers cannot be written in this callback")
        return 0

    cdef object fault(self):
        """The recorded fault as an exception."""
        cdef CFault *fault = &self.c.fault
        return CpuFault(
            fault.vector,
            VECTOR_NAMES.get(fault.vector, f"vector {fault.vector}"),
            fault.error if fault.has_error else None,
            fault.address if fault.vector == 14 else None,
            self.c.rip,
        )

    cdef void move_to(self, uint64_t rip) noexcept:
        """Execution goes on elsewhere: what the last instruction left behind is forgotten."""
        self.c.rip = rip
        self.c.hook_skip = NO_RIP
        self.c.fallen_to = NO_RIP
        self.c.shadow = 0
        self.c.trap = 0
        self.c.rep_resumed = 0
        self.c.charge_target = 0
        self.c.activity = ACTIVITY_ACTIVE

    cdef int set_control(self, Effect which, uint64_t value) except -1:
        """Writes CR0, CR3 or CR4 without the side effects of MOV on segments; TLB and mode follow."""
        if which == SETS_CR0:
            if (value & CR0_PG and not value & CR0_PE) or (value & CR0_NW and not value & CR0_CD):
                raise ValueError(f"{value:#x}: CR0.PG needs PE, and NW needs CD")
            self.c.cr0 = value
        elif which == SETS_CR3:
            self.c.cr3 = value
        else:
            if value & ~self.model.c.cr4_mask:
                raise ValueError(f"cr4: {value:#x} sets reserved bits: {value & ~self.model.c.cr4_mask:#x}")
            self.c.cr4 = value
        tlb_flush_all(self.c)
        cpu_update_mode(self.c)
        if self.c.cr0 & CR0_PG and self.c.cr4 & CR4_PAE and not self.c.long_mode:
            if mmu_load_pdptes(self.c, self.c.cr3):
                raise self.fault()
        return 0

    def run(self, instructions=None, cycles=None, seconds=None, timeout=None, until=None, every=None):
        """Runs until a limit is reached or something ends it. Ctrl-C and stop() do, and the run can go on afterwards.

        Args:
            instructions, cycles: how many more; None is no limit.
            seconds: of guest time.
            timeout: seconds of host time.
            until: a linear address, before whose instruction the run ends; or a predicate `until(self)`, asked before
                the first instruction and then every `every` instructions (1 unless given).

        Returns:
            A Stop. It does not depend on how the run was cut into pieces.

        Raises:
            CpuFault: with faults="raise", what the processor raised.
            RunningError: it runs already.
            ValueError: a limit that is negative or no number.
            Whatever a device or hook raised.
        """
        self.clock.check_idle()
        cdef uint64_t most = limit_of(instructions, "instructions")
        cdef uint64_t cycle_limit = saturating_add(clock_now(&self.clock.c), limit_of(cycles, "cycles"))
        cdef int64_t deadline = 0
        if seconds is not None:
            seconds = seconds_of(seconds, 40, "seconds")
            guest = saturating_add(clock_now(&self.clock.c), min(int(seconds * self.clock.c.hz), 1 << 63))
            cycle_limit = min(cycle_limit, guest)
        if timeout is not None:
            deadline = host_ns() + <int64_t>(seconds_of(timeout, 30, "timeout") * 1e9)
        if until is None:
            if every is not None:
                raise ValueError("every: only with a predicate as until")
            return run_for(self, most, cycle_limit, deadline)
        if callable(until):
            pace = argument(1 if every is None else every, 1 << 62, "every")
            return run_while_not(self, until, pace, most, cycle_limit, deadline)
        if every is not None:
            raise ValueError("every: only with a predicate as until")
        self._until = argument(until, ALL64, "until")
        self._has_until = True
        try:
            place_hooks(self)
            return run_for(self, most, cycle_limit, deadline)
        finally:
            self._has_until = False
            place_hooks(self)

    def step(self):
        """Runs one instruction (one iteration of a REP instruction), with what is due before it.

        Returns:
            A Stop; its reason is LIMIT where nothing else came up. A trap of the instruction (single step, a data
            breakpoint) is due before the next one.

        Raises:
            CpuFault: with faults="raise", what the processor raised.
            RunningError: it runs already.
            Whatever a device or hook raised.
        """
        begin_run(self)
        self.clock._running = <CPU *>self.c
        cdef uint64_t goal = self.c.instructions + 1
        cdef StopCode code
        try:
            code = cpu_run(self.c, CYCLE_NEVER, 1, self._run_flags | RUN_STEP)
            stop = settle(self, code, goal, CYCLE_NEVER)
            return LIMIT if stop is None else stop
        finally:
            end_run(self)

    def stop(self):
        """Ends the run: in a callback of it after the current instruction, from another thread within a millisecond."""
        if self.clock._thread != 0:
            self.clock._stop_asked = 1
            if self.clock._thread == PyThread_get_thread_ident():
                self.clock.leave()

    @property
    def running(self):
        """Whether a run is under way."""
        return self.clock._thread != 0

    def hook(self, str kind not None, callback, where=None):
        """Has `callback` called at what the guest does, until the hook is removed.

        Args:
            kind: what, and with which arguments the callback is called:
                "instruction"  (address) before the instruction at that linear address
                "block"        (address) before the first instruction of a decoded block
                "memory"       (address, size, value, is_write) after an access to that linear address
                "io"           (port, size, value, is_write) after an access to an I/O port
                "interrupt"    (vector, rip) before an exception or interrupt is delivered; rip is what it returns to
                "vm_exit"      (reason, qualification) at a VM exit
            where: a range of addresses, ports, vectors or reasons; all of them where it is None.

        An exception in the callback ends the run and comes out of it. A memory hook sends every access the slow way.

        Raises:
            ValueError: an unknown kind, or a range that is empty, has a step, or leaves 64 bits.
        """
        self.clock.check()
        if kind not in HOOK_KINDS:
            raise ValueError(f"unknown hook {kind!r}; there are: {', '.join(HOOK_KINDS)}")
        if not callable(callback):
            raise TypeError(f"the callback of a hook is called: {callback!r} cannot be")
        if where is None:
            first, last = 0, 0xFFFFFFFFFFFFFFFF
        elif isinstance(where, range) and where.step == 1 and 0 <= where.start < where.stop <= 1 << 64:
            first, last = where.start, where.stop - 1
        else:
            raise ValueError(f"{where!r} is not a range of consecutive numbers within 64 bits")
        hook = Hook(self, kind, callback, first, last)
        self._hooks[kind] = [*self._hooks.get(kind, ()), hook]
        place_hooks(self)
        return hook

    @property
    def pins(self):
        """The input pins, as a chip that wires end at."""
        self.clock.check()
        if self._pins is None:
            self._pins = Pins(self)
        return self._pins

    @property
    def es(self):
        """Data segment register."""
        return Segment(self, ES)

    @property
    def cs(self):
        """Code segment register."""
        return Segment(self, CS)

    @property
    def ss(self):
        """Stack segment register."""
        return Segment(self, SS)

    @property
    def ds(self):
        """Data segment register."""
        return Segment(self, DS)

    @property
    def fs(self):
        """Data segment register."""
        return Segment(self, FS)

    @property
    def gs(self):
        """Data segment register."""
        return Segment(self, GS)

    @property
    def ldtr(self):
        """Local descriptor table register."""
        return Segment(self, LDTR)

    @property
    def tr(self):
        """Task register."""
        return Segment(self, TR)

    @property
    def gdtr(self):
        """Global descriptor table register."""
        return TableRegister(self, False)

    @property
    def idtr(self):
        """Interrupt descriptor table register."""
        return TableRegister(self, True)

    @property
    def vmcs(self):
        """The current VMCS, by the names of SDM Vol. 3, appendix "Field Encoding in VMCS"."""
        return Vmcs(self)

    @property
    def exits(self):
        """VM exits counted by reason."""
        return Exits(self)

    @property
    def vmx_failure(self):
        """The check of VM entry that failed last, a VmxFailure; None: none since VMXON or the last restore."""
        self.clock.check()
        return vmx_failure_of(self.c)

    @property
    def vmx_operation(self):
        """"off", "root" or "non-root"."""
        self.clock.check()
        return "off" if not self.c.vmx.on else "non-root" if self.c.non_root else "root"

    @property
    def transition_count(self):
        """VM entries and exits so far."""
        self.clock.check()
        return self.c.vmx.transitions

    def transitions(self, since=0):
        """VM entries and exits from number `since` on, oldest first; the last 4096 are kept."""
        self.clock.check()
        return vmx_transitions(self.c, argument(since, ALL64, "since"), True, 0)

    def switch_transitions(self, uint64_t since, vmcs):
        """Those of transitions(since) that a switch between VMs consists of, and the last one.

        They are the entries of another VMCS than the entry before, and the exit just before each. The entry before the
        first was of `vmcs`, or of none.
        """
        self.clock.check()
        return vmx_transitions(self.c, since, False, VMCS_NONE if vmcs is None else vmcs)

    def inject_machine_check(self):
        """A machine check before the next instruction: #MC with CR4.MCE, else a shutdown."""
        self.check_writable()
        cpu_pulse(<CPU *>self.c, REQUEST_MC)

    def reset(self):
        """To the state after power-up or RESET (SDM Vol. 3, "Processor State After Reset")."""
        self.check_writable()
        cpu_reset(self.c)

    def on_reset(self, callback):
        """What a pulse on the reset line calls, between two instructions; it resets this processor too."""
        self.clock.check()
        self._reset = callback

    def on_slice(self, callback):
        """Has `callback()` called between slices of a run, about every millisecond of host time."""
        self.clock.check()
        self._polls.append(callback)

    def interrupt_controller(self, Chip chip not None):
        """The chip that gives the vectors of interrupts on the pin INTR.

        Raises:
            ConfigError: it is not on this processor's clock.
        """
        self.clock.check()
        if chip.clock is not self.clock:
            raise ConfigError(f"{chip.name} is not on this processor's clock")
        self._controller = chip
        self.c.interrupt_controller = <void *>chip
        self.c.acknowledge = chip_acknowledge

    @property
    def cycles(self):
        """Cycles since power-on."""
        if self.clock._thread != 0:
            self.clock.check()
        return clock_now(&self.clock.c)

    @property
    def tsc(self):
        """The time-stamp counter as the processor itself has it, without a VM's offset."""
        self.clock.check()
        return (clock_now(&self.clock.c) + self.c.tsc_offset) & ALL64

    @property
    def instructions(self):
        """Instructions completed; each iteration of a REP instruction counts as one."""
        if self.clock._thread != 0:
            self.clock.check()
        return self.c.instructions

    @property
    def page_walks(self):
        """Page walks made for addresses that the TLB did not have, since this processor was made: a figure for whoever
        measures, no part of a snapshot. The TLB is the emulator's, of 1024 entries."""
        self.clock.check()
        return self.c.page_walks

    @property
    def halted(self):
        """Whether HLT waits for an interrupt."""
        if self.clock._thread != 0:
            self.clock.check()
        return self.c.activity == ACTIVITY_HLT

    @property
    def bits(self):
        """The size of code: 16, 32 or 64."""
        if self.clock._thread != 0:
            self.clock.check()
        return 64 if self.c.code64 else 32 if self.c.seg[CS].access & AR_DB else 16

    def translate(self, la):
        """The physical address of a linear one, or None where none is mapped; without any effect.

        Raises:
            ValueError: the address is not within 64 bits.
        """
        cdef uint64_t pa
        self.clock.check()
        return pa if mmu_peek(self.c, address_of(la), &pa) else None

    def read_linear(self, la, count):
        """`count` bytes from a linear address, whatever the access rights.

        Raises:
            ValueError: a page of them is not mapped, the address is not within 64 bits, or they are more than 4 GiB.
            MemoryError: the host has no room for them.
        """
        cdef uint64_t pa, first = address_of(la)
        cdef size_t done = 0, chunk, size
        self.clock.check()
        data = block(count)
        size = len(data)
        while done < size:
            chunk = min(size - done, PAGE_SIZE - ((first + done) & (PAGE_SIZE - 1)))
            self.must_peek(first + done, &pa)
            bus_read_block(&self.bus.c, pa, PyBytes_AS_STRING(data) + done, chunk)
            done += chunk
        self.clock.raise_error()
        return data

    def write_linear(self, la, data):
        """Writes bytes from a linear address, whatever the access rights.

        Raises:
            ValueError: a page of them is not mapped, or the address is not within 64 bits; nothing is written then.
        """
        cdef uint64_t pa, first = address_of(la)
        cdef size_t done = 0, chunk
        cdef Py_buffer buffer
        self.clock.check()
        PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
        try:
            while done < <size_t>buffer.len:
                self.must_peek(first + done, &pa)
                done += PAGE_SIZE - ((first + done) & (PAGE_SIZE - 1))
            done = 0
            while done < <size_t>buffer.len:
                chunk = min(<size_t>buffer.len - done, PAGE_SIZE - ((first + done) & (PAGE_SIZE - 1)))
                self.must_peek(first + done, &pa)
                bus_write_block(&self.bus.c, pa, <char *>buffer.buf + done, chunk)
                done += chunk
        finally:
            PyBuffer_Release(&buffer)
        self.clock.raise_error()

    cdef int must_peek(self, uint64_t la, uint64_t *pa) except -1:
        if not mmu_peek(self.c, la, pa):
            raise ValueError(f"linear address {la:#x} is not mapped")
        return 0

    def disassemble(self, la, count=1):
        """Disassembles `count` instructions from a linear address: a list of (address, bytes, text).

        Raises:
            ValueError: one of the numbers is not within 64 bits.
        """
        from emu.debug.disassemble import disassemble
        return disassemble(self, address_of(la), argument(count, ALL64, "count"))

    def save(self):
        """The architectural state as named plain values. What is cached of page tables is forgotten."""
        self.clock.check_idle()
        tlb_flush_all(self.c)
        state = {"version": 4, "model": self.model.name, "gpr": [self.c.gpr[i] for i in range(16)]}
        state["rflags"] = cpu_flags(self.c)
        state["segments"] = [
            (self.c.seg[i].selector, self.c.seg[i].base | self.c.seg[i].hidden, self.c.seg[i].limit,
             self.c.seg[i].access)
            for i in range(SEGMENT_COUNT)
        ]
        state["dr"] = [self.c.dr[i] for i in range(8)]
        state["pdpte"] = [self.c.pdpte[i] for i in range(4)]
        state["gdtr"] = (self.c.gdtr.base, self.c.gdtr.limit)
        state["idtr"] = (self.c.idtr.base, self.c.idtr.limit)
        for i in range(SCALARS):
            state[scalar_names[i]] = scalar_get(self.c, scalars[i])
        state["last_branches"] = [
            (self.c.last_branches.source[i], self.c.last_branches.target[i]) for i in range(LAST_BRANCHES)
        ]
        state["fpu"] = fpu_save(&self.c.fpu)
        state["vmx"] = vmx_save(self.c)
        return state

    def restore(self, dict state not None):
        """Takes what save() gave.

        Raises:
            BadInput: it is of another version or processor model, or incomplete; nothing has changed then.
        """
        self.clock.check_idle()
        if state.get("version") != 4 or state.get("model") != self.model.name:
            raise BadInput("the processor's state is of another version or model")
        cdef CpuState fresh = self.c[0]
        try:
            for i, value in zip(range(16), state["gpr"], strict=True):
                fresh.gpr[<int>i] = value
            for i, (selector, base, limit, access) in zip(range(SEGMENT_COUNT), state["segments"], strict=True):
                fresh.seg[<int>i].selector = selector
                fresh.seg[<int>i].base, fresh.seg[<int>i].hidden = base, 0
                fresh.seg[<int>i].limit = limit
                fresh.seg[<int>i].access = access
            for i, value in zip(range(8), state["dr"], strict=True):
                fresh.dr[<int>i] = value
            for i, value in zip(range(4), state["pdpte"], strict=True):
                fresh.pdpte[<int>i] = value
            fresh.gdtr.base, fresh.gdtr.limit = state["gdtr"]
            fresh.idtr.base, fresh.idtr.limit = state["idtr"]
            for i in range(SCALARS):
                scalar_set(&fresh, scalars[<int>i], state[scalar_names[i]])
            for i, (source, target) in zip(range(LAST_BRANCHES), state["last_branches"], strict=True):
                fresh.last_branches.source[<int>i], fresh.last_branches.target[<int>i] = source, target
            fpu_load(&fresh.fpu, state["fpu"])
            vmx_load(&fresh.vmx, state["vmx"])
            flags = <uint32_t>state["rflags"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BadInput(f"the processor's state is malformed: {error!r}") from None
        if fresh.cpl > 3 or fresh.activity > ACTIVITY_WAIT_FOR_SIPI:
            raise BadInput("the processor's state is malformed: no such privilege level or activity")
        fresh.fallen_to = NO_RIP  # where a hook of blocks is due: no state of the processor
        self.c[0] = fresh
        cpu_set_flags(self.c, flags, 0x3F7FD5)  # every flag that there is
        cpu_update_mode(self.c)  # in 64-bit code segment_update() would forget bases
        for i in range(SEGMENT_COUNT):
            segment_update(self.c, i)
        tlb_flush_all(self.c)
        vmx_restored(self.c)
        cpu_update_mode(self.c)


cdef class BoardCpu(Processor):
    """A processor on a board's bus.

    Args:
        bus: whose memory and ports it sees.
        model: what it can do and what its instructions cost.
    """

    def __cinit__(self, Bus bus not None, Model model not None):
        self.build(bus, model)


cdef class Pins(Chip):
    """The processor's input pins, as a chip that wires end at: lines INTR, NMI, RESET and INIT."""
    cdef Processor processor

    INTR = 0
    NMI = 1
    RESET = 2
    INIT = 3

    def __cinit__(self, Processor processor not None):
        self.place(processor.clock)
        self.processor = processor

    cdef void input(self, int line, int level) noexcept nogil:
        cdef CpuState *cpu = self.processor.c
        if line == 0:
            cpu_set_intr(cpu, level != 0)
        elif level:
            if line == 1:
                cpu_pulse(<CPU *>cpu, REQUEST_NMI)
            elif line == 2:
                cpu_pulse(<CPU *>cpu, REQUEST_RESET)
            elif line == 3:
                cpu_pulse(<CPU *>cpu, REQUEST_INIT)
