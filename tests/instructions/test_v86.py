"""Virtual-8086 mode: entry and exit, sensitive instructions, VME."""

import pytest
from system import (
    CODE0,
    CODE3,
    DATA,
    DATA0,
    FREE,
    GP,
    HANDLERS,
    IF,
    PF,
    STACK0,
    TF,
    TSS,
    UD,
    VIF,
    VIP,
    VM,
    Bench,
    code,
    gate,
)

SEG = DATA >> 4


def monitor(faults: str = "deliver") -> Bench:
    """CPL 0 with an IRETD frame to virtual-8086 mode on its stack; the code there is at DATA."""
    bench = Bench(faults)
    bench.cpu.esp = STACK0 - 36
    bench.write32(STACK0 - 36, 0, SEG, VM | 0x3202, 0x8000, SEG, SEG + 1, SEG + 2, SEG + 3, SEG + 4)
    return bench


def test_entry_by_iret() -> None:
    """SDM Vol. 2, "IRET": RETURN-TO-VIRTUAL-8086-MODE."""
    bench = monitor("raise")
    assert bench.fault("iretd") is None
    cpu = bench.cpu
    assert (cpu.rip, cpu.cpl, cpu.esp) == (0, 3, 0x8000)
    assert cpu.rflags == VM | 0x3202
    assert [s.selector for s in (cpu.cs, cpu.ss, cpu.es, cpu.ds, cpu.fs, cpu.gs)] == [
        SEG, SEG, SEG + 1, SEG + 2, SEG + 3, SEG + 4
    ]  # fmt: skip
    for segment in (cpu.cs, cpu.ss, cpu.es, cpu.ds, cpu.fs, cpu.gs):
        assert (segment.base, segment.limit, segment.access) == (segment.selector << 4, 0xFFFF, 0xF3)


def test_entry_beyond_64_kib_is_refused() -> None:
    bench = monitor("raise")
    bench.write32(STACK0 - 36, 0x10000)
    assert bench.fault("iretd") == (GP, 0)
    assert not bench.cpu.rflags & VM


def test_popf_cannot_enter() -> None:
    """SDM Vol. 2, "POPF": VM is never changed."""
    bench = Bench()
    bench.run("push dword 23002h\n popfd\n hlt")
    assert not bench.cpu.rflags & VM


@pytest.mark.parametrize(("type_", "size"), [(14, 4), (6, 2)])
def test_exit_by_interrupt(type_: int, size: int) -> None:
    """SDM Vol. 2, "INT n": INTERRUPT-FROM-VIRTUAL-8086-MODE: nine items, null data segments, CPL 0."""
    bench = monitor()
    bench.set_gate(0x40, gate(type_, CODE0, HANDLERS + 0x400, dpl=3))
    bench.place("iretd")
    bench.cpu.memory.write(DATA, b"\xcd\x40")
    frame = bench.go_on()
    assert frame.vector == 0x40
    want = [2, SEG, VM | 0x3202, 0x8000, SEG, SEG + 1, SEG + 2, SEG + 3, SEG + 4]
    assert list(bench.stack(9, size)) == [value & (0xFFFF if size == 2 else 0xFFFFFFFF) for value in want]
    cpu = bench.cpu
    assert (cpu.cpl, cpu.cs.selector, cpu.ss.selector, cpu.esp) == (0, CODE0, DATA0, STACK0 - 9 * size)
    assert [s.selector for s in (cpu.es, cpu.ds, cpu.fs, cpu.gs)] == [0, 0, 0, 0]
    assert not cpu.rflags & (VM | IF)


@pytest.mark.parametrize(("handler", "expected"), [
    (code(0), None), (code(1), (GP, FREE)), (code(3), (GP, FREE)), (code(0, type_=0xE), (GP, FREE)),
])  # fmt: skip
def test_handlers_must_have_dpl_0(handler: int, expected: tuple[int, int] | None) -> None:
    """SDM Vol. 2, "INT n": from virtual-8086 mode the new CPL must be 0."""
    bench = Bench()
    bench.set_descriptor(FREE, handler)
    bench.set_gate(0x40, gate(14, FREE, HANDLERS + 0x400, dpl=3))
    bench.enter_v86()
    frame = bench.run("int 40h")
    if expected is None:
        assert frame.vector == 0x40
    else:
        assert (frame.vector, frame.stack[0]) == expected


