"""Assembles a source: takes the preprocessor's lines one by one and makes the program's items of them."""

from __future__ import annotations

import copy
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from asm import output_bin
from asm.diagnostics import AsmError, Diagnostic, Note, did_you_mean, nearest_forms
from asm.expression import (
    HERE, SCALAR, START, UNDEFINED, ExpressionError, Linear, Section, Symbol, evaluate, is_constant,
)  # fmt: skip
from asm.ir import (
    MAX_IMAGE, Branch, Equ, Fixed, Instruction, Item, Mode, Patch, Reserve, Switch, Times, encoded,
)  # fmt: skip
from asm.layout import Layout
from asm.operands import EncodeError, Imm, Mem, Operand
from asm.parse import CHARACTERS, NUMBERS, ParseError, TokenError, builder, explain
from asm.preprocess import Place, Preprocessor, SourceError
from asm.tokens import DATA, MACRO, RESERVE, TOKEN, Kinds, encode_text, mnemonics, string_bytes, unquote

MAX_ERRORS = 1000  # enough for any human; keeps a hostile source from filling memory with messages
MAX_ROUNDS = 20  # of assembling again where %if or %assign looked at addresses
STATEMENT_STARTS = frozenset("IDRTEBpdr")
TIMES_BODY = frozenset("IDRBpTrd")
BRANCHES = frozenset(
    """jmp call ja jae jb jbe jc je jg jge jl jle jna jnae jnb jnbe jnc jne jng jnge jnl jnle jno jnp jns jnz jo jp jpe jpo
    js jz jcxz jecxz jrcxz loop loope loopne loopz loopnz xbegin""".split()
)
WARNINGS_OFF_BY_DEFAULT = frozenset(("macro-def-case-single", "reloc-abs-byte", "reloc-rel"))


class _Symbols(dict[str, Symbol]):
    def __missing__(self, name: str) -> Symbol:
        symbol = self[name] = Symbol(name)
        return symbol


