/* Task switches. SDM Vol. 3, "Task Management": "Task Switching" has the order of steps, table "Exception Conditions
 * Checked During a Task Switch" the checks. The fields are those of "Task-State Segment (TSS)" and "16-Bit Task-State
 * Segment (TSS)". */
#include "segment.h"

/* Where things lie in the two kinds of TSS. */
typedef struct Layout {
    unsigned size;      /* of a register in bytes */
    unsigned limit;     /* least limit */
    unsigned ip, flags, registers, segments, ldt;
    unsigned segment_count; /* ES CS SS DS, and FS GS */
    unsigned segment_step;
} Layout;

static const Layout layout16 = {.size = 2, .limit = 0x2b, .ip = 0x0e, .flags = 0x10, .registers = 0x12, .segments = 0x22,
                                .ldt = 0x2a, .segment_count = 4, .segment_step = 2};
static const Layout layout32 = {.size = 4, .limit = 0x67, .ip = 0x20, .flags = 0x24, .registers = 0x28, .segments = 0x48,
                                .ldt = 0x60, .segment_count = 6, .segment_step = 4};
#define TSS32_CR3 0x1cu
#define TSS32_TRAP 0x64u
#define TSS_BUSY 2u /* bit of the descriptor's type */

static const Layout *layout_of(uint32_t access) { return access & 8 ? &layout32 : &layout16; }

/* What a TSS holds, read as a whole before anything changes. */
typedef struct TaskImage {
    uint32_t ip, flags, cr3, registers[8];
    uint16_t segments[6], ldt;
    bool trap;
} TaskImage;

static int system_read(CPU *cpu, uint64_t la, unsigned size, uint32_t *value)
{
    if (linear_read(cpu, la, size, ACCESS_READ | ACCESS_SYSTEM))
        return STATUS_FAULT;
    *value = (uint32_t)cpu->data;
    return STATUS_OK;
}

static int read_image(CPU *cpu, uint64_t base, const Layout *layout, TaskImage *image)
{
    uint32_t value;
    *image = (TaskImage){0};
    if (system_read(cpu, base + layout->ip, layout->size, &image->ip) ||
        system_read(cpu, base + layout->flags, layout->size, &image->flags))
        return STATUS_FAULT;
    for (unsigned i = 0; i < 8; i++) {
        if (system_read(cpu, base + layout->registers + i * layout->size, layout->size, &image->registers[i]))
            return STATUS_FAULT;
        if (layout->size == 2) /* the manual leaves the upper halves open */
            image->registers[i] |= 0xffff0000;
    }
    for (unsigned i = 0; i < layout->segment_count; i++) {
        if (system_read(cpu, base + layout->segments + i * layout->segment_step, 2, &value))
            return STATUS_FAULT;
        image->segments[i] = (uint16_t)value;
    }
    if (system_read(cpu, base + layout->ldt, 2, &value))
        return STATUS_FAULT;
    image->ldt = (uint16_t)value;
    if (layout->size == 4) {
        if (system_read(cpu, base + TSS32_CR3, 4, &image->cr3) || system_read(cpu, base + TSS32_TRAP, 2, &value))
            return STATUS_FAULT;
        image->trap = value & 1;
    }
    return STATUS_OK;
}

/* CR3 and the LDT selector of the old TSS are not written. */
static int save_state(CPU *cpu, uint64_t base, const Layout *layout, uint32_t flags, uint64_t rip)
{
    if (linear_write(cpu, base + layout->ip, layout->size, rip, ACCESS_SYSTEM) ||
        linear_write(cpu, base + layout->flags, layout->size, flags, ACCESS_SYSTEM))
        return STATUS_FAULT;
    for (unsigned i = 0; i < 8; i++)
        if (linear_write(cpu, base + layout->registers + i * layout->size, layout->size, (uint32_t)cpu->r[i], ACCESS_SYSTEM))
            return STATUS_FAULT;
    for (unsigned i = 0; i < layout->segment_count; i++)
        if (linear_write(cpu, base + layout->segments + i * layout->segment_step, 2, cpu->seg[i].selector, ACCESS_SYSTEM))
            return STATUS_FAULT;
    return STATUS_OK;
}

/* Can [base, base + size) be written? A TSS is smaller than a page, so that it lies in two at most. */
static int probe(CPU *cpu, uint64_t base, unsigned size)
{
    if (linear_probe_write(cpu, base, 1, ACCESS_SYSTEM))
        return STATUS_FAULT;
    return linear_probe_write(cpu, base + size - 1, 1, ACCESS_SYSTEM);
}

/* The busy bit of a TSS descriptor in the GDT. */
static int set_busy(CPU *cpu, uint16_t selector, bool busy)
{
    const uint64_t place = cpu->gdtr.base + (selector & 0xfff8) + 5;
    if (linear_read(cpu, place, 1, ACCESS_READ | ACCESS_SYSTEM))
        return STATUS_FAULT;
    const uint64_t value = busy ? cpu->data | TSS_BUSY : cpu->data & ~(uint64_t)TSS_BUSY;
    return linear_write(cpu, place, 1, value, ACCESS_SYSTEM);
}

