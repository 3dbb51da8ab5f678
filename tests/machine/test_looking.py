"""Looking at a machine and talking to it: disassembly, symbols, linear memory, the serial console."""

import io
from pathlib import Path

import pytest
from roms import BUSY, POWER_OFF, rom, source

import asm
import emu
from emu.debug.disassemble import listing
from emu.debug.symbols import load_debug_info
from emu.debug.trace import Trace

UART = "mov dx, 0x3fb\nmov al, 3\nout dx, al\nmov dx, 0x3f8\n"
# Prints a prompt, and each character that it gets one higher.
ECHO = (
    "mov sp, 0x7000\n"
    + UART
    + """
next:   mov al, '>'
        call send
        mov dx, 0x3fd
look:   in al, dx
        test al, 1
        jz look
        mov dx, 0x3f8
        in al, dx
        inc al
        call send
        jmp next
send:   mov bl, al
        mov dx, 0x3fd
.wait:  in al, dx
        test al, 0x20
        jz .wait
        mov dx, 0x3f8
        mov al, bl
        out dx, al
        ret
"""
)


def test_disassembly_at_the_instruction_pointer() -> None:
    machine = emu.Machine(memory=1 << 20, firmware=rom("mov ax, 0x1234\nadd [bx+si], al\nhlt"))
    assert machine.cpu.disassemble(0xFFFFFFF0) == [(0xFFFFFFF0, bytes.fromhex("ea000000f0"), "jmp 0xf000:0")]
    machine.run(instructions=1)
    la = machine.cpu.cs.base + machine.cpu.rip
    assert [text for _, _, text in machine.cpu.disassemble(la, 3)] == ["mov ax, 0x1234", "add [bx+si], al", "hlt"]
    assert machine.cpu.disassemble(la, 0) == []
    assert len(machine.cpu.disassemble(0x1000, 5000)) == 5000
    with pytest.raises(ValueError, match="count is at most 1,048,576, not 1,099,511,627,776"):
        machine.cpu.disassemble(0x1000, 1 << 40)


@pytest.mark.parametrize(("bits", "last"), [(16, (1 << 32) - 1), (32, (1 << 32) - 1), (64, (1 << 64) - 1)])
def test_disassembly_goes_on_at_zero_after_the_last_address(bits: int, last: int) -> None:
    cpu = emu.Cpu(bits=bits)
    cpu.memory.write(0, bytes.fromhex("c0 90 c3"))  # where nothing answers all is FFh: FF C0 is INC AX, EAX
    register = "ax" if bits == 16 else "eax"
    assert cpu.disassemble(last, 3) == [
        (last, b"\xff\xc0", f"inc {register}"), (1, b"\x90", "nop"), (2, b"\xc3", "ret"),
    ]  # fmt: skip
    assert cpu.disassemble(last - 1)[0][0] == last - 1


def test_branches_name_offsets_in_the_code_segment() -> None:
    machine = emu.Machine(memory=1 << 20, firmware=rom("jmp 0x1234:0x10"))
    machine.memory.write(0x12350, b"\xeb\xfe\xe9\x00\x10")
    machine.run(instructions=2)
    assert machine.cpu.disassemble(0x12350, 2) == [
        (0x12350, b"\xeb\xfe", "jmp short 0x10"),
        (0x12352, b"\xe9\x00\x10", "jmp near 0x1015"),
    ]


def test_disassembly_ends_where_nothing_is_mapped() -> None:
    cpu = emu.Cpu(memory=1 << 20)
    cpu.memory.write(0x10000, (0x11003).to_bytes(4, "little"))
    cpu.memory.write(0x11000, (0x0003).to_bytes(4, "little"))
    cpu.memory.write(0xFFE, b"\x90\xb8")
    cpu.cr3 = 0x10000
    cpu.cr0 |= 1 << 31
    assert cpu.translate(0xFFF) == 0xFFF and cpu.translate(0x1000) is None
    assert [text for _, _, text in cpu.disassemble(0xFFE, 10)] == ["nop", "db 0xb8"]
    assert cpu.disassemble(0x1000, 1) == []
    assert cpu.read_linear(0xFFE, 2) == b"\x90\xb8"
    with pytest.raises(ValueError, match="0x1000 is not mapped"):
        cpu.read_linear(0xFFE, 3)


