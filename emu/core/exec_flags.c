/* EFLAGS as an operand: CLI, STI, PUSHF, POPF, CLAC, STAC. SDM Vol. 2, of each; SDM Vol. 3, "Protected-Mode Virtual
 * Interrupts" and "Class 2 - Maskable Hardware Interrupt Handling in Virtual-8086 Mode Using the Virtual Interrupt
 * Mechanism" for VIF and VIP. */
#include "exec.h"
#include "segment.h"

/* What CLI and STI may change. */
typedef enum InterruptFlag { CHANGES_IF, CHANGES_VIF, CHANGES_NOTHING } InterruptFlag;

static InterruptFlag interrupt_flag(const CPU *cpu)
{
    if (cpu->v86)
        return iopl(cpu) == 3 ? CHANGES_IF : cpu->cr4 & CR4_VME ? CHANGES_VIF : CHANGES_NOTHING;
    if (cpu->cpl <= iopl(cpu))
        return CHANGES_IF;
    return cpu->cpl == 3 && (cpu->cr4 & CR4_PVI) ? CHANGES_VIF : CHANGES_NOTHING;
}

COLD_BODY(exec_cli)
{
    switch (interrupt_flag(cpu)) {
    case CHANGES_IF: cpu->eflags &= ~FLAG_IF; return STATUS_OK;
    case CHANGES_VIF: cpu->eflags &= ~FLAG_VIF; return STATUS_OK;
    default: return fault_gp(cpu, 0);
    }
}

COLD_BODY(exec_sti)
{
    switch (interrupt_flag(cpu)) {
    case CHANGES_IF:
        if (cpu->eflags & FLAG_IF)
            return STATUS_OK;
        cpu->eflags |= FLAG_IF;
        cpu->shadow = SHADOW_STI;
        return STATUS_LOOK;
    case CHANGES_VIF:
        if (cpu->eflags & FLAG_VIP)
            return fault_gp(cpu, 0);
        cpu->eflags |= FLAG_VIF;
        return STATUS_OK;
    default: return fault_gp(cpu, 0);
    }
}

static int push_flags(CPU *cpu, const Insn *insn)
{
    const unsigned size = 2u << insn->osize;
    const uint64_t sp = (cpu->r[RSP] - size) & cpu->sp_mask;
    uint32_t flags = cpu_flags(cpu) & ~(FLAG_VM | FLAG_RF);
    if (cpu->v86 && iopl(cpu) < 3) {
        if (!(cpu->cr4 & CR4_VME) || size != 2)
            return fault_gp(cpu, 0);
        flags = (flags & ~FLAG_IF) | FLAG_IOPL | (flags & FLAG_VIF ? FLAG_IF : 0);
    }
    if (mem_write(cpu, SS, sp, size, size == 2 ? flags & 0xffff : flags))
        return STATUS_FAULT;
    set_sp(cpu, sp);
    return STATUS_OK;
}

/* Flags that POPF changes, by mode and privilege. 0: #GP(0). */
static uint32_t poppable(const CPU *cpu, unsigned size)
{
    uint32_t mask = FLAGS_ARITHMETIC | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT;
    if (size > 2)
        mask |= cpu->model->eflags_mask & (FLAG_AC | FLAG_ID);
    if (cpu->v86 && iopl(cpu) < 3)
        return (cpu->cr4 & CR4_VME) && size == 2 ? (mask & ~(FLAG_IF | FLAG_IOPL)) | FLAG_VIF : 0;
    if (cpu->cpl > iopl(cpu))
        mask &= ~FLAG_IF;
    if (cpu->cpl > 0) /* virtual-8086 mode has CPL 3 */
        mask &= ~FLAG_IOPL;
    return mask;
}

static int pop_flags(CPU *cpu, const Insn *insn)
{
    const unsigned size = 2u << insn->osize;
    const uint32_t mask = poppable(cpu, size);
    if (!mask)
        return fault_gp(cpu, 0);
    if (mem_read(cpu, SS, cpu->r[RSP] & cpu->sp_mask, size))
        return STATUS_FAULT;
    uint32_t flags = (uint32_t)cpu->data;
    if (mask & FLAG_VIF) {
        if ((flags & FLAG_TF) || ((flags & FLAG_IF) && (cpu->eflags & FLAG_VIP)))
            return fault_gp(cpu, 0);
        flags = (flags & ~FLAG_VIF) | (flags & FLAG_IF ? FLAG_VIF : 0);
    }
    set_sp(cpu, cpu->r[RSP] + size);
    cpu_set_flags(cpu, flags, mask);
    return STATUS_LOOK;
}

COLD_BODY(exec_pushf) { return push_flags(cpu, insn); }
COLD_BODY(exec_pushfd) { return push_flags(cpu, insn); }
COLD_BODY(exec_pushfq) { return push_flags(cpu, insn); }
COLD_BODY(exec_popf) { return pop_flags(cpu, insn); }
COLD_BODY(exec_popfd) { return pop_flags(cpu, insn); }
COLD_BODY(exec_popfq) { return pop_flags(cpu, insn); }

static int set_ac(CPU *cpu, uint32_t value)
{
    if (cpu->cpl)
        return fault_ud(cpu);
    cpu_set_flags(cpu, value, FLAG_AC);
    return STATUS_LOOK;
}

COLD_BODY(exec_clac) { return set_ac(cpu, 0); }
COLD_BODY(exec_stac) { return set_ac(cpu, FLAG_AC); }
