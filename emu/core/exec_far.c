/* Far transfers: JMP, CALL and RET to another code segment, through call gates, and to other tasks.
 * SDM Vol. 2, "JMP", "CALL", "RET", whose order of checks this is; SDM Vol. 3, "Privilege Checking When Transferring
 * Program Control Between Code Segments". */
#include "exec.h"
#include "segment.h"

typedef enum Transfer { JUMP, CALL } Transfer;

static unsigned operand_bytes(const Insn *insn) { return 2u << insn->osize; }

/* The far transfer is done; what it cost, and the clocks of the instruction it went to. */
static int arrive(CPU *cpu, const Insn *insn, uint64_t rip, unsigned cost)
{
    cpu->rip = rip;
    charge_case(cpu, insn, cost);
    cpu->charge_target = 1;
    return STATUS_BRANCH;
}

/* Pushes CS and the return address on a stack that has been reserved. */
static int push_return(CPU *cpu, const Insn *insn, Stack *stack, unsigned size)
{
    if (stack_push(cpu, stack, size, cpu->seg[CS].selector) || stack_push(cpu, stack, size, insn_next_rip(cpu, insn)))
        return STATUS_FAULT;
    return STATUS_OK;
}

static int transfer_real(CPU *cpu, const Insn *insn, Transfer kind, uint16_t selector, uint64_t offset)
{
    Stack stack = stack_current(cpu, 0);
    const unsigned size = operand_bytes(insn);
    if (kind == CALL && stack_reserve(cpu, &stack, 2, size))
        return STATUS_FAULT;
    if (offset > cpu->seg[CS].limit)
        return fault_gp(cpu, 0);
    if (kind == CALL && push_return(cpu, insn, &stack, size))
        return STATUS_FAULT;
    stack_commit(cpu, &stack);
    segment_load_real(cpu, CS, selector);
    code_segment_changed(cpu);
    return arrive(cpu, insn, offset, CASE_REAL);
}

/* To a code segment without a gate. */
static int transfer_direct(CPU *cpu, const Insn *insn, Transfer kind, uint16_t selector, Descriptor *code, uint64_t offset)
{
    const unsigned dpl = descriptor_dpl(code), size = operand_bytes(insn);
    Stack stack = stack_current(cpu, 0);
    if (!is_code(code) || (cpu->long_mode && (code->access & AR_L) && (code->access & AR_DB)) ||
        (is_conforming(code) ? dpl > cpu->cpl : rpl_of(selector) > cpu->cpl || dpl != cpu->cpl))
        return fault_gp(cpu, selector_error(selector, 0));
    if (!is_present(code))
        return fault_np(cpu, selector_error(selector, 0));
    if (kind == CALL && stack_reserve(cpu, &stack, 2, size))
        return STATUS_FAULT;
    if (code_offset_check(cpu, code, offset, 0) || descriptor_set_accessed(cpu, selector, code))
        return STATUS_FAULT;
    if (kind == CALL && push_return(cpu, insn, &stack, size))
        return STATUS_FAULT;
    stack_commit(cpu, &stack);
    code_segment_set(cpu, selector, code, cpu->cpl);
    return arrive(cpu, insn, offset, CASE_PROTECTED);
}

/* The code segment that a call gate leads to. */
static int gate_code_fetch(CPU *cpu, Transfer kind, uint16_t selector, Descriptor *code)
{
    if (is_null(selector))
        return fault_gp(cpu, 0);
    if (descriptor_fetch(cpu, selector, VECTOR_GP, 0, code))
        return STATUS_FAULT;
    const unsigned dpl = descriptor_dpl(code);
    if (!is_code(code) || dpl > cpu->cpl || (kind == JUMP && !is_conforming(code) && dpl != cpu->cpl) ||
        (cpu->long_mode && (code->access & (AR_L | AR_DB)) != AR_L))
        return fault_gp(cpu, selector_error(selector, 0));
    if (!is_present(code))
        return fault_np(cpu, selector_error(selector, 0));
    return STATUS_OK;
}

/* Copies the gate's parameters, with their order, from the caller's stack. */
static int copy_parameters(CPU *cpu, Stack *stack, unsigned count, unsigned size)
{
    for (unsigned i = count; i-- > 0;) {
        if (mem_read(cpu, SS, (cpu->r[RSP] + i * size) & cpu->sp_mask, size) ||
            stack_push(cpu, stack, size, cpu->data))
            return STATUS_FAULT;
    }
    return STATUS_OK;
}

