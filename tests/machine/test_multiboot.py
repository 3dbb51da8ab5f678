"""Multiboot 1 kernels: what is loaded where, the state that they find, and files that are none."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

import asm
import emu
from emu.cli import main
from emu.multiboot import load_kernel

# Sends the command line and the modules' texts and contents to port E9h, then leaves by port F4h with 0 in AL if all of
# the state is as the specification has it, else the number of what is not.
KERNEL = """
bits 32
org 0x100000
header: dd 0x1BADB002, FLAGS, -(0x1BADB002 + FLAGS)
        dd header, 0x100000, END, BSS, start
start:  mov ebp, 1
        cmp eax, 0x2BADB002
        jne fail
        inc ebp
        mov eax, cr0
        and eax, 0x80000001
        cmp eax, 1
        jne fail
        inc ebp
        pushfd
        pop eax
        test eax, 0x20200               ; VM, IF
        jnz fail
        inc ebp
        mov al, [0xfffffff0]            ; flat, to the top
        mov ax, cs
        mov ecx, ss
        mov ds, ecx
        jmp 8:next
next:   inc ebp
        mov byte [0x200000], 1          ; A20 is open: 1 MiB below, nothing changes
        cmp byte [0x100000], 0x02
        jne fail
        inc ebp
        mov esi, bss
        mov ecx, BSS - END
zeros:  cmp byte [esi], 0
        jne fail
        inc esi
        loop zeros
        inc ebp
        test dword [ebx], 1
        jz fail
        cmp dword [ebx + 4], 639
        jne fail
        cmp dword [ebx + 8], 15 * 1024
        jne fail
        inc ebp
        test dword [ebx], 64            ; the memory map: add up what is available
        jz fail
        mov ecx, [ebx + 44]
        mov esi, [ebx + 48]
        add ecx, esi
        xor edi, edi
map:    cmp dword [esi + 20], 1
        jne .other
        add edi, [esi + 12]
.other: add esi, [esi]
        add esi, 4
        cmp esi, ecx
        jb map
        cmp edi, (15 << 20) + 639 * 1024
        jne fail
        mov esi, [ebx + 16]
        call print
        mov ecx, [ebx + 20]
        mov edi, [ebx + 24]
module: jecxz done
        mov esi, [edi + 8]
        call print
        mov esi, [edi]
        test esi, 0xfff
        jnz fail
.copy:  cmp esi, [edi + 4]
        je .end
        lodsb
        out 0xe9, al
        jmp .copy
.end:   add edi, 16
        dec ecx
        jmp module
done:   xor eax, eax
        out 0xf4, al
        hlt
fail:   mov eax, ebp
        out 0xf4, al
        hlt
print:  lodsb
        out 0xe9, al
        test al, al
        jnz print
        ret
