"""The preprocessor: gives the assembler the lines that are left of includes, conditionals, macros and repetitions.

It works line by line beside the assembler, since conditions may ask where the assembler is. A line without a percent
sign and without a macro's name goes through untouched.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from asm import functions
from asm.expression import ExpressionError
from asm.macros import (
    Call,
    Context,
    Expander,
    Macro,
    MacroError,
    MultiLineMacro,
    pieces,
    quote,
    split_parameters,
    strip_comment,
)  # fmt: skip
from asm.nops import THRESHOLDS
from asm.parse import ParseError, TokenError
from asm.stackframe import StackFrame
from asm.tokens import MACRO, classify, split, unquote

if TYPE_CHECKING:
    from asm.assembler import Assembler
    from asm.options import Options

MAX_FRAMES = 500  # nested includes and macro calls
MAX_INCLUDES = 100
MAX_REPEAT = 1_000_000
MAX_LINES = 1_000_000  # with macros or directives that macros and %rep may make: beyond it is no source but a bomb


class SourceError(Exception):
    """A source that cannot be read on; the error has no line of its own."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class DirectiveError(Exception):
    """A preprocessor directive that is wrong. `word` is the token at fault."""

    def __init__(self, message: str, word: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.word = word


class Frame:
    """Lines being read: a file, a macro's body or a repetition's.

    kind: ``file``, ``macro`` or ``rep``. name: of the file the lines come from. first: number there of the first line.
    parent: the place of the include, call or %rep. call: whose parameters the lines may use.
    """

    __slots__ = (
        "call", "conditions", "first", "iterator", "kind", "lines", "lists", "name", "number", "parent", "remaining",
        "shift", "title",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        name: str,
        lines: list[str],
        parent: Place | None,
        first: int = 1,
        title: str = "",
        call: Call | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.lines = lines
        self.parent = parent
        self.first = first
        self.title = title
        self.call = call
        self.iterator = iter(lines)
        self.number = 0  # of the line read last, from 1
        self.remaining = 0  # repetitions to come
        self.conditions = 0  # how many %if were open when the frame was entered
        self.shift = 0  # what %line adds to line numbers
        self.lists = True

    def line(self, number: int) -> str:
        """The text of a line."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def number_of(self, number: int) -> int:
        """The line's number in the file."""
        return self.first + number - 1 + self.shift


Place: TypeAlias = tuple[Frame, int]


class Condition:
    """An open %if: whether its lines are read, whether a branch has been taken, whether %else has been."""

    __slots__ = ("emitting", "had_else", "place", "taken")

    def __init__(self, emitting: bool, taken: bool, place: Place) -> None:
        self.emitting = emitting
        self.taken = taken
        self.had_else = False
        self.place = place


DIRECTIVE = re.compile(r"\s*%([a-zA-Z]\w*)(?![\w.])")
BODY_END = {
    "macro": re.compile(r"\s*%(?:([ir]*macro)\b|(endm(?:acro)?)\b)", re.IGNORECASE),
    "rep": re.compile(r"\s*%(?:(rep)\b|(endrep)\b)", re.IGNORECASE),
}
NAME = re.compile(r"\s*(%\$+[\w.?@~#]+|[A-Za-z_.?@$][\w.$#@~?]*)")


class Preprocessor:
    """Iterating gives the lines to assemble; `tokens`, `shape` and `place` are those of the line given last.

    Args:
        assembler: asked for the values of expressions, told of errors.
        name, text: of the source.
        options: include path and definitions.
    """

    def __init__(self, assembler: Assembler, name: str, text: str, options: Options) -> None:
        self.assembler = assembler
        self.options = options
        self.kinds = assembler.kinds
        self.contexts: list[Context] = []
        self.frame = StackFrame()
        self.expander = Expander(self._evaluate, self.contexts)
        self.expander.environment = self.environment
        self.expander.functions = functions.PERCENT
        self.multi: dict[str, list[MultiLineMacro]] = {}
        self.multi_insensitive: dict[str, list[MultiLineMacro]] = {}
        self.conditions: list[Condition] = []
        self.emitting = True
        self.tokens: list[str] = []
        self.shape = ""
        self.raw = ""  # the line as it stands in the source, when it was given unchanged
        self.section_line = "[section .text]"
        self.calls = 0
        self.made_lines = 0
        self.dependencies: list[str] = []
        self.absent: set[str] = set()  # where files were looked for in vain
        self.volatile = False  # it asked for the time or the environment
        self.record: list[tuple[Place, str, int, int]] | None = [] if options.listing else None
        self.lists = True  # what [list +] and [list -] say
        self.frames = [Frame("file", name, source_lines(text), None)]
        self.place: Place = (self.frames[0], 0)
        self._predefine(name)
        for included in reversed(options.preinclude):
            try:
                with self.open(included) as file:
                    lines = source_lines(decode(file.read()))
            except OSError as error:
                raise SourceError(f"unable to open include file `{included}': {error.strerror}") from None
            self.frames.append(Frame("file", self.find(included), lines, None))

    # --- Reading ------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        plain = self.assembler.plain
        kind_of = self.kinds.__getitem__
        frames = self.frames
        while frames:
            frame = frames[-1]
            number = frame.number
            in_file = frame.kind == "file"
            iterator = frame.iterator
            for text in iterator:
                number += 1
                if self.emitting and self.record is None:
                    if text in plain:
                        self.place = (frame, number)
                        frame.number = number
                        yield text
                        continue
                    if "%" not in text:
                        tokens = split(text)
                        if tokens and not tokens[-1]:
                            tokens.pop()
                        if not tokens:
                            continue
                        shape = "".join(map(kind_of, tokens))
                        if MACRO not in shape:
                            self.tokens, self.shape, self.raw = tokens, shape, text
                            self.place = (frame, number)
                            frame.number = number
                            yield text
                            continue
                frame.number = number
                self.place = (frame, number)
                if not in_file:
                    self.made_lines += 1
                    if self.made_lines > MAX_LINES:
                        raise SourceError(f"macros and %rep make more than {MAX_LINES} lines")
                yield from self._slow(frame, text)
                if frames[-1] is not frame or frame.iterator is not iterator:
                    break
                number = frame.number
            else:
                if frames and frames[-1] is frame:
                    self._leave(frame)
        for condition in self.conditions:
            self.assembler.report("%if without %endif", place=condition.place)

    def _slow(self, frame: Frame, text: str) -> Iterator[str]:
        """Handles a line that may hold a directive or a macro, or that is skipped."""
        self._list(frame, text)
        expanded = text
        try:
            if "%" in text:
                if frame.call is not None and (self.emitting or text.lstrip()[:5].lower() == "%elif"):
                    expanded = frame.call.expand(text)
                match = DIRECTIVE.match(expanded)
                if match is not None and not (
                    expanded[match.end() : match.end() + 1] == "(" and match.group(1).lower() in functions.PERCENT
                ):
                    self._directive(match.group(1).lower(), expanded[match.end() :], frame, expanded)
                    return
            if not self.emitting:
                return
            self.tokens = tokens = split(expanded)
            if tokens and not tokens[-1]:
                tokens.pop()
            if not tokens:
                return
            shape = "".join(map(self.kinds.__getitem__, tokens))
            if MACRO in shape or "%" in expanded:
                expanded = self.expander.expand(strip_comment(expanded))
                if self._call(expanded):
                    return
                tokens = split(expanded)
                if not tokens:
                    return
                self.tokens = tokens
                shape = "".join(self._kind_of_plain(token) for token in tokens)
            self.shape, self.raw = shape, (text if expanded is text else "")
        except MacroError as error:
            self.assembler.report(str(error), place=self.place)
            return
        except DirectiveError as error:
            self.assembler.report(error.message, place=self.place, text=expanded, word=error.word)
            return
        except TokenError as error:
            self.assembler.report(error.message, place=self.place, text=expanded, word=error.text)
            return
        except ExpressionError as error:
            self.assembler.report(error.message, place=self.place, text=expanded, word=error.name)
            return
        except ParseError as error:
            self.assembler.report(error.message, place=self.place, text=expanded)
            return
        yield expanded

    def _kind_of_plain(self, token: str) -> str:
        """The kind of a token after expansion, when a macro's name is an ordinary one."""
        kind = self.kinds[token]
        if kind != MACRO:
            return kind
        return classify(token)

    def _list(self, frame: Frame, text: str) -> None:
        if self.record is None or text is CONTINUED or not self.lists or not frame.lists:
            return
        if frame.kind != "file":
            text = re.sub(r"%\{([^}]*)\}", r"%\1", "".join(" " if p.isspace() else p for p in pieces(text)))
        self.record.append((self.place, text, len(self.frames) - 1, len(self.assembler.items)))

    def _push(self, frame: Frame) -> None:
        if len(self.frames) >= MAX_FRAMES:
            raise SourceError(f"macros and includes nested more than {MAX_FRAMES} deep")
        frame.conditions = len(self.conditions)
        self.frames.append(frame)

    def count_calls(self, count: int) -> None:
        """Counts directives that are macros in NASM: the numbers in local labels' names come after them."""
        self.calls += count

    def _leave(self, frame: Frame) -> None:
        """The end of a frame: the next repetition, or back to where it was entered from."""
        if frame.remaining > 0:
            frame.remaining -= 1
            frame.iterator = iter(frame.lines)
            frame.number = 0
            self.made_lines += 1
            if self.made_lines > MAX_LINES:
                raise SourceError(f"macros and %rep make more than {MAX_LINES} lines")
            return
        self.frames.pop()
        if frame.kind == "macro" and frame.call is not None:
            frame.call.macro.active -= 1
        if frame.kind == "file":
            for condition in self.conditions[frame.conditions :]:
                self.assembler.report("%if without %endif", place=condition.place)
            self._truncate_conditions(frame.conditions)

    def open(self, name: str) -> IO[bytes]:
        """Opens a file for %include or incbin, on NASM's path: as named, then in each include directory.

        A file beside the one that names it is found too.

        Raises:
            OSError: there is none.
        """
        path = self.find(name)
        self.dependencies.append(path)
        return open(path, "rb")

    def find(self, name: str) -> str:
        """The path of a file on the include path; the name itself where it is nowhere."""
        here = next((f.name for f in reversed(self.frames) if f.kind == "file"), "")
        for folder in ("", *self.options.include, os.path.dirname(here)):
            path = os.path.join(folder, name) if folder else name
            if os.path.isfile(path):
                return path
            self.absent.add(path)
        return name

    def environment(self, name: str) -> str | None:
        """A variable of the environment."""
        self.volatile = True
        return os.environ.get(name)

    # --- Multi-line macros --------------------------------------------------------------------------------------------

    def _multi(self, name: str) -> list[MultiLineMacro] | None:
        found = self.multi.get(name)
        if found is None and self.multi_insensitive:
            found = self.multi_insensitive.get(name.lower())
        return found

    def _call(self, text: str) -> bool:
        """Enters a multi-line macro if the line calls one; a label before it is kept."""
        match = NAME.match(text)
        if match is None:
            return False
        label = ""
        choices = self._multi(match.group(1))
        rest = text[match.end() :]
        if choices is None:
            after = rest.lstrip()
            colon = after.startswith(":")
            label = match.group(1) + (":" if colon else "")
            match = NAME.match(after[1:] if colon else after)
            if match is None:
                return False
            choices = self._multi(match.group(1))
            if choices is None:
                return False
            rest = (after[1:] if colon else after)[match.end() :]
        elif rest[:1] == ":" or rest.lstrip().startswith(":"):
            return False
        name = match.group(1)
        rest = rest.strip()
        parameters = split_parameters(rest)
        macro = next((m for m in choices if m.takes(len(parameters))), None)
        if macro is None:
            plural = "" if len(parameters) == 1 else "s"
            self.assembler.report(
                f"multi-line macro `{name}' exists, but not taking {len(parameters)} parameter{plural}",
                "warning", place=self.place, text=text, word=name, warning="macro-params-multi",
            )  # fmt: skip
            return False
        if macro.active and not macro.recursive:
            return False
        if rest.endswith(",") and parameters and not parameters[-1]:
            self.assembler.report(
                f"dropping trailing empty parameter in call to multi-line macro `{name}'", "warning",
                place=self.place, text=text, word=name, warning="pp-macro-params-legacy",
            )  # fmt: skip
            rest = rest[:-1]
            parameters.pop()
        if macro.greedy and len(parameters) > macro.most:
            parameters = split_parameters(rest, int(macro.most))
        elif len(parameters) < macro.most:
            missing = len(parameters) - macro.least
            if missing >= 0:
                parameters += macro.defaults[missing : int(min(macro.most, 10_000)) - macro.least]
        call = Call(macro, parameters, self.calls, label.rstrip(":"))
        self.calls += 1
        body = macro.body
        if label and not macro.uses_label:
            self.tokens, self.shape = [label.rstrip(":"), ":"], "i:"
            self.assembler.place = self.place
            if self.record is not None:
                shown = label + " " if label.endswith(":") else label + " :"
                self.record.append((self.place, shown, len(self.frames), len(self.assembler.items)))
            self.assembler.line(self.tokens, self.shape, label)
        frame = Frame("macro", macro.file, body, self.place, macro.first, f"macro `{macro.name}'", call)
        self._push(frame)
        macro.active += 1
        return True

    # --- Directives ---------------------------------------------------------------------------------------------------

    def _directive(self, name: str, rest: str, frame: Frame, text: str) -> None:
        """Carries out a directive.

        Args:
            name: in lower case. rest: the line behind it.
        """
        if name.startswith(("if", "elif")) or name in ("else", "endif"):
            self._conditional(name, rest)
            return
        if not self.emitting:
            if name in ("rep", "macro", "imacro", "rmacro", "irmacro"):
                self._skip_body(frame, "rep" if name == "rep" else "macro")
            return
        if name in ("macro", "imacro", "rmacro", "irmacro"):
            self._define_multi(name, rest, frame)
            return
        if name == "rep":
            self._repeat(rest, frame)
            return
        handler = _DIRECTIVES.get(name)
        if handler is None:
            from asm.diagnostics import did_you_mean

            hint = did_you_mean(name, [*_DIRECTIVES, "macro", "rep", "if", "elif", "else", "endif"])
            raise DirectiveError(f"unknown preprocessor directive `%{name}'{hint}")
        if "%[" in rest:
            rest = self._indirect(rest)
        handler(self, rest)

    def _indirect(self, text: str) -> str:
        """Text with its %[...] expanded, and nothing else."""
        out, parts = [], pieces(text)
        at = 0
        while at < len(parts):
            if parts[at] != "%[":
                out.append(parts[at])
                at += 1
                continue
            depth, end = 1, at + 1
            while end < len(parts) and depth:
                depth += (parts[end] in ("[", "%[")) - (parts[end] == "]")
                end += 1
            out.append(self.expander.expand("".join(parts[at:end])))
            at = end
        return "".join(out)

    def _body(self, frame: Frame, kind: str) -> list[str]:
        """Reads the lines up to the end of a macro or a repetition.

        Raises:
            DirectiveError: there is no end.
        """
        pattern = BODY_END[kind]
        depth = 1
        lines: list[str] = []
        place = self.place
        for text in frame.iterator:
            frame.number += 1
            if self.record is not None:
                self.place = (frame, frame.number)
                self._list(frame, text)
            if "%" in text:
                match = pattern.match(text)
                if match is not None:
                    depth += 1 if match.group(1) else -1
                    if not depth:
                        self.place = place
                        return lines
            lines.append(text)
        self.place = place
        raise DirectiveError(f"%{kind} without %end{kind}")

    def _skip_body(self, frame: Frame, kind: str) -> None:
        """Passes over the body of a macro or a repetition in lines that are not read; %if in it counts on."""
        del frame, kind  # conditionals inside are balanced by themselves, so nothing needs to be done

    def _define_multi(self, directive: str, rest: str, frame: Frame) -> None:
        place = self.place
        first = frame.number_of(frame.number) + 1
        if not rest.strip():
            raise DirectiveError(f"`%{directive}' expects a macro name")
        body = self._body(frame, "macro")
        match = re.match(
            r"\s*(\S+?)(?:\s+([0-9]+)(?:-([0-9]+|\*))?(\+)?((?:\.nolist)?)(?![\w.])\s*(.*))?$", strip_comment(rest)
        )
        if match is None or (match.group(2) is None and not NAME.fullmatch(match.group(1))):
            raise DirectiveError(f"%{directive} wants a name and a number of parameters")
        name, least, most, greedy, nolist, defaults = match.groups()
        macro = MultiLineMacro(name)
        macro.least = int(least or 0)
        macro.most = float("inf") if most == "*" else int(most or least or 0)
        if macro.most < macro.least:
            self.assembler.report("minimum parameter count exceeds maximum", place=place)
            return
        macro.greedy = bool(greedy)
        macro.lists = not nolist
        macro.defaults = split_parameters(defaults or "")
        macro.insensitive = "i" in directive[:2]
        macro.recursive = directive.startswith(("r", "ir"))
        macro.body = body
        macro.file = next((f.name for f in reversed(self.frames) if f.kind == "file"), frame.name)
        if frame.kind != "file":
            macro.file = frame.name
        macro.first = first
        macro.uses_label = any("%00" in line or "%{00}" in line for line in body)
        table = self.multi_insensitive if macro.insensitive else self.multi
        others = table.setdefault(name.lower() if macro.insensitive else name, [])
        for other in others:
            if other.least <= macro.most and macro.least <= other.most:
                if other.least == macro.least and other.most == macro.most:
                    self.assembler.report(f"redefining multi-line macro `{name}'", "warning", place=place,
                                          warning="macro-redefined")  # fmt: skip
                    others.remove(other)
                break
        others.insert(0, macro) if not others else others.append(macro)
        self._mark(name, macro.insensitive)

    def _mark(self, name: str, insensitive: bool) -> None:
        """Makes lines that hold a name come to the preprocessor's attention."""
        if self.kinds.define(name, insensitive):
            self.assembler.plain.clear()

    def _repeat(self, rest: str, frame: Frame) -> None:
        place = self.place
        body_first = frame.number_of(frame.number) + 1
        count = self._evaluate(rest)
        body = self._body(frame, "rep")
        if count > MAX_REPEAT:
            raise DirectiveError(f"`%rep' count {count} exceeds limit ({MAX_REPEAT})")
        if count < 0:
            self.assembler.report(f"negative `%rep' count: {count}", "warning", place=place, warning="negative-rep")
        if count <= 0:
            return
        repetition = Frame("rep", frame.name, body, place, body_first, "%rep", frame.call)
        repetition.remaining = count - 1
        self._push(repetition)

    def _evaluate(self, text: str) -> int:
        """The value of an expression in a directive.

        Raises:
            DirectiveError, ParseError, TokenError, ExpressionError, MacroError: there is none.
        """
        text = self.expander.expand(strip_comment(text))
        tokens = [token for token in split(text) if token]
        if not tokens:
            raise DirectiveError("an expression is wanted")
        return self.assembler.evaluate_now(tokens, "".join(map(self._kind_of_plain, tokens)))

    # --- Conditionals -------------------------------------------------------------------------------------------------

    def _conditional(self, name: str, rest: str) -> None:
        outer = self.conditions[-2].emitting if len(self.conditions) > 1 else True
        if name == "endif":
            if not self.conditions:
                raise DirectiveError("`%endif': no matching `%if'")
            self._truncate_conditions(len(self.conditions) - 1)
        elif name.startswith("if"):
            value = self.emitting and self._safe_condition(name[2:], rest)
            self.conditions.append(Condition(value, value or not self.emitting, self.place))
            self.emitting = value
        elif not self.conditions:
            raise DirectiveError(f"`%{name}': no matching `%if'")
        elif self.conditions[-1].had_else:
            raise DirectiveError(f"`%{name}' after `%else'")
        else:
            condition = self.conditions[-1]
            if name == "else":
                condition.had_else = True
                condition.emitting = outer and not condition.taken
            elif condition.taken or not outer:
                condition.emitting = False
            else:
                condition.emitting = self._safe_condition(name[4:], rest)
            condition.taken |= condition.emitting
            self.emitting = condition.emitting

    def _truncate_conditions(self, count: int) -> None:
        del self.conditions[count:]
        self.emitting = self.conditions[-1].emitting if self.conditions else True

    def _safe_condition(self, name: str, rest: str) -> bool:
        """The truth of a condition; one that is wrong is reported and counts as false, so that %endif finds its %if."""
        try:
            return self._condition(name, strip_comment(rest).strip())
        except (MacroError, DirectiveError, ParseError, TokenError, ExpressionError) as error:
            word = getattr(error, "name", "") or getattr(error, "text", "")
            self.assembler.report(getattr(error, "message", str(error)), place=self.place, text=None, word=word)
            return False

    def _condition(self, name: str, text: str) -> bool:
        if name == "":
            return bool(self._evaluate(text))
        if name == "n":
            return not self._evaluate(text)
        negative = name.startswith("n") and name != "num"
        test = _CONDITIONS.get(name[1:] if negative else name)
        if test is None:
            raise DirectiveError(f"unknown preprocessor directive `%if{name}'")
        return bool(test(self, text)) != negative

    def _if_defined(self, text: str) -> bool:
        for name in text.split():
            if name.startswith("%$"):
                context, bare = self.expander.context_name(name)
                if bare in context.macros:
                    return True
            elif name.startswith("%!"):
                if self.environment(name[2:].strip("'\"")) is not None:
                    return True
            elif self.expander.lookup(name) is not None:
                return True
        return False

    def _if_macro(self, text: str) -> bool:
        name, _, counts = text.partition(" ")
        choices = self._multi(name) or []
        if not counts.strip():
            return bool(choices)
        match = re.fullmatch(r"(\d+)(?:-(\d+|\*))?(\+)?", counts.strip())
        if match is None:
            raise DirectiveError("%ifmacro wants a name and a number of parameters")
        least = int(match.group(1))
        most = float("inf") if match.group(2) == "*" or match.group(3) else int(match.group(2) or least)
        return any(m.least <= most and (least <= m.most or m.greedy) for m in choices)

    def _if_identical(self, text: str, fold: bool = False) -> bool:
        out: list[list[str]] = [[]]
        parts = pieces(self.expander.expand(text))
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

    def _significant(self, text: str) -> list[str]:
        return [piece for piece in pieces(self.expander.expand(text)) if not piece.isspace()]

    def _if_identifier(self, text: str) -> bool:
        parts = self._significant(text)
        return bool(parts) and NAME.fullmatch(parts[0]) is not None and parts[0] not in ("$", "$$")

    def _if_number(self, text: str) -> bool:
        parts = self._significant(text)
        if parts[:1] in (["-"], ["+"]):
            parts = parts[1:]
        return bool(parts) and (_is_number(parts[0]) or (parts[0][0] == "$" and parts[0][1:2].isdigit()))

    def _if_string(self, text: str) -> bool:
        parts = self._significant(text)
        return bool(parts) and parts[0][0] in "'\"`" and len(parts[0]) > 1

    # --- Single-line macros -------------------------------------------------------------------------------------------

    def _split_name(self, rest: str) -> tuple[str, str]:
        """The name that a directive defines and what follows it.

        Raises:
            DirectiveError: there is no name.
        """
        match = NAME.match(rest)
        if match is None:
            raise DirectiveError("a macro's name is wanted")
        return match.group(1), rest[match.end() :]

    def define(self, macro: Macro) -> None:
        """Adds a single-line macro; one of the same name and number of parameters is replaced.

        Raises:
            MacroError: there is one with parameters where this has none, or the reverse.
        """
        name = macro.name
        if name.startswith("%$"):
            context, bare = self.expander.context_name(name)
            table, key = context.macros, bare
        else:
            table = self.expander.insensitive if macro.insensitive else self.expander.macros
            key = name.lower() if macro.insensitive else name
        others = table.get(key)
        if others is None:
            table[key] = [macro]
            if name[0] != "%":
                self._mark(name, macro.insensitive)
            return
        if any((other.parameters is None) != (macro.parameters is None) for other in others):
            raise MacroError(f"macro `{name}' defined both with and without parameters")
        others[:] = [other for other in others if other.arity != macro.arity or other.greedy != macro.greedy]
        others.append(macro)

    def _define(self, rest: str, insensitive: bool = False, expand: bool = False) -> None:
        name, rest = self._split_name(strip_comment(rest))
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
            body_text = self.expander.expand(body_text)
        places = {parameter: n for n, parameter in enumerate(parameters or []) if parameter}
        body: list[str | int] = [places.get(piece, piece) for piece in pieces(body_text)]
        macro = Macro(
            name, body, parameters, insensitive=insensitive, greedy=greedy, evaluated=frozenset(evaluated),
            quoted=frozenset(quoted),
        )  # fmt: skip
        self.define(macro)

    def _undefine(self, rest: str) -> None:
        name, _ = self._split_name(rest)
        self.undefine(name)

    def undefine(self, name: str) -> None:
        """Forgets the single-line macros of a name."""
        if name.startswith("%$"):
            context, bare = self.expander.context_name(name)
            context.macros.pop(bare, None)
            return
        if self.expander.macros.pop(name, None) and name not in self.multi:
            self.kinds.undefine(name)
        lower = name.lower()
        if self.expander.insensitive.pop(lower, None) and lower not in self.multi_insensitive:
            self.kinds.undefine(name, True)

    def _assign(self, rest: str, insensitive: bool = False) -> None:
        name, rest = self._split_name(rest)
        self._set(name, str(self._evaluate(rest)), insensitive)

    def _set(self, name: str, text: str, insensitive: bool = False) -> None:
        """Defines a macro as the result of a directive."""
        self.define(Macro(name, pieces(text), insensitive=insensitive))

    def _string_argument(self, text: str) -> str:
        """The one string that a directive's operand expands to."""
        parts = self._significant(text)
        if len(parts) != 1 or parts[0][0] not in "'\"`" or len(parts[0]) < 2:
            raise DirectiveError("a string is wanted", parts[0] if parts else "")
        return unquote(parts[0])

    def _strlen(self, rest: str) -> None:
        name, rest = self._split_name(strip_comment(rest))
        self._set(name, str(len(self._string_argument(rest).encode("utf-8", "surrogateescape"))))

    def _substr(self, rest: str) -> None:
        name, rest = self._split_name(strip_comment(rest))
        text = self.expander.expand(rest).strip()
        parts = pieces(text)
        if not parts or parts[0][0] not in "'\"`" or len(parts[0]) < 2:
            raise DirectiveError("`%substr' wants a string", parts[0] if parts else "")
        rest = "".join(parts[1:]).strip().removeprefix(",").strip()
        start_text, comma, count_text = rest.partition(",")
        start = self._evaluate(start_text)
        count = self._evaluate(count_text) if comma else 1
        self._set(name, quote(functions.substring(unquote(parts[0]), start, count)))

    def _strcat(self, rest: str) -> None:
        name, rest = self._split_name(strip_comment(rest))
        strings = []
        for piece in self._significant(rest):
            if piece[0] in "'\"`" and len(piece) > 1:
                strings.append(unquote(piece))
            elif piece != ",":
                raise DirectiveError("`%strcat' joins strings only", piece)
        self._set(name, quote("".join(strings)))

    def _defstr(self, rest: str, insensitive: bool = False) -> None:
        name, rest = self._split_name(strip_comment(rest))
        self._set(name, quote(self.expander.expand(rest.strip())), insensitive)

    def _deftok(self, rest: str, insensitive: bool = False) -> None:
        name, rest = self._split_name(strip_comment(rest))
        self._set(name, self._string_argument(rest), insensitive)

    def _pathsearch(self, rest: str) -> None:
        name, rest = self._split_name(strip_comment(rest))
        self._set(name, quote(self.find(self._string_argument(rest))))

    # --- The other directives -----------------------------------------------------------------------------------------

    def _include(self, rest: str) -> None:
        text = self.expander.expand(strip_comment(rest)).strip()
        name = unquote(text) if text[:1] in ("'", '"', "`") and len(text) > 1 else ""
        if not name:
            raise DirectiveError("`%include' expects a file name")
        if sum(frame.kind == "file" for frame in self.frames) > MAX_INCLUDES:
            raise SourceError(f"includes nested more than {MAX_INCLUDES} deep")
        try:
            with self.open(name) as file:
                data = file.read()
        except OSError as error:
            raise DirectiveError(f"unable to open include file `{name}': {error.strerror}", text) from None
        self._push(Frame("file", self.find(name), source_lines(decode(data)), self.place))

    def _message(self, rest: str) -> str:
        text = strip_comment(rest).strip()
        text = self.expander.expand(text) if text[:1] not in ("'", '"', "`") else text
        parts = [piece for piece in pieces(text) if not piece.isspace()]
        return unquote(text) if len(parts) == 1 and text[:1] in ("'", '"', "`") and len(text) > 1 else text

    def _error(self, rest: str) -> None:
        self.assembler.report(self._message(rest), place=self.place)

    def _warning(self, rest: str) -> None:
        self.assembler.report(self._message(rest), "warning", place=self.place, warning="user")

    def _fatal(self, rest: str) -> None:
        self.assembler.report(self._message(rest), "fatal", place=self.place)

    def _rotate(self, rest: str) -> None:
        call = next((frame.call for frame in reversed(self.frames) if frame.call is not None), None)
        if call is None:
            raise DirectiveError("`%rotate' outside of a macro")
        count = self._evaluate(rest)
        if call.parameters:
            call.rotation = (call.rotation + count) % len(call.parameters)

    def _exit(self, kind: str) -> None:
        """Leaves the innermost macro or repetition at once."""
        at = next((n for n in range(len(self.frames) - 1, -1, -1) if self.frames[n].kind == kind), None)
        if at is None:
            raise DirectiveError(f"`%exit{kind}' not within `%{kind}'")
        self._truncate_conditions(self.frames[at].conditions)
        if kind == "rep" and self.record is not None:  # NASM lists what it passes over
            for frame in reversed(self.frames[at:]):
                for number in range(frame.number + 1, len(frame.lines) + 1):
                    self.place = (frame, number)
                    self._list(frame, frame.lines[number - 1])
        for frame in self.frames[at:]:
            frame.iterator = iter(())
            frame.remaining = 0

    def _push_context(self, rest: str) -> None:
        self.contexts.append(Context(self.expander.expand(strip_comment(rest)).strip(), self.calls))
        self.calls += 1

    def _pop_context(self, rest: str) -> None:
        name = strip_comment(rest).strip()
        if not self.contexts:
            raise DirectiveError("`%pop': context stack is already empty")
        if name and self.contexts[-1].name.lower() != name.lower():
            raise DirectiveError(f"`%pop' in wrong context: {self.contexts[-1].name}, expected {name}", name)
        self.contexts.pop()

    def _replace_context(self, rest: str) -> None:
        if not self.contexts:
            raise DirectiveError("`%repl': context stack is empty")
        self.contexts[-1].name = strip_comment(rest).strip()

    def _unmacro(self, rest: str, insensitive: bool = False) -> None:
        name, counts = self._split_name(strip_comment(rest))
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+|\*))?(\+)?\s*", counts)
        if match is None:
            raise DirectiveError("%unmacro wants a name and a number of parameters")
        least = int(match.group(1))
        most = float("inf") if match.group(2) == "*" else int(match.group(2) or least)
        table = self.multi_insensitive if insensitive else self.multi
        key = name.lower() if insensitive else name
        left = [m for m in table.get(key, []) if (m.least, m.most, m.greedy) != (least, most, bool(match.group(3)))]
        if left:
            table[key] = left
        elif table.pop(key, None):
            self.kinds.undefine(name, insensitive)

    def _clear(self, rest: str) -> None:
        for name in list(self.expander.macros):
            self.undefine(name)

    def _line(self, rest: str) -> None:
        match = re.fullmatch(r"\s*(\d+)(?:\+(\d+))?(?:\s+(.*))?", strip_comment(rest))
        if match is None:
            raise DirectiveError("`%line' wants a line number, maybe an increment, and a file name")
        frame = next(f for f in reversed(self.frames) if f.kind == "file")
        frame.shift = int(match.group(1)) - frame.number - 1
        if match.group(3):
            frame.name = match.group(3).strip().strip('"')

    def _stacksize(self, rest: str) -> None:
        try:
            self.frame.choose(strip_comment(rest).strip().lower())
        except ValueError as error:
            raise DirectiveError(str(error)) from None

    def _arg(self, rest: str) -> None:
        try:
            for name, address in self.frame.arguments(strip_comment(rest)):
                self._set(name, address)
        except ValueError as error:
            raise DirectiveError(str(error)) from None

    def _local(self, rest: str) -> None:
        before = self.frame.locals_size
        try:
            for name, address in self.frame.variables(strip_comment(rest)):
                self._set(name, address)
        except ValueError as error:
            raise DirectiveError(str(error)) from None
        self._assign(f"%$localsize %$localsize + {self.frame.locals_size - before}")

    def _use(self, rest: str) -> None:
        name = self._message(rest).lower()
        if name not in USE_PACKAGES:
            raise DirectiveError(f"unknown `%use' package: `{name}'", name)
        if name == "smartalign":
            self.assembler.align_mode = "generic", THRESHOLDS["generic"]
        if name == "ifunc":
            for spelling, function in functions.LOGARITHMS.items():
                self.define(Macro(spelling, parameters=["x"], function=function))
        text = USE_PACKAGES[name]
        if text:
            frame = Frame("file", f"<{name}>", source_lines(text), self.place)
            frame.lists = False
            self._push(frame)

    def _ignore(self, rest: str) -> None:
        """``%pragma`` and ``%depend`` change no bytes."""

    # --- What is predefined -------------------------------------------------------------------------------------------

    def _predefine(self, name: str) -> None:
        options = self.options

        def clock(form: str, universal: bool = False) -> Callable[[], str]:
            def now() -> str:
                self.volatile = True
                return time.strftime(form, time.gmtime() if universal else time.localtime())

            return now

        live: dict[str, Callable[[], str]] = {
            "FILE": lambda: quote(next(f.name for f in reversed(self.frames) if f.kind == "file")),
            "LINE": lambda: str(self._source_line()),
            "BITS": lambda: str(self.assembler.mode.bits),
            "SECT": lambda: self.section_line,
            "PASS": lambda: "2",
            "DATE": clock("'%Y-%m-%d'"),
            "TIME": clock("'%H:%M:%S'"),
            "DATE_NUM": clock("%Y%m%d"),
            "TIME_NUM": clock("%H%M%S"),
            "UTC_DATE": clock("'%Y-%m-%d'", True),
            "UTC_TIME": clock("'%H:%M:%S'", True),
            "UTC_DATE_NUM": clock("%Y%m%d", True),
            "UTC_TIME_NUM": clock("%H%M%S", True),
            "POSIX_TIME": clock("%s"),
        }
        texts: dict[str, str] = {
            "NASM_MAJOR": "2", "NASM_MINOR": "16", "NASM_SUBMINOR": "1", "NASM_PATCHLEVEL": "0",
            "NASM_VERSION_ID": "34603264", "NASM_VER": "'2.16.01'", "OUTPUT_FORMAT": options.output_format,
            "DEBUG_FORMAT": "null",
        }  # fmt: skip
        table = self.expander.macros
        for word, text_of in live.items():
            for spelling in (f"__?{word}?__", f"__{word}__"):
                table[spelling] = [Macro(spelling, function=_constant_function(text_of))]
        for spelling, function in functions.NAMED.items():
            table[spelling] = [Macro(spelling, parameters=["x"], function=function)]
        for word, text in texts.items():
            for spelling in (f"__?{word}?__", f"__{word}__"):
                table[spelling] = [Macro(spelling, (text,))]
        table["_NASM_"] = [Macro("_NASM_", ("1",))]
        self.kinds.macros.update(table)
        for key, value in options.defines:
            self._define(f"{key} {value if value is not None else ''}")
        for key in options.undefines:
            self.undefine(key)

    def _source_line(self) -> int:
        """The line that is being read, where it stands in its file."""
        frame = self.frames[-1]
        return frame.number_of(frame.number)


