"""What the Service VM asks about a guest, and the policy that it sets; and that none of it disturbs the guest."""

import re

import pytest

from emu.builtin.policy import decode_policy, layout, place, policy_nvram

from .conftest import Built
from .events import ALLOW, HUNG, NO_GUEST, PORT, POWER_OFF, TRAP_MEMORY, console_of, events_of, running, statuses_of
from .vmm import GUEST

WRITE = "mov dword [300000h], 1"
REGION = [(1, "w", 0x300000, 0x300FFF)]
OK, BAD_VM, BAD_ADDRESS, BAD_FIELD, BAD_LENGTH, BAD_POLICY = 0, 3, 4, 6, 10, 11


def call(name: str, after: str = "", **registers: int | str) -> str:
    """Code that makes a call and says "called" and its status, then `after`."""
    moves = "\n".join(f"        mov {register}, {value}" for register, value in registers.items())
    return f"""
{moves}
        mov     eax, {name}
        vmcall
        push    ebx
        push    edx
        mov     esi, text_called
        push    eax
        call    console_text
        pop     eax
        call    console_hex
        call    console_newline
        pop     edx
        pop     ebx
        {after}
"""


SAY_PAIR = """
        push    edx
        mov     eax, ebx
        call    console_hex
        pop     eax
        call    console_hex
        call    console_newline
"""
DATA = 'text_called: db "called ", 0\nalign 4\nroom: times 4096 db 0\n'


def called(console: str) -> list[int]:
    return [int(status, 16) for status in re.findall(r"called ([0-9A-F]{8})", console)]


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (0x681E, "GUEST_RIP"), (0x4402, "EXIT_REASON"), (0x2400, "GUEST_PHYSICAL_ADDRESS"),
        (0x0802, "GUEST_CS_SELECTOR"),
        (0x2010, "TSC_OFFSET"), (0x6800, "GUEST_CR0"), (0x4004, "EXCEPTION_BITMAP"),
    ],
)  # fmt: skip
def test_a_field_of_a_guest_s_vmcs(built: Built, field: int, name: str) -> None:
    look = call("VMCALL_READ_VMCS", SAY_PAIR, ebx=1, ecx=field)
    with running(built, WRITE, [ALLOW], look=look, data=DATA, regions=REGION) as (machine, vmm):
        machine.run(seconds=5, until=vmm.symbols["memory_violation"])  # the guest's VMCS is the current one
        expected = machine.cpu.vmcs[name]
        console = console_of(machine)
    said = re.search(r"called 00000000\r\n([0-9A-F]{16})", console)
    assert said and int(said[1], 16) == expected


@pytest.mark.parametrize(
    ("what", "code", "status"),
    [
        ("no such field", call("VMCALL_READ_VMCS", ebx=1, ecx=0x7FFE), BAD_FIELD),
        ("no field at all", call("VMCALL_READ_VMCS", ebx=1, ecx="-1"), BAD_FIELD),
        ("a VM that there is not", call("VMCALL_READ_VMCS", ebx=2, ecx=0x681E), BAD_VM),
        ("the Service VM itself", call("VMCALL_READ_VMCS", ebx=0, ecx=0x681E), BAD_VM),
        ("more devices than there are", call("VMCALL_READ_DEVICES", ebx=1, ecx=4096, edi="room"), BAD_LENGTH),
        ("devices to nowhere", call("VMCALL_READ_DEVICES", ebx=1, ecx=16, edi="0FFFFFFF8h"), BAD_ADDRESS),
        ("what is known, to nowhere", call("VMCALL_VM_INFO", ebx=1, edi="0FFFFFFF8h"), BAD_ADDRESS),
        ("of a VM that there is not", call("VMCALL_VM_INFO", ebx=4, edi="room"), BAD_VM),
        ("a policy from nowhere", call("VMCALL_POLICY_SET", esi="0FFFFFFF8h"), BAD_ADDRESS),
    ],
)  # fmt: skip
def test_calls_that_cannot_be(built: Built, what: str, code: str, status: int) -> None:
    with running(built, WRITE, [ALLOW], look=code, data=DATA, regions=REGION) as (machine, _):
        console = console_of(machine)
    assert called(console)[0] == status, what
    assert [event.kind for event in events_of(console)] == [TRAP_MEMORY, POWER_OFF, NO_GUEST]


def test_a_guest_s_devices(built: Built) -> None:
    look = call("VMCALL_READ_DEVICES", ebx=1, ecx="vm_chips_size", edi="room")
    code = "mov al, 0A5h\n out PORT_PIC1_DATA, al\n mov al, 5Ah\n out 80h, al\n" + WRITE
    with running(
        built, code, [ALLOW], look=look, data='%include "vm_devices.inc"\n' + DATA, regions=REGION
    ) as (machine, vmm):  # fmt: skip
        machine.run(seconds=5, until=vmm.symbols["call_read_devices"])
        seen = vmm.vm(GUEST, "devices", vmm.symbols["vm_devices_size"])
        at = int.from_bytes(vmm.vm(0, "gpr", 4), "little")  # EDI
        assert seen[2] == 0xA5 and bytes([0x5A]) in seen
        machine.run(seconds=5, until=vmm.symbols["call_continue"])
        base, _ = vmm.guest_memory(0)
        assert machine.memory.read(base + at, len(seen)) == seen
        assert called(console_of(machine))[0] == OK


