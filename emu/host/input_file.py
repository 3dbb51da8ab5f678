"""Files that a user names, read whole: with a bound, so that a wrong name (a disk, a device) cannot fill the memory."""

import os

from emu.errors import BadInput

__all__ = ["read_file"]


def read_file(path: str | os.PathLike[str], most: int, what: str) -> bytes:
    """The bytes of a file.

    Args:
        path: the file.
        most: bytes that `what` can have.
        what: such as "a ROM image", for the message.

    Raises:
        BadInput: it is missing, a directory, unreadable, empty or larger than `most`.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise BadInput(f"{os.fspath(path)}: {error.strerror}") from None
    except ValueError as error:  # a name that no file can have
        raise BadInput(f"{os.fspath(path)!r}: {error}") from None
    if not data:
        raise BadInput(f"{os.fspath(path)}: the file is empty, not {what}")
    if len(data) > most:
        raise BadInput(f"{os.fspath(path)}: more than {most:,} bytes, too large for {what}")
    return data
