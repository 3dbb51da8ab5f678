"""Encodes one instruction to bytes, choosing among the rows of x86.tbl as NASM does.

The work that depends on the shape of the instruction alone (mnemonic, registers, explicit sizes, which values are
known) is done once and kept as a plan: the forms that fit, in the order of preference, each with the condition that a
value must meet. What is left for each instruction is to test the conditions and to put the values in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from asm import table
from asm.address import EffectiveAddress, effective_address, is_offset, offset_size
from asm.operands import Encoded, EncodeError, Far, Fixup, Imm, Mem, Operand, Reg
from asm.table import Form, OperandSpec

_NUMBERS = {
    name: number
    for names in (
        table.REGISTERS_8_REX, table.REGISTERS_16, table.REGISTERS_32, table.REGISTERS_64, table.REGISTERS_SEG,
        table.REGISTERS_CR, table.REGISTERS_DR,
    )
    for number, name in enumerate(names)
} | {"ah": 4, "ch": 5, "dh": 6, "bh": 7}  # fmt: skip
_CLASSES = {
    8: frozenset((*table.REGISTERS_8, *table.REGISTERS_8_REX)),
    16: frozenset(table.REGISTERS_16),
    32: frozenset(table.REGISTERS_32),
    64: frozenset(table.REGISTERS_64),
}
_SPECIAL = {"sreg": frozenset(table.REGISTERS_SEG), "cr": frozenset(table.REGISTERS_CR), "dr": frozenset(table.REGISTERS_DR)}
_HIGH_BYTES = frozenset(("ah", "ch", "dh", "bh"))
_NEED_REX = frozenset(("spl", "bpl", "sil", "dil"))

# The slots of prefixes in the order in which NASM emits them; two prefixes of one slot contradict each other.
_WAIT, _REPEAT, _LOCK, _SEGMENT, _OPERAND, _ADDRESS = range(6)
_PREFIXES = {
    "wait": (_WAIT, 0x9B), "rep": (_REPEAT, 0xF3), "repe": (_REPEAT, 0xF3), "repz": (_REPEAT, 0xF3),
    "repne": (_REPEAT, 0xF2), "repnz": (_REPEAT, 0xF2), "xacquire": (_REPEAT, 0xF2), "xrelease": (_REPEAT, 0xF3),
    "bnd": (_REPEAT, 0xF2), "lock": (_LOCK, 0xF0), "es": (_SEGMENT, 0x26), "cs": (_SEGMENT, 0x2E),
    "ss": (_SEGMENT, 0x36), "ds": (_SEGMENT, 0x3E), "fs": (_SEGMENT, 0x64), "gs": (_SEGMENT, 0x65),
    "o16": (_OPERAND, 16), "o32": (_OPERAND, 32), "o64": (_OPERAND, 64),
    "a16": (_ADDRESS, 16), "a32": (_ADDRESS, 32), "a64": (_ADDRESS, 64),
}  # fmt: skip
_OPCODE_MAPS = (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a")
_FIELD_SIZES = {"ib": 1, "iw": 2, "id": 4, "iq": 8, "cb": 1, "cw": 2, "cd": 4}

# Conditions on a value. A condition of the last form that fits is dropped: the value is truncated with a warning.
_ONE, _SIGNED_BYTE_16, _SIGNED_BYTE, _UNSIGNED_32, _SIGNED_32, _SHORT, _NEVER = range(7)
_PLAN_LIMIT = 1 << 15


class _Field(NamedTuple):
    """A field that follows the opcode: which operand fills it, its bytes, its bounds and what it is."""

    operand: int
    size: int
    mask: int
    low: int
    high: int
    kind: int
    signed: bool


_VALUE, _DISPLACEMENT, _RELATIVE, _RIP_RELATIVE, _OFFSET, _SELECTOR = range(6)
_FIXUP_KINDS = ("abs", "abs", "rel", "rel", "abs", "seg")
_SIZE_NAMES = {1: "byte", 2: "word", 4: "dword", 8: "qword"}


class _Variant(NamedTuple):
    """A form with its displacement's size chosen: constant bytes, then fields."""

    head: bytes
    fields: tuple[_Field, ...]
    fixups: tuple[Fixup, ...]
    length: int


