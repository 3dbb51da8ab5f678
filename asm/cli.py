"""The command `emu-asm`: takes NASM's options, so that it can stand in for `nasm`."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from asm.formats import FORMATS

if TYPE_CHECKING:
    from asm.program import Program

VERSION = "2.16.01"  # of the NASM whose behaviour this is; build systems ask for it
USAGE = """\
usage: emu-asm [-f FORMAT] [-o OUT] [-l LISTING] [-I DIR] [-D NAME[=VALUE]] [option ...] SOURCE

Assembles SOURCE, written in NASM's syntax. `-` reads standard input.

  -f FORMAT        bin (a flat binary: the default), ith (Intel HEX), srec (S-records), elf32 or elf, elf64 (objects)
  -o FILE          output file; without it the source's name, with the format's extension
  -g [-F dwarf]    line information for a debugger in an elf32 or elf64 file
  -l FILE          listing of addresses, bytes and source lines
  -I DIR, -i DIR   look there for %include and incbin
  -D NAME[=VALUE]  define a single-line macro; also -d
  -U NAME          forget a single-line macro; also -u
  -P FILE          include FILE before the source; also -p
  -E               preprocess only: print the lines that would be assembled; also -e
  -M, -MD FILE     print or write a make dependency; -MT, -MQ TARGET names its target, -MP adds phony targets, -MG lets
                   a missing file be a dependency
  -O0 | -O1 | -Ox  choose forms as written, short immediates, or short jumps too (the default)
  -w+NAME, -w-NAME turn a warning on or off, -w+error=NAME makes it an error; also -Wname, -Wno-name
  -s               messages to standard output
  -X gnu|vc        form of messages
  -Z FILE          messages to FILE
  -@ FILE          more of the command line is in FILE
  --no-cache       assemble even what has not changed since the last time
  --map FILE       sections and symbols with their addresses
  -v               version
  -h               this text

Exit status: 0 assembled, 1 the source has errors, 2 wrong arguments or input.

Example: emu-asm -f bin -l boot.lst -o boot.bin boot.asm
"""


OTHER_FORMATS = frozenset(("elfx32", "aout", "coff", "dbg", "obj", "win32", "win64", "macho", "macho32", "macho64"))


class ArgumentError(Exception):
    """A command line that makes no sense."""


class Arguments:
    """A command line, taken apart."""

    def __init__(self) -> None:
        self.source = ""
        self.output = ""
        self.listing = ""
        self.map = ""
        self.format = "bin"
        self.include: list[str] = []
        self.defines: list[tuple[str, object]] = []
        self.undefines: list[str] = []
        self.preinclude: list[str] = []
        self.preprocess_only = False
        self.dependencies: str | None = None
        self.dependencies_only = False
        self.targets: list[str] = []
        self.phony = False
        self.debug = False
        self.debug_format = "dwarf"
        self.optimise = 2
        self.warnings: list[str] = []  # switches, in order
        self.to_stdout = False
        self.messages = ""
        self.style = "gnu"
        self.help = self.version = False
        self.cache = True
        self.words: list[str] = []  # of the command line and its response files


_VALUED = "foliIdDuUpPXZ"


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Takes NASM's command line apart.

    Raises:
        ArgumentError: what is wrong with it, in one line.
    """
    arguments = Arguments()
    arguments.words = list(_with_responses(argv))
    words = iter(arguments.words)
    only_files = False
    for word in words:
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
    if not (arguments.source or arguments.help or arguments.version):
        raise ArgumentError("no source file; `emu-asm -h' explains")
    return arguments


def _with_responses(argv: Sequence[str]) -> Iterator[str]:
    """The command line with the words of `-@ FILE` in its place; they are split and quoted as a shell has them."""
    words = iter(argv)
    for word in words:
        if word[:2] != "-@":
            yield word
            continue
        with open(_value(word, words), encoding="utf-8", errors="surrogateescape") as file:
            try:
                yield from shlex.split(file.read(1 << 20), comments=False)
            except ValueError as error:
                raise ArgumentError(f"{file.name}: {error}") from None


def _value(word: str, words: Iterator[str]) -> str:
    value = word[2:] or next(words, "")
    if not value:
        raise ArgumentError(f"option `{word}' wants a value")
    return value.strip()


