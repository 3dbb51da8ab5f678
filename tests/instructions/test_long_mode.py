"""Long mode: entering it, 4-level paging, 64-bit and compatibility code, interrupts, fast system calls."""

import struct

import pytest
from long_mode import (
    CODE32,
    CODE32_3,
    CODE64,
    CODE64_3,
    DATA0,
    DATA3,
    EFER_LMA,
    EFER_LME,
    EFER_SCE,
    FREE,
    IA32_EFER,
    IA32_FMASK,
    IA32_FS_BASE,
    IA32_GS_BASE,
    IA32_KERNEL_GS_BASE,
    IA32_LSTAR,
    IA32_STAR,
    NX,
    PDPT,
    PML4,
    Long,
)  # fmt: skip
from system import CODE, DB, GP, HANDLERS, NP, PF, SS, STACK0, STACK3, UD, Bench, code, data

IF, TF = 0x200, 0x100
NONCANONICAL = 0x8000_0000_0000


@pytest.fixture
def bench() -> Long:
    return Long()


@pytest.fixture
def raising() -> Long:
    return Long(faults="raise")


def wrmsr(number: int, value: int) -> str:
    return f"mov ecx, {number:#x}\n mov eax, {value & 0xFFFFFFFF:#x}\n mov edx, {value >> 32:#x}\n wrmsr\n"


# --- SDM Vol. 3, "Initializing IA-32e Mode" ---


def entering(efer: int = EFER_LME, cr4: int = 0x20, leave: str = "") -> Bench:
    bench = Bench(model="westmere")
    bench.write32(0x40000, 0x41003, 0)
    bench.write32(0x41000, 0x83, 0)  # 1 GiB
    bench.write32(0x41000, 0x42003, 0)
    bench.write32(0x42000, 0x83, 0)
    bench.set_descriptor(0x50, code(0, flags=0xA))
    bench.place(
        f"mov eax, {cr4:#x}\n mov cr4, eax\n mov eax, 40000h\n mov cr3, eax\n mov ecx, 0C0000080h\n xor edx, edx\n"
        f" mov eax, {efer:#x}\n wrmsr\n mov eax, 80000011h\n mov cr0, eax\n {leave}\n jmp 50h:here\n"
        "bits 64\n here: mov rax, 123456789ABCDEF0h\n hlt"
    )
    return bench


def test_from_protected_mode_to_64_bit_code() -> None:
    bench = entering()
    assert bench.go_on().vector is None
    assert bench.cpu.rax == 0x123456789ABCDEF0
    assert bench.cpu.efer == EFER_LME | EFER_LMA


def test_paging_without_pae_does_not_enter_long_mode() -> None:
    bench = entering(cr4=0)
    assert bench.go_on().vector == GP
    assert not bench.cpu.efer & EFER_LMA


def test_l_bit_means_nothing_outside_long_mode() -> None:
    """Without LME the L bit is reserved: the code is 16-bit, as its D bit says."""
    bench = entering(efer=0, cr4=0x20)
    bench.write32(0x40000, 0x42001, 0)  # a page-directory-pointer table
    bench.go_on()
    assert not bench.cpu.efer & EFER_LMA
    assert bench.cpu.rax >> 32 == 0


def test_lme_cannot_change_with_paging(bench: Long) -> None:
    assert bench.run(wrmsr(IA32_EFER, EFER_SCE) + "hlt").vector == GP
    assert bench.run("mov rax, cr4\n btr rax, 5\n mov cr4, rax\n hlt").vector == GP  # PAE neither
    assert bench.run("mov rax, cr0\n btr rax, 31\n mov cr0, rax\n hlt").vector == GP  # nor paging in 64-bit code


def test_paging_off_in_compatibility_mode_leaves_long_mode(bench: Long) -> None:
    bench.compatibility()
    frame = bench.run("mov eax, cr0\n btr eax, 31\n mov cr0, eax\n mov ebx, 1\n hlt", bits=32)
    assert (frame.vector, bench.cpu.rbx, bench.cpu.efer & EFER_LMA) == (None, 1, 0)


# --- SDM Vol. 3, "4-Level Paging" ---


