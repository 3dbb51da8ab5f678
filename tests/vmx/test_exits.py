"""VM exits by instructions: each control, reason, qualification, length and instruction information.

SDM Vol. 3, "VMX Non-Root Operation", "VM-Exit Information Fields".
"""

from collections.abc import Mapping

import pytest
from vmm import (
    DATA,
    GUEST,
    GUEST_STACK,
    GUEST_TABLES,
    IO_BITMAP_A,
    IO_BITMAP_B,
    MSR,
    MSR_BITMAPS,
    VIRTUAL_APIC,
    Bench,
    pin,
    primary,
    real_mode,
    secondary,
)

import emu

Changes = Mapping[str, int]
IO_MAPS = primary("USE_IO_BITMAPS") | {"ADDRESS_OF_IO_BITMAP_A": IO_BITMAP_A, "ADDRESS_OF_IO_BITMAP_B": IO_BITMAP_B}
RDTSCP = primary("RDTSC_EXITING", "ACTIVATE_SECONDARY_CONTROLS") | {
    "SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS": 8
}
DESCRIPTORS = secondary("DESCRIPTOR_TABLE_EXITING")
# The guest's code, whose last instruction exits; the changes; reason, qualification, and that instruction's length.
EXITS: list[tuple[str, Changes, str, int, int]] = [
    ("cpuid", {}, "CPUID", 0, 2),
    ("invd", {}, "INVD", 0, 2),
    ("vmcall", {}, "VMCALL", 0, 3),
    ("vmlaunch", {}, "VMLAUNCH", 0, 3),
    ("vmresume", {}, "VMRESUME", 0, 3),
    ("vmxoff", {}, "VMXOFF", 0, 3),
    ("vmxon [ebx + 0x10]", {}, "VMXON", 0x10, 5),
    ("vmclear [0x1234]", {}, "VMCLEAR", 0x1234, 8),
    ("vmptrld [esp - 8]", {}, "VMPTRLD", 0xFFFFFFF8, 5),
    ("vmptrst [ebx]", {}, "VMPTRST", 0, 3),
    ("vmread eax, ecx", {}, "VMREAD", 0, 3),
    ("vmwrite ecx, [ebx + 4]", {}, "VMWRITE", 4, 4),
    ("invept eax, [ebx + 8]", {}, "INVEPT", 8, 6),
    ("invvpid eax, [ebx + 8]", {}, "INVVPID", 8, 6),
    ("hlt", primary("HLT_EXITING"), "HLT", 0, 1),
    ("invlpg [0x12345]", primary("INVLPG_EXITING"), "INVLPG", 0x12345, 7),
    ("mwait", primary("MWAIT_EXITING"), "MWAIT", 0, 3),
    ("monitor", primary("MONITOR_EXITING"), "MONITOR", 0, 3),
    ("pause", primary("PAUSE_EXITING"), "PAUSE", 0, 2),
    ("rdpmc", primary("RDPMC_EXITING"), "RDPMC", 0, 2),
    ("rdtsc", primary("RDTSC_EXITING"), "RDTSC", 0, 2),
    ("rdtscp", RDTSCP, "RDTSCP", 0, 3),
    ("wbinvd", secondary("WBINVD_EXITING"), "WBINVD", 0, 2),
    ("mov cr3, edx", primary("CR3_LOAD_EXITING"), "CONTROL_REGISTER_ACCESSES", 0x203, 3),
    ("mov edi, cr3", primary("CR3_STORE_EXITING"), "CONTROL_REGISTER_ACCESSES", 0x713, 3),
    ("mov cr0, eax", {"CR0_GUEST_HOST_MASK": 1}, "CONTROL_REGISTER_ACCESSES", 0, 3),
    ("mov cr4, esi", {"CR4_GUEST_HOST_MASK": 0x10, "CR4_READ_SHADOW": 0x10}, "CONTROL_REGISTER_ACCESSES", 0x604, 3),
    ("clts", {"CR0_GUEST_HOST_MASK": 8, "CR0_READ_SHADOW": 8}, "CONTROL_REGISTER_ACCESSES", 0x20, 2),
    ("mov ax, 0x8\nlmsw ax", {"CR0_GUEST_HOST_MASK": 8}, "CONTROL_REGISTER_ACCESSES", 0x80030, 3),
    ("lmsw [0x9100]", {"CR0_GUEST_HOST_MASK": 2, "CR0_READ_SHADOW": 2}, "CONTROL_REGISTER_ACCESSES", 0x70, 7),
    ("mov dr3, ecx", primary("MOV_DR_EXITING"), "MOV_DR", 0x103, 3),
    ("mov ecx, dr7", primary("MOV_DR_EXITING"), "MOV_DR", 0x117, 3),
    ("in al, 0x80", primary("UNCONDITIONAL_IO_EXITING"), "IO_INSTRUCTION", 0x800048, 2),
    ("xor edx, edx\nin eax, dx", primary("UNCONDITIONAL_IO_EXITING"), "IO_INSTRUCTION", 0xB, 1),
    ("out 0x70, al", primary("UNCONDITIONAL_IO_EXITING"), "IO_INSTRUCTION", 0x700040, 2),
    ("mov edx, 0xcf8\nout dx, ax", primary("UNCONDITIONAL_IO_EXITING"), "IO_INSTRUCTION", 0x0CF80001, 2),
    ("mov edx, 0x1f0\nrep insw", primary("UNCONDITIONAL_IO_EXITING"), "IO_INSTRUCTION", 0x01F00039, 3),
    ("mov edx, 0x1f0\nouts" + "d", primary("UNCONDITIONAL_IO_EXITING"), "IO_INSTRUCTION", 0x01F00013, 1),
    # The manual makes no exception for a count of zero.
    ("mov edx, 0x1f0\nxor ecx, ecx\nrep insw", primary("UNCONDITIONAL_IO_EXITING"), "IO_INSTRUCTION", 0x01F00039, 3),
    ("mov edx, 0x1f0\nxor ecx, ecx\nrep outsb", primary("UNCONDITIONAL_IO_EXITING"), "IO_INSTRUCTION", 0x01F00030, 2),
    ("mov ecx, 0x10\nrdmsr", {}, "RDMSR", 0, 2),
    ("mov ecx, 0x10\nwrmsr", {}, "WRMSR", 0, 2),
    ("sgdt [0x9000]", DESCRIPTORS, "ACCESS_TO_GDTR_OR_IDTR", 0x9000, 7),
    ("sidt [ebx]", DESCRIPTORS, "ACCESS_TO_GDTR_OR_IDTR", 0, 3),
    ("lgdt [ebx + 4]", DESCRIPTORS, "ACCESS_TO_GDTR_OR_IDTR", 4, 4),
    ("lidt [ebx + 4]", DESCRIPTORS, "ACCESS_TO_GDTR_OR_IDTR", 4, 4),
    ("sldt eax", DESCRIPTORS, "ACCESS_TO_LDTR_OR_TR", 0, 3),
    ("str [ebx + 2]", DESCRIPTORS, "ACCESS_TO_LDTR_OR_TR", 2, 4),
    ("lldt ax", DESCRIPTORS, "ACCESS_TO_LDTR_OR_TR", 0, 3),
    ("ltr ax", DESCRIPTORS, "ACCESS_TO_LDTR_OR_TR", 0, 3),
]  # fmt: skip


