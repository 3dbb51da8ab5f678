"""82371AB (PIIX4): interrupt steering of the ISA bridge, and the I/O block of power management where PMBA puts it."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from emu._core import Bus, Clock
from emu.chips.i8259 import I8259
from emu.chips.piix4_ide import Piix4Ide
from emu.chips.piix4_isa import Piix4Isa
from emu.chips.piix4_pm import Piix4Pm
from emu.chips.post import Post
from emu.errors import ConfigError

PIRQRCA = 0x60


class TestSteering:
    """82371AB, "PIRQRC[A:D] - PIRQx Route Control Registers"."""

    @pytest.fixture
    def board(self, bench: Callable) -> SimpleNamespace:
        made = bench(1000)
        isa = Piix4Isa(made.clock, "isa")
        probes = {number: made.probe(isa, f"IRQ{number}") for number in range(16)}
        isa.reset()

        def asserted() -> list[int]:
            return [number for number in probes if isa.level(f"IRQ{number}")]

        return SimpleNamespace(isa=isa, asserted=asserted, probes=probes, clock=made.clock)

    def test_isa_requests_pass(self, board: SimpleNamespace) -> None:
        for number in range(16):
            board.isa.drive(number, True)
            assert board.asserted() == [number]
            board.isa.drive(number, False)
        assert board.asserted() == []

    @pytest.mark.parametrize("pirq", range(4))
    def test_routes(self, board: SimpleNamespace, pirq: int) -> None:
        """To IRQ3-7, 9-12, 14 and 15; other numbers are reserved; bit 7 cuts the route."""
        board.isa.drive(Piix4Isa.PIRQA + pirq, True)
        assert board.asserted() == []
        seen = []
        for number in range(16):
            board.isa.write_config(PIRQRCA + pirq, number)
            seen += board.asserted()
        assert seen == [3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15]
        board.isa.write_config(PIRQRCA + pirq, 0x80 | 11)
        assert board.asserted() == []

    def test_a_shared_request(self, board: SimpleNamespace) -> None:
        """Asserted until the last one lets go."""
        board.isa.write_config(PIRQRCA, 0x0B0B, 2)
        for line in (Piix4Isa.PIRQA, Piix4Isa.PIRQA + 1, 11):
            board.isa.drive(line, True)
        for line in (11, Piix4Isa.PIRQA):
            board.isa.drive(line, False)
            assert board.asserted() == [11]
        board.isa.drive(Piix4Isa.PIRQA + 1, False)
        assert board.asserted() == []
        assert [level for _, level in board.probes[11].levels()] == [1, 0]

    def test_level_sense(self, bench: Callable) -> None:
        """With the ELCR's bit set the 8259 asks again after EOI as long as PIRQ# is asserted."""
        made = bench(1000)
        isa, pic = Piix4Isa(made.clock, "isa"), I8259(made.clock, "pic", elcr_mask=0xF8)
        isa.connect("IRQ5", pic, 5)
        made.place(pic, 0x20, 2)
        made.bus.map_ports(0x4D0, 1, pic)
        isa.reset()
        for port, value in ((0x20, 0x13), (0x21, 0x20), (0x21, 1), (0x4D0, 0x20), (0x21, 0)):
            made.write(port, value)
        isa.write_config(PIRQRCA + 2, 5)
        isa.drive(Piix4Isa.PIRQA + 2, True)
        for _ in range(3):
            assert pic.level("INT") == 1
            assert pic.inta() == 0x25
            made.write(0x20, 0x20)
        isa.drive(Piix4Isa.PIRQA + 2, False)
        assert pic.level("INT") == 0

    def test_state(self, board: SimpleNamespace, round_trip: Callable) -> None:
        board.isa.write_config(PIRQRCA, 11)
        board.isa.drive(Piix4Isa.PIRQA, True)
        round_trip(board.isa, Piix4Isa(Clock(), "isa"))


def test_identities() -> None:
    """Device number, class code and header type: function 0 says that there are more."""
    clock = Clock()
    functions = [Piix4Isa(clock, "isa"), Piix4Ide(clock, "ide"), Piix4Pm(clock, "pm", Bus(clock))]
    for chip in functions:
        chip.reset()
    assert [chip.read_config(2, 2) for chip in functions] == [0x7110, 0x7111, 0x7113]
    assert [chip.read_config(8, 4) >> 8 for chip in functions] == [0x060100, 0x010180, 0x068000]
    assert [chip.read_config(0x0E) for chip in functions] == [0x80, 0, 0]


