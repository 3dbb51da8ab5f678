"""The chips beside QEMU's: one table of port accesses runs on both, and what is read must agree, line by line.

Where QEMU and the datasheet differ the datasheet wins: such a line carries its reason and is asserted by the value that
the datasheet wants.
"""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

import asm
from emu import Disk, Machine, StopReason

QEMU = shutil.which("qemu-system-i386")
PROBE = Path(__file__).with_name("qemu_probe.asm")
OPERATIONS = (
    "end", "out8", "out16", "out32", "in8", "in16", "in32", "wait_us", "until", "interrupts", "memory_read",
    "memory_write", "in_words", "out_words",
)  # fmt: skip
PIC1, PIC2, KBC, KBC_COMMAND, COM1, PM = 0x20, 0xA0, 0x60, 0x64, 0x3F8, 0x600
THR, IER, FCR, LCR, MCR, LSR, MSR, SCR = range(8)

pytestmark = pytest.mark.skipif(QEMU is None, reason="QEMU is not installed")


class Table:
    """The accesses; each read is a line with a name, and where QEMU differs the datasheet's value and the reason."""

    def __init__(self) -> None:
        self.code = bytearray()
        self.lines: list[tuple[str, int, tuple[int, str] | None]] = []

    def add(self, operation: str, form: str, *operands: int) -> None:
        self.code += struct.pack("<B" + form, OPERATIONS.index(operation), *operands)

    def out8(self, port: int, *values: int) -> None:
        for value in values:
            self.add("out8", "HB", port, value)

    def read(
        self, operation: str, form: str, *operands: int, mask: int = -1, ours: int | None = None, why: str = ""
    ) -> None:
        name = f"line {len(self.lines)}: {operation} {' '.join(f'{operand:#x}' for operand in operands)}"
        self.add(operation, form, *operands)
        self.lines.append((name, mask, None if ours is None else (ours, why)))

    def in8(self, port: int, mask: int = -1, ours: int | None = None, why: str = "") -> None:
        self.read("in8", "H", port, mask=mask, ours=ours, why=why)

    def in16(self, port: int, mask: int = -1, ours: int | None = None, why: str = "") -> None:
        self.read("in16", "H", port, mask=mask, ours=ours, why=why)

    def in32(self, port: int, mask: int = -1, ours: int | None = None, why: str = "") -> None:
        self.read("in32", "H", port, mask=mask, ours=ours, why=why)

    def wait(self, microseconds: int) -> None:
        self.add("wait_us", "I", microseconds)

    def until(self, port: int, mask: int, value: int, microseconds: int = 1_000_000) -> None:
        self.read("until", "HBBI", port, mask, value, microseconds, mask=mask)

    def interrupts(self, ours: int | None = None, why: str = "") -> None:
        self.read("interrupts", "", ours=ours, why=why)

    # What several tables need.

    def start_pics(self, icw4: int = 1) -> None:
        self.out8(PIC1, 0x11)
        self.out8(PIC1 + 1, 0x20, 4, icw4, 0xFF)
        self.out8(PIC2, 0x11)
        self.out8(PIC2 + 1, 0x28, 2, icw4 & ~0x10, 0xFF)

    def service(self) -> None:
        """ISR and IRR of both interrupt controllers."""
        for pic in (PIC1, PIC2):
            for ocw3 in (0x0B, 0x0A):
                self.out8(pic, ocw3)
                self.in8(pic)

    def irq0(self, level: bool) -> None:
        """OUT0, in mode 0: high once its count of 2 has run out, low while one of 65535 does."""
        self.out8(0x43, 0x30)
        self.out8(0x40, *((2, 0) if level else (0xFF, 0xFF)))
        self.wait(10)

    def eoi(self) -> None:
        self.out8(PIC2, 0x20)
        self.out8(PIC1, 0x20)

    def rom(self) -> bytes:
        code = asm.assemble_file(PROBE).binary + bytes(self.code) + b"\0"
        return code.ljust(0xFFF0, b"\xf4") + bytes.fromhex("ea000000f0").ljust(16, b"\0")


