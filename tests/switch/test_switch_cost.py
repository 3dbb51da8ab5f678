"""What a switch costs: the images of bios/switch on each model, and `emu bench switch`."""

import json
import shutil
import subprocess
import xml.etree.ElementTree
from pathlib import Path

import pytest

import asm
from bios.build import HERE, folders
from emu import Machine, definitions, models
from emu.builtin.switch_cost import (
    DEVICE_PARTS,
    GROUPS,
    MEMORY,
    PARAMETER_PORT,
    PUBLISHED,
    STATE_PARTS,
    TOUCHES,
    Measured,
    image,
    intervals,
    run_image,
    software_switch,
    take_lines,
    vmm_switches,
    vtx_switches,
)
from emu.cli import main
from emu.debug.timeline import Timeline
from emu.errors import ConfigError, EmuError

VTX = [name for name in models.names() if models.load(name)["vmx"]["revision"]]
NUMBERS = {name: number for number, name in definitions.reasons().items()}
REASONS = ["CPUID", "VMCALL", "HLT", "IO_INSTRUCTION", "EPT_VIOLATION", "EXCEPTION_OR_NMI", "EXTERNAL_INTERRUPT"]
SAME = 5  # cycles by which the sum of the parts may differ from the whole: what separates two readings is a CALL


def sum_of_parts(measured: Measured) -> int:
    return sum(measured.parts.values())


@pytest.mark.parametrize("model", models.names())
def test_the_parts_of_a_switch_in_software_are_the_whole(model: str) -> None:
    measured = software_switch(model)
    assert list(measured.parts) == [*STATE_PARTS, *DEVICE_PARTS]
    assert all(cycles > 0 for cycles in measured.parts.values())
    assert sum_of_parts(measured) == pytest.approx(measured.total, abs=SAME)
    assert sum(measured.groups().values()) == sum(measured.parts.values())
    assert TOUCHES <= measured.misses <= TOUCHES + 2  # a load of CR3 forgets all; the code's page and the stack's


@pytest.mark.parametrize("model", models.names())
def test_a_switch_in_software_disturbs_nothing(model: str) -> None:
    output = run_image(image("switch_software"), model)
    before, after = output.numbers("state")
    assert before == after
    # The interrupt that was pending came, at the vector that it had; none came to the other world.
    assert output.numbers("interrupt") == (1, 0)
    left, seen = output.numbers("timer")
    assert 0 <= left - seen < 200  # ticks: the timer went on where it had stopped


@pytest.mark.parametrize("model", ["pentium3", "westmere"])
def test_the_guests_clock_and_the_hosts_agree(model: str) -> None:
    """The same image with its readings taken outside, at a port."""
    rom = bytearray(image("switch_software"))
    rom[PARAMETER_PORT] = 1
    outside, inside = run_image(bytes(rom), model).cycles, run_image(image("switch_software"), model).cycles
    assert outside.keys() == inside.keys()
    for part in outside:
        assert outside[part] == pytest.approx(inside[part], rel=0.05, abs=SAME), part


def image_symbols(name: str) -> dict[str, int]:
    path = HERE / "switch" / f"{name}.asm"
    return dict(asm.assemble_file(path, include=folders("switch", HERE.parent / "emu" / "firmware")).symbols)


def disturbed(name: str, at: int, mask: int) -> bytes:
    """An image whose second world changes a byte of the first one's."""
    rom = bytearray(image(name))
    rom[4:12] = at.to_bytes(4, "little") + mask.to_bytes(4, "little")
    return bytes(rom)


@pytest.fixture(scope="module")
def symbols() -> dict[str, int]:
    return image_symbols("software")


FIELDS = (
    "cr2", "dr", "msr", "fpu", "imr", "elcr", "pic_vectors", "disk", "a20", "cmos_index", "pci_address", "port_b",
    "counter0", "cr4", "private",
)  # fmt: skip
OFFSETS = {"dr": 4, "fpu": 40, "disk": 3, "private": 100}
MASKS = {
    "elcr": 8, "pci_address": 4, "a20": 2, "cmos_index": 0x10, "cr4": 8, "counter0": 8, "pic_vectors": 8, "port_b": 2,
}  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_a_byte_that_changes_meanwhile_is_seen(symbols: dict[str, int], field: str) -> None:
    """World B changes a bit of what world A was when it was left."""
    at = symbols["WORLD_A_PRIVATE"] if field == "private" else symbols["world_a"] + symbols[f"world.{field}"]
    rom = disturbed("switch_software", at + OFFSETS.get(field, 0), MASKS.get(field, 1))
    if field == "pic_vectors":  # the interrupt comes where world A does not expect it
        with pytest.raises(EmuError, match="unexpected interrupt"):
            run_image(rom, "pentium3")
        return
    before, after = run_image(rom, "pentium3").numbers("state")
    assert before != after


@pytest.fixture(scope="module")
def vmx_symbols() -> dict[str, int]:
    return image_symbols("vmx")


@pytest.mark.parametrize("model", VTX)
def test_a_switch_to_the_service_vm_disturbs_nothing(model: str) -> None:
    before, after = run_image(image("switch_vmx"), model).numbers("state")
    assert before == after


