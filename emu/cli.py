"""The command `emu`. Exit status: 0 the guest powered off; the debug-exit status, always odd; 2 bad arguments or input;
4 a limit was reached or the guest halted for good; 6 triple fault."""

import argparse
import json
import sys
import time
from pathlib import Path

from emu.errors import BadInput, ConfigError

__all__ = ["main"]


def number(text: str) -> int:
    """An integer in any of Python's notations."""
    return int(text, 0)


def parser() -> argparse.ArgumentParser:
    """The arguments of every subcommand."""
    top = argparse.ArgumentParser(prog="emu", description="A cycle-level x86 PC.", epilog=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="boot a machine", description="Boots a machine from a firmware image.")
    run.add_argument("image", nargs="?", help="a ROM file, or an .asm source; the built-in firmware if left out")
    run.add_argument("-m", "--memory", default="64M", metavar="SIZE", help="RAM, whole MiB (default 64M)")
    run.add_argument("--cpu", default="pentium3", metavar="MODEL", help="processor model (see `emu models`)")
    run.add_argument("--timing", default="static", choices=("unit", "static"), help="clocks of an instruction")
    run.add_argument("--serial", default="stdio", metavar="LINE", help="COM1: stdio, null, file:PATH or tcp:PORT")
    run.add_argument("--debug-exit", type=number, metavar="PORT", help="a write of v ends the run with v << 1 | 1")
    run.add_argument("--max-instructions", type=number, metavar="N")
    run.add_argument("--max-cycles", type=number, metavar="N")
    run.add_argument("--max-seconds", type=float, metavar="S", help="seconds of guest time")
    run.add_argument("--timeout", type=float, metavar="S", help="seconds of host time")
    run.add_argument("--report", metavar="FILE", help="writes a report of the run as JSON")
    commands.add_parser("models", help="list the processor models")
    return top


def image(path: str | None) -> bytes | None:
    """The ROM image that the command line names."""
    if path is None:
        return None
    try:
        if path.endswith(".asm"):
            import asm

            return asm.assemble_file(path).binary
        return Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None


def run(options: argparse.Namespace) -> int:
    """`emu run`."""
    from emu.machine import Machine, exit_status, parse_size

    with Machine(
        parse_size(options.memory), options.cpu, options.timing, image(options.image), options.serial,
        debug_exit=options.debug_exit,
    ) as machine:  # fmt: skip
        started = time.perf_counter()
        stop = machine.run(
            instructions=options.max_instructions,
            cycles=options.max_cycles,
            seconds=options.max_seconds,
            timeout=options.timeout,
        )
        report = machine.report(stop, time.perf_counter() - started)
    if options.report:
        Path(options.report).write_text(json.dumps(report, indent=1) + "\n")
    codes = " ".join(f"{code:02X}" for code in report["post_codes"]["last"][-16:])
    print(
        f"{report['stop']} after {report['instructions']:,} instructions, {report['cycles']:,} cycles, "
        f"{report['guest_seconds']:.6f} s of guest time, {report['host_seconds']:.3f} s of host time "
        f"({report['mips']:.1f} MIPS)\nPOST codes: {codes or 'none'}",
        file=sys.stderr,
    )
    return exit_status(stop)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parser().parse_args(arguments)
    try:
        if options.command == "models":
            from emu import models

            for name in models.names():
                print(name)
            return 0
        return run(options)
    except (BadInput, ConfigError, ValueError) as error:
        print(f"emu: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if type(error).__name__ != "AsmError":
            raise
        print(error, file=sys.stderr)
        return 2
