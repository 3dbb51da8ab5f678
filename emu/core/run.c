/* The run loop: runs blocks up to the horizon, and between instructions looks at what else is due: events, limits,
 * debug traps, interrupts, hooks. Here too are the ends of blocks that bodies tail-call. */
#include "block.h"
#include "exec.h"

/* --- ends of blocks --- */

/* Everything that handlers keep in registers goes back to the CPU. */
static int64_t leave(CPU *cpu, int64_t left, int64_t fr, int64_t fd, uint64_t cf, int64_t status)
{
    cpu->clock->left = left;
    cpu->fr = fr;
    cpu->fd = fd;
    cpu->cf = cf;
    return status;
}

COLD int64_t exit_after(ARGS)
{
    cpu->rip = insn_next_rip(cpu, insn);
    cpu->instructions += insn->idx + 1u;
    return leave(cpu, left - insn->cum, fr, fd, cf, STATUS_BRANCH);
}

COLD int64_t exit_fault(ARGS)
{
    cpu->rip = insn_rip(cpu, insn);
    cpu->instructions += insn->idx;
    return leave(cpu, left - cum_before(insn), fr, fd, cf, STATUS_FAULT);
}

int64_t exit_branch(ARGS)
{
    cpu->instructions += insn->idx + 1u;
    return leave(cpu, left - insn->cum, fr, fd, cf, STATUS_BRANCH);
}

COLD int64_t exit_stale(ARGS)
{
    cpu->rip = insn_rip(cpu, insn);
    return leave(cpu, left, fr, fd, cf, STATUS_BRANCH);
}

int64_t exit_found(ARGS) { return leave(cpu, left, fr, fd, cf, STATUS_BRANCH); }

/* Where a direct branch goes: operand size cuts it outside 64-bit code. */
static uint64_t direct_target(const CPU *cpu, const Insn *insn)
{
    uint64_t rip = cpu->page_rip + (uint64_t)(int64_t)insn->imm;
    return cpu->code64 ? rip : rip & (insn->osize == OSIZE16 ? 0xffff : 0xffffffff);
}

int64_t exit_target(ARGS)
{
    cpu->rip = direct_target(cpu, insn);
    return leave(cpu, left, fr, fd, cf, STATUS_BRANCH);
}

int64_t exec_undefined(ARGS)
{
    fault_ud(cpu);
    GO(exit_fault);
}

/* Goes to the block at CPU.rip, whose cost of entry is charged where a branch led there. Sets *first for a link. */
COLD static const Insn *find_target(CPU *cpu, int64_t *left, bool branch)
{
    const Insn *first = block_at_rip(cpu);
    if (first && branch)
        *left -= block_of(first)->entry;
    return first;
}

/* Between blocks of one physical page that are cached, branches are linked. */
static bool linkable(const Insn *insn, const Insn *target, uint64_t own_page_rip, const CPU *cpu)
{
    const Insn *own = insn - insn->idx;
    const Block *from = block_of(own), *to = block_of(target);
    return to->fixed && !((from->mode | to->mode) & (MODE_SINGLE | MODE_HOOKS)) && own_page_rip == cpu->page_rip &&
           from->fixed && from->pa >> 12 == to->pa >> 12 && from->window == to->window && from->mode == to->mode &&
           !((from->mode & MODE_HIGH) && insn->osize == OSIZE16);
}

int64_t exec_jmp_rel(ARGS);

/* `jmp $` with nothing pending: takes at once the turns that are left before the horizon. */
static void spin(CPU *cpu, const Insn *insn, int64_t *left)
{
    const int64_t turn = (int64_t)insn->cum + insn->disp + block_of(insn)->entry;
    if (*left > 0) {
        const int64_t turns = (*left + turn - 1) / turn;
        *left -= turns * turn;
        cpu->instructions += (uint64_t)turns;
    }
}

COLD static int64_t jump_slowly(CPU *cpu, const Insn *insn, int64_t *left, bool branch, const Insn **target)
{
    if (cpu->mode & MODE_SINGLE) {
        cpu->charge_target = branch;
        return STATUS_BRANCH;
    }
    const uint64_t page_rip = cpu->page_rip;
    const uint32_t generation = cpu->generation;
    const Insn *first = find_target(cpu, left, branch);
    if (!first)
        return STATUS_FAULT;
    /* A flush on the way has taken the block that the branch is in. */
    if (insn && generation == cpu->generation) {
        if (first == insn && insn->fn == exec_jmp_rel)
            spin(cpu, insn, left);
        else if (linkable(insn, first, page_rip, cpu))
            ((Insn *)(uintptr_t)insn)->link = (int32_t)((const char *)first - (const char *)insn);
    }
    *target = first;
    return *left < block_of(first)->need ? STATUS_BRANCH : STATUS_OK;
}

/* What jump_slowly works on must not be an escaped local of a body: so these are the bodies' last calls, in two parts. */
COLD static int64_t jump_part(ARGS, bool branch, bool may_link)
{
    const Insn *target = NULL;
    int64_t status = jump_slowly(cpu, may_link ? insn : NULL, &left, branch, &target);
    leave(cpu, left, fr, fd, cf, 0);
    cpu->data = (uint64_t)(uintptr_t)target;
    return status;
}

COLD int64_t jump_linked(ARGS)
{
    const uint64_t rip = direct_target(cpu, insn);
    if (unlikely(cpu->code64 ? (uint64_t)((int64_t)(rip << 16) >> 16) != rip : rip > cpu->seg[CS].limit)) {
        /* The branch itself faults: take back what was charged. */
        left += insn->cum + insn->disp;
        cpu->instructions -= insn->idx + 1u;
        fault_gp(cpu, 0);
        GO(exit_fault);
    }
    cpu->rip = rip;
    const int64_t status = jump_part(PASS, true, true);
    if (status != STATUS_OK)
        return status;
    const Insn *target = (const Insn *)(uintptr_t)cpu->data;
    left = cpu->clock->left;
    JUMP_TO(target, target->fn);
}

