"""Single-stepping on branches and the records of the last branches, of each model that has them.

SDM Vol. 3, "Single-Stepping on Branches", "LBR Stack", "Last Exception Records"; SDM Vol. 4 for the registers' numbers.
"""

from typing import NamedTuple

import pytest
from system import CODE0, DB, UD, Bench, gate

DEBUGCTL, LBR, BTF = 0x1D9, 1, 2


class Registers(NamedTuple):
    count: int
    source: int
    target: int
    top: int | None
    exception: tuple[int, int]


MODELS = {
    "pentium3": Registers(1, 0x1DB, 0x1DC, None, (0x1DD, 0x1DE)),
    "prescott": Registers(16, 0x680, 0x6C0, 0x1DA, (0x1D7, 0x1D8)),
    "nehalem": Registers(16, 0x680, 0x6C0, 0x1C9, (0x1DD, 0x1DE)),
    "westmere": Registers(16, 0x680, 0x6C0, 0x1C9, (0x1DD, 0x1DE)),
}


def write(number: int, value: int) -> str:
    return f"mov ecx, {number}\n mov eax, {value}\n xor edx, edx\n wrmsr\n"


def read(bench: Bench, number: int) -> int:
    bench.run(f"mov ecx, {number}\n rdmsr\n hlt")
    return int(bench.cpu.edx) << 32 | int(bench.cpu.eax)


def records(bench: Bench, model: str) -> list[tuple[int, int]]:
    """From the newest on."""
    registers = MODELS[model]
    top = read(bench, registers.top) if registers.top else 0
    places = [(top - age) % registers.count for age in range(registers.count)]
    return [(read(bench, registers.source + place), read(bench, registers.target + place)) for place in places]


RECORDED = f"""
    {write(DEBUGCTL, LBR)}
start:
    jmp short a             ; taken
    nop
a:  call b                  ; taken, and RET
    xor eax, eax
    jnz a                   ; not taken
    jz c                    ; taken, to the next instruction
c:  mov ecx, 2
d:  loop d                  ; taken once
distant: jmp {CODE0}:e          ; to the next instruction too
e:  mov ecx, 3
    mov edi, 20000h
    rep stosb               ; no branch
    {write(DEBUGCTL, 0)}
    hlt
b:  ret
places: dd start, a, a + 5, b, c - 2, c, d, distant, e
"""


@pytest.mark.parametrize("model", MODELS)
def test_records_are_of_taken_branches(model: str) -> None:
    bench = Bench(model=model)
    length = bench.place(RECORDED)
    assert bench.go_on().vector is None
    start, a, back, b, jz, c, d, distant, e = (bench.read32(bench.code + length - 36 + 4 * i) for i in range(9))
    found = records(bench, model)
    expected = [(distant, e), (d, d), (jz, c), (b, back), (a, b), (start, a)]
    assert found[:6] == expected[: len(found)]
    assert found[6:] == [(0, 0)] * (len(found) - 6 if len(found) > 6 else 0)


@pytest.mark.parametrize("model", MODELS)
def test_exceptions_are_branches_and_keep_the_one_before(model: str) -> None:
    """SDM Vol. 3, "Last Exception Records": the last branch before the exception."""
    bench = Bench(model=model)
    bench.place(f"{write(DEBUGCTL, 0)} iret", at=0x18000)
    bench.set_gate(UD, gate(14, CODE0, 0x18000))
    setup = write(DEBUGCTL, LBR)
    jump = bench.code + bench.place(setup)
    bench.place(f"{setup} jmp short a\n nop\n a: ud2")
    bench.cpu.run(instructions=10)
    ud2 = jump + 3
    assert records(bench, model)[0] == (ud2, 0x18000)
    registers = MODELS[model]
    assert [read(bench, number) for number in registers.exception] == [jump, ud2]


@pytest.mark.parametrize("model", ["prescott", "nehalem"])
def test_what_a_record_holds_in_a_segment_that_is_not_flat(model: str) -> None:
    """Linear addresses with NetBurst, offsets later."""
    bench = Bench(model=model)
    bench.run(write(DEBUGCTL, LBR) + "hlt")
    cpu = bench.cpu
    cpu.cs.base = 0x20000
    bench.place("jmp short a\n nop\n a: hlt")
    code = bench.code
    bench.go_on()
    cpu.cs.base = 0
    bench.run(write(DEBUGCTL, 0) + "hlt")
    base = 0x20000 if model == "prescott" else 0
    assert records(bench, model)[0] == (base + code, base + code + 3)


def test_a_debug_exception_clears_both_flags() -> None:
    """SDM Vol. 3, "LBR, BTF": before it is delivered, so that the handler's branches do not push out the records."""
    for text in ("int1", "mov eax, dr0"):
        bench = Bench(model="westmere")
        bench.cpu.dr7 = 0x2400
        setup = write(DEBUGCTL, LBR | BTF) + "jmp short a\n a: "
        after = bench.code + bench.place(setup)
        assert bench.run(setup + text).vector == DB
        assert read(bench, DEBUGCTL) == 0
        assert records(bench, "westmere")[0] == (after - 2, after)
    bench = Bench(model="westmere")
    assert bench.run(write(DEBUGCTL, LBR | BTF) + "int3").vector == 3
    assert read(bench, DEBUGCTL) == LBR | BTF


