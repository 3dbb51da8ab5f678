"""Runs the same images on this emulator and on every peer that is installed, in turn, and prints the ratios.

python -m bench.peers [--rounds N] [--json FILE] [CASE ...]     a case is a kernel's name, with +paging for paging on
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from datetime import date
from pathlib import Path
from typing import Any

from bench.images import KERNELS, Case
from bench.runners import Emu, Runner, installed_peers, instructions_per_turn, seconds_per_turn, turns_for

# How many times as fast as a peer this emulator is meant to be.
WANTED = {
    "bochs": {
        "arithmetic": 7, "memory": 6, "sieve": 4, "crc": 4.6, "fib": 6.4, "strings": 34, "selfmod": 2.4, "ports": 3.8,
        "interrupts": 4.2,
    },
    "unicorn": {"arithmetic": 0.33, "memory": 5, "sieve": 5, "fib": 5},
}  # fmt: skip
SAME_RESULT_TURNS = 1000


def check_results(case: Case, runners: list[Runner]) -> None:
    """Do all of them compute the same?"""
    results = {runner.name: runner.run(case, SAME_RESULT_TURNS).result for runner in runners}
    if len(set(results.values())) != 1:
        raise RuntimeError(f"{case}: the results differ: {results}")


def compare(case: Case, peers: list[Runner], rounds: int) -> dict[str, Any]:
    """MIPS of this emulator and of each peer, and the ratios: medians of the rounds, in each of which all run."""
    runners = [Emu(), *(peer for peer in peers if peer.runs(case))]
    if not case.name.startswith(("footprint", "sieve")):
        check_results(case, runners)
    turns = {runner.name: turns_for(runner, case) for runner in runners}
    times: dict[str, list[float]] = {runner.name: [] for runner in runners}
    for _ in range(rounds):
        for runner in runners:
            times[runner.name].append(seconds_per_turn(runner, case, turns[runner.name])[0])
    count = instructions_per_turn(case)
    return {
        "case": str(case),
        "mips": {name: count / statistics.median(seconds) / 1e6 for name, seconds in times.items()},
        "ratio": {
            name: statistics.median(theirs / ours for theirs, ours in zip(seconds, times["emu"], strict=True))
            for name, seconds in times.items()
            if name != "emu"
        },
    }


def row(result: dict[str, Any], peers: list[Runner]) -> str:
    """A line of the table."""
    case = result["case"]
    cells = [f"{case:24}", f"{result['mips']['emu']:9.1f}"]
    for peer in peers:
        ratio, wanted = result["ratio"].get(peer.name), WANTED.get(peer.name, {}).get(case.partition("+")[0])
        cells.append(f"{'-' if ratio is None else f'{ratio:.2f}':>10} {f'({wanted:g})' if wanted else '':7}")
    return " ".join(cells)


def parse_case(text: str) -> Case:
    name, _, option = text.partition("+")
    if name not in KERNELS or option not in ("", "paging"):
        raise argparse.ArgumentTypeError(f"{text!r} is no case; the kernels are {', '.join(KERNELS)}")
    return Case(name, option == "paging")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", type=parse_case, metavar="CASE", help="a kernel, or kernel+paging; all")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes the figures too")
    options = parser.parse_args(arguments)
    peers = installed_peers()
    versions = {runner.name: runner.version() for runner in (Emu(), *peers)}
    print(f"{date.today()}  {platform.machine()}", *(f" {name} {version}" for name, version in versions.items()))
    print(f"{'kernel':24} {'emu MIPS':>9} " + " ".join(f"{'emu/' + peer.name:>10} {'(aim)':7}" for peer in peers))
    results = []
    for case in options.cases or [Case(name, paging) for name in KERNELS for paging in (False, True)]:
        results.append(compare(case, peers, options.rounds))
        print(row(results[-1], peers), flush=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"versions": versions, "results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
