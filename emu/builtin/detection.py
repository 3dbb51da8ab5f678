"""How long after a fault the Service VM runs, in guest time: each fault with each detector that finds it.

The fault's moment is the cycle before the instruction that causes it, the detection's is that of the VM entry of the
Service VM; both are the machine's own. The guests are those of the scenarios, the detectors are events of the policy.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from emu import models
from emu.builtin.policy import policy_nvram
from emu.errors import EmuError
from emu.host.disk import SECTOR, Disk
from emu.machine import Machine
from emu.stop import StopReason

__all__ = ["FAULTS", "Detected", "Fault", "detect", "watched"]

DISK_FAILED = b"service   VM 1 a disk command failed"
DISK_SECTORS = 4096
SOFTWARE_NEEDS = 1 << 3 | 1 << 4 | 1 << 15 | 1 << 24  # CPUID leaf 1, EDX: PSE, TSC, CMOV, FXSR
START_SECONDS = 60  # POST, the decision and, where a period is short, the reports of hangs that were none


class Fault(NamedTuple):
    """A fault and a detector.

    Args:
        fault, detector: their names.
        guest: the guest that has it.
        place: the symbol of the instruction that causes it.
        policy: fields of the policy that watch for it.
        seconds: of guest time within which it must be detected.
        injected: a machine check is injected there.
        bad_sector: of the guest's disk, whose writes fail.
        times: the guest gets to the place so often; it is the last one that counts.
        found: False for a guest that works, which nothing may be found of.
    """

    fault: str
    detector: str
    guest: str
    place: str
    policy: Mapping[str, Any]
    seconds: float = 1.0
    injected: bool = False
    bad_sector: int | None = None
    times: int = 1
    found: bool = True


class Detected(NamedTuple):
    """A row of the table. Of a guest that works, and nothing was found of, cycles, seconds and reason are None."""

    fault: str
    detector: str
    cycles: int | None
    seconds: float | None
    reason: str | None
    """Basic exit reason of the VM exit by which it was detected."""


def hang(period: str, poll_us: int, polls: int) -> Fault:
    """A hang, polled. With a short period waiting for COM1 looks like one; then the guest goes on."""
    policy = {"poll_us": poll_us, "polls": polls, "flags": [], "after": "resume", "crash_limit": 0}
    detector = f"poll {period}, {polls} without progress"
    seconds = (polls + 2) * max(poll_us, 1000) / 1e6 + 1  # a period below a round trip is stretched
    return Fault("hang, interrupts off", detector, "hung", "guest_hung_hang", policy, seconds)


FAULTS: Sequence[Fault] = (
    Fault("none: it works to its end", "poll 20 ms, every trap", "healthy", "guest_healthy_guest_main",
          {"poll_us": 20_000, "exceptions": [6, 8, 13, 18]}, seconds=5, found=False),
    Fault("write to protected memory", "memory trap", "writer", "guest_guest_write_protected", {}),
    Fault("reach for the VMM's memory", "memory share", "hostile", "guest_hostile_reach_now", {}),
    Fault("double fault", "exception trap", "double", "guest_double_double_now", {"exceptions": [8]}),
    Fault("machine check", "exception trap", "machine", "guest_machine_wait_here", {"exceptions": [18]}, injected=True),
    Fault("triple fault", "triple-fault trap", "triple", "guest_triple_triple_now", {"exceptions": []}),
    Fault("triple fault", "double-fault trap", "triple", "guest_triple_triple_now", {"exceptions": [8]}),
    Fault("crash after two restarts", "triple-fault trap", "crashy", "guest_crashy_triple_now",
          {"exceptions": [], "after": "restart"}, times=3),
    Fault("failed disk write", "disk command", "diskfail", "guest_diskfail_ata_write", {}, bad_sector=3000),
    hang("1 us", 1, 255),
    hang("1 ms", 1000, 20),
    hang("10 s", 10_000_000, 1),
    hang("1 min", 60_000_000, 1),
)  # fmt: skip
"""Every fault with every detector that finds it, and a guest that has none."""


def watched(model: str) -> bool:
    """Whether the built-in firmware's VMM runs on a processor model: as POST asks for it, bios/firmware/boot.inc.

    Raises:
        ConfigError: an unknown model.
    """
    found = models.load(model)
    features = next((edx for leaf, _, _, _, _, edx in found["cpuid"] if leaf == 1), 0)
    return bool(found["vmx"]["exits"]) or features & SOFTWARE_NEEDS == SOFTWARE_NEEDS


def detect(fault: Fault, cpu: str, timing: str = "static") -> Detected:
    """Boots a machine with the fault's guest and measures.

    Raises:
        ConfigError: an unknown model or timing.
        EmuError: the guest did not get to its fault, or the fault was not detected, or one where none was.
    """
    policy = {"poll_us": 0, "after": "stop", **fault.policy, "boot": "service", "guests": [fault.guest]}
    with contextlib.ExitStack() as open_files:
        disks = [] if fault.bad_sector is None else [open_files.enter_context(bad_disk(fault.bad_sector))]
        machine = open_files.enter_context(
            Machine(cpu=cpu, timing=timing, nvram=policy_nvram(**policy), disks=disks)
        )  # fmt: skip
        for _ in range(fault.times):
            machine.run(instructions=1)  # from the place where it stopped last
            if machine.run(seconds=START_SECONDS, until=fault.place).reason is not StopReason.BREAKPOINT:
                raise EmuError(f"{cpu}: the guest {fault.guest} did not get to its fault at {fault.place}")
        at = machine.cycles
        if fault.injected:
            machine.cpu.inject_machine_check()
        machine.run(seconds=fault.seconds)
        for switch in machine.switches:
            # A guest whose fault nobody saw turns itself off, by a port; by one a drive's status is read, too.
            by_port = switch["reason"] == "IO_INSTRUCTION" and DISK_FAILED not in machine.serial.output
            if switch["cycle"] > at and switch["to"] == "Service VM" and not by_port:
                cycles = switch["cycle"] - at
                if not fault.found:
                    raise EmuError(f"{cpu}: {fault.detector} found something of the guest {fault.guest}, which works")
                return Detected(fault.fault, fault.detector, cycles, cycles / machine.board.clock.hz, switch["reason"])
        if not fault.found:
            return Detected(fault.fault, fault.detector, None, None, None)
        raise EmuError(f"{cpu}: {fault.fault} was not detected by {fault.detector} in {fault.seconds} s of guest time")


@contextlib.contextmanager
def bad_disk(sector: int) -> Iterator[Disk]:
    """A disk with a sector whose writes fail."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "disk.img"
        path.write_bytes(bytes(DISK_SECTORS * SECTOR))
        with Disk(path) as disk:
            disk.fail(sector, "write_fault")
            yield disk
