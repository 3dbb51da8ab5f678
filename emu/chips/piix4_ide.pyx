# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Intel 82371AB (PIIX4), function 1: the IDE controller.

Datasheet 290562, "IDE Controller Register Descriptions (PCI Function 1)". There is no bus master: BMIBA is wired to 0.
"""
from libc.stdint cimport uint8_t

from emu._core cimport Clock
from emu.chips.part cimport Fields
from emu.chips.pci cimport PCI_CMD, PCI_CMD_IOSE, PCI_MLT, PCI_STS, PciFunction

cdef enum:
    IDETIM = 0x40           # one word a channel


cdef class Piix4Ide(PciFunction):
    """The IDE controller's PCI side."""

    def __cinit__(self, Clock clock not None, str name not None="piix4_ide"):
        self.name = name
        self.identify(0x7111, 1, 0x010180)
        self.define(PCI_CMD, 2, 0x0000, PCI_CMD_IOSE | 4)   # BME is kept, though there is no bus master
        self.define(PCI_STS, 2, 0x0280, 0, 0x3800)
        self.define(PCI_MLT, 1, 0x00, 0xF0)
        self.define(IDETIM, 2, 0x0000, 0xF3FF)
        self.define(IDETIM + 2, 2, 0x0000, 0xF3FF)
        self.define(0x44, 1, 0x00, 0xFF)                    # SIDETIM
        self.define(0x48, 1, 0x00, 0x0F)                    # UDMACTL
        self.define(0x4A, 2, 0x0000, 0x3333)                # UDMATIM

    cdef int fields(self, Fields f) except -1:
        return self.config_fields(f)
