/* What many bodies share: the flags of sums, differences and logical results, the conditions, and the sizes.
 *
 * Each macro declares `result` and sets the lazy flags of flags.h (fr, fd, cf, which must be in scope, and CPU.fa).
 * Flags that the manual leaves undefined: AF is cleared by logical instructions, shifts and multiplications. */
#ifndef EMU_OPERATIONS_H
#define EMU_OPERATIONS_H

#include "exec.h"

/* Byte offset of a general register, for R8 to R64 and SET_R8 to SET_R64. */
#define GPR(number) ((number) * 8)

#define ALL_SIZES(X, ...) X(__VA_ARGS__, 8) X(__VA_ARGS__, 16) X(__VA_ARGS__, 32) X(__VA_ARGS__, 64)
#define WIDE_SIZES(X, ...) X(__VA_ARGS__, 16) X(__VA_ARGS__, 32) X(__VA_ARGS__, 64)

/* Up to 32 bits the exact sum of the sign-extended operands has the sign SF ^ OF; of 64 bits it must be made. In the
 * quiet variant of a PLAIN_BODY nobody will look at the flags. */
#define SUM(bits, a_, b_, carry_)                                                                             \
    const uint##bits##_t a = (uint##bits##_t)(a_), b = (uint##bits##_t)(b_);                                  \
    const unsigned carry = (carry_);                                                                          \
    const uint##bits##_t result = (uint##bits##_t)(a + b + carry);                                            \
    if (!in_quiet) {                                                                                          \
        cpu->fa = (uint8_t)(a ^ b);                                                                           \
        fr = (int##bits##_t)result;                                                                           \
        fd = (bits) == 64 ? fr ^ (int64_t)((a ^ result) & (b ^ result))                                       \
                          : (int64_t)(int##bits##_t)a + (int##bits##_t)b + carry;                             \
        cf = (result < a) | (carry & (result == a));                                                          \
    }

#define DIFFERENCE(bits, a_, b_, borrow_)                                                                     \
    const uint##bits##_t a = (uint##bits##_t)(a_), b = (uint##bits##_t)(b_);                                  \
    const unsigned borrow = (borrow_);                                                                        \
    const uint##bits##_t result = (uint##bits##_t)(a - b - borrow);                                           \
    if (!in_quiet) {                                                                                          \
        cpu->fa = (uint8_t)(a ^ b);                                                                           \
        fr = (int##bits##_t)result;                                                                           \
        fd = (bits) == 64 ? fr ^ (int64_t)((a ^ b) & (a ^ result))                                            \
                          : (int64_t)(int##bits##_t)a - (int##bits##_t)b - borrow;                            \
        cf = (a < b) | (borrow & (a == b));                                                                   \
    }

#define LOGICAL(bits, value_)                                     \
    const uint##bits##_t result = (uint##bits##_t)(value_);       \
    if (!in_quiet) {                                              \
        fr = fd = (int##bits##_t)result;                          \
        cf = 0;                                                   \
        cpu->fa = (uint8_t)fr;                                    \
    }

/* X(name, condition): SDM Vol. 1, "EFLAGS Condition Codes", spelt as the instruction table spells them. */
#define CONDITIONS(X)                                \
    X(o, flag_of(fr, fd, cf))                        \
    X(no, !flag_of(fr, fd, cf))                      \
    X(c, flag_cf(cf))                                \
    X(nc, !flag_cf(cf))                              \
    X(z, flag_zf(fr))                                \
    X(nz, !flag_zf(fr))                              \
    X(na, flag_cf(cf) | flag_zf(fr))                 \
    X(a, !(flag_cf(cf) | flag_zf(fr)))               \
    X(s, flag_sf(fr, cf))                            \
    X(ns, !flag_sf(fr, cf))                          \
    X(pe, flag_pf(fr, cf))                           \
    X(po, !flag_pf(fr, cf))                          \
    X(l, flag_less(fd))                              \
    X(nl, !flag_less(fd))                            \
    X(ng, flag_less(fd) | flag_zf(fr))               \
    X(g, !(flag_less(fd) | flag_zf(fr)))

/* A body whose name does not show its operand size: one for each size, of which the decoder takes the right one. */
#define BY_OPERAND_SIZE(name, body)                                        \
    Handler_t name##_osize16 __attribute__((alias(#body "_16")));          \
    Handler_t name##_osize32 __attribute__((alias(#body "_32")));          \
    Handler_t name##_osize64 __attribute__((alias(#body "_64")));          \
    REGISTER_BODY(name) { GO(exec_undefined); } /* not reached: see decode.c */

/* The low `size` bytes of a value. */
INLINE uint64_t low_bytes(uint64_t value, unsigned size) { return value & UINT64_MAX >> (64 - 8 * size); }

/* A register that counts or addresses with the instruction's address size: as a 32-bit one it clears its upper half. */
INLINE void set_by_asize(CPU *cpu, unsigned number, uint64_t value, unsigned asize)
{
    if (asize == 0)
        SET_R16(GPR(number), value);
    else
        cpu->r[number] = value & cpu->address_mask[asize];
}

#endif
