"""Real-mode instructions and the exceptions they raise, as an 80286 was seen to execute them.

Oracle: the SingleStepTests 80286 set by Daniel Balsom (github.com/SingleStepTests/80286): registers and memory before
and after each instruction, captured from the chip. It is no part of this project: it is looked for in $SST286 and in
../shared/data/sst286. Our model nearest to the chip, i386, runs it. Where later processors do otherwise, a table below
names the file, the field that is left out and why.
"""

import gzip
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import emu
from emu.stop import StopReason

ROOT = Path(__file__).parents[2]
PLACES = [Path(place) for place in (os.environ.get("SST286"), ROOT.parent / "shared/data/sst286") if place]
DATA = next((place for place in PLACES if (place / "metadata.json").is_file()), None)

# Cases that are left out, by file: each has an effect that no mask could keep apart from what is wrong.
LEFT_OUT = {
    "D8": "the chip had no coprocessor, so that an escape did nothing; here it is an x87 instruction or #UD",
}
MOV_SREG = ("8C", "8E")  # with FS and GS, which the 80286 does not have: #UD there
LONGEST = 10  # bytes of an instruction, after which the 80286 raises #GP; later processors allow 15

# Fields that are not compared where an exception was raised, by file.
STRINGS = ("6D", "6F", "A5", "A7", "AB", "AD", "AF")
RESTART = "later processors leave the registers as they were, so that the instruction can be restarted"
MASKED = {
    **dict.fromkeys(STRINGS, ({"si", "di", "cx"}, f"the 80286 has moved on when it raises #GP; {RESTART}")),
    "8F": ({"sp", "frame"}, f"the 80286 has popped when it raises #GP for the destination; {RESTART}"),
}
# The 80286 raises #GP where later processors raise #SS: for POP, RET and LEAVE, for [BP+SI], and for strings with an SS
# override. Both vectors lead to the same handler, and so everything but the vector is compared.
SS_FAULT, GP_FAULT = 12, 13

LOCK = 0xF0
PREFIXES = frozenset({0x26, 0x2E, 0x36, 0x3E, LOCK, 0xF2, 0xF3})
REGISTERS = ("ax", "bx", "cx", "dx", "cs", "ss", "ds", "es", "sp", "bp", "si", "di", "ip", "flags")
SEGMENTS = frozenset({"cs", "ss", "ds", "es"})
MEMORY = (1 << 20) + (1 << 16)  # what segment and offset reach: the A20 line is on
INSTRUCTIONS = 70_000  # more than any case executes: REP repeats up to 65,535 times
WORD = struct.Struct("<H")
CELL = struct.Struct("<IB")


class Case(NamedTuple):
    name: str
    code: bytes
    registers: dict[str, int]
    memory: dict[int, int]
    final_registers: dict[str, int]  # those that changed
    final_memory: dict[int, int]
    exception: int | None

    @property
    def frame(self) -> list[int]:
        """Linear addresses of the bytes that the exception pushed: IP, CS, FLAGS."""
        sp, ss = self.final_registers["sp"], self.registers["ss"]
        return [(ss << 4) + (sp + n & 0xFFFF) for n in range(6)]


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks that follow one another in `data`."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size


def state(data: bytes) -> tuple[dict[str, int], dict[int, int]]:
    parts = dict(chunks(data))
    mask, *values = (value for (value,) in WORD.iter_unpack(parts[b"REGS"]))
    names = [name for bit, name in enumerate(REGISTERS) if mask >> bit & 1]
    return dict(zip(names, values, strict=True)), dict(CELL.iter_unpack(parts[b"RAM "][4:]))


def cases(path: Path) -> Iterator[Case]:
    for kind, test in chunks(gzip.decompress(path.read_bytes())):
        if kind != b"TEST":
            continue
        parts = dict(chunks(test[4:]))
        exception = parts[b"EXCP"][0] if b"EXCP" in parts else None
        name, code = parts[b"NAME"][4:].decode(), parts[b"BYTS"][4:]
        yield Case(name, code, *state(parts[b"INIT"]), *state(parts[b"FINA"]), exception)


