"""The FRU inventory of the board.

IPMI Platform Management FRU Information Storage Definition: common header, board and product information areas.
"""

__all__ = ["inventory"]

ENGLISH = 25
NO_MORE = 0xC1


def area(*fields: bytes, before: bytes = b"") -> bytes:
    """An information area: version, length in units of 8 bytes, language, fields, padding, checksum."""
    body = bytes((ENGLISH,)) + before + b"".join(bytes((0xC0 | len(text),)) + text for text in fields)
    body += bytes((NO_MORE,))
    size = -(-(len(body) + 3) // 8)
    data = bytes((1, size)) + body
    data += bytes(8 * size - 1 - len(data))
    return data + bytes((-sum(data) & 0xFF,))


def inventory() -> bytes:
    """The whole inventory; what is not used of its 256 bytes is 0."""
    board = area(b"emu", b"System board", b"0000001", b"PC440", b"", before=bytes(3))
    product = area(b"emu", b"PC", b"PC440", b"1", b"0000001", b"", b"")
    start = bytes((1, 0, 0, 1, 1 + len(board) // 8, 0, 0))
    return (start + bytes((-sum(start) & 0xFF,)) + board + product).ljust(256, b"\0")