bss:
END     equ $
BSS     equ END + 5000
"""


def kludge(flags: int = 0x10003) -> bytes:
    """The kernel as a flat file with addresses in its header."""
    return asm.assemble(KERNEL, bits=32, defines={"FLAGS": flags}).binary


def elf(
    code: bytes, address: int = 0x100000, entry: int = 0x100020, virtual: int | None = None, size: int = 0
) -> bytes:
    """An ELF32 file of one segment, with a symbol table that names its entry."""
    virtual = address if virtual is None else virtual
    symbols = bytes(16) + struct.pack("<3I2BH", 1, entry, 0, 0x12, 0, 1)
    names = b"\0kernel_entry\0"
    symbols_at = 0x1000 + len(code)
    sections_at = symbols_at + len(symbols) + len(names)
    sections = [
        bytes(40),
        struct.pack("<10I", 0, 2, 0, 0, symbols_at, len(symbols), 2, 1, 4, 16),
        struct.pack("<10I", 0, 3, 0, 0, symbols_at + len(symbols), len(names), 0, 0, 1, 0),
    ]
    header = struct.pack(
        "<16s2H5I6H", b"\x7fELF\1\1\1", 2, 3, 1, entry, 52, sections_at, 0, 52, 32, 1, 40, len(sections), 2
    )
    segment = struct.pack("<8I", 1, 0x1000, virtual, address, len(code), size or len(code) + 5000, 7, 0x1000)
    return (header + segment).ljust(0x1000, b"\0") + code + symbols + names + b"".join(sections)


def boot(path: Path, image: bytes, *options: str) -> int:
    path.write_bytes(image)
    fixed = [
        "--kernel",
        str(path),
        "-m",
        "16M",
        "--serial",
        "null",
        "--debug-exit",
        "0xf4",
        "--debugcon",
        "0xe9:-",
        "-q",
    ]
    return main(["run", *fixed, *options])


@pytest.mark.parametrize("kind", ["kludge", "elf"])
def test_the_state_that_a_kernel_finds(tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str) -> None:
    image = kludge() if kind == "kludge" else elf(kludge(3))
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"one")
    second.write_bytes(b"two" * 2000)
    path = tmp_path / "kernel"
    status = boot(path, image, "--append", "a=1 b", "--initrd", f"{first} with text,{second}")
    assert status == 1, f"step {status >> 1} failed"
    assert capfd.readouterr().out == f"{path} a=1 b\0{first} with text\0one{second}\0" + "two" * 2000


def test_without_options(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert boot(tmp_path / "kernel", kludge()) == 1
    assert capfd.readouterr().out == f"{tmp_path}/kernel\0"


@pytest.mark.skipif(shutil.which("qemu-system-i386") is None, reason="qemu-system-i386 is not installed")
def test_another_loader_boots_the_same_kernel(tmp_path: Path) -> None:
    """What the kernel above expects is what it also finds elsewhere (QEMU says 640 KiB of lower memory)."""
    (tmp_path / "kernel").write_bytes(elf(kludge(3)))
    (tmp_path / "module").write_bytes(b"one")
    done = subprocess.run(
        ["qemu-system-i386", "-kernel", "kernel", "-append", "a=1", "-initrd", "module x", "-m", "16",
         "-display", "none",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-debugcon", "file:out", "-net", "none", "-serial", "null"],
        cwd=tmp_path, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == (7 << 1 | 1)  # every step before the memory's size
    with emu.Machine(memory=16 << 20, kernel=tmp_path / "kernel", debug_exit=0xF4) as machine:
        assert machine.run(seconds=1).status == 1


def test_an_entry_in_a_segment_that_is_linked_elsewhere(tmp_path: Path) -> None:
    """A kernel linked high: the entry is a linear address, and moves with its segment to the physical one."""
    code = asm.assemble("dd 0x1BADB002, 0, -0x1BADB002\ntimes 20 db 0\nmov al, 7\nout 0xf4, al", bits=32).binary
    assert boot(tmp_path / "kernel", elf(code, entry=0xC0100020, virtual=0xC0100000)) == 15
    assert boot(tmp_path / "kernel", elf(code, entry=0x100020, virtual=0xC0100000)) == 15


def test_symbols_stop_a_run(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(elf(kludge(3)))
    with emu.Machine(memory=16 << 20, kernel=tmp_path / "kernel") as machine:
        assert machine.symbols["kernel_entry"] == 0x100020
        assert machine.run(until="kernel_entry", instructions=10).reason is emu.StopReason.BREAKPOINT
        assert machine.instructions == 0 and machine.cpu.eax == 0x2BADB002


def test_a_reset_boots_it_again(tmp_path: Path) -> None:
    code = "dd 0x1BADB002, 0, -0x1BADB002\ntimes 20 db 0\nmov al, 0x55\nout 0x80, al\n"
    code += "mov dx, 0xcf9\nmov al, 6\nout dx, al\njmp $"
    (tmp_path / "kernel").write_bytes(elf(asm.assemble(code, bits=32).binary))
    with emu.Machine(memory=16 << 20, kernel=tmp_path / "kernel") as machine:
        machine.run(instructions=20)
        assert machine.board.post.count > 3


def test_a_snapshot_knows_its_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("kernel").write_bytes(elf(kludge(3)))
    first = emu.Machine(memory=16 << 20, kernel="kernel")
    first.run(instructions=20)
    snapshot = first.snapshot()
    emu.Machine(memory=16 << 20, kernel="kernel").restore(snapshot)
    with pytest.raises(emu.BadInput, match="kernel"):
        emu.Machine(memory=16 << 20, kernel="kernel", append="other").restore(snapshot)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (bytes(100), "no multiboot header"),
        (bytes(8192) + kludge(), "no multiboot header in its first 8192 bytes"),
        (struct.pack("<3I", 0x1BADB002, 0, 5), "no multiboot header"),
        (kludge(0x10013), "asks for"),
        (kludge()[:20], "truncated in its multiboot header"),
        (kludge()[:60], "do not fit a file of 60 bytes"),
        (kludge(3), "neither an ELF file"),
        (elf(kludge(3))[:0x1100], "truncated"),
        (elf(kludge(3))[:4] + b"\2" + elf(kludge(3))[5:], "not one of 32 bits"),
        (elf(kludge(3), address=64 << 20), "does not fit 16 MiB"),
        (elf(kludge(3), size=0xFFFFFFFF), "does not fit 16 MiB"),
        (elf(kludge(3), address=0xA0000), "does not fit"),
        (elf(kludge(3), address=0x8000), "no room for the boot information"),
        (elf(kludge(3), size=4), "truncated"),
        (elf(kludge(3))[:44] + b"\0\0" + elf(kludge(3))[46:], "nothing to load"),
    ],
)
def test_files_that_are_no_kernel(tmp_path: Path, capfd: pytest.CaptureFixture[str], image: bytes, says: str) -> None:
    assert boot(tmp_path / "kernel", image) == 2
    err = capfd.readouterr().err
    assert says in err and "kernel" in err and err.count("\n") == 1


def test_modules_that_cannot_be(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "large").open("wb") as large:
        large.truncate(20 << 20)
    for module, says in (("nosuch", "nosuch: No such file"), (f"{tmp_path}/large", "does not fit 16 MiB")):
        assert boot(tmp_path / "kernel", kludge(), "--initrd", module) == 2
        assert says in capfd.readouterr().err


def test_a_command_line_that_is_too_long(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(kludge())
    with pytest.raises(emu.ConfigError, match="no room"):
        emu.Machine(memory=16 << 20, kernel=tmp_path / "kernel", append="x" * 1_000_000)


def test_truncated_anywhere_nothing_but_an_error(tmp_path: Path) -> None:
    image = elf(kludge(3))
    refused = 0
    for end in [*range(1, 0x60), *range(0x1000, len(image), 97)]:
        (tmp_path / "kernel").write_bytes(image[:end])
        try:
            load_kernel(tmp_path / "kernel")
        except emu.BadInput:
            refused += 1
    assert refused > 0x60
