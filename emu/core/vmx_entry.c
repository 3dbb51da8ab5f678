/* VM entry: the checks in the SDM's groups and its order, one function a group, then the entry itself.
 * SDM Vol. 3, "VM Entries".
 *
 * A check that fails is kept in CPU.vmx.failure: what was checked, the field with its value, and what would pass. */
#include "vmx_operation.h"

/* In a function that returns bool and has `section`: the check holds, or it is recorded and the group fails. */
#define CHECK(condition, check_, field_, expected_)                                                     \
    do {                                                                                                \
        if (unlikely(!(condition))) {                                                                   \
            cpu->vmx.failure = (VmxFailure){check_, expected_, section, field_, cpu->vmx.field[field_]}; \
            return false;                                                                               \
        }                                                                                               \
    } while (0)

static bool fits_physical(const CPU *cpu, uint64_t address) { return !(address & ~physical_mask(cpu)); }
static bool is_page(const CPU *cpu, uint64_t address) { return !(address & PAGE_MASK) && fits_physical(cpu, address); }
static bool canonical_here(const CPU *cpu, uint64_t address) { return !cpu->model->has[SINCE_LM] || is_canonical(address); }

/* --- controls: SDM Vol. 3, "Checks on VMX Controls" --- */

static bool controls_allowed(const CPU *cpu, ControlWord word, uint64_t value)
{
    const uint32_t must = control_must(cpu, word, false), may = control_may(cpu, word);
    return (value & must) == must && !(value & ~may);
}

static bool check_virtual_apic(CPU *cpu)
{
    static const char section[] = "VM-Execution Control Fields";
    const uint32_t proc2 = proc2_controls(cpu);
    if (!(proc_controls(cpu) & PROC_USE_TPR_SHADOW)) {
        CHECK(!(proc2 & (PROC2_VIRTUALIZE_X2APIC_MODE | PROC2_APIC_REGISTER_VIRTUALIZATION | PROC2_VIRTUAL_INTERRUPT_DELIVERY)),
              "virtual APIC controls without TPR shadow", SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS,
              "these bits 0, or the TPR shadow used");
        return true;
    }
    CHECK(is_page(cpu, VMCS(cpu, VIRTUAL_APIC_ADDRESS)), "virtual-APIC address", VIRTUAL_APIC_ADDRESS,
          "bits 11:0 zero, within the physical-address width");
    CHECK((proc2 & PROC2_VIRTUAL_INTERRUPT_DELIVERY) || !(VMCS(cpu, TPR_THRESHOLD) & ~15ull), "TPR threshold", TPR_THRESHOLD,
          "bits 31:4 zero");
    return true;
}

/* The TPR of the virtual-APIC page is memory: this check is made at every entry. */
static bool check_tpr(CPU *cpu)
{
    static const char section[] = "VM-Execution Control Fields";
    const uint32_t proc2 = proc2_controls(cpu);
    if (!(proc_controls(cpu) & PROC_USE_TPR_SHADOW) ||
        (proc2 & (PROC2_VIRTUALIZE_APIC_ACCESSES | PROC2_VIRTUAL_INTERRUPT_DELIVERY)))
        return true;
    const uint64_t vtpr = bus_read(cpu->bus, VMCS(cpu, VIRTUAL_APIC_ADDRESS) + 0x80, 1);
    CHECK((VMCS(cpu, TPR_THRESHOLD) & 15) <= vtpr >> 4, "TPR threshold and VTPR", TPR_THRESHOLD,
          "not above bits 7:4 of VTPR in the virtual-APIC page");
    return true;
}

static bool check_ept_pointer(CPU *cpu)
{
    static const char section[] = "VM-Execution Control Fields";
    const uint64_t eptp = VMCS(cpu, EPT_POINTER), caps = cpu->model->vmx.ept_vpid;
    const unsigned type = eptp & 7;
    CHECK((type == 0 && (caps & EPT_CAP_UC)) || (type == 6 && (caps & EPT_CAP_WB)), "EPT memory type", EPT_POINTER,
          "bits 2:0 are 0 (UC) or 6 (WB), as IA32_VMX_EPT_VPID_CAP has them");
    CHECK((eptp >> 3 & 7) == 3, "EPT page-walk length", EPT_POINTER, "bits 5:3 are 3 (four levels)");
    CHECK(!(eptp & 0x40) || (caps & EPT_CAP_ACCESSED_DIRTY), "EPT accessed and dirty flags", EPT_POINTER, "bit 6 zero");
    CHECK(!(eptp & 0xf80) && fits_physical(cpu, eptp), "EPT pointer reserved bits", EPT_POINTER,
          "bits 11:7 zero, within the physical-address width");
    return true;
}

