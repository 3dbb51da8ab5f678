/* How bodies reach memory: effective addresses, the TLB's fast path, and the slow path behind it.
 *
 * LOAD, STORE, MODIFY..., PUSH and POP are for MEMORY_BODY only: in the fast variants they give up (GO(slow)) at a TLB
 * miss, a page crossing, a device, an offset past the limit; in the slow variant they call mem_read() and mem_write(),
 * which do everything and can fault. Included by exec.h alone. */
#ifndef EMU_ACCESS_H
#define EMU_ACCESS_H

/* The slow path, access.c. Offset `ea` in segment `seg`; size 1, 2, 4 or 8. The value read goes to CPU.data. Return
 * STATUS_OK or STATUS_FAULT with nothing changed but accessed and dirty bits. */
int mem_read(CPU *cpu, unsigned seg, uint64_t ea, unsigned size);
int mem_write(CPU *cpu, unsigned seg, uint64_t ea, unsigned size, uint64_t value);
/* All the checks of a write, and of a read-modify-write: then mem_write of the same place cannot fault. */
int mem_probe_write(CPU *cpu, unsigned seg, uint64_t ea, unsigned size);
/* The same by linear address and without segment; access: ACCESS_READ, ACCESS_WRITE, with ACCESS_SYSTEM for accesses that
 * the processor makes itself. */
int linear_read(CPU *cpu, uint64_t la, unsigned size, unsigned access);
int linear_write(CPU *cpu, uint64_t la, unsigned size, uint64_t value, unsigned access);
int linear_probe_write(CPU *cpu, uint64_t la, unsigned size, unsigned access);

INLINE uint8_t load8(const uint8_t *host) { return *host; }
INLINE uint16_t load16(const uint8_t *host) { uint16_t value; memcpy(&value, host, 2); return value; }
INLINE uint32_t load32(const uint8_t *host) { uint32_t value; memcpy(&value, host, 4); return value; }
INLINE uint64_t load64(const uint8_t *host) { uint64_t value; memcpy(&value, host, 8); return value; }
INLINE void store8(uint8_t *host, uint8_t value) { *host = value; }
INLINE void store16(uint8_t *host, uint16_t value) { memcpy(host, &value, 2); }
INLINE void store32(uint8_t *host, uint32_t value) { memcpy(host, &value, 4); }
INLINE void store64(uint8_t *host, uint64_t value) { memcpy(host, &value, 8); }

/* Offset of the memory operand in its segment. */
INLINE uint64_t effective_address(const CPU *cpu, const Insn *insn)
{
    return (cpu->r[insn->base] + (cpu->r[insn->index] << insn->scale) + (uint64_t)(int64_t)insn->disp) &
           cpu->address_mask[insn->asize];
}

/* The same where there is no index and the address size is the mode's own. */
INLINE uint64_t simple_address(const CPU *cpu, const Insn *insn)
{
    return (cpu->r[insn->base] + (uint64_t)(int64_t)insn->disp) & cpu->default_mask;
}
#define OPERAND_ADDRESS() (in_simple ? simple_address(cpu, insn) : effective_address(cpu, insn))

/* Host address of an access, or NULL where only the slow path will do. For bodies that handle runs of elements. */
INLINE const uint8_t *fast_read(const CPU *cpu, unsigned seg, uint64_t ea, unsigned size)
{
    const uint64_t la = cpu->seg[seg].base + ea;
    const TlbEntry *entry = &cpu->tlb[la >> 12 & (TLB_SIZE - 1)];
    if (ea + size > cpu->seg[seg].read_end || ((la + size - 1) | PAGE_MASK) != entry->read_tag)
        return NULL;
    return (const uint8_t *)(uintptr_t)(la + entry->addend);
}

INLINE uint8_t *fast_write(const CPU *cpu, unsigned seg, uint64_t ea, unsigned size)
{
    const uint64_t la = cpu->seg[seg].base + ea;
    const TlbEntry *entry = &cpu->tlb[la >> 12 & (TLB_SIZE - 1)];
    if (ea + size > cpu->seg[seg].write_end || ((la + size - 1) | PAGE_MASK) != entry->write_tag)
        return NULL;
    return (uint8_t *)(uintptr_t)(la + entry->addend);
}

