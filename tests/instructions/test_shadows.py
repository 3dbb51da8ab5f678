"""What holds events off between two instructions, and what comes after one: STI, MOV SS, single step, breakpoints."""

import pytest
from system import (
    CODE0,
    DATA0,
    DB,
    IF,
    NMI,
    PF,
    RF,
    STACK0,
    TF,
    UD,
    Bench,
    gate,
)

from emu.chips.i8259 import I8259

IRQ0 = 0x20


def with_interrupts(bits: int = 32) -> Bench:
    """An 8259 whose line 0 is up: vector 20h comes as soon as it may."""
    bench = Bench(bits=bits)
    pic = I8259(bench.cpu.clock)
    pic.connect("INT", bench.cpu.pins, 0)
    bench.cpu.interrupt_controller(pic)
    bench.cpu.bus.map_ports(0x20, 2, pic)
    bench.run(
        "mov al, 13h\n out 20h, al\n mov al, 20h\n out 21h, al\n"
        " mov al, 1\n out 21h, al\n mov al, 0FEh\n out 21h, al\n hlt"
    )
    pic.drive(0, True)
    bench.cpu.rflags = 2
    bench.pic = pic
    return bench


# --- STI: SDM Vol. 2, "STI" ---


def test_sti_holds_interrupts_off_for_one_instruction() -> None:
    bench = with_interrupts()
    frame = bench.run("sti\n inc eax\n inc eax\n hlt")
    assert (frame.vector, frame.stack[0]) == (IRQ0, bench.code + 2)


def test_sti_with_if_set_holds_nothing_off() -> None:
    """SDM Vol. 2, "STI": the delay is that of the change from 0 to 1."""
    bench = with_interrupts()
    bench.place("sti\n sti\n inc eax\n hlt")
    frame = bench.go_on()
    assert frame.stack[0] == bench.code + 2  # after the second STI, which the first one protected


def test_sti_cli_lets_nothing_in() -> None:
    bench = with_interrupts()
    assert bench.run("sti\n cli\n nop\n hlt").vector is None


def test_sti_hlt_is_woken() -> None:
    """The instruction after STI may be HLT, and the interrupt that was pending wakes it."""
    bench = with_interrupts()
    bench.place("sti\n hlt\n nop")
    frame = bench.go_on()
    if frame.vector is None:  # a bare Cpu stops at every HLT
        frame = bench.go_on()
    assert (frame.vector, frame.stack[0]) == (IRQ0, bench.code + 2)


@pytest.mark.parametrize(
    "text", ["push dword 202h\n popf\n inc eax\n hlt", "push dword 202h\n push cs\n push dword {next}\n iret"]
)
def test_popf_and_iret_have_no_shadow(text: str) -> None:
    bench = with_interrupts()
    after = bench.code + (6 if "popf" in text else 0x20)
    frame = bench.run(text.format(next=bench.code + 0x20))
    assert (frame.vector, frame.stack[0]) == (IRQ0, after)


# --- MOV SS, POP SS: SDM Vol. 3, "Masking Exceptions and Interrupts When Switching Stacks" ---


@pytest.mark.parametrize("load", ["mov ss, ax", "pop ss"])
def test_stack_switch_holds_interrupts_off(load: str) -> None:
    bench = with_interrupts()
    bench.cpu.eax = DATA0
    bench.write32(STACK0 - 4, DATA0)
    bench.cpu.esp = STACK0 - 4
    length = bench.place(f"sti\n {load}\n")
    bench.place(f"sti\n {load}\n mov esp, 0E000h\n nop\n hlt")
    frame = bench.go_on()
    assert (frame.vector, frame.stack[0]) == (IRQ0, bench.code + length + 5)
    assert bench.cpu.esp == 0xE000 - 12


def test_lss_has_no_shadow() -> None:
    """LSS loads both halves at once, and is itself the instruction after STI here."""
    bench = with_interrupts()
    bench.write32(0x20000, 0xE000, DATA0)
    length = bench.place("sti\n lss esp, [20000h]")
    bench.place("sti\n lss esp, [20000h]\n nop\n hlt")
    frame = bench.go_on()
    assert (frame.vector, frame.stack[0]) == (IRQ0, bench.code + length)


def test_mov_ss_holds_nmi_off() -> None:
    bench = Bench()
    bench.cpu.eax = DATA0
    length = bench.place("mov ss, ax")
    bench.place("mov ss, ax\n mov esp, 0E000h\n hlt")
    bench.cpu.step()
    bench.cpu.pins.drive(1, True)
    frame = bench.go_on()
    assert (frame.vector, frame.stack[0]) == (NMI, bench.code + length + 5)


