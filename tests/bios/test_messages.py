"""Messages: between a guest and the Service VM and between guests, both ways, and what a hostile sender gets."""

import hashlib
import re

import pytest

from .conftest import Built
from .events import MESSAGE, POWER_OFF, console_of, events_of, running

OK, BAD_VM, BAD_ADDRESS, BUSY, NONE, BAD_LENGTH = 0, 3, 4, 8, 9, 10  # STATUS_..., vm_abi.inc
SHARE = 8 << 20  # bytes of a guest
MOST = 4096
ROOM = 0x300000

# In: EBX = VM, ESI = message, ECX = bytes; EDI = room, ECX = bytes. They wait until it works.
WAITING = """
send:   push    ebx
        push    ecx
        mov     eax, VMCALL_SEND
        vmcall
        pop     ecx
        pop     ebx
        cmp     eax, STATUS_BUSY
        je      send
        ret
receive:
        push    ecx
        mov     eax, VMCALL_RECEIVE
        vmcall
        cmp     eax, STATUS_NONE
        jne     .end
        pop     ecx
        jmp     receive
.end:   add     esp, 4
        ret
"""

# What the Service VM does at each event: takes a message, says it, its length and who sent it, and answers.
TAKE = """
        mov     eax, VMCALL_RECEIVE
        mov     edi, 20000h
        mov     ecx, MESSAGE_MOST
        vmcall
        test    eax, eax
        jnz     taken
        mov     byte [20000h + ecx], 0
        push    ebx
        push    ecx
        mov     esi, text_took
        call    console_text
        mov     esi, 20000h
        call    console_text
        mov     al, " "
        call    console_byte
        pop     eax
        call    console_hex
        mov     al, " "
        call    console_byte
        mov     eax, [esp]
        call    console_hex
        call    console_newline
        pop     ebx
        mov     eax, VMCALL_SEND
        mov     esi, text_answer
        mov     ecx, text_answer_end - text_answer
        vmcall
taken:
"""
TAKE_DATA = """
text_took: db "service took ", 0
text_answer: db "seen", 13, 10, 0
text_answer_end:
"""


def test_a_guest_and_the_service_os_both_ways(built: Built) -> None:
    """The event says who sent; the guest runs on, and takes the answer."""
    guest = f"""
        mov     ebx, VM_ZERO
        mov     esi, text
        mov     ecx, text_end - text
        call    send
        mov     edi, 8000h
        mov     ecx, 100
        call    receive
        cmp     eax, STATUS_OK
        jne     acpi_power_off
        mov     eax, ebx
        call    console_hex
        mov     al, " "
        call    console_byte
        mov     esi, 8000h
        call    console_text
        jmp     acpi_power_off
VM_ZERO equ 0
text:   db      "from the guest"
text_end:
{WAITING}
"""
    with running(built, guest, look=TAKE, data=TAKE_DATA) as (machine, _):
        console = console_of(machine)
    assert [event.kind for event in events_of(console)][:2] == [MESSAGE, POWER_OFF]
    assert events_of(console)[0].vm == 1
    assert f"service took from the guest {14:08X} {1:08X}" in console
    assert "00000000 seen" in console


@pytest.mark.parametrize("cpu", ["westmere", "prescott"])
def test_two_guests_both_ways(built: Built, cpu: str) -> None:
    """4096 bytes that cross a page there, every byte inverted back; a single byte as well."""
    first = f"""
        mov     edi, {ROOM + 0x7F1}
        xor     eax, eax
        mov     ecx, MESSAGE_MOST
fill:   imul    eax, eax, 69069
        inc     eax
        mov     edx, eax
        shr     edx, 16
        mov     [edi], dl
        inc     edi
        loop    fill
        mov     ebx, 2
        mov     esi, {ROOM + 0x7F1}
        mov     ecx, MESSAGE_MOST
        call    send
        mov     edi, {ROOM + 0x3F03}
        mov     ecx, MESSAGE_MOST
        call    receive
        cmp     ecx, MESSAGE_MOST
        jne     acpi_power_off
        cmp     ebx, 2
        jne     acpi_power_off
        mov     esi, {ROOM + 0x7F1}
        mov     edi, {ROOM + 0x3F03}
check:  lodsb
        not     al
        scasb
        jne     acpi_power_off
        loop    check
        mov     esi, good
        call    console_text
        mov     ebx, 2
        mov     esi, good
        mov     ecx, 1
        call    send
        jmp     acpi_power_off
good:   db      "all bytes came back", 13, 10, 0
{WAITING}
"""
    second = f"""
        mov     edi, {ROOM + 0x123}
        mov     ecx, MESSAGE_MOST
        call    receive
        mov     esi, {ROOM + 0x123}
turn:   not     byte [esi]
        inc     esi
        loop    turn
        mov     ebx, 1
        mov     esi, {ROOM + 0x123}
        mov     ecx, MESSAGE_MOST
        call    send
        mov     edi, 8000h
        mov     ecx, 1
        call    receive
        cmp     ecx, 1
        jne     acpi_power_off
        cmp     word [8000h], "a"
        jne     acpi_power_off
        mov     esi, end
        call    console_text
        jmp     acpi_power_off
end:    db      "and the last one", 13, 10, 0
{WAITING}
"""
    with running(built, [first, second], cpu=cpu) as (machine, _):
        console = console_of(machine)
    assert "all bytes came back" in console and "and the last one" in console
    assert MESSAGE not in [event.kind for event in events_of(console)]


