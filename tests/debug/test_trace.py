"""Traces: every instruction once, in order, with what comes between; tracing changes nothing."""

import io

import asm
import emu
from asm.program import Program
from emu.debug.trace import Trace


def rom(*lines: str) -> Program:
    end = ("times 0FFF0h - ($ - $$) db 0", "jmp 0F000h:0", "times 10000h - ($ - $$) db 0")
    return asm.assemble("\n".join(("bits 16", "org 0F0000h", *lines, *end)))


PROGRAM = (
    "start: xor ax, ax",
    "mov ds, ax",
    "mov word [3 * 4], handler - 0F0000h",
    "mov word [3 * 4 + 2], 0F000h",
    "mov cx, 3",
    "again: loop again",
    "int3",
    "mov al, 1",
    "out 0F4h, al",
    "handler: iret",
)


def traced(where: range | None = None, named: bool = True) -> tuple[list[str], emu.Machine]:
    program = rom(*PROGRAM)
    machine = emu.Machine(memory=1 << 20, firmware=program.binary, debug_exit=0xF4)
    file = io.StringIO()
    with Trace(machine.cpu, file, where, program.symbols if named else None):
        stop = machine.run(instructions=1000)
    assert stop.reason is emu.StopReason.DEBUG_EXIT
    return file.getvalue().splitlines(), machine


def test_every_instruction_is_a_line_in_order() -> None:
    lines, machine = traced(named=False)
    texts = [line.split(None, 5) for line in lines if "----" not in line]
    assert [words[5] for words in texts] == [
        "jmp 0xf000:0", "xor ax, ax", "mov ds, ax", "mov word [0xc], 0x1a", "mov word [0xe], 0xf000", "mov cx, 3",
        "loop 0x13", "loop 0x13", "loop 0x13", "int3", "iretw", "mov al, 1", "out 0xf4, al",
    ]  # fmt: skip
    assert [int(words[1]) for words in texts] == list(range(len(texts)))
    assert len(texts) == machine.instructions
    cycles = [int(words[0]) for words in texts]
    assert cycles == sorted(cycles)
    assert texts[0][2:5] == ["F000:0000FFF0", "FFFFFFF0", "EA000000F0"]


def test_labels_and_interrupts_stand_between() -> None:
    lines, _ = traced()
    at = lines.index("handler:")
    assert "---- #BP, vector 0x03, returns to RIP 0x16" in lines[at - 1]
    assert lines[at + 1].endswith("iretw")
    assert lines.count("again:") == 3
    assert sum(line.endswith("loop 0x13 ; again") for line in lines) == 3


def test_a_range_alone_is_traced() -> None:
    program = rom(*PROGRAM)
    first = program.symbols["again"]
    lines, _ = traced(range(first, first + 2), named=False)
    assert [line.split(None, 5)[5] for line in lines if "----" not in line] == ["loop 0x13"] * 3


def test_tracing_changes_nothing() -> None:
    _, machine = traced()
    plain = emu.Machine(memory=1 << 20, firmware=rom(*PROGRAM).binary, debug_exit=0xF4)
    plain.run(instructions=1000)
    assert (machine.cycles, machine.instructions) == (plain.cycles, plain.instructions)
    assert machine.cpu.save() == plain.cpu.save()


def test_a_fetch_that_faults_is_the_page_fault_alone() -> None:
    cpu = emu.Cpu(bits=32, memory=1 << 20, faults="deliver")
    cpu.memory.write(0x2000, (0x3003).to_bytes(4, "little"))
    cpu.memory.write(0x3000, b"".join((page << 12 | 3).to_bytes(4, "little") for page in range(8)))
    cpu.load(0x1000, asm.assemble("jmp near $ + 0x8000", bits=32).binary)
    cpu.cr3 = 0x2000
    cpu.cr0 |= 1 << 31
    file = io.StringIO()
    with Trace(cpu, file):
        cpu.run(instructions=2)
    first, second = file.getvalue().splitlines()[:2]
    assert first.endswith("jmp near 0x9000")
    assert second.endswith("---- #PF, vector 0x0e, returns to RIP 0x9000")


def test_one_vm_is_traced_without_a_call_for_what_others_do() -> None:
    """The lines are those of a trace that asks before each instruction; the hook itself passes the others over."""
    with emu.Machine(memory=64 << 20) as machine:
        machine.run(seconds=3.1841)  # the guest is about to be entered
        log, snapshot = machine.vm_log, machine.snapshot()
        found = []
        for everywhere in (False, True):
            machine.restore(snapshot)
            calls, file = [0], io.StringIO()

            def wanted(calls: list[int] = calls) -> bool:
                calls[0] += 1
                return log.running() == "Guest VM"

            with Trace(machine.cpu, file, wanted=wanted) as trace:
                if everywhere:
                    again = machine.cpu.hook("instruction", trace.instruction)
                    trace.hooks[0].remove()
                    trace.hooks.insert(1, again)
                machine.run(instructions=60_000)
                assert trace.hooks[0].vmcs is not None and trace.hooks[-1].vmcs is None
            found.append((file.getvalue(), calls[0]))
    (lines, calls_of_one), (all_lines, calls_of_all) = found
    assert lines == all_lines and lines.count("VM entry") > 10
    assert calls_of_one < calls_of_all / 2
