"""Which rows of x86.tbl an instruction's operands fit, and on what condition, as NASM matches them."""

from __future__ import annotations

from collections.abc import Sequence

from asm import table
from asm.instructions.address import is_offset, vector_index
from asm.instructions.operands import EncodeError, Imm, Mem, Operand, Reg
from asm.table import Form, OperandSpec

_CLASSES = {
    8: frozenset((*table.REGISTERS_8, *table.REGISTERS_8_REX)),
    16: frozenset(table.REGISTERS_16),
    32: frozenset(table.REGISTERS_32),
    64: frozenset(table.REGISTERS_64),
}
_VECTORS = {name: frozenset(registers) for name, registers in table.VECTORS.items()}
_SPECIAL = {
    "sreg": frozenset(table.REGISTERS_SEG),
    "cr": frozenset(table.REGISTERS_CR),
    "dr": frozenset(table.REGISTERS_DR),
    "tr": frozenset(table.REGISTERS_TR),
}
# Registers that the syntax of some form names; all others of a class fit the same forms.
_NAMED = ("al", "cl", "ax", "cx", "dx", "eax", "ecx", "edx", "rax", "rcx", "st0", "xmm0", *table.REGISTERS_SEG)
REGISTER_CLASS: dict[str, str] = {
    **{name: f"r{size}" for size, names in _CLASSES.items() for name in names},
    **{name: kind for kind, names in (*_SPECIAL.items(), *_VECTORS.items()) for name in names},
    **{name: name for name in _NAMED},
}

# Conditions on a value. A condition of the last form that fits is dropped: the value is truncated with a warning.
# WRITTEN_ONE is for -O0, to which a value that is not known yet is no one.
ONE, SIGNED_BYTE_16, SIGNED_BYTE, UNSIGNED_32, SIGNED_32, SHORT, NEVER, WRITTEN_ONE = range(8)
_ALWAYS, _WRONG_SIZE = -1, -2

# The levels of `cpu`, and the first that has what a row's `since` says; features that are not here came last.
LEVELS = (
    "8086", "186", "286", "386", "486", "586", "686", "katmai", "willamette", "prescott", "nehalem", "westmere",
    "sandybridge", "future", "x64",
)  # fmt: skip
ANY = len(LEVELS) - 1
_FEATURE_LEVELS = {
    "8086": ("FPU",), "586": ("CPUID", "TSC", "MSR", "CX8", "MMX"), "686": ("SEP", "CMOV", "SYSCALL", "3DNOW"),
    "katmai": ("FXSR", "SSE"), "willamette": ("SSE2", "CLFSH"), "prescott": ("SSE3", "MONITOR", "SSSE3", "VMX"),
    "nehalem": ("SSE4_1", "SSE4_2", "POPCNT", "MOVBE", "XSAVE"), "westmere": ("AES", "PCLMULQDQ"),
    "sandybridge": ("AVX", "XSAVEOPT"), "x64": ("LM", "CX16", "LAHF_LM"),
}  # fmt: skip
_SINCE = {name: n for n, name in enumerate(LEVELS)}
_SINCE |= {feature: LEVELS.index(level) for level, features in _FEATURE_LEVELS.items() for feature in features}


def level_of(form: Form) -> int:
    """The first processor level that has a form."""
    return _SINCE.get(form.since, LEVELS.index("future"))


Fit = tuple[Form, tuple[tuple[int, int], ...]]


def matching_forms(
    forms: Sequence[Form], operands: tuple[Operand, ...], bits: int, optimise: int, prefix_size: int
) -> list[Fit]:
    """The forms of a mnemonic that the operands fit, in the order of preference, each with its conditions.

    A condition is the index of an operand and one of the constants above. The result depends on the values of operands
    in nothing, and on registers by REGISTER_CLASS alone.

    Args:
        prefix_size: operand size of an explicit o16, o32 or o64 prefix, or 0.

    Raises:
        EncodeError: nothing fits, or several sizes do.
    """
    fitting = _fitting(forms, operands, bits, optimise, prefix_size)
    fitting = _resolve_size(fitting, operands, bits, forms)
    last, _ = fitting[-1]
    return [*fitting[:-1], (last, ())]


def _syntaxes(forms: Sequence[Form], bits: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(form.syntax.replace("simm", "imm") for form in forms if bits in form.modes))


