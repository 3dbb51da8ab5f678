"""Snapshots: a run that goes on from one is the run that went on, bit for bit; bad files are refused."""

import json
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from roms import BUSY, rom

import emu
from emu.snapshot import HEADER, decode, encode, plain

BUSY_ROM = rom(BUSY)
SEED = 20


def busy(memory: int = 1 << 20, **options: Any) -> emu.Machine:
    return emu.Machine(memory=memory, firmware=BUSY_ROM, **{"cpu": "pentium3", **options})


def same(a: emu.Snapshot, b: emu.Snapshot) -> None:
    assert a == b, a.differences(b)


class Counter(emu.Device):
    """A device with a state: counts what is written, and ticks."""

    def reset(self) -> None:
        self.state: dict[str, Any] = {"count": 0, "seen": [], "last": (1, b"")}

    def write(self, address: int, value: int, size: int) -> None:
        self.state["count"] += value
        self.state["seen"] = [*self.state["seen"][-9:], value]
        self.state["last"] = (address, bytes([value & 0xFF]))
        self.schedule(3, self.clock.cycle + 1000)

    def read(self, address: int, size: int) -> int:
        return int(self.state["count"]) & 0xFF

    def event(self, id: int) -> None:
        self.state["count"] += id

    def save(self) -> dict[str, Any]:
        return self.state

    def load(self, state: dict[str, Any]) -> None:
        self.state = state


def test_the_guest_is_busy() -> None:
    """What the tests below rely on: interrupts are taken, characters sent, POST codes written."""
    with busy() as machine:
        machine.run(cycles=10_000_000)
        assert machine.memory.read(0x500, 1)[0] > 5
        assert len(machine.serial.output) > 5
        assert machine.board.post.count > 5


@pytest.mark.parametrize("timing", ["static", "unit"])
def test_going_on_from_a_snapshot_is_going_on(timing: str) -> None:
    choose = random.Random(SEED)
    machine, other = busy(timing=timing), busy(timing=timing)
    for _ in range(40):
        machine.run(cycles=choose.randrange(1, 400_000))
        start = machine.snapshot()
        more = choose.randrange(1, 300_000)
        machine.run(cycles=more)
        end = machine.snapshot()
        for again in (machine, other):
            again.restore(start)
            same(again.snapshot(), start)
            again.run(cycles=more)
            same(again.snapshot(), end)


def test_between_any_two_instructions() -> None:
    """Also within REP, after STI and MOV SS, and in HLT."""
    straight, machines = busy(), [busy(), busy()]
    for each in (straight, *machines):
        each.run(cycles=1_000_000)
    for number in range(300):
        machines[(number + 1) % 2].restore(machines[number % 2].snapshot())
        machines[(number + 1) % 2].run(instructions=1)
        straight.run(instructions=1)
        same(machines[(number + 1) % 2].snapshot(), straight.snapshot())