@pytest.mark.parametrize(("text", "changes", "reason", "qualification", "length"), EXITS)
def test_reason_qualification_and_length(
    text: str, changes: Changes, reason: str, qualification: int, length: int
) -> None:
    bench = Bench()
    bench.cpu.ebx = 0
    assert bench.exit(text + "\nud2", changes) == reason
    assert bench["EXIT_QUALIFICATION"] == qualification
    assert bench["VM_EXIT_INSTRUCTION_LENGTH"] == length
    before = sum(map(len, _pieces(text)))
    assert bench["GUEST_RIP"] == GUEST + before  # fault-like: the instruction is still to be executed
    assert bench["VM_EXIT_INTERRUPTION_INFORMATION"] == bench["IDT_VECTORING_INFORMATION_FIELD"] == 0
    assert not bench["GUEST_RFLAGS"] & 0x10000
    assert bench.cpu.exits[reason].count == 1
    assert bench.cpu.transitions()[-1][1:4] == ("exit", reason, qualification)


def _pieces(text: str) -> list[bytes]:
    from vmm import assemble

    return [assemble(line, 32, GUEST) for line in text.split("\n")[:-1]]


FAULTS = {"rdpmc": 13, "rdtscp": 6, "lldt ax": 13, "ltr ax": 13, "lidt [ebx + 4]": None, "hlt": None, "monitor": 14}


