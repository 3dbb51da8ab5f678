"""A bench for VT-x: a VMM and a guest as small pieces of assembly on a bare processor.

The VMM runs in 32-bit protected mode with paging (64-bit code with `bits=64`), puts a valid VMCS together, changes what
a test asks for and launches; a VM exit ends the run, and the test looks at the VMCS.

Memory map, in bytes from 0:
    1000 VMXON region   2000 VMCS   3000 VMCS 2   4000 GDT   4800 IDT of the host   5000 TSS   6000 MSR bitmaps
    7000, 8000 I/O bitmaps   9000 virtual-APIC page   A000 MSR areas   C000 a HLT for each vector of the host
    10000 VMM   20000 guest   28000 its IDT   2A000 a HLT for each of its vectors
    30000, 34000 tops of the stacks of host and guest   40000 host page tables   50000 guest page tables   60000 EPT
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import asm
import emu
from emu import definitions

MEMORY = 0x200000
VMXON, REGION, REGION2 = 0x1000, 0x2000, 0x3000
GDT, IDT, TSS, MSR_BITMAPS, IO_BITMAP_A, IO_BITMAP_B = 0x4000, 0x4800, 0x5000, 0x6000, 0x7000, 0x8000
VIRTUAL_APIC, MSR_AREA, HANDLERS = 0x9000, 0xA000, 0xC000
VMM, GUEST, GUEST_IDT, GUEST_HANDLERS = 0x10000, 0x20000, 0x28000, 0x2A000
HOST_STACK, GUEST_STACK = 0x30000, 0x34000
HOST_TABLES, GUEST_TABLES, EPT = 0x40000, 0x50000, 0x60000
CODE32, DATA, CODE64, TASK = 0x08, 0x10, 0x18, 0x20

FIELDS = {field.name: field for field in definitions.fields()}
BITS = {control.name: 1 << control.bit for control in definitions.controls()}
REASONS = {name: number for number, name in definitions.reasons().items()}
ERRORS = {name: number for number, name in definitions.errors().items()}
MSR = definitions.msrs()
FAILED_ENTRY = 1 << 31

CODE_ACCESS, DATA_ACCESS, TSS_ACCESS, UNUSABLE = 0xC09B, 0xC093, 0x8B, 0x10000
REAL_CODE, REAL_DATA = 0x9B, 0x93
PIN, PROC, EXIT, ENTRY = 0x16, 0x0401E172 & ~0x18000, 0x36DFF & ~4, 0x11FF & ~4


def descriptor(base: int, limit: int, access: int) -> int:
    """A segment descriptor; access as in a VMCS access-rights field."""
    return (
        (limit & 0xFFFF)
        | (base & 0xFFFFFF) << 16
        | (access & 0xF0FF) << 40
        | (limit >> 16 & 15) << 48
        | (base >> 24) << 56
    )


@functools.cache
def assemble(text: str, bits: int, origin: int) -> bytes:
    return bytes(asm.assemble(f"org {origin:#x}\n{definitions.assembler_include()}\n{text}", bits=bits).binary)


def flat_tables(bits: int, base: int) -> dict[int, bytes]:
    """Page tables that map the first 4 MiB (1 GiB with 64 bits) to itself."""
    if bits == 32:
        return {base: (0x83).to_bytes(4, "little")}
    pml4, pdpt = base, base + 0x1000
    return {pml4: (pdpt | 3).to_bytes(8, "little"), pdpt: (0x83).to_bytes(8, "little")}


def ept_tables(base: int = EPT, leaf: int = 0x37, large: bool = True) -> dict[int, bytes]:
    """EPT structures that map the first 2 MiB to itself by one page of 2 MiB (or 512 of 4 KiB); the leaf's low bits."""
    levels = {base: (base + 0x1000) | 7, base + 0x1000: (base + 0x2000) | 7}
    if large:
        levels[base + 0x2000] = leaf | 0x80
    else:
        levels[base + 0x2000] = (base + 0x3000) | 7
        for page in range(512):
            levels[base + 0x3000 + 8 * page] = page << 12 | leaf
    return {place: entry.to_bytes(8, "little") for place, entry in levels.items()}