@pytest.mark.parametrize("level", ["1 GiB", "2 MiB", "4 KiB"])
def test_page_sizes(bench: Long, level: str) -> None:
    linear = 0x0000_7F80_0000_0000 | {"1 GiB": 0x345678, "2 MiB": 0x145678, "4 KiB": 0x678}[level]
    memory = bench.cpu.memory
    memory.write(PML4 + 255 * 8, struct.pack("<Q", 0x110000 | 7))
    memory.write(0x110000, struct.pack("<Q", 0x87 if level == "1 GiB" else 0x111007))
    memory.write(0x111000, struct.pack("<Q", 0x200087 if level == "2 MiB" else 0x112007))
    memory.write(0x112000, struct.pack("<Q", 0x345007))
    memory.write(0x345678, b"\xef\xcd\xab\x89\x67\x45\x23\x01")
    assert bench.run(f"mov rbx, {linear:#x}\n mov rax, [rbx]\n inc qword [rbx]\n hlt").vector is None
    assert bench.cpu.rax == 0x0123456789ABCDEF
    assert bench.read64(0x345678) == (0x0123456789ABCDF0,)
    assert bench.read64(PML4 + 255 * 8)[0] & 0x60 == 0x20  # accessed
    last = {"1 GiB": 0x110000, "2 MiB": 0x111000, "4 KiB": 0x112000}[level]
    assert bench.read64(last)[0] & 0x60 == 0x60  # accessed and dirty


@pytest.mark.parametrize(
    ("entry", "text", "error"),
    [
        (0, "mov rax, [30000h]", 0),
        (0x30005, "mov [30000h], rax", None),  # a supervisor may write where WP is clear
        (0x30007 | 1 << 51, "mov rax, [30000h]", 9),  # beyond the physical address width
        (0x30007 | NX, "mov rax, [30000h]", None),
        (0x30007 | NX, "mov rax, 30000h\n jmp rax", 0x11),
        (0, "mov rax, 30000h\n jmp rax", 0x10),
        (0, "mov [30000h], rax", 2),
    ],
)
def test_page_faults(bench: Long, entry: int, text: str, error: int | None) -> None:
    bench.set_page(0x30000, entry)
    frame = bench.run(f"{text}\n hlt")
    assert frame.vector == (None if error is None else PF)
    if error is not None:
        assert frame.stack[0] == error
        assert bench.cpu.cr2 == 0x30000


def test_nx_without_nxe_is_a_reserved_bit(bench: Long) -> None:
    bench.cpu.efer = bench.cpu.efer & ~0x800
    bench.set_page(0x30000, 0x30007 | NX)
    assert bench.run("mov rax, [30000h]\n hlt").stack[0] == 9


def test_no_execute_at_any_level(bench: Long) -> None:
    entry = bench.read64(PDPT)[0]
    bench.place("hlt")
    bench.cpu.memory.write(PDPT, struct.pack("<Q", entry | NX))
    bench.cpu.cr3 = PML4
    bench.cpu.run(instructions=5)
    assert bench.cpu.cr2  # the handler cannot be fetched either


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mov rax, [rbx]", (GP, 0)),
        ("mov [rbx], al", (GP, 0)),
        ("mov rax, [rsp+rbx]", (SS, 0)),
        ("mov rax, [rbp]", (SS, 0)),
        ("mov rax, [rbx-8]", None),
        ("mov rax, [rbx-4]", (GP, 0)),  # its last bytes
        ("jmp rbx", (GP, 0)),
        ("call rbx", (GP, 0)),
        ("lea rax, [rbx]", None),
        ("invlpg [rbx]", None),
        ("prefetcht0 [rbx]", None),
    ],
)
def test_canonical_addresses(raising: Long, text: str, expected: tuple[int, int] | None) -> None:
    """SDM Vol. 1, "Canonical Addressing"."""
    memory = raising.cpu.memory  # the last page of the lower half
    memory.write(PML4 + 255 * 8, struct.pack("<Q", 0x110007))
    memory.write(0x110000 + 511 * 8, struct.pack("<Q", 0x111007))
    memory.write(0x111000 + 511 * 8, struct.pack("<Q", 0x112007))
    memory.write(0x112000 + 511 * 8, struct.pack("<Q", 0x30007))
    raising.cpu.rbx = raising.cpu.rbp = NONCANONICAL
    rsp = raising.cpu.rsp
    assert raising.fault(text) == expected
    assert raising.cpu.rsp == rsp