@pytest.mark.parametrize("text", [text for text, changes, *_ in EXITS if changes])
def test_without_the_control_the_guest_goes_on(text: str) -> None:
    """Or takes the fault that the instruction has without VT-x, or halts."""
    bench = Bench()
    bench.guest(
        f"mov edx, {GUEST_TABLES}\nmov eax, cr0\nmov esi, cr4\nmov edi, 0x9200\nmov ebx, 0x9300\n"
        f"xor ecx, ecx\n{text}\nvmcall"
    )
    bench.prepare(IO_MAPS)
    stop = bench.enter()
    if text in FAULTS and FAULTS[text] is not None:
        assert bench.guest_vector == FAULTS[text]
    elif text == "hlt":
        assert stop.reason == "halted" and bench.cpu.vmx_operation == "non-root"
    else:
        assert bench.reason == "VMCALL"


def test_instruction_information() -> None:
    """SDM Vol. 3, "VM-Exit Instruction-Information Field", tables of formats."""
    cases = [
        ("vmread [ebx + ecx*4 + 0x10], edi", {}, 7 << 28 | 3 << 23 | 1 << 18 | 3 << 15 | 1 << 7 | 2),
        ("vmread esi, edi", {}, 7 << 28 | 6 << 3 | 0x400),
        ("vmwrite edi, esi", {}, 7 << 28 | 6 << 3 | 0x400),
        ("vmptrld [fs:0x100]", {}, 1 << 27 | 1 << 22 | 4 << 15 | 1 << 7),
        ("vmclear [bx + si]", {}, 3 << 23 | 6 << 18 | 3 << 15),
        ("invept edx, [esp]", {}, 2 << 28 | 4 << 23 | 1 << 22 | 2 << 15 | 1 << 7),
        ("lidt [eax]", DESCRIPTORS, 3 << 28 | 0 << 23 | 1 << 22 | 3 << 15 | 0x800 | 1 << 7),
        ("str ecx", DESCRIPTORS, 1 << 28 | 0x400 | 1 << 3),
        ("ltr cx", DESCRIPTORS, 3 << 28 | 0x400 | 1 << 3),
        ("a16 rep outsb", primary("UNCONDITIONAL_IO_EXITING"), 3 << 15),
        ("es outsb", primary("UNCONDITIONAL_IO_EXITING"), 1 << 7),
    ]
    for text, changes, information in cases:
        bench = Bench()
        bench.exit(text, changes)
        assert bench["VM_EXIT_INSTRUCTION_INFORMATION"] == information, text


def test_string_io_gives_the_linear_address() -> None:
    bench = Bench()
    bench.exit("mov edi, 0x9004\ninsb", primary("UNCONDITIONAL_IO_EXITING"))
    assert bench["GUEST_LINEAR_ADDRESS"] == 0x9004


def test_rip_relative_operands_give_the_sum() -> None:
    bench = Bench(bits=64)
    assert bench.exit("vmptrld [rel $ + 0x100]") == "VMPTRLD"
    assert bench["EXIT_QUALIFICATION"] == GUEST + 0x100


