"""Hooks of instructions and blocks, and `until`: when they are called, and that they change nothing."""

import pytest
from system import IF, Bench
from test_shadows import IRQ0, with_interrupts

import asm
import emu
from emu.stop import StopReason

CODE = 0x1000
LOOP = "mov ecx, 5\n top: add eax, 3\n inc ebx\n dec ecx\n jnz top\n mov edx, 7\n hlt"


def cpu_with(text: str, at: int = CODE) -> emu.Cpu:
    cpu = emu.Cpu(bits=32, memory=1 << 20)
    cpu.load(at, asm.assemble(f"org {at:#x}\n{text}", bits=32).binary)
    return cpu


def test_an_instruction_hook_is_called_before_each_time() -> None:
    cpu, seen = cpu_with(LOOP), []
    inc = CODE + 5 + 3
    cpu.hook("instruction", lambda address: seen.append((address, cpu.eax, cpu.ebx)), range(inc, inc + 1))
    cpu.run()
    assert seen == [(inc, 3 * n, n - 1) for n in range(1, 6)]


def test_a_hook_of_every_instruction() -> None:
    cpu, seen = cpu_with(LOOP), []
    cpu.hook("instruction", seen.append)
    cpu.run()
    body = [CODE + 5, CODE + 8, CODE + 9, CODE + 10]
    assert seen == [CODE, *body * 5, CODE + 12, CODE + 17]
    assert len(seen) == cpu.instructions


def test_an_instruction_hook_costs_the_rest_of_the_page_nothing() -> None:
    """The block that holds the address is cut there; a loop elsewhere in the page leaves for no instruction."""
    cpu, seen = cpu_with("mov ecx, 1000\n top: add eax, 3\n dec ecx\n jnz top\n nop\n hlt"), []
    blocks: list[int] = []
    nop = CODE + 5 + 3 + 1 + 2
    cpu.hook("instruction", seen.append, range(nop, nop + 1))
    hook = cpu.hook("block", blocks.append)
    cpu.run()
    assert seen == [nop]
    assert blocks == [CODE, *[CODE + 5] * 999]
    hook.remove()


def test_a_block_hook_is_called_where_a_branch_leads() -> None:
    cpu, seen = cpu_with(LOOP), []
    cpu.hook("block", seen.append)
    cpu.run()
    assert seen == [CODE, *[CODE + 5] * 4]


def test_a_block_hook_of_a_range_comes_before_the_instruction_hook() -> None:
    cpu, seen = cpu_with(LOOP), []
    cpu.hook("instruction", lambda address: seen.append(("instruction", address)), range(CODE + 5, CODE + 6))
    cpu.hook("block", lambda address: seen.append(("block", address)), range(CODE + 1, CODE + 100))
    cpu.run()
    first = ("instruction", CODE + 5)  # reached by falling through
    assert seen == [first, *[("block", CODE + 5), first] * 4]


def test_block_hooks_do_not_depend_on_how_the_run_is_cut() -> None:
    whole, parts = cpu_with(LOOP), cpu_with(LOOP)
    seen: dict[emu.Cpu, list[int]] = {whole: [], parts: []}
    for cpu, list_ in seen.items():
        cpu.hook("block", list_.append)
    whole.run()
    while parts.run(instructions=1).reason == StopReason.LIMIT:
        pass
    assert seen[whole] == seen[parts]


def test_straight_code_longer_than_a_block_is_one_block() -> None:
    cpu, seen = cpu_with("nop\n" * 200 + "hlt", at=0x1F80), []  # it crosses a page too
    cpu.hook("block", seen.append)
    cpu.run()
    assert seen == [0x1F80]


def test_a_repeated_instruction_begins_a_block_once() -> None:
    cpu, seen = cpu_with("mov ecx, 9\n mov edi, 8000h\n jmp there\n there: rep stosd\n hlt"), []
    cpu.hook("block", seen.append)
    while cpu.run(instructions=1).reason == StopReason.LIMIT:
        pass
    assert seen == [CODE, CODE + 12]