def _is_number(text: str) -> bool:
    return text[0].isdigit() and classify(text) == "n"


CONTINUED = " " * 3  # stands for a line that has been joined to the one above; told apart by identity


def _constant_function(text_of: Callable[[], str]) -> functions.Function:
    return lambda evaluate, arguments: text_of()


def decode(data: bytes) -> str:
    """A source file's text; bytes that are no UTF-8 survive into strings unchanged."""
    return data.decode("utf-8", "surrogateescape")


def source_lines(text: str) -> list[str]:
    """The lines of a source; one that ends in a backslash goes on with the next, and fillers keep the count."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    if "\\\n" not in text:
        return lines
    result: list[str] = []
    at = 0
    while at < len(lines):
        line, more = lines[at], 0
        while line.endswith("\\") and at + more + 1 < len(lines):
            more += 1
            line = line[:-1] + lines[at + more]
        result += [line, *[CONTINUED] * more]
        at += more + 1
    return result


USE_PACKAGES: dict[str, str] = {
    "ifunc": "",
    "smartalign": "",
    "fp": "\n".join(f"%define {name.strip('_?')}(x) {name}(x)" for name in functions.FLOATS),
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

_DIRECTIVES: dict[str, Any] = {
    "define": Preprocessor._define,
    "idefine": lambda self, rest: self._define(rest, insensitive=True),
    "xdefine": lambda self, rest: self._define(rest, expand=True),
    "ixdefine": lambda self, rest: self._define(rest, insensitive=True, expand=True),
    "undef": Preprocessor._undefine,
    "assign": Preprocessor._assign,
    "iassign": lambda self, rest: self._assign(rest, True),
    "strlen": Preprocessor._strlen,
    "substr": Preprocessor._substr,
    "strcat": Preprocessor._strcat,
    "defstr": Preprocessor._defstr,
    "idefstr": lambda self, rest: self._defstr(rest, True),
    "deftok": Preprocessor._deftok,
    "ideftok": lambda self, rest: self._deftok(rest, True),
    "pathsearch": Preprocessor._pathsearch,
    "include": Preprocessor._include,
    "error": Preprocessor._error,
    "warning": Preprocessor._warning,
    "fatal": Preprocessor._fatal,
    "rotate": Preprocessor._rotate,
    "exitrep": lambda self, rest: self._exit("rep"),
    "exitmacro": lambda self, rest: self._exit("macro"),
    "push": Preprocessor._push_context,
    "pop": Preprocessor._pop_context,
    "repl": Preprocessor._replace_context,
    "unmacro": Preprocessor._unmacro,
    "unimacro": lambda self, rest: self._unmacro(rest, True),
    "clear": Preprocessor._clear,
    "line": Preprocessor._line,
    "stacksize": Preprocessor._stacksize,
    "arg": Preprocessor._arg,
    "local": Preprocessor._local,
    "use": Preprocessor._use,
    "pragma": Preprocessor._ignore,
    "depend": Preprocessor._ignore,
}


def _orphan(directive: str) -> Any:
    def handler(self: Preprocessor, rest: str) -> None:
        raise DirectiveError(f"`%{directive}': no matching `%{directive.removeprefix('end')}'")

    return handler


_DIRECTIVES.update({name: _orphan(name) for name in ("endmacro", "endm", "endrep")})

_CONDITIONS: dict[str, Any] = {
    "def": Preprocessor._if_defined,
    "macro": Preprocessor._if_macro,
    "idn": Preprocessor._if_identical,
    "idni": lambda self, text: self._if_identical(text, True),
    "id": Preprocessor._if_identifier,
    "num": Preprocessor._if_number,
    "str": Preprocessor._if_string,
    "empty": lambda self, text: not self._significant(text),
    "token": lambda self, text: len(self._significant(text)) == 1,
    "ctx": lambda self, text: bool(self.contexts) and self.contexts[-1].name.lower() in text.lower().split(),
    "env": lambda self, text: self.environment(text.removeprefix("%!").strip("'\"")) is not None,
}


__all__ = ["Frame", "Place", "Preprocessor", "Sequence", "SourceError", "decode", "source_lines"]
