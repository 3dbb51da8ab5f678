"""A scenario: the built-in firmware with a policy, what is done to the machine meanwhile, and what must come of it.

Everything happens at the same cycle each time: what is typed or injected comes at the first of the moments, a few
milliseconds of guest time apart, at which its line is on the console.
"""

import contextlib
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from emu.builtin.policy import policy_nvram
from emu.builtin.service_disk import (
    FAT_RESERVED,
    IMAGE_MOST,
    PARTITION_FIRST,
    image_with_header,
    make_disk,
    service_image,
)
from emu.debug.timeline import Timeline
from emu.host.disk import SECTOR, Disk
from emu.host.ymodem import YmodemReceiver
from emu.machine import Machine
from emu.stop import Stop, StopReason

__all__ = ["Outcome", "Scenario", "Step", "run_scenario"]

LOOK_SECONDS = 0.005  # of guest time, between two looks at the console
SHOW_SECONDS = 0.05  # of guest time, between two times that the console is shown
DISK_BYTES = 16 << 20
DUMP_BYTES = 4 << 20
PARTITION_BYTES = 8 << 20
FAT_LOOP = struct.pack("<H", 2)  # of cluster 2, the first one of the Service OS's file: it follows itself


class Step(NamedTuple):
    """What is done when a line of the console has come, after that of the step before.

    Args:
        after: part of the line.
        keys: typed on COM1.
        press: name of a key of the keyboard.
        modem: what comes on the modem line.
        machine_check: one is injected.
        wait: seconds of guest time between the line and this.
    """

    after: str
    keys: str = ""
    press: str = ""
    modem: str = ""
    machine_check: bool = False
    wait: float = 0.0


class Scenario(NamedTuple):
    """A run and what must come of it.

    Args:
        about: what it shows, in one line.
        policy: fields of the policy, as `emu.builtin.policy.policy_nvram` takes them.
        lines: parts of lines that the console must show, in this order.
        never: what it must not show.
        switches: those between VMs that there must be among others, in this order, as "VM > VM: exit reason".
        end: why the run ends.
        steps: what is done meanwhile.
        disk: none, or `plain`, `partition` (with the Service OS on it), `hpa` (with it and room for a dump); `damaged`,
            `oversized` and `loop` are partitions whose Service OS has a wrong checksum, is too long, or is a file whose
            chain of clusters does not end.
        bad_sectors: of the disk, whose writes fail.
        cpu: the processor model.
        seconds: of guest time, at most.
        received: files that must come over the modem line, where a YMODEM receiver is then, each with a text in it.
    """

    about: str
    policy: Mapping[str, Any]
    lines: Sequence[str]
    never: Sequence[str] = ()
    switches: Sequence[str] = ()
    end: StopReason = StopReason.POWERED_OFF
    steps: Sequence[Step] = ()
    disk: str = ""
    bad_sectors: Sequence[int] = ()
    cpu: str = "westmere"
    seconds: float = 20.0
    received: Mapping[str, str] = {}


class Outcome(NamedTuple):
    """What came of it. `problems` has a line for each thing that is not as it should be."""

    problems: list[str]
    stop: Stop
    guest_seconds: float
    switches: int
    console: str
    timeline: Timeline


def run_scenario(scenario: Scenario, folder: Path, shown: Callable[[bytes], object] | None = None) -> Outcome:
    """Runs it. The folder is for its disk; `shown` gets what the console prints as it comes."""
    with contextlib.ExitStack() as open_files:
        disks = [open_files.enter_context(disk_of(scenario, folder / "disk.img"))] if scenario.disk else []
        nvram = policy_nvram(**scenario.policy)
        modem = YmodemReceiver() if scenario.received else "null"
        machine = open_files.enter_context(Machine(cpu=scenario.cpu, nvram=nvram, disks=disks, modem=modem))
        timeline = machine.vm_log.timeline = Timeline(machine.board.clock.hz, ("VMM",))
        seen: list[str] = []
        stop = follow(Follower(machine, scenario.seconds, shown), scenario, seen)
        machine.poll()
        machine.vm_log.finish()
        console = machine.serial.output.decode(errors="replace")
        problems = [*seen, *missing(scenario, console, machine)]
        if isinstance(modem, YmodemReceiver):
            problems += not_received(scenario, modem)
        if stop.reason is not scenario.end:
            problems.append(f"it ended with {stop.reason} in place of {scenario.end}")
        seconds = machine.cycles / machine.board.clock.hz
        return Outcome(problems, stop, seconds, machine.vm_log.count, console, timeline)


