/* Extended page tables: from guest-physical to physical addresses. SDM Vol. 3, "The Extended Page Table Mechanism (EPT)". */
#include "insn.h"

#define EPT_RIGHTS (EPT_R | EPT_W | EPT_X)
#define EPT_MEMORY_TYPE(entry) ((entry) >> 3 & 7)
#define EPT_LARGE 0x80ull
#define EPT_ACCESSED 0x100ull
#define EPT_DIRTY 0x200ull
#define EPTP_ACCESSED_DIRTY 0x40ull

/* Qualification of an EPT violation, SDM Vol. 3, "Exit Qualification for EPT Violations". */
#define VIOLATION_HAS_LA 0x80u
#define VIOLATION_OF_TRANSLATION 0x100u
#define VIOLATION_NMI_UNBLOCKING 0x1000u

static uint64_t physical_mask(const CPU *cpu) { return (1ull << cpu->model->physical_bits) - 1; }

/* SDM Vol. 3, "EPT Misconfigurations". */
static bool misconfigured(const CPU *cpu, uint64_t entry, unsigned level, bool leaf)
{
    const uint64_t caps = cpu->model->vmx.ept_vpid;
    const unsigned rights = entry & EPT_RIGHTS, type = EPT_MEMORY_TYPE(entry);
    if ((rights & (EPT_R | EPT_W)) == EPT_W)
        return true;
    if (rights == EPT_X && !(caps & EPT_CAP_EXECUTE_ONLY))
        return true;
    if (entry & ~physical_mask(cpu) & 0x000ffffffffff000ull)
        return true;
    if (!leaf) /* bits 3 to 7 of a PML4E, 3 to 6 of the others, whose bit 7 says that they map no page */
        return entry & 0xf8;
    if (level && (entry & ((1ull << (12 + 9 * level)) - 1) & ~PAGE_MASK))
        return true;
    if ((level == 2 && !(caps & EPT_CAP_1G)) || (level == 1 && !(caps & EPT_CAP_2M)))
        return true;
    return type == 2 || type == 3 || type == 7;
}

static int refuse(CPU *cpu, const EptAccess *access, uint64_t gpa, uint32_t reason, uint64_t qualification)
{
    if (access->access & WALK_PEEK)
        return STATUS_FAULT;
    vm_exit(cpu, reason, qualification);
    cpu->exit.guest_physical = gpa;
    cpu->exit.guest_linear = access->la;
    return STATUS_FAULT;
}

int ept_translate(CPU *cpu, uint64_t gpa, const EptAccess *access, uint64_t *pa, unsigned *rights)
{
    const bool flags = (cpu->eptp & EPTP_ACCESSED_DIRTY) != 0, peek = access->access & WALK_PEEK;
    /* With accessed and dirty flags a walk of the guest's paging structures counts as writing them. */
    const bool write = (access->access & ACCESS_WRITE) || (flags && access->of_walk && !peek);
    const bool fetch = access->access & ACCESS_FETCH;
    const unsigned want = (write ? EPT_W : 0) | (fetch ? EPT_X : 0) | (!write && !fetch ? EPT_R : 0);
    uint64_t table = cpu->eptp & physical_mask(cpu) & ~PAGE_MASK;
    uint64_t entries[4], places[4];
    unsigned allowed = EPT_RIGHTS, level = 3;
    bool missing = gpa >> 48;

    for (; !missing; level--) {
        places[level] = table + (gpa >> (12 + 9 * level) & 511) * 8;
        const uint64_t entry = entries[level] = bus_read(cpu->bus, places[level], 8);
        allowed &= (unsigned)entry;
        if (!(entry & EPT_RIGHTS)) {
            missing = true;
            break;
        }
        const bool leaf = level == 0 || (level < 3 && (entry & EPT_LARGE));
        if (misconfigured(cpu, entry, level, leaf))
            return refuse(cpu, access, gpa, EXIT_REASON_EPT_MISCONFIGURATION, 0);
        table = entry & physical_mask(cpu) & ~PAGE_MASK;
        if (leaf)
            break;
    }
    if (missing)
        allowed = 0;
    if ((missing || (want & ~allowed)) && !(peek && !missing)) {
        /* Setting an accessed or dirty flag reads the guest's entry and writes it in one access. */
        const bool read = access->of_walk || !(access->access & (ACCESS_WRITE | ACCESS_FETCH));
        uint64_t why = (read ? 1 : 0) | (write ? 2 : 0) | (fetch ? 4 : 0) |
                       (uint64_t)allowed << 3 | (access->has_la ? VIOLATION_HAS_LA : 0) |
                       (access->has_la && !access->of_walk ? VIOLATION_OF_TRANSLATION : 0) |
                       (cpu->iret_unblocked ? VIOLATION_NMI_UNBLOCKING : 0);
        return refuse(cpu, access, gpa, EXIT_REASON_EPT_VIOLATION, why);
    }
    if (flags && !peek)
        for (unsigned i = level; i < 4; i++) {
            const uint64_t set = EPT_ACCESSED | (i == level && write ? EPT_DIRTY : 0);
            if ((entries[i] & set) != set)
                bus_write(cpu->bus, places[i], entries[i] | set, 8);
        }
    const uint64_t offset = (1ull << (12 + 9 * level)) - 1;
    *pa = (table & ~offset) | (gpa & offset);
    /* A page that is not marked dirty yet must come here again when it is written. */
    *rights = flags && !write && !(entries[level] & EPT_DIRTY) ? allowed & ~EPT_W : allowed;
    return STATUS_OK;
}
