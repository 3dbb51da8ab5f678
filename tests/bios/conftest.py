"""The images of bios/, built once a worker."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bios.build import build_firmware
from emu import Machine

from .vmm import Vmm

MEMORY = 32 << 20
SECONDS = 5


class Built(NamedTuple):
    """What the build writes: the folder, and the POST codes' meanings."""

    folder: Path
    meanings: dict[str, str]

    def rom(self, name: str = "firmware") -> bytes:
        """A flash chip's content."""
        return (self.folder / f"{name}.bin").read_bytes()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("bios")
    build_firmware(folder)
    return Built(folder, json.loads((folder / "post_codes.json").read_text()))


class Story:
    """A whole run of the built-in firmware."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.stop = machine.run(seconds=SECONDS)
        self.console = machine.serial.output.decode()
        self.vmm = Vmm(machine, folder)
        self.switches = self.vmm.switches()

    def line(self, wanted: str) -> int:
        """The number of the console's line that has a text."""
        return next(n for n, line in enumerate(self.console.splitlines()) if wanted in line)


@pytest.fixture(scope="module")
def story(built: Built) -> Iterator[Story]:
    with Machine(MEMORY, "westmere", firmware=built.rom()) as machine:
        yield Story(machine, built.folder)
