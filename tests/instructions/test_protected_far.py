"""Far JMP, CALL and RET: direct, through call gates, to outer levels."""

import pytest
from system import (
    CODE0,
    CODE1,
    CODE3,
    DATA0,
    DATA1,
    DATA3,
    FREE,
    GP,
    NP,
    SS,
    STACK0,
    STACK1,
    STACK3,
    TASK,
    TS,
    TSS,
    Bench,
    code,
    data,
    gate,
    system,
)

TARGET = 0x18000
GATE = FREE + 8


@pytest.fixture
def bench() -> Bench:
    return Bench(faults="raise")


# SDM Vol. 3, "Direct Calls or Jumps to Code Segments".
@pytest.mark.parametrize(
    ("value", "selector", "cpl", "expected"),
    [
        (code(0), FREE, 0, None),
        (code(0), FREE | 3, 0, (GP, FREE)),  # RPL > CPL
        (code(3), FREE, 0, (GP, FREE)),  # DPL <> CPL
        (code(3), FREE, 3, None),
        (code(0), FREE, 3, (GP, FREE)),
        (code(0, type_=0xE), FREE | 3, 3, None),  # conforming: DPL <= CPL
        (code(3, type_=0xE), FREE, 0, (GP, FREE)),
        (code(0, present=0), FREE, 0, (NP, FREE)),
        (data(0), FREE, 0, (GP, FREE)),
        (code(0), 0, 0, (GP, 0)),
        (code(0), 3, 0, (GP, 0)),
        (code(0, limit=0x17FFF, flags=4), FREE, 0, (GP, 0)),  # the target lies outside
        (system(2, 0, 0xFF), FREE, 0, (GP, FREE)),
        (gate(14, CODE0, TARGET), FREE, 0, (GP, FREE)),
        (system(11, 0x3400, 0x67), FREE, 0, (GP, FREE)),  # a busy TSS
    ],
)
@pytest.mark.parametrize("instruction", ["jmp", "call"])
def test_direct_transfer(
    bench: Bench, instruction: str, value: int, selector: int, cpl: int, expected: tuple[int, int] | None
) -> None:
    bench.set_descriptor(FREE, value)
    if cpl:
        bench.enter_ring(cpl)
    sp = bench.cpu.esp
    assert bench.fault(f"{instruction} {selector:#x}:{TARGET:#x}") == expected
    if expected:
        assert (bench.cpu.esp, bench.cpu.rip) == (sp, bench.code)
        return
    assert (bench.cpu.cs.selector, bench.cpu.rip, bench.cpu.cpl) == (FREE | cpl, TARGET, cpl)
    if instruction == "call":
        assert bench.stack(2) == (bench.code + 7, CODE3 if cpl else CODE0)
    assert bench.get_descriptor(FREE) == value | 1 << 40  # accessed


def test_indirect_far_transfer(bench: Bench) -> None:
    """SDM Vol. 2, "CALL": m16:32 and, with a 16-bit operand size, m16:16."""
    bench.write32(0x20000, TARGET)
    bench.write16(0x20004, CODE0)
    assert bench.fault("call far [20000h]") is None
    assert (bench.cpu.rip, bench.stack(2)) == (TARGET, (bench.code + 6, CODE0))
    bench.write16(0x20000, 0x8000, CODE0)
    bench.cpu.esp = STACK0
    assert bench.fault("call word far [20000h]") is None
    assert (bench.cpu.rip, bench.cpu.esp) == (0x8000, STACK0 - 4)
    assert bench.stack(2, 2) == ((bench.code + 7) & 0xFFFF, CODE0)


def test_call_without_room_on_the_stack(bench: Bench) -> None:
    """SDM Vol. 2, "CALL": #SS(0) before the target's offset is looked at, and nothing is pushed."""
    bench.set_descriptor(FREE, code(0, limit=0x17FFF, flags=4))
    bench.cpu.ss.limit = 0xFFF
    bench.cpu.esp = 0x1002
    assert bench.fault(f"call {FREE:#x}:{TARGET:#x}") == (SS, 0)
    assert bench.cpu.esp == 0x1002


# --- call gates: SDM Vol. 3, "Accessing a Code Segment Through a Call Gate" ---


