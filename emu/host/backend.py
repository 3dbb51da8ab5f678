"""What a serial line or console is connected to on the host."""

__all__ = ["Backend", "Output"]


class Output:
    """Bytes that wait for the host to take them; what there is no room for pushes the oldest out.

    Args:
        limit: bytes kept at most.

    Attributes:
        lost: bytes pushed out so far.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lost = 0
        self.waiting = bytearray()

    def put(self, data: bytes) -> None:
        """Adds bytes."""
        self.waiting += data
        excess = len(self.waiting) - self.limit
        if excess > 0:
            del self.waiting[:excess]
            self.lost += excess

    def taken(self, count: int) -> None:
        """The host has taken the oldest `count` bytes."""
        del self.waiting[:count]


class Backend:
    """The base of all, and by itself the one that drops what it is given and never says anything."""

    lost: int = 0

    @property
    def connected(self) -> bool:
        """Whether somebody is at the other end; of a plain cable, always."""
        return True

    def hang_up(self) -> None:
        """Sends whoever is connected away, where the line can."""

    def write(self, data: bytes) -> None:
        """Takes what the guest has sent. Never blocks; calling it with nothing lets waiting bytes go on."""

    def read(self, limit: int) -> bytes:
        """What has arrived for the guest since the last call, at most `limit` bytes. Never blocks."""
        return b""

    def close(self) -> None:
        """Lets go of the host's resources; closing twice does nothing."""
