"""What the encoder does beside choosing among forms: prefixes, unknown values, fixups, warnings, errors."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import asm
from asm.instructions.encode import encode
from asm.instructions.operands import Encoded, EncodeError, Far, Fixup, Imm, Mem, Operand, Reg

NasmLines = Callable[..., list[bytes | None]]
EAX, ECX, RAX = Reg("eax"), Reg("ecx"), Reg("rax")
AT_EAX = Mem(base="eax")

# Bits, source as NASM has it, and the same as arguments.
PREFIXED: list[tuple[int, str, str, tuple[Operand, ...], tuple[str, ...]]] = [
    (16, "lock add [eax], ecx", "add", (AT_EAX, ECX), ("lock",)),
    (16, "es lock add [eax], ecx", "add", (AT_EAX, ECX), ("es", "lock")),
    (32, "o32 a32 es lock rep lodsd", "lodsd", (), ("o32", "a32", "es", "lock", "rep")),
    (16, "rep es a32 o32 lodsd", "lodsd", (), ("rep", "es", "a32", "o32")),
    (32, "xrelease lock add [eax], ecx", "add", (AT_EAX, ECX), ("xrelease", "lock")),
    (64, "popcnt r9w, [es:eax]", "popcnt", (Reg("r9w"), Mem(seg="es", base="eax")), ()),
    (64, "crc32 r9d, word [es:eax]", "crc32", (Reg("r9d"), Mem(16, "es", "eax")), ()),
    (64, "adcx r9d, [es:eax]", "adcx", (Reg("r9d"), Mem(seg="es", base="eax")), ()),
    (32, "o16 mov eax, 5", "mov", (EAX, Imm(5)), ("o16",)),
    (32, "o32 mov ax, 5", "mov", (Reg("ax"), Imm(5)), ("o32",)),
    (32, "o16 nop", "nop", (), ("o16",)),
    (32, "osp nop", "nop", (), ("osp",)),
    (64, "asp nop", "nop", (), ("asp",)),
    (64, "o64 nop", "nop", (), ("o64",)),
    (64, "o64 ret", "ret", (), ("o64",)),
    (64, "o64 push rax", "push", (RAX,), ("o64",)),
    (64, "o64 jmp [rax]", "jmp", (Mem(base="rax"),), ("o64",)),
    (16, "a32 mov cl, [5]", "mov", (Reg("cl"), Mem(disp=5)), ("a32",)),
    (32, "a16 loop $+2", "loop", (Imm(2, relocatable=True),), ("a16",)),
    (32, "a16 jecxz $+2", "jecxz", (Imm(2, relocatable=True),), ("a16",)),
    (32, "repne scasd", "scasd", (), ("repne",)),
    (32, "o32 enter 5, 5", "enter", (Imm(5), Imm(5)), ("o32",)),
    (32, "wait nop", "nop", (), ("wait",)),
    (32, "es wait", "wait", (), ("es",)),
    (32, "lock", "", (), ("lock",)),
    (16, "o32", "", (), ("o32",)),
    (64, "a32 rep", "", (), ("a32", "rep")),
    (32, "bnd ret", "ret", (), ("bnd",)),
    (64, "{rex} mov al, bl", "mov", (Reg("al"), Reg("bl")), ("{rex}",)),
    (64, "lock {rex} add [eax], ecx", "add", (AT_EAX, ECX), ("lock", "{rex}")),
    (32, "{vex3} vaddps xmm0, xmm1, xmm2", "vaddps", (Reg("xmm0"), Reg("xmm1"), Reg("xmm2")), ("{vex3}",)),
    (64, "{vex2} vaddps xmm0, xmm1, xmm2", "vaddps", (Reg("xmm0"), Reg("xmm1"), Reg("xmm2")), ("{vex2}",)),
]


@pytest.mark.parametrize(
    ("bits", "text", "mnemonic", "operands", "prefixes"), PREFIXED, ids=lambda value: str(value)[:40]
)
def test_prefixes_stand_where_nasm_puts_them(
    bits: int, text: str, mnemonic: str, operands: tuple[Operand, ...], prefixes: tuple[str, ...], nasm_lines: NasmLines
) -> None:
    assert [encode(mnemonic, operands, bits, prefixes).data] == nasm_lines([text], bits)


@pytest.mark.parametrize(
    ("bits", "text", "mnemonic", "operands"),
    [
        (32, "add eax, 5", "add", (EAX, Imm(5))),
        (32, "add eax, byte 5", "add", (EAX, Imm(5, 8))),
        (64, "mov rax, 5", "mov", (RAX, Imm(5))),
        (64, "mov rax, -5", "mov", (RAX, Imm(-5))),
        (64, "mov rax, dword 5", "mov", (RAX, Imm(5, 32))),
        (64, "add rax, 5", "add", (RAX, Imm(5))),
        (32, "push 5", "push", (Imm(5),)),
        (32, "push byte 5", "push", (Imm(5, 8),)),
        (32, "jmp $+5", "jmp", (Imm(5, relocatable=True),)),
        (32, "jz $+5", "jz", (Imm(5, relocatable=True),)),
        (32, "imul eax, ecx, 5", "imul", (EAX, ECX, Imm(5))),
        (32, "shl eax, 1", "shl", (EAX, Imm(1))),
        (32, "mov cl, [ebx+5]", "mov", (Reg("cl"), Mem(base="ebx", disp=5))),
    ],
    ids=str,
)
def test_without_optimisation(
    bits: int, text: str, mnemonic: str, operands: tuple[Operand, ...], nasm_lines: NasmLines
) -> None:
    assert [encode(mnemonic, operands, bits, optimise=False).data] == nasm_lines([text], bits, flag="-O0")


@pytest.mark.parametrize(
    ("bits", "text", "mnemonic", "operands"),
    [
        (64, "mov rcx, [rel end]", "mov", (Reg("rcx"), Mem(disp=0, rel=True, relocatable=True))),
        (64, "mov rcx, [rel fs:end]", "mov", (Reg("rcx"), Mem(seg="fs", disp=0, rel=True, relocatable=True))),
        (64, "mov dword [rel end], 5", "mov", (Mem(32, disp=0, rel=True, relocatable=True), Imm(5))),
        (64, "mov rcx, [a32 rel end]", "mov", (Reg("rcx"), Mem(disp=0, addr_size=32, rel=True, relocatable=True))),
        (64, "mov rcx, [rel 0x20]", "mov", (Reg("rcx"), Mem(disp=0x20, rel=True))),
    ],
    ids=str,
)
def test_relative_to_rip(
    bits: int, text: str, mnemonic: str, operands: tuple[Operand, ...], nasm_lines: NasmLines
) -> None:
    [theirs] = nasm_lines([text], bits)
    assert theirs is not None
    target = len(theirs)  # `end` stands right behind the line
    ours = tuple(
        operand._replace(disp=target) if isinstance(operand, Mem) and operand.relocatable else operand
        for operand in operands
    )
    assert encode(mnemonic, ours, bits).data == theirs


def test_default_rel() -> None:
    label = Mem(disp=0x100, relocatable=True)
    assert encode("mov", (EAX, label), 64, default_rel=True).data.hex() == "8b05fa000000"
    assert encode("mov", (EAX, label._replace(rel=False)), 64, default_rel=True).data.hex() == "8b042500010000"
    assert encode("mov", (EAX, label._replace(seg="fs")), 64, default_rel=True).data.hex() == "648b042500010000"
    assert encode("mov", (EAX, label._replace(seg="es")), 64, default_rel=True).data.hex() == "268b05f9000000"


def test_unknown_values_start_as_nasm_starts_them() -> None:
    assert encode("add", (EAX, Imm(None)), 32) == Encoded(b"\x83\xc0\0", (Fixup(2, 1, 1, "abs", True),))
    assert encode("shl", (EAX, Imm(None)), 32).data == b"\xd1\xe0"
    assert encode("jmp", (Imm(None),), 32) == Encoded(b"\xeb\0", (Fixup(1, 1, 0, "rel", True),))
    assert encode("jz", (Imm(None, distance="near"),), 32).data == b"\x0f\x84\0\0\0\0"
    assert encode("call", (Imm(None),), 16) == Encoded(b"\xe8\0\0", (Fixup(1, 2, 0, "rel", False),))
    assert encode("mov", (RAX, Imm(None)), 64).data == b"\xb8\0\0\0\0"
    assert encode("mov", (EAX, Mem(base="ebx", disp=None)), 32) == Encoded(
        b"\x8b\x83\0\0\0\0", (Fixup(2, 4, 1, "disp", False),)
    )
    assert encode("jmp", (Far(None, 0x1234),), 16) == Encoded(b"\xea\x34\x12\0\0", (Fixup(3, 2, 0, "seg", False),))
    assert encode("mov", (Mem(32, disp=None, rel=True), Imm(7)), 64) == Encoded(
        b"\xc7\x05\0\0\0\0\7\0\0\0", (Fixup(2, 4, 0, "rel", True),)
    )


def test_relocatable_values_keep_their_width() -> None:
    label = Imm(5, relocatable=True)
    assert encode("add", (EAX, label), 32) == Encoded(b"\x05\5\0\0\0", (Fixup(1, 4, 1, "abs", False),))
    assert encode("push", (label,), 32).data == b"\x68\5\0\0\0"
    assert encode("mov", (RAX, label), 64).data == b"\x48\xb8\5\0\0\0\0\0\0\0"
    assert encode("mov", (EAX, Mem(base="ebx", disp=5, relocatable=True)), 32).data == b"\x8b\x83\5\0\0\0"
    assert encode("jmp", (Imm(5),), 32).data == b"\xe9\0\0\0\0", "a number is no address of this section"


def test_jumps_grow_at_the_limits_of_a_byte() -> None:
    for mnemonic, near in (("jmp", 5), ("jz", 6)):
        for distance, length in ((129, 2), (130, near), (-126, 2), (-127, near)):
            target = Imm(0x1000 + distance, relocatable=True)
            assert len(encode(mnemonic, (target,), 32, address=0x1000).data) == length, (mnemonic, distance)
    with pytest.raises(EncodeError, match="short jump is out of range"):
        encode("loop", (Imm(130, relocatable=True),), 32)
    with pytest.raises(EncodeError, match="short jump is out of range"):
        encode("jmp", (Imm(130, distance="short", relocatable=True),), 32)


def test_values_that_do_not_fit_are_cut_with_a_warning() -> None:
    assert encode("mov", (Reg("al"), Imm(300)), 32) == Encoded(
        b"\xb0\x2c", (), (("number-overflow", "byte value 0x12c exceeds bounds"),)
    )
    assert encode("add", (EAX, Imm(200, 8)), 32).warnings == (
        ("number-overflow", "signed byte value 0xc8 exceeds bounds"),
    )
    assert encode("mov", (Reg("ax"), Imm(-70000)), 16).warnings == (
        ("number-overflow", "word value -0x11170 exceeds bounds"),
    )
    assert encode("mov", (Reg("al"), Imm(-256)), 32).warnings == ()
    assert encode("mov", (Reg("al"), Imm(-257)), 32).warnings != ()


@pytest.mark.parametrize(
    ("bits", "mnemonic", "operands", "prefixes", "message"),
    [
        (32, "movv", (EAX, ECX), (), "unknown instruction 'movv'"),
        (32, "mov", (EAX, Reg("cl")), (), "invalid combination of opcode and operands"),
        (32, "mov", (EAX, Mem(16, base="ebx")), (), "mismatch in operand sizes"),
        (32, "mov", (AT_EAX, Imm(5)), (), "operation size not specified"),
        (32, "shl", (AT_EAX, Imm(5, 8)), (), "operation size not specified"),
        (32, "movzx", (EAX, AT_EAX), (), "operation size not specified"),
        (64, "push", (EAX,), (), "instruction not supported in 64-bit mode"),
        (32, "push", (RAX,), (), "instruction not supported in 32-bit mode: it has no RAX"),
        (32, "syscall", (EAX,), (), "invalid combination of opcode and operands"),
        (32, "mov", (Reg("r8d"), EAX), (), "invalid operands in non-64-bit mode"),
        (64, "mov", (Reg("ah"), Reg("sil")), (), "cannot use high byte register in rex instruction"),
        (64, "mov", (Reg("ah"), Mem(base="r8")), (), "cannot use high byte register in rex instruction"),
        (32, "mov", (EAX, Mem(base="eax", index="bx")), (), "invalid effective address: the registers differ in size"),
        (
            32,
            "mov",
            (EAX, Mem(base="eax", index="esp", scale=2)),
            (),
            "invalid effective address: ESP cannot be an index",
        ),
        (32, "mov", (EAX, Mem(base="esp", index="esp")), (), "invalid effective address: ESP cannot be an index"),
        (
            16,
            "mov",
            (EAX, Mem(base="bx", index="bp")),
            (),
            "invalid effective address: with 16-bit registers it has BX or BP, SI or DI, or one of each, unscaled",
        ),
        (
            16,
            "mov",
            (EAX, Mem(base="ax")),
            (),
            "invalid effective address: with 16-bit registers it has BX or BP, SI or DI, or one of each, unscaled",
        ),
        (64, "mov", (EAX, Mem(base="bx")), (), "invalid effective address: 64-bit code has none with 16-bit registers"),
        (32, "mov", (EAX, Mem(base="rax")), (), "invalid effective address: RAX exists in 64-bit code alone"),
        (
            32,
            "mov",
            (EAX, Mem(base="eax", index="ecx", scale=7)),
            (),
            "invalid effective address: an index is scaled by 1, 2, 4 or 8",
        ),
        (32, "mov", (EAX, Mem(base="foo")), (), "invalid effective address: FOO cannot stand in one"),
        (64, "mov", (EAX, Mem(disp=5, addr_size=16)), (), "16-bit addresses do not exist in 64-bit mode"),
        (32, "nop", (), ("es", "ss"), "instruction has conflicting prefixes"),
        (32, "nop", (), ("o16", "o32"), "instruction has conflicting prefixes"),
        (32, "nop", (), ("rep", "repne"), "instruction has conflicting prefixes"),
        (32, "nop", (), ("o64",), "prefix of a size that does not exist in 32-bit mode"),
        (64, "nop", (), ("a16",), "prefix of a size that does not exist in 64-bit mode"),
        (32, "nop", (), ("hop",), "hop is no prefix"),
        (32, "add", (Mem(seg="es", base="eax"), ECX), ("fs",), "instruction has conflicting segment overrides"),
        (32, "add", (Reg("foo"), ECX), (), "invalid combination of opcode and operands"),
        (32, "mov", (EAX, Far(1, 2)), (), "invalid combination of opcode and operands"),
    ],
    ids=str,
)
def test_errors(
    bits: int, mnemonic: str, operands: tuple[Operand, ...], prefixes: tuple[str, ...], message: str
) -> None:
    for _ in range(2):  # an error must not be taken from a cache as an answer
        with pytest.raises(EncodeError) as raised:
            encode(mnemonic, operands, bits, prefixes)
        assert raised.value.message == message


def test_an_error_names_the_forms_that_exist() -> None:
    with pytest.raises(EncodeError) as raised:
        encode("bound", (EAX, ECX), 32)
    assert raised.value.forms == ("BOUND r16, m16&16", "BOUND r32, m32&32")


def test_operands_that_look_alike_are_kept_apart() -> None:
    """Operands are tuples: a far pointer and an immediate of equal fields must not share a plan."""
    assert encode("jmp", (Imm(0, relocatable=False),), 16).data == b"\xe9\xfd\xff"
    assert encode("jmp", (Far(0, 0),), 16).data == b"\xea\0\0\0\0"
    assert encode("jmp", (Imm(0, relocatable=False),), 16).data == b"\xe9\xfd\xff"


@pytest.mark.skipif(shutil.which("nasm") is None, reason="nasm is not installed")
@pytest.mark.parametrize("default", ["rel", "abs"])
def test_long_offsets_are_relative_where_nasm_has_them_so(default: str, tmp_path: Path) -> None:
    operands = [
        "rax, [qword there]", "eax, [qword there]", "[qword there], al", "rbx, [qword there]", "rax, [qword abs there]",
        "rax, [qword rel there]", "rax, [qword fs:there]", "rax, [qword there+4]", "rax, [there]",
    ]  # fmt: skip
    lines = ["bits 64", f"default {default}", *(f"mov {text}" for text in operands), "there: dq 0"]
    source = tmp_path / "offsets.asm"
    source.write_text("\n".join(lines) + "\n")
    command = ["nasm", "-w-all", "-f", "bin", "-o", str(tmp_path / "nasm.bin"), str(source)]
    subprocess.run(command, check=True, timeout=60)
    assert asm.assemble_file(source).binary.hex(" ") == (tmp_path / "nasm.bin").read_bytes().hex(" ")
