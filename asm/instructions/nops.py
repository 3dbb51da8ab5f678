"""What ``%use smartalign`` fills gaps with: a jump over a large gap, else the longest no-operations of a processor."""

from __future__ import annotations

_PLAIN = "90"
_PREFIXED = "90 6690 666690 66666690"
_MOVES_16 = "8db4000090 8db4000089ff 8db400008d7d00 8db400008dbd0000"
_MULTI_BYTE = "90 6690 0f1f00 0f1f4000 0f1f440000 660f1f440000 0f1f8000000000 0f1f840000000000"

# By mode and bits: the no-operations of 1, 2, 3... bytes.
_SEQUENCES = {
    ("generic", 16): f"90 89f6 8d7400 8db40000 {_MOVES_16}",
    ("generic", 32): "90 89f6 8d7600 8d742600 908d742600 8db600000000 8db42600000000",
    ("generic", 64): _PREFIXED,
    ("nop", 16): _PLAIN,
    ("nop", 32): _PLAIN,
    ("nop", 64): _PLAIN,
    ("k7", 16): f"{_PREFIXED} {_MOVES_16}",
    ("k7", 32): "90 8bc0 8d0420 8d442000 8d44200090 8d8000000000 8d040500000000",
    ("k7", 64): _PREFIXED,
    ("k8", 16): _PREFIXED,
    ("k8", 32): _PREFIXED,
    ("k8", 64): _PREFIXED,
    ("p6", 16): "90 6690 0f1f00 0f1f4000",
    ("p6", 32): _MULTI_BYTE,
    ("p6", 64): _MULTI_BYTE,
}
THRESHOLDS = {"generic": 8, "nop": 16, "k7": 16, "k8": 16, "p6": 16}  # a larger gap is jumped over


def fill(gap: int, mode: str, bits: int, threshold: int, short: bool = True) -> bytes:
    """The bytes of a gap.

    Args:
        gap: their number.
        mode: a key of THRESHOLDS.
        threshold: the largest gap that is not jumped over; negative for any.
        short: the jump may be a short one, as it is not under -O0.
    """
    return b"".join(code * count for code, count in parts(gap, mode, bits, threshold, short))


def parts(gap: int, mode: str, bits: int, threshold: int, short: bool = True) -> list[tuple[bytes, int]]:
    """What `fill` puts together: instructions, each with how often it stands there."""
    if 0 <= threshold < gap:
        if short and gap - 2 <= 127:
            return [(bytes((0xEB, gap - 2)), 1), (b"\x90", gap - 2)]
        width = 2 if bits == 16 else 4
        rest = gap - 1 - width
        return [(b"\xe9" + rest.to_bytes(width, "little"), 1), (b"\x90", rest)]
    sequences = [bytes.fromhex(text) for text in _SEQUENCES[mode, bits].split()]
    whole, rest = divmod(gap, len(sequences))
    return [(sequences[-1], whole), (sequences[rest - 1], 1 if rest else 0)]
