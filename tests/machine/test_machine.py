"""The machine and its command line, on small ROMs."""

import json
from pathlib import Path

import pytest

import asm
from emu import BadInput, ConfigError, Machine, StopReason
from emu.cli import main
from emu.machine import parse_size

PM1_CNT = 0x604
START = "bits 16\norg 0\nstart:\n"
END = "\ntimes 0xfff0 - ($ - $$) db 0xff\njmp 0xf000:start\ntimes 0x10000 - ($ - $$) db 0xff\n"
POWER_OFF = f"mov dx, {PM1_CNT}\nmov ax, 0x2000\nout dx, ax\n"


def rom(body: str) -> bytes:
    """A 64 KiB image whose `body` runs at reset, in segment F000h."""
    return asm.assemble(START + body + END, bits=16).binary


def test_a_guest_that_powers_off() -> None:
    with Machine(memory=1 << 20, firmware=rom("mov al, 0x42\nout 0x80, al\n" + POWER_OFF + "hlt")) as machine:
        stop = machine.run(instructions=1000)
        report = machine.report(stop, 1.0)
    assert stop.reason is StopReason.POWERED_OFF
    assert report["post_codes"] == {"count": 1, "last": [0x42]}
    assert report["instructions"] == machine.instructions > 5


def test_serial_output_reaches_the_host() -> None:
    body = "mov dx, 0x3fb\nmov al, 3\nout dx, al\nmov dx, 0x3f8\nmov al, 'x'\nout dx, al\njmp $"
    with Machine(memory=1 << 20, firmware=rom(body)) as machine:
        machine.run(seconds=0.01)
        assert machine.serial.output == b"x"


@pytest.mark.parametrize(
    ("body", "options", "status"),
    [
        (POWER_OFF + "hlt", [], 0),
        ("mov al, 3\nout 0xf4, al\nhlt", ["--debug-exit", "0xf4"], 7),
        ("jmp $", ["--max-instructions", "100000"], 4),
        ("jmp $", ["--max-seconds", "60"], 4),
        ("cli\nhlt", [], 4),
        ("lidt [cs:none]\nint3\nnone: dw 0, 0, 0", [], 6),
    ],
)
def test_exit_status(tmp_path: Path, body: str, options: list[str], status: int) -> None:
    image, report = tmp_path / "image.rom", tmp_path / "report.json"
    image.write_bytes(rom(body))
    assert main(["run", str(image), "-m", "1M", "--serial", "null", "--report", str(report), *options]) == status
    assert json.loads(report.read_text())["instructions"] >= 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch.rom"], "nosuch.rom"),
        (["--cpu", "nosuch"], "nosuch"),
        (["-m", "12Q"], "12Q"),
        (["-m", "1000"], "whole MiB"),
        (["--serial", "smoke"], "smoke"),
    ],
)
def test_bad_arguments_give_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    image = tmp_path / "image.rom"
    image.write_bytes(rom("hlt"))
    assert main(["run", *([str(image)] if arguments[0].startswith("-") else []), *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_a_truncated_image_is_refused() -> None:
    with pytest.raises(BadInput, match="4 KiB"):
        Machine(memory=1 << 20, firmware=bytes(1000))


def test_sizes() -> None:
    assert [parse_size(text) for text in ("64M", "512k", "1G", "4096")] == [64 << 20, 512 << 10, 1 << 30, 4096]
    with pytest.raises(ConfigError):
        parse_size("")


def test_two_lines_cannot_have_one_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--serial", "stdio", "--modem", "stdio"]) == 2
    assert "stdio" in capsys.readouterr().err


def test_modem_and_keyboard_reach_the_guest() -> None:
    """An echo on COM2, and a key's scan code on COM1."""
    body = """
        mov al, 0xae            ; opens the keyboard's port
        out 0x64, al
        mov dx, 0x3fb
        mov al, 3
        out dx, al
        mov dx, 0x2fb
        out dx, al
next:   in al, 0x64
        test al, 1
        jz line
        in al, 0x60
        mov dx, 0x3f8
        out dx, al
line:   mov dx, 0x2fd
        in al, dx
        test al, 1
        jz next
        mov dx, 0x2f8
        in al, dx
        out dx, al
        jmp next
"""
    with Machine(memory=1 << 20, firmware=rom(body)) as machine:
        assert machine.serial.expect(b"\xaa") == b"\xaa"
        machine.keyboard.type("a")
        assert machine.serial.expect(b"\x9e") == b"\x1e\x9e"
        snapshot = machine.snapshot()
        machine.modem.send(b"hello")
        assert machine.modem.expect(b"hello") == b"hello"
        machine.restore(snapshot)
        assert machine.modem.output == b""


def test_screen() -> None:
    """What a guest stores at B8000h, from a store that the processor's fast path made."""
    body = "mov ax, 0xb800\nmov es, ax\nmov word [es:0], 0x1e41\nmov word [es:2], 0x0742\njmp $"
    with Machine(memory=1 << 20, firmware=rom(body)) as machine:
        machine.run(instructions=100)
        assert (machine.screen.text, machine.screen.cells[0][0]) == ("AB", ("A", 0x1E))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--display", "terminal", "--serial", "stdio"], "only one of them can have the terminal"),
        (["--display", "terminal"], "standard output is no terminal"),
    ],
)
def test_who_has_the_terminal(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *arguments]) == 2
    assert says in capsys.readouterr().err
