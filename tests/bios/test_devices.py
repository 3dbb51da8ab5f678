"""Each VM's keyboard, display, serial lines and reset: its own, and the real ones' for the VM in front."""

import re

import pytest

from emu import Machine, StopReason

from .conftest import Built
from .events import ALLOW, IDT, POWER_OFF, RESET, RESTART, console_of, events_of, running
from .vmm import GUEST, Vmm

SECOND = 2  # a guest's number

# Writes AL to the keyboard's port or the controller's, as a driver does; says what there is to read.
KEYBOARD = """
; In: AL = byte, EDX = port
give:   push    eax
.busy:  in      al, 64h
        test    al, 2
        jnz     .busy
        pop     eax
        out     dx, al
        ret
; Says all that the controller has.
take:   in      al, 64h
        test    al, 1
        jz      .end
        mov     ebx, eax
        in      al, 60h
        shl     eax, 24
        mov     ecx, 2
        call    console_digits
        test    bl, 20h                         ; the auxiliary device's
        jz      .time_out
        mov     al, "a"
        call    console_byte
.time_out:
        test    bl, 40h
        jz      .next
        mov     al, "t"
        call    console_byte
.next:  mov     al, " "
        call    console_byte
        jmp     take
.end:   ret
"""

EXCHANGES = [
    ("self-test", "c AA", "55"),
    ("command byte after it", "c AA c 20", "74"),  # the answer of the self-test is displaced
    ("command byte", "c 60 d 47 c 20", "47"),
    ("keyboard's lines", "c AB", "00"),
    ("keyboard off", "c 60 d 45 c AD c 20", "55"),
    ("keyboard on", "c 60 d 55 c AE c 20", "45"),
    ("auxiliary device off", "c 60 d 45 c A7 c 20", "65"),
    ("auxiliary device on", "c 60 d 65 c A8 c 20", "45"),
    ("auxiliary device's lines", "c A9", "00"),
    ("input port", "c C0", "B0"),
    ("output port", "c D0", "CF"),
    ("output port written", "c D1 d DF c D0", "CF"),
    ("as if a key", "c D2 d 5A", "5A"),
    ("as if the auxiliary device", "c D3 d 5B", "5Ba"),
    ("nobody is there", "c D4 d F4", "FEat"),
    ("the rest of its RAM", "c 61 d 33 c 21", "00"),
    ("no such command", "c 00 c 50 c B0", ""),
    ("echo", "d EE", "EE"),
    ("identification", "d F2", "FA AB 41"),
    ("lights", "d ED d 07", "FA FA"),
    ("rate", "d F3 d 20", "FA FA"),
    ("scan code set", "d F0 d 00", "FA FA 01"),
    ("a command for an argument", "d ED d EE", "FA EE"),
    ("scanning off", "d F5", "FA"),
    ("scanning on", "d F4", "FA"),
    ("defaults", "d F6", "FA"),
    ("reset", "d FF", "FA AA"),
    ("no such command of the keyboard", "d 01", "FE"),
    ("a byte for the keyboard opens the port", "c AD d EE", "EE"),
]


def test_what_a_driver_asks_the_keyboard(built: Built) -> None:
    code = "".join(
        "".join(
            f"mov al, 0{number}h\n mov edx, {'64h' if port == 'c' else '60h'}\n call give\n"
            for port, number in zip(given.split()[::2], given.split()[1::2], strict=True)
        )
        + "call take\n call console_newline\n"
        for _, given, _ in EXCHANGES
    )
    start = "mov esi, text\n call console_text\n"
    end = 'jmp acpi_power_off\ntext: db "begin", 13, 10, 0\n'
    with running(built, start + code + end + KEYBOARD) as (machine, _):
        console = console_of(machine)
    lines = console.partition("begin\r\n")[2].split("\r\n")
    said = {what: lines[place].strip() for place, (what, _, _) in enumerate(EXCHANGES)}
    assert said == {what: wanted for what, _, wanted in EXCHANGES}


def test_resend(built: Built) -> None:
    with running(built, f"mov al, 0FEh\n mov edx, 60h\n mov al, 0EEh\n call give\n call take\n mov al, 0FEh\n"
                 f"mov edx, 60h\n call give\n call take\n call console_newline\n jmp acpi_power_off\n{KEYBOARD}") as (
        machine, _,
    ):  # fmt: skip
        assert "EE EE \r\n" in console_of(machine)


# Says each byte of the keyboard by interrupt; ends at Escape.
KEYS = f"""
        mov     eax, 21h
        mov     ebx, key
        call    gate
        lidt    [idt_pointer]
        mov     al, 0FDh
        call    pics
        mov     esi, text
        call    console_text
again:  sti
        hlt
        cli
        cmp     byte [last], 81h                ; Escape goes up
        jne     again
        jmp     acpi_power_off
key:    pushad
        in      al, 60h
        mov     [last], al
        shl     eax, 24
        mov     ecx, 2
        call    console_digits
        mov     al, " "
        call    console_byte
        mov     al, OCW2_EOI
        out     PORT_PIC1_COMMAND, al
        popad
        iret
last:   db      0
text:   db      "ready {{}}", 13, 10, 0
{IDT}
"""