class _Alternative(NamedTuple):
    """A form that fits the operands' shape: conditions are (operand, condition), variants by size of displacement."""

    form: Form
    conditions: tuple[tuple[int, int], ...]
    mem: int
    forced: int
    has_short: bool
    wrap: int
    variants: tuple[_Variant | None, ...]


def encode(
    mnemonic: str,
    operands: tuple[Operand, ...],
    bits: int,
    prefixes: tuple[str, ...] = (),
    *,
    address: int = 0,
    optimise: bool = True,
    default_rel: bool = False,
) -> Encoded:
    """Encodes one instruction.

    An assembler calls this in passes. Unknown values (None) are taken as NASM -Ox takes them: jumps start short,
    immediates start in their shortest form, displacements in their longest, and the field is left zero with a fixup.
    The assembler calls again with the values and addresses that the last pass gave until no length changes.

    Args:
        mnemonic: in lower case; empty for a line of prefixes alone.
        operands: in the order of the source.
        bits: code size, 16, 32 or 64.
        prefixes: in lower case, as the source has them (``lock``, ``rep``, ``es``, ``o16``, ``a32``, ...).
        address: of the instruction's first byte; relative fields count from its end.
        optimise: NASM's -Ox; without it (-O0) immediates and jumps keep their full size unless the source says else.
        default_rel: NASM's ``default rel``.

    Returns:
        The bytes, fixups for fields that are unknown or relocatable, and warnings.

    Raises:
        EncodeError: there is no such instruction; ``forms`` has those that exist.
    """
    key: list[object] = [mnemonic, bits, prefixes, optimise, default_rel]
    for operand in operands:
        kind = type(operand)
        if kind is Reg:
            key.append(operand)
        elif kind is Imm:
            key.append((operand[0] is None, operand[1:]))
        elif kind is Mem:
            key.append(operand._replace(disp=operand.disp and 0))  # type: ignore[union-attr]
        else:
            key.append((kind, operand[0] is None, operand[1] is None, operand[2:]))
    shape = tuple(key)
    plan = _plans.get(shape)
    if plan is None:
        if len(_plans) > _PLAN_LIMIT:
            _plans.clear()
        plan = _plans[shape] = _make_plan(mnemonic, operands, bits, prefixes, optimise, default_rel)
    if type(plan) is Encoded:
        return plan
    for alternative in plan:
        for index, condition in alternative.conditions:
            if not _meets(operands[index], condition, address, alternative):
                break
        else:
            return _emit(alternative, operands, address)
    raise AssertionError("the last form that fits has no condition")


_plans: dict[tuple[object, ...], Encoded | list[_Alternative]] = {}


def _meets(operand: Operand, condition: int, address: int, alternative: _Alternative) -> bool:
    if condition == _NEVER:
        return False
    value = operand[0]
    if value is None:
        return True
    assert isinstance(value, int)
    if condition == _SIGNED_BYTE:
        return value + 0x80 & 0xFFFFFFFF < 0x100
    if condition == _SIGNED_BYTE_16:
        return value + 0x80 & 0xFFFF < 0x100
    if condition == _SHORT:
        variant = alternative.variants[0]
        assert variant is not None
        return -0x80 <= value - address - variant.length <= 0x7F
    if condition == _UNSIGNED_32:
        return value & 0xFFFFFFFFFFFFFFFF <= 0xFFFFFFFF
    if condition == _SIGNED_32:
        return value + 0x80000000 & 0xFFFFFFFFFFFFFFFF <= 0xFFFFFFFF
    return value == 1


