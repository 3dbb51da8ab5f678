/* The slow path of memory accesses: segment checks as the manual has them, accesses across pages, devices, alignment
 * checks, hooks. SDM Vol. 3, "Limit Checking", "Type Checking", "Alignment Checking". */
#include "insn.h"
#include "access.h"

/* #SS for the stack segment, #GP for the others; error code 0. */
static int segment_fault(CPU *cpu, unsigned seg) { return seg == SS ? fault_ss(cpu, 0) : fault_gp(cpu, 0); }

/* May [ea, ea + size) of the segment be accessed? Gives its linear address. */
static int check_segment(CPU *cpu, unsigned seg, uint64_t ea, unsigned size, bool write, uint64_t *la)
{
    const Segment *segment = &cpu->seg[seg];
    if (cpu->code64) {
        *la = (seg == FS || seg == GS ? segment->base : 0) + ea;
        uint64_t last = *la + size - 1;
        if ((uint64_t)((int64_t)(*la << 16) >> 16) != *la || (uint64_t)((int64_t)(last << 16) >> 16) != last)
            return segment_fault(cpu, seg);
        return STATUS_OK;
    }
    *la = (segment->base + ea) & 0xffffffff;
    if (cpu->protected_mode) {
        if (segment->access & AR_UNUSABLE)
            return segment_fault(cpu, seg);
        const uint32_t type = segment->access & AR_TYPE;
        if (write ? (type & AR_CODE) || !(type & AR_RW) : (type & AR_CODE) && !(type & AR_RW))
            return segment_fault(cpu, seg);
    }
    const uint64_t last = ea + size - 1;
    if ((segment->access & (AR_CODE | AR_DC)) == AR_DC) { /* expand-down: offsets above the limit */
        const uint64_t top = segment->access & AR_DB ? 0xffffffff : 0xffff;
        if (ea <= segment->limit || last > top)
            return segment_fault(cpu, seg);
    } else if (last > segment->limit) {
        return segment_fault(cpu, seg);
    }
    return STATUS_OK;
}

static bool misaligned(const CPU *cpu, uint64_t la, unsigned size)
{
    return (la & (size - 1)) && cpu->cpl == 3 && (cpu->cr0 & CR0_AM) && (cpu->eflags & FLAG_AC);
}

/* Bytes of an access that lie in its first page. */
static unsigned in_first_page(uint64_t la, unsigned size)
{
    uint64_t room = PAGE_SIZE - (la & PAGE_MASK);
    return room < size ? (unsigned)room : size;
}

static uint64_t wrap(const CPU *cpu, uint64_t la) { return cpu->long_mode ? la : la & 0xffffffff; }

/* Host address of an access within a page that the TLB knows and nobody watches; else NULL. */
static uint8_t *known_address(const CPU *cpu, uint64_t la, unsigned size, unsigned access)
{
    const bool user = cpu->cpl == 3 && !(access & ACCESS_SYSTEM);
    const TlbEntry *entry = &(user ? cpu->tlb_user : cpu->tlb_supervisor)[la >> 12 & (TLB_SIZE - 1)];
    const uint64_t tag = access & ACCESS_WRITE ? entry->write_tag : entry->read_tag;
    if (((la + size - 1) | PAGE_MASK) != tag || cpu->hooks_memory || cpu->breakpoints)
        return NULL;
    return (uint8_t *)(uintptr_t)(la + entry->addend);
}