class Options:
    """What a command line or a call asks for."""

    def __init__(
        self,
        bits: int = 16,
        defines: Mapping[str, object] | Iterable[tuple[str, object]] = (),
        undefines: Sequence[str] = (),
        include: Sequence[str | os.PathLike[str]] = (),
        preinclude: Sequence[str] = (),
        optimise: bool = True,
        listing: bool = False,
        warnings: Mapping[str, bool] | None = None,
        output_format: str = "bin",
    ) -> None:
        self.bits = bits
        self.defines = list(defines.items() if isinstance(defines, Mapping) else defines)
        self.undefines = list(undefines)
        self.include = [os.fspath(path) for path in include]
        self.preinclude = list(preinclude)
        self.optimise = optimise
        self.listing = listing
        self.warnings = dict(warnings or {})
        self.output_format = output_format


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
        self.absolute: int | None = None  # the place in `absolute`, while it is a constant
        self.structures: list[tuple[str, str, Any, Place]] = []  # open struc and istruc
        self.globals: list[str] = []
        self.externals: set[str] = set()
        self.depends_on_layout = False
        self.operands: Sequence[Operand] = ()  # of the instruction at hand, for messages
        self.included: set[int] = set()  # items that incbin made
        self.repeated: dict[int, int] = {}  # items that a constant times made, and how often; both for the listing
        self.offsets: list[int] = []  # of each item in its section, once it is settled
        self.load_order: list[Section] = []
        self._last_label = ""
        self._anonymous = 0
        self._warning_states: list[dict[str, bool]] = []
        for symbol_name, (section_name, offset) in (known or {}).items():
            symbol = self.symbols[symbol_name]
            symbol.section = SCALAR if section_name == SCALAR.name else self.enter_section(section_name)
            symbol.offset = offset
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
            if not self.options.warnings.get(warning, self.options.warnings.get("all", warning not in WARNINGS_OFF_BY_DEFAULT)):
                return
            if self.options.warnings.get("error") or self.options.warnings.get(f"error={warning}"):
                severity = "error"
        diagnostic = make_diagnostic(severity, message, place or self.place, text, column, word, warning)
        if severity == "warning":
            if len(self.warnings) < MAX_ERRORS:
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
            self.report(f"{kind} `{name}' is not closed", place=place)

    def line(self, tokens: list[str], shape: str, text: str) -> None:
        """Assembles one line.

        Args:
            tokens, shape: of the line, which is not empty.
            text: the line after preprocessing.
        """
        before = len(self.items)
        try:
            whole = shape
            if shape[0] in "iId" and (shape[0] == "i" or shape[1:2] == ":"):
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
                elif shape[1] in STATEMENT_STARTS and self.is_statement(shape[1:]):
                    self.label(tokens[0])
                    tokens, shape = tokens[1:], shape[1:]
                else:
                    raise TokenError(f"unknown instruction `{tokens[0]}'" + did_you_mean(tokens[0], mnemonics()), tokens[0])
                if shape[0] == "E":
                    self.equ([self._last_label, *tokens], "i" + shape)
                    return
            self.statement(tokens, shape)
            if len(self.items) == before + 1 and whole is shape and type(self.items[before]) is bytes:
                if len(self.plain) < 200_000 and self.absolute is None and self.preprocessor.record is None:
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
            self.report(encode_message(error, self.operands), text=text, word=tokens[0])
        finally:
            while len(self.places) < len(self.items):
                self.places.append(self.place)

    def is_statement(self, shape: str) -> bool:
        """Whether what follows a name makes that name a label: a register alone does not begin a statement."""
        return shape[0] != "r" or builder("statement", shape) is not None

    def statement(self, tokens: list[str], shape: str) -> None:
        """Assembles what stands after the label."""
        first = shape[0]
        if first in "Ipr":
            self.instruction(tokens, shape)
        elif first == "D":
            self.data(tokens, shape)
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
            self.incbin(tokens, shape)
        elif first == "E":
            raise TokenError("equ without a label", tokens[0])
        elif first == "i":
            raise TokenError(f"unknown instruction `{tokens[0]}'" + did_you_mean(tokens[0], mnemonics()), tokens[0])
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
            raise TokenError(f"label `{symbol.name}' inconsistently redefined", name)
        if symbol.name in self.externals:
            raise TokenError(f"label `{symbol.name}' is declared external", name)
        symbol.defined = True
        symbol.where = self.place
        return symbol

    def label(self, name: str) -> None:
        """Defines a label here."""
        self._last_label = name
        if name[0] != ".":
            self.scope = name[1:] if name[0] == "$" else name
        symbol = self.define(name)
        if self.absolute is not None:
            symbol.section, symbol.offset, symbol.constant = SCALAR, self.absolute, True
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
        build = builder("expr", shape) if shape else None
        if build is None:
            raise self.bad_expression(tokens, shape)
        return build(tokens, self.symbol)

    @staticmethod
    def bad_expression(tokens: Sequence[str], shape: str) -> ParseError:
        if not shape:
            return ParseError("an expression is wanted", 0)
        error = explain(["dd", *tokens], "D" + shape)
        return ParseError(error.message, max(error.index - 1, 0))

    def constant(self, expression: Any) -> int | None:
        """The value of an expression if no later pass can change it."""
        if type(expression) is int:
            return expression
        if self.absolute is not None:
            if not is_constant(_without_places(expression)):
                return None
        elif not is_constant(expression):
            return None
        value = evaluate(expression, SCALAR, self.absolute or 0)
        return value if isinstance(value, int) else None

    def evaluate_now(self, tokens: Sequence[str], shape: str) -> int:
        """The value of a preprocessor's expression; places are those of this pass so far.

        Raises:
            ParseError, TokenError, ExpressionError: there is none.
        """
        expression = self.expression(tokens, shape)
        value: int | Linear | None = self.constant(expression)
        if value is None:
            self.depends_on_layout = True
            self.layout.catch_up()
            value = evaluate(expression, self.layout.section, self.layout.offset)
            if self.absolute is not None:
                value = evaluate(expression, SCALAR, self.absolute)
        if value is None:
            raise self.undefined_before_use(expression)
        if isinstance(value, Linear):
            raise ExpressionError("a constant is wanted here, not an address")
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
        if build is None:
            raise explain(tokens, shape)
        prefixes, mnemonic, operands, expressions = build(tokens, self.symbol)
        self.operands = operands
        mode = self.mode
        if mnemonic in BRANCHES and len(operands) == 1 and type(operands[0]) is Imm:
            self.branch(mode, mnemonic, operands[0], prefixes, expressions)
            return
        if mode.bits == 64:
            operands, expressions = _relative(mode, operands, expressions)
        if expressions:
            expressions, operands = self.fold(expressions, operands)
        if not expressions:
            code = encoded(mode, mnemonic, operands, prefixes)
            for text in code.warnings:
                self.warn("number-overflow", text)
            self.items.append(code.data)
            return
        item = Instruction(mode, mnemonic, operands, prefixes, expressions)
        self.items.append(item)
        if all(type(e) is Symbol and e.section is not SCALAR and e.section is not None and e.defined for _, _, e in expressions):
            item.size(self.section, 0)

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

    def branch(self, mode: Mode, mnemonic: str, operand: Imm, prefixes: tuple[str, ...], expressions: Any) -> None:
        expression = expressions[0][2] if expressions else operand.value
        operand = operand._replace(value=None)
        key = mode, mnemonic, operand, prefixes
        forms = _branches.get(key)
        if forms is None:
            forms = _branches[key] = _branch_forms(mode, mnemonic, operand, prefixes)
        code, near = forms
        if near is None:
            self.items.append(Fixed(code.data, tuple(Patch(f.offset, f.size, f.kind, expression) for f in code.fixups)))
        else:
            self.items.append(Branch(code, near, expression))

    def data(self, tokens: Sequence[str], shape: str) -> None:
        width = DATA[tokens[0].lower()]
        if len(shape) == 1:
            self.warn("db-empty", "no operand for data declaration")
            return
        if shape[2::2].strip(",") or not len(shape) % 2 == 0:
            elements = _split(tokens, shape, 1)
        elif width == 1 and not shape[1::2].strip("n"):
            values = [NUMBERS[text] for text in tokens[1::2]]
            try:
                self.items.append(bytes(values))
                return
            except ValueError:
                elements = [([text], "n") for text in tokens[1::2]]
        else:
            elements = [([text], kind) for text, kind in zip(tokens[1::2], shape[1::2], strict=True)]
        data, patches = self.data_elements(elements, width)
        self.items.append(Fixed(data, tuple(patches)) if patches else data)

    def data_elements(self, elements: Iterable[tuple[Sequence[str], str]], width: int) -> tuple[bytes, list[Patch]]:
        """The bytes of a list of data, and the fields in it that have no value yet."""
        data = bytearray()
        patches = []
        mask = (1 << 8 * width) - 1
        for tokens, shape in elements:
            if shape == "n":
                value: Any = NUMBERS[tokens[0]]
            elif shape == "s":
                string = string_bytes(tokens[0])
                data += string + bytes(-len(string) % width)
                continue
            elif shape == "?":
                data += bytes(width)
                continue
            elif shape in ("f", "-f", "+f"):
                data += float_bytes("".join(tokens), width)
                continue
            elif "u" in shape:
                more, fields = self.dup(tokens, shape, width)
                if len(data) + len(more) > MAX_IMAGE:
                    raise ExpressionError(f"data of more than {MAX_IMAGE} bytes")
                patches += [field._replace(offset=field.offset + len(data)) for field in fields]
                data += more
                continue
            else:
                value = self.expression(tokens, shape)
                if type(value) is not int:
                    constant = self.constant(value)
                    if constant is None:
                        patches.append(Patch(len(data), width, "abs", value))
                    value = constant or 0
            if width == 10:
                raise TokenError("integer supplied as DT data", tokens[0])
            if not -(mask >> 1) - 1 <= value <= mask:
                name = {1: "byte", 2: "word", 4: "dword"}.get(width, "")
                self.warn("number-overflow", f"{name} data exceeds bounds")
            data += (value & mask).to_bytes(width, "little")
        return bytes(data), patches

    def dup(self, tokens: Sequence[str], shape: str, width: int) -> tuple[bytes, list[Patch]]:
        """``count dup (data, ...)``."""
        at = shape.index("u")
        if shape[at + 1 : at + 2] != "(" or shape[-1] != ")":
            raise explain(["db", *tokens], "D" + shape)
        count = self.constant(self.expression(tokens[:at], shape[:at]))
        if count is None or count < 0:
            raise TokenError("dup needs a constant count that is not negative", tokens[at])
        data, patches = self.data_elements(_split(tokens[:-1], shape[:-1], at + 2), width)
        if count * len(data) > MAX_IMAGE:
            raise ExpressionError(f"data of more than {MAX_IMAGE} bytes")
        repeated = [p._replace(offset=p.offset + n * len(data)) for n in range(count if patches else 0) for p in patches]
        return data * count, repeated

    def reserve(self, tokens: Sequence[str], shape: str) -> None:
        expression = self.expression(tokens[1:], shape[1:])
        self.reserve_bytes(expression, RESERVE[tokens[0].lower()])

    def reserve_bytes(self, expression: Any, unit: int) -> None:
        count = self.constant(expression)
        if count is not None and count < 0:
            raise ExpressionError(f"RESx of a negative count ({count})")
        if self.absolute is not None:
            if count is not None:
                self.absolute += count * unit
                return
            self.leave_constant_absolute()
        elif not self.section.nobits and self.section is not SCALAR:
            self.warn("zeroing", f"uninitialized space declared in {self.section.name} section: zeroing")
        self.items.append(Reserve(expression if count is None else count, unit))

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
        before = len(self.items)
        start = self.absolute
        self.statement(list(tokens[at:]), shape[at:])
        count = self.constant(expression)
        if count is not None and count < 0:
            del self.items[before:]
            raise ExpressionError(f"TIMES value {count} is negative")
        if start is not None and self.absolute is not None:
            if count is None:
                raise ExpressionError("times in absolute space needs a constant count")
            self.absolute = start + (self.absolute - start) * count
            return
        made = self.items[before:]
        del self.items[before:]
        if not made:
            return
        if len(made) > 1:
            raise TokenError("this cannot be repeated", tokens[at])
        body = made[0]
        if count is not None and type(body) is bytes:
            if count * len(body) > MAX_IMAGE:
                raise ExpressionError(f"{count * len(body)} bytes are more than a section may hold ({MAX_IMAGE})")
            self.repeated[len(self.items)] = count
            self.items.append(body * count)
        else:
            self.items.append(Times(expression if count is None else count, body))

    def equ(self, tokens: Sequence[str], shape: str) -> None:
        expression = self.expression(tokens[2:], shape[2:])
        symbol = self.define(tokens[0])
        value = self.constant(expression)
        if value is not None:
            symbol.section, symbol.offset, symbol.constant = SCALAR, value, True
            return
        if self.absolute is not None:
            expression = _at_place(expression, self.absolute)
        self.items.append(Equ(symbol, expression))

    def incbin(self, tokens: Sequence[str], shape: str) -> None:
        parts = _split(tokens, shape, 1)
        if parts[0][1] != "s" or len(parts) > 3:
            raise explain(tokens, shape)
        values = [self.constant(self.expression(*part)) for part in parts[1:]]
        if None in values:
            raise ExpressionError("incbin needs constant offset and length")
        skip = max(values[0] or 0, 0) if values else 0
        name = unquote(parts[0][0][0])
        try:
            with self.preprocessor.open(name) as file:
                file.seek(skip)
                data = file.read(MAX_IMAGE + 1 if len(values) < 2 else min(max(values[1] or 0, 0), MAX_IMAGE + 1))
        except OSError as error:
            raise TokenError(f"`incbin': unable to open file `{name}': {error.strerror}", parts[0][0][0]) from None
        if len(data) > MAX_IMAGE:
            raise ExpressionError(f"`incbin' of more than {MAX_IMAGE} bytes")
        self.included.add(len(self.items))
        self.items.append(data)

    def follow(self, text: str) -> None:
        """Takes note of a line that is only being preprocessed: the directives that the preprocessor can ask about."""
        tokens, shape = self.preprocessor.tokens, self.preprocessor.shape
        if shape[0] == "d" and tokens[0].lower() in ("bits", "use16", "use32", "use64", "section", "segment", "absolute"):
            self.line(tokens, shape, text)

    # --- Directives ---------------------------------------------------------------------------------------------------

    def primitive(self, tokens: Sequence[str], shape: str) -> None:
        """A directive in brackets."""
        if tokens[0].lower() in _DIRECTIVES:
            self.directive(tokens, "d" + shape[1:])
        else:
            raise TokenError(f"unrecognized directive [{tokens[0]}]" + did_you_mean(tokens[0], _DIRECTIVES), tokens[0])

    def directive(self, tokens: Sequence[str], shape: str) -> None:
        _DIRECTIVES[tokens[0].lower()](self, tokens, shape)

    def set_mode(self, bits: int | None = None, default_rel: bool | None = None) -> None:
        """Changes what instructions are encoded for."""
        self.mode = Mode(
            self.mode.bits if bits is None else bits,
            self.options.optimise,
            self.mode.default_rel if default_rel is None else default_rel,
        )
        self.plain.clear()

    def directive_bits(self, tokens: Sequence[str], shape: str) -> None:
        value = self.evaluate_now(tokens[1:], shape[1:])
        if value not in (16, 32, 64):
            raise TokenError(f"`{value}' is not a valid segment size; must be 16, 32 or 64", tokens[-1])
        self.set_mode(bits=value)

    def directive_use(self, tokens: Sequence[str], shape: str) -> None:
        if len(shape) > 1:
            raise TokenError(f"`{tokens[0]}' takes no operand", tokens[1])
        self.set_mode(bits=int(tokens[0][3:]))

    def directive_default(self, tokens: Sequence[str], shape: str) -> None:
        for token in tokens[1:]:
            word = token.lower()
            if word in ("rel", "abs"):
                self.set_mode(default_rel=word == "rel")
            elif word not in ("bnd", "nobnd", ","):
                raise TokenError(f"unrecognized default `{token}'", token)

    def directive_org(self, tokens: Sequence[str], shape: str) -> None:
        value = self.evaluate_now(tokens[1:], shape[1:])
        if self.origin is not None:
            raise TokenError("program origin redefined", tokens[0])
        self.origin = value

    def enter_section(self, name: str) -> Section:
        """The section of a name, made if need be."""
        section = self.sections.get(name)
        if section is None:
            section = self.sections[name] = Section(name)
            section.nobits = name in (".bss", ".nobits")
        return section

    def directive_section(self, tokens: Sequence[str], shape: str) -> None:
        if len(tokens) == 1:
            raise TokenError("a section's name is wanted", tokens[0])
        at = 1
        name = tokens[1]
        while at + 1 < len(tokens) and shape[at + 1] == "-" or (at + 1 < len(tokens) and tokens[at][-1:] == "-"):
            at += 1  # a name with a dash in it comes as several tokens
            name += tokens[at]
        if shape[1] == "s":
            name = unquote(name)
        section = self.enter_section(name)
        output_bin.section_attributes(self, section, tokens[at + 1 :], shape[at + 1 :])
        self.absolute = None
        self.section = section
        self.items.append(Switch(section))

    def directive_absolute(self, tokens: Sequence[str], shape: str) -> None:
        expression = self.expression(tokens[1:], shape[1:])
        self.enter_absolute(expression)

    def enter_absolute(self, expression: Any) -> None:
        value = self.constant(expression)
        self.section = SCALAR
        self.absolute = value
        if value is None:
            self.items.append(Switch(SCALAR, expression))

    def directive_global(self, tokens: Sequence[str], shape: str) -> None:
        for names, kinds in _split(tokens, shape, 1):
            if not kinds or kinds[0] not in "iId":
                raise TokenError(f"`{tokens[0]}' wants the names of symbols", tokens[0])
            if len(kinds) > 1:
                raise TokenError("binary output format does not support any special symbol types", names[1])
            if tokens[0].lower() == "extern":
                self.externals.add(names[0])
            else:
                self.globals.append(names[0])

    def directive_common(self, tokens: Sequence[str], shape: str) -> None:
        raise TokenError("binary output format does not support common variables", tokens[0])

    def directive_ignored(self, tokens: Sequence[str], shape: str) -> None:
        """``cpu`` and ``float`` restrict or tune what this assembler always accepts."""
        if len(tokens) < 2:
            raise TokenError(f"`{tokens[0]}' wants an operand", tokens[0])

    def directive_list(self, tokens: Sequence[str], shape: str) -> None:
        if shape[1:] not in ("+", "-"):
            raise TokenError("list wants + or -", tokens[0])
        self.preprocessor.lists = shape[1] == "+"

    def directive_warning(self, tokens: Sequence[str], shape: str) -> None:
        words = "".join(tokens[1:])
        if words in ("push", "pop"):
            if words == "push":
                self._warning_states.append(dict(self.options.warnings))
            elif self._warning_states:
                self.options.warnings = self._warning_states.pop()
            return
        name = words.lstrip("+-*")
        if not name:
            raise TokenError("the name of a warning is wanted", tokens[0])
        self.options.warnings[name] = not words.startswith("-")

    def directive_align(self, tokens: Sequence[str], shape: str) -> None:
        parts = _split(tokens, shape, 1, 1)
        size = self.evaluate_now(*parts[0])
        if size < 1 or size & (size - 1):
            raise TokenError(f"alignment `{size}' is not a power of two", tokens[1])
        if self.section is not SCALAR:
            self.section.align = max(self.section.align or 1, size)
        gap = ("&", ("-", START, HERE), size - 1)
        if len(parts) > 1:
            self.filled(gap, *parts[1])
        elif tokens[0].lower() == "alignb":
            self.pad(gap)
        else:
            self.items.append(Times(gap, b"\x90"))

    def filled(self, count: Any, tokens: Sequence[str], shape: str) -> None:
        """Repeats a statement to fill a gap."""
        before = len(self.items)
        self.statement(list(tokens), shape)
        made = self.items[before:]
        del self.items[before:]
        if len(made) == 1:
            self.items.append(Times(count, made[0]))

    def pad(self, gap: Any) -> None:
        """Reserves a gap."""
        if self.absolute is not None:
            self.absolute += self.constant(gap) or 0
        else:
            self.items.append(Reserve(gap, 1))

    def directive_sectalign(self, tokens: Sequence[str], shape: str) -> None:
        if tokens[1:] and tokens[1].lower() in ("on", "off"):
            return
        size = self.evaluate_now(tokens[1:], shape[1:])
        if size < 1 or size & (size - 1):
            raise TokenError(f"alignment `{size}' is not a power of two", tokens[1])
        self.section.align = max(self.section.align or 1, size)

    def directive_struc(self, tokens: Sequence[str], shape: str) -> None:
        parts = _split(tokens, shape, 1)
        if parts[0][1] != "i" or len(parts) > 2:
            raise TokenError("struc wants a name, and maybe an offset", tokens[0])
        start = self.expression(*parts[1]) if len(parts) == 2 else 0
        name = parts[0][0][0]
        self.structures.append(("struc", name, self.preprocessor.section_line, self.place))
        self.enter_absolute(start)
        self.label(name)

    def directive_endstruc(self, tokens: Sequence[str], shape: str) -> None:
        if not self.structures or self.structures[-1][0] != "struc":
            raise TokenError("endstruc without struc", tokens[0])
        _, name, section_line, _ = self.structures.pop()
        size = ("-", HERE, self.symbols[name])
        symbol = self.define(f"{name}_size")
        value = self.constant(size)
        if value is not None:
            symbol.section, symbol.offset, symbol.constant = SCALAR, value, True
        else:
            self.items.append(Equ(symbol, size if self.absolute is None else _at_place(size, self.absolute)))
        self.reenter(section_line)

    def reenter(self, section_line: str) -> None:
        """Goes back to the section that a directive text names."""
        tokens = [token for token in TOKEN.findall(section_line) if token]
        self.primitive(tokens[1:-1], "".join(map(self.kinds.__getitem__, tokens[1:-1])))

    def directive_istruc(self, tokens: Sequence[str], shape: str) -> None:
        if shape[1:] != "i":
            raise TokenError("istruc wants the name of a struc", tokens[0])
        self._anonymous += 1
        start = self.symbols[f"..@{self._anonymous}.istruc"]
        start.defined = True
        self.items.append(start)
        self.structures.append(("istruc", tokens[1], start, self.place))

    def inside_istruc(self, tokens: Sequence[str]) -> tuple[str, Symbol]:
        if not self.structures or self.structures[-1][0] != "istruc":
            raise TokenError(f"{tokens[0]} without istruc", tokens[0])
        _, name, start, _ = self.structures[-1]
        return name, start

    def directive_at(self, tokens: Sequence[str], shape: str) -> None:
        name, start = self.inside_istruc(tokens)
        parts = _split(tokens, shape, 1, 1)
        field: Any
        if parts[0][1] == "i" and parts[0][0][0][0] == ".":
            field = self.symbols[name + parts[0][0][0]]
        else:
            field = self.expression(*parts[0])
        self.items.append(Times(("-", ("-", field, self.symbols[name]), ("-", HERE, start)), b"\0"))
        if len(parts) > 1 and parts[1][1]:
            self.statement(list(parts[1][0]), parts[1][1])

    def directive_iend(self, tokens: Sequence[str], shape: str) -> None:
        name, start = self.inside_istruc(tokens)
        self.structures.pop()
        self.items.append(Times(("-", self.symbols[f"{name}_size"], ("-", HERE, start)), b"\0"))

    # --- The end ------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Settles the layout, places the sections and writes their bytes."""
        self.layout.settle(list(self.sections.values()))
        output_bin.place(self)
        for symbol in self.symbols.values():
            if symbol.section is None:
                symbol.section = UNDEFINED
        for section in self.sections.values():
            section.offset = 0
        section, offset = self.first, 0
        for index, item in enumerate(self.items):
            kind = type(item)
            self.offsets.append(offset)
            if kind is bytes:
                section.parts.append(item)  # type: ignore[arg-type]
                offset += len(item)  # type: ignore[arg-type]
            elif kind is Symbol:
                continue
            elif kind is Switch:
                section.offset = offset
                try:
                    section, offset = item.section, self.layout.origin(item, section, offset)  # type: ignore[union-attr, arg-type]
                except ExpressionError as error:
                    self.late_error(index, error)
            else:
                self.place = self.places[index]
                try:
                    code = item.emit(section, offset, self.warn)  # type: ignore[union-attr]
                except (ExpressionError, EncodeError) as error:
                    self.late_error(index, error)
                else:
                    if kind is Reserve and (section.nobits or section is SCALAR):
                        offset += item.size(section, offset)  # type: ignore[union-attr]
                    else:
                        section.parts.append(code)
                        offset += len(code)
            if section.nobits and kind is not Reserve and offset != self.offsets[-1] and kind is not Switch:
                self.place = self.places[index]
                self.warn("other", "attempt to initialize memory in a nobits section: ignored")

    def late_error(self, index: int, error: ExpressionError | EncodeError) -> None:
        """Reports an error in an item after its line has been left."""
        if isinstance(error, EncodeError):
            item = self.items[index]
            operands = item.operands if isinstance(item, Instruction) else ()
            message, word = encode_message(error, operands), ""
        else:
            message, word = error.message, error.name
            if word in self.externals:
                message = "binary output format does not support external references"
            elif "not defined" in message:
                defined = [name for name, symbol in self.symbols.items() if symbol.defined]
                message += did_you_mean(word, defined)
        self.report(message, place=self.places[index], text=self.texts.get(index), word=word)


