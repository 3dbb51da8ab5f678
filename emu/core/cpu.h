/* The processor's state. Everything that an instruction can read or change is here; no globals anywhere.
 *
 * While guest code runs, three things live in registers and not here: the lazy flags (flags.h), the cycles left to the
 * horizon (clock.h), and the place in the block. Handlers write them back before they leave or call out (exec.h). */
#ifndef EMU_CPU_H
#define EMU_CPU_H

#include "arch.h"
#include "bus.h"
#include "clock.h"
#include "form.h"
#include "fpu.h"
#include "timing.h"
#include "vmx.h"

typedef struct Insn Insn;
typedef struct Block Block;

/* A segment register with its hidden part. The two limits let the fast path of access.h check an access with one
 * compare: the first offset past the segment, 0 where a fast access is never allowed (null, expand-down, no right). */
typedef struct Segment {
    uint64_t base;
    uint64_t read_end;
    uint64_t write_end;
    uint32_t limit;
    uint32_t access; /* AR_* */
    uint16_t selector;
    uint16_t padding[3];
    uint64_t hidden; /* of ES, CS, SS and DS in 64-bit code, where `base` is 0: the base that other code will use */
    uint64_t more_padding[2];
} Segment;

typedef struct DescriptorTable {
    uint64_t base;
    uint32_t limit;
} DescriptorTable;

/* A translation from linear to host addresses. A tag is the page's last byte (page | 0xfff), so that one compare with
 * the access's last byte finds misses and page crossings, and an entry of zeros matches nothing. */
typedef struct TlbEntry {
    uint64_t read_tag;
    uint64_t write_tag;
    uint64_t addend; /* host address = linear address + addend */
    uint64_t page;   /* physical page | TLB_* */
} TlbEntry;

#define TLB_GLOBAL 1u
#define TLB_LARGE  2u
#define TLB_NX     4u
#define TLB_CODE   8u /* writes are allowed too, but take the slow path: the page holds code */
#define TLB_SIZE 1024u

typedef struct JumpCacheEntry {
    uint64_t tag; /* linear address << 16 | CPU.jump_key */
    const Insn *first;
} JumpCacheEntry;
#define JUMP_CACHE_SIZE 2048u

/* Results of operations and of blocks. Faults are statuses: an operation that cannot complete records why in the
 * processor and returns a negative status; nothing it was to change has changed. */
typedef enum Status {
    STATUS_OK = 0,
    STATUS_BRANCH = 1,    /* done; CPU.rip holds the next instruction and the mode may have changed */
    STATUS_LOOK = 2,      /* the run loop must decide what comes next; CPU.rip is right */
    STATUS_FAULT = -1,    /* CPU.fault is to be delivered; CPU.rip is the instruction's */
    STATUS_SHUTDOWN = -2, /* triple fault */
    STATUS_VMEXIT = -3,   /* CPU.exit says why; where a caller knows faults only it gets STATUS_FAULT (EVENT_VM_EXIT) */
    STATUS_HOOK = -4,     /* a hook or breakpoint lies before the instruction at CPU.rip */
    STATUS_RAISED = -5,   /* RUN_RAISE: an INT n or the like was to be delivered: CPU.fault */
    STATUS_CALL = 3,      /* EMU_TRAMPOLINE: CPU.pending is to be called */
} Status;

/* What kind of event an exception or interrupt is, numbered as in the VM-entry interruption-information field
 * (SDM Vol. 3, "VM-Entry Controls for Event Injection"). */
typedef enum EventType {
    EVENT_EXTERNAL = 0,
    EVENT_NMI = 2,
    EVENT_HARDWARE_EXCEPTION = 3,
    EVENT_SOFTWARE_INTERRUPT = 4,  /* INT n */
    EVENT_ICEBP = 5,               /* INT1 */
    EVENT_SOFTWARE_EXCEPTION = 6,  /* INT3, INTO */
    EVENT_VM_EXIT = 15,            /* CPU.fault is no fault: CPU.exit is to be acted on */
} EventType;

