"""VMX instructions with every operand and in every mode: the SDM's answer each time.

SDM Vol. 3, "VMX Instruction Reference": the order of its checks is #UD, VM exit, #GP, VMfail.
"""

import random
import struct
from collections.abc import Mapping

import pytest
from vmm import BITS, ERRORS, FIELDS, GUEST, GUEST_TABLES, HOST_TABLES, MEMORY, MSR, REGION, Bench, real_mode, secondary

TABLE = 0x100000  # where the loops over encodings leave an outcome for each
OPERAND = 0xB000
UNSUPPORTED, READ_ONLY, INVALID_OPERAND = (
    ERRORS[name]
    for name in ("UNSUPPORTED_VMCS_COMPONENT", "VMWRITE_READ_ONLY_COMPONENT", "INVALID_OPERAND_TO_INVEPT_INVVPID")
)
UD, GP, PF = 6, 13, 14
FAULTED = 0x80000300  # interruption information of an exception
PHYSICAL = 1 << 40
USER = b"\x87"  # low byte of a page-directory entry for 4 MiB


def outcomes(bench: Bench, text: str, first: int, count: int) -> list[int]:
    """Runs an instruction for each encoding: 0 for VMsucceed, else the VM-instruction error, FFh for VMfailInvalid."""
    wide = "r" if bench.bits == 64 else "e"
    bench.run(
        f"""
            mov {wide}si, {first:#x}
            mov {wide}di, {TABLE}
            mov {wide}bp, {count}
        again:
            mov {wide}dx, {wide}si
            {text}
            mov cl, 0xff
            jc done
            mov cl, 0
            jnz done
            mov {wide}dx, VM_INSTRUCTION_ERROR
            vmread {wide}cx, {wide}dx
        done:
            mov [{wide}di], cl
            inc {wide}di
            inc {wide}si
            dec {wide}bp
            jnz again""",
        limit=20 * count,
    )
    assert bench.vector is None
    return list(bench.cpu.memory.read(TABLE, count))


WORDS = {"PIN": "PINBASED_CTLS", "PROC": "PROCBASED_CTLS", "PROC2": "PROCBASED_CTLS2", "EXIT": "EXIT_CTLS",
         "ENTRY": "ENTRY_CTLS"}  # fmt: skip


def may_be_1(bench: Bench, control: str) -> bool:
    """Does the capability MSR of its word allow a control?"""
    bench.run(f"mov ecx, IA32_VMX_{WORDS[control.partition('_')[0]]}\nrdmsr")
    return bool(bench.cpu.edx & BITS[control])


@pytest.mark.parametrize("bits", [32, 64])
def test_every_encoding(bits: int) -> None:
    """VMREAD and VMWRITE of all numbers of 16 bits, and of some that are wider."""
    bench = Bench(bits=bits)
    wide = "r" if bits == 64 else "e"
    has: dict[int, bool] = {}  # encoding, and whether it is read-only
    for field in FIELDS.values():
        if field.needs == "ALWAYS" or may_be_1(bench, field.needs):
            has[field.encoding] = field.read_only
            if field.width == 64:
                has[field.encoding + 1] = field.read_only
    read, write = f"vmread {wide}bx, {wide}dx", f"vmread {wide}bx, {wide}dx\nvmwrite {wide}dx, {wide}bx"
    starts = [0, 0x10000, 0x80000000, 0xFFFF8000, *((1 << 32, 1 << 63) if bits == 64 else ())]
    for start in starts:
        count = 0x10000 if start == 0 else 0x8000
        expected = [0 if start + number in has else UNSUPPORTED for number in range(count)]
        assert outcomes(bench, read, start, count) == expected
        expected = [READ_ONLY if has.get(start + number) else error for number, error in enumerate(expected)]
        assert outcomes(bench, write, start, count) == expected
    bench.cpu.memory.write(OPERAND, REGION.to_bytes(8, "little"))
    bench.run(f"vmclear [{OPERAND}]")
    assert outcomes(bench, read, 0, 0x100) == outcomes(bench, f"vmwrite {wide}dx, {wide}bx", 0, 0x100) == [0xFF] * 0x100


