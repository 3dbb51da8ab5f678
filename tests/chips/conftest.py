"""A bench for one chip: a clock, a bus, and a probe that writes down what it hears on a wire."""

from collections.abc import Callable

import pytest

from emu._core import Bus, Chip, Clock, Device
from emu.errors import BadInput


class Probe(Device):
    """The other end of wires: remembers each change as (cycle, line, level)."""

    def __init__(self, clock: Clock, name: str) -> None:
        self.changes: list[tuple[int, int, int]] = []

    def input(self, line: int, level: int) -> None:
        self.changes.append((self.clock.cycle, line, level))

    def levels(self) -> list[tuple[int, int]]:
        """The changes of line 0 without the line."""
        return [(cycle, level) for cycle, line, level in self.changes if line == 0]


class Bench:
    """A board with the chips of one test."""

    def __init__(self, hz: int) -> None:
        self.clock = Clock(hz)
        self.bus = Bus(self.clock)
        self.read = self.bus.port_read
        self.write = self.bus.port_write

    def place(self, chip: Chip, first: int, count: int) -> None:
        self.bus.map_ports(first, count, chip)

    def probe(self, chip: Chip, output: str) -> Probe:
        probe = Probe(self.clock, f"probe of {chip.name} {output}")
        chip.connect(output, probe, 0)
        return probe


@pytest.fixture
def bench() -> Callable[[int], Bench]:
    """Makes a bench with a clock of so many hertz."""
    return Bench


def check_round_trip(chip: Chip, other: Chip) -> None:
    """What one chip saves another loads, and saves again alike; a damaged state is refused."""
    state = chip.save()
    other.load(state)
    assert other.save() == state
    with pytest.raises(BadInput, match="version"):
        other.load({**state, "version": 0})
    for name in state.keys() - {"version"}:
        with pytest.raises(BadInput, match="malformed"):
            other.load({key: value for key, value in state.items() if key != name})
    with pytest.raises(BadInput, match="malformed"):
        other.load(dict.fromkeys(state, -1) | {"version": state["version"]})


@pytest.fixture
def round_trip() -> Callable[[Chip, Chip], None]:
    return check_round_trip