def on_qemu(rom: bytes, folder: Path, disk: Path | None) -> list[str]:
    """What the table reads under QEMU, whose time is the guest's instructions."""
    assert QEMU is not None
    image, output = folder / "probe.bin", folder / "console"
    image.write_bytes(rom)
    command: list[str | Path] = [
        QEMU, "-M", "pc", "-cpu", "pentium3,-apic", "-m", "32", "-bios", image, "-nodefaults", "-display", "none",
        "-serial", "null", "-serial", "null", "-icount", "shift=5,sleep=off", "-rtc", "base=2000-01-01,clock=vm",
        "-debugcon", f"file:{output}", "-global", "isa-debugcon.iobase=0x402",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
    ]  # fmt: skip
    if disk is not None:
        command += ["-drive", f"file={disk},format=raw,if=ide,snapshot=on"]
    subprocess.run(command, capture_output=True, timeout=280, check=False)
    return output.read_text().split("\n")


def compare(table: Table, folder: Path, disk: Path | None = None) -> None:
    """Runs it on both."""
    rom = table.rom()
    theirs = on_qemu(rom, folder, disk)
    disks = [] if disk is None else [Disk(disk, snapshot=True)]
    with Machine(
        memory=32 << 20, cpu="pentium3", firmware=rom, debugcon=0x402, debug_exit=0xF4, disks=disks
    ) as machine:
        assert machine.run(seconds=300).reason is StopReason.DEBUG_EXIT
        assert machine.debugcon is not None
        ours = machine.debugcon.output.decode().split("\n")
    assert len(ours) == len(theirs) == len(table.lines) + 1
    wrong = []
    for (name, mask, datasheet), our, their in zip(table.lines, ours, theirs, strict=False):
        value = int(our or "0", 16) & mask
        expected = int(their or "0", 16) & mask if datasheet is None else datasheet[0]
        if value != expected or our.startswith("T"):
            wrong.append(f"{name}: {value:x}, not {expected:x}{'' if datasheet is None else ': ' + datasheet[1]}")
    assert not wrong


