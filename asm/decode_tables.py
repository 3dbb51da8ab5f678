"""Writes the C decode tables from x86.tbl: ``python -m asm.decode_tables OUTDIR``.

emu/core/form.h holds the types and says how the tables are walked. Two rows that the same bytes match are an error,
unless one of them is more specific and says so (note ``over``): then the other is what older processors execute.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from asm.table import STATUS_FLAGS, Form, TableError, processor_table

# The order of emu/core/form.h.
MODES = (("legacy", 16), ("legacy", 32), ("long", 16), ("long", 32), ("long", 64))
MAPS = 4
PREFIXES = ("none", "66", "F3", "F2")
ADDRESS_SIZES = (16, 32, 64)
ENTRY_GROUP = 0x8000
# The parts of an instruction that tell forms of one opcode apart: the group kind and how many values it has.
PARTS = {
    "reg": ("GROUP_REG", 16),
    "rm": ("GROUP_RM", 8),
    "prefix": ("GROUP_PREFIX", len(PREFIXES)),
    "asize": ("GROUP_ASIZE", len(ADDRESS_SIZES)),
    "rex_b": ("GROUP_REX_B", 2),
}
_FULL = {part: frozenset(range(count)) for part, (_, count) in PARTS.items()}


class AmbiguityError(TableError):
    """Two rows decode alike."""


class Candidate(NamedTuple):
    """A form, and the values of each deciding part of the instruction that it matches."""

    form: Form
    specificity: int
    reg: frozenset[int] = _FULL["reg"]
    rm: frozenset[int] = _FULL["rm"]
    prefix: frozenset[int] = _FULL["prefix"]
    asize: frozenset[int] = _FULL["asize"]
    rex_b: frozenset[int] = _FULL["rex_b"]

    def without(self, part: str) -> Candidate:
        """The candidate once a part has been looked at."""
        return self._replace(**{part: _FULL[part]})  # type: ignore[arg-type]  # part is no form


def operand_sizes(form: Form, long_mode: bool) -> frozenset[int]:
    """The operand sizes, as prefixes and mode give them, with which a form's bytes mean the form."""
    if form.osize:
        return frozenset((form.osize, 64) if form.wig else (form.osize,))
    if form.default64:
        return frozenset((32, 64))
    if form.w0:
        return frozenset((16, 32))
    return frozenset((16, 32, 64) if long_mode else (16, 32))


def candidate(form: Form) -> Candidate:
    """The form with what it matches."""
    found = Candidate(form, (form.fixed >= 0) * 8 + (form.digit >= 0) * 4 + bool(form.prefix) * 2 + form.rex_b0)
    if form.mandatory_prefix:
        found = found._replace(prefix=frozenset((PREFIXES.index(form.prefix),)))
    elif form.prefix:
        found = found._replace(prefix=frozenset((0, 1) if form.prefix == "NFx" else (0,)))
    if form.asize:
        found = found._replace(asize=frozenset((ADDRESS_SIZES.index(form.asize),)))
    if form.rex_b0:
        found = found._replace(rex_b=frozenset((0,)))
    if form.fixed >= 0:
        numbers = frozenset(range(8) if form.plus_modrm else (form.fixed & 7,))
        return found._replace(reg=frozenset((8 + (form.fixed >> 3 & 7),)), rm=numbers)
    if form.modrm:
        digits = range(8) if form.digit < 0 else (form.digit,)
        any_mod = "reg-only" in form.notes
        memory = digits if form.takes_memory or any_mod else ()
        register = digits if form.takes_register or any_mod else ()
        if any(spec.kind == "vsib" for spec in form.operands):
            found = found._replace(rm=frozenset((4,)))  # a SIB byte must follow
        return found._replace(reg=frozenset((*memory, *(8 + digit for digit in register))))
    return found


