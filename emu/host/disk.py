"""Disk images on the host: raw files of 512-byte sectors."""

import fcntl
import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from emu.errors import BadInput, ConfigError, DiskError

__all__ = ["SECTOR", "Disk", "open_disk"]

log = logging.getLogger(__name__)

SECTOR = 512
OVERLAY_MOST = 1 << 30  # bytes of changed sectors that a snapshot keeps in memory
READ_FAULTS = ("uncorrectable", "not_found")
WRITE_FAULTS = ("write_fault", "not_found")


class Disk:
    """A raw disk image.

    The file is locked while it is open, so that no second machine writes what another one uses: a writable disk is
    alone, others may share it. What the host cannot read or write becomes an error of the drive, and is logged.

    Args:
        path: the image; its size is a multiple of 512 bytes, and not 0.
        readonly: the drive refuses writes.
        snapshot: writes stay in memory, at most 1 GiB of them (more are write faults), and the file is left as it is.

    Raises:
        BadInput: there is no such file, or it is of another size.
        ConfigError: another machine uses it, or both options are given.
    """

    def __init__(self, path: str | Path, *, readonly: bool = False, snapshot: bool = False) -> None:
        if readonly and snapshot:
            raise ConfigError(f"{path}: a disk is readonly or a snapshot, not both")
        self.path = Path(path)
        self.readonly = readonly
        self.snapshot = snapshot
        self.overlay: dict[int, bytes] = {}
        self.faults: list[tuple[range, str]] = []
        self.taken = False  # by a machine
        writable = not (readonly or snapshot)
        try:
            mode = os.O_RDWR if writable else os.O_RDONLY
            self.file = os.open(self.path, mode | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not make it wait
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror}") from None
        try:
            self.sectors = self.measure()
            fcntl.flock(self.file, (fcntl.LOCK_EX if writable else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ConfigError(f"{path}: another machine uses this disk") from None
        except BaseException:
            self.close()
            raise

    def measure(self) -> int:
        """The image's sectors."""
        mode = os.fstat(self.file).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise BadInput(f"{self.path}: not a file that can hold a disk")
        size = os.lseek(self.file, 0, os.SEEK_END)
        if size == 0 or size % SECTOR:
            raise BadInput(f"{self.path}: {size} bytes are no disk image: not a multiple of {SECTOR}, or empty")
        return size // SECTOR

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self.path}: a Disk is neither copied nor pickled, as it holds an open file")

    def __enter__(self) -> "Disk":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the file back; the disk cannot be used any more."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def fail(self, sectors: int | Iterable[int], kind: str = "uncorrectable") -> None:
        """Lets accesses fail from now on, to try what a guest makes of it.

        Args:
            sectors: a sector's number, or a range of them.
            kind: "uncorrectable" (reads find the data damaged), "write_fault" (writes do not reach the medium) or
                "not_found" (neither finds the sector).

        Raises:
            ValueError: another kind, or sectors that are no range.
        """
        if kind not in {*READ_FAULTS, *WRITE_FAULTS}:
            raise ValueError(f"{kind!r} is no fault of a sector: uncorrectable, write_fault, not_found")
        chosen = range(sectors, sectors + 1) if isinstance(sectors, int) else sectors
        if not isinstance(chosen, range):
            raise ValueError("the sectors must be a number or a range")
        self.faults.append((chosen, kind))

    def mend(self) -> None:
        """Takes back every `fail`."""
        self.faults.clear()

    def check(self, lba: int, count: int, kinds: tuple[str, ...]) -> DiskError | None:
        """The first of these sectors that is to fail, in one of these ways."""
        first: DiskError | None = None
        for sectors, kind in self.faults:
            if kind in kinds:
                bad = next((sector for sector in range(lba, lba + count) if sector in sectors), None)
                if bad is not None and (first is None or bad < first.lba):
                    first = DiskError(bad, kind)
        return first

    def read(self, lba: int, count: int) -> bytes:
        """`count` sectors from `lba` on.

        Raises:
            DiskError: one of them cannot be read; the error names it.
            ValueError: they leave the disk.
        """
        self.check_inside(lba, count)
        if self.faults and (error := self.check(lba, count, READ_FAULTS)):
            raise error
        try:
            data = os.pread(self.file, count * SECTOR, lba * SECTOR)
        except OSError as problem:
            raise self.host_error(lba, "uncorrectable", problem.strerror) from None
        if len(data) != count * SECTOR:
            raise self.host_error(lba + len(data) // SECTOR, "uncorrectable", "the file has become shorter")
        if self.overlay:
            sectors = (self.overlay.get(lba + at) for at in range(count))
            data = b"".join(
                data[SECTOR * at : SECTOR * (at + 1)] if changed is None else changed
                for at, changed in enumerate(sectors)
            )
        return data

    def write(self, lba: int, data: bytes) -> None:
        """Writes whole sectors from `lba` on, those before one that fails too.

        Raises:
            DiskError: one of them cannot be written; the error names it.
            ValueError: they leave the disk, or are not whole sectors.
        """
        if len(data) % SECTOR:
            raise ValueError(f"{len(data)} bytes are not whole sectors")
        count = len(data) // SECTOR
        self.check_inside(lba, count)
        if self.readonly:
            raise DiskError(lba, "read_only")
        error = self.check(lba, count, WRITE_FAULTS) if self.faults else None
        good = error.lba - lba if error else count
        if self.snapshot:
            self.write_overlay(lba, data, good)
        else:
            self.write_file(lba, data[: good * SECTOR])
        if error:
            raise error

    def write_overlay(self, lba: int, data: bytes, count: int) -> None:
        for at in range(count):
            if len(self.overlay) >= OVERLAY_MOST // SECTOR and lba + at not in self.overlay:
                raise self.host_error(lba + at, "write_fault", f"more than {OVERLAY_MOST >> 20} MiB of changes")
            self.overlay[lba + at] = data[SECTOR * at : SECTOR * (at + 1)]

    def write_file(self, lba: int, data: bytes) -> None:
        done = 0
        while done < len(data):
            try:
                done += os.pwrite(self.file, data[done:], lba * SECTOR + done)
            except OSError as problem:
                raise self.host_error(lba + done // SECTOR, "write_fault", problem.strerror) from None

    def flush(self) -> None:
        """Lets the host put what was written on its own medium.

        Raises:
            DiskError: it could not.
        """
        if self.readonly or self.snapshot:
            return
        try:
            os.fdatasync(self.file)
        except OSError as problem:
            raise self.host_error(0, "write_fault", problem.strerror) from None

    def check_inside(self, lba: int, count: int) -> None:
        if lba < 0 or count < 0 or lba + count > self.sectors:
            raise ValueError(f"sectors {lba} to {lba + count} leave a disk of {self.sectors}")

    def host_error(self, lba: int, kind: str, detail: str | None) -> DiskError:
        """An error of the host's, logged."""
        error = DiskError(lba, kind, detail or "")
        log.error("%s: %s", self.path, error)
        return error

    def save(self) -> dict[str, Any]:
        """What a machine's snapshot keeps: the sectors that a snapshot disk has changed. A writable file is not copied:
        restoring the machine leaves it as it is then."""
        return {"sectors": self.sectors, "snapshot": self.snapshot, "overlay": dict(self.overlay)}

    def load(self, state: Any) -> None:
        """Takes back what `save` gave.

        Raises:
            BadInput: it is of a disk of another size or kind.
        """
        if not isinstance(state, dict):
            raise BadInput(f"{self.path}: malformed state of a disk")
        if state.get("sectors") != self.sectors or state.get("snapshot") != self.snapshot:
            raise BadInput(f"{self.path}: the state is of another disk, or of one that was opened otherwise")
        overlay = state.get("overlay")
        if not isinstance(overlay, dict) or (overlay and not self.snapshot):
            raise BadInput(f"{self.path}: malformed state of a disk")
        for lba, data in overlay.items():
            if not (
                isinstance(lba, int) and 0 <= lba < self.sectors and isinstance(data, bytes) and len(data) == SECTOR
            ):
                raise BadInput(f"{self.path}: malformed state of a disk")
        self.overlay = dict(overlay)


def open_disk(text: str) -> Disk:
    """Opens what a `--disk` option names: FILE, and behind it `,readonly` or `,snapshot`.

    Raises:
        BadInput, ConfigError: as Disk does.
    """
    path, options = text, set()
    while (parts := path.rpartition(","))[2] in ("readonly", "snapshot") and parts[0]:
        path = parts[0]
        options.add(parts[2])
    return Disk(path, readonly="readonly" in options, snapshot="snapshot" in options)
