"""`emu run`: every way that a run can end or an argument can be wrong, by exit status and message."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from roms import BUSY, POWER_OFF, rom, source

from emu import models
from emu.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A ROM that writes a POST code and two bytes to port E9h, and powers off."""
    path = tmp_path / "image.rom"
    path.write_bytes(
        rom("mov al, 0x42\nout 0x80, al\nmov al, 'h'\nout 0xe9, al\nmov al, 'i'\nout 0xe9, al\n" + POWER_OFF)
    )
    return path


def run(*arguments: object) -> int:
    return main(["run", *map(str, arguments)])


@pytest.mark.parametrize(
    ("body", "options", "status", "stop"),
    [
        (POWER_OFF, [], 0, "powered_off"),
        ("mov al, 0\nout 0xf4, al\nhlt", ["--debug-exit", "0xf4"], 1, "debug_exit"),
        ("mov al, 3\nout 0xf4, al\nhlt", ["--debug-exit", "244"], 7, "debug_exit"),
        ("jmp $", ["--max-instructions", "100000"], 4, "limit"),
        ("jmp $", ["--max-cycles", "10000000000"], 4, "limit"),
        ("jmp $", ["--max-seconds", "60"], 4, "limit"),
        ("again: inc eax\njmp again", ["--timeout", "0.05"], 4, "limit"),
        ("cli\nhlt", [], 4, "halted"),
        ("lidt [cs:none]\nint3\nnone: dw 0, 0, 0", [], 6, "triple_fault"),
        ("jmp 0xa000:0", ["--max-instructions", "100000"], 4, "limit"),  # where nothing is: all-ones, #UD, an empty IVT
        (
            "mov sp, 0x100\nxor di, di\nagain: mov es, bx\nmov cx, 0x8000\nrep stosw\nadd bx, 0x1000\njmp again",
            ["--max-instructions", "1000000"], 4, "limit",
        ),  # writes everywhere
        (
            "lgdt [cs:gdtr]\nmov eax, cr0\ninc ax\nmov cr0, eax\njmp 0x5000:0\ngdtr: dw 7\ndd 0",
            ["--max-instructions", "100000"], 6, "triple_fault",
        ),
    ],
)  # fmt: skip
def test_how_a_guest_ends(tmp_path: Path, body: str, options: list[str], status: int, stop: str) -> None:
    image, report = tmp_path / "image.rom", tmp_path / "report.json"
    image.write_bytes(rom(body))
    assert run(image, "-m", "1M", "--serial", "null", "--report", report, *options) == status
    written = json.loads(report.read_text())
    assert written["stop"] == stop and written["instructions"] >= 1
    assert written["status"] == (status if stop == "debug_exit" else written["status"])


