"""The command `emu`: its arguments, and what an error looks like."""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from typing import NoReturn

from emu.errors import EmuError
from emu.models import DEFAULT

__all__ = ["main"]

BAD_INPUT = 2
OWN_ERROR = 70  # EX_SOFTWARE of sysexits.h
# A full or failing disk, or no descriptor left.
HOST_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE}

TOP_TEXT = """\
A cycle-level x86 PC: an assembler's output goes in, a run that repeats bit for bit comes out.

examples:
  emu run                                  the built-in firmware: two virtual machines, one trap and back
  emu run boot.asm --serial stdio          assembles a ROM and boots it, COM1 on this terminal
  emu run --kernel test.elf --append "a b" boots a multiboot kernel
  emu models pentium3                      what a processor model is made of
  emu dis --bits 16 boot.bin               disassembles a file
  emu bench switch --output switch.svg     what a VM switch costs, by processor model and exit reason
"""
STATUS_TEXT = """\
exit status:
  0      the guest powered off
  odd    (v << 1) | 1, where the guest wrote v to the --debug-exit port
  2      bad arguments or input, with one line that says what is wrong
  4      a limit was reached, or the guest halted for good
  6      triple fault
  70     an error of emu itself
  128+n  signal n came (Ctrl-C: 130)
"""
RUN_TEXT = f"""\
Boots a machine and runs it until it powers off or a limit is reached.

examples:
  emu run --max-seconds 60                     at most a minute of guest time
  emu run bios.rom -m 128M --cpu i386          a ROM of 4 KiB to 16 MiB, which ends at 4 GiB
  emu run boot.asm --report report.json        assembles first; the report is JSON
  emu run --kernel k.elf --initrd "a.txt x,b"  two modules, the first with the text `x` for the kernel
  emu run test.rom --serial null --debugcon 0xe9:- --debug-exit 0xf4 --timeout 10
                                               a test image as emulators' test suites have them

{STATUS_TEXT}"""
DIS_TEXT = """\
Disassembles a file of machine code to text that NASM takes; of an ELF file its sections of code, with its symbols.

examples:
  emu dis --bits 16 --origin 0x7c00 boot.bin
  emu-asm --map boot.map boot.asm && emu dis --bits 16 --symbols boot.map boot
  emu dis kernel.elf
"""
DUMP_TEXT = """\
Fetches the dump of a guest that the Service OS has written to the Host Protected Area of a disk: an ELF core file.

examples:
  emu dump --list disk.img                 says what there is
  emu dump disk.img -o guest.core && gdb -c guest.core
"""
MODELS_TEXT = """\
Lists the processor models. With names: where each of their figures was read, and which are assumed.
"""
BENCH_TEXT = """\
Measures inside the machine, by its own time-stamp counter, so the figures are the model's and the same each time.

examples:
  emu bench switch                         every model: VM exits by reason, and the switch in software
  emu bench switch --cpu westmere pentium3 --output switch.svg
  emu bench detect                         from each fault to the Service VM, by what detects it; --output FILE.json
"""
DISK_TEXT = """\
Makes a raw disk image for the built-in firmware: a system partition (FAT16) with files, and a Host Protected Area,
which POST hides, for the Service OS and for dumps of guests.

examples:
  emu disk disk.img                        64 MiB, an empty partition, room for dumps
  emu disk disk.img --boot partition --boot hpa --file NOTES.TXT=notes
  emu disk disk.img --list                 what its Host Protected Area holds
  emu run --disk disk.img
"""
SCENARIOS_TEXT = """\
Runs the built-in firmware through scenarios: each boots a machine with a policy and guests, does something to it, and
looks at what came of it. The same happens at the same cycle each time.

examples:
  emu scenarios --list
  emu scenarios                            all of them
  emu scenarios trap-memory --console
  emu scenarios two-guests --keep seen     seen/two-guests/ has console.txt, timeline.json and timeline.svg

exit status:
  0      each ended as it should
  1      one did not; the lines below its name say what was not as it should be
  2      there is none of this name
"""


