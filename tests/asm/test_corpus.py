"""Sources that reach every feature, byte for byte and line for line as NASM has them."""

import shutil
import subprocess
from pathlib import Path

import pytest

import asm
from asm.command.cli import main
from asm.options import Options
from asm.preprocessor.frames import decode
from asm.program import run

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.asm"))
NASM = shutil.which("nasm")
needs_nasm = pytest.mark.skipif(NASM is None, reason="nasm is not installed")

# NASM's listing says 0 for `section.NAME.start`, which it does not know yet, and has a warning that we do not give, of
# a prefix in a repetition.
LISTED_DIFFERENTLY = {"sections", "nobits", "directives"}


ON_ADDRESSES = {"positions"}  # it has conditions on addresses, which -E does not know


def nasm(source: Path, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(NASM), "-f", "bin", *options, "-o", str(output), source.name]
    return subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=False, timeout=60)


@needs_nasm
@pytest.mark.parametrize("source", CORPUS, ids=lambda path: path.stem)
@pytest.mark.parametrize("flag", ["-Ox", "-O1", "-O0"])
def test_bytes_are_nasms(source: Path, flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = nasm(source, tmp_path / "nasm.bin", flag)
    assert result.returncode == 0, result.stderr
    monkeypatch.chdir(source.parent)
    level = {"-Ox": 2, "-O1": 1, "-O0": 0}[flag]
    program = run(source.name, decode(source.read_bytes()), Options(optimise=level))
    assert program.binary.hex(" ") == (tmp_path / "nasm.bin").read_bytes().hex(" ")


@needs_nasm
@pytest.mark.parametrize(
    "source", [path for path in CORPUS if path.stem not in LISTED_DIFFERENTLY], ids=lambda p: p.stem
)
def test_listing_is_nasms(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = tmp_path / "nasm.lst"
    assert nasm(source, tmp_path / "nasm.bin", "-l", str(listing)).returncode == 0
    monkeypatch.chdir(source.parent)
    assert asm.assemble_file(source.name).listing == listing.read_text(errors="surrogateescape")


@needs_nasm
@pytest.mark.parametrize("source", [path for path in CORPUS if path.stem not in ON_ADDRESSES], ids=lambda p: p.stem)
def test_preprocessed_source_is_nasms(
    source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.parent)
    theirs = subprocess.run([str(NASM), "-E", source.name], capture_output=True, text=True, check=False)
    assert main(["-E", source.name]) == theirs.returncode
    assert capsys.readouterr().out == theirs.stdout


@needs_nasm
@pytest.mark.parametrize("name", ["bootsector", "labels", "expressions", "relaxation"])
def test_an_assembled_source_survives_being_preprocessed_first(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asm.options import Options
    from asm.output.preprocessed import preprocess

    source = Path(__file__).parent / "corpus" / f"{name}.asm"
    lines, assembler, _ = preprocess(source.name, source.read_text(), Options(preprocess_only=True))
    assert assembler.errors == []
    preprocessed = tmp_path / f"{name}.asm"
    preprocessed.write_text("\n".join(lines) + "\n")
    assert nasm(preprocessed, tmp_path / "nasm.bin").returncode == 0
    assert (tmp_path / "nasm.bin").read_bytes() == asm.assemble_file(source).binary


def test_the_boot_sector_needs_no_oracle() -> None:
    program = asm.assemble_file(Path(__file__).parent / "corpus" / "bootsector.asm")
    assert len(program.binary) == 512
    assert program.binary[-2:] == b"\x55\xaa"
    assert program.origin == 0x7C00
    assert program.symbols["start"] == 0x7C00
    assert program.binary[:3] == b"\xeb\x09\x90"
