"""Where the Service OS is loaded from: the policy's source, and the flash chip where that has no sound image.

mkfs.fat and mtools make the file systems that service_disk does not.
"""

import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bios.build import flash
from emu import Disk, Machine, StopReason
from emu.builtin.policy import policy_nvram
from emu.builtin.service_disk import PARTITION_FIRST, image_with_header, make_disk, mbr, read_hpa, service_image
from emu.host.disk import SECTOR

from .conftest import Built
from .service import MEMORY, shell
from .vmm import files_of

MIB = 1 << 20
PARTITION = r"VMM       Service OS from \SERVICE.BIN of the system partition: "
HPA = "VMM       Service OS from the Host Protected Area: "
FLASH = "; the flash chip's is taken"
AT = PARTITION_FIRST * SECTOR


def loaded(built: Built, *paths: Path, source: str = "partition", rom: bytes | None = None) -> str:
    """What the console says up to the Service OS's shell."""
    with shell(rom or built.rom(), built.folder, disks=[Disk(path) for path in paths], source=source) as opened:
        return opened.before


def without_service(built: Built) -> bytes:
    """A flash chip whose own Service OS is damaged: a shell then comes from elsewhere."""
    rom = built.rom()
    files = files_of(rom)
    damaged = bytearray(flash(rom[-0x20000:], files))
    damaged[damaged.index(files["service"])] ^= 1
    return bytes(damaged)


def test_from_the_system_partition(built: Built, tmp_path: Path) -> None:
    image = service_image()
    make_disk(tmp_path / "disk.img", files={"OTHER.TXT": b"x" * 5000, "SERVICE.BIN": image_with_header(image)})
    said = loaded(built, tmp_path / "disk.img", rom=without_service(built))
    assert f"{PARTITION}{len(image)} bytes" in said


def test_from_the_host_protected_area(built: Built, tmp_path: Path) -> None:
    image = service_image()
    make_disk(tmp_path / "disk.img", partition=0, image=image, dump=MIB)
    first = read_hpa(tmp_path / "disk.img").first
    with shell(without_service(built), built.folder, disks=[Disk(tmp_path / "disk.img")], source="hpa") as opened:
        assert f"{HPA}{len(image)} bytes" in opened.before
        assert opened.machine.board.drives[0].save()["limit"] == first, "it is hidden again"


def test_from_the_second_channel(built: Built, tmp_path: Path) -> None:
    image = service_image()
    make_disk(tmp_path / "first.img", partition=0, dump=0)
    make_disk(tmp_path / "slave.img", partition=0, dump=0)
    make_disk(tmp_path / "second.img", files={"SERVICE.BIN": image_with_header(image)})
    said = loaded(built, *(tmp_path / f"{name}.img" for name in ("first", "slave", "second")))
    assert f"{PARTITION}{len(image)} bytes" in said


