"""Task switches."""

import pytest
from system import (
    CODE0,
    CODE3,
    DATA0,
    DATA3,
    DB,
    FREE,
    GP,
    HANDLERS,
    LOCAL,
    NP,
    NT,
    PRESENT,
    SS,
    STACK0,
    STACK3,
    TASK,
    TASK2,
    TF,
    TS,
    TSS,
    TSS2,
    USER,
    WRITABLE,
    Bench,
    code,
    data,
    gate,
    system,
)

ENTRY = 0x18000
BUSY = 2 << 40


def new_task(bench: Bench, **fields: int) -> None:
    """Fills the 32-bit TSS of the second task: flat segments of CPL 0, unless told otherwise."""
    values = {
        "back_link": 0, "cr3": bench.cpu.cr3, "eip": ENTRY, "eflags": 2, "eax": 0xA0, "ecx": 0xC0, "edx": 0xD0,
        "ebx": 0xB0, "esp": 0xE000, "ebp": 0xBB, "esi": 0x51, "edi": 0xD1, "es": DATA0, "cs": CODE0, "ss": DATA0,
        "ds": DATA0, "fs": 0, "gs": 0, "ldt": LOCAL, "trap": 0,
    } | fields  # fmt: skip
    bench.write32(TSS2 + 4, STACK0 - 0x800, DATA0)
    offsets = {"back_link": 0, "cr3": 0x1C, "eip": 0x20, "eflags": 0x24, "eax": 0x28, "ecx": 0x2C, "edx": 0x30,
               "ebx": 0x34, "esp": 0x38, "ebp": 0x3C, "esi": 0x40, "edi": 0x44, "es": 0x48, "cs": 0x4C, "ss": 0x50,
               "ds": 0x54, "fs": 0x58, "gs": 0x5C, "ldt": 0x60, "trap": 0x64}  # fmt: skip
    for name, value in values.items():
        bench.write32(TSS2 + offsets[name], value)


@pytest.fixture
def bench() -> Bench:
    bench = Bench(faults="raise")
    new_task(bench)
    return bench


@pytest.mark.parametrize("instruction", ["jmp", "call"])
@pytest.mark.parametrize("through_gate", [False, True])
def test_switch_saves_and_loads(bench: Bench, instruction: str, through_gate: bool) -> None:
    """SDM Vol. 3, "Task Switching": the whole state, busy bits, back link, NT, TS."""
    cpu = bench.cpu
    bench.set_descriptor(FREE, gate(5, TASK2, 0))
    cpu.eax, cpu.ecx, cpu.edx, cpu.ebx, cpu.ebp, cpu.esi, cpu.edi = 1, 2, 3, 4, 5, 6, 7
    cpu.rflags = 0x3
    cpu.dr7 = 0x755
    assert bench.fault(f"{instruction} {FREE if through_gate else TASK2:#x}:0") is None
    nested = instruction == "call"
    assert [bench.read32(TSS + 0x20 + 4 * i) for i in range(10)] == [bench.code + 7, 3, 1, 2, 3, 4, STACK0, 5, 6, 7]
    assert [bench.read16(TSS + 0x48 + 4 * i) for i in range(6)] == [DATA0, CODE0, DATA0, DATA0, DATA0, DATA0]
    assert (cpu.eax, cpu.ecx, cpu.edx, cpu.ebx) == (0xA0, 0xC0, 0xD0, 0xB0)
    assert (cpu.esp, cpu.ebp, cpu.esi, cpu.edi, cpu.rip) == (0xE000, 0xBB, 0x51, 0xD1, ENTRY)
    assert (cpu.cs.selector, cpu.ds.selector, cpu.fs.selector, cpu.tr.selector) == (CODE0, DATA0, 0, TASK2)
    assert cpu.rflags == (2 | NT if nested else 2)
    assert cpu.cr0 & 8
    assert cpu.dr7 == 0x600  # the local breakpoints and LE are cleared
    assert bool(bench.get_descriptor(TASK) & BUSY) == nested
    assert bench.get_descriptor(TASK2) & BUSY
    assert bench.read16(TSS2) == (TASK if nested else 0)


