"""Splits a source line into tokens and gives each token a one-letter kind.

The string of a line's kinds is its shape: lines of one shape are parsed alike, so that the grammar is asked once a
shape (see parse.py). A kind is a letter of asm/grammar.lark.
"""

from __future__ import annotations

import re

from asm import table
from asm.names import with_names

# One match a token; a comment matches without the group, so that findall gives an empty string for it.
TOKEN = re.compile(
    with_names(r"""\s*(?:(
      (?!\$\d[\dA-Fa-f_]*(?:\.|[pP]))<start$><name$>*
    | (?:0[xXhHbByYoOqQ]|\$)[\dA-Fa-f_]*(?:\.?[\dA-Fa-f_]*[pP][+-]?\d[\d_]*|\.[\dA-Fa-f_]*)
    | (?:0[dDtT])?\d[\d_]*(?:\.[\d_]*(?:[eE][+-]?\d[\d_]*)?(?![\w.])|[eE][+-]\d[\d_]*)
    | \d[\w]*
    | '[^']*' | "[^"]*" | `(?:\\.|[^\\`])*`
    | \{(?i:rex|vex[23]?)\}
    | <<<|>>>|<=>|<<|>>|<=|>=|<>|!=|==|//|%%|&&|\|\||\^\^
    | [^\s;]
    )|;.*)"""),
    re.VERBOSE,
)
split = TOKEN.findall

OPERATORS = {
    "<<": "L", ">>": "G", "<<<": "A", ">>>": "Z", "//": "Q", "%%": "M", "==": "=", "!=": "N", "<>": "N",
    "<=": "U", ">=": "V", "<=>": "W", "&&": "Y", "||": "O", "^^": "X",
}  # fmt: skip
PUNCTUATION = ",[]():+-*/%~!&|^?{}=<>"

SIZES = {
    "byte": 8, "word": 16, "dword": 32, "qword": 64, "tword": 80, "oword": 128, "yword": 256, "zword": 512,
}  # fmt: skip
DATA = {"db": 1, "dw": 2, "dd": 4, "dq": 8, "dt": 10, "do": 16, "ddq": 16, "dy": 32, "dz": 64}
RESERVE = {"resb": 1, "resw": 2, "resd": 4, "resq": 8, "rest": 10, "reso": 16, "resdq": 16, "resy": 32, "resz": 64}
PREFIXES = frozenset(
    [
        "lock",
        "rep",
        "repe",
        "repz",
        "repne",
        "repnz",
        "a16",
        "a32",
        "a64",
        "o16",
        "o32",
        "o64",
        "asp",
        "osp",
        "wait",
        "xacquire",
        "xrelease",
        "bnd",
        "nobnd",
        "{rex}",
        "{vex}",
        "{vex2}",
        "{vex3}",
    ]
)
DIRECTIVES = frozenset(
    [
        "bits",
        "use16",
        "use32",
        "use64",
        "userel",
        "useabs",
        "usebnd",
        "usenobnd",
        "org",
        "section",
        "segment",
        "absolute",
        "extern",
        "global",
        "common",
        "static",
        "required",
        "cpu",
        "osabi",
        "default",
        "float",
        "align",
        "alignb",
        "alignmode",
        "sectalign",
        "struc",
        "endstruc",
        "istruc",
        "at",
        "iend",
    ]
)

KEYWORDS: dict[str, str] = {
    **dict.fromkeys(SIZES, "z"),
    **dict.fromkeys(DATA, "D"),
    **dict.fromkeys(RESERVE, "R"),
    **dict.fromkeys(PREFIXES, "p"),
    **dict.fromkeys(DIRECTIVES, "d"),
    **dict.fromkeys(("short", "near", "far"), "j"),
    **dict.fromkeys(("rel", "abs"), "l"),
    "times": "T",
    "equ": "E",
    "incbin": "B",
    "strict": "t",
    "to": "o",
    "nosplit": "q",
    "seg": "g",
    "wrt": "w",
    "dup": "u",
    "__?masm_ptr?__": "k",
    "$": "H",
    "$$": "S",
    "?": "?",
    **{f"__{q}{name}{q}__": "f" for name in ("infinity", "nan", "qnan", "snan") for q in ("?", "")},
}

REGISTERS = frozenset(
    (
        *table.REGISTERS_8, *table.REGISTERS_8_REX, *table.REGISTERS_16, *table.REGISTERS_32, *table.REGISTERS_64,
        *table.REGISTERS_SEG, *table.REGISTERS_CR, *table.REGISTERS_DR, *table.REGISTERS_TR,
        *(f"{name}{n}" for name in ("st", "mm", "tr") for n in range(8)),
        *(f"{name}{n}" for name in ("xmm", "ymm") for n in range(16)),
    )
)  # fmt: skip
KEYWORDS.update(dict.fromkeys(REGISTERS, "r"))

MACRO = "m"  # a name that the preprocessor must look at: it is in no shape that the grammar knows
KEYWORDS["#"] = MACRO  # what begins a %line of the C preprocessor