def test_keys_come_by_interrupt(built: Built) -> None:
    with running(built, KEYS.format("1")) as (machine, vmm):
        machine.serial.expect(b"ready", seconds=5)
        machine.keyboard.type("aB")
        machine.keyboard.press("esc")
        machine.keyboard.release("esc")
        console = console_of(machine)
        assert vmm.vm(GUEST, "kbc", 16)[vmm.symbols["kbc.count"]] == 0
    assert "1E 9E 2A 30 B0 AA 01 81" in console


def test_keys_are_for_the_guest_in_front(built: Built) -> None:
    """The first one, until it is off; then the second."""
    with running(built, [KEYS.format("1"), KEYS.format("2")]) as (machine, _):
        machine.serial.expect(b"ready", seconds=5)
        machine.serial.expect(b"ready", seconds=5)
        machine.keyboard.type("a")
        machine.keyboard.press("esc")
        machine.keyboard.release("esc")
        machine.serial.expect(b"\nstatus", seconds=5)
        machine.run(seconds=0.03)
        machine.keyboard.type("b")
        machine.keyboard.press("esc")
        machine.keyboard.release("esc")
        console = console_of(machine)
    first, off, second = console.partition("event")
    assert off and "1E 9E 01 81" in first and "30" not in first.partition("ready")[2].split()
    assert "30 B0 01 81" in second and "1E" not in second.partition("status")[2].split()


def test_keys_are_the_service_vm_s_while_it_runs(built: Built) -> None:
    start = """
        mov     esi, waiting
        call    console_text
key:    in      al, 64h
        test    al, 1
        jz      key
        in      al, 60h
        cmp     al, 9Eh                         ; it goes up
        jne     key
        mov     esi, taken
        call    console_text
"""
    data = 'waiting: db "service waits", 13, 10, 0\ntaken: db "service has it", 13, 10, 0\n'
    with running(built, KEYS.format("1"), start=start, data=data) as (machine, _):
        machine.serial.expect(b"service waits", seconds=5)
        machine.keyboard.type("a")
        machine.serial.expect(b"ready", seconds=5)
        machine.keyboard.press("esc")
        machine.keyboard.release("esc")
        console = console_of(machine)
    assert "service has it" in console and "ready 1\r\n01 81 " in console


# Writes a letter and its cursor, waits for the hotkey that there is none for: a byte on COM1; says what it reads back.
SCREEN = """
        mov     word [0B8000h], 700h | "{letter}"
        mov     word [0BFFFEh], 700h | "{letter}"
        mov     dx, 3D4h
        mov     al, 0Fh
        mov     ah, {cursor}
        out     dx, ax
        mov     al, 0Eh
        mov     ah, 0
        out     dx, ax
        mov     esi, text
        call    console_text
wait_byte:
        mov     dx, PORT_COM1 + UART_LSR
        in      al, dx
        test    al, LSR_DR
        jz      wait_byte
        mov     al, [0B8000h]
        call    console_byte
        mov     al, [0BFFFEh]
        call    console_byte
        mov     dx, 3D4h
        mov     al, 0Fh
        out     dx, al
        inc     edx
        in      al, dx
        call    console_hex8
        call    console_newline
        jmp     acpi_power_off
text:   db      "shown {letter}", 13, 10, 0
"""


def test_the_display_shows_the_vm_in_front(built: Built) -> None:
    """Each has its own text and cursor, and finds them again; a byte on COM1 is for the one in front alone."""
    codes = [SCREEN.format(letter=letter, cursor=cursor).replace("call    console_hex8", "mov esi, eax\n shl eax, 24\n"
             " mov ecx, 2\n call console_digits") for letter, cursor in (("X", 5), ("Y", 9))]  # fmt: skip
    with running(built, codes) as (machine, _):
        machine.serial.expect(b"shown X", seconds=5)
        machine.serial.expect(b"shown Y", seconds=5)
        machine.run(seconds=0.03)
        assert machine.screen.text.startswith("X") and machine.screen.cursor == (5, 0)
        machine.serial.send(b"1")
        machine.serial.expect(b"XX05", seconds=5)
        machine.serial.expect(b"\nstatus", seconds=5)
        machine.run(seconds=0.03)
        assert machine.screen.text.startswith("Y") and machine.screen.cursor == (9, 0)
        machine.serial.send(b"2")
        console = console_of(machine)
    assert "YY09" in console
    assert [event.kind for event in events_of(console)][:2] == [POWER_OFF, POWER_OFF]


