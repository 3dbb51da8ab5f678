"""The command line of `emu-asm`, taken apart as NASM takes its own."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence

from asm.pragmas import LIMITS, kind_of_mangling

DEBUG_FORMATS = {
    "elf": ("dwarf",), "elf32": ("dwarf",), "elf64": ("dwarf",), "bin": ("null",), "ith": ("null",), "srec": ("null",),
}  # fmt: skip
MANGLES = ("prefix", "postfix", "suffix", "gprefix", "gpostfix", "gsuffix", "lprefix", "lpostfix", "lsuffix")
FLAGS = ("help", "v", "version", "keep-all", "no-line", "no-cache", "reproducible", "abort-on-panic")
MAX_RESPONSE = 1 << 20  # bytes of a response file


class ArgumentError(Exception):
    """A command line that makes no sense."""


class Arguments:
    """A command line, taken apart."""

    def __init__(self) -> None:
        self.source = ""
        self.output = ""
        self.listing = ""
        self.listing_flags = ""  # what -L says, in order
        self.map = ""
        self.format = "bin"
        self.include: list[str] = []
        self.defines: list[tuple[str, object]] = []
        self.undefines: list[str] = []
        self.preinclude: list[str] = []
        self.before: list[str] = []  # lines that stand before the source
        self.mangle: dict[str, str] = {}  # by "gprefix", "gsuffix", "lprefix" and "lsuffix"
        self.limits: dict[str, int] = {}
        self.preprocess_only = False
        self.line_directives = True
        self.dependency_file = ""
        self.writes_dependencies = False
        self.dependencies_only = False
        self.target = ""  # of the rule, as make is to read it
        self.watcom = False  # the rule is for Watcom's make
        self.phony = False
        self.debug = False
        self.debug_format = ""
        self.optimise = 2
        self.warnings: list[str] = []  # switches, in order
        self.to_stdout = False
        self.messages = ""
        self.style = "gnu"
        self.help = self.version = self.lists_debug_formats = False
        self.cache = True
        self.notes: list[str] = []  # what there is to warn of
        self.words: list[str] = []  # of the environment, the command line and its response files


_VALUED = "ofliIdDuUpPXZFLwWO"


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Takes NASM's command line apart, with what NASMENV puts before it.

    Raises:
        ArgumentError: what is wrong with it, in one line.
    """
    arguments = Arguments()
    arguments.words = [*_separated(os.environ.get("NASMENV", "")), *_with_responses(argv)]
    words = deque(arguments.words)
    only_files = False
    while words:
        word = words.popleft()
        if only_files or word == "-" or word[:1] != "-":
            if arguments.source:
                raise ArgumentError(f"more than one source: `{arguments.source}' and `{word}'")
            arguments.source = word
        elif word == "--":
            only_files = True
        elif word.startswith("--"):
            _long_option(arguments, word, words)
        else:
            _option(arguments, word, words)
    if not (arguments.source or arguments.help or arguments.version or arguments.lists_debug_formats):
        raise ArgumentError("no source file; `emu-asm -h' explains")
    made = DEBUG_FORMATS.get(arguments.format, ())
    if arguments.debug_format and arguments.debug_format != "null" and arguments.debug_format not in made:
        known = "none" if made == ("null",) else " ".join(made)
        what = f"debug format `{arguments.debug_format}'"
        raise ArgumentError(f"{what} is not made for output format `{arguments.format}'; there is {known}")
    return arguments


def _separated(text: str) -> list[str]:
    """Words of NASMENV: between blanks, or between what it begins with if that is no dash."""
    separator = text[0] if text and text[0] != "-" else " "
    return [word for word in text.split(separator) if word]


def _with_responses(argv: Sequence[str]) -> Iterator[str]:
    """The command line with the words of `-@ FILE`, an option a line, and `@FILE`, options between blanks."""
    words = deque(argv)
    while words:
        word = words.popleft()
        if word[:2] == "-@":
            for line in _response(_value(word, words)):
                yield line.strip()
        elif word[:1] == "@" and len(word) > 1:
            for line in _response(word[1:]):
                yield from _separated(line)
        else:
            yield word


def _response(name: str) -> list[str]:
    with open(name, encoding="utf-8", errors="surrogateescape") as file:
        return [line for line in file.read(MAX_RESPONSE).splitlines() if line.strip()]


def _value(word: str, words: deque[str]) -> str:
    value = word[2:].lstrip() or (words.popleft() if words else "")
    if not value:
        raise ArgumentError(f"option `{word}' wants a value")
    return value


def _only(what: str, known: str, value: str) -> str:
    if known:
        raise ArgumentError(f"more than one {what} file: `{known}' and `{value}'")
    return value


