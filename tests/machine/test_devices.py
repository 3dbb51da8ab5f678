"""A user's own device on the board."""

from typing import Any

import pytest
from roms import POWER_OFF, rom

import emu

# The device of the README.
README_DEVICE = '''
import emu

class Dice(emu.Device):
    """Port 0x300: write how many faces, read a throw; IRQ 5 when it has landed, 1000 cycles later."""

    def reset(self):
        self.throw = 1

    def write(self, port, faces, size):
        self.throw = self.clock.cycle % max(faces, 1) + 1
        self.schedule(0, self.clock.cycle + 1000)

    def read(self, port, size):
        self.lower_irq()
        return self.throw

    def event(self, id):
        self.raise_irq()

    def save(self):
        return {"throw": self.throw}

    def load(self, state):
        self.throw = state["throw"]
'''
# Unmasks IRQ 5, throws, waits for the interrupt, writes the throw to port 80h and powers off.
README_GUEST = (
    """
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7000
        mov word [13 * 4], landed
        mov word [13 * 4 + 2], cs
        mov al, 0x11
        out 0x20, al
        mov al, 8
        out 0x21, al
        mov al, 4
        out 0x21, al
        mov al, 1
        out 0x21, al
        mov al, 0xdf
        out 0x21, al
        mov dx, 0x300
        mov al, 20
        out dx, al
        sti
        hlt
"""
    + POWER_OFF
    + """
landed: mov dx, 0x300
        in al, dx
        out 0x80, al
        mov al, 0x20
        out 0x20, al
        iret
"""
)


def test_a_device_in_a_few_lines() -> None:
    names: dict[str, Any] = {}
    exec(README_DEVICE, names)
    lines = [line for line in README_DEVICE.split("class")[1].splitlines() if line.strip()]
    assert len(lines) <= 16
    with emu.Machine(memory=1 << 20, firmware=rom(README_GUEST)) as machine:
        dice = names["Dice"]()
        machine.attach(dice, ports=range(0x300, 0x301), irq=5)
        assert machine.run(instructions=1000).reason is emu.StopReason.POWERED_OFF
        assert [code for _, code in machine.board.post.codes] == [dice.throw]
        assert 1 <= dice.throw <= 20


class Memo(emu.Device):
    """Notes every access; what it answers can be set."""

    def __init__(self, *_: object, **__: object) -> None:
        self.log: list[tuple[object, ...]] = []
        self.answer = 0

    def reset(self) -> None:
        self.log = [("reset",)]

    def read(self, address: int, size: int) -> int:
        self.log.append(("read", address, size))
        return self.answer

    def write(self, address: int, value: int, size: int) -> None:
        self.log.append(("write", address, value, size))


def machine_with(body: str, device: emu.Device, **where: Any) -> emu.Machine:
    machine = emu.Machine(memory=2 << 20, firmware=rom(body))
    machine.attach(device, **where)
    return machine


def test_ports_of_every_size() -> None:
    memo = Memo()
    memo.answer = 0x42
    body = """mov dx, 0x300
        in al, dx
        in ax, dx
        in eax, dx
        mov eax, 0x11223344
        out dx, al
        out dx, ax
        out dx, eax
        mov dx, 0x303
        in ax, dx
        hlt"""
    machine_with(body, memo, ports=range(0x300, 0x304)).run(instructions=20)
    assert memo.log[1:] == [
        ("read", 0x300, 1), ("read", 0x300, 2), ("read", 0x300, 4),
        ("write", 0x300, 0x44, 1), ("write", 0x300, 0x3344, 2), ("write", 0x300, 0x11223344, 4),
        ("read", 0x303, 1),  # a wide access is split where the owner changes
    ]  # fmt: skip


def test_memory_mapped() -> None:
    memo = Memo()
    memo.answer = 0x99
    body = """mov ax, 0xd000
        mov ds, ax
        mov al, [0x12]
        mov ax, [0x14]
        mov eax, [0x18]
        mov dword [0x10], 0x55667788
        hlt"""
    machine = machine_with(body, memo, mmio=range(0xD0010, 0xD0020))
    machine.run(instructions=20)
    assert memo.log[1:] == [
        ("read", 0xD0012, 1), ("read", 0xD0014, 2), ("read", 0xD0018, 4), ("write", 0xD0010, 0x55667788, 4),
    ]  # fmt: skip
    assert machine.cpu.eax == 0x99


