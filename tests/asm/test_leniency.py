"""What NASM takes although it looks wrong, and what it refuses: the same here, with a warning where data is lost."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import asm
from asm.options import Options
from asm.program import run

pytestmark = pytest.mark.skipif(shutil.which("nasm") is None, reason="nasm is not installed")

WARNED = sorted((Path(__file__).parent / "warned").glob("*.asm"))


def nasm(text: str, folder: Path) -> bytes | None:
    """NASM's bytes, or None where it refuses the source."""
    source, binary = folder / "source.asm", folder / "nasm.bin"
    binary.unlink(missing_ok=True)
    source.write_text(text)
    command = ["nasm", "-f", "bin", "-o", str(binary), str(source)]
    result = subprocess.run(command, capture_output=True, check=False, timeout=60)
    return binary.read_bytes() if result.returncode == 0 else None


def ours(text: str) -> bytes | None:
    try:
        return asm.assemble(text).binary
    except asm.AsmError:
        return None


@pytest.mark.parametrize(
    "text",
    [
        "db 'a' 'b'", "db 1 2, 3", "db 1, 2 3, 4", "x: dw x x", "db 1 + 2 3", "db 3 dup (4 5, 6), 7",
        "db (1) 2", "db 1 $", "times 2 db 1 2", "%if 1 2\ndb 10\n%endif", "%assign x 1 2\ndb x",
        "%rep 2 3\ndb 1\n%endrep", "%push a b\n%ifctx a\ndb 3\n%endif\n%pop a c",
        "%macro m 1-2\ndb 4\n%endmacro\n%ifmacro m 1 more\ndb 5\n%endif", "loopne 0x1000", "jmp short -5000",
    ],
)  # fmt: skip
def test_what_is_left_out_is_warned_of(text: str, tmp_path: Path) -> None:
    program = asm.assemble(text)
    assert program.binary == nasm(text, tmp_path)
    assert {warning.warning for warning in program.warnings} <= {"other", "pp-trailing", "number-overflow"}
    assert program.warnings


@pytest.mark.parametrize(
    "text",
    [
        "%ifdef a b\n%endif\ndb 1", "%ifndef a b\ndb 2\n%endif", "%ifdef a,b\n%endif", "%ifdef 3\n%endif",
        "%ifmacro a b\n%endif", "%ifmacro a,b\n%endif", "db ? 1", "dd 1.5 2", "db 1 (2)", "db 3 dup (4) 5",
        "db 1 2 dup (3)", "%macro q\n%endmacro", "%macro q 1-\n%endmacro", "jmp cs:x\nx:", "mov eax, eax:5",
        "bits 64\npinsrb xmm1, bh, 0", "bits 64\n{vex2} vaddps xmm0, xmm1, xmm9", "{vex} mov eax, ebx",
        "bits 32\n{rex} mov eax, ebx", "{rex} vaddps xmm0, xmm1, xmm2", "bits 64\n{rex} mov al, ah",
        "%macro m 1\n%1 db 5\n%endmacro\nm {rex}:\ndb rex - $", "db (1, 2)", "db (?)", "dd (1.5)", "db (2 dup (3))",
        "%macro m 2222222222\n%endmacro",
        "mov ax, [bx+", "mov [5+, ax", "do 5", "dy 5",
        "%macro m 2\ndb %{-1}\n%endmacro\nm 1, 2",
    ],
)  # fmt: skip
def test_what_nasm_refuses_is_refused(text: str, tmp_path: Path) -> None:
    assert ours(text) == nasm(text, tmp_path)


def test_no_branch_of_a_wrong_condition_is_read() -> None:
    with pytest.raises(asm.AsmError) as caught:
        asm.assemble("%ifdef a,b\nmov\n%elif 1\nmov\n%else\nmov\n%endif\nmov")
    assert [error.line for error in caught.value.errors] == [1, 8]


def test_a_null_byte_and_the_end_of_a_file_in_dos_end_lines(tmp_path: Path) -> None:
    text = "db __LINE__\0 db __LINE__\x1a\x1a db __LINE__ ; \0 db __LINE__\ndb '\x01', __LINE__\n\x1a"
    assert ours(text) == nasm(text, tmp_path) is not None


@pytest.mark.parametrize("source", WARNED, ids=lambda path: path.stem)
def test_warnings_are_nasms(source: Path, tmp_path: Path) -> None:
    """The same classes on the same lines."""
    command = ["nasm", "-f", "bin", "-w+all", "-o", str(tmp_path / "nasm.bin"), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    program = run(str(source), source.read_text(), Options(warnings={"all": True}))
    theirs = sorted({(int(line), name) for line, name in re.findall(r":(\d+): warning: .*\[-w\+(.*)\]", result.stderr)})
    assert sorted({(warning.line, warning.warning) for warning in program.warnings}) == theirs
    assert program.binary == (tmp_path / "nasm.bin").read_bytes()


@pytest.mark.parametrize(
    "attributes",
    [
        "vstart=100 align=16", "start=0x100 vstart=0x200", "vstart=0x200", "follows=.text", "valign=8 align=16",
        "follows=.text vstart=0x200", "vfollows=.text align=4", "vfollows=.text",
    ],
)  # fmt: skip
def test_real_and_virtual_attributes_of_a_nobits_section(attributes: str, tmp_path: Path) -> None:
    text = f"section .text\nnop\nsection foo nobits {attributes}\nx: resb 4\nsection .text\ndd x\n"
    assert ours(text) == nasm(text, tmp_path)


def test_line_numbers_are_those_that_the_source_sets() -> None:
    program = asm.assemble("%line 10+1 a.c\ndb __LINE__\ndb __LINE__\n%line 20+0\ndb __LINE__\ndb __LINE__\n"
                           "%line 30+5\ndb __LINE__\ndb __LINE__\n")  # fmt: skip
    assert list(program.binary) == [11, 12, 20, 20, 35, 40]
