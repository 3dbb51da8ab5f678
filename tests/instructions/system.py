"""A bench for the system side of the processor: a bare Cpu with tables, gates, tasks and page tables in its memory.

Memory map, in bytes from 0:
    1000 GDT  2000 IDT  3000 TSS 28h  3400 TSS 38h  3800 LDT 30h  5000 a HLT for each vector  C000 code of real mode
    9000 top of the CPL 0 stack   A000 top of the CPL 1 stack   B000 top of the CPL 3 stack   10000 code   20000 data
    40000 page directory   41000 page tables
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import Any

import asm
import emu
from emu.stop import StopReason

GDT, IDT, TSS, TSS2, LDT = 0x1000, 0x2000, 0x3000, 0x3400, 0x3800
HANDLERS, REAL_CODE = 0x5000, 0xC000
STACK0, STACK1, STACK3 = 0x9000, 0xA000, 0xB000
CODE, DATA = 0x10000, 0x20000
DIRECTORY, TABLES = 0x40000, 0x41000

# Selectors of the GDT that every bench has; the tests' own descriptors stand from FREE on.
CODE0, DATA0, CODE3, DATA3, TASK, LOCAL, TASK2, CODE1, DATA1 = 0x08, 0x10, 0x1B, 0x23, 0x28, 0x30, 0x38, 0x41, 0x49
FREE = 0x50

DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS, NP, SS, GP, PF, AC = 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 17

CF, ZF, TF, IF, DF_FLAG, NT, RF, VM, FLAG_AC = 1, 0x40, 0x100, 0x200, 0x400, 0x4000, 0x10000, 0x20000, 0x40000
VIF, VIP = 0x80000, 0x100000
PRESENT, WRITABLE, USER, ACCESSED, DIRTY, LARGE, GLOBAL = 1, 2, 4, 0x20, 0x40, 0x80, 0x100


def descriptor(base: int, limit: int, access: int, flags: int = 0) -> int:
    """A descriptor: `access` is byte 5, `flags` the upper half of byte 6 (G 8, D/B 4, L 2, AVL 1)."""
    return (
        (limit & 0xFFFF)
        | (base & 0xFFFFFF) << 16
        | access << 40
        | (limit >> 16 & 0xF) << 48
        | flags << 52
        | (base >> 24 & 0xFF) << 56
    )


def code(
    dpl: int = 0, *, base: int = 0, limit: int = 0xFFFFF, flags: int = 0xC, type_: int = 0xA, present: int = 1
) -> int:
    """A code segment; type 8 is execute-only, 0xA readable, 0xE readable and conforming."""
    return descriptor(base, limit, present << 7 | dpl << 5 | 0x10 | type_, flags)


def data(
    dpl: int = 0, *, base: int = 0, limit: int = 0xFFFFF, flags: int = 0xC, type_: int = 2, present: int = 1
) -> int:
    """A data segment; type 0 is read-only, 2 writable, 6 writable and expand-down."""
    return descriptor(base, limit, present << 7 | dpl << 5 | 0x10 | type_, flags)


def system(type_: int, base: int, limit: int, dpl: int = 0, present: int = 1) -> int:
    """An LDT (type 2) or TSS (1, 9; busy 3, 11)."""
    return descriptor(base, limit, present << 7 | dpl << 5 | type_)


def gate(type_: int, selector: int, offset: int, dpl: int = 0, count: int = 0, present: int = 1) -> int:
    """A gate: call 4, 12; task 5; interrupt 6, 14; trap 7, 15."""
    high = (present << 7 | dpl << 5 | type_) << 8 | count | (offset & 0xFFFF0000)
    return (offset & 0xFFFF) | selector << 16 | high << 32


@functools.cache
def assemble(text: str, bits: int, origin: int) -> bytes:
    return bytes(asm.assemble(f"org {origin:#x}\n{text}", bits=bits).binary)


@dataclass(frozen=True)
class Frame:
    """Where a run ended: the vector whose handler halted (None: the code's own HLT), and the stack there."""

    vector: int | None
    stack: tuple[int, ...]


class Bench:
    """A processor in flat 32-bit protected mode at CPL 0, with every vector leading to a HLT of its own.

    Args:
        faults: as of emu.Cpu. With "deliver" runs end at the handlers; with "raise" fault() tells of the exception.
    """

    def __init__(self, faults: str = "deliver", bits: int = 32, model: str = "pentium3") -> None:
        self.cpu = cpu = emu.Cpu(bits=bits, memory=1 << 20, faults=faults, cpu=model)
        self.bits = bits
        self.pic: Any = None
        self.port: Any = None
        self.code = CODE if bits == 32 else REAL_CODE
        cpu.memory.write(HANDLERS, b"\xf4".ljust(16, b"\xcc") * 256)
        if bits == 16:
            for vector in range(256):
                cpu.memory.write(vector * 4, struct.pack("<HH", HANDLERS + vector * 16, 0))
            cpu.rsp = STACK0
            return
        cpu.gdtr.base, cpu.gdtr.limit = GDT, 0x3FF
        cpu.idtr.base, cpu.idtr.limit = IDT, 0x7FF
        for selector, value in {
            CODE0: code(0), DATA0: data(0), CODE3: code(3), DATA3: data(3), CODE1: code(1), DATA1: data(1),
            TASK: system(11, TSS, 0x67), LOCAL: system(2, LDT, 0xFF), TASK2: system(9, TSS2, 0x67),
        }.items():  # fmt: skip
            self.set_descriptor(selector, value)
        for vector in range(256):
            self.set_gate(vector, gate(14, CODE0, HANDLERS + vector * 16))
        self.write32(TSS + 4, STACK0, DATA0, STACK1, DATA1)
        self.write16(TSS + 102, 0x68)
        cpu.tr.selector, cpu.tr.base, cpu.tr.limit, cpu.tr.access = TASK, TSS, 0x67, 0x8B
        cpu.ldtr.selector, cpu.ldtr.base, cpu.ldtr.limit, cpu.ldtr.access = LOCAL, LDT, 0xFF, 0x82
        cpu.esp = STACK0

    # --- memory ---

    def write32(self, address: int, *values: int) -> None:
        self.cpu.memory.write(address, struct.pack(f"<{len(values)}I", *values))

    def write16(self, address: int, *values: int) -> None:
        self.cpu.memory.write(address, struct.pack(f"<{len(values)}H", *values))

    def read32(self, address: int) -> int:
        return int(struct.unpack("<I", self.cpu.memory.read(address, 4))[0])

    def read16(self, address: int) -> int:
        return int(struct.unpack("<H", self.cpu.memory.read(address, 2))[0])

    def stack(self, count: int, size: int = 4) -> tuple[int, ...]:
        """The topmost items of the current stack."""
        format_ = "I" if size == 4 else "H"
        sp = self.cpu.esp if self.cpu.ss.access & 0x4000 else self.cpu.sp
        return struct.unpack(f"<{count}{format_}", self.cpu.read_linear(self.cpu.ss.base + sp, count * size))

    # --- tables ---

    def descriptor_address(self, selector: int) -> int:
        return (LDT if selector & 4 else GDT) + (selector & 0xFFF8)

    def set_descriptor(self, selector: int, value: int) -> None:
        self.cpu.memory.write(self.descriptor_address(selector), struct.pack("<Q", value))

    def get_descriptor(self, selector: int) -> int:
        return int(struct.unpack("<Q", self.cpu.memory.read(self.descriptor_address(selector), 8))[0])

    def set_gate(self, vector: int, value: int) -> None:
        self.cpu.memory.write(IDT + vector * 8, struct.pack("<Q", value))

    # --- state ---

    def enter_ring(self, cpl: int) -> None:
        """Goes to another privilege level, with flat segments and a stack of that level."""
        cpu = self.cpu
        selectors = {1: (CODE1, DATA1, STACK1), 3: (CODE3, DATA3, STACK3)}[cpl]
        cpu.cs.selector, cpu.cs.access = selectors[0], cpu.cs.access | cpl << 5
        for segment in (cpu.ss, cpu.ds, cpu.es, cpu.fs, cpu.gs):
            segment.selector, segment.access = selectors[1], segment.access | cpl << 5
        cpu.cpl = cpl
        cpu.esp = selectors[2]

    def enter_v86(self, iopl: int = 3, flags: int = 0) -> None:
        """Goes to virtual-8086 mode: all segments at DATA, code as well, the stack at its top."""
        cpu = self.cpu
        cpu.rflags = 0x20002 | iopl << 12 | flags
        cpu.cpl = 3
        for segment in (cpu.cs, cpu.ss, cpu.ds, cpu.es, cpu.fs, cpu.gs):
            segment.selector, segment.base, segment.limit, segment.access = DATA >> 4, DATA, 0xFFFF, 0xF3
        cpu.esp = 0x8000

    def map_pages(self, *, rights: int = PRESENT | WRITABLE | USER) -> None:
        """Identity page tables for the megabyte, and paging on."""
        self.write32(DIRECTORY, TABLES | PRESENT | WRITABLE | USER, *([0] * 1023))
        self.write32(TABLES, *(page << 12 | rights for page in range(256)), *([0] * 768))
        self.cpu.cr3 = DIRECTORY
        self.cpu.cr0 = self.cpu.cr0 | 0x80000000

    def set_page(self, linear: int, entry: int) -> None:
        """The page-table entry of a linear address below 4 MiB; the processor's TLB does not notice."""
        self.write32(TABLES + (linear >> 12) * 4, entry)

    def get_page(self, linear: int) -> int:
        return self.read32(TABLES + (linear >> 12) * 4)

    # --- running ---

    def place(self, text: str, *, bits: int | None = None, at: int | None = None) -> int:
        """Assembles a text to an offset of the code segment, where it is to run; returns its length.

        bits: size of the code; the bench's own unless given, 16 in virtual-8086 mode.
        """
        v86 = bool(self.cpu.rflags & VM)
        offset = at if at is not None else 0 if v86 else self.code
        binary = assemble(text, bits or (16 if v86 else self.bits), offset)
        self.cpu.memory.write(self.cpu.cs.base + offset, binary)
        self.cpu.rip = offset
        return len(binary)

    def go(self, rip: int = CODE, limit: int = 10000) -> Frame:
        """Runs from RIP to a HLT, within so many instructions."""
        self.cpu.rip = rip
        return self.go_on(limit)

    def go_on(self, limit: int = 10000) -> Frame:
        stop = self.cpu.run(instructions=limit)
        assert stop.reason == StopReason.HALTED, (stop, hex(self.cpu.rip))
        place = self.cpu.cs.base + self.cpu.rip - 1 - HANDLERS
        vector = place >> 4 if 0 <= place < 0x1000 else None
        return Frame(vector, self.stack(8, 4 if self.cpu.cs.access & 0x4000 else 2))

    def run(self, text: str, *, bits: int | None = None) -> Frame:
        """Runs a text to its HLT or to that of a handler."""
        self.place(text, bits=bits)
        return self.go_on()

    def fault(self, text: str, *, bits: int | None = None, steps: int = 1) -> tuple[int, int | None] | None:
        """Runs the first instructions of a text with faults="raise": (vector, error code), or None where none came."""
        self.place(text, bits=bits)
        return self.step(steps)

    def step(self, steps: int = 1) -> tuple[int, int | None] | None:
        """Goes on for so many instructions: what fault() returns."""
        try:
            for _ in range(steps):
                self.cpu.step()
        except emu.CpuFault as fault:
            return fault.vector, fault.error_code
        return None
