"""Random one-instruction tests made from the rows of the instruction table, for any oracle that runs user-mode code.

A case is one instruction with the state before it. All memory that it reaches lies in a window below 1 MiB, so that
16-, 32- and 64-bit code sees the same bytes: 16-bit code through segments whose base is SEGMENT_BASE, the others flat.
"""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from asm.table import FORMS, Form

SEGMENT_BASE = 0x20000
WINDOW = 0x24000
WINDOW_SIZE = 2048
DATA = range(WINDOW + 128, WINDOW + 896)  # where memory operands begin
STACK = range(WINDOW + 1500, WINDOW + 1700)  # where the stack pointer points
CODE = (0x28000, 0x28FF0)  # inside a page, and where the instruction crosses into the next one
POOL_SIZE = 65536

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
FLAG_LETTERS = {"o": 0x800, "s": 0x80, "z": 0x40, "a": 0x10, "p": 4, "c": 1, "d": 0x400}
STATUS_FLAGS = 0x8D5
CF, DF = 1, 0x400
COMPARED_FLAGS = STATUS_FLAGS | DF

# Forms that are no matter of user-mode state, each with where it is tested instead.
_PROTECTION = "segments and privilege: test_protected.py"
EXCLUDED = {
    **dict.fromkeys(("LDS", "LES", "LFS", "LGS", "LSS", "LAR", "LSL", "VERR", "VERW", "ARPL"), _PROTECTION),
    **dict.fromkeys(("SLDT", "STR", "SMSW", "SGDT", "SIDT", "RETF"), _PROTECTION),
    **dict.fromkeys(("INT", "INT1", "INT3", "INTO", "IRET", "IRETD", "IRETQ"), "interrupts: test_interrupts.py"),
    **dict.fromkeys(("SYSCALL", "SYSENTER"), "system calls: test_protected.py"),
    **dict.fromkeys(("PUSHF", "PUSHFD", "PUSHFQ", "POPF", "POPFD", "POPFQ"), "IF and IOPL differ: test_protected.py"),
    **dict.fromkeys(("CPUID", "RDTSC", "RDTSCP", "RDPID", "RDPMC", "RDRAND", "RDSEED"), "two processors differ"),
    **dict.fromkeys(("XGETBV", "RDFSBASE", "RDGSBASE", "WRFSBASE", "WRGSBASE"), "as the operating system enabled them"),
    **dict.fromkeys(("WAIT", "MONITOR", "MWAIT", "CLAC", "STAC"), "as CR0 and CR4 say: test_protected.py"),
    **dict.fromkeys(("ENDBR32", "ENDBR64", "VMCALL", "VMFUNC", "CLDEMOTE"), "as the operating system enabled them"),
}


class Case(NamedTuple):
    """One instruction and the state before it; addresses are linear."""

    form: Form
    bits: int
    code: bytes
    address: int
    registers: tuple[int, ...]
    flags: int
    pool: int  # the window's content: the pool from here on,
    patch: int  # then at this offset of the window
    patch_bytes: bytes
    taken: int  # where a branch goes, 0 for none
    undefined: int  # flags left undefined

    @property
    def repeats(self) -> bool:
        """Does a prefix repeat the instruction?"""
        return (self.form.rep or self.form.repz) and bool({0xF2, 0xF3} & set(self.code[:4]))

    def memory(self, pool: bytes) -> bytearray:
        """The window's content before the instruction."""
        window = bytearray(pool[self.pool : self.pool + WINDOW_SIZE])
        window[self.patch : self.patch + len(self.patch_bytes)] = self.patch_bytes
        return window

    def describe(self) -> str:
        names = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di", *(f"r{n}" for n in range(8, 16)))
        state = " ".join(f"{name}={value:x}" for name, value in zip(names, self.registers, strict=True))
        return (
            f"{self.form.syntax} ({self.form.encoding}), {self.bits}-bit, {self.code.hex(' ')} at {self.address:x}\n"
            f"  flags={self.flags:x} {state}\n  window[{self.patch:x}] = {self.patch_bytes.hex(' ')}, pool {self.pool}"
        )


class Unusable(Exception):
    """These random choices do not fit together; others will."""


def is_user_form(form: Form) -> bool:
    """Can the form run in user mode and leave nothing but general registers, flags and memory?"""
    operands = " ".join(operand.where for operand in form.operands)
    return (
        form.decodes
        and form.cpl == "3"
        and form.mnemonic not in EXCLUDED
        and "pm" not in form.notes
        and not any(place in operands for place in ("SREG", "CR", "DR", "FAR", "ES", "CS", "SS", "DS", "FS", "GS"))
        and not any(":" in operand.text for operand in form.operands)
        and form.syntax != "BSWAP r16"  # the result is undefined
        and not (form.map == 1 and form.opcode == 0x0D)  # with a register NOP on Intel's processors, #UD on AMD's
    )


