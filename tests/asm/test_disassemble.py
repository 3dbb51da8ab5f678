"""What the disassembler writes, NASM and our assembler take back to the same bytes."""

import itertools
import platform
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import asm
from asm import table
from asm.instructions.disassemble import decode, disassemble

NasmLines = Callable[..., list[bytes | None]]
ESCAPES = (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a")


def candidates(bits: int) -> list[bytes]:
    """Byte strings that reach every opcode of the table with every ModRM.mod, reg and rm, and with each prefix."""
    chooser = random.Random(bits)
    tail = bytes(chooser.randrange(256) for _ in range(16))
    rexes = [b"", b"\x48", b"\x45", b"\x4f"] if bits == 64 else [b""]
    prefixes = [b"", b"\x66", b"\x67", b"\xf3", b"\xf2", b"\x2e", b"\x64", b"\xf0", b"\x66\xf3", b"\x66\x67"]
    found: dict[bytes, None] = {}
    opcodes = {
        (form.map, opcode, form.mandatory_prefix, form.modrm)
        for form in table.load()
        if form.decodes and bits in form.modes and not form.vex
        for opcode in range(form.opcode, form.opcode + (8 if form.plus_register else 1))
    }
    for number, opcode, mandatory, has_modrm in sorted(opcodes):
        escape = ESCAPES[number] + bytes((opcode,))
        for prefix in prefixes:
            for rex in rexes:
                modrms = range(chooser.randrange(5), 256, 11 if not prefix and not rex else 191) if has_modrm else (0,)
                for modrm in modrms:
                    end = chooser.choice((tail, bytes(16), b"\x7f" * 16, b"\x01\x00\x00\x00" * 4, b"\xff" * 16))
                    if has_modrm:
                        sib = bytes((chooser.randrange(256),))
                        end = bytes((modrm,)) + (sib if modrm & 7 == 4 and modrm < 0xC0 else b"") + end
                    found[(prefix + mandatory + rex + escape + end)[:15]] = None
    for form in table.load():
        if form.vex and form.decodes and bits in form.modes:
            found.update(dict.fromkeys(vex_candidates(form, bits, chooser)))
    return list(found)


def vex_candidates(form: table.Form, bits: int, chooser: random.Random) -> list[bytes]:
    """Byte strings with the VEX prefix that a form wants, and some with one that it does not."""
    made = []
    for _ in range(12):
        fields = chooser.randrange(256) if bits == 64 else 0xFF
        wanted = max(form.length, 0) << 2 | ("NP", "66", "F3", "F2").index(form.prefix)
        uses_vvvv = any("VVVV" in spec.where for spec in form.operands)
        vvvv = chooser.randrange(16) << 3 if uses_vvvv or not chooser.randrange(4) else 0x78
        w = 0x80 * (form.osize == 64 or (form.wig and not chooser.randrange(4)))
        end = bytes(chooser.randrange(256) for _ in range(8))
        if form.map == 1 and not w and chooser.randrange(2):
            prefix = bytes((0xC5, (fields & 0x80 if bits == 64 else 0x80) | vvvv | wanted))
        else:
            prefix = bytes((0xC4, fields & 0xE0 | form.map, w | vvvv | wanted))
        made.append((prefix + bytes((form.opcode,)) + end)[:15])
    return made


def as_bytes(code: bytes) -> str:
    return "db " + ", ".join(map(str, code))


# NASM leaves out the F3h of PTWRITE and takes RDPKRU and WRPKRU in 64-bit code only; in 16-bit code it puts 66h before
# WRSSD and WRUSSD, which makes them another instruction; it dies of MOVDIR64B where address sizes differ.
NASM_LACKS = r"ptwrite|(rd|wr)pkru|wru?ssd|movdir64b"


# All of them take a minute; every sixth is of the same kinds.
STEPS = [6, pytest.param(1, marks=pytest.mark.slow)]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("bits", [16, 32, 64])
def test_back_through_nasm(bits: int, step: int, nasm_lines: NasmLines) -> None:
    batches: list[list[tuple[int, bytes, str]]] = [[]]
    address = 0
    for data in candidates(bits)[::step]:
        if address > 0xE000:  # 16-bit code cannot jump within more
            address = 0
            batches.append([])
        [entry] = disassemble(data, bits, address, count=1)
        batches[-1].append(entry)
        address += len(entry[1])
    wrong = []
    for batch in batches:
        sources = [as_bytes(code) if re.search(NASM_LACKS, text) else text for _, code, text in batch]
        for source, (_, code, _), theirs in zip(sources, batch, nasm_lines(sources, bits), strict=True):
            if theirs != code:
                wrong.append(f"{source}: {code.hex()}, NASM {theirs.hex() if theirs is not None else 'refuses it'}")
    texts = [text for batch in batches for _, _, text in batch]
    assert sum(not text.startswith("db ") for text in texts) > len(texts) // 3
    assert not wrong, f"{len(wrong)} of {len(texts)} differ:\n" + "\n".join(wrong[:30])


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_back_through_our_assembler(bits: int) -> None:
    code = b"".join(random.Random(bits).sample(candidates(bits), 2000))[:0xF000]
    entries = disassemble(code, bits, 0x100)
    codes = [data for _, data, _ in entries]
    assert b"".join(codes) == code
    assert [address for address, _, _ in entries] == [
        0x100 + n for n in itertools.accumulate(map(len, codes), initial=0)
    ][:-1]
    source = "\n".join(["org 0x100", *(text for _, _, text in entries)])
    assert asm.assemble(source, bits=bits).binary == code


SLOT = 32  # bytes a case, filled with NOP, so that the other disassembler is in step again at the next
MACHINES = {16: "i8086", 32: "i386", 64: "i386:x86-64"}
# Where objdump is not the judge of a length: the syntax, a pattern of the bytes, and why.
OBJDUMP_DIFFERS = (
    (
        r"NOP .*",
        r".*0f(0d|1a|1b)",
        "objdump takes reserved no-operations for PREFETCH and MPX, with forms that do not exist",
    ),
    (r"WAIT", r".*4[0-9a-f]9b", "objdump does not take REX before WAIT"),
    (
        r"(CALL|JMP|J\w+) rel32",
        r"(66|6667)",
        "66h before a near branch in 64-bit code: objdump follows AMD, SDM ignores it",
    ),
    (r"BS[FR] .*", r"f2", "objdump knows no F2h before BSF and BSR, which SDM has ignored"),
    (r"[LMS]FENCE", r".*0fae", "objdump wants an r/m field of 0; SDM: the processor ignores it"),
    (r"RMPADJUST", r"f3", "objdump has it in 64-bit code only, NASM in every code"),
)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("bits", [16, 32, 64])
def test_lengths_are_those_of_another_disassembler(bits: int, step: int, tmp_path: Path) -> None:
    """objdump shares no table with us, so that an error in ours cannot hide."""
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip("objdump is not installed")
    cases = candidates(bits)[::step]
    image = tmp_path / "cases.bin"
    image.write_bytes(b"".join(case.ljust(SLOT, b"\x90") for case in cases))
    command = [objdump, "-D", "-b", "binary", "-m", MACHINES[bits], "-M", "intel", "--insn-width=16", "-z", image]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    theirs = {
        int(match[1], 16): (len(match[2].split()), match[3])
        for match in re.finditer(r"^ *([0-9a-f]+):\t((?:[0-9a-f]{2} )+) *\t(.*)$", listing, re.MULTILINE)
    }
    wrong = []
    for number, case in enumerate(cases):
        ours = decode(case, bits)
        length, text = theirs[number * SLOT]
        if ours is None or length == ours.length:
            continue
        syntax = ours.form.syntax
        if not any(re.fullmatch(form, syntax) and re.match(start, case.hex()) for form, start, _ in OBJDUMP_DIFFERS):
            wrong.append(f"{case.hex()}: {ours.form.syntax} {ours.length}, objdump {text} {length}")
    assert not wrong, f"{len(wrong)} of {len(cases)} differ:\n" + "\n".join(wrong[:40])


@pytest.mark.parametrize(
    ("bits", "code", "text"),
    [
        (32, "01c8", "add eax, ecx"),
        (32, "8b4508", "mov eax, [ebp+8]"),
        (32, "c7450001000000", "mov dword [ebp], 1"),
        (32, "ff1500100000", "call dword [0x1000]"),
        (32, "ff5104", "call dword [ecx+4]"),
        (16, "ea5be000f0", "jmp 0xf000:0xe05b"),
        (16, "eb03", "jmp short 0x105"),
        (16, "2e8b0e3412", "mov cx, [cs:0x1234]"),
        (32, "f3a4", "rep movsb"),
        (32, "f3a6", "repe cmpsb"),
        (32, "f2ae", "repne scasb"),
        (32, "0fb6c8", "movzx ecx, al"),
        (32, "0fb608", "movzx ecx, byte [eax]"),
        (32, "0f0111", "lgdt [ecx]"),
        (32, "0f22c0", "mov cr0, eax"),
        (64, "4889e5", "mov rbp, rsp"),
        (64, "488d0510000000", "lea rax, [rel $+0x17]"),
        (64, "0f01c2", "vmlaunch"),
        (64, "0f78c1", "vmread rcx, rax"),
        (64, "4190", "xchg eax, r8d"),
        (32, "8204ff05", "db 0x82, 0x04, 0xff, 0x05 ; add byte [edi+edi*8], 5"),
        (32, "d0f0", "db 0xd0, 0xf0 ; sal al, 1"),
        (32, "0fff", "db 0x0f"),
    ],
)
def test_text(bits: int, code: str, text: str) -> None:
    assert disassemble(bytes.fromhex(code), bits, 0x100, count=1)[0][2] == text


def test_text_alone() -> None:
    code = bytes.fromhex("03c1488d0510000000")
    assert [text for _, _, text in disassemble(code, 64, 0x1000, exact=False)] == [
        "add eax, ecx",
        "lea rax, [rel 0x1019]",
    ]
    assert disassemble(code, 64, 0x1000, count=0) == []
    assert disassemble(b"", 32) == []


@pytest.mark.skipif(shutil.which("objcopy") is None, reason="objcopy is not installed")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the host's programs are of another processor")
@pytest.mark.parametrize("library", ["libm.so.6", "libc.so.6"])
def test_real_code_comes_back(library: str, tmp_path: Path) -> None:
    """A piece of a library's code, disassembled and assembled again by NASM."""
    found = next(iter(sorted(Path("/lib").glob(f"*/{library}"))), None)
    if found is None or shutil.which("nasm") is None:
        pytest.skip("nasm or the library is not installed")
    text, source, binary = (tmp_path / name for name in ("text", "t.asm", "t.bin"))
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", found, text], check=True)
    code = text.read_bytes()[100_000:130_000]
    entries = disassemble(code, 64)
    source.write_text("bits 64\n" + "\n".join(line for _, _, line in entries) + "\n")
    subprocess.run(["nasm", "-w-all", "-f", "bin", "-o", binary, source], check=True, timeout=60)
    assert binary.read_bytes() == code
    assert sum(line.startswith("db ") for _, _, line in entries) < len(entries) // 20
