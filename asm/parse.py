"""Turns the tokens of a line into operands and expressions, through a cache keyed by the line's shape.

The first line of a shape is parsed by Lark; the tree is translated to a small Python function, the builder, that makes
the operands of any line of that shape from its tokens. Builders and the compiled grammar are saved at build time
(`build_grammar_cache`), so that an ordinary source never imports Lark. A line that does not parse is parsed whole by
Lark for the place of the error and what could have stood there.
"""

from __future__ import annotations

import io
import marshal
import os
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

from asm.diagnostics import foreign_word
from asm.expression import HERE, SCALAR_OPERATORS, START, ExpressionError, adds_up, apply, apply_unary, wrap
from asm.instructions.operands import Far, Imm, Mem, Operand, Reg
from asm.tokens import SIZES, exceeds_64_bits, parse_number, string_value

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

GRAMMAR = Path(__file__).with_name("grammar.lark")
STARTS = ("line", "statement", "expr")
SEGMENTS = frozenset(("es", "cs", "ss", "ds", "fs", "gs"))

# (prefixes, mnemonic, operands, ((operand index, field, expression), ...) for what is not a constant)
Statement = tuple[tuple[str, ...], str, tuple[Operand, ...], tuple[tuple[int, str, Any], ...]]
Builder = Callable[[Sequence[str], Callable[[str], Any]], Any]


class ParseError(Exception):
    """A line that the grammar does not take; index is that of the token where it stops making sense."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.message = message
        self.index = index


class _Memo(dict[str, Any]):
    """Values of token texts, each worked out once."""

    def __init__(self, function: Callable[[str], Any]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, text: str) -> Any:
        if len(self) > 200_000:  # a long-lived process does not keep every number it ever saw
            self.clear()
        value = self[text] = self._function(text)
        return value


class TokenError(Exception):
    """A token whose text is wrong in itself."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.message = message
        self.text = text


CUT_NUMBERS: set[str] = set()  # the numbers met that do not fit 64 bits


def _number(text: str) -> int:
    try:
        if len(text) > 16 and exceeds_64_bits(text):
            CUT_NUMBERS.add(text)
        return parse_number(text)
    except ValueError:
        raise TokenError(f"invalid number `{text}'", text) from None


NUMBERS = _Memo(_number)
CHARACTERS = _Memo(string_value)
_REGISTERS = _Memo(lambda text: Reg(text.lower()))
_NAMES = _Memo(str.lower)
_SIZES = _Memo(lambda text: SIZES[text.lower()])
_SEGMENTS = _Memo(lambda text: _segment(text))


def _segment(text: str) -> str:
    name = text.lower()
    if name not in SEGMENTS:
        raise TokenError(f"`{text}' is not a segment register", text)
    return name


def _naked_segment(mnemonic: str, text: str) -> str:
    """The override of an operand without brackets; a jump's would look like a far pointer."""
    if mnemonic in ("jmp", "call"):
        raise TokenError("a far pointer begins with a number; what is in memory needs brackets", text)
    return _segment(text)


def _not_far(distance: str, register: Reg) -> Reg:
    """The register that a jump may be said to be near by."""
    if distance == "far":
        raise TokenError("a far pointer is in memory or a pair of numbers; a register has no room for it", distance)
    return register


def _address_size(text: str) -> int:
    name = text.lower()
    if name not in ("a16", "a32", "a64"):
        raise TokenError(f"`{text}' cannot stand in an address", text)
    return int(name[1:])


_ADDRESS_SIZES = _Memo(_address_size)


def _fail(message: str, text: str) -> Any:
    raise TokenError(message, text)


