"""Lengths, mnemonics and operands compared with Capstone, which shares no table with us, on random and real code."""

import platform
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from asm import table
from asm.instructions.disassemble import Instruction, decode
from asm.instructions.operands import Far, Imm, Mem, Operand, Reg

capstone = pytest.importorskip("capstone", reason="capstone, of the extra [test], is not installed")

MODES = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
# The manual has several names for some conditions; we write the one that the table lists, Capstone another.
CONDITIONS = {
    "z": "e", "nz": "ne", "c": "b", "nae": "b", "nc": "ae", "nb": "ae", "na": "be", "nbe": "a", "nge": "l",
    "nl": "ge", "ng": "le", "nle": "g", "po": "np", "pe": "p",
}  # fmt: skip
# Where the two differ: a pattern of our mnemonic, of Capstone's text ("" where it refuses the bytes), and why.
DIFFERENCES = (
    ("mov", "movabs .*", "AT&T's name of MOV with a 64-bit immediate or offset"),
    ("(push|pop)ad", "(push|pop)al", "AT&T's name"),
    ("call|jmp", "l(call|jmp) .*", "AT&T's name of far branches"),
    ("v?cmp[ps][sd]", "v?cmp[a-z]+.*", "Capstone writes the predicate into the name"),
    ("cbw|cwd", "cwde|cdq", "Capstone takes the operand size of 16-bit code for 32 bits"),
    ("(push|pop)fw|iretw", "(push|pop)f *|iret *", "Capstone writes no size where it is the usual one"),
    ("ud[01]", "ud[01] *", "Capstone has them without ModRM, as AMD"),
    ("nop|prefetchit[01]", "((nop|bnd\\w+) .*)?", "reserved no-operations, of which MPX took some"),
    ("fu?comip", "fu?compi .*", "Capstone's own name"),
    ("fneni|fndisi", "f(eni|disi)8087_nop", "no-operations since the 287"),
)


KNOWN = table.load().mnemonics()
# What Capstone takes, in its words, and we do not; and why.
REFUSED = (("(syscall|sysret) *", "in 16- and 32-bit code AMD's processors alone have them"),)

# The same of operands: a pattern of the form's syntax, and why nothing is compared.
OTHER_OPERANDS = (
    ("(rep[a-z]* )?(MOVS|CMPS|SCAS|LODS|STOS|INS|OUTS)[BWDQ]", "Capstone writes the operands that are always the same"),
    ("XLATB?", "the same"),
    ("MOV Sreg, r/m16|MOV r32/m16, Sreg|MOV r64/m16, Sreg", "Capstone shows 16 bits of a register in its full width"),
    ("F.*ST.*", "Capstone leaves ST(0) out of some forms"),
    ("V?CMP[PS][SD] .*|V?PCLMULQDQ .*", "Capstone has the immediate in the name"),
    ("V?(BLENDV|PBLENDVB).*", "Capstone leaves XMM0 out"),
    ("NOP .*, .*", "reserved no-operations, of which Capstone shows one operand"),
    ("ENTER .*|.* ptr16:(16|32)", "Capstone counts far pointers and ENTER's operands its own way"),
)


PREFIXES = frozenset(("lock", "rep", "repe", "repne", "repz", "repnz", "xacquire", "xrelease", "bnd", "notrack"))
# Prefixes that do nothing before an opcode: how far they count is each disassembler's own choice.
PREFIX_RUN = re.compile(rb"[\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3\x40-\x4f]", re.DOTALL)


ADDRESS = 0x1000


def condition_folded(mnemonic: str) -> str:
    match = re.fullmatch(r"(j|set|cmov)(\w+)", mnemonic)
    return match[1] + CONDITIONS.get(match[2], match[2]) if match else mnemonic


Shown = str | int | tuple[str, frozenset[str], int]


def our_operands(instruction: Instruction, address_mask: int) -> list[Shown]:
    """Operands in a form of neither: names of registers, numbers, and addresses: segment, registers, displacement."""

    def shown(operand: Operand) -> Shown:
        if isinstance(operand, Reg):
            return operand.name
        if isinstance(operand, Mem):
            parts = {f"{operand.base}*1"} if operand.base else set()
            parts |= {f"{operand.index}*{operand.scale}"} if operand.index else set()
            if operand.base and operand.base == operand.index:
                parts = {f"{operand.base}*{operand.scale + 1}"}
            return operand.seg or "", frozenset(parts), (operand.disp or 0) & address_mask
        assert isinstance(operand, Imm | Far)
        return (operand.value if isinstance(operand, Imm) else operand.off) or 0

    return [shown(operand) for operand in instruction.operands]


def their_operands(theirs: object, address_mask: int) -> list[Shown]:
    """The same of Capstone's; an address that counts from RIP is what it comes to, as we have it."""
    name = theirs.reg_name  # type: ignore[attr-defined]
    found: list[Shown] = []
    for operand in theirs.operands:  # type: ignore[attr-defined]
        if operand.type == capstone.x86.X86_OP_REG:
            found.append(name(operand.reg).replace("(", "").replace(")", ""))
        elif operand.type == capstone.x86.X86_OP_IMM:
            found.append(operand.imm)
        else:
            memory = operand.mem
            base, index = (name(register) if register else "" for register in (memory.base, memory.index))
            parts = {f"{base}*1"} if base else set()
            parts |= {f"{index}*{memory.scale}"} if index and index not in ("riz", "eiz") else set()
            if base and base == index:
                parts = {f"{base}*{memory.scale + 1}"}
            displacement = memory.disp
            if base in ("rip", "eip"):
                parts, displacement = set(), displacement + theirs.address + theirs.size  # type: ignore[attr-defined]
            segment = name(memory.segment) if memory.segment else ""
            found.append((segment, frozenset(parts), displacement & address_mask))
    return found


