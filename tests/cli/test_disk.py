"""`emu disk`: images that the firmware reads."""

from pathlib import Path

import pytest

from emu.builtin.service_disk import image_with_header, read_hpa, service_image
from emu.cli import main
from emu.host.disk import SECTOR

Capture = pytest.CaptureFixture[str]


def test_makes_an_image_and_lists_it(tmp_path: Path, capfd: Capture) -> None:
    image, notes = tmp_path / "disk.img", tmp_path / "notes"
    notes.write_bytes(b"notes of the user")
    options = ["--boot", "partition", "--boot", "hpa", "--size", "32M", "--dump", "4M", "--file", f"NOTES.TXT={notes}"]
    assert main(["disk", str(image), *options]) == 0
    data, service = image.read_bytes(), service_image()
    hpa = read_hpa(image)
    assert len(data) == 32 << 20 and hpa.dump_sectors == (4 << 20) // SECTOR
    assert data[hpa.image * SECTOR :].startswith(image_with_header(service))
    assert data.count(image_with_header(service)) == 2 and data.count(b"notes of the user") == 1
    assert main(["disk", str(image), "--list"]) == 0
    assert capfd.readouterr().out == (
        f"Host Protected Area  from sector {hpa.first} on\n"
        f"Service OS           sector {hpa.image}, {len(service) + 16} bytes\n"
        f"dump area            sector {hpa.dump}, {4 << 20} bytes\n"
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--size", "1M"], "an HPA of 32769 sectors: the disk has 2048"),
        (["--size", "20M"], "no room on a disk of 20971520 bytes"),
        (["--partition", "1M"], "FAT16 has 4085 to 65524 clusters"),
        (["--file", "nosuchfile"], "nosuchfile: No such file or directory"),
        (["--service", "nosuchfile", "--boot", "hpa"], "nosuchfile: No such file or directory"),
        (["--size", "64Q"], "64Q"),
        (["--list"], "No such file or directory"),
    ],
)
def test_what_cannot_be(tmp_path: Path, capfd: Capture, options: list[str], says: str) -> None:
    assert main(["disk", str(tmp_path / "disk.img"), *options]) == 2
    error = capfd.readouterr().err
    assert says in error and error.startswith("emu: ") and error.count("\n") == 1
    assert not (tmp_path / "disk.img").exists()


def test_an_image_is_replaced_only_where_that_is_wanted(tmp_path: Path, capfd: Capture) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(b"mine")
    assert main(["disk", str(image)]) == 2
    assert image.read_bytes() == b"mine" and "--force" in capfd.readouterr().err
    assert main(["disk", str(image), "--force", "--dump", "0", "--partition", "0"]) == 0
    assert image.stat().st_size == 64 << 20