class Bench:
    """A processor and what its memory must hold."""

    def __init__(self) -> None:
        self.cpu = emu.Cpu(bits=16, cpu="i386", memory=MEMORY, faults="deliver")
        self.expected = bytearray(MEMORY)

    def write(self, address: int, data: bytes) -> None:
        self.cpu.memory.write(address, data)
        self.expected[address : address + len(data)] = data

    def differences(self, case: Case, flags_mask: int, ignored: set[str]) -> list[str]:
        """Runs a case to its HLT: where it differs from what the chip did."""
        cpu = self.cpu
        for address, value in case.memory.items():
            self.write(address, bytes([value]))
        if case.exception == GP_FAULT:
            self.write(4 * SS_FAULT, cpu.memory.read(4 * GP_FAULT, 4))
        skipped = self.skip_lock(case)
        for name, value in case.registers.items():
            if name in SEGMENTS:
                segment = getattr(cpu, name)
                segment.selector, segment.base = value, value << 4
            elif name == "flags":
                cpu.rflags = value & 0xFFF | 2
            elif name == "ip":
                cpu.rip = value + skipped
            else:
                setattr(cpu, name, value)
        stop = cpu.run(instructions=INSTRUCTIONS)
        found = [] if stop.reason == StopReason.HALTED else [f"it stops as {stop.reason}"]
        for name, value in {**case.registers, **case.final_registers}.items():
            got = getattr(cpu, name).selector if name in SEGMENTS else getattr(cpu, name)
            mask = 0 if name in ignored else flags_mask & 0xFFF if name == "flags" else 0xFFFF
            if (got ^ value) & mask:
                found.append(f"{name} {got:04x}, the chip's is {value:04x} (was {case.registers[name]:04x})")
        masks = {}
        if case.exception is not None:
            masks = dict(zip(case.frame[4:], (flags_mask & 0xFF, flags_mask >> 8 & 0xF), strict=True))
            if skipped:
                masks |= dict.fromkeys(case.frame[:2], 0)  # the IP of what follows LOCK
            if "frame" in ignored:
                sp = (case.registers["ss"] << 4) + case.registers["sp"]
                masks = dict.fromkeys(range(sp - 8, sp + 2), 0)
                for address in masks:
                    self.expected[address] = cpu.memory.read(address, 1)[0]
        for address, value in case.final_memory.items():
            got = cpu.memory.read(address, 1)[0]
            if (got ^ value) & masks.get(address, 0xFF):
                found.append(f"[{address:05x}] {got:02x}, the chip's is {value:02x}")
            self.expected[address] = got
        return found

    def skip_lock(self, case: Case) -> int:
        """Takes LOCK away, which is #UD before most instructions from the 80386 on: bytes to skip.

        The other prefixes move up to the opcode; which of two segment prefixes counts depends on their order alone.
        """
        opcode = next(n for n, byte in enumerate(case.code) if byte not in PREFIXES)
        prefixes = bytes(byte for byte in case.code[:opcode] if byte != LOCK)
        skipped = opcode - len(prefixes)
        for n, byte in enumerate(prefixes):
            # The code may run round the end of its segment.
            offset = case.registers["ip"] + skipped + n & 0xFFFF
            self.write((case.registers["cs"] << 4) + offset, bytes([byte]))
        return skipped


def is_comparable(file: str, case: Case) -> bool:
    """Is the case one that later processors execute alike?"""
    opcode = next(n for n, byte in enumerate(case.code) if byte not in PREFIXES)
    no_register = file in MOV_SREG and case.code[opcode + 1] >> 3 & 7 in (4, 5)
    return len(case.code) - 1 <= LONGEST and not no_register


def flags_mask(file: str) -> int:
    """The defined flags of a file's instruction."""
    opcode, _, extension = file.partition(".")
    assert DATA
    entry = json.loads((DATA / "metadata.json").read_text())["opcodes"][opcode]
    return int((entry["reg"][extension] if extension else entry).get("flags-mask", 0xFFFF))


FILES = sorted(path.name.removesuffix(".MOO.gz") for path in DATA.glob("*.MOO.gz")) if DATA else []


@pytest.mark.skipif(
    not FILES, reason="the SingleStepTests 80286 set is neither in $SST286 nor in ../shared/data/sst286"
)
@pytest.mark.parametrize("file", [file for file in FILES if file not in LEFT_OUT] or [""])
def test_captured_cases(file: str) -> None:
    assert DATA
    bench, mask, wrong, compared = Bench(), flags_mask(file), [], 0
    for case in cases(DATA / f"{file}.MOO.gz"):
        if not is_comparable(file, case):
            continue
        compared += 1
        ignored = MASKED[file][0] if file in MASKED and case.exception == GP_FAULT else set()
        found = bench.differences(case, mask, ignored)
        if found:
            wrong.append(f"{case.name} ({case.code.hex(' ')}), exception {case.exception}:\n  " + "\n  ".join(found))
    assert not wrong, f"{len(wrong)} of {compared} cases differ:\n" + "\n".join(wrong[:5])
    assert compared > 100
    assert bench.cpu.memory.read(0, MEMORY) == bench.expected, "a case wrote where the chip did not"