def _define(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _long_option(arguments: Arguments, word: str, words: Iterator[str]) -> None:
    name, equals, value = word.partition("=")
    if name == "--map":
        arguments.map = value if equals else next(words, "")
        if not arguments.map:
            raise ArgumentError("option `--map' wants a value")
    elif name == "--no-cache":
        arguments.cache = False
    elif name == "--help":
        arguments.help = True
    elif name == "--version":
        arguments.version = True
    elif name in ("--prefix", "--postfix", "--gprefix", "--gpostfix", "--lprefix", "--lpostfix"):
        raise ArgumentError(f"option `{name}' is of the object formats, which this version does not make")
    elif name.startswith("--limit-") or name in ("--keep-all", "--no-line", "--before", "--reproducible"):
        if name in ("--before",) or (name.startswith("--limit-") and not equals):
            next(words, "")
    else:
        raise ArgumentError(f"unrecognised option `{word}'")


def _option(arguments: Arguments, word: str, words: Iterator[str]) -> None:
    letter = word[1]
    if letter == "M":
        _dependency_option(arguments, word, words)
    elif letter in _VALUED:
        value = _value(word, words)
        match letter:
            case "f":
                arguments.format = value
            case "o":
                arguments.output = value
            case "l":
                arguments.listing = value
            case "i" | "I":
                arguments.include.append(value)
            case "d" | "D":
                arguments.defines.append(_define(value))
            case "u" | "U":
                arguments.undefines.append(value)
            case "p" | "P":
                arguments.preinclude.append(value)
            case "X":
                if value not in ("gnu", "vc"):
                    raise ArgumentError(f"unrecognised error reporting format `{value}'")
                arguments.style = value
            case "Z":
                arguments.messages = value
    elif letter in "eE" and len(word) == 2:
        arguments.preprocess_only = True
    elif letter == "O":
        _optimisation(arguments, word)
    elif letter in "wW":
        _warning_option(arguments, word, words)
    elif letter == "s" and len(word) == 2:
        arguments.to_stdout = True
    elif letter == "h":
        arguments.help = True
    elif letter in "vV":
        arguments.version = True
    elif letter == "g":
        arguments.debug = True
    elif letter == "F":
        value = _value(word, words)
        if value not in ("dwarf", "null"):
            raise ArgumentError(f"debug format `{value}' is not made; there is `dwarf'")
        arguments.debug_format = value
    elif letter in "aLrtk":
        pass  # NASM's other switches change nothing in a flat binary
    else:
        raise ArgumentError(f"unrecognised option `{word}'")


def _dependency_option(arguments: Arguments, word: str, words: Iterator[str]) -> None:
    kind = word[1:3]
    if word == "-MD" and arguments.words[arguments.words.index(word) + 1 :][:1] == ["-MF"]:
        return  # the file's name comes with -MF
    if kind in ("MF", "MD", "MT", "MQ"):
        value = word[3:] or next(words, "")
        if not value:
            raise ArgumentError(f"option `{word}' wants a value")
        if kind in ("MT", "MQ"):
            arguments.targets.append(value)
        else:
            arguments.dependencies = value
            arguments.dependencies_only |= kind == "MF" and arguments.dependencies_only
    elif word in ("-M", "-MG"):
        arguments.dependencies_only = True
    elif word == "-MP":
        arguments.phony = True
    elif word != "-MW":
        raise ArgumentError(f"unrecognised option `{word}'")


def _optimisation(arguments: Arguments, word: str) -> None:
    level = word[2:]
    if level in ("0", "1"):
        arguments.optimise = int(level)
    elif level in ("", "x", "v") or level.isdecimal():
        arguments.optimise = 2
    else:
        raise ArgumentError(f"unrecognised optimisation level `{word}'")


def _warning_option(arguments: Arguments, word: str, words: Iterator[str]) -> None:
    arguments.warnings.append(_value(word, words))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: the arguments; those of the process without it.

    Returns:
        The exit status: 0 assembled, 1 errors in the source, 2 wrong arguments or input.
    """
    try:
        return _main(sys.argv[1:] if argv is None else argv)
    except ArgumentError as error:
        print(f"emu-asm: {error}", file=sys.stderr)
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        print(f"emu-asm: {name}{error.strerror or error}", file=sys.stderr)
    return 2


def _main(argv: Sequence[str]) -> int:
    arguments = parse_arguments(argv)
    if arguments.help:
        print(USAGE, end="")
        return 0
    if arguments.version:
        print(f"NASM version {VERSION} compatible: emu-asm")
        return 0
    if arguments.format not in FORMATS:
        what = "is not made in this version" if arguments.format in OTHER_FORMATS else "is unknown"
        raise ArgumentError(f"output format `{arguments.format}' {what}; there are {', '.join(FORMATS)}")
    for written in (arguments.output, arguments.listing, arguments.map, arguments.dependencies or ""):
        if written not in ("", "-") and os.path.isfile(written) and _is_same_file(written, arguments.source):
            raise ArgumentError(f"will not overwrite the source, `{written}'")
    if arguments.messages:
        with open(arguments.messages, "w", encoding="utf-8", errors="surrogateescape") as messages:
            return _assemble(arguments, lambda text: print(text, file=messages), False)
    stream = sys.stdout if arguments.to_stdout else sys.stderr
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    from asm import colour

    return _assemble(arguments, lambda text: print(text, file=stream), colour.wanted(stream))


def _assemble(arguments: Arguments, say: Callable[[str], None], colourful: bool) -> int:
    import gc

    gc.disable()  # a short-lived process: collecting garbage costs more than it frees
    from asm import cache
    from asm.diagnostics import AsmError, Diagnostic
    from asm.frames import decode
    from asm.options import Options
    from asm.program import run
    from asm.progress import Progress

    messages: list[str] = []

    def show(diagnostic: Diagnostic) -> None:
        text = str(diagnostic)
        if arguments.style == "vc":
            text = text.replace(f"{diagnostic.file}:{diagnostic.line}:{diagnostic.column}:",
                                f"{diagnostic.file}({diagnostic.line}) :", 1)  # fmt: skip
        messages.append(text)
        if colourful:
            from asm import colour

            text = colour.paint_diagnostic(text, diagnostic)
        say(text)

    if arguments.source == "-":
        data, name = sys.stdin.buffer.read(), "<stdin>"
    else:
        name = arguments.source
        with open(name, "rb") as file:
            data = file.read()
    text = decode(data)
    options = Options(
        bits=FORMATS[arguments.format],
        output_format=arguments.format,
        debug=arguments.debug,
        defines=arguments.defines,
        undefines=arguments.undefines,
        include=arguments.include,
        preinclude=arguments.preinclude,
        optimise=arguments.optimise,
        listing=bool(arguments.listing),
        warnings=arguments.warnings,
        preprocess_only=arguments.preprocess_only,
    )
    if arguments.preprocess_only or arguments.dependencies_only:
        from asm.output_preprocessed import preprocess

        lines, assembler, dependencies = preprocess(name, text, options)
        for diagnostic in assembler.warnings + assembler.errors:
            show(diagnostic)
        if arguments.dependencies_only:
            rule = _dependencies(arguments, dependencies)
            if arguments.dependencies:
                _write(arguments.dependencies, rule)
            else:
                sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
                sys.stdout.write(rule.decode("utf-8", "surrogateescape"))
        elif arguments.output:
            _write(arguments.output, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
        else:
            sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
            sys.stdout.writelines(f"{line}\n" for line in lines)
        return 1 if assembler.errors else 0
    key = cache.key_of(arguments.words, data) if arguments.cache else ""
    known = cache.find(key) if key else None
    if known is not None:
        for text in known.messages:
            say(text)
        for path, contents in known.files:
            _write(path, contents)
        return 0
    start = time.monotonic()
    try:
        with Progress(sys.stderr) as progress:
            options.watch = progress.watch
            program = run(name, text, options)
            files = _products(arguments, name, program)
    except AsmError as error:
        for diagnostic in sorted(error.warnings + error.errors, key=lambda d: (d.file != name, d.file, d.line)):
            show(diagnostic)
        return 1
    for diagnostic in program.warnings:
        show(diagnostic)
    for path, contents in files:
        _write(path, contents)
    if key and time.monotonic() - start > cache.LEAST_SECONDS and not program.depends_on_more:
        cache.store(key, cache.Result(messages, files), program.dependencies, program.absent)
    return 0


def _products(arguments: Arguments, name: str, program: Program) -> list[tuple[str, bytes]]:
    """The files to write: path and contents."""
    files = [(arguments.output or _default_output(name, arguments.format), program.binary)]
    if arguments.listing:
        files.append((arguments.listing, program.listing.encode("utf-8", "surrogateescape")))
    maps: list[tuple[str, frozenset[str] | None]] = [(arguments.map, None)] if arguments.map else []
    if program.map_request is not None:
        maps.append((program.map_request[1] or "-", program.map_request[0]))
    for path, parts in maps:
        files.append((path, program.map_of(parts, files[0][0]).encode("utf-8", "surrogateescape")))
    if arguments.dependencies:
        files.append((arguments.dependencies, _dependencies(arguments, program.dependencies)))
    return files


_EXTENSIONS = {"bin": "", "ith": ".ith", "srec": ".srec"}


def _default_output(name: str, output_format: str) -> str:
    """NASM's rule: the source's name with the format's extension; `nasm.out` where that changes nothing."""
    if name == "<stdin>":
        return "nasm.out"
    stem, extension = os.path.splitext(os.path.basename(name))
    wanted = _EXTENSIONS.get(output_format, ".o")
    return stem + wanted if extension != wanted else "nasm.out"


def _dependencies(arguments: Arguments, dependencies: Sequence[str]) -> bytes:
    """A make rule."""
    names = [name.replace(" ", "\\ ") for name in dict.fromkeys([arguments.source, *dependencies])]
    target = " ".join(arguments.targets) or arguments.output or _default_output(arguments.source, arguments.format)
    text = f"{target} : {' '.join(names)}\n\n"
    if arguments.phony:
        text += "".join(f"{name} :\n\n" for name in names)
    return text.encode("utf-8", "surrogateescape")


def _is_same_file(path: str, other: str) -> bool:
    return os.path.exists(other) and os.path.samefile(path, other)


def _write(path: str, data: bytes) -> None:
    """Writes a file as a whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    if path == "-" or (os.path.exists(path) and not os.path.isfile(path)):
        with open(1 if path == "-" else path, "wb", closefd=path != "-") as file:  # a pipe or a device
            file.write(data)
        return
    try:
        handle, temporary = tempfile.mkstemp(prefix=".emu-asm-", dir=os.path.dirname(path) or ".")
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None  # the name that the user gave
    try:
        with open(handle, "wb") as file:
            file.write(data)
            mask = os.umask(0)
            os.umask(mask)
            os.fchmod(file.fileno(), 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
