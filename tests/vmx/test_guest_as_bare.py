"""A guest without an exit wanted behaves under VT-x as on the bare machine, state for state.

Both run the same random code from the same state (tests/instructions/random_code.py), and the single instructions of
tests/instructions/cases.py; registers, flags, memory, exceptions through the guest's own tables, the counts of
instructions and of cycles are compared. What VT-x takes from any guest (CPUID, INVD, task switches, bits of CR0 and CR4
that VMX operation fixes) ends the comparison before it.
"""

import random
import struct
import sys
from pathlib import Path

import pytest
from guest import NE, Guest

import emu

sys.path.append(str(Path(__file__).parent.parent / "instructions"))
import cases
from random_code import CODE, PG, TABLES, World

ROUNDS, STATES, RUN, CYCLES = 5, 14, 60, 20_000
AT_MOST = 8  # times as many states, where most of them fault at once
STEPS = 30  # of a guest that leaves after each instruction
CASES = 1000  # of a mode
# With EPT the guest is unrestricted; without it it has to have paging.
WITH_EPT = ("real", "unreal", "protected 16", "protected 32", "v86", "paging", "PAE paging", "64-bit paging",
            "compatibility")  # fmt: skip
WITHOUT = ("v86", "paging", "PAE paging", "64-bit paging", "compatibility")
KINDS = [
    *((mode, True, vpid) for mode in WITH_EPT for vpid in (False, True)),
    *((mode, False, vpid) for mode in WITHOUT for vpid in (False, True)),
]

STEPPED_KINDS = [kind for kind in KINDS if kind[2] == kind[1] or kind[0] == "paging"]


class GuestWorld(World):
    """Worlds of a processor with VT-x; with `paged` all have paging."""

    def __init__(self, mode: str, seed: int, paged: bool) -> None:
        super().__init__(mode, seed)
        self.cpu = emu.Cpu(bits=16, cpu="westmere", memory=1 << 20, faults="deliver")
        self.blank = self.cpu.save()
        self.paged = paged
        self.branches = random.Random(f"branches {mode} {seed}")

    def random(self) -> None:
        super().random()
        self.cpu.cr0 |= NE  # as VMX operation has it: exceptions of the FPU are #MF on both
        if self.branches.random() < 0.2:  # last branches recorded, single steps on branches
            self.cpu.restore(self.cpu.save() | {"debugctl": self.branches.randrange(1, 4)})

    def _unreal(self) -> None:
        super()._unreal()
        for segment in (self.cpu.ds, self.cpu.es, self.cpu.ss):  # granular, as such limits are
            segment.access |= 0x8000

    def _v86(self) -> None:
        super()._v86()
        if self.paged:
            self.fill_tables(4, 2)
            self.cpu.cr3, self.cpu.cr0 = TABLES, self.cpu.cr0 | PG


def run_guest(guest: Guest, bare: emu.Cpu) -> tuple[emu.Stop | None, int]:
    """Runs the guest from the bare processor's state to a limit of instructions before its first exit; both."""
    limit = RUN
    while True:
        if not guest.enter(bare):  # the last state's stores hit the PDPTEs
            failure = guest.cpu.vmx_failure
            assert failure is not None and failure.check in ("PDPTEs in memory", "guest PDPTE")
            return None, 0
        stop = guest.cpu.run(instructions=limit, cycles=CYCLES)
        if guest.inside:
            return stop, limit
        limit = min(guest.count, limit - 1)  # it ran into an exit: again, up to the last instruction before it
        if limit <= 0:
            return stop, 0


@pytest.mark.parametrize(("mode", "ept", "vpid"), KINDS)
def test_random_code(mode: str, ept: bool, vpid: bool) -> None:
    world, guest = GuestWorld(mode, 7, not ept), Guest(ept, vpid)
    bare, ran = world.cpu, 0
    for number in range(AT_MOST * ROUNDS * STATES):
        if number >= ROUNDS * STATES and ran > 5 * ROUNDS * STATES:
            break
        world.move() if number % STATES else world.random()
        stop, limit = run_guest(guest, bare)
        if stop is None:
            world.random()
        if stop is None or not limit:
            continue
        counts, cycles = bare.instructions, bare.cycles
        bare_stop = bare.run(instructions=limit, cycles=CYCLES)
        found = guest.differences(bare)
        guest_ran = guest.count, guest.cpu.cycles - guest.entered_at, stop.reason
        bare_ran = bare.instructions - counts, bare.cycles - cycles, bare_stop.reason
        if guest_ran != bare_ran:
            found.append(f"instructions, cycles, end: {guest_ran}, bare {bare_ran}")
        assert not found, f"state {number}, limit {limit}:\n" + "\n".join(found)
        ran += guest.count
    assert ran > 5 * ROUNDS * STATES