static int load_ldt(CPU *cpu, uint16_t selector, uint32_t ext)
{
    Descriptor d;
    segment_set_null(cpu, LDTR, selector);
    if (is_null(selector))
        return STATUS_OK;
    if (selector & ERROR_TI)
        return fault_ts(cpu, selector_error(selector, ext));
    if (descriptor_fetch(cpu, selector, VECTOR_TS, ext, &d))
        return STATUS_FAULT;
    if (!is_system(&d) || descriptor_type(&d) != TYPE_LDT || !is_present(&d))
        return fault_ts(cpu, selector_error(selector, ext));
    segment_set(cpu, LDTR, selector, &d);
    return STATUS_OK;
}

static int load_code(CPU *cpu, uint16_t selector, uint32_t ext)
{
    Descriptor d;
    if (is_null(selector))
        return fault_ts(cpu, ext);
    if (descriptor_fetch(cpu, selector, VECTOR_TS, ext, &d))
        return STATUS_FAULT;
    const unsigned dpl = descriptor_dpl(&d), rpl = rpl_of(selector);
    if (!is_code(&d) || (is_conforming(&d) ? dpl > rpl : dpl != rpl))
        return fault_ts(cpu, selector_error(selector, ext));
    if (!is_present(&d))
        return fault_np(cpu, selector_error(selector, ext));
    if (descriptor_set_accessed(cpu, selector, &d))
        return STATUS_FAULT;
    code_segment_set(cpu, selector, &d, rpl);
    return STATUS_OK;
}

static int load_stack(CPU *cpu, uint16_t selector, uint32_t ext)
{
    Descriptor d;
    if (stack_segment_fetch(cpu, selector, cpu->cpl, VECTOR_TS, ext, &d) || descriptor_set_accessed(cpu, selector, &d))
        return STATUS_FAULT;
    segment_set(cpu, SS, selector, &d);
    cpu->sp_mask = stack_mask(false, d.access);
    return STATUS_OK;
}

static int load_data(CPU *cpu, unsigned index, uint16_t selector, uint32_t ext)
{
    Descriptor d;
    if (is_null(selector))
        return STATUS_OK;
    if (data_segment_fetch(cpu, selector, cpu->cpl, VECTOR_TS, ext, &d) || descriptor_set_accessed(cpu, selector, &d))
        return STATUS_FAULT;
    segment_set(cpu, index, selector, &d);
    return STATUS_OK;
}

/* Loads the descriptors of the new task, in its own context: what faults here faults there. */
static int load_segments(CPU *cpu, const TaskImage *image, uint32_t ext)
{
    static const uint8_t data_segments[] = {DS, ES, FS, GS};
    if (load_ldt(cpu, image->ldt, ext))
        return STATUS_FAULT;
    if (cpu->v86) {
        for (unsigned i = ES; i <= GS; i++)
            segment_load_real(cpu, i, image->segments[i]);
        code_segment_changed(cpu);
        return STATUS_OK;
    }
    if (load_code(cpu, image->segments[CS], ext) || load_stack(cpu, image->segments[SS], ext))
        return STATUS_FAULT;
    for (unsigned i = 0; i < 4; i++)
        if (load_data(cpu, data_segments[i], image->segments[data_segments[i]], ext))
            return STATUS_FAULT;
    return STATUS_OK;
}

/* Pushes an exception's error code on the new task's stack, in the size of its TSS. */
static int push_error(CPU *cpu, const Layout *layout, uint32_t error, uint32_t ext)
{
    Stack stack = stack_current(cpu, ext);
    if (stack_push(cpu, &stack, layout->size, error))
        return STATUS_FAULT;
    stack_commit(cpu, &stack);
    return STATUS_OK;
}

/* Registers, flags and selectors of the new task; its segments are unusable until their descriptors are loaded. */
static void load_registers(CPU *cpu, const TaskImage *image, uint32_t flags)
{
    for (unsigned i = 0; i < 8; i++)
        cpu->r[i] = image->registers[i];
    cpu->rip = image->ip;
    cpu->cpl = flags & FLAG_VM ? 3 : (uint8_t)rpl_of(image->segments[CS]);
    cpu_set_flags(cpu, flags, (cpu->model->eflags_mask & (FLAG_AC | FLAG_ID)) | FLAGS_ARITHMETIC | FLAG_TF | FLAG_IF |
                                  FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_VM | FLAG_VIF | FLAG_VIP);
    cpu->rf_loaded = 1;
    for (unsigned i = ES; i <= GS; i++)
        segment_set_null(cpu, i, image->segments[i]);
    cpu_update_mode(cpu);
}

