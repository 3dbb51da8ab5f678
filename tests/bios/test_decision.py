"""Decision 306 and native boot 307: the query, the set-up screen, and what is left of a VMM that is not wanted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import asm
from emu import Machine, StopReason
from emu.builtin.policy import decode_policy, policy_nvram

from .conftest import Built
from .vmm import files_of, flash, vmm_symbols

MEMORY = 32 << 20
ACPI_BYTES = 64 << 10
RUNTIME_BYTES = 0x3000  # the runtime services, include/runtime.inc
QUERY = b"S: set-up screen; "
SERVICE_SAYS = "service   2048 KiB"
NATIVE_SAYS = "guest     started on the bare machine"

# Prints the memory map as INT 15h gives it, then CR0 and CR4, in hexadecimal; halts.
MAP_GUEST = """
        bits 16
        org 0
        mov     ax, cs
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0F000h
        xor     ebx, ebx
.entry: mov     eax, 0E820h
        mov     edx, 534D4150h
        mov     ecx, 20
        mov     di, buffer
        int     15h
        jc      .registers
        mov     si, buffer
        mov     cx, 5
.word:  lodsd
        call    print
        loop    .word
        test    ebx, ebx
        jnz     .entry
.registers:
        mov     eax, cr0
        call    print
        mov     eax, cr4
        call    print
        mov     al, "."
        mov     ah, 0Eh
        int     10h
        mov     dx, 3F8h + 5
.sent:  in      al, dx
        test    al, 40h
        jz      .sent
        cli
        hlt
print:  pushad
        mov     edx, eax
        mov     cx, 8
.digit: rol     edx, 4
        mov     al, dl
        and     al, 15
        add     al, "0"
        cmp     al, "9"
        jbe     .out
        add     al, 7
.out:   mov     ah, 0Eh
        int     10h
        loop    .digit
        mov     ax, 0E20h
        int     10h
        popad
        ret
