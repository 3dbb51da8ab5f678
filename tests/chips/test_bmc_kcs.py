"""The KCS interface: transfers and every error of its state machine. IPMI v2.0, "Keyboard Controller Style (KCS)
Interface", "KCS Interface/BMC Request Message Format" and the transfer flow charts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu._core import Bus, Clock
from emu.chips.bmc_kcs import BmcKcs

DATA, COMMAND = 0xCA2, 0xCA3
OBF, IBF, SMS_ATN, CD = 1, 2, 4, 8
IDLE, READ, WRITE, ERROR = 0, 1, 2, 3
ABORT, WRITE_START, WRITE_END, READ_BYTE = 0x60, 0x61, 0x62, 0x68


class Echo:
    """Answers with the request, a completion code and the data."""

    def handle(self, request: bytes) -> bytes:
        if request[1] == 0xEE:
            raise ValueError("no such thing")
        return request[:2] + b"\0" + request[2:]


class Kcs:
    """The software's side of the interface."""

    def __init__(self) -> None:
        self.clock = Clock(1_000_000)
        self.bus = Bus(self.clock)
        self.chip = BmcKcs(self.clock, "kcs", Echo())
        self.bus.map_ports(DATA, 2, self.chip)

    @property
    def status(self) -> int:
        return self.bus.port_read(COMMAND)

    @property
    def state(self) -> int:
        return self.status >> 6

    def write(self, port: int, value: int) -> int:
        """Writes and waits until the controller has looked; returns the state."""
        self.bus.port_write(port, value)
        for _ in range(100):
            if not self.status & IBF:
                break
            self.clock.advance(1)
        assert not self.status & IBF
        return self.state

    def send(self, message: bytes) -> None:
        assert self.write(COMMAND, WRITE_START) == WRITE
        for value in message[:-1]:
            assert self.write(DATA, value) == WRITE
        assert self.write(COMMAND, WRITE_END) == WRITE
        self.write(DATA, message[-1])

    def receive(self) -> bytes:
        data = []
        while self.state == READ:
            assert self.status & OBF
            data.append(self.bus.port_read(DATA))
            self.write(DATA, READ_BYTE)
        assert self.state == IDLE and self.status & OBF
        self.bus.port_read(DATA)  # the dummy
        assert not self.status & OBF
        return bytes(data)

    def recover(self) -> int:
        """Error processing: the status code."""
        assert self.write(COMMAND, ABORT) == WRITE
        assert self.write(DATA, 0) == READ
        assert self.status & OBF
        code = self.bus.port_read(DATA)
        assert self.write(DATA, READ_BYTE) == IDLE
        self.bus.port_read(DATA)
        return code


@pytest.fixture
def kcs() -> Kcs:
    return Kcs()


def test_transfers(kcs: Kcs) -> None:
    for message in (b"\x18\x01", b"\x18\x01\x02\x03", bytes(253), b"\x28\x43" + bytes(range(6))):
        kcs.send(message)
        assert kcs.receive() == message[:2] + b"\0" + message[2:]


def test_a_byte_takes_ten_microseconds(kcs: Kcs) -> None:
    kcs.bus.port_write(COMMAND, WRITE_START)
    kcs.clock.advance(9)
    assert kcs.status == CD | IBF
    kcs.clock.advance(1)
    assert kcs.status == WRITE << 6 | CD


def test_write_start_begins_again(kcs: Kcs) -> None:
    kcs.write(COMMAND, WRITE_START)
    kcs.write(DATA, 0x55)
    kcs.send(b"\x18\x01")
    assert kcs.receive() == b"\x18\x01\0"


@pytest.mark.parametrize("code", [0x00, 0x63, 0x67, READ_BYTE, 0xFF, WRITE_END])
def test_illegal_control_codes(kcs: Kcs, code: int) -> None:
    assert kcs.write(COMMAND, code) == ERROR
    assert kcs.recover() == 0x02
    kcs.send(b"\x18\x01")
    assert kcs.receive() == b"\x18\x01\0"


def test_data_in_the_wrong_phase(kcs: Kcs) -> None:
    assert kcs.write(DATA, 0x18) == ERROR
    assert kcs.recover() == 0x02
    kcs.send(b"\x18\x01")
    assert kcs.write(DATA, 0x69) == ERROR  # READ is wanted
    assert kcs.recover() == 0x02


def test_abort(kcs: Kcs) -> None:
    """Status codes: 00h where nothing was under way, 01h where a transfer was."""
    assert kcs.recover() == 0x00
    kcs.write(COMMAND, WRITE_START)
    kcs.write(DATA, 0x18)
    assert kcs.recover() == 0x01
    kcs.send(b"\x18\x01\x02")
    kcs.bus.port_read(DATA)
    assert kcs.recover() == 0x01
    assert kcs.recover() == 0x00


def test_length_errors(kcs: Kcs) -> None:
    kcs.send(b"\x18")
    assert kcs.state == ERROR
    assert kcs.recover() == 0x06
    kcs.write(COMMAND, WRITE_START)
    for _ in range(256):
        assert kcs.write(DATA, 1) == WRITE
    assert kcs.write(DATA, 1) == ERROR
    assert kcs.recover() == 0x06


def test_a_response_that_is_too_long(kcs: Kcs) -> None:
    kcs.write(COMMAND, WRITE_START)
    for _ in range(255):
        kcs.write(DATA, 0)
    kcs.write(COMMAND, WRITE_END)
    kcs.bus.port_write(DATA, 0)
    with pytest.raises(Exception, match="a response of 257 bytes"):
        kcs.clock.advance(100)
    assert kcs.recover() == 0xFF


def test_an_exception_of_the_brain_comes_out(kcs: Kcs) -> None:
    kcs.write(COMMAND, WRITE_START)
    kcs.write(DATA, 0x18)
    kcs.write(COMMAND, WRITE_END)
    kcs.bus.port_write(DATA, 0xEE)
    with pytest.raises(ValueError, match="no such thing"):
        kcs.clock.advance(100)
    assert kcs.state == ERROR


def test_attention(kcs: Kcs) -> None:
    kcs.chip.set_attention(True)
    assert kcs.status == SMS_ATN


def test_reset(kcs: Kcs) -> None:
    kcs.send(b"\x18\x01\x02")
    kcs.chip.reset()
    assert kcs.status == 0
    kcs.send(b"\x18\x01")
    assert kcs.receive() == b"\x18\x01\0"


def test_state(kcs: Kcs, round_trip: Callable) -> None:
    kcs.send(b"\x18\x01\x02\x03")
    round_trip(kcs.chip, BmcKcs(Clock(), "kcs", Echo()))
