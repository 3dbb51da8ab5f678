"""The picture of what switches cost: a bar a way, made of its groups of parts."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from emu.builtin.switch_cost import GROUPS, PUBLISHED, Measured

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

__all__ = ["draw"]

COLOURS = dict(
    zip(
        dict.fromkeys(GROUPS.values()),
        ("#b5536b", "#3a6fb0", "#8a8f98", "#e8833a", "#3f9a6b"),
        strict=True,
    )
)
ROW = 0.26  # inches
SHOWN = "VMCALL"


def draw(measured: Sequence[Measured], hz: Mapping[str, int], kind: str) -> bytes:
    """Draws two panels: VM exits and entries in cycles beside published numbers, whole switches in microseconds.

    Args:
        measured: the bars.
        hz: cycles a second by model.
        kind: svg or png; the same figures give the same bytes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "emu"
    matplotlib.rcParams["svg.fonttype"] = "none"
    trips = [one for one in measured if one.kind == "round trip"]
    # What made the VM exit is lost beside the devices: one reason stands for all.
    switches = [one for one in measured if one.kind == "software" or (one.kind, one.reason) == ("switch", SHOWN)]
    rows = [len(panel) + 2 for panel in (trips, switches) if panel]
    figure = Figure(figsize=(11, 1.4 + ROW * sum(rows) + 0.5 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), squeeze=False, height_ratios=rows)[:, 0]
    handles: list[Artist] = [matplotlib.patches.Patch(color=colour, label=group) for group, colour in COLOURS.items()]
    if trips:
        bars(panels[0], trips, dict.fromkeys(hz, 1.0))
        handles += marks(panels[0], trips)
        panels[0].set_title("VM exit and entry into the same VM", loc="left", fontsize=10)
        panels[0].set_xlabel("cycles")
    bars(panels[-1], switches, {model: 1e6 / rate for model, rate in hz.items()})
    panels[-1].set_title("Switch to another world, with its devices", loc="left", fontsize=10)
    panels[-1].set_xlabel("µs of guest time")
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=8)
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, dpi=120, metadata=metadata)
    return picture.getvalue()


def bars(axes: "Axes", rows: Sequence[Measured], scale: Mapping[str, float]) -> None:
    """A bar a row."""
    for place, row in enumerate(rows):
        left = 0.0
        for group, cycles in row.groups().items():
            width = cycles * scale[row.model]
            axes.barh(place, width, 0.7, left, color=COLOURS[group], linewidth=0)
            left += width
        total = f"{row.total:,} cycles"
        axes.annotate(total, (left, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7)
    names = [f"{row.model} {row.label or 'by firmware alone'}" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.margins(x=0.08)


def marks(axes: "Axes", rows: Sequence[Measured]) -> list["Line2D"]:
    """The published entry plus exit of a reason: a full mark where it was read, an open one where it is assumed.

    A number for no reason in particular is set beside VMCALL. Returns what the legend shows.
    """
    entries = {(one.model, one.source): one.cycles for one in PUBLISHED if one.what == "entry"}
    shown: dict[str, Line2D] = {}
    for place, row in enumerate(rows):
        for number in PUBLISHED:
            if number.model != row.model:
                continue
            entry = entries.get((number.model, number.source))
            if number.what == f"exit {row.reason}" and entry is not None:
                cycles = number.cycles + entry
            elif number.what == "exit and entry" and row.reason == SHOWN:
                cycles = number.cycles
            else:
                continue
            full = number.mark == "V"
            (mark,) = axes.plot(
                cycles, place, "D", markersize=4, color="#20242a", fillstyle="full" if full else "none", linestyle=""
            )
            shown["published" if full else "published, assumed"] = mark
    for label, mark in shown.items():
        mark.set_label(label)
    return list(shown.values())