static bool check_execution_controls(CPU *cpu)
{
    static const char section[] = "VM-Execution Control Fields";
    const uint32_t pin = pin_controls(cpu), proc = proc_controls(cpu), proc2 = proc2_controls(cpu);
    CHECK(controls_allowed(cpu, WORD_PIN, pin), "pin-based controls reserved bits", PIN_BASED_VM_EXECUTION_CONTROLS,
          "as IA32_VMX_(TRUE_)PINBASED_CTLS allows");
    CHECK(controls_allowed(cpu, WORD_PROC, proc), "primary processor-based controls reserved bits",
          PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS, "as IA32_VMX_(TRUE_)PROCBASED_CTLS allows");
    CHECK(controls_allowed(cpu, WORD_PROC2, proc2), "secondary processor-based controls reserved bits",
          SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS, "as IA32_VMX_PROCBASED_CTLS2 allows");
    CHECK(VMCS(cpu, CR3_TARGET_COUNT) <= 4, "CR3-target count", CR3_TARGET_COUNT, "4 at most");
    if (proc & PROC_USE_IO_BITMAPS) {
        CHECK(is_page(cpu, VMCS(cpu, ADDRESS_OF_IO_BITMAP_A)), "I/O bitmap A address", ADDRESS_OF_IO_BITMAP_A,
              "bits 11:0 zero, within the physical-address width");
        CHECK(is_page(cpu, VMCS(cpu, ADDRESS_OF_IO_BITMAP_B)), "I/O bitmap B address", ADDRESS_OF_IO_BITMAP_B,
              "bits 11:0 zero, within the physical-address width");
    }
    if (proc & PROC_USE_MSR_BITMAPS)
        CHECK(is_page(cpu, VMCS(cpu, ADDRESS_OF_MSR_BITMAPS)), "MSR bitmap address", ADDRESS_OF_MSR_BITMAPS,
              "bits 11:0 zero, within the physical-address width");
    if (!check_virtual_apic(cpu))
        return false;
    CHECK((pin & PIN_NMI_EXITING) || !(pin & PIN_VIRTUAL_NMIS), "virtual NMIs without NMI exiting",
          PIN_BASED_VM_EXECUTION_CONTROLS, "NMI exiting 1, or virtual NMIs 0");
    CHECK((pin & PIN_VIRTUAL_NMIS) || !(proc & PROC_NMI_WINDOW_EXITING), "NMI-window exiting without virtual NMIs",
          PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS, "virtual NMIs 1, or NMI-window exiting 0");
    if (proc2 & PROC2_VIRTUALIZE_APIC_ACCESSES)
        CHECK(is_page(cpu, VMCS(cpu, APIC_ACCESS_ADDRESS)), "APIC-access address", APIC_ACCESS_ADDRESS,
              "bits 11:0 zero, within the physical-address width");
    if (proc2 & PROC2_ENABLE_VPID)
        CHECK(VMCS(cpu, VIRTUAL_PROCESSOR_IDENTIFIER), "VPID", VIRTUAL_PROCESSOR_IDENTIFIER, "not 0");
    if ((proc2 & PROC2_ENABLE_EPT) && !check_ept_pointer(cpu))
        return false;
    CHECK(!(proc2 & PROC2_UNRESTRICTED_GUEST) || (proc2 & PROC2_ENABLE_EPT), "unrestricted guest without EPT",
          SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS, "EPT enabled, or unrestricted guest 0");
    return true;
}

/* An area of MSRs: 16 bytes an entry. */
static bool area_fits(const CPU *cpu, uint64_t address, uint64_t count)
{
    return !(address & 15) && fits_physical(cpu, address) && fits_physical(cpu, address + 16 * count - 1);
}

static bool check_exit_controls(CPU *cpu)
{
    static const char section[] = "VM-Exit Control Fields";
    const uint32_t exit = exit_controls(cpu);
    CHECK(controls_allowed(cpu, WORD_EXIT, exit), "VM-exit controls reserved bits", VM_EXIT_CONTROLS,
          "as IA32_VMX_(TRUE_)EXIT_CTLS allows");
    CHECK((pin_controls(cpu) & PIN_ACTIVATE_VMX_PREEMPTION_TIMER) || !(exit & EXIT_SAVE_VMX_PREEMPTION_TIMER_VALUE),
          "saving a preemption timer that is not active", VM_EXIT_CONTROLS, "the timer active, or not saved");
    if (VMCS(cpu, VM_EXIT_MSR_STORE_COUNT))
        CHECK(area_fits(cpu, VMCS(cpu, VM_EXIT_MSR_STORE_ADDRESS), VMCS(cpu, VM_EXIT_MSR_STORE_COUNT)),
              "VM-exit MSR-store area", VM_EXIT_MSR_STORE_ADDRESS, "16-byte aligned, first and last byte within the physical-address width");
    if (VMCS(cpu, VM_EXIT_MSR_LOAD_COUNT))
        CHECK(area_fits(cpu, VMCS(cpu, VM_EXIT_MSR_LOAD_ADDRESS), VMCS(cpu, VM_EXIT_MSR_LOAD_COUNT)),
              "VM-exit MSR-load area", VM_EXIT_MSR_LOAD_ADDRESS, "16-byte aligned, first and last byte within the physical-address width");
    return true;
}

static bool check_entry_controls(CPU *cpu)
{
    static const char section[] = "VM-Entry Control Fields";
    const uint32_t entry = entry_controls(cpu);
    CHECK(controls_allowed(cpu, WORD_ENTRY, entry), "VM-entry controls reserved bits", VM_ENTRY_CONTROLS,
          "as IA32_VMX_(TRUE_)ENTRY_CTLS allows");
    if (VMCS(cpu, VM_ENTRY_MSR_LOAD_COUNT))
        CHECK(area_fits(cpu, VMCS(cpu, VM_ENTRY_MSR_LOAD_ADDRESS), VMCS(cpu, VM_ENTRY_MSR_LOAD_COUNT)),
              "VM-entry MSR-load area", VM_ENTRY_MSR_LOAD_ADDRESS, "16-byte aligned, first and last byte within the physical-address width");
    CHECK(!(entry & (ENTRY_ENTRY_TO_SMM | ENTRY_DEACTIVATE_DUAL_MONITOR_TREATMENT)), "entry to SMM outside SMM",
          VM_ENTRY_CONTROLS, "bits 10 and 11 zero");
    return true;
}

static bool has_error_code(unsigned vector) { return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17; }