@pytest.mark.parametrize(
    ("value", "target", "selector", "cpl", "expected"),
    [
        (gate(12, FREE, TARGET, dpl=3), code(0), GATE | 3, 3, None),
        (gate(12, FREE, TARGET, dpl=2), code(0), GATE, 3, (GP, GATE)),  # CPL > gate's DPL
        (gate(12, FREE, TARGET, dpl=0), code(0), GATE | 1, 0, (GP, GATE)),  # RPL > gate's DPL
        (gate(12, FREE, TARGET, dpl=3, present=0), code(0), GATE | 3, 3, (NP, GATE)),
        (gate(12, 0, TARGET, dpl=3), code(0), GATE | 3, 3, (GP, 0)),
        (gate(12, 0x400, TARGET, dpl=3), code(0), GATE | 3, 3, (GP, 0x400)),
        (gate(12, FREE, TARGET, dpl=3), data(0), GATE | 3, 3, (GP, FREE)),
        (gate(12, FREE, TARGET, dpl=3), code(0, present=0), GATE | 3, 3, (NP, FREE)),
        (gate(12, FREE, TARGET), code(3), GATE, 0, (GP, FREE)),  # to less privilege
        (gate(12, FREE, TARGET, dpl=3), code(0, limit=0x17FFF, flags=4), GATE | 3, 3, (GP, 0)),
        (gate(12, FREE, TARGET), code(0), GATE, 0, None),
        (gate(12, FREE, TARGET, dpl=3), code(0, type_=0xE), GATE | 3, 3, None),
    ],
)
def test_call_gate_checks(
    bench: Bench, value: int, target: int, selector: int, cpl: int, expected: tuple[int, int] | None
) -> None:
    bench.set_descriptor(FREE, target)
    bench.set_descriptor(GATE, value)
    if cpl:
        bench.enter_ring(cpl)
    before = bench.cpu.esp, bench.cpu.cs.selector
    assert bench.fault(f"call {selector:#x}:12345678h") == expected
    if expected:
        assert (bench.cpu.esp, bench.cpu.cs.selector) == before
    else:
        assert bench.cpu.rip == TARGET


def test_call_gate_to_more_privilege_copies_parameters(bench: Bench) -> None:
    """SDM Vol. 3, "Stack Switching": old SS and ESP, the parameters in their order, old CS and EIP."""
    bench.set_descriptor(GATE, gate(12, CODE0, TARGET, dpl=3, count=3))
    bench.enter_ring(3)
    bench.cpu.esp = STACK3 - 12
    bench.write32(STACK3 - 12, 0x11111111, 0x22222222, 0x33333333)
    assert bench.fault(f"call {GATE | 3:#x}:0") is None
    assert (bench.cpu.cs.selector, bench.cpu.ss.selector, bench.cpu.cpl) == (CODE0, DATA0, 0)
    assert bench.cpu.esp == STACK0 - 7 * 4
    assert bench.stack(7) == (
        bench.code + 7, CODE3, 0x11111111, 0x22222222, 0x33333333, STACK3 - 12, DATA3
    )  # fmt: skip


def test_16_bit_call_gate(bench: Bench) -> None:
    """SDM Vol. 3, "Call Gates": a 16-bit gate pushes words and has a 16-bit offset, whatever the instruction's size."""
    bench.set_descriptor(GATE, gate(4, CODE0, 0x77778000, dpl=3, count=2))
    bench.enter_ring(3)
    bench.cpu.esp = STACK3 - 4
    bench.write16(STACK3 - 4, 0x1111, 0x2222)
    assert bench.fault(f"call {GATE | 3:#x}:0") is None
    assert (bench.cpu.rip, bench.cpu.esp) == (0x8000, STACK0 - 12)
    assert bench.stack(6, 2) == ((bench.code + 7) & 0xFFFF, CODE3, 0x1111, 0x2222, STACK3 - 4, DATA3)


def test_call_gate_to_ring_1_uses_its_stack(bench: Bench) -> None:
    bench.set_descriptor(GATE, gate(12, CODE1, TARGET, dpl=3))
    bench.enter_ring(3)
    assert bench.fault(f"call {GATE | 3:#x}:0") is None
    assert (bench.cpu.cpl, bench.cpu.ss.selector, bench.cpu.esp) == (1, DATA1, STACK1 - 16)


