"""The polling event: a guest that hangs is found within the bound, one that works or waits is not."""

import re

import pytest

from emu import Machine, StopReason

from .conftest import Built
from .events import (
    ALLOW,
    HUNG,
    IDT,
    INTERRUPT,
    NO_GUEST,
    POWER_OFF,
    RESTART,
    STOP,
    TRAP_MEMORY,
    console_of,
    events_of,
    running,
)  # fmt: skip
from .vmm import GUEST, Vmm

US = 2660  # time-stamp counts a microsecond, westmere
HANG = "cli\n rdtsc\n mov [380000h], eax\n mov [380004h], edx\n jmp $"
SLICE, SWITCH = 10_000 * US, 20 * US  # counts; a slice and what a switch takes at most


def hung_at(machine: Machine, vmm: Vmm) -> int:
    """The guest's time when it hung, as it noted it."""
    base, _ = vmm.guest_memory()
    return int.from_bytes(machine.memory.read(base + 0x380000, 8), "little")


def guest_time_of_event(vmm: Vmm, tsc: int) -> int:
    """What the guest's time-stamp counter was then; its offset has not changed since."""
    return (tsc + int.from_bytes(vmm.vm(GUEST, "offset", 8), "little")) % 2**64


@pytest.mark.parametrize(("period", "polls"), [(1, 1), (1, 3), (1000, 1), (1000, 3), (10_000_000, 1), (60_000_000, 1)])
def test_a_hang_is_found_within_the_bound(built: Built, period: int, polls: int) -> None:
    """At most (N + 1) periods, one slice and one switch, by the guest's time; 1 us is stretched."""
    with running(built, HANG, poll_us=period, polls=polls) as (machine, vmm):
        machine.run(seconds=400, until=vmm.symbols["event_give"])
        event = machine.cpu.esi - vmm.symbols["VMM_BASE"] + vmm.physical
        kind, vm, _, stuck, effective = (
            int.from_bytes(machine.memory.read(event + 4 * n, 4), "little") for n in range(5)
        )
        tsc = int.from_bytes(machine.memory.read(event + 32, 8), "little")
        taken = guest_time_of_event(vmm, tsc) - hung_at(machine, vmm)
        assert (kind, vm, stuck) == (HUNG, 1, polls)
        assert effective == period if period > 1 else 1 <= effective < 20
        assert (polls - 1) * effective * US < taken <= (polls + 1) * effective * US + SLICE + SWITCH
        if period < 10_000:  # with one guest there are no slices
            assert taken <= (polls + 1) * effective * US + SWITCH


@pytest.mark.parametrize(("cpu", "mhz"), [("nehalem", 2660), ("prescott", 3800)])
@pytest.mark.parametrize("period", [1, 1000])
def test_on_other_processors(built: Built, period: int, cpu: str, mhz: int) -> None:
    """prescott has no preemption timer: the 8254 does it."""
    with running(built, HANG, cpu=cpu, poll_us=period) as (machine, vmm):
        machine.run(seconds=400, until=vmm.symbols["event_give"])
        event = machine.cpu.esi - vmm.symbols["VMM_BASE"] + vmm.physical
        kind, _, _, _, effective = (int.from_bytes(machine.memory.read(event + 4 * n, 4), "little") for n in range(5))
        tsc = int.from_bytes(machine.memory.read(event + 32, 8), "little")
        taken = guest_time_of_event(vmm, tsc) - hung_at(machine, vmm)
        assert kind == HUNG and (effective == period or (period == 1 and 1 <= effective < 60))
        assert taken <= 2 * effective * mhz + 50 * mhz  # besides the periods: the round trip is measured first


def test_a_stretched_period_leaves_the_guest_half_of_the_time(built: Built) -> None:
    """What a loop takes by the time-stamp counter, with a period of 1 us and without polling."""
    code = (
        """
        rdtsc
        mov     ebx, eax
        mov     ecx, 20000
work:   loop    work
        rdtsc
        sub     eax, ebx
        mov     esi, name
        call    tell
        jmp     acpi_power_off
name:   db      "it took ", 0
"""
        + IDT
    )
    taken = {}
    for cpu in ("westmere", "prescott"):
        for period in (0, 1):
            with running(built, code, cpu=cpu, poll_us=period, polls=255, idle_bytes=1) as (machine, _):
                console = console_of(machine)
            taken[period] = int(re.findall("it took ([0-9A-F]{8})", console)[0], 16)
        assert 1.3 * taken[0] < taken[1] <= 2 * taken[0] + 20_000, cpu  # and one exit more than the periods


def polls_of(vmm: Vmm) -> int:
    """How often the guest was sampled."""
    at = vmm.symbols["vm_info.polls"]
    return int.from_bytes(vmm.vm(GUEST, "info", at + 4)[at:], "little")


