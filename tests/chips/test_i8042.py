"""The keyboard controller and its keyboard, without a processor.

What a PC's software relies on of the PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
Controller" and "Keyboards".
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu._core import Clock
from emu.board import Board
from emu.chips.i8042 import I8042
from emu.chips.ps2_keyboard import Ps2Keyboard
from emu.errors import BadInput
from emu.host.keyboard import KEYS, Keyboard, code

HZ = 1_000_000  # a cycle is a microsecond
FRAME = 880
OBF, IBF, SYS, CMD, AUXB, TIMEOUT = 1, 2, 4, 8, 0x20, 0x40


class Kbc:
    """A controller with a keyboard on a bench, and the habits of a driver."""

    def __init__(self, bench: Callable) -> None:
        self.bench = bench(HZ)
        self.clock = self.bench.clock
        self.keyboard = Ps2Keyboard(self.clock, "keyboard")
        self.chip = I8042(self.clock, "kbc", self.keyboard)
        self.keyboard.connect("READY", self.chip, 0)
        self.wires = {name: self.bench.probe(self.chip, name) for name in ("IRQ1", "IRQ12", "A20", "RC")}
        self.bench.place(self.chip, 0x60, 1)
        self.bench.place(self.chip, 0x64, 1)
        self.keys = Keyboard(self.keyboard, HZ)

    @property
    def status(self) -> int:
        return self.bench.read(0x64)

    def command(self, value: int, *data: int) -> None:
        self.bench.write(0x64, value)
        for byte in data:
            self.bench.write(0x60, byte)

    def ask(self, value: int) -> int:
        """The controller's answer to a command, which comes at once."""
        self.command(value)
        assert self.status & OBF
        return self.bench.read(0x60)

    def read(self, milliseconds: int = 5) -> list[int]:
        """All that comes while so much time passes."""
        found = []
        for _ in range(milliseconds * 1000 // 40):
            if self.status & OBF:
                found.append(self.bench.read(0x60))
            self.clock.advance(40)
        return found

    def send(self, *data: int) -> list[int]:
        """Bytes to the keyboard, and what it says to each."""
        found = []
        for byte in data:
            self.bench.write(0x60, byte)
            found += self.read()
        return found

    def start(self, command_byte: int = 0x41) -> None:
        """After the keyboard's test, with the command byte given: by default IRQ1 and translation."""
        self.command(0x60, command_byte)
        assert self.read(600) == [0xAA]


@pytest.fixture
def kbc(bench: Callable) -> Kbc:
    return Kbc(bench)


class TestController:
    def test_self_test_and_interface_tests(self, kbc: Kbc) -> None:
        assert kbc.status == 0x10
        assert (kbc.ask(0xAA), kbc.ask(0xAB), kbc.ask(0xA9)) == (0x55, 0, 0)
        assert kbc.status == 0x10 | SYS | CMD

    def test_ram_and_command_byte(self, kbc: Kbc) -> None:
        for index in range(1, 32):
            kbc.command(0x60 + index, 0x80 + index)
        assert [kbc.ask(0x20 + index) for index in range(1, 32)] == list(range(0x81, 0xA0))
        kbc.command(0x60, 0x47)
        assert (kbc.ask(0x20), kbc.status & (SYS | CMD)) == (0x47, SYS | CMD)
        kbc.command(0xA7)
        assert kbc.ask(0x20) == 0x67
        kbc.command(0xAD)
        assert kbc.ask(0x20) == 0x77
        kbc.command(0xA8)
        kbc.command(0xAE)
        assert kbc.ask(0x20) == 0x47

    def test_ports(self, kbc: Kbc) -> None:
        """Input port: the lock is open. Output port: all lines high after reset; its writes drive A20."""
        assert kbc.ask(0xC0) & 0x80
        assert kbc.ask(0xD0) & 3 == 3
        kbc.command(0xD1, 0xDD)
        assert kbc.chip.level("A20") == 0
        assert kbc.ask(0xD0) & 3 == 1
        kbc.command(0xD1, 0xDF)
        assert kbc.chip.level("A20") == 1

    @pytest.mark.parametrize("command", [(0xFE,), (0xF0,), (0xD1, 0xDE)])
    def test_reset_is_a_pulse(self, kbc: Kbc, command: tuple[int, ...]) -> None:
        kbc.command(*command)
        assert [level for _, level in kbc.wires["RC"].levels()] == [1, 0]
        assert kbc.ask(0xD0) & 1

    @pytest.mark.parametrize("command", [(0xFF,), (0xF1,), (0xD1, 0xDF)])
    def test_no_reset(self, kbc: Kbc, command: tuple[int, ...]) -> None:
        kbc.command(*command)
        assert kbc.wires["RC"].levels() == []

    def test_reset_opens_a20(self, kbc: Kbc) -> None:
        kbc.command(0xD1, 0xDD)
        kbc.chip.reset()
        assert kbc.chip.level("A20") == 1

    @pytest.mark.parametrize(("command", "wire", "aux"), [(0xD2, "IRQ1", 0), (0xD3, "IRQ12", AUXB)])
    def test_bytes_as_if_a_device_had_sent_them(self, kbc: Kbc, command: int, wire: str, aux: int) -> None:
        kbc.command(0x60, 0x03)
        kbc.command(command, 0x5A)
        assert kbc.status & (OBF | AUXB) == OBF | aux
        assert kbc.chip.level(wire) == 1
        assert kbc.bench.read(0x60) == 0x5A
        assert kbc.chip.level(wire) == 0
        assert not kbc.status & OBF

    def test_no_mouse(self, kbc: Kbc) -> None:
        """What is sent to an empty port times out: FEh from there, and status bit 6."""
        kbc.command(0xD4, 0xF2)
        kbc.clock.advance(FRAME - 1)
        assert not kbc.status & OBF
        kbc.clock.advance(1)
        assert kbc.status & (OBF | AUXB | TIMEOUT) == OBF | AUXB | TIMEOUT
        assert kbc.bench.read(0x60) == 0xFE

    def test_input_buffer_is_full_while_a_byte_is_on_its_way(self, kbc: Kbc) -> None:
        kbc.bench.write(0x60, 0xEE)
        assert not kbc.status & IBF
        kbc.bench.write(0x60, 0xEE)
        kbc.clock.advance(FRAME - 1)
        assert kbc.status & IBF
        kbc.clock.advance(1)
        assert not kbc.status & IBF

    def test_an_answer_goes_before_a_key(self, kbc: Kbc) -> None:
        """The key's byte stays in the output buffer, behind it."""
        kbc.start()
        kbc.keys.press("a")
        kbc.clock.advance(FRAME)
        assert kbc.status & OBF
        assert kbc.ask(0xAB) == 0
        assert kbc.chip.level("IRQ1") == 1
        assert kbc.bench.read(0x60) == 0x1E
        assert kbc.chip.level("IRQ1") == 0


class TestKeyboard:
    def test_power_on(self, kbc: Kbc) -> None:
        """BAT takes half a second, its code another frame."""
        kbc.command(0xAE)
        kbc.clock.advance(500_000 + FRAME - 1)
        assert not kbc.status & OBF
        kbc.clock.advance(1)
        assert kbc.bench.read(0x60) == 0xAA

    def test_reset_and_identification(self, kbc: Kbc) -> None:
        kbc.start(0x01)
        assert kbc.send(0xFF) == [0xFA]
        assert kbc.read(490) == []
        assert kbc.read(20) == [0xAA]
        assert kbc.send(0xF2) == [0xFA, 0xAB, 0x83]
        kbc.command(0x60, 0x41)
        assert kbc.send(0xF2) == [0xFA, 0xAB, 0x41]  # translated like all the rest

    def test_commands(self, kbc: Kbc) -> None:
        kbc.start(0x01)
        assert kbc.send(0xEE) == [0xEE]
        assert kbc.send(0xED, 0x05) == [0xFA, 0xFA]
        assert kbc.keyboard.leds == 5
        assert kbc.send(0xF3, 0x7F) == [0xFA, 0xFA]
        assert kbc.send(0xF0, 0) == [0xFA, 0xFA, 2]
        assert kbc.send(0xF0, 1) == [0xFA, 0xFA]
        assert kbc.send(0xF0, 0) == [0xFA, 0xFA, 1]
        assert kbc.send(0xF0, 4) == [0xFA, 0xFE]
        assert kbc.send(0xF4) == [0xFA]  # a command in place of the argument
        assert kbc.send(0xFE) == [0xFA]
        assert kbc.send(0xF6) == [0xFA]
        assert kbc.send(0xF0, 0) == [0xFA, 0xFA, 2]
        for nonsense in (0x00, 0xAA, 0xEC, 0xEF, 0xF1):
            assert kbc.send(nonsense) == [0xFE]
        assert kbc.send(0xFC, 0x1C, 0x24, 0x00) == [0xFA, 0xFA, 0xFA, 0xFE]

    def test_interrupt_a_frame_after_the_key(self, kbc: Kbc) -> None:
        kbc.start()
        kbc.wires["IRQ1"].changes.clear()
        cycle = kbc.clock.cycle + 1000
        kbc.keys.press("a", cycle)
        kbc.clock.advance(5000)
        assert kbc.wires["IRQ1"].levels() == [(cycle + FRAME, 1)]
        assert kbc.read() == [0x1E]

    @pytest.mark.parametrize(
        ("key", "set_2", "up_2", "set_1", "up_1"),
        [
            ("a", "1c", "f0 1c", "1e", "9e"),
            ("F7", "83", "f0 83", "41", "c1"),
            ("F12", "07", "f0 07", "58", "d8"),
            ("up", "e0 75", "e0 f0 75", "e0 48", "e0 c8"),
            ("rightctrl", "e0 14", "e0 f0 14", "e0 1d", "e0 9d"),
            ("printscreen", "e0 12 e0 7c", "e0 f0 7c e0 f0 12", "e0 2a e0 37", "e0 b7 e0 aa"),
            ("pause", "e1 14 77 e1 f0 14 f0 77", "", "e1 1d 45 e1 9d c5", ""),
            ("keypadenter", "e0 5a", "e0 f0 5a", "e0 1c", "e0 9c"),
        ],
    )
    def test_scan_codes(self, kbc: Kbc, key: str, set_2: str, up_2: str, set_1: str, up_1: str) -> None:
        """Set 2 plain, set 2 translated, and set 1 of the keyboard's own: the last two are the same."""

        def stroke() -> tuple[bytes, bytes]:
            kbc.keys.press(key)
            made = bytes(kbc.read(12))
            kbc.keys.release(key)
            return made, bytes(kbc.read(12))

        kbc.start(0x00)
        assert stroke() == (bytes.fromhex(set_2), bytes.fromhex(up_2))
        kbc.command(0x60, 0x40)
        assert stroke() == (bytes.fromhex(set_1), bytes.fromhex(up_1))
        kbc.command(0x60, 0x00)
        kbc.send(0xF0, 1)
        assert stroke() == (bytes.fromhex(set_1), bytes.fromhex(up_1))

    @pytest.mark.parametrize("scan_code_set", [2, 3])
    def test_all_keys_have_codes_of_their_own(self, kbc: Kbc, scan_code_set: int) -> None:
        kbc.start(0x01)
        kbc.send(0xF0, scan_code_set)
        seen = {}
        for key, scan_code in KEYS.items():
            kbc.keyboard.key(scan_code, True)
            seen.setdefault(bytes(kbc.read(12)), []).append(key)
            kbc.keyboard.key(scan_code, False)
            kbc.read(12)
        assert [keys for keys in seen.values() if len(keys) > 1] == [[" ", "space"]]

    def test_scan_code_set_3(self, kbc: Kbc) -> None:
        """A byte a key; whether a key repeats and whether its going up is told is set for each (F7h to FDh)."""

        def held(key: str) -> tuple[str, str]:
            """What a second's press sends, repeats shortened to one, and the release."""
            kbc.keys.press(key)
            made = bytes(kbc.read(1000))
            kbc.keys.release(key)
            return made[:2].hex(" "), bytes(kbc.read(12)).hex(" ")

        kbc.start(0x01)
        assert kbc.send(0xF0, 3) == [0xFA, 0xFA]
        assert kbc.send(0xF0, 0) == [0xFA, 0xFA, 3]
        assert held("a") == ("1c 1c", "") and held("up") == ("63 63", "") and held("keypad+") == ("7c 7c", "")
        for key, made in (("shift", "12"), ("ctrl", "11"), ("capslock", "14")):
            assert held(key) == (made, f"f0 {made}")
        for key, made in {"esc": "08", "f7": "37", "printscreen": "57", "pause": "62", "altgr": "39", "home": "6e",
                          "keypadenter": "79", "keypad-": "84", "keypad/": "77", "keypad*": "7e"}.items():  # fmt: skip
            assert held(key) == (made, "")
        assert kbc.send(0xFC, 0x1C) == [0xFA, 0xFA] and held("a") == ("1c", "f0 1c")
        assert kbc.send(0xFD, 0x63, 0x1C) == [0xFA] * 3 and held("a") == ("1c", "") and held("up") == ("63", "")
        for command, expected in ((0xF7, ("1c 1c", "")), (0xF8, ("1c", "f0 1c")), (0xF9, ("1c", "")),
                                  (0xFA, ("1c 1c", "f0 1c"))):  # fmt: skip
            assert kbc.send(command) == [0xFA] and held("a") == expected
        kbc.send(0xF0, 2)  # the other sets have no types
        assert held("esc") == ("76 76", "f0 76")

    def test_typematic(self, kbc: Kbc) -> None:
        """The last key pressed repeats: after 500 ms, 10.9 times a second, unless F3h says otherwise."""
        kbc.start()
        kbc.keys.press("a")
        kbc.keys.press("b")
        assert kbc.read(499) == [0x1E, 0x30]
        assert kbc.read(1000) == [0x30] * 11
        kbc.keys.release("b")
        assert kbc.read(1000) == [0xB0]
        kbc.send(0xF3, 0x00)  # 250 ms, 30 a second
        kbc.keys.press("c")
        assert kbc.read(249) == [0x2E]
        assert kbc.read(1000) == [0x2E] * 30
        kbc.keys.release("c")

    def test_disabled(self, kbc: Kbc) -> None:
        """Scanning off: keys are lost. Interface off: they wait."""
        kbc.start()
        assert kbc.send(0xF5) == [0xFA]
        kbc.keys.type("a")
        assert kbc.read(200) == []
        assert kbc.send(0xF4) == [0xFA]
        kbc.command(0xAD)
        kbc.keys.type("b")
        assert kbc.read(200) == []
        kbc.command(0xAE)
        assert kbc.read() == [0x30, 0xB0]

    def test_fingers_wait_while_the_buffer_is_full(self, kbc: Kbc) -> None:
        kbc.start()
        kbc.keys.type("x" * 100)
        kbc.clock.advance(20 * HZ)
        assert kbc.keyboard.waiting_keys > 180
        assert kbc.read(2000) == [0x2D, 0xAD] * 100
        assert kbc.keyboard.waiting_keys == 0

    def test_state(self, kbc: Kbc, round_trip: Callable) -> None:
        kbc.start()
        kbc.keys.type("Hello")
        kbc.command(0xD1)
        kbc.clock.advance(12_345)
        clock = Clock(HZ)
        round_trip(kbc.keyboard, Ps2Keyboard(clock, "keyboard"))
        round_trip(kbc.chip, I8042(clock, "kbc"))
        state = kbc.keyboard.save()
        for wrong in ({"count": 17}, {"reply_count": 5}, {"keys": [(1,)]}, {"keys": [(0, 1, 1)] * 4097}):
            with pytest.raises(BadInput):
                Ps2Keyboard(clock, "keyboard").load(state | wrong)


class TestFingers:
    def test_text(self, kbc: Kbc) -> None:
        kbc.start()
        begun = kbc.clock.cycle
        kbc.keys.type("aB\n")
        assert kbc.keyboard.last_cycle == begun + 130_000
        assert kbc.read(200) == [0x1E, 0x9E, 0x2A, 0x30, 0xB0, 0xAA, 0x1C, 0x9C]

    def test_hotkey(self, kbc: Kbc) -> None:
        kbc.start()
        kbc.keys.hotkey("ctrl+alt+s")
        assert kbc.read(200) == [0x1D, 0x38, 0x1F, 0x9F, 0xB8, 0x9D]
        kbc.keys.hotkey("ctrl++", cycle=kbc.clock.cycle + 100_000)
        assert kbc.read(90) == []
        assert kbc.read(200) == [0x1D, 0x0D, 0x8D, 0x9D]

    def test_keys_that_are_none(self, kbc: Kbc) -> None:
        with pytest.raises(ValueError, match="no key is called 'hyper'"):
            kbc.keys.press("hyper")
        with pytest.raises(ValueError, match="'é' is on no key"):
            kbc.keys.type("abcé")
        with pytest.raises(TypeError, match="b'abc' is no text"):
            kbc.keys.type(b"abc")  # type: ignore[arg-type]
        for wrong in (0, 0x85, 0xE000, 0x1234, 1 << 31):
            with pytest.raises(ValueError, match="scan code"):
                kbc.keyboard.key(wrong, True)
        assert kbc.keyboard.waiting_keys == 0

    def test_bounded(self, kbc: Kbc) -> None:
        with pytest.raises(BadInput, match="4096 keys wait already"):
            kbc.keys.type("x" * 5000)
        assert kbc.keyboard.waiting_keys <= 4096
        assert code("+") == code("=") == KEYS["="]


def test_on_the_board() -> None:
    """A20 is open where either the controller or port 92h opens it."""
    from emu._core import Model

    board = Board(Model("pentium3"), 1 << 20, bytes(4096))
    read, write = board.bus.port_read, board.bus.port_write
    assert (board.bus.a20, read(0x92)) == (True, 0)
    write(0x64, 0xD1)
    write(0x60, 0xDD)
    assert not board.bus.a20
    write(0x92, 2)
    assert board.bus.a20
    write(0x64, 0xD1)
    write(0x60, 0xDF)
    write(0x92, 0)
    assert board.bus.a20
