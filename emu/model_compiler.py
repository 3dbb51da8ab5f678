"""Processor models as they are written, `emu/models/NAME.toml`: resolves them against the instruction table.

The build writes the result beside them, `NAME.json` (emu/models.py), since at run time emu knows nothing of the
assembler. A model file has:

    title = "Intel Pentium III"
    hz = 1_000_000_000          # cycles in a second
    level = "686"               # the newest generation whose instructions it has: 8086 186 286 386 486 586 686
    features = ["CPUID", "TSC"] # what it has of the features in the table's column `since`
    cr4 = 0x7ff                 # the bits of CR4 that can be set
    eflags = 0x244000           # of NT, AC, ID and the like, the bits that POPF can change: 0 for an 8086
    physical_bits = 36
    reset_edx = 0x68a           # EDX after RESET: family, model, stepping

    [[cpuid]]                   # one a leaf; registers that are not named are 0
    leaf = 1
    edx = 0x0383f9ff

    [events]                    # clocks of what belongs to no instruction: EVENTS below names them
    source = "..."
    mark = "V"
    interrupt_real = 37

    [tlb]                       # what a TLB miss would cost, which static timing does not charge
    source = "..."
    mark = "D"
    walk = 15                   # clocks of a page walk

    [msrs]                      # registers that models have one by one; what is not named is not there
    misc_enable = 0x41801       # IA32_MISC_ENABLE after RESET
    constants = [[0x17, 0]]     # number and value of registers that can only be read
    last_branches = 16          # records of last branches, from number last_branch_from and last_branch_to on
    last_branch_from = 0x680
    last_branch_to = 0x6c0
    last_branch_top = 0x1c9     # says which was written last, where there is more than one
    last_exception_from = 0x1dd
    last_exception_to = 0x1de
    linear = true               # records hold linear addresses, not offsets in CS

    [[clocks]]                  # any number of tables; where two cover a row, the later one holds
    source = "Title of the manual, section"
    mark = "V"                  # MARKS below
    [clocks.rows]
    "ADD r/m32, r32" = "2/7"    # a row's syntax: clocks with register operands / with a memory operand
    "{SHL,SHR} r/m*, 1" = 3     # * stands for any text, {a,b} for a or b
    "0F A0 | PUSH FS" = 2       # with the row's encoding before a bar, where syntax alone would not tell
    "JZ *" = { reg = 3, taken = 7 }

    [vmx]                       # of a processor with VT-x
    source = "..."
    mark = "M"
    revision = 0x0f             # VMCS revision identifier
    misc = 0x401e5              # IA32_VMX_MISC
    ept_vpid = 0                # IA32_VMX_EPT_VPID_CAP
    true_controls = true        # it has the capability MSRs with TRUE in their names
    controls = ["PROC_HLT_EXITING"]  # that may be 1, by their names in emu/core/vmcs.def, beside those that must be
    [vmx.clocks]                # of a VM entry and of a VM exit: the default, and by reason (emu/core/exit.def)
    entry = 402
    exit = 389
    VMCALL = 344

`like = "nehalem"` takes over what the file does not have itself from another model, and puts its own tables of clocks
after the other's.

The keys of a table of clocks: `reg` and `mem` (the fixed part, in its dearest case), `rep` (a REP form's set-up),
`variable` (for each iteration, bit, level or parameter), and the whole cost in a case: CASES below names them,
emu/core/timing.h explains them. Every figure is 1 or more. docs/models.md has the figures' meaning and their sources.
"""

import array
import binascii
import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from emu import definitions
from emu.errors import BadInput
from emu.models import read_model

# Names of emu/core/timing.h, in its order.
EVENTS = (
    "interrupt_real",
    "interrupt_same",
    "interrupt_more",
    "interrupt_from_v86",
    "task_switch",
    "task_switch_286",
    "next_component",
    "base_index",
    "lock",
)
COSTS = ("reg", "mem", "rep", "variable")
CASES = {
    "taken": 0,
    "real": 0,
    "protected": 1,
    "real_memory": 2,
    "protected_memory": 3,
    "permission_map": 2,
    "real_rep": 3,
    "real_iteration": 4,
    "gate_same": 2,
    "gate_more": 3,
    "gate_parameters": 4,
    "task": 5,
    "less_privilege": 2,
    "more_privilege": 2,
    "v86": 3,
    "cr0": 0,
    "cr2": 1,
    "cr3": 2,
    "dr03": 0,
    "dr67": 1,
    "level_0": 0,
    "level_1": 1,
}
CASE_COUNT = 6
MARKS = {"V": "read in the source", "D": "derived from figures of the source", "M": "assumed"}

