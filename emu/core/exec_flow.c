/* Near transfers of control: JMP, Jcc, JCXZ, LOOP, CALL, RET; BOUND.
 * SDM Vol. 1, "Control Transfer Instructions". A target outside the CS limit, or not canonical, is #GP(0) of the branch,
 * with nothing changed: SDM Vol. 2, "CALL", "Jcc", "JMP", "LOOP", "RET". */
#include "operations.h"

COLD static int64_t target_fault(ARGS)
{
    fault_gp(cpu, 0);
    GO(exit_fault);
}

INLINE bool is_target(const CPU *cpu, uint64_t target)
{
    return cpu->code64 ? (int64_t)(target << 16) >> 16 == (int64_t)target : target <= cpu->seg[CS].limit;
}

/* Of a direct branch. A linked one goes to the same page, of which decode has seen that all of it lies inside the limit;
 * where it is not linked jump_linked() checks too, but after the branch has changed what else it changes. */
INLINE bool is_direct_target(const CPU *cpu, const Insn *insn)
{
    return insn->link || is_target(cpu, (cpu->page_rip + (uint64_t)(int64_t)insn->imm) & cpu->address_mask[insn->osize]);
}

REGISTER_BODY(exec_jmp_rel) { TAKE_DIRECT(insn->disp); }

#define CONDITIONAL_JUMP(name, condition)        \
    REGISTER_BODY(exec_j##name##_rel)            \
    {                                            \
        if (condition)                           \
            TAKE_DIRECT(insn->disp);             \
        NEXT;                                    \
    }
CONDITIONS(CONDITIONAL_JUMP)
CONDITIONAL_JUMP(cxz, (uint16_t)cpu->r[RCX] == 0)
CONDITIONAL_JUMP(ecxz, (uint32_t)cpu->r[RCX] == 0)
CONDITIONAL_JUMP(rcxz, cpu->r[RCX] == 0)

#define LOOPS(name, condition)                                                                      \
    REGISTER_BODY(exec_##name##_rel)                                                                \
    {                                                                                               \
        const uint64_t count = (cpu->r[RCX] - 1) & cpu->address_mask[insn->asize];                  \
        const bool taken = (count != 0) & (condition);                                              \
        if (taken && unlikely(!is_direct_target(cpu, insn)))                                        \
            GO(target_fault);                                                                       \
        set_by_asize(cpu, RCX, count, insn->asize);                                                 \
        if (taken)                                                                                  \
            TAKE_DIRECT(insn->disp);                                                                \
        NEXT;                                                                                       \
    }
LOOPS(loop, 1)
LOOPS(loope, flag_zf(fr))
LOOPS(loopne, !flag_zf(fr))

MEMORY_BODY(exec_call_rel)
{
    if (unlikely(!is_direct_target(cpu, insn)))
        GO(target_fault);
    if (insn->osize == OSIZE32)
        PUSH(32, insn_next_rip(cpu, insn));
    else if (insn->osize == OSIZE16)
        PUSH(16, insn_next_rip(cpu, insn));
    else
        PUSH(64, insn_next_rip(cpu, insn));
    TAKE_DIRECT(insn->disp);
}

/* To an address in a register or in memory. */
#define JUMP_INDIRECT(target)                    \
    if (unlikely(!is_target(cpu, target)))       \
        GO(target_fault);                        \
    cpu->rip = (target);                         \
    TAKE_INDIRECT(0)

#define CALL_INDIRECT(bits, target)              \
    if (unlikely(!is_target(cpu, target)))       \
        GO(target_fault);                        \
    PUSH(bits, insn_next_rip(cpu, insn));        \
    cpu->rip = (target);                         \
    TAKE_INDIRECT(0)

#define INDIRECT_BRANCHES(_, bits)                                                                            \
    REGISTER_BODY(exec_jmp_r##bits) { JUMP_INDIRECT(R##bits(insn->dst)); }                                    \
    MEMORY_BODY(exec_jmp_m##bits)                                                                             \
    {                                                                                                         \
        LOAD(bits, target);                                                                                   \
        JUMP_INDIRECT(target);                                                                                \
    }                                                                                                         \
    MEMORY_BODY(exec_call_r##bits)                                                                            \
    {                                                                                                         \
        const uint##bits##_t target = R##bits(insn->dst);                                                     \
        CALL_INDIRECT(bits, target);                                                                          \
    }                                                                                                         \
    MEMORY_BODY(exec_call_m##bits)                                                                            \
    {                                                                                                         \
        LOAD(bits, target);                                                                                   \
        CALL_INDIRECT(bits, target);                                                                          \
    }
WIDE_SIZES(INDIRECT_BRANCHES, )

#define RETURN(bits, parameters)                                                \
    do {                                                                        \
        POP(bits, target);                                                      \
        if (unlikely(!is_target(cpu, target)))                                  \
            GO(target_fault);                                                   \
        set_sp(cpu, cpu->r[RSP] + (bits) / 8 + (parameters));                   \
        cpu->rip = target;                                                      \
        TAKE_INDIRECT(0);                                                       \
    } while (0)
#define RETURN_BY_SIZE(parameters)               \
    if (insn->osize == OSIZE32)                  \
        RETURN(32, parameters);                  \
    else if (insn->osize == OSIZE16)             \
        RETURN(16, parameters);                  \
    else                                         \
        RETURN(64, parameters)

MEMORY_BODY(exec_ret) { RETURN_BY_SIZE(0); }
MEMORY_BODY(exec_ret_i) { RETURN_BY_SIZE((uint16_t)insn->imm); }

/* Both bounds are within them; signed. */
static int check_bounds(CPU *cpu, const Insn *insn, unsigned size)
{
    const uint64_t ea = effective_address(cpu, insn);
    int status = mem_read(cpu, insn->seg, ea, size);
    if (status)
        return status;
    const uint64_t lower = cpu->data;
    if ((status = mem_read(cpu, insn->seg, (ea + size) & cpu->address_mask[insn->asize], size)))
        return status;
    const uint64_t upper = cpu->data;
    const bool inside = size == 2 ? (int16_t)R16(insn->dst) >= (int16_t)lower && (int16_t)R16(insn->dst) <= (int16_t)upper
                                  : (int32_t)R32(insn->dst) >= (int32_t)lower && (int32_t)R32(insn->dst) <= (int32_t)upper;
    return inside ? STATUS_OK : fault_raise(cpu, VECTOR_BR);
}

COLD_BODY(exec_bound_r16_m) { return check_bounds(cpu, insn, 2); }
COLD_BODY(exec_bound_r32_m) { return check_bounds(cpu, insn, 4); }
