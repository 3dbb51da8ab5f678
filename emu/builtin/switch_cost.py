"""What a switch between worlds costs, in cycles: runs the images of bios/switch and takes their readings apart.

An image measures inside the machine, by the time-stamp counter, and prints its readings; the arithmetic is done here.
On a processor without a time-stamp counter the image writes the number of each reading to a port, and the cycle is
noted here.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from emu._core import Device
from emu.errors import BadInput, ConfigError, EmuError
from emu.host.disk import Disk
from emu.host.input_file import read_file
from emu.machine import Machine, builtin_firmware
from emu.models import names

__all__ = [
    "DEVICE_PARTS", "GROUPS", "PUBLISHED", "Measured", "Output", "Published", "VmmSwitch", "WithVtx", "image",
    "run_image", "software_switch", "vmm_switches", "vtx_switches",
]  # fmt: skip

MEMORY = 4 << 20
DISK_BYTES = 1 << 20
VMM_MEMORY, VMM_SECONDS = 16 << 20, 10  # of guest time; it ends long before
DEBUG_CONSOLE, DEBUG_EXIT, READING_PORT = 0xE9, 0xF4, 0xE0  # report.inc, reading.inc
MOST_INSTRUCTIONS = 100_000_000
COUNTER_MASK = 0xFFFFFFFF  # the half of the counter that is printed
TOUCHES = 16  # touch.inc
READING_ROUTINES = (12, 16)  # offsets in the ROM of the addresses of those that take readings
PARAMETER_PORT = 0  # offset in the ROM: 1 has every reading go to the port

EXIT_PARTS = ("exit", "registers", "VMREADs", "handler", "VMWRITEs")
STATE_PARTS = ("registers", "descriptor-tables", "control-registers", "debug-registers", "MSRs", "FPU")
DEVICE_PARTS = ("interrupt-controllers", "timer", "disk-view", "chipset")
"""What is saved of one world and loaded of the other, as routine.inc and exit.inc of bios/switch call it."""

GROUPS = {
    "exit": "transition", "entry": "transition", "VMREADs": "VMCS", "VMWRITEs": "VMCS", "VMPTRLD": "VMCS",
    "handler": "handler", **dict.fromkeys(STATE_PARTS, "processor state"),
    **dict.fromkeys(DEVICE_PARTS, "device state"),
}  # fmt: skip
"""The group of each part."""


@dataclass(frozen=True)
class Measured:
    """What one way from one world to another, or out of a VM and back, took.

    Args:
        model: the processor model.
        kind: "software": a switch by firmware alone; "round trip": a VM exit and the entry back into the same VM;
            "switch": a VM exit and the entry into another VM, with the devices handed over.
        reason: the exit reason; empty for a switch in software.
        parts: cycles by part, in the order in which they happen.
        total: cycles of the whole, measured once more without readings between the parts.
        misses: page walks that the first loads from TOUCHES pages made after the switch, which static timing does not
            charge; of a round trip 0, since it touches none.
    """

    model: str
    kind: str
    reason: str
    parts: Mapping[str, int]
    total: int
    misses: int = 0

    @property
    def label(self) -> str:
        """The exit reason as it is shown: of an exception, which one."""
        return {"EXCEPTION_OR_NMI": "EXCEPTION_OR_NMI #PF"}.get(self.reason, self.reason)

    def groups(self) -> dict[str, int]:
        """Cycles by group of parts."""
        cycles = dict.fromkeys(GROUPS.values(), 0)
        for part, taken in self.parts.items():
            cycles[GROUPS[part]] += taken
        return cycles


@dataclass
class Output:
    """What an image printed: the words of each line by its first word, the cycles of each interval by its label, and
    the page walks of the intervals in which the other world touches its pages."""

    lines: dict[str, list[list[str]]]
    cycles: dict[str, int] = field(default_factory=dict)
    walks: dict[str, int] = field(default_factory=dict)

    def numbers(self, line: str) -> tuple[int, ...]:
        """The numbers of the one line that begins with this word."""
        return tuple(map(int, self.lines[line][0]))

    @cached_property
    def undisturbed(self) -> bool:
        """Whether the world that was left found all as it was."""
        before, after = self.numbers("state")
        return before == after


class Stamps(Device):
    """The port that takes the numbers of readings: the cycle of each."""

    def __init__(self) -> None:
        super().__init__()
        self.machine: Machine | None = None
        self.cycles: dict[int, int] = {}

    def write(self, offset: int, value: int, size: int) -> None:
        """A reading is taken."""
        assert self.machine is not None
        self.cycles[value] = self.machine.cycles


def image(name: str) -> bytes:
    """A ROM that the build assembles from bios/switch.

    Raises:
        BadInput: this installation has none.
    """
    path = builtin_firmware().with_name(f"{name}.bin")
    if not path.exists():
        raise BadInput(f"{path}: the image is missing; build again")
    return read_file(path, 1 << 20, "a ROM image")


def run_image(rom: bytes, model: str, timing: str = "static") -> Output:
    """Runs an image of bios/switch to its end.

    Args:
        rom: the image.
        model: the processor model's name.
        timing: "static" or "unit", as Machine takes it.

    Raises:
        ConfigError: an unknown model.
        EmuError: the image did not come to its end.
    """
    if model not in names():
        raise ConfigError(f"unknown processor model {model!r}; there are: {', '.join(names())}")
    stamps = Stamps()
    seen: list[tuple[int, int, int]] = []  # of each reading: bytes printed before it, its number, page walks so far
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(DISK_BYTES)
        with Machine(
            MEMORY, model, timing, rom, debugcon=DEBUG_CONSOLE, debug_exit=DEBUG_EXIT,
            disks=[Disk(file.name, snapshot=True)],
        ) as machine:  # fmt: skip
            console, processor = machine.debugcon, machine.cpu
            assert console is not None

            def walked(address: int) -> None:
                seen.append((len(console.output), processor.eax, processor.page_walks))

            for at in READING_ROUTINES:
                address = int.from_bytes(rom[at : at + 4], "little")
                machine.hook("instruction", walked, range(address, address + 1))
            stamps.machine = machine
            machine.attach(stamps, ports=range(READING_PORT, READING_PORT + 1))
            stop = machine.run(instructions=MOST_INSTRUCTIONS)
            text = console.output.decode("ascii", "replace")
    output = Output(take_lines(text))
    if stop.reason != "debug_exit" or "end" not in output.lines or "unexpected" in output.lines:
        raise EmuError(f"the image that measures switches failed on {model} ({stop.reason}): {text[-200:]!r}")
    output.cycles = intervals(output.lines.get("reading", []), stamps.cycles)
    output.walks = walks(text, seen)
    return output


def walks(text: str, seen: list[tuple[int, int, int]]) -> dict[str, int]:
    """The page walks of the first loads after a switch, by their label, from the last readings before its line."""
    found: dict[str, int] = {}
    counts: dict[int, int] = {}
    printed = 0
    readings = iter([*seen, (len(text), 0, 0)])
    upcoming = next(readings)
    for line in text.splitlines(keepends=True):
        while upcoming[0] <= printed < len(text):
            counts[upcoming[1]] = upcoming[2]
            upcoming = next(readings)
        printed += len(line)
        first, *words = line.split() or [""]
        if first == "reading":
            number, label = int(words[0]), " ".join(words[2:])
            if label.endswith("touch first"):
                found[label] = counts[number] - counts[number - 1]
    return found


def take_lines(text: str) -> dict[str, list[list[str]]]:
    """The words behind the first one of each line, by the first one."""
    lines: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        first, *rest = line.split() or [""]
        lines.setdefault(first, []).append(rest)
    return lines


def intervals(readings: list[list[str]], stamps: Mapping[int, int]) -> dict[str, int]:
    """The cycles of each interval by its label, without what the reading that ends it takes."""
    cycles: dict[str, int] = {}
    before = cost = 0
    for number, counter, *label in readings:
        now = stamps.get(int(number), int(counter))
        taken = (now - before) & COUNTER_MASK
        before = now
        name = " ".join(label)
        if name == "cost":
            cost = taken
        elif name != "start":
            cycles[name] = taken - cost
    return cycles


def saved_and_loaded(cycles: Mapping[str, int], prefix: str = "") -> dict[str, int]:
    """Cycles of the parts that are saved and loaded."""
    return {
        part: cycles[f"{prefix}save {part}"] + cycles[f"{prefix}load {part}"]
        for part in (*STATE_PARTS, *DEVICE_PARTS)
        if f"{prefix}save {part}" in cycles
    }


def software_switch(model: str, timing: str = "static") -> Measured:
    """A switch from one world to another by firmware alone, on any model.

    Raises:
        ConfigError: an unknown model or timing.
        EmuError: the image failed, or the world that was left did not find all as it was.
    """
    output = run_image(image("switch_software"), model, timing)
    if not output.undisturbed:
        raise EmuError(f"{model}: the world switch changed what the world can see")
    parts = saved_and_loaded(output.cycles)
    return Measured(model, "software", "", parts, output.cycles["total"], output.walks["touch first"])


@dataclass(frozen=True)
class WithVtx:
    """What a model with VT-x took: a round trip and a switch by exit reason.

    Args:
        measured: by reason, first the round trip, then the switch.
        skipped: why an exit reason is not there.
        reads, writes: VMREADs and VMWRITEs of an exit, its handler not counted.
        misses_without_vpid: Measured.misses of a switch without VPID; None where no switch is with it.
    """

    measured: list[Measured] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    reads: int = 0
    writes: int = 0
    misses_without_vpid: int | None = None

    def figures(self) -> dict[str, int]:
        """The cycles that PUBLISHED has numbers for, by its words."""
        trips = {one.reason: one.parts for one in self.measured if one.kind == "round trip"}
        if not trips:
            return {}
        figures = {f"exit {reason}": parts["exit"] for reason, parts in trips.items()}
        any_trip = trips["VMCALL"]
        switch = next(one for one in self.measured if one.kind == "switch")
        return figures | {
            "entry": any_trip["entry"],
            "exit and entry": any_trip["exit"] + any_trip["entry"],
            "VMREAD": any_trip["VMREADs"] // self.reads,
            "VMWRITE": any_trip["VMWRITEs"] // self.writes,
            "VMPTRLD": switch.parts["VMPTRLD"],
        }


@dataclass(frozen=True)
class VmmSwitch:
    """A switch that the built-in VMM made: from the VM exit of one VM to the VM entry of the other."""

    source: str
    target: str
    reason: str
    cycles: int


def vmm_switches(model: str, timing: str = "static") -> list[VmmSwitch]:
    """The switches of the built-in firmware's own story, in order; none where its VMM does not run."""
    with Machine(VMM_MEMORY, model, timing) as machine:
        machine.run(seconds=VMM_SECONDS)
        return [
            VmmSwitch(one["from"], one["to"], one["reason"], cycles)
            for one, cycles in zip(machine.switches, machine.vm_log.costs, strict=True)
        ]