buffer: times 20 db 0
"""


def reach(machine: Machine, built: Built, place: str) -> None:
    """Runs it up to a place in the VMM."""
    assert machine.run(seconds=5, until=vmm_symbols(built.folder)[place]).reason is StopReason.BREAKPOINT


def boot(
    built: Built, typed: Callable[[Machine], object] | None = None, at: str = "decision.wait", **policy: Any
) -> Machine:
    """A machine that ran to its end after something was typed at the query; the caller closes it."""
    machine = Machine(MEMORY, firmware=built.rom(), nvram=policy_nvram(**policy))
    if typed is not None:
        reach(machine, built, at)
        typed(machine)
    machine.run(seconds=5)
    return machine


def console(machine: Machine) -> str:
    return machine.serial.output.decode()


@pytest.mark.parametrize("seconds", [1, 3])
def test_decision_306_without_an_answer_is_the_service_os(built: Built, seconds: int) -> None:
    with Machine(MEMORY, firmware=built.rom(), nvram=policy_nvram(query_seconds=seconds)) as machine:
        reach(machine, built, "decision.wait")
        asked = machine.cycles
        reach(machine, built, "decision.no_answer")
        waited = (machine.cycles - asked) / machine.board.clock.hz
        assert seconds <= waited < seconds + 0.1
        machine.run(seconds=1)
        wanted = f"{seconds} seconds, then yes\r\ndecision  Service OS: no answer\r\n"
        assert QUERY.decode() + wanted in console(machine)
        assert SERVICE_SAYS in console(machine)


@pytest.mark.parametrize(("key", "says"), [("y", SERVICE_SAYS), ("Y", SERVICE_SAYS), ("n", NATIVE_SAYS)])
@pytest.mark.parametrize("way", ["serial", "keyboard"])
def test_decision_306_by_the_user(built: Built, key: str, says: str, way: str) -> None:
    def typed(machine: Machine) -> None:
        if way == "serial":
            machine.serial.send(f"?{key}".encode())  # what is no answer is passed over
        else:
            machine.keyboard.type(f"q{key}")

    with boot(built, typed) as machine:
        assert says in console(machine)
        assert ("the user says so" if key == "n" else "Service OS, as the user says") in console(machine)
        assert machine.cycles < 3 * machine.board.clock.hz  # the query alone would take as long


def test_decision_306_is_shown_on_the_display(built: Built) -> None:
    with boot(built, lambda machine: machine.keyboard.type("n")) as machine:
        shown = machine.screen.text
        assert "decision  Service OS? Y: yes, N: native boot" in shown
        assert "boot      the guest runs on the bare machine: the user says so" in shown


def test_decision_306_can_wait_for_ever(built: Built) -> None:
    with Machine(MEMORY, firmware=built.rom(), nvram=policy_nvram(query_seconds=0)) as machine:
        assert machine.run(seconds=20).reason is StopReason.LIMIT
        assert console(machine).endswith("S: set-up screen; waiting\r\n")
        machine.serial.send(b"n")
        assert machine.run(seconds=5).reason is StopReason.POWERED_OFF
        assert NATIVE_SAYS in console(machine)


@pytest.mark.parametrize(("stored", "says"), [("service", SERVICE_SAYS), ("native", NATIVE_SAYS)])
def test_decision_306_by_the_stored_policy(built: Built, stored: str, says: str) -> None:
    with boot(built, boot=stored) as machine:
        assert says in console(machine) and "Service OS?" not in console(machine)
        assert machine.cycles < 3 * machine.board.clock.hz  # the query alone would take as long


@pytest.mark.parametrize("way", ["serial", "keyboard"])
@pytest.mark.parametrize("stored", ["service", "native"])
def test_an_s_opens_the_setup_screen_whatever_is_stored(built: Built, stored: str, way: str) -> None:
    def typed(machine: Machine) -> None:
        if way == "serial":
            machine.serial.send(b"s")
        else:
            machine.keyboard.type("s", machine.cycles + machine.board.clock.hz // 10)

    with boot(built, typed, "decision.say", boot=stored) as machine:
        assert console(machine).endswith("set-up> ")


def test_native_307_leaves_nothing_of_the_vmm(built: Built) -> None:
    """The guest finds the machine as one without VT-x has it: memory map, control registers; no trace of the VMM."""
    guest = asm.assemble(MAP_GUEST).binary
    rom = flash(built.rom()[-0x20000:], {**files_of(built.rom()), "guest": guest})
    seen = {}
    for cpu in ("westmere", "nehalem", "prescott", "pentium3"):
        with Machine(MEMORY, cpu, firmware=rom, nvram=policy_nvram(boot="native")) as machine:
            machine.run(seconds=2)
            assert machine.cpu.halted
            lines = console(machine).splitlines()
            seen[cpu] = lines[-1]
            assert lines[-1].endswith(".")
            assert not any(machine.memory.read(2 << 20, MEMORY - ACPI_BYTES - RUNTIME_BYTES - (2 << 20)))
            if cpu != "pentium3":
                assert "VMM       unloaded, VMX off" in lines
    words = seen["pentium3"].split()
    assert f"{MEMORY - (1 << 20) - ACPI_BYTES - RUNTIME_BYTES:08X}" in words  # all memory above 1 MiB is the guest's
    for cpu in ("westmere", "nehalem", "prescott"):
        assert seen[cpu] == seen["pentium3"]


def test_native_307_boots_the_guest_of_the_policy(built: Built) -> None:
    """With VT-x and without."""
    rom = built.rom()
    files = files_of(rom)
    other = asm.assemble(MAP_GUEST).binary
    rom = flash(rom[-0x20000:], {**files, "hung": other})
    for cpu in ("westmere", "pentium3"):
        with Machine(MEMORY, cpu, firmware=rom, nvram=policy_nvram(boot="native", guests=["hung"])) as machine:
            machine.run(seconds=2)
            assert console(machine).splitlines()[-1].endswith(".")


def test_native_307_can_enter_vmx_operation_again(built: Built, tmp_path: Path) -> None:
    guest = asm.assemble(
        """
        bits 16
        org 0
        mov     eax, 2000h
        mov     cr4, eax
        mov     eax, cr0
        or      eax, 20h
        mov     cr0, eax
        mov     ecx, 480h
        rdmsr
        and     eax, 7FFFFFFFh
        xor     bx, bx
        mov     ds, bx
        mov     [8000h], eax
        mov     dword [7000h], 8000h
        mov     dword [7004h], 0
        lgdt    [cs:pointer]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        db      0F3h, 0Fh, 0C7h, 36h
        dw      7000h
        setbe   dl
        hlt
