"""The macros that a source finds defined, and the packages of %use."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from asm.preprocessor import functions
from asm.preprocessor.frames import DirectiveError, SourceError
from asm.preprocessor.macros import Macro, MacroError, quote
from asm.preprocessor.text_directives import define

if TYPE_CHECKING:
    from asm.preprocessor.preprocess import Preprocessor


def predefine(pre: Preprocessor, name: str) -> None:
    options = pre.options

    def clock(form: str, universal: bool = False) -> Callable[[], str]:
        def now() -> str:
            pre.volatile = True
            return time.strftime(form, time.gmtime() if universal else time.localtime())

        return now

    live: dict[str, Callable[[], str]] = {
        "FILE": lambda: quote(next(f.file_of(f.number) for f in reversed(pre.frames) if f.kind == "file")),
        "LINE": lambda: str(pre.source_line()),
        "BITS": lambda: str(0 if pre.verbatim else pre.assembler.mode.bits),
        "PTR": lambda: {16: "word", 32: "dword", 64: "qword"}.get(0 if pre.verbatim else pre.assembler.mode.bits, ""),
        "SECT": lambda: pre.section_line,
        "PASS": lambda: "2",
        "DATE": clock('"%Y-%m-%d"'),
        "TIME": clock('"%H:%M:%S"'),
        "DATE_NUM": clock("%Y%m%d"),
        "TIME_NUM": clock("%H%M%S"),
        "UTC_DATE": clock('"%Y-%m-%d"', True),
        "UTC_TIME": clock('"%H:%M:%S"', True),
        "UTC_DATE_NUM": clock("%Y%m%d", True),
        "UTC_TIME_NUM": clock("%H%M%S", True),
        "POSIX_TIME": clock("%s"),
    }
    texts: dict[str, str] = {
        "NASM_MAJOR": "2", "NASM_MINOR": "16", "NASM_SUBMINOR": "1", "NASM_PATCHLEVEL": "0",
        "NASM_VERSION_ID": "34603264", "NASM_VER": '"2.16.01"', "OUTPUT_FORMAT": options.output_format,
    }  # fmt: skip
    if options.debug and options.output_format.startswith("elf"):
        texts["DEBUG_FORMAT"] = "dwarf"
    table = pre.expander.macros
    for word, text_of in live.items():
        for spelling in (f"__?{word}?__", f"__{word}__"):
            table[spelling] = [Macro(spelling, function=_constant_function(text_of))]
    if pre.verbatim:  # they are the assembler's own tokens to -E, which spells them in one way
        for word in (*(name.strip("_?") for name in functions.NAMED), "infinity", "nan", "qnan", "snan"):
            spelling = f"__{word}__"
            pre.expander.insensitive[spelling] = [Macro(spelling, (f"__?{word}?__",), insensitive=True)]
        pre.kinds.insensitive.update(pre.expander.insensitive)
    else:
        table.update(pre.functions)
    for word, text in texts.items():
        for spelling in (f"__?{word}?__", f"__{word}__"):
            table[spelling] = [Macro(spelling, (text,))]
    table["_NASM_"] = [Macro("_NASM_", ("1",))]
    pre.kinds.macros.update(table)
    key: object = ""
    try:
        for key, value in options.defines:
            define(pre, f"{key} {value if value is not None else ''}")
        for key in options.undefines:
            pre.undefine(key)
    except (DirectiveError, MacroError) as error:
        raise SourceError(f"the macro `{key}' of the command line or the call: {error}") from None


def _constant_function(text_of: Callable[[], str]) -> functions.Function:
    return lambda expander, arguments: text_of()


USE_PACKAGES: dict[str, str] = {
    "ifunc": "\n".join(
        [f"%idefine ilog2{n}(x) (__?ilog2{m}?__(x))" for n, m in
         (("", "e"), ("e", "e"), ("w", "w"), ("fw", "w"), ("f", "f"), ("c", "c"))]
        + ["%idefine ilog2cw(x) (__?ilog2w?__(x) * 0 + __?ilog2c?__(x))"]
    ),
    "smartalign": "",
    "masm": "\n".join(
        ["%idefine ptr __?masm_ptr?__", "%idefine flat", "%idefine offset", "%idefine tbyte tword"]
        + ["%imacro segment 0-1+.nolist", "[segment %00 %1]", "%endmacro"]
        + ["%imacro proc 0-*.nolist", "%rep %0", "%ifidni %1,far", "%idefine ret retf", "%else", "%idefine ret retn"]
        + ["%endif", "%rotate 1", "%endrep", "%endmacro"]
        + ["%imacro endp 0.nolist", "%null %00", "%undef ret", "%endmacro"]
        + [f"%imacro {name} 0+.nolist\n%null %00\n%endmacro" for name in ("ends", "assume", "end")]
        + ["default rel"]
    ),
    "fp": "\n".join(
        [f"%define {name} __?{value}?__" for name, value in
         (("Inf", "Infinity"), ("NaN", "QNaN"), ("QNaN", "QNaN"), ("SNaN", "SNaN"))]
        + [f"%define {name.strip('_?')}(x) {name}(x)" for name in functions.FLOATS]
        + ["%imacro bf16 1-*.nolist", "%rep %0", "dw __?bfloat16?__(%1)", "%rotate 1", "%endrep", "%endmacro"]
    ),
    "altreg": "\n".join(
        [f"%define r{n}{s} {r}" for n, row in enumerate((
            ("al", "ax", "eax", "rax"), ("cl", "cx", "ecx", "rcx"), ("dl", "dx", "edx", "rdx"),
            ("bl", "bx", "ebx", "rbx"), ("spl", "sp", "esp", "rsp"), ("bpl", "bp", "ebp", "rbp"),
            ("sil", "si", "esi", "rsi"), ("dil", "di", "edi", "rdi"))) for s, r in zip("lwd", row, strict=False)]
        + [f"%define r{n} {r}" for n, r in enumerate(("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"))]
        + [f"%define r{n}h {r}" for n, r in enumerate(("ah", "ch", "dh", "bh"))]
        + [f"%define r{n}l r{n}b" for n in range(8, 16)]
    ),
}  # fmt: skip
