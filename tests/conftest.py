"""What every test run says first: which build it tests and which oracles are missing here."""

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ORACLES = ("nasm", "qemu-system-i386", "bochs", "gdb", "objdump")

CASES = 210_000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cases", type=int, default=CASES, metavar="N",
        help="random instructions to compare with the host processor, over all code sizes (default: %(default)s)",
    )  # fmt: skip


def pytest_report_header() -> list[str]:
    found = importlib.util.find_spec("emu._core") if importlib.util.find_spec("emu") else None
    missing = [name for name in ORACLES if shutil.which(name) is None]
    lines = [f"extension: {found.origin if found else 'not built'}"]
    return [*lines, f"not installed, so not compared with: {', '.join(missing)}"] if missing else lines


RunBochs = Callable[[Path, bytes, str], str]


@pytest.fixture
def run_bochs() -> RunBochs:
    """Runs a ROM on Bochs in a folder, with these settings, and returns what it writes to standard output."""

    def run(folder: Path, rom: bytes, settings: str) -> str:
        (folder / "image.rom").write_bytes(rom)
        (folder / "display.rom").write_bytes(b"\x55\xaa\x01".ljust(512, b"\0"))  # it does not start without one
        (folder / "debugger").write_text("c\n")
        (folder / "settings").write_text(settings)
        done = subprocess.run(
            ["bochs", "-q", "-f", "settings", "-rc", "debugger"],
            cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        return done.stdout.decode("latin-1")

    return run
