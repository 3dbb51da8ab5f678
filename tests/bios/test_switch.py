"""The ROMs that measure a switch, and `emu bench switch`."""

import json
import xml.etree.ElementTree
from pathlib import Path

import pytest

from emu import Machine, StopReason, models
from emu.cli import main
from emu.commands.bench_switch import PUBLISHED, VMX_MODELS, measure_software, measure_vmm, measure_vmx, measured

from .conftest import Built

REASONS = ["VMCALL", "CPUID", "HLT", "IO_INSTRUCTION", "EXCEPTION_OR_NMI", "EPT_VIOLATION", "EXTERNAL_INTERRUPT"]
PARTS = ["registers", "FPU", "descriptor-tables", "control-registers", "interrupt-controllers", "timer", "disk-view"]
VMX = [name for name in VMX_MODELS if name in models.names()]


@pytest.mark.parametrize("model", VMX)
def test_exits_by_reason(model: str) -> None:
    exits, parts = measure_vmx(model)
    expected = [reason for reason in REASONS if model != "prescott" or reason != "EPT_VIOLATION"]
    assert [one.reason for one in exits] == expected
    assert all(cycles > 0 for one in exits for cycles in (one.exit, one.reads, one.entry))
    assert [part.name for part in parts] == ["FPU", "VMPTRLD", "TSC-offset", "TLB-refill"]
    assert measure_vmx(model) == (exits, parts)


@pytest.mark.parametrize("model", VMX)
def test_published_numbers_are_beside_something_measured(model: str) -> None:
    exits, parts = measure_vmx(model)
    rows = [row for row in PUBLISHED if row[0] == model]
    assert rows and all(measured(what, exits, parts) > 0 for _, what, _, _ in rows)


def test_a_switch_by_the_vmm() -> None:
    switches = measure_vmm("westmere")
    assert [one.name for one in switches] == ["VMCALL", "EPT_VIOLATION", "VMCALL", "IO_INSTRUCTION"]
    exits, _ = measure_vmx("westmere")
    by_reason = {one.reason: one for one in exits}
    for one in switches:  # a switch is more than the transitions
        assert one.cycles > by_reason[one.name].total
    assert measure_vmm("nehalem") == []


def test_no_vt_x_on_the_pentium_iii() -> None:
    assert measure_vmx("pentium3") == ([], [])


@pytest.mark.parametrize("model", ["pentium3", "westmere"])
def test_the_world_switch_in_software(model: str) -> None:
    parts = measure_software(model)
    assert [part.name for part in parts] == PARTS
    assert all(part.cycles > 0 for part in parts)
    assert measure_software(model) == parts


def test_the_world_switch_finds_a_disturbance(built: Built) -> None:
    """A byte of the second world's FPU image changed between two switches."""
    with Machine(16 << 20, "pentium3", firmware=built.rom("switch_software")) as machine:
        machine.run(seconds=5, until=0x10000 + machine_offset(built, "world_switch"))
        at = 0x10000 + machine_offset(built, "world_b") + fx_offset(built) + 32
        machine.memory.write(at, b"\x00")
        stop = machine.run(seconds=5)
        assert stop.reason is StopReason.POWERED_OFF
        assert machine.serial.output.endswith(b"DISTURBED\r\n")


def symbols(built: Built) -> dict[str, int]:
    import asm
    from bios.build import HERE, folders

    path = HERE / "switch" / "software.asm"
    return dict(asm.assemble_file(path, include=folders("switch", built.folder)).symbols)


def machine_offset(built: Built, name: str) -> int:
    return symbols(built)[name] - 0x10000


def fx_offset(built: Built) -> int:
    return symbols(built)["world.fx"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "switch", "--cpu", "pentium3", "--json", f"{tmp_path}/a", "--svg", f"{tmp_path}/b"]) == 0
    printed = capsys.readouterr().out
    assert "no VT-x" in printed and "world switch in software" in printed
    figures = json.loads((tmp_path / "a").read_text())
    assert [part["name"] for part in figures["pentium3"]["software"]] == PARTS
    picture = xml.etree.ElementTree.parse(tmp_path / "b").getroot()
    texts = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "world switch in software, cycles" in texts and "pentium3" in texts


def test_an_unknown_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "switch", "--cpu", "z80"]) == 2
    assert "z80" in capsys.readouterr().err

