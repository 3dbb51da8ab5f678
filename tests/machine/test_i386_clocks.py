"""The i386 model against the manual: every row of i386-clocks.tsv is run, and the cycles it took are compared.

Intel 80386 Programmer's Reference Manual, "80386 Instruction Set", the column "Clocks". Each form is run with a
register and with a memory operand where it can have both, in real-address mode and in protected mode, and in the cases
that its rows tell apart: I/O permission, gates, privilege, task switches, counts, multipliers.
"""

import itertools
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

import emu

CODE, NEAR, TARGET, DATA = 0x1000, 0x1020, 0x1800, 0x2000
GDT, IDT, LDT = 0x3000, 0x3800, 0x3C00
OLD_TSS, NEW_TSS, NEW_TSS_286, STACK_0, STACK = 0x4000, 0x4400, 0x4500, 0x6000, 0x7000

# What stands at every branch target: MOV AX or EAX, immediate. The manual's m: opcode and immediate.
TARGET_CODE = bytes.fromhex("b801000000")
M = 2
TASK_SWITCH, TASK_SWITCH_286 = 309, 282

# Selectors of descriptor_table().
CODE_0, DATA_0, CODE_3, DATA_3 = 0x08, 0x10, 0x1B, 0x23
OLD_TASK, NEW_TASK, NEW_TASK_286, TASK_GATE = 0x28, 0x30, 0x38, 0x58
GATE_0, GATE_3, GATE_3_PARAMETERS, LOCAL_TABLE, BYTES = 0x40, 0x4B, 0x53, 0x60, 0x70
PARAMETERS = 3

VM, IOPL_3, NT, OF = 1 << 17, 3 << 12, 1 << 14, 1 << 11

STRINGS = ("INS", "OUTS", "MOVS", "STOS", "LODS", "CMPS", "SCAS")
# Flags that make the conditional jumps of even condition numbers jump; none of them does without (CF, ZF, SF, PF, OF).
CONDITIONS = {0: 0x800, 2: 1, 4: 0x40, 6: 1, 8: 0x80, 10: 4, 12: 0x80, 14: 0x40}

NOT_RUN = {
    "MOV r32,TR6/TR7": "the test registers of the i386 and i486 alone: the table has them not, they are #UD as later",
    "MOV TR6/TR7,r32": "the same",
}


class Row(NamedTuple):
    """A row of the manual's tables."""

    opcode: str
    instruction: str
    clocks: str

    @property
    def mnemonic(self) -> str:
        return self.instruction.partition(" ")[0]

    @property
    def operands(self) -> list[str]:
        return [text.strip() for text in self.instruction.partition(" ")[2].split(",") if text]


def read_rows() -> list[Row]:
    lines = (Path(__file__).with_name("i386-clocks.tsv")).read_text().splitlines()
    return [Row(*line.split("\t")) for line in lines if not line.startswith("#")]


ROWS = read_rows()


# --- the processor and its tables ---


def descriptor(base: int, limit: int, access: int, flags: int = 0) -> bytes:
    return struct.pack(
        "<HHBBBB", limit & 0xFFFF, base & 0xFFFF, base >> 16 & 0xFF, access, limit >> 16 | flags << 4, base >> 24
    )


def gate(selector: int, offset: int, access: int, count: int = 0) -> bytes:
    return struct.pack("<HHBBH", offset & 0xFFFF, selector, count, access, offset >> 16)


def descriptor_table() -> bytes:
    return b"".join(
        (
            bytes(8),
            descriptor(0, 0xFFFFF, 0x9B, 0xC),
            descriptor(0, 0xFFFFF, 0x93, 0xC),
            descriptor(0, 0xFFFFF, 0xFB, 0xC),
            descriptor(0, 0xFFFFF, 0xF3, 0xC),
            descriptor(OLD_TSS, 0x3FF, 0x8B),
            descriptor(NEW_TSS, 0x67, 0x89),
            descriptor(NEW_TSS_286, 0x2B, 0x81),
            gate(CODE_0, TARGET, 0x8C),
            gate(CODE_0, TARGET, 0xEC),
            gate(CODE_0, TARGET, 0xEC, PARAMETERS),
            gate(NEW_TASK, 0, 0xE5),
            descriptor(LDT, 7, 0x82),
            bytes(8),
            descriptor(0, 0xFFFF, 0x93),
        )
    )