def test_the_report_has_what_it_should(image: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert run(image, "--serial", "null", "--report", report) == 0
    written = json.loads(report.read_text())
    fields = {"stop", "status", "cycles", "instructions", "guest_seconds", "host_seconds", "mips", "post_codes"}
    assert fields | {"vm_exits", "vm_switches", "vmx_failure"} <= set(written)
    assert written["post_codes"] == {"count": 1, "last": [0x42]}
    assert written["guest_seconds"] == pytest.approx(written["cycles"] / models.load(models.DEFAULT)["hz"])
    assert written["mips"] > 0
    assert os.stat(report).st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_only_the_last_post_codes_are_kept(tmp_path: Path, capfd: Capture) -> None:
    image = tmp_path / "image.rom"
    image.write_bytes(rom("mov cx, 1000\nagain: mov al, cl\nout 0x80, al\nloop again\n" + POWER_OFF))
    assert run(image, "--serial", "null", "--report", "-") == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["post_codes"] == {"count": 1000, "last": [n & 0xFF for n in range(256, 0, -1)]}
    assert "10 0F 0E" in err and "(the last of 1,000)" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch.rom"], "nosuch.rom: No such file"),
        (["nosuch.asm"], "nosuch.asm: No such file"),
        (["{dir}"], "{dir}: Is a directory"),
        (["/proc/self/mem"], "/proc/self/mem: "),  # opens, and cannot be read
        (["/dev/zero"], "/dev/zero: more than 16,777,216 bytes"),
        (["{dir}/short.rom"], "{dir}/short.rom: a ROM image of 1000 bytes: not a multiple of 4 KiB"),
        (["{dir}/empty.rom"], "{dir}/empty.rom: the file is empty"),
        (["{dir}/large.rom"], "{dir}/large.rom: more than 16,777,216 bytes"),
        (["--kernel", "nosuch.elf"], "nosuch.elf: No such file"),
        (["--kernel", "{dir}/short.rom"], "no multiboot header"),
        (["--append", "x"], "--kernel FILE is missing"),
        (["--initrd", "x"], "--kernel FILE is missing"),
        (["--cpu", "nosuch"], "unknown processor model 'nosuch'; there are: "),
        (["--timing", "detailed"], "unknown timing 'detailed'; there are: unit, static"),
        (["--cpus", "2"], "--cpus 2"),
        (["-m", "12Q"], "'12Q' is no size"),
        (["-m", "1000"], "not whole MiB"),
        (["-m", "0"], "not whole MiB"),
        (["-m=-64M"], "'-64M' is no size"),
        (["-m", "999999G"], "1 TiB"),
        (["--serial", "smoke"], "'smoke' is no serial line"),
        (["--serial", "file:{dir}"], "cannot write {dir}: Is a directory"),
        (["--serial", "file:{dir}/none/x"], "none/x: No such file"),
        (["--serial", "tcp:99999"], "TCP port 99999"),
        (["--serial", "tcp:{port}"], "TCP port {port} on 127.0.0.1: Address already in use"),
        (["--debugcon", "0xe9"], "--debugcon 0xe9: not PORT:FILE"),
        (["--debugcon", "0x10000:x"], "not PORT:FILE"),
        (["--debugcon", "0x3f8:-"], "port 0x3f8 belongs to com1"),
        (["--debugcon", "0xe9:{dir}"], "cannot write {dir}: Is a directory"),
        (["--debugcon", "0xe9:{dir}/a", "--debugcon", "0xe8:{dir}/b"], "--debugcon is given twice"),
        (["--serial", "null", "--serial", "file:{dir}/a"], "--serial is given twice"),
        (["--debug-exit", "65536"], "'65536' is no I/O port: 0 to 0xffff"),
        (["--debug-exit", "0x80"], "port 0x80 belongs to post"),
        (["--max-instructions", "-1"], "'-1' is no count"),
        (["--max-instructions", "1e6"], "'1e6' is no count"),
        (["--max-cycles", "99999999999999999999"], "is no count"),
        (["--max-seconds", "nan"], "'nan' is no number of seconds"),
        (["--timeout", "-1"], "'-1' is no number of seconds"),
        (["--timeout", "soon"], "'soon' is no number of seconds"),
        (["--report", "{dir}"], "{dir}: cannot be written: Is a directory"),
        (["--report", "{dir}/none/x.json"], "cannot be written: No such file"),
        (["--report", ""], "--report: the name of a file is empty"),
        (["--disk", ""], "--disk: the name of a file is empty"),
        (["no\nsuch"], "no\\nsuch: No such file"),
        (["--timeline", "{dir}/none/x.svg"], "{dir}/none/x.svg: cannot be written: No such file"),
        (["{dir}/short.rom", "--report", "{dir}/../{name}/short.rom"], "short.rom, which is the image's file"),
        (["--serial", "file:{dir}/new", "--trace", "{dir}/new"], "--trace would write over {dir}/new, which is --ser"),
        (["--disk", "{dir}/short.rom,snapshot", "--debugcon", "0xe9:{dir}/short.rom"], "which is --disk's file"),
        (["--trace", "/dev/full"], "/dev/full: cannot be written: No space left on device"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["a.rom", "b.rom"], "unrecognized arguments: b.rom"),
    ],
)
def test_bad_arguments(tmp_path: Path, image: Path, capfd: Capture, arguments: list[str], says: str) -> None:
    (tmp_path / "short.rom").write_bytes(bytes(1000))
    (tmp_path / "empty.rom").touch()
    with (tmp_path / "large.rom").open("wb") as large:
        large.truncate((16 << 20) + 4096)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        names = {"dir": tmp_path, "name": tmp_path.name, "port": taken.getsockname()[1]}
        arguments = [text.format(**names) for text in arguments]
        before = sorted(os.listdir(tmp_path))
        assert run(*([image] if arguments[0].startswith("-") else []), *arguments) == 2
    out, err = capfd.readouterr()
    assert says.format(**names) in err
    assert err.startswith("emu: ") and err.count("\n") == 1 and out == ""
    assert sorted(os.listdir(tmp_path)) == before


def test_a_source_with_mistakes_shows_all_of_them(tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / "bad.asm"
    path.write_text("mov ax,\nnop\nfrob ax\n")
    assert run(path) == 2
    err = capfd.readouterr().err
    assert f"{path}:1" in err and f"{path}:3" in err


def test_an_asm_source_is_assembled(tmp_path: Path) -> None:
    path = tmp_path / "good.asm"
    path.write_text(source("mov al, 9\nout 0xf4, al"))
    assert run(path, "--serial", "null", "--debug-exit", "0xf4") == 19


def test_nothing_is_emptied_for_a_run_that_cannot_begin(tmp_path: Path) -> None:
    for name in ("serial.txt", "debug.txt", "report.json"):
        (tmp_path / name).write_text("old")
    options = ["--serial", f"file:{tmp_path}/serial.txt", "--debugcon", f"0xe9:{tmp_path}/debug.txt"]
    assert run("nosuch.rom", *options, "--report", tmp_path / "report.json") == 2
    assert run("--cpu", "nosuch", *options, "--report", tmp_path / "report.json") == 2
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}


def test_debugcon(image: Path, tmp_path: Path, capfd: Capture) -> None:
    assert run(image, "--serial", "null", "--debugcon", f"0xe9:{tmp_path}/debug.txt") == 0
    assert (tmp_path / "debug.txt").read_bytes() == b"hi"
    assert run(image, "--serial", "null", "--debugcon", "0xE9:-", "-q") == 0
    assert capfd.readouterr().out == "hi"


