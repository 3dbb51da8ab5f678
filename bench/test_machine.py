"""A machine of 64 MiB: from the start of the process to the first guest instruction, real firmware, snapshots."""

import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.images import rom
from bench.runners import cpu_seconds
from bench.yardstick import cpu_time, native_seconds
from emu import Machine

ROUNDS = 7
SEABIOS = Path("/usr/share/seabios/bios-256k.bin")
SEABIOS_INSTRUCTIONS = 15_000_000


def test_first_instruction(benchmark: Any) -> None:
    """The whole process `emu run`, which ends after one instruction."""
    command = [sys.executable, "-m", "emu", "run", "--serial", "null", "--max-instructions", "1"]
    seconds = []

    def start() -> None:
        seconds.append(cpu_seconds(command, ".")[0])

    benchmark.pedantic(start, rounds=ROUNDS)
    benchmark.extra_info["ms of CPU time"] = statistics.median(seconds) * 1e3
    bare = statistics.median(cpu_seconds([sys.executable, "-c", ""], ".")[0] for _ in range(ROUNDS))
    benchmark.extra_info["ratio"], benchmark.extra_info["to"] = bare / statistics.median(seconds), "python -c ''"


def test_built_in_firmware(benchmark: Any) -> None:
    """The firmware's own work, waiting included, which is skipped."""
    machines = []

    def power_on() -> tuple[tuple[Machine], dict[str, Any]]:
        machines.append(Machine(memory=64 << 20))
        return (machines[-1],), {}

    benchmark.pedantic(Machine.run, setup=power_on, rounds=ROUNDS)
    machine = Machine(memory=64 << 20)
    seconds = cpu_time(machine.run, repeat=1)
    benchmark.extra_info["guest MIPS"] = machine.instructions / seconds / 1e6
    benchmark.extra_info["ratio"], benchmark.extra_info["to"] = native_seconds() / seconds, "native loop"


def test_seabios(benchmark: Any) -> None:
    """A long run of compiled code: SeaBIOS from power-on, as Debian's package `seabios` has it."""
    if not SEABIOS.exists():
        pytest.skip(f"{SEABIOS} is what runs here: apt-get install seabios")

    def power_on() -> tuple[tuple[Machine], dict[str, Any]]:
        return (Machine(memory=64 << 20, firmware=SEABIOS.read_bytes()),), {}

    def run(machine: Machine) -> None:
        machine.run(instructions=SEABIOS_INSTRUCTIONS)
        assert machine.instructions == SEABIOS_INSTRUCTIONS

    benchmark.pedantic(run, setup=power_on, rounds=3)
    (machine,), _ = power_on()
    seconds = cpu_time(lambda: run(machine), repeat=1)
    benchmark.extra_info["guest MIPS"] = SEABIOS_INSTRUCTIONS / seconds / 1e6
    benchmark.extra_info["ratio"], benchmark.extra_info["to"] = native_seconds() / seconds, "native loop"


@pytest.mark.parametrize("verb", ["snapshot", "restore"])
def test_snapshot(benchmark: Any, verb: str) -> None:
    """After a run that has written 16 pages: only these are copied."""
    with Machine(memory=64 << 20, firmware=rom("memory", 1 << 31, False)) as machine:
        machine.run(instructions=100_000)
        base = machine.snapshot()

        def dirty() -> None:
            machine.run(instructions=100_000)

        action = machine.snapshot if verb == "snapshot" else lambda: machine.restore(base)
        benchmark.pedantic(action, setup=dirty, rounds=ROUNDS)
        dirty()
        seconds = cpu_time(action, repeat=1)
    benchmark.extra_info["ms of CPU time"] = seconds * 1e3
    benchmark.extra_info["ratio"], benchmark.extra_info["to"] = native_seconds() / seconds, "native loop"
