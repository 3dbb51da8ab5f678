/* How instruction bodies are written: the decoded instruction, the block, and the macros that every exec_*.c uses.
 *
 * A body is a function that ends by tail-calling the next one (NEXT), so guest code runs without a loop and the state
 * that matters stays in registers. Three rules follow:
 *   - A hot body makes no ordinary call: what is slow is reached by `return cold(PASS)`. An inline function is fine.
 *   - No local's address may escape, or the compiler quietly stops tail-calling.
 *   - No register is written before the last access that can fault.
 *
 * Kinds of body:
 *   REGISTER_BODY(exec_x)   operands in registers only
 *   MEMORY_BODY(exec_x)     accesses memory with LOAD, STORE, MODIFY. It is compiled twice: the fast one gives up at a
 *                           TLB miss, a device or a page crossing and jumps to the slow one, which does it properly.
 *   COLD_BODY(exec_x)       plain C on the CPU: `static int x(CPU *cpu, const Insn *insn)` with the state written back;
 *                           it returns a Status. For everything that is not worth speed. */
#ifndef EMU_EXEC_H
#define EMU_EXEC_H

#include <string.h>

#include "flags.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define INLINE static inline __attribute__((always_inline))
#define COLD __attribute__((cold, noinline))

#define ARGS CPU *cpu, const Insn *insn, int64_t left, int64_t fr, int64_t fd, uint64_t cf
#define PASS cpu, insn, left, fr, fd, cf
typedef int64_t Handler_t(ARGS);

struct Insn {
    Handler_t *fn;
    int32_t imm;  /* immediate; of a direct branch: the target's offset from the start of this page */
    int32_t disp; /* displacement; with imm_hi or imm: 64-bit immediates and offsets (insn_imm64, insn_moffs) */
    union {
        int32_t link;    /* direct branch: distance in bytes to the first Insn of the target's block, 0 = not linked */
        uint32_t imm_hi; /* upper half of a 64-bit immediate; the selector of a far pointer; second operand of ENTER */
    };
    uint16_t cum; /* clocks from the start of the block to the end of this instruction (dearest case) */
    uint16_t off; /* offset in the page */
    uint8_t dst;  /* byte offset of the first register operand in CPU (of the only one, of a segment or control register: its number) */
    uint8_t src;  /* of the second one */
    uint8_t base;  /* number of the base register, REG_ZERO for none, REG_RIP */
    uint8_t index;
    uint8_t seg : 3;
    uint8_t scale : 2;
    uint8_t asize : 2; /* 0, 1, 2: 16, 32, 64 bits */
    uint8_t lock : 1;
    uint8_t idx : 5; /* place in the block */
    uint8_t osize : 2; /* 0, 1, 2: 16, 32, 64 bits */
    uint8_t memory : 1; /* has a memory operand */
    uint16_t row : 12; /* of the instruction table */
    uint16_t len : 4;
};
_Static_assert(sizeof(Insn) == 32, "a decoded instruction is 32 bytes");

#define REG_ZERO 16
#define REG_RIP 17
#define REG_OFFSET 18
#define OSIZE16 0
#define OSIZE32 1
#define OSIZE64 2

/* Stands before the block's first Insn. */
struct Block {
    uint64_t pa;       /* physical address of the first byte */
    uint32_t window;   /* offsets of this page that the CS limit allows: first << 16 | last + 1 */
    Block *hash_next;
    Block *page_next;  /* blocks of the same physical page */
    uint32_t mode;     /* MODE_* */
    int32_t need;      /* clocks that must be left for the whole block to run: to the start of its last instruction, + 1 */
    uint16_t bytes;    /* of guest code */
    uint8_t entry;     /* clocks charged to a branch that comes here: the manual's m */
    bool fixed;        /* in the cache, and branches of its page may link to it */
};

INLINE const Block *block_of(const Insn *first) { return (const Block *)first - 1; }

