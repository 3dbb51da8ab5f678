/* The VMX instructions. SDM Vol. 3, "VMX Instruction Reference". */
#include "exec.h"
#include "vmx_operation.h"

/* --- how they end: SDM Vol. 3, "Conventions" of the reference --- */

static int vmsucceed(CPU *cpu)
{
    cpu_set_flags(cpu, 0, FLAGS_ARITHMETIC);
    return STATUS_OK;
}

static int vmfail_invalid(CPU *cpu)
{
    cpu_set_flags(cpu, FLAG_CF, FLAGS_ARITHMETIC);
    return STATUS_OK;
}

/* VMfailValid where there is a current VMCS, else VMfailInvalid. */
static int vmfail(CPU *cpu, uint32_t error)
{
    if (cpu->vmx.current == VMCS_NONE)
        return vmfail_invalid(cpu);
    VMCS(cpu, VM_INSTRUCTION_ERROR) = error;
    cpu_set_flags(cpu, FLAG_ZF, FLAGS_ARITHMETIC);
    return STATUS_OK;
}

/* What all but VMXON check first: #UD outside VMX operation and in compatibility mode; a guest's are VM exits; #GP(0). */
static int begin(CPU *cpu, const Insn *insn, uint32_t reason)
{
    if (!cpu->vmx.on || (cpu->long_mode && !cpu->code64))
        return fault_ud(cpu);
    if (cpu->non_root)
        return vm_exit_instruction(cpu, reason, insn->memory ? vm_exit_displacement(cpu, insn) : 0);
    return cpu->cpl ? fault_gp(cpu, 0) : STATUS_OK;
}

/* The 64-bit physical address in the memory operand. */
static int read_pointer(CPU *cpu, const Insn *insn, uint64_t *pointer)
{
    if (mem_read(cpu, insn->seg, effective_address(cpu, insn), 8))
        return STATUS_FAULT;
    *pointer = cpu->data;
    return STATUS_OK;
}

/* Can it be the address of a region? Without 64-bit mode it has 32 bits. */
static bool valid_pointer(const CPU *cpu, uint64_t pointer)
{
    return !(pointer & PAGE_MASK) && !(pointer & ~physical_mask(cpu)) && (cpu->model->has[SINCE_LM] || !(pointer >> 32));
}

static uint32_t region_revision(CPU *cpu, uint64_t pointer) { return (uint32_t)bus_read(cpu->bus, pointer, 4); }

/* --- VMXON, VMXOFF --- */

COLD_BODY(exec_vmxon_m64)
{
    uint64_t pointer;
    if (!(cpu->cr4 & CR4_VMXE) || (cpu->long_mode && !cpu->code64))
        return fault_ud(cpu);
    if (cpu->non_root)
        return vm_exit_instruction(cpu, EXIT_REASON_VMXON, vm_exit_displacement(cpu, insn));
    if (cpu->vmx.on)
        return cpu->cpl ? fault_gp(cpu, 0) : vmfail(cpu, VMERROR_VMXON_IN_VMX_ROOT);
    const uint64_t enabled = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMXON;
    if (cpu->cpl || (VMX_CR0_FIXED0 & ~cpu->cr0) || (cpu->vmx.feature_control & enabled) != enabled ||
        cpu->bus->a20_mask != UINT64_MAX)
        return fault_gp(cpu, 0);
    if (read_pointer(cpu, insn, &pointer))
        return STATUS_FAULT;
    if (!valid_pointer(cpu, pointer) || region_revision(cpu, pointer) != cpu->model->vmx.revision)
        return vmfail_invalid(cpu);
    cpu->vmx.on = 1;
    cpu->vmx.vmxon_pointer = pointer;
    cpu->vmx.current = VMCS_NONE;
    cpu->vmx.exit_reason = EXIT_REASONS;
    cpu->vmx.failure = (VmxFailure){.field = -1};
    return vmsucceed(cpu);
}

COLD_BODY(exec_vmxoff)
{
    if (begin(cpu, insn, EXIT_REASON_VMXOFF))
        return STATUS_FAULT;
    vmcs_store(cpu);
    cpu->vmx.on = 0;
    bus_settle_a20(cpu->bus);
    cpu->vmx.current = VMCS_NONE;
    return vmsucceed(cpu);
}

/* --- VMCLEAR, VMPTRLD, VMPTRST --- */