@pytest.mark.parametrize("field", ["fpu", "dr", "cr2", "msr", "disk", "imr", "pci_address", "ebx"])
def test_a_byte_of_the_guest_that_changes_meanwhile_is_seen(vmx_symbols: dict[str, int], field: str) -> None:
    name = "vm.ebx" if field == "ebx" else f"world.{field}"
    at = vmx_symbols["vm_guest"] + vmx_symbols[name] + (0 if field == "ebx" else vmx_symbols["vm.world"])
    rom = disturbed("switch_vmx", at + OFFSETS.get(field, 0), MASKS.get(field, 1))
    before, after = run_image(rom, "westmere").numbers("state")
    assert before != after


@pytest.mark.parametrize("model", VTX)
def test_vm_exits_by_reason(model: str) -> None:
    vtx = vtx_switches(model)
    assert [one.reason for one in vtx.measured if one.kind == "round trip"] == [
        reason for reason in REASONS if reason not in vtx.skipped
    ]
    assert list(vtx.skipped) == ([] if models.load(model)["vmx"]["ept_vpid"] else ["EPT_VIOLATION"])
    tagged = bool(models.load(model)["vmx"]["ept_vpid"])
    assert (vtx.misses_without_vpid is not None) == tagged
    # With VPID a VM finds its translations again, but for the case whose preparation executes INVEPT.
    for one in vtx.measured:
        forgotten = one.kind == "switch" and (not tagged or one.reason == "EPT_VIOLATION")
        assert one.misses in (range(TOUCHES, TOUCHES + 3) if forgotten else (0,)), one
    assert not tagged or vtx.misses_without_vpid in range(TOUCHES, TOUCHES + 3)
    for one in vtx.measured:
        assert sum_of_parts(one) == pytest.approx(one.total, abs=SAME)
        assert all(cycles > 0 for cycles in one.parts.values())
        assert all(part in GROUPS for part in one.parts)
    for reason in {one.reason for one in vtx.measured}:
        trip, switch = (one for one in vtx.measured if one.reason == reason)
        assert (trip.kind, switch.kind) == ("round trip", "switch")
        for part in ("exit", "VMREADs", "handler", "VMWRITEs"):
            assert switch.parts[part] == trip.parts[part]


@pytest.mark.parametrize("model", VTX)
def test_transitions_take_what_the_model_says(model: str) -> None:
    """What is measured besides is the VMM's own: the instruction that exits, VMRESUME, POPAD, MOV."""
    clocks = models.load(model)["vmx"]
    figures = vtx_switches(model).figures()
    assert 0 <= figures["entry"] - clocks["entry"] < 20
    for reason in REASONS:
        if f"exit {reason}" in figures:
            besides = figures[f"exit {reason}"] - clocks["exits"][NUMBERS[reason]]
            assert -20 < besides < 0 if reason == "EXTERNAL_INTERRUPT" else 0 <= besides < 5
    for number in PUBLISHED:
        if number.model == model:
            assert figures[number.what] > 0


@pytest.mark.parametrize(("model", "trap"), [("westmere", "EPT_VIOLATION"), ("pentium3", "EXCEPTION_OR_NMI")])
def test_the_built_in_vmm(model: str, trap: str) -> None:
    switches = vmm_switches(model)
    assert switches and switches == vmm_switches(model)
    assert all(0 < one.cycles < 100_000 and one.source != one.target for one in switches)
    assert trap in {one.reason for one in switches}


def test_a_processor_that_the_vmm_does_not_run_on() -> None:
    assert vmm_switches("i386") == []


@pytest.mark.parametrize("model", sorted(set(models.names()) - set(VTX)))
def test_no_vt_x(model: str) -> None:
    assert vtx_switches(model).measured == []


@pytest.mark.parametrize("model", models.names())
def test_the_same_run_takes_the_same_cycles(model: str) -> None:
    assert software_switch(model) == software_switch(model)
    assert vtx_switches(model) == vtx_switches(model)


def test_switches_are_the_same_with_every_transition_looked_at() -> None:
    """A timeline looks at all VM entries and exits, a run without one only at those that switch VMs."""
    seen = []
    for timeline in (False, True):
        with Machine(MEMORY, "westmere", firmware=image("switch_vmx"), debugcon=0xE9, debug_exit=0xF4) as machine:
            if timeline:
                machine.vm_log.timeline = Timeline(1_000_000)
            while machine.run(cycles=997_001).reason == "limit":
                pass
            log = machine.vm_log
            seen.append((machine.switches, list(log.costs), log.count, log.order, log.vmcs, log.left, log.left_at))
    assert seen[0] == seen[1]
    runs = 4  # of a case: three to warm up, one that counts
    cases = 2 * len(REASONS) + 1  # with and without readings; and without VPID
    assert len(seen[0][0]) == 2 * (cases * runs + 1)  # there and back; and of the check


