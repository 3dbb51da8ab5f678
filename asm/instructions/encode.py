"""Encodes one instruction to bytes, choosing among the rows of x86.tbl as NASM does.

What depends on the shape of the instruction alone is done once. The templates of a shape are the forms that fit
(match.py) with the place of each operand; a plan is the templates with registers and address filled in. What is left
for each instruction is to test the conditions and to put the values in.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from asm import table
from asm.instructions.address import (
    EffectiveAddress,
    effective_address,
    is_offset,
    is_rip_relative,
    offset_size,
    vector_index,
)
from asm.instructions.match import (
    ANY,
    NEVER,
    REGISTER_CLASS,
    SHORT,
    SIGNED_32,
    SIGNED_BYTE,
    SIGNED_BYTE_16,
    UNSIGNED_32,
    WRITTEN_ONE,
    Fit,
    level_of,
    matching_forms,
)
from asm.instructions.operands import Encoded, EncodeError, Far, Fixup, Imm, Mem, Operand, Reg
from asm.table import Form

# A register's number, with a bit for those that exist with a REX prefix only and one for those that exist without.
_NEEDS_REX, _FORBIDS_REX = 0x10, 0x20
_NUMBERS = {
    name: number
    for names in (
        table.REGISTERS_8_REX, table.REGISTERS_16, table.REGISTERS_32, table.REGISTERS_64, table.REGISTERS_SEG,
        table.REGISTERS_CR, table.REGISTERS_DR, table.REGISTERS_TR, *table.VECTORS.values(),
    )
    for number, name in enumerate(names)
}  # fmt: skip
_NUMBERS |= {name: 4 + number | _NEEDS_REX for number, name in enumerate(("spl", "bpl", "sil", "dil"))}
_NUMBERS |= {name: 4 + number | _FORBIDS_REX for number, name in enumerate(("ah", "ch", "dh", "bh"))}

# The slots of prefixes in the order in which NASM emits them; two prefixes of one slot contradict each other.
_WAIT, _REPEAT, _LOCK, _SEGMENT, _OPERAND, _ADDRESS = range(6)
_PREFIXES = {
    "wait": (_WAIT, 0x9B),
    "rep": (_REPEAT, 0xF3), "repe": (_REPEAT, 0xF3), "repz": (_REPEAT, 0xF3), "xrelease": (_REPEAT, 0xF3),
    "repne": (_REPEAT, 0xF2), "repnz": (_REPEAT, 0xF2), "xacquire": (_REPEAT, 0xF2), "bnd": (_REPEAT, 0xF2),
    "nobnd": (_REPEAT, 0),
    "lock": (_LOCK, 0xF0),
    "es": (_SEGMENT, 0x26), "cs": (_SEGMENT, 0x2E), "ss": (_SEGMENT, 0x36), "ds": (_SEGMENT, 0x3E),
    "fs": (_SEGMENT, 0x64), "gs": (_SEGMENT, 0x65),
    "o16": (_OPERAND, 16), "o32": (_OPERAND, 32), "o64": (_OPERAND, 64),
    "a16": (_ADDRESS, 16), "a32": (_ADDRESS, 32), "a64": (_ADDRESS, 64),
}  # fmt: skip
_ENCODINGS = frozenset(("{rex}", "{vex}", "{vex2}", "{vex3}"))  # which prefix the opcode is to have
PREFIX_NAMES = frozenset((*_PREFIXES, *_ENCODINGS, "osp", "asp"))
_OPCODE_MAPS = (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a")
_FIELD_SIZES = {"ib": 1, "iw": 2, "id": 4, "iq": 8, "cb": 1, "cw": 2, "cd": 4}
_SIZE_NAMES = {1: "byte", 2: "word", 4: "dword", 8: "qword"}
_REX_W, _REX_R, _REX_X, _REX_B = 8, 4, 2, 1
# Places of a register.
_IN_REG, _IN_RM, _IN_OPCODE, _IN_VVVV, _IN_IS4 = range(5)
_PLACES = {
    "OPREG": (_IN_OPCODE,), "RM": (_IN_RM,), "ST": (_IN_RM,), "REG": (_IN_REG,), "SREG": (_IN_REG,), "CR": (_IN_REG,),
    "DR": (_IN_REG,), "TR": (_IN_REG,), "VVVV": (_IN_VVVV,), "IS4": (_IN_IS4,), "REG+VVVV": (_IN_REG, _IN_VVVV),
    "VVVV+RM": (_IN_VVVV, _IN_RM),
}  # fmt: skip
_VEX_PREFIXES = {"NP": 0, "66": 1, "F3": 2, "F2": 3}
# Kinds of fields.
_VALUE, _DISPLACEMENT, _RELATIVE, _RIP_RELATIVE, _OFFSET, _SELECTOR, _MOFFS = range(7)
_FIXUP_KINDS = ("abs", "disp", "rel", "rel", "abs", "seg", "abs")
_CACHE_LIMIT = 1 << 15


class _Field(NamedTuple):
    """A field that follows the opcode: which operand fills it, its bytes, its bounds and what it is."""

    operand: int
    size: int
    mask: int
    low: int
    high: int
    kind: int
    signed: bool


class _Variant(NamedTuple):
    """A form with the size of its displacement chosen: constant bytes, then fields."""

    head: bytes
    fields: tuple[_Field, ...]
    fixups: tuple[Fixup, ...]
    length: int
    tail: bytes  # constant too


def encode(
    mnemonic: str,
    operands: tuple[Operand, ...],
    bits: int,
    prefixes: tuple[str, ...] = (),
    *,
    address: int = 0,
    optimise: int = 2,
    default_rel: bool = False,
    level: int = ANY,
) -> Encoded:
    """Encodes one instruction.

    An assembler calls this in passes. Unknown values (None) are taken as NASM -Ox takes them: jumps start short,
    immediates start in their shortest form, displacements in their longest, and the field is left zero with a fixup.
    The assembler calls again with the values and addresses that the last pass gave until no length changes. A jump is
    made short only where its target is relocatable (a label of the same section) or unknown, as NASM does.

    Args:
        mnemonic: in lower case; empty for a line of prefixes alone.
        operands: in the order of the source.
        bits: code size, 16, 32 or 64.
        prefixes: in lower case, as the source has them (``lock``, ``rep``, ``es``, ``o16``, ``a32``, ...).
        address: of the instruction's first byte; relative fields count from its end.
        optimise: 2 for NASM's -Ox; 1 for -O1: jumps keep their full size; 0 for -O0: immediates do so too.
        default_rel: NASM's ``default rel``.
        level: of the processor, an index of `asm.instructions.match.LEVELS`; later instructions are refused.

    Returns:
        The bytes, fixups for fields that are unknown or relocatable, and warnings.

    Raises:
        EncodeError: there is no such instruction; ``forms`` has those that exist.
    """
    key: list[object] = [mnemonic, bits, prefixes, optimise, default_rel, level]
    for operand in operands:
        kind = type(operand)
        if kind is Reg:
            key.append(operand)
        elif kind is Imm:
            key.append(operand[1:] if operand[0] is not None else (None, operand[1:]))
        elif kind is Mem:
            key.append((operand[:5], operand[5] is None, operand[6:]))  # type: ignore[misc]
        else:
            key.append((Far, operand[0] is None, operand[1] is None, operand[2:]))  # type: ignore[misc]
    shape = tuple(key)
    plan = _plans.get(shape)
    if plan is None:
        if len(_plans) > _CACHE_LIMIT:
            _plans.clear()
        plan = _plans[shape] = _make_plan(mnemonic, operands, bits, prefixes, optimise, default_rel, level)
    if type(plan) is Encoded:
        return plan
    for choice in plan:
        for index, condition in choice.conditions:
            if not _meets(operands[index], condition, address, choice):
                break
        else:
            return choice.emit(operands, address)
    raise AssertionError("the last form that fits has no condition")


_plans: dict[tuple[object, ...], Encoded | list[_Choice]] = {}
_templates: dict[tuple[object, ...], list[_Template]] = {}


def _meets(operand: Operand, condition: int, address: int, choice: _Choice) -> bool:
    value = operand[0]
    if condition == NEVER:
        return False
    if value is None:
        return condition != WRITTEN_ONE
    assert type(value) is int
    if condition == SIGNED_BYTE:
        return value + 0x80 & 0xFFFFFFFF < 0x100
    if condition == SIGNED_BYTE_16:
        return value + 0x80 & 0xFFFF < 0x100
    if condition == SHORT:
        return -0x80 <= value - address - choice.variant(0).length <= 0x7F
    if condition == UNSIGNED_32:
        return value & 0xFFFFFFFFFFFFFFFF <= 0xFFFFFFFF
    if condition == SIGNED_32:
        return value + 0x80000000 & 0xFFFFFFFFFFFFFFFF <= 0xFFFFFFFF
    return value == 1


class _Prefixes:
    """The prefixes of one instruction, sorted into their slots."""

    def __init__(self, names: Sequence[str], bits: int) -> None:
        self.bits = bits
        self.values = [0] * 6
        self.repeat = ""  # the name in the slot of repeats
        self.is_redundant = len(set(names)) < len(names)
        self.hint = next((name for name in names if name in ("xacquire", "xrelease")), "")  # of lock elision
        self.encoding = next((name for name in names if name in _ENCODINGS), "")
        for name in names:
            if name in _ENCODINGS:
                if name != self.encoding:
                    raise EncodeError("instruction has conflicting prefixes")
                continue
            if name == "osp":
                name = "o32" if bits == 16 else "o16"
            elif name == "asp":
                name = "a16" if bits == 32 else "a32"
            if name not in _PREFIXES:
                raise EncodeError(f"{name} is no prefix")
            slot, value = _PREFIXES[name]
            if slot == _REPEAT:
                if self.repeat not in ("", name):
                    raise EncodeError("instruction has conflicting prefixes")
                self.repeat = name
            if self.values[slot] and self.values[slot] != value:
                raise EncodeError("instruction has conflicting prefixes")
            self.values[slot] = value
        address = self.values[_ADDRESS]
        impossible = address and (address + bits == 80 or (address == 64) > (bits == 64))
        if impossible or self.operand_size == 64 != bits:
            raise EncodeError(f"prefix of a size that does not exist in {bits}-bit mode")

    def with_wait(self) -> _Prefixes:
        """The same with FWAIT before them."""
        made = copy.copy(self)
        made.values = [0x9B, *self.values[1:]]
        return made

    def without_repeat(self) -> _Prefixes:
        """The same without ``bnd``, ``rep`` or the like."""
        made = copy.copy(self)
        made.values = [*self.values[:_REPEAT], 0, *self.values[_REPEAT + 1 :]]
        made.repeat = ""
        return made

    @property
    def locks(self) -> bool:
        return bool(self.values[_LOCK])

    @property
    def segment(self) -> str:
        value = self.values[_SEGMENT]
        return next((name for name, known in _PREFIXES.items() if known == (_SEGMENT, value)), "") if value else ""

    @property
    def operand_size(self) -> int:
        return self.values[_OPERAND]

    @property
    def address_size(self) -> int:
        return self.values[_ADDRESS]

    def encode(self, osize: int, asizes: Sequence[int], segment: str | None) -> bytes:
        """The prefix bytes in NASM's order.

        Args:
            osize: operand size that the form wants, 0 for any.
            asizes: address sizes that form and operands want, 0 for any.
            segment: the override in a memory operand.
        """
        values = list(self.values)
        if segment is not None:
            if values[_SEGMENT] and values[_SEGMENT] != _PREFIXES[segment][1]:
                raise EncodeError("instruction has conflicting segment overrides")
            values[_SEGMENT] = _PREFIXES[segment][1]
        size = values[_OPERAND] or osize
        values[_OPERAND] = 0x66 if size in (16, 32) and (size == 16) != (self.bits == 16) else 0
        values[_ADDRESS] = 0x67 if any(size not in (0, self.bits) for size in (*asizes, values[_ADDRESS])) else 0
        return bytes(value for value in values if value)


class _Template:
    """A form that fits a shape of operands: where each operand goes, but for the registers themselves."""

    def __init__(self, fit: Fit, operands: tuple[Operand, ...], bits: int, prefixes: _Prefixes, level: int) -> None:
        form, self.conditions = fit
        self.level = level
        self.form = form
        self.bits = bits
        self.rex = _REX_W if form.osize == 64 else 0
        drops = any(spec.register == "mm" for spec in form.operands)  # NASM takes an MMX register for 64 bits enough
        if prefixes.operand_size == 64 and not drops and not (form.operand_size == 64 and _shows_size(form, operands)):
            self.rex |= _REX_W
        self.modrm = -1
        if form.fixed >= 0:
            self.modrm = form.fixed
        elif form.modrm:
            self.modrm = max(form.digit, 0) << 3
            if not any(type(operand) is Mem for operand in operands):
                self.modrm |= 0xC0
        if form.wait:
            prefixes = prefixes.with_wait()
        self.drops_bnd = False
        if prefixes.repeat in (("repne", "repnz") if form.takes_bnd else ("bnd", "nobnd")):
            self.drops_bnd = form.syntax == "JMP rel8" and operands[0].distance != "short"  # type: ignore[union-attr]
            if not self.drops_bnd:
                raise EncodeError(f"{prefixes.repeat} prefix is not allowed")
            prefixes = prefixes.without_repeat()
        self.prefixes = prefixes
        self.before_rex = form.mandatory_prefix
        self.after_rex = _OPCODE_MAPS[form.map]
        self.registers: list[tuple[int, int]] = []
        self.mem = self.offset = -1
        self.fields: list[_Field] = []
        self._place(operands)
        self._heads: dict[tuple[int, str | None], bytes] = {}

    def head(self, asize: int, segment: str | None) -> bytes:
        """All prefixes but REX, for an address size (0: none) and a segment override."""
        key = (asize, segment)
        head = self._heads.get(key)
        if head is None:
            head = self.prefixes.encode(self.form.osize, (self.form.asize, asize), segment) + self.before_rex
            self._heads[key] = head
        return head

    def _place(self, operands: tuple[Operand, ...]) -> None:
        form = self.form
        # IMUL r, imm: the register stands for both.
        lone = form.modrm and form.fixed < 0 and not any("RM" in s.where or s.where == "MEM" for s in form.operands)
        immediates = iter(form.immediates)
        for index, (spec, operand) in enumerate(zip(form.operands, operands, strict=True)):
            kind = type(operand)
            if kind is Reg:
                self.registers += [(index, place) for place in _PLACES.get(spec.where, ())]
                if lone and spec.where == "REG":
                    self.registers.append((index, _IN_RM))
            elif kind is Mem:
                if spec.kind == "moffs":
                    self.offset = index
                else:
                    self.mem = index
            elif kind is Far:
                size = 2 if next(immediates) == "cd" else 4
                self.fields += [_field(index, size, _OFFSET), _field(index, 2, _SELECTOR)]
            elif spec.kind != "one":
                size = _FIELD_SIZES[next(immediates)]
                if spec.kind == "rel":
                    self.fields.append(_field(index, size, _RELATIVE, 8 * size < self.bits))
                else:
                    self.fields.append(_field(index, size, _VALUE, spec.signed))


def _shows_size(form: Form, operands: tuple[Operand, ...]) -> bool:
    """Mnemonic or operand say by themselves that there are 64 bits, so that NASM drops an o64 that changes nothing."""
    return form.mnemonic in ("JRCXZ", "RETQ", "RETNQ") or any(
        (type(operand) is Reg and spec.size == 64)
        or (type(operand) is Mem and operand.size == 64)
        or (type(operand) is Imm and form.mnemonic == "PUSH")
        for operand, spec in zip(operands, form.operands, strict=True)
    )


class _Choice:
    """A template with registers and address filled in; variants are made when first needed."""

    def __init__(self, template: _Template, operands: tuple[Operand, ...], default_rel: bool) -> None:
        self.template = template
        self.conditions = template.conditions
        self.operands = operands
        self.default_rel = default_rel
        self.mem = template.mem
        self.forced = -1
        self.has_short = False
        self.wrap = 0xFFFFFFFF
        self._variants: list[_Variant | None] = [None, None, None]
        self.ready = False
        self.warnings: tuple[tuple[str, str], ...] = ()
        self.address: EffectiveAddress | None = None

    def _fill(self) -> None:
        """Puts registers, prefixes and address in."""
        template, operands = self.template, self.operands
        form = template.form
        rex, modrm, opcode = template.rex, template.modrm, form.opcode
        seen = vvvv = 0
        is4 = -1
        for index, place in template.registers:
            number = _NUMBERS[operands[index][0]]  # type: ignore[index]
            seen |= number
            low, high = number & 7, number >> 3 & 1
            if place == _IN_OPCODE:
                opcode |= low
                rex |= high
            elif place == _IN_REG:
                modrm |= low << 3
                rex |= high << 2
            elif place == _IN_RM:
                modrm |= low
                rex |= high
            elif place == _IN_VVVV:
                vvvv = number & 15
            else:
                is4 = number & 15
        segment = None
        asize = 0
        self.fields = template.fields
        if self.mem >= 0:
            mem = operands[self.mem]
            assert type(mem) is Mem
            segment = mem.seg
            address = self.address = _address(mem, template, self.default_rel)
            asize = address.size
            if is_offset(mem) and mem.disp_size not in (0, 16 if asize == 16 else 32):
                self.warnings += (("ea-dispsize", "displacement size ignored on absolute address"),)
            if template.form.asize and template.form.asize != asize:
                raise EncodeError("mismatch in address sizes")
            self.forced = address.forced
            self.has_short = not mem.relocatable
            self.wrap = 0xFFFF if asize == 16 else 0xFFFFFFFF
            rex |= address.rex_x << 1 | address.rex_b
        elif template.offset >= 0:
            mem = operands[template.offset]
            assert type(mem) is Mem
            segment = mem.seg
            asize = offset_size(mem, template.bits, template.prefixes.address_size)
            self.fields = [_field(template.offset, asize // 8, _MOFFS), *template.fields]
        self.warnings += tuple(_prefix_warnings(template, operands, segment))
        head = template.head(asize, segment)
        self.tail = bytes((is4 << 4,)) if is4 >= 0 else bytes((form.suffix,)) if form.suffix >= 0 else b""
        self.modrm = modrm
        if seen & _FORBIDS_REX and (form.vex or "low" in form.notes):
            raise EncodeError("instruction cannot use high byte registers")
        encoding = template.prefixes.encoding
        if encoding and (encoding == "{rex}") == form.vex:
            raise EncodeError(f"instruction not encodable with {encoding} prefix")
        if form.vex:
            if template.bits != 64 and (rex & ~_REX_W or vvvv > 7 or is4 > 7):
                raise EncodeError("invalid operands in non-64-bit mode", word=_of_64_bits(operands))
            self.head = head + _vex(form, rex, vvvv, encoding) + bytes((opcode,))
            self.ready = True
            return
        if "low" in form.notes:
            seen &= ~_NEEDS_REX
        if rex == _REX_R and template.bits != 64 and any(spec.kind == "cr" for spec in form.operands):
            if template.prefixes.locks:
                raise EncodeError("invalid lock prefix")
            head, rex = b"\xf0" + head, 0  # AMD's way to CR8 without REX, APM Vol. 3, "MOV CRn"
        if rex or seen & _NEEDS_REX or encoding:
            if template.bits != 64:
                raise EncodeError("invalid operands in non-64-bit mode", word=_of_64_bits(operands))
            if seen & _FORBIDS_REX:
                raise EncodeError("cannot use high byte register in rex instruction")
            head += bytes((0x40 | rex,))
        self.head = head + template.after_rex + bytes((opcode,))
        self.ready = True

    def variant(self, number: int) -> _Variant:
        """The form with displacement number 0 (none), 1 (8 bits) or 2 (full)."""
        variant = self._variants[number]
        if variant is None:
            variant = self._variants[number] = self._make_variant(number)
        return variant

    def _make_variant(self, number: int) -> _Variant:
        if not self.ready:
            self._fill()
        head, modrm, address = self.head, self.modrm, self.address
        fields = tuple(self.fields)
        if address is not None:
            chosen = address.choices[number]
            assert chosen is not None
            head += bytes((chosen[0] | modrm & 0x38,)) + chosen[1:]
            if number:
                size = 1 if number == 1 else address.full
                kind = _RIP_RELATIVE if address.relative else _DISPLACEMENT
                fields = (_field(self.mem, size, kind, 8 * size < address.size), *fields)
        elif modrm >= 0:
            head += bytes((modrm,))
        fixups: list[Fixup] = []
        offset = len(head)
        for field in fields:
            operand = self.operands[field.operand]
            value = operand[5] if type(operand) is Mem else operand[field.kind == _OFFSET]
            if value is None or operand.relocatable:  # type: ignore[union-attr]
                fixups.append(Fixup(offset, field.size, field.operand, _FIXUP_KINDS[field.kind], field.signed))
            offset += field.size
        return _Variant(head, fields, tuple(fixups), offset + len(self.tail), self.tail)

    def emit(self, operands: tuple[Operand, ...], address: int) -> Encoded:
        """Puts the values in."""
        number = 0
        if self.mem >= 0:
            if not self.ready:
                self._fill()
            number = self.forced
            if number < 0:
                displacement: int | None = operands[self.mem][5]  # type: ignore[misc]
                number = 2
                if displacement is not None and self.has_short:
                    if not displacement & self.wrap and self.address.choices[0] is not None:  # type: ignore[union-attr]
                        number = 0
                    elif displacement + 0x80 & self.wrap < 0x100:
                        number = 1
        data, fields, fixups, length, tail = self._variants[number] or self.variant(number)
        warnings = self.warnings
        for index, size, mask, low, high, kind, signed in fields:
            operand = operands[index]
            value: int | None
            if kind == _VALUE:
                value = operand[0]  # type: ignore[assignment]
            elif kind in (_DISPLACEMENT, _RIP_RELATIVE, _MOFFS):
                value = operand[5]  # type: ignore[misc]
            else:
                value = operand[kind == _OFFSET]  # type: ignore[assignment]
            if value is None:
                value = 0
            elif kind in (_RELATIVE, _RIP_RELATIVE):
                value -= address + length
                if size == 1 and not -0x80 <= value <= 0x7F:
                    raise EncodeError("short jump is out of range")
            elif not low <= value <= high and not (kind == _VALUE and signed and size == 1 and self._extends(value)):
                warnings += (("number-overflow", _warning(value, size, low)),)
            data += (value & mask).to_bytes(size, "little")
        return _new_tuple(Encoded, (data + tail if tail else data, fixups, warnings))

    def _extends(self, value: int) -> bool:
        """A byte that the processor extends by its sign gives this value at the operand's size."""
        width = self.template.form.operand_size or self.template.bits
        return (1 << width) - 0x80 <= value < 1 << width


