"""Accesses through random 4-level page-table entries, against the rules of the manual written down once more.

SDM Vol. 3, "Determination of Access Rights", "Page-Fault Exceptions", "Accessed and Dirty Flags", "Paging Structures".
"""

import random
import struct
from dataclasses import dataclass

from long_mode import CODE64, CODE64_3, DATA0, DATA3, EFER_LMA, EFER_LME, EFER_NXE, NX, PDPT, PML4, Long
from system import ACCESSED, CODE, DIRTY, LARGE, PF, PRESENT, USER, WRITABLE

import emu

CASES = 20_000
LINEAR, PHYSICAL = 0x40001000, 0x201000  # the second page of the second GiB
DIRECTORY, TABLE = 0x104000, 0x105000
BIT_51, BIT_13 = 1 << 51, 1 << 13  # beyond the physical addresses of `westmere`; reserved in the entry of a large page
WP = 1 << 16
ACCESSES = {"read": b"\x8b\x06", "write": b"\x89\x06", "fetch": b"\xff\xe6"}  # MOV EAX, [RSI]; MOV [RSI], EAX; JMP RSI
ERROR = {"read": 0, "write": 2, "fetch": 16}


@dataclass
class Case:
    access: str
    user: bool
    wp: bool
    nxe: bool
    writable_pdpte: bool
    pde: int
    pte: int

    @classmethod
    def of(cls, pick: random.Random) -> "Case":
        def entry(base: int) -> int:
            bits = (WRITABLE, USER, ACCESSED, DIRTY, NX)
            value = base | (PRESENT if pick.random() < 0.85 else 0) | (BIT_51 if pick.random() < 0.04 else 0)
            return value | sum(bit for bit in bits if pick.random() < 0.5)

        large = pick.random() < 0.4
        reserved = BIT_13 if large and pick.random() < 0.1 else 0
        pde = entry((PHYSICAL & -(1 << 21) | LARGE | reserved) if large else TABLE)
        flags = [pick.random() < 0.5 for _ in range(4)]
        return cls(pick.choice(list(ACCESSES)), *flags, pde, entry(PHYSICAL))

    def reserved(self, entry: int, large: bool = False) -> bool:
        return bool(entry & BIT_51 or (entry & NX and not self.nxe) or (large and entry & BIT_13))

    def outcome(self) -> tuple[int | None, int, int]:
        """The page fault's error code, or None; the PDE and the PTE afterwards."""
        error = ERROR[self.access] if self.access != "fetch" or self.nxe else 0
        error |= 4 if self.user else 0
        large = bool(self.pde & LARGE)
        if not self.pde & PRESENT:
            return error, self.pde, self.pte
        if self.reserved(self.pde, large):
            return error | 9, self.pde, self.pte
        if not large and not self.pte & PRESENT:
            return error, self.pde, self.pte
        if not large and self.reserved(self.pte):
            return error | 9, self.pde, self.pte
        entries = [self.pde] if large else [self.pde, self.pte]
        writable = self.writable_pdpte and all(entry & WRITABLE for entry in entries)
        user = all(entry & USER for entry in entries)
        if (
            (self.user and not user)
            or (self.access == "write" and not writable and (self.user or self.wp))
            or (self.access == "fetch" and any(entry & NX for entry in entries))
        ):
            return error | 1, self.pde, self.pte
        dirty = DIRTY if self.access == "write" else 0
        if large:
            return None, self.pde | ACCESSED | dirty, self.pte
        return None, self.pde | ACCESSED, self.pte | ACCESSED | dirty


def test_rights_reserved_bits_and_flags() -> None:
    bench = Long(faults="raise")
    cpu, memory = bench.cpu, bench.cpu.memory
    memory.write(CODE, b"".join(code.ljust(16, b"\x90") for code in ACCESSES.values()))
    pick = random.Random(1)
    for _ in range(CASES):
        case = Case.of(pick)
        pdpte = DIRECTORY | PRESENT | USER | ACCESSED | (WRITABLE if case.writable_pdpte else 0)
        for place, entry in ((PDPT + 8, pdpte), (DIRECTORY, case.pde), (TABLE + 8, case.pte)):
            memory.write(place, struct.pack("<Q", entry))
        memory.write(PHYSICAL, b"\x90")
        cpu.efer = EFER_LME | EFER_LMA | (EFER_NXE if case.nxe else 0)
        cpu.cr0 = 0x80000011 | (WP if case.wp else 0)
        cpu.cr3 = PML4
        cpu.cs.selector, cpu.cs.access = (CODE64_3, 0xA0FB) if case.user else (CODE64, 0xA09B)
        cpu.ss.selector, cpu.ss.access = (DATA3, 0xC0F3) if case.user else (DATA0, 0xC093)
        cpu.cpl = 3 if case.user else 0
        cpu.rsi, cpu.rip = LINEAR, CODE + 16 * list(ACCESSES).index(case.access)
        error, pde, pte = case.outcome()
        try:
            for _ in range(2 if case.access == "fetch" else 1):
                cpu.step()
            fault = None
        except emu.CpuFault as raised:
            fault = raised.vector, raised.error_code
        assert fault == (None if error is None else (PF, error)), case
        walked = ACCESSED if fault else 0  # a walk that ends in a fault may set the flag of the entry that led on
        assert bench.read64(DIRECTORY)[0] | walked == pde | walked, case
        assert bench.read64(TABLE + 8)[0] == pte, case
