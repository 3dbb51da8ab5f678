"""Ports: IOPL, the I/O permission bit map, INS and OUTS."""

import pytest
from system import GP, PF, TSS, Bench

import emu


class Port(emu.Device):
    """Remembers what was written; reads give a running number."""

    def __init__(self, clock: object, name: str = "port") -> None:
        self.log: list[tuple[str, int, int]] = []

    def read(self, address: int, size: int) -> int:
        self.log.append(("in", address, size))
        return (0x0A0B0C00 + len(self.log)) & ((1 << 8 * size) - 1)

    def write(self, address: int, value: int, size: int) -> None:
        self.log.append(("out", address, value))


def bench_with_port(faults: str = "raise") -> Bench:
    bench = Bench(faults)
    bench.port = Port(bench.cpu.clock)
    bench.cpu.bus.map_ports(0x300, 16, bench.port)
    return bench


def with_map(cpl: int, iopl: int, base: int = 0x68, limit: int = 0x68 + 0x2000) -> Bench:
    """A bit map at the end of the TSS that forbids everything."""
    bench = bench_with_port()
    bench.cpu.tr.limit = limit
    bench.write16(TSS + 102, base)
    bench.cpu.memory.write(TSS + 0x68, b"\xff" * 0x100)
    if cpl:
        bench.enter_ring(cpl)
    bench.cpu.rflags = 2 | iopl << 12
    return bench


@pytest.mark.parametrize(("cpl", "iopl"), [(0, 0), (1, 1), (1, 3), (3, 3), (1, 0), (3, 0), (3, 2)])
def test_iopl(cpl: int, iopl: int) -> None:
    """SDM Vol. 1, "I/O Privilege Level": with CPL <= IOPL the bit map is not looked at."""
    bench = with_map(cpl, iopl)
    bench.cpu.edx = 0x300
    assert bench.fault("in al, dx") == (None if cpl <= iopl else (GP, 0))
    assert len(bench.port.log) == (cpl <= iopl)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("port", [0x300, 0x305, 0x307, 0x308])
