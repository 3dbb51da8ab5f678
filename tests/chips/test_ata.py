"""ATA drives on the PIIX4's cables: ATA/ATAPI-6 and -4, command by command, without a processor."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from emu._core import Bus, Clock
from emu.chips.ata import Ata
from emu.chips.piix4_ide import Piix4Ide
from emu.errors import BadInput, ConfigError
from emu.host.disk import Disk

HZ = 100_000_000
MS = HZ // 1000
SECTORS = 3000
PRIMARY, SECONDARY = 0x1F0, 0x170
DATA, ERROR, COUNT, LOW, MID, HIGH, DEVICE, COMMAND, CONTROL = 0, 1, 2, 3, 4, 5, 6, 7, 0x206
BSY, DRDY, DF, DSC, DRQ, ERR = 0x80, 0x40, 0x20, 0x10, 0x08, 0x01
READY = DRDY | DSC
ABRT, IDNF, UNC = 0x04, 0x10, 0x40
LBA = 0x40


@cache
def pattern(lba: int) -> bytes:
    """What the test disks hold at first."""
    return b"".join((lba * 128 + at).to_bytes(4, "little") for at in range(128))


@cache
def image(number: int, sectors: int) -> bytes:
    """The first sectors of the disk of drive `number`."""
    return b"".join(pattern(lba + 0x100000 * number) for lba in range(sectors))


class Host:
    """Drives a cable as a driver does."""

    def __init__(self, folder: Path, drives: int = 1, sectors: int = SECTORS, **options: bool) -> None:
        self.clock = Clock(HZ)
        self.bus = Bus(self.clock)
        self.ide = Piix4Ide(self.clock, "ide")
        self.disks: list[Disk] = []
        self.drives: list[Ata] = []
        for number in range(drives):
            path = folder / f"disk{number}.img"
            if not path.exists():
                path.write_bytes(image(number, min(sectors, SECTORS)))
                with path.open("r+b") as file:
                    file.truncate(sectors * 512)
            self.disks.append(Disk(path, **options))
            self.drives.append(Ata(self.clock, f"disk{number}", self.disks[number], number & 1))
            self.ide.attach(number >> 1, self.drives[number])
        for base in (PRIMARY, SECONDARY):
            self.bus.map_ports(base, 8, self.ide)
            self.bus.map_ports(base + CONTROL, 1, self.ide)
        for chip in (self.ide, *self.drives):
            chip.reset()
        self.ide.write_config(4, 1, 2)
        self.ide.write_config(0x40, 0x80008000, 4)
        self.base = PRIMARY
        self.clock.advance(5 * MS)

    def read(self, register: int, size: int = 1) -> int:
        return self.bus.port_read(self.base + register, size)

    def write(self, register: int, value: int, size: int = 1) -> None:
        self.bus.port_write(self.base + register, value, size)

    def irq(self) -> int:
        return self.ide.level("IRQ14" if self.base == PRIMARY else "IRQ15")

    def command(self, command: int, *, lba: int = 0, count: int = 1, features: int = 0, device: int = 0xE0) -> int:
        """Writes a task file with a 28-bit address, and waits; returns the status."""
        self.write(DEVICE, device | lba >> 24)
        for register, value in ((ERROR, features), (COUNT, count), (LOW, lba), (MID, lba >> 8), (HIGH, lba >> 16)):
            self.write(register, value & 0xFF)
        self.write(COMMAND, command)
        return self.wait()

    def command_ext(self, command: int, *, lba: int, count: int = 1) -> int:
        self.write(DEVICE, 0x40)
        for shift in (24, 0):
            self.write(COUNT, count >> (8 if shift else 0) & 0xFF)
            for register, at in ((LOW, 0), (MID, 8), (HIGH, 16)):
                self.write(register, lba >> (shift + at) & 0xFF)
        self.write(COMMAND, command)
        return self.wait()

    def wait(self) -> int:
        """Until BSY is gone; at most ten seconds."""
        for _ in range(100_000):
            status = self.read(CONTROL)
            if not status & BSY:
                return status
            self.clock.advance(MS // 10)
        raise AssertionError("the drive stays busy")

    def take(self, blocks: int = 1, sectors: int = 1) -> bytes:
        """Reads DRQ blocks of so many sectors."""
        data = b""
        for _ in range(blocks):
            assert self.wait() & (DRQ | ERR) == DRQ
            data += b"".join(self.read(DATA, 2).to_bytes(2, "little") for _ in range(256 * sectors))
        return data

    def give(self, data: bytes) -> None:
        """Writes one DRQ block."""
        assert self.wait() & (DRQ | ERR) == DRQ
        for at in range(0, len(data), 2):
            self.write(DATA, int.from_bytes(data[at : at + 2], "little"), 2)

    def address(self) -> int:
        return self.read(LOW) | self.read(MID) << 8 | self.read(HIGH) << 16 | (self.read(DEVICE) & 15) << 24

    def identify(self) -> list[int]:
        assert self.command(0xEC, device=self.read(DEVICE) & 0x10) == READY | DRQ
        data = self.take()
        return [int.from_bytes(data[at : at + 2], "little") for at in range(0, 512, 2)]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_signature_after_reset(host: Host) -> None:
    assert host.read(COMMAND) == READY
    assert [host.read(register) for register in (ERROR, COUNT, LOW, MID, HIGH, DEVICE)] == [1, 1, 1, 0, 0, 0]


def test_the_channels_are_closed_at_first(host: Host) -> None:
    """IOSE and the IDE decode enable of the channel; its ports are nobody's while one of them is 0."""
    host.ide.write_config(4, 0, 2)
    assert host.read(COMMAND) == 0xFF
    host.ide.write_config(4, 1, 2)
    host.ide.write_config(0x40, 0x80000000, 4)
    assert host.read(COMMAND) == host.read(CONTROL) == host.read(DATA, 4) & 0xFF == 0xFF
    host.ide.write_config(0x40, 0x00008000, 4)
    assert host.read(COMMAND) == READY