/* Paging goes on with the new task's tables. A 16-bit TSS has none. */
static int load_cr3(CPU *cpu, const TaskImage *image, const Layout *layout)
{
    if (layout->size != 4 || !(cpu->cr0 & CR0_PG))
        return STATUS_OK;
    if ((cpu->cr4 & CR4_PAE) && mmu_load_pdptes(cpu, image->cr3))
        return STATUS_FAULT;
    cpu->cr3 = image->cr3;
    tlb_flush(cpu, false);
    return STATUS_OK;
}

int task_switch(CPU *cpu, uint16_t selector, Descriptor *tss, TaskSwitch kind, const uint32_t *error, uint32_t ext,
                uint64_t next_rip)
{
    if (tss->limit < layout_of(tss->access)->limit)
        return fault_ts(cpu, selector_error(selector, ext));
    if (unlikely(cpu->non_root)) { /* SDM Vol. 3, "Treatment of Task Switches": after the checks of the new descriptor */
        static const uint8_t source[] = {[TASK_CALL] = 0, [TASK_IRET] = 1, [TASK_JMP] = 2, [TASK_GATE] = 3};
        return vm_exit_instruction(cpu, EXIT_REASON_TASK_SWITCH, selector | (uint64_t)source[kind] << 30);
    }
    const Segment old = cpu->seg[TR];
    const Layout *from = layout_of(old.access), *to = layout_of(tss->access);
    const bool nests = kind == TASK_CALL || kind == TASK_GATE;
    const uint32_t error_code = error ? *error : 0; /* it may lie in CPU.fault */
    TaskImage image;

    if ((old.access & AR_UNUSABLE) || old.limit < from->limit)
        return fault_ts(cpu, selector_error(old.selector, ext));
    /* All that will be touched is checked to be there first, in the old task's context. */
    if (read_image(cpu, tss->base, to, &image) || probe(cpu, old.base, from->limit + 1) ||
        (nests && linear_probe_write(cpu, tss->base, 2, ACCESS_SYSTEM)) ||
        (!nests && linear_probe_write(cpu, cpu->gdtr.base + (old.selector & 0xfff8) + 5, 1, ACCESS_SYSTEM)) ||
        (kind != TASK_IRET && linear_probe_write(cpu, cpu->gdtr.base + (selector & 0xfff8) + 5, 1, ACCESS_SYSTEM)))
        return STATUS_FAULT;

    const uint32_t saved_flags = cpu_flags(cpu) & ~(kind == TASK_IRET ? FLAG_NT : 0u);
    if (save_state(cpu, old.base, from, saved_flags, next_rip) || (!nests && set_busy(cpu, old.selector, false)) ||
        (kind != TASK_IRET && set_busy(cpu, selector, true)) ||
        (nests && linear_write(cpu, tss->base, 2, old.selector, ACCESS_SYSTEM)))
        return STATUS_FAULT;

    /* The point of no return. */
    const EventClocks *clocks = cpu->event_clocks;
    cpu->clock->left -= to == &layout32 ? clocks->task_switch : clocks->task_switch_286;
    tss->access |= TSS_BUSY;
    segment_fill(&cpu->seg[TR], selector, tss);
    cpu->cr0 |= CR0_TS;
    cpu->dr[7] &= ~(uint64_t)DR7_LOCAL;
    load_registers(cpu, &image, image.flags | (nests ? FLAG_NT : 0));
    if (load_cr3(cpu, &image, to) || load_segments(cpu, &image, ext))
        return STATUS_FAULT;
    if (image.trap)
        cpu->trap |= DR6_BT;
    if (error && push_error(cpu, to, error_code, ext))
        return STATUS_FAULT;
    if (cpu->rip > cpu->seg[CS].limit)
        return fault_gp(cpu, ext);
    return STATUS_BRANCH;
}

int task_gate(CPU *cpu, const Descriptor *gate, TaskSwitch kind, const uint32_t *error, uint32_t ext, uint64_t next_rip)
{
    Descriptor tss;
    const uint16_t selector = gate_selector(gate);
    if (selector & ERROR_TI)
        return fault_gp(cpu, selector_error(selector, ext));
    if (descriptor_fetch(cpu, selector, VECTOR_GP, ext, &tss))
        return STATUS_FAULT;
    const unsigned type = descriptor_type(&tss);
    if (!is_system(&tss) || (type != TYPE_TSS32 && type != TYPE_TSS16))
        return fault_gp(cpu, selector_error(selector, ext));
    if (!is_present(&tss))
        return fault_np(cpu, selector_error(selector, ext));
    return task_switch(cpu, selector, &tss, kind, error, ext, next_rip);
}

int task_settle(CPU *cpu, uint16_t old_task, int status)
{
    if (status != STATUS_FAULT || cpu->fault.type == EVENT_VM_EXIT || cpu->seg[TR].selector == old_task || cpu->raise_faults)
        return status;
    const Fault fault = cpu->fault;
    return interrupt_deliver(cpu, &fault, cpu->rip);
}