COLD int64_t jump_dynamic(ARGS)
{
    const int64_t status = jump_part(PASS, true, false);
    if (cpu->data && status >= 0 && !(cpu->mode & MODE_SINGLE)) {
        const Insn *target = (const Insn *)(uintptr_t)cpu->data;
        const uint64_t la = cpu->seg[CS].base + cpu->rip;
        if (block_of(target)->fixed)
            cpu->jump_cache[(la ^ la >> 12) % JUMP_CACHE_SIZE] = (JumpCacheEntry){la << 16 | cpu->jump_key, target};
    }
    if (status != STATUS_OK)
        return status;
    const Insn *target = (const Insn *)(uintptr_t)cpu->data;
    left = cpu->clock->left;
    JUMP_TO(target, target->fn);
}

COLD static int64_t onward_slowly(ARGS)
{
    cpu->rip = cpu->page_rip + insn->off;
    const int64_t status = jump_part(PASS, false, true);
    if (status != STATUS_OK)
        return status;
    const Insn *target = (const Insn *)(uintptr_t)cpu->data;
    left = cpu->clock->left;
    JUMP_TO(target, target->fn);
}

COLD static int64_t exit_onward(ARGS)
{
    cpu->rip = cpu->page_rip + insn->off;
    return leave(cpu, left, fr, fd, cf, STATUS_BRANCH);
}

int64_t exec_onward(ARGS)
{
    left -= insn->cum;
    cpu->instructions += insn->idx;
    if (unlikely(insn->link == 0))
        GO(onward_slowly);
    const Insn *target = (const Insn *)((const char *)insn + insn->link);
    if (unlikely(left < block_of(target)->need))
        GO(exit_onward);
    JUMP_TO(target, target->fn);
}

COLD int64_t exec_hooked(ARGS)
{
    const uint64_t rip = insn_rip(cpu, insn);
    if (cpu->hook_skip == rip) {
        cpu->hook_skip = ~0ull;
        NEXT;
    }
    cpu->rip = rip;
    return leave(cpu, left, fr, fd, cf, STATUS_HOOK);
}

int64_t exec_wide_offset(ARGS)
{
    cpu->r[REG_OFFSET] = insn_imm64(insn);
    NEXT;
}

int64_t run_cold(ARGS)
{
    state_save(PASS);
    const int status = cpu->operation(cpu, insn);
    left = cpu->clock->left + cum_before(insn);
    fr = cpu->fr;
    fd = cpu->fd;
    cf = cpu->cf;
    if (likely(status == STATUS_OK)) {
        if (unlikely(cpu->clock->leave))
            GO(exit_after);
        NEXT;
    }
    if (status == STATUS_BRANCH)
        GO(exit_branch);
    if (status == STATUS_LOOK)
        GO(exit_after);
    exit_fault(PASS);
    return status;
}

/* --- between instructions --- */

static int64_t enter(CPU *cpu, const Insn *first)
{
    int64_t status = first->fn(cpu, first, cpu->clock->left, cpu->fr, cpu->fd, cpu->cf);
#ifdef EMU_TRAMPOLINE
    while (status == STATUS_CALL)
        status = cpu->pending.fn(cpu, cpu->pending.insn, cpu->pending.left, cpu->pending.fr, cpu->pending.fd,
                                 cpu->pending.cf);
#endif
    return status;
}

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
    cpu->rep_resumed = 0;
    if (cpu->raise_faults) {
        cpu->fault = *event;
        const bool debug = event->vector == VECTOR_DB || event->type != EVENT_HARDWARE_EXCEPTION;
        return debug ? STOP_BREAKPOINT : STOP_FAULT;
    }
    if (cpu->hook)
        cpu->hook(cpu->hook_owner, HOOK_INTERRUPT, event->vector, event->type, cpu->rip);
    cpu->activity = ACTIVITY_ACTIVE;
    return interrupt_deliver(cpu, event, cpu->rip) == STATUS_SHUTDOWN ? STOP_TRIPLE_FAULT : GO_ON;
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
            event = (Fault){.vector = VECTOR_DB, .type = EVENT_HARDWARE_EXCEPTION, .is_fault = 1};
            return deliver(cpu, &event);
        }
    }
    *again = false;
    return GO_ON;
}

/* Runs one block, or one instruction where something must be looked at after it. */
static int advance(CPU *cpu, uint32_t flags)
{
    const bool trace = cpu->eflags & FLAG_TF;
    const bool resume = cpu->eflags & FLAG_RF;
    bool single = trace || resume || cpu->shadow || cpu->breakpoints || (flags & RUN_STEP);
    cpu->shadow = 0;
    cpu->trap_suppressed = 0;
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
        status = enter(cpu, first);
    }
    if (single)
        set_single(cpu, false);
    if (likely(status >= 0)) {
        if (resume) /* RF holds for one instruction (IRET sets it anew by loading it) */
            cpu->eflags &= ~(cpu->rf_loaded ? 0 : FLAG_RF);
        cpu->rf_loaded = 0;
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
    case STATUS_HOOK:
        cpu->hook_skip = cpu->rip;
        cpu->shadow = 0;
        if (cpu->hook)
            cpu->hook(cpu->hook_owner, HOOK_INSTRUCTION, cpu->seg[CS].base + cpu->rip, 0, 0);
        return cpu->requests & REQUEST_STOP ? STOP_HOOK : GO_ON;
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
