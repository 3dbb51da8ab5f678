"""The Service OS's shell, driven through the console as a user drives it."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emu import Machine

from .vmm import Vmm, vmm_symbols

MEMORY = 32 << 20
SHELL = 1 << 5  # POLICY_SHELL
BANK = 128  # of the CMOS RAM: the extended one, which has the policy
AFTER_STAY, AFTER_RESUME, AFTER_RESTART, AFTER_STOP = range(4)
SIZES = {"flags": 2, "idle_bytes": 2, "poll_us": 4, "exceptions": 4}  # bytes of a field of struc policy; the others: 1


def policy(vmm: bytes, folder: Path, **fields: int | bytes) -> bytes:
    """The built-in policy with other fields, as the CMOS RAM holds it. `vmm`: the VMM's image."""
    symbols = vmm_symbols(folder)
    at = symbols["policy_default"] - symbols["VMM_BASE"]
    made = bytearray(vmm[at : at + symbols["policy_size"]])
    for name, value in fields.items():
        content = value if isinstance(value, bytes) else value.to_bytes(SIZES.get(name, 1), "little")
        offset = symbols[f"policy.{name}"]
        made[offset : offset + len(content)] = content
    struct.pack_into("<I", made, symbols["policy.crc"], zlib.crc32(made[symbols["policy.time"] :]))
    return bytes(made)


class Shell:
    """A machine that has reached the shell."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.vmm = Vmm(machine, folder)
        self.before = self.wait()

    def wait(self, wanted: str = "\r\n> ", seconds: float = 20) -> str:
        """What the console says up to a text, the shell's prompt unless given."""
        return self.machine.serial.expect(wanted.encode(), seconds=seconds).decode()

    def type(self, keys: bytes) -> str:
        """What the shell says to keys, up to its prompt."""
        self.machine.serial.send(keys)
        return self.wait()

    def do(self, line: str) -> str:
        """What a command prints, without its echo and the prompt."""
        said = self.type(line.encode() + b"\r")
        assert said.startswith(line + "\r\n") and said.endswith("\r\n> "), said
        return said[len(line) + 2 : -2].replace("\r", "")


@contextmanager
def shell(
    rom: bytes, vmm: bytes, folder: Path, cpu: str = "westmere", memory: int = MEMORY, **fields: int | bytes
) -> Iterator[Shell]:
    """Boots to the shell; `fields` are those of the policy that differ from the built-in one."""
    with Machine(memory, cpu, firmware=rom) as machine:
        nvram = bytearray(machine.board.rtc.nvram)
        stored = policy(vmm, folder, **{"flags": SHELL, **fields})
        nvram[BANK : BANK + len(stored)] = stored
        machine.board.rtc.nvram = bytes(nvram)
        yield Shell(machine, folder)
