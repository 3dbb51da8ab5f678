"""A VM's real-time clock. The oracle is the same guest on the bare machine, where the clock is the chip."""

import re

import pytest

from bios.build import flash
from emu import Machine

from .conftest import Built
from .events import IDT, console_of, guest_image, running
from .vmm import BARE_MEMORY, files_of

MICROSECOND = 2660  # counts, of the processor model

ROUTINES = (
    """
; AL = register. Out: AL
get:    out     PORT_CMOS_INDEX, al
        in      al, PORT_CMOS_DATA
        ret
; AL = value, AH = register
put:    xchg    al, ah
        out     PORT_CMOS_INDEX, al
        mov     al, ah
        out     PORT_CMOS_DATA, al
        ret
%macro set 2
        mov     ax, (%1) << 8 | (%2)
        call    put
%endmacro
; Says "= " and the registers of the time, of one second.
show:   mov     al, 0Ah
        call    get
        test    al, 80h
        jnz     show
        mov     esi, sign
        call    console_text
        xor     ebx, ebx
one:    mov     al, [order + ebx]
        call    get
        movzx   eax, al
        call    console_hex8
        inc     ebx
        cmp     ebx, 8
        jb      one
        jmp     console_newline
; Sleeps until the next second's beginning. [status] = register B
next:   mov     al, 0Ch
        call    get
        mov     byte [seconds], 0
        mov     al, [status]
        or      al, 10h                         ; update ended
        mov     ah, 0Bh
        call    put
.sleep: sti
        hlt
        cli
        cmp     byte [seconds], 0
        je      .sleep
        mov     al, [status]
        mov     ah, 0Bh
        jmp     put
second: pushad
        mov     al, 0Ch
        call    get
        test    al, 10h
        setnz   [seconds]
        jmp     acknowledge
; IRQ 8 goes to the handler EBX.
clock_on:
        lidt    [idt_pointer]
        mov     eax, 28h
        call    gate
        mov     al, ~(1 << CASCADE_LINE) & 0FFh
        call    pics
        mov     al, ~(1 << 0) & 0FFh
        out     PORT_PIC2_DATA, al
        ret
acknowledge:
        mov     al, OCW2_EOI
        out     PORT_PIC2_COMMAND, al
        out     PORT_PIC1_COMMAND, al
        popad
        iret
seconds: db     0
status: db      2
order:  db      32h, 9, 8, 7, 6, 4, 2, 0
sign:   db      "= ", 0
"""
    + IDT
    + "begin:\n"
)
STATUS_B = {"BCD, 24 hours": 0x02, "BCD, 12 hours": 0x00, "binary, 24 hours": 0x06, "binary, 12 hours": 0x04}
# The last second of a year, of a leap day's eve, and of a day's first half in a year without one.
MOMENTS = [(19, 98, 12, 31, 23, 59, 59), (20, 28, 2, 28, 23, 59, 59), (21, 0, 2, 28, 11, 59, 58)]


