"""Waiting as long as the guest does: while it is in HLT, the host sleeps for the time that passes in the machine."""

import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Pacer"]

STEP = 0.010  # seconds that the guest may be ahead; then the host sleeps, so that a key is late by no more than that


class Waiting(Protocol):
    """What is asked of the processor."""

    @property
    def halted(self) -> bool: ...
    @property
    def cycles(self) -> int: ...


class Pacer:
    """Holds a machine back while it waits. `poll` is called between slices; it changes nothing that the guest can see.

    Only waiting is held back: a guest that works runs as fast as the host can.

    Args:
        cpu: the processor.
        hz: its cycles in a second.
        clock, sleep: the host's, in seconds.
    """

    def __init__(
        self,
        cpu: Waiting,
        hz: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.cpu = cpu
        self.hz = hz
        self.clock = clock
        self.sleep = sleep
        self.cycles = cpu.cycles
        self.seconds = clock()
        self.ahead = 0.0

    def poll(self) -> None:
        """Sleeps for what the guest is ahead by waiting."""
        cycles, seconds = self.cpu.cycles, self.clock()
        waited = (cycles - self.cycles) / self.hz if self.cpu.halted else 0.0
        self.ahead = max(0.0, self.ahead + waited - (seconds - self.seconds))
        self.cycles, self.seconds = cycles, seconds
        if self.ahead >= STEP:
            self.sleep(self.ahead)