_branches: dict[Any, Any] = {}


def _branch_forms(mode: Mode, mnemonic: str, operand: Imm, prefixes: tuple[str, ...]) -> Any:
    """The encoding of a branch, and its near one if it may turn out to need that."""
    code = encoded(mode, mnemonic, (operand,), prefixes)
    is_short = any(fixup.kind == "rel" and fixup.size == 1 for fixup in code.fixups)
    if operand.distance or operand.strict or not is_short:
        return code, None
    try:
        return code, encoded(mode, mnemonic, (operand._replace(distance="near"),), prefixes)
    except EncodeError:
        return code, None


def _relative(mode: Mode, operands: Any, expressions: Any) -> Any:
    """Makes expressions of the constant addresses that 64-bit code may hold relative to RIP."""
    for index, operand in enumerate(operands):
        if type(operand) is Mem and operand.base is None and operand.index is None and operand.disp is not None:
            if operand.rel or (operand.rel is None and mode.default_rel):
                expressions = (*expressions, (index, "disp", operand.disp))
    return operands, expressions


def _without_places(expression: Any) -> Any:
    """The expression with numbers for ``$`` and ``$$``, to ask whether the rest is constant."""
    return _at_place(expression, 0)


def _at_place(expression: Any, here: int) -> Any:
    """The expression with ``$`` and ``$$`` of absolute space put in."""
    if expression is HERE:
        return here
    if expression is START:
        return 0
    if isinstance(expression, tuple):
        return tuple(_at_place(part, here) for part in expression)
    return expression


