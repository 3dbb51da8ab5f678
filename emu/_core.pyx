# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, embedsignature=False
"""The extension's face: what Python, and the chips, see of the core in emu/core.

Read in this order: clock (time, and the state of a run), chip (parts and wires, devices in Python), memory, bus.
"""

cimport cython

from emu.errors import BadInput, ConfigError, CpuFault, EmuError, RunningError

cdef extern from "emu/core/cpu.h" nogil:
    enum:
        REQUEST_STOP
    void cpu_pulse(CPU *cpu, uint32_t request)

include "face/clock.pxi"
include "face/chip.pxi"
include "face/memory.pxi"
include "face/bus.pxi"