def _emit(alternative: _Alternative, operands: tuple[Operand, ...], address: int) -> Encoded:
    choice = 0
    if alternative.mem >= 0:
        choice = alternative.forced
        if choice < 0:
            displacement: int | None = operands[alternative.mem].disp  # type: ignore[union-attr]
            choice = 2
            if displacement is not None and alternative.has_short:
                if not displacement & alternative.wrap and alternative.variants[0] is not None:
                    choice = 0
                elif displacement + 0x80 & alternative.wrap < 0x100:
                    choice = 1
    variant = alternative.variants[choice]
    assert variant is not None
    data, fields, fixups, length = variant
    warnings: tuple[str, ...] = ()
    for operand, size, mask, low, high, kind, _ in fields:
        if kind == _DISPLACEMENT or kind == _RIP_RELATIVE:
            value = operands[operand].disp  # type: ignore[union-attr]
        else:
            value = operands[operand][kind == _OFFSET]  # type: ignore[assignment]
        if value is None:
            value = 0
        elif kind == _RELATIVE or kind == _RIP_RELATIVE:
            value -= address + length
            if size == 1 and not -0x80 <= value <= 0x7F:
                raise EncodeError("short jump is out of range")
        elif not low <= value <= high:
            warnings += (_warning(value, size, low),)
        data += (value & mask).to_bytes(size, "little")
    return Encoded(data, fixups, warnings)


def _warning(value: int, size: int, low: int) -> str:
    signed = "signed " if low == -1 << 8 * size - 1 else ""
    return f"{signed}{_SIZE_NAMES[size]} value {value:#x} exceeds bounds"


class _Prefixes:
    """The prefixes of one instruction, sorted into their slots."""

    def __init__(self, names: Sequence[str], bits: int) -> None:
        self.values = [0] * 6
        for name in names:
            if name not in _PREFIXES:
                raise EncodeError(f"{name} is no prefix")
            slot, value = _PREFIXES[name]
            if self.values[slot] and self.values[slot] != value:
                raise EncodeError("instruction has conflicting prefixes")
            self.values[slot] = value
        address = self.values[_ADDRESS]
        if self.values[_OPERAND] == 64 != bits or (address and (address + bits == 80 or (address == 64) > (bits == 64))):
            raise EncodeError(f"prefix of a size that does not exist in {bits}-bit mode")

    def encode(self, bits: int, osize: int, asizes: set[int], segment: str | None) -> bytes:
        """The prefix bytes in NASM's order.

        Args:
            osize: operand size that the form wants, 0 for any. asizes: address sizes that form and operand want.
        """
        values = list(self.values)
        if segment is not None:
            if values[_SEGMENT] and values[_SEGMENT] != _PREFIXES[segment][1]:
                raise EncodeError("instruction has conflicting segment overrides")
            values[_SEGMENT] = _PREFIXES[segment][1]
        size = values[_OPERAND] or osize
        values[_OPERAND] = 0x66 if size in (16, 32) and (size == 16) != (bits == 16) else 0
        asizes = asizes | {values[_ADDRESS] or bits}
        values[_ADDRESS] = 0x67 if asizes != {bits} else 0
        return bytes(filter(None, values))


def _make_plan(
    mnemonic: str,
    operands: tuple[Operand, ...],
    bits: int,
    prefix_names: tuple[str, ...],
    optimise: bool,
    default_rel: bool,
) -> Encoded | list[_Alternative]:
    prefixes = _Prefixes(prefix_names, bits)
    if not mnemonic:
        return Encoded(prefixes.encode(bits, 0, set(), None))
    forms = [form for form in table.load().forms_of(mnemonic) if form.encodes]
    if not forms:
        raise EncodeError(f"unknown instruction {mnemonic!r}")
    if mnemonic == "lea" and len(operands) == 2 and type(operands[1]) is Imm:
        # NASM takes LEA of a number as LEA of the offset; the value is looked up in the operand as it is given.
        raise EncodeError("LEA wants a memory operand in brackets", _syntaxes(forms, bits))
    fitting = _fitting(forms, operands, bits, optimise, prefixes)
    plan = [
        _alternative(form, conditions, operands, bits, prefixes, default_rel)
        for form, conditions in _resolve_size(mnemonic, fitting, operands, bits, forms)
    ]
    plan[-1] = plan[-1]._replace(conditions=())
    if len(plan) == 1 and plan[0].mem < 0:
        variant = plan[0].variants[0]
        assert variant is not None
        if not variant.fields:
            return Encoded(variant.head)
    return plan


_Fit = tuple[Form, tuple[tuple[int, int], ...]]


def _syntaxes(forms: Sequence[Form], bits: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(form.syntax.replace("simm", "imm") for form in forms if bits in form.modes))


