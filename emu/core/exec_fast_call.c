/* SYSENTER, SYSEXIT, SYSCALL, SYSRET: to the operating system and back without descriptors.
 * SDM Vol. 2, of each; SDM Vol. 3, "Fast System Calls in 64-Bit Mode". */
#include "exec.h"
#include "segment.h"

#define FLAT_CODE (AR_CODE | AR_RW | AR_ACCESSED)
#define FLAT_DATA (AR_RW | AR_ACCESSED | AR_DB)

/* CS and SS of a level, both flat. */
static void enter_flat(CPU *cpu, uint16_t code, uint16_t stack, unsigned cpl, bool code64)
{
    cpu->cpl = (uint8_t)cpl;
    segment_set_flat(cpu, SS, (uint16_t)((stack & 0xfffc) | cpl), FLAT_DATA | cpl << 5);
    segment_set_flat(cpu, CS, (uint16_t)((code & 0xfffc) | cpl), FLAT_CODE | cpl << 5 | (code64 ? AR_L : AR_DB));
    code_segment_changed(cpu);
}

COLD_BODY(exec_sysenter)
{
    if (!cr0_pe(cpu) || is_null((uint16_t)cpu->sysenter_cs))
        return fault_gp(cpu, 0);
    const uint16_t code = (uint16_t)cpu->sysenter_cs;
    cpu_set_flags(cpu, 0, FLAG_VM | FLAG_IF | FLAG_RF);
    enter_flat(cpu, code, (uint16_t)(code + 8), 0, cpu->long_mode);
    cpu->r[RSP] = cpu->long_mode ? cpu->sysenter_esp : (uint32_t)cpu->sysenter_esp;
    cpu->rip = cpu->long_mode ? cpu->sysenter_eip : (uint32_t)cpu->sysenter_eip;
    return STATUS_BRANCH;
}

static int sysexit(CPU *cpu, bool to_64)
{
    const uint16_t code = (uint16_t)cpu->sysenter_cs;
    if (!cr0_pe(cpu) || is_null(code) || cpu->cpl)
        return fault_gp(cpu, 0);
    if (to_64 && (!is_canonical(cpu->r[RCX]) || !is_canonical(cpu->r[RDX])))
        return fault_gp(cpu, 0);
    const unsigned offset = to_64 ? 32 : 16;
    enter_flat(cpu, (uint16_t)(code + offset), (uint16_t)(code + offset + 8), 3, to_64);
    cpu->r[RSP] = to_64 ? cpu->r[RCX] : R32(RCX * 8);
    cpu->rip = to_64 ? cpu->r[RDX] : R32(RDX * 8);
    return STATUS_BRANCH;
}

COLD_BODY(exec_sysexit) { return sysexit(cpu, insn->osize == OSIZE64); }

COLD_BODY(exec_syscall)
{
    if (!cpu->code64 || !(cpu->efer & EFER_SCE))
        return fault_ud(cpu);
    const uint16_t code = (uint16_t)(cpu->star >> 32);
    cpu->r[RCX] = insn_next_rip(cpu, insn);
    cpu->r[R11] = cpu_flags(cpu);
    cpu_set_flags(cpu, 0, (uint32_t)cpu->fmask | FLAG_RF);
    enter_flat(cpu, code, (uint16_t)(code + 8), 0, true);
    cpu->rip = cpu->lstar;
    return STATUS_BRANCH;
}

static int sysret(CPU *cpu, bool to_64)
{
    if (!cpu->code64 || !(cpu->efer & EFER_SCE))
        return fault_ud(cpu);
    if (cpu->cpl || (to_64 && !is_canonical(cpu->r[RCX])))
        return fault_gp(cpu, 0);
    const uint16_t base = (uint16_t)(cpu->star >> 48);
    cpu_set_flags(cpu, (uint32_t)cpu->r[R11], 0x003c7fd7); /* not RF and VM */
    enter_flat(cpu, (uint16_t)(to_64 ? base + 16 : base), (uint16_t)(base + 8), 3, to_64);
    cpu->rip = to_64 ? cpu->r[RCX] : R32(RCX * 8);
    return STATUS_BRANCH;
}

COLD_BODY(exec_sysret) { return sysret(cpu, insn->osize == OSIZE64); }
