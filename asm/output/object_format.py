"""The output formats: what each makes of sections, symbols and addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from asm.expression import Linear, Section
from asm.output.formats import FORMATS
from asm.parse import TokenError

if TYPE_CHECKING:
    from asm.assembler import Assembler
    from asm.options import Options


class OutputFormat(Protocol):
    """An output format; `bin` below is the plainest."""

    name: str
    has_origin: bool
    has_symbols: bool
    address_size: int  # bytes of the longest address; longer fields are filled up with zeros

    def new_section(self, section: Section) -> None:
        """Sets what a section's name says."""

    def section_attributes(self, assembler: Assembler, section: Section, tokens: Sequence[str], shape: str) -> None:
        """Reads what stands behind a section's name.

        Raises:
            ParseError, TokenError, ExpressionError: an attribute is wrong.
        """

    def declare(self, assembler: Assembler, kind: str, name: str, tokens: Sequence[str], shape: str) -> None:
        """`global`, `extern`, `required`, `static` or `common` of one symbol; tokens and shape stand behind it.

        Raises:
            ParseError, TokenError, ExpressionError: the format has no such thing.
        """

    def place(self, assembler: Assembler) -> None:
        """Gives the sections their addresses.

        Raises:
            ExpressionError: there are none.
        """

    def prepare(self, assembler: Assembler) -> None:
        """Comes before the first byte is made.

        Raises:
            ExpressionError: something is missing.
        """

    def resolve(
        self, value: int | Linear, section: Section, start: int, end: int, at: int, size: int, kind: str
    ) -> int:
        """The number for a field; see `asm.ir.address_field`."""
        ...

    def image(self, assembler: Assembler) -> bytes:
        """The file.

        Raises:
            ExpressionError: it cannot be made.
        """
        ...


class Flat:
    """A flat binary, and the text forms of one."""

    has_origin = True
    has_symbols = False
    address_size = 8

    def __init__(self, name: str) -> None:
        from asm import ir
        from asm.output import flat, hexadecimal

        self.name = name
        self.special: set[str] = set()  # symbols that `global` says more of than their name
        self.section_attributes = flat.section_attributes
        self.place = flat.place
        self.resolve = ir.address_field
        self.image = {"bin": flat.image, "ith": hexadecimal.intel_hex, "srec": hexadecimal.s_records}[name]

    def new_section(self, section: Section) -> None:
        section.nobits = section.name == ".bss"

    def declare(self, assembler: Assembler, kind: str, name: str, tokens: Sequence[str], shape: str) -> None:
        if kind == "common":
            raise TokenError("binary output format does not support common variables", name)
        if tokens and shape[0] != ":":
            raise TokenError(f"`{name}' may have a colon and its type behind it, not `{tokens[0]}'", tokens[0])
        if tokens and kind in ("extern", "required"):
            raise TokenError("binary output format does not support any special symbol types", tokens[0])
        if tokens:
            self.special.add(name)
        if kind in ("extern", "required"):
            assembler.enter_external(name)

    def prepare(self, assembler: Assembler) -> None:
        """A symbol that is more than global is a fault where it is defined, as NASM has it."""
        for name in self.special:
            symbol = assembler.symbols.get(name)
            if symbol is not None and symbol.defined:
                message = "binary output format does not support any special symbol types"
                assembler.report(message, place=symbol.where, word=name)  # type: ignore[arg-type]


def output_format(options: Options) -> OutputFormat:
    """The format of a name in FORMATS."""
    name = options.output_format
    if name.startswith("elf"):
        from asm.output.elf import Elf

        return Elf(FORMATS[name], options.debug)
    return Flat(name)
