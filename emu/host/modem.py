"""A modem's signals to the computer, where a serial line's other end can come and go."""

from typing import Protocol

from emu.host.backend import Backend

__all__ = ["ModemSignals"]

DSR, DCD = 1, 3  # input lines of the UART


class Uart(Protocol):
    """What it needs of a chip."""

    @property
    def dtr(self) -> bool: ...
    def drive(self, line: int, level: bool) -> None: ...


class ModemSignals:
    """DSR and DCD are asserted while somebody is connected; where the guest drops DTR, the call ends."""

    def __init__(self, uart: Uart, backend: Backend) -> None:
        self.uart = uart
        self.backend = backend
        self.dtr = False
        self.poll()

    def poll(self) -> None:
        """Between slices of a run."""
        if self.dtr and not self.uart.dtr:
            self.backend.hang_up()
        self.dtr = self.uart.dtr
        connected = self.backend.connected
        self.uart.drive(DSR, connected)
        self.uart.drive(DCD, connected)
