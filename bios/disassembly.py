"""Writes the instruction table as the Service OS's disassembler takes it: disassembly.inc. disasm.inc explains it."""

from collections.abc import Iterable
from typing import NamedTuple

from asm import table
from asm.decode_tables import Candidate, candidate, operand_sizes
from asm.instructions.disassemble import needs_size
from asm.table import Form, OperandSpec

__all__ = ["disassembly_include"]

MAPS = 4  # one byte, 0F, 0F 38, 0F 3A
OPERANDS = 3
SIZES = (0, 8, 16, 32, 64, 80, 128, 256, 512)  # the keyword of a size is its place here
PREFIXES = {"": 0, "NP": 0, "NFx": 0, "66": 0x66, "F2": 0xF2, "F3": 0xF3}
CLASSES = {8: 0, 16: 1, 32: 2, "sreg": 3, "cr": 4, "dr": 5, "st": 6, "mm": 7, "xmm": 8}  # of registers
PLACES = {"RM": 1, "MEM": 1, "OPREG": 2, "ST": 3}  # where a register's number is; the others have it in ModRM.reg
REGISTER, FIXED, IMMEDIATE, RELATIVE, FAR, OFFSET, ONE = range(1, 8)
TOKENS = {"ib": 1, "iw": 2, "id": 4, "cb": 1, "cw": 2, "cd": 4, "cp": 4}  # bytes; of a far pointer: its offset
FAR_MEMORY = 0x80


class Texts:
    """Strings that end with 0, each once."""

    def __init__(self) -> None:
        self.offsets: dict[str, int] = {}
        self.size = 0

    def offset(self, text: str) -> int:
        if text not in self.offsets:
            self.offsets[text] = self.size
            self.size += len(text) + 1
        return self.offsets[text]


class Operand(NamedTuple):
    """struc dis_operand."""

    kind: int
    place: int = 0
    register: int = 0
    memory: int = 0  # keyword of its size, or 0; with FAR_MEMORY
    bytes: int = 0  # of an immediate
    signed: int = 0
    text: int = 0  # of FIXED; of the others: the keyword that is written where the code has another size


def known(form: Form) -> bool:
    """Whether the Service OS's disassembler has it: 16- and 32-bit code without VEX."""
    return form.decodes and not form.vex and 32 in form.modes and len(form.operands) <= OPERANDS


def operand(form: Form, spec: OperandSpec, token: str, texts: Texts) -> Operand:
    """One operand of a form; `token`: its immediate in the encoding."""
    if spec.kind == "reg":
        return Operand(FIXED, text=texts.offset(spec.register))
    if spec.kind == "one":
        return Operand(ONE)
    if spec.kind == "imm":
        size = form.operand_size if form.mnemonic == "PUSH" else 0
        return Operand(IMMEDIATE, bytes=TOKENS[token], signed=int(spec.signed), text=SIZES.index(size))
    if spec.kind == "rel":
        return Operand(RELATIVE, bytes=TOKENS[token], signed=1, text=SIZES.index(form.osize))
    if spec.kind == "ptr":
        return Operand(FAR, bytes=2 if token == "cd" else 4, text=SIZES.index(spec.size))
    if spec.kind == "moffs":
        return Operand(OFFSET, memory=SIZES.index(spec.memory_size) if needs_size(form, spec) else 0)
    memory = 0
    if spec.takes_memory:
        if ":" in spec.text and form.mnemonic in ("CALL", "JMP"):
            memory = SIZES.index(spec.size) | FAR_MEMORY
        elif needs_size(form, spec):
            memory = SIZES.index(spec.memory_size)
    name = spec.register if spec.kind in ("v", "vm") else spec.kind if spec.kind in ("sreg", "cr", "dr") else spec.size
    return Operand(REGISTER, PLACES.get(spec.where, 0), CLASSES.get(name, 0), memory)


def bits(numbers: Iterable[int], first: int = 0) -> int:
    """A mask of the eight numbers from `first` on."""
    return sum(1 << number - first for number in set(numbers) if first <= number < first + 8)


def flags(form: Form) -> str:
    """The DIS_* bits of a form."""
    wanted = {
        "DIS_MODRM": form.modrm,
        "DIS_REG_ONLY": "reg-only" in form.notes or form.fixed >= 0,
        "DIS_REPZ": form.repz,
        "DIS_BND": form.takes_bnd,
        "DIS_SUFFIX": form.suffix >= 0,
        "DIS_ASIZE": bool(form.asize),
        "DIS_CHOICE": form.is_jump and form.mnemonic != "CALL",
    }
    return " | ".join(name for name, present in wanted.items() if present) or "0"


def form_line(c: Candidate, numbers: list[int], texts: Texts) -> str:
    """One struc dis_form."""
    form = c.form
    any_modrm = not form.modrm or "reg-only" in form.notes
    fields = [
        bits(size // 16 - 1 for size in operand_sizes(form, False) if size < 64),
        bits(c.prefix) | bits(c.asize) << 4,
        0xFF if any_modrm else bits(c.reg),
        0xFF if any_modrm else bits(c.reg, 8),
        0xFF if any_modrm else bits(c.rm),
        flags(form),
        form.osize,
        PREFIXES[form.prefix],
        max(form.suffix, 0),
    ]
    numbers = numbers + [0] * (OPERANDS - len(numbers))
    return (
        f"        db      {', '.join(map(str, fields))}, {', '.join(map(str, numbers))}\n"
        f"        dw      {texts.offset(form.mnemonic.lower())}"
    )


def words(numbers: list[int]) -> list[str]:
    return [f"        dw      {', '.join(map(str, numbers[n : n + 16]))}" for n in range(0, len(numbers), 16)]


def disassembly_include() -> str:
    """disassembly.inc: the forms of each opcode, the most specific first, their operands, and the texts."""
    texts = Texts()
    operands = {Operand(0): 0}
    cells: list[list[tuple[Candidate, int]]] = [[] for _ in range(MAPS * 256)]
    form_lines: list[str] = []
    for form in filter(known, table.load()):
        tokens = iter(form.immediates)
        made = [
            operand(form, spec, next(tokens, "") if spec.kind in ("imm", "rel", "ptr") else "", texts)
            for spec in form.operands
        ]
        c = candidate(form)
        line = form_line(c, [operands.setdefault(one, len(operands)) for one in made], texts)
        for opcode in range(form.opcode, form.opcode + (8 if form.plus_register else 1)):
            cells[form.map * 256 + opcode].append((c, len(form_lines)))
        form_lines.append(line)
    lists: list[int] = [0]  # an opcode without forms has the first
    places: dict[tuple[int, ...], int] = {(): 0}
    index = []
    for cell in cells:
        order = tuple(number + 1 for _, number in sorted(cell, key=lambda one: -one[0].specificity))
        if order not in places:
            places[order] = len(lists)
            lists += [*order, 0]
        index.append(places[order])
    return "\n".join(
        [
            "; The instruction table for the disassembler of the Service OS; made of asm/x86.tbl and asm/x87_simd.tbl.",
            "        align 4",
            "dis_index:",
            *words(index),
            "dis_lists:",
            *words(lists),
            "dis_forms:",
            *form_lines,
            "dis_operands:",
            *(f"        db      {', '.join(map(str, one[:-1]))}\n        dw      {one.text}" for one in operands),
            "dis_texts:",
            *(f'        db      "{text}", 0' for text in texts.offsets),
            "",
        ]
    )
