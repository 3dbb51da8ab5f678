/* The guest's and the host's state between the processor and the VMCS. SDM Vol. 3, "Loading Guest State", "Saving Guest
 * State", "Loading Host State". */
#include "vmx_operation.h"

/* The bits of CR0 that entries and exits load: ET, NW, CD and the reserved ones stay. */
static uint64_t new_cr0(const CPU *cpu, uint64_t value)
{
    const uint64_t taken = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    return (value & taken) | (cpu->cr0 & ~taken);
}

/* --- segments: the fields of a register stand in the order of the registers, LDTR and TR last --- */

/* The reserved bits of access rights, which an unusable register may have, are not kept. */
#define AR_KEPT 0x1f0ffu

static void segment_load_field(CPU *cpu, unsigned index)
{
    Segment *segment = &cpu->seg[index];
    const uint64_t *field = cpu->vmx.field;
    segment->selector = (uint16_t)field[GUEST_ES_SELECTOR + index];
    segment->base = field[GUEST_ES_BASE + index];
    segment->hidden = 0;
    segment->limit = (uint32_t)field[GUEST_ES_LIMIT + index];
    segment->access = (uint32_t)field[GUEST_ES_ACCESS_RIGHTS + index] & AR_KEPT;
}

static void segment_save_field(CPU *cpu, unsigned index)
{
    const Segment *segment = &cpu->seg[index];
    uint64_t *field = cpu->vmx.field;
    field[GUEST_ES_SELECTOR + index] = segment->selector;
    field[GUEST_ES_BASE + index] = segment->base | segment->hidden; /* one of them is 0 */
    field[GUEST_ES_LIMIT + index] = segment->limit;
    field[GUEST_ES_ACCESS_RIGHTS + index] = segment->access;
}

static void segments_update(CPU *cpu)
{
    for (unsigned i = 0; i < SEGMENT_COUNT; i++)
        segment_update(cpu, i);
}

static bool uses_pdptes(const CPU *cpu) { return (cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE) && !(cpu->efer & EFER_LMA); }

#define PENDING_BREAKPOINTS 15u

/* The debug exceptions that are pending after VM entry: SDM Vol. 3, "Delivery of Pending Debug Exceptions after VM Entry". */
static uint32_t pending_debug_load(const CPU *cpu)
{
    const uint32_t pending = (uint32_t)VMCS(cpu, GUEST_PENDING_DEBUG_EXCEPTIONS);
    const uint32_t info = (uint32_t)VMCS(cpu, VM_ENTRY_INTERRUPTION_INFORMATION_FIELD);
    const unsigned type = info >> 8 & 7;
    const bool after_mov_ss = VMCS(cpu, GUEST_INTERRUPTIBILITY_STATE) & BLOCKING_BY_MOV_SS;
    if (!(pending & (DR6_BS | PENDING_ENABLED)))
        return 0;
    if ((info & INTERRUPTION_VALID) && type != 7) { /* 7 injects a VM exit, not an event of the guest's */
        if ((type != EVENT_SOFTWARE_INTERRUPT && type != EVENT_SOFTWARE_EXCEPTION) || !after_mov_ss)
            return 0;
    } else if (VMCS(cpu, GUEST_ACTIVITY_STATE) > ACTIVITY_HLT)
        return 0;
    /* After MOV SS RFLAGS.TF is 1 where BS is: the next instruction steps of itself. */
    return pending & (PENDING_BREAKPOINTS | (after_mov_ss ? 0 : DR6_BS));
}

/* What an exit leaves pending, SDM Vol. 3, "Saving Non-Register State": what comes before debug exceptions, and what MOV SS
 * holds off, unless a debug exception is the exit. A step over MOV SS is held off too, and VM entry wants to see it. */
static uint32_t pending_debug_save(const CPU *cpu)
{
    const VmExit *exit = &cpu->exit;
    const bool hardware = exit->has_event && exit->event.type == EVENT_HARDWARE_EXCEPTION;
    const bool debug = exit->has_event && exit->event.type != EVENT_NMI && exit->event.vector == VECTOR_DB;
    const bool comes_before = exit->reason == EXIT_REASON_INIT_SIGNAL || exit->reason == EXIT_REASON_TPR_BELOW_THRESHOLD ||
                              exit->reason == EXIT_REASON_MONITOR_TRAP_FLAG ||
                              (hardware && exit->event.vector == VECTOR_MC);
    if (!comes_before && (debug || !(cpu->shadow & SHADOW_MOV_SS)))
        return 0;
    const bool held_step = (cpu->shadow & SHADOW_MOV_SS) && (cpu->eflags & FLAG_TF) && !(cpu->debugctl & DEBUGCTL_BTF);
    return (cpu->trap & (DR6_BS | PENDING_BREAKPOINTS)) | (held_step ? DR6_BS : 0) |
           (cpu->trap & PENDING_BREAKPOINTS ? PENDING_ENABLED : 0);
}