def _prefix_warnings(
    template: _Template, operands: tuple[Operand, ...], segment: str | None
) -> Iterator[tuple[str, str]]:
    """What there is to warn of prefixes that the form or the mode makes nothing of."""
    form, prefixes = template.form, template.prefixes
    in_memory = bool(operands) and type(operands[0]) is Mem
    if prefixes.is_redundant:
        yield "other", "instruction has redundant prefixes"
    if template.drops_bnd:
        yield "prefix-bnd", "jmp short does not init bnd regs - bnd prefix dropped"
    if "obsolete" in form.notes:
        yield _obsolescence(form, template.level)
    if prefixes.locks and not (form.lock and in_memory):
        yield "prefix-lock", "instruction is not lockable"
    if prefixes.hint and not (in_memory and (form.mnemonic == "XCHG" or (prefixes.hint, form.mnemonic) == _RELEASE)):
        if not (form.lock and in_memory):
            yield "prefix-hle", f"{prefixes.hint} invalid with this instruction"
        elif not prefixes.locks:
            yield "prefix-hle", f"{prefixes.hint} with this instruction requires lock"
    if form.osize in (16, 32) and prefixes.operand_size not in (0, form.osize) and not _takes_size(form, operands):
        yield "prefix-opsize", f"invalid operand size prefix, must be o{form.osize}"
    ignored = segment or prefixes.segment
    if template.bits == 64 and ignored in ("es", "cs", "ss", "ds"):
        yield "prefix-seg", f"{ignored} segment base generated, but will be ignored in 64-bit mode"