def test_jump_through_a_gate_stays_at_its_level(bench: Bench) -> None:
    """SDM Vol. 2, "JMP": a nonconforming target must have DPL = CPL."""
    bench.set_descriptor(GATE, gate(12, CODE0, TARGET, dpl=3))
    assert bench.fault(f"jmp {GATE:#x}:0") is None
    assert (bench.cpu.rip, bench.cpu.esp) == (TARGET, STACK0)
    bench = Bench(faults="raise")
    bench.set_descriptor(GATE, gate(12, CODE0, TARGET, dpl=3))
    bench.enter_ring(3)
    assert bench.fault(f"jmp {GATE | 3:#x}:0") == (GP, CODE0)


# SDM Vol. 2, "CALL": the new stack's checks.
@pytest.mark.parametrize(
    ("stack", "selector", "expected"),
    [
        (data(0), 0, (TS, 0)),
        (data(0), 0x400, (TS, 0x400)),
        (data(0), FREE | 1, (TS, FREE)),  # RPL
        (data(1), FREE, (TS, FREE)),  # DPL
        (data(0, type_=0), FREE, (TS, FREE)),  # not writable
        (code(0), FREE, (TS, FREE)),
        (data(0, present=0), FREE, (SS, FREE)),
        (data(0, limit=STACK0 - 1, flags=4), FREE, None),
        (data(0, limit=STACK0 - 2, flags=4), FREE, (SS, FREE)),  # no room
        (data(0, limit=STACK0 - 17, flags=4, type_=6), FREE, None),
        (data(0, limit=STACK0 - 16, flags=4, type_=6), FREE, (SS, FREE)),
    ],
)
def test_new_stack(bench: Bench, stack: int, selector: int, expected: tuple[int, int] | None) -> None:
    bench.set_descriptor(FREE, stack)
    bench.set_descriptor(GATE, gate(12, CODE0, TARGET, dpl=3))
    bench.write32(TSS + 8, selector)
    bench.enter_ring(3)
    assert bench.fault(f"call {GATE | 3:#x}:0") == expected
    assert bench.cpu.cpl == (3 if expected else 0)


@pytest.mark.parametrize(("limit", "access", "expected"), [
    (9, 0x8B, None), (8, 0x8B, (TS, TASK)), (5, 0x83, None), (4, 0x83, (TS, TASK)),
])  # fmt: skip
def test_stack_beyond_the_tss(bench: Bench, limit: int, access: int, expected: tuple[int, int] | None) -> None:
    """SDM Vol. 2, "CALL": the field must lie within the limit of the (32- or 16-bit) TSS."""
    bench.set_descriptor(GATE, gate(12, CODE0, TARGET, dpl=3))
    if access == 0x83:
        bench.write16(TSS + 2, STACK0, DATA0)
    bench.cpu.tr.limit, bench.cpu.tr.access = limit, access
    bench.enter_ring(3)
    assert bench.fault(f"call {GATE | 3:#x}:0") == expected


# --- RETF: SDM Vol. 3, "Returning from a Called Procedure" ---


@pytest.mark.parametrize(
    ("value", "selector", "cpl", "expected"),
    [
        (code(0), FREE, 0, None),
        (code(0), 0, 0, (GP, 0)),
        (code(0), 0x400, 0, (GP, 0x400)),
        (data(0), FREE, 0, (GP, FREE)),
        (code(0), FREE, 3, (GP, FREE)),  # RPL < CPL
        (code(3), FREE, 0, (GP, FREE)),  # DPL <> RPL
        (code(0, type_=0xE), FREE | 3, 3, None),
        (code(3, type_=0xE), FREE, 0, (GP, FREE)),  # conforming, DPL > RPL
        (code(0, present=0), FREE, 0, (NP, FREE)),
        (code(0, limit=0x17FFF, flags=4), FREE, 0, (GP, 0)),
    ],
)
def test_return_checks(bench: Bench, value: int, selector: int, cpl: int, expected: tuple[int, int] | None) -> None:
    bench.set_descriptor(FREE, value)
    if cpl:
        bench.enter_ring(cpl)
    bench.cpu.esp -= 8
    sp = bench.cpu.esp
    bench.write32(sp, TARGET, selector)
    assert bench.fault("retf") == expected
    assert bench.cpu.esp == (sp if expected else sp + 8)
    assert bench.cpu.rip == (bench.code if expected else TARGET)


