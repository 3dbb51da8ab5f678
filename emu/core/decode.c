/* The decoder: prefixes, the generated tables (form.h), ModRM and SIB, displacement and immediates.
 * SDM Vol. 2, "Instruction Format". */
#include "decode.h"

#include "decode_table.inc"

/* Variants of bodies (exec.h): for simple addresses, without flags, by operand size. A body that has none leaves a weak symbol null. */
#define X(name) Handler_t name; \
    __attribute__((weak)) Handler_t name##_simple, name##_quiet, name##_osize16, name##_osize32, name##_osize64;
#include "handlers.inc"
#undef X
static Handler_t *const handler_table[] = {
    exec_undefined,
#define X(name) name,
#include "handlers.inc"
#undef X
};
static Handler_t *const simple_table[] = {
    NULL,
#define X(name) name##_simple,
#include "handlers.inc"
#undef X
};
static Handler_t *const sized_table[][3] = {
    {NULL, NULL, NULL},
#define X(name) {name##_osize16, name##_osize32, name##_osize64},
#include "handlers.inc"
#undef X
};
static Handler_t *const quiet_table[] = {
    NULL,
#define X(name) name##_quiet,
#include "handlers.inc"
#undef X
};

typedef struct Reader {
    const uint8_t *next, *end;
} Reader;

/* Little-endian value of `bytes` bytes; the caller has made sure that they are there. */
static uint64_t take(Reader *reader, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)reader->next[i] << 8 * i;
    reader->next += bytes;
    return value;
}

static bool has(const Reader *reader, unsigned bytes) { return (size_t)(reader->end - reader->next) >= bytes; }

typedef struct Prefixes {
    bool operand_size, address_size, lock;
    uint8_t repeat; /* 0, 0xF2, 0xF3 */
    uint8_t rex;
    int8_t segment; /* -1: none */
} Prefixes;

/* Byte offset in CPU of a general register. */
static uint8_t register_offset(unsigned number, unsigned size, bool rex)
{
    if (size == 8 && !rex && number >= 4 && number < 8)
        return (uint8_t)((number - 4) * 8 + 1); /* AH CH DH BH */
    return (uint8_t)(number * 8);
}

static DecodeStatus undefined(Decoded *out, size_t length)
{
    memset(&out->insn, 0, sizeof out->insn);
    out->insn.fn = exec_undefined;
    out->insn.base = out->insn.index = REG_ZERO;
    out->insn.len = length & 15;
    out->clocks = 1;
    out->length = (uint8_t)length;
    out->components = (uint8_t)length;
    out->ends = true;
    out->relative = false;
    out->quiet = NULL;
    out->offset64 = 0;
    return DECODE_OK;
}

/* ModRM's memory operand, SDM Vol. 2, "ModR/M and SIB Bytes". False: bytes are missing. */
static bool memory_operand(Insn *insn, Reader *reader, unsigned asize, const Prefixes *prefixes, bool code64,
                           unsigned mod, unsigned rm, unsigned *parts)
{
    unsigned displacement = mod == 1 ? 1 : mod == 2 ? (asize == 0 ? 2 : 4) : 0;
    unsigned segment = DS;
    insn->base = insn->index = REG_ZERO;
    if (asize == 0) {
        static const uint8_t bases[8] = {RBX, RBX, RBP, RBP, REG_ZERO, REG_ZERO, RBP, RBX};
        static const uint8_t indexes[8] = {RSI, RDI, RSI, RDI, RSI, RDI, REG_ZERO, REG_ZERO};
        insn->base = bases[rm];
        insn->index = indexes[rm];
        if (rm == 6 && mod == 0) {
            insn->base = REG_ZERO;
            displacement = 2;
        } else if (rm == 2 || rm == 3 || rm == 6) {
            segment = SS;
        }
    } else {
        unsigned base = rm;
        if (rm == 4) {
            if (!has(reader, 1))
                return false;
            unsigned sib = (unsigned)take(reader, 1);
            ++*parts;
            unsigned index = (sib >> 3 & 7) | (prefixes->rex & 2) << 2;
            base = sib & 7;
            if (index != 4)
                insn->index = (uint8_t)index;
            insn->scale = sib >> 6;
        }
        if (base == 5 && mod == 0) {
            displacement = 4;
            if (rm != 4 && code64)
                insn->base = REG_RIP;
        } else {
            if (base == 4 || base == 5)
                segment = SS;
            insn->base = (uint8_t)(base | (prefixes->rex & 1) << 3);
            if (prefixes->rex & 1)
                segment = DS;
        }
    }
    if (displacement) {
        if (!has(reader, displacement))
            return false;
        uint64_t value = take(reader, displacement);
        insn->disp = displacement == 1 ? (int8_t)value : displacement == 2 ? (int16_t)value : (int32_t)value;
        ++*parts;
    }
    insn->seg = (unsigned)(prefixes->segment >= 0 ? prefixes->segment : (int)segment) & 7;
    insn->memory = 1;
    return true;
}