@pytest.mark.parametrize("direction", ["in", "out"])
def test_permission_bits(direction: str, port: int, size: int) -> None:
    """SDM Vol. 1, "I/O Permission Bit Map": every bit of the access must be clear, also across a byte of the map."""
    register = {1: "al", 2: "ax", 4: "eax"}[size]
    text = f"in {register}, dx" if direction == "in" else f"out dx, {register}"
    for forbidden in range(port - 1, port + size + 1):
        bench = with_map(3, 0)
        bits = bytearray(b"\0" * 0x80)
        bits[forbidden // 8] |= 1 << forbidden % 8
        bench.cpu.memory.write(TSS + 0x68, bytes(bits))
        bench.cpu.edx = port
        allowed = not port <= forbidden < port + size
        assert bench.fault(text) == (None if allowed else (GP, 0))
        assert bool(bench.port.log) == allowed


@pytest.mark.parametrize(("limit", "port", "allowed"), [
    (0x68 + 0x61, 0x300, True),  # two bytes are read: 60h and 61h of the map
    (0x68 + 0x60, 0x300, False),
    (0x68 + 0x60, 0x2F8, True),
    (0x67, 0, False),
    (102, 0, False),
])  # fmt: skip
def test_map_ends_with_the_tss(limit: int, port: int, allowed: bool) -> None:
    bench = with_map(3, 0, limit=limit)
    bench.cpu.memory.write(TSS + 0x68, b"\0" * 0x100)
    bench.cpu.edx = port
    assert bench.fault("in al, dx") == (None if allowed else (GP, 0))


def test_map_beyond_the_tss_forbids_all() -> None:
    """SDM Vol. 1, "I/O Permission Bit Map": a base at or past the limit means that there is no map."""
    bench = with_map(3, 0, base=0xFFFF)
    bench.cpu.edx = 0x300
    assert bench.fault("in al, dx") == (GP, 0)


def test_16_bit_tss_has_no_map() -> None:
    bench = with_map(3, 0)
    bench.cpu.memory.write(TSS + 0x68, b"\0" * 0x100)
    bench.cpu.tr.access = 0x83
    bench.cpu.edx = 0x300
    assert bench.fault("in al, dx") == (GP, 0)


@pytest.mark.parametrize("iopl", [0, 3])
@pytest.mark.parametrize("bit", [0, 1])
def test_virtual_8086_mode_always_uses_the_map(iopl: int, bit: int) -> None:
    """SDM Vol. 3, "Sensitive Instructions": in virtual-8086 mode I/O is not IOPL-sensitive."""
    bench = with_map(0, 0)
    bench.cpu.memory.write(TSS + 0x68 + 0x60, bytes([bit]))
    bench.enter_v86(iopl)
    bench.cpu.edx = 0x300
    assert bench.fault("in al, dx") == ((GP, 0) if bit else None)


def test_sizes_and_registers() -> None:
    """SDM Vol. 2, "IN", "OUT": a byte leaves the rest of EAX, a doubleword clears the upper half of RAX."""
    bench = bench_with_port()
    bench.cpu.rax = 0x1122334455667788
    bench.cpu.edx = 0x300
    assert bench.fault("in al, dx") is None
    assert bench.cpu.rax == 0x1122334455667701
    assert bench.fault("in ax, dx") is None
    assert bench.cpu.rax == 0x1122334455660C02
    assert bench.fault("in eax, dx") is None
    assert bench.cpu.rax == 0x0A0B0C03
    assert bench.fault("out dx, ax") is None
    assert bench.port.log[-1] == ("out", 0x300, 0x0C03)


def test_nobody_answers() -> None:
    """Reads of a port that nobody has give all ones."""
    bench = bench_with_port()
    assert bench.fault("in al, 0EEh") is None
    assert bench.cpu.al == 0xFF


# --- INS, OUTS: SDM Vol. 2 ---


@pytest.mark.parametrize(("direction", "values"), [(0, [1, 2, 3]), (1, [3, 2, 1])])
def test_rep_insb(direction: int, values: list[int]) -> None:
    bench = bench_with_port("deliver")
    bench.cpu.edx, bench.cpu.ecx, bench.cpu.edi = 0x300, 3, 0x20002 if direction else 0x20000
    bench.run("std\n rep insb\n hlt" if direction else "cld\n rep insb\n hlt")
    assert list(bench.cpu.memory.read(0x20000, 3)) == values
    assert (bench.cpu.ecx, bench.cpu.edi) == (0, 0x1FFFF if direction else 0x20003)


def test_rep_outsd_with_16_bit_addresses() -> None:
    bench = bench_with_port("deliver")
    bench.write32(0xFFFC, 0x11111111)
    bench.write32(0, 0x22222222)
    bench.cpu.edx, bench.cpu.ecx, bench.cpu.esi = 0x304, 0xABCD0002, 0x1234FFFC
    assert bench.run("cld\n a16 rep outsd\n hlt").vector is None
    assert bench.port.log == [("out", 0x304, 0x11111111), ("out", 0x304, 0x22222222)]
    assert (bench.cpu.ecx, bench.cpu.esi) == (0xABCD0000, 0x12340004)


def test_ins_checks_memory_before_the_port() -> None:
    """A value that cannot be stored is not taken from the device."""
    bench = bench_with_port()
    bench.map_pages()
    bench.set_page(0x30000, 0)
    bench.cpu.edx, bench.cpu.edi = 0x300, 0x30000
    assert bench.fault("insd") == (PF, 2)
    assert bench.port.log == []
    assert bench.cpu.edi == 0x30000


def test_outs_honours_the_segment_override() -> None:
    bench = bench_with_port()
    bench.cpu.fs.base = 0x20000
    bench.write32(0x20010, 0xCAFE)
    bench.cpu.edx, bench.cpu.esi = 0x302, 0x10
    assert bench.fault("fs outsw") is None
    assert bench.port.log == [("out", 0x302, 0xCAFE)]


def test_ins_needs_permission() -> None:
    bench = with_map(3, 0)
    bench.cpu.edx, bench.cpu.edi, bench.cpu.ecx = 0x300, 0x20000, 2
    assert bench.fault("rep insb") == (GP, 0)
    bench.cpu.ecx = 0
    assert bench.fault("rep insb") is None  # no iteration, no check
    assert bench.port.log == []


def test_fault_in_the_middle_of_rep_ins() -> None:
    bench = bench_with_port("deliver")
    bench.map_pages()
    bench.set_page(0x31000, 0)
    bench.cpu.edx, bench.cpu.ecx, bench.cpu.edi = 0x300, 8, 0x30FFC
    frame = bench.run("cld\n rep insb\n hlt")
    assert (frame.vector, frame.stack[1]) == (PF, bench.code + 1)
    assert (bench.cpu.ecx, bench.cpu.edi, len(bench.port.log)) == (4, 0x31000, 4)


@pytest.mark.parametrize(
    "text", ["in al, dx\n nop\n hlt", "rep insb\n hlt", "out dx, al\n nop\n hlt", "outsb\n nop\n hlt"]
)
def test_device_that_raises_ends_the_run_after_the_instruction(text: str) -> None:
    """An exception of a Python device comes out of run() at the next instruction boundary (REP: an iteration)."""

    class Broken(Port):
        def read(self, address: int, size: int) -> int:
            super().read(address, size)
            raise KeyError("broken")

        def write(self, address: int, value: int, size: int) -> None:
            super().write(address, value, size)
            raise KeyError("broken")

    bench = Bench()
    device = Broken(bench.cpu.clock)
    bench.cpu.bus.map_ports(0x300, 1, device)
    bench.cpu.edx, bench.cpu.ecx, bench.cpu.edi, bench.cpu.esi = 0x300, 5, 0x20000, 0x20000
    bench.place(text)
    with pytest.raises(KeyError):
        bench.cpu.run()
    assert len(device.log) == 1
    assert bench.cpu.instructions == 1
    assert bench.cpu.rip == (bench.code if "rep" in text else bench.code + 1)