class Tables:
    """Collects forms, groups and handlers, each once."""

    def __init__(self) -> None:
        self.handlers: dict[str, int] = {}
        self.forms: dict[tuple[int, int], int] = {}
        self.groups: dict[tuple[str, tuple[int, ...]], int] = {}

    def handler(self, name: str | None) -> int:
        return self.handlers.setdefault(name, len(self.handlers) + 1) if name else 0

    def form(self, form: Form, fallback: int) -> int:
        return self.forms.setdefault((form.row, fallback), len(self.forms) + 1)

    def group(self, kind: str, entries: Sequence[int]) -> int:
        if len(set(entries)) == 1:
            return entries[0]
        return ENTRY_GROUP | self.groups.setdefault((kind, tuple(entries)), len(self.groups))

    def resolve(self, candidates: list[Candidate]) -> int:
        """The entry that tells the candidates apart.

        Raises:
            AmbiguityError: two candidates match the same bytes and neither is marked to stand over the other.
        """
        plain = all(c.form.digit < 0 and c.form.fixed < 0 for c in candidates)
        if plain and len(candidates) == 1:
            # Whether ModRM names memory need not be looked at: Form.handler has no body for the wrong one.
            candidates = [candidates[0]._replace(reg=_FULL["reg"])]
        for part in ("prefix", "asize", "rex_b", "reg", "rm") if plain else ("reg", "rm", "prefix", "asize", "rex_b"):
            if any(getattr(c, part) != _FULL[part] for c in candidates):
                kind, count = PARTS[part]
                return self.group(
                    kind,
                    [
                        self.resolve([c.without(part) for c in candidates if n in getattr(c, part)])
                        for n in range(count)
                    ],
                )
        return self.pick(candidates)

    def pick(self, candidates: list[Candidate]) -> int:
        """The entry of the most specific of candidates that match alike, the others as its fallbacks."""
        entry, below = 0, None
        for c in sorted(candidates, key=lambda c: c.specificity):
            if below is not None and (c.specificity == below.specificity or "over" not in c.form.notes):
                raise AmbiguityError(
                    f"x86.tbl: lines {below.form.line} and {c.form.line} decode alike: "
                    f"{below.form.encoding!r} {below.form.syntax!r} and {c.form.encoding!r} {c.form.syntax!r}"
                )
            entry, below = self.form(c.form, entry), c
        return entry


def decode_map(forms: Iterable[Form], builder: Tables) -> list[list[list[int]]]:
    """The entries by decode mode, opcode map and opcode.

    Raises:
        AmbiguityError: two forms decode alike.
        TableError: a form has only one of 16- and 32-bit code, whose opcode maps are one.
    """
    cells: dict[tuple[int, int, int], list[Candidate]] = {}
    for form in forms:
        if not form.decodes:
            continue
        if (16 in form.modes) != (32 in form.modes):
            raise TableError(f"x86.tbl:{form.line}: 16- and 32-bit code share one opcode map: {form.syntax!r}")
        found = candidate(form)
        for mode, (kind, osize) in enumerate(MODES):
            long_mode = kind == "long"
            if (64 if long_mode else 32) in form.modes and osize in operand_sizes(form, long_mode):
                for opcode in range(form.opcode, form.opcode + (8 if form.plus_register else 1)):
                    cells.setdefault((mode, form.map, opcode), []).append(found)
    return [
        [[builder.resolve(cells.get((mode, number, opcode), [])) for opcode in range(256)] for number in range(MAPS)]
        for mode in range(len(MODES))
    ]


_IMMEDIATES = {
    (): "IMM_NONE", ("iw",): "IMM_IW", ("iq",): "IMM_IQ", ("iw", "ib"): "IMM_IW_IB",
    ("cb",): "IMM_CB", ("cw",): "IMM_CW",
}  # fmt: skip


def immediate(form: Form) -> str:
    """The IMM_* constant of a form."""
    kinds = {o.kind for o in form.operands}
    if "moffs" in kinds:
        return "IMM_MOFFS"
    if "ptr" in kinds:
        return "IMM_CP16" if form.immediates == ("cd",) else "IMM_CP32"
    if form.immediates == ("cd",):
        return "IMM_CD"
    signed = any(o.signed and o.kind == "imm" for o in form.operands)
    if form.immediates == ("ib",):
        return "IMM_IBS" if signed else "IMM_IB"
    if form.immediates == ("id",):
        return "IMM_IDS" if signed else "IMM_ID"
    return _IMMEDIATES[form.immediates]


def form_flags(form: Form) -> list[str]:
    """The FORM_* constants of a form."""
    wanted = {
        "FORM_MODRM": form.modrm,
        "FORM_LOCK": form.lock,
        "FORM_REP": form.rep,
        "FORM_REPZ": form.repz,
        "FORM_END": "end" in form.notes,
        "FORM_CPL0": form.cpl == "0",
        "FORM_IOPL": form.cpl == "iopl",
        "FORM_PM": "pm" in form.notes,
        "FORM_DEFAULT64": form.default64,
        "FORM_FORCE64": form.force64,
        "FORM_REG_ONLY": "reg-only" in form.notes,
        "FORM_EXIT": form.exit == "cond",
        "FORM_EXIT_ALWAYS": form.exit == "always",
    }
    return [name for name, present in wanted.items() if present]


