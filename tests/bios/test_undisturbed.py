"""Undisturbed, as the VM contract has it: whatever stops a guest, and whatever the Service VM does meanwhile, the guest
finds all that it can see as it left it. What may change is asserted: of its disk the dump area alone.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from emu import Disk, Machine, StopReason
from emu.builtin.service_disk import make_disk, read_hpa
from emu.host.disk import SECTOR

from .conftest import Built
from .events import (
    ALLOW,
    DISK_FAILED,
    EXCEPTION,
    HALTED,
    HOTKEY,
    HUNG,
    IDT,
    INTERRUPT,
    MESSAGE,
    PORT,
    POWER_OFF,
    REMOTE,
    RESET,
    TRAP_MEMORY,
    TRAP_OUTSIDE,
    TRIPLE_FAULT,
    events_of,
    running,
)  # fmt: skip
from .vmm import GUEST, Vmm

MIB = 1 << 20
BAD = 700  # a sector that fails
AT_MOST = 2000  # counts between the moment from which the guest's time goes on and the look at it

# A guest with something in all that it has: FPU and XMM registers, debug registers, CR2, a timer that counts, a
# variable, and a drive with the second block of a read half taken.
SETUP = """
        cld
        mov     eax, cr4
        or      eax, CR4_OSFXSR                 ; FXSAVE and FXRSTOR with the XMM registers
        mov     cr4, eax
        fxrstor [fpu_known]
        mov     eax, 12345678h
        mov     dr0, eax
        not     eax
        mov     dr3, eax
        mov     cr2, eax
        lidt    [idt_pointer]
        mov     eax, 2
        mov     dr7, eax
        mov     al, 0FFh
        call    pics
        mov     eax, 11932
        call    rate
        mov     eax, VMCALL_RUNTIME
        mov     ebx, 2
        mov     esi, request
        vmcall
        mov     ebx, drive
        mov     edx, ATA_PRIMARY + ATA_CONTROL
        mov     al, ATA_NIEN
        out     dx, al
        mov     eax, {lba}
        mov     ecx, 3
        mov     edx, ATA_READ_SECTORS
        call    ata_start
        call    ata_data_ready
        mov     edi, 300000h
        call    ata_read_block
        call    ata_data_ready
        mov     edx, ATA_PRIMARY
        mov     ecx, 100
        rep     insw
        mov     ebx, 0B0B0B0B0h
        mov     ebp, 0E0E0E0E0h
        {code}
        jmp     acpi_power_off
        align   4
drive:  dd      ATA_PRIMARY, 0, 0
request: db     "Kept", 0
        times   28 - 1 db 0
        dd      7, 4, 0CAFEF00Dh
        times   508 db 0
text_setup: db  "sixteen bytes..."
        align   16
fpu_known: dw   037Fh, 3 << 11, 0FFh, 0         ; TOP 3, all tags valid
        dd      0, 0, 0, 0, 1F80h, 0FFFFh
        times   480 / 4 dd 40007654h
%include "ata.inc"
""" + IDT  # fmt: skip


# The Service VM: asks all that it can, uses what the processor has only once, and writes to the dump area of the disk.
def calls() -> str:
    wanted = [
        ("READ_STATE", "mov edi, room"),
        ("READ_MEMORY", "mov esi, 10000h\n mov ecx, 4096\n mov edi, room"),
        ("READ_VMCS", "mov ecx, 681Eh"),
        ("READ_DEVICES", "mov ecx, vm_chips_size\n mov edi, room"),
        ("VM_INFO", "mov edi, room"),
        ("POLICY_GET", "mov edi, room"),
        ("DISK_TAKE", ""),
    ]
    return "".join(f"mov ebx, 1\n {setup}\n mov eax, VMCALL_{name}\n vmcall\n call check\n" for name, setup in wanted)


LOOK = calls() + """
        mov     edi, room
        mov     ecx, 128
        mov     eax, 0D0D0D0D0h
        rep     stosd
        mov     ebx, own_drive
        call    ata_native_max
        mov     ecx, 127
        call    ata_set_max
        mov     eax, [dump_lba]
        mov     ecx, 1
        mov     esi, room
        call    ata_write
        call    ata_flush
        mov     eax, {lba}
        mov     ecx, 1
        mov     edi, room
        call    ata_read
        mov     eax, cr4
        or      eax, CR4_OSFXSR
        mov     cr4, eax
        fninit
        fxrstor [fpu_zero]
        xor     eax, eax
        mov     dr0, eax
        mov     dr3, eax
        mov     cr2, eax
        mov     dr7, eax
        jmp     looked
