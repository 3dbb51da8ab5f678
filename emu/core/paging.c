/* Address translation: the TLB, and the walk that fills it.
 * SDM Vol. 3, "Paging": 32-bit, PAE and 4-level paging, "Access Rights", "Accessed and Dirty Flags". */
#include "insn.h"

static void forget(TlbEntry *entry, bool global_too)
{
    if (global_too || !(entry->page & TLB_GLOBAL))
        *entry = (TlbEntry){0};
}

/* Forgets the entries of an address space: where few have been made since it was empty, those alone are looked at. */
static void flush(TlbContext *context, unsigned filled, bool global_too)
{
    if (filled <= TLB_LISTED) {
        for (unsigned i = 0; i < filled; i++) {
            forget(&context->supervisor[context->slots[i]], global_too);
            forget(&context->user[context->slots[i]], global_too);
        }
    } else if (global_too) {
        memset(context->supervisor, 0, TLB_SIZE * sizeof(TlbEntry));
        memset(context->user, 0, TLB_SIZE * sizeof(TlbEntry));
    } else {
        for (unsigned i = 0; i < TLB_SIZE; i++) {
            forget(&context->supervisor[i], false);
            forget(&context->user[i], false);
        }
    }
}

static void list_slot(CPU *cpu, unsigned slot)
{
    if (cpu->tlb_filled < TLB_LISTED)
        cpu->context->slots[cpu->tlb_filled++] = (uint16_t)slot;
    else
        cpu->tlb_filled = TLB_LISTED + 1;
}

void generation_renew(CPU *cpu)
{
    cpu->generation = ++cpu->last_generation;
    cpu_update_mode(cpu);
}

void generations_renew(CPU *cpu)
{
    for (unsigned i = 0; i < TLB_CONTEXTS; i++)
        cpu->contexts[i].generation = 0;
    generation_renew(cpu);
}

void tlb_flush(CPU *cpu, bool global_too)
{
    global_too = global_too || !(cpu->cr4 & CR4_PGE);
    flush(cpu->context, cpu->tlb_filled, global_too);
    if (global_too)
        cpu->tlb_has_large = cpu->tlb_filled = cpu->tlb_writable = 0;
    generation_renew(cpu);
}

static void forget_page(TlbEntry *supervisor, TlbEntry *user, uint64_t la)
{
    const unsigned slot = la >> 12 & (TLB_SIZE - 1);
    if ((supervisor[slot].read_tag | supervisor[slot].write_tag) == (la | PAGE_MASK))
        supervisor[slot] = (TlbEntry){0};
    if ((user[slot].read_tag | user[slot].write_tag) == (la | PAGE_MASK))
        user[slot] = (TlbEntry){0};
}

void tlb_flush_page(CPU *cpu, uint64_t la)
{
    if (cpu->tlb_has_large) {
        tlb_flush(cpu, true);
        return;
    }
    forget_page(cpu->tlb_supervisor, cpu->tlb_user, la);
    generation_renew(cpu);
}

/* --- address spaces: each has tables of its own, so that a VM entry or exit forgets nothing --- */

/* An address space that waits. */
static void context_flush(TlbContext *context, bool global_too)
{
    flush(context, context->filled, global_too);
    context->generation = 0;
    if (global_too)
        context->filled = context->has_large = context->writable = 0;
}

static void context_suspend(CPU *cpu)
{
    TlbContext *context = cpu->context;
    context->filled = cpu->tlb_filled;
    context->has_large = cpu->tlb_has_large;
    context->writable = cpu->tlb_writable;
    context->generation = cpu->generation;
    context->code_base = cpu->code_base;
    context->code_limit = cpu->code_limit;
}

