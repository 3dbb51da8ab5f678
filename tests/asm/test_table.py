"""The instruction table, what is derived from it, and how its errors are told."""

import random
import re
from pathlib import Path

import pytest

from asm import decode_tables, table
from asm.decode_tables import ENTRY_GROUP, MODES, AmbiguityError, Tables
from asm.instructions.disassemble import decode
from asm.table import Form, Table, TableError

FORM_H = Path(table.__file__).parents[1] / "emu" / "core" / "form.h"
GOOD = ("01 /r", "ADD r/m32, r32", "16 32 64", "386", "lock", "w:oszapc", "3", "-", "-")


def form_named(syntax: str, encoding: str | None = None) -> Form:
    found = [f for f in table.load() if f.syntax == syntax and f.decodes and encoding in (None, f.encoding)]
    assert found, syntax
    return found[0]


def constants(prefix: str) -> list[str]:
    """The enumerators of form.h that begin with a prefix, in order."""
    text = re.sub(r"/\*.*?\*/", "", FORM_H.read_text(), flags=re.DOTALL)
    names = re.findall(r"\b([A-Z][A-Z0-9_]*)\b(?:\s*=[^,}]*)?\s*[,}]", text)
    return [name for name in names if name.startswith(prefix)]


def test_every_row_parses() -> None:
    forms = list(table.load())
    assert len(forms) == len(table.load())
    assert [form.row for form in forms] == list(range(len(forms)))
    assert table.FORMS is table.processor_table()
    assert [form.syntax for form in table.FORMS] == [form.syntax for form in forms[: len(table.FORMS)]]


def test_no_row_stands_twice() -> None:
    seen: dict[tuple[str, str, int], int] = {}
    for form in table.load():
        for mode in form.modes:
            first = seen.setdefault((form.encoding, form.syntax, mode), form.line)
            assert first == form.line, f"lines {first} and {form.line} are the same"


def test_an_alias_has_a_row_that_decodes() -> None:
    """Every encoding that the assembler writes is one that the decoder knows, but those that processors lost."""
    opcodes = {(form.map, form.opcode) for form in table.load() if form.decodes}
    for form in table.load():
        lost = "obsolete" in form.notes or form.mnemonic == "XBTS" or "TR0-TR7" in form.syntax
        assert (form.map, form.opcode) in opcodes or form.wait or lost, form.syntax


def test_lock_needs_a_destination_in_memory() -> None:
    for form in table.load():
        if form.lock and form.decodes:
            assert any(spec.takes_memory for spec in form.operands), form.syntax


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        (0, "01 /q", "unknown token '/q'"),
        (0, "", "no opcode"),
        (0, "0F", "no opcode"),
        (0, "01 02 /r", "too many opcode bytes"),
        (0, "01 /r ib", "immediates of encoding and syntax differ"),
        (0, "01", "operand r32 has no place"),
        (0, "REX.W 01 /r", "a 64-bit size outside 64-bit mode"),
        (0, "41+rd", "+r on an opcode"),
        (1, "ADD r/m32, z32", "unknown operand 'z32'"),
        (1, "ADD r32, r32", "two operands in ModRM.reg"),
        (1, "ADD r/mxx, r32", "bad size 'xx'"),
        (2, "24", "bad modes"),
        (3, "8080", "unknown processor or feature"),
        (4, "lick", "bad prefixes"),
        (5, "w:y", "bad flags"),
        (6, "2", "bad privilege level"),
        (7, "maybe", "bad VM-exit class"),
        (8, "whim", "bad notes"),
    ],
)
def test_a_malformed_row_is_named(column: int, text: str, message: str) -> None:
    columns = list(GOOD)
    columns[column] = text
    with pytest.raises(TableError, match=re.escape(message)) as raised:
        list(Table("# head\n\n" + " | ".join(columns)))
    assert str(raised.value).startswith("x86.tbl:3: ")


def test_missing_columns_are_an_error() -> None:
    with pytest.raises(TableError, match=r"x86\.tbl:1: 8 columns where 9 are wanted"):
        list(Table(" | ".join(GOOD[:8])))
    with pytest.raises(TableError, match=r"x86\.tbl:1: no columns"):
        Table("nonsense")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("01 /r | ADD r/m32, r32", "01 /r | SUB r/m32, r32"),
        ("o32 01 /r | ADD r/m32, r32", "01 /r | SUB r/m32, r32"),
        ("0F 01 /2 | LGDT m16&32", "0F 01 /r | SGDT m16&32"),
        ("90 | NOP", "90+rd | PUSH r32"),
        ("0F 01 C1 | VMCALL", "0F 01 /0 | INC r/m32"),
    ],
)
def test_rows_that_decode_alike_are_both_named(first: str, second: str) -> None:
    tail = " | 16 32 | 386 | - | - | 3 | - | -"
    with pytest.raises(AmbiguityError) as raised:
        decode_tables.generate(Table(f"{first}{tail}\n{second}{tail}\n"))
    assert all(text in str(raised.value) for text in ("1", "2", first.split(" | ")[1], second.split(" | ")[1]))


