"""The PC's schematic: a line a chip, a line an address range, a line a wire.

Memory map (82371AB and 82441FX practice): RAM below 640 KiB; the display's text memory at B8000h; the last 128 KiB of
the ROM below 1 MiB; RAM from 1 MiB; the whole ROM below 4 GiB; RAM that found no room below that from 4 GiB. The host
bridge can uncover the RAM from A0000h to FFFFFh instead (PAM, SMRAM).

PCI bus 0: device 0 the host bridge; device 1 the PIIX4, as its functions ISA bridge, IDE and power management.
"""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

from emu._core import READ, ROM, BoardCpu, Bus, Chip, Clock, Device, Memory, Model, Pins
from emu.bmc.bmc import Bmc
from emu.chips.a20_gate import A20Gate
from emu.chips.ata import Ata
from emu.chips.bmc_kcs import BmcKcs
from emu.chips.debug_exit import DebugExit
from emu.chips.debugcon import DebugCon
from emu.chips.i440fx import I440fx
from emu.chips.i8042 import I8042
from emu.chips.i8254 import I8254
from emu.chips.i8259 import I8259
from emu.chips.mc146818 import MC146818
from emu.chips.piix4_ide import Piix4Ide
from emu.chips.piix4_isa import Piix4Isa
from emu.chips.piix4_pm import Piix4Pm
from emu.chips.port61 import Port61
from emu.chips.port92 import Port92
from emu.chips.post import Post
from emu.chips.power_supply import PowerSupply
from emu.chips.ps2_keyboard import Ps2Keyboard
from emu.chips.reset_control import ResetControl
from emu.chips.uart16550 import Uart16550
from emu.chips.vga import Vga
from emu.errors import BadInput, ConfigError, EmuError
from emu.snapshot import plain

if TYPE_CHECKING:  # not imported where no disk is
    from emu.host.disk import Disk

__all__ = ["PM_BASE", "Board"]

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
LOW_RAM = 640 * KIB
LOW_ROM = 128 * KIB
RAM_END = 3 * GIB  # of RAM below 4 GiB; above it lie devices and the ROM
ROM_MOST = 16 * MIB
MEMORY_MOST = 1 << 40  # what Memory takes
PM_BASE = 0x600  # PMBA after reset, until firmware moves it