typedef struct Fault {
    uint8_t vector;
    uint8_t has_error;
    uint8_t type; /* EventType */
    uint8_t is_fault; /* of a #DB: RF is set in the flags that are pushed (general detect; no breakpoint, no trap) */
    uint32_t error;
    uint64_t address; /* of a page fault: goes to CR2; of a debug exception: the bits that go to DR6 */
} Fault;

/* A VM exit that is to be made. An instruction's length and operands are those of CPU.exit_insn. */
typedef struct VmExit {
    uint32_t reason;
    uint64_t qualification;
    uint64_t guest_physical, guest_linear;
    uint8_t details;        /* which of the instructions of the reason: bits 28 and 29 of its information */
    uint8_t by_instruction; /* an instruction that was not executed: the length and the details of it are saved */
    uint8_t has_event;      /* `event` caused it */
    uint8_t has_vectoring;  /* it came up while `vectoring` was delivered */
    Fault event, vectoring;
} VmExit;

/* The last branches (last_branch.c). */
#define LAST_BRANCHES 16u
typedef struct LastBranches {
    uint64_t source[LAST_BRANCHES], target[LAST_BRANCHES]; /* a ring: `top` was written last */
    uint64_t exception_from, exception_to;           /* the branch before the last exception or interrupt */
    uint64_t top;
} LastBranches;

/* Where an instruction or event began that may be a branch. */
typedef struct BranchStart {
    uint64_t rip, base; /* of CS */
    uint64_t transitions; /* of VMX, made so far */
} BranchStart;

/* What is cached of translations for one address space: VPID and EPT pointer (SDM Vol. 3, "Caching Translation
 * Information"). CPU holds what is in use; this is where the others wait. */
#define TLB_LISTED 64u
typedef struct TlbContext {
    struct TlbEntry *supervisor, *user;
    uint64_t eptp;          /* 0: none */
    uint64_t paging;        /* the control bits that the entries depend on */
    uint64_t code_base, code_limit;
    uint64_t used;          /* when it was in use last: a count of switches */
    uint32_t vpid;
    uint32_t generation;    /* 0: to be taken anew */
    uint8_t filled, has_large, writable;
    uint16_t slots[TLB_LISTED]; /* where entries were made since it was empty; `filled` of them, or more */
} TlbContext;
#define TLB_CONTEXTS 8u

/* What the processor is doing between instructions. */
typedef enum Activity { ACTIVITY_ACTIVE, ACTIVITY_HLT, ACTIVITY_SHUTDOWN, ACTIVITY_WAIT_FOR_SIPI } Activity;

/* CPU.shadow: what is held off until after the next instruction (SDM Vol. 3, "Masking Maskable Hardware Interrupts",
 * "Masking Exceptions and Interrupts When Switching Stacks"). */
#define SHADOW_STI    1u
#define SHADOW_MOV_SS 2u

/* CPU.requests: what arrived from outside; looked at between instructions. */
#define REQUEST_INTR  1u  /* the interrupt controller's line is high */
#define REQUEST_NMI   2u
#define REQUEST_RESET 4u  /* the reset line was pulsed */
#define REQUEST_INIT  8u
#define REQUEST_STOP  16u /* the host wants the run to end */
#define REQUEST_MC    32u /* machine check */
#define REQUEST_VMX   64u /* in VMX non-root operation: something may be due */

/* CPU.trap: debug exceptions that are due after the current instruction; bits as in DR6. */
#define DR6_BS 0x4000u
#define DR6_BT 0x8000u
#define DR6_BD 0x2000u

/* CPU.mode: what decoded blocks depend on. */
#define MODE_CODE16 0u
#define MODE_CODE32 1u
#define MODE_CODE64 2u
#define MODE_CODE   3u
#define MODE_SINGLE 4u  /* one instruction a block: stepping, shadows, the last instructions before the horizon */
#define MODE_REAL   8u  /* real-address or virtual-8086 mode: some instructions are #UD */
#define MODE_HOOKS  16u /* (of a block) its page has hooks: a hooked instruction begins a block, exec_hooked stands before it */
#define MODE_HOOKS_SHIFT 16 /* then bits 16 to 27 are the version of the set of hooks */
#define MODE_HIGH   32u /* (of a block) its page reaches past RIP 0xffff: 16-bit branches are not linked */

