# Registers as properties. Each is a getset descriptor made from a table, so that reading one costs a few tens of
# nanoseconds and no accessor is written ninety times.

cdef extern from "Python.h":
    ctypedef object (*Getter "getter")(object, void *)
    ctypedef int (*Setter "setter")(object, PyObject *, void *) except -1
    ctypedef struct PyGetSetDef:
        const char *name
        Getter get
        Setter set
        const char *doc
        void *closure
    object PyDescr_NewGetSet(PyTypeObject *type, PyGetSetDef *definition)
    void PyType_Modified(PyTypeObject *type)

cdef extern from *:
    """
    #define TYPE_DICT(type) ((type)->tp_dict)
    """
    PyObject *TYPE_DICT(PyTypeObject *)

cdef uint64_t NO_RIP = 0xFFFFFFFFFFFFFFFF

# What writing a register does besides.
cdef enum Effect:
    NOTHING
    CLEARS_UPPER     # a 32-bit general register
    MOVES            # RIP: execution goes on elsewhere
    SETS_FLAGS
    SETS_CR0
    SETS_CR3
    SETS_CR4
    CHANGES_MODE

cdef struct Register:
    size_t offset
    uint64_t most    # the largest value, or the bits that can be set
    bint is_mask     # `most` is the latter
    int bytes
    Effect effect

cdef enum:
    MOST_REGISTERS = 128

cdef Register registers[MOST_REGISTERS]
cdef PyGetSetDef register_definitions[MOST_REGISTERS]
cdef int register_count = 0
cdef list register_names = []  # in the order of `registers`
cdef list register_texts = []  # what the definitions point to


cdef uint64_t field_get(const void *field, int bytes) noexcept nogil:
    if bytes == 8:
        return (<const uint64_t *>field)[0]
    if bytes == 4:
        return (<const uint32_t *>field)[0]
    if bytes == 2:
        return (<const uint16_t *>field)[0]
    return (<const uint8_t *>field)[0]


cdef void field_set(void *field, int bytes, uint64_t value) noexcept nogil:
    if bytes == 8:
        (<uint64_t *>field)[0] = value
    elif bytes == 4:
        (<uint32_t *>field)[0] = <uint32_t>value
    elif bytes == 2:
        (<uint16_t *>field)[0] = <uint16_t>value
    else:
        (<uint8_t *>field)[0] = <uint8_t>value


cdef object register_get(object self, void *closure):
    cdef Processor processor = <Processor>self
    cdef Register *register = <Register *>closure
    if processor.clock._thread != 0:
        processor.clock.check()
    if register.effect == SETS_FLAGS:
        return cpu_flags(processor.c) & register.most
    return field_get(<char *>processor.c + register.offset, register.bytes)


cdef int register_set(object self, PyObject *value, void *closure) except -1:
    cdef Processor processor = <Processor>self
    cdef Register *register = <Register *>closure
    cdef CpuState *cpu = processor.c
    if value == NULL:
        raise AttributeError("a register cannot be deleted")
    if processor.clock._thread != 0:
        processor.check_writable()
    cdef str name = <str>register_names[register - registers]
    cdef uint64_t number = argument(<object>value, ALL64 if register.is_mask else register.most, name)
    if register.is_mask and number & ~register.most:
        raise ValueError(f"{name}: {number:#x} sets reserved bits: {number & ~register.most:#x}")
    cdef char *field = <char *>cpu + register.offset
    if register.effect == NOTHING:
        field_set(field, register.bytes, number)
    elif register.effect == CLEARS_UPPER:
        field_set(field, 8, number)
    elif register.effect == MOVES:
        processor.move_to(number if register.bytes == 8 else (cpu.rip & ~register.most) | number)
    elif register.effect == SETS_FLAGS:
        cpu_set_flags(cpu, <uint32_t>number, <uint32_t>register.most)
        cpu_update_mode(cpu)
    elif register.effect == CHANGES_MODE:
        field_set(field, register.bytes, number)
        cpu_update_mode(cpu)
    else:
        processor.set_control(register.effect, number)
    return 0