# --- SDM Vol. 2, "Instructions Not Supported in 64-Bit Mode"; Vol. 1, "64-Bit Mode Encoding" ---


NOT_IN_64_BIT_CODE = (
    "06 07 0e 16 17 1e 1f 27 2f 37 3f 60 61 62c0 82c000 9a000000000000 c400 c500 ce d400 d500 d6 ea000000000000"
)


@pytest.mark.parametrize("opcode", NOT_IN_64_BIT_CODE.split())
def test_opcodes_that_64_bit_code_has_not(raising: Long, opcode: str) -> None:
    assert raising.fault(f"db {', '.join(f'0{byte:x}h' for byte in bytes.fromhex(opcode))}, 0, 0, 0, 0") == (UD, None)


def test_32_bit_results_clear_the_upper_half(bench: Long) -> None:
    bench.run(
        "mov rax, -1\n mov eax, eax\n mov rbx, -1\n mov bx, 1\n mov rcx, -1\n xor cl, cl\n mov rdx, -1\n"
        " cmovc edx, eax\n hlt"
    )
    cpu = bench.cpu
    assert (cpu.rax, cpu.rbx) == (0xFFFFFFFF, 0xFFFFFFFFFFFF0001)
    assert (cpu.rcx, cpu.rdx) == (0xFFFFFFFFFFFFFF00, 0xFFFFFFFF)  # CMOV without the condition too


def test_stack_operand_sizes(bench: Long) -> None:
    bench.run("push -1\n push word 1234h\n pushfq\n push rax\n mov rbx, rsp\n hlt")
    assert STACK0 - bench.cpu.rbx == 8 + 2 + 8 + 8


def test_high_registers_and_rex_bytes(bench: Long) -> None:
    bench.run(
        "mov r15, 1122334455667788h\n mov sil, r15b\n mov r8d, -1\n add r8, r8\n mov rax, 8877h\n mov bl, ah\n hlt"
    )
    cpu = bench.cpu
    assert (cpu.sil, cpu.r8, cpu.bl) == (0x88, 0x1FFFFFFFE, 0x88)


def test_rip_relative(bench: Long) -> None:
    bench.run("mov rax, [rel here]\n lea rbx, [rel here]\n hlt\n here: dq 1234567890ABCDEFh")
    assert bench.cpu.rax == 0x1234567890ABCDEF
    assert bench.cpu.memory.read(bench.cpu.rbx, 8) == (0x1234567890ABCDEF).to_bytes(8, "little")


@pytest.mark.parametrize("aligned", [True, False])
def test_cmpxchg16b_wants_alignment(raising: Long, aligned: bool) -> None:
    raising.cpu.rsi = 0x30000 if aligned else 0x30008
    assert raising.fault("lock cmpxchg16b [rsi]") == (None if aligned else (GP, 0))


# --- SDM Vol. 3, "Segmentation in IA-32e Mode" ---


def test_bases_of_cs_ds_es_ss_count_for_nothing(bench: Long) -> None:
    bench.set_descriptor(FREE, data(0, base=0x50000, limit=0))
    bench.cpu.memory.write(0x30000, b"\x11" * 8)
    bench.run(f"mov ax, {FREE}\n mov ds, ax\n mov rbx, [30000h]\n mov fs, ax\n mov rcx, [fs:0FFFFFFFFFFFE0000h]\n hlt")
    assert bench.cpu.rbx == bench.cpu.rcx == 0x1111111111111111


def test_fs_and_gs_bases(bench: Long) -> None:
    bench.cpu.memory.write(0x30000, b"\x22" * 8)
    bench.run(
        wrmsr(IA32_FS_BASE, 0xFFFF_8000_0000_0000) + wrmsr(IA32_GS_BASE, 0x2F000)
        + wrmsr(IA32_KERNEL_GS_BASE, 0x123456789) + "mov rbx, [gs:1000h]\n swapgs\n hlt"
    )  # fmt: skip
    cpu = bench.cpu
    assert (cpu.rbx, cpu.fs.base, cpu.gs.base) == (0x2222222222222222, 0xFFFF_8000_0000_0000, 0x123456789)


