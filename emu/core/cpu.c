/* The processor as a whole: its life, its mode, its flags, its faults and wires. */
#include <stdlib.h>

#include "block.h"
#include "flags.h"

/* The processor, its tables and (behind them) its block cache lie in one piece of memory. */
typedef struct Tables {
    CPU cpu;
    TlbContext contexts[TLB_CONTEXTS];
    _Alignas(PAGE_SIZE) TlbEntry tlb[TLB_CONTEXTS][2][TLB_SIZE];
    TlbEntry none[TLB_SIZE];
    VmTransition transitions[TRANSITIONS];
    JumpCacheEntry jumps[JUMP_CACHE_SIZE];
} Tables;

size_t cpu_bytes(void) { return sizeof(Tables) + blocks_bytes(); }

size_t cpu_hot_bytes(void) { return offsetof(Tables, tlb); }

CPU *cpu_create(Bus *bus, Clock *clock, const Model *model, void *memory)
{
    struct CPU **cpus = realloc(bus->cpus, (bus->cpu_count + 1) * sizeof *cpus);
    if (!cpus)
        return NULL;
    bus->cpus = cpus;
    Tables *tables = memory;
    CPU *cpu = &tables->cpu;
    blocks_create(cpu, tables + 1);
    cpu->bus = bus;
    cpu->clock = clock;
    cpu->model = model;
    cpu->clocks = model->clocks;
    cpu->event_clocks = &model->event_clocks;
    for (unsigned i = 0; i < TLB_CONTEXTS; i++) {
        tables->contexts[i].supervisor = tables->tlb[i][0];
        tables->contexts[i].user = tables->tlb[i][1];
    }
    cpu->contexts = cpu->context = tables->contexts;
    cpu->context->used = ++cpu->context_switches;
    cpu->transitions = tables->transitions;
    cpu->tlb_supervisor = cpu->context->supervisor;
    cpu->tlb_user = cpu->context->user;
    cpu->tlb_none = tables->none;
    cpu->jump_cache = tables->jumps;
    cpu->address_mask[0] = 0xffff;
    cpu->address_mask[1] = 0xffffffff;
    cpu->address_mask[2] = ~0ull;
    bus->cpus[bus->cpu_count++] = cpu;
    cpu_reset(cpu);
    return cpu;
}

void cpu_destroy(CPU *cpu)
{
    Bus *bus = cpu->bus;
    vmx_reset(cpu); /* its timer must not outlive it */
    for (uint32_t i = 0; i < bus->cpu_count; i++)
        if (bus->cpus[i] == cpu) {
            bus->cpus[i] = bus->cpus[--bus->cpu_count];
            break;
        }
}

/* SDM Vol. 3, "Processor State After Reset". */
void cpu_reset(CPU *cpu)
{
    cpu->cr0 = CR0_CD | CR0_NW;
    cpu->apic_base = 0xfee00900;
    cpu->tsc_offset = 0 - clock_now(cpu->clock);
    vmx_reset(cpu);
    cpu->pat = 0x0007040600070406;
    cpu->debugctl = cpu->bios_sign_id = 0;
    cpu->misc_enable = cpu->model->msrs.misc_enable;
    cpu->last_branches = (LastBranches){0};
    cpu->sysenter_cs = cpu->sysenter_esp = cpu->sysenter_eip = 0;
    cpu->star = cpu->lstar = cpu->cstar = cpu->fmask = cpu->kernel_gs_base = cpu->tsc_aux = 0;
    cpu->fpu = (Fpu){.control = FPU_CONTROL_RESET, .valid = 0xff, .mxcsr = MXCSR_INIT};
    cpu_init(cpu);
}

