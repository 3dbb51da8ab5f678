"""Single-line and multi-line macros: their definitions, and the expansion of text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from asm.names import with_names

MAX_EXPANSION = 1_000_000  # tokens on one line; macros that double each other must not fill memory
MAX_NESTING = 200

# The preprocessor's tokens: blanks count, since the pieces are put together again.
PIECE = re.compile(
    with_names(r"""
      \s+
    | '[^']*' | "[^"]*" | `(?:\\.|[^\\`])*`
    | ;.*
    | %\[ | %\+(?!\d) | %\*?\?\?? | %, | %\$+<name>+
    | %%<start><name$>* | %\{[^}]*\} | %[-+]?\d+
    | %!<name$>+ | %!(?:'[^']*'|"[^"]*") | %[A-Za-z_]\w*
    | <start$><name$>*
    | \d[\w.]*
    | <=> | <<<? | >>>? | [<>!=]= | <> | // | && | \|\| | \^\^
    | .
    """),
    re.VERBOSE,
)
pieces = PIECE.findall
NAME = re.compile(with_names(r"\s*(%\$+<name>+|<start$><name$>*)"))

LOCAL_AT_END = re.compile(with_names(r"%(\$+<name>+)$"))
CHAIN = re.compile(with_names(r"%\$+<name>+(%\$+<name>+)(?!%\$)"))
# What stands for a macro's parameter or local label in its body; strings and comments are let through.
REFERENCE = re.compile(
    with_names(r"""('[^']*'|"[^"]*"|`(?:\\.|[^\\`])*`|;.*|%\{[^}]*\}|%%<start><name$>*|%[-+]?\d+|%\*?\?\??)""")
)


class MacroError(Exception):
    """A macro that cannot be expanded or defined."""


class Macro:
    """A single-line macro.

    parameters: None where it takes no list. body: pieces, a parameter's place is its index. function: of a macro that
    the assembler works out itself; it takes the expander and the arguments.
    """

    __slots__ = ("body", "evaluated", "function", "greedy", "insensitive", "name", "order", "parameters", "quoted")

    def __init__(
        self,
        name: str,
        body: Sequence[str | int] = (),
        parameters: list[str] | None = None,
        *,
        insensitive: bool = False,
        greedy: bool = False,
        function: Callable[[Expander, Sequence[str]], str] | None = None,
        evaluated: frozenset[int] = frozenset(),
        quoted: frozenset[int] = frozenset(),
    ) -> None:
        self.name = name
        self.order = 0  # a later definition has a higher number
        self.body = body
        self.parameters = parameters
        self.insensitive = insensitive
        self.greedy = greedy
        self.function = function
        self.evaluated = evaluated  # parameters written `=x`: an expression, replaced by its value
        self.quoted = quoted  # parameters written `&x`: turned into a string

    @property
    def arity(self) -> int:
        """How many parameters it takes; -1 where it takes no list."""
        return -1 if self.parameters is None else len(self.parameters)