/* CALL through a gate to more privilege: SDM Vol. 3, "Stack Switching", "Stack Switching in 64-bit Mode". */
static int call_inner(CPU *cpu, const Insn *insn, const Descriptor *gate, Descriptor *code)
{
    const unsigned cpl = descriptor_dpl(code), size = cpu->long_mode ? 8 : is_gate32(gate) ? 4 : 2;
    const unsigned parameters = cpu->long_mode ? 0 : gate->high & 31;
    const uint64_t old_sp = cpu->r[RSP] & (cpu->long_mode ? UINT64_MAX : 0xffffffff);
    Stack stack;
    if (stack_of_level(cpu, cpl, 0, &stack) || stack_reserve(cpu, &stack, parameters + 4, size) ||
        code_offset_check(cpu, code, gate_offset(gate), 0) ||
        descriptor_set_accessed(cpu, gate_selector(gate), code) ||
        stack_push(cpu, &stack, size, cpu->seg[SS].selector) || stack_push(cpu, &stack, size, old_sp) ||
        copy_parameters(cpu, &stack, parameters, size) || push_return(cpu, insn, &stack, size))
        return STATUS_FAULT;
    code_segment_set(cpu, gate_selector(gate), code, cpl);
    stack_switch(cpu, &stack);
    cpu->clock->left -= (int64_t)parameters * cpu->clocks[insn->row].variable;
    return arrive(cpu, insn, gate_offset(gate), parameters ? CASE_GATE_PARAMETERS : CASE_GATE_MORE);
}

static int transfer_call_gate(CPU *cpu, const Insn *insn, Transfer kind, uint16_t selector, Descriptor *gate)
{
    Descriptor code;
    if (!is_present(gate))
        return fault_np(cpu, selector_error(selector, 0));
    if (cpu->long_mode && descriptor_fetch_upper(cpu, selector, VECTOR_GP, 0, gate))
        return STATUS_FAULT;
    const uint16_t target = gate_selector(gate);
    if (gate_code_fetch(cpu, kind, target, &code))
        return STATUS_FAULT;
    if (kind == CALL && !is_conforming(&code) && descriptor_dpl(&code) < cpu->cpl)
        return call_inner(cpu, insn, gate, &code);

    const unsigned size = cpu->long_mode ? 8 : is_gate32(gate) ? 4 : 2;
    Stack stack = stack_current(cpu, 0);
    if (cpu->long_mode) { /* the gate's code is 64-bit, whatever called it */
        stack.wide = true;
        stack.mask = UINT64_MAX;
    }
    if ((kind == CALL && stack_reserve(cpu, &stack, 2, size)) || code_offset_check(cpu, &code, gate_offset(gate), 0) ||
        descriptor_set_accessed(cpu, target, &code) || (kind == CALL && push_return(cpu, insn, &stack, size)))
        return STATUS_FAULT;
    stack_commit(cpu, &stack);
    code_segment_set(cpu, target, &code, cpu->cpl);
    return arrive(cpu, insn, gate_offset(gate), CASE_GATE_SAME);
}

/* To a TSS or through a task gate. */
static int transfer_task(CPU *cpu, const Insn *insn, Transfer kind, uint16_t selector, Descriptor *d)
{
    const uint16_t old_task = cpu->seg[TR].selector;
    const TaskSwitch how = kind == CALL ? TASK_CALL : TASK_JMP;
    const uint64_t next = insn_next_rip(cpu, insn);
    if (!is_present(d))
        return fault_np(cpu, selector_error(selector, 0));
    int status = descriptor_type(d) == TYPE_TASK_GATE ? task_gate(cpu, d, how, NULL, 0, next)
                                                      : task_switch(cpu, selector, d, how, NULL, 0, next);
    status = task_settle(cpu, old_task, status);
    if (status == STATUS_BRANCH)
        charge_clocks(cpu, insn, cpu->clocks[insn->row].cases[CASE_TASK]);
    return status;
}

static int transfer(CPU *cpu, const Insn *insn, Transfer kind, uint16_t selector, uint64_t offset)
{
    Descriptor d;
    if (!cpu->protected_mode)
        return transfer_real(cpu, insn, kind, selector, offset);
    if (is_null(selector))
        return fault_gp(cpu, 0);
    if (descriptor_fetch(cpu, selector, VECTOR_GP, 0, &d))
        return STATUS_FAULT;
    if (!is_system(&d))
        return transfer_direct(cpu, insn, kind, selector, &d, offset);
    const unsigned type = descriptor_type(&d), dpl = descriptor_dpl(&d);
    const bool call_gate = type == TYPE_CALL_GATE32 || (type == TYPE_CALL_GATE16 && !cpu->long_mode);
    const bool task = (type == TYPE_TASK_GATE || type == TYPE_TSS32 || type == TYPE_TSS16) && !cpu->long_mode;
    if (!(call_gate || task) || dpl < cpu->cpl || dpl < rpl_of(selector))
        return fault_gp(cpu, selector_error(selector, 0));
    return call_gate ? transfer_call_gate(cpu, insn, kind, selector, &d)
                     : transfer_task(cpu, insn, kind, selector, &d);
}

