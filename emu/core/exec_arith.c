/* Binary and decimal arithmetic. SDM Vol. 1, "Binary Arithmetic Instructions", "Decimal Arithmetic Instructions". */
#include "operations.h"

/* --- ADD, ADC, SUB, SBB, CMP --- */

#define ARITHMETIC(name, OPERATION, carry_, bits)                                                             \
    PLAIN_BODY(exec_##name##_r##bits##_r##bits)                                                               \
    {                                                                                                         \
        OPERATION(bits, R##bits(insn->dst), R##bits(insn->src), carry_);                                      \
        SET_R##bits(insn->dst, result);                                                                       \
        NEXT;                                                                                                 \
    }                                                                                                         \
    PLAIN_BODY(exec_##name##_r##bits##_i)                                                                     \
    {                                                                                                         \
        OPERATION(bits, R##bits(insn->dst), insn->imm, carry_);                                               \
        SET_R##bits(insn->dst, result);                                                                       \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_##name##_r##bits##_m##bits)                                                              \
    {                                                                                                         \
        LOAD(bits, value);                                                                                    \
        OPERATION(bits, R##bits(insn->dst), value, carry_);                                                   \
        SET_R##bits(insn->dst, result);                                                                       \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_##name##_m##bits##_r##bits)                                                              \
    {                                                                                                         \
        MODIFY(bits, value);                                                                                  \
        OPERATION(bits, value, R##bits(insn->dst), carry_);                                                   \
        MODIFY_STORE(bits, result);                                                                           \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_##name##_m##bits##_i)                                                                    \
    {                                                                                                         \
        MODIFY(bits, value);                                                                                  \
        OPERATION(bits, value, insn->imm, carry_);                                                            \
        MODIFY_STORE(bits, result);                                                                           \
        NEXT;                                                                                                 \
    }
ALL_SIZES(ARITHMETIC, add, SUM, 0)
ALL_SIZES(ARITHMETIC, adc, SUM, cf & 1)
ALL_SIZES(ARITHMETIC, sub, DIFFERENCE, 0)
ALL_SIZES(ARITHMETIC, sbb, DIFFERENCE, cf & 1)

#define COMPARES(_, bits)                                                                                     \
    PLAIN_BODY(exec_cmp_r##bits##_r##bits)                                                                    \
    {                                                                                                         \
        DIFFERENCE(bits, R##bits(insn->dst), R##bits(insn->src), 0);                                          \
        NEXT;                                                                                                 \
    }                                                                                                         \
    PLAIN_BODY(exec_cmp_r##bits##_i) { DIFFERENCE(bits, R##bits(insn->dst), insn->imm, 0); NEXT; }            \
    MEMORY_BODY(exec_cmp_r##bits##_m##bits)                                                                   \
    {                                                                                                         \
        LOAD(bits, value);                                                                                    \
        DIFFERENCE(bits, R##bits(insn->dst), value, 0);                                                       \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_cmp_m##bits##_r##bits)                                                                   \
    {                                                                                                         \
        LOAD(bits, value);                                                                                    \
        DIFFERENCE(bits, value, R##bits(insn->dst), 0);                                                       \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_cmp_m##bits##_i)                                                                         \
    {                                                                                                         \
        LOAD(bits, value);                                                                                    \
        DIFFERENCE(bits, value, insn->imm, 0);                                                                \
        NEXT;                                                                                                 \
    }
ALL_SIZES(COMPARES, )

/* --- INC, DEC, NEG --- */

/* INC and DEC leave CF alone. What else cf holds describes the old result and goes (flags.h). */
#define KEEPING_CF(OPERATION, bits, value, operand)         \
    const uint64_t kept_cf = cf & 1;                        \
    OPERATION(bits, value, operand, 0);                     \
    if (!in_quiet)                                          \
        cf = kept_cf

#define UNARY(name, STATEMENTS, bits)                                                                         \
    PLAIN_BODY(exec_##name##_r##bits)                                                                         \
    {                                                                                                         \
        STATEMENTS(bits, R##bits(insn->dst));                                                                 \
        SET_R##bits(insn->dst, result);                                                                       \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_##name##_m##bits)                                                                        \
    {                                                                                                         \
        MODIFY(bits, value);                                                                                  \
        STATEMENTS(bits, value);                                                                              \
        MODIFY_STORE(bits, result);                                                                           \
        NEXT;                                                                                                 \
    }
#define INCREMENT(bits, value) KEEPING_CF(SUM, bits, value, 1)
#define DECREMENT(bits, value) KEEPING_CF(DIFFERENCE, bits, value, 1)
#define NEGATE(bits, value) DIFFERENCE(bits, 0, value, 0)
ALL_SIZES(UNARY, inc, INCREMENT)
ALL_SIZES(UNARY, dec, DECREMENT)
ALL_SIZES(UNARY, neg, NEGATE)

/* --- ADCX, ADOX: each changes one flag --- */

#define ADCX(bits, value)                                                                                     \
    uint##bits##_t a = R##bits(insn->dst), b = (value);                                                       \
    const unsigned carry = cf & 1;                                                                            \
    const uint##bits##_t result = a + b + carry;                                                              \
    cf = (cf & ~1ull) | (result < a) | (carry & (result == a));                                               \
    SET_R##bits(insn->dst, result)
#define ADOX(bits, value)                                                                                     \
    uint##bits##_t a = R##bits(insn->dst), b = (value);                                                       \
    const unsigned carry = flag_of(fr, fd, cf);                                                               \
    const uint##bits##_t result = a + b + carry;                                                              \
    fd = -(int64_t)(flag_sf(fr, cf) ^ ((result < a) | (carry & (result == a))));                              \
    SET_R##bits(insn->dst, result)
#define CARRY_CHAIN(name, STATEMENTS, bits)                                                                   \
    PLAIN_BODY(exec_##name##_r##bits##_r##bits) { STATEMENTS(bits, R##bits(insn->src)); NEXT; }               \
    MEMORY_BODY(exec_##name##_r##bits##_m##bits)                                                              \
    {                                                                                                         \
        LOAD(bits, operand);                                                                                  \
        STATEMENTS(bits, operand);                                                                            \
        NEXT;                                                                                                 \
    }
CARRY_CHAIN(adcx, ADCX, 32)
CARRY_CHAIN(adcx, ADCX, 64)
CARRY_CHAIN(adox, ADOX, 32)
CARRY_CHAIN(adox, ADOX, 64)

/* --- decimal adjustment --- */

/* SF, ZF and PF from AL; OF, where undefined, is cleared. */
static int adjusted(CPU *cpu, uint8_t al, bool af, bool cf)
{
    SET_R8(GPR(RAX), al);
    cpu->fr = cpu->fd = (int8_t)al;
    cpu->cf = cf;
    cpu->fa = (uint64_t)cpu->fr ^ (af ? FLAG_AF : 0);
    return STATUS_OK;
}

static int adjust_packed(CPU *cpu, int sign)
{
    const uint8_t old = (uint8_t)cpu->r[RAX];
    const bool old_cf = flag_cf(cpu->cf), af = (old & 15) > 9 || flag_af(cpu, cpu->fr);
    const bool high = old > 0x99 || old_cf;
    const int adjustment = (af ? 6 : 0) + (high ? 0x60 : 0);
    /* DAS sets CF by a borrow of its first step too; a carry of DAA's first step comes with AL above 99h. */
    return adjusted(cpu, (uint8_t)(old + sign * adjustment), af, high || (sign < 0 && af && old < 6));
}

COLD_BODY(exec_daa) { return adjust_packed(cpu, 1); }
COLD_BODY(exec_das) { return adjust_packed(cpu, -1); }

static int adjust_unpacked(CPU *cpu, int sign)
{
    const bool carry = (cpu->r[RAX] & 15) > 9 || flag_af(cpu, cpu->fr);
    if (carry)
        SET_R16(GPR(RAX), (uint16_t)cpu->r[RAX] + sign * 0x106);
    return adjusted(cpu, cpu->r[RAX] & 15, carry, carry);
}

COLD_BODY(exec_aaa) { return adjust_unpacked(cpu, 1); }
COLD_BODY(exec_aas) { return adjust_unpacked(cpu, -1); }

COLD_BODY(exec_aam_i)
{
    const uint8_t al = (uint8_t)cpu->r[RAX], base = (uint8_t)insn->imm;
    if (base == 0)
        return fault_de(cpu);
    SET_R8(GPR(RAX) + 1, al / base);
    return adjusted(cpu, al % base, false, false);
}

COLD_BODY(exec_aad_i)
{
    const uint8_t al = (uint8_t)cpu->r[RAX], ah = (uint8_t)(cpu->r[RAX] >> 8);
    SET_R8(GPR(RAX) + 1, 0);
    return adjusted(cpu, (uint8_t)(al + ah * insn->imm), false, false);
}
