"""Trap events: each comes with what the policy names, and ALLOW lets the guest go on as if nothing had been there."""

import re

import pytest

from emu import Machine, StopReason

from .conftest import Built
from .events import (
    ALLOW,
    EXCEPTION,
    HALTED,
    IDT,
    INTERRUPT,
    NO_GUEST,
    PORT,
    POWER_OFF,
    RESTART,
    STOP,
    TRAP_MEMORY,
    TRAP_OUTSIDE,
    TRIPLE_FAULT,
    console_of,
    events_of,
    run_to_guest,
    running,
    statuses_of,
)  # fmt: skip
from .vmm import GUEST

PAGE = 0x300000
REGION = [(1, "w", PAGE, PAGE + 0xFFF)]
OK, BAD_VM, BAD_ACTION = 0, 3, 5
SAY = """
        mov     esi, text
        call    console_text
        jmp     acpi_power_off
text:   db      "guest went on", 13, 10, 0
"""


def kinds(console: str) -> list[int]:
    return [event.kind for event in events_of(console)]


def run_until(machine: Machine, text: str) -> str:
    """The console once it has a text."""
    machine.serial.expect(text.encode(), seconds=5)
    return machine.serial.output.decode("latin-1")


ACCESSES = {
    "r": "mov eax, [300000h]",
    "w": "mov dword [300000h], 1",
    "x": "mov byte [300000h], 0C3h\n mov eax, 300000h\n call eax",
}


@pytest.mark.parametrize(
    ("cpu", "trapped"),
    [
        ("westmere", "r"),
        ("westmere", "w"),
        ("westmere", "x"),
        ("westmere", "rwx"),
        ("prescott", "r"),
        ("prescott", "x"),
    ],
)
@pytest.mark.parametrize("access", ["r", "w", "x"])
def test_a_memory_range_and_its_accesses(built: Built, access: str, trapped: str, cpu: str) -> None:
    """Only the accesses that the policy names are events, each as often as it happens."""
    code = ACCESSES[access] + SAY
    with running(built, code, [ALLOW] * 9, cpu=cpu, regions=[(1, trapped, PAGE, PAGE + 0xFFF)]) as (machine, _):
        console = console_of(machine)
    made = {"r": "r", "w": "w", "x": "wx"}[access]
    bits = {"r": 1, "w": 2, "x": 4}
    events = events_of(console)
    assert [event.kind for event in events] == [TRAP_MEMORY] * sum(one in trapped for one in made) + [
        POWER_OFF,
        NO_GUEST,
    ]
    for event, one in zip(events, [one for one in made if one in trapped], strict=False):
        assert event.qualification & 7 == bits[one] and event.address == event.linear == PAGE and event.vm == 1
    assert "guest went on" in console


@pytest.mark.parametrize(
    ("what", "code", "pages"),
    [
        ("one operand over two pages", "mov dword [300FFEh], 12345678h", [0x300, 0x301]),
        ("two operands", "mov esi, 300000h\n mov edi, 302000h\n movsd", [0x300, 0x302]),
        ("an operand and the stack", "mov esp, 302800h\n push dword [300000h]\n mov esp, 0F000h", [0x300, 0x302]),
        ("four pages", "mov esi, 300FFEh\n mov edi, 302FFEh\n movsd", [0x300, 0x301, 0x302, 0x303]),
    ],
)  # fmt: skip
def test_an_instruction_that_touches_several_protected_pages(
    built: Built, what: str, code: str, pages: list[int]
) -> None:
    """Each page is an event; behind the instruction all of them are protected again."""
    again = "mov eax, [301000h]"
    with running(
        built, f"mov dword [306000h], 1\n{code}\n{again}" + SAY, [ALLOW] * 9, regions=[(1, "rw", 0x300000, 0x303FFF)]
    ) as (machine, _):
        console = console_of(machine)
    traps = [event.address >> 12 for event in events_of(console) if event.kind == TRAP_MEMORY]
    assert sorted(traps[:-1]) == pages and traps[-1] == 0x301, what
    assert "guest went on" in console


