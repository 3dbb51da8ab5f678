/* What the decoder knows about one instruction form: one row of asm/x86.tbl, as asm/decode_tables.py writes it.
 *
 * The generated decode_table.inc holds data only, of the types below:
 *     static const Form decode_form[];                                entry 0 is unused
 *     static const uint16_t decode_map[DECODE_MODES][DECODE_MAPS][256];
 *     static const DecodeGroup decode_group[];
 *     static const uint16_t decode_entry[];                           the entries of all groups, one after another
 * The generated handlers.inc holds X(exec_...) for each distinct body: the n-th line is handler number n, from 1.
 *
 * An entry is 0 (#UD), the number of a form, or ENTRY_GROUP | number of a group, which picks another entry by a part of
 * the instruction that the opcode does not show:
 *     uint16_t e = decode_map[decode_mode(long_mode, osize)][map][opcode];
 *     while (e & ENTRY_GROUP) {
 *         const DecodeGroup *g = &decode_group[e & ~ENTRY_GROUP];
 *         e = decode_entry[g->first + <index by g->kind, see GroupKind>];
 *     }
 * A form that the processor model lacks (Form.since) is replaced by Form.fallback, and so on until 0 (#UD).
 */
#ifndef EMU_FORM_H
#define EMU_FORM_H

#include <stdint.h>

/* Opcode maps, SDM Vol. 2, Opcode Map. */
enum { MAP_ONE_BYTE, MAP_0F, MAP_0F38, MAP_0F3A, DECODE_MAPS };

/* Code size and operand size. osize is the one that prefixes give (REX.W, then 66h, then the mode's default, which in
 * 64-bit code is 32); where the instruction has another one (near branches, PUSH) Form.osize says so. */
enum { DECODE_LEGACY_16, DECODE_LEGACY_32, DECODE_LONG_16, DECODE_LONG_32, DECODE_LONG_64, DECODE_MODES };

static inline unsigned decode_mode(unsigned code64, unsigned osize)
{
    return (code64 ? DECODE_LONG_16 : DECODE_LEGACY_16) + (osize >> 5);
}

#define ENTRY_GROUP 0x8000u

typedef enum GroupKind {
    GROUP_REG,    /* 16 entries: (mod == 3) * 8 + modrm.reg */
    GROUP_RM,     /* 8 entries: modrm.rm; reached with mod == 3 only */
    GROUP_PREFIX, /* 4 entries: MandatoryPrefix */
    GROUP_ASIZE,  /* 3 entries: address size 16, 32, 64 (asize >> 5) */
    GROUP_REX_B,  /* 2 entries: REX.B, 0 outside 64-bit mode (90h is NOP or XCHG) */
} GroupKind;

/* Of several, F3 and F2 win over 66 (the last of F3 and F2 wins). */
typedef enum MandatoryPrefix { PREFIX_NONE, PREFIX_66, PREFIX_F3, PREFIX_F2 } MandatoryPrefix;

typedef struct DecodeGroup {
    uint16_t kind;  /* GroupKind */
    uint16_t first; /* of its entries in decode_entry */
} DecodeGroup;

/* Where an operand is found. Its width is Form.operand_size, in bits (0: none or odd). An 8-bit register numbered 4 to
 * 7 is AH CH DH BH, or SPL BPL SIL DIL where the instruction has a REX prefix; ACC, CL and DX are never meant. */
typedef enum Operand {
    OPERAND_NONE,
    OPERAND_RM,    /* modrm.mod, modrm.rm and REX.B: register or memory */
    OPERAND_REG,   /* modrm.reg and REX.R */
    OPERAND_OPREG, /* opcode bits 2..0 and REX.B */
    OPERAND_ACC,   /* AL AX EAX RAX */
    OPERAND_CL,
    OPERAND_DX,
    OPERAND_SREG, /* modrm.reg: 6 and 7 are #UD, and so is CS as a destination */
    OPERAND_ES,   /* ES to GS stand in the order of the segment registers' numbers */
    OPERAND_CS,
    OPERAND_SS,
    OPERAND_DS,
    OPERAND_FS,
    OPERAND_GS,
    OPERAND_CR,    /* modrm.reg and REX.R */
    OPERAND_DR,    /* modrm.reg and REX.R */
    OPERAND_IMM,   /* as Form.immediate says */
    OPERAND_IMM2,  /* the second immediate of ENTER */
    OPERAND_ONE,   /* the constant 1 of shifts: imm = 1 */
    OPERAND_REL,   /* displacement from the end of the instruction */
    OPERAND_FAR,   /* ptr16:16, ptr16:32 */
    OPERAND_MOFFS, /* memory at an offset that follows the opcode, of the address size */
    OPERAND_MEM,   /* as RM, memory only: mod == 3 is #UD (handler[0] is 0) */
} Operand;

/* What follows opcode, ModRM, SIB and displacement. */
typedef enum Immediate {
    IMM_NONE,
    IMM_IB,    /* 8 bits, zero-extended */
    IMM_IBS,   /* 8 bits, sign-extended to the operand size */
    IMM_IW,    /* 16 bits */
    IMM_ID,    /* 32 bits */
    IMM_IDS,   /* 32 bits, sign-extended to 64 */
    IMM_IQ,    /* 64 bits */
    IMM_IW_IB, /* ENTER: 16 bits, then 8 bits, both zero-extended */
    IMM_CB,    /* relative, 8 bits, sign-extended */
    IMM_CW,    /* relative, 16 bits, sign-extended */
    IMM_CD,    /* relative, 32 bits, sign-extended */
    IMM_CP16,  /* offset 16 bits, then selector 16 bits */
    IMM_CP32,  /* offset 32 bits, then selector 16 bits */
    IMM_MOFFS, /* offset of the address size */
} Immediate;

