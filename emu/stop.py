"""Why a run ended."""

from enum import StrEnum
from typing import NamedTuple

__all__ = ["Stop", "StopReason"]


class StopReason(StrEnum):
    """What ended a run."""

    LIMIT = "limit"
    """The instructions, cycles, guest seconds or host seconds that were asked for have passed."""
    HALTED = "halted"
    """HLT, and nothing is scheduled that could end it (a bare Cpu stops at every HLT)."""
    POWERED_OFF = "powered_off"
    DEBUG_EXIT = "debug_exit"
    """The guest wrote the debug-exit port; Stop.status is what it asked for."""
    TRIPLE_FAULT = "triple_fault"
    BREAKPOINT = "breakpoint"
    """`until` was reached, or with faults="raise" INT n, INT3, INTO, INT1 or a debug exception."""
    STOPPED = "stopped"
    """stop() was called."""


class Stop(NamedTuple):
    """The end of a run.

    Attributes:
        reason: what ended it.
        status: the exit status of a debug exit or power-off, else None.
        vector: of BREAKPOINT by an interrupt or debug exception its vector, else None.
    """

    reason: StopReason
    status: int | None = None
    vector: int | None = None
