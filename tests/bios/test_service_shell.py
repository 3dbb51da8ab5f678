"""The Service OS's shell: its line editor, its help, what it says to wrong words, and what it does with the guests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bios.build import flash
from emu import Machine, StopReason

from .conftest import Built
from .service import MEMORY, Shell, program, shell
from .vmm import files_of

NOT_STOPPED = "no event has stopped that VM, or it is off already; `vms` shows it\n"
EVENT = "last event: wrote to protected memory; events 1, restarts 0, polls "
HEAP_PROGRAM = """
%include "x86.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "image.inc"
%include "console.inc"
%include "acpi_off.inc"
%include "heap.inc"
%macro say 1
        mov     esi, %%text
        call    console_text
        jmp     %%end
%%text: db      %1, 13, 10, 0
%%end:
%endmacro
%macro take 2
        mov     eax, %2
        mov     edx, "test"
        call    heap_take
        mov     [%1], eax
        setc    [carry]
%endmacro
main:
        mov     eax, 200000h
        call    heap_init
        take    first, 100
        take    second, 5000
        take    third, 1
        say     "three"
        call    command_mem
        mov     eax, [second]
        call    heap_give
        say     "hole"
        call    command_mem
        mov     eax, [second]
        call    heap_give
        jc      .once
        say     "NOT refused"
.once:
        take    fourth, 4000            ; first fit: into the hole
        mov     eax, [fourth]
        cmp     eax, [second]
        je      .fits
        say     "NOT first fit"
.fits:
        mov     eax, [first]
        call    heap_give
        mov     eax, [fourth]
        call    heap_give
        say     "again"
        mov     eax, [fourth]           ; it is inside of a free block now
        call    heap_give
        jc      .refused
        say     "NOT refused"
.refused:
        mov     eax, 12345h
        call    heap_give
        mov     eax, [third]
        add     eax, 4
        call    heap_give
        mov     eax, [third]
        call    heap_give
        say     "joined"
        call    command_mem
        take    first, 200000h
        cmp     byte [carry], 1
        je      .refuses
        say     "NOT refused"
.refuses:
        take    first, -1
        cmp     byte [carry], 1
        je      .negative
        say     "NOT refused"
.negative:
        take    first, 64
        take    second, 64
        mov     edi, [first]            ; 16 bytes too far
        mov     ecx, (64 + 16) / 4
        mov     eax, -1
        rep stosd
        say     "overrun"
        mov     eax, [first]
        call    heap_give
        jc      .seen
        say     "NOT seen"
.seen:
        jmp     acpi_power_off
        align   4
