"""Stub of bmc_kcs.pyx, which says what the part is."""

from typing import Protocol, Self

from emu._core import Clock
from emu.chips.isa8 import Isa8

class _Brain(Protocol):
    def handle(self, request: bytes) -> bytes: ...

class BmcKcs(Isa8):
    def __new__(cls, clock: Clock, name: str = "bmc_kcs", brain: _Brain | None = None) -> Self: ...
    def set_attention(self, on: bool) -> None: ...
