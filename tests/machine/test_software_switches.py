"""The log of switches of a VMM without VT-x: what its page in memory says, as bios/include/vm_abi.inc describes it."""

import struct
from typing import Any, cast

import emu._core
from emu.vm_log import KEPT, SEARCH_EVERY, SIGNATURE, VmLog

PAGE = 0x9000
RING = 256
NAMES, ENTRIES = PAGE + 32, PAGE + 32 + 8 * 32
LEFT = ENTRIES + RING * 32


class Processor:
    """What the log asks of a processor that has no VT-x."""

    transition_count = 0
    tsc = cycles = 1_000_000
    cpl = 3
    vmx_operation = "off"

    class vmcs:
        address = None


def page(memory: emu._core.Memory, *, software: int = 1) -> None:
    """A page with two VMs' names and no switch."""
    memory.write(PAGE, SIGNATURE + struct.pack("<4I", 0, RING, 2, software))
    for number, name in enumerate((b"Service VM", b"Guest VM")):
        memory.write(NAMES + 32 * number, struct.pack("<Q2I16s", 0x4000 + 0x1000 * number, number, 0, name))


def switched(memory: emu._core.Memory, left: int, entered: int, target: int, reason: int = 18) -> None:
    """Another switch: when the one VM stopped, and when the other one was entered; 0: not yet."""
    count = int.from_bytes(memory.read(PAGE + 16, 4), "little")
    place = count % RING
    entry = struct.pack("<Q6I", entered, 1 - target & 0xFFFFFFFF, target, 0, reason, 7, 0x99)
    memory.write(ENTRIES + 32 * place, entry)
    memory.write(LEFT + 8 * place, struct.pack("<Q", left))
    memory.write(PAGE + 16, struct.pack("<I", count + 1))


def log_of(memory: emu._core.Memory) -> VmLog:
    """A log that has found the page, if there is one."""
    log = VmLog(cast(Any, Processor()), memory)
    for _ in range(SEARCH_EVERY):
        log.poll()
    return log


def test_switches_are_the_entries_of_the_ring() -> None:
    memory = emu._core.Memory(1 << 20)
    page(memory)
    log = log_of(memory)
    switched(memory, 0, 100, 0)
    log.poll()
    assert log.switches() == [] and log.running() == "Service VM"
    switched(memory, 150, 170, 1)
    switched(memory, 300, 0, 0)
    log.poll()
    assert log.switches() == [(170, "Service VM", "Guest VM", "VMCALL", 7, 0x99)]
    assert list(log.costs) == [20], "the last one is not entered yet"
    memory.write(ENTRIES + 64, struct.pack("<Q", 340))
    log.poll()
    assert log.count == 2 and log.switches()[1].cycle == 340 and list(log.costs) == [20, 40]
    cast(Any, log.cpu).cpl = 0
    assert log.running() == "VMM"


def test_cycles_go_on_where_the_time_stamp_counter_begins_again() -> None:
    memory = emu._core.Memory(1 << 20)
    page(memory)
    log = log_of(memory)
    switched(memory, 0, 100, 0)
    switched(memory, 150, 170, 1)
    log.poll()
    page(memory)  # the machine was reset at cycle 1,000,000, and boots again
    cast(Any, log.cpu).cycles, cast(Any, log.cpu).tsc = 1_200_000, 200_000
    log.poll()
    for _ in range(SEARCH_EVERY):
        log.poll()
    switched(memory, 0, 100, 0)
    switched(memory, 150, 180, 1)
    log.poll()
    assert [one.cycle for one in log.switches()] == [170, 1_000_180]


def test_more_than_the_ring_holds() -> None:
    memory = emu._core.Memory(1 << 20)
    page(memory)
    log = log_of(memory)
    for number in range(3 * RING):
        switched(memory, 10 * number, 10 * number + 4, number % 2)
    log.poll()
    assert log.count == RING - 1 < KEPT and log.switches()[-1].cycle == 10 * (3 * RING - 1) + 4


def test_what_is_no_such_page_is_left_alone() -> None:
    memory = emu._core.Memory(1 << 20)
    page(memory, software=0)  # of a VMM with VT-x, which the processor itself tells of
    switched(memory, 0, 100, 0)
    switched(memory, 150, 170, 1)
    assert log_of(memory).count == 0
    page(memory)
    memory.write(PAGE + 20, struct.pack("<I", 0xFFFFFFFF))  # a ring that cannot be
    switched(memory, 0, 100, 0)
    assert log_of(memory).count == 0
    page(memory)
    log = log_of(memory)
    memory.write(PAGE + 24, struct.pack("<I", 0xFFFFFFFF))  # more names than there are
    switched(memory, 0, 100, 0)
    switched(memory, 150, 170, 5)  # a VM that has no name
    switched(memory, 160, 200, 0)  # it stopped before it was entered
    switched(memory, 300, 2_000_000, 0)  # in the future
    log.poll()
    assert log.switches() == [(170, "VM 0", "VM 1", "VMCALL", 7, 0x99)]