def test_a_row_may_stand_over_another() -> None:
    tail = " | 16 32 | {} | - | - | 3 | - | {}\n"
    below = "0F BC /r | BSF r32, r/m32" + tail.format("386", "-")
    above = "F3 0F BC /r | TZCNT r32, r/m32" + tail.format("BMI1", "over")
    tables = Tables()
    decode_tables.decode_map(Table(below + above), tables)
    assert tables.forms == {(0, 0): 1, (1, 1): 2}


def test_code_of_one_legacy_size_is_an_error() -> None:
    with pytest.raises(TableError, match="share one opcode map"):
        decode_tables.generate(Table("90 | NOP | 16 | 8086 | - | - | 3 | - | -"))


@pytest.mark.parametrize(
    ("syntax", "encoding", "register", "memory"),
    [
        ("ADD r/m32, r32", "o32 01 /r", "exec_add_r32_r32", "exec_add_m32_r32"),
        ("ADD EAX, imm32", None, "exec_add_r32_i", None),
        ("ADD r/m32, simm8", None, "exec_add_r32_i", "exec_add_m32_i"),
        ("SHL r/m8, CL", None, "exec_shl_r8_r8", "exec_shl_m8_r8"),
        ("SHL r/m16, 1", None, "exec_shl_r16_i", "exec_shl_m16_i"),
        ("SAL r/m16, 1", None, "exec_shl_r16_i", "exec_shl_m16_i"),
        ("IMUL r32, r/m32, simm8", None, "exec_imul_r32_r32_i", "exec_imul_r32_m32_i"),
        ("MOVZX r32, r/m8", None, "exec_movzx_r32_r8", "exec_movzx_r32_m8"),
        ("JZ rel8", None, "exec_jz_rel", None),
        ("JZ rel32", None, "exec_jz_rel", None),
        ("CALL rel16", None, "exec_call_rel", None),
        ("CALL ptr16:32", None, "exec_call_far", None),
        ("JMP m16:32", None, None, "exec_jmp_mfar"),
        ("LES r16, m16:16", None, None, "exec_les_r16_mfar"),
        ("MOV r16/m16, Sreg", None, "exec_mov_r16_s", "exec_mov_m16_s"),
        ("MOV r32/m16, Sreg", None, "exec_mov_r32_s", "exec_mov_m16_s"),
        ("PUSH DS", None, "exec_push_s", None),
        ("MOVSB", None, "exec_movsb", None),
        ("IN AL, imm8", None, "exec_in_r8_i", None),
        ("IN EAX, DX", None, "exec_in_r32_r16", None),
        ("XCHG EAX, r32", None, "exec_xchg_r32_r32", None),
        ("PUSHAW", None, "exec_pusha", None),
        ("PUSHAD", None, "exec_pushad", None),
        ("IRETW", None, "exec_iret", None),
        ("RET imm16", None, "exec_ret_i", None),
        ("ENTER imm16, imm8", None, "exec_enter_i_i", None),
        ("LGDT m16&32", None, None, "exec_lgdt_m"),
        ("INVLPG m", None, None, "exec_invlpg_m"),
        ("CMPXCHG8B m64", None, None, "exec_cmpxchg8b_m64"),
        ("CMPXCHG16B m128", None, None, "exec_cmpxchg16b_m"),
        ("MOV EAX, moffs32", None, "exec_mov_r32_m32", None),
        ("MOV r32, CR0-CR8", None, "exec_mov_r32_c", None),
        ("MOV DR0-DR7, r32", None, "exec_mov_d_r32", None),
        ("INT3", None, "exec_int3", None),
        ("NOP r/m32", None, "exec_nop", "exec_nop"),
    ],
)
def test_names_of_bodies(syntax: str, encoding: str | None, register: str | None, memory: str | None) -> None:
    assert form_named(syntax, encoding).handlers() == (register, memory)


def test_names_of_repeated_bodies() -> None:
    assert form_named("MOVSB").repeat_handlers() == ("exec_rep_movsb", "exec_rep_movsb")
    assert form_named("CMPSD").repeat_handlers() == ("exec_repe_cmpsd", "exec_repne_cmpsd")
    assert form_named("NOP").repeat_handlers() == (None, None)


def test_constants_are_those_of_the_header() -> None:
    assert constants("SINCE_") == [f"SINCE_{name}" for name in (*table.PROCESSORS, *table.FEATURES)]
    assert sorted(constants("GROUP_")) == sorted(kind for kind, _ in decode_tables.PARTS.values())
    known = {prefix: set(constants(prefix)) for prefix in ("OPERAND_", "IMM_", "FORM_")}
    for form in table.processor_table():
        if form.decodes:
            assert {f"OPERAND_{spec.where}" for spec in form.operands} <= known["OPERAND_"], form.syntax
            assert decode_tables.immediate(form) in known["IMM_"], form.syntax
            assert set(decode_tables.form_flags(form)) <= known["FORM_"], form.syntax