HEALTHY = {
    "idle": "sti\nagain: hlt\n cmp dword [ticks], 60\n jb again\n jmp acpi_power_off",
    "busy with interrupts": "sti\nagain: cmp dword [ticks], 60\n jb again\n jmp acpi_power_off",
    "at work without interrupts": """
        mov     ecx, 40000
again:  call    one
        call    two
        loop    again
        jmp     acpi_power_off
one:    mov     edx, 100
one1:   dec     edx
        jnz     one1
        ret
        times   200h nop
two:    mov     edx, 100
two1:   dec     edx
        jnz     two1
        ret
""",
    "with a heartbeat": """
        mov     ecx, 30000
again:  mov     eax, VMCALL_HEARTBEAT
        vmcall
        loop    again
        jmp     acpi_power_off
""",
}
SETUP = (
    """
        lidt    [idt_pointer]
        mov     eax, 20h
        mov     ebx, timer
        call    gate
        mov     al, 0FEh
        call    pics
        mov     eax, 600
        call    rate
        {code}
timer:  push    eax
        inc     dword [ticks]
        mov     al, OCW2_EOI
        out     PORT_PIC1_COMMAND, al
        pop     eax
        iret
ticks:  dd      0
"""
    + IDT
)


@pytest.mark.parametrize("cpu", ["westmere", "prescott"])
@pytest.mark.parametrize("what", HEALTHY)
def test_a_healthy_guest_is_never_called_hung(built: Built, what: str, cpu: str) -> None:
    """A period of 1 ms, ticks of 0.5 ms. The one that works is in one of two places, so that it is given some polls."""
    polls = 12 if what == "at work without interrupts" else 1
    with running(built, SETUP.format(code=HEALTHY[what]), cpu=cpu, poll_us=1000, polls=polls) as (machine, vmm):
        console = console_of(machine)
        assert polls_of(vmm) >= 5
    assert [event.kind for event in events_of(console)] == [POWER_OFF, NO_GUEST]


def test_an_idle_guest_for_two_minutes(built: Built) -> None:
    """The timer at 18.2 Hz, a poll each 10 s; asleep nearly all of the time."""
    code = SETUP.replace("mov     eax, 600", "mov     eax, 0").format(
        code="sti\nagain: hlt\n cmp dword [ticks], 2185\n jb again\n jmp acpi_power_off"
    )
    with running(built, code, poll_us=10_000_000) as (machine, vmm):
        console = console_of(machine, 200)
        assert polls_of(vmm) >= 11
    assert [event.kind for event in events_of(console)] == [POWER_OFF, NO_GUEST]


def test_a_guest_that_waits_for_its_slice_is_not_hung(built: Built) -> None:
    """Three guests, a period far below a slice: two work, one hangs, and it alone is found."""
    work = HEALTHY["at work without interrupts"].replace("40000", "200000")
    with running(built, [work, HANG, work], poll_us=500, polls=12, memory=64 << 20) as (machine, _):
        console = console_of(machine)
    assert [(event.kind, event.vm) for event in events_of(console) if event.kind == HUNG] == [(HUNG, 2)]
    assert sorted(event.vm for event in events_of(console) if event.kind == POWER_OFF) == [1, 3]


@pytest.mark.parametrize(("flags", "code"), [([], "cli\n hlt"), ([], "sti\n hlt\n jmp $ - 1")])
def test_a_guest_that_sleeps_for_ever_is_hung(built: Built, flags: list[str], code: str) -> None:
    """HLT with interrupts off, where the policy makes no event of that; and on, with nothing that could interrupt."""
    with running(built, code, poll_us=1000, flags=flags) as (machine, _):
        console = console_of(machine)
    assert [event.kind for event in events_of(console)] == [HUNG, NO_GUEST]


def test_after_allow_it_is_found_again(built: Built) -> None:
    with running(built, HANG, [ALLOW, RESTART, STOP], poll_us=1000) as (machine, _):
        console = console_of(machine)
    assert [event.kind for event in events_of(console)] == [HUNG] * 3 + [NO_GUEST]


@pytest.mark.parametrize(("spread", "found"), [(50, 1), (70, 0)])
def test_the_range_that_counts_as_no_progress(built: Built, spread: int, found: int) -> None:
    """A loop within idle_bytes (64) is a hang; one that goes beyond is not, for polls enough to meet both its ends."""
    code = f"""
        cli
        mov     ecx, 20
again:  mov     edx, 300000
first:  dec     edx
        jnz     first
        times   {spread} nop
        mov     edx, 300000
second: dec     edx
        jnz     second
        loop    again
        jmp     acpi_power_off
"""
    with running(built, code, poll_us=100, polls=8) as (machine, _):
        console = console_of(machine)
    assert [event.kind for event in events_of(console)].count(HUNG) == found


def test_no_polling(built: Built) -> None:
    with running(built, HANG, poll_us=0) as (machine, _):
        assert machine.run(seconds=12).reason is StopReason.LIMIT
        assert not events_of(machine.serial.output.decode("latin-1"))


def test_traps_do_not_keep_polls_away(built: Built) -> None:
    """A loop that writes to a protected page for ever: each write is let through, and still it is hung."""
    code = "cli\nagain: mov [300000h], eax\n jmp again"
    with running(built, code, [ALLOW] * 40, poll_us=10, regions=[(1, "w", 0x300000, 0x300FFF)]) as (machine, _):
        console = console_of(machine)
    found = [event.kind for event in events_of(console)]
    assert HUNG in found and TRAP_MEMORY in found and INTERRUPT not in found