def test_the_service_vm_has_its_own_screen(built: Built) -> None:
    """At an event the display shows its screen, and the guest's again afterwards."""
    guest = """
        mov     word [0B8000h], 700h | "G"
        mov     al, 0FEh
        out     64h, al
        cmp     byte [0B8000h], "G"
        jne     acpi_power_off
        mov     esi, text
        call    console_text
        jmp     $
text:   db      "still there", 13, 10, 0
"""
    with running(built, guest, [ALLOW], start='mov word [0B8000h], 700h | "S"') as (machine, vmm):
        machine.serial.expect(b"event", seconds=5)
        assert machine.screen.text.startswith("S")
        machine.serial.expect(b"still there", seconds=5)
        assert machine.screen.text.startswith("G")
        copy = vmm.symbols["VMM_SCREENS"] - vmm.symbols["VMM_BASE"] + vmm.physical
        assert machine.memory.read(copy, 2) == b"S\7"


MODEM = """
        mov     esi, text
        call    console_text
        mov     edx, PORT_COM2 + UART_DATA
        mov     al, "{letter}"
        out     dx, al
wait_byte:
        mov     dx, PORT_COM2 + UART_LSR
        in      al, dx
        test    al, LSR_DR
        jz      wait_byte
        mov     dx, PORT_COM2
        in      al, dx
        call    console_byte
        mov     esi, text
        call    console_text
        jmp     acpi_power_off
text:   db      " guest {letter}", 13, 10, 0
"""


def test_the_modem_line_is_the_front_guest_s(built: Built) -> None:
    """What the other one sends goes nowhere, and it gets nothing until it is in front."""
    with running(built, [MODEM.format(letter="P"), MODEM.format(letter="Q")]) as (machine, _):
        machine.serial.expect(b"guest P", seconds=5)
        machine.serial.expect(b"guest Q", seconds=5)
        machine.run(seconds=0.03)
        machine.modem.send(b"1")
        machine.serial.expect(b"1 guest P", seconds=5)
        machine.serial.expect(b"\nstatus", seconds=5)
        machine.run(seconds=0.03)
        machine.modem.send(b"2")
        console = console_of(machine)
        assert machine.modem.output == b"P"
    assert "2 guest Q" in console


LOOP = """
        mov     edx, {base} + UART_MCR
        mov     al, 1Ah
        out     dx, al
        mov     edx, {base} + 6
        in      al, dx
        mov     ebx, eax
        mov     edx, {base}
        mov     al, 5Ah
        out     dx, al
        mov     edx, {base} + UART_LSR
        in      al, dx
        mov     bh, al
        mov     edx, {base}
        in      al, dx
        shl     ebx, 16
        mov     bl, al
        mov     edx, {base} + UART_MCR
        mov     al, 3
        out     dx, al
        mov     eax, ebx
        mov     esi, text
        call    tell
        jmp     acpi_power_off
text:   db      "loop ", 0
"""


@pytest.mark.parametrize("base", ["PORT_COM1", "PORT_COM2"])
def test_a_uart_s_loop(built: Built, base: str) -> None:
    """How drivers find one: the modem's lines and a byte come back, and nothing goes out."""
    with running(built, LOOP.format(base=base) + IDT) as (machine, _):
        found = re.search(r"loop ([0-9A-F]{8})", console_of(machine))
        assert found and int(found[1], 16) & 0xFFFF00FF == 0x6190005A
        assert machine.modem.output == b""


RESETS = {
    "the keyboard controller": "mov al, 0FEh\n out 64h, al",
    "its output port": "mov al, 0D1h\n out 64h, al\n mov al, 0FEh\n out 60h, al",
    "port 92h": "in al, 92h\n or al, 1\n out 92h, al",
    "port CF9h": "mov dx, 0CF9h\n mov al, 2\n out dx, al\n mov al, 6\n out dx, al",
}


@pytest.mark.parametrize("what", RESETS)
def test_a_guest_that_resets_itself(built: Built, what: str) -> None:
    """An event: begun again it begins at its image, let on it goes on; the machine is not reset."""
    code = (
        f"mov esi, text\n call console_text\n {RESETS[what]}\n mov esi, on\n call console_text\n jmp acpi_power_off\n"
    )
    code += 'text: db "begins", 13, 10, 0\non: db "goes on", 13, 10, 0\n'
    with running(built, code, [RESTART, ALLOW]) as (machine, _):
        console = console_of(machine)
    assert [event.kind for event in events_of(console)][:3] == [RESET, RESET, POWER_OFF]
    assert console.count("begins") == 2 and console.count("goes on") == 1 and console.count("VMM       at") == 1