def _fitting(
    forms: Sequence[Form], operands: tuple[Operand, ...], bits: int, optimise: int, prefix_size: int
) -> list[Fit]:
    fitting: list[Fit] = []
    wrong_mode = wrong_size = False
    for form in forms:
        if len(form.operands) != len(operands) or (optimise > 1 and "unoptimised" in form.notes):
            continue
        conditions: list[tuple[int, int]] = []
        for index, (spec, operand) in enumerate(zip(form.operands, operands, strict=True)):
            fit = _fit(form, spec, operand, bits, optimise, prefix_size)
            if fit is None:
                break
            if fit == _WRONG_SIZE:
                wrong_size = True
                break
            if fit != _ALWAYS:
                conditions.append((index, fit))
        else:
            if bits not in form.modes:
                wrong_mode = True
            elif not _is_nop(form, operands, bits):
                fitting.append((form, tuple(conditions)))
    if fitting:
        return fitting
    if wrong_mode:
        names = [operand.name for operand in operands if isinstance(operand, Reg)]
        of_64_bits = next((name for name in names if name in _CLASSES[64]), "")
        if of_64_bits and bits != 64:
            message = f"instruction not supported in {bits}-bit mode: it has no {of_64_bits.upper()}"
            raise EncodeError(message, word=of_64_bits)
        raise EncodeError(f"instruction not supported in {bits}-bit mode", _syntaxes(forms, bits))
    if wrong_size:
        raise EncodeError("mismatch in operand sizes", _syntaxes(forms, bits))
    raise EncodeError("invalid combination of opcode and operands", _syntaxes(forms, bits))


def _is_nop(form: Form, operands: tuple[Operand, ...], bits: int) -> bool:
    """XCHG EAX, EAX in its short form would be NOP in 64-bit mode and leave the upper half of RAX."""
    return bits == 64 and form.opcode == 0x90 and form.osize == 32 and operands[0] == operands[1] == Reg("eax")


def _fit(form: Form, spec: OperandSpec, operand: Operand, bits: int, optimise: int, prefix_size: int) -> int | None:
    """Whether an operand fits: a condition on its value, _ALWAYS, _WRONG_SIZE, or None where it does not."""
    if isinstance(operand, Reg):
        return _ALWAYS if _fits_register(spec, operand.name) else None
    if isinstance(operand, Mem):
        return _fit_memory(form, spec, operand, bits)
    if isinstance(operand, Imm):
        if spec.kind == "rel":
            return _fit_relative(form, spec, operand, bits, optimise)
        if operand.distance:
            return None
        if spec.kind == "one":
            if operand.size or operand.strict or operand.relocatable:
                return None
            return ONE if optimise else WRITTEN_ONE
        return _fit_immediate(form, spec, operand, bits, optimise) if spec.kind == "imm" else None
    if spec.kind != "ptr" or operand.distance in ("near", "short"):
        return None
    size = operand.size or prefix_size or bits
    return _ALWAYS if size == spec.size or bits == 64 else _WRONG_SIZE


def _fits_register(spec: OperandSpec, name: str) -> bool:
    if spec.kind in ("r", "rm"):
        return name in _CLASSES[spec.size]
    if spec.kind == "reg":
        return name == spec.register
    if spec.kind in ("v", "vm"):
        return name in _VECTORS[spec.register]
    return name in _SPECIAL.get(spec.kind, ())


def _fit_memory(form: Form, spec: OperandSpec, mem: Mem, bits: int) -> int | None:
    if not spec.takes_memory or vector_index(mem) != (spec.register if spec.kind == "vsib" else ""):
        return None
    if spec.kind == "moffs":
        wanted = (mem.disp_size == 64) == (mem.addr_size != 32) and not mem.rel  # an offset of the address's size
        if not is_offset(mem) or mem.disp_size == 8 or (bits == 64 and not wanted):
            return None
    if form.mnemonic not in ("CALL", "JMP"):
        if mem.distance:
            return None
    elif (":" in spec.text) != (mem.distance == "far") or mem.distance == "short":
        return None
    size = spec.memory_size
    if size < 0:  # of far pointers and pairs only the target of a branch can have its size said
        size = spec.size if form.mnemonic in ("CALL", "JMP") else size
    return _ALWAYS if not mem.size or not size or mem.size == size else _WRONG_SIZE


