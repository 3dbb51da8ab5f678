"""Every check of VM entry that a VMM can trip, by SDM Vol. 3, "VM Entries", in its groups and its order."""

from collections.abc import Mapping

import pytest
from vmm import (
    BITS,
    DATA,
    EPT,
    GUEST,
    MSR_AREA,
    REGION,
    REGION2,
    VIRTUAL_APIC,
    Bench,
    pin,
    primary,
    real_mode,
    secondary,
)

Changes = Mapping[str, int]
UNCANONICAL = 1 << 47
WIDE = 1 << 40  # past the models' physical-address width
PINS, PROC, PROC2 = (
    "PIN_BASED_VM_EXECUTION_CONTROLS",
    "PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS",
    "SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS",
)
INFO = "VM_ENTRY_INTERRUPTION_INFORMATION_FIELD"
VALID = 1 << 31


def exit_(*names: str) -> Changes:
    return {"+VM_EXIT_CONTROLS": sum(BITS[f"EXIT_{name}"] for name in names)}


def entry(*names: str) -> Changes:
    return {"+VM_ENTRY_CONTROLS": sum(BITS[f"ENTRY_{name}"] for name in names)}


def with_ept(*others: str) -> dict[str, int]:
    return secondary("ENABLE_EPT", *others)


CONTROLS: list[tuple[Changes, str, str]] = [
    ({"-" + PINS: 2}, PINS, "pin-based controls"),
    ({"+" + PINS: 0x100}, PINS, "pin-based controls"),
    ({"-" + PROC: 2}, PROC, "primary processor-based"),
    ({"+" + PROC: 1}, PROC, "primary processor-based"),
    ({"+" + PROC: 1 << 31, PROC2: 1 << 13}, PROC2, "secondary processor-based"),
    ({"CR3_TARGET_COUNT": 5}, "CR3_TARGET_COUNT", "CR3-target count"),
    (primary("USE_IO_BITMAPS") | {"ADDRESS_OF_IO_BITMAP_A": 0x7001}, "ADDRESS_OF_IO_BITMAP_A", "I/O bitmap A"),
    (primary("USE_IO_BITMAPS") | {"ADDRESS_OF_IO_BITMAP_A": WIDE}, "ADDRESS_OF_IO_BITMAP_A", "I/O bitmap A"),
    (primary("USE_IO_BITMAPS") | {"ADDRESS_OF_IO_BITMAP_B": 0x800}, "ADDRESS_OF_IO_BITMAP_B", "I/O bitmap B"),
    (primary("USE_MSR_BITMAPS") | {"ADDRESS_OF_MSR_BITMAPS": 4}, "ADDRESS_OF_MSR_BITMAPS", "MSR bitmap"),
    (primary("USE_TPR_SHADOW") | {"VIRTUAL_APIC_ADDRESS": 1}, "VIRTUAL_APIC_ADDRESS", "virtual-APIC address"),
    (primary("USE_TPR_SHADOW") | {"VIRTUAL_APIC_ADDRESS": VIRTUAL_APIC, "TPR_THRESHOLD": 16}, "TPR_THRESHOLD", "TPR"),
    (primary("USE_TPR_SHADOW") | {"VIRTUAL_APIC_ADDRESS": VIRTUAL_APIC, "TPR_THRESHOLD": 1}, "TPR_THRESHOLD", "VTPR"),
    (pin("VIRTUAL_NMIS"), PINS, "virtual NMIs without NMI exiting"),
    (primary("NMI_WINDOW_EXITING"), PROC, "NMI-window exiting without"),
    (secondary("ENABLE_VPID") | {"VIRTUAL_PROCESSOR_IDENTIFIER": 0}, "VIRTUAL_PROCESSOR_IDENTIFIER", "VPID"),
    (with_ept() | {"EPT_POINTER": EPT | 0x19}, "EPT_POINTER", "EPT memory type"),
    (with_ept() | {"EPT_POINTER": EPT | 0x16}, "EPT_POINTER", "EPT page-walk length"),
    (with_ept() | {"EPT_POINTER": EPT | 0x5E}, "EPT_POINTER", "EPT accessed and dirty"),
    (with_ept() | {"EPT_POINTER": EPT | 0x9E}, "EPT_POINTER", "EPT pointer reserved"),
    (with_ept() | {"EPT_POINTER": WIDE | 0x1E}, "EPT_POINTER", "EPT pointer reserved"),
    (secondary("UNRESTRICTED_GUEST"), PROC2, "unrestricted guest without EPT"),
    ({"-VM_EXIT_CONTROLS": 2}, "VM_EXIT_CONTROLS", "VM-exit controls"),
    ({"+VM_EXIT_CONTROLS": 1 << 30}, "VM_EXIT_CONTROLS", "VM-exit controls"),
    (exit_("SAVE_VMX_PREEMPTION_TIMER_VALUE"), "VM_EXIT_CONTROLS", "saving a preemption timer"),
    ({"VM_EXIT_MSR_STORE_COUNT": 1, "VM_EXIT_MSR_STORE_ADDRESS": 8}, "VM_EXIT_MSR_STORE_ADDRESS", "MSR-store area"),
    ({"VM_EXIT_MSR_LOAD_COUNT": 2, "VM_EXIT_MSR_LOAD_ADDRESS": WIDE - 16}, "VM_EXIT_MSR_LOAD_ADDRESS", "MSR-load area"),
    ({"-VM_ENTRY_CONTROLS": 1}, "VM_ENTRY_CONTROLS", "VM-entry controls"),
    ({"+VM_ENTRY_CONTROLS": 1 << 30}, "VM_ENTRY_CONTROLS", "VM-entry controls"),
    ({"VM_ENTRY_MSR_LOAD_COUNT": 1, "VM_ENTRY_MSR_LOAD_ADDRESS": 1}, "VM_ENTRY_MSR_LOAD_ADDRESS", "MSR-load area"),
    ({INFO: VALID | 0x100}, INFO, "injected event's type"),
    ({INFO: VALID | 0x203}, INFO, "vector of an injected NMI"),
    ({INFO: VALID | 0x320}, INFO, "vector of an injected exception"),
    ({INFO: VALID | 0x701}, INFO, "vector of another"),
    ({INFO: VALID | 0x30D}, INFO, "injected error code"),
    ({INFO: VALID | 0xB06}, INFO, "injected error code"),
    ({INFO: VALID | 0x1306}, INFO, "reserved bits"),
    ({INFO: VALID | 0xB0D, "VM_ENTRY_EXCEPTION_ERROR_CODE": 0x8000}, "VM_ENTRY_EXCEPTION_ERROR_CODE", "value"),
    ({INFO: VALID | 0x421}, "VM_ENTRY_INSTRUCTION_LENGTH", "instruction length"),
    ({INFO: VALID | 0x603, "VM_ENTRY_INSTRUCTION_LENGTH": 16}, "VM_ENTRY_INSTRUCTION_LENGTH", "instruction length"),
]


