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
MEMORY_OF_VMM = 32 << 20  # of the machines that run it
BARE_MEMORY = 15 << 20  # less than the VMM asks for: the guest boots on the bare machine
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
def vmm_symbols(folder: Path, source: str = "vmm.asm") -> Mapping[str, int]:
    """The VMM's symbols: linear addresses and offsets."""
    return asm.assemble_file(HERE / "vmm" / source, include=folders("vmm", folder)).symbols


class Vmm:
    """A machine whose RAM ends on a multiple of 4 MiB, seen through the VMM's symbols."""

    source = "vmm.asm"

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.symbols = vmm_symbols(folder, self.source)
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

    def guest_view(self, number: int = GUEST) -> dict[str, object]:
        """All that a guest can see, by the name of the part. It was entered last, so its VMCS is the current one."""
        cpu = self.machine.cpu
        base, size = self.guest_memory(number)
        first, end = self.symbols["vm.pic1"], self.symbols["vm.fx"]
        hidden = ("GUEST_LINEAR_ADDRESS", "GUEST_PHYSICAL_ADDRESS")  # of the last exit
        return {
            "registers": self.registers(number),
            "debug registers, CR2": [cpu.dr0, cpu.dr1, cpu.dr2, cpu.dr3, cpu.dr6, cpu.cr2],
            "FPU": repr(cpu.save()["fpu"]),
            "VMCS": {name: value for name, value in self.guest_fields(number).items() if name not in hidden},
            "virtual devices": self.vm(number, "pic1", end - first),
            "ATA channel": self.task_file(number),
            "memory": hashlib.sha256(self.machine.memory.read(base, size)).hexdigest(),
            "variables": self.read("VMM_VARIABLES", 0x1000, 0x1000 * number),
            "message": self.vm(number, "mail_bytes", 8),
        }

    def registers(self, number: int) -> bytes:
        """A VM's general registers at its last exit, as PUSHAD has them but for ESP, which is in the VMCS."""
        registers = bytearray(self.vm(number, "gpr", 32))
        registers[12:16] = bytes(4)
        return bytes(registers)

    def guest_fields(self, number: int) -> dict[str, int]:
        """The guest's fields of the current VMCS, which is the VM's."""
        vmcs = self.machine.cpu.vmcs
        return {name: vmcs[name] for name in vmcs if name.startswith("GUEST_")}

    def guest_hash(self, number: int = GUEST) -> str:
        """Of the same."""
        return hashlib.sha256(repr(self.guest_view(number)).encode()).hexdigest()

    def stored_hash(self, number: int) -> str:
        """Of all that a guest that does not run can see: registers and devices as the VMM keeps them, VMCS, memory."""
        base, size = self.guest_memory(number)
        seen = hashlib.sha256(self.machine.memory.read(base, size))
        for field, length in ("gpr", 32), ("cr2", 24), ("fx", 512):
            seen.update(self.vm(number, field, length))
        seen.update(self.vm(number, "pic1", self.symbols["vm.fx"] - self.symbols["vm.pic1"]))
        slot = number * self.symbols["VM_SLOT"] + self.symbols["VM_SLOT_VMCS"]
        seen.update(self.read("VMM_VMS", 0x1000, slot))
        return seen.hexdigest()

    def task_file(self, number: int = GUEST) -> list[object]:
        """A guest's ATA channel as it would find it: registers, the block in hand, what commands have set."""
        noted = self.vm(number, "vata", self.symbols["vata_size"])
        at = {name[5:]: place for name, place in self.symbols.items() if name.startswith("vata.")}
        base = int.from_bytes(noted[at["base"] :][:4], "little")
        if not base:
            return []
        drive = self.machine.board.drives[{0x1F0: 0, 0x170: 2}[base]].save()
        if noted[at["told"]]:
            registers = noted[at["registers"] :][1:8]
        else:
            registers = bytes([drive["error"], *drive["written"][2:6], drive["device"], drive["status"]])
        waits = self.read("vata_interrupts", 1, number - 1) != b"\0" or noted[at["pending"]] != 0
        kept = ["selected", "control", "multiple", "limit", "heads", "sectors", "write_cache", "look_ahead"]
        seen: list[object] = [registers, waits or drive["interrupt"], *(drive[name] for name in kept)]
        if registers[6] & 8:  # DRQ
            seen += [drive["position"], drive["length"], drive["lba"], drive["remaining"]]
        return seen


class SoftwareVmm(Vmm):
    """The same without VT-x, where the VMCS is a page of the VMM's. A VM is looked at while it runs."""

    source = "software.asm"

    def registers(self, number: int) -> bytes:
        """The general registers of the VM that runs."""
        cpu = self.machine.cpu
        return struct.pack("<8I", cpu.edi, cpu.esi, cpu.ebp, 0, cpu.ebx, cpu.edx, cpu.ecx, cpu.eax)

    def guest_fields(self, number: int) -> dict[str, int]:
        """The guest's fields of a VM's VMCS; those that are in registers while it runs are taken from there,
        but for RF, and TF, by which the VMM steps the instruction that it lets through."""
        slot = number * self.symbols["VM_SLOT"] + self.symbols["VM_SLOT_VMCS"]
        page = self.read("VMM_VMS", 0x1000, slot)
        fields = {name: value for name, value in self.symbols.items() if name.startswith("GUEST_")}
        found = {}
        for name, code in fields.items():
            at = (code & 0x3F) << 2 | (code & 0xC00) >> 2 | (code & 0x6000) >> 3  # vmcs_at of software/vtx.inc
            found[name] = int.from_bytes(page[at : at + 4], "little")
        cpu = self.machine.cpu
        return found | {"GUEST_RIP": cpu.rip, "GUEST_RSP": cpu.rsp, "GUEST_RFLAGS": cpu.rflags & ~(1 << 16 | 1 << 8)}


def files_of(rom: bytes) -> dict[str, bytes]:
    """The files of a flash chip by name."""
    (count,) = struct.unpack_from("<I", rom, 8)
    entries = [struct.unpack_from("<12s3I", rom, 16 + 24 * entry) for entry in range(count)]
    return {name.rstrip(b"\0").decode(): rom[at : at + size] for name, at, size, _ in entries}


def rom_with_guest(rom: bytes, folder: Path, source: Path) -> bytes:
    """The flash chip with another guest: assembled from a source that may include what the built-in images include."""
    guest = asm.assemble_file(source, include=folders("guest", folder)).binary
    return flash(rom[-0x20000:], {**files_of(rom), "guest": guest})
