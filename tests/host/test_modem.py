"""The second serial port's line: a TCP client is a call."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from emu._core import Bus, Clock
from emu.chips.uart16550 import Uart16550
from emu.host.backend import Backend
from emu.host.modem import ModemSignals
from emu.host.serial_line import SerialLine
from emu.host.tcp import TcpBackend

CALL = 0xA0  # DSR and DCD in MSR
MSR, MCR = 0x2FE, 0x2FC


class Bench:
    """A UART on a bus, its line and a TCP port."""

    def __init__(self, backend: Backend) -> None:
        self.clock = Clock(1_843_200)
        self.bus = Bus(self.clock)
        self.uart = Uart16550(self.clock, "com2")
        self.bus.map_ports(0x2F8, 8, self.uart)
        self.bus.port_write(0x2FB, 3)  # eight data bits
        self.backend = backend
        self.line = SerialLine(self.uart, backend)
        self.signals = ModemSignals(self.uart, backend)

    @property
    def call(self) -> int:
        return self.bus.port_read(MSR) & CALL

    def poll(self) -> None:
        self.line.poll()
        self.signals.poll()

    def until(self, done: Callable[[], bool]) -> None:
        """Polls until it is so, for at most ten seconds."""
        deadline = time.monotonic() + 10
        while not done():
            assert time.monotonic() < deadline
            self.poll()
            self.clock.advance(100_000)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(TcpBackend(0))
    yield made
    made.line.close()


def connect(bench: Bench) -> socket.socket:
    assert isinstance(bench.backend, TcpBackend)
    return socket.create_connection(("127.0.0.1", bench.backend.port), timeout=10)


def test_the_modem_lines_follow_the_client(bench: Bench) -> None:
    assert bench.call == 0
    with connect(bench):
        bench.until(lambda: bench.call == CALL)
    bench.until(lambda: bench.call == 0)


def test_a_plain_cable_is_always_connected() -> None:
    assert Bench(Backend()).call == CALL


def test_dropping_dtr_ends_the_call(bench: Bench) -> None:
    with connect(bench) as client:
        bench.bus.port_write(MCR, 1)
        bench.until(lambda: bench.call == CALL)
        bench.bus.port_write(MCR, 0)
        bench.until(lambda: bench.call == 0)
        assert client.recv(10) == b""
    with connect(bench):  # the next caller is taken, with DTR still low
        bench.until(lambda: bench.call == CALL)


def test_bytes_both_ways(bench: Bench) -> None:
    with connect(bench) as client:
        client.sendall(b"ls")
        bench.until(lambda: bench.bus.port_read(0x2FD) & 1 == 1)
        assert bench.bus.port_read(0x2F8) == ord("l")
        bench.bus.port_write(0x2F8, ord("k"))
        bench.until(lambda: bench.line.output == b"k")
        assert client.recv(10) == b"k"


def test_a_client_that_floods_is_held_back(bench: Bench) -> None:
    """Nothing beyond a few MiB is taken from it, and the guest's side goes on."""
    with connect(bench) as client:
        client.setblocking(False)
        sent = 0
        for _ in range(3000):
            with contextlib.suppress(BlockingIOError):
                sent += client.send(bytes(1 << 16))
            bench.poll()
        assert len(bench.line.pending) <= 4096
        assert len(bench.uart.save()["from_host"]) <= 1 << 20
        assert sent < 64 << 20
        bench.bus.port_write(0x2F8, ord("k"))
        bench.until(lambda: bench.line.output == b"k")


def test_clients_that_come_and_go_at_once(bench: Bench) -> None:
    for _ in range(50):
        connect(bench).close()
        bench.poll()
    with connect(bench) as client:
        client.sendall(b"x")
        bench.until(lambda: bench.bus.port_read(0x2FD) & 1 == 1)
        assert bench.bus.port_read(0x2F8) == ord("x")
