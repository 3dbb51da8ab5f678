"""What a user holds: a whole PC, its run, its console and its snapshots."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from emu import models
from emu._core import BoardCpu, Device, Exits, Hook, Memory, Vmcs, VmxFailure, load_model
from emu.board import ROM_MOST, Board
from emu.errors import BadInput, ConfigError, EmuError, RunningError
from emu.host.backend import Backend
from emu.host.input_file import read_file
from emu.host.keyboard import Keyboard
from emu.host.modem import ModemSignals
from emu.host.screen import Screen
from emu.host.serial_line import OutputLine, SerialLine, open_backend
from emu.snapshot import Snapshot, plain
from emu.stop import Stop, StopReason
from emu.vm_log import VmLog

if TYPE_CHECKING:
    from emu.debug.source_line import SourceLine
    from emu.host.disk import Disk
    from emu.host.display import TerminalDisplay
    from emu.host.nvram_file import NvramFile
    from emu.host.pace import Pacer
    from emu.multiboot import Kernel

__all__ = ["Console", "Machine", "builtin_firmware", "exit_status", "parse_size"]

SIZE_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
BACKEND_HAS = ("connected", "hang_up", "write", "read", "close")
NVRAM_SIZE = 256  # bytes of CMOS RAM
EXPECT_EVERY = 10_000  # instructions between two looks at what the guest has sent
EXPECT_PIECE = 0.010  # seconds of guest time, likewise, where it sleeps


def builtin_firmware() -> Path:
    """The ROM image that the build assembles from bios/.

    Raises:
        BadInput: this installation has none.
    """
    path = Path(__file__).parent / "firmware" / "firmware.bin"
    if not path.exists():
        raise BadInput(f"{path}: the built-in firmware is missing; build again")
    return path


def parse_size(text: str) -> int:
    """Bytes of a size such as 64M, 512K or 1G; without a unit, bytes.

    Raises:
        ConfigError: it is no size.
    """
    number, unit = (text[:-1], SIZE_UNITS[text[-1].upper()]) if text[-1:].upper() in SIZE_UNITS else (text, 1)
    if not (number.isascii() and number.isdigit() and len(number) < 20):
        raise ConfigError(f"{text!r} is no size: a number with K, M or G")
    return int(number) * unit


def load_rom(firmware: bytes | str | os.PathLike[str] | None) -> tuple[bytes, dict[str, int], dict[int, "SourceLine"]]:
    """The image, the symbols and the source lines of what Machine takes as `firmware`."""
    if firmware is None:
        image = builtin_firmware()
        return image.read_bytes(), json.loads(image.with_name("symbols.json").read_text(encoding="utf-8")), {}
    if not isinstance(firmware, str | os.PathLike):
        return bytes(memoryview(firmware)), {}, {}
    if os.fspath(firmware).endswith(".asm"):
        from emu.debug.symbols import assembled_rom

        rom, known = assembled_rom(firmware)
        return rom, known.symbols, known.lines
    return read_file(firmware, ROM_MOST, "a ROM image"), {}, {}


def nvram_file(path: str | os.PathLike[str]) -> "NvramFile":
    """The file that keeps the CMOS RAM."""
    from emu.host.nvram_file import NvramFile

    return NvramFile(path, NVRAM_SIZE)


def backend_of(line: str | Backend) -> Backend:
    """What Machine takes as `serial`."""
    if isinstance(line, str):
        return open_backend(line)
    if missing := [name for name in BACKEND_HAS if not hasattr(line, name)]:
        raise TypeError(f"{line!r} is no end of a line: neither text, nor an object that has {', '.join(missing)}")
    return line


def free_disks(disks: Iterable["Disk"]) -> list["Disk"]:
    """What Machine takes as `disks`.

    Raises:
        TypeError: one of them is no Disk.
        ConfigError: one of them is closed, or a machine has it.
    """
    if isinstance(disks, list | tuple) and not disks:  # most often: nothing is imported for it
        return []
    from emu.host.disk import Disk

    if not isinstance(disks, Iterable) or isinstance(disks, str | bytes):
        raise TypeError(f"disks={disks!r}: a list of emu.Disk(path) is wanted")
    found = list(disks)
    for place, disk in enumerate(found):
        if not isinstance(disk, Disk):
            raise TypeError(f"disks: {disk!r} is no emu.Disk; emu.Disk(path) opens one")
        if disk.file < 0 or disk.taken or disk in found[:place]:
            raise ConfigError(f"{disk.path}: this disk is {'closed' if disk.file < 0 else 'in a machine'} already")
    return found


class Console(SerialLine):
    """A machine's serial line, which can also run the machine until the guest says something."""

    run: Callable[..., Stop]
    expected = 0  # bytes, from the beginning of all output, that expect() has been through

    def expect(self, wanted: bytes, seconds: float = 5.0, timeout: float | None = None) -> bytes:
        """Runs the machine until the guest has sent `wanted` after what earlier calls have found.

        It stops at the same instruction each time: within 10,000 of the one that sent it, and where the guest sleeps
        then within 10 ms of guest time, or a hundredth of what has passed in this call where that is longer.

        Args:
            wanted: the bytes.
            seconds: of guest time at most.
            timeout: seconds of host time at most.

        Returns:
            What was sent since the last call, up to the end of `wanted`.

        Raises:
            EmuError: the run ended without it; the message has the last of what came instead.
            ValueError: `wanted` is empty.
        """
        if not wanted:
            raise ValueError("nothing to expect: an empty string")

        def found(_: object) -> bool:
            OutputLine.poll(self)
            return self.unread().find(wanted) >= 0

        started, passed = time.monotonic(), 0.0
        while True:
            piece = min(seconds - passed, max(EXPECT_PIECE, passed / 100))
            left = None if timeout is None else max(0.0, timeout - (time.monotonic() - started))
            stop = self.run(until=found, every=EXPECT_EVERY, seconds=piece, timeout=left)
            passed += piece
            if stop.reason is not StopReason.LIMIT or passed >= seconds or left == 0:
                break
        unread = self.unread()
        at = unread.find(wanted)
        if at < 0:
            raise EmuError(f"{wanted!r} did not come: the run ended ({stop.reason}) after {bytes(unread[-200:])!r}")
        data = bytes(unread[: at + len(wanted)])
        self.expected = max(self.expected, self.history.lost) + len(data)
        return data

    def unread(self) -> bytearray:
        """What expect() has not been through yet."""
        return self.history.waiting[max(0, self.expected - self.history.lost) :]

    def save(self) -> dict[str, Any]:
        """What the guest has sent, for a snapshot of the machine."""
        return {**super().save(), "expected": self.expected}

    def load(self, state: dict[str, Any]) -> None:
        """Takes what save() gave."""
        super().load(state)
        if not isinstance(state["expected"], int):
            raise BadInput("the state of a line to the host is malformed")
        self.expected = state["expected"]


