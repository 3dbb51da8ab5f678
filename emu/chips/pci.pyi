"""Stub of pci.pyx, which says what the part is."""

from emu.chips.part import Part

class PciFunction(Part):
    def read_config(self, offset: int, size: int = 1) -> int: ...
    def write_config(self, offset: int, value: int, size: int = 1) -> None: ...
