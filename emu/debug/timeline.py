"""The VM switches and VM exits of a run over time: VMs as lanes, switches and what caused them as marks.

`save` writes the trace-event JSON that Perfetto and chrome://tracing open (Trace Event Format), or a picture.
"""

import bisect
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from emu.errors import ConfigError
from emu.host.output_file import OutputFile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FORMATS", "Lane", "Switch", "Timeline", "format_of", "timeline_file"]

FORMATS = (".json", ".svg", ".png")
MOST_SPANS = 20_000  # of a lane; beyond that, neighbours are drawn as one
MOST_SWITCHES = 100_000
FINEST = 2_000  # a picture fills gaps shorter than this part of the whole: they would be thinner than a line
MOST_ARROWS = 400  # of a picture
LABEL_ROWS = 2  # of causes above the lanes of a picture
CHARACTER = 0.0078  # how wide one of them is, as a part of the picture's span
PALETTE = ("#8a8f98", "#e8833a", "#3a6fb0", "#3f9a6b", "#8e5ea2", "#b5536b")  # by lane, top to bottom
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


@dataclass
class Lane:
    """When one VM, or the VMM, ran: spans in cycles, in order. Gaps of up to `grain` cycles may be filled."""

    name: str
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    grain: int = 0
    cycles: int = 0
    """Cycles that it ran, exactly, whatever has been merged."""

    def add(self, start: int, end: int) -> None:
        """It ran from cycle `start` up to `end`, after all that was added before."""
        self.cycles += end - start
        if self.ends and start - self.ends[-1] <= self.grain:
            self.ends[-1] = max(end, self.ends[-1])
            return
        self.starts.append(start)
        self.ends.append(end)
        if len(self.starts) > MOST_SPANS:
            self.coarsen()

    def coarsen(self) -> None:
        """Merges neighbours until half as many spans are left: the shortest gaps go first."""
        gaps = sorted(start - end for start, end in zip(self.starts[1:], self.ends, strict=False))
        self.grain = max(self.grain + 1, gaps[len(gaps) // 2])
        merged = self.merged(self.grain)
        self.starts, self.ends = [start for start, _ in merged], [end for _, end in merged]

    def merged(self, grain: int) -> list[tuple[int, int]]:
        """The spans, with gaps of up to `grain` cycles filled."""
        found: list[tuple[int, int]] = []
        for start, end in self.spans():
            if found and start - found[-1][1] <= grain:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start, end))
        return found

    def spans(self) -> Iterator[tuple[int, int]]:
        """(start, end) of each span."""
        return zip(self.starts, self.ends, strict=True)

    def ran_at(self, cycle: int) -> bool:
        """Whether a span covers the cycle."""
        at = bisect.bisect_right(self.starts, cycle) - 1
        return at >= 0 and cycle < self.ends[at]


@dataclass(frozen=True)
class Switch:
    """A VM switch: at which cycle, between which lanes, and why."""

    cycle: int
    source: str
    target: str
    why: str


