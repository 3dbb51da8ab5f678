"""82441FX: configuration mechanism 1, PAM, SMRAM; on a bench without a processor, and on a board with one."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

import asm
from emu._core import READ, ROM, Bus, Clock, Memory, Model
from emu.board import Board
from emu.chips.i440fx import I440fx
from emu.chips.piix4_ide import Piix4Ide
from emu.chips.piix4_isa import Piix4Isa
from emu.chips.reset_control import ResetControl
from emu.errors import ConfigError

CONFADD, CONFDATA = 0xCF8, 0xCFC
PAM0, SMRAM = 0x59, 0x72
DOPEN, DLCK, SMRAME = 0x40, 0x10, 0x08


@pytest.fixture
def board(bench: Callable) -> SimpleNamespace:
    """The bridge with 1 MiB of RAM, a ROM of BBh from C0000h to FFFFFh and an ISA bridge at device 1."""
    made = bench(1000)
    ram, rom = Memory(1 << 20), Memory(1 << 18)
    ram.write(0xA0000, b"\xaa" * 0x60000)
    rom.write(0, b"\xbb" * (1 << 18))
    made.bus.map_memory(0, ram, 0, 0xA0000)
    made.bus.map_memory(0xC0000, rom, 0, 1 << 18, READ | ROM)
    control = ResetControl(made.clock, "reset_control")
    bridge = I440fx(made.clock, "bridge", made.bus, control)
    isa = Piix4Isa(made.clock, "isa")
    bridge.attach(1, 0, isa)
    bridge.route(ram)
    made.place(bridge, CONFADD, 8)
    for chip in (control, bridge, isa):
        chip.reset()

    def select(register: int, device: int = 0, function: int = 0, bus: int = 0, enable: int = 1) -> None:
        address = enable << 31 | bus << 16 | device << 11 | function << 8 | register
        made.write(CONFADD, address, 4)

    return SimpleNamespace(
        read=made.read, write=made.write, bus=made.bus, ram=ram, bridge=bridge, isa=isa, control=control,
        select=select, clock=made.clock,
    )  # fmt: skip


class TestConfigurationMechanism1:
    """82441FX, "CONFADD - Configuration Address Register", "CONFDATA - Configuration Data Register"."""

    def test_who_is_there(self, board: SimpleNamespace) -> None:
        board.select(0)
        assert board.read(CONFDATA, 4) == 0x12378086
        board.select(0, device=1)
        assert board.read(CONFDATA, 4) == 0x71108086

    def test_bytes_words_and_doublewords(self, board: SimpleNamespace) -> None:
        board.select(0)
        assert [board.read(CONFDATA + at, 1) for at in range(4)] == [0x86, 0x80, 0x37, 0x12]
        assert (board.read(CONFDATA, 2), board.read(CONFDATA + 2, 2)) == (0x8086, 0x1237)
        assert board.read(CONFDATA + 1, 2) == 0x3780
        board.select(0x58)
        board.write(CONFDATA + 1, 0x3030, 2)
        assert board.read(CONFDATA, 4) == 0x00303010

    def test_confadd_is_a_doubleword_only(self, board: SimpleNamespace) -> None:
        """Bits 1 and 0 and the reserved ones read as 0; bytes and words belong to whoever else is there."""
        board.write(CONFADD, 0xFFFFFFFF, 4)
        assert board.read(CONFADD, 4) == 0x80FFFFFC
        board.write(CONFADD, 0, 1)
        board.write(CONFADD + 2, 0, 2)
        assert board.read(CONFADD, 4) == 0x80FFFFFC
        assert board.read(CONFADD, 1) == 0xFF

    def test_reset_control_is_reached_in_between(self, board: SimpleNamespace) -> None:
        board.select(0x40)
        board.write(0xCF9, 2)
        assert board.read(0xCF9) == 2
        assert board.read(0xCF8, 2) == 0x02FF
        assert board.read(CONFADD, 4) == 0x80000040

    @pytest.mark.parametrize(
        "place", [{"enable": 0}, {"bus": 1}, {"device": 2}, {"device": 0, "function": 1}, {"device": 31, "function": 7}]
    )
    def test_nobody_there(self, board: SimpleNamespace, place: dict[str, int]) -> None:
        board.select(0, **place)
        assert board.read(CONFDATA, 4) == 0xFFFFFFFF
        board.write(CONFDATA, 0, 4)

    def test_an_access_across_confdata(self, board: SimpleNamespace) -> None:
        """CFBh to CFEh: the part that lies in CONFDATA reaches it, as the second half of a split access does."""
        board.select(0)
        assert board.read(0xCFB, 4) == 0x378086FF
        assert board.read(0xCFE, 4) == 0xFFFF1237

    def test_read_only_and_write_clear(self, board: SimpleNamespace) -> None:
        board.select(0)
        board.write(CONFDATA, 0, 4)
        assert board.read(CONFDATA, 4) == 0x12378086
        board.select(4)
        board.write(CONFDATA, 0xFFFFFFFF, 4)
        assert board.read(CONFDATA, 4) == 0x02800146

    def test_two_functions_in_one_place(self, board: SimpleNamespace) -> None:
        with pytest.raises(ConfigError, match="other: PCI device 1, function 0 is isa"):
            board.bridge.attach(1, 0, Piix4Ide(board.clock, "other"))
        with pytest.raises(ConfigError, match="no PCI device 32"):
            board.bridge.attach(32, 0, Piix4Ide(board.clock, "another"))

    def test_state(self, board: SimpleNamespace, round_trip: Callable) -> None:
        board.bridge.write_config(PAM0, 0x30)
        board.select(0x40)
        clock = Clock()
        bus = Bus(clock)
        copy = I440fx(clock, "bridge", bus, ResetControl(clock, "reset_control"))
        ram = Memory(1 << 20)
        ram.write(0xF0000, b"copy")
        copy.route(ram)
        copy.reset()
        assert bus.mem_read(0xF0000) == 0xFFFFFFFF
        round_trip(board.bridge, copy)
        copy.load(board.bridge.save())
        assert bus.read(0xF0000, 4) == b"copy"


SEGMENTS = [(0xF0000, 0x10000, PAM0, 4)] + [
    (0xC0000 + 0x4000 * at, 0x4000, PAM0 + 1 + at // 2, 4 * (at & 1)) for at in range(12)
]


class TestPam:
    """82441FX, "PAM[6:0] - Programmable Attribute Map Registers"."""

    @pytest.mark.parametrize(("start", "size", "register", "shift"), SEGMENTS)
    def test_each_segment(self, board: SimpleNamespace, start: int, size: int, register: int, shift: int) -> None:
        """Read and write enables apart, in this segment and in no other."""
        bus, first, last = board.bus, start, start + size - 1

        def try_it(bits: int) -> tuple[str, bool]:
            """Who answers a read, and whether a write reached the RAM."""
            board.ram.write(first, b"\xaa")
            board.bridge.write_config(register, bits << shift)
            who = {0xAA: "RAM", 0xBB: "ROM"}[bus.mem_read(first, 1)]
            assert bus.mem_read(last, 1) == bus.mem_read(first, 1)
            bus.mem_write(first, 0x55, 1)
            return who, board.ram.read(first, 1) == b"\x55"

        assert [try_it(bits) for bits in (0, 1, 2, 3)] == [
            ("ROM", False), ("RAM", False), ("ROM", True), ("RAM", True),
        ]  # fmt: skip
        others = {bus.mem_read(other, 1) for other, *_ in SEGMENTS if other != start}
        assert others == {0xBB}

    def test_reserved_bits(self, board: SimpleNamespace) -> None:
        for register in range(PAM0, PAM0 + 7):
            board.bridge.write_config(register, 0xFF)
        assert board.bridge.read_config(PAM0, 4) == 0x33333330
        board.bridge.reset()
        assert board.bridge.read_config(PAM0, 4) == 0
        assert board.bus.mem_read(0xF0000, 1) == 0xBB


class TestSmram:
    """82441FX, "SMRAM - System Management RAM Control Register"."""

    def seen(self, board: SimpleNamespace) -> bool:
        return bool(board.bus.mem_read(0xA0000, 1) == board.bus.mem_read(0xBFFFF, 1) == 0xAA)

    @pytest.mark.parametrize("bits", [0, SMRAME, DOPEN, DOPEN | SMRAME])
    def test_dopen(self, board: SimpleNamespace, bits: int) -> None:
        board.bridge.write_config(SMRAM, bits)
        assert self.seen(board) == (bits == DOPEN | SMRAME)
        assert board.bridge.read_config(SMRAM) == bits | 2

    def test_dlck(self, board: SimpleNamespace) -> None:
        """Closes DOPEN, and nothing but a reset opens it again."""
        board.bridge.write_config(SMRAM, DOPEN | SMRAME)
        board.bridge.write_config(SMRAM, DLCK | DOPEN | SMRAME)
        assert (board.bridge.read_config(SMRAM), self.seen(board)) == (DLCK | SMRAME | 2, False)
        board.bridge.write_config(SMRAM, DOPEN | SMRAME)
        assert (board.bridge.read_config(SMRAM), self.seen(board)) == (DLCK | SMRAME | 2, False)
        board.bridge.reset()
        board.bridge.write_config(SMRAM, DOPEN | SMRAME)
        assert self.seen(board)


def test_firmware_shadows_itself() -> None:
    """As PC firmware does: copies F0000h onto itself through write-only RAM, then changes a byte of the copy."""
    text = """
        bits 16
        org 0
        mov al, [cs:value]
        out 0x80, al
        mov bl, 0x20            ; PAM0: write only
        call pam0
        mov ax, 0xf000
        mov ds, ax
        mov es, ax
        xor si, si
        xor di, di
        mov cx, 0x8000
        rep movsw
        mov byte [value], 0x77  ; to RAM; the ROM is still read
        mov al, [value]
        out 0x80, al
        mov bl, 0x10            ; read only
        call pam0
        mov al, [value]
        out 0x80, al
        mov byte [value], 0x88  ; nobody takes it
        mov al, [value]
        out 0x80, al
        mov bl, 0               ; the ROM again
        call pam0
        mov al, [value]
        out 0x80, al
        hlt
pam0:   mov eax, 0x80000058
        mov dx, 0xcf8
        out dx, eax
        mov dx, 0xcfd
        mov al, bl
        out dx, al
        ret
value:  db 0x66
        times 0xfff0 - ($ - $$) db 0xff
        jmp 0xf000:start
start   equ 0
        times 0x10000 - ($ - $$) db 0xff
"""
    setup = "xor ax, ax\nmov ss, ax\nmov sp, 0x1000\n"
    image = asm.assemble(text.replace("org 0\n", "org 0\n" + setup), bits=16).binary
    board = Board(Model("pentium3"), 1 << 20, image)
    board.cpu.run(instructions=100_000)
    assert [code for _, code in board.post.codes] == [0x66, 0x66, 0x77, 0x77, 0x66]
