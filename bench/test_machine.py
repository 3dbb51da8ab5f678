"""A machine of 64 MiB: from the start of the process to the first guest instruction, and a long real run."""

import statistics
import sys
from typing import Any

from bench.runners import cpu_seconds
from bench.yardstick import cpu_time, native_seconds
from emu import Machine

ROUNDS = 7


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