@pytest.mark.parametrize(("changes", "field", "check"), CONTROLS)
def test_controls(changes: Changes, field: str, check: str) -> None:
    """SDM Vol. 3, "Checks on VMX Controls": VMfail with error 7."""
    bench = Bench()
    bench.guest("vmcall")
    bench.prepare(changes)
    bench.enter()
    assert bench.failed == "ENTRY_INVALID_CONTROL_FIELDS"
    failure = bench.cpu.vmx_failure
    assert failure.field == field and check in failure.check and failure.value == bench[field]
    assert failure.expected and failure.section.startswith("VM-")
    # Mended, the same VMCS is entered.
    bench.prepare({name.lstrip("+-"): 0 for name in changes if name[0] not in "+-"}, {PROC2: 0})
    bench.enter()
    assert bench.reason == "VMCALL"


HOST: list[tuple[Changes, str]] = [
    ({"-HOST_CR0": 0x20}, "HOST_CR0"),
    ({"-HOST_CR0": 1 << 31}, "HOST_CR0"),
    ({"-HOST_CR4": 0x2000}, "HOST_CR4"),
    ({"+HOST_CR4": 1 << 20}, "HOST_CR4"),
    (exit_("LOAD_IA32_PAT") | {"HOST_IA32_PAT": 2}, "HOST_IA32_PAT"),
    (exit_("LOAD_IA32_EFER") | {"HOST_IA32_EFER": 2}, "HOST_IA32_EFER"),
    (exit_("LOAD_IA32_EFER") | {"HOST_IA32_EFER": 0x500}, "HOST_IA32_EFER"),
    ({"HOST_ES_SELECTOR": DATA | 3}, "HOST_ES_SELECTOR"),
    ({"HOST_GS_SELECTOR": DATA | 4}, "HOST_GS_SELECTOR"),
    ({"HOST_CS_SELECTOR": 0}, "HOST_CS_SELECTOR"),
    ({"HOST_TR_SELECTOR": 0}, "HOST_TR_SELECTOR"),
    ({"HOST_SS_SELECTOR": 0}, "HOST_SS_SELECTOR"),
    (exit_("HOST_ADDRESS_SPACE_SIZE"), "VM_EXIT_CONTROLS"),
    (entry("IA32E_MODE_GUEST"), "VM_ENTRY_CONTROLS"),
    ({"+HOST_CR4": 1 << 17}, "HOST_CR4"),
]
HOST64: list[tuple[Changes, str]] = [
    ({"HOST_CR3": WIDE}, "HOST_CR3"),
    ({"HOST_IA32_SYSENTER_ESP": UNCANONICAL}, "HOST_IA32_SYSENTER_ESP"),
    ({"HOST_IA32_SYSENTER_EIP": UNCANONICAL}, "HOST_IA32_SYSENTER_EIP"),
    ({"HOST_FS_BASE": UNCANONICAL}, "HOST_FS_BASE"),
    ({"HOST_GS_BASE": UNCANONICAL}, "HOST_GS_BASE"),
    ({"HOST_TR_BASE": UNCANONICAL}, "HOST_TR_BASE"),
    ({"HOST_GDTR_BASE": UNCANONICAL}, "HOST_GDTR_BASE"),
    ({"HOST_IDTR_BASE": UNCANONICAL}, "HOST_IDTR_BASE"),
    ({"-VM_EXIT_CONTROLS": 1 << 9}, "VM_EXIT_CONTROLS"),
    ({"-HOST_CR4": 0x20}, "HOST_CR4"),
    ({"HOST_RIP": UNCANONICAL}, "HOST_RIP"),
]