/* Declares `host`, the host address of an access; goes the slow way where only that will do. */
#define FAST_ADDRESS(host, seg_, ea_, size, kind)                                                            \
    const Segment *const segment_ = &cpu->seg[seg_];                                                         \
    const uint64_t offset_ = (ea_), la_ = segment_->base + offset_;                                          \
    const TlbEntry *const entry_ = &cpu->tlb[la_ >> 12 & (TLB_SIZE - 1)];                                    \
    if (unlikely(((la_ + (size) - 1) | PAGE_MASK) != entry_->kind##_tag)) GO(slow);                          \
    if (unlikely(offset_ + (size) > segment_->kind##_end)) GO(slow);                                         \
    uint8_t *const host = (uint8_t *)(uintptr_t)(la_ + entry_->addend)

/* Writes the state back before a slow access, since devices read the clock; the flags stay where they are. */
INLINE void slow_begin(CPU *cpu, const Insn *insn, int64_t left)
{
    cpu->clock->left = left - cum_before(insn);
    cpu->rip = insn_rip(cpu, insn);
}
#define SLOW_END() (left = cpu->clock->left + cum_before(insn))

#define LOAD_AT(bits, variable, seg_, ea_)                                              \
    uint##bits##_t variable;                                                            \
    do {                                                                                \
        if (!in_slow) {                                                                 \
            FAST_ADDRESS(host_, seg_, ea_, (bits) / 8, read);                           \
            variable = load##bits(host_);                                               \
        } else {                                                                        \
            slow_begin(cpu, insn, left);                                                \
            int status_ = mem_read(cpu, seg_, ea_, (bits) / 8);                         \
            SLOW_END();                                                                 \
            if (unlikely(status_)) GO(exit_fault);                                      \
            variable = (uint##bits##_t)cpu->data;                                       \
        }                                                                               \
    } while (0)

#define STORE_AT(bits, value_, seg_, ea_)                                               \
    do {                                                                                \
        if (!in_slow) {                                                                 \
            FAST_ADDRESS(host_, seg_, ea_, (bits) / 8, write);                          \
            store##bits(host_, (uint##bits##_t)(value_));                               \
        } else {                                                                        \
            slow_begin(cpu, insn, left);                                                \
            int status_ = mem_write(cpu, seg_, ea_, (bits) / 8, (uint##bits##_t)(value_)); \
            SLOW_END();                                                                 \
            if (unlikely(status_)) GO(exit_fault);                                      \
        }                                                                               \
    } while (0)

/* The memory operand of the instruction. */
#define LOAD(bits, variable) LOAD_AT(bits, variable, insn->seg, OPERAND_ADDRESS())
#define STORE(bits, value) STORE_AT(bits, value, insn->seg, OPERAND_ADDRESS())

/* Read, change, write: MODIFY declares `variable` and checks that the write cannot fault; MODIFY_STORE ends it. */
#define MODIFY(bits, variable) MODIFY_AT(bits, variable, effective_address(cpu, insn))
#define MODIFY_AT(bits, variable, ea_)                                                  \
    uint##bits##_t variable;                                                            \
    uint8_t *modify_host_ = NULL;                                                       \
    uint64_t modify_ea_ = (ea_);                                                        \
    do {                                                                                \
        if (!in_slow) {                                                                 \
            FAST_ADDRESS(host_, insn->seg, modify_ea_, (bits) / 8, write);              \
            modify_host_ = host_;                                                       \
            variable = load##bits(modify_host_);                                        \
        } else {                                                                        \
            slow_begin(cpu, insn, left);                                                \
            int status_ = mem_probe_write(cpu, insn->seg, modify_ea_, (bits) / 8);      \
            if (!status_) status_ = mem_read(cpu, insn->seg, modify_ea_, (bits) / 8);   \
            SLOW_END();                                                                 \
            if (unlikely(status_)) GO(exit_fault);                                      \
            variable = (uint##bits##_t)cpu->data;                                       \
        }                                                                               \
    } while (0)

#define MODIFY_STORE(bits, value_)                                                      \
    do {                                                                                \
        if (!in_slow) {                                                                 \
            store##bits(modify_host_, (uint##bits##_t)(value_));                        \
        } else {                                                                        \
            slow_begin(cpu, insn, left);                                                \
            int status_ = mem_write(cpu, insn->seg, modify_ea_, (bits) / 8, (uint##bits##_t)(value_)); \
            SLOW_END();                                                                 \
            if (unlikely(status_)) GO(exit_fault);                                      \
        }                                                                               \
    } while (0)

/* The stack, of a size that does not depend on the operand. RSP moves after the access. */
INLINE void set_sp(CPU *cpu, uint64_t sp)
{
    cpu->r[RSP] = (cpu->r[RSP] & ~cpu->sp_mask) | (sp & cpu->sp_mask);
}

#define PUSH(bits, value_)                                                              \
    do {                                                                                \
        uint64_t sp_ = (cpu->r[RSP] - (bits) / 8) & cpu->sp_mask;                       \
        STORE_AT(bits, value_, SS, sp_);                                                \
        set_sp(cpu, sp_);                                                               \
    } while (0)

/* Declares `variable`; RSP is not moved: POP_END does that once nothing can fault any more. */
#define POP(bits, variable) LOAD_AT(bits, variable, SS, cpu->r[RSP] & cpu->sp_mask)
#define POP_END(bits) set_sp(cpu, cpu->r[RSP] + (bits) / 8)

#endif
