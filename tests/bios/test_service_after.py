"""What becomes of a guest after a fault: the policy's `after`, and the limit of crashes in the event log."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from emu import Machine, StopReason
from emu.builtin.policy import policy_nvram

from .conftest import Built
from .service import MEMORY, shell
from .vmm import rom_with_guest

TRIPLE_FAULT = """
%include "x86.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "image.inc"
%include "console.inc"
main:
        mov     esi, text
        call    console_text
        lidt    [nothing]
        int3
nothing:
        times 6 db 0
text:   db      "guest begins", 13, 10, 0
"""
CRASHED = "service   VM 1 triple fault"
LIMIT = "crashes in the event log, the policy's limit: it is stopped"


@contextmanager
def crashing(built: Built, tmp_path: Path, **fields: Any) -> Iterator[Machine]:
    """A machine whose guest makes a triple fault as soon as it has said that it begins."""
    source = tmp_path / "guest.asm"
    source.write_text(TRIPLE_FAULT)
    nvram = policy_nvram(boot="service", flags=[], exceptions=[], **fields)
    rom = rom_with_guest(built.rom(), built.folder, source)
    with Machine(MEMORY, "westmere", firmware=rom, nvram=nvram) as machine:
        yield machine


def run(machine: Machine) -> str:
    assert machine.run(seconds=20).reason is StopReason.POWERED_OFF
    return machine.serial.output.decode()


@pytest.mark.parametrize("limit", [1, 3, 5])
def test_restarted_until_the_limit(built: Built, tmp_path: Path, limit: int) -> None:
    with crashing(built, tmp_path, after="restart", crash_limit=limit) as machine:
        said = run(machine)
        assert said.count("guest begins") == said.count(CRASHED) == limit
        assert f"service   VM 1 has {limit} {LIMIT}" in said and said.count(LIMIT) == 1
        kinds = [record.data[13] for record in machine.bmc.sel]
        assert kinds == [3] * limit


def test_crashes_of_earlier_times_count_and_those_of_others_do_not(built: Built, tmp_path: Path) -> None:
    with crashing(built, tmp_path, after="restart", crash_limit=3) as machine:
        for vm, kind in ((1, 3), (2, 3), (1, 1), (1, 4)):  # one crash; of another VM; a trap; a power off
            record = bytearray(16)
            record[2], record[7], record[10], record[12] = 2, 1, 0x20, 0x6F
            record[13:16] = bytes((kind, vm, 0))
            machine.bmc.sel.add(bytes(record), 1)
        assert run(machine).count("guest begins") == 2


def test_without_a_limit_it_is_restarted_for_ever(built: Built, tmp_path: Path) -> None:
    with crashing(built, tmp_path, after="restart", crash_limit=0) as machine:
        machine.serial.expect(b"guest begins", seconds=20)
        for _ in range(8):
            machine.serial.expect(b"guest begins", seconds=20)
        assert LIMIT.encode() not in machine.serial.output


@pytest.mark.parametrize("after", ["resume", "stop"])
def test_what_cannot_go_on_is_stopped(built: Built, tmp_path: Path, after: str) -> None:
    with crashing(built, tmp_path, after=after, crash_limit=0) as machine:
        said = run(machine)
        assert said.count("guest begins") == said.count(CRASHED) == 1
        assert said.rstrip().endswith("VMM       the Service VM is off: power off")


def test_stay_opens_the_shell_and_restart_begins_the_guest_again(built: Built, tmp_path: Path) -> None:
    source = tmp_path / "guest.asm"
    source.write_text(TRIPLE_FAULT)
    rom = rom_with_guest(built.rom(), built.folder, source)
    with shell(rom, built.folder, after="stay", crash_limit=0, exceptions=[]) as at:
        at.machine.serial.send(b"go\r")
        assert CRASHED in at.wait()
        assert at.do("resume 1") == "the VMM says: it cannot go on\n"
        assert at.do("go") == "the VMM says: it cannot go on\n"
        assert at.do("restart 1") == ""
        assert "restarts 1" in at.do("vms")
        at.machine.serial.send(b"leave\r")
        said = at.wait()
        assert "guest begins" in said and CRASHED in said


def test_the_report_of_a_fault(built: Built, tmp_path: Path) -> None:
    """Registers, code, stack, chips, log, sensors: each in a few lines, before anything is decided."""
    with crashing(built, tmp_path, after="stop") as machine:
        said = run(machine)
    report = said[said.index(CRASHED) :]
    wanted = (
        "service   reason 00000002", "service   EAX", "service   memory at RIP", "int3", "return addresses by EBP",
        "PIC 20h: IRR", "PM1_STS", "CPU temperature", "no guest left",
    )  # fmt: skip
    places = [report.index(text) for text in wanted]
    assert places == sorted(places) and "service   SEL record 1\r\n" in report
    assert len(report.splitlines()) < 60
