"""Processor models: how their files are resolved and loaded, and what they make of a processor."""

import re
import time
from pathlib import Path

import pytest

import emu
from asm import table
from emu import models
from emu.errors import BadInput, ConfigError
from emu.model_compiler import CASE_COUNT, COSTS, EVENTS, MARKS, compile_model, executes

CODE = 0x1000
MODELS = sorted(models.names())
FILES = {name: Path(models.FOLDER, f"{name}.toml").read_text() for name in MODELS}


def resolve(text: str) -> str:
    return compile_model("try", {**FILES, "try": text}, table.FORMS, table.PROCESSORS, table.FEATURES)


def run(code: str, cpu: str, timing: str = "static") -> emu.Cpu:
    """Runs hexadecimal code up to its HLT."""
    processor = emu.Cpu(bits=32, cpu=cpu, timing=timing)
    processor.load(CODE, bytes.fromhex(code) + b"\xf4")
    assert processor.run().reason == "halted"
    return processor


def test_the_models() -> None:
    assert {"i386", "nehalem", "pentium3", "prescott", "westmere"} <= set(MODELS)
    assert emu.Cpu().model.name == models.DEFAULT == "westmere"
    with pytest.raises(ConfigError, match=r"unknown processor model 'i286'.*i386.*pentium3"):
        emu.Cpu(cpu="i286")


@pytest.mark.parametrize("name", MODELS)
def test_every_row_that_a_model_executes_has_figures(name: str) -> None:
    """At least a clock each, and of a repetition its set-up and its iterations."""
    figures = models.clocks(name)
    compiled = models.load(name)
    since = dict(zip((*table.PROCESSORS, *table.FEATURES), compiled["has"], strict=True))
    executed = [
        (form, row) for form, row in zip(table.FORMS, figures, strict=True) if executes(form) and since[form.since]
    ]
    assert len(executed) > 400
    for form, row in executed:
        assert row.reg >= 1 and row.mem >= 1, form.syntax
        assert not (form.rep or form.repz) or (row.rep and row.variable), form.syntax
        assert len(row.cases) == CASE_COUNT


@pytest.mark.parametrize("name", MODELS)
def test_every_figure_has_its_source(name: str) -> None:
    groups = models.provenance(name)
    assert all(group.source and group.subject and group.mark in MARKS for group in groups)
    assert all(group.assumed == (group.mark == "M") for group in groups)
    assert any(group.assumed for group in groups) and not all(group.assumed for group in groups)


def test_a_model_takes_over_what_it_is_like() -> None:
    """westmere has nehalem's instructions and their figures, but for those that it gives itself."""
    nehalem, westmere = models.load("nehalem"), models.load("westmere")
    assert nehalem["has"] == westmere["has"] and nehalem["cpuid"] != westmere["cpuid"]
    rows = {form.syntax: number for number, form in enumerate(table.FORMS)}
    old, new = models.clocks("nehalem"), models.clocks("westmere")
    assert old[rows["ADD r/m32, r32"]] == new[rows["ADD r/m32, r32"]]
    assert old[rows["VMREAD r/m32, r32"]].reg > new[rows["VMREAD r/m32, r32"]].reg == 6
    vmx = {figures for figures in models.provenance("nehalem") if figures.subject.startswith("VT-x")}
    assert set(models.provenance("nehalem")) - vmx < set(models.provenance("westmere"))


