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
    /* SDM Vol. 3, "VMX Operation: Restrictions". */
    if (cpu->vmx.on) {
        const uint32_t fixed = VMX_CR0_FIXED0 & ~(guest_proc2(cpu, PROC2_UNRESTRICTED_GUEST) ? CR0_PE | CR0_PG : 0);
        if (fixed & ~next)
            return fault_gp(cpu, 0);
    }
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
    if (cpu->vmx.on && !(value & CR4_VMXE))
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

int control_write(CPU *cpu, unsigned number, uint64_t value)
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

/* --- in a guest: SDM Vol. 3, "Instructions That Cause VM Exits Conditionally", "Changes to Instruction Behavior in VMX
 * Non-Root Operation"; the qualification: "Exit Qualification for Control-Register Accesses" --- */

enum { ACCESS_TO_CR, ACCESS_FROM_CR, ACCESS_CLTS, ACCESS_LMSW };

static int exit_on_access(CPU *cpu, unsigned number, unsigned kind, unsigned gpr, uint64_t more)
{
    return vm_exit_instruction(cpu, EXIT_REASON_CONTROL_REGISTER_ACCESSES, number | kind << 4 | gpr << 8 | more);
}

/* The bits of a guest's CR0 or CR4 that belong to the VMM, and what it shows in their place. */
typedef struct Masked {
    uint64_t mask, shadow;
} Masked;

static Masked masked(const CPU *cpu, unsigned number)
{
    const uint64_t *field = cpu->vmx.field;
    return number == 0 ? (Masked){field[CR0_GUEST_HOST_MASK], field[CR0_READ_SHADOW]}
                       : (Masked){field[CR4_GUEST_HOST_MASK], field[CR4_READ_SHADOW]};
}

static uint64_t seen_by_guest(const CPU *cpu, unsigned number, uint64_t value)
{
    const Masked own = masked(cpu, number);
    return (value & ~own.mask) | (own.shadow & own.mask);
}

static bool is_cr3_target(const CPU *cpu, uint64_t value)
{
    for (uint64_t i = 0; i < cpu->vmx.field[CR3_TARGET_COUNT]; i++)
        if (cpu->vmx.field[CR3_TARGET_VALUE_0 + i] == value)
            return true;
    return false;
}

static uint64_t virtual_tpr_address(const CPU *cpu) { return cpu->vmx.field[VIRTUAL_APIC_ADDRESS] + 0x80; }

/* MOV to a control register by a guest: exits, or writes what is the guest's to write. */
static int guest_write_control(CPU *cpu, unsigned number, uint64_t value, unsigned gpr)
{
    if (number == 0 || number == 4) {
        const Masked own = masked(cpu, number);
        if ((value ^ own.shadow) & own.mask)
            return exit_on_access(cpu, number, ACCESS_TO_CR, gpr, 0);
        const uint64_t real = number == 0 ? cpu->cr0 : cpu->cr4;
        value = (value & ~own.mask) | (real & own.mask);
    } else if (number == 3 && guest_proc(cpu, PROC_CR3_LOAD_EXITING) && !is_cr3_target(cpu, value)) {
        return exit_on_access(cpu, 3, ACCESS_TO_CR, gpr, 0);
    } else if (number == 8) {
        if (guest_proc(cpu, PROC_CR8_LOAD_EXITING))
            return exit_on_access(cpu, 8, ACCESS_TO_CR, gpr, 0);
        if (guest_proc(cpu, PROC_USE_TPR_SHADOW)) {
            if (value & ~15ull)
                return fault_gp(cpu, 0);
            bus_write(cpu->bus, virtual_tpr_address(cpu), value << 4, 4);
            if (value < (cpu->vmx.field[TPR_THRESHOLD] & 15)) {
                cpu->vmx.tpr_due = 1;
                cpu_pulse(cpu, REQUEST_VMX);
            }
            return STATUS_LOOK;
        }
    }
    return control_write(cpu, number, value);
}

static int write_control(CPU *cpu, const Insn *insn, uint64_t value)
{
    const unsigned number = insn->dst;
    if (!control_register_exists(cpu, number))
        return fault_ud(cpu);
    if (cpu->cpl)
        return fault_gp(cpu, 0);
    const int status = cpu->non_root ? guest_write_control(cpu, number, value, insn->src / 8)
                                     : control_write(cpu, number, value);
    if (status >= 0)
        charge_case(cpu, insn, number == 2 ? CASE_CR2 : number == 3 ? CASE_CR3 : CASE_CR0);
    return status;
}

static uint64_t control_value(const CPU *cpu, unsigned number)
{
    switch (number) {
    case 0: return cpu->non_root ? seen_by_guest(cpu, 0, cpu->cr0) : cpu->cr0;
    case 2: return cpu->cr2;
    case 3: return cpu->cr3;
    case 4: return cpu->non_root ? seen_by_guest(cpu, 4, cpu->cr4) : cpu->cr4;
    default:
        if (guest_proc(cpu, PROC_USE_TPR_SHADOW))
            return bus_read(cpu->bus, virtual_tpr_address(cpu), 4) >> 4 & 15;
        return cpu->cr8;
    }
}

