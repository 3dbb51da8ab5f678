"""What may be asked behind %if: each a function of the preprocessor and of the text that follows."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from asm.preprocessor.frames import DirectiveError
from asm.preprocessor.macros import NAME, pieces
from asm.preprocessor.predefined import USE_PACKAGES
from asm.tokens import classify, unquote

if TYPE_CHECKING:
    from asm.preprocessor.preprocess import Preprocessor


def _if_defined(pre: Preprocessor, text: str) -> bool:
    for name in text.split():
        if not re.fullmatch(rf"{NAME.pattern}|%!.+", name):
            raise DirectiveError("%ifdef expects macro identifiers", name)
        if name.startswith("%$"):
            context, bare = pre.expander.context_name(name)
            if bare in context.macros:
                return True
        elif name.startswith("%!"):
            if pre.environment(name[2:].strip("'\"")) is not None:
                return True
        elif pre.expander.lookup(name) is not None:
            return True
    return False


def _if_macro(pre: Preprocessor, text: str) -> bool:
    name, counts = pre.split_name(text)
    choices = pre.choices_of(name) or []
    if not choices and not pre.verbatim:  # the directives are macros to NASM
        choices = pre.standard_of(name.lower())
    if not counts.strip():
        return bool(choices)
    match = re.match(r"\s*(\d+)(?:-(\d+|\*))?(\+)?", counts)
    if match is None:
        raise DirectiveError("%ifmacro expects a parameter count or nothing")
    pre.trailing("%ifmacro", counts[match.end() :])
    least = int(match.group(1))
    most = float("inf") if match.group(2) == "*" or match.group(3) else int(match.group(2) or least)
    return any(m.least <= most and (least <= m.most or m.greedy) for m in choices)


def _if_identical(pre: Preprocessor, text: str, fold: bool = False) -> bool:
    out: list[list[str]] = [[]]
    parts = pieces(pre.expander.expand(text))
    for n, piece in enumerate(parts):
        if piece == "," and len(out) == 1:
            if n and parts[n - 1].isspace():
                return False  # NASM counts the blank before the comma
            out.append([])
        elif not piece.isspace():
            if piece[0] in "'\"`" and len(piece) > 1:
                piece = "'" + unquote(piece)  # the quotes themselves do not count
            out[-1].append(piece.lower() if fold else piece)
    if len(out) != 2:
        raise DirectiveError("%ifidn wants two texts separated by a comma")
    return out[0] == out[1]


def _if_identifier(pre: Preprocessor, text: str) -> bool:
    parts = pre.significant(text)
    return bool(parts) and NAME.fullmatch(parts[0]) is not None and parts[0] not in ("$", "$$")


def _if_number(pre: Preprocessor, text: str) -> bool:
    parts = pre.significant(text)
    if parts[:1] in (["-"], ["+"]):
        parts = parts[1:]
    return bool(parts) and (_is_number(parts[0]) or (parts[0][0] == "$" and parts[0][1:2].isdigit()))


def _if_string(pre: Preprocessor, text: str) -> bool:
    parts = pre.significant(text)
    return bool(parts) and parts[0][0] in "'\"`" and len(parts[0]) > 1


def _is_number(text: str) -> bool:
    return text[0].isdigit() and classify(text) == "n"


def _if_alias(pre: Preprocessor, text: str) -> bool:
    expander = pre.expander
    return any(name in expander.aliases or name.lower() in expander.insensitive_aliases for name in text.split())


def _package(pre: Preprocessor, text: str) -> str:
    name = pre.expander.expand(text).strip()
    return (unquote(name) if name[:1] in ("'", '"', "`") and len(name) > 1 else name).lower()


CONDITIONS: dict[str, Callable[[Preprocessor, str], bool]] = {
    "def": _if_defined,
    "defalias": _if_alias,
    "macro": _if_macro,
    "idn": _if_identical,
    "idni": lambda pre, text: _if_identical(pre, text, True),
    "id": _if_identifier,
    "num": _if_number,
    "str": _if_string,
    "empty": lambda pre, text: not pre.significant(text),
    "token": lambda pre, text: len(pre.significant(text)) == 1,
    "ctx": lambda pre, text: bool(pre.contexts) and pre.contexts[-1].name.lower() in text.lower().split(),
    "using": lambda pre, text: _package(pre, text) in pre.used,
    "usable": lambda pre, text: _package(pre, text) in USE_PACKAGES,
    "env": lambda pre, text: pre.environment(text.removeprefix("%!").strip("'\"")) is not None,
}
