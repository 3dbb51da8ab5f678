"""Drivers in machine code: ports opened through configuration space, polling, interrupts, string I/O."""

from pathlib import Path

import pytest

import asm
from emu import Disk, Machine, StopReason

# Opens the primary channel, waits for the drive, then `body`, then powers off. In real mode, with DS, ES, SS = 0.
PROGRAM = """
        bits 16
        org 0
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7000
        mov eax, 0x80000904             ; device 1, function 1: command
        mov ebx, 1
        call config
        mov eax, 0x80000940             ; IDETIM
        mov ebx, 0x80008000
        call config
        mov dx, 0x1f7
        call ready
%s
off:    mov dx, 0x604
        mov ax, 0x2000
        out dx, ax
        hlt
config: mov dx, 0xcf8
        out dx, eax
        mov dx, 0xcfc
        mov eax, ebx
        out dx, eax
        ret
ready:  in al, dx                       ; not busy
        test al, 0x80
        jnz ready
        ret
; Sends command AL for AH sectors from EBX on.
send:   push ax
        mov dx, 0x1f6
        mov eax, ebx
        shr eax, 24
        or al, 0xe0
        out dx, al
        pop ax
        push ax
        mov dx, 0x1f2
        mov al, ah
        out dx, al
        inc dx
        mov al, bl
        out dx, al
        inc dx
        mov al, bh
        out dx, al
        inc dx
        mov eax, ebx
        shr eax, 16
        out dx, al
        mov dx, 0x1f7
        pop ax
        out dx, al
        ret
        times 0xfff0 - ($ - $$) db 0xff
        jmp 0xf000:0
        times 0x10000 - ($ - $$) db 0xff
"""


def machine(body: str, image: Path, **options: bool) -> Machine:
    rom = asm.assemble(PROGRAM % body, bits=16).binary
    return Machine(memory=2 << 20, cpu="pentium3", firmware=rom, disks=[Disk(image, **options)])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(b"".join(lba.to_bytes(4, "little") * 128 for lba in range(1000)))
    return path


@pytest.mark.parametrize(("letter", "words"), [("w", 256), ("d", 128)])
def test_copies_sectors_by_polling(image: Path, letter: str, words: int) -> None:
    body = f"""
        mov ebx, 300
        mov ax, 0x0420                  ; READ SECTORS, four of them
        call send
        mov di, 0x1000
        cld
        mov si, 4
.in:    mov dx, 0x1f7
        call ready
        mov dx, 0x1f0
        mov cx, {words}
        rep ins{letter}
        dec si
        jnz .in
        mov ebx, 7
        mov ax, 0x0430                  ; WRITE SECTORS
        call send
        mov si, 0x1000
        mov bp, 4
.out:   mov dx, 0x1f7
        call ready
        mov dx, 0x1f0
        mov cx, {words}
        rep outs{letter}
        dec bp
        jnz .out
        mov dx, 0x1f7
        call ready
        mov ah, 0
        mov al, 0xe7                    ; FLUSH CACHE
        out dx, al
        call ready
        out 0x80, al
"""
    before = image.read_bytes()
    with machine(body, image) as made:
        assert made.run(seconds=1).reason is StopReason.POWERED_OFF
        assert made.report(made.run(instructions=0), 1.0)["post_codes"]["last"] == [0x50]
        assert made.memory.read(0x1000, 2048) == before[300 * 512 : 304 * 512]
    after = image.read_bytes()
    assert after == before[: 7 * 512] + before[300 * 512 : 304 * 512] + before[11 * 512 :]


INTERRUPTS = """
        mov word [0x76 * 4], handler
        mov word [0x76 * 4 + 2], 0xf000
        mov al, 0x11
        out 0x20, al
        out 0xa0, al
        mov al, 0x08
        out 0x21, al
        mov al, 0x70
        out 0xa1, al
        mov al, 4
        out 0x21, al
        mov al, 2
        out 0xa1, al
        mov al, 1
        out 0x21, al
        out 0xa1, al
        mov al, 0xfb
        out 0x21, al
        mov al, 0xbf
        out 0xa1, al
        mov di, 0x1000
        mov bp, 0
        mov ebx, 500
        mov ax, 0x1020                  ; 16 sectors
        call send
        sti
.wait:  hlt
        cmp bp, 16
        jb .wait
        cli
        jmp off
handler:
        mov dx, 0x1f7
        in al, dx                       ; acknowledges
        mov dx, 0x1f0
        mov cx, 256
        cld
        rep insw
        inc bp
        mov al, 0x20
        out 0xa0, al
        out 0x20, al
        iret
"""