@pytest.mark.parametrize("cpu", ["westmere", "prescott"])
def test_an_event_that_is_delivered_through_a_protected_page(built: Built, cpu: str) -> None:
    """The frame of an exception is pushed to it: the delivery goes on where it was, once."""
    code = (
        """
        lidt    [idt_pointer]
        mov     eax, VECTOR_UD
        mov     ebx, handler
        call    gate
        mov     esp, 300800h
        ud2
handler:
        mov     eax, [esp]
        mov     esp, 0F000h
        mov     esi, name
        call    tell
        jmp     acpi_power_off
name:   db      "return address ", 0
"""
        + IDT
    )
    with running(built, code, [ALLOW] * 9, cpu=cpu, regions=REGION) as (machine, _):
        console = console_of(machine)
    traps = [event for event in events_of(console) if event.kind == TRAP_MEMORY]
    assert traps and all(event.linear >> 12 == 0x300 for event in traps)
    returned = re.search("return address ([0-9A-F]+)", console)
    assert returned and int(returned[1], 16) == traps[0].rip


@pytest.mark.parametrize(
    ("what", "region", "code"),
    [
        ("a display's planes", (1, "w", 0xA0000, 0xA0FFF), "mov byte [0A0000h], 1"),
        ("a ROM's", (1, "w", 0xC0000, 0xC0FFF), "mov byte [0C0000h], 1"),
        ("the firmware's", (1, "w", 0xF0000, 0xF0FFF), "mov byte [0F0000h], 1"),
    ],
)
def test_a_region_gives_no_rights(built: Built, what: str, region: tuple[int, str, int, int], code: str) -> None:
    """What the guest could not do without a policy is outside with one, and cannot be let through."""
    with running(built, code, [ALLOW], regions=[region]) as (machine, _):
        console = console_of(machine)
    assert kinds(console) == [TRAP_OUTSIDE, NO_GUEST] or BAD_ACTION in statuses_of(console), what
    assert kinds(console)[0] == TRAP_OUTSIDE


EXCEPTIONS = {
    "#DE": (0, None, "xor eax, eax\n div eax"),
    "#DB": (1, None, "pushfd\n or dword [esp], EFLAGS_TF\n popfd\n nop"),
    "#BP": (3, None, "int3"),
    "#UD": (6, None, "ud2"),
    "#NP": (11, 0x21 * 8 + 2, "mov dword [idt + 8 * 21h + 4], 0E00h\n int 21h"),
    "#GP": (13, 0x38, "mov eax, 38h\n mov fs, ax"),
    "#GP of the VMM": (13, 0, "mov ecx, 3Ah\n rdmsr"),
    "#UD of the VMM": (6, None, "vmxoff"),
}
TAKE = (
    """
        lidt    [idt_pointer]
        mov     eax, {vector}
        mov     ebx, handler
        call    gate
        mov     dword [idt + 8 * 21h], SELECTOR_CODE32 << 16
        {code}
        jmp     acpi_power_off
handler:
        mov     eax, [esp]
        mov     esi, name
        call    tell
        jmp     acpi_power_off
name:   db      "on the stack ", 0
"""
    + IDT
)


@pytest.mark.parametrize("what", EXCEPTIONS)
@pytest.mark.parametrize("cpu", ["westmere", "prescott"])
def test_an_exception_and_its_delivery(built: Built, what: str, cpu: str) -> None:
    """It is an event with its vector and error code; ALLOW delivers it: error code or return address on the stack."""
    vector, error, code = EXCEPTIONS[what]
    with running(built, TAKE.format(vector=vector, code=code), [ALLOW], cpu=cpu, exceptions=[vector]) as (machine, _):
        console = console_of(machine)
    first, *rest = events_of(console)
    assert (first.kind, first.qualification) == (EXCEPTION, vector)
    assert [event.kind for event in rest] == [POWER_OFF, NO_GUEST]
    stacked = re.search("on the stack ([0-9A-F]+)", console)
    expected = error if error is not None else first.rip + (first.length if vector == 3 else 0)  # INT3: behind it
    assert stacked and int(stacked[1], 16) == expected
    if error is not None:
        assert first.address == error


@pytest.mark.parametrize("cpu", ["westmere", "prescott"])
def test_a_page_fault_s_address_and_error_code(built: Built, cpu: str) -> None:
    """They are in the event, and in CR2 and on the stack after ALLOW."""
    code = (
        """
        lidt    [idt_pointer]
        mov     eax, VECTOR_PF
        mov     ebx, handler
        call    gate
        mov     edi, 1000h
        mov     ecx, 1024
        mov     eax, PAGE_P | PAGE_RW | PAGE_PS
map:    stosd
        add     eax, 400000h
        loop    map
        mov     dword [1000h + 4 * 100], 0
        mov     eax, cr4
        or      eax, CR4_PSE
        mov     cr4, eax
        mov     eax, 1000h
        mov     cr3, eax
        mov     eax, cr0
        or      eax, CR0_PG
        mov     cr0, eax
        mov     dword [19012344h], 1
handler:
        pop     eax
        mov     esi, error
        call    tell
        mov     eax, cr2
        mov     esi, address
        call    tell
        jmp     acpi_power_off
error:  db      "error code ", 0
address: db     "address ", 0
"""
        + IDT
    )
    with running(built, code, [ALLOW], cpu=cpu, exceptions=[14]) as (machine, _):
        console = console_of(machine)
    first = events_of(console)[0]
    assert (first.kind, first.qualification, first.address, first.linear) == (EXCEPTION, 14, 2, 0x19012344)
    assert "error code 00000002" in console and "address 19012344" in console


