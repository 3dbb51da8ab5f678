/* The architecture's constants, spelt as in the Intel SDM.
 *
 * SDM Vol. 1 "Basic Execution Environment", Vol. 3 "System Architecture Overview". */
#ifndef EMU_ARCH_H
#define EMU_ARCH_H

#include <stdint.h>

/* General registers, in the order of their encoding. */
enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, GPR_COUNT };

/* Segment registers, in the order of their encoding; the system segments follow. */
enum { ES, CS, SS, DS, FS, GS, LDTR, TR, SEGMENT_COUNT };

#define FLAG_CF   0x00000001u
#define FLAG_PF   0x00000004u
#define FLAG_AF   0x00000010u
#define FLAG_ZF   0x00000040u
#define FLAG_SF   0x00000080u
#define FLAG_TF   0x00000100u
#define FLAG_IF   0x00000200u
#define FLAG_DF   0x00000400u
#define FLAG_OF   0x00000800u
#define FLAG_IOPL 0x00003000u
#define FLAG_NT   0x00004000u
#define FLAG_RF   0x00010000u
#define FLAG_VM   0x00020000u
#define FLAG_AC   0x00040000u
#define FLAG_VIF  0x00080000u
#define FLAG_VIP  0x00100000u
#define FLAG_ID   0x00200000u
#define FLAG_ONE  0x00000002u /* bit 1 always reads as 1 */
#define FLAGS_ARITHMETIC (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

#define CR0_PE 0x00000001u
#define CR0_MP 0x00000002u
#define CR0_EM 0x00000004u
#define CR0_TS 0x00000008u
#define CR0_ET 0x00000010u
#define CR0_NE 0x00000020u
#define CR0_WP 0x00010000u
#define CR0_AM 0x00040000u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u

#define CR4_VME 0x00000001u
#define CR4_PVI 0x00000002u
#define CR4_TSD 0x00000004u
#define CR4_DE  0x00000008u
#define CR4_PSE 0x00000010u
#define CR4_PAE 0x00000020u
#define CR4_MCE 0x00000040u
#define CR4_PGE 0x00000080u
#define CR4_PCE 0x00000100u
#define CR4_OSFXSR 0x00000200u
#define CR4_OSXMMEXCPT 0x00000400u
#define CR4_UMIP 0x00000800u
#define CR4_VMXE 0x00002000u
#define CR4_FSGSBASE 0x00010000u
#define CR4_PCIDE 0x00020000u
#define CR4_OSXSAVE 0x00040000u
#define CR4_SMEP 0x00100000u
#define CR4_SMAP 0x00200000u

#define DR7_GD  0x2000u /* general detect enable */
#define DR7_LOCAL 0x0155u /* L0 to L3, LE */

/* IA32_DEBUGCTL: the bits that the models have. */
#define DEBUGCTL_LBR 1u /* record branches */
#define DEBUGCTL_BTF 2u /* single-step on branches */

/* IA32_MISC_ENABLE. */
#define MISC_ENABLE_FAST_STRINGS 1ull
#define MISC_ENABLE_MONITOR      0x40000ull
#define MISC_ENABLE_XD_DISABLE   0x400000000ull

#define EFER_SCE 0x00000001u
#define EFER_LME 0x00000100u
#define EFER_LMA 0x00000400u
#define EFER_NXE 0x00000800u

/* Exception and interrupt vectors (SDM Vol. 3, "Exception and Interrupt Vectors"). */
enum {
    VECTOR_DE = 0, VECTOR_DB = 1, VECTOR_NMI = 2, VECTOR_BP = 3, VECTOR_OF = 4, VECTOR_BR = 5, VECTOR_UD = 6,
    VECTOR_NM = 7, VECTOR_DF = 8, VECTOR_CSO = 9, VECTOR_TS = 10, VECTOR_NP = 11, VECTOR_SS = 12, VECTOR_GP = 13,
    VECTOR_PF = 14, VECTOR_MF = 16, VECTOR_AC = 17, VECTOR_MC = 18, VECTOR_XM = 19, VECTOR_VE = 20,
};

/* Page-fault error code (SDM Vol. 3, "Interrupt 14 - Page-Fault Exception"). */
#define PF_P    0x01u
#define PF_WR   0x02u
#define PF_US   0x04u
#define PF_RSVD 0x08u
#define PF_ID   0x10u

/* Selector error codes (SDM Vol. 3, "Error Code"). */
#define ERROR_EXT 1u
#define ERROR_IDT 2u
#define ERROR_TI  4u

/* Page-table entries (SDM Vol. 3, "Paging"). */
#define PTE_P   0x001u
#define PTE_RW  0x002u
#define PTE_US  0x004u
#define PTE_PWT 0x008u
#define PTE_PCD 0x010u
#define PTE_A   0x020u
#define PTE_D   0x040u
#define PTE_PS  0x080u
#define PTE_G   0x100u
#define PTE_XD  0x8000000000000000ull

/* Segment access rights in the layout of a VMCS access-rights field: bits 8-15 and 20-23 of a descriptor's high
 * doubleword, moved down by eight (SDM Vol. 3, "Guest Register State"). */
#define AR_TYPE 0x000fu
#define AR_ACCESSED 0x0001u
#define AR_RW   0x0002u /* writable data, readable code */
#define AR_DC   0x0004u /* expand-down data, conforming code */
#define AR_CODE 0x0008u
#define AR_S    0x0010u
#define AR_DPL  0x0060u
#define AR_P    0x0080u
#define AR_AVL  0x1000u
#define AR_L    0x2000u
#define AR_DB   0x4000u
#define AR_G    0x8000u
#define AR_UNUSABLE 0x10000u
#define AR_DPL_OF(access) (((access) >> 5) & 3u)

/* System descriptor types (SDM Vol. 3, "System Descriptor Types"). */
enum {
    TYPE_TSS16 = 1, TYPE_LDT = 2, TYPE_TSS16_BUSY = 3, TYPE_CALL_GATE16 = 4, TYPE_TASK_GATE = 5,
    TYPE_INTERRUPT_GATE16 = 6, TYPE_TRAP_GATE16 = 7, TYPE_TSS32 = 9, TYPE_TSS32_BUSY = 11, TYPE_CALL_GATE32 = 12,
    TYPE_INTERRUPT_GATE32 = 14, TYPE_TRAP_GATE32 = 15,
};

#define APIC_BASE_ENABLE 0x800u

/* CPUID, leaves and bits that depend on the processor's state or gate a register. */
#define CPUID_1_EDX_APIC      0x00000200u
#define CPUID_1_EDX_PAT       0x00010000u
#define CPUID_1_ECX_MONITOR   0x00000008u
#define CPUID_1_ECX_OSXSAVE   0x08000000u
#define CPUID_80000001_EDX_NX 0x00100000u

#endif
