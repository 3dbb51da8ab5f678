/* CPUID, the time-stamp counter, performance counters and model-specific registers.
 * SDM Vol. 2, "CPUID"; SDM Vol. 3, "Time-Stamp Counter"; SDM Vol. 4, "Model-Specific Registers (MSRs)". */
#include "exec.h"
#include "segment.h"

/* --- CPUID --- */

static const CpuidLeaf *find_leaf(const Model *model, uint32_t leaf, uint32_t subleaf)
{
    for (uint32_t i = 0; i < model->cpuid_count; i++)
        if (model->cpuid[i].leaf == leaf && model->cpuid[i].subleaf == subleaf)
            return &model->cpuid[i];
    return NULL;
}

/* Leaves whose output depends on ECX: elsewhere it is ignored. */
static bool has_subleaves(uint32_t leaf)
{
    return leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd || (leaf >= 0xf && leaf <= 0x1f);
}

/* A leaf past the last one gives the data of the last basic leaf; a missing one in between gives zeros. */
static CpuidLeaf cpuid(const Model *model, uint32_t leaf, uint32_t subleaf)
{
    const CpuidLeaf *basic = find_leaf(model, 0, 0), *extended = find_leaf(model, 0x80000000, 0);
    const uint32_t last = leaf >= 0x80000000 ? (extended ? extended->eax : 0) : basic ? basic->eax : 0;
    if (leaf > last && basic)
        leaf = basic->eax;
    const CpuidLeaf *found = find_leaf(model, leaf, has_subleaves(leaf) ? subleaf : 0);
    return found ? *found : (CpuidLeaf){0};
}

COLD_BODY(exec_cpuid)
{
    if (cpu->non_root)
        return vm_exit_instruction(cpu, EXIT_REASON_CPUID, 0);
    const uint32_t leaf = R32(RAX * 8);
    CpuidLeaf data = cpuid(cpu->model, leaf, R32(RCX * 8));
    if (leaf == 1) {
        if (!(cpu->apic_base & APIC_BASE_ENABLE))
            data.edx &= ~CPUID_1_EDX_APIC;
        if (cpu->cr4 & CR4_OSXSAVE)
            data.ecx |= CPUID_1_ECX_OSXSAVE;
        if (cpu->model->msrs.misc_enable && !(cpu->misc_enable & MISC_ENABLE_MONITOR))
            data.ecx &= ~CPUID_1_ECX_MONITOR;
    }
    if (leaf == 0x80000001 && (cpu->misc_enable & MISC_ENABLE_XD_DISABLE))
        data.edx &= ~CPUID_80000001_EDX_NX;
    SET_R32(RAX * 8, data.eax);
    SET_R32(RBX * 8, data.ebx);
    SET_R32(RCX * 8, data.ecx);
    SET_R32(RDX * 8, data.edx);
    return STATUS_OK;
}

/* --- counters --- */

static void set_edx_eax(CPU *cpu, uint64_t value)
{
    SET_R32(RAX * 8, value);
    SET_R32(RDX * 8, value >> 32);
}

/* A guest sees the counter with the offset that its VMM gives it. */
static uint64_t time_stamp(const CPU *cpu)
{
    const uint64_t offset = guest_proc(cpu, PROC_USE_TSC_OFFSETTING) ? cpu->vmx.field[TSC_OFFSET] : 0;
    return clock_now(cpu->clock) + cpu->tsc_offset + offset;
}

COLD_BODY(exec_rdtsc)
{
    if ((cpu->cr4 & CR4_TSD) && cpu->cpl)
        return fault_gp(cpu, 0);
    if (guest_proc(cpu, PROC_RDTSC_EXITING))
        return vm_exit_instruction(cpu, EXIT_REASON_RDTSC, 0);
    set_edx_eax(cpu, time_stamp(cpu));
    return STATUS_OK;
}

/* A guest has RDTSCP and RDPID where its VMM lets it. */
static bool hidden_from_guest(const CPU *cpu) { return cpu->non_root && !guest_proc2(cpu, PROC2_ENABLE_RDTSCP); }

COLD_BODY(exec_rdtscp)
{
    if (hidden_from_guest(cpu))
        return fault_ud(cpu);
    if ((cpu->cr4 & CR4_TSD) && cpu->cpl)
        return fault_gp(cpu, 0);
    if (guest_proc(cpu, PROC_RDTSC_EXITING))
        return vm_exit_instruction(cpu, EXIT_REASON_RDTSCP, 0);
    set_edx_eax(cpu, time_stamp(cpu));
    SET_R32(RCX * 8, cpu->tsc_aux);
    return STATUS_OK;
}

