"""Instructions that the VMM carries out for a guest go by the guest's page tables and the policy's rights, as those
that the processor carries out; and what a processor has only once is each guest's own."""

import re

import pytest

from .conftest import Built
from .events import ALLOW, IDT, NO_GUEST, POWER_OFF, TRAP_MEMORY, TRAP_OUTSIDE, console_of, events_of, running

PAGES = (0x300000, 0x303FFF)
VMM_MEMORY = 0x1C00000  # of a machine of 32 MiB
OFF = "jmp acpi_power_off\n"

# What is trapped, the code, and where the events must be: one for each access, none is missed behind it.
ACCESSES = {
    "INS, each element": ("w", "mov edi, 300000h\n mov ecx, 3\n mov dx, 300h\n rep insb", [0, 1, 2]),
    "INS, over two pages": ("w", "mov edi, 300FFEh\n mov dx, 300h\n insd", [0xFFE, 0x1000]),
    "OUTS": ("r", "mov esi, 300010h\n mov dx, 80h\n outsb", [0x10]),
    "code that is emulated": (
        "x",
        "mov dword [300000h], 0C380E690h\n mov eax, 300000h\n call eax",  # NOP; OUT 80h, AL; RET
        [0, 1, 3],
    ),
}


@pytest.mark.parametrize("cpu", ["westmere", "prescott"])
@pytest.mark.parametrize("what", ACCESSES)
def test_each_access_to_a_protected_page_is_an_event(built: Built, what: str, cpu: str) -> None:
    """And the page is shut again behind the instruction: the next one that touches it is an event, too."""
    trapped, code, places = ACCESSES[what]
    after = {"w": "mov byte [300800h], 1", "r": "mov al, [300800h]", "x": "mov byte [300800h], 0C3h\n call [there]"}
    code = f"{code}\n{after[trapped]}\n{OFF}there: dd 300800h\n"
    with running(built, code, [ALLOW] * 9, cpu=cpu, regions=[(1, trapped, *PAGES)]) as (machine, _):
        events = events_of(console_of(machine))
    assert [event.address - PAGES[0] for event in events if event.kind == TRAP_MEMORY] == [*places, 0x800]
    assert [event.kind for event in events[len(places) + 1 :]] == [POWER_OFF, NO_GUEST]


# Paging: linear 400000h on is empty but for pages that a test maps; the rest maps to itself.
PAGING = (
    """
        lidt    [idt_pointer]
        mov     eax, VECTOR_PF
        mov     ebx, fault
        call    gate
        mov     edi, 8000h                      ; PAE: pointers, directory, table; else directory, table
        mov     ecx, 4 * 1000h / 4
        xor     eax, eax
        rep     stosd
%if {pae}
        mov     dword [8000h], 9000h | PAGE_P
        mov     dword [9000h], PAGE_P | PAGE_RW | PAGE_PS
        mov     dword [9008h], 200000h | PAGE_P | PAGE_RW | PAGE_PS
        mov     dword [9010h], 0A000h | PAGE_P | PAGE_RW
        mov     dword [0A008h], 345000h | PAGE_P | PAGE_RW
        mov     dword [0A010h], 346000h | PAGE_P
        mov     dword [0A018h], {outside} | PAGE_P | PAGE_RW
        mov     eax, CR4_PAE
%else
        mov     dword [8000h], PAGE_P | PAGE_RW | PAGE_PS
        mov     dword [8004h], 0A000h | PAGE_P | PAGE_RW
        mov     dword [0A004h], 345000h | PAGE_P | PAGE_RW
        mov     dword [0A008h], 346000h | PAGE_P
        mov     dword [0A00Ch], {outside} | PAGE_P | PAGE_RW
        mov     eax, CR4_PSE
%endif
        mov     cr4, eax
        mov     eax, 8000h
        mov     cr3, eax
        mov     eax, cr0
        or      eax, CR0_PG | CR0_WP | CR0_NE   ; NE as well: the VMM sees it
        mov     cr0, eax
        mov     dx, 300h
        mov     edi, 401123h
        insb
        movzx   eax, byte [345123h]
        mov     esi, name
        call    tell
        mov     edi, 402000h                    ; read-only
        mov     dword [next], first
        insb
first:  mov     edi, 404000h                    ; not present
        mov     dword [next], second
        insb
second: mov     esi, 403000h                    ; not the guest's
        mov     dx, 80h
        outsb
        jmp     acpi_power_off
fault:  pop     eax
        mov     esi, name
        call    tell
        mov     eax, cr2
        mov     esi, name
        call    tell
        mov     eax, [next]
        mov     [esp], eax
        mov     dx, 300h
        iret
next:   dd      0
name:   db      "said ", 0
"""
    + IDT
)