def task_state(link: int = 0) -> bytes:
    """A 386 TSS: starts at TARGET at CPL 0; its I/O permission bit map begins after it."""
    registers = [0, TARGET, 2, 0, 0, 0, 0, STACK, 0, 0, 0]
    segments = [DATA_0, CODE_0, DATA_0, DATA_0, DATA_0, DATA_0, 0]
    return struct.pack("<26I", link, STACK_0, DATA_0, 0, 0, 0, 0, *registers, *segments, 0x68 << 16)


def task_state_286() -> bytes:
    return struct.pack("<22H", *[0] * 7, TARGET, 2, 0, 0, 0, 0, STACK, 0, 0, 0, DATA_0, CODE_0, DATA_0, DATA_0, 0)


def processor(mode: str, faults: Literal["raise", "deliver"] = "raise") -> emu.Cpu:
    """An i386 about to run at CODE in `mode`: real, protected (CPL 0), ring3 (IOPL 0), v86 (IOPL 3)."""
    cpu = emu.Cpu(bits=16 if mode == "real" else 32, memory=1 << 16, cpu="i386", timing="static", faults=faults)
    for address, contents in (
        (NEAR, TARGET_CODE),
        (TARGET, TARGET_CODE),
        (GDT, descriptor_table()),
        (IDT, gate(CODE_0, TARGET, 0xEE) * 0x41 + gate(TASK_GATE, 0, 0xE5)),
        (OLD_TSS, task_state(NEW_TASK)),
        (NEW_TSS, task_state()),
        (NEW_TSS_286, task_state_286()),
    ):
        cpu.memory.write(address, contents)
    for name in ("esi", "edi"):
        setattr(cpu, name, DATA)
    cpu.eax, cpu.ecx, cpu.edx, cpu.ebx, cpu.ebp, cpu.esp = 1, 1, 0, DATA_0, STACK, STACK
    cpu.memory.write(DATA, struct.pack("<I", DATA_0))
    if mode == "real":
        cpu.memory.write(0, struct.pack("<HH", TARGET, 0) * 0x41)
        return cpu
    cpu.gdtr.base, cpu.gdtr.limit = GDT, 0x7F
    cpu.idtr.base, cpu.idtr.limit = IDT, 8 * 0x42 - 1
    cpu.tr.selector, cpu.tr.base, cpu.tr.limit, cpu.tr.access = OLD_TASK, OLD_TSS, 0x3FF, 0x8B
    if mode == "ring3":
        for name in ("es", "ss", "ds", "fs", "gs"):
            segment = getattr(cpu, name)
            segment.selector, segment.access = DATA_3, 0xC0F3
        cpu.cs.selector, cpu.cs.access, cpu.cpl = CODE_3, 0xC0FB, 3
    if mode == "v86":
        for name in ("es", "cs", "ss", "ds", "fs", "gs"):
            segment = getattr(cpu, name)
            segment.selector, segment.limit, segment.access = 0, 0xFFFF, 0xF3
        cpu.eflags = 2 | VM | IOPL_3
        cpu.cpl = 3
    return cpu


def is_16_bit(mode: str) -> bool:
    return mode in ("real", "v86")


# --- encoding a row ---


def operand_size(row: Row) -> int:
    """16 or 32 where the form has one of these as its operand size, else 0."""
    text = row.instruction.replace("m16:", "").replace("ptr16:", "")
    if re.search(r"\bE[ABCD]X|32", text) or re.fullmatch(
        r"PUSHAD|POPAD|PUSHFD|POPFD|IRETD|CWDE|CDQ|(MOVS|CMPS|STOS|LODS|SCAS|INS|OUTS)D", row.mnemonic
    ):
        return 32
    if row.mnemonic in ("CBW", "CWD", "PUSHA", "POPA", "PUSHF", "POPF", "IRET") or re.search(r"\bAX|16", text):
        return 16
    return 16 if re.fullmatch(r"(MOVS|CMPS|STOS|LODS|SCAS|INS|OUTS)W", row.mnemonic) else 0


def has_modrm(row: Row) -> bool:
    if row.mnemonic in STRINGS or row.mnemonic.startswith("REP"):
        return False
    return "/" in row.opcode or any(operand.startswith("r/m") for operand in row.operands)


