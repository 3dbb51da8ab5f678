"""policy.time: a guest's clocks stand still while the Service VM runs, or run on; and events that are due together."""

import re
import struct

import pytest

from emu import Machine

from .conftest import Built
from .events import (
    ALLOW,
    HOTKEY,
    HUNG,
    IDT,
    NO_GUEST,
    POWER_OFF,
    REMOTE,
    STOP,
    TRAP_MEMORY,
    TRIPLE_FAULT,
    console_of,
    events_of,
    run_to_guest,
    running,
)  # fmt: skip
from .vmm import Vmm

REGION = [(1, "w", 0x300000, 0x300FFF)]

# Reads a clock before and after a write that the Service VM prints a line about (more than 5 ms at 115200 baud).
CLOCKS = {
    "time-stamp counter": ("rdtsc", 2_660_000),
    "PM timer": ("mov dx, PORT_PM_TMR\n in eax, dx", 3_579),
    "8254": (
        "mov al, 0\n out PORT_PIT_CONTROL, al\n in al, PORT_PIT_COUNTER0\n mov ah, al\n in al, PORT_PIT_COUNTER0\n"
        "xchg al, ah\n movzx eax, ax\n neg eax", 1_193,
    ),
}  # fmt: skip


@pytest.mark.parametrize("time", ["still", "runs"])
@pytest.mark.parametrize("clock", CLOCKS)
def test_a_guest_s_clocks(built: Built, clock: str, time: str) -> None:
    """Less than a millisecond passes for the guest, or all that the Service VM took."""
    read, millisecond = CLOCKS[clock]
    code = (
        f"""
        mov     al, 34h
        out     PORT_PIT_CONTROL, al
        mov     al, 0FFh
        out     PORT_PIT_COUNTER0, al
        out     PORT_PIT_COUNTER0, al
        {read}
        mov     ebx, eax
        mov     dword [300000h], 1
        {read}
        sub     eax, ebx
        mov     esi, name
        call    tell
        jmp     acpi_power_off
name:   db      "passed ", 0
"""
        + IDT
    )
    with running(built, code, [ALLOW], time=time, regions=REGION) as (machine, _):
        console = console_of(machine)
    passed = int(re.findall("passed ([0-9A-F]{8})", console)[0], 16)
    if clock == "8254":
        passed &= 0xFFFF  # it comes round each 55 ms, the lines take less
    assert passed < millisecond / 10 if time == "still" else 5 * millisecond < passed < 50 * millisecond


@pytest.mark.parametrize(("time", "most"), [("still", 1), ("runs", 2)])
def test_the_timer_s_interrupts_that_were_missed(built: Built, time: str, most: int) -> None:
    """A timer of 1 ms, and 5 ms and more in the Service VM: what was missed is one request and not five."""
    code = (
        """
        lidt    [idt_pointer]
        mov     eax, 20h
        mov     ebx, timer
        call    gate
        mov     al, 0FEh
        call    pics
        mov     eax, 1193
        call    rate
        sti
first:  cmp     dword [ticks], 0
        je      first
        mov     dword [ticks], 0
        mov     dword [300000h], 1
        mov     ecx, 1000
pause1: loop    pause1
        mov     eax, [ticks]
        cli
        mov     esi, name
        call    tell
        jmp     acpi_power_off
timer:  push    eax
        inc     dword [ticks]
        mov     al, OCW2_EOI
        out     PORT_PIC1_COMMAND, al
        pop     eax
        iret
ticks:  dd      0
name:   db      "ticks ", 0
"""
        + IDT
    )
    with running(built, code, [ALLOW], time=time, regions=REGION) as (machine, _):
        console = console_of(machine)
    ticks = int(re.findall("ticks ([0-9A-F]{8})", console)[0], 16)
    assert ticks <= most and (time == "still" or ticks >= 1)


@pytest.mark.parametrize("time", ["still", "runs"])
def test_time_in_the_service_vm_is_no_hang(built: Built, time: str) -> None:
    """Polls of 1 ms, events that take the Service VM 5 ms: a guest that works between them makes progress."""
    code = """
        mov     ecx, 10
again:  push    ecx
        mov     [300000h], ecx
        call    one
        call    two
        pop     ecx
        loop    again
        jmp     acpi_power_off
one:    mov     edx, 700000
one1:   dec     edx
        jnz     one1
        ret
        times   200h nop
two:    mov     edx, 700000
two1:   dec     edx
        jnz     two1
        ret
"""
    with running(built, code, [ALLOW] * 10, time=time, poll_us=1000, polls=2, regions=REGION) as (machine, _):
        console = console_of(machine)
    assert [event.kind for event in events_of(console)] == [TRAP_MEMORY] * 10 + [POWER_OFF, NO_GUEST]


def pend(machine: Machine, vmm: Vmm, number: int, kind: int, event_class: str, waits: int = 0) -> None:
    """Writes into the VMM's memory what it notes when it raises an event."""
    symbols = vmm.symbols

    def write(linear: int, *words: int) -> None:
        machine.memory.write(linear - symbols["VMM_BASE"] + vmm.physical, struct.pack(f"<{len(words)}I", *words))

    block = symbols["VMM_VMS"] + number * symbols["VM_SLOT"]
    write(block + symbols["vm.event"], kind, number)
    write(block + symbols["vm.event_class"], symbols[f"EVENT_CLASS_{event_class}"])
    write(block + symbols["vm.state"], symbols["VM_WAITING"])
    write(block + symbols["vm.waits"], waits)
    write(symbols["events_wait"], 1)


def test_the_order_of_events_that_are_due_together(built: Built) -> None:
    """Trap before poll before user, then the lower VM number; each is handed out once, and none is lost."""
    hang = "cli\njmp $"
    actions = [STOP, ALLOW, ALLOW, ALLOW, STOP, STOP]
    with running(built, [hang, hang, hang], actions, memory=64 << 20) as (machine, vmm):
        run_to_guest(machine, vmm)
        machine.run(seconds=5, until=vmm.symbols["schedule"])
        pend(machine, vmm, 1, HUNG, "POLL", waits=1 << REMOTE | 1 << HOTKEY)
        pend(machine, vmm, 2, HUNG, "POLL", waits=1 << HOTKEY)
        pend(machine, vmm, 3, TRIPLE_FAULT, "TRAP")
        console = console_of(machine)
    assert [(event.kind, event.vm) for event in events_of(console)] == [
        (TRIPLE_FAULT, 3), (HUNG, 1), (HUNG, 2), (HOTKEY, 1), (REMOTE, 1), (HOTKEY, 2), (NO_GUEST, 0),
    ]  # fmt: skip


def test_a_hang_and_a_trap_of_two_guests(built: Built) -> None:
    """The poll of VM 1 and the trap of VM 2 fall into the same look of the VMM: the trap is handed out first."""
    with running(
        built, ["cli\njmp $", "mov dword [300000h], 1"], [ALLOW, STOP],
        regions=[(2, "w", 0x300000, 0x300FFF)], memory=64 << 20,
    ) as (machine, vmm):  # fmt: skip
        machine.run(seconds=5, until=vmm.symbols["memory_violation"])
        pend(machine, vmm, 1, HUNG, "POLL")
        console = console_of(machine)
    assert [(event.kind, event.vm) for event in events_of(console)][:2] == [(TRAP_MEMORY, 2), (HUNG, 1)]
