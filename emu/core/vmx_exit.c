/* VM exits, in the SDM's order of steps. SDM Vol. 3, "VM Exits". */
#include "vmx_operation.h"

const char *const vmx_exit_names[EXIT_REASONS] = {
#define REASON(number, name) [number] = #name,
#include "exit.def"
#undef REASON
};

/* SDM Vol. 3, "VMX Aborts": the processor shuts down and leaves a number in the VMCS region. */
int vmx_abort(CPU *cpu, uint32_t indicator)
{
    bus_write(cpu->bus, cpu->vmx.current + VMCS_ABORT_AT, indicator, 4);
    cpu->activity = ACTIVITY_SHUTDOWN;
    return STATUS_SHUTDOWN;
}

static uint32_t information_of(const Fault *event)
{
    return event->vector | (uint32_t)event->type << 8 | (event->has_error ? INTERRUPTION_ERROR_CODE : 0) | INTERRUPTION_VALID;
}

/* --- instruction information: SDM Vol. 3, "Information for VM Exits Due to Instruction Execution" --- */

#define INFO_NO_INDEX 0x400000u
#define INFO_NO_BASE 0x8000000u
#define INFO_REGISTER 0x400u

static uint32_t memory_information(const Insn *insn)
{
    uint32_t info = (uint32_t)insn->asize << 7 | (uint32_t)insn->seg << 15;
    info |= insn->index < 16 ? insn->scale | (uint32_t)insn->index << 18 : INFO_NO_INDEX;
    info |= insn->base < 16 ? (uint32_t)insn->base << 23 : INFO_NO_BASE;
    return info;
}

static uint32_t instruction_information(const CPU *cpu, uint32_t reason, const Insn *insn)
{
    const uint32_t dst = insn->dst / 8u, src = insn->src / 8u;
    switch (reason) {
    case EXIT_REASON_IO_INSTRUCTION: return (uint32_t)insn->asize << 7 | (uint32_t)insn->seg << 15;
    case EXIT_REASON_ACCESS_TO_GDTR_OR_IDTR: { /* 0F 01 /0 to /3: SGDT SIDT LGDT LIDT */
        const uint32_t which = cpu->exit.details;
        return memory_information(insn) | (insn->osize == OSIZE16 ? 0 : 0x800u) | which << 28;
    }
    case EXIT_REASON_ACCESS_TO_LDTR_OR_TR: {
        const uint32_t which = cpu->exit.details;
        return (insn->memory ? memory_information(insn) : INFO_REGISTER | dst << 3) | which << 28;
    }
    case EXIT_REASON_VMREAD: return (insn->memory ? memory_information(insn) : INFO_REGISTER | dst << 3) | src << 28;
    case EXIT_REASON_VMWRITE: return (insn->memory ? memory_information(insn) : INFO_REGISTER | src << 3) | dst << 28;
    case EXIT_REASON_INVEPT: case EXIT_REASON_INVVPID: case EXIT_REASON_INVPCID: return memory_information(insn) | dst << 28;
    case EXIT_REASON_VMCLEAR: case EXIT_REASON_VMPTRLD: case EXIT_REASON_VMPTRST: case EXIT_REASON_VMXON:
        return memory_information(insn);
    case EXIT_REASON_RDRAND: case EXIT_REASON_RDSEED: return dst << 3 | (uint32_t)insn->osize << 11;
    default: return 0;
    }
}

/* --- step 1: SDM Vol. 3, "Recording VM-Exit Information" --- */

static bool is_software(const Fault *event)
{
    return event->type == EVENT_SOFTWARE_INTERRUPT || event->type == EVENT_SOFTWARE_EXCEPTION || event->type == EVENT_ICEBP;
}

static void record_information(CPU *cpu)
{
    const VmExit *exit = &cpu->exit;
    const Insn *insn = cpu->exit_insn;
    uint32_t event = 0, vectoring = 0;
    VMCS(cpu, EXIT_REASON) = exit->reason;
    VMCS(cpu, EXIT_QUALIFICATION) = exit->qualification;
    if (exit->has_event) {
        event = information_of(&exit->event);
        if (cpu->iret_unblocked && exit->reason == EXIT_REASON_EXCEPTION_OR_NMI && exit->event.vector != VECTOR_DF &&
            !exit->has_vectoring)
            event |= INTERRUPTION_NMI_UNBLOCKING;
        VMCS(cpu, VM_EXIT_INTERRUPTION_ERROR_CODE) = exit->event.error;
    }
    if (exit->has_vectoring) {
        vectoring = information_of(&exit->vectoring);
        VMCS(cpu, IDT_VECTORING_ERROR_CODE) = exit->vectoring.error;
    }
    VMCS(cpu, VM_EXIT_INTERRUPTION_INFORMATION) = event;
    VMCS(cpu, IDT_VECTORING_INFORMATION_FIELD) = vectoring;
    VMCS(cpu, GUEST_PHYSICAL_ADDRESS) = exit->guest_physical;
    VMCS(cpu, GUEST_LINEAR_ADDRESS) = exit->guest_linear;
    const bool by_instruction = exit->by_instruction || (exit->has_event && is_software(&exit->event)) ||
                                (exit->has_vectoring && is_software(&exit->vectoring));
    VMCS(cpu, VM_EXIT_INSTRUCTION_LENGTH) = by_instruction && insn ? insn->len : cpu->vmx.injected_length;
    VMCS(cpu, VM_EXIT_INSTRUCTION_INFORMATION) =
        exit->by_instruction && insn ? instruction_information(cpu, exit->reason, insn) : 0;
}

