"""What becomes of a guest after an event: restarted alone, stopped, let go on; and several that wait at once."""

import hashlib

import pytest

from .conftest import Built
from .events import (
    ALLOW,
    IDT,
    NO_GUEST,
    POWER_OFF,
    RESTART,
    STOP,
    TRAP_MEMORY,
    TRIPLE_FAULT,
    console_of,
    events_of,
    running,
    statuses_of,
)  # fmt: skip
from .vmm import Vmm

FAULT = "lidt [nothing]\n ud2\nnothing: dw 0\n dd 0"
MARKS = 0x380000  # in a guest's memory: what a life of it leaves behind

# Says what it finds of an earlier life, leaves marks wherever it can, and dies.
DIRTY = (
    """
        mov     eax, [380000h]
        mov     esi, memory
        call    tell
        mov     eax, cr2
        mov     esi, control
        call    tell
        in      al, PORT_PIC1_DATA
        movzx   eax, al
        mov     esi, mask
        call    tell
        fnstcw  [380010h]
        movzx   eax, word [380010h]
        mov     esi, fpu
        call    tell
        movzx   eax, byte [own]
        mov     esi, image_text
        call    tell
        rdtsc
        mov     eax, edx
        mov     esi, time
        call    tell
        fldcw   [other]
        mov     byte [own], 99
        mov     dword [380000h], 12345678h
        mov     eax, 77777777h
        mov     cr2, eax
        mov     al, 0
        out     PORT_PIC1_DATA, al
        mov     al, 77h
        out     80h, al
        lidt    [nothing]
        ud2
nothing: dw     0
        dd      0
other:  dw      0F7Fh
own:    db      1
memory: db      "memory ", 0
control: db     "CR2 ", 0
mask:   db      "mask ", 0
fpu:    db      "FPU ", 0
image_text: db  "image ", 0
time:   db      "time ", 0
"""
    + IDT
)
FRESH = ["memory 00000000", "CR2 00000000", "mask 000000FF", "FPU 0000037F", "image 00000001", "time 00000000"]


@pytest.mark.parametrize("cpu", ["westmere", "nehalem", "prescott"])
def test_a_restarted_guest_finds_nothing_of_its_earlier_life(built: Built, cpu: str) -> None:
    """Memory, CR2, interrupt controllers, FPU, image, time-stamp counter."""
    with running(built, DIRTY, [RESTART, RESTART, STOP], cpu=cpu, exceptions=[]) as (machine, _):
        console = console_of(machine)
    assert [event.kind for event in events_of(console)] == [TRIPLE_FAULT] * 3 + [NO_GUEST]
    assert statuses_of(console) == [0, 0, 0]
    for line in FRESH:
        assert console.count(line) == 3, line


def test_the_service_vm_s_fpu_survives_a_restart(built: Built) -> None:
    start = "fldcw [control_word]"
    look = """
        fstcw   [found]
        fstsw   [found + 2]
        mov     esi, text_fpu
        call    console_text
        mov     eax, [found]
        call    console_hex
        call    console_newline
"""
    data = 'control_word: dw 0B7Fh\nalign 4\nfound: dd 0\ntext_fpu: db "fpu ", 0'
    with running(built, FAULT, [RESTART, RESTART, STOP], start=start, look=look, data=data, exceptions=[]) as (
        machine,
        _,
    ):
        console = console_of(machine)
    assert console.count("fpu 00000B7F") == 3


IDLE = (
    """
        lidt    [idt_pointer]
        mov     eax, 20h
        mov     ebx, timer
        call    gate
        mov     al, 0FEh
        call    pics
        mov     eax, 1193
        call    rate
        sti
again:  hlt
        jmp     again
timer:  push    eax
        inc     dword [ticks]
        mov     al, OCW2_EOI
        out     PORT_PIC1_COMMAND, al
        pop     eax
        iret
ticks:  dd      0
"""
    + IDT
)


