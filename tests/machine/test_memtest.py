"""A memory test that we did not write: Memtest86+ boots from a disk by way of SeaBIOS and finds no error in our RAM.

It is 64-bit code of a C compiler that pages, measures clocks, and shows what it does on the text screen.
"""

import re
from pathlib import Path

import pytest

from emu import Disk, Machine

BIOS = Path("/usr/share/seabios/bios.bin")  # Debian's package `seabios`
IMAGE = Path("/usr/lib/memtest86+/memtest86+x64.iso")  # Debian's package `memtest86+`
SIZE = 1 << 20
BIT_FADE = 10  # the number of its last test, which waits for minutes


@pytest.mark.slow
def test_its_tests_of_the_memory_pass(tmp_path: Path) -> None:
    for path in (BIOS, IMAGE):
        if not path.exists():
            pytest.skip(f"{path} is not installed")
    disk = tmp_path / "memtest.img"
    data = IMAGE.read_bytes()
    disk.write_bytes(data.ljust(-(-len(data) // SIZE) * SIZE, b"\0"))
    with Machine(memory=8 << 20, firmware=BIOS, disks=[Disk(disk)]) as machine:
        machine.run(seconds=10)
        text = machine.screen.text
    reached, errors = re.search(r"Test #(\d+)", text), re.search(r"Errors: (\d+)", text)
    assert reached and errors, text
    assert (int(reached[1]), int(errors[1])) == (BIT_FADE, 0), text