def same_operands(ours: list[Shown], theirs: list[Shown]) -> bool:
    """Numbers are the same if they are so in the narrower of the widths in which the two write them."""
    if len(ours) != len(theirs):
        return False
    for mine, other in zip(ours, theirs, strict=True):
        if isinstance(mine, int) and isinstance(other, int):
            if not any(
                (mine - other) % (1 << width) == 0 and abs(mine - other) <= 1 << width for width in (8, 16, 32, 64)
            ):
                return False
        elif mine != other:
            return False
    return True


def test_other_operands_are_seen() -> None:
    memory: Shown = ("", frozenset(("eax*1",)), 4)
    assert same_operands(["eax", 0xD2, memory], ["eax", -0x2E, memory])
    assert not same_operands(["eax"], ["ebx"])
    assert not same_operands(["eax", 5], ["eax", 6])
    assert not same_operands([memory], [("", frozenset(("eax*2",)), 4)])
    assert not same_operands([memory], [memory, "eax"])


def refused(theirs: object) -> bool:
    """We have no such instruction, or know why these bytes are none."""
    name = theirs.mnemonic.split()[-1]  # type: ignore[attr-defined]
    text = f"{theirs.mnemonic} {theirs.op_str}"  # type: ignore[attr-defined]
    is_evex = theirs.bytes.lstrip(b"\x26\x2e\x36\x3e\x64\x65\x66\x67")[0] == 0x62  # type: ignore[attr-defined]
    return is_evex or name not in KNOWN or any(re.fullmatch(pattern, text) for pattern, _ in REFUSED)


def difference(code: bytes, bits: int, engine: object) -> str:
    """What the two say of the first instruction, where that is not the same and not known."""
    ours = decode(code, bits, ADDRESS)
    theirs = next(engine.disasm(code, ADDRESS, 1), None)  # type: ignore[attr-defined]
    if ours is None:
        return (
            ""
            if theirs is None or refused(theirs)
            else f"{code[: theirs.size].hex()}: refused, Capstone {theirs.mnemonic}"
        )
    name = ours.form.mnemonic.lower()
    length, text = (theirs.size, f"{theirs.mnemonic} {theirs.op_str}".strip()) if theirs else (0, "")
    their_name = next((word for word in text.split() if word not in PREFIXES), text)
    if length == ours.length and condition_folded(name) == condition_folded(their_name):
        if any(re.fullmatch(pattern, ours.form.syntax) for pattern, _ in OTHER_OPERANDS):
            return ""
        mask = (1 << 8 * theirs.addr_size) - 1
        mine, others = our_operands(ours, mask), their_operands(theirs, mask)
        if bits == 16 and "rel16" in ours.form.syntax:  # Capstone does not cut the target
            others = [other & 0xFFFF if isinstance(other, int) else other for other in others]
        if same_operands(mine, others) or (name == "xchg" and same_operands(mine, others[::-1])):
            return ""
        return f"{code[:length].hex()}: {ours.form.syntax} {mine}, Capstone {text} {others}"
    if any(re.fullmatch(mine, name) and re.fullmatch(other, text) for mine, other, _ in DIFFERENCES):
        return ""
    return f"{code[: max(ours.length, length)].hex()}: {name} {ours.length}, Capstone {text or 'refuses it'} {length}"


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_random_bytes(bits: int) -> None:
    engine = capstone.Cs(capstone.CS_ARCH_X86, MODES[bits])
    engine.detail = True
    chooser = random.Random(bits)
    cases = [chooser.randbytes(15) for _ in range(6000)]
    cases = [case for case in cases if not PREFIX_RUN.match(case)]
    assert sum(decode(case, bits) is not None for case in cases) > 4000
    wrong = [text for case in cases if (text := difference(case, bits, engine))]
    assert not wrong, f"{len(wrong)} of {len(cases)} differ:\n" + "\n".join(wrong[:60])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the host's programs are of another processor")
@pytest.mark.skipif(shutil.which("objcopy") is None, reason="objcopy is not installed")
@pytest.mark.parametrize("library", ["libm.so.6", "libc.so.6"])
def test_real_code(library: str, tmp_path: Path) -> None:
    found = next(iter(sorted(Path("/lib").glob(f"*/{library}"))), None)
    if found is None:
        pytest.skip(f"{library} is not installed")
    text = tmp_path / "text"
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", found, text], check=True)
    code = text.read_bytes()[50_000:110_000]
    engine = capstone.Cs(capstone.CS_ARCH_X86, MODES[64])
    engine.detail = True
    at, count, wrong = 0, 0, []
    while at < len(code) - 15:
        piece = code[at : at + 15]
        if message := difference(piece, 64, engine):
            wrong.append(message)
        ours = decode(piece, 64)
        at += ours.length if ours is not None else next((n[1] for n in engine.disasm_lite(piece, 0, 1)), 1)
        count += ours is not None
    assert count > 8000
    assert not wrong, f"{len(wrong)} of {count} differ:\n" + "\n".join(wrong[:60])