class TestIdentify:
    def test_words(self, host: Host) -> None:
        words = host.identify()
        assert words[0] == 0x0040
        assert (words[1], words[3], words[6]) == (2, 16, 63)
        assert b"".join(word.to_bytes(2, "big") for word in words[27:47]).rstrip() == b"EMU HARD DISK"
        assert b"".join(word.to_bytes(2, "big") for word in words[10:20]).rstrip() == b"EMU00000001"
        assert words[49] & 0x0300 == 0x0200  # LBA, no DMA
        assert words[60] | words[61] << 16 == SECTORS
        assert words[100] | words[101] << 16 | words[102] << 32 == SECTORS
        assert words[54:59] == [2, 16, 63, 2 * 16 * 63, 0]
        assert words[83] & 0xC000 == words[84] & 0xC000 == words[87] & 0xC000 == 0x4000
        assert words[88] == words[63] == 0
        assert words[255] & 0xFF == 0xA5
        assert sum(byte for word in words for byte in word.to_bytes(2, "little")) & 0xFF == 0

    def test_command_sets(self, host: Host) -> None:
        """Words 82 to 87: what is supported works, and what is enabled is what SET FEATURES and the like have set."""
        words = host.identify()
        assert words[82] == words[85] == 0x7468  # NOP, READ and WRITE BUFFER, HPA, look-ahead, write cache, power
        assert (words[83], words[86]) == (0x7500, 0x3400)  # FLUSH CACHE, -EXT, 48-bit; SET MAX security not enabled
        for feature, bit in ((0x82, 0x20), (0x55, 0x40)):
            assert host.command(0xEF, features=feature) == READY
            assert host.identify()[85] == 0x7468 & ~bit
            assert host.identify()[82] == 0x7468
            assert host.command(0xEF, features={0x82: 0x02, 0x55: 0xAA}[feature]) == READY
            assert host.identify()[85] == 0x7468
        for command in (0xE4, 0xE8):
            assert host.command(command) == READY | DRQ
            if command == 0xE4:
                host.take()
            else:
                host.give(bytes(512))
            assert host.wait() == READY
        assert host.command(0xF9, features=1) == READY | DRQ
        host.give(bytes(512))
        host.wait()
        assert host.identify()[86] == 0x3500

    def test_reset_result(self, tmp_path: Path) -> None:
        """Word 93: numbered by jumpers; a lone drive 0 answers for drive 1, else it saw that one's PDIAG- and DASP-."""
        host = Host(tmp_path, drives=3)
        assert host.identify()[93] == 0x403B
        host.write(DEVICE, 0x10)
        assert host.identify()[93] == 0x4B00
        host.base = SECONDARY
        assert host.identify()[93] == 0x404B

    @pytest.mark.parametrize(
        ("sectors", "geometry"),
        [(1, (1, 1, 1)), (62, (1, 1, 62)), (64, (1, 1, 63)), (1007, (1, 15, 63)), (1008, (1, 16, 63)),
         (1 << 26, (16383, 16, 63))],
    )  # fmt: skip
    def test_geometry(self, tmp_path: Path, sectors: int, geometry: tuple[int, int, int]) -> None:
        words = Host(tmp_path, sectors=sectors).identify()
        assert (words[1], words[3], words[6]) == geometry
        assert words[54:57] == list(geometry)
        assert words[60] | words[61] << 16 == sectors

    def test_a_disk_beyond_28_bits(self, tmp_path: Path) -> None:
        words = Host(tmp_path, sectors=1 << 29).identify()
        assert words[60] | words[61] << 16 == 0x0FFFFFFF
        assert words[100] | words[101] << 16 == 1 << 29

    def test_interrupt(self, host: Host) -> None:
        """INTRQ with DRQ; reading the status lets it go, reading the alternate status does not."""
        host.write(DEVICE, 0)
        host.write(COMMAND, 0xEC)
        assert (host.read(CONTROL), host.irq()) == (READY | BSY, 0)
        host.clock.advance(MS)
        assert (host.read(CONTROL), host.irq()) == (READY | DRQ, 1)
        assert (host.read(COMMAND), host.irq()) == (READY | DRQ, 0)
        host.take()
        assert (host.read(CONTROL), host.irq()) == (READY, 0)

    def test_nien(self, host: Host) -> None:
        host.write(CONTROL, 2)
        host.command(0xEC)
        assert host.irq() == 0
        host.write(CONTROL, 0)
        assert host.irq() == 1


