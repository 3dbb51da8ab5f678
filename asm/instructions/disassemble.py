"""Disassembles machine code by x86.tbl to text that NASM and our assembler take back to the same bytes."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

from asm import table
from asm.decode_tables import Candidate, candidate, operand_sizes
from asm.instructions.encode import encode
from asm.instructions.format import format_instruction, format_number
from asm.instructions.operands import EncodeError, Far, Imm, Mem, Operand, Reg
from asm.table import Form, OperandSpec

MAX_LENGTH = 15  # bytes of an instruction; longer ones are #GP
_SEGMENTS = {0x26: "es", 0x2E: "cs", 0x36: "ss", 0x3E: "ds", 0x64: "fs", 0x65: "gs"}
_PREFIX_BYTES = frozenset((*_SEGMENTS, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
_VEX = 4
_VEX_PREFIXES = ("NP", "66", "F3", "F2")
_NAMES = {16: table.REGISTERS_16, 32: table.REGISTERS_32, 64: table.REGISTERS_64}
_PAIRS_16: tuple[tuple[str, str | None], ...] = (
    ("bx", "si"), ("bx", "di"), ("bp", "si"), ("bp", "di"), ("si", None), ("di", None), ("bp", None), ("bx", None),
)  # fmt: skip
_FIELD_SIZES = {"ib": 1, "iw": 2, "id": 4, "iq": 8, "cb": 1, "cw": 2, "cd": 4}


class Instruction(NamedTuple):
    """A decoded instruction; operands are as a source would give them, the targets of branches as addresses."""

    form: Form
    operands: tuple[Operand, ...]
    prefixes: tuple[str, ...]
    length: int


class _EndOfData(Exception):
    """The instruction goes on past the bytes that there are."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def peek(self) -> int:
        if self.position >= len(self.data):
            raise _EndOfData
        return self.data[self.position]

    def unsigned(self, size: int) -> int:
        end = self.position + size
        if end > len(self.data):
            raise _EndOfData
        value = int.from_bytes(self.data[self.position : end], "little")
        self.position = end
        return value

    def signed(self, size: int) -> int:
        value = self.unsigned(size)
        return value - (value >> 8 * size - 1 << 8 * size)


@functools.cache
def _forms() -> dict[tuple[int, int], list[Candidate]]:
    """The forms of each opcode map (with VEX, 4 more) and opcode, the most specific first."""
    found: dict[tuple[int, int], list[Candidate]] = {}
    for form in table.load():
        if form.decodes:
            for opcode in range(form.opcode, form.opcode + (8 if form.plus_register else 1)):
                found.setdefault((form.map + _VEX * form.vex, opcode), []).append(candidate(form))
    for candidates in found.values():
        candidates.sort(key=lambda c: -c.specificity)
    return found


