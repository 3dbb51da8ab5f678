"""Control, debug and model-specific registers, and the other system instructions."""

import pytest
from system import CODE0, CODE3, DATA0, DATA3, GP, HANDLERS, IF, NM, UD, VM, Bench, gate

PE, MP, EM, TS, ET, NE, WP, AM, NW, CD, PG = (1 << n for n in (0, 1, 2, 3, 4, 5, 16, 18, 29, 30, 31))


@pytest.fixture
def bench() -> Bench:
    return Bench(faults="raise")


# --- privilege ---

PRIVILEGED = ["hlt", "mov eax, cr0", "mov cr0, eax", "mov eax, cr3", "mov cr3, eax", "mov eax, cr4", "mov cr4, eax",
              "mov eax, dr0", "mov dr7, eax", "clts", "lmsw ax", "lgdt [20000h]", "lidt [20000h]", "invlpg [20000h]",
              "invd", "wbinvd", "rdmsr", "wrmsr", "lldt ax", "ltr ax", "sysexit"]  # fmt: skip


@pytest.mark.parametrize("cpl", [1, 3])
@pytest.mark.parametrize("instruction", PRIVILEGED)
def test_privileged_instructions(bench: Bench, instruction: str, cpl: int) -> None:
    """SDM Vol. 3, "Privileged Instructions": #GP(0) unless CPL is 0, whatever the operands and IOPL."""
    bench.cpu.rflags = 0x3002
    bench.enter_ring(cpl)
    bench.cpu.ecx = 0x174
    assert bench.fault(instruction) == (GP, 0)


@pytest.mark.parametrize(
    "instruction", ["smsw ax", "sgdt [20000h]", "sidt [20000h]", "sldt ax", "str ax", "cpuid", "rdtsc"]
)
def test_unprivileged_instructions(bench: Bench, instruction: str) -> None:
    """SDM Vol. 3, "System Instruction Summary": these work at any CPL."""
    bench.enter_ring(3)
    assert bench.fault(instruction) is None


# --- CR0: SDM Vol. 2, "MOV - Move to/from Control Registers" ---


@pytest.mark.parametrize(("value", "expected"), [
    (PE, PE | ET), (PE | TS | MP | EM | NE | WP | AM, PE | TS | MP | EM | NE | WP | AM | ET),
    (PE | CD | NW, PE | CD | NW | ET),
    (PE | CD, PE | CD | ET), (PE | NW, None), (PG, None), (PE | 0x1FFAFFC0, PE | ET),
])  # fmt: skip
def test_mov_to_cr0(bench: Bench, value: int, expected: int | None) -> None:
    """PG needs PE, NW needs CD; reserved bits are ignored and ET is always 1."""
    before = bench.cpu.cr0
    bench.cpu.eax = value
    assert bench.fault("mov cr0, eax") == (None if expected is not None else (GP, 0))
    assert bench.cpu.cr0 == (before if expected is None else expected)


@pytest.mark.parametrize("number", [1, 5, 6, 7])
def test_control_registers_that_do_not_exist(bench: Bench, number: int) -> None:
    """SDM Vol. 2, "MOV": #UD for CR1, CR5, CR6, CR7."""
    assert bench.fault(f"db 0Fh, 20h, {0xC0 | number << 3:#x}") == (UD, None)
    assert bench.fault(f"db 0Fh, 22h, {0xC0 | number << 3:#x}") == (UD, None)


def test_mov_from_cr_ignores_mod(bench: Bench) -> None:
    """SDM Vol. 2, "MOV": the two mod bits are ignored, the operand is a register."""
    assert bench.fault("db 0Fh, 20h, 0") is None
    assert bench.cpu.eax == bench.cpu.cr0
    assert bench.cpu.rip == bench.code + 3


@pytest.mark.parametrize(("value", "allowed"), [(0x7FF, True), (0x800, False), (1 << 20, False), (1 << 31, False)])
def test_reserved_bits_of_cr4(bench: Bench, value: int, allowed: bool) -> None:
    """SDM Vol. 2, "MOV": #GP(0) for a reserved bit of CR4; the Pentium III has bits 0 to 10."""
    bench.write32(0x50000, 0, 0, 0, 0, 0, 0, 0, 0)
    bench.cpu.eax = value
    assert bench.fault("mov cr4, eax") == (None if allowed else (GP, 0))
    assert bench.cpu.cr4 == (value if allowed else 0)


