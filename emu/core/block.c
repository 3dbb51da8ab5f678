/* The block cache.
 *
 * Blocks are carved from one arena, so a link between two of them fits in 32 bits, and are found by physical address and
 * mode. An address is part of a block only as an offset in its page: the same block serves every mapping of the page.
 * When the arena is full everything is forgotten, between two blocks. */
#include "block.h"

#include "decode.h"

#define ARENA_BYTES (16u << 20)
#define HASH_SIZE 8192u
#define PAGE_SLOTS 1024u

/* A physical page that holds blocks. */
typedef struct CodePage {
    uint64_t page; /* | 1 where in use */
    Block *blocks;
    bool written;      /* code in it has been modified since the last flush */
    uint64_t granules; /* bit n: a block holds a byte of [64 n, 64 n + 64) of the page; stale bits do no harm */
    struct CodePage *next;
} CodePage;

/* An instruction decoded on a page whose code is being written: modified code is decoded over and over, and most of it
 * has not changed. */
typedef struct Memo {
    uint64_t pa;
    uint32_t mode; /* | MEMO_USED */
    uint8_t bytes[INSTRUCTION_BYTES];
    Decoded decoded;
} Memo;
#define MEMO_USED 0x80000000u
#define MEMOS 256u

struct BlockCache {
    size_t used; /* of the arena, which lies behind */
    uint32_t flush_wanted;
    Block *hash[HASH_SIZE];
    CodePage *pages[PAGE_SLOTS];
    Memo memos[MEMOS];
    /* Instruction hooks: a bit map over a hash of linear page numbers, and one over offsets in a page. An instruction of a
     * page that has hooks counts as hooked where its offset is that of a hook in whatever page, so that what is decoded
     * does not depend on the mapping; the callback knows which addresses are meant. */
    uint64_t hook_pages[64], hook_offsets[64];
    uint8_t hooks;        /* HOOKED_*: which there are */
    uint32_t hook_version; /* of the two maps: part of the mode of blocks that were decoded with them */
    struct {
        Block block;
        Insn insns[3];
    } scratch; /* the block of an instruction that cannot be cached: across pages */
};

static size_t page_slot(uint64_t pa) { return (pa >> 12 ^ pa >> 22) % PAGE_SLOTS; }
static size_t hash_of(uint64_t pa, uint32_t mode) { return (pa ^ pa >> 13 ^ (uint64_t)mode << 5) % HASH_SIZE; }
static unsigned hook_bit(uint64_t la) { return (unsigned)(la >> 12 ^ la >> 24) & 4095; }
static bool has_bit(const uint64_t *map, unsigned bit) { return map[bit >> 6] >> (bit & 63) & 1; }
static void set_bit(uint64_t *map, unsigned bit) { map[bit >> 6] |= 1ull << (bit & 63); }

#define HEADER_BYTES ((sizeof(BlockCache) + PAGE_MASK) & ~PAGE_MASK)

size_t blocks_bytes(void) { return HEADER_BYTES + ARENA_BYTES; }

void blocks_create(CPU *cpu, void *memory) { cpu->blocks = memory; }

static uint8_t *arena(BlockCache *cache) { return (uint8_t *)cache + HEADER_BYTES; }

void blocks_flush(CPU *cpu)
{
    BlockCache *cache = cpu->blocks;
    if (cache->used) {
        for (size_t i = 0; i < PAGE_SLOTS; i++)
            for (CodePage *page = cache->pages[i]; page; page = page->next) {
                Region *region = bus_find(cpu->bus, page->page & ~PAGE_MASK, REGION_READ);
                if (region && region->host)
                    region->pages[((page->page & ~PAGE_MASK) - region->base) >> 12] &= (uint8_t)~PAGE_CODE;
            }
        memset(cache->hash, 0, sizeof cache->hash);
        memset(cache->pages, 0, sizeof cache->pages);
    }
    cache->used = 0;
    cache->flush_wanted = 0;
    generations_renew(cpu);
    tlb_flush_all(cpu); /* which knows of pages that they held code */
}

void cpu_forget_all(CPU *cpu)
{
    tlb_flush_all(cpu);
    cpu->blocks->flush_wanted = 1;
    clock_leave(cpu->clock);
}

static CodePage *find_page(const BlockCache *cache, uint64_t pa)
{
    CodePage *page = cache->pages[page_slot(pa)];
    while (page && page->page != (pa | PAGE_MASK))
        page = page->next;
    return page;
}