def vtx_switches(model: str, timing: str = "static") -> WithVtx:
    """Round trips and switches with VT-x by exit reason; nothing for a model without VT-x.

    An external interrupt is pending when the VM is entered, so what is measured of its exit begins with an entry, which
    is taken off: as long as the other one of the same round trip.

    Raises:
        ConfigError: an unknown model or timing.
        EmuError: the image failed, or the guest did not find all as it was.
    """
    output = run_image(image("switch_vmx"), model, timing)
    if "no" in output.lines:
        return WithVtx()
    if not output.undisturbed:
        raise EmuError(f"{model}: the switch to the Service VM changed what the guest can see")
    reads, writes = output.numbers("accesses")
    shared = output.walks.get("VMCALL shared touch first")
    result = WithVtx(reads=reads, writes=writes, misses_without_vpid=shared)
    for label in output.cycles:
        reason, _, what = label.partition(" ")
        if what == "round exit":
            result.measured.extend(take_reason(model, reason, output))
    result.skipped.update({words[0]: f"{model} has no EPT" for words in output.lines.get("skip", [])})
    return result


def take_reason(model: str, reason: str, output: Output) -> list[Measured]:
    """The round trip and the switch of one exit reason."""
    cycles = output.cycles
    entry = cycles[f"{reason} round entry"]
    twice = entry if reason == "EXTERNAL_INTERRUPT" else 0
    prefix = f"{reason} switch "
    trip = {part: cycles[f"{reason} round {part}"] for part in (*EXIT_PARTS, "entry")}
    switch = {part: cycles[prefix + part] for part in EXIT_PARTS} | saved_and_loaded(cycles, prefix)
    trip["exit"] -= twice
    switch["exit"] -= twice
    switch |= {part: cycles[prefix + part] for part in ("VMPTRLD", "entry")}
    return [
        Measured(model, "round trip", reason, trip, cycles[f"{reason} plain total"] - twice),
        Measured(
            model,
            "switch",
            reason,
            switch,
            cycles[f"{reason} unread total"] - twice,
            output.walks[prefix + "touch first"],
        ),
    ]