def test_faults_are_not_held_off() -> None:
    bench = Bench()
    bench.cpu.eax = DATA0
    assert bench.run("mov ss, ax\n ud2").vector == UD


# --- single step: SDM Vol. 3, "Single-Step Exception Condition" ---


RECORDER = """push eax
 push ebx
 mov eax, [esp + 8]
 mov ebx, [21000h]
 mov [ebx], eax
 add dword [21000h], 4
 pop ebx
 pop eax
 iret"""


def traced(text: str, setup: str = "") -> tuple[Bench, list[int]]:
    """Runs a text with TF set by POPF, to a UD2 behind it. What #DB returned to, as offsets in the text."""
    bench = Bench()
    bench.place(RECORDER, at=0x18000)
    bench.set_gate(DB, gate(14, CODE0, 0x18000))
    bench.write32(0x21000, 0x21004)
    prefix = f"{setup}\n push dword 102h\n popf\n"
    start = bench.place(prefix)
    assert bench.run(f"{prefix} {text}\n ud2").vector == UD
    count = (bench.read32(0x21000) - 0x21004) // 4
    return bench, [bench.read32(0x21004 + 4 * i) - bench.code - start for i in range(count)]


def test_single_step_follows_the_next_instruction() -> None:
    """The first trap comes after the instruction behind the POPF that set TF."""
    bench, found = traced("nop\n inc eax\n nop")
    assert found == [1, 2, 3]
    assert bench.cpu.dr6 & 0x4000


def test_single_step_through_iterations() -> None:
    """SDM Vol. 3, "Single-Step Exception Condition": after each iteration of a repeated string instruction."""
    bench, found = traced("rep stosb\n nop", "mov ecx, 3\n mov edi, 20000h\n mov al, 5Ah\n cld")
    assert found == [0, 0, 2, 3]
    assert bytes(bench.cpu.memory.read(0x20000, 4)) == b"ZZZ\0"


def test_int_n_is_not_trapped() -> None:
    """SDM Vol. 3, "Single-Step Exception Condition": INT n clears TF: its handler is not traced, what follows
    its IRET is."""
    _, found = traced("int 40h\n nop\n nop", "mov byte [5400h], 90h\n mov byte [5401h], 0CFh")  # NOP, IRET
    assert found == [3, 4]


def test_clearing_tf_still_traps_after_the_popf() -> None:
    """TF counts as it was when the instruction began."""
    _, found = traced("push dword 2\n popf\n nop")
    assert found == [2, 3]


def test_mov_ss_is_not_trapped() -> None:
    """SDM Vol. 3, "Masking Exceptions and Interrupts When Switching Stacks": the trap after MOV SS is lost."""
    _, found = traced("mov ss, ax\n nop\n nop", f"mov eax, {DATA0}")
    assert found == [3, 4]


def test_faulting_instruction_is_not_trapped() -> None:
    bench = Bench()
    bench.cpu.rflags = 2 | TF
    frame = bench.run("ud2")
    assert (frame.vector, frame.stack[0]) == (UD, bench.code)
    assert frame.stack[2] == 2 | TF | RF


# --- breakpoints: SDM Vol. 3, "Debug Exceptions" ---


def test_instruction_breakpoint_is_a_fault_that_rf_holds_off() -> None:
    bench = Bench()
    bench.place("nop\n inc eax\n hlt")
    bench.cpu.dr0 = bench.code + 1
    bench.cpu.dr7 = 0x401
    bench.place("inc dword [20000h]\n or dword [esp + 8], 10000h\n iret", at=0x18000)
    bench.set_gate(DB, gate(14, CODE0, 0x18000))
    bench.cpu.rip, bench.cpu.eax = bench.code, 0
    assert bench.go_on().vector is None
    assert (bench.cpu.eax, bench.read32(0x20000), bench.cpu.dr6 & 15) == (1, 1, 1)
    assert not bench.cpu.rflags & RF


def test_breakpoint_image_has_rf_clear() -> None:
    """SDM Vol. 3, "Instruction-Breakpoint Exception Condition": RF is pushed as it is."""
    bench = Bench()
    bench.cpu.dr1 = bench.code
    bench.cpu.dr7 = 0x404
    frame = bench.run("nop")
    assert (frame.vector, frame.stack[0], frame.stack[2]) == (DB, bench.code, 2)
    assert bench.cpu.dr6 & 15 == 2


