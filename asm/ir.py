"""What a program is made of between parsing and output: one item a statement that has bytes or a value.

A program is a list of items in the order of the source. An item is plain ``bytes``, a `Symbol` (a label stands here) or
one of the classes below, whose length or contents depend on symbols. In each pass of the layout `size` is asked once,
in order, and `emit` at the end, when every symbol has its address.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias, Union

from asm import table
from asm.expression import (
    HERE,
    SCALAR,
    UNKNOWN,
    Expression,
    ExpressionError,
    Linear,
    Section,
    Symbol,
    evaluate,
    evaluate_address,
)
from asm.instructions.address import is_rip_relative
from asm.instructions.encode import encode
from asm.instructions.match import ANY, LEVELS
from asm.instructions.nops import parts
from asm.instructions.operands import Encoded, EncodeError, Far, Imm, Mem, Operand
from asm.parse import base_and_index

MAX_IMAGE = 1 << 28  # bytes in a section; a hostile `times` must not fill the host's memory


class Mode(NamedTuple):
    """What instructions are encoded for."""

    bits: int
    optimise: int
    default_rel: bool
    level: int = ANY  # of the processor, an index of asm.instructions.match.LEVELS
    bnd: bool = False  # near branches have the prefix BND where they have no other in its place

    @property
    def near_conditions(self) -> bool:
        """There are conditional jumps of more than a byte, as from the 80386 on."""
        return self.level >= LEVELS.index("386")


_encodings: dict[Mode, dict[tuple[str, tuple[Operand, ...], tuple[str, ...]], Encoded]] = {}


def encoded(mode: Mode, mnemonic: str, operands: tuple[Operand, ...], prefixes: tuple[str, ...]) -> Encoded:
    """The encoding of an instruction, remembered.

    Raises:
        EncodeError: there is none.
    """
    known = _encodings.setdefault(mode, {})
    key = (mnemonic, operands, prefixes)
    found = known.get(key)
    if found is None:
        if len(known) > 100_000:
            known.clear()
        found = _encode_with_bnd(mode, mnemonic, operands, prefixes) if mode.bnd else None
        if found is None:
            found = encode(
                mnemonic, operands, mode.bits, prefixes, optimise=mode.optimise, default_rel=mode.default_rel,
                level=mode.level,
            )  # fmt: skip
        known[key] = found
    return found


def _encode_with_bnd(
    mode: Mode, mnemonic: str, operands: tuple[Operand, ...], prefixes: tuple[str, ...]
) -> Encoded | None:
    """The encoding with the prefix that `default bnd` asks for; None where the instruction takes none."""
    if not any(form.takes_bnd for form in table.load().forms_of(mnemonic)):
        return None
    try:
        found = encoded(mode._replace(bnd=False), mnemonic, operands, ("bnd", *prefixes))
    except EncodeError:
        return None
    return found._replace(warnings=tuple(warning for warning in found.warnings if warning[0] != "prefix-bnd"))


class Sink(Protocol):
    """What takes an item's bytes: it is warned, and knows what addresses are in the output format."""

    def warn(self, warning: str, message: str) -> None: ...

    def resolve(
        self, value: int | Linear, section: Section, start: int, end: int, at: int, size: int, kind: str
    ) -> int:
        """The number for a field; see `address_field`."""
        ...


def address_of(value: int | Linear, here: Section | None = None) -> int:
    """The number that a value is once the sections have been placed.

    Args:
        here: a section from whose start the value may count.

    Raises:
        ExpressionError: it is not an address in one section.
    """
    if isinstance(value, int):
        return value
    if here is not None and value.terms.get(here) == -1:
        terms = {term: count for term, count in value.terms.items() if term is not here}
        if not terms:  # a negated address: -x
            return value.const - here.base
        return address_of(Linear(terms, value.const, value.scaled, value.wrt)) - here.base
    section, *others = value.terms
    if others or not isinstance(section, Section) or value.terms[section] != 1:
        raise ExpressionError("expression is not simple or relocatable")
    if section.external is not None:
        raise ExpressionError("binary output format does not support external references", section.name)
    if value.wrt:
        raise ExpressionError("binary output format does not support WRT")
    return section.base + value.const


def address_field(value: int | Linear, section: Section, start: int, end: int, at: int, size: int, kind: str) -> int:
    """The number for a field in an image whose sections have been placed.

    Args:
        value: of the field's expression.
        section: it is in. start, end: of its statement there. at, size: of the field, in bytes.
        kind: abs, signed, rel or seg.

    Raises:
        ExpressionError: the value is not an address in one section.
    """
    return address_of(value, section) - (section.base + end if kind == "rel" else 0)