void cpu_init(CPU *cpu)
{
    memset(cpu->r, 0, sizeof cpu->r);
    cpu->r[RDX] = cpu->model->reset_edx;
    cpu->rip = 0xfff0;
    cpu->eflags = FLAG_ONE;
    cpu_set_flags(cpu, 0, FLAGS_ARITHMETIC);
    cpu->cr0 = (cpu->cr0 & (CR0_CD | CR0_NW)) | CR0_ET;
    if (!cpu->model->has[SINCE_486])
        cpu->cr0 = 0;
    cpu->cr2 = cpu->cr3 = cpu->cr4 = cpu->cr8 = 0;
    cpu->efer = 0;
    memset(cpu->dr, 0, sizeof cpu->dr);
    cpu->dr[6] = 0xffff0ff0;
    cpu->dr[7] = 0x400;
    for (unsigned i = 0; i < SEGMENT_COUNT; i++) {
        cpu->seg[i] = (Segment){.limit = 0xffff, .access = AR_P | AR_S | AR_RW | AR_ACCESSED};
        if (i == LDTR)
            cpu->seg[i].access = AR_P | TYPE_LDT;
        else if (i == TR)
            cpu->seg[i].access = AR_P | TYPE_TSS32_BUSY;
    }
    cpu->seg[CS].selector = 0xf000;
    cpu->seg[CS].base = 0xffff0000;
    cpu->seg[CS].access = AR_P | AR_S | AR_RW | AR_ACCESSED | AR_CODE;
    cpu->gdtr = cpu->idtr = (DescriptorTable){.limit = 0xffff};
    cpu->cpl = 0;
    cpu->shadow = 0;
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->nmi_blocked = 0;
    cpu->trap = 0;
    cpu->rep_resumed = 0;
    cpu->charge_target = 0;
    cpu->monitored = 0;
    cpu->delivering = -1;
    cpu->requests &= REQUEST_INTR | REQUEST_STOP;
    cpu->hook_skip = cpu->fallen_to = ~0ull;
    for (unsigned i = 0; i < SEGMENT_COUNT; i++)
        segment_update(cpu, i);
    tlb_flush_all(cpu);
}

void cpu_update_mode(CPU *cpu)
{
    const unsigned before = cpu->protected_mode | (unsigned)cpu->code64 << 1;
    cpu->long_mode = (cpu->efer & EFER_LMA) != 0;
    cpu->v86 = (cpu->eflags & FLAG_VM) != 0;
    cpu->protected_mode = (cpu->cr0 & CR0_PE) && !cpu->v86;
    const uint32_t code = cpu->seg[CS].access;
    cpu->code64 = cpu->long_mode && (code & AR_L);
    cpu->mode = (cpu->code64 ? MODE_CODE64 : code & AR_DB ? MODE_CODE32 : MODE_CODE16) | (cpu->mode & MODE_SINGLE) |
                (cpu->protected_mode ? 0 : MODE_REAL);
    cpu->default_mask = cpu->address_mask[cpu->mode & MODE_CODE];
    cpu->sp_mask = cpu->code64 ? ~0ull : cpu->seg[SS].access & AR_DB ? 0xffffffff : 0xffff;
    if (before != (cpu->protected_mode | (unsigned)cpu->code64 << 1)) /* limits and rights count for another mode now */
        for (unsigned i = ES; i <= GS; i++)
            segment_update(cpu, i);
    /* Alignment checks, memory hooks and data breakpoints are made by the slow path alone. */
    cpu->breakpoints = (cpu->dr[7] & 0xff) != 0;
    cpu->ports_watched = cpu->breakpoints || guest_proc(cpu, PROC_UNCONDITIONAL_IO_EXITING | PROC_USE_IO_BITMAPS);
    const bool checks = cpu->hooks_memory || cpu->breakpoints ||
                        (cpu->cpl == 3 && (cpu->cr0 & CR0_AM) && (cpu->eflags & FLAG_AC));
    cpu->tlb = checks ? (TlbEntry *)cpu->tlb_none : cpu->cpl == 3 ? cpu->tlb_user : cpu->tlb_supervisor;
    if (cpu->code_base != cpu->seg[CS].base || cpu->code_limit != cpu->seg[CS].limit) {
        cpu->code_base = cpu->seg[CS].base;
        cpu->code_limit = cpu->seg[CS].limit;
        cpu->generation = ++cpu->last_generation;
    }
    /* 10 bits of the generation; when they come round, the jump cache may hold entries of the last time. */
    if (cpu->last_generation > 1023) {
        memset(cpu->jump_cache, 0, JUMP_CACHE_SIZE * sizeof *cpu->jump_cache);
        for (unsigned i = 0; i < TLB_CONTEXTS; i++)
            cpu->contexts[i].generation = 0;
        cpu->generation = cpu->last_generation = 1;
    }
    cpu->jump_key = (uint64_t)cpu->generation << 6 | (cpu->mode & (MODE_CODE | MODE_SINGLE | MODE_REAL)) |
                    (cpu->cpl == 3 ? 16 : 0);
}

