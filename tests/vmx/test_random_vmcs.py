"""Random VMCSs, guest code and guest memory: each VM entry runs the guest, or fails for a reason that is on record.

A record is checked against the VMCS that failed: its field has the value, and a value that its text asks for passes the
check.
"""

import random
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from vmm import (
    FAILED_ENTRY,
    FIELDS,
    GUEST,
    GUEST_IDT,
    GUEST_TABLES,
    MEMORY,
    REASONS,
    REGION,
    REGION2,
    Bench,
    assemble,
    default_fields,
    pin,
    primary,
    real_mode,
    secondary,
)

import emu
from emu._core import VmxFailure

sys.path.append(str(Path(__file__).parent.parent / "instructions"))
from random_code import instruction

LAUNCHES = 1500  # of each kind
RUN, CYCLES = 60, 30_000
ENTER = 0x11000  # where VMLAUNCH is, or VMRESUME; then HLT
HANDLER = 0x12000  # the host's entry point for VM exits: HLT
WRITE = 0x13000  # VMWRITE
LOOP = b"\xeb\xfe"
CONTROLS, HOST = "ENTRY_INVALID_CONTROL_FIELDS", "ENTRY_INVALID_HOST_STATE"
WRITABLE = [name for name, field in FIELDS.items() if not field.read_only]
PHYSICAL = (1 << 40) - 1
SPACE = "Checks Related to Address-Space Size"  # of host state
SECTIONS = {
    "VM-Execution Control Fields", "VM-Exit Control Fields", "VM-Entry Control Fields",
    "Checks on Host Control Registers, MSRs, and SSP", "Checks on Host Segment and Descriptor-Table Registers",
    SPACE, "Checks on Guest Control Registers, Debug Registers, and MSRs",
    "Checks on Guest Segment Registers", "Checks on Guest Descriptor-Table Registers",
    "Checks on Guest RIP, RFLAGS, and SSP", "Checks on Guest Non-Register State",
    "Checks on Guest Page-Directory-Pointer-Table Entries",
}  # fmt: skip


def canonical(value: int) -> int:
    return (value & (1 << 47) - 1) | (-(value >> 47 & 1) & ~((1 << 47) - 1) & (1 << 64) - 1)


# What "would pass" by the record's text, where that is one definite change.
MENDED = [
    ("canonical", canonical),
    ("not 0", lambda value: 8),
    ("4 at most", lambda value: value & 3),
    ("all ones", lambda value: (1 << 64) - 1),
    ("bits 63:32 zero", lambda value: value & 0xFFFFFFFF),
    ("bits 31:16 zero", lambda value: value & 0xFFFF),
    ("bits 31:15 zero", lambda value: value & 0x7FFF),
    ("bits 31:4 zero", lambda value: value & 15),
    ("RPL and TI zero", lambda value: value & ~7),
    ("TI zero", lambda value: value & ~4),
    ("accessed$", lambda value: value | 1),
    ("S one", lambda value: value | 0x10),
    ("P one$", lambda value: value | 0x80),
    ("bits 11:8 and 31:17 zero", lambda value: value & 0x1F0FF),
    ("bits 11:0 zero, within the physical", lambda value: value & PHYSICAL & ~0xFFF),
    ("16-byte aligned", lambda value: value & 0xFFFFFFF0),
    ("within the physical", lambda value: value & PHYSICAL),
    ("bits 30:12 zero", lambda value: value & 0x80000FFF),
    ("bits 10 and 11 zero", lambda value: value & ~0xC00),
    ("bits 63:22, 15, 5 and 3 zero", lambda value: value & 0x3F7FD7 | 2),
    ("only bits 3:0, 12 and 14", lambda value: value & 0x500F),
    ("each byte 0, 1 or 4 to 7", lambda value: 0x0007040600070406),
    ("PE, NE and PG 1", lambda value: value & 0xFFFFFFFF | 0x80000021),
    ("not HLT", lambda value: 0),
    ("no event", lambda value: 0),
    ("FFFFh", lambda value: 0xFFFF),
    ("F3h", lambda value: 0xF3),
    ("bits 63:2 zero", lambda value: value & 3),
    ("bits 63:48 identical", canonical),
    ("1 to 15", lambda value: 3),
]