_CPUID = ("leaf", "subleaf", "eax", "ebx", "ecx", "edx")
_TOP = {"title", "hz", "level", "features", "cr4", "eflags", "physical_bits", "reset_edx", "cpuid", "events", "tlb",
        "clocks"}  # fmt: skip
_LEAVES = 32  # CpuidLeaf Model.cpuid[32] in emu/core/cpu.h


_VMX = {"source", "mark", "revision", "misc", "ept_vpid", "true_controls", "controls", "clocks"}
_WORDS = ("PIN", "PROC", "PROC2", "EXIT", "ENTRY")  # ControlWord of emu/core/vmx.h
_TRUE_CONTROLS = 1 << 63  # in VmxModel.misc
EXIT_REASONS = 65  # emu/core/vmx.h
_ALL = (1 << 64) - 1
_MSRS = {
    "misc_enable": _ALL, "last_branches": 16, "last_branch_from": 0x1FFF, "last_branch_to": 0x1FFF,
    "last_branch_top": 0x1FFF, "last_exception_from": 0x1FFF, "last_exception_to": 0x1FFF,
}  # fmt: skip
_MSR_CONSTANTS = 4  # MsrModel.constants in emu/core/cpu.h


class Row(Protocol):
    """What is needed of a row of the instruction table (asm.table.Form)."""

    @property
    def encoding(self) -> str: ...
    @property
    def syntax(self) -> str: ...
    @property
    def since(self) -> str: ...
    @property
    def rep(self) -> bool: ...
    @property
    def repz(self) -> bool: ...
    @property
    def decodes(self) -> bool: ...
    @property
    def notes(self) -> frozenset[str]: ...