int linear_read(CPU *cpu, uint64_t la, unsigned size, unsigned access)
{
    uint64_t pa, next;
    la = wrap(cpu, la);
    if (!(access & ACCESS_SYSTEM) && unlikely(misaligned(cpu, la, size)))
        return fault_error(cpu, VECTOR_AC, 0);
    const uint8_t *host = known_address(cpu, la, size, access);
    if (likely(host != NULL)) {
        switch (size) {
        case 1: cpu->data = load8(host); return STATUS_OK;
        case 2: cpu->data = load16(host); return STATUS_OK;
        case 4: cpu->data = load32(host); return STATUS_OK;
        case 8: cpu->data = load64(host); return STATUS_OK;
        default: break;
        }
    }
    if (mmu_translate(cpu, la, access, &pa))
        return STATUS_FAULT;
    const unsigned first = in_first_page(la, size);
    if (likely(first == size)) {
        cpu->data = bus_read(cpu->bus, pa, size);
    } else {
        if (mmu_translate(cpu, wrap(cpu, la + first), access, &next))
            return STATUS_FAULT;
        uint64_t value = 0;
        for (unsigned i = 0; i < size; i++)
            value |= bus_read(cpu->bus, i < first ? pa + i : next + (i - first), 1) << 8 * i;
        cpu->data = value;
    }
    if (unlikely(cpu->breakpoints) && !(access & ACCESS_SYSTEM))
        debug_access(cpu, la, size, DEBUG_READ);
    if (unlikely(cpu->hooks_memory) && cpu->hook)
        cpu->hook(cpu->hook_owner, HOOK_MEMORY_READ, la, size, cpu->data);
    return STATUS_OK;
}

int linear_probe_write(CPU *cpu, uint64_t la, unsigned size, unsigned access)
{
    uint64_t pa;
    la = wrap(cpu, la);
    if (!(access & ACCESS_SYSTEM) && unlikely(misaligned(cpu, la, size)))
        return fault_error(cpu, VECTOR_AC, 0);
    if (likely(known_address(cpu, la, size, access | ACCESS_WRITE) != NULL))
        return STATUS_OK;
    const unsigned first = in_first_page(la, size);
    if (mmu_translate(cpu, la, access | ACCESS_WRITE, &pa))
        return STATUS_FAULT;
    if (first < size && mmu_translate(cpu, wrap(cpu, la + first), access | ACCESS_WRITE, &pa))
        return STATUS_FAULT;
    return STATUS_OK;
}

int linear_write(CPU *cpu, uint64_t la, unsigned size, uint64_t value, unsigned access)
{
    uint64_t pa, next;
    la = wrap(cpu, la);
    if (!(access & ACCESS_SYSTEM) && unlikely(misaligned(cpu, la, size)))
        return fault_error(cpu, VECTOR_AC, 0);
    uint8_t *host = known_address(cpu, la, size, access | ACCESS_WRITE);
    if (likely(host != NULL)) {
        switch (size) {
        case 1: store8(host, (uint8_t)value); return STATUS_OK;
        case 2: store16(host, (uint16_t)value); return STATUS_OK;
        case 4: store32(host, (uint32_t)value); return STATUS_OK;
        case 8: store64(host, value); return STATUS_OK;
        default: break;
        }
    }
    if (mmu_translate(cpu, la, access | ACCESS_WRITE, &pa))
        return STATUS_FAULT;
    const unsigned first = in_first_page(la, size);
    if (likely(first == size)) {
        bus_write(cpu->bus, pa, value, size);
    } else {
        if (mmu_translate(cpu, wrap(cpu, la + first), access | ACCESS_WRITE, &next))
            return STATUS_FAULT;
        for (unsigned i = 0; i < size; i++)
            bus_write(cpu->bus, i < first ? pa + i : next + (i - first), value >> 8 * i & 0xff, 1);
    }
    if (unlikely(cpu->breakpoints) && !(access & ACCESS_SYSTEM))
        debug_access(cpu, la, size, DEBUG_WRITE);
    if (unlikely(cpu->hooks_memory) && cpu->hook)
        cpu->hook(cpu->hook_owner, HOOK_MEMORY_WRITE, la, size, value);
    return STATUS_OK;
}

int mem_read(CPU *cpu, unsigned seg, uint64_t ea, unsigned size)
{
    uint64_t la;
    return check_segment(cpu, seg, ea, size, false, &la) ? STATUS_FAULT : linear_read(cpu, la, size, ACCESS_READ);
}

int mem_write(CPU *cpu, unsigned seg, uint64_t ea, unsigned size, uint64_t value)
{
    uint64_t la;
    return check_segment(cpu, seg, ea, size, true, &la) ? STATUS_FAULT : linear_write(cpu, la, size, value, ACCESS_READ);
}

int mem_probe_write(CPU *cpu, unsigned seg, uint64_t ea, unsigned size)
{
    uint64_t la;
    return check_segment(cpu, seg, ea, size, true, &la) ? STATUS_FAULT : linear_probe_write(cpu, la, size, ACCESS_READ);
}