check:  test    eax, eax
        jnz     acpi_power_off
        ret
looked:
"""  # fmt: skip
DATA = """
%include "vm_devices.inc"
%include "ata.inc"
        align   4
own_drive: dd   ATA_PRIMARY, 0, 0
dump_lba: dd    {dump}
        align   16
fpu_zero: times 512 db 0
room:   times 4096 db 0
"""

ON = "nop\n" * 4
EVENTS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "memory": (TRAP_MEMORY, "mov dword [340000h], 1", {"regions": [(1, "w", 0x340000, 0x340FFF)]}),
    "string-io": (TRAP_MEMORY, "mov edi, 340000h\n insw", {"regions": [(1, "w", 0x340000, 0x340FFF)]}),
    "outside": (TRAP_OUTSIDE, "mov eax, [900000h]", {}),
    "exception": (EXCEPTION, "ud2", {"exceptions": [6]}),
    "debug-exception": (EXCEPTION, "mov dword [esp - 4], EFLAGS_TF | 2\n lea esp, [esp - 4]\n popfd\n nop",
                        {"exceptions": [1]}),
    "double-fault": (EXCEPTION, "ud2", {"exceptions": [8]}),
    "interrupt": (INTERRUPT, "mov al, 0FEh\n out PORT_PIC1_DATA, al\n sti\n jmp $", {"vectors": [0x20]}),
    "triple-fault": (TRIPLE_FAULT, "lidt [nothing]\n ud2\nnothing: dw 0\n dd 0", {}),
    "power-off": (POWER_OFF, "", {}),
    "halted": (HALTED, "cli\n hlt", {"flags": ["halted"]}),
    "port": (PORT, "mov al, 5Ah\n out 80h, al", {"ports": [(0x80, 0x80)]}),
    "hang": (HUNG, "cli\n jmp $", {"poll_us": 50_000}),
    "hotkey": (HOTKEY, "jmp $", {}),
    "remote": (REMOTE, "jmp $", {"flags": ["remote"]}),
    "machine-check": (EXCEPTION, "mov eax, cr4\n or eax, CR4_MCE\n mov cr4, eax\n jmp $", {"exceptions": [18]}),
    "disk-failed": (DISK_FAILED, f"mov ebx, drive\n mov ecx, 156\n rep insw\n call ata_data_ready\n"
                    f"call ata_read_block\n mov eax, {BAD}\n mov ecx, 1\n mov edi, 300000h\n call ata_read",
                    {"flags": ["disk_failed"]}),
    "message": (MESSAGE, "mov eax, VMCALL_SEND\n mov ebx, 0\n mov esi, text_setup\n mov ecx, 16\n vmcall\n jmp $", {}),
    "reset": (RESET, "mov edx, 0CF9h\n mov al, 6\n out dx, al\n jmp $", {}),
}  # fmt: skip
OVER = ("outside", "triple-fault", "power-off", "halted")  # behind which the guest does not run again


@contextmanager
def stopped(built: Built, tmp_path: Path, what: str) -> Iterator[tuple[Machine, Vmm, Path]]:
    """A machine at the moment at which the event is handed to the Service VM."""
    kind, code, policy = EVENTS[what]
    path = tmp_path / "disk.img"
    make_disk(path, size=2 * MIB, partition=0, dump=MIB // 2)
    data = bytearray(path.read_bytes())
    data[: MIB // 2] = random.Random(7).randbytes(MIB // 2)
    path.write_bytes(data)
    disk = Disk(path)
    disk.fail(BAD)
    data_of_service = DATA.format(dump=read_hpa(path).dump)
    fields = {"flags": [], "exceptions": [], **policy}
    with running(
        built, SETUP.format(code=code, lba=500), [ALLOW], look=LOOK.format(lba=600), data=data_of_service,
        disks=[disk], **fields,
    ) as (machine, vmm):  # fmt: skip
        if what in ("hotkey", "remote", "machine-check"):
            assert machine.run(seconds=5, until=vmm.symbols["vuart_lines"]).reason is StopReason.BREAKPOINT
            machine.run(seconds=0.2)
            if what == "machine-check":
                machine.cpu.inject_machine_check()
            else:
                (machine.serial if what == "hotkey" else machine.modem).send(
                    b"\x1d" if what == "hotkey" else b"service\r"
                )
        stop = machine.run(seconds=5, until=vmm.symbols["event_give"])
        assert stop.reason is StopReason.BREAKPOINT, machine.serial.output[-500:]
        assert vmm.word("current") == vmm.symbols["VMM_VMS"] + vmm.symbols["VM_SLOT"]
        assert vmm.vm(0, "event", 4) == bytes(4)  # nothing has stopped the Service VM
        yield machine, vmm, path
        assert events_of(machine.serial.output.decode("latin-1"))[0].kind == kind


def guest_time(vmm: Vmm) -> int:
    """A guest's time-stamp counter."""
    frozen, now = vmm.word("frozen"), vmm.machine.cycles
    if frozen:
        now = int.from_bytes(vmm.read("frozen_since", 8), "little")
    return now + int.from_bytes(vmm.vm(GUEST, "offset", 8), "little") & (1 << 64) - 1