def test_call_and_iret(bench: Bench) -> None:
    """SDM Vol. 3, "Task Linking": IRET with NT goes back and clears NT in what it saves."""
    bench.place("iret", at=ENTRY)
    assert bench.fault(f"call {TASK2:#x}:0", steps=2) is None
    cpu = bench.cpu
    assert (cpu.tr.selector, cpu.rip, cpu.rflags) == (TASK, bench.code + 7, 2)
    assert bench.read32(TSS2 + 0x20) == ENTRY + 1
    assert bench.read32(TSS2 + 0x24) == 2
    assert bench.get_descriptor(TASK) & BUSY
    assert not bench.get_descriptor(TASK2) & BUSY


# SDM Vol. 3, "Exception Conditions Checked During a Task Switch": before the switch.
@pytest.mark.parametrize(
    ("value", "selector", "cpl", "expected"),
    [
        (system(9, TSS2, 0x67), FREE | 3, 0, (GP, FREE)),  # RPL > DPL
        (system(9, TSS2, 0x67), FREE, 3, (GP, FREE)),  # CPL > DPL
        (system(11, TSS2, 0x67), FREE, 0, (GP, FREE)),  # busy
        (system(9, TSS2, 0x67, present=0), FREE, 0, (NP, FREE)),
        (system(9, TSS2, 0x66), FREE, 0, (TS, FREE)),  # limit
        (system(1, TSS2, 0x2A), FREE, 0, (TS, FREE)),
        (gate(5, TASK2, 0, dpl=2), FREE, 3, (GP, FREE)),
        (gate(5, TASK2, 0, dpl=3, present=0), FREE, 3, (NP, FREE)),
        (gate(5, TASK2 | 4, 0), FREE, 0, (GP, TASK2 | 4)),
        (gate(5, TASK, 0), FREE, 0, (GP, TASK)),
        (gate(5, DATA0, 0), FREE, 0, (GP, DATA0)),
        (gate(5, 0x400, 0), FREE, 0, (GP, 0x400)),
        (gate(5, TASK2, 0, dpl=3), FREE | 3, 3, None),  # the gate's DPL alone counts
    ],
)
@pytest.mark.parametrize("instruction", ["jmp", "call"])
def test_checks_before_the_switch(
    bench: Bench, instruction: str, value: int, selector: int, cpl: int, expected: tuple[int, int] | None
) -> None:
    bench.set_descriptor(FREE, value)
    if cpl:
        bench.enter_ring(cpl)
    assert bench.fault(f"{instruction} {selector:#x}:0") == expected
    assert bench.cpu.tr.selector == (TASK if expected else TASK2)


# The same table: in the context of the new task. The saved EIP is the new task's.
@pytest.mark.parametrize(
    ("fields", "value", "expected"),
    [
        ({"ldt": LOCAL | 4}, 0, (TS, LOCAL | 4)),
        ({"ldt": 0x400}, 0, (TS, 0x400)),
        ({"ldt": DATA0}, 0, (TS, DATA0)),
        ({"ldt": FREE}, system(2, 0x3800, 0xFF, present=0), (TS, FREE)),
        ({"cs": 0}, 0, (TS, 0)),
        ({"cs": FREE}, data(0), (TS, FREE)),
        ({"cs": FREE}, code(3), (TS, FREE)),
        ({"cs": FREE}, code(1, type_=0xE), (TS, FREE)),
        ({"cs": FREE}, code(0, present=0), (NP, FREE)),
        ({"ss": 0}, 0, (TS, 0)),
        ({"ss": FREE}, data(3), (TS, FREE)),
        ({"ss": FREE | 1}, data(0), (TS, FREE)),
        ({"ss": FREE}, data(0, type_=0), (TS, FREE)),
        ({"ss": FREE}, data(0, present=0), (SS, FREE)),
        ({"ds": FREE}, code(0, type_=8), (TS, FREE)),
        ({"es": FREE | 3}, data(0), (TS, FREE)),
        ({"fs": 0x400}, data(0), (TS, 0x400)),
        ({"gs": FREE}, data(0, present=0), (NP, FREE)),
    ],
)
def test_checks_in_the_new_task(fields: dict[str, int], value: int, expected: tuple[int, int]) -> None:
    """The new task may have no good stack: a third one takes the fault, through a task gate."""
    bench = Bench()
    bench.set_descriptor(FREE, value)
    new_task(bench, **fields)
    third, third_tss = FREE + 8, 0x20800
    bench.set_descriptor(third, system(9, third_tss, 0x67))
    bench.write32(third_tss + 0x1C, 0, HANDLERS + expected[0] * 16, 2)
    bench.write32(third_tss + 0x38, 0xF000)
    bench.write32(third_tss + 0x48, DATA0, CODE0, DATA0, DATA0, 0, 0, 0)
    bench.set_gate(expected[0], gate(5, third, 0))
    frame = bench.run(f"jmp {TASK2:#x}:0")
    assert (frame.vector, frame.stack[0]) == expected
    assert bench.cpu.tr.selector == third
    assert bench.read16(third_tss) == TASK2
    assert bench.read32(TSS2 + 0x20) == ENTRY