def _number(where: str, value: object, most: int, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadInput(f"{where}: {value!r} is not a number within {least} to {most}")
    return value


def _cost(where: str, value: object) -> list[int]:
    """The numbers of a RowClocks: reg, mem, rep, variable, and the cases."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+)/(\d+)", value)):
        value = {"reg": int(match[1]), "mem": int(match[2])}
    elif isinstance(value, int):
        value = {"reg": value}
    if not isinstance(value, dict):
        raise BadInput(f'{where}: {value!r} is not a number, "register/memory", or a table')
    if unknown := value.keys() - {*COSTS, *CASES}:
        raise BadInput(f"{where}: no cost is called {' or '.join(sorted(unknown))}")
    if "reg" not in value and "mem" not in value:
        raise BadInput(f"{where}: neither reg nor mem")
    numbers = {name: _number(f"{where}, {name}", cost, 0xFFFF, 1) for name, cost in value.items()}
    reg, mem = numbers.get("reg", numbers.get("mem", 0)), numbers.get("mem", numbers.get("reg", 0))
    cases = [0] * CASE_COUNT
    for name in (name for name in value if name in CASES):
        if cases[CASES[name]]:
            raise BadInput(f"{where}: no row has both {name} and a case that takes its place")
        cases[CASES[name]] = numbers[name]
    return [reg, mem, numbers.get("rep", 0), numbers.get("variable", 0), *cases]


def _given_back(row: Row, variable: int) -> int:
    """The most that the row's body gives back of the fixed part by `variable`: emu/core/timing.h has the rule."""
    mnemonic, width = row.syntax.split()[0], re.search(r"\d+", row.syntax)
    if mnemonic in ("MUL", "IMUL") and width:
        return variable * (int(width[0]) - 3)
    if mnemonic in ("BSF", "BSR") and width:
        return variable * int(width[0])
    return variable * {"ENTER": 31 - 2, "LSL": 1}.get(mnemonic, 0)


def _check_cost(where: str, row: Row, cost: Sequence[int]) -> None:
    """No instruction may take less than a clock: time would stand still or run backwards."""
    reg, mem, rep, variable, *cases = cost
    if _given_back(row, variable) >= min(reg, mem):
        raise BadInput(f"{where}: variable = {variable} gives back all of the fixed part of {_row_name(row)}")
    if row.rep or row.repz:
        if rep and any(case and reg - case >= rep for case in cases[:3]):
            raise BadInput(f"{where}: a case gives back all of rep of {_row_name(row)}")
    elif "end" not in row.notes and any(case > fixed for case, fixed in zip(cases, (reg, reg, mem, mem), strict=False)):
        raise BadInput(f"{where}: a case is dearer than the fixed part of {_row_name(row)}, which can only give back")


def executes(row: Row) -> bool:
    """Some processor model can execute the row: it is no alias, and has a body."""
    return row.decodes and "no-body" not in row.notes


def _row_name(row: Row) -> str:
    return f"{row.syntax} ({row.encoding})"


@functools.cache
def _glob(pattern: str) -> re.Pattern[str]:
    """`*` is any text, `{a,b}` a or b, a run of spaces one space."""
    expression = re.escape(" ".join(pattern.split())).replace(r"\*", ".*")
    expression = re.sub(
        r"\\\{(.*?)\\\}", lambda match: "(?:" + "|".join(map(str.strip, match[1].split(","))) + ")", expression
    )
    return re.compile(expression.replace(r"\ ", " "))


def _rows_of(pattern: str, rows: Sequence[Row]) -> list[int]:
    encoding, bar, syntax = pattern.rpartition("|")
    by_syntax = _glob(syntax)
    found = [number for number, row in enumerate(rows) if executes(row) and by_syntax.fullmatch(row.syntax)]
    if bar:
        by_encoding = _glob(encoding)
        found = [number for number in found if by_encoding.fullmatch(rows[number].encoding)]
    return found


def _packed(costs: Sequence[Sequence[int]]) -> str:
    """RowClocks[] of emu/core/timing.h in base 64: read in a fraction of the time that JSON's numbers take."""
    numbers = array.array("H", [cost for row in costs for cost in row])
    return binascii.b2a_base64(numbers.tobytes(), newline=False).decode()


def _vmx(name: str, vmx: Mapping[str, Any] | None) -> dict[str, Any]:
    """VmxModel of emu/core/vmx.h."""
    if vmx is None:
        return {"revision": 0, "allowed": [0] * len(_WORDS), "misc": 0, "ept_vpid": 0, "entry": 0, "exits": []}
    if vmx.keys() != _VMX or vmx["mark"] not in MARKS:
        raise BadInput(f"{name}.toml: [vmx] has {', '.join(sorted(_VMX))}")
    known = {control.name: control for control in definitions.controls()}
    if unknown := set(vmx["controls"]) - known.keys():
        raise BadInput(f"{name}.toml: no control is called {' or '.join(sorted(unknown))}")
    allowed = [0] * len(_WORDS)
    for control in (known[text] for text in vmx["controls"]):
        allowed[_WORDS.index(control.word)] |= 1 << control.bit
    reasons = {text: number for number, text in definitions.reasons().items()}
    clocks = {
        text: _number(f"{name}.toml, vmx.clocks {text}", value, 1 << 30, 1) for text, value in vmx["clocks"].items()
    }
    if unknown := clocks.keys() - reasons.keys() - {"entry", "exit"}:
        raise BadInput(f"{name}.toml: no exit reason is called {' or '.join(sorted(unknown))}")
    exits = [clocks["exit"]] * EXIT_REASONS
    for text in clocks.keys() - {"entry", "exit"}:
        exits[reasons[text]] = clocks[text]
    misc = _number(f"{name}.toml, misc", vmx["misc"], _TRUE_CONTROLS - 1)
    return {
        "revision": _number(f"{name}.toml, revision", vmx["revision"], 0x7FFFFFFF),
        "allowed": allowed,
        "misc": misc | (_TRUE_CONTROLS if vmx["true_controls"] else 0),
        "ept_vpid": _number(f"{name}.toml, ept_vpid", vmx["ept_vpid"], _TRUE_CONTROLS - 1),
        "entry": clocks["entry"],
        "exits": exits,
    }


def _msrs(name: str, msrs: Mapping[str, Any]) -> dict[str, Any]:
    """MsrModel of emu/core/cpu.h."""
    if unknown := msrs.keys() - _MSRS.keys() - {"constants", "linear"}:
        raise BadInput(f"{name}.toml: [msrs] has no {' and no '.join(sorted(unknown))}")
    compiled: dict[str, Any] = {
        key: _number(f"{name}.toml, msrs {key}", msrs.get(key, 0), most) for key, most in _MSRS.items()
    }
    compiled["linear"] = int(bool(msrs.get("linear", False)))
    constants = msrs.get("constants", [])
    if len(constants) > _MSR_CONSTANTS or any(len(pair) != 2 for pair in constants):
        raise BadInput(f"{name}.toml: msrs constants are pairs of number and value, {_MSR_CONSTANTS} at most")
    limits = (0xFFFFFFFF, _ALL)
    compiled["constants"] = [
        [_number(f"{name}.toml, msrs constants", item, most) for item, most in zip(pair, limits, strict=True)]
        for pair in constants
    ]
    return compiled


def compile_model(
    name: str, texts: Mapping[str, str], rows: Sequence[Row], generations: Sequence[str], features: Sequence[str]
) -> str:
    """Resolves a model file against the instruction table.

    Args:
        name: of the model.
        texts: the contents of the model files by name.
        rows: the table (asm.table.FORMS).
        generations: names of the processors, oldest first (asm.table.PROCESSORS).
        features: names of the CPUID features (asm.table.FEATURES).

    Returns:
        JSON for `emu.models.load`.

    Raises:
        BadInput: the file is malformed, leaves a row that the processor has without a cost, or names what is not there.
    """
    model = read_model(name, texts)
    if unknown := (model.keys() - {"vmx", "msrs"}) ^ _TOP:
        raise BadInput(f"{name}.toml: unknown or missing: {', '.join(sorted(unknown))}")
    if model["level"] not in generations:
        raise BadInput(f"{name}.toml: level {model['level']!r} is none of {' '.join(generations)}")
    if unknown := set(model["features"]) - set(features):
        raise BadInput(f"{name}.toml: unknown features {', '.join(sorted(unknown))}")
    level = generations.index(model["level"])
    has = [int(generations.index(since) <= level) for since in generations]
    has += [int(feature in model["features"]) for feature in features]
    present = dict(zip((*generations, *features), has, strict=True))

    costs: dict[int, list[int]] = {}
    for group in model["clocks"]:
        if group.keys() != {"source", "mark", "rows"} or group["mark"] not in MARKS:
            raise BadInput(f"{name}.toml: a [[clocks]] table has source, mark (V, D or M) and rows")
        for pattern, value in group["rows"].items():
            cost = _cost(f"{name}.toml, {pattern!r}", value)
            found = _rows_of(pattern, rows)
            if not found:
                raise BadInput(f"{name}.toml: {pattern!r} is no row of the instruction table that is executed")
            for number in found:
                _check_cost(f"{name}.toml, {pattern!r}", rows[number], cost)
            costs.update(dict.fromkeys(found, cost))
    executed = [number for number, row in enumerate(rows) if executes(row) and present[row.since]]
    if free := [_row_name(rows[number]) for number in executed if number not in costs]:
        raise BadInput(f"{name}.toml: no clocks for {len(free)} rows, such as {'; '.join(free[:8])}")
    repeated = [number for number in executed if rows[number].rep or rows[number].repz]
    if free := [_row_name(rows[number]) for number in repeated if not (costs[number][2] and costs[number][3])]:
        raise BadInput(f"{name}.toml: no rep and variable for {'; '.join(free)}")

    events = {key: value for key, value in model["events"].items() if key not in ("source", "mark")}
    if events.keys() != set(EVENTS) or model["events"].get("mark") not in MARKS or "source" not in model["events"]:
        raise BadInput(f"{name}.toml: [events] has source, mark, {', '.join(EVENTS)}")
    if model["tlb"].keys() != {"source", "mark", "walk"} or model["tlb"]["mark"] not in MARKS:
        raise BadInput(f"{name}.toml: [tlb] has source, mark (V, D or M) and walk")
    if len(model["cpuid"]) > _LEAVES:
        raise BadInput(f"{name}.toml: more than {_LEAVES} CPUID leaves")
    for leaf in model["cpuid"]:
        if leaf.keys() - set(_CPUID) or "leaf" not in leaf:
            raise BadInput(f"{name}.toml: a [[cpuid]] table has leaf, and of subleaf, eax, ebx, ecx, edx what is not 0")
    compiled = {
        "version": 5,
        "name": name,
        "title": model["title"],
        "level": level,
        "has": has,
        "hz": _number(f"{name}.toml, hz", model["hz"], 1 << 40, 1),
        "cr4": _number(f"{name}.toml, cr4", model["cr4"], 0xFFFFFFFF),
        "eflags": _number(f"{name}.toml, eflags", model["eflags"], 0xFFFFFFFF),
        "physical_bits": _number(f"{name}.toml, physical_bits", model["physical_bits"], 52, 20),
        "reset_edx": _number(f"{name}.toml, reset_edx", model["reset_edx"], 0xFFFFFFFF),
        "cpuid": [
            [_number(f"{name}.toml, cpuid {key}", leaf.get(key, 0), 0xFFFFFFFF) for key in _CPUID]
            for leaf in model["cpuid"]
        ],
        "vmx": _vmx(name, model.get("vmx")),
        "msrs": _msrs(name, model.get("msrs", {})),
        "events": [_number(f"{name}.toml, {key}", events[key], 0xFFFFFFFF) for key in EVENTS],
        "page_walk": _number(f"{name}.toml, walk", model["tlb"]["walk"], 0xFFFF, 1),
        "repeated": repeated,
        "rows": len(rows),
        "clocks": _packed([costs.get(number, [1, 1, 0, 0, *[0] * CASE_COUNT]) for number in range(len(rows))]),
    }
    return json.dumps(compiled, separators=(",", ":"))
