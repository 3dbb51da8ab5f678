"""The VMM, the Service VM and the guest on the machine: what each sees, and what nobody may disturb."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bios.build import HERE
from emu import Machine, StopReason
from emu.cli import main

from .conftest import MEMORY, SECONDS, Built, Story
from .vmm import GUEST, POWER_OFF, SERVICE, TRAP, Switch, Vmm, rom_with_guest

TIMING_SLACK = 20_000  # cycles between a VM entry and the entry's line in the VMM's record


def test_the_run_ends_well(story: Story) -> None:
    assert story.stop.reason is StopReason.POWERED_OFF
    assert "FAILED" not in story.console and "DISTURBED" not in story.console


def test_the_emulator_sees_the_same_switches(story: Story) -> None:
    """From the VMCS pointer at VM entries alone, against the record that the VMM keeps."""
    names = ["Service VM", "Guest VM"]
    assert list(story.vmm.names().values()) == names
    seen = story.machine.switches
    assert [(one["from"], one["to"]) for one in seen] == [
        (names[one.source], names[one.target]) for one in story.switches[1:]
    ]
    assert [one["reason"] for one in seen] == ["VMCALL", "EPT_VIOLATION", "VMCALL", "IO_INSTRUCTION"]
    for one, recorded in zip(seen, story.switches[1:], strict=True):
        assert 0 <= one["cycle"] - recorded.tsc < TIMING_SLACK
        assert one["qualification"] == recorded.qualification
    assert seen[1]["rip"] == story.switches[2].rip


def test_the_report_and_the_timeline(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report, timeline = tmp_path / "report.json", tmp_path / "timeline.json"
    assert main(["run", "--serial", "null", "--report", str(report), "--timeline", str(timeline)]) == 0
    facts = json.loads(report.read_text())
    assert [one["to"] for one in facts["vm_switches"]] == ["Guest VM", "Service VM", "Guest VM", "Service VM"]
    assert facts["vm_exits"]["EPT_VIOLATION"]["count"] == 1
    shown = capfd.readouterr().err
    assert "Guest VM -> Service VM" in shown and "EPT_VIOLATION" in shown and "A switch took" in shown
    events = json.loads(timeline.read_text())["traceEvents"]
    assert {"VMM", "Service VM", "Guest VM"} <= {one["args"].get("name") for one in events if one["ph"] == "M"}


def test_the_bmc_has_a_record_of_it(story: Story) -> None:
    records = [bytes(record.data) for record in story.machine.bmc.sel]
    assert [record[10] for record in records] == [0x20, 0x20]
    assert [tuple(record[13:16]) for record in records] == [(TRAP, GUEST, 48), (POWER_OFF, GUEST, 30)]
    assert "service   SEL record 1\r\n" in story.console and "service   SEL record 2\r\n" in story.console


def test_the_service_vm_reads_the_sensors(built: Built) -> None:
    with Machine(MEMORY, "westmere", firmware=built.rom()) as machine:
        sensor = machine.bmc.by_number[1]
        sensor.value += 3
        machine.run(seconds=SECONDS)
        assert f"CPU temperature   {sensor.raw} degrees C\r\n" in machine.serial.output.decode()


def test_time_stands_still_for_the_guest(story: Story) -> None:
    taken = re.search(r"the write took (\d+) counts", story.console)
    trap, back = story.switches[2], story.switches[3]
    assert taken and int(taken[1]) < (back.tsc - trap.tsc) / 10


def test_the_same_run_twice(built: Built, story: Story) -> None:
    with Machine(MEMORY, "westmere", firmware=built.rom()) as machine:
        again = Story(machine, built.folder)
        assert again.switches == story.switches
        assert again.machine.cycles == story.machine.cycles and again.console == story.console


PROLOGUE = """
%include "x86.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "image.inc"
%include "console.inc"
%include "acpi_off.inc"
main:
"""


def run_guest(built: Built, tmp_path: Path, code: str, seconds: float = SECONDS) -> str:
    """What the console has after a guest of these instructions, which ends by itself or is stopped."""
    source = tmp_path / "guest.asm"
    source.write_text(PROLOGUE + code + "\n        jmp acpi_power_off\n")
    with Machine(MEMORY, "westmere", firmware=rom_with_guest(built.rom(), built.folder, source)) as machine:
        stop = machine.run(seconds=seconds)
        console = machine.serial.output.decode(errors="replace")  # a guest may send what it likes
    assert stop.reason is StopReason.POWERED_OFF and "FAILED" not in console, console[-500:]
    return console.partition("2 virtual machines")[2]


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("the VMM's memory", f"mov dword [{MEMORY - 0x1000}], 1"),
        ("the Service VM's memory", f"mov eax, [{MEMORY - (5 << 20)}]"),
        ("the byte behind its share", f"mov al, [{8 << 20}]"),
        ("where a display has its planes", "mov byte [0A0000h], 'x'"),
        ("its firmware", "mov byte [0F0000h], 0"),
        ("far above", "mov dword [0FFFFFFF0h], 1"),
    ],
)
def test_a_guest_that_reaches_outside_its_share_is_stopped(built: Built, tmp_path: Path, what: str, code: str) -> None:
    assert "VM 1 reached outside its memory" in run_guest(built, tmp_path, code), what


def test_the_guest_sees_its_own_memory_map(built: Built, tmp_path: Path) -> None:
    """INT 15h in real mode, before the image goes on to protected mode."""
    source = tmp_path / "guest.asm"
    text = (HERE / "include" / "image.inc").read_text()
    ask = """
        xor     ebx, ebx
        mov     di, 8000h
        mov     ax, 0
        mov     es, ax
