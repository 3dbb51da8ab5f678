"""A guest without an exit wanted behaves under VT-x as on the bare machine, state for state: random instructions, run
one after another in a guest (with EPT and VPID, in an unrestricted guest) and on a bare processor."""

import random
import sys
from pathlib import Path

import pytest
from vmm import GUEST, Bench, real_mode, secondary

import emu

sys.path.append(str(Path(__file__).parent.parent / "instructions"))
import cases

FEATURES = {
    "8086",
    "186",
    "286",
    "386",
    "486",
    "586",
    "686",
    "CX8",
    "CMOV",
    "SSE",
    "SSE2",
    "LM",
    "CX16",
    "POPCNT",
    "FPU",
}
NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))


def guest(bits: int) -> emu.Cpu:
    """A processor in a guest of that code size, whose VMM wants no exit that can be left out."""
    bench = Bench(bits=64 if bits == 64 else 32)
    mode: dict[str, int] = {}
    if bits == 16:
        mode = real_mode()
        for name in ("ES", "CS", "SS", "DS", "FS", "GS"):
            mode |= {f"GUEST_{name}_SELECTOR": cases.SEGMENT_BASE >> 4, f"GUEST_{name}_BASE": cases.SEGMENT_BASE}
        assert cases.SEGMENT_BASE == GUEST
    bench.guest("jmp $", bits)
    bench.prepare(mode, secondary("ENABLE_EPT", "ENABLE_VPID", "UNRESTRICTED_GUEST"))
    bench.enter(limit=20)
    assert bench.cpu.vmx_operation == "non-root"
    return bench.cpu


def bare(bits: int) -> emu.Cpu:
    cpu = emu.Cpu(bits=bits, cpu="westmere", memory=0x200000, faults="deliver")
    if bits == 16:
        for name in ("cs", "ss", "ds", "es", "fs", "gs"):
            segment = getattr(cpu, name)
            segment.selector, segment.base = cases.SEGMENT_BASE >> 4, cases.SEGMENT_BASE
    return cpu


def outcome(cpu: emu.Cpu, case: cases.Case, window: bytes) -> dict[str, int | bytes | str]:
    """The state after the case. What faults ends at the handler, which is asked for by the hook."""
    base = cases.SEGMENT_BASE if case.bits == 16 else 0
    cpu.memory.write(cases.WINDOW, window)
    cpu.memory.write(case.address, case.code)
    for name, value in zip(NAMES[: 16 if case.bits == 64 else 8], case.registers, strict=False):
        setattr(cpu, name, value)
    cpu.rflags = case.flags | 2
    cpu.rip = case.address - base
    vectors: list[int] = []

    def faulted(vector: int, rip: int) -> None:
        vectors.append(vector)
        raise InterruptedError

    hook = cpu.hook("interrupt", faulted)
    before = cpu.cycles
    try:
        cpu.step()
        while cpu.rip == case.address - base and case.repeats:
            cpu.step()
    except InterruptedError:
        return {"vector": vectors[0], "memory": b""}
    finally:
        hook.remove()
    found: dict[str, int | bytes | str] = {name: getattr(cpu, name) for name in NAMES}
    found |= {"rip": cpu.rip, "flags": cpu.rflags, "cycles": cpu.cycles - before}
    return found | {"memory": cpu.memory.read(cases.WINDOW, cases.WINDOW_SIZE)}


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_random_instructions(bits: int) -> None:
    forms = cases.forms(bits, lambda since: since in FEATURES)
    pool = random.Random(1).randbytes(cases.POOL_SIZE)
    inside, outside = guest(bits), bare(bits)
    origin = inside.save()
    for case in cases.random_cases(f"guest {bits}", bits, 3000, forms):
        window = bytes(case.memory(pool))
        expected = outcome(outside, case, window)
        got = outcome(inside, case, window)
        if "vector" in expected or "vector" in got:
            assert expected.get("vector") == got.get("vector"), case.describe()
            inside.restore(origin)  # a fault was on its way into the handler
            outside = bare(bits)
            continue
        assert {name: (value, got[name]) for name, value in expected.items() if value != got[name]} == {}, (
            case.describe()
        )
    assert inside.vmx_operation == "non-root" and not any(inside.exits[name].count for name in inside.exits)
