"""VM exits and switches as a machine shows and reports them."""

import json
import struct

import pytest
from vmm import GUEST, VMM, Bench, assemble

import emu
from emu._core import Transition
from emu.vm_log import SIGNATURE, VmLog, names_in


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


class Entries:
    """A processor's VM entries and exits, made up."""

    def __init__(self, *all_of_them: Transition) -> None:
        self.all = all_of_them
        self.transition_count = 0

    def transitions(self, since: int = 0) -> list[Transition]:
        return list(self.all[since : self.transition_count])

    def switch_transitions(self, since: int, vmcs: int | None) -> list[Transition]:
        return self.transitions(since)  # nothing left out


def test_switches_are_entries_of_another_vm() -> None:
    def entry(cycle: int, vmcs: int) -> Transition:
        return Transition(cycle, "entry", None, 0, 0, vmcs, False)

    def exit(cycle: int, vmcs: int, reason: str) -> Transition:
        return Transition(cycle, "exit", reason, 7, 0x99, vmcs, False)

    cpu = Entries(
        entry(1, 0x1000), exit(2, 0x1000, "CPUID"), entry(3, 0x1000), exit(4, 0x1000, "HLT"), entry(5, 0x2000),
        exit(6, 0x2000, "VMCALL"), entry(8, 0x1000),
    )  # fmt: skip
    log = VmLog(cpu, emu._core.Memory(1 << 20))
    for count in range(len(cpu.all) + 1):
        cpu.transition_count = count
        log.poll()
    assert log.switches() == [(5, "VM 0", "VM 1", "HLT", 7, 0x99), (8, "VM 1", "VM 0", "VMCALL", 7, 0x99)]
    assert log.count == 2 and list(log.costs) == [1, 2]


def test_a_vmm_names_its_vms() -> None:
    memory = emu._core.Memory(1 << 20)
    memory.write(0x8000, SIGNATURE + struct.pack("<4I", 0, 256, 2, 0))
    name = struct.Struct("<Q2I16s")
    memory.write(0x8020, name.pack(0x2000, 0, 0, b"Service VM") + name.pack(0x1000, 1, 0, b"\xff"))
    assert names_in(memory) == {0x2000: "Service VM"}
    memory.write(0x8018, b"\xff\xff\xff\xff")  # a count beyond the table
    assert names_in(memory) == {0x2000: "Service VM"}
    assert names_in(emu._core.Memory(1 << 20)) == {}
