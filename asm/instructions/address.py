"""ModRM, SIB and displacement of a memory operand: SDM Vol. 2, "Addressing-Mode Encoding of ModR/M and SIB Bytes"."""

from __future__ import annotations

from typing import NamedTuple

from asm.instructions.operands import EncodeError, Mem
from asm.table import REGISTERS_16, REGISTERS_32, REGISTERS_64, REGISTERS_XMM, REGISTERS_YMM

# Number and size of every general register that can stand in an address.
_REGISTERS = {
    name: (number, size)
    for size, names in ((16, REGISTERS_16), (32, REGISTERS_32), (64, REGISTERS_64))
    for number, name in enumerate(names)
}
_RM_16 = {
    frozenset(("bx", "si")): 0,
    frozenset(("bx", "di")): 1,
    frozenset(("bp", "si")): 2,
    frozenset(("bp", "di")): 3,
    frozenset(("si",)): 4,
    frozenset(("di",)): 5,
    frozenset(("bp",)): 6,
    frozenset(("bx",)): 7,
}
_VECTOR_NUMBERS = {name: n for names in (REGISTERS_XMM, REGISTERS_YMM) for n, name in enumerate(names)}
_SCALES = {1: 0x00, 2: 0x40, 4: 0x80, 8: 0xC0}
_SP = 4
_BP = 5


class EffectiveAddress(NamedTuple):
    """A memory operand but for its displacement.

    choices: ModRM (with zero in reg) and SIB without, with an 8-bit and with a full displacement; None where there is
    no such encoding. full: bytes of a full displacement. forced: the choice that is made whatever the displacement is,
    or -1. size: the address size in bits. relative: the displacement counts from the end of the instruction.
    """

    choices: tuple[bytes | None, bytes | None, bytes]
    full: int
    forced: int
    size: int
    rex_x: int = 0
    rex_b: int = 0
    relative: bool = False


def is_offset(mem: Mem) -> bool:
    """The operand is a bare offset, without registers."""
    return mem.base is None and mem.index is None


def vector_index(mem: Mem) -> str:
    """``xmm`` or ``ymm`` where the operand has an index of that class, else nothing."""
    index = mem.index if mem.index in _VECTOR_NUMBERS else mem.base if mem.base in _VECTOR_NUMBERS else ""
    return index[:3] if index else ""


def is_rip_relative(mem: Mem, bits: int, default_rel: bool) -> bool:
    """The source wants a bare offset that counts from the instruction's end."""
    if bits != 64 or not is_offset(mem):
        return False
    return mem.rel if mem.rel is not None else default_rel and mem.seg not in ("fs", "gs")


def offset_size(mem: Mem, bits: int, prefix_size: int) -> int:
    """The address size, in bits, of an operand without registers.

    Raises:
        EncodeError: the size does not exist in this mode.
    """
    size = mem.addr_size or prefix_size or (mem.disp_size if bits != 64 and mem.disp_size in (16, 32, 64) else bits)
    if (bits == 64 and mem.disp_size == 16) or size + bits == 80 or (size == 64) != (bits == 64 and size != 32):
        size = size if bits != 64 else 16
        raise EncodeError(f"{size}-bit addresses do not exist in {bits}-bit mode")
    return size


def effective_address(mem: Mem, bits: int, prefix_size: int, default_rel: bool) -> EffectiveAddress:
    """Encodes a memory operand.

    Args:
        prefix_size: address size of an explicit a16, a32 or a64 prefix, or 0.
        default_rel: a bare offset is relative to RIP in 64-bit mode.

    Raises:
        EncodeError: the processor has no such address.
    """
    if is_offset(mem):
        return _bare_offset(mem, bits, prefix_size, default_rel)
    if vector_index(mem):
        return _with_vector_index(mem, bits, prefix_size)
    base, index, scale = _normalise(mem)
    sizes = {_REGISTERS[name][1] if name in _REGISTERS else 0 for name in (base, index) if name is not None}
    size = sizes.pop()
    explicit = mem.addr_size or prefix_size
    if sizes or not size or (explicit and explicit != size) or (size == 64) > (bits == 64) or size + bits == 80:
        raise _invalid(mem, bits)
    if mem.disp_size and mem.disp_size not in (8, min(size, 32)):
        raise _invalid(mem, bits)
    forced = {0: -1, 8: 1}.get(mem.disp_size, 2)
    if size == 16:
        rm = _RM_16.get(frozenset(name for name in (base, index) if name is not None))
        if rm is None or scale != 1 or base == index:
            raise _invalid(mem, bits)
        return EffectiveAddress(_choices(rm, b"", rm == 6), 2, forced, size)
    return _with_sib(mem, bits, base, index, scale, size, forced)


