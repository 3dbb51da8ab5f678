"""A guest's ATA channel: as on the bare machine, with the HPA hidden, and taken over and given back at any word."""

import random
from pathlib import Path

import pytest

import asm
from bios.build import flash, folders
from emu import Disk, Machine, StopReason
from emu.policy import policy_nvram
from emu.service_disk import make_disk, read_hpa

from .conftest import Built
from .vmm import files_of

MEMORY = 32 << 20
SIZE = 16 << 20
HERE = Path(__file__).parent
SECTOR = 512


def rom_with(built: Built, step: int) -> bytes:
    """A flash chip with the guest that uses its disk, with a point at each `step` words, and the rude Service VM."""

    def assembled(name: str) -> bytes:
        return asm.assemble_file(HERE / name, include=folders("service", built.folder), defines={"STEP": step}).binary

    rom = built.rom()
    changed = {"guest": assembled("disk_guest.asm"), "service": assembled("disk_service.asm")}
    return flash(rom[-0x20000:], {**files_of(rom), **changed})


@pytest.fixture(scope="module")
def rom(built: Built) -> bytes:
    return rom_with(built, 32)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    make_disk(path, size=SIZE, partition=0, dump=4 << 20)
    with open(path, "r+b") as file:
        file.write(random.Random(1).randbytes(4 << 20))
    return path


def told(rom: bytes, disk: Path, cpu: str, **policy: object) -> tuple[list[str], str]:
    """What the guest says of its disk, and the console."""
    nvram = policy_nvram(boot="service", flags=[], regions=[], **policy)
    with Machine(MEMORY, cpu, firmware=rom, disks=[Disk(disk)], nvram=nvram) as machine:
        stop = machine.run(seconds=600)
        console = machine.serial.output.decode()
    assert stop.reason is StopReason.POWERED_OFF
    assert "LOST" not in console and "FAILED" not in console
    start = console.index("disk      identify")
    return [line for line in console[start:].splitlines() if line.startswith("disk")], console


def test_a_guest_s_disk_is_as_on_the_bare_machine(rom: bytes, disk: Path) -> None:
    with open(disk, "r+b") as file:  # without an HPA, which the bare machine's READ NATIVE MAX ADDRESS would show
        file.seek(-SECTOR, 2)
        file.write(bytes(SECTOR))
    bare, _ = told(rom, disk, "pentium3")
    assert len(bare) == 7
    for cpu in ("westmere", "prescott"):
        assert told(rom, disk, cpu)[0] == bare


@pytest.mark.parametrize(("step", "points"), [(32, 100), pytest.param(1, 800, marks=pytest.mark.slow)])
def test_taken_over_at_any_word_and_given_back(built: Built, disk: Path, step: int, points: int) -> None:
    """At each point, most of them within a block: the guest sees what it sees without."""
    rom = rom_with(built, step)
    alone, _ = told(rom, disk, "westmere")
    before = disk.read_bytes()
    disturbed, console = told(rom, disk, "westmere", ports=[(0x80, 0x80)])
    assert disturbed == alone
    assert int(console.split("takeover  times ")[1].split()[0]) > points
    hpa = read_hpa(disk)
    after, dump = disk.read_bytes(), slice(hpa.dump * SECTOR, (hpa.dump + 3) * SECTOR)
    assert after[dump] != before[dump]  # the Service VM has written there, and nowhere else
    assert before[: dump.start] == after[: dump.start] and before[dump.stop :] == after[dump.stop :]


def test_the_hpa_stays_hidden(rom: bytes, disk: Path) -> None:
    """READ NATIVE MAX ADDRESS tells a guest what POST left to show."""
    limit = read_hpa(disk).first
    alone, _ = told(rom, disk, "westmere")
    with open(disk, "r+b") as file:
        file.seek(-SECTOR, 2)
        file.write(bytes(SECTOR))
    assert limit < SIZE // SECTOR
    assert told(rom, disk, "westmere")[0][5] != alone[5]
