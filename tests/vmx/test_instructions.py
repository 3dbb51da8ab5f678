"""The VMX instructions and their errors. SDM Vol. 3, "VMX Instruction Reference", "VM-Instruction Error Numbers"."""

import pytest
from vmm import ERRORS, FIELDS, MSR, REGION, REGION2, VMXON, Bench, primary, secondary

import emu

POINTER = 0xB000
GP, UD = 13, 6


def outcome(bench: Bench, text: str) -> str | None:
    """How an instruction ended: "#GP", "#UD", the VMfail, or None for VMsucceed."""
    bench.run(text)
    if bench.vector is not None:
        return emu._core.VECTOR_NAMES[bench.vector]
    return bench.failed if "vm" in text or "inv" in text else None


def pointer(bench: Bench, address: int) -> None:
    bench.cpu.memory.write(POINTER, address.to_bytes(8, "little"))


@pytest.mark.parametrize("text", ["vmxoff", "vmlaunch", "vmresume", "vmcall", "vmclear [0xb000]", "vmptrld [0xb000]",
                                  "vmptrst [0xb000]", "vmread eax, ebx", "vmwrite eax, ebx", "invept eax, [0xb000]",
                                  "invvpid eax, [0xb000]", "vmxon [0xb000]"])  # fmt: skip
def test_outside_vmx_operation_they_are_undefined(text: str) -> None:
    """VMXON too while CR4.VMXE is 0."""
    assert outcome(Bench(vmx=False), text) == "#UD"
    assert outcome(Bench("pentium3", vmx=False), text) == "#UD"


def test_cr4_vmxe_needs_a_processor_with_vmx_and_stays_in_vmx_operation() -> None:
    set_vmxe = "mov eax, cr4\nor eax, 0x2000\nmov cr4, eax"
    assert outcome(Bench("pentium3", vmx=False), set_vmxe) == "#GP"
    assert outcome(Bench(vmx=False), set_vmxe) is None
    clear = "mov eax, cr4\nand eax, ~0x2000\nmov cr4, eax"
    bench = Bench()
    assert outcome(bench, clear) == "#GP"
    for bit in (0, 5, 31):  # PE, NE, PG
        assert outcome(bench, f"mov eax, cr0\nbtr eax, {bit}\nmov cr0, eax") == "#GP"
    assert outcome(bench, "vmxoff\n" + clear) is None


@pytest.mark.parametrize("cpu", ["westmere", "nehalem", "prescott"])
def test_vmcs_enum_has_the_highest_index_of_the_model(cpu: str) -> None:
    """SDM Vol. 3, appendix "VMX Capability Reporting Facility", "VMCS Enumeration": of what VMREAD takes."""
    bench = Bench(cpu)
    bench.run("""
        xor ebx, ebx
        xor esi, esi
    next:
        vmread eax, ebx
        jbe absent
        mov eax, ebx
        and eax, 0x3fe
        cmp eax, esi
        jbe absent
        mov esi, eax
    absent:
        inc ebx
        cmp ebx, 0x8000
        jb next
        mov ecx, IA32_VMX_VMCS_ENUM
        rdmsr""", limit=1_000_000)
    assert bench.cpu.eax == bench.cpu.esi == {"prescott": 0x2A}.get(cpu, 0x2E) and bench.cpu.edx == 0


@pytest.mark.parametrize(("control", "expected"), [(0, "#GP"), (1, "#GP"), (4, "#GP"), (5, None)])
def test_vmxon_needs_feature_control(control: int, expected: str | None) -> None:
    bench = Bench(vmx=False)
    bench.cpu.cr4 = 0x2010
    pointer(bench, VMXON)
    bench.cpu.memory.write(VMXON, (0xF).to_bytes(4, "little"))
    lock = f"mov ecx, {MSR['IA32_FEATURE_CONTROL']}\nmov eax, {control}\nxor edx, edx\nwrmsr\n"
    assert outcome(bench, lock + f"vmxon [{POINTER}]") == expected
    again = outcome(bench, f"mov ecx, {MSR['IA32_FEATURE_CONTROL']}\nmov eax, 5\nxor edx, edx\nwrmsr")
    assert again == ("#GP" if control & 1 else None)


