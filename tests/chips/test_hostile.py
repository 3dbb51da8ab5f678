"""Guests and users that do anything at all: no chip crashes, hangs or forgets part of its state."""

import importlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from emu._core import Bus, Clock, Model
from emu.board import Board
from emu.host.disk import Disk

CHIPS = Path(importlib.import_module("emu.chips").__file__ or "").parent
PORTS = [
    *(0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1),
    *range(0x40, 0x44),
    *(0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92, 0xB2, 0xB3),
    *(0xCF8, 0xCF9, 0xCFB),
    *range(0xCFC, 0xD00),
    *range(0x170, 0x178),
    *range(0x1F0, 0x1F8),
    *(0x376, 0x3F6),
    *range(0x2F8, 0x300),
    *range(0x3B0, 0x3BC),
    *range(0x3C0, 0x3E0),
    *range(0x3F8, 0x400),
    *(0xCA2, 0xCA3),
    *range(0x600, 0x640),
    *(0xE9, 0x501),
]

ATA_COMMANDS = (0x20, 0x24, 0x30, 0x34, 0x40, 0x70, 0x90, 0x91, 0xC4, 0xC5, 0xC6, 0xE4, 0xE8, 0xEC, 0xEF, 0xF8, 0xF9)


def new_board(folder: Path) -> Board:
    """With two disks on the first cable and one on the second."""
    path = folder / "disk.img"
    if not path.exists():
        path.write_bytes(b"disk" * 128 * 300)
    disks = [Disk(path, snapshot=True), Disk(path, readonly=True), Disk(path, snapshot=True)]
    disks[2].fail(range(10, 20), "write_fault")
    disks[2].fail(range(15, 25))
    board = Board(Model("pentium3"), 1 << 20, bytes(4096), debugcon=0xE9, debug_exit=0x501, disks=disks)
    board.ide.write_config(4, 1, 2)
    board.ide.write_config(0x40, 0x80008000, 4)
    board.memory.write(0xA0000, b"RAM " * 0x18000)
    return board


def traffic(seed: int, count: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Random accesses, with pauses from nothing to many milliseconds."""
    pick = random.Random(seed)
    for _ in range(count):
        size = pick.choice((1, 1, 1, 2, 4))
        what = pick.random()
        if what < 0.03:  # a command that an ATA drive knows, on a sector that it has
            base = pick.choice((0x170, 0x1F0))
            yield "write", (base + 6, pick.choice((0xE0, 0xF0, 0xA0, 0x40)), 1)
            for register, value in ((2, pick.randrange(9)), (3, pick.randrange(30)), (4, 0), (5, 0)):
                yield "write", (base + register, value, 1)
            yield "write", (base + 7, pick.choice(ATA_COMMANDS), 1)
            yield "advance", (10_000_000,)
            for _ in range(pick.choice((0, 100, 128))):
                yield pick.choice((("read", (base, 4)), ("write", (base, pick.getrandbits(32), 4))))
        elif what < 0.08:  # a configuration register that is there
            yield "write", (0xCF8, 1 << 31 | pick.choice((0, 8, 9, 11)) << 8 | pick.getrandbits(8), 4)
        elif what < 0.5:
            yield "write", (pick.choice(PORTS), pick.getrandbits(8 * size), size)
        elif what < 0.8:
            yield "read", (pick.choice(PORTS), size)
        elif what < 0.95:
            yield "advance", (int(10 ** pick.uniform(0, 7)),)
        elif what < 0.97:
            yield "receive", tuple(pick.randbytes(20))
        elif what < 0.98:
            yield "key", (pick.choice((0x1C, 0x12, 0xE075, 0xE07C, 0xE1)), pick.getrandbits(1))
        else:
            yield "inta", ()


def apply(board: Board, verb: str, numbers: tuple[int, ...]) -> int | None:
    """What a guest or the outside does, and what it sees of it."""
    if verb == "write":
        board.bus.port_write(*numbers)
    elif verb == "read":
        return board.bus.port_read(*numbers)
    elif verb == "advance":
        board.clock.advance(*numbers)
    elif verb == "receive":
        return board.com1.receive(bytes(numbers))
    elif verb == "key":
        board.keyboard.key(*numbers)
    else:
        return board.pic1.inta()
    return None


@pytest.mark.parametrize("seed", range(8))
def test_a_copy_made_at_any_time_goes_on_alike(seed: int, tmp_path: Path) -> None:
    """After any traffic, what the chips and the clock save makes a board that answers as the first one does."""
    first, second = new_board(tmp_path), new_board(tmp_path)
    for verb, numbers in traffic(seed, 3000):
        apply(first, verb, numbers)
    second.clock.load(first.clock.save())
    for chip, copy in zip(first.chips, second.chips, strict=True):
        copy.load(chip.save())
    first.com1.take_output()
    for verb, numbers in traffic(seed + 1000, 3000):
        assert apply(first, verb, numbers) == apply(second, verb, numbers)
    assert first.com1.take_output() == second.com1.take_output()
    assert [chip.save() for chip in first.chips] == [chip.save() for chip in second.chips]
    assert first.clock.save() == second.clock.save()
    assert first.bus.a20 == second.bus.a20
    for address in range(0xA0000, 0x100000, 0x4000):
        assert first.bus.mem_read(address) == second.bus.mem_read(address)


@pytest.mark.parametrize("module", sorted(path.stem for path in CHIPS.glob("*.pyi")))
def test_arguments_of_any_kind_are_errors(module: str) -> None:
    """Constructors and methods raise or do their work, whatever they are given."""
    clock = Clock()
    wrong: list[tuple[object, ...]] = [
        (), (None,), (clock,), (clock, None), (clock, "name"), (clock, "name", None), (clock, "name", Bus(clock)),
        (1, 2, 3), (-1,), (1 << 70,), ("INT",), ("INT", clock), (0, 1), ({},), (b"",), (2000, 13, 1, 0, 0, 0),
    ]  # fmt: skip
    attempts = refused = 0
    for made_of in [
        kind for kind in vars(importlib.import_module(f"emu.chips.{module}")).values() if isinstance(kind, type)
    ]:
        for arguments in wrong:
            attempts += 1
            try:
                chip = made_of(*arguments)
            except Exception:
                refused += 1
                continue
            for name in dir(chip):
                method = getattr(chip, name)
                if name.startswith("__") or not callable(method):
                    continue
                for others in wrong:
                    attempts += 1
                    try:
                        method(*others)
                    except Exception:
                        refused += 1
    assert 0 < refused < attempts
