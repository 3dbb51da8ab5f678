"""The management controller's commands, without a processor; IPMI v2.0, by chapter."""

import random
import struct

import pytest

from emu import Machine, StopReason
from emu._core import Model
from emu.bmc.bmc import COMMANDS, Bmc
from emu.board import Board

CHASSIS, SENSOR, APP, STORAGE = 0x00, 0x04, 0x06, 0x0A
CPU_TEMPERATURE = 1


@pytest.fixture
def board() -> Board:
    return Board(Model("pentium3"), 1 << 20, bytes(4096))


@pytest.fixture
def bmc(board: Board) -> Bmc:
    return board.bmc


def ask(bmc: Bmc, netfn: int, command: int, data: bytes = b"", code: int = 0) -> bytes:
    """A command's response data; the completion code must be as given."""
    response = bmc.handle(bytes((netfn << 2, command)) + data)
    assert response[:3].hex() == bytes((netfn << 2 | 4, command, code)).hex()
    assert code == 0 or len(response) == 3
    return response[3:]


def advance(bmc: Bmc, seconds: float) -> None:
    bmc.clock.advance(round(seconds * bmc.clock.hz))


class TestGlobal:
    def test_device_id(self, bmc: Bmc) -> None:
        data = ask(bmc, APP, 0x01)
        assert (len(data), data[4]) == (15, 0x02)
        assert data[5] & 0x8F == 0x8F  # chassis, FRU, SEL, SDR repository, sensors
        assert ask(bmc, APP, 0x04) == b"\x55\0"

    @pytest.mark.parametrize(
        ("request_", "code"),
        [("18ff", 0xC1), ("19ff", 0xC1), ("fc01", 0xC1), ("1901", 0xC2), ("1b01", 0xC2), ("112d01", 0xC2),
         ("180100", 0xC7), ("2843", 0xC7)],
    )  # fmt: skip
    def test_what_is_refused(self, bmc: Bmc, request_: str, code: int) -> None:
        """C1h: no such command at all; C2h: there is one, but not at this LUN; C7h: a wrong length."""
        assert bmc.handle(bytes.fromhex(request_))[2:] == bytes((code,))

    def test_channel_info(self, bmc: Bmc) -> None:
        """There is the system interface, KCS without sessions, and no other channel."""
        info = ask(bmc, APP, 0x42, b"\x0e")
        assert info.hex(" ") == "0f 0c 05 00 f2 1b 00 ff ff"
        assert ask(bmc, APP, 0x42, b"\x0f") == info
        for channel in range(14):
            ask(bmc, APP, 0x42, bytes((channel,)), 0xCC)

    def test_message_flags(self, board: Board) -> None:
        bmc = board.bmc
        ask(bmc, APP, 0x35, code=0x80)
        ask(bmc, APP, 0x33, code=0x80)
        ask(bmc, APP, 0x2E, b"\x0c")
        assert ask(bmc, APP, 0x2F) == b"\x0c"
        assert not board.bus.port_read(0xCA3) & 4
        bmc.sensors["CPU temperature"].value = 85
        assert (ask(bmc, APP, 0x31), board.bus.port_read(0xCA3) & 4) == (b"\x02", 4)
        event = ask(bmc, APP, 0x35)
        assert event[2:] == bmc.sel[0].data[2:]
        assert (ask(bmc, APP, 0x31), board.bus.port_read(0xCA3) & 4) == (b"\0", 0)
        bmc.sensors["CPU temperature"].value = 40
        assert ask(bmc, APP, 0x30, b"\x02") == b""
        assert ask(bmc, APP, 0x31) == b"\0"
        ask(bmc, APP, 0x2E, b"\x10", code=0xCC)