def table(call: int, rows: list[tuple[int, int, int]]) -> str:
    """A guest that makes a call with (EBX, address, bytes) each, and says the statuses and what ECX is then."""
    return f"""
        mov     ebp, rows
row:    mov     ebx, [ebp]
        mov     esi, [ebp + 4]
        mov     edi, [ebp + 4]
        mov     ecx, [ebp + 8]
        mov     eax, {call}
        vmcall
        push    ecx
        call    console_hex
        mov     al, " "
        call    console_byte
        pop     eax
        call    console_hex
        call    console_newline
        add     ebp, 12
        cmp     ebp, rows_end
        jb      row
        jmp     acpi_power_off
        align   4
rows:   dd      {", ".join(str(number) for row in rows for number in row)}
rows_end:
"""


def statuses(console: str) -> list[tuple[int, int]]:
    """The statuses and values of ECX that it said."""
    return [(int(a, 16), int(b, 16)) for a, b in re.findall(r"^([0-9A-F]{8}) ([0-9A-F]{8})\r$", console, re.MULTILINE)]


SENDS = [
    (0xFFFFFFFF, ROOM, 1, BAD_VM),
    (2, ROOM, 1, BAD_VM),  # there is no VM 2
    (1, ROOM, 1, BAD_VM),  # to itself
    (0x40000, ROOM, 1, BAD_VM),  # its slot would be slot 0
    (0, ROOM, 0, BAD_LENGTH),
    (0, ROOM, MOST + 1, BAD_LENGTH),
    (0, ROOM, 0xFFFFFFFF, BAD_LENGTH),
    (0, ROOM, 0x80000000, BAD_LENGTH),
    (0, SHARE, 1, BAD_ADDRESS),
    (0, SHARE - 1, 2, BAD_ADDRESS),
    (0, SHARE - MOST + 1, MOST, BAD_ADDRESS),
    (0, 0xFFFFFFFF, 1, BAD_ADDRESS),
    (0, 0xFFFFFFFF, 2, BAD_ADDRESS),  # wraps to address 0
    (0, 0xFFFFF800, MOST, BAD_ADDRESS),
    (0, 0xA0000, 16, BAD_ADDRESS),  # no RAM
    (0, 0x9FFFF, 2, BAD_ADDRESS),
    (0, 0xC0000, 16, BAD_ADDRESS),  # the VMM's page of FFh
    (0, 0xF0000, 16, BAD_ADDRESS),  # its services, which are no RAM of its own
    (0, 0xFFFFF, 2, BAD_ADDRESS),
    (0, SHARE - MOST, MOST, OK),
    (0, ROOM, 1, BUSY),
]  # fmt: skip


def test_what_a_hostile_sender_gets(built: Built) -> None:
    """The Service VM never looks: the only message that is sound fills its mailbox."""
    guest = table(13, [row[:3] for row in SENDS])
    with running(built, guest) as (machine, _):
        console = console_of(machine)
    answers = statuses(console)
    assert [status for status, _ in answers] == [row[3] for row in SENDS]


RECEIVES = [
    (ROOM, 0, BAD_LENGTH),
    (ROOM, 4, BAD_LENGTH),
    (SHARE, 5, BAD_ADDRESS),
    (SHARE - 4, 5, BAD_ADDRESS),
    (0xFFFFFFFE, 0xFFFFFFFF, BAD_ADDRESS),
    (0xB8000, 5, BAD_ADDRESS),
    (0xF0000, 5, BAD_ADDRESS),
    (0x9FFFC, 5, BAD_ADDRESS),
    (0x400000, 5, BAD_ADDRESS),  # protected by the policy
    (0x3FFFFC, 5, BAD_ADDRESS),
    (0x400FFF, 5, BAD_ADDRESS),
    (ROOM, 0xFFFFFFFF, OK),
    (ROOM, 5, NONE),
]