/* The event that is injected: checked whenever there is one, since GUEST_CR0 takes part. */
static bool check_injection(CPU *cpu)
{
    static const char section[] = "VM-Entry Control Fields";
    const uint32_t info = (uint32_t)VMCS(cpu, VM_ENTRY_INTERRUPTION_INFORMATION_FIELD);
    const unsigned type = info >> 8 & 7, vector = info & 0xff;
    const bool with_code = info & INTERRUPTION_ERROR_CODE;
    const int field = VM_ENTRY_INTERRUPTION_INFORMATION_FIELD;
    if (!(info & INTERRUPTION_VALID))
        return true;
    const bool trap_flag = control_may(cpu, WORD_PROC) & PROC_MONITOR_TRAP_FLAG;
    CHECK(type != 1 && (type != 7 || trap_flag), "injected event's type", field, "not 1; 7 where the model has the monitor trap flag");
    CHECK(type != EVENT_NMI || vector == 2, "vector of an injected NMI", field, "2");
    CHECK(type != EVENT_HARDWARE_EXCEPTION || vector <= 31, "vector of an injected exception", field, "31 at most");
    CHECK(type != 7 || !vector, "vector of another injected event", field, "0");
    const bool real = (proc2_controls(cpu) & PROC2_UNRESTRICTED_GUEST) && !(VMCS(cpu, GUEST_CR0) & CR0_PE);
    CHECK(with_code == (type == EVENT_HARDWARE_EXCEPTION && has_error_code(vector) && !real), "injected error code", field,
          "bit 11 is 1 for exceptions that have one, in protected mode, else 0");
    CHECK(!(info & 0x7ffff000), "injected event's reserved bits", field, "bits 30:12 zero");
    if (with_code)
        CHECK(!(VMCS(cpu, VM_ENTRY_EXCEPTION_ERROR_CODE) & 0xffff8000), "injected error code's value", VM_ENTRY_EXCEPTION_ERROR_CODE,
              "bits 31:15 zero");
    if (type >= EVENT_SOFTWARE_INTERRUPT && type <= EVENT_SOFTWARE_EXCEPTION)
        CHECK(VMCS(cpu, VM_ENTRY_INSTRUCTION_LENGTH) >= 1 && VMCS(cpu, VM_ENTRY_INSTRUCTION_LENGTH) <= 15,
              "instruction length of an injected software event", VM_ENTRY_INSTRUCTION_LENGTH, "1 to 15");
    return true;
}

/* --- host state: SDM Vol. 3, "Checks on Host-State Area" --- */

/* CR0 and CR4: bits that VMX operation fixes. Whether NW and CD are 1 is not asked. */
static bool cr0_fixed(uint64_t value, uint64_t fixed) { return !(fixed & ~value) && !(value >> 32); }
static bool cr4_fixed(const CPU *cpu, uint64_t value) { return (value & CR4_VMXE) && !(value & ~cpu->model->cr4_mask); }

static bool check_host_control_registers(CPU *cpu)
{
    static const char section[] = "Checks on Host Control Registers, MSRs, and SSP";
    const uint32_t exit = exit_controls(cpu);
    CHECK(cr0_fixed(VMCS(cpu, HOST_CR0), VMX_CR0_FIXED0), "host CR0", HOST_CR0, "PE, NE and PG 1, bits 63:32 zero");
    CHECK(cr4_fixed(cpu, VMCS(cpu, HOST_CR4)), "host CR4", HOST_CR4, "VMXE 1, no bit that IA32_VMX_CR4_FIXED1 has 0");
    CHECK(fits_physical(cpu, VMCS(cpu, HOST_CR3)), "host CR3", HOST_CR3, "within the physical-address width");
    CHECK(canonical_here(cpu, VMCS(cpu, HOST_IA32_SYSENTER_ESP)), "host SYSENTER_ESP", HOST_IA32_SYSENTER_ESP, "canonical");
    CHECK(canonical_here(cpu, VMCS(cpu, HOST_IA32_SYSENTER_EIP)), "host SYSENTER_EIP", HOST_IA32_SYSENTER_EIP, "canonical");
    if (exit & EXIT_LOAD_IA32_PAT)
        CHECK(pat_valid(VMCS(cpu, HOST_IA32_PAT)), "host IA32_PAT", HOST_IA32_PAT, "each byte 0, 1 or 4 to 7");
    if (exit & EXIT_LOAD_IA32_EFER) {
        const uint64_t efer = VMCS(cpu, HOST_IA32_EFER), long_bits = EFER_LMA | EFER_LME;
        CHECK(!(efer & ~(efer_mask(cpu) | EFER_LMA)), "host IA32_EFER reserved bits", HOST_IA32_EFER, "reserved bits zero");
        CHECK((efer & long_bits) == (exit & EXIT_HOST_ADDRESS_SPACE_SIZE ? long_bits : 0), "host IA32_EFER LMA and LME",
              HOST_IA32_EFER, "both as the control host address-space size");
    }
    return true;
}

static bool check_host_segments(CPU *cpu)
{
    static const char section[] = "Checks on Host Segment and Descriptor-Table Registers";
    for (int i = HOST_ES_SELECTOR; i <= HOST_TR_SELECTOR; i++)
        CHECK(!(cpu->vmx.field[i] & 7), "host selector", i, "RPL and TI zero");
    CHECK(VMCS(cpu, HOST_CS_SELECTOR), "host CS selector", HOST_CS_SELECTOR, "not 0");
    CHECK(VMCS(cpu, HOST_TR_SELECTOR), "host TR selector", HOST_TR_SELECTOR, "not 0");
    CHECK((exit_controls(cpu) & EXIT_HOST_ADDRESS_SPACE_SIZE) || VMCS(cpu, HOST_SS_SELECTOR), "host SS selector",
          HOST_SS_SELECTOR, "not 0 unless the host is a 64-bit one");
    for (int i = HOST_FS_BASE; i <= HOST_IDTR_BASE; i++)
        CHECK(canonical_here(cpu, cpu->vmx.field[i]), "host base address", i, "canonical");
    return true;
}

static bool check_host_address_space(CPU *cpu)
{
    static const char section[] = "Checks Related to Address-Space Size";
    const bool wide = exit_controls(cpu) & EXIT_HOST_ADDRESS_SPACE_SIZE;
    const bool ia32e_guest = entry_controls(cpu) & ENTRY_IA32E_MODE_GUEST;
    CHECK(cpu->long_mode || !ia32e_guest, "IA-32e mode guest of a 32-bit VMM", VM_ENTRY_CONTROLS, "bit 9 zero");
    CHECK(wide == (cpu->long_mode != 0), "host address-space size", VM_EXIT_CONTROLS, "bit 9 is IA32_EFER.LMA at the VM entry");
    if (!wide) {
        CHECK(!ia32e_guest, "IA-32e mode guest of a 32-bit host", VM_ENTRY_CONTROLS, "bit 9 zero");
        CHECK(!(VMCS(cpu, HOST_CR4) & CR4_PCIDE), "host CR4.PCIDE", HOST_CR4, "bit 17 zero");
        CHECK(!(VMCS(cpu, HOST_RIP) >> 32), "host RIP", HOST_RIP, "bits 63:32 zero");
    } else {
        CHECK(VMCS(cpu, HOST_CR4) & CR4_PAE, "host CR4.PAE", HOST_CR4, "bit 5 one");
        CHECK(is_canonical(VMCS(cpu, HOST_RIP)), "host RIP", HOST_RIP, "canonical");
    }
    return true;
}

