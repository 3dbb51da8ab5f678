"""Cutting a run into pieces changes no state: limits of instructions and cycles, steps, hooks, a timer's interrupts.

Random code (random_code.py) is run in one go, and again cut at random places; a timer interrupts both.
"""

import random
from typing import Any

import pytest
from random_code import MODES, World
from system import HANDLERS, Bench

import asm
import emu
from emu.chips.i8254 import I8254
from emu.chips.i8259 import I8259
from emu.stop import StopReason

INSTRUCTIONS, CYCLES = 300, 10_000  # of a round, after which registers and place are others
ROUNDS = 20  # in one memory
ENOUGH, MOST_ROUNDS = 1000, 200  # of many rounds little runs


class Clocked(World):
    """A world with an 8254 that ticks every few hundred cycles, through an 8259 at vectors 20h."""

    def __init__(self, mode: str, seed: int) -> None:
        super().__init__(mode, seed, faults="deliver")
        self.pic = I8259(self.cpu.clock)
        self.pit = I8254(self.cpu.clock)
        self.pic.connect("INT", self.cpu.pins, 0)
        self.pit.connect("OUT0", self.pic, 0)
        self.cpu.interrupt_controller(self.pic)
        self.cpu.bus.map_ports(0x20, 2, self.pic)
        self.cpu.bus.map_ports(0x40, 4, self.pit)
        # One 8259 that ends interrupts by itself; counter 0 in mode 2, every two ticks.
        for port, value in ((0x20, 0x13), (0x21, 0x20), (0x21, 3), (0x21, 0xFE), (0x43, 0x14), (0x40, 2)):
            self.cpu.bus.port_write(port, value)
        self.random()
        self.cpu.rflags = self.cpu.rflags | 0x200

    def state(self) -> dict[str, Any]:
        state = self.cpu.save()
        state["memory"] = self.cpu.memory.read(0, self.cpu.memory.size)
        state["cycles"] = self.cpu.cycles
        return state


def run_cut(world: Clocked, rng: random.Random, instructions: int, cycles: int) -> list[StopReason]:
    """Runs in random pieces to the limits, and past whatever else stops the run; the reasons that were no limits."""
    cpu, reasons = world.cpu, []
    goal, last = cpu.instructions + instructions, cpu.cycles + cycles
    while cpu.instructions < goal and cpu.cycles < last:
        kind = rng.randrange(5)
        if kind == 0 and last - cpu.cycles > 5000:  # a step knows no limit
            stop = cpu.step()
        elif kind == 1:
            stop = cpu.run(cycles=min(rng.randrange(60), last - cpu.cycles), instructions=goal - cpu.instructions)
        elif kind == 2:
            hook = cpu.hook("instruction", lambda address: None)
            stop = cpu.run(instructions=min(rng.randrange(20), goal - cpu.instructions), cycles=last - cpu.cycles)
            hook.remove()
        else:
            stop = cpu.run(instructions=min(rng.randrange(200), goal - cpu.instructions), cycles=last - cpu.cycles)
        if stop.reason != StopReason.LIMIT:
            reasons.append(stop.reason)
            break
    return reasons


def run_whole(world: Clocked, instructions: int, cycles: int) -> list[StopReason]:
    stop = world.cpu.run(instructions=instructions, cycles=cycles)
    return [] if stop.reason == StopReason.LIMIT else [stop.reason]


