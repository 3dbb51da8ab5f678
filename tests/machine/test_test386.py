"""A processor test that we did not write, assembled here and run in place of the firmware.

It is github.com/barotto/test386.asm, and no part of this project: $TEST386 names a checkout of it. The ROM writes the
number of each test to a POST port, FFh at the end, and stops at the test that fails. The results of its arithmetic go
to an output port; they are compared with the reference that comes with it.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

import asm
import emu

CHECKOUT = Path(os.environ.get("TEST386", "no checkout"))
REFERENCE = CHECKOUT / "test386-EE-reference.txt"
POST_PORT, OUT_PORT = 0x190, 0xE9
SETTINGS = {"POST_PORT": POST_PORT, "LPT_PORT": 0, "COM_PORT": 0, "OUT_PORT": OUT_PORT, "TEST_UNDEF": 0, "BOCHS": 0}
DONE = 0xFF


class Port(emu.Device):
    """Keeps what is written to it."""

    def reset(self) -> None:
        self.written = bytearray()

    def read(self, address: int, size: int) -> int:
        return 0xFF

    def write(self, address: int, value: int, size: int) -> None:
        self.written.append(value)


@pytest.fixture(scope="module")
def rom(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    if not REFERENCE.is_file():
        pytest.skip("$TEST386 names no checkout of github.com/barotto/test386.asm")
    source = tmp_path_factory.mktemp("test386") / "src"
    shutil.copytree(CHECKOUT / "src", source)
    configuration = source / "configuration.asm"
    text = configuration.read_text()
    for name, value in SETTINGS.items():
        text = re.sub(rf"(?m)^{name}\s+equ\s.*$", f"{name} equ {value:#x}", text)
    configuration.write_text(text)
    return bytes(asm.assemble_file(source / "test386.asm", include=[source]).binary)


@pytest.mark.parametrize("model", ["i386", "westmere"])
def test_every_test_passes(rom: bytes, model: str) -> None:
    with emu.Machine(firmware=rom, cpu=model) as machine:
        post, out = Port(), Port()
        machine.attach(post, ports=[POST_PORT])
        machine.attach(out, ports=[OUT_PORT])
        assert machine.run(instructions=1_000_000_000).reason == emu.StopReason.HALTED
    assert post.written[-1] == DONE, f"stopped in test {post.written[-1]:02X}"
    results, expected = out.written.decode().splitlines(), REFERENCE.read_text().splitlines()
    assert [pair for pair in zip(results, expected, strict=True) if pair[0] != pair[1]] == []
