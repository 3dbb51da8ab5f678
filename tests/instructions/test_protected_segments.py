"""Loading and using segment registers in protected mode."""

import pytest
from system import CODE3, DATA0, DATA3, FREE, GP, LDT, NP, SS, UD, Bench, code, data, system

LOADS = ("es", "ds", "fs", "gs")


@pytest.fixture
def bench() -> Bench:
    return Bench(faults="raise")


def load(register: str) -> str:
    return f"mov {register}, ax"


# SDM Vol. 2, "MOV", and Vol. 3, "Privilege Level Checking When Accessing Data Segments".
@pytest.mark.parametrize(
    ("value", "selector", "cpl", "expected"),
    [
        (data(0), FREE, 0, None),
        (data(0), FREE | 3, 0, (GP, FREE)),  # RPL > DPL
        (data(0), FREE, 3, (GP, FREE)),  # CPL > DPL
        (data(3), FREE | 3, 3, None),
        (data(3), FREE, 0, None),
        (code(0, type_=8), FREE, 0, (GP, FREE)),  # execute-only
        (code(0), FREE, 0, None),
        (code(0), FREE | 3, 3, (GP, FREE)),
        (code(0, type_=0xE), FREE | 3, 3, None),  # readable, conforming: no privilege check
        (data(0, present=0), FREE, 0, (NP, FREE)),
        (data(0, present=0), FREE, 3, (GP, FREE)),  # the privilege check comes first
        (system(2, LDT, 0xFF), FREE, 0, (GP, FREE)),
        (0, FREE, 0, (GP, FREE)),
    ],
)
@pytest.mark.parametrize("register", LOADS)
def test_load_of_a_data_segment(
    bench: Bench, register: str, value: int, selector: int, cpl: int, expected: tuple[int, int] | None
) -> None:
    bench.set_descriptor(selector, value)
    if cpl:
        bench.enter_ring(cpl)
    bench.cpu.eax = selector
    before = getattr(bench.cpu, register).selector
    assert bench.fault(load(register)) == expected
    assert getattr(bench.cpu, register).selector == (before if expected else selector)


# SDM Vol. 2, "MOV": the stack segment's own checks.
@pytest.mark.parametrize(
    ("value", "selector", "cpl", "expected"),
    [
        (data(0), FREE, 0, None),
        (data(0), FREE | 1, 0, (GP, FREE)),  # RPL <> CPL
        (data(3), FREE, 0, (GP, FREE)),  # DPL <> CPL
        (data(3), FREE | 3, 3, None),
        (data(0, type_=0), FREE, 0, (GP, FREE)),  # not writable
        (code(0), FREE, 0, (GP, FREE)),
        (data(0, present=0), FREE, 0, (SS, FREE)),
        (data(0), 0, 0, (GP, 0)),  # null
        (data(0), 3, 3, (GP, 0)),
    ],
)
def test_load_of_the_stack_segment(
    bench: Bench, value: int, selector: int, cpl: int, expected: tuple[int, int] | None
) -> None:
    bench.set_descriptor(FREE, value)
    if cpl:
        bench.enter_ring(cpl)
    bench.cpu.eax = selector
    assert bench.fault("mov ss, ax") == expected


def test_load_of_cs_is_undefined(bench: Bench) -> None:
    """SDM Vol. 2, "MOV": #UD if CS is the destination."""
    assert bench.fault("db 8Eh, 0C8h") == (UD, None)


@pytest.mark.parametrize(("limit", "expected"), [(FREE + 7, None), (FREE + 6, (GP, FREE))])
def test_descriptor_beyond_the_table(bench: Bench, limit: int, expected: tuple[int, int] | None) -> None:
    """SDM Vol. 3, "Limit Checking": a selector must name eight bytes within its table."""
    bench.set_descriptor(FREE, data(0))
    bench.cpu.gdtr.limit = limit
    bench.cpu.eax = FREE
    assert bench.fault("mov es, ax") == expected


def test_local_descriptor_table(bench: Bench) -> None:
    """SDM Vol. 3, "Segment Selectors": TI picks the LDT; a null LDT has no descriptors."""
    bench.set_descriptor(0x0C, data(0, base=0x1234))
    bench.cpu.eax = 0x0C
    assert bench.fault("mov es, ax") is None
    assert bench.cpu.es.base == 0x1234
    bench.cpu.ecx = 0
    assert bench.fault("lldt cx") is None
    assert bench.fault("mov es, ax") == (GP, 0x0C)