class Board:
    """A PC: processor, RAM, ROM and chips, wired. `reset` is power-on; nothing runs before it.

    Args:
        model: the processor.
        memory: RAM in bytes: whole MiB, at least one.
        rom: the firmware image; ends at 4 GiB. A multiple of 4 KiB, at most 16 MiB.
        debugcon, debug_exit: I/O ports of the two chips that no PC has, or None.
        nvram: what the CMOS RAM held before, 256 bytes; the sizes of the memory are put in anew.
        disks: the drives, at most four: two on the primary channel, then two on the secondary one.

    Raises:
        ConfigError: memory of such a size, two chips at one port, or more than four disks.
        BadInput: an image of such a size.
    """

    def __init__(
        self,
        model: Model,
        memory: int,
        rom: bytes,
        *,
        debugcon: int | None = None,
        debug_exit: int | None = None,
        nvram: bytes | None = None,
        disks: Sequence["Disk"] = (),
    ) -> None:
        if not isinstance(memory, SupportsIndex) or memory < MIB or memory % MIB or memory > MEMORY_MOST:
            raise ConfigError(f"{memory!r} bytes of memory: not whole MiB, or not within 1 MiB to 1 TiB")
        if len(disks) > 4:
            raise ConfigError(f"{len(disks)} disks: there is room for four")
        self.taken_irqs = {2}  # the second interrupt controller's
        self.attached: list[dict[str, object]] = []
        self.clock = clock = Clock(model.hz, wait_states=model.timing != "unit")
        self.bus = bus = Bus(clock)
        self.cpu = cpu = BoardCpu(bus, model)
        self.memory = Memory(memory)
        self.rom = rom_memory(rom)
        self.map_memory()

        # The parts.
        self.pic1 = I8259(clock, "pic1", master=True, elcr_mask=0xF8)
        self.pic2 = I8259(clock, "pic2", master=False, elcr_mask=0xDE)
        self.pit = I8254(clock, "pit")
        self.port61 = Port61(clock, "port61", self.pit)
        self.rtc = MC146818(clock, "rtc")
        self.rtc.nvram = with_memory_size(nvram or self.rtc.nvram, memory)
        self.keyboard = Ps2Keyboard(clock, "keyboard")
        self.kbc = I8042(clock, "kbc", self.keyboard)
        self.com1 = Uart16550(clock, "com1")
        self.com2 = Uart16550(clock, "com2")
        self.vga = Vga(clock, "vga", bus)
        self.bmc = Bmc(clock, "bmc")
        self.kcs = BmcKcs(clock, "kcs", self.bmc)
        self.bmc.attend = self.kcs.set_attention
        self.power_supply = PowerSupply(clock, "power_supply")
        self.post = Post(clock, "post")
        self.a20 = A20Gate(clock, "a20", bus)
        self.port92 = Port92(clock, "port92")
        self.reset_control = ResetControl(clock, "reset_control")
        self.bridge = I440fx(clock, "bridge", bus, self.reset_control)
        self.isa = Piix4Isa(clock, "isa")
        self.ide = Piix4Ide(clock, "ide")
        self.drives = [Ata(clock, f"disk{place}", disk, place & 1) for place, disk in enumerate(disks)]
        self.pm = Piix4Pm(clock, "pm", bus, PM_BASE)
        self.debugcon = DebugCon(clock, "debugcon") if debugcon is not None else None
        self.debug_exit = DebugExit(clock, "debug_exit") if debug_exit is not None else None
        self.chips: list[Chip] = [
            self.pic1, self.pic2, self.pit, self.port61, self.rtc, self.keyboard, self.kbc, self.com1, self.com2,
            self.bmc, self.kcs, self.power_supply, self.vga, self.post, self.a20, self.port92, self.reset_control,
            self.bridge, self.isa, self.ide, self.pm, *self.drives, *filter(None, (self.debugcon, self.debug_exit)),
        ]  # fmt: skip

        # Where they answer.
        bus.map_ports(0x020, 2, self.pic1)
        bus.map_ports(0x040, 4, self.pit)
        bus.map_ports(0x060, 1, self.kbc)
        bus.map_ports(0x061, 1, self.port61)
        bus.map_ports(0x064, 1, self.kbc)
        bus.map_ports(0x070, 4, self.rtc)
        bus.map_ports(0x080, 1, self.post)
        bus.map_ports(0x092, 1, self.port92)
        bus.map_ports(0x0A0, 2, self.pic2)
        bus.map_ports(0x0B2, 2, self.pm)
        bus.map_ports(0x170, 8, self.ide)
        bus.map_ports(0x1F0, 8, self.ide)
        bus.map_ports(0x2F8, 8, self.com2)
        bus.map_ports(0x376, 1, self.ide)
        bus.map_ports(0x3B0, 12, self.vga)
        bus.map_ports(0x3C0, 32, self.vga)
        bus.map_ports(0x3F6, 1, self.ide)
        bus.map_ports(0x3F8, 8, self.com1)
        bus.map_ports(0x4D0, 1, self.pic1)
        bus.map_ports(0x4D1, 1, self.pic2)
        bus.map_ports(0xCA2, 2, self.kcs)
        bus.map_ports(0xCF8, 8, self.bridge)  # with the reset control at CF9h behind it
        if self.debugcon is not None and debugcon is not None:
            bus.map_ports(debugcon, 1, self.debugcon)
        if self.debug_exit is not None and debug_exit is not None:
            bus.map_ports(debug_exit, 4, self.debug_exit)

        # The PCI bus.
        self.bridge.attach(1, 0, self.isa)
        self.bridge.attach(1, 1, self.ide)
        self.bridge.attach(1, 3, self.pm)
        self.bridge.route(self.memory)  # after everything else is mapped: what it uncovers lies on top

        # The IDE cables.
        for place, drive in enumerate(self.drives):
            self.ide.attach(place >> 1, drive)

        # The wires.
        self.pic1.connect("INT", cpu.pins, Pins.INTR)
        self.pic1.connect("CAS", self.pic2, I8259.CAS)
        self.pic2.connect("INT", self.pic1, 2)
        for number in range(16):
            if number != 2:
                self.isa.connect(f"IRQ{number}", self.pic1 if number < 8 else self.pic2, number & 7)
        self.pit.connect("OUT0", *self.irq(0))
        self.keyboard.connect("READY", self.kbc, 0)
        self.kbc.connect("IRQ1", *self.irq(1))
        self.kbc.connect("IRQ12", *self.irq(12))
        self.kbc.connect("A20", self.a20, 1)
        self.kbc.connect("RC", cpu.pins, Pins.INIT)
        self.com1.connect("INTR", *self.irq(4))
        self.com2.connect("INTR", *self.irq(3))
        self.rtc.connect("IRQ", *self.irq(8))
        self.rtc.connect("IRQ8", self.pm, 1)
        self.rtc.connect("NMI_DISABLE", self.port61, 2)
        self.pm.connect("SCI", *self.irq(9))
        self.bmc.connect("RESET", cpu.pins, Pins.RESET)
        self.bmc.connect("POWER_OFF", self.power_supply, 0)
        self.bmc.connect("PWRBTN", self.pm, 0)
        self.ide.connect("IRQ14", *self.irq(14))
        self.ide.connect("IRQ15", *self.irq(15))
        self.port61.connect("GATE2", self.pit, 2)
        self.port61.connect("NMI", cpu.pins, Pins.NMI)
        self.port92.connect("A20", self.a20, 0)
        self.port92.connect("INIT", cpu.pins, Pins.INIT)
        self.reset_control.connect("INIT", cpu.pins, Pins.INIT)
        self.reset_control.connect("RESET", cpu.pins, Pins.RESET)
        cpu.interrupt_controller(self.pic1)
        cpu.on_reset(self.reset)
        self.reset()

    def map_memory(self) -> None:
        """RAM and ROM in the processor's address space."""
        size, rom, bus = len(self.memory), len(self.rom), self.bus
        low_rom = min(rom, LOW_ROM)
        bus.map_memory(0, self.memory, 0, LOW_RAM)
        bus.map_memory(MIB - low_rom, self.rom, rom - low_rom, low_rom, READ | ROM)
        if size > MIB:
            bus.map_memory(MIB, self.memory, MIB, min(size, RAM_END) - MIB)
        if size > RAM_END:
            bus.map_memory(4 * GIB, self.memory, RAM_END, size - RAM_END)
        bus.map_memory(4 * GIB - rom, self.rom, 0, rom, READ | ROM)

    def irq(self, number: int) -> tuple[Chip, int]:
        """The chip and input line that ISA interrupt request `number` ends at, taken from now on.

        Raises:
            ConfigError: it is not within 0 to 15.
        """
        if not 0 <= number < 16:
            raise ConfigError(f"IRQ {number}: not within 0 to 15")
        self.taken_irqs.add(number)
        return (self.isa, number)

    def attach(self, device: Device, ports: Sequence[int], mmio: range | None, irq: int | None) -> None:
        """Puts a user's device on the board, as Machine.attach() says."""
        if not ports and mmio is None and irq is None and not hasattr(device, "event"):
            raise ConfigError(f"{device.name}: without ports, mmio and irq it would have nothing to do")
        if irq is not None and (irq in self.taken_irqs or not 0 <= irq <= 15):
            raise ConfigError(f"{device.name}: IRQ {irq} belongs to another chip, or is not within 0 to 15")
        if mmio is not None and not (
            isinstance(mmio, range) and mmio.step == 1 and 0 <= mmio.start < mmio.stop <= 1 << 64
        ):
            raise ConfigError(f"{device.name}: mmio={mmio!r} is no range of addresses, such as range(0xd0000, 0xd1000)")
        if odd := [port for port in ports if not isinstance(port, int)]:
            raise TypeError(f"{device.name}: port {odd[0]!r} is no number")
        if wrong := [port for port in ports if not 0 <= port <= 0xFFFF]:
            raise ConfigError(f"{device.name}: port {wrong[0]:#x} is not within 0 to 0xffff")
        self.clock.adopt(device)
        is_new = not any(chip is device for chip in self.chips)
        with contextlib.ExitStack() as undo:
            for port in ports:
                self.bus.map_ports(port, 1, device)
                undo.callback(self.bus.unmap_ports, port, 1)
            if mmio is not None:
                undo.callback(self.bus.unmap, self.bus.map_device(mmio.start, len(mmio), device))
            if is_new:
                device.reset()
            undo.pop_all()
        if irq is not None:
            device.connect(device.outputs[0], *self.irq(irq))  # which hears of a level that reset() has set
        if is_new:
            self.chips.append(device)
        where = None if mmio is None else [mmio.start, mmio.stop]
        self.attached.append({"device": device.name, "ports": list(ports), "mmio": where, "irq": irq})

    def save(self) -> dict[str, dict[str, Any]]:
        """The state of every chip and device, by name.

        Raises:
            EmuError: a user's device cannot be saved.
        """
        chips = {chip.name: saved_chip(chip) for chip in self.chips}
        if len(chips) != len(self.chips):
            raise EmuError("two chips of one name: give the devices names of their own")
        return chips

    def load(self, chips: dict[str, dict[str, Any]]) -> None:
        """Takes what save() gave.

        Raises:
            BadInput: it is of other chips, or malformed.
        """
        if set(chips) != {chip.name for chip in self.chips}:
            raise BadInput("the snapshot's chips are not those of this machine")
        for chip in self.chips:
            state = chips[chip.name]
            if isinstance(chip, Device):
                chip.load_levels(state["levels"])
                state = plain(state["device"], chip.name)
            chip.load(state)

    def reset(self) -> None:
        """Power-on, and the reset line: RAM, the clock's battery-backed side and the POST codes stay.

        Raises:
            RunningError: the machine runs in another thread, or an instruction is under way; nothing has changed.
        """
        self.cpu.reset()  # refuses before any chip is touched
        for chip in self.chips:
            chip.reset()
        self.cpu.reset()


