"""What the Python interface is given and cannot take: one clear line each, and nothing has changed."""

import copy
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from roms import rom

import emu
from emu.host.backend import Backend

SPIN = rom("again: inc ecx\njmp again")
NO_ADDRESS = [-1, 1 << 64, -(1 << 70)]
TOO_MUCH = 1 << 40  # bytes


@pytest.fixture
def cpu() -> emu.Cpu:
    return emu.Cpu()


@pytest.fixture
def machine() -> emu.Machine:
    return emu.Machine(memory=1 << 20, firmware=SPIN)


@pytest.mark.parametrize("size", ["64M", None, 1 << 70, -1, 0, 1.5, (1 << 20) + 1, 1 << 41])
@pytest.mark.parametrize("build", [emu.Machine, emu.Cpu])
def test_a_memory_that_cannot_be(build: Callable[..., object], size: Any) -> None:
    with pytest.raises(emu.ConfigError) as caught:
        build(memory=size)
    assert isinstance(caught.value, ValueError)
    assert repr(size) in str(caught.value) and ("whole" in str(caught.value)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("size", ["64M", None, 1.5])
def test_a_memory_alone_of_no_number(size: Any) -> None:
    with pytest.raises(TypeError, match="not a whole number"):
        emu.Memory(size)


@pytest.mark.parametrize("address", NO_ADDRESS)
@pytest.mark.parametrize(
    "access",
    [
        lambda cpu, address: cpu.read_linear(address, 1),
        lambda cpu, address: cpu.write_linear(address, b"x"),
        lambda cpu, address: cpu.translate(address),
        lambda cpu, address: cpu.disassemble(address),
        lambda cpu, address: cpu.load(address, b"x"),
        lambda cpu, address: cpu.memory.read(address, 1),
        lambda cpu, address: cpu.memory.write(address, b""),
        lambda cpu, address: cpu.bus.read(address, 1),
        lambda cpu, address: cpu.bus.write(address, b"x"),
        lambda cpu, address: cpu.bus.mem_read(address),
        lambda cpu, address: cpu.bus.mem_write(address, 1),
    ],
)
def test_an_address_outside_64_bits(cpu: emu.Cpu, address: int, access: Callable[[emu.Cpu, int], object]) -> None:
    with pytest.raises(ValueError, match=f"^address: {address} is not within 0 to 0xffffffffffffffff$"):
        access(cpu, address)


@pytest.mark.parametrize(
    ("access", "says"),
    [
        (lambda cpu: cpu.read_linear(0, -1), "count: -1 is not within"),
        (lambda cpu: cpu.read_linear(0, TOO_MUCH), "count: 1099511627776 is not within 0 to 0x100000000"),
        (lambda cpu: cpu.bus.read(0, TOO_MUCH), "count: 1099511627776 is not within"),
        (lambda cpu: cpu.memory.read(0, TOO_MUCH), "leave a memory of 0x100000 bytes"),
        (lambda cpu: cpu.memory.read(0, 1 << 64), "count: 18446744073709551616 is not within"),
        (lambda cpu: cpu.memory.read(0xFFFFF, 2), "0x2 bytes at 0xfffff leave a memory of 0x100000 bytes"),
        (lambda cpu: cpu.disassemble(0, -1), "count: -1 is not within"),
        (lambda cpu: cpu.bus.port_read(-1), "port: -1 is not within 0 to 0xffff"),
        (lambda cpu: cpu.bus.port_read(0x10000), "port: 65536 is not within 0 to 0xffff"),
        (lambda cpu: cpu.bus.port_write(0x80, 256), "value: 256 is not within 0 to 0xff"),
        (lambda cpu: cpu.bus.port_write(0x80, -1, 4), "value: -1 is not within 0 to 0xffffffff"),
        (lambda cpu: cpu.bus.port_read(0x80, 8), "an access of 8 bytes"),
        (lambda cpu: cpu.bus.mem_write(0, 1 << 64, 8), "value: 18446744073709551616 is not within"),
        (lambda cpu: cpu.bus.mem_read(0, 3), "an access of 3 bytes"),
        (lambda cpu: cpu.clock.advance(-1), "cycles: -1 is not within"),
        (lambda cpu: emu.Clock(1 << 41), "hz: 2199023255552 is not within"),
        (lambda cpu: emu.Clock(0), "a clock of 0 Hz"),
        (lambda cpu: cpu.transitions(-1), "since: -1 is not within"),
        (lambda cpu: setattr(cpu, "eax", -1), "^eax: -1 is not within 0 to 0xffffffff$"),
        (lambda cpu: setattr(cpu, "r15b", 256), "^r15b: 256 is not within 0 to 0xff$"),
        (lambda cpu: setattr(cpu, "cr4", 1 << 31), "^cr4: 0x80000000 sets reserved bits: 0x80000000$"),
        (lambda cpu: setattr(cpu.ds, "limit", 1 << 32), "^limit: 4294967296 is not within"),
        (lambda cpu: cpu.ds.load(-1), "^selector: -1 is not within 0 to 0xffff$"),
        (lambda cpu: cpu.run(until=-1), "^until: -1 is not within"),
        (lambda cpu: cpu.hook("memory", print, range(1 << 65)), "range.* is not a range of consecutive numbers"),
    ],
)
def test_other_numbers_out_of_range(cpu: emu.Cpu, access: Callable[[emu.Cpu], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        access(cpu)


@pytest.mark.parametrize("address", [1.5, "x", None])
def test_an_address_that_is_no_number(cpu: emu.Cpu, address: Any) -> None:
    with pytest.raises(TypeError, match=f"^esi: {address!r} is no whole number$"):
        cpu.esi = address
    for access in (cpu.translate, lambda at: cpu.read_linear(at, 1), lambda at: cpu.memory.read(at, 1)):
        with pytest.raises(TypeError, match=f"^address: {address!r} is no whole number$"):
            access(address)


def test_limits_up_to_the_greatest(machine: emu.Machine) -> None:
    for seconds in (0.5, 300, (1 << 40) - 1):
        assert machine.run(instructions=2, seconds=seconds).reason == "limit"
    for timeout in (300, (1 << 30) - 1):
        machine.run(instructions=2, timeout=timeout)
    assert machine.instructions == 10
    for name, bits in (("seconds", 40), ("timeout", 30)):
        for value in (-1, 1 << bits, float("nan")):
            with pytest.raises(ValueError, match=f"^{name}: .* is not within 0 to"):
                machine.run(**{name: value})


def test_blocks_up_to_what_there_is(cpu: emu.Cpu) -> None:
    cpu.memory.write(0xFFFFE, b"ab")
    assert cpu.read_linear(0xFFFFE, 4) == cpu.bus.read(0xFFFFE, 4) == b"ab\xff\xff"
    assert cpu.read_linear(0, 0) == cpu.bus.read((1 << 64) - 1, 0) == b""


def test_events_of_a_device_out_of_range() -> None:
    class Timer(emu.Device):
        def event(self, id: int) -> None:
            pass

    timer = Timer()
    for id, cycle in ((-1, 0), (1 << 31, 0), (0, -1), (0, 1 << 64)):
        with pytest.raises(ValueError, match="is not within"):
            timer.schedule(id, cycle)
    with pytest.raises(ValueError, match="id: -1 is not within"):
        timer.cancel(-1)


def test_disks_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(512))
    for wrong in (["x"], "x", [path], 5):
        with pytest.raises(TypeError, match=r"emu\.Disk"):
            emu.Machine(disks=wrong)  # type: ignore[arg-type]
    with emu.Disk(path) as disk, pytest.raises(TypeError, match=r"a list of emu\.Disk"):
        emu.Machine(disks=disk)  # type: ignore[arg-type]


def test_a_disk_belongs_to_one_machine(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(512))
    disk = emu.Disk(path, snapshot=True)
    with pytest.raises(emu.ConfigError, match="in a machine already"):
        emu.Machine(memory=1 << 20, disks=[disk, disk])
    with emu.Machine(memory=1 << 20, disks=[disk]), pytest.raises(emu.ConfigError, match="in a machine already"):
        emu.Machine(memory=1 << 20, disks=[disk])
    with pytest.raises(emu.ConfigError, match="closed already"):
        emu.Machine(memory=1 << 20, disks=[disk])
    path.unlink()


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"firmware": 5}, TypeError, "bytes-like"),
        ({"firmware": b"x"}, emu.BadInput, "a ROM image of 1 bytes"),
        ({"serial": 5}, TypeError, "5 is no end of a line"),
        ({"modem": b"null"}, TypeError, "b'null' is no end of a line"),
        ({"serial": "nosuch"}, emu.ConfigError, "'nosuch' is no serial line"),
        ({"debugcon": -1}, emu.ConfigError, "debugcon: 1 ports from -0x1 leave the port space"),
        ({"debug_exit": 0xFFFE}, emu.ConfigError, "debug_exit: 4 ports from 0xfffe leave the port space"),
        ({"debugcon": 1 << 70}, emu.ConfigError, "leave the port space"),
        ({"debugcon": 1.5}, TypeError, "integer"),
        ({"debugcon": 0x3F8}, emu.ConfigError, "port 0x3f8 belongs to com1"),
        ({"append": "x"}, emu.ConfigError, "for a kernel"),
        ({"nvram": b"x"}, emu.ConfigError, "nvram: 1 bytes, and the CMOS RAM has 256"),
        ({"nvram": 5}, TypeError, "bytes-like"),
        ({"initrd": ["x"]}, emu.ConfigError, "for a kernel"),
    ],
)
def test_machines_that_cannot_be(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        emu.Machine(memory=1 << 20, **arguments)


def test_a_line_of_ones_own() -> None:
    class Printer(Backend):
        printed = b""

        def write(self, data: bytes) -> None:
            self.printed += data

    printer = Printer()
    with emu.Machine(serial=printer) as machine:
        machine.run()
    assert printer.printed == machine.serial.output != b""


def test_attaching_a_device_to_nothing(machine: emu.Machine) -> None:
    class Ticker(emu.Device):
        def reset(self) -> None:
            self.schedule(0, 100)

        def event(self, id: int) -> None:
            self.ticked = self.clock.cycle

    for arguments in ({}, {"ports": []}, {"ports": range(0x300, 0x300)}):
        with pytest.raises(emu.ConfigError, match="it would have nothing to do"):
            machine.attach(emu.Device(), **arguments)  # type: ignore[arg-type]
    for mmio in ((1, 2), 5, range(0), range(0, 8, 2), range(-4096, 0)):
        with pytest.raises(emu.ConfigError, match="no range of addresses"):
            machine.attach(emu.Device(), mmio=mmio)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="port 'a' is no number"):
        machine.attach(emu.Device(), ports="abc")  # type: ignore[arg-type]
    ticker = Ticker()
    machine.attach(ticker)  # which has something to do
    machine.run(cycles=1000)
    assert 100 <= ticker.ticked < 110  # at the end of an instruction


