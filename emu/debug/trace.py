"""`emu run --trace FILE`: a line an instruction, with faults, interrupts, VM entries and VM exits between.

A line has the cycle and the count of instructions before it, the code segment's selector and RIP, the linear address,
the bytes, and the instruction in NASM's syntax. Lines of another kind have dashes after the counts.
"""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from emu._core import EXIT_REASON_NAMES, VECTOR_NAMES
from emu.debug.disassemble import Names

if TYPE_CHECKING:
    from emu._core import Hook, Processor
    from emu.debug.source_line import SourceLine

__all__ = ["Trace"]

LONGEST = 15  # bytes of an instruction
PAGE_SIZE = 4096
MOST_TEXTS = 1 << 16  # disassembled instructions that are remembered


class Trace:
    """Writes what `processor` does to a file while it runs. A context manager; close() ends it.

    Tracing calls Python for every instruction that is traced: expect some hundred thousand a second.

    Args:
        processor: whose instructions.
        file: text file that is written.
        where: linear addresses whose instructions are written; all of them where it is None. Faults, interrupts and VM
            exits are written wherever they come up.
        symbols: name to linear address; an instruction at one gets a line with the name before it, and one that
            refers to one a comment behind it.
        lines: linear address to the line of the source, which is named at the end of an instruction that begins one.
        wanted: whether what runs is wanted: asked before a line, which is left out where the answer is no. Once it was
            yes in a VM, instructions of others are passed over without asking.
    """

    def __init__(
        self,
        processor: "Processor",
        file: TextIO,
        where: range | None = None,
        symbols: Mapping[str, int] | None = None,
        wanted: Callable[[], bool] | None = None,
        lines: Mapping[int, "SourceLine"] | None = None,
    ) -> None:
        self.processor = processor
        self.file = file
        self.wanted = wanted
        self.seen = processor.transition_count
        self.failure = processor.vmx_failure
        self.names = Names(symbols or {})
        self.lines = lines or {}
        self.texts: dict[tuple[int, int, int, bytes], tuple[str, str]] = {}
        self.hooks: list[Hook] = [
            processor.hook("instruction", self.instruction, where),
            processor.hook("interrupt", self.interrupt),
            processor.hook("vm_exit", self.vm_exit),
        ]

    def __enter__(self) -> "Trace":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing more is written; the file stays open."""
        for hook in self.hooks:
            hook.remove()
        self.hooks = []
        self.file.flush()

    def instruction(self, address: int) -> None:
        """A line for the instruction that comes next."""
        if not self.begin_line():
            return
        cpu = self.processor
        code, text = self.text_at(address)
        name = self.names.at.get(address)
        if name is not None:
            self.file.write(f"{name}:\n")
        where = f"{cpu.cs.selector:04X}:{cpu.rip:08X}"
        self.file.write(f"{cpu.cycles:14} {cpu.instructions:12}  {where} {address:08X}  {code:<22} {text}\n")

    def interrupt(self, vector: int, rip: int) -> None:
        """A line for an exception or interrupt that is about to be delivered."""
        name = VECTOR_NAMES.get(vector, "interrupt")
        self.event(f"{name}, vector {vector:#04x}, returns to RIP {rip:#x}")

    def vm_exit(self, reason: int, qualification: int) -> None:
        """A line for a VM exit."""
        name = EXIT_REASON_NAMES.get(reason & 0xFFFF, f"reason {reason:#x}")
        self.event(f"VM exit {name}, qualification {qualification:#x}")

    def begin_line(self) -> bool:
        """Whether a line is wanted now; before it come lines for the VM entries since the last one."""
        cpu = self.processor
        count = cpu.transition_count
        if self.wanted is not None and not self.wanted():
            self.seen = count
            return False
        if self.wanted is not None and cpu.vmx_operation == "non-root":
            vmcs = cpu.vmcs.address
            if self.hooks and self.hooks[0].vmcs != vmcs:
                self.hooks[0].vmcs = vmcs
        if count != self.seen:
            for one in cpu.transitions(min(self.seen, count)):
                if one.kind == "entry":
                    text = f"VM entry, VMCS {one.vmcs:#x}, RIP {one.rip:#x}"
                    self.file.write(f"{one.cycle:14} {'':12}  ---- {text}\n")
            self.seen = count
        failure = cpu.vmx_failure
        if failure != self.failure:
            self.failure = failure
            if failure is not None:
                self.file.write(f"{cpu.cycles:14} {'':12}  ---- VM entry failed by {failure}\n")
        return True

    def event(self, text: str) -> None:
        """A line of another kind than an instruction."""
        if not self.begin_line():
            return
        cpu = self.processor
        self.file.write(f"{cpu.cycles:14} {cpu.instructions:12}  ---- {text}\n")

    def text_at(self, address: int) -> tuple[str, str]:
        """The bytes and the text of the instruction at a linear address."""
        from asm.instructions.disassemble import disassemble

        cpu = self.processor
        count = min(LONGEST, PAGE_SIZE - address % PAGE_SIZE)
        code = cpu.read_linear(address, count)  # mapped: an instruction whose fetch faults never gets here
        if count < LONGEST and cpu.translate(address + count) is not None:
            code += cpu.read_linear(address + count, LONGEST - count)
        base = cpu.cs.base if address - cpu.cs.base in range(cpu.cs.limit + 1) else 0
        key = (address, base, cpu.bits, code)
        known = self.texts.get(key)
        if known is None:
            ((_, taken, text),) = disassemble(code, cpu.bits, address - base, 1, exact=False)
            if len(self.texts) >= MOST_TEXTS:
                self.texts.clear()
            text += self.names.comment(text, base)
            if (line := self.lines.get(address)) is not None:
                text += f" ; {line}"
            known = self.texts[key] = (taken.hex().upper(), text)
        return known