def test_8259a(tmp_path: Path) -> None:
    """Priorities, rotation, polling, special masks, edge and level, the cascade, special fully nested mode."""
    gone = "a request that is withdrawn before the INTA is forgotten: the IR inputs must stay high until then"
    t = Table()
    t.out8(KBC_COMMAND, 0xAD, 0xA7, 0x60)
    t.out8(KBC, 0x21)
    t.wait(2000)
    t.irq0(False)
    t.start_pics()
    t.out8(PIC1 + 1, 0xFE)
    t.irq0(True)
    t.interrupts()
    t.service()
    t.irq0(False)
    t.irq0(True)
    t.interrupts()
    t.out8(PIC1, 0x20)
    t.interrupts()
    t.out8(PIC1, 0x60)
    t.service()
    t.irq0(False)
    t.irq0(True)
    t.irq0(False)
    t.interrupts(0, gone)
    t.out8(PIC1, 0x20)
    t.irq0(True)
    t.out8(PIC1, 0x0C)  # poll
    t.in8(PIC1)
    t.service()
    t.out8(PIC1, 0x0C)
    t.in8(PIC1)
    t.out8(PIC1, 0x20)

    def both() -> None:
        """IRQ 0 and 1, the latter by the keyboard controller."""
        t.irq0(False)
        t.out8(KBC_COMMAND, 0xD2)
        t.out8(KBC, 0x55)
        t.wait(1000)
        t.irq0(True)
        t.interrupts()
        t.service()

    t.out8(PIC1 + 1, 0xFC)
    both()
    t.out8(PIC1, 0x20)
    t.interrupts()
    t.irq0(False)
    t.irq0(True)
    t.interrupts()  # IRQ 0 interrupts IRQ 1
    t.service()
    t.out8(PIC1, 0x20, 0x20)
    t.in8(KBC)
    t.out8(PIC1, 0xC0)  # IRQ 0 gets the lowest priority
    both()
    t.out8(PIC1, 0xA0)  # rotate: now IRQ 1 does
    t.interrupts()
    t.out8(PIC1, 0x20)
    t.in8(KBC)
    both()
    t.out8(PIC1, 0x20)
    t.interrupts()
    t.out8(PIC1, 0x20, 0xC7)
    t.in8(KBC)
    t.irq0(False)  # special mask: IRQ 0 in service, masked, does not hold IRQ 1 back
    t.irq0(True)
    t.interrupts()
    t.out8(PIC1 + 1, 0xFD)
    t.out8(PIC1, 0x68)
    t.out8(KBC_COMMAND, 0xD2)
    t.out8(KBC, 0x55)
    t.wait(1000)
    t.interrupts()
    t.out8(PIC1, 0x20)
    t.out8(PIC1, 0x0B)
    t.in8(PIC1, ours=0x01, why="in special mask mode a non-specific EOI does not clear a bit of ISR that IMR masks")
    t.out8(PIC1, 0x48, 0x60)
    t.in8(KBC)
    # Through the slave, and special fully nested mode: IRQ 8 interrupts IRQ 12.
    for icw4, nested in ((0x01, 0), (0x11, 0x28)):
        t.start_pics(icw4)
        t.out8(PIC1 + 1, 0xFB)
        t.out8(PIC2 + 1, 0xEE)
        t.out8(KBC_COMMAND, 0x60)
        t.out8(KBC, 0x23)
        t.out8(KBC_COMMAND, 0xD3)
        t.out8(KBC, 0x77)
        t.wait(1000)
        t.interrupts()
        t.service()
        for port, value in ((0x70, 0x0A), (0x71, 0x26), (0x70, 0x0B), (0x71, 0x42)):
            t.out8(port, value)
        t.wait(3000)
        t.interrupts()
        t.service()
        for port, value in ((0x70, 0x0B), (0x71, 0x02), (0x70, 0x0C)):
            t.out8(port, value)
        t.in8(0x71)
        if nested:
            t.eoi()
            t.out8(PIC2, 0x20)
        t.eoi()
        t.interrupts(0, gone)
        t.eoi()
        t.in8(KBC)
    # Automatic EOI; edge and level by the ELCR.
    t.start_pics(3)
    t.out8(PIC1 + 1, 0xFE)
    t.irq0(False)
    t.irq0(True)
    t.interrupts()
    t.service()
    t.start_pics()
    t.out8(0x4D0, 0xFF)
    t.in8(0x4D0)
    t.out8(0x4D1, 0xFF)
    t.in8(0x4D1)
    t.out8(0x4D1, 0)
    for elcr in (0x10, 0x00):
        t.out8(0x4D0, elcr)
        t.out8(PIC1 + 1, 0xEF)
        t.out8(COM1 + LCR, 3)
        t.out8(COM1 + MCR, 0x0B)
        t.out8(COM1 + IER, 2)
        t.interrupts()
        t.out8(PIC1, 0x20)
        t.interrupts()
        t.in8(COM1 + FCR)
        t.out8(PIC1, 0x20)
        t.interrupts()
        t.service()
        t.out8(COM1 + IER, 0)
    compare(t, tmp_path)


