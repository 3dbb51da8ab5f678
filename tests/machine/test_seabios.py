"""A PC firmware that we did not write: SeaBIOS finds the chipset and the disks, and boots from one of them."""

from pathlib import Path

import pytest

import asm
from emu import Disk, Machine, StopReason

FOLDER = Path("/usr/share/seabios")  # Debian's package `seabios`
PM1_CNT = 0xB004  # where SeaBIOS puts the power management block

# Reads the second sector by its LBA and the third by cylinder, head and sector, shows both, writes the fourth.
BOOT = f"""
        bits 16
        org 0x7c00
start:  xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        mov [drive], dl
        mov si, greeting
        call show
        mov ah, 0x42
        mov si, packet
        int 0x13
        jc failed
        mov si, 0x8000
        call show
        mov ax, 0x0201
        mov cx, 0x0003
        mov dx, [drive]
        mov bx, 0x9000
        int 0x13
        jc failed
        mov si, 0x9000
        call show
        mov ax, 0x0301
        mov cx, 0x0004
        mov dx, [drive]
        mov bx, 0x9000
        int 0x13
        jc failed
        mov dx, {PM1_CNT}
        mov ax, 0x2000
        out dx, ax
failed: mov al, '!'
        out dx, al
        jmp $
show:   lodsb
        or al, al
        jz .end
        mov dx, 0x402
        out dx, al
        jmp show
.end:   mov dl, [drive]
        ret
drive:  dw 0
packet: db 16, 0, 1, 0
        dw 0x8000, 0
        dq 1
greeting: db "booted ", 0
        times 510 - ($ - $$) db 0
        dw 0xaa55
        db "by address ", 0
        times 1024 - ($ - $$) db 0
        db "and by cylinder", 0
        times 1536 - ($ - $$) db 0
"""


@pytest.mark.parametrize(
    ("name", "cpu"), [("bios.bin", "westmere"), ("bios-256k.bin", "westmere"), ("bios-256k.bin", "pentium3")]
)
def test_boots_from_a_disk(name: str, cpu: str, tmp_path: Path) -> None:
    if not (FOLDER / name).exists():
        pytest.skip(f"{FOLDER / name} is not installed")
    image = tmp_path / "boot.img"
    image.write_bytes(asm.assemble(BOOT, bits=16).binary.ljust(4 << 20, b"\0"))
    second = tmp_path / "second.img"
    second.write_bytes(bytes(1 << 20))
    disks = [Disk(image), Disk(second, snapshot=True), Disk(second, readonly=True)]
    with Machine(cpu=cpu, firmware=FOLDER / name, debugcon=0x402, disks=disks) as machine:
        stop = machine.run(seconds=20, timeout=60)
        assert machine.debugcon is not None
        log = machine.debugcon.output.decode()
    assert stop.reason is StopReason.POWERED_OFF, log
    for line in (
        "RamSize: 0x04000000",
        "PCI: init bdf=00:00.0 id=8086:1237",
        "PCI: init bdf=00:01.0 id=8086:7110",
        "PCI: init bdf=00:01.1 id=8086:7111",
        "PCI: init bdf=00:01.3 id=8086:7113",
        "Using pmtimer, ioport 0xb008",
        "ata0-0: EMU HARD DISK ATA-6 Hard-Disk (4 MiBytes)",
        "ata0-1: EMU HARD DISK ATA-6 Hard-Disk (1 MiBytes)",
        "ata1-0: EMU HARD DISK ATA-6 Hard-Disk (1 MiBytes)",
        "Booting from Hard Disk",
    ):
        assert line in log
    assert log.endswith("booted by address and by cylinder")
    assert image.read_bytes()[3 * 512 :].startswith(b"and by cylinder")


@pytest.mark.parametrize(
    ("name", "cpu"), [("bios.bin", "westmere"), ("bios-256k.bin", "pentium3"), ("bios.bin", "prescott")]
)
def test_without_a_disk_and_without_a_display_adapter(name: str, cpu: str) -> None:
    """It gets through to its boot menu, which waits for Escape, and says that there is nothing to boot."""
    if not (FOLDER / name).exists():
        pytest.skip(f"{FOLDER / name} is not installed")
    with Machine(cpu=cpu, firmware=FOLDER / name, debugcon=0x402) as machine:
        assert machine.debugcon is not None
        machine.run(seconds=1.5, timeout=60)
        waiting = machine.snapshot()
        assert machine.debugcon.output.endswith(b"\nPress ESC for boot menu.\n\n")
        assert machine.run(seconds=8, timeout=60).reason is StopReason.LIMIT
        log = machine.debugcon.output
        assert b"No VGA found" in log and log.endswith(b"No bootable device.  Retrying in 60 seconds.\n")
        machine.restore(waiting)
        machine.keyboard.press("esc")
        machine.run(seconds=0.5, timeout=60)
        assert machine.debugcon.output.endswith(b"Select boot device:\n\n")


def test_a_386_lacks_an_instruction_that_it_needs() -> None:
    """SeaBIOS asks for a 486: WBINVD is #UD before it (SDM Vol. 2, WBINVD, IA-32 Architecture Compatibility)."""
    if not (FOLDER / "bios.bin").exists():
        pytest.skip(f"{FOLDER / 'bios.bin'} is not installed")
    with Machine(cpu="i386", firmware=FOLDER / "bios.bin") as machine:
        assert machine.run(seconds=10, timeout=60).reason is StopReason.TRIPLE_FAULT
        assert machine.cpu.disassemble(machine.cpu.cs.base + machine.cpu.rip)[0][2] == "wbinvd"
