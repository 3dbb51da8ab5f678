"""Files of ours: one that appears whole or not at all, and a text that grows. What goes wrong names the file."""

import contextlib
import io
import os
from typing import NoReturn

from emu.errors import ConfigError

__all__ = ["OutputFile", "TextFile"]


def refuse(path: str, error: OSError) -> NoReturn:
    """Raises the error that a user sees."""
    raise ConfigError(f"{'standard output' if path == '-' else path}: cannot be written: {error.strerror}") from None


class OutputFile:
    """Proves that a file can be written before there is anything to write, then writes it in one step.

    A regular file is replaced by a rename, so nobody ever sees half of it. A pipe or device is written to directly.

    Args:
        path: the file; `-` is standard output.

    Raises:
        ConfigError: it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.given = self.path = os.fspath(path)
        self.temporary: str | None = None
        try:
            if self.path == "-":
                self.file = open(os.dup(1), "wb")  # noqa: SIM115 (stays open until close())
            elif os.path.exists(self.path) and not os.path.isfile(self.path):
                self.file = open(self.path, "wb")  # noqa: SIM115
            else:
                if os.path.exists(self.path):
                    os.close(os.open(self.path, os.O_WRONLY))  # a rename would also replace a read-only file
                # What a link points to is replaced, not the link.
                self.path = os.path.realpath(self.path)
                import tempfile  # 5 ms that only a run with a report pays for

                handle, self.temporary = tempfile.mkstemp(prefix=".emu-", dir=os.path.dirname(self.path))
                self.file = open(handle, "wb")  # noqa: SIM115
        except OSError as error:
            refuse(self.given, error)

    def write(self, data: bytes) -> None:
        """Writes part of the file.

        Raises:
            ConfigError: the host takes no more, such as on a full disk.
        """
        try:
            self.file.write(data)
        except OSError as error:
            refuse(self.given, error)

    def finish(self) -> None:
        """All is written: the file appears under its name.

        Raises:
            ConfigError: the host takes no more.
        """
        try:
            self.file.close()
            if self.temporary is not None:
                mask = os.umask(0)
                os.umask(mask)
                os.chmod(self.temporary, 0o666 & ~mask)
                os.replace(self.temporary, self.path)
                self.temporary = None
        except OSError as error:
            refuse(self.given, error)

    def close(self) -> None:
        """Lets go of it; what was not finished is left out, and a file that was there before stays."""
        with contextlib.suppress(OSError):
            self.file.close()
        if self.temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.temporary)
            self.temporary = None

    def __enter__(self) -> "OutputFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class TextFile(io.TextIOWrapper):
    """A text file that can be read while it grows.

    Raises:
        ConfigError: it cannot be written, now or later.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            super().__init__(open(path, "wb"), encoding="utf-8")  # noqa: SIM115 (closed with this)
        except OSError as error:
            refuse(path, error)

    def write(self, text: str) -> int:
        """Raises ConfigError where the file takes no more, such as on a full disk."""
        try:
            return super().write(text)
        except OSError as error:
            refuse(self.path, error)

    def flush(self) -> None:
        """Raises ConfigError as write() does."""
        try:
            super().flush()
        except OSError as error:
            refuse(self.path, error)

    def close(self) -> None:
        """Raises ConfigError as write() does."""
        try:
            super().close()
        except OSError as error:
            refuse(self.path, error)
