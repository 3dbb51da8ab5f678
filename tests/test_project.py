"""Who may import whom, in Python, Cython and C, and that the stubs say what the extensions do.

The order below is the design: a file uses only what stands above it. A new file is placed here when it is written.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Top-level modules and sub-packages of emu. The package's own face imports on first use, so it stands at the end.
EMU_LAYERS = (
    {"errors"},
    {"definitions", "models", "stop"},
    {"model_compiler"},
    {"_core"},
    {"bmc", "chips", "host"},
    {"snapshot"},
    {"board"},
    {"multiboot", "vm_log"},
    {"machine"},
    {"debug"},
    {"builtin"},
    {"commands"},
    {"cli", "pytest_plugin"},
    {"__init__", "__main__"},
)
ASM_USERS = {"debug", "cli", "pytest_plugin"}
# What a lower layer may ask for inside a function: explaining and disassembling are services that any object offers.
SERVICES = {"debug"}

# The core's files, the headers that all share first; a file may include headers of its own layer and of those above.
CORE_LAYERS = (
    {"arch.h", "form.h", "fpu.h", "vmx.h"},
    {"bus.h", "clock.h", "timing.h"},
    {"cpu.h"},
    {"flags.h"},
    {"insn.h"},
    {"access.h"},
    {"exec.h"},
    {"block.h", "decode.h", "operations.h"},
    {"bus.c", "clock.c", "cpu.c", "debug.c", "last_branch.c", "timing.c"},
    {"access.c", "block.c", "decode.c", "ept.[ch]", "paging.[ch]", "segment.[ch]"},
    {"interrupt.[ch]", "lapic.[ch]", "task.[ch]"},
    {"exec_*.[ch]"},
    {"vmx_*.[ch]"},
    {"run.[ch]"},
)
GENERATED_INCLUDES = {"decode_table.inc", "handlers.inc"}

# Read by setup.py before anything is installed.
STANDARD_LIBRARY_ONLY = ("asm/table.py", "asm/decode_tables.py")
# Slow to import (0.17 s and 0.36 s), so imported where first needed.
DEFERRED_PACKAGES = {"numpy", "lark"}


class Import(NamedTuple):
    module: str
    line: int
    in_function: bool


def sources(*patterns: str) -> list[Path]:
    """Files of the tree, relative to its root."""
    return sorted(path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern))


def python_imports(path: Path) -> Iterator[Import]:
    """Every import of a Python file but those under TYPE_CHECKING; relative ones as absolute names."""
    package = path.parent.parts

    def walk(node: ast.AST, in_function: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(name.name, node.lineno, in_function)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *filter(None, [node.module])))
            for name in node.names:
                yield Import(f"{module}.{name.name}", node.lineno, in_function)
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(ast.parse((ROOT / path).read_text()), False)


CYTHON_IMPORT = re.compile(r"^(\s*)(?:from\s+([\w.]+)\s+c?import\s+\(?([\w, ]*)|c?import\s+([\w., ]+))")


def cython_imports(path: Path) -> Iterator[Import]:
    """Every import and cimport of a Cython file, which ast cannot parse."""
    for line, text in enumerate((ROOT / path).read_text().splitlines(), 1):
        if match := CYTHON_IMPORT.match(text):
            indent, package, names, modules = match.groups()
            for name in (names if package else modules).split(",") or [""]:
                name = name.split(" as ")[0].strip()
                module = ".".join(filter(None, [package, name]))
                yield Import(module, line, bool(indent))


def imports(path: Path) -> Iterator[Import]:
    return python_imports(path) if path.suffix == ".py" else cython_imports(path)


def top(module: str) -> str:
    return module.split(".")[0]


def part_of_emu(path: Path) -> str:
    """The top-level module or sub-package a file belongs to; emu/face holds the parts that _core.pyx includes."""
    part = path.parts[1].split(".")[0]
    return "_core" if part == "face" else part


def emu_layer(part: str) -> int | None:
    return next((rank for rank, names in enumerate(EMU_LAYERS) if part in names), None)


def core_layer(file: str) -> int | None:
    return next(
        (rank for rank, names in enumerate(CORE_LAYERS) if any(fnmatchcase(file, name) for name in names)), None
    )


def test_asm_imports_nothing_of_ours() -> None:
    wrong = [
        f"{path}:{use.line} imports {use.module}"
        for path in sources("asm/**/*.py")
        for use in imports(path)
        if top(use.module) not in {*sys.stdlib_module_names, "asm", "lark", "pygments"}
    ]
    assert wrong == []


def test_build_needs_only_the_standard_library_to_read_the_instruction_table() -> None:
    def closure(path: Path, seen: dict[Path, None]) -> dict[Path, None]:
        seen[path] = None
        for use in imports(path):
            for name in (use.module, use.module.rpartition(".")[0]):
                found = Path(name.replace(".", "/") + ".py")
                if top(name) == "asm" and (ROOT / found).exists() and found not in seen:
                    closure(found, seen)
        return seen

    wrong = [
        f"{path}:{use.line} imports {use.module}"
        for start in sources(*STANDARD_LIBRARY_ONLY)
        for path in closure(start, {})
        for use in imports(path)
        if top(use.module) not in {*sys.stdlib_module_names, "asm"}
    ]
    assert wrong == []


def test_bios_imports_only_asm() -> None:
    wrong = [
        f"{path}:{use.line} imports {use.module}"
        for path in sources("bios/**/*.py")
        for use in imports(path)
        if top(use.module) not in {*sys.stdlib_module_names, "asm", "bios"}
    ]
    assert wrong == []


def test_every_module_of_emu_has_its_layer() -> None:
    parts = {part_of_emu(path) for path in sources("emu/*.py", "emu/*.pyx", "emu/*/*.py", "emu/*/*.pyx")}
    assert {part for part in parts if emu_layer(part) is None} == set()


def test_emu_imports_only_from_layers_below() -> None:
    wrong = []
    for path in sources("emu/**/*.py", "emu/**/*.pyx", "emu/**/*.pxd", "emu/**/*.pxi"):
        part = part_of_emu(path)
        own = emu_layer(part)
        if own is None or part == "__init__":
            continue
        for use in imports(path):
            if top(use.module) == "asm" and not (part in ASM_USERS and use.in_function):
                wrong.append(f"{path}:{use.line} imports {use.module}: only {sorted(ASM_USERS)} do, inside a function")
            if top(use.module) != "emu":
                continue
            used = (use.module + ".").split(".")[1]
            other = emu_layer(used)
            if used in SERVICES and use.in_function:
                continue
            if used != part and (other is None or other >= own):
                wrong.append(f"{path}:{use.line} imports {use.module}, which is not below {part}")
    assert wrong == []


def test_slow_packages_are_imported_where_needed() -> None:
    wrong = [
        f"{path}:{use.line} imports {use.module}"
        for path in sources("emu/**/*.py", "emu/**/*.pyx", "emu/**/*.pxi", "asm/**/*.py")
        for use in imports(path)
        if top(use.module) in DEFERRED_PACKAGES and not use.in_function
    ]
    assert wrong == []


def test_chips_see_only_what_the_core_hands_them() -> None:
    """A direct call of a C function of the core would fail when the chip is imported."""
    allowed = re.compile(r"(emu\._core|emu\.chips|libc|cpython|cython|posix)(\.|$)")
    wrong = []
    for path in sources("emu/chips/*.pyx", "emu/chips/*.pxd", "emu/chips/*.pxi"):
        for line, text in enumerate((ROOT / path).read_text().splitlines(), 1):
            cimport = re.match(r"\s*(?:from\s+([\w.]+)\s+cimport|cimport\s+([\w.]+))", text)
            if cimport and not allowed.match(cimport[1] or cimport[2]):
                wrong.append(f"{path}:{line} {text.strip()}")
            if re.match(r"\s*cdef extern from\s+[\"'](?!<)", text):
                wrong.append(f"{path}:{line} {text.strip()}")
    assert wrong == []


def core_includes() -> Iterator[tuple[Path, int, str]]:
    for path in sources("emu/core/*.[ch]", "emu/core/*.def", "emu/core/*.inc"):
        for line, text in enumerate((ROOT / path).read_text().splitlines(), 1):
            if match := re.match(r'\s*#\s*include\s*([<"][^>"]+)', text):
                yield path, line, match[1]


def test_every_file_of_the_core_has_its_layer() -> None:
    assert [str(path) for path in sources("emu/core/*.[ch]") if core_layer(path.name) is None] == []


def test_core_includes_only_what_stands_above() -> None:
    wrong = []
    for path, line, target in core_includes():
        name = Path(target[1:]).name
        own, other = core_layer(path.name), core_layer(name)
        if target[0] == "<" or name in GENERATED_INCLUDES or name.endswith(".def"):
            continue
        if own is not None and (other is None or other > own):
            wrong.append(f"{path}:{line} includes {name}")
    assert wrong == []


def test_core_knows_no_python() -> None:
    assert [f"{path}:{line}" for path, line, target in core_includes() if "python" in target.lower()] == []


def test_instruction_bodies_leave_vm_exits_to_the_run_loop() -> None:
    """exec_* and interrupt.c return STATUS_VMEXIT; run.c alone acts on it."""
    wrong = [
        f"{path}:{text.count(chr(10), 0, match.start()) + 1} {match[0]}"
        for path in sources("emu/core/exec_*.c", "emu/core/interrupt.c")
        for text in [re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), (ROOT / path).read_text(), flags=re.S)]
        for match in re.finditer(r"\bvmx_\w+\s*\(", text)
    ]
    assert wrong == []


def extension_modules() -> list[str]:
    return [".".join(path.with_suffix("").parts) for path in sources("emu/_core.pyx", "emu/chips/*.pyx")]


def test_every_extension_has_a_stub() -> None:
    missing = [name for name in extension_modules() if not (ROOT / name.replace(".", "/")).with_suffix(".pyi").exists()]
    assert missing == []


@pytest.mark.skipif(not extension_modules(), reason="no extension in this tree")
def test_stubs_agree_with_the_built_extensions() -> None:
    command = [sys.executable, "-m", "mypy.stubtest", *extension_modules(), "--concise"]
    command += ["--mypy-config-file", "pyproject.toml", "--allowlist", "tests/typing/stubtest_allowlist.txt"]
    command += ["--ignore-unused-allowlist", "--ignore-disjoint-bases"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