static uint64_t granules_of(uint64_t pa, size_t size)
{
    unsigned first = (unsigned)(pa & PAGE_MASK) >> 6, last = (unsigned)((pa & PAGE_MASK) + size - 1) >> 6;
    if (last > 63)
        last = 63;
    return (~0ull << first) & (~0ull >> (63 - last));
}

static void unhash(BlockCache *cache, const Block *block)
{
    Block **link = &cache->hash[hash_of(block->pa, block->mode)];
    while (*link && *link != block)
        link = &(*link)->hash_next;
    if (*link)
        *link = block->hash_next;
}

/* The instruction at physical `pa` has modified its own block: from now on it ends its block, so that the part before
 * what it writes stays valid. */
static void end_block_after(BlockCache *cache, uint64_t pa)
{
    Memo *memo = &cache->memos[pa % MEMOS];
    if (memo->pa == pa && (memo->mode & MEMO_USED))
        memo->decoded.ends = true;
}

static void *allocate(BlockCache *cache, size_t size)
{
    void *memory = arena(cache) + cache->used;
    cache->used += (size + 31) & ~(size_t)31;
    return memory;
}

/* Blocks that were decoded with other hooks must not be found any more. */
static void hooks_changed(CPU *cpu)
{
    BlockCache *cache = cpu->blocks;
    cache->hook_version = (cache->hook_version + 1) & 0xfff;
    if (!cache->hook_version)
        cache->flush_wanted = 1;
    generations_renew(cpu);
}

void blocks_hook(CPU *cpu, uint64_t first, uint64_t last)
{
    BlockCache *cache = cpu->blocks;
    if (last - first >= 4096 * PAGE_SIZE) {
        memset(cache->hook_pages, 0xff, sizeof cache->hook_pages);
    } else {
        for (uint64_t page = first & ~PAGE_MASK; page <= last && page >= (first & ~PAGE_MASK); page += PAGE_SIZE)
            set_bit(cache->hook_pages, hook_bit(page));
    }
    if (last - first >= PAGE_MASK) {
        memset(cache->hook_offsets, 0xff, sizeof cache->hook_offsets);
    } else {
        for (uint64_t la = first; la != last + 1; la++)
            set_bit(cache->hook_offsets, la & PAGE_MASK);
    }
    cache->hooks |= HOOKED_INSTRUCTION;
    hooks_changed(cpu);
}

void blocks_hook_blocks(CPU *cpu)
{
    memset(cpu->blocks->hook_pages, 0xff, sizeof cpu->blocks->hook_pages);
    cpu->blocks->hooks |= HOOKED_BLOCK;
    hooks_changed(cpu);
}

void blocks_unhook_all(CPU *cpu)
{
    memset(cpu->blocks->hook_pages, 0, sizeof cpu->blocks->hook_pages);
    memset(cpu->blocks->hook_offsets, 0, sizeof cpu->blocks->hook_offsets);
    cpu->blocks->hooks = 0;
    hooks_changed(cpu);
}

/* Finishes a decoded instruction for its place in a block. */
static void place(Insn *insn, const Decoded *decoded, unsigned offset, unsigned idx, unsigned cum)
{
    *insn = decoded->insn;
    insn->off = offset & 0xfff;
    insn->idx = idx & 31;
    insn->cum = (uint16_t)cum;
    if (decoded->offset64) {
        insn->base = REG_OFFSET;
        insn->disp = 0;
    } else if (decoded->relative)
        insn->imm += (int32_t)(offset + decoded->length);
    else if (insn->base == REG_RIP)
        insn->disp += (int32_t)(offset + decoded->length);
}

/* A write of [pa, pa + size) into a block that changes no more than the constants of one instruction, as most code that
 * modifies itself does: they are changed in place, even in a block that runs. False: the block must be retired. */
