/* The stack: PUSH, POP, PUSHA, POPA, ENTER, LEAVE.
 * SDM Vol. 1, "Stack Manipulation Instructions", "Procedure Calls for Block-Structured Languages". */
#include "operations.h"

static uint64_t sp_below(const CPU *cpu, unsigned bytes) { return (cpu->r[RSP] - bytes) & cpu->sp_mask; }

/* The destination's address is that after RSP has moved. */
static int pop_to_memory(CPU *cpu, const Insn *insn, unsigned size)
{
    const uint64_t sp = cpu->r[RSP];
    int status = mem_read(cpu, SS, sp & cpu->sp_mask, size);
    if (status)
        return status;
    uint64_t value = cpu->data;
    set_sp(cpu, sp + size);
    if ((status = mem_write(cpu, insn->seg, effective_address(cpu, insn), size, value)))
        cpu->r[RSP] = sp;
    return status;
}

#define STACK_BODIES(_, bits)                                                                                 \
    MEMORY_BODY(exec_push_r##bits) { PUSH(bits, R##bits(insn->dst)); NEXT; }                                  \
    MEMORY_BODY(exec_push_m##bits)                                                                            \
    {                                                                                                         \
        LOAD(bits, value);                                                                                    \
        PUSH(bits, value);                                                                                    \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_pop_r##bits)                                                                             \
    {                                                                                                         \
        POP(bits, value);                                                                                     \
        POP_END(bits);                                                                                        \
        SET_R##bits(insn->dst, value);                                                                        \
        NEXT;                                                                                                 \
    }                                                                                                         \
    COLD_BODY(exec_pop_m##bits) { return pop_to_memory(cpu, insn, (bits) / 8); }
WIDE_SIZES(STACK_BODIES, )

/* The frame pointer is of the operand's size, the stack pointer of the stack's. */
#define BODIES_BY_SIZE(_, bits)                                                                               \
    MEMORY_BODY(push_immediate_##bits) { PUSH(bits, insn->imm); NEXT; }                                       \
    MEMORY_BODY(leave_##bits)                                                                                 \
    {                                                                                                         \
        LOAD_AT(bits, value, SS, cpu->r[RBP] & cpu->sp_mask);                                                 \
        set_sp(cpu, cpu->r[RBP] + (bits) / 8);                                                                \
        SET_R##bits(GPR(RBP), value);                                                                         \
        NEXT;                                                                                                 \
    }
WIDE_SIZES(BODIES_BY_SIZE, )
BY_OPERAND_SIZE(exec_push_i, push_immediate)
BY_OPERAND_SIZE(exec_leave, leave)

/* The places are tried first, so that nothing has changed where one of them faults. */
static int push_all(CPU *cpu, unsigned size)
{
    int status;
    for (unsigned number = RAX; number <= RDI; number++)
        if ((status = mem_probe_write(cpu, SS, sp_below(cpu, (number + 1) * size), size)))
            return status;
    for (unsigned number = RAX; number <= RDI; number++)
        if ((status = mem_write(cpu, SS, sp_below(cpu, (number + 1) * size), size, low_bytes(cpu->r[number], size))))
            return status;
    set_sp(cpu, cpu->r[RSP] - 8 * size);
    return STATUS_OK;
}

/* The stack pointer's image is skipped. */
static int pop_all(CPU *cpu, unsigned size)
{
    uint64_t value[8];
    for (unsigned place = 0; place < 8; place++) {
        int status = place == RDI - RSP ? STATUS_OK : mem_read(cpu, SS, (cpu->r[RSP] + place * size) & cpu->sp_mask, size);
        if (status)
            return status;
        value[RDI - place] = cpu->data;
    }
    set_sp(cpu, cpu->r[RSP] + 8 * size);
    for (unsigned number = RAX; number <= RDI; number++)
        if (number != RSP && size == 2)
            SET_R16(GPR(number), value[number]);
        else if (number != RSP)
            SET_R32(GPR(number), value[number]);
    return STATUS_OK;
}

COLD_BODY(exec_pusha) { return push_all(cpu, 2); }
COLD_BODY(exec_pushad) { return push_all(cpu, 4); }
COLD_BODY(exec_popa) { return pop_all(cpu, 2); }
COLD_BODY(exec_popad) { return pop_all(cpu, 4); }

/* All places are tried first, in the order of the SDM's operation, so that nothing has changed where one of them faults;
 * then it goes step by step, since the display that is read may lie where the new one is pushed. A write at the final
 * stack pointer must be possible too. */
COLD_BODY(exec_enter_i_i)
{
    const unsigned size = 2u << insn->osize, level = insn->imm_hi & 31, pushes = level ? level + 1 : 1;
    const uint64_t frame = (cpu->r[RSP] & ~cpu->sp_mask) | sp_below(cpu, size);
    const uint64_t end = sp_below(cpu, pushes * size + (uint16_t)insn->imm);
    int status = mem_probe_write(cpu, SS, sp_below(cpu, size), size);
    for (unsigned i = 1; i < pushes && !status; i++) {
        if (i < level)
            status = mem_read(cpu, SS, (cpu->r[RBP] - i * size) & cpu->sp_mask, size);
        if (!status)
            status = mem_probe_write(cpu, SS, sp_below(cpu, (i + 1) * size), size);
    }
    if (!status)
        status = mem_probe_write(cpu, SS, end, size);
    if (status)
        return status;

    mem_write(cpu, SS, sp_below(cpu, size), size, low_bytes(cpu->r[RBP], size));
    for (unsigned i = 1; i < level; i++) {
        mem_read(cpu, SS, (cpu->r[RBP] - i * size) & cpu->sp_mask, size);
        mem_write(cpu, SS, sp_below(cpu, (i + 1) * size), size, cpu->data);
    }
    if (level)
        mem_write(cpu, SS, sp_below(cpu, pushes * size), size, low_bytes(frame, size));
    set_sp(cpu, end);
    if (size == 2)
        SET_R16(GPR(RBP), frame);
    else if (size == 4)
        SET_R32(GPR(RBP), frame);
    else
        SET_R64(GPR(RBP), frame);
    if (level < 2)
        charge_case(cpu, insn, level);
    else
        cpu->clock->left += (31 - level) * cpu->clocks[insn->row].variable;
    return STATUS_OK;
}
