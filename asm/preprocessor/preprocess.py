"""The preprocessor: gives the assembler the lines that are left of includes, conditionals, macros and repetitions.

It works line by line beside the assembler, since conditions may ask where the assembler is. A line without a percent
sign and without a macro's name goes through untouched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from asm.expression import ExpressionError
from asm.names import with_names
from asm.parse import ParseError, TokenError
from asm.preprocessor import functions
from asm.preprocessor.conditions import CONDITIONS
from asm.preprocessor.frames import (
    CONTINUED,
    Condition,
    DirectiveError,
    Frame,
    Place,
    SourceError,
    decode,
    source_lines,
)
from asm.preprocessor.macros import (
    NAME,
    Call,
    Context,
    Expander,
    Macro,
    MacroError,
    MultiLineMacro,
    open_quote,
    pieces,
    split_parameters,
    strip_comment,
)  # fmt: skip
from asm.preprocessor.percent_directives import DIRECTIVES
from asm.preprocessor.predefined import predefine
from asm.preprocessor.stackframe import StackFrame
from asm.preprocessor.standard_macros import standard_macros
from asm.tokens import MACRO, classify, split, unquote

if TYPE_CHECKING:
    from asm.assembler import Assembler
    from asm.options import Options

HIDDEN = -1  # the depth of what is not in the listing
MAX_FRAMES = 500  # nested includes and macro calls
MAX_REPEAT = 1_000_000
MAX_PARAMETERS = (1 << 31) - 1  # of a macro, where its count is one of NASM's integers
MAX_LINES = 20_000_000  # with macros or directives that macros and %rep may make: beyond it is no source but a bomb


# A name that a directive defines; one of several parts is put together from what they expand to.
NAME_OF_PARTS = re.compile(
    with_names(r"\s*((?:%\{\$+<name>+\}|%\$+<name>+|%[A-Za-z_]\w*|<name$>+)+)")
)
DIRECTIVE = re.compile(r"\s*%([a-zA-Z]\w*)(?![\w.])")
BODY_END = {
    "macro": re.compile(r"\s*%(?:([ir]*macro)\b|(endm(?:acro)?)\b)", re.IGNORECASE),
    "rep": re.compile(r"\s*%(?:(rep)\b|(endrep)\b)", re.IGNORECASE),
}


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
        self.expander = Expander(self.evaluate, self.contexts)
        self.expander.environment = self.environment
        self.expander.warn = lambda name, message: assembler.report(message, "warning", self.place, warning=name)
        self.expander.functions = functions.PERCENT
        self.expander.condition = self._condition
        self.used: set[str] = set()  # the packages of %use
        self.multi: dict[str, list[MultiLineMacro]] = {}
        self.multi_insensitive: dict[str, list[MultiLineMacro]] = {}
        self.conditions: list[Condition] = []
        self.emitting = True
        self.tokens: list[str] = []
        self.shape = ""
        self.raw = ""  # the line as it stands in the source, when it was given unchanged
        self.names_macro = False  # the line given last has the name of a macro in it that it does not call
        self.sane_empty_expansion = False  # what a %pragma preproc says of empty parameters
        self.section_line = "[section .text]"
        self.calls = 0
        self.definitions = 0  # of single-line macros
        self.made_lines = 0
        self.dependencies: list[str] = []
        self.absent: set[str] = set()  # where files were looked for in vain
        self.limits = dict(options.limits)
        self.volatile = False  # it asked for the time or the environment
        self.record = assembler.record
        self.listing_flags = set(options.listing_flags)
        self.verbatim = options.preprocess_only
        self.functions = {name: [Macro(name, parameters=["x"], function=f)] for name, f in functions.NAMED.items()}
        self.made: list[str] = []  # lines that a directive or the label before a call leaves, in -E
        self.lists = True  # what [list +] and [list -] say
        source = Frame("file", name, source_lines(text), None)
        self.frames = [source]
        self.place: Place = (source, 0)
        predefine(self, name)
        if self.verbatim:
            self.frames = [Frame("file", "<standard>", standard_macros(assembler.format.has_origin), None)]
            for _ in self:  # it gives no line
                pass
            self.frames = [source]
        if options.before:
            self.frames.append(Frame("file", "<command line>", options.before, None))
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
                if self.emitting and self.record is None and not self.verbatim:
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
                        self._refuse_more_lines()
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
        self.list_line(frame, text)
        if self.verbatim:
            text = strip_comment(text).rstrip() if text is not CONTINUED else text
        expanded = text
        try:
            if text[:1] == "#":  # as the C preprocessor spells %line
                DIRECTIVES["line"](self, text[1:])
                return
            if "%" in text:
                if frame.call is not None and (self.emitting or text.lstrip()[:5].lower() == "%elif"):
                    expanded = frame.call.expand(strip_comment(text).rstrip())
                match = DIRECTIVE.match(expanded)
                if match is not None and not (
                    expanded[match.end() : match.end() + 1] == "(" and match.group(1).lower() in functions.PERCENT
                ):
                    self._directive(match.group(1).lower(), expanded[match.end() :], frame, expanded)
                    yield from self._left_behind()
                    return
            if not self.emitting:
                return
            self.tokens = tokens = split(expanded)
            if tokens and not tokens[-1]:
                tokens.pop()
            if not tokens:
                if self.verbatim and text is not CONTINUED:
                    yield ""
                return
            shape = "".join(map(self.kinds.__getitem__, tokens))
            if MACRO in shape or "%" in expanded:
                # Blanks at the end of a macro's line are those of an empty parameter, and count as one.
                called = strip_comment(text).rstrip() if expanded is text else expanded
                if "%[" in called:  # what it gives grows together with what stands beside it, and is expanded again
                    called = self._indirect(called)
                expanded = self.expander.expand(called)
                if self._call(expanded, called):
                    yield from self._left_behind()
                    return
                tokens = split(expanded)
                if not any(tokens):
                    if self.verbatim:
                        yield expanded
                    return
                self.tokens = tokens
                shape = "".join(map(self.kinds.__getitem__, tokens))
                if MACRO in shape:  # that of a macro that does not take it: what is made of it holds for now
                    self.names_macro = True
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
        if "e" in self.listing_flags and not {"d", "B"}.intersection(self.shape[:1] + self.shape[2:3]):
            # What is a directive here is to NASM a macro with .nolist.
            shown = "".join(" " if piece.isspace() else piece for piece in pieces(strip_comment(expanded).rstrip()))
            self.list_remark("e", shown)
        yield expanded
        self.names_macro = False

    def _left_behind(self) -> list[str]:
        made, self.made = self.made, []
        return made

    def _kind_of_plain(self, token: str) -> str:
        """The kind of a token after expansion, when a macro's name is an ordinary one."""
        kind = self.kinds[token]
        if kind != MACRO:
            return kind
        return classify(token)

    def list_line(self, frame: Frame, text: str) -> None:
        """Adds a line of the source to the listing."""
        if self.record is None or text is CONTINUED or not self._is_listed(frame):
            return
        if frame.kind != "file":
            text = strip_comment(text).rstrip()
            if "%!" in text:
                text = "".join(p if p[:2] != "%!" else self.expander.variable(p, quiet=True) for p in pieces(text))
            text = re.sub(r"%\{([^}]*)\}", r"%\1", "".join(" " if p.isspace() else p for p in pieces(text)))
        self._list(text)

    def list_remark(self, flag: str, text: str) -> None:
        """Adds what a letter of -L asks for."""
        if self.record is not None and flag in self.listing_flags and self._is_listed(self.frames[-1]):
            self._list(f" ;;; {text}")

    def _list(self, text: str, depth: int = -1) -> None:
        if self.record is not None:
            frame, number = self.place
            row = frame.number_of(number), text, len(self.frames) + depth, len(self.assembler.items)
            self.record.append(row)

    def end_listed_line(self) -> None:
        """What comes now does not belong to the line that is in the listing."""
        if self.record is not None:
            self.record.append((0, "", HIDDEN, len(self.assembler.items)))

    def _is_listed(self, frame: Frame) -> bool:
        """Whether lines of a frame are in the listing; the bytes of those with .nolist stand by the line that calls."""
        if not self.lists:
            return False
        if "f" in self.listing_flags:
            return not frame.name.startswith("<") or frame.lists
        return all(outer.lists for outer in self.frames)

    def push(self, frame: Frame) -> None:
        if len(self.frames) >= MAX_FRAMES:
            self.assembler.report(f"macros and includes nested more than {MAX_FRAMES} deep", "fatal", place=self.place)
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
                self._refuse_more_lines()
            return
        self.frames.pop()
        if frame.kind == "macro" and frame.call is not None:
            frame.call.macro.active -= 1
        if frame.kind == "file":
            for condition in self.conditions[frame.conditions :]:
                self.assembler.report("%if without %endif", place=condition.place)
            self.truncate_conditions(frame.conditions)

    def _refuse_more_lines(self) -> None:
        self.assembler.report(f"macros and %rep make more than {MAX_LINES} lines", "fatal", place=self.place)

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

    def choices_of(self, name: str) -> list[MultiLineMacro] | None:
        found = self.multi.get(name)
        if found is None and self.multi_insensitive:
            found = self.multi_insensitive.get(name.lower())
        return found

    def standard_of(self, name: str) -> list[MultiLineMacro]:
        """What a directive is to NASM: the macro that -E has for it."""
        for line in standard_macros(self.assembler.format.has_origin):
            match = re.match(rf"%imacro {re.escape(name)} (\d+)(?:-(\d+|\*))?(\+?)", line)
            if match is not None:
                macro = MultiLineMacro(name)
                macro.least = int(match.group(1))
                macro.most = float("inf") if match.group(2) == "*" else int(match.group(2) or macro.least)
                macro.greedy = bool(match.group(3))
                return [macro]
        return []

    def _call(self, text: str, written: str) -> bool:
        """Enters a multi-line macro if the line calls one; a label before it is kept.

        Args:
            written: the line before its single-line macros were expanded.
        """
        match = NAME.match(text)
        if match is None:
            return False
        label = ""
        choices = self.choices_of(match.group(1))
        rest = text[match.end() :]
        begin = 0
        if choices is None:
            after = rest.lstrip()
            colon = after.startswith(":")
            label = match.group(1) + (":" if colon else "")
            after = after[1:] if colon else after
            match = NAME.match(after)
            if match is None:
                return False
            begin = len(text) - len(after) + match.start(1)
            choices = self.choices_of(match.group(1))
            if choices is None:
                return False
            rest = after[match.end() :]
        elif rest[:1] == ":" or rest.lstrip().startswith(":"):
            return False
        name = match.group(1)
        found = self._choose(choices, name, rest, text)
        if found is None:
            return False
        macro, parameters = found
        call = Call(macro, name, parameters, self.calls, label.rstrip(":"))
        if macro.lists or "f" in self.listing_flags:
            shown = ",".join(f"{{{parameter}}}" for parameter in parameters)
            self.list_remark("m", f"[macro] {name} {shown}".rstrip())
        self.calls += 1
        body = macro.body
        if self.verbatim and label and not macro.uses_label:
            shown = f"{text[: len(text) - len(text.lstrip())]}{label} :"
            self.made.append(text[:begin] if label.endswith(":") else shown)
        elif label and not macro.uses_label:
            self.tokens, self.shape = [label.rstrip(":"), ":"], "i:"
            self.assembler.place = self.place
            is_shown = macro.lists or "f" in self.listing_flags
            if self.record is not None and is_shown and self._is_listed(self.frames[-1]):
                local = NAME.match(written) if label.startswith("..@") else None
                shown = local.group(1) if local is not None and local.group(1)[0] == "%" else label.rstrip(":")
                behind = ": " if label.endswith(":") else " :"
                self._list(" " * text[0].isspace() + shown + behind, 0)
                if "e" in self.listing_flags:
                    self._list(f" ;;; {' ' * text[0].isspace()}{label.rstrip(':')}{behind}", 0)
            self.assembler.line(self.tokens, self.shape, label)
        frame = Frame("macro", macro.file, body, self.place, macro.first, f"macro `{macro.name}'", call)
        frame.lists = macro.lists
        self.push(frame)
        macro.active += 1
        return True

    def _choose(
        self, choices: list[MultiLineMacro], name: str, rest: str, text: str
    ) -> tuple[MultiLineMacro, list[str]] | None:
        """The macro of a name that takes the parameters in `rest`, and these with their defaults.

        A parameter left empty behind the last comma, or all of which only blanks are left, are counted as NASM before
        2.15 did, with a warning, unless `%pragma preproc sane_empty_expansion` says otherwise.
        """
        if all(macro.active and not macro.recursive for macro in choices):
            return None
        is_blank = bool(rest) and not rest.strip()
        rest = rest.strip()
        parameters = split_parameters(rest)
        count = len(parameters)
        ends_empty = rest.endswith(",") and count > 0 and not self.sane_empty_expansion

        def taking(number: int) -> MultiLineMacro | None:
            return next((m for m in choices if m.takes(number)), None)

        macro = taking(count)
        if macro is None and not self.sane_empty_expansion:
            if is_blank:
                macro = taking(1)
            elif ends_empty and count > 1 and (macro := taking(count - 1)) is not None:
                parameters.pop()
        if macro is None:
            plural = "" if count == 1 else "s"
            self.assembler.report(
                f"multi-line macro `{name}' exists, but not taking {count} parameter{plural}",
                "warning", place=self.place, text=text, word=name, warning="pp-macro-params-multi",
            )  # fmt: skip
            return None
        if macro.active and not macro.recursive:
            return None
        if ends_empty and len(parameters) == count:
            missing = count - macro.least
            if 0 < missing <= len(macro.defaults):
                parameters[-1] = macro.defaults[missing - 1]
            elif not (macro.greedy and count > macro.most):
                parameters.pop()
        unfit = count < macro.least or (count > macro.most and not macro.greedy)
        if unfit or ends_empty:
            message = f"improperly calling multi-line macro `{macro.name}' with {count} parameters"
            if not unfit:
                message = f"dropping trailing empty parameter in call to multi-line macro `{macro.name}'"
            self.assembler.report(message, "warning", place=self.place, text=text, word=name,
                                  warning="pp-macro-params-legacy")  # fmt: skip
        if macro.greedy and len(parameters) > macro.most:
            parameters = split_parameters(rest, int(macro.most))
        elif macro.defaults and macro.least <= len(parameters) < macro.least + len(macro.defaults):
            parameters += macro.defaults[len(parameters) - macro.least :]
        return macro, parameters

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
            return  # the lines of a macro or a repetition are not read either: conditions in it balance by themselves
        if name in ("macro", "imacro", "rmacro", "irmacro"):
            self._define_multi(name, rest, frame)
            return
        if name == "rep":
            self._repeat(rest, frame)
            return
        handler = DIRECTIVES.get(name)
        if handler is None:
            from asm.diagnostics import did_you_mean

            hint = did_you_mean(name, [*DIRECTIVES, "macro", "rep", "if", "elif", "else", "endif"])
            raise DirectiveError(f"unknown preprocessor directive `%{name}'{hint}")
        if "%[" in rest:
            rest = self._indirect(rest)
        if "%!" in rest:  # NASM puts the environment in before the directive sees its text
            rest = "".join(p if p[:2] != "%!" else self.expander.variable(p) for p in pieces(rest))
        self._warn_of_open_string(rest)
        handler(self, rest)

    def _warn_of_open_string(self, text: str) -> None:
        """Warns of a string that is not closed; of one in the body of a macro or %rep only where that stands."""
        if self.place[0].kind == "file" and ("'" in text or '"' in text or "`" in text):
            quote = open_quote(strip_comment(text))
            if quote:
                self.assembler.report(f"unterminated string (missing `{quote}')", "warning", place=self.place,
                                      word=quote, warning="pp-open-string")  # fmt: skip

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
            self.place = (frame, frame.number)
            self.list_line(frame, text)
            self._warn_of_open_string(text)
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

    def _define_multi(self, directive: str, rest: str, frame: Frame) -> None:
        place = self.place
        first = frame.number_of(frame.number) + 1
        if not rest.strip():
            raise DirectiveError(f"`%{directive}' expects a macro name")
        body = self._body(frame, "macro")
        # What stands behind the name is expanded now: a default may use what a context has only here.
        name, blank, more = re.match(r"\s*(\S*)(\s*)(.*)", strip_comment(rest), re.DOTALL).groups()  # type: ignore[union-attr]
        match = re.match(
            r"(\S+?)(?:\s+([0-9]+)(?:-([0-9]+|\*))?(\+)?((?:\.nolist)?)(?![\w.\-])\s*(.*))?$",
            name + blank + self.expander.expand(more),
        )
        if match is None or match.group(2) is None:
            raise DirectiveError(f"`%{directive}' expects a name and a parameter count")
        name, least, most, greedy, nolist, defaults = match.groups()
        if "%" in name and len(parts := pieces(name)) > 1:
            name = "".join(map(self.expander.expand_known, parts))
        macro = MultiLineMacro(name)
        macro.least = int(least or 0)
        macro.most = float("inf") if most == "*" else int(most or least or 0)
        if max(int(least or 0), int(most) if (most or "*") != "*" else 0) > MAX_PARAMETERS:
            self.assembler.report(f"a macro takes at most {MAX_PARAMETERS} parameters", place=place)
            return
        if macro.most < macro.least:
            self.assembler.report("minimum parameter count exceeds maximum", place=place)
            return
        macro.greedy = bool(greedy)
        macro.lists = not nolist
        macro.defaults = split_parameters(defaults or "")
        if len(macro.defaults) > macro.most - macro.least and not macro.greedy:
            self.assembler.report(f"too many default macro parameters in macro `{name}'", "warning", place=place,
                                  warning="pp-macro-defaults")  # fmt: skip
        macro.insensitive = "i" in directive[:2]
        macro.recursive = directive.startswith(("r", "ir"))
        macro.body = body
        macro.file = frame.file_of(frame.number)
        macro.first = first
        macro.uses_label = any("%00" in line or "%{00}" in line for line in body)
        table = self.multi_insensitive if macro.insensitive else self.multi
        others = table.setdefault(name.lower() if macro.insensitive else name, [])
        for other in others:
            if other.least <= macro.most and macro.least <= other.most:
                if other.least == macro.least and other.most == macro.most:
                    self.assembler.report(f"redefining multi-line macro `{name}'", "warning", place=place,
                                          warning="pp-macro-redef-multi")  # fmt: skip
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
        bare = re.sub(r"^\s*\.nolist(?!\w)", "", rest := strip_comment(rest))
        is_listed, rest = bare == rest, bare
        try:
            count = self.evaluate(rest)
        finally:  # a wrong count does not make its %endrep wrong
            body = self._body(frame, "rep")
        limit = min(self.limits.get("rep", MAX_REPEAT), MAX_REPEAT)
        if count > limit:
            raise DirectiveError(f"`%rep' count {count} exceeds limit ({limit})")
        if count < 0:
            self.assembler.report(f"negative `%rep' count: {count}", "warning", place=place, warning="pp-rep-negative")
        if count <= 0:
            return
        repetition = Frame("rep", frame.file_of(frame.number), body, place, body_first, "%rep", frame.call)
        repetition.remaining = count - 1
        repetition.lists = is_listed
        self.push(repetition)

    def evaluate(self, text: str, truth: bool = False) -> int:
        """The value of an expression in a directive.

        Args:
            truth: only whether it is zero matters.

        Raises:
            DirectiveError, ParseError, TokenError, ExpressionError, MacroError: there is none.
        """
        text = self._expand_to_evaluate(strip_comment(text))
        tokens = [token for token in split(text) if token]
        if not tokens:
            raise DirectiveError("an expression is wanted")
        shape = "".join(map(self._kind_of_plain, tokens))
        try:
            return self.assembler.evaluate_now(tokens, shape, truth)
        except ParseError as error:
            end = error.index
            if not 0 < end < len(tokens):
                raise
            try:
                value = self.assembler.evaluate_now(tokens[:end], shape[:end], truth)
            except ParseError:
                raise error from None
            self.trailing("expression", tokens[end])
            return value

    def _expand_to_evaluate(self, text: str) -> str:
        if not self.verbatim:
            return self.expander.expand(text)
        self.expander.macros.update(self.functions)  # which -E else leaves to the assembler
        try:
            return self.expander.expand(text)
        finally:
            for name in self.functions:
                self.expander.macros.pop(name, None)

    def trailing(self, what: str, text: str) -> None:
        """Warns of what stands behind the end of a directive, as NASM does, and is ignored."""
        if text.strip():
            self.assembler.report(f"trailing garbage after {what} ignored", "warning", place=self.place,
                                  word=text.strip(), warning="pp-trailing")  # fmt: skip

    # --- Conditionals -------------------------------------------------------------------------------------------------

    def _conditional(self, name: str, rest: str) -> None:
        outer = self.conditions[-2].emitting if len(self.conditions) > 1 else True
        if name == "endif":
            if not self.conditions:
                raise DirectiveError("`%endif': no matching `%if'")
            self.trailing("`%endif'", strip_comment(rest))
            self.truncate_conditions(len(self.conditions) - 1)
        elif name.startswith("if"):
            if self.emitting:
                self._warn_of_open_string(rest)
            value = self._safe_condition(name[2:], rest) if self.emitting else None
            self.conditions.append(Condition(bool(value), value is not False, self.place))
            self.emitting = bool(value)
        elif not self.conditions:
            raise DirectiveError(f"`%{name}': no matching `%if'")
        elif self.conditions[-1].had_else:
            self.assembler.report(f"`%{name}' after `%else', ignoring content", "warning", place=self.place,
                                  warning="pp-else-else" if name == "else" else "pp-else-elif")  # fmt: skip
            self.conditions[-1].emitting = self.emitting = self.conditions[-1].had_else = False
            self.conditions[-1].taken = True
        else:
            condition = self.conditions[-1]
            if name == "else":
                self.trailing("`%else'", strip_comment(rest))
                condition.had_else = outer
                condition.emitting = outer and not condition.taken
            elif condition.taken or not outer:
                condition.emitting = False
            else:
                value = self._safe_condition(name[4:], rest)
                condition.emitting = bool(value)
                condition.taken |= value is None
            condition.taken |= condition.emitting
            self.emitting = condition.emitting

    def truncate_conditions(self, count: int) -> None:
        del self.conditions[count:]
        self.emitting = self.conditions[-1].emitting if self.conditions else True

    def _safe_condition(self, name: str, rest: str) -> bool | None:
        """The truth of a condition; None, after a message, for one that is wrong: none of its branches is read then."""
        try:
            return self._condition(name, strip_comment(rest).strip())
        except (MacroError, DirectiveError, ParseError, TokenError, ExpressionError) as error:
            word = getattr(error, "name", "") or getattr(error, "text", "")
            self.assembler.report(getattr(error, "message", str(error)), place=self.place, text=None, word=word)
            return None

    def _condition(self, name: str, text: str) -> bool:
        if name == "":
            return bool(self.evaluate(text, truth=True))
        if name == "n":
            return not self.evaluate(text, truth=True)
        negative = name.startswith("n") and name != "num"
        test = CONDITIONS.get(name[1:] if negative else name)
        if test is None:
            raise DirectiveError(f"unknown preprocessor directive `%if{name}'")
        return bool(test(self, text)) != negative

    def significant(self, text: str) -> list[str]:
        return [piece for piece in pieces(self.expander.expand(text)) if not piece.isspace()]

    # --- Single-line macros -------------------------------------------------------------------------------------------

    def split_name(self, rest: str) -> tuple[str, str]:
        """The name that a directive defines and what follows it.

        Raises:
            DirectiveError: there is no name.
        """
        match = NAME_OF_PARTS.match(rest)
        parts = pieces(match.group(1)) if match is not None else []
        if match is None or not (parts[0][0] == "%" or NAME.fullmatch(parts[0])):
            raise DirectiveError("a macro's name is wanted")
        name = parts[0] if len(parts) == 1 else "".join(map(self.expander.expand_known, parts))
        return f"%{name[2:-1]}" if name.startswith("%{") else name, rest[match.end() :]

    def define(self, macro: Macro) -> None:
        """Adds a single-line macro; one of the same name and number of parameters is replaced.

        Raises:
            MacroError: there is one with parameters where this has none, or the reverse.
        """
        name = macro.name = self.expander.meant(macro.name)
        if "s" in self.listing_flags and self.place[1]:
            self.list_remark("s", self._definition(macro))
        if name.startswith("%$"):
            context, bare = self.expander.context_name(name)
            table, key = context.macros, bare
        else:
            table = self.expander.insensitive if macro.insensitive else self.expander.macros
            key = name.lower() if macro.insensitive else name
            self._warn_of_shadow(macro)
        others = table.get(key)
        if others is None:
            table[key] = [macro]
            if name[0] != "%":
                self._mark(name, macro.insensitive)
            return
        if any((other.parameters is None) != (macro.parameters is None) for other in others):
            raise MacroError(f"macro `{name}' defined both with and without parameters")
        same = [n for n, m in enumerate(others) if m.arity == macro.arity and m.greedy == macro.greedy]
        if same:
            others[same[0]] = macro
        else:
            others.insert(0, macro)  # of several that a call fits the newest counts

    def _warn_of_shadow(self, macro: Macro) -> None:
        """Warns of a macro that stands before another of its name without replacing it; the newest counts."""
        expander, lower = self.expander, macro.name.lower()
        self.definitions += 1
        macro.order = self.definitions
        known = list(expander.insensitive.get(lower, ()))
        spellings = {macro.name, lower, macro.name.upper()} if macro.insensitive else (macro.name,)
        for spelling in spellings:
            known += expander.macros.get(spelling, ())
        count = max(macro.arity, 0)
        matching = [
            other for other in known
            if not count or other.arity <= 0 or other.arity == count or (other.greedy and other.arity <= count)
        ]  # fmt: skip
        if not matching:
            return
        other = max(matching, key=lambda m: m.order)
        if other.insensitive != macro.insensitive:
            kinds = ["insensitive" if m.insensitive else "sensitive" for m in (macro, other)]
            self.assembler.report(
                f"case {kinds[0]} definition of macro `{macro.name}' will shadow {kinds[1]} macro `{other.name}'",
                "warning", place=self.place, word=macro.name, warning="pp-macro-def-case-single",
            )  # fmt: skip
            expander.shadowed.add(lower)
        elif 0 < other.arity < count:
            self.assembler.report(f"defining macro `{macro.name}' shadows previous greedy definition", "warning",
                                  place=self.place, word=macro.name, warning="pp-macro-def-greedy-single")  # fmt: skip

    def _definition(self, macro: Macro) -> str:
        """A single-line macro as -Ls shows it."""
        text = f"%{'i' * macro.insensitive}define "
        if macro.name.startswith("%$"):
            context, _ = self.expander.context_name(macro.name)
            text += f"[{context.name}::{context.number}] "
        text += macro.name
        names = list(macro.parameters or ())
        if macro.parameters is not None:
            shown = ["=" * (n in macro.evaluated) + "&" * (n in macro.quoted) + name for n, name in enumerate(names)]
            text += f"({','.join(shown)}{'+' * macro.greedy})"
        body = (names[piece] if isinstance(piece, int) else " " if piece.isspace() else piece for piece in macro.body)
        return f"{text} {''.join(body)}"

    def undefine(self, name: str) -> None:
        """Forgets the single-line macros of a name."""
        name = self.expander.meant(name)
        if name.startswith("%$"):
            context, bare = self.expander.context_name(name)
            context.macros.pop(bare, None)
            return
        if self.expander.macros.pop(name, None) and name not in self.multi:
            self.kinds.undefine(name)
        lower = name.lower()
        if self.expander.insensitive.pop(lower, None) and lower not in self.multi_insensitive:
            self.kinds.undefine(name, True)

    def define_alias(self, name: str, other: str, insensitive: bool) -> None:
        """Makes a name stand for another, wherever it is used, defined or undefined."""
        if insensitive:
            self.expander.insensitive_aliases[name.lower()] = other
        else:
            self.expander.aliases[name] = other
        self._mark(name, insensitive)

    def undefine_alias(self, name: str) -> None:
        """Forgets an alias; what it stood for stays."""
        self.expander.aliases.pop(name, None)
        self.expander.insensitive_aliases.pop(name.lower(), None)

    def truth(self, text: str) -> bool:
        """A switch in a directive: yes, no, true, false, on, off, or an expression; nothing is yes."""
        word = text.strip().lower()
        if word in ("", "yes", "true", "on"):
            return True
        return word not in ("no", "false", "off", "n", "f") and bool(self.evaluate(text))

    def set_text(self, name: str, text: str, insensitive: bool = False) -> None:
        """Defines a macro as the result of a directive."""
        self.define(Macro(name, pieces(text), insensitive=insensitive))

    def string_argument(self, text: str) -> str:
        """The one string that a directive's operand expands to."""
        parts = self.significant(text)
        if len(parts) != 1 or parts[0][0] not in "'\"`" or len(parts[0]) < 2:
            raise DirectiveError("a string is wanted", parts[0] if parts else "")
        return unquote(parts[0])

    def source_line(self) -> int:
        """The line that is being read, where it stands in its file."""
        frame = self.frames[-1]
        return frame.number_of(frame.number)
