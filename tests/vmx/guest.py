"""A guest made of a bare processor's state: the same registers and the same memory, under VT-x on a second processor.

The guest's memory is the first MiB, as on the bare processor; all else is open bus, but for the VMM's memory at VMM.
Under EPT the guest's first MiB lies elsewhere, and what lies at 0 is filled with SPOILT.
"""

from __future__ import annotations

import struct
from typing import Any

from vmm import BITS, PROC

import asm
import emu
from emu import definitions

SIZE = 1 << 20
VMM = 0x20_0000_0000  # out of reach for all but PAE and 64-bit paging, and their tables do not point here
GIB = 1 << 30
VOID = 0x30_0000_0000  # nothing is there
VMXON, REGION, BITMAPS, GDT, TSS, PML4, PDPT, CODE, EPT, RAM = (
    VMM + offset for offset in (0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000, 0x7000, 0x8000, 0x10000, 0x100000)
)
LAUNCH, EXITED, RESUME = CODE + 0x100, CODE + 0x200, CODE + 0x300
SPOILT = b"\xcc"
WINDOW, WINDOW_SIZE = 0x24000, 2048  # of memory that most stores of the single instructions go to
UNWANTED = set(definitions.reasons().values()) - {"MONITOR_TRAP_FLAG"}
NE, PE, PG, VMXE = 0x20, 1, 1 << 31, 0x2000
LMA = 0x400
NAMES = ("ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR")
# What is of the processor's own book-keeping, of VMX, or the time.
OWN = {"instructions", "tsc_offset", "hook_skip", "fallen_to", "non_root", "vmx", "cr0", "cr4", "charge_target",
       "rf_loaded", "requests", "monitored", "monitored_sum"}  # fmt: skip

CODE_TEXT = f"""
    mov ecx, IA32_FEATURE_CONTROL
    mov eax, 5
    xor edx, edx
    wrmsr
    vmxon [rel vmxon_region]
    jbe failed
    vmclear [rel region]
    jbe failed
    vmptrld [rel region]
    jbe failed
    hlt
failed: ud2
vmxon_region: dq {VMXON}
region: dq {REGION}
    times 0x100 - ($ - $$) db 0xf4
    vmlaunch
    times 0x200 - ($ - $$) db 0xf4
    hlt
    times 0x300 - ($ - $$) db 0xf4
    vmresume
    hlt
"""


def ept_tables() -> dict[int, bytes]:
    """The first MiB goes to RAM, the GiB at VMM to VOID, the rest of the 40 bits to itself."""
    everything, table, page = 7, 0x1000, 0x30
    pml4, pdpt, directory, pages = EPT, EPT + table, EPT + 3 * table, EPT + 4 * table
    gibs = [(VOID if number * GIB == VMM else number * GIB) | 0x80 | page | everything for number in range(1024)]
    gibs[0] = directory | everything
    twos = [pages | everything, *(number << 21 | 0x80 | page | everything for number in range(1, 512))]
    small = [(RAM + (number << 12) if number < 256 else number << 12) | page | everything for number in range(512)]
    return {
        pml4: struct.pack("<2Q", pdpt | everything, (pdpt + table) | everything),
        pdpt: struct.pack("<1024Q", *gibs),
        directory: struct.pack("<512Q", *twos),
        pages: struct.pack("<512Q", *small),
    }


