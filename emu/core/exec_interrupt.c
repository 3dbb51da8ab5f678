/* INT n, INT3, INTO, INT1 and IRET. SDM Vol. 2, "INT n/INTO/INT3/INT1", "IRET/IRETD/IRETQ"; SDM Vol. 3,
 * "Interrupt and Exception Handling in Virtual-8086 Mode". */
#include "exec.h"
#include "segment.h"

static unsigned operand_bytes(const Insn *insn) { return 2u << insn->osize; }

/* What the state before tells of the cost of an interrupt or a return. */
typedef struct Origin {
    bool real, v86;
    unsigned cpl;
    uint16_t task;
} Origin;

static Origin origin_of(const CPU *cpu)
{
    return (Origin){.real = !cr0_pe(cpu), .v86 = cpu->v86, .cpl = cpu->cpl, .task = cpu->seg[TR].selector};
}

static int finish(CPU *cpu, const Insn *insn, Origin from, int status)
{
    if (status != STATUS_BRANCH)
        return status;
    if (cpu->seg[TR].selector != from.task)
        charge_clocks(cpu, insn, 0); /* a task switch charges itself */
    else
        charge_case(cpu, insn, from.real || (from.v86 && cpu->v86) ? CASE_REAL
                               : from.v86 || cpu->v86              ? CASE_V86
                               : cpu->cpl != from.cpl              ? CASE_LESS_PRIVILEGE
                                                                   : CASE_PROTECTED);
    return status;
}

static int software_interrupt(CPU *cpu, const Insn *insn, unsigned vector, EventType type)
{
    const Fault event = {.vector = (uint8_t)vector, .type = (uint8_t)type};
    const Origin from = origin_of(cpu);
    if (cpu->raise_faults) {
        cpu->fault = event;
        return STATUS_RAISED;
    }
    if (cpu->hook)
        cpu->hook(cpu->hook_owner, HOOK_INTERRUPT, vector, type, cpu->rip);
    cpu->trap_suppressed = 1; /* TF was cleared on the way */
    return finish(cpu, insn, from, interrupt_deliver(cpu, &event, insn_next_rip(cpu, insn)));
}

/* The interrupt redirection bit map lies in the 32 bytes below the I/O permission bit map. SDM Vol. 3, "Class 3 -
 * Software Interrupt Handling in Virtual-8086 Mode". 1: to the IDT, 0: to the 8086 program, or STATUS_FAULT. */
static int redirection(CPU *cpu, unsigned vector)
{
    const Segment *tss = &cpu->seg[TR];
    if (!(tss->access & 8) || tss->limit < 103)
        return fault_gp(cpu, 0);
    if (linear_read(cpu, tss->base + 102, 2, ACCESS_READ | ACCESS_SYSTEM))
        return STATUS_FAULT;
    const uint32_t place = (uint32_t)cpu->data - 32 + vector / 8;
    if (place > tss->limit)
        return fault_gp(cpu, 0);
    if (linear_read(cpu, tss->base + place, 1, ACCESS_READ | ACCESS_SYSTEM))
        return STATUS_FAULT;
    return cpu->data >> (vector & 7) & 1;
}

COLD_BODY(exec_int_i)
{
    const unsigned vector = insn->imm & 0xff;
    if (cpu->v86 && !cpu->raise_faults) {
        const int to_idt = cpu->cr4 & CR4_VME ? redirection(cpu, vector) : 1;
        if (to_idt < 0)
            return to_idt;
        if (!to_idt) {
            cpu->trap_suppressed = 1;
            return finish(cpu, insn, origin_of(cpu), interrupt_deliver_v86(cpu, vector, insn_next_rip(cpu, insn)));
        }
        if (iopl(cpu) < 3)
            return fault_gp(cpu, 0);
    }
    return software_interrupt(cpu, insn, vector, EVENT_SOFTWARE_INTERRUPT);
}

COLD_BODY(exec_int3) { return software_interrupt(cpu, insn, VECTOR_BP, EVENT_SOFTWARE_EXCEPTION); }
COLD_BODY(exec_int1) { return software_interrupt(cpu, insn, VECTOR_DB, EVENT_ICEBP); }