def test_quiet(image: Path, capfd: Capture) -> None:
    assert run(image, "--serial", "null", "-q") == 0
    assert capfd.readouterr() == ("", "")


def test_the_built_in_firmware_and_its_steps(capfd: Capture) -> None:
    assert run() == 0
    out, err = capfd.readouterr()
    assert out.startswith("firmware  POST") and "\033" not in out + err
    assert re.search(r"^ +\d+\.\d{3}  10    reset vector reached, real mode$", err, re.MULTILINE)
    assert re.search(r"^powered off after [\d,]+ instructions", err, re.MULTILINE)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "emu", *arguments]


def in_terminal(arguments: list[str], **environment: str) -> bytes:
    """What a command writes to a terminal."""
    leader, follower = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    child = subprocess.Popen(
        arguments, stdin=follower, stdout=follower, stderr=follower, env={**clean, "TERM": "xterm", **environment},
        start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    data = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and select.select([leader], [], [], 60)[0]:
        try:
            more = os.read(leader, 65536)
        except OSError:  # the last process that had it is gone
            break
        data += more
    os.close(leader)
    assert child.wait(60) == 0
    return data


def test_colour_on_a_terminal_alone() -> None:
    assert b"\033[36m10\033[0m    reset vector" in in_terminal(command("run"))
    assert b"\033[" not in in_terminal(command("run"), NO_COLOR="1")
    assert b"\033[" not in in_terminal(command("run"), TERM="dumb")


def test_progress_is_shown_on_a_terminal(tmp_path: Path) -> None:
    """After a second; a line that is written over, and gone at the end."""
    image = tmp_path / "image.rom"
    image.write_bytes(rom("again: inc eax\njmp again"))
    script = f"""
import sys
from emu import models
from emu.cli import main
sys.exit(main(["run", {str(image)!r}, "--serial", "null", "--timeout", "1.6", "-q"]) - 4)
"""
    shown = in_terminal([sys.executable, "-c", script])
    assert re.search(rb"\r1 s: [\d,]+ instructions, \d+\.\d+ s of guest time, \d+ MIPS", shown)
    assert shown.endswith(b"\r")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_with_a_report(tmp_path: Path, number: int, status: int) -> None:
    image, report = tmp_path / "image.rom", tmp_path / "report.json"
    image.write_bytes(
        rom("mov dx, 0x3fb\nmov al, 3\nout dx, al\nmov dx, 0x3f8\nmov al, '!'\nout dx, al\nagain: inc eax\njmp again")
    )
    with subprocess.Popen(
        command("run", str(image), "--report", str(report), "--timeout", "60"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdout is not None and child.stdout.read(1) == b"!"  # it runs
        child.send_signal(number)
        assert child.wait(60) == status
    assert json.loads(report.read_text())["stop"] == "interrupted"


@pytest.mark.parametrize(
    ("module", "imported"),
    [("emu", "argparse"), ("emu", "emu.cli"), ("asm", "asm.command.cli"), ("asm", "asm.command.arguments")],
)
def test_ctrl_c_while_the_command_starts(module: str, imported: str) -> None:
    """It comes in the midst of an import, before anybody handles it: no traceback, and the shell's status is 130."""
    script = f"""
import os, runpy, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "{imported}":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background have it ignored
sys.argv[1:] = ["--version"]
runpy.run_module("{module}", run_name="__main__", alter_sys=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_closed_standard_streams(tmp_path: Path, image: Path) -> None:
    shell = f"{sys.executable} -m emu run {image} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", shell], timeout=60, check=False).returncode == 0


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    image = tmp_path / "image.rom"
    image.write_bytes(rom("mov cx, 0\nagain: mov al, 'x'\nout 0xe9, al\nloop again\n" + POWER_OFF))
    shell = f"{sys.executable} -m emu run {image} --serial null --debugcon 0xe9:- -q | head -c 10"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, timeout=60, check=False)
    assert done.stdout == b"x" * 10 and done.stderr == b""


def test_serial_input_from_a_pipe(tmp_path: Path) -> None:
    image = tmp_path / "image.rom"
    body = "mov dx, 0x3fd\nagain: in al, dx\ntest al, 1\njz again\nmov dx, 0x3f8\nin al, dx\nout 0xf4, al\nhlt"
    image.write_bytes(rom("mov dx, 0x3fb\nmov al, 3\nout dx, al\n" + body))
    done = subprocess.run(
        command("run", str(image), "--debug-exit", "0xf4", "-q", "--timeout", "30"),
        input=b"\x05",
        timeout=60,
        check=False,
    )
    assert done.returncode == 11


def test_a_run_of_a_busy_guest_is_the_same_each_time(tmp_path: Path) -> None:
    image = tmp_path / "image.rom"
    image.write_bytes(rom(BUSY))
    reports = []
    for number in range(2):
        path = tmp_path / f"{number}.json"
        assert run(image, "--serial", "null", "--max-seconds", "0.05", "--report", path) == 4
        reports.append({**json.loads(path.read_text()), "host_seconds": 0, "mips": 0})
    assert reports[0] == reports[1]