static void context_resume(CPU *cpu, TlbContext *context)
{
    cpu->context = context;
    cpu->tlb_supervisor = context->supervisor;
    cpu->tlb_user = context->user;
    cpu->tlb_filled = context->filled;
    cpu->tlb_has_large = context->has_large;
    cpu->tlb_writable = context->writable;
    cpu->code_base = context->code_base;
    cpu->code_limit = context->code_limit;
    cpu->generation = context->generation ? context->generation : ++cpu->last_generation;
    context->used = ++cpu->context_switches;
}

/* The control bits that a TLB entry depends on. A guest whose VMM changes them loses its entries, as MOV to CR takes them
 * from others. */
static uint64_t paging_bits(const CPU *cpu)
{
    return (cpu->cr0 & (CR0_PG | CR0_PE | CR0_WP)) | (cpu->efer & (EFER_NXE | EFER_LMA)) << 32 |
           (cpu->cr4 & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP)) << 40;
}

void tlb_flush_all(CPU *cpu)
{
    for (unsigned i = 0; i < TLB_CONTEXTS; i++)
        if (&cpu->contexts[i] != cpu->context)
            context_flush(&cpu->contexts[i], true);
    tlb_flush(cpu, true);
}

void tlb_flush_matching(CPU *cpu, int64_t vpid, uint64_t eptp, bool global_too)
{
    for (unsigned i = 0; i < TLB_CONTEXTS; i++) {
        TlbContext *context = &cpu->contexts[i];
        if ((vpid >= 0 && context->vpid != vpid) || (eptp != UINT64_MAX && (context->eptp ^ eptp) >> 12))
            continue;
        if (context == cpu->context)
            tlb_flush(cpu, global_too);
        else
            context_flush(context, global_too);
    }
}

void tlb_flush_page_of(CPU *cpu, uint32_t vpid, uint64_t la)
{
    for (unsigned i = 0; i < TLB_CONTEXTS; i++) {
        TlbContext *context = &cpu->contexts[i];
        if (context->vpid != vpid)
            continue;
        if (context == cpu->context) {
            tlb_flush_page(cpu, la);
        } else if (context->has_large) {
            context_flush(context, true);
        } else {
            forget_page(context->supervisor, context->user, la);
            context->generation = 0;
        }
    }
}

void tlb_select(CPU *cpu, uint32_t vpid, uint64_t eptp)
{
    TlbContext *found = NULL, *oldest = NULL;
    context_suspend(cpu);
    for (unsigned i = 0; i < TLB_CONTEXTS && !found; i++) {
        TlbContext *context = &cpu->contexts[i];
        if (context->used && context->vpid == vpid && context->eptp == eptp)
            found = context;
        else if (context != cpu->context && (!oldest || context->used < oldest->used))
            oldest = context;
    }
    if (!found) {
        found = oldest;
        context_flush(found, true);
        found->vpid = vpid;
        found->eptp = eptp;
    } else if (found->paging != paging_bits(cpu)) {
        context_flush(found, true);
    }
    context_resume(cpu, found);
    found->paging = paging_bits(cpu);
    cpu->eptp = eptp;
}

static void protect(TlbEntry *tlb, uint64_t page)
{
    for (unsigned i = 0; i < TLB_SIZE; i++)
        if ((tlb[i].page & ~PAGE_MASK) == page)
            tlb[i].write_tag = 0;
}

void tlb_protect_page(CPU *cpu, uint64_t page)
{
    for (unsigned i = 0; i < TLB_CONTEXTS; i++) {
        const TlbContext *context = &cpu->contexts[i];
        if (context == cpu->context ? cpu->tlb_writable : context->writable) {
            protect(context->supervisor, page);
            protect(context->user, page);
        }
    }
}

/* What a walk found. */
typedef struct Walk {
    uint64_t pa;
    bool writable, user, executable, global, large, dirty;
} Walk;

