"""Stub of ps2_device.pyx, which says what the part is."""

from emu.chips.part import Part

class Ps2Device(Part): ...