static bool patch(CPU *cpu, Block *block, uint64_t pa, size_t size)
{
    const Region *region = bus_find(cpu->bus, block->pa, REGION_READ);
    const uint64_t from = pa & PAGE_MASK;
    Insn *insn = (Insn *)(block + 1);
    if (pa < block->pa || (block->mode & MODE_HOOKS) || insn->fn == exec_wide_offset)
        return false;
    while (insn->len && insn->off + (uint64_t)insn->len <= from)
        insn++;
    const uint8_t *code = region->host + ((block->pa & ~PAGE_MASK) - region->base) + insn->off;
    Decoded decoded;
    if (from + size > insn->off + (uint64_t)insn->len || decode(cpu, code, insn->len, block->mode, &decoded) != DECODE_OK ||
        decoded.relative || (!insn->idx && decoded.components * cpu->event_clocks->next_component != block->entry))
        return false;
    /* The body must be the same one, or the variant of it that was taken. */
    if (insn->fn != decoded.insn.fn && insn->fn != decoded.quiet && insn->fn != pair_body(decoded.insn.fn, insn[1].fn))
        return false;
    Insn fresh;
    place(&fresh, &decoded, insn->off, insn->idx, insn->cum);
    fresh.fn = insn->fn;
    Insn same = fresh;
    same.imm = insn->imm;
    same.imm_hi = insn->imm_hi;
    same.disp = insn->disp;
    if (memcmp(&same, insn, sizeof same))
        return false;
    *insn = fresh;
    return true;
}

void blocks_written(CPU *cpu, uint64_t pa, size_t size)
{
    BlockCache *cache = cpu->blocks;
    CodePage *page = find_page(cache, pa & ~PAGE_MASK);
    if (!page || !(page->granules & granules_of(pa, size)))
        return;
    uint64_t granules = 0;
    bool patched = false;
    page->written = true;
    for (Block **link = &page->blocks; *link;) {
        Block *block = *link;
        const bool hit = block->pa < pa + size && pa < block->pa + block->bytes;
        if (hit && !patched && patch(cpu, block, pa, size))
            patched = true; /* the newest block; the others were ways into the middle of it, or will be needed no more */
        else if (hit) {
            const uint64_t writer = (block->pa & ~PAGE_MASK) | ((cpu->seg[CS].base + cpu->rip) & PAGE_MASK);
            if (writer >= block->pa && writer < block->pa + block->bytes)
                end_block_after(cache, writer);
            unhash(cache, block);
            *link = block->page_next;
            /* Links bypass every look-up: whoever comes here by one leaves at once. */
            ((Insn *)(block + 1))->fn = exit_stale;
            clock_leave(cpu->clock);
            continue;
        }
        granules |= granules_of(block->pa, block->bytes);
        link = &block->page_next;
    }
    page->granules = granules;
}

static Insn *pseudo(Insn *insn, Handler_t *fn, unsigned offset, unsigned idx, unsigned cum)
{
    *insn = (Insn){.fn = fn, .off = offset & 0xfff, .idx = idx & 31, .cum = (uint16_t)cum, .base = REG_ZERO,
                   .index = REG_ZERO, .imm = (int32_t)offset};
    return insn;
}

#define ALL_FLAGS (FLAG_O | FLAG_S | FLAG_Z | FLAG_A | FLAG_P | FLAG_C)

/* What the search for dead flags needs to know of an instruction. */
typedef struct FlagUse {
    uint8_t written, changed, tested;
    bool jumps; /* on a condition */
    Handler_t *quiet;
} FlagUse;

/* Takes the quiet variant of instructions whose flags are overwritten before anything can look at them. Between the two
 * stand only instructions that cannot fault or leave, so it makes no difference where a run is cut. */
static void drop_dead_flags(Insn *insns, const FlagUse *uses, unsigned count)
{
    unsigned live = ALL_FLAGS;
    for (unsigned i = count; i-- > 0;) {
        if (!uses[i].quiet) {
            live = ALL_FLAGS;
            continue;
        }
        if (!(uses[i].changed & live))
            insns[i].fn = uses[i].quiet;
        live = (live & ~(unsigned)uses[i].written) | uses[i].tested;
    }
}

/* Decodes an instruction of a page whose code is being written; *decoded is its memo. */
static DecodeStatus decode_again(CPU *cpu, const uint8_t *code, size_t available, uint64_t pa, uint32_t mode,
                                 const Decoded **decoded)
{
    Memo *memo = &cpu->blocks->memos[pa % MEMOS];
    *decoded = &memo->decoded;
    if (memo->pa == pa && memo->mode == (mode | MEMO_USED) && memo->decoded.length <= available &&
        !memcmp(memo->bytes, code, memo->decoded.length))
        return DECODE_OK;
    memo->mode = 0;
    const DecodeStatus status = decode(cpu, code, available, mode, &memo->decoded);
    if (status == DECODE_OK) {
        memo->pa = pa;
        memo->mode = mode | MEMO_USED;
        memcpy(memo->bytes, code, memo->decoded.length);
    }
    return status;
}