@dataclass(frozen=True)
class Published:
    """A number that others measured.

    Args:
        model: the processor model that stands for the processor; empty where none does.
        what: the figure, as WithVtx.figures() calls it.
        cycles: the number.
        processor: what it was measured on.
        source: where it was read.
        mark: V: read there. M: from memory, not read at its source, hence an assumption.
    """

    model: str
    what: str
    cycles: int
    processor: str
    source: str
    mark: str


ADAMS = "Adams, Agesen: A Comparison of Software and Hardware Techniques for x86 Virtualization (ASPLOS 2006), Table 1"
BUGNION = "Bugnion, Nieh, Tsafrir: Hardware and Software Support for Virtualization"
AGESEN = "Agesen et al.: Software Techniques for Avoiding Hardware Virtualization Exits (USENIX ATC 2012)"
VMCALL_POST = "yshalabi.github.io, 2014-12-17: 95% of VMCALL round trips take 1,600 to 1,700 cycles"
TURTLES = "Ben-Yehuda et al.: The Turtles Project (OSDI 2010), section 4.3"


def column(model: str, processor: str, source: str, mark: str, **cycles: int) -> list[Published]:
    """The numbers of one source for one processor."""
    return [
        Published(model, what.replace("__", " "), number, processor, source, mark) for what, number in cycles.items()
    ]


