"""The board: what answers where, and wires from end to end with a processor that runs."""

import pytest

import asm
from emu._core import Model
from emu.board import PM_BASE, Board
from emu.errors import BadInput, ConfigError
from emu.stop import Stop, StopReason

MIB = 1 << 20
GIB = 1 << 30

INITIALIZE_PICS = """
        mov al, 0x11
        out 0x20, al
        out 0xa0, al
        mov al, 0x20
        out 0x21, al
        mov al, 0x28
        out 0xa1, al
        mov al, 4
        out 0x21, al
        mov al, 2
        out 0xa1, al
        mov al, 1
        out 0x21, al
        out 0xa1, al
"""


def rom(text: str, size: int = 64 << 10) -> bytes:
    """An image whose reset vector jumps to this text at F000:0000."""
    code: bytes = asm.assemble(f"bits 16\norg 0\n{text}", bits=16).binary
    vector: bytes = asm.assemble("jmp 0xf000:0", bits=16).binary
    assert len(code) < 0xFFF0
    return bytes(size - 0x10000) + code.ljust(0xFFF0, b"\xf4") + vector.ljust(16, b"\xf4")


def board(text: str = "hlt", memory: int = MIB, **options: int) -> Board:
    return Board(Model("pentium3"), memory, rom(text), **options)


def test_reset_vector_runs_the_rom() -> None:
    made = board("mov al, 0x5a\nout 0x80, al\nhlt")
    assert made.cpu.run(instructions=4).reason is StopReason.LIMIT
    assert [code for _, code in made.post.codes] == [0x5A]


def test_memory_map() -> None:
    made = Board(Model("pentium3"), 2 * MIB, bytes(range(256)) * (1 << 10))  # a ROM of 256 KiB
    bus = made.bus
    bus.mem_write(0x9FFFC, 0x11111111)
    bus.mem_write(0x100000, 0x22222222)
    bus.mem_write(0x1FFFFC, 0x33333333)
    assert (bus.mem_read(0x9FFFC), bus.mem_read(0x100000), bus.mem_read(0x1FFFFC)) == (
        0x11111111, 0x22222222, 0x33333333,
    )  # fmt: skip
    for address in (0xA0000, 0xDFFFC, 0x200000, 3 * GIB, 4 * GIB - 0x40004, 4 * GIB):
        assert bus.mem_read(address) == 0xFFFFFFFF
    for address in (0xE0000, 0xFFFFC, 4 * GIB - 0x40000, 4 * GIB - 4):
        value = int.from_bytes(bytes((address + at) & 0xFF for at in range(4)), "little")
        assert bus.mem_read(address) == value
        bus.mem_write(address, 0)
        assert bus.mem_read(address) == value


def test_ram_that_finds_no_room_below_4_gib_lies_above() -> None:
    made = board(memory=5 * GIB)
    made.memory.write(3 * GIB, b"above")
    assert made.bus.read(4 * GIB, 5) == b"above"
    assert made.bus.mem_read(3 * GIB) == 0xFFFFFFFF
    made.bus.write(6 * GIB - 4, b"last")
    assert made.memory.read(5 * GIB - 4, 4) == b"last"


@pytest.mark.parametrize("size", [0, 100, 4097, 32 * MIB])
def test_rom_of_a_wrong_size(size: int) -> None:
    with pytest.raises(BadInput, match=f"a ROM image of {size} bytes"):
        Board(Model("pentium3"), MIB, bytes(size))


@pytest.mark.parametrize("size", [-MIB, 0, 4096, MIB + 1])
def test_memory_of_a_wrong_size(size: int) -> None:
    with pytest.raises(ConfigError, match="not whole MiB"):
        Board(Model("pentium3"), size, bytes(4096))


def test_two_chips_at_one_port() -> None:
    with pytest.raises(ConfigError, match=r"debugcon: port 0x80 belongs to post"):
        board(debugcon=0x80)
    with pytest.raises(ConfigError, match=r"debug_exit: port 0x80 belongs to post"):
        board(debug_exit=0x7F)


