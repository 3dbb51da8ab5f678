/* Breakpoints on data and ports. SDM Vol. 3, "Debug Address Registers (DR0-DR3)", "Debug Control Register (DR7)", "Data
 * Memory and I/O Breakpoint Exception Conditions": a trap after the instruction. */
#include "cpu.h"

/* DR7.LENn: 8 bytes stand for the code 2. */
static const uint8_t lengths[4] = {1, 2, 8, 4};

void debug_access(CPU *cpu, uint64_t address, unsigned size, DebugAccess kind)
{
    for (unsigned i = 0; i < 4; i++) {
        const unsigned rw = cpu->dr[7] >> (16 + 4 * i) & 3, length = lengths[cpu->dr[7] >> (18 + 4 * i) & 3];
        const uint64_t first = cpu->dr[i] & ~(uint64_t)(length - 1);
        const bool enabled = cpu->dr[7] >> (2 * i) & 3;
        const bool watched = kind == DEBUG_READ ? rw == 3 : kind == DEBUG_WRITE ? rw & 1 : rw == 2;
        if (enabled && watched && address < first + length && first < address + size)
            cpu->trap |= 1u << i;
    }
}
