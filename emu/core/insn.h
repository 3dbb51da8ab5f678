/* The decoded instruction and the block: what the decoder makes, the block cache keeps and the bodies read. */
#ifndef EMU_INSN_H
#define EMU_INSN_H

#include <string.h>

#include "cpu.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define INLINE static inline __attribute__((always_inline))
#define COLD __attribute__((cold, noinline))

/* Bodies pass the processor's hot state on from one to the next. With GCC on x86-64 it stays in fixed registers, which
 * leaves the bodies the whole set of scratch registers; elsewhere in arguments. Sanitizers cannot do without a stack
 * frame a call: there (EMU_TRAMPOLINE) bodies return to a loop that makes the next call. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && !defined(EMU_TRAMPOLINE)
#define EMU_FIXED_REGISTERS
#define ARGS void
typedef int64_t Handler_t(void);
#else
#define ARGS CPU *cpu, const Insn *insn, int64_t left, int64_t fr, int64_t fd, uint64_t cf
typedef int64_t Handler_t(ARGS);
#endif

struct Insn {
    Handler_t *fn;
    int32_t imm;  /* immediate; of a direct branch: the target's offset from the start of this page */
    int32_t disp; /* displacement; of a direct branch: clocks it costs more when it is taken */
    union {
        int32_t link;    /* direct branch: distance in bytes to the first Insn of the target's block, 0 = not linked */
        uint32_t imm_hi; /* upper half of a 64-bit immediate; the selector of a far pointer; second operand of ENTER */
    };
    uint16_t cum; /* clocks from the start of the block to the end of this instruction (dearest case) */
    uint16_t off : 12; /* offset in the page */
    uint16_t len : 4;
    uint8_t dst;  /* first register operand: byte offset in CPU; of a segment, control or debug register: its number */
    uint8_t src;  /* second one; where one operand is no register, dst and src are both the other */
    uint8_t base;  /* number of the base register, REG_ZERO for none, REG_RIP */
    uint8_t index;
    uint8_t seg;
    uint8_t scale : 2;
    uint8_t asize : 2;  /* 0, 1, 2: 16, 32, 64 bits */
    uint8_t osize : 2;  /* OSIZE* */
    uint8_t lock : 1;
    uint8_t memory : 1; /* has a memory operand */
    uint16_t row : 11;  /* of the instruction table */
    uint16_t idx : 5;   /* place in the block */
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
INLINE uint64_t insn_imm64(const Insn *insn) { return (uint32_t)insn->imm | (uint64_t)insn->imm_hi << 32; }
INLINE uint64_t insn_rip(const CPU *cpu, const Insn *insn) { return cpu->page_rip + insn->off; }
INLINE uint64_t insn_next_rip(const CPU *cpu, const Insn *insn) { return cpu->page_rip + insn->off + insn->len; }

/* Clocks charged before this instruction in its block. */
INLINE int64_t cum_before(const Insn *insn) { return insn->idx ? insn[-1].cum : 0; }

/* Ends of a block, exec_end.c: each is reached by tail call and returns a Status to the run loop. */
Handler_t exit_after;   /* this instruction is done; look up before the next */
Handler_t exit_fault;   /* this instruction faulted (CPU.fault is set) and did nothing */
Handler_t exit_branch;  /* this instruction is done; CPU.rip is the next */
Handler_t exit_stale;   /* first handler of a retired block */
Handler_t exit_target;  /* direct branch taken and charged, too few clocks left for the block at insn->imm */
Handler_t exit_found;   /* the same of an indirect branch: CPU.rip is right */
Handler_t jump_linked;  /* direct branch taken and charged, not linked; insn->imm is the target: links or goes dynamic */
Handler_t jump_dynamic; /* branch taken and charged; CPU.rip is the target: checks the limit, finds the block */
Handler_t exec_undefined; /* #UD */
Handler_t exec_onward;  /* pseudo-instruction after a block's last: go on at the following address, imm; dst is its place */
Handler_t exec_onward_hooked; /* the same in a page with hooks */
Handler_t exec_hooked;  /* pseudo-instruction before one that is hooked */
Handler_t exec_wide_offset; /* pseudo-instruction: gives the next one a 64-bit offset in r[REG_OFFSET] */

/* One body for a comparison (or INC, DEC) and the conditional jump after it; NULL where there is none. exec_flow.c. */
Handler_t *pair_body(Handler_t *first, Handler_t *jump);

/* Runs from a block on until something must be looked at, with the state in CPU and Clock; a Status. */
int64_t exec_enter(CPU *cpu, const Insn *first);

#endif