def run_on(machine: Machine, vmm: Vmm) -> None:
    """To the first entry of the guest."""
    block = vmm.symbols["VMM_VMS"] + vmm.symbols["VM_SLOT"]
    while vmm.word("current") != block:
        assert machine.run(seconds=5, until=vmm.symbols["interrupt_deliver"]).reason is StopReason.BREAKPOINT
        if vmm.word("current") != block:
            machine.cpu.step()


@pytest.mark.parametrize("what", [what for what in EVENTS if what not in OVER])
def test_a_guest_that_goes_on(built: Built, tmp_path: Path, what: str) -> None:
    with stopped(built, tmp_path, what) as (machine, vmm, path):
        left = vmm.guest_view()
        sectors = path.read_bytes()
        machine.run(seconds=5, until=vmm.symbols["front_set"])  # its time stands still
        still = guest_time(vmm)
        machine.run(seconds=5, until=vmm.symbols["front_guests"])
        assert machine.run(seconds=5, until=vmm.symbols["front_set"]).reason is StopReason.BREAKPOINT
        run_on(machine, vmm)
        back = vmm.guest_view()
        for part in left:
            assert back[part] == left[part], part
        assert 0 <= guest_time(vmm) - still < AT_MOST
        dump = read_hpa(path).dump * SECTOR
        after = path.read_bytes()
        assert after[dump : dump + SECTOR] == b"\xd0" * SECTOR
        assert after[:dump] + after[dump + SECTOR :] == sectors[:dump] + sectors[dump + SECTOR :]


@pytest.mark.parametrize("what", OVER)
def test_a_guest_that_cannot_go_on_is_still_there(built: Built, tmp_path: Path, what: str) -> None:
    """All that the Service VM finds of it is as it left it, whatever was looked at before."""
    with stopped(built, tmp_path, what) as (machine, vmm, _):
        machine.run(seconds=5, until=vmm.symbols["call_read_state"])
        left = vmm.stored_hash(GUEST)
        machine.run(seconds=5, until=vmm.symbols["call_continue"])
        assert vmm.stored_hash(GUEST) == left


def test_a_change_of_any_part_is_seen(built: Built, tmp_path: Path) -> None:
    with stopped(built, tmp_path, "port") as (machine, vmm, _):
        left = vmm.guest_view()
        machine.run(seconds=5, until=vmm.symbols["time_thaw"])
        block = vmm.physical + vmm.symbols["VMM_VMS"] - vmm.symbols["VMM_BASE"] + vmm.symbols["VM_SLOT"]
        memory = machine.memory
        page = memory.read(block + vmm.symbols["VM_SLOT_VMCS"], 4096)
        vmcs = left["VMCS"]
        assert isinstance(vmcs, dict)
        rip = page.index(vmcs["GUEST_RIP"].to_bytes(8, "little"))
        fields = ["gpr", "dr", "fx", "post", "vata", "mail_bytes"]
        places = [block + vmm.symbols[f"vm.{field}"] for field in fields]
        places[2] += 160 + 16 * 3  # XMM3
        places[4] += vmm.symbols["vata.registers"] + 2
        places += [block + vmm.symbols["VM_SLOT_VMCS"] + rip, vmm.guest_memory()[0] + 0x345678]
        places += [vmm.physical + vmm.symbols["VMM_VARIABLES"] - vmm.symbols["VMM_BASE"] + 0x1000 + 100]
        for place in places:
            memory.write(place, bytes([memory.read(place, 1)[0] ^ 1]))
        machine.board.drives[0].load({**machine.board.drives[0].save(), "multiple": 2})
        run_on(machine, vmm)
        back = vmm.guest_view()
        assert [part for part in left if left[part] == back[part]] == []
