"""Intel 8254: modes and commands by the sections of its datasheet, counted in CLK pulses.

A count that is written is loaded at the next CLK pulse. The clock runs at 105 MHz, so that a CLK pulse is 88 cycles.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu._core import Clock
from emu.chips.i8254 import I8254

CLK = 88
LSB, MSB, BOTH = 1, 2, 3
OUTPUT, NULL_COUNT = 0x80, 0x40


class Timer:
    """An 8254 whose counter 0 has its OUT on a probe; counter 2's OUT ends nowhere and is looked at by read-back."""

    def __init__(self, bench: Callable) -> None:
        self.bench = bench(105_000_000)
        self.chip = I8254(self.bench.clock, "pit")
        self.bench.place(self.chip, 0x40, 4)
        self.probe = self.bench.probe(self.chip, "OUT0")

    def control(self, counter: int, mode: int, access: int = BOTH, bcd: int = 0) -> None:
        self.bench.write(0x43, counter << 6 | access << 4 | mode << 1 | bcd)

    def count(self, counter: int, count: int) -> None:
        self.bench.write(0x40 + counter, count & 0xFF)
        self.bench.write(0x40 + counter, count >> 8)

    def program(self, counter: int, mode: int, count: int, bcd: int = 0) -> None:
        self.control(counter, mode, BOTH, bcd)
        self.count(counter, count)

    def pass_clks(self, clks: int) -> None:
        self.bench.clock.advance(clks * CLK)

    def read(self, counter: int) -> int:
        return self.bench.read(0x40 + counter) | self.bench.read(0x40 + counter) << 8

    def status(self, counter: int) -> int:
        self.bench.write(0x43, 0xE0 | 2 << counter)
        return self.bench.read(0x40 + counter)

    def out(self, counter: int) -> int:
        return self.status(counter) >> 7

    def wave(self, counter: int, clks: int) -> str:
        """OUT at each of so many CLK pulses from now on, L or H."""
        text = ""
        for _ in range(clks):
            self.pass_clks(1)
            text += "LH"[self.out(counter)]
        return text

    def edges(self) -> list[tuple[int, int]]:
        """OUT0's changes since the last call, as (CLK pulse, level)."""
        changes = [(cycle // CLK, level) for cycle, level in self.probe.levels()]
        self.probe.changes.clear()
        return changes


@pytest.fixture
def timer(bench: Callable) -> Timer:
    return Timer(bench)


# Counter 0 is stepped by events, counter 2 worked out when it is looked at: both must agree.
both_counters = pytest.mark.parametrize("counter", [0, 2])


@both_counters
def test_mode_0_interrupt_on_terminal_count(timer: Timer, counter: int) -> None:
    """OUT goes high N + 1 CLK pulses after the initial count is written, and stays high."""
    timer.control(counter, 0)
    assert timer.out(counter) == 0
    timer.count(counter, 4)
    assert timer.wave(counter, 8) == "LLLLHHHH"


@both_counters
def test_mode_0_gate_suspends_counting(timer: Timer, counter: int) -> None:
    timer.program(counter, 0, 4)
    timer.pass_clks(3)
    assert timer.read(counter) == 2
    timer.chip.drive(counter, False)
    timer.pass_clks(10)
    assert timer.read(counter) == 2
    timer.chip.drive(counter, True)
    assert timer.wave(counter, 3) == "LHH"


@both_counters
def test_mode_0_first_byte_of_a_new_count_stops_it(timer: Timer, counter: int) -> None:
    """Writing the first byte disables counting and sets OUT low; the second lets the count load at the next CLK."""
    timer.program(counter, 0, 2)
    timer.pass_clks(4)
    assert timer.out(counter) == 1
    timer.bench.write(0x40 + counter, 3)
    assert timer.out(counter) == 0
    assert timer.wave(counter, 5) == "LLLLL"
    timer.bench.write(0x40 + counter, 0)
    assert timer.wave(counter, 5) == "LLLHH"


@both_counters
def test_mode_0_counts_on_past_zero(timer: Timer, counter: int) -> None:
    """After terminal count it wraps around to the highest count."""
    timer.program(counter, 0, 2)
    timer.pass_clks(4)
    assert timer.read(counter) == 0xFFFF
    timer.pass_clks(65535 + 65536)
    assert timer.read(counter) == 0
    assert timer.out(counter) == 1


@both_counters
def test_mode_1_one_shot(timer: Timer, counter: int) -> None:
    """OUT is low from the CLK after the trigger for N CLK pulses; it can be triggered again while it is."""
    timer.program(counter, 1, 3)
    assert timer.wave(counter, 3) == "HHH"
    timer.chip.drive(counter, False)
    timer.chip.drive(counter, True)
    assert timer.wave(counter, 5) == "LLLHH"
    timer.chip.drive(counter, False)
    timer.chip.drive(counter, True)
    assert timer.wave(counter, 2) == "LL"
    timer.chip.drive(counter, False)
    timer.chip.drive(counter, True)
    assert timer.wave(counter, 5) == "LLLHH"


@both_counters
def test_mode_2_rate_generator(timer: Timer, counter: int) -> None:
    """OUT is low for the one CLK pulse at which the count is 1."""
    timer.program(counter, 2, 3)
    assert timer.wave(counter, 8) == "HHLHHLHH"


@both_counters
def test_mode_2_gate(timer: Timer, counter: int) -> None:
    """GATE low sets OUT high at once and stops counting; its rise loads the count at the next CLK."""
    timer.program(counter, 2, 3)
    assert timer.wave(counter, 3) == "HHL"
    timer.chip.drive(counter, False)
    assert timer.out(counter) == 1
    assert timer.wave(counter, 4) == "HHHH"
    timer.chip.drive(counter, True)
    assert timer.wave(counter, 7) == "HHLHHLH"


@both_counters
def test_mode_2_new_count_waits_for_the_end_of_the_period(timer: Timer, counter: int) -> None:
    timer.program(counter, 2, 3)
    timer.pass_clks(1)
    timer.count(counter, 5)
    assert timer.wave(counter, 9) == "HLHHHHLHH"


@both_counters
def test_mode_2_half_a_new_count_is_no_count(timer: Timer, counter: int) -> None:
    timer.program(counter, 2, 3)
    timer.pass_clks(1)
    timer.bench.write(0x40 + counter, 5)
    assert timer.wave(counter, 6) == "HLHHLH"
    timer.bench.write(0x40 + counter, 0)
    assert timer.wave(counter, 8) == "HLHHHHLH"


@both_counters
@pytest.mark.parametrize(("count", "wave"), [(4, "HHLLHHLLH"), (5, "HHHLLHHHL"), (2, "HLHLHLHLH")])
def test_mode_3_square_wave(timer: Timer, counter: int, count: int, wave: str) -> None:
    """High for half of an even count; for an odd one (N + 1) / 2 high, (N - 1) / 2 low."""
    timer.program(counter, 3, count)
    assert timer.wave(counter, 9) == wave


@both_counters
def test_mode_3_counts_by_two(timer: Timer, counter: int) -> None:
    timer.program(counter, 3, 5)
    counts = []
    for _ in range(10):
        timer.pass_clks(1)
        counts.append(timer.read(counter))
    assert counts == [4, 2, 0, 4, 2, 4, 2, 0, 4, 2]


@both_counters
def test_mode_3_new_count_waits_for_the_end_of_the_half(timer: Timer, counter: int) -> None:
    timer.program(counter, 3, 4)
    timer.pass_clks(1)
    timer.count(counter, 6)
    assert timer.wave(counter, 9) == "HLLLHHHLL"


@both_counters
def test_mode_3_gate(timer: Timer, counter: int) -> None:
    timer.program(counter, 3, 4)
    assert timer.wave(counter, 3) == "HHL"
    timer.chip.drive(counter, False)
    assert timer.wave(counter, 3) == "HHH"
    timer.chip.drive(counter, True)
    assert timer.wave(counter, 6) == "HHLLHH"


@both_counters
def test_mode_4_software_triggered_strobe(timer: Timer, counter: int) -> None:
    """Low for one CLK pulse, N + 1 pulses after the count was written; not again when the count wraps."""
    timer.program(counter, 4, 3)
    assert timer.wave(counter, 6) == "HHHLHH"
    timer.pass_clks(65536 - 6 + 3)
    assert timer.wave(counter, 3) == "HHH"
    timer.count(counter, 2)
    assert timer.wave(counter, 4) == "HHLH"


@both_counters
def test_mode_5_hardware_triggered_strobe(timer: Timer, counter: int) -> None:
    """Low for one CLK pulse, N + 1 pulses after a trigger; GATE's level does nothing."""
    timer.program(counter, 5, 3)
    assert timer.wave(counter, 6) == "HHHHHH"
    timer.chip.drive(counter, False)
    timer.chip.drive(counter, True)
    timer.chip.drive(counter, False)
    assert timer.wave(counter, 6) == "HHHLHH"


def test_events_come_at_the_edges_alone(timer: Timer) -> None:
    timer.program(0, 2, 1000)
    timer.pass_clks(2500)
    assert timer.edges() == [(0, 1), (1000, 0), (1001, 1), (2000, 0), (2001, 1)]
    assert timer.bench.clock.next_event == 3000 * CLK


def test_an_output_that_ends_nowhere_has_no_events(timer: Timer) -> None:
    timer.program(2, 3, 2)
    assert timer.bench.clock.next_event is None
    timer.pass_clks(10**9 + 1)  # worked out at once
    assert timer.wave(2, 4) == "LHLH"


def test_frequency_is_exact(bench: Callable) -> None:
    """14.31818 MHz / 12 is 105/88 MHz: 1,193,181 and 9/11 pulses a second, at any speed of the processor."""
    board = bench(733_000_000)
    chip = I8254(board.clock, "pit")
    board.place(chip, 0x40, 4)
    probe = board.probe(chip, "OUT0")
    for port, value in ((0x43, 0x34), (0x40, 100), (0x40, 0)):
        board.write(port, value)
    board.clock.advance(11 * 733_000_000)
    rises = [cycle for cycle, level in probe.levels() if level][1:]
    assert len(rises) == (11 * 105_000_000 // 88 - 1) // 100
    for number in (1, 2, 77, len(rises)):
        assert rises[number - 1] == -(-(100 * number + 1) * 88 * 733 // 105)


def test_late_events_lose_no_edge(timer: Timer) -> None:
    """A long instruction may pass both edges of a pulse: the wire still goes through both."""
    timer.program(0, 2, 2)
    timer.edges()
    timer.bench.clock.advance(CLK * 4 + CLK // 2)
    assert timer.edges() == [(2, 0), (3, 1), (4, 0)]
    assert timer.read(0) == 1
    timer.bench.clock.advance(CLK)
    assert timer.edges() == [(5, 1)]


def test_bcd(timer: Timer) -> None:
    """BCD counts from 0000, which is 10,000, down by decimal digits."""
    timer.program(2, 0, 0, bcd=1)
    timer.pass_clks(2)
    assert timer.read(2) == 0x9999
    timer.program(2, 2, 0x1234, bcd=1)
    timer.pass_clks(1 + 35)
    assert timer.read(2) == 0x1199
    timer.pass_clks(1199 + 1234 * 3)
    assert timer.read(2) == 0x1234


def test_a_count_of_zero_is_the_largest(timer: Timer) -> None:
    timer.program(0, 2, 0)
    timer.pass_clks(3 * 65536)
    assert [clk for clk, level in timer.edges() if level] == [0, 65537, 131073]


@pytest.mark.parametrize(("access", "written", "loaded"), [(LSB, 0x34, 0x0034), (MSB, 0x12, 0x1200)])
def test_one_byte_counts(timer: Timer, access: int, written: int, loaded: int) -> None:
    """Control Word Format, RW1 RW0: the other byte is zero; a read gives the byte that is written."""
    timer.control(2, 0, access)
    timer.bench.write(0x42, written)
    timer.pass_clks(1)
    assert timer.bench.read(0x42) == timer.bench.read(0x42) == written
    timer.pass_clks(loaded)
    assert timer.out(2) == 1


def test_counter_latch_command(timer: Timer) -> None:
    """The count is held until it is read, whatever happens; a second latch before that is ignored."""
    timer.program(2, 2, 0x1000)
    timer.pass_clks(1)
    timer.bench.write(0x43, 0x80)
    timer.pass_clks(0x10)
    timer.bench.write(0x43, 0x80)
    assert timer.read(2) == 0x1000
    assert timer.read(2) == 0x0FF0


def test_read_back_command(timer: Timer) -> None:
    """Several counters at once; where both are latched, status is read first, then the count."""
    timer.program(0, 2, 100)
    timer.program(2, 3, 50)
    timer.pass_clks(11)
    timer.bench.write(0x43, 0xCA)  # counters 0 and 2, count and status
    timer.pass_clks(30)
    assert timer.bench.read(0x40) == OUTPUT | 0x34
    assert timer.read(0) == 90
    assert timer.bench.read(0x42) == OUTPUT | 0x36
    assert timer.read(2) == 30
    assert timer.read(0) == 60


def test_null_count(timer: Timer) -> None:
    """Status Byte: set by a new count or control word, reset when the count reaches the counting element."""
    timer.control(2, 2)
    assert timer.status(2) & NULL_COUNT
    timer.count(2, 10)
    assert timer.status(2) & NULL_COUNT
    timer.pass_clks(1)
    assert not timer.status(2) & NULL_COUNT
    timer.count(2, 20)
    timer.pass_clks(9)
    assert timer.status(2) & NULL_COUNT
    timer.pass_clks(1)
    assert not timer.status(2) & NULL_COUNT


def test_status_tells_the_mode_as_written(timer: Timer) -> None:
    """M2 does not matter in modes 2 and 3, yet is read back."""
    timer.control(2, 6)
    assert timer.status(2) & 0x3F == 0x3C
    timer.count(2, 3)
    assert timer.wave(2, 6) == "HHLHHL"


def test_control_word_cannot_be_read(timer: Timer) -> None:
    assert timer.bench.read(0x43) == 0xFF


def test_control_word_sets_the_initial_level(timer: Timer) -> None:
    for mode in range(6):
        timer.control(2, mode)
        assert timer.out(2) == (mode != 0)


def test_state_and_events_can_be_taken_up_elsewhere(bench: Callable, round_trip: Callable) -> None:
    """A copy goes on as the original does."""
    first, second = Timer(bench), Timer(bench)
    first.program(0, 2, 500)
    first.program(1, 3, 18)
    first.program(2, 0, 0x999, bcd=1)
    first.pass_clks(777)
    second.bench.clock.load(first.bench.clock.save())
    second.chip.load(first.chip.save())
    first.edges(), second.edges()
    for timer in (first, second):
        timer.pass_clks(5000)
    assert first.edges() == second.edges() != []
    assert first.chip.save() == second.chip.save()
    round_trip(first.chip, I8254(Clock(105_000_000), "pit"))


@pytest.mark.parametrize("mode", range(6))
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_stepping_and_looking_agree(timer: Timer, mode: int, count: int) -> None:
    """A counter that is stepped by events and one that jumps over many periods are in the same state."""
    import random

    random.seed(mode * 100 + count)
    for counter in (0, 2):
        timer.control(counter, mode, LSB)
        timer.bench.write(0x40 + counter, count)
    for _ in range(60):
        timer.pass_clks(random.choice((1, 2, 3, 5, 100, 1001)))
        what = random.randrange(4)
        level, fresh = random.random() < 0.5, random.randrange(2, 9)
        for counter in (0, 2):
            if what == 0:
                timer.chip.drive(counter, level)
            elif what == 1:
                timer.bench.write(0x40 + counter, fresh)
        assert timer.bench.read(0x40) == timer.bench.read(0x42)
        assert timer.status(0) & 0xC0 == timer.status(2) & 0xC0