def test_accessed_bit(bench: Bench) -> None:
    """SDM Vol. 3, "Code- and Data-Segment Descriptor Types": loading sets the accessed bit."""
    bench.set_descriptor(FREE, data(0))
    bench.cpu.eax = FREE
    assert bench.fault("mov fs, ax") is None
    assert bench.get_descriptor(FREE) == data(0, type_=3)
    assert bench.cpu.fs.access & 1


@pytest.mark.parametrize("selector", [0, 3])
def test_null_segment(bench: Bench, selector: int) -> None:
    """SDM Vol. 3, "Null Segment Selector Checking": it may be loaded but not used."""
    bench.cpu.eax = selector
    assert bench.fault("mov gs, ax") is None
    assert bench.cpu.gs.selector == selector
    assert bench.fault("mov eax, [gs:0]") == (GP, 0)
    assert bench.fault("mov [gs:0], eax") == (GP, 0)


# SDM Vol. 3, "Limit Checking".
@pytest.mark.parametrize(
    ("value", "offset", "size", "allowed"),
    [
        (data(limit=0xFFF, flags=4), 0xFFF, 1, True),
        (data(limit=0xFFF, flags=4), 0xFFE, 2, True),
        (data(limit=0xFFF, flags=4), 0xFFF, 2, False),
        (data(limit=0xFFF, flags=4), 0xFFC, 4, True),
        (data(limit=0xFFF, flags=4), 0xFFD, 4, False),
        (data(limit=0xFFF, flags=4), 0x1000, 1, False),
        (data(limit=1, flags=0xC), 0x1FFF, 1, True),  # pages: limit 1FFFh
        (data(limit=1, flags=0xC), 0x1FFE, 4, False),
        (data(limit=1, flags=0xC), 0x2000, 1, False),
        (data(limit=0, flags=0xC), 0xFFF, 1, True),
        (data(limit=0xFFF, flags=4, type_=6), 0xFFF, 1, False),  # expand-down: offsets above the limit
        (data(limit=0xFFF, flags=4, type_=6), 0x1000, 1, True),
        (data(limit=0xFFF, flags=4, type_=6), 0x0, 1, False),
        (data(limit=0xFFF, flags=4, type_=6), 0xFFE, 4, False),
        (data(limit=0xFFF, flags=4, type_=6), 0x12345, 4, True),
        (data(limit=0xFFF, flags=0, type_=6), 0xFFFF, 1, True),  # B=0: up to FFFFh
        (data(limit=0xFFF, flags=0, type_=6), 0xFFFE, 4, False),
        (data(limit=0xFFF, flags=0, type_=6), 0x10000, 1, False),
        (data(limit=0, flags=0xC, type_=6), 0x1000, 1, True),  # pages: above 0FFFh
        (data(limit=0, flags=0xC, type_=6), 0x0FFF, 1, False),
        (data(limit=0xFFFFF, flags=0xC), 0xFFFFFFFF, 1, True),
        (data(limit=0xFFFFF, flags=0xC), 0xFFFFFFFE, 4, False),
    ],
)
def test_segment_limit(bench: Bench, value: int, offset: int, size: int, allowed: bool) -> None:
    bench.set_descriptor(FREE, value)
    bench.cpu.es.load(FREE)
    bench.cpu.ebx = offset
    register = {1: "al", 2: "ax", 4: "eax"}[size]
    assert bench.fault(f"mov {register}, [es:ebx]") == (None if allowed else (GP, 0))
    assert bench.fault(f"mov [es:ebx], {register}") == (None if allowed else (GP, 0))


@pytest.mark.parametrize(("offset", "allowed"), [(0xFFC, True), (0xFFD, False)])
def test_stack_limit_faults_with_ss(bench: Bench, offset: int, allowed: bool) -> None:
    """SDM Vol. 3, "Interrupt 12 - Stack Fault Exception": whatever addresses through SS."""
    bench.set_descriptor(FREE, data(limit=0xFFF, flags=4))
    bench.cpu.ss.load(FREE)
    bench.cpu.ebp = offset
    assert bench.fault("mov eax, [ebp]") == (None if allowed else (SS, 0))
    bench.cpu.esp = offset
    assert bench.fault("pop eax") == (None if allowed else (SS, 0))
    bench.cpu.esp = offset + 4
    assert bench.fault("push eax") == (None if allowed else (SS, 0))