/* --- registers --- */
#define R8(offset)  (*((uint8_t *)cpu + (offset)))
#define R16(offset) (*(uint16_t *)((uint8_t *)cpu + (offset)))
#define R32(offset) (*(uint32_t *)((uint8_t *)cpu + (offset)))
#define R64(offset) (*(uint64_t *)((uint8_t *)cpu + (offset)))
/* Writing a 32-bit register clears its upper half, SDM Vol. 1, "General-Purpose Registers in 64-Bit Mode". */
#define SET_R8(offset, value)  (R8(offset) = (uint8_t)(value))
#define SET_R16(offset, value) (R16(offset) = (uint16_t)(value))
#define SET_R32(offset, value) (R64(offset) = (uint32_t)(value))
#define SET_R64(offset, value) (R64(offset) = (uint64_t)(value))

INLINE uint64_t insn_imm64(const Insn *insn) { return (uint32_t)insn->imm | (uint64_t)insn->imm_hi << 32; }

/* --- continuing --- */
#ifdef EMU_TRAMPOLINE
/* Where tail calls are not to be had (-O0, sanitizers) a body returns to a loop in run.c that makes the next call. */
INLINE int64_t call_later(ARGS, Handler_t *fn)
{
    cpu->pending.insn = insn;
    cpu->pending.fn = fn;
    cpu->pending.left = left;
    cpu->pending.fr = fr;
    cpu->pending.fd = fd;
    cpu->pending.cf = cf;
    return STATUS_CALL;
}
#define JUMP_TO(target, fn_) return call_later(cpu, target, left, fr, fd, cf, fn_)
#else
#define JUMP_TO(target, fn_) return (fn_)(cpu, target, left, fr, fd, cf)
#endif
#define GO(function) JUMP_TO(insn, function)

/* Is this the slow variant of a MEMORY_BODY? (There it is a parameter.) */
enum { in_slow = 0 };

/* The next instruction of the block. The slow variant looks up first, since a device or a store to code may want that. */
#define NEXT                                                   \
    do {                                                       \
        if (in_slow && unlikely(cpu->clock->leave)) GO(exit_after); \
        JUMP_TO(insn + 1, insn[1].fn);                         \
    } while (0)

/* Ends of a block; each is reached by tail call and returns a Status to the run loop. */
int64_t exit_after(ARGS);   /* this instruction is done; look up before the next */
int64_t exit_fault(ARGS);   /* this instruction faulted (CPU.fault is set) and did nothing */
int64_t exit_branch(ARGS);  /* this instruction is done; CPU.rip is the next */
int64_t exit_stale(ARGS);   /* first handler of a retired block */
int64_t exec_onward(ARGS);  /* pseudo-instruction after a block's last: go on at the following address */
int64_t exec_hooked(ARGS);  /* pseudo-instruction before one that is hooked */
int64_t exec_wide_offset(ARGS); /* pseudo-instruction: gives the next one a 64-bit offset in r[REG_OFFSET] */
int64_t jump_linked(ARGS);  /* direct branch taken and charged, not linked; insn->imm is the target: links or goes dynamic */
int64_t jump_dynamic(ARGS); /* branch taken and charged; CPU.rip is the target: checks the limit, finds the block */
int64_t exit_target(ARGS);  /* direct branch taken and charged, too few clocks left for the block at insn->imm */
int64_t exit_found(ARGS);   /* the same of an indirect branch: CPU.rip is right */
int64_t exec_undefined(ARGS); /* #UD */

/* A direct branch that is taken: charge what the block did, then go where it links to. `extra` clocks are charged. */
#define TAKE_DIRECT(extra) do {                                                                              \
        left -= insn->cum + (int64_t)(extra);                                                                \
        cpu->instructions += insn->idx + 1u;                                                                 \
        const Insn *target_ = (const Insn *)((const char *)insn + insn->link);                               \
        if (in_slow && unlikely(cpu->clock->leave)) { cpu->charge_target = 1; GO(exit_target); }             \
        if (unlikely(insn->link == 0)) GO(jump_linked);                                                      \
        left -= block_of(target_)->entry;                                                                    \
        if (unlikely(left < block_of(target_)->need)) GO(exit_target);                                       \
        JUMP_TO(target_, target_->fn);                                                                       \
    } while (0)