def bits(machine: Machine, vmm: Vmm) -> set[int]:
    """The values that the display's status has within a picture."""
    assert machine.run(seconds=5).reason is StopReason.POWERED_OFF
    base, _ = vmm.guest_memory()
    return {value for value in range(256) if machine.memory.read(base + 0x300000 + value, 1) != b"\0"}


def test_the_display_s_status_changes(built: Built) -> None:
    """A program that waits for the beam to go back does not wait for ever."""
    code = """
        mov     ecx, 20000
        mov     dx, 3DAh
status: in      al, dx
        movzx   eax, al
        mov     byte [300000h + eax], 1
        loop    status
        jmp     acpi_power_off
"""
    with running(built, code) as (machine, vmm):
        assert bits(machine, vmm) == {0, 1, 9}


# Reads a configuration register each: its address.
PCI = """
        mov     ebp, addresses
one:    mov     edx, PORT_PCI_ADDRESS
        mov     eax, [ebp]
        out     dx, eax
        mov     edx, PORT_PCI_DATA
        in      eax, dx
        push    eax
        not     eax
        out     dx, eax                         ; changes nothing
        in      eax, dx
        pop     ecx
        cmp     eax, ecx
        jne     acpi_power_off
        mov     esi, text
        call    tell
        add     ebp, 4
        cmp     ebp, addresses_end
        jb      one
        mov     edx, PORT_PCI_ADDRESS
        in      eax, dx
        mov     esi, text
        call    tell
        jmp     acpi_power_off
text:   db      "PCI ", 0
        align   4
addresses: dd   80000000h, 80000800h, 80000900h, 80000B00h, 80000908h, 80000920h
        dd      80000A00h, 80001000h, 80010000h, 80000400h, 00000000h
addresses_end:
"""


def test_the_chipset_s_pci_functions(built: Built) -> None:
    """Host bridge, ISA, IDE without bus master, power management; nobody else. An address is no reset."""
    with running(built, PCI + IDT) as (machine, _):
        console = console_of(machine)
    found = [int(value, 16) for value in re.findall(r"PCI ([0-9A-F]{8})\r", console.partition("VMM       at")[2])]
    assert found[:4] == [0x12378086, 0x71108086, 0x71118086, 0x71138086]
    assert found[4] >> 8 == 0x010100 and found[5] == 0
    assert found[6:] == [0xFFFFFFFF] * 5 + [0]
    assert events_of(console)[0].kind == POWER_OFF


@pytest.mark.parametrize("flags", [["bmc"], []])
def test_the_bmc_is_a_guest_s_where_the_policy_says_so(built: Built, flags: list[str]) -> None:
    code = "mov edx, PORT_KCS_COMMAND\n in al, dx\n movsx eax, al\n mov esi, text\n call tell\n jmp acpi_power_off\n"
    with running(built, code + 'text: db "KCS ", 0\n' + IDT, flags=flags) as (machine, _):
        console = console_of(machine)
    assert ("KCS FFFFFFFF" in console) == (not flags)


HAMMER = """
        mov     ecx, 40000
        mov     ebx, {seed}
next:   imul    ebx, ebx, 1664525
        add     ebx, 1013904223
        mov     edx, ebx
        shr     edx, 16
        mov     esi, ebx
        and     esi, 3FFFFh
        test    ebx, 1 << 12
        jz      any
        and     edx, 3FFh                       ; mostly where devices are
any:    cmp     edx, PORT_PM1_CNT - 3           ; turning itself off would end it too soon
        jb      go
        cmp     edx, PORT_PM1_CNT + 1
        jbe     skip
go:     mov     eax, ebx
        rol     eax, 11
        mov     edi, 300000h
        test    ebx, 1 << 9
        jz      string
        test    ebx, 1 << 10
        jz      in_or_out
        out     dx, eax
        jmp     skip
in_or_out:
        in      ax, dx
        out     dx, al
        jmp     skip
string: insd
        lea     esi, [edi - 4]
        outsb
skip:   loop    next
        mov     esi, text
        call    console_text
        jmp     acpi_power_off
text:   db      13, 10, "hammered", 13, 10, 0
"""


@pytest.mark.parametrize("seed", [1, 20261129])
def test_a_guest_that_hammers_ports_at_random(built: Built, seed: int) -> None:
    """Every access has a result; the guest goes on after each event, and the other guest does not notice."""
    count = "mov ecx, 200000000\nagain: loop again\nmov esi, text\n call console_text\n jmp acpi_power_off\n"
    count += 'text: db 13, 10, "other ends well", 13, 10, 0\n'
    with running(built, [HAMMER.format(seed=seed), count.replace("200000000", "30000000")], [ALLOW] * 99) as (
        machine,
        _,
    ):
        console = console_of(machine, seconds=20)
    assert "other ends well" in console and "exception" not in console.partition("VMM       at")[2]
    assert "hammered" in console or any(event.vm == GUEST for event in events_of(console))
