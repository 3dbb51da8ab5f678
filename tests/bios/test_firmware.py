"""The built-in firmware, run on the machine."""

import json
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from bios.build import build_firmware
from emu import Machine, StopReason

SOURCE = Path(__file__).parents[2] / "bios" / "firmware"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, str]]:
    image, codes = build_firmware(tmp_path_factory.mktemp("firmware"))
    return image.read_bytes(), json.loads(codes.read_text())


def test_it_passes_its_own_checks_and_powers_off(built: tuple[bytes, dict[str, str]]) -> None:
    image, meanings = built
    with Machine(memory=16 << 20, firmware=image) as machine:
        stop = machine.run(seconds=5)
        report = machine.report(stop, 1.0)
        console = machine.serial.output.decode()
    assert stop.reason is StopReason.POWERED_OFF
    assert "FAILED" not in console and "EXCEPTION" not in console
    assert "memory    16384 KiB" in console and "timer     50 interrupts" in console
    codes = [f"{code:02X}" for code in report["post_codes"]["last"]]
    assert codes[0] == "10" and codes[-1] == "F0" and len(set(codes)) == len(codes)
    assert set(codes) <= set(meanings)


def test_checksums_that_mathematics_gives(built: tuple[bytes, dict[str, str]]) -> None:
    with Machine(memory=16 << 20, firmware=built[0]) as machine:
        machine.run(seconds=5)
        lines = dict(line.split()[1:3] for line in machine.serial.output.decode().splitlines() if "check " in line)
    below = 0x40000
    prime = bytearray(b"\x01") * below
    for number in range(2, 513):
        prime[2 * number :: number] = bytes(len(range(2 * number, below, number)))
    assert int(lines["sieve"], 16) == sum(prime[2:]) * 65537 & 0xFFFFFFFF
    assert int(lines["recursion"], 16) == 6765  # the 20th Fibonacci number
    data, value = bytearray(), 0
    for count in range(4096, 0, -1):
        data.append(value)
        value = ((value + 7) & 0xFF) ^ (count & 0xFF)
    assert int(lines["CRC-32"], 16) == zlib.crc32(data)


def test_the_same_run_twice(built: tuple[bytes, dict[str, str]]) -> None:
    cycles = []
    for _ in range(2):
        with Machine(memory=16 << 20, firmware=built[0]) as machine:
            machine.run(seconds=5)
            cycles.append((machine.cycles, machine.instructions, machine.serial.output))
    assert cycles[0] == cycles[1]


@pytest.mark.skipif(shutil.which("nasm") is None, reason="nasm is not installed")
def test_nasm_gives_the_same_bytes(built: tuple[bytes, dict[str, str]], tmp_path: Path) -> None:
    out = tmp_path / "nasm.bin"
    subprocess.run(["nasm", "-f", "bin", "-I", f"{SOURCE}/", "-o", out, SOURCE / "firmware.asm"], check=True)
    assert out.read_bytes() == built[0]