def base_and_index(terms: dict[object, int], scaled: frozenset[str]) -> tuple[str | None, str | None, int]:
    """Base, index and scale of an address's registers, chosen as NASM does: the first is the base unless it is scaled.

    Raises:
        ExpressionError: no addressing mode has these registers.
    """
    plain = [name for name, count in terms.items() if count == 1]
    others = [(name, count) for name, count in terms.items() if count != 1]
    if len(plain) == 2 and plain[0] in scaled:  # [eax*1+ebx] and [eax*1+ebx*1] have EBX for their base
        plain.reverse()
    if len(terms) > 2:
        raise ExpressionError("invalid effective address: it has at most two registers", "[")
    if any(count < 0 for _, count in others):
        raise ExpressionError("invalid effective address: a register is subtracted", "[")
    if len(others) > 1:
        raise ExpressionError("invalid effective address: only one register can be scaled", "[")
    base = str(plain[0]) if plain else None
    if others and others[0][1]:
        return base, str(others[0][0]), others[0][1]
    if others:  # [ebx+0*ecx] is [ebx]
        return base, None, 1
    return base, str(plain[1]) if len(plain) == 2 else None, 1


def _scaled(scale: int, register: str) -> tuple[str | None, str | None, int]:
    return (None, register, 1) if scale == 1 else base_and_index({register: scale}, frozenset((register,)))


def _two(first: str, second: str) -> tuple[str | None, str | None, int]:
    return (first, second, 1) if first != second else (None, first, 2)


def _sorted(first: str, second: str) -> tuple[str | None, str | None, int]:
    """Base and index where numbers were added up in the address: NASM goes by the alphabet then."""
    return _two(*sorted((first, second)))


def _sorted_scaled(plain: str, register: str, scale: int) -> tuple[str | None, str | None, int]:
    return _sorted(plain, register) if scale == 1 else _plain_and_scaled(plain, register, scale)


def _plain_and_scaled(plain: str, register: str, scale: int) -> tuple[str | None, str | None, int]:
    if plain == register:
        return (None, register, scale + 1) if scale else (plain, None, 1)
    if scale < 1:
        return base_and_index({plain: 1, register: scale}, frozenset((register,)))
    return plain, register, scale


_NAMESPACE = {
    "N": NUMBERS, "C": CHARACTERS, "R": _REGISTERS, "L": _NAMES, "Z": _SIZES, "SEG": _SEGMENTS, "A": _ADDRESS_SIZES,
    "HERE": HERE,
    "START": START, "W": wrap, "OP": SCALAR_OPERATORS, "APPLY": apply, "UNARY": apply_unary, "Imm": Imm, "Mem": Mem,
    "Far": Far, "FAIL": _fail, "SCALED": _scaled, "TWO": _two, "PLAIN_SCALED": _plain_and_scaled,
    "ADDS_UP": adds_up, "SORTED": _sorted, "SORTED_SCALED": _sorted_scaled, "NAKED": _naked_segment,
    "NOT_FAR": _not_far,
}  # fmt: skip


# --- From a tree to the source of a builder ---------------------------------------------------------------------------

CONSTANT, SYMBOLIC, REGISTER = range(3)  # what an expression is made of, at most
_RING = "+-*&|^"  # operators that mean the same in Python


class Code:
    """The Python source that computes a subtree, and what the subtree is made of."""

    __slots__ = ("kind", "source")

    def __init__(self, source: str, kind: int) -> None:
        self.source = source
        self.kind = kind


def _is_token(node: Any) -> bool:
    return not hasattr(node, "children")


def _expression(node: Tree[Token] | Token) -> Code:
    """The source that gives an expression: a number where it is constant, else a tree of tuples."""
    if _is_token(node):
        place = node.start_pos  # type: ignore[union-attr]
        match node.type:  # type: ignore[union-attr]
            case "NUMBER":
                return Code(f"N[t[{place}]]", CONSTANT)
            case "STRING":
                return Code(f"C[t[{place}]]", CONSTANT)
            case "REG":
                return Code(f"('reg',L[t[{place}]])", REGISTER)
            case "HERE":
                return Code("HERE", SYMBOLIC)
            case "START":
                return Code("START", SYMBOLIC)
        return Code(f"sym(t[{place}])", SYMBOLIC)
    if node.data == "binary":  # type: ignore[union-attr]
        left, operator, right = node.children  # type: ignore[union-attr]
        return _binary(_expression(left), str(operator), _expression(right))
    if node.data == "unary":  # type: ignore[union-attr]
        operator, operand = str(node.children[0]), node.children[1]  # type: ignore[union-attr]
        code = _expression(operand)
        if code.kind != CONSTANT or operator == "g":
            return Code(f"({operator!r},{code.source})", max(code.kind, SYMBOLIC))
        if operator in "-~+":
            return Code(f"W({operator}{code.source})", CONSTANT)
        return Code(f"UNARY({operator!r},{code.source})", CONSTANT)
    parts = [_expression(child) for child in node.children if not (_is_token(child) and child.type == "WRT")]  # type: ignore[union-attr]
    operator = "?" if node.data == "conditional" else "wrt"  # type: ignore[union-attr]
    return Code(f"({operator!r},{','.join(p.source for p in parts)})", max(SYMBOLIC, *(p.kind for p in parts)))


