"""Several guests at once: they share the time in equal slices, and neither sees anything of another."""

import itertools

import pytest

from emu import StopReason

from .conftest import Built
from .events import IDT, NO_GUEST, POWER_OFF, TRAP_OUTSIDE, TRIPLE_FAULT, console_of, events_of, running
from .vmm import GUEST, Vmm

SECOND, THIRD = 2, 3  # guests' numbers
SLICE = 0.010  # seconds, schedule.inc
COUNTER = 0x300000
COUNT = f"mov dword [{COUNTER}], 0\nagain: inc dword [{COUNTER}]\n jmp again\n"
HANG = "jmp $"
# Hangs as well, with its timer at 2 kHz.
TICKING = f"""
        mov     eax, 20h
        mov     ebx, tick
        call    gate
        lidt    [idt_pointer]
        mov     al, 0FEh
        call    pics
        mov     eax, 1193182 / 2000
        call    rate
        mov     dword [{COUNTER}], 0
        sti
again:  jmp     again
tick:   push    eax
        inc     dword [{COUNTER}]
        mov     al, OCW2_EOI
        out     PORT_PIC1_COMMAND, al
        pop     eax
        iret
{IDT}
"""


def counters(vmm: Vmm, guests: int) -> list[int]:
    """What each guest has counted."""
    bases = [vmm.guest_memory(GUEST + number)[0] for number in range(guests)]
    return [int.from_bytes(vmm.machine.memory.read(base + COUNTER, 4), "little") for base in bases]


def slices(vmm: Vmm, hz: float) -> dict[int, list[float]]:
    """The seconds of each stay in a guest that another guest ended."""
    stays: dict[int, list[float]] = {}
    for one, after in itertools.pairwise(vmm.switches()):
        if one.target and after.target:
            stays.setdefault(one.target, []).append((after.tsc - one.tsc) / hz)
    return stays


@pytest.mark.parametrize("codes", [[COUNT, COUNT], [HANG, TICKING], [HANG, HANG, TICKING]])
def test_guests_get_equal_slices(built: Built, codes: list[str]) -> None:
    """A guest's own timer, which interrupts it meanwhile, makes its slices neither shorter nor longer."""
    with running(built, codes) as (machine, vmm):
        machine.run(until=vmm.symbols["slice_begin"], seconds=5)
        assert machine.run(seconds=0.35 if HANG in codes else 0.1).reason is StopReason.LIMIT
        stays = slices(vmm, machine.board.clock.hz)
        counts = counters(vmm, len(codes))
    assert sorted(stays) == list(range(1, len(codes) + 1))
    for stay in itertools.chain.from_iterable(stays.values()):
        assert abs(stay - SLICE) < SLICE / 20, stays
    lengths = {len(stay) for stay in stays.values()}
    assert max(lengths) - min(lengths) <= 1 and min(lengths) >= 4
    if HANG not in codes:
        assert max(counts) - min(counts) < max(counts) * 0.1


def test_a_guest_that_sleeps_leaves_the_time_to_the_other(built: Built) -> None:
    sleeping = TICKING.replace("1193182 / 2000", "1193182 / 100").replace("again:", "again:  hlt\n")
    with running(built, [HANG, sleeping]) as (machine, vmm):
        machine.run(until=vmm.symbols["slice_begin"], seconds=5)
        machine.run(seconds=0.5)
        ticks = counters(vmm, 2)[1]
        spent: dict[int, int] = {}
        for one, after in itertools.pairwise(vmm.switches()):
            spent[one.target] = spent.get(one.target, 0) + after.tsc - one.tsc
    assert ticks > 20
    assert spent[GUEST] > 20 * spent[SECOND]


def test_sleepers_wake_in_time(built: Built) -> None:
    """Both sleep, one at 18 Hz and one at 500: nobody waits for the other's timer."""
    sleeping = TICKING.replace("again:", "again:  hlt\n")
    slow, fast = (sleeping.replace("1193182 / 2000", divisor) for divisor in ("65535", "1193182 / 500"))
    with running(built, [slow, fast]) as (machine, vmm):
        machine.run(until=vmm.symbols["slice_begin"], seconds=5)
        machine.run(seconds=1)
        counts = counters(vmm, 2)
    assert 16 <= counts[0] <= 19 and 480 <= counts[1] <= 501


