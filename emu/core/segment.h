/* Descriptors, code and stack segments, and the stacks that control transfers use: what segment.c gives to interrupt.c,
 * task.c and the instructions that change privilege. SDM Vol. 3, "Protected-Mode Memory Management" and "Protection". */
#ifndef EMU_SEGMENT_H
#define EMU_SEGMENT_H

#include "insn.h"
#include "access.h"

/* A descriptor as it lies in memory, and what a segment register keeps of it. */
typedef struct Descriptor {
    uint32_t low, high;
    uint32_t upper;  /* bits 64 to 95 of a 16-byte system descriptor */
    uint32_t access; /* AR_* */
    uint32_t limit;  /* in bytes */
    uint64_t base;
} Descriptor;

static inline unsigned descriptor_type(const Descriptor *d) { return d->access & AR_TYPE; }
static inline unsigned descriptor_dpl(const Descriptor *d) { return AR_DPL_OF(d->access); }
static inline bool is_present(const Descriptor *d) { return d->access & AR_P; }
static inline bool is_system(const Descriptor *d) { return !(d->access & AR_S); }
static inline bool is_code(const Descriptor *d) { return (d->access & (AR_S | AR_CODE)) == (AR_S | AR_CODE); }
static inline bool is_conforming(const Descriptor *d) { return is_code(d) && (d->access & AR_DC); }
static inline bool is_writable_data(const Descriptor *d)
{
    return (d->access & (AR_S | AR_CODE | AR_RW)) == (AR_S | AR_RW);
}
static inline bool is_readable(const Descriptor *d)
{
    return (d->access & AR_S) && (d->access & (AR_CODE | AR_RW)) != AR_CODE;
}

/* Gates. SDM Vol. 3, "Call Gates", "IDT Descriptors". */
static inline bool is_gate32(const Descriptor *d) { return descriptor_type(d) & 8; }
static inline uint16_t gate_selector(const Descriptor *d) { return (uint16_t)(d->low >> 16); }
static inline uint64_t gate_offset(const Descriptor *d)
{
    uint64_t offset = d->low & 0xffff;
    return is_gate32(d) ? offset | (d->high & 0xffff0000) | (uint64_t)d->upper << 32 : offset;
}

static inline bool is_null(uint16_t selector) { return (selector & 0xfffc) == 0; }
static inline unsigned rpl_of(uint16_t selector) { return selector & 3; }
static inline uint32_t selector_error(uint16_t selector, uint32_t ext) { return (selector & 0xfffcu) | ext; }
static inline bool is_canonical(uint64_t la) { return (uint64_t)((int64_t)(la << 16) >> 16) == la; }
static inline unsigned iopl(const CPU *cpu) { return (cpu->eflags & FLAG_IOPL) >> 12; }
static inline bool cr0_pe(const CPU *cpu) { return cpu->cr0 & CR0_PE; }

/* The descriptor that a selector names. `vector` faults with the selector and `ext` where it lies outside its table. */
int descriptor_fetch(CPU *cpu, uint16_t selector, unsigned vector, uint32_t ext, Descriptor *d);
/* The same for instructions that ask: 1 where there is one, 0 where it lies outside its table, or STATUS_FAULT. */
int descriptor_lookup(CPU *cpu, uint16_t selector, Descriptor *d);
/* In long mode system descriptors have 16 bytes: reads the rest, with the checks that belong to it. */
int descriptor_fetch_upper(CPU *cpu, uint16_t selector, unsigned vector, uint32_t ext, Descriptor *d);
/* Sets or clears bits of the type in memory: the accessed bit, the busy bit. */
int descriptor_set_type(CPU *cpu, uint16_t selector, Descriptor *d, unsigned type);
int descriptor_set_accessed(CPU *cpu, uint16_t selector, Descriptor *d);
/* Makes a descriptor of its two doublewords. */
INLINE Descriptor descriptor_decode(uint32_t low, uint32_t high)
{
    Descriptor d = {.low = low, .high = high};
    d.access = high >> 8 & 0xf0ff;
    d.base = low >> 16 | (high & 0xff) << 16 | (high & 0xff000000);
    d.limit = (low & 0xffff) | (high & 0xf0000);
    if (d.access & AR_G)
        d.limit = d.limit << 12 | 0xfff;
    return d;
}

/* Loads a register with a descriptor that passed its checks. */
void segment_fill(Segment *segment, uint16_t selector, const Descriptor *d);
void segment_set(CPU *cpu, unsigned index, uint16_t selector, const Descriptor *d);
void segment_set_null(CPU *cpu, unsigned index, uint16_t selector);
/* A flat segment as SYSENTER, SYSCALL and their like make without reading a descriptor. */
void segment_set_flat(CPU *cpu, unsigned index, uint16_t selector, uint32_t access);
/* CS with its RPL set to `cpl`, which becomes the current privilege level. */
void code_segment_set(CPU *cpu, uint16_t selector, const Descriptor *d, unsigned cpl);
/* After a return to an outer level: data segments that it may not use become null. */
void segments_null_inner(CPU *cpu);

