"""Who can run a kernel: this emulator, and each of its peers that is installed. Times are CPU seconds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Protocol

from bench.images import DEBUG_EXIT, DEBUGCON, KERNEL, STACK, Case, kernel, rom
from emu import Machine

MEMORY = 4 << 20


@dataclass(frozen=True)
class Run:
    """What a run came to: CPU seconds, start-up included where that is a process, and the kernel's result."""

    seconds: float
    result: int
    instructions: int = 0


class Runner(Protocol):
    """Runs kernels."""

    name: str

    def version(self) -> str | None:
        """The version; None where it is not installed."""

    def runs(self, case: Case) -> bool:
        """Can it run this one?"""

    def run(self, case: Case, turns: int) -> Run:
        """Runs a kernel for that many turns."""


def printed_result(output: bytes) -> int:
    """The number that boot.asm prints."""
    match = re.search(rb"#([0-9A-F]{8})#", output)
    if not match:
        raise RuntimeError(f"the image did not come to its end: {output[-500:].decode(errors='replace')}")
    return int(match[1], 16)


class Emu:
    """This emulator, in this process."""

    name = "emu"

    def version(self) -> str | None:
        return metadata.version("emu")

    def runs(self, case: Case) -> bool:
        return True

    def run(self, case: Case, turns: int) -> Run:
        image = rom(case.name, turns, case.paging)
        with Machine(memory=MEMORY, firmware=image, debugcon=DEBUGCON, debug_exit=DEBUG_EXIT) as machine:
            started = time.thread_time()
            machine.run()
            seconds = time.thread_time() - started
            assert machine.debugcon is not None
            return Run(seconds, printed_result(machine.debugcon.output), machine.instructions)


class Unicorn:
    """Unicorn through its Python binding. It has no hook for interrupts here, so that it delivers none."""

    name = "unicorn"
    page_directory, page_table, back = 0x1000, 0x2000, 0x9000

    def version(self) -> str | None:
        return metadata.version("unicorn") if util.find_spec("unicorn") else None

    def runs(self, case: Case) -> bool:
        return case.name != "interrupts"

    def run(self, case: Case, turns: int) -> Run:
        import unicorn
        from unicorn import x86_const as x86

        uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        uc.mem_map(0, 1 << 20)
        uc.mem_write(KERNEL, kernel(case.name))
        uc.mem_write(STACK - 4, self.back.to_bytes(4, "little"))
        uc.reg_write(x86.UC_X86_REG_ESP, STACK - 4)
        uc.reg_write(x86.UC_X86_REG_ECX, turns)
        if case.paging:
            uc.mem_write(self.page_directory, (self.page_table | 3).to_bytes(4, "little"))
            uc.mem_write(self.page_table, b"".join((page << 12 | 3).to_bytes(4, "little") for page in range(1024)))
            uc.reg_write(x86.UC_X86_REG_CR3, self.page_directory)
            uc.reg_write(x86.UC_X86_REG_CR0, uc.reg_read(x86.UC_X86_REG_CR0) | 0x80000001)
        started = time.thread_time()
        uc.emu_start(KERNEL, self.back)
        return Run(time.thread_time() - started, uc.reg_read(x86.UC_X86_REG_EAX))


def cpu_seconds(command: list[str], folder: str) -> tuple[float, bytes]:
    """Runs a program, without a look at its exit status: the CPU time that it took, and what it wrote."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0  # it is no longer there to be waited for
        output.seek(0)
        return usage.ru_utime + usage.ru_stime, output.read()


class Process:
    """A peer that is a program of its own."""

    name: str
    program: str
    version_options: tuple[str, ...]

    def version(self) -> str | None:
        if not shutil.which(self.program):
            return None
        done = subprocess.run(
            [self.program, *self.version_options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        match = re.search(r"\d+\.\d+[.\d]*", done.stdout)
        return match[0] if match else "of an unknown version"

    def runs(self, case: Case) -> bool:
        return True

    def command(self, folder: Path) -> list[str]:
        """What runs image.rom of the folder."""
        raise NotImplementedError

    def run(self, case: Case, turns: int) -> Run:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "image.rom").write_bytes(rom(case.name, turns, case.paging))
            seconds, output = cpu_seconds(self.command(Path(folder)), folder)
        return Run(seconds, printed_result(output))


class Qemu(Process):
    """QEMU's translator."""

    name = "qemu"
    program = "qemu-system-i386"
    version_options = ("--version",)

    def command(self, folder: Path) -> list[str]:
        options = f"-accel tcg -nodefaults -display none -m 4 -debugcon stdio -bios {folder}/image.rom"
        return [self.program, *options.split(), "-device", f"isa-debug-exit,iobase={DEBUG_EXIT},iosize=4"]


BOCHS_SETTINGS = """
megs: 4
romimage: file=image.rom
vgaromimage: file=display.rom
cpu: model=corei7_haswell_4770, reset_on_triple_fault=0
clock: sync=none
display_library: rfb, options="timeout=0"
port_e9_hack: enabled=1
sound: driver=dummy
log: log.txt
"""


class Bochs(Process):
    """Bochs as Debian packages it, with its debugger; without a display."""

    name = "bochs"
    program = "bochs"
    version_options = ("--help",)

    def command(self, folder: Path) -> list[str]:
        (folder / "settings").write_text(BOCHS_SETTINGS)
        (folder / "display.rom").write_bytes(b"\x55\xaa\x01".ljust(512, b"\0"))  # it does not start without one
        (folder / "debugger").write_text("c\n")
        return [self.program, "-q", "-f", "settings", "-rc", "debugger"]


PEERS: tuple[Runner, ...] = (Unicorn(), Bochs(), Qemu())


def installed_peers() -> list[Runner]:
    """The peers that are there."""
    return [peer for peer in PEERS if peer.version()]


SHORTEST = 0.25  # CPU seconds a measurement must take at least


def turns_for(runner: Runner, case: Case, seconds: float = SHORTEST) -> int:
    """A number of turns that takes the runner about that long, its start-up not counted."""
    start_up = runner.run(case, 1).seconds
    turns = 1
    while True:
        taken = runner.run(case, turns).seconds - start_up
        if taken >= seconds:
            return turns
        turns = max(turns + 1, min(turns * 64, int(turns * 1.3 * seconds / taken) if taken > 0.01 else turns * 64))


def seconds_per_turn(runner: Runner, case: Case, turns: int) -> tuple[float, int]:
    """CPU seconds a turn takes, as the difference of two lengths; and the kernel's result after `turns`."""
    short, long = runner.run(case, 1), runner.run(case, turns)
    return (long.seconds - short.seconds) / (turns - 1), long.result


def instructions_per_turn(case: Case) -> float:
    """Guest instructions of a turn, as this emulator counts them: an iteration of REP is one."""
    short, long = Emu().run(case, 1), Emu().run(case, 101)
    return (long.instructions - short.instructions) / 100