def test_8254(tmp_path: Path) -> None:
    """Counter 2 in every mode: status, OUT2 and what is latched, with GATE2 low, high and low again."""
    null = "NULL COUNT is 1 until the count is in the counting element (Read-Back Command)"
    gated = "GATE2 is low: nothing counts"
    high = "OUT is high but in mode 0 until a count has run (Mode Definitions)"
    t = Table()
    control, counter, port61 = 0x43, 0x42, 0x61
    out2 = 0x20
    for mode in range(6):
        # OUT once the count is written, once GATE2 has risen, 4 us into a count of 1234h, and 70 ms later.
        armed, triggered, ended = {0: (0, 0, 1), 1: (1, 0, 1), 4: (1, 1, 1), 5: (1, 1, 1)}.get(mode, (1, 1, None))
        status = 0x30 | mode << 1
        t.out8(port61, 0)
        t.out8(control, 0x80 | status)
        t.out8(control, 0xE8)
        t.in8(counter, ours=status | 0x40 | 0x80 * (mode != 0), why=null)
        t.in8(port61, out2, ours=out2 * (mode != 0), why=high)
        t.out8(counter, 0x34, 0x12)
        t.wait(20)
        t.out8(control, 0xE8)
        waiting = mode in (1, 5)  # for a trigger
        t.in8(counter, ours=status | 0x40 * waiting | 0x80 * armed, why=null)
        if not waiting:
            t.out8(control, 0x80)
            t.in8(counter, ours=0x34, why=gated)
            t.in8(counter, ours=0x12, why=gated)
        t.out8(port61, 1)
        t.wait(4)
        t.out8(control, 0xE8)
        t.in8(counter, ours=status | 0x80 * triggered, why=high)
        if ended is not None:
            t.wait(70_000)
            t.out8(control, 0xE8)
            t.in8(counter, ours=status | 0x80 * ended, why=high)
        t.out8(port61, 0)
        t.wait(4)
        if mode in (2, 3):
            t.in8(port61, out2, ours=out2, why="OUT is high while GATE is low")
    # Read-back of both: the status comes first; a second latch is ignored until the first one is read.
    t.out8(control, 0xB0)
    t.out8(counter, 0x34, 0x12)
    t.wait(5)
    t.out8(control, 0xC8, 0x80)
    t.in8(counter)
    t.in8(counter, ours=0x34, why=gated)
    t.in8(counter)
    for bcd, count, low, high_byte in ((1, 0x9999, 0x99, 0x99), (1, 0, 0, 0), (1, 0x1000, 0, 0x10), (0, 0, 0, 0)):
        t.out8(control, 0xB0 | bcd)
        t.out8(counter, count & 0xFF, count >> 8)
        t.wait(5)
        t.out8(control, 0x80)
        t.in8(counter, ours=low, why=gated)
        t.in8(counter, ours=high_byte, why=gated)
    compare(t, tmp_path)


@pytest.mark.slow
def test_mc146818(tmp_path: Path) -> None:
    """Times in BCD, in 24 and 12 hours, over the ends of days, months and years; alarms; flags; periodic rates."""
    t = Table()

    def write(register: int, value: int) -> None:
        t.out8(0x70, register)
        t.out8(0x71, value)

    def read(register: int, mask: int = -1, ours: int | None = None, why: str = "") -> None:
        t.out8(0x70, register)
        t.in8(0x71, mask, ours, why)

    def set_time(b: int, *time: int) -> None:
        write(0x0B, 0x80 | b)
        for register, value in zip((0, 2, 4, 7, 8, 9), time, strict=True):
            write(register, value)
        write(0x0B, b)

    for register, mask in ((0x0A, 0x7F), (0x0B, -1), (0x0C, -1), (0x0D, -1)):
        read(register, mask)
    times = (
        (2, (0x59, 0x59, 0x23, 0x31, 0x12, 0x99)), (2, (0x59, 0x59, 0x23, 0x28, 0x02, 0x04)),
        (2, (0x59, 0x59, 0x23, 0x28, 0x02, 0x05)), (2, (0x59, 0x59, 0x23, 0x30, 0x04, 0x05)),
        (2, (0x59, 0x59, 0x11, 0x15, 0x06, 0x10)), (0, (0x59, 0x59, 0x12, 0x15, 0x06, 0x10)),
        (0, (0x59, 0x59, 0x92, 0x15, 0x06, 0x10)), (0, (0x59, 0x59, 0x91, 0x15, 0x06, 0x10)),
    )  # fmt: skip
    for b, time in times:
        set_time(b, *time)
        t.wait(1_100_000)  # one update or two
        for register in (2, 4, 7, 8, 9):
            read(register)
    midnight = (0, 0, 0, 1, 1, 1)
    alarms = (
        (2, (0x01, 0x00, 0x00), midnight), (2, (0xC0, 0xFF, 0xC0), midnight), (2, (0x01, 0x01, 0xC0), midnight),
        (2, (0x80, 0x00, 0x00), midnight), (0, (0x01, 0x00, 0x92), (0, 0, 0x92, 1, 1, 1)),
    )  # fmt: skip
    for b, alarm, time in alarms:
        set_time(b, *time)
        for register, value in zip((1, 3, 5), alarm, strict=True):
            write(register, value)
        read(0x0C, 0)
        write(0x0B, b | 0x20)
        for _ in range(2):
            t.wait(1_050_000)
            read(0x0C, 0xB0)
    write(0x0B, 0x92)
    read(0x0B)  # SET clears UIE
    write(0x0B, 0x12)
    read(0x0C, 0)
    t.wait(1_000_000)
    read(0x0C, 0xB0)
    read(0x0C, 0xB0)
    write(0x0B, 2)
    t.out8(0x70, 0x0A)
    t.until(0x71, 0x80, 0x80, 1_100_000)
    t.until(0x71, 0x80, 0x00, 5_000)
    for rate, period in ((6, 977), (8, 3906), (10, 15_625)):  # with PIE: QEMU keeps PF only then
        write(0x0A, 0x20 | rate)
        write(0x0B, 0x42)
        read(0x0C, 0)
        t.wait(2 * period)
        read(0x0C, 0xC0)
        read(0x0C, 0xC0)
        write(0x0B, 2)
    t.wait(20_000)
    read(0x0C, 0x40, ours=0x40, why="PF is set whatever PIE is")
    write(0x0C, 0xFF)
    read(0x0C, 0xB0)
    write(0x0D, 0)
    read(0x0D)
    write(0x0A, 0xA6)
    read(0x0A, 0x7F)
    write(0x7F, 0xAA)
    read(0x80 | 0x7F)
    compare(t, tmp_path)