# SDM Vol. 3, "Type Checking".
@pytest.mark.parametrize(
    ("value", "instruction", "expected"),
    [
        (data(type_=0), "mov [es:ebx], eax", (GP, 0)),
        (data(type_=0), "mov eax, [es:ebx]", None),
        (code(type_=0xA), "mov [es:ebx], eax", (GP, 0)),
        (code(type_=0xA), "mov eax, [es:ebx]", None),
        (data(type_=0), "add [es:ebx], eax", (GP, 0)),
    ],
)
def test_rights_of_use(bench: Bench, value: int, instruction: str, expected: tuple[int, int] | None) -> None:
    bench.set_descriptor(FREE, value)
    bench.cpu.es.load(FREE)
    bench.cpu.ebx = 0x20000
    assert bench.fault(instruction) == expected


def test_write_to_code_segment(bench: Bench) -> None:
    """SDM Vol. 3, "Type Checking": no instruction may write into a code segment."""
    assert bench.fault("mov [cs:20000h], eax") == (GP, 0)
    assert bench.fault("mov eax, [cs:20000h]") is None
    bench.cpu.cs.access = 0xC099  # execute-only
    assert bench.fault("mov eax, [cs:20000h]") == (GP, 0)


def test_execution_past_the_code_limit(bench: Bench) -> None:
    """SDM Vol. 3, "Limit Checking": an instruction that crosses the code segment's limit is #GP(0) and did nothing."""
    bench.place("mov eax, 12345678h", at=0x10FFD)
    bench.set_descriptor(FREE, code(limit=0x10FFF, flags=4))
    bench.cpu.eax = 0
    assert bench.fault(f"jmp {FREE:#x}:10ffdh") is None
    assert bench.cpu.rip == 0x10FFD
    assert bench.step() == (GP, 0)
    assert (bench.cpu.eax, bench.cpu.rip) == (0, 0x10FFD)


@pytest.mark.parametrize("register", ["es", "ss", "ds", "fs", "gs"])
def test_far_pointer_loads(bench: Bench, register: str) -> None:
    """SDM Vol. 2, "LDS/LES/LFS/LGS/LSS": selector and offset are loaded together, or neither."""
    bench.set_descriptor(FREE, data(0, base=0x100))
    bench.write32(0x20000, 0xCAFEBABE)
    bench.write16(0x20004, FREE)
    bench.cpu.ecx = 0
    bench.cpu.ebx = 0x20000
    assert bench.fault(f"l{register} ecx, [ebx]") is None
    assert bench.cpu.ecx == 0xCAFEBABE
    assert getattr(bench.cpu, register).base == 0x100
    bench.cpu.ds.load(DATA0)
    bench.cpu.ss.load(DATA0)
    bench.write16(0x20004, FREE + 8)
    bench.cpu.ecx = 7
    assert bench.fault(f"l{register} ecx, [ebx]") == (GP, FREE + 8)
    assert bench.cpu.ecx == 7


@pytest.mark.parametrize("register", ["es", "ds", "fs", "gs", "ss"])
def test_pop_of_a_segment(bench: Bench, register: str) -> None:
    """SDM Vol. 2, "POP": a fault leaves ESP; a 32-bit slot is taken whole."""
    bench.set_descriptor(FREE, data(0))
    bench.write32(0x20000, 0xFFFF0000 | FREE)
    bench.cpu.esp = 0x20000
    assert bench.fault(f"pop {register}") is None
    assert (getattr(bench.cpu, register).selector, bench.cpu.esp) == (FREE, 0x20004)
    bench.write32(0x20004, FREE + 8)
    assert bench.fault(f"pop {register}") == (GP, FREE + 8)
    assert bench.cpu.esp == 0x20004


def test_push_of_a_segment_writes_16_bits(bench: Bench) -> None:
    """SDM Vol. 2, "PUSH": of a 32-bit slot recent processors write the lower half alone."""
    bench.write32(0x20000, 0xAAAAAAAA)
    bench.cpu.esp = 0x20004
    assert bench.fault("push ds") is None
    assert (bench.cpu.esp, bench.read32(0x20000)) == (0x20000, 0xAAAA0000 | DATA0)


