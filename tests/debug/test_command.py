"""`emu run --gdb`, `--trace`: as a user calls them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = """
        bits 16
        org 0F0000h
start:  mov al, 1
work:   nop
        out 0F4h, al
        times 0FFF0h - ($ - $$) db 0
        jmp 0F000h:0
        times 10000h - ($ - $$) db 0
"""
RUN = (sys.executable, "-m", "emu", "run", "--serial", "null", "--debug-exit", "0xf4", "-m", "1M", "--quiet")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "rom.asm"
    path.write_text(SOURCE)
    return path


def emu_run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )


def test_trace_to_standard_output_has_the_labels(image: Path) -> None:
    done = emu_run(image, "--trace", "-")
    assert done.returncode == 3
    assert [line.split(None, 5)[-1].partition(" ;")[0] for line in done.stdout.splitlines()] == [
        "jmp 0xf000:0", "start:", "mov al, 1", "work:", "nop", "out 0xf4, al",
    ]  # fmt: skip


def test_trace_of_a_range(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "trace.txt"
    assert emu_run(image, "--trace", out, "--trace-range", "0xf0002-0xf0002").returncode == 3
    assert out.read_text().splitlines()[1].partition(" ;")[0].endswith("nop")
    assert len(out.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trace-range", "1-2"), "--trace-range: only with --trace"),
        (("--trace", "-", "--trace-range", "2-1"), "--trace-range 2-1: not FIRST-LAST"),
        (("--trace", "-", "--trace-range", "x"), "--trace-range x: not FIRST-LAST"),
        (("--trace", "/nowhere/t"), "/nowhere/t: cannot be written: No such file or directory"),
        (("--gdb", "70000"), "'70000' is no TCP port"),
    ],
)
def test_mistakes_are_one_line(image: Path, arguments: tuple[str, ...], message: str) -> None:
    done = emu_run(image, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["VM 1", "guest vm"])
def test_a_vm_that_never_ran_is_said_at_the_end(tmp_path: Path, name: str) -> None:
    """The built-in firmware's VMs have the names that its VMM gives them."""
    command = [sys.executable, "-m", "emu", "run", "--serial", "null", "--quiet", "--trace", tmp_path / "t",
               "--trace-range", "0-0"]  # fmt: skip
    done = subprocess.run(
        [*command, "--trace-vm", name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"emu: --trace-vm {name}: no VM of that name ran; those that ran are VMM, Service VM, Guest VM"
    ]
    assert (tmp_path / "t").read_text() == ""


def test_without_vt_x_no_vm_can_be_traced(image: Path) -> None:
    done = emu_run(image, "--trace", "-", "--trace-vm", "VMM")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "emu: --trace-vm VMM: no VM of that name ran; none ran at all\n"


def test_a_real_gdb_attaches_to_the_command(image: Path) -> None:
    gdb = shutil.which("gdb")
    if gdb is None:
        pytest.skip("gdb is not installed")
    command = [*RUN, str(image), "--gdb", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "target remote 127.0.0.1:" in line
        where = line.split()[-1]
        script = ("-ex", f"target remote {where}", "-ex", "break work", "-ex", "continue", "-ex", "continue")
        own = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # a sanitizer's: not for gdb
        try:
            done = subprocess.run(
                [gdb, "-nx", "-batch", *script], capture_output=True, text=True, timeout=60, check=False, env=own
            )
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert "Breakpoint 1, 0x000f0002 in work ()" in done.stdout
        assert "exited with code 03" in done.stdout
        assert process.wait(30) == 3
