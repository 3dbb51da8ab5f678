"""Random programs, not lines, assembled by NASM and by us: labels, relaxation, macros, expressions, sections."""

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import asm
from asm.options import Options
from asm.program import run

NASM = shutil.which("nasm")
pytestmark = pytest.mark.skipif(NASM is None, reason="nasm is not installed")

REGISTERS = {
    16: ("ax", "bx", "cx", "dx", "si", "di"),
    32: ("eax", "ebx", "ecx", "edx", "esi", "edi"),
    64: ("rax", "rbx", "rcx", "r8", "r15", "rsi"),
}
BASES = {
    16: ("bx", "bp", "si", "di", "bx + si", "bp + di"),
    32: ("eax", "ebp", "esp", "ecx + edx * 4", "esi * 8"),
    64: ("rax", "rbp", "r13", "rsp + r12 * 2", "rdi * 8"),
}
CONDITIONS = ("z", "nz", "c", "ae", "l", "ge", "o", "ns")
LEVELS = {"-O0": 0, "-O1": 1, "-Ox": 2}
OPERATORS = ("+", "-", "*", "/", "%", "//", "%%", "<<", ">>", "&", "|", "^", "&&", "||", "<", "==", "!=", ">=")


class Program:
    """Writes one program; every choice comes from the seed."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed)
        self.bits = self.pick.choice((16, 32, 64))
        self.lines: list[str] = [f"bits {self.bits}"]
        self.labels = self.pick.randrange(4, 40)
        self.written = 0
        self.constants: list[str] = []
        self.macros: list[tuple[str, int]] = []

    def number(self) -> str:
        value = self.pick.choice((0, 1, -1, 5, 127, 128, -128, -129, 255, 256, 1000, 32767, self.pick.randrange(65536)))
        forms = (str(value), hex(value) if value >= 0 else str(value), f"{value}d", f"({value})", f"{value} + 0")
        return self.pick.choice(forms)

    def expression(self, depth: int = 2) -> str:
        kind = self.pick.randrange(6)
        if depth == 0 or kind == 0:
            return self.pick.choice([self.number(), *self.constants])
        if kind == 1:
            return f"({self.expression(depth - 1)})"
        if kind == 2:
            return f"{self.pick.choice('-~!+')}({self.expression(depth - 1)})"
        operator = self.pick.choice(OPERATORS)
        right = self.expression(depth - 1)
        if operator in ("/", "%", "//", "%%"):
            right = f"(({right}) | 1)"
        elif operator in ("<<", ">>"):
            right = str(self.pick.randrange(20))
        return f"{self.expression(depth - 1)} {operator} {right}"

    def label(self) -> str:
        return f"l{self.pick.randrange(self.labels)}"

    def distance(self) -> str:
        return f"({self.label()} - {self.label()})"

    def memory(self) -> str:
        base = self.pick.choice(BASES[self.bits])
        tail = self.pick.choice(("", " + 5", " - 3", " + 127", " + 128", f" + {self.label()}", f" + {self.distance()}"))
        if self.pick.random() < 0.2:
            return f"[{self.label()}{self.pick.choice(('', ' + 4', ' - 1'))}]"
        return f"[{base}{tail}]"

    def instruction(self) -> str:
        register = self.pick.choice(REGISTERS[self.bits])
        other = self.pick.choice(REGISTERS[self.bits])
        operation = self.pick.choice(("add", "sub", "cmp", "xor", "and", "mov", "test"))
        small = f"({self.expression()}) & 0x7f"
        return self.pick.choice(
            (
                f"{operation} {register}, {other}",
                f"{operation} {register}, {small}",
                f"{operation} {register}, {self.distance()}",
                f"{operation} {register}, late{self.pick.randrange(3)}",
                f"{operation} {register}, {self.memory()}" if operation != "test" else f"test {self.memory()}, {other}",
                f"{operation} byte {self.memory()}, {small}",
                f"{operation} {self.memory()}, {register}",
                f"push {register}",
                f"lea {register}, {self.memory()}",
                f"shl {register}, {self.pick.choice(('1', '3', 'cl'))}",
                f"imul {register}, {other}, {small}",
                f"inc {register}",
                f"mov {register}, {self.label()}",
            )
        )

    def jump(self) -> str:
        target = self.pick.choice((self.label(), self.label(), self.label(), f"{self.label()} + 1", "$", "$ + 4"))
        return self.pick.choice(
            (f"jmp {target}", f"j{self.pick.choice(CONDITIONS)} {target}", f"call {target}", f"jmp near {target}")
        )

    def data(self) -> str:
        return self.pick.choice(
            (
                f"db {self.pick.randrange(256)}, 'text', ({self.expression()}) & 0xff",
                f"dw {self.label()}, {self.distance()}, $ - $$",
                f"dd {self.label()}, ({self.expression()}) & 0x7fffffff",
                f"dq {self.expression()}",
                f"times {self.pick.randrange(12)} db {self.pick.randrange(256)}",
                f"times {self.pick.randrange(5)} nop",
                f"align {self.pick.choice((2, 4, 8, 16))}",
                f"times ($ - $$) & {self.pick.choice((3, 7))} db 0xcc",
            )
        )

    def structure(self) -> None:
        kind = self.pick.randrange(6)
        name = f"n{len(self.lines)}"
        if kind == 0:
            self.lines.append(f"{name} equ ({self.expression()}) & 0xfff")
            self.constants.append(name)
        elif kind == 1:
            count = self.pick.randrange(3)
            body = [f"  db %{n + 1}, %0" for n in range(count)] + ["%%here: " + self.instruction(), "  jmp %%here"]
            self.lines += [f"%macro {name} {count}", *body, "%endmacro"]
            self.macros.append((name, count))
        elif kind == 2 and self.macros:
            macro, count = self.pick.choice(self.macros)
            self.lines.append(f"  {macro} " + ", ".join(str(self.pick.randrange(256)) for _ in range(count)))
        elif kind == 3:
            self.lines += [
                f"%assign {name} 0",
                f"%rep {self.pick.randrange(5)}",
                f"  db {name}, {self.pick.randrange(9)}",
            ]
            self.lines += [f"  {self.instruction()}", f"  %assign {name} {name} + {self.pick.randrange(4)}", "%endrep"]
        elif kind == 4 and self.written:  # a question that the layout answers, in each pass anew
            self.lines += [f"%if $ - l{self.pick.randrange(self.written)} > {self.pick.choice((60, 127, 200))}"]
            self.lines += ["  nop", "%endif", f"%assign {name} ($ - $$) & 3", f"  times {name} nop"]
        else:
            self.lines += [f"%if ({self.expression()}) > 3", f"  {self.instruction()}", "%elif 1", f"  {self.data()}"]
            self.lines += ["%else", "  nop", "%endif"]

    def text(self) -> str:
        with_sections = self.pick.random() < 0.3
        if self.pick.random() < 0.5:
            self.lines.append(f"org {self.pick.choice(('0x100', '0x7c00', '0'))}")
        # Distances are asked for between any two labels, so all of them stand in one section.
        for n in range(self.labels):
            self.written = n + 1
            self.lines.append(f"l{n}:")
            for _ in range(self.pick.randrange(1, 9)):
                kind = self.pick.randrange(12)
                if kind < 5:
                    self.lines.append("  " + self.instruction())
                elif kind < 8:
                    self.lines.append("  " + self.jump())
                elif kind < 10:
                    self.lines.append("  " + self.data())
                elif kind == 10:
                    self.lines.append(f"  times {self.pick.randrange(100, 130)} nop")
                else:
                    self.structure()
            if self.pick.random() < 0.3:
                self.lines += [f".local: {self.instruction()}", "  jnz .local"]
        if with_sections:
            self.lines += ["section .data align=8", f"s0: dw s0, {self.label()}", f"  dd {self.label()} + 2"]
            self.lines += ["section .bss", "b0: resb 5", "  alignb 4", "b1: resw 2", "section .data", "  dw b0, b1, $$"]
            self.lines += ["section .text", f"  mov {REGISTERS[self.bits][0]}, s0", "  jmp near s0"]
        self.lines += [f"late{n} equ {self.pick.choice((5, 120, 130, 5000))}" for n in range(3)]
        return "\n".join(self.lines) + "\n"


def compare(folder: Path, seed: int, flag: str) -> None:
    """Assembles a program both ways; where NASM refuses it, a line it names is one of ours."""
    text = Program(seed).text()
    source, binary = folder / f"random{seed}.asm", folder / "random.bin"
    source.write_text(text)
    command = [str(NASM), flag, "-w-all", "-f", "bin", "-o", str(binary), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if result.returncode:
        with pytest.raises(asm.AsmError) as caught:
            run(str(source), text, Options(optimise=LEVELS[flag]))
        for error in caught.value.errors:
            unsettled = "unable to find valid values" in error.message and error.message[:27] in result.stderr
            if unsettled or f":{error.line}: error" in result.stderr:
                return
        pytest.fail(f"seed {seed} with {flag}: NASM says\n{result.stderr}\nand we\n{caught.value}")
    program = run(str(source), text, Options(optimise=LEVELS[flag]))
    if program.binary != binary.read_bytes():
        pytest.fail(f"seed {seed} with {flag}: bytes differ; the source is {source}")
    source.unlink()


def compare_objects(folder: Path, seed: int) -> None:
    """The same program as a relocatable object."""
    text = re.sub(r"^org .*$", "", Program(seed).text(), flags=re.MULTILINE)
    bits = 64 if text.startswith("bits 64") else 32
    source, output = folder / "random.asm", folder / "random.o"
    source.write_text(text)
    command = [str(NASM), "-w-all", "-f", f"elf{bits}", "-o", str(output), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    options = Options(bits=bits, output_format=f"elf{bits}")
    if result.returncode:
        with pytest.raises(asm.AsmError):
            run(str(source), text, options)
    else:
        assert run(str(source), text, options).binary == output.read_bytes(), f"seed {seed}: the objects differ"


@pytest.mark.parametrize("block", range(4))
def test_random_objects_are_nasms(block: int, tmp_path: Path) -> None:
    for seed in range(block * 10, block * 10 + 10):
        compare_objects(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(5))
def test_many_random_objects_are_nasms(block: int, tmp_path: Path) -> None:
    for seed in range(7000 + block * 100, 7000 + block * 100 + 100):
        compare_objects(tmp_path, seed)


@pytest.mark.parametrize("block", range(20))
def test_random_programs_give_nasms_bytes(block: int, tmp_path: Path) -> None:
    for seed in range(block * 10, block * 10 + 10):
        compare(tmp_path, seed, "-Ox")


@pytest.mark.parametrize("flag", ["-O0", "-O1"])
@pytest.mark.parametrize("block", range(4))
def test_random_programs_with_less_optimisation(block: int, flag: str, tmp_path: Path) -> None:
    for seed in range(100_000 + block * 10, 100_000 + block * 10 + 10):
        compare(tmp_path, seed, flag)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(50))
def test_many_random_programs_give_nasms_bytes(block: int, tmp_path: Path) -> None:
    for seed in range(1000 + block * 100, 1000 + block * 100 + 100):
        compare(tmp_path, seed, "-Ox")
