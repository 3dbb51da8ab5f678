"""Motorola MC146818A: by the sections of its datasheet. The clock runs at 32768 Hz times 100."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu._core import Bus, Clock
from emu.chips.mc146818 import MC146818

TICK = 100
SECOND = 32768 * TICK
SECONDS, MINUTES, HOURS, DAY_OF_WEEK, DATE_OF_MONTH, MONTH, YEAR = 0, 2, 4, 6, 7, 8, 9
A, B, C, D = 10, 11, 12, 13
B_DSE, B_24, B_DM, B_UIE, B_AIE, B_PIE, B_SET = 0x01, 0x02, 0x04, 0x10, 0x20, 0x40, 0x80
C_UF, C_AF, C_PF, C_IRQF = 0x10, 0x20, 0x40, 0x80
UIP = 0x80


class Rtc:
    """An RTC at 70h whose IRQ is on a probe."""

    def __init__(self, bench: Callable) -> None:
        self.bench = bench(SECOND)
        self.chip = MC146818(self.bench.clock, "rtc")
        self.bench.place(self.chip, 0x70, 2)
        self.probe = self.bench.probe(self.chip, "IRQ")

    def __getitem__(self, register: int) -> int:
        self.bench.write(0x70, register)
        return self.bench.read(0x71)

    def __setitem__(self, register: int, value: int) -> None:
        self.bench.write(0x70, register)
        self.bench.write(0x71, value)

    def wait(self, seconds: float) -> None:
        self.bench.clock.advance(round(seconds * SECOND))

    def time(self) -> tuple[int, ...]:
        """Year to second, as they stand in the registers."""
        return tuple(self[register] for register in (YEAR, MONTH, DATE_OF_MONTH, HOURS, MINUTES, SECONDS))

    def rises(self) -> list[int]:
        """The cycles at which IRQ rose since the last call."""
        cycles = [cycle for cycle, level in self.probe.levels() if level]
        self.probe.changes.clear()
        return cycles


@pytest.fixture
def rtc(bench: Callable) -> Rtc:
    return Rtc(bench)


def test_it_starts_at_a_fixed_time(rtc: Rtc) -> None:
    assert rtc.time() == (0x00, 0x01, 0x01, 0x00, 0x00, 0x00)
    assert (rtc[DAY_OF_WEEK], rtc[0x32], rtc[B], rtc[D]) == (7, 0x20, B_24, 0x80)


@pytest.mark.parametrize(
    ("before", "after", "day_of_week"),
    [
        ((2026, 11, 23, 9, 9, 59), (0x26, 0x11, 0x23, 0x09, 0x10, 0x00), 2),
        ((2026, 11, 23, 19, 59, 59), (0x26, 0x11, 0x23, 0x20, 0x00, 0x00), 2),
        ((2026, 11, 30, 23, 59, 59), (0x26, 0x12, 0x01, 0x00, 0x00, 0x00), 3),
        ((1999, 12, 31, 23, 59, 59), (0x00, 0x01, 0x01, 0x00, 0x00, 0x00), 7),
        ((2023, 2, 28, 23, 59, 59), (0x23, 0x03, 0x01, 0x00, 0x00, 0x00), 4),
        ((2024, 2, 28, 23, 59, 59), (0x24, 0x02, 0x29, 0x00, 0x00, 0x00), 5),
        ((2024, 2, 29, 23, 59, 59), (0x24, 0x03, 0x01, 0x00, 0x00, 0x00), 6),
    ],
)
def test_a_second_passes(rtc: Rtc, before: tuple[int, ...], after: tuple[int, ...], day_of_week: int) -> None:
    """Time, Calendar, and Alarm Locations: the day of the week counts from Sunday, 1."""
    rtc.chip.set_time(*before)
    rtc.wait(1)
    assert rtc.time() == after
    assert rtc[DAY_OF_WEEK] == day_of_week


def test_days_pass_at_once_when_looked_at(rtc: Rtc) -> None:
    rtc.wait(3 * 86400 + 3600 + 61)
    assert rtc.time() == (0x00, 0x01, 0x04, 0x01, 0x01, 0x01)
    assert rtc.bench.clock.next_event is None


def test_binary_mode(rtc: Rtc) -> None:
    """Data Mode (DM)."""
    rtc[B] = B_24 | B_DM
    rtc.chip.set_time(2026, 12, 31, 23, 59, 58)
    assert rtc.time() == (26, 12, 31, 23, 59, 58)
    rtc.wait(2)
    assert rtc.time() == (27, 1, 1, 0, 0, 0)


@pytest.mark.parametrize(
    ("hour", "byte", "next_byte"),
    [(0, 0x12, 0x01), (9, 0x09, 0x10), (11, 0x11, 0x92), (12, 0x92, 0x81), (13, 0x81, 0x82), (23, 0x91, 0x12)],
)
def test_12_hour_mode(rtc: Rtc, hour: int, byte: int, next_byte: int) -> None:
    """24/12 Control Bit: the high-order bit of the hours byte is PM."""
    rtc[B] = 0
    rtc.chip.set_time(2026, 1, 1, hour, 30, 0)
    assert rtc[HOURS] == byte
    rtc.wait(3600)
    assert rtc[HOURS] == next_byte


@pytest.mark.parametrize(
    ("time", "hours"),
    [
        ((2026, 4, 26, 1, 59, 59), 0x03),  # the last Sunday in April
        ((2026, 4, 19, 1, 59, 59), 0x02),
        ((2026, 10, 25, 1, 59, 59), 0x01),  # the last Sunday in October
        ((2026, 10, 26, 1, 59, 59), 0x02),
    ],
)
def test_daylight_saving(rtc: Rtc, time: tuple[int, ...], hours: int) -> None:
    """Daylight Savings Enable (DSE)."""
    rtc[B] = B_24 | B_DSE
    rtc.chip.set_time(*time)
    rtc.wait(1)
    assert rtc[HOURS] == hours


def test_the_hour_is_repeated_once(rtc: Rtc) -> None:
    rtc[B] = B_24 | B_DSE
    rtc.chip.set_time(2026, 10, 25, 1, 59, 59)
    rtc.wait(1)
    assert rtc[HOURS] == 0x01
    rtc.wait(3600)
    assert rtc[HOURS] == 0x02


def test_update_in_progress(rtc: Rtc) -> None:
    """Update Cycle: UIP rises 244 us before it and falls at its end, 1984 us later, when UF is set."""
    rtc.bench.clock.advance(SECOND - 74 * TICK)
    assert not rtc[A] & UIP
    rtc.bench.clock.advance(TICK)
    assert rtc[A] & UIP
    rtc.bench.clock.advance(73 * TICK - 1)
    assert rtc[A] & UIP
    assert not rtc[C] & C_UF
    assert rtc[SECONDS] == 0
    rtc.bench.clock.advance(1)
    assert not rtc[A] & UIP
    assert rtc[C] & C_UF
    assert rtc[SECONDS] == 1


def test_set_stops_updates(rtc: Rtc) -> None:
    """Register B, SET: updates are inhibited, UIE is cleared and UIP reads 0."""
    rtc[B] = B_24 | B_UIE
    rtc[B] = B_24 | B_UIE | B_SET
    assert rtc[B] == B_24 | B_SET
    rtc[SECONDS] = 0x30
    rtc.wait(5)
    rtc.bench.clock.advance(SECOND - TICK)
    assert not rtc[A] & UIP
    assert rtc[SECONDS] == 0x30
    rtc[B] = B_24
    rtc.wait(1)
    assert rtc[SECONDS] == 0x31


def test_divider_reset(rtc: Rtc) -> None:
    """Divider Stages: held in reset time stands still; the first update cycle begins half a second after its end."""
    rtc[A] = 0x66
    rtc.wait(10)
    assert rtc[SECONDS] == 0
    rtc[A] = 0x26
    rtc.bench.clock.advance(SECOND // 2 + 64 * TICK)
    assert rtc[SECONDS] == 0
    rtc.bench.clock.advance(TICK)
    assert rtc[SECONDS] == 1


@pytest.mark.parametrize(("rate", "hertz"), [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)])
def test_periodic_interrupt(rtc: Rtc, rate: int, hertz: int) -> None:
    """Table 5, Periodic Interrupt Rate and Square Wave Output Frequency; 32.768 kHz."""
    rtc[A] = 0x20 | rate
    rtc[B] = B_24 | B_PIE
    for _ in range(3):
        rtc.bench.clock.advance(SECOND // hertz)
        assert rtc[C] & (C_IRQF | C_PF) == C_IRQF | C_PF
    assert rtc.rises() == [number * SECOND // hertz for number in (1, 2, 3)]


def test_periodic_flag_without_interrupt(rtc: Rtc) -> None:
    """The flags are set whether or not an interrupt is enabled, and cost no event."""
    rtc.wait(0.01)
    assert rtc.bench.clock.next_event is None
    assert rtc[C] == C_PF
    assert rtc[C] == 0


def test_no_event_until_the_interrupt_is_read(rtc: Rtc) -> None:
    rtc[B] = B_24 | B_PIE
    rtc.wait(0.01)
    assert rtc.bench.clock.next_event is None
    rtc.wait(0.01)
    assert len(rtc.rises()) == 1
    assert rtc[C] == C_IRQF | C_PF
    assert rtc.chip.level("IRQ") == 0
    assert rtc.bench.clock.next_event is not None


def test_update_ended_interrupt(rtc: Rtc) -> None:
    rtc[B] = B_24 | B_UIE
    rtc.wait(1.5)
    assert rtc.rises() == [SECOND]
    assert rtc[C] & C_IRQF


@pytest.mark.parametrize(
    ("alarm", "seconds"),
    [((0x05, 0x01, 0x00), 65), ((0x05, 0xFF, 0xC0), 5), ((0x00, 0xFF, 0xFF), 60), ((0xC0, 0xC0, 0xC0), 1)],
)
def test_alarm(rtc: Rtc, alarm: tuple[int, int, int], seconds: int) -> None:
    """Alarm bytes from C0h up are "don't care"."""
    rtc[1], rtc[3], rtc[5] = alarm
    rtc[B] = B_24 | B_AIE
    rtc.wait(100)
    assert rtc.rises() == [seconds * SECOND]
    assert rtc[C] & C_AF


def test_enabling_an_interrupt_whose_flag_is_set_raises_it(rtc: Rtc) -> None:
    rtc.wait(2)
    assert rtc.chip.level("IRQ") == 0
    rtc[B] = B_24 | B_UIE
    assert rtc.chip.level("IRQ") == 1


def test_reset_pin(rtc: Rtc) -> None:
    """RESET clears interrupt enables and flags; time and RAM are not affected."""
    rtc[0x40] = 0x5A
    rtc[B] = B_24 | B_PIE | B_UIE | B_AIE
    rtc.wait(3)
    rtc.chip.reset()
    assert (rtc[B], rtc[C], rtc[SECONDS], rtc[0x40]) == (B_24, 0, 3, 0x5A)
    assert rtc.chip.level("IRQ") == 0


def test_ram(rtc: Rtc) -> None:
    for register in range(14, 128):
        rtc[register] = register ^ 0xFF
    assert [rtc[register] for register in range(14, 128)] == [register ^ 0xFF for register in range(14, 128)]
    assert rtc[0x80 | 0x40] == 0x40 ^ 0xFF  # bit 7 of the index masks NMI


def test_bit_7_of_the_index_disables_nmi(rtc: Rtc) -> None:
    rtc.bench.write(0x70, 0x80)
    assert rtc.chip.level("NMI_DISABLE") == 1
    rtc.bench.write(0x70, 0x00)
    assert rtc.chip.level("NMI_DISABLE") == 0


def test_registers_c_and_d_are_read_only(rtc: Rtc) -> None:
    rtc[C] = rtc[D] = 0x7F
    assert (rtc[C], rtc[D]) == (0, 0x80)


def test_nvram(rtc: Rtc) -> None:
    rtc.chip.nvram = bytes(range(256))
    image = rtc.chip.nvram
    assert image[14:] == bytes(range(14, 256))
    with pytest.raises(ValueError, match="128 bytes of CMOS RAM: 256 are needed"):
        rtc.chip.nvram = bytes(128)


def test_extended_ram() -> None:
    """82371AB, RTCEI and RTCED: a bank of its own at 72h and 73h, which has no clock in it."""
    clock = Clock(1000)
    bus, chip = Bus(clock), MC146818(clock, "rtc")
    bus.map_ports(0x70, 4, chip)
    for index in range(128):
        bus.port_write(0x72, index)
        bus.port_write(0x73, index ^ 0x5A)
    clock.advance(5000)
    bus.port_write(0x70, 0x0D)
    assert chip.nvram[128:] == bytes(index ^ 0x5A for index in range(128))
    assert [bus.port_read(port) for port in (0x70, 0x71, 0x72, 0x73)] == [0xFF, 0x80, 0xFF, 127 ^ 0x5A]


def test_there_is_no_such_time(rtc: Rtc) -> None:
    with pytest.raises(ValueError, match="day is out of range"):
        rtc.chip.set_time(2023, 2, 29, 0, 0, 0)


def test_any_register_values_are_survived(rtc: Rtc) -> None:
    """A guest may write what is no time: a second later it is something, and nothing else happens."""
    for value in (0x00, 0x0F, 0x99, 0xFF):
        for mode in (0, B_24, B_DM, B_24 | B_DM, B_24 | B_DSE):
            rtc[B] = mode
            for register in range(10):
                rtc[register] = value
            rtc.wait(86400)
            assert len(rtc.time()) == 6


def test_state(rtc: Rtc, round_trip: Callable) -> None:
    rtc[B] = B_24 | B_UIE
    rtc.wait(7.3)
    round_trip(rtc.chip, MC146818(Clock(SECOND), "rtc"))
