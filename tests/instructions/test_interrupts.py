"""Delivery of interrupts and exceptions, and IRET."""

from collections.abc import Callable

import pytest
from system import (
    BP,
    BR,
    CODE0,
    CODE1,
    CODE3,
    DATA0,
    DATA1,
    DATA3,
    DB,
    DE,
    DF,
    FREE,
    GP,
    HANDLERS,
    IF,
    NMI,
    NP,
    NT,
    OF,
    PF,
    SS,
    STACK0,
    STACK1,
    STACK3,
    TASK,
    TF,
    TS,
    TSS,
    UD,
    VM,
    Bench,
    code,
    data,
    gate,
    system,
)

from emu.stop import StopReason

H = HANDLERS + 0x40 * 16  # the handler of INT 40h


@pytest.fixture
def bench() -> Bench:
    return Bench()


# --- gates: SDM Vol. 3, "Exception- or Interrupt-Handler Procedures" ---


@pytest.mark.parametrize(("type_", "size"), [(14, 4), (15, 4), (6, 2), (7, 2)])
@pytest.mark.parametrize("cpl", [0, 3])
def test_gate_kinds(bench: Bench, type_: int, size: int, cpl: int) -> None:
    """Frame, stack, flags: SDM Vol. 3, "Flag Usage By Exception- or Interrupt-Handler Procedure"."""
    bench.set_gate(0x40, gate(type_, CODE0, H, dpl=3))
    bench.cpu.rflags = 0x3202 | 1  # IOPL 3, IF, CF
    if cpl:
        bench.enter_ring(3)
    sp = bench.cpu.esp
    assert bench.run("int 40h").vector == 0x40
    want = [bench.code + 2, CODE3 if cpl else CODE0, 0x3203] + ([sp, DATA3] if cpl else [])
    assert list(bench.stack(len(want), size)) == [value & (0xFFFF if size == 2 else 0xFFFFFFFF) for value in want]
    assert bench.cpu.esp == STACK0 - len(want) * size
    assert bool(bench.cpu.rflags & IF) == bool(type_ & 1)
    assert bench.cpu.rflags & 0x3001 == 0x3001


def test_trap_flag_and_nt_are_cleared(bench: Bench) -> None:
    """SDM Vol. 2, "INT n": TF, NT, RF and VM are cleared in the handler and stay in the image."""
    bench.cpu.rflags = 2 | NT
    frame = bench.run("int 40h")
    assert frame.vector == 0x40
    assert frame.stack[2] == 2 | NT
    assert bench.cpu.rflags & (NT | TF) == 0


def test_interrupt_to_ring_1(bench: Bench) -> None:
    bench.set_gate(0x40, gate(14, CODE1, H, dpl=3))
    bench.enter_ring(3)
    frame = bench.run("int 40h")  # HLT in ring 1 is #GP, to ring 0
    assert frame.vector == GP
    assert frame.stack[1:6] == (H, CODE1, 0x10002, STACK1 - 20, DATA1)


def test_conforming_handler_stays_at_its_level(bench: Bench) -> None:
    """SDM Vol. 2, "INT n": a conforming code segment is entered without a change of privilege or stack."""
    bench.set_descriptor(FREE, code(0, type_=0xE))
    bench.set_gate(0x40, gate(14, FREE, H, dpl=3))
    bench.enter_ring(3)
    frame = bench.run("int 40h")
    assert frame.vector == GP
    assert frame.stack[1:3] == (H, FREE | 3)
    assert frame.stack[4] == STACK3 - 12