def _binary(left: Code, operator: str, right: Code) -> Code:
    kind = max(left.kind, right.kind)
    if kind != CONSTANT:
        return Code(f"({operator!r},{left.source},{right.source})", kind)
    if operator in _RING:
        return Code(f"W({left.source}{operator}{right.source})", CONSTANT)
    return Code(f"APPLY({operator!r},{left.source},{right.source})", CONSTANT)


def _first_token(node: Tree[Token] | Token) -> Token:
    while not _is_token(node):
        node = node.children[0]  # type: ignore[union-attr]
    return node  # type: ignore[return-value]


class _Address:
    """A memory operand's sum, taken apart into registers, constants and symbols."""

    def __init__(self) -> None:
        self.plain: list[str] = []
        self.scaled: list[tuple[str, str]] = []
        self.constants: list[str] = []
        self.symbolic: Code | None = None
        self.base: Code | None = None  # what stands behind `wrt`
        self.general = False
        self.summed = False  # two numbers are added, which makes NASM forget the order of the registers

    def add(self, node: Tree[Token] | Token, sign: str = "+") -> None:
        if not _is_token(node):
            tree: Any = node
            if tree.data == "wrt":
                self.base = _expression(tree.children[2])
                self.add(tree.children[0], sign)
                return
            if tree.data == "binary" and tree.children[1] in ("+", "-"):
                left, operator, right = tree.children
                self.add(left, sign)
                self.add(right, sign if operator == "+" else "-+"[sign == "-"])
                return
            if tree.data == "unary" and tree.children[0] in ("+", "-"):
                self.add(tree.children[1], sign if tree.children[0] == "+" else "-+"[sign == "-"])
                return
            if tree.data == "binary" and tree.children[1] == "*" and sign == "+":
                left, right = _expression(tree.children[0]), _expression(tree.children[2])
                if left.kind == CONSTANT and _is_token(tree.children[2]) and right.kind == REGISTER:
                    self.scaled.append((f"L[t[{tree.children[2].start_pos}]]", left.source))
                    return
                if right.kind == CONSTANT and _is_token(tree.children[0]) and left.kind == REGISTER:
                    self.scaled.append((f"L[t[{tree.children[0].start_pos}]]", right.source))
                    return
        code = _expression(node)
        if code.kind == CONSTANT:
            self.constants.append(sign + code.source)
        elif code.kind == SYMBOLIC:
            if self.symbolic is None:
                source = code.source if sign == "+" else f"('-',{code.source})"
            else:
                source = f"({sign!r},{self.symbolic.source},{code.source})"
            self.symbolic = Code(source, SYMBOLIC)
        elif _is_token(node) and sign == "+":
            self.plain.append(f"L[t[{node.start_pos}]]")  # type: ignore[union-attr]
        else:
            self.general = True

    def registers(self, whole: str) -> str | None:
        """Source of (base, index, scale), or None where only the values can tell.

        Args:
            whole: source of the whole sum as a tree.
        """
        match self.plain, self.scaled:
            case [first, second], [] if self.summed:
                return f"*(SORTED if ADDS_UP({whole}) else TWO)({first},{second})" if self.symbolic is None else None
            case [], []:
                return "None,None,1"
            case [base], []:
                return f"{base},None,1"
            case [first, second], []:
                return f"*TWO({first},{second})"
            case [], [(register, scale)]:
                return f"*SCALED({scale},{register})"
            case [base], [(register, scale)] if self.summed and self.symbolic is None:
                return f"*(SORTED_SCALED if ADDS_UP({whole}) else PLAIN_SCALED)({base},{register},{scale})"
            case [base], [(register, scale)]:
                return f"*PLAIN_SCALED({base},{register},{scale})"
        return None

    def displacement(self) -> str:
        """Source of the constant part."""
        if not self.constants:
            return "0"
        if len(self.constants) == 1 and self.constants[0][0] == "+":
            return self.constants[0][1:]
        return f"W({''.join(self.constants)})"


