"""National PC16550D: by the sections of its datasheet. The clock runs at 1.8432 MHz times 10."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu._core import Clock
from emu.chips.uart16550 import Uart16550

XTAL = 10  # cycles of a period of XIN
PORT = 0x3F8
DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(8)
ERBFI, ETBEI, ELSI, EDSSI = 1, 2, 4, 8
DR, OE, THRE, TEMT = 0x01, 0x02, 0x20, 0x40
NONE, MODEM, THR_EMPTY, AVAILABLE, LINE, TIMEOUT, FIFOS = 0x01, 0x00, 0x02, 0x04, 0x06, 0x0C, 0xC0
DTR, RTS, OUT1, OUT2, LOOP = 1, 2, 4, 8, 16
CHARACTER = 16 * 10 * XTAL  # cycles of one at 115200 baud, eight data bits, no parity, one stop bit


class Uart:
    """A UART at 3F8h, set to 115200 8N1, with OUT2 set and INTR on a probe."""

    def __init__(self, bench: Callable, flow_control: bool = True) -> None:
        self.bench = bench(1_843_200 * XTAL)
        self.chip = Uart16550(self.bench.clock, "com1", flow_control=flow_control)
        self.bench.place(self.chip, PORT, 8)
        self.set_divisor(1)
        self[LCR] = 0x03
        self[MCR] = OUT2
        self.probe = self.bench.probe(self.chip, "INTR")

    def __getitem__(self, register: int) -> int:
        return self.bench.read(PORT + register)

    def __setitem__(self, register: int, value: int) -> None:
        self.bench.write(PORT + register, value)

    def set_divisor(self, divisor: int) -> None:
        self[LCR] = 0x83
        self[DATA], self[IER] = divisor & 0xFF, divisor >> 8
        self[LCR] = 0x03

    def wait(self, characters: float) -> None:
        self.bench.clock.advance(round(characters * CHARACTER))

    @property
    def intr(self) -> int:
        return self.chip.level("INTR")


@pytest.fixture
def uart(bench: Callable) -> Uart:
    return Uart(bench)


def test_master_reset(bench: Callable) -> None:
    """Table I: UART Reset Configuration."""
    board = bench(1_843_200)
    chip = Uart16550(board.clock, "com1")
    board.place(chip, PORT, 8)
    assert [board.read(PORT + register) for register in (IER, IIR, LCR, MCR, LSR)] == [0, NONE, 0, 0, THRE | TEMT]
    assert board.read(PORT + MSR) & 0x0F == 0


def test_divisor_latch(uart: Uart) -> None:
    uart.set_divisor(0x1234)
    uart[IER] = 0x0F
    uart[LCR] = 0x83
    assert (uart[DATA], uart[IER], uart[LCR]) == (0x34, 0x12, 0x83)
    uart[LCR] = 0x03
    assert uart[IER] == 0x0F


def test_scratch_register(uart: Uart) -> None:
    uart[SCR] = 0xA5
    assert uart[SCR] == 0xA5


def test_transmission_takes_the_time_of_its_bits(uart: Uart) -> None:
    """THR is empty as soon as the character is in the shift register; that is empty a character's time later."""
    uart[DATA] = ord("A")
    assert uart[LSR] == THRE
    uart[DATA] = ord("B")
    assert uart[LSR] == 0
    uart.bench.clock.advance(CHARACTER - 1)
    assert (uart[LSR], uart.chip.take_output()) == (0, b"")
    uart.bench.clock.advance(1)
    assert (uart[LSR], uart.chip.take_output()) == (THRE, b"A")
    uart.bench.clock.advance(CHARACTER)
    assert (uart[LSR], uart.chip.take_output()) == (THRE | TEMT, b"B")


@pytest.mark.parametrize(
    ("divisor", "lcr", "half_bits"),
    [
        (1, 0x03, 20),  # 8N1
        (12, 0x03, 20),
        (1, 0x07, 22),  # 8N2
        (3, 0x1A, 20),  # 7E1
        (1, 0x00, 14),  # 5N1
        (1, 0x04, 15),  # 5 data bits: one and a half stop bits
    ],
)
def test_character_time(uart: Uart, divisor: int, lcr: int, half_bits: int) -> None:
    """Programmable Baud Generator; Line Control Register."""
    uart.set_divisor(divisor)
    uart[LCR] = lcr
    uart[DATA] = 0xFF
    uart.bench.clock.advance(8 * divisor * half_bits * XTAL - 1)
    assert uart.chip.take_output() == b""
    uart.bench.clock.advance(1)
    assert uart.chip.take_output() == bytes([0xFF >> (3 - (lcr & 3))])


def test_without_a_divisor_nothing_moves(uart: Uart) -> None:
    uart.set_divisor(0)
    uart[DATA] = 0x55
    uart.wait(100)
    assert uart.chip.take_output() == b""
    uart.set_divisor(1)
    uart.wait(1)
    assert uart.chip.take_output() == b"\x55"