@pytest.mark.parametrize("iopl", [0, 2, 3])
@pytest.mark.parametrize("instruction", ["cli", "sti", "pushf", "popf", "pushfd", "popfd", "int 40h", "iret", "iretd"])
def test_iopl_sensitive_instructions(instruction: str, iopl: int) -> None:
    """SDM Vol. 3, "Sensitive Instructions": #GP(0) with IOPL below 3."""
    bench = Bench(faults="raise")
    bench.enter_v86(iopl)
    bench.set_gate(0x40, gate(14, CODE0, HANDLERS + 0x400, dpl=3))
    assert bench.fault(instruction) == (None if iopl == 3 else (GP, 0)) or instruction == "int 40h"
    if instruction == "int 40h":
        delivering = Bench()
        delivering.enter_v86(iopl)
        delivering.set_gate(0x40, gate(14, CODE0, HANDLERS + 0x400, dpl=3))
        frame = delivering.run(instruction)
        assert frame.vector == (0x40 if iopl == 3 else GP)


def test_int3_and_into_are_not_iopl_sensitive() -> None:
    """SDM Vol. 3, "Sensitive Instructions": INT n alone is; the gate's DPL counts for the others."""
    bench = Bench()
    bench.enter_v86(0)
    bench.set_gate(3, gate(14, CODE0, HANDLERS + 0x30, dpl=3))
    assert bench.run("int3").vector == 3


@pytest.mark.parametrize("instruction", ["hlt", "mov eax, cr0", "mov cr0, eax", "mov eax, dr0", "clts", "lgdt [0]",
                                         "lidt [0]", "lmsw ax", "invlpg [0]", "wbinvd", "rdmsr", "wrmsr"])  # fmt: skip
def test_privileged_instructions(instruction: str) -> None:
    """SDM Vol. 3, "Privileged Instructions": virtual-8086 mode has CPL 3."""
    bench = Bench(faults="raise")
    bench.enter_v86()
    assert bench.fault(instruction) == (GP, 0)


@pytest.mark.parametrize("instruction", ["lldt ax", "str ax", "lar ax, ax", "verr ax", "arpl ax, ax"])
def test_protected_mode_instructions(instruction: str) -> None:
    bench = Bench(faults="raise")
    bench.enter_v86()
    assert bench.fault(instruction) == (UD, None)


def test_addresses_are_those_of_the_8086() -> None:
    """SDM Vol. 3, "Address Translation in Virtual-8086 Mode": selector * 16 + offset; limits of 64 KiB."""
    bench = Bench(faults="raise")
    bench.enter_v86()
    bench.write16(0x34567, 0xBEEF)
    bench.cpu.eax = 0x3000
    assert bench.fault("mov ds, ax\n mov cx, [4567h]", steps=2) is None
    assert (bench.cpu.cx, bench.cpu.ds.base) == (0xBEEF, 0x30000)
    assert bench.fault("mov cx, [0FFFFh]") == (GP, 0)
    assert bench.fault("mov ebx, 10000h\n mov cl, [ebx]", steps=2) == (GP, 0)


def test_far_calls_are_those_of_the_8086() -> None:
    bench = Bench(faults="raise")
    bench.enter_v86()
    assert bench.fault(f"call {SEG + 0x100:#x}:0010h") is None
    assert (bench.cpu.cs.base, bench.cpu.rip) == (DATA + 0x1000, 0x10)
    assert bench.stack(2, 2) == (5, SEG)


def test_pages_are_user_pages() -> None:
    """SDM Vol. 3, "Paging of Virtual-8086 Tasks": accesses are made with CPL 3."""
    bench = Bench(faults="raise")
    bench.map_pages()
    bench.set_page(0x30000, 0x30003)  # supervisor
    bench.enter_v86()
    bench.cpu.ds.selector, bench.cpu.ds.base = 0x3000, 0x30000
    assert bench.fault("mov al, [0]") == (PF, 5)


def test_round_trip_through_the_monitor() -> None:
    """The 8086 program's privileged instruction reaches the monitor, which skips it and returns."""
    bench = monitor()
    bench.place("add esp, 4\n add dword [esp], 1\n inc dword [ss:20F00h]\n iretd", at=0x19000)
    bench.set_gate(GP, gate(14, CODE0, 0x19000))
    bench.place("iretd")
    bench.cpu.memory.write(DATA, b"\xf4\xf4\xcd\x40")  # HLT, HLT, INT 40h
    bench.set_gate(0x40, gate(14, CODE0, HANDLERS + 0x400, dpl=3))
    assert bench.go_on().vector == 0x40
    assert bench.read32(0x20F00) == 2


# --- VME: SDM Vol. 3, "Class 2 - Maskable Hardware Interrupt Handling", "Class 3 - Software Interrupt Handling" ---