# SDM Vol. 2, "INT n": PROTECTED-MODE. The error code has EXT clear for INT n, set for exceptions.
GATE_CHECKS = [
    (gate(14, CODE0, H), code(0), 3, (GP, 0x40 * 8 + 2)),  # DPL < CPL
    (gate(14, CODE0, H, present=0), code(0), 0, (NP, 0x40 * 8 + 2)),
    (gate(14, CODE0, H, present=0), code(0), 3, (GP, 0x40 * 8 + 2)),
    (gate(12, CODE0, H, dpl=3), code(0), 0, (GP, 0x40 * 8 + 2)),
    (code(0), code(0), 0, (GP, 0x40 * 8 + 2)),
    (gate(14, 0, H), code(0), 0, (GP, 0)),
    (gate(14, 0x400, H), code(0), 0, (GP, 0x400)),
    (gate(14, FREE, H), data(0), 0, (GP, FREE)),
    (gate(14, FREE, H), code(3), 0, (GP, FREE)),  # DPL > CPL
    (gate(14, FREE, H), code(0, present=0), 0, (NP, FREE)),
    (gate(14, FREE, H), code(0, limit=0x1000, flags=4), 0, (GP, 0)),
    (gate(5, 0x2C, 0), code(0), 0, (GP, 0x2C)),  # a TSS in the LDT
    (gate(5, FREE, 0), system(11, 0x3400, 0x67), 0, (GP, FREE)),  # busy
    (gate(5, FREE, 0), system(9, 0x3400, 0x67, present=0), 0, (NP, FREE)),
    (gate(5, FREE, 0), system(9, 0x3400, 0x66), 0, (TS, FREE)),
]


@pytest.mark.parametrize(("value", "target", "cpl", "expected"), GATE_CHECKS)
def test_gate_checks(bench: Bench, value: int, target: int, cpl: int, expected: tuple[int, int]) -> None:
    bench.set_descriptor(FREE, target)
    bench.set_gate(0x40, value)
    if cpl:
        bench.enter_ring(cpl)
    frame = bench.run("int 40h")
    assert (frame.vector, frame.stack[0]) == expected
    assert frame.stack[1] == bench.code  # the INT itself faulted


@pytest.mark.parametrize(("value", "target", "expected"), [
    (value, target, (vector, error | 1)) for value, target, cpl, (vector, error) in GATE_CHECKS if cpl == 0
])  # fmt: skip
def test_external_events_set_ext(bench: Bench, value: int, target: int, expected: tuple[int, int]) -> None:
    """SDM Vol. 3, "Error Code": EXT is set where an exception meets the error, here #UD, which has none of its own."""
    bench.set_descriptor(FREE, target)
    bench.set_gate(UD, value)
    frame = bench.run("ud2")
    vector, error = expected
    if error & 2:
        error = UD * 8 + 3
    assert (frame.vector, frame.stack[0]) == (vector, error)


@pytest.mark.parametrize(("limit", "works"), [(0x40 * 8 + 7, True), (0x40 * 8 + 6, False)])
def test_idt_limit(bench: Bench, limit: int, works: bool) -> None:
    """SDM Vol. 3, "Interrupt Descriptor Table (IDT)": the whole gate must lie within the limit."""
    bench.cpu.idtr.limit = limit
    frame = bench.run("int 40h")
    assert frame.vector == (0x40 if works else GP)
    if not works:
        assert frame.stack[0] == 0x40 * 8 + 2


@pytest.mark.parametrize(("instruction", "vector"), [("int3", BP), ("int 3", BP), ("into", OF)])
def test_software_exceptions_check_the_gate(bench: Bench, instruction: str, vector: int) -> None:
    """SDM Vol. 2, "INT n/INTO/INT3": the gate's DPL counts for them, and they return after themselves."""
    text = f"mov al, 7Fh\n add al, 1\n {instruction}"
    bench.set_gate(vector, gate(14, CODE0, HANDLERS + vector * 16, dpl=3))
    bench.enter_ring(3)
    length = bench.place(text)
    frame = bench.go_on()
    assert (frame.vector, frame.stack[0]) == (vector, bench.code + length)
    bench = Bench()
    bench.enter_ring(3)
    frame = bench.run(text)
    assert (frame.vector, frame.stack[0]) == (GP, vector * 8 + 2)


def test_int1_and_exceptions_ignore_the_gates_dpl(bench: Bench) -> None:
    """SDM Vol. 2, "INT1": no check of the gate's DPL."""
    bench.enter_ring(3)
    frame = bench.run("int1")
    assert (frame.vector, frame.stack[0]) == (DB, bench.code + 1)
    bench = Bench()
    bench.enter_ring(3)
    frame = bench.run("xor ecx, ecx\n div ecx")
    assert (frame.vector, frame.stack[0]) == (DE, bench.code + 2)


def test_into_without_overflow(bench: Bench) -> None:
    bench.cpu.rflags = 2
    assert bench.run("into\n hlt").vector is None


