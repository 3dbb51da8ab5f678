/* Instructions that do nothing to the state: NOP and hints, fences, cache lines; and those that are undefined for good.
 * SDM Vol. 1, "Miscellaneous Instructions". There is one processor and no cache to see here, so that memory is in order. */
#include "operations.h"

#define NOTHING(name) REGISTER_BODY(exec_##name) { NEXT; }
NOTHING(nop) /* of every form: a memory operand is not accessed */
NOTHING(endbr32)
NOTHING(endbr64)
NOTHING(lfence)
NOTHING(mfence)
NOTHING(sfence)
NOTHING(prefetchnta_m8)
NOTHING(prefetcht0_m8)
NOTHING(prefetcht1_m8)
NOTHING(prefetcht2_m8)
NOTHING(prefetchw_m8)

COLD_BODY(exec_pause_in_guest)
{
    return guest_proc(cpu, PROC_PAUSE_EXITING) ? vm_exit_instruction(cpu, EXIT_REASON_PAUSE, 0) : STATUS_OK;
}
REGISTER_BODY(exec_pause)
{
    if (unlikely(cpu->non_root))
        GO(exec_pause_in_guest);
    NEXT;
}

/* Faults as a read of the byte does, but reads nothing: the line may be a device's. */
static int touch_line(CPU *cpu, const Insn *insn)
{
    const Segment *segment = &cpu->seg[insn->seg];
    const uint64_t ea = effective_address(cpu, insn);
    uint64_t pa;
    if (ea >= segment->read_end)
        return mem_read(cpu, insn->seg, ea, 1);
    return mmu_translate(cpu, segment->base + ea, ACCESS_READ, &pa);
}

COLD_BODY(exec_clflush_m8) { return touch_line(cpu, insn); }
COLD_BODY(exec_clflushopt_m8) { return touch_line(cpu, insn); }
COLD_BODY(exec_clwb_m8) { return touch_line(cpu, insn); }

COLD_BODY(exec_ud0) { return fault_ud(cpu); }
COLD_BODY(exec_ud1) { return fault_ud(cpu); }
COLD_BODY(exec_ud2) { return fault_ud(cpu); }
