"""The runtime services: called by POST, on the bare machine and by a running guest, with paging as well."""

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bios.build import flash
from emu import Machine, StopReason

from .conftest import Built
from .events import ALLOW, POWER_OFF, RESET, RESTART, console_of, events_of, guest_image, running
from .vmm import BARE_MEMORY, files_of

INVALID, UNSUPPORTED, TOO_SMALL, NO_ROOM, NOT_FOUND = 0x80000002, 0x80000003, 0x80000005, 0x80000009, 0x8000000E

# EBP = the module. Real mode, which has the memory map, is over: the region is looked for on page boundaries.
# `service_call name, arguments...` leaves the status in EAX.
FIND = """
%include "runtime.inc"
%macro service_call 1-*
  %assign pushed 0
  %xdefine called %1
  %rep %0 - 1
    %rotate -1
        push    dword %1
    %assign pushed pushed + 4
  %endrep
        call    [ebp + runtime_table. %+ called]
        add     esp, pushed
%endmacro
        mov     ebp, 100000h
find:   add     ebp, 1000h
        cmp     ebp, 2000000h
        jae     not_there
        cmp     dword [ebp], RUNTIME_SIGNATURE_LOW
        jne     find
        cmp     dword [ebp + 4], RUNTIME_SIGNATURE_HIGH
        jne     find
        jmp     found
not_there:
        mov     esi, text_not_there
        call    console_text
        jmp     acpi_power_off
text_not_there: db "no runtime services", 13, 10, 0
; Says EAX.
tell:   pushad
        call    console_hex
        call    console_newline
        popad
        ret
found:
"""
DATA = """
        align   4
bytes:  dd      0
kind:   dd      0
data:   times 600 db 0
name:   db      "Boot", 0
second: db      "Second", 0
empty:  times 32 db 0
long:   times 40 db "x"
        db      0
value:  db      "value of it"
value_end:
moment: times runtime_time_size db 0
"""
VARIABLES = """
        service_call set_variable, name, 7, value_end - value, value
        call    tell
        mov     dword [bytes], 600
        service_call get_variable, name, kind, bytes, data
        call    tell
        mov     eax, [bytes]
        call    tell
        mov     eax, [kind]
        call    tell
        mov     esi, data
        call    console_text
        call    console_newline
        mov     dword [bytes], 4
        service_call get_variable, name, 0, bytes, data
        call    tell
        mov     eax, [bytes]
        call    tell
        service_call get_variable, second, 0, bytes, data
        call    tell
        service_call set_variable, second, 1, 4, value
        call    tell
        mov     dword [bytes], 32
        service_call next_variable, bytes, empty
        call    tell
        mov     esi, empty
        call    console_text
        call    console_newline
        mov     dword [bytes], 32
        service_call next_variable, bytes, empty
        call    tell
        mov     esi, empty
        call    console_text
        call    console_newline
        mov     dword [bytes], 32
        service_call next_variable, bytes, empty
        call    tell
        service_call set_variable, name, 0, 0, value
        call    tell
        service_call set_variable, name, 0, 0, value
        call    tell
        service_call set_variable, long, 0, 4, value
        call    tell
        service_call set_variable, name, 0, 513, value
        call    tell
        mov     byte [empty], 0
        service_call set_variable, empty, 0, 4, value
        call    tell
        jmp     acpi_power_off
"""
ANSWERS = [
    0, 0, 11, 7, "value of it", TOO_SMALL, 11, NOT_FOUND, 0, 0, "Boot", 0, "Second", NOT_FOUND, 0, NOT_FOUND, INVALID,
    INVALID, INVALID,
]  # fmt: skip


def answers(console: str) -> list[int | str]:
    """The lines that a guest says before it is off: numbers and texts."""
    lines = re.split(r"\r\n", re.split("event |ACPI:", console.partition("begin\r\n")[2])[0])
    return [int(line, 16) if re.fullmatch("[0-9A-F]{8}", line) else line for line in lines if line]