@pytest.mark.parametrize(
    ("text", "vector", "error", "at"),
    [
        ("xor ecx, ecx\n div ecx", DE, None, 2),
        ("ud2", UD, None, 0),
        ("bound eax, [20000h]", BR, None, 0),
        ("mov ax, 0ABCh\n mov ds, ax", GP, 0xABC, 4),
        ("mov eax, [cs:0FFFFFFFEh]", GP, 0, 0),
        ("mov eax, cr0\n or eax, 8\n mov cr0, eax\n or eax, 2\n mov cr0, eax\n wait", 7, None, 15),
    ],
)
def test_exception_frames(bench: Bench, text: str, vector: int, error: int | None, at: int) -> None:
    """SDM Vol. 3, "Exception and Interrupt Reference": faults return to the instruction, with their error code and with
    RF set in the image of EFLAGS."""
    bench.write32(0x20000, 1, 0)
    bench.cpu.eax = 5
    frame = bench.run(text)
    items = list(frame.stack)
    if error is not None:
        assert items.pop(0) == error
    assert (frame.vector, items[0], items[1]) == (vector, bench.code + at, CODE0)
    assert items[2] & 0x10000


# --- stacks: SDM Vol. 2, "INT n": INTER-PRIVILEGE-LEVEL-INTERRUPT, INTRA-PRIVILEGE-LEVEL-INTERRUPT ---


@pytest.mark.parametrize(
    ("stack", "selector", "expected"),
    [
        (data(1), 1, (TS, 0)),
        (data(1), 0x401, (TS, 0x400)),
        (data(1), FREE, (TS, FREE)),  # RPL
        (data(0), FREE | 1, (TS, FREE)),  # DPL
        (data(1, type_=0), FREE | 1, (TS, FREE)),
        (data(1, present=0), FREE | 1, (SS, FREE)),
        (data(1, limit=STACK1 - 2, flags=4), FREE | 1, (SS, FREE)),
        (data(1, limit=STACK1 - 1, flags=4), FREE | 1, None),
    ],
)
@pytest.mark.parametrize("external", [0, 1])
def test_new_stack(bench: Bench, stack: int, selector: int, expected: tuple[int, int] | None, external: int) -> None:
    """The ring 1 stack is bad; the fault is delivered on the ring 0 stack."""
    bench.set_descriptor(FREE, stack)
    bench.write32(TSS + 16, selector)
    bench.set_gate(UD if external else 0x40, gate(14, CODE1, H, dpl=3))
    bench.enter_ring(3)
    frame = bench.run("ud2" if external else "int 40h")
    if expected is None:
        assert (frame.vector, frame.stack[1]) == (GP, H)  # the handler's HLT in ring 1
    else:
        assert (frame.vector, frame.stack[0]) == (expected[0], expected[1] | external)
        assert frame.stack[1] == bench.code


@pytest.mark.parametrize(("sp", "expected"), [(0x100C, None), (0x100B, (SS, 0)), (0x1000, (SS, 0))])
def test_no_room_on_the_same_stack(sp: int, expected: tuple[int, int] | None) -> None:
    """#SS(EXT), here of INT 40h in ring 1 on an expand-down stack; the fault goes to ring 0's good stack."""
    bench = Bench()
    bench.set_gate(0x40, gate(14, CODE1, H, dpl=3))
    bench.set_descriptor(FREE, data(1, limit=0xFFF, flags=4, type_=6))
    bench.enter_ring(1)
    bench.cpu.ss.load(FREE | 1)
    bench.cpu.esp = sp
    frame = bench.run("int 40h")
    if expected is None:
        assert (frame.vector, frame.stack[1]) == (GP, H)
    else:
        assert (frame.vector, frame.stack[0]) == expected
        assert frame.stack[4] == sp


def test_tss_without_the_stack(bench: Bench) -> None:
    """#TS(TSS selector) where the level's stack lies beyond the TSS limit; nothing else can be delivered then, so that
    the processor shuts down."""
    bench.enter_ring(3)
    bench.cpu.tr.limit = 8
    bench.place("int 40h")
    bench.set_gate(0x40, gate(14, CODE0, H, dpl=3))
    assert bench.cpu.run().reason == StopReason.TRIPLE_FAULT
    raising = Bench(faults="raise")
    raising.enter_ring(3)
    raising.cpu.tr.limit = 8
    raising.set_descriptor(FREE, gate(12, CODE0, H, dpl=3))
    assert raising.fault(f"call {FREE | 3:#x}:0") == (TS, TASK)