def test_16550a(tmp_path: Path) -> None:
    """Registers, loopback, overrun, the priorities of interrupts, FIFO triggers and timeouts."""
    deltas = "the MSR's changes count in loopback too: Modem Control Register, bit 4"
    t = Table()
    for register in (IER, FCR, LCR, LSR, MSR, SCR):
        t.in8(COM1 + register)
    t.in8(COM1 + MCR, ours=0, why="master reset clears it, OUT2 as well (Table I)")
    for register, value, mask in ((SCR, 0x5A, -1), (IER, 0xFF, -1), (MCR, 0x1F, -1), (LCR, 0x7F, -1)):
        t.out8(COM1 + register, value)
        t.in8(COM1 + register, mask)
    t.out8(COM1 + LCR, 0x80)
    t.out8(COM1, 1)
    t.out8(COM1 + IER, 0)
    t.in16(COM1)
    t.out8(COM1 + LCR, 3)
    t.out8(COM1 + IER, 0)
    for lines in range(16):
        t.out8(COM1 + MCR, 0x10 | lines)
        t.in8(COM1 + MSR, 0xF0)
        t.in8(COM1 + MSR)
    t.out8(COM1 + MCR, 0x10)
    t.in8(COM1 + MSR, ours=0x0F, why=deltas)
    t.out8(COM1 + IER, 2)
    t.in8(COM1 + FCR)
    t.in8(COM1 + FCR)
    t.out8(COM1 + IER, 0, 2)
    t.in8(COM1 + FCR)
    for character in (0x41, 0x42):  # the second one overruns the first
        t.out8(COM1, character)
        t.wait(300)
    t.out8(COM1 + IER, 0x0F)
    for register in (FCR, LSR, FCR, THR, FCR, FCR, LSR):
        t.in8(COM1 + register)
    for code, level in ((0x00, 1), (0x40, 4), (0x80, 8), (0xC0, 14)):
        t.out8(COM1 + IER, 1)
        t.out8(COM1 + FCR, code | 7)
        t.in8(COM1 + FCR)
        for at in range(level):
            t.out8(COM1, 0x30 + at)
            t.wait(150)
            t.in8(COM1 + FCR)
        t.wait(800)
        t.in8(COM1 + FCR)  # a timeout
        for _ in range(level):
            t.in8(COM1)
            t.in8(COM1 + FCR)
        t.in8(COM1 + LSR)
    t.out8(COM1 + FCR, 0xC7)
    t.out8(COM1 + IER, 5)
    for at in range(18):
        t.out8(COM1, 0x61 + at)
        t.wait(150)
    for register in (FCR, LSR, LSR, *[THR] * 16, LSR):
        t.in8(COM1 + register)
    t.out8(COM1, 0x41)
    t.wait(200)
    t.out8(COM1 + FCR, 0)  # which clears both FIFOs
    t.in8(COM1 + LSR)
    t.out8(COM1 + FCR, 0xF0)  # without bit 0 nothing else counts
    t.in8(COM1 + FCR)
    t.out8(COM1 + LCR, 0)
    t.out8(COM1, 0xFF)
    t.wait(400)
    t.in8(COM1, ours=0x1F, why="a character of five bits has no others")
    compare(t, tmp_path)


