"""`emu bench switch`: what a switch between virtual machines costs in cycles, with VT-x and by firmware alone.

Two ROMs that the build assembles from bios/switch measure it inside the machine by RDTSC and print it on COM1, which is
read here. Nothing is measured from outside.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from emu import models
from emu.errors import EmuError
from emu.host.output_file import OutputFile
from emu.machine import Machine, builtin_firmware

__all__ = ["PUBLISHED", "VMX_MODELS", "Exit", "Part", "measure_software", "measure_vmm", "measure_vmx", "show"]

VMX_MODELS = ("westmere", "nehalem", "prescott")
SOFTWARE_MODELS = ("westmere", "nehalem", "prescott", "pentium3")
MEMORY = 16 << 20
SECONDS = 10  # of guest time; both ROMs end within one
STEPS = ("exit", "reads", "handler", "writes", "entry")


@dataclass(frozen=True)
class Exit:
    """Cycles of one VM exit and the entry behind it: four VMREADs, what else the handler does, one VMWRITE."""

    reason: str
    exit: int
    reads: int
    handler: int
    writes: int
    entry: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.exit + self.reads + self.handler + self.writes + self.entry


@dataclass(frozen=True)
class Part:
    """Cycles of a part of a switch."""

    name: str
    cycles: int


ADAMS = "Adams and Agesen, A Comparison of Software and Hardware Techniques for x86 Virtualization, 2006, Table 1"
BUGNION = "Bugnion, Nieh and Tsafrir, Hardware and Software Support for Virtualization (assumed: from memory)"
TURTLES = "Ben-Yehuda et al., The Turtles Project, 2010, section 4.3: entry and exit on a Xeon at 2.9 GHz, about"

# Model, what, cycles, source. `exit NAME` is the transition alone.
PUBLISHED = (
    ("prescott", "entry", 2409, ADAMS),
    ("prescott", "exit EXCEPTION_OR_NMI", 1931, ADAMS),
    ("prescott", "VMREAD", 178, ADAMS),
    ("prescott", "VMWRITE", 171, ADAMS),
    ("prescott", "exit VMCALL", 1630, BUGNION),
    ("prescott", "exit CPUID", 1599, BUGNION),
    ("prescott", "exit IO_INSTRUCTION", 1942, BUGNION),
    ("nehalem", "exit and entry", 1000, TURTLES),
    ("westmere", "entry", 402, BUGNION),
    ("westmere", "VMREAD", 6, BUGNION),
    ("westmere", "VMWRITE", 5, BUGNION),
    ("westmere", "VMPTRLD", 91, BUGNION),
    ("westmere", "exit VMCALL", 344, BUGNION),
    ("westmere", "exit CPUID", 389, BUGNION),
    ("westmere", "exit EXCEPTION_OR_NMI", 569, BUGNION),
    ("westmere", "exit IO_INSTRUCTION", 427, BUGNION),
    ("westmere", "exit EPT_VIOLATION", 546, BUGNION),
)


def console(rom: str, model: str, timing: str) -> list[list[str]]:
    """What a ROM of the build prints on COM1, line by line, in words.

    Raises:
        EmuError: it does not end well.
    """
    path = builtin_firmware().with_name(f"{rom}.bin")
    with Machine(MEMORY, model, timing, path.read_bytes()) as machine:
        stop = machine.run(seconds=SECONDS)
        lines = machine.serial.output.decode("ascii", "replace").splitlines()
    words = [line.split() for line in lines]
    if stop.reason != "powered_off" or words[-1] not in (["end"], ["undisturbed"], ["no", "VT-x"]):
        raise EmuError(f"{rom} on {model}: {lines[-1] if lines else 'nothing on COM1'} ({stop.reason})")
    return words


def measure_vmx(model: str, timing: str = "static") -> tuple[list[Exit], list[Part]]:
    """The exits of a model with VT-x, and the parts of a switch to another VM; both empty where there is no VT-x."""
    words = console("switch_vmx", model, timing)
    exits = [Exit(line[1], *map(int, line[2:])) for line in words if line[:1] == ["exit"]]
    return exits, parts_of(words)


def measure_vmm(model: str, timing: str = "static") -> list[Part]:
    """From the VM exit of one VM to the entry of another through the built-in VMM, by the reason of the exit."""
    with Machine(MEMORY, model, timing) as machine:
        machine.run(seconds=SECONDS)
        switches, costs = machine.switches, list(machine.vm_log.costs)
    return [Part(str(one["reason"]), cost) for one, cost in zip(switches, costs, strict=True)]


def measure_software(model: str, timing: str = "static") -> list[Part]:
    """The parts of a world switch that software alone does: save one world and load the other."""
    return parts_of(console("switch_software", model, timing))


def parts_of(words: Iterable[Sequence[str]]) -> list[Part]:
    """The lines `part NAME CYCLES`."""
    return [Part(line[1], int(line[2])) for line in words if len(line) == 3 and line[0] == "part"]


def measured(what: str, exits: Sequence[Exit], parts: Sequence[Part]) -> int:
    """What was measured for an entry of PUBLISHED."""
    by_reason = {one.reason: one for one in exits}
    by_name = {part.name: part.cycles for part in parts}
    first = exits[0]
    single = {"entry": first.entry, "VMREAD": first.reads // 4, "VMWRITE": first.writes}
    single["exit and entry"] = first.exit + first.entry
    if what in single:
        return single[what]
    return by_reason[what.removeprefix("exit ")].exit if what.startswith("exit ") else by_name[what]


def show(options: argparse.Namespace) -> int:
    """Measures, prints the tables, and writes them where they are wanted."""
    chosen = [options.cpu] if options.cpu else [name for name in SOFTWARE_MODELS if name in models.names()]
    result: dict[str, dict[str, Any]] = {}
    for model in chosen:
        exits, parts = measure_vmx(model, options.timing)
        software = measure_software(model, options.timing)
        vmm = measure_vmm(model, options.timing)
        result[model] = {"exits": exits, "parts": parts, "vmm": vmm, "software": software}
        print_model(model, exits, parts, vmm, software)
    if options.json:
        write(options.json, json.dumps(plain(result), indent=1) + "\n")
    if options.svg:
        write(options.svg, picture(result))
    return 0


def print_model(
    model: str, exits: Sequence[Exit], parts: Sequence[Part], vmm: Sequence[Part], software: Sequence[Part]
) -> None:
    """The tables of one model."""
    print(f"{model}: {models.load(model)['title']}; cycles")
    if exits:
        print(f"  {'VM exit':22}" + "".join(f"{name:>9}" for name in (*STEPS, "total")))
        for one in exits:
            figures = [one.exit, one.reads, one.handler, one.writes, one.entry, one.total]
            print(f"  {one.reason:22}" + "".join(f"{figure:9}" for figure in figures))
        print(f"  besides, to another VM:         {listed(parts)}")
        if vmm:
            print(f"  VM to VM by the built-in VMM:   {listed(vmm)}")
        for name, what, cycles, source in PUBLISHED:
            if name == model:
                print(f"  published  {what:24} {cycles:6}  here {measured(what, exits, parts):6}  {source}")
    else:
        print("  no VT-x: the switch is made by firmware alone")
    print(f"  world switch in software:       {listed(software)}; total {sum(part.cycles for part in software):,}\n")


def listed(parts: Iterable[Part]) -> str:
    """Parts in a line."""
    return ", ".join(f"{part.name} {part.cycles:,}" for part in parts)


def plain(result: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The results as values for JSON."""
    return {
        model: {kind: [asdict(one) for one in rows] for kind, rows in kinds.items()} for model, kinds in result.items()
    }