/* --- guest state: SDM Vol. 3, "Checks on the Guest State Area" --- */

static bool guest_is_unrestricted(const CPU *cpu) { return proc2_controls(cpu) & PROC2_UNRESTRICTED_GUEST; }

static bool check_guest_control_registers(CPU *cpu)
{
    static const char section[] = "Checks on Guest Control Registers, Debug Registers, and MSRs";
    const uint32_t entry = entry_controls(cpu);
    const uint64_t cr0 = VMCS(cpu, GUEST_CR0), cr4 = VMCS(cpu, GUEST_CR4);
    const bool ia32e = entry & ENTRY_IA32E_MODE_GUEST;
    const uint32_t fixed = guest_is_unrestricted(cpu) ? CR0_NE : VMX_CR0_FIXED0;
    CHECK(cr0_fixed(cr0, fixed), "guest CR0", GUEST_CR0,
          "NE 1, PE and PG too unless the guest is unrestricted, bits 63:32 zero");
    CHECK(!(cr0 & CR0_PG) || (cr0 & CR0_PE), "guest CR0.PG", GUEST_CR0, "PE 1 where PG is 1");
    CHECK(cr4_fixed(cpu, cr4), "guest CR4", GUEST_CR4, "VMXE 1, no bit that IA32_VMX_CR4_FIXED1 has 0");
    if (entry & ENTRY_LOAD_DEBUG_CONTROLS)
        CHECK(!(VMCS(cpu, GUEST_IA32_DEBUGCTL) & ~(uint64_t)(DEBUGCTL_LBR | DEBUGCTL_BTF)), "guest IA32_DEBUGCTL",
              GUEST_IA32_DEBUGCTL, "bits 63:2 zero");
    if (ia32e)
        CHECK((cr0 & CR0_PG) && (cr4 & CR4_PAE), "paging of an IA-32e mode guest", GUEST_CR0, "CR0.PG and CR4.PAE 1");
    else
        CHECK(!(cr4 & CR4_PCIDE), "guest CR4.PCIDE", GUEST_CR4, "0 outside IA-32e mode");
    CHECK(fits_physical(cpu, VMCS(cpu, GUEST_CR3)), "guest CR3", GUEST_CR3, "within the physical-address width");
    if (entry & ENTRY_LOAD_DEBUG_CONTROLS)
        CHECK(!(VMCS(cpu, GUEST_DR7) >> 32), "guest DR7", GUEST_DR7, "bits 63:32 zero");
    CHECK(canonical_here(cpu, VMCS(cpu, GUEST_IA32_SYSENTER_ESP)), "guest SYSENTER_ESP", GUEST_IA32_SYSENTER_ESP, "canonical");
    CHECK(canonical_here(cpu, VMCS(cpu, GUEST_IA32_SYSENTER_EIP)), "guest SYSENTER_EIP", GUEST_IA32_SYSENTER_EIP, "canonical");
    if (entry & ENTRY_LOAD_IA32_PAT)
        CHECK(pat_valid(VMCS(cpu, GUEST_IA32_PAT)), "guest IA32_PAT", GUEST_IA32_PAT, "each byte 0, 1 or 4 to 7");
    if (entry & ENTRY_LOAD_IA32_EFER) {
        const uint64_t efer = VMCS(cpu, GUEST_IA32_EFER);
        CHECK(!(efer & ~(efer_mask(cpu) | EFER_LMA)), "guest IA32_EFER reserved bits", GUEST_IA32_EFER, "reserved bits zero");
        CHECK(!(efer & EFER_LMA) == !ia32e, "guest IA32_EFER.LMA", GUEST_IA32_EFER, "bit 10 as the control IA-32e mode guest");
        CHECK(!(cr0 & CR0_PG) || !(efer & EFER_LMA) == !(efer & EFER_LME), "guest IA32_EFER.LME", GUEST_IA32_EFER,
              "with paging bit 8 as bit 10");
    }
    return true;
}

/* The fields of one segment register. */
static uint64_t selector_of(const CPU *cpu, unsigned i) { return cpu->vmx.field[GUEST_ES_SELECTOR + i]; }
static uint64_t base_of(const CPU *cpu, unsigned i) { return cpu->vmx.field[GUEST_ES_BASE + i]; }
static uint32_t limit_of(const CPU *cpu, unsigned i) { return (uint32_t)cpu->vmx.field[GUEST_ES_LIMIT + i]; }
static uint32_t access_of(const CPU *cpu, unsigned i) { return (uint32_t)cpu->vmx.field[GUEST_ES_ACCESS_RIGHTS + i]; }
static bool usable(const CPU *cpu, unsigned i) { return !(access_of(cpu, i) & AR_UNUSABLE); }
static bool guest_v86(const CPU *cpu) { return VMCS(cpu, GUEST_RFLAGS) & FLAG_VM; }

