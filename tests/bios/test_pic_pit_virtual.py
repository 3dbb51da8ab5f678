"""A VM's interrupt controllers and interval timer. The oracle is the same guest on the bare machine, with the chips."""

import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from bios.build import flash
from emu import Disk, Machine

from .conftest import Built
from .events import console_of, guest_image, running
from .vmm import files_of

OUT, IN, WAIT = range(3)
Step = tuple[int, int, int]  # what, port, value
PIC1, PIC2, COM1, COM2, PIT = 0x20, 0xA0, 0x3F8, 0x2F8, 0x40

# Does the steps with interrupts off and says all that was read.
PROGRAM = """
        cli
        mov     esi, steps
        mov     edi, 300000h
step:   movzx   edx, word [esi + 2]
        mov     al, [esi + 1]
        cmp     byte [esi], {inp}
        jb      .out
        ja      .wait
        in      al, dx
        stosb
        jmp     .next
.out:   out     dx, al
        jmp     .next
.wait:  movzx   ecx, al                         ; milliseconds, by the PM timer
.ms:    call    timer
        mov     ebx, eax
.turn:  call    timer
        sub     eax, ebx
        and     eax, 0FFFFFFh
        cmp     eax, 3580
        jb      .turn
        loop    .ms
.next:  add     esi, 4
        cmp     esi, steps_end
        jb      step
        mov     edx, PORT_COM1 + UART_IER       ; the console again
        mov     al, 0
        out     dx, al
        mov     ebx, 300000h
.say:   movzx   eax, byte [ebx]
        push    ebx
        push    edi
        call    console_hex8
        mov     al, " "
        call    console_byte
        pop     edi
        pop     ebx
        inc     ebx
        cmp     ebx, edi
        jb      .say
        mov     esi, over
        call    console_text
        jmp     acpi_power_off
timer:  mov     edx, PORT_PM_TMR
        in      eax, dx
        ret
over:   db      "over", 13, 10, 0
        align   4
steps:  {steps}
steps_end:
"""


def done(built: Built, steps: Sequence[Step], disk: Path | None = None) -> tuple[list[int], list[int]]:
    """What a guest reads in these steps on the bare machine, and as a VM."""
    disks = [] if disk is None else [Disk(disk, snapshot=True)]
    rows = "\n".join(f"db {what}, {value}\n dw {port}" for what, port, value in steps)
    code = PROGRAM.format(inp=IN, steps=rows)
    files = {**files_of(built.rom()), "guest": guest_image(built.folder, code)}
    with Machine(16 << 20, "pentium3", firmware=flash(built.rom()[-0x20000:], files), disks=disks) as machine:
        bare = console_of(machine, 20)
    disks = [] if disk is None else [Disk(disk, snapshot=True)]
    with running(built, code, disks=disks) as (machine, _):
        found = console_of(machine, 20)
    reads = [re.search(r"((?:[0-9A-F]{2} )+)over", console) for console in (bare, found)]
    assert reads[0] and reads[1], (bare[-300:], found[-300:])
    count = sum(what == IN for what, *_ in steps)
    first, second = ([int(byte, 16) for byte in said[1].split()][-count:] for said in reads if said)
    return first, second


def initialise(master: int = 1, slave: int = 1) -> list[Step]:
    """ICW1 to ICW4 of both, nothing masked; counter 0, which POST has left running, stands."""
    steps: list[Step] = [(OUT, PIT + 3, 0x30)]
    for port, words in ((PIC1, (0x11, 0x20, 4, master, 0)), (PIC2, (0x11, 0x28, 2, slave, 0))):
        steps += [(OUT, port + (at > 0), word) for at, word in enumerate(words)]
    return steps


def reads() -> list[Step]:
    """IRR, ISR and IMR of both."""
    steps: list[Step] = []
    for port in (PIC1, PIC2):
        steps += [(OUT, port, 0x0A), (IN, port, 0), (OUT, port, 0x0B), (IN, port, 0), (IN, port + 1, 0)]
    return steps


