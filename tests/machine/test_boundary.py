"""The boundary between guest code and Python: exceptions, threads, signals, re-entry, forks, leaks."""

import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from roms import BUSY, rom

import asm
import emu

LOOP = rom("again: mov dx, 0x300\nin al, dx\ninc ecx\nout dx, al\njmp again")
SPIN = rom("again: inc ecx\njmp again")


class Faulty(emu.Device):
    """Raises what it is told to, where it is told to."""

    def __init__(self, where: str, error: BaseException | None) -> None:
        self.where, self.error = where, error

    def fail(self, where: str) -> None:
        if self.error is not None and self.where == where:
            raise self.error

    def read(self, address: int, size: int) -> int:
        self.fail("read")
        return 0x42

    def write(self, address: int, value: int, size: int) -> None:
        self.fail("write")
        self.schedule(0, self.clock.cycle + 100)

    def event(self, id: int) -> None:
        self.fail("event")

    def input(self, line: int, level: int) -> None:
        self.fail("input")


class Stranger(BaseException):
    """No Exception."""


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3), Stranger()])
@pytest.mark.parametrize("where", ["read", "write", "event"])
def test_an_exception_in_a_device_comes_out_of_run(where: str, error: BaseException) -> None:
    machine, device = emu.Machine(memory=1 << 20, firmware=LOOP), Faulty(where, error)
    machine.attach(device, ports=0x300)
    with pytest.raises(type(error)) as caught:
        machine.run(instructions=10_000)
    assert caught.value is error
    assert machine.instructions < 1000 and not machine.cpu.running
    device.error = None
    before = machine.instructions
    assert machine.run(instructions=10_000).reason is emu.StopReason.LIMIT
    assert machine.instructions == before + 10_000


def test_a_read_that_raises_gives_all_ones_and_the_instruction_is_done() -> None:
    machine = emu.Machine(memory=1 << 20, firmware=LOOP)
    machine.attach(Faulty("read", ValueError("mine")), ports=0x300)
    with pytest.raises(ValueError, match="mine"):
        machine.run()
    assert machine.cpu.al == 0xFF and machine.cpu.ecx == 0
    assert machine.cpu.disassemble(machine.cpu.cs.base + machine.cpu.rip)[0][2] == "inc ecx"


@pytest.mark.parametrize("answer", [-1, 256, "x", None, 1.5, 1 << 100])
def test_a_read_that_gives_no_byte(answer: Any) -> None:
    class Odd(emu.Device):
        def read(self, address: int, size: int) -> int:
            return answer  # type: ignore[no-any-return]

    machine = emu.Machine(memory=1 << 20, firmware=LOOP)
    machine.attach(Odd(), ports=0x300)
    with pytest.raises((ValueError, TypeError)):
        machine.run(instructions=100)
    assert machine.cpu.al == 0xFF


def test_a_second_exception_before_the_run_can_stop_is_a_note() -> None:
    machine, device = emu.Machine(memory=1 << 20, firmware=rom("mov dx, 0x300\nin eax, dx\nhlt")), Faulty("", None)
    asked = []

    def read(address: int, size: int) -> int:
        asked.append(address)
        raise OSError(f"mine, port {address:#x}")

    device.read = read  # type: ignore[method-assign]
    machine.attach(device, ports=[0x300, 0x302])  # four bytes, the device asked for each of its own apart
    with pytest.raises(OSError, match="mine, port 0x300") as caught:
        machine.run(instructions=100)
    assert asked == [0x300, 0x302] and "0x302" in caught.value.__notes__[0]
    assert machine.cpu.eax == 0xFFFFFFFF


@pytest.mark.parametrize("kind", ["instruction", "memory", "io", "interrupt"])
def test_an_exception_in_a_hook(kind: str) -> None:
    machine = emu.Machine(memory=1 << 20, firmware=rom(BUSY))
    error = Stranger()

    def callback(*_: object) -> None:
        raise error

    hook = machine.hook(kind, callback)
    with pytest.raises(Stranger):
        machine.run(cycles=5_000_000)
    hook.remove()
    assert machine.run(cycles=1_000_000).reason is emu.StopReason.LIMIT


def test_an_exception_in_a_predicate() -> None:
    machine = emu.Machine(memory=1 << 20, firmware=SPIN)

    def predicate(asked: emu.Machine) -> bool:
        assert asked is machine
        raise Stranger

    with pytest.raises(Stranger):
        machine.run(until=predicate)
    assert machine.run(instructions=10).reason is emu.StopReason.LIMIT


def test_stop_from_another_thread() -> None:
    machine = emu.Machine(memory=1 << 20, firmware=SPIN)
    started = threading.Event()
    machine.cpu.on_slice(started.set)

    def stopper() -> None:
        started.wait(30)
        machine.stop()

    thread = threading.Thread(target=stopper)
    thread.start()
    assert machine.run(timeout=60).reason is emu.StopReason.STOPPED
    thread.join()
    assert machine.run(instructions=1000).reason is emu.StopReason.LIMIT


