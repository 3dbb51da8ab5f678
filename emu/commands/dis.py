"""`emu dis`: disassembles a file."""

import argparse
import sys
from collections.abc import Mapping

from emu.debug.disassemble import coloured, listing
from emu.debug.elf import ELF_MAGIC, code_sections
from emu.debug.symbols import load_symbols, origin_of
from emu.errors import BadInput, ConfigError
from emu.host.input_file import read_file
from emu.host.terminal import Style

__all__ = ["show"]

MOST = 256 << 20


def show(options: argparse.Namespace) -> int:
    """Writes the listing to standard output."""
    data = sys.stdin.buffer.read() if options.file == "-" else read_file(options.file, MOST, "code")
    symbols = load_symbols(options.symbols) if options.symbols else {}
    whole = options.origin is None and not options.skip and options.length is None
    if whole and data.startswith(ELF_MAGIC):
        for number, section in enumerate(code_sections(options.file, data)):
            if number:
                print()
            print(f"section {section.name}")
            _print(section.data, options.bits or section.bits, section.address, {**section.symbols, **symbols})
        return 0
    if options.skip > len(data):
        raise BadInput(f"{options.file}: --skip {options.skip} of {len(data)} bytes")
    data = data[options.skip :] if options.length is None else data[options.skip : options.skip + options.length]
    origin = options.origin
    if origin is None:
        origin = origin_of(options.symbols) + options.skip if options.symbols else 0
    if origin + len(data) > 1 << 64:
        raise ConfigError(f"--origin {origin:#x}: the code would leave the address space")
    _print(data, options.bits or 32, origin, symbols)
    return 0


def _print(data: bytes, bits: int, origin: int, symbols: Mapping[str, int]) -> None:
    style = Style(sys.stdout)
    for line in listing(data, bits, origin, symbols):
        if style.on and "  " in line:
            address, code, text = line.split("  ", 2)
            line = f"{style.faint(address)}  {style.name(code)}  {coloured(text)}"
        elif style.on:
            line = style.strong(line)
        print(line)
