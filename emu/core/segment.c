/* Segment registers: descriptors, the checks of loading them, and the stacks of control transfers.
 * SDM Vol. 3, "Segment Descriptors", "Privilege Checking When Accessing Data Segments", "Stack Switching". */
#include "segment.h"

/* Base of a selector's table; false where `size` bytes of it would lie outside. */
static bool table_of(const CPU *cpu, uint16_t selector, unsigned size, uint64_t *base)
{
    const Segment *ldt = &cpu->seg[LDTR];
    const bool local = selector & ERROR_TI;
    *base = local ? ldt->base : cpu->gdtr.base;
    if (local && (ldt->access & AR_UNUSABLE))
        return false;
    return (selector & 0xfff8u) + size - 1 <= (local ? ldt->limit : cpu->gdtr.limit);
}

int descriptor_lookup(CPU *cpu, uint16_t selector, Descriptor *d)
{
    uint64_t base;
    if (!table_of(cpu, selector, 8, &base))
        return 0;
    if (linear_read(cpu, base + (selector & 0xfff8), 8, ACCESS_READ | ACCESS_SYSTEM))
        return STATUS_FAULT;
    *d = descriptor_decode((uint32_t)cpu->data, (uint32_t)(cpu->data >> 32));
    return 1;
}

int descriptor_fetch(CPU *cpu, uint16_t selector, unsigned vector, uint32_t ext, Descriptor *d)
{
    int found = descriptor_lookup(cpu, selector, d);
    if (found == 0)
        return fault_error(cpu, vector, selector_error(selector, ext));
    return found < 0 ? found : STATUS_OK;
}

int descriptor_fetch_upper(CPU *cpu, uint16_t selector, unsigned vector, uint32_t ext, Descriptor *d)
{
    uint64_t base;
    if (!table_of(cpu, selector, 16, &base))
        return fault_error(cpu, vector, selector_error(selector, ext));
    if (linear_read(cpu, base + (selector & 0xfff8) + 8, 8, ACCESS_READ | ACCESS_SYSTEM))
        return STATUS_FAULT;
    d->upper = (uint32_t)cpu->data;
    d->base |= (uint64_t)d->upper << 32;
    if (cpu->data >> 40 & 0x1f) /* the type field of what would be a descriptor of its own must be 0 */
        return fault_error(cpu, vector, selector_error(selector, ext));
    return STATUS_OK;
}

int descriptor_set_type(CPU *cpu, uint16_t selector, Descriptor *d, unsigned type)
{
    uint64_t base;
    if (!table_of(cpu, selector, 8, &base))
        return fault_gp(cpu, selector_error(selector, 0));
    d->access = (d->access & ~AR_TYPE) | type;
    d->high = (d->high & ~(AR_TYPE << 8)) | type << 8;
    return linear_write(cpu, base + (selector & 0xfff8) + 5, 1, d->high >> 8 & 0xff, ACCESS_SYSTEM);
}

int descriptor_set_accessed(CPU *cpu, uint16_t selector, Descriptor *d)
{
    if (d->access & AR_ACCESSED)
        return STATUS_OK;
    return descriptor_set_type(cpu, selector, d, descriptor_type(d) | AR_ACCESSED);
}

void segment_update(CPU *cpu, unsigned index)
{
    Segment *segment = &cpu->seg[index];
    const uint64_t end = (uint64_t)segment->limit + 1;
    const uint32_t access = segment->access;
    if (!cpu->code64 && segment->hidden) {
        segment->base = segment->hidden;
        segment->hidden = 0;
    }
    if (cpu->code64) {
        if (index < FS && segment->base) {
            segment->hidden = segment->base;
            segment->base = 0;
        }
        segment->read_end = segment->write_end = UINT64_MAX;
    } else if (!cpu->protected_mode) {
        segment->read_end = segment->write_end = end;
    } else if (access & AR_UNUSABLE) {
        segment->read_end = segment->write_end = 0;
    } else if (access & AR_CODE) {
        segment->read_end = access & AR_RW ? end : 0;
        segment->write_end = 0;
    } else {
        segment->read_end = access & AR_DC ? 0 : end;
        segment->write_end = access & AR_RW ? segment->read_end : 0;
    }
}