def test_return_to_an_outer_level(bench: Bench) -> None:
    """SDM Vol. 2, "RET": both stacks lose the parameters; data segments of more privilege become null."""
    bench.set_descriptor(FREE, data(3))
    bench.set_descriptor(GATE, code(0, type_=0xE))
    bench.cpu.es.load(FREE)
    bench.cpu.fs.load(GATE)
    bench.cpu.esp = STACK0 - 24
    bench.write32(STACK0 - 24, TARGET, CODE3, 0xAAAA, 0xBBBB, 0x5000, DATA3)
    assert bench.fault("retf 8") is None
    cpu = bench.cpu
    assert (cpu.rip, cpu.cs.selector, cpu.cpl) == (TARGET, CODE3, 3)
    assert (cpu.ss.selector, cpu.esp) == (DATA3, 0x5008)
    assert (cpu.ds.selector, cpu.gs.selector) == (0, 0)  # DPL 0
    assert (cpu.es.selector, cpu.fs.selector) == (FREE, GATE)  # DPL 3; conforming code


@pytest.mark.parametrize(
    ("value", "selector", "expected"),
    [
        (data(3), FREE | 3, None),
        (data(3), 0, (GP, 0)),
        (data(3), 0x403, (GP, 0x400)),
        (data(3), FREE, (GP, FREE)),  # RPL
        (data(0), FREE | 3, (GP, FREE)),  # DPL
        (data(3, type_=0), FREE | 3, (GP, FREE)),
        (data(3, present=0), FREE | 3, (SS, FREE)),
    ],
)
def test_stack_of_an_outer_return(bench: Bench, value: int, selector: int, expected: tuple[int, int] | None) -> None:
    """SDM Vol. 2, "RET": RETURN-TO-OUTER-PRIVILEGE-LEVEL."""
    bench.set_descriptor(FREE, value)
    bench.cpu.esp = STACK0 - 16
    bench.write32(STACK0 - 16, TARGET, CODE3, 0x5000, selector)
    assert bench.fault("retf") == expected
    assert bench.cpu.cpl == (0 if expected else 3)


def test_gate_and_return_round_trip() -> None:
    """A routine of CPL 0 with parameters is called from CPL 3 and returns there."""
    bench = Bench()
    bench.set_descriptor(GATE, gate(12, CODE0, TARGET, dpl=3, count=2))
    bench.place("mov eax, [esp + 8]\n sub eax, [esp + 12]\n retf 8", at=TARGET)
    bench.enter_ring(3)
    frame = bench.run(f"push dword 5\n push dword 12\n call {GATE | 3:#x}:0\n hlt")
    assert frame.vector == GP  # HLT at CPL 3
    assert bench.cpu.eax == 7
    assert frame.stack[4:6] == (STACK3, DATA3)


def test_real_mode_far_call() -> None:
    """SDM Vol. 2, "CALL": REAL-ADDRESS MODE."""
    bench = Bench(faults="raise", bits=16)
    assert bench.fault("call 1234h:5678h") is None
    cpu = bench.cpu
    assert (cpu.cs.selector, cpu.cs.base, cpu.rip) == (0x1234, 0x12340, 0x5678)
    assert bench.stack(2, 2) == (bench.code + 5, 0)
    cpu.memory.write(0x12340 + 0x5678, b"\xcb")
    assert bench.step() is None
    assert (cpu.cs.base, cpu.rip, cpu.sp) == (0, bench.code + 5, STACK0)


def test_real_mode_target_beyond_the_limit() -> None:
    """SDM Vol. 2, "JMP": #GP if the offset lies outside the code segment's limit; real mode has no error codes."""
    bench = Bench(faults="raise", bits=16)
    assert bench.fault("jmp dword 0:12345h") == (GP, None)
    assert bench.cpu.rip == bench.code
