"""Symbols as an ELF file, which is how GDB takes them.

System V ABI, "Object Files". The file has no code: one section without contents spans the addresses of the symbols, so
that GDB finds the symbol before an address.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["symbol_elf"]

ET_EXEC, EM_386, EM_X86_64 = 2, 3, 62
SHT_NULL, SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS = 0, 2, 3, 8
SHF_ALLOC_EXECUTE = 2 | 4
STB_GLOBAL_FUNC = 1 << 4 | 2


@dataclass(frozen=True)
class Class:
    """What differs between the ELF classes: the structures' formats and where a symbol has its name, value and type."""

    ident: int
    machine: int
    header: str
    section: str
    symbol: str
    most: int

    def symbol_entry(self, name: int, address: int) -> bytes:
        """A function at an address of section 1."""
        if self.ident == 1:
            return struct.pack(self.symbol, name, address, 0, STB_GLOBAL_FUNC, 0, 1)
        return struct.pack(self.symbol, name, STB_GLOBAL_FUNC, 0, 1, address, 0)


ELF32 = Class(1, EM_386, "<16sHHIIIIIHHHHHH", "<10I", "<IIIBBH", 0xFFFFFFFF)
ELF64 = Class(2, EM_X86_64, "<16sHHIQQQIHHHHHH", "<2I4Q2I2Q", "<IBBHQQ", 0xFFFFFFFFFFFFFFFF)


def symbol_elf(symbols: Mapping[str, int], wide: bool = False) -> bytes:
    """An executable that holds these symbols.

    Args:
        symbols: name to linear address.
        wide: ELF64 for x86-64; else ELF32 for i386, which leaves out those beyond 4 GiB.
    """
    elf = ELF64 if wide else ELF32
    header_size, section_size, symbol_size = map(struct.calcsize, (elf.header, elf.section, elf.symbol))
    kept = sorted(((address, name) for name, address in symbols.items() if 0 <= address <= elf.most))
    first, last = (kept[0][0], kept[-1][0]) if kept else (0, 0)
    strings = bytearray(1)
    table = bytearray(symbol_size)
    for address, name in kept:
        table += elf.symbol_entry(len(strings), address)
        strings += name.encode() + b"\0"
    names = b"\0.text\0.symtab\0.strtab\0.shstrtab\0"
    strings_at = header_size + len(table)
    names_at = strings_at + len(strings)
    headers_at = (names_at + len(names) + 7) & ~7
    size = min(last - first + 16, elf.most - first)
    sections = [
        (0, SHT_NULL, 0, 0, 0, 0, 0, 0, 0, 0),
        (names.index(b".text"), SHT_NOBITS, SHF_ALLOC_EXECUTE, first, header_size, size, 0, 0, 1, 0),
        (names.index(b".symtab"), SHT_SYMTAB, 0, 0, header_size, len(table), 3, 1, 8, symbol_size),
        (names.index(b".strtab"), SHT_STRTAB, 0, 0, strings_at, len(strings), 0, 0, 1, 0),
        (names.index(b".shstrtab"), SHT_STRTAB, 0, 0, names_at, len(names), 0, 0, 1, 0),
    ]
    ident = b"\x7fELF" + bytes((elf.ident, 1, 1)) + bytes(9)
    header = struct.pack(
        elf.header, ident, ET_EXEC, elf.machine, 1, first, 0, headers_at, 0, header_size, 0, 0, section_size,
        len(sections), len(sections) - 1,
    )  # fmt: skip
    body = (header + table + strings + names).ljust(headers_at, b"\0")
    return bytes(body) + b"".join(struct.pack(elf.section, *section) for section in sections)