COLD_BODY(exec_vmclear_m64)
{
    uint64_t pointer;
    const uint32_t clear = 0;
    if (begin(cpu, insn, EXIT_REASON_VMCLEAR) || read_pointer(cpu, insn, &pointer))
        return STATUS_FAULT;
    if (!valid_pointer(cpu, pointer))
        return vmfail(cpu, VMERROR_VMCLEAR_INVALID_ADDRESS);
    if (pointer == cpu->vmx.vmxon_pointer)
        return vmfail(cpu, VMERROR_VMCLEAR_VMXON_POINTER);
    if (pointer == cpu->vmx.current) {
        cpu->vmx.launched = 0;
        vmcs_store(cpu);
        cpu->vmx.current = VMCS_NONE;
    } else {
        bus_write_block(cpu->bus, pointer + VMCS_LAUNCH_AT, &clear, sizeof clear);
    }
    return vmsucceed(cpu);
}

COLD_BODY(exec_vmptrld_m64)
{
    uint64_t pointer;
    if (begin(cpu, insn, EXIT_REASON_VMPTRLD) || read_pointer(cpu, insn, &pointer))
        return STATUS_FAULT;
    if (!valid_pointer(cpu, pointer))
        return vmfail(cpu, VMERROR_VMPTRLD_INVALID_ADDRESS);
    if (pointer == cpu->vmx.vmxon_pointer)
        return vmfail(cpu, VMERROR_VMPTRLD_VMXON_POINTER);
    if (region_revision(cpu, pointer) != cpu->model->vmx.revision)
        return vmfail(cpu, VMERROR_VMPTRLD_INCORRECT_REVISION);
    if (pointer != cpu->vmx.current) {
        vmcs_store(cpu);
        vmcs_load(cpu, pointer);
    }
    return vmsucceed(cpu);
}

COLD_BODY(exec_vmptrst_m64)
{
    if (begin(cpu, insn, EXIT_REASON_VMPTRST) ||
        mem_write(cpu, insn->seg, effective_address(cpu, insn), 8, cpu->vmx.current))
        return STATUS_FAULT;
    return vmsucceed(cpu);
}

/* --- VMREAD, VMWRITE --- */

/* What VMREAD gives; false: it failed, with the flags set. */
static bool read_field(CPU *cpu, uint64_t encoding, uint64_t *value)
{
    if (cpu->vmx.current == VMCS_NONE) {
        vmfail_invalid(cpu);
        return false;
    }
    const int field = vmcs_field(cpu, encoding);
    if (field < 0) {
        vmfail(cpu, VMERROR_UNSUPPORTED_VMCS_COMPONENT);
        return false;
    }
    *value = cpu->vmx.field[field] >> (encoding & 1 ? 32 : 0);
    return true;
}

