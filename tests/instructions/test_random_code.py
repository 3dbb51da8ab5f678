"""Random bytes run as code, in every mode: nothing but the guest comes to harm."""

import resource

import pytest
from random_code import MODES, World

import emu

FEW, MANY = 10_000, 500_000  # a million in each mode: with exceptions delivered, and with exceptions raised
RUN = 50  # instructions at most before other registers and other code
CYCLES = 20_000  # a handler that faults for ever completes none
WORLDS = 40  # runs in one memory


def run_random(mode: str, seed: int, instructions: int, faults: str) -> int:
    """Runs so many instructions in ever other states; returns how many states there were."""
    world = World(mode, seed, faults=faults)
    cpu, states = world.cpu, 0
    end = cpu.instructions + instructions
    while cpu.instructions < end and states < instructions // 4:  # many states run nothing
        if states % WORLDS == 0:
            world.random()
        else:
            world.move()
        before = cpu.instructions
        try:
            stop = cpu.run(instructions=RUN, cycles=CYCLES)
            assert stop.reason in emu.StopReason
        except emu.CpuFault as fault:
            assert 0 <= fault.vector < 32
        assert cpu.instructions - before <= RUN
        assert cpu.rflags & 0xFFC0802A == 2
        states += 1
    return states


@pytest.mark.parametrize("faults", ["deliver", "raise"])
@pytest.mark.parametrize("mode", MODES)
def test_random_bytes(mode: str, faults: str) -> None:
    assert run_random(mode, 0, FEW, faults) > FEW // RUN // 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("faults", ["deliver", "raise"])
@pytest.mark.parametrize("mode", MODES)
def test_a_million_random_instructions(mode: str, faults: str) -> None:
    run_random(mode, 1, FEW, faults)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run_random(mode, 2, MANY, faults)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 40 << 10, f"the process has grown by {grown} KiB"
