"""An assembled program, and the rounds that it takes to assemble one."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import NoReturn

from asm.assembler import Assembler
from asm.diagnostics import AsmError, Diagnostic
from asm.expression import SCALAR, ExpressionError
from asm.layout import ProbeError
from asm.options import Options
from asm.output import flat
from asm.preprocessor.frames import SourceError

MAX_ROUNDS = 100  # of assembling again where %if or %assign looked at addresses


class Program:
    """An assembled source.

    binary: the flat image. symbols: name to value (for a label its address). origin: the address of the image's first
    byte. sections: name to `asm.expression.Section`. warnings: what there was to warn of.
    """

    def __init__(self, assembler: Assembler) -> None:
        self._assembler = assembler
        self.binary = assembler.format.image(assembler)
        self.origin = flat.origin(assembler)
        self.sections = {name: section for name, section in assembler.sections.items() if section.size or section.parts}
        self.warnings = assembler.warnings
        self.symbols = {
            name: symbol.offset + (symbol.section.base if symbol.section is not SCALAR else 0)
            for name, symbol in assembler.symbols.items()
            if symbol.defined and not symbol.hidden and symbol.section is not None
        }

    def __reduce__(self) -> NoReturn:
        raise TypeError("a program is neither copied nor pickled: take what is wanted of it, such as binary, symbols")

    @property
    def labels(self) -> dict[str, int]:
        """The symbols that are places in the program, name to address: neither constants nor labels of macros (..@)."""
        defined = self._assembler.symbols
        return {
            name: value
            for name, value in self.symbols.items()
            if defined[name].section is not SCALAR and not name.startswith("..@")
        }

    @property
    def dependencies(self) -> list[str]:
        """The files that the source includes."""
        return list(dict.fromkeys(self._assembler.preprocessor.dependencies))

    @property
    def depends_on_more(self) -> bool:
        """The result depends on the environment or the time, not on files alone."""
        return self._assembler.preprocessor.volatile

    @property
    def absent(self) -> set[str]:
        """Paths at which a file was looked for and there was none."""
        return self._assembler.preprocessor.absent

    @property
    def lines(self) -> list[tuple[int, str, int]]:
        """Where code comes from: (address, file, line) for each statement that has bytes, in order of the source."""
        return flat.line_map(self._assembler)

    @property
    def listing(self) -> str:
        """The listing in NASM's format; unless it was asked for, the source is assembled once more for it."""
        from asm.output.listing import listing

        assembler = self._assembler
        if assembler.record is None:
            options = copy.copy(assembler.options)
            options.listing = True
            assembler = run(assembler.name, assembler.text, options)._assembler
        return listing(assembler)

    @property
    def map(self) -> str:
        """The sections and symbols as text."""
        return self.map_of()

    def map_of(self, parts: Collection[str] | None = None, output: str = "") -> str:
        """Parts of the map (see `asm.output.map.PARTS`), with the name of the image's file."""
        from asm.output.map import PARTS, symbol_map

        return symbol_map(self._assembler, PARTS if parts is None else parts, output)

    @property
    def map_request(self) -> tuple[frozenset[str], str] | None:
        """What the source's own `map` directive asks for: parts, and a file's name or nothing."""
        return self._assembler.map_request


def run(name: str, text: str, options: Options) -> Program:
    """Assembles a source, again where its preprocessor asked for addresses, until they agree.

    Raises:
        AsmError: the source has errors.
    """
    known: dict[str, tuple[str, int]] = {}
    for _ in range(MAX_ROUNDS):
        try:
            assembler = Assembler(name, text, options, known)
        except SourceError as error:
            raise AsmError([Diagnostic("fatal", error.message, name, 0, 0, "")]) from None
        if options.watch is not None:
            options.watch(assembler)
        program = None
        try:
            assembler.collect()
            assembler.finish()
            program = Program(assembler)
        except ProbeError:
            pass
        except SourceError as error:
            assembler.report(error.message)
        except ExpressionError as error:  # of the layout as a whole: it has no line
            assembler.errors.append(Diagnostic("error", error.message, name, 0, 0, ""))
        if assembler.errors:
            raise AsmError(assembler.errors, assembler.warnings)
        if program is not None:
            return program
        known = {
            n: (s.section.name, s.offset)
            for n, s in assembler.symbols.items()
            if s.section is not None and s.section.external is None and s.defined
        }
    message = f"unable to find valid values for all labels: %if and %assign saw others in each of {MAX_ROUNDS} rounds"
    assembler.errors.append(Diagnostic("error", message, name, 0, 0, ""))
    raise AsmError(assembler.errors, assembler.warnings)
