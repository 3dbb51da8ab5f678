"""Files of the system partition in the Service OS's shell; mtools and fsck.fat say whether the volume is sound."""

import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from emu import Disk
from emu.builtin.service_disk import make_disk
from emu.host.disk import SECTOR

from .conftest import Built
from .service import Shell, shell

FIRST = 63  # sector of the partition
FILES = {"HELLO.TXT": b"hello\r\nworld\r\n", "DIR/A.BIN": bytes(range(256)) * 20, "EMPTY": b""}
TOOLS = all(map(shutil.which, ("mkfs.fat", "fsck.fat", "mcopy", "mdir")))
needs_tools = pytest.mark.skipif(not TOOLS, reason="dosfstools and mtools are not installed")


class Volume:
    """A disk image with a system partition, and what others think of it."""

    def __init__(self, path: Path, partition: bytes) -> None:
        self.path = path
        self.size = len(partition)
        entry = struct.pack("<B3sB3sII", 0, bytes(3), 0xEF, bytes(3), FIRST, self.size // SECTOR)
        boot = (bytes(446) + entry).ljust(510, b"\0") + b"\x55\xaa"
        path.write_bytes(boot.ljust(FIRST * SECTOR, b"\0") + partition + bytes(64 * SECTOR))

    def partition(self) -> bytes:
        return self.path.read_bytes()[FIRST * SECTOR :][: self.size]

    def check(self, lost: bool = False) -> None:
        """fsck.fat finds nothing; with `lost` it may find lost clusters, and a second FAT ahead of the first."""
        image = self.path.with_suffix(".part")
        image.write_bytes(self.partition())
        done = subprocess.run(["fsck.fat", "-n", image], capture_output=True, text=True, check=False)
        if not lost:
            assert done.returncode == 0, done.stdout
        wrong = [line for line in done.stdout.splitlines()[1:] if line and "files," not in line]
        allowed = ("Free cluster summary uninitialized", "Leaving filesystem unchanged", "Auto-setting")
        if lost:
            allowed += ("Reclaimed", "FATs differ but appear to be intact", "Using first FAT")
        assert all(line.strip().startswith(allowed) for line in wrong), done.stdout

    def read(self, name: str) -> bytes:
        """A file, as mtools has it."""
        image = self.path.with_suffix(".part")
        image.write_bytes(self.partition())
        done = subprocess.run(["mcopy", "-i", image, f"::{name}", "-"], capture_output=True, check=True)
        return done.stdout

    def names(self, folder: str = "") -> set[str]:
        image = self.path.with_suffix(".part")
        image.write_bytes(self.partition())
        done = subprocess.run(["mdir", "-b", "-i", image, f"::{folder}"], capture_output=True, text=True, check=True)
        return {line.removeprefix("::/") for line in done.stdout.splitlines()}


def formatted(path: Path, bits: int, kib: int, *options: str) -> Volume:
    """An empty volume of mkfs.fat."""
    image = path.with_suffix(".mkfs")
    subprocess.run(["mkfs.fat", "-C", "-F", str(bits), "-h", str(FIRST), *options, image, str(kib)],
                   check=True, capture_output=True)  # fmt: skip
    return Volume(path, image.read_bytes())


@contextmanager
def opened(built: Built, path: Path) -> Iterator[Shell]:
    with shell(built.rom(), built.folder, disks=[Disk(path)]) as at:
        yield at


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    make_disk(path, files=FILES)
    return path


def test_ls_and_type(built: Built, disk: Path) -> None:
    before = disk.read_bytes()
    with opened(built, disk) as at:
        assert at.do("ls").splitlines() == ["HELLO.TXT    14", "EMPTY        0", "DIR          directory"]
        assert at.do("ls dir").splitlines()[-1] == "A.BIN        5120"
        assert at.do("ls \\hello.txt") == "\\hello.txt 14\n"
        assert at.do("type Hello.txt") == "hello\nworld\n\n"
        assert at.do("type empty") == "\n"
        assert len(at.do("type dir/a.bin")) > 5000
        assert at.do("mem").splitlines()[-1] == "999 KiB free of 1019 KiB"
    assert disk.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("type nothing", "there is no such file"),
        ("type dir", "it is a directory"),
        ("ls dir/nothing", "there is no such file"),
        ("del nothing", "there is no such file"),
        ("del dir", "it is a directory"),
        ("write dir x", "it is a directory"),
        ("write nodir/file x", "there is no such file"),
        ("write hello.txt/file x", "that is no directory"),
        ("write a.b.c x", "a name has 1 to 8 characters and up to 3 behind a dot, none of them special"),
        ("write ninechars x", "a name has 1 to 8 characters and up to 3 behind a dot, none of them special"),
        ("write a*b x", "a name has 1 to 8 characters and up to 3 behind a dot, none of them special"),
        ("write dir/ x", "a name has 1 to 8 characters and up to 3 behind a dot, none of them special"),
        ("copy nothing else", "there is no such file"),
        ("copy hello.txt dir", "it is a directory"),
    ],
)
def test_what_is_refused_changes_nothing(built: Built, tmp_path: Path, refusing: Shell, line: str, said: str) -> None:
    assert refusing.do(line) == f"{said}\n"


