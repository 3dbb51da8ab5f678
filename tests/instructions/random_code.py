"""Random code in random states: what a hostile guest might be.

World puts a processor into a mode, with tables that are half plausible and half garbage, and registers that mostly
point into its megabyte. What then runs is random bytes, whole instructions among them, so that stores hit code, page
tables and descriptors.
"""

import functools
import random
import struct
from collections.abc import Callable

import asm.table
import emu
import emu.models

MEMORY = 1 << 20
CODE = range(0x10000, 0x14000)
GDT, IDT, TSS, TABLES = 0x1000, 0x2000, 0x4000, 0x80000
PM, PG, CR0_REST = 1, 0x80000000, 0x50036  # MP EM TS NE WP AM
PSE, PAE, PGE = 0x10, 0x20, 0x80
LME, LMA, NXE = 0x100, 0x400, 0x800
VM = 0x20000

OPCODES = [form for form in asm.table.FORMS if form.decodes and form.map < 2]


def instruction(rng: random.Random) -> bytes:
    """Bytes that are an instruction more often than not."""
    form = rng.choice(OPCODES)
    prefixes = rng.choices((b"", b"\x66", b"\x67", b"\xf0", b"\xf2", b"\xf3", b"\x2e", b"\x64", b"\x48", b"\x4d"),
                           (40, 4, 4, 1, 2, 2, 1, 1, 4, 2))[0]  # fmt: skip
    modrm = (
        form.digit << 3 | rng.choice((0, 0x40, 0x80, 0xC0)) | rng.randrange(8)
        if form.digit >= 0
        else rng.randrange(256)
    )
    if form.fixed >= 0:
        modrm = form.fixed
    code = prefixes + (b"\x0f" if form.map else b"") + bytes([form.opcode, modrm])
    return code + rng.choice((rng.randbytes(2), bytes(3), rng.randbytes(4), b"\x10\x00", b"\xff\xff\xff\xff"))


@functools.cache
def pool() -> list[bytes]:
    """What code is drawn from: to make every instruction anew would take most of a test's time."""
    rng = random.Random("pool")
    return [instruction(rng) if rng.random() < 0.85 else rng.randbytes(rng.randrange(1, 8)) for _ in range(1 << 14)]