def test_flags_masks_are_those_of_the_header() -> None:
    assert constants("FLAG_") == ["FLAG_O", "FLAG_S", "FLAG_Z", "FLAG_A", "FLAG_P", "FLAG_C", "FLAG_OTHER"]
    assert decode_tables.flag_mask("oszapc") == 63
    assert decode_tables.flag_mask("c") == 32
    assert decode_tables.flag_mask("id") == 64


class RandomCode:
    """An opcode with at most one prefix and a REX, and random bytes behind it."""

    def __init__(self, chooser: random.Random) -> None:
        self.bits = chooser.choice((16, 32, 64))
        self.prefix = chooser.choice((b"", b"", b"", b"\x66", b"\xf3", b"\xf2", b"\x67"))
        self.rex = chooser.choice((0, 0x40, 0x41, 0x48)) if self.bits == 64 else 0
        self.map = chooser.choice((0, 0, 1, 1, 1, 2))
        self.modrm = chooser.randrange(256)
        prefixes = b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3" + bytes(range(0x40, 0x50) if self.bits == 64 else ())
        excluded = {0: (0x0F, *prefixes), 1: (0x38, 0x3A), 2: ()}[self.map]
        self.opcode = chooser.choice([opcode for opcode in range(256) if opcode not in excluded])

    def __bytes__(self) -> bytes:
        escape = (b"", b"\x0f", b"\x0f\x38")[self.map]
        rex = bytes((self.rex,)) if self.rex else b""
        return self.prefix + rex + escape + bytes((self.opcode, self.modrm)) + bytes(10)


def walk(maps: list[list[list[int]]], tables: Tables, code: RandomCode) -> Form | None:
    """The walk that form.h describes."""
    osize = 64 if code.rex & 8 else code.bits if code.bits == 16 else 32
    if code.prefix == b"\x66" and osize != 64:
        osize = 48 - osize
    asize = {16: 32, 32: 16, 64: 32}[code.bits] if code.prefix == b"\x67" else code.bits
    entry = maps[MODES.index(("long" if code.bits == 64 else "legacy", osize))][code.map][code.opcode]
    groups = list(tables.groups)
    while entry & ENTRY_GROUP:
        kind, entries = groups[entry & ~ENTRY_GROUP]
        index = {
            "GROUP_REG": (code.modrm >= 0xC0) * 8 + (code.modrm >> 3 & 7),
            "GROUP_RM": code.modrm & 7,
            "GROUP_PREFIX": {b"\x66": 1, b"\xf3": 2, b"\xf2": 3}.get(code.prefix, 0),
            "GROUP_ASIZE": asize >> 5,
            "GROUP_REX_B": code.rex & 1,
        }[kind]
        entry = entries[index]
    if not entry:
        return None
    form = table.processor_table()[list(tables.forms)[entry - 1][0]]
    names_operand = form.modrm and form.fixed < 0 and "reg-only" not in form.notes
    if names_operand and form.handlers()[0 if code.modrm >= 0xC0 else 1] is None:
        return None  # no body for a register or for memory: #UD
    if any(spec.kind == "sreg" for spec in form.operands) and code.modrm >> 3 & 7 > 5:
        return None  # segment registers 6 and 7 do not exist
    return form


def test_walking_the_map_finds_what_the_disassembler_finds() -> None:
    """The walk through groups, against the search by specificity in asm/instructions/disassemble.py."""
    tables = Tables()
    maps = decode_tables.decode_map(table.processor_table(), tables)
    chooser = random.Random(1)
    checked = 0
    for _ in range(20000):
        code = RandomCode(chooser)
        found = decode(bytes(code), code.bits)
        if found is not None and found.form.row >= len(table.processor_table()):
            continue
        walked = walk(maps, tables, code)
        assert (found.form if found else None) == walked, (code.bits, bytes(code).hex())
        checked += walked is not None
    assert checked > 5000


def test_unchanged_files_keep_their_time(tmp_path: Path) -> None:
    paths = decode_tables.write(tmp_path / "new")
    assert [path.name for path in paths] == ["decode_table.inc", "handlers.inc"]
    before = [path.stat().st_mtime_ns for path in paths]
    decode_tables.write(tmp_path / "new")
    assert [path.stat().st_mtime_ns for path in paths] == before
    names = re.findall(r"X\((\w+)\)", paths[1].read_text())
    assert len(names) == len(set(names)) > 500


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert decode_tables.main([str(tmp_path)]) == 0
    assert decode_tables.main([]) == 2
    (tmp_path / "file").write_text("")
    assert decode_tables.main([str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.count("\n") == 2