def _split(tokens: Sequence[str], shape: str, start: int, most: int = -1) -> list[tuple[list[str], str]]:
    """Splits tokens from `start` on at the commas outside parentheses, at most `most` times."""
    parts = []
    depth = 0
    begin = start
    for index in range(start, len(shape)):
        kind = shape[index]
        if kind in "([{":
            depth += 1
        elif kind in ")]}":
            depth -= 1
        elif kind == "," and depth == 0 and most:
            parts.append((list(tokens[begin:index]), shape[begin:index]))
            begin = index + 1
            most -= 1
    if begin < len(shape) or not parts:
        parts.append((list(tokens[begin:]), shape[begin:]))
    return parts


def float_bytes(text: str, width: int) -> bytes:
    """A floating-point constant in IEEE 754's binary16, binary32, binary64 or the processor's 80-bit format."""
    from fractions import Fraction

    digits = text.replace("_", "")
    try:
        if width in (2, 4, 8):
            return struct.pack({2: "<e", 4: "<f", 8: "<d"}[width], float(digits))
        if width == 10:
            return extended(Fraction(digits))
    except (OverflowError, ValueError):
        raise TokenError(f"overflow or error in floating-point constant `{text}'", text) from None
    raise TokenError("floating-point constant in a size that has none", text)