def test_a_hook_can_send_execution_elsewhere() -> None:
    cpu, seen = cpu_with("mov eax, 1\n mov ebx, 2\n hlt\n mov ecx, 3\n hlt"), []

    def divert(address: int) -> None:
        seen.append(address)
        cpu.rip = CODE + 11

    cpu.hook("block", divert, range(CODE, CODE + 1))
    cpu.hook("instruction", lambda address: seen.append(-address), range(CODE, CODE + 1))
    cpu.run()
    assert (seen, cpu.eax, cpu.ebx, cpu.ecx) == ([CODE], 0, 0, 3)


def test_a_hook_that_lets_nothing_happen_does_not_outlive_a_limit_of_host_time() -> None:
    cpu = cpu_with("nop\n hlt")

    def again(_: int) -> None:
        cpu.rip = CODE

    cpu.hook("instruction", again)
    assert cpu.run(timeout=0.01).reason is StopReason.LIMIT and cpu.instructions == 0


def test_a_hook_at_another_mapping_of_the_page() -> None:
    """Decoded code is shared by all mappings of a page; a hook belongs to one linear address."""
    bench, seen = Bench(), []
    bench.map_pages()
    bench.set_page(0x30000, 0x10000 | 7)
    bench.cpu.memory.write(0x10000, asm.assemble("inc eax\n inc ebx\n inc ecx\n ret", bits=32).binary)
    bench.cpu.hook("instruction", seen.append, range(0x30001, 0x30002))
    bench.place("call 10000h\n call 30000h\n call 10000h\n hlt", at=0x11000)
    bench.go(0x11000)
    assert seen == [0x30001]
    assert (bench.cpu.eax, bench.cpu.ebx, bench.cpu.ecx) == (3, 3, 3)


def test_hooks_come_and_go_between_runs() -> None:
    text = "top: inc eax\n inc ebx\n inc ecx\n jmp top"
    cpu, seen = cpu_with(text), []
    for n in range(3):
        hook = cpu.hook("instruction", seen.append, range(CODE + n, CODE + n + 1))
        cpu.run(instructions=4)
        hook.remove()
        cpu.run(instructions=4)
    assert seen == [CODE, CODE + 1, CODE + 2]
    assert cpu.eax == 6


def test_until_stops_before_the_instruction_every_time() -> None:
    cpu = cpu_with(LOOP)
    for n in range(1, 6):
        stop = cpu.run(until=CODE + 8)
        assert (stop.reason, cpu.rip, cpu.eax, cpu.ebx) == (StopReason.BREAKPOINT, CODE + 8, 3 * n, n - 1)
    assert cpu.run(until=CODE + 8).reason == StopReason.HALTED


@pytest.mark.parametrize("shadowing", ["sti", "mov ss, dx"])
def test_a_hook_does_not_end_what_an_instruction_holds_off(shadowing: str) -> None:
    """SDM Vol. 2, "STI"; SDM Vol. 3, "Masking Exceptions and Interrupts When Switching Stacks"."""
    bench, seen = with_interrupts(), []
    length = bench.place(f"mov dx, ss\n {shadowing}")
    bench.place(f"mov dx, ss\n {shadowing}\n inc eax\n inc eax\n hlt")
    bench.cpu.rflags = 2 if shadowing == "sti" else 2 | IF
    bench.cpu.eax = 0
    bench.pic.drive(0, False)
    held = bench.cpu.rip + length

    def interrupt(address: int) -> None:
        seen.append(address)
        bench.pic.drive(0, True)

    bench.cpu.hook("instruction", interrupt, range(held, held + 1))
    frame = bench.go_on()
    assert seen == [held]
    assert (frame.vector, frame.stack[0], bench.cpu.eax) == (IRQ0, held + 1, 1)