/* Checks the rights gathered on the way down. SDM Vol. 3, "Determination of Access Rights". */
static bool allowed(const CPU *cpu, const Walk *walk, unsigned access, bool user)
{
    if (user && !walk->user)
        return false;
    if ((access & ACCESS_WRITE) && !walk->writable && (user || (cpu->cr0 & CR0_WP)))
        return false;
    if ((access & ACCESS_FETCH) && !walk->executable)
        return false;
    if (!user && walk->user && (access & ACCESS_FETCH) && (cpu->cr4 & CR4_SMEP))
        return false;
    if (!user && walk->user && !(access & ACCESS_FETCH) && (cpu->cr4 & CR4_SMAP) &&
        ((access & ACCESS_SYSTEM) || !(cpu->eflags & FLAG_AC)))
        return false;
    return true;
}

typedef struct Level {
    unsigned shift; /* of the index in the linear address */
    bool may_be_large;
} Level;

static int page_fault(CPU *cpu, uint64_t la, unsigned access, bool user, uint32_t why)
{
    if (access & WALK_PEEK)
        return STATUS_FAULT;
    uint32_t error = why | (access & ACCESS_WRITE ? PF_WR : 0) | (user ? PF_US : 0);
    if ((access & ACCESS_FETCH) && ((cpu->efer & EFER_NXE) || (cpu->cr4 & CR4_SMEP)))
        error |= PF_ID;
    return fault_page(cpu, la, error);
}

/* Where a paging structure lies: its address is guest-physical where EPT is in use. */
static int structure_address(CPU *cpu, uint64_t la, unsigned access, uint64_t gpa, uint64_t *pa)
{
    *pa = gpa;
    if (likely(!cpu->eptp))
        return STATUS_OK;
    unsigned rights;
    const EptAccess how = {.access = access, .has_la = true, .of_walk = true, .la = la};
    return ept_translate(cpu, gpa, &how, pa, &rights);
}

/* Walks the tables for `la` and sets accessed and dirty flags where the access is allowed. */
static int walk(CPU *cpu, uint64_t la, unsigned access, bool user, Walk *out)
{
    static const Level legacy[] = {{22, true}, {12, false}};
    static const Level pae[] = {{21, true}, {12, false}};
    static const Level four[] = {{39, false}, {30, true}, {21, true}, {12, false}};
    const bool wide = cpu->cr4 & CR4_PAE;
    const unsigned size = wide ? 8 : 4;
    const Level *levels = cpu->long_mode ? four : wide ? pae : legacy;
    const unsigned count = cpu->long_mode ? 4 : 2;
    const uint64_t physical = (1ull << cpu->model->physical_bits) - 1;
    const uint64_t address_mask = wide ? physical & ~PAGE_MASK : 0xfffff000;
    uint64_t table = cpu->cr3 & (cpu->long_mode ? address_mask : 0xfffff000);
    uint64_t reserved = 0;
    if (wide) {
        reserved = ~physical & 0x000ffffffffff000ull;
        if (!cpu->long_mode)
            reserved = ~physical & 0x7ffffffffffff000ull;
        if (!(cpu->efer & EFER_NXE))
            reserved |= PTE_XD;
    }

    if (wide && !cpu->long_mode) {
        uint64_t pdpte = cpu->pdpte[la >> 30 & 3];
        if (!(pdpte & PTE_P))
            return page_fault(cpu, la, access, user, 0);
        table = pdpte & address_mask;
    }
    *out = (Walk){.writable = true, .user = true, .executable = true};
    uint64_t entries[4], places[4], gpas[4];
    for (unsigned level = 0; level < count; level++) {
        const unsigned shift = levels[level].shift;
        const uint64_t gpa = table + (la >> shift & (wide ? 511 : 1023)) * size;
        uint64_t place;
        if (structure_address(cpu, la, access & WALK_PEEK, gpa, &place))
            return STATUS_FAULT;
        uint64_t entry = bus_read(cpu->bus, place, size);
        if (!(entry & PTE_P))
            return page_fault(cpu, la, access, user, 0);
        bool large = levels[level].may_be_large && (entry & PTE_PS) && (wide || (cpu->cr4 & CR4_PSE));
        uint64_t forbidden = reserved;
        if (wide && (entry & PTE_PS) && !levels[level].may_be_large && level + 1 < count)
            forbidden |= PTE_PS;
        if (large && wide)
            forbidden |= ((1ull << shift) - 1) & 0xffffe000;
        if (large && !wide)
            forbidden |= 0x003fe000 & ~(((1ull << (cpu->model->physical_bits > 40 ? 8 :
                                       cpu->model->physical_bits > 32 ? cpu->model->physical_bits - 32 : 0)) - 1) << 13);
        if (entry & forbidden)
            return page_fault(cpu, la, access, user, PF_P | PF_RSVD);
        out->writable = out->writable && (entry & PTE_RW);
        out->user = out->user && (entry & PTE_US);
        if (wide && (entry & PTE_XD))
            out->executable = false;
        entries[level] = entry;
        places[level] = place;
        gpas[level] = gpa;
        if (level + 1 == count || large) {
            if (!(access & WALK_PEEK) && !allowed(cpu, out, access, user))
                return page_fault(cpu, la, access, user, PF_P);
            uint64_t offset = (1ull << shift) - 1;
            if (large && !wide) /* PSE-36: bits 13 to 20 are address bits 32 to 39 */
                out->pa = (entry & 0xffc00000) | (entry >> 13 & 0xff) << 32 | (la & offset);
            else
                out->pa = (entry & address_mask & ~offset) | (la & offset);
            out->global = (entry & PTE_G) && (cpu->cr4 & CR4_PGE);
            out->large = large;
            if (access & WALK_PEEK)
                return STATUS_OK;
            uint64_t set = PTE_A | (access & ACCESS_WRITE ? PTE_D : 0);
            for (unsigned i = 0; i <= level; i++) {
                uint64_t want = i == level ? set : PTE_A;
                if ((entries[i] & want) == want)
                    continue;
                if (structure_address(cpu, la, ACCESS_WRITE, gpas[i], &places[i]))
                    return STATUS_FAULT;
                bus_write(cpu->bus, places[i], entries[i] | want, size);
            }
            out->dirty = (entry | set) & PTE_D;
            return STATUS_OK;
        }
        table = entry & address_mask;
    }
    return STATUS_OK; /* not reached: the last level returns */
}

