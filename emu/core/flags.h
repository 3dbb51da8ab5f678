/* Lazy flags.
 *
 * The arithmetic flags live in three values that the handlers pass along in registers, and one byte in the CPU:
 *   fr  the result, sign-extended to 64 bits:  ZF = (fr == 0), SF = sign of fr, PF = parity of its low byte
 *   fd  its sign is SF ^ OF ("less than"); for additions and subtractions of up to 32 bits that is the sign of the exact
 *       result of the sign-extended operands
 *   cf  bit 0: CF; bits 1 and 2 invert SF and PF, for values that no result has (ZF with SF, say: POPF can make them)
 *   fa  in CPU: bit 4 of fa ^ fr is AF; for additions and subtractions fa = a ^ b
 * SDM Vol. 1, "Status Flags". */
#ifndef EMU_FLAGS_H
#define EMU_FLAGS_H

#include "cpu.h"

#define CF_INVERT_SF 2u
#define CF_INVERT_PF 4u

static inline unsigned flag_cf(uint64_t cf) { return cf & 1; }
static inline unsigned flag_zf(int64_t fr) { return fr == 0; }
static inline unsigned flag_sf(int64_t fr, uint64_t cf) { return ((uint64_t)fr >> 63) ^ (cf >> 1 & 1); }
static inline unsigned flag_pf(int64_t fr, uint64_t cf)
{
    return !__builtin_parity((unsigned)fr & 0xff) ^ (cf >> 2 & 1);
}
static inline unsigned flag_af(const CPU *cpu, int64_t fr) { return (cpu->fa ^ (unsigned)fr) >> 4 & 1; }
static inline unsigned flag_less(int64_t fd) { return fd < 0; }
static inline unsigned flag_of(int64_t fr, int64_t fd, uint64_t cf) { return (fd < 0) ^ flag_sf(fr, cf); }

static inline uint32_t flags_pack(const CPU *cpu, int64_t fr, int64_t fd, uint64_t cf)
{
    return flag_cf(cf) * FLAG_CF | flag_pf(fr, cf) * FLAG_PF | flag_af(cpu, fr) * FLAG_AF | flag_zf(fr) * FLAG_ZF |
           flag_sf(fr, cf) * FLAG_SF | flag_of(fr, fd, cf) * FLAG_OF;
}

/* The three values for given flags. AF goes to cpu->fa. */
static inline void flags_unpack(CPU *cpu, uint32_t flags, int64_t *fr, int64_t *fd, uint64_t *cf)
{
    unsigned zf = (flags & FLAG_ZF) != 0, sf = (flags & FLAG_SF) != 0, pf = (flags & FLAG_PF) != 0;
    unsigned of = (flags & FLAG_OF) != 0, af = (flags & FLAG_AF) != 0;
    int64_t result = zf ? 0 : sf ? INT64_MIN : 0x100; /* low byte 0: even parity */
    *fr = result;
    *fd = sf ^ of ? -1 : 0;
    *cf = (flags & FLAG_CF) | ((zf && sf) ? CF_INVERT_SF : 0) | (pf ? 0 : CF_INVERT_PF);
    cpu->fa = (uint8_t)((uint64_t)result ^ (af ? FLAG_AF : 0));
}

#endif
