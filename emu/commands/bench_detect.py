"""`emu bench detect`: how long after a fault the Service VM runs."""

import json
import os
import sys
from collections.abc import Sequence

from emu import models
from emu.builtin.detection import FAULTS, Detected, detect, watched
from emu.errors import ConfigError
from emu.host.output_file import OutputFile
from emu.host.terminal import Style

__all__ = ["detection"]


def detection(names: Sequence[str] | None, timing: str, output: str | None) -> int:
    """Measures on each model, prints the table, and writes it as JSON where that is wanted.

    Args:
        names: processor models that the built-in VMM runs on; None is the default one.
    """
    if output is not None and os.path.splitext(output)[1] != ".json":
        raise ConfigError(f"{output}: the file ends in .json, which says how it is written")
    wanted = list(dict.fromkeys(names or [models.DEFAULT]))
    for name in wanted:
        if not watched(name):
            raise ConfigError(f"{name}: the VMM does not run on this processor, so nobody watches its guest")
    if output is None:
        measure(wanted, timing)
        return 0
    with OutputFile(output) as file:  # before anything runs
        tables = measure(wanted, timing)
        document = {name: [row._asdict() for row in rows] for name, rows in tables.items()}
        file.write((json.dumps({"models": document}, indent=1) + "\n").encode())
        file.finish()
    return 0


def measure(names: Sequence[str], timing: str) -> dict[str, list[Detected]]:
    """The tables by model, printed row by row."""
    tables: dict[str, list[Detected]] = {}
    for name in names:
        print(Style(sys.stdout).strong(f"{name}: from the fault to the Service VM, guest time"))
        print(f"  {'fault':28}{'detector':32}{'cycles':>18}{'µs':>18}  VM exit")
        tables[name] = []
        for fault in FAULTS:
            row = detect(fault, name, timing)
            tables[name].append(row)
            times = f"{'-':>18}{'-':>18}  nothing, as it should be"
            if row.cycles is not None and row.seconds is not None:
                times = f"{row.cycles:>18,}{row.seconds * 1e6:>18,.1f}  {row.reason}"
            print(f"  {row.fault:28}{row.detector:32}{times}", flush=True)
    return tables
