/* AND, OR, XOR, NOT, TEST, and the instructions on single flags.
 * SDM Vol. 1, "Logical Instructions", "Flag Control (EFLAG) Instructions". */
#include "operations.h"

#define LOGIC(name, operator, bits)                                                                           \
    PLAIN_BODY(exec_##name##_r##bits##_r##bits)                                                               \
    {                                                                                                         \
        LOGICAL(bits, R##bits(insn->dst) operator R##bits(insn->src));                                        \
        SET_R##bits(insn->dst, result);                                                                       \
        NEXT;                                                                                                 \
    }                                                                                                         \
    PLAIN_BODY(exec_##name##_r##bits##_i)                                                                     \
    {                                                                                                         \
        LOGICAL(bits, R##bits(insn->dst) operator (uint##bits##_t)insn->imm);                                 \
        SET_R##bits(insn->dst, result);                                                                       \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_##name##_r##bits##_m##bits)                                                              \
    {                                                                                                         \
        LOAD(bits, value);                                                                                    \
        LOGICAL(bits, R##bits(insn->dst) operator value);                                                     \
        SET_R##bits(insn->dst, result);                                                                       \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_##name##_m##bits##_r##bits)                                                              \
    {                                                                                                         \
        MODIFY(bits, value);                                                                                  \
        LOGICAL(bits, value operator R##bits(insn->dst));                                                     \
        MODIFY_STORE(bits, result);                                                                           \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_##name##_m##bits##_i)                                                                    \
    {                                                                                                         \
        MODIFY(bits, value);                                                                                  \
        LOGICAL(bits, value operator (uint##bits##_t)insn->imm);                                              \
        MODIFY_STORE(bits, result);                                                                           \
        NEXT;                                                                                                 \
    }
ALL_SIZES(LOGIC, and, &)
ALL_SIZES(LOGIC, or, |)
ALL_SIZES(LOGIC, xor, ^)

#define TESTS_AND_NOT(_, bits)                                                                                \
    PLAIN_BODY(exec_test_r##bits##_r##bits) { LOGICAL(bits, R##bits(insn->dst) & R##bits(insn->src)); NEXT; } \
    PLAIN_BODY(exec_test_r##bits##_i) { LOGICAL(bits, R##bits(insn->dst) & (uint##bits##_t)insn->imm); NEXT; } \
    MEMORY_BODY(exec_test_m##bits##_r##bits)                                                                  \
    {                                                                                                         \
        LOAD(bits, value);                                                                                    \
        LOGICAL(bits, value & R##bits(insn->dst));                                                            \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_test_m##bits##_i)                                                                        \
    {                                                                                                         \
        LOAD(bits, value);                                                                                    \
        LOGICAL(bits, value & (uint##bits##_t)insn->imm);                                                     \
        NEXT;                                                                                                 \
    }                                                                                                         \
    PLAIN_BODY(exec_not_r##bits) { SET_R##bits(insn->dst, ~R##bits(insn->dst)); NEXT; }                       \
    MEMORY_BODY(exec_not_m##bits)                                                                             \
    {                                                                                                         \
        MODIFY(bits, value);                                                                                  \
        MODIFY_STORE(bits, ~value);                                                                           \
        NEXT;                                                                                                 \
    }
ALL_SIZES(TESTS_AND_NOT, )

PLAIN_BODY(exec_clc) { cf &= ~1ull; NEXT; }
PLAIN_BODY(exec_stc) { cf |= 1; NEXT; }
PLAIN_BODY(exec_cmc) { cf ^= 1; NEXT; }
PLAIN_BODY(exec_cld) { cpu->eflags &= ~FLAG_DF; NEXT; }
PLAIN_BODY(exec_std) { cpu->eflags |= FLAG_DF; NEXT; }
PLAIN_BODY(exec_salc) { SET_R8(GPR(RAX), -(int)flag_cf(cf)); NEXT; }

#define FLAGS_IN_AH (FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF | FLAG_CF)

PLAIN_BODY(exec_lahf) { SET_R8(GPR(RAX) + 1, flags_pack(cpu, fr, fd, cf) | FLAG_ONE); NEXT; }

COLD_BODY(exec_sahf)
{
    cpu_set_flags(cpu, R8(GPR(RAX) + 1), FLAGS_IN_AH);
    return STATUS_OK;
}