COLD_BODY(exec_into)
{
    if (cpu_flags(cpu) & FLAG_OF)
        return software_interrupt(cpu, insn, VECTOR_OF, EVENT_SOFTWARE_EXCEPTION);
    return STATUS_OK;
}

/* --- IRET --- */

/* What every return pops first. */
typedef struct Frame {
    unsigned size;
    uint64_t rip, selector, flags;
} Frame;

static int pop_frame(CPU *cpu, Stack *stack, Frame *frame)
{
    if (stack_pop(cpu, stack, frame->size, &frame->rip) || stack_pop(cpu, stack, frame->size, &frame->selector) ||
        stack_pop(cpu, stack, frame->size, &frame->flags))
        return STATUS_FAULT;
    frame->selector &= 0xffff;
    return STATUS_OK;
}

/* Flags that a return of this operand size can load at all; privilege takes some away. */
static uint32_t loadable(const CPU *cpu, unsigned size)
{
    uint32_t mask = FLAGS_ARITHMETIC | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT;
    if (size > 2)
        mask |= FLAG_RF | (cpu->model->eflags_mask & (FLAG_AC | FLAG_ID));
    return mask;
}

static void load_flags(CPU *cpu, const Frame *frame, uint32_t mask)
{
    cpu_set_flags(cpu, (uint32_t)frame->flags, mask);
    cpu->rf_loaded = (mask & FLAG_RF) != 0;
}

static int return_real(CPU *cpu, Frame *frame)
{
    Stack stack = stack_current(cpu, 0);
    if (pop_frame(cpu, &stack, frame))
        return STATUS_FAULT;
    if (frame->rip > cpu->seg[CS].limit)
        return fault_gp(cpu, 0);
    stack_commit(cpu, &stack);
    load_flags(cpu, frame, loadable(cpu, frame->size));
    segment_load_real(cpu, CS, (uint16_t)frame->selector);
    code_segment_changed(cpu);
    cpu->rip = frame->rip;
    return STATUS_BRANCH;
}

/* In virtual-8086 mode IOPL stays, and with IOPL below 3 a 16-bit return changes VIF in the place of IF. */
static int return_in_v86(CPU *cpu, Frame *frame)
{
    Stack stack = stack_current(cpu, 0);
    uint32_t mask = loadable(cpu, frame->size) & ~FLAG_IOPL;
    const bool virtual_if = iopl(cpu) < 3;
    if (virtual_if && (!(cpu->cr4 & CR4_VME) || frame->size != 2))
        return fault_gp(cpu, 0);
    if (pop_frame(cpu, &stack, frame))
        return STATUS_FAULT;
    if (virtual_if && ((frame->flags & FLAG_TF) || ((frame->flags & FLAG_IF) && (cpu->eflags & FLAG_VIP))))
        return fault_gp(cpu, 0);
    if (frame->rip > cpu->seg[CS].limit)
        return fault_gp(cpu, 0);
    stack_commit(cpu, &stack);
    if (virtual_if) {
        mask = (mask & ~FLAG_IF) | FLAG_VIF;
        frame->flags |= frame->flags & FLAG_IF ? FLAG_VIF : 0;
    }
    load_flags(cpu, frame, mask);
    segment_load_real(cpu, CS, (uint16_t)frame->selector);
    code_segment_changed(cpu);
    cpu->rip = frame->rip;
    return STATUS_BRANCH;
}

/* Back to virtual-8086 mode from CPL 0. */
static int return_to_v86(CPU *cpu, const Frame *frame, Stack *stack)
{
    static const uint8_t order[] = {SS, ES, DS, FS, GS};
    uint64_t sp, selectors[5];
    if (stack_pop(cpu, stack, 4, &sp))
        return STATUS_FAULT;
    for (unsigned i = 0; i < 5; i++)
        if (stack_pop(cpu, stack, 4, &selectors[i]))
            return STATUS_FAULT;
    if (frame->rip > 0xffff)
        return fault_gp(cpu, 0);
    cpu->cpl = 3;
    load_flags(cpu, frame, loadable(cpu, 4) | FLAG_VM | FLAG_VIF | FLAG_VIP);
    cpu->r[RSP] = (uint32_t)sp;
    segment_load_real(cpu, CS, (uint16_t)frame->selector);
    for (unsigned i = 0; i < 5; i++)
        segment_load_real(cpu, order[i], (uint16_t)selectors[i]);
    code_segment_changed(cpu);
    cpu->rip = frame->rip;
    return STATUS_BRANCH;
}