BEGIN = 'mov esi, text_begin\n call console_text\n jmp begin\ntext_begin: db "begin", 13, 10, 0\nbegin:\n'


@contextmanager
def native(built: Built, code: str, cpu: str = "pentium3") -> Iterator[Machine]:
    """The bare machine with a guest of this code."""
    files = {**files_of(built.rom()), "guest": guest_image(built.folder, code)}
    with Machine(BARE_MEMORY, cpu, firmware=flash(built.rom()[-0x20000:], files)) as machine:
        yield machine


def test_variables_in_a_vm(built: Built) -> None:
    with running(built, FIND + BEGIN + VARIABLES + DATA) as (machine, _):
        assert answers(console_of(machine)) == ANSWERS


def test_variables_on_the_bare_machine(built: Built) -> None:
    with native(built, FIND + BEGIN + VARIABLES + DATA) as machine:
        assert answers(console_of(machine)) == ANSWERS


def test_firmware_calls_them_before_it_boots(built: Built) -> None:
    with native(built, "") as machine:
        console = console_of(machine)
    assert re.search(r"runtime   services at 00EED000\r\nruntime   status code 0100003E\r\n", console)
    assert console.index("status code") < console.index("boot ")


def test_variables_outlast_a_restart_and_are_each_guest_s_own(built: Built) -> None:
    """The first guest's second life reads what its first one wrote; the other guest finds nothing."""
    first = FIND + BEGIN + """
        mov     dword [bytes], 600
        service_call get_variable, name, 0, bytes, data
        call    tell
        service_call set_variable, name, 7, value_end - value, value
        service_call reset, RUNTIME_COLD
""" + DATA  # fmt: skip
    second = FIND + """
        rdtsc
        mov     esi, eax
spin:   rdtsc
        sub     eax, esi
        cmp     eax, 100000000
        jb      spin
        mov     dword [bytes], 600
        service_call get_variable, name, 0, bytes, data
        mov     esi, text_second
        call    console_text
        call    tell
        jmp     acpi_power_off
text_second: db "second ", 0
""" + DATA  # fmt: skip
    second = second.replace("call    console_text\n        call    tell\n        jmp     acpi", "push eax\n"
                            " call console_text\n pop eax\n call tell\n jmp acpi")  # fmt: skip
    with running(built, [first, second], [RESTART, 1]) as (machine, _):
        console = console_of(machine)
    found = [int(number, 16) for number in re.findall(r"begin\r\n([0-9A-F]{8})", console)]
    assert found == [NOT_FOUND, 0]
    assert f"second {NOT_FOUND:08X}" in console
    assert [event.kind for event in events_of(console)][:2] == [RESET, RESET]


def test_a_store_that_is_full(built: Built) -> None:
    """What does not fit changes nothing: the variables that are there can be read."""
    code = FIND + BEGIN + """
        mov     ecx, 10
fill:   push    ecx
        inc     byte [name]
        service_call set_variable, name, 1, 512, data
        call    tell
        pop     ecx
        loop    fill
        mov     byte [name], "C"
        mov     dword [bytes], 600
        service_call get_variable, name, 0, bytes, data
        call    tell
        mov     eax, [bytes]
        call    tell
        jmp     acpi_power_off
""" + DATA  # fmt: skip
    with running(built, code) as (machine, _):
        assert answers(console_of(machine)) == [0] * 7 + [NO_ROOM] * 3 + [0, 512]


TIME = """
        service_call get_time, moment
        call    tell
        mov     eax, [moment]
        call    tell
        mov     eax, [moment + 4]
        call    tell
        mov     word [moment + runtime_time.year], 2031
        mov     byte [moment + runtime_time.month], 12
        mov     byte [moment + runtime_time.day], 24
        mov     byte [moment + runtime_time.hour], 18
        mov     byte [moment + runtime_time.minute], 30
        service_call set_time, moment
        call    tell
        service_call get_time, moment
        mov     eax, [moment]
        call    tell
        mov     byte [moment + runtime_time.month], 13
        service_call set_time, moment
        call    tell
        jmp     acpi_power_off
"""