def test_what_a_hostile_receiver_gets(built: Built) -> None:
    """The message stays until it is taken, and ECX says how long it is; what is protected is not written."""
    guest = "mov eax, VMCALL_RECEIVE\n vmcall\n cmp eax, STATUS_NONE\n jne acpi_power_off\n"
    guest += "mov ebx, 0\n mov esi, text\n mov ecx, 5\n mov eax, VMCALL_SEND\n vmcall\n"
    guest += "wait_answer: mov eax, VMCALL_RECEIVE\n mov edi, 8000h\n mov ecx, 0\n vmcall\n"
    guest += "cmp eax, STATUS_NONE\n je wait_answer\n"
    guest += table(14, [(0, address, size) for address, size, _ in RECEIVES]) + 'text: db "hello"\n'
    data = TAKE_DATA.replace('"seen", 13, 10, 0', '"hello"')
    region = [(1, "w", 0x400000, 0x400FFF)]
    with running(built, guest, look=TAKE, data=data, regions=region) as (machine, vmm):
        console = console_of(machine)
        base, _ = vmm.guest_memory()
        assert machine.memory.read(base + ROOM, 6) == b"hello\0"
        assert machine.memory.read(base + 0x400000, 4096) == bytes(4096)
    answers = statuses(console)
    assert [status for status, _ in answers] == [row[2] for row in RECEIVES]
    assert {ecx for _, ecx in answers[:-1]} == {5}
    kinds = [event.kind for event in events_of(console)]
    assert kinds[:2] == [MESSAGE, POWER_OFF]


def test_a_mailbox_of_a_guest_that_is_off_or_begins_again(built: Built) -> None:
    """Nobody can fill the mailbox of a VM that is off, and a restarted guest finds its mailbox empty."""
    first = """
        mov     dword [counter], 0
again:  mov     ebx, 2
        mov     esi, again
        mov     ecx, 16
        mov     eax, VMCALL_SEND
        vmcall
        cmp     eax, STATUS_BAD_VM
        je      off
        cmp     eax, STATUS_OK
        jne     again
        mov     esi, text_sent
        call    console_text
        jmp     again
off:    mov     esi, text_off
        call    console_text
        jmp     acpi_power_off
counter: dd     0
text_sent: db   "sent", 13, 10, 0
text_off: db    "it is off", 13, 10, 0
"""
    second = """
        mov     ecx, 40000000h                  ; the other one has its slice meanwhile
        rdtsc
        mov     esi, eax
spin:   rdtsc
        sub     eax, esi
        cmp     eax, 50000000
        jb      spin
        ud2                                     ; without a table of interrupts: a triple fault
"""
    with running(built, [first, second], [2, 1]) as (machine, _):  # restart, stop
        console = console_of(machine)
    assert console.count("sent\r\n") == 2 and console.count("it is off") == 1


HOSTILE = """
        mov     ebp, 6000
        mov     ebx, 12345
next:   imul    ebx, ebx, 1664525
        add     ebx, 1013904223
        mov     esi, ebx
        imul    ebx, ebx, 1664525
        add     ebx, 1013904223
        mov     edi, ebx
        mov     ecx, ebx
        shr     ecx, 19
        test    ebp, 1
        jz      near_end
        and     esi, 0FFFFFFh                   ; about its share
        and     edi, 0FFFFFFh
near_end:
        push    ebx
        shr     ebx, 28
        and     ebx, 3
        mov     eax, ebp
        and     eax, 1
        add     eax, VMCALL_SEND
        vmcall
        pop     ebx
        dec     ebp
        jnz     next
        mov     esi, text
        call    console_text
        jmp     acpi_power_off
text:   db      "6000 calls", 13, 10, 0
"""

VMM_CONSTANT = [("VMM_DIRECTORY", 0x1000), ("VMM_NOTHING", 0x1000), ("VMM_PAGES", 0xB0000), ("VMM_BIOS", 0x40000)]


def test_random_calls_change_nothing_of_another_vm(built: Built) -> None:
    """What the victim and the Service VM have, the VMM's page tables and the VMs', every copy of the firmware."""
    with running(built, [HOSTILE, "jmp $"]) as (machine, vmm):
        machine.run(until=vmm.symbols["call_send"], seconds=5)
        victim, size = vmm.guest_memory(2)
        service, service_size = vmm.guest_memory(0)
        own = [(vmm.symbols[name] - vmm.symbols["VMM_BASE"] + vmm.physical, count) for name, count in VMM_CONSTANT]

        def seen() -> list[str]:
            parts = [(victim, size), (service + 0x30000, service_size - 0x30000), *own]
            return [hashlib.sha256(machine.memory.read(at, count)).hexdigest() for at, count in parts]

        before = seen()
        machine.serial.expect(b"6000 calls", seconds=20)
        assert seen() == before
