/* Delivery of exceptions and interrupts through the interrupt vector table or the IDT, and what happens where delivery
 * itself faults. SDM Vol. 3, "Interrupt and Exception Handling"; SDM Vol. 2, "INT n/INTO/INT3/INT1", from which the order
 * of checks and the error codes come. */
#include "segment.h"

/* One attempt to deliver an event. */
typedef struct Delivery {
    unsigned vector;
    bool software;   /* INT n, INT3, INTO: the gate's DPL counts, and error codes have EXT clear */
    uint32_t ext;
    uint32_t flags;  /* the image of EFLAGS that is pushed */
    uint64_t rip;    /* and the return address */
    const uint32_t *error; /* the error code that is pushed, or NULL */
} Delivery;

static bool is_software(const Fault *event)
{
    return event->type == EVENT_SOFTWARE_INTERRUPT || event->type == EVENT_SOFTWARE_EXCEPTION;
}

/* SDM Vol. 3, "Instruction-Breakpoint Exception Condition": RF is pushed as 1 by faults, and by what interrupts a
 * repeated string instruction; as 0 by INT n and its like, which clear it when they begin. Aborts and traps push it as it
 * is, and so does what VM entry injects ("Details of Vectored-Event Injection"). */
bool interrupt_pushes_rf(const CPU *cpu, const Fault *event)
{
    const bool now = cpu->eflags & FLAG_RF;
    if (cpu->injecting)
        return now;
    if (is_software(event) || event->type == EVENT_ICEBP)
        return false;
    if (event->type != EVENT_HARDWARE_EXCEPTION)
        return now || cpu->rep_resumed;
    if (event->vector == VECTOR_DB)
        return now || event->is_fault || cpu->rep_resumed;
    return now || (event->vector != VECTOR_DF && event->vector != VECTOR_MC);
}

static uint32_t idt_error(const Delivery *d) { return d->vector * 8 | ERROR_IDT | d->ext; }