class TestSel:
    RECORD = bytes.fromhex("0000 02 00000000 4100 04 01 30 01 57 ff ff")

    def add(self, bmc: Bmc, record: bytes = RECORD) -> int:
        return int.from_bytes(ask(bmc, STORAGE, 0x44, record), "little")

    def test_add_get_and_info(self, bmc: Bmc) -> None:
        assert ask(bmc, STORAGE, 0x40) == bytes.fromhex("51 0000 0020 ffffffff ffffffff 0b")
        ask(bmc, STORAGE, 0x43, bytes(4) + b"\0\xff", code=0xCB)
        advance(bmc, 5)
        assert [self.add(bmc), self.add(bmc)] == [1, 2]
        first = ask(bmc, STORAGE, 0x43, bytes(4) + b"\0\xff")
        stamp = struct.pack("<I", 946_684_805)
        assert first == b"\x02\0" + b"\x01\0\x02" + stamp + self.RECORD[7:]
        assert ask(bmc, STORAGE, 0x43, bytes.fromhex("0000 ffff 00 ff"))[:4] == bytes.fromhex("ffff 0200")
        assert ask(bmc, STORAGE, 0x40)[:9] == bytes.fromhex("51 0200 e01f") + stamp
        assert bmc.sel[0].timestamp == 946_684_805 and bmc.sel[0].sensor_type == 1

    def test_untimed_records_keep_their_bytes(self, bmc: Bmc) -> None:
        record = bytes.fromhex("0000 e0") + bytes(range(13))
        self.add(bmc, record)
        assert bmc.sel[0].data == b"\x01\0" + record[2:]

    def test_partial_reads_need_a_reservation(self, bmc: Bmc) -> None:
        self.add(bmc)
        ask(bmc, STORAGE, 0x43, bytes.fromhex("0100 0000 08 04"), code=0xC5)
        reservation = ask(bmc, STORAGE, 0x42)
        whole = bmc.sel[0].data
        assert ask(bmc, STORAGE, 0x43, reservation + bytes.fromhex("0000 08 04"))[2:] == whole[8:12]
        ask(bmc, STORAGE, 0x43, reservation + bytes.fromhex("0000 08 09"), code=0xC9)

    def test_delete(self, bmc: Bmc) -> None:
        for _ in range(3):
            self.add(bmc)
        reservation = ask(bmc, STORAGE, 0x42)
        assert ask(bmc, STORAGE, 0x46, reservation + b"\x02\0") == b"\x02\0"
        ask(bmc, STORAGE, 0x46, reservation + b"\x03\0", code=0xC5)  # deleting ends reservations
        assert ask(bmc, STORAGE, 0x43, bytes.fromhex("0000 0100 00 ff"))[:2] == b"\x03\0"
        ask(bmc, STORAGE, 0x43, bytes.fromhex("0000 0200 00 ff"), code=0xCB)

    def test_clear_takes_time(self, bmc: Bmc) -> None:
        self.add(bmc)
        ask(bmc, STORAGE, 0x47, b"\0\0CLR\xaa", code=0xC5)
        reservation = ask(bmc, STORAGE, 0x42)
        ask(bmc, STORAGE, 0x47, reservation + b"XYZ\xaa", code=0xCC)
        assert ask(bmc, STORAGE, 0x47, reservation + b"CLR\xaa") == b"\0"
        ask(bmc, STORAGE, 0x43, bytes(4) + b"\0\xff", code=0x81)
        assert ask(bmc, STORAGE, 0x47, reservation + b"CLR\0") == b"\0"
        advance(bmc, 0.05)
        assert ask(bmc, STORAGE, 0x47, reservation + b"CLR\0") == b"\x01"
        assert len(bmc.sel) == 0

    def test_full(self, bmc: Bmc) -> None:
        for _ in range(512):
            self.add(bmc)
        ask(bmc, STORAGE, 0x44, self.RECORD, code=0xC4)
        assert ask(bmc, STORAGE, 0x40)[3:5] + ask(bmc, STORAGE, 0x40)[-1:] == b"\0\0\x8b"
        assert len(bmc.sel) == 512

    def test_time(self, bmc: Bmc) -> None:
        ask(bmc, STORAGE, 0x49, struct.pack("<I", 1_700_000_000))
        advance(bmc, 7)
        assert ask(bmc, STORAGE, 0x48) == struct.pack("<I", 1_700_000_007)

    def test_log_and_time_outlive_a_reset(self, board: Board) -> None:
        self.add(board.bmc)
        ask(board.bmc, STORAGE, 0x49, struct.pack("<I", 5))
        board.reset()
        assert (len(board.bmc.sel), ask(board.bmc, STORAGE, 0x48)) == (1, struct.pack("<I", 5))