typedef uint8_t InterruptAcknowledge(void *controller);
typedef void HookCallback(void *owner, int kind, uint64_t address, unsigned size, uint64_t value);

enum { HOOK_INSTRUCTION, HOOK_BLOCK, HOOK_MEMORY_READ, HOOK_MEMORY_WRITE, HOOK_IO_READ, HOOK_IO_WRITE, HOOK_INTERRUPT,
       HOOK_VM_EXIT, HOOK_KINDS };

/* Hooks that stand before an instruction. */
#define HOOKED_INSTRUCTION 1u
#define HOOKED_BLOCK       2u /* it begins a block: something led to it that is not the instruction before it */

typedef struct BlockCache BlockCache;

typedef struct CPU {
    /* Registers first: handlers address them by byte offset (Insn.dst, Insn.src). r[16] is always zero and stands for an
     * absent base or index; r[17] is page_rip, the base of RIP-relative addresses; r[18] holds 64-bit
     * offsets (exec_wide_offset). */
    union {
        uint64_t r[19];
        struct {
            uint64_t gpr[17];
            uint64_t page_rip; /* RIP of the first byte of the page that runs; of an instruction: page_rip + Insn.off */
        };
    };
    uint64_t rip;      /* outside handlers: the next instruction, or the faulting one */
    uint64_t sp_mask;  /* 0xffff, 0xffffffff or all ones: the stack pointer's size */
    uint64_t default_mask; /* address mask of the mode's own address size */
    uint64_t address_mask[3]; /* by Insn.asize: 16, 32, 64 bits */
    TlbEntry *tlb;     /* the array in use: supervisor, user, or one of zeros that sends every access the slow way */
    uint64_t data;     /* result of mem_read() */
    const Insn *target; /* where a branch that went the slow way goes on */
    uint64_t instructions; /* completed; each iteration of a REP instruction counts as one */
    Clock *clock;
    Bus *bus;
    uint64_t jump_key; /* 16 bits: mode and generation; never 0 */
    const RowClocks *clocks; /* of the processor model, by row of the instruction table */
    const EventClocks *event_clocks;

    Segment seg[SEGMENT_COUNT];
    JumpCacheEntry *jump_cache; /* [JUMP_CACHE_SIZE] */

    /* Lazy flags, when they are not in registers (flags.h). */
    int64_t fr, fd;
    uint64_t cf;
    uint8_t fa;
    uint32_t eflags; /* all flags but the arithmetic ones */
    uint32_t mode;   /* MODE_* */
    uint8_t cpl;
    uint8_t shadow;  /* SHADOW_* */
    uint8_t in_shadow; /* SHADOW_*, of the instruction that runs */
    uint8_t activity; /* Activity */
    uint8_t nmi_blocked; /* from NMI delivery to IRET */
    uint8_t long_mode;   /* EFER.LMA */
    uint8_t code64;      /* long mode and CS.L */
    uint8_t protected_mode; /* CR0.PE and not virtual-8086 mode */
    uint8_t v86;
    uint8_t non_root;    /* VMX non-root operation: a guest runs */
    uint8_t ports_watched; /* breakpoints, or VMX controls on I/O: no port access takes the fast path */
    uint8_t injecting;   /* the event that is delivered was injected by VM entry: the exception bitmap is not asked */
    uint8_t iret_unblocked; /* this instruction is an IRET that let NMIs in again */
    uint32_t requests; /* REQUEST_*; the host may set REQUEST_STOP from another thread */
    uint32_t trap;     /* debug exceptions due after the current instruction, bits of DR6 */

    uint64_t cr0, cr2, cr3, cr4, cr8;
    uint64_t dr[8];
    uint64_t efer;
    uint64_t pdpte[4]; /* PAE paging: loaded by MOV to CR and VM entry, not on a TLB miss */
    DescriptorTable gdtr, idtr;

    Fault fault;
    /* Delivery in progress, for double faults and VM exits: the vector being delivered, or -1. */
    int delivering;
    VmExit exit;
    const Insn *exit_insn; /* the last instruction that left its block by a fault or a VM exit; NULL: none since the block began */

    /* Model-specific registers. */
    uint64_t tsc_offset; /* IA32_TSC = cycles + tsc_offset */
    uint64_t tsc_aux;
    uint64_t apic_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, debugctl, misc_enable, bios_sign_id;
    LastBranches last_branches;
    uint64_t star, lstar, cstar, fmask, kernel_gs_base;
    uint64_t monitored, monitored_sum; /* the line that MONITOR armed | 1, 0: none; a checksum of what was in it */
    uint64_t random; /* state of the generator behind RDRAND and RDSEED: part of the state, so that runs repeat */
    Fpu fpu;

    const struct Model *model;

    TlbEntry *tlb_supervisor, *tlb_user; /* [TLB_SIZE] each */
    const TlbEntry *tlb_none;
    uint8_t tlb_filled;    /* entries written since the last flush of all; TLB_LISTED + 1: many */
    uint8_t tlb_writable;  /* an entry has had a write tag since then */
    uint8_t tlb_has_large; /* a fragment of a large page is cached: INVLPG flushes all */
    uint8_t hooks_memory;  /* memory hooks or data breakpoints: no access takes the fast path */
    uint32_t generation;   /* part of jump_key; moves on when linear addresses may mean something else */
    uint32_t last_generation; /* the last one given out: each TLB context has its own */
    uint64_t code_base, code_limit; /* of CS when the generation was taken */

    uint64_t eptp;         /* EPT is in use: the EPT pointer; else 0 */
    TlbContext *contexts;  /* [TLB_CONTEXTS] */
    TlbContext *context;   /* in use */
    uint64_t context_switches;
    uint64_t page_walks; /* for addresses that no entry had, since the processor was made; no part of its state */

    Vmx vmx;
    VmTransition *transitions; /* [TRANSITIONS], a ring */

    BlockCache *blocks;
    uint64_t instruction_goal; /* stop when `instructions` reaches it */
    uint8_t rep_resumed;       /* the REP instruction at RIP has begun: its set-up is charged */
    uint8_t charge_target;     /* a branch was taken whose cost depends on the instruction it goes to */
    uint8_t stop_hlt;          /* RUN_STOP_HLT */
    uint8_t raise_faults;      /* RUN_RAISE */
    uint8_t trap_suppressed;   /* an interrupt was delivered within the instruction: no single-step trap after it */
    uint8_t rf_loaded;         /* the instruction loaded EFLAGS.RF (IRET, task switch): it holds for the next one */
    uint8_t left_by_branch;    /* exit_branch ended the block */
    uint8_t breakpoints;       /* DR7 enables some: every instruction is looked at, every access goes the slow way */

    InterruptAcknowledge *acknowledge;
    void *interrupt_controller;
    HookCallback *hook;
    void *hook_owner;
    uint64_t hook_skip; /* RIP whose hook has just run, so that the instruction itself is next; all ones: none */
    uint64_t fallen_to; /* RIP that no branch led to: what exec_hooked does not take for the start of a block; all ones: none */
    uint8_t hook_kinds; /* of STATUS_HOOK: HOOKED_* */
#ifdef EMU_TRAMPOLINE
    struct { /* the call that a body asked for: see insn.h */
        const Insn *insn;
        int64_t (*fn)(struct CPU *, const Insn *, int64_t, int64_t, int64_t, uint64_t);
        int64_t left, fr, fd;
        uint64_t cf;
    } pending;
#endif
    int (*operation)(struct CPU *, const Insn *); /* what run_cold() is to run */
    void *board; /* whom power_off and reset requests of the processor go to */
} CPU;

