"""Which of several events comes first after VM entry, and what the VM exit leaves of the others.

SDM Vol. 3, "Special Features of VM Entry", "Monitor Trap Flag", "Other Causes of VM Exits" (windows and the preemption
timer), "Priority Among Concurrent Events"; of MOV SS "Masking Exceptions and Interrupts When Switching Stacks".
"""

from collections.abc import Mapping

import pytest
from vmm import BITS, GUEST, GUEST_HANDLERS, Bench, pin, primary, secondary

Changes = Mapping[str, int]
INFO = "VM_ENTRY_INTERRUPTION_INFORMATION_FIELD"
VALID = 1 << 31
UD, NMI, INT3 = 0x306, 0x202, 0x603  # types and vectors of injected events
PENDING_MTF = {INFO: VALID | 0x700}
MTF, TIMER = "MONITOR_TRAP_FLAG", "VMX_PREEMPTION_TIMER_EXPIRED"
NMI_WINDOW, INTERRUPT_WINDOW = "NMI_WINDOW", "INTERRUPT_WINDOW"
WITH_MTF = primary("MONITOR_TRAP_FLAG")
EXPIRED = pin("ACTIVATE_VMX_PREEMPTION_TIMER") | {"VMX_PREEMPTION_TIMER_VALUE": 0}
VNMI = pin("NMI_EXITING", "VIRTUAL_NMIS") | primary("NMI_WINDOW_EXITING")
IF, TF = {"GUEST_RFLAGS": 0x202}, {"GUEST_RFLAGS": 0x102}
STEP = {"GUEST_PENDING_DEBUG_EXCEPTIONS": 0x4000} | TF
DB_EXITS = {"EXCEPTION_BITMAP": 1 << 1}
HALTED, SHUT_DOWN = {"GUEST_ACTIVITY_STATE": 1}, {"GUEST_ACTIVITY_STATE": 2}
STI, MOV_SS = {"GUEST_INTERRUPTIBILITY_STATE": 1}, {"GUEST_INTERRUPTIBILITY_STATE": 2}
WITH_EPT, NO_IDT = secondary("ENABLE_EPT"), {"GUEST_IDTR_BASE": 0x300000}
WATCHED = 0x25000  # by DR0: reads and writes of four bytes
WATCH = {"GUEST_DR7": 0x000F0402, "+VM_ENTRY_CONTROLS": BITS["ENTRY_LOAD_DEBUG_CONTROLS"]}

BRANCH_STEPS = {"GUEST_IA32_DEBUGCTL": 2, "+VM_ENTRY_CONTROLS": BITS["ENTRY_LOAD_DEBUG_CONTROLS"],
                "+VM_EXIT_CONTROLS": BITS["EXIT_SAVE_DEBUG_CONTROLS"]}  # fmt: skip


def inject(event: int) -> Changes:
    return {INFO: VALID | event} | ({"VM_ENTRY_INSTRUCTION_LENGTH": 1} if event == INT3 else {})


def at_handler(vector: int) -> Changes:
    return {"GUEST_RIP": GUEST_HANDLERS + vector}


HERE, NEXT = {"GUEST_RIP": GUEST}, {"GUEST_RIP": GUEST + 1}