# --- double and triple faults: SDM Vol. 3, "Interrupt 8 - Double Fault Exception" ---


def test_contributory_after_contributory_is_a_double_fault(bench: Bench) -> None:
    bench.set_gate(GP, gate(14, CODE0, HANDLERS + GP * 16, present=0))
    frame = bench.run("mov ax, 0ABCh\n mov ds, ax")
    assert (frame.vector, frame.stack[0]) == (DF, 0)
    assert frame.stack[1] == bench.code + 4


def test_benign_then_contributory_is_serial(bench: Bench) -> None:
    """#UD, then #NP of its gate: the second is handled alone, with EXT and the gate in its error code."""
    bench.set_gate(UD, gate(14, CODE0, H, present=0))
    frame = bench.run("ud2")
    assert (frame.vector, frame.stack[0], frame.stack[1]) == (NP, UD * 8 + 3, bench.code)


def test_software_interrupt_is_benign(bench: Bench) -> None:
    """INT 13 is no #GP: the fault that its delivery meets is handled alone."""
    bench.set_gate(GP, gate(14, CODE0, HANDLERS + GP * 16, present=0))
    frame = bench.run("int 13")
    assert (frame.vector, frame.stack[0]) == (NP, GP * 8 + 2)


def test_page_fault_while_delivering_a_contributory_is_serial(bench: Bench) -> None:
    """Contributory, then page fault: handled serially. The IDT lies across two pages, #GP's gate in the missing one."""
    bench.map_pages()
    bench.cpu.idtr.base = 0x30000 - PF * 8
    bench.cpu.memory.write(0x30000 - PF * 8, bytes(bench.cpu.memory.read(0x2000, 0x200)))
    bench.set_page(0x2F000, 0)
    frame = bench.run("mov ax, 0ABCh\n mov ds, ax")
    assert frame.vector == PF
    assert bench.cpu.cr2 == 0x30000 - 8
    assert frame.stack[0] == 0


def test_page_fault_while_delivering_a_page_fault_is_double(bench: Bench) -> None:
    bench.map_pages()
    bench.set_gate(PF, gate(14, FREE, H))
    bench.cpu.gdtr.base = 0x31000 - FREE  # the code segment's descriptor lies in a page that is missing
    bench.cpu.memory.write(0x31000 - FREE, bytes(bench.cpu.memory.read(0x1000, FREE)))
    bench.set_page(0x31000, 0)
    bench.set_page(0x35000, 0)
    frame = bench.run("mov eax, [35000h]")
    assert (frame.vector, frame.stack[0]) == (DF, 0)
    assert bench.cpu.cr2 == 0x31000


def test_triple_fault(bench: Bench) -> None:
    """A contributory exception while #DF is delivered: shutdown."""
    bench.set_gate(GP, 0)
    bench.set_gate(DF, 0)
    bench.place("mov ax, 0ABCh\n mov ds, ax")
    assert bench.cpu.run(instructions=100).reason == StopReason.TRIPLE_FAULT


def test_handler_that_faults_for_ever_ends_at_the_limit() -> None:
    """It completes no instruction, but a run that has a limit ends."""
    bench = Bench()
    bench.set_gate(UD, gate(14, CODE0, 0x18000))
    bench.place("ud2", at=0x18000)
    bench.place("ud2")
    assert bench.cpu.run(instructions=1000).reason == StopReason.LIMIT
    assert (bench.cpu.instructions, bench.cpu.rip) == (0, 0x18000)


def test_empty_idt_is_a_triple_fault() -> None:
    bench = Bench()
    bench.cpu.idtr.limit = 0
    bench.place("ud2")
    assert bench.cpu.run(instructions=100).reason == StopReason.TRIPLE_FAULT


# --- real-address mode: SDM Vol. 3, "Interrupt and Exception Handling" in "8086 Emulation" ---


def test_real_mode_interrupt() -> None:
    bench = Bench(bits=16)
    bench.cpu.rflags = 0x3203
    frame = bench.run("int 40h")
    assert frame.vector == 0x40
    assert bench.stack(3, 2) == (bench.code + 2, 0, 0x3203)
    assert bench.cpu.rflags & (IF | TF) == 0


