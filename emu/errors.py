"""Every error that emu raises on purpose.

All derive from EmuError. Where an argument itself is wrong (a value out of range, the wrong type) the usual ValueError
or TypeError is raised, as Python's own types do.
"""

__all__ = ["BadInput", "ConfigError", "CpuFault", "DiskError", "EmuError", "RunningError"]


class EmuError(Exception):
    """Base class of emu's errors."""


class ConfigError(EmuError, ValueError):
    """What was asked for cannot be built: an unknown model, a port that another chip has, a bad size."""


class BadInput(EmuError):
    """A file or other input from outside is missing, truncated or malformed."""


class DiskError(EmuError):
    """A sector could not be read or written. The drive reports it to the guest; a user sees it only on his own access.

    Attributes:
        lba: the sector.
        kind: "uncorrectable", "not_found", "write_fault" or "read_only".
    """

    def __init__(self, lba: int, kind: str, detail: str = "") -> None:
        super().__init__(lba, kind, detail)
        self.lba = lba
        self.kind = kind
        self.detail = detail

    def __str__(self) -> str:
        text = f"sector {self.lba}: {self.kind.replace('_', ' ')}"
        return f"{text}: {self.detail}" if self.detail else text


class RunningError(EmuError):
    """A running machine was entered again, or touched in a way that must wait until it stops."""


class CpuFault(EmuError):
    """The processor raised an exception that was to be reported instead of delivered (`faults="raise"`).

    Nothing that the faulting instruction was to change has changed. SDM Vol. 3, "Exception and Interrupt Reference".

    Attributes:
        vector: number of the exception, 0 to 31.
        name: its mnemonic, such as "#GP".
        error_code: the error code, or None where the exception has none, as every one in real-address mode.
        address: the linear address that faulted, of a page fault; otherwise None.
        rip: RIP of the instruction.
    """

    def __init__(self, vector: int, name: str, error_code: int | None, address: int | None, rip: int) -> None:
        super().__init__(vector, name, error_code, address, rip)
        self.vector = vector
        self.name = name
        self.error_code = error_code
        self.address = address
        self.rip = rip

    def __str__(self) -> str:
        text = self.name if self.error_code is None else f"{self.name}({self.error_code:#x})"
        if self.address is not None:
            text += f" for linear address {self.address:#x}"
        return f"{text} at RIP {self.rip:#x}"
