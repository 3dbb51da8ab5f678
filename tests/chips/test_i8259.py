"""Intel 8259A: the sections of its datasheet stand beside the tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu._core import Clock
from emu.chips.i8259 import I8259

ICW1, ICW4 = 0x11, 0x01
EOI, SPECIFIC_EOI = 0x20, 0x60
READ_IRR, READ_ISR, POLL = 0x0A, 0x0B, 0x0C
SPECIAL_MASK, NO_SPECIAL_MASK = 0x68, 0x48


class Pair:
    """A PC's two controllers, initialised with vectors 20h and 28h and nothing masked."""

    def __init__(self, bench, icw1: int = ICW1, icw4: int = ICW4) -> None:
        self.bench = bench(1_000_000)
        self.master = I8259(self.bench.clock, "pic1", master=True, elcr_mask=0xF8)
        self.slave = I8259(self.bench.clock, "pic2", master=False, elcr_mask=0xDE)
        for chip in (self.master, self.slave):
            chip.reset()
        self.bench.place(self.master, 0x20, 2)
        self.bench.place(self.slave, 0xA0, 2)
        self.bench.place(self.master, 0x4D0, 1)
        self.bench.place(self.slave, 0x4D1, 1)
        self.master.connect("CAS", self.slave, I8259.CAS)
        self.slave.connect("INT", self.master, 2)
        self.write = self.bench.write
        for port, values in ((0x20, (icw1, 0x20, 0x04, icw4)), (0xA0, (icw1, 0x28, 0x02, ICW4))):
            self.write(port, values[0])
            for value in values[1:]:
                self.write(port + 1, value)
            self.write(port + 1, 0)

    def read(self, port: int, command: int) -> int:
        self.write(port, command)
        return self.bench.read(port)

    def isr(self) -> int:
        return self.read(0x20, READ_ISR)

    def irr(self) -> int:
        return self.read(0x20, READ_IRR)

    def pulse(self, line: int) -> None:
        self.master.drive(line, False)
        self.master.drive(line, True)

    @property
    def intr(self) -> int:
        return self.master.level("INT")


@pytest.fixture
def pair(bench) -> Pair:
    return Pair(bench)


def test_nothing_is_delivered_before_the_initialization_words(bench: Callable) -> None:
    chip = I8259(bench(1000).clock, "pic")
    chip.reset()
    chip.drive(3, True)
    assert chip.level("INT") == 0


def test_interrupt_sequence(pair: Pair) -> None:
    """Interrupt Sequence: IRR, INT, acknowledge sets ISR and resets IRR, EOI resets ISR."""
    pair.master.drive(3, True)
    assert (pair.intr, pair.irr(), pair.isr()) == (1, 0x08, 0)
    assert pair.master.inta() == 0x23
    assert (pair.intr, pair.irr(), pair.isr()) == (0, 0, 0x08)
    pair.write(0x20, EOI)
    assert (pair.intr, pair.isr()) == (0, 0)


def test_an_edge_is_taken_once(pair: Pair) -> None:
    """Edge and Level Triggered Modes: the input can remain high without generating another interrupt."""
    pair.master.drive(3, True)
    pair.master.inta()
    pair.write(0x20, EOI)
    assert pair.intr == 0
    pair.pulse(3)
    assert pair.master.inta() == 0x23


def test_a_request_that_is_withdrawn_gives_the_default_ir7(pair: Pair) -> None:
    """Edge and Level Triggered Modes: if the input goes low too early, IR7 without an ISR bit."""
    pair.master.drive(3, True)
    pair.master.drive(3, False)
    assert pair.intr == 0
    assert pair.master.inta() == 0x27
    assert pair.isr() == 0


def test_a_spurious_interrupt_of_the_slave_leaves_the_master_in_service(pair: Pair) -> None:
    pair.slave.drive(1, True)
    pair.write(0xA1, 0xFF)
    pair.write(0xA1, 0)
    assert pair.intr == 1
    assert pair.master.inta() == 0x29
    pair.write(0xA0, EOI)
    pair.write(0x20, EOI)
    assert (pair.isr(), pair.intr) == (0, 0)
    assert pair.slave.inta() == 0x2F
    assert pair.read(0xA0, READ_ISR) == 0


def test_fully_nested_mode(pair: Pair) -> None:
    """Fully Nested Mode: IR0 has the highest priority; a level in service holds back itself and those below."""
    pair.master.drive(5, True)
    pair.master.drive(4, True)
    assert pair.master.inta() == 0x24
    assert pair.intr == 0
    pair.master.drive(1, True)
    assert pair.master.inta() == 0x21
    assert pair.isr() == 0x12
    pair.write(0x20, EOI)
    assert (pair.isr(), pair.intr) == (0x10, 0)
    pair.write(0x20, EOI)
    assert pair.master.inta() == 0x25


