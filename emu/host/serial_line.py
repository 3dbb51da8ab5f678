"""The line between a UART and a backend."""

from collections.abc import Callable
from typing import Protocol

from emu.errors import ConfigError
from emu.host.backend import Backend, Output
from emu.host.file import FileBackend
from emu.host.stdio import StdioBackend
from emu.host.tcp import TcpBackend

__all__ = ["SerialLine", "open_backend"]

HISTORY = 1 << 20
READ_SIZE = 4096


class Uart(Protocol):
    """What the line needs of a chip."""

    def take_output(self) -> bytes: ...
    def receive(self, data: bytes) -> int: ...


def open_backend(text: str) -> Backend:
    """Opens what a `--serial` option names: stdio, null, file:PATH or tcp:PORT.

    Raises:
        ConfigError: it names nothing of these, or it cannot be opened.
    """
    kind, _, argument = text.partition(":")
    if kind in ("stdio", "null") and not argument:
        return StdioBackend() if kind == "stdio" else Backend()
    if kind == "file" and argument:
        return FileBackend(argument)
    if kind == "tcp" and argument.isascii() and argument.isdigit():
        return TcpBackend(int(argument))
    raise ConfigError(f"{text!r} is no serial line: stdio, null, file:PATH or tcp:PORT")


class SerialLine:
    """Moves characters both ways whenever it is polled, and remembers the last of the guest's.

    Args:
        uart: the chip.
        backend: the host's end.
        heard: called with what the guest has sent, where there was something.
    """

    def __init__(self, uart: Uart, backend: Backend, heard: Callable[[bytes], None] | None = None) -> None:
        self.uart = uart
        self.backend = backend
        self.heard = heard
        self.history = Output(HISTORY)
        self.pending = b""  # read from the backend, not yet accepted by the chip

    @property
    def output(self) -> bytes:
        """What the guest has sent: the last 1 MiB; `history.lost` bytes went before."""
        return bytes(self.history.waiting)

    def send(self, data: bytes) -> None:
        """Lets characters go to the guest, after those on their way.

        Raises:
            ConfigError: more than 1 MiB would be on its way.
        """
        accepted = self.uart.receive(data)
        if accepted != len(data):
            raise ConfigError(f"the serial line holds 1 MiB: {len(data) - accepted} of {len(data)} bytes were refused")

    def poll(self) -> None:
        """Between slices of a run."""
        data = self.uart.take_output()
        self.backend.write(data)
        if data:
            self.history.put(data)
            if self.heard is not None:
                self.heard(data)
        self.pending = self.pending or self.backend.read(READ_SIZE)
        if self.pending:
            self.pending = self.pending[self.uart.receive(self.pending) :]

    def close(self) -> None:
        """Passes on what is left and closes the backend."""
        self.poll()
        self.backend.close()