def test_bases_must_be_canonical(bench: Long) -> None:
    assert bench.run(wrmsr(IA32_FS_BASE, NONCANONICAL) + "hlt").vector == GP
    assert bench.run(wrmsr(IA32_LSTAR, NONCANONICAL) + "hlt").vector == GP


def test_swapgs_is_for_cpl_0(bench: Long) -> None:
    bench.user()
    assert bench.run("swapgs\n hlt").vector == GP


@pytest.mark.parametrize(("cpl", "selector", "vector"), [(0, 0, None), (0, 3, GP), (3, 3, GP), (3, 0, GP)])
def test_null_stack_segment(bench: Long, cpl: int, selector: int, vector: int | None) -> None:
    """SDM Vol. 2, "MOV": SS may be null in 64-bit code below CPL 3, with RPL = CPL."""
    if cpl:
        bench.user()
    assert bench.run(f"mov ax, {selector}\n mov ss, ax\n hlt").vector == vector


@pytest.mark.parametrize(("flags", "expected"), [(0xA, None), (0xE, (GP, FREE))])
def test_l_and_d_together_are_reserved(raising: Long, flags: int, expected: tuple[int, int] | None) -> None:
    raising.set_descriptor(FREE, code(0, flags=flags))
    raising.cpu.memory.write(0x30000, struct.pack("<IH", CODE, FREE))
    assert raising.fault("jmp far dword [30000h]") == expected


def test_system_descriptors_have_16_bytes(bench: Long) -> None:
    bench.set_system(FREE, 9, 0xFFFF_8000_0000_4000, 0x67)
    bench.set_system(FREE + 16, 2, 0x1_0000_4800, 0xFF)
    frame = bench.run(f"mov ax, {FREE}\n ltr ax\n mov ax, {FREE + 16}\n lldt ax\n str bx\n hlt")
    assert frame.vector is None
    assert (bench.cpu.tr.base, bench.cpu.ldtr.base, bench.cpu.rbx & 0xFFFF) == (
        0xFFFF_8000_0000_4000,
        0x1_0000_4800,
        FREE,
    )
    assert bench.cpu.memory.read(0x1000 + FREE + 5, 1) == b"\x8b"  # busy


def test_upper_half_of_a_system_descriptor(bench: Long) -> None:
    bench.set_system(FREE, 9, 0x4000, 0x67, upper=0x1F << 40)
    frame = bench.run(f"mov ax, {FREE}\n ltr ax\n hlt")
    assert (frame.vector, frame.stack[0]) == (GP, FREE)


@pytest.mark.parametrize(("instruction", "type_"), [("ltr ax", 9), ("lldt ax", 2)])
def test_a_base_that_is_not_canonical_is_refused(raising: Long, instruction: str, type_: int) -> None:
    """SDM Vol. 3, "Canonical Addressing". A VM entry would not take what else a VM exit could save."""
    raising.set_system(FREE, type_, 1 << 47, 0x67)
    raising.cpu.rax = FREE
    assert raising.fault(instruction) == (GP, FREE)
    assert raising.cpu.memory.read(0x1000 + FREE + 5, 1)[0] & 0x0F == type_  # not busy


def test_descriptor_tables_have_64_bit_bases(bench: Long) -> None:
    bench.cpu.gdtr.base, bench.cpu.gdtr.limit = 0xFFFF_8000_1234_5678, 0x123
    bench.run("sgdt [30000h]\n hlt")
    assert bench.cpu.memory.read(0x30000, 11) == struct.pack("<HQB", 0x123, 0xFFFF_8000_1234_5678, 0)


# --- SDM Vol. 3, "Exception and Interrupt Handling in 64-bit Mode" ---


def test_stack_frame_is_aligned_and_whole(bench: Long) -> None:
    bench.cpu.rsp = 0x8FF5
    frame = bench.run("int 40h")
    assert frame.vector == 0x40
    assert frame.stack[:2] == (CODE + 2, CODE64)
    assert frame.stack[3:5] == (0x8FF5, 0x10)
    assert bench.cpu.rsp == 0x8FF0 - 40