def _fitting(
    forms: Sequence[Form], operands: tuple[Operand, ...], bits: int, optimise: bool, prefixes: _Prefixes
) -> list[_Fit]:
    fitting: list[_Fit] = []
    wrong_mode = wrong_size = False
    for form in forms:
        if len(form.operands) != len(operands):
            continue
        conditions: list[tuple[int, int]] = []
        for index, (spec, operand) in enumerate(zip(form.operands, operands, strict=True)):
            fit = _fit(form, spec, operand, bits, optimise, prefixes)
            if fit is None:
                break
            if fit == _WRONG_SIZE:
                wrong_size = True
                break
            if fit != _ALWAYS:
                conditions.append((index, fit))
        else:
            if bits not in form.modes:
                wrong_mode = True
            elif not _is_nop(form, operands, bits):
                fitting.append((form, tuple(conditions)))
    if fitting:
        return fitting
    if wrong_mode:
        raise EncodeError(f"instruction not supported in {bits}-bit mode", _syntaxes(forms, bits))
    if wrong_size:
        raise EncodeError("mismatch in operand sizes", _syntaxes(forms, bits))
    raise EncodeError("invalid combination of opcode and operands", _syntaxes(forms, bits))


def _is_nop(form: Form, operands: tuple[Operand, ...], bits: int) -> bool:
    """XCHG EAX, EAX in its short form would be NOP in 64-bit mode and leave the upper half of RAX."""
    return bits == 64 and form.opcode == 0x90 and form.osize == 32 and operands[0] == operands[1] == Reg("eax")


_ALWAYS, _WRONG_SIZE = -1, -2


def _fit(
    form: Form, spec: OperandSpec, operand: Operand, bits: int, optimise: bool, prefixes: _Prefixes
) -> int | None:
    """Whether an operand fits: a condition on its value, _ALWAYS, _WRONG_SIZE, or None where it does not."""
    if isinstance(operand, Reg):
        return _ALWAYS if _fits_register(spec, operand.name) else None
    if isinstance(operand, Mem):
        return _fit_memory(form, spec, operand, bits)
    if isinstance(operand, Imm):
        if spec.kind == "one":
            return None if operand.size or operand.strict or operand.relocatable else _ONE
        if spec.kind == "rel":
            return _fit_relative(form, spec, operand, bits, optimise)
        return _fit_immediate(form, spec, operand, bits, optimise) if spec.kind == "imm" else None
    if spec.kind != "ptr":
        return None
    size = operand.size or prefixes.values[_OPERAND] or bits
    return _ALWAYS if size == spec.size or bits == 64 else _WRONG_SIZE


def _fits_register(spec: OperandSpec, name: str) -> bool:
    if spec.kind in ("r", "rm"):
        return name in _CLASSES[spec.size]
    if spec.kind == "reg":
        return name == spec.register
    return name in _SPECIAL.get(spec.kind, ())


def _fit_memory(form: Form, spec: OperandSpec, mem: Mem, bits: int) -> int | None:
    if not spec.takes_memory:
        return None
    if spec.kind == "moffs" and (not is_offset(mem) or (bits == 64 and mem.disp_size != 64)):
        return None
    is_pointer = ":" in spec.text
    if form.mnemonic in ("CALL", "JMP") and is_pointer != (mem.distance == "far"):
        return None
    size = spec.size if spec.memory_size < 0 else spec.memory_size
    return _ALWAYS if not mem.size or not size or mem.size == size else _WRONG_SIZE


def _fit_relative(form: Form, spec: OperandSpec, operand: Imm, bits: int, optimise: bool) -> int | None:
    if operand.distance == "far":
        return None
    if spec.size == 8:
        if operand.distance == "short":
            return _ALWAYS
        if operand.distance or operand.strict or operand.size not in (0, 8):
            return _NEVER
        # Without optimisation NASM still takes the short form of conditional jumps.
        unknown_or_near = operand.value is None or operand.relocatable
        return _SHORT if unknown_or_near and (optimise or form.mnemonic != "JMP") else _NEVER
    if operand.distance == "short":
        return None
    wanted = operand.size or bits
    return _ALWAYS if wanted == (form.operand_size or bits) else _WRONG_SIZE


