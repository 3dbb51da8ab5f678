# The processor model: what emu/models.py loads, as the core wants it.

cdef extern from "emu/core/cpu.h" nogil:
    enum:
        SINCES
        TIMING_ROWS
        CASE_COUNT
        EXIT_REASONS
    ctypedef struct RowClocks:
        uint16_t reg
        uint16_t mem
        uint16_t rep
        uint16_t variable
        uint16_t cases[CASE_COUNT]
    ctypedef struct EventClocks:
        uint32_t interrupt_real
    ctypedef struct CpuidLeaf:
        uint32_t leaf
        uint32_t subleaf
        uint32_t eax
        uint32_t ebx
        uint32_t ecx
        uint32_t edx
    ctypedef struct VmxModel:
        uint32_t revision
        uint32_t allowed[5]
        uint64_t misc
        uint64_t ept_vpid
        uint32_t entry_clocks
        uint32_t exit_clocks[EXIT_REASONS]
    enum:
        LAST_BRANCHES
        MSR_CONSTANTS
    ctypedef struct MsrConstant "struct MsrConstant":
        uint32_t number
        uint64_t value
    ctypedef struct MsrModel:
        uint64_t misc_enable
        uint32_t branches
        uint32_t branch_from
        uint32_t branch_to
        uint32_t branch_top
        uint32_t exception_from
        uint32_t exception_to
        uint32_t linear
        uint32_t constant_count
        MsrConstant constants[MSR_CONSTANTS]
    ctypedef struct CModel "Model":
        uint8_t level
        uint8_t has[SINCES]
        uint64_t cr4_mask
        uint32_t eflags_mask
        uint32_t physical_bits
        uint32_t cpuid_count
        CpuidLeaf cpuid[32]
        uint32_t reset_edx
        uint8_t max_instruction_length
        uint64_t hz
        VmxModel vmx
        MsrModel msrs
        RowClocks clocks[TIMING_ROWS]
        EventClocks event_clocks

TIMINGS = ("unit", "static")

cdef dict loaded_models = {}


cdef class Model:
    """What a processor can do and what its instructions cost.

    Args:
        name: one of `emu.models.names()`.
        timing: "static", the model's clocks for each instruction; or "unit", one cycle each.

    Raises:
        ConfigError: there is no such model or timing.
    """
    cdef CModel *c
    cdef readonly str name
    cdef readonly str title
    cdef readonly str timing

    def __cinit__(self, str name not None=models.DEFAULT, str timing not None="static"):
        if timing not in TIMINGS:
            raise ConfigError(f"unknown timing {timing!r}; there are: {', '.join(TIMINGS)}")
        data = models.load(name)
        if data["version"] != 5 or len(data["has"]) != SINCES or data["rows"] > TIMING_ROWS:
            raise BadInput(f"the compiled model {name!r} is of another version: build again")
        self.c = <CModel *>calloc(1, sizeof(CModel))
        if self.c == NULL:
            raise MemoryError("no room for a processor model")
        self.name = name
        self.title = data["title"]
        self.timing = timing
        self.c.level = data["level"]
        for number, has in enumerate(data["has"]):
            self.c.has[<int>number] = has
        self.c.cr4_mask = data["cr4"]
        self.c.eflags_mask = data["eflags"]
        self.c.physical_bits = data["physical_bits"]
        self.c.reset_edx = data["reset_edx"]
        self.c.max_instruction_length = 15
        self.c.hz = data["hz"]
        self.fill_cpuid(data["cpuid"])
        self.fill_clocks(data)
        self.fill_vmx(data["vmx"])
        self.fill_msrs(data["msrs"])

    def __dealloc__(self):
        free(self.c)

    cdef int fill_cpuid(self, list leaves) except -1:
        cdef uint32_t *leaf
        if len(leaves) > <int>(sizeof(self.c.cpuid) / sizeof(CpuidLeaf)):
            raise BadInput(f"the compiled model {self.name!r} has too many CPUID leaves")
        for number, values in enumerate(leaves):
            leaf = <uint32_t *>&self.c.cpuid[<int>number]
            for i in range(6):
                leaf[<int>i] = values[i]
        self.c.cpuid_count = len(leaves)
        return 0

    cdef int fill_vmx(self, dict data) except -1:
        cdef VmxModel *vmx = &self.c.vmx
        vmx.revision, vmx.misc, vmx.ept_vpid = data["revision"], data["misc"], data["ept_vpid"]
        for word, allowed in enumerate(data["allowed"]):
            vmx.allowed[<int>word] = allowed
        vmx.entry_clocks = 1 if self.timing == "unit" else data["entry"]
        for reason, clocks in enumerate(data["exits"]):
            vmx.exit_clocks[<int>reason] = 1 if self.timing == "unit" else clocks
        return 0

    cdef int fill_msrs(self, dict data) except -1:
        cdef MsrModel *msrs = &self.c.msrs
        if data["last_branches"] > LAST_BRANCHES or len(data["constants"]) > MSR_CONSTANTS:
            raise BadInput(f"the compiled model {self.name!r} has too many model-specific registers")
        msrs.misc_enable, msrs.linear = data["misc_enable"], data["linear"]
        msrs.branches, msrs.branch_from, msrs.branch_to = (
            data["last_branches"], data["last_branch_from"], data["last_branch_to"])
        msrs.branch_top = data["last_branch_top"]
        msrs.exception_from, msrs.exception_to = data["last_exception_from"], data["last_exception_to"]
        for i, (number, value) in enumerate(data["constants"]):
            msrs.constants[<int>i].number, msrs.constants[<int>i].value = number, value
        msrs.constant_count = len(data["constants"])
        return 0

    cdef int fill_clocks(self, dict data) except -1:
        cdef bytes packed = a2b_base64(data["clocks"])
        cdef uint32_t *event = <uint32_t *>&self.c.event_clocks
        cdef int number
        if len(packed) != data["rows"] * sizeof(RowClocks) or len(data["events"]) * 4 != sizeof(EventClocks):
            raise BadInput(f"the compiled model {self.name!r} is of another version: build again")
        if self.timing == "unit":
            for number in range(TIMING_ROWS):
                self.c.clocks[number].reg = self.c.clocks[number].mem = 1
            for number in data["repeated"]:
                self.c.clocks[number].rep = self.c.clocks[number].variable = 1
            return 0
        memmove(self.c.clocks, <const char *>packed, len(packed))
        for number, clocks in enumerate(data["events"]):
            event[number] = clocks
        return 0

    @property
    def hz(self):
        """Cycles in a second."""
        return self.c.hz


def load_model(str name, str timing):
    """The model, made once in a process."""
    model = loaded_models.get((name, timing))
    if model is None:
        model = loaded_models[name, timing] = Model(name, timing)
    return model