ask_next:
        mov     eax, 0E820h
        mov     edx, 534D4150h
        mov     ecx, 20
        int     15h
        jc      ask_end
        add     di, 20
        test    ebx, ebx
        jnz     ask_next
ask_end:
        xor     ax, ax
        int     12h
        mov     [es:7FF0h], ax
        mov     ah, 88h
        int     15h
        mov     [es:7FF2h], ax
        mov     ax, 0E801h
        int     15h
        mov     [es:7FF4h], ax
        mov     [es:7FF6h], bx
        cli
"""
    (tmp_path / "asking.inc").write_text(text.replace("        cli\n        cld\n", ask + "        cld\n", 1))
    source.write_text(PROLOGUE.replace("image.inc", "asking.inc") + "        jmp acpi_power_off\n")
    program = rom_with_guest(built.rom(), built.folder, source)
    with Machine(MEMORY, "westmere", firmware=program) as machine:
        machine.run(seconds=SECONDS)
        vmm = Vmm(machine, built.folder)
        base, size = vmm.guest_memory()
        entries = [machine.memory.read(base + 0x8000 + 20 * n, 20) for n in range(4)]
        small = [int.from_bytes(machine.memory.read(base + 0x7FF0 + 2 * n, 2), "little") for n in range(4)]
    numbers = [(int.from_bytes(e[:8], "little"), int.from_bytes(e[8:16], "little"), e[16]) for e in entries]
    assert numbers == [
        (0, 0xA0000, 1), (1 << 20, size - (1 << 20) - 0x4000, 1), (size - 0x4000, 0x3000, 2), (size - 0x1000, 0x1000, 3)
    ]  # fmt: skip
    above = (size >> 10) - 1024 - 16
    assert small == [640, above, above, 0]


@pytest.mark.parametrize(
    ("code", "writes"),
    [
        ("mov eax, 200000h\n mov [eax], eax\n inc dword [eax]\n push dword [eax]", 2),
        ("mov edi, 200000h\n mov ecx, 3\n mov al, 1\n rep stosb", 3),
        ("mov edi, 200FFEh\n mov dword [edi], 7", 1),
        ("mov esp, 200800h\n call next\nnext: mov esp, 0F000h", 1),
    ],
)
def test_every_write_to_protected_memory_is_an_event(built: Built, tmp_path: Path, code: str, writes: int) -> None:
    console = run_guest(built, tmp_path, code)
    assert console.count("VM 1 wrote to protected memory") == writes
    assert "VM 1 turned itself off" in console


def test_an_interrupt_waits_for_the_write_that_is_let_through(built: Built, tmp_path: Path) -> None:
    """The timer is due while the Service VM prints; the write is trapped once, and then comes the interrupt."""
    console = run_guest(
        built, tmp_path,
        """
        mov     eax, timer
        mov     [idt + 8 * 20h], ax
        shr     eax, 16
        mov     [idt + 8 * 20h + 6], ax
        mov     dword [idt + 8 * 20h + 2], 8E000008h
        lidt    [pointer]
        mov     al, 11h
        out     20h, al
        mov     al, 20h
        out     21h, al
        mov     al, 4
        out     21h, al
        mov     al, 1
        out     21h, al
        mov     al, 0FEh
        out     21h, al
        mov     al, 34h
        out     43h, al
        mov     al, 10h
        out     40h, al
        mov     al, 0
        out     40h, al
        sti
        mov     ecx, 20000
again:  mov     [200000h], ecx
        dec     ecx
        cmp     ecx, 19990
        jne     again
        cli
        cmp     dword [ticks], 2
        jb      acpi_power_off
        mov     esi, text
        call    console_text
        jmp     acpi_power_off
