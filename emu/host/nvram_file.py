"""The file that stands for the battery: what the CMOS RAM holds, from one run to the next."""

import contextlib
import os
from pathlib import Path

from emu.errors import BadInput, ConfigError

__all__ = ["NvramFile"]


class NvramFile:
    """A file of so many bytes; a missing one is made when it is first saved.

    Args:
        path: the file.
        size: bytes.
    """

    def __init__(self, path: str | os.PathLike[str], size: int) -> None:
        self.path = Path(path)
        self.size = size
        if not self.path.parent.is_dir():
            raise ConfigError(f"cannot write {self.path}: there is no such folder")

    def load(self) -> bytes | None:
        """What it holds, None where there is no such file.

        Raises:
            BadInput: it cannot be read, or has another size.
        """
        try:
            with self.path.open("rb") as file:
                data = file.read(self.size + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadInput(f"{self.path}: {error.strerror}") from None
        if len(data) != self.size:
            raise BadInput(f"{self.path}: not {self.size} bytes, so it is no CMOS RAM")
        return data

    def save(self, data: bytes) -> None:
        """Writes the contents, all or nothing: whoever looks sees the old file or the new one.

        Raises:
            ConfigError: it cannot be written.
        """
        name = None
        try:
            import tempfile  # only a run that keeps its CMOS RAM pays for it

            number, name = tempfile.mkstemp(prefix=self.path.name, dir=self.path.parent)
            with os.fdopen(number, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, self.path.stat().st_mode & 0o777 if self.path.exists() else 0o644)
            os.replace(name, self.path)
        except OSError as error:
            if name is not None:
                with contextlib.suppress(OSError):
                    os.unlink(name)
            raise ConfigError(f"cannot write {self.path}: {error.strerror}") from None