void guest_state_load(CPU *cpu)
{
    const uint32_t entry = entry_controls(cpu), proc2 = proc2_controls(cpu);
    const bool ia32e = entry & ENTRY_IA32E_MODE_GUEST;
    cpu->cr0 = new_cr0(cpu, VMCS(cpu, GUEST_CR0));
    cpu->cr3 = VMCS(cpu, GUEST_CR3);
    cpu->cr4 = VMCS(cpu, GUEST_CR4);
    if (entry & ENTRY_LOAD_DEBUG_CONTROLS) {
        cpu->dr[7] = (VMCS(cpu, GUEST_DR7) & 0xffff2fff) | 0x400;
        cpu->debugctl = VMCS(cpu, GUEST_IA32_DEBUGCTL);
    }
    cpu->sysenter_cs = VMCS(cpu, GUEST_IA32_SYSENTER_CS);
    cpu->sysenter_esp = VMCS(cpu, GUEST_IA32_SYSENTER_ESP);
    cpu->sysenter_eip = VMCS(cpu, GUEST_IA32_SYSENTER_EIP);
    if (entry & ENTRY_LOAD_IA32_PAT)
        cpu->pat = VMCS(cpu, GUEST_IA32_PAT);
    if (entry & ENTRY_LOAD_IA32_EFER)
        cpu->efer = VMCS(cpu, GUEST_IA32_EFER);
    else if (cpu->model->has[SINCE_LM]) {
        const uint64_t both = cpu->cr0 & CR0_PG ? EFER_LMA | EFER_LME : EFER_LMA;
        cpu->efer = (cpu->efer & ~both) | (ia32e ? both : 0);
    }
    for (unsigned i = 0; i < SEGMENT_COUNT; i++)
        segment_load_field(cpu, i);
    cpu->gdtr = (DescriptorTable){VMCS(cpu, GUEST_GDTR_BASE), (uint32_t)VMCS(cpu, GUEST_GDTR_LIMIT)};
    cpu->idtr = (DescriptorTable){VMCS(cpu, GUEST_IDTR_BASE), (uint32_t)VMCS(cpu, GUEST_IDTR_LIMIT)};
    cpu->r[RSP] = VMCS(cpu, GUEST_RSP);
    cpu->rip = VMCS(cpu, GUEST_RIP);
    cpu->cpl = (uint8_t)AR_DPL_OF(cpu->seg[SS].access);
    cpu->non_root = 1;
    cpu->eflags = (uint32_t)VMCS(cpu, GUEST_RFLAGS) & ~FLAGS_ARITHMETIC;
    cpu_set_flags(cpu, (uint32_t)VMCS(cpu, GUEST_RFLAGS), FLAGS_ARITHMETIC);
    if (uses_pdptes(cpu) && (proc2 & PROC2_ENABLE_EPT))
        for (unsigned i = 0; i < 4; i++)
            cpu->pdpte[i] = cpu->vmx.field[GUEST_PDPTE0 + i];

    const uint32_t vpid = proc2 & PROC2_ENABLE_VPID ? (uint32_t)VMCS(cpu, VIRTUAL_PROCESSOR_IDENTIFIER) : 0;
    tlb_select(cpu, vpid, proc2 & PROC2_ENABLE_EPT ? VMCS(cpu, EPT_POINTER) : 0);
    if (!vpid)
        tlb_flush_matching(cpu, 0, UINT64_MAX, true);
    cpu_update_mode(cpu);
    segments_update(cpu);

    const uint32_t blocking = (uint32_t)VMCS(cpu, GUEST_INTERRUPTIBILITY_STATE);
    cpu->shadow = (blocking & BLOCKING_BY_STI ? SHADOW_STI : 0) | (blocking & BLOCKING_BY_MOV_SS ? SHADOW_MOV_SS : 0);
    cpu->nmi_blocked = (blocking & BLOCKING_BY_NMI) != 0;
    cpu->activity = (uint8_t)VMCS(cpu, GUEST_ACTIVITY_STATE);
    cpu->trap = pending_debug_load(cpu);
    cpu->rep_resumed = 0;
    cpu->monitored = 0;
}

