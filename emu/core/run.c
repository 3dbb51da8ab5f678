/* The run loop: runs blocks up to the horizon, and between instructions looks at what else is due: events, limits,
 * debug traps, interrupts, hooks. */
#include "block.h"

static void set_single(CPU *cpu, bool single)
{
    cpu->mode = (cpu->mode & ~MODE_SINGLE) | (single ? MODE_SINGLE : 0);
    cpu->jump_key = (cpu->jump_key & ~(uint64_t)MODE_SINGLE) | (single ? MODE_SINGLE : 0);
}

#define GO_ON -1

/* Acts on a VM exit; the stop code, or GO_ON. */
static int leave_guest(CPU *cpu)
{
    cpu->hook_skip = ~0ull;
    return vmx_leave(cpu) == STATUS_SHUTDOWN ? STOP_TRIPLE_FAULT : GO_ON;
}

/* A guest that shuts down is its VMM's business. */
static int shut_down(CPU *cpu)
{
    if (!cpu->non_root)
        return STOP_TRIPLE_FAULT;
    cpu->activity = ACTIVITY_ACTIVE;
    vm_exit(cpu, EXIT_REASON_TRIPLE_FAULT, 0);
    return leave_guest(cpu);
}

/* Is the VM exit that was made the event's own? If not it came up while the event was delivered: then the processor is
 * active and nothing blocks (SDM Vol. 3, "Architectural State Before a VM Exit"). */
static bool exits_directly(const CPU *cpu, const Fault *event)
{
    const VmExit *exit = &cpu->exit;
    return !exit->has_vectoring && exit->has_event && exit->event.vector == event->vector && exit->event.type == event->type;
}

/* Delivers an event; the stop code, or GO_ON. `shadow`: what blocks, if it becomes a VM exit. */
static int deliver(CPU *cpu, const Fault *event, uint8_t shadow)
{
    cpu->hook_skip = ~0ull;
    if (cpu->raise_faults && !(cpu->non_root && !cpu->injecting && vm_exit_wanted(cpu, event))) {
        cpu->rep_resumed = 0;
        cpu->fault = *event;
        const bool debug = event->vector == VECTOR_DB || event->type != EVENT_HARDWARE_EXCEPTION;
        if (event->vector == VECTOR_DB && event->type == EVENT_HARDWARE_EXCEPTION)
            cpu->dr[6] |= event->address; /* a trap is over now: what it was for would be lost */
        return debug ? STOP_BREAKPOINT : STOP_FAULT;
    }
    if (cpu->hook)
        cpu->hook(cpu->hook_owner, HOOK_INTERRUPT, event->vector, event->type, cpu->rip);
    const uint8_t activity = cpu->activity;
    cpu->activity = ACTIVITY_ACTIVE;
    const int status = interrupt_deliver(cpu, event, cpu->rip);
    if (unlikely(status == STATUS_VMEXIT)) {
        const bool directly = exits_directly(cpu, event);
        cpu->activity = directly ? activity : ACTIVITY_ACTIVE;
        cpu->shadow = directly ? shadow : 0;
        return leave_guest(cpu);
    }
    cpu->shadow = 0;
    cpu->rep_resumed = 0; /* until then it says that a repeated instruction was interrupted: RF is pushed as 1 */
    return status == STATUS_SHUTDOWN ? shut_down(cpu) : GO_ON;
}

/* The event that VM entry injects comes before all others. */
static int inject(CPU *cpu)
{
    Fault event = vmx_injected(cpu);
    const bool software = event.type == EVENT_SOFTWARE_INTERRUPT || event.type == EVENT_SOFTWARE_EXCEPTION ||
                          event.type == EVENT_ICEBP;
    uint64_t next_rip = cpu->rip;
    cpu->vmx.inject = 0;
    if (event.type == 7) { /* the monitor trap flag */
        cpu->vmx.trap_flag_due = 1;
        return GO_ON;
    }
    if (software) {
        cpu->vmx.injected_length = (uint8_t)cpu->vmx.field[VM_ENTRY_INSTRUCTION_LENGTH];
        next_rip += cpu->vmx.injected_length;
    }
    if (event.type == EVENT_NMI)
        cpu->nmi_blocked = 1;
    if (cpu->hook)
        cpu->hook(cpu->hook_owner, HOOK_INTERRUPT, event.vector, event.type, next_rip);
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->shadow = 0; /* SDM Vol. 3, "Interruptibility State" of VM entry: nothing blocks where an event is injected */
    cpu->injecting = 1;
    cpu->exit_insn = NULL;
    const int status = interrupt_deliver(cpu, &event, next_rip);
    if (status == STATUS_VMEXIT)
        return leave_guest(cpu);
    cpu->injecting = 0;
    if (status == STATUS_SHUTDOWN)
        return shut_down(cpu);
    cpu->vmx.injected_length = 0;
    if (status == STATUS_FAULT) { /* an injected software interrupt whose delivery faults */
        const Fault fault = cpu->fault;
        return deliver(cpu, &fault, 0);
    }
    if (guest_proc(cpu, PROC_MONITOR_TRAP_FLAG))
        cpu->vmx.trap_flag_due = 1;
    return GO_ON;
}

