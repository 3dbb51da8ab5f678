"""A Service VM for tests: it prints each event, does with the guest what a list says, and a machine that runs it."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import asm
from bios.build import flash, folders
from emu import Disk, Machine
from emu.builtin.policy import policy_nvram

from .conftest import Built
from .vmm import GUEST, Vmm, files_of

MEMORY = 32 << 20
ALLOW, STOP, RESTART = range(3)  # ACTION_..., vm_abi.inc
(
    TRAP_MEMORY, TRAP_OUTSIDE, TRIPLE_FAULT, POWER_OFF, HALTED, UNHANDLED, NO_GUEST, EXCEPTION, INTERRUPT, PORT, HUNG,
    HOTKEY, REMOTE, DISK_FAILED, MESSAGE, RESET,
) = range(1, 17)  # EVENT_..., vm_abi.inc  # fmt: skip

PROLOGUE = """
%include "x86.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "guests.inc"
%include "image.inc"
%include "console.inc"
%include "crc32.inc"
%include "policy.inc"
%include "acpi_off.inc"
"""

# Prints the events as "event " and the doublewords of struc event; then `look`, then the next of the actions; the
# status of CONTINUE follows. Actions that are over are ACTION_STOP.
SERVICE = """
main:
        {start}
next:   mov     eax, VMCALL_NEXT_EVENT
        mov     edi, event_room
        vmcall
        test    eax, eax
        jnz     acpi_power_off
        mov     esi, text_event
        call    console_text
        mov     esi, event_room
        mov     ecx, event_size / 4
field:  push    ecx
        lodsd
        push    esi
        call    console_hex
        mov     al, " "
        call    console_byte
        pop     esi
        pop     ecx
        loop    field
        call    console_newline
        cmp     dword [event_room + event.kind], EVENT_NO_GUEST
        je      acpi_power_off
        {look}
        mov     esi, [actions_next]
        mov     ecx, ACTION_STOP
        cmp     esi, actions_end
        jae     action
        lodsb
        movzx   ecx, al
        mov     [actions_next], esi
action: mov     eax, VMCALL_CONTINUE
        mov     ebx, [event_room + event.vm]
        vmcall
        mov     esi, text_status
        jmp     say
; Says a text and the number in EAX.
say:    push    eax
        call    console_text
        pop     eax
        call    console_hex
        call    console_newline
        jmp     next
        align   4
actions_next: dd actions
event_room: times event_size db 0
actions: db {actions}
actions_end:
text_event: db "event ", 0
text_status: db "status ", 0
{data}
"""


class Event(NamedTuple):
    """struc event."""

    kind: int
    vm: int
    reason: int
    qualification: int
    address: int
    linear: int
    rip: int
    length: int
    tsc: int


@cache
def image(folder: Path, code: str) -> bytes:
    """A VM's image of this code, which begins with `main:`."""
    return asm.assemble(PROLOGUE + code, include=folders("guest", folder)).binary


def guest_image(folder: Path, code: str) -> bytes:
    """A guest's image of this code, which turns itself off at its end."""
    return image(folder, "main:\n" + code + "\n        jmp acpi_power_off\n")


def events_of(console: str) -> list[Event]:
    """The events that the Service VM printed."""
    found = []
    for line in re.findall(r"event ((?:[0-9A-F]{8} ){10})", console):
        words = [int(word, 16) for word in line.split()]
        found.append(Event(*words[:8], words[8] | words[9] << 32))
    return found


def statuses_of(console: str) -> list[int]:
    """What CONTINUE answered."""
    return [int(status, 16) for status in re.findall(r"status ([0-9A-F]{8})", console)]


@contextmanager
def running(
    built: Built, guests: str | Sequence[str], actions: Sequence[int] = (), *, cpu: str = "westmere",
    start: str = "", look: str = "", data: str = "", memory: int = MEMORY, disks: Sequence[Disk] = (), **policy: Any,
) -> Iterator[tuple[Machine, Vmm]]:  # fmt: skip
    """A machine whose Service VM prints events, with guests of these codes."""
    codes = [guests] if isinstance(guests, str) else guests
    kinds = ["writer", "healthy", "aware"][: len(codes)]
    names = ["guest", "healthy", "aware"]
    service = SERVICE.format(
        start=start, look=look, data=data, actions=", ".join(str(int(one)) for one in [*actions]) or "1"
    )
    files = {**files_of(built.rom()), "service": image(built.folder, service)}
    files.update({names[n]: guest_image(built.folder, code) for n, code in enumerate(codes)})
    fields = {"boot": "service", "poll_us": 0, "regions": [], "guests": kinds, **policy}
    rom = flash(built.rom()[-0x20000:], files)
    with Machine(memory, cpu, firmware=rom, nvram=policy_nvram(**fields), disks=list(disks)) as machine:
        yield machine, Vmm(machine, built.folder)


def run_to_guest(machine: Machine, vmm: Vmm) -> None:
    """Runs until the first guest has been entered, and a little on."""
    for _ in range(50):
        machine.run(seconds=0.1)
        if vmm.word("current") >= vmm.symbols["VMM_VMS"] + vmm.symbols["VM_SLOT"] * GUEST:
            return
    raise AssertionError(f"no guest runs: {machine.serial.output[-500:]!r}")


def console_of(machine: Machine, seconds: float = 5) -> str:
    """What the console says in a run up to power off."""
    stop = machine.run(seconds=seconds)
    console = machine.serial.output.decode("latin-1")
    assert stop.reason.name == "POWERED_OFF" and "FAILED" not in console, (stop, console[-800:])
    return console


IDT = """
        align   8
idt:    times 64 dq 0
idt_pointer: dw idt_pointer - idt - 1
        dd      idt
; Points the gate of the vector in EAX to EBX.
gate:   mov     [idt + eax * 8], bx
        mov     word [idt + eax * 8 + 2], SELECTOR_CODE32
        mov     edx, ebx
        mov     dx, INTERRUPT_GATE
        mov     [idt + eax * 8 + 4], edx
        ret
; The interrupt controllers: vectors from 20h on, the lines whose bits in AL are 0.
pics:   push    eax
        mov     al, ICW1
        out     PORT_PIC1_COMMAND, al
        out     PORT_PIC2_COMMAND, al
        mov     al, 20h
        out     PORT_PIC1_DATA, al
        mov     al, 28h
        out     PORT_PIC2_DATA, al
        mov     al, 1 << CASCADE_LINE
        out     PORT_PIC1_DATA, al
        mov     al, CASCADE_LINE
        out     PORT_PIC2_DATA, al
        mov     al, ICW4
        out     PORT_PIC1_DATA, al
        out     PORT_PIC2_DATA, al
        pop     eax
        out     PORT_PIC1_DATA, al
        mov     al, 0FFh
        out     PORT_PIC2_DATA, al
        ret
; Counter 0 at the rate of 1193182 / EAX Hz.
rate:   push    eax
        mov     al, PIT_COUNTER0_RATE
        out     PORT_PIT_CONTROL, al
        pop     eax
        out     PORT_PIT_COUNTER0, al
        mov     al, ah
        out     PORT_PIT_COUNTER0, al
        ret
; Says "name: EAX".
tell:   push    eax
        call    console_text
        pop     eax
        call    console_hex
        jmp     console_newline
"""
"""Data and routines that guests of tests use; to stand behind a jump or at the end."""