@pytest.mark.parametrize(("address", "revision"), [(VMXON + 4, 0xF), (1 << 40, 0xF), (VMXON, 0xE), (0xFEE00000, 0)])
def test_vmxon_of_a_bad_region_is_vmfail_invalid(address: int, revision: int) -> None:
    bench = Bench()
    bench.run("vmxoff")
    bench.cpu.memory.write(VMXON, revision.to_bytes(4, "little"))
    pointer(bench, address)
    assert outcome(bench, f"vmxon [{POINTER}]") == "invalid"
    assert bench.cpu.vmx_operation == "off"


def test_the_a20m_pin_is_blocked_in_vmx_operation() -> None:
    """SDM Vol. 3, "Restrictions on VMX Operation": VMXON faults in A20M mode, which nothing enters after it."""
    bench = Bench()
    pointer(bench, VMXON)
    bench.cpu.bus.a20 = False
    assert bench.cpu.bus.a20
    bench.run("mov dword [0x9000], 1\nmov dword [0x109000], 2")
    assert bench.cpu.memory.read(0x9000, 1) == b"\x01"
    assert outcome(bench, "vmxoff") is None and not bench.cpu.bus.a20
    assert outcome(bench, f"vmxon [{POINTER}]") == "#GP"
    bench.run("mov dword [0x109000], 2")
    assert bench.cpu.memory.read(0x9000, 1) == b"\x02"


def test_vmxon_in_real_address_mode_is_undefined_and_without_privilege_a_fault() -> None:
    cpu = emu.Cpu(bits=16, cpu="westmere", faults="raise")
    cpu.cr4 = 0x2000
    cpu.load(0x1000, b"\xf3\x0f\xc7\x36\x00\x20")
    with pytest.raises(emu.CpuFault) as raised:
        cpu.step()
    assert raised.value.name == "#UD"


CASES = [
    ("vmxon [0xb000]", VMXON, "VMXON_IN_VMX_ROOT"),
    ("vmclear [0xb000]", REGION + 8, "VMCLEAR_INVALID_ADDRESS"),
    ("vmclear [0xb000]", 1 << 40, "VMCLEAR_INVALID_ADDRESS"),
    ("vmclear [0xb000]", VMXON, "VMCLEAR_VMXON_POINTER"),
    ("vmclear [0xb000]", REGION2, None),
    ("vmptrld [0xb000]", REGION + 8, "VMPTRLD_INVALID_ADDRESS"),
    ("vmptrld [0xb000]", 1 << 40, "VMPTRLD_INVALID_ADDRESS"),
    ("vmptrld [0xb000]", VMXON, "VMPTRLD_VMXON_POINTER"),
    ("vmptrld [0xb000]", 0x10000, "VMPTRLD_INCORRECT_REVISION"),
    ("vmptrld [0xb000]", 0xFEE00000, "VMPTRLD_INCORRECT_REVISION"),
    ("vmcall", 0, "VMCALL_IN_VMX_ROOT"),
    ("vmresume", 0, "VMRESUME_NONLAUNCHED_VMCS"),
    ("mov eax, 0x7777\nvmread ebx, eax", 0, "UNSUPPORTED_VMCS_COMPONENT"),
    ("mov eax, 0x10000\nvmread ebx, eax", 0, "UNSUPPORTED_VMCS_COMPONENT"),
    ("mov eax, 0x801\nvmread ebx, eax", 0, "UNSUPPORTED_VMCS_COMPONENT"),
    ("mov eax, 0x2018\nvmwrite eax, ebx", 0, "UNSUPPORTED_VMCS_COMPONENT"),
    ("mov eax, EXIT_REASON\nvmwrite eax, ebx", 0, "VMWRITE_READ_ONLY_COMPONENT"),
    ("mov eax, 0\ninvept eax, [0xb000]", 0, "INVALID_OPERAND_TO_INVEPT_INVVPID"),
    ("mov eax, 3\ninvept eax, [0xb000]", 0, "INVALID_OPERAND_TO_INVEPT_INVVPID"),
    ("mov eax, 1\ninvept eax, [0xb000]", 0, "INVALID_OPERAND_TO_INVEPT_INVVPID"),
    ("mov eax, 1\ninvept eax, [0xb000]", 0x6001E, None),
    ("mov eax, 2\ninvept eax, [0xb000]", 0, None),
    ("mov eax, 4\ninvvpid eax, [0xb000]", 1, "INVALID_OPERAND_TO_INVEPT_INVVPID"),
    ("mov eax, 0\ninvvpid eax, [0xb000]", 0, "INVALID_OPERAND_TO_INVEPT_INVVPID"),
    ("mov eax, 1\ninvvpid eax, [0xb000]", 0x10001, "INVALID_OPERAND_TO_INVEPT_INVVPID"),
    ("mov eax, 0\ninvvpid eax, [0xb000]", 1, None),
    ("mov eax, 1\ninvvpid eax, [0xb000]", 1, None),
    ("mov eax, 2\ninvvpid eax, [0xb000]", 0, None),
    ("mov eax, 3\ninvvpid eax, [0xb000]", 1, None),
]


