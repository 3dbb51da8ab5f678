"""The Service OS's shell, driven through the console as a user drives it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asm
from bios.build import folders
from emu import Disk, Machine
from emu.builtin.policy import policy_nvram
from emu.host.backend import Backend

from .vmm import Vmm

MEMORY = 32 << 20


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
    rom: bytes,
    folder: Path,
    cpu: str = "westmere",
    disks: Sequence[Disk] = (),
    modem: str | Backend = "null",
    **fields: Any,
) -> Iterator[Shell]:
    """Boots to the shell; `fields` are those of the policy that differ from the built-in one."""
    nvram = policy_nvram(**{"boot": "service", "flags": ["shell"], **fields})
    with Machine(MEMORY, cpu, firmware=rom, nvram=nvram, disks=disks, modem=modem) as machine:
        yield Shell(machine, folder)


def program(source: str, folder: Path, path: Path, image: str = "service") -> bytes:
    """Assembles a source that may include what an image of bios/ includes. `path`: a file for it."""
    path.write_text(source)
    return asm.assemble_file(path, include=folders(image, folder)).binary
