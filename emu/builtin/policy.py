"""The policy of the built-in firmware, as the CMOS RAM keeps it: what is booted, what is watched, what follows.

The layout is read from emu/firmware/policy.json, which the build makes of bios/include/policy.inc and guests.inc: there
stands what each field means, and docs/policy.md has them in a table.
"""

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from emu.errors import BadInput

__all__ = ["FIELDS", "decode_policy", "guest_files", "policy_nvram"]

NVRAM_BYTES = 256
EXTENDED = 128  # the policy begins with the extended bank (ports 72h, 73h), the second half of the image

FLAGS = ("remote", "bmc", "dump", "report", "send_dump", "shell", "disk_failed", "halted")
ACCESS = {"r": "POLICY_READ", "w": "POLICY_WRITE", "x": "POLICY_EXECUTE"}


class Layout(NamedTuple):
    """policy.json: constants and offsets by their names in assembly, the default policy, the guests' files."""

    symbols: Mapping[str, int]
    default: bytes
    files: Sequence[str]


@cache
def layout() -> Layout:
    """What the build wrote of the policy.

    Raises:
        BadInput: this installation has none.
    """
    path = Path(__file__).parents[1] / "firmware" / "policy.json"
    try:
        content = json.loads(path.read_text(encoding="ascii"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; build again") from None
    return Layout(content["symbols"], bytes.fromhex(content["default"]), content["files"])


def guest_files() -> dict[str, str]:
    """The guests by their names in a policy, each with the file of the flash chip that it is."""
    return {name: layout().files[number - 1] for name, number in names("GUEST_").items()}


def policy_nvram(*, checked: bool = True, **fields: Any) -> bytes:
    """A CMOS RAM, for `Machine(nvram=...)`, whose policy is the default but for these fields.

    Fields are numbers; those that are one of a list take its name as well (`boot="service"`). Sequences are
    `exceptions` and `vectors`, of vectors; `flags` and `guests`, of names; `ports`, of (first, last); `regions`, of
    (VM, access, first, last) with access some of the letters "rwx". Numbers do in place of names, of access, and of
    all flags or exceptions.

    Args:
        checked: False also makes what the firmware must refuse, as long as it fits into the field.

    Raises:
        ValueError: a field that there is none of, or whose value is out of range; the message has field and range.

    >>> nvram = policy_nvram(boot="service", guests=["healthy", "hung"], poll_us=1000)
    >>> decode_policy(nvram)["guests"]
    ['healthy', 'hung']
    """
    policy = bytearray(layout().default)
    for name, value in fields.items():
        if name not in FIELDS:
            raise ValueError(f"policy: no field {name!r}; there are: {', '.join(FIELDS)}")
        at, size = place(name)
        try:
            policy[at : at + size] = FIELDS[name].encode(name, value, size, checked)
        except (TypeError, OverflowError, KeyError, struct.error):
            raise ValueError(f"policy: {name} cannot be {value!r}") from None
    crc, size = place("crc")
    policy[crc : crc + size] = zlib.crc32(policy[crc + size :]).to_bytes(size, "little")
    return bytes(EXTENDED) + bytes(policy).ljust(NVRAM_BYTES - EXTENDED, b"\0")


def decode_policy(nvram: bytes) -> dict[str, Any]:
    """The fields of the policy in a CMOS RAM, in the form that `policy_nvram` takes.

    Raises:
        BadInput: there is no policy, its checksum is wrong, or a field is out of its range.
    """
    policy = bytes(nvram[EXTENDED:][: layout().symbols["policy_size"]])
    crc, size = place("crc")
    if len(nvram) != NVRAM_BYTES:
        raise BadInput(f"a CMOS RAM of {len(nvram)} bytes: {NVRAM_BYTES} are needed")
    if policy[:4] != layout().default[:4]:
        raise BadInput("the CMOS RAM has no policy")
    if zlib.crc32(policy[crc + size :]).to_bytes(size, "little") != policy[crc : crc + size]:
        raise BadInput("the policy's checksum is wrong")
    fields = {}
    for name, field in FIELDS.items():
        at, size = place(name)
        fields[name] = field.decode(policy[at : at + size])
        try:
            field.encode(name, fields[name], size, True)
        except ValueError as error:
            raise BadInput(str(error)) from None
    return fields


def place(field: str) -> tuple[int, int]:
    """Offset and bytes of a field."""
    symbols = layout().symbols
    at = symbols[f"policy.{field}"]
    ends = [other for name, other in symbols.items() if name.startswith("policy.") and other > at]
    return at, min(ends, default=symbols["policy_size"]) - at


@cache
def names(prefix: str) -> Mapping[str, int]:
    """The constants with a prefix, by the rest of their name in lower case."""
    return {
        name.removeprefix(prefix).lower(): value
        for name, value in layout().symbols.items()
        if name.startswith(prefix) and not name.endswith(("_LAST", "_KINDS", "_BYTES"))
    }


def constant(value: int | str) -> int:
    """A number, or the value of the constant of this name."""
    return layout().symbols[value] if isinstance(value, str) else value


def number_of(field: str, value: Any, known: Mapping[str, int]) -> int:
    """A number that may be given by its name."""
    if isinstance(value, str) and value in known:
        return known[value]
    if not isinstance(value, int):
        raise ValueError(f"policy: {field} {value!r} is none of {', '.join(known)}" if known else
                         f"policy: {field} {value!r} is no whole number")  # fmt: skip
    return value


def name_of(value: int, known: Mapping[str, int]) -> int | str:
    """The name of a number, where it has one."""
    return next((name for name, number in known.items() if number == value), value)


class Number(NamedTuple):
    """A whole number of a range, or one of the constants with a prefix."""

    least: int | str
    most: int | str
    prefix: str = ""

    def known(self) -> Mapping[str, int]:
        return names(self.prefix) if self.prefix else {}

    def encode(self, field: str, value: Any, size: int, checked: bool) -> bytes:
        number = number_of(field, value, self.known())
        least, most = constant(self.least), constant(self.most)
        if checked and not least <= number <= most:
            raise ValueError(f"policy: {field} is {number}, it must be {least} to {most}")
        return number.to_bytes(size, "little")

    def decode(self, data: bytes) -> Any:
        return name_of(int.from_bytes(data, "little"), self.known())


class Numbers(NamedTuple):
    """Up to so many bytes, each a number; 0 is none."""

    one: Number

    def encode(self, field: str, value: Any, size: int, checked: bool) -> bytes:
        if len(value) > size:
            raise ValueError(f"policy: {field} has {len(value)} entries, there is room for {size}")
        if checked and self.one.prefix == "GUEST_" and not value:
            raise ValueError(f"policy: {field} is empty, it must be 1 to {size} guests")
        return b"".join(self.one.encode(field, each, 1, checked) for each in value).ljust(size, b"\0")

    def decode(self, data: bytes) -> Any:
        return [self.one.decode(bytes([each])) for each in data.rstrip(b"\0")]


class Bits(NamedTuple):
    """A set of bits by their numbers, or by the names of these constants."""

    most: int | str
    flags: Sequence[str] = ()

    def known(self) -> Mapping[str, int]:
        return {name: layout().symbols[f"POLICY_{name.upper()}"] for name in self.flags}

    def encode(self, field: str, value: Any, size: int, checked: bool) -> bytes:
        if not isinstance(value, int):
            bits = [number_of(field, one, self.known()) if self.flags else 1 << one for one in value]
            value = sum(set(bits))
        if checked and not 0 <= value <= constant(self.most):
            raise ValueError(f"policy: {field} is {value:#x}, it must be 0 to {constant(self.most):#x}")
        return int(value).to_bytes(size, "little")

    def decode(self, data: bytes) -> Any:
        value = int.from_bytes(data, "little")
        if not self.flags:
            return [bit for bit in range(8 * len(data)) if value >> bit & 1]
        known = self.known()
        return value if value & ~sum(known.values()) else [name for name, bit in known.items() if value & bit]


class Ports:
    """Ranges of I/O ports; the entry 1 to 0 is not used."""

    row = struct.Struct("<2H")

    def encode(self, field: str, value: Any, size: int, checked: bool) -> bytes:
        if len(value) > size // self.row.size:
            raise ValueError(f"policy: {field} has {len(value)} entries, there is room for {size // self.row.size}")
        for first, last in value:
            if checked and not 0 <= first <= last <= 0xFFFF:
                raise ValueError(f"policy: {field} has {first:#x} to {last:#x}, it must be 0 to 0xffff, first <= last")
        rows = [self.row.pack(*one) for one in value]
        return b"".join(rows) + self.row.pack(1, 0) * (size // self.row.size - len(rows))

    def decode(self, data: bytes) -> Any:
        return [one for one in self.row.iter_unpack(data) if one != (1, 0)]


class Regions:
    """Ranges of guest-physical memory; an entry of VM 0 is not used."""

    row = struct.Struct("<2BH2I")

    def encode(self, field: str, value: Any, size: int, checked: bool) -> bytes:
        if len(value) > size // self.row.size:
            raise ValueError(f"policy: {field} has {len(value)} entries, there is room for {size // self.row.size}")
        rows = []
        for vm, access, first, last in value:
            bits = sum(constant(ACCESS[letter]) for letter in access) if isinstance(access, str) else access
            if checked and not (
                1 <= vm <= constant("POLICY_GUESTS") and 1 <= bits <= 7 and first < last
                and first % 4096 == 0 and last % 4096 == 4095
            ):  # fmt: skip
                raise ValueError(
                    f"policy: {field} has VM {vm}, access {access!r}, {first:#x} to {last:#x}; it must be a VM from "
                    f"1 to {constant('POLICY_GUESTS')}, some of the letters rwx, and whole pages of 4096 bytes"
                )
            rows.append(self.row.pack(vm, bits, 0, first, last))
        return b"".join(rows).ljust(size, b"\0")

    def decode(self, data: bytes) -> Any:
        return [
            (vm, "".join(letter for letter, bit in ACCESS.items() if bits & constant(bit)), first, last)
            for vm, bits, _, first, last in self.row.iter_unpack(data)
            if vm
        ]


FIELDS: Mapping[str, Number | Numbers | Bits | Ports | Regions] = {
    "boot": Number(0, "BOOT_LAST", "BOOT_"),
    "query_seconds": Number(0, "POLICY_MOST_QUERY"),
    "source": Number(0, "SOURCE_LAST", "SOURCE_"),
    "time": Number(0, "TIME_LAST", "TIME_"),
    "after": Number(0, "AFTER_LAST", "AFTER_"),
    "crash_limit": Number(0, 255),
    "polls": Number(1, "POLICY_MOST_POLLS"),
    "poll_us": Number(0, "POLICY_MOST_US"),
    "exceptions": Bits((1 << 32) - 1),
    "hotkey": Number(0, "POLICY_MOST_HOTKEY"),
    "hotkey_serial": Number(0, "POLICY_MOST_SERIAL"),
    "flags": Bits("POLICY_FLAGS", FLAGS),
    "guests": Numbers(Number(1, "GUEST_KINDS", "GUEST_")),
    "vectors": Numbers(Number("POLICY_LEAST_VECTOR", 255)),
    "idle_bytes": Number(1, "POLICY_MOST_IDLE"),
    "ports": Ports(),
    "regions": Regions(),
}
"""The fields of a policy, in the order of the structure."""
