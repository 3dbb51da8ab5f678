"""The host's fingers: text and key names as keys of a US keyboard."""

import re
from typing import Protocol

__all__ = ["KEYS", "Keyboard", "Keys"]

HOLD_SECONDS = 0.030  # a key stays down
GAP_SECONDS = 0.020  # before the next one

# Scan codes of set 2 by the key's name; E0h goes before those from E000h on, E1h is Pause.
KEYS = {
    **dict(zip("abcdefghijklmnopqrstuvwxyz", bytes.fromhex(
        "1c 32 21 23 24 2b 34 33 43 3b 42 4b 3a 31 44 4d 15 2d 1b 2c 3c 2a 1d 22 35 1a"), strict=True)),
    **dict(zip("0123456789", bytes.fromhex("45 16 1e 26 25 2e 36 3d 3e 46"), strict=True)),
    **dict(zip("`-=[]\\;',./ ", bytes.fromhex("0e 4e 55 54 5b 5d 4c 52 41 49 4a 29"), strict=True)),
    **dict(zip((f"f{number}" for number in range(1, 13)), bytes.fromhex(
        "05 06 04 0c 03 0b 83 0a 01 09 78 07"), strict=True)),
    "esc": 0x76, "tab": 0x0D, "enter": 0x5A, "backspace": 0x66, "space": 0x29, "capslock": 0x58,
    "shift": 0x12, "rightshift": 0x59, "ctrl": 0x14, "rightctrl": 0xE014, "alt": 0x11, "altgr": 0xE011,
    "win": 0xE01F, "rightwin": 0xE027, "menu": 0xE02F,
    "insert": 0xE070, "delete": 0xE071, "home": 0xE06C, "end": 0xE069, "pageup": 0xE07D, "pagedown": 0xE07A,
    "up": 0xE075, "down": 0xE072, "left": 0xE06B, "right": 0xE074,
    "printscreen": 0xE07C, "scrolllock": 0x7E, "pause": 0xE1, "numlock": 0x77, "less": 0x61,
    **{f"keypad{number}": code for number, code in enumerate(bytes.fromhex("70 69 72 7a 6b 73 74 6c 75 7d"))},
    "keypad.": 0x71, "keypad+": 0x79, "keypad-": 0x7B, "keypad*": 0x7C, "keypad/": 0xE04A, "keypadenter": 0xE05A,
}  # fmt: skip

CONTROL = {"\n": "enter", "\r": "enter", "\t": "tab", "\b": "backspace", "\x1b": "esc"}
SHIFTED = dict(zip('~!@#$%^&*()_+{}|:"<>?', "`1234567890-=[]\\;',./", strict=True))


class Keys(Protocol):
    """What the host needs of the keyboard."""

    @property
    def last_cycle(self) -> int: ...
    def key(self, code: int, down: bool, cycle: int | None = None) -> None: ...


class Keyboard:
    """The keyboard as a user holds it. Each key is an event with a cycle, so that the same run can be had again.

    What is said while others still wait comes after them.

    Args:
        keys: the chip.
        hz: processor cycles in a second.
    """

    def __init__(self, keys: Keys, hz: int) -> None:
        self.keys = keys
        self.hz = hz

    def press(self, key: str, cycle: int | None = None) -> None:
        """A key goes down, now or at a cycle.

        Args:
            key: its name, such as "a", "F12", "enter", "left", "keypad5"; case does not matter.

        Raises:
            ValueError: there is no such key.
            BadInput: 4096 keys wait already.
        """
        self.keys.key(code(key), True, cycle)

    def release(self, key: str, cycle: int | None = None) -> None:
        """A key goes up; otherwise like `press`."""
        self.keys.key(code(key), False, cycle)

    def hotkey(self, keys: str, cycle: int | None = None) -> None:
        """Presses keys one after another and releases them in the opposite order.

        Args:
            keys: names with + between, such as "ctrl+alt+delete".

        Raises:
            ValueError: one of them is no key.
            BadInput: 4096 keys wait already.
        """
        names = re.split(r"(?<=.)\+(?=.)", keys)
        codes = [code(name) for name in names]
        at = self.start(cycle)
        for each in codes:
            self.keys.key(each, True, at)
            at += round(GAP_SECONDS * self.hz)
        for each in reversed(codes):
            self.keys.key(each, False, at)

    def type(self, text: str, cycle: int | None = None) -> None:
        """Types text, 20 characters a second.

        Raises:
            ValueError: a character is on no key of a US keyboard; nothing is typed then.
            BadInput: 4096 keys wait already.
            TypeError: it is no text.
        """
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is no text that could be typed")
        strokes = [stroke(character) for character in text]
        at = self.start(cycle)
        for each, shift in strokes:
            if shift:
                self.keys.key(KEYS["shift"], True, at)
            self.keys.key(each, True, at)
            at += round(HOLD_SECONDS * self.hz)
            self.keys.key(each, False, at)
            if shift:
                self.keys.key(KEYS["shift"], False, at)
            at += round(GAP_SECONDS * self.hz)

    def start(self, cycle: int | None) -> int:
        """When to begin: at a cycle, or after the keys that wait."""
        return self.keys.last_cycle if cycle is None else cycle


def code(key: str) -> int:
    """The scan code of a key by its name."""
    name = key.lower() if len(key) > 1 else stroke_name(key)
    if name not in KEYS:
        raise ValueError(f"no key is called {key!r}")
    return KEYS[name]


def stroke_name(character: str) -> str:
    """The name of the key that a character is on."""
    return SHIFTED.get(character) or CONTROL.get(character) or character.lower()


def stroke(character: str) -> tuple[int, bool]:
    """The scan code of a character's key, and whether Shift is needed."""
    name = stroke_name(character)
    if not character.isascii() or name not in KEYS:
        raise ValueError(f"{character!r} is on no key")
    return KEYS[name], character in SHIFTED or character.isupper()