class Kinds(dict[str, str]):
    """The kind of each token text, worked out when a text is first met.

    The preprocessor overrides the kind of macro names (`define`, `undefine`).
    """

    def __init__(self) -> None:
        super().__init__(_BASE)
        self.macros: set[str] = set()
        self.insensitive: set[str] = set()

    def __missing__(self, text: str) -> str:
        if text in self.macros or (self.insensitive and text.lower() in self.insensitive):
            kind = MACRO
        else:
            kind = classify(text)
        self[text] = kind
        return kind

    def define(self, name: str, insensitive: bool = False) -> bool:
        """Marks a macro name. Returns whether a line that held it may have been seen as an ordinary one."""
        if insensitive:
            lower = name.lower()
            self.insensitive.add(lower)
            seen = [text for text in self if text.lower() == lower and self[text] != MACRO]
        else:
            self.macros.add(name)
            seen = [name] if self.get(name, MACRO) != MACRO else []
        for text in seen:
            del self[text]
        return bool(seen)

    def undefine(self, name: str, insensitive: bool = False) -> None:
        """Takes the mark of a macro name away."""
        if insensitive:
            lower = name.lower()
            self.insensitive.discard(lower)
            for text in [text for text in self if text.lower() == lower]:
                del self[text]
        else:
            self.macros.discard(name)
            self.pop(name, None)


def classify(text: str) -> str:
    """The kind of a token: a letter of the grammar's terminals, ``x`` for what no line may hold."""
    first = text[0]
    kind = KEYWORDS.get(text) or KEYWORDS.get(text.lower())
    if kind:
        return kind
    if first.isdigit() or (first == "$" and text[1:2].isdigit()):
        if (
            "." in text
            or _BINARY_FLOAT.match(text)
            or _PACKED_DECIMAL.fullmatch(text)
            or (text[:2].lower() not in _PREFIX_RADIX and re.fullmatch(r"[\d_]+[eE][+-]?\d[\d_]*", text))
        ):
            return "f"
        return "n"
    if first.isalpha() or first in "_.?@$" or first >= "\x80":
        return "I" if text.lower() in mnemonics() else "i"
    if first in "'\"`":
        return "s" if len(text) > 1 else "x"
    return OPERATORS.get(text) or (text if text in PUNCTUATION else "x")


def mnemonics() -> frozenset[str]:
    """Every mnemonic that the instruction table knows, in lower case."""
    global _mnemonics
    if _mnemonics is None:
        _mnemonics = table.load().mnemonics()
    return _mnemonics


_mnemonics: frozenset[str] | None = None
_BASE: dict[str, str] = {**KEYWORDS, **OPERATORS, **{c: c for c in PUNCTUATION}}
_BINARY_FLOAT = re.compile(r"(0[xhbyoq]|\$)[\da-f_]*\.?[\da-f_]*p[-+]?\d", re.IGNORECASE)
_PACKED_DECIMAL = re.compile(r"0p[\d_]+|[\d_]+p", re.IGNORECASE)
_RADIX = {"h": 16, "x": 16, "d": 10, "t": 10, "o": 8, "q": 8, "b": 2, "y": 2}
_PREFIX_RADIX = frozenset(f"0{letter}" for letter in _RADIX)


def parse_number(text: str) -> int:
    """The value of a number in any of NASM's spellings, as a signed 64-bit integer.

    Raises:
        ValueError: a digit does not fit the radix.
    """
    digits = text.lower().replace("_", "")
    value = _unsigned(digits) & 0xFFFFFFFFFFFFFFFF
    return value - (1 << 64) if value >> 63 else value


def _unsigned(digits: str) -> int:
    if digits[0] == "$":
        return int(digits[1:], 16)
    if digits.isdecimal():
        return int(digits)
    # With a radix letter on both ends the larger radix is meant: 0bh is hexadecimal, 0d1b is decimal.
    prefix = _RADIX.get(digits[1:2], 0) if digits[0] == "0" and len(digits) > 2 else 0
    suffix = _RADIX.get(digits[-1], 0) if len(digits) > 1 else 0
    if prefix > suffix:
        return int(digits[2:], prefix)
    if suffix > prefix:
        return int(digits[:-1], suffix)
    return int(digits, 10)


_ESCAPES = {
    "a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "e": 27,
    "'": 39, '"': 34, "`": 96, "\\": 92, "?": 63,
}  # fmt: skip
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{1,2})|([0-7]{1,3})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)


def encode_text(text: str) -> bytes:
    """Source text as the bytes that the source file held."""
    return text.encode("utf-8", "surrogateescape")


def _escape(match: re.Match[str]) -> str:
    hexadecimal, octal, short, long, letter = match.groups()
    if hexadecimal or octal:
        code = int(hexadecimal, 16) if hexadecimal else int(octal, 8) & 0xFF
        return chr(code) if code < 0x80 else chr(0xDC00 + code)  # surrogateescape: this very byte
    if short or long:
        return chr(int(short or long, 16))
    return chr(_ESCAPES[letter]) if letter in _ESCAPES else letter


def unquote(token: str) -> str:
    """The text of a quoted string; between backquotes C's escapes are replaced."""
    if token[0] == "`":
        return _ESCAPE.sub(_escape, token[1:-1])
    return token[1:-1]


def string_bytes(token: str) -> bytes:
    """The bytes of a quoted string."""
    return encode_text(unquote(token))


def exceeds_64_bits(text: str) -> bool:
    """Whether `parse_number` cuts a number off.

    Raises:
        ValueError: a digit does not fit the radix.
    """
    return _unsigned(text.lower().replace("_", "")) >> 64 != 0


def string_value(token: str) -> int:
    """A quoted string as a number: its first byte is the lowest; more than eight bytes are cut."""
    return int.from_bytes(string_bytes(token)[:8], "little")
