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
    const uint32_t leaf = R32(RAX * 8);
    CpuidLeaf data = cpuid(cpu->model, leaf, R32(RCX * 8));
    if (leaf == 1) {
        if (!(cpu->apic_base & APIC_BASE_ENABLE))
            data.edx &= ~CPUID_1_EDX_APIC;
        if (cpu->cr4 & CR4_OSXSAVE)
            data.ecx |= CPUID_1_ECX_OSXSAVE;
    }
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

static uint64_t time_stamp(const CPU *cpu) { return clock_now(cpu->clock) + cpu->tsc_offset; }

COLD_BODY(exec_rdtsc)
{
    if ((cpu->cr4 & CR4_TSD) && cpu->cpl)
        return fault_gp(cpu, 0);
    set_edx_eax(cpu, time_stamp(cpu));
    return STATUS_OK;
}

COLD_BODY(exec_rdtscp)
{
    if ((cpu->cr4 & CR4_TSD) && cpu->cpl)
        return fault_gp(cpu, 0);
    set_edx_eax(cpu, time_stamp(cpu));
    SET_R32(RCX * 8, cpu->tsc_aux);
    return STATUS_OK;
}

COLD_BODY(exec_rdpid_r32) { SET_R32(insn->dst, cpu->tsc_aux); return STATUS_OK; }
COLD_BODY(exec_rdpid_r64) { SET_R64(insn->dst, cpu->tsc_aux); return STATUS_OK; }

/* No model has performance counters: every number is out of range. */
COLD_BODY(exec_rdpmc) { return fault_gp(cpu, 0); }

/* --- RDMSR, WRMSR --- */

/* A register that is a field of CPU, and what it belongs to. */
typedef struct Msr {
    uint32_t number;
    uint8_t since;     /* the processors that have it */
    bool canonical;    /* holds an address */
    uint64_t writable; /* bits that may be set */
    size_t offset;     /* of the field in CPU */
} Msr;

static const Msr registers[] = {
    {IA32_APIC_BASE, SINCE_MSR, false, 0xffffff900, offsetof(CPU, apic_base)},
    {IA32_SYSENTER_CS, SINCE_SEP, false, 0xffffffff, offsetof(CPU, sysenter_cs)},
    {IA32_SYSENTER_ESP, SINCE_SEP, true, UINT64_MAX, offsetof(CPU, sysenter_esp)},
    {IA32_SYSENTER_EIP, SINCE_SEP, true, UINT64_MAX, offsetof(CPU, sysenter_eip)},
    {IA32_STAR, SINCE_SYSCALL, false, UINT64_MAX, offsetof(CPU, star)},
    {IA32_LSTAR, SINCE_SYSCALL, true, UINT64_MAX, offsetof(CPU, lstar)},
    {IA32_CSTAR, SINCE_SYSCALL, true, UINT64_MAX, offsetof(CPU, cstar)},
    {IA32_FMASK, SINCE_SYSCALL, false, 0xffffffff, offsetof(CPU, fmask)},
    {IA32_FS_BASE, SINCE_LM, true, UINT64_MAX, offsetof(CPU, seg[FS].base)},
    {IA32_GS_BASE, SINCE_LM, true, UINT64_MAX, offsetof(CPU, seg[GS].base)},
    {IA32_KERNEL_GS_BASE, SINCE_LM, true, UINT64_MAX, offsetof(CPU, kernel_gs_base)},
    {IA32_TSC_AUX, SINCE_RDTSCP, false, 0xffffffff, offsetof(CPU, tsc_aux)},
};

static const Msr *find_msr(const CPU *cpu, uint32_t number)
{
    for (size_t i = 0; i < sizeof registers / sizeof *registers; i++)
        if (registers[i].number == number)
            return cpu->model->has[registers[i].since] ? &registers[i] : NULL;
    return NULL;
}

/* Bits of IA32_EFER that the model has; LMA is read-only. */
static uint64_t efer_mask(const Model *model)
{
    const CpuidLeaf extended = cpuid(model, 0x80000001, 0);
    const bool known = find_leaf(model, 0x80000001, 0);
    return (model->has[SINCE_SYSCALL] ? EFER_SCE : 0) | (model->has[SINCE_LM] ? EFER_LME : 0) |
           (known && (extended.edx & CPUID_80000001_EDX_NX) ? EFER_NXE : 0);
}

COLD_BODY(exec_rdmsr)
{
    const uint32_t number = R32(RCX * 8);
    const Msr *msr = find_msr(cpu, number);
    if (cpu->cpl)
        return fault_gp(cpu, 0);
    if (msr)
        set_edx_eax(cpu, R64(msr->offset));
    else if (number == IA32_TSC && cpu->model->has[SINCE_TSC])
        set_edx_eax(cpu, time_stamp(cpu));
    else if (number == IA32_EFER && efer_mask(cpu->model))
        set_edx_eax(cpu, cpu->efer);
    else
        return fault_gp(cpu, 0);
    return STATUS_OK;
}

static int write_efer(CPU *cpu, uint64_t value)
{
    const uint64_t mask = efer_mask(cpu->model);
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

COLD_BODY(exec_wrmsr)
{
    const uint32_t number = R32(RCX * 8);
    const uint64_t value = R32(RAX * 8) | (uint64_t)R32(RDX * 8) << 32;
    const Msr *msr = find_msr(cpu, number);
    if (cpu->cpl)
        return fault_gp(cpu, 0);
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
    if (number == IA32_EFER && efer_mask(cpu->model))
        return write_efer(cpu, value);
    return fault_gp(cpu, 0);
}