static void clear_request(CPU *cpu, uint32_t request)
{
    __atomic_and_fetch(&cpu->requests, ~request, __ATOMIC_RELAXED);
}

/* Instruction breakpoints, SDM Vol. 3, "Instruction-Breakpoint Exception Condition": a fault, held off by RF. */
static uint32_t instruction_breakpoints(const CPU *cpu)
{
    uint32_t hit = 0;
    const uint64_t la = cpu->seg[CS].base + cpu->rip;
    for (unsigned i = 0; i < 4; i++)
        if ((cpu->dr[7] >> (2 * i) & 3) && (cpu->dr[7] >> (16 + 4 * i) & 15) == 0 && cpu->dr[i] == la)
            hit |= 1u << i;
    return hit;
}

/* An interrupt or NMI that the VMM wants: a VM exit in place of its delivery. */
static int exit_on_event(CPU *cpu, uint32_t reason, Fault event, bool has_event)
{
    vm_exit(cpu, reason, 0);
    cpu->exit.has_event = has_event;
    cpu->exit.event = event;
    return leave_guest(cpu);
}

/* Is an external interrupt taken now? With external-interrupt exiting IF does not hold it off. */
static bool takes_interrupt(const CPU *cpu)
{
    if (!(cpu->requests & REQUEST_INTR) || cpu->shadow || cpu->activity > ACTIVITY_HLT)
        return false;
    return guest_pin(cpu, PIN_EXTERNAL_INTERRUPT_EXITING) || ((cpu->eflags & FLAG_IF) && cpu->acknowledge);
}

static int take_interrupt(CPU *cpu)
{
    Fault event = {.type = EVENT_EXTERNAL};
    const bool exits = guest_pin(cpu, PIN_EXTERNAL_INTERRUPT_EXITING);
    const bool acknowledges = !exits || (cpu->vmx.field[VM_EXIT_CONTROLS] & EXIT_ACKNOWLEDGE_INTERRUPT_ON_EXIT);
    if (acknowledges && cpu->acknowledge)
        event.vector = cpu->acknowledge(cpu->interrupt_controller);
    return exits ? exit_on_event(cpu, EXIT_REASON_EXTERNAL_INTERRUPT, event, acknowledges) : deliver(cpu, &event, 0);
}

/* What comes before the next instruction, in the order of SDM Vol. 3, "Prioritization of Concurrent Events". *again: the
 * state has changed, look once more. */
