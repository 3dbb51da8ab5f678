"""A cycle-level x86 PC in a Python process.

What is listed here is imported when it is first asked for, so that `import emu` costs next to nothing.
"""

TYPE_CHECKING = False  # typing's own would cost a start most of its time before emu/__main__.py is reached
if TYPE_CHECKING:
    from typing import Any

    from emu._core import Bus, Chip, Clock, Cpu, Device, Memory
    from emu.errors import BadInput, ConfigError, CpuFault, DiskError, EmuError, RunningError
    from emu.host.disk import Disk
    from emu.machine import Machine
    from emu.snapshot import Snapshot
    from emu.stop import Stop, StopReason

__all__ = [
    "BadInput",
    "Bus",
    "Chip",
    "Clock",
    "ConfigError",
    "Cpu",
    "CpuFault",
    "Device",
    "Disk",
    "DiskError",
    "EmuError",
    "Machine",
    "Memory",
    "RunningError",
    "Snapshot",
    "Stop",
    "StopReason",
]

_HOME = {
    **dict.fromkeys(("Bus", "Chip", "Clock", "Cpu", "Device", "Memory"), "emu._core"),
    **dict.fromkeys(("BadInput", "ConfigError", "CpuFault", "DiskError", "EmuError", "RunningError"), "emu.errors"),
    "Disk": "emu.host.disk",
    "Machine": "emu.machine",
    "Snapshot": "emu.snapshot",
    **dict.fromkeys(("Stop", "StopReason"), "emu.stop"),
}


def __getattr__(name: str) -> "Any":
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
