"""Disk images: what is opened, locked, written and kept."""

import os
from pathlib import Path

import pytest

from emu.errors import BadInput, ConfigError, DiskError
from emu.host import disk as module
from emu.host.disk import Disk, open_disk


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Eight sectors, each of its number."""
    path = tmp_path / "a.img"
    path.write_bytes(b"".join(bytes([number]) * 512 for number in range(8)))
    return path


def sector(byte: int) -> bytes:
    return bytes([byte]) * 512


@pytest.mark.parametrize("size", [0, 1, 511, 513, 1000])
def test_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "odd.img"
    path.write_bytes(bytes(size))
    with pytest.raises(BadInput, match=rf"odd\.img: {size} bytes are no disk image: not a multiple of 512, or empty"):
        Disk(path)


def test_what_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.img: No such file"):
        Disk(tmp_path / "none.img")
    with pytest.raises(BadInput):
        Disk(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    for options in ({}, {"snapshot": True}):  # nobody writes the pipe: opening it must not wait
        with pytest.raises(BadInput, match="not a file that can hold a disk"):
            Disk(tmp_path / "fifo", **options)


def test_a_writable_disk(image: Path) -> None:
    with Disk(image) as disk:
        assert (disk.sectors, disk.read(2, 2)) == (8, sector(2) + sector(3))
        disk.write(3, b"x" * 1024)
        disk.flush()
        assert disk.read(2, 4) == sector(2) + b"x" * 1024 + sector(5)
    assert image.read_bytes()[512 * 3 : 512 * 5] == b"x" * 1024


def test_a_snapshot_leaves_the_file(image: Path) -> None:
    before = image.read_bytes()
    with Disk(image, snapshot=True) as disk:
        disk.write(3, b"x" * 1024)
        disk.flush()
        assert disk.read(2, 4) == sector(2) + b"x" * 1024 + sector(5)
        state = disk.save()
        disk.write(0, b"y" * 512)
        disk.load(state)
        assert disk.read(0, 8) == before[: 512 * 3] + b"x" * 1024 + before[512 * 5 :]
    assert image.read_bytes() == before


def test_a_snapshot_is_bounded(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVERLAY_MOST", 1024)
    with Disk(image, snapshot=True) as disk:
        disk.write(0, bytes(1024))
        disk.write(1, b"z" * 512)
        with pytest.raises(DiskError, match="sector 2: write fault") as caught:
            disk.write(1, b"w" * 1024)
        assert (caught.value.lba, caught.value.kind) == (2, "write_fault")
        assert disk.read(1, 2) == b"w" * 512 + sector(2)


def test_a_readonly_disk(image: Path) -> None:
    with Disk(image, readonly=True) as disk, pytest.raises(DiskError, match="read only"):
        disk.write(0, bytes(512))
    with pytest.raises(ConfigError, match="not both"):
        Disk(image, readonly=True, snapshot=True)


def test_a_file_without_write_permission(image: Path) -> None:
    image.chmod(0o444)
    if os.access(image, os.W_OK):
        pytest.skip("this user may write whatever the permissions say")
    with pytest.raises(BadInput, match="Permission denied"):
        Disk(image)


def test_locks(image: Path) -> None:
    """One writer, or any number of others."""
    with Disk(image), pytest.raises(ConfigError, match="another machine uses this disk"):
        Disk(image, snapshot=True)
    message = "another machine uses this disk"
    with Disk(image, snapshot=True), Disk(image, readonly=True), pytest.raises(ConfigError, match=message):
        Disk(image)
    with Disk(image):
        pass


@pytest.mark.parametrize(
    ("kind", "read", "write"),
    [("uncorrectable", True, False), ("write_fault", False, True), ("not_found", True, True)],
)
def test_faults(image: Path, kind: str, read: bool, write: bool) -> None:
    """The first bad sector is named; those before it are written."""
    with Disk(image) as disk:
        disk.fail(range(4, 6), kind)
        disk.fail(7, kind)
        disk.read(0, 4)
        if read:
            with pytest.raises(DiskError) as caught:
                disk.read(2, 6)
            assert (caught.value.lba, caught.value.kind) == (4, kind)
        else:
            disk.read(2, 6)
        if write:
            with pytest.raises(DiskError) as caught:
                disk.write(3, b"x" * 2048)
            assert (caught.value.lba, caught.value.kind) == (4, kind)
            disk.mend()
            assert disk.read(3, 2) == b"x" * 512 + sector(4)
        else:
            disk.write(3, b"x" * 2048)
        disk.mend()
        disk.read(0, 8)
        disk.write(0, bytes(4096))


def test_faults_that_there_are_not(image: Path) -> None:
    with Disk(image) as disk:
        with pytest.raises(ValueError, match="'smoke' is no fault"):
            disk.fail(1, "smoke")
        with pytest.raises(ValueError, match="number or a range"):
            disk.fail([1, 2])


@pytest.mark.parametrize(("lba", "count"), [(-1, 1), (8, 1), (7, 2), (0, 9), (0, -1)])
def test_outside(image: Path, lba: int, count: int) -> None:
    with Disk(image) as disk, pytest.raises(ValueError, match="leave a disk of 8"):
        disk.read(lba, count)


@pytest.mark.parametrize(
    "state",
    [{}, {"sectors": 9, "snapshot": True, "overlay": {}}, {"sectors": 8, "snapshot": False, "overlay": {}},
     {"sectors": 8, "snapshot": True, "overlay": None}, {"sectors": 8, "snapshot": True, "overlay": {8: bytes(512)}},
     {"sectors": 8, "snapshot": True, "overlay": {0: bytes(511)}},
     {"sectors": 8, "snapshot": True, "overlay": {"0": 1}}],
)  # fmt: skip
def test_states_of_other_disks(image: Path, state: dict[str, object]) -> None:
    with Disk(image, snapshot=True) as disk, pytest.raises(BadInput):
        disk.load(state)


def test_option(image: Path) -> None:
    with open_disk(str(image)) as disk:
        assert (disk.readonly, disk.snapshot) == (False, False)
    with open_disk(f"{image},readonly") as disk:
        assert (disk.readonly, disk.snapshot) == (True, False)
    with open_disk(f"{image},snapshot") as disk:
        assert (disk.readonly, disk.snapshot) == (False, True)
    with pytest.raises(ConfigError, match="not both"):
        open_disk(f"{image},snapshot,readonly")
    with pytest.raises(BadInput, match="No such file"):
        open_disk(f"{image},quickly")
