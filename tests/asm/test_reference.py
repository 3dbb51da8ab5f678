"""docs/assembler_reference.md: every directive is there, and each example gives NASM's bytes."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from asm.directives import DIRECTIVES
from asm.options import Options
from asm.preprocessor import functions
from asm.preprocessor.conditions import CONDITIONS
from asm.preprocessor.percent_directives import DIRECTIVES as PERCENT_DIRECTIVES
from asm.preprocessor.predefined import USE_PACKAGES
from asm.program import run
from asm.tokens import DATA, RESERVE

PAGE = (Path(__file__).parents[2] / "docs" / "assembler_reference.md").read_text()
EXAMPLES = re.findall(r"^```nasm([^\n]*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
NASM = shutil.which("nasm")


def test_every_directive_is_on_the_page() -> None:
    names = [*DIRECTIVES, *DATA, *RESERVE, "times", "equ", "incbin"]
    names += [
        f"%{name}" for name in (*PERCENT_DIRECTIVES, *functions.PERCENT, "macro", "imacro", "rmacro", "rep", "if")
    ]
    names += [*CONDITIONS, *USE_PACKAGES]
    rare = {"ddq", "resdq", "%endm", "%unimacro", "%irmacro"}
    missing = [name for name in names if name not in rare and not re.search(rf"(?<![\w%]){re.escape(name)}\b", PAGE)]
    assert missing == []


@pytest.mark.skipif(NASM is None, reason="nasm is not installed")
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_give_nasms_bytes(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, text = EXAMPLES[number]
    monkeypatch.chdir(tmp_path)
    Path("example.inc").write_text("from_include equ 3\n%define from_include 3\n")
    Path("example.bin").write_bytes(b"0123456789")
    output = kind.strip() if kind.strip().startswith("elf") else "bin"
    Path("t.asm").write_text(text)
    result = subprocess.run(
        [str(NASM), "-w-all", "-f", output, "-o", "theirs", "t.asm"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    program = run("t.asm", text, Options(bits=32 if output == "elf32" else 16, output_format=output))
    assert program.binary.hex(" ") == Path("theirs").read_bytes().hex(" ")
    assert program.binary