def test_8042(tmp_path: Path) -> None:
    """The controller's commands and the keyboard's, as far as both machines have the device."""
    t = Table()
    never = 0x20 | 0x01  # of the status, AUXB and OBF

    def command(value: int) -> None:
        t.out8(KBC_COMMAND, value)
        t.wait(300)

    def data(value: int) -> None:
        t.out8(KBC, value)
        t.wait(300)

    def answer(ours: int | None = None, why: str = "", microseconds: int = 30_000) -> None:
        t.until(KBC_COMMAND, 1, 1, microseconds)
        t.in8(KBC_COMMAND, never)
        t.in8(KBC, ours=ours, why=why)

    t.wait(600_000)  # the keyboard's self-test
    for _ in range(2):
        t.in8(KBC, 0)
    command(0xAA)
    answer()
    for ask in (0xAB, 0xA9):
        command(ask)
        answer()
    for byte in (0x47, 0x65, 0xFF, 0x00, 0x20):
        command(0x60)
        data(byte)
        command(0x20)
        answer()
    for switch in (0xA8, 0xA7, 0xAD, 0xAE):
        command(switch)
        command(0x20)
        answer()
    for loop in (0xD2, 0xD3):
        command(loop)
        data(0x3C)
        answer()
    command(0x60)
    data(0x20)
    sequences: tuple[tuple[tuple[int, ...], int], ...] = (
        ((0xF5,), 0), ((0xEE,), 0), ((0xF2,), 2), ((0xED, 2), 0), ((0xF3, 0x20), 0), ((0xF0, 0), 1), ((0xF0, 1), 0),
        ((0xF0, 0), 1), ((0xF0, 2), 0), ((0xF0, 5), 0), ((0xF4,), 0), ((0xF6,), 0), ((0xEF,), 0), ((0xED, 0xF4), 0),
        ((0x12,), 0),
    )  # fmt: skip
    for sent, more in sequences:
        for byte in sent:
            data(byte)
            answer()
        for _ in range(more):
            answer()
        t.wait(20_000)
        t.in8(KBC_COMMAND, never)
    data(0xFE)
    answer(0xFE, "RESEND repeats the last byte, which was a RESEND")
    data(0xFF)
    answer()
    answer(microseconds=900_000)
    command(0x60)
    data(0x60)
    data(0xF2)
    for _ in range(3):
        answer()  # the identity, translated
    command(0xAD)
    data(0xEE)  # sending opens the port
    answer()
    command(0x20)
    answer()
    command(0xD1)
    data(0xDF)
    command(0xD0)
    answer(0xCF, "P24 and P25 are what the output buffer asks for, not what was written")
    compare(t, tmp_path)


