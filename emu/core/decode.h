/* From guest bytes to decoded instructions. */
#ifndef EMU_DECODE_H
#define EMU_DECODE_H

#include "insn.h"

#define INSTRUCTION_BYTES 15 /* SDM Vol. 2, "Instruction Format": longer is #GP(0) */

typedef enum DecodeStatus {
    DECODE_OK,
    DECODE_MORE,     /* the bytes given end inside the instruction */
    DECODE_TOO_LONG, /* more than 15 bytes */
} DecodeStatus;

typedef struct Decoded {
    Insn insn;          /* all but cum, idx, off */
    uint16_t clocks;    /* fixed part */
    uint8_t length;
    uint8_t components; /* prefix and opcode bytes, ModRM, SIB, displacement, immediate: the i386 manual's m */
    bool ends;          /* nothing may follow in the block */
    bool relative;      /* a direct branch: insn.imm is still relative to the next instruction */
    uint8_t flags_written; /* FLAG_O ... of form.h */
    uint8_t flags_changed; /* written, perhaps written, or left undefined */
    uint8_t flags_tested;
    Handler_t *quiet;   /* the body to take where no flag it changes will be looked at; NULL where it may fault or leave */
    uint64_t offset64;  /* a 64-bit offset (moffs64) that disp cannot hold, for exec_wide_offset; 0: none */
} Decoded;

/* Decodes the instruction at `code` for a processor in `mode`. An invalid one decodes to exec_undefined. */
DecodeStatus decode(const CPU *cpu, const uint8_t *code, size_t available, uint32_t mode, Decoded *out);

#endif
