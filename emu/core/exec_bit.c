/* Bits and bytes: BT and its relatives, bit scans and counts, SETcc, CRC32.
 * SDM Vol. 1, "Bit and Byte Instructions"; Vol. 2, "LZCNT", "TZCNT", "POPCNT", "CRC32". */
#include "operations.h"

/* --- BT, BTS, BTR, BTC: CF is the bit; no other flag changes --- */

#define SET(value, bit) ((value) | (bit))
#define RESET(value, bit) ((value) & ~(bit))
#define COMPLEMENT(value, bit) ((value) ^ (bit))

#define BIT_TO_CF(bits, value, number) (cf = (cf & ~1ull) | ((value) >> ((number) & ((bits) - 1)) & 1))
#define BIT(bits, number) ((uint##bits##_t)1 << ((number) & ((bits) - 1)))

/* With the number in a register the operand is a bit string that reaches both ways. */
#define BIT_STRING(bits)                                                                                      \
    ((effective_address(cpu, insn) + (uint64_t)(((int64_t)(int##bits##_t)R##bits(insn->dst) & -(int64_t)(bits)) / 8)) & \
     cpu->address_mask[insn->asize])

#define BIT_TESTS(_, bits)                                                                                    \
    PLAIN_BODY(exec_bt_r##bits##_r##bits) { BIT_TO_CF(bits, R##bits(insn->dst), R##bits(insn->src)); NEXT; } \
    PLAIN_BODY(exec_bt_r##bits##_i) { BIT_TO_CF(bits, R##bits(insn->dst), insn->imm); NEXT; }                 \
    MEMORY_BODY(exec_bt_m##bits##_r##bits)                                                                    \
    {                                                                                                         \
        LOAD_AT(bits, value, insn->seg, BIT_STRING(bits));                                                    \
        BIT_TO_CF(bits, value, R##bits(insn->dst));                                                           \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_bt_m##bits##_i)                                                                          \
    {                                                                                                         \
        LOAD(bits, value);                                                                                    \
        BIT_TO_CF(bits, value, insn->imm);                                                                    \
        NEXT;                                                                                                 \
    }
WIDE_SIZES(BIT_TESTS, )

#define BIT_CHANGES(name, CHANGE, bits)                                                                       \
    PLAIN_BODY(exec_##name##_r##bits##_r##bits)                                                               \
    {                                                                                                         \
        const uint##bits##_t value = R##bits(insn->dst), number = R##bits(insn->src);                         \
        BIT_TO_CF(bits, value, number);                                                                       \
        SET_R##bits(insn->dst, CHANGE(value, BIT(bits, number)));                                             \
        NEXT;                                                                                                 \
    }                                                                                                         \
    PLAIN_BODY(exec_##name##_r##bits##_i)                                                                     \
    {                                                                                                         \
        const uint##bits##_t value = R##bits(insn->dst);                                                      \
        BIT_TO_CF(bits, value, insn->imm);                                                                    \
        SET_R##bits(insn->dst, CHANGE(value, BIT(bits, insn->imm)));                                          \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_##name##_m##bits##_r##bits)                                                              \
    {                                                                                                         \
        MODIFY_AT(bits, value, BIT_STRING(bits));                                                             \
        MODIFY_STORE(bits, CHANGE(value, BIT(bits, R##bits(insn->dst))));                                     \
        BIT_TO_CF(bits, value, R##bits(insn->dst));                                                           \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_##name##_m##bits##_i)                                                                    \
    {                                                                                                         \
        MODIFY(bits, value);                                                                                  \
        MODIFY_STORE(bits, CHANGE(value, BIT(bits, insn->imm)));                                              \
        BIT_TO_CF(bits, value, insn->imm);                                                                    \
        NEXT;                                                                                                 \
    }
WIDE_SIZES(BIT_CHANGES, bts, SET)
WIDE_SIZES(BIT_CHANGES, btr, RESET)
WIDE_SIZES(BIT_CHANGES, btc, COMPLEMENT)

/* --- scans and counts --- */

#define TRAILING_ZEROS(bits, value) ((value) ? (unsigned)__builtin_ctzll(value) : (bits))
#define LEADING_ZEROS(bits, value) ((value) ? (unsigned)__builtin_clzll(value) - (64 - (bits)) : (bits))

/* A scan gives back `variable` clocks for every bit that it did not look at; the fixed part is that of a scan of all.
 * Intel 80386 Programmer's Reference Manual, "BSF": 10 + 3n. */
INLINE int64_t scan_saved(const CPU *cpu, const Insn *insn, unsigned bits, unsigned scanned)
{
    return (int64_t)cpu->clocks[insn->row].variable * (bits - scanned);
}

/* ZF says that the source is 0; then the destination stays. The other flags are undefined: as of a logical result. */
#define BSF(bits, value)                                                        \
    const unsigned scanned = TRAILING_ZEROS(bits, value);                       \
    const uint##bits##_t found = (uint##bits##_t)scanned;                       \
    left += scan_saved(cpu, insn, bits, scanned);                               \
    LOGICAL(bits, value);                                                       \
    if (result)                                                                 \
        SET_R##bits(insn->dst, found)
#define BSR(bits, value)                                                        \
    const unsigned scanned = LEADING_ZEROS(bits, value);                        \
    const uint##bits##_t found = (uint##bits##_t)((bits) - 1 - scanned);        \
    left += scan_saved(cpu, insn, bits, scanned);                               \
    LOGICAL(bits, value);                                                       \
    if (result)                                                                 \
        SET_R##bits(insn->dst, found)

/* CF says that the source is 0, ZF that the result is. */
#define COUNT_ZEROS(bits, value, count)        \
    const unsigned zeros = (count);            \
    LOGICAL(bits, zeros);                      \
    cf = zeros == (bits);                      \
    SET_R##bits(insn->dst, result)
#define TZCNT(bits, value) COUNT_ZEROS(bits, value, TRAILING_ZEROS(bits, value))
#define LZCNT(bits, value) COUNT_ZEROS(bits, value, LEADING_ZEROS(bits, value))

/* Sums of neighbours, two bits wide, then four, then eight. The compiler's own would be a call. */
INLINE unsigned population(uint64_t value)
{
    value -= value >> 1 & 0x5555555555555555;
    value = (value & 0x3333333333333333) + (value >> 2 & 0x3333333333333333);
    value = (value + (value >> 4)) & 0x0f0f0f0f0f0f0f0f;
    return (unsigned)(value * 0x0101010101010101 >> 56);
}

/* Every flag but ZF is cleared: a result of 1 has SF = PF = 0, for 0 PF must be inverted. */
#define POPCNT(bits, value)                                         \
    const unsigned count = population(value);                       \
    fr = fd = count != 0;                                           \
    cf = count ? 0 : CF_INVERT_PF;                                  \
    cpu->fa = (uint64_t)fr;                                         \
    SET_R##bits(insn->dst, count)

#define SCANS(name, STATEMENTS, bits)                                                                         \
    PLAIN_BODY(exec_##name##_r##bits##_r##bits)                                                               \
    {                                                                                                         \
        const uint##bits##_t source = R##bits(insn->src);                                                     \
        STATEMENTS(bits, source);                                                                             \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_##name##_r##bits##_m##bits)                                                              \
    {                                                                                                         \
        LOAD(bits, source);                                                                                   \
        STATEMENTS(bits, source);                                                                             \
        NEXT;                                                                                                 \
    }
WIDE_SIZES(SCANS, bsf, BSF)
WIDE_SIZES(SCANS, bsr, BSR)
WIDE_SIZES(SCANS, tzcnt, TZCNT)
WIDE_SIZES(SCANS, lzcnt, LZCNT)
WIDE_SIZES(SCANS, popcnt, POPCNT)

/* --- SETcc --- */

#define SET_BYTE(name, condition)                                             \
    PLAIN_BODY(exec_set##name##_r8) { SET_R8(insn->dst, condition); NEXT; } \
    MEMORY_BODY(exec_set##name##_m8) { STORE(8, condition); NEXT; }
CONDITIONS(SET_BYTE)

/* --- CRC32: the polynomial 11EDC6F41h, bits reflected --- */

INLINE uint32_t crc32c(uint32_t crc, uint64_t value, unsigned bits)
{
    for (unsigned i = 0; i < bits; i += 8) {
        crc ^= (uint8_t)(value >> i);
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0x82f63b78 & -(crc & 1));
    }
    return crc;
}

#define CHECKSUM(to, bits)                                                                                    \
    PLAIN_BODY(exec_crc32_r##to##_r##bits)                                                                    \
    {                                                                                                         \
        SET_R32(insn->dst, crc32c(R32(insn->dst), R##bits(insn->src), bits));                                 \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_crc32_r##to##_m##bits)                                                                   \
    {                                                                                                         \
        LOAD(bits, value);                                                                                    \
        SET_R32(insn->dst, crc32c(R32(insn->dst), value, bits));                                              \
        NEXT;                                                                                                 \
    }
CHECKSUM(32, 8)
CHECKSUM(32, 16)
CHECKSUM(32, 32)
CHECKSUM(64, 8)
CHECKSUM(64, 64)