/* First processor, in order of age, then features (CPUID names) that a model has or has not, whatever its age. */
typedef enum Since {
    SINCE_8086,
    SINCE_186,
    SINCE_286,
    SINCE_386,
    SINCE_486,
    SINCE_586,
    SINCE_686,
    SINCE_FPU, /* x87 */
    SINCE_CPUID, /* 486 models differ */
    SINCE_TSC,
    SINCE_MSR,
    SINCE_CX8,
    SINCE_SEP,
    SINCE_CMOV,
    SINCE_CLFSH,
    SINCE_FXSR,
    SINCE_SSE,
    SINCE_SSE2,
    SINCE_SSE3,
    SINCE_MONITOR,
    SINCE_VMX,
    SINCE_SMX,
    SINCE_CX16,
    SINCE_SSE4_2,
    SINCE_POPCNT,
    SINCE_MOVBE,
    SINCE_XSAVE,
    SINCE_XSAVEOPT,
    SINCE_XSAVEC,
    SINCE_XSAVES,
    SINCE_RDRAND,
    SINCE_FSGSBASE,
    SINCE_BMI1,
    SINCE_BMI2,
    SINCE_INVPCID,
    SINCE_RDSEED,
    SINCE_ADX,
    SINCE_SMAP,
    SINCE_CLFLUSHOPT,
    SINCE_CLWB,
    SINCE_PCOMMIT,
    SINCE_RDPID,
    SINCE_PKU,
    SINCE_PTWRITE,
    SINCE_WBNOINVD,
    SINCE_CLDEMOTE,
    SINCE_MOVDIRI,
    SINCE_MOVDIR64B,
    SINCE_WAITPKG,
    SINCE_SERIALIZE,
    SINCE_TSXLDTRK,
    SINCE_CET_SS,
    SINCE_CET_IBT,
    SINCE_RTM,
    SINCE_SYSCALL,
    SINCE_LM,
    SINCE_LAHF_LM,
    SINCE_LZCNT,
    SINCE_PREFETCHW,
    SINCE_RDTSCP,
    SINCES,
} Since;

enum FormFlags {
    FORM_MODRM = 1 << 0,       /* a ModRM byte follows the opcode */
    FORM_LOCK = 1 << 1,        /* LOCK is legal where the destination is memory; elsewhere #UD */
    FORM_REP = 1 << 2,         /* F3 and F2 both repeat: MOVS STOS LODS INS OUTS */
    FORM_REPZ = 1 << 3,        /* F3 is REPE, F2 is REPNE: CMPS SCAS */
    FORM_END = 1 << 4,         /* ends a translated block */
    FORM_CPL0 = 1 << 5,        /* #GP(0) unless CPL is 0 */
    FORM_IOPL = 1 << 6,        /* depends on CPL and IOPL (and the I/O permission bit map) */
    FORM_PM = 1 << 7,          /* #UD in real-address and virtual-8086 mode */
    FORM_DEFAULT64 = 1 << 8,   /* in 64-bit code the operand size is 64 without REX.W; osize has it */
    FORM_FORCE64 = 1 << 9,     /* the same, and 66h does not change it */
    FORM_REG_ONLY = 1 << 10,   /* modrm.mod is ignored and taken as 3 (MOV to and from CR and DR); handler[1] is [0] */
    FORM_EXIT = 1 << 11,       /* may cause a VM exit, as controls say */
    FORM_EXIT_ALWAYS = 1 << 12 /* always causes a VM exit in VMX non-root operation */
};

/* Status flags in flags_*: in the order of overflow, sign, zero, auxiliary, parity, carry. */
enum { FLAG_O = 1, FLAG_S = 2, FLAG_Z = 4, FLAG_A = 8, FLAG_P = 16, FLAG_C = 32, FLAG_OTHER = 64 /* TF IF DF ... */ };

typedef struct Form {
    uint16_t row;        /* index of the row in asm/x86.tbl, the same as in asm.table.FORMS */
    uint16_t handler[4]; /* [0] mod == 3 or no ModRM, [1] memory (MOFFS: both), [2] with F3, [3] with F2; 0: in [0] and
                            [1] #UD, in [2] and [3] the plain one */
    uint16_t fallback;   /* the form that the same bytes are on a processor without Form.since; 0: #UD */
    uint16_t flags;      /* FORM_* */
    uint8_t operand[3];      /* Operand, in the order of the syntax */
    uint8_t operand_size[3]; /* bits; where register and memory differ (MOV r32/m16, Sreg) the register's */
    uint8_t immediate;       /* Immediate */
    uint8_t since;           /* Since */
    uint8_t osize;           /* operand size in bits; 0: the one that prefixes give */
    uint8_t flags_written;     /* FLAG_*: always written with a defined value */
    uint8_t flags_conditional; /* written unless a count is zero (shifts); with REP so are flags_written (CMPS, SCAS) */
    uint8_t flags_undefined;   /* left undefined by the manual */
    uint8_t flags_tested;
} Form;

#endif