def vme(iopl: int, flags: int = 0, redirect: bool = True) -> Bench:
    """CR4.VME with the redirection map 32 bytes below the I/O map, at 68h; a clear bit sends INT to the IVT."""
    bench = Bench()
    bench.cpu.cr4 = 1
    bench.cpu.tr.limit = 0x68 + 32 + 0x2000
    bench.write16(TSS + 102, 0x68 + 32)
    bench.cpu.memory.write(TSS + 0x68, b"\0" * 32 if redirect else b"\xff" * 32)
    bench.write16(0x40 * 4, 0x1000, SEG)
    bench.set_gate(0x40, gate(14, CODE0, HANDLERS + 0x400, dpl=3))
    bench.enter_v86(iopl, flags)
    return bench


def test_redirected_int_with_iopl_3() -> None:
    bench = vme(3, IF)
    bench.place("int 40h")
    bench.cpu.step()
    assert (bench.cpu.rip, bench.cpu.cs.selector) == (0x1000, SEG)
    assert bench.stack(3, 2) == (2, SEG, 0x3202)
    assert not bench.cpu.rflags & (IF | TF)
    assert bench.cpu.rflags & VM


def test_redirected_int_with_iopl_0_uses_vif() -> None:
    bench = vme(0, IF | VIF)
    bench.place("int 40h")
    bench.cpu.step()
    assert bench.cpu.rip == 0x1000
    assert bench.stack(3, 2) == (2, SEG, 0x3202)  # IOPL 3 and IF = VIF in the image
    assert bench.cpu.rflags & (IF | VIF) == IF


def test_int_that_is_not_redirected() -> None:
    assert vme(3, redirect=False).run("int 40h").vector == 0x40
    assert vme(0, redirect=False).run("int 40h").vector == GP


@pytest.mark.parametrize(("instruction", "before", "after"), [
    ("sti", IF, IF | VIF), ("cli", IF | VIF, IF), ("sti", 0, VIF), ("cli", VIF, 0),
])  # fmt: skip
def test_cli_and_sti_change_vif(instruction: str, before: int, after: int) -> None:
    bench = vme(0, before)
    bench.place(instruction)
    bench.cpu.step()
    assert bench.cpu.rip == 1
    assert bench.cpu.rflags & (IF | VIF) == after


def test_sti_with_a_pending_virtual_interrupt() -> None:
    """SDM Vol. 2, "STI": #GP(0) where VIP is set."""
    assert vme(0, VIP).run("sti").vector == GP


@pytest.mark.parametrize(("flags", "pushed"), [(0, 0x3002), (VIF, 0x3202), (IF, 0x3002)])
def test_pushf_shows_vif(flags: int, pushed: int) -> None:
    bench = vme(0, flags)
    bench.place("pushf")
    bench.cpu.step()
    assert bench.stack(1, 2) == (pushed,)


@pytest.mark.parametrize(("image", "flags", "expected"), [
    (0x0202, 0, VIF), (0x0002, VIF, 0), (0x0202, VIP, None), (0x0102, 0, None),
])  # fmt: skip
@pytest.mark.parametrize("instruction", ["popf", "iret"])
def test_popf_and_iret_change_vif(instruction: str, image: int, flags: int, expected: int | None) -> None:
    """#GP(0) where the image has TF, or IF while VIP is set."""
    bench = vme(0, flags)
    sp = 0x8000 - (6 if instruction == "iret" else 2)
    bench.cpu.sp = sp
    bench.write16(DATA + sp, *((0x100, SEG, image) if instruction == "iret" else (image,)))
    bench.place(instruction)
    bench.cpu.step()
    if expected is None:
        assert bench.cpu.cs.selector == CODE0
        assert bench.go_on().vector == GP
    else:
        assert bench.cpu.rflags & (VIF | IF | VM) == expected | VM


def test_pvi() -> None:
    """SDM Vol. 3, "Protected-Mode Virtual Interrupts": CLI and STI of CPL 3 change VIF; PUSHF does not show it."""
    bench = Bench()
    bench.cpu.cr4 = 2
    bench.cpu.rflags = 2
    bench.enter_ring(3)
    bench.place("sti\n pushf\n cli")
    bench.cpu.step()
    assert bench.cpu.rflags & (VIF | IF) == VIF
    bench.cpu.step()
    assert bench.stack(1)[0] & IF == 0
    bench.cpu.step()
    assert bench.cpu.rflags & (VIF | IF) == 0
    assert bench.cpu.cs.selector == CODE3
