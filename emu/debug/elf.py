"""The code and the symbols of an ELF file: System V ABI, "Object Files"."""

import struct
from dataclasses import dataclass

from emu.errors import BadInput

__all__ = ["ELF_MAGIC", "CodeSection", "code_sections"]

ELF_MAGIC = b"\x7fELF"
BITS_OF_MACHINE = {3: 32, 62: 64}  # EM_386 and EM_X86_64
ET_REL = 1
SHT_PROGBITS, SHT_SYMTAB, SHT_DYNSYM = 1, 2, 11
SHF_EXECINSTR = 4
SHN_LORESERVE = 0xFF00
STT_OF_PLACES = (0, 1, 2)  # STT_NOTYPE, STT_OBJECT, STT_FUNC
# By class: where the section headers stand, their size and number and which has names; a section header; a symbol.
HEADER = {1: struct.Struct("<16xHH8x4xI10x3H"), 2: struct.Struct("<16xHH20xQ10x3H")}
SECTION = {1: struct.Struct("<10I"), 2: struct.Struct("<2I4Q2I2Q")}
SYMBOL = {1: struct.Struct("<IIIBBH"), 2: struct.Struct("<IBBHQQ")}


@dataclass(frozen=True)
class CodeSection:
    """A section with instructions: its address, 0 in an object; code size in bits; symbols, name to address."""

    name: str
    address: int
    bits: int
    data: bytes
    symbols: dict[str, int]


def code_sections(path: str, image: bytes) -> list[CodeSection]:
    """The sections of an ELF file that hold code.

    Args:
        path: for messages.

    Raises:
        BadInput: the file is damaged, of another machine, or has no code.
    """
    try:
        found = _sections(path, image)
    except (struct.error, IndexError, KeyError, ValueError):
        raise BadInput(f"{path}: a damaged ELF file") from None
    if not found:
        raise BadInput(f"{path}: an ELF file without sections of code")
    return found


def _sections(path: str, image: bytes) -> list[CodeSection]:
    kind = image[4]
    file_type, machine, start, size, count, names = HEADER[kind].unpack_from(image)
    if machine not in BITS_OF_MACHINE:
        raise BadInput(f"{path}: an ELF file of another processor (machine {machine})")
    rows = [SECTION[kind].unpack_from(image, start + n * size) for n in range(count)]
    name_table = _contents(image, rows[names]) if rows else b""
    symbols = _symbols(image, kind, rows)
    found = []
    for number, row in enumerate(rows):
        if row[1] == SHT_PROGBITS and row[2] & SHF_EXECINSTR:
            own = {n: value for n, value, section in symbols if file_type != ET_REL or section == number}
            bits = BITS_OF_MACHINE[machine]
            found.append(CodeSection(_text(name_table, row[0]), row[3], bits, _contents(image, row), own))
    return found


def _contents(image: bytes, row: tuple[int, ...]) -> bytes:
    offset, size = row[4:6]
    if offset + size > len(image):
        raise IndexError(offset)
    return image[offset : offset + size]


def _text(table: bytes, at: int) -> str:
    return table[at : table.index(b"\0", at)].decode("utf-8", "replace")


def _symbols(image: bytes, kind: int, rows: list[tuple[int, ...]]) -> list[tuple[str, int, int]]:
    """Name, value and section of each symbol that is a place; of the dynamic ones where there are no others."""
    tables = [row for row in rows if row[1] == SHT_SYMTAB] or [row for row in rows if row[1] == SHT_DYNSYM]
    found = []
    for row in tables:
        names = _contents(image, rows[row[6]])
        data = _contents(image, row)
        for entry in SYMBOL[kind].iter_unpack(data[: len(data) // SYMBOL[kind].size * SYMBOL[kind].size]):
            if kind == 1:
                name, value, _, info, _, section = entry
            else:
                name, info, _, section, value, _ = entry
            if name and 0 < section < SHN_LORESERVE and info & 15 in STT_OF_PLACES:
                found.append((_text(names, name), value, section))
    return found