/* What a processor model is: filled from emu/models/NAME.toml. */
typedef struct CpuidLeaf {
    uint32_t leaf, subleaf, eax, ebx, ecx, edx;
} CpuidLeaf;

/* Model-specific registers that not all processors have, or not at the same number. */
#define MSR_CONSTANTS 4u
typedef struct MsrModel {
    uint64_t misc_enable;    /* IA32_MISC_ENABLE after RESET; 0: there is none */
    uint32_t branches;       /* records of last branches; 0: none */
    uint32_t branch_from, branch_to, branch_top; /* number of the first register; branch_top 0: none */
    uint32_t exception_from, exception_to;
    uint32_t linear;         /* records hold linear addresses, not offsets in CS */
    uint32_t constant_count;
    struct MsrConstant {
        uint32_t number;
        uint64_t value;
    } constants[MSR_CONSTANTS]; /* that can be read */
} MsrModel;

typedef struct Model {
    uint8_t level;            /* SINCE_8086 .. SINCE_686: the oldest processors' instructions */
    uint8_t has[SINCES];      /* by Since: this form exists */
    uint64_t cr4_mask;        /* bits that may be set */
    uint32_t eflags_mask;     /* bits that POPF can change: AC from the 486, ID where CPUID is there */
    uint32_t physical_bits;
    uint32_t cpuid_count;
    CpuidLeaf cpuid[32];
    uint32_t reset_edx;       /* family, model, stepping */
    uint8_t max_instruction_length; /* 15 */
    uint64_t hz;
    VmxModel vmx;
    MsrModel msrs;
    RowClocks clocks[TIMING_ROWS];
    EventClocks event_clocks;
} Model;