class Patch(NamedTuple):
    """A field that gets the value of an expression: its place in the item's bytes, its size in bytes, and its kind.

    limit: bits that what is added to a label may have without a warning; 0 where NASM does not look.
    """

    offset: int
    size: int
    kind: str  # abs, signed (the processor extends the sign), rel or seg
    expression: Expression
    limit: int = 0


def patched(
    data: bytes, patches: tuple[Patch, ...], section: Section, offset: int, sink: Sink, start: int | None = None
) -> bytes:
    """The bytes with their fields filled in.

    Args:
        start: the value of ``$`` where it is not `offset` (in a repetition of ``times``).

    Raises:
        ExpressionError: a value is missing, or does not fit where it must.
    """
    result = bytearray(data)
    end = offset + len(data)
    for place, size, kind, expression, limit in patches:
        known = evaluate(expression, section, offset if start is None else start)
        if known is None:
            raise ExpressionError("expression has no value")
        value = sink.resolve(known, section, offset, end, offset + place, size, kind)
        width = 8 * size
        if kind == "rel":
            if size == 1 and not -128 <= value <= 127:
                if isinstance(known, Linear):
                    raise ExpressionError("short jump is out of range")
                sink.warn("number-overflow", "short jump is out of range: its distance is cut off")
            if limit and isinstance(known, Linear) and known.terms == {section: 1}:
                _check_bounds(known.const - end, size, limit, sink)
        elif size < 8 and (limit or isinstance(known, int)):
            number = known if isinstance(known, int) else known.const
            _check_bounds(number, size, limit or width - (kind == "signed"), sink)
        result[place : place + size] = (value & ((1 << width) - 1)).to_bytes(size, "little")
    return bytes(result)


def _check_bounds(number: int, size: int, bits: int, sink: Sink) -> None:
    """Warns of a number that a field of that many bytes does not hold."""
    if not -1 << bits <= number < 1 << bits:
        names = {1: "byte", 2: "word", 4: "dword"}
        sink.warn("number-overflow", f"{names.get(size, '')} data exceeds bounds")


class Fixed:
    """Bytes of a known length with fields that the end of the layout fills in: data, most instructions."""

    __slots__ = ("data", "patches")

    def __init__(self, data: bytes, patches: tuple[Patch, ...]) -> None:
        self.data = data
        self.patches = patches

    def size(self, section: Section, offset: int) -> int:
        return len(self.data)

    def emit(self, section: Section, offset: int, sink: Sink, start: int | None = None) -> bytes:
        return patched(self.data, self.patches, section, offset, sink, start)


class Branch:
    """A jump that is short where its target is near enough.

    NASM's rule: a pass measures to where the target was when the pass before saw it, or this one if it stands above; a
    target that nobody has seen counts as near.
    """

    __slots__ = ("expression", "length", "long_length", "near", "short", "short_length")

    def __init__(self, short: Encoded, near: Encoded, expression: Expression) -> None:
        self.short = short
        self.near = near
        self.short_length = self.length = len(short.data)
        self.long_length = len(near.data)
        self.expression = expression

    def size(self, section: Section, offset: int) -> int:
        target = evaluate(self.expression, section, offset)
        self.length = self.short_length
        if target is not None:
            here = isinstance(target, Linear) and target.terms == {section: 1}
            if section is SCALAR and isinstance(target, int):
                distance: int | None = target - offset - self.short_length
            else:
                distance = target.const - offset - self.short_length if here else None  # type: ignore[union-attr]
            if distance is None or not -128 <= distance <= 127:
                self.length = self.long_length
        return self.length

    def emit(self, section: Section, offset: int, sink: Sink, start: int | None = None) -> bytes:
        chosen = self.short if self.length == self.short_length else self.near
        return patched(chosen.data, self.patches(), section, offset, sink, start)

    def patches(self) -> tuple[Patch, ...]:
        """The field that holds the distance, in the form chosen last."""
        chosen = self.short if self.length == self.short_length else self.near
        return tuple(Patch(f.offset, f.size, f.kind, self.expression, f.limit) for f in chosen.fixups)