def what_would_pass(failure: VmxFailure) -> int | None:
    for pattern, mend in MENDED:
        if re.match(pattern, failure.expected):
            return int(mend(failure.value))
    return None


class Fuzz:
    """A bench whose VMCS and guest are random, from one good state; several kinds of guests take turns."""

    def __init__(self, bits: int, seed: str) -> None:
        self.rng = random.Random(seed)
        self.bench = bench = Bench(bits=bits)
        self.cpu = bench.cpu
        bench.prepare(host_rip=HANDLER)
        for address, text in ((ENTER, "vmlaunch"), (ENTER + 16, "vmresume"), (HANDLER, "hlt")):
            self.cpu.memory.write(address, assemble(f"{text}\nhlt", bits, address))
        self.memory = self.cpu.memory.read(0, self.cpu.memory.size)
        self.root = self.cpu.save() | {"activity": 0, "rip": ENTER}
        self.kinds = [{}, secondary("ENABLE_EPT", "ENABLE_VPID"), primary("USE_IO_BITMAPS", "HLT_EXITING")]
        self.kinds += [pin("NMI_EXITING", "VIRTUAL_NMIS"), secondary("ENABLE_EPT", "UNRESTRICTED_GUEST")]
        self.kinds += [real_mode()] if bits == 32 else []
        self.ends: Counter[str] = Counter()

    def value(self, name: str, rng: random.Random | None = None) -> int:
        """Another value for a field: a bit turned, an address of something, a limit, anything."""
        rng, old = rng or self.rng, self.cpu.vmcs[name]
        width = FIELDS[name].width or 64
        kind = rng.randrange(5)
        if kind < 2:
            new = old ^ 1 << rng.randrange(min(width, 34) if rng.random() < 0.7 else width)
        elif kind == 2:
            new = rng.choice((0, 1, 0xFFFFFFFF, (1 << 64) - 1, 1 << 47, 0x7FFF, 0x1000, REGION, GUEST, GUEST_TABLES,
                              0xFEE00000, 1 << 39, 1 << 40, 0x1FFFF0, 0x1FF000, 0x1FFFFFF000))  # fmt: skip
        elif kind == 3:
            new = old + rng.choice((-1, 1, 8, 0x1000))
        else:
            new = rng.getrandbits(width)
        return new & (1 << width) - 1

    def reset(self) -> None:
        """The good state, with one of the kinds of guests and random code for it."""
        rng, memory = self.rng, self.cpu.memory
        memory.write(0, self.memory)
        self.cpu.restore(self.root)
        for name, value in rng.choice(self.kinds).items():
            plain = name.lstrip("+")
            self.cpu.vmcs[plain] = self.cpu.vmcs[plain] | value if name != plain else value
        memory.write(GUEST, b"".join(instruction(rng) for _ in range(60)))
        if rng.random() < 0.2:
            memory.write(rng.choice((GUEST_TABLES, GUEST_IDT, 0x60000, 0x61000, 0x62000, 0x6000)), rng.randbytes(64))

    def enter(self) -> str:
        """One VM entry from root operation: how it ended; what is on record is checked."""
        cpu, vmcs = self.cpu, self.cpu.vmcs
        before = cpu.exits
        failed_before = sum(before[name].count for name in before)
        stop = cpu.run(instructions=RUN, cycles=CYCLES)
        assert stop.reason in emu.StopReason
        if cpu.vmx_operation == "root" and sum(before[name].count for name in before) == failed_before:
            if stop.reason == "halted" and cpu.rip in (ENTER + 4, ENTER + 20):
                assert cpu.rflags & 0x8D5 == 0x40  # ZF alone: there is a current VMCS
                error = self.bench.failed
                assert error in (CONTROLS, HOST, "VMLAUNCH_NONCLEAR_VMCS", "VMRESUME_NONLAUNCHED_VMCS")
                if error in (CONTROLS, HOST):
                    self.check_record("Checks on Host" if error == HOST else "VM-")
                return error
            return "other"
        if cpu.vmx_operation == "root":
            reason = vmcs["EXIT_REASON"]
            assert reason & 0xFFFF in REASONS.values() and not reason & 0x7FFF0000
            if reason & FAILED_ENTRY:
                if reason & 0xFFFF == REASONS["VM_ENTRY_FAILURE_DUE_TO_INVALID_GUEST_STATE"]:
                    self.check_record("Checks on Guest")
                    assert vmcs["EXIT_QUALIFICATION"] in (0, 2, 4)
                    return "guest state"
                assert reason & 0xFFFF == REASONS["VM_ENTRY_FAILURE_DUE_TO_MSR_LOADING"]
                assert 1 <= vmcs["EXIT_QUALIFICATION"] <= vmcs["VM_ENTRY_MSR_LOAD_COUNT"]
                return "MSR loading"
            return "exit"
        return "ran"

    def check_record(self, section: str) -> None:
        failure = self.cpu.vmx_failure
        assert failure is not None and failure.check and failure.expected
        assert failure.section in SECTIONS
        assert failure.section.startswith(section if failure.section != SPACE else "Checks Related")
        assert self.cpu.vmcs[failure.field] == failure.value
        self.ends[f"{failure.check} ({failure.field})"] += 1

    def mend(self, fields: dict[str, int]) -> int:
        """Enters, changes the field of the record to what would pass, and so on; how many checks passed by that."""
        mended = 0
        for _ in range(60):
            self.cpu.restore(self.root)
            for name, value in fields.items():
                self.cpu.vmcs[name] = value
            how = self.enter()
            if how not in (CONTROLS, HOST, "guest state"):
                return mended
            failure = self.cpu.vmx_failure
            assert failure is not None
            wanted = what_would_pass(failure)
            if wanted is None or failure.field in ("VM_ENTRY_CONTROLS", "VM_EXIT_CONTROLS"):
                if failure.value == GOOD[failure.field]:
                    return mended  # another field is to blame
                fields[failure.field] = GOOD[failure.field]  # not definite: as it was
                continue
            self.cpu.restore(self.root)
            fields[failure.field] = wanted & (1 << (FIELDS[failure.field].width or 64)) - 1
            for name, field_value in fields.items():
                self.cpu.vmcs[name] = field_value
            if self.enter() in (CONTROLS, HOST, "guest state"):
                later = self.cpu.vmx_failure
                assert later is not None and (later.check, later.field) != (failure.check, failure.field), failure
            mended += 1
        raise AssertionError("it never passes")