CASES: dict[str, tuple[str, list[Changes], str, Changes]] = {
    # what: the guest's code, changes of the VMCS, the exit's reason, fields after it
    "trap flag of the monitor, after an instruction": ("nop\nnop", [WITH_MTF], MTF, NEXT),
    "after an exception, at its handler": ("ud2", [WITH_MTF], MTF, at_handler(6)),
    "after a software interrupt, at its handler": ("int 7", [WITH_MTF], MTF, at_handler(7)),
    "after INT1": ("int1", [WITH_MTF], MTF, at_handler(1)),
    "after an injected exception": ("nop", [WITH_MTF, inject(UD)], MTF, at_handler(6)),
    "after an injected software exception": ("nop", [WITH_MTF, inject(INT3)], MTF, at_handler(3)),
    "after HLT": ("hlt", [WITH_MTF], MTF, {"GUEST_ACTIVITY_STATE": 1}),
    "before a single step's trap": (
        "nop\nnop", [WITH_MTF, TF, DB_EXITS], MTF, NEXT | {"GUEST_PENDING_DEBUG_EXCEPTIONS": 0x4000},
    ),
    "before a watchpoint's trap": (
        f"mov eax, [{WATCHED}]\nnop", [WITH_MTF, WATCH, DB_EXITS], MTF, {"GUEST_PENDING_DEBUG_EXCEPTIONS": 0x1001},
    ),
    "not where the instruction exits itself": ("cpuid", [WITH_MTF], "CPUID", HERE),
    "pending, by injection": ("nop", [PENDING_MTF], MTF, HERE),
    "pending, by injection, in a halt": ("nop", [PENDING_MTF, HALTED], MTF, HERE | HALTED),
    "pending, and a timer that has expired": ("nop", [PENDING_MTF, EXPIRED], MTF, HERE),
    "timer in a halt": ("nop", [EXPIRED, HALTED], TIMER, HERE | HALTED),
    "timer in a shutdown": ("nop", [EXPIRED, SHUT_DOWN], TIMER, HERE | SHUT_DOWN),
    "timer after an injected NMI": ("nop", [EXPIRED, inject(NMI)], TIMER, at_handler(2)),
    "timer before the NMI window": ("nop", [EXPIRED, VNMI], TIMER, HERE),
    "timer before the interrupt window": ("nop", [EXPIRED, IF, primary("INTERRUPT_WINDOW_EXITING")], TIMER, HERE),
    "timer after a pending #DB that exits": (
        "nop", [EXPIRED, STEP, DB_EXITS], "EXCEPTION_OR_NMI", HERE | {"EXIT_QUALIFICATION": 0x4000},
    ),
    "timer after a pending #DB that is delivered": ("nop", [EXPIRED, STEP], TIMER, at_handler(1)),
    "timer where MOV SS holds the #DB off": (
        "nop", [EXPIRED, STEP, MOV_SS], TIMER, HERE | MOV_SS | {"GUEST_PENDING_DEBUG_EXCEPTIONS": 0x4000},
    ),
    "NMI window behind MOV SS": ("nop\nnop", [VNMI, MOV_SS], NMI_WINDOW, NEXT),
    "NMI window in a halt": ("nop", [VNMI, HALTED], NMI_WINDOW, HERE | HALTED),
    "NMI window in a shutdown": ("nop", [VNMI, SHUT_DOWN], NMI_WINDOW, HERE | SHUT_DOWN),
    "NMI window after a pending #DB": ("nop", [VNMI, STEP], NMI_WINDOW, at_handler(1)),
    "NMI window before the interrupt window": (
        "nop", [VNMI, IF, primary("INTERRUPT_WINDOW_EXITING")], NMI_WINDOW, HERE,
    ),
    "interrupt window in a halt": (
        "nop", [IF, HALTED, primary("INTERRUPT_WINDOW_EXITING")], INTERRUPT_WINDOW, HERE | HALTED,
    ),
    "interrupt window behind STI": ("nop\nnop", [IF, STI, primary("INTERRUPT_WINDOW_EXITING")], INTERRUPT_WINDOW, NEXT),
    "interrupt window behind MOV SS": (
        "nop\nnop", [IF, MOV_SS, primary("INTERRUPT_WINDOW_EXITING")], INTERRUPT_WINDOW, NEXT,
    ),
    "watchpoint of MOV SS, after the next instruction": (
        f"mov ss, [{WATCHED}]\nnop\nnop", [WATCH, DB_EXITS], "EXCEPTION_OR_NMI",
        {"EXIT_QUALIFICATION": 1, "GUEST_RIP": GUEST + 7},
    ),
    "watchpoint of MOV SS, and a step": (
        f"mov ss, [{WATCHED}]\nnop\nnop", [WATCH, DB_EXITS, TF], "EXCEPTION_OR_NMI",
        {"EXIT_QUALIFICATION": 0x4001, "GUEST_RIP": GUEST + 7},
    ),
    "watchpoint of MOV SS, left pending by the exit of a fault": (
        f"mov ss, [{WATCHED}]\nud2", [WATCH, {"EXCEPTION_BITMAP": 1 << 6}], "EXCEPTION_OR_NMI",
        MOV_SS | {"GUEST_PENDING_DEBUG_EXCEPTIONS": 0x1001},
    ),
    "not by one that is a debug exception": (
        f"mov ss, [{WATCHED}]\nint1", [WATCH, TF, DB_EXITS], "EXCEPTION_OR_NMI",
        MOV_SS | {"GUEST_PENDING_DEBUG_EXCEPTIONS": 0, "EXIT_QUALIFICATION": 0},
    ),
    "watchpoint of an instruction that an EPT violation ends": (
        f"mov esp, 0x300000\npush dword [{WATCHED}]", [WATCH, WITH_EPT], "EPT_VIOLATION",
        {"GUEST_PENDING_DEBUG_EXCEPTIONS": 0},
    ),
    "step of MOV SS, not left pending with BTF": (
        "mov eax, ss\nmov ss, eax\ncpuid", [BRANCH_STEPS, TF], "CPUID", MOV_SS | {"GUEST_PENDING_DEBUG_EXCEPTIONS": 0},
    ),
    "a trap of BTF after a branch": (
        "nop\njmp short a\nnop\na: nop", [BRANCH_STEPS, TF, DB_EXITS], "EXCEPTION_OR_NMI",
        {"EXIT_QUALIFICATION": 0x4000, "GUEST_RIP": GUEST + 4, "GUEST_IA32_DEBUGCTL": 2},
    ),
    "an exit within the delivery of an event: nothing blocks, nothing is pending": (
        f"mov ss, [{WATCHED}]\nud2", [WATCH, WITH_EPT, NO_IDT], "EPT_VIOLATION",
        {"GUEST_INTERRUPTIBILITY_STATE": 0, "GUEST_PENDING_DEBUG_EXCEPTIONS": 0},
    ),
    "within that of INT n": ("sti\nint 7", [WITH_EPT, NO_IDT], "EPT_VIOLATION", {"GUEST_INTERRUPTIBILITY_STATE": 0}),
    "not where the event itself exits": ("sti\nud2", [{"EXCEPTION_BITMAP": 1 << 6}], "EXCEPTION_OR_NMI", STI),
    "within that of a trap that ends a halt": (
        "nop", [STEP, HALTED, WITH_EPT, NO_IDT], "EPT_VIOLATION", HERE | {"GUEST_ACTIVITY_STATE": 0},
    ),
    "not of a trap that exits from a halt": ("nop", [STEP, HALTED, DB_EXITS], "EXCEPTION_OR_NMI", HERE | HALTED),
    "within that of an event that is injected into a halt": (
        "nop", [inject(NMI), HALTED, WITH_EPT, NO_IDT], "EPT_VIOLATION",
        HERE | {"GUEST_ACTIVITY_STATE": 0, "GUEST_INTERRUPTIBILITY_STATE": 8},
    ),
    "blocking by STI ends with an exception": (
        "sti\nnop", [TF, primary("HLT_EXITING")], "HLT", at_handler(1) | {"GUEST_INTERRUPTIBILITY_STATE": 0},
    ),
    "a double fault that exits": (
        "nop", [STEP, HALTED, {"GUEST_IDTR_LIMIT": 0, "EXCEPTION_BITMAP": 1 << 8}], "EXCEPTION_OR_NMI",
        HERE | {"GUEST_ACTIVITY_STATE": 0, "IDT_VECTORING_INFORMATION_FIELD": 0},
    ),
    "watchpoint of MOV SS, left pending by an exit": (
        f"mov ss, [{WATCHED}]\ncpuid", [WATCH, TF], "CPUID", MOV_SS | {"GUEST_PENDING_DEBUG_EXCEPTIONS": 0x5001},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CASES)
def test_the_first_event_and_what_it_leaves(what: str) -> None:
    text, changes, reason, fields = CASES[what]
    bench = Bench()
    bench.cpu.dr0 = WATCHED
    bench.cpu.memory.write(WATCHED, b"\x10\0")  # the data segment's selector
    assert bench.exit(text, *changes) == reason
    assert {name: bench[name] for name in fields} == dict(fields)