class Instruction:
    """An instruction with an expression that is no constant, so that its form may depend on the value."""

    __slots__ = (
        "_values", "absolute", "code", "expressions", "fixed", "mnemonic", "mode", "operands", "prefixes", "unsure",
    )  # fmt: skip

    def __init__(
        self,
        mode: Mode,
        mnemonic: str,
        operands: tuple[Operand, ...],
        prefixes: tuple[str, ...],
        expressions: tuple[tuple[int, str, Expression], ...],
    ) -> None:
        self.mode = mode
        self.mnemonic = mnemonic
        self.operands = operands
        self.prefixes = prefixes
        self.expressions = expressions
        self.fixed = False  # every value is an address in a section: no later pass changes the form
        self.absolute = False  # what was to be relative to RIP is no address in a section
        self.unsure = False  # of the first pass: an address that would be relative to RIP, which takes a byte less
        self._values: list[object] | None = None
        self.code = Encoded(b"")

    def size(self, section: Section, offset: int) -> int:
        """Chooses the form for the values of this pass.

        Raises:
            EncodeError, ExpressionError: there is none.
        """
        values = [
            (evaluate_address if field == "address" else evaluate)(expression, section, offset)
            for _, field, expression in self.expressions
        ]
        known = [_kind_of_value(value) for value in values]
        if known != self._values or any(field == "address" for _, field, _ in self.expressions):
            operands = list(self.operands)
            self.unsure = False
            for (index, field, _), value in zip(self.expressions, values, strict=True):
                operand = operands[index] = _with_value(operands[index], field, value, section)
                if value is None and isinstance(operand, Mem):  # NASM has no such address relative to RIP
                    self.unsure = is_rip_relative(operand, self.mode.bits, self.mode.default_rel)
            self.code = encoded(self.mode, self.mnemonic, tuple(operands), self.prefixes)
            self._values = known  # type: ignore[assignment]
            self.absolute = self.mode.bits == 64 and any(
                isinstance(operand, Mem)
                and is_rip_relative(operand, 64, self.mode.default_rel)
                and isinstance(settled, Mem)
                and settled.base is None
                and settled.index is None
                and (settled.rel is False or settled.disp is not None)
                for operand, settled in zip(self.operands, operands, strict=True)
            )
            self.fixed = all(kind == "address" for kind in known)
        return len(self.code.data) + self.unsure

    def emit(self, section: Section, offset: int, sink: Sink, start: int | None = None) -> bytes:
        self.size(section, offset if start is None else start)
        if self.absolute:
            sink.warn("ea-absolute", "absolute address can not be RIP-relative")
        for name, text in self.code.warnings:
            sink.warn(name, text)
        return patched(self.code.data, self.patches(), section, offset, sink, start)

    def patches(self) -> tuple[Patch, ...]:
        """The fields of the chosen form that hold expressions."""
        by_operand: dict[tuple[int, bool], Expression] = {}
        for index, field, expression in self.expressions:
            by_operand[index, field == "seg"] = expression
        constants = self.operands
        patches = []
        for fixup in self.code.fixups:
            offset, size, index, kind, signed = fixup
            expression = by_operand.get((index, kind == "seg"))
            if expression is None:
                expression = _constant_of(constants[index], kind)
            elif any(i == index and field == "address" for i, field, _ in self.expressions):
                expression = ("disp", expression)
            if kind in ("abs", "disp"):
                kind = "signed" if signed else "abs"
            patches.append(Patch(offset, size, kind, expression, fixup.limit))
        return tuple(patches)


def _kind_of_value(value: int | Linear | None) -> int | str | None:
    """What the length of an instruction may depend on: a number, None, an address in a section, a mere sum."""
    if value is None or isinstance(value, int):
        return value
    if UNKNOWN in value.terms:
        return None
    return "address" if any(not isinstance(term, str) for term in value.terms) else "registers"


def _constant_of(operand: Operand, kind: str) -> int:
    if isinstance(operand, Far):
        return (operand.seg if kind == "seg" else operand.off) or 0
    return (operand.disp if isinstance(operand, Mem) else operand.value) or 0  # type: ignore[union-attr]