def _fit_immediate(form: Form, spec: OperandSpec, operand: Imm, bits: int, optimise: bool) -> int:
    osize = form.operand_size
    if form.mnemonic == "PUSH" and operand.size in (0, 8) and osize != bits:
        # The one instruction whose operand size the immediate alone decides.
        return _WRONG_SIZE
    if operand.size and operand.size not in _immediate_sizes(form, spec):
        return _WRONG_SIZE
    fixed_width = operand.strict or operand.relocatable or not optimise
    if spec.size == 8 and spec.signed:
        if operand.size == 8:
            return _ALWAYS
        return _NEVER if fixed_width else _SIGNED_BYTE_16 if osize == 16 else _SIGNED_BYTE
    if _narrows(form):
        return _NEVER if fixed_width else _UNSIGNED_32
    if form.mnemonic == "MOV" and spec.signed and operand.size != 32:
        # The one instruction that has a form with a 64-bit immediate.
        return _NEVER if fixed_width else _SIGNED_32
    return _ALWAYS


def _immediate_sizes(form: Form, spec: OperandSpec) -> tuple[int, ...]:
    """The size keywords that an immediate may have."""
    if _narrows(form):
        return (64,)
    if not spec.signed:
        return (spec.size,)
    if form.mnemonic == "PUSH":
        return (spec.size, 32, 64) if form.operand_size == 64 else (spec.size, form.operand_size)
    if spec.size == 32 and form.mnemonic not in ("MOV", "IMUL"):
        return (form.operand_size,)
    return (spec.size, form.operand_size)


def _narrows(form: Form) -> bool:
    """The form writes a 32-bit register to mean the 64-bit one (MOV r64, imm32 without REX.W)."""
    return form.osize == 32 and form.operands[0].size == 64


def _memory_size(form: Form, index: int) -> int:
    spec = form.operands[index]
    return spec.size if spec.memory_size < 0 else spec.memory_size


def _resolve_size(
    mnemonic: str, fitting: list[_Fit], operands: tuple[Operand, ...], bits: int, forms: Sequence[Form]
) -> list[_Fit]:
    """Of forms of several sizes, those that an operand in memory without a size keyword means.

    Raises:
        EncodeError: nothing says which.
    """
    for index, operand in enumerate(operands):
        if not isinstance(operand, Mem) or operand.size:
            continue
        if len({_memory_size(form, index) for form, _ in fitting}) < 2:
            continue
        if mnemonic in ("call", "jmp"):
            return [fit for fit in fitting if fit[0].operand_size == bits]
        sizes = {other.size for other in operands if isinstance(other, Imm) and other.size}
        counts = any(spec.text == "imm8" and _memory_size(form, index) > 8 for form, _ in fitting for spec in form.operands)
        if not sizes or counts:
            raise EncodeError("operation size not specified", _syntaxes(forms, bits))
        fitting = [fit for fit in fitting if _memory_size(fit[0], index) in sizes]
    return fitting