def request(line: int) -> list[Step]:
    """Raises an interrupt line: 3 and 4 by a transmitter that is empty, 0 by a count that ends, 8 by the clock."""
    if line in (3, 4):
        base = COM1 if line == 4 else COM2
        return [(OUT, base + 4, 0x0B), (OUT, base + 1, 0), (OUT, base + 1, 2)]
    if line == 0:
        return [(OUT, PIT + 3, 0x30), (OUT, PIT, 100), (OUT, PIT, 0), (WAIT, 0, 1)]
    return [(OUT, 0x70, 0x0B), (OUT, 0x71, 0x42), (OUT, 0x70, 0x0C), (IN, 0x71, 0), (WAIT, 0, 2)]


def withdraw(line: int) -> list[Step]:
    """Lets it fall again."""
    if line == 8:
        return [(OUT, 0x70, 0x0B), (OUT, 0x71, 2), (OUT, 0x70, 0x0C), (IN, 0x71, 0)]
    return [(OUT, (COM1 if line == 4 else COM2) + 1, 0)]


def random_steps(choose: random.Random) -> list[Step]:
    """Requests, end-of-interrupt commands, priorities, masks, modes and polls, as they come."""
    steps = initialise(choose.choice([1, 1, 3, 0x11, 0x13]), choose.choice([1, 1, 3]))
    for _ in range(60):
        port = choose.choice([PIC1, PIC1, PIC2])
        kind = choose.randrange(12)
        if kind < 3:
            steps += request(choose.choice([0, 3, 3, 4, 4, 8]))
        elif kind == 3:
            steps += withdraw(choose.choice([3, 4, 8]))
        elif kind < 6:  # OCW2
            steps.append((OUT, port, choose.randrange(8) << 5 | choose.randrange(8)))
        elif kind == 6:  # special mask mode
            steps.append((OUT, port, choose.choice([0x68, 0x48, 0x28])))
        elif kind < 10:
            steps += [(OUT, port, 0x0C), (IN, port + choose.randrange(2), 0)]  # poll
        else:
            steps.append((OUT, port + 1, choose.choice([0, 0, 0x10, 0x08, 0x01, 0x18, 0x04])))
        steps += reads()
    return steps


@pytest.mark.parametrize("seed", range(4))
def test_interrupt_controllers_in_all_their_modes(built: Built, seed: int) -> None:
    bare, found = done(built, random_steps(random.Random(seed)))
    assert any(value & 0x80 for value in bare)
    assert found == bare


def test_reading_the_disk_s_status_withdraws_its_request(built: Built, tmp_path: Path) -> None:
    """As a driver does that looks instead of being interrupted: no interrupt is left over."""
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(4 << 20))
    steps = [*initialise(), (IN, 0x1F7, 0), *reads(), (OUT, 0x1F6, 0xE0), (OUT, 0x1F7, 0xEC), (WAIT, 0, 2), *reads()]
    bare, found = done(built, [*steps, (IN, 0x1F7, 0), *reads()], image)
    assert bare[10] == 0x40 and bare[17] == 0 and found == bare


STATUS, COUNT, BOTH = 0xE0, 0xD0, 0xC0  # read-back commands
COUNTER_0, COUNTER_2 = 0x02, 0x08


def status(counter: int = COUNTER_2) -> list[Step]:
    """Output, null count and control word of a counter, by the read-back command."""
    port = PIT if counter == COUNTER_0 else PIT + 2
    return [(OUT, PIT + 3, STATUS | counter), (IN, port, 0)]


def gate(is_open: bool) -> list[Step]:
    """Counter 2's gate."""
    return [(OUT, 0x61, int(is_open))]


def count_2(number: int) -> list[Step]:
    """A count for counter 2, low byte then high byte."""
    return [(OUT, PIT + 2, number & 0xFF), (OUT, PIT + 2, number >> 8)]


