"""`emu bench switch`: what a switch between virtual machines costs, with VT-x and by firmware alone."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from emu import models
from emu.builtin.switch_cost import (
    DEVICE_PARTS,
    PUBLISHED,
    TOUCHES,
    Measured,
    Published,
    VmmSwitch,
    WithVtx,
    software_switch,
    vmm_switches,
    vtx_switches,
)
from emu.errors import ConfigError
from emu.host.output_file import OutputFile
from emu.host.terminal import Style

__all__ = ["FORMATS", "ModelCosts", "measure", "switch"]

FORMATS = (".json", ".svg", ".png")
TRIP_COLUMNS = ("exit", "registers", "VMREADs", "handler", "VMWRITEs", "entry")
STATE = "state"  # the columns that stand for several parts
DEVICES = "devices"
MISSES = "TLB misses"  # a count behind the cycles
SWITCH_COLUMNS = (*TRIP_COLUMNS[:-1], STATE, "VMPTRLD", "entry", DEVICES)


@dataclass(frozen=True)
class PageWalk:
    """What a page walk takes, by the model's figure, which static timing does not charge."""

    cycles: int
    source: str
    mark: str


@dataclass(frozen=True)
class ModelCosts:
    """What was measured on a model."""

    model: str
    title: str
    hz: int
    software: Measured
    vtx: WithVtx
    vmm: list[VmmSwitch]
    page_walk: PageWalk


def measure(names: Sequence[str], timing: str = "static") -> list[ModelCosts]:
    """Measures each model.

    Raises:
        ConfigError: an unknown model or timing.
        EmuError: an image failed.
    """
    for name in names:
        if name not in models.names():
            raise ConfigError(f"unknown processor model {name!r}; there are: {', '.join(models.names())}")
    costs = []
    for name in dict.fromkeys(names):
        model = models.load(name)
        software, vtx = software_switch(name, timing), vtx_switches(name, timing)
        vmm = vmm_switches(name, timing) if vtx.measured else []
        figure = next(group for group in models.provenance(name) if group.subject == models.PAGE_WALK)
        walk = PageWalk(model["page_walk"], figure.source, figure.mark)
        costs.append(ModelCosts(name, model["title"], model["hz"], software, vtx, vmm, walk))
    return costs


def switch(options: argparse.Namespace) -> int:
    """Measures, prints the table, and writes the file where one is wanted."""
    if options.what == "detect":
        from emu.commands.bench_detect import detection

        return detection(options.cpu, options.timing, options.output)
    ending = os.path.splitext(options.output)[1] if options.output is not None else ""
    if options.output is not None and ending not in FORMATS:
        raise ConfigError(f"{options.output}: the file ends in {', '.join(FORMATS)}, which says how it is written")
    names = options.cpu or models.names()
    if options.output is None:
        show(measure(names, options.timing))
        return 0
    with OutputFile(options.output) as file:  # before anything runs
        costs = measure(names, options.timing)
        show(costs)
        file.write(plain(costs) if ending == ".json" else picture(costs, ending))
        file.finish()
    return 0


def picture(costs: Sequence[ModelCosts], ending: str) -> bytes:
    """The table as a picture."""
    from emu.builtin.switch_picture import draw

    measured = [one for cost in costs for one in (cost.software, *cost.vtx.measured)]
    return draw(measured, {cost.model: cost.hz for cost in costs}, ending[1:])


def plain(costs: Sequence[ModelCosts]) -> bytes:
    """The table as JSON."""
    document = {
        "models": {
            cost.model: {
                "title": cost.title, "hz": cost.hz, "software": one(cost.software),
                "vtx": [one(measured) for measured in cost.vtx.measured], "skipped": cost.vtx.skipped,
                "misses_without_vpid": cost.vtx.misses_without_vpid, "page_walk": asdict(cost.page_walk),
                "vmm": [asdict(made) for made in cost.vmm],
            }
            for cost in costs
        },
        "published": [asdict(number) for number in PUBLISHED],
    }  # fmt: skip
    return (json.dumps(document, indent=1) + "\n").encode()


def one(measured: Measured) -> dict[str, object]:
    """A row of the table for JSON."""
    return {
        "kind": measured.kind, "reason": measured.reason, "total": measured.total, "parts": dict(measured.parts),
        "groups": measured.groups(), "misses": measured.misses,
    }  # fmt: skip