def test_the_mask_holds_a_request_back_and_keeps_it(pair: Pair) -> None:
    """Operation Control Word 1."""
    pair.write(0x21, 0x08)
    assert pair.bench.read(0x21) == 0x08
    pair.master.drive(3, True)
    assert (pair.intr, pair.irr()) == (0, 0x08)
    pair.write(0x21, 0)
    assert pair.intr == 1


def test_cascade(pair: Pair) -> None:
    """Cascade Mode: the slave gives the vector; both are in service; two EOIs end it."""
    pair.slave.drive(4, True)
    assert (pair.intr, pair.irr()) == (1, 0x04)
    assert pair.master.inta() == 0x2C
    assert pair.isr() == 0x04
    assert pair.read(0xA0, READ_ISR) == 0x10
    pair.write(0xA0, EOI)
    pair.write(0x20, EOI)
    assert pair.isr() == pair.read(0xA0, READ_ISR) == 0


def test_a_second_request_of_the_slave_reaches_the_master(pair: Pair) -> None:
    pair.slave.drive(5, True)
    pair.slave.drive(3, True)
    assert pair.master.inta() == 0x2B
    pair.write(0xA0, EOI)
    pair.write(0x20, EOI)
    assert pair.intr == 1
    assert pair.master.inta() == 0x2D


def test_a_slave_with_another_identity_stays_silent(pair: Pair) -> None:
    """ICW3, slave device: it compares its identity with CAS0-2."""
    for port, value in ((0xA0, ICW1), (0xA1, 0x28), (0xA1, 0x05), (0xA1, ICW4), (0xA1, 0)):
        pair.write(port, value)
    pair.slave.drive(4, True)
    assert pair.master.inta() == 0xFF
    assert pair.read(0xA0, READ_ISR) == 0


def test_specific_eoi_and_non_specific_eoi(pair: Pair) -> None:
    """End of Interrupt."""
    pair.master.drive(6, True)
    pair.master.inta()
    pair.master.drive(1, True)
    pair.master.inta()
    pair.write(0x20, SPECIFIC_EOI | 6)
    assert pair.isr() == 0x02
    pair.write(0x20, EOI)
    assert pair.isr() == 0


def test_automatic_eoi(bench: Callable) -> None:
    """Automatic End of Interrupt Mode: nothing stays in service."""
    pair = Pair(bench, icw4=0x03)
    pair.master.drive(3, True)
    assert pair.master.inta() == 0x23
    assert pair.isr() == 0


def test_rotation_in_automatic_eoi(bench: Callable) -> None:
    """Automatic Rotation (Equal Priority Devices)."""
    pair = Pair(bench, icw4=0x03)
    pair.write(0x20, 0x80)  # rotate in automatic EOI mode: set
    for line in (3, 5):
        pair.master.drive(line, True)
    assert pair.master.inta() == 0x23
    pair.pulse(3)
    assert pair.master.inta() == 0x25  # IR3 has now the lowest priority
    pair.write(0x20, 0x00)  # clear
    pair.pulse(5)
    assert pair.master.inta() == 0x23
    assert pair.master.inta() == 0x25


def test_rotation_on_non_specific_eoi(pair: Pair) -> None:
    pair.master.drive(4, True)
    pair.master.inta()
    pair.write(0x20, 0xA0)
    pair.pulse(4)
    pair.pulse(6)
    assert pair.master.inta() == 0x26


def test_rotation_on_specific_eoi(pair: Pair) -> None:
    pair.master.drive(4, True)
    pair.master.inta()
    pair.write(0x20, 0xE0 | 4)
    pair.pulse(4)
    pair.pulse(5)
    assert pair.master.inta() == 0x25


def test_set_priority(pair: Pair) -> None:
    """Specific Rotation (Specific Priority): IR5 lowest makes IR6 the highest."""
    pair.write(0x20, 0xC0 | 5)
    for line in range(8):
        if line != 2:
            pair.pulse(line)
    order = []
    for _ in range(7):
        order.append(pair.master.inta() & 7)
        pair.write(0x20, SPECIFIC_EOI | order[-1])
    assert order == [6, 7, 0, 1, 3, 4, 5]


def test_special_mask_mode(pair: Pair) -> None:
    """Special Mask Mode: a masked level in service holds nothing back and outlives a non-specific EOI."""
    pair.master.drive(3, True)
    pair.master.inta()
    pair.master.drive(5, True)
    assert pair.intr == 0
    pair.write(0x21, 0x08)
    pair.write(0x20, SPECIAL_MASK)
    assert pair.intr == 1
    assert pair.master.inta() == 0x25
    pair.write(0x20, EOI)
    assert pair.isr() == 0x08
    pair.write(0x20, EOI)
    assert pair.isr() == 0x08
    pair.write(0x20, NO_SPECIAL_MASK)
    pair.write(0x20, EOI)
    assert pair.isr() == 0