void guest_state_save(CPU *cpu)
{
    const uint32_t exit = exit_controls(cpu), proc2 = proc2_controls(cpu);
    VMCS(cpu, GUEST_CR0) = cpu->cr0;
    VMCS(cpu, GUEST_CR3) = cpu->cr3;
    VMCS(cpu, GUEST_CR4) = cpu->cr4;
    if (exit & EXIT_SAVE_DEBUG_CONTROLS) {
        VMCS(cpu, GUEST_DR7) = cpu->dr[7];
        VMCS(cpu, GUEST_IA32_DEBUGCTL) = cpu->debugctl;
    }
    VMCS(cpu, GUEST_IA32_SYSENTER_CS) = cpu->sysenter_cs;
    VMCS(cpu, GUEST_IA32_SYSENTER_ESP) = cpu->sysenter_esp;
    VMCS(cpu, GUEST_IA32_SYSENTER_EIP) = cpu->sysenter_eip;
    if (exit & EXIT_SAVE_IA32_PAT)
        VMCS(cpu, GUEST_IA32_PAT) = cpu->pat;
    if (exit & EXIT_SAVE_IA32_EFER)
        VMCS(cpu, GUEST_IA32_EFER) = cpu->efer;
    for (unsigned i = 0; i < SEGMENT_COUNT; i++)
        segment_save_field(cpu, i);
    VMCS(cpu, GUEST_GDTR_BASE) = cpu->gdtr.base;
    VMCS(cpu, GUEST_GDTR_LIMIT) = cpu->gdtr.limit;
    VMCS(cpu, GUEST_IDTR_BASE) = cpu->idtr.base;
    VMCS(cpu, GUEST_IDTR_LIMIT) = cpu->idtr.limit;
    VMCS(cpu, GUEST_RSP) = cpu->r[RSP];
    VMCS(cpu, GUEST_RIP) = cpu->rip;
    VMCS(cpu, GUEST_RFLAGS) = cpu_flags(cpu);
    VMCS(cpu, GUEST_ACTIVITY_STATE) = cpu->activity;
    VMCS(cpu, GUEST_INTERRUPTIBILITY_STATE) = (cpu->shadow & SHADOW_STI ? BLOCKING_BY_STI : 0) |
                                              (cpu->shadow & SHADOW_MOV_SS ? BLOCKING_BY_MOV_SS : 0) |
                                              (cpu->nmi_blocked ? BLOCKING_BY_NMI : 0);
    VMCS(cpu, GUEST_PENDING_DEBUG_EXCEPTIONS) = pending_debug_save(cpu);
    if (proc2 & PROC2_ENABLE_EPT)
        for (unsigned i = 0; i < 4; i++)
            cpu->vmx.field[GUEST_PDPTE0 + i] = uses_pdptes(cpu) ? cpu->pdpte[i] : cpu->vmx.field[GUEST_PDPTE0 + i];
    if (cpu->model->vmx.misc & 0x20) { /* IA32_VMX_MISC: exits store LMA in the entry control */
        const uint64_t others = VMCS(cpu, VM_ENTRY_CONTROLS) & ~(uint64_t)ENTRY_IA32E_MODE_GUEST;
        VMCS(cpu, VM_ENTRY_CONTROLS) = others | (cpu->efer & EFER_LMA ? ENTRY_IA32E_MODE_GUEST : 0);
    }
    VMCS(cpu, VM_ENTRY_INTERRUPTION_INFORMATION_FIELD) &= ~(uint64_t)INTERRUPTION_VALID;
}

/* SDM Vol. 3, "Loading Host Segment and Descriptor-Table Registers". */
static void host_segment(CPU *cpu, unsigned index, VmcsField selector, uint64_t base, uint32_t access)
{
    Segment *segment = &cpu->seg[index];
    segment->selector = (uint16_t)cpu->vmx.field[selector];
    segment->base = base;
    segment->hidden = 0;
    segment->limit = UINT32_MAX;
    segment->access = access | (segment->selector || index == CS ? 0 : AR_UNUSABLE);
}