def _tree(node: Any) -> str:
    """Source of a sum as a tree of tuples in which nothing has been worked out."""
    if not _is_token(node) and node.data in ("binary", "unary"):
        *left, operator, right = node.children
        return f"({','.join([repr(str(operator)), *map(_tree, left), _tree(right)])})"
    return _expression(node).source


def _has_number(node: Any) -> bool:
    """The expression has a part that is no register: a number, or the place of a symbol."""
    if _is_token(node):
        return bool(node.type != "REG")
    if node.data == "binary" and node.children[1] in ("+", "-"):
        return _has_number(node.children[0]) or _has_number(node.children[2])
    if node.data == "unary":
        return _has_number(node.children[1])
    return _expression(node).kind != REGISTER


def _adds_numbers(node: Any) -> bool:
    """Somewhere in the expression two numbers are added."""
    if _is_token(node):
        return False
    is_sum = node.data == "binary" and node.children[1] in ("+", "-")
    if is_sum and _has_number(node.children[0]) and _has_number(node.children[2]):
        return True
    return any(_adds_numbers(child) for child in node.children)


class _StatementCode:
    """Collects the source of an instruction's operands and of the expressions in them."""

    def __init__(self) -> None:
        self.mnemonic = "''"
        self.operands: list[str] = []
        self.expressions: list[str] = []

    def add(self, tree: Any) -> None:
        size, strict, distance = "0", "False", "''"
        to_top = False
        values = []
        for child in tree.children:
            if getattr(child, "data", "") != "modifier":
                values.append(child)
                continue
            token = child.children[0]
            if token.type == "SIZE":
                size = f"Z[t[{token.start_pos}]]"
            elif token.type == "STRICT":
                strict = "True"
            elif token.type == "DISTANCE":
                distance = f"L[t[{token.start_pos}]]"
            elif token.type == "TO":
                to_top = True
        if tree.data == "memory":
            override = values[0] if len(values) == 2 else None
            self.memory(values[-1], size, strict, distance, override)
        elif tree.data == "far" and _is_token(values[0]) and values[0].type == "REG":  # gs:variable, without brackets
            self.memory(type(tree)("address", values[1:]), size, strict, distance, values[0], naked=True)
        elif tree.data == "far":
            self.far(values[0], values[1], size, distance)
        else:
            self.value(values[0], size, strict, distance)
        if to_top:  # FADD TO ST1 is FADD ST1, ST0
            self.operands.append("R['st0']")

    def defer(self, field: str, code: Code) -> str:
        """The source of a value: itself if constant; else None, and the expression is left to the layout."""
        if code.kind == CONSTANT:
            return code.source
        self.expressions.append(f"({len(self.operands)},{field!r},{code.source})")
        return "None"

    def value(self, node: Any, size: str, strict: str, distance: str) -> None:
        code = _expression(node)
        if code.kind == REGISTER:
            token = _first_token(node)
            if _is_token(node):
                register = f"R[t[{token.start_pos}]]"
                self.operands.append(register if distance == "''" else f"NOT_FAR({distance},{register})")
            else:
                self.operands.append(f"FAIL('a register cannot be part of an immediate', t[{token.start_pos}])")
            return
        value = self.defer("value", code)
        rest = "" if (size, strict, distance) == ("0", "False", "''") else f",{size},{strict},{distance}"
        self.operands.append(f"Imm({value}{rest})")

    def far(self, segment: Any, offset: Any, size: str, distance: str) -> None:
        values = self.defer("seg", _expression(segment)), self.defer("off", _expression(offset))
        self.operands.append(f"Far({values[0]},{values[1]},{size},{distance})")

    def memory(self, tree: Any, size: str, strict: str, distance: str, override: Any, naked: bool = False) -> None:
        disp_size, addr_size, rel, nosplit, segment = "0", "0", "None", "False", "None"
        values = []
        for child in tree.children:
            if getattr(child, "data", "") != "address_modifier":
                values.append(child)
                continue
            token = child.children[0]
            text = f"L[t[{token.start_pos}]]"
            match token.type:
                case "SIZE":
                    disp_size = f"Z[t[{token.start_pos}]]"
                case "PREFIX":
                    addr_size = f"A[t[{token.start_pos}]]"
                case "RELATIVE":
                    rel = f"{text}=='rel'"
                case "NOSPLIT":
                    nosplit = "True"
        if len(values) == 2:
            twice = override is not None
            override = values[0]
            if twice:
                place = _first_token(override).start_pos
                segment = f"FAIL('instruction has conflicting segment overrides', t[{place}])"
        if override is not None and segment == "None":
            token = _first_token(override)
            if _is_token(override) and token.type == "REG":
                segment = f"SEG[t[{token.start_pos}]]"
                if naked:
                    segment = f"NAKED({self.mnemonic},t[{token.start_pos}])"
            else:
                segment = f"FAIL('a segment register is wanted before the colon', t[{token.start_pos}])"
        address = _Address()
        address.add(values[-1])
        address.summed = _adds_numbers(values[-1])
        registers = address.registers(_tree(values[-1]) if address.summed else "")
        if address.general or registers is None:
            whole = f"('sum',{_tree(values[-1])})" if address.summed else _expression(values[-1]).source
            self.expressions.append(f"({len(self.operands)},'address',{whole})")
            registers, displacement = "None,None,1", "None"
        elif address.symbolic is not None:
            expression = address.symbolic
            if address.constants:
                expression = _binary(expression, "+", Code(address.displacement(), CONSTANT))
            if address.base is not None:
                expression = Code(f"('wrt',{expression.source},{address.base.source})", SYMBOLIC)
            displacement = self.defer("disp", expression)
            if address.summed and address.plain and address.scaled:  # [eax*1+ebx+x+4]: only the values can tell
                is_one = f"{address.scaled[0][1]}==1"
                whole = f"({len(self.operands)},'address',('sum',{_tree(values[-1])}))"
                registers = f"*((None,None,1)if {is_one} else({registers[1:]}))"
                self.expressions[-1] = f"({whole} if {is_one} else {self.expressions[-1]})"
        else:
            displacement = address.displacement()
        rest = [disp_size, addr_size, rel, nosplit, strict, distance]
        defaults = ["0", "0", "None", "False", "False", "''"]
        while rest and rest[-1] == defaults[len(rest) - 1]:
            rest.pop()
        self.operands.append(f"Mem({','.join([size, segment, registers, displacement, *rest])})")


