/* MUL, IMUL, DIV, IDIV. SDM Vol. 1, "Binary Arithmetic Instructions".
 *
 * Flags left undefined: a multiplication sets SF, ZF and PF from the low half of the product and clears AF; a division
 * changes none. */
#include "operations.h"

__extension__ typedef unsigned __int128 uint128_t;
__extension__ typedef __int128 int128_t;

/* The low and the high half of the accumulator pair: AL and AH, AX and DX, EAX and EDX, RAX and RDX. */
#define LOW_HALF GPR(RAX)
#define HIGH_HALF(bits) ((bits) == 8 ? GPR(RAX) + 1 : GPR(RDX))

/* A multiplier that ends early gives back `variable` clocks for every bit that the multiplier lacks; the fixed part is
 * that of a full multiplier of the operand's width. Intel 80386 Programmer's Reference Manual, "MUL": at least 3 bits. */
INLINE int64_t early_out(const CPU *cpu, const Insn *insn, unsigned width, uint64_t magnitude)
{
    const unsigned variable = cpu->clocks[insn->row].variable;
    if (likely(variable == 0))
        return 0;
    const unsigned significant = magnitude <= 8 ? 3 : 64 - (unsigned)__builtin_clzll(magnitude - 1);
    return (int64_t)variable * (int)(width - significant);
}
INLINE uint64_t magnitude(int64_t value) { return value < 0 ? 0 - (uint64_t)value : (uint64_t)value; }

