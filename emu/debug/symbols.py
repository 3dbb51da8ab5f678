"""Symbols and source lines, by which a run can be stopped and a disassembly read, and the files that bring them."""

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emu.debug.elf import ELF_MAGIC, code_sections
from emu.debug.source_line import SourceLine
from emu.errors import BadInput
from emu.host.input_file import read_file

if TYPE_CHECKING:
    from asm.program import Program

__all__ = ["DebugInfo", "assembled_rom", "load_debug_info"]

MOST = 64 << 20  # bytes of a symbol file
MIB = 1 << 20
# A map of the assembler has, in each section, the symbol's place in the file, its address, and its name.
MAP_LINE = re.compile(r"^ *[0-9A-F]+ +([0-9A-F]+) +(\S+)$", re.MULTILINE)
ORIGIN = re.compile(r"^-- Program origin -+\n+([0-9A-F]+)$", re.MULTILINE)
# nm: address, type, name.
NM_LINE = re.compile(r"^([0-9a-fA-F]{8,16}) [A-Za-z] (\S+)$", re.MULTILINE)


@dataclass
class DebugInfo:
    """What is known of an image: the address of its first byte; symbols, name to address; lines, address to source."""

    origin: int = 0
    symbols: dict[str, int] = field(default_factory=dict)
    lines: dict[int, SourceLine] = field(default_factory=dict)


def load_debug_info(path: str | os.PathLike[str]) -> DebugInfo:
    """What a file says of an image: the image's source (`.asm`), a map of `emu-asm --map` (or of NASM), what `nm`
    prints, or an ELF file.

    Raises:
        BadInput: it cannot be read, or is none of these.
        AsmError: the source has mistakes.
    """
    if os.fspath(path).endswith(".asm"):
        program = _assembled(path)
        return DebugInfo(program.origin, program.symbols, _lines(program))
    data = read_file(path, MOST, "a symbol file")
    if data.startswith(ELF_MAGIC):
        sections = code_sections(os.fspath(path), data)
        symbols = {name: address for section in sections for name, address in section.symbols.items()}
        return DebugInfo(0, symbols, sections[0].lines)
    text = data.decode("utf-8", "replace")
    is_map = "Map file" in text[:200]
    symbols = {name: int(address, 16) for address, name in (MAP_LINE if is_map else NM_LINE).findall(text)}
    if not symbols:
        raise BadInput(f"{os.fspath(path)}: no symbols: neither a map of emu-asm --map nor the output of nm")
    origin = ORIGIN.search(text) if is_map else None
    return DebugInfo(int(origin[1], 16) if origin is not None else 0, symbols)


def _assembled(path: str | os.PathLike[str]) -> "Program":
    import asm

    try:
        return asm.assemble_file(path)
    except OSError as error:
        raise BadInput(f"{os.fspath(path)}: {error.strerror}") from None


def _lines(program: "Program", base: int = 0) -> dict[int, SourceLine]:
    return {base + address: SourceLine(file, number) for address, file, number in program.lines}


def assembled_rom(path: str | os.PathLike[str]) -> tuple[bytes, DebugInfo]:
    """Assembles the source of a ROM: the image, and its symbols and lines by linear addresses.

    A source without `org` counts from the beginning of the image, whose last 128 KiB lie below 1 MiB; its symbols are
    moved there. Any other origin is taken to be the address that the code runs at.

    Raises:
        BadInput: it cannot be read.
        AsmError: it has mistakes.
    """
    program = _assembled(path)
    base = MIB - len(program.binary) if program.origin == 0 else 0
    symbols = {name: base + address for name, address in program.symbols.items() if base + address >= 0}
    return program.binary, DebugInfo(base + program.origin, symbols, _lines(program, base))
