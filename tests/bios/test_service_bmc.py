"""What the Service OS asks of the BMC: sensors in units, the event log."""

from collections.abc import Iterator

import pytest

from emu import Machine, StopReason
from emu.bmc.sensors import Sensor
from emu.builtin.policy import policy_nvram

from .conftest import Built
from .service import MEMORY, Shell, shell


@pytest.fixture
def at(built: Built) -> Iterator[Shell]:
    with shell(built.rom(), built.folder) as opened:
        yield opened


def readings(said: str) -> dict[str, str]:
    return {line[:18].rstrip(): line[18:] for line in said.splitlines()}


def test_sensors_in_units(at: Shell) -> None:
    """Each value as the sensor has it, to the last digit that its raw byte can tell."""
    shown = readings(at.do("sensors"))
    sensors = list(at.machine.bmc.by_number.values())
    assert set(shown) == {sensor.name for sensor in sensors}
    units = {1: "degrees C", 4: "V", 18: "RPM"}
    for sensor in sensors:
        digits = max(0, -sensor.exponent)
        assert shown[sensor.name] == f"{sensor.value:.{digits}f} {units[sensor.unit]}"


def test_sensors_below_zero_and_beyond_their_thresholds(at: Shell) -> None:
    sensors = at.machine.bmc.by_number
    for number, value in ((1, -7), (2, 66), (3, 14.5), (7, 2.6), (8, 300)):
        sensors[number].value = value
    shown = readings(at.do("sensors"))
    assert shown["CPU temperature"] == "-7 degrees C at or below lower critical"
    assert shown["Board temp"] == "66 degrees C at or above upper non-critical"
    assert shown["12 V"] == "14.490 V at or above upper non-recoverable"
    assert shown["Battery"] == "2.592 V at or below lower non-critical"
    assert shown["CPU fan"] == "300 RPM at or below lower critical"
    sensors[9].scanning = False
    assert readings(at.do("sensors"))["System fan"] == "no reading"


@pytest.mark.parametrize(
    ("m", "exponent", "raw", "wanted"),
    [(511, 0, 255, "130305"), (-512, 0, 255, "-130560"), (7, 3, 2, "14000"), (1, -6, 5, "0.000005"), (3, -2, 1, "0.03"),
     (1, -8, 200, "0.000002"), (400, 7, 250, "?"), (0, 0, 9, "0")],
)  # fmt: skip
def test_factors_of_every_kind(at: Shell, m: int, exponent: int, raw: int, wanted: str) -> None:
    bmc = at.machine.bmc
    odd = Sensor("Odd", 200, 2, 4, 7, m or 1, exponent, 0, {})
    odd.m, odd.raw = m & 0x3FF, raw  # ten bits, two's complement
    bmc.by_number[200] = odd
    bmc.sensors["Odd"] = odd
    assert readings(at.do("sensors"))["Odd"] == f"{wanted} V"


def test_the_event_log(at: Shell) -> None:
    assert at.do("sel") == "the log is empty\n"
    assert at.do("sel add on the 3rd") == ""
    assert at.do("sel") == "1 on the 3rd\n"
    assert at.machine.bmc.sel[0].data[3:] == b"on the 3rd\0\0\0"
    at.machine.bmc.by_number[2].value = 80
    lines = at.do("sel").splitlines()
    assert len(lines) == len(at.machine.bmc.sel) > 1
    assert at.do("sel clear") == ""
    assert len(at.machine.bmc.sel) == 0
    assert at.do("sel") == "the log is empty\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sel erase", "erase: `sel` lists, `sel clear` erases, `sel add TEXT` adds\n"),
        ("sel add", "usage: sel add TEXT\n"),
        ("sel add 12345678901234", "a record has room for 13 letters\n"),
    ],
)
def test_what_sel_refuses(at: Shell, line: str, said: str) -> None:
    assert at.do(line) == said
    assert len(at.machine.bmc.sel) == 0


@pytest.mark.parametrize(
    ("seconds", "date"),
    [(0, "1970-01-01 00:00:00"), (951782399, "2000-02-28 23:59:59"), (951782400, "2000-02-29 00:00:00"),
     (951868800, "2000-03-01 00:00:00"), (1798761599, "2026-12-31 23:59:59"), (4107542400, "2100-03-01 00:00:00"),
     (4107456000, "2100-02-28 00:00:00"), (4294967295, "2106-02-07 06:28:15"), (1072915200, "2004-01-01 00:00:00")],
)  # fmt: skip
def test_dates(at: Shell, seconds: int, date: str) -> None:
    bmc = at.machine.bmc
    bmc.time_offset = seconds - bmc.clock.cycle // bmc.clock.hz
    record = bytearray(16)
    record[2:3] = b"\x02"
    bmc.sel.add(bytes(record), seconds)
    assert at.do("sel").startswith(f"1 {date} ")


def test_a_fault_is_in_the_log_with_its_vm(built: Built) -> None:
    with shell(built.rom(), built.folder, after="stay") as at:
        at.machine.serial.send(b"go\r")
        said = at.wait()
        assert "service   SEL record 1\r\n" in said and "CPU temperature   40 degrees C\r\n" in said
        line = at.do("sel")
        assert line.endswith(" VM 1 wrote to protected memory, exit reason 48\n")


def test_without_a_bmc_that_answers(built: Built) -> None:
    """The BMC refuses whatever it is asked: every tool says so, and the rest works."""
    with Machine(MEMORY, "westmere", firmware=built.rom(),
                 nvram=policy_nvram(boot="service", flags=["shell"])) as machine:  # fmt: skip
        machine.bmc.handle = lambda request: bytes((request[0] | 4, request[1], 0xC0))  # type: ignore[method-assign]
        at = Shell(machine, built.folder)
        assert "service   no BMC answers" in at.before
        for line in ("sel", "sensors", "sel clear"):
            assert at.do(line) == "service   no BMC answers\n"
        machine.serial.send(b"go\r")
        assert machine.run(seconds=5).reason is StopReason.POWERED_OFF