class Machine:
    """A PC with a firmware ROM. A context manager; close() gives back what it holds of the host.

    Args:
        memory: RAM in bytes, whole MiB.
        cpu: the processor model's name.
        timing: "static" (the model's clocks) or "unit" (one a instruction).
        firmware: the ROM image as bytes, or the path of one or of an `.asm` source; None is the built-in one.
        kernel: path of a multiboot 1 kernel, which is started in place of the firmware, at each reset too.
        append: the kernel's command line.
        initrd: the kernel's modules, each a path, and after a space a text.
        serial: the host's end of COM1: null, stdio, file:PATH or tcp:PORT; or an object with the methods of
            `emu.host.backend.Backend`.
        disks: at most four, in the order primary master and slave, secondary master and slave; the machine closes them.
        modem: likewise of COM2, the management modem; DSR and DCD tell the guest whether a TCP client is connected.
        nvram: what the CMOS RAM holds, 256 bytes (see `emu.builtin.policy.policy_nvram`); or the path of a file of so
            many that keeps it: close() writes it, and makes it where it is missing.
        debugcon: I/O port of the debug console, or None.
        debug_exit: I/O port a write to which ends the run, or None.
        symbols: name to linear address, for `until`; added to those of the firmware's source or the kernel.

    Raises:
        ConfigError: an unknown model, memory that is not whole MiB or more than 1 TiB, a port that is none or taken, a
            serial line that cannot be opened, a kernel that does not fit the memory, a disk that another machine has.
        BadInput: an image that is missing, or of the wrong size or kind.
        TypeError: a disk that is no emu.Disk, a line that is neither text nor has a backend's methods.
        asm.AsmError: the firmware's source has mistakes.
    """

    def __init__(
        self,
        memory: int = 64 << 20,
        cpu: str = models.DEFAULT,
        timing: str = "static",
        firmware: bytes | str | os.PathLike[str] | None = None,
        serial: str | Backend = "null",
        debugcon: int | None = None,
        debug_exit: int | None = None,
        *,
        kernel: str | os.PathLike[str] | None = None,
        append: str = "",
        initrd: Sequence[str] = (),
        symbols: Mapping[str, int] | None = None,
        modem: str | Backend = "null",
        nvram: bytes | str | os.PathLike[str] | None = None,
        disks: Sequence["Disk"] = (),
    ) -> None:
        model = load_model(cpu, timing)
        self.disks = free_disks(disks)
        rom, self.symbols, self.source_lines = load_rom(firmware)
        self.nvram: NvramFile | None = None
        if isinstance(nvram, str | os.PathLike):
            self.nvram = nvram_file(nvram)
            nvram = self.nvram.load()
        elif nvram is not None:
            nvram = bytes(memoryview(nvram))
            if len(nvram) != NVRAM_SIZE:
                raise ConfigError(f"nvram: {len(nvram)} bytes, and the CMOS RAM has {NVRAM_SIZE}")
        try:
            self.board = Board(
                model, memory, rom, debugcon=debugcon, debug_exit=debug_exit, nvram=nvram, disks=self.disks
            )
        except BadInput as error:
            if isinstance(firmware, str | os.PathLike):
                raise BadInput(f"{os.fspath(firmware)}: {error}") from None
            raise
        self.kernel: Kernel | None = None
        if kernel is None and (append or initrd):
            raise ConfigError("append and initrd are for a kernel, and there is none")
        if kernel is not None:
            from emu.multiboot import load_kernel

            self.kernel = load_kernel(kernel, append, initrd)
            self.symbols |= self.kernel.symbols
            self.kernel.boot(self.board)
            self.cpu.on_reset(self.reset)
        self.symbols |= symbols or {}
        self.serial = Console(self.board.com1, backend_of(serial))
        self.modem = Console(self.board.com2, backend_of(modem))
        self.serial.run = self.modem.run = self.run
        self.modem_signals = ModemSignals(self.board.com2, self.modem.backend)
        self.keyboard = Keyboard(self.board.keyboard, self.board.clock.hz)
        self.screen = Screen(self.board.vga)
        self.bmc = self.board.bmc
        self.display: TerminalDisplay | None = None
        self.pacer: Pacer | None = None
        self.debugcon: OutputLine | None = None
        if self.board.debugcon is not None:
            self.debugcon = OutputLine(self.board.debugcon, Backend())
        self.vm_log = VmLog(self.cpu, self.memory)
        self.cpu.on_slice(self.poll)
        self.closed = False
        for disk in self.disks:
            disk.taken = True

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Machine is neither copied nor pickled: snapshot() and restore() carry its state")

    def __enter__(self) -> "Machine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Passes on what the guest has sent and closes the host's ends of its lines, and its disks.

        The machine can be looked at afterwards (registers, memory, output, snapshot()), but it runs no more. Closing
        twice does nothing.

        Raises:
            RunningError: the machine runs.
        """
        if self.closed:
            return
        if self.cpu.running:
            raise RunningError("the machine runs: stop() it before close()")
        self.closed = True
        with contextlib.ExitStack() as closing:
            if self.nvram is not None:
                closing.callback(self.nvram.save, self.board.rtc.nvram)
            for disk in self.disks:
                closing.callback(disk.close)
            for line in self.lines().values():
                closing.callback(line.close)
            if self.display is not None:
                closing.callback(self.display.close)

    def lines(self) -> dict[str, OutputLine]:
        """The lines between the guest and the host, by name."""
        lines = {"serial": self.serial, "modem": self.modem, "debugcon": self.debugcon}
        return {name: line for name, line in lines.items() if line is not None}

    def poll(self) -> None:
        """Moves what is on the lines; called between slices of a run."""
        for line in self.lines().values():
            line.poll()
        self.modem_signals.poll()
        self.vm_log.poll()
        if self.display is not None:
            self.display.poll()
        if self.pacer is not None and self.cpu.running:
            self.pacer.poll()

    @property
    def cpu(self) -> BoardCpu:
        """The processor."""
        return self.board.cpu

    @property
    def memory(self) -> Memory:
        """The RAM."""
        return self.board.memory

    @property
    def cycles(self) -> int:
        """Cycles since power-on."""
        return self.cpu.cycles

    @property
    def instructions(self) -> int:
        """Instructions completed."""
        return self.cpu.instructions

    @property
    def exits(self) -> Exits:
        """VM exits counted by reason: `.count`, `.cycles`; KeyError for a name that is none."""
        return self.cpu.exits

    @property
    def vmcs(self) -> Vmcs:
        """The current VMCS: its fields by the names of SDM Vol. 3, appendix "Field Encoding in VMCS"."""
        return self.cpu.vmcs

    @property
    def vmx_failure(self) -> VmxFailure | None:
        """The check of VM entry that failed last, None where none did."""
        return self.cpu.vmx_failure

    @property
    def switches(self) -> list[dict[str, Any]]:
        """The last VM switches, oldest first; `vm_log.count` is how many there were.

        Each has `cycle` and `seconds` of the VM entry; `from` and `to`, the names of the VMs (see emu/vm_log.py); and
        `reason`, `qualification` and `rip` of the VM exit that ended the first.
        """
        self.vm_log.poll()
        return [one.report(self.board.clock.hz) for one in self.vm_log.switches()]

    def run(
        self,
        instructions: int | None = None,
        cycles: int | None = None,
        seconds: float | None = None,
        timeout: float | None = None,
        until: int | str | Callable[["Machine"], object] | None = None,
        every: int | None = None,
    ) -> Stop:
        """Runs until a limit is reached or something ends it. Ctrl-C and stop() do, and the run can go on afterwards.

        Args:
            instructions, cycles: how many more; None is no limit.
            seconds: of guest time.
            timeout: seconds of host time.
            until: a linear address or the name of a symbol, before whose instruction the run ends; or a predicate
                `until(machine)`, asked before the first instruction and then every `every` instructions (1 unless
                given).

        Returns:
            A Stop. It does not depend on how the run was cut into pieces.

        Raises:
            RunningError: it runs already.
            EmuError: the machine is closed.
            ValueError: a limit that is negative or no number, or a symbol that there is none of.
            Whatever a device or hook raised.
        """
        if self.closed:
            raise EmuError("the machine is closed: it runs no more")
        goal: int | Callable[[Any], object] | None
        if isinstance(until, str):
            goal = self.symbol(until)
        elif callable(until):
            asked = until

            def goal(_: object) -> object:
                return asked(self)
        else:
            goal = until
        try:
            return self.cpu.run(
                instructions=instructions, cycles=cycles, seconds=seconds, timeout=timeout, until=goal, every=every
            )
        finally:
            if not self.cpu.running:
                self.poll()

    def symbol(self, name: str) -> int:
        """The linear address of a symbol.

        Raises:
            ValueError: there is none of this name.
        """
        if name not in self.symbols:
            from difflib import get_close_matches

            near = ", ".join(get_close_matches(name, self.symbols))
            raise ValueError(f"no symbol {name!r}" + (f"; there are: {near}" if near else ""))
        return self.symbols[name]

    def stop(self) -> None:
        """Ends the run that is under way, from any thread."""
        self.cpu.stop()

    def reset(self) -> None:
        """Power-on: chips and processor as at first; RAM keeps its contents, as after a warm start."""
        self.board.reset()
        if self.kernel is not None:
            self.kernel.boot(self.board)

    def hook(self, kind: str, callback: Callable[..., object], where: range | None = None) -> Hook:
        """Has `callback` called at what the guest does; see the processor's hook()."""
        return self.cpu.hook(kind, callback, where)

    def attach(
        self, device: Device, ports: int | Sequence[int] = (), mmio: range | None = None, irq: int | None = None
    ) -> None:
        """Puts a device of your own on the board, and resets it. Again with the same device adds to where it answers.

        Args:
            device: an emu.Device, made without a clock; it lives on the machine's from now on.
            ports: the I/O ports that it answers at.
            mmio: the physical addresses that it answers at; whole pages of 4096 bytes where memory lies.
            irq: the interrupt request, 0 to 15, that its first output drives.

        Raises:
            ConfigError: a port or interrupt that another chip has, a range that leaves the space, or none of the three
                for a device without event().
            RunningError: the machine runs.
        """
        if not isinstance(device, Device):
            raise TypeError(f"{device!r} is no emu.Device")
        self.board.attach(device, [ports] if isinstance(ports, int) else ports, mmio, irq)

    @cached_property
    def rom_digest(self) -> str:
        """SHA-256 of the ROM, by which a snapshot knows it."""
        import hashlib

        return hashlib.sha256(self.board.rom.read(0, len(self.board.rom))).hexdigest()

    def configuration(self) -> dict[str, Any]:
        """What a snapshot must agree on: the machine as it was built."""
        return {
            "processor": self.board.cpu.model.name,
            "timing": self.board.cpu.model.timing,
            "memory": len(self.memory),
            "ROM": self.rom_digest,
            "kernel": None if self.kernel is None else self.kernel.digest,
            "chips": sorted(chip.name for chip in self.board.chips),
            "devices": plain(self.board.attached, "devices"),
        }

    def snapshot(self) -> Snapshot:
        """The state of the whole machine: processor, memory, time, chips and devices, and what the guest has sent.

        Costs the pages that were written since the last snapshot or restore.

        Raises:
            EmuError: a device cannot be saved.
            RunningError: the machine runs.
        """
        self.poll()
        return Snapshot(self.configuration(), self.save(), self.memory.save())

    def save(self) -> dict[str, Any]:
        """The state of everything but memory."""
        return {
            "cpu": self.cpu.save(),
            "clock": self.board.clock.save(),
            "chips": self.board.save(),
            "lines": {name: line.save() for name, line in self.lines().items()},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Takes what save() gave."""
        self.board.clock.load(state["clock"])
        self.board.load(state["chips"])
        self.cpu.restore(state["cpu"])
        for name, line in self.lines().items():
            line.load(state["lines"][name])

    def restore(self, snapshot: Snapshot) -> None:
        """Makes the machine what it was when the snapshot was taken, of this machine or of one built alike.

        Costs the pages that differ. After an error the machine is what it was before the call.

        Raises:
            BadInput: the snapshot is of another machine, or malformed.
            RunningError: the machine runs.
        """
        if not isinstance(snapshot, Snapshot):
            raise TypeError(f"{snapshot!r} is no emu.Snapshot")
        snapshot.check_fits(self.configuration())
        before = self.save()
        try:
            self.load(snapshot.state)
            self.memory.load(snapshot.pages)
        except BaseException as error:
            self.load(before)
            if isinstance(error, KeyError | TypeError | ValueError | OverflowError | AttributeError):
                raise BadInput(f"the snapshot is malformed: {error!r}") from error
            raise

    def report(self, stop: Stop, host_seconds: float) -> dict[str, Any]:
        """What a run came to, as plain values for JSON. host_seconds: how long it took."""
        codes = self.board.post.codes
        return {
            "stop": str(stop.reason),
            "status": stop.status,
            "cycles": self.cycles,
            "instructions": self.instructions,
            "guest_seconds": self.cycles / self.board.clock.hz,
            "host_seconds": host_seconds,
            "mips": self.instructions / host_seconds / 1e6 if host_seconds else 0.0,
            "post_codes": {"count": self.board.post.count, "last": [code for _, code in codes]},
            "vm_exits": {
                name: {"count": seen.count, "cycles": seen.cycles}
                for name in self.exits
                if (seen := self.exits[name]).count
            },
            "vm_switches": self.switches,
            "vmx_failure": failure._asdict() if (failure := self.vmx_failure) else None,
        }


def exit_status(stop: Stop) -> int:
    """Exit status of a run: 0 powered off, the debug-exit status, 6 triple fault, 4 a limit or halted for good."""
    if stop.reason is StopReason.DEBUG_EXIT:
        return stop.status or 0
    return {StopReason.POWERED_OFF: 0, StopReason.TRIPLE_FAULT: 6}.get(stop.reason, 4)