@pytest.mark.parametrize(("offset", "size"), [(-1, 1), (256, 1), (255, 2), (253, 4), (0, 3), (0, 0)])
def test_there_is_no_such_register(offset: int, size: int) -> None:
    isa = Piix4Isa(Clock(), "isa")
    with pytest.raises(ValueError, match="configuration space"):
        isa.read_config(offset, size)
    with pytest.raises(ValueError, match="configuration space"):
        isa.write_config(offset, 0, size)


class TestPmBase:
    """82371AB, "PMBA - Power Management Base Address", "PMREGMISC - Miscellaneous Power Management"."""

    PMBA, PMREGMISC, GPOREG = 0x40, 0x80, 0x34

    @pytest.fixture
    def board(self, bench: Callable) -> SimpleNamespace:
        made = bench(315_000_000)
        chip = Piix4Pm(made.clock, "pm", made.bus)
        chip.reset()
        return SimpleNamespace(read=made.read, write=made.write, clock=made.clock, chip=chip, bus=made.bus)

    def where(self, board: SimpleNamespace) -> list[int]:
        """The ports of GPOREG, wherever it answers."""
        return [port for port in range(self.GPOREG, 65536, 64) if board.read(port, 4) != 0xFFFFFFFF]

    def test_closed_at_reset(self, board: SimpleNamespace) -> None:
        assert board.chip.read_config(self.PMBA, 4) == 1
        assert self.where(board) == []
        board.chip.write_config(self.PMBA, 0x1000, 4)
        assert self.where(board) == []

    def test_moves(self, board: SimpleNamespace) -> None:
        board.chip.write_config(self.PMREGMISC, 1)
        for base, stands in ((0x1000, 0x1000), (0xFFFFFFFF, 0xFFC0), (0x547F, 0x5440)):
            board.chip.write_config(self.PMBA, base, 4)
            assert board.chip.read_config(self.PMBA, 4) == stands | 1
            assert self.where(board) == [stands + self.GPOREG]
        board.chip.write_config(self.PMREGMISC, 0)
        assert self.where(board) == []

    def test_does_not_hide_other_chips(self, board: SimpleNamespace) -> None:
        """A port that another chip has stays with it, and comes back to the block when that chip leaves."""
        post = Post(board.clock, "post")
        board.bus.map_ports(0x80, 1, post)
        board.chip.write_config(self.PMREGMISC, 1)
        board.chip.write_config(self.PMBA, 0x80, 4)
        board.write(0x80, 0x5A)
        assert (post.count, board.read(0x80), board.read(0x81)) == (1, 0x5A, 0)
        board.bus.unmap_ports(0x80, 1)
        assert board.read(0x80) == 0
        board.bus.map_ports(0x80 + self.GPOREG, 4, post)
        assert board.read(0x80 + self.GPOREG) == 0x5A

    def test_of_two_windows_the_first_made_answers(self, board: SimpleNamespace) -> None:
        """Whichever was moved last, so that a restored machine answers as the saved one."""
        other = Piix4Pm(board.clock, "other", board.bus)
        other.reset()
        for chip in (board.chip, other, board.chip):
            chip.write_config(self.PMREGMISC, 1)
            chip.write_config(self.PMBA, 0x2000, 4)
        board.write(0x2034, 0x1234, 4)
        board.chip.write_config(self.PMREGMISC, 0)
        assert board.read(0x2034, 4) == 0x7FFFBFFF
        board.chip.write_config(self.PMREGMISC, 1)
        assert board.read(0x2034, 4) == 0x1234

    def test_load_moves_the_block(self, board: SimpleNamespace) -> None:
        board.chip.write_config(self.PMREGMISC, 1)
        board.chip.write_config(self.PMBA, 0x3000, 4)
        state = board.chip.save()
        board.chip.reset()
        assert self.where(board) == []
        board.chip.load(state)
        assert self.where(board) == [0x3034]

    @pytest.mark.parametrize("base", [-64, 0x20, 0x10000])
    def test_base_of_a_wrong_kind(self, base: int) -> None:
        clock = Clock()
        with pytest.raises(ConfigError, match="is no base for 64 ports"):
            Piix4Pm(clock, "pm", Bus(clock), base)