TYPES = [0, 1, 2, 3, 4, 5, 0x80000000, 0xFFFFFFFF]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("instruction", ["invept", "invvpid"])
def test_invept_and_invvpid_with_anything(instruction: str, bits: int) -> None:
    bench = Bench(bits=bits)
    wide = "r" if bits == 64 else "e"
    bench.run(f"mov ecx, {MSR['IA32_VMX_EPT_VPID_CAP']}\nrdmsr")
    capabilities = bench.cpu.edx << 32 | bench.cpu.eax
    chance = random.Random(f"{instruction} {bits}")
    for number in range(400):
        kind = chance.choice(TYPES) if number % 4 else chance.randrange(4)
        low = chance.choice((0, 1, 0xFFFF, 0x10000, 0x6001E, 0x60018, 0x6001C, 0x6005E, 0x60016, 1 << 40 | 0x1E,
                             chance.getrandbits(64)))  # fmt: skip
        high = chance.choice((0, 0, 0, 0xFFFFFFFF, 1 << 47, 1 << 63, 0xFFFF8000_00000000, chance.getrandbits(64)))
        bench.cpu.memory.write(OPERAND, struct.pack("<QQ", low, high))
        bench.run(f"mov {wide}ax, {kind:#x}\n{instruction} {wide}ax, [{OPERAND}]")
        if instruction == "invept":
            pointer = low & 7 in (0, 6) and low >> 3 & 7 == 3 and not low & 0xFC0 and low < PHYSICAL
            valid = kind in (1, 2) and capabilities >> (24 + kind) & 1 and not high and (kind == 2 or pointer)
        else:
            canonical = high >> 47 in (0, 0x1FFFF)
            valid = kind <= 3 and capabilities >> (40 + kind) & 1 and not low >> 16
            valid = valid and (kind == 2 or low != 0) and (kind != 0 or canonical)
        assert bench.vector is None
        assert bench.failed == (None if valid else "INVALID_OPERAND_TO_INVEPT_INVVPID"), (kind, hex(low), hex(high))


ALL = {
    "vmxon [0xb000]": "VMXON", "vmxoff": "VMXOFF", "vmclear [0xb000]": "VMCLEAR", "vmptrld [0xb000]": "VMPTRLD",
    "vmptrst [0xb000]": "VMPTRST", "vmread eax, ebx": "VMREAD", "vmwrite eax, ebx": "VMWRITE", "vmlaunch": "VMLAUNCH",
    "vmresume": "VMRESUME", "vmcall": "VMCALL", "invept eax, [0xb000]": "INVEPT", "invvpid eax, [0xb000]": "INVVPID",
}  # fmt: skip
CATCH: Mapping[str, int] = {"EXCEPTION_BITMAP": 0xFFFFFFFF}


def v86() -> dict[str, int]:
    """Changes for a guest in virtual-8086 mode at GUEST."""
    fields: dict[str, int] = {"GUEST_RFLAGS": 0x20002, "GUEST_RIP": 0, "GUEST_RSP": 0xFFF0}
    for name in ("ES", "CS", "SS", "DS", "FS", "GS"):
        base = GUEST if name == "CS" else 0
        fields |= {f"GUEST_{name}_SELECTOR": base >> 4, f"GUEST_{name}_BASE": base, f"GUEST_{name}_LIMIT": 0xFFFF}
        fields[f"GUEST_{name}_ACCESS_RIGHTS"] = 0xF3
    return fields


def outside_ring_0() -> dict[str, int]:
    """Changes for a guest at privilege level 3."""
    fields = {"GUEST_CS_SELECTOR": 0x0B, "GUEST_CS_ACCESS_RIGHTS": 0xC0FB, "GUEST_SS_SELECTOR": 0x13}
    return fields | {"GUEST_SS_ACCESS_RIGHTS": 0xC0F3}


@pytest.mark.parametrize("text", ALL)
def test_in_a_guest_of_each_mode(text: str) -> None:
    """#UD in real-address and virtual-8086 mode, but for VMCALL, which exits; else a VM exit whatever the CPL."""
    for mode in (real_mode(), v86()):
        bench = Bench()
        bench.cpu.memory.write(GUEST_TABLES, USER)
        reason = bench.exit(text, mode, CATCH, bits=16)
        if text == "vmcall":
            assert reason == "VMCALL"
        else:
            assert reason == "EXCEPTION_OR_NMI" and bench["VM_EXIT_INTERRUPTION_INFORMATION"] == FAULTED | UD
    for changes in ({}, outside_ring_0()):
        bench = Bench()
        bench.cpu.memory.write(GUEST_TABLES, USER)
        assert bench.exit(text, changes, CATCH) == ALL[text]


@pytest.mark.parametrize("text", ALL)
def test_in_a_guest_in_compatibility_mode(text: str) -> None:
    """#UD too, but for VMCALL."""
    bench = Bench(bits=64)
    reason = bench.exit(text, {"GUEST_CS_ACCESS_RIGHTS": 0xC09B, "GUEST_CS_SELECTOR": 8}, CATCH, bits=32)
    if text == "vmcall":
        assert reason == "VMCALL"
    else:
        assert reason == "EXCEPTION_OR_NMI" and bench["VM_EXIT_INTERRUPTION_INFORMATION"] == FAULTED | UD