/* An indirect branch that is taken: CPU.rip holds the target. Looks in the jump cache, which also knows that the address
 * passed the limit check. */
#define TAKE_INDIRECT(extra) do {                                                                            \
        left -= insn->cum + (int64_t)(extra);                                                                \
        cpu->instructions += insn->idx + 1u;                                                                 \
        if (in_slow && unlikely(cpu->clock->leave)) { cpu->charge_target = 1; GO(exit_found); }              \
        uint64_t la_ = cpu->seg[CS].base + cpu->rip;                                                         \
        const JumpCacheEntry *entry_ = &cpu->jump_cache[(la_ ^ la_ >> 12) % JUMP_CACHE_SIZE];                \
        if (unlikely(entry_->tag != (la_ << 16 | cpu->jump_key))) GO(jump_dynamic);                          \
        const Insn *target_ = entry_->first;                                                                 \
        left -= block_of(target_)->entry;                                                                    \
        if (unlikely(left < block_of(target_)->need)) GO(exit_found);                                        \
        cpu->page_rip = cpu->rip - (la_ & PAGE_MASK);                                                        \
        JUMP_TO(target_, target_->fn);                                                                       \
    } while (0)

INLINE uint64_t insn_rip(const CPU *cpu, const Insn *insn) { return cpu->page_rip + (insn->off); }
INLINE uint64_t insn_next_rip(const CPU *cpu, const Insn *insn) { return cpu->page_rip + insn->off + insn->len; }

/* Clocks charged before this instruction in its block. */
INLINE int64_t cum_before(const Insn *insn) { return insn->idx ? insn[-1].cum : 0; }

/* --- memory --- */
#include "access.h"

/* --- bodies --- */
#define REGISTER_BODY(name) int64_t name(ARGS)

#define MEMORY_BODY(name)                                                            \
    INLINE int64_t name##_body(ARGS, const bool in_slow, Handler_t *slow);           \
    COLD static int64_t name##_slow(ARGS) { return name##_body(PASS, true, NULL); }  \
    int64_t name(ARGS) { return name##_body(PASS, false, name##_slow); }             \
    INLINE int64_t name##_body(ARGS, const bool in_slow, Handler_t *slow)

/* Writes the registers of the handler back for plain C code. */
INLINE void state_save(ARGS)
{
    cpu->fr = fr;
    cpu->fd = fd;
    cpu->cf = cf;
    cpu->clock->left = left - cum_before(insn);
    cpu->rip = insn_rip(cpu, insn);
}

typedef int Operation(CPU *cpu, const Insn *insn);
/* Runs an operation between two hot instructions: writes the state back, calls, fetches it again; in run.c. */
int64_t run_cold(ARGS); /* CPU.operation: a seventh argument would go on the stack and forbid the tail call */

#define COLD_BODY(name)                                      \
    static int name##_operation(CPU *cpu, const Insn *insn); \
    int64_t name(ARGS)                                       \
    {                                                        \
        cpu->operation = name##_operation;                   \
        return run_cold(PASS);                               \
    }                                                        \
    static int name##_operation(CPU *cpu, const Insn *insn)

/* In an operation: settles a cost that depends on the state; `clocks` is what the instruction costs as a whole. */
INLINE void charge_case(CPU *cpu, const Insn *insn, unsigned which)
{
    const RowClocks *row = &cpu->clocks[insn->row];
    if (row->cases[which])
        cpu->clock->left += (insn->memory ? row->mem : row->reg) - (int64_t)row->cases[which];
}

#endif
