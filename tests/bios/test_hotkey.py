"""The user's events: the hotkey on the keyboard and on the serial line, the remote command; no VM sees them."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from emu import Machine

from .conftest import Built
from .events import ALLOW, HOTKEY, REMOTE, STOP, events_of, run_to_guest, running
from .vmm import Vmm

# Prints what it gets: "1.." a byte on COM1, "2.." one on COM2, "k.." a scan code.
LISTENER = """
again:  mov     edx, PORT_COM1 + UART_LSR
        mov     bl, "1"
        call    look
        mov     edx, PORT_COM2 + UART_LSR
        mov     bl, "2"
        call    look
        in      al, 64h
        test    al, 1
        jz      again
        in      al, 60h
        mov     bl, "k"
        call    show
        jmp     again
look:   in      al, dx
        test    al, LSR_DR
        jz      nothing
        sub     edx, UART_LSR
        in      al, dx
show:   push    eax
        mov     al, bl
        call    console_byte
        pop     eax
        movzx   eax, al
        call    console_hex
        mov     al, " "
        call    console_byte
nothing: ret
"""
SLEEPER = "cli\njmp $"
SERIAL = b"\x1d"


@contextmanager
def listening(built: Built, guest: str = LISTENER, **policy: object) -> Iterator[tuple[Machine, Vmm]]:
    with running(built, guest, [ALLOW] * 9, **policy) as (machine, vmm):
        run_to_guest(machine, vmm)
        yield machine, vmm


def after(machine: Machine, seconds: float = 0.3) -> str:
    """What the console says from now on."""
    before = len(machine.serial.output)
    machine.run(seconds=seconds)
    return machine.serial.output[before:].decode("latin-1")


def test_the_byte_on_the_serial_line(built: Built) -> None:
    with listening(built) as (machine, _):
        console = ""
        for byte in (b"a", SERIAL, b"b"):
            machine.serial.send(byte)
            console += after(machine, 0.1)
    assert [(event.kind, event.vm) for event in events_of(console)] == [(HOTKEY, 1)]
    assert "10000001D" not in console and "100000061" in console


def test_the_key(built: Built) -> None:
    """F12 calls the Service VM once, held or not; other keys are the guest's, F12's release too is filtered."""
    with listening(built) as (machine, _):
        machine.keyboard.press("a")
        console = after(machine)
        assert "k0000001E" in console and not events_of(console)
        machine.keyboard.press("f12")
        console = after(machine)
        assert [(event.kind, event.vm) for event in events_of(console)] == [(HOTKEY, 1)]
        machine.keyboard.release("f12")
        machine.keyboard.press("b")
        console = after(machine)
        assert "k00000030" in console
        assert "k00000058" not in console and "k000000D8" not in console


@pytest.mark.parametrize(("key", "code"), [("home", 0x47), ("up", 0x48)])
def test_an_extended_key_is_another_key(built: Built, key: str, code: int) -> None:
    """E0h before a make code: the key of the cursor is not the one of the key pad that has the same number."""
    with listening(built, hotkey=code) as (machine, _):
        machine.keyboard.press(key)
        console = after(machine)
    assert not events_of(console) and f"k000000E0 k{code:08X}" in console


def test_no_hotkey(built: Built) -> None:
    with listening(built, hotkey=0, hotkey_serial=0) as (machine, _):
        machine.serial.send(SERIAL)
        machine.keyboard.press("f12")
        console = after(machine)
    assert not events_of(console) and "10000001D" in console and "k00000058" in console


def test_a_guest_that_hangs_is_called_out_of(built: Built) -> None:
    with listening(built, SLEEPER) as (machine, _):
        machine.serial.send(SERIAL)
        assert [event.kind for event in events_of(after(machine))] == [HOTKEY]
        machine.serial.send(SERIAL)  # and again after it went on
        assert [event.kind for event in events_of(after(machine))] == [HOTKEY]


def test_a_guest_that_sleeps_sleeps_on(built: Built) -> None:
    with listening(built, "sti\nhlt\njmp acpi_power_off") as (machine, vmm):
        machine.serial.send(SERIAL)
        assert [event.kind for event in events_of(after(machine))] == [HOTKEY]
        assert vmm.vm_word(1, "state") == vmm.symbols["VM_SLEEPING"]


@pytest.mark.parametrize(
    ("line", "called", "seen"),
    [
        (b"service\r", 1, b""),
        (b"hello\rservice\r", 1, b"hello\r"),
        (b"servicing\r", 0, b"servicing\r"),
        (b"service now\r", 0, b"service now\r"),
        (b"a service\r", 0, b"a service\r"),
        (b"serserservice\r", 0, b"serserservice\r"),
        (b"x\nservice\rservice\ry\r", 2, b"x\ny\r"),
        (b"s" * 100 + b"\r", 0, b"s" * 100 + b"\r"),
    ],
)
def test_the_remote_command(built: Built, line: bytes, called: int, seen: bytes) -> None:
    """A line of its own; all else comes to the guest, in its order, also what began like the command."""
    with listening(built) as (machine, _):
        for part in line.splitlines(keepends=True):
            for at in range(0, len(part), 8):  # the guest prints slower than the line brings
                machine.modem.send(part[at : at + 8])
                machine.run(seconds=0.02)
            machine.run(seconds=0.1)  # an event's line
        console = machine.serial.output.decode("latin-1")
    found = [int(word[1:], 16) for word in console.split() if len(word) == 9 and word[0] == "2"]
    assert [event.kind for event in events_of(console)] == [REMOTE] * called
    assert bytes(found) == seen


def test_no_remote_command(built: Built) -> None:
    with listening(built, flags=["halted"]) as (machine, _):
        machine.modem.send(b"service\r")
        console = after(machine)
    assert not events_of(console) and "20000000D" in console


def test_a_hotkey_in_the_service_vm_comes_next(built: Built) -> None:
    """Pressed while the Service VM handles an event: it is not lost, and is about the guest in front."""
    with running(
        built, "mov dword [300000h], 1\n" + SLEEPER, [ALLOW, STOP], regions=[(1, "w", 0x300000, 0x300FFF)]
    ) as (machine, vmm):
        machine.run(seconds=5, until=vmm.symbols["call_continue"])
        machine.serial.send(SERIAL + SERIAL)
        machine.run(seconds=2)
        console = machine.serial.output.decode("latin-1")
    assert [event.kind for event in events_of(console)][1:] in ([HOTKEY, 7], [HOTKEY, HOTKEY, 7])


def test_the_keyboard_s_own_test_is_no_key(built: Built) -> None:
    """What the keyboard says at power on, AAh, comes to no VM: it would be a shift key's release."""
    with running(built, LISTENER, [ALLOW]) as (machine, vmm):
        run_to_guest(machine, vmm)
        machine.board.keyboard.key(0x12, False)  # that byte again: the shift key's release, without its being pressed
        assert "k000000AA" not in after(machine) and "k000000AA" not in machine.serial.output.decode("latin-1")
        machine.keyboard.press("shift")
        machine.keyboard.release("shift")
        assert "k0000002A k000000AA" in after(machine)
