"""A machine's state as an object and as a file.

The file, little endian: the magic, the format's version (u32), the CRC-32 (u32) and the length (u64) of all that
follows, the length of a JSON text (u64), the text, then the pages of memory that the text numbers, 4096 bytes each. The
text holds plain values by name and nothing that could be executed. Pages are not compressed: a small hostile file
cannot become a large memory.
"""

import json
import os
import struct
from typing import Any

from emu.errors import BadInput, EmuError
from emu.host.output_file import OutputFile

__all__ = ["Snapshot", "plain"]

MAGIC = b"EMU-SNAP"
VERSION = 1
HEADER = struct.Struct("<8sIIQQ")
CHECKED_FROM = 24  # the header's last field is under the checksum, since its length is
PAGE_SIZE = 4096
PARTS = ("cpu", "clock", "chips", "lines")


def plain(value: Any, where: str) -> Any:
    """A copy of a value made of None, bool, int, float, str, bytes, and lists, tuples and dictionaries of these.

    Args:
        value: the value.
        where: whose it is, for the message.

    Raises:
        EmuError: it is made of something else.
    """
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, list | tuple):
        copy = [plain(item, where) for item in value]
        return copy if isinstance(value, list) else tuple(copy)
    if isinstance(value, dict):
        return {plain(key, where): plain(item, where) for key, item in value.items()}
    kind = type(value).__name__
    raise EmuError(f"{where}: a snapshot cannot hold a {kind}: plain numbers, text and bytes can be saved")


def encode(value: Any) -> Any:
    """A plain value as JSON has it; what JSON lacks becomes an object whose one key begins with `$`."""
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, tuple):
        return {"$tuple": [encode(item) for item in value]}
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: encode(item) for key, item in value.items()}
        return {"$items": [[encode(key), encode(item)] for key, item in value.items()]}
    return value


def decode(value: dict[str, Any]) -> Any:
    """The inverse, for each object as it is parsed."""
    if len(value) == 1:
        ((key, item),) = value.items()
        if key == "$bytes":
            return bytes.fromhex(item)
        if key == "$tuple":
            return tuple(item)
        if key == "$items":
            return dict(item)
    return value


class Snapshot:
    """What Machine.snapshot() took; not to be changed. Two are equal where the machines' states are.

    Attributes:
        machine: what it was taken of, by name; it can be restored to a machine alike.
        state: the state of the processor, the clock, each chip and the lines to the host, by name.
        pages: memory's pages that are not all zeros, by number.
    """

    def __init__(self, machine: dict[str, Any], state: dict[str, Any], pages: dict[int, bytes]) -> None:
        self.machine = machine
        self.state = state
        self.pages = pages

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Snapshot):
            return NotImplemented
        return (self.machine, self.state, self.pages) == (other.machine, other.state, other.pages)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        cycle, memory = self.state["clock"].get("cycle"), len(self.pages) * PAGE_SIZE
        return f"<snapshot at cycle {cycle}: {memory:,} bytes of memory>"

    def differences(self, other: "Snapshot") -> list[str]:
        """Names of what differs in another one, such as `cpu.rip` or `memory page 0x12`: for messages and tests."""
        pages = sorted(self.pages.keys() | other.pages.keys())
        return [
            *differing("machine", self.machine, other.machine),
            *(name for part in PARTS for name in differing(part, self.state[part], other.state[part])),
            *(f"memory page {page:#x}" for page in pages if self.pages.get(page) != other.pages.get(page)),
        ]

    def check_fits(self, machine: dict[str, Any]) -> None:
        """Refuses a machine of another configuration.

        Raises:
            BadInput: what differs.
        """
        for name in sorted(self.machine.keys() | machine.keys()):
            ours, theirs = self.machine.get(name), machine.get(name)
            if ours != theirs:
                raise BadInput(f"the snapshot is of another machine: its {name} is {ours!r}, not {theirs!r}")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to a file, which appears as a whole or not at all.

        Raises:
            ConfigError: the file cannot be written.
        """
        import zlib

        numbers = sorted(self.pages)
        text = json.dumps(
            {"machine": encode(self.machine), "state": encode(self.state), "pages": numbers}, separators=(",", ":")
        ).encode("ascii")
        sizes = struct.pack("<Q", len(text))
        check = zlib.crc32(text, zlib.crc32(sizes))
        for number in numbers:
            check = zlib.crc32(self.pages[number], check)
        length = len(sizes) + len(text) + PAGE_SIZE * len(numbers)
        with OutputFile(path) as file:
            file.write(HEADER.pack(MAGIC, VERSION, check, length, len(text)) + text)
            for number in numbers:
                file.write(self.pages[number])
            file.finish()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Snapshot":
        """Reads what save() wrote.

        Raises:
            BadInput: it is missing, no snapshot, of another version, truncated or damaged.
        """
        name = os.fspath(path)
        try:
            with open(path, "rb") as file:
                header = file.read(HEADER.size)
                if len(header) < HEADER.size or not header.startswith(MAGIC):
                    raise BadInput(f"{name}: not a snapshot")
                _, version, check, length, text_size = HEADER.unpack(header)
                if version != VERSION:
                    raise BadInput(f"{name}: a snapshot of version {version}; this program reads version {VERSION}")
                size = os.fstat(file.fileno()).st_size
                whole = CHECKED_FROM + length
                if size != whole:
                    raise BadInput(f"{name}: truncated or damaged: {size:,} bytes, the whole snapshot has {whole:,}")
                data = file.read()
        except OSError as error:
            raise BadInput(f"{name}: {error.strerror}") from None
        import zlib

        if zlib.crc32(data, zlib.crc32(header[CHECKED_FROM:])) != check:
            raise BadInput(f"{name}: damaged: the checksum does not match")
        try:
            content = json.loads(data[:text_size], object_hook=decode)
            machine, state, pages = content["machine"], content["state"], content["pages"]
            if not all(isinstance(part, dict) for part in (machine, state, *(state[name] for name in PARTS))):
                raise TypeError("the machine or a part of its state is missing")
            return cls(machine, state, unpack(pages, memoryview(data)[text_size:]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadInput(f"{name}: malformed: {error}") from None


def unpack(numbers: list[int], data: memoryview) -> dict[int, bytes]:
    """The pages by number.

    Raises:
        ValueError: there is not one page a number.
    """
    if len(data) != PAGE_SIZE * len(numbers) or len(set(numbers)) != len(numbers):
        raise ValueError(f"{len(data)} bytes of memory for {len(numbers)} pages")
    return {number: bytes(data[at * PAGE_SIZE : (at + 1) * PAGE_SIZE]) for at, number in enumerate(numbers)}


def differing(name: str, ours: Any, theirs: Any) -> list[str]:
    """Dotted names of what differs in two plain values."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = sorted(ours.keys() | theirs.keys(), key=str)
        return [line for key in keys for line in differing(f"{name}.{key}", ours.get(key), theirs.get(key))]
    return [] if ours == theirs else [name]
