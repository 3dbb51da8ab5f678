"""VM exits by instructions and events. SDM Vol. 3, "VMX Non-Root Operation"."""

from vmm import GUEST, Bench, pin, primary, real_mode, secondary

import emu


def test_a_guest_runs_until_an_instruction_that_always_exits() -> None:
    """SDM Vol. 3, "Instructions That Cause VM Exits Unconditionally"."""
    bench = Bench()
    assert bench.exit("mov ebx, 5\ncpuid") == "CPUID"
    assert (bench["GUEST_RIP"], bench["VM_EXIT_INSTRUCTION_LENGTH"], bench["EXIT_QUALIFICATION"]) == (GUEST + 5, 2, 0)
    assert bench.cpu.ebx == 5 and bench.cpu.exits["CPUID"].count == 1


def test_a_64_bit_guest_of_a_64_bit_vmm() -> None:
    bench = Bench(bits=64)
    assert bench.exit("mov r15, 0x123456789abcdef0\ncpuid") == "CPUID"
    assert bench.cpu.r15 == 0x123456789ABCDEF0 and bench["GUEST_RIP"] == GUEST + 10


def test_an_unrestricted_guest_in_real_address_mode() -> None:
    bench = Bench()
    assert bench.exit("mov ax, 0x1234\nvmcall", real_mode(), bits=16) == "VMCALL"
    assert bench.cpu.eax & 0xFFFF == 0x1234 and bench["GUEST_RIP"] == 3


def test_the_preemption_timer_ends_a_loop_and_a_halt() -> None:
    """SDM Vol. 3, "VMX-Preemption Timer"."""
    for text in ("jmp $", "hlt"):
        bench = Bench()
        timer = pin("ACTIVATE_VMX_PREEMPTION_TIMER") | {"VMX_PREEMPTION_TIMER_VALUE": 100}
        assert bench.exit(text, timer) == "VMX_PREEMPTION_TIMER_EXPIRED"
        assert bench["GUEST_ACTIVITY_STATE"] == (text == "hlt")


def test_interrupt_window() -> None:
    bench = Bench()
    assert bench.exit("sti\nnop\nnop", primary("INTERRUPT_WINDOW_EXITING")) == "INTERRUPT_WINDOW"
    assert bench["GUEST_RIP"] == GUEST + 2  # the instruction after STI is still held off


def test_ept_violation_says_what_was_touched_and_how() -> None:
    """SDM Vol. 3, "Exit Qualification for EPT Violations"."""
    bench = Bench()
    assert bench.exit("mov eax, [0x300000]", secondary("ENABLE_EPT", "ENABLE_VPID")) == "EPT_VIOLATION"
    assert bench["EXIT_QUALIFICATION"] == 0x181
    assert bench["GUEST_PHYSICAL_ADDRESS"] == bench["GUEST_LINEAR_ADDRESS"] == 0x300000


def test_a_check_that_fails_is_recorded() -> None:
    bench = Bench()
    assert bench.exit("hlt", {"GUEST_CR0": 0x80000001}) == "failed VM_ENTRY_FAILURE_DUE_TO_INVALID_GUEST_STATE"
    failure = bench.cpu.vmx_failure
    assert isinstance(failure, emu._core.VmxFailure)
    assert (failure.check, failure.field, failure.value) == ("guest CR0", "GUEST_CR0", 0x80000001)