def test_lmsw_sets_but_never_clears_pe(bench: Bench) -> None:
    """SDM Vol. 2, "LMSW": PE, MP, EM, TS alone."""
    bench.cpu.eax = 0xFFFFFFFE
    assert bench.fault("lmsw ax") is None
    assert bench.cpu.cr0 == PE | MP | EM | TS | ET
    bench.cpu.eax = 0
    assert bench.fault("lmsw ax") is None
    assert bench.cpu.cr0 == PE | ET
    real = Bench(faults="raise", bits=16)
    real.cpu.eax = 1
    assert real.fault("lmsw ax") is None
    assert real.cpu.cr0 & PE


def test_smsw(bench: Bench) -> None:
    bench.cpu.cr0 = PE | ET | WP
    assert bench.fault("smsw eax") is None
    assert bench.cpu.eax == PE | ET | WP
    bench.write32(0x20000, 0xFFFFFFFF)
    assert bench.fault("smsw [20000h]") is None
    assert bench.read32(0x20000) == 0xFFFF0000 | PE | ET


@pytest.mark.parametrize(("cr0", "faults"), [(TS, False), (MP, False), (TS | MP, True), (EM, False)])
def test_wait(bench: Bench, cr0: int, faults: bool) -> None:
    """SDM Vol. 2, "WAIT/FWAIT": #NM where MP and TS are both set; CLTS clears TS."""
    bench.cpu.cr0 = PE | ET | cr0
    assert bench.fault("wait") == ((NM, None) if faults else None)
    assert bench.fault("clts\n wait", steps=2) is None


# --- descriptor-table registers ---


def test_lgdt_and_sgdt(bench: Bench) -> None:
    """SDM Vol. 2, "LGDT/LIDT", "SGDT": with a 16-bit operand size 24 bits of the base are loaded."""
    bench.write16(0x20000, 0x1FF, 0x5678, 0x1234)
    assert bench.fault("lidt [20000h]") is None
    assert (bench.cpu.idtr.base, bench.cpu.idtr.limit) == (0x12345678, 0x1FF)
    assert bench.fault("sidt [20010h]") is None
    assert bytes(bench.cpu.memory.read(0x20010, 8)) == bytes(bench.cpu.memory.read(0x20000, 6)) + b"\0\0"
    assert bench.fault("o16 lidt [20000h]") is None
    assert bench.cpu.idtr.base == 0x345678


@pytest.mark.parametrize("instruction", ["db 0Fh, 1, 0D0h", "db 0Fh, 1, 0F8h"])
def test_memory_operands_alone(bench: Bench, instruction: str) -> None:
    """SDM Vol. 2, "LGDT/LIDT", "INVLPG": #UD for a register."""
    assert bench.fault(instruction) == (UD, None)


# --- debug registers: SDM Vol. 3, "Debug Registers" ---


def test_reserved_bits_of_dr6_and_dr7(bench: Bench) -> None:
    bench.cpu.eax = 0
    assert bench.fault("mov dr6, eax\n mov dr7, eax\n mov ecx, dr6\n mov edx, dr7", steps=4) is None
    assert (bench.cpu.ecx, bench.cpu.edx) == (0xFFFF0FF0, 0x400)


@pytest.mark.parametrize("number", [4, 5])
def test_dr4_and_dr5(bench: Bench, number: int) -> None:
    """Aliases of DR6 and DR7, or #UD with CR4.DE."""
    assert bench.fault(f"db 0Fh, 21h, {0xC1 | number << 3:#x}") is None
    assert bench.cpu.ecx == (bench.cpu.dr6 if number == 4 else bench.cpu.dr7)
    bench.cpu.cr4 = 8
    assert bench.fault(f"db 0Fh, 21h, {0xC1 | number << 3:#x}") == (UD, None)


# --- time-stamp counter and MSRs ---


