"""The VMM without VT-x: VMs in ring 3 on a Pentium III, as docs/software-vmm.md has it. What they find is compared with
the bare machine and with VT-x; SDM Vol. 3, "Protection", "Interrupt and Exception Handling".
"""

import hashlib
from pathlib import Path

import pytest

from emu import Machine, StopReason
from emu.builtin.policy import policy_nvram

from .conftest import Built
from .test_shadow import GUEST_SOURCE, run_guest
from .vmm import BOOT, CALL, GUEST, MEMORY_OF_VMM, POWER_OFF, SERVICE, TRAP, SoftwareVmm, rom_with_guest

MEMORY = MEMORY_OF_VMM
CPU = "pentium3"
SEGMENTS = Path(__file__).with_name("segments_guest.asm")


def booted(**policy: object) -> Machine:
    """A machine that boots the Service VM by its policy."""
    return Machine(MEMORY, CPU, nvram=policy_nvram(**{"boot": "service", **policy}))


def told(built: Built, tmp_path: Path, cpu: str, boot: str) -> str:
    """What the guest of segments_guest.asm prints."""
    source = tmp_path / "guest.asm"
    source.write_text(GUEST_SOURCE + SEGMENTS.read_text())
    rom = rom_with_guest(built.rom(), built.folder, source)
    with Machine(MEMORY, cpu, firmware=rom, nvram=policy_nvram(boot=boot, flags=[])) as machine:
        assert machine.run(seconds=20).reason is StopReason.POWERED_OFF
        console = machine.serial.output.decode()
    begin = console.rindex("11223344 11223344 87654321")
    return console[begin : console.index(".", begin)]


def test_segments_transfers_and_privileged_instructions(built: Built, tmp_path: Path) -> None:
    """The same by software, on the bare machine, and with VT-x."""
    bare = told(built, tmp_path, CPU, "native")
    assert bare.count("G") == 13 and bare.endswith("0000EC00 ")
    assert told(built, tmp_path, CPU, "service") == bare
    assert told(built, tmp_path, "prescott", "service") == bare


def test_the_vms_run_in_ring_3() -> None:
    """The guest's own instruction, at the place where it is trapped, and the VMM behind it."""
    with booted() as machine:
        assert machine.run(seconds=5, until=machine.symbols["guest_guest_write_protected"]).reason is (
            StopReason.BREAKPOINT
        )
        assert machine.cpu.cpl == 3 and machine.cpu.vmx_operation == "off"
        machine.run(instructions=2)
        assert machine.cpu.cpl == 0 and machine.cpu.eip >= 0xC0000000


def test_the_record_of_switches_is_the_log(built: Built) -> None:
    with booted() as machine:
        assert machine.run(seconds=20).reason is StopReason.POWERED_OFF
        switches, costs = machine.switches, list(machine.vm_log.costs)
        record = SoftwareVmm(machine, built.folder).switches()
    assert [(one.source, one.target, one.reason) for one in record] == [
        (-1, SERVICE, BOOT), (SERVICE, GUEST, CALL), (GUEST, SERVICE, TRAP), (SERVICE, GUEST, CALL),
        (GUEST, SERVICE, POWER_OFF),
    ]  # fmt: skip
    assert [(one["from"], one["to"], one["reason"]) for one in switches] == [
        ("Service VM", "Guest VM", "VMCALL"), ("Guest VM", "Service VM", "EXCEPTION_OR_NMI"),
        ("Service VM", "Guest VM", "VMCALL"), ("Guest VM", "Service VM", "IO_INSTRUCTION"),
    ]  # fmt: skip
    assert [one["cycle"] for one in switches] == [one.tsc for one in record[1:]]
    assert len(costs) == 4 and all(1000 < cost < 20_000 for cost in costs)


def test_the_log_begins_again_with_a_reset() -> None:
    """Two boots in one run: the time-stamp counter begins at 0 again, the log's cycles do not."""
    with booted() as machine:
        machine.run(seconds=20)
        first = [one["cycle"] for one in machine.switches]
        machine.reset()
        start = machine.cycles
        machine.run(seconds=20)
        second = [one["cycle"] for one in machine.switches][len(first) :]
    assert len(second) == len(first) == 4
    assert start < second[0] < second[-1] < machine.cycles


def test_a_trap_disturbs_nothing(built: Built) -> None:
    """All that the guest can see, at its instruction before it is trapped and when it goes on."""
    with booted() as machine:
        at = machine.symbols["guest_guest_write_protected"]
        assert machine.run(seconds=5, until=at).reason is StopReason.BREAKPOINT
        vmm = SoftwareVmm(machine, built.folder)
        before = vmm.guest_view()
        switches = machine.vm_log.count
        machine.run(instructions=1)
        assert machine.run(seconds=5, until=at).reason is StopReason.BREAKPOINT  # it is done anew
        after = vmm.guest_view()
        assert machine.vm_log.count == switches + 2
    assert before == after


def test_the_same_run_takes_the_same_cycles() -> None:
    seen = []
    for _ in range(2):
        with booted(guests=["healthy", "writer"], poll_us=20_000, polls=20, after="resume") as machine:
            machine.run(seconds=20)
            memory = hashlib.sha256(machine.memory.read(0, MEMORY)).hexdigest()
            seen.append((machine.cycles, machine.switches, list(machine.vm_log.costs), memory))
    assert seen[0] == seen[1] and seen[0][1]


