"""Floating-point constants as bytes: NASM's spellings, IEEE 754's formats and the processor's packed decimal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from asm.parse import TokenError

if TYPE_CHECKING:
    from fractions import Fraction


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
_RADIX = {"0x": (16, 4), "0h": (16, 4), "$": (16, 4), "0b": (2, 1), "0y": (2, 1), "0o": (8, 3), "0q": (8, 3)}
_SPECIAL = re.compile(r"__\??(infinity|nan|qnan|snan)\??__")
_PACKED = re.compile(r"0p([\d_]+)|([\d_]+)p")


def float_bytes(text: str, width: int, rounding: str = "near") -> bytes:
    """A constant in the format that has a width in bytes; overflow gives infinity, as in NASM.

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
    return encode(body, sign, FORMATS[width], text, rounding)


def is_cut(text: str) -> bool:
    """Whether a packed decimal constant has more digits than there is room for."""
    packed = _PACKED.fullmatch(text.lower().lstrip("+-"))
    return packed is not None and len((packed.group(1) or packed.group(2)).replace("_", "")) > DIGITS


def losses(text: str, data: bytes) -> Iterator[tuple[str, str]]:
    """What there is to warn of a number, without its sign, that its bytes do not give: class and message."""
    digits = text.replace("_", "").lower()
    if text.startswith("__") or _PACKED.fullmatch(digits):
        return
    if _is_decimal(digits) and len(digits.partition("e")[0].replace(".", "").lstrip("0dt")) > SIGNIFICANT:
        yield "float-toolong", f"floating-point constant significand contains more than {SIGNIFICANT} digits"
    form = FORMATS[len(data)]
    number = int.from_bytes(data, "little")
    exponent = number >> form.fraction + form.explicit & (1 << form.exponent) - 1
    fraction = number & (1 << form.fraction) - 1
    if exponent == (1 << form.exponent) - 1 and not fraction:
        yield "float-overflow", "overflow in floating-point constant"
    elif not exponent and fraction:
        yield "float-denorm", "denormal floating-point constant"
    elif not exponent and _value(digits):
        yield "float-underflow", "underflow in floating-point constant"


def _is_decimal(digits: str) -> bool:
    return digits[0] != "$" and digits[:2] not in _RADIX


def encode(body: str, sign: bool, form: Format, text: str, rounding: str = "near") -> bytes:
    """A constant without its sign in a format; `text` is for messages."""
    special = _SPECIAL.fullmatch(body)
    integer = 1 << form.fraction if form.explicit else 0
    top = (1 << form.exponent) - 1
    if special:
        name = special.group(1)
        fraction = {"infinity": 0, "snan": 1}.get(name, 1 << form.fraction - 1)
        exponent, fraction = top, integer | fraction
    else:
        try:
            exponent, fraction = _round(_value(body), sign, form, rounding)
        except (ValueError, ZeroDivisionError):
            raise TokenError(f"error in floating-point constant `{text}'", text) from None
    shift = form.fraction + form.explicit
    number = (sign << form.exponent | exponent) << shift | fraction
    return number.to_bytes(form.width, "little")


def _value(body: str) -> Fraction:
    from fractions import Fraction  # slow to import, and few sources need it

    prefix = "$" if body[0] == "$" else body[:2]
    if prefix in _RADIX:
        radix, _ = _RADIX[prefix]
        mantissa, _, power = body[len(prefix) :].partition("p")
        whole, _, part = mantissa.partition(".")
        number = Fraction(int((whole + part) or "0", radix), radix ** len(part))
        return number * Fraction(2) ** _exponent(power)
    if prefix in ("0d", "0t"):
        body = body[2:]
    mantissa, _, power = body.partition("e")
    return Fraction(mantissa.rstrip(".") or "0") * Fraction(10) ** _exponent(power)


def _exponent(power: str) -> int:
    value = int(power or "0")
    return max(min(value, 40_000), -40_000)  # beyond that it is infinity or zero in every format


def _round(value: Fraction, sign: bool, form: Format, rounding: str) -> tuple[int, int]:
    """The fields of exponent and fraction, the latter with the integer bit where that is stored."""
    if not value:
        return 0, 0
    bias = (1 << form.exponent - 1) - 1
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    if value < _power(value, exponent):
        exponent -= 1
    exponent = max(exponent, 1 - bias)
    scaled = value / _power(value, exponent - form.fraction)
    if rounding == "near":
        mantissa = round(scaled)
    else:
        up = rounding == ("down" if sign else "up")
        mantissa = -(-scaled.numerator // scaled.denominator) if up else scaled.numerator // scaled.denominator
    if mantissa >> form.fraction + 1:
        mantissa >>= 1
        exponent += 1
    biased = exponent + bias if mantissa >> form.fraction else 0
    if biased >= (1 << form.exponent) - 1:
        return (1 << form.exponent) - 1, 1 << form.fraction if form.explicit else 0
    if not form.explicit:
        mantissa &= (1 << form.fraction) - 1
    return biased, mantissa


def _power(like: Fraction, exponent: int) -> Fraction:
    return type(like)(2) ** exponent


def _packed_decimal(digits: str, sign: bool) -> bytes:
    padded = digits.replace("_", "")[-DIGITS:].rjust(DIGITS, "0")
    return bytes(int(padded[n : n + 2], 16) for n in range(16, -1, -2)) + (b"\x80" if sign else b"\0")
