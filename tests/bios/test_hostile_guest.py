"""The hostile guest: what it tries is refused, nothing of the machine changes, VMM and the other guest live on."""

import re
from typing import Any

import pytest

from emu import Machine, StopReason
from emu.builtin.policy import decode_policy, policy_nvram

from .conftest import Built
from .vmm import Vmm

MEMORY = 64 << 20  # hostile.asm knows it


@pytest.fixture(scope="module", params=["westmere", "nehalem", "prescott"])
def end(built: Built, request: pytest.FixtureRequest) -> Any:
    """A machine at the end of a run of the hostile guest, and what it was before the guest tried."""
    nvram = policy_nvram(boot="service", guests=["hostile"], after="resume")
    with Machine(MEMORY, request.param, firmware=built.rom(), nvram=nvram) as machine:
        vmm = Vmm(machine, built.folder)
        machine.run(seconds=5, until=vmm.symbols["vmm_loop"])
        code = vmm.read("vmm_start", vmm.symbols["vm_table"] - vmm.symbols["vmm_start"])
        devices = machine.board.save()
        stop = machine.run(seconds=30)
        yield machine, vmm, stop, code, devices


def test_what_the_guest_says(end: Any) -> None:
    machine = end[0]
    text = machine.serial.output.decode()
    assert "GOT" not in text and "UNEXPECTED" not in text
    for what in ("VMX instructions refused", "control registers and selectors refused", "MSRs that cannot be written"):
        refused, tried = map(int, re.findall(f"{what}: (\\d+) of (\\d+)", text)[0])
        assert refused == tried > 5, what
    readable, tried = map(int, re.findall(r"MSRs that cannot be read: (\d+) of (\d+)", text)[0])
    assert (tried - readable, tried) == (4, 0x4000)  # IA32_TIME_STAMP_COUNTER and those of SYSENTER
    assert re.findall(r"VMCALLs that succeeded.*: (\d+)", text) == ["0", "0"]
    assert "hostile   5 timer interrupts at 100 Hz" in text


def test_its_reach_for_the_vmm_is_the_end_of_it(end: Any) -> None:
    text = end[0].serial.output.decode()
    address = MEMORY - (4 << 20)
    assert "service   VM 1 reached outside its memory" in text
    assert re.search(rf"reason [0-9A-F]{{8}} qualification [0-9A-F]{{8}} RIP [0-9A-F]{{8}} address {address:08X}", text)


def test_the_vmm_lives(end: Any) -> None:
    machine, vmm, stop, code, _ = end
    assert stop.reason is StopReason.POWERED_OFF
    assert "service   no guest left: power off" in machine.serial.output.decode()
    assert vmm.read("vmm_start", len(code)) == code


def test_the_other_guest_lives(built: Built) -> None:
    nvram = policy_nvram(boot="service", guests=["hostile", "healthy"], after="resume")
    with Machine(MEMORY, firmware=built.rom(), nvram=nvram) as machine:
        assert machine.run(seconds=30).reason is StopReason.POWERED_OFF
        text = machine.serial.output.decode()
        assert "service   VM 1 reached outside its memory" in text
        assert "service   VM 2 turned itself off" in text and "CHANGED" not in text and "UNEXPECTED" not in text


def test_the_machine_behind_is_as_it_was(end: Any) -> None:
    """It wrote to every port: no chip that is the VMM's took it."""
    machine, _, _, _, before = end
    after = machine.board.save()
    assert decode_policy(machine.board.rtc.nvram)["guests"] == ["hostile"]
    # Levels of interrupt requests, which come and go, and the address that the report of the Service VM has read last.
    passing = {"irq0", "isa", "confadd"}
    for chip in ("bridge", "isa", "ide", "port92", "reset_control", "a20"):
        seen, was = ({name: one[chip][name] for name in one[chip].keys() - passing} for one in (after, before))
        assert seen == was, chip
