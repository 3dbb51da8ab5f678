"""The assembler's directives, each a function of the assembler and of the tokens and shape of its line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from asm.data import split_list
from asm.expression import HERE, SCALAR, START, Symbol
from asm.floats import ROUNDINGS
from asm.instructions.match import LEVELS
from asm.instructions.nops import THRESHOLDS
from asm.ir import Equ, Padding, Reserve, Switch, Times
from asm.output.map import PARTS
from asm.parse import TokenError
from asm.places import at_place
from asm.pragmas import pragma
from asm.tokens import TOKEN, unquote

_SYNONYMS = {
    "186": "80186 i186", "286": "80286 i286", "386": "80386 i386", "486": "80486 i486", "586": "pentium i586",
    "686": "p6 ppro pentiumpro i686", "katmai": "p2 p3", "willamette": "p4", "x64": "x86-64 ia64 ia-64 itanium itanic "
    "merced any all default",
}  # fmt: skip
# The names that `cpu` takes, with their levels.
PROCESSORS = {name: n for n, level in enumerate(LEVELS) for name in (level, *_SYNONYMS.get(level, "").split())}

if TYPE_CHECKING:
    from asm.assembler import Assembler


def _bits(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    value = assembler.evaluate_now(tokens[1:], shape[1:])
    if value not in (16, 32, 64):
        raise TokenError(f"`{value}' is not a valid segment size; must be 16, 32 or 64", tokens[-1])
    _set_bits(assembler, value, tokens[-1])


def _set_bits(assembler: Assembler, bits: int, word: str) -> None:
    least = {16: "8086", 32: "386", 64: "x64"}[bits]
    if assembler.mode.level < LEVELS.index(least):
        raise TokenError(f"cannot specify {bits}-bit segment on processor below {least}", word)
    assembler.set_mode(bits=bits)


def _use(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    if len(shape) > 1:
        raise TokenError(f"`{tokens[0]}' takes no operand", tokens[1])
    _set_bits(assembler, int(tokens[0][3:]), tokens[0])


def _default(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    for token in tokens[1:]:
        word = token.lower()
        if word in ("rel", "abs"):
            assembler.set_mode(default_rel=word == "rel")
        elif word in ("bnd", "nobnd"):
            assembler.set_mode(bnd=word == "bnd")
        elif word != ",":
            raise TokenError(f"unrecognized default `{token}'", token)


def _use_default(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    if len(shape) > 1:
        raise TokenError(f"`{tokens[0]}' takes no operand", tokens[1])
    _default(assembler, ["default", tokens[0].lower().removeprefix("use")], "dr")


def _org(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    value = assembler.evaluate_now(tokens[1:], shape[1:])
    if not assembler.format.has_origin:
        raise TokenError(f"{assembler.format.name} has no `org'", tokens[0])
    if assembler.origin not in (None, value):
        raise TokenError("program origin redefined", tokens[0])
    assembler.origin = value


def _section(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    if len(tokens) == 1:
        raise TokenError("a section's name is wanted", tokens[0])
    at = 1
    name = tokens[1]
    while at + 1 < len(tokens) and (shape[at + 1] in "-," or tokens[at][-1:] in "-,"):
        at += 1  # a name with a dash or a comma in it comes as several tokens
        name += tokens[at]
    section = assembler.enter_section(name)
    assembler.format.section_attributes(assembler, section, tokens[at + 1 :], shape[at + 1 :])
    if not section.declared:
        section.declared = True
        assembler.named.append(section)
    assembler.absolute = None
    assembler.section = section
    assembler.items.append(Switch(section))


def _absolute(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    assembler.enter_absolute(assembler.expression(tokens[1:], shape[1:]))


def _global(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    for names, kinds in split_list(tokens, shape, 1):
        if not kinds or kinds[0] not in "iId":
            raise TokenError(f"`{tokens[0]}' wants the names of symbols", tokens[0])
        name = names[0].removeprefix("$")
        assembler.format.declare(assembler, tokens[0].lower(), name, names[1:], kinds[1:])


def _cpu(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    name = "".join(tokens[1:]).lower()
    if name not in PROCESSORS:
        raise TokenError(f"cpu wants the name of a processor, not `{name}'", tokens[-1])
    assembler.set_mode(level=PROCESSORS[name])


def _float(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    word = tokens[1].lower() if len(tokens) == 2 else ""
    if word in ROUNDINGS:
        assembler.rounding = word
    elif word == "default":
        assembler.rounding, assembler.flush = "near", False
    elif word in ("daz", "nodaz"):
        assembler.flush = word == "daz"
    else:
        raise TokenError(f"float wants {', '.join(ROUNDINGS)}, daz, nodaz or default", tokens[-1])


def _osabi(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    if not assembler.format.has_symbols:
        raise assembler.unknown_instruction(tokens[0])
    numbers = [assembler.evaluate_now(*part) for part in split_list(tokens, shape, 1, 1)]
    if len(numbers) > 2 or any(not 0 <= number <= 255 for number in numbers):
        raise TokenError("osabi wants a number of one byte, and maybe a version of one", tokens[1])
    assembler.format.abi = numbers[0], (*numbers, 0)[1]  # type: ignore[attr-defined]


def _list(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    if shape[1:] not in ("+", "-"):
        raise TokenError("list wants + or -", tokens[0])
    assembler.preprocessor.lists = shape[1] == "+"
    assembler.preprocessor.end_listed_line()


def _warning(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    words = "".join(tokens[1:])
    if words in ("push", "save"):
        assembler.saved_switches.append(assembler.switches.copy())
    elif words in ("pop", "restore"):
        if assembler.saved_switches:
            assembler.switches = assembler.saved_switches.pop()
        else:
            assembler.switches = assembler.options.warnings.copy()
            assembler.warn("warn-stack-empty", "warning stack empty")
    elif not words.lstrip("+-*"):
        raise TokenError("the name of a warning is wanted", tokens[0])
    elif not assembler.switches.switch(words):
        assembler.warn("unknown-warning", f"unknown warning option: {words}")
    assembler.switch_points.append((len(assembler.items), assembler.switches.copy()))


def _map(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    if not assembler.format.has_origin:
        raise TokenError(f"{assembler.format.name} has no `map'", tokens[0])
    words = list(tokens[1:])
    asked, known = assembler.map_request or (frozenset(), None)
    parts = set(asked)
    while words and words[0].lower() in _MAP_PARTS:
        parts |= _MAP_PARTS[words.pop(0).lower()]
    name = "".join(words)
    if name and shape[-1] == "s":
        name = unquote(name)
    # Of several such lines the first decides where the map goes.
    assembler.map_request = frozenset(parts or {"brief"}), name if known is None else known


_MAP_PARTS = {
    "brief": {"brief"}, "sections": {"brief", "sections"}, "segments": {"brief", "sections"}, "symbols": {"symbols"},
    "all": PARTS,
}  # fmt: skip


def _align(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    parts = split_list(tokens, shape, 1, 1)
    size = assembler.evaluate_now(*parts[0])
    if size < 1 or size & (size - 1):
        raise TokenError(f"alignment `{size}' is not a power of two", tokens[1])
    if assembler.section is not SCALAR:
        assembler.section.align = max(assembler.section.align or 1, size)
    gap = ("&", ("-", START, HERE), size - 1)
    if len(parts) > 1:
        _filled(assembler, gap, *parts[1])
    elif tokens[0].lower() == "alignb":
        _pad(assembler, gap)
    elif assembler.align_mode is not None:
        assembler.items.append(Padding(size, *assembler.align_mode, assembler.mode))
        calls = assembler.preprocessor.calls
        assembler.preprocessor.count_calls(1)  # NASM's macro jumps to a label of its own
        assembler.places.append(assembler.place)
        end = assembler.define(f"..@{calls}.end")
        end.hidden = not assembler.format.has_symbols
        assembler.items.append(end)
    else:
        assembler.items.append(Times(gap, b"\x90"))


def _alignmode(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    parts = split_list(tokens, shape, 1)
    mode = "".join(parts[0][0]).lower()
    if assembler.align_mode is None:
        raise TokenError("alignmode wants `%use smartalign'", tokens[0])
    if mode not in THRESHOLDS or len(parts) > 2:
        raise TokenError(f"alignmode knows {', '.join(THRESHOLDS)}, not `{mode}'", tokens[-1])
    threshold = THRESHOLDS[mode]
    if len(parts) == 2:
        words = "".join(parts[1][0]).lower()
        threshold = -1 if words == "nojmp" else assembler.evaluate_now(*parts[1])
    assembler.align_mode = mode, threshold


def _filled(assembler: Assembler, count: Any, tokens: Sequence[str], shape: str) -> None:
    """Repeats a statement to fill a gap."""
    before = len(assembler.items)
    assembler.statement(list(tokens), shape)
    made = assembler.items[before:]
    del assembler.items[before:]
    if len(made) == 1:
        assembler.items.append(Times(count, made[0]))


def _pad(assembler: Assembler, gap: Any) -> None:
    """Reserves a gap."""
    if assembler.absolute is not None:
        assembler.skip(assembler.constant(gap) or 0)
    else:
        assembler.items.append(Reserve(gap, 1))


def _sectalign(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    if tokens[1:] and tokens[1].lower() in ("on", "off"):
        return
    size = assembler.evaluate_now(tokens[1:], shape[1:])
    if size < 1 or size & (size - 1):
        raise TokenError(f"alignment `{size}' is not a power of two", tokens[1])
    assembler.section.align = max(assembler.section.align or 1, size)


def _struc(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    parts = split_list(tokens, shape, 1)
    if parts[0][1] != "i" or len(parts) > 2:
        raise TokenError("struc wants a name, and maybe an offset", tokens[0])
    start = assembler.expression(*parts[1]) if len(parts) == 2 else 0
    name = parts[0][0][0]
    assembler.structures.append(("struc", name, assembler.preprocessor.section_line, assembler.place))
    assembler.enter_absolute(start)
    assembler.label(name)


def _endstruc(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    if not assembler.structures or assembler.structures[-1][0] != "struc":
        raise TokenError("endstruc without struc", tokens[0])
    _, name, section_line, _ = assembler.structures.pop()
    size = ("-", HERE, assembler.symbols[name])
    symbol = assembler.define(f"{name}_size")
    value = assembler.constant(size)
    if value is not None:
        symbol.section, symbol.offset, symbol.constant = SCALAR, value, True
    else:
        assembler.items.append(Equ(symbol, size if assembler.absolute is None else at_place(size, assembler.absolute)))
    _reenter(assembler, section_line)


def _reenter(assembler: Assembler, section_line: str) -> None:
    """Goes back to the section that a directive text names."""
    tokens = [token for token in TOKEN.findall(section_line) if token]
    assembler.primitive(tokens[1:-1], "".join(map(assembler.kinds.__getitem__, tokens[1:-1])))


def _istruc(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    if shape[1:] != "i":
        raise TokenError("istruc wants the name of a struc", tokens[0])
    start = assembler.define(f"..@{assembler.preprocessor.calls - 1}.strucstart")
    start.hidden = not assembler.format.has_symbols
    assembler.items.append(start)
    assembler.structures.append(("istruc", tokens[1], start, assembler.place))


def _inside_istruc(assembler: Assembler, tokens: Sequence[str]) -> tuple[str, Symbol]:
    if not assembler.structures or assembler.structures[-1][0] != "istruc":
        raise TokenError(f"{tokens[0]} without istruc", tokens[0])
    _, name, start, _ = assembler.structures[-1]
    return name, start


def _at(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    name, start = _inside_istruc(assembler, tokens)
    parts = split_list(tokens, shape, 1, 1)
    field: Any
    if parts[0][1] == "i" and parts[0][0][0][0] == ".":
        field = assembler.symbols[name + parts[0][0][0]]
    else:
        field = assembler.expression(*parts[0])
    assembler.items.append(Times(("-", ("-", field, assembler.symbols[name]), ("-", HERE, start)), b"\0"))
    if len(parts) > 1 and parts[1][1]:
        assembler.statement(list(parts[1][0]), parts[1][1])


def _iend(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    name, start = _inside_istruc(assembler, tokens)
    assembler.structures.pop()
    assembler.items.append(Times(("-", assembler.symbols[f"{name}_size"], ("-", HERE, start)), b"\0"))


DIRECTIVES: dict[str, Callable[[Assembler, Sequence[str], str], None]] = {
    "bits": _bits,
    "use16": _use,
    "use32": _use,
    "use64": _use,
    "userel": _use_default,
    "useabs": _use_default,
    "usebnd": _use_default,
    "usenobnd": _use_default,
    "default": _default,
    "org": _org,
    "section": _section,
    "segment": _section,
    "absolute": _absolute,
    "global": _global,
    "extern": _global,
    "static": _global,
    "required": _global,
    "common": _global,
    "cpu": _cpu,
    "osabi": _osabi,
    "float": _float,
    "list": _list,
    "warning": _warning,
    "map": _map,
    "pragma": lambda assembler, tokens, shape: pragma(assembler, " ".join(tokens[1:])),
    "align": _align,
    "alignb": _align,
    "alignmode": _alignmode,
    "sectalign": _sectalign,
    "struc": _struc,
    "endstruc": _endstruc,
    "istruc": _istruc,
    "at": _at,
    "iend": _iend,
}