MISTAKES = [
    (lambda text: 'like = "pentium9"\n' + text, "like = 'pentium9': there is no such model"),
    (lambda text: 'like = "try"\n' + text, "like = 'try': there is no such model"),
    (lambda text: text.replace('"NOP"', '"NOPE"'), r"'NOPE' is no row"),
    (
        lambda text: text.replace('"NOP" ', '"JB rel8" '),
        r"'JB rel8' is no row .* that is executed",
    ),
    (lambda text: re.sub(r'"XLATB".*', "", text), r"no clocks for 1 rows, such as XLATB \(D7\)"),
    (lambda text: re.sub(r'("XLATB" *=) 5', r"\1 0", text), r"'XLATB', reg: 0 is not a number within 1 to 65535"),
    (lambda text: re.sub(r'("XLATB" *=) 5', r'\1 "5/"', text), r"'XLATB': '5/' is not a number, \"register/memory\""),
    (lambda text: re.sub(r'("XLATB" *=) 5', r"\1 { reg = 5, men = 6 }", text), "no cost is called men"),
    (lambda text: re.sub(r'("XLATB" *=) 5', r"\1 { rep = 5 }", text), "neither reg nor mem"),
    (
        lambda text: re.sub(r'("XLATB" *=) 5', r"\1 { reg = 5, real = 5, taken = 6 }", text),
        "'XLATB': no row has both taken and a case that takes its place",
    ),
    (
        lambda text: text.replace("rep = 5, variable = 4", "variable = 4"),
        r"no rep and variable for MOVSB \(A4\); ",
    ),
    (lambda text: text.replace("reg = 38, mem = 41, variable = 1", "reg = 29, mem = 41, variable = 1"),
     r"variable = 1 gives back all of the fixed part of MUL r/m32 "),
    (lambda text: text.replace("reg = 106, variable = 3", "reg = 96, variable = 3"),
     r"variable = 3 gives back all of the fixed part of BSF r32, r/m32 "),
    (lambda text: text.replace("reg = 135, variable = 4", "reg = 116, variable = 4"),
     r"variable = 4 gives back all of the fixed part of ENTER imm16, imm8 "),
    (lambda text: text.replace("reg = 25, mem = 26, variable = 5", "reg = 5, mem = 26, variable = 5"),
     r"variable = 5 gives back all of the fixed part of LSL "),
    (lambda text: text.replace("variable = 4, level_0 = 10", "variable = 4, level_0 = 136"),
     r"a case is dearer than the fixed part of ENTER imm16, imm8 .*, which can only give back"),
    (lambda text: text.replace("permission_map = 29, rep = 27", "permission_map = 29, rep = 20"),
     r"a case gives back all of rep of INSB "),
    (lambda text: text.replace('mark = "V"', 'mark = "X"', 1), "source, mark"),
    (lambda text: text.replace('mark = "D"', 'mark = "X"', 1), "source, mark"),
    (lambda text: text.replace('level = "386"', 'level = "387"'), "level '387' is none of"),
    (lambda text: text.replace("features = []", 'features = ["FPGA"]'), "unknown features FPGA"),
    (lambda text: text.replace("hz = 25_000_000", "hz = 0"), "hz: 0 is not a number within 1 to"),
    (lambda text: text.replace("hz = 25_000_000", "hertz = 1"), "unknown or missing: hertz, hz"),
    (lambda text: text.replace("lock = 0", ""), r"\[events\] has source, mark, interrupt_real"),
    (lambda text: text + "\n[[[", r"try\.toml: "),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_in_a_model_file_is_named(change, message: str) -> None:  # type: ignore[no-untyped-def]
    text = change(FILES["i386"])
    assert text != FILES["i386"]
    with pytest.raises(BadInput, match=message) as raised:
        resolve(text)
    assert "\n" not in str(raised.value)


def test_names_of_the_core() -> None:
    """The names that a file may use are those of emu/core/timing.h, in its order."""
    header = (Path(__file__).parents[2] / "emu/core/timing.h").read_text()
    events = re.search(r"typedef struct EventClocks \{(.*?)\}", header, re.DOTALL)
    row = re.search(r"typedef struct RowClocks \{(.*?)\}", header, re.DOTALL)
    assert events and row
    assert tuple(re.findall(r"uint32_t (\w+);", events[1])) == EVENTS
    assert tuple(re.findall(r"uint16_t (\w+);", row[1])) == COSTS
    assert f"CASE_COUNT = {CASE_COUNT}," in header


def test_a_model_is_loaded_once_and_fast() -> None:
    assert emu.Cpu(cpu="i386").model is emu.Cpu(cpu="i386").model
    from emu._core import Model

    durations = []
    for _ in range(5):
        started = time.perf_counter()
        Model("i386")
        durations.append(time.perf_counter() - started)
    assert min(durations) < 0.003


# A loop with multiplications, scans, port I/O, stack frames, calls and conditional jumps.
PROGRAM = (
    "b9 05 00 00 00 bb 07 00 00 00 f7 e3 0f bc c3 e4 80 ee c8 08 00 02 c9 50 58 3c 05 74 02 90 90 e8 00 00 00 00 58"
    "8b 04 24 01 04 24 49 75 db"
)


@pytest.mark.parametrize("name", MODELS)
def test_unit_timing_is_a_cycle_an_instruction(name: str) -> None:
    cpu = run(PROGRAM, cpu=name, timing="unit")
    assert cpu.cycles == cpu.instructions > 80


@pytest.mark.parametrize("name", MODELS)
def test_unit_timing_of_a_repetition(name: str) -> None:
    """One for the set-up and one an iteration: MOV, REP MOVSB five times, HLT."""
    cpu = run("b9 05 00 00 00 f3 a4", cpu=name, timing="unit")
    assert (cpu.cycles, cpu.instructions) == (1 + 1 + 5 + 1, 1 + 5 + 1)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("timing", ["unit", "static"])
def test_pieces_of_a_run_take_as_long_as_the_run(name: str, timing: str) -> None:
    """Whatever the pieces: repetitions are charged for their set-up once."""
    program = PROGRAM + "b9 40 00 00 00 bf 00 20 00 00 be 00 30 00 00 f3 a5 b9 09 00 00 00 66 ba 80 00 f3 6e"
    whole = run(program, cpu=name, timing=timing)
    for piece in (1, 3, 7, 50):
        cpu = emu.Cpu(bits=32, cpu=name, timing=timing)
        cpu.load(CODE, bytes.fromhex(program) + b"\xf4")
        while cpu.run(cycles=piece).reason != "halted":
            pass
        assert (cpu.cycles, cpu.instructions, cpu.edi) == (whole.cycles, whole.instructions, whole.edi), piece


def test_repeated_output_that_faults_at_once_takes_nothing() -> None:
    """REP OUTS whose first element cannot be read has not begun: no clock passes, and none comes back."""
    cpu = emu.Cpu(bits=32, cpu="i386")
    cpu.ds.limit = 0xFFF
    cpu.ecx, cpu.esi = 3, 0x1000
    cpu.load(CODE, b"\xf3\x6e")
    with pytest.raises(emu.CpuFault):
        cpu.run()
    assert (cpu.cycles, cpu.ecx) == (0, 3)


def test_pentium3_identifies_itself() -> None:
    """SDM Vol. 2, "CPUID": vendor, family 6 model 8, and the features of a Coppermine without APIC."""
    leaves = {}
    for leaf in range(3):
        cpu = run(f"b8 0{leaf} 00 00 00 0f a2", cpu="pentium3")
        leaves[leaf] = (cpu.eax, cpu.ebx, cpu.ecx, cpu.edx)
    assert leaves == {
        0: (2, 0x756E6547, 0x6C65746E, 0x49656E69),
        1: (0x68A, 2, 0, 0x0383F9FF & ~0x5000),  # without MTRR and MCA, which the model does not have
        2: (0x03020101, 0, 0, 0x0C040882),
    }


@pytest.mark.parametrize(
    ("name", "signature"), [("i386", 0x0308), ("pentium3", 0x068A), ("nehalem", 0x106A5), ("westmere", 0x206C2)]
)
def test_edx_after_reset_holds_family_model_and_stepping(name: str, signature: int) -> None:
    """SDM Vol. 3, "Processor State After Reset"."""
    cpu = emu.Cpu(bits=16, cpu=name)
    cpu.reset()
    assert cpu.edx == signature


# CPUID, RDTSC, CMOVZ EAX,ECX, CMPXCHG8B, INVLPG, BSWAP, XADD, SYSENTER, MOV EAX,CR4
@pytest.mark.parametrize(
    "code",
    ["0fa2", "0f31", "0f44c1", "0fc70d00200000", "0f013d00200000", "0fc8", "0fc1c8", "0f34", "0f20e0"],
)
def test_i386_has_no_instruction_of_later_processors(code: str) -> None:
    cpu = emu.Cpu(bits=32, cpu="i386")
    cpu.load(CODE, bytes.fromhex(code))
    with pytest.raises(emu.CpuFault) as raised:
        cpu.step()
    assert raised.value.name == "#UD"


@pytest.mark.parametrize(("name", "changeable"), [("i386", 0), ("pentium3", 1 << 21 | 1 << 18)])
def test_popf_changes_id_and_ac_where_they_exist(name: str, changeable: int) -> None:
    """SDM Vol. 1, "Identifying ... with the ID flag": AC came with the 486, ID with CPUID."""
    cpu = run("68 02 00 24 00 9d 9c 58", cpu=name)
    assert cpu.eax & (1 << 21 | 1 << 18) == changeable


def test_cr4_has_the_model_s_bits() -> None:
    """SDM Vol. 3, "Control Registers": a reserved bit of CR4 is #GP(0)."""
    assert run("b8 ff 07 00 00 0f 22 e0 0f 20 e3", cpu="pentium3").ebx == 0x7FF
    with pytest.raises(emu.CpuFault) as raised:
        run("b8 00 08 00 00 0f 22 e0", cpu="pentium3")
    assert (raised.value.name, raised.value.error_code) == ("#GP", 0)