class World:
    """A processor that random() puts into one random state after the other.

    Args:
        mode: one of MODES.
        seed: of everything that is random.
    """

    def __init__(self, mode: str, seed: int, *, timing: str = "static", faults: str = "deliver") -> None:
        self.rng = random.Random(f"{mode} {seed}")
        self.mode = mode
        self.long = mode in ("64-bit", "64-bit paging", "compatibility")
        model = "westmere" if self.long or mode == "chaos" else "pentium3"
        self.cpu = emu.Cpu(bits=16, cpu=model, memory=MEMORY, timing=timing, faults=faults)
        self.blank = self.cpu.save()

    def address(self) -> int:
        """A number that is likely to be the address of something."""
        rng = self.rng
        kind = rng.randrange(12)
        if kind < 4:
            return rng.choice(CODE)
        if kind < 8:
            return rng.randrange(MEMORY)
        if kind < 10:
            return rng.choice((0, 0xFFFF, 0xFFFFFFFF, 0xFFFE, 0x7FFFFFFF, 0xFFFFF, TABLES, GDT, IDT, TSS))
        return rng.getrandbits(rng.choice((8, 16, 32, 64)))

    def descriptor(self) -> bytes:
        """A descriptor or gate, plausible three times out of four."""
        rng = self.rng
        if rng.random() < 0.25:
            return rng.randbytes(8)
        access = rng.choice(bytes.fromhex("9a929b93faf2969e898b8281838c8485ecbab2"))
        if access & 0x1F in (0xC, 4, 5):
            offset = rng.choice(CODE)
            return struct.pack(
                "<HHBBH", offset & 0xFFFF, rng.randrange(0, 0x100, 4), rng.randrange(32), access, offset >> 16
            )
        base = rng.choice((0, 0, CODE[0], TSS, rng.randrange(MEMORY)))
        limit = rng.choice((0xFFFFF, 0xFFFFF, 0xFFFF, 0x67, rng.randrange(1 << 20)))
        flags = rng.choice((0xC, 0xC, 0x4, 0, 0x8, 0xA, 0x2))
        return struct.pack("<HHBBBB", limit & 0xFFFF, base & 0xFFFF, base >> 16 & 0xFF, access,
                           flags << 4 | limit >> 16, base >> 24)  # fmt: skip

    def gate(self, wide: bool) -> bytes:
        rng = self.rng
        if rng.random() < 0.1:
            return rng.randbytes(16 if wide else 8)
        offset = rng.choice(CODE)
        access = rng.choice((0x8E, 0x8F, 0xEE, 0x86, 0x85, 0x8E, 0x8E)) if not wide else rng.choice((0x8E, 0x8F, 0xEE))
        selector = rng.choice((8, 8, 8, rng.randrange(0, 0x100, 8)))
        low = struct.pack("<HHBBH", offset & 0xFFFF, selector, rng.randrange(8) if wide else 0, access, offset >> 16)
        return low + (struct.pack("<Q", 0) if wide else b"")

    def fill_memory(self) -> None:
        rng, memory = self.rng, self.cpu.memory
        memory.write(0, rng.randbytes(0x10000))
        memory.write(CODE[0], b"".join(rng.choices(pool(), k=3200))[: len(CODE)])
        for vector in range(256):  # the table of real-address mode, where IDT does not lie over it
            memory.write(vector * 4, struct.pack("<HH", rng.choice(CODE) & 0xFFFF, rng.choice((0x1000, 0, 0x1000))))
        wide = self.long
        table = b"".join(self.descriptor() for _ in range(64))
        # Entries that let most of it work: flat code and data of both levels, and a TSS.
        flat = [0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFFB000000FFFF, 0x00CFF3000000FFFF]
        if wide:
            flat[1] = 0x00AF9B000000FFFF
            flat[3] = 0x00AFFB000000FFFF
        memory.write(GDT, struct.pack("<5Q", *flat) + table[40:])
        memory.write(IDT, b"".join(self.gate(wide) for _ in range(256)))
        memory.write(TSS, struct.pack("<26I", 0, *(self.address() & 0xFFFFFFFF for _ in range(25))))
        memory.write(TSS + 4, struct.pack("<II", 0x9000, 0x10))

    def fill_tables(self, entry_size: int, levels: int) -> None:
        """Page tables in TABLES: level by level, each pointing into the next; some entries are anything."""
        rng, memory = self.rng, self.cpu.memory
        count = 4096 // entry_size
        pattern = f"<{count}{'Q' if entry_size == 8 else 'I'}"
        for level in range(levels):
            last = level == levels - 1
            entries = []
            for index in range(count):
                rights = rng.choice((7, 7, 7, 3, 0x67, 0x27, 0x107, 1, 5))
                if rng.random() < 0.03:
                    entries.append(rng.getrandbits(8 * entry_size))
                elif last:
                    page = index if rng.random() < 0.9 else rng.randrange(300)
                    entries.append((page & 0xFF) << 12 | rights)
                elif rng.random() < 0.1:
                    entries.append(rights | 0x80)
                else:
                    entries.append(TABLES + (level + 1) * 0x1000 | rights)
            memory.write(TABLES + level * 0x1000, struct.pack(pattern, *entries))

    def segments(self, *, base: Callable[[], int], limit: int, access: int, code_access: int) -> None:
        cpu = self.cpu
        for number, segment in enumerate((cpu.cs, cpu.ds, cpu.es, cpu.ss, cpu.fs, cpu.gs)):
            segment.base = base()
            segment.limit = limit
            segment.access = access if number else code_access
            segment.selector = 8 if not number else 0x10

    def random(self) -> None:
        """Makes another state of the mode, and forgets the last one."""
        rng, cpu = self.rng, self.cpu
        cpu.restore({**self.blank, "instructions": cpu.instructions, "tsc_offset": 0})
        self.fill_memory()
        cpu.gdtr.base, cpu.gdtr.limit = GDT, 0x1FF
        cpu.idtr.base, cpu.idtr.limit = (IDT, 0xFFF) if self.long else (IDT, 0x7FF)
        cpu.tr.base, cpu.tr.limit, cpu.tr.access, cpu.tr.selector = TSS, 0x67, 0x8B, 0x28
        getattr(self, "_" + self.mode.replace(" ", "_").replace("-", "_"))()
        if self.mode != "chaos" and rng.random() < 0.1:
            cpu.cr0 = cpu.cr0 | rng.getrandbits(32) & CR0_REST
        self.move()

    def move(self) -> None:
        """Other registers, and other code."""
        rng, cpu = self.rng, self.cpu
        names = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp")
        for name in names:
            setattr(cpu, name, self.address())
        if rng.random() < 0.8:
            cpu.rsp = rng.randrange(0x8000, 0xF000)
        if self.long:
            for number in range(8, 16):
                setattr(cpu, f"r{number}", self.address())
        cpu.rflags = (
            cpu.rflags & VM | rng.getrandbits(12) & 0xED5 | 2 | rng.choice((0, 0x3000, 0x3000, 0x4000, 0x40000))
        )
        cpu.rip = (rng.choice(CODE) - cpu.cs.base) & (0xFFFF if not cpu.cs.access & 0x6000 else 0xFFFFFFFF)

    # --- modes ---

    def _real(self) -> None:
        self.segments(base=lambda: self.rng.choice((0x10000, 0, 0x12340)), limit=0xFFFF, access=0x93, code_access=0x9B)
        self.cpu.cs.base, self.cpu.cs.selector = CODE[0], CODE[0] >> 4
        self.cpu.idtr.base, self.cpu.idtr.limit = 0, 0x3FF

    def _unreal(self) -> None:
        self._real()
        for segment in (self.cpu.ds, self.cpu.es, self.cpu.ss):
            segment.limit, segment.base = 0xFFFFFFFF, 0

    def _protected(self, bits: int) -> None:
        cpu, big = self.cpu, 0xC000 if bits == 32 else 0
        cpu.cr0 = 0x10 | PM
        self.segments(base=lambda: 0 if big else CODE[0], limit=0xFFFFFFFF if big else 0xFFFF, access=0x93 | big,
                      code_access=0x9B | big)  # fmt: skip
        if self.rng.random() < 0.3:
            self.user()

    def user(self) -> None:
        cpu = self.cpu
        for segment in (cpu.cs, cpu.ds, cpu.es, cpu.ss, cpu.fs, cpu.gs):
            segment.access, segment.selector = segment.access | 0x60, segment.selector + 0x13
        cpu.cpl = 3

    def _protected_16(self) -> None:
        self._protected(16)

    def _protected_32(self) -> None:
        self._protected(32)

    def _v86(self) -> None:
        cpu = self.cpu
        cpu.cr0 = 0x10 | PM
        cpu.cr4 = self.rng.choice((0, 1, 1))
        cpu.cpl = 3
        cpu.rflags = VM | 2
        self.segments(base=lambda: CODE[0], limit=0xFFFF, access=0xF3, code_access=0xF3)
        for segment in (cpu.cs, cpu.ds, cpu.es, cpu.ss, cpu.fs, cpu.gs):
            segment.selector = CODE[0] >> 4

    def _paging(self) -> None:
        self.fill_tables(4, 2)
        self._protected(32)
        self.cpu.cr3 = TABLES
        self.cpu.cr4 = self.rng.choice((0, PSE, PSE | PGE))
        self.cpu.cr0 = 0x10 | PM | PG

    def _PAE_paging(self) -> None:
        self.fill_tables(8, 3)
        pointers = [TABLES + 0x1000 | 1 if self.rng.random() < 0.8 else 0 for _ in range(4)]
        self.cpu.memory.write(TABLES, struct.pack("<4Q", *pointers))
        self._protected(32)
        self.cpu.cr3 = TABLES
        self.cpu.cr4 = PAE | self.rng.choice((0, PGE))
        self.cpu.cr0 = 0x10 | PM | PG

    def _64_bit(self) -> None:
        cpu = self.cpu
        cpu.cr0 = 0x10 | PM
        cpu.cr4 = PAE
        cpu.efer = LME | LMA
        self.segments(base=lambda: 0, limit=0xFFFFFFFF, access=0xC093, code_access=0xA09B)
        if self.rng.random() < 0.3:
            self.user()

    def _64_bit_paging(self) -> None:
        self._64_bit()
        self.fill_tables(8, 4)
        self.cpu.cr3 = TABLES
        self.cpu.efer = LME | LMA | self.rng.choice((0, NXE))
        self.cpu.cr0 = 0x10 | PM | PG

    def _compatibility(self) -> None:
        self._64_bit_paging()
        self.cpu.cs.access = self.cpu.cs.access & ~0x2000 | 0x4000

    def _chaos(self) -> None:
        """Control registers and segments that no processor could have all at once."""
        rng, cpu = self.rng, self.cpu
        self.fill_tables(8, 4)
        cpu.cr3 = rng.choice((TABLES, self.address() & 0xFFFFFFFF))
        cpu.efer = rng.getrandbits(12) & (1 | LME | LMA | NXE)
        for register, value in (
            ("cr4", rng.getrandbits(14) & 0x27FF),
            ("cr0", rng.getrandbits(32) & 0x80050037 | PM),
        ):
            try:
                setattr(cpu, register, value)
            except (ValueError, emu.CpuFault):
                continue
        for segment in (cpu.cs, cpu.ds, cpu.es, cpu.ss, cpu.fs, cpu.gs, cpu.ldtr, cpu.tr):
            segment.access = rng.getrandbits(17) & 0x1F0FF
            segment.base, segment.limit = rng.choice((0, 0, self.address() & 0xFFFFFFFF)), self.address() & 0xFFFFFFFF
            segment.selector = rng.getrandbits(16)
        cpu.cpl = rng.randrange(4)
        cpu.rflags = rng.choice((2, 2, VM | 2))
        for number in range(4):
            setattr(cpu, f"dr{number}", self.address())
        if rng.random() < 0.2:
            cpu.dr7 = rng.getrandbits(32)


MODES = ("real", "unreal", "protected 16", "protected 32", "v86", "paging", "PAE paging", "64-bit", "64-bit paging",
         "compatibility", "chaos")  # fmt: skip
