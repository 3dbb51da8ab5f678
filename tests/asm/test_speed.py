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
def test_twenty_thousand_mixed_lines_take_less_than_six_times_nasms_time(tmp_path: Path) -> None:
    build_grammar_cache(ROOT / "asm")
    source, ours, theirs = (str(tmp_path / name) for name in ("mixed.asm", "ours.bin", "nasm.bin"))
    Path(source).write_text(mixed_source(20_000))
    nasm = processor_time(["nasm", "-f", "bin", "-o", theirs, source])
    emu_asm = processor_time([sys.executable, "-m", "asm", "--no-cache", "-f", "bin", "-o", ours, source])
    assert Path(ours).read_bytes() == Path(theirs).read_bytes()
    assert emu_asm < 6 * nasm, f"{emu_asm:.3f} s against {nasm:.3f} s"


MACROS = """\
%macro  outb 2
        mov     dx, %1
        mov     al, %2
        out     dx, al
%endmacro
%macro  entry 2-3 0
%%here: dw      %1
        db      %2
  %if %3
        dd      %%here
  %endif
%endmacro
%macro  save 1-*
  %rep %0
        push    %1
    %rotate 1
  %endrep
%endmacro
%define FIELD(x) ((x) * 4 + 2)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nasm") is None, reason="nasm is not installed")
def test_macro_heavy_sources_take_less_than_ten_times_nasms_time(tmp_path: Path) -> None:
    build_grammar_cache(ROOT / "asm")
    source, ours, theirs = (str(tmp_path / name) for name in ("macros.asm", "ours.bin", "nasm.bin"))
    lines = []
    for n in range(3000):
        lines += [f"outb {n % 1024}, {n % 256}", f"entry {n}, {n % 200}, {n % 2}", "save ax, bx, cx"]
        lines.append(f"mov ax, [bx + FIELD({n % 20})]")
    Path(source).write_text(MACROS + "\n".join(lines) + "\n")
    nasm = processor_time(["nasm", "-f", "bin", "-o", theirs, source])
    emu_asm = processor_time([sys.executable, "-m", "asm", "--no-cache", "-f", "bin", "-o", ours, source])
    assert Path(ours).read_bytes() == Path(theirs).read_bytes()
    assert emu_asm < 10 * nasm, f"{emu_asm:.3f} s against {nasm:.3f} s"