def test_the_built_in_firmware_goes_on_alike() -> None:
    """With paging, faults and a timer; the console goes on where it was."""
    with emu.Machine() as machine:
        assert machine.run().reason is emu.StopReason.POWERED_OFF
        whole = machine.serial.output
        end = machine.cycles
    with emu.Machine() as machine, emu.Machine() as other:
        for _ in range(12):
            machine.run(cycles=end // 13)
            other.restore(machine.snapshot())
        assert other.run().reason is emu.StopReason.POWERED_OFF
        assert other.cycles == end and other.serial.output == whole


def test_another_process_goes_on_alike(tmp_path: Path) -> None:
    machine = busy()
    machine.run(cycles=1_234_567)
    start, end = tmp_path / "start.snap", tmp_path / "end.snap"
    machine.snapshot().save(start)
    (tmp_path / "busy.rom").write_bytes(BUSY_ROM)
    script = f"""
import emu
machine = emu.Machine(memory=1 << 20, cpu="pentium3", firmware={str(tmp_path / "busy.rom")!r})
machine.restore(emu.Snapshot.load({str(start)!r}))
machine.run(cycles=777_777)
machine.snapshot().save({str(end)!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    machine.run(cycles=777_777)
    same(emu.Snapshot.load(end), machine.snapshot())


def test_at_a_breakpoint_the_next_run_begins_with_its_instruction() -> None:
    machine = busy()
    loop = 0xF0000 + BUSY_ROM.index(bytes.fromhex("b93200be"))  # again: mov cx, 50; mov si
    for _ in range(3):
        assert machine.run(until=loop, cycles=10_000_000).reason is emu.StopReason.BREAKPOINT
    start = machine.snapshot()
    machine.run(until=loop, cycles=10_000_000)
    end = machine.snapshot()
    assert end.state["clock"]["cycle"] > start.state["clock"]["cycle"]
    machine.restore(start)
    machine.run(until=loop, cycles=10_000_000)
    same(machine.snapshot(), end)


def test_what_the_guest_has_sent_is_part_of_it() -> None:
    with emu.Machine(memory=1 << 20, firmware=rom("again: inc al\nout 0xe9, al\njmp again"), debugcon=0xE9) as machine:
        assert machine.debugcon is not None
        machine.run(instructions=100)
        start, sent = machine.snapshot(), machine.debugcon.output
        machine.run(instructions=100)
        assert len(machine.debugcon.output) > len(sent) > 10
        machine.restore(start)
        assert machine.debugcon.output == sent


def test_costs_what_was_written() -> None:
    """Pages that nobody wrote are shared between snapshots, not copied."""
    machine = busy(memory=64 << 20)
    machine.memory.write(32 << 20, b"x" * (4 << 20))
    machine.run(cycles=1_000_000)
    first = machine.snapshot()
    machine.run(cycles=1_000_000)
    second = machine.snapshot()
    copied = [number for number, page in second.pages.items() if page is not first.pages.get(number)]
    assert len(second.pages) > 1024 and 0 < len(copied) < 8
    machine.restore(first)
    again = machine.snapshot()
    assert all(page is first.pages[number] for number, page in again.pages.items())


def test_memory_written_by_the_host() -> None:
    machine = busy()
    view = machine.memory.view(writable=True)
    start = machine.snapshot()
    view[0x5000] = 77
    machine.memory.write(0x6000, b"!")
    changed = machine.snapshot()
    assert changed.differences(start) == ["memory page 0x5", "memory page 0x6"]
    machine.restore(start)
    assert view[0x5000] == 0 and machine.memory.read(0x6000, 1) == b"\0"
    same(machine.snapshot(), start)


def test_code_that_was_replaced_is_decoded_anew() -> None:
    machine = emu.Machine(memory=1 << 20, cpu="pentium3", firmware=rom("jmp 0:0x1000"))
    machine.memory.write(0x1000, bytes.fromhex("b001ebfe"))  # mov al, 1; jmp $
    start = machine.snapshot()
    machine.run(instructions=10)
    assert machine.cpu.al == 1
    machine.restore(start)
    machine.memory.write(0x1001, b"\2")
    machine.run(instructions=10)
    assert machine.cpu.al == 2
    machine.restore(start)
    machine.run(instructions=10)
    assert machine.cpu.al == 1


def test_devices_are_saved_with_their_wires_and_events(tmp_path: Path) -> None:
    body = "again: mov al, 5\nout 0x40, al\nmov dx, 0x300\nout dx, al\nin al, dx\nout 0x80, al\njmp again"

    def build() -> tuple[emu.Machine, Counter]:
        machine, device = emu.Machine(memory=1 << 20, firmware=rom(body)), Counter()
        machine.attach(device, ports=0x300, irq=5)
        return machine, device

    machine, device = build()
    machine.run(instructions=1000)
    device.raise_irq()
    start = machine.snapshot()
    start.save(tmp_path / "x.snap")
    machine.run(cycles=20_000)
    end = machine.snapshot()
    assert start.state["chips"]["Counter"]["levels"] == {"irq": 1}
    assert start.state["chips"]["Counter"]["device"]["count"] != end.state["chips"]["Counter"]["device"]["count"]
    other, twin = build()
    other.restore(emu.Snapshot.load(tmp_path / "x.snap"))
    assert twin.level("irq") == 1 and isinstance(twin.state["last"], tuple)
    other.run(cycles=20_000)
    same(other.snapshot(), end)
    same(emu.Snapshot.load(tmp_path / "x.snap"), start)


def test_a_device_without_save_is_named() -> None:
    class Led(emu.Device):
        pass

    class Odd(Counter):
        def save(self) -> dict[str, Any]:
            return {"self": self}

    for device, says in ((Led(), "Led: a device needs the methods save and load"), (Odd(), "cannot hold a Odd")):
        machine = busy()
        machine.attach(device, ports=0x300)
        with pytest.raises(emu.EmuError, match=says):
            machine.snapshot()


def test_a_snapshot_of_another_machine_is_refused() -> None:
    snapshot = busy().snapshot()
    attached = busy()
    attached.attach(Counter(), ports=0x300)
    for other, says in (
        (busy(memory=2 << 20), "memory is 1048576, not 2097152"),
        (busy(cpu="i386"), "processor is 'pentium3'"),
        (busy(timing="unit"), "timing"),
        (busy(debugcon=0xE9), "chips"),
        (attached, "chips"),
        (emu.Machine(memory=1 << 20), "ROM"),
    ):
        before = other.snapshot()
        with pytest.raises(emu.BadInput, match=says):
            other.restore(snapshot)
        same(other.snapshot(), before)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    machine = busy()
    machine.run(cycles=2_000_000)
    path = tmp_path_factory.mktemp("saved") / "x.snap"
    machine.snapshot().save(path)
    return path


def test_damaged_files(saved: Path, tmp_path: Path) -> None:
    data = saved.read_bytes()
    bad = tmp_path / "bad.snap"
    choose = random.Random(SEED)
    for name, says in (("nosuch.snap", "nosuch.snap: No such file"), (".", "Is a directory")):
        with pytest.raises(emu.BadInput, match=says):
            emu.Snapshot.load(tmp_path / name)
    ends = [0, 7, 8, 24, 40, len(data) - 1, *(choose.randrange(len(data)) for _ in range(20))]
    for end in ends:
        bad.write_bytes(data[:end])
        with pytest.raises(emu.BadInput, match=r"not a snapshot|truncated"):
            emu.Snapshot.load(bad)
    for at in [*range(HEADER.size), *(choose.randrange(len(data)) for _ in range(200))]:
        bad.write_bytes(data[:at] + bytes([data[at] ^ 1 << choose.randrange(8)]) + data[at + 1 :])
        with pytest.raises(emu.BadInput):
            emu.Snapshot.load(bad)
    bad.write_bytes(data + b"x")
    with pytest.raises(emu.BadInput, match="truncated or damaged"):
        emu.Snapshot.load(bad)
    bad.write_bytes(data[:8] + struct.pack("<I", 2) + data[12:])
    with pytest.raises(emu.BadInput, match="version 2; this program reads version 1"):
        emu.Snapshot.load(bad)
    bad.write_bytes(b"\x7fELF" + data[4:])
    with pytest.raises(emu.BadInput, match="not a snapshot"):
        emu.Snapshot.load(bad)


def write(path: Path, text: bytes, pages: bytes = b"") -> None:
    """A file whose checksum is right, whatever it holds."""
    sizes = struct.pack("<Q", len(text))
    path.write_bytes(
        HEADER.pack(b"EMU-SNAP", 1, zlib.crc32(sizes + text + pages), 8 + len(text) + len(pages), len(text))
        + text
        + pages
    )


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"machine":{},"state":{}}',
        b'{"machine":{},"state":{},"pages":[0]}',
        b'{"machine":{},"state":{},"pages":7}', b'{"machine":{},"state":{"$bytes":"zz"},"pages":[]}',
        b'{"machine":{},"state":{"$bytes":5},"pages":[]}', b'{"machine":{},"state":{"$items":[[{},1]]},"pages":[]}',
        b'{"machine":1,"state":2,"pages":[]}', b'{"machine":{},"state":{"cpu":{}},"pages":[]}',
        b'{"a":' + b"9" * 10_000 + b"}",
    ],
)  # fmt: skip
def test_malformed_files_with_a_right_checksum(tmp_path: Path, text: bytes) -> None:
    write(tmp_path / "bad.snap", text)
    with pytest.raises(emu.BadInput, match=r"bad\.snap"):
        emu.Snapshot.load(tmp_path / "bad.snap")


def nodes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values within a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for key, item in inner for deeper in nodes(item, (*path, key)))]


HOSTILE = (None, -1, 0, 1, 255, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, 1.5, "x", [], {}, True)


def test_hostile_states_do_not_crash(saved: Path, tmp_path: Path) -> None:
    """Any one value replaced by another: refused with BadInput and nothing changed, or taken, and then it runs."""
    data = saved.read_bytes()
    size = HEADER.unpack_from(data)[4]
    text, pages = data[HEADER.size : HEADER.size + size], data[HEADER.size + size :]
    choose = random.Random(SEED)
    places = nodes(json.loads(text))
    few = [path for path in places if path[:1] == ("state",) and len(path) > 1]
    machine = busy()
    before = machine.snapshot()
    refused = taken = 0
    for path in choose.sample(few, min(500, len(few))):
        content = json.loads(text)
        target = content
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = choose.choice(HOSTILE)
        write(tmp_path / "bad.snap", json.dumps(content).encode(), pages)
        try:
            machine.restore(emu.Snapshot.load(tmp_path / "bad.snap"))
        except emu.BadInput:
            refused += 1
            same(machine.snapshot(), before)
            continue
        taken += 1
        machine.run(instructions=200, cycles=1_000_000)
        machine.restore(before)
    assert refused > 50 and taken > 50


def test_a_page_that_the_machine_lacks() -> None:
    machine = busy()
    snapshot = machine.snapshot()
    before = machine.snapshot()
    for pages in ({256: bytes(4096)}, {-1: bytes(4096)}, {0: b"x"}, {"0": bytes(4096)}):
        with pytest.raises(emu.BadInput):
            machine.restore(emu.Snapshot(snapshot.machine, snapshot.state, pages))  # type: ignore[arg-type]
        same(machine.snapshot(), before)


def test_a_file_that_cannot_be_written_leaves_the_old_one(saved: Path, tmp_path: Path) -> None:
    snapshot = emu.Snapshot.load(saved)
    with pytest.raises(emu.ConfigError, match="cannot be written"):
        snapshot.save(tmp_path / "none" / "x.snap")
    with pytest.raises(emu.ConfigError, match="cannot be written"):
        snapshot.save(tmp_path)
    old = tmp_path / "old.snap"
    old.write_bytes(b"old")
    snapshot.pages[3] = None  # type: ignore[assignment]
    with pytest.raises(TypeError):
        snapshot.save(old)
    assert old.read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["old.snap"]


def test_not_while_it_runs() -> None:
    machine = busy()
    snapshot = machine.snapshot()
    errors = []

    def callback(*_: object) -> None:
        for call in (machine.snapshot, lambda: machine.restore(snapshot)):
            try:
                call()
            except emu.RunningError as error:
                errors.append(error)
        machine.stop()

    machine.hook("io", callback)
    machine.run(cycles=100_000)
    assert len(errors) == 2


def test_plain_values_survive_the_file() -> None:
    values: list[Any] = [
        None, True, 0, -5, 1 << 70, 1.5, float("inf"), "text", b"\0\xff", (1, (b"x", [2])), {"a": {"b": 1}},
        {1: b"x", "b": ()},
        {"$bytes": "00"}, {(1, 2): 3}, [], {}, (),
    ]  # fmt: skip
    for value in values:
        assert json.loads(json.dumps(encode(value)), object_hook=decode) == value
        assert plain(value, "test") == value
    inner = [1]
    assert plain([inner], "test")[0] is not inner
