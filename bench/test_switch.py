"""VM round trips a second on the host: a CPUID exit, three VMREADs, one VMWRITE, VMRESUME."""

import tempfile
import time
from pathlib import Path
from typing import Any

from bench.runners import Bochs, cpu_seconds
from bench.yardstick import native_seconds
from emu import Machine
from emu.builtin.switch_cost import image

ROUNDS = 3
SHORT, LONG = 1_000, 400_000  # round trips; the difference leaves start-up out
SHORT_PEER, LONG_PEER = 1_000, 60_000


def rounds_rom(rounds: int) -> bytes:
    """The image that does so many round trips and nothing else."""
    return rounds.to_bytes(4, "little") + image("switch_vmx")[4:]


def emu_seconds(rounds: int) -> float:
    """CPU seconds that this emulator takes for so many."""
    with Machine(4 << 20, "westmere", firmware=rounds_rom(rounds), debugcon=0xE9, debug_exit=0xF4) as machine:
        started = time.thread_time()
        machine.run()
        seconds = time.thread_time() - started
        assert machine.debugcon is not None
        check(machine.debugcon.output, rounds)
        return seconds


def bochs_seconds(rounds: int) -> float:
    """CPU seconds that Bochs takes for so many, its start included."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "image.rom").write_bytes(rounds_rom(rounds))
        seconds, output = cpu_seconds(Bochs().command(Path(folder)), folder)
    check(output, rounds)
    return seconds


def check(output: bytes, rounds: int) -> None:
    """The image must have come to its end."""
    if f"rounds {rounds}\nend\n".encode() not in output:
        raise RuntimeError(f"the image did not come to its end: {output[-500:].decode(errors='replace')}")


def test_round_trips(benchmark: Any) -> None:
    benchmark.pedantic(emu_seconds, (LONG,), rounds=ROUNDS)
    ours = (emu_seconds(LONG) - emu_seconds(SHORT)) / (LONG - SHORT)
    benchmark.extra_info["round trips a second"] = 1 / ours
    if Bochs().version():
        theirs = (bochs_seconds(LONG_PEER) - bochs_seconds(SHORT_PEER)) / (LONG_PEER - SHORT_PEER)
        benchmark.extra_info["ratio"], benchmark.extra_info["to"] = theirs / ours, "bochs"
    else:
        benchmark.extra_info["ratio"], benchmark.extra_info["to"] = native_seconds() / (LONG * ours), "native loop"
