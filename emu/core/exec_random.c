/* RDRAND and RDSEED. SDM Vol. 2, "RDRAND", "RDSEED".
 *
 * The same inputs give the same run, so the numbers come from a generator in the processor's state: a counter stepped by
 * the golden ratio and mixed (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators"). It never runs dry:
 * CF is always 1, the other flags are cleared. */
#include "operations.h"

static int random_number(CPU *cpu, const Insn *insn, uint32_t control, uint32_t reason)
{
    if (guest_proc2(cpu, control))
        return vm_exit_instruction(cpu, reason, 0);
    uint64_t mixed = cpu->random += 0x9e3779b97f4a7c15;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
    mixed ^= mixed >> 31;
    if (insn->osize == OSIZE16)
        SET_R16(insn->dst, mixed);
    else if (insn->osize == OSIZE32)
        SET_R32(insn->dst, mixed);
    else
        SET_R64(insn->dst, mixed);
    cpu_set_flags(cpu, FLAG_CF, FLAGS_ARITHMETIC);
    return STATUS_OK;
}

#define RANDOM(_, bits)                                                                                        \
    COLD_BODY(exec_rdrand_r##bits) { return random_number(cpu, insn, PROC2_RDRAND_EXITING, EXIT_REASON_RDRAND); } \
    COLD_BODY(exec_rdseed_r##bits) { return random_number(cpu, insn, PROC2_RDSEED_EXITING, EXIT_REASON_RDSEED); }
WIDE_SIZES(RANDOM, )