def forms(bits: int, available: Callable[[str], bool] = lambda since: True) -> list[Form]:
    """The forms to test in code of that size; `available` says whether the oracle has a CPUID feature (Form.since)."""
    return [
        form
        for form in FORMS
        if bits in form.modes
        and is_user_form(form)
        and available(form.since)
        # 16-bit near branches go to the first 64 KiB, where the flat segments of an operating system hold nothing.
        and not (bits == 32 and form.osize == 16 and "end" in form.notes)
    ]


def make_case(rng: random.Random, form: Form, bits: int) -> Case:
    """A case of the form, with other random choices until they fit together."""
    for _ in range(200):
        try:
            return _Maker(rng, form, bits).make()
        except Unusable:
            continue
    raise AssertionError(f"no case found for {form.syntax} ({form.encoding}) in {bits}-bit code")


def random_cases(seed: str, bits: int, count: int, candidates: list[Form]) -> Iterator[Case]:
    """`count` cases that go through the forms in turn."""
    rng = random.Random(seed)
    for n in range(count):
        yield make_case(rng, candidates[n % len(candidates)], bits)


_LIMITS = (
    value & ((1 << 64) - 1)
    for width in (8, 16, 32, 64)
    for value in (-(1 << (width - 1)), (1 << (width - 1)) - 1, (1 << width) - 1, 1 << (width - 1))
)
_INTERESTING = (*_LIMITS, 0, 1, 2, 7, 8, 9, 15, 16, 31, 32, 33, 63, 64, 0x99, 0x9A, 0xF, 0xA)


def _signed(value: int, bits: int) -> int:
    return (value & ((1 << bits) - 1)) - ((value & (1 << (bits - 1))) << 1)