def test_real_mode_exceptions_push_no_error_code() -> None:
    bench = Bench(bits=16)
    frame = bench.run("mov eax, [0FFFEh]")
    assert (frame.vector, bench.cpu.sp) == (GP, STACK0 - 6)
    assert bench.stack(2, 2) == (bench.code, 0)


def test_real_mode_idt_limit() -> None:
    """A vector beyond the limit is #GP; where that is beyond it too, shutdown."""
    bench = Bench(bits=16)
    bench.cpu.idtr.limit = 0x40 * 4 + 2
    assert bench.run("int 40h").vector == GP
    bench = Bench(bits=16)
    bench.cpu.idtr.limit = 0
    bench.place("int 40h")
    assert bench.cpu.run(instructions=10).reason == StopReason.TRIPLE_FAULT


def test_real_mode_double_fault() -> None:
    """The IDT holds #DF but not #GP."""
    bench = Bench(bits=16)
    bench.cpu.idtr.limit = 8 * 4 + 3
    frame = bench.run("mov eax, [0FFFEh]")
    assert frame.vector == DF


def test_real_mode_iret() -> None:
    """SDM Vol. 2, "IRET": REAL-ADDRESS-MODE; IRETD leaves VM, VIF and VIP."""
    bench = Bench(faults="raise", bits=16)
    bench.cpu.sp = 0x4000
    bench.write16(0x4000, 0x5678, 0x0123, 0x7ED7)
    assert bench.fault("iret") is None
    assert (bench.cpu.rip, bench.cpu.cs.base, bench.cpu.rflags) == (0x5678, 0x1230, 0x7ED7)
    bench = Bench(faults="raise", bits=16)
    bench.cpu.sp = 0x4000
    bench.write32(0x4000, 0x5678, 0x0123, 0x003F7ED7)
    assert bench.fault("iretd") is None
    assert bench.cpu.sp == 0x400C
    assert bench.cpu.rflags & (VM | 0x180000) == 0


# --- IRET in protected mode: SDM Vol. 2, "IRET/IRETD" ---


@pytest.mark.parametrize(
    ("value", "selector", "expected"),
    [
        (code(0), FREE, None),
        (code(0), 0, (GP, 0)),
        (code(0), 0x400, (GP, 0x400)),
        (data(0), FREE, (GP, FREE)),
        (code(3), FREE, (GP, FREE)),
        (code(1, type_=0xE), FREE, (GP, FREE)),
        (code(0, present=0), FREE, (NP, FREE)),
        (code(0, limit=0x1000, flags=4), FREE, (GP, 0)),
    ],
)
def test_iret_checks(value: int, selector: int, expected: tuple[int, int] | None) -> None:
    bench = Bench(faults="raise")
    bench.set_descriptor(FREE, value)
    bench.cpu.esp = STACK0 - 12
    bench.write32(STACK0 - 12, 0x18000, selector, 0x202)
    assert bench.fault("iret") == expected
    assert bench.cpu.esp == (STACK0 - 12 if expected else STACK0)
    assert bool(bench.cpu.rflags & IF) == (expected is None)


def test_iret_to_an_outer_level() -> None:
    bench = Bench(faults="raise")
    bench.cpu.esp = STACK0 - 20
    bench.write32(STACK0 - 20, 0x18000, CODE3, 0x3202, 0x6000, DATA3)
    assert bench.fault("iret") is None
    cpu = bench.cpu
    assert (cpu.rip, cpu.cs.selector, cpu.cpl, cpu.ss.selector, cpu.esp) == (0x18000, CODE3, 3, DATA3, 0x6000)
    assert (cpu.ds.selector, cpu.es.selector, cpu.fs.selector, cpu.gs.selector) == (0, 0, 0, 0)
    assert cpu.rflags & 0x3200 == 0x3200


def test_iret_to_more_privilege_is_refused() -> None:
    bench = Bench(faults="raise")
    bench.enter_ring(3)
    bench.cpu.esp = STACK3 - 12
    bench.write32(STACK3 - 12, 0x18000, CODE0, 0x202)
    assert bench.fault("iret") == (GP, CODE0)