pointer: dw 0
        dd 0
"""
    ).binary
    rom = flash(built.rom()[-0x20000:], {**files_of(built.rom()), "guest": guest})
    with Machine(MEMORY, firmware=rom, nvram=policy_nvram(boot="native")) as machine:
        machine.run(seconds=2)
        assert machine.cpu.edx & 0xFF == 0


# --- the set-up screen ----------------------------------------------------------------------------------------------


def setup(machine: Machine, *lines: str) -> list[str]:
    """Types lines at the set-up screen's prompt; returns what it answers to each."""
    answers = []
    for line in lines:
        machine.serial.send(line.encode() + b"\r")
        answers.append(machine.serial.expect(b"set-up> ").decode().removesuffix("set-up> ").removeprefix(f"{line}\r\n"))
    return answers


def at_setup(built: Built, **policy: Any) -> Machine:
    machine = Machine(MEMORY, firmware=built.rom(), nvram=policy_nvram(**policy))
    reach(machine, built, "decision.wait")
    machine.serial.send(b"s")
    machine.serial.expect(b"set-up> ")
    return machine


GOOD = {
    "boot": ("native", "native"),
    "query_seconds": ("60", 60),
    "source": ("hpa", "hpa"),
    "time": ("RUNS", "runs"),
    "after": ("restart", "restart"),
    "crash_limit": ("255", 255),
    "poll_us": ("60000000", 60_000_000),
    "polls": ("255", 255),
    "idle_bytes": ("4096", 4096),
    "hotkey": ("0x57", 0x57),
    "hotkey_serial": ("1f", 0x1F),
    "flags": ("shell bmc", ["bmc", "shell"]),
    "exceptions": ("0 13 31", [0, 13, 31]),
    "vectors": ("10h 255", [0x10, 0xFF]),
    "guests": ("healthy hung writer", ["healthy", "hung", "writer"]),
    "ports": ("0 0 3F8h 0xffff", [(0, 0), (0x3F8, 0xFFFF)]),
    "regions": ("3 rx 1000 2fff 1 w 0x400000 400FFFH", [(3, "rx", 0x1000, 0x2FFF), (1, "w", 0x400000, 0x400FFF)]),
}
BAD = {
    "boot": ["3", "never", "", "ask service"],
    "query_seconds": ["61", "256", "-1", "1 2", "0x", "h"],
    "source": ["3", "floppy"],
    "time": ["2"],
    "after": ["4"],
    "crash_limit": ["256", "4294967296"],
    "poll_us": ["60000001", "4294967297", "1s"],
    "polls": ["0", "256"],
    "idle_bytes": ["0", "4097", "65536"],
    "hotkey": ["59h", "100h"],
    "hotkey_serial": ["20h"],
    "flags": ["loud", "16", "remote loud", "none loud", ""],
    "exceptions": ["32", "8 x"],
    "vectors": ["0Fh", "256", "32 33 34"],
    "guests": ["", "none", "nobody", "11", "hung hung hung hung"],
    "ports": ["1", "2 1", "0 10000h", "1 2 3", "1 1 2 2 3 3 4 4 5 5"],
    "regions": ["1 w 0", "4 w 0 fff", "1 z 0 fff", "1 w 1 fff", "1 w 0 1000", "1 8 0 fff", "1 w 1000 fff",
                "r w 0 fff", "1 w 0 fff " * 4 + "1 w 0 fff"],
}  # fmt: skip


