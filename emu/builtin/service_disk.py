"""Disks for the built-in firmware: a system partition, and a Host Protected Area for the Service OS and dumps.

    sector 0            MBR with one entry, of type EFh (system partition)
    sector 63 on        the partition: FAT16
    behind it           free, for guests
    the last sectors    the HPA: the Service OS's image, the dump area, in the very last sector the directory of both

The layout of the directory, of an image's header and of a dump's is that of bios/include/hpa.inc. FAT: Microsoft,
"FAT32 File System Specification" 1.03. HPA: ATA-6, "Host Protected Area feature set".
"""

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from emu.errors import BadInput, ConfigError
from emu.host.disk import SECTOR
from emu.host.output_file import OutputFile
from emu.machine import builtin_firmware

__all__ = ["Dump", "Hpa", "image_with_header", "make_disk", "read_dump", "read_hpa", "service_image"]

PARTITION_FIRST = 63
PARTITION_TYPE = 0xEF
SERVICE_FILE = "SERVICE.BIN"
IMAGE_HEADER = struct.Struct("<8s2I")  # SVCIMAGE, bytes, CRC-32 of the image behind it
DIRECTORY = struct.Struct("<8s5I")  # SVCHPA01, first sector; image: sector, bytes; dump area: sector, sectors
DUMP_HEADER = struct.Struct("<8s6IQ")  # SVCDUMP1, complete, bytes, CRC-32, VM, event, sectors, time-stamp counter
IMAGE_MOST = 448 << 10  # bytes that an image may have: from 10000h to 80000h
FAT_SECTORS_PER_CLUSTER = 2
FAT_ROOT_ENTRIES = 512
FAT_RESERVED = 1
FAT16_CLUSTERS = range(4085, 65525)
EPOCH = (1 << 5 | 1, 0)  # 1980-01-01, 00:00: the same image at each build


class Hpa(NamedTuple):
    """The directory of a Host Protected Area. Sectors are LBAs of the whole drive; those of what is missing are 0."""

    first: int
    image: int
    image_bytes: int
    dump: int
    dump_sectors: int


class Dump(NamedTuple):
    """A dump that the Service OS has written."""

    complete: bool
    vm: int
    event: int
    tsc: int
    core: bytes


def image_with_header(image: bytes) -> bytes:
    """A Service OS image as the system partition and the HPA hold it."""
    return IMAGE_HEADER.pack(b"SVCIMAGE", len(image), zlib.crc32(image)) + image


def service_image() -> bytes:
    """The built-in Service OS.

    Raises:
        BadInput: the built-in firmware has none.
    """
    rom = builtin_firmware().read_bytes()
    if rom[:8] == b"FLASHTAB":
        for entry in range(int.from_bytes(rom[8:12], "little")):
            name, at, size, _ = struct.unpack_from("<12s3I", rom, 16 + 24 * entry)
            if name.rstrip(b"\0") == b"service":
                return rom[at : at + size]
    raise BadInput("the built-in firmware has no Service OS")


