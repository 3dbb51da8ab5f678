"""Operands spelt as other assemblers have them, which NASM takes too: ``table[bx]``, ``es:table[bx]``, ``[bx,si]``,
and ``dword ptr table`` after ``%use masm``.

The grammar knows one spelling, ``[es:table+bx]``; an instruction that it does not take is tried again in that.
"""

from __future__ import annotations

from collections.abc import Sequence

_MODIFIERS = "zjtol"
_ENDS_OF_VALUES = "inHS)s"


def plain_operands(tokens: Sequence[str], shape: str) -> tuple[list[str], str]:
    """An instruction with its operands in the grammar's spelling.

    Args:
        tokens, shape: of the instruction with its prefixes.
    """
    out: list[tuple[str, str]] = []  # token and kind
    pairs = list(zip(tokens, shape, strict=True))
    if "k" in shape:
        pairs = _without_ptr(pairs)
        shape = "".join([kind for _, kind in pairs])
    start = shape.find("I") + 1  # of the operand at hand, in `out`
    at = 0
    while at < len(pairs):
        kind = shape[at]
        if kind == "," or at < start:
            out.append(pairs[at])
            start = len(out)
        elif kind == "[":
            end = _closing(shape, at)
            if shape[end] != "]":
                return list(tokens), "".join([kind for _, kind in pairs])
            inside = [("+", "+") if pair[1] == "," else pair for pair in pairs[at + 1 : end]]
            begin = next((n for n in range(start, len(out)) if out[n][1] not in _MODIFIERS), len(out))
            before = out[begin:]
            del out[begin:]
            if before and before[-1][1] in _ENDS_OF_VALUES:
                lead = next((n + 1 for n, pair in enumerate(inside) if pair[1] == ":"), 0)
                head, inside = inside[:lead], inside[lead:]
                if [pair[1] for pair in before[:2]] == ["r", ":"]:
                    head, before = before[:2] + head, before[2:]
                inside = [*head, ("(", "("), *before, (")", ")"), ("+", "+"), *inside]
                before = []
            out += [*before, ("[", "["), *inside, ("]", "]")]
            at = end
        else:
            out.append(pairs[at])
        at += 1
    return [token for token, _ in out], "".join([kind for _, kind in out])


def _without_ptr(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The tokens with brackets about what ``ptr`` says to be in memory, where it has none."""
    out: list[tuple[str, str]] = []
    opened = False
    for at, pair in enumerate(pairs):
        if opened and pair[1] == ",":
            out.append(("]", "]"))
            opened = False
        if pair[1] != "k":
            out.append(pair)
            continue
        rest = "".join([kind for _, kind in pairs[at + 1 :]]).partition(",")[0]
        if "[" not in rest:
            out.append(("[", "["))
            opened = True
    return [*out, ("]", "]")] if opened else out


def _closing(shape: str, at: int) -> int:
    """Where the bracket at `at` is closed; the last token where it is not."""
    depth = 0
    for place in range(at, len(shape)):
        depth += (shape[place] == "[") - (shape[place] == "]")
        if not depth:
            return place
    return len(shape) - 1