def test_entry_beyond_the_code_limit(bench: Bench) -> None:
    """SDM Vol. 2, "JMP": #GP(0) in the new task if EIP lies outside its code segment."""
    bench.set_descriptor(FREE, code(0, limit=0x17FFF, flags=4))
    new_task(bench, cs=FREE)
    assert bench.fault(f"jmp {TASK2:#x}:0") == (GP, 0)
    assert bench.cpu.tr.selector == TASK2


def test_16_bit_task() -> None:
    """SDM Vol. 3, "16-Bit Task-State Segment (TSS)": no FS, GS, CR3; a 32-bit task calls it and gets back."""
    bench = Bench(faults="raise")
    tss = 0x20800
    bench.set_descriptor(FREE, system(1, tss, 0x2B))
    bench.write16(tss + 0x0E, 0x8000, 0x0002, 1, 2, 3, 4, 0xE000, 5, 6, 7, DATA0, CODE0, DATA0, DATA0, 0)
    bench.place("iret", at=0x8000)
    cpu = bench.cpu
    assert bench.fault(f"call {FREE:#x}:0") is None
    assert (cpu.rip, cpu.ax, cpu.cx, cpu.dx, cpu.bx, cpu.sp, cpu.bp, cpu.si, cpu.di) == (
        0x8000,
        1,
        2,
        3,
        4,
        0xE000,
        5,
        6,
        7,
    )
    assert (cpu.fs.selector, cpu.gs.selector, cpu.ldtr.selector) == (0, 0, 0)
    assert cpu.rflags == 2 | NT
    assert bench.read16(tss) == TASK
    assert bench.step() is None
    assert (cpu.tr.selector, cpu.rip, cpu.ldtr.selector) == (TASK, bench.code + 7, 0)
    assert (bench.read16(tss + 0x0E), bench.read16(tss + 0x10)) == (0x8001, 2)


def test_switch_to_ring_3_and_back_by_interrupt() -> None:
    """A task of CPL 3 is interrupted through a task gate; the gate's task links to it and has NT."""
    bench = Bench()
    new_task(bench, cs=CODE3, ss=DATA3, ds=DATA3, es=DATA3, esp=STACK3)
    third, third_tss = FREE, 0x20800
    bench.set_descriptor(third, system(9, third_tss, 0x67))
    bench.write32(third_tss + 0x1C, 0, 0x19000, 2)
    bench.write32(third_tss + 0x38, 0xF000)
    bench.write32(third_tss + 0x48, DATA0, CODE0, DATA0, DATA0, 0, 0, 0)
    bench.set_gate(0x40, gate(5, third, 0, dpl=3))
    bench.place("hlt\n", at=0x19000)
    bench.place("int 40h\n", at=ENTRY)
    frame = bench.run(f"jmp {TASK2:#x}:0")
    assert frame.vector is None
    cpu = bench.cpu
    assert (cpu.rip, cpu.cpl, cpu.tr.selector) == (0x19001, 0, third)
    assert cpu.rflags & NT
    assert bench.read16(third_tss) == TASK2
    assert bench.read32(TSS2 + 0x20) == ENTRY + 2
    assert bench.get_descriptor(TASK2) & BUSY


