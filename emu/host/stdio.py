"""The process's own input and output. A terminal passes every key on, except that Ctrl-C stays the host's."""

import atexit
import contextlib
import errno
import os
import select
import sys
import termios
import time

from emu.errors import ConfigError
from emu.host.backend import Backend, Output

__all__ = ["StdioBackend", "StdoutBackend"]

STDIN, STDOUT = 0, 1
WAITING_LIMIT = 16 << 20
WRITE_SIZE = 4096  # a pipe that polls as writable takes this much without blocking (pipe(7), PIPE_BUF)
READER_LEFT = (errno.EPIPE, errno.EIO, errno.EBADF)  # of a pipe, of a terminal, and where there was none
CLOSE_SECONDS = 2.0  # how long close() waits for a slow reader


class StdoutBackend(Backend):
    """Standard output; nothing ever comes back.

    Args:
        sink: a file descriptor to use instead.
    """

    def __init__(self, sink: int | None = None) -> None:
        self.sink = STDOUT if sink is None else sink
        self.output = Output(WAITING_LIMIT)
        self.writable = sink is not None or sys.stdout is not None  # None: the process began with it closed

    @property
    def lost(self) -> int:  # type: ignore[override]
        """Bytes dropped because the reader was too slow."""
        return self.output.lost

    def write(self, data: bytes) -> None:
        self.output.put(data)
        self.flush(0)

    def flush(self, seconds: float) -> None:
        """Passes on what the sink takes within so many seconds. A sink that nobody reads any more takes nothing.

        Raises:
            ConfigError: it is a file that takes no more, such as on a full disk.
        """
        deadline = time.monotonic() + seconds
        while self.output.waiting and self.writable:
            wait = max(0.0, deadline - time.monotonic())
            if not select.select([], [self.sink], [], wait)[1]:
                return
            try:
                self.output.taken(os.write(self.sink, self.output.waiting[:WRITE_SIZE]))
            except BlockingIOError:
                return
            except OSError as error:
                self.writable = False
                if error.errno not in READER_LEFT:
                    raise ConfigError(f"standard output: cannot be written: {error.strerror}") from None

    def close(self) -> None:
        self.flush(CLOSE_SECONDS)
        self.writable = False


class StdioBackend(StdoutBackend):
    """Standard input and output.

    Args:
        source, sink: file descriptors to use instead of standard input and output.
    """

    def __init__(self, source: int | None = None, sink: int | None = None) -> None:
        super().__init__(sink)
        self.source = STDIN if source is None else source
        self.readable = source is not None or sys.stdin is not None
        self.saved_mode: list[int | list[bytes | int]] | None = None
        self.use_terminal()

    def use_terminal(self) -> None:
        """Keys come one at a time and unechoed, Enter as CR. In the background the terminal is left alone."""
        if not (self.readable and os.isatty(self.source)):
            return
        try:
            self.readable = os.tcgetpgrp(self.source) == os.getpgrp()
        except OSError:
            return  # some other session's terminal: it may be read, not configured
        if not self.readable:
            return
        self.saved_mode = termios.tcgetattr(self.source)
        mode = termios.tcgetattr(self.source)
        mode[0] &= ~termios.ICRNL
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(self.source, termios.TCSANOW, mode)
        atexit.register(self.restore_terminal)

    def restore_terminal(self) -> None:
        """The terminal as it was found."""
        if self.saved_mode is not None:
            termios.tcsetattr(self.source, termios.TCSADRAIN, self.saved_mode)
            self.saved_mode = None
            atexit.unregister(self.restore_terminal)

    def read(self, limit: int) -> bytes:
        if not self.readable or limit <= 0 or not select.select([self.source], [], [], 0)[0]:
            return b""
        try:
            data = os.read(self.source, limit)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        self.readable = bool(data)
        return data

    def close(self) -> None:
        super().close()
        with contextlib.suppress(termios.error):
            self.restore_terminal()
        self.readable = False