class TestRead:
    @pytest.mark.parametrize("command", [0x20, 0x21])
    def test_sectors(self, host: Host, command: int) -> None:
        """One interrupt a block, none at the end; the task file ends at the last sector, with a count of 0."""
        host.command(command, lba=1234, count=3)
        for lba in range(1234, 1237):
            host.wait()
            assert host.irq() == 1
            assert host.read(COMMAND) == READY | DRQ
            assert host.take() == pattern(lba)
        assert (host.wait(), host.irq(), host.address(), host.read(COUNT)) == (READY, 0, 1236, 0)

    def test_256_sectors(self, host: Host) -> None:
        host.command(0x20, lba=10, count=0)
        assert host.take(256) == b"".join(pattern(lba) for lba in range(10, 266))
        assert host.wait() == READY

    def test_chs(self, host: Host) -> None:
        """Cylinder 1, head 2, sector 3 of 16 heads and 63 sectors; the report is in CHS too."""
        lba = (1 * 16 + 2) * 63 + 2
        assert host.command(0x20, lba=3 | 1 << 8, count=2, device=0xA2) == READY | DRQ
        assert host.take(2) == pattern(lba) + pattern(lba + 1)
        assert host.wait() == READY
        assert [host.read(at) for at in (LOW, MID, HIGH, DEVICE)] == [4, 1, 0, 0xA2]

    @pytest.mark.parametrize(("address", "device"), [(0, 0xA0), (64, 0xA0), (1 | 2 << 8, 0xA0)])
    def test_chs_that_is_not_there(self, host: Host, address: int, device: int) -> None:
        assert host.command(0x20, lba=address, device=device) == READY | ERR
        assert (host.read(ERROR), host.irq()) == (IDNF, 1)

    def test_multiple(self, host: Host) -> None:
        """SET MULTIPLE MODE 8: blocks of 8 and a shorter last one."""
        assert host.command(0xC4) == READY | ERR
        assert host.read(ERROR) == ABRT
        assert host.command(0xC6, count=8) == READY
        assert host.identify()[59] == 0x0108
        assert host.command(0xC4, lba=100, count=19) == READY | DRQ
        assert host.take(2, 8) + host.take(1, 3) == b"".join(pattern(lba) for lba in range(100, 119))
        assert host.wait() == READY

    @pytest.mark.parametrize("count", [3, 17, 32, 255])
    def test_multiple_of_a_wrong_size(self, host: Host, count: int) -> None:
        """Refused, and what was set before is no longer: SET MULTIPLE MODE, Error outputs."""
        host.command(0xC6, count=8)
        assert host.command(0xC6, count=count) == READY | ERR
        assert host.read(ERROR) == ABRT
        assert host.identify()[59] & 0x100 == 0
        for command in (0xC4, 0xC5):
            assert host.command(command) == READY | ERR
            assert host.read(ERROR) == ABRT
        for command in (0x29, 0x39):
            assert host.command_ext(command, lba=0) == READY | ERR

    def test_multiple_of_zero_disables_it(self, host: Host) -> None:
        host.command(0xC6, count=8)
        assert host.command(0xC6, count=0) == READY
        assert host.command(0xC4) == READY | ERR

    def test_ext(self, host: Host) -> None:
        """48-bit: the count has 16 bits, and HOB shows the other half of each register."""
        assert host.command_ext(0x24, lba=5, count=0x0102) == READY | DRQ
        assert host.take(0x102) == b"".join(pattern(lba) for lba in range(5, 5 + 0x102))
        assert host.command_ext(0x24, lba=0x010203040506, count=0x0708) == READY | ERR
        assert host.read(ERROR) == IDNF
        low = [host.read(at) for at in (COUNT, LOW, MID, HIGH)]
        host.write(CONTROL, 0x80)
        high = [host.read(at) for at in (COUNT, LOW, MID, HIGH)]
        assert (low, high) == ([8, 6, 5, 4], [7, 3, 2, 1])

    def test_ext_needs_lba(self, host: Host) -> None:
        host.write(DEVICE, 0)
        host.write(COMMAND, 0x24)
        assert (host.wait(), host.read(ERROR)) == (READY | ERR, ABRT)

    def test_end_of_the_disk(self, host: Host) -> None:
        """What is there is read; then the first sector that is not is reported."""
        host.command(0x20, lba=SECTORS - 2, count=5)
        assert host.take(2) == pattern(SECTORS - 2) + pattern(SECTORS - 1)
        assert host.wait() == READY | ERR
        assert (host.read(ERROR), host.address(), host.read(COUNT)) == (IDNF, SECTORS, 3)

    def test_verify(self, host: Host) -> None:
        assert host.command(0x40, lba=7, count=100) == READY
        assert (host.address(), host.irq()) == (106, 1)
        host.disks[0].fail(77)
        assert host.command(0x40, lba=7, count=100) == READY | ERR
        assert (host.read(ERROR), host.address()) == (UNC, 77)

    def test_widths(self, host: Host) -> None:
        """Doublewords are two words; a byte takes a whole word, whose upper half is lost, but in the 8-bit mode."""
        host.command(0x20, lba=9)
        data = b"".join(host.read(DATA, 4).to_bytes(4, "little") for _ in range(128))
        assert data == pattern(9)
        host.command(0x20, lba=9)
        assert bytes(host.read(DATA) for _ in range(256)) == pattern(9)[::2]
        assert host.wait() == READY
        host.command(0xEF, features=0x01)
        host.command(0x20, lba=9)
        assert bytes(host.read(DATA) for _ in range(512)) == pattern(9)
        host.command(0xEF, features=0x81)
        host.command(0x20, lba=9)
        assert host.take() == pattern(9)

    def test_data_without_drq(self, host: Host) -> None:
        assert host.read(DATA, 2) == 0xFFFF
        host.write(DATA, 0x1234, 2)
        assert host.read(COMMAND) == READY


