"""POST, run on the machine: what it sets up is looked at afterwards, and the image is taken to other PCs."""

import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from bios.build import FILES, GENERATED, HERE
from emu import Machine, StopReason
from emu.builtin.policy import policy_nvram

from .conftest import Built
from .vmm import BARE_MEMORY

FLASH_BASE = 0xFFF00000
SOURCES = ["acpi/dsdt.asm", "acpi/dsdt_vm.asm", "switch/software.asm", "switch/vmx.asm", *FILES.values()]
PCI_ADDRESS, PCI_DATA = 0xCF8, 0xCFC


@pytest.fixture(scope="module")
def native(built: Built) -> Any:
    """A machine on which the guest boots without a VMM, at its end."""
    with Machine(memory=BARE_MEMORY, cpu="pentium3", firmware=built.rom()) as machine:
        stop = machine.run(seconds=5)
        yield machine, stop, machine.serial.output.decode()


def altered(rom: bytes, name: str) -> bytes:
    """The flash chip with one byte of a file changed."""
    image = bytearray(rom)
    (count,) = struct.unpack_from("<I", image, 8)
    for entry in range(count):
        file, offset, size, _ = struct.unpack_from("<12s3I", image, 16 + 24 * entry)
        if file.rstrip(b"\0").decode() == name:
            image[offset + size // 2] ^= 1
            return bytes(image)
    raise AssertionError(name)


def test_memory_is_sized_by_the_cmos_ram_and_tried_out(built: Built) -> None:
    for size in (2, 15, 16, 17, 100):
        with Machine(memory=size << 20, firmware=built.rom()) as machine:
            machine.run(seconds=5)
            assert f"memory    {size << 10} KiB, as the CMOS RAM says" in machine.serial.output.decode()


def test_the_firmware_runs_from_locked_shadow_ram(built: Built, native: Any) -> None:
    machine, _, console = native
    assert "shadow    E0000h-FFFFFh copied to RAM" in console
    assert machine.memory.read(0xFFFF0, 5) == built.rom()[-16:-11]  # the RAM behind the ROM
    bus = machine.board.bus
    pam = []
    for register in range(0x59, 0x60):
        bus.port_write(PCI_ADDRESS, 0x80000000 | register & ~3, 4)
        pam.append(bus.port_read(PCI_DATA + (register & 3), 1))
    assert pam == [0x10, *[0x11] * 6]  # read enable alone: a write goes to the ROM


def test_pci_devices_are_enumerated(native: Any) -> None:
    _, _, console = native
    found = re.findall(r"PCI       (\S+) (\S+) class (\S+)", console)
    assert ("00.0", "8086:1237", "0600") in found and ("01.0", "8086:7110", "0601") in found
    assert ("01.1", "8086:7111", "0101") in found and ("01.3", "8086:7113", "0680") in found


@pytest.mark.parametrize(
    ("mib", "ends", "more"),
    [
        (16, [2] * 8, ""),
        (100, [13] * 8, ""),  # the last unit of 8 MiB is filled in part
        (300, [16, 32, 38, 38, 38, 38, 38, 38], ""),
        (1024, [16, 32, 48, 64, 80, 96, 112, 128], ""),
        (1152, [16, 32, 48, 64, 80, 96, 112, 128], "; the host bridge counts no more"),
    ],
)
def test_the_host_bridge_is_told_where_dram_rows_end(built: Built, mib: int, ends: list[int], more: str) -> None:
    """82441FX, "DRB[0:7] - DRAM Row Boundary Registers": the upper limit of each row, in units of 8 MiB."""
    with Machine(memory=mib << 20, cpu="pentium3", firmware=built.rom()) as machine:
        machine.serial.expect(b"PCI       01.0")
        assert [machine.board.bridge.read_config(0x60 + row) for row in range(8)] == ends
        listed = " ".join(str(8 * end) for end in dict.fromkeys(ends))
        assert f"DRAM      rows end at {listed} MiB{more}\r\n" in machine.serial.output.decode()


def test_the_option_rom_is_run(native: Any) -> None:
    machine, _, console = native
    assert "option    management modem on COM2, 115200 baud" in console
    image = machine.memory.read(0xD0000, 512)
    assert image[:2] == b"\x55\xaa" and sum(image) % 256 == 0


def test_an_option_rom_with_a_wrong_checksum_is_not_run(built: Built) -> None:
    image = bytearray(altered(built.rom(), "option.rom"))
    (offset, size) = struct.unpack_from("<2I", image, 16 + 12)
    struct.pack_into("<I", image, 16 + 20, zlib.crc32(image[offset : offset + size]))  # the file itself is sound
    with Machine(memory=16 << 20, firmware=bytes(image)) as machine:
        stop = machine.run(seconds=5)
        console = machine.serial.output.decode()
    assert stop.reason is StopReason.POWERED_OFF
    assert "option    ROM at 000D0000: length or checksum wrong, not run" in console
    assert "management modem" not in console


def test_the_memory_map_that_a_guest_is_told(native: Any) -> None:
    machine, _, _ = native
    at = machine.memory.read(0xF0000, 0x10000).index(b"SVCS")
    _, display, count, *words = struct.unpack("<4s2I" + "QQI" * 6, machine.memory.read(0xF0000 + at, 12 + 120))
    assert (display, count) == (0, 6)
    entries = [tuple(words[3 * n : 3 * n + 3]) for n in range(count)]
    assert entries == [
        (0, 0xA0000, 1), (0x100000, 0xDED000, 1), (0xEED000, 0x3000, 2), (0xEF0000, 0x10000, 3),
        (0xE0000, 0x20000, 2), (FLASH_BASE, 0x100000, 2),
    ]  # fmt: skip


def test_a_processor_that_cannot_run_the_vmm_says_why(built: Built) -> None:
    with Machine(memory=16 << 20, cpu="i386", firmware=built.rom()) as machine:
        stop = machine.run(seconds=8)
        console = machine.serial.output.decode()
    assert "bare machine: the processor has no CPUID" in console and "needs a processor with CPUID" in console
    assert stop.reason is StopReason.POWERED_OFF


def test_too_little_memory_for_virtual_machines(built: Built) -> None:
    with Machine(memory=8 << 20, cpu="westmere", firmware=built.rom()) as machine:
        stop = machine.run(seconds=8)
        console = machine.serial.output.decode()
    assert "bare machine: less than 16 MiB of memory" in console and "guest     ends well" in console
    assert stop.reason is StopReason.POWERED_OFF


@pytest.mark.parametrize("name", ["guest", "service", "vmm"])
def test_a_corrupt_file_is_reported(built: Built, name: str) -> None:
    with Machine(memory=16 << 20, cpu="westmere", firmware=altered(built.rom(), name)) as machine:
        stop = machine.run(seconds=5)
        console = machine.serial.output.decode()
    assert "its checksum is wrong" in console
    assert stop.reason is StopReason.POWERED_OFF
    assert ("guest     ends well" in console) == (name != "guest"), "without VMM or Service OS on the bare machine"
    if name != "vmm":
        assert f"VMM       file {name}: its checksum is wrong" in console


def test_checksums_that_mathematics_gives(native: Any) -> None:
    lines = dict(line.split()[1:3] for line in native[2].splitlines() if "check " in line)
    below = 0x40000
    prime = bytearray(b"\x01") * below
    for number in range(2, 513):
        prime[2 * number :: number] = bytes(len(range(2 * number, below, number)))
    assert int(lines["sieve"], 16) == sum(prime[2:]) * 65537 & 0xFFFFFFFF
    assert int(lines["recursion"], 16) == 6765  # the 20th Fibonacci number
    data, value = bytearray(), 0
    for count in range(4096, 0, -1):
        data.append(value)
        value = ((value + 7) & 0xFF) ^ (count & 0xFF)
    assert int(lines["CRC-32"], 16) == zlib.crc32(data)


@pytest.mark.skipif(shutil.which("nasm") is None, reason="nasm is not installed")
@pytest.mark.parametrize("source", ["firmware/firmware.asm", *SOURCES])
def test_nasm_gives_the_same_bytes(built: Built, source: str, tmp_path: Path) -> None:
    import asm

    path = HERE / source
    folders = [path.parent, HERE / "acpi", HERE / "include", GENERATED, built.folder]
    ours = asm.assemble_file(path, include=[str(folder) for folder in folders]).binary
    options = [part for folder in folders for part in ("-I", f"{folder}/")]
    subprocess.run(["nasm", "-f", "bin", *options, "-o", tmp_path / "nasm.bin", path], check=True, capture_output=True)
    assert (tmp_path / "nasm.bin").read_bytes() == ours


@pytest.mark.skipif(shutil.which("qemu-system-i386") is None, reason="qemu-system-i386 is not installed")
def test_another_pc_boots_it(built: Built, tmp_path: Path) -> None:
    (tmp_path / "rom").write_bytes(built.rom())
    done = subprocess.run(
        ["qemu-system-i386", "-accel", "tcg", "-cpu", "pentium3,-apic", "-m", "32", "-nodefaults", "-display", "none",
         "-serial", "stdio", "-bios", tmp_path / "rom"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "memory    32768 KiB, as the CMOS RAM says" in done.stdout
    assert "FAILED" not in done.stdout and "VMs run in ring 3" in done.stdout
    assert "service   VM 1 wrote to protected memory" in done.stdout
    assert "guest     undisturbed: registers, flags, FPU, memory" in done.stdout
    assert "VMM       the Service VM is off: power off" in done.stdout


def test_labels_of_firmware_and_vmm_are_symbols_of_the_machine() -> None:
    with Machine(nvram=policy_nvram(boot="service")) as machine:
        assert machine.run(until="enter32").reason is StopReason.BREAKPOINT
        assert machine.cpu.cs.base + machine.cpu.rip == machine.symbols["enter32"] < 1 << 20
        assert machine.run(until="vmm_exit_ept_violation", seconds=1).reason is StopReason.BREAKPOINT
        assert machine.symbols["vmm_exit_ept_violation"] >= 0xC0000000


def test_a_machine_with_too_little_memory_is_told_so() -> None:
    with Machine(memory=1 << 20) as machine:
        assert machine.run(seconds=1).reason is StopReason.HALTED
        assert b"too little: 2 MiB are needed" in machine.serial.output
    with Machine(memory=2 << 20) as machine:
        assert machine.run(seconds=2).reason is StopReason.POWERED_OFF
