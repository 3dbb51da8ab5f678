"""POST and the drives: a Host Protected Area is hidden before anything can see it. ATA-6, "Host Protected Area"."""

from pathlib import Path

import pytest

from emu import Disk, Machine
from emu.builtin.service_disk import make_disk, read_hpa
from emu.host.disk import SECTOR

from .conftest import Built
from .vmm import BARE_MEMORY

MIB = 1 << 20


def post(built: Built, *disks: Disk | None) -> str:
    """The console's lines about drives, with these on the channels."""
    placed = [disk for disk in disks if disk is not None]
    with Machine(BARE_MEMORY, "pentium3", firmware=built.rom(), disks=placed) as machine:
        machine.run(seconds=20)
        console = machine.serial.output.decode()
    return "\n".join(line for line in console.splitlines() if line.startswith("disk"))


def test_no_drive(built: Built) -> None:
    assert post(built) == ""


def test_the_hpa_is_hidden(built: Built, tmp_path: Path) -> None:
    make_disk(tmp_path / "disk.img", size=32 * MIB, image=b"service", dump=8 * MIB)
    first = read_hpa(tmp_path / "disk.img").first
    with Machine(BARE_MEMORY, "pentium3", firmware=built.rom(), disks=[Disk(tmp_path / "disk.img")]) as machine:
        machine.run(seconds=20)
        drive = machine.board.drives[0]
        console = machine.serial.output.decode()
    assert f"disk      primary channel, 65536 sectors: {first} show, behind them is the Host Protected Area" in console
    assert drive.save()["limit"] == first and drive.save()["lasting_limit"] == 65536


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: bytes(SECTOR), "no Host Protected Area"),
        (lambda data: data[:12] + b"\xff" + data[13:], "the Host Protected Area's directory is damaged"),
    ],
)
def test_what_is_no_hpa_stays_as_it_is(built: Built, tmp_path: Path, change: object, why: str) -> None:
    path = tmp_path / "disk.img"
    make_disk(path, size=16 * MIB, partition=0, dump=4 * MIB)
    data = path.read_bytes()
    path.write_bytes(data[:-SECTOR] + change(data[-SECTOR:]))  # type: ignore[operator]
    assert post(built, Disk(path)) == f"disk      primary channel, 32768 sectors: {why}"


def test_a_last_sector_that_cannot_be_read(built: Built, tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    make_disk(path, size=16 * MIB, partition=0, dump=4 * MIB)
    disk = Disk(path)
    disk.fail(32767)
    assert post(built, disk) == "disk      primary channel, 32768 sectors: the last sector cannot be read"