def test_error_code_is_pushed_with_8_bytes(bench: Long) -> None:
    frame = bench.run("mov ax, 0FFF8h\n mov ds, ax")
    assert (frame.vector, frame.stack[:3]) == (GP, (0xFFF8, CODE + 4, CODE64))
    assert bench.cpu.rsp == STACK0 - 48


def test_interrupt_to_more_privilege(bench: Long) -> None:
    bench.set_gate(0x40, HANDLERS + 0x400, dpl=3)
    bench.user()
    frame = bench.run("int 40h")
    assert (frame.vector, frame.stack[1], frame.stack[3:5]) == (0x40, CODE64_3, (STACK3, DATA3))
    assert (bench.cpu.ss.selector, bench.cpu.rsp, bench.cpu.cpl) == (0, STACK0 - 40, 0)


@pytest.mark.parametrize(("ist", "top"), [(1, 0xC000), (2, 0xD000)])
def test_interrupt_stack_table(bench: Long, ist: int, top: int) -> None:
    bench.set_gate(0x40, HANDLERS + 0x400, ist=ist)
    frame = bench.run("int 40h")
    assert (bench.cpu.rsp, frame.stack[3]) == (top - 40, STACK0)
    assert bench.cpu.ss.selector == 0x10  # the level is the same


@pytest.mark.parametrize(
    ("change", "vector", "error"),
    [
        ({"type_": 5}, GP, 0x202),
        ({"type_": 6}, GP, 0x202),
        ({"present": 0}, NP, 0x202),
        ({"selector": 0}, GP, 0),
        ({"selector": CODE32}, GP, CODE32),
        ({"selector": DATA0}, GP, DATA0),
        ({"offset": NONCANONICAL}, GP, 0),
    ],
)
def test_gate_checks(bench: Long, change: dict[str, int], vector: int, error: int) -> None:
    bench.set_gate(0x40, **{"offset": HANDLERS, **change})
    frame = bench.run("int 40h\n hlt")
    assert (frame.vector, frame.stack[0]) == (vector, error)


def test_noncanonical_stack_of_the_tss_is_a_stack_fault(bench: Long) -> None:
    bench.cpu.memory.write(0x4004, struct.pack("<Q", NONCANONICAL + 0x1000))
    bench.set_gate(0x40, HANDLERS + 0x400, dpl=3)
    bench.set_gate(SS, HANDLERS + SS * 16, ist=1)
    bench.user()
    frame = bench.run("int 40h")
    assert (frame.vector, frame.stack[0]) == (SS, 0)


def test_interrupt_from_compatibility_code(bench: Long) -> None:
    bench.set_gate(0x40, HANDLERS + 0x400, dpl=3)
    bench.user(CODE32_3)
    frame = bench.run("int 40h", bits=32)
    assert (frame.vector, frame.stack[:2], frame.stack[4]) == (0x40, (CODE + 2, CODE32_3), DATA3)
    assert bench.cpu.cs.access & 0x2000


# --- SDM Vol. 2, "IRET/IRETD/IRETQ" ---


def iretq(ss: int, rsp: int, rflags: int, cs: int, rip: str) -> str:
    return f"push {ss}\n push {rsp}\n push {rflags}\n push {cs}\n lea rax, [rel {rip}]\n push rax\n iretq\n"


@pytest.mark.parametrize("cs", [CODE64_3, CODE32_3])
def test_iretq_to_ring_3(bench: Long, cs: int) -> None:
    bench.set_gate(0x40, HANDLERS + 0x400, dpl=3)
    frame = bench.run(iretq(DATA3, 0xB000, 0x202, cs, "there") + "there: int 40h")
    assert (frame.vector, frame.stack[1], frame.stack[3:5]) == (0x40, cs, (0xB000, DATA3))


def test_iretq_pops_the_stack_at_the_same_level_too(bench: Long) -> None:
    frame = bench.run(iretq(DATA0, 0x8800, 2, CODE64, "there") + "there: hlt")
    assert (frame.vector, bench.cpu.rsp) == (None, 0x8800)


def test_iretq_to_a_null_stack_segment(bench: Long) -> None:
    frame = bench.run(iretq(0, 0x8800, 2, CODE64, "there") + "there: hlt")
    assert (frame.vector, bench.cpu.ss.selector, bench.cpu.rsp) == (None, 0, 0x8800)


