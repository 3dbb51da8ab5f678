"""Stub of isa8.pyx, which says what the part is."""

from emu.chips.part import Part

class Isa8(Part): ...
