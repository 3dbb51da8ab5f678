"""Floating-point constants as bytes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from asm.parse import TokenError

if TYPE_CHECKING:
    from fractions import Fraction


def _specials(top: dict[int, int], lowest: int) -> dict[int, bytes]:
    """Bytes by width: the top word, and 1 in the lowest bit if asked for."""
    made = {width: bytes(width - 2) + word.to_bytes(2, "little") for width, word in top.items()}
    return {width: bytes([data[0] | lowest]) + data[1:] for width, data in made.items()}


# By the name between the underscores; the significand of the 80-bit format has its integer bit set.
SPECIAL = {
    "infinity": _specials({2: 0x7C00, 4: 0x7F80, 8: 0x7FF0}, 0) | {10: bytes(7) + b"\x80\xff\x7f"},
    "nan": _specials({2: 0x7E00, 4: 0x7FC0, 8: 0x7FF8}, 0) | {10: bytes(7) + b"\xc0\xff\x7f"},
    "qnan": _specials({2: 0x7E00, 4: 0x7FC0, 8: 0x7FF8}, 0) | {10: bytes(7) + b"\xc0\xff\x7f"},
    "snan": _specials({2: 0x7C00, 4: 0x7F80, 8: 0x7FF0}, 1) | {10: b"\x01" + bytes(6) + b"\x80\xff\x7f"},
}


def float_bytes(text: str, width: int) -> bytes:
    """A floating-point constant in IEEE 754's binary16, binary32, binary64 or the processor's 80-bit format."""
    from fractions import Fraction  # slow to import, and few sources need it

    digits = text.replace("_", "").lower()
    special = SPECIAL.get(digits.lstrip("+-").strip("_?"))
    if special is not None and width in special:
        data = bytearray(special[width])
        data[-1] |= 0x80 if digits[0] == "-" else 0
        return bytes(data)
    try:
        if width in (2, 4, 8):
            return struct.pack({2: "<e", 4: "<f", 8: "<d"}[width], _value(digits))
        if width == 10:
            return extended(Fraction(_value(digits)) if "p" in digits else Fraction(digits))
    except (OverflowError, ValueError):
        raise TokenError(f"overflow or error in floating-point constant `{text}'", text) from None
    raise TokenError("floating-point constant in a size that has none", text)


def _value(digits: str) -> float:
    if "p" in digits:
        return float.fromhex(digits.replace("0h", "0x"))
    return float(digits)


def extended(value: Fraction) -> bytes:
    """A Fraction rounded to the nearest double extended-precision number, ties to even."""
    sign = 0x8000 if value < 0 else 0
    value = abs(value)
    if not value:
        return (sign << 64).to_bytes(10, "little")
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    if value < (1 << exponent if exponent >= 0 else type(value)(1, 1 << -exponent)):
        exponent -= 1
    exponent = max(exponent, -16382)
    shift = 63 - exponent
    mantissa = round(value * (1 << shift) if shift >= 0 else value / (1 << -shift))
    if mantissa >> 64:
        mantissa >>= 1
        exponent += 1
    biased = exponent + 16383 if mantissa >> 63 else 0
    if biased >= 0x7FFF:
        raise OverflowError
    return ((sign | biased) << 64 | mantissa).to_bytes(10, "little")
