"""Encodes one instruction to bytes, choosing among the rows of x86.tbl as NASM does."""

from __future__ import annotations

from asm.operands import Encoded, EncodeError, Operand


def encode(
    mnemonic: str,
    operands: tuple[Operand, ...],
    bits: int,
    prefixes: tuple[str, ...] = (),
    *,
    address: int = 0,
    optimise: bool = True,
    default_rel: bool = False,
) -> Encoded:
    raise EncodeError("not landed")