def _with_vector_index(mem: Mem, bits: int, prefix_size: int) -> EffectiveAddress:
    """SDM Vol. 2, "Vector SIB (VSIB) Memory Addressing"."""
    base, index, scale = mem.base, mem.index, mem.scale
    if base in _VECTOR_NUMBERS:
        if index in _VECTOR_NUMBERS or scale != 1:
            raise _invalid(mem, bits)
        base, index = index, base
    size = _REGISTERS[base][1] if base is not None else mem.addr_size or prefix_size or bits
    explicit = mem.addr_size or prefix_size
    if size == 16 or (size == 64) > (bits == 64) or explicit not in (0, size) or scale not in _SCALES:
        raise _invalid(mem, bits)
    forced = {0: -1, 8: 1}.get(mem.disp_size, 2)
    number = _VECTOR_NUMBERS[str(index)]
    return _sib(base, number, scale, size, forced)


def _invalid(mem: Mem, bits: int) -> EncodeError:
    """What is wrong with an address that no encoding fits."""
    names = [name for name in (mem.base, mem.index) if name is not None]
    sizes = {_REGISTERS[name][1] for name in names if name in _REGISTERS}
    odd = next((name for name in names if name not in _REGISTERS and name not in _VECTOR_NUMBERS), "")
    if odd:
        why = f"{odd.upper()} cannot stand in one"
    elif 64 in sizes and bits != 64:
        why = f"{names[0].upper()} exists in 64-bit code alone"
    elif 16 in sizes and bits == 64:
        why = "64-bit code has none with 16-bit registers"
    elif len(sizes) > 1:
        why = "the registers differ in size"
    elif 16 in sizes:
        why = "with 16-bit registers it has BX or BP, SI or DI, or one of each, unscaled"
    elif mem.index in ("esp", "rsp"):
        why = f"{mem.index.upper()} cannot be an index"
    elif mem.scale not in _SCALES:
        why = "an index is scaled by 1, 2, 4 or 8"
    else:
        why = "its size is said to be another than that of its registers or displacement"
    return EncodeError(f"invalid effective address: {why}", word="[")


def _choices(rm: int, sib: bytes, needs_displacement: bool) -> tuple[bytes | None, bytes | None, bytes]:
    none = None if needs_displacement else bytes((rm,)) + sib
    return none, bytes((0x40 | rm,)) + sib, bytes((0x80 | rm,)) + sib


def _bare_offset(mem: Mem, bits: int, prefix_size: int, default_rel: bool) -> EffectiveAddress:
    size = offset_size(mem, bits, prefix_size)
    if size == 16:
        return EffectiveAddress((None, None, b"\x06"), 2, 2, size)
    if bits != 64:
        return EffectiveAddress((None, None, b"\x05"), 4, 2, size)
    # The distance to a number that is no address of this section is not known, so NASM takes it as an absolute one.
    if is_rip_relative(mem, bits, default_rel) and (mem.relocatable or mem.disp is None):
        return EffectiveAddress((None, None, b"\x05"), 4, 2, size, relative=True)
    return EffectiveAddress((None, None, b"\x04\x25"), 4, 2, size)


def _normalise(mem: Mem) -> tuple[str | None, str | None, int]:
    """Base, index and scale as they are encoded; NASM prefers short forms where ``nosplit`` does not forbid it."""
    base, index, scale = mem.base, mem.index, mem.scale
    if index is None:
        return base, None, 1
    if base is None and (not mem.nosplit or scale in (3, 5, 9)):
        if scale == 1:
            return index, None, 1
        if scale in (2, 3, 5, 9):
            base, scale = index, scale - 1
    if scale == 1 and index in ("esp", "rsp"):
        base, index = index, base
    return base, index, scale


def _with_sib(
    mem: Mem, bits: int, base: str | None, index: str | None, scale: int, size: int, forced: int
) -> EffectiveAddress:
    if index is None:
        assert base is not None
        number = _REGISTERS[base][0]
        low = number & 7
        sib = b"\x24" if low == _SP else b""
        return EffectiveAddress(_choices(low, sib, low == _BP), 4, forced, size, 0, number >> 3)
    number = _REGISTERS[index][0]
    if number == _SP or scale not in _SCALES:
        raise _invalid(mem, bits)
    return _sib(base, number, scale, size, forced)


def _sib(base: str | None, number: int, scale: int, size: int, forced: int) -> EffectiveAddress:
    """An address with an index register of that number."""
    head = _SCALES[scale] | (number & 7) << 3
    if base is None:
        return EffectiveAddress((None, None, bytes((0x04, head | 5))), 4, 2, size, number >> 3)
    base_number = _REGISTERS[base][0]
    low = base_number & 7
    choices = _choices(0x04, bytes((head | low,)), low == _BP)
    return EffectiveAddress(choices, 4, forced, size, number >> 3, base_number >> 3)