def _statement_source(tree: Any) -> str:
    prefixes, mnemonic = [], "''"
    code = _StatementCode()
    for child in tree.children:
        if _is_token(child):
            text = f"t[{child.start_pos}]"
            prefixes.append(f"L[{text}]" if child.type == "PREFIX" else f"SEG[{text}]")
        else:
            mnemonic = code.mnemonic = f"L[t[{child.children[0].start_pos}]]"
            for operand in child.children[1:]:
                code.add(operand)
    return f"({_tuple(prefixes)},{mnemonic},{_tuple(code.operands)},{_tuple(code.expressions)})"


def _tuple(items: Sequence[str]) -> str:
    return f"({','.join(items)},)" if items else "()"


def _builder_code(start: str, tree: Any) -> CodeType:
    source = _statement_source(tree) if start == "statement" else _expression(tree).source
    return compile(f"lambda t,sym:{source}", f"<{start}>", "eval")


# --- The grammar and the cache ----------------------------------------------------------------------------------------

GRAMMAR_CACHE = "grammar.cache"  # the grammar as Lark compiled it
BUILDERS_CACHE = "shapes.cache"  # the builders of the common shapes

_lark: Lark | None = None
_codes: dict[str, dict[str, bytes]] = {}  # as saved, each code by itself, by start rule and shape
_builders: dict[str, dict[str, Builder]] = {start: {} for start in STARTS}