def test_stop_in_a_callback_ends_the_run_after_that_instruction() -> None:
    machine = emu.Machine(memory=1 << 20, firmware=LOOP)
    hook = machine.hook("io", lambda *_: machine.stop())
    assert machine.run().reason is emu.StopReason.STOPPED
    assert machine.instructions == 3  # the reset vector's jump, MOV, IN
    hook.remove()
    machine.stop()  # nothing runs: of no effect
    assert machine.run(instructions=5).reason is emu.StopReason.LIMIT


def test_touching_a_machine_that_runs_in_another_thread() -> None:
    machine = emu.Machine(memory=1 << 20, firmware=SPIN)
    snapshot = machine.snapshot()
    started = threading.Event()
    machine.cpu.on_slice(started.set)
    thread = threading.Thread(target=lambda: machine.run(timeout=60))
    thread.start()
    assert started.wait(30)
    touches: list[Callable[[], object]] = [
        lambda: machine.run(instructions=1),
        lambda: machine.cpu.step(),
        lambda: machine.cpu.eax,
        lambda: setattr(machine.cpu, "eax", 1),
        lambda: machine.cpu.cs.base,
        lambda: machine.cpu.translate(0),
        lambda: machine.memory.read(0, 1),
        lambda: machine.memory.write(0, b"x"),
        lambda: machine.board.bus.port_read(0x80),
        lambda: machine.board.post.codes,
        lambda: machine.hook("io", print),
        lambda: machine.attach(emu.Device(), ports=0x300),
        lambda: machine.cycles,
        lambda: machine.snapshot(),
        lambda: machine.restore(snapshot),
        lambda: machine.reset(),
        lambda: machine.serial.send(b"x"),
    ]
    refused = 0
    try:
        for touch in touches:
            with pytest.raises(emu.RunningError):
                touch()
            refused += 1
    finally:
        machine.stop()
        thread.join()
    assert refused == len(touches)
    assert machine.run(instructions=1).reason is emu.StopReason.LIMIT


def test_a_reset_from_another_thread_touches_no_chip() -> None:
    machine = emu.Machine(memory=1 << 20, firmware=SPIN)
    machine.run(instructions=100)
    machine.board.pic1.drive(0, True)
    before = machine.snapshot()
    refused = []

    def refused_reset() -> None:
        with pytest.raises(emu.RunningError) as caught:
            machine.reset()
        refused.append(caught)

    def reset(*_: object) -> None:
        thread = threading.Thread(target=refused_reset)
        thread.start()
        thread.join()

    hook = machine.hook("instruction", reset)
    machine.run(instructions=1)
    hook.remove()
    assert refused and machine.snapshot().state["chips"] == before.state["chips"]


def test_re_entry_in_a_callback() -> None:
    machine = emu.Machine(memory=1 << 20, firmware=LOOP)
    refused = []

    def callback(*_: object) -> None:
        for call in (lambda: machine.run(instructions=1), machine.cpu.step, lambda: setattr(machine.cpu, "eax", 1)):
            try:
                call()  # type: ignore[operator]
            except emu.RunningError as error:
                refused.append(error)

    machine.hook("io", callback, range(0x300, 0x301))
    machine.run(instructions=10)
    assert len(refused) == 3 * 4


def test_another_thread_makes_progress() -> None:
    """The GIL is released while guest code runs."""
    machine = emu.Machine(memory=1 << 20, firmware=SPIN)
    count, done = 0, False

    def worker() -> None:
        nonlocal count
        while not done:
            count += 1
            time.sleep(0)

    thread = threading.Thread(target=worker)
    thread.start()
    machine.run(timeout=0.2)
    during = count
    done = True
    thread.join()
    assert during > 50


def test_a_thread_that_computes_does_not_starve_a_device() -> None:
    """After its first callback a slice keeps the GIL: taking it each time would cost the switch interval, 5 ms."""
    machine, done = emu.Machine(memory=1 << 20, firmware=LOOP), False
    machine.attach(Faulty("", None), ports=0x300)

    def worker() -> None:
        while not done:
            pass

    thread = threading.Thread(target=worker)
    thread.start()
    try:
        machine.run(instructions=100_000, timeout=30)
    finally:
        done = True
        thread.join()
    assert machine.instructions == 100_000  # 40,000 callbacks; at 5 ms each they would not be done in 30 s


