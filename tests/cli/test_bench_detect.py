"""`emu bench detect`: each fault is detected, hangs within the contract's bound."""

import json
from pathlib import Path

import pytest

from emu import EmuError
from emu.builtin.detection import FAULTS, Fault, detect
from emu.cli import main
from emu.commands import bench_detect

SLICE = 0.010  # schedule.inc
DISK = 0.1  # a revolution or two, and the guest's wait
SWITCH = 0.001  # more than a switch and the VMM's own work take


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.fault}, {fault.detector}")
def test_fault_is_detected(fault: Fault) -> None:
    found = detect(fault, "westmere")
    if not fault.found:
        assert found == (fault.fault, fault.detector, None, None, None)
        return
    assert found.seconds is not None
    bound = DISK if fault.bad_sector is not None else 0.0
    if fault.fault.startswith("hang"):
        period, polls = fault.policy["poll_us"] / 1e6, fault.policy["polls"]
        bound = (polls + 1) * max(period, 50e-6) + SLICE  # a period below a round trip is stretched
    assert 0 < found.seconds < bound + SWITCH
    assert found.cycles == round(found.seconds * 2_660_000_000)


def test_what_is_not_detected_is_said() -> None:
    blind = next(one for one in FAULTS if one.guest == "writer")._replace(policy={"regions": []})
    with pytest.raises(EmuError, match=r"write to protected memory was not detected by memory trap in 1\.0 s"):
        detect(blind, "westmere")
    with pytest.raises(EmuError, match="the guest hung did not get to its fault at guest_double_double_now"):
        detect(blind._replace(guest="hung", place="guest_double_double_now"), "westmere")
    with pytest.raises(EmuError, match="memory trap found something of the guest writer, which works"):
        detect(blind._replace(policy={}, found=False), "westmere")


def test_table_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench_detect, "FAULTS", [one for one in FAULTS if one.guest in ("healthy", "writer")])
    path = tmp_path / "detect.json"
    assert main(["bench", "detect", "--cpu", "westmere", "--output", str(path)]) == 0
    healthy, row = json.loads(path.read_text())["models"]["westmere"]
    assert healthy["cycles"] is None
    assert row["fault"] == "write to protected memory" and row["reason"] == "EPT_VIOLATION"
    said = capsys.readouterr().out
    assert f"{row['cycles']:,}" in said and "nothing, as it should be" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cpu", "i386"], "emu: i386: the VMM does not run on this processor"),
        (["--cpu", "pentium9"], "emu: "),
        (["--output", "table.svg"], "emu: table.svg: the file ends in .json"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "detect", *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)