@pytest.mark.parametrize(
    ("bits", "changes", "field"), [(32, *case) for case in HOST] + [(64, *case) for case in HOST64]
)
def test_host_state(bits: int, changes: Changes, field: str) -> None:
    """SDM Vol. 3, "Checks on Host-State Area": VMfail with error 8."""
    bench = Bench(bits=bits)
    bench.guest("vmcall")
    bench.prepare(changes)
    bench.enter()
    assert bench.failed == "ENTRY_INVALID_HOST_STATE"
    assert bench.cpu.vmx_failure.field == field and "ecks" in bench.cpu.vmx_failure.section


def access(name: str, value: int) -> Changes:
    return {f"GUEST_{name}_ACCESS_RIGHTS": value}


V86 = {
    f"GUEST_{name}_{what}": value
    for name in ("ES", "CS", "SS", "DS", "FS", "GS")
    for what, value in (("SELECTOR", 0x2000), ("BASE", 0x20000), ("LIMIT", 0xFFFF), ("ACCESS_RIGHTS", 0xF3))
}
V86 |= {"GUEST_RFLAGS": 0x20002}
GUEST_STATE: list[tuple[Changes, str]] = [
    ({"-GUEST_CR0": 0x20}, "GUEST_CR0"),
    ({"-GUEST_CR0": 1 << 31}, "GUEST_CR0"),
    (real_mode() | {"GUEST_CR0": 0x80000020}, "GUEST_CR0"),
    ({"-GUEST_CR4": 0x2000}, "GUEST_CR4"),
    ({"+GUEST_CR4": 1 << 20}, "GUEST_CR4"),
    (entry("LOAD_DEBUG_CONTROLS") | {"GUEST_IA32_DEBUGCTL": 1 << 5}, "GUEST_IA32_DEBUGCTL"),
    (entry("LOAD_DEBUG_CONTROLS") | {"GUEST_IA32_DEBUGCTL": 1 << 63}, "GUEST_IA32_DEBUGCTL"),
    ({"+GUEST_CR4": 1 << 17}, "GUEST_CR4"),
    (entry("LOAD_IA32_PAT") | {"GUEST_IA32_PAT": 8 << 56}, "GUEST_IA32_PAT"),
    (entry("LOAD_IA32_EFER") | {"GUEST_IA32_EFER": 4}, "GUEST_IA32_EFER"),
    (entry("LOAD_IA32_EFER") | {"GUEST_IA32_EFER": 0x500}, "GUEST_IA32_EFER"),
    (entry("LOAD_IA32_EFER") | {"GUEST_IA32_EFER": 0x100}, "GUEST_IA32_EFER"),
    ({"GUEST_TR_SELECTOR": 0x24}, "GUEST_TR_SELECTOR"),
    ({"GUEST_LDTR_SELECTOR": 4, "GUEST_LDTR_ACCESS_RIGHTS": 0x82}, "GUEST_LDTR_SELECTOR"),
    ({"GUEST_SS_SELECTOR": DATA | 1}, "GUEST_SS_SELECTOR"),
    (V86 | {"GUEST_DS_BASE": 0x20010}, "GUEST_DS_BASE"),
    (V86 | {"GUEST_FS_LIMIT": 0xFFFE}, "GUEST_FS_LIMIT"),
    (V86 | access("ES", 0x93), "GUEST_ES_ACCESS_RIGHTS"),
    (access("CS", 0xC098), "GUEST_CS_ACCESS_RIGHTS"),
    (access("CS", 0xC093), "GUEST_CS_ACCESS_RIGHTS"),
    (access("CS", 0xC08B), "GUEST_CS_ACCESS_RIGHTS"),
    (access("CS", 0xC0FB), "GUEST_CS_ACCESS_RIGHTS"),
    (access("CS", 0xC0FF), "GUEST_CS_ACCESS_RIGHTS"),
    (access("SS", 0xC091), "GUEST_SS_ACCESS_RIGHTS"),
    (access("SS", 0xC083), "GUEST_SS_ACCESS_RIGHTS"),
    (access("SS", 0xC0F3) | access("CS", 0xC0FB), "GUEST_SS_ACCESS_RIGHTS"),
    (access("DS", 0xC092), "GUEST_DS_ACCESS_RIGHTS"),
    (access("ES", 0xC099), "GUEST_ES_ACCESS_RIGHTS"),
    (access("FS", 0xC083), "GUEST_FS_ACCESS_RIGHTS"),
    ({"GUEST_GS_SELECTOR": DATA | 3}, "GUEST_GS_ACCESS_RIGHTS"),
    (access("DS", 0xC013), "GUEST_DS_ACCESS_RIGHTS"),
    (access("DS", 0xC193), "GUEST_DS_ACCESS_RIGHTS"),
    (access("DS", 0x4093), "GUEST_DS_ACCESS_RIGHTS"),
    ({"GUEST_DS_LIMIT": 0xFFFFE}, "GUEST_DS_ACCESS_RIGHTS"),
    (access("TR", 0x89), "GUEST_TR_ACCESS_RIGHTS"),
    (access("TR", 0x9B), "GUEST_TR_ACCESS_RIGHTS"),
    (access("TR", 0x0B), "GUEST_TR_ACCESS_RIGHTS"),
    (access("TR", 0x1008B), "GUEST_TR_ACCESS_RIGHTS"),
    (access("TR", 0x808B), "GUEST_TR_ACCESS_RIGHTS"),
    (access("LDTR", 0x83), "GUEST_LDTR_ACCESS_RIGHTS"),
    (access("LDTR", 0x92), "GUEST_LDTR_ACCESS_RIGHTS"),
    (access("LDTR", 0x8082), "GUEST_LDTR_ACCESS_RIGHTS"),
    ({"GUEST_GDTR_LIMIT": 0x10000}, "GUEST_GDTR_LIMIT"),
    ({"GUEST_IDTR_LIMIT": 0x10000}, "GUEST_IDTR_LIMIT"),
    ({"GUEST_RFLAGS": 0}, "GUEST_RFLAGS"),
    ({"GUEST_RFLAGS": 0xA}, "GUEST_RFLAGS"),
    ({"GUEST_RFLAGS": 0x400002}, "GUEST_RFLAGS"),
    (V86 | real_mode() | {"GUEST_RFLAGS": 0x20002}, "GUEST_ES_ACCESS_RIGHTS"),
    ({INFO: VALID | 0x20}, "GUEST_RFLAGS"),
    ({"GUEST_ACTIVITY_STATE": 4}, "GUEST_ACTIVITY_STATE"),
    ({"GUEST_ACTIVITY_STATE": 1, "GUEST_INTERRUPTIBILITY_STATE": 2}, "GUEST_ACTIVITY_STATE"),
    ({"GUEST_ACTIVITY_STATE": 1, INFO: VALID | 0x306}, "GUEST_ACTIVITY_STATE"),
    ({"GUEST_ACTIVITY_STATE": 2, INFO: VALID | 0x30, "GUEST_RFLAGS": 0x202}, "GUEST_ACTIVITY_STATE"),
    ({"GUEST_ACTIVITY_STATE": 3, INFO: VALID | 0x202}, "GUEST_ACTIVITY_STATE"),
    ({"GUEST_INTERRUPTIBILITY_STATE": 32}, "GUEST_INTERRUPTIBILITY_STATE"),
    ({"GUEST_INTERRUPTIBILITY_STATE": 3, "GUEST_RFLAGS": 0x202}, "GUEST_INTERRUPTIBILITY_STATE"),
    ({"GUEST_INTERRUPTIBILITY_STATE": 1}, "GUEST_INTERRUPTIBILITY_STATE"),
    ({"GUEST_INTERRUPTIBILITY_STATE": 4}, "GUEST_INTERRUPTIBILITY_STATE"),
    ({"GUEST_INTERRUPTIBILITY_STATE": 1, "GUEST_RFLAGS": 0x202, INFO: VALID | 0x30}, "GUEST_INTERRUPTIBILITY_STATE"),
    ({"GUEST_INTERRUPTIBILITY_STATE": 2, INFO: VALID | 0x202}, "GUEST_INTERRUPTIBILITY_STATE"),
    (pin("NMI_EXITING", "VIRTUAL_NMIS") | {"GUEST_INTERRUPTIBILITY_STATE": 8, INFO: VALID | 0x202},
     "GUEST_INTERRUPTIBILITY_STATE"),
    ({"GUEST_PENDING_DEBUG_EXCEPTIONS": 0x10}, "GUEST_PENDING_DEBUG_EXCEPTIONS"),
    ({"GUEST_PENDING_DEBUG_EXCEPTIONS": 0x4000, "GUEST_INTERRUPTIBILITY_STATE": 2}, "GUEST_PENDING_DEBUG_EXCEPTIONS"),
    ({"GUEST_INTERRUPTIBILITY_STATE": 2, "GUEST_RFLAGS": 0x102}, "GUEST_PENDING_DEBUG_EXCEPTIONS"),
    ({"GUEST_PENDING_DEBUG_EXCEPTIONS": 0x4000, "GUEST_INTERRUPTIBILITY_STATE": 2, "GUEST_RFLAGS": 0x102,
      "GUEST_IA32_DEBUGCTL": 2}, "GUEST_PENDING_DEBUG_EXCEPTIONS"),
]  # fmt: skip
GUEST_STATE64: list[tuple[Changes, str]] = [
    ({"GUEST_CR3": WIDE}, "GUEST_CR3"),
    ({"-GUEST_CR4": 0x20}, "GUEST_CR0"),
    ({"GUEST_IA32_SYSENTER_ESP": UNCANONICAL}, "GUEST_IA32_SYSENTER_ESP"),
    ({"GUEST_IA32_SYSENTER_EIP": UNCANONICAL}, "GUEST_IA32_SYSENTER_EIP"),
    (entry("LOAD_DEBUG_CONTROLS") | {"GUEST_DR7": 1 << 32}, "GUEST_DR7"),
    ({"GUEST_TR_BASE": UNCANONICAL}, "GUEST_TR_BASE"),
    ({"GUEST_FS_BASE": UNCANONICAL}, "GUEST_FS_BASE"),
    ({"GUEST_GS_BASE": UNCANONICAL}, "GUEST_GS_BASE"),
    ({"GUEST_LDTR_BASE": UNCANONICAL, "GUEST_LDTR_ACCESS_RIGHTS": 0x82}, "GUEST_LDTR_BASE"),
    ({"GUEST_CS_BASE": 1 << 32}, "GUEST_CS_BASE"),
    ({"GUEST_SS_BASE": 1 << 32}, "GUEST_SS_BASE"),
    ({"GUEST_DS_BASE": 1 << 32}, "GUEST_DS_BASE"),
    ({"GUEST_ES_BASE": 1 << 32}, "GUEST_ES_BASE"),
    (access("CS", 0xE09B), "GUEST_CS_ACCESS_RIGHTS"),
    (access("TR", 0x83), "GUEST_TR_ACCESS_RIGHTS"),
    ({"GUEST_GDTR_BASE": UNCANONICAL}, "GUEST_GDTR_BASE"),
    ({"GUEST_IDTR_BASE": UNCANONICAL}, "GUEST_IDTR_BASE"),
    ({"GUEST_RIP": 1 << 48}, "GUEST_RIP"),
    ({"GUEST_RIP": 0xFFFE_8000_0000_0000}, "GUEST_RIP"),
    ({"GUEST_RIP": 1 << 32} | access("CS", 0xC09B), "GUEST_RIP"),
    (
        {"GUEST_RFLAGS": 0x20002} | {name: value for name, value in V86.items() if name != "GUEST_RFLAGS"},
        "GUEST_RFLAGS",
    ),
]