bool host_state_load(CPU *cpu)
{
    const uint32_t exit = exit_controls(cpu);
    const bool wide = exit & EXIT_HOST_ADDRESS_SPACE_SIZE;
    const uint32_t data = AR_P | AR_S | AR_RW | AR_ACCESSED | AR_DB | AR_G;
    const uint32_t vpid = proc2_controls(cpu) & PROC2_ENABLE_VPID ? (uint32_t)VMCS(cpu, VIRTUAL_PROCESSOR_IDENTIFIER) : 0;
    cpu->non_root = 0;
    cpu->cr0 = new_cr0(cpu, VMCS(cpu, HOST_CR0));
    cpu->cr3 = VMCS(cpu, HOST_CR3);
    cpu->cr4 = VMCS(cpu, HOST_CR4) | (wide ? CR4_PAE : 0);
    if (!wide)
        cpu->cr4 &= ~(uint64_t)CR4_PCIDE;
    cpu->dr[7] = 0x400;
    cpu->debugctl = 0;
    cpu->sysenter_cs = VMCS(cpu, HOST_IA32_SYSENTER_CS);
    cpu->sysenter_esp = VMCS(cpu, HOST_IA32_SYSENTER_ESP);
    cpu->sysenter_eip = VMCS(cpu, HOST_IA32_SYSENTER_EIP);
    if (cpu->model->has[SINCE_LM])
        cpu->efer = (cpu->efer & ~(uint64_t)(EFER_LMA | EFER_LME)) | (wide ? EFER_LMA | EFER_LME : 0);
    if (exit & EXIT_LOAD_IA32_PAT)
        cpu->pat = VMCS(cpu, HOST_IA32_PAT);
    if (exit & EXIT_LOAD_IA32_EFER)
        cpu->efer = VMCS(cpu, HOST_IA32_EFER);
    host_segment(cpu, CS, HOST_CS_SELECTOR, 0,
                 AR_P | AR_S | AR_CODE | AR_RW | AR_ACCESSED | AR_G | (wide ? AR_L : AR_DB));
    host_segment(cpu, SS, HOST_SS_SELECTOR, 0, data);
    host_segment(cpu, DS, HOST_DS_SELECTOR, 0, data);
    host_segment(cpu, ES, HOST_ES_SELECTOR, 0, data);
    host_segment(cpu, FS, HOST_FS_SELECTOR, VMCS(cpu, HOST_FS_BASE), data);
    host_segment(cpu, GS, HOST_GS_SELECTOR, VMCS(cpu, HOST_GS_BASE), data);
    host_segment(cpu, TR, HOST_TR_SELECTOR, VMCS(cpu, HOST_TR_BASE), AR_P | TYPE_TSS32_BUSY);
    cpu->seg[TR].limit = 0x67;
    cpu->seg[LDTR] = (Segment){.access = AR_UNUSABLE};
    cpu->gdtr = (DescriptorTable){VMCS(cpu, HOST_GDTR_BASE), 0xffff};
    cpu->idtr = (DescriptorTable){VMCS(cpu, HOST_IDTR_BASE), 0xffff};
    cpu->r[RSP] = VMCS(cpu, HOST_RSP);
    cpu->rip = VMCS(cpu, HOST_RIP);
    cpu->cpl = 0;
    cpu->eflags = FLAG_ONE;
    cpu_set_flags(cpu, 0, FLAGS_ARITHMETIC);
    cpu->shadow = 0;
    cpu->trap = 0;
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->rep_resumed = cpu->charge_target = 0;
    cpu->monitored = 0;
    cpu->hook_skip = ~0ull;

    tlb_select(cpu, 0, 0);
    if (!vpid)
        tlb_flush_matching(cpu, 0, UINT64_MAX, true);
    cpu_update_mode(cpu);
    segments_update(cpu);
    return !uses_pdptes(cpu) || mmu_load_pdptes(cpu, cpu->cr3) == STATUS_OK;
}

/* --- MSR areas --- */

/* More entries than IA32_VMX_MISC recommends are refused, so that a count cannot hold the host up. */
static uint32_t area_limit(const CPU *cpu) { return 512u * ((uint32_t)(cpu->model->vmx.misc >> 25 & 7) + 1); }

/* SDM Vol. 3, "Loading MSRs", "Saving MSRs"; of the microcode's two registers SDM Vol. 4. */
static bool never_moved(uint32_t number)
{
    return number >> 8 == 8 || number == IA32_BIOS_UPDT_TRIG || number == IA32_BIOS_SIGN_ID;
}

static bool never_loaded(uint32_t number)
{
    return never_moved(number) || number == (uint32_t)IA32_FS_BASE || number == (uint32_t)IA32_GS_BASE ||
           number == IA32_SMM_MONITOR_CTL;
}

uint32_t msr_area_load(CPU *cpu, uint64_t area, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t at = area + 16ull * i, head = bus_read(cpu->bus, at, 8);
        if (i >= area_limit(cpu) || head >> 32 || never_loaded((uint32_t)head) ||
            msr_write(cpu, (uint32_t)head, bus_read(cpu->bus, at + 8, 8)) == STATUS_FAULT)
            return i + 1;
    }
    return 0;
}