def _long_option(arguments: Arguments, word: str, words: deque[str]) -> None:
    name, equals, value = word[2:].partition("=")
    name = name.lower()
    if name in FLAGS:
        if equals:
            raise ArgumentError(f"option `--{name}' takes no value")
    elif name == "debug":
        return  # NASM's own inner life
    elif name in ("include", "before", "pragma", "map", *MANGLES) or name.startswith("limit-"):
        if not equals:
            if not words:
                raise ArgumentError(f"option `--{name}' wants a value")
            value = words.popleft()
    else:
        raise ArgumentError(f"unrecognised option `{word}'")
    if name == "map":
        arguments.map = value
    elif name == "include":
        arguments.preinclude.append(value)
    elif name == "before":
        arguments.before.append(value)
    elif name == "pragma":
        arguments.before.append(f"%pragma {value}")
    elif name in MANGLES:
        arguments.mangle.setdefault(kind_of_mangling(name), value)  # as in NASM the first counts
    elif name.startswith("limit-"):
        _limit(arguments, name.removeprefix("limit-"), value)
    elif name == "no-cache":
        arguments.cache = False
    elif name == "no-line":
        arguments.line_directives = False
    arguments.help |= name == "help"
    arguments.version |= name in ("v", "version")


def _limit(arguments: Arguments, name: str, value: str) -> None:
    if name not in LIMITS:
        arguments.notes.append(f"unknown limit: `{name}'")
    elif value.isdecimal():
        arguments.limits[name] = int(value)
    elif value != "unlimited":
        arguments.notes.append(f"invalid limit value: `{value}'")


def _option(arguments: Arguments, word: str, words: deque[str]) -> None:
    letter = word[1]
    if letter == "M":
        _dependency_option(arguments, word, words)
    elif word == "-O" and not (words and set(words[0]) <= set("0123456789xv+")):
        arguments.optimise = 2
    elif letter in _VALUED:
        _valued_option(arguments, letter, _value(word, words))
    elif letter in "eE":
        arguments.preprocess_only = True
    elif letter == "s":
        arguments.to_stdout = True
    elif letter == "h":
        arguments.help = True
    elif letter == "v":
        arguments.version = True
    elif letter == "y":
        arguments.lists_debug_formats = True
    elif letter == "g":
        arguments.debug = True
        arguments.debug_format = word[2:].strip() or arguments.debug_format
    elif letter == "t":
        raise ArgumentError("TASM's dialect, option `-t', is not taken")
    elif letter != "a":  # -a: a source that is preprocessed comes out of the preprocessor as it was
        raise ArgumentError(f"unrecognised option `{word}'")


def _valued_option(arguments: Arguments, letter: str, value: str) -> None:
    match letter:
        case "f":
            arguments.format = {"elf": "elf32"}.get(value.lower(), value.lower())
        case "o":
            arguments.output = _only("output", arguments.output, value)
        case "l":
            arguments.listing = _only("listing", arguments.listing, value)
        case "i" | "I":
            arguments.include.append(value)
        case "d" | "D":
            name, equals, text = value.partition("=")
            arguments.defines.append((name, text if equals else ""))
        case "u" | "U":
            arguments.undefines.append(value)
        case "p" | "P":
            arguments.preinclude.append(value)
        case "X":
            styles = {"gnu": "gnu", "gcc": "gnu", "vc": "vc", "msvc": "vc", "ms": "vc"}
            if value.lower() not in styles:
                raise ArgumentError(f"unrecognised error reporting format `{value}'")
            arguments.style = styles[value.lower()]
        case "Z":
            arguments.messages = value
        case "L":
            arguments.listing_flags += "bdefmps" if "+" in value else value
        case "F":
            arguments.debug, arguments.debug_format = True, value
        case "O":
            _optimisation(arguments, value)
        case "w" | "W":
            arguments.warnings.append(value)


def _optimisation(arguments: Arguments, text: str) -> None:
    digits = ""
    for letter in f"{text} ":
        if letter.isdecimal():
            digits += letter
            continue
        if digits:
            arguments.optimise, digits = min(int(digits), 2), ""
        if letter == "x":
            arguments.optimise = 2
        elif letter not in "v+ ":
            raise ArgumentError(f"unrecognised optimisation level `-O{text}'")


def _dependency_option(arguments: Arguments, word: str, words: deque[str]) -> None:
    kind = word[2:]
    if kind in ("F", "T", "Q"):
        value = _value(word[:2], words)
        if kind == "F":
            arguments.dependency_file = value
        else:
            from asm.command.dependencies import quoted

            arguments.target = value if kind == "T" else quoted(value, arguments.watcom)
    elif kind == "D":
        arguments.writes_dependencies = True
        if words and (words[0][:1] != "-" or words[0] == "-"):
            arguments.dependency_file = words.popleft()
    elif kind in ("", "G"):
        arguments.dependencies_only = True
    elif kind == "P":
        arguments.phony = True
    elif kind == "W":
        arguments.watcom = True
    else:
        raise ArgumentError(f"unknown dependency option `{word}'")