class TestWrite:
    @pytest.mark.parametrize("command", [0x30, 0x31])
    def test_sectors(self, host: Host, command: int) -> None:
        """No interrupt for the first block; one after each."""
        assert host.command(command, lba=55, count=2) == READY | DRQ
        assert host.irq() == 0
        host.give(b"a" * 512)
        assert (host.wait(), host.irq()) == (READY | DRQ, 1)
        assert host.read(COMMAND) == READY | DRQ
        host.give(b"b" * 512)
        assert (host.wait(), host.irq()) == (READY, 1)
        assert host.disks[0].read(54, 4) == pattern(54) + b"a" * 512 + b"b" * 512 + pattern(57)
        assert (host.address(), host.read(COUNT)) == (56, 0)

    def test_multiple(self, host: Host) -> None:
        host.command(0xC6, count=4)
        assert host.command(0xC5, lba=8, count=6) == READY | DRQ
        host.give(b"c" * 2048)
        host.give(b"d" * 1024)
        assert host.wait() == READY
        assert host.disks[0].read(8, 7) == b"c" * 2048 + b"d" * 1024 + pattern(14)

    def test_multiple_ext(self, host: Host) -> None:
        host.command(0xC6, count=4)
        assert host.command_ext(0x39, lba=8, count=4) == READY | DRQ
        host.give(b"e" * 2048)
        assert host.wait() == READY
        assert host.disks[0].read(8, 4) == b"e" * 2048

    def test_flush(self, host: Host) -> None:
        host.command(0x34 - 4, lba=1)
        host.give(b"f" * 512)
        host.wait()
        for command in (0xE7, 0xEA):
            assert host.command(command) == READY
        assert host.disks[0].path.read_bytes()[512:1024] == b"f" * 512

    def test_readonly(self, tmp_path: Path) -> None:
        host = Host(tmp_path, readonly=True)
        assert host.command(0x30, lba=1) == READY | ERR
        assert host.read(ERROR) == ABRT
        assert host.command(0x20, lba=1) == READY | DRQ

    def test_without_the_cache_it_takes_as_long_as_the_mechanics(self, host: Host) -> None:
        def duration() -> int:
            host.command(0x30, lba=2000)
            host.give(b"g" * 512)
            start = host.clock.cycle
            assert host.wait() == READY
            return host.clock.cycle - start

        assert duration() < MS
        assert host.command(0xEF, features=0x82) == READY
        assert host.identify()[85] & 0x20 == 0
        assert duration() > MS

    def test_buffer(self, host: Host) -> None:
        assert host.command(0xE8) == READY | DRQ
        host.give(bytes(range(256)) * 2)
        assert host.wait() == READY
        assert host.command(0xE4) == READY | DRQ
        assert host.take() == bytes(range(256)) * 2


class TestErrors:
    def test_uncorrectable(self, host: Host) -> None:
        host.disks[0].fail(range(102, 104))
        host.command(0x20, lba=100, count=8)
        assert host.take(2) == pattern(100) + pattern(101)
        assert (host.wait(), host.irq()) == (READY | ERR, 1)
        assert (host.read(ERROR), host.address(), host.read(COUNT)) == (UNC, 102, 6)
        host.disks[0].mend()
        assert host.command(0x20, lba=102) == READY | DRQ

    def test_write_fault(self, host: Host) -> None:
        """Sectors of the block before the bad one are written."""
        host.disks[0].fail(202, "write_fault")
        host.command(0xC6, count=4)
        host.command(0xC5, lba=200, count=4)
        host.give(b"h" * 2048)
        assert host.wait() == READY | DF | ERR
        assert (host.read(ERROR), host.address(), host.read(COUNT)) == (ABRT, 202, 2)
        assert host.disks[0].read(200, 4) == b"h" * 1024 + pattern(202) + pattern(203)
        assert host.command(0x20, lba=202) == READY | DRQ  # it reads well, and DF is gone

    def test_not_found(self, host: Host) -> None:
        host.disks[0].fail(5, "not_found")
        assert (host.command(0x20, lba=5), host.read(ERROR)) == (READY | ERR, IDNF)
        host.command(0x30, lba=5)
        host.give(bytes(512))
        assert (host.wait(), host.read(ERROR)) == (READY | ERR, IDNF)

    def test_the_host_s_errors(self, host: Host, caplog: pytest.LogCaptureFixture) -> None:
        """A file that has become shorter: an error of the drive, and a line in the log."""
        with host.disks[0].path.open("r+b") as file:
            file.truncate(512 * 10)
        assert (host.command(0x20, lba=10), host.read(ERROR)) == (READY | ERR, UNC)
        assert "the file has become shorter" in caplog.text

    def test_an_exception_of_a_disk_comes_out(self, tmp_path: Path) -> None:
        class Broken(Disk):
            def read(self, lba: int, count: int) -> bytes:
                raise RuntimeError("broken")

        path = tmp_path / "a.img"
        path.write_bytes(bytes(512))
        clock = Clock(HZ)
        drive = Ata(clock, "disk", Broken(path))
        ide = Piix4Ide(clock, "ide")
        ide.attach(0, drive)
        bus = Bus(clock)
        bus.map_ports(PRIMARY, 8, ide)
        for chip in (ide, drive):
            chip.reset()
        ide.write_config(4, 1, 2)
        ide.write_config(0x40, 0x8000, 2)
        clock.advance(5 * MS)
        bus.port_write(PRIMARY + DEVICE, LBA)
        bus.port_write(PRIMARY + LOW, 0)
        bus.port_write(PRIMARY + COMMAND, 0x20)
        with pytest.raises(RuntimeError, match="broken"):
            clock.advance(1000 * MS)

    @pytest.mark.parametrize("command", [0x00, 0x08, 0x22, 0x25, 0x35, 0x50, 0x92, 0xA0, 0xA1, 0xB0, 0xC8, 0xCA, 0xFF])
    def test_no_such_command(self, host: Host, command: int) -> None:
        """NOP ends in an error too; DMA and packet commands are not supported."""
        assert host.command(command) == READY | ERR
        assert (host.read(ERROR), host.irq()) == (ABRT, 1)

    def test_registers_are_left_alone_while_busy_or_moving_data(self, host: Host) -> None:
        host.write(DEVICE, 0xE0)
        host.write(LOW, 7)
        host.write(COMMAND, 0x20)
        host.write(LOW, 9)
        host.write(COMMAND, 0xEC)
        assert host.read(LOW) == READY | BSY  # every register reads as the status
        assert host.wait() == READY | DRQ
        host.write(COMMAND, 0xEC)
        assert host.take() == pattern(7)