def default_fields(bits: int = 32) -> dict[str, int]:
    """A VMCS that passes every check: the guest is flat 32-bit (64-bit) code at GUEST with paging."""
    wide = bits == 64
    fields = {
        "PIN_BASED_VM_EXECUTION_CONTROLS": PIN,
        "PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS": PROC,
        "VM_EXIT_CONTROLS": EXIT | (BITS["EXIT_HOST_ADDRESS_SPACE_SIZE"] if wide else 0),
        "VM_ENTRY_CONTROLS": ENTRY | (BITS["ENTRY_IA32E_MODE_GUEST"] if wide else 0),
        "VMCS_LINK_POINTER": 0xFFFFFFFFFFFFFFFF,
        "HOST_CR0": 0x80000031,
        "HOST_CR3": HOST_TABLES,
        "HOST_CR4": 0x2020 if wide else 0x2010,
        "HOST_CS_SELECTOR": CODE64 if wide else CODE32,
        "HOST_TR_SELECTOR": TASK,
        "HOST_TR_BASE": TSS,
        "HOST_GDTR_BASE": GDT,
        "HOST_IDTR_BASE": IDT,
        "HOST_RSP": HOST_STACK,
        "GUEST_CR0": 0x80000031,
        "GUEST_CR3": GUEST_TABLES,
        "GUEST_CR4": 0x2020 if wide else 0x2010,
        "GUEST_DR7": 0x400,
        "GUEST_RSP": GUEST_STACK,
        "GUEST_RIP": GUEST,
        "GUEST_RFLAGS": 2,
        "GUEST_GDTR_BASE": GDT,
        "GUEST_GDTR_LIMIT": 0x7F,
        "GUEST_IDTR_BASE": GUEST_IDT,
        "GUEST_IDTR_LIMIT": 0xFFF if wide else 0x7FF,
    }
    for name in ("ES", "CS", "SS", "DS", "FS", "GS"):
        fields[f"GUEST_{name}_SELECTOR"] = (CODE64 if wide else CODE32) if name == "CS" else DATA
        fields[f"GUEST_{name}_LIMIT"] = 0xFFFFFFFF
        fields[f"GUEST_{name}_ACCESS_RIGHTS"] = (0xA09B if wide else CODE_ACCESS) if name == "CS" else DATA_ACCESS
        if name != "CS":
            fields[f"HOST_{name}_SELECTOR"] = DATA
    fields |= {"GUEST_LDTR_ACCESS_RIGHTS": UNUSABLE, "GUEST_TR_SELECTOR": TASK, "GUEST_TR_BASE": TSS}
    return fields | {"GUEST_TR_LIMIT": 0x67, "GUEST_TR_ACCESS_RIGHTS": TSS_ACCESS}


def real_mode() -> dict[str, int]:
    """Changes for an unrestricted guest in real-address mode at GUEST, with EPT."""
    fields: dict[str, int] = {"GUEST_CR0": 0x30, "GUEST_CR4": 0x2000, "GUEST_RSP": 0xFFF0, "GUEST_IDTR_BASE": 0}
    for name in ("ES", "CS", "SS", "DS", "FS", "GS"):
        base = GUEST if name == "CS" else 0
        fields |= {f"GUEST_{name}_SELECTOR": base >> 4, f"GUEST_{name}_BASE": base, f"GUEST_{name}_LIMIT": 0xFFFF}
        fields[f"GUEST_{name}_ACCESS_RIGHTS"] = REAL_CODE if name == "CS" else REAL_DATA
    return fields | {"GUEST_RIP": 0, "GUEST_IDTR_LIMIT": 0x3FF} | secondary("ENABLE_EPT", "UNRESTRICTED_GUEST")


def secondary(*names: str) -> dict[str, int]:
    """Changes that set secondary controls, with an EPT pointer and a VPID for those that need one."""
    value = sum(BITS[f"PROC2_{name}"] for name in names)
    changes = {"+PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS": 1 << 31}
    changes["+SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS"] = value
    if "ENABLE_EPT" in names:
        changes["EPT_POINTER"] = EPT | 0x1E
    if "ENABLE_VPID" in names:
        changes["VIRTUAL_PROCESSOR_IDENTIFIER"] = 1
    return changes