@pytest.mark.parametrize(
    ("bits", "changes", "field"), [(32, *case) for case in GUEST_STATE] + [(64, *case) for case in GUEST_STATE64]
)
def test_guest_state(bits: int, changes: Changes, field: str) -> None:
    """SDM Vol. 3, "Checks on the Guest State Area": a VM exit with bit 31 of the reason, and the host goes on."""
    bench = Bench(bits=bits)
    bench.guest("vmcall")
    bench.prepare(changes)
    before = bench["GUEST_RSP"]
    bench.enter()
    assert bench.reason == "failed VM_ENTRY_FAILURE_DUE_TO_INVALID_GUEST_STATE"
    assert bench["EXIT_QUALIFICATION"] == 0 and bench["GUEST_RSP"] == before
    assert bench.cpu.vmx_failure.field == field, bench.cpu.vmx_failure
    assert bench.cpu.vmx_operation == "root"
    # It was not launched: VMRESUME still refuses.
    bench.enter(resume=True)
    assert bench.failed == "VMRESUME_NONLAUNCHED_VMCS"


def test_rip_just_past_the_canonical_addresses_is_let_in() -> None:
    """SDM Vol. 3, "Checks on Guest RIP, RFLAGS, and SSP": bits 63:48 alone; the fetch there is the guest's #GP."""
    bench = Bench(bits=64)
    assert bench.exit("vmcall", {"GUEST_RIP": UNCANONICAL, "EXCEPTION_BITMAP": 1 << 13}) == "EXCEPTION_OR_NMI"
    assert bench["VM_EXIT_INTERRUPTION_INFORMATION"] == VALID | 0xB0D and bench["GUEST_RIP"] == UNCANONICAL