cdef int add_register(str name, void *field, int bytes, uint64_t most, Effect effect, str doc, bint is_mask) except -1:
    global register_count
    cdef PyTypeObject *type = <PyTypeObject *>Processor
    cdef Register *register = &registers[register_count]
    cdef PyGetSetDef *definition = &register_definitions[register_count]
    assert register_count < MOST_REGISTERS
    register_count += 1
    register[0] = Register(<size_t>field, most, is_mask, bytes, effect)
    texts = (name.encode(), doc.encode())
    register_texts.append(texts)
    register_names.append(name)
    definition[0] = PyGetSetDef(<const char *>texts[0], register_get, register_set, <const char *>texts[1], register)
    (<dict>TYPE_DICT(type))[name] = PyDescr_NewGetSet(type, definition)
    return 0


cdef int add_registers() except -1:
    cdef CpuState *cpu = NULL  # so that a field's address is its offset
    cdef int i
    cdef uint64_t all64 = 0xFFFFFFFFFFFFFFFF
    legacy = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
    low = ("al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil")
    for i in range(16):
        if i < 8:
            names = (f"r{legacy[i]}", f"e{legacy[i]}", legacy[i], low[i])
        else:
            names = (f"r{i}", f"r{i}d", f"r{i}w", f"r{i}b")
        add_register(names[0], &cpu.gpr[i], 8, all64, NOTHING, "General register, 64 bits.", False)
        add_register(names[1], &cpu.gpr[i], 4, 0xFFFFFFFF, CLEARS_UPPER, "General register, 32 bits.", False)
        add_register(names[2], &cpu.gpr[i], 2, 0xFFFF, NOTHING, "General register, 16 bits.", False)
        add_register(names[3], &cpu.gpr[i], 1, 0xFF, NOTHING, "General register, 8 bits.", False)
        if i < 4:
            add_register(f"{legacy[i][0]}h", <char *>&cpu.gpr[i] + 1, 1, 0xFF, NOTHING, "Bits 8 to 15.", False)
    add_register("rip", &cpu.rip, 8, all64, MOVES, "Instruction pointer; writing it wakes a halted processor.", False)
    add_register("eip", &cpu.rip, 4, 0xFFFFFFFF, MOVES, "Lower half of RIP.", False)
    add_register("ip", &cpu.rip, 2, 0xFFFF, MOVES, "Lower 16 bits of RIP.", False)
    add_register("rflags", NULL, 8, 0x3FFFFF, SETS_FLAGS, "All flags.", False)
    add_register("eflags", NULL, 4, 0x3FFFFF, SETS_FLAGS, "All flags.", False)
    add_register("flags", NULL, 2, 0xFFFF, SETS_FLAGS, "Lower 16 flags.", False)
    add_register("cr0", &cpu.cr0, 8, 0xE005003F, SETS_CR0, "Control register 0.", True)
    add_register("cr2", &cpu.cr2, 8, all64, NOTHING, "Linear address of the last page fault.", False)
    add_register("cr3", &cpu.cr3, 8, 0xFFFFFFFFFFFFF, SETS_CR3, "Base of the page tables.", False)
    add_register("cr4", &cpu.cr4, 8, 0xFFFFFFFF, SETS_CR4, "Control register 4.", False)
    add_register("cr8", &cpu.cr8, 8, 15, NOTHING, "Task priority.", False)
    for i in range(4):
        add_register(f"dr{i}", &cpu.dr[i], 8, all64, NOTHING, "Address of a breakpoint.", False)
    add_register("dr6", &cpu.dr[6], 8, 0xFFFFFFFF, NOTHING, "Debug status.", False)
    add_register("dr7", &cpu.dr[7], 8, 0xFFFFFFFF, CHANGES_MODE, "Debug control.", False)
    add_register("efer", &cpu.efer, 8, EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE, CHANGES_MODE, "IA32_EFER.", True)
    add_register("cpl", &cpu.cpl, 1, 3, CHANGES_MODE, "Current privilege level.", False)
    PyType_Modified(<PyTypeObject *>Processor)
    return 0

