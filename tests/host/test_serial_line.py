"""The host's ends of serial lines."""

import os
import socket
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emu.errors import ConfigError
from emu.host.backend import Backend, Output
from emu.host.file import FileBackend
from emu.host.serial_line import SerialLine, open_backend
from emu.host.stdio import StdioBackend
from emu.host.tcp import TcpBackend


class Uart:
    """A chip that sends what it is told to and takes so many bytes at a time."""

    def __init__(self, room: int = 1 << 20) -> None:
        self.room = room
        self.sent = b""
        self.received = b""

    def take_output(self) -> bytes:
        data, self.sent = self.sent, b""
        return data

    def receive(self, data: bytes) -> int:
        taken = data[: self.room]
        self.received += taken
        return len(taken)


class Script(Backend):
    """A backend that says what it was given at first, once."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def read(self, limit: int) -> bytes:
        data, self.text = self.text[:limit], self.text[limit:]
        return data


def wait_for(backend: Backend, wanted: bytes) -> bytes:
    """Reads until so many bytes have come, for at most ten seconds."""
    data = b""
    deadline = time.monotonic() + 10
    while len(data) < len(wanted) and time.monotonic() < deadline:
        data += backend.read(1000)
    return data


def test_a_line_moves_bytes_both_ways() -> None:
    uart, backend, heard = Uart(), Script(b"typed"), list[bytes]()
    line = SerialLine(uart, backend, heard.append)
    uart.sent = b"guest"
    line.poll()
    line.poll()
    assert (backend.written, line.output, heard) == (b"guest", b"guest", [b"guest"])
    assert uart.received == b"typed"


def test_a_line_keeps_what_the_chip_refuses() -> None:
    uart = Uart(room=2)
    line = SerialLine(uart, Script(b"abcde"))
    line.poll()
    assert uart.received == b"ab"
    line.poll()
    line.poll()
    assert uart.received == b"abcde"
    with pytest.raises(ConfigError, match="3 of 5 bytes were refused"):
        line.send(b"12345")


def test_output_is_bounded() -> None:
    output = Output(4)
    output.put(b"abc")
    output.put(b"def")
    assert (bytes(output.waiting), output.lost) == (b"cdef", 2)
    output.taken(3)
    assert bytes(output.waiting) == b"f"


def test_null() -> None:
    backend = open_backend("null")
    backend.write(b"x" * 1000)
    assert backend.read(10) == b""
    backend.close()


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "com1"
    path.write_bytes(b"old contents")
    backend = open_backend(f"file:{path}")
    backend.write(b"one ")
    backend.write(b"two")
    assert path.read_bytes() == b"one two"
    assert backend.read(10) == b""
    backend.close()
    backend.write(b"late")
    assert path.read_bytes() == b"one two"


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write .*: No such file or directory"):
        FileBackend(tmp_path / "missing" / "com1")
    if os.path.exists("/dev/full"):
        full = FileBackend("/dev/full")
        with pytest.raises(ConfigError, match="cannot write /dev/full: No space left on device"):
            full.write(b"x")
        full.close()


@pytest.fixture
def tcp() -> Iterator[TcpBackend]:
    backend = TcpBackend(0)
    yield backend
    backend.close()


def test_tcp_both_ways(tcp: TcpBackend) -> None:
    tcp.write(b"before anyone came, ")
    with socket.create_connection(("127.0.0.1", tcp.port), timeout=10) as client:
        client.sendall(b"typed")
        assert wait_for(tcp, b"typed") == b"typed"
        tcp.write(b"after")
        assert client.recv(100) == b"before anyone came, after"


def test_tcp_client_can_go_and_another_come(tcp: TcpBackend) -> None:
    for text in (b"first", b"second"):
        with socket.create_connection(("127.0.0.1", tcp.port), timeout=10) as client:
            client.sendall(text)
            assert wait_for(tcp, text) == text
        deadline = time.monotonic() + 10
        while tcp.client is not None and time.monotonic() < deadline:
            tcp.read(10)
        assert tcp.client is None


def test_tcp_client_that_reads_nothing_stops_nobody(tcp: TcpBackend) -> None:
    with socket.create_connection(("127.0.0.1", tcp.port), timeout=10):
        for _ in range(20):
            tcp.write(bytes(1 << 20))
        assert tcp.lost > 0
        assert len(tcp.output.waiting) <= 1 << 20


def test_tcp_port_in_use(tcp: TcpBackend) -> None:
    with pytest.raises(ConfigError, match=f"^TCP port {tcp.port} on 127.0.0.1: Address already in use$"):
        open_backend(f"tcp:{tcp.port}")


@pytest.mark.parametrize("text", ["", "stdio:1", "file:", "tcp:", "tcp:com1", "tcp:-1", "serial", "TCP:1"])
def test_lines_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="is no serial line: stdio, null, file:PATH or tcp:PORT"):
        open_backend(text)


def test_tcp_port_out_of_range() -> None:
    with pytest.raises(ConfigError, match="TCP port 65536: not within 0 to 65535"):
        open_backend("tcp:65536")


def test_stdio_by_pipes() -> None:
    source, typed = os.pipe()
    shown, sink = os.pipe()
    backend = StdioBackend(source, sink)
    assert backend.read(10) == b""
    os.write(typed, b"keys")
    assert backend.read(2) == b"ke"
    assert backend.read(10) == b"ys"
    os.close(typed)
    assert backend.read(10) == b""
    backend.write(b"text")
    assert os.read(shown, 100) == b"text"
    # A reader that does not read: what the pipe does not take waits.
    backend.write(bytes(1 << 20))
    assert len(backend.output.waiting) > 0
    os.close(shown)  # and one that has gone ends it
    backend.write(b"more")
    assert not backend.writable
    backend.close()
    os.close(source)
    os.close(sink)


def test_stdio_leaves_a_terminal_of_another_session_alone() -> None:
    keyboard, terminal = os.openpty()
    before = termios.tcgetattr(terminal)
    backend = StdioBackend(terminal, terminal)
    assert termios.tcgetattr(terminal) == before
    backend.close()
    os.close(keyboard)
    os.close(terminal)


def test_stdio_puts_a_terminal_of_its_own_back() -> None:
    """In a child process with a terminal of its own, Enter comes as CR, unechoed, and all is undone at the end."""
    pid, keyboard = os.forkpty()
    if pid == 0:
        status = 1
        try:
            before = termios.tcgetattr(0)
            backend = StdioBackend(0, 1)
            backend.write(b"ready")
            data = wait_for(backend, b"a\r")
            backend.close()
            status = 0 if data == b"a\r" and termios.tcgetattr(0) == before else 2
        finally:
            os._exit(status)
    assert os.read(keyboard, 5) == b"ready"
    os.write(keyboard, b"a\r")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(keyboard)
