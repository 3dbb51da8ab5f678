"""VM exits and switches as a machine shows and reports them."""

import json

import pytest
from vmm import GUEST, VMM, Bench, assemble

import emu
from emu._core import Transition
from emu.machine import switches_among


@pytest.fixture
def machine() -> emu.Machine:
    """A machine in the state of a bench whose guest has left by CPUID, about to go back into it."""
    bench = Bench()
    assert bench.exit("again: cpuid\njmp again") == "CPUID"
    made = emu.Machine(memory=2 << 20, cpu="westmere")
    made.memory.write(0, bench.cpu.memory.read(0, 640 << 10))
    made.memory.write(VMM, assemble("bits 32\nvmresume\nud2", 32, VMM))
    made.cpu.restore(bench.cpu.save())
    made.cpu.rip = VMM
    return made


def test_exits_and_the_report(machine: emu.Machine) -> None:
    before = machine.exits["CPUID"].count
    stop = machine.run(instructions=20)
    assert machine.exits["CPUID"].count == before + 1 and machine.exits["HLT"].count == 0
    assert machine.vmcs["GUEST_RIP"] == GUEST and machine.vmx_failure is None
    with pytest.raises(KeyError):
        machine.exits["NOSUCH"]
    report = json.loads(json.dumps(machine.report(stop, 1.0)))
    assert report["vm_exits"]["CPUID"]["count"] == before + 1 and set(report["vm_exits"]) == {"CPUID"}
    assert report["vm_switches"] == []


def test_vmx_state_is_part_of_a_snapshot(machine: emu.Machine) -> None:
    start = machine.snapshot()
    machine.run(instructions=20)
    end = machine.snapshot()
    assert start.state["cpu"] != end.state["cpu"]
    other = emu.Machine(memory=2 << 20, cpu="westmere")
    other.restore(start)
    other.run(instructions=20)
    assert other.snapshot() == end, other.snapshot().differences(end)


def test_switches_are_entries_of_another_vm() -> None:
    def entry(cycle: int, vmcs: int) -> Transition:
        return Transition(cycle, "entry", None, 0, 0, vmcs, False)

    def exit(cycle: int, vmcs: int, reason: str) -> Transition:
        return Transition(cycle, "exit", reason, 7, 0, vmcs, False)

    found = switches_among(
        [entry(1, 0x1000), exit(2, 0x1000, "CPUID"), entry(3, 0x1000), exit(4, 0x1000, "HLT"), entry(5, 0x2000)]
    )
    assert found == [{"cycle": 5, "from": 0x1000, "to": 0x2000, "reason": "HLT", "qualification": 7}]
    assert switches_among([entry(1, 0x1000)]) == [] == switches_among([])
