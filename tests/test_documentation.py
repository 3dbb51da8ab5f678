"""The examples in docs/: sessions of Python give what they show, commands work."""

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
BOOT = """
bits 16
org 0
start:  mov al, 'x'
        out 0xe9, al
        mov al, 0
        out 0xf4, al
spin:   jmp spin
        times 0xfff0 - ($ - $$) db 0
        jmp 0xf000:start
        times 0x10000 - ($ - $$) db 0
"""


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md") if ">>> " in path.read_text()))
def test_python_sessions(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testfile(str(DOCS / page), module_relative=False, optionflags=doctest.ELLIPSIS, encoding="utf-8")
    assert result.attempted > 5 and result.failed == 0


def commands(page: str) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_commands(tmp_path: Path) -> None:
    """Each ends with 0, or with the status that the guest of the example asks for."""
    for name in ("boot.asm", "test.asm"):
        (tmp_path / name).write_text(BOOT)
    found = commands("command-line.md")
    for command in found:
        program, *arguments = shlex.split(command)
        module = {"emu": "emu", "emu-asm": "asm"}[program]
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,  # a worker's own is its master's channel, and would be typed
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        wanted = 1 if "--debug-exit" in arguments else 4 if "--max-instructions" in arguments else 0
        assert done.returncode == wanted, (command, done.stderr)
    assert len(found) > 6