@pytest.mark.parametrize(("mode", "ept", "vpid"), STEPPED_KINDS)
def test_random_code_with_an_exit_after_each_instruction(mode: str, ept: bool, vpid: bool) -> None:
    """The monitor trap flag ends each instruction and the VMM resumes: all state goes to the VMCS and back."""
    world, guest = GuestWorld(mode, 10, not ept), Guest(ept, vpid, stepped=True)
    bare, ran = world.cpu, 0
    for number in range(AT_MOST * ROUNDS * STATES // 2):
        if number >= ROUNDS * STATES // 2 and ran > ROUNDS * STATES // 2:
            break
        world.move() if number % STATES else world.random()
        if not guest.enter(bare):
            world.random()
            continue
        start = bare.instructions
        ahead: list[str] = []
        for step in range(STEPS):
            if not guest.step():
                break
            if bare.run(instructions=1, cycles=CYCLES).reason != "limit":
                break  # its next fetch has ended it already
            assert bare.instructions - start == guest.count
            found = guest.differences(bare, whole=step % 10 == 9)
            # The bare processor has fetched the next instruction too, and taken its fault; they meet after another one.
            assert not found or not ahead, f"state {number}, after {guest.count}:\n" + "\n".join(ahead + found)
            ahead = found
            ran += not found
    assert ran > ROUNDS * STATES // 2


# --- single instructions ---

SIZES = {16: ("real", "v86"), 32: ("protected 32", "paging"), 64: ("64-bit paging",)}
CASE_KINDS = [(bits, mode, ept) for bits, modes in SIZES.items() for mode in modes for ept in (True, False)
              if ept or mode in WITHOUT]  # fmt: skip
FEATURES = {"8086", "186", "286", "386", "486", "586", "686", "CX8", "CMOV", "SSE", "SSE2", "SSE4_2", "LM", "CX16",
            "LAHF_LM", "POPCNT"}  # fmt: skip
NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))


class CaseWorld(GuestWorld):
    """States without garbage: flat segments, identity page tables, handlers of exceptions."""

    def fill_memory(self) -> None:
        super().fill_memory()
        self.cpu.memory.write(0, struct.pack("<HH", 0, CODE[0] >> 4) * 256)
        self.cpu.memory.write(CODE[0], b"\x90" * 16)

    def gate(self, wide: bool) -> bytes:
        low = struct.pack("<HHBBH", CODE[0] & 0xFFFF, 8, 0, 0x8E, CODE[0] >> 16)
        return low + bytes(8) if wide else low

    def user(self) -> None:
        """Privilege level 0 it is."""

    def fill_tables(self, entry_size: int, levels: int) -> None:
        super().fill_tables(entry_size, levels)
        for level in range(levels):
            last = level == levels - 1
            for index in range(256 if last else 1):
                entry = index << 12 | 7 if last else TABLES + (level + 1) * 0x1000 | 7
                place = TABLES + level * 0x1000 + index * entry_size
                self.cpu.memory.write(place, entry.to_bytes(entry_size, "little"))


@pytest.mark.parametrize(("bits", "mode", "ept"), CASE_KINDS)
def test_single_instructions(bits: int, mode: str, ept: bool) -> None:
    """Arithmetic, moves, strings, branches: each form of the table that is user code, faults among them."""
    world, guest = CaseWorld(mode, 3, not ept), Guest(ept, vpid=True)
    world.random()
    bare = world.cpu
    pool = random.Random("pool").randbytes(cases.POOL_SIZE)
    if bits == 16:
        for segment in (bare.cs, bare.ds, bare.es, bare.ss):
            segment.selector, segment.base = cases.SEGMENT_BASE >> 4, cases.SEGMENT_BASE
    bare.rflags &= 0x20002
    base = cases.SEGMENT_BASE if bits == 16 else 0
    assert guest.enter(bare), guest.cpu.vmx_failure
    start, guest_start = bare.save(), guest.cpu.save()
    faults = 0
    forms = cases.forms(bits, FEATURES.__contains__)
    for number, case in enumerate(cases.random_cases(f"guest {mode}", bits, CASES, forms)):
        for cpu, state in ((bare, start), (guest.cpu, guest_start)):
            cpu.restore(state | {"instructions": cpu.instructions})
            cpu.rflags = case.flags | cpu.rflags & 0x20002
            for name, value in zip(NAMES[: 16 if bits == 64 else 8], case.registers, strict=False):
                setattr(cpu, name, value)
            cpu.rip = case.address - base
        for write in (bare.memory.write, guest.write):
            write(cases.WINDOW, bytes(case.memory(pool)))
            write(case.address, case.code)
        for cpu in (bare, guest.cpu):
            cpu.run(instructions=1, cycles=CYCLES)
        found = guest.differences(bare, whole=number % 50 == 0)
        assert guest.inside and not found, case.describe() + "\n" + "\n".join(found)
        faults += bare.cs.base + bare.rip not in (case.address, case.address + len(case.code), case.taken)
    assert 0 < faults < CASES // 2