/* Life. The processor lives in `memory`, cpu_bytes() zeros of which the first cpu_hot_bytes(), whole pages, are touched at
 * once and the others as they are used; NULL when there is no more for the bus. cpu_destroy leaves the memory as it is. */
size_t cpu_bytes(void);
size_t cpu_hot_bytes(void);
CPU *cpu_create(Bus *bus, Clock *clock, const Model *model, void *memory);
void cpu_destroy(CPU *cpu);
/* State after power-up or RESET (SDM Vol. 3, "Processor State After Reset"). */
void cpu_reset(CPU *cpu);
/* State after INIT: the same, but cache control, time stamp and model-specific registers stay as they are. */
void cpu_init(CPU *cpu);
/* Must follow every change of CR0, CR4, EFER, EFLAGS.VM, CPL, CS or SS from outside this core's own functions. */
void cpu_update_mode(CPU *cpu);

/* Why cpu_run returned. */
typedef enum StopCode {
    STOP_LIMIT,         /* the horizon given by the caller, or the instruction goal */
    STOP_REQUEST,       /* REQUEST_STOP */
    STOP_HALTED,        /* HLT and nothing can ever wake it, or cpu_run was told to stop there */
    STOP_TRIPLE_FAULT,
    STOP_FAULT,         /* RUN_RAISE: CPU.fault was to be delivered; CPU.rip is the instruction's */
    STOP_BREAKPOINT,    /* RUN_RAISE: INT n, INT3, INTO, ICEBP or #DB; or a breakpoint */
    STOP_HOOK,          /* an instruction hook lies before CPU.rip */
    STOP_RESET,         /* the reset line was pulsed */
} StopCode;

#define RUN_RAISE     1u /* faults stop the run instead of being delivered (emu.Cpu with faults="raise") */
#define RUN_STOP_HLT  2u /* stop at HLT */
#define RUN_STEP      4u /* one instruction (one REP iteration), and what is due before it */

/* Runs until `cycle_limit` (CYCLE_NEVER: none) or `instruction_limit` more instructions are done, or something stops it.
 * Cutting a run into pieces changes no state. */
StopCode cpu_run(CPU *cpu, uint64_t cycle_limit, uint64_t instruction_limit, uint32_t flags);

/* Wires. */
void cpu_set_intr(CPU *cpu, bool level);
void cpu_pulse(CPU *cpu, uint32_t request);

/* Faults: each records the fault and returns STATUS_FAULT. */
int fault_raise(CPU *cpu, unsigned vector);
int fault_error(CPU *cpu, unsigned vector, uint32_t error);
int fault_page(CPU *cpu, uint64_t la, uint32_t error);
static inline int fault_ud(CPU *cpu) { return fault_raise(cpu, VECTOR_UD); }
static inline int fault_de(CPU *cpu) { return fault_raise(cpu, VECTOR_DE); }
static inline int fault_nm(CPU *cpu) { return fault_raise(cpu, VECTOR_NM); }
static inline int fault_gp(CPU *cpu, uint32_t error) { return fault_error(cpu, VECTOR_GP, error); }
static inline int fault_ss(CPU *cpu, uint32_t error) { return fault_error(cpu, VECTOR_SS, error); }
static inline int fault_ts(CPU *cpu, uint32_t error) { return fault_error(cpu, VECTOR_TS, error); }
static inline int fault_np(CPU *cpu, uint32_t error) { return fault_error(cpu, VECTOR_NP, error); }