@pytest.mark.parametrize(("tsd", "cpl", "allowed"), [(0, 3, True), (4, 3, False), (4, 0, True)])
def test_rdtsc_and_tsd(bench: Bench, tsd: int, cpl: int, allowed: bool) -> None:
    """SDM Vol. 2, "RDTSC": #GP(0) where CR4.TSD is set and CPL above 0."""
    bench.cpu.cr4 = tsd
    if cpl:
        bench.enter_ring(cpl)
    assert bench.fault("rdtsc") == (None if allowed else (GP, 0))


def test_time_stamp_counter(bench: Bench) -> None:
    """SDM Vol. 3, "Time-Stamp Counter": it counts the processor's cycles from what WRMSR wrote."""
    bench.cpu.ecx, bench.cpu.edx, bench.cpu.eax = 0x10, 5, 1000
    assert bench.fault("wrmsr") is None
    before = bench.cpu.cycles
    assert bench.fault("nop\n nop\n rdtsc", steps=3) is None
    first = bench.cpu.edx << 32 | bench.cpu.eax
    assert 5 << 32 | 1000 < first <= (5 << 32 | 1000) + bench.cpu.cycles - before + 200


def test_sysenter_msrs_and_unknown_ones(bench: Bench) -> None:
    """SDM Vol. 2, "RDMSR", "WRMSR": #GP(0) for a register that does not exist."""
    for number in (0x174, 0x175, 0x176):
        bench.cpu.ecx, bench.cpu.edx, bench.cpu.eax = number, 0, 0x1000 + number
        assert bench.fault("wrmsr") is None
        bench.cpu.eax = 0
        assert bench.fault("rdmsr") is None
        assert (bench.cpu.edx, bench.cpu.eax) == (0, 0x1000 + number)
    bench.cpu.ecx = 0xDEAD
    assert bench.fault("rdmsr") == (GP, 0)
    assert bench.fault("wrmsr") == (GP, 0)


def test_sysenter_and_sysexit(bench: Bench) -> None:
    """SDM Vol. 2, "SYSENTER", "SYSEXIT": flat segments from IA32_SYSENTER_CS; IF and VM are cleared."""
    for number, value in ((0x174, CODE0), (0x175, 0x8800), (0x176, 0x18000)):
        bench.cpu.ecx, bench.cpu.edx, bench.cpu.eax = number, 0, value
        assert bench.fault("wrmsr") is None
    bench.enter_v86(3, IF)
    assert bench.fault("sysenter") is None
    cpu = bench.cpu
    assert (cpu.rip, cpu.esp, cpu.cpl, cpu.cs.selector, cpu.ss.selector) == (0x18000, 0x8800, 0, CODE0, DATA0)
    assert (cpu.cs.base, cpu.cs.limit, cpu.ss.limit) == (0, 0xFFFFFFFF, 0xFFFFFFFF)
    assert cpu.rflags & (VM | IF) == 0
    cpu.ecx, cpu.edx = 0x7000, 0x19000
    assert bench.fault("sysexit") is None
    assert (cpu.rip, cpu.esp, cpu.cpl, cpu.cs.selector, cpu.ss.selector) == (0x19000, 0x7000, 3, CODE3, DATA3)


def test_sysenter_without_a_segment(bench: Bench) -> None:
    """SDM Vol. 2, "SYSENTER": #GP(0) where IA32_SYSENTER_CS[15:2] is 0, and in real-address mode."""
    assert bench.fault("sysenter") == (GP, 0)
    assert Bench(faults="raise", bits=16).fault("sysenter") == (GP, None)  # real mode has no error codes


# --- CPUID: SDM Vol. 2, "CPUID" ---


def cpuid(bench: Bench, leaf: int) -> tuple[int, int, int, int]:
    bench.cpu.eax, bench.cpu.ecx = leaf, 0
    assert bench.fault("cpuid") is None
    return bench.cpu.eax, bench.cpu.ebx, bench.cpu.ecx, bench.cpu.edx


def test_cpuid(bench: Bench) -> None:
    highest, *vendor = cpuid(bench, 0)
    assert b"".join(vendor[i].to_bytes(4, "little") for i in (0, 2, 1)) == b"GenuineIntel"
    assert cpuid(bench, 1)[0] >> 8 & 15 == 6
    assert cpuid(bench, highest + 1) == cpuid(bench, highest)  # past the last leaf: the last one's data
    assert cpuid(bench, 0x7FFFFFFF) == cpuid(bench, highest)


# --- instructions that are undefined here ---


