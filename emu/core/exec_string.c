/* String instructions and their repetition. SDM Vol. 1, "String Operations"; Vol. 2, "REP/REPE/REPZ/REPNE/REPNZ".
 *
 * Without a prefix they are hot bodies like any other. With one, each iteration ends at an instruction boundary: it counts
 * as an instruction, and when the clocks run out the instruction is left with RIP on itself, to be come back to. Between
 * two boundaries that matter iterations are done in runs, on host memory, as far as a page goes. */
#include "operations.h"

#define SI(cpu, insn) ((cpu)->r[RSI] & (cpu)->address_mask[(insn)->asize])
#define DI(cpu, insn) ((cpu)->r[RDI] & (cpu)->address_mask[(insn)->asize])

INLINE int64_t direction(const CPU *cpu, unsigned size) { return cpu->eflags & FLAG_DF ? -(int64_t)size : (int64_t)size; }

INLINE void advance(CPU *cpu, const Insn *insn, unsigned number, int64_t distance)
{
    set_by_asize(cpu, number, cpu->r[number] + (uint64_t)distance, insn->asize);
}

#define SINGLE_BODIES(_, bits, letter)                                                                        \
    MEMORY_BODY(exec_movs##letter)                                                                            \
    {                                                                                                         \
        LOAD_AT(bits, value, insn->seg, SI(cpu, insn));                                                       \
        STORE_AT(bits, value, ES, DI(cpu, insn));                                                             \
        advance(cpu, insn, RSI, direction(cpu, (bits) / 8));                                                  \
        advance(cpu, insn, RDI, direction(cpu, (bits) / 8));                                                  \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_stos##letter)                                                                            \
    {                                                                                                         \
        STORE_AT(bits, cpu->r[RAX], ES, DI(cpu, insn));                                                       \
        advance(cpu, insn, RDI, direction(cpu, (bits) / 8));                                                  \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_lods##letter)                                                                            \
    {                                                                                                         \
        LOAD_AT(bits, value, insn->seg, SI(cpu, insn));                                                       \
        SET_R##bits(GPR(RAX), value);                                                                         \
        advance(cpu, insn, RSI, direction(cpu, (bits) / 8));                                                  \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_cmps##letter)                                                                            \
    {                                                                                                         \
        LOAD_AT(bits, first, insn->seg, SI(cpu, insn));                                                       \
        LOAD_AT(bits, second, ES, DI(cpu, insn));                                                             \
        DIFFERENCE(bits, first, second, 0);                                                                   \
        (void)result;                                                                                         \
        advance(cpu, insn, RSI, direction(cpu, (bits) / 8));                                                  \
        advance(cpu, insn, RDI, direction(cpu, (bits) / 8));                                                  \
        NEXT;                                                                                                 \
    }                                                                                                         \
    MEMORY_BODY(exec_scas##letter)                                                                            \
    {                                                                                                         \
        LOAD_AT(bits, value, ES, DI(cpu, insn));                                                              \
        DIFFERENCE(bits, cpu->r[RAX], value, 0);                                                              \
        (void)result;                                                                                         \
        advance(cpu, insn, RDI, direction(cpu, (bits) / 8));                                                  \
        NEXT;                                                                                                 \
    }
#define STRING_SIZES(X, ...) X(__VA_ARGS__, 8, b) X(__VA_ARGS__, 16, w) X(__VA_ARGS__, 32, d) X(__VA_ARGS__, 64, q)
STRING_SIZES(SINGLE_BODIES, )

/* --- repetition --- */

/* One visit of a repeated instruction. */
typedef struct Repeat {
    CPU *cpu;
    const Insn *insn;
    unsigned size;     /* of an element, in bytes */
    int64_t step;      /* from one element to the next: size or -size */
    uint64_t wanted;   /* iterations that this visit may do */
    uint64_t done;
    bool ended;        /* by the result of a comparison */
} Repeat;

static uint64_t count_left(const CPU *cpu, const Insn *insn) { return cpu->r[RCX] & cpu->address_mask[insn->asize]; }

/* An iteration begins as long as a clock is left; the first one always does. */
static Repeat repeat_begin(CPU *cpu, const Insn *insn, unsigned size)
{
    const RowClocks *clocks = &cpu->clocks[insn->row];
    const uint64_t count = count_left(cpu, insn);
    if (cpu->rep_resumed)
        cpu->clock->left += clocks->rep;
    cpu->rep_resumed = 0;
    const int64_t left = cpu->clock->left - clocks->rep;
    const uint64_t each = clocks->variable ? clocks->variable : 1;
    const uint64_t wanted = cpu->mode & MODE_SINGLE || left <= 0 ? 1 : 1 + (uint64_t)(left - 1) / each;
    return (Repeat){.cpu = cpu, .insn = insn, .size = size, .step = direction(cpu, size),
                    .wanted = wanted < count ? wanted : count};
}

/* Settles `count` iterations that are done. */
static void repeat_done(Repeat *repeat, uint64_t count)
{
    CPU *cpu = repeat->cpu;
    advance(cpu, repeat->insn, RCX, -(int64_t)count);
    cpu->clock->left -= (int64_t)(count * cpu->clocks[repeat->insn->row].variable);
    repeat->done += count;
    if (unlikely(cpu->clock->leave))
        repeat->wanted = repeat->done;
}

/* The run loop counts one instruction and the set-up for the visit, nothing for a fault. */
static int repeat_end(const Repeat *repeat, int status)
{
    CPU *cpu = repeat->cpu;
    if (unlikely(status)) {
        cpu->instructions += repeat->done;
        cpu->clock->left -= cpu->clocks[repeat->insn->row].rep;
        return status;
    }
    cpu->instructions += repeat->done ? repeat->done - 1 : 0;
    if (repeat->ended || count_left(cpu, repeat->insn) == 0)
        return STATUS_OK;
    cpu->rep_resumed = 1;
    cpu->rip = insn_rip(cpu, repeat->insn);
    return STATUS_BRANCH;
}

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* How many of `count` elements from ea on lie in one page, below the segment's end and the address size's wrap. */
static uint64_t run_length(const Repeat *repeat, const Segment *segment, uint64_t end, uint64_t ea, uint64_t count)
{
    const uint64_t in_page = (segment->base + ea) & PAGE_MASK;
    if (in_page + repeat->size > PAGE_SIZE || end < repeat->size || ea > end - repeat->size)
        return 0;
    if (repeat->step < 0)
        return smaller(count, smaller(in_page, ea) / repeat->size + 1);
    const uint64_t mask = repeat->cpu->address_mask[repeat->insn->asize];
    const uint64_t before_wrap = mask - ea < PAGE_SIZE ? mask - ea + 1 : PAGE_SIZE;
    return smaller(count, smaller(smaller(PAGE_SIZE - in_page, before_wrap), end - ea) / repeat->size);
}

/* Offset of the lowest of a run's bytes. */
static uint64_t run_start(const Repeat *repeat, uint64_t ea, uint64_t count)
{
    return repeat->step < 0 ? ea - (count - 1) * repeat->size : ea;
}

/* Host address of the first element of a run that is read, and how many of *count there are; NULL where only mem_read()
 * will do. */
static const uint8_t *run_read(const Repeat *repeat, unsigned seg, uint64_t ea, uint64_t *count)
{
    const Segment *segment = &repeat->cpu->seg[seg];
    const uint64_t length = run_length(repeat, segment, segment->read_end, ea, *count);
    const uint64_t start = run_start(repeat, ea, length);
    const uint8_t *host = length ? fast_read(repeat->cpu, seg, start, (unsigned)length * repeat->size) : NULL;
    *count = length;
    return host ? host + (ea - start) : NULL;
}

static uint8_t *run_write(const Repeat *repeat, unsigned seg, uint64_t ea, uint64_t *count)
{
    const Segment *segment = &repeat->cpu->seg[seg];
    const uint64_t length = run_length(repeat, segment, segment->write_end, ea, *count);
    const uint64_t start = run_start(repeat, ea, length);
    uint8_t *host = length ? fast_write(repeat->cpu, seg, start, (unsigned)length * repeat->size) : NULL;
    *count = length;
    return host ? host + (ea - start) : NULL;
}

/* Moves a run whose first elements are at `to` and `from`. Where a later read meets an earlier write the elements go one
 * by one, so that a pattern is repeated as the processor does it. */
static void move_run(const Repeat *repeat, uint8_t *to, const uint8_t *from, uint64_t count)
{
    const size_t size = repeat->size, bytes = count * size;
    const ptrdiff_t back = repeat->step < 0 ? (ptrdiff_t)(bytes - size) : 0;
    const uintptr_t ahead = repeat->step < 0 ? (uintptr_t)from - (uintptr_t)to : (uintptr_t)to - (uintptr_t)from;
    if (likely(ahead == 0 || ahead >= bytes)) {
        memmove(to - back, from - back, bytes);
        return;
    }
    for (; count; count--, to += repeat->step, from += repeat->step) {
        switch (size) {
        case 1: *to = *from; break;
        case 2: store16(to, load16(from)); break;
        case 4: store32(to, load32(from)); break;
        default: store64(to, load64(from)); break;
        }
    }
}

/* Fills a run: what is there already is copied behind itself. */
static void fill_run(const Repeat *repeat, uint8_t *first, uint64_t value, uint64_t count)
{
    const size_t size = repeat->size, bytes = count * size;
    uint8_t *low = repeat->step < 0 ? first - (bytes - size) : first;
    memcpy(low, &value, size);
    for (size_t filled = size; filled < bytes; filled *= 2)
        memcpy(low + filled, low, filled < bytes - filled ? filled : bytes - filled);
}

static int repeat_movs(CPU *cpu, const Insn *insn, unsigned size)
{
    Repeat repeat = repeat_begin(cpu, insn, size);
    int status = STATUS_OK;
    while (repeat.done < repeat.wanted) {
        const uint64_t si = SI(cpu, insn), di = DI(cpu, insn);
        uint64_t count = repeat.wanted - repeat.done;
        const uint8_t *from = run_read(&repeat, insn->seg, si, &count);
        uint8_t *to = from ? run_write(&repeat, ES, di, &count) : NULL;
        if (likely(to != NULL)) {
            move_run(&repeat, to, from, count);
        } else {
            if ((status = mem_read(cpu, insn->seg, si, size)) || (status = mem_write(cpu, ES, di, size, cpu->data)))
                break;
            count = 1;
        }
        advance(cpu, insn, RSI, repeat.step * (int64_t)count);
        advance(cpu, insn, RDI, repeat.step * (int64_t)count);
        repeat_done(&repeat, count);
    }
    return repeat_end(&repeat, status);
}

static int repeat_stos(CPU *cpu, const Insn *insn, unsigned size)
{
    Repeat repeat = repeat_begin(cpu, insn, size);
    const uint64_t value = low_bytes(cpu->r[RAX], size);
    int status = STATUS_OK;
    while (repeat.done < repeat.wanted) {
        const uint64_t di = DI(cpu, insn);
        uint64_t count = repeat.wanted - repeat.done;
        uint8_t *to = run_write(&repeat, ES, di, &count);
        if (likely(to != NULL)) {
            fill_run(&repeat, to, value, count);
        } else {
            if ((status = mem_write(cpu, ES, di, size, value)))
                break;
            count = 1;
        }
        advance(cpu, insn, RDI, repeat.step * (int64_t)count);
        repeat_done(&repeat, count);
    }
    return repeat_end(&repeat, status);
}

/* Of a run only the last element is seen. */
#define REPEAT_LODS(_, bits, letter)                                                                          \
    static int repeat_lods##letter(CPU *cpu, const Insn *insn)                                                \
    {                                                                                                         \
        Repeat repeat = repeat_begin(cpu, insn, (bits) / 8);                                                  \
        int status = STATUS_OK;                                                                               \
        while (repeat.done < repeat.wanted) {                                                                 \
            const uint64_t si = SI(cpu, insn);                                                                \
            uint64_t count = repeat.wanted - repeat.done;                                                     \
            const uint8_t *from = run_read(&repeat, insn->seg, si, &count);                                   \
            if (likely(from != NULL)) {                                                                       \
                SET_R##bits(GPR(RAX), load##bits(from + repeat.step * (int64_t)(count - 1)));                 \
            } else {                                                                                          \
                if ((status = mem_read(cpu, insn->seg, si, (bits) / 8)))                                      \
                    break;                                                                                    \
                SET_R##bits(GPR(RAX), cpu->data);                                                             \
                count = 1;                                                                                    \
            }                                                                                                 \
            advance(cpu, insn, RSI, repeat.step * (int64_t)count);                                            \
            repeat_done(&repeat, count);                                                                      \
        }                                                                                                     \
        return repeat_end(&repeat, status);                                                                   \
    }

/* The flags are those of the last comparison. `equal` is what goes on: ZF = 1 for REPE, 0 for REPNE. */
#define SET_COMPARED(bits, a_, b_)                  \
    do {                                            \
        int64_t fr, fd;                             \
        uint64_t cf;                                \
        DIFFERENCE(bits, a_, b_, 0);                \
        cpu->fr = fr;                               \
        cpu->fd = fd;                               \
        cpu->cf = cf;                               \
        repeat.ended = (result == 0) != equal;      \
    } while (0)

/* Position of the first element that ends the search, or the last one. */
#define SEARCH(bits, count, first, second)                                               \
    uint64_t place_ = 0;                                                                 \
    while (place_ + 1 < (count) && ((first) == (second)) == equal)                       \
        place_++

#define REPEAT_SCAS(_, bits, letter)                                                                          \
    static int repeat_scas##letter(CPU *cpu, const Insn *insn, bool equal)                                    \
    {                                                                                                         \
        Repeat repeat = repeat_begin(cpu, insn, (bits) / 8);                                                  \
        const uint##bits##_t sought = (uint##bits##_t)cpu->r[RAX];                                            \
        int status = STATUS_OK;                                                                               \
        while (repeat.done < repeat.wanted && !repeat.ended) {                                                \
            const uint64_t di = DI(cpu, insn);                                                                \
            uint64_t count = repeat.wanted - repeat.done;                                                     \
            const uint8_t *run = run_read(&repeat, ES, di, &count);                                           \
            if (likely(run != NULL)) {                                                                        \
                SEARCH(bits, count, sought, load##bits(run + repeat.step * (int64_t)place_));                 \
                SET_COMPARED(bits, sought, load##bits(run + repeat.step * (int64_t)place_));                  \
                count = place_ + 1;                                                                           \
            } else {                                                                                          \
                if ((status = mem_read(cpu, ES, di, (bits) / 8)))                                             \
                    break;                                                                                    \
                SET_COMPARED(bits, sought, cpu->data);                                                        \
                count = 1;                                                                                    \
            }                                                                                                 \
            advance(cpu, insn, RDI, repeat.step * (int64_t)count);                                            \
            repeat_done(&repeat, count);                                                                      \
        }                                                                                                     \
        return repeat_end(&repeat, status);                                                                   \
    }

#define REPEAT_CMPS(_, bits, letter)                                                                          \
    static int repeat_cmps##letter(CPU *cpu, const Insn *insn, bool equal)                                    \
    {                                                                                                         \
        Repeat repeat = repeat_begin(cpu, insn, (bits) / 8);                                                  \
        int status = STATUS_OK;                                                                               \
        while (repeat.done < repeat.wanted && !repeat.ended) {                                                \
            const uint64_t si = SI(cpu, insn), di = DI(cpu, insn);                                            \
            uint64_t count = repeat.wanted - repeat.done;                                                     \
            const uint8_t *first = run_read(&repeat, insn->seg, si, &count);                                  \
            const uint8_t *second = first ? run_read(&repeat, ES, di, &count) : NULL;                         \
            if (likely(second != NULL)) {                                                                     \
                SEARCH(bits, count, load##bits(first + repeat.step * (int64_t)place_),                        \
                       load##bits(second + repeat.step * (int64_t)place_));                                   \
                SET_COMPARED(bits, load##bits(first + repeat.step * (int64_t)place_),                         \
                             load##bits(second + repeat.step * (int64_t)place_));                             \
                count = place_ + 1;                                                                           \
            } else {                                                                                          \
                if ((status = mem_read(cpu, insn->seg, si, (bits) / 8)))                                      \
                    break;                                                                                    \
                const uint64_t value = cpu->data;                                                             \
                if ((status = mem_read(cpu, ES, di, (bits) / 8)))                                             \
                    break;                                                                                    \
                SET_COMPARED(bits, value, cpu->data);                                                         \
                count = 1;                                                                                    \
            }                                                                                                 \
            advance(cpu, insn, RSI, repeat.step * (int64_t)count);                                            \
            advance(cpu, insn, RDI, repeat.step * (int64_t)count);                                            \
            repeat_done(&repeat, count);                                                                      \
        }                                                                                                     \
        return repeat_end(&repeat, status);                                                                   \
    }

STRING_SIZES(REPEAT_LODS, )
STRING_SIZES(REPEAT_SCAS, )
STRING_SIZES(REPEAT_CMPS, )

#define REPEATED_BODIES(_, bits, letter)                                                \
    COLD_BODY(exec_rep_movs##letter) { return repeat_movs(cpu, insn, (bits) / 8); }     \
    COLD_BODY(exec_rep_stos##letter) { return repeat_stos(cpu, insn, (bits) / 8); }     \
    COLD_BODY(exec_rep_lods##letter) { return repeat_lods##letter(cpu, insn); }         \
    COLD_BODY(exec_repe_cmps##letter) { return repeat_cmps##letter(cpu, insn, true); }  \
    COLD_BODY(exec_repne_cmps##letter) { return repeat_cmps##letter(cpu, insn, false); } \
    COLD_BODY(exec_repe_scas##letter) { return repeat_scas##letter(cpu, insn, true); }  \
    COLD_BODY(exec_repne_scas##letter) { return repeat_scas##letter(cpu, insn, false); }
STRING_SIZES(REPEATED_BODIES, )
