/* Control and debug registers: MOV, LMSW, SMSW, CLTS. SDM Vol. 3, "Control Registers", "Debug Registers". */
#include "exec.h"
#include "segment.h"

static bool has_paging_with_pae(uint64_t cr0, uint64_t cr4, bool long_mode)
{
    return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !long_mode;
}

static int write_cr0(CPU *cpu, uint64_t value)
{
    uint32_t known = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_PG;
    if (cpu->model->has[SINCE_486])
        known |= CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD;
    if (value >> 32)
        return fault_gp(cpu, 0);
    /* Reserved bits are ignored; ET is hardwired. */
    const uint64_t next = (value & known) | CR0_ET, changed = next ^ cpu->cr0;
    const bool turns_on = changed & next & CR0_PG, turns_off = changed & cpu->cr0 & CR0_PG;
    if ((next & (CR0_PG | CR0_PE)) == CR0_PG || (next & (CR0_NW | CR0_CD)) == CR0_NW)
        return fault_gp(cpu, 0);
    const bool enters_long = turns_on && (cpu->efer & EFER_LME);
    if (enters_long && (!(cpu->cr4 & CR4_PAE) || (cpu->seg[CS].access & AR_L)))
        return fault_gp(cpu, 0);
    if (turns_off && (cpu->code64 || (cpu->cr4 & CR4_PCIDE)))
        return fault_gp(cpu, 0);
    const bool long_mode = (next & CR0_PG) && (cpu->efer & EFER_LME);
    if ((changed & (CR0_PG | CR0_CD | CR0_NW)) && has_paging_with_pae(next, cpu->cr4, long_mode) &&
        mmu_load_pdptes(cpu, cpu->cr3))
        return STATUS_FAULT;
    cpu->cr0 = next;
    cpu->efer = (cpu->efer & ~(uint64_t)EFER_LMA) | (long_mode ? EFER_LMA : 0);
    if (changed & (CR0_PG | CR0_PE | CR0_WP)) /* WP: the TLB holds what may be written */
        tlb_flush(cpu, true);
    cpu_update_mode(cpu);
    return STATUS_LOOK;
}

static int write_cr3(CPU *cpu, uint64_t value)
{
    if (cpu->long_mode) {
        if (cpu->cr4 & CR4_PCIDE)
            value &= ~(1ull << 63); /* whether translations of the PCID may stay: they never do */
        if (value >> cpu->model->physical_bits)
            return fault_gp(cpu, 0);
    } else if (has_paging_with_pae(cpu->cr0, cpu->cr4, false) && mmu_load_pdptes(cpu, value)) {
        return STATUS_FAULT;
    }
    cpu->cr3 = value;
    tlb_flush(cpu, false);
    return STATUS_LOOK;
}

static int write_cr4(CPU *cpu, uint64_t value)
{
    const uint64_t changed = value ^ cpu->cr4;
    if (value & ~cpu->model->cr4_mask)
        return fault_gp(cpu, 0);
    if (cpu->long_mode && !(value & CR4_PAE))
        return fault_gp(cpu, 0);
    if ((changed & value & CR4_PCIDE) && (!cpu->long_mode || (cpu->cr3 & 0xfff)))
        return fault_gp(cpu, 0);
    if ((changed & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP)) &&
        has_paging_with_pae(cpu->cr0, value, cpu->long_mode) && mmu_load_pdptes(cpu, cpu->cr3))
        return STATUS_FAULT;
    cpu->cr4 = value;
    if (changed & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP))
        tlb_flush(cpu, true);
    cpu_update_mode(cpu);
    return STATUS_LOOK;
}

/* CR0, CR2, CR3; CR4 from the Pentium on; CR8 with 64-bit mode. */
static bool control_register_exists(const CPU *cpu, unsigned number)
{
    switch (number) {
    case 0: case 2: case 3: return true;
    case 4: return cpu->model->has[SINCE_586] || cpu->model->cr4_mask;
    case 8: return cpu->model->has[SINCE_LM];
    default: return false;
    }
}

static int write_control_number(CPU *cpu, unsigned number, uint64_t value)
{
    switch (number) {
    case 0: return write_cr0(cpu, value);
    case 2: cpu->cr2 = value; return STATUS_OK;
    case 3: return write_cr3(cpu, value);
    case 4: return write_cr4(cpu, value);
    default:
        if (value & ~15ull)
            return fault_gp(cpu, 0);
        cpu->cr8 = value;
        return STATUS_LOOK;
    }
}

static int write_control(CPU *cpu, const Insn *insn, uint64_t value)
{
    const unsigned number = insn->dst;
    if (!control_register_exists(cpu, number))
        return fault_ud(cpu);
    if (cpu->cpl)
        return fault_gp(cpu, 0);
    const int status = write_control_number(cpu, number, value);
    if (status >= 0)
        charge_case(cpu, insn, number == 2 ? CASE_CR2 : number == 3 ? CASE_CR3 : CASE_CR0);
    return status;
}