class TestOtherCommands:
    @pytest.mark.parametrize("command", [0x10, 0x1F, 0x70, 0x7F, 0xE7, 0xE0, 0xE1, 0x94, 0x95, 0x97])
    def test_no_data(self, host: Host, command: int) -> None:
        assert host.command(command) == READY
        assert host.irq() == 1

    def test_seek_outside(self, host: Host) -> None:
        assert host.command(0x70, lba=SECTORS) == READY | ERR
        assert host.read(ERROR) == IDNF

    def test_initialize_device_parameters(self, host: Host) -> None:
        assert host.command(0x91, count=10, device=0xA3) == READY
        words = host.identify()
        assert words[54:58] == [75, 4, 10, 3000]
        assert words[1] == 2
        assert host.command(0x20, lba=10 | 74 << 8, device=0xA3) == READY | DRQ
        assert host.take() == pattern(2999)
        assert host.command(0x91, count=0, device=0xA3) == READY | ERR

    @pytest.mark.parametrize("mode", [0, 1, 8, 12])
    def test_pio_modes(self, host: Host, mode: int) -> None:
        assert host.command(0xEF, features=3, count=mode) == READY

    @pytest.mark.parametrize(("features", "count"), [(3, 13), (3, 0x20), (3, 0x40), (0x05, 1), (0x99, 0)])
    def test_features_that_there_are_not(self, host: Host, features: int, count: int) -> None:
        assert host.command(0xEF, features=features, count=count) == READY | ERR
        assert host.read(ERROR) == ABRT

    @pytest.mark.parametrize(("revert", "multiple"), [(0x66, 0x0104), (0xCC, 0)])
    def test_reverting_to_defaults(self, host: Host, revert: int, multiple: int) -> None:
        host.command(0xC6, count=4)
        assert host.command(0xEF, features=revert) == READY
        host.write(CONTROL, 4)
        host.write(CONTROL, 0)
        host.wait()
        assert host.identify()[59] == multiple


class TestReset:
    def test_srst(self, host: Host) -> None:
        """Busy until some time after SRST has gone; then the signature."""
        host.command(0x20, lba=5)
        host.write(CONTROL, 4)
        assert host.read(CONTROL) == BSY
        host.clock.advance(100 * MS)
        assert host.read(CONTROL) == BSY
        host.write(CONTROL, 0)
        assert host.read(CONTROL) & BSY
        assert host.wait() == READY
        assert [host.read(register) for register in (ERROR, COUNT, LOW, MID, HIGH, DEVICE)] == [1, 1, 1, 0, 0, 0]
        assert host.irq() == 0

    def test_sleep(self, host: Host) -> None:
        """Only a reset wakes it."""
        assert host.command(0xE6) == READY
        host.read(COMMAND)
        host.write(COMMAND, 0xEC)
        host.clock.advance(MS)
        assert (host.read(CONTROL), host.irq()) == (READY, 0)
        host.write(CONTROL, 4)
        host.write(CONTROL, 0)
        assert host.wait() == READY
        assert host.command(0xE5) == READY
        assert host.read(COUNT) == 0
        assert host.identify()[0] == 0x40