def test_the_native_boot_is_still_there() -> None:
    with booted(boot="native") as machine:
        assert machine.run(seconds=20).reason is StopReason.POWERED_OFF
        console = machine.serial.output.decode()
        assert machine.switches == []
    assert "VMM       unloaded\r\n" in console and "guest     started on the bare machine" in console
    assert "guest     ends well" in console


def test_a_corrupt_vmm_is_reported(built: Built) -> None:
    rom = bytearray(built.rom())
    at = rom.index(b"VMM       no VT-x: VMs")
    rom[at] ^= 1
    with Machine(MEMORY, CPU, firmware=bytes(rom)) as machine:
        machine.run(seconds=5)
        console = machine.serial.output.decode()
    assert "bare machine: its checksum is wrong" in console and "guest     ends well" in console


CATCH = """
        lgdt    [big_gdt_pointer]
        lidt    [catch_idt_pointer]
        jmp     tricks
caught: mov     ax, SELECTOR_DATA32
        mov     ds, ax
        mov     es, ax
        inc     dword [refused]
        add     esp, 4
        mov     eax, [resume]
        mov     [esp], eax
        mov     dword [esp + 4], SELECTOR_CODE32
        iretd
undefined:
        push    0
        jmp     caught
%macro refuse 1+
        mov     dword [resume], %%next
        inc     dword [attempts]
        %1
%%next:
%endmacro
%macro catch_gate 1
        dw      %1 - IMAGE_BASE + (IMAGE_BASE & 0FFFFh), SELECTOR_CODE32, INTERRUPT_GATE, IMAGE_BASE >> 16
%endmacro
        align 8
catch_idt:
        times 6 dq 0
        catch_gate undefined
        times 3 dq 0
        catch_gate caught
        catch_gate caught
        catch_gate caught
        catch_gate caught
        catch_gate caught
catch_idt_pointer:
        dw      $ - catch_idt - 1
        dd      catch_idt
big_gdt_pointer:                                ; the image's three, and whatever lies behind them up to 64 KiB
        dw      0FFFFh
        dd      big_gdt
        align 8
big_gdt:
        dq      0
        dq      DESCRIPTOR_CODE32
        dq      DESCRIPTOR_DATA32
        dq      0000EC0000080000h               ; 18h: a call gate
        dq      00CF9A000000FFFFh               ; 20h
resume: dd      0
attempts: dd    0
refused: dd     0
told:   mov     eax, [attempts]
        sub     eax, [refused]
        mov     al, al
        call    console_hex
        mov     al, "."
        call    console_byte
        jmp     acpi_power_off
"""


def test_a_guest_gets_no_ring_0_and_none_of_the_vmm_s_memory(built: Built, tmp_path: Path) -> None:
    """Selectors of the VMM, gates, tables longer than there is room, ports, MSRs: each is refused."""
    body = CATCH + """
tricks:
        mov     edi, big_gdt + 0FE8h            ; the VMM's selectors are the guest's own here, as it believes
        mov     ecx, 40h
.fill:  mov     dword [edi], 0000FFFFh
        mov     dword [edi + 4], 00CF9A00h
        add     edi, 8
        loop    .fill
        refuse  jmp 0FE8h:told
        refuse  call 0FE8h:told
        refuse  jmp 0FF8h:0
        refuse  jmp 18h:0
        refuse  call 18h:0
        mov     eax, 0FF0h
        refuse  mov ds, ax
        refuse  mov ss, ax
        mov     eax, 1000h
        refuse  mov gs, ax
        refuse  ltr ax
        refuse  lldt ax
        push    0FE8h
        push    told
        refuse  retf
        add     esp, 8
        pushfd
        push    0FE8h
        push    told
        refuse  iretd
        add     esp, 12
        mov     ecx, 174h                       ; SYSENTER to selectors beyond the table
        mov     eax, 0FFF0h
        xor     edx, edx
        wrmsr
        refuse  sysenter
        refuse  sysexit
        mov     eax, 0C0000000h                 ; a breakpoint on the VMM's memory
        mov     dr0, eax
        mov     dr1, eax
        mov     eax, 0C0024000h - 4
        mov     dr2, eax
        mov     eax, 0C002F000h
        mov     dr3, eax
        mov     eax, 0FFFF07FFh
        mov     dr7, eax
        cli
        mov     eax, 400h
        mov     dr7, eax
        pushfd                                  ; IOPL, virtual-8086 mode
        or      dword [esp], 3000h | 1 << 17
        popfd
        cli
        jmp     told
"""
    console = run_guest(built, tmp_path, CPU, body)
    assert "00000000." in console and "FAILED" not in console and "service   VM 1 turned itself off" in console


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("mov eax, [0C0000000h]", "reached outside its memory"),
        ("mov dword [0C0030000h], 0", "reached outside its memory"),
        ("mov dword [0C002F008h], -1", "reached outside its memory"),
        ("jmp 0C0000000h", "reached outside its memory"),
        ("pushfd\n or dword [esp], 4000h\n popfd\n iretd", "did what the VMM does not know"),
        ("push 20000h\n push 8\n push 0\n iretd", "did what the VMM does not know"),
        ("mov esp, 0C0024000h\n push eax", "reached outside its memory"),
    ],
)
def test_what_stops_a_guest_stops_it_alone(built: Built, tmp_path: Path, body: str, kind: str) -> None:
    console = run_guest(built, tmp_path, CPU, f"        {body}\n        jmp acpi_power_off\n")
    assert f"service   VM 1 {kind}" in console
    assert "VMM       the Service VM is off: power off" in console
