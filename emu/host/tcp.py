"""A TCP port on the loopback interface, where one client at a time can connect."""

import socket

from emu.errors import ConfigError
from emu.host.backend import Backend, Output

__all__ = ["TcpBackend", "listen"]

WAITING_LIMIT = 1 << 20


def listen(port: int) -> socket.socket:
    """A socket that listens on 127.0.0.1; nobody else can reach it.

    Args:
        port: TCP port; 0 lets the host choose one.

    Raises:
        ConfigError: the port is in use, not allowed or no port number.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"TCP port {port}: not within 0 to 65535")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(1)
    except OSError as error:
        listener.close()
        raise ConfigError(f"TCP port {port} on 127.0.0.1: {error.strerror}") from None
    return listener


class TcpBackend(Backend):
    """Listens on 127.0.0.1. What the guest sends before a client comes waits for it, the last 1 MiB at most.

    Args:
        port: TCP port; 0 lets the host choose one, see the attribute `port`.

    Raises:
        ConfigError: the port is in use, not allowed or no port number.
    """

    def __init__(self, port: int) -> None:
        self.client: socket.socket | None = None
        self.output = Output(WAITING_LIMIT)
        self.listener = listen(port)
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]

    @property
    def lost(self) -> int:  # type: ignore[override]
        """Bytes dropped because nobody read them."""
        return self.output.lost

    @property
    def connected(self) -> bool:
        return self.client is not None

    def write(self, data: bytes) -> None:
        self.output.put(data)
        if self.client is None:
            self.accept()
        if self.client is not None and self.output.waiting:
            try:
                self.output.taken(self.client.send(self.output.waiting))
            except BlockingIOError:
                return
            except OSError:
                self.hang_up()

    def read(self, limit: int) -> bytes:
        if self.client is None:
            self.accept()
        if self.client is None or limit <= 0:
            return b""
        try:
            data = self.client.recv(limit)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self.hang_up()
        return data

    def accept(self) -> None:
        """Takes the next client, if one waits."""
        try:
            self.client, _ = self.listener.accept()
        except OSError:
            return  # nobody, or gone again, or the listener is closed
        self.client.setblocking(False)
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def hang_up(self) -> None:
        """The client has gone; another may come."""
        if self.client is not None:
            self.client.close()
            self.client = None

    def close(self) -> None:
        self.hang_up()
        self.listener.close()