class TestPower:
    def mode(self, host: Host, command: int = 0xE5) -> int:
        assert host.command(command) == READY
        return host.read(COUNT)

    @pytest.mark.parametrize("command", [0xE0, 0x94, 0xE2, 0x96])
    def test_standby_and_back(self, host: Host, command: int) -> None:
        assert self.mode(host) == 0xFF
        assert host.command(command, count=0) == READY
        assert self.mode(host) == self.mode(host, 0x98) == 0
        start = host.clock.cycle
        assert host.command(0x20, lba=1) == READY | DRQ
        assert host.clock.cycle - start > 1000 * MS  # the spin-up
        host.take()
        assert self.mode(host) == 0xFF

    def test_standby_timer(self, host: Host) -> None:
        """IDLE with a count of 2: ten seconds."""
        assert host.command(0xE3, count=2) == READY
        host.clock.advance(9900 * MS)
        assert self.mode(host) == 0xFF
        host.clock.advance(101 * MS)
        assert self.mode(host) == 0
        assert host.command(0xE1) == READY
        assert self.mode(host) == 0xFF


class TestHostProtectedArea:
    def set_max(self, host: Host, lba: int, lasting: int = 0) -> int:
        assert host.command(0xF8) == READY
        return host.command(0xF9, lba=lba, count=lasting)

    def capacity(self, host: Host) -> int:
        words = host.identify()
        assert words[100] == words[60]
        return words[60] | words[61] << 16

    def test_native_max(self, host: Host) -> None:
        assert host.command(0xF8) == READY
        assert host.address() == SECTORS - 1

    def test_volatile(self, host: Host) -> None:
        """Sectors behind the new end are not there until the hardware reset."""
        assert self.set_max(host, 999) == READY
        assert self.capacity(host) == 1000
        assert host.identify()[85] & 0x400
        assert host.command(0x20, lba=999) == READY | DRQ
        host.take()
        assert (host.command(0x20, lba=1000), host.read(ERROR)) == (READY | ERR, IDNF)
        assert (host.command(0x30, lba=1000), host.read(ERROR)) == (READY | ERR, IDNF)
        host.write(CONTROL, 4)
        host.write(CONTROL, 0)
        host.wait()
        assert self.capacity(host) == 1000
        assert host.command(0xF8) == READY
        assert host.address() == SECTORS - 1
        host.drives[0].reset()
        assert host.wait() == READY
        assert self.capacity(host) == SECTORS

    def test_lasting(self, host: Host) -> None:
        """Once for each hardware reset; and it can be taken back."""
        assert self.set_max(host, 499, 1) == READY
        assert (self.set_max(host, 599, 1), host.read(ERROR)) == (READY | ERR, IDNF)
        assert self.set_max(host, 599) == READY
        assert self.capacity(host) == 600
        host.drives[0].reset()
        host.wait()
        assert self.capacity(host) == 500
        assert self.set_max(host, SECTORS - 1, 1) == READY
        assert self.capacity(host) == SECTORS

    def test_only_after_read_native_max(self, host: Host) -> None:
        assert (host.command(0xF9, lba=999), host.read(ERROR)) == (READY | ERR, ABRT)
        host.command(0xF8)
        host.identify()
        assert host.command(0xF9, lba=999) == READY | ERR
        host.command(0xF8)
        host.write(CONTROL, 4)
        host.write(CONTROL, 0)
        host.wait()
        assert host.command(0xF9, lba=999) == READY | ERR
        assert self.capacity(host) == SECTORS

    def test_beyond_the_end(self, host: Host) -> None:
        assert (self.set_max(host, SECTORS), host.read(ERROR)) == (READY | ERR, ABRT)

    def test_ext(self, host: Host) -> None:
        assert host.command_ext(0x27, lba=0) == READY
        assert host.address() & 0xFFFFFF == SECTORS - 1
        assert host.command_ext(0x37, lba=799, count=0) == READY
        assert self.capacity(host) == 800
        assert (self.set_max(host, 999), host.read(ERROR)) == (READY | ERR, ABRT)  # the 48-bit one is in force
        host.command_ext(0x27, lba=0)
        assert host.command_ext(0x37, lba=SECTORS - 1, count=0) == READY  # which ends it
        assert self.set_max(host, 999) == READY

    def test_an_area_of_the_28_bit_command_is_not_the_48_bit_one_s(self, host: Host) -> None:
        """SET MAX ADDRESS EXT, Error outputs; a lasting area stays that of its command after a reset."""
        assert self.set_max(host, 999, 1) == READY
        for _ in range(2):
            assert host.command_ext(0x27, lba=0) == READY
            assert host.address() & 0xFFFFFF == SECTORS - 1
            assert (host.command_ext(0x37, lba=799, count=0), host.read(ERROR)) == (READY | ERR, ABRT)
            assert self.capacity(host) == 1000
            host.drives[0].reset()
            host.wait()
        assert self.set_max(host, SECTORS - 1) == READY
        host.command_ext(0x27, lba=0)
        assert host.command_ext(0x37, lba=799, count=0) == READY

    def test_a_refused_read_native_max_does_not_count(self, host: Host) -> None:
        """Without the LBA bit READ NATIVE MAX ADDRESS EXT is aborted."""
        host.write(DEVICE, 0)
        host.write(COMMAND, 0x27)
        assert (host.wait(), host.read(ERROR)) == (READY | ERR, ABRT)
        assert (host.command_ext(0x37, lba=799, count=0), host.read(ERROR)) == (READY | ERR, ABRT)

    def test_security(self, host: Host) -> None:
        """SET PASSWORD, LOCK, UNLOCK with the right and with a wrong password, FREEZE LOCK."""
        password = bytes(2) + b"secret".ljust(510, b"\0")
        wrong = bytes(2) + b"SECRET".ljust(510, b"\0")
        for feature in (2, 3, 4):
            assert host.command(0xF9, features=feature) == READY | ERR  # there is no password yet

        def give(feature: int, data: bytes) -> int:
            if host.command(0xF9, features=feature) != READY | DRQ:
                return host.read(CONTROL)
            host.give(data)
            return host.wait()

        assert give(1, password) == READY
        assert host.command(0xF9, features=2) == READY
        assert (self.set_max(host, 999), host.read(ERROR)) == (READY | ERR, ABRT)
        assert give(3, wrong) == READY | ERR
        assert give(3, password) == READY
        assert self.set_max(host, 999) == READY
        host.identify()
        assert host.command(0xF9, features=2) == READY
        for _ in range(5):
            assert give(3, wrong) == READY | ERR
        assert give(3, password) == READY | ERR  # no more tries until the next hardware reset
        assert host.command(0xF9, features=4) == READY
        assert give(1, password) == READY | ERR