def pin(*names: str) -> dict[str, int]:
    return {"+PIN_BASED_VM_EXECUTION_CONTROLS": sum(BITS[f"PIN_{name}"] for name in names)}


def primary(*names: str) -> dict[str, int]:
    return {"+PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS": sum(BITS[f"PROC_{name}"] for name in names)}


class Bench:
    """A processor in VMX operation with a current VMCS; the VMM's code is assembly with these macros:

    vmset FIELD, value   VMWRITE      vmget REG, FIELD   VMREAD
    """

    def __init__(self, cpu: str = "westmere", bits: int = 32, timing: str = "static", vmx: bool = True) -> None:
        self.bits = bits
        self.cpu = emu.Cpu(bits=32 if bits == 32 else 64, memory=MEMORY, cpu=cpu, timing=timing, faults="deliver")
        write = self.cpu.memory.write
        tables = [
            0,
            descriptor(0, 0xFFFFF, CODE_ACCESS),
            descriptor(0, 0xFFFFF, DATA_ACCESS),
            descriptor(0, 0xFFFFF, 0xA09B),
        ]
        tables += [descriptor(TSS, 0x67, TSS_ACCESS), 0]
        write(TSS + 102, b"\x68")  # no I/O permission bit map
        write(GDT, b"".join(entry.to_bytes(8, "little") for entry in tables))
        for vector in range(32):  # of the host and of the guest: each exception ends at its own HLT
            for idt, handlers in ((IDT, HANDLERS), (GUEST_IDT, GUEST_HANDLERS)):
                address = handlers + vector
                selector = CODE32 if bits == 32 else CODE64
                entry = (address & 0xFFFF) | selector << 16 | 0x8E << 40 | (address >> 16) << 48
                write(idt + vector * (8 if bits == 32 else 16), entry.to_bytes(8 if bits == 32 else 16, "little"))
                write(address, b"\xf4")
        for base in (HOST_TABLES, GUEST_TABLES):
            for place, content in flat_tables(bits, base).items():
                write(place, content)
        for place, content in ept_tables().items():
            write(place, content)
        c = self.cpu
        c.gdtr.base, c.gdtr.limit, c.idtr.base, c.idtr.limit = GDT, 0x2F, IDT, 0xFFF
        c.cs.selector, c.ss.selector = (CODE32 if bits == 32 else CODE64), DATA
        c.tr.selector, c.tr.base, c.tr.limit, c.tr.access = TASK, TSS, 0x67, TSS_ACCESS
        c.cr3 = HOST_TABLES
        c.cr4 = (0x10 if bits == 32 else 0x20) | (0x2000 if vmx else 0)
        c.cr0 = 0x80000031
        c.esp = HOST_STACK
        self.revision = 0
        if vmx:
            self.start()

    def run(self, text: str, limit: int = 100_000) -> emu.Stop:
        """Runs code of the VMM up to its HLT."""
        code = assemble(MACROS + text + "\nhlt", self.bits, VMM)
        self.cpu.load(VMM, code)
        return self.cpu.run(instructions=limit)

    def start(self) -> None:
        """IA32_FEATURE_CONTROL locked with VMX on, VMXON, a VMCS that is clear and current."""
        stop = self.run(f"""
            mov ecx, IA32_FEATURE_CONTROL
            mov eax, 5
            xor edx, edx
            wrmsr
            mov ecx, IA32_VMX_BASIC
            rdmsr
            mov [{VMXON}], eax
            mov [{REGION}], eax
            mov [{REGION2}], eax
            vmxon [pointer]
            jbe bad
            mov dword [pointer], {REGION}
            vmclear [pointer]
            jbe bad
            vmptrld [pointer]
            jbe bad
            hlt
        bad: ud2
        pointer: dq {VMXON}""")
        assert stop.reason == "halted" and self.cpu.vmcs.address == REGION
        self.revision = int.from_bytes(self.cpu.memory.read(REGION, 4), "little")

    def set(self, fields: Mapping[str, int]) -> None:
        """Writes fields by VMWRITE; a name that begins with + adds bits, with - takes them away."""
        values: dict[str, int] = {}
        for name, value in fields.items():
            plain = name.lstrip("+-")
            old = values.get(plain, self.cpu.vmcs[plain])
            values[plain] = old | value if name[0] == "+" else old & ~value if name[0] == "-" else value
        text = []
        for name, value in values.items():
            if self.bits == 64:
                text.append(f"mov rax, {value:#x}\nmov rdx, {name}\nvmwrite rdx, rax\njbe bad")
                continue
            text.append(f"vmset {name}, {value & 0xFFFFFFFF:#x}")
            if FIELDS[name].width == 64:
                text.append(f"vmset {name}_HIGH, {value >> 32:#x}")
        stop = self.run("\n".join(text) + "\nhlt\nbad: ud2")
        assert stop.reason == "halted" and self.vector is None

    def guest(self, text: str, bits: int | None = None) -> None:
        """The guest's code, at GUEST (with 16 bits at offset 0 of its segment)."""
        bits = bits or self.bits
        self.cpu.memory.write(GUEST, assemble(text, bits, 0 if bits == 16 else GUEST))

    def prepare(self, *changes: Mapping[str, int], host_rip: int = 0) -> None:
        """The default VMCS with changes; VM exits go to the HLT of vector 31, which stands for "exit"."""
        self.set(default_fields(self.bits) | {"HOST_RIP": host_rip or HANDLERS + 31})
        for change in changes:
            self.set(change)

    def enter(self, resume: bool = False, limit: int = 100_000) -> emu.Stop:
        """VMLAUNCH (VMRESUME), and on until the VM exit, or whatever else halts."""
        return self.run(f"{'vmresume' if resume else 'vmlaunch'}", limit)

    @property
    def exited(self) -> bool:
        """The run ended at the host's entry point for VM exits."""
        return bool(self.cpu.rip == HANDLERS + 32)

    @property
    def vector(self) -> int | None:
        """The exception of the host that the run ended with."""
        number = self.cpu.rip - HANDLERS - 1
        return number if 0 <= number < 31 else None

    @property
    def guest_vector(self) -> int | None:
        """The exception of the guest that the run ended with, in the guest."""
        number = self.cpu.rip - GUEST_HANDLERS - 1
        return number if 0 <= number < 32 else None

    @property
    def failed(self) -> str | None:
        """VMfail: "invalid", or the name of the VM-instruction error; None: neither CF nor ZF is set."""
        if self.cpu.rflags & 1:
            return "invalid"
        if self.cpu.rflags & 0x40:
            return definitions.errors()[self.cpu.vmcs["VM_INSTRUCTION_ERROR"]]
        return None

    def __getitem__(self, name: str) -> int:
        return int(self.cpu.vmcs[name])

    @property
    def reason(self) -> str:
        """The exit reason's name; "failed NAME" for a VM entry that failed in the guest state."""
        assert self.exited, f"no VM exit: RIP {self.cpu.rip:#x}, VMfail {self.failed}"
        number = self["EXIT_REASON"]
        return ("failed " if number & FAILED_ENTRY else "") + definitions.reasons()[number & 0xFFFF]

    def exit(self, text: str, *changes: Mapping[str, int], bits: int | None = None) -> str:
        """Runs a guest's code under a VMCS with changes, from the VM entry to the first VM exit: the reason."""
        self.guest(text, bits)
        self.prepare(*changes)
        self.enter()
        if self.failed == "VMLAUNCH_NONCLEAR_VMCS" and not self.exited:
            self.enter(resume=True)
        return self.reason


MACROS = """
%macro vmset 2
    mov edx, %1
    mov eax, %2
    vmwrite edx, eax
    jbe bad
%endmacro
%macro vmget 2
    mov edx, %2
    vmread %1, edx
%endmacro
"""


def state(cpu: Any) -> dict[str, int]:
    """The registers that a program sees."""
    names = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "rip", "rflags")
    return {name: getattr(cpu, name) for name in names}
