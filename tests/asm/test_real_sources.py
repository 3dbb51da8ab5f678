"""What real sources hold and a manual's reader would not write: bytes and warnings as NASM has them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import asm
from asm.command.cli import main

NASM = shutil.which("nasm")
needs_nasm = pytest.mark.skipif(NASM is None, reason="nasm is not installed")

# Name: (format, source). What NASM warns of, line by line and class by class, is compared too.
CASES = {
    "displacement before the bracket": (
        "bin",
        "bits 32\nmov eax, foo[ebx]\nmov eax, dword foo[ebx+4]\nmov eax, foo[ebx*4]\nmov eax, 5[ebx]\n"
        "mov eax, (foo+1)[ebx]\nmov eax, foo+4[ebx]\nmov eax, es:foo[ebx]\ncall foo[ebx]\nfoo: dd 0\n",
    ),
    "apostrophes in bodies": (
        "bin",
        "%macro x 0\n%if 0\n don't\n%error can't\n%endif\n%endmacro\n x\n x\n%macro unused 1\n it's\n db `x` ; isn't\n"
        "%endmacro\n%rep 2\n%if 0\n wasn't\n%endif\n%endrep\n%macro e 0\n%warning won't\n%endmacro\n e\n db 1\n",
    ),
    "negative data": (
        "bin",
        "".join(
            f" d{name} {sign}{1 << n} {more}\n"
            for name, n in (("b", 8), ("w", 16), ("d", 32)) for sign in ("-", "") for more in ("- 1", "+ 0", "+ 1")
        ) + " times 8 dw -0xcc87\n db -129\n",
    ),
    "mnemonics that are macros": (
        "bin", "%macro push 2-*\n%rep %0\n push %1\n%rotate 1\n%endrep\n%endmacro\n push ax, bx\n push ax\n push ax\n",
    ),
    "pasting a parameter that is a number": (
        "bin",
        "%define m0 ax\n%define m1 bx\n%define of_ax 1\n%macro h 1\n%xdefine mX m%+%1\n%assign %%i of_%+mX\n"
        "%define mX m%+%%i\n mov mX, 1\n db %1%+%1\n%endmacro\nh 0\n",
    ),
    "negated addresses": ("bin", "org 0x100\n nop\nx: dd -x\n dw -x\n dd 5-x\n mov ax, -x\nsection .b\ny: dd -y\n"),
    "negated addresses in an object": ("elf32", " nop\nx: dd -x\n dd 5-x\n mov eax, -x\nsection .b\ny: dd -y\n"),
    "packages and the size of an address": (
        "bin",
        "%ifusing altreg\n db 1\n%endif\n%ifusable altreg\n db 2\n%endif\n%ifusable nosuch\n db 3\n%endif\n"
        "%use altreg\n%ifusing altreg\n db 4\n%endif\n%ipathsearch P 'x'\n db p\n mov __?PTR?__ [bx], 5\n"
        "bits 32\n mov __PTR__ [ebx], 5\n%ifdef __DEBUG_FORMAT__\n db 9\n%endif\n",
    ),
    "base and index apart": ("bin", "bits 32\nmov [eax,ecx], ebx\nmov eax, [eax+8,ecx*4]\nmov al, [ebx,esi]\n"
        "mov eax, [ecx*1+ebx*1+4]\nmov eax, [ebp*1+ecx*1]\nmov eax, [ecx*1+ebx]\nmov eax, [ebx+ecx*1]\n"),
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
    "macro that looks at its parameter": (
        "bin",
        "%macro m 1\n%if %1 = cs\n db 1\n%elif %1 <> ax\n db 2\n%elif ax*2 == ax+ax\n db 3\n%endif\n%endmacro\n"
        " m cs\n m ax\n m eax\nsection .a\nx:\nsection .b\ny: db x = y, x != y, y == y, z = 3\nz equ 3\n",
    ),
    "operand size that the prefix alone gives": (
        "bin",
        "o32 call far [si]\no16 jmp far [si]\no32 push byte 1\no32 push 1\no32 call bx\no32 push word [si]\n"
        "o32 jmp [si]\n",
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
    "macros named in parts": (
        "bin",
        "%macro forms 2-*\n%push p\n%xdefine %$prefix %1\n%rep %0-1\n%macro %$prefix%2 1\ndb '%?', %1\n%endmacro\n"
        "%rotate 1\n%endrep\n%pop\n%endmacro\nforms aa, pd, ps\naapd 5\naaps 6\n"
        "%macro d 1\n%push q\n%define %$x%1 4\n%assign %$y 3\n db %$x%1, %$y\n%pop\n%endmacro\nd 1\n",
    ),
    "repeated 32 bits' worth": (
        "bin", "times 1<<32 db 4\ntimes (1<<32)+2 db 5\na: times ((a-$)>>31)+1 db 8\nnop\ntimes ((a-$)>>31)+1 db 9\n",
    ),
    "labels of smartalign": (
        "elf32",
        "bits 32\n%use smartalign\n%macro m 0\n%%a: nop\n%endmacro\nm\nalign 16, db 4\nm\nalign 8\nm\nalignb 4\n"
        "m\nalign 16\ntimes 3 nop\nalignmode p6, 4\nalign 16\nm\n",
    ),
    "numbers with a point": (
        "bin",
        "dd 0x1.8, 0x1.8p3, $1.8p+1, 0b1.1, 0d3.5e+1, 0t3.5, 1e+1_0, 1_0.5e1_0\ndt 98765432109876543210p, 0p12\n"
        "%use fp\nbf16 1.5, Inf\n",
    ),
    "text in UTF-16": ("bin", "dw __utf16__ `\\xe3\\x81\\xaa`, __utf16le__('ab')\n%assign x __?ilog2f?__(9)\ndb x\n"),
    "space without contents": ("elf32", "section .bss\na: db ?\nb: dw ?, ?\nc: dd 4 dup (?)\nd:\n"),
    "uninitialised in the code": ("bin", "db ?\ndw 3 dup (?)\nresb 2\n"),
    "entries of the module's own symbols": (
        "elf64",
        "global foo\nfoo: nop\nmov eax, [foo wrt ..got]\nmov rax, [qword foo wrt ..got]\n"
        "dq foo wrt ..sym\n",
    ),
    "hints of lock elision": (
        "bin",
        "bits 32\nmov [5], eax\nxrelease mov [5], eax\nxacquire mov [ebx], eax\nxacquire add [ebx], eax\n"
        "xacquire lock add [ebx], eax\nxrelease lock mov [eax], ecx\nxacquire xchg [ebx], eax\n"
        "xacquire add ecx, [eax]\n"
        "xrelease lock dec dword [ebx]\nxrelease inc eax\n",
    ),
    "operand sizes that contradict": (
        "bin",
        "bits 32\no16 push eax\no32 push ax\no16 mov ax, bx\no32 mov ax, bx\no16 movsb\no16 ret\nbits 64\n"
        "o16 push rax\no64 mov rax, rbx\no32 mov rax, [rbx]\n",
    ),
    "a directive is a macro": (
        "bin", "%ifmacro org\ndb 1\n%endif\n%ifmacro section 1\ndb 2\n%endif\n%ifmacro align 5\ndb 3\n%endif\n"
        "%ifmacro nothing\ndb 4\n%endif\n",
    ),
    "attributes of other formats": ("bin", "section .text code\nnop\nsection .x progbits rdata\nnop\n"),
    "section names in quotes": ("elf32", "section \".data\"\ndb 1\n"),
    "a variable that is not set": ("bin", "db '%!NOT_SET', %!NOT_SET 5\n%ifenv NOT_SET\ndb 1\n%endif\n"),
    "addresses that are cut": (
        "bin",
        "org 0x10000\ndb foo\ndw foo\nmov al, foo\nmov byte [foo], foo\nmov ax, foo+70000\ndb 300, foo-$$\n"
        "mov al, foo-$$\npush byte foo\ntimes 300 db 0\nfoo:\n",
    ),
    "a label named ptr": ("bin", "bits 32\nmov eax, dword ptr\nmov eax, [ptr]\nptr: ret\n"),
    "registers times nothing": (
        "bin",
        "bits 32\nmov eax, [ebx+0*ecx]\nmov eax, [0*ecx]\nmov eax, [ecx*0+5]\nmov eax, [ecx+ecx*0]\n"
        "mov eax, [ecx*0+foo]\nmov eax, [ecx-ecx+foo]\nmov eax, [ebx+ecx*0+foo]\nfoo:\n",
    ),
    "order of registers where numbers are added": (
        "bin",
        "bits 64\nnop\nfoo:\nmov eax, [rdx+rcx+32]\nmov eax, [rdx+rcx+32+16]\nmov eax, [rdx+rcx+(48+3)]\n"
        "mov eax, [rdx+rcx+foo+4]\nmov eax, [rdx+rcx+foo]\nmov eax, [rdx+rcx+0+16]\nmov eax, [rdx+rcx+4*4]\n"
        "mov eax, [rdx+rcx+(16-8)*2]\nmov eax, [r9+r10+8+8]\nmov eax, [rbp+rax+8+8]\nmov eax, [rcx*1+rdx+48+3]\n"
        "mov eax, [32+16+rdx+rcx]\nmov eax, [rdx+32+rcx+16]\nmov eax, [rdx+rcx*2+8+8]\nmov eax, [rsp+rax+8+8]\n"
        "mov eax, [rsi+rbx+x+4]\nx equ 8\nbits 32\nmov eax, [esi+ebp+8+8]\nmov eax, [esp+eax+8+8]\n"
        "bits 16\nmov ax, [si+bx+8+8]\nmov ax, [di+bp+8-3]\n",
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


def test_code_sizes_that_a_processor_does_not_have() -> None:
    source = "cpu 286\nbits 16\nuse32\ncpu 386\nbits 32\nbits 64\ncpu x64\nbits 64\n"
    with pytest.raises(asm.AsmError) as caught:
        asm.assemble(source)
    assert [error.line for error in caught.value.errors] == [3, 6]


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