/* EFLAGS as a whole. cpu_set_flags sets the bits of `mask` and nothing else; it keeps bit 1 set. */
uint32_t cpu_flags(const CPU *cpu);
void cpu_set_flags(CPU *cpu, uint32_t value, uint32_t mask);

/* paging.c. Translates and checks rights; sets accessed and dirty bits. access: ACCESS_*. */
#define ACCESS_READ  0u
#define ACCESS_WRITE 1u
#define ACCESS_FETCH 2u
#define ACCESS_SYSTEM 4u /* by the processor itself: GDT, IDT, TSS, page tables: supervisor whatever the CPL */
int mmu_translate(CPU *cpu, uint64_t la, unsigned access, uint64_t *pa);
/* The same without any effect, for debuggers: false where nothing is mapped. */
bool mmu_peek(CPU *cpu, uint64_t la, uint64_t *pa);
int mmu_load_pdptes(CPU *cpu, uint64_t cr3);
/* Forget translations of the address space in use; of all; of those whose VPID (-1: any) and EPT pointer (-1: any) are
 * these. */
void tlb_flush(CPU *cpu, bool global_too);
void tlb_flush_page(CPU *cpu, uint64_t la);
void tlb_flush_all(CPU *cpu);
/* Of an EPT pointer the address alone counts. */
void tlb_flush_matching(CPU *cpu, int64_t vpid, uint64_t eptp, bool global_too);
/* Forgets one address in all that are tagged with the VPID. */
void tlb_flush_page_of(CPU *cpu, uint32_t vpid, uint64_t la);
/* Goes on with the translations of another address space; CR0, CR4 and EFER are the new ones already. */
void tlb_select(CPU *cpu, uint32_t vpid, uint64_t eptp);
/* Decoded code is reached by other ways from now on: the jump cache of every address space is void. */
void generation_renew(CPU *cpu);
void generations_renew(CPU *cpu);
/* Stores to the physical page must take the slow path from now on (it holds code, or is clean again). */
void tlb_protect_page(CPU *cpu, uint64_t page);

/* ept.c. From guest-physical to physical addresses; `la` is what is being translated, `of_walk` says that the access is one
 * to a paging structure. The rights found come back in `rights`: EPT_R, EPT_W, EPT_X. STATUS_FAULT: CPU.exit is set. */
#define EPT_R 1u
#define EPT_W 2u
#define EPT_X 4u
typedef struct EptAccess {
    unsigned access; /* ACCESS_*, WALK_PEEK */
    bool has_la, of_walk;
    uint64_t la;
} EptAccess;
int ept_translate(CPU *cpu, uint64_t gpa, const EptAccess *access, uint64_t *pa, unsigned *rights);
#define WALK_PEEK 0x100u /* no effects, no faults recorded, rights of the supervisor */

/* A VM exit: records why and returns STATUS_VMEXIT. */
int vm_exit(CPU *cpu, uint32_t reason, uint64_t qualification);
/* The same by an instruction that is not executed: its length is saved, and RF is 0 in the saved flags. */
int vm_exit_instruction(CPU *cpu, uint32_t reason, uint64_t qualification);
/* Does the exception bitmap want this event? (SDM Vol. 3, "Exception Bitmap".) */
bool vm_exit_wanted(const CPU *cpu, const Fault *event);
/* And its VM exit. */
int vm_exit_event(CPU *cpu, const Fault *event);
/* Controls of the guest that runs; in root operation none is set. */
static inline bool guest_pin(const CPU *cpu, uint32_t controls)
{
    return cpu->non_root && (cpu->vmx.field[PIN_BASED_VM_EXECUTION_CONTROLS] & controls);
}
static inline bool guest_proc(const CPU *cpu, uint32_t controls)
{
    return cpu->non_root && (cpu->vmx.field[PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS] & controls);
}
static inline bool guest_proc2(const CPU *cpu, uint32_t controls)
{
    return guest_proc(cpu, (uint32_t)PROC_ACTIVATE_SECONDARY_CONTROLS) &&
           (cpu->vmx.field[SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS] & controls);
}