def _with_value(operand: Operand, field: str, value: int | Linear | None, section: Section) -> Operand:
    """The operand with the value of an expression put in.

    Args:
        section: where the statement is: the distance of an address elsewhere from here is relocatable too.
    """
    if isinstance(value, Linear) and field != "address":
        if any(isinstance(term, str) for term in value.terms):
            raise ExpressionError("a register cannot be part of this expression")
        if sorted(count for term, count in value.terms.items() if (term, count) != (section, -1)) not in ([1], []):
            raise ExpressionError("expression is not simple or relocatable")
    number = value if isinstance(value, int) else None
    relocatable = isinstance(value, Linear)
    if isinstance(operand, Imm):
        return operand._replace(value=number, relocatable=relocatable)
    if isinstance(operand, Far):
        operand = operand._replace(relocatable=operand.relocatable or relocatable)
        return operand._replace(seg=number) if field == "seg" else operand._replace(off=number)
    if not isinstance(operand, Mem):
        raise ExpressionError("a register has no value")
    if field == "disp":
        if isinstance(value, Linear) and value.terms.get(section) == -1:  # a distance already
            return operand._replace(disp=None, relocatable=True, rel=False)
        return operand._replace(disp=number, relocatable=relocatable)
    if not isinstance(value, Linear):
        return operand._replace(disp=number)
    registers: dict[object, int] = {term: count for term, count in value.terms.items() if isinstance(term, str)}
    places = [
        (term, count)
        for term, count in value.terms.items()
        if not isinstance(term, str) and (term, count) != (section, -1) and term is not UNKNOWN
    ]
    if len(places) > 1 or any(count != 1 for _, count in places):
        raise ExpressionError("invalid effective address: impossible segment base multiplier")
    if value.summed:
        registers = dict(sorted(registers.items()))
    base, index, scale = base_and_index(registers, frozenset() if value.summed else value.scaled)
    disp = None if places or UNKNOWN in value.terms else value.const
    return operand._replace(base=base, index=index, scale=scale, disp=disp, relocatable=bool(places))


