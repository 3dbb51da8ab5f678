"""Expressions: symbols, relocatable values and NASM's operators.

An expression is an int, a `Symbol`, `HERE` (``$``), `START` (``$$``) or a tuple ``(operator, operand, ...)`` whose
operator is a token kind of tokens.py. Its value is an int (a scalar, signed 64-bit), a `Linear` (a sum with section
bases or registers in it) or None while a symbol in it has no value yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

MASK = 0xFFFFFFFFFFFFFFFF
SIGN = 1 << 63


class ExpressionError(Exception):
    """An expression that has no value. `name` is the symbol at fault, if there is one."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.name = name


class Section:
    """A section of the output, with NASM's attributes for flat binaries; `offset` is the place reached in this pass."""

    __slots__ = (
        "align", "attributes", "base", "declared", "entry_size", "external", "flags", "follows", "name", "nobits",
        "offset", "origin", "parts", "size", "start", "type", "valign", "vfollows", "vstart",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.nobits = False
        self.offset = 0
        self.size = 0
        self.align: int | None = None
        self.valign: int | None = None
        self.start: int | None = None
        self.vstart: int | None = None
        self.follows: str | None = None
        self.vfollows: str | None = None
        self.origin = 0  # offset of its first byte: what `absolute` gives, 0 elsewhere
        self.base = 0  # address of offset 0, known when the sections have been placed
        self.parts: list[bytes] = []
        self.attributes: list[str] = []
        self.declared = False  # a line of the source names it
        self.type = self.flags = self.entry_size = 0  # of an object file
        self.external: Symbol | None = None  # it stands for a symbol that another object defines

    def __repr__(self) -> str:
        return f"Section({self.name!r})"


SCALAR = Section("scalar")  # the section of symbols that are plain numbers
UNDEFINED = Section("undefined")  # that of symbols that the whole source does not define
UNKNOWN = Section("unknown")  # the base of what this pass does not know: the difference of two such values counts as 0


class Symbol:
    """A label or an ``equ``. Without a section it has no value yet; in SCALAR its offset is its value."""

    __slots__ = ("constant", "defined", "hidden", "name", "offset", "section", "where")

    def __init__(self, name: str) -> None:
        self.name = name
        self.section: Section | None = None
        self.offset = 0
        self.constant = False  # a number that no later pass can change
        self.defined = False  # a line of the source defines it
        self.hidden = False  # made by the assembler itself: in no symbol table
        self.where: object = None

    def __repr__(self) -> str:
        return f"Symbol({self.name!r})"


class _Place:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


HERE = _Place("$")
START = _Place("$$")


class Linear:
    """A constant plus multiples of section bases (Section) or registers (lower-case name), in order of appearance.

    wrt: what stands behind ``wrt``, as ``..plt``. summed: numbers were added up (see `adds_up`).
    """

    __slots__ = ("const", "scaled", "summed", "terms", "wrt")

    def __init__(
        self, terms: dict[object, int], const: int, scaled: frozenset[str] = frozenset(), wrt: str = "",
        summed: bool = False,
    ) -> None:  # fmt: skip
        self.wrt = wrt
        self.summed = summed
        self.terms = terms
        self.const = const
        self.scaled = scaled  # registers written with a scale, which are not to be the base


Expression: TypeAlias = Any  # recursive: see the module's head
Value: TypeAlias = int | Linear | None


def wrap(value: int) -> int:
    """The value as a signed 64-bit integer."""
    value &= MASK
    return value - (MASK + 1) if value & SIGN else value


def _linear(value: int | Linear) -> Linear:
    return value if isinstance(value, Linear) else Linear({}, value)


def _add(a: int | Linear, b: int | Linear, sign: int = 1) -> int | Linear:
    left, right = _linear(a), _linear(b)
    terms = dict(left.terms)
    for term, count in right.terms.items():
        total = terms.get(term, 0) + sign * count
        if total:
            terms[term] = total
        else:
            terms.pop(term, None)
    const = wrap(left.const + sign * right.const)
    if UNKNOWN in left.terms or UNKNOWN in right.terms:  # it swallows all but registers, as in NASM
        terms = {term: count for term, count in terms.items() if term is UNKNOWN or isinstance(term, str)}
        const = 0
    return Linear(terms, const, left.scaled | right.scaled, left.wrt or right.wrt) if terms else const


def _multiply(a: int | Linear, b: int | Linear) -> int | Linear:
    if isinstance(b, Linear):
        a, b = b, a
    if isinstance(b, Linear):
        raise ExpressionError("unable to multiply two non-scalar objects")
    if not isinstance(a, Linear):
        return wrap(a * b)
    if not b:
        return 0
    scaled = a.scaled | {term for term in a.terms if isinstance(term, str)}
    return Linear({term: count * b for term, count in a.terms.items()}, wrap(a.const * b), scaled)


def _divisor(b: int) -> int:
    if not b:
        raise ExpressionError("division by zero")
    return b


def _signed_quotient(a: int, b: int) -> int:
    quotient = abs(a) // abs(_divisor(b))
    return wrap(-quotient if (a < 0) != (b < 0) else quotient)


def _signed_remainder(a: int, b: int) -> int:
    return wrap(a - b * _signed_quotient(a, b))


# The count of a shift is taken modulo 64, which is what NASM's host processor makes of it.
def _shift_left(a: int, b: int) -> int:
    return wrap(a << (b & 63))


def _shift_right(a: int, b: int) -> int:
    return wrap((a & MASK) >> (b & 63))


def _shift_right_signed(a: int, b: int) -> int:
    return a >> (b & 63)


SCALAR_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "/": lambda a, b: wrap((a & MASK) // (_divisor(b) & MASK)),
    "%": lambda a, b: wrap((a & MASK) % (_divisor(b) & MASK)),
    "Q": _signed_quotient,
    "M": _signed_remainder,
    "L": _shift_left,
    "A": _shift_left,
    "G": _shift_right,
    "Z": _shift_right_signed,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "Y": lambda a, b: int(bool(a) and bool(b)),
    "O": lambda a, b: int(bool(a) or bool(b)),
    "X": lambda a, b: int(bool(a) != bool(b)),
}
# Of the 64-bit difference of the operands, so that two labels of one section can be compared; NASM lets it overflow.
RELATIONS: dict[str, Callable[[int], int]] = {
    "=": lambda d: int(d == 0),
    "N": lambda d: int(d != 0),
    "<": lambda d: int(d < 0),
    ">": lambda d: int(d > 0),
    "U": lambda d: int(d <= 0),
    "V": lambda d: int(d >= 0),
    "W": lambda d: (d > 0) - (d < 0),
}
SPELLING = {
    "Q": "//", "M": "%%", "L": "<<", "A": "<<<", "G": ">>", "Z": ">>>", "Y": "&&", "O": "||", "X": "^^", "N": "!=",
    "U": "<=", "V": ">=", "W": "<=>",
}  # fmt: skip


def apply(operator: str, a: int | Linear, b: int | Linear) -> int | Linear:
    """The value of a binary operation.

    Raises:
        ExpressionError: the operator does not go with these operands.
    """
    if operator == "+":
        return _add(a, b)
    if operator == "-":
        return _add(a, b, -1)
    if operator == "*":
        return _multiply(a, b)
    if operator in RELATIONS:
        if not isinstance(a, Linear) and not isinstance(b, Linear):
            return RELATIONS[operator](wrap(a - b))
        difference = _add(a, b, -1)
        if isinstance(difference, Linear):
            if operator in "=N":  # `%if %1 = cs`: what differs by a register or by an address is not equal
                return int(operator == "N")
            raise ExpressionError(f"`{SPELLING.get(operator, operator)}': operands differ by a non-scalar")
        return RELATIONS[operator](difference)
    if isinstance(a, Linear) or isinstance(b, Linear):
        raise ExpressionError(f"`{SPELLING.get(operator, operator)}' operator may only be applied to scalar values")
    return SCALAR_OPERATORS[operator](a, b)


def apply_unary(operator: str, a: int | Linear) -> int | Linear:
    """The value of a unary operation.

    Raises:
        ExpressionError: the operator does not go with this operand.
    """
    if operator == "+":
        return a
    if operator == "-":
        return _multiply(a, -1)
    if operator == "g":
        raise ExpressionError("this output format does not support segment base references")
    if isinstance(a, Linear):
        raise ExpressionError(f"`{operator}' operator may only be applied to scalar values")
    return int(not a) if operator == "!" else ~a


def evaluate(expression: Expression, section: Section, offset: int) -> Value:
    """The value of an expression in the statement that starts at `offset` of `section`.

    Raises:
        ExpressionError: the expression has no value, in this pass or any other; `name` is a symbol not defined.
    """
    if type(expression) is int:
        return expression
    value = _evaluate(expression, section, offset)
    return None if type(value) is Linear and UNKNOWN in value.terms else value


def evaluate_address(expression: Expression, section: Section, offset: int) -> int | Linear:
    """As `evaluate`, but of an address whose value is not known yet the registers and UNKNOWN."""
    return _evaluate(expression, section, offset)


def _evaluate(expression: Expression, section: Section, offset: int) -> int | Linear:
    kind = type(expression)
    if kind is int:
        return expression  # type: ignore[no-any-return]
    if kind is Symbol:
        home = expression.section
        if home is SCALAR:
            return expression.offset  # type: ignore[no-any-return]
        if home is None:
            return Linear({UNKNOWN: 1}, 0)
        if home is UNDEFINED:
            raise ExpressionError(f"symbol `{expression.name}' not defined", expression.name)
        return Linear({home: 1}, expression.offset)
    if expression is HERE:
        return Linear({section: 1}, offset) if section is not SCALAR else offset
    if expression is START:
        return Linear({section: 1}, section.origin) if section is not SCALAR else 0
    operator = expression[0]
    if operator == "reg":
        return Linear({expression[1]: 1}, 0)
    if operator == "sum":  # an address in which adding numbers up decides on the order of the registers
        value = _evaluate(expression[1], section, offset)
        if isinstance(value, Linear):
            value = Linear(value.terms, value.const, value.scaled, value.wrt, adds_up(expression[1], section, offset))
        return value
    if operator == "disp":  # an address without its registers
        value = _evaluate(expression[1], section, offset)
        if not isinstance(value, Linear):
            return value
        terms = {term: count for term, count in value.terms.items() if not isinstance(term, str)}
        return Linear(terms, value.const, wrt=value.wrt) if terms else value.const
    if operator == "?":
        condition = _evaluate(expression[1], section, offset)
        if isinstance(condition, Linear):
            if UNKNOWN in condition.terms:
                return condition
            raise ExpressionError("`?' condition must be a scalar value")
        return _evaluate(expression[2 if condition else 3], section, offset)
    if operator == "wrt":
        value = _evaluate(expression[1], section, offset)
        base = expression[2]
        if not isinstance(value, Linear) or not isinstance(base, Symbol):
            raise ExpressionError("`wrt' wants an address and a symbol")
        return Linear(value.terms, value.const, value.scaled, base.name)
    values = [_evaluate(operand, section, offset) for operand in expression[1:]]
    if operator not in "+-" or len(values) == 1:
        for value in values:
            if type(value) is Linear and UNKNOWN in value.terms:
                return Linear({UNKNOWN: 1}, 0)
    return apply(operator, *values) if len(values) == 2 else apply_unary(operator, *values)


def adds_up(expression: Expression, section: Section = SCALAR, offset: int = 0) -> bool:
    """Whether two parts of an address that both have a number in them give one other than 0 when they are added.

    NASM forgets the order in which the source names the registers then. A symbol has a number, be it 0; a register has
    none; a sum of 0 is none.
    """
    return _adding_up(expression, section, offset)[2]


def _adding_up(expression: Expression, section: Section, offset: int) -> tuple[int, bool, bool]:
    """The number in a part, whether there is one, and whether numbers were added up."""
    if isinstance(expression, tuple) and expression[0] == "reg":
        return 0, False, False
    if isinstance(expression, tuple) and expression[0] in "+-" and len(expression) == 3:
        left, in_left, before = _adding_up(expression[1], section, offset)
        right, in_right, within = _adding_up(expression[2], section, offset)
        total = wrap(left + right if expression[0] == "+" else left - right)
        both = in_left and in_right
        return total, bool(total) if both else in_left or in_right, before or within or (both and bool(total))
    value = _evaluate(expression, section, offset)
    parts = expression[1:] if isinstance(expression, tuple) else ()
    within = any(_adding_up(part, section, offset)[2] for part in parts)  # as in [ebx+ecx*(1+1)]
    if not isinstance(value, Linear):
        return value, True, within
    return value.const, any(not isinstance(term, str) for term in value.terms) or bool(value.const), within


def is_constant(expression: Expression) -> bool:
    """Whether the value can be known now and does not change any more."""
    if isinstance(expression, int):
        return True
    if isinstance(expression, Symbol):
        return expression.constant
    if isinstance(expression, tuple):
        return all(is_constant(operand) for operand in expression[1:] if not isinstance(operand, str))
    return False