first:  dd      0
second: dd      0
third:  dd      0
fourth: dd      0
carry:  db      0
text_vm:
"""


@pytest.fixture(scope="module")
def at(built: Built) -> Iterator[Shell]:
    """A shell before any guest has run."""
    rom = built.rom()
    with shell(rom, built.folder) as opened:
        yield opened


def test_the_shell_opens_before_any_guest_where_the_policy_says_so(at: Shell) -> None:
    assert "service   shell: `help` says what there is to do" in at.before
    assert [one.target for one in at.vmm.switches()] == [0]


def test_help_teaches_every_command(at: Shell) -> None:
    said = at.do("help")
    assert "Look at one by its number" in said
    names = [line.split()[0] for line in said.splitlines() if line.startswith(" ")]
    assert {"help", "vms", "resume", "restart", "stop", "go", "leave", "off", "mem"} <= set(names)
    for name in names:
        assert at.do(f"help {name}") in said
    page = (Path(__file__).parents[2] / "docs" / "service-os.md").read_text()
    assert all(f"`{name}" in page for name in names)
    assert at.do("help nothing") == "nothing: no such command; `help` lists them\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense 1 2", "nonsense: no such command; `help` lists them\n"),
        ("resume", "usage: resume N\n"),
        ("resume 1 2", "usage: resume N\n"),
        ("vms 1", "usage: vms \n"),
        ("stop 0", "VM 0: the guests are VM 1 to VM 1\n"),
        ("stop 2", "VM 2: the guests are VM 1 to VM 1\n"),
        ("stop x", "VM x: the guests are VM 1 to VM 1\n"),
        ("stop 4294967297", "VM 4294967297: the guests are VM 1 to VM 1\n"),
        ("resume 1", NOT_STOPPED),
        ("RESUME 0x1", NOT_STOPPED),
        ("resume 01h", NOT_STOPPED),
        ("stop 1", NOT_STOPPED),
        ("sel clear now", "clear: `sel` lists, `sel clear` erases, `sel add TEXT` adds\n"),
        ("", ""),
        ("   vms", "VM 1 runs    writer\n"),
    ],
)
def test_what_it_says_to_words(at: Shell, line: str, said: str) -> None:
    assert at.do(line) == said


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        (b"vx\x7fms\r", "vx\b \bms\r\n"),
        (b"\x08\x7fvms\r", "vms\r\n"),
        (b"mem\x15vms\r", "mem" + "\b \b" * 3 + "vms\r\n"),
        (b"vms\r\n", "vms\r\n"),
        (b"vms\n", "vms\r\n"),
        (b"\x10\r", "vms\r\n"),
        (b"\x1b[A\r", "vms\r\n"),
        (b"\x1b[Dv\tms\r", "vms\r\n"),
    ],
)
def test_the_line_editor(at: Shell, keys: bytes, shown: str) -> None:
    at.do("vms")  # the line before
    assert at.type(keys) == shown + "VM 1 runs    writer\r\n> "


def test_ctrl_c_gives_a_line_up(at: Shell) -> None:
    assert at.type(b"stop 1\x03") == "stop 1^C\r\n> "
    assert at.do("vms") == "VM 1 runs    writer\n"


def test_a_line_that_is_too_long_rings_the_bell(at: Shell) -> None:
    said = at.type(b"y" * 210 + b"\r")
    assert said.count("\a") == 11
    assert "y" * 199 + ": no such command" in said and "y" * 200 not in said


def test_the_line_before_the_line_before(at: Shell) -> None:
    at.do("help vms")
    at.do("mem 1")
    assert at.type(b"\x10\x10\r").endswith("help vms\r\n vms                       the virtual machines, and what "
                                           "stopped each\r\n> ")  # fmt: skip


def test_memory_is_free_at_first_but_for_the_buffers(at: Shell) -> None:
    assert at.do("mem").splitlines() == [
        "00100000 00001010 page", "00101010 00004010 walk", "00105020 000F9FD0 free", "999 KiB free of 1019 KiB",
    ]  # fmt: skip


def test_the_memory_manager(built: Built, tmp_path: Path) -> None:
    rom = built.rom()
    image = program(HEAP_PROGRAM, built.folder, tmp_path / "heap.asm")
    with Machine(MEMORY, "westmere", firmware=flash(rom[-0x20000:], {**files_of(rom), "service": image})) as machine:
        assert machine.run(seconds=5).reason is StopReason.POWERED_OFF
        said = machine.serial.output.decode()
    assert "NOT" not in said
    lines = said[said.index("three") :].splitlines()
    assert lines[:6] == [
        "three", "00100000 00000080 test", "00100080 000013A0 test", "00101420 00000020 test",
        "00101440 000FDBB0 free", "1014 KiB free of 1019 KiB",
    ]  # fmt: skip
    assert lines[6:9] == ["hole", "00100000 00000080 test", "00100080 000013A0 free"]
    assert "memory: given back twice: 00100090" in lines
    again = lines.index("again")
    assert lines[again + 1 :][:6] == [
        "memory: not a block that was taken: 00100090", "memory: not a block that was taken: 00012345",
        "memory: not a block that was taken: 00101434", "joined", "00100000 000FEFF0 free",
        "1019 KiB free of 1019 KiB",
    ]  # fmt: skip
    assert lines[lines.index("overrun") + 1] == "memory: the header of a block is damaged: 00100050"


def test_go_lets_the_guests_run_and_off_turns_the_machine_off(built: Built) -> None:
    rom = built.rom()
    with shell(rom, built.folder, after="stay") as at:
        at.machine.serial.send(b"go\r")
        said = at.wait()
        assert "service   VM 1 wrote to protected memory" in said
        assert at.do("vms").startswith(f"VM 1 stopped writer; {EVENT}")
        at.machine.serial.send(b"off\r")
        assert at.machine.run(seconds=5).reason is StopReason.POWERED_OFF


def test_resume_and_leave(built: Built) -> None:
    rom = built.rom()
    with shell(rom, built.folder, after="stay") as at:
        at.machine.serial.send(b"go\r")
        at.wait()
        assert at.do("resume 1") == ""
        assert at.do("vms").startswith(f"VM 1 runs    writer; {EVENT}")
        assert at.do("resume 1") == NOT_STOPPED
        at.machine.serial.send(b"leave\r")
        assert at.machine.run(seconds=5).reason is StopReason.POWERED_OFF
        assert "guest     undisturbed" in at.machine.serial.output.decode()


def test_leave_and_stop_without_resume_end_the_guest(built: Built) -> None:
    rom = built.rom()
    for keys in (b"leave\r", b"stop 1\rgo\r"):
        with shell(rom, built.folder, after="stay") as at:
            at.machine.serial.send(b"go\r")
            at.wait()
            at.machine.serial.send(keys)
            stop = at.machine.run(seconds=5)
            said = at.machine.serial.output.decode()
            assert stop.reason is StopReason.POWERED_OFF and "guest     undisturbed" not in said
            assert "service   no guest left: power off through ACPI" in said


def test_without_the_flag_no_shell_opens(built: Built) -> None:
    rom = built.rom()
    with Machine(MEMORY, "westmere", firmware=rom) as machine:
        assert machine.run(seconds=5).reason is StopReason.POWERED_OFF
        assert "service   shell" not in machine.serial.output.decode()


def test_the_keyboard_types_too(built: Built) -> None:
    with shell(built.rom(), built.folder) as at:
        at.machine.keyboard.type("help vms\n")
        assert at.wait().startswith("help vms\r\n vms ")
        at.machine.keyboard.press("up")
        at.machine.keyboard.release("up")
        at.machine.keyboard.type("X\bx\n")
        assert at.wait() == "help vmsX\b \bx\r\nvmsx: no such command; `help` lists them\r\n> "
