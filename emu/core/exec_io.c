/* IN, OUT, INS, OUTS. SDM Vol. 1, "Input/Output"; permission: "Protected-Mode I/O", "I/O Permission Bit Map". */
#include "exec.h"
#include "segment.h"

/* Is every port allowed, without a look at the I/O permission bit map? */
INLINE bool all_ports_allowed(const CPU *processor) { return !processor->v86 && processor->cpl <= iopl(processor); }

INLINE unsigned io_case(const CPU *processor)
{
    return !all_ports_allowed(processor) ? CASE_PERMISSION_MAP : processor->protected_mode ? CASE_PROTECTED : CASE_REAL;
}

/* The bit map lies in a 32-bit TSS from the offset in its last field to its limit; two bytes are always read. */
static int check_permission(CPU *processor, unsigned port, unsigned size)
{
    const Segment *tss = &processor->seg[TR];
    if (all_ports_allowed(processor))
        return STATUS_OK;
    if (!(tss->access & 8) || (tss->access & AR_UNUSABLE) || tss->limit < 103)
        return fault_gp(processor, 0);
    if (linear_read(processor, tss->base + 102, 2, ACCESS_READ | ACCESS_SYSTEM))
        return STATUS_FAULT;
    const uint32_t place = (uint32_t)processor->data + port / 8;
    if (place + 1 > tss->limit)
        return fault_gp(processor, 0);
    if (linear_read(processor, tss->base + place, 2, ACCESS_READ | ACCESS_SYSTEM))
        return STATUS_FAULT;
    const unsigned bits = ((1u << size) - 1) << (port & 7);
    return processor->data & bits ? fault_gp(processor, 0) : STATUS_OK;
}

/* Does the VMM want the access? SDM Vol. 3, "I/O-Bitmap Addresses"; an access that wraps around the top of the ports exits. */
static bool exits_on_port(CPU *processor, unsigned port, unsigned size)
{
    if (!guest_proc(processor, PROC_USE_IO_BITMAPS))
        return guest_proc(processor, PROC_UNCONDITIONAL_IO_EXITING);
    if (port + size > 0x10000)
        return true;
    for (unsigned i = port; i < port + size; i++) {
        const VmcsField map = i < 0x8000 ? ADDRESS_OF_IO_BITMAP_A : ADDRESS_OF_IO_BITMAP_B;
        if (bus_read(processor->bus, processor->vmx.field[map] + (i & 0x7fff) / 8, 1) >> (i & 7) & 1)
            return true;
    }
    return false;
}

#define IO_IN 8u
#define IO_STRING 0x10u
#define IO_REP 0x20u
#define IO_IMMEDIATE 0x40u

/* SDM Vol. 3, "Exit Qualification for I/O Instructions". */
static int exit_on_port(CPU *processor, unsigned port, unsigned size, unsigned how)
{
    if (likely(!processor->non_root) || !exits_on_port(processor, port, size))
        return STATUS_OK;
    return vm_exit_instruction(processor, EXIT_REASON_IO_INSTRUCTION, (size - 1) | how | (uint64_t)port << 16);
}

/* SDM Vol. 3, "Debug Control Register (DR7)": CR4.DE makes R/W = 2 a breakpoint on a port. */
static void check_breakpoints(CPU *processor, unsigned port, unsigned size)
{
    if (unlikely(processor->breakpoints) && (processor->cr4 & CR4_DE))
        debug_access(processor, port, size, DEBUG_IO);
}

/* An access with what watches it. */
static uint32_t input(CPU *processor, unsigned port, unsigned size)
{
    const uint32_t value = port_read(processor->bus, (uint16_t)port, size);
    check_breakpoints(processor, port, size);
    if (unlikely(processor->hook != NULL))
        processor->hook(processor->hook_owner, HOOK_IO_READ, port, size, value);
    return value;
}

static void output(CPU *processor, unsigned port, unsigned size, uint32_t value)
{
    port_write(processor->bus, (uint16_t)port, value, size);
    check_breakpoints(processor, port, size);
    if (unlikely(processor->hook != NULL))
        processor->hook(processor->hook_owner, HOOK_IO_WRITE, port, size, value);
}

/* --- IN, OUT: the device is called between two hot bodies, at the time before the instruction; where permission has to
 * be looked up or somebody watches, by a cold body --- */

INLINE bool is_plain(const CPU *processor)
{
    return all_ports_allowed(processor) && !processor->hook && !processor->ports_watched;
}

/* What is given back of the dearest case. */
INLINE int64_t io_refund(const CPU *processor, const Insn *instruction)
{
    const RowClocks *row = &processor->clocks[instruction->row];
    const unsigned cost = row->cases[io_case(processor)];
    return cost ? (int64_t)row->reg - cost : 0;
}

