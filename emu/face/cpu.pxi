# The bare processor: memory and nothing else.

cdef enum:
    FLAT_CODE = 0x9B   # AR_P | AR_S | AR_CODE | AR_RW | AR_ACCESSED
    FLAT_DATA = 0x93   # AR_P | AR_S | AR_RW | AR_ACCESSED


cdef class Cpu(Processor):
    """A bare processor with memory from address 0, no chipset, and flat segments; the stack is at the top of memory.

    Args:
        bits: 16, real-address mode; 32, flat protected mode at CPL 0; 64, 64-bit code without paging, a test bench that
            no real processor has.
        memory: size in bytes.
        cpu: a processor model.
        timing: "static", the model's clocks; "unit", one cycle an instruction.
        faults: "raise" makes exceptions CpuFault and ends the run at INT n; "deliver" sends them through the guest's
            IVT or IDT.

    HLT ends a run. Nobody answers at ports until something is mapped on `bus`.

    Raises:
        ConfigError: an unknown model, timing, size of code or way with faults; a memory that is not whole pages of 4096
            bytes, or not within 4 KiB to 1 TiB.
        MemoryError: the host has no room for it.
    """
    cdef readonly Memory memory

    def __cinit__(self, bits=32, memory=1 << 20, str cpu not None=models.DEFAULT, str timing not None="static",
                  str faults not None="raise"):
        if bits not in (16, 32, 64):
            raise ConfigError(f"code of {bits!r} bits: 16, 32 or 64")
        if faults not in ("raise", "deliver"):
            raise ConfigError(f"faults={faults!r}: raise or deliver")
        cdef Model model = load_model(cpu, timing)
        cdef Clock clock = Clock(model.c.hz)
        cdef Bus bus = Bus(clock)
        try:
            self.memory = Memory(memory)
        except (TypeError, ValueError) as error:
            raise ConfigError(str(error)) from None
        bus.map_memory(0, self.memory)
        self.build(bus, model)
        self._run_flags = RUN_STOP_HLT | (RUN_RAISE if faults == "raise" else 0)
        self.set_flat(bits)

    cdef void set_flat(self, int bits) noexcept:
        cdef CpuState *cpu = self.c
        cdef unsigned i
        cdef uint64_t top = self.memory.size
        cpu.cr0 = CR0_ET | (0 if bits == 16 else CR0_PE)
        cpu.efer = (EFER_LME | EFER_LMA) if bits == 64 else 0
        cpu.idtr.base = 0
        cpu.idtr.limit = 0x3FF if bits == 16 else 0
        cpu.gdtr.base = 0
        cpu.gdtr.limit = 0
        for i in range(6):
            cpu.seg[i].selector = 0 if bits == 16 else 0x08 if i == CS else 0x10
            cpu.seg[i].base = 0
            cpu.seg[i].limit = 0xFFFF if bits == 16 else 0xFFFFFFFF
            cpu.seg[i].access = FLAT_CODE if i == CS else FLAT_DATA
            if bits != 16:
                cpu.seg[i].access |= AR_G
            if bits == 32 or (bits == 64 and i != CS):
                cpu.seg[i].access |= AR_DB
            elif bits == 64:
                cpu.seg[i].access |= AR_L
            segment_update(cpu, i)
        cpu.rip = 0
        cpu_update_mode(cpu)
        if bits == 16:
            cpu.gpr[RSP] = min(top, <uint64_t>0x10000) & 0xFFFF
        elif bits == 32:
            cpu.gpr[RSP] = <uint32_t>min(top, <uint64_t>0xFFFFFFFC)
        else:
            cpu.gpr[RSP] = top

    def load(self, address, data):
        """Writes code to memory and points RIP at it.

        Raises:
            ValueError: it leaves the memory, or begins past the code segment's limit.
        """
        self.check_writable()
        cdef uint64_t pa = address_of(address)
        if not self.c.code64 and pa - self.c.seg[CS].base > self.c.seg[CS].limit:
            raise ValueError(f"{pa:#x} lies outside the code segment")
        self.memory.put(pa, data)
        self.move_to(pa - (0 if self.c.code64 else self.c.seg[CS].base))
