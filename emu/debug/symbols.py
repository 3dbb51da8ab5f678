"""Symbols, by which a run can be stopped and a disassembly read, and the images that bring them."""

import os
import re
from collections.abc import Mapping

from emu.debug.elf import ELF_MAGIC, code_sections
from emu.errors import BadInput
from emu.host.input_file import read_file

__all__ = ["assembled_rom", "load_symbols", "origin_of"]

MOST = 64 << 20  # bytes of a symbol file
MIB = 1 << 20
# A map of the assembler has, in each section, the symbol's place in the file, its address, and its name.
MAP_LINE = re.compile(r"^ *[0-9A-F]+ +([0-9A-F]+) +(\S+)$", re.MULTILINE)
ORIGIN = re.compile(r"^-- Program origin -+\n+([0-9A-F]+)$", re.MULTILINE)
# nm: address, type, name.
NM_LINE = re.compile(r"^([0-9a-fA-F]{8,16}) [A-Za-z] (\S+)$", re.MULTILINE)


def load_symbols(path: str | os.PathLike[str]) -> dict[str, int]:
    """Symbols of a file: a map of `emu-asm --map` (or of NASM), what `nm` prints, or an ELF file that has them.

    Raises:
        BadInput: it cannot be read, or is none of these.
    """
    data = read_file(path, MOST, "a symbol file")
    if data.startswith(ELF_MAGIC):
        sections = code_sections(os.fspath(path), data)
        return {name: address for section in sections for name, address in section.symbols.items()}
    text = data.decode("utf-8", "replace")
    pattern = MAP_LINE if "Map file" in text[:200] else NM_LINE
    symbols = {name: int(address, 16) for address, name in pattern.findall(text)}
    if not symbols:
        raise BadInput(f"{os.fspath(path)}: no symbols: neither a map of emu-asm --map nor the output of nm")
    return symbols


def origin_of(path: str | os.PathLike[str]) -> int:
    """The address of an image's first byte by its map; 0 where the file is no map.

    Raises:
        BadInput: it cannot be read.
    """
    found = ORIGIN.search(read_file(path, MOST, "a symbol file").decode("utf-8", "replace"))
    return int(found[1], 16) if found is not None else 0


def assembled_rom(path: str | os.PathLike[str]) -> tuple[bytes, dict[str, int]]:
    """Assembles the source of a ROM: the image, and its symbols as linear addresses.

    A source without `org` counts from the beginning of the image, whose last 128 KiB lie below 1 MiB; its symbols are
    moved there. Any other origin is taken to be the address that the code runs at.

    Raises:
        BadInput: it cannot be read.
        AsmError: it has mistakes.
    """
    import asm

    try:
        program = asm.assemble_file(path)
    except OSError as error:
        raise BadInput(f"{os.fspath(path)}: {error.strerror}") from None
    base = MIB - len(program.binary) if program.origin == 0 else 0
    symbols: Mapping[str, int] = program.symbols
    return program.binary, {name: base + address for name, address in symbols.items() if base + address >= 0}