def _sources_key() -> bytes:
    """Tells caches of another grammar, builder or Python apart from one of this source tree."""
    key = zlib.crc32(Path(__file__).read_bytes(), zlib.crc32(GRAMMAR.read_bytes()))
    return f"{sys.implementation.cache_tag} {key:08x}\n".encode()


def _compiled_grammar() -> Lark:
    global _lark
    if _lark is None:
        import lark

        key = _sources_key() + f"{lark.__version__}\n".encode()
        try:
            data = GRAMMAR.with_name(GRAMMAR_CACHE).read_bytes()
        except OSError:
            data = b""
        _lark = lark.Lark.load(io.BytesIO(data[len(key) :])) if data.startswith(key) else _compile_grammar()
    return _lark


def _compile_grammar() -> Lark:
    import lark

    text = GRAMMAR.read_text(encoding="ascii")
    return lark.Lark(text, parser="lalr", start=list(STARTS), maybe_placeholders=False)


def _load_builders() -> None:
    try:
        data = GRAMMAR.with_name(BUILDERS_CACHE).read_bytes()
    except OSError:
        data = b""
    key = _sources_key()
    _codes.update(marshal.loads(data[len(key) :]) if data.startswith(key) else {start: {} for start in STARTS})


def builder(start: str, shape: str) -> Builder | None:
    """The builder for a shape: a function of the tokens and of what gives a symbol its object.

    Args:
        start: ``statement`` (an instruction with prefixes: the builder gives a `Statement`) or ``expr``.
        shape: the kinds of the tokens.

    Returns:
        The builder, or None where the grammar does not take the shape.
    """
    found = _builders[start].get(shape)
    if found is None:
        if not _codes:
            _load_builders()
        saved = _codes[start].get(shape)
        if saved is not None:
            code = marshal.loads(saved)
        else:
            from lark import UnexpectedInput

            try:
                tree = _compiled_grammar().parse(shape, start=start)
            except UnexpectedInput:
                return None
            try:
                code = _builder_code(start, tree)
            except (RecursionError, MemoryError, SyntaxError):  # how the compiler refuses what is nested too deeply
                raise RecursionError from None
        if len(_builders[start]) > 20_000:  # shapes of hostile sources are not kept for ever
            _builders[start].clear()
        found = _builders[start][shape] = eval(code, _NAMESPACE)
    return found


NAMES = {
    "ID": "a symbol", "NUMBER": "a number", "STRING": "a string", "FLOAT": "a floating-point number",
    "REG": "a register", "INSN": "an instruction", "DIRECTIVE": "a directive", "PREFIX": "a prefix", "TIMES": "times",
    "EQU": "equ", "DATA": "db", "RESERVE": "resb", "INCBIN": "incbin", "SIZE": "a size", "STRICT": "strict",
    "DISTANCE": "short, near or far", "TO": "to", "RELATIVE": "rel or abs", "NOSPLIT": "nosplit", "SEG": "seg",
    "WRT": "wrt", "DUP": "dup", "HERE": "$", "START": "$$", "COMMA": "`,'", "LPAR": "`('", "RPAR": "`)'",
    "LSQB": "`['", "RSQB": "`]'", "COLON": "`:'", "QMARK": "`?'", "$END": "the end of the line",
}  # fmt: skip
_ANY_VALUE = {"a number", "a register", "a symbol"}
_BEGIN_OPERAND = {
    "$", "$$", "`('", "`['", "a directive", "a number", "a register", "a size", "a string", "a symbol", "seg", "strict",
    "short, near or far", "to", "nosplit", "rel or abs", "a prefix",
}  # fmt: skip
_BEGIN_STATEMENT = {
    "a directive", "a prefix", "a register", "a symbol", "an instruction", "db", "equ", "incbin", "resb", "times",
}  # fmt: skip
OPERATORS = frozenset(
    ["OR", "XOR", "AND", "RELATION", "BITOR", "BITXOR", "BITAND", "SHIFT", "PLUS", "MINUS", "PRODUCT", "NOT"]
)  # fmt: skip


