"""The processor's registers as GDB wants them described: target description, numbers, sizes, bytes.

GDB manual, "Standard Target Features", i386 Features: org.gnu.gdb.i386.core wants the x87 registers too,
org.gnu.gdb.i386.sse XMM and MXCSR, which a model with SSE has. What a PC has besides (control registers, segment bases
and limits) is a feature of our own, so that `info registers system` shows it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emu.models import load

__all__ = ["Layout", "Register", "is_long", "layout_for"]

SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs")
NAMES_32 = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
NAMES_64 = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{i}" for i in range(8, 16)))
EFLAGS = {
    "CF": 0, "PF": 2, "AF": 4, "ZF": 6, "SF": 7, "TF": 8, "IF": 9, "DF": 10, "OF": 11, "NT": 14, "RF": 16, "VM": 17,
    "AC": 18, "VIF": 19, "VIP": 20, "ID": 21,
}  # fmt: skip
MXCSR = {
    "IE": 0, "DE": 1, "ZE": 2, "OE": 3, "UE": 4, "PE": 5, "DAZ": 6, "IM": 7, "DM": 8, "ZM": 9, "OM": 10, "UM": 11,
    "PM": 12, "FZ": 15,
}  # fmt: skip
VECTORS = {
    "v4_float": ("ieee_single", 4), "v2_double": ("ieee_double", 2), "v16_int8": ("int8", 16), "v8_int16": ("int16", 8),
    "v4_int32": ("int32", 4), "v2_int64": ("int64", 2),
}  # fmt: skip
CORE = "org.gnu.gdb.i386.core"
SSE = "org.gnu.gdb.i386.sse"
SYSTEM = "emu.system"


@dataclass(frozen=True)
class Register:
    """A register: its name, bits, GDB's type, the feature it belongs to, and how it is read and written.

    `write` is None where it cannot be written.
    """

    name: str
    bits: int
    type: str
    feature: str
    read: Callable[[Any], int]
    write: Callable[[Any, int], None] | None = None

    def bytes_of(self, cpu: Any) -> bytes:
        """Its value in the protocol: hexadecimal digits, little-endian."""
        return self.read(cpu).to_bytes(self.bits // 8, "little").hex().encode()


def plain(name: str, bits: int, type_: str, attribute: str = "", feature: str = CORE) -> Register:
    """A register that is an attribute of the processor."""
    attribute = attribute or name

    def write(cpu: Any, value: int) -> None:
        setattr(cpu, attribute, value)

    return Register(name, bits, type_, feature, lambda cpu: int(getattr(cpu, attribute)), write)


def program_counter(name: str, bits: int) -> Register:
    """The linear address of the next instruction: breakpoints, symbols and disassembly are linear, and outside flat
    segments RIP alone would say nothing to the debugger."""
    mask = (1 << bits) - 1

    def write(cpu: Any, value: int) -> None:
        cpu.rip = (value - cpu.cs.base) & (0xFFFFFFFFFFFFFFFF if cpu.bits == 64 else 0xFFFFFFFF)

    return Register(name, bits, "code_ptr", CORE, lambda cpu: (cpu.cs.base + cpu.rip) & mask, write)


def selector(name: str) -> Register:
    """A segment register's visible part; writing it loads the segment as MOV does."""
    return Register(
        name,
        32,
        "int32",
        CORE,
        lambda cpu: int(getattr(cpu, name).selector),
        lambda cpu, value: getattr(cpu, name).load(value & 0xFFFF),
    )


def segment_field(name: str, field: str, bits: int) -> Register:
    """A segment register's hidden base or limit."""

    def write(cpu: Any, value: int) -> None:
        setattr(getattr(cpu, name), field, value)

    return Register(
        f"{name}_{field}", bits, f"int{bits}", SYSTEM, lambda cpu: int(getattr(getattr(cpu, name), field)), write
    )


def st(number: int) -> Register:
    """An x87 register by its place on the stack: ten bytes."""

    def read(cpu: Any) -> int:
        fpu = cpu.save()["fpu"]
        significand, exponent = fpu["r"][(top(fpu) + number) & 7]
        return int(exponent) << 64 | int(significand)

    return Register(f"st{number}", 80, "i387_ext", CORE, read)


def x87(name: str) -> Register:
    """A register of the x87 unit besides the stack."""
    return Register(name, 32, "int", CORE, lambda cpu: X87[name](cpu.save()["fpu"]))


def xmm(number: int) -> Register:
    """An XMM register."""

    def read(cpu: Any) -> int:
        low, high = cpu.save()["fpu"]["xmm"][number]
        return int(high) << 64 | int(low)

    return Register(f"xmm{number}", 128, "vec128", SSE, read)


def top(fpu: dict[str, Any]) -> int:
    """Which physical register ST(0) is."""
    return int(fpu["status"]) >> 11 & 7


