"""Unit tests of one instruction through emu.Cpu, against the same through Unicorn's binding."""

from collections.abc import Callable
from typing import Any

import pytest

from bench.yardstick import cpu_time
from emu import Cpu

CODE = bytes.fromhex("01d8")  # add eax, ebx
ADDRESS = 0x1000
SIZE = 1 << 20
TIMES, THEIR_TIMES = 2000, 200


def emu_test(cpu: Cpu) -> int:
    """Sets registers, runs one instruction, reads a register."""
    cpu.rip, cpu.eax, cpu.ebx = ADDRESS, 5, 7
    cpu.step()
    return cpu.eax


def fresh_emu() -> Cpu:
    cpu = Cpu(bits=32, memory=SIZE)
    cpu.load(ADDRESS, CODE)
    return cpu


def unicorn_test(uc: Any) -> int:
    from unicorn import x86_const as x86

    uc.reg_write(x86.UC_X86_REG_EAX, 5)
    uc.reg_write(x86.UC_X86_REG_EBX, 7)
    uc.emu_start(ADDRESS, ADDRESS + len(CODE))
    result: int = uc.reg_read(x86.UC_X86_REG_EAX)
    return result


def fresh_unicorn() -> Any:
    unicorn = pytest.importorskip("unicorn", reason="unicorn (PyPI) is what this is compared with")
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
    uc.mem_map(0, SIZE)
    uc.mem_write(ADDRESS, CODE)
    return uc


def compare(benchmark: Any, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    """The ratio of many turns of each, one after the other."""

    def repeated(action: Callable[[], object], times: int) -> float:
        def run() -> None:
            for _ in range(times):
                action()

        return cpu_time(run) / times

    seconds = repeated(ours, TIMES)
    benchmark.extra_info["ratio"] = repeated(theirs, THEIR_TIMES) / seconds
    benchmark.extra_info["to"] = "unicorn"
    benchmark.extra_info["thousands a second"] = 1e-3 / seconds


def test_one_instruction(benchmark: Any) -> None:
    cpu, uc = fresh_emu(), fresh_unicorn()
    assert benchmark(emu_test, cpu) == unicorn_test(uc) == 12
    compare(benchmark, lambda: emu_test(cpu), lambda: unicorn_test(uc))


def test_fresh_processor(benchmark: Any) -> None:
    assert benchmark(fresh_emu).eax == 0
    compare(benchmark, fresh_emu, fresh_unicorn)


def test_one_instruction_on_a_fresh_processor(benchmark: Any) -> None:
    assert benchmark(lambda: emu_test(fresh_emu())) == 12
    compare(benchmark, lambda: emu_test(fresh_emu()), lambda: unicorn_test(fresh_unicorn()))