def test_transmitter_fifo(uart: Uart) -> None:
    """FIFO mode: 16 characters besides the one that is being sent; THRE when the FIFO is empty."""
    uart[IIR] = 0x01
    for character in range(17):
        uart[DATA] = character
    assert uart[LSR] == 0
    uart.wait(15)
    assert uart[LSR] == 0
    uart.wait(1)
    assert uart[LSR] == THRE
    uart.wait(1)
    assert uart[LSR] == THRE | TEMT
    assert uart.chip.take_output() == bytes(range(17))


def test_transmitter_fifo_reset(uart: Uart) -> None:
    uart[IIR] = 0x01
    for character in b"abc":
        uart[DATA] = character
    uart[IIR] = 0x05
    assert uart[LSR] == THRE
    uart.wait(5)
    assert uart.chip.take_output() == b"a"


def test_thr_empty_interrupt(uart: Uart) -> None:
    """Table IV: raised when THR becomes empty, reset by reading IIR or writing THR."""
    uart[IER] = ETBEI
    assert uart.intr == 1  # enabling it while THR is empty raises it
    assert uart[IIR] == THR_EMPTY
    assert uart.intr == 0
    assert uart[IIR] == NONE
    uart[DATA] = 1
    assert uart.intr == 1
    uart[DATA] = 2
    assert uart.intr == 0
    uart.wait(1)
    assert uart.intr == 1
    assert uart[IIR] == THR_EMPTY
    uart.wait(1)
    assert uart.intr == 0


def test_received_data_interrupt(uart: Uart) -> None:
    uart[IER] = ERBFI
    assert uart.chip.receive(b"xy") == 2
    uart.bench.clock.advance(CHARACTER - 1)
    assert (uart[LSR] & DR, uart.intr) == (0, 0)
    uart.bench.clock.advance(1)
    assert (uart[LSR] & DR, uart.intr, uart[IIR]) == (DR, 1, AVAILABLE)
    assert uart[DATA] == ord("x")
    assert (uart[LSR] & DR, uart.intr) == (0, 0)
    uart.wait(1)
    assert uart[DATA] == ord("y")


def test_a_peer_with_flow_control_waits(uart: Uart) -> None:
    uart.chip.receive(b"xyz")
    uart.wait(50)
    assert (uart[LSR] & OE, uart[DATA]) == (0, ord("x"))
    uart.wait(1)
    assert uart[DATA] == ord("y")


def test_overrun(bench: Callable) -> None:
    """Without FIFOs the character in RBR is lost; reading LSR resets OE."""
    uart = Uart(bench, flow_control=False)
    uart[IER] = ELSI
    uart.chip.receive(b"xyz")
    uart.wait(2)
    assert (uart.intr, uart[IIR]) == (1, LINE)
    assert uart[LSR] & OE
    assert not uart[LSR] & OE
    assert uart.intr == 0
    uart.wait(1)
    assert uart[DATA] == ord("z")


def test_overrun_of_the_fifo_keeps_what_is_there(bench: Callable) -> None:
    uart = Uart(bench, flow_control=False)
    uart[IIR] = 0x01
    uart.chip.receive(bytes(range(20)))
    uart.wait(20)
    assert uart[LSR] & OE
    assert bytes(uart[DATA] for _ in range(16)) == bytes(range(16))
    assert not uart[LSR] & DR


@pytest.mark.parametrize("fcr", [0x03, 0x07, 0x00])
def test_an_overrun_is_told_after_the_fifo_was_cleared(bench: Callable, fcr: int) -> None:
    """Line Status Register: OE is reset when it is read; FCR clears the bytes of the FIFO."""
    uart = Uart(bench, flow_control=False)
    uart[IIR] = 0x01
    uart.chip.receive(bytes(17))
    uart.wait(17)
    uart[IIR] = fcr
    assert [uart[LSR] & (OE | DR) for _ in range(2)] == [OE, 0]


@pytest.mark.parametrize(("trigger", "level"), [(0x00, 1), (0x40, 4), (0x80, 8), (0xC0, 14)])
def test_receiver_fifo_trigger(uart: Uart, trigger: int, level: int) -> None:
    """FIFO Interrupt Mode Operation: raised at the trigger level, reset when the FIFO falls below it."""
    uart[IER] = ERBFI
    uart[IIR] = 0x01 | trigger
    uart.chip.receive(bytes(16))
    uart.wait(level - 0.5)
    assert uart.intr == 0
    uart.wait(0.5)
    assert (uart.intr, uart[IIR]) == (1, AVAILABLE | FIFOS)
    uart[DATA]
    assert (uart.intr, uart[IIR]) == (0, NONE | FIFOS)


def test_character_timeout(uart: Uart) -> None:
    """Four character times after the last character in or out, with characters in the FIFO."""
    uart[IER] = ERBFI
    uart[IIR] = 0x81
    uart.chip.receive(b"abc")
    uart.wait(3)
    uart.bench.clock.advance(4 * CHARACTER - 1)
    assert uart.intr == 0
    uart.bench.clock.advance(1)
    assert (uart.intr, uart[IIR]) == (1, TIMEOUT | FIFOS)
    assert uart[DATA] == ord("a")
    assert uart.intr == 0
    uart.wait(4)
    assert uart.intr == 1
    assert (uart[DATA], uart[DATA]) == (ord("b"), ord("c"))
    uart.wait(10)
    assert uart.intr == 0