def test_registers_take_what_fits_and_nothing_else() -> None:
    cpu = emu.Machine(memory=1 << 20).cpu
    cpu.rax = 0xFFFFFFFFFFFFFFFF
    cpu.eax = 5
    assert cpu.rax == 5
    cpu.ax = 0xFFFF
    assert cpu.rax == 0xFFFF
    for name, value in (
        ("eax", -1),
        ("eax", 1 << 32),
        ("rip", -1),
        ("rflags", -2),
        ("cr0", -1),
        ("cr0", 1 << 31),
        ("al", 256),
    ):
        with pytest.raises(ValueError):
            setattr(cpu, name, value)
    with pytest.raises(TypeError):
        cpu.eax = "1"  # type: ignore[assignment]
    assert cpu.rax == 0xFFFF


def test_until_the_symbol_of_a_source(tmp_path: Path) -> None:
    path = tmp_path / "boot.asm"
    path.write_text(source("mov cx, 3\nagain: inc ax\nloop again\ndone: jmp done"))
    with emu.Machine(memory=1 << 20, firmware=path) as machine:
        assert machine.symbols["start"] == 0xF0000
        assert machine.run(until="done", instructions=100).reason is emu.StopReason.BREAKPOINT
        assert machine.cpu.cs.base + machine.cpu.rip == machine.symbols["done"] and machine.instructions == 8
        with pytest.raises(ValueError, match="no symbol 'agian'; there are: again"):
            machine.run(until="agian")


def test_until_symbols_that_were_given() -> None:
    with emu.Machine(memory=1 << 20, firmware=rom("nop\nnop\njmp $"), symbols={"here": 0xF0001}) as machine:
        assert machine.run(until="here", instructions=100).reason is emu.StopReason.BREAKPOINT
        assert machine.cpu.rip == 1


def test_until_a_predicate() -> None:
    with emu.Machine(memory=1 << 20, firmware=rom("again: inc ecx\njmp again")) as machine:
        stop = machine.run(until=lambda m: m.cpu.ecx >= 10, instructions=1000)
        assert stop.reason is emu.StopReason.BREAKPOINT and machine.cpu.ecx == 10
        machine.run(until=lambda m: m.cpu.ecx >= 1000, every=500)
        assert machine.cpu.ecx == 1000 + (10 - 1000) % 250
        assert machine.run(until=lambda m: False, instructions=77).reason is emu.StopReason.LIMIT


def test_symbol_files(tmp_path: Path) -> None:
    program = asm.assemble("org 0x7c00\nstart: nop\nagain: jmp again\nvalue equ 5")
    (tmp_path / "a.map").write_text(program.map)
    known = load_debug_info(tmp_path / "a.map")
    assert known.symbols == {"start": 0x7C00, "again": 0x7C01} and known.origin == 0x7C00
    (tmp_path / "nm.txt").write_text("00100020 T start\n         U other\n00101000 b data\n")
    assert load_debug_info(tmp_path / "nm.txt").symbols == {"start": 0x100020, "data": 0x101000}
    (tmp_path / "no.txt").write_text("hello\n")
    with pytest.raises(emu.BadInput, match=r"no\.txt: no symbols"):
        load_debug_info(tmp_path / "no.txt")


