# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The extension's face: what Python, and the chips, see of the core in emu/core.

In reading order: arguments (numbers from Python), mapping (memory from the host), clock (time, and the state of a run),
chip (parts and wires, devices in Python), memory, bus, model, processor, run (slices of guest code), hooks, registers,
cpu (the bare processor).
"""
from binascii import a2b_base64
from collections.abc import Mapping
from operator import index as operator_index
from typing import NamedTuple
from weakref import ref as weakref

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_ND,
    PyBUF_SIMPLE,
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject, PyTypeObject
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memmove, memset
from posix.mman cimport (
    MADV_DONTNEED,
    MAP_ANONYMOUS,
    MAP_FAILED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
    madvise,
    mmap,
    munmap,
)

from emu import models
from emu.errors import BadInput, ConfigError, CpuFault, EmuError, RunningError
from emu.stop import Stop, StopReason

include "face/arguments.pxi"
include "face/mapping.pxi"
include "face/clock.pxi"
include "face/chip.pxi"
include "face/memory.pxi"
include "face/bus.pxi"
include "face/model.pxi"
include "face/fpu.pxi"
include "face/vmx.pxi"
include "face/processor.pxi"
include "face/run.pxi"
include "face/hooks.pxi"
include "face/registers.pxi"
include "face/cpu.pxi"