@pytest.mark.parametrize("link", [1, WIDE, REGION, REGION2 + 0x1000])
def test_link_pointer(link: int) -> None:
    bench = Bench()
    assert bench.exit("vmcall", {"VMCS_LINK_POINTER": link}) == "failed VM_ENTRY_FAILURE_DUE_TO_INVALID_GUEST_STATE"
    assert bench["EXIT_QUALIFICATION"] == 4 and bench.cpu.vmx_failure.field == "VMCS_LINK_POINTER"
    assert bench.exit("vmcall", {"VMCS_LINK_POINTER": REGION2}) == "VMCALL"


@pytest.mark.parametrize("ept", [False, True])
def test_pdptes(ept: bool) -> None:
    """SDM Vol. 3, "Checks on Guest Page-Directory-Pointer-Table Entries": from memory, or with EPT from the VMCS."""
    changes = {"+GUEST_CR4": 0x20} | (with_ept() if ept else {})
    bad = {"GUEST_PDPTE1": 3} if ept else {}
    bench = Bench()
    bench.cpu.memory.write(0x50000, (0x53001).to_bytes(8, "little") + (0 if ept else 3).to_bytes(8, "little"))
    assert bench.exit("vmcall", changes, bad) == "failed VM_ENTRY_FAILURE_DUE_TO_INVALID_GUEST_STATE"
    assert bench["EXIT_QUALIFICATION"] == 2
    bench.cpu.memory.write(0x50008, bytes(8))
    bench.cpu.memory.write(0x53000, (0x83).to_bytes(8, "little"))
    good = {"GUEST_PDPTE0": 0x53001, "GUEST_PDPTE1": 0} if ept else {}
    assert bench.exit("vmcall", changes, good) == "VMCALL"


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (0xC0000100, 0),
        (0xC0000101, 0),
        (0x800, 0),
        (0x79, 0),
        (0x8B, 0),
        (0x9B, 0),
        (0x12345, 0),
        (0x277, 2),
        (0xC0000080, 2),
        (1 << 32 | 0x174, 0),
    ],
)
def test_msr_loading(number: int, value: int) -> None:
    """SDM Vol. 3, "Loading MSRs": the qualification is the number of the entry."""
    bench = Bench()
    area = [(0x174, 0x1234), (number, value)]
    bench.cpu.memory.write(
        MSR_AREA, b"".join(index.to_bytes(8, "little") + data.to_bytes(8, "little") for index, data in area)
    )
    changes = {"VM_ENTRY_MSR_LOAD_ADDRESS": MSR_AREA, "VM_ENTRY_MSR_LOAD_COUNT": 2}
    assert bench.exit("vmcall", changes) == "failed VM_ENTRY_FAILURE_DUE_TO_MSR_LOADING"
    assert bench["EXIT_QUALIFICATION"] == 2 and bench.cpu.vmx_failure.field == "VM_ENTRY_MSR_LOAD_ADDRESS"
    assert bench.cpu.vmx_failure.section == "Loading MSRs"
    assert bench.exit("vmcall", changes | {"VM_ENTRY_MSR_LOAD_COUNT": 1}) == "VMCALL"
    assert bench["GUEST_IA32_SYSENTER_CS"] == 0x1234


