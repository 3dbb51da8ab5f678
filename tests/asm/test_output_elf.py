"""Relocatable objects: the same files as NASM's; ld links them and gdb steps through their source."""

import shutil
import subprocess
from pathlib import Path

import pytest

import asm
from asm.command.cli import main
from asm.options import Options
from asm.output import elf
from asm.program import run

OBJECTS = Path(__file__).parent / "objects"
NASM, LD, GDB = (shutil.which(name) for name in ("nasm", "ld", "gdb"))
needs_nasm = pytest.mark.skipif(NASM is None, reason="nasm is not installed")

PROGRAM = """\
%macro write 2
        mov     eax, 4
        mov     ebx, 1
        mov     ecx, %1
        mov     edx, %2
        int     0x80
%endmacro
global _start
section .text
_start: write   hello, hello.end - hello
        call    other
        mov     eax, 1
        mov     ebx, 42
        int     0x80
section .other exec
other:  nop
        ret
section .data
hello:  db      'hi', 10
.end:
"""


@needs_nasm
@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("symbols32", "elf32"),
        ("symbols64", "elf64"),
        ("sections", "elf32"),
        ("sections", "elf64"),
        ("symbols32", "elf"),
        ("attributes", "elf32"),
        ("attributes", "elf64"),
        ("wrt32", "elf32"),
        ("wrt64", "elf64"),
    ],
)
def test_objects_are_nasms(name: str, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(OBJECTS)
    theirs, ours = tmp_path / "theirs.o", tmp_path / "ours.o"
    command = [str(NASM), "-w-all", "-f", output, "-o", str(theirs), f"{name}.asm"]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    assert main(["-w-all", "-f", output, "-o", str(ours), f"{name}.asm"]) == 0
    assert ours.read_bytes().hex(" ") == theirs.read_bytes().hex(" ")


@pytest.mark.skipif(LD is None, reason="ld is not installed")
@pytest.mark.parametrize(("output", "emulation"), [("elf32", "elf_i386"), ("elf64", "elf_x86_64")])
def test_a_program_links_runs_and_is_debugged(
    output: str, emulation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("program.asm").write_text(PROGRAM)
    assert main(["-g", "-f", output, "-o", "program.o", "program.asm"]) == 0
    subprocess.run([str(LD), "-m", emulation, "-o", "program", "program.o"], check=True, timeout=60)
    ran = subprocess.run(["./program"], capture_output=True, check=False, timeout=60)
    assert (ran.returncode, ran.stdout) == (42, b"hi\n")
    if GDB is None:
        pytest.skip("gdb is not installed")
    steps = ["break _start", "run", "next", "step", "step", "info line"]
    command = [GDB, "-batch", "-nx", *(word for step in steps for word in ("-ex", step)), "./program"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
    assert "_start () at program.asm:10" in said
    assert "11\t        call    other" in said
    assert "17\t        ret" in said
    assert 'Line 17 of "program.asm" starts at address' in said


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is not installed")
def test_repeated_lines_are_their_own_and_a_macros_its_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lines.inc").write_text("%macro twice 0\n inc eax\n%rep 2\n dec eax\n%endrep\n%endmacro\n")
    Path("lines.asm").write_text('%include "lines.inc"\n nop\n%rep 2\n inc edx\n twice\n%endrep\n ret\n')
    assert main(["-g", "-f", "elf64", "-o", "lines.o", "lines.asm"]) == 0
    command = ["readelf", "--debug-dump=decodedline", "lines.o"]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    rows = [line.split() for line in said.splitlines() if line.startswith("lines.asm") and " 0" in line]
    assert [int(row[1]) for row in rows if row[1].isdecimal()] == [2, 4, 5, 5, 5, 4, 5, 5, 5, 7]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("extern a\nextern b\ndd a + b", "not simple or relocatable"),
        ("extern a\ndw 5, a wrt ..got", "has no 16-bit relocation with `wrt ..got'"),
        ("extern a\ndd a wrt ..nonsense", "has no 32-bit relocation with `wrt ..nonsense'"),
        ("extern a\ndd a wrt ..plt", "has no 32-bit relocation with `wrt ..plt' for an address"),
        ("extern a\nmov eax, [a + 4 wrt ..got]", "wants the symbol itself"),
        ("extern a\ndd (a wrt ..sym) + 4", "expected `)'"),
        ("section .symtab\n", "reserved section name"),
        ("common a 4:0", "is not a power of two"),
        ("common a 4\na: nop", "`a' inconsistently redefined"),
        ("extern a\ncommon a 4", "`a' inconsistently redefined"),
        ("static a:weak\na: nop", "weak and strong only"),
        ("global a:function b\na: nop", "`b' not defined"),
        ("global a:function a\na: nop", "cannot use relocatable"),
        ("..start: nop", "unrecognised special symbol `..start'"),
        ("global missing\ncall missing", "`missing' not defined"),
        ("absolute 5\nnop", "attempt to assemble code in [ABSOLUTE] space"),
        ("x: nop\nabsolute x\ndb 1", "attempt to assemble code in [ABSOLUTE] space"),
        ("absolute y\ny: nop", "`y' not defined before use"),
        ("struc s\n.a: db 1\nendstruc", "attempt to assemble code in [ABSOLUTE] space"),
        ("org 0x100", "elf32 has no `org'"),
        ("global a:function 3 +\na:", "unexpected"),
        ("section .a merge\n", "merge specified without an entry size"),
        ("section .a align=3\n", "not a power of two"),
        ("common a 4:3", "is not a power of two"),
        ("a equ 5\ndd seg a", "segment base"),
    ],
)
def test_what_an_object_cannot_say(source: str, message: str) -> None:
    with pytest.raises(asm.AsmError) as caught:
        run("t.asm", source, Options(bits=32, output_format="elf32"))
    assert message in str(caught.value)


def test_sections_that_the_header_cannot_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elf, "MAX_SECTIONS", 3)
    source = "section .a\ndd x\nsection .b\nx: dd 1\n"
    assert run("t.asm", source, Options(bits=32, output_format="elf32")).binary
    with pytest.raises(asm.AsmError, match="at most 3 sections"):
        run("t.asm", source + "section .c\ndd 2\n", Options(bits=32, output_format="elf32"))


def test_a_global_symbol_that_is_nowhere_is_warned_of() -> None:
    program = run("t.asm", "global mian\nmain: nop\n", Options(bits=32, output_format="elf32"))
    assert [(w.severity, w.line, w.message) for w in program.warnings] == [
        ("warning", 1, "symbol `mian' is declared global but not defined; did you mean `main'?")
    ]


@needs_nasm
@pytest.mark.parametrize("output", ["ith", "srec"])
def test_text_forms_of_an_image_are_nasms(output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, text in enumerate(
        (
            "org 0x7c00\ntimes 20 db 1, 2, 3\nsection .data vstart=0x9000 align=64\ndb 'hello'\n",
            "org 0x1fff0\ntimes 40 db 7\n",
            "org 0xfff0ff00\ntimes 300 db 0x5a\n",
        )
    ):
        source = Path(f"t{number}.asm")
        source.write_text(text)
        subprocess.run([str(NASM), "-f", output, "-o", "theirs", source.name], check=True, timeout=60)
        assert main(["-f", output, "-o", "ours", source.name]) == 0
        assert Path("ours").read_text() == Path("theirs").read_text()