def _obsolescence(form: Form, level: int) -> tuple[str, str]:
    """What there is to warn of an instruction that processors no longer have."""
    if form.mnemonic == "PCOMMIT":  # withdrawn before a processor had it; its code is one of SFENCE
        return "obsolete-nop", "instruction never implemented and is a noop on the target CPU"
    if level == level_of(form):
        return "obsolete-valid", "instruction obsolete but valid on the target CPU"
    return "obsolete-removed", "instruction obsolete and removed from the target CPU"


def _takes_size(form: Form, operands: tuple[Operand, ...]) -> bool:
    """Whether the only operand leaves the operand size to the prefix: ``o32 call far [si]``, ``o16 push byte 1``."""
    operand = operands[0] if len(operands) == 1 else None
    if isinstance(operand, Imm):
        return operand.size == 8 or (not operand.size and form.operands[0].kind == "rel")  # o32 call near
    return isinstance(operand, Mem) and not operand.size


_RELEASE = "xrelease", "MOV"  # a store may end an elided lock


def _of_64_bits(operands: tuple[Operand, ...]) -> str:
    """The first register that other code does not have; nothing where a prefix asks for 64-bit code."""
    names = [operand.name for operand in operands if type(operand) is Reg]
    return next((name for name in names if _NUMBERS[name] & 8 or _NUMBERS[name] & _NEEDS_REX), "")