uint32_t msr_area_store(CPU *cpu, uint64_t area, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t at = area + 16ull * i, head = bus_read(cpu->bus, at, 8);
        uint64_t value;
        if (i >= area_limit(cpu) || head >> 32 || never_moved((uint32_t)head) || !msr_read(cpu, (uint32_t)head, &value))
            return i + 1;
        bus_write(cpu->bus, at + 8, value, 8);
    }
    return 0;
}

/* --- the preemption timer: counts down when bit X of the time-stamp counter changes, IA32_VMX_MISC tells X --- */

#define TIMER_EVENT 1

static unsigned timer_rate(const CPU *cpu) { return cpu->model->vmx.misc & 31; }

static void timer_due(void *owner, int id)
{
    (void)id;
    cpu_pulse(owner, REQUEST_VMX);
}

void vmx_timer_start(CPU *cpu)
{
    const unsigned rate = timer_rate(cpu);
    const uint64_t tsc = clock_now(cpu->clock) + cpu->tsc_offset;
    const uint64_t end = ((tsc >> rate) + VMCS(cpu, VMX_PREEMPTION_TIMER_VALUE)) << rate;
    cpu->vmx.timer_deadline = end - cpu->tsc_offset;
    cpu->vmx.timer_running = 1;
    if (!VMCS(cpu, VMX_PREEMPTION_TIMER_VALUE))
        cpu->vmx.timer_deadline = clock_now(cpu->clock);
    clock_schedule(cpu->clock, timer_due, cpu, TIMER_EVENT, cpu->vmx.timer_deadline);
}

void vmx_timer_stop(CPU *cpu)
{
    if (!cpu->vmx.timer_running)
        return;
    const uint64_t now = clock_now(cpu->clock), deadline = cpu->vmx.timer_deadline;
    cpu->vmx.timer_running = 0;
    clock_cancel(cpu->clock, cpu, TIMER_EVENT);
    if (exit_controls(cpu) & EXIT_SAVE_VMX_PREEMPTION_TIMER_VALUE) {
        const unsigned rate = timer_rate(cpu);
        VMCS(cpu, VMX_PREEMPTION_TIMER_VALUE) =
            now >= deadline ? 0 : ((deadline + cpu->tsc_offset) >> rate) - ((now + cpu->tsc_offset) >> rate);
    }
}

void vmx_restored(CPU *cpu)
{
    const uint32_t proc2 = cpu->non_root ? proc2_controls(cpu) : 0;
    bus_settle_a20(cpu->bus);
    clock_cancel(cpu->clock, cpu, TIMER_EVENT);
    if (cpu->vmx.timer_running)
        clock_schedule(cpu->clock, timer_due, cpu, TIMER_EVENT, cpu->vmx.timer_deadline);
    tlb_select(cpu, proc2 & PROC2_ENABLE_VPID ? (uint32_t)VMCS(cpu, VIRTUAL_PROCESSOR_IDENTIFIER) : 0,
               proc2 & PROC2_ENABLE_EPT ? VMCS(cpu, EPT_POINTER) : 0);
}

/* --- what traces and timelines read --- */

void vmx_transition(CPU *cpu, uint32_t kind, uint32_t reason, uint64_t qualification)
{
    cpu->transitions[cpu->vmx.transitions++ % TRANSITIONS] = (VmTransition){
        .cycle = clock_now(cpu->clock),
        .vmcs = cpu->vmx.current,
        .rip = VMCS(cpu, GUEST_RIP),
        .qualification = qualification,
        .reason = reason,
        .kind = kind,
    };
}

void vmx_reset(CPU *cpu)
{
    if (cpu->vmx.timer_running)
        clock_cancel(cpu->clock, cpu, TIMER_EVENT);
    cpu->vmx.on = cpu->vmx.timer_running = cpu->non_root = 0;
    bus_settle_a20(cpu->bus);
    cpu->vmx.current = VMCS_NONE;
    cpu->vmx.exit_reason = EXIT_REASONS;
    cpu->vmx.feature_control = 0;
    cpu->vmx.failure = (VmxFailure){.field = -1};
    cpu->vmx.inject = cpu->vmx.trap_flag_due = cpu->vmx.tpr_due = 0;
    cpu->requests &= ~REQUEST_VMX;
    if (cpu->context != cpu->contexts || cpu->eptp)
        tlb_select(cpu, 0, 0);
}
