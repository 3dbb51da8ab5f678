"""A client that others wrote reads our records: ipmitool, by the serial terminal mode, whose messages are hexadecimal.

IPMI v2.0, "Terminal Mode": "[18 00 01]" is network function and LUN, sequence number and bridge, command, data.
"""

import contextlib
import os
import re
import select
import shutil
import subprocess
import termios
import time
from collections.abc import Callable, Iterator

import pytest

from emu._core import Model
from emu.bmc.bmc import Bmc
from emu.board import Board

IPMITOOL = shutil.which("ipmitool")
pytestmark = pytest.mark.skipif(IPMITOOL is None, reason="ipmitool is not installed")
MESSAGE = re.compile(rb"\[([0-9A-Fa-f ]+)\]")


def answer(bmc: Bmc, text: bytes) -> bytes:
    """A terminal mode request's response."""
    request = bytes.fromhex(text.decode())
    response = bmc.handle(request[:1] + request[2:])
    return b"[" + (response[:1] + request[1:2] + response[1:]).hex(" ").upper().encode() + b"]\r\n"


def run(bmc: Bmc, arguments: list[str]) -> str:
    """What ipmitool prints, with our controller at the other end of its serial line."""
    line, terminal = os.openpty()
    mode = termios.tcgetattr(terminal)
    mode[0] = mode[1] = mode[3] = 0
    termios.tcsetattr(terminal, termios.TCSANOW, mode)
    command = [IPMITOOL or "", "-I", "serial-terminal", "-D", f"{os.ttyname(terminal)}:115200", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    waiting, deadline = b"", time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if not select.select([line], [], [], 0.02)[0]:
            continue
        with contextlib.suppress(OSError):
            waiting += os.read(line, 4096)
        while match := MESSAGE.search(waiting):
            waiting = waiting[match.end() :]
            os.write(line, answer(bmc, match[1]))
            bmc.clock.advance(bmc.clock.hz // 100)
    process.kill()
    assert process.stdout is not None
    text = process.stdout.read().decode()
    process.stdout.close()
    process.wait()
    os.close(line)
    os.close(terminal)
    return text


@pytest.fixture(scope="module")
def bmc() -> Bmc:
    made = Board(Model("pentium3"), 1 << 20, bytes(4096)).bmc
    made.sensors["CPU temperature"].value = 91
    return made


@pytest.fixture(scope="module")
def ipmitool(bmc: Bmc) -> Iterator[Callable[..., str]]:
    yield lambda *arguments: run(bmc, list(arguments))


def test_mc_info(ipmitool: Callable[..., str]) -> None:
    text = ipmitool("mc", "info")
    assert re.search(r"IPMI Version +: 2\.0", text)
    for support in ("Sensor Device", "SDR Repository Device", "SEL Device", "FRU Inventory Device", "Chassis Device"):
        assert support in text


def test_sensors(ipmitool: Callable[..., str]) -> None:
    rows = {row[0].strip(): [cell.strip() for cell in row[1:]]
            for line in ipmitool("sdr", "list").splitlines() if len(row := line.split("|")) == 3}  # fmt: skip
    assert rows["CPU temperature"] == ["91 degrees C", "cr"]
    assert rows["CPU fan"] == ["4000 RPM", "ok"]
    assert rows["12 V"] == ["11.97 Volts", "ok"]
    assert len(rows) == 9


def test_event_log(ipmitool: Callable[..., str]) -> None:
    lines = ipmitool("sel", "list").splitlines()
    assert len(lines) == 2
    assert "Temperature" in lines[0] and "Upper Non-critical going high" in lines[0] and "Asserted" in lines[0]
    assert "Upper Critical going high" in lines[1]


def test_an_event_from_software_is_logged(bmc: Bmc, ipmitool: Callable[..., str]) -> None:
    assert "Temperature - Upper Critical - Going High" in ipmitool("event", "1")
    last = ipmitool("sel", "list").splitlines()[-1]
    assert "Temperature #0x30 | Upper Critical going high | Asserted" in last
    assert bmc.sel[-1].data[7:9] == b"\x41\0"  # generator: system software
    info = ipmitool("channel", "info")
    assert re.search(r"Channel Medium Type +: System Interface\n +Channel Protocol Type +: KCS", info)


def test_fru_and_chassis(ipmitool: Callable[..., str]) -> None:
    text = ipmitool("fru", "print")
    assert re.search(r"Board Product +: System board", text) and re.search(r"Product Name +: PC", text)
    assert "System Power         : on" in ipmitool("chassis", "status")
