"""Guest 312: each kind of guest on the bare machine and under the VMM."""

from pathlib import Path

import pytest

import asm
from bios.build import HERE, folders
from emu import Machine, StopReason
from emu.builtin.policy import guest_files, policy_nvram
from emu.host.disk import Disk

from .conftest import Built
from .vmm import files_of

MEMORY = 64 << 20
BAD_LBA = 3000  # diskfail.asm
SECTORS = 8192

# What each says after it has started, and how the machine ends, on the bare machine.
NATIVE = {
    "writer": (["5 timer interrupts", "undisturbed", "5 timer interrupts", "ends well"], StopReason.POWERED_OFF),
    "healthy": (
        ["5 timer interrupts", "rounds of work 8", "has no disk", "5 timer", "ends well"], StopReason.POWERED_OFF
    ),
    "aware": (
        ["runtime services: the year is 2000", "runtime services: this is its life number 1",
         "there is nobody to talk to", "ends well"],
        StopReason.POWERED_OFF,
    ),
    "hung": (["5 timer interrupts", "hangs, with interrupts off"], StopReason.LIMIT),
    "double": (["causes a double fault", "took the double fault", "ends well"], StopReason.POWERED_OFF),
    "machine": (["waits for a machine check", "no machine check came"], StopReason.POWERED_OFF),
    "triple": (["causes a triple fault"], StopReason.TRIPLE_FAULT),
    "diskfail": (["has no disk"], StopReason.POWERED_OFF),
    "crashy": (["5 timer interrupts", "causes a triple fault"], StopReason.TRIPLE_FAULT),
    "hostile": (["has no VMM to get out of"], StopReason.POWERED_OFF),
}  # fmt: skip


def said(machine: Machine, guest: str) -> list[str]:
    """The guest's own lines."""
    name = guest_files()[guest]
    lines = machine.serial.output.decode().splitlines()
    return [line[10:] for line in lines if line[:10].rstrip() == name]


def check(machine: Machine, guest: str, lines: list[str]) -> None:
    seen = said(machine, guest)
    assert len(seen) == len(lines) and all(one.startswith(begin) for one, begin in zip(seen, lines, strict=True)), seen


def disk(folder: Path) -> Path:
    """An image whose sectors all differ."""
    path = folder / "disk.img"
    path.write_bytes(b"".join(lba.to_bytes(4, "little") * 128 for lba in range(SECTORS)))
    return path


def test_every_guest_is_in_the_flash_chip(built: Built) -> None:
    assert set(guest_files().values()) <= files_of(built.rom()).keys()
    assert NATIVE.keys() == guest_files().keys()


@pytest.mark.parametrize("guest", NATIVE)
def test_guest_312_on_the_bare_machine(built: Built, guest: str) -> None:
    lines, reason = NATIVE[guest]
    with Machine(MEMORY, firmware=built.rom(), nvram=policy_nvram(boot="native", guests=[guest])) as machine:
        assert machine.run(seconds=15).reason is reason
        check(machine, guest, ["started on the bare machine", *lines])


def test_a_healthy_guest_leaves_its_disk_as_it_was(built: Built, tmp_path: Path) -> None:
    path = disk(tmp_path)
    before = path.read_bytes()
    nvram = policy_nvram(boot="native", guests=["healthy"])
    with Machine(MEMORY, firmware=built.rom(), nvram=nvram, disks=[Disk(path)]) as machine:
        assert machine.run(seconds=15).reason is StopReason.POWERED_OFF
        assert "disk: 8 sectors read, written and read again" in said(machine, "healthy")
    assert path.read_bytes() == before


def test_a_failed_write_on_the_bare_machine(built: Built, tmp_path: Path) -> None:
    path = disk(tmp_path)
    before = path.read_bytes()
    image = Disk(path)
    image.fail(BAD_LBA, "write_fault")
    nvram = policy_nvram(boot="native", guests=["diskfail"])
    with Machine(MEMORY, firmware=built.rom(), nvram=nvram, disks=[image]) as machine:
        assert machine.run(seconds=15).reason is StopReason.POWERED_OFF
        seen = said(machine, "diskfail")
        assert seen[1].startswith("write of LBA 3000 failed: status ") and seen[2:] == ["reads on as before", seen[-1]]
    assert path.read_bytes() == before


@pytest.mark.parametrize("boot", ["native", "service"])
def test_a_machine_check_is_taken(built: Built, boot: str) -> None:
    nvram = policy_nvram(boot=boot, guests=["machine"], exceptions=[])
    with Machine(MEMORY, firmware=built.rom(), nvram=nvram) as machine:
        program = asm.assemble_file(HERE / "guest" / "machine.asm", include=folders("guest", built.folder))
        assert machine.run(seconds=5, until=program.symbols["wait_here"]).reason is StopReason.BREAKPOINT
        machine.cpu.inject_machine_check()
        machine.run(seconds=15)
        assert said(machine, "machine")[2:] == ["took the machine check", "ends well, power off through ACPI"]


@pytest.mark.parametrize("cpu", ["westmere", "nehalem", "prescott"])
@pytest.mark.parametrize("guest", ["healthy", "double", "crashy", "triple"])
def test_guest_312_under_the_vmm(built: Built, guest: str, cpu: str) -> None:
    lines, _ = NATIVE[guest]
    nvram = policy_nvram(boot="service", guests=[guest], after="resume")
    with Machine(MEMORY, cpu, firmware=built.rom(), nvram=nvram) as machine:
        assert machine.run(seconds=15).reason is StopReason.POWERED_OFF
        check(machine, guest, ["started under the VMM", *lines])


def test_two_kinds_at_once_do_not_disturb_each_other(built: Built) -> None:
    nvram = policy_nvram(boot="service", guests=["triple", "healthy", "double"], after="resume")
    with Machine(MEMORY, firmware=built.rom(), nvram=nvram) as machine:
        assert machine.run(seconds=15).reason is StopReason.POWERED_OFF
        text = machine.serial.output.decode()
        for vm in (2, 3):  # what a guest prints may be cut in two by an event of another
            assert f"service   VM {vm} turned itself off" in text