def _alternative(
    form: Form,
    conditions: tuple[tuple[int, int], ...],
    operands: tuple[Operand, ...],
    bits: int,
    prefixes: _Prefixes,
    default_rel: bool,
) -> _Alternative:
    """Encodes all of a form but the values."""
    rex = 8 if form.osize == 64 else 0
    needs_rex = has_high_byte = False
    modrm = -1
    opcode = form.opcode
    if form.fixed >= 0:
        modrm = form.fixed
    elif form.modrm:
        modrm = max(form.digit, 0) << 3 | (0xC0 if not any(type(o) is Mem for o in operands) else 0)
    asizes = {form.asize} if form.asize else set()
    mem_index, address, segment = -1, None, None
    wheres = {spec.where for spec in form.operands}
    fields: list[_Field] = []
    immediates = iter(form.immediates)
    for index, (spec, operand) in enumerate(zip(form.operands, operands, strict=True)):
        if isinstance(operand, Reg):
            number = _NUMBERS[operand.name]
            needs_rex |= operand.name in _NEED_REX
            has_high_byte |= operand.name in _HIGH_BYTES
            if spec.where in ("REG", "SREG", "CR", "DR"):
                modrm |= (number & 7) << 3
                rex |= (number >> 3) << 2
            if spec.where == "RM" or (spec.where == "REG" and not wheres & {"RM", "MEM"} and modrm >= 0):
                modrm |= number & 7
                rex |= number >> 3
            if spec.where == "OPREG":
                opcode |= number & 7
                rex |= number >> 3
        elif isinstance(operand, Mem):
            segment = operand.seg
            if spec.kind == "moffs":
                asize = offset_size(operand, bits, prefixes.values[_ADDRESS])
                asizes.add(asize)
                fields.append(_field(index, asize // 8, _DISPLACEMENT))
            else:
                mem_index = index
                address = effective_address(operand, bits, prefixes.values[_ADDRESS], default_rel)
                asizes.add(address.size)
                rex |= address.rex_x << 1 | address.rex_b
        elif isinstance(operand, Far):
            token = next(immediates)
            fields += [_field(index, 2 if token == "cd" else 4, _OFFSET), _field(index, 2, _SELECTOR)]
        elif spec.kind in ("imm", "rel"):
            token = next(immediates)
            signed = spec.kind == "imm" and spec.signed
            fields.append(_field(index, _FIELD_SIZES[token], _RELATIVE if spec.kind == "rel" else _VALUE, signed))
    if prefixes.values[_OPERAND] == 64 and not (
        (form.default64 or form.force64) and any(spec.size == 64 for spec in form.operands)
    ):
        rex |= 8
    if rex or needs_rex:
        if bits != 64:
            raise EncodeError("invalid operands in non-64-bit mode")
        if has_high_byte:
            raise EncodeError("cannot use high byte register in rex instruction")
    head = prefixes.encode(bits, form.osize, asizes, segment)
    if form.prefix and form.prefix != "NP":
        head += bytes.fromhex(form.prefix)
    if rex or needs_rex:
        head += bytes((0x40 | rex,))
    head += _OPCODE_MAPS[form.map] + bytes((opcode,))
    return _Alternative(
        form,
        conditions,
        mem_index,
        address.forced if address else -1,
        not _is_relocatable(operands, mem_index),
        0xFFFF if address and address.size == 16 else 0xFFFFFFFF,
        _variants(head, modrm, address, mem_index, fields, operands),
    )


def _is_relocatable(operands: tuple[Operand, ...], mem_index: int) -> bool:
    return mem_index >= 0 and operands[mem_index].relocatable  # type: ignore[union-attr]


def _field(operand: int, size: int, kind: int, signed: bool = False) -> _Field:
    width = 8 * size
    low = -1 << (width - 1 if signed and size < 8 else width)
    high = (1 << (width - 1 if signed and size == 1 else width)) - 1
    return _Field(operand, size, (1 << width) - 1, low, high, kind, signed)


def _variants(
    head: bytes,
    modrm: int,
    address: EffectiveAddress | None,
    mem_index: int,
    fields: Sequence[_Field],
    operands: tuple[Operand, ...],
) -> tuple[_Variant | None, ...]:
    if address is None:
        return (_variant(head + (bytes((modrm,)) if modrm >= 0 else b""), fields, operands),)
    variants: list[_Variant | None] = []
    for size, choice in zip((0, 1, address.full), address.choices, strict=True):
        if choice is None:
            variants.append(None)
            continue
        kind = _RIP_RELATIVE if address.relative else _DISPLACEMENT
        displacement = [_field(mem_index, size, kind)] if size else []
        start = head + bytes((choice[0] | modrm & 0x38,)) + choice[1:]
        variants.append(_variant(start, [*displacement, *fields], operands))
    return tuple(variants)


def _variant(head: bytes, fields: Sequence[_Field], operands: tuple[Operand, ...]) -> _Variant:
    fixups = []
    offset = len(head)
    for field in fields:
        operand = operands[field.operand]
        if isinstance(operand, Mem):
            value: int | None = operand.disp
        else:
            value = operand[field.kind == _OFFSET]  # type: ignore[assignment]
        if value is None or operand.relocatable:  # type: ignore[union-attr]
            fixups.append(Fixup(offset, field.size, field.operand, _FIXUP_KINDS[field.kind], field.signed))
        offset += field.size
    return _Variant(head, tuple(fields), tuple(fixups), offset)