COLD_BODY(exec_rdpid_r32)
{
    if (hidden_from_guest(cpu))
        return fault_ud(cpu);
    SET_R32(insn->dst, cpu->tsc_aux);
    return STATUS_OK;
}
COLD_BODY(exec_rdpid_r64)
{
    if (hidden_from_guest(cpu))
        return fault_ud(cpu);
    SET_R64(insn->dst, cpu->tsc_aux);
    return STATUS_OK;
}

/* No model has performance counters: every number is out of range. */
COLD_BODY(exec_rdpmc)
{
    if (cpu->cpl && !(cpu->cr4 & CR4_PCE))
        return fault_gp(cpu, 0);
    return guest_proc(cpu, PROC_RDPMC_EXITING) ? vm_exit_instruction(cpu, EXIT_REASON_RDPMC, 0) : fault_gp(cpu, 0);
}

/* --- RDMSR, WRMSR --- */

/* A register that is a field of CPU, and what it belongs to. */
typedef struct Msr {
    uint32_t number;
    uint8_t since;     /* the processors that have it */
    bool canonical;    /* holds an address */
    uint64_t writable; /* bits that may be set */
    size_t offset;     /* of the field in CPU */
} Msr;

enum { PLAIN, ADDRESS };
static const Msr registers[] = {
#define MSR(name, number, since, kind, writable, field) {number, SINCE_##since, kind == ADDRESS, writable, offsetof(CPU, field)},
#include "msr.def"
#undef MSR
};

static const Msr *find_msr(const CPU *cpu, uint32_t number)
{
    for (size_t i = 0; i < sizeof registers / sizeof *registers; i++)
        if (registers[i].number == number)
            return cpu->model->has[registers[i].since] ? &registers[i] : NULL;
    return NULL;
}

static bool has_nx(const Model *model)
{
    const CpuidLeaf *extended = find_leaf(model, 0x80000001, 0);
    return extended && (extended->edx & CPUID_80000001_EDX_NX);
}

/* LMA is read-only. */
uint64_t efer_mask(const CPU *cpu)
{
    const Model *model = cpu->model;
    return (model->has[SINCE_SYSCALL] ? EFER_SCE : 0) | (model->has[SINCE_LM] ? EFER_LME : 0) |
           (has_nx(model) && !(cpu->misc_enable & MISC_ENABLE_XD_DISABLE) ? EFER_NXE : 0);
}

static bool has_pat(const CPU *cpu) { return cpuid(cpu->model, 1, 0).edx & CPUID_1_EDX_PAT; }

/* SDM Vol. 3, "IA32_PAT MSR": memory types 0, 1, 4 to 7. */
bool pat_valid(uint64_t value)
{
    for (unsigned i = 0; i < 8; i++) {
        const unsigned type = value >> 8 * i & 0xff;
        if (type > 7 || type == 2 || type == 3)
            return false;
    }
    return true;
}

/* --- what a model's VMX can do: SDM Vol. 3, appendix "VMX Capability Reporting Facility" --- */

uint32_t control_must(const CPU *cpu, ControlWord word, bool strict)
{
    static const uint32_t default1[CONTROL_WORDS] = {0x16, 0x0401e172, 0, 0x36dff, 0x11ff};
    static const uint32_t free1[CONTROL_WORDS] = {0, PROC_CR3_LOAD_EXITING | PROC_CR3_STORE_EXITING, 0,
                                                  EXIT_SAVE_DEBUG_CONTROLS, ENTRY_LOAD_DEBUG_CONTROLS};
    return strict || !(cpu->model->vmx.misc >> 63) ? default1[word] : default1[word] & ~free1[word];
}

uint32_t control_may(const CPU *cpu, ControlWord word)
{
    return cpu->model->vmx.allowed[word] | control_must(cpu, word, true);
}

/* Bit 63 of VmxModel.misc says that there are registers with TRUE in their names; IA32_VMX_MISC itself has it clear. */
static bool has_true_controls(const CPU *cpu) { return cpu->model->vmx.misc >> 63; }

static uint64_t controls(const CPU *cpu, ControlWord word, bool strict)
{
    return control_must(cpu, word, strict) | (uint64_t)control_may(cpu, word) << 32;
}