/* Decodes a block from `code`, the bytes of a page from `offset` up to `end`, to `block`. Returns how many instructions
 * it holds; 0 where the first one does not end within these bytes, with `status` saying why. */
static unsigned fill(CPU *cpu, Block *block, const uint8_t *code, unsigned offset, unsigned end, DecodeStatus *status)
{
    Insn *insns = (Insn *)(block + 1);
    Decoded fresh;
    const Decoded *decoded = &fresh;
    FlagUse uses[BLOCK_INSNS];
    unsigned count = 0, at = offset, cum = 0, before_last = 0, extra = 0;
    const CodePage *page = block->pa ? find_page(cpu->blocks, block->pa & ~PAGE_MASK) : NULL;
    const bool modified = page && page->written;
    const unsigned most = block->mode & MODE_SINGLE ? 1 : BLOCK_INSNS;
    const bool hooks = block->mode & MODE_HOOKS;
    if (hooks) {
        const unsigned kinds = (cpu->blocks->hooks & HOOKED_BLOCK) |
                               (has_bit(cpu->blocks->hook_offsets, offset) ? HOOKED_INSTRUCTION : 0);
        if (kinds)
            pseudo(&insns[extra++], exec_hooked, offset, 0, 0)->imm = (int32_t)kinds;
    }
    while (count < most && at < end) {
        if (hooks && count && has_bit(cpu->blocks->hook_offsets, at))
            break;
        const unsigned from = at - offset;
        *status = modified ? decode_again(cpu, code + from, end - at, block->pa + from, block->mode, &decoded)
                           : decode(cpu, code + from, end - at, block->mode, &fresh);
        if (*status != DECODE_OK)
            break;
        if (decoded->offset64) {
            if (count)
                break; /* it opens a block of its own */
            Insn *wide = pseudo(&insns[extra++], exec_wide_offset, offset, 0, 0);
            wide->imm = (int32_t)decoded->offset64;
            wide->imm_hi = (uint32_t)(decoded->offset64 >> 32);
        }
        if (cum + decoded->clocks > 60000)
            break;
        before_last = cum;
        cum += decoded->clocks;
        place(&insns[extra + count], decoded, at, count, cum);
        uses[count] = (FlagUse){decoded->flags_written, decoded->flags_changed, decoded->flags_tested,
                                 decoded->relative && !decoded->ends, decoded->quiet};
        if (!count)
            block->entry = (uint8_t)(decoded->components * cpu->event_clocks->next_component);
        at += decoded->length;
        count++;
        if (decoded->ends || decoded->offset64)
            break;
    }
    if (!count)
        return 0;
    drop_dead_flags(insns + extra, uses, count);
    for (unsigned i = 1; i < count; i++)
        if (uses[i].jumps) {
            Handler_t *pair = pair_body(insns[extra + i - 1].fn, insns[extra + i].fn);
            if (pair)
                insns[extra + i - 1].fn = pair;
        }
    pseudo(&insns[extra + count], hooks ? exec_onward_hooked : exec_onward, at, count, cum)->dst = (uint8_t)(extra + count);
    block->need = (int32_t)before_last + 1;
    block->bytes = (uint16_t)(at - offset);
    return extra + count + 1;
}

static Block *lookup(const BlockCache *cache, uint64_t pa, uint32_t mode, uint32_t window)
{
    Block *block = cache->hash[hash_of(pa, mode)];
    while (block && (block->pa != pa || block->mode != mode || block->window != window))
        block = block->hash_next;
    return block;
}

/* Room for the largest block: pseudo-instructions before and after. */
#define LARGEST_BLOCK (sizeof(Block) + (BLOCK_INSNS + 3) * sizeof(Insn))

/* Puts a decoded block under its address and marks its page as code. */
static bool publish(CPU *cpu, Block *block, Region *region)
{
    BlockCache *cache = cpu->blocks;
    CodePage *page = find_page(cache, block->pa & ~PAGE_MASK);
    if (!page) {
        page = allocate(cache, sizeof *page);
        *page = (CodePage){.page = block->pa | PAGE_MASK, .next = cache->pages[page_slot(block->pa)]};
        cache->pages[page_slot(block->pa)] = page;
    }
    uint8_t *flags = &region->pages[(block->pa - region->base) >> 12];
    if (!(*flags & PAGE_CODE)) {
        *flags |= PAGE_CODE;
        for (uint32_t i = 0; i < cpu->bus->cpu_count; i++)
            tlb_protect_page(cpu->bus->cpus[i], block->pa & ~PAGE_MASK);
    }
    page->granules |= granules_of(block->pa, block->bytes);
    block->page_next = page->blocks;
    page->blocks = block;
    Block **bucket = &cache->hash[hash_of(block->pa, block->mode)];
    block->hash_next = *bucket;
    *bucket = block;
    block->fixed = true;
    return true;
}

