/* What instructions cost, in clocks. The figures are data of the processor model (emu/models): here are only their names.
 *
 * A block is charged the fixed part of its instructions at once. What depends on the state (mode, privilege, iterations,
 * a taken branch) the bodies settle: inside a block they may only give back, so the fixed part is the dearest case;
 * instructions that end their block may charge more. */
#ifndef EMU_TIMING_H
#define EMU_TIMING_H

#include <stdint.h>

#define TIMING_ROWS 2048

/* Cases of a row: what the instruction costs as a whole in that case. Which ones a row has depends on its class. */
enum {
    CASE_TAKEN = 0,           /* Jcc, LOOP, JCXZ */
    CASE_REAL = 0,            /* IN, OUT, INS, OUTS, segment loads, far transfers, INT, IRET: real-address mode (also
                                 virtual-8086 mode, but for I/O) */
    CASE_PROTECTED = 1,       /* protected mode: CPL <= IOPL for I/O, the same privilege for transfers */
    CASE_REAL_MEMORY = 2,     /* MOV Sreg and SMSW with a memory operand */
    CASE_PROTECTED_MEMORY = 3,
    CASE_PERMISSION_MAP = 2,  /* I/O with CPL > IOPL, or in virtual-8086 mode */
    CASE_REAL_REP = 3,        /* REP INS, REP OUTS in real-address mode: set-up */
    CASE_REAL_ITERATION = 4,  /* and each iteration */
    CASE_GATE_SAME = 2,       /* CALL, JMP through a gate, the same privilege */
    CASE_GATE_MORE = 3,       /* CALL through a gate to more privilege, no parameters */
    CASE_GATE_PARAMETERS = 4, /* with parameters: plus `variable` for each */
    CASE_TASK = 5,            /* CALL, JMP to another task: on top of the task switch */
    CASE_LESS_PRIVILEGE = 2,  /* RETF, IRET to an outer level; INT: to more privilege */
    CASE_V86 = 3,             /* IRET to virtual-8086 mode; INT from it */
    CASE_CR0 = 0,             /* MOV to CR: CR0 and CR4 */
    CASE_CR2 = 1,
    CASE_CR3 = 2,
    CASE_DR03 = 0,            /* MOV to and from DR: DR0 to DR3 */
    CASE_DR67 = 1,            /* DR6, DR7 */
    CASE_LEVEL_0 = 0,         /* ENTER at these levels */
    CASE_LEVEL_1 = 1,
    CASE_COUNT = 6,
};

typedef struct RowClocks {
    uint16_t reg;      /* fixed part with register operands, or of an instruction without ModRM */
    uint16_t mem;      /* with a memory operand */
    uint16_t rep;      /* REP forms: set-up; each iteration costs `variable` */
    uint16_t variable; /* MUL, IMUL: per significant bit of the multiplier; BSF, BSR: per bit scanned; ENTER: per level;
                          gates: per parameter; REP: per iteration; LSL: what a limit in pages takes more */
    uint16_t cases[CASE_COUNT]; /* 0: like the fixed part */
} RowClocks;

/* Costs that belong to no row: exceptions and interrupts by how they are delivered, task switches. */
typedef struct EventClocks {
    uint32_t interrupt_real;
    uint32_t interrupt_same;     /* protected mode, same privilege */
    uint32_t interrupt_more;     /* to more privilege */
    uint32_t interrupt_from_v86;
    uint32_t task_switch;        /* to a 32-bit TSS */
    uint32_t task_switch_286;    /* to a 16-bit TSS */
    uint32_t next_component;     /* clocks a component of the instruction that a branch goes to (the manual's m) */
    uint32_t base_index;         /* added by an address of two registers */
    uint32_t lock;               /* added by a LOCK prefix */
} EventClocks;

#endif