@pytest.mark.parametrize(("rw", "text", "hit"), [
    (1, "mov [20000h], eax", True), (1, "mov eax, [20000h]", False), (3, "mov eax, [20000h]", True),
    (3, "mov eax, [20004h]", False), (1, "mov [1FFFEh], eax", True), (1, "mov [20003h], al", True),
    (1, "mov [20004h], al", False),
])  # fmt: skip
def test_data_breakpoint_is_a_trap(rw: int, text: str, hit: bool) -> None:
    """SDM Vol. 3, "Data Memory and I/O Breakpoint Exception Conditions"."""
    bench = Bench()
    bench.cpu.dr2 = 0x20000
    bench.cpu.dr7 = 0x400 | 1 << 4 | (rw | 3 << 2) << 24  # four bytes
    length = bench.place(text)
    frame = bench.run(f"{text}\n nop\n hlt")
    assert frame.vector == (DB if hit else None)
    if hit:
        assert frame.stack[0] == bench.code + length
        assert bench.cpu.dr6 & 15 == 4


def test_int1_after_mov_ss_meets_the_watchpoint_in_one_exception() -> None:
    """MOV SS holds the watchpoint's #DB off, and INT1 is a #DB itself: the handler runs once, other than with INT n."""
    for text, count in (("int1", 1), ("cs cs int1", 1), ("int 1", 2)):
        bench = Bench()
        bench.write32(0x20000, DATA0)
        bench.cpu.dr0, bench.cpu.dr7 = 0x20000, 0x400 | 2 | 0xF << 16
        bench.place("inc dword [21000h]\n iret", at=0x18000)
        bench.set_gate(DB, gate(14, CODE0, 0x18000))
        assert bench.run(f"mov ss, [20000h]\n {text}\n ud2").vector == UD
        assert bench.read32(0x21000) == count and bench.cpu.dr6 & 15 == 1


@pytest.mark.parametrize(("text", "rf"), [("int 40h", 0), ("int3", 0), ("int1", 0), ("ud2", RF)])
def test_rf_in_the_image_of_an_instruction_that_ran_with_rf(text: str, rf: int) -> None:
    """SDM Vol. 3, "Instruction-Breakpoint Exception Condition": software interrupts push 0, faults 1."""
    bench = Bench()
    bench.cpu.rflags = 2 | RF
    assert bench.run(text).stack[2] & RF == rf


def test_general_detect() -> None:
    """SDM Vol. 3, "General-Detect Exception Condition": a fault, DR6.BD, and GD is cleared for the handler."""
    bench = Bench()
    bench.cpu.dr7 = 0x2400
    frame = bench.run("mov eax, dr0")
    assert (frame.vector, frame.stack[0]) == (DB, bench.code)
    assert frame.stack[2] & RF
    assert bench.cpu.dr6 & 0x2000
    assert bench.cpu.dr7 == 0x400


# --- repeated instructions: SDM Vol. 2, "REP/REPE/REPZ/REPNE/REPNZ" ---


def test_interrupt_within_a_repeated_instruction() -> None:
    """It goes on where it was, and the image has RF: SDM Vol. 3, "Instruction-Breakpoint Exception Condition"."""
    bench = with_interrupts()
    bench.pic.drive(0, False)
    bench.cpu.rflags = 2 | IF
    bench.cpu.ecx, bench.cpu.edi, bench.cpu.eax = 1000, 0x20000, 0x77
    bench.place("rep stosb\n hlt")
    bench.cpu.run(instructions=100)
    assert (bench.cpu.rip, bench.cpu.ecx, bench.cpu.edi) == (bench.code, 900, 0x20000 + 100)
    bench.pic.drive(0, True)
    frame = bench.go_on()
    assert (frame.vector, frame.stack[0]) == (IRQ0, bench.code)
    assert frame.stack[2] & RF
    assert bench.cpu.ecx == 900


def test_page_fault_within_a_repeated_instruction() -> None:
    """The iterations before the fault are done, and the instruction can go on."""
    bench = Bench()
    bench.map_pages()
    bench.set_page(0x21000, 0)
    bench.cpu.ecx, bench.cpu.edi, bench.cpu.eax = 0x30, 0x20FE0, 0x5A
    frame = bench.run("cld\n rep stosb\n hlt")
    assert (frame.vector, frame.stack[0], frame.stack[1]) == (PF, 2, bench.code + 1)
    assert (bench.cpu.ecx, bench.cpu.edi, bench.cpu.cr2) == (0x10, 0x21000, 0x21000)
    assert bytes(bench.cpu.memory.read(0x20FDF, 0x22)) == b"\0" + b"Z" * 0x20 + b"\0"


def test_rep_with_count_zero_touches_nothing() -> None:
    bench = Bench()
    bench.map_pages()
    bench.set_page(0x21000, 0)
    bench.cpu.ecx, bench.cpu.edi = 0, 0x21000
    assert bench.run("rep stosd\n hlt").vector is None
    assert bench.cpu.edi == 0x21000