/* exec_control.c: SDM Vol. 3, "Control Registers". What MOV to CR checks and does, without VM exits; STATUS_LOOK or STATUS_FAULT. */
int control_write(CPU *cpu, unsigned number, uint64_t value);

/* exec_msr.c. False, or STATUS_FAULT with #GP(0): there is no such register, or it does not take the value. */
bool msr_read(CPU *cpu, uint32_t number, uint64_t *value);
int msr_write(CPU *cpu, uint32_t number, uint64_t value);
/* Bits of IA32_EFER that the model has. */
uint64_t efer_mask(const CPU *cpu);
bool pat_valid(uint64_t value);
/* What a model's VMX capability MSRs say of a control word: the bits that must be 1, and those that may be. `strict`: the
 * registers without TRUE in their names. */
uint32_t control_must(const CPU *cpu, ControlWord word, bool strict);
uint32_t control_may(const CPU *cpu, ControlWord word);
/* vmx_vmcs.c: bits 9:1 of the encodings of the fields that the model has, the highest. */
uint64_t vmcs_highest_index(const CPU *cpu);
/* Bits of CR0 and CR4 that are fixed in VMX operation: 1 in *_fixed0 must be 1, 0 in *_fixed1 must be 0. */
#define VMX_CR0_FIXED0 (CR0_PE | CR0_NE | CR0_PG)
#define VMX_CR4_FIXED0 CR4_VMXE

/* vmx_entry.c, vmx_exit.c: for the run loop alone. */
/* VMLAUNCH, VMRESUME: a Status; STATUS_OK: no entry was made, *error is the VM-instruction error. */
int vmx_enter(CPU *cpu, bool launch, uint32_t *error);
int vmx_leave(CPU *cpu);              /* acts on CPU.exit: STATUS_OK, or STATUS_SHUTDOWN after a VMX abort */
/* What is due in a guest before its next instruction: STATUS_VMEXIT, or STATUS_OK. */
int vmx_due_before_traps(CPU *cpu);
int vmx_due_after_traps(CPU *cpu);
int vmx_due_interrupt_window(CPU *cpu);
/* The event that VM entry injects. */
Fault vmx_injected(const CPU *cpu);
void vmx_reset(CPU *cpu);
void vmx_restored(CPU *cpu); /* after the state was restored */

/* segment.c: descriptor tables and segment registers. */
void segment_update(CPU *cpu, unsigned index); /* recomputes read_end and write_end from the other fields */
void segment_load_real(CPU *cpu, unsigned index, uint16_t selector);
int segment_load(CPU *cpu, unsigned index, uint16_t selector); /* MOV, POP, LDS ...: ES SS DS FS GS */
void code_segment_changed(CPU *cpu);

/* debug.c: notes in CPU.trap which breakpoints of DR0 to DR3 an access meets. Called where CPU.breakpoints is set. */
typedef enum DebugAccess { DEBUG_READ, DEBUG_WRITE, DEBUG_IO } DebugAccess;
void debug_access(CPU *cpu, uint64_t address, unsigned size, DebugAccess kind);

/* last_branch.c. */
BranchStart branch_watch(CPU *cpu);
bool branch_was_taken(const CPU *cpu, const BranchStart *start);
/* With LBR: a record from there to CPU.rip; of an event that was delivered. */
void branch_record(CPU *cpu, const BranchStart *start);
void branch_record_event(CPU *cpu, const BranchStart *start);
/* The register of this number among those of the last branches; NULL: it is none. */
uint64_t *branch_register(CPU *cpu, uint32_t number);

/* interrupt.c: delivers an exception, an INT n or an external interrupt through the IVT or IDT. STATUS_BRANCH or
 * STATUS_SHUTDOWN; STATUS_FAULT where an INT n, INT3, INTO or INT1 itself faults. next_rip is what is pushed. */
int interrupt_deliver(CPU *cpu, const Fault *event, uint64_t next_rip);

/* The kinds of task switch (task.c). */
typedef enum TaskSwitch { TASK_CALL, TASK_IRET, TASK_JMP, TASK_GATE } TaskSwitch;

#endif
