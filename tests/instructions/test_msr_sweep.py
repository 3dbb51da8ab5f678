"""RDMSR and WRMSR of every register number in reach with extreme values: #GP(0) or a result, on every model.

SDM Vol. 2, "RDMSR", "WRMSR"; SDM Vol. 4, "Model-Specific Registers (MSRs)".
"""

import pytest

import asm
import emu
import emu.models

NUMBERS = [*range(0x2000), *range(0xC0000000, 0xC0002000), *range(0x40000000, 0x40000200),
           0x7FFFFFFF, 0x80000000, 0xBFFFFFFF, 0xC0010000, 0xC0011029, 0xFFFFFFFF]  # fmt: skip
VALUES = [0, 1, (1 << 64) - 1, 1 << 63, 0x8000_0000_0000, 0x5555_5555_5555_5555, 0xFFFF_FFFF]
CODE = 0x1000


class Registers:
    """RDMSR and WRMSR at CPL 0; None stands for #GP(0)."""

    def __init__(self, model: str) -> None:
        self.cpu = emu.Cpu(bits=32, cpu=model, memory=1 << 16)
        self.cpu.load(CODE, bytes(asm.assemble("rdmsr\nwrmsr", bits=32).binary))

    def execute(self, rip: int, number: int, value: int) -> int | None:
        cpu = self.cpu
        cpu.rip, cpu.ecx, cpu.eax, cpu.edx = rip, number, value & 0xFFFFFFFF, value >> 32
        try:
            cpu.step()
        except emu.CpuFault as fault:
            assert (fault.name, fault.error_code) == ("#GP", 0)
            return None
        assert cpu.rip == rip + 2
        return int(cpu.edx) << 32 | int(cpu.eax)

    def read(self, number: int) -> int | None:
        return self.execute(CODE, number, 0)

    def write(self, number: int, value: int) -> bool:
        return self.execute(CODE + 2, number, value) is not None


@pytest.mark.parametrize("model", [name for name in emu.models.names() if name != "i386"])
def test_every_register_number(model: str) -> None:
    """What can be written can be read; a write that faults changes nothing, one that does not is read back."""
    registers = Registers(model)
    for number in NUMBERS:
        before = registers.read(number)
        if before is None and number == 0x79:  # IA32_BIOS_UPDT_TRIG can only be written; no update is taken
            assert all(registers.write(number, value) for value in VALUES) and registers.read(number) is None
            continue
        if before is None:
            assert not any(registers.write(number, value) for value in (VALUES[0], VALUES[2])), hex(number)
            continue
        for value in VALUES:
            written = registers.write(number, value)
            after = registers.read(number)
            if number == 0x10:  # IA32_TIME_STAMP_COUNTER counts on
                assert written
            elif written:
                assert after == value, hex(number)
                before = after
            else:
                assert after == before, hex(number)
        registers.write(number, before)


def test_the_386_has_neither() -> None:
    registers = Registers("i386")
    for rip in (CODE, CODE + 2):
        registers.cpu.rip = rip
        with pytest.raises(emu.CpuFault) as fault:
            registers.cpu.step()
        assert fault.value.name == "#UD"