static bool check_guest_selectors_and_bases(CPU *cpu)
{
    static const char section[] = "Checks on Guest Segment Registers";
    CHECK(!(selector_of(cpu, TR) & 4), "guest TR selector", GUEST_TR_SELECTOR, "TI zero");
    CHECK(!usable(cpu, LDTR) || !(selector_of(cpu, LDTR) & 4), "guest LDTR selector", GUEST_LDTR_SELECTOR, "TI zero");
    if (!guest_v86(cpu) && !guest_is_unrestricted(cpu))
        CHECK(((selector_of(cpu, SS) ^ selector_of(cpu, CS)) & 3) == 0, "guest SS selector", GUEST_SS_SELECTOR, "the RPL of CS");
    if (guest_v86(cpu))
        for (unsigned i = ES; i <= GS; i++)
            CHECK(base_of(cpu, i) == selector_of(cpu, i) << 4, "segment base in virtual-8086 mode", (int)(GUEST_ES_BASE + i),
                  "the selector times 16");
    CHECK(canonical_here(cpu, base_of(cpu, TR)), "guest TR base", GUEST_TR_BASE, "canonical");
    CHECK(canonical_here(cpu, base_of(cpu, FS)), "guest FS base", GUEST_FS_BASE, "canonical");
    CHECK(canonical_here(cpu, base_of(cpu, GS)), "guest GS base", GUEST_GS_BASE, "canonical");
    CHECK(!usable(cpu, LDTR) || canonical_here(cpu, base_of(cpu, LDTR)), "guest LDTR base", GUEST_LDTR_BASE, "canonical");
    CHECK(!(base_of(cpu, CS) >> 32), "guest CS base", GUEST_CS_BASE, "bits 63:32 zero");
    CHECK(!usable(cpu, SS) || !(base_of(cpu, SS) >> 32), "guest SS base", GUEST_SS_BASE, "bits 63:32 zero");
    CHECK(!usable(cpu, DS) || !(base_of(cpu, DS) >> 32), "guest DS base", GUEST_DS_BASE, "bits 63:32 zero");
    CHECK(!usable(cpu, ES) || !(base_of(cpu, ES) >> 32), "guest ES base", GUEST_ES_BASE, "bits 63:32 zero");
    return true;
}

/* G and the limit: a limit whose low 12 bits are not all 1 has G = 0, one above 20 bits has G = 1. */
static bool granularity_fits(uint32_t limit, uint32_t access)
{
    return access & AR_G ? (limit & 0xfff) == 0xfff : !(limit >> 20);
}

#define AR_RESERVED 0xfffe0f00u

static bool check_code_segment(CPU *cpu)
{
    static const char section[] = "Checks on Guest Segment Registers";
    const uint32_t cs = access_of(cpu, CS), ss = access_of(cpu, SS);
    const unsigned type = cs & AR_TYPE;
    CHECK(type == 9 || type == 11 || type == 13 || type == 15 || (type == 3 && guest_is_unrestricted(cpu)), "guest CS type",
          GUEST_CS_ACCESS_RIGHTS, "accessed code (9, 11, 13, 15), or 3 for an unrestricted guest");
    CHECK(cs & AR_S, "guest CS descriptor type", GUEST_CS_ACCESS_RIGHTS, "S one");
    CHECK(type != 3 || !AR_DPL_OF(cs), "guest CS DPL", GUEST_CS_ACCESS_RIGHTS, "0 with type 3");
    CHECK((type != 9 && type != 11) || AR_DPL_OF(cs) == AR_DPL_OF(ss), "guest CS DPL", GUEST_CS_ACCESS_RIGHTS,
          "the DPL of SS for non-conforming code");
    CHECK((type != 13 && type != 15) || AR_DPL_OF(cs) <= AR_DPL_OF(ss), "guest CS DPL", GUEST_CS_ACCESS_RIGHTS,
          "not above the DPL of SS for conforming code");
    CHECK(!((entry_controls(cpu) & ENTRY_IA32E_MODE_GUEST) && (cs & AR_L) && (cs & AR_DB)), "guest CS D/B",
          GUEST_CS_ACCESS_RIGHTS, "0 for 64-bit code");
    return true;
}

static bool check_stack_segment(CPU *cpu)
{
    static const char section[] = "Checks on Guest Segment Registers";
    const uint32_t ss = access_of(cpu, SS);
    const unsigned type = ss & AR_TYPE;
    if (usable(cpu, SS)) {
        CHECK(type == 3 || type == 7, "guest SS type", GUEST_SS_ACCESS_RIGHTS, "accessed writable data (3, 7)");
        CHECK(ss & AR_S, "guest SS descriptor type", GUEST_SS_ACCESS_RIGHTS, "S one");
    }
    if (!guest_is_unrestricted(cpu))
        CHECK(AR_DPL_OF(ss) == (selector_of(cpu, SS) & 3), "guest SS DPL", GUEST_SS_ACCESS_RIGHTS, "the RPL of its selector");
    if ((access_of(cpu, CS) & AR_TYPE) == 3 || !(VMCS(cpu, GUEST_CR0) & CR0_PE))
        CHECK(!AR_DPL_OF(ss), "guest SS DPL", GUEST_SS_ACCESS_RIGHTS, "0 in real-address mode or with CS of type 3");
    return true;
}

static bool check_data_segment(CPU *cpu, unsigned i)
{
    static const char section[] = "Checks on Guest Segment Registers";
    const int field = (int)(GUEST_ES_ACCESS_RIGHTS + i);
    const uint32_t access = access_of(cpu, i);
    if (!usable(cpu, i))
        return true;
    CHECK(access & AR_ACCESSED, "data segment type", field, "accessed");
    CHECK(!(access & AR_CODE) || (access & AR_RW), "data segment type", field, "readable where it is code");
    CHECK(access & AR_S, "data segment descriptor type", field, "S one");
    CHECK(guest_is_unrestricted(cpu) || (access & AR_TYPE) > 11 || AR_DPL_OF(access) >= (selector_of(cpu, i) & 3),
          "data segment DPL", field, "not below the RPL of its selector");
    return true;
}