def test_what_the_vmm_knows_of_a_guest(built: Built) -> None:
    look = call("VMCALL_VM_INFO", ebx=1, edi="room")
    code = "mov eax, VMCALL_HEARTBEAT\n vmcall\n mov eax, VMCALL_HEARTBEAT\n vmcall\n cli\n jmp $"
    with running(built, code, [2, 2, 1], look=look, data=DATA, poll_us=1000) as (machine, vmm):
        found = []
        names = [name for name in vmm.symbols if name.startswith("vm_info.")]
        for _ in range(3):
            machine.run(seconds=5, until=vmm.symbols["call_continue"])
            at = int.from_bytes(vmm.vm(0, "gpr", 4), "little")
            room = machine.memory.read(vmm.guest_memory(0)[0] + at, vmm.symbols["vm_info_size"])
            found.append({n[8:]: int.from_bytes(room[vmm.symbols[n] :][:4], "little") for n in names})
            machine.cpu.step()
        console = console_of(machine)
    assert [event.kind for event in events_of(console)] == [HUNG] * 3 + [NO_GUEST]
    assert [one["restarts"] for one in found] == [0, 1, 2] and [one["events"] for one in found] == [1, 2, 3]
    assert [one["heartbeats"] for one in found] == [2, 4, 6] and all(one["last_event"] == HUNG for one in found)
    assert all(one["poll_us"] == 1000 and one["memory"] == 8 << 20 and one["kind"] == 1 for one in found)
    assert found[0]["polls"] < found[1]["polls"] < found[2]["polls"]


def set_policy(**fields: object) -> str:
    """Code of the Service VM that sets this policy, and its data."""
    policy = policy_nvram(checked=False, boot="service", **{"guests": ["writer"], **fields})[128:]
    size = layout().symbols["policy_size"]
    return "new_policy: db " + ", ".join(str(byte) for byte in policy[:size])


SET = call("VMCALL_POLICY_SET", esi="new_policy")


def test_a_policy_that_is_set_is_in_force_at_once(built: Built) -> None:
    """Regions of before go, those of the new one come; ports and exceptions too; and the CMOS RAM has it."""
    code = """
        mov     dword [300000h], 1
        mov     dword [300000h], 2
        out     80h, al
        mov     dword [310000h], 3
        ud2
"""
    fields = {
        "regions": [(1, "w", 0x310000, 0x310FFF)], "ports": [(0x80, 0x80)], "exceptions": [6], "poll_us": 0,
        "crash_limit": 7,
    }  # fmt: skip
    look = f"cmp dword [set_already], 0\n jne set_done\n inc dword [set_already]\n{SET}\nset_done:"
    data = DATA + set_policy(**fields) + "\nalign 4\nset_already: dd 0"
    with running(built, code, [ALLOW] * 4, look=look, data=data, regions=REGION, exceptions=[]) as (machine, _):
        console = console_of(machine)
        kinds = [event.kind for event in events_of(console)]
        assert kinds[:4] == [TRAP_MEMORY, PORT, TRAP_MEMORY, 8]
        assert [event.address for event in events_of(console)][:3:2] == [0x300000, 0x310000]
        stored = decode_policy(machine.board.rtc.nvram)
        assert (stored["crash_limit"], stored["ports"], stored["exceptions"]) == (7, [(0x80, 0x80)], [6])
    assert called(console)[0] == OK


@pytest.mark.parametrize(("field", "bad"), [("polls", 0), ("time", 2), ("poll_us", 60_000_001), ("flags", 0x100)])
def test_a_policy_that_cannot_be_changes_nothing(built: Built, field: str, bad: int) -> None:
    data = DATA + set_policy(**{field: bad, "regions": []})
    with running(built, WRITE + "\n" + WRITE, [ALLOW, ALLOW], look=SET, data=data, regions=REGION) as (machine, vmm):
        console = console_of(machine)
        at, size = place(field)
        assert int.from_bytes(vmm.read("policy_now", size, at), "little") != bad
        assert decode_policy(machine.board.rtc.nvram)["regions"] == REGION
    assert set(called(console)) == {BAD_POLICY}
    assert [event.kind for event in events_of(console)] == [TRAP_MEMORY, TRAP_MEMORY, POWER_OFF, NO_GUEST]


def test_polling_that_is_set_while_guests_run(built: Built) -> None:
    """Off at the start; on when the first event is handled: then the hang is found."""
    data = DATA + set_policy(poll_us=1000, regions=REGION)
    with running(built, WRITE + "\ncli\njmp $", [ALLOW], look=SET, data=data, regions=REGION) as (machine, _):
        console = console_of(machine)
    assert [event.kind for event in events_of(console)] == [TRAP_MEMORY, HUNG, NO_GUEST]
    assert statuses_of(console)[0] == OK