add_registers()


cdef class Segment:
    """A segment register with its hidden part, as raw fields; access has the layout of a VMCS access-rights field.

    SDM Vol. 3, "Segment Registers" and "Guest Register State".
    """
    cdef Processor processor
    cdef unsigned index
    cdef CSegment *c

    def __cinit__(self, Processor processor not None, unsigned index):
        if index >= SEGMENT_COUNT:
            raise ValueError(f"no segment register {index}")
        self.processor = processor
        self.index = index
        self.c = &processor.c.seg[index]

    cdef void changed(self) noexcept:
        segment_update(self.processor.c, self.index)
        cpu_update_mode(self.processor.c)

    @property
    def selector(self):
        """The visible part, 16 bits."""
        self.processor.clock.check()
        return self.c.selector

    @selector.setter
    def selector(self, value):
        self.processor.check_writable()
        self.c.selector = <uint16_t>argument(value, 0xFFFF, "selector")
        self.changed()

    @property
    def base(self):
        """Linear address of the segment's first byte."""
        self.processor.clock.check()
        return self.c.base

    @base.setter
    def base(self, value):
        self.processor.check_writable()
        self.c.base = argument(value, ALL64 if self.processor.c.long_mode else 0xFFFFFFFF, "base")
        self.changed()

    @property
    def limit(self):
        """The last offset in the segment, in bytes whatever the granularity."""
        self.processor.clock.check()
        return self.c.limit

    @limit.setter
    def limit(self, value):
        self.processor.check_writable()
        self.c.limit = <uint32_t>argument(value, 0xFFFFFFFF, "limit")
        self.changed()

    @property
    def access(self):
        """Access rights: type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16."""
        self.processor.clock.check()
        return self.c.access

    @access.setter
    def access(self, value):
        self.processor.check_writable()
        access = argument(value, 0xFFFFFFFF, "access")
        if access & ~0x1F0FFull:
            raise ValueError(f"access: {access:#x} sets reserved bits: {access & ~0x1F0FFull:#x}")
        self.c.access = <uint32_t>access
        self.changed()

    def load(self, selector):
        """Loads a selector as MOV to the register does.

        Raises:
            CpuFault: what the processor would raise; nothing has changed then.
            ValueError: MOV cannot load this register (CS, LDTR, TR).
        """
        self.processor.check_writable()
        value = argument(selector, 0xFFFF, "selector")
        if self.index not in (ES, SS, DS, FS, GS):
            raise ValueError("MOV cannot load CS, LDTR or TR")
        if segment_load(self.processor.c, self.index, <uint16_t>value):
            raise self.processor.fault()
        self.processor.clock.raise_error()

    def __repr__(self):
        return f"<segment {self.selector:#06x}: base {self.base:#x}, limit {self.limit:#x}, access {self.access:#x}>"


cdef class TableRegister:
    """GDTR or IDTR. SDM Vol. 3, "Memory-Management Registers"."""
    cdef Processor processor
    cdef CDescriptorTable *c

    def __cinit__(self, Processor processor not None, bint interrupts):
        self.processor = processor
        self.c = &processor.c.idtr if interrupts else &processor.c.gdtr

    @property
    def base(self):
        """Linear address of the table."""
        self.processor.clock.check()
        return self.c.base

    @base.setter
    def base(self, value):
        self.processor.check_writable()
        self.c.base = argument(value, ALL64 if self.processor.c.long_mode else 0xFFFFFFFF, "base")

    @property
    def limit(self):
        """The last offset in the table."""
        self.processor.clock.check()
        return self.c.limit

    @limit.setter
    def limit(self, value):
        self.processor.check_writable()
        self.c.limit = <uint32_t>argument(value, 0xFFFF, "limit")

    def __repr__(self):
        return f"<table: base {self.base:#x}, limit {self.limit:#x}>"