FILL = """
        mov     edi, 100000h
        mov     eax, {pattern}
        mov     ecx, (700000h - 100000h) / 4
        rep stosd
"""
SEARCH = """
        mov     eax, {foreign}
        xor     edi, edi
        mov     ecx, 0A0000h / 4
        call    none
        mov     edi, 100000h
        mov     ecx, 700000h / 4
        call    none
        mov     esi, text
        call    console_text
        jmp     acpi_power_off
none:   repne scasd
        jne     .end
        mov     esi, text_found
        jmp     console_text
.end:   ret
text:   db      "nothing of the other", 13, 10, 0
text_found: db  "FOUND", 13, 10, 0
"""
WAIT = "rdtsc\n mov esi, eax\nspin: rdtsc\n sub eax, esi\n cmp eax, 40000000\n jb spin\n"


def test_neither_sees_the_other_s_memory(built: Built) -> None:
    """Each fills its memory with its own pattern, waits until the other has done so, and looks for the other's."""
    first = FILL.format(pattern="0A5A50001h") + WAIT + SEARCH.format(foreign="5A5B0001h - 1\n inc eax")
    second = FILL.format(pattern="5A5B0001h") + WAIT + SEARCH.format(foreign="0A5A50001h - 1\n inc eax")
    with running(built, [first, second]) as (machine, vmm):
        console = console_of(machine)
        shares = [vmm.guest_memory(number) for number in range(3)]
        patterns = [machine.memory.read(base + 0x600000, 4).hex() for base, _ in shares[1:]]
    assert console.count("nothing of the other") == 2 and "FOUND" not in console
    assert patterns == ["0100a5a5", "01005b5a"]
    ends = sorted((base, base + size) for base, size in shares)
    assert all(end <= base for (_, end), (base, _) in itertools.pairwise(ends))


def test_the_search_finds_what_is_there(built: Built) -> None:
    """The same search for its own pattern: it would see the other's."""
    code = FILL.format(pattern="5A5B0001h") + SEARCH.format(foreign="5A5B0001h - 1\n inc eax")
    with running(built, code) as (machine, _):
        assert "FOUND" in console_of(machine)


def test_a_triple_fault_leaves_the_other_as_it_was(built: Built) -> None:
    """From the fault until the other guest goes on; a byte of it that changes would be seen."""
    faulty = WAIT + "lidt [nothing]\n ud2\nnothing: dw 0\n dd 0\n"
    with running(built, [COUNT, faulty], exceptions=[]) as (machine, vmm):
        assert machine.run(until=vmm.symbols["exit_triple_fault"], seconds=5).reason is StopReason.BREAKPOINT
        before = vmm.stored_hash(GUEST)
        block = vmm.symbols["VMM_VMS"] + GUEST * vmm.symbols["VM_SLOT"]
        while machine.run(until=vmm.symbols["vm_switch"], seconds=5).reason is StopReason.BREAKPOINT:
            if machine.cpu.ebp == block:
                break
            machine.cpu.step()
        assert vmm.stored_hash(GUEST) == before
        base, _ = vmm.guest_memory(GUEST)
        machine.memory.write(base + 0x123456, b"\1")
        assert vmm.stored_hash(GUEST) != before
        count = counters(vmm, 1)[0]
        machine.run(seconds=0.05)
        assert counters(vmm, 1)[0] > count  # and it does go on
        console = machine.serial.output.decode()
    assert [(event.kind, event.vm) for event in events_of(console)] == [(TRIPLE_FAULT, SECOND)]


def test_the_second_guest_s_bounds(built: Built) -> None:
    """Behind its share is the third's: no way there."""
    reach = f"mov eax, [{8 << 20}]\n"
    with running(built, ["", reach, COUNT]) as (machine, _):
        machine.serial.expect(b"\nstatus", seconds=5)
        machine.serial.expect(b"\nstatus", seconds=5)
        found = {event.vm: event.kind for event in events_of(machine.serial.output.decode())}
    assert found == {GUEST: POWER_OFF, SECOND: TRAP_OUTSIDE}


@pytest.mark.parametrize(("mib", "fit"), [(16, 1), (24, 2), (32, 3), (64, 3)])
def test_the_guests_that_fit_run(built: Built, mib: int, fit: int) -> None:
    """8 MiB each, besides the VMM's 4, the Service VM's 2 and the machine's first 2; what does not fit is named."""
    codes = [
        f'mov esi, text\n call console_text\n jmp acpi_power_off\ntext: db "guest {n} ran", 13, 10, 0\n' for n in "123"
    ]
    with running(built, codes, memory=mib << 20) as (machine, _):
        console = console_of(machine)
    assert [number for number in "123" if f"guest {number} ran" in console] == ["1", "2", "3"][:fit]
    missing = [f"Guest VM{'' if n == 1 else f' {n}'}: 8192 KiB are more than is left" for n in range(1, 4)]
    assert [line in console for line in missing] == [n > fit for n in range(1, 4)]
    assert [event.kind for event in events_of(console)] == [POWER_OFF] * fit + [NO_GUEST]
