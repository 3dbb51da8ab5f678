"""What real sources hold and a manual's reader would not write: bytes and warnings as NASM has them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import asm
from asm.cli import main

NASM = shutil.which("nasm")
needs_nasm = pytest.mark.skipif(NASM is None, reason="nasm is not installed")

# Name: (format, source). What NASM warns of, line by line and class by class, is compared too.
CASES = {
    "displacement before the bracket": (
        "bin",
        "bits 32\nmov eax, foo[ebx]\nmov eax, dword foo[ebx+4]\nmov eax, foo[ebx*4]\nmov eax, 5[ebx]\n"
        "mov eax, (foo+1)[ebx]\nmov eax, foo+4[ebx]\nmov eax, es:foo[ebx]\ncall foo[ebx]\nfoo: dd 0\n",
    ),
    "base and index apart": ("bin", "bits 32\nmov [eax,ecx], ebx\nmov eax, [eax+8,ecx*4]\nmov al, [ebx,esi]\n"),
    "lea of a name": ("bin", "bits 32\nlea eax, foo\nlea eax, 5\nlea ebx, [foo]\nfoo:\nbits 64\nlea rax, foo\n"),
    "labels like keywords": (
        "bin",
        "do: jmp dq+2\n dw do, add, sub, dq\nadd: jmp add-2\nsub: jmp near sub\ndq: call dq\nrest: mov ax, [rest]\n",
    ),
    "type behind an alignment": ("bin", "nop\nsection .stack align=16 nobits\nstack resb 512\n"),
    "distance from here": (
        "elf32",
        "extern ext\nref: nop\nadd ebx, ext - ref\nadd ebx, ext - $\nmov ebx, ext - ref\nlea eax, [ext-$$]\n"
        "lea eax, [edi+ext-ref]\ndd ext - ref\nadd edx, byte (ext-$$)\n",
    ),
    "distance from here in 64 bits": (
        "elf64",
        "default rel\nmov eax, [baz - $]\nmov eax, [abs baz - $]\nmov ebx, [rbx + baz - $]\nmov ecx, baz - $\n"
        "section .data\nbaz: dd 1\n",
    ),
    "distance between sections": ("bin", "bits 32\nmov eax, [baz - $]\nmov ecx, baz - $\nsection .data\nbaz: dd 1\n"),
    "wide address in a narrow object": ("elf32", "bits 64\nmov rsi, msg\nsection .data\nmsg: db 1\n"),
    "nothing relative to RIP": (
        "bin",
        "bits 64\ndefault rel\nmov eax, [5]\nmov eax, [rel 5]\nmov rax, [abs 5]\nmov eax, [fs:5]\nmov ecx, [rel x]\n"
        "x equ 7\n",
    ),
    "short addresses in 64 bits": (
        "bin",
        "bits 64\nmov al, [a32 foo]\nmov al, [a32 5]\nmov al, [a32 fs:5]\na32 mov al, [foo]\nmov [a32 foo], rax\n"
        "mov bl, [a32 foo]\nmov al, [a32 qword 5]\nfoo:\n",
    ),
    "displacement sizes that mean nothing": (
        "bin", "bits 32\nmov eax, [byte 5]\nmov eax, [word 5]\nmov ebx, [dword 5]\nmov [byte 5], ebx\nbits 16\n"
        "mov ax, [byte 5]\nmov bx, [byte 5]\nbits 64\nmov rax, [byte 5]\nmov rax, [qword 5]\nmov rbx, [qword 5]\n",
    ),
    "extended bytes": (
        "bin", "bits 32\nand edi, 0FFFFFFF8h\nand dx, 0FFFBh\nxor ecx, 0xffffffff\npush byte 0FFh\nadd al, 300\n"
        "cmp eax, 0x1_ffff_ffff\n",
    ),
    "prefixes that mean nothing": (
        "bin", "bits 32\nlock mov eax, ebx\nlock add [ebx], eax\nlock add eax, [ebx]\nlock xchg eax, [ebx]\n"
        "lock xchg [ebx], eax\nlock nop\nlock inc dword [5]\nbits 64\nmov ax, [es:ebx]\nes mov ax, [ebx]\n"
        "mov ax, [fs:ebx]\n",
    ),
    "warnings switched": (
        "bin",
        "[warning push]\n[warning -user]\n%warning a\n[warning pop]\n%warning b\ndb 300\n[warning -number-overflow]\n"
        "db 300\n[warning *number-overflow]\ndb 300\n[warning pop]\nmov al, 300\n[warning -all]\nmov al, 300\nlone\n",
    ),
}  # fmt: skip


def classes(messages: str) -> list[tuple[str, str]]:
    """Line and class of each warning."""
    return sorted(set(re.findall(r"^[^:\n]*:(\d+)(?::\d+)?: warning: .*\[-w\+([\w-]+)\]$", messages, re.MULTILINE)))


@needs_nasm
@pytest.mark.parametrize("name", CASES)
def test_as_nasm(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output, source = CASES[name]
    monkeypatch.chdir(tmp_path)
    Path("t.asm").write_text(source)
    theirs = subprocess.run(
        [str(NASM), "-f", output, "-o", "theirs", "t.asm"], capture_output=True, text=True, check=False
    )
    assert theirs.returncode == 0, theirs.stderr
    assert main(["-f", output, "-o", "ours", "t.asm"]) == 0
    assert Path("ours").read_bytes().hex(" ") == Path("theirs").read_bytes().hex(" ")
    assert classes(capsys.readouterr().err) == classes(theirs.stderr)


def test_a_global_symbol_is_no_more_than_global_in_a_flat_binary() -> None:
    """The fault is where the symbol is defined, which may be nowhere."""
    assert asm.assemble("global a:function\nnop\n").binary == b"\x90"
    with pytest.raises(asm.AsmError) as caught:
        asm.assemble("global a:function\nnop\na: nop\n")
    assert [error.line for error in caught.value.errors] == [3]


def test_bytes_that_are_no_text_come_out_as_they_are(tmp_path: Path) -> None:
    import sys

    (tmp_path / "t.asm").write_bytes(b"%error \xfe\xffabc\n")
    command = [sys.executable, "-m", "asm", "t.asm"]
    environment = {"PYTHONPATH": str(Path(asm.__file__).parents[1]), "LC_ALL": "C"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert result.stderr.splitlines()[0] == b"t.asm:1:1: error: \xfe\xffabc"


def test_long_lines_and_messages_are_cut() -> None:
    with pytest.raises(asm.AsmError) as caught:
        asm.assemble(f"%error {'x' * 5000}\nnop {'a' * 5000} b\n")
    assert max(len(line) for error in caught.value.errors for line in str(error).split("\n")) < 350
