"""Assembles a source: takes the preprocessor's lines one by one and makes the program's items of them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from asm import data
from asm.diagnostics import AsmError, Diagnostic, did_you_mean
from asm.directives import DIRECTIVES
from asm.expression import SCALAR, UNDEFINED, ExpressionError, Linear, Section, Symbol, evaluate, is_constant
from asm.instructions.address import is_rip_relative
from asm.instructions.operand_spelling import plain_operands
from asm.instructions.operands import Encoded, EncodeError, Imm, Mem, Operand
from asm.ir import (
    MAX_IMAGE,
    Branch,
    Equ,
    Fixed,
    Instruction,
    Item,
    Mode,
    Patch,
    Probe,
    Reserve,
    Switch,
    Times,
    encoded,
    repetitions,
)
from asm.layout import Layout
from asm.messages import column_of, encode_message, make_diagnostic
from asm.options import Options
from asm.output.object_format import output_format
from asm.parse import CUT_NUMBERS, NUMBERS, SEGMENTS, ParseError, TokenError, builder, explain
from asm.places import at_place, without_places
from asm.preprocessor.frames import Place
from asm.preprocessor.macros import CONDITION_CODES
from asm.preprocessor.preprocess import Preprocessor
from asm.tokens import RESERVE, Kinds, mnemonics, string_bytes
from asm.warnings import Warnings

MAX_ERRORS = 1000  # enough for any human; keeps a hostile source from filling memory with messages
MAX_WARNINGS = 20_000
STATEMENT_STARTS = frozenset("IDRTEBpdr")
TIMES_BODY = frozenset("IDRBpTrd")
# How many macros NASM expands for a directive, where it is not one; they count in the names of local labels.
STANDARD_MACROS = {"align": 2, "alignb": 2, "struc": 2, "istruc": 2, "org": 1}
BRANCHES = frozenset(("jmp", "call", "jcxz", "jecxz", "jrcxz", "loop", "loope", "loopne", "loopz", "loopnz", "xbegin"))
BRANCHES |= {f"j{code}" for code in CONDITION_CODES}


class _Symbols(dict[str, Symbol]):
    def __missing__(self, name: str) -> Symbol:
        symbol = self[name] = Symbol(name)
        return symbol


class Assembler:
    """One round over a source.

    Args:
        name: of the source, for messages.
        text: the source.
        options: see `Options`.
        known: where an earlier round left the symbols, by name: (section's name, offset).
    """

    def __init__(
        self, name: str, text: str, options: Options, known: Mapping[str, tuple[str, int]] | None = None
    ) -> None:
        self.name = name
        self.text = text
        self.options = options
        self.errors: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []
        self.kinds = Kinds()
        self.symbols = _Symbols()
        self.sections: dict[str, Section] = {}
        self.format = output_format(options)
        self.resolve = self.format.resolve
        self.section = self.enter_section(".text")
        self.first = self.section
        self.items: list[Item] = []
        self.places: list[Place] = []  # where each item comes from
        self.texts: dict[int, str] = {}  # the expanded line of an item, where it is not the source's own
        self.layout = Layout(self.items, self.section)
        self.mode = Mode(options.bits, options.optimise, False)
        self.plain: dict[str, bytes] = {}  # lines that always give these bytes, in this mode
        self.scope = ""  # the last label that local labels hang on
        self.origin: int | None = None
        self.rounding = "near"  # of floating-point constants, as `float` says
        self.flush = False  # their denormals become zero
        self.align_mode: tuple[str, int] | None = None  # of %use smartalign: the mode, and the gap that is jumped over
        self.absolute: int | None = None  # the place in `absolute`, while it is a constant
        self.structures: list[tuple[str, str, Any, Place]] = []  # open struc and istruc
        self.named: list[Section] = []  # in the order in which the source names them first
        self.externals: set[str] = set()
        self.mangle = dict(options.mangle)  # and what `%pragma output` adds
        self.map_request: tuple[frozenset[str], str] | None = None
        self.definitions: list[Symbol] = []  # in the order in which the source defines them
        self.operands: Sequence[Operand] = ()  # of the instruction at hand, for messages
        self.included: set[int] = set()  # items that incbin made
        self.repeated: dict[int, int] = {}  # items that a constant times made, and how often; both for the listing
        self.blanks: dict[int, list[tuple[int, int]]] = {}  # by item: what `?` leaves open
        self.spaces: dict[int, list[tuple[int, int]]] = {}  # by line of the listing: constant `absolute` space
        self.offsets: list[int] = []  # of each item in its section, once it is settled
        self.load_order: list[Section] = []
        self.warnings_met = 0  # those that are off too: a line that is warned of is not remembered
        self.switches = options.warnings.copy()
        self.saved_switches: list[Warnings] = []  # what [warning push] saves
        self.switch_points: list[tuple[int, Warnings]] = [(0, options.warnings)]  # from which item on they are so
        for symbol_name, (section_name, offset) in (known or {}).items():
            symbol = self.symbols[symbol_name]
            symbol.section = SCALAR if section_name == SCALAR.name else self.enter_section(section_name)
            symbol.offset = offset
        # For the listing: each line's place, text, level and first item; warnings with their line (-1: the item's) and
        # the item that they come before.
        # The listing's lines: number, text, depth and the item that comes next.
        self.record: list[tuple[int, str, int, int]] | None = [] if options.listing else None
        self.listed_messages: list[tuple[int, int, Diagnostic]] = []
        self.finishing = -1  # the item whose bytes are being made
        self.preprocessor = Preprocessor(self, name, text, options)
        self.place: Place = self.preprocessor.place

    # --- Messages -----------------------------------------------------------------------------------------------------

    def report(
        self,
        message: str,
        severity: str = "error",
        place: Place | None = None,
        text: str | None = None,
        column: int = 0,
        word: str = "",
        warning: str = "",
    ) -> None:
        """Adds an error or a warning.

        Args:
            place: of the line; the current line without it.
            text: the line as the assembler saw it, if it is not the source's line.
            column: in `text`, from 1; or else `word` is looked for.
        """
        if severity == "warning":
            self.warnings_met += 1
            severity = self.switches.severity(warning)
            if not severity:
                return
        diagnostic = make_diagnostic(severity, message, place or self.place, text, column, word, warning)
        if severity == "warning" and len(self.warnings) >= MAX_WARNINGS:
            return
        if self.record is not None:
            late = self.finishing >= 0
            at = (-1, self.finishing) if late else (len(self.record) - 1, len(self.items))
            self.listed_messages.append((*at, diagnostic))
        if severity == "warning":
            self.warnings.append(diagnostic)
            return
        self.errors.append(diagnostic)
        if len(self.errors) >= MAX_ERRORS or severity == "fatal":
            raise AsmError(self.errors, self.warnings)

    def warn(self, warning: str, message: str) -> None:
        self.report(message, "warning", warning=warning)

    # --- The main loop ------------------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Reads the source to its end; errors are gathered."""
        preprocessor = self.preprocessor
        items, places = self.items, self.places
        for text in preprocessor:
            code = self.plain.get(text)
            if code is not None:
                items.append(code)
                places.append(preprocessor.place)
                continue
            self.place = preprocessor.place
            self.line(preprocessor.tokens, preprocessor.shape, text)
        self.place = preprocessor.place
        for kind, name, _, place in self.structures:
            self.report(f"{kind} `{name}' is not closed", "warning", place=place, warning="other")

    def line(self, tokens: list[str], shape: str, text: str) -> None:
        """Assembles one line.

        Args:
            tokens, shape: of the line, which is not empty.
            text: the line after preprocessing.
        """
        before = len(self.items)
        met = self.warnings_met
        try:
            whole = shape
            if shape[0] == "i" or (shape[1:2] == ":" and (shape[0] in "IDRTEB" or self.names_label(tokens[0]))):
                if shape[1:3] == ":E":
                    self.equ([tokens[0], *tokens[2:]], shape[0] + shape[2:])
                    return
                if shape[1:2] == ":":
                    self.label(tokens[0])
                    tokens, shape = tokens[2:], shape[2:]
                    if not shape:
                        return
                elif len(shape) == 1:
                    self.label(tokens[0])
                    hint = did_you_mean(tokens[0], mnemonics()) if len(tokens[0]) > 2 else ""
                    self.report("label alone on a line without a colon might be in error" + hint, "warning",
                                text=text, word=tokens[0], warning="label-orphan")  # fmt: skip
                    return
                elif shape[1] == "E":
                    self.equ(tokens, shape)
                    return
                elif shape[1] in STATEMENT_STARTS and self.is_statement(tokens[1], shape[1:]):
                    self.label(tokens[0])
                    tokens, shape = tokens[1:], shape[1:]
                else:
                    raise self.unknown_instruction(tokens[0])
            self.statement(tokens, shape)
            if self.absolute is not None and len(self.items) > before:
                self.refuse_bytes(before)
            if len(self.items) == before + 1 and whole is shape and type(self.items[before]) is bytes:
                plain = self.absolute is None and self.record is None and met == self.warnings_met
                if plain and not self.preprocessor.names_macro and len(self.plain) < 200_000:
                    self.plain[text] = self.items[before]  # type: ignore[assignment]
            elif len(self.items) > before and text is not self.preprocessor.raw:
                self.texts[before] = text
        except TokenError as error:
            self.report(error.message, text=text, word=error.text)
        except ParseError as error:
            if shape[:1] in ("d", "["):
                self.report(error.message, text=text, column=column_of(text, error.index + 1))
                return
            whole_line = explain(self.preprocessor.tokens, self.preprocessor.shape)
            if whole_line.index:
                error = whole_line
            self.report(error.message, text=text, column=column_of(text, error.index))
        except ExpressionError as error:
            self.report(error.message, text=text, word=error.name)
        except RecursionError:
            self.report("expression is nested too deeply", text=text)
        except EncodeError as error:
            self.report(encode_message(error, self.operands), text=text, word=error.word or tokens[0])
        finally:
            while len(self.places) < len(self.items):
                self.places.append(self.place)

    def names_label(self, name: str) -> bool:
        """Whether a directive's name and a colon are a label: not of those that are macros to NASM."""
        word = name.lower()
        return (
            word == "alignmode"
            or (word == "org" and not self.format.has_origin)
            or (word == "osabi" and not self.format.has_symbols)
        )

    def unknown_instruction(self, name: str) -> TokenError:
        choices = self.preprocessor.choices_of(name)
        if not choices:
            return TokenError(f"unknown instruction `{name}'{did_you_mean(name, mnemonics())}", name)
        counts = " or ".join(choice.count_text for choice in choices)
        return TokenError(f"unknown instruction `{name}'; the macro of that name takes {counts}", name)

    @staticmethod
    def is_statement(first: str, shape: str) -> bool:
        """Whether what follows a name makes that name a label: of registers only a segment's begins a statement."""
        return shape[0] != "r" or (first.lower() in SEGMENTS and builder("statement", shape) is not None)

    def statement(self, tokens: list[str], shape: str) -> None:
        """Assembles what stands after the label."""
        first = shape[0]
        if first in "Ipr":
            self.instruction(tokens, shape)
        elif first == "D":
            data.data(self, tokens, shape)
        elif first == "d":
            self.directive(tokens, shape)
            if tokens[0].lower() in ("section", "segment", "absolute"):  # the bracketed forms leave __SECT__ alone
                self.preprocessor.section_line = f"[{' '.join(tokens)}]"
        elif first == "R":
            self.reserve(tokens, shape)
        elif first == "T":
            self.times(tokens, shape)
        elif first == "[" and shape[-1] == "]" and len(shape) > 2:
            self.primitive(tokens[1:-1], shape[1:-1])
        elif first == "B":
            data.incbin(self, tokens, shape)
        elif first == "E":
            raise TokenError("equ without a label", tokens[0])
        elif first == "i":
            raise self.unknown_instruction(tokens[0])
        else:
            raise explain(tokens, shape)

    # --- Symbols and expressions --------------------------------------------------------------------------------------

    def qualified(self, name: str) -> str:
        """The full name of a symbol: that of a local one begins with the label it belongs to."""
        if name[0] == "." and name[1:2] != ".":
            return self.scope + name
        return name[1:] if name[0] == "$" else name

    def symbol(self, name: str) -> Symbol:
        """The symbol that a name in the source means."""
        if name[0] == "." and name[1:2] != ".":
            name = self.scope + name
        elif name[0] == "$":
            name = name[1:]
        return self.symbols[name]

    def define(self, name: str) -> Symbol:
        """The symbol of a definition."""
        symbol = self.symbol(name)
        if symbol.defined:
            first = ""
            if symbol.where is not None:
                frame, line = cast("Place", symbol.where)
                first = f"; it is defined at {frame.file_of(line)}:{frame.number_of(line)}"
            raise TokenError(f"label `{symbol.name}' inconsistently redefined{first}", name)
        if name[:2] == ".." and name[2:3] != "@":
            raise TokenError(f"unrecognised special symbol `{name}'", name)
        if symbol.name in self.externals:  # defined here after all
            self.externals.discard(symbol.name)
            self.definitions.remove(symbol)
            symbol.section = None
        elif symbol.section is not None and symbol.section.external is not None:
            raise TokenError(f"label `{symbol.name}' inconsistently redefined", name)
        symbol.defined = True
        symbol.where = self.place
        self.definitions.append(symbol)
        return symbol

    def define_constant(self, symbol: Symbol, value: int) -> None:
        """Gives a symbol its final value; what stands above does not know it in the first pass."""
        self.layout.catch_up()
        symbol.section, symbol.offset, symbol.constant = SCALAR, value, True

    def enter_external(self, name: str, replaceable: bool = True) -> None:
        """Makes a symbol one that another object defines.

        Args:
            replaceable: this source may define it after all.
        """
        symbol = self.symbols[name]
        if symbol.section is not None and symbol.section.external is not None:
            return
        self.layout.catch_up()
        symbol.section = Section(name)
        symbol.section.external = symbol
        symbol.offset = 0
        if replaceable:
            self.externals.add(name)
        self.definitions.append(symbol)

    def label(self, name: str) -> None:
        """Defines a label here."""
        if name.lower() == "ptr":
            self.warn_of_ptr()
        if name[0] != ".":
            self.scope = name[1:] if name[0] == "$" else name
        symbol = self.define(name)
        if self.absolute is not None:
            self.define_constant(symbol, self.absolute)
        else:
            self.items.append(symbol)
            self.places.append(self.place)

    def expression(self, tokens: Sequence[str], shape: str) -> Any:
        """The expression that tokens make up.

        Raises:
            ParseError, TokenError: they make up none.
        """
        if shape == "n":
            return NUMBERS[tokens[0]]
        if shape == "i":
            return self.symbol(tokens[0])
        build = (builder("expr", shape) or builder("expr", shape.translate(_AS_NAMES))) if shape else None
        if build is None:
            raise self.bad_expression(tokens, shape)
        return build(tokens, self.symbol)

    @staticmethod
    def bad_expression(tokens: Sequence[str], shape: str) -> ParseError:
        if not shape:
            return ParseError("an expression is wanted", 0)
        error = explain(["resb", *tokens], "R" + shape)  # a statement with one expression
        return ParseError(error.message, max(error.index - 1, 0))

    def constant(self, expression: Any) -> int | None:
        """The value of an expression if no later pass can change it."""
        if type(expression) is int:
            return expression
        if self.absolute is not None:
            if not is_constant(without_places(expression)):
                return None
        elif not is_constant(expression):
            return None
        value = evaluate(expression, SCALAR, self.absolute or 0)
        return value if isinstance(value, int) else None

    def evaluate_now(self, tokens: Sequence[str], shape: str, truth: bool = False) -> int:
        """The value of a preprocessor's expression; places are those of this pass so far.

        Args:
            truth: only whether it is zero matters.

        Raises:
            ParseError, TokenError, ExpressionError: there is none.
        """
        if self.options.preprocess_only and ("H" in shape or "S" in shape):
            place = tokens[min(shape.find(kind) for kind in "HS" if kind in shape)]
            raise TokenError(f"`{place}' has no value while only preprocessing", place)
        expression = self.expression(tokens, shape)
        value: int | Linear | None = self.constant(expression)
        if value is None:
            self.layout.catch_up()
            value = evaluate(expression, self.layout.section, self.layout.offset)
            if self.absolute is not None:
                value = evaluate(expression, SCALAR, self.absolute)
        if value is None:
            raise self.undefined_before_use(expression)
        if isinstance(value, Linear):
            raise ExpressionError("a constant is wanted here, not an address")
        if self.constant(expression) is None:
            self.items.append(Probe(expression, self.absolute, value, truth))
            self.places.append(self.place)
        return value

    @staticmethod
    def undefined_before_use(expression: Any) -> ExpressionError:
        """The error that a symbol without a value is where one is needed at once."""
        waiting = [expression]
        while waiting:
            part = waiting.pop()
            if isinstance(part, Symbol) and part.section is None:
                return ExpressionError(f"symbol `{part.name}' not defined before use", part.name)
            if isinstance(part, tuple):
                waiting += reversed(part)
        return ExpressionError("expression has no value yet")

    # --- Statements ---------------------------------------------------------------------------------------------------

    def instruction(self, tokens: Sequence[str], shape: str) -> None:
        build = builder("statement", shape)
        if build is None and ("[" in shape or "k" in shape):
            tokens, shape = plain_operands(tokens, shape)
            build = builder("statement", shape)
        if build is None:
            build = builder("statement", _with_names(shape))
        if build is None:
            raise explain(tokens, shape)
        if "s" in shape:
            tokens = self.cut_characters(tokens, shape)
        prefixes, mnemonic, operands, expressions = build(tokens, self.symbol)
        self.warn_of_cut_numbers(tokens)
        if "ptr" in tokens or "PTR" in tokens:
            self.warn_of_ptr()
        if mnemonic == "lea" and len(operands) == 2 and type(operands[1]) is Imm:  # LEA EAX, table
            operands = operands[0], Mem(0, None, None, None, 1, operands[1].value)
            expressions = tuple((index, "disp", expression) for index, _, expression in expressions)
        self.operands = operands
        mode = self.mode
        if mnemonic in BRANCHES and operands and type(operands[0]) is Imm:
            self.branch(mode, mnemonic, operands, prefixes, expressions)
            return
        if mode.bits == 64:
            operands, expressions = _relative(mode, operands, expressions)
        if expressions:
            expressions, operands = self.fold(expressions, operands)
            if mode.bits == 64 and any(
                type(o) is Mem and o.disp is not None and is_rip_relative(o, 64, mode.default_rel) for o in operands
            ):
                self.warn("ea-absolute", "absolute address can not be RIP-relative")
        if not expressions:
            code = encoded(mode, mnemonic, operands, prefixes)
            for name, text in code.warnings:
                self.warn(name, text)
            self.items.append(code.data)
            return
        self.items.append(Instruction(mode, mnemonic, operands, prefixes, expressions))

    def fold(self, expressions: Any, operands: Any) -> Any:
        """Puts the values of constant symbols into operands; returns the expressions that remain, and the operands."""
        remaining = []
        for index, field, expression in expressions:
            value = self.constant(expression) if field != "address" else None
            if value is None:
                remaining.append((index, field, expression))
            else:
                new = operands[index]._replace(**{"value" if field == "value" else field: value})
                operands = (*operands[:index], new, *operands[index + 1 :])
        return tuple(remaining), operands

    def branch(self, mode: Mode, mnemonic: str, operands: Any, prefixes: tuple[str, ...], expressions: Any) -> None:
        expression = expressions[0][2] if expressions else operands[0].value
        operands = operands[0]._replace(value=None), *operands[1:]  # LOOP may name its counter
        key = mode, mnemonic, operands, prefixes
        forms = _branches.get(key)
        if forms is None:
            forms = _branches[key] = _branch_forms(mode, mnemonic, operands, prefixes)
        code, near = forms
        if near is None:
            for name, text in code.warnings:
                self.warn(name, text)
            patches = tuple(Patch(f.offset, f.size, f.kind, expression, f.limit) for f in code.fixups)
            self.items.append(Fixed(code.data, patches))
        else:
            self.items.append(Branch(code, near, expression))

    def reserve(self, tokens: Sequence[str], shape: str) -> None:
        expression = self.expression(tokens[1:], shape[1:])
        self.reserve_bytes(expression, RESERVE[tokens[0].lower()])

    def reserve_bytes(self, expression: Any, unit: int) -> None:
        count = self.constant(expression)
        if count is not None and count < 0:
            raise ExpressionError(f"RESx of a negative count ({count})")
        if self.absolute is not None:
            if count is not None:
                self.skip(count * unit)
                return
            self.leave_constant_absolute()
        elif not self.section.nobits and self.section is not SCALAR:
            self.warn_of_zeroing()
        self.items.append(Reserve(expression if count is None else count, unit))

    def warn_of_zeroing(self) -> None:
        self.warn("zeroing", f"uninitialized space declared in {self.section.name} section: zeroing")

    def warn_of_ptr(self) -> None:
        self.warn("ptr", "`ptr' is not a NASM keyword")

    def warn_of_cut_numbers(self, tokens: Sequence[str]) -> None:
        for text in CUT_NUMBERS.intersection(tokens) if CUT_NUMBERS else ():
            self.warn("number-overflow", f"numeric constant {text} does not fit in 64 bits")

    def cut_characters(self, tokens: Sequence[str], shape: str) -> Sequence[str]:
        """An instruction with its character constants cut to what the mode has: 8 bytes in 64-bit code, else 4."""
        size = 8 if self.mode.bits == 64 else 4
        cut = list(tokens)
        for at, kind in enumerate(shape):
            if kind == "s" and len(tokens[at]) > size + 2 and len(text := string_bytes(tokens[at])) > size:
                self.warn("other", "character constant too long")
                cut[at] = "`" + "".join(f"\\x{byte:02x}" for byte in text[:size]) + "`"
        return cut

    def refuse_bytes(self, before: int) -> None:
        """`absolute` at a constant place has no room for what has bytes: takes the items from `before` on away.

        Raises:
            ExpressionError: there are such items.
        """
        made = [item for item in self.items[before:] if not isinstance(item, Symbol | Equ | Probe | Switch)]
        if not made:
            return
        start = self.absolute or 0
        if all(type(item) is Times and not item.size(SCALAR, start) for item in made):  # an alignment that is met
            del self.items[before:]
        elif any(item != b"" for item in made):
            del self.items[before:]
            raise ExpressionError("attempt to assemble code in [ABSOLUTE] space")

    def skip(self, size: int) -> None:
        """Reserves space at a constant place of `absolute`."""
        if self.record:
            self.spaces.setdefault(len(self.record) - 1, []).append((self.absolute or 0, size))
        self.absolute = (self.absolute or 0) + size

    def leave_constant_absolute(self) -> None:
        """From here on the layout works out the places in this `absolute`."""
        self.items.append(Switch(SCALAR, self.absolute))
        self.absolute = None
        self.section = SCALAR

    def times(self, tokens: Sequence[str], shape: str) -> None:
        at = next((n for n in range(1, len(shape)) if shape[n] in TIMES_BODY), len(shape))
        expression = self.expression(tokens[1:at], shape[1:at])
        if at == len(shape):
            raise TokenError("nothing to repeat after times", tokens[0])
        if shape[at] == "T":  # of several, the last counts
            self.times(tokens[at:], shape[at:])
            return
        before = len(self.items)
        start = self.absolute
        self.statement(list(tokens[at:]), shape[at:])
        count = self.constant(expression)
        if count is not None and count < 0:
            del self.items[before:]
            raise ExpressionError(f"TIMES value {count} is negative")
        count = None if count is None else repetitions(count)
        if start is not None and self.absolute is not None:
            if count is None:
                raise ExpressionError("times in absolute space needs a constant count")
            self.absolute = start + (self.absolute - start) * count
            return
        made = self.items[before:]
        del self.items[before:]
        if not made:
            return
        if len(made) > 1 or isinstance(made[0], Symbol | Switch | Equ):
            raise TokenError("this cannot be repeated", tokens[at])
        body = made[0]
        if count is not None and type(body) is bytes:
            if count * len(body) > MAX_IMAGE:
                raise ExpressionError(f"{count * len(body)} bytes are more than a section may hold ({MAX_IMAGE})")
            self.repeated[before] = count
            self.items.append(body * count)
        elif count is not None and type(body) is Reserve and type(body.expression) is int:
            self.items.append(Reserve(max(body.expression, 0) * count, body.unit))
        else:
            self.items.append(Times(expression if count is None else count, body))

    def equ(self, tokens: Sequence[str], shape: str) -> None:
        expression = self.expression(tokens[2:], shape[2:])
        value = self.constant(expression)
        known = self.symbol(tokens[0])
        if value is not None and known.constant and known.offset == value:
            return  # the same again is no contradiction
        symbol = self.define(tokens[0])
        if value is not None:
            self.define_constant(symbol, value)
            return
        if self.absolute is not None:
            expression = at_place(expression, self.absolute)
        self.items.append(Equ(symbol, expression))

    # --- Directives ---------------------------------------------------------------------------------------------------

    def primitive(self, tokens: Sequence[str], shape: str) -> None:
        """A directive in brackets."""
        if tokens[0].lower() in DIRECTIVES:
            DIRECTIVES[tokens[0].lower()](self, tokens, "d" + shape[1:])
        else:
            raise TokenError(f"unrecognized directive [{tokens[0]}]" + did_you_mean(tokens[0], DIRECTIVES), tokens[0])

    def directive(self, tokens: Sequence[str], shape: str) -> None:
        name = tokens[0].lower()
        self.preprocessor.count_calls(STANDARD_MACROS.get(name, 1))
        DIRECTIVES[name](self, tokens, shape)

    def set_mode(
        self,
        bits: int | None = None,
        default_rel: bool | None = None,
        level: int | None = None,
        bnd: bool | None = None,
    ) -> None:
        """Changes what instructions are encoded for."""
        self.mode = Mode(
            self.mode.bits if bits is None else bits,
            self.options.optimise,
            self.mode.default_rel if default_rel is None else default_rel,
            self.mode.level if level is None else level,
            self.mode.bnd if bnd is None else bnd,
        )
        self.plain.clear()

    def enter_section(self, name: str) -> Section:
        """The section of a name, made if need be."""
        section = self.sections.get(name)
        if section is None:
            section = self.sections[name] = Section(name)
            self.format.new_section(section)
        return section

    def enter_absolute(self, expression: Any) -> None:
        value = self.constant(expression)
        if value is None:
            self.layout.catch_up()
            if evaluate(expression, self.layout.section, self.layout.offset) is None:
                raise self.undefined_before_use(expression)
        self.section = SCALAR
        self.absolute = value
        if value is None:
            self.items.append(Switch(SCALAR, expression))

    # --- The end ------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Settles the layout, places the sections and writes their bytes."""
        self.layout.settle(list(self.sections.values()))
        self.format.place(self)
        self.format.prepare(self)
        for symbol in self.symbols.values():
            if symbol.section is None:
                symbol.section = UNDEFINED
        for section in self.sections.values():
            section.offset = 0
        section, offset = self.first, 0
        overlay = False  # what `absolute` names: no bytes
        points = [*self.switch_points, (len(self.items) + 1, self.switches)]
        point = 0
        for index, item in enumerate(self.items):
            while points[point][0] <= index:
                self.switches = points[point][1]
                point += 1
            kind = type(item)
            self.offsets.append(offset)
            if kind is bytes and not overlay:
                section.parts.append(item)  # type: ignore[arg-type]
                offset += len(item)  # type: ignore[arg-type]
            elif kind is Symbol:
                continue
            elif isinstance(item, Switch):
                if not overlay:
                    section.offset = offset
                try:
                    section, offset = item.enter(section, offset)
                    overlay = item.overlay
                except ExpressionError as error:
                    self.late_error(index, error)
            elif kind is bytes:
                offset += len(item)  # type: ignore[arg-type]
            else:
                self.place, self.finishing = self.places[index], index
                try:
                    code = item.emit(section, offset, self)  # type: ignore[union-attr]
                except (ExpressionError, EncodeError) as error:
                    self.late_error(index, error)
                    with contextlib.suppress(ExpressionError, EncodeError):  # where the layout has the next one
                        offset += item.size(section, offset)  # type: ignore[union-attr]
                else:
                    reserves = kind is Reserve or _reserves(item)
                    if overlay or (reserves and (section.nobits or section is SCALAR)):
                        offset += item.size(section, offset)  # type: ignore[union-attr]
                    else:
                        section.parts.append(code)
                        offset += len(code)
            if kind is Reserve or kind is Switch or offset == self.offsets[-1]:
                continue
            if overlay or section is SCALAR:
                if not _reserves(item):
                    self.report("attempt to assemble code in [ABSOLUTE] space", place=self.places[index])
            elif section.nobits and not _reserves(item):
                self.place, self.finishing = self.places[index], index
                where = f"BSS section `{section.name}'" if self.format.has_symbols else "a nobits section"
                self.warn("other", f"attempt to initialize memory in {where}: ignored")

    def late_error(self, index: int, error: ExpressionError | EncodeError) -> None:
        """Reports an error in an item after its line has been left."""
        if isinstance(error, EncodeError):
            item = self.items[index]
            operands = item.operands if isinstance(item, Instruction) else ()
            message, word = encode_message(error, operands), error.word
        else:
            message, word = error.message, error.name
            if "not defined" in message and word in self.symbols and self.symbols[word].defined:
                message = f"the value of symbol `{word}' depends on itself"
            elif "not defined" in message:
                defined = [name for name, symbol in self.symbols.items() if symbol.defined]
                message += did_you_mean(word, defined)
        self.report(message, place=self.places[index], text=self.texts.get(index), word=word)


def _reserves(item: Item) -> bool:
    """A repeated reservation of space."""
    return type(item) is Times and type(item.body) is Reserve


_AS_NAMES = str.maketrans(dict.fromkeys("IDRTEB", "i"))  # a label may be named like an instruction


def _with_names(shape: str) -> str:
    """The shape of an instruction with the keywords in its operands taken for names."""
    at = shape.find("I") + 1
    return shape[:at] + shape[at:].translate(_AS_NAMES)


_branches: dict[Any, Any] = {}


def _branch_forms(mode: Mode, mnemonic: str, operands: tuple[Any, ...], prefixes: tuple[str, ...]) -> Any:
    """The encoding of a branch, and its near one if it may turn out to need that."""
    code = encoded(mode, mnemonic, operands, prefixes)
    operand = operands[0]
    is_short = any(fixup.kind == "rel" and fixup.size == 1 for fixup in code.fixups)
    conditional = mnemonic[0] == "j" and mnemonic[1:] in CONDITION_CODES
    if conditional and not mode.near_conditions:
        if operand.distance == "near":
            raise EncodeError("this processor has no near conditional jump")
        if operand.distance or operand.strict:
            return code, None
        around = _around(mode, mnemonic, operand, prefixes)
        return (around, None) if mode.optimise == 1 else (code, around)
    if operand.distance or operand.strict or not is_short:
        return code, None
    try:
        return code, encoded(mode, mnemonic, (operand._replace(distance="near"), *operands[1:]), prefixes)
    except EncodeError:
        return code, None


def _around(mode: Mode, mnemonic: str, operand: Imm, prefixes: tuple[str, ...]) -> Encoded:
    """A conditional jump for processors that have only short ones: the opposite one around a near jump."""
    jump = encoded(mode, "jmp", (operand._replace(distance="near"),), prefixes)
    opposite = encoded(mode, "j" + CONDITION_CODES[mnemonic[1:]], (operand._replace(distance="short"),), ())
    before = opposite.data[:-1] + bytes((len(jump.data),))
    return Encoded(before + jump.data, tuple(f._replace(offset=f.offset + len(before)) for f in jump.fixups))


def _relative(mode: Mode, operands: Any, expressions: Any) -> Any:
    """Makes expressions of the constant addresses that 64-bit code may hold relative to RIP."""
    for index, operand in enumerate(operands):
        if type(operand) is not Mem or operand.base is not None or operand.index is not None or operand.disp is None:
            continue
        if operand.rel or (operand.rel is None and mode.default_rel):
            expressions = (*expressions, (index, "disp", operand.disp))
    return operands, expressions