/* The immediate of a form. False: bytes are missing. */
static bool immediate(Decoded *out, Reader *reader, const Form *form, unsigned asize, unsigned *parts)
{
    static const uint8_t bytes[] = {[IMM_IB] = 1,   [IMM_IBS] = 1,  [IMM_IW] = 2,   [IMM_ID] = 4,
                                    [IMM_IDS] = 4,  [IMM_IQ] = 8,   [IMM_IW_IB] = 3, [IMM_CB] = 1,
                                    [IMM_CW] = 2,   [IMM_CD] = 4,   [IMM_CP16] = 4, [IMM_CP32] = 6};
    Insn *insn = &out->insn;
    unsigned count = form->immediate == IMM_MOFFS ? 2u << asize : bytes[form->immediate];
    if (!count)
        return true;
    if (!has(reader, count))
        return false;
    uint64_t value = take(reader, count);
    ++*parts;
    switch (form->immediate) {
    case IMM_IBS:
    case IMM_CB: insn->imm = (int8_t)value; break;
    case IMM_CW: insn->imm = (int16_t)value; break;
    case IMM_IQ:
        insn->imm = (int32_t)value;
        insn->imm_hi = (uint32_t)(value >> 32);
        break;
    case IMM_IW_IB:
    case IMM_CP16:
        insn->imm = (uint16_t)value;
        insn->imm_hi = (uint32_t)(value >> 16);
        break;
    case IMM_CP32:
        insn->imm = (int32_t)value;
        insn->imm_hi = (uint32_t)(value >> 32);
        break;
    case IMM_MOFFS:
        insn->disp = (int32_t)value;
        if (asize == 2 && (uint64_t)(int64_t)insn->disp != value)
            out->offset64 = value;
        break;
    case IMM_IDS:
        insn->imm = (int32_t)value;
        insn->imm_hi = insn->imm < 0 ? UINT32_MAX : 0;
        break;
    default: insn->imm = (int32_t)value; break;
    }
    out->relative = form->immediate >= IMM_CB && form->immediate <= IMM_CD;
    return true;
}