def state_of(vmm: Vmm, number: int) -> str:
    """A hash of a VM's block (without what the VMM knows of it), its memory and its copy of the firmware."""
    base, size = vmm.guest_memory(number)
    seen = hashlib.sha256(vmm.vm(number, "gpr", 32))
    first, end = vmm.symbols["vm.devices"], vmm.symbols["vm_size"]
    seen.update(vmm.vm(number, "devices", end - first))
    seen.update(vmm.read("VMM_VMS", 4096, number * vmm.symbols["VM_SLOT"] + vmm.symbols["VM_SLOT_VMCS"]))
    seen.update(vmm.read("VMM_BIOS", 0x10000, number * 0x10000))
    seen.update(vmm.machine.memory.read(base, size))
    return seen.hexdigest()


def test_another_guest_is_untouched(built: Built) -> None:
    """VM 2 idles; VM 1 faults and is restarted: VM 2's memory, registers, devices and VMCS are the same afterwards."""
    with running(built, [f"mov ecx, 3000000\nwait1: loop wait1\n{FAULT}", IDLE], [RESTART] * 9, exceptions=[]) as (
        machine, vmm,
    ):  # fmt: skip
        for life in (1, 2):
            machine.run(seconds=5, until=vmm.symbols["events_hand"])
            before = state_of(vmm, 2)
            machine.run(seconds=5, until=vmm.symbols["vm_restart"])
            assert state_of(vmm, 2) == before
            machine.cpu.step()
            machine.run(seconds=5, until=vmm.symbols["time_thaw"])
            assert state_of(vmm, 2) == before
            machine.memory.write(vmm.guest_memory(2)[0] + MARKS, bytes([life]))
            assert state_of(vmm, 2) != before


def test_a_guest_that_is_stopped_never_runs_again(built: Built) -> None:
    with running(built, [FAULT, "mov ecx, 30000000\nmore: loop more"], [STOP, STOP], exceptions=[]) as (machine, _):
        console = console_of(machine)
    assert [(event.kind, event.vm) for event in events_of(console)] == [
        (TRIPLE_FAULT, 1),
        (POWER_OFF, 2),
        (NO_GUEST, 0),
    ]


def test_several_guests_wait_at_once(built: Built) -> None:
    """The Service VM leaves each as it stopped, and lets them go on later in another order."""
    look = """
        inc     dword [seen]
        cmp     dword [seen], 3
        jb      next
        ja      stop_it
        mov     ebx, 3
one:    mov     eax, VMCALL_CONTINUE
        mov     ecx, ACTION_ALLOW
        push    ebx
        vmcall
        mov     esi, text_status
        push    eax
        call    console_text
        pop     eax
        call    console_hex
        call    console_newline
        pop     ebx
        dec     ebx
        jnz     one
        jmp     next
stop_it:
"""
    code = "mov dword [300000h], 5\n mov eax, [300000h]\n mov esi, name\n call tell\n jmp acpi_power_off\n"
    code += 'name: db "wrote ", 0\n' + IDT
    regions = [(vm, "w", 0x300000, 0x300FFF) for vm in (1, 2, 3)]
    with running(built, [code] * 3, look=look, data="align 4\nseen: dd 0", regions=regions, memory=64 << 20) as (
        machine, _,
    ):  # fmt: skip
        console = console_of(machine)
    events = events_of(console)
    assert [(event.kind, event.vm) for event in events[:3]] == [(TRAP_MEMORY, 1), (TRAP_MEMORY, 2), (TRAP_MEMORY, 3)]
    assert sorted(event.vm for event in events if event.kind == POWER_OFF) == [1, 2, 3]
    assert statuses_of(console)[:3] == [0, 0, 0] and console.count("wrote 00000005") == 3


def test_allow_goes_on_where_it_was(built: Built) -> None:
    with running(built, "mov dword [300000h], 5", [ALLOW], regions=[(1, "w", 0x300000, 0x300FFF)]) as (machine, _):
        console = console_of(machine)
    assert [event.kind for event in events_of(console)] == [TRAP_MEMORY, POWER_OFF, NO_GUEST]
