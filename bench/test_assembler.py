"""Lines a second of the assembler, as a process of its own, against nasm's CPU time for the same source."""

import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.runners import cpu_seconds
from bench.sources import mixed_source

LINES = 10_000
ROUNDS = 5


def test_mixed_lines(benchmark: Any, tmp_path: Path) -> None:
    (tmp_path / "source.asm").write_text(mixed_source(LINES))
    ours = [sys.executable, "-m", "asm", "--no-cache", "-f", "bin", "-o", "ours.bin", "source.asm"]
    theirs = ["nasm", "-f", "bin", "-o", "theirs.bin", "source.asm"]
    benchmark.pedantic(cpu_seconds, (ours, str(tmp_path)), rounds=1)
    if not shutil.which("nasm"):
        pytest.skip("nasm is what the assembler is compared with")
    times = [(cpu_seconds(ours, str(tmp_path))[0], cpu_seconds(theirs, str(tmp_path))[0]) for _ in range(ROUNDS)]
    assert (tmp_path / "ours.bin").read_bytes() == (tmp_path / "theirs.bin").read_bytes()
    benchmark.extra_info["ratio"] = statistics.median(their / our for our, their in times)
    benchmark.extra_info["to"] = "nasm"
    benchmark.extra_info["thousand lines a second"] = LINES / statistics.median(our for our, _ in times) / 1e3