def show(costs: Sequence[ModelCosts]) -> None:
    """Prints the tables; whoever reads them may have seen enough."""
    try:
        for cost in costs:
            show_model(cost)
        others = [number for number in PUBLISHED if not number.model]
        print("published, of processors that are no model here")
        published(others, {})
        sys.stdout.flush()
    except BrokenPipeError:  # head(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show_model(cost: ModelCosts) -> None:
    """Prints what was measured on a model."""
    print(Style(sys.stdout).strong(f"{cost.model}: {cost.title}, cycles"))
    trips = [measured for measured in cost.vtx.measured if measured.kind == "round trip"]
    switches = [measured for measured in cost.vtx.measured if measured.kind == "switch"]
    if trips:
        table("VM exit and entry", TRIP_COLUMNS, trips)
        table("switch to another VM", SWITCH_COLUMNS, switches)
        without = cost.vtx.misses_without_vpid
        if without is not None:
            print("  " + walks_after("TLB misses without VPID", without, cost))
        built_in(cost.vmm)
        figures = cost.vtx.figures()
        rows = [number for number in PUBLISHED if number.model == cost.model and number.what in figures]
        if rows:
            published(rows, figures)
    else:
        print("  no VT-x: the switch is made by firmware alone")
        built_in(cost.vmm)
    for reason, why in cost.vtx.skipped.items():
        print(f"  {reason}: {why}")
    print(f"  {'by firmware alone':24}{cost.software.total:>11,}")
    for part, cycles in cost.software.parts.items():
        print(f"    {part:22}{cycles:>11,}")
    print("  " + walks_after("TLB misses afterwards", cost.software.misses, cost))
    walk = cost.page_walk
    print(f"  a page walk: {walk.cycles} cycles. {walk.source}{'; derived' if walk.mark == 'D' else ''}")
    print()


def built_in(switches: Sequence[VmmSwitch]) -> None:
    """Lines: what each switch of the built-in VMM took."""
    if switches:
        print("  by the built-in VMM, from the VM exit of one VM to the VM entry of the other")
    for made in switches:
        print(f"    {made.reason:22}{made.cycles:>11,}  {made.source} to {made.target}")


def walks_after(what: str, misses: int, cost: ModelCosts) -> str:
    """A line: how many page walks the other world's first loads made, and what they would take."""
    return (
        f"  {what:24}{misses:>9,}  for {TOUCHES} pages and the code: about {misses * cost.page_walk.cycles:,} cycles, "
        "not charged"
    )


def cells(measured: Measured, columns: Sequence[str]) -> list[int]:
    """The figures of a row."""
    shown = {name: measured.parts[name] for name in columns if name in measured.parts}
    shown[DEVICES] = sum(measured.parts.get(part, 0) for part in DEVICE_PARTS)
    shown[STATE] = measured.groups()["processor state"] - measured.parts["registers"]
    return [shown[name] for name in columns]


def table(title: str, columns: Sequence[str], rows: Sequence[Measured]) -> None:
    """Prints a table of one kind."""
    switches = rows[0].kind == "switch"
    print(f"  {title:24}" + "".join(f"{name:>11}" for name in (*columns, "total", *([MISSES] if switches else ()))))
    for row in rows:
        figures = (*cells(row, columns), row.total, *([row.misses] if switches else ()))
        print(f"    {row.label:22}" + "".join(f"{figure:>11,}" for figure in figures))


def published(rows: Sequence[Published], figures: Mapping[str, int]) -> None:
    """Prints published numbers, what was measured here beside them, and where they were read."""
    sources = list(dict.fromkeys((row.source, row.processor, row.mark) for row in rows))
    print(f"  {'published':24}{'there':>11}{'here' if figures else '':>11}")
    for row in rows:
        place = sources.index((row.source, row.processor, row.mark)) + 1
        assumed = "" if row.mark == "V" else "  assumed"
        here = f"{figures[row.what]:,}" if figures else ""
        print(f"    {row.what:22}{row.cycles:>11,}{here:>11}  [{place}]{assumed}")
    for number, (source, processor, mark) in enumerate(sources, 1):
        assumed = "" if mark == "V" else "; from memory, not read there: assumed"
        print(f"    [{number}] {processor}. {source}{assumed}")