PUBLISHED = (
    *column("prescott", "Pentium 4 672", ADAMS, "V", entry=2409, exit__EXCEPTION_OR_NMI=1931, VMREAD=178, VMWRITE=171),
    *column(
        "prescott", "Prescott", BUGNION, "M", entry=2333, exit__VMCALL=1630, exit__CPUID=1599,
        exit__EXCEPTION_OR_NMI=1926, exit__IO_INSTRUCTION=1942, VMREAD=178, VMWRITE=171, VMPTRLD=255,
    ),
    *column("prescott", "Prescott", AGESEN, "M", exit__and__entry=3963),
    *column("nehalem", "Xeon at 2.9 GHz", TURTLES, "V", exit__and__entry=1000),
    *column("nehalem", "Nehalem", AGESEN, "M", exit__and__entry=1009),
    *column(
        "westmere", "Westmere", BUGNION, "M", entry=402, exit__VMCALL=344, exit__CPUID=389, exit__EXCEPTION_OR_NMI=569,
        exit__IO_INSTRUCTION=427, exit__EPT_VIOLATION=546, VMREAD=6, VMWRITE=5, VMPTRLD=91,
    ),
    *column("westmere", "Westmere", AGESEN, "M", exit__and__entry=761),
    *column("", "Core 2 Duo at 2.66 GHz", ADAMS, "V", entry=937, exit__EXCEPTION_OR_NMI=1186, VMREAD=52, VMWRITE=44),
    *column("", "Core i7-3960X", VMCALL_POST, "V", round__trip__VMCALL=1650),
)  # fmt: skip
