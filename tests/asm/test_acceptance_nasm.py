"""What is an instruction and what is not: every form with another operand in each place, and with each prefix.

`test_encode_nasm.py` compares the instructions that there are; here most lines are none, and NASM refuses the same.
"""

import random
import re
from collections.abc import Callable, Iterator

import pytest

import asm
from asm import table
from asm.table import Form, OperandSpec

NasmLines = Callable[..., list[bytes | None]]

# Where we differ from NASM 2.16 on purpose: a pattern of the line, and why.
DIFFERENCES = (
    (
        r".*\b(sh[lr]d|enter|ps[rl][la][wdq]|pshuf\w+|v?pinsr\w|v?pextrw|retw|palignr|extrq|insertq|v\w+) .*"
        r"\b(byte|word|qword|oword) \S+",
        "we take the right size keyword before an immediate; NASM, for these, none",
    ),
    (r".*\b(mm|xmm|ymm)\d", "a size keyword before a vector register is ignored, as NASM ignores it before the others"),
    (
        r".*\b(f(n?stenv|ldenv|n?save|rstor)|f?xsave\w*|f?xrstor\w*|invlpg\w*|clflush\w*|clwb|cldemote|[ls][gi]dt) ",
        "we take a size keyword where only one size is possible",
    ),
    (r".*\b(cmpsd|movsd) ", "NASM knows more sizes of memory for the vector instruction"),
    (r".*(call|jmp) far (\w+ )?1:", "NASM refuses the redundant word before a far pointer"),
    (r".*bextr .*, [-+$0-9a-z ]+$", "NASM knows AMD's TBM"),
    (r".*\bfar \w+x\b", "NASM ignores `far` before a register of a jump"),
    (r".*\blea \w+, .*(near|far|short)", "NASM takes any keyword before the address of LEA"),
    (r".*(loop\w*|j\w?cxz) .*short", "NASM refuses a distance where there is no other"),
    (r".*(loop\w*|j\w?cxz|short) ", "NASM does not see that a number is out of range of a short jump"),
    (r"o(16|32) .*(call|jmp) 1:2", "NASM does not change the size of the offset"),
    (r".*monitorx [er]?ax", "NASM leaves out the 67h of an address in a register of another size"),
    (r".*(skinit|(rd|wr)pkru|salc)", "taken in other modes, see test_encode_nasm.py"),
    (r".*(ptwrite|wru?ssd|retn?w)", "wrong in NASM, see test_encode_nasm.py"),
    (r"o64 ", "NASM takes the prefix in every mode, if the instruction needs it not"),
    (r".*\bf?wait", "FWAIT is a prefix to NASM, which has others behind it"),
    (r".*f\w+p? to st", "NASM has TO for the forms that do not pop, alone"),
    (r"repn[ez] j\w+ ", "NASM takes REPNE before a conditional jump that happens to be short"),
    (r".*prefetchw? ", "a byte for us, a qword for NASM"),
    (r"(.*movdir64b|a32 (invlpga|loop\w*|clzero|monitorx|umonitor)) ", "NASM dies of address sizes that differ"),
)  # fmt: skip

MEMORY = {16: "[bx+si+5]", 32: "[ebx+5]", 64: "[rbx+5]"}
REGISTERS = (
    "al", "ah", "cl", "bl", "ax", "cx", "bx", "dx", "eax", "ecx", "edx", "ebx", "es", "cs", "ss", "ds", "fs", "gs",
    "cr0", "cr3", "dr0", "dr6", "tr6", "st0", "st3", "mm3", "xmm0", "xmm3", "ymm0", "ymm3", "rax", "rbx", "r9", "r9d",
    "r9b", "spl", "cr8", "xmm9", "byte bl", "word bx", "dword ebx", "byte ebx", "to st3", "far bx", "near ebx",
)  # fmt: skip
ADDRESSES = (
    *("M", "byte M", "word M", "dword M", "qword M", "tword M", "oword M", "yword M", "far M", "near M", "short M"),
    *("far word M", "far dword M", "near word M", "[0x1234]", "dword [0x1234]", "[dword 0x1234]", "[word 0x1234]"),
    *("[es:0x1234]", "word [fs:0x1234]", "strict dword M", "[ebx]", "[bx]", "[r9]", "[rel 0x1234]", "[gs:ebx]"),
)
NUMBERS = (
    *("0", "1", "5", "-1", "127", "128", "-129", "255", "256", "0x8000", "0x10000", "0x80000000", "0x100000000"),
    *("byte 5", "word 5", "dword 5", "qword 5", "strict byte 5", "strict word 5", "strict dword 0x80", "tword 5"),
    *("$+5", "$+0x1234", "short $+5", "near $+5", "far $+5", "byte $+5", "word $+5", "dword $+5", "near word $+5"),
    *("near dword $+5", "1:2", "word 1:2", "dword 1:2", "far 1:2", "1:0x12345"),
)
PREFIXES = (
    *("lock", "rep", "repe", "repne", "repnz", "a16", "a32", "a64", "o16", "o32", "o64", "cs", "ds", "fs", "xacquire"),
    *("xrelease", "bnd", "nobnd", "wait", "{rex}", "{vex}", "{vex2}", "{vex3}", "rep repe", "lock lock", "o16 o32"),
)
SIZES = {0: "", 8: "byte ", 16: "word ", 32: "dword ", 64: "qword ", 80: "tword ", 128: "oword ", 256: "yword "}
GENERAL = {8: "bl", 16: "bx", 32: "ebx", 64: "rbx"}
OTHERS = {"sreg": "ds", "cr": "cr3", "dr": "dr6", "tr": "tr6", "imm": "5", "one": "1", "moffs": "[0x12]", "ptr": "1:2"}