@pytest.mark.parametrize("instruction", ["rsm", "vmcall", "vmxoff", "ud2", "db 0Fh, 0FFh, 0C0h", "db 0Fh, 0B9h, 0C0h",
                                         "db 0F0h, 90h", "lock mov [20000h], eax", "lock add eax, ecx"])  # fmt: skip
def test_undefined(bench: Bench, instruction: str) -> None:
    """SDM Vol. 3, "Interrupt 6 - Invalid Opcode Exception": also LOCK where it is not allowed."""
    assert bench.fault(instruction) == (UD, None)


@pytest.mark.parametrize(("length", "expected"), [(15, None), (16, (GP, 0))])
def test_instruction_length(bench: Bench, length: int, expected: tuple[int, int] | None) -> None:
    """SDM Vol. 3, "Interrupt 13 - General Protection Exception": an instruction of more than 15 bytes."""
    assert bench.fault("db " + "3Eh, " * (length - 1) + "90h") == expected


# --- switching modes: SDM Vol. 3, "Mode Switching" ---


def test_from_real_mode_to_protected_mode_and_back() -> None:
    bench = Bench(bits=16)
    bench.cpu.memory.write(0x1000, bytes(8) + (0x00CF9B000000FFFF).to_bytes(8, "little")
                           + (0x00CF93000000FFFF).to_bytes(8, "little") + (0x00009B000000FFFF).to_bytes(8, "little")
                           + (0x000093000000FFFF).to_bytes(8, "little"))  # fmt: skip
    bench.write16(0x800, 0x27, 0x1000, 0)
    bench.write16(0x806, 0x3FF, 0, 0)
    frame = bench.run(
        "lgdt [800h]\n mov eax, cr0\n or al, 1\n mov cr0, eax\n jmp 8:.flat\nbits 32\n.flat: mov ax, 10h\n mov ds, ax\n"
        " mov es, ax\n mov dword [90000h], 12345678h\n jmp 18h:.narrow\nbits 16\n.narrow: mov ax, 20h\n mov ds, ax\n"
        " mov es, ax\n mov eax, cr0\n and al, 0FEh\n mov cr0, eax\n jmp 0:.real\n.real: xor ax, ax\n mov ds, ax\n"
        " int 40h"
    )
    assert frame.vector == 0x40
    assert bench.read32(0x90000) == 0x12345678
    assert not bench.cpu.cr0 & PE
    assert (bench.cpu.ds.limit, bench.cpu.cs.limit) == (0xFFFF, 0xFFFF)


# --- alignment: SDM Vol. 3, "Interrupt 17 - Alignment Check Exception" ---


@pytest.mark.parametrize(("am", "ac", "cpl", "faults"), [
    (AM, 0x40000, 3, True), (0, 0x40000, 3, False), (AM, 0, 3, False), (AM, 0x40000, 0, False), (AM, 0x40000, 1, False),
])  # fmt: skip
def test_alignment_check(bench: Bench, am: int, ac: int, cpl: int, faults: bool) -> None:
    bench.cpu.cr0 = bench.cpu.cr0 | am
    if cpl:
        bench.enter_ring(cpl)
    bench.cpu.rflags = 2 | ac
    assert bench.fault("mov eax, [20001h]") == ((17, 0) if faults else None)
    assert bench.fault("mov ax, [20001h]") == ((17, 0) if faults else None)
    assert bench.fault("mov al, [20001h]") is None
    assert bench.fault("mov eax, [20004h]") is None


def test_popf_turns_alignment_checks_on_at_once() -> None:
    bench = Bench()
    bench.cpu.cr0 = bench.cpu.cr0 | AM
    bench.enter_ring(3)
    frame = bench.run("push dword 40002h\n popf\n mov eax, [20001h]")
    assert (frame.vector, frame.stack[0]) == (17, 0)


def test_every_vector_has_its_gate() -> None:
    """INT n reaches the n-th gate, of all 256."""
    bench = Bench()
    for vector in range(256):
        bench.set_gate(vector, gate(14, CODE0, HANDLERS + vector * 16))
        bench.cpu.esp = 0x9000
        bench.place(f"db 0CDh, {vector}")
        bench.cpu.rip = bench.code
        assert bench.go_on().vector == vector