#define VMREAD(bits)                                                                                          \
    COLD_BODY(exec_vmread_r##bits##_r##bits)                                                                  \
    {                                                                                                         \
        uint64_t value;                                                                                       \
        if (begin(cpu, insn, EXIT_REASON_VMREAD))                                                             \
            return STATUS_FAULT;                                                                              \
        if (!read_field(cpu, R##bits(insn->src), &value))                                                     \
            return STATUS_OK;                                                                                 \
        SET_R##bits(insn->dst, value);                                                                        \
        return vmsucceed(cpu);                                                                                \
    }                                                                                                         \
    COLD_BODY(exec_vmread_m##bits##_r##bits)                                                                  \
    {                                                                                                         \
        uint64_t value;                                                                                       \
        if (begin(cpu, insn, EXIT_REASON_VMREAD))                                                             \
            return STATUS_FAULT;                                                                              \
        if (!read_field(cpu, R##bits(insn->src), &value))                                                     \
            return STATUS_OK;                                                                                 \
        if (mem_write(cpu, insn->seg, effective_address(cpu, insn), (bits) / 8, value))                       \
            return STATUS_FAULT;                                                                              \
        return vmsucceed(cpu);                                                                                \
    }
VMREAD(32)
VMREAD(64)

/* Writes what fits; a narrower operand clears the rest of the field. */
static int write_field(CPU *cpu, uint64_t encoding, uint64_t value)
{
    const int field = vmcs_field(cpu, encoding);
    if (field < 0)
        return vmfail(cpu, VMERROR_UNSUPPORTED_VMCS_COMPONENT);
    if (vmcs_is_read_only(field) && !(cpu->model->vmx.misc >> 29 & 1))
        return vmfail(cpu, VMERROR_VMWRITE_READ_ONLY_COMPONENT);
    if (encoding & 1)
        cpu->vmx.field[field] = (uint32_t)cpu->vmx.field[field] | value << 32;
    else
        cpu->vmx.field[field] = value & vmcs_field_mask(field);
    vmcs_written(cpu, field);
    return vmsucceed(cpu);
}

#define VMWRITE(bits)                                                                                         \
    COLD_BODY(exec_vmwrite_r##bits##_r##bits)                                                                 \
    {                                                                                                         \
        if (begin(cpu, insn, EXIT_REASON_VMWRITE))                                                            \
            return STATUS_FAULT;                                                                              \
        if (cpu->vmx.current == VMCS_NONE)                                                                    \
            return vmfail_invalid(cpu);                                                                       \
        return write_field(cpu, R##bits(insn->dst), R##bits(insn->src));                                      \
    }                                                                                                         \
    COLD_BODY(exec_vmwrite_r##bits##_m##bits)                                                                 \
    {                                                                                                         \
        if (begin(cpu, insn, EXIT_REASON_VMWRITE))                                                            \
            return STATUS_FAULT;                                                                              \
        if (cpu->vmx.current == VMCS_NONE)                                                                    \
            return vmfail_invalid(cpu);                                                                       \
        if (mem_read(cpu, insn->seg, effective_address(cpu, insn), (bits) / 8))                               \
            return STATUS_FAULT;                                                                              \
        return write_field(cpu, R##bits(insn->dst), cpu->data);                                               \
    }
VMWRITE(32)
VMWRITE(64)

/* --- VM entry, VMCALL, VMFUNC --- */

/* The instruction's own checks; the rest is VM entry. SDM Vol. 3, "Basic VM-Entry Checks". */
static int enter(CPU *cpu, const Insn *insn, uint32_t reason)
{
    const bool launch = reason == EXIT_REASON_VMLAUNCH;
    if (begin(cpu, insn, reason))
        return STATUS_FAULT;
    if (cpu->vmx.current == VMCS_NONE)
        return vmfail_invalid(cpu);
    if (cpu->in_shadow & SHADOW_MOV_SS)
        return vmfail(cpu, VMERROR_ENTRY_EVENTS_BLOCKED_BY_MOV_SS);
    if (launch && cpu->vmx.launched)
        return vmfail(cpu, VMERROR_VMLAUNCH_NONCLEAR_VMCS);
    if (!launch && !cpu->vmx.launched)
        return vmfail(cpu, VMERROR_VMRESUME_NONLAUNCHED_VMCS);
    uint32_t error;
    const int status = vmx_enter(cpu, launch, &error);
    return status == STATUS_OK ? vmfail(cpu, error) : status;
}

COLD_BODY(exec_vmlaunch) { return enter(cpu, insn, EXIT_REASON_VMLAUNCH); }
COLD_BODY(exec_vmresume) { return enter(cpu, insn, EXIT_REASON_VMRESUME); }

/* It has no operand and no #UD in real-address mode: a guest there may call its VMM. */
COLD_BODY(exec_vmcall)
{
    if (!cpu->vmx.on)
        return fault_ud(cpu);
    if (cpu->non_root)
        return vm_exit_instruction(cpu, EXIT_REASON_VMCALL, 0);
    if (!cpu->protected_mode || (cpu->long_mode && !cpu->code64))
        return fault_ud(cpu);
    return cpu->cpl ? fault_gp(cpu, 0) : vmfail(cpu, VMERROR_VMCALL_IN_VMX_ROOT);
}

/* No model has VM functions. */
COLD_BODY(exec_vmfunc) { return fault_ud(cpu); }

/* --- INVEPT, INVVPID --- */

/* The 16 bytes of the descriptor. */
static int read_invalidation(CPU *cpu, const Insn *insn, uint64_t *low, uint64_t *high)
{
    const uint64_t ea = effective_address(cpu, insn);
    if (mem_read(cpu, insn->seg, ea, 8))
        return STATUS_FAULT;
    *low = cpu->data;
    if (mem_read(cpu, insn->seg, (ea + 8) & cpu->address_mask[insn->asize], 8))
        return STATUS_FAULT;
    *high = cpu->data;
    return STATUS_OK;
}

/* Is it an EPT pointer that VM entry would take? */
static bool eptp_usable(const CPU *cpu, uint64_t eptp)
{
    const uint64_t caps = cpu->model->vmx.ept_vpid;
    const unsigned type = eptp & 7;
    return ((type == 6 && (caps & EPT_CAP_WB)) || (type == 0 && (caps & EPT_CAP_UC))) && (eptp >> 3 & 7) == 3 &&
           !(eptp & 0xf80) && ((caps & EPT_CAP_ACCESSED_DIRTY) || !(eptp & 0x40)) && !(eptp & ~physical_mask(cpu));
}

static int invalidate_ept(CPU *cpu, const Insn *insn, uint64_t type)
{
    enum { SINGLE_CONTEXT = 1, GLOBAL = 2 };
    uint64_t eptp, high;
    if (!(cpu->model->vmx.ept_vpid & EPT_CAP_INVEPT))
        return fault_ud(cpu);
    if (begin(cpu, insn, EXIT_REASON_INVEPT))
        return STATUS_FAULT;
    const bool known = type >= SINGLE_CONTEXT && type <= GLOBAL && (cpu->model->vmx.ept_vpid & EPT_CAP_INVEPT_TYPE(type));
    if (!known)
        return vmfail(cpu, VMERROR_INVALID_OPERAND_TO_INVEPT_INVVPID);
    if (read_invalidation(cpu, insn, &eptp, &high))
        return STATUS_FAULT;
    if (high || (type == SINGLE_CONTEXT && !eptp_usable(cpu, eptp)))
        return vmfail(cpu, VMERROR_INVALID_OPERAND_TO_INVEPT_INVVPID);
    tlb_flush_matching(cpu, -1, type == SINGLE_CONTEXT ? eptp : UINT64_MAX, true);
    return vmsucceed(cpu);
}

static int invalidate_vpid(CPU *cpu, const Insn *insn, uint64_t type)
{
    enum { INDIVIDUAL_ADDRESS, SINGLE_CONTEXT, ALL_CONTEXTS, SINGLE_CONTEXT_RETAINING_GLOBALS };
    uint64_t low, la;
    if (!(cpu->model->vmx.ept_vpid & EPT_CAP_INVVPID))
        return fault_ud(cpu);
    if (begin(cpu, insn, EXIT_REASON_INVVPID))
        return STATUS_FAULT;
    if (type > SINGLE_CONTEXT_RETAINING_GLOBALS || !(cpu->model->vmx.ept_vpid & EPT_CAP_INVVPID_TYPE(type)))
        return vmfail(cpu, VMERROR_INVALID_OPERAND_TO_INVEPT_INVVPID);
    if (read_invalidation(cpu, insn, &low, &la))
        return STATUS_FAULT;
    const uint16_t vpid = (uint16_t)low;
    if (low >> 16 || (type != ALL_CONTEXTS && !vpid) || (type == INDIVIDUAL_ADDRESS && !is_canonical(la)))
        return vmfail(cpu, VMERROR_INVALID_OPERAND_TO_INVEPT_INVVPID);
    if (type == ALL_CONTEXTS) { /* but for VPID 0 */
        for (unsigned i = 0; i < TLB_CONTEXTS; i++)
            if (cpu->contexts[i].vpid)
                tlb_flush_matching(cpu, cpu->contexts[i].vpid, UINT64_MAX, true);
    } else if (type == INDIVIDUAL_ADDRESS) {
        tlb_flush_page_of(cpu, vpid, la);
    } else {
        tlb_flush_matching(cpu, vpid, UINT64_MAX, type != SINGLE_CONTEXT_RETAINING_GLOBALS);
    }
    return vmsucceed(cpu);
}

COLD_BODY(exec_invept_r32_m) { return invalidate_ept(cpu, insn, R32(insn->dst)); }
COLD_BODY(exec_invept_r64_m) { return invalidate_ept(cpu, insn, R64(insn->dst)); }
COLD_BODY(exec_invvpid_r32_m) { return invalidate_vpid(cpu, insn, R32(insn->dst)); }
COLD_BODY(exec_invvpid_r64_m) { return invalidate_vpid(cpu, insn, R64(insn->dst)); }