@pytest.mark.parametrize(
    ("ss", "cs", "vector", "error"),
    [
        (0, CODE64_3, GP, 0),
        (DATA0, CODE64_3, GP, DATA0),
        (DATA3, DATA3, GP, DATA3 & ~3),
        (DATA0, 0, GP, 0),
        (0, CODE32, GP, 0),
    ],
)
def test_iretq_checks(bench: Long, ss: int, cs: int, vector: int, error: int) -> None:
    frame = bench.run(iretq(ss, 0x8800, 2, cs, "there") + "there: hlt")
    assert (frame.vector, frame.stack[0]) == (vector, error)


def test_iretq_with_nt(bench: Long) -> None:
    text = "pushfq\n bts qword [rsp], 14\n popfq\n iretq"
    frame = bench.run(text)
    assert (frame.vector, frame.stack[0]) == (GP, 0)


# --- SDM Vol. 3, "Fast System Calls in 64-Bit Mode"; SDM Vol. 2, "SYSCALL", "SYSRET" ---

STAR = CODE32_3 << 48 | CODE64 << 32


def system_calls(bench: Long, fmask: int = IF | TF) -> str:
    """The registers of SYSCALL; at its target stands HLT."""
    bench.cpu.memory.write(0x18000, b"\xf4")
    return wrmsr(IA32_STAR, STAR) + wrmsr(IA32_LSTAR, 0x18000) + wrmsr(IA32_FMASK, fmask)


def test_syscall(bench: Long) -> None:
    bench.run(system_calls(bench) + "hlt")
    bench.user()
    bench.cpu.rflags = 0x3246
    length = bench.place("syscall")
    bench.cpu.run(instructions=10)
    cpu = bench.cpu
    assert (cpu.rip, cpu.rcx, cpu.r11, cpu.rflags) == (0x18001, CODE + length, 0x3246, 0x3046)
    assert (cpu.cpl, cpu.cs.selector, cpu.ss.selector, cpu.rsp) == (0, CODE64, CODE64 + 8, STACK3)
    assert (cpu.cs.base, cpu.cs.limit, cpu.cs.access & 0x60FF) == (0, 0xFFFFFFFF, 0x209B)


@pytest.mark.parametrize(("text", "cs"), [("o64 sysret", CODE64_3), ("sysret", CODE32_3)])
def test_sysret(bench: Long, text: str, cs: int) -> None:
    bench.set_gate(0x40, HANDLERS + 0x400, dpl=3)
    frame = bench.run(system_calls(bench) + f"lea rcx, [rel there]\n mov r11, 3202h\n {text}\n there: int 40h")
    assert (frame.vector, frame.stack[1:3], frame.stack[4]) == (0x40, (cs, 0x3202), DATA3)


def test_sysret_checks(bench: Long) -> None:
    assert bench.run(system_calls(bench) + f"mov rcx, {NONCANONICAL:#x}\n o64 sysret").vector == GP
    bench = Long()
    bench.user()
    assert bench.run("o64 sysret").vector == GP


def test_syscall_without_sce(bench: Long) -> None:
    bench.cpu.efer = bench.cpu.efer & ~EFER_SCE
    assert bench.run("syscall").vector == UD
    assert bench.run("sysret").vector == UD


def test_syscall_is_undefined_in_compatibility_code(bench: Long) -> None:
    bench.user(CODE32_3)
    assert bench.run("syscall", bits=32).vector == UD


def test_sysenter_and_sysexit(bench: Long) -> None:
    bench.cpu.memory.write(0x18000, b"\xf4")
    bench.run(wrmsr(0x174, 0x08) + wrmsr(0x175, 0xFFFF_8000_0000_8000) + wrmsr(0x176, 0x18000) + "hlt")
    bench.user(CODE32_3)
    bench.place("sysenter", bits=32)
    bench.cpu.run(instructions=5)
    cpu = bench.cpu
    assert (cpu.rip, cpu.rsp, cpu.cs.selector, cpu.ss.selector) == (0x18001, 0xFFFF_8000_0000_8000, 0x08, 0x10)
    bench.place("o64 sysexit")
    cpu.rcx, cpu.rdx = 0x9000, CODE + 0x100
    cpu.step()
    assert (cpu.rip, cpu.rsp, cpu.cs.selector, cpu.ss.selector, cpu.cpl) == (CODE + 0x100, 0x9000, 0x2B, 0x33, 3)


