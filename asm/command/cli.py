"""The command `emu-asm`: takes NASM's options, so that it can stand in for `nasm`."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from asm.command.arguments import DEBUG_FORMATS, ArgumentError, Arguments, parse_arguments
from asm.command.dependencies import quoted, rule
from asm.output.formats import FORMATS

if TYPE_CHECKING:
    from asm.program import Program

VERSION = "2.16.01"  # of the NASM whose behaviour this is; build systems ask for it
USAGE = """\
usage: emu-asm [-f FORMAT] [-o OUT] [-l LISTING] [-I DIR] [-D NAME[=VALUE]] [option ...] SOURCE

Assembles SOURCE, written in NASM's syntax. `-` reads standard input.

  -f FORMAT        bin (a flat binary: the default), ith (Intel HEX), srec (S-records), elf32 or elf, elf64 (objects)
  -o FILE          output file; without it the source's name, with the format's extension
  -g [-F dwarf]    line information for a debugger in an elf32 or elf64 file; -y lists what there is
  -l FILE          listing of addresses, bytes and source lines; also of a source with errors
  -L LETTERS       more in it: d decimal counts, e lines as the preprocessor leaves them, f those of .nolist macros,
                   m macro calls, s definitions of single-line macros; -L+ all; b, p and w are taken
  -I DIR, -i DIR   look there for %include and incbin
  -D NAME[=VALUE]  define a single-line macro; also -d
  -U NAME          forget a single-line macro; also -u
  -P FILE          include FILE before the source; also -p, --include FILE
  --before TEXT    assemble the line TEXT before the source; --pragma TEXT is --before "%pragma TEXT"
  -E               preprocess only: print the lines that would be assembled; also -e
  --no-line        %line says nothing
  -M, -MG          print a rule for make that names the files that the source needs, and assemble nothing
  -MD [FILE]       write the rule as well; -MF FILE names the file, -MT or -MQ TARGET the target, -MP adds a rule for
                   each file, -MW is for Watcom's make
  -O0 | -O1 | -Ox  choose forms as written, short immediates, or short jumps too (the default)
  --prefix TEXT    stands before the name of each extern, common and global symbol of an object; also --gprefix;
                   --postfix, --gpostfix behind it; --lprefix, --lpostfix for other symbols
  --limit-rep N    the largest count of %rep; NASM's other limits are taken and change nothing
  -w+NAME, -w-NAME turn a warning on or off, -w+error=NAME makes it an error; also -Wname, -Wno-name
  -s               messages to standard output
  -X gnu|vc        form of messages
  -Z FILE          messages to FILE
  -@ FILE          more of the command line is in FILE, an option a line; the variable NASMENV holds some too
  --no-cache       assemble even what has not changed since the last time
  --map FILE       sections and symbols with their addresses
  -v               version
  -h               this text

Exit status: 0 assembled, 1 the source has errors, 2 wrong arguments or input.

Example: emu-asm -f bin -l boot.lst -o boot.bin boot.asm
"""


STDOUT, STDERR = "-", "-2"  # what stands for a file's path
OTHER_FORMATS = frozenset(
    ("elfx32", "aout", "aoutb", "as86", "coff", "dbg", "ieee", "obj", "win", "win32", "win64", "macho", "macho32",
     "macho64")
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: the arguments; those of the process without it.

    Returns:
        The exit status: 0 assembled, 1 errors in the source, 2 wrong arguments or input, 130 Ctrl-C.
    """
    try:
        return _main(sys.argv[1:] if argv is None else argv)
    except ArgumentError as error:
        print(f"emu-asm: {error}", file=sys.stderr)
    except BrokenPipeError:
        sys.stderr.close()
    except KeyboardInterrupt:
        return 130  # as shells have it
    except OSError as error:
        name = f"{error.filename or 'standard output'}: "
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
    if arguments.lists_debug_formats:
        for output_format, kinds in DEBUG_FORMATS.items():
            if kinds != ("null",):
                print(f"  {output_format}: {' '.join(kinds)}")
        return 0
    if arguments.format not in FORMATS:
        what = "is not made in this version" if arguments.format in OTHER_FORMATS else "is unknown"
        raise ArgumentError(f"output format `{arguments.format}' {what}; there are {', '.join(FORMATS)}")
    for note in arguments.notes:
        print(f"emu-asm: warning: {note} [-w+other]", file=sys.stderr)
    for written in (arguments.output, arguments.listing, arguments.map, arguments.messages, arguments.dependency_file):
        if written not in ("", "-") and os.path.isfile(written) and _is_same_file(written, arguments.source):
            raise ArgumentError(f"will not overwrite the source, `{written}'")
    if arguments.messages:
        with open(arguments.messages, "w", encoding="utf-8", errors="surrogateescape") as messages:
            return _assemble(arguments, lambda text: print(text, file=messages), False)
    stream = sys.stdout if arguments.to_stdout else sys.stderr
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # a source's bytes come out as they are
    from asm.command import colour

    return _assemble(arguments, lambda text: print(text, file=stream), colour.wanted(stream))