def extended(value: Any) -> bytes:
    """A Fraction rounded to the nearest double extended-precision number, ties to even."""
    sign = 0x8000 if value < 0 else 0
    value = abs(value)
    if not value:
        return (sign << 64).to_bytes(10, "little")
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    if value < (1 << exponent if exponent >= 0 else type(value)(1, 1 << -exponent)):
        exponent -= 1
    exponent = max(exponent, -16382)
    shift = 63 - exponent
    mantissa = round(value * (1 << shift) if shift >= 0 else value / (1 << -shift))
    if mantissa >> 64:
        mantissa >>= 1
        exponent += 1
    biased = exponent + 16383 if mantissa >> 63 else 0
    if biased >= 0x7FFF:
        raise OverflowError
    return ((sign | biased) << 64 | mantissa).to_bytes(10, "little")


def column_of(text: str, index: int) -> int:
    """The column, from 1, of the token of an index; that of the line's end where there are fewer."""
    for number, match in enumerate(match for match in TOKEN.finditer(text) if match.group(1)):
        if number == index:
            return match.start(1) + 1
    return len(TOKEN.sub(lambda m: m.group(0) if m.group(1) else "", text).rstrip()) + 1


def column_of_word(text: str, word: str) -> int:
    """The column of a token; of the first token where it is not in the line."""
    first = 0
    for match in TOKEN.finditer(text):
        token = match.group(1)
        if token:
            first = first or match.start(1) + 1
            if token == word or (word and word.endswith(token) and token[0] == "."):
                return match.start(1) + 1
    return first