static int attend(CPU *cpu, bool *again)
{
    Fault event;
    *again = true;
    if (cpu->requests & REQUEST_RESET) {
        clear_request(cpu, REQUEST_RESET);
        return STOP_RESET;
    }
    if ((cpu->requests & REQUEST_MC) && (cpu->cr4 & CR4_MCE)) {
        clear_request(cpu, REQUEST_MC);
        event = (Fault){.vector = VECTOR_MC, .type = EVENT_HARDWARE_EXCEPTION};
        return deliver(cpu, &event, cpu->shadow);
    }
    if (cpu->requests & REQUEST_MC) { /* SDM Vol. 3, "Interrupt 18": without CR4.MCE it is a shutdown */
        clear_request(cpu, REQUEST_MC);
        return shut_down(cpu);
    }
    if (unlikely(cpu->vmx.inject))
        return inject(cpu);
    /* INIT is blocked in VMX root operation, and a VM exit in a guest; one that waits for SIPI keeps it off. */
    if ((cpu->requests & REQUEST_INIT) && !(cpu->vmx.on && !cpu->non_root) &&
        !(cpu->non_root && cpu->activity == ACTIVITY_WAIT_FOR_SIPI)) {
        clear_request(cpu, REQUEST_INIT);
        if (cpu->non_root)
            return exit_on_event(cpu, EXIT_REASON_INIT_SIGNAL, (Fault){0}, false);
        cpu_init(cpu);
        return GO_ON;
    }
    if (unlikely(cpu->non_root) && vmx_due_before_traps(cpu))
        return leave_guest(cpu);
    if (cpu->trap && !(cpu->shadow & SHADOW_MOV_SS)) {
        event = (Fault){.vector = VECTOR_DB, .type = EVENT_HARDWARE_EXCEPTION, .address = cpu->trap};
        cpu->trap = 0;
        return deliver(cpu, &event, cpu->shadow);
    }
    if (unlikely(cpu->non_root) && vmx_due_after_traps(cpu))
        return leave_guest(cpu);
    /* With NMI exiting NMIs are not blocked by virtual-NMI blocking. */
    if ((cpu->requests & REQUEST_NMI) && !(cpu->shadow & SHADOW_MOV_SS) && cpu->activity != ACTIVITY_WAIT_FOR_SIPI &&
        (!cpu->nmi_blocked || guest_pin(cpu, PIN_VIRTUAL_NMIS))) {
        clear_request(cpu, REQUEST_NMI);
        event = (Fault){.vector = VECTOR_NMI, .type = EVENT_NMI};
        if (guest_pin(cpu, PIN_NMI_EXITING))
            return exit_on_event(cpu, EXIT_REASON_EXCEPTION_OR_NMI, event, true);
        cpu->nmi_blocked = 1;
        return deliver(cpu, &event, 0);
    }
    if (unlikely(cpu->non_root) && vmx_due_interrupt_window(cpu))
        return leave_guest(cpu);
    if (takes_interrupt(cpu))
        return take_interrupt(cpu);
    if (unlikely(cpu->breakpoints) && cpu->activity == ACTIVITY_ACTIVE && !(cpu->eflags & FLAG_RF)) {
        uint32_t hit = instruction_breakpoints(cpu);
        if (hit) {
            if (!(cpu->non_root && cpu->vmx.field[EXCEPTION_BITMAP] >> VECTOR_DB & 1))
                cpu->dr[6] &= ~15ull;
            event = (Fault){.vector = VECTOR_DB, .type = EVENT_HARDWARE_EXCEPTION, .address = hit};
            return deliver(cpu, &event, 0);
        }
    }
    *again = false;
    return GO_ON;
}

/* Hooks before the instruction at RIP, of which nothing has been done yet: what is held off until after it still is. */
static int call_hooks(CPU *cpu, uint8_t shadow)
{
    const uint64_t rip = cpu->rip;
    cpu->shadow = shadow;
    cpu->hook_skip = rip;
    if (cpu->hook && (cpu->hook_kinds & HOOKED_BLOCK))
        cpu->hook(cpu->hook_owner, HOOK_BLOCK, cpu->seg[CS].base + rip, 0, 0);
    /* The callback may have sent execution elsewhere. */
    if (cpu->hook && (cpu->hook_kinds & HOOKED_INSTRUCTION) && cpu->hook_skip == rip)
        cpu->hook(cpu->hook_owner, HOOK_INSTRUCTION, cpu->seg[CS].base + rip, 0, 0);
    /* One that sends it elsewhere each time lets no time pass: the host looks whether the run is to end. */
    return cpu->requests & REQUEST_STOP || cpu->hook_skip != rip ? STOP_HOOK : GO_ON;
}

