"""The VM switches and VM exits of a run over time: VMs as lanes, switches and what caused them as marks.

`save` writes the trace-event JSON that Perfetto and chrome://tracing open (Trace Event Format), or a picture.
"""

import bisect
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from emu.errors import ConfigError
from emu.host.output_file import OutputFile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FORMATS", "Lane", "Switch", "Timeline", "format_of"]

FORMATS = (".json", ".svg", ".png")
MOST_SPANS = 20_000  # of a lane; beyond that, neighbours are drawn as one
MOST_SWITCHES = 100_000
FINEST = 2_000  # a picture fills gaps shorter than this part of the whole: they would be thinner than a line
MOST_LABELS = 14  # causes written beside their marks in a picture
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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file: its ending decides the format.

        Raises:
            ConfigError: the ending is none of FORMATS, or the file cannot be written; an old one then stays.
        """
        kind = format_of(path)
        with OutputFile(path) as file:
            file.write(self.render(kind))
            file.finish()

    def render(self, kind: str) -> bytes:
        """The content of a file with the ending `kind`, one of FORMATS."""
        if kind == ".json":
            return json.dumps({"traceEvents": list(self.events()), "displayTimeUnit": "ns"}).encode()
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
        grain = self.length // FINEST
        for (name, row), colour in zip(rows.items(), PALETTE * (len(rows) // len(PALETTE) + 1), strict=False):
            spans = self.lanes[name].merged(grain)
            bars = [(start * scale, (end - start) * scale) for start, end in spans]
            axes.broken_barh(bars, (row - 0.32, 0.64), facecolors=colour, linewidth=0)
        self.draw_switches(axes, rows, scale)
        axes.set_yticks(list(rows.values()), [f"{name}\n{lane.cycles:,} cycles" for name, lane in self.lanes.items()])
        axes.set_ylim(len(rows) - 0.4, -0.9)
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
    def length(self) -> int:
        """Cycles from the first span to the end of the last."""
        lanes = [lane for lane in self.lanes.values() if lane.ends]
        return max((lane.ends[-1] for lane in lanes), default=0) - min((lane.starts[0] for lane in lanes), default=0)

    def scale(self) -> tuple[float, str]:
        """Units a cycle, and the unit: one in which the run's end is a number that can be read."""
        last = max(
            [lane.ends[-1] for lane in self.lanes.values() if lane.ends] + [s.cycle for s in self.switches] + [1]
        )
        seconds = last / self.hz
        size, unit = next((unit for unit in UNITS if seconds >= unit[0]), UNITS[-1])
        return 1 / (self.hz * size), unit

    def draw_switches(self, axes: "Axes", rows: dict[str, int], scale: float) -> None:
        """An arrow a switch from lane to lane, and the cause beside the first ones, in turns of height."""
        shown = self.switches[:: max(1, len(self.switches) // 400)]
        for switch in shown:
            arrow = {"arrowstyle": "-|>", "color": "#20242a", "lw": 0.9, "shrinkA": 0, "shrinkB": 0}
            x = switch.cycle * scale
            axes.annotate("", (x, rows[switch.target]), (x, rows[switch.source]), arrowprops=arrow)
        for index, switch in enumerate(self.switches[:MOST_LABELS]):
            x = switch.cycle * scale
            axes.annotate(
                f"{index + 1} {switch.why}", (x, -0.42), xytext=(2, 3 + 11 * (index % 2)), textcoords="offset points",
                fontsize=7, color="#20242a", rotation=0, annotation_clip=False,
            )  # fmt: skip


def format_of(path: str | os.PathLike[str]) -> str:
    """The ending of a timeline's path, one of FORMATS.

    Raises:
        ConfigError: it is none.
    """
    ending = os.path.splitext(os.fspath(path))[1]
    if ending not in FORMATS:
        raise ConfigError(f"{os.fspath(path)}: a timeline ends in {', '.join(FORMATS)}, which says how it is written")
    return ending