static int transfer_immediate(CPU *cpu, const Insn *insn, Transfer kind)
{
    return transfer(cpu, insn, kind, (uint16_t)insn->imm_hi, (uint32_t)insn->imm);
}

static int transfer_memory(CPU *cpu, const Insn *insn, Transfer kind)
{
    const unsigned size = operand_bytes(insn);
    const uint64_t ea = effective_address(cpu, insn);
    if (mem_read(cpu, insn->seg, ea, size))
        return STATUS_FAULT;
    const uint64_t offset = cpu->data;
    if (mem_read(cpu, insn->seg, (ea + size) & cpu->address_mask[insn->asize], 2))
        return STATUS_FAULT;
    return transfer(cpu, insn, kind, (uint16_t)cpu->data, offset);
}

COLD_BODY(exec_jmp_far) { return transfer_immediate(cpu, insn, JUMP); }
COLD_BODY(exec_jmp_mfar) { return transfer_memory(cpu, insn, JUMP); }
COLD_BODY(exec_call_far) { return transfer_immediate(cpu, insn, CALL); }
COLD_BODY(exec_call_mfar) { return transfer_memory(cpu, insn, CALL); }

/* To an outer level: the stack pointer and SS follow the parameters, which both stacks get rid of. */
static int return_outer(CPU *cpu, const Insn *insn, Stack *stack, uint16_t selector, Descriptor *code, uint64_t rip,
                        unsigned release)
{
    const unsigned size = operand_bytes(insn), cpl = rpl_of(selector);
    const bool wide = is_code64(cpu, code);
    uint64_t sp, ss;
    stack->sp += release;
    if (stack_pop(cpu, stack, size, &sp) || stack_pop(cpu, stack, size, &ss))
        return STATUS_FAULT;
    Stack outer;
    if (stack_to_return_to(cpu, (uint16_t)ss, cpl, wide, &outer) || code_offset_check(cpu, code, rip, 0) ||
        descriptor_set_accessed(cpu, selector, code))
        return STATUS_FAULT;
    code_segment_set(cpu, selector, code, cpl);
    outer.sp = sp + release;
    stack_switch(cpu, &outer);
    segments_null_inner(cpu);
    const int status = arrive(cpu, insn, rip, CASE_LESS_PRIVILEGE);
    cpu->charge_target = 0; /* Intel 80386 Programmer's Reference Manual, "RET": the one far transfer without m */
    return status;
}

static int return_far(CPU *cpu, const Insn *insn, unsigned release)
{
    const unsigned size = operand_bytes(insn);
    Stack stack = stack_current(cpu, 0);
    Descriptor code;
    uint64_t rip, selector;
    if (stack_pop(cpu, &stack, size, &rip) || stack_pop(cpu, &stack, size, &selector))
        return STATUS_FAULT;
    if (!cpu->protected_mode) {
        if (rip > cpu->seg[CS].limit)
            return fault_gp(cpu, 0);
        stack.sp += release;
        stack_commit(cpu, &stack);
        segment_load_real(cpu, CS, (uint16_t)selector);
        code_segment_changed(cpu);
        return arrive(cpu, insn, rip, CASE_REAL);
    }
    if (return_segment_fetch(cpu, (uint16_t)selector, &code))
        return STATUS_FAULT;
    if (rpl_of((uint16_t)selector) > cpu->cpl)
        return return_outer(cpu, insn, &stack, (uint16_t)selector, &code, rip, release);
    if (code_offset_check(cpu, &code, rip, 0) || descriptor_set_accessed(cpu, (uint16_t)selector, &code))
        return STATUS_FAULT;
    stack.sp += release;
    stack_commit(cpu, &stack);
    code_segment_set(cpu, (uint16_t)selector, &code, cpu->cpl);
    return arrive(cpu, insn, rip, CASE_PROTECTED);
}

COLD_BODY(exec_retf) { return return_far(cpu, insn, 0); }
COLD_BODY(exec_retf_i) { return return_far(cpu, insn, (uint16_t)insn->imm); }