/* Runs one block, or one instruction where something must be looked at after it. */
static int advance(CPU *cpu, uint32_t flags)
{
    const bool trace = cpu->eflags & FLAG_TF;
    const bool resume = cpu->eflags & FLAG_RF;
    const bool trap_flag = guest_proc(cpu, PROC_MONITOR_TRAP_FLAG);
    const uint8_t shadow = cpu->shadow;
    const uint32_t held = cpu->trap; /* what MOV SS holds off */
    const uint64_t branches = cpu->debugctl; /* are watched */
    bool single = trace || resume || shadow || cpu->breakpoints || (flags & RUN_STEP) || trap_flag || branches;
    BranchStart start = {0};
    if (unlikely(branches))
        start = branch_watch(cpu);
    cpu->in_shadow = shadow;
    cpu->shadow = 0;
    cpu->trap_suppressed = cpu->rf_loaded = cpu->iret_unblocked = 0;
    cpu->exit_insn = NULL;
    if (single)
        set_single(cpu, true);
    const Insn *first = block_at_rip(cpu);
    int64_t status = STATUS_FAULT;
    if (likely(first != NULL)) {
        if (!single && cpu->clock->left < block_of(first)->need) {
            single = true;
            set_single(cpu, true);
            first = block_at_rip(cpu);
        }
        status = exec_enter(cpu, first);
    }
    if (single)
        set_single(cpu, false);
    if (likely(status >= 0)) {
        cpu->hook_skip = ~0ull; /* the hook it stood for may have been removed meanwhile */
        if (resume) /* RF holds for one instruction (IRET sets it anew by loading it) */
            cpu->eflags &= ~(cpu->rf_loaded ? 0 : FLAG_RF);
        const bool taken = unlikely(branches) && branch_was_taken(cpu, &start);
        if (taken)
            branch_record(cpu, &start);
        if (trace && !cpu->trap_suppressed && !(cpu->shadow & SHADOW_MOV_SS) && (taken || !(branches & DEBUGCTL_BTF)))
            cpu->trap |= DR6_BS;
        if (unlikely(trap_flag && cpu->non_root)) {
            cpu->vmx.trap_flag_due = 1;
            cpu_pulse(cpu, REQUEST_VMX);
        }
        return GO_ON;
    }
    if (status == STATUS_FAULT && cpu->fault.type == EVENT_VM_EXIT)
        status = STATUS_VMEXIT;
    switch (status) {
    case STATUS_FAULT: {
        const Fault fault = cpu->fault;
        cpu->trap = held;
        const int stop = deliver(cpu, &fault, cpu->in_shadow);
        cpu->trap &= ~held;
        if (unlikely(trap_flag && cpu->non_root)) {
            cpu->vmx.trap_flag_due = 1;
            cpu_pulse(cpu, REQUEST_VMX);
        }
        return stop;
    }
    case STATUS_VMEXIT:
        cpu->shadow = cpu->exit.has_vectoring ? 0 : cpu->in_shadow; /* INT n and its like are delivered */
        cpu->trap = held;
        return leave_guest(cpu);
    case STATUS_SHUTDOWN: return shut_down(cpu);
    case STATUS_RAISED: return STOP_BREAKPOINT;
    case STATUS_HOOK: return call_hooks(cpu, shadow);
    default: return STOP_FAULT;
    }
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

StopCode cpu_run(CPU *cpu, uint64_t cycle_limit, uint64_t instruction_limit, uint32_t flags)
{
    Clock *clock = cpu->clock;
    cpu->raise_faults = (flags & RUN_RAISE) != 0;
    if (flags & RUN_STEP)
        instruction_limit = 1;
    const uint64_t goal = instruction_limit == UINT64_MAX ? UINT64_MAX : cpu->instructions + instruction_limit;
    bool stepped = false;
    for (;;) {
        clock->leave = 0;
        /* A taken branch is charged for the instruction it goes to before anything else happens. */
        if (cpu->charge_target) {
            cpu->charge_target = 0;
            if (cpu->event_clocks->next_component) {
                const Insn *first = block_at_rip(cpu);
                if (first)
                    clock->left -= block_of(first)->entry;
            }
        }
        const uint64_t now = clock_now(clock);
        if (clock_next(clock) <= now)
            clock_run_due(clock);
        if (unlikely(cpu->requests & REQUEST_STOP)) {
            clear_request(cpu, REQUEST_STOP);
            return STOP_REQUEST;
        }
        if (now >= cycle_limit || cpu->instructions >= goal || stepped)
            return STOP_LIMIT;
        const uint64_t horizon = least(clock_next(clock), cycle_limit);
        const uint64_t remaining = goal - cpu->instructions;
        /* Every instruction costs a clock or more. */
        clock_set_horizon(clock, least(horizon, remaining < INT64_MAX - now ? now + remaining : (uint64_t)INT64_MAX));

        bool again = false;
        if (unlikely(cpu->requests | cpu->trap | cpu->breakpoints)) {
            int stop = attend(cpu, &again);
            if (stop != GO_ON)
                return (StopCode)stop;
            if (again) {
                stepped = (flags & RUN_STEP) && cpu->activity == ACTIVITY_ACTIVE && cpu->trap;
                continue;
            }
        }
        if (unlikely(cpu->activity != ACTIVITY_ACTIVE)) {
            const bool guest = cpu->non_root && clock_next(clock) != CYCLE_NEVER; /* its timer or the VMM may end it */
            if (!guest && ((flags & (RUN_STOP_HLT | RUN_STEP)) || !(cpu->eflags & FLAG_IF) || horizon == CYCLE_NEVER))
                return STOP_HALTED;
            clock_set_horizon(clock, horizon);
            clock->left = 0;
            continue;
        }
        if (unlikely(clock->leave))
            continue;
        int stop = advance(cpu, flags);
        if (stop != GO_ON)
            return (StopCode)stop;
        stepped = (flags & RUN_STEP) && cpu->hook_skip == ~0ull;
    }
}