void segment_fill(Segment *segment, uint16_t selector, const Descriptor *d)
{
    segment->base = d->base;
    segment->hidden = 0;
    segment->limit = d->limit;
    segment->access = d->access;
    segment->selector = selector;
}

void segment_set(CPU *cpu, unsigned index, uint16_t selector, const Descriptor *d)
{
    segment_fill(&cpu->seg[index], selector, d);
    segment_update(cpu, index);
}

/* The limit stays: real-address mode uses it again. */
void segment_set_null(CPU *cpu, unsigned index, uint16_t selector)
{
    Segment *segment = &cpu->seg[index];
    segment->selector = selector;
    segment->base = segment->hidden = 0;
    segment->access = AR_UNUSABLE | (index == SS ? (uint32_t)cpu->cpl << 5 : 0);
    segment_update(cpu, index);
}

void segment_set_flat(CPU *cpu, unsigned index, uint16_t selector, uint32_t access)
{
    cpu->seg[index] = (Segment){.limit = 0xffffffff, .access = access | AR_P | AR_S | AR_G, .selector = selector};
    segment_update(cpu, index);
}

void segment_load_real(CPU *cpu, unsigned index, uint16_t selector)
{
    Segment *segment = &cpu->seg[index];
    segment->selector = selector;
    segment->base = (uint32_t)selector << 4;
    segment->hidden = 0;
    if (cpu->v86) {
        segment->limit = 0xffff;
        segment->access = AR_P | AR_DPL | AR_S | AR_RW | AR_ACCESSED;
    } else if (segment->access & AR_UNUSABLE) {
        segment->access = AR_P | AR_S | AR_RW | AR_ACCESSED;
    }
    segment_update(cpu, index);
}

int stack_segment_fetch(CPU *cpu, uint16_t selector, unsigned cpl, unsigned vector, uint32_t ext, Descriptor *d)
{
    if (is_null(selector))
        return fault_error(cpu, vector, ext);
    if (descriptor_fetch(cpu, selector, vector, ext, d))
        return STATUS_FAULT;
    if (rpl_of(selector) != cpl || !is_writable_data(d) || descriptor_dpl(d) != cpl)
        return fault_error(cpu, vector, selector_error(selector, ext));
    if (!is_present(d))
        return fault_ss(cpu, selector_error(selector, ext));
    return STATUS_OK;
}

int data_segment_fetch(CPU *cpu, uint16_t selector, unsigned cpl, unsigned vector, uint32_t ext, Descriptor *d)
{
    if (descriptor_fetch(cpu, selector, vector, ext, d))
        return STATUS_FAULT;
    if (!is_readable(d) || (!is_conforming(d) && (rpl_of(selector) > descriptor_dpl(d) || cpl > descriptor_dpl(d))))
        return fault_error(cpu, vector, selector_error(selector, ext));
    if (!is_present(d))
        return fault_np(cpu, selector_error(selector, ext));
    return STATUS_OK;
}

int segment_load(CPU *cpu, unsigned index, uint16_t selector)
{
    Descriptor d;
    if (!cpu->protected_mode) {
        segment_load_real(cpu, index, selector);
        return STATUS_OK;
    }
    if (is_null(selector)) {
        /* 64-bit code of CPL 0 to 2 may have a null stack segment of its own level. */
        if (index == SS && (!cpu->code64 || cpu->cpl == 3 || rpl_of(selector) != cpu->cpl))
            return fault_gp(cpu, 0);
        segment_set_null(cpu, index, selector);
        return STATUS_OK;
    }
    int status = index == SS ? stack_segment_fetch(cpu, selector, cpu->cpl, VECTOR_GP, 0, &d)
                             : data_segment_fetch(cpu, selector, cpu->cpl, VECTOR_GP, 0, &d);
    if (status || (status = descriptor_set_accessed(cpu, selector, &d)))
        return status;
    segment_set(cpu, index, selector, &d);
    if (index == SS)
        cpu->sp_mask = stack_mask(cpu->code64, d.access);
    return STATUS_OK;
}

void code_segment_changed(CPU *cpu)
{
    cpu_update_mode(cpu);
    segment_update(cpu, CS);
}

