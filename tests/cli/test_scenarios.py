"""`emu scenarios`: each scenario ends as it should, and one that does not is said so."""

import json
from pathlib import Path

import pytest

from emu.builtin import scenarios
from emu.builtin.policy import guest_files
from emu.builtin.scenario import Scenario, Step, run_scenario
from emu.builtin.scenarios import SCENARIOS, STORY
from emu.cli import main
from emu.stop import StopReason


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str, tmp_path: Path) -> None:
    assert run_scenario(SCENARIOS[name], tmp_path).problems == []


def test_every_guest_is_in_one() -> None:
    used = {guest for one in SCENARIOS.values() for guest in one.policy.get("guests", ["writer"])}
    assert used == guest_files().keys()
    assert STORY in SCENARIOS


def test_the_same_twice(tmp_path: Path) -> None:
    first, second = (run_scenario(SCENARIOS["set-up"], tmp_path) for _ in range(2))
    assert (first.console, first.guest_seconds) == (second.console, second.guest_seconds)


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenarios", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(SCENARIOS)
    assert main(["scenarios", "--list", "no-vtx"]) == 0
    assert capsys.readouterr().out == f"no-vtx  {SCENARIOS['no-vtx'].about}\n"


def test_output_and_what_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenarios", "no-vtx", "trap-triple-fault", "--console", "--keep", str(tmp_path / "seen")]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0] == f"no-vtx             {SCENARIOS['no-vtx'].about}"
    results = [line[:21] for line in lines if line[:1].strip()][1::2]
    assert results == ["no-vtx             ok", "trap-triple-fault  ok"]
    assert any(line.endswith(" | triple    causes a triple fault") for line in lines)
    kept = tmp_path / "seen" / "trap-triple-fault"
    assert "service   VM 1 triple fault" in (kept / "console.txt").read_text()
    events = json.loads((kept / "timeline.json").read_text())["traceEvents"]
    assert {"Service VM", "Guest VM"} <= {one["args"].get("name") for one in events if one["ph"] == "M"}
    assert (kept / "timeline.svg").read_text().lstrip().startswith("<")


def test_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenarios", "trap-memroy"]) == 2
    assert capsys.readouterr().err == "emu: no scenario 'trap-memroy'; did you mean 'trap-memory'?\n"


def test_a_folder_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["scenarios", "no-vtx", "--keep", str(tmp_path / "file")]) == 2
    assert "emu: --keep " in capsys.readouterr().err


DOUBLE = {"boot": "native", "guests": ["double"]}
WRONG = {
    "a line that does not come": (
        Scenario("", DOUBLE, ["double    sings"]), "the console lacks 'double    sings': it did not come in its turn"),
    "lines in another order": (
        Scenario("", DOUBLE, ["took the double", "causes a double"]),
        "the console lacks 'causes a double': though earlier, it did not come in its turn"),
    "a line that must not come": (
        Scenario("", DOUBLE, [], never=["double fault"]), "the console has 'double fault'"),
    "another end": (
        Scenario("", DOUBLE, [], end=StopReason.TRIPLE_FAULT), "it ended with powered_off in place of triple_fault"),
    "a switch that there is not": (
        Scenario("", DOUBLE, [], switches=["A > B: HLT"]), "no switch 'A > B: HLT' in its turn"),
    "a file that does not come": (
        Scenario("", {**DOUBLE, "boot": "service", "flags": ["report"]}, [], received={"report.txt": "sings"}),
        "no report.txt with 'sings' came over the modem line"),
    "a step whose line does not come": (
        Scenario("", DOUBLE, [], steps=[Step("never", keys="x")]), "'never' did not come, so a step was not taken"),
    "a step whose line does not come in time": (
        Scenario("", {"query_seconds": 0}, [], steps=[Step("never", keys="x")], seconds=1, end=StopReason.LIMIT),
        "'never' did not come, so a step was not taken"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    scenario, problem = WRONG[what]
    monkeypatch.setitem(scenarios.SCENARIOS, "wrong", scenario)  # type: ignore[arg-type]
    assert main(["scenarios", "wrong"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("wrong  FAILED ")
    assert lines[1:] == [f"       {problem}", "1 of 1 did not end as they should"]
