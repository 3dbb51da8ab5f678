"""What every test run says first: which build it tests and which oracles are missing here."""

import importlib.util
import shutil

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