void code_segment_set(CPU *cpu, uint16_t selector, const Descriptor *d, unsigned cpl)
{
    cpu->cpl = (uint8_t)cpl;
    segment_fill(&cpu->seg[CS], (uint16_t)((selector & 0xfffc) | cpl), d);
    code_segment_changed(cpu);
}

void segments_null_inner(CPU *cpu)
{
    static const uint8_t data_segments[] = {ES, DS, FS, GS};
    for (unsigned i = 0; i < 4; i++) {
        const uint32_t access = cpu->seg[data_segments[i]].access;
        const bool conforming = (access & (AR_CODE | AR_DC)) == (AR_CODE | AR_DC);
        if (!(access & AR_UNUSABLE) && !conforming && AR_DPL_OF(access) < cpu->cpl)
            segment_set_null(cpu, data_segments[i], 0);
    }
}

/* SDM Vol. 2, "RET", "IRET": the checks on the return code segment are the same. */
int return_segment_fetch(CPU *cpu, uint16_t selector, Descriptor *d)
{
    if (is_null(selector))
        return fault_gp(cpu, 0);
    if (descriptor_fetch(cpu, selector, VECTOR_GP, 0, d))
        return STATUS_FAULT;
    const unsigned dpl = descriptor_dpl(d), rpl = rpl_of(selector);
    const bool both = cpu->long_mode && (d->access & AR_L) && (d->access & AR_DB);
    if (!is_code(d) || both || rpl < cpu->cpl || (is_conforming(d) ? dpl > rpl : dpl != rpl))
        return fault_gp(cpu, selector_error(selector, 0));
    if (!is_present(d))
        return fault_np(cpu, selector_error(selector, 0));
    return STATUS_OK;
}

int code_offset_check(CPU *cpu, const Descriptor *d, uint64_t offset, uint32_t ext)
{
    if (is_code64(cpu, d) ? !is_canonical(offset) : offset > d->limit)
        return fault_gp(cpu, ext);
    return STATUS_OK;
}

Stack stack_current(const CPU *cpu, uint32_t error)
{
    const Segment *ss = &cpu->seg[SS];
    return (Stack){.base = ss->base, .limit = ss->limit, .segment_access = ss->access, .selector = ss->selector,
                   .sp = cpu->r[RSP], .mask = cpu->sp_mask, .wide = cpu->code64, .error = error};
}

static void stack_fill(Stack *stack, uint16_t selector, const Descriptor *d)
{
    stack->base = d->base;
    stack->limit = d->limit;
    stack->segment_access = d->access;
    stack->selector = selector;
}

/* The null stack segment of 64-bit code keeps the privilege level in its DPL. */
void stack_fill_null(Stack *stack, uint16_t selector, unsigned cpl)
{
    stack->base = stack->limit = 0;
    stack->segment_access = AR_UNUSABLE | cpl << 5;
    stack->selector = selector;
}

/* SDM Vol. 3, "Stack Switching"; the fields are those of "Task-State Segment (TSS)", "16-Bit Task-State Segment" and
 * "TSS in 64-bit Mode". */
int stack_of_level(CPU *cpu, unsigned level, uint32_t ext, Stack *stack)
{
    const Segment *tss = &cpu->seg[TR];
    const bool wide = cpu->long_mode, tss32 = tss->access & 8;
    const unsigned sp_size = wide ? 8 : tss32 ? 4 : 2;
    const unsigned field = wide || tss32 ? level * 8 + 4 : level * 4 + 2;
    const unsigned bytes = wide ? 8 : sp_size + 2;
    if ((tss->access & AR_UNUSABLE) || field + bytes - 1 > tss->limit)
        return fault_ts(cpu, selector_error(tss->selector, ext));
    if (linear_read(cpu, tss->base + field, sp_size, ACCESS_READ | ACCESS_SYSTEM))
        return STATUS_FAULT;
    *stack = (Stack){.sp = cpu->data, .wide = wide, .access = ACCESS_SYSTEM, .error = ext};
    if (wide) { /* in long mode the level's stack segment is null and has no limit */
        stack_fill_null(stack, (uint16_t)level, level);
        stack->mask = UINT64_MAX;
        return STATUS_OK;
    }
    if (linear_read(cpu, tss->base + field + sp_size, 2, ACCESS_READ | ACCESS_SYSTEM))
        return STATUS_FAULT;
    const uint16_t selector = (uint16_t)cpu->data;
    Descriptor d;
    if (stack_segment_fetch(cpu, selector, level, VECTOR_TS, ext, &d) || descriptor_set_accessed(cpu, selector, &d))
        return STATUS_FAULT;
    stack_fill(stack, selector, &d);
    stack->mask = stack_mask(false, d.access);
    stack->error = selector_error(selector, ext);
    return STATUS_OK;
}

