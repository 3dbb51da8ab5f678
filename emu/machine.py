"""What a user holds: a whole PC, its run, its console and its snapshots."""

from pathlib import Path
from types import TracebackType
from typing import Any

from emu._core import BoardCpu, Memory, load_model
from emu.board import Board
from emu.errors import BadInput, ConfigError
from emu.host.serial_line import SerialLine, open_backend
from emu.stop import Stop, StopReason

__all__ = ["Machine", "builtin_firmware", "parse_size"]

SIZE_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def builtin_firmware() -> Path:
    """The ROM image that the build assembles from bios/.

    Raises:
        BadInput: this installation has none.
    """
    path = Path(__file__).parent / "firmware" / "firmware.bin"
    if not path.exists():
        raise BadInput(f"{path}: the built-in firmware is missing; build again")
    return path


def parse_size(text: str) -> int:
    """Bytes of a size such as 64M, 512K or 1G; without a unit, bytes.

    Raises:
        ConfigError: it is no size.
    """
    number, unit = (text[:-1], SIZE_UNITS[text[-1].upper()]) if text[-1:].upper() in SIZE_UNITS else (text, 1)
    if not (number.isascii() and number.isdigit()):
        raise ConfigError(f"{text!r} is no size: a number with K, M or G")
    return int(number) * unit


class Machine:
    """A PC with a firmware ROM. A context manager; close() gives back what it holds of the host.

    Args:
        memory: RAM in bytes, whole MiB.
        cpu: the processor model's name.
        timing: "static" (the model's clocks) or "unit" (one a instruction).
        firmware: the ROM image, or None for the built-in one.
        serial: the host's end of COM1: null, stdio, file:PATH or tcp:PORT.
        debugcon, debug_exit: I/O ports of these two devices, or None.

    Raises:
        ConfigError: an unknown model, a size that is not whole MiB, a serial line that cannot be opened.
        BadInput: a ROM image of the wrong size.
    """

    def __init__(
        self,
        memory: int = 64 << 20,
        cpu: str = "pentium3",
        timing: str = "static",
        firmware: bytes | None = None,
        serial: str = "null",
        debugcon: int | None = None,
        debug_exit: int | None = None,
    ) -> None:
        rom = builtin_firmware().read_bytes() if firmware is None else firmware
        self.board = Board(load_model(cpu, timing), memory, rom, debugcon=debugcon, debug_exit=debug_exit)
        self.serial = SerialLine(self.board.com1, open_backend(serial))
        self.cpu.on_slice(self.serial.poll)

    def __enter__(self) -> "Machine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Passes on what the guest has sent and closes the host's end of the serial line."""
        self.serial.poll()
        self.serial.close()

    @property
    def cpu(self) -> BoardCpu:
        """The processor."""
        return self.board.cpu

    @property
    def memory(self) -> Memory:
        """The RAM."""
        return self.board.memory

    @property
    def cycles(self) -> int:
        """Cycles since power-on."""
        return self.cpu.cycles

    @property
    def instructions(self) -> int:
        """Instructions completed."""
        return self.cpu.instructions

    def run(self, **limits: Any) -> Stop:
        """Runs; the limits are those of the processor's run(): instructions, cycles, seconds, timeout, until, every."""
        stop = self.cpu.run(**limits)
        self.serial.poll()
        return stop

    def stop(self) -> None:
        """Ends the run, from any thread."""
        self.cpu.stop()

    def report(self, stop: Stop, host_seconds: float) -> dict[str, Any]:
        """What a run came to, as plain values for JSON. host_seconds: how long it took."""
        codes = self.board.post.codes
        return {
            "stop": str(stop.reason),
            "status": stop.status,
            "cycles": self.cycles,
            "instructions": self.instructions,
            "guest_seconds": self.cycles / self.board.clock.hz,
            "host_seconds": host_seconds,
            "mips": self.instructions / host_seconds / 1e6 if host_seconds else 0.0,
            "post_codes": {"count": self.board.post.count, "last": [code for _, code in codes]},
        }


def exit_status(stop: Stop) -> int:
    """Exit status of a run: 0 powered off, the debug-exit status, 6 triple fault, 4 a limit or halted for good."""
    if stop.reason is StopReason.DEBUG_EXIT:
        return stop.status or 0
    return {StopReason.POWERED_OFF: 0, StopReason.TRIPLE_FAULT: 6}.get(stop.reason, 4)
