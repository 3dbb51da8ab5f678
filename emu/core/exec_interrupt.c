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
        cpu->hook(cpu->hook_owner, HOOK_INTERRUPT, vector, type, insn_next_rip(cpu, insn));
    cpu->trap_suppressed = 1; /* TF was cleared on the way */
    const int status = interrupt_deliver(cpu, &event, insn_next_rip(cpu, insn));
    if (type == EVENT_ICEBP && status == STATUS_BRANCH) { /* a watchpoint that MOV SS held off is met by the same #DB */
        cpu->dr[6] |= cpu->trap & 15;
        cpu->trap = 0;
        cpu->debugctl &= ~(uint64_t)(DEBUGCTL_LBR | DEBUGCTL_BTF);
    }
    return finish(cpu, insn, from, status);
}

COLD_BODY(exec_int_i_slow)
{
    const unsigned vector = insn->imm & 0xff;
    if (cpu->v86 && !cpu->raise_faults) {
        const int redirected = cpu->cr4 & CR4_VME ? interrupt_redirected(cpu, vector) : 0;
        if (redirected < 0)
            return redirected;
        if (redirected) {
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
    /* With NMI exiting and without virtual NMIs a guest's IRET leaves NMIs as they are. */
    if (cpu->nmi_blocked && (!guest_pin(cpu, PIN_NMI_EXITING) || guest_pin(cpu, PIN_VIRTUAL_NMIS))) {
        cpu->nmi_blocked = 0;
        cpu->iret_unblocked = 1;
        if (cpu->non_root)
            cpu_pulse(cpu, REQUEST_VMX); /* an NMI window may be open */
    }
    return finish(cpu, insn, from, from.real  ? return_real(cpu, &frame)
                                   : from.v86 ? return_in_v86(cpu, &frame)
                                              : return_protected(cpu, insn, &frame));
}

COLD_BODY(exec_iret) { return interrupt_return(cpu, insn); }
COLD_BODY(exec_iretd_slow) { return interrupt_return(cpu, insn); }
COLD_BODY(exec_iretq) { return interrupt_return(cpu, insn); }

/* --- the ordinary case, without a call: a 32-bit gate or frame of protected mode that stays in the code segment it is in,
 * where the TLB knows all that is touched and nothing is left to look up afterwards --- */

/* Reads 8 bytes of a system table. */
INLINE bool table_load(const CPU *processor, uint64_t la, uint64_t *value)
{
    la = (uint32_t)la;
    const TlbEntry *entry = &processor->tlb_supervisor[la >> 12 & (TLB_SIZE - 1)];
    if (((la + 7) | PAGE_MASK) != entry->read_tag)
        return false;
    *value = load64((const uint8_t *)(uintptr_t)(la + entry->addend));
    return true;
}

/* Would loading CS with the selector change nothing? Its descriptor may have been written since it was loaded. */
INLINE bool keeps_code_segment(const CPU *processor, uint16_t selector)
{
    const Segment *code = &processor->seg[CS];
    uint64_t raw;
    if (((selector ^ code->selector) & 0xfffc) || (selector & ERROR_TI) || (selector | 7u) > processor->gdtr.limit ||
        !table_load(processor, processor->gdtr.base + (selector & 0xfff8), &raw))
        return false;
    const Descriptor d = descriptor_decode((uint32_t)raw, (uint32_t)(raw >> 32));
    return d.base == code->base && d.limit == code->limit && d.access == code->access && is_code(&d) && is_present(&d) &&
           (is_conforming(&d) ? descriptor_dpl(&d) <= processor->cpl : descriptor_dpl(&d) == processor->cpl);
}

INLINE bool is_ordinary(const CPU *processor)
{
    return processor->protected_mode && !processor->long_mode && !processor->raise_faults && !processor->hook &&
           !(processor->eflags & (FLAG_TF | FLAG_RF)) && !processor->event_clocks->next_component;
}

/* Clocks given back of the fixed part, or charged beyond it. */
INLINE int64_t refund(const CPU *processor, const Insn *instruction)
{
    const RowClocks *row = &processor->clocks[instruction->row];
    return row->cases[CASE_PROTECTED] ? (int64_t)row->reg - row->cases[CASE_PROTECTED] : 0;
}

#define FRAME_BYTES 12u

REGISTER_BODY(exec_int_i)
{
    const unsigned vector = insn->imm & 0xff;
    uint64_t raw;
    if (unlikely(!is_ordinary(cpu) || vector * 8 + 7 > cpu->idtr.limit ||
                 !table_load(cpu, cpu->idtr.base + vector * 8, &raw)))
        GO(exec_int_i_slow);
    const Descriptor gate = descriptor_decode((uint32_t)raw, (uint32_t)(raw >> 32));
    const unsigned interrupt_gate = TYPE_INTERRUPT_GATE32;
    if (unlikely((gate.access & (AR_P | AR_S | (AR_TYPE & ~1u))) != (AR_P | interrupt_gate) ||
                 descriptor_dpl(&gate) < cpu->cpl || !keeps_code_segment(cpu, gate_selector(&gate)) ||
                 gate_offset(&gate) > cpu->seg[CS].limit))
        GO(exec_int_i_slow);
    const uint64_t sp = (cpu->r[RSP] - FRAME_BYTES) & cpu->sp_mask;
    uint8_t *frame = fast_write(cpu, SS, sp, FRAME_BYTES);
    if (unlikely(!frame || sp + FRAME_BYTES > cpu->sp_mask))
        GO(exec_int_i_slow);
    store32(frame, (uint32_t)insn_next_rip(cpu, insn));
    store32(frame + 4, cpu->seg[CS].selector);
    store32(frame + 8, (cpu->eflags & ~FLAGS_ARITHMETIC) | FLAG_ONE | flags_pack(cpu, fr, fd, cf));
    set_sp(cpu, sp);
    cpu->eflags &= ~(FLAG_NT | (gate.access & 1 ? 0 : FLAG_IF));
    cpu->rip = gate_offset(&gate);
    left += refund(cpu, insn);
    TAKE_INDIRECT(0);
}

REGISTER_BODY(exec_iretd)
{
    if (unlikely(!is_ordinary(cpu) || (cpu->eflags & FLAG_NT) || cpu->requests || cpu->nmi_blocked))
        GO(exec_iretd_slow);
    const uint64_t sp = cpu->r[RSP] & cpu->sp_mask;
    const uint8_t *frame = fast_read(cpu, SS, sp, FRAME_BYTES);
    if (unlikely(!frame || sp + FRAME_BYTES > cpu->sp_mask))
        GO(exec_iretd_slow);
    const uint32_t rip = load32(frame), selector = load32(frame + 4), flags = load32(frame + 8);
    if (unlikely((uint16_t)selector != cpu->seg[CS].selector || rip > cpu->seg[CS].limit ||
                 (flags & (FLAG_TF | FLAG_RF | FLAG_VM)) || ((flags ^ cpu->eflags) & FLAG_AC) ||
                 !keeps_code_segment(cpu, (uint16_t)selector)))
        GO(exec_iretd_slow);
    uint32_t mask = FLAG_DF | FLAG_NT | (cpu->model->eflags_mask & FLAG_ID);
    if (cpu->cpl <= iopl(cpu))
        mask |= FLAG_IF;
    if (cpu->cpl == 0)
        mask |= FLAG_IOPL | (cpu->model->cr4_mask & CR4_VME ? FLAG_VIF | FLAG_VIP : 0);
    cpu->eflags = (cpu->eflags & ~mask) | (flags & mask);
    int64_t result, less;
    uint64_t carry;
    flags_unpack(cpu, flags, &result, &less, &carry);
    fr = result;
    fd = less;
    cf = carry;
    set_sp(cpu, sp + FRAME_BYTES);
    cpu->rip = rip;
    left += refund(cpu, insn);
    TAKE_INDIRECT(0);
}