#define IN_BODY(name, bits, port, how)                                                         \
    COLD_BODY(exec_##name##_checked)                                                           \
    {                                                                                          \
        if (check_permission(cpu, port, (bits) / 8) || exit_on_port(cpu, port, (bits) / 8, IO_IN | (how))) \
            return STATUS_FAULT;                                                               \
        SET_R##bits(RAX * 8, input(cpu, port, (bits) / 8));                                    \
        charge_case(cpu, insn, io_case(cpu));                                                  \
        return STATUS_OK;                                                                      \
    }                                                                                          \
    REGISTER_BODY(exec_##name)                                                                 \
    {                                                                                          \
        if (unlikely(!is_plain(cpu)))                                                          \
            GO(exec_##name##_checked);                                                         \
        state_save(PASS);                                                                      \
        SET_R##bits(RAX * 8, port_read(cpu->bus, (uint16_t)(port), (bits) / 8));               \
        SLOW_END();                                                                            \
        left += io_refund(cpu, insn);                                                          \
        if (unlikely(cpu->clock->leave))                                                       \
            GO(exit_after);                                                                    \
        NEXT;                                                                                  \
    }

#define OUT_BODY(name, bits, port, how)                                                        \
    COLD_BODY(exec_##name##_checked)                                                           \
    {                                                                                          \
        if (check_permission(cpu, port, (bits) / 8) || exit_on_port(cpu, port, (bits) / 8, how)) \
            return STATUS_FAULT;                                                               \
        output(cpu, port, (bits) / 8, R##bits(RAX * 8));                                       \
        charge_case(cpu, insn, io_case(cpu));                                                  \
        return STATUS_OK;                                                                      \
    }                                                                                          \
    REGISTER_BODY(exec_##name)                                                                 \
    {                                                                                          \
        if (unlikely(!is_plain(cpu)))                                                          \
            GO(exec_##name##_checked);                                                         \
        state_save(PASS);                                                                      \
        port_write(cpu->bus, (uint16_t)(port), R##bits(RAX * 8), (bits) / 8);                  \
        SLOW_END();                                                                            \
        left += io_refund(cpu, insn);                                                          \
        if (unlikely(cpu->clock->leave))                                                       \
            GO(exit_after);                                                                    \
        NEXT;                                                                                  \
    }

#define DX_PORT R16(RDX * 8)
#define IMMEDIATE_PORT (insn->imm & 0xff)

IN_BODY(in_r8_i, 8, IMMEDIATE_PORT, IO_IMMEDIATE)
IN_BODY(in_r16_i, 16, IMMEDIATE_PORT, IO_IMMEDIATE)
IN_BODY(in_r32_i, 32, IMMEDIATE_PORT, IO_IMMEDIATE)
IN_BODY(in_r8_r16, 8, DX_PORT, 0)
IN_BODY(in_r16_r16, 16, DX_PORT, 0)
IN_BODY(in_r32_r16, 32, DX_PORT, 0)
OUT_BODY(out_i_r8, 8, IMMEDIATE_PORT, IO_IMMEDIATE)
OUT_BODY(out_i_r16, 16, IMMEDIATE_PORT, IO_IMMEDIATE)
OUT_BODY(out_i_r32, 32, IMMEDIATE_PORT, IO_IMMEDIATE)
OUT_BODY(out_r16_r8, 8, DX_PORT, 0)
OUT_BODY(out_r16_r16, 16, DX_PORT, 0)
OUT_BODY(out_r16_r32, 32, DX_PORT, 0)

/* --- INS, OUTS --- */

/* Moves an index register by one element, in the address size. */
static void step_index(CPU *processor, const Insn *instruction, unsigned number, unsigned size)
{
    const uint64_t mask = processor->address_mask[instruction->asize];
    const uint64_t next = processor->r[number] + (processor->eflags & FLAG_DF ? -(uint64_t)size : size);
    const uint64_t kept = instruction->asize == 0 ? ~mask : 0; /* a 32-bit register clears its upper half */
    processor->r[number] = (processor->r[number] & kept) | (next & mask);
}

/* The linear address of the operand is saved too. */
static int exit_on_string(CPU *processor, unsigned port, unsigned size, unsigned how, bool rep, unsigned seg, uint64_t ea)
{
    if (!exit_on_port(processor, port, size, how | IO_STRING | (rep ? IO_REP : 0)))
        return STATUS_OK;
    const uint64_t la = processor->seg[seg].base + ea;
    processor->exit.guest_linear = processor->code64 ? (seg < FS ? ea : la) : (uint32_t)la;
    return STATUS_FAULT;
}

/* The memory is checked before the port is read: a device must not lose what the instruction cannot store. */
static int input_string(CPU *processor, const Insn *instruction, unsigned size, bool rep)
{
    const unsigned port = (uint16_t)processor->r[RDX];
    const uint64_t ea = processor->r[RDI] & processor->address_mask[instruction->asize];
    if (check_permission(processor, port, size) || exit_on_string(processor, port, size, IO_IN, rep, ES, ea) ||
        mem_probe_write(processor, ES, ea, size) ||
        mem_write(processor, ES, ea, size, input(processor, port, size)))
        return STATUS_FAULT;
    step_index(processor, instruction, RDI, size);
    return STATUS_OK;
}

static int output_string(CPU *processor, const Insn *instruction, unsigned size, bool rep)
{
    const unsigned port = (uint16_t)processor->r[RDX];
    const uint64_t ea = processor->r[RSI] & processor->address_mask[instruction->asize];
    if (check_permission(processor, port, size) || exit_on_string(processor, port, size, 0, rep, instruction->seg, ea) ||
        mem_read(processor, instruction->seg, ea, size))
        return STATUS_FAULT;
    output(processor, port, size, (uint32_t)processor->data);
    step_index(processor, instruction, RSI, size);
    return STATUS_OK;
}

typedef int Element(CPU *cpu, const Insn *insn, unsigned size, bool rep);

static int once(CPU *processor, const Insn *instruction, Element *element, unsigned size)
{
    const unsigned cost = io_case(processor);
    const int status = element(processor, instruction, size, false);
    if (!status)
        charge_case(processor, instruction, cost);
    return status;
}

/* What a repetition costs: its set-up depends on the mode as the single instruction does, unless the model has figures of
 * its own for real-address mode. */
typedef struct RepeatClocks {
    int64_t set_up, each;
} RepeatClocks;

static RepeatClocks repeat_clocks(const CPU *processor, const Insn *instruction)
{
    const RowClocks *row = &processor->clocks[instruction->row];
    RepeatClocks clocks = {row->rep - io_refund(processor, instruction), row->variable};
    if (io_case(processor) == CASE_REAL && row->cases[CASE_REAL_REP])
        clocks = (RepeatClocks){row->cases[CASE_REAL_REP], row->cases[CASE_REAL_ITERATION]};
    return clocks;
}

/* With a count of zero nothing is accessed, but the instruction exits all the same: SDM Vol. 3, "Instructions That Cause VM
 * Exits Conditionally", speaks of the instruction and makes no exception for its count. */
static int exit_on_no_iteration(CPU *processor, const Insn *instruction, Element *element, unsigned size)
{
    const uint64_t mask = processor->address_mask[instruction->asize];
    const bool in = element == input_string;
    if (processor->r[RCX] & mask)
        return STATUS_OK;
    return exit_on_string(processor, (uint16_t)processor->r[RDX], size, in ? IO_IN : 0, true, in ? ES : instruction->seg,
                          processor->r[in ? RDI : RSI] & mask);
}

/* An iteration ends at an instruction boundary and counts as one instruction; when the clocks run out the instruction is
 * left with RIP on itself, as the other string instructions are (exec_string.c). The set-up is charged once. */
static int repeated(CPU *processor, const Insn *instruction, Element *element, unsigned size)
{
    if (unlikely(processor->non_root) && exit_on_no_iteration(processor, instruction, element, size))
        return STATUS_FAULT;
    const int64_t charged = processor->clocks[instruction->row].rep; /* by the block, unless a fault ends the visit */
    const RepeatClocks clocks = repeat_clocks(processor, instruction);
    const uint64_t mask = processor->address_mask[instruction->asize];
    const bool resumed = processor->rep_resumed, single = processor->mode & MODE_SINGLE;
    const int64_t refund = charged - (resumed ? 0 : clocks.set_up);
    uint64_t done = 0;
    processor->rep_resumed = 0;
    processor->clock->left += refund;
    while (processor->r[RCX] & mask) {
        if (element(processor, instruction, size, true)) {
            processor->instructions += done;
            processor->clock->left -= done ? charged : refund;
            processor->rep_resumed = resumed || done;
            return STATUS_FAULT;
        }
        const uint64_t count = (processor->r[RCX] & mask) - 1;
        processor->r[RCX] = (processor->r[RCX] & (instruction->asize == 0 ? ~mask : 0)) | count;
        processor->clock->left -= clocks.each;
        done++;
        if (single || processor->clock->leave || processor->clock->left - charged <= 0)
            break;
    }
    processor->instructions += done ? done - 1 : 0;
    if (!(processor->r[RCX] & mask))
        return STATUS_OK;
    processor->rep_resumed = 1;
    processor->rip = insn_rip(processor, instruction);
    return STATUS_BRANCH;
}

#define STRING_BODIES(letter, size)                                                                     \
    COLD_BODY(exec_ins##letter) { return once(cpu, insn, input_string, size); }                         \
    COLD_BODY(exec_outs##letter) { return once(cpu, insn, output_string, size); }                       \
    COLD_BODY(exec_rep_ins##letter) { return repeated(cpu, insn, input_string, size); }                 \
    COLD_BODY(exec_rep_outs##letter) { return repeated(cpu, insn, output_string, size); }
STRING_BODIES(b, 1)
STRING_BODIES(w, 2)
STRING_BODIES(d, 4)
