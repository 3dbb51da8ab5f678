"""A file that keeps what the guest sends."""

from pathlib import Path

from emu.errors import ConfigError
from emu.host.backend import Backend

__all__ = ["FileBackend"]


class FileBackend(Backend):
    """Writes to a file, which is emptied first; there is nothing to read.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.file = self.path.open("wb", buffering=0)
        except OSError as error:
            raise ConfigError(f"cannot write {self.path}: {error.strerror}") from None

    def write(self, data: bytes) -> None:
        """Raises ConfigError where the file takes no more, such as on a full disk."""
        if not data or self.file.closed:
            return
        left = memoryview(data)
        try:
            while left:
                left = left[self.file.write(left) :]
        except OSError as error:
            raise ConfigError(f"cannot write {self.path}: {error.strerror}") from None

    def close(self) -> None:
        self.file.close()
