"""Symbols as an ELF file, which is how GDB takes them.

System V ABI, "Object Files". The file has no code: one section without contents spans the addresses of the symbols, so
that GDB finds the symbol before an address.
"""

import struct
from collections.abc import Mapping

__all__ = ["symbol_elf"]

ET_EXEC, EM_386 = 2, 3
SHT_NULL, SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS = 0, 2, 3, 8
SHF_ALLOC_EXECUTE = 2 | 4
STB_GLOBAL_FUNC = 1 << 4 | 2
EHDR_SIZE, SYM_SIZE, SHDR_SIZE = 52, 16, 40
MOST_ADDRESS = 0xFFFFFFFF


def symbol_elf(symbols: Mapping[str, int]) -> bytes:
    """An ELF32 executable that holds these symbols; those beyond 4 GiB are left out.

    Args:
        symbols: name to linear address.
    """
    kept = sorted(((address, name) for name, address in symbols.items() if 0 <= address <= MOST_ADDRESS))
    first, last = (kept[0][0], kept[-1][0]) if kept else (0, 0)
    strings = bytearray(1)
    table = bytearray(SYM_SIZE)
    for address, name in kept:
        table += struct.pack("<IIIBBH", len(strings), address, 0, STB_GLOBAL_FUNC, 0, 1)
        strings += name.encode() + b"\0"
    names = b"\0.text\0.symtab\0.strtab\0.shstrtab\0"
    table_at = EHDR_SIZE
    strings_at = table_at + len(table)
    names_at = strings_at + len(strings)
    headers_at = (names_at + len(names) + 3) & ~3
    size = min(last - first + 16, MOST_ADDRESS - first)
    sections = [
        (0, SHT_NULL, 0, 0, 0, 0, 0, 0, 0, 0),
        (names.index(b".text"), SHT_NOBITS, SHF_ALLOC_EXECUTE, first, EHDR_SIZE, size, 0, 0, 1, 0),
        (names.index(b".symtab"), SHT_SYMTAB, 0, 0, table_at, len(table), 3, 1, 4, SYM_SIZE),
        (names.index(b".strtab"), SHT_STRTAB, 0, 0, strings_at, len(strings), 0, 0, 1, 0),
        (names.index(b".shstrtab"), SHT_STRTAB, 0, 0, names_at, len(names), 0, 0, 1, 0),
    ]
    ident = b"\x7fELF" + bytes((1, 1, 1)) + bytes(9)
    header = struct.pack(
        "<16sHHIIIIIHHHHHH", ident, ET_EXEC, EM_386, 1, first, 0, headers_at, 0, EHDR_SIZE, 0, 0, SHDR_SIZE,
        len(sections), len(sections) - 1,
    )  # fmt: skip
    body = (header + table + strings + names).ljust(headers_at, b"\0")
    return bytes(body) + b"".join(struct.pack("<10I", *section) for section in sections)