def flag_mask(letters: str) -> int:
    """FLAG_* bits of flag letters: the six status flags from bit 0, all others as one bit."""
    return sum({1 << STATUS_FLAGS.index(c) if c in STATUS_FLAGS else 1 << len(STATUS_FLAGS) for c in letters})


def _form_line(form: Form, fallback: int, builder: Tables) -> str:
    handlers = [builder.handler(name) for name in (*form.handlers(), *form.repeat_handlers())]
    if "reg-only" in form.notes or any(o.kind == "moffs" for o in form.operands):
        handlers[1] = handlers[0]
    wheres = [f"OPERAND_{o.where}" for o in form.operands] + ["OPERAND_NONE"] * (3 - len(form.operands))
    sizes = [o.size for o in form.operands] + [0] * (3 - len(form.operands))
    fields = (
        str(form.row),
        "{" + ", ".join(map(str, handlers)) + "}",
        str(fallback),
        " | ".join(form_flags(form)) or "0",
        "{" + ", ".join(wheres) + "}",
        "{" + ", ".join(map(str, sizes)) + "}",
        immediate(form),
        f"SINCE_{form.since}",
        str(form.operand_size),
        *(str(flag_mask(letters)) for letters in form.flags),
    )
    return f"    /* {form.encoding}: {form.syntax} */ {{{', '.join(fields)}}},"


def _numbers(values: Sequence[int]) -> list[str]:
    return ["    " + ", ".join(map(str, values[n : n + 16])) + "," for n in range(0, len(values), 16)]


def generate(forms: Iterable[Form]) -> tuple[str, str]:
    """The texts of decode_table.inc and handlers.inc.

    Raises:
        TableError: the table is malformed or ambiguous; the message names the rows.
    """
    rows = {form.row: form for form in forms if form.executes}
    builder = Tables()
    maps = decode_map(rows.values(), builder)
    lines = ["/* Generated from asm/x86.tbl by asm/decode_tables.py: do not edit. */", ""]
    lines += ["static const Form decode_form[] = {", "    {0},"]
    lines += [_form_line(rows[index], fallback, builder) for index, fallback in builder.forms]
    lines += ["};", "", "static const uint16_t decode_map[DECODE_MODES][DECODE_MAPS][256] = {"]
    for mode in maps:
        lines.append("    {")
        for entries in mode:
            lines += ["    {", *_numbers(entries), "    },"]
        lines.append("    },")
    lines += ["};", "", "static const DecodeGroup decode_group[] = {"]
    entries_flat: list[int] = []
    for kind, entries_of_group in builder.groups:
        lines.append(f"    {{{kind}, {len(entries_flat)}}},")
        entries_flat += entries_of_group
    lines += ["};", "", "static const uint16_t decode_entry[] = {", *_numbers(entries_flat), "};", ""]
    handlers = ["/* Generated from asm/x86.tbl by asm/decode_tables.py: do not edit. */"]
    handlers += [f"X({name})" for name in builder.handlers]
    return "\n".join(lines), "\n".join(handlers) + "\n"


def write(directory: str | os.PathLike[str]) -> list[Path]:
    """Writes decode_table.inc and handlers.inc; a file that would not change keeps its time, so that nothing rebuilds.

    Returns:
        The paths of both files.

    Raises:
        TableError: the table is malformed or ambiguous; the message names the rows.
        OSError: the directory cannot be made or written.
    """
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / "decode_table.inc", target / "handlers.inc"]
    for path, text in zip(paths, generate(processor_table()), strict=True):
        if not path.exists() or path.read_text(encoding="ascii") != text:
            temporary = path.with_suffix(".tmp")
            temporary.write_text(text, encoding="ascii")
            temporary.replace(path)
    return paths


def main(arguments: Sequence[str]) -> int:
    """The command: OUTDIR is its one argument."""
    if len(arguments) != 1:
        print("usage: python -m asm.decode_tables OUTDIR", file=sys.stderr)
        return 2
    try:
        write(arguments[0])
    except (TableError, OSError) as error:
        print(f"asm.decode_tables: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