def test_reads_by_interrupts(image: Path) -> None:
    """IRQ14 through the ISA bridge and both interrupt controllers: one for each sector, in HLT in between."""
    with machine(INTERRUPTS, image, snapshot=True) as made:
        assert made.run(seconds=1).reason is StopReason.POWERED_OFF
        assert made.memory.read(0x1000, 8192) == image.read_bytes()[500 * 512 : 516 * 512]


def test_snapshots_hold_what_a_snapshot_disk_has_changed(image: Path) -> None:
    body = """
        mov ebx, 1
        mov ax, 0x0130
        call send
        call ready
        mov dx, 0x1f0
        mov cx, 256
        mov si, 0
        rep outsw
        mov dx, 0x1f7
        call ready
        out 0x80, al
"""
    before = image.read_bytes()
    with machine(body, image, snapshot=True) as made:
        start = made.snapshot()
        assert made.run(seconds=1).reason is StopReason.POWERED_OFF
        changed = made.disks[0].read(1, 1)
        assert changed != before[512:1024]
        end = made.snapshot()
        made.restore(start)
        assert made.disks[0].read(1, 1) == before[512:1024]
        made.restore(end)
        assert made.disks[0].read(1, 1) == changed
        made.restore(start)
        assert made.run(seconds=1).reason is StopReason.POWERED_OFF
        assert made.snapshot() == end
    assert image.read_bytes() == before


def test_command_line(image: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from emu.cli import main

    rom = tmp_path / "rom.bin"
    rom.write_bytes(asm.assemble(PROGRAM % "", bits=16).binary)
    assert main(["run", str(rom), "-m", "2M", "--disk", f"{image},snapshot", "--serial", "null"]) == 0
    odd = tmp_path / "odd.img"
    odd.write_bytes(bytes(1000))
    capfd.readouterr()
    assert main(["run", str(rom), "--disk", str(odd), "--serial", "null"]) == 2
    assert "odd.img: 1000 bytes are no disk image" in capfd.readouterr().err
    assert main(["run", str(rom), "--disk", str(image), "--disk", str(image), "--serial", "null"]) == 2
    assert "another machine uses this disk" in capfd.readouterr().err
    many = [argument for _ in range(5) for argument in ("--disk", f"{image},snapshot")]
    assert main(["run", str(rom), *many, "--serial", "null"]) == 2
    assert "5 disks: there is room for four" in capfd.readouterr().err


MEASURE = """
        rdtsc
        mov ebp, eax
        {}
        rdtsc
        sub eax, ebp
        mov [0x600], eax
"""


def duration(text: str, image: Path, setup: str = "") -> int:
    """Cycles of some instructions, by the guest's own measure."""
    with machine(setup + MEASURE.format(text), image, snapshot=True) as made:
        assert made.cpu.model.hz == 1_000_000_000
        assert made.run(seconds=1).reason is StopReason.POWERED_OFF
        return int.from_bytes(made.memory.read(0x600, 4), "little")


def test_words_take_their_time(image: Path) -> None:
    """PIO by IDETIM: compatible, fast with the slowest times, and mode 4; against a port where nobody answers."""

    def words(timing: int, port: int = 0x1F0) -> int:
        setup = f"""
            mov eax, 0x80000940
            mov ebx, 0x8000 | {timing}
            call config
            mov ebx, 1
            mov ax, 0x0120
            call send
            call ready
            mov di, 0x1000
            mov cx, 256
            cld
        """
        return duration(f"mov dx, {port}\nrep insw", image, setup)

    nobody = words(0, 0xE0)
    assert [words(timing) - nobody for timing in (0, 0x0001, 0x2301)] == [256 * 600, 256 * 270, 256 * 120]


def test_isa_accesses_take_their_time(image: Path) -> None:
    """6.5 clocks at 8.33 MHz for each byte."""
    nobody = duration("in al, 0xe0", image)
    assert duration("in al, 0x61", image) - nobody == 780
    assert duration("in ax, 0x40", image) - nobody == 2 * 780
    assert duration("out 0x21, al", image) - duration("out 0xe0, al", image) == 780


def test_no_waits_in_unit_timing() -> None:
    rom = asm.assemble(PROGRAM % "in al, 0x61", bits=16).binary
    with Machine(memory=2 << 20, firmware=rom, timing="unit") as made:
        made.run(instructions=1000)
        assert made.cycles == made.instructions
