"""`emu dis`: disassembles a file."""

import argparse
import sys

from emu.debug.disassemble import coloured, listing
from emu.debug.symbols import load_symbols
from emu.errors import BadInput, ConfigError
from emu.host.input_file import read_file
from emu.host.terminal import Style

__all__ = ["show"]

MOST = 256 << 20


def show(options: argparse.Namespace) -> int:
    """Writes the listing to standard output."""
    data = sys.stdin.buffer.read() if options.file == "-" else read_file(options.file, MOST, "code")
    if options.skip > len(data):
        raise BadInput(f"{options.file}: --skip {options.skip} of {len(data)} bytes")
    data = data[options.skip :] if options.length is None else data[options.skip : options.skip + options.length]
    if options.origin + len(data) > 1 << 64:
        raise ConfigError(f"--origin {options.origin:#x}: the code would leave the address space")
    symbols = load_symbols(options.symbols) if options.symbols else {}
    style = Style(sys.stdout)
    for line in listing(data, options.bits, options.origin, symbols):
        if style.on and "  " in line:
            address, code, text = line.split("  ", 2)
            line = f"{style.faint(address)}  {style.name(code)}  {coloured(text)}"
        elif style.on:
            line = style.strong(line)
        print(line)
    return 0