int stack_to_return_to(CPU *cpu, uint16_t selector, unsigned cpl, bool wide, Stack *stack)
{
    Descriptor d;
    *stack = (Stack){.wide = wide};
    if (is_null(selector) && wide && cpl != 3 && rpl_of(selector) == cpl) {
        stack_fill_null(stack, selector, cpl);
        stack->mask = UINT64_MAX;
        return STATUS_OK;
    }
    if (stack_segment_fetch(cpu, selector, cpl, VECTOR_GP, 0, &d) || descriptor_set_accessed(cpu, selector, &d))
        return STATUS_FAULT;
    stack_fill(stack, selector, &d);
    stack->mask = stack_mask(wide, d.access);
    return STATUS_OK;
}

/* Linear address of `size` bytes at the stack's offset `sp`; #SS where the stack does not have them. */
static int stack_address(CPU *cpu, const Stack *stack, uint64_t sp, unsigned size, uint64_t *la)
{
    const uint64_t last = sp + size - 1;
    bool inside;
    if (stack->wide) {
        *la = sp;
        inside = is_canonical(sp) && is_canonical(last);
    } else {
        *la = (uint32_t)(stack->base + sp);
        if ((stack->segment_access & (AR_CODE | AR_DC)) == AR_DC)
            inside = sp > stack->limit && last <= (stack->segment_access & AR_DB ? 0xffffffff : 0xffff);
        else
            inside = last <= stack->limit;
        inside = inside && !(stack->segment_access & AR_UNUSABLE);
    }
    return inside ? STATUS_OK : fault_ss(cpu, stack->error);
}

int stack_reserve(CPU *cpu, const Stack *stack, unsigned count, unsigned size)
{
    const unsigned bytes = count * size;
    const uint64_t low = (stack->sp - bytes) & stack->mask, top = (low + bytes - 1) & stack->mask;
    uint64_t first, last;
    if (top < low) { /* wraps around: word by word */
        for (unsigned i = 2; i <= bytes; i += 2)
            if (stack_address(cpu, stack, (stack->sp - i) & stack->mask, 2, &first) ||
                linear_probe_write(cpu, first, 2, stack->access))
                return STATUS_FAULT;
        return STATUS_OK;
    }
    if (stack_address(cpu, stack, low, bytes, &first))
        return STATUS_FAULT;
    last = first + bytes - size; /* the item that is pushed first: a fault tells its address */
    if (linear_probe_write(cpu, last, size, stack->access))
        return STATUS_FAULT;
    return (first ^ last) & ~PAGE_MASK ? linear_probe_write(cpu, first, size, stack->access) : STATUS_OK;
}

int stack_push(CPU *cpu, Stack *stack, unsigned size, uint64_t value)
{
    uint64_t la, sp = (stack->sp - size) & stack->mask;
    if (stack_address(cpu, stack, sp, size, &la) || linear_write(cpu, la, size, value, stack->access))
        return STATUS_FAULT;
    stack->sp = sp;
    return STATUS_OK;
}

int stack_pop(CPU *cpu, Stack *stack, unsigned size, uint64_t *value)
{
    uint64_t la, sp = stack->sp & stack->mask;
    if (stack_address(cpu, stack, sp, size, &la) || linear_read(cpu, la, size, stack->access))
        return STATUS_FAULT;
    *value = cpu->data;
    stack->sp = sp + size;
    return STATUS_OK;
}

void stack_switch(CPU *cpu, const Stack *stack)
{
    Segment *ss = &cpu->seg[SS];
    ss->base = stack->base;
    ss->hidden = 0;
    ss->limit = stack->limit;
    ss->access = stack->segment_access;
    ss->selector = stack->selector;
    segment_update(cpu, SS);
    cpu->sp_mask = stack->mask;
    stack_commit(cpu, stack);
}
