"""What a command line or a call asks of the assembler."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from asm.warnings import Warnings

if TYPE_CHECKING:
    from asm.assembler import Assembler


class Options:
    """What a command line or a call asks for."""

    def __init__(
        self,
        bits: int = 16,
        defines: Mapping[str, object] | Iterable[tuple[str, object]] = (),
        undefines: Sequence[str] = (),
        include: Sequence[str | os.PathLike[str]] = (),
        preinclude: Sequence[str] = (),
        optimise: bool | int = True,
        listing: bool | str = False,
        warnings: Iterable[str] | Mapping[str, bool] = (),
        output_format: str = "bin",
        debug: bool = False,
        preprocess_only: bool = False,
        line_directives: bool = True,
        before: Sequence[str] = (),
        mangle: Mapping[str, str] | None = None,
        limits: Mapping[str, int] | None = None,
        watch: Callable[[Assembler], None] | None = None,
    ) -> None:
        self.bits = bits
        self.defines = list(defines.items() if isinstance(defines, Mapping) else defines)
        self.undefines = list(undefines)
        self.include = [os.fspath(path) for path in include]
        self.preinclude = list(preinclude)
        self.optimise = 2 if optimise is True else int(optimise)  # 0, 1 or 2, for -O0, -O1 and -Ox
        self.listing = bool(listing) or listing == ""
        self.listing_flags = set(listing if isinstance(listing, str) else "")  # letters of -L
        self.warnings = Warnings(warnings)
        self.output_format = "elf32" if output_format == "elf" else output_format
        self.watch = watch  # is told of the assembler of each round
        self.preprocess_only = preprocess_only  # -E: blank lines are kept, and directives are NASM's macros
        self.line_directives = line_directives  # %line counts
        self.before = list(before)  # lines that stand before the source
        self.mangle = dict(mangle or {})  # "gprefix", "gsuffix", "lprefix", "lsuffix" of an object's symbols
        self.limits = dict(limits or {})  # "rep": the largest count
        self.debug = debug  # line information in an object file
