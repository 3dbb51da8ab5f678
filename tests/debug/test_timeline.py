"""Timelines: exact sums whatever is merged, a file that Perfetto reads, pictures that repeat."""

import itertools
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import emu
from emu.debug.timeline import MOST_SPANS, Lane, Timeline, format_of
from emu.vm_log import KEPT, VmLog

MHZ = 1_000_000


def story() -> Timeline:
    timeline = Timeline(MHZ, ("VMM", "Service VM", "Guest VM"))
    timeline.ran("Service VM", 0, 100)
    timeline.switched(100, "Service VM", "Guest VM", "service done")
    timeline.ran("Guest VM", 110, 400)
    timeline.switched(400, "Guest VM", "Service VM", "trap: write to 200000h")
    timeline.ran("VMM", 400, 420)
    timeline.ran("Service VM", 420, 500)
    return timeline


def test_perfetto_events_have_every_span_and_switch() -> None:
    events = json.loads(story().render(".json"))["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    spans = [(names[e["tid"]], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    assert spans == [("VMM", 400, 20), ("Service VM", 0, 100), ("Service VM", 420, 80), ("Guest VM", 110, 290)]
    marks = [(e["ts"], e["name"], e["args"]["from"], e["args"]["to"]) for e in events if e["ph"] == "i"]
    assert marks == [
        (100, "service done", "Service VM", "Guest VM"),
        (400, "trap: write to 200000h", "Guest VM", "Service VM"),
    ]
    starts = {e["id"]: names[e["tid"]] for e in events if e["ph"] == "s"}
    ends = {e["id"]: names[e["tid"]] for e in events if e["ph"] == "f"}
    assert (starts, ends) == ({0: "Service VM", 1: "Guest VM"}, {0: "Guest VM", 1: "Service VM"})


def test_svg_names_the_lanes_and_causes_and_repeats() -> None:
    first, second = story().render(".svg"), story().render(".svg")
    assert first == second
    text = " ".join(ElementTree.fromstring(first).itertext())
    for wanted in ("VMM", "Service VM", "Guest VM", "180 cycles", "2 trap: write to 200000h", "guest time (µs)"):
        assert wanted in text


def test_png_is_one() -> None:
    picture = story().render(".png")
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert picture == story().render(".png")


def texts(picture: bytes) -> str:
    """What is written in an SVG picture."""
    return " ".join(ElementTree.fromstring(picture).itertext())


def test_a_timeline_without_vms_or_switches_says_so() -> None:
    timeline = Timeline(MHZ, ("VMM",))
    assert "no VM ran" in texts(timeline.render(".svg"))
    assert timeline.render(".png").startswith(b"\x89PNG")
    assert [event["name"] for event in json.loads(timeline.render(".json"))["traceEvents"]] == [
        "process_name", "thread_name", "thread_sort_index",
    ]  # fmt: skip
    assert "no VM ran" in texts(Timeline(MHZ).render(".svg"))
    timeline.ran("Guest VM", 5, 5000)
    assert "no VM switches" in texts(timeline.render(".svg"))


def test_thousands_of_switches_are_drawn_sparsely_and_that_is_said() -> None:
    """An arrow for some, in both directions; causes where there is room; every one of them in the JSON."""
    timeline = Timeline(MHZ)
    for at in range(5000):
        source, target = ("Guest VM", "Service VM") if at % 2 else ("Service VM", "Guest VM")
        timeline.ran(source, at * 100, at * 100 + 90)
        timeline.switched(at * 100 + 90, source, target, "HLT")
    drawn = texts(timeline.render(".svg"))
    assert "5,000 VM switches, an arrow for one in 13" in drawn
    assert 10 < drawn.count("HLT") < 60
    assert len(timeline.render(".svg")) < 400_000
    document = json.loads(timeline.render(".json"))
    assert sum(event["ph"] == "i" for event in document["traceEvents"]) == 5000
    assert document["otherData"] == {"switches": 5000, "switches left out": 0}


def test_switches_beyond_what_is_kept_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emu.debug.timeline.MOST_SWITCHES", 100)
    timeline = story()
    for at in range(105):
        timeline.switched(500 + at, "Service VM", "Guest VM", "HLT")
    assert len(timeline.switches) == 100
    assert json.loads(timeline.render(".json"))["otherData"] == {"switches": 107, "switches left out": 7}
    assert "none of the last 7" in texts(timeline.render(".svg"))


class Recorded:
    """A processor's record of VM entries and exits, as VmLog reads it: two VMs in turns, each entered for 5 cycles."""

    def __init__(self, entries: int) -> None:
        self.record = [
            SimpleNamespace(kind=kind, cycle=10 * at + 5 * (kind == "exit"), vmcs=0x1000 * (1 + at % 2), reason="HLT",
                            qualification=0, rip=0)
            for at in range(entries) for kind in ("entry", "exit")
        ]  # fmt: skip
        self.transition_count = len(self.record)

    def transitions(self, since: int) -> list[SimpleNamespace]:
        return self.record[since:]


def test_the_timeline_has_more_switches_than_the_log_keeps() -> None:
    log = VmLog(cast(Any, Recorded(3 * KEPT)), cast(Any, b""))
    log.timeline = Timeline(MHZ, ("VMM",))
    log.poll()
    assert len(log.raw) == KEPT
    assert len(log.timeline.switches) == 3 * KEPT - 1
    assert log.timeline.switches[0].cycle == 10
    log.timeline.rename({"VMCS 0x1000": "One", "VMCS 0x2000": "Two"})
    assert {(one.source, one.target, one.why) for one in log.timeline.switches} == {
        ("One", "Two", "HLT"), ("Two", "One", "HLT"),
    }  # fmt: skip


def test_new_names_reach_lanes_and_switches() -> None:
    timeline = story()
    timeline.rename({"Guest VM": "Linux"})
    assert list(timeline.lanes) == ["VMM", "Service VM", "Linux"]
    assert [(one.source, one.target) for one in timeline.switches] == [("Service VM", "Linux"), ("Linux", "Service VM")]


def test_a_lane_stays_bounded_and_its_sum_exact() -> None:
    lane = Lane("Guest VM")
    count = 5 * MOST_SPANS
    for at in range(count):
        lane.add(at * 10, at * 10 + 3 + at % 5)
    spans = list(lane.spans())
    assert len(spans) <= MOST_SPANS
    assert lane.cycles == sum(3 + at % 5 for at in range(count))
    assert all(start < end for start, end in spans)
    assert all(first[1] < second[0] for first, second in itertools.pairwise(spans))
    assert (spans[0][0], spans[-1][1]) == (0, (count - 1) * 10 + 3 + (count - 1) % 5)


def test_a_wide_gap_survives_merging() -> None:
    lane = Lane("Guest VM")
    for at in range(3 * MOST_SPANS):
        lane.add(at * 10 + (10**9 if at > MOST_SPANS else 0), at * 10 + 5 + (10**9 if at > MOST_SPANS else 0))
    assert not lane.ran_at(10**8)
    assert lane.ran_at(10**9 + MOST_SPANS * 10 + 12)


def test_the_ending_decides_and_a_wrong_one_is_said(tmp_path: Path) -> None:
    assert format_of("a.b/run.svg") == ".svg"
    with pytest.raises(emu.ConfigError, match=r"run\.gif: a timeline ends in \.json, \.svg, \.png"):
        format_of("run.gif")
    story().save(tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text())["displayTimeUnit"] == "ns"
    with pytest.raises(emu.ConfigError, match="cannot be written"):
        story().save(tmp_path / "missing" / "run.json")


def test_a_picture_of_many_spans_stays_small() -> None:
    timeline = Timeline(MHZ)
    for at in range(15_000):
        timeline.ran("VMM" if at % 2 else "Guest VM", at * 10, at * 10 + 10)
    assert len(timeline.render(".svg")) < 300_000
    events = json.loads(timeline.render(".json"))["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) == 15_000