#define PRODUCT_FLAGS(bits, low, overflow)        \
    fr = (int##bits##_t)(low);                    \
    cf = (overflow);                              \
    fd = (overflow) ? ~fr : fr;                   \
    cpu->fa = (uint64_t)fr

#define MULTIPLY(bits, wide, value)                                                             \
    const uint##wide##_t product = (uint##wide##_t)(uint##bits##_t)cpu->r[RAX] * (value);       \
    const uint##bits##_t low = (uint##bits##_t)product, high = (uint##bits##_t)(product >> (bits)); \
    left += early_out(cpu, insn, bits, value);                                                  \
    SET_R##bits(LOW_HALF, low);                                                                 \
    SET_R##bits(HIGH_HALF(bits), high);                                                         \
    PRODUCT_FLAGS(bits, low, high != 0)

#define MULTIPLY_SIGNED(bits, wide, value)                                                      \
    const int##wide##_t product = (int##wide##_t)(int##bits##_t)cpu->r[RAX] * (int##bits##_t)(value); \
    const int##bits##_t low = (int##bits##_t)product, high = (int##bits##_t)(product >> (bits)); \
    left += early_out(cpu, insn, bits, magnitude((int##bits##_t)(value)));                      \
    SET_R##bits(LOW_HALF, low);                                                                 \
    SET_R##bits(HIGH_HALF(bits), high);                                                         \
    PRODUCT_FLAGS(bits, low, product != low)

/* `multiplier` is the operand that decides how early the processor ends. */
#define MULTIPLY_TRUNCATED(bits, wide, multiplicand, multiplier)                                \
    const int##wide##_t product = (int##wide##_t)(int##bits##_t)(multiplicand) * (int##bits##_t)(multiplier); \
    const int##bits##_t low = (int##bits##_t)product;                                           \
    left += early_out(cpu, insn, bits, magnitude((int##bits##_t)(multiplier)));                 \
    SET_R##bits(insn->dst, low);                                                                \
    PRODUCT_FLAGS(bits, low, product != low)

COLD static int64_t divide_error(ARGS)
{
    fault_de(cpu);
    GO(exit_fault);
}

#define DIVIDE(bits, wide, value)                                                               \
    const uint##bits##_t divisor = (value);                                                     \
    const uint##wide##_t dividend = (uint##wide##_t)R##bits(HIGH_HALF(bits)) << (bits) | (uint##bits##_t)cpu->r[RAX]; \
    if (unlikely(R##bits(HIGH_HALF(bits)) >= divisor)) /* zero too */                           \
        GO(divide_error);                                                                       \
    SET_R##bits(LOW_HALF, (uint##bits##_t)(dividend / divisor));                                \
    SET_R##bits(HIGH_HALF(bits), (uint##bits##_t)(dividend % divisor))

/* The most negative dividend by -1 would trap on the host. */
#define DIVIDE_SIGNED(bits, wide, value)                                                        \
    const int##bits##_t divisor = (int##bits##_t)(value);                                       \
    const int##wide##_t dividend =                                                              \
        (int##wide##_t)((uint##wide##_t)R##bits(HIGH_HALF(bits)) << (bits) | (uint##bits##_t)cpu->r[RAX]); \
    if (unlikely(divisor == 0 || (divisor == -1 && dividend == (int##wide##_t)((uint##wide##_t)1 << (2 * (bits) - 1))))) \
        GO(divide_error);                                                                       \
    const int##wide##_t quotient = dividend / divisor;                                          \
    if (unlikely(quotient != (int##bits##_t)quotient))                                          \
        GO(divide_error);                                                                       \
    const int##bits##_t remainder = (int##bits##_t)(dividend % divisor);                        \
    SET_R##bits(LOW_HALF, (int##bits##_t)quotient);                                             \
    SET_R##bits(HIGH_HALF(bits), remainder)

#define ONE_OPERAND(name, STATEMENTS, bits, wide)                                                             \
    REGISTER_BODY(exec_##name##_r##bits)                                                                      \
    {                                                                                                         \
        const uint##bits##_t operand = R##bits(insn->dst);                                                    \
        STATEMENTS(bits, wide, operand);                                                                      \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_##name##_m##bits)                                                                        \
    {                                                                                                         \
        LOAD(bits, operand);                                                                                  \
        STATEMENTS(bits, wide, operand);                                                                      \
        NEXT;                                                                                                 \
    }
#define ONE_OPERAND_SIZES(name, STATEMENTS) \
    ONE_OPERAND(name, STATEMENTS, 8, 16) ONE_OPERAND(name, STATEMENTS, 16, 32) ONE_OPERAND(name, STATEMENTS, 32, 64)
ONE_OPERAND_SIZES(mul, MULTIPLY)
ONE_OPERAND_SIZES(imul, MULTIPLY_SIGNED)
ONE_OPERAND_SIZES(div, DIVIDE)
ONE_OPERAND_SIZES(idiv, DIVIDE_SIGNED)
ONE_OPERAND(mul, MULTIPLY, 64, 128)
ONE_OPERAND(imul, MULTIPLY_SIGNED, 64, 128)

#define TRUNCATED(bits, wide)                                                                                 \
    REGISTER_BODY(exec_imul_r##bits##_r##bits)                                                                \
    {                                                                                                         \
        MULTIPLY_TRUNCATED(bits, wide, R##bits(insn->dst), R##bits(insn->src));                               \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_imul_r##bits##_m##bits)                                                                  \
    {                                                                                                         \
        LOAD(bits, value);                                                                                    \
        MULTIPLY_TRUNCATED(bits, wide, R##bits(insn->dst), value);                                            \
        NEXT;                                                                                                 \
    }                                                                                                         \
    REGISTER_BODY(exec_imul_r##bits##_r##bits##_i)                                                            \
    {                                                                                                         \
        MULTIPLY_TRUNCATED(bits, wide, R##bits(insn->src), insn->imm);                                        \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_imul_r##bits##_m##bits##_i)                                                              \
    {                                                                                                         \
        LOAD(bits, value);                                                                                    \
        MULTIPLY_TRUNCATED(bits, wide, value, insn->imm);                                                     \
        NEXT;                                                                                                 \
    }
TRUNCATED(16, 32)
TRUNCATED(32, 64)
TRUNCATED(64, 128)

/* A 128-bit division is a call of the compiler's library, so these two are no hot bodies. */
static int divide64(CPU *cpu, uint64_t divisor)
{
    if (cpu->r[RDX] >= divisor)
        return fault_de(cpu);
    const uint128_t dividend = (uint128_t)cpu->r[RDX] << 64 | cpu->r[RAX];
    cpu->r[RAX] = (uint64_t)(dividend / divisor);
    cpu->r[RDX] = (uint64_t)(dividend % divisor);
    return STATUS_OK;
}

static int divide64_signed(CPU *cpu, int64_t divisor)
{
    const int128_t dividend = (int128_t)((uint128_t)cpu->r[RDX] << 64 | cpu->r[RAX]);
    if (divisor == 0 || (divisor == -1 && dividend == (int128_t)((uint128_t)1 << 127)))
        return fault_de(cpu);
    const int128_t quotient = dividend / divisor;
    if (quotient != (int64_t)quotient)
        return fault_de(cpu);
    cpu->r[RAX] = (uint64_t)quotient;
    cpu->r[RDX] = (uint64_t)(dividend % divisor);
    return STATUS_OK;
}

COLD_BODY(exec_div_r64) { return divide64(cpu, R64(insn->dst)); }
COLD_BODY(exec_idiv_r64) { return divide64_signed(cpu, (int64_t)R64(insn->dst)); }

COLD_BODY(exec_div_m64)
{
    int status = mem_read(cpu, insn->seg, effective_address(cpu, insn), 8);
    return status ? status : divide64(cpu, cpu->data);
}

COLD_BODY(exec_idiv_m64)
{
    int status = mem_read(cpu, insn->seg, effective_address(cpu, insn), 8);
    return status ? status : divide64_signed(cpu, (int64_t)cpu->data);
}