static bool read_vmx_msr(const CPU *cpu, uint32_t number, uint64_t *value)
{
    const VmxModel *vmx = &cpu->model->vmx;
    if (!cpu->model->has[SINCE_VMX])
        return false;
    const uint64_t write_back = 6;
    switch (number) {
    case IA32_FEATURE_CONTROL: *value = cpu->vmx.feature_control; return true;
    case IA32_VMX_BASIC: /* INS and OUTS give details; 48: addresses of 32 bits alone, on processors without 64-bit mode */
        *value = vmx->revision | (uint64_t)VMCS_BYTES << 32 | write_back << 50 | 1ull << 54 |
                 (has_true_controls(cpu) ? 1ull << 55 : 0) | (cpu->model->has[SINCE_LM] ? 0 : 1ull << 48);
        return true;
    case IA32_VMX_PINBASED_CTLS: *value = controls(cpu, WORD_PIN, true); return true;
    case IA32_VMX_PROCBASED_CTLS: *value = controls(cpu, WORD_PROC, true); return true;
    case IA32_VMX_EXIT_CTLS: *value = controls(cpu, WORD_EXIT, true); return true;
    case IA32_VMX_ENTRY_CTLS: *value = controls(cpu, WORD_ENTRY, true); return true;
    case IA32_VMX_MISC: *value = vmx->misc & ~(1ull << 63); return true;
    case IA32_VMX_CR0_FIXED0: *value = VMX_CR0_FIXED0; return true;
    case IA32_VMX_CR0_FIXED1: *value = 0xffffffff; return true;
    case IA32_VMX_CR4_FIXED0: *value = VMX_CR4_FIXED0; return true;
    case IA32_VMX_CR4_FIXED1: *value = cpu->model->cr4_mask; return true;
    case IA32_VMX_VMCS_ENUM: *value = vmcs_highest_index(cpu); return true;
    default: break;
    }
    if (number == IA32_VMX_PROCBASED_CTLS2 && (vmx->allowed[WORD_PROC] & (uint32_t)PROC_ACTIVATE_SECONDARY_CONTROLS))
        *value = (uint64_t)vmx->allowed[WORD_PROC2] << 32;
    else if (number == IA32_VMX_EPT_VPID_CAP && vmx->ept_vpid)
        *value = vmx->ept_vpid;
    else if (number == IA32_VMX_TRUE_PINBASED_CTLS && has_true_controls(cpu))
        *value = controls(cpu, WORD_PIN, false);
    else if (number == IA32_VMX_TRUE_PROCBASED_CTLS && has_true_controls(cpu))
        *value = controls(cpu, WORD_PROC, false);
    else if (number == IA32_VMX_TRUE_EXIT_CTLS && has_true_controls(cpu))
        *value = controls(cpu, WORD_EXIT, false);
    else if (number == IA32_VMX_TRUE_ENTRY_CTLS && has_true_controls(cpu))
        *value = controls(cpu, WORD_ENTRY, false);
    else
        return false;
    return true;
}

/* --- registers that each model has its own --- */

/* IA32_MISC_ENABLE: the bits that can be changed. Those of features that CPUID does not report stay as they are. */
static uint64_t misc_enable_mask(const Model *model)
{
    return MISC_ENABLE_FAST_STRINGS | (cpuid(model, 1, 0).ecx & CPUID_1_ECX_MONITOR ? MISC_ENABLE_MONITOR : 0) |
           (has_nx(model) ? MISC_ENABLE_XD_DISABLE : 0);
}

static bool read_model_msr(CPU *cpu, uint32_t number, uint64_t *value)
{
    const MsrModel *msrs = &cpu->model->msrs;
    const uint64_t *branch = branch_register(cpu, number);
    if (branch) {
        *value = *branch;
        return true;
    }
    if (number == IA32_MISC_ENABLE && msrs->misc_enable) {
        *value = cpu->misc_enable;
        return true;
    }
    for (uint32_t i = 0; i < msrs->constant_count; i++)
        if (msrs->constants[i].number == number) {
            *value = msrs->constants[i].value;
            return true;
        }
    return false;
}

static int write_model_msr(CPU *cpu, uint32_t number, uint64_t value)
{
    uint64_t *branch = branch_register(cpu, number);
    if (branch) {
        const bool top = branch == &cpu->last_branches.top;
        if (top ? value >= cpu->model->msrs.branches : cpu->model->has[SINCE_LM] ? !is_canonical(value) : value >> 32 != 0)
            return fault_gp(cpu, 0);
        *branch = value;
        return STATUS_LOOK;
    }
    if (number == IA32_BIOS_UPDT_TRIG && cpu->model->has[SINCE_MSR])
        return STATUS_LOOK; /* no update is one for this processor; in a guest none is loaded anyway */
    if (number != IA32_MISC_ENABLE || !cpu->model->msrs.misc_enable ||
        ((value ^ cpu->misc_enable) & ~misc_enable_mask(cpu->model)))
        return fault_gp(cpu, 0);
    cpu->misc_enable = value;
    return STATUS_LOOK;
}