@pytest.mark.parametrize(("text", "operand", "expected"), CASES)
def test_errors(text: str, operand: int, expected: str | None) -> None:
    """VMfailValid with the error's number; without a current VMCS VMfailInvalid, which has none."""
    bench = Bench()
    pointer(bench, operand)
    assert outcome(bench, text) == expected
    if expected:
        assert bench["VM_INSTRUCTION_ERROR"] == ERRORS[expected]
        bench = Bench()
        pointer(bench, REGION)
        bench.run(f"vmclear [{POINTER}]")
        pointer(bench, operand)
        assert outcome(bench, text) == "invalid"


def test_vmlaunch_and_vmresume_heed_the_launch_state() -> None:
    bench = Bench()
    assert bench.exit("vmcall\nvmcall") == "VMCALL"
    bench.enter()
    assert bench.failed == "VMLAUNCH_NONCLEAR_VMCS"
    bench.set({"GUEST_RIP": bench["GUEST_RIP"] + 3})
    bench.enter(resume=True)
    assert bench.reason == "VMCALL"
    pointer(bench, REGION)
    bench.run(f"vmclear [{POINTER}]\nvmptrld [{POINTER}]")
    bench.enter(resume=True)
    assert bench.failed == "VMRESUME_NONLAUNCHED_VMCS"


def test_vmlaunch_after_mov_ss_is_refused() -> None:
    """Error 26: events are blocked by MOV SS."""
    bench = Bench()
    bench.guest("vmcall")
    bench.prepare()
    bench.run("mov eax, ss\nmov ss, eax\nvmlaunch")
    assert bench.failed == "ENTRY_EVENTS_BLOCKED_BY_MOV_SS"


def test_vmptrst_gives_the_current_vmcs() -> None:
    bench = Bench()
    bench.run(f"vmptrst [{POINTER}]")
    assert int.from_bytes(bench.cpu.memory.read(POINTER, 8), "little") == REGION
    pointer(bench, REGION)
    bench.run(f"vmclear [{POINTER}]\nvmptrst [{POINTER}]")
    assert bench.cpu.memory.read(POINTER, 8) == b"\xff" * 8
    with pytest.raises(emu.EmuError, match="no VMCS is current"):
        bench.cpu.vmcs["GUEST_RIP"]


@pytest.mark.parametrize("bits", [32, 64])
def test_every_field_keeps_what_it_can_hold(bits: int) -> None:
    """SDM Vol. 3, "VMREAD", "VMWRITE": a narrower operand clears the rest of the field."""
    bench = Bench(bits=bits)
    register = "rax" if bits == 64 else "eax"
    for name, field in FIELDS.items():
        pattern = 0x123456789ABCDEF0
        text = f"mov {register}, {pattern & ((1 << bits) - 1):#x}\nmov edx, {name}\nvmwrite {register[0]}dx, {register}"
        bench.run(text)
        if bench.failed:
            expected = "VMWRITE_READ_ONLY_COMPONENT" if field.read_only else "UNSUPPORTED_VMCS_COMPONENT"
            assert bench.failed == expected, name
            continue
        width = min(field.width or bits, bits)
        assert bench[name] == pattern & ((1 << width) - 1), name
        bench.run(f"mov edx, {name}\nvmread {register[0]}bx, {register[0]}dx")
        assert bench.cpu.rbx == bench[name]
        if field.width == 64:
            bench.run(f"mov {register}, 0x55667788\nmov edx, {name}_HIGH\nvmwrite {register[0]}dx, {register}")
            assert bench[name] >> 32 == 0x55667788 and bench[name] & 0xFFFFFFFF == 0x9ABCDEF0, name
            bench.run(f"mov edx, {name}_HIGH\nvmread {register[0]}bx, {register[0]}dx")
            assert bench.cpu.rbx == 0x55667788