def _vex(form: Form, rex: int, vvvv: int, encoding: str) -> bytes:
    """The VEX prefix, of two bytes where they are enough: SDM Vol. 2, "The VEX Prefix"."""
    last = (~vvvv & 15) << 3 | max(form.length, 0) << 2 | _VEX_PREFIXES[form.prefix]
    if form.map == 1 and not rex & (_REX_W | _REX_X | _REX_B) and encoding != "{vex3}":
        return bytes((0xC5, (~rex & _REX_R) << 5 | last))
    if encoding == "{vex2}":
        raise EncodeError("instruction not encodable with {vex2} prefix")
    return bytes((0xC4, (~rex & 7) << 5 | form.map, (rex & _REX_W) << 4 | last))


_new_tuple = tuple.__new__
_addresses: dict[tuple[object, ...], EffectiveAddress] = {}


def _address(mem: Mem, template: _Template, default_rel: bool) -> EffectiveAddress:
    key = (mem[1:5], mem[5] is None, mem[6:], template.bits, template.prefixes.address_size, default_rel)
    found = _addresses.get(key)
    if found is None:
        if len(_addresses) > _CACHE_LIMIT:
            _addresses.clear()
        found = effective_address(mem, template.bits, template.prefixes.address_size, default_rel)
        _addresses[key] = found
    return found


