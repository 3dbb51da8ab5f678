"""Which virtual machine ran when, seen from outside: VM entries and exits, and the VMCS that each was of.

A switch is a VM entry with another VMCS than the entry before it. Nothing in the guest takes part in that. A VMM may
name its VMs for whoever reads its memory: a page that begins with SIGNATURE, as bios/include/vm_abi.inc describes it.
The names are labels; nothing else depends on them.

A processor without VT-x has no VM entries. There the page is all that tells: a VMM that switches by software says so in
it, and each of its switches is an entry of the ring in it.
"""

import struct
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from emu._core import EXIT_REASON_NAMES

if TYPE_CHECKING:
    from emu._core import BoardCpu, Memory
    from emu.debug.timeline import Timeline

__all__ = ["SIGNATURE", "VmLog", "VmSwitch", "names_in"]

SIGNATURE = b"VM SWITCH RECORD"
HEADER = struct.Struct("<16s4I")  # signature, switches, ring, names in use, 1 for switches by software
SWITCH = struct.Struct("<Q2i4I")  # time-stamp counter, from, to, why, exit reason, qualification, RIP
LEFT = struct.Struct("<Q")  # time-stamp counter when the VM stopped
NAME = struct.Struct("<Q2I16s")  # VMCS, number, reserved, text
MOST_NAMES = 8
MOST_RING = 256
ALL64 = (1 << 64) - 1
PAGE = 4096
SEARCHED = 8 << 20  # bytes at the end of memory where a VMM by software has its page
SEARCH_EVERY = 16  # slices
KEPT = 4096  # switches
MOST_VMS = 64  # that are numbered; others are called by the address of the VMCS
VMM = "VMM"


class VmSwitch(NamedTuple):
    """A switch to another VM: the cycle of the VM entry, the VMs, and the last VM exit of the one that was left."""

    cycle: int
    source: str
    target: str
    reason: str | None
    qualification: int
    rip: int
    """Of the VM that was left."""

    def report(self, hz: int) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "cycle": self.cycle, "seconds": self.cycle / hz, "from": self.source, "to": self.target,
            "reason": self.reason, "qualification": self.qualification, "rip": self.rip,
        }  # fmt: skip


def names_in(memory: "Memory") -> dict[int, str]:
    """The names that a VMM has put into memory, by the address of the VMCS; none where there is no such page."""
    for page in range(len(memory) - PAGE, -1, -PAGE):
        if memory.read(page, len(SIGNATURE)) == SIGNATURE:
            _, _, _, count, _ = HEADER.unpack(memory.read(page, HEADER.size))
            table = memory.read(page + HEADER.size, NAME.size * min(count, MOST_NAMES))
            found = {vmcs: text.rstrip(b"\0") for vmcs, _, _, text in NAME.iter_unpack(table)}
            return {vmcs: text.decode("ascii") for vmcs, text in found.items() if text.isascii() and text}
    return {}


def software_page(memory: "Memory") -> int | None:
    """Where a VMM that switches by software has its page; None where there is no such VMM."""
    first = max(0, len(memory) - SEARCHED) // PAGE * PAGE
    begins = bytes(memoryview(memory)[first::PAGE])  # the first byte of each page
    at = begins.find(SIGNATURE[:1])
    while at >= 0:
        page = first + at * PAGE
        signature, _, _, _, software = HEADER.unpack(memory.read(page, HEADER.size))
        if signature == SIGNATURE and software and page + 3 * PAGE <= len(memory):
            return page
        at = begins.find(SIGNATURE[:1], at + 1)
    return None