def tag_word(fpu: dict[str, Any]) -> int:
    """Two bits a physical register, as FNSTENV stores them: 0 valid, 1 zero, 2 special, 3 empty."""
    word = 0
    for at, (significand, exponent) in enumerate(fpu["r"]):
        if not fpu["valid"] >> at & 1:
            tag = 3
        elif exponent & 0x7FFF == 0 and significand == 0:
            tag = 1
        else:
            tag = 0 if significand >> 63 and exponent & 0x7FFF != 0x7FFF else 2
        word |= tag << 2 * at
    return word


X87: dict[str, Callable[[dict[str, Any]], int]] = {
    "fctrl": lambda fpu: int(fpu["control"]),
    "fstat": lambda fpu: int(fpu["status"]),
    "ftag": tag_word,
    "fiseg": lambda fpu: int(fpu["cs"]),
    "fioff": lambda fpu: int(fpu["ip"]) & 0xFFFFFFFF,
    "foseg": lambda fpu: int(fpu["ds"]),
    "fooff": lambda fpu: int(fpu["dp"]) & 0xFFFFFFFF,
    "fop": lambda fpu: int(fpu["opcode"]),
}


@dataclass(frozen=True)
class Layout:
    """The registers in the order of their numbers, and the description that the debugger reads."""

    architecture: str
    registers: tuple[Register, ...]

    @property
    def xml(self) -> bytes:
        """The target description."""
        parts = ['<?xml version="1.0"?>', '<!DOCTYPE target SYSTEM "gdb-target.dtd">', "<target>"]
        parts.append(f"<architecture>{self.architecture}</architecture><osabi>none</osabi>")
        feature = ""
        for register in self.registers:
            if register.feature != feature:
                parts += ["</feature>"] if feature else []
                feature = register.feature
                parts.append(f'<feature name="{feature}">')
                parts += TYPES.get(feature, ())
            group = "float" if register.name in X87 else {SYSTEM: "system", SSE: "vector"}.get(feature, "")
            parts.append(
                f'<reg name="{register.name}" bitsize="{register.bits}" type="{register.type}"'
                + (f' group="{group}"' if group else "")
                + "/>"
            )
        parts += ["</feature>", "</target>"]
        return "\n".join(parts).encode()


def flags(name: str, fields: dict[str, int]) -> list[str]:
    """The description of a register of flags, four bytes."""
    bits = [f'<field name="{field}" start="{bit}" end="{bit}"/>' for field, bit in fields.items()]
    return [f'<flags id="{name}" size="4">', *bits, "</flags>"]


# What a feature's registers are made of, before the registers.
TYPES = {
    CORE: flags("i386_eflags", EFLAGS),
    SSE: [
        *(f'<vector id="{name}" type="{type_}" count="{count}"/>' for name, (type_, count) in VECTORS.items()),
        '<union id="vec128">', *(f'<field name="{name}" type="{name}"/>' for name in VECTORS),
        '<field name="uint128" type="uint128"/>', "</union>", *flags("i386_mxcsr", MXCSR),
    ],
}  # fmt: skip


def layout(wide: bool, sse: bool) -> Layout:
    """The layout of a processor in long mode, or of one that is not, with SSE or without."""
    bits, names = (64, NAMES_64) if wide else (32, NAMES_32)
    pointers = ("rsp", "rbp", "esp", "ebp")
    registers = [plain(name, bits, "data_ptr" if name in pointers else f"int{bits}") for name in names]
    registers.append(program_counter("rip" if wide else "eip", bits))
    registers.append(plain("eflags", 32, "i386_eflags"))
    registers += [selector(name) for name in SEGMENTS]
    registers += [st(number) for number in range(8)]
    registers += [x87(name) for name in X87]
    if sse:
        registers += [xmm(number) for number in range(16 if wide else 8)]
        registers.append(Register("mxcsr", 32, "i386_mxcsr", SSE, lambda cpu: int(cpu.save()["fpu"]["mxcsr"])))
    for name in ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "dr6", "dr7"):
        registers.append(plain(name, 64, "int64", feature=SYSTEM))
    for name in (*SEGMENTS, "ldtr", "tr"):
        registers += [segment_field(name, "base", 64), segment_field(name, "limit", 32)]
    for name in ("gdtr", "idtr"):
        registers += [segment_field(name, "base", 64), segment_field(name, "limit", 32)]
    # i8086, not i386: only so does GDB obey `set architecture` both ways, since of two compatible ones it takes i386.
    return Layout("i386:x86-64" if wide else "i8086", tuple(registers))


def is_long(cpu: Any) -> bool:
    """Whether the processor is in long mode."""
    return bool(cpu.efer >> 10 & 1)


def has_sse(model: str) -> bool:
    """Whether CPUID says that a processor model has SSE."""
    return any(leaf == 1 and edx >> 25 & 1 for leaf, *_, edx in load(model)["cpuid"])


def layout_for(cpu: Any) -> Layout:
    """The layout that fits the processor's present mode. GDB asks once a connection, so it holds for the connection."""
    return layout(is_long(cpu), has_sse(cpu.model.name))
