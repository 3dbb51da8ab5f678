# Hooks: Python functions that a run calls at what the guest does. Without any, decoded code has no trace of them.

cdef extern from "emu/core/cpu.h" nogil:
    enum:
        HOOK_INSTRUCTION
        HOOK_BLOCK
        HOOK_MEMORY_READ
        HOOK_MEMORY_WRITE
        HOOK_IO_READ
        HOOK_IO_WRITE
        HOOK_INTERRUPT
        HOOK_VM_EXIT

cdef extern from "emu/core/block.h" nogil:
    void blocks_hook(CpuState *cpu, uint64_t first, uint64_t last)
    void blocks_hook_blocks(CpuState *cpu)
    void blocks_unhook_all(CpuState *cpu)

cdef enum:
    GROUP_INSTRUCTION
    GROUP_BLOCK
    GROUP_MEMORY
    GROUP_IO
    GROUP_INTERRUPT
    GROUP_VM_EXIT

cdef struct HookRange:
    int group
    uint64_t first, last
    bint of_vm
    uint64_t vmcs

# By HOOK_*: the place of its name in HOOK_KINDS.
cdef int[8] HOOK_GROUP = [
    GROUP_INSTRUCTION, GROUP_BLOCK, GROUP_MEMORY, GROUP_MEMORY, GROUP_IO, GROUP_IO, GROUP_INTERRUPT, GROUP_VM_EXIT,
]
cdef tuple HOOK_KINDS = ("instruction", "block", "memory", "io", "interrupt", "vm_exit")


cdef class Hook:
    """A hook that Processor.hook() set; remove() ends it."""
    cdef Processor processor
    cdef readonly str kind
    cdef readonly object callback
    cdef uint64_t first, last
    cdef bint of_vm            # only while the VM of this VMCS runs
    cdef uint64_t _vmcs

    def __cinit__(self, Processor processor not None, str kind not None, callback, uint64_t first, uint64_t last):
        self.processor = processor
        self.kind = kind
        self.callback = callback
        self.first = first
        self.last = last

    @property
    def vmcs(self):
        """The address of a VMCS: the callback is called only while its VM runs, which costs nothing while others do.
        None, as at first: whatever runs."""
        return self._vmcs if self.of_vm else None

    @vmcs.setter
    def vmcs(self, address):
        self.processor.clock.check()
        self._vmcs = 0 if address is None else argument(address, ALL64, "vmcs")
        self.of_vm = address is not None
        place_hooks(self.processor)

    def remove(self):
        """The callback is not called any more. Removing twice does nothing."""
        self.processor.clock.check()
        hooks = self.processor._hooks.get(self.kind, [])
        if self in hooks:
            # A new list: the old one may be walked over now.
            self.processor._hooks[self.kind] = [hook for hook in hooks if hook is not self]
            place_hooks(self.processor)

    def __repr__(self):
        return f"<hook {self.kind} {self.first:#x}-{self.last:#x}: {self.callback!r}>"


cdef int place_hooks(Processor self) except -1:
    """Tells the core what is hooked, and keeps the ranges where they can be looked at without the GIL."""
    cdef CpuState *cpu = self.c
    cdef Hook hook
    hooks = [hook for kind in HOOK_KINDS for hook in self._hooks.get(kind, ())]
    cdef HookRange *ranges = <HookRange *>realloc(self._ranges, (len(hooks) + 1) * sizeof(HookRange))
    if ranges == NULL:
        raise MemoryError("no room for a hook")
    self._ranges = ranges
    self._range_count = len(hooks)
    for i, hook in enumerate(hooks):
        ranges[<int>i] = HookRange(HOOK_KINDS.index(hook.kind), hook.first, hook.last, hook.of_vm, hook._vmcs)
    cpu.hooks_memory = bool(self._hooks.get("memory"))
    cpu.hook_owner = <void *>self
    cpu.hook = NULL
    if self._has_until or hooks:
        cpu.hook = hook_callback
    blocks_unhook_all(cpu)
    if self._has_until:
        blocks_hook(cpu, self._until, self._until)
    for hook in self._hooks.get("instruction", ()):
        blocks_hook(cpu, hook.first, hook.last)
    if self._hooks.get("block"):
        blocks_hook_blocks(cpu)
    cpu_update_mode(cpu)
    clock_leave(&self.clock.c)
    return 0


cdef inline bint runs(Processor self, bint of_vm, uint64_t vmcs) noexcept nogil:
    """Whether it is the VM that a hook wants, if it wants one, that runs."""
    return not of_vm or (self.c.non_root != 0 and self.c.vmx.current == vmcs)


cdef void hooked(Processor self, int kind, uint64_t address, unsigned size, uint64_t value) noexcept nogil:
    cdef int group = HOOK_GROUP[kind]
    cdef uint64_t last = address
    cdef int i
    if group == GROUP_MEMORY or group == GROUP_IO:
        last = address + size - 1
    if group == GROUP_INSTRUCTION and self._has_until and address == self._until:
        self._until_reached = True
        self.clock.leave()
    for i in range(self._range_count):
        if self._ranges[i].group == group and self._ranges[i].first <= last and address <= self._ranges[i].last:
            if runs(self, self._ranges[i].of_vm, self._ranges[i].vmcs):
                break
    else:
        return
    self.clock.keep_gil()
    with gil:
        try:
            call_hooks(self, kind, group, address, last, value)
        except BaseException as error:
            self.clock.store_error(error)


cdef int call_hooks(Processor self, int kind, int group, uint64_t address, uint64_t last, uint64_t value) except -1:
    cdef Hook hook
    cdef bint between = group == GROUP_INSTRUCTION or group == GROUP_BLOCK
    if between:
        arguments = (address,)
    elif group == GROUP_MEMORY or group == GROUP_IO:
        arguments = (address, last - address + 1, value, kind == HOOK_MEMORY_WRITE or kind == HOOK_IO_WRITE)
    else:
        arguments = (address, value)
    if not between:
        self.clock._calling += 1
    try:
        for hook in self._hooks.get(HOOK_KINDS[group], ()):
            if hook.first <= last and address <= hook.last and runs(self, hook.of_vm, hook._vmcs):
                hook.callback(*arguments)
    finally:
        if not between:
            self.clock._calling -= 1
    return 0


cdef void hook_callback(void *owner, int kind, uint64_t address, unsigned size, uint64_t value) noexcept nogil:
    hooked(<Processor>owner, kind, address, size, value)
