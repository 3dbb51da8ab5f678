"""Colour of source lines: on a terminal alone, and never another character."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from asm.command.colour import paint

ESCAPE = re.compile(r"\x1b\[[\d;]*m")
PROGRESS = re.compile(r"(\r\x1b\[K[^\r]*)*\r\x1b\[K")  # a busy machine takes the second after which it is shown
COMMANDS = [["-m", "asm", "bad.asm"], ["-m", "emu", "dis", "--bits", "16", "code"]]


def in_terminal(arguments: list[str], folder: Path, **environment: str) -> str:
    """What a command writes to a terminal."""
    leader, follower = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    subprocess.run(
        [sys.executable, *arguments], cwd=folder, stdin=follower, stdout=follower, stderr=follower, check=False,
        env={**clean, "TERM": "xterm", **environment}, timeout=60,
    )  # fmt: skip
    os.close(follower)
    data = b""
    while True:
        try:
            data += os.read(leader, 65536)
        except OSError:  # nobody writes any more
            break
    os.close(leader)
    text = data.decode().replace("\r\n", "\n")
    return PROGRESS.sub("", text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bad.asm").write_text("%macro m 0\n\tmov ax, nowhere ; why\n%endmacro\nm\n")
    (tmp_path / "code").write_bytes(bytes.fromhex("b80100 90"))
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[1])
def test_colour_on_a_terminal_alone(command: list[str], folder: Path) -> None:
    result = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False)
    plain = result.stdout + result.stderr
    assert "\x1b" not in plain
    coloured = in_terminal(command, folder)
    assert paint("mov") in coloured
    assert ESCAPE.sub("", coloured).replace("\t", " ") == plain.replace("\t", " ")
    assert in_terminal(command, folder, NO_COLOR="1") == plain
    assert in_terminal(command, folder, TERM="dumb") == plain


def test_pygments_is_not_imported_without_a_terminal(folder: Path) -> None:
    script = "import sys; from asm.command.cli import main; main(['bad.asm']); sys.exit('pygments' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("line", ["\tmov ax, [bx+2] ; x", "", "  ", "x: db 'a', `\\n`", "%define f(x) \\", "ü: €"])
def test_characters_stay(line: str) -> None:
    assert ESCAPE.sub("", paint(line)) == line
