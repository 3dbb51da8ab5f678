"""What the preprocessor makes of short sources, each compared with what NASM -E prints for it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import asm
from asm.command.cli import main

NASM = shutil.which("nasm")

CASES = {
    "aliases": "%defalias foo bar\n%define foo 3\n db foo, bar\n%undefalias foo\n%ifdef foo\n db 0\n%endif\n db bar\n",
    "aliases off": "%define bar 3\n%defalias foo bar\n%aliases off\n db foo\n",
    "conditional comma": "%define g(a,b,c+) a %, b * 3 %, c\n db g(1,2)\n db g(1,2,3)\n db g(1,2,3, 4)\n",
    "names of the macro": "%imacro Foo 0\n%idefine Bar _%?\n%idefine Baz _%*?\n db '%?', %?, %??\n dw BAR, BAZ\n"
    "%endmacro\n"
    " fOO\n",
    "name in an argument": "%define label(a, b) a %+ b\n mov ax, label(%??, _1)\n",
    "parameters hide macros": "%define d 7\n%xdefine f(d) d + 1\n db f(2)\n",
    "number without a width": " db %num(1920,,16), %num(5), %abs(-3)\n",
    "name of several parts": "%push a\n%assign %$n 2\n%assign %$x%$n 5\n db %$x2, %$x%$n\n%pop\n",
    "empty parameters": "%macro one 1\n db %0, %1, 1\n%endmacro\n%macro two 1-3 5,6\n db %0, %1, %2\n%endmacro\n"
    "%define E\n"
    " one 1,\n one E\n two 1,\n two 1,2,\n two 1,E\n",
    "sane empty parameters": "%pragma preproc sane_empty_expansion yes\n%macro two 1-3 5,6\n db %0, %{2}1\n%endmacro\n"
    " two 1,\n",
    "too many defaults": "%macro m 1 a\n %warning %0 %1 %2\n%endmacro\n m x\n",
    "after else": "%if 0\n db 1\n%else\n db 2\n%elif 1\n db 3\n%else\n db 4\n%endif\n db 5\n",
    "braces keep blanks": "%macro m 2\n db %1|%2|\n%endmacro\n m { 1 }, 2 \n",
    "utf without parentheses": "dw __utf16__ 'ab'\n",
    "lines": 'nop\n%line 5+2 b.asm\nnop\nnop\n%line 1 "c d.asm" 1 2\nnop\n%line 9\n db __LINE__\n'
    "%line 20-1\n db __LINE__\n",
    "continued": "%define x 1 \\\n + 2\n db x, \\\n  3\n\n\n nop\n",
    "structures": "struc s\n.a: resb 2\nendstruc\nx: istruc s\nat .a, dw 5\niend\n align 4\n alignb 8, db 1\n"
    "section .data\n",
    "lists of names": "extern a, b\n global c : function, d\n common e 4:8,f 2\nfloat daz, up\n",
    "local labels": "%macro m 0\n%%x: jmp %%x\n%endmacro\n m\nlab m\n lab2: m\n%push c\n%$y: jmp %$y\n%pop\n",
    "packages": "%use ifunc\n%use fp\n db ilog2(8), Inf\n%use smartalign\nalignmode k8, 32\n align 16\n",
    "assembler": " BITS 32\n[bits 16]\ndefault rel\n use32\n cpu 386\n org 5\n incbin 'part.inc', 1, 2\n"
    "%pragma asm x\n",
    "alternatives": "%if 0\n nop\n%elif 1\n ret\n\n%endif\n%rep 2\n inc ax\n\n dec ax\n%endrep\n",
    "single-line macros with other parameters": "%define f(a,b) a+b\n%define h() 3\n db f(1), h(1), h(), f(1,2)\n",
    "undefined with a word too many": "%define a 1\n%undef a b\n db a\n",
}


@pytest.mark.skipif(NASM is None, reason="nasm is not installed")
@pytest.mark.parametrize("name", CASES)
def test_preprocessed_as_nasm(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("part.inc").write_text(" db 5\n")
    Path("t.asm").write_text(CASES[name])
    theirs = subprocess.run([str(NASM), "-E", "t.asm"], capture_output=True, text=True, check=False)
    assert main(["-E", "t.asm"]) == theirs.returncode, theirs.stderr
    ours = capsys.readouterr()
    assert ours.out == theirs.stdout
    assert classes(ours.err) == classes(theirs.stderr)


def test_a_required_file_is_read_once(tmp_path: Path) -> None:
    """As the manual has it; NASM 2.16.01 itself reads it again."""
    (tmp_path / "part.inc").write_text("db 5\n")
    program = asm.assemble("%require 'part.inc'\n%require 'part.inc'\n", include=[tmp_path])
    assert program.binary == bytes([5])


def classes(messages: str) -> list[tuple[str, str]]:
    """Line and class of each warning."""
    return sorted(re.findall(r"^[^:\n]*:(\d+)(?::\d+)?: warning: .*\[-w\+([\w-]+)\]$", messages, re.MULTILINE))