DOUBLE = (
    """
        lidt    [idt_pointer]
        mov     eax, VECTOR_DF
        mov     ebx, handler
        call    gate
        ud2
handler:
        mov     eax, [esp]
        mov     esi, name
        call    tell
        jmp     acpi_power_off
name:   db      "double fault ", 0
"""
    + IDT
)


def test_a_double_fault_is_an_event_by_default(built: Built) -> None:
    with running(built, DOUBLE, [ALLOW]) as (machine, _):
        console = console_of(machine)
    first = events_of(console)[0]
    assert (first.kind, first.qualification, first.address) == (EXCEPTION, 8, 0)
    assert "double fault 00000000" in console and kinds(console)[1:] == [POWER_OFF, NO_GUEST]


def test_an_exception_that_is_not_trapped_is_the_guest_s(built: Built) -> None:
    with running(built, DOUBLE, exceptions=[]) as (machine, _):
        console = console_of(machine)
    assert "double fault 00000000" in console and kinds(console) == [POWER_OFF, NO_GUEST]


def test_a_machine_check_is_an_event_and_is_delivered(built: Built) -> None:
    code = (
        """
        lidt    [idt_pointer]
        mov     eax, 18
        mov     ebx, handler
        call    gate
        mov     eax, cr4
        or      eax, CR4_MCE
        mov     cr4, eax
        jmp     $
handler:
        mov     eax, [esp]
        mov     esi, name
        call    tell
        jmp     acpi_power_off
name:   db      "machine check at ", 0
"""
        + IDT
    )
    with running(built, code, [ALLOW]) as (machine, vmm):
        run_to_guest(machine, vmm)
        assert vmm.word("current") == vmm.symbols["VMM_VMS"] + vmm.symbols["VM_SLOT"]
        machine.cpu.inject_machine_check()
        console = console_of(machine)
    first = events_of(console)[0]
    assert (first.kind, first.qualification) == (EXCEPTION, 18)
    assert f"machine check at {first.rip:08X}" in console


def test_a_machine_check_while_the_vmm_runs_is_the_guest_s(built: Built) -> None:
    """It comes at the first instruction behind a VM exit; without CR4.MCE in the host it would be a shutdown."""
    code = "forever: mov al, 1\n out 80h, al\n jmp forever\n" + IDT
    with running(built, code, [STOP]) as (machine, vmm):
        run_to_guest(machine, vmm)
        machine.run(seconds=1, until=vmm.symbols["vm_exit"])
        assert machine.cpu.rip == vmm.symbols["vm_exit"]
        machine.cpu.inject_machine_check()
        console = console_of(machine)
    first = events_of(console)[0]
    assert (first.kind, first.qualification, first.vm) == (EXCEPTION, 18, 1)


def test_a_triple_fault_cannot_go_on(built: Built) -> None:
    with running(built, "lidt [nothing]\n ud2\nnothing: dw 0\n dd 0", [ALLOW], exceptions=[]) as (machine, _):
        console = run_until(machine, "status 00000005")
    assert kinds(console) == [TRIPLE_FAULT] and statuses_of(console) == [BAD_ACTION]


TIMER = (
    """
        lidt    [idt_pointer]
        mov     eax, 20h
        mov     ebx, timer
        call    gate
        mov     eax, 30h
        mov     ebx, soft
        call    gate
        mov     al, 0FEh
        call    pics
        mov     eax, 11932
        call    rate
        {int}
        sti
again:  hlt
        cmp     dword [ticks], 3
        jb      again
        jmp     acpi_power_off
timer:  push    eax
        inc     dword [ticks]
        mov     al, OCW2_EOI
        out     PORT_PIC1_COMMAND, al
        pop     eax
soft:   iret
ticks:  dd      0
"""
    + IDT
)


