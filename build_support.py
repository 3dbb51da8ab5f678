"""The build's own steps: each command is rerun only where one of its inputs is newer than its output.

setuptools compiles the C files of an extension one after another and knows nothing of headers. Here every Cython and C
compilation is a `Step` with the dependency file that the compiler itself writes, and the steps run on all cores.
All paths are relative to the project's root, which is the current directory of every build.
"""

import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from setuptools import Command, Extension
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, SetupError

log = logging.getLogger(__name__)

BUILD = Path("build")
GENERATED = BUILD / "generated"
GENERATED_TABLES = (GENERATED / "decode_table.inc", GENERATED / "handlers.inc")
CORE = "emu._core"

# The three builds. Without optimisation and under the sanitizers gcc makes real calls of the handlers' tail calls, so
# those two go through the trampoline (EMU_TRAMPOLINE).
FLAVOURS = {
    "release": ("-O2", "-g1", "-DNDEBUG"),
    "debug": ("-O1", "-g", "-DEMU_TRAMPOLINE"),
    "sanitize": (
        "-O1",
        "-g",
        "-DEMU_TRAMPOLINE",
        "-fno-omit-frame-pointer",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
    ),
}
C_FLAGS = (
    "-std=gnu11",
    "-foptimize-sibling-calls",  # the handlers' tail calls
    "-fno-strict-aliasing",  # guest memory is read as whatever the guest says it is
    "-fwrapv",
    "-fPIC",
    "-fvisibility=hidden",
)
WARNINGS = ("-Wall", "-Wextra", "-Wno-unused-parameter")
CYTHON_WARNINGS = (*WARNINGS, "-Wno-unused-function", "-Wno-missing-field-initializers", "-Wno-cast-function-type")
# Optimising Cython's code under the sanitizers takes five times as long. A face takes offsets as members of a null CPU.
CYTHON_FLAGS = {"sanitize": ("-O0", "-Wno-sign-compare", "-fno-sanitize=null")}


def flavour() -> str:
    """The build that the environment asks for: EMU_SANITIZE=1, EMU_DEBUG=1 or neither."""
    for name in ("sanitize", "debug"):
        if os.environ.get(f"EMU_{name.upper()}", "0") not in ("", "0"):
            return name
    return "release"


def extensions() -> list[Extension]:
    """emu._core, with the whole C core linked in, and one extension a chip, as far as they exist."""
    core = [path for path in (Path("emu/_core.pyx"), *sorted(Path("emu/core").glob("*.c"))) if path.exists()]
    found = [Extension(CORE, [str(path) for path in core])] if Path("emu/_core.pyx") in core else []
    chips = sorted(Path("emu/chips").glob("*.pyx"))
    return found + [Extension(f"emu.chips.{path.stem}", [str(path)]) for path in chips]