@pytest.mark.parametrize(
    ("cpl", "iopl", "changes"),
    [(0, 0, 0x3200), (0, 3, 0x3200), (3, 0, 0), (3, 3, 0x200), (1, 0, 0), (1, 1, 0x200)],
)
@pytest.mark.parametrize("instruction", ["iret", "popf"])
def test_if_and_iopl_by_privilege(cpl: int, iopl: int, changes: int, instruction: str) -> None:
    """SDM Vol. 2, "IRET", "POPF": IOPL changes at CPL 0 alone, IF where CPL <= IOPL."""
    bench = Bench(faults="raise")
    if cpl:
        bench.enter_ring(cpl)
    bench.cpu.rflags = 2 | iopl << 12
    wanted = 0x203 | (iopl ^ 3) << 12
    bench.cpu.esp -= 12
    if instruction == "iret":
        bench.write32(bench.cpu.esp, 0x18000, bench.cpu.cs.selector, wanted)
    else:
        bench.write32(bench.cpu.esp, wanted)
    assert bench.fault(instruction) is None
    assert bench.cpu.rflags == ((2 | iopl << 12) & ~changes) | (wanted & changes) | 3


def test_popf_leaves_vm_and_clears_nothing_else(bench: Bench) -> None:
    """SDM Vol. 2, "POPF": VM, VIF, VIP are not changed; AC and ID are, with 32 bits."""
    bench.cpu.rflags = 2
    bench.run("push dword 3F7FD7h & ~100h\n popf\n pushf\n pop eax\n hlt")
    assert bench.cpu.eax == 0x247ED7


def test_pushf_hides_vm_and_rf(bench: Bench) -> None:
    bench.cpu.rflags = 0x10002
    bench.run("pushf\n pop eax\n hlt")
    assert bench.cpu.eax == 2


# --- NMI: SDM Vol. 3, "Nonmaskable Interrupt (NMI)", "Handling Multiple NMIs" ---


def test_nmi_is_blocked_until_iret(bench: Bench) -> None:
    counter = "inc dword [20000h]\n cmp dword [20000h], 1\n jne .out\n mov ecx, 20\n.wait: loop .wait\n.out: iret"
    bench.place(counter, at=0x18000)
    bench.set_gate(NMI, gate(14, CODE0, 0x18000))
    bench.place("nop\n nop\n hlt")
    cpu = bench.cpu
    cpu.pins.drive(1, True)
    cpu.run(instructions=5)
    assert bench.read32(0x20000) == 1
    cpu.pins.drive(1, True)
    cpu.run(instructions=10)
    assert bench.read32(0x20000) == 1  # pending, held off by the handler
    assert bench.go_on().vector is None
    assert bench.read32(0x20000) == 2
    assert cpu.esp == STACK0


def test_nmi_ignores_if_and_wakes_hlt(bench: Bench) -> None:
    bench.cpu.rflags = 2
    assert bench.run("hlt\n nop").vector is None
    bench.cpu.pins.drive(1, True)
    frame = bench.go_on()
    assert (frame.vector, frame.stack[0]) == (NMI, bench.code + 1)


def test_ring_3_may_not_halt(bench: Bench) -> None:
    bench.enter_ring(3)
    frame = bench.run("hlt")
    assert (frame.vector, frame.stack[:3]) == (GP, (0, bench.code, CODE3))
    assert (bench.cpu.ss.selector, bench.cpu.cs.selector) == (DATA0, CODE0)


# --- the same code segment again and again: what the tables hold counts each time ---


def looping(cpl: int = 0) -> Bench:
    """INT 40h with an IRET for a handler, run often enough that every translation is known."""
    bench = Bench()
    bench.set_descriptor(FREE, code(0))
    for vector in (GP, NP, SS):  # these handlers do not need the code segment that the tests spoil
        bench.set_gate(vector, gate(14, FREE, HANDLERS + vector * 16))
    bench.place("iret", at=0x18000)
    if cpl:
        bench.set_descriptor(FREE + 8, code(0, type_=0xE))
        bench.set_gate(0x40, gate(14, FREE + 8, 0x18000, dpl=3))
        bench.enter_ring(cpl)
    else:
        bench.set_gate(0x40, gate(14, CODE0, 0x18000))
    bench.place("again: int 40h\n inc eax\n jmp again")
    bench.cpu.eax = 0
    bench.cpu.run(instructions=400)
    assert bench.cpu.eax == 100
    assert bench.cpu.esp == (STACK3 if cpl else STACK0)
    return bench


