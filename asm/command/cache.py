"""What was assembled before and has not changed: results by the contents of all that they were made of.

An entry is a file in the user's cache folder: a line of JSON, then the outputs' bytes. It holds while the command line,
the folder, this package, the source, every file that it read and every place where it found none are the same. A cache
that cannot be read or written is no error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

MAX_ENTRIES = 64
_CLOCK_STEP = 10_000_000  # nanoseconds that the clock of a file system may lag behind
LEAST_SECONDS = 0.2  # what is assembled faster is not worth an entry


class Result(NamedTuple):
    """What a run made: its messages, and (path, contents) of each file."""

    messages: list[str]
    files: list[tuple[str, bytes]]


def folder() -> Path:
    """Where the entries are."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "emu-asm"


def _package() -> str:
    """Tells versions of this package apart."""
    files = [path for path in Path(__file__).parents[1].rglob("*") if path.suffix in (".py", ".tbl", ".lark")]
    stats = [(str(path), path.stat()) for path in files]
    return repr(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


def key_of(argv: Sequence[str], source: bytes) -> str:
    """The name of the entry for a command line and the contents of its source."""
    digest = hashlib.sha256(repr((list(argv), os.getcwd(), _package())).encode("utf-8", "surrogateescape"))
    digest.update(source)
    return digest.hexdigest()


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def find(key: str) -> Result | None:
    """The result of an earlier run, if nothing has changed since."""
    try:
        data = (folder() / key).read_bytes()
        line, _, rest = data.partition(b"\n")
        head = json.loads(line)
        if any(_digest(path) != digest for path, digest in head["dependencies"].items()):
            return None
        if any(os.path.exists(path) for path in head["absent"]):
            return None
        if sum(length for _, length in head["files"]) != len(rest):
            return None
        files, at = [], 0
        for path, length in head["files"]:
            files.append((path, rest[at : at + length]))
            at += length
        os.utime(folder() / key)
        return Result(list(head["messages"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def store(key: str, result: Result, dependencies: Iterable[str], absent: Iterable[str], since: int) -> None:
    """Keeps a result, and lets the oldest ones go.

    Args:
        since: when assembling began, as `time.time_ns` has it. What was written after that may not be what was read,
            so that nothing is kept.
    """
    dependencies = list(dependencies)
    with contextlib.suppress(OSError):
        if any(os.stat(path).st_mtime_ns > since - _CLOCK_STEP for path in dependencies):
            return
        home = folder()
        home.mkdir(parents=True, exist_ok=True)
        head = {
            "dependencies": {path: _digest(path) for path in dependencies},
            "absent": sorted(absent),
            "messages": result.messages,
            "files": [(path, len(data)) for path, data in result.files],
        }
        handle, temporary = tempfile.mkstemp(dir=home)
        with open(handle, "wb") as file:
            file.write(json.dumps(head).encode() + b"\n" + b"".join(data for _, data in result.files))
        os.replace(temporary, home / key)
        entries = sorted(home.iterdir(), key=lambda path: path.stat().st_mtime)
        for old in entries[:-MAX_ENTRIES]:
            old.unlink(missing_ok=True)