@pytest.mark.slow
def test_pm(tmp_path: Path) -> None:
    """PM1 status and enable, the timer's overflow, and SCI as a level."""
    t = Table()
    t.add("out16", "HH", PM, 0xFFFF)
    t.in16(PM)
    t.add("out16", "HH", PM + 2, 0xFFFF)
    t.in16(PM + 2, ours=0x0521, why="TMROF_EN, GBL_EN, PWRBTN_EN, RTC_EN; the others are reserved and read as 0")
    t.add("out16", "HH", PM + 2, 0)
    t.add("out16", "HH", PM + 4, 1)
    t.in16(PM + 4)
    t.out8(PIC1 + 1, 0xFF)
    t.start_pics()
    t.out8(PIC1 + 1, 0xFB)
    t.out8(PIC2 + 1, 0xFD)
    t.out8(0x4D1, 2)
    for _ in range(2):
        t.add("out16", "HH", PM, 1)
        t.in16(PM)
        t.wait(2_400_000)  # the timer's upper bit changes every 2.34 s
        t.in16(PM)
        t.interrupts()
    t.add("out16", "HH", PM, 1)
    t.add("out16", "HH", PM + 2, 1)
    t.wait(2_400_000)
    t.interrupts()
    t.eoi()
    t.interrupts()
    t.add("out16", "HH", PM, 1)
    t.eoi()
    t.interrupts()
    t.in16(PM)
    t.add("out16", "HH", PM + 4, 0)
    t.wait(2_400_000)
    t.interrupts(0, "without SCI_EN an event raises SMI# and no SCI")
    t.out8(0xB2, 0x12)
    t.out8(0xB3, 0x34)
    t.in8(0xB2)
    t.in8(0xB3)
    compare(t, tmp_path)


def test_pci(tmp_path: Path) -> None:
    """Configuration mechanism 1, absent functions, base addresses, PAM and SMRAM."""
    t = Table()

    def select(register: int, device: int, function: int = 0, bus: int = 0) -> None:
        place = 0x80000000 | bus << 16 | device << 11 | function << 8 | register & 0xFC
        t.add("out32", "HI", 0xCF8, place)

    t.add("out32", "HI", 0xCF8, 0xFFFFFFFF)
    t.in32(0xCF8, ours=0x80FFFFFC, why="bits 30 to 24 and 1 to 0 are reserved and read as 0")
    t.add("out32", "HI", 0xCF8, 0)
    t.in32(0xCFC)
    select(0, 0)
    t.out8(0xCF8, 0x40)  # not a doubleword: not CONFADD
    for at in range(4):
        t.in8(0xCFC + at)
    t.in16(0xCFC)
    t.in16(0xCFE)
    for device, function, bus in ((0, 1, 0), (1, 4, 0), (1, 7, 0), (2, 0, 0), (31, 7, 0), (0, 0, 1), (0, 0, 255)):
        select(0, device, function, bus)
        t.in32(0xCFC)
    for function in (1, 3):
        for register in range(0x10, 0x28, 4):
            if (function, register) == (1, 0x20):
                continue  # QEMU has a bus master; here BMIBA is wired to 0, and the class says that there is none
            select(register, 1, function)
            t.add("out32", "HI", 0xCFC, 0xFFFFFFFF)
            t.in32(0xCFC)
    select(0, 0)
    t.add("out32", "HI", 0xCFC, 0)
    t.in32(0xCFC)  # who it is cannot be written
    for routed in (0x80, 0x0B, 0x00):
        select(0x60, 1)
        t.out8(0xCFC, routed)
        t.in8(0xCFC)
    for register, segment, shift in ((0x5A, 0xC000, 0), (0x5A, 0xC400, 4), (0x5D, 0xD800, 0), (0x5F, 0xEC00, 4)):
        for enables in (3, 1, 3):
            select(register, 0)
            t.out8(0xCFC + (register & 3), enables << shift)
            t.in8(0xCFC + (register & 3))
            t.add("memory_write", "HHH", segment, 0x10, 0x1111 * enables + 1)
            t.read("memory_read", "HH", segment, 0x10)
        select(register, 0)
        t.out8(0xCFC + (register & 3), 0)
        t.read("memory_read", "HH", segment, 0x10, ours=0xFFFF, why="neither RE nor WE: the cycle goes to PCI, nobody")
    for value in (0x4A, 0x0A, 0x4A):
        select(0x72, 0)
        t.out8(0xCFE, value)
        t.in8(0xCFE)
        if value == 0x4A:
            t.add("memory_write", "HHH", 0xA000, 0, 0x1234)
            t.read("memory_read", "HH", 0xA000, 0)
    compare(t, tmp_path)