@cache
def columns() -> int:
    """How wide help may be."""
    try:
        return (int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size().columns or 80) - 2
    except (OSError, ValueError):
        return 78


class Help(argparse.RawDescriptionHelpFormatter):
    """Texts as they are. argparse makes one for every argument, and would take its width from shutil, a slow import."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=columns())


class Parser(argparse.ArgumentParser):
    """One whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"emu: {message} (try `{self.prog} --help`)\n")


class Once(argparse.Action):
    """An option that names where something goes or comes from: a second one would take the first one's place unseen."""

    def __call__(
        self, parser: argparse.ArgumentParser, options: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        given = options.__dict__.setdefault("given", set())
        if self.dest in given:
            parser.error(f"{option} is given twice")
        given.add(self.dest)
        setattr(options, self.dest, values)


class Version(argparse.Action):
    """Prints the version; what knows it is imported for nothing else."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"emu {version('emu')}")
        parser.exit()


def natural(most: int, what: str) -> Callable[[str], int]:
    """The type of an argument: a whole number from 0 to `most` in any of Python's notations."""

    def parse(text: str) -> int:
        try:
            value = int(text, 0)
        except ValueError:
            value = -1
        if not 0 <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no {what}: 0 to {most:#x}")
        return value

    return parse


count = natural((1 << 63) - 1, "count")
port = natural(0xFFFF, "I/O port")
tcp_port = natural(0xFFFF, "TCP port")
address = natural((1 << 64) - 1, "address")


def seconds(text: str) -> float:
    """The type of an argument: seconds."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1 << 30:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds: 0 to 2**30")
    return value


def parser() -> argparse.ArgumentParser:
    """The arguments of every subcommand."""
    top = Parser(prog="emu", description=TOP_TEXT, epilog=STATUS_TEXT, formatter_class=Help, allow_abbrev=False)
    top.add_argument("--version", action=Version, nargs=0, help="print the version and end")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)

    def command(name: str, text: str, module: str, function: str, short: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=short, description=text, formatter_class=Help, allow_abbrev=False)
        made.set_defaults(home=(f"emu.commands.{module}", function))
        return made

    add_run(command("run", RUN_TEXT, "run", "run", "boot a machine"))
    models = command("models", MODELS_TEXT, "models", "show", "list the processor models and their sources")
    models.add_argument("name", nargs="*", metavar="NAME", help="explain these")
    dis = command("dis", DIS_TEXT, "dis", "show", "disassemble a file")
    dis.add_argument("file", metavar="FILE", help="machine code; `-` is standard input")
    dis.add_argument("--bits", type=int, choices=(16, 32, 64), help="code size (default 32, or what an ELF file says)")
    dis.add_argument(
        "--origin", type=address, metavar="ADDRESS", help="address of the first byte (default 0, or what a map says)"
    )
    dis.add_argument("--skip", type=count, default=0, metavar="N", help="begin at byte N of the file")
    dis.add_argument("--length", type=count, metavar="N", help="only so many bytes")
    dis.add_argument(
        "--symbols", metavar="FILE", help="the source (.asm), a map of emu-asm --map, what nm prints, or an ELF file"
    )
    dump = command("dump", DUMP_TEXT, "dump", "dump", "fetch a guest's dump from a disk image")
    dump.add_argument("disk", metavar="DISK", help="a disk image")
    dump.add_argument("-o", "--output", metavar="FILE", help="the core file (default: the image's name with .core)")
    dump.add_argument("--list", action="store_true", help="only say which dump there is")
    bench = command("bench", BENCH_TEXT, "bench", "switch", "measure what a VM switch costs")
    bench.add_argument(
        "what", choices=("switch", "detect"), help="switch: a switch between virtual machines, in cycles; "
        "detect: how long after a fault the Service VM runs",
    )  # fmt: skip
    bench.add_argument(
        "--cpu", nargs="+", action="extend", metavar="MODEL", help="only these processor models (see `emu models`)"
    )
    bench.add_argument("--timing", default="static", metavar="HOW", help="as of `emu run` (default static)")
    bench.add_argument("--output", metavar="FILE", help="the figures as .json, or a picture of them as .svg or .png")
    add_disk(command("disk", DISK_TEXT, "disk", "disk", "make a disk image for the built-in firmware"))
    scenarios = command("scenarios", SCENARIOS_TEXT, "scenarios", "scenarios", "run the built-in firmware's scenarios")
    scenarios.add_argument("name", nargs="*", metavar="NAME", help="only these")
    scenarios.add_argument("--list", action="store_true", help="say what each shows, and run none")
    scenarios.add_argument("--console", action="store_true", help="show the console of each")
    scenarios.add_argument(
        "--keep", metavar="FOLDER", help="write console, timeline and disk of each to a folder of its name in this one"
    )
    return top


def add_disk(disk: argparse.ArgumentParser) -> None:
    """The arguments of `emu disk`."""
    disk.add_argument("image", metavar="IMAGE", help="the disk image")
    disk.add_argument("--list", action="store_true", help="say what is in the image, and make none")
    disk.add_argument("--force", action="store_true", help="replace an image that is there")
    disk.add_argument("--size", default="64M", metavar="SIZE", help="of the disk (default 64M)")
    disk.add_argument("--partition", default="8M", metavar="SIZE", help="of the system partition (default 8M, 0: none)")
    disk.add_argument(
        "--file", action="append", default=[], metavar="[NAME=]PATH",
        help="a file for the partition; NAME is 8.3, DIR/NAME lies in a directory",
    )  # fmt: skip
    disk.add_argument(
        "--boot", action="append", choices=("partition", "hpa"), default=[],
        help="put the Service OS into the partition as SERVICE.BIN, into the Host Protected Area, or into both",
    )  # fmt: skip
    disk.add_argument("--service", metavar="FILE", help="the Service OS (default: the built-in one)")
    disk.add_argument("--dump", default="16M", metavar="SIZE", help="room for dumps (default 16M, 0: none)")


def add_run(run: argparse.ArgumentParser) -> None:
    """The arguments of `emu run`."""
    run.add_argument("image", nargs="?", metavar="IMAGE", help="a ROM, or an .asm source; else the built-in firmware")
    machine = run.add_argument_group("the machine")
    machine.add_argument("-m", "--memory", default="64M", metavar="SIZE", help="RAM in whole MiB (default 64M)")
    machine.add_argument(
        "--cpu", default=DEFAULT, metavar="MODEL", help=f"processor model (see `emu models`; default {DEFAULT})"
    )
    machine.add_argument("--cpus", type=count, default=1, metavar="N", help="processors: 1")
    machine.add_argument(
        "--timing", default="static", metavar="HOW",
        help="clocks of an instruction: static, the model's (default), or unit, one each",
    )  # fmt: skip
    machine.add_argument(
        "--kernel", action=Once, metavar="FILE",
        help="a multiboot 1 kernel, ELF32 or with a header of addresses",
    )  # fmt: skip
    machine.add_argument("--append", action=Once, default="", metavar="TEXT", help="the kernel's command line")
    machine.add_argument(
        "--disk", action="append", default=[], metavar="FILE[,readonly][,snapshot]",
        help="an ATA disk, a raw image; up to four; snapshot: writes stay in memory",
    )  # fmt: skip
    machine.add_argument(
        "--initrd", action=Once, metavar="FILE[,FILE]",
        help="the kernel's modules; FILE can be followed by a text",
    )  # fmt: skip
    lines = run.add_argument_group("its lines to the host")
    lines.add_argument(
        "--serial", action=Once, metavar="LINE",
        help="COM1: stdio, null, file:PATH or tcp:PORT (default stdio; null with --display terminal)",
    )  # fmt: skip
    lines.add_argument(
        "--modem", action=Once, default="null", metavar="LINE",
        help="COM2, the management modem, as --serial",
    )  # fmt: skip
    lines.add_argument(
        "--display", choices=("terminal", "none"), default="none",
        help="terminal: shows the text screen here and types on the keyboard what is typed here (default none)",
    )  # fmt: skip
    lines.add_argument(
        "--pace", choices=("auto", "on", "off"), default="auto",
        help="waiting in HLT lasts its time on the host; auto: where a terminal or TCP is the guest's input (default)",
    )  # fmt: skip
    lines.add_argument(
        "--nvram", action=Once, metavar="FILE",
        help="keeps the CMOS RAM from run to run; made where it is missing",
    )  # fmt: skip
    lines.add_argument(
        "--debugcon", action=Once, metavar="PORT:FILE",
        help="what is written to this I/O port; FILE `-` is stdout",
    )  # fmt: skip
    lines.add_argument("--debug-exit", type=port, metavar="PORT", help="a write of v ends the run with v << 1 | 1")
    limits = run.add_argument_group("limits")
    limits.add_argument("--max-instructions", type=count, metavar="N")
    limits.add_argument("--max-cycles", type=count, metavar="N")
    limits.add_argument("--max-seconds", type=seconds, metavar="S", help="seconds of guest time")
    limits.add_argument("--timeout", type=seconds, metavar="S", help="seconds of host time")
    output = run.add_argument_group("output")
    output.add_argument(
        "--report", action=Once, metavar="FILE",
        help="a report of the run as JSON; `-` is standard output",
    )  # fmt: skip
    output.add_argument(
        "--timeline", action=Once, metavar="FILE",
        help="VM switches and exits over time: .json for Perfetto, .svg or .png is a picture",
    )  # fmt: skip
    look = run.add_argument_group("looking inside")
    look.add_argument(
        "--gdb", action=Once, type=tcp_port, metavar="PORT",
        help="wait for `gdb -ex 'target remote :PORT'` and run as it says; 0 takes a free port",
    )  # fmt: skip
    look.add_argument(
        "--trace", action=Once, metavar="FILE",
        help="write every instruction, interrupt and VM exit; `-` is stdout",
    )  # fmt: skip
    look.add_argument("--trace-vm", metavar="NAME", help="only while this VM runs, as the summary calls it, or VMM")
    look.add_argument("--trace-range", metavar="FIRST-LAST", help="only instructions at these linear addresses")
    output.add_argument("-q", "--quiet", action="store_true", help="no summary on standard error")


def one_line(error: Exception) -> str:
    """An error's message as one line, whatever a file's name has in it."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(error))


def drop_output() -> None:
    """Standard output takes nothing any more: what waits for it is not tried again when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status.

    What is wrong with arguments and input comes as an EmuError, which whoever reads them raises. Any other exception is
    a mistake of ours, but for what the host may refuse at any time.
    """
    is_run = False
    try:
        options = parser().parse_args(arguments)
        is_run = options.command == "run"
        module, function = options.home
        from importlib import import_module

        status: int = getattr(import_module(module), function)(options)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except SystemExit as end:  # argparse has said why
        return end.code if isinstance(end.code, int) else BAD_INPUT
    except BrokenPipeError:  # the reader, such as head, had enough: of a list no error, but a run ended before its time
        drop_output()
        return 128 + signal.SIGPIPE if is_run else 0
    except EmuError as error:
        print(f"emu: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except MemoryError as error:
        print(f"emu: the host has not memory enough: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if type(error).__module__ == "asm.diagnostics":  # not imported for this
            print(error, file=sys.stderr)
            return BAD_INPUT
        if isinstance(error, OSError) and error.errno in HOST_REFUSALS:
            print(f"emu: {error.filename or 'standard output'}: {error.strerror}", file=sys.stderr)
            drop_output()
            return BAD_INPUT
        import traceback

        traceback.print_exc()
        print(f"emu: an error of emu itself, please report it: {error!r}", file=sys.stderr)
        return OWN_ERROR