def saved_chip(chip: Chip) -> dict[str, Any]:
    """The state of a chip; of a user's device that of its wires besides."""
    if not isinstance(chip, Device):
        return chip.save()
    if type(chip).save is Chip.save or type(chip).load is Chip.load:
        raise EmuError(f"{chip.name}: a device needs the methods save and load before the machine can be saved")
    return {"device": plain(chip.save(), chip.name), "levels": chip.save_levels()}


def with_memory_size(nvram: bytes, memory: int) -> bytes:
    """CMOS RAM that says how much memory there is, where firmware looks: the PC/AT's bytes, and those that emulated PCs
    added for more than 64 MiB (34h, 5Bh)."""
    data = bytearray(nvram)
    extended = min((memory - MIB) // KIB, 0xFFFF)
    data[0x15:0x17] = (LOW_RAM // KIB).to_bytes(2, "little")
    data[0x17:0x19] = data[0x30:0x32] = extended.to_bytes(2, "little")
    data[0x34:0x36] = (max(min(memory, RAM_END) - 16 * MIB, 0) // (64 * KIB)).to_bytes(2, "little")
    data[0x5B:0x5E] = (max(memory - RAM_END, 0) // (64 * KIB)).to_bytes(3, "little")
    return bytes(data)


def rom_memory(image: bytes) -> Memory:
    """The ROM chip that holds an image."""
    if not image or len(image) % (4 * KIB) or len(image) > ROM_MOST:
        raise BadInput(f"a ROM image of {len(image)} bytes: not a multiple of 4 KiB, or more than 16 MiB")
    rom = Memory(len(image))
    rom.write(0, image)
    return rom
