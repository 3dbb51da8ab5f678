/* How instruction bodies are written: the macros that every exec_*.c uses.
 *
 * A body is a function that ends by tail-calling the next one (NEXT), so guest code runs without a loop and the state
 * that matters stays in registers. Three rules follow:
 *   - A hot body makes no ordinary call: what is slow is reached by `return cold(PASS)`. An inline function is fine.
 *   - No local's address may escape, or the compiler quietly stops tail-calling.
 *   - No register is written before the last access that can fault.
 *
 * Kinds of body:
 *   PLAIN_BODY(exec_x)      operands in registers; cannot fault, branch or leave the block
 *   REGISTER_BODY(exec_x)   operands in registers
 *   MEMORY_BODY(exec_x)     accesses memory with LOAD, STORE, MODIFY. It is compiled three times: two fast ones give up at a
 *                           TLB miss, a device or a page crossing and jump to the slow one, which does it properly; of
 *                           the fast ones `name_simple` serves addresses without index and of the mode's own size.
 *   COLD_BODY(exec_x)       plain C on the CPU: `static int x(CPU *cpu, const Insn *insn)` with the state written back;
 *                           it returns a Status. For everything that is not worth speed. */
#ifndef EMU_EXEC_H
#define EMU_EXEC_H

#include "flags.h"
#include "insn.h"

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

/* --- continuing --- */
#ifdef EMU_FIXED_REGISTERS
/* RBP is for cf alone: AMD processors predict that loads with RBP as base find what was stored at the same displacement,
 * as in a stack frame, and lose most of their speed where RBP moves along the block. */
register CPU *cpu __asm__("rbx");
register const Insn *insn __asm__("r12");
register int64_t left __asm__("r13");
register int64_t fr __asm__("r14");
register int64_t fd __asm__("r15");
register uint64_t cf __asm__("rbp");
#define PASS
#define ARGS_AND
#define PASS_AND
#define JUMP_TO(target, fn_)         \
    do {                             \
        Handler_t *const next_ = fn_; \
        insn = (target);             \
        return next_();              \
    } while (0)
#else
#define PASS cpu, insn, left, fr, fd, cf
#define ARGS_AND ARGS,
#define PASS_AND PASS,
#ifdef EMU_TRAMPOLINE
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
#endif
#define GO(function) JUMP_TO(insn, function)

/* In which variant of a body are we? (There these are parameters.) */
enum { in_slow = 0, in_simple = 0, in_quiet = 0 };

/* The next instruction of the block. The slow variant looks up first, since a device or a store to code may want that. */
#define NEXT                                                   \
    do {                                                       \
        if (in_slow && unlikely(cpu->clock->leave)) GO(exit_after); \
        JUMP_TO(insn + 1, insn[1].fn);                         \
    } while (0)

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

/* --- memory --- */
#include "access.h"

/* --- bodies --- */
#define REGISTER_BODY(name) int64_t name(ARGS)

/* `name_quiet` is taken where the flags it writes are overwritten before anything can look at them. */
#define PLAIN_BODY(name)                                                   \
    INLINE int64_t name##_body(ARGS_AND const bool in_quiet);              \
    int64_t name(ARGS) { return name##_body(PASS_AND false); }             \
    Handler_t name##_quiet;                                                \
    int64_t name##_quiet(ARGS) { return name##_body(PASS_AND true); }      \
    INLINE int64_t name##_body(ARGS_AND const bool in_quiet)

#define MEMORY_BODY(name)                                                                                    \
    INLINE int64_t name##_body(ARGS_AND const bool in_slow, const bool in_simple, Handler_t *slow);          \
    COLD static int64_t name##_slow(ARGS) { return name##_body(PASS_AND true, false, NULL); }                \
    int64_t name(ARGS) { return name##_body(PASS_AND false, false, name##_slow); }                           \
    Handler_t name##_simple;                                                                                 \
    int64_t name##_simple(ARGS) { return name##_body(PASS_AND false, true, name##_slow); }                   \
    INLINE int64_t name##_body(ARGS_AND const bool in_slow, const bool in_simple, Handler_t *slow)

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

/* The exit qualification of instructions with a memory operand: the displacement, with RIP-relative addresses the sum.
 * SDM Vol. 3, "Basic VM-Exit Information". */
INLINE uint64_t vm_exit_displacement(const CPU *processor, const Insn *instruction)
{
    const uint64_t displacement = (uint64_t)(int64_t)instruction->disp;
    const uint64_t sum = instruction->base == REG_RIP ? processor->page_rip + displacement : displacement;
    return processor->code64 ? sum : (uint32_t)sum;
}

/* In an operation: settles a cost that depends on the state; `clocks` is what the instruction costs as a whole. */
INLINE void charge_case(CPU *cpu, const Insn *insn, unsigned which)
{
    const RowClocks *row = &cpu->clocks[insn->row];
    if (row->cases[which])
        cpu->clock->left += (insn->memory ? row->mem : row->reg) - (int64_t)row->cases[which];
}

#endif
