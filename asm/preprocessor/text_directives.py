"""The preprocessor's directives that make a name stand for text: %define and its like, and those on strings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from asm.preprocessor import functions
from asm.preprocessor.frames import DirectiveError
from asm.preprocessor.macros import Macro, pieces, quote, strip_comment
from asm.tokens import unquote

if TYPE_CHECKING:
    from asm.preprocessor.preprocess import Preprocessor

Handler: TypeAlias = "Callable[[Preprocessor, str], None]"


def define(pre: Preprocessor, rest: str, insensitive: bool = False, expand: bool = False) -> None:
    name, rest = pre.split_name(strip_comment(rest))
    parameters: list[str] | None = None
    greedy = False
    evaluated: set[int] = set()
    quoted: set[int] = set()
    if rest.startswith("("):
        head, closed, rest = rest[1:].partition(")")
        if not closed:
            raise DirectiveError("expecting `)' after the parameters of a macro")
        parameters = []
        for n, text in enumerate(head.split(",") if head.strip() else []):
            parameter = text.strip()
            while parameter[:1] in ("=", "&", "!"):
                (evaluated if parameter[0] == "=" else quoted if parameter[0] == "&" else set()).add(n)
                parameter = parameter[1:].strip()
            if parameter.endswith("+"):
                greedy = True
                parameter = parameter[:-1]
            parameters.append(parameter)
    body_text = rest.strip()
    if expand:
        body_text = pre.expander.expand(body_text, frozenset(parameters or ()))
    places = {parameter: n for n, parameter in enumerate(parameters or []) if parameter}
    body: list[str | int] = [places.get(piece, piece) for piece in pieces(body_text)]
    macro = Macro(
        name, body, parameters, insensitive=insensitive, greedy=greedy, evaluated=frozenset(evaluated),
        quoted=frozenset(quoted),
    )  # fmt: skip
    pre.define(macro)


def _undefine(pre: Preprocessor, rest: str) -> None:
    name, more = pre.split_name(strip_comment(rest))
    pre.trailing("macro name", more)
    pre.undefine(name)


def _define_alias(pre: Preprocessor, rest: str, insensitive: bool = False) -> None:
    name, rest = pre.split_name(strip_comment(rest))
    other, more = pre.split_name(rest)
    pre.trailing("macro name", more)
    pre.define_alias(name, other, insensitive)


def _undefine_alias(pre: Preprocessor, rest: str) -> None:
    name, more = pre.split_name(strip_comment(rest))
    pre.trailing("macro name", more)
    pre.undefine_alias(name)


def _aliases(pre: Preprocessor, rest: str) -> None:
    pre.expander.use_aliases = pre.truth(strip_comment(rest).strip())


def assign(pre: Preprocessor, rest: str, insensitive: bool = False) -> None:
    name, rest = pre.split_name(rest)
    pre.set_text(name, str(pre.evaluate(rest)), insensitive)


def _strlen(pre: Preprocessor, rest: str) -> None:
    name, rest = pre.split_name(strip_comment(rest))
    pre.set_text(name, str(len(pre.string_argument(rest).encode("utf-8", "surrogateescape"))))


def _substr(pre: Preprocessor, rest: str) -> None:
    name, rest = pre.split_name(strip_comment(rest))
    text = pre.expander.expand(rest).strip()
    parts = pieces(text)
    if not parts or parts[0][0] not in "'\"`" or len(parts[0]) < 2:
        raise DirectiveError("`%substr' wants a string", parts[0] if parts else "")
    rest = "".join(parts[1:]).strip().removeprefix(",").strip()
    start_text, comma, count_text = rest.partition(",")
    start = pre.evaluate(start_text)
    count = pre.evaluate(count_text) if comma else 1
    pre.set_text(name, quote(functions.substring(unquote(parts[0]), start, count)))


def _strcat(pre: Preprocessor, rest: str) -> None:
    name, rest = pre.split_name(strip_comment(rest))
    strings = []
    for piece in pre.significant(rest):
        if piece[0] in "'\"`" and len(piece) > 1:
            strings.append(unquote(piece))
        elif piece != ",":
            raise DirectiveError("`%strcat' joins strings only", piece)
    pre.set_text(name, quote("".join(strings)))


def _defstr(pre: Preprocessor, rest: str, insensitive: bool = False) -> None:
    name, rest = pre.split_name(strip_comment(rest))
    pre.set_text(name, quote(pre.expander.expand(rest.strip())), insensitive)


def _deftok(pre: Preprocessor, rest: str, insensitive: bool = False) -> None:
    name, rest = pre.split_name(strip_comment(rest))
    pre.set_text(name, pre.string_argument(rest), insensitive)


def _pathsearch(pre: Preprocessor, rest: str, insensitive: bool = False) -> None:
    name, rest = pre.split_name(strip_comment(rest))
    pre.set_text(name, quote(pre.find(pre.string_argument(rest))), insensitive)


DIRECTIVES: dict[str, Handler] = {
    "define": define,
    "idefine": lambda pre, rest: define(pre, rest, insensitive=True),
    "xdefine": lambda pre, rest: define(pre, rest, expand=True),
    "ixdefine": lambda pre, rest: define(pre, rest, insensitive=True, expand=True),
    "defalias": _define_alias,
    "idefalias": lambda pre, rest: _define_alias(pre, rest, insensitive=True),
    "undefalias": _undefine_alias,
    "aliases": _aliases,
    "undef": _undefine,
    "assign": assign,
    "iassign": lambda pre, rest: assign(pre, rest, True),
    "strlen": _strlen,
    "substr": _substr,
    "strcat": _strcat,
    "defstr": _defstr,
    "idefstr": lambda pre, rest: _defstr(pre, rest, True),
    "deftok": _deftok,
    "ideftok": lambda pre, rest: _deftok(pre, rest, True),
    "pathsearch": _pathsearch,
    "ipathsearch": lambda pre, rest: _pathsearch(pre, rest, True),
}