def test_a_device_whose_reset_fails_has_taken_nothing(machine: emu.Machine) -> None:
    class Broken(emu.Device):
        def reset(self) -> None:
            raise RuntimeError("mine")

    class Ready(emu.Device):
        def reset(self) -> None:
            self.raise_irq()

    with pytest.raises(RuntimeError, match="mine"):
        machine.attach(Broken(), ports=0x300, mmio=range(0xD0000, 0xD1000), irq=5)
    ready = Ready()
    machine.attach(ready, ports=0x300, mmio=range(0xD0000, 0xD1000), irq=5)
    assert ready in machine.board.chips and ready.level("irq") == 1
    machine.board.bus.port_write(0x20, 0x0A)  # OCW3: the next read is of the IRR
    assert machine.board.bus.port_read(0x20) & 1 << 5


def test_exits_and_vmcs_are_mappings(machine: emu.Machine) -> None:
    exits = machine.exits
    assert isinstance(exits, Mapping) and len(exits) == len(list(exits)) == len(exits.keys()) == len(exits.values())
    assert dict(exits.items())["EPT_VIOLATION"].count == exits["EPT_VIOLATION"].count == 0
    assert exits.get("EPT_VIOLATION") == exits["EPT_VIOLATION"] and exits.get("NO_SUCH") is None
    for name in ("NO_SUCH", 48, None, "ept_violation"):
        assert name not in exits
        with pytest.raises(KeyError):
            exits[name]  # type: ignore[index]
        with pytest.raises(KeyError):
            machine.vmcs[name]  # type: ignore[index]
    assert exits == machine.exits and repr(exits) == "<VM exits {}>"
    assert isinstance(machine.vmcs, Mapping) and "GUEST_RIP" in machine.vmcs
    assert repr(machine.vmcs) == "<no current VMCS>"
    with pytest.raises(emu.EmuError, match="no VMCS is current"):
        machine.vmcs["GUEST_RIP"]
    with pytest.raises(emu.EmuError, match="no VMCS is current"):
        machine.vmcs.get("GUEST_RIP")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_what_holds_a_machine_is_neither_copied_nor_pickled(
    machine: emu.Machine, cpu: emu.Cpu, tmp_path: Path, duplicate: Callable[[object], object]
) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(512))
    with pytest.raises(TypeError, match=r"a Machine is neither copied nor pickled: snapshot\(\)"):
        duplicate(machine)
    with pytest.raises(TypeError, match=r"a Cpu is neither copied nor pickled: save\(\) and restore\(\)"):
        duplicate(cpu)
    with emu.Disk(tmp_path / "disk.img") as disk, pytest.raises(TypeError, match="neither copied nor pickled"):
        duplicate(disk)
    for part in (cpu.memory, cpu.bus, cpu.clock, cpu.cs, emu.Device(), machine.board.pit):
        with pytest.raises(TypeError, match="cannot pickle"):
            duplicate(part)


