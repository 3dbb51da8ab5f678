"""The listing with the letters of -L, and of a source with errors, as NASM writes it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from asm.command.cli import main

NASM = shutil.which("nasm")
needs_nasm = pytest.mark.skipif(NASM is None, reason="nasm is not installed")
SOURCE = """\
%define X 5
%define F(a,b) a+b
%idefine Low 3
%xdefine XX X
%assign N 5+6
%macro a 1-2+ 5
 db %1,%2
%endmacro
lab a 6
 a 7,8,9
lab2: a {1,2}, 'x y'
%macro z 0
 nop
%endmacro
 z
%rep 2
 a X
%endrep
%rep .nolist 2
 a Low
%endrep
 db F(1,2), Low, XX, N ; a comment
%push c
%define %$q 4
%$l: db %$q
%pop
%undef X
 times 20 db 1
 incbin "t.inc"
 resb 100
%include "t.inc"
[list -]
 nop
[list +]
 nop
%macro nl 1.nolist
 db %1
 db %1+1
%endmacro
 nl 5
%line 100+1 other.asm
 nl 6
"""


def listings(options: list[str], before: str = "") -> tuple[str, str]:
    """NASM's and ours, without what NASM defines itself."""
    source = before + SOURCE
    if {"f", "s"}.intersection("".join(options)):  # incbin is a macro to NASM, whose lines and names show then
        source = source.replace('incbin "t.inc"', "nop")
    Path("t.asm").write_text(source)
    Path("t.inc").write_text(" db 2 ; included\n")
    command = ["-w-all", "-o", "t.bin", "-l", "t.lst", *options, "t.asm"]
    subprocess.run([str(NASM), *command], check=True, timeout=60)
    theirs = Path("t.lst").read_text()
    assert main(command) == 0
    lines = [line for line in theirs.splitlines() if not line.startswith("     0 ")]
    return "\n".join(lines), Path("t.lst").read_text().rstrip("\n")


@needs_nasm
@pytest.mark.parametrize("letters", ["", "d", "e", "f", "m", "s", "me", "mef", "df", "sme", "pw"])
def test_letters(letters: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    theirs, ours = listings([f"-L{letters}"] if letters else [])
    assert ours == theirs


@needs_nasm
def test_letters_that_the_source_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    theirs, ours = listings(["-Le"], "%pragma list options +md-e\n")
    assert ours == theirs


@needs_nasm
def test_a_source_with_errors_has_a_listing_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.asm").write_text(" nop\n jmp short x\n times 200 db 1\nx:\n mov ax, y\n")
    command = ["-o", "t.bin", "-l", "t.lst", "t.asm"]
    assert main(command) == 1
    ours = Path("t.lst").read_text()
    assert "     1 00000000 90                       nop\n" in ours
    assert f"     2          {'*' * 18}       error: short jump is out of range\n" in ours
    assert f"     5          {'*' * 18}       error: symbol `y' not defined\n" in ours
    assert not Path("t.bin").exists()


def test_all_letters_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.asm").write_text("%define X 1\n db X\n")
    assert main(["-l", "t.lst", "-L+", "t.asm"]) == 0
    assert Path("t.lst").read_text().splitlines()[1:] == [
        "     1                                   ;;; %define X 1",
        "     2                                   db X",
        "     2 00000000 01                       ;;;  db 1",
    ]