@pytest.mark.parametrize("mode", MODES)
def test_a_run_in_pieces_is_the_same_run(mode: str) -> None:
    ran = rounds = 0
    whole, parts, rng = Clocked(mode, 0), Clocked(mode, 0), random.Random(mode)
    while rounds < ROUNDS or (ran < ENOUGH and rounds < MOST_ROUNDS):
        begin = whole.cpu.instructions
        ends = run_whole(whole, INSTRUCTIONS, CYCLES), run_cut(parts, rng, INSTRUCTIONS, CYCLES)
        one, other = whole.state(), parts.state()
        different = {name: (one[name], other[name]) for name in one if name != "memory" and one[name] != other[name]}
        assert not different, f"round {rounds}: {different}"
        assert one["memory"] == other["memory"], f"round {rounds}"
        assert ends[0] == ends[1], f"round {rounds}"
        ran += whole.cpu.instructions - begin
        rounds += 1
        for world in (whole, parts):
            if ends[0] or rounds % ROUNDS == 0:
                world.random()
            else:
                world.move()
            world.cpu.rflags = world.cpu.rflags | 0x200
    assert ran > 0


@pytest.mark.parametrize("mode", MODES)
def test_a_state_can_be_restored_in_any_other_mode(mode: str) -> None:
    """Segment bases count for nothing in 64-bit code, but for much before and after it."""
    model = World(mode, 0).cpu.model.name
    for other in (one for one in MODES if World(one, 0).cpu.model.name == model):
        here, there = World(mode, 1), World(other, 1)
        here.random()
        there.random()
        saved = here.cpu.save()
        there.cpu.restore(saved)
        assert there.cpu.save() == saved, other


# --- waiting is skipped to the next event ---


def waiting(text: str, model: str = "westmere") -> tuple[emu.Cpu, list[int]]:
    """A processor in flat 32-bit code whose timer's handler counts in EAX; and the cycles of its interrupts."""
    bench = Bench(model=model)
    cpu = bench.cpu
    pic, pit = I8259(cpu.clock), I8254(cpu.clock)
    pic.connect("INT", cpu.pins, 0)
    pit.connect("OUT0", pic, 0)
    cpu.interrupt_controller(pic)
    cpu.bus.map_ports(0x20, 2, pic)
    cpu.bus.map_ports(0x40, 4, pit)
    for port, value in ((0x20, 0x13), (0x21, 0x20), (0x21, 3), (0x21, 0xFE), (0x43, 0x14), (0x40, 50)):
        cpu.bus.port_write(port, value)
    cpu.memory.write(HANDLERS + 0x20 * 16, asm.assemble("inc eax\n iretd", bits=32).binary)
    bench.place(text)
    cpu.rflags = 0x202
    taken: list[int] = []
    cpu.hook("interrupt", lambda vector, rip: taken.append(cpu.cycles))
    return cpu, taken


@pytest.mark.parametrize("model", ["i386", "westmere"])
@pytest.mark.parametrize(
    "text", ["jmp $", "top: nop\n jmp top", "top: nop\n nop\n rep nop\n jmp near top", "top: inc ebx\n jmp top"]
)
def test_waiting_in_a_loop_is_what_its_turns_one_by_one_are(text: str, model: str) -> None:
    skipped, one_by_one = waiting(text, model=model), waiting(text, model=model)
    skipped[0].run(cycles=1_000_003)
    while one_by_one[0].cycles < 1_000_003:
        one_by_one[0].step()
    assert skipped[0].save() == one_by_one[0].save()
    assert skipped[0].cycles == one_by_one[0].cycles
    assert skipped[1] == one_by_one[1]
    assert skipped[0].eax == len(skipped[1]) > 5


@pytest.mark.parametrize("text", ["jmp $", "top: pause\n nop\n jmp top"])
def test_waiting_takes_little_time_of_the_host(text: str) -> None:
    """A hundred seconds of guest time: executed one by one the turns would take minutes."""
    cpu, taken = waiting(text)
    cpu.rflags = 2
    cpu.run(seconds=100, timeout=60)
    assert cpu.cycles >= 100 * cpu.clock.hz
    assert cpu.instructions > 10**10
    assert not taken


def test_the_limit_of_instructions_holds_in_a_waiting_loop() -> None:
    cpu, _ = waiting("top: pause\n nop\n jmp top")
    for limit in (1, 2, 3, 1000, 100_001):
        before = cpu.instructions
        cpu.run(instructions=limit)
        assert cpu.instructions - before == limit