/* --- all of them --- */

bool msr_read(CPU *cpu, uint32_t number, uint64_t *value)
{
    const Msr *msr = find_msr(cpu, number);
    if (msr)
        *value = R64(msr->offset);
    else if (number == IA32_TSC && cpu->model->has[SINCE_TSC])
        *value = time_stamp(cpu);
    else if (number == (uint32_t)IA32_EFER && efer_mask(cpu))
        *value = cpu->efer;
    else if (number == IA32_PAT && has_pat(cpu))
        *value = cpu->pat;
    else
        return read_vmx_msr(cpu, number, value) || read_model_msr(cpu, number, value);
    return true;
}

static int write_efer(CPU *cpu, uint64_t value)
{
    const uint64_t mask = efer_mask(cpu);
    if (value & ~(mask | EFER_LMA))
        return fault_gp(cpu, 0);
    if (((value ^ cpu->efer) & EFER_LME) && (cpu->cr0 & CR0_PG))
        return fault_gp(cpu, 0);
    const bool rights_change = (value ^ cpu->efer) & EFER_NXE;
    cpu->efer = (value & mask) | (cpu->efer & EFER_LMA);
    if (rights_change)
        tlb_flush(cpu, true);
    cpu_update_mode(cpu);
    return STATUS_LOOK;
}

int msr_write(CPU *cpu, uint32_t number, uint64_t value)
{
    const Msr *msr = find_msr(cpu, number);
    if (msr) {
        if ((value & ~msr->writable) || (msr->canonical && cpu->model->has[SINCE_LM] && !is_canonical(value)))
            return fault_gp(cpu, 0);
        R64(msr->offset) = value;
        return STATUS_LOOK;
    }
    if (number == IA32_TSC && cpu->model->has[SINCE_TSC]) {
        cpu->tsc_offset = value - clock_now(cpu->clock);
        return STATUS_LOOK;
    }
    if (number == (uint32_t)IA32_EFER && efer_mask(cpu))
        return write_efer(cpu, value);
    if (number == IA32_PAT && has_pat(cpu) && pat_valid(value)) {
        cpu->pat = value;
        return STATUS_LOOK;
    }
    if (number == IA32_FEATURE_CONTROL && cpu->model->has[SINCE_VMX] && !(cpu->vmx.feature_control & FEATURE_CONTROL_LOCK) &&
        !(value & ~(uint64_t)(FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMXON))) {
        cpu->vmx.feature_control = value;
        return STATUS_LOOK;
    }
    return write_model_msr(cpu, number, value);
}

/* SDM Vol. 3, "MSR-Bitmap Address": reads of low and of high numbers, then writes of them; other numbers exit. */
static bool exits_on_msr(const CPU *cpu, uint32_t number, bool write)
{
    if (!cpu->non_root)
        return false;
    const uint32_t index = number & 0x1fff;
    if (!guest_proc(cpu, PROC_USE_MSR_BITMAPS) || (number != index && number != (0xc0000000 | index)))
        return true;
    const uint64_t map = cpu->vmx.field[ADDRESS_OF_MSR_BITMAPS] + (number == index ? 0 : 0x400) + (write ? 0x800 : 0);
    return bus_read(cpu->bus, map + index / 8, 1) >> (index & 7) & 1;
}

COLD_BODY(exec_rdmsr)
{
    const uint32_t number = R32(RCX * 8);
    uint64_t value;
    if (cpu->cpl)
        return fault_gp(cpu, 0);
    if (exits_on_msr(cpu, number, false))
        return vm_exit_instruction(cpu, EXIT_REASON_RDMSR, 0);
    if (!msr_read(cpu, number, &value))
        return fault_gp(cpu, 0);
    set_edx_eax(cpu, value);
    return STATUS_OK;
}

COLD_BODY(exec_wrmsr)
{
    const uint32_t number = R32(RCX * 8);
    if (cpu->cpl)
        return fault_gp(cpu, 0);
    if (exits_on_msr(cpu, number, true))
        return vm_exit_instruction(cpu, EXIT_REASON_WRMSR, 0);
    return msr_write(cpu, number, R32(RAX * 8) | (uint64_t)R32(RDX * 8) << 32);
}