def test_two_machines_at_once() -> None:
    machines = [emu.Machine(memory=1 << 20, firmware=rom(BUSY)) for _ in range(2)]
    alone = emu.Machine(memory=1 << 20, firmware=rom(BUSY))
    threads = [threading.Thread(target=machine.run, kwargs={"cycles": 20_000_000}) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone.run(cycles=20_000_000)
    assert machines[0].snapshot() == machines[1].snapshot() == alone.snapshot()


def test_ctrl_c() -> None:
    """SIGINT ends a run within a slice, and the machine can go on."""
    script = """
import os, signal, threading, emu
machine = emu.Machine(memory=1 << 20, firmware=bytes.fromhex("40ebfd90") * 16384)
first = threading.Event()
machine.cpu.on_slice(first.set)
signal.signal(signal.SIGINT, signal.default_int_handler)  # in a shell's background it is ignored
threading.Thread(target=lambda: (first.wait(30), os.kill(os.getpid(), signal.SIGINT))).start()
try:
    machine.run(timeout=60)
except KeyboardInterrupt:
    print("interrupted", machine.run(instructions=1000).reason)
"""
    # The image counts AX for ever.
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "interrupted limit\n", done.stderr


def test_a_fork_has_a_machine_of_its_own() -> None:
    machine = emu.Machine(memory=1 << 20, firmware=rom(BUSY))
    machine.run(cycles=1_000_000)
    start = machine.snapshot()
    child = os.fork()
    if child == 0:
        try:
            machine.run(cycles=1_000_000)
            machine.memory.write(0x9000, b"child")
            os._exit(7 if machine.snapshot() != start else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert machine.snapshot() == start  # nothing of what the child did is seen here


def test_machines_and_devices_are_collected() -> None:
    def build() -> list[weakref.ref[Any]]:
        machine = emu.Machine(memory=1 << 20, firmware=LOOP)
        device = Faulty("", None)
        machine.attach(device, ports=0x300)
        device.machine = machine  # type: ignore[attr-defined]
        machine.hook("io", lambda *_: machine)
        machine.run(instructions=1000)
        return [weakref.ref(machine), weakref.ref(device)]

    found = build()
    gc.collect()
    assert [reference() for reference in found] == [None, None]


def test_garbage_collection_during_a_run() -> None:
    class Collector(emu.Device):
        def read(self, address: int, size: int) -> int:
            gc.collect()
            return 1

    machine = emu.Machine(memory=1 << 20, firmware=LOOP)
    machine.attach(Collector(), ports=0x300)
    assert machine.run(instructions=500).reason is emu.StopReason.LIMIT


def resident() -> int:
    """Kilobytes of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024


def test_ten_thousand_processors_leave_nothing() -> None:
    code = asm.assemble("add eax, ebx", bits=32).binary

    def use(count: int) -> None:
        for _ in range(count):
            cpu = emu.Cpu()
            cpu.load(0x1000, code)
            cpu.step()

    use(1000)
    before = resident()
    use(10_000)
    quarantine = 16 << 10 if "libasan" in os.environ.get("LD_PRELOAD", "") else 0  # as the Makefile sets it
    assert resident() - before < 2000 + quarantine


def test_a_processor_has_nothing_of_the_one_before() -> None:
    """A new one gets the mappings of one that is gone: its memory, translations, blocks and registers must not show."""
    page_tables = asm.assemble("dd 0x3003\ntimes 1023 dd 0\n dd 0x4003, 0x4003, 0x2003", bits=32).binary

    def outcome(code: str) -> tuple[Any, ...]:
        cpu = emu.Cpu(memory=1 << 20)
        fresh = cpu.save()
        empty = cpu.memory.save()
        cpu.load(0x1000, asm.assemble(code, bits=32).binary)
        with pytest.raises(emu.CpuFault) as caught:
            cpu.run(instructions=1000)
        return fresh, empty, cpu.cycles, cpu.eax, cpu.memory.save(), str(caught.value)

    def use_up() -> None:
        cpu = emu.Cpu(memory=1 << 20)
        cpu.memory.write(0x2000, page_tables)
        cpu.memory.write(0x4000, asm.assemble("mov eax, 7\nl: inc eax\npush eax\njmp l", bits=32).binary)
        cpu.cr3, cpu.cr0 = 0x2000, cpu.cr0 | 1 << 31
        cpu.esp, cpu.rip = 0x3000, 0x1000  # both at other places than the linear addresses say
        cpu.run(instructions=300)
        cpu.rax = cpu.r15 = cpu.cr2 = 0xDEAD
        cpu.memory.view(writable=True)[0x80000:] = 0xEE

    codes = ("add eax, [0x1000]\nmov [0x80000], eax\nud2", "push eax\npop ebx\nud2")
    before = [outcome(code) for code in codes]
    for _ in range(3):
        use_up()
        assert [outcome(code) for code in codes] == before
    assert before[0][1] == {}


def test_machines_leave_nothing() -> None:
    def use(count: int) -> None:
        for _ in range(count):
            with emu.Machine(memory=64 << 20, firmware=SPIN) as machine:
                machine.run(instructions=1000)
            del machine
            gc.collect()

    use(10)
    before = resident()
    use(60)
    assert resident() - before < 4000


def test_memory_costs_what_is_touched() -> None:
    before = resident()
    machine = emu.Machine(memory=2 << 30, firmware=SPIN)
    machine.run(instructions=1000)
    assert resident() - before < 20_000


def test_no_signal_handler_is_left_behind() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with emu.Machine(memory=1 << 20, firmware=SPIN) as machine:
        machine.run(instructions=1000)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