def test_an_interrupt_vector(built: Built) -> None:
    """Each interrupt with that vector is an event and is then taken; INT n of it is not."""
    with running(built, TIMER.format(int="int 20h\n dec dword [ticks]"), [ALLOW] * 9, vectors=[0x20]) as (machine, _):
        console = console_of(machine)
    assert kinds(console) == [INTERRUPT] * 3 + [POWER_OFF, NO_GUEST]
    assert all(event.qualification == 0x20 for event in events_of(console)[:3])


def test_another_interrupt_vector(built: Built) -> None:
    with running(built, TIMER.format(int="int 30h"), [ALLOW] * 9, vectors=[0x21, 0x30]) as (machine, _):
        console = console_of(machine)
    assert kinds(console) == [POWER_OFF, NO_GUEST]


def test_an_io_port(built: Built) -> None:
    """Read, written, and by string; ALLOW performs each once, and the guest sees what the port gives."""
    code = (
        """
        mov     al, 5Ah
        out     80h, al
        in      al, 80h
        movzx   eax, al
        mov     esi, name
        call    tell
        mov     esi, name
        mov     ecx, 3
        mov     edx, 80h
        rep outsb
        jmp     acpi_power_off
name:   db      "port ", 0
"""
        + IDT
    )
    with running(built, code, [ALLOW] * 9, ports=[(0x7F, 0x80)]) as (machine, vmm):
        console = console_of(machine)
        assert vmm.vm_word(GUEST, "post") == ord("r")
    events = events_of(console)
    assert [event.kind for event in events] == [PORT] * 5 + [POWER_OFF, NO_GUEST]
    assert [event.qualification >> 16 for event in events[:5]] == [0x80] * 5
    assert [event.qualification & 8 for event in events[:5]] == [0, 8, 0, 0, 0]
    assert "port 0000005A" in console


@pytest.mark.parametrize(("first", "last", "trapped"), [(0x81, 0x81, 1), (0x82, 0x8F, 0), (0x7E, 0x7F, 0)])
def test_a_port_in_a_wider_access(built: Built, first: int, last: int, trapped: int) -> None:
    with running(built, "mov edx, 80h\n in ax, dx", [ALLOW], ports=[(first, last)]) as (machine, _):
        console = console_of(machine)
    assert kinds(console) == [PORT] * trapped + [POWER_OFF, NO_GUEST]


def test_an_interrupt_waits_for_the_access_that_is_let_through(built: Built) -> None:
    """The handler uses the trapped port too: neither takes the other's leave, so that each is one event."""
    code = (
        TIMER.replace("push    eax", "push    eax\n        out     80h, al", 1)
        .replace("again:  hlt", "again:  out     80h, al")
        .replace("mov     eax, 11932", "mov     eax, 60")
    )
    with running(built, code.format(int=""), [ALLOW] * 200, ports=[(0x80, 0x80)]) as (machine, _):
        console = console_of(machine)
    rips = [event.rip for event in events_of(console) if event.kind == PORT]
    assert len(set(rips)) == 2
    assert min(rips.count(rip) for rip in set(rips)) == 3  # the handler, once a tick


def test_hlt_with_interrupts_off(built: Built) -> None:
    with running(built, "cli\n hlt", flags=["halted"]) as (machine, _):
        console = console_of(machine)
    assert kinds(console) == [HALTED, NO_GUEST]


def test_hlt_with_interrupts_off_is_no_event_where_the_policy_says_so(built: Built) -> None:
    """The guest stands, and the machine with it: nothing is left that could wake it."""
    with running(built, "cli\n hlt", flags=[]) as (machine, vmm):
        assert machine.run(seconds=3).reason is StopReason.LIMIT
        assert vmm.vm_word(GUEST, "state") == vmm.symbols["VM_HALTED"]
        assert not events_of(machine.serial.output.decode("latin-1"))


def test_continue_without_an_event(built: Built) -> None:
    """A guest that runs has nothing to be let through."""
    start = """
        mov     eax, VMCALL_CONTINUE
        mov     ebx, 1
        mov     ecx, ACTION_ALLOW
        vmcall
        push    eax
        mov     esi, text_status
        call    console_text
        pop     eax
        call    console_hex
        call    console_newline
"""
    with running(built, "", start=start) as (machine, _):
        console = console_of(machine)
    assert statuses_of(console)[0] == BAD_VM


def test_an_action_that_there_is_none_of(built: Built) -> None:
    with running(built, "mov dword [300000h], 1", [RESTART, 7], regions=REGION) as (machine, _):
        console = run_until(machine, "status 00000005")
    assert statuses_of(console) == [OK, BAD_ACTION]