@pytest.mark.skipif(not (shutil.which("mkfs.fat") and shutil.which("mcopy")), reason="dosfstools or mtools are missing")
@pytest.mark.parametrize(
    ("options", "size"),
    [
        (["-F12", "-s4"], 4 * MIB),
        (["-F12", "-s1", "-f1"], MIB),
        (["-F16", "-s1"], 16 * MIB),
        (["-F32", "-s1"], 40 * MIB),
    ],
)
def test_file_systems_of_another_maker(built: Built, tmp_path: Path, options: list[str], size: int) -> None:
    """Fragmented files too: each cluster of the image is followed by one of another file."""
    image = service_image()
    alone, content = tmp_path / "partition.img", tmp_path / "service.bin"
    alone.write_bytes(bytes(size))
    subprocess.run(["mkfs.fat", *options, alone], check=True, capture_output=True)
    content.write_bytes(image_with_header(image))
    (tmp_path / "hole").write_bytes(b"h" * 3000)
    for number in range(8):  # holes between what stays
        for name in (f"hole{number}", f"stay{number}"):
            subprocess.run(["mcopy", "-i", alone, tmp_path / "hole", f"::{name}"], check=True)
    for number in range(8):
        subprocess.run(["mdel", "-i", alone, f"::hole{number}"], check=True)
    subprocess.run(["mcopy", "-i", alone, content, "::service.bin"], check=True)
    disk = tmp_path / "disk.img"
    disk.write_bytes(mbr(size // SECTOR).ljust(AT, b"\0") + alone.read_bytes())
    assert f"{PARTITION}{len(image)} bytes" in loaded(built, disk)


def change(at: int, form: str, value: int) -> Callable[[bytearray], None]:
    """Puts a number somewhere on the disk."""
    return lambda data: struct.pack_into(form, data, at, value)


def fat_entry(cluster: int) -> int:
    """Where the entry of a cluster lies, in the first FAT of make_disk."""
    return AT + SECTOR + 2 * cluster


BOOT = "its boot sector describes no FAT file system that fits into the partition"
CHAIN = "a chain of clusters is damaged"
LIES = [
    pytest.param(change(510, "<H", 0), "the drive has no system partition", id="no-mbr"),
    pytest.param(change(450, "<B", 0x0C), "the drive has no system partition", id="no-partition"),
    pytest.param(change(458, "<I", 1 << 27), "the system partition reaches beyond the drive", id="partition-too-long"),
    pytest.param(change(454, "<I", 0xFFFFFFF0), "the system partition reaches beyond the drive", id="partition-wraps"),
    *(
        pytest.param(change(AT + at, form, value), BOOT, id=name)
        for name, at, form, value in [
            ("signature", 510, "<H", 0), ("sector-4096", 11, "<H", 4096), ("sector-0", 11, "<H", 0),
            ("cluster-0", 13, "<B", 0), ("cluster-3", 13, "<B", 3), ("reserved-0", 14, "<H", 0),
            ("fats-0", 16, "<B", 0), ("fats-255", 16, "<B", 255), ("root-odd", 17, "<H", 511),
            ("total-0", 19, "<H", 0), ("total-large", 19, "<H", 65535),
            ("fat-0", 22, "<H", 0), ("fat-1", 22, "<H", 1), ("fat-large", 22, "<H", 65535),
        ]
    ),
    pytest.param(change(AT + 17, "<H", 16384), "the image's header is wrong", id="root-large"),  # all else moves
    pytest.param(change(fat_entry(2), "<H", 2), CHAIN, id="loop-1"),
    pytest.param(change(fat_entry(40), "<H", 2), CHAIN, id="loop-all"),
    pytest.param(change(fat_entry(2), "<H", 0xFFFF), CHAIN, id="short"),
    pytest.param(change(fat_entry(2), "<H", 0), CHAIN, id="free"),
    pytest.param(change(fat_entry(2), "<H", 0xFFEF), CHAIN, id="beyond"),
]  # fmt: skip


@pytest.mark.parametrize(("lie", "why"), LIES)
def test_a_disk_that_lies(built: Built, tmp_path: Path, lie: Callable[[bytearray], None], why: str) -> None:
    path = tmp_path / "disk.img"
    make_disk(path, size=16 * MIB, files={"SERVICE.BIN": image_with_header(service_image())}, dump=0)
    data = bytearray(path.read_bytes())
    lie(data)
    path.write_bytes(data)
    assert f"{PARTITION}{why}{FLASH}" in loaded(built, path)


IMAGE = image_with_header(b"s" * 3000)
BAD_IMAGES = [
    (None, "there is no such file"),
    (b"", "the image's header is wrong"),
    (IMAGE[:16], "the image's header is wrong"),
    (b"X" + IMAGE[1:], "the image's header is wrong"),
    (IMAGE + b"x", "the image's header is wrong"),
    (IMAGE[:-1] + b"x", "its checksum is wrong"),
    (image_with_header(bytes((448 << 10) + 1)), "the image is too long"),
]


@pytest.mark.parametrize(("image", "why"), BAD_IMAGES)
def test_an_image_that_is_none(built: Built, tmp_path: Path, image: bytes | None, why: str) -> None:
    make_disk(tmp_path / "disk.img", files={"OTHER.BIN": b"x"} if image is None else {"SERVICE.BIN": image}, dump=0)
    assert f"{PARTITION}{why}{FLASH}" in loaded(built, tmp_path / "disk.img")


def test_a_directory_instead_of_the_image(built: Built, tmp_path: Path) -> None:
    make_disk(tmp_path / "disk.img", files={"SERVICE.BIN/OTHER.BIN": b"x"}, dump=0)
    assert f"{PARTITION}there is no such file{FLASH}" in loaded(built, tmp_path / "disk.img")


@pytest.mark.parametrize("source", ["flash", "hpa"])
def test_no_service_os_at_all(built: Built, source: str) -> None:
    """Neither where the policy says nor in the flash chip: the guest boots on the bare machine, to its end."""
    nvram = policy_nvram(boot="service", source=source, guests=["writer"])
    with Machine(MEMORY, firmware=without_service(built), nvram=nvram) as machine:
        stop = machine.run(seconds=30)
        said = machine.serial.output.decode()
    assert stop.reason is StopReason.POWERED_OFF
    assert (f"{HPA}there is no drive{FLASH}" in said) == (source == "hpa")
    at = [said.index(text) for text in (
        "VMM       file service: its checksum is wrong", "VMM       unloaded, VMX off", "no Service VM",
        "guest     started on the bare machine", "guest     ends well",
    )]  # fmt: skip
    assert at == sorted(at)


@pytest.mark.parametrize("source", ["partition", "hpa"])
def test_no_disk(built: Built, source: str) -> None:
    assert f"{PARTITION if source == 'partition' else HPA}there is no drive{FLASH}" in loaded(built, source=source)


def test_a_sector_that_cannot_be_read(built: Built, tmp_path: Path) -> None:
    make_disk(tmp_path / "disk.img", files={"SERVICE.BIN": image_with_header(service_image())}, dump=0)
    disk = Disk(tmp_path / "disk.img")
    disk.fail(PARTITION_FIRST + 110)  # of the file
    with shell(built.rom(), built.folder, disks=[disk], source="partition") as opened:
        assert f"{PARTITION}a sector cannot be read{FLASH}" in opened.before


def test_no_host_protected_area(built: Built, tmp_path: Path) -> None:
    make_disk(tmp_path / "disk.img", dump=0)
    assert f"{HPA}no Host Protected Area{FLASH}" in loaded(built, tmp_path / "disk.img", source="hpa")


def test_a_host_protected_area_without_an_image(built: Built, tmp_path: Path) -> None:
    make_disk(tmp_path / "disk.img", dump=MIB)
    assert f"{HPA}there is no image in it{FLASH}" in loaded(built, tmp_path / "disk.img", source="hpa")


def test_a_damaged_image_in_the_host_protected_area(built: Built, tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    make_disk(path, image=service_image(), dump=0)
    data = bytearray(path.read_bytes())
    data[read_hpa(path).image * SECTOR + 1000] ^= 1
    path.write_bytes(data)
    assert f"{HPA}its checksum is wrong{FLASH}" in loaded(built, path, source="hpa")