class TestSdr:
    def records(self, bmc: Bmc) -> list[bytes]:
        """All records, read in parts of 20 bytes as clients do."""
        reservation, number, found = ask(bmc, STORAGE, 0x22), b"\0\0", []
        while number != b"\xff\xff":
            data = ask(bmc, STORAGE, 0x23, reservation + number + b"\0\x05")
            whole, following = data[2:], data[:2]
            while len(whole) < 5 + whole[4]:
                count = min(20, 5 + whole[4] - len(whole))
                whole += ask(bmc, STORAGE, 0x23, reservation + number + bytes((len(whole), count)))[2:]
            found.append(whole)
            number = following
        return found

    def test_records(self, bmc: Bmc) -> None:
        records = self.records(bmc)
        assert ask(bmc, STORAGE, 0x20)[:3] == b"\x51" + len(records).to_bytes(2, "little")
        assert [record[3] for record in records] == [0x12, 0x11] + [0x01] * 9
        assert all(record[2] == 0x51 and record[4] == len(record) - 5 for record in records)
        sensor = records[2]
        assert (sensor[7], sensor[12], sensor[13], sensor[48:]) == (1, 1, 1, b"CPU temperature")

    def test_readings_by_the_record_s_factors(self, bmc: Bmc) -> None:
        values = {}
        for record in self.records(bmc)[2:]:
            raw = ask(bmc, SENSOR, 0x2D, record[7:8])[0]
            if record[20] >> 6 == 2:
                raw = (raw ^ 0x80) - 0x80
            m = record[24] | (record[25] >> 6) << 8
            exponent = (record[29] >> 4 ^ 8) - 8
            values[record[48:].decode()] = round(m * raw * 10.0**exponent, 3)
        assert values["CPU temperature"] == 40 and values["CPU fan"] == 4000
        assert values["12 V"] == 11.97 and values["3.3 V"] == 3.298

    def test_refused(self, bmc: Bmc) -> None:
        reservation = ask(bmc, STORAGE, 0x22)
        ask(bmc, STORAGE, 0x23, reservation + b"\x03\0\0\xff", code=0xCA)
        ask(bmc, STORAGE, 0x23, reservation + b"\x40\0\0\x05", code=0xCB)
        ask(bmc, STORAGE, 0x22)
        ask(bmc, STORAGE, 0x23, reservation + b"\0\0\x05\x05", code=0xC5)

    def test_fru(self, bmc: Bmc) -> None:
        size = int.from_bytes(ask(bmc, STORAGE, 0x10, b"\0")[:2], "little")
        data = b""
        while len(data) < size:
            data += ask(bmc, STORAGE, 0x11, b"\0" + len(data).to_bytes(2, "little") + b"\x10")[1:]
        assert sum(data[:8]) & 0xFF == 0
        for start in (8 * data[3], 8 * data[4]):
            assert sum(data[start : start + 8 * data[start + 1]]) & 0xFF == 0
        ask(bmc, STORAGE, 0x10, b"\x01", code=0xCB)
        ask(bmc, STORAGE, 0x11, b"\0\0\x01\x10", code=0xC9)


