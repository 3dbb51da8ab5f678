"""The VGA's text mode: registers and memory, without a processor; the screen as text and on a terminal.

PS/2 Hardware Interface Technical Reference, "Video Subsystem".
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu._core import Bus, Clock
from emu.chips.ps2_keyboard import Ps2Keyboard
from emu.chips.vga import Vga
from emu.host.backend import Backend
from emu.host.display import TerminalDisplay
from emu.host.keyboard import Keyboard
from emu.host.screen import Cell, Screen

HZ = 28_322_000  # a cycle is a dot
DOTS, LINES, SHOWN = 900, 449, 400


class Display:
    """An adapter on a bus of its own."""

    def __init__(self) -> None:
        self.clock = Clock(HZ)
        self.bus = Bus(self.clock)
        self.chip = Vga(self.clock, "vga", self.bus)
        self.bus.map_ports(0x3B0, 12, self.chip)
        self.bus.map_ports(0x3C0, 32, self.chip)
        self.screen = Screen(self.chip)
        self.read = self.bus.port_read

    def write(self, port: int, index: int, value: int) -> None:
        """An indexed register."""
        self.bus.port_write(port, index)
        self.bus.port_write(port + 1, value)

    def put(self, text: str, column: int = 0, row: int = 0, attribute: int = 7) -> None:
        data = b"".join(bytes((ord(character), attribute)) for character in text)
        self.bus.write(0xB8000 + 2 * (80 * row + column), data)


@pytest.fixture
def vga() -> Display:
    return Display()


def test_text(vga: Display) -> None:
    assert (vga.screen.text, vga.screen.size, vga.screen.cursor) == ("", (80, 25), (0, 0))
    vga.put("hello")
    vga.put("world", 75, 24, 0x1E)
    assert vga.screen.lines == ["hello", *[""] * 23, " " * 75 + "world"]
    assert vga.screen.text.endswith("world")
    assert vga.screen.cells[24][75] == Cell("w", 0x1E)
    assert vga.screen.cells[1][0] == Cell(" ", 7)


def test_every_code_has_a_picture_of_its_own(vga: Display) -> None:
    vga.bus.write(0xB8000, bytes(value for code in range(256) for value in (code, 7)))
    pictures = [cell.character for row in vga.screen.cells for cell in row][:256]
    assert pictures[0] == pictures[32] == pictures[255] == " "
    assert len(set(pictures)) == 254
    assert "".join(pictures[1:4]) + pictures[0xDB] + pictures[0xE1] == "☺☻♥█ß"


def test_cursor(vga: Display) -> None:
    vga.write(0x3D4, 0x0E, 1999 >> 8)
    vga.write(0x3D4, 0x0F, 1999 & 255)
    assert vga.screen.cursor == (79, 24)
    vga.write(0x3D4, 0x0F, (1999 & 255) + 1)
    assert vga.screen.cursor is None
    vga.write(0x3D4, 0x0E, 0)
    vga.write(0x3D4, 0x0A, 0x2D)
    assert vga.screen.cursor is None


def test_start_address_scrolls_and_wraps(vga: Display) -> None:
    vga.put("second", 0, 1)
    vga.write(0x3D4, 0x0D, 80)
    assert vga.screen.lines[0] == "second"
    vga.put("first")
    vga.write(0x3D4, 0x0C, 0x3F)
    vga.write(0x3D4, 0x0D, 0xB0)  # 80 characters before the end of the 32 KiB
    assert vga.screen.lines[:3] == ["", "first", "second"]


def test_other_text_modes(vga: Display) -> None:
    vga.write(0x3D4, 0x09, 0x47)  # eight lines a character
    assert vga.screen.size == (80, 50)
    vga.write(0x3D4, 0x11, 0x0E)
    vga.write(0x3D4, 0x01, 39)
    vga.write(0x3D4, 0x13, 20)
    assert vga.screen.size == (40, 50)
    vga.put("x" * 80)
    assert vga.screen.lines[:2] == ["x" * 40, "x" * 40]
    vga.write(0x3CE, 6, 0x05)
    assert (vga.screen.size, vga.screen.lines, vga.screen.text) == ((0, 0), [], "")


def test_memory_map(vga: Display) -> None:
    vga.put("colour")
    assert vga.bus.mem_read(0xB0000) == 0xFFFFFFFF
    vga.write(0x3CE, 6, 0x0A)
    assert vga.bus.read(0xB0000, 2) == b"c\x07"
    assert vga.bus.mem_read(0xB8000) == 0xFFFFFFFF
    vga.bus.port_write(0x3C2, 0x65)  # the memory does not answer at all
    assert vga.bus.mem_read(0xB0000) == 0xFFFFFFFF
    assert vga.screen.lines[0] == "colour"


def test_mono_ports(vga: Display) -> None:
    """MISC bit 0: the CRT controller at 3B4h or 3D4h."""
    assert (vga.read(0x3B4), vga.read(0x3CC)) == (0xFF, 0x67)
    vga.bus.port_write(0x3C2, 0x66)
    vga.write(0x3B4, 0x0F, 5)
    assert (vga.read(0x3D4), vga.read(0x3B5)) == (0xFF, 5)
    assert vga.screen.cursor == (5, 0)


def test_protected_registers(vga: Display) -> None:
    vga.write(0x3D4, 0x00, 0x11)
    assert vga.read(0x3D5) == 0x5F
    vga.write(0x3D4, 0x07, 0x00)
    assert vga.read(0x3D5) == 0x0F  # bit 4, of the line compare, is free
    vga.write(0x3D4, 0x11, 0x0E)
    vga.write(0x3D4, 0x00, 0x11)
    assert vga.read(0x3D5) == 0x11


def test_attribute_controller(vga: Display) -> None:
    """Index and data by turns at 3C0h; reading 3DAh makes the next one an index. The screen is dark meanwhile."""
    vga.read(0x3DA)
    vga.bus.port_write(0x3C0, 0x01)
    assert not vga.screen.on
    vga.bus.port_write(0x3C0, 0x3F)
    vga.bus.port_write(0x3C0, 0x30)
    vga.read(0x3DA)
    vga.bus.port_write(0x3C0, 0x21)
    vga.bus.port_write(0x3C0, 0x02)  # the palette is the display's now
    assert (vga.screen.on, vga.read(0x3C1)) == (True, 0x3F)
    assert vga.screen.blinks
    vga.bus.port_write(0x3C0, 0x30)
    vga.bus.port_write(0x3C0, 0x04)
    assert not vga.screen.blinks
    vga.write(0x3C4, 1, 0x20)
    assert not vga.screen.on


def test_dac(vga: Display) -> None:
    vga.bus.port_write(0x3C8, 255)
    for value in (1, 2, 0xFF, 4, 5, 6):
        vga.bus.port_write(0x3C9, value)
    assert (vga.read(0x3C8), vga.read(0x3C7)) == (1, 0)
    vga.bus.port_write(0x3C7, 255)
    assert [vga.read(0x3C9) for _ in range(6)] == [1, 2, 0x3F, 4, 5, 6]
    assert vga.read(0x3C7) == 3
    vga.bus.port_write(0x3C7, 0x14)
    assert [vga.read(0x3C9) for _ in range(3)] == [42, 21, 0]  # brown


def test_beam(vga: Display) -> None:
    """70.086 Hz, 31.469 kHz: input status 1 by the time that has passed."""
    status = []
    for _ in range(LINES):
        status.append(vga.read(0x3DA))
        vga.clock.advance(720)
        assert vga.read(0x3DA) & 1
        vga.clock.advance(DOTS - 720)
    assert [line for line in range(LINES) if not status[line] & 1] == list(range(SHOWN))
    assert [line for line in range(LINES) if status[line] & 8] == [412, 413]
    assert vga.read(0x3DA) == status[0]


def test_state(vga: Display, round_trip: Callable) -> None:
    vga.put("text")
    vga.write(0x3D4, 0x0F, 7)
    other = Display()
    round_trip(vga.chip, other.chip)
    other.chip.load(vga.chip.save())
    assert (other.screen.text, other.screen.cursor) == ("text", (7, 0))


class Terminal(Backend):
    """Remembers what it was shown, and types what it was told to."""

    def __init__(self) -> None:
        self.shown = b""
        self.typed = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.shown += data

    def read(self, limit: int) -> bytes:
        data, self.typed = self.typed[:limit], self.typed[limit:]
        return data

    def close(self) -> None:
        self.closed = True

    def take(self) -> str:
        data, self.shown = self.shown, b""
        return data.decode()


def test_terminal(vga: Display) -> None:
    """Only changed rows are sent, with the colours of ECMA-48; at the end the screen stays as text."""
    terminal = Terminal()
    keyboard = Ps2Keyboard(vga.clock, "keyboard")
    display = TerminalDisplay(vga.screen, Keyboard(keyboard, HZ), terminal)
    vga.put("ab", 0, 3, 0x1E)
    display.poll()
    assert "\x1b[4;1H\x1b[0;93;44mab\x1b[0;37;40m " in terminal.take()
    display.due = 0.0
    display.poll()
    assert terminal.take() == ""
    vga.put("c", 79, 24, 0x84)
    display.poll()
    assert terminal.take() == ""  # too early
    display.due = 0.0
    display.poll()
    shown = terminal.take()
    assert shown.count("H") == 2 and "\x1b[0;5;31;40mc" in shown
    vga.read(0x3DA)
    vga.bus.port_write(0x3C0, 0x30)
    vga.bus.port_write(0x3C0, 0x04)  # a bright background in place of blinking
    vga.put("d", 78, 24, 0x84)
    display.due = 0.0
    display.poll()
    assert "\x1b[0;31;100mdc" in terminal.take()
    display.close()
    assert terminal.closed and terminal.take().endswith("c\r\n")


def test_terminal_keys(vga: Display) -> None:
    terminal = Terminal()
    keyboard = Ps2Keyboard(vga.clock, "keyboard")
    vga.clock.advance(HZ)  # the keyboard's self-test
    display = TerminalDisplay(vga.screen, Keyboard(keyboard, HZ), terminal)
    terminal.typed = b"a\r\x1b[A\x1bOP\x1b[24~\x03\x1b\x00\xff"
    display.poll()
    vga.clock.advance(2 * HZ)
    display.type(b"x" * 10_000)
    assert keyboard.waiting_keys <= 4096
    saved = keyboard.save()
    assert saved["buffer"][:15] == bytes.fromhex("1c f0 1c  5a f0 5a  e0 75 e0 f0 75  05 f0 05  07")
    assert saved["keys"][0][1:] == (7, 0)  # F12 goes up when there is room
    assert [code for _, code, down in saved["keys"] if down][:4] == [0x14, 0x21, 0x76, 0x22]
