"""The guest kernels, each as a flat binary and as a ROM that any PC boots."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import asm
from bench.sources import footprint_source

HERE = Path(__file__).parent / "images"
KERNEL = 0x10000  # where kernels run; boot.asm copies them there
DATA = 0x20000
STACK = 0x8000
HALF = 0x10000  # of a ROM: the kernel, then boot.asm
DEBUGCON, DEBUG_EXIT = 0xE9, 0xF4
FOOTPRINTS = (1000, 3000, 9000)
KERNELS = (
    "arithmetic", "memory", "sieve", "crc", "fib", "branches", "calls", "strings", "selfmod", "ports", "interrupts",
    *(f"footprint_{count}" for count in FOOTPRINTS),
)  # fmt: skip


@cache
def kernel(name: str) -> bytes:
    """A kernel's code, to be called at KERNEL with ECX = turns; its result comes back in EAX."""
    if name.startswith("footprint_"):
        source = footprint_source(int(name.removeprefix("footprint_")))
    else:
        source = (HERE / "kernels" / f"{name}.asm").read_text()
    head = f"bits 32\norg {KERNEL}\nKERNEL equ {KERNEL}\nDATA equ {DATA}\n"
    code = asm.assemble(head + source, filename=f"{name}.asm").binary
    assert len(code) <= HALF
    return code


@cache
def boot() -> asm.program.Program:
    """boot.asm, assembled."""
    return asm.assemble_file(HERE / "boot.asm")


def rom(name: str, turns: int, paging: bool) -> bytes:
    """A 128 KiB firmware image that runs a kernel, prints its result to port DEBUGCON and ends the run."""
    image = bytearray(kernel(name).ljust(HALF, b"\xff") + boot().binary)
    for symbol, value in (("turns", turns), ("paging", int(paging))):
        place = HALF + boot().symbols[symbol]
        image[place : place + 4] = value.to_bytes(4, "little")
    return bytes(image)


@dataclass(frozen=True)
class Case:
    """A kernel, with paging off or on."""

    name: str
    paging: bool = False

    def __str__(self) -> str:
        return self.name + ("+paging" if self.paging else "")
