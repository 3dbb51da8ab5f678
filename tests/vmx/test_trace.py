"""Traces of guests: VM entries and VM exits between the instructions, and one VM's instructions alone."""

import io

from vmm import HANDLERS, Bench

from emu.debug.trace import Trace


def traced(only_guest: bool) -> list[str]:
    bench = Bench()
    bench.guest("mov eax, 7\ncpuid")
    bench.prepare()
    file = io.StringIO()
    wanted = (lambda: bench.cpu.vmx_operation == "non-root") if only_guest else None
    with Trace(bench.cpu, file, wanted=wanted):
        bench.enter()
    assert bench.exited and bench.cpu.rip == HANDLERS + 32
    return [line[29:].split("  ")[-1].strip() for line in file.getvalue().splitlines()]


def test_entries_and_exits_stand_between_the_instructions() -> None:
    assert traced(False) == [
        "vmlaunch", "---- VM entry, VMCS 0x2000, RIP 0x20000", "mov eax, 7", "cpuid",
        "---- VM exit CPUID, qualification 0x0", "hlt",
    ]  # fmt: skip


def test_the_guest_alone() -> None:
    assert traced(True) == [
        "---- VM entry, VMCS 0x2000, RIP 0x20000", "mov eax, 7", "cpuid", "---- VM exit CPUID, qualification 0x0",
    ]  # fmt: skip