def test_a_vmcs_goes_back_to_memory_and_comes_again() -> None:
    bench = Bench()
    bench.set({"GUEST_RIP": 0x1111, "TSC_OFFSET": 0x123456789A})
    pointer(bench, REGION2)
    bench.run(f"vmptrld [{POINTER}]")
    bench.set({"GUEST_RIP": 0x2222, "TSC_OFFSET": 1})
    pointer(bench, REGION)
    bench.run(f"vmptrld [{POINTER}]")
    assert (bench["GUEST_RIP"], bench["TSC_OFFSET"]) == (0x1111, 0x123456789A)
    bench.run(f"vmclear [{POINTER}]")
    pointer(bench, REGION2)
    bench.run(f"vmptrld [{POINTER}]")
    assert (bench["GUEST_RIP"], bench["TSC_OFFSET"]) == (0x2222, 1)


def test_capability_msrs_agree_with_what_entry_takes() -> None:
    """SDM Vol. 3, appendix "VMX Capability Reporting Facility": low half must be 1, high half may be 1."""
    bench = Bench()

    def msr(name: str) -> int:
        bench.run(f"mov ecx, {name}\nrdmsr")
        assert bench.vector is None, name
        return bench.cpu.edx << 32 | bench.cpu.eax

    for word in ("PINBASED", "PROCBASED", "EXIT", "ENTRY"):
        plain, true = msr(f"IA32_VMX_{word}_CTLS"), msr(f"IA32_VMX_TRUE_{word}_CTLS")
        assert plain >> 32 == true >> 32 and not (plain & 0xFFFFFFFF) & ~(plain >> 32)
        assert not (true & 0xFFFFFFFF) & ~(plain & 0xFFFFFFFF)
    assert msr("IA32_VMX_BASIC") & 0x7FFFFFFF == bench.revision and msr("IA32_VMX_BASIC") >> 50 & 15 == 6
    assert (msr("IA32_VMX_CR0_FIXED0"), msr("IA32_VMX_CR4_FIXED0")) == (0x80000021, 0x2000)
    assert msr("IA32_VMX_EPT_VPID_CAP") & 0x6334141 == 0x6134141 & 0x6334141
    for name in ("IA32_VMX_BASIC", "IA32_VMX_MISC", "IA32_VMX_TRUE_ENTRY_CTLS"):
        bench.run(f"mov ecx, {name}\nwrmsr")
        assert bench.vector == GP


def test_nehalem_has_no_unrestricted_guest_and_pentium3_no_vmx() -> None:
    bench = Bench("nehalem")
    bench.guest("vmcall")
    bench.prepare(secondary("ENABLE_EPT", "UNRESTRICTED_GUEST"))
    bench.enter()
    assert bench.failed == "ENTRY_INVALID_CONTROL_FIELDS"
    bench.prepare(primary("HLT_EXITING"), {"SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS": 0})
    bench.enter()
    assert bench.reason == "VMCALL"


def test_prescott_has_the_vt_x_of_2005() -> None:
    """No secondary controls, no EPT, VPID, preemption timer, virtual NMIs; INVEPT and INVVPID are undefined."""
    bench = Bench("prescott")
    default1 = {
        "PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS": 0x401E1F2,
        "+VM_EXIT_CONTROLS": 4,
        "+VM_ENTRY_CONTROLS": 4,
    }
    assert bench.exit("vmcall", default1) == "VMCALL"
    for name in ("IA32_VMX_PROCBASED_CTLS2", "IA32_VMX_EPT_VPID_CAP", "IA32_VMX_TRUE_PINBASED_CTLS"):
        bench.run(f"mov ecx, {name}\nrdmsr")
        assert bench.vector == GP, name
    for text in ("invept eax, [0xb000]", "invvpid eax, [0xb000]"):
        bench.run(text)
        assert bench.vector == UD
    for field in ("EPT_POINTER", "VIRTUAL_PROCESSOR_IDENTIFIER", "VMX_PREEMPTION_TIMER_VALUE", "GUEST_PDPTE0"):
        bench.run(f"mov eax, {field}\nvmread ebx, eax")
        assert bench.failed == "UNSUPPORTED_VMCS_COMPONENT"
    assert bench.cpu.exits["VMCALL"].count == 1
