"""The names of the Python interface that programs of others rely on, used as they would use them."""

import threading
from pathlib import Path
from typing import Any

import numpy
import pytest
from roms import POWER_OFF, rom

import asm
import emu

GUEST = """
        mov dx, 0x3fb
        mov al, 3
        out dx, al
        mov dx, 0x3f8
        mov al, '>'
        out dx, al
        call sent
        mov al, ' '
        out dx, al
        call sent
        mov cx, 50000           ; time for expect() to see it
        loop $
        mov dx, 0x300
        in al, dx
"""
SENT = """
sent:   mov dx, 0x3fd
.wait:  in al, dx
        test al, 0x40
        jz .wait
        mov dx, 0x3f8
        ret
"""

MACHINE = """
disk = emu.Disk("guest.img", snapshot=True)
with emu.Machine(memory=64 << 20, cpu="westmere", timing="static", firmware=rom, disks=[disk]) as m:
    stop = m.run(instructions=None, cycles=None, seconds=0.000001, timeout=None, until=None, every=None)
    stop.reason, stop.status
    m.cpu.eax, m.cpu.rip, m.cpu.rflags, m.cpu.cr0
    m.cpu.cs.selector, m.cpu.cs.base, m.cpu.cs.limit
    m.cpu.ds.load(0x1000)
    m.cpu.read_linear(0xF0000, 16), m.cpu.translate(0xF0000), m.cpu.disassemble(0xF0000, 3)
    m.memory.read(0, 16), m.memory.write(0, b"data"), m.memory.array, m.memory.view(writable=True)
    m.cycles, m.instructions, m.exits["EPT_VIOLATION"].count, m.exits["EPT_VIOLATION"].cycles, m.switches, m.vmcs
    m.serial.output, m.serial.send(b""), m.serial.expect(b"> ", seconds=5), m.keyboard.type("..."), m.screen.text
    s = m.snapshot(); m.restore(s); s.save("x.snap"); emu.Snapshot.load("x.snap")
    m.attach(device, ports=range(0x300, 0x308), mmio=None, irq=5)
    hook = m.hook("memory", write, range(0x1000, 0x2000)); hook.remove()
    m.stop()
    final = m.run(seconds=5)
"""

PROCESSOR = """
c = emu.Cpu(bits=32, memory=1 << 20)
c.load(0x1000, asm.assemble("add eax, ebx", bits=32).binary)
c.eax, c.ebx = 1, 2
stepped = c.step()
first = c.eax
c.load(0x2000, asm.assemble("inc eax\\nhlt", bits=32).binary)
halted = c.run(instructions=None, until=None)
"""

ASSEMBLER = """
a = asm.assemble(text, bits=16, defines={}, include=[])
b = asm.assemble_file("a.asm")
names = a.binary, a.symbols, a.listing, a.origin
"""


def test_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("guest.img").write_bytes(bytes(1 << 20))

    class Device(emu.Device):
        def read(self, port: int, size: int) -> int:
            return 7

    image = rom("mov sp, 0x7000\n" + GUEST + POWER_OFF + SENT)
    names: dict[str, Any] = {"emu": emu, "rom": image, "device": Device(), "write": print}
    exec(MACHINE, names)
    assert names["stop"].reason is emu.StopReason.LIMIT and names["stop"].status is None
    assert names["final"].reason is emu.StopReason.POWERED_OFF
    assert isinstance(names["m"].memory.array, numpy.ndarray)
    assert names["m"].serial.output == b"> "


def test_processor() -> None:
    names: dict[str, Any] = {"emu": emu, "asm": asm}
    exec(PROCESSOR, names)
    assert names["first"] == 3 and names["c"].eax == 4
    assert names["stepped"].reason is emu.StopReason.LIMIT
    assert names["halted"].reason is emu.StopReason.HALTED


def test_assembler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.asm").write_text("start: mov ax, 5")
    names: dict[str, Any] = {"asm": asm, "text": "org 0x7c00\nstart: mov ax, 5"}
    exec(ASSEMBLER, names)
    assert names["a"].binary == names["b"].binary == b"\xb8\x05\x00"
    assert names["a"].symbols == {"start": 0x7C00} and names["a"].origin == 0x7C00 and "B80500" in names["a"].listing
    with pytest.raises(asm.AsmError):
        asm.assemble("mov")


def test_stop_reasons_are_words() -> None:
    words = ["limit", "halted", "powered_off", "debug_exit", "triple_fault", "breakpoint", "stopped"]
    assert [str(reason) for reason in emu.StopReason] == words and emu.StopReason("limit") == "limit"