@pytest.mark.parametrize("number", [-1, 16])
def test_there_is_no_such_irq(number: int) -> None:
    with pytest.raises(ConfigError, match=f"IRQ {number}: not within 0 to 15"):
        board().irq(number)


def test_power_off() -> None:
    made = board(f"mov dx, {PM_BASE + 4}\nmov ax, 0x2000\nout dx, ax\nmov al, 1\nout 0x80, al\nhlt")
    assert made.cpu.run(instructions=100) == Stop(StopReason.POWERED_OFF, 0)
    assert made.post.count == 0  # the run ended with that instruction


def test_debug_exit() -> None:
    made = board("mov dx, 0x501\nmov eax, 0x2a\nout dx, eax\nhlt", debug_exit=0x501)
    assert made.cpu.run(instructions=100) == Stop(StopReason.DEBUG_EXIT, 0x2A << 1 | 1)


def test_debugcon() -> None:
    made = board("mov al, 'h'\nout 0xe9, al\nmov al, 'i'\nout 0xe9, al\nhlt", debugcon=0xE9)
    made.cpu.run(instructions=6)
    assert made.debugcon is not None
    assert made.debugcon.take_output() == b"hi"


def test_timer_interrupts() -> None:
    """PIT to PIC to processor: in HLT for ten interrupts of 1000 CLK pulses each."""
    made = board(
        """
        mov al, 0x34
        out 0x43, al
        mov al, 1000 & 255
        out 0x40, al
        mov al, 1000 >> 8
        out 0x40, al
"""
        + INITIALIZE_PICS
        + """
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x1000
        mov word [0x20 * 4], handler
        mov word [0x20 * 4 + 2], 0xf000
        mov al, 0xfe
        out 0x21, al
        sti
again:  hlt
        cmp bx, 10
        jb again
        mov al, bl
        out 0x80, al
        cli
        hlt
handler:
        inc bx
        mov al, 0x20
        out 0x20, al
        iret
""",
    )
    made.cpu.run(cycles=20 * 1000 * made.clock.hz * 88 // 105_000_000)
    [(cycle, code)] = made.post.codes
    assert code == 10
    clks = cycle * 105_000_000 // (88 * made.clock.hz)
    assert 10_000 <= clks < 10_100


def test_slave_interrupts_and_the_rtc() -> None:
    """RTC to the slave to the master to the processor: 1024 a second."""
    made = board(
        INITIALIZE_PICS
        + """
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x1000
        mov word [0x28 * 4], handler
        mov word [0x28 * 4 + 2], 0xf000
        mov al, 0xfb
        out 0x21, al
        mov al, 0xfe
        out 0xa1, al
        mov al, 0x0b
        out 0x70, al
        mov al, 0x42
        out 0x71, al
        sti
again:  hlt
        jmp again
handler:
        mov al, 0x0c
        out 0x70, al
        in al, 0x71
        out 0x80, al
        mov al, 0x20
        out 0xa0, al
        out 0x20, al
        iret
""",
    )
    made.cpu.run(cycles=made.clock.hz // 10)
    assert made.post.count == 102
    assert {code for _, code in made.post.codes} == {0xC0}


def test_the_clock_s_alarm_is_an_event_of_power_management() -> None:
    """82371AB, "PMSTS": RTC_STS is set by the assertion of IRQ8#, and with RTC_EN and SCI_EN raises SCI."""
    made = board()
    bus = made.bus
    bus.port_write(PM_BASE + 2, 0x0400, 2)
    bus.port_write(PM_BASE + 4, 0x0001, 2)
    for index, value in ((0x05, 0xC0), (0x03, 0xC0), (0x01, 0x02), (0x0B, 0x22)):
        bus.port_write(0x70, index)
        bus.port_write(0x71, value)
    made.clock.advance(19 * made.clock.hz // 10)
    assert (bus.port_read(PM_BASE, 2) & 0x0400, made.pm.level("SCI")) == (0, 0)
    made.clock.advance(2 * made.clock.hz // 10)
    assert (bus.port_read(PM_BASE, 2) & 0x0400, made.pm.level("SCI")) == (0x0400, 1)
    bus.port_write(PM_BASE, 0x0400, 2)  # the event is over, whether IRQ 8 is acknowledged or not
    assert (bus.port_read(PM_BASE, 2) & 0x0400, made.pm.level("SCI")) == (0, 0)


def test_a20_by_port_92() -> None:
    made = board(
        """
        xor ax, ax
        mov ds, ax
        dec ax
        mov es, ax
        mov byte [0], 0x11
        mov byte [es:0x10], 0x22        ; FFFF:0010 is 100000h
        mov al, [0]
        out 0x80, al
        mov al, 0xd1
        out 0x64, al                    ; the keyboard controller drives the gate too
        mov al, 0xdd
        out 0x60, al
        mov al, 0
        out 0x92, al
        mov al, [es:0x10]
        out 0x80, al
        mov al, 2
        out 0x92, al
        mov al, [es:0x10]
        out 0x80, al
        hlt
""",
        memory=2 * MIB,
    )
    made.cpu.run(instructions=24)
    assert [code for _, code in made.post.codes] == [0x11, 0x11, 0x22]


@pytest.mark.parametrize(("port", "value"), [(0xCF9, 6), (0xCF9, 4), (0x92, 3)])
def test_resets_begin_at_the_reset_vector(port: int, value: int) -> None:
    """A hard reset resets the chips too; RAM keeps its contents, by which the second start is told from the first."""
    made = board(
        f"""
        xor ax, ax
        mov ds, ax
        mov al, [0x500]
        out 0x80, al
        cmp al, 0
        jne again
        mov byte [0x500], 1
        mov al, 3
        out 0x61, al
        mov dx, {port}
        mov al, {value}
        out dx, al
        mov al, 0xee
        out 0x80, al
again:  in al, 0x61
        and al, 0x0f
        out 0x80, al
        hlt
""",
    )
    made.cpu.run(instructions=40)
    speaker = 0 if value == 6 else 3
    assert [code for _, code in made.post.codes] == [0, 1, speaker]


def test_serial_port() -> None:
    """Polled output, and a received character by interrupt."""
    made = board(
        INITIALIZE_PICS
        + """
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x1000
        mov word [0x24 * 4], handler
        mov word [0x24 * 4 + 2], 0xf000
        mov al, 0xef
        out 0x21, al
        mov dx, 0x3fb
        mov al, 0x83
        out dx, al
        mov dx, 0x3f8
        mov ax, 1
        out dx, ax
        mov dx, 0x3fb
        mov al, 3
        out dx, al
        inc dx
        mov al, 8
        out dx, al
        mov dx, 0x3f9
        mov al, 1
        out dx, al
        sti
again:  hlt
        jmp again
handler:
        mov dx, 0x3f8
        in al, dx
        inc al
        out dx, al
        mov al, 0x20
        out 0x20, al
        iret
""",
    )
    made.com1.receive(b"HAL")
    made.cpu.run(cycles=made.clock.hz // 1000)
    assert made.com1.take_output() == b"IBM"


def test_nmi_by_iochk() -> None:
    """IOCHK# to port 61h to the processor, held back while bit 7 of port 70h is set."""
    made = board(
        """
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x1000
        mov word [2 * 4], handler
        mov word [2 * 4 + 2], 0xf000
        mov al, 0x80
        out 0x70, al
        out 0x80, al
again:  in al, 0x61
        test al, 0x40
        jz again
        mov al, 0x0d
        out 0x70, al
        hlt
handler:
        in al, 0x61
        out 0x80, al
        hlt
""",
    )
    made.cpu.run(instructions=50)
    made.port61.drive(0, True)
    made.cpu.run(instructions=20)
    assert [code & 0xC0 for _, code in made.post.codes] == [0x80, 0x40]
