"""A bench for long mode: 4-level paging, 64-bit and compatibility code of both levels, and a gate for every vector."""

import struct
from typing import NamedTuple

from system import CODE, HANDLERS, STACK0, STACK3, assemble, code, data, gate

import emu
from emu.stop import StopReason

MEMORY = 4 << 20
GDT, IDT, TSS, LDT = 0x1000, 0x2000, 0x4000, 0x4800
PML4, PDPT, DIRECTORY, TABLE = 0x100000, 0x101000, 0x102000, 0x103000
# Selectors. SYSRET wants 32-bit code, data, 64-bit code in a row.
CODE64, DATA0, CODE32_3, DATA3, CODE64_3, CODE32, TASK = 0x08, 0x10, 0x1B, 0x23, 0x2B, 0x30, 0x40
FREE = 0x60
L, PSE_RIGHTS, ALL = 0xA, 0x87, 7
EFER_SCE, EFER_LME, EFER_LMA, EFER_NXE = 1, 0x100, 0x400, 0x800
IA32_EFER, IA32_STAR, IA32_LSTAR, IA32_FMASK = 0xC0000080, 0xC0000081, 0xC0000082, 0xC0000084
IA32_FS_BASE, IA32_GS_BASE, IA32_KERNEL_GS_BASE = 0xC0000100, 0xC0000101, 0xC0000102
NX = 1 << 63


class Frame(NamedTuple):
    """Where a run ended: the vector whose handler halted (None: the code's own HLT), and the stack there."""

    vector: int | None
    stack: tuple[int, ...]


class Long:
    """A processor in 64-bit mode at CPL 0 with identity-mapped memory."""

    def __init__(self, faults: str = "deliver") -> None:
        self.cpu = cpu = emu.Cpu(bits=64, cpu="westmere", memory=MEMORY, faults=faults)
        memory = cpu.memory
        memory.write(HANDLERS, b"\xf4".ljust(16, b"\xcc") * 256)
        for selector, value in {
            CODE64: code(0, flags=L), DATA0: data(0), CODE32_3: code(3), DATA3: data(3), CODE64_3: code(3, flags=L),
            CODE32: code(0),
        }.items():  # fmt: skip
            self.set_descriptor(selector, value)
        self.set_system(TASK, 11, TSS, 0x67)
        for vector in range(256):
            self.set_gate(vector, HANDLERS + vector * 16)
        memory.write(TSS + 4, struct.pack("<3Q", STACK0, 0xA000, 0))
        memory.write(TSS + 36, struct.pack("<2Q", 0xC000, 0xD008))  # IST1, IST2
        memory.write(PML4, struct.pack("<Q", PDPT | ALL))
        memory.write(PDPT, struct.pack("<Q", DIRECTORY | ALL))
        memory.write(DIRECTORY, struct.pack("<2Q", TABLE | ALL, 0x200000 | PSE_RIGHTS))
        memory.write(TABLE, struct.pack("<512Q", *(page << 12 | ALL for page in range(512))))
        cpu.gdtr.base, cpu.gdtr.limit = GDT, 0x3FF
        cpu.idtr.base, cpu.idtr.limit = IDT, 0xFFF
        cpu.tr.selector, cpu.tr.base, cpu.tr.limit, cpu.tr.access = TASK, TSS, 0x67, 0x8B
        cpu.cr3, cpu.cr4, cpu.efer = PML4, 0x20, EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE
        cpu.cr0 = 0x80000011
        cpu.rsp = STACK0

    def set_descriptor(self, selector: int, value: int) -> None:
        self.cpu.memory.write(GDT + (selector & ~7), struct.pack("<Q", value))

    def set_system(self, selector: int, type_: int, base: int, limit: int, upper: int = 0) -> None:
        """A system descriptor of 16 bytes."""
        low = limit & 0xFFFF | (base & 0xFFFFFF) << 16 | (0x80 | type_) << 40 | (base >> 24 & 0xFF) << 56
        self.cpu.memory.write(GDT + selector, struct.pack("<QQ", low, base >> 32 | upper))

    def set_gate(self, vector: int, offset: int, *, selector: int = CODE64, type_: int = 14, dpl: int = 0, ist: int = 0,
                 present: int = 1) -> None:  # fmt: skip
        low = gate(type_, selector, offset & 0xFFFFFFFF, dpl, ist, present)
        self.cpu.memory.write(IDT + vector * 16, struct.pack("<QQ", low, offset >> 32))

    def set_call_gate(self, selector: int, target: int, offset: int, dpl: int = 3) -> None:
        low = gate(12, target, offset & 0xFFFFFFFF, dpl)
        self.cpu.memory.write(GDT + selector, struct.pack("<QQ", low, offset >> 32))

    def set_page(self, linear: int, entry: int) -> None:
        """The page-table entry of a linear address below 2 MiB."""
        self.cpu.memory.write(TABLE + (linear >> 12) * 8, struct.pack("<Q", entry))

    def read64(self, address: int, count: int = 1) -> tuple[int, ...]:
        return struct.unpack(f"<{count}Q", self.cpu.memory.read(address, 8 * count))

    def user(self, selector: int = CODE64_3) -> None:
        """Goes to CPL 3, in 64-bit or compatibility code."""
        cpu = self.cpu
        cpu.cs.selector, cpu.cs.access = selector, 0xA0FB if selector == CODE64_3 else 0xC0FB
        cpu.ss.selector, cpu.ss.access = DATA3, 0xC0F3
        cpu.cpl, cpu.rsp = 3, STACK3

    def compatibility(self) -> None:
        """Goes to 32-bit code at CPL 0."""
        self.cpu.cs.selector, self.cpu.cs.access = CODE32, 0xC09B

    def place(self, text: str, bits: int = 64) -> int:
        binary = assemble(text, bits, CODE)
        self.cpu.memory.write(CODE, binary)
        self.cpu.rip = CODE
        return len(binary)

    def run(self, text: str, bits: int = 64) -> Frame:
        """Runs a text to its HLT or to that of a handler."""
        self.place(text, bits)
        stop = self.cpu.run(instructions=10000)
        assert stop.reason == StopReason.HALTED, (stop, hex(self.cpu.rip))
        place = self.cpu.rip - 1 - HANDLERS
        vector = place >> 4 if 0 <= place < 0x1000 else None
        return Frame(vector, struct.unpack("<6Q", self.cpu.read_linear(self.cpu.rsp, 48)))

    def fault(self, text: str, bits: int = 64) -> tuple[int, int | None] | None:
        """Runs one instruction with faults="raise": (vector, error code), or None where none came."""
        self.place(text, bits)
        try:
            self.cpu.step()
        except emu.CpuFault as fault:
            return fault.vector, fault.error_code
        return None