def test_results_and_errors_can_be_pickled(cpu: emu.Cpu) -> None:
    cpu.load(0, b"\x0f\x0b")
    with pytest.raises(emu.CpuFault) as caught:
        cpu.step()
    for value in (emu.Stop(emu.StopReason.LIMIT), caught.value):
        assert repr(pickle.loads(pickle.dumps(value))) == repr(value)


def test_a_closed_machine_can_be_looked_at_but_runs_no_more(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(512))
    with emu.Machine(disks=[emu.Disk(tmp_path / "disk.img")]) as machine:
        machine.run(instructions=20_000)
        before = machine.snapshot()
    machine.close()
    assert machine.snapshot() == before and machine.serial.output and machine.cpu.rip and machine.memory.read(0, 4)
    with pytest.raises(emu.EmuError, match="the machine is closed"):
        machine.run(instructions=1)
    with pytest.raises(emu.EmuError, match="the machine is closed"):
        machine.serial.expect(b"x")
    assert machine.snapshot() == before
    emu.Disk(tmp_path / "disk.img").close()  # the file is free again


def test_closing_a_machine_that_runs(machine: emu.Machine) -> None:
    refused = []

    def close(_: int) -> None:
        with pytest.raises(emu.RunningError, match="the machine runs"):
            machine.close()
        refused.append(True)
        machine.stop()

    machine.hook("instruction", close)
    assert machine.run().reason is emu.StopReason.STOPPED and refused
    machine.close()