def test_memory_mapped_over_ram() -> None:
    """Whole pages of RAM can be taken over; a part of a page cannot, since RAM is accessed a page at a time."""
    memo = Memo()
    memo.answer = 0x77
    body = "xor ax, ax\nmov ds, ax\nmov al, [0x5008]\nmov bl, [0x6000]\nhlt"
    machine = machine_with(body, memo, mmio=range(0x5000, 0x6000))
    machine.memory.write(0x6000, b"\x33")
    machine.run(instructions=10)
    assert (machine.cpu.al, machine.cpu.bl) == (0x77, 0x33)
    with pytest.raises(emu.ConfigError, match="whole pages"):
        machine.attach(Memo(), mmio=range(0x7010, 0x7020))


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ({"ports": 0x3F8}, "port 0x3f8 belongs to com1"),
        ({"ports": range(0x2FE, 0x100)}, "nothing to do"),
        ({"ports": [0x300, 0x80]}, "port 0x80 belongs to post"),
        ({"ports": 0x10000}, "0xffff"),
        ({"ports": -1}, "0xffff"),
        ({"irq": 4}, "IRQ 4"),
        ({"irq": 2}, "IRQ 2"),
        ({"irq": 16}, "IRQ 16"),
        ({"irq": -1}, "IRQ -1"),
        ({"mmio": range(0)}, "no range"),
        ({"mmio": range(0x1000, 0x2000, 2)}, "no range"),
        ({"mmio": range(-1, 0x2000)}, "no range"),
        ({"mmio": range(1 << 64, (1 << 64) + 1)}, "no range"),
    ],
)
def test_places_that_it_cannot_have(where: dict[str, Any], says: str) -> None:
    machine = emu.Machine(memory=1 << 20)
    with pytest.raises(emu.ConfigError, match=says):
        machine.attach(Memo(), **where)
    machine.attach(Memo(), ports=0x300, irq=5)  # what failed has taken nothing


def test_a_device_belongs_to_one_machine() -> None:
    first, second, memo = emu.Machine(memory=1 << 20), emu.Machine(memory=1 << 20), Memo()
    first.attach(memo, ports=0x300)
    first.attach(memo, ports=0x310)
    assert memo.log == [("reset",)]
    with pytest.raises(emu.ConfigError, match="another machine"):
        second.attach(memo, ports=0x300)
    with pytest.raises(TypeError, match=r"no emu\.Device"):
        second.attach(object(), ports=0x300)  # type: ignore[arg-type]


def test_two_of_a_kind_have_names_of_their_own() -> None:
    machine = emu.Machine(memory=1 << 20)
    devices = [Memo(), Memo(), Memo(name="mine")]
    for number, device in enumerate(devices):
        machine.attach(device, ports=0x300 + number)
    assert [device.name for device in devices] == ["Memo", "Memo-2", "mine"]


def test_a_board_reset_resets_it() -> None:
    memo = Memo()
    machine = machine_with("mov dx, 0x300\nout dx, al\nmov al, 6\nmov dx, 0xcf9\nout dx, al\njmp $", memo, ports=0x300)
    machine.run(instructions=5)
    assert memo.log[0] == ("reset",) and len(memo.log) <= 2


def test_dma_and_interrupt_controller_reach_it() -> None:
    """A device is also reached by other masters, and hears of wires."""
    memo = Memo()
    machine = machine_with("hlt", memo, mmio=range(0xD0000, 0xD1000))
    memo.answer = 5
    assert machine.board.bus.read(0xD0000, 2) == b"\5\5"
    machine.board.bus.write(0xD0100, b"ab")
    assert memo.log[1:] == [
        ("read", 0xD0000, 1), ("read", 0xD0001, 1), ("write", 0xD0100, 97, 1), ("write", 0xD0101, 98, 1),
    ]  # fmt: skip
