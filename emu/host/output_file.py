"""A file of ours that appears whole or not at all."""

import contextlib
import os

from emu.errors import ConfigError

__all__ = ["OutputFile"]


class OutputFile:
    """Proves that a file can be written before there is anything to write, then writes it in one step.

    A regular file is replaced by a rename, so nobody ever sees half of it. A pipe or device is written to directly.

    Args:
        path: the file; `-` is standard output.

    Raises:
        ConfigError: it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
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
            raise ConfigError(f"{self.path}: cannot be written: {error.strerror}") from None

    def write(self, data: bytes) -> None:
        """Writes part of the file.

        Raises:
            ConfigError: the host takes no more, such as on a full disk.
        """
        try:
            self.file.write(data)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written: {error.strerror}") from None

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
            raise ConfigError(f"{self.path}: cannot be written: {error.strerror}") from None

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
