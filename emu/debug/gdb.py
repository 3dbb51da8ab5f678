"""The stub that GDB talks to: `emu run --gdb PORT`, then `target remote :PORT` in GDB.

GDB manual, "Remote Protocol", Packets. All addresses are linear; the program counter that GDB sees is linear too, so
breakpoints and symbols fit in real-address mode. Nothing of the guest's state is touched but what the debugger writes:
breakpoints are hooks, not INT3 bytes, and the guest's clock stands still while the machine is stopped.
"""

import logging
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from emu.debug.registers import Layout, is_long, layout_for
from emu.debug.remote import PACKET_SIZE, Connection, Disconnected, Listener
from emu.debug.symbol_file import symbol_elf
from emu.stop import Stop, StopReason

if TYPE_CHECKING:
    from emu._core import Hook
    from emu.machine import Machine

__all__ = ["GdbServer"]

log = logging.getLogger(__name__)

SIGINT, SIGTRAP, SIGABRT, SIGSEGV = 2, 5, 6, 11
EXECUTE, WRITE, READ, ACCESS = 1, 2, 3, 4  # kinds of Z packets; 0 and 1 are the same to us
WATCHES = {WRITE: "watch", READ: "rwatch", ACCESS: "awatch"}
MOST_POINTS = 1024
CONFIRM = "E01"
SYMBOL_FILE = "/emu/symbols.elf"  # what the debugger sees the symbols as
DESCRIPTOR = 3
OTHER_MODE = """\
the processor has {} long mode: for the registers it has now say `disconnect`, `set architecture auto`, `file` and
`target remote` again
"""

HELP = """\
monitor commands:
  help            this
  cycles          cycles and instructions so far
  phys ADDR N     N bytes of physical memory
  reset           pulses the reset line; continue to begin at the reset vector
"""