def test_special_fully_nested_mode(bench: Callable) -> None:
    """The Special Fully Nested Mode: a slave in service can interrupt again for its higher levels."""
    plain, special = Pair(bench), Pair(bench, icw4=0x11)
    for pair in (plain, special):
        pair.slave.drive(5, True)
        assert pair.master.inta() == 0x2D
        pair.slave.drive(3, True)
    assert plain.intr == 0
    assert special.intr == 1
    assert special.master.inta() == 0x2B


def test_poll(pair: Pair) -> None:
    """Poll Command: the read is an acknowledge and gives the level."""
    assert pair.read(0x20, POLL) == 0
    pair.master.drive(6, True)
    assert pair.read(0x20, POLL) == 0x86
    assert pair.isr() == 0x40
    assert pair.intr == 0


def test_level_triggered_by_elcr(pair: Pair) -> None:
    """82371AB, ELCR1 and ELCR2: some inputs cannot be made level-triggered."""
    pair.write(0x4D0, 0xFF)
    pair.write(0x4D1, 0xFF)
    assert (pair.bench.read(0x4D0), pair.bench.read(0x4D1)) == (0xF8, 0xDE)
    pair.master.drive(5, True)
    assert pair.master.inta() == 0x25
    pair.write(0x20, EOI)
    assert pair.master.inta() == 0x25  # still high
    pair.master.drive(5, False)
    pair.write(0x20, EOI)
    assert (pair.intr, pair.irr()) == (0, 0)


@pytest.mark.parametrize(("elcr_mask", "again"), [(0, 1), (0xF8, 0)])
def test_ltim_counts_only_without_elcr(bench: Callable, elcr_mask: int, again: int) -> None:
    """82371AB, ICW1: LTIM is disabled, its function replaced by the ELCR."""
    board = bench(1000)
    chip = I8259(board.clock, "pic", elcr_mask=elcr_mask)
    chip.reset()
    board.place(chip, 0x20, 2)
    for port, value in ((0x20, 0x1B), (0x21, 0x40), (0x21, 0x01)):  # LTIM, SNGL, IC4
        board.write(port, value)
    chip.drive(1, True)
    assert chip.inta() == 0x41
    board.write(0x20, EOI)
    assert chip.level("INT") == again


def test_icw1_begins_anew(pair: Pair) -> None:
    """Initialization Command Words 1 and 2: edge sense and IMR are cleared, IRR is read, IR7 is lowest."""
    pair.write(0x21, 0xFF)
    pair.write(0x20, 0xC0 | 3)
    pair.master.drive(3, True)
    pair.write(0x20, READ_ISR)
    for port, value in ((0x20, ICW1), (0x21, 0x60), (0x21, 0x04), (0x21, ICW4)):
        pair.write(port, value)
        assert pair.intr == 0
    assert pair.bench.read(0x21) == 0
    assert pair.bench.read(0x20) == 0  # IRR: the edge is forgotten although the line is high
    pair.pulse(6)
    pair.pulse(0)
    assert pair.master.inta() == 0x60
    assert pair.master.inta() == 0x67  # nothing above IR0 in service: spurious


@pytest.mark.parametrize(("icw1", "low_byte"), [(0xB6, 0xAC), (0x92, 0x98)])
def test_mcs_80_vector(bench: Callable, icw1: int, low_byte: int) -> None:
    """ICW1, ICW2 in an MCS-80/85 system: without ICW4 the low byte of a CALL's address, 4 or 8 bytes apart."""
    board = bench(1000)
    chip = I8259(board.clock, "pic")
    chip.reset()
    board.place(chip, 0x20, 2)
    board.write(0x20, icw1)
    board.write(0x21, 0)
    chip.drive(3, True)
    assert chip.inta() == low_byte


def test_wide_access_reaches_both_ports(pair: Pair) -> None:
    pair.bench.write(0x20, 0xFB0B, 2)  # OCW3: read ISR; OCW1: mask all but the cascade
    assert pair.bench.read(0x21) == 0xFB
    assert pair.bench.read(0x20, 2) == 0xFB00


def test_state(pair: Pair, round_trip: Callable) -> None:
    pair.master.drive(3, True)
    pair.slave.drive(2, True)
    pair.write(0x21, 0x55)
    pair.write(0x20, SPECIAL_MASK)
    pair.master.inta()
    round_trip(pair.master, I8259(Clock(), "pic1", elcr_mask=0xF8))