def test_ata(tmp_path: Path) -> None:
    """The task file, commands with data and without, errors, interrupts and resets of a lone drive 0."""
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"".join(struct.pack("<I", lba) * 128 for lba in range(20160)))
    t = Table()
    base, control = 0x1F0, 0x3F6
    ready = 0xC9  # of the status: BSY, DRDY, DRQ, ERR; DSC is QEMU's own

    def command(code: int, count: int = 1, lba: int = 0, device: int = 0xE0, features: int = 0) -> None:
        t.out8(base + 6, device | lba >> 24)
        for register, value in ((1, features), (2, count), (3, lba), (4, lba >> 8), (5, lba >> 16)):
            t.out8(base + register, value & 0xFF)
        t.out8(base + 7, code)
        t.until(control, 0x80, 0, 3_000_000)
        t.in8(base + 7, ready)

    def blocks(count: int, sectors: int = 1) -> None:
        for _ in range(count):
            t.until(control, 0x88, 0x08)
            t.in8(base + 7, ready)
            t.read("in_words", "HH", base, 256 * sectors)
        t.until(control, 0x80, 0, 3_000_000)  # QEMU reads on when the host does
        t.in8(base + 7, ready)

    for register, value in ((0x04, 1), (0x40, 0x80008000)):  # both channels answer
        t.add("out32", "HI", 0xCF8, 0x80000900 | register)
        t.add("out32", "HI", 0xCFC, value)
    t.wait(50_000)
    for register in (2, 3, 4, 5, 7):
        t.in8(base + register)
    t.in8(base + 1, ours=0x01, why="the diagnostic that a hardware reset runs has passed")
    t.out8(base + 6, 0xB0)
    for register in (2, 3, 7):
        t.in8(base + register)  # a drive 1 that is not there: a status of 0
    command(0x20, 3, 0x123)
    blocks(3)
    command(0x20, 2, 1 | 1 << 8, 0xA0)
    blocks(2)
    command(0x21, 1, 5)
    blocks(1)
    for lba, count in ((20160, 1), (0x0FFFFFFF, 1)):
        command(0x20, count, lba)
        t.in8(
            base + 1, ours=0x10, why="IDNF, an address that is not there; QEMU has ABRT, which the standard allows too"
        )
    for count in (1, 2, 16, 3, 17):
        command(0xC6, count)
        t.in8(base + 1)
    command(0xC6, 4)
    command(0xC4, 6, 9)
    blocks(1, 4)
    blocks(1, 2)
    command(0x30, 2, 100)
    t.add("out_words", "HHH", base, 256, 0x4142)
    t.until(control, 0x88, 0x08)
    t.add("out_words", "HHH", base, 256, 0x4344)
    t.until(control, 0x80, 0, 3_000_000)  # QEMU writes when the host does
    t.in8(base + 7, ready)
    command(0x20, 2, 100)
    blocks(2)
    for code in (0x10, 0x40, 0x70, 0x91, 0xE0, 0xE1, 0xE2, 0xE3, 0xE7, 0xEA, 0x00, 0x08, 0xB0, 0xEF, 0xF8):
        command(code, 63 if code == 0x91 else 1, 0, 0xEF if code == 0x91 else 0xE0)
        t.in8(base + 1)
    for feature in (0x02, 0x82, 0x55, 0xAA, 0x66, 0xCC, 0x99, 0x31, 0x33):
        command(0xEF, 0, 0, 0xE0, feature)
        t.in8(base + 1)
    t.start_pics()
    t.out8(PIC1 + 1, 0xFB)
    t.out8(PIC2 + 1, 0xBF)
    t.out8(control, 0)
    t.in8(base + 7, ready)
    t.interrupts()
    t.eoi()
    for device_control in (0, 2):  # nIEN
        t.out8(control, device_control)
        t.out8(base + 7, 0xE1)
        t.until(control, 0x80, 0)
        t.interrupts()
        t.eoi()
        t.in8(base + 7, ready)
        t.interrupts()
        t.eoi()
    t.out8(control, 0)
    t.out8(base + 6, 0xB0)
    t.out8(control, 4)
    t.wait(100)
    t.out8(control, 0)
    t.until(control, 0x80, 0)
    t.wait(20_000)
    for register in (1, 2, 3, 4, 5):
        t.out8(base + 6, 0xA0)
        t.in8(base + register)
    t.in8(base + 7, ready)
    compare(t, tmp_path, disk)
