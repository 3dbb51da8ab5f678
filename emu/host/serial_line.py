"""What lies between a chip that talks in bytes and its backend on the host."""

from collections.abc import Callable
from typing import Any, Protocol

from emu.errors import BadInput, ConfigError
from emu.host.backend import Backend, Output

__all__ = ["OutputLine", "SerialLine", "open_backend"]

HISTORY = 1 << 20
READ_SIZE = 4096


class Talker(Protocol):
    """What a line needs of a chip that only sends."""

    def take_output(self) -> bytes: ...


class Uart(Talker, Protocol):
    """What a line needs of a chip that also receives."""

    def receive(self, data: bytes) -> int: ...


def open_backend(text: str) -> Backend:
    """Opens what a `--serial` option names: stdio, null, file:PATH or tcp:PORT.

    Raises:
        ConfigError: it names nothing of these, or it cannot be opened.
    """
    kind, _, argument = text.partition(":")
    if kind == "null" and not argument:
        return Backend()
    if kind == "stdio" and not argument:
        from emu.host.stdio import StdioBackend

        return StdioBackend()
    if kind == "file" and argument:
        from emu.host.file import FileBackend

        return FileBackend(argument)
    if kind == "tcp" and argument.isascii() and argument.isdigit():
        from emu.host.tcp import TcpBackend

        return TcpBackend(int(argument))
    raise ConfigError(f"{text!r} is no serial line: stdio, null, file:PATH or tcp:PORT")


class OutputLine:
    """Moves what a chip sends to the host whenever it is polled, and remembers the last of it.

    Args:
        chip: the chip.
        backend: the host's end.
        heard: called with what the guest has sent, where there was something.
    """

    def __init__(self, chip: Talker, backend: Backend, heard: Callable[[bytes], None] | None = None) -> None:
        self.chip = chip
        self.backend = backend
        self.heard = heard
        self.history = Output(HISTORY)

    @property
    def output(self) -> bytes:
        """What the guest has sent: the last 1 MiB; `history.lost` bytes went before."""
        return bytes(self.history.waiting)

    def poll(self) -> None:
        """Between slices of a run."""
        data = self.chip.take_output()
        self.backend.write(data)
        if data:
            self.history.put(data)
            if self.heard is not None:
                self.heard(data)

    def save(self) -> dict[str, Any]:
        """What the guest has sent, for a snapshot of the machine."""
        return {"output": self.output, "lost": self.history.lost}

    def load(self, state: dict[str, Any]) -> None:
        """Takes what save() gave; the host is sent nothing of it again.

        Raises:
            BadInput: it is malformed.
        """
        output, lost = state["output"], state["lost"]
        if not (isinstance(output, bytes) and isinstance(lost, int)):
            raise BadInput("the state of a line to the host is malformed")
        self.history.waiting, self.history.lost = bytearray(output[-self.history.limit :]), lost

    def close(self) -> None:
        """Passes on what is left and closes the backend."""
        self.poll()
        self.backend.close()


class SerialLine(OutputLine):
    """The same with what the host sends, which goes to the chip."""

    def __init__(self, uart: Uart, backend: Backend, heard: Callable[[bytes], None] | None = None) -> None:
        super().__init__(uart, backend, heard)
        self.uart = uart
        self.pending = b""  # read from the backend, not yet accepted by the chip

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
        super().poll()
        self.pending = self.pending or self.backend.read(READ_SIZE)
        if self.pending:
            self.pending = self.pending[self.uart.receive(self.pending) :]
