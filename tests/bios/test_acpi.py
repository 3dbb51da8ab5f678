"""The ACPI tables: their structure in memory, and what Intel's own tools make of them."""

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from emu import Machine

from .conftest import Built
from .vmm import BARE_MEMORY

MEMORY = BARE_MEMORY
needs_iasl = pytest.mark.skipif(shutil.which("iasl") is None, reason="iasl is not installed (package acpica-tools)")
needs_acpiexec = pytest.mark.skipif(
    shutil.which("acpiexec") is None, reason="acpiexec is not installed (package acpica-tools)"
)
COMPILER = slice(28, 36)  # creator and its revision: the compiler writes its own


@pytest.fixture(scope="module")
def memory(built: Built) -> bytes:
    """The RAM of a machine after POST."""
    with Machine(memory=MEMORY, cpu="pentium3", firmware=built.rom()) as machine:
        machine.run(seconds=5)
        assert machine.board.bus.port_read(0x604, 2) & 1  # SCI_EN: ACPI is on without SMI_CMD
        return bytes(machine.memory.read(0, MEMORY))


def table(memory: bytes, address: int) -> bytes:
    """A table, its checksum verified."""
    (size,) = struct.unpack_from("<I", memory, address + 4)
    data = memory[address : address + size]
    assert sum(data) % 256 == 0, data[:4]
    return data


def tables(memory: bytes) -> dict[str, bytes]:
    """All tables, found as an operating system finds them."""
    at = next(n for n in range(0xE0000, 0x100000, 16) if memory[n : n + 8] == b"RSD PTR ")
    assert sum(memory[at : at + 20]) % 256 == 0
    (rsdt,) = struct.unpack_from("<I", memory, at + 16)
    found = {"RSDT": table(memory, rsdt)}
    for (address,) in struct.iter_unpack("<I", found["RSDT"][36:]):
        found[memory[address : address + 4].decode()] = table(memory, address)
    facs, dsdt = struct.unpack_from("<2I", found["FACP"], 36)
    assert facs % 64 == 0 and memory[facs : facs + 8] == b"FACS" + struct.pack("<I", 64)
    found["FACS"] = memory[facs : facs + 64]
    found["DSDT"] = table(memory, dsdt)
    return found


def test_the_tables_lead_to_one_another(memory: bytes) -> None:
    found = tables(memory)
    assert set(found) == {"RSDT", "FACP", "FACS", "DSDT"}
    fadt = found["FACP"]
    assert len(fadt) == 116
    assert struct.unpack_from("<H", fadt, 46)[0] == 9  # SCI_INT
    assert struct.unpack_from("<I", fadt, 48)[0] == 0  # SMI_CMD
    assert struct.unpack_from("<I", fadt, 56)[0] == 0x600  # PM1a_EVT_BLK
    assert struct.unpack_from("<I", fadt, 64)[0] == 0x604  # PM1a_CNT_BLK
    assert struct.unpack_from("<I", fadt, 76)[0] == 0x608  # PM_TMR_BLK
    assert struct.unpack_from("<I", fadt, 80)[0] == 0x60C and fadt[92] == 4  # GPE0_BLK


@needs_iasl
@pytest.mark.parametrize("name", ["dsdt", "dsdt_vm"])
def test_iasl_takes_a_dsdt_apart_and_compiles_the_same_bytes(built: Built, name: str, tmp_path: Path) -> None:
    original = bytearray((built.folder / f"{name}.aml").read_bytes())
    (tmp_path / "a.aml").write_bytes(original)
    subprocess.run(["iasl", "-d", "a.aml"], cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(["iasl", "-p", "b", "a.dsl"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "0 Errors, 0 Warnings" in done.stdout
    # The source names the file that the compiler writes.
    compiled = bytearray(next(p for p in (tmp_path / "b.aml", tmp_path / "a.aml") if p.exists()).read_bytes())
    assert compiled[36:48] == original[36:48]
    for image in (original, compiled):
        image[9] = 0
        image[COMPILER] = bytes(8)
    assert compiled == original


@needs_iasl
@pytest.mark.parametrize("name", ["RSDT", "FACP", "FACS"])
def test_iasl_takes_a_table_apart_and_compiles_the_same_bytes(memory: bytes, name: str, tmp_path: Path) -> None:
    original = bytearray(tables(memory)[name])
    (tmp_path / "a.dat").write_bytes(original)
    subprocess.run(["iasl", "-d", "a.dat"], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(["iasl", "-p", "b", "a.dsl"], cwd=tmp_path, check=True, capture_output=True)
    compiled = bytearray((tmp_path / "b.aml").read_bytes())
    if name != "FACS":
        for image in (original, compiled):
            image[9] = 0
            image[COMPILER] = bytes(8)
    assert compiled == original


def evaluate(folder: Path, dsdt: bytes, *commands: str) -> str:
    """What acpiexec prints."""
    (folder / "dsdt.aml").write_bytes(dsdt)
    done = subprocess.run(
        ["acpiexec", "-b", ";".join([*commands, "quit"]), "dsdt.aml"],
        cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@needs_acpiexec
def test_acpiexec_evaluates_prt_and_s5(memory: bytes, tmp_path: Path) -> None:
    dsdt = tables(memory)["DSDT"]
    routes = evaluate(tmp_path, dsdt, r"evaluate \_SB.PCI0._PRT")
    assert "returned object" in routes and len(re.findall(r"Object Reference.*LNK[A-D]|LNK[A-D]", routes)) >= 28
    soft_off = evaluate(tmp_path, dsdt, r"evaluate \_S5")
    assert "Contains 4 Elements" in soft_off or soft_off.count("Integer") >= 4


@needs_acpiexec
@pytest.mark.parametrize("name", ["dsdt", "dsdt_vm"])
def test_acpiexec_evaluates_everything(built: Built, name: str, tmp_path: Path) -> None:
    output = evaluate(tmp_path, (built.folder / f"{name}.aml").read_bytes(), "evaluate \\_PIC 1", "all _CRS")
    assert not re.search("AE_(?!OK)|Error", output)


@needs_acpiexec
@pytest.mark.parametrize("link", "ABCD")
def test_every_method_of_a_link(memory: bytes, link: str, tmp_path: Path) -> None:
    """Routes it to IRQ 11, asks for the route, and disables it. The registers are acpiexec's own memory."""
    path = rf"\_SB.LNK{link}"
    route = "(23 00 08 18 79 00)"  # the resource template of IRQ 11, level-triggered
    output = evaluate(
        tmp_path, tables(memory)["DSDT"], f"evaluate {path}._STA", f"evaluate {path}._PRS",
        f"evaluate {path}._SRS {route}", f"evaluate {path}._CRS", f"evaluate {path}._DIS", f"evaluate {path}._STA",
    )  # fmt: skip
    assert not re.search("AE_(?!OK)|Error", output)
    assert "23 00 08 18 79 00" in output  # _CRS
    values = re.findall(r"\[Integer\] = ([0-9A-F]+)", output)
    assert int(values[0], 16) == 0xB and int(values[-1], 16) == 9