class _Maker:
    """Makes one case."""

    def __init__(self, rng: random.Random, form: Form, bits: int) -> None:
        self.rng = rng
        self.form = form
        self.bits = bits
        self.base = SEGMENT_BASE if bits == 16 else 0
        mode_osize = 16 if bits == 16 else 32
        long_default = bits == 64 and (form.default64 or form.force64)
        self.osize = form.osize or (64 if long_default else mode_osize)
        self.asize = form.asize or self._choose_asize()
        self.registers = [self._value() for _ in range(16)]
        self.pinned = {RSP}
        self.registers[RSP] = rng.choice(STACK) - self.base
        self.prefixes: list[int] = []
        self.rex = 0
        self.immediate = b""
        self.ea = -1  # linear address of the memory operand
        self.patch = 0
        self.patch_bytes = b""
        self.taken = 0
        self.address = rng.choice(CODE) + rng.randrange(16)

    def make(self) -> Case:
        form = self.form
        self._choose_prefixes()
        opcode = form.opcode
        modrm = b""
        if form.fixed >= 0:
            modrm = bytes([form.fixed + (self.rng.randrange(8) if form.plus_modrm else 0)])
        elif form.modrm:
            modrm = self._modrm()
        elif form.plus_register:
            opcode |= self._register("OPREG")
        elif any(operand.kind == "moffs" for operand in form.operands):
            if self.asize == 16 and self.base == 0:
                raise Unusable
            self.ea = self.rng.choice(DATA)
            self.immediate = (self.ea - self.base).to_bytes(self.asize // 8, "little")
        self._immediates()
        prepare = _PREPARE.get(form.mnemonic)
        if prepare:
            prepare(self)
        maps = (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a")
        rex = bytes([self.rex]) if self.rex else b""
        code = bytes(self.prefixes) + rex + maps[form.map] + bytes([opcode]) + modrm + self.immediate
        if self.rip_relative:
            end = self.address + len(code)
            at = len(code) - len(self.immediate) - 4
            code = code[:at] + ((self.ea - end) & 0xFFFFFFFF).to_bytes(4, "little") + code[at + 4 :]
        code = self._branch(code)
        mask = (1 << (64 if self.bits == 64 else 32)) - 1
        flags = self.rng.randrange(0x1000) & COMPARED_FLAGS
        return Case(
            form, self.bits, code, self.address, tuple(value & mask for value in self.registers), flags,
            self.rng.randrange(POOL_SIZE - WINDOW_SIZE), self.patch, self.patch_bytes, self.taken, self._undefined(),
        )  # fmt: skip

    # --- values ---

    def _value(self) -> int:
        kind = self.rng.randrange(4)
        if kind == 0:
            return self.rng.choice(_INTERESTING)
        if kind == 1:
            return self.rng.randrange(256)
        return self.rng.getrandbits(64)

    def set(self, number: int, value: int, size: int = 64) -> None:
        """Gives a register a value in its low `size` bits, unless something else needs the one it has."""
        if number in self.pinned:
            raise Unusable
        mask = (1 << size) - 1
        self.registers[number] = (self.registers[number] & ~mask) | (value & mask)
        self.pinned.add(number)

    def write(self, address: int, value: int, size: int) -> None:
        """Gives memory a value before the instruction."""
        self.patch = address - WINDOW
        self.patch_bytes = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")

    def size_of(self, number: int) -> int:
        return self.form.operands[number].size

    # --- encoding ---

    def _choose_asize(self) -> int:
        usual, other = {16: (16, 32), 32: (32, 16), 64: (64, 32)}[self.bits]
        uses = self.form.takes_memory or self.form.mnemonic in _USES_ADDRESS_SIZE
        return other if uses and self.rng.random() < 0.25 else usual

    def _choose_prefixes(self) -> None:
        form, rng, bits = self.form, self.rng, self.bits
        prefixes = []
        if form.osize == 64:
            self.rex |= 0x48
        elif form.osize and (form.osize == 16) != (bits == 16):
            prefixes.append(0x66)
        if self.asize != bits:
            prefixes.append(0x67)
        if form.prefix in ("66", "F2", "F3"):
            prefixes.append(int(form.prefix, 16))
        elif (form.rep or form.repz) and rng.random() < 0.75:
            prefixes.append(rng.choice((0xF2, 0xF3)))
        if (form.takes_memory or form.mnemonic in _USES_ADDRESS_SIZE) and rng.random() < 0.1:
            prefixes.append(rng.choice((0x26, 0x36, 0x3E)))  # ES SS DS: all the same here
        if bits == 64 and rng.random() < 0.3 and not form.rex_b0:
            self.rex |= 0x40 | rng.randrange(8)
        rng.shuffle(prefixes)
        self.prefixes = prefixes

    @property
    def repeats(self) -> bool:
        return 0xF2 in self.prefixes or 0xF3 in self.prefixes

    def _register(self, where: str) -> int:
        """A register's three bits for that place; REX bits were chosen before."""
        number = self.rng.randrange(8)
        bit = 4 if where == "REG" else 1
        if self.rex & bit and self.form.rex_b0 and bit == 1:
            self.rex &= ~1
        self.places[where] = number | (8 if self.rex & bit else 0)
        return number

    @property
    def places(self) -> dict[str, int]:
        """Numbers of the registers in RM, REG and OPREG."""
        return self.__dict__.setdefault("_places", {})

    rip_relative = False

    def _modrm(self) -> bytes:
        reg = self.form.digit if self.form.digit >= 0 else self._register("REG")
        memory = self.form.takes_memory and (not self.form.takes_register or self.rng.random() < 0.6)
        if not memory:
            return bytes([0xC0 | reg << 3 | self._register("RM")])
        if self.form.lock and self.rng.random() < 0.2 and self.form.operands[0].where == "RM":
            self.prefixes.insert(0, 0xF0)
        self.ea = self.rng.choice(DATA)
        if "128" in self.form.syntax or self.form.mnemonic == "CMPXCHG16B":
            self.ea &= ~15
        return self._memory16(reg) if self.asize == 16 else self._memory(reg)

    def _memory16(self, reg: int) -> bytes:
        if self.base == 0:
            raise Unusable  # 16-bit addresses reach the window through segments alone
        rm, mod = self.rng.randrange(8), self.rng.randrange(3)
        offset = self.ea - self.base
        if mod == 0 and rm == 6:
            return bytes([6 | reg << 3]) + (offset & 0xFFFF).to_bytes(2, "little")
        first, second = ((RBX, RSI), (RBX, RDI), (RBP, RSI), (RBP, RDI), (RSI, -1), (RDI, -1), (RBP, -1), (RBX, -1))[rm]
        disp = _signed(self.rng.getrandbits(8 * mod), 8 * mod) if mod else 0
        self.set(first, offset - disp - (self.registers[second] if second >= 0 else 0), 16)
        if second >= 0:
            self.pinned.add(second)
        return bytes([mod << 6 | reg << 3 | rm]) + (disp & ((1 << 8 * mod) - 1)).to_bytes(mod, "little")

    def _memory(self, reg: int) -> bytes:
        rng = self.rng
        rm, mod = rng.randrange(8), rng.randrange(3)
        offset = self.ea - self.base
        size = {0: 0, 1: 1, 2: 4}[mod]
        sib = b""
        base, index, scale = rm | (8 if self.rex & 1 else 0), -1, 0
        if rm == 4:
            low, middle, scale = rng.randrange(8), rng.randrange(8), rng.randrange(4)
            sib = bytes([scale << 6 | middle << 3 | low])
            base = low | (8 if self.rex & 1 else 0)
            index = middle | (8 if self.rex & 2 else 0)
            if index == 4:
                index = -1
        if mod == 0 and base & 7 == 5:
            size = 4
            base = -1
            if rm == 5 and self.bits == 64:
                self.rip_relative = True
                return bytes([rm | reg << 3]) + bytes(4)
        disp = _signed(rng.getrandbits(8 * size), 8 * size) if size else 0
        scaled = self.registers[index] << scale if index >= 0 else 0
        if base == RSP:
            if index >= 0:
                self.set(index, rng.randrange(8), self.asize)
                scaled = self.registers[index] << scale
                scaled &= (1 << self.asize) - 1
            if size == 4:
                disp = offset - self.registers[RSP] - scaled
            self.ea = (self.registers[RSP] + scaled + disp) + self.base
            if not WINDOW + 64 <= self.ea < WINDOW + WINDOW_SIZE - 64:
                raise Unusable
        elif base >= 0 and base == index:
            raise Unusable
        elif base >= 0:
            self.set(base, offset - disp - scaled, self.asize)
            if index >= 0:
                self.pinned.add(index)
        elif index >= 0 and scale == 0:
            self.set(index, offset - disp, self.asize)
        else:
            if index >= 0:
                self.set(index, rng.randrange(1 << 20), self.asize)
                scaled = self.registers[index] << scale & ((1 << self.asize) - 1)
            disp = offset - scaled
            if not -(1 << 31) <= disp < 1 << 31:
                raise Unusable
        return bytes([mod << 6 | reg << 3 | rm]) + sib + (disp & ((1 << 8 * size) - 1)).to_bytes(size, "little")

    def _immediates(self) -> None:
        sizes = {"ib": 1, "iw": 2, "id": 4, "iq": 8}
        for token in self.form.immediates:
            if token in sizes:
                value = self._value() & ((1 << 8 * sizes[token]) - 1)
                self.immediate += value.to_bytes(sizes[token], "little")

    def _branch(self, code: bytes) -> bytes:
        """Appends the displacement of a direct branch to a place near by."""
        for token in self.form.immediates:
            size = {"cb": 1, "cw": 2, "cd": 4}.get(token)
            if size:
                end = self.address + len(code) + size
                self.taken = self.near_by()
                code += ((self.taken - end) & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        return code

    def near_by(self) -> int:
        """Linear address of the second way out."""
        return self.address + self.rng.choice((-64, 64))

    # --- what is left undefined ---

    def _undefined(self) -> int:
        undefined = sum(FLAG_LETTERS[letter] for letter in self.form.flags.undefined)
        if self.form.mnemonic in ("SHL", "SHR", "SAL") and self.count() >= self.size_of(0):
            undefined |= CF  # SDM Vol. 2, "SAL/SAR/SHL/SHR"
        return undefined

    def count(self) -> int:
        """The count of a shift or rotate, masked as the processor does."""
        last = self.form.operands[-1]
        count = {"CL": self.registers[RCX] & 0xFF, "1": 1}.get(last.text, self.immediate[0] if self.immediate else 0)
        return count & (63 if self.size_of(0) == 64 else 31)


_STRINGS = tuple(name + size for name in ("MOVS", "CMPS", "SCAS", "LODS", "STOS") for size in "BWDQ")
_COUNTED = ("LOOP", "LOOPE", "LOOPNE")
_USES_ADDRESS_SIZE = frozenset(_STRINGS + _COUNTED + ("XLATB",))


def _string(maker: _Maker) -> None:
    if maker.asize == 16 and maker.bits != 16:
        raise Unusable  # 16-bit addresses reach the window through segments alone
    for number in (RSI, RDI):
        maker.set(number, maker.rng.randrange(WINDOW + 300, WINDOW + 800) - maker.base, maker.asize)
    if maker.rng.random() < 0.3:
        # Overlapping strings, by one to a few bytes either way.
        mask = (1 << maker.asize) - 1
        near = (maker.registers[RSI] & mask) + maker.rng.randrange(-9, 10)
        maker.registers[RDI] = (maker.registers[RDI] & ~mask) | near
    if maker.repeats:
        maker.set(RCX, maker.rng.randrange(24), maker.asize)
    if maker.form.mnemonic.startswith(("CMPS", "SCAS")) and maker.rng.random() < 0.5:
        # Make a run of equal elements likely.
        place = (maker.registers[RDI] & ((1 << maker.asize) - 1)) + maker.base
        maker.write(place & ~7, maker.registers[RAX], 8)


def _xlat(maker: _Maker) -> None:
    if maker.asize == 16 and maker.bits != 16:
        raise Unusable
    maker.set(RBX, maker.rng.choice(DATA) - maker.base - (maker.registers[RAX] & 0xFF), maker.asize)


def _loop(maker: _Maker) -> None:
    maker.set(RCX, maker.rng.choice((0, 1, 2, maker.registers[RCX])), 64)


def _double_shift(maker: _Maker) -> None:
    if maker.count() > maker.size_of(0):
        raise Unusable  # the result is undefined


def _divide(maker: _Maker) -> None:
    """Mostly quotients that fit."""
    size = maker.size_of(0)
    if maker.rng.random() < 0.3 or RAX in maker.pinned:
        return
    if size == 8:
        maker.registers[RAX] &= ~0xFF80
    elif maker.rng.random() < 0.5:
        if RDX in maker.pinned:
            raise Unusable
        maker.registers[RDX] &= ~((1 << size) - 1)
        if maker.rng.random() < 0.5:
            maker.registers[RDX] |= ((1 << size) - 1) * (maker.registers[RAX] >> (size - 1) & 1)


def _bit_string(maker: _Maker) -> None:
    if maker.ea >= 0 and "REG" in maker.places:
        maker.set(maker.places["REG"], maker.rng.randrange(-900, 900), maker.size_of(1))


def _compare_exchange(maker: _Maker) -> None:
    if maker.rng.random() < 0.5:
        return
    if maker.ea >= 0:
        maker.write(maker.ea, maker.registers[RAX], maker.size_of(0) // 8)
    elif "RM" in maker.places and maker.places["RM"] not in (RSP, RAX):
        maker.registers[maker.places["RM"]] = maker.registers[RAX]


def _compare_exchange_pair(maker: _Maker) -> None:
    size = 8 if maker.form.mnemonic == "CMPXCHG16B" else 4
    mask = (1 << 8 * size) - 1
    if maker.rng.random() < 0.5:
        maker.write(maker.ea, (maker.registers[RAX] & mask) | (maker.registers[RDX] & mask) << 8 * size, 2 * size)


def _bound(maker: _Maker) -> None:
    size = maker.osize
    value = _signed(maker.registers[maker.places["REG"]], size)
    if maker.rng.random() < 0.7:
        low = value - maker.rng.choice((0, 1, 100))
        high = value + maker.rng.choice((0, 1, 100))
        limit = 1 << (size - 1)
        low, high = max(low, -limit), min(high, limit - 1)
        maker.write(maker.ea, (low & ((1 << size) - 1)) | (high & ((1 << size) - 1)) << size, size // 4)


def _indirect(maker: _Maker) -> None:
    if maker.form.immediates:
        return
    maker.taken = maker.near_by()
    size = maker.size_of(0)
    if maker.ea >= 0:
        maker.write(maker.ea, maker.taken - maker.base, size // 8)
    else:
        maker.set(maker.places["RM"], maker.taken - maker.base, size)


def _return(maker: _Maker) -> None:
    maker.taken = maker.near_by()
    maker.write(maker.registers[RSP] + maker.base, maker.taken - maker.base, maker.osize // 8)


def _frame(maker: _Maker) -> None:
    maker.set(RBP, maker.rng.choice(STACK) - maker.base, 16 if maker.bits == 16 else 64)
    if maker.form.mnemonic == "ENTER":
        maker.immediate = maker.rng.randrange(64).to_bytes(2, "little") + maker.immediate[2:]


_PREPARE: dict[str, Callable[[_Maker], None]] = {
    **dict.fromkeys(_STRINGS, _string),
    **dict.fromkeys(_COUNTED, _loop),
    **dict.fromkeys(("JCXZ", "JECXZ", "JRCXZ"), _loop),
    **dict.fromkeys(("DIV", "IDIV"), _divide),
    **dict.fromkeys(("BT", "BTS", "BTR", "BTC"), _bit_string),
    **dict.fromkeys(("SHLD", "SHRD"), _double_shift),
    **dict.fromkeys(("CMPXCHG8B", "CMPXCHG16B"), _compare_exchange_pair),
    **dict.fromkeys(("JMP", "CALL"), _indirect),
    **dict.fromkeys(("ENTER", "LEAVE"), _frame),
    "XLATB": _xlat,
    "CMPXCHG": _compare_exchange,
    "BOUND": _bound,
    "RET": _return,
}
