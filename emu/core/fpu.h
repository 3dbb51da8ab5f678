/* x87 and SIMD state. SDM Vol. 1, "x87 FPU Execution Environment", "Programming with Intel Streaming SIMD Extensions". */
#ifndef EMU_FPU_H
#define EMU_FPU_H

#include <stdint.h>

/* A register as it lies in memory: 64 bits of significand, then exponent and sign. */
typedef struct FpuRegister {
    uint64_t significand;
    uint16_t exponent; /* bit 15: the sign */
} FpuRegister;

typedef union XmmRegister {
    uint8_t byte[16];
    uint16_t word[8];
    uint32_t dword[4];
    uint64_t qword[2];
    float single[4];
    double real[2];
} XmmRegister;

typedef struct Fpu {
    FpuRegister r[8]; /* R0 to R7: ST(i) is r[(TOP + i) & 7]; MMi is the significand of r[i] */
    uint64_t ip, dp;  /* of the last instruction that was no control instruction: offsets */
    uint16_t cs, ds;  /* and selectors */
    uint16_t opcode;  /* its low 11 bits */
    uint16_t control, status; /* TOP is bits 11 to 13 of the status word */
    uint8_t valid;    /* the tag word as FXSAVE has it: bit i is 0 where r[i] is empty */
    uint32_t mxcsr;
    XmmRegister xmm[16];
} Fpu;

#define FPU_CONTROL_RESET 0x0040u /* after RESET; FNINIT makes it 037Fh */
#define FPU_CONTROL_INIT  0x037fu
#define FPU_STATUS_ES   0x0080u /* an unmasked exception is pending */
#define FPU_STATUS_BUSY 0x8000u
#define FPU_EXCEPTIONS  0x003fu /* in the status and the control word */
#define MXCSR_INIT 0x1f80u

static inline unsigned fpu_top(const Fpu *fpu) { return fpu->status >> 11 & 7; }
static inline FpuRegister *fpu_st(Fpu *fpu, unsigned i) { return &fpu->r[(fpu_top(fpu) + i) & 7]; }

#endif