DecodeStatus decode(const CPU *cpu, const uint8_t *code, size_t available, uint32_t mode, Decoded *out)
{
    const bool code64 = (mode & MODE_CODE) == MODE_CODE64;
    const size_t longest = cpu->model->max_instruction_length;
    const bool limited = available >= longest;
    Reader reader = {code, code + (limited ? longest : available)};
    const DecodeStatus missing = limited ? DECODE_TOO_LONG : DECODE_MORE;
    Prefixes prefixes = {.segment = -1};
    unsigned byte;

    for (;;) {
        if (!has(&reader, 1))
            return missing;
        byte = (unsigned)take(&reader, 1);
        switch (byte) {
        case 0x26: case 0x2e: case 0x36: case 0x3e:
            if (!code64)
                prefixes.segment = (int8_t)(byte >> 3 & 3);
            prefixes.rex = 0;
            continue;
        case 0x64: case 0x65:
            if (!cpu->model->has[SINCE_386])
                break;
            prefixes.segment = (int8_t)(byte & 7);
            prefixes.rex = 0;
            continue;
        case 0x66: prefixes.operand_size = true; prefixes.rex = 0; continue;
        case 0x67: prefixes.address_size = true; prefixes.rex = 0; continue;
        case 0xf0: prefixes.lock = true; prefixes.rex = 0; continue;
        case 0xf2: case 0xf3: prefixes.repeat = (uint8_t)byte; prefixes.rex = 0; continue;
        default:
            if (code64 && (byte & 0xf0) == 0x40) {
                prefixes.rex = (uint8_t)byte;
                continue;
            }
        }
        break;
    }

    unsigned map = MAP_ONE_BYTE;
    if (byte == 0x0f && cpu->model->has[SINCE_286]) {
        map = MAP_0F;
        for (;;) {
            if (!has(&reader, 1))
                return missing;
            byte = (unsigned)take(&reader, 1);
            if (map == MAP_0F && byte == 0x38)
                map = MAP_0F38;
            else if (map == MAP_0F && byte == 0x3a)
                map = MAP_0F3A;
            else
                break;
        }
    }

    const bool big = (mode & MODE_CODE) != MODE_CODE16;
    unsigned osize = prefixes.rex & 8 ? 64 : (big != prefixes.operand_size ? 32 : 16);
    const unsigned asize = code64 ? 2u - prefixes.address_size : (unsigned)(big != prefixes.address_size);
    uint16_t entry = decode_map[decode_mode(code64, osize)][map][byte];
    while (entry & ENTRY_GROUP) {
        const DecodeGroup *group = &decode_group[entry & ~ENTRY_GROUP];
        unsigned index;
        switch (group->kind) {
        case GROUP_REG:
            if (!has(&reader, 1))
                return missing;
            index = (*reader.next >> 6 == 3) * 8u + (*reader.next >> 3 & 7);
            break;
        case GROUP_RM:
            if (!has(&reader, 1))
                return missing;
            index = *reader.next & 7;
            break;
        case GROUP_PREFIX:
            index = prefixes.repeat == 0xf3 ? PREFIX_F3
                    : prefixes.repeat == 0xf2 ? PREFIX_F2
                    : prefixes.operand_size   ? PREFIX_66
                                              : PREFIX_NONE;
            break;
        case GROUP_REX_B: index = prefixes.rex & 1; break;
        default: index = asize; break;
        }
        entry = decode_entry[group->first + index];
    }
    const Form *form = &decode_form[entry];
    while (entry && !cpu->model->has[form->since]) {
        entry = form->fallback;
        form = &decode_form[entry];
    }
    if (!entry || ((form->flags & FORM_PM) && (mode & MODE_REAL))) {
        DecodeStatus status = undefined(out, (size_t)(reader.next - code));
        out->insn.imm = map == MAP_ONE_BYTE && (byte & 0xf8) == 0xd8 && !prefixes.lock;
        return status;
    }

    *out = (Decoded){0};
    Insn *insn = &out->insn;
    insn->base = insn->index = REG_ZERO;
    insn->seg = (unsigned)(prefixes.segment >= 0 ? prefixes.segment : DS) & 7;
    insn->asize = asize & 3;
    unsigned parts = (unsigned)(reader.next - code);
    unsigned mod = 3, reg = 0, rm = 0;
    if (form->flags & FORM_MODRM) {
        if (!has(&reader, 1))
            return missing;
        unsigned modrm = (unsigned)take(&reader, 1);
        parts++;
        mod = form->flags & FORM_REG_ONLY ? 3 : modrm >> 6;
        reg = (modrm >> 3 & 7) | (prefixes.rex & 4) << 1;
        rm = modrm & 7;
        if (mod != 3) {
            if (!memory_operand(insn, &reader, asize, &prefixes, code64, mod, rm, &parts))
                return missing;
        } else {
            rm |= (prefixes.rex & 1) << 3;
        }
    }
    if (!immediate(out, &reader, form, asize, &parts))
        return missing;
    const size_t length = (size_t)(reader.next - code);

    /* Registers: dst is that of the first operand and src that of the second; where one of them is no register, both
     * are the other. */
    const bool rex = prefixes.rex != 0;
    int registers[2] = {-1, -1};
    for (unsigned i = 0; i < 3; i++) {
        unsigned size = form->operand_size[i];
        int number = -1;
        switch (form->operand[i]) {
        case OPERAND_RM: number = mod == 3 ? register_offset(rm, size, rex) : -1; break;
        case OPERAND_REG: number = register_offset(reg, size, rex); break;
        case OPERAND_OPREG: number = register_offset((byte & 7) | (prefixes.rex & 1) << 3, size, rex); break;
        case OPERAND_ACC: number = 0; break;
        case OPERAND_CL: number = RCX * 8; break;
        case OPERAND_DX: number = RDX * 8; break;
        case OPERAND_SREG:
            number = (int)(reg & 7);
            if (number > GS)
                return undefined(out, length);
            break;
        case OPERAND_ES: case OPERAND_CS: case OPERAND_SS: case OPERAND_DS: case OPERAND_FS: case OPERAND_GS:
            number = form->operand[i] - OPERAND_ES;
            break;
        case OPERAND_CR: case OPERAND_DR: number = (int)reg; break;
        case OPERAND_ONE: insn->imm = 1; break;
        case OPERAND_MOFFS: insn->memory = 1; break;
        default: break;
        }
        if (number >= 0 && i < 2)
            registers[i] = number;
    }
    insn->dst = (uint8_t)(registers[0] >= 0 ? registers[0] : registers[1] >= 0 ? registers[1] : 0);
    insn->src = (uint8_t)(registers[1] >= 0 ? registers[1] : insn->dst);

    if (form->osize >= 16)
        osize = form->osize;
    insn->osize = osize == 16 ? OSIZE16 : osize == 32 ? OSIZE32 : OSIZE64;
    insn->row = form->row & 0x7ff;
    insn->len = length & 15;
    if (prefixes.lock && !((form->flags & FORM_LOCK) && insn->memory))
        return undefined(out, length);
    insn->lock = prefixes.lock;
    if (insn->base == REG_RIP && asize == 1)
        insn->base = REG_RIP; /* EIP-relative: the sum is cut to 32 bits like any address of that size */

    const RowClocks *clocks = &cpu->clocks[form->row];
    unsigned handler = form->handler[insn->memory && (form->flags & FORM_MODRM) ? 1 : 0];
    unsigned cost = insn->memory ? clocks->mem : clocks->reg;
    if (form->operand[0] == OPERAND_MOFFS || form->operand[1] == OPERAND_MOFFS)
        handler = form->handler[1];
    if (prefixes.repeat && (form->flags & (FORM_REP | FORM_REPZ))) {
        unsigned slot = prefixes.repeat == 0xf2 && (form->flags & FORM_REPZ) ? 3 : 2;
        if (form->handler[slot]) {
            handler = form->handler[slot];
            cost = clocks->rep;
            out->ends = true;
        }
    }
    if (!handler)
        return undefined(out, length);
    insn->fn = sized_table[handler][insn->osize] ? sized_table[handler][insn->osize] : handler_table[handler];
    if (insn->memory && insn->index == REG_ZERO && asize == (mode & MODE_CODE) && simple_table[handler])
        insn->fn = simple_table[handler];
    if (quiet_table[handler] && handler_table[handler] == insn->fn)
        out->quiet = form->flags_written | form->flags_conditional ? quiet_table[handler] : insn->fn;
    out->flags_written = form->flags_written;
    out->flags_changed = form->flags_written | form->flags_conditional | form->flags_undefined;
    out->flags_tested = form->flags_tested;
    if (insn->memory && insn->base != REG_ZERO && insn->index != REG_ZERO)
        cost += cpu->event_clocks->base_index;
    if (prefixes.lock)
        cost += cpu->event_clocks->lock;
    out->clocks = (uint16_t)(cost ? cost : 1);
    out->length = (uint8_t)length;
    out->components = (uint8_t)parts;
    /* A conditional branch ends no block: the block goes on where it is not taken. */
    bool conditional = out->relative && !(map == MAP_ONE_BYTE && (byte == 0xe8 || byte == 0xe9 || byte == 0xeb));
    if ((form->flags & FORM_END) && !conditional)
        out->ends = true;
    if (out->relative)
        insn->disp = clocks->cases[CASE_TAKEN] ? (int)clocks->cases[CASE_TAKEN] - (int)clocks->reg : 0;
    return DECODE_OK;
}