def moment(numbers: tuple[int, ...], status_b: int) -> str:
    """Sets the clock to a moment, stopped meanwhile, and looks at it then and two seconds later."""
    hour, pm = numbers[4], 0
    if not status_b & 2:
        hour, pm = hour % 12 or 12, 0x80 if hour >= 12 else 0
    values = [*numbers[:4], hour, *numbers[5:]]
    if not status_b & 4:
        values = [value // 10 << 4 | value % 10 for value in values]
    values[4] |= pm
    registers = [0x32, 9, 8, 7, 4, 2, 0]
    sets = "".join(f"        set {register}, {value}\n" for register, value in zip(registers, values, strict=True))
    # The chip counts weekdays for itself: that of the date, so that both say the same.
    century, year, month, day = numbers[:4]
    january = month < 3
    years = century * 100 + year - january
    weekday = (years + years // 4 - years // 100 + years // 400 + (13 * (month + 12 * january) + 8) // 5 + day) % 7
    sets += f"        set 6, {weekday + 1}\n"
    return (
        f"        mov byte [status], {status_b}\n        set 0Bh, {status_b | 0x80}\n"
        f"{sets}        call show\n        set 0Bh, {status_b}\n"
        "        call next\n        call next\n        call show\n"
    )  # fmt: skip


@pytest.mark.parametrize("name", STATUS_B)
def test_a_guest_sets_its_clock(built: Built, name: str) -> None:
    code = "        jmp begin\n" + ROUTINES + "        mov ebx, second\n        call clock_on\n"
    code += "".join(moment(one, STATUS_B[name]) for one in MOMENTS)
    files = {**files_of(built.rom()), "guest": guest_image(built.folder, code)}
    with Machine(BARE_MEMORY, "pentium3", firmware=flash(built.rom()[-0x20000:], files)) as machine:
        bare = re.findall("= ([0-9A-F]+)", console_of(machine, 20))
    with running(built, code) as (machine, _):
        before = machine.board.rtc.save()["ram"]
        found = re.findall("= ([0-9A-F]+)", console_of(machine, 20))
        after = machine.board.rtc.save()["ram"]
    assert len(bare) == 2 * len(MOMENTS) and found == bare
    assert before[9] == after[9] and before[7:9] == after[7:9], "the machine's own clock stays"


INTERRUPTS = """
        mov     ebx, second
        call    clock_on
        call    next
        mov     ebx, clock
        call    clock_on
        set     0Ah, 26h                        ; 1024 Hz
        mov     edi, 40h                        ; periodic
        mov     ecx, 256
        call    measure
        mov     edi, 10h                        ; update ended
        mov     ecx, 1
        call    measure
        mov     al, 0
        call    get
        mov     bl, al
        inc     al
        daa
        cmp     al, 60h
        jb      .minute
        sub     al, 60h
.minute:
        mov     ah, 1
        call    put
        set     3, 0FFh
        set     5, 0C0h
        mov     edi, 20h                        ; alarm
        mov     ecx, 1
        call    measure
        jmp     acpi_power_off
; Takes ECX + 1 interrupts of the kind EDI, and says the microseconds from the first to the last; of the alarm, from the
; start.
measure:
        mov     [left], ecx
        mov     [kind], edi
        mov     dword [first], 0
        rdtsc
        mov     [begun], eax
        mov     al, 0Ch
        call    get
        mov     eax, edi
        mov     ah, 0Bh
        or      al, 2
        call    put
.sleep: sti
        hlt
        cli
        cmp     dword [left], -1
        jne     .sleep
        set     0Bh, 2
        mov     eax, [last]
        sub     eax, [first]
        xor     edx, edx
        mov     ecx, {microsecond}
        div     ecx
        mov     esi, took
        jmp     tell
clock:  pushad
        mov     al, 0Ch
        call    get
        test    al, 80h
        jz      .end
        test    al, [kind]
        jz      .end
        rdtsc
        cmp     dword [first], 0
        jne     .more
        mov     [first], eax
        cmp     dword [kind], 20h
        jne     .more
        mov     ecx, [begun]
        mov     [first], ecx
        mov     dword [left], 0
.more:  mov     [last], eax
        dec     dword [left]
.end:   jmp     acknowledge
        align   4
left:   dd      0
kind:   dd      0
first:  dd      0
last:   dd      0
begun:  dd      0
took:   db      "took ", 0
"""


def test_interrupts_of_the_clock(built: Built) -> None:
    """Periodic, update ended and alarm, while the guest sleeps: IRQ 8 comes in time; one each time C is read."""
    code = "        jmp begin\n" + ROUTINES + INTERRUPTS.format(microsecond=MICROSECOND)
    with running(built, code) as (machine, _):
        console = console_of(machine, 20)
    periodic, update, alarm = (int(took, 16) for took in re.findall("took ([0-9A-F]{8})", console))
    assert abs(periodic - 250_000) < 1000
    assert abs(update - 1_000_000) < 1000
    assert 990_000 < alarm < 1_001_000


def test_garbage_in_the_clock_is_the_guest_s_alone(built: Built) -> None:
    """Every register of every value, and all at once: the VMM computes with it, and lives."""
    code = (
        "        jmp begin\n"
        + ROUTINES
        + """
        set     0Bh, 2
        xor     ebx, ebx
each:   mov     ecx, 10
write:  mov     ah, [order + ecx - 1]
        cmp     ecx, 9
        jb      known
        lea     eax, [ecx + 1]                  ; status A and B
        mov     ah, al
known:  mov     al, bl
        imul    edx, ecx, 29
        add     al, dl
        call    put
        loop    write
        call    quick
        add     ebx, 3
        cmp     ebx, 300h
        jb      each
        mov     ebx, 0FFh
all:    set     0Bh, 82h
        mov     ecx, 8
same:   mov     ah, [order + ecx - 1]
        mov     al, bl
        call    put
        loop    same
        set     0Bh, 72h
        call    quick
        dec     bl
        jnz     all
        mov     esi, sign
        call    console_text
        jmp     acpi_power_off
quick:  mov     ecx, 8
.one:   mov     al, [order + ecx - 1]
        call    get
        loop    .one
        mov     al, 0Ch
        jmp     get
"""
    )
    with running(built, code) as (machine, _):
        assert "= " in console_of(machine, 20)
