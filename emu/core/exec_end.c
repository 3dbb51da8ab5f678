/* The ends of blocks, which bodies tail-call, and the way into the first one. */
#include "block.h"
#include "exec.h"

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
    cpu->rip = cpu->fallen_to = insn_next_rip(cpu, insn);
    cpu->instructions += insn->idx + 1u;
    return leave(cpu, left - insn->cum, fr, fd, cf, STATUS_BRANCH);
}

COLD int64_t exit_fault(ARGS)
{
    cpu->rip = insn_rip(cpu, insn);
    cpu->exit_insn = insn;
    cpu->instructions += insn->idx;
    return leave(cpu, left - cum_before(insn), fr, fd, cf, STATUS_FAULT);
}

int64_t exit_branch(ARGS)
{
    cpu->left_by_branch = 1;
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

/* An escape to the x87 unit (imm: 1) is #NM where that is emulated or another task's, whatever the escape is. */
int64_t exec_undefined(ARGS)
{
    if (insn->imm && (cpu->cr0 & (CR0_EM | CR0_TS)))
        fault_nm(cpu);
    else
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

/* The block that an instruction is in. Its place in it does not count the pseudo-instructions in front, but the last one's
 * does. */
static const Block *block_around(const Insn *insn)
{
    while (insn->fn != exec_onward && insn->fn != exec_onward_hooked)
        insn++;
    return block_of(insn - insn->dst);
}

/* Between blocks of one physical page that are cached, branches are linked. */
static bool linkable(const Insn *insn, const Insn *target, uint64_t own_page_rip, const CPU *cpu)
{
    const Block *from = block_around(insn), *to = block_of(target);
    return to->fixed && !((from->mode | to->mode) & MODE_SINGLE) && own_page_rip == cpu->page_rip &&
           from->fixed && from->pa >> 12 == to->pa >> 12 && from->window == to->window && from->mode == to->mode &&
           !((from->mode & MODE_HIGH) && insn->osize == OSIZE16);
}

Handler_t exec_jmp_rel, exec_nop, exec_pause;

/* Is this a jump to the start of its own block, with nothing but NOP and PAUSE before it? */
static bool is_idle_loop(const Insn *first, const Insn *jump)
{
    if (jump->fn != exec_jmp_rel || block_around(jump) != block_of(first))
        return false;
    while (first->fn == exec_nop || first->fn == exec_pause)
        first++;
    return first == jump;
}

/* An idle loop with nothing pending: takes at once the turns that are left before the horizon. */
static void spin(CPU *cpu, const Insn *first, const Insn *jump, int64_t *left)
{
    const int64_t turn = (int64_t)jump->cum + jump->disp + block_of(first)->entry, need = block_of(first)->need;
    if (*left >= need) {
        const int64_t turns = (*left - need) / turn + 1;
        *left -= turns * turn;
        cpu->instructions += (uint64_t)turns * (jump->idx + 1u);
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
        if (is_idle_loop(first, insn))
            spin(cpu, first, insn, left);
        else if (linkable(insn, first, page_rip, cpu))
            ((Insn *)(uintptr_t)insn)->link = (int32_t)((const char *)first - (const char *)insn);
    }
    *target = first;
    return *left < block_of(first)->need ? STATUS_BRANCH : STATUS_OK;
}

/* The same for bodies: they go on at CPU.target where the status is STATUS_OK. */
COLD static int64_t jump_part(ARGS_AND bool branch, bool may_link)
{
    const Insn *target = NULL;
    int64_t rest = left;
    const int64_t status = jump_slowly(cpu, may_link ? insn : NULL, &rest, branch, &target);
    cpu->target = target;
    return leave(cpu, rest, fr, fd, cf, status);
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
    const int64_t status = jump_part(PASS_AND true, true);
    if (status != STATUS_OK)
        return status;
    left = cpu->clock->left;
    JUMP_TO(cpu->target, cpu->target->fn);
}

COLD int64_t jump_dynamic(ARGS)
{
    const int64_t status = jump_part(PASS_AND true, false);
    const Insn *target = cpu->target;
    if (target && status >= 0) {
        const uint64_t la = cpu->seg[CS].base + cpu->rip;
        if (block_of(target)->fixed)
            cpu->jump_cache[(la ^ la >> 12) % JUMP_CACHE_SIZE] = (JumpCacheEntry){la << 16 | cpu->jump_key, target};
    }
    if (status != STATUS_OK)
        return status;
    left = cpu->clock->left;
    JUMP_TO(cpu->target, cpu->target->fn);
}

COLD static int64_t onward_slowly(ARGS)
{
    cpu->rip = cpu->page_rip + (uint32_t)insn->imm;
    const int64_t status = jump_part(PASS_AND false, true);
    if (status != STATUS_OK)
        return status;
    left = cpu->clock->left;
    JUMP_TO(cpu->target, cpu->target->fn);
}

COLD static int64_t exit_onward(ARGS)
{
    cpu->rip = cpu->page_rip + (uint32_t)insn->imm;
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

COLD int64_t exec_onward_hooked(ARGS)
{
    cpu->fallen_to = cpu->page_rip + (uint32_t)insn->imm;
    GO(exec_onward);
}

COLD int64_t exec_hooked(ARGS)
{
    const uint64_t rip = insn_rip(cpu, insn);
    const bool begins = cpu->fallen_to != rip && !cpu->rep_resumed;
    const unsigned kinds = (unsigned)insn->imm & (begins ? HOOKED_INSTRUCTION | HOOKED_BLOCK : HOOKED_INSTRUCTION);
    cpu->fallen_to = ~0ull;
    if (cpu->hook_skip == rip || !kinds) {
        cpu->hook_skip = ~0ull;
        NEXT;
    }
    cpu->hook_kinds = (uint8_t)kinds;
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

#ifdef EMU_FIXED_REGISTERS
/* The caller's values of the fixed registers come back at the end: the compiler does not save them by itself. */
int64_t exec_enter(CPU *processor, const Insn *first)
{
    CPU *const saved_cpu = cpu;
    const Insn *const saved_insn = insn;
    const int64_t saved_left = left, saved_fr = fr, saved_fd = fd;
    const uint64_t saved_cf = cf;
    cpu = processor;
    insn = first;
    left = processor->clock->left;
    fr = processor->fr;
    fd = processor->fd;
    cf = processor->cf;
    const int64_t status = first->fn();
    cpu = saved_cpu;
    insn = saved_insn;
    left = saved_left;
    fr = saved_fr;
    fd = saved_fd;
    cf = saved_cf;
    return status;
}
#else
int64_t exec_enter(CPU *cpu, const Insn *first)
{
    int64_t status = first->fn(cpu, first, cpu->clock->left, cpu->fr, cpu->fd, cpu->cf);
#ifdef EMU_TRAMPOLINE
    while (status == STATUS_CALL)
        status = cpu->pending.fn(cpu, cpu->pending.insn, cpu->pending.left, cpu->pending.fr, cpu->pending.fd,
                                 cpu->pending.cf);
#endif
    return status;
}
#endif