# What else the processor's state is made of, by name, for save() and load().
cdef struct Scalar:
    size_t offset
    int bytes

cdef enum:
    SCALARS = 40

cdef Scalar scalars[SCALARS]
cdef list scalar_names = []

cdef uint64_t scalar_get(const CpuState *cpu, Scalar scalar) noexcept:
    return field_get(<const char *>cpu + scalar.offset, scalar.bytes)

cdef int scalar_set(CpuState *cpu, Scalar scalar, object value) except -1:
    cdef uint64_t most = 0xFFFFFFFFFFFFFFFFull >> (64 - 8 * scalar.bytes)
    field_set(<char *>cpu + scalar.offset, scalar.bytes, within(value, most))
    return 0

cdef int add_scalar(str name, void *field, int bytes) except -1:
    scalars[len(scalar_names)] = Scalar(<size_t>field, bytes)
    scalar_names.append(name)
    return 0

cdef int add_scalars() except -1:
    cdef CpuState *cpu = NULL
    add_scalar("rip", &cpu.rip, 8)
    add_scalar("instructions", &cpu.instructions, 8)
    add_scalar("cpl", &cpu.cpl, 1)
    add_scalar("shadow", &cpu.shadow, 1)
    add_scalar("activity", &cpu.activity, 1)
    add_scalar("nmi_blocked", &cpu.nmi_blocked, 1)
    add_scalar("requests", &cpu.requests, 4)
    add_scalar("trap", &cpu.trap, 4)
    add_scalar("cr0", &cpu.cr0, 8)
    add_scalar("cr2", &cpu.cr2, 8)
    add_scalar("cr3", &cpu.cr3, 8)
    add_scalar("cr4", &cpu.cr4, 8)
    add_scalar("cr8", &cpu.cr8, 8)
    add_scalar("efer", &cpu.efer, 8)
    add_scalar("tsc_offset", &cpu.tsc_offset, 8)
    add_scalar("tsc_aux", &cpu.tsc_aux, 8)
    add_scalar("apic_base", &cpu.apic_base, 8)
    add_scalar("sysenter_cs", &cpu.sysenter_cs, 8)
    add_scalar("sysenter_esp", &cpu.sysenter_esp, 8)
    add_scalar("sysenter_eip", &cpu.sysenter_eip, 8)
    add_scalar("star", &cpu.star, 8)
    add_scalar("lstar", &cpu.lstar, 8)
    add_scalar("cstar", &cpu.cstar, 8)
    add_scalar("fmask", &cpu.fmask, 8)
    add_scalar("kernel_gs_base", &cpu.kernel_gs_base, 8)
    add_scalar("rep_resumed", &cpu.rep_resumed, 1)
    add_scalar("charge_target", &cpu.charge_target, 1)
    add_scalar("rf_loaded", &cpu.rf_loaded, 1)
    add_scalar("monitored", &cpu.monitored, 8)
    add_scalar("monitored_sum", &cpu.monitored_sum, 8)
    add_scalar("random", &cpu.random, 8)
    add_scalar("pat", &cpu.pat, 8)
    add_scalar("debugctl", &cpu.debugctl, 8)
    add_scalar("misc_enable", &cpu.misc_enable, 8)
    add_scalar("bios_sign_id", &cpu.bios_sign_id, 8)
    add_scalar("last_branch_top", &cpu.last_branches.top, 8)
    add_scalar("last_exception_from", &cpu.last_branches.exception_from, 8)
    add_scalar("last_exception_to", &cpu.last_branches.exception_to, 8)
    add_scalar("non_root", &cpu.non_root, 1)
    add_scalar("hook_skip", &cpu.hook_skip, 8)  # at a breakpoint: the next run begins with its instruction
    assert len(scalar_names) == SCALARS
    return 0

add_scalars()