class TestTwoDrives:
    @pytest.fixture
    def host(self, tmp_path: Path) -> Host:
        return Host(tmp_path, drives=2)

    def test_each_answers_when_selected(self, host: Host) -> None:
        for number in (0, 1):
            assert host.command(0x20, lba=3, device=0xE0 | number << 4) == READY | DRQ
            assert host.take() == pattern(3 + 0x100000 * number)
            assert host.read(DEVICE) & 0x10 == number << 4

    def test_interrupt_of_the_selected_drive_alone(self, host: Host) -> None:
        assert host.command(0x20, lba=3, device=0xF0) == READY | DRQ
        assert host.irq() == 1
        host.write(DEVICE, 0xE0)
        assert (host.irq(), host.read(CONTROL)) == (0, READY)
        host.write(DEVICE, 0xF0)
        assert host.irq() == 1

    def test_diagnostic(self, host: Host) -> None:
        """Both do it, whichever is selected; drive 0 is selected afterwards and interrupts."""
        host.write(DEVICE, 0x10)
        host.write(COMMAND, 0x90)
        assert host.read(CONTROL) & BSY
        assert (host.wait(), host.irq()) == (READY, 1)
        assert [host.read(register) for register in (ERROR, COUNT, LOW, MID, HIGH, DEVICE)] == [1, 1, 1, 0, 0, 0]
        host.write(DEVICE, 0x10)
        assert (host.read(ERROR), host.read(CONTROL), host.irq()) == (1, READY, 0)

    def test_reset_selects_drive_0(self, host: Host) -> None:
        host.write(DEVICE, 0xF0)
        host.write(CONTROL, 4)
        host.write(CONTROL, 0)
        assert host.wait() == READY
        assert host.read(DEVICE) & 0x10 == 0


class TestAbsentDrives:
    def test_no_drive(self, host: Host) -> None:
        host.base = SECONDARY
        assert [host.read(register) for register in (*range(1, 8), CONTROL)] == [0xFF] * 8
        host.write(LOW, 0x55)
        host.write(COMMAND, 0xEC)
        host.clock.advance(MS)
        assert (host.read(LOW), host.read(DATA, 2), host.irq()) == (0xFF, 0xFFFF, 0)

    def test_drive_0_answers_for_drive_1(self, host: Host) -> None:
        """With a status of 0; what is written to the task file reads back, commands go nowhere."""
        host.write(DEVICE, 0x10)
        host.write(LOW, 0x55)
        assert (host.read(COMMAND), host.read(CONTROL), host.read(LOW)) == (0, 0, 0x55)
        assert host.read(DEVICE) == 0x10  # one register for both: DEV as it was written
        host.write(COMMAND, 0xEC)
        host.clock.advance(MS)
        assert (host.read(COMMAND), host.irq()) == (0, 0)
        host.write(DEVICE, 0)
        assert host.read(COMMAND) == READY

    def test_drive_1_alone(self, tmp_path: Path) -> None:
        """It does not answer for drive 0."""
        path = tmp_path / "a.img"
        path.write_bytes(pattern(0))
        clock = Clock(HZ)
        ide, drive = Piix4Ide(clock, "ide"), Ata(clock, "disk", Disk(path), 1)
        ide.attach(0, drive)
        bus = Bus(clock)
        bus.map_ports(PRIMARY, 8, ide)
        for chip in (ide, drive):
            chip.reset()
        ide.write_config(4, 1, 2)
        ide.write_config(0x40, 0x8000, 2)
        clock.advance(5 * MS)
        assert bus.port_read(PRIMARY + COMMAND) == 0xFF
        bus.port_write(PRIMARY + DEVICE, 0x10)
        assert bus.port_read(PRIMARY + COMMAND) == READY

    def test_two_in_one_place(self, host: Host, tmp_path: Path) -> None:
        path = tmp_path / "b.img"
        path.write_bytes(bytes(512))
        disk = Disk(path)
        with pytest.raises(ConfigError, match="other: disk0 is drive 0 of this cable"):
            host.ide.attach(0, Ata(host.clock, "other", disk))
        with pytest.raises(ConfigError, match="drive 2 of a cable"):
            Ata(host.clock, "third", disk, 2)


