"""The cache of emu-asm, and its progress line."""

import io
import os
import time
from pathlib import Path

import pytest

from asm.assembler import Assembler
from asm.command import cache, cli
from asm.command.progress import Progress
from asm.options import Options


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cache, "LEAST_SECONDS", -1.0)
    Path("part.inc").write_text("db 1\n")
    os.utime("part.inc", (0, 0))  # written long before it is assembled
    path = Path("t.asm")
    path.write_text('%include "part.inc"\ndb 300\n')
    return path


def entries() -> list[str]:
    return os.listdir(cache.folder()) if cache.folder().exists() else []


def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of sources that are assembled from now on."""
    seen: list[str] = []
    start = Assembler.__init__

    def noted(self: Assembler, name: str, *rest: object, **named: object) -> None:
        seen.append(name)
        start(self, name, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Assembler, "__init__", noted)
    return seen


def test_what_has_not_changed_comes_from_the_cache(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["-l", "t.lst", "-o", "t.bin", "t.asm"]) == 0
    assert len(entries()) == 1
    first = Path("t.bin").read_bytes(), Path("t.lst").read_text(), capsys.readouterr().err
    assert "exceeds bounds" in first[2]
    Path("t.bin").unlink()
    assembled = runs(monkeypatch)
    assert cli.main(["-l", "t.lst", "-o", "t.bin", "t.asm"]) == 0
    assert assembled == []
    assert (Path("t.bin").read_bytes(), Path("t.lst").read_text(), capsys.readouterr().err) == first
    assert cli.main(["--no-cache", "-o", "t.bin", "t.asm"]) == 0
    assert assembled == ["t.asm"]


@pytest.mark.parametrize("change", ["source", "include", "shadow", "option", "damage"])
def test_a_change_is_assembled(change: str, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("folder").mkdir()
    Path("part.inc").rename("folder/part.inc")
    command = ["-i", "folder", "-o", "t.bin", "t.asm"]
    assert cli.main(command) == 0
    assembled = runs(monkeypatch)
    if change == "source":
        source.write_text(source.read_text() + "nop\n")
    elif change == "include":
        Path("folder/part.inc").write_text("db 2\n")
    elif change == "shadow":
        Path("part.inc").write_text("db 3\n")
    elif change == "option":
        command.insert(0, "-O0")
    else:
        (cache.folder() / entries()[0]).write_bytes(b"{nonsense")
    assert cli.main(command) == 0
    assert assembled == ["t.asm"]


@pytest.mark.parametrize("text", ["db __?TIME?__", "db %!HOME", "%ifenv HOME\ndb 1\n%endif", "nonsense here"])
def test_what_depends_on_more_than_files_is_not_kept(text: str, source: Path) -> None:
    source.write_text(text.replace("%!HOME", "'%!HOME'") if "db %" in text else text)
    if "db %" in text:
        source.write_text("%defstr home %!HOME\ndb home\n")
    cli.main(["-o", "t.bin", "t.asm"])
    assert entries() == []


def test_what_is_written_meanwhile_is_not_kept(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor that saves an include after it was read: the cache would have the new text with the old bytes."""
    finish = Assembler.finish

    def late(self: Assembler) -> None:
        Path("part.inc").write_text("db 2\n")
        finish(self)

    with monkeypatch.context() as patched:
        patched.setattr(Assembler, "finish", late)
        assert cli.main(["-o", "t.bin", "t.asm"]) == 0
    assert Path("t.bin").read_bytes() == b"\x01\x2c"
    assert cli.main(["-o", "t.bin", "t.asm"]) == 0
    assert Path("t.bin").read_bytes() == b"\x02\x2c"


def test_old_entries_go(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_ENTRIES", 3)
    for n in range(5):
        source.write_text(f"db {n}\n")
        assert cli.main(["-o", "t.bin", "t.asm"]) == 0
    assert len(entries()) == 3


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_after_a_while_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asm.command.progress.FIRST", 0.01)
    monkeypatch.setattr("asm.command.progress.NEXT", 0.01)
    stream = Terminal()
    assembler = Assembler("long.asm", "nop\n" * 10, Options())
    with Progress(stream) as progress:
        progress.watch(assembler)
        while "long.asm" not in stream.getvalue():
            time.sleep(0.01)
    assert "long.asm: line 0 of 10 (0%)" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")
    progress.watch(assembler)
    assembler.preprocessor.frames.clear()
    assert progress.text() == "long.asm: 0 statements, round 2, settling the layout"


def test_no_terminal_no_progress() -> None:
    stream = io.StringIO()
    with Progress(stream) as progress:
        progress.watch(Assembler("a.asm", "", Options()))
    assert stream.getvalue() == ""