/* A stack segment for privilege level `cpl`: checks as SDM Vol. 3 has them for stack switches; `vector` is #TS or #GP. */
int stack_segment_fetch(CPU *cpu, uint16_t selector, unsigned cpl, unsigned vector, uint32_t ext, Descriptor *d);
/* A data segment for ES, DS, FS or GS at privilege level `cpl`; `vector` is #TS or #GP. */
int data_segment_fetch(CPU *cpu, uint16_t selector, unsigned cpl, unsigned vector, uint32_t ext, Descriptor *d);
/* The code segment that RETF or IRET goes back to. */
int return_segment_fetch(CPU *cpu, uint16_t selector, Descriptor *d);
/* #GP(ext) unless the offset lies in the segment (in 64-bit code: is canonical). */
int code_offset_check(CPU *cpu, const Descriptor *d, uint64_t offset, uint32_t ext);
/* Is the descriptor one of 64-bit code? */
static inline bool is_code64(const CPU *cpu, const Descriptor *d) { return cpu->long_mode && (d->access & AR_L); }

/* A stack while a transfer fills or empties it; nothing is committed to SS and RSP. */
typedef struct Stack {
    uint64_t base;
    uint32_t limit, segment_access; /* of its segment */
    uint16_t selector;
    uint64_t sp;
    uint64_t mask;
    bool wide;       /* 64-bit: no segmentation */
    unsigned access; /* ACCESS_* of its accesses */
    uint32_t error;  /* error code of its #SS */
} Stack;

Stack stack_current(const CPU *cpu, uint32_t error);
void stack_fill_null(Stack *stack, uint16_t selector, unsigned cpl);
/* The stack for a more privileged level from the TSS: its segment is checked. */
int stack_of_level(CPU *cpu, unsigned level, uint32_t ext, Stack *stack);
/* The stack segment that RETF or IRET goes back to at an outer level; its pointer is left to the caller. */
int stack_to_return_to(CPU *cpu, uint16_t selector, unsigned cpl, bool wide, Stack *stack);
/* Checks that `count` items of `size` can be pushed, so that the pushes themselves cannot fault. */
int stack_reserve(CPU *cpu, const Stack *stack, unsigned count, unsigned size);
int stack_push(CPU *cpu, Stack *stack, unsigned size, uint64_t value);
int stack_pop(CPU *cpu, Stack *stack, unsigned size, uint64_t *value);
/* Commits a current stack's pointer; commits a new stack with its segment. */
static inline void stack_commit(CPU *cpu, const Stack *stack)
{
    cpu->r[RSP] = (cpu->r[RSP] & ~stack->mask) | (stack->sp & stack->mask);
}
void stack_switch(CPU *cpu, const Stack *stack);
/* Mask of the stack pointer that a stack segment implies. */
static inline uint64_t stack_mask(bool wide, uint32_t access)
{
    return wide ? UINT64_MAX : access & AR_DB ? 0xffffffff : 0xffff;
}

/* Settles what an instruction costs as a whole. */
static inline void charge_clocks(CPU *cpu, const Insn *insn, int64_t clocks)
{
    const RowClocks *row = &cpu->clocks[insn->row];
    cpu->clock->left += (insn->memory ? row->mem : row->reg) - clocks;
}

/* task.c. Goes to the task of an available (TASK_IRET: busy) TSS whose descriptor passed its checks. `error` is pushed on
 * the new stack where it is not NULL; `ext` goes into error codes. STATUS_BRANCH. A fault in the new task's context
 * leaves CPU.rip at the new task's instruction. */
int task_switch(CPU *cpu, uint16_t selector, Descriptor *tss, TaskSwitch kind, const uint32_t *error, uint32_t ext,
                uint64_t next_rip);
/* The same through a task gate: checks the TSS that the gate names. */
int task_gate(CPU *cpu, const Descriptor *gate, TaskSwitch kind, const uint32_t *error, uint32_t ext, uint64_t next_rip);

/* What an instruction returns after a task switch: a fault in the new task's context is no longer one of the instruction,
 * which is done, so it is delivered at once. */
int task_settle(CPU *cpu, uint16_t old_task, int status);

/* interrupt.c. INT n in virtual-8086 mode through the program's own interrupt table. */
int interrupt_deliver_v86(CPU *cpu, unsigned vector, uint64_t next_rip);
/* With CR4.VME: does the interrupt redirection bit map send INT n there (1) or to the IDT (0)? Or STATUS_FAULT. */
int interrupt_redirected(CPU *cpu, unsigned vector);
/* Is RF 1 in the flags that the event pushes? */
bool interrupt_pushes_rf(const CPU *cpu, const Fault *event);

#endif
