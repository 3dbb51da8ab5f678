"""Random differential tests of system and segment instructions at CPL 0 against Unicorn.

Oracle: Unicorn 2, in 32-bit protected mode without and with paging, for what runs to its end. Left out, since it is no
reliable witness there, each with where it is tested:
    exceptions (which one, error codes, priority), segment limits and types    test_protected_segments.py
    privilege changes, gates, task switches                                    test_protected_far.py, test_tasks.py
    virtual-8086 mode                                                          test_v86.py
    single step, breakpoints, shadows                                          test_shadows.py
    CPUID, RDTSC, MSRs, reserved bits of control registers                     test_protected_system.py
    PUSH Sreg: it writes 4 bytes, recent processors 2 (SDM Vol. 2, "PUSH")     test_protected_segments.py
    LAR: it hides bits 16 to 19, which the host's LAR gives                    bits that are masked here
A case that raises an exception in either is not compared.
"""

import functools
import random
import struct
from typing import Any

import pytest
from system import CODE0, CODE3, DATA0, DATA1, DATA3, LOCAL, TASK, Bench, assemble, code, data

import emu

unicorn = pytest.importorskip("unicorn", reason="the oracle, the package unicorn of PyPI, is not installed")
from unicorn import x86_const as x86  # noqa: E402

CASES = 3000  # with and without paging
PLACE, WINDOW, SIZE = 0x10000, 0x20000, 0x200
REGISTERS = ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp")
SEGMENTS = ("cs", "ds", "es", "ss", "fs", "gs")
STATUS = 0x8D5
FREE = 0x50
SELECTORS = (0, CODE0, DATA0, CODE3, DATA3, DATA1, TASK, LOCAL, FREE, FREE + 8, FREE + 16, 0x3F8, 0xFFF8)
TEXTS = (
    "lar eax, bx", "lar eax, [esi]", "lar ax, bx", "lsl eax, bx", "lsl ax, bx", "lsl ecx, [esi]", "verr bx",
    "verw bx", "verr [esi]", "verw [esi]", "arpl cx, bx", "arpl [esi], bx", "sldt eax", "sldt [esi]", "str eax",
    "str [esi]", "smsw ax", "smsw [esi]", "sgdt [esi]", "sidt [esi]", "clts", "cli", "sti", "cld", "std", "pushfd",
    "pushfw", "popfd", "popfw", "mov eax, cr0", "mov eax, cr2", "mov eax, cr3", "mov cr2, ebx", "mov eax, dr1",
    "mov dr1, ebx", "mov es, bx", "mov fs, bx", "mov gs, [esi]", "mov ds, bx", "mov eax, es", "mov [esi], gs",
    "pop es", "pop fs", "les eax, [esi]", "lfs bx, [esi]", "lgs ecx, [esi]", "invlpg [esi]", "wbinvd", "sahf", "lahf",
    "bound ebx, [esi]", "enter 16, 3", "leave", "pushad", "popad", "xlatb", "cmpxchg8b [esi]", "xadd [esi], ebx",
    "lock cmpxchg [esi], ecx", "bts [esi], ebx", "call far [esi]", "jmp far [esi]", "retf", "iretd", "mov ss, cx",
    "lss ebx, [esi]",
)  # fmt: skip
# Flags that an instruction leaves undefined, by the first word of the text.
UNDEFINED = {"bts": 0x894}


@functools.cache
def binary(text: str) -> bytes:
    return assemble(text, 32, PLACE)


