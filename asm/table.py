"""Reads the instruction table into immutable forms (the columns are explained at the head of its files).

asm/x86.tbl has the integer and system instructions, asm/x87_simd.tbl the others, which the processor does not
execute yet. Only the standard library is used: setup.py imports this before anything is installed. A form is parsed
when it is first asked for, since an ordinary source needs a fraction of the table.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

TABLE_PATH = Path(__file__).with_name("x86.tbl")
SIMD_PATH = Path(__file__).with_name("x87_simd.tbl")
COLUMNS = ("encoding", "syntax", "modes", "since", "prefixes", "flags", "cpl", "exit", "notes")

PROCESSORS = ("8086", "186", "286", "386", "486", "586", "686")
FEATURES = (
    "FPU", "CPUID", "TSC", "MSR", "CX8", "SEP", "CMOV", "CLFSH", "FXSR", "SSE", "SSE2", "SSE3", "MONITOR", "VMX",
    "SMX", "CX16", "SSE4_2", "POPCNT", "MOVBE", "XSAVE", "XSAVEOPT", "XSAVEC", "XSAVES", "RDRAND", "FSGSBASE", "BMI1",
    "BMI2", "INVPCID", "RDSEED", "ADX", "SMAP", "CLFLUSHOPT", "CLWB", "PCOMMIT", "RDPID", "PKU", "PTWRITE", "WBNOINVD",
    "CLDEMOTE", "MOVDIRI", "MOVDIR64B", "WAITPKG", "SERIALIZE", "TSXLDTRK", "CET_SS", "CET_IBT", "RTM", "SYSCALL", "LM",
    "LAHF_LM", "LZCNT", "PREFETCHW", "RDTSCP",
)  # fmt: skip
# Features that no processor model has (note no-body); the decoder need not know them.
ASSEMBLER_FEATURES = (
    "SGX", "PCONFIG", "UINTR", "PREFETCHWT1", "SVM", "CLZERO", "MONITORX", "HRESET", "PCOMMIT", "MMX", "3DNOW",
    "SSSE3", "SSE4_1", "SSE4A", "AES", "PCLMULQDQ", "SHA", "GFNI", "AVX", "F16C", "FMA", "AVX2", "VAES", "VPCLMULQDQ",
    "SEV_ES", "SEV_SNP", "WRMSRNS", "MSRLIST", "RAO_INT", "PREFETCHI",
)  # fmt: skip
STATUS_FLAGS = "oszapc"
OTHER_FLAGS = "tidnvrk"  # TF IF DF NT VM RF and AC (letter k, since a is AF)

NOTES = frozenset(
    ("alias", "bare", "decode-only", "end", "low", "no-body", "obsolete", "over", "pm", "reg-only", "same",
     "unoptimised", "unsized")
)  # fmt: skip
_SIMD_REST = ["-", "-", "3", "-"]  # prefixes, flags, cpl and exit of a row of x87_simd.tbl

REGISTERS_8 = ("al", "cl", "dl", "bl", "ah", "ch", "dh", "bh")
REGISTERS_8_REX = ("al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil", *(f"r{n}b" for n in range(8, 16)))
REGISTERS_16 = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di", *(f"r{n}w" for n in range(8, 16)))
REGISTERS_32 = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", *(f"r{n}d" for n in range(8, 16)))
REGISTERS_64 = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
REGISTERS_SEG = ("es", "cs", "ss", "ds", "fs", "gs")
REGISTERS_CR = tuple(f"cr{n}" for n in range(16))
REGISTERS_DR = tuple(f"dr{n}" for n in range(16))
REGISTERS_TR = tuple(f"tr{n}" for n in range(8))
REGISTERS_ST = tuple(f"st{n}" for n in range(8))
REGISTERS_MM = tuple(f"mm{n}" for n in range(8))
REGISTERS_XMM = tuple(f"xmm{n}" for n in range(16))
REGISTERS_YMM = tuple(f"ymm{n}" for n in range(16))
VECTORS = {"st": REGISTERS_ST, "mm": REGISTERS_MM, "xmm": REGISTERS_XMM, "ymm": REGISTERS_YMM}
_VECTOR_SIZES = {"st": 80, "mm": 64, "xmm": 128, "ymm": 256}


class TableError(ValueError):
    """A row of x86.tbl that does not follow the format; the message begins with file and line."""


class OperandSpec(NamedTuple):
    """One operand of a form's syntax.

    kind: r rm m imm rel ptr moffs sreg cr dr tr reg (a fixed register) or one (the constant 1); v vm (a register of the
        class `register`: st mm xmm ymm; or memory) and vsib (memory with an index of that class).
    size: bits, 0 for none; memory_size: the same where the operand is memory, -1 for a composite (``m16&32``).
    where: which part of the encoding holds it, an OPERAND_* name of emu/core/form.h without the prefix; also VVVV, IS4
        and ST (the low bits of a fixed ModRM byte), or two of them with a plus.
    """

    text: str
    kind: str
    size: int
    memory_size: int
    where: str
    signed: bool = False
    register: str = ""

    @property
    def takes_register(self) -> bool:
        return self.kind in ("r", "rm", "reg", "sreg", "cr", "dr", "tr", "v", "vm")

    @property
    def takes_memory(self) -> bool:
        return self.kind in ("rm", "m", "moffs", "vm", "vsib")


_NEAR_RETURNS = ("RET", "RETN", "RETW", "RETNW", "RETD", "RETND", "RETQ", "RETNQ")


class Flags(NamedTuple):
    """The flags that a form touches, as letters: always written, written on a condition, undefined, tested."""

    written: str
    conditional: str
    undefined: str
    tested: str


class Form(NamedTuple):
    """One row of the table: one instruction form."""

    row: int
    line: int
    encoding: str
    syntax: str
    mnemonic: str
    operands: tuple[OperandSpec, ...]
    modes: tuple[int, ...]
    since: str
    lock: bool
    rep: bool
    repz: bool
    flags: Flags
    cpl: str
    exit: str
    notes: frozenset[str]
    body: str
    osize: int
    default64: bool
    force64: bool
    w0: bool
    wig: bool
    asize: int
    prefix: str
    rex_b0: bool
    map: int
    opcode: int
    plus_register: bool
    modrm: bool
    digit: int
    fixed: int
    immediates: tuple[str, ...]
    wait: bool = False  # FWAIT stands before it
    vex: bool = False
    length: int = -1  # VEX.L; -1 where it is ignored
    suffix: int = -1  # the byte behind ModRM and displacement, if it belongs to the opcode
    plus_modrm: bool = False  # `fixed` is the first of eight ModRM bytes

    @property
    def mandatory_prefix(self) -> bytes:
        """66h, F2h or F3h where it is part of the opcode, else nothing."""
        return b"" if self.vex or self.prefix in ("", "NP", "NFx") else bytes.fromhex(self.prefix)

    @property
    def decodes(self) -> bool:
        """The disassembler knows the row (it is not merely another spelling for the assembler)."""
        return "alias" not in self.notes

    @property
    def executes(self) -> bool:
        """The processor knows the row."""
        return self.decodes and "no-body" not in self.notes

    @property
    def encodes(self) -> bool:
        """The assembler may choose the row."""
        return "decode-only" not in self.notes

    @property
    def takes_memory(self) -> bool:
        """The form has a ModRM byte that may name memory."""
        return self.modrm and self.fixed < 0 and any(o.where in ("RM", "MEM") and o.takes_memory for o in self.operands)

    @property
    def takes_register(self) -> bool:
        """The form has no ModRM byte that names an operand, or one that may name a register there."""
        if not self.modrm or self.fixed >= 0:
            return True
        return not any(o.where in ("RM", "MEM") and not o.takes_register for o in self.operands)

    @property
    def is_jump(self) -> bool:
        """JMP, CALL or Jcc, but not JCXZ and LOOP, which have a short form alone."""
        return self.mnemonic in ("JMP", "CALL") or (self.mnemonic[0] == "J" and "CXZ" not in self.mnemonic)

    @property
    def takes_bnd(self) -> bool:
        """A near branch: F2h before it is ``bnd`` to NASM, never ``repne``."""
        excepted = any(":" in spec.text for spec in self.operands) or self.syntax == "JMP rel8"
        return self.mnemonic in _NEAR_RETURNS or (self.is_jump and not excepted)

    @property
    def operand_size(self) -> int:
        """The operand size in bits that the form itself fixes; 0 where prefixes and mode do."""
        if self.osize:
            return self.osize
        if self.w0:
            return 32
        return 64 if self.default64 or self.force64 else 0

    def handlers(self) -> tuple[str | None, str | None]:
        """Names of the C bodies for register (or no ModRM) and memory; None where the form has no such variant."""
        register = self._body_name(False) if self.takes_register else None
        memory = self._body_name(True) if self.takes_memory else None
        return register, memory

    def repeat_handlers(self) -> tuple[str | None, str | None]:
        """Names of the C bodies with an F3 and with an F2 prefix; None where the prefix repeats nothing."""
        if self.repz:
            return f"exec_repe_{self.body}", f"exec_repne_{self.body}"
        if self.rep:
            return f"exec_rep_{self.body}", f"exec_rep_{self.body}"
        return None, None

    def _body_name(self, memory: bool) -> str:
        if "bare" in self.notes:
            return f"exec_{self.body}"
        return "_".join(("exec", self.body, *(_kind_name(o, memory) for o in self.operands)))


def _kind_name(spec: OperandSpec, memory: bool) -> str:
    if spec.kind == "moffs" or (spec.takes_memory and memory and spec.where in ("RM", "MEM")):
        if spec.text.endswith((":16", ":32", ":64")):
            return "mfar"
        return f"m{spec.memory_size}" if spec.memory_size in (8, 16, 32, 64) else "m"
    if spec.kind in ("r", "rm", "reg") and spec.register not in REGISTERS_SEG:
        return f"r{spec.size}"
    return {"imm": "i", "one": "i", "rel": "rel", "ptr": "far", "cr": "c", "dr": "d"}.get(spec.kind, "s")


_FIXED = {
    "AL": (8, "ACC"), "AX": (16, "ACC"), "EAX": (32, "ACC"), "RAX": (64, "ACC"), "CL": (8, "CL"), "DX": (16, "DX"),
    "CX": (16, "CX"), "ECX": (32, "CX"), "RCX": (64, "CX"),
    "EDX": (32, "EDX"), "ST(0)": (80, "ST0"), "XMM0": (128, "XMM0"),
    "ES": (16, "ES"), "CS": (16, "CS"), "SS": (16, "SS"), "DS": (16, "DS"), "FS": (16, "FS"), "GS": (16, "GS"),
}  # fmt: skip
_MAPS = {(): 0, (0x0F,): 1, (0x0F, 0x38): 2, (0x0F, 0x3A): 3}
_SYSTEM_REGISTERS = ("CR0-CR8", "DR0-DR7", "TR0-TR7")
_IMMEDIATE_TOKENS = ("ib", "iw", "id", "iq", "cb", "cw", "cd", "cp", "co")


class _Row:
    """A row being parsed: keeps the place for messages."""

    def __init__(self, line: int, columns: Sequence[str], path: Path) -> None:
        self.path = path
        self.line = line
        self.columns = columns

    def fail(self, message: str) -> TableError:
        return TableError(f"{self.path.name}:{self.line}: {message} in {' | '.join(self.columns)!r}")


def _size(row: _Row, text: str) -> int:
    if not text.isdecimal():
        raise row.fail(f"bad size {text!r}")
    return int(text)


def _parse_operand(row: _Row, text: str, digit: int, modrm: bool, plus: bool, others: Sequence[str]) -> OperandSpec:
    if text in _FIXED:
        size, where = _FIXED[text]
        return OperandSpec(text, "reg", size, 0, where, register="st0" if where == "ST0" else text.lower())
    if text == "ST(i)":
        return OperandSpec(text, "v", 80, 0, "ST", register="st")
    if text.startswith("vm"):
        return OperandSpec(text, "vsib", 0, 0, "MEM", register=text[-1] + "mm")
    name, slash, memory = text.partition("/m")
    if name in VECTORS:
        where = "REG" if not slash and digit < 0 else "RM"
        size = _VECTOR_SIZES[name]
        return OperandSpec(text, "vm" if slash else "v", size, _size(row, memory) if slash else 0, where, register=name)
    if text == "1":
        return OperandSpec(text, "one", 8, 0, "ONE")
    if text == "Sreg":
        return OperandSpec(text, "sreg", 16, 0, "SREG")
    if text in _SYSTEM_REGISTERS:
        return OperandSpec(text, text[:2].lower(), 0, 0, text[:2])
    if text.startswith("simm"):
        return OperandSpec(text, "imm", _size(row, text[4:]), 0, "IMM", signed=True)
    if text.startswith("imm"):
        return OperandSpec(text, "imm", _size(row, text[3:]), 0, "IMM")
    if text.startswith("rel"):
        return OperandSpec(text, "rel", _size(row, text[3:]), 0, "REL", signed=True)
    if text.startswith("ptr16:"):
        return OperandSpec(text, "ptr", _size(row, text[6:]), 0, "FAR")
    if text.startswith("moffs"):
        size = _size(row, text[5:])
        return OperandSpec(text, "moffs", size, size, "MOFFS")
    register, slash, memory = text.partition("/")
    if slash and register.startswith("r") and memory.startswith("m"):
        memory_size = _size(row, memory[1:])
        return OperandSpec(text, "rm", memory_size if register == "r" else _size(row, register[1:]), memory_size, "RM")
    if text.startswith("m") and not slash:
        size_text = text[1:]
        if not size_text:
            return OperandSpec(text, "m", 0, 0, "MEM")
        for separator in ("&", ":"):
            if separator in size_text:
                return OperandSpec(text, "m", _size(row, size_text.split(separator)[1]), -1, "MEM")
        return OperandSpec(text, "m", _size(row, size_text), _size(row, size_text), "MEM")
    if text.startswith("r") and text[1:].isdecimal():
        if plus:
            where = "OPREG"
        elif digit >= 0 or any(o in (*_SYSTEM_REGISTERS, "Sreg") for o in others):
            where = "RM"
        elif modrm:
            where = "REG"
        else:
            raise row.fail(f"operand {text} has no place in the encoding")
        return OperandSpec(text, "r", int(text[1:]), 0, where)
    raise row.fail(f"unknown operand {text!r}")


_ORDER = {"R": "REG", "M": "RM", "V": "VVVV"}


def _parse_operands(
    row: _Row, texts: Sequence[str], digit: int, modrm: bool, plus: bool, order: str
) -> tuple[OperandSpec, ...]:
    specs = [
        _parse_operand(row, text, digit, modrm, plus, [*texts[:n], *texts[n + 1 :]]) for n, text in enumerate(texts)
    ]
    immediates = [n for n, spec in enumerate(specs) if spec.kind == "imm"]
    if len(immediates) == 2:
        specs[immediates[1]] = specs[immediates[1]]._replace(where="IMM2")
    if order:
        placed = [n for n, spec in enumerate(specs) if spec.kind in ("r", "rm", "m", "v", "vm", "vsib")]
        if len(placed) != len(order):
            raise row.fail(f"{order} places {len(order)} operands, not {len(placed)}")
        for n, letter in zip(placed, order, strict=True):
            if specs[n].where != "MEM":
                specs[n] = specs[n]._replace(where="IS4" if order.index(letter) < placed.index(n) else _ORDER[letter])
    registers = [n for n, spec in enumerate(specs) if spec.where == "REG"]
    if modrm and digit < 0 and len(registers) == 2:
        raise row.fail("two operands in ModRM.reg")
    return tuple(specs)


def _parse_flags(row: _Row, text: str) -> Flags:
    effects = {"w": "", "m": "", "u": "", "t": ""}
    if text != "-":
        for part in text.split():
            effect, colon, letters = part.partition(":")
            if not colon or effect not in "wmut01" or not letters or letters.strip(STATUS_FLAGS + OTHER_FLAGS):
                raise row.fail(f"bad flags {part!r}")
            effects["w" if effect in "01" else effect] += letters
    return Flags(effects["w"], effects["m"], effects["u"], effects["t"])


class _Encoding:
    """The encoding column, token by token."""

    def __init__(self, row: _Row, text: str) -> None:
        self.osize = self.asize = 0
        self.default64 = self.force64 = self.w0 = self.wig = self.rex_b0 = self.plus = self.modrm = False
        self.wait = self.vex = self.is4 = self.plus_modrm = False
        self.length = self.suffix = -1
        self.order = self.vex_map = ""
        self.prefix = ""
        self.digit = self.fixed = -1
        self.immediates: list[str] = []
        opcode: list[int] = []
        tokens = text.split()
        if tokens[:1] == ["9B"] and len(tokens) > 1:
            self.wait = True
            del tokens[0]
        for token in tokens:
            if token.startswith("VEX."):
                self._vex(row, token)
            elif token == "/is4":
                self.is4 = True
            elif token.endswith("+i") and len(token) == 4:
                self.modrm = self.plus_modrm = True
                self.fixed = int(token[:2], 16)
            elif self.modrm and token.strip("RMV") == "":
                self.order = token
            elif token in ("o16", "o32"):
                self.osize = int(token[1:])
            elif token == "REX.W":
                self.osize = 64
            elif token in ("a16", "a32", "a64"):
                self.asize = int(token[1:])
            elif token == "d64":
                self.default64 = True
            elif token == "f64":
                self.force64 = True
            elif token == "W0":
                self.w0 = True
            elif token == "WIG":
                self.wig = True
            elif token == "REX.B0":
                self.rex_b0 = True
            elif not opcode and not self.vex and token in ("NP", "NFx", "66", "F2", "F3"):
                self.prefix = token
            elif token == "/r":
                self.modrm = True
            elif len(token) == 2 and token[0] == "/" and token[1] in "01234567":
                self.modrm, self.digit = True, int(token[1])
            elif token in _IMMEDIATE_TOKENS:
                self.immediates.append(token)
            else:
                byte, plus, suffix = token.partition("+")
                if len(byte) != 2 or (plus and suffix not in ("rb", "rw", "rd", "rq")):
                    raise row.fail(f"unknown token {token!r}")
                try:
                    number = int(byte, 16)
                except ValueError:
                    raise row.fail(f"unknown token {token!r}") from None
                if self.modrm and self.suffix < 0:
                    self.suffix = number
                else:
                    opcode.append(number)
                self.plus = self.plus or bool(plus)
        is_escape = opcode in ([0x0F], [0x0F, 0x38], [0x0F, 0x3A]) and "obsolete" not in row.columns[-1]  # but POP CS
        if not opcode or (is_escape and not self.vex):
            raise row.fail("no opcode")
        if self.vex:
            opcode = [*_VEX_MAPS[self.vex_map], *opcode]
        escape = 0
        if opcode[0] == 0x0F and len(opcode) > 1:
            escape = 2 if opcode[1] in (0x38, 0x3A) and len(opcode) > 2 else 1
        self.map = _MAPS[tuple(opcode[:escape])]
        self.opcode = opcode[escape]
        rest = opcode[escape + 1 :]
        if len(rest) > 1 or (rest and self.modrm):
            raise row.fail("too many opcode bytes")
        if rest:
            self.modrm, self.fixed = True, rest[0]
        if self.plus and self.opcode & 7:
            raise row.fail("+r on an opcode that is not a multiple of 8")

    def _vex(self, row: _Row, token: str) -> None:
        """``VEX.length.prefix.map.W``."""
        _, length, prefix, self.vex_map, w = (*token.split("."), "", "", "", "")[:5]
        if length not in _VEX_LENGTHS or prefix not in ("NP", "66", "F3", "F2") or self.vex_map not in _VEX_MAPS:
            raise row.fail(f"bad prefix {token!r}")
        self.vex = True
        self.length = _VEX_LENGTHS[length]
        self.prefix = prefix
        if w == "W1":
            self.osize = 64
        self.w0, self.wig = w == "W0", w == "WIG"


_VEX_LENGTHS = {"128": 0, "256": 1, "LIG": -1}
_VEX_MAPS = {"0F": (0x0F,), "0F38": (0x0F, 0x38), "0F3A": (0x0F, 0x3A)}


def parse_row(row_number: int, line: int, columns: Sequence[str], simd: bool = False) -> Form:
    """Parses one row.

    Args:
        row_number: its index among all rows.
        line: its line in the file, for messages.
        columns: its nine columns, without surrounding blanks.
        simd: it is of x87_simd.tbl, which has only the first four and the notes.

    Raises:
        TableError: the row is malformed.
    """
    row = _Row(line, columns, SIMD_PATH if simd else TABLE_PATH)
    if len(columns) in (4, 5) and simd:
        columns = [*columns[:4], *_SIMD_REST, ("".join(columns[4:]) + " no-body over").lstrip("- ")]
    if len(columns) != len(COLUMNS):
        raise row.fail(f"{len(columns)} columns where {len(COLUMNS)} are wanted")
    encoding, syntax, modes, since, prefixes, flags, cpl, exit_class, notes_text = columns
    code = _Encoding(row, encoding)
    mnemonic, _, operand_text = syntax.partition(" ")
    texts = [text.strip() for text in operand_text.split(",")] if operand_text else []
    operands = _parse_operands(row, texts, code.digit, code.modrm, code.plus, code.order)
    sizes = modes.split()
    if not sizes or any(size not in ("16", "32", "64") for size in sizes):
        raise row.fail(f"bad modes {modes!r}")
    if since not in (*PROCESSORS, *FEATURES, *(ASSEMBLER_FEATURES if "no-body" in notes_text else ())):
        raise row.fail(f"unknown processor or feature {since!r}")
    legal = prefixes.split() if prefixes != "-" else []
    if any(prefix not in ("lock", "rep", "repz") for prefix in legal):
        raise row.fail(f"bad prefixes {prefixes!r}")
    if cpl not in ("0", "iopl", "3"):
        raise row.fail(f"bad privilege level {cpl!r}")
    if exit_class not in ("-", "cond", "always"):
        raise row.fail(f"bad VM-exit class {exit_class!r}")
    notes = notes_text.split() if notes_text != "-" else []
    bodies = [note[5:] for note in notes if note.startswith("body=")]
    notes = [note for note in notes if not note.startswith("body=")]
    if not NOTES.issuperset(notes) or len(bodies) > 1:
        raise row.fail(f"bad notes {notes_text!r}")
    if not code.vex and (code.osize == 64 or code.default64 or code.force64 or code.asize == 64) and sizes != ["64"]:
        raise row.fail("a 64-bit size outside 64-bit mode")
    if len(code.immediates) != sum(spec.kind in ("imm", "rel", "ptr") for spec in operands):
        raise row.fail("immediates of encoding and syntax differ")
    return Form(
        row=row_number,
        line=line,
        encoding=encoding,
        syntax=syntax,
        mnemonic=mnemonic,
        operands=operands,
        modes=tuple(map(int, sizes)),
        since=since,
        lock="lock" in legal,
        rep="rep" in legal,
        repz="repz" in legal,
        flags=_parse_flags(row, flags),
        cpl=cpl,
        exit=exit_class,
        notes=frozenset(notes),
        body=bodies[0] if bodies else mnemonic.lower(),
        osize=code.osize,
        default64=code.default64,
        force64=code.force64,
        w0=code.w0,
        wig=code.wig,
        asize=code.asize,
        prefix=code.prefix,
        rex_b0=code.rex_b0,
        map=code.map,
        opcode=code.opcode,
        plus_register=code.plus,
        modrm=code.modrm,
        digit=code.digit,
        fixed=code.fixed,
        immediates=tuple(code.immediates),
        wait=code.wait,
        vex=code.vex,
        length=code.length,
        suffix=code.suffix,
        plus_modrm=code.plus_modrm,
    )


def without_first_source(form: Form) -> Form:
    """The form of a row with the note ``same`` whose first source is left out, since it is the destination."""
    first, second, *others = form.operands
    first = first._replace(where=f"{first.where}+{second.where}")
    return form._replace(operands=(first, *others), notes=form.notes | {"alias"})


class Table(Sequence[Form]):
    """The rows of a table, parsed as they are asked for.

    Args:
        text: the contents of x86.tbl.
        simd: those of x87_simd.tbl, whose rows come behind.

    Raises:
        TableError: on access to a malformed row.
    """

    def __init__(self, text: str, simd: str = "") -> None:
        self._rows: list[tuple[int, str]] = []
        self._by_mnemonic: dict[str, list[int]] = {}
        self._forms: dict[int, Form] = {}
        self._of_mnemonic: dict[str, tuple[Form, ...]] = {}
        self._read(text, TABLE_PATH)
        self._simd = len(self._rows)
        self._read(simd, SIMD_PATH)

    def _read(self, text: str, path: Path) -> None:
        for number, line in enumerate(text.splitlines(), 1):
            if not line or line[0] == "#" or line.isspace():
                continue
            try:
                mnemonic = line[line.index("|") + 1 :].split(None, 1)[0].lower()
            except (ValueError, IndexError):
                raise TableError(f"{path.name}:{number}: no columns in {line!r}") from None
            self._by_mnemonic.setdefault(mnemonic, []).append(len(self._rows))
            self._rows.append((number, line))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # Sequence's overloads: int or slice
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        form = self._forms.get(index)
        if form is None:
            number, line = self._rows[index]
            columns = [column.strip() for column in line.split("|")]
            form = self._forms[index] = parse_row(index, number, columns, index >= self._simd)
        return form

    def __iter__(self) -> Iterator[Form]:
        return (self[n] for n in range(len(self)))

    def mnemonics(self) -> frozenset[str]:
        """Every mnemonic, in lower case."""
        return frozenset(self._by_mnemonic)

    def forms_of(self, mnemonic: str) -> tuple[Form, ...]:
        """The forms of a mnemonic (lower case) in the order of preference; empty where there is no such mnemonic."""
        found = self._of_mnemonic.get(mnemonic, ())
        if not found and mnemonic in self._by_mnemonic:
            forms = []
            for n in self._by_mnemonic[mnemonic]:
                forms.append(self[n])
                if "same" in self[n].notes:
                    forms.append(without_first_source(self[n]))
            found = self._of_mnemonic[mnemonic] = tuple(forms)
        return found


@functools.cache
def load() -> Table:
    """The whole instruction table.

    Raises:
        TableError: the table is malformed; the message names the line.
    """
    return Table(TABLE_PATH.read_text(encoding="ascii"), SIMD_PATH.read_text(encoding="ascii"))


@functools.cache
def processor_table() -> Table:
    """The rows of x86.tbl alone, among which are all that the processor executes; numbered as in `load`."""
    return Table(TABLE_PATH.read_text(encoding="ascii"))


def __getattr__(name: str) -> Table:
    if name == "FORMS":
        return processor_table()
    raise AttributeError(name)
