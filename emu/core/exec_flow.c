/* Near transfers of control: JMP, Jcc, JCXZ, LOOP, CALL, RET; BOUND.
 * SDM Vol. 1, "Control Transfer Instructions". A target outside the CS limit, or not canonical, is #GP(0) of the branch,
 * with nothing changed: SDM Vol. 2, "CALL", "Jcc", "JMP", "LOOP", "RET". */
#include "operations.h"

COLD static int64_t target_fault(ARGS)
{
    fault_gp(cpu, 0);
    GO(exit_fault);
}

/* Near branches of 64-bit code, and these alone, have an operand size of 64. */
INLINE bool is_target(const CPU *cpu, unsigned bits, uint64_t target)
{
    return bits == 64 ? (int64_t)(target << 16) >> 16 == (int64_t)target : target <= cpu->seg[CS].limit;
}

/* Of a direct branch. A linked one goes to the same page, of which decode has seen that all of it lies inside the limit;
 * where it is not linked jump_linked() checks too, but after the branch has changed what else it changes. */
INLINE bool is_direct_target(const CPU *cpu, const Insn *insn)
{
    if (likely(insn->link != 0))
        return true;
    const uint64_t target = (cpu->page_rip + (uint64_t)(int64_t)insn->imm) & cpu->address_mask[insn->osize];
    return is_target(cpu, 16u << insn->osize, target);
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

/* --- a comparison and the jump that follows it, in one body --- */

/* Both instructions stay in the block, and a branch may enter between them. `insn` moves to the jump. */
#define PAIR(name, bits, statement, cc, condition)        \
    REGISTER_BODY(pair_##name##bits##_j##cc)              \
    {                                                     \
        statement                                         \
        insn++;                                           \
        if (condition)                                    \
            TAKE_DIRECT(insn->disp);                      \
        NEXT;                                             \
    }
#define PAIR_CMP_R(cc, condition, bits) PAIR(cmp_r, bits, DIFFERENCE(bits, R##bits(insn->dst), R##bits(insn->src), 0), cc, condition)
#define PAIR_CMP_I(cc, condition, bits) PAIR(cmp_i, bits, DIFFERENCE(bits, R##bits(insn->dst), insn->imm, 0), cc, condition)
#define PAIR_TEST(cc, condition, bits) PAIR(test, bits, LOGICAL(bits, R##bits(insn->dst) & R##bits(insn->src)), cc, condition)
#define COUNTED(OPERATION, bits)                          \
    const uint64_t kept_cf = cf & 1;                      \
    OPERATION(bits, R##bits(insn->dst), 1, 0);            \
    cf = kept_cf;                                         \
    SET_R##bits(insn->dst, result);
#define PAIR_DEC(cc, condition, bits) PAIR(dec, bits, COUNTED(DIFFERENCE, bits), cc, condition)
#define PAIR_INC(cc, condition, bits) PAIR(inc, bits, COUNTED(SUM, bits), cc, condition)
#define OF_16(cc, condition) \
    PAIR_CMP_R(cc, condition, 16) PAIR_CMP_I(cc, condition, 16) PAIR_TEST(cc, condition, 16) PAIR_DEC(cc, condition, 16) PAIR_INC(cc, condition, 16)
#define OF_32(cc, condition) \
    PAIR_CMP_R(cc, condition, 32) PAIR_CMP_I(cc, condition, 32) PAIR_TEST(cc, condition, 32) PAIR_DEC(cc, condition, 32) PAIR_INC(cc, condition, 32)
#define OF_64(cc, condition) \
    PAIR_CMP_R(cc, condition, 64) PAIR_CMP_I(cc, condition, 64) PAIR_TEST(cc, condition, 64) PAIR_DEC(cc, condition, 64) PAIR_INC(cc, condition, 64)
CONDITIONS(OF_16)
CONDITIONS(OF_32)
CONDITIONS(OF_64)

Handler_t exec_cmp_r16_r16, exec_cmp_r16_i, exec_test_r16_r16, exec_dec_r16, exec_inc_r16;
Handler_t exec_cmp_r32_r32, exec_cmp_r32_i, exec_test_r32_r32, exec_dec_r32, exec_inc_r32;
Handler_t exec_cmp_r64_r64, exec_cmp_r64_i, exec_test_r64_r64, exec_dec_r64, exec_inc_r64;

Handler_t *pair_body(Handler_t *first, Handler_t *jump)
{
    static Handler_t *const firsts[] = {
#define FIRSTS(bits) exec_cmp_r##bits##_r##bits, exec_cmp_r##bits##_i, exec_test_r##bits##_r##bits, exec_dec_r##bits, exec_inc_r##bits
        FIRSTS(16), FIRSTS(32), FIRSTS(64),
    };
    enum { KINDS = sizeof firsts / sizeof *firsts };
    static const struct {
        Handler_t *jump, *pairs[KINDS];
    } jumps[] = {
#define PAIRS(cc, bits) pair_cmp_r##bits##_j##cc, pair_cmp_i##bits##_j##cc, pair_test##bits##_j##cc, pair_dec##bits##_j##cc, pair_inc##bits##_j##cc
#define JUMP(cc, condition) {exec_j##cc##_rel, {PAIRS(cc, 16), PAIRS(cc, 32), PAIRS(cc, 64)}},
        CONDITIONS(JUMP)
    };
    for (unsigned kind = 0; kind < KINDS; kind++)
        if (firsts[kind] == first)
            for (unsigned i = 0; i < sizeof jumps / sizeof *jumps; i++)
                if (jumps[i].jump == jump)
                    return jumps[i].pairs[kind];
    return NULL;
}

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

#define CALL_DIRECT(_, bits)                                 \
    MEMORY_BODY(call_direct_##bits)                          \
    {                                                        \
        if (unlikely(!is_direct_target(cpu, insn)))          \
            GO(target_fault);                                \
        PUSH(bits, insn_next_rip(cpu, insn));                \
        TAKE_DIRECT(insn->disp);                             \
    }
WIDE_SIZES(CALL_DIRECT, )
BY_OPERAND_SIZE(exec_call_rel, call_direct)

/* To an address in a register or in memory. */
#define JUMP_INDIRECT(bits, target)              \
    if (unlikely(!is_target(cpu, bits, target))) \
        GO(target_fault);                        \
    cpu->rip = (target);                         \
    TAKE_INDIRECT(0)

#define CALL_INDIRECT(bits, target)              \
    if (unlikely(!is_target(cpu, bits, target))) \
        GO(target_fault);                        \
    PUSH(bits, insn_next_rip(cpu, insn));        \
    cpu->rip = (target);                         \
    TAKE_INDIRECT(0)

#define INDIRECT_BRANCHES(_, bits)                                                                            \
    REGISTER_BODY(exec_jmp_r##bits) { JUMP_INDIRECT(bits, R##bits(insn->dst)); }                              \
    MEMORY_BODY(exec_jmp_m##bits)                                                                             \
    {                                                                                                         \
        LOAD(bits, target);                                                                                   \
        JUMP_INDIRECT(bits, target);                                                                          \
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

/* The immediate counts bytes of parameters; RET without one has imm = 0. */
#define RETURN(_, bits)                                                         \
    MEMORY_BODY(return_##bits)                                                  \
    {                                                                           \
        POP(bits, target);                                                      \
        if (unlikely(!is_target(cpu, bits, target)))                            \
            GO(target_fault);                                                   \
        set_sp(cpu, cpu->r[RSP] + (bits) / 8 + (uint16_t)insn->imm);            \
        cpu->rip = target;                                                      \
        TAKE_INDIRECT(0);                                                       \
    }
WIDE_SIZES(RETURN, )
BY_OPERAND_SIZE(exec_ret, return)
BY_OPERAND_SIZE(exec_ret_i, return)

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