class Guest:
    """A VMM that runs a guest without wanting any exit.

    Args:
        ept: with EPT and unrestricted; else a guest with paging alone will do.
        vpid: the guest's TLB entries outlive exits.
        stepped: the VMM lets each instruction end with a VM exit, and resumes.
    """

    def __init__(self, ept: bool, vpid: bool, stepped: bool = False, timing: str = "static") -> None:
        self.ept, self.stepped = ept, stepped
        self.cpu = cpu = emu.Cpu(bits=64, memory=SIZE, cpu="westmere", timing=timing, faults="deliver")
        self.own = emu._core.Memory(2 << 20)
        cpu.bus.map_memory(VMM, self.own)
        write = cpu.bus.write
        write(GDT, struct.pack("<5Q", 0, 0xAF9B000000FFFF, 0xCF93000000FFFF, 0x20008B0050000067, VMM >> 32))
        write(PML4, struct.pack("<Q", PDPT | 3))
        write(PDPT, struct.pack("<Q", 0x83))
        write(PDPT + 8 * (VMM // GIB), struct.pack("<Q", VMM | 0x83))
        for address, content in ept_tables().items():
            write(address, content)
        for region in (VMXON, REGION):
            write(region, struct.pack("<I", 15))
        text = f"org {CODE:#x}\n{definitions.assembler_include()}\n{CODE_TEXT}"
        write(CODE, bytes(asm.assemble(text, bits=64).binary))
        cpu.cr3, cpu.cr4, cpu.cr0 = PML4, 0x20 | VMXE, 0x80000031
        cpu.rip = CODE
        assert cpu.run(instructions=100).reason == "halted" and cpu.vmcs.address == REGION
        controls = "USE_MSR_BITMAPS", "ACTIVATE_SECONDARY_CONTROLS", *(("MONITOR_TRAP_FLAG",) if stepped else ())
        controls += ("RDTSC_EXITING",) if stepped else ("USE_TSC_OFFSETTING",)
        secondary = ("ENABLE_RDTSCP", *(("ENABLE_EPT", "UNRESTRICTED_GUEST") if ept else ()))
        secondary += ("ENABLE_VPID",) if vpid else ()
        self.set(
            PIN_BASED_VM_EXECUTION_CONTROLS=0x16,
            PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS=PROC | sum(BITS[f"PROC_{name}"] for name in controls),
            SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS=sum(BITS[f"PROC2_{name}"] for name in secondary),
            VM_EXIT_CONTROLS=0x36DFF | 0x3C0000 | BITS["EXIT_HOST_ADDRESS_SPACE_SIZE"],
            VMCS_LINK_POINTER=(1 << 64) - 1,
            ADDRESS_OF_MSR_BITMAPS=BITMAPS,
            EPT_POINTER=EPT | 0x1E,
            VIRTUAL_PROCESSOR_IDENTIFIER=5,
            CR0_GUEST_HOST_MASK=NE if ept else NE | PE | PG,
            CR4_GUEST_HOST_MASK=VMXE,
            HOST_CR0=cpu.cr0,
            HOST_CR3=PML4,
            HOST_CR4=cpu.cr4,
            HOST_IA32_EFER=0x500,
            HOST_IA32_PAT=0x7040600070406,
            HOST_CS_SELECTOR=8,
            HOST_SS_SELECTOR=0x10,
            HOST_TR_SELECTOR=0x18,
            HOST_TR_BASE=TSS,
            HOST_GDTR_BASE=GDT,
            HOST_RIP=RESUME if stepped else EXITED,
        )
        self.root = cpu.save() | {"activity": 0, "rip": LAUNCH}

    def set(self, **fields: int) -> None:
        for name, value in fields.items():
            self.cpu.vmcs[name] = value

    @property
    def memory(self) -> bytes:
        return self.own.read(RAM - VMM, SIZE) if self.ept else self.cpu.memory.read(0, SIZE)

    def write(self, address: int, data: bytes) -> None:
        """Writes to the guest's memory."""
        if self.ept:
            self.cpu.bus.write(RAM + address, data)
        else:
            self.cpu.memory.write(address, data)

    def fields(self, state: dict[str, Any]) -> dict[str, int]:
        """The guest-state fields for a processor's state."""
        fields = {
            "VM_ENTRY_CONTROLS": 0xD1FF | (BITS["ENTRY_IA32E_MODE_GUEST"] if state["efer"] & LMA else 0),
            "GUEST_CR0": state["cr0"] | NE,
            "CR0_READ_SHADOW": state["cr0"],
            "GUEST_CR3": state["cr3"],
            "GUEST_CR4": state["cr4"] | VMXE,
            "CR4_READ_SHADOW": state["cr4"],
            "GUEST_DR7": state["dr"][7],
            "GUEST_IA32_DEBUGCTL": state["debugctl"],
            "GUEST_IA32_EFER": state["efer"],
            "GUEST_IA32_PAT": state["pat"],
            "GUEST_IA32_SYSENTER_CS": state["sysenter_cs"],
            "GUEST_IA32_SYSENTER_ESP": state["sysenter_esp"],
            "GUEST_IA32_SYSENTER_EIP": state["sysenter_eip"],
            "GUEST_RSP": state["gpr"][4],
            "GUEST_RIP": state["rip"],
            "GUEST_RFLAGS": state["rflags"],
            "GUEST_GDTR_BASE": state["gdtr"][0],
            "GUEST_GDTR_LIMIT": state["gdtr"][1],
            "GUEST_IDTR_BASE": state["idtr"][0],
            "GUEST_IDTR_LIMIT": state["idtr"][1],
        }
        for name, (selector, base, limit, access) in zip(NAMES, state["segments"], strict=True):
            fields |= {f"GUEST_{name}_SELECTOR": selector, f"GUEST_{name}_BASE": base}
            fields |= {f"GUEST_{name}_LIMIT": limit, f"GUEST_{name}_ACCESS_RIGHTS": access}
        return fields | {f"GUEST_PDPTE{number}": value for number, value in enumerate(state["pdpte"])}

    def enter(self, bare: emu.Cpu) -> bool:
        """Launches a guest with the state of a bare processor and the memory; False where VM entry refuses it."""
        cpu, state = self.cpu, bare.save()
        memory = bare.memory.read(0, SIZE)
        if self.ept:
            cpu.memory.write(0, SPOILT * SIZE)
        self.write(0, memory)
        shared = ("gpr", "dr", "cr2", "cr8", "fpu", "star", "lstar", "cstar", "fmask", "kernel_gs_base", "tsc_aux",
                  "apic_base", "random", "misc_enable", "last_branches", "last_branch_top", "last_exception_from",
                  "last_exception_to")  # fmt: skip
        cpu.restore(self.root | {name: state[name] for name in shared})
        self.set(**self.fields(state))
        cpu.run(instructions=1)
        self.entered, self.entered_at = cpu.instructions, cpu.cycles
        if cpu.vmx_operation != "non-root":
            return False
        # Both count on from the same time-stamp.
        offset = bare.cycles + state["tsc_offset"] - cpu.cycles - self.root["tsc_offset"]
        cpu.vmcs["TSC_OFFSET"] = offset & ((1 << 64) - 1)
        return True

    @property
    def count(self) -> int:
        """Instructions that the guest has completed: the VMM's are its resumes."""
        return self.cpu.instructions - self.entered - self.cpu.exits["MONITOR_TRAP_FLAG"].count

    @property
    def inside(self) -> bool:
        return self.cpu.vmx_operation == "non-root"

    def step(self) -> bool:
        """Runs up to the end of the guest's next instruction, past the exits before it; False: there is none."""
        cpu, count = self.cpu, self.count
        for _ in range(20):
            stop = cpu.run(instructions=1, cycles=100_000)
            if stop.reason != "limit" or any(cpu.exits[name].count for name in UNWANTED):
                break
            if self.count != count:
                return self.inside
        return False

    def differences(self, bare: emu.Cpu, whole: bool = True) -> list[str]:
        """Where the guest's state is not the bare processor's: with `whole` all memory, else what cases.py writes."""
        here, there = self.cpu.save(), bare.save()
        found = [
            f"{name}: {here[name]!r}, bare {there[name]!r}"
            for name in there
            if name not in OWN and here[name] != there[name]
        ]
        if here["cr0"] | NE != there["cr0"] | NE or here["cr4"] | VMXE != there["cr4"] | VMXE:
            found.append(f"CR0 {here['cr0']:x} CR4 {here['cr4']:x}, bare {there['cr0']:x} {there['cr4']:x}")
        if not whole:
            window = self.cpu.bus.read((RAM if self.ept else 0) + WINDOW, WINDOW_SIZE)
            return found if window == bare.memory.read(WINDOW, WINDOW_SIZE) else [*found, "memory differs"]
        memory, bare_memory = self.memory, bare.memory.read(0, SIZE)
        if memory != bare_memory:
            at = next(place for place in range(SIZE) if memory[place] != bare_memory[place])
            ours, theirs = memory[at : at + 16].hex(" "), bare_memory[at : at + 16].hex(" ")
            found.append(f"memory at {at:x}: {ours}, bare {theirs}")
        if self.ept and self.cpu.memory.read(0, SIZE) != SPOILT * SIZE:
            found.append("the guest has written past its EPT")
        return found