@pytest.mark.parametrize(("port", "size"), [(0x80, 1), (0x7FFF, 2), (0x8000, 4), (0xFFFF, 1), (0x7F, 2), (0x7D, 4)])
def test_io_bitmaps(port: int, size: int) -> None:
    """SDM Vol. 3, "I/O-Bitmap Addresses": bits of every port that the access touches."""
    register = {1: "al", 2: "ax", 4: "eax"}[size]
    for touched in (0x80, 0x8000, 0xFFFF):
        bench = Bench()
        bench.cpu.memory.write(IO_BITMAP_A + touched // 8, bytes([1 << touched % 8]))
        bench.exit(f"mov edx, {port}\nin {register}, dx\nvmcall", IO_MAPS)
        assert bench.reason == ("IO_INSTRUCTION" if port <= touched < port + size else "VMCALL")


def test_an_access_that_wraps_around_the_ports_exits() -> None:
    assert Bench().exit("mov edx, 0xffff\nin ax, dx\nvmcall", IO_MAPS) == "IO_INSTRUCTION"


@pytest.mark.parametrize("number", [0x10, 0x1FFF, 0x2000, 0xC0000080, 0xC0001FFF, 0xC0002000, 0x40000000])
@pytest.mark.parametrize("write", [False, True])
def test_msr_bitmaps(number: int, write: bool) -> None:
    """SDM Vol. 3, "MSR-Bitmap Address": numbers outside both ranges always exit."""
    changes = primary("USE_MSR_BITMAPS") | {"ADDRESS_OF_MSR_BITMAPS": MSR_BITMAPS}
    text = f"mov ecx, {number}\n" + ("xor eax, eax\nxor edx, edx\nwrmsr" if write else "rdmsr") + "\nvmcall"
    name = "WRMSR" if write else "RDMSR"
    mapped = number & 0x3FFFE000 == 0 and number != 0x40000000
    bench = Bench()
    bench.guest(text)
    bench.prepare(changes)
    bench.enter()
    if mapped:
        assert bench.exited is (number in (0x10, 0xC0000080)) and (not bench.exited or bench.reason == "VMCALL")
    else:
        assert bench.reason == name
    place = MSR_BITMAPS + (0x800 if write else 0) + (0x400 if number >> 31 else 0) + (number & 0x1FFF) // 8
    bench = Bench()
    bench.cpu.memory.write(place, bytes([1 << number % 8]))
    assert bench.exit(text, changes) == name


def test_cr3_targets() -> None:
    """SDM Vol. 3, "CR3-Target Controls"."""
    changes = primary("CR3_LOAD_EXITING") | {"CR3_TARGET_COUNT": 2, "CR3_TARGET_VALUE_1": GUEST_TABLES}
    assert Bench().exit(f"mov eax, {GUEST_TABLES}\nmov cr3, eax\nvmcall", changes) == "VMCALL"
    fewer = changes | {"CR3_TARGET_COUNT": 1}
    assert Bench().exit(f"mov eax, {GUEST_TABLES}\nmov cr3, eax\nvmcall", fewer) == "CONTROL_REGISTER_ACCESSES"


def test_masks_and_read_shadows() -> None:
    """SDM Vol. 3, "Guest/Host Masks and Read Shadows for CR0 and CR4"."""
    bench = Bench()
    masks = {"CR0_GUEST_HOST_MASK": 0x8000_0021, "CR0_READ_SHADOW": 0x0000_0001, "CR4_GUEST_HOST_MASK": 0x2000}
    text = "mov ebx, cr0\nmov ecx, cr4\nmov eax, 0x0001000b\nmov cr0, eax\nmov esi, cr0\nsmsw edi\nvmcall"
    assert bench.exit(text, masks) == "VMCALL"
    assert bench.cpu.ebx == 0x0000_0011 and bench.cpu.ecx == 0x10  # the shadow in the mask's bits
    assert bench["GUEST_CR0"] == 0x8001_003B  # the guest's own bits changed, the VMM's stayed
    assert bench.cpu.esi == bench.cpu.edi == 0x0001_001B


def test_clts_and_lmsw_of_masked_bits() -> None:
    bench = Bench()
    changes = {"CR0_GUEST_HOST_MASK": 8, "CR0_READ_SHADOW": 0, "+GUEST_CR0": 8}
    assert bench.exit("clts\nvmcall", changes) == "VMCALL"
    assert bench["GUEST_CR0"] & 8  # the VMM's TS stays
    assert bench.exit("mov eax, 2\nlmsw ax\nvmcall", {"CR0_GUEST_HOST_MASK": 8, "CR0_READ_SHADOW": 0}) == "VMCALL"
    assert bench["GUEST_CR0"] & 0xF == 3


def test_guests_keep_the_bits_that_vmx_fixes() -> None:
    for text in ("mov eax, cr0\nand eax, ~0x20\nmov cr0, eax", "mov eax, cr4\nand eax, ~0x2000\nmov cr4, eax"):
        bench = Bench()
        bench.guest(text)
        bench.prepare()
        bench.enter()
        assert bench.guest_vector == 13
    # An unrestricted guest may leave protected mode and paging.
    bench = Bench()
    text = "mov eax, cr0\nand eax, 0x7fffffff\nmov cr0, eax\nand al, 0xfe\nmov cr0, eax\nvmcall"
    assert bench.exit(text, secondary("ENABLE_EPT", "UNRESTRICTED_GUEST")) == "VMCALL"
    assert bench["GUEST_CR0"] == 0x30


def test_cr8_and_the_tpr_shadow() -> None:
    """SDM Vol. 3, "Changes to Instruction Behavior in VMX Non-Root Operation": CR8; "TPR Virtualization"."""
    assert Bench(bits=64).exit("mov cr8, rax", primary("CR8_LOAD_EXITING")) == "CONTROL_REGISTER_ACCESSES"
    bench = Bench(bits=64)
    assert bench.exit("mov rcx, cr8", primary("CR8_STORE_EXITING")) == "CONTROL_REGISTER_ACCESSES"
    assert bench["EXIT_QUALIFICATION"] == 0x118
    shadow = primary("USE_TPR_SHADOW") | {"VIRTUAL_APIC_ADDRESS": VIRTUAL_APIC, "TPR_THRESHOLD": 4}
    bench = Bench(bits=64)
    bench.cpu.memory.write(VIRTUAL_APIC + 0x80, b"\x70")
    text = "mov rbx, cr8\nmov eax, 4\nmov cr8, rax\nmov eax, 3\nmov cr8, rax\nnop\nvmcall"
    assert bench.exit(text, shadow) == "TPR_BELOW_THRESHOLD"
    assert bench.cpu.rbx == 7 and bench.cpu.memory.read(VIRTUAL_APIC + 0x80, 4) == b"\x30\0\0\0"
    assert bench["GUEST_RIP"] == GUEST + 4 + 5 + 4 + 5 + 4  # trap-like


def test_tsc_offsetting() -> None:
    """SDM Vol. 3, "Time-Stamp Counter Offset": RDTSC, RDTSCP and RDMSR see it, WRMSR does not take it along."""
    maps = {"ADDRESS_OF_MSR_BITMAPS": MSR_BITMAPS} | primary(
        "USE_MSR_BITMAPS", "USE_TSC_OFFSETTING", "ACTIVATE_SECONDARY_CONTROLS"
    )
    changes = maps | {"TSC_OFFSET": 1 << 40, "SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS": 8}
    bench = Bench()
    text = "rdtsc\nmov ebx, edx\nrdtscp\nmov esi, edx\nmov ecx, 0x10\nrdmsr\nmov edi, edx\nvmcall"
    assert bench.exit(text, changes) == "VMCALL"
    assert bench.cpu.ebx == bench.cpu.esi == bench.cpu.edi == 0x100
    plain = Bench()
    assert plain.exit("rdtsc\nvmcall") == "VMCALL"
    assert plain.cpu.edx == 0


def test_rdtscp_and_invpcid_are_undefined_unless_enabled() -> None:
    bench = Bench()
    bench.guest("rdtscp")
    bench.prepare()
    bench.enter()
    assert bench.guest_vector == 6


def test_privilege_comes_before_the_exit_and_vmx_instructions_before_privilege() -> None:
    """SDM Vol. 3, "Relative Priority of Faults and VM Exits"."""
    user = {"GUEST_CS_SELECTOR": 0xB, "GUEST_CS_ACCESS_RIGHTS": 0xC0FB, "GUEST_SS_SELECTOR": 0x13,
            "GUEST_SS_ACCESS_RIGHTS": 0xC0F3, "GUEST_DS_SELECTOR": 0, "GUEST_DS_ACCESS_RIGHTS": 0x10000}  # fmt: skip
    tables = {"EXCEPTION_BITMAP": 1 << 13}
    privileged: list[tuple[str, Changes]] = [
        ("hlt", primary("HLT_EXITING")),
        ("mov eax, cr3", primary("CR3_STORE_EXITING")),
        ("rdmsr", {}),
        ("invlpg [cs:0]", primary("INVLPG_EXITING")),
        ("in al, 1", primary("UNCONDITIONAL_IO_EXITING")),
    ]
    for text, changes in privileged:
        bench = Bench()
        bench.cpu.memory.write(0x50000, b"\x87")
        assert bench.exit(text, user, changes, tables) == "EXCEPTION_OR_NMI"
        assert bench["VM_EXIT_INTERRUPTION_INFORMATION"] == 0x80000B0D
    for text, reason in (("vmcall", "VMCALL"), ("vmxoff", "VMXOFF"), ("cpuid", "CPUID"), ("vmread eax, eax", "VMREAD")):
        bench = Bench()
        bench.cpu.memory.write(0x50000, b"\x87")
        assert bench.exit(text, user, tables) == reason
    # MOV DR is the exception to the rule: its exit comes before privilege and before CR4.DE.
    bench = Bench()
    bench.cpu.memory.write(0x50000, b"\x87")
    assert bench.exit("mov eax, dr7", primary("MOV_DR_EXITING"), user, tables) == "MOV_DR"
    assert bench["EXIT_QUALIFICATION"] == 0x17
    bench = Bench()
    extensions = {"GUEST_CR4": 0x2018, "EXCEPTION_BITMAP": 1 << 6}
    assert bench.exit("mov dr5, ecx", primary("MOV_DR_EXITING"), extensions) == "MOV_DR"
    assert bench["EXIT_QUALIFICATION"] == 0x105


def test_state_is_saved_and_the_host_s_loaded() -> None:
    """SDM Vol. 3, "Saving Guest State", "Loading Host State"."""
    bench = Bench()
    msrs = primary("USE_MSR_BITMAPS") | {"ADDRESS_OF_MSR_BITMAPS": MSR_BITMAPS}
    host = {
        "HOST_IA32_SYSENTER_CS": 0x77,
        "HOST_IA32_SYSENTER_ESP": 0x88,
        "HOST_FS_BASE": 0x1234,
        "HOST_DS_SELECTOR": 0,
    }
    text = f"""mov ax, {DATA}
        mov fs, ax
        push 0x40
        popfd
        mov eax, 0x5678
        xor edx, edx
        mov ecx, {MSR["IA32_SYSENTER_EIP"]}
        wrmsr
        vmcall"""
    assert bench.exit(text, msrs, host) == "VMCALL"
    assert bench["GUEST_RSP"] == GUEST_STACK and bench["GUEST_IA32_SYSENTER_EIP"] == 0x5678
    assert bench["GUEST_RFLAGS"] & 0xFFFF == 0x46 or bench["GUEST_RFLAGS"] & 2
    c = bench.cpu
    assert (c.cs.base, c.cs.limit, c.cs.access) == (0, 0xFFFFFFFF, 0xC09B)
    assert c.fs.base == 0x1234 and c.ds.access & 0x10000
    assert (c.gdtr.limit, c.idtr.limit, c.tr.limit, c.ldtr.access) == (0xFFFF, 0xFFFF, 0x67, 0x10000)
    assert c.dr7 == 0x400 and c.rflags & 0x200D5 == 0
    for name, value in (("IA32_SYSENTER_CS", 0x77), ("IA32_SYSENTER_ESP", 0x88), ("IA32_SYSENTER_EIP", 0)):
        bench.run(f"mov ecx, {name}\nrdmsr")
        assert c.eax == value


def test_msr_areas_of_an_exit() -> None:
    bench = Bench()
    store, load = 0xA000, 0xA100
    bench.cpu.memory.write(store, (0x174).to_bytes(16, "little"))
    bench.cpu.memory.write(load, (0x174).to_bytes(8, "little") + (0x4321).to_bytes(8, "little"))
    changes = {"GUEST_IA32_SYSENTER_CS": 0x99, "VM_EXIT_MSR_STORE_ADDRESS": store, "VM_EXIT_MSR_STORE_COUNT": 1,
               "VM_EXIT_MSR_LOAD_ADDRESS": load, "VM_EXIT_MSR_LOAD_COUNT": 1}  # fmt: skip
    assert bench.exit("vmcall", changes) == "VMCALL"
    assert bench.cpu.memory.read(store + 8, 8) == (0x99).to_bytes(8, "little")
    bench.run("mov ecx, 0x174\nrdmsr")
    assert bench.cpu.eax == 0x4321


def test_the_msr_store_area_has_the_time_stamp_counter_without_the_guest_s_offset() -> None:
    bench = Bench()
    bench.cpu.memory.write(0xA000, (0x10).to_bytes(16, "little"))
    changes = primary("USE_TSC_OFFSETTING") | {"TSC_OFFSET": 1 << 40, "VM_EXIT_MSR_STORE_ADDRESS": 0xA000,
                                               "VM_EXIT_MSR_STORE_COUNT": 1}  # fmt: skip
    assert bench.exit("rdtsc\nvmcall", changes) == "VMCALL"
    stored = int.from_bytes(bench.cpu.memory.read(0xA008, 8), "little")
    assert bench.cpu.edx == 0x100 and bench.cpu.eax < stored <= bench.cpu.cycles


@pytest.mark.parametrize(("area", "indicator"), [("STORE", 1), ("LOAD", 4)])
@pytest.mark.parametrize("number", [0x12345, 0x8B, 0x79, 0x801, 1 << 32 | 0x10])
def test_an_msr_area_that_fails_aborts(area: str, indicator: int, number: int) -> None:
    """SDM Vol. 3, "VMX Aborts": the indicator in the VMCS region, and a shutdown."""
    bench = Bench()
    bench.cpu.memory.write(0xA000, number.to_bytes(8, "little"))
    bench.guest("vmcall")
    bench.prepare({f"VM_EXIT_MSR_{area}_ADDRESS": 0xA000, f"VM_EXIT_MSR_{area}_COUNT": 1})
    assert bench.enter().reason == "triple_fault"
    assert bench.cpu.memory.read(0x2004, 4) == indicator.to_bytes(4, "little")


@pytest.mark.parametrize("failing", [False, True])
def test_host_pdptes_that_are_bad_abort(failing: bool) -> None:
    """After a VM exit, and after a VM entry that fails in the guest state, which is one too."""
    bench = Bench()
    bench.cpu.memory.write(0xB000, (0x41).to_bytes(8, "little"))
    bench.guest("vmcall")
    bench.prepare({"+HOST_CR4": 0x20, "HOST_CR3": 0xB000}, {"GUEST_RFLAGS": 0 if failing else 2})
    assert bench.enter().reason == "triple_fault"
    assert bench.cpu.memory.read(0x2004, 4) == (2).to_bytes(4, "little")


def test_a_64_bit_vmm_has_guests_of_every_mode() -> None:
    """SDM Vol. 3, "VM Entries": IA-32e mode guest; exits store LMA in the entry control."""
    bench = Bench(bits=64)
    assert bench.exit("mov r15, 0x123456789abcdef0\ncpuid") == "CPUID"
    assert bench.cpu.r15 == 0x123456789ABCDEF0 and bench["GUEST_RIP"] == GUEST + 10
    bench = Bench(bits=64)
    # Paging off, in a 32-bit guest that is unrestricted.
    changes = {"-VM_ENTRY_CONTROLS": 1 << 9, "GUEST_CR0": 0x31, "GUEST_CS_ACCESS_RIGHTS": 0xC09B} | secondary(
        "ENABLE_EPT", "UNRESTRICTED_GUEST"
    )
    assert bench.exit("mov eax, 0x12345678\nvmcall", changes, bits=32) == "VMCALL"
    assert bench.cpu.eax == 0x12345678 and not bench["VM_ENTRY_CONTROLS"] & 0x200
    assert bench.cpu.bits == 64


def test_bases_that_64_bit_code_does_not_use_are_kept() -> None:
    """SDM Vol. 3, "Saving Segment Registers and Descriptor-Table Registers"."""
    bench = Bench(bits=64)
    bench.cpu.memory.write(0x25000, b"\x12\x34\x56\x78")
    bases = {f"GUEST_{name}_BASE": 0x1000 * place for place, name in enumerate(("ES", "CS", "SS", "DS"), 1)}
    bench.guest("mov eax, [abs 0x25000]\nvmcall")
    bench.prepare(bases)
    for resume in (False, True):
        bench.enter(resume=resume)
        assert bench.reason == "VMCALL" and bench.cpu.eax == 0x78563412
        assert {name: bench[name] for name in bases} == bases
        bench.set({"GUEST_RIP": GUEST})


def test_an_unrestricted_guest_in_real_address_mode() -> None:
    bench = Bench()
    assert bench.exit("mov ax, 0x1234\nvmcall", real_mode(), bits=16) == "VMCALL"
    assert bench.cpu.eax & 0xFFFF == 0x1234 and bench["GUEST_RIP"] == 3


@pytest.mark.parametrize(
    ("between", "armed"),
    [("nop", 1), ("inc dword [eax + 60]", 0), ("inc dword [eax + 64]", 1), ("vmcall", 0)],
)
def test_mwait_tells_whether_the_monitor_is_armed(between: str, armed: int) -> None:
    """SDM Vol. 3, "Basic VM-Exit Information", MWAIT: a store to the line ends it, and a VM exit."""
    bench = Bench()
    for line in (0x25000, 0):
        monitor = f"mov eax, {line}\nxor ecx, ecx\nmonitor\n{between}\n"
        if bench.exit(monitor + "mwait", primary("MWAIT_EXITING")) == "VMCALL":
            bench.set({"GUEST_RIP": bench["GUEST_RIP"] + 3})
            bench.enter(resume=True)
        assert bench.reason == "MWAIT" and bench["EXIT_QUALIFICATION"] == armed


def test_the_monitor_trap_flag_exits_after_an_instruction() -> None:
    bench = Bench()
    assert bench.exit("inc eax\ninc eax", primary("MONITOR_TRAP_FLAG")) == "MONITOR_TRAP_FLAG"
    assert bench["GUEST_RIP"] == GUEST + 1
    bench.enter(resume=True)
    assert bench.reason == "MONITOR_TRAP_FLAG" and bench["GUEST_RIP"] == GUEST + 2


def test_a_triple_fault_is_an_exit() -> None:
    bench = Bench()
    assert bench.exit("ud2", {"GUEST_IDTR_LIMIT": 0}) == "TRIPLE_FAULT"
    assert bench["GUEST_RIP"] == GUEST and bench["GUEST_ACTIVITY_STATE"] == 0


def test_the_hook_and_the_counts() -> None:
    bench = Bench()
    seen: list[tuple[int, int]] = []
    bench.cpu.hook("vm_exit", lambda reason, qualification: seen.append((reason, qualification)))
    bench.exit("in al, 0x80", primary("UNCONDITIONAL_IO_EXITING"))
    assert seen == [(30, 0x800048)]
    with pytest.raises(KeyError):
        bench.cpu.exits["NO_SUCH"]
    with pytest.raises(KeyError):
        bench.cpu.vmcs["NO_SUCH"]
    assert bench.cpu.exits["HLT"] == emu._core.ExitCount(0, 0)
    assert [one.kind for one in bench.cpu.transitions()] == ["entry", "exit"]
    assert bench.cpu.transitions(since=1) == bench.cpu.transitions()[1:]


def test_the_same_run_takes_the_same_cycles() -> None:
    def cycles() -> list[int]:
        bench = Bench()
        bench.exit("mov ecx, 100\nagain: loop again\ncpuid", pin("EXTERNAL_INTERRUPT_EXITING"))
        return [one.cycle for one in bench.cpu.transitions()]

    assert cycles() == cycles()
