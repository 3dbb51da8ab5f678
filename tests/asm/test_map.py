"""The map of a flat binary is NASM's, as an option and as a directive of the source."""

import shutil
import subprocess
from pathlib import Path

import pytest

from asm.command.cli import main

NASM = shutil.which("nasm")
SOURCE = (Path(__file__).parent / "corpus" / "mapped.asm").read_text()
pytestmark = pytest.mark.skipif(NASM is None, reason="nasm is not installed")


@pytest.mark.parametrize("parts", ["all", "brief", "sections", "segments", "symbols", "brief symbols", ""])
def test_the_maps_parts(parts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.asm").write_text(f"[map {parts} t.map]\n{SOURCE}")
    subprocess.run([str(NASM), "-w-all", "-f", "bin", "-o", "t.bin", "t.asm"], check=True, timeout=60)
    theirs = Path("t.map").read_text()
    Path("t.map").unlink()
    assert main(["-w-all", "-o", "t.bin", "t.asm"]) == 0
    assert Path("t.map").read_text() == theirs


def test_the_option_writes_the_whole_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.asm").write_text(f"[map all mapped.map]\n{SOURCE}")
    assert main(["-w-all", "-o", "t.bin", "--map", "other.map", "t.asm"]) == 0
    assert Path("other.map").read_text() == Path("mapped.map").read_text()


@pytest.mark.parametrize("options", [["-M"], ["-M", "-MT", "x"], ["-M", "-MP"], ["-M", "-MQ", "y"], ["-M", "-MG"]])
def test_dependencies_are_nasms(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.inc").write_text("db 1\n")
    Path("b.inc").write_text('%include "a.inc"\n')
    Path("t.asm").write_text('%include "b.inc"\nincbin "a.inc"\n')
    command = [str(NASM), *options, "t.asm"]
    theirs = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert main([*options, "t.asm"]) == 0
    assert capsys.readouterr().out == theirs