def sample(spec: OperandSpec, bits: int) -> str:
    """An operand that the column of the syntax takes, memory where it may be."""
    if spec.kind == "reg":
        return spec.register
    if spec.kind == "rel":
        return "$+5"
    if spec.kind == "vsib":
        return f"[{'rbx' if bits == 64 else 'ebx'}+{spec.register}1]"
    if spec.takes_memory and spec.kind != "moffs":
        return SIZES.get(spec.memory_size, "") + MEMORY[bits]
    if spec.kind == "v":
        return f"{spec.register}3"
    return GENERAL[spec.size] if spec.kind == "r" else OTHERS[spec.kind]


def variations(form: Form, bits: int) -> Iterator[str]:
    """Lines with the mnemonic of a form, few of which are right."""
    name = form.mnemonic.lower()
    base = [sample(spec, bits) for spec in form.operands]
    for place in range(len(base)):
        for other in (*REGISTERS, *ADDRESSES, *NUMBERS):
            other = other.replace("M", MEMORY[bits])
            if not form.is_jump and not name.startswith("loop"):
                other = other.replace("$+", "$$+")  # no difference in length shall be one in the next lines' values
            yield f"{name} {', '.join([*base[:place], other, *base[place + 1 :]])}"
    yield f"{name} {', '.join(base[:-1])}"
    yield f"{name} {', '.join([*base, '5'])}"
    for prefix in PREFIXES:
        yield f"{prefix} {name} {', '.join(base)}"


def our_lines(lines: list[str], bits: int) -> list[bytes | None]:
    """Each line's bytes; None where it is refused."""
    refused: set[int] = set()
    while True:
        texts = ["" if number in refused else line for number, line in enumerate(lines)]
        try:
            program = asm.assemble("\n".join(["", *texts, "end: db 0"]), bits=bits)
            break
        except asm.AsmError as error:
            found = {diagnostic.line - 2 for diagnostic in error.errors}
            assert found - refused, error
            refused |= found
    starts = [(line - 2, address) for address, _, line in program.lines]
    ends = [address for _, address in starts[1:]]
    code = {line: program.binary[start:end] for (line, start), end in zip(starts, ends, strict=False)}
    return [None if number in refused else code.get(number, b"") for number in range(len(lines))]


@pytest.mark.parametrize("count", [5000, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("bits", [16, 32, 64])
def test_the_same_lines_are_instructions(bits: int, count: int, nasm_lines: NasmLines) -> None:
    forms = [form for form in table.load() if form.encodes and form.since not in ("AVX", "AVX2", "FMA")]
    chooser = random.Random(bits)
    lines = []
    for form in forms:
        found = list(variations(form, bits))
        lines += chooser.sample(found, min(2 * count // len(forms), len(found)))
    chosen = [line for line in lines if not any(re.match(pattern, line) for pattern, _ in DIFFERENCES)]
    ours, theirs = our_lines(chosen, bits), nasm_lines(chosen, bits)
    wrong = [line for line, mine, other in zip(chosen, ours, theirs, strict=True) if (mine is None) != (other is None)]
    assert not wrong, f"{len(wrong)} of {len(chosen)} differ:\n" + "\n".join(sorted(wrong)[:80])
    wrong = [line for line, mine, other in zip(chosen, ours, theirs, strict=True) if mine != other]
    assert not wrong, f"{len(wrong)} of {len(chosen)} differ:\n" + "\n".join(sorted(wrong)[:80])
    assert len(chosen) > count // 2 and sum(code is not None for code in ours) > count // 20
