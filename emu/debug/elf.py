"""The code, the symbols and the source lines of an ELF file."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from emu.debug.source_line import SourceLine
from emu.errors import BadInput

__all__ = ["ELF_MAGIC", "CodeSection", "code_sections"]

ELF_MAGIC = b"\x7fELF"
BITS_OF_MACHINE = {"EM_386": 32, "EM_X86_64": 64}
SHF_EXECINSTR = 4
TYPES_OF_PLACES = ("STT_NOTYPE", "STT_OBJECT", "STT_FUNC")


@dataclass(frozen=True)
class CodeSection:
    """A section with instructions: its address, 0 in an object; code size in bits; symbols, name to address; lines,
    address to where the source has it."""

    name: str
    address: int
    bits: int
    data: bytes
    symbols: dict[str, int]
    lines: dict[int, SourceLine]


def code_sections(path: str, image: bytes) -> list[CodeSection]:
    """The sections of an ELF file that hold code.

    Args:
        path: for messages.

    Raises:
        BadInput: the file is damaged, of another machine, or has no code.
    """
    try:
        found = list(_sections(path, image))
    except BadInput:
        raise
    except Exception:  # the library says by a dozen exceptions that a file is damaged
        raise BadInput(f"{path}: a damaged ELF file") from None
    if not found:
        raise BadInput(f"{path}: an ELF file without sections of code")
    return found


def _sections(path: str, image: bytes) -> Iterator[CodeSection]:
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(image))
    machine = elf["e_machine"]
    if machine not in BITS_OF_MACHINE:
        raise BadInput(f"{path}: an ELF file of another processor (machine {machine})")
    code = [
        (number, section)
        for number, section in enumerate(elf.iter_sections())
        if section["sh_type"] == "SHT_PROGBITS" and section["sh_flags"] & SHF_EXECINSTR
    ]
    is_object = elf["e_type"] == "ET_REL"
    symbols = list(_symbols(elf))
    # In an object each section begins at 0: an address says which one only where there is one.
    lines = _lines(elf) if len(code) == 1 or not is_object else {}
    for number, section in code:
        if section["sh_offset"] + section["sh_size"] > len(image):
            raise BadInput(f"{path}: a damaged ELF file")
        own = {name: value for name, value, of in symbols if not is_object or of == number}
        yield CodeSection(
            section.name, section["sh_addr"], BITS_OF_MACHINE[machine], section.data(), own, lines
        )


def _symbols(elf: Any) -> Iterator[tuple[str, int, int]]:
    """Name, value and section of each symbol that is a place; of the dynamic ones where there are no others."""
    for table in (elf.get_section_by_name(".symtab"), elf.get_section_by_name(".dynsym")):
        if table is None:
            continue
        for symbol in table.iter_symbols():
            number = symbol["st_shndx"]
            if symbol.name and isinstance(number, int) and symbol["st_info"]["type"] in TYPES_OF_PLACES:
                yield symbol.name, symbol["st_value"], number
        return


def _file_names(program: Any) -> dict[int, str]:
    """The paths of a line program's files by number; DWARF counts them, and their folders, from 1 before version 5."""
    first = 0 if program["version"] >= 5 else 1
    folders = [b"", *program["include_directory"]] if first else program["include_directory"]
    return {
        number: os.path.join(folders[file.dir_index], file.name).decode("utf-8", "replace")
        for number, file in enumerate(program["file_entry"], first)
    }


def _lines(elf: Any) -> dict[int, SourceLine]:
    """DWARF's line table, as far as it can be read: it is a convenience."""
    found: dict[int, SourceLine] = {}
    if not elf.has_dwarf_info():
        return found
    try:
        dwarf = elf.get_dwarf_info()
        for unit in dwarf.iter_CUs():
            program = dwarf.line_program_for_CU(unit)
            if program is None:
                continue
            names = _file_names(program)
            for entry in program.get_entries():
                state = entry.state
                if state is not None and not state.end_sequence and state.file in names:
                    found[state.address] = SourceLine(names[state.file], state.line)
    except Exception:  # as above
        return found
    return found