def test_source_lines(tmp_path: Path) -> None:
    (tmp_path / "t.asm").write_text("org 0x7c00\nbits 16\nstart: mov ax, 5\n  times 2 nop\n  jmp start\n")
    known = load_debug_info(tmp_path / "t.asm")
    code = asm.assemble_file(tmp_path / "t.asm").binary
    lines = list(listing(code, 16, known.origin, known.symbols, known.lines))
    assert [line.removeprefix(f"; {tmp_path}/") for line in lines if line.startswith(";")] == [
        "t.asm:3: start: mov ax, 5", "t.asm:4: times 2 nop", "t.asm:5: jmp start"
    ]  # fmt: skip
    assert lines[0] == "start:" and lines[2].endswith("mov ax, 5") and lines[-1].endswith(" ; start")


def test_source_lines_in_a_trace(tmp_path: Path) -> None:
    (tmp_path / "t.asm").write_text(
        "bits 16\nstart: mov ax, 5\n hlt\n times 0fff0h-($-$$) db 0\n jmp 0f000h:start\n times 10000h-($-$$) db 0\n"
    )
    text = io.StringIO()
    with (
        emu.Machine(memory=1 << 20, firmware=tmp_path / "t.asm") as machine,
        Trace(machine.cpu, text, symbols=machine.symbols, lines=machine.source_lines),
    ):
        machine.run(instructions=2)
    found = [line.rsplit(" ; ", 1)[1] for line in text.getvalue().splitlines() if " ; " in line]
    assert found[-1] == f"{tmp_path}/t.asm:2"


def test_a_label_begins_an_instruction() -> None:
    lines = list(listing(bytes.fromhex("b8909090c3"), 16, 0x100, {"inner": 0x102}))
    assert [line.split(None, 2)[-1] for line in lines] == ["db 0xb8", "nop", "inner:", "nop", "nop", "ret"]
    assert lines[0].startswith("00000100  B8 ")


def test_expect_and_send() -> None:
    with emu.Machine(memory=1 << 20, firmware=rom(ECHO)) as machine:
        assert machine.serial.expect(b">") == b">"
        machine.serial.send(b"AB")
        assert machine.serial.expect(b"C") == b"B>C"
        assert machine.serial.expect(b">") == b">"
        assert machine.serial.output == b">B>C>"
        with pytest.raises(emu.EmuError, match=r"b'x' did not come: the run ended \(limit\)"):
            machine.serial.expect(b"x", seconds=0.01)
        with pytest.raises(ValueError, match="empty"):
            machine.serial.expect(b"")


def test_expect_stops_at_the_same_instruction_each_time() -> None:
    places = set()
    for _ in range(3):
        with emu.Machine(memory=1 << 20, firmware=rom(BUSY)) as machine:
            machine.serial.expect(b"\x86", seconds=1)
            places.add((machine.instructions, machine.cycles))
    assert len(places) == 1


def test_expect_says_how_the_run_ended() -> None:
    machine = emu.Machine(memory=1 << 20, firmware=rom(UART + "mov al, 'x'\nout dx, al\n" + POWER_OFF))
    with machine, pytest.raises(emu.EmuError, match=r"powered_off"):
        machine.serial.expect(b"never")


def test_the_history_is_bounded() -> None:
    body = "mov dx, 0x3fb\nmov al, 0x83\nout dx, al\nmov dx, 0x3f8\nmov ax, 1\nout dx, ax\n"
    body += "mov dx, 0x3fb\nmov al, 3\nout dx, al\n"
    body += "mov dx, 0x3f8\nagain: mov al, 'a'\nout dx, al\nmov cx, 50000\nloop $\njmp again"
    with emu.Machine(memory=1 << 20, firmware=rom(body)) as machine:
        machine.serial.history.limit = 100
        machine.run(seconds=0.1)
        assert len(machine.serial.output) == 100 and machine.serial.history.lost > 100


def test_a_machine_as_the_built_in_firmware_leaves_it() -> None:
    with emu.Machine() as machine:
        assert machine.run().reason is emu.StopReason.POWERED_OFF
        assert machine.memory.array.sum() > 0 and not machine.memory.array.flags.writeable
        assert machine.cpu.bits == 32 and machine.cpu.translate(0x1000) == 0x1000