@dataclass(frozen=True)
class Step:
    """One command that makes `output` and writes the list of what it read to `depfile`, in make's syntax.

    `stamp` is what else the output depends on: the command itself and the tool's version.
    """

    name: str
    command: tuple[str, ...]
    output: Path
    depfile: Path
    stamp: str

    @property
    def stamp_file(self) -> Path:
        return self.output.with_name(self.output.name + ".stamp")

    def is_current(self) -> bool:
        try:
            made = self.output.stat().st_mtime_ns
            if self.stamp_file.read_text() != self.stamp:
                return False
            return all(Path(name).stat().st_mtime_ns < made for name in read_depfile(self.depfile))
        except OSError:
            return False

    def run(self) -> str | None:
        """Runs the command unless its output is current. Returns what it printed if it failed."""
        if self.is_current():
            return None
        log.info("%s", self.name)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self.stamp_file.unlink(missing_ok=True)
        started = time.time_ns()
        done = subprocess.run(self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            return f"{self.name} failed:\n{done.stdout}"
        if done.stdout.strip():
            log.warning("%s:\n%s", self.name, done.stdout.strip())
        # The output is as old as the start of the command, so that a source saved while it ran counts as newer.
        os.utime(self.output, ns=(started, started))
        self.stamp_file.write_text(self.stamp)
        return None


def read_depfile(path: Path) -> list[str]:
    """The prerequisites that a compiler's dependency file names; a space inside a name is escaped by a backslash.

    Cython's own declarations are left out: its version stands for them.
    """
    _, _, prerequisites = path.read_text().replace("\\\n", " ").partition(": ")
    names = [name.replace("\\ ", " ") for name in re.findall(r"(?:\\ |\S)+", prerequisites)]
    return [name for name in names if "/Cython/Includes/" not in name]


def run_steps(chains: Sequence[Sequence[Step]], jobs: int) -> None:
    """Runs chains of steps in parallel, each chain in its order up to its first failure; reports every failure.

    Raises:
        CompileError: with the output of each command that failed.
    """

    def run_chain(chain: Sequence[Step]) -> str | None:
        return next((failure for step in chain if (failure := step.run())), None)

    with ThreadPoolExecutor(jobs) as pool:
        failures = [failure for failure in pool.map(run_chain, chains) if failure]
    if failures:
        raise CompileError("\n".join(failures))


def generate_decode_tables() -> None:
    """Writes the C decode tables from asm/x86.tbl; a table whose text stays the same keeps its time."""
    sources = [path for name in ("x86.tbl", "table.py", "decode_tables.py") if (path := Path("asm", name)).exists()]
    if Path("asm/decode_tables.py") not in sources:
        return
    newest = max(path.stat().st_mtime_ns for path in sources)
    checked = GENERATED / "checked"
    if all(path.exists() for path in (checked, *GENERATED_TABLES)) and checked.stat().st_mtime_ns > newest:
        return
    log.info("generate decode tables from asm/x86.tbl")
    started = time.time_ns()
    fresh = GENERATED / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "asm.decode_tables", str(fresh)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CompileError(f"asm.decode_tables failed:\n{done.stdout}{done.stderr}")
    for path in fresh.iterdir():
        replace_if_changed(path, GENERATED / path.name)
    shutil.rmtree(fresh)
    checked.touch()
    os.utime(checked, ns=(started, started))


def replace_if_changed(source: Path, target: Path) -> None:
    """Moves source over target unless both hold the same bytes."""
    if not (target.exists() and target.read_bytes() == source.read_bytes()):
        os.replace(source, target)


class BuildExt(build_ext):
    """Compiles Cython and C in parallel, rebuilding only what changed; objects of all install modes are shared."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if flavour() != "release" and self.inplace:
            raise SetupError("a debug or sanitized build is never made in place: `EMU_DEBUG=1 make build`")
        self.build_temp = str(BUILD / flavour() / str(sys.implementation.cache_tag))
        self.jobs = int(self.parallel or os.cpu_count() or 1)
        self.compiler_command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        self.c_flags = (*FLAVOURS[flavour()], *C_FLAGS, *shlex.split(os.environ.get("CFLAGS", "")))
        python = dict.fromkeys((sysconfig.get_path("include"), sysconfig.get_path("platinclude")))
        self.includes = tuple(f"-I{path}" for path in (".", "emu/core", str(GENERATED)))
        self.python_includes = tuple(f"-isystem{path}" for path in python)

    def build_extensions(self) -> None:
        generate_decode_tables()
        chains = {extension.name: list(self.chains(extension)) for extension in self.extensions}
        everything = [chain for group in chains.values() for chain in group]
        # The longest first, so that no core waits for the last one.
        everything.sort(key=lambda chain: -Path(chain[0].command[-1]).stat().st_size * (10 if len(chain) > 1 else 1))
        run_steps(everything, self.jobs)
        for name, group in chains.items():
            self.link(name, [chain[-1].output for chain in group])

    def chains(self, extension: Extension) -> Iterator[list[Step]]:
        """The steps from each source of an extension to its object: cython then cc, or cc."""
        for source in map(Path, extension.sources):
            if source.suffix == ".pyx":
                cython = self.cython_step(source, extension.name)
                flags = (*CYTHON_FLAGS.get(flavour(), ()), *self.python_includes, *CYTHON_WARNINGS)
                yield [cython, self.cc_step(cython.output, flags)]
            else:
                yield [self.cc_step(source, WARNINGS)]

    def cython_step(self, source: Path, module: str) -> Step:
        output = BUILD / "cython" / source.with_suffix(".c")
        flags = ("-3", "-X", "auto_pickle=False", "--depfile", "--module-name", module, "-I", ".", "-o", str(output))
        command = (sys.executable, "-m", "cython", *flags, str(source))
        stamp = f"{metadata.version('cython')} {shlex.join(flags)}"
        return Step(f"cython {source}", command, output, output.with_name(output.name + ".dep"), stamp)

    def cc_step(self, source: Path, flags: Sequence[str]) -> Step:
        output = Path(self.build_temp) / source.with_suffix(".o")
        depfile = output.with_suffix(".d")
        command = (*self.compiler_command, *self.c_flags, *flags, *self.includes, "-MMD", "-MF", str(depfile))
        command = (*command, "-c", "-o", str(output), str(source))
        return Step(f"cc {source}", command, output, depfile, shlex.join(command))

    def link(self, name: str, objects: list[Path]) -> None:
        """Links an extension where an object is newer, then copies it to where this install mode wants it."""
        linked = Path(self.build_temp) / self.get_ext_filename(name)
        command = (*self.compiler_command, "-shared", *self.c_flags, "-o", str(linked), *map(str, objects), "-lm")
        stamp = linked.with_name(linked.name + ".stamp")
        newest = max(path.stat().st_mtime_ns for path in objects)
        current = linked.exists() and linked.stat().st_mtime_ns > newest
        if not (current and stamp.exists() and stamp.read_text() == shlex.join(command)):
            if name == CORE:
                self.check_core_is_complete([path for path in objects if path.parent.name == "core"])
            log.info("link %s", name)
            linked.parent.mkdir(parents=True, exist_ok=True)
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            if done.returncode:
                raise LinkError(f"link {name} failed:\n{done.stdout}")
            stamp.write_text(shlex.join(command))
        wanted = self.get_ext_fullpath(name)
        self.mkpath(os.path.dirname(wanted))
        self.copy_file(str(linked), wanted)

    def check_core_is_complete(self, objects: list[Path]) -> None:
        """The C core linked alone must define all it uses: no instruction body missing, nothing of Python.

        The extension itself cannot be linked with -z defs, since Python's symbols come from the interpreter.
        """
        if not objects:
            return
        trial = Path(self.build_temp) / "core_alone.so"
        command = (*self.compiler_command, "-shared", *self.c_flags, "-Wl,-z,defs", "-o", str(trial))
        done = subprocess.run((*command, *map(str, objects), "-lm"), capture_output=True, text=True, check=False)
        trial.unlink(missing_ok=True)
        if done.returncode:
            missing = sorted(set(re.findall(r"undefined reference to `([^']+)'", done.stderr)))
            if missing:
                raise LinkError(f"the C core uses {len(missing)} names that it does not define: {' '.join(missing)}")
            raise LinkError(f"the C core does not link alone:\n{done.stderr}")


class Build(build):
    """`build` with the project's data steps; a debug or sanitized build gets a folder of its own."""

    sub_commands = [*build.sub_commands, ("build_data", None)]  # noqa: RUF012 (setuptools' own declaration)

    def finalize_options(self) -> None:
        if flavour() != "release":
            self.build_lib = str(BUILD / flavour() / "lib")
        super().finalize_options()


def build_vmcs_include(folder: Path) -> None:
    """Writes the VMCS, exit reasons and MSRs as the assembler's vmcs.inc, which the sources of bios/ can %include."""
    from emu.definitions import assembler_include

    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / "vmcs.fresh"
    fresh.write_text(assembler_include())
    replace_if_changed(fresh, folder / "vmcs.inc")
    fresh.unlink(missing_ok=True)


def build_models(folder: Path) -> list[Path]:
    """Resolves the processor models against the instruction table; an unchanged one keeps its time."""
    from asm import table
    from emu.model_compiler import compile_model

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    texts = {source.stem: source.read_text() for source in sorted(Path("emu/models").glob("*.toml"))}
    for name in texts:
        target = folder / f"{name}.json"
        fresh = folder / f"{name}.fresh"
        fresh.write_text(compile_model(name, texts, table.FORMS, table.PROCESSORS, table.FEATURES))
        replace_if_changed(fresh, target)
        fresh.unlink(missing_ok=True)
        written.append(target)
    return written


class BuildData(Command):
    """Makes the package data that is built, not written: parser cache, processor models by row, firmware images."""

    description = "save the compiled grammar, resolve the processor models, assemble the firmware"
    user_options = [("inplace", "i", "write into the source tree")]  # noqa: RUF012 (setuptools' own declaration)
    boolean_options = ["inplace"]  # noqa: RUF012

    def initialize_options(self) -> None:
        self.build_lib: str | None = None
        self.inplace = False
        self.editable_mode = False
        self.written: list[Path] = []

    def finalize_options(self) -> None:
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self) -> None:
        top = Path("." if self.inplace or self.editable_mode else str(self.build_lib))
        if Path("asm/parse.py").exists():
            from asm.parse import build_grammar_cache

            self.written += [Path(path) for path in build_grammar_cache(top / "asm")]
        build_vmcs_include(GENERATED)
        if Path("bios/build.py").exists():
            from bios.build import build_firmware

            self.written += [Path(path) for path in build_firmware(top / "emu" / "firmware")]
        self.written += build_models(top / "emu" / "models")

    def get_outputs(self) -> list[str]:
        return [str(path) for path in self.written]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return [str(path) for folder in ("bios", "asm") for path in Path(folder).rglob("*") if path.suffix in SOURCES]


SOURCES = (".asm", ".inc", ".mac", ".tbl", ".lark")
