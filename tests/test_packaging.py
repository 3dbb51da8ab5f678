"""The build rebuilds only what changed, and the packages hold all that a run needs.

Every build here runs in a copy of the tree, build folder and file times included; the tree itself stays as it is.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RELEASE = {name: value for name, value in os.environ.items() if not name.startswith(("EMU_", "LD_PRELOAD", "PYTHON"))}
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "*.egg-info", "__pycache__", ".*_cache", "dist", "lib.*", "bench")
SOURCES_ONLY = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "*.so", "*.bin", "*.json", "*.cache")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=RELEASE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}"
    return done.stdout


def build(tree: Path) -> list[str]:
    """Builds in place and returns the steps that the build took: `cc FILE`, `cython FILE`, `link NAME`, ..."""
    output = run(sys.executable, "setup.py", "build_ext", "--inplace", "build_data", "--inplace", cwd=tree)
    return re.findall(r"^(?:cc|cython|link|generate) .*", output, re.MULTILINE)


@pytest.fixture(scope="module")
def built_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("tree") / "emu"
    shutil.copytree(ROOT, tree, ignore=NOT_COPIED)
    build(tree)
    return tree


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("sdist") / "emu"
    shutil.copytree(ROOT, tree, ignore=SOURCES_ONLY)
    run(sys.executable, "setup.py", "-q", "sdist", "--formats=gztar", cwd=tree)
    (archive,) = (tree / "dist").glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", folder, sdist, cwd=folder)
    (archive,) = folder.glob("*.whl")
    return archive


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment that holds the wheel and, borrowed from ours, what it depends on."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv/bin/python"
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-index", wheel, cwd=folder)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))", cwd=folder).strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("platlib") + "\n")
    return folder / "venv/bin"


def test_second_build_does_nothing(built_tree: Path) -> None:
    assert build(built_tree) == []


def test_one_line_change_rebuilds_one_file(built_tree: Path) -> None:
    source = built_tree / "emu/core/clock.c"
    source.write_text(source.read_text() + "\n")
    assert build(built_tree) == ["cc emu/core/clock.c", "link emu._core"]


def test_header_change_rebuilds_what_includes_it(built_tree: Path) -> None:
    header = built_tree / "emu/core/flags.h"
    header.touch()
    steps = build(built_tree)
    compiled = {step.split()[1] for step in steps if step.startswith("cc emu/core/")}
    objects = built_tree / "build/release" / str(sys.implementation.cache_tag) / "emu/core"
    users = {f"emu/core/{path.stem}.c" for path in objects.glob("*.d") if "flags.h" in path.read_text()}
    assert compiled == users
    assert "emu/core/clock.c" not in compiled
    assert "link emu._core" in steps


def test_declaration_change_rebuilds_every_chip(built_tree: Path) -> None:
    """The layout of a virtual table is not checked at import."""
    (built_tree / "emu/_core.pxd").touch()
    steps = build(built_tree)
    chips = {path.relative_to(built_tree) for path in (built_tree / "emu/chips").glob("*.pyx")}
    assert {f"cython {path}" for path in (*chips, Path("emu/_core.pyx"))} <= set(steps)


def test_instruction_table_change_reaches_the_decoder(built_tree: Path) -> None:
    """A comment changes the table's time but not the generated text: nothing is compiled again."""
    table = built_tree / "asm/x86.tbl"
    table.write_text(table.read_text() + "# a comment\n")
    assert build(built_tree) == ["generate decode tables from asm/x86.tbl"]


def test_missing_instruction_body_is_named(built_tree: Path) -> None:
    source = built_tree / "emu/core/clock.c"
    text = source.read_text()
    source.write_text(
        text + "\nvoid exec_absent(void);\nvoid clock_probe(void);\nvoid clock_probe(void) { exec_absent(); }\n"
    )
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=built_tree,
        env=RELEASE,
        capture_output=True,
        text=True,
        check=False,
    )
    source.write_text(text)
    build(built_tree)
    assert done.returncode != 0
    assert "does not define: exec_absent" in done.stderr


def test_sdist_holds_sources_and_nothing_built(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {
        str(path.relative_to(ROOT))
        for folder in ("asm", "emu", "bios", "tests")
        for path in (ROOT / folder).rglob("*")
        if path.suffix
        in (".py", ".pyx", ".pxd", ".pxi", ".pyi", ".c", ".h", ".def", ".tbl", ".lark", ".asm", ".inc", ".toml")
    }
    assert tracked - names == set()
    assert [name for name in names if name.endswith((".so", ".bin", ".json", ".cache", ".o"))] == []


def test_wheel_holds_what_a_run_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for wanted in (
        r"emu/_core\..*\.so",
        r"emu/chips/i8259\..*\.so",
        r"emu/firmware/.*\.bin",
        r"emu/_core\.pyi",
        r"emu/py\.typed",
        r"emu/models/.*\.json",
        r"asm/x86\.tbl",
        r"asm/grammar\.lark",
        r"asm/py\.typed",
    ):
        assert [name for name in names if re.fullmatch(wanted, name)], wanted
    assert [name for name in names if name.endswith((".c", ".h", ".pyx")) or name.startswith("tests")] == []


def test_fresh_environment_assembles(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "source.asm").write_text("bits 32\nadd eax, ebx\n")
    run(installed / "emu-asm", "-f", "bin", "-o", "out.bin", "source.asm", cwd=tmp_path)
    assert (tmp_path / "out.bin").read_bytes() == b"\x01\xd8"


def test_fresh_environment_boots_the_firmware(installed: Path, tmp_path: Path) -> None:
    output = run(installed / "emu", "run", "--report", "report.json", cwd=tmp_path)
    assert (tmp_path / "report.json").exists(), output