class MultiLineMacro:
    """A multi-line macro: its lines as they stand, and where they stand."""

    __slots__ = (
        "active", "body", "defaults", "file", "first", "greedy", "insensitive", "least", "lists", "most", "name",
        "recursive", "uses_label",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.least = 0
        self.most: float = 0
        self.greedy = False
        self.defaults: list[str] = []
        self.insensitive = False
        self.recursive = False
        self.lists = True
        self.body: list[str] = []
        self.file = ""
        self.first = 1
        self.active = 0  # calls of it that are being expanded
        self.uses_label = False  # %00 stands in the body: the label before a call is the macro's own affair

    @property
    def count_text(self) -> str:
        """How many parameters it takes, in words for a message."""
        if self.most == self.least:
            return f"{self.least} parameter{'s' * (self.least != 1)}"
        most = "and more" if self.most == float("inf") else f"to {self.most}"
        return f"{self.least} {most} parameters"

    def takes(self, count: int) -> bool:
        return self.least <= count and (count <= self.most or self.greedy)


CONDITION_CODES = {
    "a": "na", "ae": "nae", "b": "nb", "be": "nbe", "c": "nc", "e": "ne", "g": "ng", "ge": "nge", "l": "nl",
    "le": "nle", "na": "a", "nae": "ae", "nb": "b", "nbe": "be", "nc": "c", "ne": "e", "ng": "g", "nge": "ge",
    "nl": "l", "nle": "le", "no": "o", "np": "p", "ns": "s", "nz": "z", "o": "no", "p": "np", "pe": "po", "po": "pe",
    "s": "ns", "z": "nz",
}  # fmt: skip


class Call:
    """One call of a multi-line macro: what its parameters are."""

    __slots__ = ("label", "macro", "name", "number", "parameters", "rotation")

    def __init__(self, macro: MultiLineMacro, name: str, parameters: list[str], number: int, label: str) -> None:
        self.macro = macro
        self.name = name  # as the call spells it
        self.parameters = parameters
        self.number = number
        self.label = label
        self.rotation = 0

    def parameter(self, number: int) -> str:
        """A parameter by its number, from 1, after rotation; empty where there are fewer."""
        count = len(self.parameters)
        if number < 1 or number > count:
            return ""
        return self.parameters[(number - 1 + self.rotation) % count]

    def resolve(self, reference: str) -> str:
        """The text that a reference in the macro's body stands for; other text is given back.

        Raises:
            MacroError: ``%+1`` or ``%-1`` of what is no condition code.
        """
        name = reference[2:-1] if reference.startswith("%{") else reference[1:]
        if name in ("?", "??"):
            return self.name if name == "?" else self.macro.name
        if name in ("*?", "*??"):
            return "%" + name[1:]  # for a macro that the body defines
        if name.isdecimal():
            if name == "0":
                return str(len(self.parameters))
            return self.label if name == "00" else self.parameter(int(name))
        if name.startswith("%"):
            return f"..@{self.number}.{name[1:]}"
        if ":" in name and reference[1] == "{":
            return self.range(name)
        if name[:1] in "+-" and name[1:].isdecimal():
            code = self.parameter(int(name[1:])).lower()
            if code not in CONDITION_CODES:
                raise MacroError(f"macro parameter {name[1:]} is not a condition code")
            return code if name[0] == "+" else CONDITION_CODES[code]
        return reference

    def range(self, text: str) -> str:
        """The parameters that ``%{first:last}`` names, counted from the end if negative, in either direction."""
        count = len(self.parameters)
        first, last = (int(part) if part.lstrip("-").isdecimal() else 0 for part in text.split(":", 1))
        first += count + 1 if first < 0 else 0
        last += count + 1 if last < 0 else 0
        if not 1 <= first <= count or not 1 <= last <= count:
            raise MacroError(f"macro parameters out of bounds: %{{{text}}} of {count}")
        step = 1 if first <= last else -1
        return ",".join(self.parameter(n) for n in range(first, last + step, step))

    def expand(self, text: str) -> str:
        """A line of the body with parameters and local labels put in."""
        parts = _references.get(text)
        if parts is None:
            if len(_references) > 50_000:
                _references.clear()
            parts = _references[text] = REFERENCE.split(text)
        if len(parts) == 1:
            return text
        result = parts.copy()
        for n in range(1, len(parts), 2):
            if parts[n][0] == "%":
                result[n] = self.resolve(parts[n])
                if parts[n - 1][-2:] == "%+" and result[n][:1].isdigit():
                    result[n] = f" {result[n]}"  # m%+%1 does not become m%+0, which would be a condition code
                if "%$" in parts[n - 1] and (local := LOCAL_AT_END.search(parts[n - 1])) is not None:
                    result[n - 1] = f"{parts[n - 1][: local.start()]}%{{{local.group(1)}}}"  # its name ends here
        return "".join(result)


_references: dict[str, list[str]] = {}


class Context:
    """What %push opens: it owns the names that begin with %$."""

    __slots__ = ("macros", "name", "number")

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.macros: dict[str, list[Macro]] = {}


def split_parameters(text: str, most: int = -1) -> list[str]:
    """The parameters of a multi-line macro's call; braces hold commas together. `most`: the last takes the rest.

    Args:
        text: without comment.
    """
    if not text:
        return []
    parts: list[str] = []
    depth, begin, at = 0, 0, 0
    for piece in pieces(text):
        if piece == "{":
            depth += 1
        elif piece == "}":
            depth = max(depth - 1, 0)
        elif piece == "," and not depth and len(parts) + 1 != most:
            parts.append(text[begin:at])
            begin = at + 1
        at += len(piece)
    parts.append(text[begin:])
    return [_strip_braces(part.strip()) for part in parts]


def _strip_braces(text: str) -> str:
    if text[:1] != "{" or text[-1:] != "}":
        return text
    depth = 0
    for n, piece in enumerate(text):
        depth += (piece == "{") - (piece == "}")
        if depth == 0 and n < len(text) - 1:
            return text
    return text[1:-1] if depth == 0 else text


def strip_comment(text: str) -> str:
    """Text without its comment."""
    if ";" not in text:
        return text
    parts = pieces(text)
    while parts and parts[-1][0] == ";":
        parts.pop()
    return "".join(parts).rstrip()


def open_quote(text: str) -> str:
    """The quotation mark that begins a string without an end; empty where there is none."""
    return next((mark for mark in _CLOSED.sub("", text) if mark in "'\"`"), "")


_CLOSED = re.compile(r"""'[^']*'|"[^"]*"|`(?:\\.|[^\\`])*`""")


class Expander:
    """Expands single-line macros.

    Args:
        evaluate: gives the value of an expression in text.
        contexts: the context stack, innermost last.
    """

    def __init__(self, evaluate: Callable[[str], int], contexts: list[Context]) -> None:
        self.macros: dict[str, list[Macro]] = {}
        self.insensitive: dict[str, list[Macro]] = {}
        self.shadowed: set[str] = set()  # names, in lower case, of macros that are sensitive to case and that are not
        self.aliases: dict[str, str] = {}
        self.insensitive_aliases: dict[str, str] = {}
        self.use_aliases = True
        self.contexts = contexts
        self.evaluate = evaluate
        self.warn: Callable[[str, str], None] = lambda name, message: None
        self.environment: Callable[[str], str | None] = lambda name: None
        self.functions: Mapping[str, Callable[[Expander, Sequence[str]], str]] = {}
        self.condition: Callable[[str, str], bool] = lambda name, text: False  # the truth of %if, its kind and its text
        self._budget = 0

    def lookup(self, name: str) -> list[Macro] | None:
        """The macros of a name, one for each number of parameters."""
        if self.aliases or self.insensitive_aliases:
            name = self.meant(name)
        found = self.macros.get(name)
        if found is None:
            return self.insensitive.get(name.lower()) if self.insensitive else None
        if self.shadowed and name.lower() in self.shadowed:
            return sorted([*found, *self.insensitive.get(name.lower(), ())], key=lambda macro: -macro.order)
        return found

    def meant(self, name: str) -> str:
        """The name that an alias stands for, through aliases of aliases; another name itself.

        Raises:
            MacroError: the aliases go round.
        """
        for _ in range(MAX_NESTING if self.use_aliases else 0):
            target = self.aliases.get(name) or self.insensitive_aliases.get(name.lower())
            if target is None:
                return name
            name = target
        if self.use_aliases:
            raise MacroError(f"macro alias loop at `{name}'")
        return name

    def context_name(self, name: str) -> tuple[Context, str]:
        """The context and plain name of a ``%$name``.

        Raises:
            MacroError: there are not so many contexts.
        """
        bare = name[1:].lstrip("$")
        depth = len(name) - 1 - len(bare)
        if depth > len(self.contexts):
            raise MacroError(f"`{name}': context stack is empty" if not self.contexts else f"`{name}': too deep")
        return self.contexts[-depth], bare

    def variable(self, reference: str, quiet: bool = False) -> str:
        """The value of the environment's variable that a ``%!name`` means; nothing, after a warning, of none."""
        name = reference[2:].strip("'\"")
        value = self.environment(name)
        if value is None and not quiet:
            self.warn("pp-environment", f"nonexistent environment variable `{name}'")
        return value or ""

    def expand(self, text: str, hidden: frozenset[str] = frozenset()) -> str:
        """Text with its macros expanded.

        Args:
            hidden: names that are left alone.

        Raises:
            MacroError: a call is malformed, or the expansion does not end.
        """
        self._budget = MAX_EXPANSION
        while (chain := CHAIN.search(text)) is not None:  # the last name of %$a%$b is part of the first
            text = f"{text[: chain.start(1)]}{''.join(self._expand([chain.group(1)], hidden, 0))}{text[chain.end() :]}"
        for _ in range(MAX_NESTING):
            out = self._expand(pieces(text), hidden, 0)
            if "%+" not in out:
                return "".join(out)
            text = _paste(out)
        raise MacroError("macro pasting does not end")

    def expand_known(self, name: str) -> str:
        """A name expanded, but for one of a context that is not defined there."""
        if name.startswith("%{$"):
            name = "%" + name[2:-1]
        if name.startswith("%$"):
            context, bare = self.context_name(name)
            if bare not in context.macros:
                return name
        return self.expand(name)

    def _expand(self, parts: Sequence[str], active: frozenset[str], depth: int) -> list[str]:
        if depth > MAX_NESTING:
            raise MacroError(f"single-line macros nested more than {MAX_NESTING} deep")
        self._budget -= len(parts)
        if self._budget < 0:
            raise MacroError(f"macro expansion of more than {MAX_EXPANSION} tokens")
        out: list[str] = []
        at, end = 0, len(parts)
        while at < end:
            part = parts[at]
            at += 1
            first = part[0]
            if first == "%" and len(part) > 1:
                at = self._special(parts, at, part, active, depth, out)
                continue
            if first.isalpha() or first in "_.?@$" or first >= "\x80":
                choices = self.lookup(part)
                if choices is not None and part not in active:
                    at = self._call(choices, part, parts, at, active, depth, out)
                    continue
            out.append(part)
        return out

    def _special(
        self, parts: Sequence[str], at: int, part: str, active: frozenset[str], depth: int, out: list[str]
    ) -> int:
        """Handles a piece that begins with a percent sign; returns where to go on."""
        if part == "%[":
            inner, at = _bracketed(parts, at)
            text = "".join(self._expand(inner, frozenset(), depth + 1))
            out += self._expand(pieces(text), active, depth + 1)
        elif part[1] == "$":
            context, name = self.context_name(part)
            choices = context.macros.get(name)
            if choices is None and part not in active:
                out.append(f"..@{context.number}.{name}")
            elif choices is not None and part not in active:
                return self._call(choices, part, parts, at, active, depth, out)
        elif part[1] == "!":
            out += pieces(self.variable(part))
        elif part[1] == "{":
            inner_name = "%" + part[2:-1]
            if inner_name[1] == "$" and parts[at : at + 1] and parts[at][0] not in " \t%":
                context, bare = self.context_name(inner_name)
                if bare not in context.macros and re.fullmatch(r"[\w.?@~#]+", parts[at]):
                    inner_name, at = inner_name + parts[at], at + 1
            if inner_name[1:2] in ("$", "!", "?"):
                return self._special(parts, at, inner_name, active, depth, out)
            out.append(part)
        elif part[1:3].lower() == "is" and parts[at : at + 1] == ["("]:  # %isdef(name), as behind %ifdef
            arguments, at = _arguments(parts, at + 1, part)
            out.append(str(int(self.condition(part[3:].lower(), ",".join(map("".join, arguments)).strip()))))
        elif part[1:].lower() in self.functions and parts[at : at + 1] == ["("]:
            arguments, at = _arguments(parts, at + 1, part)
            texts = ["".join(self._expand(argument, active, depth + 1)).strip() for argument in arguments]
            out += pieces(self.functions[part[1:].lower()](self, texts))
        else:
            out.append(part)
        return at

    def _call(
        self,
        choices: list[Macro],
        name: str,
        parts: Sequence[str],
        at: int,
        active: frozenset[str],
        depth: int,
        out: list[str],
    ) -> int:
        """Expands one macro if its parameters are there; returns where to go on."""
        macro = choices[0]
        if macro.parameters is None:
            if macro.function is not None:
                out += pieces(macro.function(self, ()))
            else:
                names = {"%?": name, "%??": macro.name}
                own = [names.get(part, part) for part in map(str, macro.body)]
                out += self._expand(own, active | {name}, depth + 1)
            return at
        place = at
        while place < len(parts) and parts[place].isspace():
            place += 1
        if macro.function is not None and place < len(parts) and parts[place][0] in "'\"`":
            out += pieces(macro.function(self, [parts[place]]))  # __utf16__ 'text' needs no parentheses
            return place + 1
        if place == len(parts) or parts[place] != "(":
            if macro.function is not None:
                raise MacroError(f"`{name}' wants an argument in parentheses")
            out.append(name)
            return at
        untrimmed, after = _arguments(parts, place + 1, name)
        arguments = [_trim(argument) for argument in untrimmed]
        chosen = None
        for macro in choices:
            if macro.arity == len(arguments) or (macro.arity == 0 and len(arguments) == 1):
                chosen = macro
                break
            if macro.greedy and len(arguments) == macro.arity - 1:
                chosen = macro
                arguments.append([])
                break
            if macro.greedy and len(arguments) > macro.arity:
                chosen = macro
                rest = untrimmed[macro.arity - 1 :]
                joined = [piece for n, argument in enumerate(rest) for piece in ([","] if n else []) + argument]
                arguments = [*arguments[: macro.arity - 1], _trim(joined)]
                break
        if chosen is None and macro.function is not None:
            raise MacroError(f"`{name}' takes one argument")
        if chosen is None:
            plural = "" if len(arguments) == 1 else "s"
            message = f"single-line macro `{name}' exists, but not taking {len(arguments)} parameter{plural}"
            self.warn("pp-macro-params-single", message)
            out.append(name)
            return at
        values = []
        for n, argument in enumerate(arguments):
            value = self._expand(argument, active, depth + 1)
            if n in chosen.evaluated:
                value = [str(self.evaluate("".join(value)))]
            if n in chosen.quoted:
                value = [quote("".join(value))]
            values.append(value)
        if chosen.function is not None:
            out += pieces(chosen.function(self, ["".join(value) for value in values]))
            return after
        body: list[str] = []
        for piece in chosen.body:
            body += values[piece] if isinstance(piece, int) else (piece,)
        names = {"%?": name, "%??": chosen.name}
        body = [names.get(piece, piece) for piece in body]
        if "%," in body:
            body = _with_commas(body)
        out += self._expand(body, active | {name}, depth + 1)
        return after


def _with_commas(body: list[str]) -> list[str]:
    """The pieces with ``%,`` a comma where anything but blanks follows it, else nothing."""
    out: list[str] = []
    follows = False
    for piece in reversed(body):
        if piece != "%,":
            follows |= not piece.isspace()
        elif follows:
            piece = ","
        else:
            continue
        out.append(piece)
    return out[::-1]


def _bracketed(parts: Sequence[str], at: int) -> tuple[list[str], int]:
    """The pieces up to the bracket that closes ``%[``, and where to go on."""
    depth = 1
    for n in range(at, len(parts)):
        if parts[n] in ("[", "%["):
            depth += 1
        elif parts[n] == "]":
            depth -= 1
            if not depth:
                return list(parts[at:n]), n + 1
    raise MacroError("unterminated %[ construct")


def _arguments(parts: Sequence[str], at: int, name: str) -> tuple[list[list[str]], int]:
    """The arguments of a call from behind its parenthesis, and where to go on."""
    arguments: list[list[str]] = [[]]
    depth = braces = 0
    while at < len(parts):
        part = parts[at]
        at += 1
        if braces:
            braces += (part == "{") - (part == "}")
            if not braces:
                continue
        elif part == "{":
            braces = 1
            continue
        elif part in ("(", "["):
            depth += 1
        elif part == "]":
            depth -= 1
        elif part == ")":
            if depth <= 0:
                return arguments, at
            depth -= 1
        elif part == "," and not depth:
            arguments.append([])
            continue
        elif part[0] == ";":
            break
        arguments[-1].append(part)
    raise MacroError(f"macro call `{name}' expects terminating `)'")


def _trim(argument: list[str]) -> list[str]:
    while argument and argument[0].isspace():
        argument = argument[1:]
    while argument and argument[-1].isspace():
        argument = argument[:-1]
    return argument


def _paste(parts: list[str]) -> str:
    """The text of pieces with what stands on both sides of ``%+`` joined."""
    out: list[str] = []
    joining = False
    for part in parts:
        if part == "%+":
            while out and out[-1].isspace():
                out.pop()
            joining = True
        elif joining and part.isspace():
            continue
        else:
            joining = False
            out.append(part)
    return "".join(out)


def quote(text: str) -> str:
    """The text as a string of the source, in the quotes that NASM gives it."""
    data = text.encode("utf-8", "surrogateescape")
    if all(0x20 <= byte <= 0x7E for byte in data):
        for mark in "'", '"':
            if mark not in text:
                return f"{mark}{text}{mark}"
    return f"`{''.join(map(_escaped, data, [*data[1:], 0]))}`"


_ESCAPES = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 27: "e", 0x5C: "\\", 0x60: "`"}


def _escaped(byte: int, following: int) -> str:
    """A byte as it stands between back quotes; its octal digits are all there if another might be read with them."""
    if byte in _ESCAPES:
        return f"\\{_ESCAPES[byte]}"
    if 0x20 <= byte <= 0x7E:
        return chr(byte)
    return f"\\{byte:03o}" if chr(following) in "01234567" else f"\\{byte:o}"
