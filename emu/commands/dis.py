"""`emu dis`: disassembles a file."""

import argparse
import sys

from emu.debug.disassemble import coloured, listing
from emu.debug.elf import ELF_MAGIC, code_sections
from emu.debug.symbols import DebugInfo, load_debug_info
from emu.errors import BadInput, ConfigError
from emu.host.input_file import read_file
from emu.host.terminal import Style

__all__ = ["show"]

MOST = 256 << 20


def show(options: argparse.Namespace) -> int:
    """Writes the listing to standard output."""
    data = sys.stdin.buffer.read() if options.file == "-" else read_file(options.file, MOST, "code")
    known = load_debug_info(options.symbols) if options.symbols else DebugInfo()
    whole = options.origin is None and not options.skip and options.length is None
    if whole and data.startswith(ELF_MAGIC):
        for number, section in enumerate(code_sections(options.file, data)):
            if number:
                print()
            print(f"section {section.name}")
            own = DebugInfo(section.address, section.symbols | known.symbols, section.lines | known.lines)
            _print(section.data, options.bits or section.bits, own)
        return 0
    if options.skip > len(data):
        raise BadInput(f"{options.file}: --skip {options.skip} of {len(data)} bytes")
    data = data[options.skip :] if options.length is None else data[options.skip : options.skip + options.length]
    if options.origin is not None:
        known.origin = options.origin
    elif options.symbols:
        known.origin += options.skip
    if known.origin + len(data) > 1 << 64:
        raise ConfigError(f"--origin {known.origin:#x}: the code would leave the address space")
    _print(data, options.bits or 32, known)
    return 0


def _print(data: bytes, bits: int, known: DebugInfo) -> None:
    style = Style(sys.stdout)
    for line in listing(data, bits, known.origin, known.symbols, known.lines):
        if style.on and line.startswith("; "):
            line = style.faint(line)
        elif style.on and "  " in line:
            address, code, text = line.split("  ", 2)
            line = f"{style.faint(address)}  {style.name(code)}  {coloured(text)}"
        elif style.on:
            line = style.strong(line)
        print(line)