def test_readings() -> None:
    lines = take_lines("reading 0 4294967290 start\nreading 1 4 cost\nreading 2 50 a b\nreading 7 0 c\n\nend\n")
    assert intervals(lines["reading"], {7: 100}) == {"a b": 36, "c": 40}  # the cost is 10, over the counter's end
    assert "end" in lines


def test_an_image_that_fails() -> None:
    with pytest.raises(EmuError, match="failed on pentium3"):
        run_image(bytes(0xFFF0).ljust(1 << 16, b"\xff"), "pentium3")
    with pytest.raises(ConfigError, match="z80"):
        run_image(image("switch_vmx"), "z80")


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "switch", "--cpu", "pentium3", "westmere", "--cpu", "nehalem"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("pentium3:") < printed.index("westmere:") < printed.index("nehalem:")
    assert "no VT-x: the switch is made by firmware alone" in printed
    assert all(reason in printed for reason in REASONS) and "EXCEPTION_OR_NMI #PF" in printed
    assert all(part in printed for part in DEVICE_PARTS)
    westmere = printed[printed.index("westmere:") : printed.index("nehalem:")]
    assert "by the built-in VMM" in westmere and "TLB misses without VPID" in westmere
    row = next(line.split() for line in westmere.splitlines() if line.split()[:2] == ["exit", "CPUID"])
    assert row[2:] == ["389", str(vtx_switches("westmere").figures()["exit CPUID"]), "[1]", "assumed"]


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "switch.json"
    assert main(["bench", "switch", "--cpu", "westmere", "--output", str(path)]) == 0
    document = json.loads(path.read_text())
    westmere = document["models"]["westmere"]
    assert westmere["software"]["total"] == software_switch("westmere").total
    assert {row["reason"] for row in westmere["vtx"]} == set(REASONS)
    assert {number["mark"] for number in document["published"]} == {"V", "M"}


@pytest.mark.parametrize("models", [["pentium3"], ["westmere", "pentium3"]])
def test_svg(tmp_path: Path, models: list[str]) -> None:
    pictures = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for path in pictures:
        assert main(["bench", "switch", "--output", str(path), "--cpu", *models]) == 0
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    texts = {text.text for text in xml.etree.ElementTree.parse(pictures[0]).iter("{http://www.w3.org/2000/svg}text")}
    assert {"pentium3 by firmware alone", "device state", "transition"} <= texts
    assert ("westmere EPT_VIOLATION" in texts) == ("westmere" in models)


def test_png(tmp_path: Path) -> None:
    assert main(["bench", "switch", "--output", str(tmp_path / "a.png"), "--cpu", "i386"]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cpu", "z80"], "unknown processor model 'z80'"),
        (["--cpu", "i386", "--output", "/nonexistent/a.svg"], "/nonexistent/a.svg: cannot be written"),
        (["--cpu", "i386", "--output", "a.txt"], "a.txt: the file ends in .json, .svg, .png"),
        (["--cpu", "i386", "--output", ""], "the file ends in"),
        (["--cpu", "i386", "--timing", "guess"], "unknown timing 'guess'"),
        (["--cpu"], "expected at least one argument"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "switch", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out


# --- another emulator -------------------------------------------------------------------------------------------------

BOCHS_SETTINGS = """
megs: 8
romimage: file=image.rom
vgaromimage: file=display.rom
cpu: model=corei7_haswell_4770, reset_on_triple_fault=0
clock: sync=none
display_library: rfb, options="timeout=0"
port_e9_hack: enabled=1
sound: driver=dummy
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, path=disk.img, mode=flat
log: log.txt
"""


def run_on_bochs(rom: bytes, folder: Path) -> dict[str, list[list[str]]]:
    """The lines that an image prints on Bochs."""
    (folder / "image.rom").write_bytes(rom)
    (folder / "display.rom").write_bytes(b"\x55\xaa\x01".ljust(512, b"\0"))  # it does not start without one
    (folder / "settings").write_text(BOCHS_SETTINGS)
    (folder / "debugger").write_text("c\n")
    with open(folder / "disk.img", "wb") as disk:
        disk.truncate(16 * 63 * 16 * 512)
    done = subprocess.run(
        ["bochs", "-q", "-f", "settings", "-rc", "debugger"], cwd=folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False,
    )  # fmt: skip
    return take_lines(done.stdout.decode(errors="replace"))


@pytest.mark.skipif(not shutil.which("bochs"), reason="Bochs is not installed")
def test_the_images_on_bochs(tmp_path: Path) -> None:
    """The same images do there what they do here, but for the cycles."""
    software = run_on_bochs(image("switch_software"), tmp_path)
    before, after = software["state"][0]
    assert before == after and software["interrupt"] == [["1", "0"]]
    here = run_image(image("switch_software"), "westmere")
    assert [line[2:] for line in software["reading"]] == [line[2:] for line in here.lines["reading"]]
    vmx, here = run_on_bochs(image("switch_vmx"), tmp_path), run_image(image("switch_vmx"), "westmere")
    assert [line[2:] for line in vmx["reading"]] == [line[2:] for line in here.lines["reading"]]
    assert "end" in vmx and "skip" not in vmx and vmx["state"][0][0] == vmx["state"][0][1]