static int read_control(CPU *cpu, const Insn *insn)
{
    const unsigned number = insn->src;
    if (!control_register_exists(cpu, number))
        return fault_ud(cpu);
    if (cpu->cpl)
        return fault_gp(cpu, 0);
    const uint64_t value = number == 0   ? cpu->cr0
                           : number == 2 ? cpu->cr2
                           : number == 3 ? cpu->cr3
                           : number == 4 ? cpu->cr4
                                         : cpu->cr8;
    R64(insn->dst) = cpu->code64 ? value : (uint32_t)value;
    return STATUS_OK;
}

COLD_BODY(exec_mov_c_r32) { return write_control(cpu, insn, R32(insn->src)); }
COLD_BODY(exec_mov_c_r64) { return write_control(cpu, insn, R64(insn->src)); }
COLD_BODY(exec_mov_r32_c) { return read_control(cpu, insn); }
COLD_BODY(exec_mov_r64_c) { return read_control(cpu, insn); }

/* --- debug registers --- */

/* Which register a number means: 4 and 5 are 6 and 7, or undefined with CR4.DE. Checks privilege and DR7.GD. */
static int check_debug(CPU *cpu, unsigned *number)
{
    if (*number > 7 || ((*number == 4 || *number == 5) && (cpu->cr4 & CR4_DE)))
        return fault_ud(cpu);
    if (cpu->cpl)
        return fault_gp(cpu, 0);
    if (*number == 4 || *number == 5)
        *number += 2;
    if (cpu->dr[7] & DR7_GD) {
        cpu->fault = (Fault){.vector = VECTOR_DB, .type = EVENT_HARDWARE_EXCEPTION, .is_fault = 1, .address = DR6_BD};
        return STATUS_FAULT;
    }
    return STATUS_OK;
}

static int write_debug(CPU *cpu, const Insn *insn, uint64_t value)
{
    unsigned number = insn->dst;
    if (check_debug(cpu, &number))
        return STATUS_FAULT;
    if (number >= 6 && value >> 32)
        return fault_gp(cpu, 0);
    charge_case(cpu, insn, number >= 6 ? CASE_DR67 : CASE_DR03);
    if (number == 6)
        value = (value & 0x0000e00f) | 0xffff0ff0;
    if (number == 7)
        value = (value & 0xffff23ff) | 0x00000400;
    cpu->dr[number] = value;
    cpu_update_mode(cpu);
    return STATUS_LOOK;
}

static int read_debug(CPU *cpu, const Insn *insn)
{
    unsigned number = insn->src;
    if (check_debug(cpu, &number))
        return STATUS_FAULT;
    charge_case(cpu, insn, number >= 6 ? CASE_DR67 : CASE_DR03);
    R64(insn->dst) = cpu->code64 ? cpu->dr[number] : (uint32_t)cpu->dr[number];
    return STATUS_OK;
}

COLD_BODY(exec_mov_d_r32) { return write_debug(cpu, insn, R32(insn->src)); }
COLD_BODY(exec_mov_d_r64) { return write_debug(cpu, insn, R64(insn->src)); }
COLD_BODY(exec_mov_r32_d) { return read_debug(cpu, insn); }
COLD_BODY(exec_mov_r64_d) { return read_debug(cpu, insn); }

/* --- the machine status word --- */

COLD_BODY(exec_clts)
{
    if (cpu->cpl)
        return fault_gp(cpu, 0);
    cpu->cr0 &= ~(uint64_t)CR0_TS;
    cpu_update_mode(cpu);
    return STATUS_LOOK;
}

/* LMSW sets PE, but never clears it. */
static int load_msw(CPU *cpu, uint64_t value)
{
    const uint64_t low = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
    return write_cr0(cpu, (cpu->cr0 & ~low) | (value & low) | (cpu->cr0 & CR0_PE));
}

COLD_BODY(exec_lmsw_r16) { return cpu->cpl ? fault_gp(cpu, 0) : load_msw(cpu, R16(insn->dst)); }
COLD_BODY(exec_lmsw_m16)
{
    if (cpu->cpl)
        return fault_gp(cpu, 0);
    return mem_read(cpu, insn->seg, effective_address(cpu, insn), 2) ? STATUS_FAULT : load_msw(cpu, cpu->data);
}

static bool forbidden_by_umip(const CPU *cpu) { return (cpu->cr4 & CR4_UMIP) && cpu->cpl > 0; }

#define STORE_MSW(bits)                          \
    COLD_BODY(exec_smsw_r##bits)                 \
    {                                            \
        if (forbidden_by_umip(cpu))              \
            return fault_gp(cpu, 0);             \
        SET_R##bits(insn->dst, cpu->cr0);        \
        return STATUS_OK;                        \
    }
STORE_MSW(16)
STORE_MSW(32)
STORE_MSW(64)

COLD_BODY(exec_smsw_m16)
{
    if (forbidden_by_umip(cpu))
        return fault_gp(cpu, 0);
    if (mem_write(cpu, insn->seg, effective_address(cpu, insn), 2, cpu->cr0 & 0xffff))
        return STATUS_FAULT;
    charge_case(cpu, insn, cpu->protected_mode ? CASE_PROTECTED_MEMORY : CASE_REAL_MEMORY);
    return STATUS_OK;
}