def _fit_relative(form: Form, spec: OperandSpec, operand: Imm, bits: int, optimise: int) -> int | None:
    if operand.distance == "far":
        return None
    # Without `near` a jump's operand size can be said of JMP and CALL alone.
    wrong = operand.size not in ((0, 64) if bits == 64 else (0, 16, 32))
    if wrong or (operand.size and not operand.distance and form.mnemonic not in ("JMP", "CALL", "XBEGIN")):
        return _WRONG_SIZE
    if spec.size == 8:
        if operand.distance == "short":
            return _ALWAYS
        if operand.distance:
            return None
        if operand.strict or operand.size:
            return NEVER
        # Without optimisation NASM still takes the short form of conditional jumps.
        unknown_or_near = operand.value is None or operand.relocatable
        return SHORT if unknown_or_near and optimise != 1 and (optimise or form.mnemonic != "JMP") else NEVER
    if operand.distance == "short":
        return None
    wanted = operand.size or bits
    return _ALWAYS if wanted == (form.operand_size or bits) else _WRONG_SIZE


def _fit_immediate(form: Form, spec: OperandSpec, operand: Imm, bits: int, optimise: int) -> int:
    osize = form.operand_size
    if form.mnemonic == "PUSH" and operand.size in (0, 8) and osize != bits:
        # The one instruction whose operand size the immediate alone decides.
        return _WRONG_SIZE
    if operand.size and operand.size not in _immediate_sizes(form, spec):
        return _WRONG_SIZE
    fixed_width = operand.strict or operand.relocatable or not optimise
    if spec.size == 8 and spec.signed:
        if operand.size == 8:
            return _ALWAYS
        return NEVER if fixed_width else SIGNED_BYTE_16 if osize == 16 else SIGNED_BYTE
    if _narrows(form):
        return NEVER if fixed_width or optimise < 2 else UNSIGNED_32
    if form.mnemonic == "MOV" and spec.signed and operand.size != 32:
        # The one instruction that has a form with a 64-bit immediate.
        return NEVER if fixed_width or optimise < 2 else SIGNED_32
    return _ALWAYS


def _immediate_sizes(form: Form, spec: OperandSpec) -> tuple[int, ...]:
    """The size keywords that an immediate may have."""
    if _narrows(form):
        return (64,)
    if not spec.signed:
        return (spec.size,)
    if form.mnemonic == "PUSH":
        return (spec.size, 32, 64) if form.operand_size == 64 else (spec.size, form.operand_size)
    if spec.size == 32 and form.mnemonic not in ("MOV", "IMUL"):
        return (form.operand_size,)
    return (spec.size, form.operand_size)


def _narrows(form: Form) -> bool:
    """The form writes a 32-bit register to mean the 64-bit one (MOV r64, imm32 without REX.W)."""
    return form.osize == 32 and form.operands[0].size == 64


def _memory_size(form: Form, index: int) -> int:
    spec = form.operands[index]
    return spec.size if spec.memory_size < 0 else spec.memory_size


def _resolve_size(fitting: list[Fit], operands: tuple[Operand, ...], bits: int, forms: Sequence[Form]) -> list[Fit]:
    """Of forms of several sizes, those that an operand in memory without a size keyword means.

    Raises:
        EncodeError: nothing says which.
    """
    for index, operand in enumerate(operands):
        if not isinstance(operand, Mem) or operand.size:
            continue
        # To NASM there are no immediates of 64 bits here, so that a qword one tells nothing of the memory.
        is_qword = isinstance(operands[-1], Imm) and operands[-1].size == 64 and len(operands) == 2
        if not is_qword and len({_memory_size(form, index) for form, _ in fitting}) < 2:
            continue
        if forms[0].mnemonic in ("CALL", "JMP"):
            return [fit for fit in fitting if fit[0].operand_size == bits]
        sizes = {other.size for other in operands if isinstance(other, Imm) and other.size not in (0, 64)}
        has_count = any("imm8" in form.syntax.split() and _memory_size(form, index) > 8 for form, _ in fitting)
        if not sizes or has_count:
            meant = [fit for fit in fitting if "unsized" in fit[0].notes]
            if meant:
                return meant
            raise EncodeError("operation size not specified", _syntaxes(forms, bits))
        fitting = [fit for fit in fitting if _memory_size(fit[0], index) in sizes]
    return fitting