def course(mode: int) -> list[Step]:
    """A counter from its control word on: gate shut and open, its end, a new count meanwhile, the gate shut again."""
    steps = [*gate(False), (OUT, PIT + 3, 176 | mode << 1), *status()]
    steps += [(OUT, PIT + 2, 0x60), *status(), (OUT, PIT + 2, 0xEA), *status()]  # 60000: 50 ms
    if mode not in (1, 5):
        steps += [(OUT, PIT + 3, 0x80), (IN, PIT + 2, 0), (IN, PIT + 2, 0)]  # the count stands while the gate is shut
    steps += [*gate(True), (WAIT, 0, 2), *status()]
    steps += [*count_2(40000), (WAIT, 0, 1), *status(), (WAIT, 0, 30), *status(), (WAIT, 0, 25), *status()]
    steps += gate(False) + status() + [(WAIT, 0, 40)] + status()
    if mode in (2, 3):
        steps += [*gate(True), (WAIT, 0, 1), *status()]
    return [*steps, *gate(True), (WAIT, 0, 1), *status(), (WAIT, 0, 38), *status(), *gate(False)]


@pytest.mark.parametrize("mode", range(6))
def test_a_counter_s_course_by_mode(built: Built, mode: int) -> None:
    bare, found = done(built, course(mode))
    assert len(set(bare)) > 1 and found == bare


def test_counts_are_read_as_they_were_written(built: Built) -> None:
    """Low byte, high byte or both, binary and decimal; latched counts and statuses, status first, each only once."""
    steps = gate(False)
    for access in (1, 2, 3):
        for bcd in (0, 1):
            for count in (0x00, 0x07, 0x99, 0x9A, 0xFF):
                steps += [(OUT, PIT + 3, 0x80 | access << 4 | bcd), (OUT, PIT + 2, count)]
                steps += [(OUT, PIT + 2, 0x12)] if access == 3 else []
                steps += [(WAIT, 0, 1), (OUT, PIT + 3, BOTH | COUNTER_2), (OUT, PIT + 3, BOTH | COUNTER_2)]
                steps += [(IN, PIT + 2, 0)] * 5
    steps += [(OUT, PIT + 3, 0xB0), (OUT, PIT + 2, 5), (OUT, PIT + 2, 0), (WAIT, 0, 1), (OUT, PIT + 3, 0x80),
              (IN, PIT + 2, 0), (OUT, PIT + 3, STATUS | COUNTER_2), *[(IN, PIT + 2, 0)] * 4]  # fmt: skip
    bare, found = done(built, steps)
    assert len(set(bare)) > 10 and found == bare


def test_counter_0_raises_its_interrupt_as_its_output_rises(built: Built) -> None:
    steps = initialise()
    for mode in range(6):
        steps += [(OUT, PIT + 3, 0x30 | mode << 1), *reads(), *status(COUNTER_0)]
        steps += [(OUT, PIT, 0xA0), (OUT, PIT, 0x0F), *reads()]  # 4000: 3.35 ms
        steps += [(WAIT, 0, 1), *reads(), (WAIT, 0, 3), *reads()]
        steps += [(OUT, PIC1, 0x0C), (IN, PIC1, 0), (OUT, PIC1, 0x20), *reads()]
    # Masked, it is requested all the same.
    steps += [(OUT, PIC1 + 1, 1), *request(0), *reads(), (OUT, PIC1 + 1, 0), *reads()]
    # A count that has ended and was not answered, then another one: its request is withdrawn.
    steps += [(OUT, PIT + 3, 0x30), (OUT, PIT, 0x40), (OUT, PIT, 0), (WAIT, 0, 1), *reads(), (OUT, PIT, 0xFF), *reads()]
    bare, found = done(built, steps)
    assert len(set(bare)) > 4 and found == bare