GOOD = dict.fromkeys(WRITABLE, 0) | default_fields(32) | {"HOST_RIP": HANDLER}


@pytest.mark.parametrize("bits", [32, 64])
def test_a_few_fields_of_a_good_vmcs_changed(bits: int) -> None:
    fuzz = Fuzz(bits, f"few {bits}")
    ends: Counter[str] = Counter()
    for _ in range(LAUNCHES):
        fuzz.reset()
        for name in fuzz.rng.choices(WRITABLE, k=fuzz.rng.randrange(1, 11)):
            if name in fuzz.cpu.vmcs:
                fuzz.cpu.vmcs[name] = fuzz.value(name)
        how = fuzz.enter()
        ends[how] += 1
        if how in ("exit", "ran") and fuzz.cpu.vmx_operation == "root" and fuzz.rng.random() < 0.5:
            fuzz.cpu.rip = ENTER + 16
            fuzz.enter()
    assert min(ends[how] for how in (CONTROLS, HOST, "guest state", "exit")) > LAUNCHES // 100, ends
    assert len(fuzz.ends) > 50, fuzz.ends


@pytest.mark.parametrize("bits", [32, 64])
def test_everything_random(bits: int) -> None:
    """By VMPTRLD of a region full of random bytes, and by fields that are all random."""
    fuzz = Fuzz(bits, f"all {bits}")
    for number in range(LAUNCHES // 2):
        fuzz.reset()
        if number % 2:
            fuzz.cpu.memory.write(REGION2, (15).to_bytes(4, "little") + fuzz.rng.randbytes(4092))
            fuzz.cpu.memory.write(0xB000, REGION2.to_bytes(8, "little"))
            fuzz.cpu.memory.write(ENTER, assemble("vmptrld [0xb000]\nvmlaunch\nhlt", bits, ENTER))
            fuzz.cpu.run(instructions=RUN, cycles=CYCLES)
            assert fuzz.cpu.vmcs.address == REGION2
            continue
        for name in WRITABLE:
            if name in fuzz.cpu.vmcs and not name.endswith("CONTROLS"):
                fuzz.cpu.vmcs[name] = fuzz.rng.getrandbits(FIELDS[name].width or 64) if number % 4 else fuzz.value(name)
        fuzz.enter()


def test_what_a_record_asks_for_passes() -> None:
    fuzz = Fuzz(32, "mend")
    mended = 0
    for _ in range(LAUNCHES // 5):
        fuzz.cpu.memory.write(0, fuzz.memory)
        fields = dict(GOOD)
        for name, value in fuzz.rng.choice(fuzz.kinds).items():
            plain = name.lstrip("+")
            fields[plain] = fields[plain] | value if name != plain else value
        fuzz.cpu.restore(fuzz.root)
        for name in fuzz.rng.choices(WRITABLE, k=fuzz.rng.randrange(1, 11)):
            if name in fuzz.cpu.vmcs:
                fields[name] = fuzz.value(name)
        mended += fuzz.mend({name: value for name, value in fields.items() if name in fuzz.cpu.vmcs})
    assert mended > LAUNCHES // 10


@pytest.mark.parametrize("bits", [32, 64])
def test_checks_that_are_not_repeated_make_no_difference(bits: int) -> None:
    """VMWRITEs and VM entries in turn: on a second processor all checks are made each time, since a field was set."""
    one, other = both = Fuzz(bits, "kept"), Fuzz(bits, "kept")
    rng = random.Random(bits)
    write = assemble("vmwrite edx, eax" if bits == 32 else "vmwrite rdx, rax", bits, 0)
    entered = 0
    for _ in range(LAUNCHES // 10):
        for fuzz in both:
            fuzz.reset()
            for address, code in ((WRITE, write), (ENTER + 3, LOOP), (ENTER + 19, LOOP), (HANDLER, LOOP)):
                fuzz.cpu.memory.write(address, code)
        good = {name: one.cpu.vmcs[name] for name in WRITABLE if name in one.cpu.vmcs}
        changed: list[str] = []
        for _ in range(12):
            mend = len(changed) > 1
            name = changed.pop(0) if mend else rng.choice(list(good))
            value = good[name] if mend else one.value(name, rng)
            if not mend:
                changed.append(name)
            for fuzz in both:
                cpu = fuzz.cpu
                cpu.rip, cpu.rdx, cpu.rax = WRITE, FIELDS[name].encoding, value & (1 << bits) - 1
                cpu.run(instructions=1)
                for _ in range(2):  # the second entry has all checks behind it
                    cpu.rip = ENTER + 16 if cpu.save()["vmx"]["launched"] else ENTER
                    if fuzz is other:
                        cpu.vmcs["HOST_RIP"] = cpu.vmcs["HOST_RIP"]
                    cpu.run(instructions=RUN, cycles=CYCLES)
                    entered += cpu.transition_count > 0
                    if cpu.vmx_operation != "root":
                        break
            assert one.cpu.save() == other.cpu.save()
            assert one.cpu.vmx_failure == other.cpu.vmx_failure
            if one.cpu.vmx_operation != "root":
                break
        assert one.cpu.memory.read(0, MEMORY) == other.cpu.memory.read(0, MEMORY)
    assert entered > LAUNCHES // 3