/* The slow way: an instruction across pages, at the edge of the CS limit, or in a device. Its bytes are fetched one page
 * at a time, only as far as it reaches, and it is decoded anew each time. */
static const Insn *uncached(CPU *cpu, uint64_t la, uint32_t mode)
{
    BlockCache *cache = cpu->blocks;
    uint8_t code[16];
    unsigned have = 0;
    DecodeStatus status;
    Block *block = &cache->scratch.block;
    uint64_t pa = 0;
    *block = (Block){.mode = mode | MODE_SINGLE};
    for (;;) {
        if (!cpu->code64 && cpu->rip + have > cpu->seg[CS].limit) {
            fault_gp(cpu, 0);
            return NULL;
        }
        uint64_t next = la + have;
        if (!cpu->long_mode)
            next &= 0xffffffff;
        if (have == 0 || (next & PAGE_MASK) == 0) {
            if (mmu_translate(cpu, next, ACCESS_FETCH, &pa))
                return NULL;
        }
        code[have++] = (uint8_t)bus_read(cpu->bus, pa++, 1);
        if (fill(cpu, block, code, (unsigned)(la & PAGE_MASK), (unsigned)(la & PAGE_MASK) + have, &status))
            return (const Insn *)(block + 1);
        if (status == DECODE_TOO_LONG || have == INSTRUCTION_BYTES) {
            fault_gp(cpu, 0);
            return NULL;
        }
    }
}

const Insn *block_at_rip(CPU *cpu)
{
    BlockCache *cache = cpu->blocks;
    uint64_t la = cpu->seg[CS].base + cpu->rip;
    if (!cpu->long_mode)
        la &= 0xffffffff;
    const uint64_t in_page = la & PAGE_MASK;
    cpu->page_rip = cpu->rip - in_page;
    if (unlikely(cache->flush_wanted || cache->used + LARGEST_BLOCK + sizeof(CodePage) > ARENA_BYTES))
        blocks_flush(cpu);

    uint64_t pa;
    if (!cpu->code64 && cpu->rip > cpu->seg[CS].limit) {
        fault_gp(cpu, 0);
        return NULL;
    }
    if (mmu_translate(cpu, la, ACCESS_FETCH, &pa))
        return NULL;

    /* The part of the page that CS reaches. */
    uint64_t first = 0, end = PAGE_SIZE;
    uint32_t mode = cpu->mode;
    if (!cpu->code64) {
        if (cpu->rip < in_page)
            first = in_page - cpu->rip;
        if (cpu->seg[CS].limit - cpu->rip < PAGE_MASK - in_page)
            end = in_page + (cpu->seg[CS].limit - cpu->rip) + 1;
        if (cpu->rip - in_page + PAGE_MASK > 0xffff && cpu->rip >= in_page)
            mode |= MODE_HIGH;
    }
    if (unlikely(cache->hooks) && has_bit(cache->hook_pages, hook_bit(la)))
        mode |= MODE_HOOKS | cache->hook_version << MODE_HOOKS_SHIFT;
    const uint32_t window = (uint32_t)(first << 16 | end);
    Block *block = lookup(cache, pa, mode, window);
    if (likely(block != NULL))
        return (const Insn *)(block + 1);

    Region *region = bus_find(cpu->bus, pa, REGION_READ);
    if (!region || !region->host)
        return uncached(cpu, la, mode);
    block = (Block *)(arena(cache) + cache->used);
    *block = (Block){.pa = pa, .window = window, .mode = mode};
    DecodeStatus status;
    unsigned insns = fill(cpu, block, region->host + (pa - region->base), (unsigned)in_page, (unsigned)end, &status);
    if (!insns)
        return uncached(cpu, la, mode);
    allocate(cache, sizeof *block + insns * sizeof(Insn));
    publish(cpu, block, region);
    return (const Insn *)(block + 1);
}