def test_error_code_on_the_new_tasks_stack() -> None:
    """SDM Vol. 2, "INT n": an exception through a task gate pushes its error code on the stack of the new task."""
    bench = Bench()
    new_task(bench, eip=HANDLERS + GP * 16)
    bench.set_gate(GP, gate(5, TASK2, 0))
    frame = bench.run("mov ax, 0ABCh\n mov ds, ax")
    assert (frame.vector, frame.stack[0], bench.cpu.esp) == (GP, 0xABC, 0xE000 - 4)
    assert bench.read32(TSS + 0x20) == bench.code + 4
    assert bench.read32(TSS + 0x24) & 0x10000  # RF of a fault


@pytest.mark.parametrize(("link", "value", "expected"), [
    (FREE | 4, 0, (TS, FREE | 4)),
    (0x400, 0, (TS, 0x400)),
    (FREE, system(9, TSS2, 0x67), (TS, FREE)),  # not busy
    (FREE, data(0), (TS, FREE)),
    (FREE, system(11, TSS2, 0x67, present=0), (NP, FREE)),
    (FREE, system(11, TSS2, 0x66), (TS, FREE)),
])  # fmt: skip
def test_task_return_checks(bench: Bench, link: int, value: int, expected: tuple[int, int]) -> None:
    """SDM Vol. 2, "IRET": TASK-RETURN."""
    bench.set_descriptor(FREE, value)
    bench.write16(TSS, link)
    bench.cpu.rflags = 2 | NT
    assert bench.fault("iret") == expected
    assert bench.cpu.tr.selector == TASK


def test_debug_trap_bit() -> None:
    """SDM Vol. 3, "Task-Switch Exception Condition": T in the new TSS: #DB with DR6.BT at its first instruction."""
    bench = Bench()
    new_task(bench, trap=1)
    bench.place("hlt", at=ENTRY)
    frame = bench.run(f"jmp {TASK2:#x}:0")
    assert (frame.vector, frame.stack[0]) == (DB, ENTRY)
    assert bench.cpu.dr6 & 0x8000


def test_cr3_of_the_new_task() -> None:
    """SDM Vol. 3, "Task Address Space": CR3 is loaded with the task where paging is on."""
    bench = Bench(faults="raise")
    bench.map_pages()
    bench.write32(0x42000, 0x41000 | PRESENT | WRITABLE | USER)
    bench.write32(0x42000 + 4, 0x43000 | PRESENT | WRITABLE | USER)  # 400000h on: a second table
    bench.write32(0x43000, 0x18000 | PRESENT)
    new_task(bench, cr3=0x42000, eip=0x400000)
    bench.place("mov eax, cr3", at=ENTRY)
    assert bench.fault(f"jmp {TASK2:#x}:0", steps=2) is None
    assert (bench.cpu.eax, bench.cpu.rip) == (0x42000, 0x400003)


def test_page_fault_before_the_switch_leaves_the_task() -> None:
    """SDM Vol. 3, "Task Switching": the TSSs are checked to be there before the switch begins."""
    bench = Bench(faults="raise")
    bench.map_pages()
    bench.set_descriptor(FREE, system(9, 0x25FC0, 0x67))
    bench.set_page(0x26000, 0)
    new_task(bench)
    assert bench.fault(f"jmp {FREE:#x}:0") == (14, 0)
    assert bench.cpu.tr.selector == TASK
    assert bench.get_descriptor(TASK) & BUSY
    assert not bench.get_descriptor(FREE) & BUSY


def test_flags_of_the_new_task_trace_it() -> None:
    """TF loaded from a TSS traps after the new task's first instruction."""
    bench = Bench()
    new_task(bench, eflags=2 | TF)
    bench.place("nop\n ud2", at=ENTRY)
    frame = bench.run(f"jmp {TASK2:#x}:0")
    assert (frame.vector, frame.stack[0]) == (DB, ENTRY + 1)