def test_a_failed_vm_entry_leaves_the_blocking_of_nmis() -> None:
    """The guest's virtual-NMI blocking was loaded before its MSRs; the VMM takes NMIs as before."""
    bench = Bench()
    virtual = pin("NMI_EXITING", "VIRTUAL_NMIS") | {"GUEST_INTERRUPTIBILITY_STATE": 8}
    area = {"VM_ENTRY_MSR_LOAD_ADDRESS": MSR_AREA, "VM_ENTRY_MSR_LOAD_COUNT": 1}
    bench.cpu.memory.write(MSR_AREA, (0xC0000100).to_bytes(16, "little"))
    assert bench.exit("vmcall", virtual, area) == "failed VM_ENTRY_FAILURE_DUE_TO_MSR_LOADING"
    bench.cpu.pins.drive(1, 1)
    bench.cpu.run(instructions=10)
    assert bench.vector == 2


def test_checks_that_passed_are_not_skipped_once_an_input_changes() -> None:
    """A round trip leaves them out; VMWRITE of a control or of host state brings them back."""
    bench = Bench()
    assert bench.exit("vmcall\nvmcall\nvmcall") == "VMCALL"
    bench.set({"GUEST_RIP": GUEST + 3})
    bench.enter(resume=True)
    assert bench.reason == "VMCALL"
    bench.set({"HOST_TR_SELECTOR": 0})
    bench.enter(resume=True)
    assert bench.failed == "ENTRY_INVALID_HOST_STATE"
    bench.set({"HOST_TR_SELECTOR": 0x20, "CR3_TARGET_COUNT": 9})
    bench.enter(resume=True)
    assert bench.failed == "ENTRY_INVALID_CONTROL_FIELDS"
    bench.set({"CR3_TARGET_COUNT": 0, "GUEST_RFLAGS": 0})
    bench.enter(resume=True)
    assert bench.reason.startswith("failed")
