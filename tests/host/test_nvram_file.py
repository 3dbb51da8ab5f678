"""The file that keeps the CMOS RAM."""

from pathlib import Path

import pytest

from emu import BadInput, ConfigError, Machine
from emu._core import Model
from emu.board import Board
from emu.host.nvram_file import NvramFile

MIB = 1 << 20


def test_made_when_missing_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "nvram"
    with Machine(memory=64 * MIB, nvram=path) as machine:
        machine.board.bus.port_write(0x70, 0x40)
        machine.board.bus.port_write(0x71, 0xA5)
        assert not path.exists()
    assert path.stat().st_size == 256
    assert [found.name for found in tmp_path.iterdir()] == ["nvram"]
    with Machine(memory=32 * MIB, nvram=path) as machine:
        kept = machine.board.rtc.nvram
    assert (kept[0x40], kept[0x30:0x32]) == (0xA5, (31 << 10).to_bytes(2, "little"))


def test_of_a_wrong_size(tmp_path: Path) -> None:
    path = tmp_path / "nvram"
    for size in (0, 255, 257):
        path.write_bytes(bytes(size))
        with pytest.raises(BadInput, match="not 256 bytes"):
            Machine(nvram=path)
        assert path.stat().st_size == size


def test_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        Machine(nvram=tmp_path / "missing" / "nvram")
    with pytest.raises(BadInput, match="directory"):
        NvramFile(tmp_path, 256).load()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="cannot write"):
        NvramFile(tmp_path / "folder", 256).save(bytes(256))
    assert [found.name for found in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("memory", "fields"),
    [
        (MIB, "8002 0000 0000 000000"),
        (16 * MIB, "8002 003c 0000 000000"),
        (64 * MIB, "8002 00fc 0003 000000"),
        (5 << 30, "8002 ffff 00bf 008000"),
    ],
)
def test_memory_size(memory: int, fields: str) -> None:
    data = Board(Model("pentium3"), memory, bytes(4096)).rtc.nvram
    assert data[0x17:0x19] == data[0x30:0x32]
    assert data[0x15:0x17] + data[0x17:0x19] + data[0x34:0x36] + data[0x5B:0x5E] == bytes.fromhex(fields)
