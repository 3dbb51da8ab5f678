"""`emu run`: boots a machine, shows what came of it, and writes the report."""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from emu.errors import ConfigError
from emu.host.file import FileBackend
from emu.host.output_file import OutputFile, TextFile
from emu.host.stdio import StdioBackend, StdoutBackend
from emu.host.terminal import Progress, Style
from emu.machine import Machine, builtin_firmware, exit_status, parse_size
from emu.stop import Stop, StopReason

__all__ = ["run"]

INTERRUPTED = 128  # plus the signal's number, as shells have it
FAILURES = ("FE", "FF")  # POST codes of the built-in firmware that say that something went wrong


class Interrupted(Exception):
    """SIGINT or SIGTERM came."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(options: argparse.Namespace) -> int:
    """Boots the machine that the options describe; returns the exit status."""
    if options.cpus != 1:
        raise ConfigError(f"--cpus {options.cpus}: this version has machines of one processor")
    if options.kernel is None and (options.append or options.initrd):
        raise ConfigError("--append and --initrd are for a kernel: --kernel FILE is missing")
    check_files(options)
    with contextlib.ExitStack() as open_files:
        # Whatever is to be written is opened before anything runs.
        report_file = open_files.enter_context(OutputFile(options.report)) if options.report is not None else None
        machine = open_files.enter_context(build(options))
        if options.timeline is not None:
            from emu.debug.timeline import Timeline, timeline_file

            picture = open_files.enter_context(timeline_file(options.timeline))
            machine.vm_log.timeline = Timeline(machine.board.clock.hz, ("VMM",))
        start = open_files.enter_context(starter(machine, options))
        stop, status, seconds = boot(machine, options, start)
        machine.poll()
        report = machine.report(stop, seconds) if stop else machine.report(Stop(StopReason.STOPPED), seconds)
        if stop is None:
            report["stop"] = "interrupted"
        if report_file is not None:
            report_file.write((json.dumps(report, indent=1) + "\n").encode())
            report_file.finish()
        if machine.vm_log.timeline is not None:
            machine.vm_log.finish()
            machine.vm_log.timeline.write(picture, options.timeline)
        ran = machine.vm_log.ran()
    summary(report, options, machine)
    if options.trace_vm is not None and options.trace_vm not in ran and status < INTERRUPTED:
        those = f"those that ran are {', '.join(ran)}" if ran else "none ran at all"
        raise ConfigError(f"--trace-vm {options.trace_vm}: no VM of that name ran; {those}")
    return status


def check_files(options: argparse.Namespace) -> None:
    """Refuses names that are empty, and a file that two options name, one of which would write over it.

    Raises:
        ConfigError: which.
    """
    lines = {f"--{name}": getattr(options, name) or "" for name in ("serial", "modem")}
    written = [
        *((name, line.partition(":")[2]) for name, line in lines.items() if line.startswith("file:")),
        ("--debugcon", debugcon(options.debugcon)[1] or None), ("--nvram", options.nvram), ("--report", options.report),
        ("--timeline", options.timeline), ("--trace", options.trace),
    ]  # fmt: skip
    read = [
        ("the image", options.image), ("--kernel", options.kernel),
        *(("--initrd", text.split(" ")[0]) for text in (options.initrd.split(",") if options.initrd else ())),
        *(("--disk", text.partition(",")[0]) for text in options.disk),
    ]  # fmt: skip
    seen: dict[str, str] = {}
    for name, path in [*read, *written]:
        if path == "":
            raise ConfigError(f"{name}: the name of a file is empty")
        if path in (None, "-") or (os.path.exists(path) and not os.path.isfile(path)):
            continue
        place = os.path.realpath(path)
        if place in seen and (name, path) in written:
            raise ConfigError(f"{name} would write over {path}, which is {seen[place]}'s file")
        seen[place] = name


def build(options: argparse.Namespace) -> Machine:
    """The machine that the options describe."""
    use_terminal(options)
    port, path = debugcon(options.debugcon)
    with contextlib.ExitStack() as undo:
        disks = []
        if options.disk:
            from emu.host.disk import open_disk

            disks = [undo.enter_context(open_disk(text)) for text in options.disk]
        machine = Machine(
            parse_size(options.memory),
            options.cpu,
            options.timing,
            options.image,
            options.serial,
            port,
            options.debug_exit,
            kernel=options.kernel,
            append=options.append,
            initrd=options.initrd.split(",") if options.initrd else (),
            modem=options.modem,
            nvram=options.nvram,
            disks=disks,
        )
        undo.enter_context(machine)
        if machine.debugcon is not None:
            machine.debugcon.backend = StdoutBackend() if path == "-" else FileBackend(path)
        if options.display == "terminal":
            from emu.host.display import TerminalDisplay

            machine.display = TerminalDisplay(machine.screen, machine.keyboard, StdioBackend())
        if options.pace == "on" or (options.pace == "auto" and interactive(options)):
            from emu.host.pace import Pacer

            machine.pacer = Pacer(machine.cpu, machine.board.clock.hz)
        undo.pop_all()
    return machine


def interactive(options: argparse.Namespace) -> bool:
    """Whether what the guest reads comes from somebody who lives in the host's time: at a terminal, or through TCP."""
    lines = (options.serial, options.modem)
    has_user = options.display == "terminal" or "stdio" in lines
    return (has_user and sys.stdin is not None and sys.stdin.isatty()) or any(line.startswith("tcp:") for line in lines)


