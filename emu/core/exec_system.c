/* Descriptor-table registers, TLB and cache control, HLT and its like, the FS and GS bases.
 * SDM Vol. 3, "System Instruction Reference" summary; SDM Vol. 2, of each instruction. */
#include "exec.h"
#include "segment.h"

/* In a guest, and the control is set: the instruction is a VM exit. */
#define EXIT_IF(condition, reason, qualification)                             \
    do {                                                                      \
        if (unlikely(condition))                                              \
            return vm_exit_instruction(cpu, EXIT_REASON_##reason, qualification); \
    } while (0)
/* The qualification of instructions with a memory operand is its displacement. */
#define DISPLACEMENT vm_exit_displacement(cpu, insn)

#define require_cpl0(cpu)              \
    do {                               \
        if ((cpu)->cpl)                \
            return fault_gp(cpu, 0);   \
    } while (0)

static uint64_t address_after(const CPU *cpu, const Insn *insn, unsigned distance)
{
    return (effective_address(cpu, insn) + distance) & cpu->address_mask[insn->asize];
}

/* --- LGDT, LIDT, SGDT, SIDT --- */

static bool exits_on_table(CPU *cpu, const Insn *insn, unsigned which)
{
    if (!guest_proc2(cpu, PROC2_DESCRIPTOR_TABLE_EXITING))
        return false;
    vm_exit_instruction(cpu, EXIT_REASON_ACCESS_TO_GDTR_OR_IDTR, DISPLACEMENT);
    cpu->exit.details = (uint8_t)which;
    return true;
}

/* With a 16-bit operand size the base has 24 bits. */
static int load_table(CPU *cpu, const Insn *insn, DescriptorTable *table)
{
    require_cpl0(cpu);
    if (exits_on_table(cpu, insn, 2 + (table == &cpu->idtr)))
        return STATUS_VMEXIT;
    if (mem_read(cpu, insn->seg, effective_address(cpu, insn), 2))
        return STATUS_FAULT;
    const uint32_t limit = (uint32_t)cpu->data;
    if (mem_read(cpu, insn->seg, address_after(cpu, insn, 2), cpu->code64 ? 8 : 4))
        return STATUS_FAULT;
    const uint64_t base = insn->osize == OSIZE16 && !cpu->code64 ? cpu->data & 0xffffff : cpu->data;
    if (cpu->code64 && !is_canonical(base))
        return fault_gp(cpu, 0);
    *table = (DescriptorTable){.base = base, .limit = limit};
    return STATUS_LOOK;
}

/* All of the base is stored, whatever the operand size. */
static int store_table(CPU *cpu, const Insn *insn, const DescriptorTable *table)
{
    const unsigned size = cpu->code64 ? 8 : 4;
    const uint64_t first = effective_address(cpu, insn), second = address_after(cpu, insn, 2);
    if ((cpu->cr4 & CR4_UMIP) && cpu->cpl > 0)
        return fault_gp(cpu, 0);
    if (exits_on_table(cpu, insn, table == &cpu->idtr))
        return STATUS_VMEXIT;
    if (mem_probe_write(cpu, insn->seg, first, 2) || mem_probe_write(cpu, insn->seg, second, size) ||
        mem_write(cpu, insn->seg, first, 2, table->limit) || mem_write(cpu, insn->seg, second, size, table->base))
        return STATUS_FAULT;
    return STATUS_OK;
}

COLD_BODY(exec_lgdt_m) { return load_table(cpu, insn, &cpu->gdtr); }
COLD_BODY(exec_lidt_m) { return load_table(cpu, insn, &cpu->idtr); }
COLD_BODY(exec_sgdt_m) { return store_table(cpu, insn, &cpu->gdtr); }
COLD_BODY(exec_sidt_m) { return store_table(cpu, insn, &cpu->idtr); }

/* --- TLB and caches --- */

COLD_BODY(exec_invlpg_m)
{
    require_cpl0(cpu);
    uint64_t la = cpu->seg[insn->seg].base + effective_address(cpu, insn);
    if (!cpu->long_mode)
        la &= 0xffffffff;
    EXIT_IF(guest_proc(cpu, PROC_INVLPG_EXITING), INVLPG, la);
    if (is_canonical(la))
        tlb_flush_page(cpu, la & ~PAGE_MASK);
    return STATUS_LOOK;
}

/* Descriptor: PCID in bits 0 to 11, linear address in bits 64 to 127. PCIDs are not told apart, so that the narrower
 * kinds forget more than they must. */
static int invalidate_pcid(CPU *cpu, const Insn *insn, uint64_t type)
{
    enum { INDIVIDUAL_ADDRESS, SINGLE_CONTEXT, ALL_WITH_GLOBAL, ALL_WITHOUT_GLOBAL };
    if (cpu->non_root && !guest_proc2(cpu, PROC2_ENABLE_INVPCID))
        return fault_ud(cpu);
    require_cpl0(cpu);
    EXIT_IF(guest_proc(cpu, PROC_INVLPG_EXITING), INVPCID, DISPLACEMENT);
    if (mem_read(cpu, insn->seg, effective_address(cpu, insn), 8))
        return STATUS_FAULT;
    const uint64_t pcid = cpu->data;
    if (mem_read(cpu, insn->seg, address_after(cpu, insn, 8), 8))
        return STATUS_FAULT;
    const uint64_t la = cpu->data;
    if (type > ALL_WITHOUT_GLOBAL || pcid >> 12)
        return fault_gp(cpu, 0);
    if (type <= SINGLE_CONTEXT && pcid && !(cpu->cr4 & CR4_PCIDE))
        return fault_gp(cpu, 0);
    if (type == INDIVIDUAL_ADDRESS && !is_canonical(la))
        return fault_gp(cpu, 0);
    tlb_flush(cpu, type == ALL_WITH_GLOBAL);
    return STATUS_LOOK;
}

COLD_BODY(exec_invpcid_r32_m) { return invalidate_pcid(cpu, insn, R32(insn->dst)); }
COLD_BODY(exec_invpcid_r64_m) { return invalidate_pcid(cpu, insn, R64(insn->dst)); }

/* There is no cache whose contents could differ from memory. */
COLD_BODY(exec_invd)
{
    require_cpl0(cpu);
    EXIT_IF(cpu->non_root, INVD, 0);
    return STATUS_OK;
}

static int write_back(CPU *cpu)
{
    require_cpl0(cpu);
    EXIT_IF(guest_proc2(cpu, PROC2_WBINVD_EXITING), WBINVD, 0);
    return STATUS_OK;
}

COLD_BODY(exec_wbinvd) { return write_back(cpu); }
COLD_BODY(exec_wbnoinvd) { return write_back(cpu); }

/* --- waiting --- */

COLD_BODY(exec_hlt)
{
    require_cpl0(cpu);
    EXIT_IF(guest_proc(cpu, PROC_HLT_EXITING), HLT, 0);
    cpu->activity = ACTIVITY_HLT;
    return STATUS_LOOK;
}

/* MWAIT may end its waiting for any reason, and does so at once: it is a no-operation. A VM exit tells whether the line that
 * MONITOR armed has not been written since. SDM Vol. 3, "Exit Qualification for MWAIT". */
#define MONITOR_LINE 64u

static uint64_t line_sum(CPU *cpu, uint64_t line)
{
    uint8_t bytes[MONITOR_LINE];
    uint64_t sum = 0xcbf29ce484222325; /* FNV-1a */
    bus_read_block(cpu->bus, line, bytes, sizeof bytes);
    for (unsigned i = 0; i < sizeof bytes; i++)
        sum = (sum ^ bytes[i]) * 0x100000001b3;
    return sum;
}

#define MONITOR_ARMED 1u /* in CPU.monitored, beside the line's address */

static bool monitor_armed(CPU *cpu)
{
    return cpu->monitored && line_sum(cpu, cpu->monitored & ~(uint64_t)MONITOR_ARMED) == cpu->monitored_sum;
}

static bool monitor_enabled(const CPU *cpu)
{
    return !cpu->cpl && (!cpu->model->msrs.misc_enable || (cpu->misc_enable & MISC_ENABLE_MONITOR));
}

COLD_BODY(exec_monitor)
{
    if (!monitor_enabled(cpu))
        return fault_ud(cpu);
    EXIT_IF(guest_proc(cpu, PROC_MONITOR_EXITING), MONITOR, 0);
    if (R32(RCX * 8))
        return fault_gp(cpu, 0);
    const uint64_t ea = cpu->r[RAX] & cpu->address_mask[insn->asize];
    uint64_t pa;
    if (mem_read(cpu, insn->seg, ea, 1) || mmu_translate(cpu, cpu->seg[insn->seg].base + ea, ACCESS_READ, &pa))
        return STATUS_FAULT;
    const Region *memory = bus_find(cpu->bus, pa & ~PAGE_MASK, REGION_READ);
    const uint64_t line = pa & ~(uint64_t)(MONITOR_LINE - 1);
    const bool arms = memory && memory->host;
    cpu->monitored = arms ? line | MONITOR_ARMED : 0;
    cpu->monitored_sum = arms ? line_sum(cpu, line) : 0;
    return STATUS_OK;
}

COLD_BODY(exec_mwait)
{
    if (!monitor_enabled(cpu))
        return fault_ud(cpu);
    EXIT_IF(guest_proc(cpu, PROC_MWAIT_EXITING), MWAIT, monitor_armed(cpu));
    if (R32(RCX * 8))
        return fault_gp(cpu, 0);
    cpu->monitored = 0;
    return STATUS_OK;
}

/* No model has system-management mode, XSAVE or PKRU state: outside SMM RSM is undefined, and CR4.OSXSAVE stays 0. */
COLD_BODY(exec_rsm) { return fault_ud(cpu); }
COLD_BODY(exec_xgetbv) { return fault_ud(cpu); }
COLD_BODY(exec_xsetbv) { return fault_ud(cpu); }

/* --- FS and GS bases --- */

COLD_BODY(exec_swapgs)
{
    require_cpl0(cpu);
    const uint64_t base = cpu->seg[GS].base;
    cpu->seg[GS].base = cpu->kernel_gs_base;
    cpu->kernel_gs_base = base;
    return STATUS_OK;
}

static int write_base(CPU *cpu, unsigned index, uint64_t base)
{
    if (!(cpu->cr4 & CR4_FSGSBASE))
        return fault_ud(cpu);
    if (!is_canonical(base))
        return fault_gp(cpu, 0);
    cpu->seg[index].base = base;
    return STATUS_OK;
}

#define SEGMENT_BASE(name, index)                                                                         \
    COLD_BODY(exec_rd##name##_r32)                                                                        \
    {                                                                                                     \
        if (!(cpu->cr4 & CR4_FSGSBASE))                                                                   \
            return fault_ud(cpu);                                                                         \
        SET_R32(insn->dst, cpu->seg[index].base);                                                         \
        return STATUS_OK;                                                                                 \
    }                                                                                                     \
    COLD_BODY(exec_rd##name##_r64)                                                                        \
    {                                                                                                     \
        if (!(cpu->cr4 & CR4_FSGSBASE))                                                                   \
            return fault_ud(cpu);                                                                         \
        SET_R64(insn->dst, cpu->seg[index].base);                                                         \
        return STATUS_OK;                                                                                 \
    }                                                                                                     \
    COLD_BODY(exec_wr##name##_r32) { return write_base(cpu, index, R32(insn->dst)); }                     \
    COLD_BODY(exec_wr##name##_r64) { return write_base(cpu, index, R64(insn->dst)); }
SEGMENT_BASE(fsbase, FS)
SEGMENT_BASE(gsbase, GS)