class Pair:
    """Ours and Unicorn's, with the same memory and the same tables."""

    def __init__(self, rng: random.Random, paging: bool) -> None:
        self.rng = rng
        bench = Bench(faults="raise")
        self.bench, self.cpu = bench, bench.cpu
        for selector in (FREE, FREE + 8, FREE + 16):
            make = rng.choice((code, data))
            type_ = rng.choice((8, 0xA, 0xC, 0xE) if make is code else (0, 2))
            bench.set_descriptor(
                selector, make(rng.randrange(4), type_=type_, base=rng.choice((0, 0x100)), limit=0xFFFFF)
            )
        if paging:
            bench.map_pages()
        self.memory = self.cpu.memory.read(0, 1 << 20)
        self.uc: Any
        self.uc = uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        uc.mem_map(0, 1 << 20)
        uc.mem_write(0, self.memory)
        for name in ("gdtr", "idtr"):
            table = getattr(self.cpu, name)
            uc.reg_write(self.number(name), (0, table.base, table.limit, 0))
        uc.reg_write(x86.UC_X86_REG_LDTR, (LOCAL, self.cpu.ldtr.base, self.cpu.ldtr.limit, 0x8200))
        uc.reg_write(x86.UC_X86_REG_TR, (TASK, self.cpu.tr.base, self.cpu.tr.limit, 0x8B00))
        if paging:
            uc.reg_write(x86.UC_X86_REG_CR3, self.cpu.cr3)
            uc.reg_write(x86.UC_X86_REG_CR0, self.cpu.cr0)
        else:
            uc.reg_write(x86.UC_X86_REG_CR0, self.cpu.cr0)
        self.blank = self.cpu.save()

    @staticmethod
    def number(name: str) -> int:
        return int(getattr(x86, f"UC_X86_REG_{name.upper()}"))

    def both(self, name: str, value: int) -> None:
        setattr(self.cpu, name, value)
        self.uc.reg_write(self.number(name), value)

    def write(self, address: int, data: bytes) -> None:
        self.cpu.memory.write(address, data)
        self.uc.mem_write(address, data)

    def differences(self, text: str) -> list[str] | None:
        """Runs one instruction on both; None where it raised an exception in both."""
        rng, cpu, uc = self.rng, self.cpu, self.uc
        cpu.restore({**self.blank, "instructions": 0})
        window = bytearray(rng.randbytes(SIZE))
        at = rng.randrange(0x80, 0x100, 4)
        # A far pointer, bounds and a frame that make sense more often than random bytes do.
        pointer = struct.pack("<II", PLACE + 0x40, rng.choice(SELECTORS))
        window[at : at + 8] = pointer
        frame = pointer + struct.pack("<I", rng.getrandbits(12) & 0xED5 | 2) if text == "iretd" else pointer
        window[0x140 : 0x140 + len(frame)] = frame
        self.write(WINDOW, bytes(window))
        place = PLACE + TEXTS.index(text) * 32  # Unicorn translates what was at an address before
        self.write(place, binary(text) + b"\x90\x90")
        for name, value in zip(("cs", "ds", "es", "ss", "fs", "gs"), (CODE0, *[DATA0] * 5), strict=True):
            uc.reg_write(self.number(name), value)
        uc.reg_write(x86.UC_X86_REG_CR2, 0)
        uc.reg_write(x86.UC_X86_REG_DR1, 0)
        self.write(0, self.memory[:0x5000])  # what loading the registers marked as accessed too
        for name in REGISTERS:
            self.both(name, rng.getrandbits(32))
        self.both("ebx", rng.choice((rng.choice(SELECTORS), rng.randrange(64))))
        self.both("esi", WINDOW + at)
        self.both("ebp", WINDOW + 0x160)
        self.both("esp", WINDOW + 0x140)
        self.both("ecx", rng.choice((DATA0, rng.getrandbits(32))))
        if text == "xlatb":
            self.both("ebx", WINDOW)
        flags = rng.getrandbits(12) & 0xED5 & ~0x100 | 2
        cpu.rflags = flags
        uc.reg_write(x86.UC_X86_REG_EFLAGS, flags)
        cpu.rip = place
        raised = theirs = False
        try:
            cpu.step()
        except emu.CpuFault:
            raised = True
        try:
            uc.emu_start(place, 0, count=1)
        except unicorn.UcError:
            theirs = True
        if raised or theirs or uc.reg_read(x86.UC_X86_REG_EIP) == place:  # now and then it stops before the instruction
            return None
        found = []
        shown = 0xFFF0FFFF if text.startswith("lar") else 0xFFFFFFFF
        for name in (*REGISTERS, "eip"):
            if (getattr(cpu, name) ^ uc.reg_read(self.number(name))) & shown:
                found.append(f"{name} {getattr(cpu, name):x}, Unicorn's is {uc.reg_read(self.number(name)):x}")
        for name in SEGMENTS:
            if getattr(cpu, name).selector != uc.reg_read(self.number(name)):
                found.append(f"{name} {getattr(cpu, name).selector:x}, Unicorn's is {uc.reg_read(self.number(name)):x}")
        mask = 0x3FEED7 & ~UNDEFINED.get(text.removeprefix("lock ").split()[0], 0)
        if (cpu.rflags ^ uc.reg_read(x86.UC_X86_REG_EFLAGS)) & mask:
            found.append(f"flags {cpu.rflags:x}, Unicorn's are {uc.reg_read(x86.UC_X86_REG_EFLAGS):x}")
        if cpu.memory.read(WINDOW, SIZE) != uc.mem_read(WINDOW, SIZE):
            found.append("memory differs")
        return found


@pytest.mark.parametrize("paging", [False, True])
def test_system_instructions_against_unicorn(paging: bool) -> None:
    rng = random.Random(f"unicorn {paging}")
    wrong, compared = [], 0
    for group in range(10):
        pair = Pair(rng, paging)
        for n in range(CASES // 10):
            text = TEXTS[(group * CASES // 10 + n) % len(TEXTS)]
            found = pair.differences(text)
            compared += found is not None
            if found:
                wrong.append(f"{text}:\n  " + "\n  ".join(found))
    assert not wrong, f"{len(wrong)} of {CASES} cases differ:\n" + "\n".join(wrong[:20])
    assert compared > CASES // 2