def probe(host: Host, base: int) -> list[bool]:
    """Which drives a driver finds on a cable: patterns in the task file, then a soft reset, then the signature."""
    host.base = base
    found = []
    for device in (0xA0, 0xB0):
        host.write(DEVICE, device)
        for count, low in ((0x55, 0xAA), (0xAA, 0x55), (0x55, 0xAA)):
            host.write(COUNT, count)
            host.write(LOW, low)
        found.append((host.read(COUNT), host.read(LOW)) == (0x55, 0xAA))
    host.write(DEVICE, 0xA0)
    for control in (8, 0xC, 8):
        host.write(CONTROL, control)
        host.clock.advance(MS // 50)
    host.clock.advance(150 * MS)
    for number, device in enumerate((0xA0, 0xB0)):
        host.write(DEVICE, device)
        signature = [host.read(register) for register in (ERROR, COUNT, LOW, MID, HIGH)]
        status = host.read(COMMAND)
        found[number] &= signature == [1, 1, 1, 0, 0] and status not in (0, 0xFF) and not status & BSY
    return found


@pytest.mark.parametrize(
    ("drives", "found"),
    [(0, [False] * 4), (1, [True, False, False, False]), (2, [True, True, False, False]),
     (3, [True, True, True, False]), (4, [True] * 4)],
)  # fmt: skip
def test_what_a_driver_finds(tmp_path: Path, drives: int, found: list[bool]) -> None:
    host = Host(tmp_path, drives=drives, sectors=100)
    assert probe(host, PRIMARY) + probe(host, SECONDARY) == found


class TestMechanics:
    def duration(self, host: Host, lba: int) -> float:
        """Milliseconds from the command to DRQ."""
        start = host.clock.cycle
        host.write(DEVICE, 0xE0 | lba >> 24)
        for register, shift in ((LOW, 0), (MID, 8), (HIGH, 16)):
            host.write(register, lba >> shift & 0xFF)
        host.write(COUNT, 1)
        host.write(COMMAND, 0x20)
        while host.read(CONTROL) & BSY:
            assert host.clock.next_event is not None
            host.clock.advance(host.clock.next_event - host.clock.cycle)
        cycles = host.clock.cycle - start
        host.take()
        host.wait()
        return cycles / MS

    def test_random_reads_take_seek_and_half_a_turn(self, tmp_path: Path) -> None:
        """7200 rpm class: an average seek of 8.5 ms and half a turn of 4.17 ms."""
        import random

        host = Host(tmp_path, sectors=1 << 24)
        pick = random.Random(1)
        times = [self.duration(host, pick.randrange(1 << 24)) for _ in range(400)]
        assert sum(times) / len(times) == pytest.approx(8.5 + 4.17, rel=0.05)
        assert max(times) < 14.7 + 8.34 + 0.1

    def test_sequential_reads_are_read_ahead(self, tmp_path: Path) -> None:
        host = Host(tmp_path, sectors=1 << 24)
        self.duration(host, 5000)
        assert all(self.duration(host, 5001 + at) < 0.2 for at in range(100))
        host.command(0xEF, features=0x55)
        host.clock.advance(MS)
        assert self.duration(host, 5101) > 0.2  # without look-ahead the sector must come round again


class TestState:
    @pytest.mark.parametrize("words", [0, 100, 256, 300])
    def test_in_the_middle_of_a_transfer(self, tmp_path: Path, round_trip: Callable[..., None], words: int) -> None:
        """A machine restored from a state goes on where that one was."""
        host = Host(tmp_path, snapshot=True)
        host.command(0x30, lba=4)
        host.give(b"x" * 512)
        host.wait()
        host.command(0x20, lba=3, count=3)
        first = [host.read(DATA, 2) for at in range(words) if host.wait() & DRQ]
        other = Host(tmp_path, snapshot=True)
        round_trip(host.drives[0], other.drives[0])
        round_trip(host.ide, other.ide)
        other.clock.load(host.clock.save())
        for chip, copy in ((host.ide, other.ide), (host.drives[0], other.drives[0])):
            copy.load(chip.save())
        rest = [[one.read(DATA, 2) for _ in range(768 - words) if one.wait() & DRQ] for one in (host, other)]
        assert rest[0] == rest[1]
        data = b"".join(word.to_bytes(2, "little") for word in first + rest[0])
        assert data == pattern(3) + b"x" * 512 + pattern(5)
        assert host.drives[0].save() == other.drives[0].save()

    @pytest.mark.parametrize(
        "damage",
        [{"position": 9000}, {"length": 9000, "position": 0}, {"heads": 0}, {"sectors": 0}, {"limit": 0},
         {"limit": SECTORS + 1}, {"lasting_limit": 1 << 40}, {"multiple": 200}, {"phase": 99},
         {"disk": None}, {"disk": {"sectors": SECTORS, "snapshot": False, "overlay": {0: bytes(512)}}}],
    )  # fmt: skip
    def test_damaged_states(self, host: Host, damage: dict[str, Any]) -> None:
        with pytest.raises(BadInput):
            host.drives[0].load(host.drives[0].save() | damage)