def explain(tokens: Sequence[str], shape: str) -> ParseError:
    """Parses a line whole to learn what is wrong with it.

    Args:
        tokens, shape: of a line that has no builder.
    """
    from lark import UnexpectedInput

    try:
        _compiled_grammar().parse(shape, start="line")
    except UnexpectedInput as error:
        token = getattr(error, "token", None)
        at_end = token is not None and token.type == "$END"
        index = len(shape) if at_end or not isinstance(error.pos_in_stream, int) else error.pos_in_stream
        terminals = getattr(error, "accepts", None) or getattr(error, "allowed", None) or ()
        names = _wanted(terminals)
        found = f"`{tokens[index]}'" if index < len(shape) else "end of line"
        wanted = f", expected {', '.join(names[:-1])}{' or ' if names[1:] else ''}{names[-1]}" if names else ""
        if index < len(shape) and shape[index] == "x" and tokens[index] in "'\"`":
            return ParseError("unterminated string", index)
        return ParseError(f"unexpected {found}{wanted}{_remark(tokens, shape, index, terminals)}", index)
    return ParseError("these operands cannot stand here", 1)


def _wanted(terminals: Sequence[str]) -> list[str]:
    """What could have stood there, in words: an operand or a statement as such, not all that one begins with."""
    names = {NAMES[name] for name in terminals if name in NAMES}
    if names >= _ANY_VALUE:
        whole = "an operand" if "`['" in names else "a value"
        return [whole, *sorted(names - _BEGIN_OPERAND)]
    if {"an instruction", "db"} <= names:
        return ["a statement", *sorted(names - _BEGIN_STATEMENT)]
    found = sorted(names)
    if any(name in OPERATORS for name in terminals):
        found.append("an operator")
    return found


def _remark(tokens: Sequence[str], shape: str, index: int, terminals: Sequence[str]) -> str:
    """A guess at the mistake behind an unexpected token; empty where there is none."""
    before = foreign_word(tokens[index - 1]) if 0 < index <= len(shape) else ""
    here = shape[index : index + 1]
    if before or (here and foreign_word(tokens[index])):
        return before or foreign_word(tokens[index])
    token = tokens[index] if here else ""
    if token == "%" and shape[index + 1 : index + 2] == "r":
        return "; registers have no `%' here"
    if token == "#" or (token == "/" and not index):
        return "; a comment begins with `;'"
    if here in ("I", "d", "p") and index:
        return "; each statement stands on a line of its own"
    if here and here in "rnis[z" and "COMMA" in terminals and shape[index - 1 : index] in tuple("rnis])"):
        return "; is a comma missing before it?"
    return ""


def parse_directly(shape: str) -> Tree[Token]:
    """The tree that Lark gives for a whole line, past every cache; raises lark.UnexpectedInput."""
    return _compiled_grammar().parse(shape, start="line")


def build_directly(start: str, tree: Any) -> Builder:
    """A builder from a part of a tree of `parse_directly`, past every cache."""
    made: Builder = eval(_builder_code(start, tree), _NAMESPACE)
    return made