# --- LAR, LSL, VERR, VERW, ARPL: SDM Vol. 3, "Pointer Validation" ---

QUERIES = [
    # descriptor, selector, CPL: valid for LAR, LSL, VERR, VERW
    (data(0), FREE, 0, (True, True, True, True)),
    (data(0), FREE | 3, 0, (False, False, False, False)),
    (data(0), FREE, 3, (False, False, False, False)),
    (data(3, type_=0), FREE | 3, 3, (True, True, True, False)),
    (code(0), FREE, 0, (True, True, True, False)),
    (code(0, type_=8), FREE, 0, (True, True, False, False)),
    (code(0, type_=0xE), FREE | 3, 3, (True, True, True, False)),
    (data(0, present=0), FREE, 0, (True, True, True, True)),
    (system(1, 0, 0x2B), FREE, 0, (True, True, False, False)),
    (system(2, 0, 0xFF), FREE, 0, (True, True, False, False)),
    (system(4, 0, 0), FREE, 0, (True, False, False, False)),
    (system(5, 0, 0), FREE, 0, (True, False, False, False)),
    (system(6, 0, 0), FREE, 0, (False, False, False, False)),
    (system(9, 0, 0x67), FREE, 0, (True, True, False, False)),
    (system(12, 0, 0), FREE, 0, (True, False, False, False)),
    (system(14, 0, 0), FREE, 0, (False, False, False, False)),
    (data(0), 0, 0, (False, False, False, False)),
    (data(0), 0x3F8 + 8, 0, (False, False, False, False)),
]


@pytest.mark.parametrize(("value", "selector", "cpl", "valid"), QUERIES)
def test_descriptor_queries(bench: Bench, value: int, selector: int, cpl: int, valid: tuple[bool, ...]) -> None:
    bench.set_descriptor(FREE, value)
    if cpl:
        bench.enter_ring(cpl)
    results = []
    for instruction in ("lar ecx, eax", "lsl ecx, eax", "verr ax", "verw ax"):
        bench.cpu.eax = selector
        bench.cpu.ecx = 0x5555
        assert bench.fault(instruction) is None
        results.append(bool(bench.cpu.rflags & 0x40))
        if not results[-1]:
            assert bench.cpu.ecx == 0x5555
    assert tuple(results) == valid


def test_results_of_lar_and_lsl(bench: Bench) -> None:
    """SDM Vol. 2, "LAR": the second doubleword under 00FxFF00h; "LSL": the limit in bytes."""
    bench.set_descriptor(FREE, data(3, limit=0x12345, flags=0xC))
    bench.cpu.eax = FREE
    assert bench.fault("lar ecx, eax") is None
    assert bench.cpu.ecx & ~0xF0000 == 0x00C0F200
    assert bench.fault("lsl ecx, eax") is None
    assert bench.cpu.ecx == 0x12345FFF
    bench.cpu.ecx = 0xFFFFFFFF
    assert bench.fault("lar cx, ax") is None
    assert bench.cpu.ecx == 0xFFFFF200


@pytest.mark.parametrize(
    ("destination", "source", "result", "zf"), [(0x50, 0x03, 0x53, 1), (0x53, 0x50, 0x53, 0), (0x51, 0x51, 0x51, 0)]
)
def test_arpl(bench: Bench, destination: int, source: int, result: int, zf: int) -> None:
    """SDM Vol. 2, "ARPL": raises the destination's RPL to the source's."""
    bench.cpu.eax, bench.cpu.ecx = destination, source
    assert bench.fault("arpl ax, cx") is None
    assert (bench.cpu.eax, bench.cpu.rflags >> 6 & 1) == (result, zf)
    bench.write16(0x20000, destination)
    assert bench.fault("arpl [20000h], cx") is None
    assert (bench.read16(0x20000), bench.cpu.rflags >> 6 & 1) == (result, zf)


@pytest.mark.parametrize(("rpl", "expected"), [(2, (GP, 0)), (3, None)])
def test_arpl_of_a_segment_that_is_read_only(bench: Bench, rpl: int, expected: tuple[int, int] | None) -> None:
    """80386 Programmer's Reference Manual, "ARPL": #GP(0) if the result is in a nonwritable segment; no result, no #GP.

    The SDM names the destination; an 80386 and a present-day processor were both seen to do as the older manual says.
    """
    bench.write16(0x20000, 0x50 | rpl)
    bench.cpu.ds.access &= ~2
    bench.cpu.ecx = 3
    assert bench.fault("arpl [20000h], cx") == expected
    assert bench.read16(0x20000) == 0x50 | rpl