@pytest.mark.parametrize("model", MODELS)
def test_single_step_on_branches(model: str) -> None:
    """SDM Vol. 3, "Single-Stepping on Branches": TF traps after a taken branch alone; the trap clears BTF."""
    bench = Bench(model=model)
    setup = f"{write(DEBUGCTL, BTF)} xor eax, eax\n push dword 142h\n popf\n"
    start = bench.code + bench.place(setup)
    frame = bench.run(setup + "nop\n jnz a\n a: mov ebx, 1\n jmp short b\n nop\n b: nop\n hlt")
    assert frame.vector == DB and frame.stack[0] == start + 1 + 2 + 5 + 2 + 1
    assert bench.cpu.dr6 & 0x4000 and read(bench, DEBUGCTL) == 0
    # A jump that is taken to the next instruction is one, a repeated instruction is none.
    bench = Bench(model=model)
    start = bench.code + bench.place(setup)
    frame = bench.run(setup + "mov ecx, 3\n mov edi, 20000h\n rep stosb\n jmp short a\n a: nop\n hlt")
    assert frame.vector == DB and frame.stack[0] == start + 5 + 5 + 2 + 2


def test_records_can_be_written_and_the_others_are_read_only() -> None:
    bench = Bench(model="westmere")
    text = "mov ecx, {}\n mov eax, {}\n mov edx, {}\n wrmsr\n hlt"
    assert bench.run(text.format(0x685, 0x1234, 0x7FFF)).vector is None
    assert read(bench, 0x685) == 0x7FFF_0000_1234
    assert bench.run(text.format(0x685, 0, 0x8000)).vector == 13  # not canonical
    assert bench.run(text.format(0x1C9, 16, 0)).vector == 13
    assert bench.run(text.format(0x690, 0, 0)).vector == 13
    assert bench.run(text.format(DEBUGCTL, 4, 0)).vector == 13


# --- other registers of the models: SDM Vol. 4 ---


def test_misc_enable_agrees_with_cpuid() -> None:
    """IA32_MISC_ENABLE: MONITOR and the XD bit can be switched off, the rest tells of what there is not."""
    bench = Bench(model="westmere")
    value = read(bench, 0x1A0)
    assert value == 0x41801
    text = "mov ecx, 1A0h\n mov eax, {}\n mov edx, {}\n wrmsr\n {}\n hlt"
    assert bench.run(text.format(0x1801, 0, "mov eax, 1\n cpuid")).vector is None
    assert not bench.cpu.ecx & 8
    assert bench.run("monitor\n hlt").vector == UD and bench.run("mwait\n hlt").vector == UD
    bench.run(text.format(0x41801, 0, "mov eax, 1\n cpuid"))
    assert bench.cpu.ecx & 8
    bench.run(text.format(0x41801, 4, "mov eax, 80000001h\n cpuid"))
    assert not bench.cpu.edx & 1 << 20
    nxe = "mov ecx, 0C0000080h\n mov eax, 800h\n xor edx, edx\n wrmsr\n hlt"
    assert bench.run(nxe).vector == 13
    bench.run(text.format(0x41801, 0, ""))
    assert bench.run(nxe).vector is None
    for low, high in ((0x41001, 0), (0x441801, 0), (0x41801, 1)):  # read-only, the limit of CPUID, reserved
        assert bench.run(text.format(low, high, "")).vector == 13


def test_the_signature_of_a_microcode_update() -> None:
    """SDM Vol. 3, "Determining the Signature": 0 is written, CPUID loads it; there is no update, so 0 stays."""
    for model in MODELS:
        bench = Bench(model=model)
        bench.run(write(0x8B, 0) + "mov eax, 1\n cpuid\n mov ecx, 8Bh\n rdmsr\n hlt")
        assert (bench.cpu.eax, bench.cpu.edx) == (0, 0)


@pytest.mark.parametrize(("model", "number", "value"), [
    ("pentium3", 0x17, 0), ("prescott", 0x17, 0), ("westmere", 0x17, 0), ("nehalem", 0xCE, 0xC0000001400),
])  # fmt: skip
def test_registers_that_can_only_be_read(model: str, number: int, value: int) -> None:
    bench = Bench(model=model)
    assert read(bench, number) == value
    assert bench.run(f"mov ecx, {number}\n rdmsr\n wrmsr\n hlt").vector == 13


@pytest.mark.parametrize("number", [0x186, 0x198, 0x199, 0x19C, 0x38F, 0xFE, 0x179])
def test_registers_of_what_cpuid_does_not_report(number: int) -> None:
    """Performance counters, SpeedStep, thermal monitor, MTRRs, machine-check banks."""
    for model in MODELS:
        assert Bench(model=model).run(f"mov ecx, {number}\n rdmsr\n hlt").vector == 13