class TestSensors:
    def test_a_crossed_threshold_is_an_event(self, bmc: Bmc) -> None:
        sensor = bmc.sensors["CPU temperature"]
        sensor.value = 71.5
        assert (sensor.value, len(bmc.sel)) == (72, 0)
        sensor.value = 91
        assert [(record.sensor, record.asserted, record.event_data) for record in bmc.sel] == [
            (1, True, bytes((0x57, 91, 80))), (1, True, bytes((0x59, 91, 90))),
        ]  # fmt: skip
        assert ask(bmc, SENSOR, 0x2D, b"\x01") == bytes((91, 0xC0, 0xC0 | 0x18))
        assert ask(bmc, SENSOR, 0x2B, b"\x01")[1:3] == struct.pack("<H", 1 << 7 | 1 << 9)
        sensor.value = 89  # within the hysteresis of one degree
        assert len(bmc.sel) == 2
        sensor.value = 88
        assert (bmc.sel[2].asserted, bmc.sel[2].event_data[0]) == (False, 0x59)

    def test_lower_thresholds_and_negative_values(self, bmc: Bmc) -> None:
        bmc.sensors["CPU temperature"].value = -300
        assert bmc.sensors["CPU temperature"].value == -128
        assert [record.event_data[0] for record in bmc.sel] == [0x50, 0x52]
        with pytest.raises(ValueError, match="no number"):
            bmc.sensors["CPU fan"].value = float("nan")
        bmc.sensors["CPU fan"].value = float("inf")
        assert bmc.sensors["CPU fan"].value == 12750

    def test_set_thresholds(self, bmc: Bmc) -> None:
        before = ask(bmc, SENSOR, 0x27, b"\x01")
        assert before == bytes((0x3B, 5, 0, 0, 80, 90, 100))
        ask(bmc, SENSOR, 0x26, bytes((1, 0x08, 0, 0, 0, 30, 0, 0)))
        assert ask(bmc, SENSOR, 0x27, b"\x01")[4] == 30
        assert len(bmc.sel) == 1  # 40 degrees are beyond it
        ask(bmc, SENSOR, 0x26, bytes((1, 0x04, 0, 0, 0, 0, 0, 0)), code=0xCC)
        ask(bmc, SENSOR, 0x27, b"\x63", code=0xCB)

    def test_event_enable(self, bmc: Bmc) -> None:
        assert ask(bmc, SENSOR, 0x29, b"\x01") == b"\xc0" + struct.pack("<HH", 0xA85, 0xA85)
        ask(bmc, SENSOR, 0x28, bytes.fromhex("01 e0 8000 0000"))
        assert ask(bmc, SENSOR, 0x29, b"\x01") == b"\xc0" + struct.pack("<HH", 0xA05, 0xA85)
        bmc.sensors["CPU temperature"].value = 91
        assert [record.event_data[0] for record in bmc.sel] == [0x59]
        ask(bmc, SENSOR, 0x28, bytes.fromhex("01 00"))
        assert ask(bmc, SENSOR, 0x2D, b"\x01")[1] == 0

    def test_platform_event(self, bmc: Bmc) -> None:
        ask(bmc, SENSOR, 0x02, bytes.fromhex("41 04 0f 01 6f 02 ff ff"))
        assert bmc.sel[0].data[7:] == bytes.fromhex("4100 04 0f 01 6f 02 ff ff")


class TestWatchdog:
    def arm(self, bmc: Bmc, action: int, tenths: int, pre: int = 0) -> None:
        interrupt = 0x30 if pre else 0
        ask(bmc, APP, 0x24, bytes((4, action | interrupt, pre, 0x3E)) + struct.pack("<H", tenths))
        ask(bmc, APP, 0x22)

    def test_counts_down(self, bmc: Bmc) -> None:
        ask(bmc, APP, 0x22, code=0x80)
        self.arm(bmc, 0, 100)
        advance(bmc, 4)
        assert ask(bmc, APP, 0x25) == bytes((0x44, 0, 0, 0)) + struct.pack("<HH", 100, 60)
        ask(bmc, APP, 0x22)
        advance(bmc, 9.9)
        assert len(bmc.sel) == 0
        advance(bmc, 0.1)
        assert (bmc.sel[0].sensor_type, bmc.sel[0].event_data) == (0x23, bytes((0xC0, 4, 0xFF)))
        assert ask(bmc, APP, 0x25)[:4] == bytes((4, 0, 0, 0x10))

    def test_pretimeout(self, board: Board) -> None:
        self.arm(board.bmc, 0, 50, pre=2)
        advance(board.bmc, 2.9)
        assert board.bus.port_read(0xCA3) & 4 == 0
        advance(board.bmc, 0.1)
        assert board.bus.port_read(0xCA3) & 4 == 4
        assert ask(board.bmc, APP, 0x31) == b"\x08"

    def test_setting_stops_it_and_so_does_a_reset(self, board: Board) -> None:
        bmc = board.bmc
        self.arm(bmc, 0, 10)
        ask(bmc, APP, 0x24, bytes((4, 0, 0, 0, 10, 0)))
        advance(bmc, 2)
        self.arm(bmc, 0, 10)
        board.reset()
        advance(bmc, 2)
        assert len(bmc.sel) == 0

    @pytest.mark.parametrize("data", ["000000000000", "040400000000", "041000000000", "043005000a00"])
    def test_refused(self, bmc: Bmc, data: str) -> None:
        ask(bmc, APP, 0x24, bytes.fromhex(data), code=0xCC)