timer:  push    eax
        inc     dword [ticks]
        mov     al, 20h
        out     20h, al
        pop     eax
        iret
pointer: dw     8 * 33 - 1
        dd      idt
        align   8
idt:    times 33 dq 0
ticks:  dd      0
text:   db      "ten writes and the timer", 13, 10, 0
""",
        seconds=60,
    )  # fmt: skip
    assert console.count("VM 1 wrote to protected memory") == 10 and "ten writes and the timer" in console


@pytest.mark.parametrize("unmask_first", [True, False])
def test_the_timer_s_interrupt_comes_in_time(built: Built, tmp_path: Path, unmask_first: bool) -> None:
    """Whether the request is unmasked before the counter is loaded or after; 20 ticks of 1 ms take 20 ms."""
    mask = "mov al, 0FEh\n out 21h, al\n"
    console = run_guest(
        built, tmp_path,
        f"""
        mov     eax, timer
        mov     [idt + 8 * 20h], ax
        shr     eax, 16
        mov     [idt + 8 * 20h + 6], ax
        mov     dword [idt + 8 * 20h + 2], 8E000008h
        lidt    [pointer]
        mov     al, 11h
        out     20h, al
        mov     al, 20h
        out     21h, al
        mov     al, 4
        out     21h, al
        mov     al, 1
        out     21h, al
        mov     al, 0FFh
        out     21h, al
        {mask if unmask_first else ""}
        mov     al, 34h
        out     43h, al
        mov     al, 1193 & 0FFh
        out     40h, al
        mov     al, 1193 >> 8
        out     40h, al
        {"" if unmask_first else mask}
        rdtsc
        mov     ebx, eax
again:  sti
        hlt
        cli
        cmp     dword [ticks], 20
        jb      again
        rdtsc
        sub     eax, ebx
        mov     ecx, 2660               ; cycles a microsecond
        xor     edx, edx
        div     ecx
        push    eax
        mov     esi, text
        call    console_text
        pop     eax
        call    console_decimal
        call    console_newline
        jmp     acpi_power_off
timer:  push    eax
        inc     dword [ticks]
        mov     al, 20h
        out     20h, al
        pop     eax
        iret
pointer: dw     8 * 33 - 1
        dd      idt
        align   8
idt:    times 33 dq 0
ticks:  dd      0
text:   db      "microseconds ", 0
""",
    )  # fmt: skip
    taken = re.search(r"microseconds (\d+)", console)
    assert taken and 19_900 <= int(taken[1]) <= 20_100


def test_hlt_with_interrupts_off_is_an_event(built: Built, tmp_path: Path) -> None:
    assert "VM 1 halted with interrupts off" in run_guest(built, tmp_path, "cli\n hlt")


def test_a_triple_fault_stops_the_guest_alone(built: Built, tmp_path: Path) -> None:
    console = run_guest(built, tmp_path, "lidt [nothing]\n ud2\nnothing: dw 0\n dd 0")
    assert "VM 1 triple fault" in console and "no guest left: power off" in console


STATUS = """
        push    eax
        mov     esi, text
        call    console_text
        pop     eax
        call    console_hex
        call    console_newline
        jmp     acpi_power_off
text:   db      "status ", 0
"""


@pytest.mark.parametrize(
    ("call", "status"),
    [(0, 0), (1, 2), (2, 2), (3, 2), (4, 2), (5, 2), (17, 2), (18, 1), (0x12345678, 1), (0xFFFFFFFF, 1)],
)
def test_a_guest_s_calls(built: Built, tmp_path: Path, call: int, status: int) -> None:
    registers = "mov ebx, 0\n mov ecx, 0FFFFFFFFh\n mov esi, 0FFFFFFF0h\n mov edi, 0FFFFFFF0h\n"
    console = run_guest(built, tmp_path, f"{registers} mov eax, {call}\n vmcall\n{STATUS}")
    assert f"status {status:08X}" in console


SWEEP = """
        cli
        xor     edx, edx
sweep:  push    edx
        {code}
        pop     edx
        inc     dx
        jnz     sweep
        mov     esi, swept
        call    console_text
        jmp     acpi_power_off
