"""GDB's remote serial protocol on a socket: packets, checksums, acknowledgements, the interrupt byte.

GDB manual, "Remote Protocol", Overview.
"""

import contextlib
import select
import socket
import time

from emu.host.tcp import listen

__all__ = ["Connection", "Disconnected", "Listener"]

INTERRUPT = 0x03
PACKET_SIZE = 0x4000
"""Bytes of a packet at most, as the stub tells the debugger."""
LONGEST = 2 * PACKET_SIZE + 16  # what may wait unparsed: more is not a debugger
PATIENCE = 30.0  # seconds that a debugger may take to accept what it asked for


class Disconnected(Exception):
    """The debugger has gone, or what is at the other end is none."""


def checksum(body: bytes) -> bytes:
    """Two hexadecimal digits: the sum of the bytes, modulo 256."""
    return b"%02x" % (sum(body) & 0xFF)


def escape(body: bytes) -> bytes:
    """A packet's body on the line: `$ # } *` are sent as `}` and the byte with bit 5 inverted."""
    return b"".join(bytes((0x7D, byte ^ 0x20)) if byte in b"$#}*" else bytes((byte,)) for byte in body)


def unescape(body: bytes) -> bytes:
    """What `escape` was given."""
    out, at = bytearray(), 0
    while at < len(body):
        if body[at] == 0x7D and at + 1 < len(body):
            out.append(body[at + 1] ^ 0x20)
            at += 2
        else:
            out.append(body[at])
            at += 1
    return bytes(out)


class Listener:
    """A TCP port on the loopback interface where a debugger connects.

    Args:
        port: TCP port; 0 lets the host choose one, see the attribute `port`.

    Raises:
        ConfigError: the port is in use, not allowed or no port number.
    """

    def __init__(self, port: int) -> None:
        self.socket = listen(port)
        self.port: int = self.socket.getsockname()[1]

    def accept(self, timeout: float | None) -> "Connection | None":
        """The next debugger; None where none came within `timeout` seconds. None waits for ever."""
        self.socket.settimeout(timeout)
        try:
            client, _ = self.socket.accept()
        except (TimeoutError, BlockingIOError):
            return None
        return Connection(client)

    def close(self) -> None:
        """Nobody can connect any more."""
        self.socket.close()


class Connection:
    """One debugger."""

    def __init__(self, client: socket.socket) -> None:
        self.socket = client
        client.setblocking(False)
        if client.family == socket.AF_INET:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.waiting = bytearray()
        self.interrupted = False
        self.gone = False  # nothing more will arrive
        self.acknowledges = True
        """Until the debugger asks for QStartNoAckMode."""

    def close(self) -> None:
        """Hangs up."""
        self.socket.close()

    def send(self, body: bytes) -> None:
        """Sends a packet.

        Raises:
            Disconnected: it cannot be sent.
        """
        line = escape(body)
        self.write(b"$" + line + b"#" + checksum(line))

    def write(self, data: bytes) -> None:
        """Sends bytes as they are."""
        deadline = time.monotonic() + PATIENCE
        view = memoryview(data)
        while view:
            try:
                view = view[self.socket.send(view) :]
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([], [self.socket], [], left)[1]:
                    raise Disconnected("the debugger takes nothing") from None
            except OSError as error:
                raise Disconnected(str(error)) from None

    def poll(self) -> None:
        """Takes what has arrived. Sets `interrupted` where the machine is to stop, `gone` where the debugger left."""
        while not self.gone and len(self.waiting) < LONGEST:
            try:
                data = self.socket.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self.gone = not data
            self.waiting += data
        self.skip_noise()

    def skip_noise(self) -> None:
        """Drops acknowledgements and the interrupt byte from before the next packet."""
        at = 0
        while at < len(self.waiting) and self.waiting[at] != 0x24:
            self.interrupted = self.interrupted or self.waiting[at] == INTERRUPT
            at += 1
        del self.waiting[:at]

    def receive(self, timeout: float | None = None) -> bytes | None:
        """The next packet's body; None after `timeout` seconds without one, or when `interrupted` was set.

        Raises:
            Disconnected: the debugger has gone, or sends something else.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self.skip_noise()
            end = self.waiting.find(b"#")
            if self.waiting and end >= 0 and len(self.waiting) >= end + 3:
                line, sum_ = bytes(self.waiting[1:end]), bytes(self.waiting[end + 1 : end + 3])
                del self.waiting[: end + 3]
                good = sum_.lower() == checksum(line)
                if self.acknowledges:
                    self.write(b"+" if good else b"-")
                if good:
                    return unescape(line)
                if not self.acknowledges:
                    raise Disconnected("a packet with a wrong checksum")
                continue
            if self.interrupted:
                return None
            if len(self.waiting) >= LONGEST:
                raise Disconnected("a packet without end")
            if self.gone:
                raise Disconnected("the debugger has hung up")
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left < 0:
                return None
            with contextlib.suppress(OSError, ValueError):
                select.select([self.socket], [], [], left)
            self.poll()
