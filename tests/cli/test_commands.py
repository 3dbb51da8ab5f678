"""The commands besides `emu run`, and what holds for all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import asm
from asm.command.cli import main as assembler
from asm.options import Options
from asm.program import run
from emu import models
from emu.cli import main

Capture = pytest.CaptureFixture[str]


def test_models_lists_all_and_what_is_assumed(capfd: Capture) -> None:
    assert main(["models"]) == 0
    out = capfd.readouterr().out
    for name in models.names():
        assumed = sum(group.assumed for group in models.provenance(name))
        line = next(line for line in out.splitlines() if line.startswith(name + " "))
        assert f" {assumed}/{len(models.provenance(name))} " in line
    assert out.count("(default)") == 1


def test_models_explains_one(capfd: Capture) -> None:
    assert main(["models", "i386"]) == 0
    out = capfd.readouterr().out
    assert "80386" in out and all(group.source in out for group in models.provenance("i386"))
    assert main(["models", "nosuch"]) == 2
    assert capfd.readouterr().err.startswith("emu: unknown processor model 'nosuch'; there are: ")


def test_dis(tmp_path: Path, capfd: Capture) -> None:
    program = asm.assemble("org 0x7c00\nbits 16\nstart: mov ax, 1\nagain: jmp again")
    (tmp_path / "boot").write_bytes(program.binary)
    (tmp_path / "boot.map").write_text(program.map)
    options = ["--bits", "16", "--symbols", str(tmp_path / "boot.map")]
    for origin in ([], ["--origin", "0x7c00"]):  # the map says it too
        assert main(["dis", str(tmp_path / "boot"), *options, *origin]) == 0
        assert capfd.readouterr().out.splitlines() == [
            "start:", "00007C00  B80100                mov ax, 1", "again:",
            "00007C03  EBFE                  jmp short 0x7c03 ; again",
        ]  # fmt: skip
    assert main(["dis", str(tmp_path / "boot"), "--bits", "16", "--skip", "3", "--length", "2"]) == 0
    assert capfd.readouterr().out == "00000000  EBFE                  jmp short 0\n"


ELF_SOURCE = """
section .text
global start
start: mov eax, [value]
       call start.inside