class Timeline:
    """What ran when.

    Args:
        hz: cycles in a second of guest time.
        lanes: names of lanes that are there whether they ran or not, top to bottom.
    """

    def __init__(self, hz: int, lanes: tuple[str, ...] = ()) -> None:
        self.hz = hz
        self.lanes: dict[str, Lane] = {name: Lane(name) for name in lanes}
        self.switches: list[Switch] = []
        self.switches_left_out = 0

    def ran(self, name: str, start: int, end: int) -> None:
        """`name` ran from cycle `start` up to `end`."""
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = Lane(name)
        lane.add(start, end)

    def switched(self, cycle: int, source: str, target: str, why: str) -> None:
        """A VM switch. Those past the hundred thousandth are counted and not drawn."""
        for name in (source, target):
            self.lanes.setdefault(name, Lane(name))
        if len(self.switches) < MOST_SWITCHES:
            self.switches.append(Switch(cycle, source, target, why))
        else:
            self.switches_left_out += 1

    def rename(self, names: Mapping[str, str]) -> None:
        """Gives lanes and switches other names, where there are some."""
        for lane in self.lanes.values():
            lane.name = names.get(lane.name, lane.name)
        self.lanes = {lane.name: lane for lane in self.lanes.values()}
        self.switches = [
            replace(one, source=names.get(one.source, one.source), target=names.get(one.target, one.target))
            for one in self.switches
        ]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file: its ending decides the format.

        Raises:
            ConfigError: the ending is none of FORMATS, or the file cannot be written; an old one then stays.
        """
        with timeline_file(path) as file:
            self.write(file, path)

    def write(self, file: OutputFile, path: str | os.PathLike[str]) -> None:
        """The same, to the file that timeline_file() has opened for `path`."""
        file.write(self.render(format_of(path)))
        file.finish()

    def render(self, kind: str) -> bytes:
        """The content of a file with the ending `kind`, one of FORMATS."""
        if kind == ".json":
            other = {
                "switches": len(self.switches) + self.switches_left_out,
                "switches left out": self.switches_left_out,
            }
            events = list(self.events())
            return json.dumps({"traceEvents": events, "displayTimeUnit": "ns", "otherData": other}).encode()
        return self.draw(kind[1:])

    # --- Perfetto -----------------------------------------------------------------------------------------------------

    def microseconds(self, cycle: int) -> float:
        """Guest time of a cycle."""
        return cycle * 1e6 / self.hz

    def events(self) -> Iterator[dict[str, Any]]:
        """The trace events: a thread a lane, a slice a span, an instant and an arrow a switch."""
        numbers = {name: number for number, name in enumerate(self.lanes, 1)}
        yield {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "emu"}}
        for name, number in numbers.items():
            yield {"ph": "M", "pid": 1, "tid": number, "name": "thread_name", "args": {"name": name}}
            yield {"ph": "M", "pid": 1, "tid": number, "name": "thread_sort_index", "args": {"sort_index": number}}
        for name, lane in self.lanes.items():
            for start, end in lane.spans():
                yield {
                    "ph": "X", "pid": 1, "tid": numbers[name], "name": name, "ts": self.microseconds(start),
                    "dur": self.microseconds(end) - self.microseconds(start), "args": {"cycle": start},
                }  # fmt: skip
        for index, switch in enumerate(self.switches):
            common = {"pid": 1, "ts": self.microseconds(switch.cycle), "name": switch.why, "cat": "switch"}
            arguments = {"from": switch.source, "to": switch.target, "cycle": switch.cycle}
            yield {**common, "ph": "i", "s": "t", "tid": numbers[switch.target], "args": arguments}
            yield {**common, "ph": "s", "id": index, "tid": numbers[switch.source]}
            yield {**common, "ph": "f", "bp": "e", "id": index, "tid": numbers[switch.target]}

    # --- pictures -----------------------------------------------------------------------------------------------------

    def draw(self, kind: str) -> bytes:
        """Lanes and marks as svg or png; the same run gives the same bytes."""
        import matplotlib
        from matplotlib.figure import Figure

        matplotlib.rcParams["svg.hashsalt"] = "emu"
        matplotlib.rcParams["svg.fonttype"] = "none"
        height = 1.6 + 0.55 * len(self.lanes)
        figure = Figure(figsize=(11, height), layout="constrained")
        axes = figure.add_subplot()
        scale, unit = self.scale()
        rows = {name: row for row, name in enumerate(self.lanes)}
        grain = (self.extent[1] - self.extent[0]) // FINEST
        for (name, row), colour in zip(rows.items(), PALETTE * (len(rows) // len(PALETTE) + 1), strict=False):
            spans = self.lanes[name].merged(grain)
            bars = [(start * scale, (end - start) * scale) for start, end in spans]
            axes.broken_barh(bars, (row - 0.32, 0.64), facecolors=colour, linewidth=0)
        self.draw_switches(axes, rows, scale)
        axes.set_yticks(list(rows.values()), [f"{name}\n{lane.cycles:,} cycles" for name, lane in self.lanes.items()])
        axes.set_ylim(len(rows) - 0.4, -0.9)
        first, last = self.extent
        axes.set_xlim((first - 0.02 * (last - first)) * scale, (last + 0.02 * (last - first)) * scale)
        axes.set_xlabel(f"guest time ({unit})")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        picture = io.BytesIO()
        figure.savefig(picture, format=kind, dpi=120, metadata=metadata)
        return picture.getvalue()

    @property
    def extent(self) -> tuple[int, int]:
        """The cycles at which the first span or switch begins and the last one ends; 0 and 1 where there is none."""
        lanes = [lane for lane in self.lanes.values() if lane.ends]
        first = [lane.starts[0] for lane in lanes] + [one.cycle for one in self.switches[:1]]
        last = [lane.ends[-1] for lane in lanes] + [one.cycle for one in self.switches[-1:]]
        return min(first, default=0), max(max(last, default=0), min(first, default=0) + 1)

    def scale(self) -> tuple[float, str]:
        """Units a cycle, and the unit: one in which the run's end is a number that can be read."""
        seconds = self.extent[1] / self.hz
        size, unit = next((unit for unit in UNITS if seconds >= unit[0]), UNITS[-1])
        return 1 / (self.hz * size), unit

    def draw_switches(self, axes: "Axes", rows: dict[str, int], scale: float) -> None:
        """An arrow a switch from lane to lane, and above the lanes its cause where there is room; what is left out is
        said."""
        step = len(self.switches) // MOST_ARROWS | 1  # odd, so that two VMs in turns show both directions
        for switch in self.switches[::step]:
            arrow = {"arrowstyle": "-|>", "color": "#20242a", "lw": 0.9, "shrinkA": 0, "shrinkB": 0}
            x = switch.cycle * scale
            axes.annotate("", (x, rows[switch.target]), (x, rows[switch.source]), arrowprops=arrow)
        first, last = self.extent
        free = [first] * LABEL_ROWS  # the cycle from which each row is free
        for number, switch in enumerate(self.switches, 1):
            row = min(range(LABEL_ROWS), key=free.__getitem__)
            if switch.cycle < free[row]:
                continue
            text = f"{number} {switch.why}"
            free[row] = switch.cycle + int((last - first) * CHARACTER * (len(text) + 2))
            axes.annotate(
                text, (switch.cycle * scale, -0.42), xytext=(2, 3 + 11 * row), textcoords="offset points",
                fontsize=7, color="#20242a", rotation=0, annotation_clip=False,
            )  # fmt: skip
        if note := self.note(step):
            axes.set_title(note, loc="right", fontsize=8, color="#20242a")

    def note(self, step: int) -> str:
        """What a picture with an arrow every `step` switches says of what it does not show."""
        if not any(lane.cycles for lane in self.lanes.values()):
            return "no VM ran"
        count = len(self.switches) + self.switches_left_out
        if not count:
            return "no VM switches"
        left_out = f"; none of the last {self.switches_left_out:,}" if self.switches_left_out else ""
        return f"{count:,} VM switches, an arrow for one in {step}{left_out}" if step > 1 or left_out else ""


def format_of(path: str | os.PathLike[str]) -> str:
    """The ending of a timeline's path, one of FORMATS.

    Raises:
        ConfigError: it is none.
    """
    ending = os.path.splitext(os.fspath(path))[1]
    if ending not in FORMATS:
        raise ConfigError(f"{os.fspath(path)}: a timeline ends in {', '.join(FORMATS)}, which says how it is written")
    return ending


def timeline_file(path: str | os.PathLike[str]) -> OutputFile:
    """The file that a timeline is to be written to, opened before there is one.

    Raises:
        ConfigError: its ending is none of FORMATS, or it cannot be written.
    """
    format_of(path)
    return OutputFile(path)
