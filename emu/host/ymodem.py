"""A YMODEM receiver at the other end of a serial line: what a sender in the machine sends as files.

C. Forsberg, "XMODEM/YMODEM Protocol Reference", 1988: blocks of 128 or 1024 bytes with a CRC-16, a block 0 with name
and size before each file, an empty one at the end.
"""

from emu.host.backend import Backend

__all__ = ["YmodemReceiver"]

SOH, STX, EOT, ACK, NAK, CAN, C = 1, 2, 4, 6, 0x15, 0x18, ord("C")
BLOCKS = {SOH: 128, STX: 1024}
AROUND = 5  # bytes of a block besides its content: kind, number, its complement, CRC
ASK_EVERY = 200  # polls of the host, a millisecond or so each, until the sender begins


def crc16(data: bytes) -> int:
    """CRC-16 of the polynomial 1021h, from 0."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = crc << 1 ^ (0x1021 if crc & 0x8000 else 0)
        crc &= 0xFFFF
    return crc


class YmodemReceiver(Backend):
    """Takes every file that is sent.

    Attributes:
        files: contents by name; one that is being sent grows.
        done: the sender has said that no more files follow.
        blocks: that have arrived, good and damaged ones.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.done = False
        self.blocks = 0
        self.buffer = bytearray()
        self.reply = bytearray()
        self.polls = 0
        self.name = ""
        self.size = 0
        self.expected = 0
        self.eot = False

    def read(self, limit: int) -> bytes:
        self.polls += 1
        if not self.blocks and self.polls % ASK_EVERY == 0:
            self.reply.append(C)
        data = bytes(self.reply[:limit])
        del self.reply[:limit]
        return data

    def write(self, data: bytes) -> None:
        self.buffer += data
        while self.buffer and self.take():
            pass

    def answer(self, *codes: int) -> None:
        """Says something to the sender."""
        self.reply += bytes(codes)

    def damaged(self, block: bytes) -> bool:
        """Whether a block, with what is around its content, is to be sent again."""
        return block[2] != block[1] ^ 0xFF or crc16(block[3:-2]) != int.from_bytes(block[-2:], "big")

    def take(self) -> bool:
        """Takes a block or an EOT; False where more must come first."""
        kind = self.buffer[0]
        if kind == EOT:
            del self.buffer[0]
            if self.eot:  # the first one is asked for again, as the protocol advises
                self.name = ""
                self.answer(ACK, C)
            else:
                self.answer(NAK)
            self.eot = not self.eot
            return True
        if kind not in BLOCKS:
            del self.buffer[0]
            return True
        size = BLOCKS[kind] + AROUND
        if len(self.buffer) < size:
            return False
        block = bytes(self.buffer[:size])
        del self.buffer[:size]
        self.blocks += 1
        if self.damaged(block):
            self.answer(NAK)
        elif self.name:
            self.content(block[1], block[3:-2])
        else:
            self.begin(block[3:-2])
        return True

    def begin(self, content: bytes) -> None:
        """A block 0."""
        if not content[0]:
            self.done = True
            self.answer(ACK)
            return
        name, size = content.split(b"\0")[:2]
        self.name, self.size, self.expected = name.decode(errors="replace"), int(size.split()[0]), 1
        self.files[self.name] = b""
        self.answer(ACK, C)

    def content(self, number: int, content: bytes) -> None:
        """A block of a file; the last one is filled up."""
        if number == self.expected & 0xFF:
            self.files[self.name] += content[: self.size - len(self.files[self.name])]
            self.expected += 1
            self.answer(ACK)
        elif number == self.expected - 1 & 0xFF:  # its acknowledgement was lost
            self.answer(ACK)
        else:
            self.answer(CAN, CAN)