def spinning() -> Machine:
    """A machine whose ROM writes to port 80h and then loops."""
    rom = bytearray(b"\xf4" * 0x10000)
    rom[0xFFF0:0xFFF4] = bytes.fromhex("e680 ebfe")  # out 80h, al; jmp $
    return Machine(memory=1 << 20, firmware=bytes(rom))


class TestChassis:
    def test_status(self, bmc: Bmc) -> None:
        assert ask(bmc, CHASSIS, 0x01)[0] & 1

    @pytest.mark.parametrize("action", [2, 3])
    def test_reset(self, action: int) -> None:
        with spinning() as machine:
            machine.run(seconds=0.001)
            ask(machine.bmc, CHASSIS, 0x02, bytes((action,)))
            machine.run(seconds=0.02)
            assert machine.board.post.count == 2
            assert ask(machine.bmc, CHASSIS, 0x07) == b"\x01\0"

    def test_power_down(self) -> None:
        with spinning() as machine:
            ask(machine.bmc, CHASSIS, 0x02, b"\0")
            assert machine.run(seconds=1).reason is StopReason.POWERED_OFF
            assert 0.0099 < machine.cycles / machine.board.clock.hz < 0.0101

    def test_soft_off_presses_the_power_button(self) -> None:
        with spinning() as machine:
            ask(machine.bmc, CHASSIS, 0x02, b"\x05")
            machine.run(seconds=0.02)
            assert machine.board.bus.port_read(0x600, 2) & 0x100

    def test_watchdog_resets_and_powers_off(self) -> None:
        with spinning() as machine:
            TestWatchdog().arm(machine.bmc, 1, 1)
            machine.run(seconds=0.2)
            assert machine.board.post.count == 2
            assert ask(machine.bmc, CHASSIS, 0x07) == b"\x04\0"
            TestWatchdog().arm(machine.bmc, 2, 1)
            assert machine.run(seconds=1).reason is StopReason.POWERED_OFF

    def test_refused(self, bmc: Bmc) -> None:
        for wrong in (4, 6, 15):
            ask(bmc, CHASSIS, 0x02, bytes((wrong,)), code=0xCC)

    def test_boot_options(self, bmc: Bmc) -> None:
        assert ask(bmc, CHASSIS, 0x09, b"\x05\0\0") == b"\x01\x05" + bytes(5)
        ask(bmc, CHASSIS, 0x08, bytes.fromhex("05 80 04 00 00 00"))
        assert ask(bmc, CHASSIS, 0x09, b"\x05\0\0") == bytes.fromhex("01 05 80 04 00 00 00")
        ask(bmc, CHASSIS, 0x09, b"\x60\0\0", code=0x80)


@pytest.mark.parametrize("seed", range(4))
def test_any_message_is_answered(bmc: Bmc, seed: int) -> None:
    """Random data for every command: a response of a message's size, never an exception; and a copy goes on alike."""
    pick = random.Random(seed)
    other = Board(Model("pentium3"), 1 << 20, bytes(4096)).bmc
    for number in range(4000):
        netfn, command = pick.choice(list(COMMANDS)) if number % 10 else (pick.getrandbits(6), pick.getrandbits(8))
        _, least, most = COMMANDS.get((netfn, command), (None, 0, 8))
        request = bytes((netfn << 2, command)) + pick.randbytes(pick.randint(least, most))
        if number == 2000:
            other.clock.load(bmc.clock.save())
            other.load(bmc.save())
        response = bmc.handle(request)
        assert 3 <= len(response) <= 64
        assert response[0] >> 2 == netfn | 1 and response[1] == command
        if number >= 2000:
            assert other.handle(request) == response
    assert other.save() == bmc.save()
    assert len(bmc.sel) <= 512


def test_snapshot() -> None:
    with spinning() as machine:
        machine.bmc.sensors["CPU temperature"].value = 95
        snapshot = machine.snapshot()
        machine.bmc.sensors["CPU temperature"].value = 20
        machine.restore(snapshot)
        assert (machine.bmc.sensors["CPU temperature"].value, len(machine.bmc.sel)) == (95, 2)