def test_setup_sets_and_stores_every_field(built: Built) -> None:
    with at_setup(built) as machine:
        for name, (typed, _) in GOOD.items():
            (answer,) = setup(machine, f"{name} {typed}")
            assert answer.startswith(name) and "may be" not in answer, answer
        machine.serial.send(b"save\r")
        machine.serial.expect(b"the policy is stored")
        stored = decode_policy(machine.board.rtc.nvram)
        assert stored == {name: value for name, (_, value) in GOOD.items()}


@pytest.mark.parametrize("name", BAD)
def test_setup_refuses_what_is_out_of_range_and_says_the_range(built: Built, name: str) -> None:
    assert BAD.keys() == GOOD.keys()
    with at_setup(built) as machine:
        before = setup(machine, "show")[0]
        lines = [line for line in before.splitlines() if line.endswith(")")]
        ranges = {line.split()[0]: line[line.rindex("(") + 1 : -1] for line in lines}
        for value in BAD[name]:
            (answer,) = setup(machine, f"{name} {value}")
            assert answer == f"{name} may be {ranges[name]}\r\n"
        assert setup(machine, "show")[0] == before


def test_setup_default_and_quit(built: Built) -> None:
    with at_setup(built, polls=7) as machine:
        assert "polls           7 " in setup(machine, "show")[0]
        assert "polls           1 " in setup(machine, "default")[0]
        assert "no such field or command" in setup(machine, "polling 3")[0]
        assert setup(machine, "")[0] == ""
        machine.serial.send(b"quit\r")
        machine.serial.expect(b"nothing is stored")
        machine.serial.expect(QUERY)  # and asks again
        assert decode_policy(machine.board.rtc.nvram)["polls"] == 7


def test_setup_on_keyboard_and_display(built: Built) -> None:
    with Machine(MEMORY, firmware=built.rom(), nvram=policy_nvram()) as machine:
        reach(machine, built, "decision.wait")
        machine.keyboard.type("S")
        machine.serial.expect(b"set-up> ")
        machine.keyboard.type("poll_us 250x\b00\nhotkey_serial 1Dh\nboot native\nsave\n")
        machine.serial.expect(b"the policy is stored", seconds=20)
        assert "poll_us         25000  (0 to 60000000: microseconds" in machine.screen.text
        stored = decode_policy(machine.board.rtc.nvram)
        assert (stored["poll_us"], stored["boot"]) == (25000, "native")
        assert machine.run(seconds=5).reason is StopReason.POWERED_OFF
        assert NATIVE_SAYS in console(machine)


def test_setup_of_a_bad_policy_begins_with_the_default(built: Built) -> None:
    nvram = policy_nvram(checked=False, polls=0)
    with Machine(MEMORY, firmware=built.rom(), nvram=nvram) as machine:
        reach(machine, built, "decision.wait")
        machine.serial.send(b"ssave\r")
        machine.serial.expect(b"the policy is stored")
        assert "polls may be 1 to 255: so many without progress are a hang; the default holds" in console(machine)
        assert decode_policy(machine.board.rtc.nvram) == decode_policy(policy_nvram())


def test_setup_takes_only_what_fits_a_line(built: Built) -> None:
    with at_setup(built) as machine:
        assert "no such field" in setup(machine, "x" * 78)[0]
        machine.serial.send(b"y" * 200 + b"\r")
        answer = machine.serial.expect(b"set-up> ").decode()
        assert answer.startswith("y" * 78 + "\r\nno such field")
        assert "polls           9 " in setup(machine, "polls 9")[0]
