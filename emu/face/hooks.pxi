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
    void blocks_hook_page(CpuState *cpu, uint64_t la)
    void blocks_unhook_all(CpuState *cpu)

HOOK_KINDS = ("instruction", "block", "memory", "io", "interrupt", "vm_exit")


cdef class Hook:
    """A hook that Processor.hook() set; remove() ends it."""
    cdef Processor processor
    cdef readonly str kind
    cdef readonly object callback
    cdef uint64_t first, last

    def __cinit__(self, Processor processor not None, str kind not None, callback, uint64_t first, uint64_t last):
        self.processor = processor
        self.kind = kind
        self.callback = callback
        self.first = first
        self.last = last

    def remove(self):
        """The callback is not called any more. Removing twice does nothing."""
        self.processor.clock.check()
        hooks = self.processor._hooks.get(self.kind, [])
        if self in hooks:
            # A new list: the old one may be walked over now.
            self.processor._hooks[self.kind] = [hook for hook in hooks if hook is not self]
            self.processor.place_hooks()

    def __repr__(self):
        return f"<hook {self.kind} {self.first:#x}-{self.last:#x}: {self.callback!r}>"


cdef void hook_callback(void *owner, int kind, uint64_t address, unsigned size, uint64_t value) noexcept nogil:
    (<Processor>owner).hooked(kind, address, size, value)
