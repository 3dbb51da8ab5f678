/* The run loop: runs blocks up to the horizon, and between instructions looks at what else is due: events, limits,
 * debug traps, interrupts, hooks. */
#include "block.h"

static void set_single(CPU *cpu, bool single)
{
    cpu->mode = (cpu->mode & ~MODE_SINGLE) | (single ? MODE_SINGLE : 0);
    cpu->jump_key = (cpu->jump_key & ~(uint64_t)MODE_SINGLE) | (single ? MODE_SINGLE : 0);
}

#define GO_ON -1

/* Delivers an event; the stop code, or GO_ON. */
static int deliver(CPU *cpu, const Fault *event)
{
    cpu->hook_skip = ~0ull;
    if (cpu->raise_faults) {
        cpu->rep_resumed = 0;
        cpu->fault = *event;
        const bool debug = event->vector == VECTOR_DB || event->type != EVENT_HARDWARE_EXCEPTION;
        return debug ? STOP_BREAKPOINT : STOP_FAULT;
    }
    if (cpu->hook)
        cpu->hook(cpu->hook_owner, HOOK_INTERRUPT, event->vector, event->type, cpu->rip);
    cpu->activity = ACTIVITY_ACTIVE;
    const int status = interrupt_deliver(cpu, event, cpu->rip);
    cpu->rep_resumed = 0; /* until then it says that a repeated instruction was interrupted: RF is pushed as 1 */
    return status == STATUS_SHUTDOWN ? STOP_TRIPLE_FAULT : GO_ON;
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
        return deliver(cpu, &event);
    }
    if (cpu->requests & REQUEST_INIT) {
        clear_request(cpu, REQUEST_INIT);
        cpu_init(cpu);
        return GO_ON;
    }
    if (cpu->trap && !(cpu->shadow & SHADOW_MOV_SS)) {
        cpu->dr[6] |= cpu->trap;
        cpu->trap = 0;
        event = (Fault){.vector = VECTOR_DB, .type = EVENT_HARDWARE_EXCEPTION};
        return deliver(cpu, &event);
    }
    if ((cpu->requests & REQUEST_NMI) && !cpu->nmi_blocked && !(cpu->shadow & SHADOW_MOV_SS)) {
        clear_request(cpu, REQUEST_NMI);
        cpu->nmi_blocked = 1;
        event = (Fault){.vector = VECTOR_NMI, .type = EVENT_NMI};
        return deliver(cpu, &event);
    }
    if ((cpu->requests & REQUEST_INTR) && (cpu->eflags & FLAG_IF) && !cpu->shadow && cpu->acknowledge) {
        event = (Fault){.vector = cpu->acknowledge(cpu->interrupt_controller), .type = EVENT_EXTERNAL};
        return deliver(cpu, &event);
    }
    if (unlikely(cpu->breakpoints) && cpu->activity == ACTIVITY_ACTIVE && !(cpu->eflags & FLAG_RF)) {
        uint32_t hit = instruction_breakpoints(cpu);
        if (hit) {
            cpu->dr[6] = (cpu->dr[6] & ~15u) | hit;
            event = (Fault){.vector = VECTOR_DB, .type = EVENT_HARDWARE_EXCEPTION};
            return deliver(cpu, &event);
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
    return cpu->requests & REQUEST_STOP ? STOP_HOOK : GO_ON;
}

/* Runs one block, or one instruction where something must be looked at after it. */
static int advance(CPU *cpu, uint32_t flags)
{
    const bool trace = cpu->eflags & FLAG_TF;
    const bool resume = cpu->eflags & FLAG_RF;
    const uint8_t shadow = cpu->shadow;
    bool single = trace || resume || shadow || cpu->breakpoints || (flags & RUN_STEP);
    cpu->shadow = 0;
    cpu->trap_suppressed = cpu->rf_loaded = 0;
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
        if (trace && !cpu->trap_suppressed && !(cpu->shadow & SHADOW_MOV_SS))
            cpu->trap |= DR6_BS;
        return GO_ON;
    }
    switch (status) {
    case STATUS_FAULT: {
        const Fault fault = cpu->fault;
        cpu->trap = 0;
        return deliver(cpu, &fault);
    }
    case STATUS_SHUTDOWN: return STOP_TRIPLE_FAULT;
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
            if ((flags & (RUN_STOP_HLT | RUN_STEP)) || !(cpu->eflags & FLAG_IF) || horizon == CYCLE_NEVER)
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
