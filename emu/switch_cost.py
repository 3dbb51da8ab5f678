"""What a switch between worlds costs, in cycles: runs the images of bios/switch and takes their readings apart.

An image measures inside the machine, by the time-stamp counter, and prints its readings; the arithmetic is done here. On
a processor without a time-stamp counter the image writes the number of each reading to a port, and the cycle is noted
here.
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

__all__ = ["PUBLISHED", "Measured", "Output", "Published", "model_names", "run_image", "software_switch"]

MEMORY = 4 << 20
DISK_BYTES = 1 << 20
DEBUG_CONSOLE, DEBUG_EXIT, READING_PORT = 0xE9, 0xF4, 0xE0  # report.inc, reading.inc
MOST_INSTRUCTIONS = 100_000_000
COUNTER_MASK = 0xFFFFFFFF  # the half of the counter that is printed
PARAMETER_PORT = 0  # offset in the ROM: 1 has every reading go to the port

PARTS = (
    "registers", "descriptor-tables", "control-registers", "debug-registers", "MSRs", "FPU", "interrupt-controllers",
    "timer", "disk-view", "chipset",
)  # fmt: skip
"""What a switch in software saves and loads, as bios/switch/routine.inc calls it."""

DEVICE_PARTS = PARTS[6:]


@dataclass(frozen=True)
class Measured:
    """The cycles of one way to switch.

    Args:
        model: the processor model.
        way: "software", or the exit reason of a switch with VT-x.
        parts: cycles by part, in the order in which they happen.
        total: cycles of the whole, measured without readings between the parts.
        refill: cycles that the first loads from 16 pages take more than the next ones.
    """

    model: str
    way: str
    parts: Mapping[str, int]
    total: int
    refill: int


@dataclass
class Output:
    """What an image printed: the words of each line by its first word, and the cycles of each interval by its label."""

    lines: dict[str, list[list[str]]]
    cycles: dict[str, int] = field(default_factory=dict)

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


def model_names() -> list[str]:
    """The models that the images run on: all there are."""
    return names()


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
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(DISK_BYTES)
        with Machine(
            MEMORY, model, timing, rom, debugcon=DEBUG_CONSOLE, debug_exit=DEBUG_EXIT,
            disks=[Disk(file.name, snapshot=True)],
        ) as machine:  # fmt: skip
            stamps.machine = machine
            machine.attach(stamps, ports=range(READING_PORT, READING_PORT + 1))
            stop = machine.run(instructions=MOST_INSTRUCTIONS)
            assert machine.debugcon is not None
            text = machine.debugcon.output.decode("ascii", "replace")
    output = Output(take_lines(text))
    if stop.reason != "debug_exit" or "end" not in output.lines or "unexpected" in output.lines:
        raise EmuError(f"the image that measures switches failed on {model} ({stop.reason}): {text[-200:]!r}")
    output.cycles = intervals(output.lines.get("reading", []), stamps.cycles)
    return output


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


def software_switch(model: str, timing: str = "static") -> Measured:
    """A switch from one world to another by firmware alone, on any model.

    Raises:
        ConfigError: an unknown model.
        EmuError: the image failed, or the world that was left did not find all as it was.
    """
    output = run_image(image("switch_software"), model, timing)
    if not output.undisturbed:
        raise EmuError(f"{model}: the world switch changed what the world can see")
    parts = {part: output.cycles[f"save {part}"] + output.cycles[f"load {part}"] for part in PARTS}
    refill = output.cycles["touch first"] - output.cycles["touch again"]
    return Measured(model, "software", parts, output.cycles["total"], refill)


@dataclass(frozen=True)
class Published:
    """A number that others measured.

    Args:
        model: the processor model that stands for the processor.
        what: the figure, as `transition` and `parts` have it: `entry`, `exit REASON`, `VMREAD`, `VMWRITE`, `VMPTRLD`,
            `exit and entry`, `round trip VMCALL`.
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
TURTLES = "Ben-Yehuda et al.: The Turtles Project (OSDI 2010), section 4.3: about"


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
)  # fmt: skip