/* RF in the saved flags, SDM Vol. 3, "Saving RIP, RSP, RFLAGS, and SSP": as the event would have pushed it that caused the
 * exit or was being delivered. */
static void settle_resume_flag(CPU *cpu)
{
    const VmExit *exit = &cpu->exit;
    bool rf = cpu->eflags & FLAG_RF;
    if (exit->has_event || exit->reason == EXIT_REASON_EXTERNAL_INTERRUPT)
        rf = interrupt_pushes_rf(cpu, &exit->event);
    else if (exit->has_vectoring)
        rf = interrupt_pushes_rf(cpu, &exit->vectoring);
    else if (exit->by_instruction)
        rf = false;
    else if (exit->reason == EXIT_REASON_EPT_VIOLATION || exit->reason == EXIT_REASON_EPT_MISCONFIGURATION)
        rf = true;
    cpu->eflags = (cpu->eflags & ~FLAG_RF) | (rf ? FLAG_RF : 0);
}

int vmx_leave(CPU *cpu)
{
    const uint32_t reason = cpu->exit.reason;
    const bool by_nmi = reason == EXIT_REASON_EXCEPTION_OR_NMI && cpu->exit.event.type == EVENT_NMI;
    cpu->vmx.exit_cycle = clock_now(cpu->clock);
    cpu->vmx.exit_reason = reason;
    if (cpu->hook)
        cpu->hook(cpu->hook_owner, HOOK_VM_EXIT, reason, 0, cpu->exit.qualification);
    record_information(cpu);
    settle_resume_flag(cpu);
    vmx_timer_stop(cpu);
    guest_state_save(cpu);
    vmx_transition(cpu, TRANSITION_EXIT, reason, cpu->exit.qualification);
    cpu->vmx.exits[reason].count++;
    cpu->clock->left -= cpu->model->vmx.exit_clocks[reason] ? cpu->model->vmx.exit_clocks[reason] : 1;
    cpu->fault.type = EVENT_HARDWARE_EXCEPTION;
    cpu->injecting = cpu->iret_unblocked = 0;
    cpu->vmx.inject = cpu->vmx.trap_flag_due = cpu->vmx.tpr_due = 0;
    cpu->vmx.injected_length = 0;
    __atomic_and_fetch(&cpu->requests, ~REQUEST_VMX, __ATOMIC_RELAXED);

    cpu->non_root = 0; /* IA32_TSC is stored without the guest's offset */
    if (msr_area_store(cpu, VMCS(cpu, VM_EXIT_MSR_STORE_ADDRESS), (uint32_t)VMCS(cpu, VM_EXIT_MSR_STORE_COUNT)))
        return vmx_abort(cpu, 1);
    const bool nmi_blocked = by_nmi || (cpu->nmi_blocked && !(pin_controls(cpu) & PIN_VIRTUAL_NMIS));
    if (!host_state_load(cpu))
        return vmx_abort(cpu, 2);
    cpu->nmi_blocked = nmi_blocked;
    if (msr_area_load(cpu, VMCS(cpu, VM_EXIT_MSR_LOAD_ADDRESS), (uint32_t)VMCS(cpu, VM_EXIT_MSR_LOAD_COUNT)))
        return vmx_abort(cpu, 4);
    return STATUS_OK;
}

/* --- what is due in a guest before its next instruction, in the order of SDM Vol. 3, "Priority Among Simultaneous
 * Exceptions and Interrupts" and "Other Causes of VM Exits" --- */

static bool interruptible(const CPU *cpu) { return (cpu->eflags & FLAG_IF) && !cpu->shadow; }

int vmx_due_before_traps(CPU *cpu)
{
    if (cpu->vmx.tpr_due)
        return vm_exit(cpu, EXIT_REASON_TPR_BELOW_THRESHOLD, 0);
    if (cpu->vmx.trap_flag_due)
        return vm_exit(cpu, EXIT_REASON_MONITOR_TRAP_FLAG, 0);
    return STATUS_OK;
}

int vmx_due_after_traps(CPU *cpu)
{
    const bool waits = cpu->activity == ACTIVITY_WAIT_FOR_SIPI;
    if (cpu->vmx.timer_running && !waits && clock_now(cpu->clock) >= cpu->vmx.timer_deadline)
        return vm_exit(cpu, EXIT_REASON_VMX_PREEMPTION_TIMER_EXPIRED, 0);
    if (guest_proc(cpu, PROC_NMI_WINDOW_EXITING) && !cpu->nmi_blocked && !(cpu->shadow & SHADOW_MOV_SS) && !waits)
        return vm_exit(cpu, EXIT_REASON_NMI_WINDOW, 0);
    return STATUS_OK;
}

int vmx_due_interrupt_window(CPU *cpu)
{
    if (guest_proc(cpu, PROC_INTERRUPT_WINDOW_EXITING) && interruptible(cpu) && cpu->activity <= ACTIVITY_HLT)
        return vm_exit(cpu, EXIT_REASON_INTERRUPT_WINDOW, 0);
    return STATUS_OK;
}