class _Decoder:
    """Decodes one instruction: SDM Vol. 2, "Instruction Format"."""

    def __init__(self, data: bytes, bits: int, address: int) -> None:
        self.reader = _Reader(data[:MAX_LENGTH])
        self.bits = bits
        self.address = address
        self.prefixes: list[int] = []
        self.rex = 0
        self.vvvv = 0

    def decode(self) -> Instruction | None:
        """The instruction; None where the bytes are none.

        Raises:
            _EndOfData: there are too few bytes.
        """
        reader = self.reader
        while True:
            byte = reader.peek()
            if byte in _PREFIX_BYTES:
                self.prefixes.append(byte)
                self.rex = 0  # REX counts where it stands just before the opcode
            elif self.bits == 64 and byte & 0xF0 == 0x40:
                self.rex = byte
            else:
                break
            reader.position += 1
        self.asize = self.bits
        if 0x67 in self.prefixes:
            self.asize = 16 if self.bits == 32 else 32
        osize = 16 if self.bits == 16 else 32
        if self.rex & 8:
            osize = 64
        elif 0x66 in self.prefixes:
            osize = 48 - osize
        is_vex = reader.peek() in (0xC4, 0xC5) and self._is_vex()
        start = reader.position
        for found in self._find_vex() if is_vex else self._find(osize):
            opcode_end = reader.position
            self.form = found
            if found.modrm:
                self.modrm = reader.unsigned(1)
            operands = self._operands()
            if operands is not None and (found.suffix < 0 or reader.unsigned(1) == found.suffix):
                return Instruction(found, operands, self._leftover(operands), reader.position)
            reader.position = opcode_end
        reader.position = start
        return None

    def _is_vex(self) -> bool:
        """In 16- and 32-bit code the prefix would be LES or LDS with a register for its memory operand."""
        data, position = self.reader.data, self.reader.position
        if position + 1 >= len(data):
            raise _EndOfData
        plain = not self.rex and not any(prefix in (0x66, 0xF0, 0xF2, 0xF3) for prefix in self.prefixes)
        return plain and (self.bits == 64 or data[position + 1] >= 0xC0)

    def _find_vex(self) -> Iterator[Form]:
        reader = self.reader
        first, second = reader.unsigned(1), reader.unsigned(1)
        number = 1
        rex = (~second >> 5 & 4) if first == 0xC5 else (~second >> 5 & 7)
        if first == 0xC4:
            number = second & 0x1F
            second = reader.unsigned(1)
            rex |= second >> 4 & 8
        self.rex = rex if self.bits == 64 else rex & 8
        self.vvvv = ~second >> 3 & 15
        self.opcode = reader.unsigned(1)
        for c in _forms().get((number + _VEX, self.opcode), ()):
            form = c.form
            if (
                self.bits not in form.modes
                or form.length not in (-1, second >> 2 & 1)
                or _VEX_PREFIXES[second & 3] != form.prefix
                or not (form.wig or (form.osize == 64) == bool(rex & 8) or self._ignores_w(form))
                or (self.asize == 16 and any(spec.kind == "vsib" for spec in form.operands))
                or (self.vvvv and not any("VVVV" in spec.where for spec in form.operands))
            ):
                continue
            if not form.modrm or self._modrm_fits(c):
                yield form

    def _ignores_w(self, form: Form) -> bool:
        """Of general registers there are only those of 32 bits in such code."""
        return self.bits != 64 and form.osize != 64 and any(spec.kind in ("r", "rm") for spec in form.operands)

    def _modrm_fits(self, c: Candidate) -> bool:
        modrm = self.reader.peek()
        return (modrm >= 0xC0) * 8 + (modrm >> 3 & 7) in c.reg and modrm & 7 in c.rm

    def _find(self, osize: int) -> Iterator[Form]:
        reader = self.reader
        opcode = reader.unsigned(1)
        number = 0
        if opcode == 0x0F:
            opcode = reader.unsigned(1)
            number = {0x38: 2, 0x3A: 3}.get(opcode, 1)
            if number > 1:
                opcode = reader.unsigned(1)
        self.opcode = opcode
        repeats = [prefix for prefix in self.prefixes if prefix in (0xF2, 0xF3)]
        prefix = {0xF3: 2, 0xF2: 3}[repeats[-1]] if repeats else int(0x66 in self.prefixes)
        long_mode = self.bits == 64
        for c in _forms().get((number, opcode), ()):
            if (
                self.bits not in c.form.modes
                or osize not in operand_sizes(c.form, long_mode)
                or prefix not in c.prefix
                or self.asize >> 5 not in c.asize
                or self.rex & 1 not in c.rex_b
            ):
                continue
            if not c.form.modrm or "reg-only" in c.form.notes or self._modrm_fits(c):
                yield c.form

    def _operands(self) -> tuple[Operand, ...] | None:
        form = self.form
        # Displacements precede immediates whatever the order of the operands.
        memory: Mem | None = None
        if form.modrm and form.fixed < 0 and self.modrm < 0xC0 and "reg-only" not in form.notes:
            memory = self._memory()
        operands: list[Operand] = []
        immediates = iter(form.immediates)
        for spec in form.operands:
            if memory is not None and spec.where in ("RM", "MEM"):
                operands.append(self._sized(memory, spec))
            elif spec.kind == "moffs":
                disp = self.reader.unsigned(self.asize // 8)
                operands.append(self._offset(disp)._replace(disp_size=64 if self.bits == 64 else 0))
            elif spec.kind == "ptr":
                offset = self.reader.unsigned(2 if next(immediates) == "cd" else 4)
                operands.append(Far(self.reader.unsigned(2), offset, 0 if spec.size == self.bits else spec.size))
            elif spec.kind in ("imm", "rel", "one"):
                operands.append(self._immediate(spec, next(immediates, "")))
            else:
                register = self._register(spec)
                if register is None:
                    return None
                operands.append(register)
        return tuple(
            self._target(operand) if isinstance(operand, Imm) and spec.kind == "rel" else operand
            for operand, spec in zip(operands, form.operands, strict=True)
        )

    def _register(self, spec: OperandSpec) -> Reg | None:
        if spec.kind == "reg":
            return Reg(spec.register)
        if spec.where == "VVVV":
            number = self.vvvv if self.bits == 64 else self.vvvv & 7
        elif spec.where == "IS4":
            number = self.reader.unsigned(1) >> 4
            number = number if self.bits == 64 else number & 7
        elif spec.where == "ST":
            number = self.modrm & 7
        elif spec.where == "OPREG":
            number = self.opcode & 7 | (self.rex & 1) << 3
        elif spec.where in ("RM", "MEM"):
            number = self.modrm & 7 | (self.rex & 1) << 3
        else:
            number = self.modrm >> 3 & 7 | (self.rex & 4) << 1
        if spec.kind == "sreg":
            number &= 7
            return Reg(table.REGISTERS_SEG[number]) if number < 6 else None
        if spec.kind in ("cr", "dr", "tr"):
            return Reg(f"{spec.kind}{number}")
        if spec.kind in ("v", "vm"):
            names = table.VECTORS[spec.register]
            return Reg(names[number & 7 if spec.register == "mm" else number])
        if spec.size == 8:
            return Reg((table.REGISTERS_8_REX if self.rex else table.REGISTERS_8)[number])
        return Reg(_NAMES[spec.size][number])

    def _immediate(self, spec: OperandSpec, token: str) -> Imm:
        form = self.form
        if spec.kind == "one":
            return Imm(1)
        size = _FIELD_SIZES[token]
        if spec.kind == "rel":
            explicit = form.osize if form.osize not in (0, self.bits) else 0
            has_choice = form.is_jump and form.mnemonic != "CALL"
            distance = ("short" if size == 1 else "near") if has_choice else ""
            return Imm(self.reader.signed(size), explicit, distance=distance)
        value = self.reader.signed(size) if spec.signed else self.reader.unsigned(size)
        osize = form.operand_size
        return Imm(value, osize if form.mnemonic == "PUSH" and osize != self.bits else 0)

    def _target(self, operand: Imm) -> Imm:
        assert operand.value is not None
        # In 16-bit code the target wraps at 64 KiB; an operand size of 16 bits cuts it too.
        size = self.form.osize or self.bits
        return operand._replace(value=self.address + self.reader.position + operand.value & (1 << size) - 1)

    def _sized(self, memory: Mem, spec: OperandSpec) -> Mem:
        if memory.rel:
            assert memory.disp is not None
            end = self.reader.position + sum(_FIELD_SIZES[token] for token in self.form.immediates)
            end += self.form.suffix >= 0 or any(spec.where == "IS4" for spec in self.form.operands)
            memory = memory._replace(disp=self.address + end + memory.disp & (1 << self.asize) - 1)
        if ":" in spec.text and self.form.mnemonic in ("CALL", "JMP"):
            size = spec.size
            return memory._replace(distance="far", size=size)
        return memory._replace(size=spec.memory_size if needs_size(self.form, spec) else 0)

    def _segment(self) -> str | None:
        segments = [_SEGMENTS[prefix] for prefix in self.prefixes if prefix in _SEGMENTS]
        return segments[-1] if segments else None

    def _offset(self, disp: int) -> Mem:
        """A memory operand without registers."""
        explicit = self.asize if self.asize != self.bits else 0
        return Mem(seg=self._segment(), disp=disp, addr_size=explicit)

    def _memory(self) -> Mem:
        mod, rm = self.modrm >> 6, self.modrm & 7
        if self.asize == 16:
            if mod == 0 and rm == 6:
                return self._offset(self.reader.unsigned(2))
            base, index = _PAIRS_16[rm]
            return Mem(seg=self._segment(), base=base, index=index, disp=self._displacement(mod, 2))
        names = _NAMES[self.asize]
        if rm == 4:
            return self._with_sib(mod, names)
        if mod == 0 and rm == 5:
            disp = self.reader.signed(4)
            if self.bits == 64:
                return self._offset(disp)._replace(rel=True, relocatable=True)
            return self._offset(disp & 0xFFFFFFFF)
        return Mem(seg=self._segment(), base=names[rm | (self.rex & 1) << 3], disp=self._displacement(mod, 4))

    def _with_sib(self, mod: int, names: tuple[str, ...]) -> Mem:
        sib = self.reader.unsigned(1)
        number = sib >> 3 & 7 | (self.rex & 2) << 2
        index = names[number] if number != 4 else None
        vector = next((spec.register for spec in self.form.operands if spec.kind == "vsib"), None)
        if vector is not None:
            index = table.VECTORS[vector][number]
        scale = 1 << (sib >> 6)
        if mod == 0 and sib & 7 == 5:
            disp = self.reader.signed(4)
            if index is None:
                return self._offset(disp & (1 << self.asize) - 1)
            return Mem(
                seg=self._segment(), index=index, scale=scale, disp=disp, nosplit=scale < 4 and vector is None,
                addr_size=self.asize if vector is not None and self.asize != self.bits else 0,
            )  # fmt: skip
        base = names[sib & 7 | (self.rex & 1) << 3]
        disp = self._displacement(mod, 4)
        return Mem(seg=self._segment(), base=base, index=index, scale=scale if index else 1, disp=disp)

    def _displacement(self, mod: int, full: int) -> int:
        return self.reader.signed((0, 1, full)[mod]) if mod else 0

    def _leftover(self, operands: tuple[Operand, ...]) -> tuple[str, ...]:
        """The prefixes that the operands do not show, as a source names them."""
        form = self.form
        names: list[str] = []
        for prefix in self.prefixes:
            if prefix in (0xF2, 0xF3) and f"{prefix:X}" != form.prefix:
                repeat, repeat_not = ("repe" if form.repz else "rep"), ("bnd" if form.takes_bnd else "repne")
                names.append(repeat if prefix == 0xF3 else repeat_not)
            elif prefix == 0xF0:
                names.append("lock")
        in_memory = any(isinstance(operand, Mem) for operand in operands)
        segment = self._segment()
        if segment and not in_memory:
            names.append(segment)
        if form.vex:
            return tuple(names)
        if 0x66 in self.prefixes and form.prefix != "66" and form.osize not in (16, 32):
            names.append("o32" if self.bits == 16 else "o16")
        if self.rex & 8 and form.osize != 64 and form.mnemonic != "WAIT":  # NASM 2.16 dies of `o64 wait`
            names.append("o64")
        if 0x67 in self.prefixes and not in_memory and not form.asize:
            names.append(f"a{self.asize}")
        return tuple(names)


_needed: dict[tuple[int, str], bool] = {}


def needs_size(form: Form, spec: OperandSpec) -> bool:
    """A memory operand's size must be written, since neither the mnemonic nor a register tells it."""
    key = (form.row, spec.text)
    if key not in _needed:
        index = form.operands.index(spec)
        others = {other.size for other in form.operands if other.where in ("REG", "ACC")}
        if "unsized" in form.notes:
            others.add(spec.memory_size)
        sizes = {
            other.operands[index].memory_size
            for other in table.load().forms_of(form.mnemonic.lower())
            if len(other.operands) == len(form.operands) and other.operands[index].takes_memory
        }
        _needed[key] = len(sizes) > 1 and (spec.memory_size not in others or form.mnemonic == "CRC32")
    return _needed[key]


def decode(data: bytes, bits: int, address: int = 0) -> Instruction | None:
    """Decodes the first instruction of ``data``.

    Args:
        bits: code size, 16, 32 or 64.
        address: of the first byte, which the targets of branches count from.

    Returns:
        The instruction, or None where the bytes are no instruction of the table or end too soon.
    """
    try:
        return _Decoder(data, bits, address).decode()
    except _EndOfData:
        return None


def _spellings(instruction: Instruction) -> Iterator[tuple[Operand, ...]]:
    """The operands, plain first, then with the keywords that make an assembler take a longer form."""
    columns: list[list[Operand]] = []
    for operand, spec in zip(instruction.operands, instruction.form.operands, strict=True):
        choices: list[Operand] = [operand]
        if isinstance(operand, Imm) and spec.kind == "imm":
            sizes = dict.fromkeys((operand.size, spec.size, instruction.form.operand_size))
            choices += [operand._replace(size=size) for size in sizes if size]
            choices += [operand._replace(size=size, strict=True) for size in sizes if size]
        elif isinstance(operand, Mem) and (operand.base or operand.index):
            choices += [operand._replace(disp_size=size) for size in (8, 16, 32)]
        columns.append(choices)
    return itertools.product(*columns)


def _text(instruction: Instruction, operands: tuple[Operand, ...], address: int, relative: bool) -> str:
    """The source text; ``relative`` writes targets as distances from the instruction, which NASM needs for RIP."""
    text = format_instruction(instruction.form.mnemonic.lower(), operands, instruction.prefixes)
    if not relative:
        return text
    for operand, spec in zip(operands, instruction.form.operands, strict=True):
        target = operand.disp if isinstance(operand, Mem) and operand.rel else None
        if isinstance(operand, Imm) and spec.kind == "rel":
            target = operand.value
        if target is not None:
            distance = target - address
            text = text.replace(format_number(target), f"${'+' if distance >= 0 else ''}{format_number(distance)}")
    return text


def _moved(operand: Operand, spec: OperandSpec, shift: int) -> Operand:
    """The operand, if it is the target of a branch that many bytes further on."""
    if not isinstance(operand, Imm) or operand.value is None or spec.kind != "rel":
        return operand
    return operand._replace(value=operand.value + shift)


def _exact_text(instruction: Instruction, data: bytes, bits: int, address: int) -> str | None:
    """Text that assembles to just these bytes, or None."""
    mnemonic = instruction.form.mnemonic.lower()
    specs = instruction.form.operands
    near = 1 << (instruction.form.osize or bits)
    for operands in _spellings(instruction):
        memory = next((operand for operand in operands if isinstance(operand, Mem)), None)
        if memory is not None and memory.base is None and memory.index in ("r12", "r12d") and memory.scale == 1:
            return None  # NASM takes R12 for ESP, which cannot be an index
        relative = memory is not None and bool(memory.rel)
        for shift in (0, near, -near):  # a target beyond the end of the segment, as a distance
            moved = tuple(_moved(operand, spec, shift) for operand, spec in zip(operands, specs, strict=True))
            if shift and moved == operands:
                break
            try:
                encoded = encode(mnemonic, moved, bits, instruction.prefixes, address=address).data
            except EncodeError:
                continue
            if encoded == data:
                return _text(instruction, moved, address, relative or bool(shift))
    return None


def disassemble(
    data: bytes, bits: int, address: int = 0, count: int | None = None, *, exact: bool = True
) -> list[tuple[int, bytes, str]]:
    """Disassembles machine code.

    Args:
        data: the code.
        bits: code size, 16, 32 or 64.
        address: of the first byte.
        count: of instructions at most; None for all.
        exact: bytes that no source gives (a redundant prefix, the other of two equal encodings) become ``db`` with the
            instruction as a comment; without it the text is the instruction alone.

    Returns:
        For each instruction its address, its bytes and its text. What is no instruction is ``db``, a byte at a time.
    """
    found: list[tuple[int, bytes, str]] = []
    position = 0
    while position < len(data) and (count is None or len(found) < count):
        here = address + position
        instruction = decode(data[position : position + MAX_LENGTH], bits, here)
        length = instruction.length if instruction is not None else 1
        code = bytes(data[position : position + length])
        text = None
        if instruction is not None:
            if exact:
                text = _exact_text(instruction, code, bits, here)
            else:
                text = _text(instruction, instruction.operands, here, False)
        if text is None:
            text = "db " + ", ".join(f"0x{byte:02x}" for byte in code)
            if instruction is not None:
                text += " ; " + _text(instruction, instruction.operands, here, False)
        found.append((here, code, text))
        position += length
    return found
