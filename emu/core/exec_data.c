/* Data transfer: MOV and its relatives, XCHG, CMPXCHG, XADD, BSWAP, CMOVcc, sign extension, LEA, XLAT.
 * SDM Vol. 1, "Data Transfer Instructions". */
#include "operations.h"

/* --- MOV, XCHG, XADD, CMPXCHG, CMOVcc --- */

#define MOVES(_, bits)                                                                                        \
    PLAIN_BODY(exec_mov_r##bits##_r##bits) { SET_R##bits(insn->dst, R##bits(insn->src)); NEXT; }              \
    MEMORY_BODY(exec_mov_r##bits##_m##bits) { LOAD(bits, value); SET_R##bits(insn->dst, value); NEXT; }       \
    MEMORY_BODY(exec_mov_m##bits##_r##bits) { STORE(bits, R##bits(insn->dst)); NEXT; }                        \
    MEMORY_BODY(exec_mov_m##bits##_i) { STORE(bits, insn->imm); NEXT; }
ALL_SIZES(MOVES, )

PLAIN_BODY(exec_mov_r8_i) { SET_R8(insn->dst, insn->imm); NEXT; }
PLAIN_BODY(exec_mov_r16_i) { SET_R16(insn->dst, insn->imm); NEXT; }
PLAIN_BODY(exec_mov_r32_i) { SET_R32(insn->dst, insn->imm); NEXT; }
PLAIN_BODY(exec_mov_r64_i) { SET_R64(insn->dst, insn_imm64(insn)); NEXT; }

MEMORY_BODY(exec_movnti_m32_r32) { STORE(32, R32(insn->dst)); NEXT; }
MEMORY_BODY(exec_movnti_m64_r64) { STORE(64, R64(insn->dst)); NEXT; }

#define EXCHANGES(_, bits)                                                                                    \
    PLAIN_BODY(exec_xchg_r##bits##_r##bits)                                                                   \
    {                                                                                                         \
        uint##bits##_t first = R##bits(insn->dst), second = R##bits(insn->src);                               \
        SET_R##bits(insn->dst, second);                                                                       \
        SET_R##bits(insn->src, first);                                                                        \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_xchg_r##bits##_m##bits)                                                                  \
    {                                                                                                         \
        MODIFY(bits, old);                                                                                    \
        MODIFY_STORE(bits, R##bits(insn->dst));                                                               \
        SET_R##bits(insn->dst, old);                                                                          \
        NEXT;                                                                                                 \
    }                                                                                                         \
    PLAIN_BODY(exec_xadd_r##bits##_r##bits)                                                                   \
    {                                                                                                         \
        SUM(bits, R##bits(insn->dst), R##bits(insn->src), 0);                                                 \
        SET_R##bits(insn->src, a);                                                                            \
        SET_R##bits(insn->dst, result);                                                                       \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_xadd_m##bits##_r##bits)                                                                  \
    {                                                                                                         \
        MODIFY(bits, old);                                                                                    \
        SUM(bits, old, R##bits(insn->dst), 0);                                                                \
        MODIFY_STORE(bits, result);                                                                           \
        SET_R##bits(insn->dst, old);                                                                          \
        NEXT;                                                                                                 \
    }                                                                                                         \
    PLAIN_BODY(exec_cmpxchg_r##bits##_r##bits)                                                                \
    {                                                                                                         \
        uint##bits##_t old = R##bits(insn->dst);                                                              \
        DIFFERENCE(bits, cpu->r[RAX], old, 0);                                                                \
        if (result == 0)                                                                                      \
            SET_R##bits(insn->dst, R##bits(insn->src));                                                       \
        else                                                                                                  \
            SET_R##bits(GPR(RAX), old);                                                                       \
        NEXT;                                                                                                 \
    }                                                                                                         \
    /* Memory is written in either case. */                                                                   \
    MEMORY_BODY(exec_cmpxchg_m##bits##_r##bits)                                                               \
    {                                                                                                         \
        MODIFY(bits, old);                                                                                    \
        DIFFERENCE(bits, cpu->r[RAX], old, 0);                                                                \
        MODIFY_STORE(bits, result == 0 ? R##bits(insn->dst) : old);                                           \
        if (result != 0)                                                                                      \
            SET_R##bits(GPR(RAX), old);                                                                       \
        NEXT;                                                                                                 \
    }
ALL_SIZES(EXCHANGES, )

/* The source is read, and a 32-bit destination's upper half cleared, whatever the condition says. */
#define CONDITIONAL_MOVE(name, condition, bits)                                                               \
    PLAIN_BODY(exec_cmov##name##_r##bits##_r##bits)                                                           \
    {                                                                                                         \
        SET_R##bits(insn->dst, (condition) ? R##bits(insn->src) : R##bits(insn->dst));                        \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_cmov##name##_r##bits##_m##bits)                                                          \
    {                                                                                                         \
        LOAD(bits, value);                                                                                    \
        SET_R##bits(insn->dst, (condition) ? value : R##bits(insn->dst));                                     \
        NEXT;                                                                                                 \
    }
#define CONDITIONAL_MOVES(name, condition) \
    CONDITIONAL_MOVE(name, condition, 16) CONDITIONAL_MOVE(name, condition, 32) CONDITIONAL_MOVE(name, condition, 64)
CONDITIONS(CONDITIONAL_MOVES)

/* CMPXCHG8B and CMPXCHG16B change ZF alone. */
static int exchange_pair(CPU *cpu, const Insn *insn, unsigned size)
{
    uint64_t ea = effective_address(cpu, insn), mask = size == 8 ? UINT64_MAX : UINT32_MAX;
    uint64_t second = (ea + size) & cpu->address_mask[insn->asize];
    int status;
    if ((status = mem_probe_write(cpu, insn->seg, ea, size)) || (status = mem_probe_write(cpu, insn->seg, second, size)) ||
        (status = mem_read(cpu, insn->seg, ea, size)))
        return status;
    uint64_t low = cpu->data;
    if ((status = mem_read(cpu, insn->seg, second, size)))
        return status;
    uint64_t high = cpu->data;
    bool equal = low == (cpu->r[RAX] & mask) && high == (cpu->r[RDX] & mask);
    if ((status = mem_write(cpu, insn->seg, ea, size, equal ? cpu->r[RBX] & mask : low)) ||
        (status = mem_write(cpu, insn->seg, second, size, equal ? cpu->r[RCX] & mask : high)))
        return status;
    if (!equal) {
        cpu->r[RAX] = low;
        cpu->r[RDX] = high;
    }
    cpu_set_flags(cpu, equal ? FLAG_ZF : 0, FLAG_ZF);
    return STATUS_OK;
}

COLD_BODY(exec_cmpxchg8b_m64) { return exchange_pair(cpu, insn, 4); }

COLD_BODY(exec_cmpxchg16b_m)
{
    if ((cpu->seg[insn->seg].base + effective_address(cpu, insn)) & 15)
        return fault_gp(cpu, 0);
    return exchange_pair(cpu, insn, 8);
}

/* --- byte order --- */

/* BSWAP of a 16-bit register is undefined; Intel's processors clear it. */
PLAIN_BODY(exec_bswap_r16) { SET_R16(insn->dst, 0); NEXT; }
PLAIN_BODY(exec_bswap_r32) { SET_R32(insn->dst, __builtin_bswap32(R32(insn->dst))); NEXT; }
PLAIN_BODY(exec_bswap_r64) { SET_R64(insn->dst, __builtin_bswap64(R64(insn->dst))); NEXT; }

#define SWAPPED_MOVES(_, bits)                                                                                \
    MEMORY_BODY(exec_movbe_r##bits##_m##bits)                                                                 \
    {                                                                                                         \
        LOAD(bits, value);                                                                                    \
        SET_R##bits(insn->dst, __builtin_bswap##bits(value));                                                 \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_movbe_m##bits##_r##bits) { STORE(bits, __builtin_bswap##bits(R##bits(insn->dst))); NEXT; }
WIDE_SIZES(SWAPPED_MOVES, )

/* --- extension --- */

#define EXTEND(name, type, to, from)                                                                          \
    PLAIN_BODY(exec_##name##_r##to##_r##from) { SET_R##to(insn->dst, (type##from##_t)R##from(insn->src)); NEXT; } \
    MEMORY_BODY(exec_##name##_r##to##_m##from)                                                                \
    {                                                                                                         \
        LOAD(from, value);                                                                                    \
        SET_R##to(insn->dst, (type##from##_t)value);                                                          \
        NEXT;                                                                                                 \
    }
#define EXTENSIONS(_, to)               \
    EXTEND(movzx, uint, to, 8)          \
    EXTEND(movzx, uint, to, 16)         \
    EXTEND(movsx, int, to, 8)           \
    EXTEND(movsx, int, to, 16)          \
    EXTEND(movsxd, int, to, 32)
WIDE_SIZES(EXTENSIONS, )

PLAIN_BODY(exec_cbw) { SET_R16(GPR(RAX), (int8_t)cpu->r[RAX]); NEXT; }
PLAIN_BODY(exec_cwde) { SET_R32(GPR(RAX), (int16_t)cpu->r[RAX]); NEXT; }
PLAIN_BODY(exec_cdqe) { SET_R64(GPR(RAX), (int64_t)(int32_t)cpu->r[RAX]); NEXT; }
PLAIN_BODY(exec_cwd) { SET_R16(GPR(RDX), (int16_t)cpu->r[RAX] >> 15); NEXT; }
PLAIN_BODY(exec_cdq) { SET_R32(GPR(RDX), (int32_t)cpu->r[RAX] >> 31); NEXT; }
PLAIN_BODY(exec_cqo) { SET_R64(GPR(RDX), (int64_t)cpu->r[RAX] >> 63); NEXT; }

/* --- addresses --- */

PLAIN_BODY(exec_lea_r16_m) { SET_R16(insn->dst, effective_address(cpu, insn)); NEXT; }
PLAIN_BODY(exec_lea_r32_m) { SET_R32(insn->dst, effective_address(cpu, insn)); NEXT; }
PLAIN_BODY(exec_lea_r64_m) { SET_R64(insn->dst, effective_address(cpu, insn)); NEXT; }

MEMORY_BODY(exec_xlatb)
{
    LOAD_AT(8, value, insn->seg, (cpu->r[RBX] + (uint8_t)cpu->r[RAX]) & cpu->address_mask[insn->asize]);
    SET_R8(GPR(RAX), value);
    NEXT;
}