class VmLog:
    """The switches of a machine, the last KEPT of them, and a timeline if one is wanted."""

    def __init__(self, cpu: "BoardCpu", memory: "Memory") -> None:
        self.cpu = cpu
        self.memory = memory
        self.timeline: Timeline | None = None
        self.seen = 0  # VM entries and exits
        self.count = 0
        self.raw: deque[tuple[int, int, int, str | None, int, int]] = deque(maxlen=KEPT)
        self.order: list[int] = []  # addresses of VMCSs in the order of their first entry
        self.known: dict[int, str] = {}  # names, by the VMCS's address, as running() found them
        self.vmcs: int | None = None  # of the last entry
        self.since = 0  # when it was entered
        self.costs: deque[int] = deque(maxlen=KEPT)
        """Cycles from the VM exit of one VM to the entry of another, of the last switches."""
        self.left: tuple[str | None, int, int] = (None, 0, 0)  # reason, qualification, RIP of the last exit
        self.left_at = 0
        self.page: int | None = None  # of a VMM by software
        self.recorded = 0  # its switches so far
        self.slices = 0

    def poll(self) -> None:
        """Takes what came since the last time; between slices of a run."""
        if self.cpu.transition_count < self.seen:  # a snapshot was restored, or the machine reset
            self.seen, self.vmcs = self.cpu.transition_count, None
            return
        if self.cpu.transition_count == self.seen:
            if self.seen == 0:
                self.poll_page()
            return
        if self.timeline is not None:
            transitions = self.cpu.transitions(self.seen)
        else:
            transitions = self.cpu.switch_transitions(self.seen, self.vmcs)
        for one in transitions:
            if one.kind == "entry":
                self.entered(one.cycle, one.vmcs)
            else:
                self.left = (one.reason, one.qualification, one.rip)
                if self.timeline is not None and self.vmcs is not None:
                    self.timeline.ran(self.provisional(self.vmcs), self.since, one.cycle)
                self.left_at = one.cycle
        self.seen = self.cpu.transition_count

    def entered(self, cycle: int, vmcs: int) -> None:
        """A VM entry."""
        if self.timeline is not None and self.vmcs is not None:
            self.timeline.ran(VMM, self.left_at, cycle)
        if len(self.order) < MOST_VMS and vmcs not in self.order:
            self.order.append(vmcs)
        if self.vmcs not in (None, vmcs):
            self.count += 1
            self.costs.append(cycle - self.left_at)
            self.raw.append((cycle, self.vmcs, vmcs, *self.left))
            if self.timeline is not None:
                why = self.left[0] or "no VM exit"
                self.timeline.switched(cycle, self.provisional(self.vmcs), self.provisional(vmcs), why)
        self.vmcs, self.since = vmcs, cycle

    def poll_page(self) -> None:
        """The same for a VMM that switches by software: the entries of its ring that are new."""
        if self.page is None:
            self.slices += 1
            if self.slices % SEARCH_EVERY == 0:
                self.page = software_page(self.memory)
        if self.page is None:
            return
        signature, count, ring, names, software = HEADER.unpack(self.memory.read(self.page, HEADER.size))
        if signature != SIGNATURE or not software or not 0 < ring <= MOST_RING or count < self.recorded:
            self.page, self.recorded, self.vmcs = None, 0, None  # the machine was reset, or a snapshot restored
            return
        if count == self.recorded:
            return
        at = self.page + HEADER.size
        table = self.memory.read(at, NAME.size * MOST_NAMES)
        numbers = {number: vmcs for vmcs, number, _, _ in [*NAME.iter_unpack(table)][:names]}
        at += len(table)
        offset = self.cpu.tsc - self.cpu.cycles  # the machine may have been reset
        for number in range(max(self.recorded, count - ring), count):
            place = number % ring
            tsc, _, target, _, reason, qualification, rip = SWITCH.unpack(
                self.memory.read(at + SWITCH.size * place, SWITCH.size)
            )
            if tsc == 0:  # not entered yet
                break
            (left,) = LEFT.unpack(self.memory.read(at + SWITCH.size * ring + LEFT.size * place, LEFT.size))
            self.recorded = number + 1
            left_at, entered_at = left - offset & ALL64, tsc - offset & ALL64
            if entered_at > self.cpu.cycles or (self.vmcs is not None and not self.since <= left_at <= entered_at):
                continue  # no VMM wrote that
            self.left, self.left_at = (EXIT_REASON_NAMES.get(reason), qualification, rip), left_at
            if self.timeline is not None and self.vmcs is not None:
                self.timeline.ran(self.provisional(self.vmcs), self.since, self.left_at)
            self.entered(entered_at, numbers.get(target, target))

    @staticmethod
    def provisional(vmcs: int) -> str:
        """What a VM is called until its name is known."""
        return f"VMCS {vmcs:#x}"

    def names(self) -> dict[str, str]:
        """What the VMs are called: by their VMM, or by number in the order of their first entry."""
        given = names_in(self.memory) if self.order else {}
        return {self.provisional(vmcs): given.get(vmcs, f"VM {number}") for number, vmcs in enumerate(self.order)}

    def ran(self) -> list[str]:
        """What running() has been so far, VMM first; nothing where no VM was ever entered."""
        return [VMM, *self.names().values()] if self.order else []

    def running(self) -> str:
        """What runs now: the name of a VM, VMM in VMX root operation, nothing outside VMX operation."""
        vmcs = self.cpu.vmcs.address
        if self.page is not None:  # by software VMs run in ring 3, and the VMM in ring 0
            if self.vmcs is None or self.cpu.cpl == 0:
                return VMM
            vmcs = self.vmcs
        elif vmcs is None or self.cpu.vmx_operation != "non-root":
            return "" if self.cpu.vmx_operation == "off" else VMM
        if vmcs not in self.known:
            number = self.order.index(vmcs) if vmcs in self.order else len(self.order)
            self.known[vmcs] = names_in(self.memory).get(vmcs, f"VM {number}")
        return self.known[vmcs]

    def switches(self) -> list[VmSwitch]:
        """The last KEPT switches, oldest first."""
        names = self.names()

        def name(vmcs: int) -> str:
            return names.get(self.provisional(vmcs), self.provisional(vmcs))

        return [
            VmSwitch(cycle, name(source), name(target), reason, qualification, rip)
            for cycle, source, target, reason, qualification, rip in self.raw
        ]

    def finish(self) -> None:
        """Writes the names into the timeline."""
        if self.timeline is not None:
            self.timeline.rename(self.names())
