"""The architecture as data: the VMCS, the VM-exit reasons and the MSRs, read from emu/core/*.def.

The C core includes the same files, so one spelling serves C, Python and assembly. `assembler_include()` is what the
build writes to build/generated/vmcs.inc, which every source of bios/ can %include.
"""

import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["Control", "Field", "assembler_include", "controls", "errors", "fields", "msrs", "reasons"]

FOLDER = Path(__file__).parent / "core"


class Field(NamedTuple):
    """A VMCS field: width is 16, 32, 64 or 0 for natural width; needs the control that brings it, or ALWAYS."""

    name: str
    encoding: int
    width: int
    read_only: bool
    needs: str


class Control(NamedTuple):
    """A bit of a control word: PIN, PROC, PROC2, EXIT or ENTRY; `name` begins with the word."""

    word: str
    bit: int
    name: str


def _rows(file: str, macro: str) -> list[list[str]]:
    text = re.sub(r"/\*.*?\*/", "", (FOLDER / file).read_text(encoding="ascii"), flags=re.DOTALL)
    return [re.split(r"\s*,\s*", match[1]) for match in re.finditer(rf"^{macro}\((.*)\)$", text, re.MULTILINE)]


def fields() -> list[Field]:
    """The fields of the VMCS, in the order of vmcs.def."""
    return [
        Field(name, int(encoding, 16), 0 if width == "NATURAL" else int(width), access == "RO", needs)
        for name, encoding, width, access, needs in _rows("vmcs.def", "FIELD")
    ]


def controls() -> list[Control]:
    """The bits of the VM-execution, VM-exit and VM-entry controls."""
    return [Control(word, int(bit), f"{word}_{name}") for word, bit, name in _rows("vmcs.def", "CONTROL")]


def reasons() -> dict[int, str]:
    """The basic exit reasons by number."""
    return {int(number): name for number, name in _rows("exit.def", "REASON")}


def errors() -> dict[int, str]:
    """The VM-instruction errors by number."""
    return {int(number): name for number, name in _rows("exit.def", "ERROR")}


def msrs() -> dict[str, int]:
    """Numbers of the model-specific registers by name."""
    return {row[0]: int(row[1], 16) for macro in ("MSR", "MSR_CODE") for row in _rows("msr.def", macro)}


def assembler_include() -> str:
    """vmcs.inc: an equ for each field's encoding, control bit (a mask), exit reason, VM-instruction error and MSR."""
    values: dict[str, int] = {}
    for field in fields():
        values[field.name] = field.encoding
        if field.width == 64:
            values[f"{field.name}_HIGH"] = field.encoding + 1
    values |= {control.name: 1 << control.bit for control in controls()}
    values |= {f"EXIT_REASON_{name}": number for number, name in reasons().items()}
    values |= {f"VMERROR_{name}": number for number, name in errors().items()}
    values |= msrs()
    lines = ["; VMCS fields, control bits, exit reasons, VM-instruction errors and MSRs; made of emu/core/*.def."]
    return "\n".join(lines + [f"{name:<56} equ {value:#x}" for name, value in values.items()]) + "\n"