def encode_message(error: EncodeError, operands: Sequence[Operand]) -> str:
    """An encoder's message with the forms that exist."""
    if not error.forms:
        return error.message
    forms = nearest_forms(operands, error.forms)
    what = "the nearest forms are" if len(forms) < len(error.forms) else "the forms are"
    return f"{error.message}; {what}: {'; '.join(forms)}"


def make_diagnostic(
    severity: str, message: str, place: Place, text: str | None, column: int, word: str, warning: str
) -> Diagnostic:
    """A diagnostic at a place, with the backtrace of the frames around it."""
    frame, number = place
    raw = frame.line(number)
    shown = raw if text is None else text
    if not column:
        column = column_of_word(shown, word)
    notes = []
    if frame.kind == "file":
        if shown is not raw and shown.strip() != raw.strip():
            notes.append(Note(frame.name, number, "the line expands to", shown, column))
            column = column_of_word(raw, word)
    else:
        notes.append(Note(frame.name, frame.number_of(number), f"in {frame.title}", shown, column))
        column = 0
    while frame.parent is not None:
        outer, number = frame.parent
        if outer.kind != "file":
            notes.append(Note(outer.name, outer.number_of(number), f"in {outer.title}", outer.line(number)))
        elif frame.kind == "file":
            notes.append(Note(outer.name, number, "included from here"))
        frame = outer
        if frame.kind == "file":
            break
    origin, number = place
    while origin.kind != "file" and origin.parent is not None:
        origin, number = origin.parent
    outermost, from_line = origin, number
    if origin is not place[0]:
        raw = origin.line(number)
        column = column_of_word(raw, "")
    else:
        raw = shown if text is not None and text.strip() == raw.strip() else raw
    while outermost.parent is not None:
        above, from_line = outermost.parent
        note = Note(above.name, from_line, "included from here")
        if note not in notes:
            notes.append(note)
        outermost = above
    return Diagnostic(severity, message, origin.name, origin.number_of(number), column, raw, tuple(notes), warning)