static bool check_guest_segments(CPU *cpu)
{
    static const char section[] = "Checks on Guest Segment Registers";
    if (!check_guest_selectors_and_bases(cpu))
        return false;
    if (guest_v86(cpu)) {
        for (unsigned i = ES; i <= GS; i++) {
            CHECK(limit_of(cpu, i) == 0xffff, "segment limit in virtual-8086 mode", (int)(GUEST_ES_LIMIT + i), "FFFFh");
            CHECK(access_of(cpu, i) == 0xf3, "segment access rights in virtual-8086 mode", (int)(GUEST_ES_ACCESS_RIGHTS + i), "F3h");
        }
    } else {
        if (!check_code_segment(cpu) || !check_stack_segment(cpu) || !check_data_segment(cpu, DS) ||
            !check_data_segment(cpu, ES) || !check_data_segment(cpu, FS) || !check_data_segment(cpu, GS))
            return false;
        for (unsigned i = ES; i <= GS; i++) {
            if (i != CS && !usable(cpu, i))
                continue;
            const int field = (int)(GUEST_ES_ACCESS_RIGHTS + i);
            CHECK(access_of(cpu, i) & AR_P, "segment not present", field, "P one");
            CHECK(!(access_of(cpu, i) & AR_RESERVED), "segment access rights reserved bits", field, "bits 11:8 and 31:17 zero");
            CHECK(granularity_fits(limit_of(cpu, i), access_of(cpu, i)), "segment granularity", field,
                  "G as the limit needs it");
        }
    }
    const uint32_t tr = access_of(cpu, TR), ldtr = access_of(cpu, LDTR);
    CHECK((tr & AR_TYPE) == 11 || ((tr & AR_TYPE) == 3 && !(entry_controls(cpu) & ENTRY_IA32E_MODE_GUEST)), "guest TR type",
          GUEST_TR_ACCESS_RIGHTS, "a busy TSS (11, or 3 outside IA-32e mode)");
    CHECK(!(tr & AR_S) && (tr & AR_P) && !(tr & (AR_RESERVED | AR_UNUSABLE)), "guest TR access rights", GUEST_TR_ACCESS_RIGHTS,
          "S zero, P one, usable, reserved bits zero");
    CHECK(granularity_fits(limit_of(cpu, TR), tr), "guest TR granularity", GUEST_TR_ACCESS_RIGHTS, "G as the limit needs it");
    if (usable(cpu, LDTR)) {
        CHECK((ldtr & AR_TYPE) == 2, "guest LDTR type", GUEST_LDTR_ACCESS_RIGHTS, "an LDT (2)");
        CHECK(!(ldtr & AR_S) && (ldtr & AR_P) && !(ldtr & AR_RESERVED), "guest LDTR access rights", GUEST_LDTR_ACCESS_RIGHTS,
              "S zero, P one, reserved bits zero");
        CHECK(granularity_fits(limit_of(cpu, LDTR), ldtr), "guest LDTR granularity", GUEST_LDTR_ACCESS_RIGHTS,
              "G as the limit needs it");
    }
    return true;
}

static bool check_guest_descriptor_tables(CPU *cpu)
{
    static const char section[] = "Checks on Guest Descriptor-Table Registers";
    CHECK(canonical_here(cpu, VMCS(cpu, GUEST_GDTR_BASE)), "guest GDTR base", GUEST_GDTR_BASE, "canonical");
    CHECK(canonical_here(cpu, VMCS(cpu, GUEST_IDTR_BASE)), "guest IDTR base", GUEST_IDTR_BASE, "canonical");
    CHECK(!(VMCS(cpu, GUEST_GDTR_LIMIT) >> 16), "guest GDTR limit", GUEST_GDTR_LIMIT, "bits 31:16 zero");
    CHECK(!(VMCS(cpu, GUEST_IDTR_LIMIT) >> 16), "guest IDTR limit", GUEST_IDTR_LIMIT, "bits 31:16 zero");
    return true;
}

static bool injects(const CPU *cpu, unsigned type)
{
    const uint64_t info = VMCS(cpu, VM_ENTRY_INTERRUPTION_INFORMATION_FIELD);
    return (info & INTERRUPTION_VALID) && (info >> 8 & 7) == type;
}

static bool check_guest_rip_and_rflags(CPU *cpu)
{
    static const char section[] = "Checks on Guest RIP, RFLAGS, and SSP";
    const bool ia32e = entry_controls(cpu) & ENTRY_IA32E_MODE_GUEST;
    const uint64_t rip = VMCS(cpu, GUEST_RIP), rflags = VMCS(cpu, GUEST_RFLAGS);
    if (ia32e && (access_of(cpu, CS) & AR_L))
        CHECK(!(rip >> 48) || rip >> 48 == 0xffff, "guest RIP", GUEST_RIP, "bits 63:48 identical");
    else
        CHECK(!(rip >> 32), "guest RIP", GUEST_RIP, "bits 63:32 zero");
    CHECK(!(rflags & ~0x3f7fd7ull) && (rflags & FLAG_ONE), "guest RFLAGS reserved bits", GUEST_RFLAGS,
          "bits 63:22, 15, 5 and 3 zero, bit 1 one");
    CHECK(!(rflags & FLAG_VM) || (!ia32e && (VMCS(cpu, GUEST_CR0) & CR0_PE)), "guest RFLAGS.VM", GUEST_RFLAGS,
          "0 in IA-32e mode and in real-address mode");
    CHECK(!injects(cpu, EVENT_EXTERNAL) || (rflags & FLAG_IF), "guest RFLAGS.IF", GUEST_RFLAGS,
          "1 where an external interrupt is injected");
    return true;
}

static bool check_activity(CPU *cpu)
{
    static const char section[] = "Checks on Guest Non-Register State";
    const uint64_t activity = VMCS(cpu, GUEST_ACTIVITY_STATE), blocking = VMCS(cpu, GUEST_INTERRUPTIBILITY_STATE);
    const uint32_t info = (uint32_t)VMCS(cpu, VM_ENTRY_INTERRUPTION_INFORMATION_FIELD);
    const unsigned type = info >> 8 & 7, vector = info & 0xff;
    CHECK(activity <= 3 && (!activity || (cpu->model->vmx.misc >> (5 + activity) & 1)), "guest activity state",
          GUEST_ACTIVITY_STATE, "0, or one that IA32_VMX_MISC has");
    CHECK(activity != ACTIVITY_HLT || !AR_DPL_OF(access_of(cpu, SS)), "HLT state above CPL 0", GUEST_ACTIVITY_STATE, "not HLT");
    CHECK(!(blocking & (BLOCKING_BY_STI | BLOCKING_BY_MOV_SS)) || !activity, "activity state with blocking", GUEST_ACTIVITY_STATE,
          "active where STI or MOV SS blocks");
    if (!(info & INTERRUPTION_VALID))
        return true;
    if (activity == ACTIVITY_HLT)
        CHECK(type == EVENT_EXTERNAL || type == EVENT_NMI || (type == EVENT_HARDWARE_EXCEPTION && (vector == VECTOR_DB || vector == VECTOR_MC)) ||
                  (type == 7 && !vector), "event injected into HLT", GUEST_ACTIVITY_STATE, "an interrupt, NMI, #DB or #MC");
    if (activity == ACTIVITY_SHUTDOWN)
        CHECK(type == EVENT_NMI || (type == EVENT_HARDWARE_EXCEPTION && vector == VECTOR_MC), "event injected into shutdown",
              GUEST_ACTIVITY_STATE, "an NMI or #MC");
    CHECK(activity != ACTIVITY_WAIT_FOR_SIPI, "event injected into wait-for-SIPI", GUEST_ACTIVITY_STATE, "no event");
    return true;
}

