"""The machine's screen on the user's terminal, and the terminal's keys for the machine's keyboard.

ECMA-48, "Control Functions for Coded Character Sets": cursor position (CUP), erase (ED), rendition (SGR); the private
modes are xterm's: 25 the cursor, 1049 the alternate screen.
"""

import contextlib
import time

from emu.errors import BadInput
from emu.host.backend import Backend
from emu.host.keyboard import Keyboard
from emu.host.screen import PICTURES, Screen

__all__ = ["TerminalDisplay"]

EVERY = 0.05  # host seconds between two looks at the screen
READ_SIZE = 256
BACKLOG = 1 << 16  # bytes that a slow terminal may still have to take before it gets another screen
ANSI = (0, 4, 2, 6, 1, 5, 3, 7)  # a PC's colour to ECMA-48's: blue and red change places
ENTER = b"\x1b[?1049h\x1b[2J"
LEAVE = b"\x1b[0m\x1b[?25h\x1b[?1049l"
# What a terminal sends for keys without a character (xterm, "PC-Style Function Keys"; with VT220 and Linux forms).
SEQUENCES = {
    b"[A": "up", b"[B": "down", b"[C": "right", b"[D": "left", b"[H": "home", b"[F": "end",
    b"OA": "up", b"OB": "down", b"OC": "right", b"OD": "left", b"OH": "home", b"OF": "end",
    b"[1~": "home", b"[2~": "insert", b"[3~": "delete", b"[4~": "end", b"[5~": "pageup", b"[6~": "pagedown",
    b"OP": "f1", b"OQ": "f2", b"OR": "f3", b"OS": "f4", b"[15~": "f5", b"[17~": "f6", b"[18~": "f7", b"[19~": "f8",
    b"[20~": "f9", b"[21~": "f10", b"[23~": "f11", b"[24~": "f12",
}  # fmt: skip
CONTROLS = {0x08: "backspace", 0x09: "tab", 0x0A: "enter", 0x0D: "enter", 0x7F: "backspace"}


class TerminalDisplay:
    """Shows what has changed, at most 20 times a second; a terminal that is too slow misses screens in between.

    Args:
        screen: the machine's.
        keyboard: the machine's.
        terminal: the user's, such as a StdioBackend.
    """

    def __init__(self, screen: Screen, keyboard: Keyboard, terminal: Backend) -> None:
        self.screen = screen
        self.keyboard = keyboard
        self.terminal = terminal
        self.due = 0.0
        self.shown: list[bytes] | None = None
        self.cursor: tuple[int, int] | None = None
        terminal.write(ENTER)

    def poll(self) -> None:
        """Between slices of a run."""
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + EVERY
        self.type(self.terminal.read(READ_SIZE))
        self.terminal.write(b"")  # lets what waits go on
        output = getattr(self.terminal, "output", None)
        if output is None or len(output.waiting) < BACKLOG:
            self.show()

    def show(self) -> None:
        """Sends the rows that have changed, and the cursor."""
        rows = self.screen.adapter.rows if self.screen.on else []
        cursor = self.screen.cursor if self.screen.on else None
        if rows == self.shown and cursor == self.cursor:
            return
        out = ["\x1b[?25l"]
        if self.shown is None or len(rows) != len(self.shown):
            out.append("\x1b[0m\x1b[2J")
            self.shown = []
        for number, row in enumerate(rows):
            if number >= len(self.shown) or row != self.shown[number]:
                out.append(f"\x1b[{number + 1};1H{painted(row, self.screen.blinks)}")
        if cursor is not None:
            out.append(f"\x1b[{cursor[1] + 1};{cursor[0] + 1}H\x1b[?25h")
        self.terminal.write("".join(out).encode())
        self.shown, self.cursor = rows, cursor

    def type(self, data: bytes) -> None:
        """Presses the keys that the terminal's bytes stand for; what stands for none, or is too much, is left out."""
        at = 0
        while at < len(data):
            if data[at] == 0x1B:
                rest = data[at + 1 : at + 6]
                found = next((code for code in SEQUENCES if rest.startswith(code)), b"")
                self.stroke(SEQUENCES.get(found, "esc"))
                at += 1 + len(found)
                continue
            byte = data[at]
            at += 1
            if byte in CONTROLS:
                self.stroke(CONTROLS[byte])
            elif 0 < byte < 0x1B:
                self.stroke(f"ctrl+{chr(byte + 0x60)}")
            elif 0x20 <= byte < 0x7F:
                self.stroke(chr(byte), text=True)

    def stroke(self, keys: str, text: bool = False) -> None:
        """One key, or keys together."""
        with contextlib.suppress(BadInput):  # 4096 keys wait: the guest does not read its keyboard
            if text:
                self.keyboard.type(keys)
            else:
                self.keyboard.hotkey(keys)

    def close(self) -> None:
        """Leaves the last screen on the terminal, as text, and gives the terminal back."""
        self.terminal.write(LEAVE)
        text = self.screen.text
        if text:
            self.terminal.write(text.replace("\n", "\r\n").encode() + b"\r\n")
        self.terminal.close()


def painted(row: bytes, blinks: bool) -> str:
    """A row with the colours of its attributes."""
    out, last = [], -1
    for at in range(0, len(row), 2):
        attribute = row[at + 1]
        if attribute != last:
            out.append(f"\x1b[{rendition(attribute, blinks)}m")
            last = attribute
        out.append(PICTURES[row[at]])
    return "".join(out) + "\x1b[0m"


def rendition(attribute: int, blinks: bool) -> str:
    """SGR's parameters of an attribute; 90-97 and 100-107 are the bright colours of aixterm."""
    colour, background = attribute & 15, attribute >> 4
    blink = ""
    if blinks:
        blink, background = ("5;" if background & 8 else ""), background & 7
    return (
        f"0;{blink}{(90 if colour & 8 else 30) + ANSI[colour & 7]};"
        f"{(100 if background & 8 else 40) + ANSI[background & 7]}"
    )