/* To the task that the current one was called or interrupted from. */
static int return_to_task(CPU *cpu, const Insn *insn)
{
    const uint16_t old_task = cpu->seg[TR].selector;
    Descriptor tss;
    if (cpu->long_mode)
        return fault_gp(cpu, 0);
    if (linear_read(cpu, cpu->seg[TR].base, 2, ACCESS_READ | ACCESS_SYSTEM))
        return STATUS_FAULT;
    const uint16_t selector = (uint16_t)cpu->data;
    if (selector & ERROR_TI)
        return fault_ts(cpu, selector_error(selector, 0));
    if (descriptor_fetch(cpu, selector, VECTOR_TS, 0, &tss))
        return STATUS_FAULT;
    const unsigned type = descriptor_type(&tss);
    if (!is_system(&tss) || (type != TYPE_TSS32_BUSY && type != TYPE_TSS16_BUSY))
        return fault_ts(cpu, selector_error(selector, 0));
    if (!is_present(&tss))
        return fault_np(cpu, selector_error(selector, 0));
    const int status = task_switch(cpu, selector, &tss, TASK_IRET, NULL, 0, insn_next_rip(cpu, insn));
    return task_settle(cpu, old_task, status);
}

static int return_protected(CPU *cpu, const Insn *insn, Frame *frame)
{
    Stack stack = stack_current(cpu, 0), outer;
    Descriptor code;
    uint64_t sp = 0, ss;
    if (cpu->eflags & FLAG_NT)
        return return_to_task(cpu, insn);
    if (pop_frame(cpu, &stack, frame))
        return STATUS_FAULT;
    if ((frame->flags & FLAG_VM) && cpu->cpl == 0 && frame->size == 4 && !cpu->long_mode)
        return return_to_v86(cpu, frame, &stack);
    const uint16_t selector = (uint16_t)frame->selector;
    if (return_segment_fetch(cpu, selector, &code))
        return STATUS_FAULT;
    const unsigned cpl = rpl_of(selector);
    const bool inner = cpl > cpu->cpl;
    const bool new_stack = inner || cpu->code64; /* 64-bit code always gets SS and RSP back */
    if (new_stack && (stack_pop(cpu, &stack, frame->size, &sp) || stack_pop(cpu, &stack, frame->size, &ss) ||
                      stack_to_return_to(cpu, (uint16_t)ss, cpl, is_code64(cpu, &code), &outer)))
        return STATUS_FAULT;
    if (code_offset_check(cpu, &code, frame->rip, 0) || descriptor_set_accessed(cpu, selector, &code))
        return STATUS_FAULT;

    uint32_t mask = loadable(cpu, frame->size);
    if (cpu->cpl > iopl(cpu))
        mask &= ~FLAG_IF;
    if (cpu->cpl > 0)
        mask &= ~FLAG_IOPL;
    else if (frame->size > 2 && (cpu->model->cr4_mask & CR4_VME))
        mask |= FLAG_VIF | FLAG_VIP;
    load_flags(cpu, frame, mask);
    code_segment_set(cpu, selector, &code, cpl);
    if (new_stack) {
        outer.sp = sp;
        stack_switch(cpu, &outer);
    } else {
        stack_commit(cpu, &stack);
    }
    if (inner)
        segments_null_inner(cpu);
    cpu->rip = frame->rip;
    return STATUS_BRANCH;
}

/* SDM Vol. 3, "Handling Multiple NMIs": NMIs are let in again even where the IRET faults. */
static int interrupt_return(CPU *cpu, const Insn *insn)
{
    Frame frame = {.size = operand_bytes(insn)};
    const Origin from = origin_of(cpu);
    cpu->nmi_blocked = 0;
    return finish(cpu, insn, from, from.real  ? return_real(cpu, &frame)
                                   : from.v86 ? return_in_v86(cpu, &frame)
                                              : return_protected(cpu, insn, &frame));
}

COLD_BODY(exec_iret) { return interrupt_return(cpu, insn); }
COLD_BODY(exec_iretd) { return interrupt_return(cpu, insn); }
COLD_BODY(exec_iretq) { return interrupt_return(cpu, insn); }