def _assemble(arguments: Arguments, say: Callable[[str], None], colourful: bool) -> int:
    import gc

    gc.disable()  # a short-lived process: collecting garbage costs more than it frees
    from asm.command import cache
    from asm.command.progress import Progress
    from asm.diagnostics import AsmError, Diagnostic
    from asm.options import Options
    from asm.preprocessor.frames import decode
    from asm.program import run

    messages: list[str] = []

    def show(diagnostic: Diagnostic) -> None:
        text = str(diagnostic)
        if arguments.style == "vc":
            text = text.replace(f"{diagnostic.file}:{diagnostic.line}:{diagnostic.column}:",
                                f"{diagnostic.file}({diagnostic.line}) :", 1)  # fmt: skip
        messages.append(text)
        if colourful:
            from asm.command import colour

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
        listing=arguments.listing_flags if arguments.listing else False,
        warnings=arguments.warnings,
        preprocess_only=arguments.preprocess_only or arguments.dependencies_only,
        line_directives=arguments.line_directives,
        before=arguments.before,
        mangle=arguments.mangle,
        limits=arguments.limits,
    )
    if arguments.preprocess_only or arguments.dependencies_only:
        from asm.output.preprocessed import preprocess

        lines, assembler, dependencies = preprocess(name, text, options)
        if arguments.dependencies_only:
            made = _dependencies(arguments, dependencies)
            if arguments.dependency_file not in ("", "-"):
                _write(arguments.dependency_file, made)
            else:
                sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
                sys.stdout.write(made.decode("utf-8", "surrogateescape"))
            return 0
        for diagnostic in assembler.warnings + assembler.errors:
            show(diagnostic)
        if arguments.writes_dependencies and not assembler.errors:
            _write(_dependency_file(arguments), _dependencies(arguments, dependencies))
        if arguments.output:
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
    start, since = time.monotonic(), time.time_ns()
    progress = Progress(sys.stderr)
    try:
        with progress:
            options.watch = progress.watch
            program = run(name, text, options)
            files = _products(arguments, name, program)
    except AsmError as error:
        for diagnostic in sorted(error.warnings + error.errors, key=lambda d: (d.file != name, d.file, d.line)):
            show(diagnostic)
        if arguments.listing and progress.assembler is not None:  # it says what is wrong too
            from asm.output.listing import listing

            _write(arguments.listing, listing(progress.assembler).encode("utf-8", "surrogateescape"))
        return 1
    for diagnostic in program.warnings:
        show(diagnostic)
    for path, contents in files:
        _write(path, contents)
    if key and time.monotonic() - start > cache.LEAST_SECONDS and not program.depends_on_more:
        cache.store(key, cache.Result(messages, files), program.dependencies, program.absent, since)
    return 0


def _products(arguments: Arguments, name: str, program: Program) -> list[tuple[str, bytes]]:
    """The files to write: path and contents."""
    files = [(arguments.output or _default_output(name, arguments.format), program.binary)]
    if arguments.listing:
        files.append((arguments.listing, program.listing.encode("utf-8", "surrogateescape")))
    maps: list[tuple[str, frozenset[str] | None]] = [(arguments.map, None)] if arguments.map else []
    if program.map_request is not None:
        maps.append((_map_file(program.map_request[1]), program.map_request[0]))
    for path, parts in maps:
        files.append((path, program.map_of(parts, files[0][0]).encode("utf-8", "surrogateescape")))
    if arguments.writes_dependencies:
        files.append((_dependency_file(arguments), _dependencies(arguments, program.dependencies)))
    return files


def _map_file(name: str) -> str:
    """The path that a source's `map` means, which knows `stdout` and `stderr`."""
    return {"": STDOUT, "stdout": STDOUT, "stderr": STDERR}.get(name.lower(), name)


_EXTENSIONS = {"bin": "", "ith": ".ith", "srec": ".srec"}


def _default_output(name: str, output_format: str) -> str:
    """NASM's rule: the source's name with the format's extension; `nasm.out` where that changes nothing."""
    if name == "<stdin>":
        return "nasm.out"
    stem, extension = os.path.splitext(os.path.basename(name))
    wanted = _EXTENSIONS.get(output_format, ".o")
    return stem + wanted if extension != wanted else "nasm.out"


def _dependencies(arguments: Arguments, dependencies: Sequence[str]) -> bytes:
    """The rule for make."""
    output = arguments.output or _default_output(arguments.source, arguments.format)
    target = arguments.target or quoted(output, arguments.watcom)
    text = rule(target, [arguments.source, *dependencies], arguments.phony, arguments.watcom)
    return text.encode("utf-8", "surrogateescape")


def _dependency_file(arguments: Arguments) -> str:
    """Where the rule goes if the output is made too."""
    if arguments.dependency_file:
        return arguments.dependency_file
    return f"{arguments.output}.d" if arguments.output else f"{os.path.splitext(arguments.source)[0]}.d"


def _is_same_file(path: str, other: str) -> bool:
    return os.path.exists(other) and os.path.samefile(path, other)


def _write(path: str, data: bytes) -> None:
    """Writes a file as a whole or not at all.

    Raises:
        OSError: it cannot be written; its filename is the name that the user gave.
    """
    try:
        _put(path, data)
    except OSError as error:
        name = {STDOUT: "standard output", STDERR: "standard error"}.get(path, path)
        raise OSError(error.errno, error.strerror, name) from None


def _put(path: str, data: bytes) -> None:
    descriptor = {STDOUT: 1, STDERR: 2}.get(path)
    if descriptor is not None or os.path.islink(path) or (os.path.exists(path) and not os.path.isfile(path)):
        with open(path if descriptor is None else descriptor, "wb", closefd=descriptor is None) as file:
            file.write(data)  # through a link, or to a pipe or a device
        return
    handle, temporary = tempfile.mkstemp(prefix=".emu-asm-", dir=os.path.dirname(path) or ".")
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