@pytest.mark.parametrize(("cpu", "pae"), [("westmere", 0), ("westmere", 1), ("prescott", 0)])
def test_string_io_through_the_guest_s_page_tables(built: Built, cpu: str, pae: int) -> None:
    """Page faults with their error codes, and a page table that points at the VMM is a way nowhere."""
    code = PAGING.format(pae=pae, outside=VMM_MEMORY)
    with running(built, code, [ALLOW] * 4, cpu=cpu) as (machine, _):
        console = console_of(machine)
    said = [int(number, 16) for number in re.findall("said ([0-9A-F]{8})", console)]
    assert said == [0xFF, 3, 0x402000, 2, 0x404000]
    first = events_of(console)[0]
    assert (first.kind, first.address) == (TRAP_OUTSIDE, VMM_MEMORY)


REFUSED = {
    "PG without PE": "mov eax, cr0\n and eax, ~CR0_PE\n or eax, CR0_PG",
    "NW without CD": "mov eax, cr0\n and eax, ~CR0_CD\n or eax, CR0_NW",
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_cr0_that_cannot_be_is_refused(built: Built, what: str) -> None:
    """NE changes at once, which is the VMM's: it must not carry out what the processor would refuse."""
    code = (
        f"""
        lidt    [idt_pointer]
        mov     eax, VECTOR_GP
        mov     ebx, handler
        call    gate
        {REFUSED[what]}
        xor     eax, CR0_NE
        mov     cr0, eax
        jmp     acpi_power_off
handler:
        pop     eax
        mov     esi, name
        call    tell
        jmp     acpi_power_off
name:   db      "error code ", 0
"""
        + IDT
    )
    with running(built, code) as (machine, _):
        assert "error code 00000000" in console_of(machine)


def test_single_steps_through_what_the_vmm_carries_out(built: Built) -> None:
    """A debugger in the guest sees each instruction once, also those that exit."""
    code = (
        """
        lidt    [idt_pointer]
        mov     eax, VECTOR_DB
        mov     ebx, handler
        call    gate
        pushfd
        or      dword [esp], EFLAGS_TF
        popfd
        nop
        in      al, 80h
        out     80h, al
        cpuid
        nop
        pushfd
        and     dword [esp], ~EFLAGS_TF
        popfd
        mov     eax, [steps]
        mov     esi, name
        call    tell
        jmp     acpi_power_off
handler:
        inc     dword [steps]
        iret
steps:  dd      0
name:   db      "steps ", 0
"""
        + IDT
    )
    with running(built, code) as (machine, _):
        assert "steps 00000008" in console_of(machine)


# Sets breakpoints, works until the other has had its slices, and looks whether they are there and hit.
BREAKPOINTS = (
    """
        lidt    [idt_pointer]
        mov     eax, VECTOR_DB
        mov     ebx, handler
        call    gate
        mov     eax, {number} * 1000h
        mov     dr1, eax
        mov     eax, data
        mov     dr0, eax
        mov     eax, 0D0003h                    ; DR0: writes of four bytes
        mov     dr7, eax
        rdtsc
        mov     ebx, eax
spin:   in      al, 80h
        rdtsc
        sub     eax, ebx
        cmp     eax, 100000000
        jb      spin
        mov     dword [data], 1
        nop
        mov     eax, dr1
        add     eax, [hits]
        mov     esi, name
        call    tell
        jmp     acpi_power_off
handler:
        mov     eax, dr6
        and     eax, 0Fh
        add     [hits], eax
        iret
        align   4
data:   dd      0
hits:   dd      0
name:   db      "guest {number} ", 0
"""
    + IDT
)


def test_debug_registers_are_each_guest_s_own(built: Built) -> None:
    """Over exits, slices and the other guest's own."""
    with running(built, [BREAKPOINTS.format(number=number) for number in (1, 2)]) as (machine, _):
        console = console_of(machine)
    assert "00001001" in console and "00002001" in console


def test_a_guest_s_programs_have_no_calls(built: Built) -> None:
    """VMCALL at privilege level 3 is refused: a guest's kernel speaks for it."""
    code = (
        """
        lgdt    [table]
        mov     ax, 28h
        ltr     ax
        lidt    [idt_pointer]
        mov     eax, VECTOR_UD
        mov     ebx, back
        call    gate
        push    dword 23h
        push    dword 0E000h
        push    dword 2
        push    dword 1Bh
        push    dword user
        iretd
user:   mov     eax, VMCALL_VERSION
        mov     ebx, 77h
        vmcall
        ud2
back:   mov     cx, 10h
        mov     ds, cx
        mov     es, cx
        push    ebx
        mov     esi, name
        call    tell
        pop     eax
        mov     esi, name
        call    tell
        jmp     acpi_power_off
name:   db      "status ", 0
        align   8
gdt_:   dq      0, 00CF9B000000FFFFh, 00CF93000000FFFFh, 00CFFB000000FFFFh, 00CFF3000000FFFFh
        dw      67h, tss_ - 10000h, 8901h, 0
table:  dw      table - gdt_ - 1
        dd      gdt_
        align   4
tss_:   dd      0, 0F000h, 10h
        times   23 dd 0
"""
        + IDT
    )
    with running(built, code) as (machine, _):
        said = re.findall("status ([0-9A-F]{8})\r\n", console_of(machine))
    assert said[:2] == ["00000002", "00000077"]
