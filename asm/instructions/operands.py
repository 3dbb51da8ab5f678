"""The operands that the encoder takes: what a source line says, once its expressions are evaluated."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias, final


class Reg(NamedTuple):
    """A register, by its lower-case name: ``eax``, ``r8b``, ``cs``, ``cr0``, ``dr7``."""

    name: str


class Imm(NamedTuple):
    """An immediate, or the target of a branch.

    value: None while it is not known (a forward reference). For a branch, the absolute address of the target.
    size: of an explicit ``byte``/``word``/``dword``/``qword`` keyword, in bits; 0 where there is none.
    strict: NASM's ``strict`` keyword, the explicit size is not optimised away.
    distance: ``short``, ``near`` or ``far`` where the source says so, else empty.
    relocatable: the value is an address in a section (a label), so its width is never cut by its present value.
    """

    value: int | None
    size: int = 0
    strict: bool = False
    distance: str = ""
    relocatable: bool = False


class Mem(NamedTuple):
    """A memory operand ``[seg: base + index*scale + disp]``.

    size: of an explicit size keyword before the bracket, in bits (80 for ``tword``, 128 for ``oword``); 0 for none.
    seg, base, index: register names in lower case.
    plain: base and index come from unscaled terms alone (``[eax+ebx]``), so that the encoder may swap them.
    disp: None while it is not known; disp_size: explicit ``[byte ..]``, ``[word ..]``, ``[dword ..]``, in bits.
    addr_size: explicit address size in bits (``[a32 ..]``); 0 for what registers and mode give.
    rel: True for ``[rel ..]``, False for ``[abs ..]``, None where the source says neither.
    nosplit: NASM's ``nosplit`` keyword: ``[eax*2]`` stays a scaled index.
    distance: ``near`` or ``far`` for an indirect branch.
    relocatable: disp is an address in a section.
    """

    size: int = 0
    seg: str | None = None
    base: str | None = None
    index: str | None = None  # type: ignore[assignment]  # hides tuple.index, which nobody wants of an operand
    scale: int = 1
    disp: int | None = 0
    disp_size: int = 0
    addr_size: int = 0
    rel: bool | None = None
    nosplit: bool = False
    strict: bool = False
    distance: str = ""
    relocatable: bool = False


class Far(NamedTuple):
    """A direct far pointer ``seg:off``; size is that of an explicit ``word``/``dword`` keyword, in bits."""

    seg: int | None
    off: int | None
    size: int = 0
    distance: str = ""
    relocatable: bool = False


Operand: TypeAlias = Reg | Imm | Mem | Far


class Fixup(NamedTuple):
    """A field of the encoded bytes whose value was not known or may move.

    offset, size: of the field, in bytes. operand: index of the operand. kind: ``abs`` (the value), ``disp`` (the same,
    behind a ModRM byte), ``rel`` (the value less the address of the instruction's end) or ``seg`` (the selector of a
    far pointer). signed: the processor sign-extends the field.
    """

    offset: int
    size: int
    operand: int
    kind: str
    signed: bool

    @property
    def limit(self) -> int:
        """The bits that what is added to a label may have without a warning of NASM's; 0 where it does not look."""
        return 8 * self.size - self.signed if self.kind in ("disp", "rel") and self.size > 1 else 0


@final
class Encoded(NamedTuple):
    """An encoded instruction.

    data: its bytes; unknown fields hold zero. fixups: the fields to patch. warnings: what NASM warns of (a value that
    does not fit its field and the like), each with its class.
    """

    data: bytes
    fixups: tuple[Fixup, ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()


class EncodeError(Exception):
    """An instruction that cannot be encoded.

    forms: the forms of the mnemonic that exist, in the manual's syntax, where the operands are what is wrong.
    word: the token of the line that is wrong; empty for the instruction.
    """

    def __init__(self, message: str, forms: tuple[str, ...] = (), word: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.forms = forms
        self.word = word