static bool canonical(const CPU *cpu, uint64_t la)
{
    return !cpu->long_mode || (uint64_t)((int64_t)(la << 16) >> 16) == la;
}

int mmu_translate(CPU *cpu, uint64_t la, unsigned access, uint64_t *pa)
{
    const bool user = cpu->cpl == 3 && !(access & ACCESS_SYSTEM);
    if (!cpu->long_mode)
        la &= 0xffffffff;
    TlbEntry *entry = &(user ? cpu->tlb_user : cpu->tlb_supervisor)[la >> 12 & (TLB_SIZE - 1)];
    const uint64_t tag = la | PAGE_MASK;
    const bool writable = !(access & ACCESS_WRITE) || (entry->page & TLB_CODE) || entry->write_tag == tag;
    if (entry->read_tag == tag && writable &&
        !((access & ACCESS_FETCH) && (entry->page & TLB_NX)) && !(cpu->cr4 & (CR4_SMAP | CR4_SMEP))) {
        *pa = (entry->page & ~PAGE_MASK) | (la & PAGE_MASK);
        return STATUS_OK;
    }
    Walk walked = {.pa = la, .writable = true, .user = true, .executable = true, .dirty = true};
    cpu->page_walks += (cpu->cr0 & CR0_PG) || cpu->eptp;
    if (cpu->cr0 & CR0_PG) {
        if (unlikely(!canonical(cpu, la)))
            return fault_gp(cpu, 0);
        int status = walk(cpu, la, access, user, &walked);
        if (status)
            return status;
    }
    unsigned ept_rights = EPT_R | EPT_W | EPT_X;
    if (cpu->eptp) {
        const EptAccess how = {.access = access, .has_la = true, .la = la};
        if (ept_translate(cpu, walked.pa, &how, &walked.pa, &ept_rights))
            return STATUS_FAULT;
    }
    walked.pa &= cpu->bus->a20_mask;
    *pa = walked.pa;
    if (!(ept_rights & EPT_R))
        return STATUS_OK; /* to be executed, not read */
    if (cpu->cr4 & (CR4_SMAP | CR4_SMEP))
        return STATUS_OK; /* rights depend on EFLAGS.AC and on the kind of access: nothing is cached */

    /* Host memory alone is cached; devices are asked each time. */
    const uint64_t page = walked.pa & ~PAGE_MASK;
    Region *reads = bus_find(cpu->bus, page, REGION_READ);
    if (!reads || !reads->host)
        return STATUS_OK;
    const uint8_t *host = reads->host + (page - reads->base);
    uint8_t *flags = &reads->pages[(page - reads->base) >> 12];
    if (*flags & PAGE_HOOK)
        return STATUS_OK;
    *entry = (TlbEntry){.read_tag = tag, .addend = (uint64_t)(uintptr_t)host - (la & ~PAGE_MASK)};
    entry->page = page | (walked.global ? TLB_GLOBAL : 0) | (walked.large ? TLB_LARGE : 0) |
                  (walked.executable && (ept_rights & EPT_X) ? 0 : TLB_NX);
    cpu->tlb_has_large |= walked.large;
    list_slot(cpu, la >> 12 & (TLB_SIZE - 1));
    /* Writes go the fast way where the page is plain memory that is marked dirty already, holds no code (nor will it in a
     * moment, as after a fetch), and the page tables allow and record it. */
    Region *writes = bus_find(cpu->bus, page, REGION_WRITE);
    if (!writes || !writes->host || writes->host + (page - writes->base) != host)
        return STATUS_OK;
    if (access & ACCESS_WRITE)
        *flags |= PAGE_DIRTY;
    if (!(*flags & PAGE_DIRTY) || (access & ACCESS_FETCH) || !walked.dirty || !(ept_rights & EPT_W) ||
        !(walked.writable || (!user && !(cpu->cr0 & CR0_WP))))
        return STATUS_OK;
    if (*flags & PAGE_CODE) {
        entry->page |= TLB_CODE;
    } else {
        entry->write_tag = tag;
        cpu->tlb_writable = 1;
    }
    return STATUS_OK;
}