_DIRECTIVES: dict[str, Callable[[Assembler, Sequence[str], str], None]] = {
    "bits": Assembler.directive_bits,
    "use16": Assembler.directive_use,
    "use32": Assembler.directive_use,
    "use64": Assembler.directive_use,
    "default": Assembler.directive_default,
    "org": Assembler.directive_org,
    "section": Assembler.directive_section,
    "segment": Assembler.directive_section,
    "absolute": Assembler.directive_absolute,
    "global": Assembler.directive_global,
    "extern": Assembler.directive_global,
    "static": Assembler.directive_global,
    "required": Assembler.directive_global,
    "common": Assembler.directive_common,
    "cpu": Assembler.directive_ignored,
    "float": Assembler.directive_ignored,
    "list": Assembler.directive_list,
    "warning": Assembler.directive_warning,
    "align": Assembler.directive_align,
    "alignb": Assembler.directive_align,
    "sectalign": Assembler.directive_sectalign,
    "struc": Assembler.directive_struc,
    "endstruc": Assembler.directive_endstruc,
    "istruc": Assembler.directive_istruc,
    "at": Assembler.directive_at,
    "iend": Assembler.directive_iend,
}


class Program:
    """An assembled source.

    binary: the flat image. symbols: name to value (for a label its address). origin: the address of the image's first
    byte. sections: name to `asm.expression.Section`. warnings: what there was to warn of.
    """

    def __init__(self, assembler: Assembler) -> None:
        self._assembler = assembler
        self.binary = output_bin.image(assembler)
        self.origin = output_bin.origin(assembler)
        self.sections = {name: section for name, section in assembler.sections.items() if section.size or section.parts}
        self.warnings = assembler.warnings
        self.symbols = {
            name: symbol.offset + (symbol.section.base if symbol.section is not SCALAR else 0)
            for name, symbol in assembler.symbols.items()
            if symbol.defined
        }

    @property
    def dependencies(self) -> list[str]:
        """The files that the source includes."""
        return list(dict.fromkeys(self._assembler.preprocessor.dependencies))

    @property
    def lines(self) -> list[tuple[int, str, int]]:
        """Where code comes from: (address, file, line) for each statement that has bytes, in order of the source."""
        return output_bin.line_map(self._assembler)

    @property
    def listing(self) -> str:
        """The listing in NASM's format; unless it was asked for, the source is assembled once more for it."""
        from asm.output_listing import listing

        assembler = self._assembler
        if assembler.preprocessor.record is None:
            options = copy.copy(assembler.options)
            options.listing = True
            assembler = run(assembler.name, assembler.text, options)._assembler
        return listing(assembler)

    @property
    def map(self) -> str:
        """The sections and symbols as text."""
        from asm.output_map import symbol_map

        return symbol_map(self._assembler)


def run(name: str, text: str, options: Options) -> Program:
    """Assembles a source, again where its preprocessor asked for addresses, until they agree.

    Raises:
        AsmError: the source has errors.
    """
    known: dict[str, tuple[str, int]] = {}
    for _ in range(MAX_ROUNDS):
        try:
            assembler = Assembler(name, text, options, known)
        except SourceError as error:
            raise AsmError([Diagnostic("fatal", error.message, name, 0, 0, "")]) from None
        program = None
        try:
            assembler.collect()
            if not assembler.errors or not assembler.depends_on_layout:
                assembler.finish()
                program = Program(assembler)
        except (SourceError, ExpressionError) as error:
            assembler.report(error.message)
        if assembler.errors or program is None:
            raise AsmError(assembler.errors, assembler.warnings)
        settled = {
            n: (s.section.name, s.offset) for n, s in assembler.symbols.items() if s.section is not None and s.defined
        }
        if not assembler.depends_on_layout or settled == known:
            return program
        known = settled
    assembler.report(f"%if and %assign on addresses do not settle after {MAX_ROUNDS} rounds")
    raise AsmError(assembler.errors, assembler.warnings)


__all__ = ["Assembler", "Options", "Program", "encode_text", "run", "CHARACTERS", "MACRO"]
