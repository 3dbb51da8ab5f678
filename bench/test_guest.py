"""Guest MIPS of each kernel on the whole machine, and how it compares with Unicorn in the same minute."""

from typing import Any

import pytest

from bench.images import KERNELS, Case
from bench.runners import Emu, Unicorn, instructions_per_turn, seconds_per_turn, turns_for
from bench.yardstick import native_seconds

CASES = [Case(name, paging) for name in KERNELS for paging in (False, True)]
ROUNDS = 3


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernel(benchmark: Any, case: Case) -> None:
    emu, unicorn = Emu(), Unicorn()
    turns = turns_for(emu, case, seconds=0.2)
    benchmark.pedantic(emu.run, (case, turns), rounds=ROUNDS)
    ours, _ = seconds_per_turn(emu, case, turns)
    benchmark.extra_info["guest MIPS"] = instructions_per_turn(case) / ours / 1e6
    if unicorn.version() and unicorn.runs(case):
        theirs, _ = seconds_per_turn(unicorn, case, turns_for(unicorn, case, seconds=0.1))
        benchmark.extra_info["ratio"], benchmark.extra_info["to"] = theirs / ours, "unicorn"
    else:
        benchmark.extra_info["ratio"], benchmark.extra_info["to"] = native_seconds() / (turns * ours), "native loop"
    assert benchmark.extra_info["guest MIPS"] > 1