def test_character_timeout_above_the_trigger_level(uart: Uart) -> None:
    """IIR bit 3 is set along with bit 2 when a timeout is pending, whatever the FIFO holds besides."""
    uart[IER] = ERBFI
    uart[IIR] = 0x41
    uart.chip.receive(b"abcde")
    uart.wait(5)
    assert uart[IIR] == AVAILABLE | FIFOS
    uart.wait(4)
    assert uart[IIR] == TIMEOUT | FIFOS
    assert uart[DATA] == ord("a")
    assert uart[IIR] == AVAILABLE | FIFOS


def test_receiver_fifo_reset(uart: Uart) -> None:
    uart[IIR] = 0x01
    uart.chip.receive(b"abc")
    uart.wait(3)
    uart[IIR] = 0x03
    assert not uart[LSR] & DR


def test_modem_status(uart: Uart) -> None:
    """Modem Status Register: the lines, and what has changed since it was read; of RI the trailing edge alone."""
    assert uart[MSR] == 0xB0  # a peer that is there: CTS, DSR, DCD
    uart[IER] = EDSSI
    uart.chip.drive(0, False)
    assert (uart.intr, uart[IIR]) == (1, MODEM)
    assert uart[MSR] == 0xA1
    assert (uart.intr, uart[MSR]) == (0, 0xA0)
    uart.chip.drive(2, True)
    assert uart[MSR] == 0xE0
    uart.chip.drive(2, False)
    assert uart[MSR] == 0xA4
    uart.chip.drive(1, False)
    uart.chip.drive(3, False)
    assert uart[MSR] == 0x0A


def test_interrupt_priorities(bench: Callable) -> None:
    """Table IV, Interrupt Control Functions."""
    uart = Uart(bench, flow_control=False)
    uart[IER] = 0x0F
    uart.chip.drive(0, False)
    uart.chip.receive(b"ab")
    uart.wait(2)
    assert uart[IIR] == LINE
    uart[LSR]
    assert uart[IIR] == AVAILABLE
    uart[DATA]
    assert uart[IIR] == THR_EMPTY
    assert uart[IIR] == MODEM
    uart[MSR]
    assert uart[IIR] == NONE


def test_loopback(uart: Uart) -> None:
    """Modem Control Register, bit 4: the transmitter feeds the receiver, MCR's outputs the modem inputs."""
    uart.chip.receive(b"host")
    uart[MCR] = LOOP
    assert uart[MSR] & 0xF0 == 0
    for mcr, msr in ((RTS, 0x10), (DTR, 0x20), (OUT1, 0x40), (OUT2, 0x80)):
        uart[MCR] = LOOP | mcr
        assert uart[MSR] & 0xF0 == msr
    uart[DATA] = 0xC3
    uart.wait(1)
    assert (uart[LSR] & DR, uart[DATA], uart.chip.take_output()) == (DR, 0xC3, b"")
    uart[MCR] = OUT2
    uart.wait(1)
    assert uart[DATA] == ord("h")


def test_out2_gates_the_interrupt(uart: Uart) -> None:
    """The PC's serial adapter: INTR reaches the bus through a buffer that OUT2 opens."""
    uart[IER] = ETBEI
    assert uart.intr == 1
    uart[MCR] = 0
    assert uart.intr == 0
    uart[MCR] = OUT2 | LOOP
    assert uart.intr == 0
    uart[MCR] = OUT2
    assert uart.intr == 1


def test_output_that_nobody_takes_is_bounded(uart: Uart) -> None:
    uart[IIR] = 0x01
    for _ in range((1 << 20) // 16 + 1):
        for character in range(16):
            uart[DATA] = character
        uart.wait(16)
    assert len(uart.chip.take_output()) == 1 << 20
    assert uart.chip.output_lost == 16


def test_input_is_bounded(uart: Uart) -> None:
    assert uart.chip.receive(bytes((1 << 20) + 5)) == 1 << 20
    assert uart.chip.receive(b"more") == 0


def test_state_holds_what_is_on_its_way(uart: Uart, bench: Callable, round_trip: Callable) -> None:
    other = Uart(bench)
    uart[IIR] = 0x01
    for character in b"guest":
        uart[DATA] = character
    uart.chip.receive(b"host")
    uart.wait(1.5)
    uart.chip.take_output()
    other.bench.clock.load(uart.bench.clock.save())
    other.chip.load(uart.chip.save())
    for one in (uart, other):
        one.wait(10)
    assert uart.chip.take_output() == other.chip.take_output() == b"uest"
    assert bytes(other[DATA] for _ in range(4)) == b"host"
    round_trip(uart.chip, Uart16550(Clock(), "com1"))
