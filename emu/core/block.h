/* The block cache: decoded guest code, keyed by physical address and mode. */
#ifndef EMU_BLOCK_H
#define EMU_BLOCK_H

#include "insn.h"

#define BLOCK_INSNS 31 /* at most: Insn.idx has five bits, and a pseudo-instruction follows the last */

/* The cache lives in `memory`, blocks_bytes() zeros of which only what is used is ever touched. */
size_t blocks_bytes(void);
void blocks_create(CPU *cpu, void *memory);
/* Forgets every block. Only between blocks, never while one runs. */
void blocks_flush(CPU *cpu);
/* Guest code at physical [pa, pa + size) was written: retires the blocks that hold a byte of it. Safe while one runs:
 * a retired block stays in place until the next flush and leaves at its first instruction, and the running one leaves
 * after the current instruction. */
void blocks_written(CPU *cpu, uint64_t pa, size_t size);
/* The block at CPU.rip in CPU.mode, decoded if need be; sets CPU.page_rip. NULL: CPU.fault holds why the fetch failed. */
const Insn *block_at_rip(CPU *cpu);
/* Hooks and breakpoints before the instructions at linear addresses `first` to `last`. */
void blocks_hook(CPU *cpu, uint64_t first, uint64_t last);
/* Hooks before every block. */
void blocks_hook_blocks(CPU *cpu);
void blocks_unhook_all(CPU *cpu);
/* All translations and all blocks are void; done at once, or as soon as the running block has been left. */
void cpu_forget_all(CPU *cpu);

#endif