@pytest.mark.parametrize("text", ALL)
def test_in_root_operation_without_privilege(text: str) -> None:
    """#GP(0) at CPL 3; #UD in virtual-8086 and in compatibility mode."""
    if text == "vmresume":
        text = "nop\nvmresume"
    bench = Bench()
    cpu = bench.cpu
    for segment, access in ((cpu.cs, 0xC0FB), (cpu.ss, 0xC0F3), (cpu.ds, 0xC0F3)):
        segment.access, segment.selector = access, segment.selector | 3
    cpu.cpl = 3
    cpu.memory.write(HOST_TABLES, USER)
    cpu.memory.write(0x5004, struct.pack("<II", 0x30000, 0x10))
    bench.run(text)
    assert bench.vector == GP
    bench = Bench(bits=64)
    bench.cpu.cs.access = 0xC09B
    bench.bits = 32
    bench.run(text)
    assert bench.vector == UD


def test_operands_that_cannot_be_read_or_written() -> None:
    """#PF of a page that is not there, #GP beyond a limit; neither VMsucceed nor VMfail is told."""
    for text in ("vmclear [0x400000]", "vmptrld [0x400000]", "vmptrst [0x400000]", "vmptrld [0x3ffffc]",
                 "mov edx, GUEST_RIP\nvmread [0x400000], edx", "mov edx, GUEST_RIP\nvmwrite edx, [0x400000]",
                 "mov eax, 2\ninvept eax, [0x3ffff8]", "mov eax, 2\ninvvpid eax, [0x400000]"):  # fmt: skip
        bench = Bench()
        bench.run(text)
        assert bench.vector == PF and bench.cpu.cr2 == 0x400000, text
        assert bench.cpu.vmcs.address == REGION
        bench = Bench()
        bench.cpu.ds.limit = 0xBFFF
        bench.run(text)
        assert bench.vector == GP, text
    # VMREAD and VMWRITE of no field fail before they touch memory.
    bench = Bench()
    bench.run("mov edx, 0x7777\nvmread [0x400000], edx")
    assert bench.failed == "UNSUPPORTED_VMCS_COMPONENT"


AREAS = ("VM_ENTRY_MSR_LOAD", "VM_EXIT_MSR_LOAD", "VM_EXIT_MSR_STORE")


@pytest.mark.parametrize("area", AREAS)
def test_msr_areas_at_the_ends(area: str) -> None:
    """At the end of memory the entries read as ones; past the physical-address width the area is refused."""
    for address, count, refused in (
        (MEMORY - 16, 2, False), ((1 << 40) - 16, 1, False), ((1 << 40) - 16, 2, True), (1 << 40, 1, True),
        (MEMORY - 8, 1, True), ((1 << 64) - 16, 2, True), (0, 0xFFFFFFFF, False),
    ):  # fmt: skip
        bench = Bench()
        bench.cpu.memory.write(MEMORY - 16, struct.pack("<QQ", MSR["IA32_SYSENTER_CS"], 5))
        bench.guest("vmcall")
        bench.prepare({f"{area}_ADDRESS": address, f"{area}_COUNT": count})
        stop = bench.enter()
        if refused:
            assert bench.failed == "ENTRY_INVALID_CONTROL_FIELDS"
            failure = bench.cpu.vmx_failure
            assert failure is not None and (failure.field, failure.value) == (f"{area}_ADDRESS", address)
        elif area == "VM_ENTRY_MSR_LOAD":
            assert bench.reason == "failed VM_ENTRY_FAILURE_DUE_TO_MSR_LOADING"
            assert bench["EXIT_QUALIFICATION"] == count if count < 3 else 1 <= bench["EXIT_QUALIFICATION"] <= 513
        else:
            assert stop.reason == "triple_fault"
            indicator = int.from_bytes(bench.cpu.memory.read(REGION + 4, 4), "little")
            assert indicator == (4 if "LOAD" in area else 1)


@pytest.mark.parametrize(
    "bitmaps",
    [
        {"ADDRESS_OF_MSR_BITMAPS": 0xFF_FFFF_F000, "+PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS": 1 << 28},
        {"ADDRESS_OF_IO_BITMAP_A": 0xFF_FFFF_F000, "+PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS": 1 << 25},
    ],
)
def test_bitmaps_where_nothing_is_read_as_ones(bitmaps: Mapping[str, int]) -> None:
    bench = Bench()
    text = "mov ecx, 0x174\nrdmsr" if "ADDRESS_OF_MSR_BITMAPS" in bitmaps else "in al, 0x80"
    assert bench.exit(text, bitmaps, secondary("ENABLE_EPT")) in ("RDMSR", "IO_INSTRUCTION")