def make_disk(
    path: str | Path,
    *,
    size: int = 64 << 20,
    partition: int = 8 << 20,
    files: Mapping[str, bytes] | None = None,
    image: bytes | None = None,
    dump: int = 16 << 20,
) -> None:
    """Writes a disk image; a file that is there is replaced at the end.

    Args:
        path: the image.
        size: of the disk, in bytes: whole sectors.
        partition: of the system partition, in bytes, or 0: no partition.
        files: of the partition, by their names in 8.3 form; `DIR/NAME.EXT` lies in a directory.
        image: a Service OS for the HPA, without header.
        dump: bytes of the dump area; 0 and no image: no HPA.

    Raises:
        ConfigError: it does not fit, or a name is no 8.3 name.
    """
    sectors = size // SECTOR
    if size <= 0 or size % SECTOR or sectors > 1 << 28:
        raise ConfigError(f"a disk of {size} bytes: not whole sectors of {SECTOR}, or more than LBA28 reaches")
    hpa = hpa_layout(sectors, image, dump)
    partition_sectors = partition // SECTOR
    if PARTITION_FIRST + partition_sectors > hpa.first:
        raise ConfigError(f"a partition of {partition} bytes and an HPA of {(sectors - hpa.first) * SECTOR}: "
                          f"no room on a disk of {size} bytes")  # fmt: skip
    with OutputFile(path) as output:
        file = output.file
        try:
            file.truncate(size)
            if partition:
                file.write(mbr(partition_sectors))
                write_fat16(file, PARTITION_FIRST, partition_sectors, files or {})
            elif files:
                raise ConfigError(f"{len(files)} files, but no partition for them")
            if image is not None:
                file.seek(hpa.image * SECTOR)
                file.write(image_with_header(image))
            if hpa.first < sectors:
                file.seek((sectors - 1) * SECTOR)
                directory = DIRECTORY.pack(b"SVCHPA01", *hpa)
                file.write((directory + struct.pack("<I", zlib.crc32(directory))).ljust(SECTOR, b"\0"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
        output.finish()


def hpa_layout(sectors: int, image: bytes | None, dump: int) -> Hpa:
    """Where on a disk of so many sectors the parts of the HPA lie."""
    if image is not None and not 0 < len(image) <= IMAGE_MOST:
        raise ConfigError(f"a Service OS of {len(image)} bytes: 1 to {IMAGE_MOST} fit into memory")
    if dump % SECTOR or dump < 0:
        raise ConfigError(f"a dump area of {dump} bytes: not whole sectors of {SECTOR}")
    if image is None and not dump:
        return Hpa(sectors, 0, 0, 0, 0)
    image_bytes = IMAGE_HEADER.size + len(image) if image is not None else 0
    image_sectors = -(-image_bytes // SECTOR)
    dump_sectors = dump // SECTOR
    first = sectors - 1 - dump_sectors - image_sectors
    if first < 1:
        raise ConfigError(f"an HPA of {image_sectors + dump_sectors + 1} sectors: the disk has {sectors}")
    return Hpa(first, first if image_bytes else 0, image_bytes, first + image_sectors if dump else 0, dump_sectors)


def mbr(sectors: int) -> bytes:
    """A master boot record with one partition and no code."""
    chs = b"\xfe\xff\xff"  # by LBA only
    entry = struct.pack("<B3sB3s2I", 0, chs, PARTITION_TYPE, chs, PARTITION_FIRST, sectors)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def short_name(name: str) -> bytes:
    """The 11 bytes of a directory entry.

    Raises:
        ConfigError: it is no name of at most 8 and 3 characters.
    """
    base, _, extension = name.upper().partition(".")
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'()-@^_`{}~")
    if not 1 <= len(base) <= 8 or len(extension) > 3 or not set(base + extension) <= allowed:
        raise ConfigError(f"{name}: no file name of up to 8 characters, a dot and up to 3")
    return base.ljust(8).encode() + extension.ljust(3).encode()


def write_fat16(file: BinaryIO, first: int, sectors: int, files: Mapping[str, bytes]) -> None:
    """Formats a partition and fills it with files and the directories they name, one level deep."""
    root_sectors = FAT_ROOT_ENTRIES * 32 // SECTOR
    fat_sectors = 1
    while True:  # as many as describe what is left behind them
        clusters = (sectors - FAT_RESERVED - 2 * fat_sectors - root_sectors) // FAT_SECTORS_PER_CLUSTER
        if (clusters + 2) * 2 <= fat_sectors * SECTOR:
            break
        fat_sectors += 1
    if clusters not in FAT16_CLUSTERS:
        raise ConfigError(f"a partition of {sectors} sectors: FAT16 has {FAT16_CLUSTERS.start} to "
                          f"{FAT16_CLUSTERS.stop - 1} clusters, this would be {clusters}")  # fmt: skip
    boot = struct.pack(
        "<3s8sHBHBHHBHHHIIBBBI11s8s", b"\xeb\xfe\x90", b"SERVICE ", SECTOR, FAT_SECTORS_PER_CLUSTER, FAT_RESERVED, 2,
        FAT_ROOT_ENTRIES, sectors if sectors < 65536 else 0, 0xF8, fat_sectors, 63, 255, first,
        sectors if sectors >= 65536 else 0, 0x80, 0, 0x29, 0x20031009, b"SERVICE    ", b"FAT16   ",
    )  # fmt: skip
    fat = [0xFFF8, 0xFFFF]
    cluster_bytes = FAT_SECTORS_PER_CLUSTER * SECTOR
    content = bytearray()  # of cluster 2 on

    def take(data: bytes) -> int:
        """Puts data into clusters that follow each other; returns the first, 0 for none."""
        count = -(-len(data) // cluster_bytes)
        if len(fat) + count > clusters + 2:
            raise ConfigError("the files do not fit into the partition")
        start = len(fat) if count else 0
        fat.extend([*range(len(fat) + 1, len(fat) + count), 0xFFFF] if count else [])
        content.extend(data.ljust(count * cluster_bytes, b"\0"))
        return start

    def entry(name: bytes, attributes: int, cluster: int, size: int) -> bytes:
        date, time = EPOCH
        return struct.pack("<11sBBBHHHHHHHI", name, attributes, 0, 0, time, date, date, 0, time, date, cluster, size)

    folders: dict[str, list[bytes]] = {"": [entry(b"SERVICE    ", 0x08, 0, 0)]}
    for path, data in files.items():
        folder, _, name = path.replace("\\", "/").strip("/").rpartition("/")
        if "/" in folder:
            raise ConfigError(f"{path}: directories are one level deep")
        entries = folders.setdefault(folder.upper(), [])
        made = short_name(name)
        if any(other[:11] == made for other in entries):
            raise ConfigError(f"{path}: there are two of this name")
        entries.append(entry(made, 0x20, take(data), len(data)))
    for folder, entries in folders.items():
        if folder:
            count = len(entries) + 2
            at = len(fat)  # the cluster that it will begin with
            dots = [entry(b".          ", 0x10, at, 0), entry(b"..         ", 0x10, 0, 0)]
            start = take(b"".join(dots + entries))
            assert start == at and count
            folders[""].append(entry(short_name(folder), 0x10, start, 0))
    root = b"".join(folders[""])
    if len(root) > FAT_ROOT_ENTRIES * 32:
        raise ConfigError(f"{len(folders[''])} entries in the root directory: there is room for {FAT_ROOT_ENTRIES}")
    table = b"".join(value.to_bytes(2, "little") for value in fat).ljust(fat_sectors * SECTOR, b"\0")
    file.seek(first * SECTOR)
    file.write(boot.ljust(510, b"\0") + b"\x55\xaa" + 2 * table + root.ljust(root_sectors * SECTOR, b"\0") + content)


def read_hpa(path: str | Path) -> Hpa:
    """The directory of a disk image's Host Protected Area.

    Raises:
        BadInput: it has none, it is damaged, or it points outside the disk.
    """
    data, sectors = last_sector(path)
    directory = data[: DIRECTORY.size]
    signature, *fields = DIRECTORY.unpack(directory)
    if signature != b"SVCHPA01":
        raise BadInput(f"{path}: no Host Protected Area: its last sector has no directory")
    if zlib.crc32(directory) != int.from_bytes(data[DIRECTORY.size : DIRECTORY.size + 4], "little"):
        raise BadInput(f"{path}: the directory of the Host Protected Area is damaged")
    hpa = Hpa(*fields)
    ends = (hpa.image + -(-hpa.image_bytes // SECTOR), hpa.dump + hpa.dump_sectors)
    inside = all(at == 0 or at >= hpa.first for at in (hpa.image, hpa.dump))
    if not 0 < hpa.first < sectors or max(ends) >= sectors or not inside:
        raise BadInput(f"{path}: the directory of the Host Protected Area points outside it")
    return hpa


def read_dump(path: str | Path) -> Dump:
    """The dump in a disk image's dump area; one that was begun and never ended has no checksum.

    Raises:
        BadInput: there is no dump area, no dump in it, or its checksum is wrong.
    """
    hpa = read_hpa(path)
    if not hpa.dump_sectors:
        raise BadInput(f"{path}: the Host Protected Area has no dump area")
    with open(path, "rb") as file:
        file.seek(hpa.dump * SECTOR)
        signature, complete, size, crc, vm, event, _, tsc = DUMP_HEADER.unpack(file.read(SECTOR)[: DUMP_HEADER.size])
        if signature != b"SVCDUMP1":
            raise BadInput(f"{path}: the dump area is empty")
        if size > (hpa.dump_sectors - 1) * SECTOR:
            raise BadInput(f"{path}: a dump of {size} bytes in a dump area of {hpa.dump_sectors} sectors")
        core = file.read(size)
    if complete and zlib.crc32(core) != crc:
        raise BadInput(f"{path}: the dump's checksum is wrong")
    return Dump(bool(complete), vm, event, tsc, core)


def last_sector(path: str | Path) -> tuple[bytes, int]:
    """The last sector of a disk image, and how many there are."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            if size < SECTOR or size % SECTOR:
                raise BadInput(f"{path}: {size} bytes are no disk image: not a multiple of {SECTOR}, or empty")
            file.seek(size - SECTOR)
            return file.read(SECTOR), size // SECTOR
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