bool mmu_peek(CPU *cpu, uint64_t la, uint64_t *pa)
{
    if (!cpu->long_mode)
        la &= 0xffffffff;
    Walk walked = {.pa = la};
    if ((cpu->cr0 & CR0_PG) && (!canonical(cpu, la) || walk(cpu, la, WALK_PEEK, false, &walked)))
        return false;
    if (cpu->eptp) {
        unsigned rights;
        const EptAccess how = {.access = WALK_PEEK, .has_la = true, .la = la};
        if (ept_translate(cpu, walked.pa, &how, &walked.pa, &rights))
            return false;
    }
    *pa = walked.pa & cpu->bus->a20_mask;
    return true;
}

int mmu_load_pdptes(CPU *cpu, uint64_t cr3)
{
    const uint64_t reserved = ~((1ull << cpu->model->physical_bits) - 1) | 0x1e6; /* bits 1, 2, 5 to 8 */
    uint64_t loaded[4];
    for (unsigned i = 0; i < 4; i++) {
        uint64_t place = (cr3 & 0xffffffe0) + 8 * i;
        unsigned rights;
        if (cpu->eptp && ept_translate(cpu, place, &(EptAccess){.of_walk = true}, &place, &rights))
            return STATUS_FAULT;
        loaded[i] = bus_read(cpu->bus, place, 8);
        if ((loaded[i] & PTE_P) && (loaded[i] & reserved))
            return fault_gp(cpu, 0);
    }
    memcpy(cpu->pdpte, loaded, sizeof loaded);
    return STATUS_OK;
}
