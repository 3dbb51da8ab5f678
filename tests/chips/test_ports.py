"""The small parts: port 61h, 80h, 92h, CF9h, the A20 gate, debug exit, debug console, power management."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from emu._core import Bus, Clock
from emu.chips.a20_gate import A20Gate
from emu.chips.debug_exit import DebugExit
from emu.chips.debugcon import DebugCon
from emu.chips.i8254 import I8254
from emu.chips.piix4_pm import Piix4Pm
from emu.chips.port61 import Port61
from emu.chips.port92 import Port92
from emu.chips.post import Post
from emu.chips.reset_control import ResetControl

CLK = 88  # cycles of the timer's clock at 105 MHz


class TestPort61:
    """82371AB, NMISC - NMI Status and Control Register."""

    @pytest.fixture
    def board(self, bench: Callable) -> SimpleNamespace:
        made = bench(105_000_000)
        pit = I8254(made.clock, "pit")
        port = Port61(made.clock, "port61", pit)
        port.connect("GATE2", pit, 2)
        port.reset()
        made.place(pit, 0x40, 4)
        made.place(port, 0x61, 1)
        return SimpleNamespace(read=made.read, write=made.write, clock=made.clock, port=port)

    def test_only_the_low_four_bits_are_written(self, board: SimpleNamespace) -> None:
        assert board.read(0x61) == 0
        board.write(0x61, 0xFF)
        assert board.read(0x61) & 0xCF == 0x0F

    def test_gate_2_and_out_2(self, board: SimpleNamespace) -> None:
        """GATE2 is low after reset: a delay by mode 0 counts only while bit 0 is set."""
        for port, value in ((0x43, 0xB0), (0x42, 10), (0x42, 0)):
            board.write(port, value)
        board.clock.advance(100 * CLK)
        assert not board.read(0x61) & 0x20
        board.write(0x61, 1)
        board.clock.advance(9 * CLK)
        assert not board.read(0x61) & 0x20
        board.clock.advance(CLK)
        assert board.read(0x61) & 0x20

    def test_refresh_toggles_with_counter_1(self, board: SimpleNamespace) -> None:
        """Every 18 CLKs, as the PC programs it, and without an event."""
        board.write(0x43, 0x54)
        board.write(0x41, 18)
        assert board.clock.next_event is None
        board.clock.advance(CLK)
        seen = []
        for _ in range(6):
            seen.append(board.read(0x61) >> 4 & 1)
            board.clock.advance(18 * CLK)
        assert seen == [0, 1, 0, 1, 0, 1]

    @pytest.mark.parametrize(("line", "enable", "status"), [(0, 0x08, 0x40), (1, 0x04, 0x80)])
    def test_nmi(self, board: SimpleNamespace, line: int, enable: int, status: int) -> None:
        """The status is latched while its enable bit is 0; setting that clears it."""
        board.port.drive(line, True)
        board.port.drive(line, False)
        assert (board.port.level("NMI"), board.read(0x61) & 0xC0) == (1, status)
        board.write(0x61, enable)
        assert (board.port.level("NMI"), board.read(0x61) & 0xC0) == (0, 0)
        board.port.drive(line, True)
        assert board.port.level("NMI") == 0

    def test_nmi_disable(self, board: SimpleNamespace) -> None:
        """NMIEN: what waits comes through when NMI is enabled again."""
        board.port.drive(2, True)
        board.port.drive(0, True)
        assert (board.port.level("NMI"), board.read(0x61) & 0xC0) == (0, 0x40)
        board.port.drive(2, False)
        assert board.port.level("NMI") == 1

    def test_state(self, board: SimpleNamespace, round_trip: Callable) -> None:
        board.write(0x61, 3)
        board.port.drive(0, True)
        clock = Clock(105_000_000)
        round_trip(board.port, Port61(clock, "port61", I8254(clock, "pit")))


class TestPost:
    def test_codes_are_kept_with_their_cycles(self, bench: Callable) -> None:
        board = bench(1000)
        post = Post(board.clock, "post")
        board.place(post, 0x80, 1)
        assert (post.codes, post.count, board.read(0x80)) == ([], 0, 0)
        board.write(0x80, 0x11)
        board.clock.advance(500)
        board.write(0x80, 0x22)
        assert (post.codes, post.count, board.read(0x80)) == ([(0, 0x11), (500, 0x22)], 2, 0x22)

    def test_the_last_256_are_kept(self, bench: Callable, round_trip: Callable) -> None:
        board = bench(1000)
        post = Post(board.clock, "post")
        board.place(post, 0x80, 1)
        for code in range(1000):
            board.write(0x80, code & 0xFF)
        post.reset()
        assert post.count == 1000
        assert [code for _, code in post.codes] == [code & 0xFF for code in range(744, 1000)]
        round_trip(post, Post(Clock(), "post"))


class TestPort92:
    """82371AB, PORT 92 REGISTER."""

    def test_a20(self, bench: Callable) -> None:
        board = bench(1000)
        port, gate = Port92(board.clock, "port92"), A20Gate(board.clock, "a20", board.bus)
        port.connect("A20", gate, 0)
        port.reset()
        board.place(port, 0x92, 1)
        board.write(0x92, 2)
        assert (board.read(0x92), board.bus.a20) == (2, True)
        board.write(0x92, 0)
        assert (board.read(0x92), board.bus.a20) == (0, False)
        gate.drive(1, True)  # another part wants it open
        assert board.bus.a20
        gate.drive(1, False)
        board.write(0x92, 2)
        assert board.bus.a20

    def test_fast_reset_is_a_pulse_on_the_rise_of_bit_0(self, bench: Callable, round_trip: Callable) -> None:
        board = bench(1000)
        port = Port92(board.clock, "port92")
        probe = board.probe(port, "INIT")
        board.place(port, 0x92, 1)
        board.write(0x92, 3)
        board.write(0x92, 3)
        assert [level for _, level in probe.levels()] == [1, 0]
        board.write(0x92, 2)
        board.write(0x92, 3)
        assert len(probe.levels()) == 4
        round_trip(port, Port92(Clock(), "port92"))

    def test_the_gate_is_restored(self, bench: Callable, round_trip: Callable) -> None:
        board = bench(1000)
        gate = A20Gate(board.clock, "a20", board.bus)
        gate.drive(0, True)
        state = gate.save()
        gate.drive(0, False)
        assert not board.bus.a20
        gate.load(state)
        assert board.bus.a20


class TestResetControl:
    """82371AB, RC - Reset Control Register."""

    @pytest.mark.parametrize(("value", "output"), [(0x06, "RESET"), (0x04, "INIT")])
    def test_rcpu_pulses(self, bench: Callable, value: int, output: str) -> None:
        board = bench(1000)
        chip = ResetControl(board.clock, "reset_control")
        probes = {name: board.probe(chip, name) for name in ("RESET", "INIT")}
        board.place(chip, 0xCF9, 1)
        board.write(0xCF9, value & 2)
        assert not any(probe.changes for probe in probes.values())
        board.write(0xCF9, value)
        board.write(0xCF9, value)
        assert [level for _, level in probes.pop(output).levels()] == [1, 0]
        assert not any(probe.changes for probe in probes.values())

    def test_state(self, bench: Callable, round_trip: Callable) -> None:
        board = bench(1000)
        chip = ResetControl(board.clock, "reset_control")
        board.place(chip, 0xCF9, 1)
        board.write(0xCF9, 0xFF)
        assert board.read(0xCF9) == 0x06
        round_trip(chip, ResetControl(Clock(), "reset_control"))
        chip.reset()
        assert board.read(0xCF9) == 0


class TestDebugPorts:
    def test_debugcon(self, bench: Callable) -> None:
        board = bench(1000)
        chip = DebugCon(board.clock, "debugcon")
        board.place(chip, 0xE9, 1)
        assert board.read(0xE9) == 0xE9
        for byte in b"text":
            board.write(0xE9, byte)
        assert (chip.take_output(), chip.take_output()) == (b"text", b"")

    def test_debugcon_is_bounded(self, bench: Callable) -> None:
        board = bench(1000)
        chip = DebugCon(board.clock, "debugcon")
        board.place(chip, 0xE9, 4)
        for _ in range((1 << 18) + 3):
            board.write(0xE9, 0x64636261, 4)
        assert chip.take_output() == b"abcd" * (1 << 18)
        assert chip.output_lost == 12

    def test_debug_exit_reads_as_zero(self, bench: Callable) -> None:
        board = bench(1000)
        board.place(DebugExit(board.clock, "debug_exit"), 0x501, 4)
        assert board.read(0x501, 4) == 0


class TestPiix4Pm:
    """82371AB, Power Management I/O Space Registers."""

    BASE = 0x600
    PMSTS, PMEN, PMCNTRL, PMTMR = BASE, BASE + 2, BASE + 4, BASE + 8
    TICK = 88  # cycles of the timer at 315 MHz
    OVERFLOW = 1 << 23

    @pytest.fixture
    def board(self, bench: Callable) -> SimpleNamespace:
        made = bench(315_000_000)
        chip = Piix4Pm(made.clock, "pm", made.bus, self.BASE)
        chip.reset()
        return SimpleNamespace(read=made.read, write=made.write, clock=made.clock, chip=chip, place=made.place)

    def test_timer(self, board: SimpleNamespace) -> None:
        """PMTMR: 24 bits at 3.579545 MHz, read as bytes, words or a doubleword."""
        board.clock.advance(self.TICK * 0x123456)
        assert board.read(self.PMTMR, 4) == 0x123456
        assert board.read(self.PMTMR, 2) == 0x3456
        assert board.read(self.PMTMR + 2, 1) == 0x12
        board.clock.advance(self.TICK * 0xF00000)
        assert board.read(self.PMTMR, 4) == 0x023456

    def test_overflow_status(self, board: SimpleNamespace) -> None:
        """TMROF_STS: set when the uppermost bit changes, cleared by writing 1."""
        board.clock.advance(self.TICK * self.OVERFLOW - 1)
        assert board.read(self.PMSTS, 2) == 0
        board.clock.advance(1)
        assert board.read(self.PMSTS, 2) == 1
        board.write(self.PMSTS, 0xFFFE, 2)
        assert board.read(self.PMSTS, 2) == 1
        board.write(self.PMSTS, 1, 2)
        assert board.read(self.PMSTS, 2) == 0
        board.clock.advance(self.TICK * self.OVERFLOW)
        assert board.read(self.PMSTS, 1) == 1

    def test_sci(self, board: SimpleNamespace) -> None:
        """SCI is high while SCI_EN is set and an enabled status bit is; there is an event only where it may rise."""
        board.write(self.PMEN, 1, 2)
        assert board.clock.next_event is None
        board.write(self.PMCNTRL, 1, 2)
        assert board.clock.next_event == self.TICK * self.OVERFLOW
        board.clock.advance(self.TICK * self.OVERFLOW)
        assert board.chip.level("SCI") == 1
        board.write(self.PMSTS, 1, 2)
        assert board.chip.level("SCI") == 0
        board.write(self.PMEN, 0, 2)
        assert board.clock.next_event is None

    @pytest.mark.parametrize(("line", "bit"), [(0, 1 << 8), (1, 1 << 10)])
    def test_power_button_and_alarm(self, board: SimpleNamespace, line: int, bit: int) -> None:
        board.chip.drive(line, True)
        assert board.read(self.PMSTS, 2) == bit
        assert board.chip.level("SCI") == 0
        board.write(self.PMSTS, bit << 16, 4)  # PMEN in the upper half
        board.write(self.PMCNTRL, 1, 2)
        assert board.chip.level("SCI") == 1

    def test_power_button_override(self, board: SimpleNamespace) -> None:
        """PWRBTNOR_STS: held for four seconds the button turns off, and the status tells it from a press."""
        board.chip.drive(0, True)
        board.clock.advance(4 * 315_000_000 - 1)
        board.chip.drive(0, False)
        board.clock.advance(315_000_000)
        assert board.read(self.PMSTS, 2) & 0x0900 == 0x0100
        board.chip.drive(0, True)
        board.clock.advance(4 * 315_000_000)
        assert board.read(self.PMSTS, 2) & 0x0900 == 0x0800

    @pytest.mark.parametrize(("line", "bit"), [(2, 1), (3, 1 << 8), (4, 1 << 9), (5, 1 << 10), (6, 1 << 11)])
    def test_general_purpose_events(self, board: SimpleNamespace, line: int, bit: int) -> None:
        """GPSTS and GPEN: a status is set by the rise, raises SCI where enabled, and is cleared by writing 1."""
        gpsts, gpen = self.BASE + 0x0C, self.BASE + 0x0E
        board.write(self.PMCNTRL, 1, 2)
        board.chip.drive(line, True)
        assert (board.read(gpsts, 2), board.chip.level("SCI")) == (bit, 0)
        board.write(gpen, 0xFFFF, 2)
        assert (board.read(gpen, 2), board.chip.level("SCI")) == (0x0F01, 1)
        assert board.read(self.BASE + 0x18, 2) & 0x80  # GLBSTS: GP_STS
        board.write(gpsts, bit, 2)
        assert (board.read(gpsts, 2), board.chip.level("SCI")) == (0, 0)

    def test_global_lock(self, board: SimpleNamespace) -> None:
        """BIOS_RLS sets GBL_STS and so raises SCI; GBL_RLS sets BIOS_STS; both are write-only."""
        glbsts, glbctl = self.BASE + 0x18, self.BASE + 0x28
        board.write(self.PMEN, 1 << 5, 2)
        board.write(self.PMCNTRL, 1, 2)
        board.write(glbctl, 2, 4)
        assert (board.read(self.PMSTS, 2), board.chip.level("SCI"), board.read(glbctl, 4)) == (1 << 5, 1, 0)
        board.write(self.PMCNTRL, 1 | 1 << 2, 2)
        assert board.read(glbsts, 2) == 0x41  # BIOS_STS, and PM1_STS for the status above
        board.write(glbsts, 0xFFFF, 2)
        board.write(self.PMSTS, 0xFFFF, 2)
        assert board.read(glbsts, 2) == 0

    def test_apm_ports(self, board: SimpleNamespace) -> None:
        board.place(board.chip, 0xB2, 2)
        board.write(0xB2, 0x5A)
        board.write(0xB3, 0xA5)
        assert (board.read(0xB2), board.read(0xB3), board.read(0xB2, 2)) == (0x5A, 0xA5, 0xA55A)
        assert board.read(self.BASE + 0x18, 2) == 0x20  # APM_STS

    def test_accesses_across_doublewords(self, board: SimpleNamespace) -> None:
        """They reach both registers, each with its own bytes."""
        board.write(self.BASE + 0x22, 0x12345678, 4)  # GLBEN's reserved half, and the reserved register after it
        board.write(self.BASE + 0x2A, 0x9ABCDEF0, 4)  # GLBCTL's upper half and DEVCTL's lower one
        assert board.read(self.BASE + 0x28, 4) == 0xDEF00000
        assert board.read(self.BASE + 0x2C, 4) == 0x00009ABC
        assert board.read(self.BASE + 0x2A, 4) == 0x9ABCDEF0

    def test_write_only_bits(self, board: SimpleNamespace) -> None:
        """PMCNTRL: SUS_EN and GBL_RLS read as 0. A sleep type other than soft off is remembered, not entered."""
        board.write(self.PMCNTRL, 0xFFFF, 2)
        assert board.read(self.PMCNTRL, 2) == 0x1C03
        board.write(self.PMCNTRL + 1, 0x04)
        assert board.read(self.PMCNTRL, 2) == 0x0403

    def test_state(self, board: SimpleNamespace, round_trip: Callable) -> None:
        board.write(self.PMEN, 0x101, 2)
        board.write(self.PMCNTRL, 1, 2)
        board.clock.advance(self.TICK * self.OVERFLOW)
        clock = Clock()
        round_trip(board.chip, Piix4Pm(clock, "pm", Bus(clock)))
