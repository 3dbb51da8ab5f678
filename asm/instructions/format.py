"""Writes operands and instructions as NASM source text."""

from __future__ import annotations

from collections.abc import Sequence

from asm.instructions.operands import Far, Imm, Mem, Operand, Reg

_SIZES = {
    8: "byte ",
    16: "word ",
    32: "dword ",
    64: "qword ",
    80: "tword ",
    128: "oword ",
    256: "yword ",
    512: "zword ",
    0: "",
}


def format_number(value: int) -> str:
    """A number: decimal below ten, else hexadecimal, with its sign."""
    sign, magnitude = ("-", -value) if value < 0 else ("", value)
    return f"{sign}{magnitude}" if magnitude < 10 else f"{sign}{magnitude:#x}"


def format_memory(mem: Mem) -> str:
    """The part in brackets, and keywords before it."""
    terms: list[str] = []
    if mem.base is not None:
        terms.append(mem.base)
    if mem.index is not None:
        terms.append(mem.index if mem.scale == 1 and not mem.nosplit else f"{mem.index}*{mem.scale}")
    text = "+".join(terms)
    if mem.disp is None:
        raise ValueError("an unknown displacement has no text")
    if not terms:
        text = format_number(mem.disp)
    elif mem.disp or mem.disp_size:
        text += ("" if mem.disp < 0 else "+") + format_number(mem.disp)
    keywords = _SIZES[mem.disp_size]
    if mem.nosplit:
        keywords = "nosplit " + keywords
    if mem.rel is not None:
        keywords += "rel " if mem.rel else "abs "
    if mem.addr_size:
        keywords += f"a{mem.addr_size} "
    segment = f"{mem.seg}:" if mem.seg else ""
    distance = f"{mem.distance} " if mem.distance else ""
    return f"{distance}{_SIZES[mem.size]}[{keywords}{segment}{text}]"


def format_operand(operand: Operand) -> str:
    """One operand.

    Raises:
        ValueError: a value of the operand is not known.
    """
    if isinstance(operand, Reg):
        return operand.name
    if isinstance(operand, Mem):
        return format_memory(operand)
    if isinstance(operand, Far):
        if operand.seg is None or operand.off is None:
            raise ValueError("an unknown far pointer has no text")
        return f"{_SIZES[operand.size]}{format_number(operand.seg)}:{format_number(operand.off)}"
    if operand.value is None:
        raise ValueError("an unknown value has no text")
    assert isinstance(operand, Imm)
    strict = "strict " if operand.strict else ""
    distance = f"{operand.distance} " if operand.distance else ""
    return f"{strict}{distance}{_SIZES[operand.size]}{format_number(operand.value)}"


def format_instruction(mnemonic: str, operands: Sequence[Operand], prefixes: Sequence[str] = ()) -> str:
    """One instruction.

    Raises:
        ValueError: a value is not known.
    """
    return " ".join([*prefixes, mnemonic]) + (" " + ", ".join(map(format_operand, operands)) if operands else "")