static int read_control(CPU *cpu, const Insn *insn)
{
    const unsigned number = insn->src;
    if (!control_register_exists(cpu, number))
        return fault_ud(cpu);
    if (cpu->cpl)
        return fault_gp(cpu, 0);
    if ((number == 3 && guest_proc(cpu, PROC_CR3_STORE_EXITING)) || (number == 8 && guest_proc(cpu, PROC_CR8_STORE_EXITING)))
        return exit_on_access(cpu, number, ACCESS_FROM_CR, insn->dst / 8, 0);
    const uint64_t value = control_value(cpu, number);
    R64(insn->dst) = cpu->code64 ? value : (uint32_t)value;
    return STATUS_OK;
}

COLD_BODY(exec_mov_c_r32) { return write_control(cpu, insn, R32(insn->src)); }
COLD_BODY(exec_mov_c_r64) { return write_control(cpu, insn, R64(insn->src)); }
COLD_BODY(exec_mov_r32_c) { return read_control(cpu, insn); }
COLD_BODY(exec_mov_r64_c) { return read_control(cpu, insn); }

/* --- debug registers --- */

/* Which register a number means: 4 and 5 are 6 and 7, or undefined with CR4.DE. Checks privilege and DR7.GD.
 * SDM Vol. 3, "MOV DR": other than most VM exits its own comes before privilege and CR4.DE. */
static int check_debug(CPU *cpu, unsigned *number, bool write, unsigned gpr)
{
    if (*number > 7)
        return fault_ud(cpu);
    if (guest_proc(cpu, PROC_MOV_DR_EXITING))
        return vm_exit_instruction(cpu, EXIT_REASON_MOV_DR, *number | (write ? 0 : 0x10) | gpr << 8);
    if ((*number == 4 || *number == 5) && (cpu->cr4 & CR4_DE))
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
    if (check_debug(cpu, &number, true, insn->src / 8))
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
    if (check_debug(cpu, &number, false, insn->dst / 8))
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
    if (cpu->non_root) {
        const Masked own = masked(cpu, 0);
        if (own.mask & CR0_TS) {
            if (own.shadow & CR0_TS)
                return exit_on_access(cpu, 0, ACCESS_CLTS, 0, 0);
            return STATUS_LOOK; /* the guest's TS is 0 already, the real one is not its own */
        }
    }
    cpu->cr0 &= ~(uint64_t)CR0_TS;
    cpu_update_mode(cpu);
    return STATUS_LOOK;
}

/* LMSW sets PE, but never clears it. */
static int load_msw(CPU *cpu, const Insn *insn, uint64_t value)
{
    uint64_t low = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
    if (cpu->non_root) {
        /* SDM Vol. 3: for PE what counts is that it would be set. */
        const Masked own = masked(cpu, 0);
        if (((value ^ own.shadow) & own.mask & (CR0_MP | CR0_EM | CR0_TS)) || (value & ~own.shadow & own.mask & CR0_PE))
            return exit_on_access(cpu, 0, ACCESS_LMSW, 0, (uint64_t)insn->memory << 6 | (value & 0xffff) << 16);
        low &= ~own.mask;
    }
    return write_cr0(cpu, (cpu->cr0 & ~low) | (value & low) | (cpu->cr0 & CR0_PE));
}

COLD_BODY(exec_lmsw_r16) { return cpu->cpl ? fault_gp(cpu, 0) : load_msw(cpu, insn, R16(insn->dst)); }
COLD_BODY(exec_lmsw_m16)
{
    if (cpu->cpl)
        return fault_gp(cpu, 0);
    const uint64_t ea = effective_address(cpu, insn);
    if (mem_read(cpu, insn->seg, ea, 2))
        return STATUS_FAULT;
    const int status = load_msw(cpu, insn, cpu->data);
    if (status == STATUS_VMEXIT) {
        const uint64_t la = cpu->seg[insn->seg].base + ea;
        cpu->exit.guest_linear = cpu->code64 ? (insn->seg < FS ? ea : la) : (uint32_t)la;
    }
    return status;
}

static bool forbidden_by_umip(const CPU *cpu) { return (cpu->cr4 & CR4_UMIP) && cpu->cpl > 0; }

#define STORE_MSW(bits)                          \
    COLD_BODY(exec_smsw_r##bits)                 \
    {                                            \
        if (forbidden_by_umip(cpu))              \
            return fault_gp(cpu, 0);             \
        SET_R##bits(insn->dst, control_value(cpu, 0));        \
        return STATUS_OK;                        \
    }
STORE_MSW(16)
STORE_MSW(32)
STORE_MSW(64)

COLD_BODY(exec_smsw_m16)
{
    if (forbidden_by_umip(cpu))
        return fault_gp(cpu, 0);
    if (mem_write(cpu, insn->seg, effective_address(cpu, insn), 2, control_value(cpu, 0) & 0xffff))
        return STATUS_FAULT;
    charge_case(cpu, insn, cpu->protected_mode ? CASE_PROTECTED_MEMORY : CASE_REAL_MEMORY);
    return STATUS_OK;
}