/* Real-address mode: SDM Vol. 3, "Interrupt and Exception Handling" of "8086 Emulation". */
static int deliver_real(CPU *cpu, const Delivery *d)
{
    Stack stack = stack_current(cpu, 0);
    if (d->vector * 4 + 3 > cpu->idtr.limit)
        return fault_gp(cpu, idt_error(d));
    if (stack_reserve(cpu, &stack, 3, 2) ||
        linear_read(cpu, cpu->idtr.base + d->vector * 4, 4, ACCESS_READ | ACCESS_SYSTEM))
        return STATUS_FAULT;
    const uint32_t target = (uint32_t)cpu->data;
    if (stack_push(cpu, &stack, 2, d->flags & 0xffff) || stack_push(cpu, &stack, 2, cpu->seg[CS].selector) ||
        stack_push(cpu, &stack, 2, d->rip & 0xffff))
        return STATUS_FAULT;
    stack_commit(cpu, &stack);
    cpu->eflags &= ~(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
    segment_load_real(cpu, CS, (uint16_t)(target >> 16));
    code_segment_changed(cpu);
    cpu->rip = target & 0xffff;
    return STATUS_BRANCH;
}

/* INT n of virtual-8086 mode through the interrupt table of the 8086 program: SDM Vol. 3, "Class 3 - Software Interrupt
 * Handling in Virtual-8086 Mode". With IOPL below 3 the program sees VIF in the place of IF. */
int interrupt_deliver_v86(CPU *cpu, unsigned vector, uint64_t next_rip)
{
    Stack stack = stack_current(cpu, 0);
    uint32_t flags = cpu_flags(cpu);
    const bool virtual_if = iopl(cpu) < 3;
    if (virtual_if)
        flags = (flags & ~FLAG_IF) | FLAG_IOPL | (flags & FLAG_VIF ? FLAG_IF : 0);
    if (stack_reserve(cpu, &stack, 3, 2) || linear_read(cpu, vector * 4, 4, ACCESS_READ | ACCESS_SYSTEM))
        return STATUS_FAULT;
    const uint32_t target = (uint32_t)cpu->data;
    if (stack_push(cpu, &stack, 2, flags & 0xffff) || stack_push(cpu, &stack, 2, cpu->seg[CS].selector) ||
        stack_push(cpu, &stack, 2, next_rip & 0xffff))
        return STATUS_FAULT;
    stack_commit(cpu, &stack);
    cpu->eflags &= ~(FLAG_TF | FLAG_RF | (virtual_if ? FLAG_VIF : FLAG_IF));
    segment_load_real(cpu, CS, (uint16_t)(target >> 16));
    code_segment_changed(cpu);
    cpu->rip = target & 0xffff;
    return STATUS_BRANCH;
}

/* Reads and checks the gate of the vector. */
static int fetch_gate(CPU *cpu, const Delivery *d, Descriptor *gate)
{
    const unsigned size = cpu->long_mode ? 16 : 8;
    if (d->vector * size + size - 1 > cpu->idtr.limit)
        return fault_gp(cpu, idt_error(d));
    const uint64_t place = cpu->idtr.base + d->vector * size;
    if (linear_read(cpu, place, 8, ACCESS_READ | ACCESS_SYSTEM))
        return STATUS_FAULT;
    *gate = descriptor_decode((uint32_t)cpu->data, (uint32_t)(cpu->data >> 32));
    const unsigned type = descriptor_type(gate);
    const bool wide_type = type == TYPE_INTERRUPT_GATE32 || type == TYPE_TRAP_GATE32;
    const bool narrow_type = type == TYPE_INTERRUPT_GATE16 || type == TYPE_TRAP_GATE16 || type == TYPE_TASK_GATE;
    if (!is_system(gate) || !(wide_type || (narrow_type && !cpu->long_mode)))
        return fault_gp(cpu, idt_error(d));
    if (d->software && descriptor_dpl(gate) < cpu->cpl)
        return fault_gp(cpu, idt_error(d));
    if (!is_present(gate))
        return fault_np(cpu, idt_error(d));
    if (cpu->long_mode) {
        if (linear_read(cpu, place + 8, 4, ACCESS_READ | ACCESS_SYSTEM))
            return STATUS_FAULT;
        gate->upper = (uint32_t)cpu->data;
    }
    return STATUS_OK;
}

/* The code segment that an interrupt or trap gate leads to. */
static int fetch_handler(CPU *cpu, const Delivery *d, uint16_t selector, Descriptor *code)
{
    if (is_null(selector))
        return fault_gp(cpu, d->ext);
    if (descriptor_fetch(cpu, selector, VECTOR_GP, d->ext, code))
        return STATUS_FAULT;
    if (!is_code(code) || descriptor_dpl(code) > cpu->cpl ||
        (cpu->long_mode && (code->access & (AR_L | AR_DB)) != AR_L))
        return fault_gp(cpu, selector_error(selector, d->ext));
    if (!is_present(code))
        return fault_np(cpu, selector_error(selector, d->ext));
    return STATUS_OK;
}

/* What changes once nothing can fault any more. */
static int enter_handler(CPU *cpu, const Descriptor *gate, const Descriptor *code, const Stack *stack, unsigned cpl,
                         bool new_stack)
{
    const bool interrupt_gate = !(descriptor_type(gate) & 1);
    const bool from_v86 = cpu->v86;
    cpu->eflags &= ~(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM | (interrupt_gate ? FLAG_IF : 0));
    cpu->cpl = (uint8_t)cpl;
    if (from_v86) {
        cpu_update_mode(cpu);
        segment_set_null(cpu, ES, 0);
        segment_set_null(cpu, DS, 0);
        segment_set_null(cpu, FS, 0);
        segment_set_null(cpu, GS, 0);
    }
    if (new_stack)
        stack_switch(cpu, stack);
    else
        stack_commit(cpu, stack);
    code_segment_set(cpu, gate_selector(gate), code, cpl);
    cpu->rip = gate_offset(gate);
    return STATUS_BRANCH;
}

static int push_frame(CPU *cpu, const Delivery *d, Stack *stack, unsigned size, bool outer)
{
    const uint64_t old_sp = cpu->r[RSP] & (size == 8 ? UINT64_MAX : 0xffffffff);
    if (cpu->v86 && outer)
        for (unsigned i = 0; i < 4; i++) {
            static const uint8_t order[] = {GS, FS, DS, ES};
            if (stack_push(cpu, stack, size, cpu->seg[order[i]].selector))
                return STATUS_FAULT;
        }
    if (outer && (stack_push(cpu, stack, size, cpu->seg[SS].selector) || stack_push(cpu, stack, size, old_sp)))
        return STATUS_FAULT;
    if (stack_push(cpu, stack, size, d->flags) || stack_push(cpu, stack, size, cpu->seg[CS].selector) ||
        stack_push(cpu, stack, size, d->rip) || (d->error && stack_push(cpu, stack, size, *d->error)))
        return STATUS_FAULT;
    return STATUS_OK;
}

/* The image of EFLAGS goes to the TSS. */
static int deliver_to_task(CPU *cpu, const Delivery *d, const Descriptor *gate)
{
    const uint16_t old_task = cpu->seg[TR].selector;
    const uint32_t eflags = cpu->eflags;
    cpu->eflags |= d->flags & FLAG_RF;
    const int status = task_gate(cpu, gate, TASK_GATE, d->error, d->ext, d->rip);
    if (cpu->seg[TR].selector == old_task)
        cpu->eflags = eflags;
    return status;
}

/* Protected mode: interrupt and trap gates, task gates. */
static int deliver_protected(CPU *cpu, const Delivery *d)
{
    Descriptor gate, code;
    if (fetch_gate(cpu, d, &gate))
        return STATUS_FAULT;
    if (descriptor_type(&gate) == TYPE_TASK_GATE)
        return deliver_to_task(cpu, d, &gate);
    const uint16_t selector = gate_selector(&gate);
    if (fetch_handler(cpu, d, selector, &code))
        return STATUS_FAULT;
    const unsigned dpl = descriptor_dpl(&code);
    const bool inner = !is_conforming(&code) && dpl < cpu->cpl;
    /* From virtual-8086 mode a handler runs at CPL 0 or not at all. */
    if (cpu->v86 && (!inner || dpl != 0))
        return fault_gp(cpu, selector_error(selector, d->ext));
    const unsigned cpl = inner ? dpl : cpu->cpl;
    Stack stack = stack_current(cpu, d->ext);
    if (inner && stack_of_level(cpu, cpl, d->ext, &stack))
        return STATUS_FAULT;
    const unsigned size = is_gate32(&gate) ? 4 : 2;
    const unsigned items = (inner ? (cpu->v86 ? 9 : 5) : 3) + (d->error ? 1 : 0);
    if (stack_reserve(cpu, &stack, items, size) || code_offset_check(cpu, &code, gate_offset(&gate), d->ext) ||
        descriptor_set_accessed(cpu, selector, &code) || push_frame(cpu, d, &stack, size, inner))
        return STATUS_FAULT;
    return enter_handler(cpu, &gate, &code, &stack, cpl, inner);
}

/* SDM Vol. 3, "Exception and Interrupt Handling in 64-bit Mode", "Interrupt Stack Table". */
static int deliver_long(CPU *cpu, const Delivery *d)
{
    Descriptor gate, code;
    if (fetch_gate(cpu, d, &gate))
        return STATUS_FAULT;
    const uint16_t selector = gate_selector(&gate);
    if (fetch_handler(cpu, d, selector, &code))
        return STATUS_FAULT;
    const bool inner = !is_conforming(&code) && descriptor_dpl(&code) < cpu->cpl;
    const unsigned cpl = inner ? descriptor_dpl(&code) : cpu->cpl;
    const unsigned ist = gate.high & 7;
    Stack stack = stack_current(cpu, d->ext);
    stack.mask = UINT64_MAX;
    stack.wide = true;
    if (inner && !ist) {
        if (stack_of_level(cpu, cpl, d->ext, &stack))
            return STATUS_FAULT;
    } else if (ist) {
        const unsigned field = ist * 8 + 28;
        if (field + 7 > cpu->seg[TR].limit)
            return fault_ts(cpu, selector_error(cpu->seg[TR].selector, d->ext));
        if (linear_read(cpu, cpu->seg[TR].base + field, 8, ACCESS_READ | ACCESS_SYSTEM))
            return STATUS_FAULT;
        stack.sp = cpu->data;
        stack.access = cpl < 3 ? ACCESS_SYSTEM : 0;
        if (inner)
            stack_fill_null(&stack, (uint16_t)cpl, cpl);
    }
    stack.sp &= ~15ull;
    if (stack_reserve(cpu, &stack, d->error ? 6 : 5, 8) || code_offset_check(cpu, &code, gate_offset(&gate), d->ext) ||
        descriptor_set_accessed(cpu, selector, &code) || push_frame(cpu, d, &stack, 8, true))
        return STATUS_FAULT;
    return enter_handler(cpu, &gate, &code, &stack, cpl, true);
}

/* The interrupt redirection bit map lies in the 32 bytes below the I/O permission bit map. SDM Vol. 3, "Class 3 -
 * Software Interrupt Handling in Virtual-8086 Mode". */
int interrupt_redirected(CPU *cpu, unsigned vector)
{
    const Segment *tss = &cpu->seg[TR];
    if (!(tss->access & 8) || tss->limit < 103)
        return fault_gp(cpu, 0);
    if (linear_read(cpu, tss->base + 102, 2, ACCESS_READ | ACCESS_SYSTEM))
        return STATUS_FAULT;
    const uint32_t place = (uint32_t)cpu->data - 32 + vector / 8;
    if (place > tss->limit)
        return fault_gp(cpu, 0);
    if (linear_read(cpu, tss->base + place, 1, ACCESS_READ | ACCESS_SYSTEM))
        return STATUS_FAULT;
    return !(cpu->data >> (vector & 7) & 1);
}

static int deliver(CPU *cpu, const Fault *event, uint64_t rip)
{
    /* INT n has asked already; of one that VM entry injects IOPL is not asked. */
    if (unlikely(cpu->injecting && cpu->v86 && (cpu->cr4 & CR4_VME) && event->type == EVENT_SOFTWARE_INTERRUPT)) {
        const int redirected = interrupt_redirected(cpu, event->vector);
        if (redirected)
            return redirected < 0 ? redirected : interrupt_deliver_v86(cpu, event->vector, rip);
    }
    const Delivery d = {
        .vector = event->vector,
        .software = is_software(event),
        .ext = is_software(event) ? 0 : ERROR_EXT,
        .flags = (cpu_flags(cpu) & ~FLAG_RF) | (interrupt_pushes_rf(cpu, event) ? FLAG_RF : 0),
        .rip = rip,
        .error = event->has_error ? &event->error : NULL,
    };
    if (!cr0_pe(cpu))
        return deliver_real(cpu, &d);
    return cpu->long_mode ? deliver_long(cpu, &d) : deliver_protected(cpu, &d);
}

/* What an event leaves in CR2, DR6, DR7 and IA32_DEBUGCTL, delivered or not; one that VM entry injects leaves nothing. */
static void record(CPU *cpu, const Fault *event)
{
    if (event->type != EVENT_HARDWARE_EXCEPTION || cpu->injecting)
        return;
    if (event->vector == VECTOR_PF)
        cpu->cr2 = event->address;
    if (event->vector == VECTOR_DB) {
        cpu->dr[6] |= event->address;
        cpu->dr[7] &= ~(uint64_t)DR7_GD;
        cpu->debugctl &= ~(uint64_t)(DEBUGCTL_LBR | DEBUGCTL_BTF);
    }
}

/* SDM Vol. 3, "Interrupt 8 - Double Fault Exception", table of exception classes. */
typedef enum FaultClass { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT } FaultClass;

static FaultClass class_of(const Fault *event)
{
    if (event->type != EVENT_HARDWARE_EXCEPTION)
        return BENIGN;
    switch (event->vector) {
    case VECTOR_DE: case VECTOR_TS: case VECTOR_NP: case VECTOR_SS: case VECTOR_GP: return CONTRIBUTORY;
    case VECTOR_PF: return PAGE_FAULT;
    case VECTOR_DF: return DOUBLE_FAULT;
    default: return BENIGN;
    }
}

/* The event to deliver after `second` came up while `first` was delivered; false: shutdown. */
static bool combine(const CPU *cpu, const Fault *first, const Fault *second, Fault *next)
{
    const FaultClass before = class_of(first), after = class_of(second);
    *next = *second;
    if (after == BENIGN || before == BENIGN || (before == CONTRIBUTORY && after == PAGE_FAULT))
        return true;
    if (before == DOUBLE_FAULT)
        return false;
    *next = (Fault){.vector = VECTOR_DF, .type = EVENT_HARDWARE_EXCEPTION, .has_error = cr0_pe(cpu)};
    return true;
}

/* A benign exception during a delivery takes the place of what was delivered, so a misaligned stack at CPL 3 makes
 * #AC after #AC without end: a processor hangs in it, here it is a shutdown. A chain that ends is much shorter. */
#define MOST_NESTED_FAULTS 16

/* Clocks of an event that no instruction asked for: one at least, so that time passes where a handler faults for ever. A
 * task switch charges itself. */
static void charge_event(CPU *cpu, bool real, bool v86, unsigned cpl, uint64_t tss)
{
    const EventClocks *clocks = cpu->event_clocks;
    const uint32_t cost = real              ? clocks->interrupt_real
                          : v86             ? clocks->interrupt_from_v86
                          : cpu->cpl != cpl ? clocks->interrupt_more
                                            : clocks->interrupt_same;
    if (cpu->seg[TR].base == tss || !clocks->task_switch)
        cpu->clock->left -= cost ? cost : 1;
}

int interrupt_deliver(CPU *cpu, const Fault *event, uint64_t next_rip)
{
    Fault current = *event;
    const bool real = !cr0_pe(cpu), v86 = cpu->v86;
    const unsigned cpl = cpu->cpl;
    const uint64_t tss = cpu->seg[TR].base;
    const BranchStart start = {.rip = cpu->rip, .base = cpu->seg[CS].base};
    const bool of_instruction = !cpu->injecting && (is_software(event) || event->type == EVENT_ICEBP);
    unsigned faults = 0;
    for (;;) {
        /* A double fault that exits is, like an event that exits at once, no exit during delivery: SDM Vol. 3,
         * "Information for VM Exits That Occur During Event Delivery". */
        if (unlikely(cpu->non_root) && !cpu->injecting && vm_exit_wanted(cpu, &current)) {
            vm_exit_event(cpu, &current);
            cpu->exit.has_vectoring = 0;
            return STATUS_VMEXIT;
        }
        cpu->delivering = current.vector;
        record(cpu, &current);
        const int status = deliver(cpu, &current, next_rip);
        cpu->delivering = -1;
        if (unlikely(status < 0 && cpu->fault.type == EVENT_VM_EXIT)) {
            cpu->exit.has_vectoring = 1;
            cpu->exit.vectoring = current;
            return STATUS_VMEXIT;
        }
        if (status != STATUS_FAULT) {
            if (!is_software(event) && event->type != EVENT_ICEBP)
                charge_event(cpu, real, v86, cpl, tss);
            if (unlikely(cpu->debugctl) && !of_instruction)
                branch_record_event(cpu, &start);
            return status;
        }
        const Fault second = cpu->fault;
        cpu->injecting = 0;
        if (unlikely(cpu->non_root) && vm_exit_wanted(cpu, &second)) { /* before it makes a double or triple fault */
            vm_exit_event(cpu, &second);
            cpu->exit.has_vectoring = 1;
            cpu->exit.vectoring = current;
            return STATUS_VMEXIT;
        }
        /* An INT n that faults is an instruction that faults. */
        if ((is_software(&current) || current.type == EVENT_ICEBP) && cpu->seg[TR].base == tss)
            return STATUS_FAULT;
        next_rip = cpu->rip;
        if (!combine(cpu, &current, &second, &current) || ++faults > MOST_NESTED_FAULTS) {
            record(cpu, &second);
            cpu->activity = ACTIVITY_SHUTDOWN;
            return STATUS_SHUTDOWN;
        }
        if (second.vector == VECTOR_PF && current.vector != VECTOR_PF)
            record(cpu, &second);
    }
}
