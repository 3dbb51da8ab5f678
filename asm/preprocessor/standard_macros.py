"""What the directives are to NASM's preprocessor, as -E shows them: macros that give the forms in brackets.

The assembler itself carries the directives out directly (asm/directives.py); only -E defines these macros. They take
as many macro calls and contexts as NASM's do, since those are counted in the names of local labels, and what -E shows
of them (strucstart, the expressions of `times`) is what `nasm -E` shows.
"""

from __future__ import annotations

_IN_BRACKETS = ("bits", "cpu", "default")
_A_LINE_A_NAME = ("extern", "static", "global", "required", "common")
_PLAIN = {
    "use16": "[bits 16]", "use32": "[bits 32]", "use64": "[bits 64]", "userel": "[default rel]",
    "useabs": "[default abs]", "usebnd": "[default bnd]", "usenobnd": "[default nobnd]",
}  # fmt: skip
_SECTIONS = ("section", "segment", "absolute")
_GAP = "(((%1) - (($-$$) % (%1))) % (%1))"


def _macro(name: str, count: str, *lines: str) -> list[str]:
    return [f"%imacro {name} {count}.nolist" if " " not in count else f"%imacro {name} {count}", *lines, "%endmacro"]


def standard_macros(has_origin: bool) -> list[str]:
    """The lines that define them, with `org` or not."""
    lines = ["%define __?SECT?__ [section .text]", "%define __SECT__ __?SECT?__", "%define __?SECTALIGN?__ 1"]
    for name in _SECTIONS:
        lines += _macro(name, "1+", f"%define __?SECT?__ [{name} %1]", "__?SECT?__")
    for name in (*_IN_BRACKETS, "org" if has_origin else "osabi"):
        lines += _macro(name, "1+", f"[{name} %1]")
    for name, text in _PLAIN.items():
        lines += _macro(name, "0", text)
    for name in (*_A_LINE_A_NAME, "float"):
        lines += _macro(name, "1-*", "%rep %0", f"[{name} %1]", "%rotate 1", "%endrep")
    lines += _macro(
        "sectalign", "1+",
        "%ifidni %1,off", "%define __?SECTALIGN?__ 0", "%elifidni %1,on", "%define __?SECTALIGN?__ 1",
        "%else", "[sectalign %1]", "%endif",
    )  # fmt: skip
    whole = ["%if __?SECTALIGN?__", "sectalign %1", "%endif"]
    lines += _macro("align", "1-2+.nolist nop", *whole, f"times {_GAP} %2")
    lines += _macro(
        "alignb", "1-2+", *whole,
        "%ifempty %2", "[warning push]", "[warning -zeroing]", f"resb {_GAP}", "[warning pop]",
        "%else", f"times {_GAP} %2", "%endif",
    )  # fmt: skip
    lines += _macro("struc", "1-2.nolist 0", "%push", "%define %$type %1", "[absolute %2]", "%$type:")
    lines += _macro("endstruc", "0", "%{$type}_size equ ($-%$type)", "%pop", "__?SECT?__")
    lines += _macro("istruc", "1", "%push", "%define %$type %1", "%$strucstart:")
    before = "-%$type)-($-%$strucstart) db 0"
    lines += _macro(
        "at", "1-2+", "%defstr %$text %1", "%substr %$initial %$text 1",
        "%ifidn %$initial, '.'", f"times (%{{$type}}%1{before}", "%else", f"times (%1{before}", "%endif", "%2",
    )  # fmt: skip
    lines += _macro("iend", "0", "times %{$type}_size-($-%$strucstart) db 0", "%pop")
    lines += _macro(
        "incbin", "1-2+.nolist 0", "%push", "%pathsearch %$found %1", "%depend %$found", "incbin %$found,%2", "%pop"
    )
    return lines
