"""What tests look at in a machine that runs the VMM: its symbols, its blocks of the VMs, its record of switches."""

import hashlib
import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import asm
from bios.build import HERE, flash, folders
from emu import Machine

REGION = 4 << 20  # the VMM's memory, at the top of RAM
SERVICE, GUEST = 0, 1
BOOT, CALL, TRAP, POWER_OFF = 100, 101, 1, 4  # reasons of a switch, vm_abi.inc


class Switch(NamedTuple):
    """An entry of the VMM's record."""

    tsc: int
    source: int
    target: int
    reason: int
    exit: int
    qualification: int
    rip: int


@cache
def vmm_symbols(folder: Path) -> Mapping[str, int]:
    """The VMM's symbols: linear addresses and offsets."""
    return asm.assemble_file(HERE / "vmm" / "vmm.asm", include=folders("vmm", folder)).symbols


class Vmm:
    """A machine whose RAM ends on a multiple of 4 MiB, seen through the VMM's symbols."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.symbols = vmm_symbols(folder)
        self.physical = len(machine.memory) - REGION

    def read(self, name: str, size: int, offset: int = 0) -> bytes:
        """Memory of the VMM at a symbol."""
        at = self.symbols[name] - self.symbols["VMM_BASE"] + self.physical + offset
        return self.machine.memory.read(at, size)

    def word(self, name: str, offset: int = 0) -> int:
        """A doubleword of it."""
        return int.from_bytes(self.read(name, 4, offset), "little")

    def vm(self, number: int, field: str, size: int = 4) -> bytes:
        """A field of a VM's block."""
        return self.read("VMM_VMS", size, number * self.symbols["VM_SLOT"] + self.symbols[f"vm.{field}"])

    def vm_word(self, number: int, field: str) -> int:
        """A doubleword of a VM's block."""
        return int.from_bytes(self.vm(number, field), "little")

    def switches(self) -> list[Switch]:
        """The record of VM switches, oldest first."""
        assert self.read("VMM_SWITCHES", 16) == b"VM SWITCH RECORD"
        count = self.word("VMM_SWITCHES", self.symbols["switches.count"])
        assert count <= self.symbols["SWITCH_RING"]
        ring = self.read("VMM_SWITCHES", 32 * count, self.symbols["switches.ring"])
        return [Switch(*one) for one in struct.iter_unpack("<Q2i4I", ring)]

    def names(self) -> dict[int, str]:
        """The names of the VMs by the addresses of their VMCSs."""
        count = self.word("VMM_SWITCHES", self.symbols["switches.vms"])
        table = self.read("VMM_SWITCHES", 32 * count, self.symbols["switches.names"])
        return {vmcs: text.rstrip(b"\0").decode() for vmcs, _, _, text in struct.iter_unpack("<Q2I16s", table)}

    def guest_memory(self, number: int = GUEST) -> tuple[int, int]:
        """Where a VM's memory begins, and its size."""
        return self.vm_word(number, "memory"), self.vm_word(number, "bytes")

    def guest_hash(self) -> str:
        """Of all that the guest can see: registers, guest area of the VMCS (its is current), virtual devices, memory.

        The FPU is in it once the VMM has saved it.
        """
        base, size = self.guest_memory()
        first, end = self.symbols["vm.pic1"], self.symbols["vm.fx"]
        registers = bytearray(self.vm(GUEST, "gpr", 32))
        registers[12:16] = bytes(4)  # ESP is the VMCS's
        fields = [
            (name, self.machine.cpu.vmcs[name]) for name in self.machine.cpu.vmcs
            if name.startswith("GUEST_") and name not in ("GUEST_LINEAR_ADDRESS", "GUEST_PHYSICAL_ADDRESS")
        ]  # fmt: skip
        seen = hashlib.sha256(bytes(registers))
        seen.update(repr(fields).encode())
        seen.update(self.vm(GUEST, "pic1", end - first))
        seen.update(self.machine.memory.read(base, size))
        return seen.hexdigest()


def files_of(rom: bytes) -> dict[str, bytes]:
    """The files of a flash chip by name."""
    (count,) = struct.unpack_from("<I", rom, 8)
    entries = [struct.unpack_from("<12s3I", rom, 16 + 24 * entry) for entry in range(count)]
    return {name.rstrip(b"\0").decode(): rom[at : at + size] for name, at, size, _ in entries}


def rom_with_guest(rom: bytes, folder: Path, source: Path) -> bytes:
    """The flash chip with another guest: assembled from a source that may include what the built-in images include."""
    guest = asm.assemble_file(source, include=folders("guest", folder)).binary
    return flash(rom[-0x20000:], {**files_of(rom), "guest": guest})