.inside: ret
value: dd 0x90909090
section .more exec
other: jmp other
"""


@pytest.mark.parametrize(("kind", "bits"), [("elf32", 32), ("elf64", 64)])
def test_dis_of_elf(kind: str, bits: int, tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "t.o").write_bytes(run("t.asm", ELF_SOURCE, Options(bits=bits, output_format=kind)).binary)
    assert main(["dis", str(tmp_path / "t.o")]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[:2] == ["section .text", "start:"]
    assert lines[-3:] == ["section .more", "other:", "00000000  EBFE                  jmp short 0 ; other"]
    assert any(line.endswith(" ; start.inside") and "call" in line for line in lines)
    assert main(["dis", str(tmp_path / "t.o"), "--length", "4"]) == 0  # the file's own bytes, if a part is asked for
    assert capfd.readouterr().out.startswith("00000000  7F45 ")
    whole = (tmp_path / "t.o").read_bytes()
    for length in range(4, len(whole), 7):  # nothing that is cut off or changed is more than an error
        (tmp_path / "t.o").write_bytes(whole[:length])
        assert main(["dis", str(tmp_path / "t.o")]) in (0, 2)
        (tmp_path / "t.o").write_bytes(whole[:length] + bytes((whole[length] ^ 0xFF,)) + whole[length + 1 :])
        assert main(["dis", str(tmp_path / "t.o")]) in (0, 2)
    assert all(line.startswith("emu: ") for line in capfd.readouterr().err.splitlines())


@pytest.mark.parametrize("kind", ["elf32", "elf64"])
def test_dis_names_the_lines_of_dwarf(
    kind: str, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.asm").write_text("section .text\nglobal start\nstart: mov eax, 5\n  nop\n  ret\n")
    assert assembler(["-f", kind, "-g", "-F", "dwarf", "--no-cache", "-o", "t.o", "t.asm"]) == 0
    assert main(["dis", "t.o"]) == 0
    assert capfd.readouterr().out.splitlines() == [
        "section .text",
        "start:",
        "; t.asm:3: start: mov eax, 5",
        "00000000  B805000000            mov eax, 5",
        "; t.asm:4: nop",
        "00000005  90                    nop",
        "; t.asm:5: ret",
        "00000006  C3                    ret",
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch"], "nosuch: No such file"),
        (["{file}", "--skip", "10"], "--skip 10 of 3 bytes"),
        (["{file}", "--bits", "8"], "invalid choice: 8"),
        (["{file}", "--origin", "0xffffffffffffffff"], "leave the address space"),
        (["{file}", "--symbols", "{file}"], "no symbols"),
    ],
)
def test_dis_of_what_cannot_be(tmp_path: Path, capfd: Capture, arguments: list[str], says: str) -> None:
    (tmp_path / "file").write_bytes(b"\x90\x90\x90")
    assert main(["dis", *(text.format(file=tmp_path / "file") for text in arguments)]) == 2
    err = capfd.readouterr().err
    assert says in err and err.startswith("emu: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("models", 0),
        ("models i386", 0),
        (f"dis {sys.executable}", 0),
        ("bench switch --cpu i386", 0),
        ("run --serial null -q --trace -", 128 + signal.SIGPIPE),
    ],
)
def test_a_reader_that_leaves(command: str, status: int) -> None:
    read, write = os.pipe()
    os.close(read)
    arguments = [sys.executable, "-m", "emu", *command.split()]
    end = subprocess.run(arguments, stdout=write, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(write)
    assert (end.returncode, end.stderr) == (status, b"")


@pytest.mark.parametrize(
    "command", ["models", "dis -", "run --serial null -q --report - --max-cycles 9", "run --max-instructions 5000"]
)
def test_an_output_that_takes_nothing(command: str) -> None:
    with open("/dev/full", "wb") as full:
        end = subprocess.run(
            [sys.executable, "-m", "emu", *command.split()], input=bytes(100), stdout=full, stderr=subprocess.PIPE,
            timeout=60, check=False,
        )  # fmt: skip
    assert end.returncode == 2 and end.stderr.count(b"\n") == 1
    assert end.stderr.startswith(b"emu: standard output: ") and b"No space left on device" in end.stderr


@pytest.mark.parametrize("error", [ValueError("mine"), OSError("mine"), KeyError("mine"), AssertionError("mine")])
def test_a_mistake_of_ours_is_no_bad_input(error: Exception, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(models, "names", fail)
    assert main(["models"]) == 70
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == f"emu: an error of emu itself, please report it: {error!r}"


def test_dis_of_standard_input_into_head() -> None:
    shell = f"head -c 1000000 /dev/zero | {sys.executable} -m emu dis - | head -n 1"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "00000000  0000                  add [eax], al\n" and done.stderr == ""


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["models", "--help"], ["dis", "--help"]])
def test_help_teaches_with_examples(capfd: Capture, arguments: list[str]) -> None:
    assert main(arguments) == 0
    out = capfd.readouterr().out
    assert "usage: emu" in out and ("examples:" in out or arguments[0] == "models")
    assert "\n  6      triple fault" in out or arguments[0] in ("models", "dis")


@pytest.mark.parametrize("arguments", [[], ["nosuch"], ["run", "--no-such"], ["--version-of-what"]])
def test_no_command_and_unknown_ones(capfd: Capture, arguments: list[str]) -> None:
    assert main(arguments) == 2
    err = capfd.readouterr().err
    assert err.startswith("emu: ") and "--help" in err and err.count("\n") == 1


def test_an_error_of_our_own_has_status_70(monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr("emu.commands.models.show", fail)
    assert main(["models"]) == 70
    assert "an error of emu itself" in capfd.readouterr().err


def test_a_start_imports_little() -> None:
    """Each of these costs 5 ms or more, of the 200 from process start to the first guest instruction."""
    script = "import sys, emu.cli; emu.cli.main(['run', '--serial', 'null', '-q', '--max-instructions', '1'])\n"
    script += "print(*sorted({'numpy', 'lark', 'asm', 'tempfile', 'logging', 'hashlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "\n", done.stderr


@pytest.mark.parametrize("module", ["emu", "asm"])
def test_python_m(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and "usage: emu" in done.stdout
