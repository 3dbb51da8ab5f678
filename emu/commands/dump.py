"""`emu dump`: fetches a guest's dump from the Host Protected Area of a disk image."""

import argparse
from pathlib import Path

from emu.builtin.service_disk import Dump, read_dump
from emu.errors import BadInput
from emu.host.output_file import OutputFile

__all__ = ["dump"]

# EVENT_... of bios/include/vm_abi.inc: what made the Service OS write the dump.
EVENTS = {
    0: "the user asked for it", 1: "access to protected memory", 2: "access outside the VM's memory", 3: "triple fault",
    4: "power off", 5: "HLT with interrupts off", 6: "unhandled VM exit", 8: "exception", 9: "external interrupt",
    10: "I/O port", 11: "hang", 12: "hotkey", 13: "remote command", 14: "disk command that failed", 16: "reset",
}  # fmt: skip


def dump(options: argparse.Namespace) -> int:
    """Writes the core file, or says what there is."""
    found = read_dump(options.disk)
    if options.list:
        print(f"{options.disk}: {describe(found)}")
        return 0
    if not found.complete:
        raise BadInput(f"{options.disk}: the dump was begun and never ended")
    with OutputFile(options.output or Path(options.disk).with_suffix(".core").name) as output:
        output.write(found.core)
        output.finish()
    return 0


def describe(found: Dump) -> str:
    """A dump in a line."""
    event = EVENTS.get(found.event, f"event {found.event}")
    state = "complete" if found.complete else "NOT COMPLETE"
    return f"VM {found.vm}, {event}, time-stamp counter {found.tsc}, {len(found.core)} bytes, {state}"