# --- LLDT, LTR ---


@pytest.mark.parametrize(
    ("instruction", "value", "selector", "expected"),
    [
        ("lldt ax", system(2, LDT, 0xFF), FREE, None),
        ("lldt ax", system(2, LDT, 0xFF), 0, None),
        ("lldt ax", system(2, LDT, 0xFF), FREE | 4, (GP, FREE | 4)),  # not in the GDT
        ("lldt ax", system(9, LDT, 0xFF), FREE, (GP, FREE)),
        ("lldt ax", system(2, LDT, 0xFF, present=0), FREE, (NP, FREE)),
        ("ltr ax", system(9, 0x3000, 0x67), FREE, None),
        ("ltr ax", system(1, 0x3000, 0x2B), FREE, None),
        ("ltr ax", system(11, 0x3000, 0x67), FREE, (GP, FREE)),  # busy
        ("ltr ax", system(9, 0x3000, 0x67), 0, (GP, 0)),
        ("ltr ax", system(9, 0x3000, 0x67), FREE | 4, (GP, FREE | 4)),
        ("ltr ax", system(9, 0x3000, 0x67, present=0), FREE, (NP, FREE)),
        ("ltr ax", data(0), FREE, (GP, FREE)),
    ],
)
def test_system_segments(
    bench: Bench, instruction: str, value: int, selector: int, expected: tuple[int, int] | None
) -> None:
    """SDM Vol. 2, "LLDT", "LTR"."""
    bench.set_descriptor(FREE, value)
    bench.cpu.eax = selector
    assert bench.fault(instruction) == expected
    if expected is None and selector:
        assert bench.fault("sldt cx" if instruction.startswith("lldt") else "str cx") is None
        assert bench.cpu.cx == selector
        if instruction.startswith("ltr"):
            assert bench.get_descriptor(FREE) == value | 2 << 40


@pytest.mark.parametrize("instruction", ["lldt ax", "ltr ax"])
def test_system_segments_need_cpl_0(bench: Bench, instruction: str) -> None:
    """SDM Vol. 2, "LLDT", "LTR": #GP(0) if CPL is not 0."""
    bench.enter_ring(3)
    assert bench.fault(instruction) == (GP, 0)


@pytest.mark.parametrize("instruction", ["lldt ax", "ltr ax", "sldt ax", "str ax", "lar ax, ax", "lsl ax, ax",
                                         "verr ax", "verw ax", "arpl ax, ax"])  # fmt: skip
def test_protected_mode_alone(instruction: str) -> None:
    """SDM Vol. 2: these are #UD in real-address and virtual-8086 mode."""
    assert Bench(faults="raise", bits=16).fault(instruction) == (UD, None)
    bench = Bench(faults="raise")
    bench.enter_v86()
    assert bench.fault(instruction) == (UD, None)


def test_segments_of_ring_3(bench: Bench) -> None:
    """SDM Vol. 3, "Current Privilege Level": code of CPL 3 sees it in CS and may load its own segments."""
    bench.enter_ring(3)
    assert bench.fault("mov ax, cs") is None
    assert bench.cpu.ax == CODE3
    bench.cpu.eax = DATA3
    assert bench.fault("mov ds, ax") is None
    assert bench.cpu.ds.selector == DATA3


def test_real_mode_keeps_limits(bench: Bench) -> None:
    """SDM Vol. 3, "Switching Back to Real-Address Mode": limits of protected mode stay in force ("unreal mode"),
    and a load in real-address mode changes the base alone."""
    bench.cpu.rip = bench.code
    bench.place("mov eax, cr0\n and al, 0FEh\n mov cr0, eax\n mov bx, 1000h\n mov ds, bx\n mov eax, [10004h]\n hlt")
    bench.write32(0x20004, 0x600DCAFE)
    bench.cpu.run()
    assert bench.cpu.eax == 0x600DCAFE
    assert (bench.cpu.ds.base, bench.cpu.ds.limit) == (0x10000, 0xFFFFFFFF)
