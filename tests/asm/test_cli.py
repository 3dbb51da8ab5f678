"""The command `emu-asm`: NASM's flags, files and exit statuses."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asm.command.cli import main

ROOT = Path(__file__).parents[2]

needs_nasm = pytest.mark.skipif(shutil.which("nasm") is None, reason="nasm is not installed")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inc").mkdir()
    (tmp_path / "inc" / "part.inc").write_text("db 5\n")
    (tmp_path / "good.asm").write_text('org 0x100\nstart: mov ax, VALUE\n%include "part.inc"\n')
    (tmp_path / "bad.asm").write_text("mov ax, nowhere\nbad line\n")
    return tmp_path


@pytest.mark.parametrize(
    "options",
    [
        ["-f", "bin", "-o", "out.bin", "-I", "inc", "-D", "VALUE=3", "good.asm"],
        ["-fbin", "-oout.bin", "-Iinc/", "-DVALUE=3", "good.asm"],
        ["-i", "inc", "-d", "VALUE=3", "good.asm", "-o", "out.bin", "-Ox", "-w+all", "-g"],
        ["-iinc", "-dVALUE=9", "-UVALUE", "-dVALUE=3", "-O2", "-w-zeroing", "-Wno-user", "-o", "out.bin", "good.asm"],
    ],
)
def test_flags(folder: Path, options: list[str]) -> None:
    if "-UVALUE" in options:  # as in NASM, definitions are forgotten after all of them have been made
        options = [option for option in options if option != "-UVALUE"]
    assert main(options) == 0
    assert (folder / "out.bin").read_bytes() == bytes.fromhex("b80300 05") if "-dVALUE=9" not in options else True


def test_the_output_is_named_after_the_source(folder: Path) -> None:
    assert main(["-I", "inc", "-DVALUE", "good.asm", "-DVALUE=1"]) == 0
    assert (folder / "good").read_bytes() == bytes.fromhex("b80100 05")
    (folder / "ordinary").touch()
    assert (folder / "good").stat().st_mode == (folder / "ordinary").stat().st_mode


def test_listing_map_and_dependencies(folder: Path) -> None:
    options = [
        "-I",
        "inc",
        "-DVALUE=1",
        "-l",
        "out.lst",
        "--map",
        "out.map",
        "-MD",
        "out.d",
        "-o",
        "out.bin",
        "good.asm",
    ]
    assert main(options) == 0
    assert (folder / "out.lst").read_text().splitlines()[1].split() == [
        "2",
        "00000000",
        "B80100",
        "start:",
        "mov",
        "ax,",
        "VALUE",
    ]
    assert "start" in (folder / "out.map").read_text()
    assert (folder / "out.d").read_text() == "out.bin : good.asm inc/part.inc\n\n"


@pytest.mark.parametrize("option", ["-o", "-l", "-MD", "--map"])
def test_the_source_is_not_overwritten(folder: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder / "own.asm"
    source.write_text("nop\n")
    assert main(["own.asm", option, "./own.asm"]) == 2
    assert capsys.readouterr().err == "emu-asm: will not overwrite the source, `./own.asm'\n"
    assert source.read_text() == "nop\n"


def test_a_file_that_cannot_be_written_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "own.asm").write_text("nop\n")
    assert main(["own.asm", "-o", "missing/out.bin"]) == 2
    assert capsys.readouterr().err == "emu-asm: missing/out.bin: No such file or directory\n"


def test_dependencies_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-I", "inc", "-DVALUE=1", "-M", "-MT", "target", "good.asm"]) == 0
    assert capsys.readouterr().out == "target : good.asm inc/part.inc\n\n"
    assert not (folder / "good").exists()


def test_preprocessing_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-E", "-I", "inc", "-DVALUE=1", "good.asm"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "%line 1+1 good.asm", "[org 0x100]", "start: mov ax, 1", "%line 1+1 inc/part.inc", "db 5",
    ]  # fmt: skip


def test_preinclude(folder: Path) -> None:
    (folder / "pre.inc").write_text("%define VALUE 7\n")
    assert main(["-P", "pre.inc", "-I", "inc", "good.asm", "-o", "out.bin"]) == 0
    assert (folder / "out.bin").read_bytes() == bytes.fromhex("b80700 05")


def test_errors_leave_no_output_and_give_status_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out.bin").write_bytes(b"old")
    assert main(["bad.asm", "-o", "out.bin", "-l", "out.lst"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "bad.asm:1:9: error: symbol `nowhere' not defined\n" in captured.err
    assert "bad.asm:2:1: error: unknown instruction `bad'" in captured.err
    assert (folder / "out.bin").read_bytes() == b"old"
    assert "symbol `nowhere' not defined" in (folder / "out.lst").read_text()  # as NASM has it, too
    assert sorted(path.name for path in folder.iterdir()) == ["bad.asm", "good.asm", "inc", "out.bin", "out.lst"]


def test_messages_to_standard_output_and_to_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-s", "bad.asm"]) == 1
    assert "bad.asm:1:9: error" in capsys.readouterr().out
    assert main(["-Z", "messages", "-X", "vc", "bad.asm"]) == 1
    assert "bad.asm(1) : error" in (folder / "messages").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no source file"),
        (["missing.asm"], "missing.asm: No such file or directory"),
        (["inc"], "inc: Is a directory"),
        (["-f", "macho64", "good.asm"], "output format `macho64' is not made in this version"),
        (["-f", "nonsense", "good.asm"], "output format `nonsense' is unknown"),
        (["good.asm", "bad.asm"], "more than one source"),
        (["-o"], "option `-o' wants a value"),
        (["-Oq", "good.asm"], "unrecognised optimisation level"),
        (["-X", "odd", "good.asm"], "unrecognised error reporting format"),
        (["-c", "good.asm"], "unrecognised option `-c'"),
        (["--nonsense", "good.asm"], "unrecognised option `--nonsense'"),
        (["-I", "inc", "-DVALUE=1", "good.asm", "-o", "no/such/folder/out.bin"], "No such file or directory"),
        (["-I", "inc", "-DVALUE=1", "good.asm", "-o", "/dev/full"], "/dev/full: No space left on device"),
    ],
)
def test_wrong_arguments_give_one_line_and_status_2(
    folder: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("emu-asm: ")
    assert message in captured.err


def test_a_warning_can_be_made_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "warn.asm").write_text("db 256\n")
    assert main(["warn.asm", "-o", "out.bin"]) == 0
    assert "[-w+number-overflow]" in capsys.readouterr().err
    assert main(["warn.asm", "-o", "out.bin", "-w-number-overflow"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["warn.asm", "-o", "out.bin", "-w+error=number-overflow"]) == 1
    assert main(["warn.asm", "-o", "out.bin", "-Werror"]) == 1


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-h"]) == 0
    assert "usage: emu-asm" in capsys.readouterr().out
    assert main(["-v"]) == 0
    assert capsys.readouterr().out.startswith("NASM version 2.16")


def test_as_a_process_with_standard_input() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "asm", "-o", "-", "-"], cwd=ROOT, input=b"mov ax, 5\n", capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\xb8\5\0", b"")


@pytest.mark.skipif(shutil.which("nasm") is None, reason="nasm is not installed")
@pytest.mark.parametrize("name", ["good", "long.name", "noextension"])
def test_files_are_named_as_nasm_names_them(folder: Path, name: str) -> None:
    source = name if name == "noextension" else f"{name}.asm"
    (folder / "ours").mkdir()
    (folder / "nasm").mkdir()
    for part in ("ours", "nasm"):
        (folder / part / source).write_text("nop\n")
    subprocess.run(["nasm", source], cwd=folder / "nasm", capture_output=True, check=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "asm", source], cwd=folder / "ours", env=env, capture_output=True, check=True)
    assert sorted(p.name for p in (folder / "ours").iterdir()) == sorted(p.name for p in (folder / "nasm").iterdir())


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Waiting:
        @property
        def buffer(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Waiting())
    assert main(["-o", "out.bin", "-"]) == 130
    assert capsys.readouterr().err == ""


def test_more_of_the_command_line_in_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "more").write_text("-f bin\n-Iinc/\n\n-d VALUE=1 + 2\n")
    assert main(["-@", "more", "-o", "out.bin", "good.asm"]) == 0
    assert main(["-@more", "-o", "again.bin", "good.asm"]) == 0
    assert (folder / "out.bin").read_bytes() == (folder / "again.bin").read_bytes() == bytes.fromhex("b80300 05")
    (folder / "words").write_text("-f bin -Iinc/ -dVALUE=3\n")
    assert main(["@words", "-o", "third.bin", "good.asm"]) == 0
    assert (folder / "third.bin").read_bytes() == bytes.fromhex("b80300 05")
    assert main(["-@missing", "good.asm"]) == 2
    assert "missing: No such file" in capsys.readouterr().err


def test_options_in_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASMENV", "-Iinc/ -dVALUE=3")
    assert main(["-o", "out.bin", "good.asm"]) == 0
    monkeypatch.setenv("NASMENV", "!-Iinc/!-dVALUE=1 + 2")
    assert main(["-o", "again.bin", "good.asm"]) == 0
    assert (folder / "out.bin").read_bytes() == (folder / "again.bin").read_bytes() == bytes.fromhex("b80300 05")


def test_lines_before_the_source(folder: Path) -> None:
    (folder / "use.asm").write_text("db VALUE, OTHER\n")
    (folder / "first.inc").write_text("%define OTHER 6\n")
    options = ["--before", "%define VALUE 5", "--pragma=asm x", "--include", "first.inc", "--debug", "-Ov", "-O2x"]
    assert main([*options, "-o", "out.bin", "use.asm"]) == 0
    assert (folder / "out.bin").read_bytes() == bytes([5, 6])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-f", "bin", "-F", "dwarf"], "debug format `dwarf' is not made for output format `bin'; there is none"),
        (["-f", "elf32", "-F", "stabs"], "debug format `stabs' is not made for output format `elf32'; there is dwarf"),
        (["-o", "a", "-o", "b"], "more than one output file: `a' and `b'"),
        (["--version=3"], "option `--version' takes no value"),
        (["--before"], "option `--before' wants a value"),
        (["-Oz"], "unrecognised optimisation level `-Oz'"),
        (["-MX"], "unknown dependency option `-MX'"),
        (["-t"], "TASM's dialect, option `-t', is not taken"),
        (["-X", "other"], "unrecognised error reporting format `other'"),
    ],
)
def test_options_that_make_no_sense(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["good.asm", *options]) == 2
    assert capsys.readouterr().err == f"emu-asm: {message}\n"


def test_a_limit_on_repetitions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "rep.asm").write_text("%rep 6\nnop\n%endrep\n")
    assert main(["--limit-rep", "5", "rep.asm"]) == 1
    assert "`%rep' count 6 exceeds limit (5)" in capsys.readouterr().err
    assert main(["--limit-rep=6", "--limit-foo", "1", "rep.asm", "-o", "out.bin"]) == 0
    assert "unknown limit: `foo'" in capsys.readouterr().err


@needs_nasm
@pytest.mark.parametrize(
    "options",
    [["-M"], ["-MG"], ["-M", "-MP"], ["-M", "-MT", "a$"], ["-M", "-MQ", "b$c d"], ["-M", "-MW"], ["-MG", "-MF", "x.d"],
     ["-M", "-o", "a/rather/long/name/of/the/output/file.o"], ["-MD", "x.d", "-MP"],
     ["-MD", "-MF", "y.d"], ["-MF", "y.d"]],
    ids=" ".join,
)  # fmt: skip
def test_dependencies_are_nasms(folder: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    (folder / "b c.bin").write_bytes(b"x")
    # Beside its output, NASM lists the files of incbin and %depend alone; without a file's name it crashes.
    alone = bool({"-M", "-MG"} & set(options))
    more = '%include "inc/part.inc"\n%include "a $missing#one.inc"\nincbin "none.bin"\n' if alone else ""
    (folder / "deps.asm").write_text(f'incbin "b c.bin"\n%depend "other.txt"\n{more}')
    results = []
    for run in (
        lambda: subprocess.run(["nasm", "deps.asm", *options], capture_output=True, text=True, check=True).stdout,
        lambda: (main(["deps.asm", *options]), capsys.readouterr().out)[1],
    ):
        results.append((run(), {path.name: path.read_text() for path in folder.glob("*.d")}))
        for path in folder.glob("*.d"):
            path.unlink()
    assert results[0] == results[1]


@needs_nasm
@pytest.mark.parametrize("options", ["--prefix _", "--postfix=_x --lprefix L", "--gprefix g_ --lpostfix=_l"])
@pytest.mark.parametrize("output", ["elf32", "elf64"])
def test_names_in_an_object_are_prefixed_as_nasm_does(folder: Path, options: str, output: str) -> None:
    (folder / "names.asm").write_text(
        "global foo, bar\nextern ext\ncommon com 4\nfoo: call ext\n.in: jmp foo\nlone: mov eax, [com]\n"
        "%macro m 0\n%%x: jmp %%x\n%endmacro\n m\nbar equ 5\n"
    )
    words = ["-f", output, *options.split(), "names.asm", "-o"]
    subprocess.run(["nasm", *words, "theirs.o"], check=True)
    assert main([*words, "ours.o"]) == 0
    assert (folder / "ours.o").read_bytes() == (folder / "theirs.o").read_bytes()


@needs_nasm
@pytest.mark.parametrize(
    "lines",
    [
        "%pragma output gprefix _\n%pragma elf lsuffix _l\n%pragma output gprefix second_",
        "%pragma elf gprefix\n%pragma elf lprefix .L.\n%pragma output gprefix _\n%pragma output lprefix L.",
        "%pragma output prefix a\n[pragma output suffix b]\n%pragma asm gprefix never\n%pragma win32 gprefix never",
    ],
)
def test_a_source_prefixes_names_as_with_nasm(folder: Path, lines: str) -> None:
    (folder / "names.asm").write_text(f"{lines}\nglobal foo\nextern ext\nfoo: call ext\n.in: jmp foo\n")
    for options in ([], ["--prefix", "Q_"]):
        words = ["-f", "elf32", *options, "names.asm", "-o"]
        subprocess.run(["nasm", *words, "theirs.o"], check=True)
        assert main([*words, "ours.o"]) == 0
        assert (folder / "ours.o").read_bytes() == (folder / "theirs.o").read_bytes()


@needs_nasm
def test_pragmas_are_warned_of_as_nasm_does(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pragmas = (
        "", "foo", "foo bar", "output", "output foo", "asm foo", "list", "list foo", "list options +q", "preproc",
        "limit rep 9", "limit rep foo", "limit foo 5", "elf foo", "bin foo", "ith foo", "debug foo", "ignore foo",
    )  # fmt: skip
    (folder / "pragmas.asm").write_text("".join(f"%pragma {text}\n" for text in pragmas) + "db 1\n")
    command = ["-w+all", "pragmas.asm", "-o", "out.bin"]
    theirs = subprocess.run(["nasm", *command], check=True, capture_output=True, text=True).stderr
    assert main(command) == 0
    ours = capsys.readouterr().err
    expected = re.findall(r":(\d+): warning: .*(\[.*\])", theirs)
    assert re.findall(r":(\d+):\d+: warning: .*(\[.*\])", ours) == expected != []


def test_a_pragma_limits_repetitions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "many.asm").write_text("%pragma limit rep 5\n%rep 6\n db 1\n%endrep\n")
    assert main(["many.asm", "-o", "out.bin"]) == 1
    assert "`%rep' count 6 exceeds limit (5)" in capsys.readouterr().err


def test_a_warning_goes_back_to_what_it_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "wide.asm").write_text(" db 300\n")
    assert main(["-w-number-overflow", "-w*number-overflow", "wide.asm", "-o", "out.bin"]) == 0
    assert "number-overflow" in capsys.readouterr().err


def test_a_link_is_written_through(folder: Path) -> None:
    (folder / "link").symlink_to("target.bin")
    assert main(["-Iinc/", "-dVALUE=1", "good.asm", "-o", "link"]) == 0
    assert (folder / "link").is_symlink()
    assert (folder / "target.bin").read_bytes()


def test_a_dependency_file_named_apart(folder: Path) -> None:
    assert main(["-MD", "-MF", "out.d", "-Iinc/", "-dVALUE=1", "-o", "out.bin", "good.asm"]) == 0
    assert (folder / "out.d").read_text() == "out.bin : good.asm inc/part.inc\n\n"


def test_the_old_name_of_a_warning(folder: Path) -> None:
    (folder / "alone.asm").write_text("lone\n")
    assert main(["-w+error=orphan-labels", "alone.asm", "-o", "out.bin"]) == 1
    assert main(["-w-orphan-labels", "-Werror", "alone.asm", "-o", "out.bin"]) == 0