def test_time_on_the_bare_machine(built: Built) -> None:
    with native(built, FIND + BEGIN + TIME + DATA) as machine:
        machine.board.rtc.set_time(2026, 11, 29, 23, 59, 5)
        found = answers(console_of(machine))
    status, date, time, changed, date_after, refused = (int(number) for number in found)
    assert status == changed == 0 and refused == INVALID
    assert struct.unpack("<HBB", date.to_bytes(4, "little")) == (2026, 11, 29)
    assert time & 0xFFFF == 0x3B17  # 23:59
    assert struct.unpack("<HBB", date_after.to_bytes(4, "little")) == (2031, 12, 24)


def test_time_in_a_vm(built: Built) -> None:
    """The machine's time until the guest sets it: then it is the guest's own."""
    with running(built, FIND + BEGIN + TIME + DATA) as (machine, _):
        machine.board.rtc.set_time(2026, 11, 29, 23, 50, 5)
        found = answers(console_of(machine))
        stored = machine.board.rtc.save()
    status, date, _, changed, date_after, refused = (int(number) for number in found)
    assert status == changed == 0 and refused == INVALID
    assert struct.unpack("<HBB", date.to_bytes(4, "little")) == (2026, 11, 29)
    assert struct.unpack("<HBB", date_after.to_bytes(4, "little")) == (2031, 12, 24)
    assert stored["ram"][9] == 0x26, "the machine's own clock"


STATUS_CODE = "service_call status_code, 0CAFE1234h\n call tell\n jmp acpi_power_off\n"


def test_status_codes(built: Built) -> None:
    with running(built, FIND + BEGIN + STATUS_CODE + DATA) as (machine, _):
        assert "VMM       VM 1 status code CAFE1234\r\n00000000" in console_of(machine)
    with native(built, FIND + BEGIN + STATUS_CODE + DATA) as machine:
        assert "runtime   status code CAFE1234\r\n00000000" in console_of(machine)


def test_reset_and_off_in_a_vm(built: Built) -> None:
    code = FIND + BEGIN + "service_call reset, RUNTIME_OFF\n" + DATA
    with running(built, code) as (machine, _):
        assert [event.kind for event in events_of(console_of(machine))][:1] == [POWER_OFF]
    code = FIND + BEGIN + "service_call reset, RUNTIME_WARM\n" + DATA
    with running(built, code, [ALLOW]) as (machine, _):
        machine.run(seconds=1)
        assert events_of(machine.serial.output.decode())[0].kind == RESET


def test_reset_of_the_bare_machine(built: Built) -> None:
    with native(built, FIND + BEGIN + "service_call reset, RUNTIME_COLD\n" + DATA) as machine:
        for _ in range(2):
            machine.serial.expect(b"begin", seconds=5)  # the rest is lost in the UART
        assert machine.serial.output.count(b"all       checksum") == 2


