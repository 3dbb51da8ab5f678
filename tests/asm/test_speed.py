"""How long assembling takes beside NASM, in processor time of whole processes."""

import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from asm.parse import build_grammar_cache
from bench.sources import mixed_source

ROOT = Path(__file__).parents[2]


def processor_time(command: Sequence[str]) -> float:
    """Seconds, the least of five runs: what else the machine does only adds."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nasm") is None, reason="nasm is not installed")
def test_ten_thousand_mixed_lines_take_less_than_six_times_nasms_time(tmp_path: Path) -> None:
    build_grammar_cache(ROOT / "asm")
    source, ours, theirs = (str(tmp_path / name) for name in ("mixed.asm", "ours.bin", "nasm.bin"))
    Path(source).write_text(mixed_source(10_000))
    nasm = processor_time(["nasm", "-f", "bin", "-o", theirs, source])
    emu_asm = processor_time([sys.executable, "-m", "asm", "-f", "bin", "-o", ours, source])
    assert Path(ours).read_bytes() == Path(theirs).read_bytes()
    assert emu_asm < 6 * nasm, f"{emu_asm:.3f} s against {nasm:.3f} s"