@pytest.fixture(scope="module")
def refusing(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    path = tmp_path_factory.mktemp("files") / "disk.img"
    make_disk(path, files=FILES)
    before = path.read_bytes()
    with opened(built, path) as at:
        yield at
    assert path.read_bytes() == before


def test_without_disk_or_partition(built: Built, tmp_path: Path) -> None:
    with shell(built.rom(), built.folder) as at:
        assert at.do("ls") == "the VMM says: that VM has no disk\n"
    make_disk(tmp_path / "disk.img", partition=0)
    with opened(built, tmp_path / "disk.img") as at:
        assert at.do("ls") == "the drive has no system partition\n"
        assert at.do("write a b") == "the drive has no system partition\n"
        assert at.do("mem").splitlines()[-1] == "999 KiB free of 1019 KiB"


@needs_tools
@pytest.mark.parametrize(("bits", "kib"), [(12, 2000), (16, 8000), (32, 34000)])
def test_files_of_every_fat(built: Built, tmp_path: Path, bits: int, kib: int) -> None:
    """Random writes, copies and deletions against a dictionary; then others look at the volume."""
    volume = formatted(tmp_path / "disk.img", bits, kib, "-s", "1")
    seed = tmp_path / "seed.bin"
    source = random.Random(bits)
    wanted = {"BIG.BIN": source.randbytes(40_000)}
    seed.write_bytes(wanted["BIG.BIN"])
    image = tmp_path / "fill.part"
    image.write_bytes(volume.partition())
    subprocess.run(["mcopy", "-i", image, seed, "::BIG.BIN"], check=True)
    subprocess.run(["mmd", "-i", image, "::SUB"], check=True)
    subprocess.run(["mcopy", "-i", image, seed, "::a long name.data"], check=True)
    volume = Volume(tmp_path / "disk.img", image.read_bytes())
    with opened(built, volume.path) as at:
        for _ in range(25):
            name = source.choice(("A", "B.TXT", "SUB/C.X", "SUB/D", "BIG2.BIN"))
            action = source.choice(("write", "write", "copy", "del"))
            if action == "write":
                text = "x" * source.randrange(1, 100)
                assert at.do(f"write {name.lower()} {text}") == ""
                wanted[name] = text.encode() + b"\r\n"
            elif action == "copy":
                origin = source.choice(sorted(wanted))
                assert at.do(f"copy {origin} {name}") == ""
                wanted[name] = wanted[origin]
            else:
                assert at.do(f"del {name}") == ("" if name in wanted else "there is no such file\n")
                wanted.pop(name, None)
        assert at.do("del alongn~1.dat") == ""
    volume.check()
    assert volume.names() | volume.names("SUB") == {*wanted, "SUB/"}
    for name, content in wanted.items():
        assert volume.read(name) == content


@needs_tools
def test_a_directory_grows(built: Built, tmp_path: Path) -> None:
    image = tmp_path / "fill.part"
    image.write_bytes(formatted(tmp_path / "disk.img", 16, 8000, "-s", "1").partition())
    subprocess.run(["mmd", "-i", image, "::SUB"], check=True)
    volume = Volume(tmp_path / "disk.img", image.read_bytes())
    with opened(built, volume.path) as at:
        for number in range(20):  # 16 entries of a sector, two of them `.` and `..`
            assert at.do(f"write sub/f{number} {number}") == ""
    volume.check()
    assert volume.names("SUB") == {f"SUB/F{number}" for number in range(20)}


@needs_tools
def test_a_full_partition_and_a_full_root_directory(built: Built, tmp_path: Path) -> None:
    volume = formatted(tmp_path / "disk.img", 12, 64, "-r", "16")
    with opened(built, volume.path) as at:
        for number in range(16):
            assert at.do(f"write f{number} {number}") == ""
        assert at.do("write f16 x") == "the root directory is full\n"
        assert at.do("del f3") == "" and at.do("write f17 x") == ""
    volume.check()
    image = tmp_path / "fill.part"
    image.write_bytes(formatted(tmp_path / "full.img", 12, 64).partition())
    (tmp_path / "seed.bin").write_bytes(bytes(30_000))
    subprocess.run(["mcopy", "-i", image, tmp_path / "seed.bin", "::SEED"], check=True)
    full = Volume(tmp_path / "full.img", image.read_bytes())
    with opened(built, full.path) as at:
        before = full.partition()
        assert at.do("copy seed third") == "the partition is full\n"
        assert at.do("write seed now it is short") == ""
        assert at.do("mem").splitlines()[-1] == "999 KiB free of 1019 KiB"
    assert before != full.partition()
    full.check()
    assert full.read("SEED") == b"now it is short\r\n"


@needs_tools
def test_a_cut_leaves_a_sound_volume(built: Built, tmp_path: Path) -> None:
    """The image as it is at many moments of an overwriting copy: the old content or the new one, nothing between."""
    image = tmp_path / "fill.part"
    image.write_bytes(formatted(tmp_path / "disk.img", 16, 2200, "-s", "1").partition())
    contents = {}
    for name, size in (("OLD", 1500), ("NEW", 1000)):
        contents[name] = random.Random(size).randbytes(size)
        (tmp_path / name).write_bytes(contents[name])
        subprocess.run(["mcopy", "-i", image, tmp_path / name, f"::{name}"], check=True)
    volume = Volume(tmp_path / "disk.img", image.read_bytes())
    states = set()
    with opened(built, volume.path) as at:
        at.machine.serial.send(b"copy new old\r")
        previous = b""
        for _ in range(2000):
            at.machine.run(cycles=500_000)
            now = volume.partition()
            if now != previous:
                previous = now
                volume.check(lost=True)
                state = volume.read("OLD")
                assert state in contents.values()
                states.add(state)
            if at.machine.serial.output.endswith(b"\r\n> ") and state == contents["NEW"]:
                break
    assert states == set(contents.values())
    volume.check()


@needs_tools
def test_a_write_that_fails(built: Built, tmp_path: Path) -> None:
    """A sector of the FAT that cannot be written: the file is as it was."""
    image = tmp_path / "fill.part"
    image.write_bytes(formatted(tmp_path / "disk.img", 16, 8000, "-s", "1").partition())
    (tmp_path / "old").write_bytes(b"as it was")
    subprocess.run(["mcopy", "-i", image, tmp_path / "old", "::OLD"], check=True)
    volume = Volume(tmp_path / "disk.img", image.read_bytes())
    disk = Disk(volume.path)
    with shell(built.rom(), built.folder, disks=[disk]) as at:
        disk.fail(range(FIRST + 1, FIRST + 40), "write_fault")
        assert at.do("write old other") == "a sector cannot be written\n"
        disk.mend()
        assert at.do("type old") == "as it was\n"
        assert at.do("write old other") == ""
    volume.check(lost=True)
    assert volume.read("OLD") == b"other\r\n"