_fields: dict[tuple[int, int, int, bool], _Field] = {}


def _field(operand: int, size: int, kind: int, signed: bool = False) -> _Field:
    key = (operand, size, kind, signed)
    field = _fields.get(key)
    if field is None:
        width = 8 * size
        bits = width - (signed and size < 8)
        low, high = -1 << bits, (1 << bits) - 1
        field = _fields[key] = _Field(operand, size, (1 << width) - 1, low, high, kind, signed)
    return field


def _warning(value: int, size: int, low: int) -> str:
    signed = "signed " if low == -1 << 8 * size - 1 else ""
    return f"{signed}{_SIZE_NAMES[size]} value {value:#x} exceeds bounds"


def _make_plan(
    mnemonic: str,
    operands: tuple[Operand, ...],
    bits: int,
    prefix_names: tuple[str, ...],
    optimise: int,
    default_rel: bool,
    level: int,
) -> Encoded | list[_Choice]:
    if mnemonic == "wait":  # a prefix to NASM, so that others stand behind it
        mnemonic, prefix_names = "", (*prefix_names, "wait")
    if not mnemonic:
        return Encoded(_Prefixes(prefix_names, bits).encode(0, (), None))
    operands = tuple(
        operand._replace(rel=True) if type(operand) is Mem and is_rip_relative(operand, bits, default_rel) else operand
        for operand in operands
    )
    if bits == 64 and "a32" in prefix_names:
        operands = tuple(
            operand._replace(addr_size=32) if type(operand) is Mem and is_offset(operand) else operand
            for operand in operands
        )
    key: list[object] = [mnemonic, bits, prefix_names, optimise, level]
    for operand in operands:
        if type(operand) is Reg:
            key.append(REGISTER_CLASS.get(operand.name))
        elif type(operand) is Mem:
            keywords = (operand.size, operand.disp_size, operand.addr_size, operand.rel, operand.distance)
            key.append((is_offset(operand), vector_index(operand), keywords))
        else:
            key.append((operand[0] is None, operand[1:]) if type(operand) is Imm else operand[2:])
    shape = tuple(key)
    templates = _templates.get(shape)
    if templates is None:
        if len(_templates) > _CACHE_LIMIT:
            _templates.clear()
        templates = _templates[shape] = _make_templates(mnemonic, operands, bits, prefix_names, optimise, level)
    plan = [_Choice(template, operands, default_rel) for template in templates]
    first = plan[0]
    if len(plan) == 1 and first.mem < 0 and first.template.offset < 0 and not first.template.fields:
        variant = first.variant(0)
        return Encoded(variant.head + variant.tail, (), first.warnings)
    return plan


def _make_templates(
    mnemonic: str, operands: tuple[Operand, ...], bits: int, prefix_names: tuple[str, ...], optimise: int, level: int
) -> list[_Template]:
    forms = [form for form in table.load().forms_of(mnemonic) if form.encodes]
    if not forms:
        raise EncodeError(f"unknown instruction {mnemonic!r}")
    if {"xacquire", "xrelease"} & set(prefix_names):  # the hint is of stores with ModRM alone
        forms = [form for form in forms if not form.operands or form.operands[0].kind != "moffs"]
    prefixes = _Prefixes(prefix_names, bits)
    fits = matching_forms(forms, operands, bits, optimise, prefixes.operand_size)
    if level < ANY:
        fits = [(form, conditions) for form, conditions in fits if level_of(form) <= level]
        if not fits:
            raise EncodeError("no instruction for this cpu level")
        fits[-1] = fits[-1][0], ()
    return [_Template(fit, operands, bits, prefixes, level) for fit in fits]
