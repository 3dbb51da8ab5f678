"""NASM as the oracle of single lines."""

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

NasmLines = Callable[..., list[bytes | None]]


@pytest.fixture
def nasm_lines(tmp_path: Path) -> NasmLines:
    """Assembles each line by NASM: its bytes, or None where NASM refuses it."""
    nasm = shutil.which("nasm")
    if nasm is None:
        pytest.skip("nasm is not installed")

    def assemble(lines: Sequence[str], bits: int, origin: int = 0, flag: str = "-Ox") -> list[bytes | None]:
        source, binary, listing = (tmp_path / f"lines.{suffix}" for suffix in ("asm", "bin", "lst"))
        refused: set[int] = set()
        while True:
            texts = ["" if number in refused else line for number, line in enumerate(lines)]
            source.write_text("\n".join([f"bits {bits}", f"org {origin:#x}", *texts, "end: db 0"]) + "\n")
            command = [nasm, flag, "-w-all", "-f", "bin", "-o", binary, "-l", listing, source]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            errors = {int(match[1]) - 3 for match in re.finditer(r":(\d+): error:", result.stderr)}
            if not errors:
                break
            assert errors - refused, result.stderr
            refused |= errors
        assert result.returncode == 0, result.stderr
        starts: dict[int, int] = {}
        for match in re.finditer(r"^ *(\d+) ([0-9A-F]{8}) ", listing.read_text(), re.MULTILINE):
            starts.setdefault(int(match[1]) - 3, int(match[2], 16))
        code = binary.read_bytes()
        numbers = sorted(starts)
        ends = dict(zip(numbers, [starts[number] for number in numbers[1:]], strict=False))
        return [
            code[starts[number] : ends[number]] if number in starts else None if number in refused else b""
            for number in range(len(lines))
        ]

    return assemble


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither see nor fill the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