def write(path: str, text: str) -> None:
    """Writes a file of ours."""
    with OutputFile(path) as file:
        file.write(text.encode())
        file.finish()


COLOURS = {
    "exit": "#b5536b", "reads": "#3a6fb0", "handler": "#8a8f98", "writes": "#3f9a6b", "entry": "#e8833a",
    "registers": "#b5536b", "FPU": "#3a6fb0", "descriptor-tables": "#8a8f98", "control-registers": "#3f9a6b",
    "interrupt-controllers": "#e8833a", "timer": "#8e5ea2", "disk-view": "#c9b458",
}  # fmt: skip
LABEL, WIDTH, ROW, GAP = 260, 640, 22, 150  # pixels: the names, the longest bar, a row, an entry of the legend

Row = tuple[str, list[tuple[str, int]]]


def picture(result: dict[str, dict[str, Any]]) -> str:
    """An SVG: a bar for each exit of each model, made of its steps; below, to their own scale, the world switches."""
    exits: list[Row] = []
    software: list[Row] = []
    for model, kinds in result.items():
        for one in kinds["exits"]:
            exits.append((f"{model} {one.reason}", [(step, getattr(one, step)) for step in STEPS]))
        software.append((model, [(part.name, part.cycles) for part in kinds["software"]]))
    lines: list[str] = []
    y = 10
    for title, rows in (("VM exit and entry, cycles", exits), ("world switch in software, cycles", software)):
        if rows:
            y = chart(lines, y, title, rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + WIDTH + 80}" height="{y}" font-family="sans-serif" '
        'font-size="12"><title>Cycles of a VM switch</title><rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(lines)
        + "\n</svg>\n"
    )


def chart(lines: list[str], y: int, title: str, rows: list[Row]) -> int:
    """Adds a bar chart at height y; returns where the next one goes."""
    lines.append(f'<text x="{LABEL}" y="{y + 12}" font-weight="bold">{title}</text>')
    steps = [step for step, _ in rows[0][1]]
    for n, step in enumerate(steps):
        x, line = LABEL + GAP * (n % 4), y + 22 + 18 * (n // 4)
        lines.append(f'<rect x="{x}" y="{line}" width="12" height="12" fill="{COLOURS[step]}"/>')
        lines.append(f'<text x="{x + 17}" y="{line + 10}">{step}</text>')
    y += 30 + 18 * ((len(steps) + 3) // 4)
    most = max(sum(cycles for _, cycles in parts) for _, parts in rows)
    for label, parts in rows:
        lines.append(f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{label}</text>')
        end = float(LABEL)
        for step, cycles in parts:
            width = cycles / most * WIDTH
            lines.append(f'<rect x="{end:.1f}" y="{y}" width="{width:.1f}" height="16" fill="{COLOURS[step]}"/>')
            end += width
        lines.append(f'<text x="{end + 6:.1f}" y="{y + 13}">{sum(cycles for _, cycles in parts):,}</text>')
        y += ROW
    return y + 16
