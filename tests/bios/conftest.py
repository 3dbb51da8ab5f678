"""The images of bios/, built once a worker."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from bios.build import build_firmware


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
