"""Lengths and mnemonics compared with Capstone, which shares no table with us, on random and on real code."""

import platform
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from asm.disassemble import decode

capstone = pytest.importorskip("capstone", reason="capstone, of the extra [test], is not installed")

MODES = {32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
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
    ("fneni|fndisi", "f(eni|disi)8087_nop", "no-operations since the 287"),
)


PREFIXES = frozenset(("lock", "rep", "repe", "repne", "repz", "repnz", "xacquire", "xrelease", "bnd", "notrack"))
# Prefixes that do nothing before an opcode: how far they count is each disassembler's own choice.
PREFIX_RUN = re.compile(rb"[\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3\x40-\x4f]", re.DOTALL)


def condition_folded(mnemonic: str) -> str:
    match = re.fullmatch(r"(j|set|cmov)(\w+)", mnemonic)
    return match[1] + CONDITIONS.get(match[2], match[2]) if match else mnemonic


def difference(code: bytes, bits: int, engine: object) -> str:
    """What the two say of the first instruction, where that is not the same and not known."""
    ours = decode(code, bits)
    theirs = next(engine.disasm_lite(code, 0x1000, 1), None)  # type: ignore[attr-defined]
    if ours is None:
        return ""  # Capstone knows extensions that the table does not have
    name = ours.form.mnemonic.lower()
    length, text = (theirs[1], f"{theirs[2]} {theirs[3]}".strip()) if theirs else (0, "")
    their_name = next((word for word in text.split() if word not in PREFIXES), text)
    if length == ours.length and condition_folded(name) == condition_folded(their_name):
        return ""
    if any(re.fullmatch(mine, name) and re.fullmatch(other, text) for mine, other, _ in DIFFERENCES):
        return ""
    return f"{code[: max(ours.length, length)].hex()}: {name} {ours.length}, Capstone {text or 'refuses it'} {length}"


@pytest.mark.parametrize("bits", [32, 64])
def test_random_bytes(bits: int) -> None:
    engine = capstone.Cs(capstone.CS_ARCH_X86, MODES[bits])
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