class GdbServer:
    """Serves one debugger at a time and runs the machine as it says.

    Args:
        machine: the machine; nothing else may run it meanwhile.
        port: TCP port on the loopback interface; 0 lets the host choose one, see `port`.
        exit_status: what the debugger is told when the guest ends.
        symbols: name to linear address, which the debugger can fetch as a file; None or empty: there is no such file.

    Raises:
        ConfigError: the port cannot be had.
    """

    def __init__(
        self,
        machine: "Machine",
        port: int,
        exit_status: Callable[[Stop], int],
        symbols: Mapping[str, int] | None = None,
    ) -> None:
        self.machine = machine
        self.cpu = machine.cpu
        self.listener = Listener(port)
        self.port = self.listener.port
        self.exit_status = exit_status
        self.symbols = symbols or {}
        self.symbol_file: bytes | None = None  # of the present connection
        self.connection: Connection | None = None
        self.describe()
        self.points: dict[tuple[int, int, int], Hook] = {}
        self.cause = ""  # why a hook stopped the machine, as a stop reply says it
        self.stop: Stop | None = None  # the guest has ended
        self.running = False  # nobody is connected, and the machine runs
        self.cpu.on_slice(self.poll)

    def close(self) -> None:
        """Hangs up and closes the port."""
        self.forget_points()
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        self.listener.close()

    # --- the debugger's life ------------------------------------------------------------------------------------------

    def serve(self, **limits: Any) -> Stop:
        """Waits for a debugger and does as it says, until the guest ends, a limit of run() is reached or it is killed.

        A debugger that detaches leaves the machine running; another one may connect and stops it. Where the connection
        ends without that the machine stands until another one comes.
        """
        limits = {name: value for name, value in limits.items() if value is not None}
        while self.stop is None:
            if self.running:
                stop = self.machine.run(**limits)
                if stop.reason is not StopReason.STOPPED or self.connection is None:
                    return stop
            elif self.connection is None:
                self.connection = self.listener.accept(None)
            try:
                self.session(limits)
            except Disconnected as gone:
                log.info("%s", gone)
            self.forget_points()
            if self.connection is not None:
                self.connection.close()
                self.connection = None
        return self.stop

    def poll(self) -> None:
        """Between two slices: stops the machine where the debugger asks for it, or where a new one has come."""
        if self.connection is None:
            self.connection = self.listener.accept(0)
            if self.connection is not None:
                self.machine.stop()
            return
        self.connection.poll()
        if self.connection.interrupted or self.connection.gone:
            self.machine.stop()

    def describe(self) -> None:
        """What a debugger that connects now is told about the processor."""
        self.layout: Layout = layout_for(self.cpu)
        self.long = is_long(self.cpu)
        self.symbol_file = symbol_elf(self.symbols, self.long) if self.symbols else None

    def session(self, limits: dict[str, Any]) -> None:
        """One debugger, from its first packet until it leaves."""
        connection = self.connection
        assert connection is not None
        self.describe()
        while True:
            packet = connection.receive()
            self.running = False  # whoever sends no packet is no debugger, and changes nothing
            if packet is None:  # an interrupt while the machine stands
                connection.interrupted = False
                connection.send(b"T%02x" % SIGINT)
                continue
            if packet.startswith((b"c", b"C", b"s", b"S", b"vCont;")):
                connection.send(self.resume(packet, limits))
            elif packet == b"k" or packet.startswith(b"vKill"):
                self.stop = Stop(StopReason.STOPPED)
                if packet != b"k":
                    connection.send(b"OK")
                return
            else:
                connection.send(self.answer(packet))
            if packet == b"QStartNoAckMode":
                connection.acknowledges = False
            if self.stop is not None or self.running:
                return

    # --- running ------------------------------------------------------------------------------------------------------

    def resume(self, packet: bytes, limits: dict[str, Any]) -> bytes:
        """Runs or steps; the stop reply."""
        action = packet[6:7] if packet.startswith(b"vCont;") else packet[:1]
        if action not in (b"c", b"C", b"s", b"S"):
            return b""
        if packet[:1] in (b"c", b"s") and len(packet) > 1:
            self.cpu.rip = int(packet[1:], 16) - self.cpu.cs.base
        self.cause = ""
        stepped = action in (b"s", b"S")
        return self.stopped(self.step() if stepped else self.machine.run(**limits), stepped)

    def step(self) -> Stop:
        """One instruction, or the interrupt, exception or VM exit that comes in its place: the machine then stands at
        its handler's first instruction."""
        hooks = [self.cpu.hook(kind, lambda _, __: self.machine.stop()) for kind in ("interrupt", "vm_exit")]
        try:
            return self.cpu.step()
        finally:
            for hook in hooks:
                hook.remove()

    def stopped(self, stop: Stop, stepped: bool) -> bytes:
        """The stop reply for the end of a run."""
        connection = self.connection
        assert connection is not None
        if is_long(self.cpu) != self.long and stop.reason in (
            StopReason.LIMIT, StopReason.STOPPED, StopReason.BREAKPOINT, StopReason.HALTED,
        ):  # fmt: skip
            self.say(OTHER_MODE.format("left" if self.long else "entered"))
        if connection.gone and stop.reason is StopReason.STOPPED:
            raise Disconnected("the debugger has hung up")
        if connection.interrupted:
            connection.interrupted = False
            return b"T%02x" % SIGINT
        if self.cause:
            return b"T%02x%s" % (SIGTRAP, self.cause.encode())
        if stop.reason is StopReason.TRIPLE_FAULT:
            self.say("triple fault: the processor has shut down\n")
            return b"T%02x" % SIGSEGV
        if stop.reason is StopReason.HALTED:
            self.say("halted, and nothing is due that could wake the processor\n")
            return b"T%02x" % SIGTRAP
        if stop.reason is StopReason.BREAKPOINT or (stepped and stop.reason in (StopReason.LIMIT, StopReason.STOPPED)):
            return b"T%02x" % SIGTRAP
        self.stop = stop
        return b"W%02x" % (self.exit_status(stop) & 0xFF)

    def say(self, text: str) -> None:
        """Text for the debugger's user while the machine runs."""
        assert self.connection is not None
        self.connection.send(b"O" + text.encode().hex().encode())

    # --- breakpoints and watchpoints ----------------------------------------------------------------------------------

    def forget_points(self) -> None:
        """Removes all of them."""
        for hook in self.points.values():
            hook.remove()
        self.points.clear()

    def insert(self, kind: int, address: int, size: int) -> bytes:
        """Sets a breakpoint or watchpoint; setting it twice does nothing."""
        if (kind, address, size) in self.points:
            return b"OK"
        if len(self.points) >= MOST_POINTS:
            return b"E0c"
        if kind <= EXECUTE:
            where = range(address, address + 1)

            def at_instruction(_: int) -> None:
                self.cause = "hwbreak:;" if kind == EXECUTE else "swbreak:;"
                self.machine.stop()

            hook = self.cpu.hook("instruction", at_instruction, where)
        else:
            where = range(address, address + max(size, 1))

            def at_access(_at: int, _size: int, _value: int, is_write: bool) -> None:
                if kind == ACCESS or is_write == (kind == WRITE):
                    self.cause = f"{WATCHES[kind]}:{address:x};"
                    self.machine.stop()

            hook = self.cpu.hook("memory", at_access, where)
        self.points[kind, address, size] = hook
        return b"OK"

    def remove(self, kind: int, address: int, size: int) -> bytes:
        """Removes one that was set."""
        hook = self.points.pop((kind, address, size), None)
        if hook is not None:
            hook.remove()
        return b"OK"

    # --- packets ------------------------------------------------------------------------------------------------------

    def answer(self, packet: bytes) -> bytes:
        """The reply to a packet that does not run the machine; empty where it is not known."""
        try:
            if packet.startswith((b"q", b"Q")):
                return self.query(packet)
            name = COMMANDS.get(packet[:1])
            return b"" if name is None else bytes(getattr(self, name)(packet[1:].decode("ascii")))
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            log.info("%r: %s", packet[:60], error)
            return CONFIRM.encode()

    def why(self, _: str) -> bytes:
        """?: why the machine stands."""
        return b"T%02x" % SIGTRAP

    def read_registers(self, _: str) -> bytes:
        """g."""
        return b"".join(register.bytes_of(self.cpu) for register in self.layout.registers)

    def write_registers(self, text: str) -> bytes:
        """G: all registers; those that cannot be written are passed over, unchanged ones are left alone."""
        data, at = text.encode(), 0
        for register in self.layout.registers:
            digits = data[at : at + register.bits // 4]
            at += register.bits // 4
            if digits and register.write is not None and digits != register.bytes_of(self.cpu):
                register.write(self.cpu, int.from_bytes(bytes.fromhex(digits.decode()), "little"))
        return b"OK"

    def read_register(self, text: str) -> bytes:
        """p n."""
        return self.layout.registers[number(text)].bytes_of(self.cpu)

    def write_register(self, text: str) -> bytes:
        """P n=r."""
        index, _, value = text.partition("=")
        register = self.layout.registers[number(index)]
        if register.write is None:
            return b"E01"
        register.write(self.cpu, int.from_bytes(bytes.fromhex(value), "little"))
        return b"OK"

    def read_memory(self, text: str) -> bytes:
        """m address,length: as many bytes as are mapped."""
        address, length = (number(part) for part in text.split(","))
        length = min(length, PACKET_SIZE // 2 - 4)
        try:
            return self.cpu.read_linear(address, length).hex().encode()
        except ValueError:
            first = min(length, 0x1000 - (address & 0xFFF))
            return self.cpu.read_linear(address, first).hex().encode()

    def write_memory(self, text: str) -> bytes:
        """M address,length:data in hexadecimal."""
        where, _, data = text.partition(":")
        address, length = (number(part) for part in where.split(","))
        content = bytes.fromhex(data)
        if len(content) != length:
            return b"E01"
        self.cpu.write_linear(address, content)
        return b"OK"

    def insert_point(self, text: str) -> bytes:
        """Z kind,address,size."""
        kind, address, size = (number(part) for part in text.split(";")[0].split(","))
        return self.insert(kind, address, size) if 0 <= kind <= ACCESS else b""

    def remove_point(self, text: str) -> bytes:
        """z kind,address,size."""
        kind, address, size = (number(part) for part in text.split(",")[:3])
        return self.remove(kind, address, size) if 0 <= kind <= ACCESS else b""

    def detach(self, _: str) -> bytes:
        """D: the machine goes on without a debugger."""
        self.running = True
        return b"OK"

    def thread(self, _: str) -> bytes:
        """H and T: there is one thread, the processor."""
        return b"OK"

    def other_v(self, text: str) -> bytes:
        """vCont?, the reading of the symbol file, and what is not supported."""
        if text == "Cont?":
            return b"vCont;c;C;s;S"
        if text.startswith("File:") and self.symbol_file is not None:
            return self.host_file(self.symbol_file, text[5:])
        return b""

    def host_file(self, content: bytes, text: str) -> bytes:
        """vFile packets, which read the one file there is (GDB manual, "Host I/O Packets")."""
        verb, _, rest = text.partition(":")
        arguments = rest.split(",")
        if verb == "setfs":
            return b"F0"
        if verb == "open":
            return b"F%x" % DESCRIPTOR if bytes.fromhex(arguments[0]).decode() == SYMBOL_FILE else b"F-1,2"
        if verb == "pread" and number(arguments[0]) == DESCRIPTOR:
            count, offset = number(arguments[1]), number(arguments[2])
            part = content[offset : offset + min(count, PACKET_SIZE // 2)]
            return b"F%x;" % len(part) + part
        if verb == "fstat" and number(arguments[0]) == DESCRIPTOR:
            mode = 0o100444
            fields = struct.pack(">IIIIIIIQQQIII", 0, 0, mode, 1, 0, 0, 0, len(content), 512, 0, 0, 0, 0)
            return b"F%x;" % len(fields) + fields
        if verb == "close" and number(arguments[0]) == DESCRIPTOR:
            return b"F0"
        return b"F-1,1" if verb in ("pwrite", "unlink", "readlink") else b""

    def query(self, packet: bytes) -> bytes:
        """q and Q packets."""
        text = packet.decode("latin-1")  # what is not known may hold any byte, as qSearch:memory does
        name = text.partition(":")[0]
        if name == "qSupported":
            return (
                f"PacketSize={PACKET_SIZE:x};QStartNoAckMode+;qXfer:features:read+;swbreak+;hwbreak+;vContSupported+"
                + (";qXfer:exec-file:read+" if self.symbol_file is not None else "")
            ).encode()
        if text.startswith("qXfer:exec-file:read:") and self.symbol_file is not None:
            return window(SYMBOL_FILE.encode(), text.rsplit(":", 1)[1])
        if text.startswith("qXfer:features:read:target.xml:"):
            return window(self.layout.xml, text.rsplit(":", 1)[1])
        if text == "QStartNoAckMode":
            return b"OK"
        if text == "qAttached":
            return b"1"  # quitting the debugger detaches and leaves the machine running
        if text == "qC":
            return b"QC1"
        if text == "qfThreadInfo":
            return b"m1"
        if text == "qsThreadInfo":
            return b"l"
        if text.startswith("qThreadExtraInfo,"):
            return f"{self.cpu.bits}-bit code".encode().hex().encode()
        if text.startswith("qRcmd,"):
            return self.monitor(bytes.fromhex(text[6:]).decode("utf-8", "replace"))
        if name == "qSymbol":
            return b"OK"
        return b""

    def monitor(self, line: str) -> bytes:
        """A `monitor` command; what it prints."""
        words = line.split() or ["help"]
        if words[0] == "cycles":
            out = f"{self.machine.cycles} cycles, {self.machine.instructions} instructions\n"
        elif words[0] == "phys" and len(words) == 3:
            try:
                address, count = int(words[1], 0), min(int(words[2], 0), 4096)
                out = dump(address, self.cpu.bus.read(address, count))
            except (ValueError, OverflowError):
                out = f"no physical memory: {line}\n"
        elif words[0] == "reset":
            self.machine.board.reset()
            out = "reset\n"
        else:
            out = HELP
        return out.encode().hex().encode()


COMMANDS = {
    b"?": "why",
    b"g": "read_registers",
    b"G": "write_registers",
    b"p": "read_register",
    b"P": "write_register",
    b"m": "read_memory",
    b"M": "write_memory",
    b"Z": "insert_point",
    b"z": "remove_point",
    b"D": "detach",
    b"H": "thread",
    b"T": "thread",
    b"v": "other_v",
}


def number(text: str) -> int:
    """A hexadecimal number of the protocol: digits alone.

    Raises:
        ValueError: it is none, or has more than 64 bits.
    """
    if not text or len(text) > 16 or text.strip("0123456789abcdefABCDEF"):
        raise ValueError(f"{text!r} is no hexadecimal number")
    return int(text, 16)


def window(content: bytes, text: str) -> bytes:
    """A part of a qXfer object: `offset,length`; m with more to come, l at the end."""
    offset, length = (number(part) for part in text.split(","))
    part = content[offset : offset + length]
    return (b"m" if offset + length < len(content) else b"l") + part


def dump(address: int, data: bytes) -> str:
    """Lines of 16 bytes in hexadecimal."""
    return "".join(f"{address + at:#010x}: {data[at : at + 16].hex(' ')}\n" for at in range(0, len(data), 16))
