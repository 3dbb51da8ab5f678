"""Functions of the preprocessor: ``%strlen(...)`` and its like, and the conversions that are spelt as macros.

Each takes the texts of its arguments, macros expanded, and gives the text that stands for the call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asm.preprocessor.macros import Expander, MacroError, pieces, quote
from asm.tokens import encode_text, unquote

Function = Callable[[Expander, Sequence[str]], str]

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ@_"


def string_of(text: str) -> str:
    """The contents of an argument that is one string.

    Raises:
        MacroError: it is something else.
    """
    text = text.strip()
    if len(text) < 2 or text[0] not in "'\"`" or len(pieces(text)) != 1:
        raise MacroError(f"a string is wanted, not `{text}'")
    return unquote(text)


def substring(text: str, start: int, count: int) -> str:
    """Part of a string as %substr counts: bytes from 1, a negative count from the end."""
    data = encode_text(text)
    begin = max(start - 1, 0)
    end = len(data) + count + 1 if count < 0 else begin + count
    return data[begin : max(end, 0)].decode("utf-8", "surrogateescape")


def _substr(expander: Expander, arguments: Sequence[str]) -> str:
    if len(arguments) < 2:
        raise MacroError("%substr() wants a string, a start and maybe a length")
    return quote(substring(string_of(arguments[0]), *[expander.evaluate(text) for text in [*arguments[1:3], "-1"][:2]]))


def _select(expander: Expander, arguments: Sequence[str]) -> str:
    chosen = expander.evaluate(arguments[0])
    count = len(arguments) - 1
    return arguments[chosen] if 1 <= chosen <= count else ""


def _conditional(expander: Expander, arguments: Sequence[str]) -> str:
    if not 2 <= len(arguments) <= 3:
        raise MacroError("%cond() wants a condition and one or two values")
    if expander.evaluate(arguments[0]):
        return arguments[1]
    return arguments[2] if len(arguments) == 3 else ""


def _number(expander: Expander, arguments: Sequence[str]) -> str:
    """A number as a string: value, width (a least width if negative), base; a negative base makes it signed."""
    given = [*arguments, "", "", ""]
    value, width, base = (expander.evaluate(text) if text else n for text, n in zip(given, (0, -1, 10), strict=False))
    negative = base < 0 and value < 0
    value = -value if negative else value & 0xFFFFFFFFFFFFFFFF
    base = abs(base)
    if not 2 <= base <= 64:
        raise MacroError(f"%num() cannot use base {base}")
    text = ""
    while value or not text:
        text = DIGITS[value % base] + text
        value //= base
    text = "-" * negative + text
    if width < 0:
        return quote(text.rjust(-width, "0"))
    return quote(text.rjust(width, "0")[-width:] if width else text)


PERCENT: dict[str, Function] = {
    "abs": lambda expander, arguments: str(abs(expander.evaluate(",".join(arguments)))),
    "eval": lambda expander, arguments: str(expander.evaluate(",".join(arguments))),
    "strlen": lambda expander, arguments: str(len(encode_text(string_of(",".join(arguments))))),
    "substr": _substr,
    "strcat": lambda expander, arguments: quote("".join(map(string_of, arguments))),
    "str": lambda expander, arguments: quote(",".join(arguments)),
    "tok": lambda expander, arguments: string_of(",".join(arguments)),
    "count": lambda expander, arguments: str(len(arguments)),
    "sel": _select,
    "cond": _conditional,
    "num": _number,
}


def _encoded(codec: str) -> Function:
    def function(expander: Expander, arguments: Sequence[str]) -> str:
        try:
            text = encode_text(string_of(",".join(arguments))).decode("utf-8")
            data = b"".join(_big_endian(letter) for letter in text) if codec == "utf-16-be" else text.encode(codec)
        except UnicodeError:
            raise MacroError(f"{arguments[0]} is no text in UTF-8") from None
        return "`" + "".join(f"\\x{byte:02x}" for byte in data) + "`"

    return function


def _big_endian(letter: str) -> bytes:
    """A character in big-endian UTF-16 as NASM has it: of two words the low one comes first."""
    data = letter.encode("utf-16-be")
    return data[2:] + data[:2]


def _float(width: int, low: int = 0, high: int = 16) -> Function:
    """The number that the bytes from `low` to `high` of a floating-point constant make up."""

    def function(expander: Expander, arguments: Sequence[str]) -> str:
        from asm.floats import float_bytes

        data, lost = float_bytes("".join(arguments).replace(" ", ""), width)
        for name, message in lost:
            expander.warn(name, message)
        return hex(int.from_bytes(data[low:high], "little"))

    return function


def _bfloat16(expander: Expander, arguments: Sequence[str]) -> str:
    from asm.floats import BFLOAT16, encode

    text = "".join(arguments).replace(" ", "").lower()
    body = text.lstrip("+-")
    data, lost = encode(body if "__" in body else body.replace("_", ""), text[:1] == "-", BFLOAT16, text)
    for name, message in lost:
        expander.warn(name, message)
    return hex(int.from_bytes(data, "little"))


def _logarithm(up: bool = False, strict: bool = False, warns: bool = False) -> Function:
    def function(expander: Expander, arguments: Sequence[str]) -> str:
        value = expander.evaluate(",".join(arguments)) & 0xFFFFFFFFFFFFFFFF
        if (strict or warns) and (value == 0 or value & (value - 1)):
            if strict:
                raise MacroError(f"ilog2 argument {value} is not a power of two")
            expander.warn("other", "ilog2 argument is not a power of two")
        if not value:
            return "0"
        return str((value - 1).bit_length() if up else value.bit_length() - 1)

    return function


def _spelt(name: str, function: Function) -> dict[str, Function]:
    return {f"__?{name}?__": function, f"__{name}__": function}


NAMED: dict[str, Function] = {
    **_spelt("utf16", _encoded("utf-16-le")),
    **_spelt("utf16le", _encoded("utf-16-le")),
    **_spelt("utf16be", _encoded("utf-16-be")),
    **_spelt("utf32", _encoded("utf-32-le")),
    **_spelt("utf32le", _encoded("utf-32-le")),
    **_spelt("utf32be", _encoded("utf-32-be")),
    **_spelt("float8", _float(1)),
    **_spelt("float16", _float(2)),
    **_spelt("bfloat16", _bfloat16),
    **_spelt("float32", _float(4)),
    **_spelt("float64", _float(8)),
    **_spelt("float80m", _float(10, 0, 8)),
    **_spelt("float80e", _float(10, 8, 10)),
    **_spelt("float128l", _float(16, 0, 8)),
    **_spelt("float128h", _float(16, 8, 16)),
}
FLOATS = tuple(name for name in NAMED if "?" in name and "float" in name)
NAMED |= {
    **_spelt("ilog2e", _logarithm(strict=True)),
    **_spelt("ilog2w", _logarithm(warns=True)),
    **_spelt("ilog2f", _logarithm()),
    **_spelt("ilog2c", _logarithm(up=True)),
}