swept:  db      "swept", 13, 10, 0
"""


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("ports read", "in eax, dx"),
        ("ports read by string", "mov edi, 8000h\n insd"),
        ("ports written", "mov al, 0\n out dx, al"),
        (
            "ports written with ones, but those that reset: 92h, CF9h",
            "lea eax, [edx - 8Fh]\n cmp eax, 3\n jbe .next\n lea eax, [edx - 0CF6h]\n cmp eax, 3\n jbe .next\n"
            "mov eax, -1\n out dx, eax\n.next:",
        ),
        ("CPUID", "mov eax, edx\n cpuid\n mov eax, [esp]\n or eax, 80000000h\n cpuid"),
        (
            "calls with buffers anywhere",
            "mov eax, edx\n mov esi, edx\n shl esi, 16\n mov edi, esi\n mov ebx, edx\n mov ecx, 1000h\n vmcall",
        ),
    ],
)
def test_the_service_vm_survives_a_guest_that_tries_everything(
    built: Built, tmp_path: Path, what: str, code: str
) -> None:
    """65536 of each. Whatever becomes of the guest, the Service VM has the last word."""
    console = run_guest(built, tmp_path, SWEEP.format(code=code))
    assert "service   SEL record 1" in console and "no guest left: power off" in console, what


@pytest.mark.parametrize("code", ["vmread eax, ebx", "vmxoff", "vmlaunch", "vmptrst [8000h]", "invept eax, [8000h]"])
def test_vmx_instructions_are_undefined_for_a_guest(built: Built, tmp_path: Path, code: str) -> None:
    console = run_guest(built, tmp_path, exception(6, code))
    assert "exception taken" in console


@pytest.mark.parametrize("code", ["mov ecx, 480h\n rdmsr", "mov ecx, 3Ah\n wrmsr", "mov eax, 2000h\n mov cr4, eax"])
def test_what_is_hidden_from_a_guest_faults(built: Built, tmp_path: Path, code: str) -> None:
    assert "exception taken" in run_guest(built, tmp_path, exception(13, code))


def exception(vector: int, code: str) -> str:
    """A guest that expects an exception of the code."""
    return f"""
        lidt    [pointer]
        mov     eax, handler
        mov     [idt + 8 * {vector}], ax
        shr     eax, 16
        mov     [idt + 8 * {vector} + 6], ax
        mov     dword [idt + 8 * {vector} + 2], 8E000008h
        {code}
        jmp     acpi_power_off
handler:
        mov     esi, text
        call    console_text
        jmp     acpi_power_off
pointer: dw     idt_end - idt - 1
        dd      idt
        align   8
idt:    times 32 dq 0
idt_end:
text:   db      "exception taken", 13, 10, 0
"""


def test_string_io(built: Built, tmp_path: Path) -> None:
    """OUTS with paging off and on, INS from a port where nobody answers."""
    console = run_guest(
        built, tmp_path,
        """
        mov     esi, text
        mov     ecx, text_end - text
        mov     edx, PORT_COM1
        rep outsb
        mov     edi, 8000h
        mov     dword [edi], 0
        mov     ecx, 3
        mov     edx, 300h
        rep insb
        cmp     edi, 8003h
        jne     acpi_power_off
        cmp     dword [8000h], 0FFFFFFh
        jne     acpi_power_off
        test    ecx, ecx
        jnz     acpi_power_off
        mov     esi, good
        call    console_text
        jmp     acpi_power_off
text:   db      "by string", 13, 10
text_end:
good:   db      "and back", 13, 10, 0
""",
    )  # fmt: skip
    assert "by string" in console and "and back" in console


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("the BMC", "mov dx, PORT_KCS_COMMAND\n in al, dx"),
        ("the disk", "mov dx, 1F7h\n in al, dx"),
        ("the policy", "mov al, 0\n out 72h, al\n in al, 73h"),
        ("a display's sequencer", "mov dx, 3C5h\n in al, dx"),
    ],
)
def test_what_is_not_the_guest_s_does_not_answer(built: Built, tmp_path: Path, what: str, code: str) -> None:
    console = run_guest(built, tmp_path, f"mov eax, 0FFFFFF00h\n{code}\n movsx eax, al\n{STATUS}")
    assert "status FFFFFFFF" in console, what


def test_the_guest_s_cmos_ram_has_its_memory_size(story: Story) -> None:
    cmos = story.vmm.vm(GUEST, "cmos", 128)
    assert int.from_bytes(cmos[0x30:0x32], "little") == (8 << 10) - 1024 and cmos[0x34:0x36] == b"\0\0"


UART_INTERRUPTS = """
        mov     eax, com1
        mov     [idt + 8 * 24h], ax
        shr     eax, 16
        mov     [idt + 8 * 24h + 6], ax
        mov     dword [idt + 8 * 24h + 2], 8E000008h
        lidt    [pointer]
        mov     al, 11h
        out     20h, al
        mov     al, 20h
        out     21h, al
        mov     al, 4
        out     21h, al
        mov     al, 1
        out     21h, al
        mov     al, 0EFh
        out     21h, al
        mov     dx, PORT_COM1 + UART_MCR
        mov     al, 0Bh
        out     dx, al
        mov     dx, PORT_COM1 + UART_IER
        mov     al, 3
        out     dx, al