def repetitions(value: int) -> int:
    """How often `times` repeats: NASM keeps the low 32 bits of the count, and none is less than none."""
    return max((value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000, 0) if value > 0 else 0


def _says_where(expression: Expression) -> bool:
    """The expression asks where the code has come to, as in ``510-($-$$)``."""
    return expression is HERE or (isinstance(expression, tuple) and any(map(_says_where, expression)))


class Times:
    """A statement repeated as often as an expression says; ``$`` keeps the value it has at the first."""

    __slots__ = ("body", "count", "expression")

    def __init__(self, expression: Expression, body: Item) -> None:
        self.expression = expression
        self.body = body
        self.count = 0

    def size(self, section: Section, offset: int) -> int:
        value = evaluate(self.expression, section, offset)
        if isinstance(value, Linear):
            raise ExpressionError("non-constant argument supplied to TIMES")
        self.count = repetitions(value or 0)
        if isinstance(self.body, bytes):
            return _bounded(self.count * len(self.body))
        if isinstance(self.body, Fixed):
            return _bounded(self.count * len(self.body.data))
        total = 0
        for _ in range(_bounded(self.count)):
            total += self.body.size(section, offset + total)  # type: ignore[union-attr]
            _bounded(total)
        return total

    def emit(self, section: Section, offset: int, sink: Sink, start: int | None = None) -> bytes:
        value = evaluate(self.expression, section, offset)
        if isinstance(value, int) and value < 0:
            exceeded = f": what it fills up to is exceeded by {-value}" if _says_where(self.expression) else ""
            raise ExpressionError(f"TIMES value {value} is negative{exceeded}")
        self.size(section, offset)
        if isinstance(self.body, bytes):
            return self.body * self.count
        if isinstance(self.body, Fixed) and self.count and all(p.kind == "abs" for p in self.body.patches):
            return self._fixed(self.body, section, offset, sink)
        parts, total = [], 0
        for _ in range(self.count):
            self.body.size(section, offset + total)  # type: ignore[union-attr]
            parts.append(self.body.emit(section, offset + total, sink, offset))  # type: ignore[union-attr]
            total += len(parts[-1])
        return b"".join(parts)

    def _fixed(self, body: Fixed, section: Section, offset: int, sink: Sink) -> bytes:
        """A body of a known length: the same each time, unless it has addresses that the output must note each time."""
        if any(isinstance(evaluate(patch.expression, section, offset), Linear) for patch in body.patches):
            return b"".join(body.emit(section, offset + n * len(body.data), sink, offset) for n in range(self.count))
        return body.emit(section, offset, sink, offset) * self.count


def _bounded(size: int) -> int:
    if size > MAX_IMAGE:
        raise ExpressionError(f"{size} bytes are more than a section may hold ({MAX_IMAGE})")
    return size


class Reserve:
    """Space without contents: ``resb`` and its family."""

    __slots__ = ("count", "expression", "unit")

    def __init__(self, expression: Expression, unit: int) -> None:
        self.expression = expression
        self.unit = unit

    def size(self, section: Section, offset: int) -> int:
        value = evaluate(self.expression, section, offset)
        if isinstance(value, Linear):
            raise ExpressionError("attempt to reserve non-constant quantity of BSS space")
        size = max(value or 0, 0) * self.unit
        if not section.nobits and section is not SCALAR:
            _bounded(size)
        elif size > 1 << 48:
            raise ExpressionError(f"{size} bytes are more than an address space holds")
        return size

    def emit(self, section: Section, offset: int, sink: Sink, start: int | None = None) -> bytes:
        size = self.size(section, offset)
        if section.nobits or section is SCALAR:
            return b""
        return bytes(size)


class Padding:
    """A gap up to a multiple that is filled with no-operations (see nops.py)."""

    __slots__ = ("align", "mode", "sequences", "threshold")

    def __init__(self, align: int, sequences: str, threshold: int, mode: Mode) -> None:
        self.align = align
        self.sequences = sequences
        self.threshold = threshold
        self.mode = mode

    def size(self, section: Section, offset: int) -> int:
        return _bounded(-offset % self.align)

    def parts(self, section: Section, offset: int) -> list[tuple[bytes, int]]:
        """The no-operations, each with its count."""
        return parts(self.size(section, offset), self.sequences, self.mode.bits, self.threshold, self.mode.optimise > 1)

    def emit(self, section: Section, offset: int, sink: Sink, start: int | None = None) -> bytes:
        return b"".join(code * count for code, count in self.parts(section, offset))


class Equ:
    """A symbol whose value is an expression."""

    __slots__ = ("changed", "expression", "symbol")

    def __init__(self, symbol: Symbol, expression: Expression) -> None:
        self.symbol = symbol
        self.expression = expression
        self.changed = False

    def size(self, section: Section, offset: int) -> int:
        value = evaluate(self.expression, section, offset)
        symbol = self.symbol
        home, place = symbol.section, symbol.offset
        if isinstance(value, Linear):
            (where, count), *others = value.terms.items()
            if others or count != 1 or not isinstance(where, Section):
                raise ExpressionError("bad syntax for EQU: the value is neither a number nor an address")
            symbol.section, symbol.offset = where, value.const
        else:
            symbol.section, symbol.offset = SCALAR, value or 0  # 0 where the first pass does not know it
        self.changed = (symbol.section, symbol.offset) != (home, place)
        return 0

    def emit(self, section: Section, offset: int, sink: Sink, start: int | None = None) -> bytes:
        self.size(section, offset)
        return b""


class Probe:
    """What the preprocessor asked about places: the source goes on as it read only while the answer stays the same.

    Args:
        truth: the answer was only taken for true or false.
    """

    __slots__ = ("absolute", "answer", "expression", "truth")

    def __init__(self, expression: Expression, absolute: int | None, answer: int, truth: bool) -> None:
        self.expression = expression
        self.absolute = absolute  # the place, in `absolute` space
        self.answer = answer
        self.truth = truth

    def differs(self, section: Section, offset: int) -> bool:
        """Whether this pass would answer otherwise."""
        if self.absolute is not None:
            section, offset = SCALAR, self.absolute
        value = evaluate(self.expression, section, offset)
        return bool(value) != bool(self.answer) if self.truth else value != self.answer

    def size(self, section: Section, offset: int) -> int:
        return 0

    def emit(self, section: Section, offset: int, sink: Sink, start: int | None = None) -> bytes:
        return b""


class Switch:
    """From here on statements go to another section; the expression is the address that ``absolute`` says.

    Where that is an address in a section, what follows gets addresses there and no bytes: the layout sets `overlay`.
    """

    __slots__ = ("expression", "overlay", "section")

    def __init__(self, section: Section, expression: Expression | None = None) -> None:
        self.section = section
        self.expression = expression
        self.overlay = False

    def enter(self, section: Section, offset: int) -> tuple[Section, int]:
        """Where statements go on, from a place in the section before.

        Raises:
            ExpressionError: the expression has no such value.
        """
        if self.expression is None:
            return self.section, self.section.offset
        value = evaluate(self.expression, section, offset)
        self.overlay = isinstance(value, Linear)
        if not isinstance(value, Linear):
            return SCALAR, value or 0
        (home, count), *others = value.terms.items()
        if others or count != 1 or not isinstance(home, Section):
            raise ExpressionError("cannot use non-scalar expression as an ABSOLUTE address")
        return home, value.const


Item: TypeAlias = Union[bytes, Symbol, Fixed, Branch, Instruction, Times, Reserve, Padding, Equ, Probe, Switch]  # noqa: UP007