static bool check_interruptibility(CPU *cpu)
{
    static const char section[] = "Checks on Guest Non-Register State";
    const uint64_t blocking = VMCS(cpu, GUEST_INTERRUPTIBILITY_STATE);
    const int field = GUEST_INTERRUPTIBILITY_STATE;
    const uint64_t both = BLOCKING_BY_STI | BLOCKING_BY_MOV_SS;
    CHECK(!(blocking & ~15ull), "interruptibility reserved bits", field, "bits 31:4 zero");
    CHECK((blocking & both) != both, "blocking by STI and by MOV SS", field, "not both");
    CHECK(!(blocking & BLOCKING_BY_STI) || (VMCS(cpu, GUEST_RFLAGS) & FLAG_IF), "blocking by STI with IF 0", field, "bit 0 zero");
    CHECK(!injects(cpu, EVENT_EXTERNAL) || !(blocking & both), "external interrupt injected while blocked", field, "bits 0 and 1 zero");
    CHECK(!injects(cpu, EVENT_NMI) || !(blocking & BLOCKING_BY_MOV_SS), "NMI injected while blocked by MOV SS", field, "bit 1 zero");
    CHECK(!(blocking & BLOCKING_BY_SMI), "blocking by SMI outside SMM", field, "bit 2 zero");
    CHECK(!injects(cpu, EVENT_NMI) || !(pin_controls(cpu) & PIN_VIRTUAL_NMIS) || !(blocking & BLOCKING_BY_NMI),
          "virtual NMI injected while blocked", field, "bit 3 zero");
    return true;
}

static bool check_pending_debug(CPU *cpu)
{
    static const char section[] = "Checks on Guest Non-Register State";
    const uint64_t pending = VMCS(cpu, GUEST_PENDING_DEBUG_EXCEPTIONS);
    const uint64_t blocking = VMCS(cpu, GUEST_INTERRUPTIBILITY_STATE) & (BLOCKING_BY_STI | BLOCKING_BY_MOV_SS);
    CHECK(!(pending & ~0x500full), "pending debug exceptions reserved bits", GUEST_PENDING_DEBUG_EXCEPTIONS,
          "only bits 3:0, 12 and 14");
    if (blocking || VMCS(cpu, GUEST_ACTIVITY_STATE) == ACTIVITY_HLT)
        CHECK(!(pending & DR6_BS) ==
                  (!(VMCS(cpu, GUEST_RFLAGS) & FLAG_TF) || (VMCS(cpu, GUEST_IA32_DEBUGCTL) & DEBUGCTL_BTF)),
              "pending single step", GUEST_PENDING_DEBUG_EXCEPTIONS,
              "with blocking or HLT bit 14 is 1 if RFLAGS.TF is 1 and IA32_DEBUGCTL.BTF 0, else 0");
    return true;
}

static bool check_guest_non_register_state(CPU *cpu)
{
    return check_activity(cpu) && check_interruptibility(cpu) && check_pending_debug(cpu);
}

static bool check_link_pointer(CPU *cpu)
{
    static const char section[] = "Checks on Guest Non-Register State";
    const uint64_t link = VMCS(cpu, VMCS_LINK_POINTER);
    if (link == VMCS_NONE)
        return true;
    CHECK(is_page(cpu, link), "VMCS link pointer", VMCS_LINK_POINTER, "all ones, or bits 11:0 zero and within the physical-address width");
    CHECK(bus_read(cpu->bus, link, 4) == cpu->model->vmx.revision, "revision of the linked VMCS", VMCS_LINK_POINTER,
          "all ones, or a region with the model's VMCS revision identifier");
    CHECK(link != cpu->vmx.current, "VMCS link pointer", VMCS_LINK_POINTER, "not the current VMCS");
    return true;
}

static bool check_guest_pdptes(CPU *cpu)
{
    static const char section[] = "Checks on Guest Page-Directory-Pointer-Table Entries";
    const bool ept = proc2_controls(cpu) & PROC2_ENABLE_EPT;
    const uint64_t reserved = ~physical_mask(cpu) | 0x1e6;
    if (!(VMCS(cpu, GUEST_CR0) & CR0_PG) || !(VMCS(cpu, GUEST_CR4) & CR4_PAE) || (entry_controls(cpu) & ENTRY_IA32E_MODE_GUEST))
        return true;
    if (!ept) {
        CHECK(mmu_load_pdptes(cpu, VMCS(cpu, GUEST_CR3)) == STATUS_OK, "PDPTEs in memory", GUEST_CR3,
              "no reserved bit in a present entry");
        return true;
    }
    for (unsigned i = 0; i < 4; i++)
        CHECK(!(cpu->vmx.field[GUEST_PDPTE0 + i] & PTE_P) || !(cpu->vmx.field[GUEST_PDPTE0 + i] & reserved), "guest PDPTE",
              (int)(GUEST_PDPTE0 + i), "no reserved bit in a present entry");
    return true;
}

/* --- the entry --- */

