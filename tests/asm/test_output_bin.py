"""Where a flat binary's sections lie: image, map and refusals as NASM has them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asm.command.cli import main

NASM = shutil.which("nasm")
pytestmark = pytest.mark.skipif(NASM is None, reason="nasm is not installed")
# `...` stands for a line that shows where the section is.
SHOW = "dw $$, section..text.start"

LAYOUTS = {
    "a section before the others": "section .a start=0x10\n...\nsection .b start=0x8\n...",
    "one section somewhere": "section .a start=0x10\n...",
    "text has a start": "section .text start=0x7c00\n...\nsection .a start=0x7c20\n...\nsection .b\n...",
    "text is not the first": "section .text start=0x7c00\n...\nsection .a start=0x7b10\n...\nsection .b\n...",
    "text follows": "section .text follows=.z\n...\nsection .z\n...\nsection .y\n...",
    "a chain": "section .a follows=.b\n...\nsection .c follows=.a\n...\nsection .b\n...\nsection .d start=0x60\n...\n"
    "section .e\n...\nsection .f follows=.d\n...",
    "an alignment grows": "section .a align=16\n...\nsection .b align=4\n...\nsection .a align=8\n...\n"
    "section .b align=64\n",
    "virtual places": "org 0x7c00\nsection .text vstart=0x600\n...\nsection .y\n...\nsection .z valign=64\n...\n"
    "section .v vfollows=.text\n...",
    "empty sections": "section .a start=0x10\nsection .b start=0x8\n...\nsection .c start=0x8\n"
    "section .d start=0x20\n...",
    "bss lies behind": "section .bss\nx: resb 5\nsection .r nobits align=64\nr: resb 5\nsection .text\ndw x, r\n"
    "section .z\n...",
    "the same origin again": "org 0x100\norg 0x100\n...",
    "no special name": "section .nobits\n...",
    "a met alignment": "absolute 32\na: resb 32\nalign 32\nb: resb 1\nsection .text\ndw a, b",
}
REFUSED = {
    "overlap": "section .a start=0x10\ntimes 20 db 1\nsection .b start=0x18\ndb 2",
    "before the origin": "org 0x100\nsection .a start=0x10\ndb 1",
    "empty before the origin": "org 0x10\nsection .text start=0x8",
    "follows nothing": "section .a follows=.nosuch\ndb 1",
    "follows itself": "section .a follows=.a\ndb 1",
    "two follow one": "section .a follows=.text\ndb 1\nsection .b follows=.text\ndb 1",
    "virtual circle": "section .a vfollows=.b\ndb 1\nsection .b vfollows=.a\ndb 2",
    "start and follows": "section .a start=0 follows=.text\ndb 1",
    "vstart and vfollows": "section .a vstart=0 vfollows=.text\ndb 1",
    "alignment and start": "section .a align=16 start=5\ndb 1",
    "valign and vstart": "section .a valign=16 vstart=5\ndb 1",
    "start and alignment": "section .a start=5\ndb 1\nsection .a align=16",
    "another vstart": "section .a vstart=4\ndb 1\nsection .a vstart=8",
    "another origin": "org 5\norg 6",
    "code in absolute space": "absolute 5\nmov ax, bx",
    "data in absolute space": "absolute 5\ndb 1",
    "data at a place in absolute space": "x: nop\nabsolute x\ndb 1",
    "alignment in absolute space": "absolute 5\nresb 1\nalign 32",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_image_and_map_are_nasms(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.asm").write_text(f"[map all t.map]\n{LAYOUTS[name]}\n".replace("...", SHOW))
    subprocess.run([str(NASM), "-o", "t.bin", "t.asm"], check=True, timeout=60)
    theirs = Path("t.bin").read_bytes(), Path("t.map").read_text()
    assert main(["-o", "t.bin", "t.asm"]) == 0
    assert (Path("t.bin").read_bytes(), Path("t.map").read_text()) == theirs


@pytest.mark.parametrize("name", REFUSED)
def test_what_nasm_refuses(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.asm").write_text(REFUSED[name] + "\n")
    assert subprocess.run([str(NASM), "-o", "t.bin", "t.asm"], capture_output=True, timeout=60, check=False).returncode
    assert main(["-o", "t.bin", "t.asm"]) == 1


def test_sections_that_follow_each_other_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "t.asm"  # NASM does not end
    source.write_text("section .a follows=.b\ndb 1\nsection .b follows=.a\ndb 1\n")
    assert main(["-o", str(tmp_path / "t.bin"), str(source)]) == 1
    assert "section .a follows itself by way of others" in capsys.readouterr().err


@pytest.mark.parametrize(
    "lines", ["[map all stdout]", "[map]", "[map symbols stderr]", "[map brief]\n[map symbols t.map]"]
)
def test_where_the_map_goes(lines: str, tmp_path: Path) -> None:
    (tmp_path / "t.asm").write_text(f"{lines}\n%macro m 0\n%%x: nop\n%endmacro\nm\nstruc s\nendstruc\nistruc s\niend\n")
    said = []
    for command in ([str(NASM)], [sys.executable, "-m", "asm"]):
        line = [*command, "-o", "t.bin", "t.asm"]
        ran = subprocess.run(line, cwd=tmp_path, capture_output=True, check=True, timeout=60)
        said.append((ran.stdout, ran.stderr, sorted(path.name for path in tmp_path.iterdir())))
    assert said[0] == said[1]