def takes_register(row: Row) -> bool:
    return not has_modrm(row) or not any(re.match(r"m(\d|$)", operand) for operand in row.operands)


def takes_memory(row: Row) -> bool:
    return has_modrm(row) and any(re.match(r"(r/)?m(\d|$)", operand) for operand in row.operands)


def encode(row: Row, mode: str, memory: bool = False, reg: int | None = None, immediate: int = 1) -> bytes:
    """The bytes of a row. Register operands: r/m is BX, reg CX. Memory operands lie at DATA."""
    tokens = row.opcode.split()
    size, wide = operand_size(row), not is_16_bit(mode)
    code = bytearray(int(token, 16) for token in itertools.takewhile(lambda t: re.fullmatch("[0-9A-F]{2}", t), tokens))
    if "+" in tokens:
        code[-1] += 3
    if has_modrm(row):
        digit = next((int(token[1]) for token in tokens if re.fullmatch(r"/\d", token)), None)
        if digit is None:
            digit = reg if reg is not None else 0 if code[0] in (0xC6, 0xC7) or row.mnemonic.startswith("SET") else 1
        code.append(digit << 3 | ((5 if wide else 6) if memory else 0xC3))
        if memory:
            code += struct.pack("<I" if wide else "<H", DATA)
    for operand in row.operands:
        if match := re.fullmatch(r"(imm|rel)(8|16|32)", operand):
            code += immediate.to_bytes(int(match[2]) // 8, "little")
        elif match := re.fullmatch(r"ptr16:(16|32)", operand):
            code += TARGET.to_bytes(int(match[1]) // 8, "little") + immediate.to_bytes(2, "little")
        elif operand.startswith("moffs"):
            code += struct.pack("<I" if wide else "<H", DATA)
    prefixes = b"\x66" if size and (size == 32) != wide else b""
    if row.mnemonic in ("JCXZ", "JECXZ") and (row.mnemonic == "JECXZ") != wide:
        prefixes += b"\x67"
    return prefixes + bytes(code)


def measure(cpu: emu.Cpu, code: bytes, instructions: int = 1) -> int:
    """Cycles of an instruction, or of as many repetitions."""
    assert cpu.cycles == 0
    cpu.load(CODE, code)
    cpu.run(instructions=instructions)
    cycles: int = cpu.cycles
    return cycles


def value(expression: str, **names: int) -> int:
    """The number that a term of the column Clocks is, such as 94+4x+m."""
    text = expression.replace("(E)CX", "CX").removesuffix(" min.").strip("*")
    text = re.sub(r"(?<=\d)(?=[a-z(])", "*", text)
    assert re.fullmatch(r"[\d+*() mtsxnNCX-]+", text), text
    return int(eval(text, {"__builtins__": {}}, {"m": M, "ts": TASK_SWITCH, **names}))


def split(clocks: str) -> tuple[str, str]:
    """Register and memory form."""
    register, _, memory = clocks.partition("/")
    return register, memory or register


def real_and_protected(clocks: str) -> tuple[str, str]:
    """The terms for the two modes; what has no pm= holds for both, what has nothing else for protected mode alone."""
    real, found, protected = clocks.partition("pm=")
    return (real.rstrip(","), protected) if found else (clocks, clocks)


Check = Iterator[tuple[str, int, int]]  # what was run, the cycles it took, the manual's clocks
checkers: dict[str, Callable[[Row, int], Check]] = {}


def checks(*names: str) -> Callable[[Callable[[Row, int], Check]], Callable[[Row, int], Check]]:
    """Marks how the rows of these mnemonics are checked; `case` counts the rows of one form."""

    def mark(check: Callable[[Row, int], Check]) -> Callable[[Row, int], Check]:
        checkers.update(dict.fromkeys(names, check))
        return check

    return mark


# --- what a row means, by kind of instruction ---


def plain(row: Row, case: int) -> Check:
    """Forms whose cost depends on nothing but the operand's kind and the mode."""
    for mode, clocks in zip(("real", "protected"), real_and_protected(row.clocks), strict=True):
        for memory in (False, True):
            if clocks and (takes_memory(row) if memory else takes_register(row)):
                cpu = processor(mode)
                measured = measure(cpu, encode(row, mode, memory))
                assert cpu.instructions == 1
                yield f"{mode} {'memory' if memory else 'register'}", measured, value(split(clocks)[memory])


@checks("XCHG")
def exchange(row: Row, case: int) -> Check:
    """The same opcode stands twice; of r/m,r only the register form is meant."""
    if row.operands[0].startswith("r/m"):
        yield "register", measure(processor("real"), encode(row, "real")), value(row.clocks)
    else:
        yield from plain(row, case)


@checks("LOCK")
def lock(row: Row, case: int) -> Check:
    locked = bytes.fromhex("f0 01 0e") + struct.pack("<H", DATA)
    alone = measure(processor("real"), locked[1:])
    yield "LOCK ADD", measure(processor("real"), locked) - alone, value(row.clocks)


def multiplier_clocks(multiplier: int) -> int:
    """The manual's formula, "MUL": if m <> 0 then max(ceil(log2 |m|), 3) + 6 else 9."""
    return max((abs(multiplier) - 1).bit_length(), 3) + 6 if multiplier else 9


@checks("MUL", "IMUL")
def multiply(row: Row, case: int) -> Check:
    by_immediate = row.operands[-1].startswith("imm")
    bits = int(row.operands[-1].lstrip("imr/"))
    signed = row.mnemonic == "IMUL"
    for multiplier in (0, 1, 2, 7, 8, 9, 16, 17, 0x7F, 0x80, 0xFF, 0x101, 0x7FFF, 0x8000, 0xFFFF, 0x10001, 0xFFFFFFFF):
        if multiplier >= 1 << bits:
            continue
        number = multiplier - (1 << bits) if signed and multiplier >> (bits - 1) else multiplier
        for memory in (False, True):
            if memory and not any(operand.startswith("r/m") for operand in row.operands):
                continue  # the form with two operands: one register stands for both
            cpu = processor("real")
            cpu.ebx = multiplier
            cpu.memory.write(DATA, struct.pack("<I", multiplier))
            code = encode(row, "real", memory, immediate=multiplier)
            if len(row.operands) == 2 and by_immediate:
                both = row._replace(instruction=row.instruction.replace(",", ",r/m16,"))
                code = encode(both, "real", reg=3, immediate=multiplier)
            least, most = map(int, split(row.clocks)[memory].split("-"))
            expected = multiplier_clocks(number) + 3 * memory
            assert least <= expected <= most
            yield f"by {number} memory={memory}", measure(cpu, code), expected


@checks("BSF", "BSR")
def scan(row: Row, case: int) -> Check:
    bits = operand_size(row)
    for zeros in (0, 1, 7, bits - 1):
        source = 1 << (zeros if row.mnemonic == "BSF" else bits - 1 - zeros)
        for memory in (False, True):
            cpu = processor("real")
            cpu.ebx = source
            cpu.memory.write(DATA, struct.pack("<I", source))
            measured = measure(cpu, encode(row, "real", memory))
            assert cpu.cx == (zeros if row.mnemonic == "BSF" else bits - 1 - zeros)
            yield f"{zeros} zeros memory={memory}", measured, value(row.clocks, n=zeros)


@checks("ENTER")
def enter(row: Row, case: int) -> Check:
    level_text = row.operands[1]
    for level in [int(level_text)] if level_text.isdecimal() else [2, 3, 31]:
        for mode in ("real", "protected"):
            code = b"\xc8" + struct.pack("<HB", 16, level)
            yield f"level {level} {mode}", measure(processor(mode), code), value(row.clocks, n=level)


@checks("REP", "REPE", "REPNE")
def repeat(row: Row, case: int) -> Check:
    io = "INS" in row.instruction or "OUTS" in row.instruction
    real, protected = real_and_protected(row.clocks)
    terms = {"real": real, "protected": split(protected)[0]}
    if io:
        terms |= {"ring3": split(protected)[1], "v86": split(protected)[1]}
    for (mode, term), count in itertools.product(terms.items(), (0, 1, 2, 9)):
        cpu = processor(mode)
        cpu.ecx, cpu.edi = count, DATA + 0x400
        if row.mnemonic == "REPNE":  # nothing is found before the count is 0
            cpu.memory.write(DATA + 0x400, bytes([0xEE]) * 64)
        if row.mnemonic == "REPE":
            cpu.eax = 0
            cpu.memory.write(DATA, bytes(4))
        size = operand_size(row)
        prefix = b"\x66" if size and (size == 32) == is_16_bit(mode) else b""
        measured = measure(cpu, prefix + bytes.fromhex(row.opcode), max(count, 1))
        assert cpu.cx == 0 and cpu.rip != CODE
        yield f"{mode} {count} times", measured, value(term, CX=count, N=count)


@checks("IN", "OUT", "INS", "INSB", "INSW", "INSD", "OUTS", "OUTSB", "OUTSW", "OUTSD")
def port(row: Row, case: int) -> Check:
    real, protected = real_and_protected(row.clocks)
    allowed, mapped = split(protected)
    for mode, term in (("real", real), ("protected", allowed), ("ring3", mapped), ("v86", mapped)):
        yield mode, measure(processor(mode), encode(row, mode)), value(term)


@checks(*{row.mnemonic for row in ROWS if row.mnemonic.startswith("J") and row.mnemonic != "JMP"})
def conditional(row: Row, case: int) -> Check:
    taken, passed = row.clocks.split(",")
    for mode, jump in itertools.product(("real", "protected"), (False, True)):
        cpu = processor(mode)
        if "CXZ" in row.mnemonic:
            cpu.ecx = 0 if jump else 1
        else:
            condition = int(row.opcode.replace("0F ", "").split()[0], 16) & 15
            cpu.eflags = 2 | (CONDITIONS[condition & 14] if jump != condition & 1 else 0)
        length = len(encode(row, mode))
        measured = measure(cpu, encode(row, mode, immediate=NEAR - CODE - length))
        assert cpu.rip == (NEAR if jump else CODE + length)
        yield f"{mode} {'taken' if jump else 'not taken'}", measured, value(taken if jump else passed)


@checks("LOOP", "LOOPE", "LOOPZ", "LOOPNE", "LOOPNZ")
def loop(row: Row, case: int) -> Check:
    cpu = processor("real")
    cpu.ecx = 5
    cpu.eflags = 0x42 if row.mnemonic in ("LOOPE", "LOOPZ") else 2
    measured = measure(cpu, encode(row, "real", immediate=NEAR - CODE - 2))
    assert cpu.rip == NEAR
    yield "taken", measured, value(row.clocks)


def near(row: Row) -> Check:
    """JMP and CALL in the segment."""
    for mode in ("real", "protected"):
        if row.operands[0].startswith("rel"):
            length = len(encode(row, mode))
            cpu = processor(mode)
            measured = measure(cpu, encode(row, mode, immediate=NEAR - CODE - length))
            assert cpu.rip == NEAR
            yield mode, measured, value(row.clocks)
            continue
        for memory in (False, True):
            cpu = processor(mode)
            cpu.ebx = TARGET
            cpu.memory.write(DATA, struct.pack("<I", TARGET))
            measured = measure(cpu, encode(row, mode, memory))
            assert cpu.rip == TARGET
            yield f"{mode} memory={memory}", measured, value(split(row.clocks)[memory])


def far(row: Row, mode: str, selector: int) -> tuple[emu.Cpu, int]:
    """JMP or CALL to another segment: the processor after it, and the cycles it took."""
    cpu = processor(mode)
    size = int(row.operands[0][-2:]) // 8
    cpu.memory.write(DATA, TARGET.to_bytes(size, "little") + struct.pack("<H", selector))
    memory = row.operands[0].startswith("m16")
    measured = measure(cpu, encode(row, mode, memory, immediate=selector))
    assert cpu.rip == TARGET
    return cpu, measured


@checks("JMP", "CALL")
def transfer(row: Row, case: int) -> Check:
    if not row.operands[0].startswith(("ptr", "m16:")):
        yield from near(row)
        return
    if case == 0:
        real, protected = real_and_protected(row.clocks)
        yield "real", far(row, "real", 0)[1], value(real)
        yield "virtual-8086", far(row, "v86", 0)[1], value(real)
        yield "protected", far(row, "protected", CODE_0)[1], value(protected)
    elif row.clocks.endswith("ts"):
        for selector in (NEW_TASK, TASK_GATE):
            yield f"task {selector:#x}", far(row, "protected", selector)[1], value(row.clocks)
        cpu, measured = far(row, "protected", NEW_TASK_286)
        assert cpu.tr.selector == NEW_TASK_286
        yield "286 task", measured, value(row.clocks, ts=TASK_SWITCH_286)
    else:
        mode, selector = [("protected", GATE_0), ("ring3", GATE_3), ("ring3", GATE_3_PARAMETERS)][case - 1]
        cpu, measured = far(row, mode, selector)
        assert cpu.cpl == 0
        yield f"gate {selector:#x}", measured, value(real_and_protected(row.clocks)[1], x=PARAMETERS)


def with_frame(mode: str, code: bytes, size: int, *frame: int) -> tuple[emu.Cpu, int]:
    """An instruction that returns by this frame: the processor after it, and the cycles it took."""
    cpu = processor(mode)
    cpu.memory.write(STACK, b"".join(number.to_bytes(size, "little") for number in frame))
    measured = measure(cpu, code)
    assert cpu.rip == TARGET
    return cpu, measured


@checks("RET")
def ret(row: Row, case: int) -> Check:
    code = bytes.fromhex(row.opcode.split()[0]) + (b"\x04\x00" if row.operands else b"")
    real, protected = real_and_protected(row.clocks)
    if case == 1:
        released = [0] if row.operands else []
        cpu, measured = with_frame("protected", code, 4, TARGET, CODE_3, *released, STACK, DATA_3)
        assert cpu.cpl == 3
        yield "to an outer level", measured, value(protected)
        return
    yield "real", with_frame("real", code, 2, TARGET, 0)[1], value(real)
    yield "protected", with_frame("protected", code, 4, TARGET, CODE_0)[1], value(protected)


@checks("IRET", "IRETD")
def interrupt_return(row: Row, case: int) -> Check:
    size = 4 if row.mnemonic == "IRETD" else 2
    code = {mode: encode(row, mode) for mode in ("real", "protected")}
    real, protected = real_and_protected(row.clocks)
    if row.clocks == "ts":
        cpu = processor("protected")
        cpu.memory.write(GDT + NEW_TASK + 5, b"\x8b")  # busy, since it called
        cpu.eflags = 2 | NT
        measured = measure(cpu, code["protected"])
        assert cpu.tr.selector == NEW_TASK and cpu.rip == TARGET
        yield "to the task that called", measured, value(row.clocks)
    elif case == 0:
        yield "real", with_frame("real", code["real"], size, TARGET, 0, 2)[1], value(real)
        yield "protected", with_frame("protected", code["protected"], size, TARGET, CODE_0, 2)[1], value(protected)
    elif case == 1:
        cpu, measured = with_frame("protected", code["protected"], size, TARGET, CODE_3, 2, STACK, DATA_3)
        assert cpu.cpl == 3
        yield "to an outer level", measured, value(protected)
    else:
        cpu, measured = with_frame("protected", code["protected"], size, TARGET, 0, VM | 2, STACK, 0, 0, 0, 0, 0)
        assert cpu.eflags & VM
        yield "to virtual-8086 mode", measured, value(protected)


@checks("INT", "INTO")
def interrupt(row: Row, case: int) -> Check:
    vector = {"INT 3": 3, "INTO": 4}.get(row.instruction, 0x40)
    code = bytes.fromhex(row.opcode.split()[0]) + (bytes([vector]) if vector == 0x40 else b"")
    kind = case + (row.mnemonic == "INTO")  # INTO's column has no real-address mode
    mode = ("real", "protected", "ring3", "v86", "protected")[kind]
    cpu = processor(mode, faults="deliver")
    cpu.eflags = cpu.eflags | OF
    if row.clocks == "ts":
        cpu.memory.write(IDT + 8 * vector, gate(NEW_TASK, 0, 0xE5))
    measured = measure(cpu, code)
    assert cpu.rip == TARGET and cpu.cpl == 0
    assert (cpu.tr.selector == NEW_TASK) == (row.clocks == "ts")
    yield mode, measured, value(real_and_protected(row.clocks)[1])


@checks("LDS", "LES", "LFS", "LGS", "LSS")
def far_pointer(row: Row, case: int) -> Check:
    for mode, term in zip(("real", "protected"), real_and_protected(row.clocks), strict=True):
        cpu = processor(mode)
        size = int(row.operands[1][-2:]) // 8
        cpu.memory.write(DATA, bytes(size) + struct.pack("<H", DATA_0))
        yield mode, measure(cpu, encode(row, mode, memory=True)), value(term)


def is_segment(operand: str) -> bool:
    return operand in ("Sreg", "SS", "DS", "ES", "FS", "GS")


@checks("MOV")
def move(row: Row, case: int) -> Check:
    first, second = row.operands[0], row.operands[1]
    if row.instruction == "MOV CR0/CR2/CR3,r32":
        for number, term in zip((0, 2, 3), row.clocks.split("/"), strict=True):
            cpu = processor("protected")
            cpu.ebx = cpu.cr0 if number == 0 else 0
            yield f"CR{number}", measure(cpu, bytes((0x0F, 0x22, 0xC3 | number << 3))), value(term)
    elif "CR" in second:
        for number in (0, 2, 3):
            yield second, measure(processor("protected"), bytes((0x0F, 0x20, 0xC3 | number << 3))), value(row.clocks)
    elif "DR" in first + second:
        opcode = bytes.fromhex(row.opcode[:5])
        for number in (0, 1, 2, 3) if "DR0" in first + second else (6, 7):
            cpu = processor("protected")
            cpu.ebx = 0
            yield f"DR{number}", measure(cpu, opcode + bytes([0xC3 | number << 3])), value(row.clocks)
    elif first == "Sreg":
        real, protected = real_and_protected(row.clocks)
        for mode, term in (("real", real), ("v86", real), ("protected", protected)):
            for memory in (False, True):
                measured = measure(processor(mode), encode(row, mode, memory, reg=3))
                yield f"{mode} memory={memory}", measured, value(split(term)[memory])
    else:
        yield from plain(row, case)


@checks("POP")
def pop(row: Row, case: int) -> Check:
    if not is_segment(row.operands[0]):
        yield from plain(row, case)
        return
    for mode, term in zip(("real", "protected"), real_and_protected(row.clocks), strict=True):
        cpu = processor(mode)
        cpu.memory.write(STACK, struct.pack("<I", DATA_0))
        yield mode, measure(cpu, bytes.fromhex(row.opcode)), value(term)


@checks("LLDT", "LTR", "LSL", "BOUND")
def with_operand(row: Row, case: int) -> Check:
    """Those that want something special in their operand."""
    contents = {"LLDT": LOCAL_TABLE, "LTR": NEW_TASK, "LSL": (BYTES, DATA_0)[case], "BOUND": 0x7FFF0000}[row.mnemonic]
    clocks = split(real_and_protected(row.clocks)[1])
    for memory in (False, True):
        if memory or takes_register(row):
            cpu = processor("protected")
            cpu.ebx = contents
            cpu.memory.write(DATA, struct.pack("<II", contents, 0x7FFFFFFF) if row.mnemonic != "BOUND" else b"")
            if row.mnemonic == "BOUND":
                size = operand_size(row) // 8
                cpu.memory.write(DATA, bytes(size) + (100).to_bytes(size, "little"))
            yield f"memory={memory}", measure(cpu, encode(row, "protected", memory)), value(clocks[memory])


@checks("LMSW")
def load_status(row: Row, case: int) -> Check:
    for mode, memory in itertools.product(("real", "protected"), (False, True)):
        cpu = processor(mode)
        cpu.ebx = cpu.cr0 & 1
        cpu.memory.write(DATA, struct.pack("<I", cpu.cr0 & 1))
        yield f"{mode} memory={memory}", measure(cpu, encode(row, mode, memory)), value(split(row.clocks)[memory])


def numbered() -> list[tuple[Row, int]]:
    """Each row with its number among the rows of its form."""
    seen: dict[tuple[str, str], int] = {}
    numbers = []
    for row in ROWS:
        number = seen.get((row.opcode, row.instruction), 0)
        seen[row.opcode, row.instruction] = number + 1
        numbers.append((row, number))
    return numbers


@pytest.mark.parametrize("mnemonic", sorted({row.mnemonic for row in ROWS}))
def test_clocks(mnemonic: str) -> None:
    """Every row of this mnemonic takes what the manual says."""
    ran = 0
    wrong = []
    rows = [(row, case) for row, case in numbered() if row.mnemonic == mnemonic and row.instruction not in NOT_RUN]
    for row, case in rows:
        for what, measured, expected in checkers.get(mnemonic, plain)(row, case):
            ran += 1
            if measured != expected:
                wrong.append(f"{row.opcode} {row.instruction} [{row.clocks}], {what}: {measured}, not {expected}")
    assert not wrong, "\n".join(wrong)
    assert ran >= len(rows)


def test_rows_that_are_not_run_do_not_exist() -> None:
    """Each exception is an instruction that the model has not."""
    for opcode in (b"\x0f\x24\xf3", b"\x0f\x26\xf3"):
        with pytest.raises(emu.CpuFault) as raised:
            measure(processor("protected"), opcode)
        assert raised.value.name == "#UD"
    assert {row.instruction for row in ROWS} >= NOT_RUN.keys()


def test_into_without_overflow() -> None:
    """Manual, "INTO": 3 clocks where OF is clear."""
    assert measure(processor("real"), b"\xce") == 3


@pytest.mark.parametrize(
    ("code", "clocks"),
    [
        ("8b 07", 4),
        ("8b 00", 5),  # [bx+si]
        ("8b 43 10", 5),  # [bp+di+10h]
        ("67 8b 04 9d 00 20 00 00", 4),  # [ebx*4+2000h]: an index alone
        ("67 8b 04 33", 5),  # [ebx+esi]
        ("8d 00", 3),  # LEA too
    ],
)
def test_an_address_of_two_registers_takes_one_more(code: str, clocks: int) -> None:
    """Manual, 17.2.2.3, "Clocks": a base and an index cost a clock."""
    assert measure(processor("real"), bytes.fromhex(code)) == clocks


@pytest.mark.parametrize(
    ("target", "components"),
    [("90", 1), ("b8 34 12", 2), ("83 06 00 20 05", 4), ("66 0f b7 06 00 20", 5), ("67 66 8b 84 33 00 20 00 00", 6)],
)
def test_m_counts_the_components_of_the_target(target: str, components: int) -> None:
    """Manual, 17.2.2.3: prefix bytes, opcode bytes, ModRM, SIB, displacement and immediate count one each."""
    cpu = processor("real")
    cpu.memory.write(NEAR, bytes.fromhex(target))
    assert measure(cpu, bytes((0xEB, NEAR - CODE - 2))) == 7 + components


def test_interrupts_take_what_int_n_takes() -> None:
    """A hardware exception is charged by how it is delivered; the fault itself completes nothing."""
    divide = b"\xf6\xf3"
    for mode, clocks in (("real", 37), ("protected", 59), ("ring3", 99), ("v86", 119)):
        cpu = processor(mode, faults="deliver")
        cpu.ebx = 0
        cpu.load(CODE, divide)
        cpu.run(instructions=1)
        assert cpu.rip == TARGET + (3 if mode == "real" else 5)
        assert cpu.cycles == clocks + 2, mode  # and the MOV there


def test_a_run_takes_as_many_cycles_as_its_steps() -> None:
    """A block's clocks are charged at once and settled by its instructions: the sum is that of the single ones."""
    program = bytes.fromhex(
        "b9 03 00"  # mov cx, 3
        "bb 09 00"  # again: mov bx, 9
        "f7 e3"  # mul bx
        "0f bc c3"  # bsf ax, bx
        "0f bd c3"  # bsr ax, bx
        "e4 80"  # in al, 80h
        "ee"  # out dx, al
        "c8 08 00 02"  # enter 8, 2
        "c9"  # leave
        "0f 20 c0"  # mov eax, cr0
        "8e d8"  # mov ds, ax
        "1e 1f"  # push ds; pop ds
        "51 b9 05 00 f3 a4 59"  # push cx; mov cx, 5; rep movsb; pop cx
        "38 d8 74 00"  # cmp al, bl; jz $+2
        "e2 d7"  # loop again
        "f4"  # hlt
    )
    whole, steps = processor("real"), processor("real")
    whole.load(CODE, program)
    assert whole.run().reason == "halted"
    steps.load(CODE, program)
    while steps.rip != whole.rip:
        steps.step()
    assert whole.instructions == steps.instructions > 3 * 20
    assert whole.cycles == steps.cycles