again:  sti
        hlt
        cli
        cmp     byte [last], "!"
        jne     again
        jmp     acpi_power_off
com1:   pushad
        mov     dx, PORT_COM1 + UART_IIR
        in      al, dx
        and     al, 7
        cmp     al, 4
        je      received
        cmp     al, 2
        jne     done
        mov     esi, [next]
        lodsb
        test    al, al
        jz      done
        mov     [next], esi
        jmp     send
received:
        mov     dx, PORT_COM1 + UART_DATA
        in      al, dx
        mov     [last], al
send:   mov     dx, PORT_COM1 + UART_DATA
        out     dx, al
done:   mov     al, 20h
        out     20h, al
        popad
        iret
next:   dd      text
last:   db      0
text:   db      "sent by interrupts, one after the other", 13, 10, 0
pointer: dw     8 * 37 - 1
        dd      idt
        align   8
idt:    times 37 dq 0
"""


def test_a_guest_s_uart_works_by_interrupts(built: Built, tmp_path: Path) -> None:
    """Each byte as soon as the line is free, and what comes in at once: no look at the clock in between."""
    source = tmp_path / "guest.asm"
    source.write_text(PROLOGUE + UART_INTERRUPTS)
    with Machine(MEMORY, "westmere", firmware=rom_with_guest(built.rom(), built.folder, source)) as machine:
        while b"sent" not in machine.serial.output:
            assert machine.run(seconds=0.0005).reason is StopReason.LIMIT
        machine.run(seconds=0.005)  # 40 bytes at 115200 baud take 3.5 ms
        assert machine.serial.output.endswith(b"sent by interrupts, one after the other\r\n")
        machine.serial.send(b"abc")
        machine.run(seconds=0.002)
        assert machine.serial.output.endswith(b"\r\nabc")
        machine.serial.send(b"!")
        assert machine.run(seconds=SECONDS).reason is StopReason.POWERED_OFF
        assert b"\r\nabc!" in machine.serial.output


def test_each_vm_has_its_own_devices(story: Story) -> None:
    """Both programmed their interrupt controllers, each in its own way, and their timers, each at its own time."""
    assert story.vmm.vm(GUEST, "pic1", 4)[3] == 0x20 and story.vmm.vm(SERVICE, "pic1", 4)[3] == 0x30
    reload = story.vmm.symbols["pit.reload"]
    assert int.from_bytes(story.vmm.vm(GUEST, "pit", reload + 4)[reload:], "little") == 1193182 // 100
    start = story.vmm.symbols["pit.start"]
    assert story.vmm.vm(SERVICE, "pit", start + 8)[start:] != story.vmm.vm(GUEST, "pit", start + 8)[start:]


def test_record_entries_are_switches(story: Story) -> None:
    assert all(isinstance(one, Switch) and one.source != one.target for one in story.switches)


def told(console: str) -> list[str]:
    """What the Service VM and the guest say, without what depends on the machine's speed or its BMC."""
    lines = [line for line in console.splitlines() if line.startswith(("service", "guest", "VMM"))]
    lines = [re.sub(r"took \d+|flags [0-9A-F]+|at 0[0-9A-F]{7}$", "", line) for line in lines]
    return [line for line in lines if not re.search("BMC|SEL|sensor", line)]


@pytest.mark.skipif(shutil.which("bochs") is None, reason="bochs is not installed")
def test_another_processor_with_vt_x_runs_it_the_same(
    built: Built, story: Story, tmp_path: Path, run_bochs: Callable[[Path, bytes, str], str]
) -> None:
    """The same image on Bochs 2.7. It has no BMC, and the flags that it leaves in RF at an EPT violation differ."""
    settings = (
        "romimage: file=image.rom, address=0xfff00000\nvgaromimage: file=display.rom\nmegs: 32\n"
        "cpu: model=corei7_haswell_4770, ips=100000000, reset_on_triple_fault=0\nclock: sync=none\n"
        'display_library: rfb, options="timeout=0"\nsound: driver=dummy\nlog: log.txt\npanic: action=fatal\n'
        "com1: enabled=1, mode=file, dev=com1.txt\n"
    )
    run_bochs(tmp_path, built.rom(), settings)
    assert told((tmp_path / "com1.txt").read_text("latin-1")) == told(story.console)