def is_builtin(options: argparse.Namespace) -> bool:
    """Whether the built-in firmware is what boots."""
    return options.image is None and options.kernel is None


def use_terminal(options: argparse.Namespace) -> None:
    """Settles who has the terminal: the screen, or COM1 unless another line was asked for.

    Raises:
        ConfigError: two want it, or the screen is wanted where no terminal is.
    """
    if options.serial is None:
        options.serial = "null" if options.display == "terminal" else "stdio"
        if options.modem == "stdio":
            options.serial = "null"
    users = [f"--{name} {getattr(options, name)}" for name in ("display", "serial", "modem")
             if getattr(options, name) in ("terminal", "stdio")]  # fmt: skip
    if options.debugcon is not None and options.debugcon.endswith(":-") and options.display == "terminal":
        users.append("--debugcon -")
    if len(users) > 1:
        raise ConfigError(f"{' and '.join(users)}: only one of them can have the terminal")
    if options.display == "terminal" and not (sys.stdout is not None and sys.stdout.isatty()):
        raise ConfigError("--display terminal: standard output is no terminal")


def debugcon(text: str | None) -> tuple[int | None, str]:
    """The port and the file that `--debugcon PORT:FILE` names."""
    if text is None:
        return None, ""
    port, _, path = text.partition(":")
    try:
        number = int(port, 0)
    except ValueError:
        number = -1
    if not (0 <= number <= 0xFFFF and path):
        raise ConfigError(f"--debugcon {text}: not PORT:FILE, such as 0xe9:debug.txt, or 0xe9:- for standard output")
    return number, path


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """SIGINT and SIGTERM end the run between two slices, so that the report is written and the terminal restored."""

    def raise_interrupted(number: int, _: object) -> None:
        raise Interrupted(number)

    try:
        before = {number: signal.signal(number, raise_interrupted) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are someone else's
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def starter(machine: Machine, options: argparse.Namespace) -> Iterator[Callable[..., Stop]]:
    """What runs the machine, called as `Machine.run` is: traced, or as a debugger says."""
    with contextlib.ExitStack() as inside:
        for name in ("trace_range", "trace_vm"):
            if getattr(options, name) is not None and options.trace is None:
                raise ConfigError(f"--{name.replace('_', '-')}: only with --trace")
        if options.trace is not None:
            from emu.debug.trace import Trace

            where = trace_range(options.trace_range)
            file = sys.stdout if options.trace == "-" else inside.enter_context(TextFile(options.trace))
            log, vm = machine.vm_log, options.trace_vm
            wanted = None if vm is None else lambda: log.running() == vm
            inside.enter_context(Trace(machine.cpu, file, where, machine.symbols, wanted, machine.source_lines))
        if options.gdb is None:
            yield machine.run
            return
        from emu.debug.gdb import GdbServer

        server = GdbServer(machine, options.gdb, exit_status, machine.symbols)
        inside.callback(server.close)
        print(f"emu: waiting for gdb: target remote 127.0.0.1:{server.port}", file=sys.stderr, flush=True)
        yield server.serve


def trace_range(text: str | None) -> range | None:
    """The addresses that `--trace-range FIRST-LAST` names."""
    if text is None:
        return None
    try:
        first, last = (int(part, 0) for part in text.split("-"))
    except ValueError:
        first, last = 1, 0
    if not 0 <= first <= last < 1 << 64:
        raise ConfigError(f"--trace-range {text}: not FIRST-LAST, such as 0xf0000-0xfffff")
    return range(first, last + 1)


def boot(machine: Machine, options: argparse.Namespace, start: Callable[..., Stop]) -> tuple[Stop | None, int, float]:
    """Runs it: the Stop (None where a signal came), the exit status, and the seconds that it took."""
    progress = Progress(
        wanted="stdio" not in (options.serial, options.modem) and options.debugcon is None and machine.display is None
    )
    started = time.perf_counter()

    def show() -> None:
        if progress.is_due:
            seconds = time.perf_counter() - started
            progress.show(
                f"{seconds:.0f} s: {machine.instructions:,} instructions, "
                f"{machine.cycles / machine.board.clock.hz:.3f} s of guest time, "
                f"{machine.instructions / seconds / 1e6:.0f} MIPS"
            )

    if progress.on:
        machine.cpu.on_slice(show)
    stop, status = None, 0
    try:
        with signals():
            stop = start(
                instructions=options.max_instructions,
                cycles=options.max_cycles,
                seconds=options.max_seconds,
                timeout=options.timeout,
            )
            status = exit_status(stop)
    except Interrupted as interrupted:
        status = INTERRUPTED + interrupted.number
    finally:
        progress.clear()
    return stop, status, time.perf_counter() - started


def summary(report: dict[str, Any], options: argparse.Namespace, machine: Machine) -> None:
    """What came of the run, on standard error."""
    if options.quiet or sys.stderr is None:
        return
    style = Style(sys.stderr)
    lines = steps(machine, style) if is_builtin(options) else codes(report, style)
    colour = style.good if report["stop"] in ("powered_off", "debug_exit") else style.warning
    if report["stop"] == "triple_fault":
        colour = style.bad
    status = f" with status {report['status']}" if report["stop"] == "debug_exit" else ""
    lines += virtual_machines(report, machine, style)
    if report["vmx_failure"]:
        lines.append(f"{style.warning('VM entry failed')}, the last time by {machine.vmx_failure}")
    lines.append(
        f"{colour(report['stop'].replace('_', ' ') + status)} after "
        f"{report['instructions']:,} instructions, {report['cycles']:,} cycles, "
        f"{report['guest_seconds']:.6f} s of guest time, {report['host_seconds']:.3f} s of host time "
        f"({report['mips']:.1f} MIPS)"
    )
    last = machine.serial.output[-1:]
    if options.serial == "stdio" and last not in (b"", b"\n") and sys.stderr.isatty():
        lines.insert(0, "")  # the guest has not ended its last line
    print("\n".join(lines), file=sys.stderr)


MOST_SHOWN = 20  # switches in the summary


def virtual_machines(report: dict[str, Any], machine: Machine, style: Style) -> list[str]:
    """The VM switches with their causes, the VM exits by reason, and what a switch cost; nothing without VMs."""
    if not report["vm_exits"] and not report["vm_switches"]:
        return []
    hz = machine.board.clock.hz
    lines = ["", style.strong(f"{'cycle':>14}  {'ms':>11}  VM switch")]
    count = machine.vm_log.count
    for one in report["vm_switches"][-MOST_SHOWN:]:
        path = f"{one['from']} -> {one['to']}"
        why = f"{one['reason']}, qualification {one['qualification']:#x}, RIP {one['rip']:#x}"
        lines.append(f"{one['cycle']:14,}  {one['seconds'] * 1000:11.3f}  {path:28}{style.faint(why)}")
    if count > MOST_SHOWN:
        lines.append(style.faint(f"{'':14}  {'':11}  the last {MOST_SHOWN} of {count:,}"))
    if report["vm_exits"]:  # none where a VMM switches by software
        lines += ["", style.strong(f"{'VM exit':28}{'count':>10}{'cycles':>16}{'each':>13}")]
    by_cycles = sorted(report["vm_exits"].items(), key=lambda item: -int(item[1]["cycles"]))
    for name, exits in by_cycles:
        each = exits["cycles"] / exits["count"]
        lines.append(f"{name:28}{exits['count']:10,}{exits['cycles']:16,}{each:13,.0f}")
    costs = machine.vm_log.costs
    if costs:
        mean = sum(costs) / len(costs)
        lines += [
            f"A switch took {min(costs):,} to {max(costs):,} cycles from the VM exit to the entry of the other VM, "
            f"{mean:,.0f} on average, {mean / hz * 1e6:.1f} µs.", "",
        ]  # fmt: skip
    return lines


def codes(report: dict[str, Any], style: Style) -> list[str]:
    """The last POST codes of some firmware."""
    last = " ".join(f"{code:02X}" for code in report["post_codes"]["last"][-16:])
    count = report["post_codes"]["count"]
    more = style.faint(f" (the last of {count:,})") if count > 16 else ""
    return [f"{style.strong('POST codes:')} {last}{more}"] if count else []


def steps(machine: Machine, style: Style) -> list[str]:
    """The steps of the built-in firmware: when each began, its POST code, and what it is."""
    meanings = json.loads(builtin_firmware().with_name("post_codes.json").read_text(encoding="utf-8"))
    lines = [style.strong("      ms  POST  step")]
    for cycle, code in machine.board.post.codes:
        name = f"{code:02X}"
        paint = style.bad if name in FAILURES else style.name
        milliseconds = f"{cycle / machine.board.clock.hz * 1000:8.3f}"
        lines.append(f"{style.faint(milliseconds)}  {paint(name)}    {meanings.get(name, 'unknown')}")
    return lines
