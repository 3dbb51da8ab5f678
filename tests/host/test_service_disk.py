"""Disk images with a system partition and a Host Protected Area; dosfstools and mtools are the oracles for the FAT."""

import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from emu.builtin.service_disk import DUMP_HEADER, image_with_header, make_disk, read_dump, read_hpa, service_image
from emu.errors import BadInput, ConfigError
from emu.host.disk import SECTOR

MIB = 1 << 20
FILES = {"README.TXT": b"hello\r\n", "SUB/LONG.BIN": bytes(range(256)) * 40, "EMPTY": b""}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    make_disk(path, size=64 * MIB, files=FILES, image=b"service" * 100, dump=8 * MIB)
    return path


def partition(image: Path, target: Path) -> Path:
    """The partition that the MBR names, alone."""
    data = image.read_bytes()
    kind, first, sectors = data[446 + 4], *struct.unpack_from("<2I", data, 446 + 8)
    assert data[510:512] == b"\x55\xaa" and kind == 0xEF
    target.write_bytes(data[first * SECTOR : (first + sectors) * SECTOR])
    return target


@pytest.mark.skipif(shutil.which("fsck.fat") is None, reason="dosfstools is not installed")
@pytest.mark.parametrize("size", [5 * MIB, 8 * MIB, 40 * MIB])
def test_fsck_finds_nothing_wrong(tmp_path: Path, size: int) -> None:
    make_disk(tmp_path / "disk.img", partition=size, files=FILES, dump=0)
    alone = partition(tmp_path / "disk.img", tmp_path / "partition.img")
    done = subprocess.run(["fsck.fat", "-n", alone], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("mtype") is None, reason="mtools is not installed")
def test_another_program_reads_the_files(image: Path, tmp_path: Path) -> None:
    alone = partition(image, tmp_path / "partition.img")
    for name, content in FILES.items():
        got = subprocess.run(["mcopy", "-i", alone, f"::{name}", "-"], capture_output=True, check=True).stdout
        assert got == content


def test_the_hpa_is_read_back(image: Path) -> None:
    hpa = read_hpa(image)
    with open(image, "rb") as file:
        file.seek(hpa.image * SECTOR)
        assert file.read(hpa.image_bytes) == image_with_header(b"service" * 100)
    assert hpa.first == hpa.image and hpa.dump_sectors * SECTOR == 8 * MIB
    assert hpa.dump + hpa.dump_sectors == 64 * MIB // SECTOR - 1


def test_a_dump_is_read_back(image: Path) -> None:
    core = b"\x7fELF" + bytes(5000)
    header = DUMP_HEADER.pack(b"SVCDUMP1", 1, len(core), zlib.crc32(core), 2, 3, 11, 1 << 40)
    with open(image, "r+b") as file:
        file.seek(read_hpa(image).dump * SECTOR)
        file.write(header.ljust(SECTOR, b"\0") + core)
    dump = read_dump(image)
    assert dump == (True, 2, 3, 1 << 40, core)
    with open(image, "r+b") as file:
        file.seek((read_hpa(image).dump + 1) * SECTOR + 2000)
        file.write(b"\1")
    with pytest.raises(BadInput, match="the dump's checksum is wrong"):
        read_dump(image)


def test_what_is_no_hpa(tmp_path: Path, image: Path) -> None:
    with pytest.raises(BadInput, match="the dump area is empty"):
        read_dump(image)
    make_disk(tmp_path / "none.img", dump=0)
    with pytest.raises(BadInput, match="no Host Protected Area"):
        read_hpa(tmp_path / "none.img")
    for at in (8, 28):  # a field, the checksum
        data = bytearray(image.read_bytes())
        data[-SECTOR + at] ^= 0xFF
        (tmp_path / "bad.img").write_bytes(data)
        with pytest.raises(BadInput, match="damaged"):
            read_hpa(tmp_path / "bad.img")
    data = bytearray(image.read_bytes())
    directory = struct.pack("<8s5I", b"SVCHPA01", 1000, 999, 10, 0, 0)
    data[-SECTOR:] = (directory + struct.pack("<I", zlib.crc32(directory))).ljust(SECTOR, b"\0")
    (tmp_path / "bad.img").write_bytes(data)
    with pytest.raises(BadInput, match="points outside it"):
        read_hpa(tmp_path / "bad.img")
    with pytest.raises(BadInput, match="No such file"):
        read_hpa(tmp_path / "missing.img")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"size": 1000}, "not whole sectors"),
        ({"size": 10 * MIB, "dump": 8 * MIB}, "no room"),
        ({"size": 4 * MIB, "partition": 0, "dump": 8 * MIB}, "the disk has"),
        ({"partition": MIB}, "FAT16 has 4085"),
        ({"partition": 0, "files": {"A": b""}}, "no partition"),
        ({"files": {"TOOLONGNAME.TXT": b""}}, "up to 8 characters"),
        ({"files": {"A.TXT": b"", "a.txt": b""}}, "two of this name"),
        ({"files": {"A/B/C": b""}}, "one level deep"),
        ({"files": {"A": bytes(9 * MIB)}}, "do not fit"),
        ({"image": bytes(500 << 10)}, "fit into memory"),
        ({"dump": 1000}, "not whole sectors"),
    ],
)
def test_what_does_not_fit_is_refused_whole(tmp_path: Path, arguments: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        make_disk(tmp_path / "disk.img", **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_the_built_in_service_os() -> None:
    assert service_image()[4:8] == b"PAGE"  # the header of an image, include/flash.inc
