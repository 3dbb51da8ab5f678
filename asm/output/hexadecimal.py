"""A flat binary as text: Intel's hexadecimal object file format (I32HEX) and Motorola's S-records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asm.assembler import Assembler

CHUNK = 32  # bytes of a line, which does not go past a multiple of them


def _chunks(assembler: Assembler) -> Iterator[tuple[int, bytes]]:
    """The sections' bytes by address, a line's worth at a time."""
    from asm.output import flat

    flat.image(assembler)  # which says what is wrong with the sections' places
    for section in assembler.load_order:
        data = b"".join(section.parts)
        at, start = 0, section.start or 0
        while at < len(data):
            size = CHUNK - (start + at) % CHUNK
            yield start + at, data[at : at + size]
            at += size


def _hex_record(kind: int, address: int, data: bytes) -> str:
    record = bytes((len(data), address >> 8 & 0xFF, address & 0xFF, kind)) + data
    return f":{record.hex().upper()}{-sum(record) & 0xFF:02X}\n"


def intel_hex(assembler: Assembler) -> bytes:
    """The image as an Intel HEX file, with extended linear addresses."""
    lines = []
    upper = 0
    for address, data in _chunks(assembler):
        if address >> 16 != upper:
            upper = address >> 16
            lines.append(_hex_record(4, 0, bytes((upper >> 8 & 0xFF, upper & 0xFF))))
        lines.append(_hex_record(0, address & 0xFFFF, data))
    lines.append(_hex_record(1, 0, b""))
    return "".join(lines).encode()


def _s_record(kind: int, width: int, address: int, data: bytes) -> str:
    record = bytes((width + len(data) + 1,)) + (address & 0xFFFFFFFF).to_bytes(4, "big")[4 - width :] + data
    return f"S{kind}{record.hex().upper()}{~sum(record) & 0xFF:02X}\n"


def s_records(assembler: Assembler) -> bytes:
    """The image as S-records, with addresses as wide as the highest one needs."""
    chunks = list(_chunks(assembler))
    highest = max((address + len(data) - 1 for address, data in chunks), default=0)
    width = 2 if highest <= 0xFFFF else 3 if highest <= 0xFFFFFF else 4
    lines = [_s_record(0, 2, 0, b"")]
    lines += [_s_record(width - 1, width, address, data) for address, data in chunks]
    lines.append(_s_record(11 - width, width, 0, b""))
    return "".join(lines).encode()
