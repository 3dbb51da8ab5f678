/* Shifts and rotates. SDM Vol. 1, "Shift and Rotate Instructions".
 *
 * Counts are taken modulo 32, or 64 for 64-bit operands; a count of 0 changes no flag. Left undefined by the manual: OF
 * for counts above 1 follows the formula for 1; AF is cleared by shifts; what SHLD and SHRD of 16 bits give for counts
 * above 16 is what shifting destination, source and destination as one number gives. */
#include "operations.h"

#define COUNT_MASK(bits) ((bits) == 64 ? 63u : 31u)
#define SIGN(bits, value) ((unsigned)((uint##bits##_t)(value) >> ((bits) - 1)))
/* The bit below the sign. */
#define SECOND(bits, value) ((unsigned)((value) >> ((bits) - 2)) & 1)

/* `less` is the value whose sign is SF ^ OF. */
#define SHIFT_FLAGS(bits, carry, less)       \
    if (!in_quiet) {                         \
        fr = (int##bits##_t)result;          \
        fd = (int64_t)(less);                \
        cf = (carry) & 1;                    \
        cpu->fa = (uint8_t)fr;               \
    }

/* Rotates change CF and OF alone. */
#define ROTATE_FLAGS(carry, overflow)                            \
    if (!in_quiet) {                                             \
        cf = (cf & ~1ull) | (carry);                             \
        fd = -(int64_t)(flag_sf(fr, cf) ^ (overflow));           \
    }

/* Each of these takes a (the operand) and count, which is not 0, and sets result and flags. */

/* OF = SF ^ CF. */
#define SHL(bits)                                                                       \
    const uint64_t carry = (bits) == 64 ? (uint64_t)a >> (64 - count) : (uint64_t)a << count >> (bits) % 64; \
    result = (uint##bits##_t)((uint64_t)a << count);                                    \
    SHIFT_FLAGS(bits, carry, -(int64_t)(carry & 1))

/* OF is the sign before the last step. */
#define SHR(bits)                                                                       \
    result = (uint##bits##_t)((uint64_t)a >> count);                                    \
    SHIFT_FLAGS(bits, (uint64_t)a >> (count - 1), -(int64_t)SECOND(bits, result))

/* OF = 0. */
#define SAR(bits)                                                                       \
    const int64_t extended = (int##bits##_t)a;                                          \
    result = (uint##bits##_t)(extended >> count);                                       \
    SHIFT_FLAGS(bits, (uint64_t)(extended >> (count - 1)), fr)

/* Counts are modulo the width here. */
#define ROTATED_LEFT(bits, places) ((uint##bits##_t)(a << ((places) % (bits)) | a >> ((0u - (places)) % (bits))))

#define ROL(bits)                                                                       \
    result = ROTATED_LEFT(bits, count);                                                 \
    ROTATE_FLAGS(result & 1u, SIGN(bits, result) ^ (unsigned)(result & 1u))

#define ROR(bits)                                                                       \
    result = ROTATED_LEFT(bits, 0u - count);                                            \
    ROTATE_FLAGS(SIGN(bits, result), SIGN(bits, result) ^ SECOND(bits, result))

/* Through CF: a number of bits + 1 is rotated. Of 64 bits it has no type, but then the count is never 0 or the width. */
#define THROUGH_CARRY(bits, places)                                                     \
    const uint64_t through = (uint64_t)a | (cf & 1) << (bits) % 64;                     \
    const uint64_t rotated = through << (places) | through >> ((bits) + 1 - (places)) % 64; \
    result = (uint##bits##_t)rotated;                                                   \
    const unsigned carry = rotated >> (bits) % 64 & 1

#define RCL(bits)                                                                       \
    THROUGH_CARRY(bits, count % ((bits) + 1));                                          \
    ROTATE_FLAGS(carry, SIGN(bits, result) ^ carry)
#define RCR(bits)                                                                       \
    THROUGH_CARRY(bits, (bits) + 1 - count % ((bits) + 1));                             \
    ROTATE_FLAGS(carry, SIGN(bits, result) ^ SECOND(bits, result))

#define RCL64(bits)                                                                     \
    const unsigned carry = a >> (64 - count) & 1;                                       \
    result = a << count | (cf & 1) << (count - 1) | a >> 1 >> (64 - count);             \
    ROTATE_FLAGS(carry, SIGN(64, result) ^ carry)
#define RCR64(bits)                                                                     \
    const unsigned carry = a >> (count - 1) & 1;                                        \
    result = a >> count | (cf & 1) << (64 - count) | a << 1 << (64 - count);            \
    ROTATE_FLAGS(carry, SIGN(64, result) ^ SECOND(64, result))

#define SHIFT_REGISTER(STATEMENTS, bits, count_)                            \
    const uint##bits##_t a = R##bits(insn->dst);                            \
    const unsigned count = (unsigned)(count_) & COUNT_MASK(bits);           \
    uint##bits##_t result = a;                                              \
    if (count) {                                                            \
        STATEMENTS(bits);                                                   \
    }                                                                       \
    SET_R##bits(insn->dst, result);                                         \
    NEXT

#define SHIFT_MEMORY(STATEMENTS, bits, count_)                              \
    MODIFY(bits, a);                                                        \
    const unsigned count = (unsigned)(count_) & COUNT_MASK(bits);           \
    uint##bits##_t result = a;                                              \
    if (count) {                                                            \
        STATEMENTS(bits);                                                   \
    }                                                                       \
    MODIFY_STORE(bits, result);                                             \
    NEXT

#define SHIFT_BODIES(name, STATEMENTS, bits)                                                                  \
    PLAIN_BODY(exec_##name##_r##bits##_i) { SHIFT_REGISTER(STATEMENTS, bits, insn->imm); }                    \
    PLAIN_BODY(exec_##name##_r##bits##_r8) { SHIFT_REGISTER(STATEMENTS, bits, cpu->r[RCX]); }                 \
    MEMORY_BODY(exec_##name##_m##bits##_i) { SHIFT_MEMORY(STATEMENTS, bits, insn->imm); }                     \
    MEMORY_BODY(exec_##name##_m##bits##_r8) { SHIFT_MEMORY(STATEMENTS, bits, cpu->r[RCX]); }
ALL_SIZES(SHIFT_BODIES, shl, SHL)
ALL_SIZES(SHIFT_BODIES, shr, SHR)
ALL_SIZES(SHIFT_BODIES, sar, SAR)
ALL_SIZES(SHIFT_BODIES, rol, ROL)
ALL_SIZES(SHIFT_BODIES, ror, ROR)
#define UP_TO_32(X, ...) X(__VA_ARGS__, 8) X(__VA_ARGS__, 16) X(__VA_ARGS__, 32)
UP_TO_32(SHIFT_BODIES, rcl, RCL)
UP_TO_32(SHIFT_BODIES, rcr, RCR)
SHIFT_BODIES(rcl, RCL64, 64)
SHIFT_BODIES(rcr, RCR64, 64)

/* --- double precision: b's bits come in. OF is a change of sign, so SF ^ OF is the old sign. --- */

#define SHLD16(bits)                                                                                \
    const uint64_t shifted = ((uint64_t)a << 32 | (uint64_t)b << 16 | a) << count;                  \
    result = (uint16_t)(shifted >> 32);                                                             \
    SHIFT_FLAGS(16, shifted >> 48, (int16_t)a)
#define SHRD16(bits)                                                                                \
    const uint64_t joined = (uint64_t)a << 32 | (uint64_t)b << 16 | a;                              \
    result = (uint16_t)(joined >> count);                                                           \
    SHIFT_FLAGS(16, joined >> (count - 1), (int16_t)a)
#define SHLD(bits)                                                                                  \
    result = a << count | b >> ((bits) - count);                                                    \
    SHIFT_FLAGS(bits, a >> ((bits) - count), (int##bits##_t)a)
#define SHRD(bits)                                                                                  \
    result = a >> count | b << ((bits) - count);                                                    \
    SHIFT_FLAGS(bits, a >> (count - 1), (int##bits##_t)a)

#define DOUBLE_SHIFT(name, STATEMENTS, bits)                                                                  \
    PLAIN_BODY(exec_##name##_r##bits##_r##bits##_i)                                                           \
    {                                                                                                         \
        const uint##bits##_t b = R##bits(insn->src);                                                          \
        SHIFT_REGISTER(STATEMENTS, bits, insn->imm);                                                          \
    }                                                                                                         \
    PLAIN_BODY(exec_##name##_r##bits##_r##bits##_r8)                                                          \
    {                                                                                                         \
        const uint##bits##_t b = R##bits(insn->src);                                                          \
        SHIFT_REGISTER(STATEMENTS, bits, cpu->r[RCX]);                                                        \
    }                                                                                                         \
    MEMORY_BODY(exec_##name##_m##bits##_r##bits##_i)                                                          \
    {                                                                                                         \
        const uint##bits##_t b = R##bits(insn->dst);                                                          \
        SHIFT_MEMORY(STATEMENTS, bits, insn->imm);                                                            \
    }                                                                                                         \
    MEMORY_BODY(exec_##name##_m##bits##_r##bits##_r8)                                                         \
    {                                                                                                         \
        const uint##bits##_t b = R##bits(insn->dst);                                                          \
        SHIFT_MEMORY(STATEMENTS, bits, cpu->r[RCX]);                                                          \
    }
DOUBLE_SHIFT(shld, SHLD16, 16)
DOUBLE_SHIFT(shrd, SHRD16, 16)
DOUBLE_SHIFT(shld, SHLD, 32)
DOUBLE_SHIFT(shrd, SHRD, 32)
DOUBLE_SHIFT(shld, SHLD, 64)
DOUBLE_SHIFT(shrd, SHRD, 64)