@pytest.mark.parametrize(("change", "expected"), [
    (lambda b: b.set_gate(0x40, gate(14, CODE0, 0x18000, present=0)), (NP, 0x202)),
    (lambda b: b.set_gate(0x40, gate(12, CODE0, 0x18000)), (GP, 0x202)),
    (lambda b: b.set_descriptor(CODE0, code(0, present=0)), (NP, CODE0)),
    (lambda b: b.set_descriptor(CODE0, data(0)), (GP, CODE0)),
    (lambda b: b.set_descriptor(CODE0, code(0, limit=0x17FFF, flags=4)), (GP, 0)),
    (lambda b: setattr(b.cpu.idtr, "limit", 0x206), (GP, 0x202)),
])  # fmt: skip
def test_changed_tables_are_seen(change: Callable[[Bench], None], expected: tuple[int, int]) -> None:
    bench = looping()
    change(bench)
    frame = bench.go_on()
    assert (frame.vector, frame.stack[0]) == expected


def test_changed_handler_is_entered() -> None:
    bench = looping()
    bench.set_gate(0x40, gate(15, CODE0, H))
    frame = bench.go_on()
    assert (frame.vector, frame.stack[:2]) == (0x40, (bench.code + 2, CODE0))


def test_conforming_handler_of_ring_3_again_and_again() -> None:
    assert looping(3).cpu.cpl == 3


def test_stack_limit_is_seen() -> None:
    bench = looping()
    bench.set_descriptor(FREE + 16, data(1))
    bench.write32(TSS + 4, STACK0 - 0x400, DATA0)
    bench.cpu.ss.limit = STACK0 - 2
    bench.set_gate(SS, gate(5, FREE + 24, 0))
    third_tss = 0x20800
    bench.set_descriptor(FREE + 24, system(9, third_tss, 0x67))
    bench.write32(third_tss + 0x1C, 0, HANDLERS + SS * 16, 2)
    bench.write32(third_tss + 0x38, 0xF000)
    bench.write32(third_tss + 0x48, DATA0, CODE0, DATA0, DATA0, 0, 0, 0)
    frame = bench.go_on()
    assert (frame.vector, frame.stack[0]) == (SS, 0)


@pytest.mark.parametrize("cpl", [0, 3])
@pytest.mark.parametrize("iopl", [0, 3])
def test_flags_through_iret(cpl: int, iopl: int) -> None:
    """The arithmetic flags, DF, and IF as privilege allows, come back through IRET, and into the frame of INT."""
    bench = Bench()
    bench.set_descriptor(FREE, code(0, type_=0xE))
    bench.set_gate(0x40, gate(15, FREE, 0x18000, dpl=3))
    bench.place("mov ebx, [esp + 8]\n iret", at=0x18000)
    if cpl:
        bench.enter_ring(cpl)
    bench.place("push edi\n push cs\n push dword back\n iret\nback: pushf\n pop ecx\n int 40h\n jmp $")
    allowed = 0xCD5 | (0x200 if cpl <= iopl else 0)
    for bits in range(0, 0x1000, 0x15):
        image = bits & 0xED5 & ~0x100
        bench.cpu.rflags = 2 | iopl << 12
        bench.cpu.edi, bench.cpu.rip = image | iopl << 12 | 2, bench.code
        bench.cpu.run(instructions=12)
        want = (image & allowed) | iopl << 12 | 2
        assert (bench.cpu.ecx, bench.cpu.ebx, bench.cpu.rflags) == (want, want, want)


def test_alignment_checks_that_cannot_be_delivered_end() -> None:
    """Handlers at CPL 3 on a stack that is not aligned: every push of a frame is the next #AC."""
    bench = Bench(model="pentium3")
    bench.enter_ring(3)
    bench.set_gate(17, gate(14, CODE3, HANDLERS + 17 * 16, dpl=3))
    bench.cpu.cr0 = bench.cpu.cr0 | 0x40000
    bench.cpu.rflags = 0x40002
    bench.cpu.esp = bench.cpu.esp - 2
    bench.place("push eax")
    assert bench.cpu.run(instructions=10, cycles=100_000).reason == StopReason.TRIPLE_FAULT
