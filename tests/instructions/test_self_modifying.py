"""Code that modifies itself, SDM Vol. 3, "Self-Modifying Code": what is written is what runs from then on."""

import random

import pytest

import asm
from emu import Cpu

CODE, DATA = 0x1000, 0x8000
REGISTERS = ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp", "rip", "eflags")


def run(source: str) -> Cpu:
    """Runs a program, as one run, up to its HLT."""
    cpu = Cpu(bits=32, memory=1 << 16)
    cpu.load(CODE, asm.assemble(f"org {CODE}\n{source}\nhlt", bits=32).binary)
    assert cpu.run(instructions=100_000).reason == "halted"
    return cpu


@pytest.mark.parametrize(
    ("source", "eax"),
    [
        ("mov dword [x + 1], 7\nx: mov eax, 1", 7),  # the next instruction
        ("mov word [x + 2], 0x1234\nnop\nx: mov eax, 1", 0x123401),  # a part of a constant
        ("mov byte [x + 2], 8\nmov eax, 5\nx: cmp eax, 5\nje y\nmov eax, 9\ny:", 9),  # fused with its jump
        ("mov byte [x + 2], 3\nx: add eax, 1\nadd eax, 2", 5),  # its flags are dead
        ("mov ebx, 8000h\nmov byte [ebx + 4], 77\nmov byte [x + 3], 4\nx: movzx eax, byte [ebx + 1]", 77),
        ("mov eax, 1\nmov byte [x + 2], 33\nx: shl eax, 4", 2),  # the count is taken modulo 32
        ("mov eax, 1\nmov byte [x + 1], 1\nx: jmp y\ninc eax\ny: inc eax", 2),  # a jump's displacement
        ("mov byte [x], 0x2d\nmov eax, 9\nx: add eax, 4ABBCCDDh", (9 - 0x4ABBCCDD) % (1 << 32)),  # ADD becomes SUB
        ("mov ecx, 3\nmov edi, 8000h\nmov esi, 8100h\nmov byte [x], 0xf3\nx: db 3eh, 0a4h\nlea eax, [edi]", 0x8003),
        ("mov word [x + 1], 0x9005\nx: mov eax, 1", 0x9005),  # across nothing, two bytes
        ("mov dword [x - 1], 0x1122b890\nnop\nx: mov eax, 1", 0x1122),  # a constant and the opcode before it
        ("x: mov dword [x + 6], 5\nmov eax, [x + 6]", 5),  # its own constant
        ("mov ecx, 2\nx: mov eax, 1\nmov byte [x + 1], 6\nloop x", 6),  # behind itself
    ],
)  # fmt: skip
def test_the_modified_instruction_runs(source: str, eax: int) -> None:
    assert run(source).eax == eax


def program(pick: random.Random) -> str:
    """A loop of instructions with constants, and of stores to these constants and now and then to opcodes."""
    lines = [f"mov ebp, {DATA}", "mov ecx, 20", "turn:"]
    body = []
    for _ in range(24):
        first, second = pick.choice(("eax", "ebx", "edx", "esi")), pick.choice(("eax", "ebx", "edx", "esi"))
        constant = pick.choice((pick.randrange(1 << 32), pick.randrange(1 << 10) | 1 << 9))
        kind = pick.randrange(8)
        if kind == 0:
            name = pick.choice(("add", "xor", "sbb", "cmp", "mov"))
            body.append((f"{name} {first}, strict dword {constant}", (2, 3, 4)))
        elif kind == 1:
            body.append((f"{pick.choice(('add', 'and', 'mov', 'cmp'))} {first}, [ebp + 512]", (2,)))
        elif kind == 2:
            body.append((f"{pick.choice(('add', 'mov', 'or'))} [ebp + 512], {second}", (2,)))
        elif kind == 3:
            body.append((f"{pick.choice(('shl', 'ror', 'sar'))} {first}, 5", (2,)))
        elif kind == 4:
            body.append((f"lea {first}, [{second} + {constant}]", (2, 3, 4, 5)))
        elif kind == 5:
            skip = f"skip_{len(body)}"
            jump = f"j{pick.choice(('l', 'a', 'z', 's'))} {skip}"
            body.append((f"cmp {first}, strict byte 5\n{jump}\ninc {second}\n{skip}:", (2,)))
        elif kind == 6:
            body.append(("add eax, strict dword 99", (0,)))
        else:
            body.append((f"mov byte [ebp + 512], {pick.randrange(256)}", (2, 6)))
    for number, (text, _) in enumerate(body):
        if pick.random() < 0.4:
            target = pick.randrange(len(body))
            offset = pick.choice(body[target][1])
            value = pick.choice((0x05, 0x2D, 0x35, 0x3D)) if offset == 0 else pick.randrange(256)
            lines.append(f"mov byte [place_{target} + {offset}], {value}")
        lines.append(f"place_{number}: {text}")
    return "\n".join([*lines, "dec ecx", "jnz turn"])


@pytest.mark.parametrize("seed", range(60))
def test_a_run_is_what_its_steps_are(seed: int) -> None:
    """A block at a time, where constants are changed in place, against an instruction at a time."""
    source = f"org {CODE}\n{program(random.Random(seed))}\nhlt"
    code = asm.assemble(source, bits=32).binary
    whole, steps = Cpu(bits=32, memory=1 << 16), Cpu(bits=32, memory=1 << 16)
    for cpu in (whole, steps):
        cpu.load(CODE, code)
    whole.run(instructions=3000)
    while steps.instructions < whole.instructions:
        steps.step()
    assert whole.instructions > 300
    assert [getattr(whole, name) for name in REGISTERS] == [getattr(steps, name) for name in REGISTERS]
    assert whole.memory.read(0, 1 << 16) == steps.memory.read(0, 1 << 16)
    assert whole.cycles == steps.cycles