@pytest.mark.parametrize(
    ("code", "vector", "name", "error_code", "address"),
    [
        ("mov al, [0x200000]", 13, "#GP", 0, None),
        ("div ecx", 0, "#DE", None, None),
        ("ud2", 6, "#UD", None, None),
        ("mov eax, [0x5000]", 14, "#PF", 0, 0x5000),
    ],
)
def test_faults_as_exceptions(code: str, vector: int, name: str, error_code: int | None, address: int | None) -> None:
    cpu = emu.Cpu(memory=1 << 20)
    cpu.ds.limit = 0xFFFFF
    cpu.load(0x1000, asm.assemble(code, bits=32).binary)
    if address is not None:  # a page table that maps the first page of code alone
        cpu.memory.write(0x10000, (0x11003).to_bytes(4, "little"))
        cpu.memory.write(0x11004, (0x1003).to_bytes(4, "little"))
        cpu.cr3 = 0x10000
        cpu.cr0 |= 1 << 31
    before = cpu.save()
    with pytest.raises(emu.CpuFault) as caught:
        cpu.step()
    fault = caught.value
    assert (fault.vector, fault.name, fault.error_code, fault.address, fault.rip) == (
        vector,
        name,
        error_code,
        address,
        0x1000,
    )
    assert isinstance(fault, emu.EmuError)
    after = cpu.save()
    assert {key for key in before if before[key] != after[key]} <= {"cr2"}


def test_a_fault_in_real_address_mode_has_no_error_code() -> None:
    cpu = emu.Cpu(bits=16)
    cpu.load(0x100, asm.assemble("mov ax, [0xffff]").binary)
    with pytest.raises(emu.CpuFault) as caught:
        cpu.step()
    assert (caught.value.name, caught.value.error_code, str(caught.value)) == ("#GP", None, "#GP at RIP 0x100")


def test_hlt_is_said_by_the_step_that_runs_it() -> None:
    cpu = emu.Cpu()
    cpu.load(0x1000, b"\x40\xf4\x40")  # INC EAX, HLT, INC EAX
    reasons = [cpu.step().reason for _ in range(3)]
    assert reasons == [emu.StopReason.LIMIT, emu.StopReason.HALTED, emu.StopReason.HALTED]
    cpu.rip = 0x1000
    asked = []
    assert cpu.run(until=lambda c: asked.append(c.rip)).reason is emu.StopReason.HALTED
    assert asked == [0x1000, 0x1001, 0x1002] and (cpu.eax, cpu.instructions) == (2, 4)


@pytest.mark.parametrize(("code", "vector"), [("int 0x21", 0x21), ("int3", 3)])
def test_software_interrupts_stop_a_run(code: str, vector: int) -> None:
    cpu = emu.Cpu()
    cpu.load(0x1000, asm.assemble(code, bits=32).binary)
    stop = cpu.run()
    assert stop.reason is emu.StopReason.BREAKPOINT and stop.vector == vector


def test_debug_exceptions_stop_a_run_and_dr6_says_why() -> None:
    cpu = emu.Cpu()
    cpu.load(0x1000, asm.assemble("nop\nmov [0x2000], eax\nnop", bits=32).binary)
    cpu.rflags |= 1 << 8
    stop = cpu.run()
    assert (stop.reason, stop.vector, cpu.rip, cpu.dr6) == (emu.StopReason.BREAKPOINT, 1, 0x1001, 0xFFFF4FF0)
    cpu.rflags, cpu.dr6, cpu.dr2, cpu.dr7 = 2, 0xFFFF0FF0, 0x2000, 0x0D000010  # four bytes, writes
    stop = cpu.run()
    assert (stop.reason, stop.vector, cpu.rip, cpu.dr6) == (emu.StopReason.BREAKPOINT, 1, 0x1006, 0xFFFF0FF4)


def test_faults_delivered() -> None:
    cpu = emu.Cpu(bits=16, faults="deliver")
    cpu.memory.write(6 * 4, b"\x00\x20\x00\x00")  # #UD: 0:2000h
    cpu.memory.write(0x2000, b"\xf4")
    cpu.load(0x1000, b"\x0f\x0b")
    assert cpu.run(instructions=10).reason is emu.StopReason.HALTED
    assert cpu.rip == 0x2001


def test_stop_from_any_thread() -> None:
    with emu.Machine(memory=1 << 20, firmware=rom("again: inc ax\njmp again")) as machine:
        timer = threading.Timer(0.05, machine.stop)
        timer.start()
        assert machine.run(timeout=30).reason is emu.StopReason.STOPPED


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"instructions": -1}, ValueError), ({"cycles": -1}, ValueError), ({"seconds": -1}, ValueError),
        ({"timeout": -1}, ValueError), ({"timeout": float("nan")}, ValueError), ({"seconds": float("inf")}, ValueError),
        ({"instructions": 1.5}, TypeError), ({"instructions": "1"}, TypeError), ({"until": -1}, ValueError),
        ({"until": 1 << 64}, ValueError), ({"until": 1.5}, TypeError), ({"every": 1}, ValueError),
        ({"until": lambda m: False, "every": 0}, ValueError), ({"instructions": 1 << 64}, ValueError),
    ],
)  # fmt: skip
def test_limits_that_make_no_sense(arguments: dict[str, Any], error: type[Exception]) -> None:
    machine = emu.Machine(memory=1 << 20)
    with pytest.raises(error):
        machine.run(**arguments)
    assert machine.instructions == 0 and not machine.cpu.running