/* SDM Vol. 3, "VM-Entry Failures During or After Loading Guest State": like a VM exit, but no guest state is saved. */
static int entry_failure(CPU *cpu, uint32_t reason, uint64_t qualification)
{
    VMCS(cpu, EXIT_REASON) = reason | EXIT_REASON_ENTRY_FAILURE;
    VMCS(cpu, EXIT_QUALIFICATION) = qualification;
    cpu->vmx.exits[reason].count++;
    cpu->vmx.exit_reason = reason;
    cpu->vmx.exit_cycle = clock_now(cpu->clock);
    vmx_transition(cpu, TRANSITION_EXIT, reason | EXIT_REASON_ENTRY_FAILURE, qualification);
    if (cpu->hook)
        cpu->hook(cpu->hook_owner, HOOK_VM_EXIT, reason, 0, qualification);
    if (!host_state_load(cpu))
        return vmx_abort(cpu, 2);
    if (msr_area_load(cpu, VMCS(cpu, VM_EXIT_MSR_LOAD_ADDRESS), (uint32_t)VMCS(cpu, VM_EXIT_MSR_LOAD_COUNT)))
        return vmx_abort(cpu, 4);
    return STATUS_BRANCH;
}

/* Exit qualifications of failures due to invalid guest state. */
enum { INVALID_STATE = 0, INVALID_PDPTE = 2, INVALID_LINK_POINTER = 4 };

Fault vmx_injected(const CPU *cpu)
{
    const uint32_t info = (uint32_t)VMCS(cpu, VM_ENTRY_INTERRUPTION_INFORMATION_FIELD);
    Fault event = {.vector = (uint8_t)info, .type = info >> 8 & 7, .has_error = (info & INTERRUPTION_ERROR_CODE) != 0};
    event.error = event.has_error ? (uint32_t)VMCS(cpu, VM_ENTRY_EXCEPTION_ERROR_CODE) : 0;
    event.address = event.type == EVENT_HARDWARE_EXCEPTION && event.vector == VECTOR_PF ? cpu->cr2 : 0;
    return event;
}

/* What a guest needs to be looked at for, before its first instruction or between any two. */
static bool needs_attention(const CPU *cpu)
{
    return cpu->vmx.inject || (proc_controls(cpu) & (PROC_INTERRUPT_WINDOW_EXITING | PROC_NMI_WINDOW_EXITING)) ||
           (cpu->vmx.timer_running && cpu->vmx.timer_deadline <= clock_now(cpu->clock));
}

int vmx_enter(CPU *cpu, bool launch, uint32_t *error)
{
    Vmx *vmx = &cpu->vmx;
    const uint8_t mode = 1 + cpu->long_mode;
    *error = VMERROR_ENTRY_INVALID_CONTROL_FIELDS;
    if (unlikely(!vmx->controls_passed)) {
        if (!check_execution_controls(cpu) || !check_exit_controls(cpu) || !check_entry_controls(cpu))
            return STATUS_OK;
        vmx->controls_passed = 1;
    }
    if (!check_tpr(cpu) || !check_injection(cpu))
        return STATUS_OK;
    *error = VMERROR_ENTRY_INVALID_HOST_STATE;
    if (unlikely(vmx->host_passed != mode)) {
        if (!check_host_control_registers(cpu) || !check_host_segments(cpu) || !check_host_address_space(cpu))
            return STATUS_OK;
        vmx->host_passed = mode;
    }

    cpu->rf_loaded = cpu->trap_suppressed = 1; /* what the VMM's own TF and RF would do after this instruction is void */
    cpu->clock->left -= cpu->model->vmx.entry_clocks;
    if (!check_guest_control_registers(cpu) || !check_guest_segments(cpu) || !check_guest_descriptor_tables(cpu) ||
        !check_guest_rip_and_rflags(cpu) || !check_guest_non_register_state(cpu))
        return entry_failure(cpu, EXIT_REASON_VM_ENTRY_FAILURE_DUE_TO_INVALID_GUEST_STATE, INVALID_STATE);
    if (!check_link_pointer(cpu))
        return entry_failure(cpu, EXIT_REASON_VM_ENTRY_FAILURE_DUE_TO_INVALID_GUEST_STATE, INVALID_LINK_POINTER);
    if (!check_guest_pdptes(cpu))
        return entry_failure(cpu, EXIT_REASON_VM_ENTRY_FAILURE_DUE_TO_INVALID_GUEST_STATE, INVALID_PDPTE);

    const uint8_t nmi_blocked = cpu->nmi_blocked;
    guest_state_load(cpu);
    const uint32_t failed = msr_area_load(cpu, VMCS(cpu, VM_ENTRY_MSR_LOAD_ADDRESS), (uint32_t)VMCS(cpu, VM_ENTRY_MSR_LOAD_COUNT));
    if (failed) {
        cpu->nmi_blocked = nmi_blocked;
        vmx->failure = (VmxFailure){"VM-entry MSR-load area, the entry that the exit qualification counts",
                                    "an MSR and a value that WRMSR takes, but for the bases of FS and GS, 79h, 8Bh, 9Bh and 800h to 8FFh",
                                    "Loading MSRs", VM_ENTRY_MSR_LOAD_ADDRESS, VMCS(cpu, VM_ENTRY_MSR_LOAD_ADDRESS)};
        return entry_failure(cpu, EXIT_REASON_VM_ENTRY_FAILURE_DUE_TO_MSR_LOADING, failed);
    }
    if (launch)
        vmx->launched = 1;
    vmx->inject = (VMCS(cpu, VM_ENTRY_INTERRUPTION_INFORMATION_FIELD) & INTERRUPTION_VALID) != 0;
    vmx->trap_flag_due = vmx->tpr_due = 0;
    if (vmx->exit_reason < EXIT_REASONS)
        vmx->exits[vmx->exit_reason].cycles += clock_now(cpu->clock) - vmx->exit_cycle;
    vmx->exit_reason = EXIT_REASONS;
    if (pin_controls(cpu) & PIN_ACTIVATE_VMX_PREEMPTION_TIMER)
        vmx_timer_start(cpu);
    vmx_transition(cpu, TRANSITION_ENTRY, 0, 0);
    if (needs_attention(cpu) || cpu->activity != ACTIVITY_ACTIVE)
        cpu_pulse(cpu, REQUEST_VMX);
    cpu->charge_target = 0;
    return STATUS_BRANCH;
}
