/* VMX: the constants of vmcs.def, exit.def and msr.def, what a processor model offers, and the state of VMX operation.
 * SDM Vol. 3, "Introduction to Virtual Machine Extensions" to "VM Exits". */
#ifndef EMU_VMX_H
#define EMU_VMX_H

#include <stdbool.h>
#include <stdint.h>

/* The fields' places in Vmx.field, by name. */
typedef enum VmcsField {
#define FIELD(name, encoding, width, access, needs) name,
#include "vmcs.def"
#undef FIELD
    VMCS_FIELDS
} VmcsField;

/* Control bits: PIN_EXTERNAL_INTERRUPT_EXITING and so on, as masks of their word. */
enum {
#define CONTROL(word, bit, name) word##_##name = (int)(1u << bit),
#include "vmcs.def"
#undef CONTROL
};

enum {
#define REASON(number, name) EXIT_REASON_##name = number,
#include "exit.def"
#undef REASON
    EXIT_REASONS = 65
};

enum {
#define ERROR(number, name) VMERROR_##name = number,
#include "exit.def"
#undef ERROR
};

enum {
#define MSR(name, number, ...) name = (int)number,
#define MSR_CODE(name, number) name = (int)number,
#include "msr.def"
#undef MSR
#undef MSR_CODE
};

/* The control words. */
typedef enum ControlWord { WORD_PIN, WORD_PROC, WORD_PROC2, WORD_EXIT, WORD_ENTRY, CONTROL_WORDS } ControlWord;

/* IA32_FEATURE_CONTROL. */
#define FEATURE_CONTROL_LOCK  1u
#define FEATURE_CONTROL_VMXON 4u /* outside SMX operation */

/* IA32_VMX_EPT_VPID_CAP. */
#define EPT_CAP_EXECUTE_ONLY 0x1ull
#define EPT_CAP_WALK_4 0x40ull
#define EPT_CAP_UC 0x100ull
#define EPT_CAP_WB 0x4000ull
#define EPT_CAP_2M 0x10000ull
#define EPT_CAP_1G 0x20000ull
#define EPT_CAP_INVEPT 0x100000ull
#define EPT_CAP_ACCESSED_DIRTY 0x200000ull
#define EPT_CAP_INVEPT_TYPE(type) (1ull << (24 + (type)))
#define EPT_CAP_INVVPID 0x100000000ull
#define EPT_CAP_INVVPID_TYPE(type) (1ull << (40 + (type)))

/* What a model offers. */
typedef struct VmxModel {
    uint32_t revision;               /* VMCS revision identifier */
    uint32_t allowed[CONTROL_WORDS]; /* controls that may be 1, beside the default1 class */
    uint64_t misc;                   /* IA32_VMX_MISC */
    uint64_t ept_vpid;               /* IA32_VMX_EPT_VPID_CAP */
    uint32_t entry_clocks;           /* of a VM entry */
    uint32_t exit_clocks[EXIT_REASONS];
} VmxModel;

/* The regions in memory that fields point to, and the VMCS region: revision, abort indicator, launch state, fields. */
#define VMCS_BYTES 4096u
#define VMCS_ABORT_AT 4u
#define VMCS_LAUNCH_AT 8u
#define VMCS_FIELDS_AT 16u
#define VMCS_NONE UINT64_MAX

/* GUEST_INTERRUPTIBILITY_STATE. */
#define BLOCKING_BY_STI 1u
#define BLOCKING_BY_MOV_SS 2u
#define BLOCKING_BY_SMI 4u
#define BLOCKING_BY_NMI 8u

/* GUEST_PENDING_DEBUG_EXCEPTIONS, beside the bits of DR6: a breakpoint that was met was enabled. */
#define PENDING_ENABLED 0x1000u

/* Interruption information, of events that are injected and that caused a VM exit. */
#define INTERRUPTION_ERROR_CODE 0x800u
#define INTERRUPTION_NMI_UNBLOCKING 0x1000u
#define INTERRUPTION_VALID 0x80000000u
#define EXIT_REASON_ENTRY_FAILURE 0x80000000u

/* A check of VM entry that failed, for whoever writes a VMM. The texts are constants of vmx_entry.c. */
typedef struct VmxFailure {
    const char *check;    /* what was checked; NULL: none failed since VMXON */
    const char *expected; /* what would pass */
    const char *section;  /* title of the section in SDM Vol. 3 */
    int field;            /* VmcsField, -1: none */
    uint64_t value;       /* of the field */
} VmxFailure;

/* A VM entry or exit, as traces and timelines want it. */
typedef struct VmTransition {
    uint64_t cycle;
    uint64_t vmcs;          /* address of the VMCS region */
    uint64_t rip;           /* of the guest */
    uint64_t qualification; /* of an exit */
    uint32_t reason;        /* of an exit: EXIT_REASON with bit 31 for a failed entry */
    uint32_t kind;          /* TRANSITION_* */
} VmTransition;
#define TRANSITION_ENTRY 0u
#define TRANSITION_EXIT 1u
#define TRANSITIONS 4096u

typedef struct ExitCount {
    uint64_t count, cycles; /* from the exit to the end of the VM entry that follows */
} ExitCount;

/* VMX operation. The current VMCS is kept here and goes back to its region when another becomes current, and at VMCLEAR
 * and VMXOFF (SDM Vol. 3, "Software Use of Virtual-Machine Control Structures"). */
typedef struct Vmx {
    uint8_t on;
    uint8_t controls_passed;  /* the checks of controls and host state have passed and no input has changed since; their */
    uint8_t host_passed;      /* inputs are the VMCS, written by VMWRITE and VMPTRLD alone, and EFER.LMA (1: 0, 2: 1) */
    uint8_t timer_running;    /* the preemption timer of this guest */
    uint8_t inject;           /* VM entry has an event to deliver before the guest's first instruction */
    uint8_t trap_flag_due;    /* the monitor trap flag's exit follows */
    uint8_t tpr_due;          /* the guest has moved its TPR below the threshold */
    uint8_t injected_length;  /* of the instruction that an injected software event stands for */
    uint32_t launched;        /* launch state of the current VMCS: 0 clear */
    uint64_t vmxon_pointer;
    uint64_t current;         /* VMCS_NONE: none */
    uint64_t timer_deadline;  /* cycle */
    uint64_t exit_cycle;      /* of the last exit */
    uint32_t exit_reason;     /* of the last exit, while in root operation after one; else EXIT_REASONS */
    uint64_t feature_control; /* IA32_FEATURE_CONTROL */
    uint64_t field[VMCS_FIELDS];
    ExitCount exits[EXIT_REASONS];
    uint64_t transitions;     /* made so far; the last TRANSITIONS of them are in CPU.transitions */
    VmxFailure failure;
} Vmx;

#endif