uint32_t cpu_flags(const CPU *cpu)
{
    return (cpu->eflags & ~FLAGS_ARITHMETIC) | FLAG_ONE | flags_pack(cpu, cpu->fr, cpu->fd, cpu->cf);
}

void cpu_set_flags(CPU *cpu, uint32_t value, uint32_t mask)
{
    uint32_t flags = (cpu_flags(cpu) & ~mask) | (value & mask);
    flags_unpack(cpu, flags, &cpu->fr, &cpu->fd, &cpu->cf);
    uint32_t others = (flags & ~FLAGS_ARITHMETIC) | FLAG_ONE;
    uint32_t changed = others ^ cpu->eflags;
    cpu->eflags = others;
    if (changed & (FLAG_VM | FLAG_AC))
        cpu_update_mode(cpu);
}

int fault_raise(CPU *cpu, unsigned vector)
{
    cpu->fault = (Fault){.vector = (uint8_t)vector, .type = EVENT_HARDWARE_EXCEPTION};
    return STATUS_FAULT;
}

/* In real-address mode no exception has an error code. SDM Vol. 3, "Information for VM Exits Due to Vectored Events". */
int fault_error(CPU *cpu, unsigned vector, uint32_t error)
{
    cpu->fault = (Fault){.vector = (uint8_t)vector, .type = EVENT_HARDWARE_EXCEPTION, .has_error = (cpu->cr0 & CR0_PE) != 0};
    cpu->fault.error = cpu->fault.has_error ? error : 0;
    return STATUS_FAULT;
}

int fault_page(CPU *cpu, uint64_t la, uint32_t error)
{
    cpu->fault = (Fault){.vector = VECTOR_PF, .type = EVENT_HARDWARE_EXCEPTION, .has_error = 1, .error = error, .address = la};
    return STATUS_FAULT;
}

int vm_exit(CPU *cpu, uint32_t reason, uint64_t qualification)
{
    cpu->fault.type = EVENT_VM_EXIT;
    cpu->exit = (VmExit){.reason = reason, .qualification = qualification};
    return STATUS_VMEXIT;
}

int vm_exit_instruction(CPU *cpu, uint32_t reason, uint64_t qualification)
{
    vm_exit(cpu, reason, qualification);
    cpu->exit.by_instruction = 1;
    return STATUS_VMEXIT;
}

bool vm_exit_wanted(const CPU *cpu, const Fault *event)
{
    const uint64_t *field = cpu->vmx.field;
    if (event->type != EVENT_HARDWARE_EXCEPTION && event->type != EVENT_SOFTWARE_EXCEPTION && event->type != EVENT_ICEBP)
        return false;
    const bool wanted = field[EXCEPTION_BITMAP] >> event->vector & 1;
    if (event->vector != VECTOR_PF || event->type != EVENT_HARDWARE_EXCEPTION)
        return wanted;
    const bool match = (event->error & field[PAGE_FAULT_ERROR_CODE_MASK]) == field[PAGE_FAULT_ERROR_CODE_MATCH];
    return wanted == match;
}

int vm_exit_event(CPU *cpu, const Fault *event)
{
    const bool addressed = event->type == EVENT_HARDWARE_EXCEPTION &&
                           (event->vector == VECTOR_PF || event->vector == VECTOR_DB);
    const Fault kept = *event; /* it may be CPU.fault itself */
    vm_exit(cpu, EXIT_REASON_EXCEPTION_OR_NMI, addressed ? kept.address : 0);
    cpu->exit.has_event = 1;
    cpu->exit.event = kept;
    return STATUS_VMEXIT;
}

void cpu_set_intr(CPU *cpu, bool level)
{
    if (level) {
        cpu_pulse(cpu, REQUEST_INTR);
    } else {
        __atomic_and_fetch(&cpu->requests, ~REQUEST_INTR, __ATOMIC_RELAXED);
    }
}

void cpu_pulse(CPU *cpu, uint32_t request)
{
    __atomic_or_fetch(&cpu->requests, request, __ATOMIC_RELAXED);
    if (request != REQUEST_STOP) /* that one may come from another thread, which must not touch the clock */
        clock_leave(cpu->clock);
}
