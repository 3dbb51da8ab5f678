"""The flow, block by block, each by a test with its name: reset 302, VMM 304, decision 306, native boot 307, Service OS
308, switch 310, guest 312, event 314, switch 316. Other files have each block's details.
"""

import pytest

import asm
from bios.build import HERE, folders
from emu import Machine, StopReason
from emu.builtin.policy import policy_nvram

from .conftest import MEMORY, SECONDS, Built, Story
from .vmm import BARE_MEMORY, BOOT, CALL, GUEST, POWER_OFF, SERVICE, TRAP

SWITCHED = 100_000  # cycles that a switch may take


def test_reset_302_and_post_end_well(built: Built) -> None:
    with Machine(BARE_MEMORY, "pentium3", firmware=built.rom()) as machine:
        assert machine.run(seconds=SECONDS).reason is StopReason.POWERED_OFF
        console = machine.serial.output.decode()
        assert "FAILED" not in console and "EXCEPTION" not in console
        codes = [f"{code:02X}" for _, code in machine.board.post.codes]
    assert codes[0] == "10" and codes[-1] == "42" and len(set(codes)) == len(codes)
    assert set(codes) <= set(built.meanings)


def test_vmm_304_takes_the_top_of_memory(story: Story) -> None:
    assert f"VMM       at {MEMORY - (4 << 20):08X}" in story.console
    base, size = story.vmm.guest_memory(SERVICE)
    assert base + size == story.vmm.physical
    guest, share = story.vmm.guest_memory(GUEST)
    assert guest + share <= base


@pytest.mark.parametrize(("key", "service"), [("y", True), ("n", False)])
def test_decision_306_is_the_user_s(built: Built, key: str, service: bool) -> None:
    with Machine(MEMORY, firmware=built.rom(), nvram=policy_nvram(query_seconds=60)) as machine:
        machine.serial.expect(b"S: set-up screen; ", seconds=SECONDS)
        machine.serial.send(key.encode())
        machine.serial.expect(b"guest     started ", seconds=SECONDS)
        assert (b"service   2048 KiB" in machine.serial.output) is service


def test_native_307_the_guest_boots_on_the_bare_machine(built: Built) -> None:
    """VMX operation is over, and nothing is left in the VMM's memory."""
    with Machine(MEMORY, firmware=built.rom(), nvram=policy_nvram(boot="native")) as machine:
        machine.serial.expect(b"guest     started on the bare machine", seconds=SECONDS)
        assert b"VMM       unloaded, VMX off" in machine.serial.output
        assert not any(machine.memory.read(MEMORY - (4 << 20), 3 << 20))
        assert not machine.switches
        assert machine.run(seconds=SECONDS).reason is StopReason.POWERED_OFF
        assert b"guest     ends well" in machine.serial.output


def test_service_os_308_runs_before_any_guest(story: Story) -> None:
    assert story.switches[0][1:4] == (-1, SERVICE, BOOT)
    assert story.line("service   2048 KiB, console and BMC; 2 virtual machines") < story.line("guest     started")


def test_switch_310_from_the_service_vm_to_the_guest(story: Story) -> None:
    """By the Service VM's call; the guest begins at its image."""
    first = story.switches[1]
    assert (first.source, first.target, first.reason) == (SERVICE, GUEST, CALL)
    assert first.exit == 18 and first.tsc > story.switches[0].tsc


def test_guest_312_runs_under_the_vmm(story: Story) -> None:
    assert story.line("guest     started under the VMM") < story.line("guest     5 timer interrupts")


def test_event_314_a_write_to_protected_memory_is_trapped(story: Story, built: Built) -> None:
    program = asm.assemble_file(HERE / "guest" / "guest.asm", include=folders("guest", built.folder))
    rip, target = program.symbols["write_protected"], program.symbols["PROTECTED"]
    assert "service   VM 1 wrote to protected memory" in story.console
    facts = f"reason 00000030 qualification 000001AA RIP {rip:08X} address {target:08X} linear {target:08X}"
    assert facts in story.console
    assert "EAX 11111111 EBX 22222222 ECX 33333333 EDX 44444444" in story.console
    assert "ESI 55555555 EDI 66666666 EBP 77777777 ESP 0000F000" in story.console
    code = program.binary[rip - 0x10000 :][:12]
    assert f"service   memory at RIP {code.hex(' ').upper()}" in story.console
    assert "service   memory there 00 00 00 00" in story.console


def test_switch_316_back_to_the_service_vm_and_on(story: Story) -> None:
    """With the event that the VMM saw, in the time of a switch; then the guest goes on, up to its end."""
    steps = [(one.source, one.target, one.reason) for one in story.switches]
    assert steps == [
        (-1, SERVICE, BOOT), (SERVICE, GUEST, CALL), (GUEST, SERVICE, TRAP), (SERVICE, GUEST, CALL),
        (GUEST, SERVICE, POWER_OFF),
    ]  # fmt: skip
    trap = story.switches[2]
    assert trap.exit == 48 and trap.qualification == 0x1AA
    assert [one.tsc for one in story.switches] == sorted(one.tsc for one in story.switches)
    written = next(one for one in story.machine.switches if one["reason"] == "EPT_VIOLATION")
    assert 0 <= written["cycle"] - trap.tsc < SWITCHED