def disk_of(scenario: Scenario, path: Path) -> Disk:
    """Makes the scenario's disk."""
    service = service_image()
    on_partition = image_with_header(service)
    files = {
        "partition": on_partition,
        "loop": on_partition,
        "damaged": on_partition[:-1] + bytes([on_partition[-1] ^ 1]),
        "oversized": image_with_header(bytes(IMAGE_MOST + 1)),
    }
    make_disk(
        path,
        size=DISK_BYTES,
        partition=0 if scenario.disk == "plain" else PARTITION_BYTES,
        files={"SERVICE.BIN": files[scenario.disk]} if scenario.disk in files else {},
        image=service if scenario.disk == "hpa" else None,
        dump=DUMP_BYTES if scenario.disk == "hpa" else 0,
    )
    if scenario.disk == "loop":
        with path.open("r+b") as file:
            file.seek((PARTITION_FIRST + FAT_RESERVED) * SECTOR + 2 * len(FAT_LOOP))
            file.write(FAT_LOOP)
    disk = Disk(path)
    for sector in scenario.bad_sectors:
        disk.fail(sector, "write_fault")
    return disk


class Follower:
    """A machine that runs piece by piece, up to a limit, and whose console is shown meanwhile."""

    def __init__(self, machine: Machine, seconds: float, shown: Callable[[bytes], object] | None) -> None:
        self.machine = machine
        self.last = round(seconds * machine.board.clock.hz)
        self.shown = shown
        self.printed = 0

    def run(self, seconds: float) -> Stop:
        """Runs so long, or to the limit or the machine's end."""
        machine = self.machine
        hz = machine.board.clock.hz
        until = min(self.last, machine.cycles + round(seconds * hz))
        while True:
            left = until - machine.cycles
            stop = machine.run(cycles=max(0, left if self.shown is None else min(left, round(SHOW_SECONDS * hz))))
            if self.shown is not None:
                output = machine.serial.output
                self.shown(output[self.printed :])
                self.printed = len(output)
            if stop.reason is not StopReason.LIMIT or machine.cycles >= until:
                return stop

    @property
    def over(self) -> bool:
        """Whether the limit is reached."""
        return self.machine.cycles >= self.last


def follow(follower: Follower, scenario: Scenario, problems: list[str]) -> Stop:
    """Runs the machine and does what the steps say."""
    machine = follower.machine
    at = 0  # of the console, where the next step's line may begin
    for step in scenario.steps:
        wanted = step.after.encode()
        while (found := machine.serial.output.find(wanted, at)) < 0:
            over = follower.over
            stop = follower.run(LOOK_SECONDS)
            if over or stop.reason is not StopReason.LIMIT:
                problems.append(f"{step.after!r} did not come, so a step was not taken")
                return stop
        at = found + len(wanted)
        if step.wait:
            follower.run(step.wait)
        act(machine, step)
    return follower.run(scenario.seconds)


def act(machine: Machine, step: Step) -> None:
    """Does what a step says."""
    if step.keys:
        machine.serial.send(step.keys.encode())
    if step.press:
        machine.keyboard.hotkey(step.press)
    if step.modem:
        machine.modem.send(step.modem.encode())
    if step.machine_check:
        machine.cpu.inject_machine_check()


def not_received(scenario: Scenario, receiver: YmodemReceiver) -> list[str]:
    """What of the files on the modem line is not as it should be."""
    problems = [] if receiver.done else ["the modem line's sender did not end"]
    for name, text in scenario.received.items():
        if text.encode() not in receiver.files.get(name, b""):
            problems.append(f"no {name} with {text!r} came over the modem line")
    return problems


def missing(scenario: Scenario, console: str, machine: Machine) -> list[str]:
    """What of the console's lines and the switches is not as it should be."""
    problems = []
    at = 0
    for line in scenario.lines:
        found = console.find(line, at)
        if found < 0:
            where = "though earlier, it" if line in console else "it"
            problems.append(f"the console lacks {line!r}: {where} did not come in its turn")
            break
        at = found + len(line)
    problems += [f"the console has {text!r}" for text in scenario.never if text in console]
    switches = iter(f"{one['from']} > {one['to']}: {one['reason']}" for one in machine.switches)
    problems += [f"no switch {wanted!r} in its turn" for wanted in scenario.switches if wanted not in switches]
    return problems
