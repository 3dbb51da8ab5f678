"""Floating-point constants as bytes: NASM's spellings, IEEE 754's formats and the processor's packed decimal.

A decimal constant is turned into a mantissa of 192 bits with NASM's arithmetic, which cuts off and does not round: what
is halfway between two values of the format may be just below that afterwards, and is rounded down as NASM rounds it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from asm.parse import TokenError

Warnings = list[tuple[str, str]]  # class and message


class Format(NamedTuple):
    """Bits of exponent and fraction; whether the integer bit is stored; bytes in all."""

    exponent: int
    fraction: int
    explicit: bool
    width: int


FORMATS = {
    1: Format(4, 3, False, 1),
    2: Format(5, 10, False, 2),
    4: Format(8, 23, False, 4),
    8: Format(11, 52, False, 8),
    10: Format(15, 63, True, 10),
    16: Format(15, 112, False, 16),
}
DIGITS = 18  # of a packed decimal constant
SIGNIFICANT = 52  # digits of a decimal fraction that NASM looks at
BFLOAT16 = Format(8, 7, False, 2)
ROUNDINGS = ("near", "up", "down", "zero")
_RADIX = {"0x": 4, "0h": 4, "$": 4, "0b": 1, "0y": 1, "0o": 3, "0q": 3}  # bits of a digit
_BITS = 192  # of the mantissa while a constant is converted
_FIFTH = 0xCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCD  # 0.2, a mantissa with the exponent -2
_SPECIAL = re.compile(r"__\??(infinity|nan|qnan|snan)\??__")
_PACKED = re.compile(r"0p([\d_]+)|([\d_]+)p")


def float_bytes(text: str, width: int, rounding: str = "near", flush: bool = False) -> tuple[bytes, Warnings]:
    """A constant in the format that has a width in bytes, and what there is to warn of.

    Args:
        rounding: one of ROUNDINGS. flush: denormals become zero.

    Raises:
        TokenError: there is no such format, or the text is no number.
    """
    digits = text.replace("_", "").lower() if "__" not in text else text.lower()
    sign = digits[:1] == "-"
    body = digits.lstrip("+-").strip()
    if width == 10 and (packed := _PACKED.fullmatch(body)):
        return _packed_decimal(packed.group(1) or packed.group(2), sign)
    if width not in FORMATS:
        raise TokenError("floating-point constant in a size that has none", text)
    return encode(body, sign, FORMATS[width], text, rounding, flush)


def _is_decimal(digits: str) -> bool:
    return digits[0] != "$" and digits[:2] not in _RADIX


def encode(
    body: str, sign: bool, form: Format, text: str, rounding: str = "near", flush: bool = False
) -> tuple[bytes, Warnings]:
    """A constant without its sign in a format, and what there is to warn of; `text` is for messages."""
    special = _SPECIAL.fullmatch(body)
    integer = 1 << form.fraction if form.explicit else 0
    top = (1 << form.exponent) - 1
    warnings: Warnings = []
    if special:
        name = special.group(1)
        fraction = {"infinity": 0, "snan": 1}.get(name, 1 << form.fraction - 1)
        exponent, fraction = top, integer | fraction
    else:
        if _is_decimal(body) and len(body.partition("e")[0].replace(".", "").lstrip("0dt")) > SIGNIFICANT:
            message = f"floating-point constant significand contains more than {SIGNIFICANT} digits"
            warnings.append(("float-toolong", message))
        try:
            mantissa, power = _value(body)
        except ValueError:
            raise TokenError(f"error in floating-point constant `{text}'", text) from None
        exponent, fraction = _round(mantissa, power, sign, form, rounding)
        if flush and not exponent:
            fraction = 0
        if exponent == top:
            warnings.append(("float-overflow", "overflow in floating-point constant"))
        elif not exponent and fraction:
            warnings.append(("float-denorm", "denormal floating-point constant"))
        elif not exponent and mantissa:
            warnings.append(("float-underflow", "underflow in floating-point constant"))
    shift = form.fraction + form.explicit
    number = (sign << form.exponent | exponent) << shift | fraction
    return number.to_bytes(form.width, "little"), warnings


def _value(body: str) -> tuple[int, int]:
    """A number as mantissa and exponent: ``mantissa / 2**192 * 2**exponent``; the mantissa has its top bit or is zero.

    Raises:
        ValueError: it is no number.
    """
    prefix = "$" if body[0] == "$" else body[:2]
    if prefix in _RADIX:
        bits = _RADIX[prefix]
        mantissa, _, power = body[len(prefix) :].partition("p")
        whole, _, part = mantissa.partition(".")
        number = int((whole + part) or "0", 1 << bits)
        length = number.bit_length()
        scaled = number << _BITS - length if length <= _BITS else number >> length - _BITS
        return scaled, length - bits * len(part) + _exponent(power, 20_000)
    if prefix in ("0d", "0t"):
        body = body[2:]
    mantissa, _, power = body.partition("e")
    whole, _, part = mantissa.partition(".")
    if not (whole + part).isdecimal():
        raise ValueError
    digits = (whole + part).lstrip("0")
    tens = len(digits) - len(part) + _exponent(power, 5000)
    digits = digits[:SIGNIFICANT]
    return _decimal(int(digits or "0"), len(digits), tens)


def _exponent(power: str, most: int) -> int:
    value = int(power or "0")
    return max(min(value, most), -most)  # beyond that it is infinity or zero in every format


def _decimal(number: int, digits: int, tens: int) -> tuple[int, int]:
    """``number / 10**digits * 10**tens`` as mantissa and exponent, in the steps that NASM takes."""
    if not number:
        return 0, 0
    whole = 10**digits
    leading = whole.bit_length() - number.bit_length()  # zero bits behind the point, or one more
    leading -= number << leading >= whole
    mantissa, twos = (number << _BITS + leading) // whole, tens - leading
    factor, step = (5 << _BITS - 3, 3) if tens > 0 else (_FIFTH, -2)
    tens = abs(tens)
    while tens:
        if tens & 1:
            mantissa, carried = _multiply(mantissa, factor)
            twos += step + carried
        factor, carried = _multiply(factor, factor)
        step = 2 * step + carried
        tens >>= 1
    return mantissa, twos


def _multiply(a: int, b: int) -> tuple[int, int]:
    """The product of two mantissas, cut to one, and what that adds to the exponent."""
    product = a * b
    return (product >> _BITS, 0) if product >> 2 * _BITS - 1 else (product >> _BITS - 1, -1)


def _round(mantissa: int, power: int, sign: bool, form: Format, rounding: str) -> tuple[int, int]:
    """The fields of exponent and fraction, the latter with the integer bit where that is stored."""
    if not mantissa:
        return 0, 0
    bias = (1 << form.exponent - 1) - 1
    exponent = power - 1 + bias
    denormal = max(1 - exponent, 0)
    drop = _BITS - 1 - form.fraction + denormal
    kept = mantissa >> drop
    cut = form.exponent + form.explicit + denormal  # bits that NASM has shifted out before it looks
    rest = (mantissa & (1 << drop) - 1) >> cut << cut
    half = 1 << drop - 1
    if rounding == "near":
        kept += rest > half or (rest == half and kept & 1)
    elif rounding == ("down" if sign else "up"):
        kept += rest > 0
    exponent = max(exponent, 1)
    if kept >> form.fraction + 1:
        kept >>= 1
        exponent += 1
    if not kept >> form.fraction:
        exponent = 0
    top = (1 << form.exponent) - 1
    if exponent >= top:
        return top, 1 << form.fraction if form.explicit else 0
    return exponent, kept if form.explicit else kept & (1 << form.fraction) - 1


def _packed_decimal(digits: str, sign: bool) -> tuple[bytes, Warnings]:
    digits = digits.replace("_", "")
    padded = digits[-DIGITS:].rjust(DIGITS, "0")
    data = bytes(int(padded[n : n + 2], 16) for n in range(16, -1, -2)) + (b"\x80" if sign else b"\0")
    return data, [("other", f"packed BCD truncated to {DIGITS} digits")] if len(digits) > DIGITS else []