# --- SDM Vol. 3, "Compatibility Mode"; far transfers ---


def test_compatibility_code_and_back(bench: Long) -> None:
    bench.cpu.memory.write(0x30000, struct.pack("<IH", CODE + 0x80, CODE32))
    text = (
        f"mov rax, -1\n jmp far dword [30000h]\n times 80h-($-$$) nop\n bits 32\n mov eax, 5\n inc eax\n db 40h\n"
        f" jmp {CODE64}:there\n bits 64\n there: mov rbx, rax\n hlt"
    )
    assert bench.run(text).vector is None
    assert bench.cpu.rbx == 7  # 40h is INC EAX there, and a REX prefix here


def test_limits_hold_in_compatibility_code(bench: Long) -> None:
    bench.set_descriptor(FREE, data(0, limit=0x2FFFF, flags=4))
    bench.compatibility()
    frame = bench.run(f"mov ax, {FREE}\n mov ds, ax\n mov al, [2FFFFh]\n mov al, [30000h]\n hlt", bits=32)
    assert (frame.vector, frame.stack[0]) == (GP, 0)


def test_call_gate_to_more_privilege(bench: Long) -> None:
    bench.set_call_gate(FREE, CODE64, 0x18000)
    bench.cpu.memory.write(0x18000, b"\xf4")
    bench.cpu.memory.write(0x30000, struct.pack("<IH", 0, FREE | 3))
    bench.user()
    length = bench.place("call far dword [30000h]")
    bench.cpu.run(instructions=5)
    cpu = bench.cpu
    assert (cpu.rip, cpu.cs.selector, cpu.ss.selector, cpu.rsp) == (0x18001, CODE64, 0, STACK0 - 32)
    assert bench.read64(cpu.rsp, 4) == (CODE + length, CODE64_3, STACK3, DATA3)


def test_no_task_switches(raising: Long) -> None:
    raising.cpu.memory.write(0x30000, struct.pack("<IH", 0, FREE))
    raising.set_system(FREE, 9, 0x4000, 0x67)
    assert raising.fault("jmp far dword [30000h]") == (GP, FREE)


# --- control registers ---


def test_cr8_and_64_bit_control_registers(bench: Long) -> None:
    bench.run("mov eax, 9\n mov cr8, rax\n mov rbx, cr8\n mov rcx, cr3\n hlt")
    assert (bench.cpu.rbx, bench.cpu.cr8, bench.cpu.rcx) == (9, 9, PML4)
    assert bench.run("mov eax, 16\n mov cr8, rax\n hlt").vector == GP
    assert bench.run("mov rax, 8000000000h\n mov cr0, rax\n hlt").vector == GP
    assert bench.run("db 0Fh, 22h, 0E8h\n hlt").vector == UD  # CR5


def test_single_step_and_undefined(bench: Long) -> None:
    frame = bench.run("pushfq\n bts qword [rsp], 8\n popfq\n nop\n nop\n hlt")
    assert (frame.vector, bench.cpu.dr6 & 0x4000) == (DB, 0x4000)


def test_bases_outlive_64_bit_code() -> None:
    """SDM Vol. 3, "Segmentation in IA-32e Mode": there the bases count as 0; compatibility code has them again."""
    bench = Long()
    bench.set_descriptor(FREE, data(0, base=0x20000))
    cpu = bench.cpu
    cpu.memory.write(0x20100, b"\x11\x22\x33\x44")
    cpu.memory.write(0x100, b"\xaa\xbb\xcc\xdd")
    far = f"""
        mov eax, {FREE}
        mov ds, eax             ; in 64-bit code
        mov ebx, [abs 0x100]    ; from 0
        push {CODE32}
        push compatibility
        retfq
    bits 32
    compatibility:
        mov ecx, [0x100]        ; with the base
        jmp {CODE64}:back
    bits 64
    back:
        mov edx, [abs 0x100]
        hlt
    """
    assert bench.run(far).vector is None
    assert (cpu.ebx, cpu.ecx, cpu.edx) == (0xDDCCBBAA, 0x44332211, 0xDDCCBBAA)