_MEMORY = [
    "[r]",
    "[i]",
    "[n]",
    "[i+n]",
    "[i-n]",
    "[r+n]",
    "[r-n]",
    "[r+i]",
    "[i+r]",
    "[r+r]",
    "[r*n]",
    "[r+r*n]",
    "[r+r+n]",
    "[r+r-n]",
    "[r+r*n+n]",
    "[r+r*n-n]",
    "[r*n+n]",
    "[i+r*n]",
    "[r*n+i]",
    "[r+r+i]",
    "[r+i+n]",
    "[r+i-n]",
    "[i+r+n]",
    "[r:r]",
    "[r:i]",
    "[r:n]",
    "[r:r+n]",
    "[r:r-n]",
    "[r:r+r]",
    "[r:i+n]",
    "[li]",
    "[lr+n]",
]
_VALUES = [
    "r",
    "n",
    "-n",
    "i",
    "s",
    "i+n",
    "i-n",
    "i-i",
    "H",
    "n*n",
    "n+n",
    "n-n",
    "n|n",
    "iLn",
    "nLn",
    "i|i",
    "~n",
    "i*n",
    "(i-i)",
    "i-i+n",
    "i|n",
    "tn",
    "zn",
    "zi",
    "z-n",
    "zs",
    "ztn",
    "zi+n",
]


def _common_shapes() -> dict[str, list[str]]:
    """Shapes that an ordinary source holds."""
    memory = _MEMORY + [f"z{text}" for text in _MEMORY]
    one = [*_VALUES, *memory, "ji", "zji", "jz[r]", "jz[i]", "j[i]", "n:i", "n:n", "zn:i", "zi:i", "i:i", "jn", "zr"]
    two = [f"r,{b}" for b in [*_VALUES, *memory]] + [f"{a},{b}" for a in memory for b in ("r", "n", "-n", "i", "zn")]
    three = ["r,r,n", "r,[r],n", "r,[r+n],n", "r,r,r", "[r],r,n", "[r+n],r,n", "r,[i],n"]
    statements = ["I", *(f"I{text}" for text in [*one, *two, *three]), "pI", "ppI", "rI", "prI", "rpI", "p", "pIr"]
    statements += [f"pI{text},{b}" for text in memory for b in "rni"] + [f"pI{text}" for text in memory]
    numbers = ["n", "-n", "i", "i-i", "n-(H-S)", "H-i", "H-S", "i+n", "i-n", "n*n", "n+n", "n-n", "i*n", "i-i-n"]
    numbers += ["(i-i)", "H", "s", "i|i", "i|n", "nLn", "iLn", "(nLn)", "(i-i)/n", "(H-S)", "(H-i)/n", "i=i", "i=n"]
    numbers += ["i>n", "i<n", "(H-S)>n", "H-S>n", "(i)", "r", "s+n", "i/n", "i&n", "i%n", "(i+n)/n", "(i+n)*n"]
    numbers += ["n-H+S", "n-(H-i)", "n-(i-i)", "s=s", "n=n", "n>n", "n<n", "nNn", "nUn", "nVn", "!n", "i-S", "S-H"]
    return {"line": [], "statement": statements, "expr": [*numbers, "(S-H)&((n)-n)", "(i-i+n)/n"]}


def build_grammar_cache(folder: Path | str) -> list[Path]:
    """Saves the compiled grammar and the builders of the common shapes; an up-to-date cache is left alone.

    Args:
        folder: where the package's files are (an installed or in-place `asm`).

    Returns:
        The files.
    """
    import lark

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    key = _sources_key()
    grammar_key = key + f"{lark.__version__}\n".encode()
    paths = folder / GRAMMAR_CACHE, folder / BUILDERS_CACHE
    if all(
        path.exists() and path.read_bytes().startswith(k) for path, k in zip(paths, (grammar_key, key), strict=True)
    ):
        return list(paths)
    compiled = _compile_grammar()
    saved = io.BytesIO()
    compiled.save(saved)
    codes = {
        start: {
            shape: marshal.dumps(_builder_code(start, compiled.parse(shape, start=start)))
            for shape in dict.fromkeys(shapes)
        }
        for start, shapes in _common_shapes().items()
    }
    for path, data in zip(paths, (grammar_key + saved.getvalue(), key + marshal.dumps(codes)), strict=True):
        temporary = path.with_suffix(".new")
        temporary.write_bytes(data)
        os.replace(temporary, path)
    return list(paths)
