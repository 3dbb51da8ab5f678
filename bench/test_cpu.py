"""Speed of a bare processor: guest instructions a second, and unit tests of one instruction."""

from typing import Any

import asm
from emu import Cpu

LOOP = """
again: add eax, ebx
xor ebx, 0x1234567
sub edx, eax
and esi, ebx
or edi, 5
inc ebp
lea eax, [eax+ebx*2+1]
mov ebx, edx
cmp eax, edi
dec ecx
jnz again
hlt
"""
TURNS = 1_000_000


def test_register_arithmetic(benchmark: Any) -> None:
    cpu = Cpu(bits=32, memory=1 << 20)
    code = asm.assemble(LOOP, bits=32).binary

    def run() -> None:
        cpu.load(0x1000, code)
        cpu.ecx = TURNS
        cpu.run()

    benchmark(run)
    benchmark.extra_info["guest MIPS"] = 11 * TURNS / benchmark.stats.stats.min / 1e6


def test_one_instruction(benchmark: Any) -> None:
    cpu = Cpu(bits=32, memory=1 << 20)
    cpu.load(0x1000, bytes.fromhex("01d8"))

    def step() -> int:
        cpu.rip, cpu.eax, cpu.ebx = 0x1000, 5, 7
        cpu.step()
        return cpu.eax

    assert benchmark(step) == 12


def test_fresh_cpu(benchmark: Any) -> None:
    assert benchmark(lambda: Cpu(bits=32, memory=1 << 20)).eax == 0
