/* The last branches: IA32_DEBUGCTL.LBR and BTF, and the registers that records are read from. SDM Vol. 3, "Debug, Branch
 * Profile, TSC, and Intel Resource Director Technology": "LBR Stack", "Monitoring Branches, Exceptions, and Interrupts",
 * "Single-Stepping on Branches"; numbers of registers: SDM Vol. 4.
 *
 * While one of the two is set the run loop runs one instruction at a time and asks branch_was_taken(). */
#include "insn.h"

static uint64_t place(const CPU *cpu, uint64_t base, uint64_t rip) { return cpu->model->msrs.linear ? base + rip : rip; }

BranchStart branch_watch(CPU *cpu)
{
    cpu->left_by_branch = 0;
    return (BranchStart){cpu->rip, cpu->seg[CS].base, cpu->vmx.transitions};
}

bool branch_was_taken(const CPU *cpu, const BranchStart *start)
{
    /* An iteration of a repeated instruction goes to itself; VM entries and exits are no branches. */
    return (cpu->charge_target || (cpu->left_by_branch && !cpu->rep_resumed)) && cpu->vmx.transitions == start->transitions;
}

void branch_record(CPU *cpu, const BranchStart *start)
{
    LastBranches *last = &cpu->last_branches;
    if (!(cpu->debugctl & DEBUGCTL_LBR))
        return;
    last->top = (last->top + 1) % cpu->model->msrs.branches;
    last->source[last->top] = place(cpu, start->base, start->rip);
    last->target[last->top] = place(cpu, cpu->seg[CS].base, cpu->rip);
}

/* An exception or interrupt is a branch too, and the one before it is kept. */
void branch_record_event(CPU *cpu, const BranchStart *start)
{
    LastBranches *last = &cpu->last_branches;
    if (!(cpu->debugctl & DEBUGCTL_LBR))
        return;
    last->exception_from = last->source[last->top];
    last->exception_to = last->target[last->top];
    branch_record(cpu, start);
}

uint64_t *branch_register(CPU *cpu, uint32_t number)
{
    const MsrModel *msrs = &cpu->model->msrs;
    LastBranches *last = &cpu->last_branches;
    if (!msrs->branches)
        return NULL;
    if (number - msrs->branch_from < msrs->branches)
        return &last->source[number - msrs->branch_from];
    if (number - msrs->branch_to < msrs->branches)
        return &last->target[number - msrs->branch_to];
    if (number == msrs->exception_from)
        return &last->exception_from;
    if (number == msrs->exception_to)
        return &last->exception_to;
    return msrs->branch_top && number == msrs->branch_top ? &last->top : NULL;
}
