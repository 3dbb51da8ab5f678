"""Sources for the assembler's benchmarks: no two runs differ, and few lines are the same."""

from __future__ import annotations

import random

REGISTERS_32 = ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp")
REGISTERS_16 = ("ax", "bx", "cx", "dx", "si", "di", "bp")
REGISTERS_8 = ("al", "ah", "bl", "bh", "cl", "ch", "dl", "dh")
CONDITIONS = ("z", "nz", "c", "nc", "s", "ns", "l", "ge", "a", "be")
ARITHMETIC = ("add", "sub", "and", "or", "xor", "cmp", "adc", "sbb", "test")
PLAIN = ("cld", "sti", "cli", "nop", "pusha", "popa", "lodsb", "stosd", "rep movsd", "cdq", "leave", "ret", "hlt")


def mixed_source(lines: int, seed: int = 1) -> str:
    """A 32-bit program of about as many lines as asked for, mixed as hand-written firmware is.

    Instructions of all operand kinds, labels and jumps in both directions, data, comments and blank lines, definitions,
    conditionals, macro calls and repetitions.
    """
    pick = random.Random(seed)
    out = [
        "; a mixed program", "bits 32", "org 0x100000", "%define BASE 0xb8000", "%define FIELD(n) (BASE + (n) * 4)",
        "%macro outb 2", "    mov al, %2", "    out %1, al", "%endmacro", "%macro wait_while 1", "%%again:",
        "    in al, 0x64", "    test al, %1", "    jnz %%again", "%endmacro", "count equ 25",
    ]  # fmt: skip
    label = 0

    def memory() -> str:
        base = pick.choice(REGISTERS_32)
        kind = pick.randrange(5)
        if kind == 0:
            return f"[{base}]"
        if kind == 1:
            return f"[{base} + {pick.randrange(300)}]"
        if kind == 2:
            return f"[{base} + {pick.choice(REGISTERS_32)} * {pick.choice((1, 2, 4, 8))} + 0x{pick.randrange(4096):x}]"
        if kind == 3:
            return f"[label_{pick.randrange(label + 5)}]"
        return f"[{base} - {pick.randrange(1, 140)}]"

    while len(out) < lines:
        kind = pick.randrange(100)
        if kind < 10:
            out.append(f"label_{label}:")
            label += 1
        elif kind < 14:
            out.append(f".loop_{len(out)}:")
            out.append(f"    dec {pick.choice(REGISTERS_32)}")
            out.append(f"    jnz .loop_{len(out) - 2}")
        elif kind < 22:
            out.append(f"    j{pick.choice(CONDITIONS)} label_{max(0, label + pick.randrange(-20, 20))}")
        elif kind < 25:
            out.append(f"    call label_{max(0, label + pick.randrange(-50, 50))}")
        elif kind < 35:
            out.append(f"    mov {pick.choice(REGISTERS_32)}, {pick.choice(REGISTERS_32)}")
        elif kind < 42:
            out.append(f"    mov {pick.choice(REGISTERS_32)}, {memory()}    ; load")
        elif kind < 48:
            out.append(f"    mov dword {memory()}, {pick.randrange(1 << 16)}")
        elif kind < 58:
            out.append(f"    {pick.choice(ARITHMETIC)} {pick.choice(REGISTERS_32)}, {pick.randrange(-200, 70000)}")
        elif kind < 64:
            out.append(f"    {pick.choice(ARITHMETIC[:8])} {memory()}, {pick.choice(REGISTERS_16)}")
        elif kind < 68:
            out.append(
                f"    {pick.choice(('shl', 'shr', 'sar', 'rol'))} {pick.choice(REGISTERS_8)}, {pick.randrange(8)}"
            )
        elif kind < 74:
            out.append(f"    {pick.choice(('push', 'pop', 'inc', 'dec', 'neg'))} {pick.choice(REGISTERS_32)}")
        elif kind < 79:
            out.append(f"    {pick.choice(PLAIN)}")
        elif kind < 83:
            out.append(f"    db {pick.randrange(256)}, 0x{pick.randrange(256):02x}, 'text {len(out)}', 0")
        elif kind < 86:
            out.append(f"    dd label_{pick.randrange(label + 5)}, {pick.randrange(1 << 30)}, $")
        elif kind < 88:
            out.append(f"    outb 0x{pick.randrange(256):x}, {pick.randrange(256)}")
        elif kind < 89:
            out.append(f"    wait_while {pick.randrange(1, 256)}")
        elif kind < 91:
            out.append(f"    mov edi, FIELD({pick.randrange(100)} + count)")
        elif kind < 92:
            out += ["%if " + f"{pick.randrange(3)} == 1", "    nop", "%else", "    cld", "%endif"]
        elif kind < 93:
            out.append(f"    times {pick.randrange(1, 9)} db {pick.randrange(256)}")
        elif kind < 95:
            out.append("")
        else:
            out.append(f"    ; comment number {len(out)}")
    out += [f"label_{n}: nop" for n in range(label, label + 60)]
    return "\n".join(out) + "\n"


ALU = ("add", "sub", "xor", "and", "or", "adc", "imul")
FOOTPRINT_REGISTERS = ("eax", "ebx", "edx", "edi", "ebp")


def footprint_source(count: int, seed: int = 1) -> str:
    """A kernel whose turn is about `count` different instructions in a row, mixed as compiled code is."""
    pick = random.Random(seed)
    out = ["kernel:", "    mov esi, DATA", *(f"    xor {name}, {name}" for name in FOOTPRINT_REGISTERS), ".turn:"]
    for number in range(count - 2):
        first, second = pick.sample(FOOTPRINT_REGISTERS, 2)
        place = f"[esi + {4 * pick.randrange(4096)}]"
        kind = pick.randrange(100)
        if kind < 25:
            out.append(f"    {pick.choice(ALU)} {first}, {second}")
        elif kind < 40:
            out.append(f"    {pick.choice(ALU[:6])} {first}, {pick.randrange(1 << 31)}")
        elif kind < 58:
            out.append(f"    mov {first}, {place}")
        elif kind < 66:
            out.append(f"    mov {place}, {first}")
        elif kind < 72:
            out.append(f"    {pick.choice(ALU[:6])} {first}, {place}")
        elif kind < 76:
            out.append(f"    {pick.choice(ALU[:5])} {place}, {first}")
        elif kind < 82:
            out.append(f"    lea {first}, [{second} + {pick.choice(FOOTPRINT_REGISTERS)} * 4 + {pick.randrange(99)}]")
        elif kind < 88:
            out.append(f"    {pick.choice(('shl', 'shr', 'sar', 'rol'))} {first}, {pick.randrange(1, 31)}")
        elif kind < 94:
            out.append(f"    mov {first}, {second}")
        else:  # two instructions; the second time round the jump goes the same way, as most do
            out.append(f"    test {first}, {1 << pick.randrange(31)}")
            out.append(f"    {pick.choice(('jz', 'jnz'))} .next_{number}")
            out.append(f".next_{number}:")
    out += ["    dec ecx", "    jnz .turn", "    ret"]
    return "\n".join(out) + "\n"