# A page directory that maps the first 32 MiB to themselves and to C0000000h; the module is called there after set_map.
PAGING = """
        mov     ebx, ebp                        ; physical
        lea     eax, [ebx]
        mov     [map + runtime_range.physical], eax
        or      eax, 0C0000000h
        mov     [map + runtime_range.virtual], eax
        service_call convert, 0, pointer
        call    tell                            ; there is no map yet
        service_call set_map, runtime_range_size - 1, runtime_range_size - 1, 1, map
        call    tell
        mov     dword [map + runtime_range.pages], 0
        service_call set_map, runtime_range_size, runtime_range_size, 1, map
        call    tell                            ; the module is in no range
        mov     dword [map + runtime_range.pages], 3
        mov     edi, 1000h
        xor     eax, eax
        mov     ecx, 1024
        rep stosd
        mov     edi, 1000h
        mov     eax, 83h
        mov     ecx, 8
large:  mov     [edi], eax
        mov     [edi + 300h * 4], eax
        add     eax, 400000h
        add     edi, 4
        loop    large
        mov     eax, 1000h
        mov     cr3, eax
        mov     eax, cr4
        or      eax, 10h
        mov     cr4, eax
        mov     eax, cr0
        or      eax, 80000000h
        mov     cr0, eax
        jmp     on
on:     service_call set_map, runtime_range_size, runtime_range_size, 1, map
        call    tell
        service_call convert, RUNTIME_OPTIONAL, null
        call    tell
        service_call convert, 0, null
        call    tell
        lea     eax, [ebx + 18h]
        mov     [pointer], eax
        service_call convert, 0, pointer
        call    tell
        mov     eax, [pointer]
        sub     eax, ebx
        call    tell
        mov     dword [pointer], 12345678h
        service_call convert, 0, pointer
        call    tell
        mov     edi, 1000h                      ; the module's physical addresses are no more
        mov     eax, ebx
        shr     eax, 22
        mov     ecx, cr3
        cmp     eax, 0
        je      keep
        mov     dword [1000h + eax * 4], 0
        mov     cr3, ecx
keep:   lea     ebp, [ebx + 0C0000000h]
        service_call set_map, runtime_range_size, runtime_range_size, 1, map
        call    tell                            ; once is enough
        service_call set_variable, name, 7, value_end - value, value
        call    tell
        mov     dword [bytes], 600
        service_call get_variable, name, kind, bytes, data
        call    tell
        mov     esi, data
        call    console_text
        call    console_newline
        mov     eax, cr0
        and     eax, 7FFFFFFFh
        mov     cr0, eax
        jmp     acpi_power_off
        align   4
map:    istruc  runtime_range
        at runtime_range.type, dd 5
        at runtime_range.pages, dd 3
        iend
pointer: dd     12345678h
null:   dd      0
"""
PAGING_ANSWERS = [
    NOT_FOUND, INVALID, NOT_FOUND, 0, 0, INVALID, 0, 0xC0000018, NOT_FOUND, UNSUPPORTED, 0, 0, "value of it",
]  # fmt: skip


@pytest.mark.parametrize("where", ["in a VM", "on the bare machine"])
def test_called_through_virtual_addresses(built: Built, where: str) -> None:
    code = FIND + BEGIN + PAGING + DATA
    if where == "in a VM":
        with running(built, code) as (machine, _):
            console = console_of(machine)
    else:
        with native(built, code) as machine:
            console = console_of(machine)
    assert answers(console) == PAGING_ANSWERS


def test_a_hostile_request(built: Built) -> None:
    """Requests anywhere, services that do not exist: a status, and the VMM's store is none the worse."""
    code = FIND + BEGIN + """
        mov     edi, 8000h                      ; a request without an end of its name, and too many bytes
        mov     ecx, runtime_request_size / 4
        mov     eax, -1
        rep stosd
        mov     edi, 5
one:    mov     eax, VMCALL_RUNTIME
        mov     ebx, edi
        mov     esi, 8000h
        vmcall
        call    tell
        mov     eax, VMCALL_RUNTIME
        mov     ebx, edi
        mov     esi, 800000h - 500
        vmcall
        call    tell
        dec     edi
        jnz     one
        mov     eax, VMCALL_RUNTIME
        mov     ebx, -1
        vmcall
        call    tell
        service_call set_variable, name, 7, value_end - value, value
        call    tell
        jmp     acpi_power_off
""" + DATA  # fmt: skip
    with running(built, code) as (machine, _):
        found = answers(console_of(machine))
    assert found == [1, 1, 1, 1, 0, 4, 0, 4, 0, 4, 1, 0]


def test_without_the_file(built: Built) -> None:
    files = {name: content for name, content in files_of(built.rom()).items() if name != "runtime"}
    with Machine(16 << 20, "pentium3", firmware=flash(built.rom()[-0x20000:], files)) as machine:
        assert machine.run(seconds=5).reason is StopReason.POWERED_OFF
        assert b"runtime   no services: not in the flash chip" in machine.serial.output
