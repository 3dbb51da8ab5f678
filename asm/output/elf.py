"""Relocatable ELF objects for IA-32 and x86-64: sections, symbols and relocations.

System V Application Binary Interface, "Object Files", and its supplements for Intel 386 and AMD64. The order of
sections, symbols and strings is NASM's, so that the files are the same.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from asm.diagnostics import did_you_mean
from asm.expression import SCALAR, ExpressionError, Linear, Section, Symbol, evaluate
from asm.ir import Switch
from asm.parse import TokenError

if TYPE_CHECKING:
    from asm.assembler import Assembler
    from asm.preprocessor.frames import Place

SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOTE, SHT_NOBITS, SHT_REL = 1, 2, 3, 4, 7, 8, 9
SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY = 14, 15, 16
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_MERGE, SHF_STRINGS, SHF_TLS = 1, 2, 4, 0x10, 0x20, 0x400
SHN_LORESERVE, SHN_ABS, SHN_COMMON = 0xFF00, 0xFFF1, 0xFFF2
MAX_SECTIONS = SHN_LORESERVE - 5  # beside the null section, the symbols and their tables of names
STT = {"notype": 0, "data": 1, "object": 1, "function": 2, "tls": 6}
STV = {"default": 0, "internal": 1, "hidden": 2, "protected": 3}
STB_GLOBAL, STB_WEAK = 1, 2
STT_SECTION, STT_FILE, STT_TLS = 3, 4, 6

# Type, flags and alignment of the sections that have a meaning; 0 is the size of an address.
_WRITABLE = SHF_ALLOC | SHF_WRITE
KNOWN_SECTIONS = {
    ".text": (SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, 16),
    ".rodata": (SHT_PROGBITS, SHF_ALLOC, 4),
    ".lrodata": (SHT_PROGBITS, SHF_ALLOC, 4),
    ".data": (SHT_PROGBITS, _WRITABLE, 4),
    ".ldata": (SHT_PROGBITS, _WRITABLE, 4),
    ".bss": (SHT_NOBITS, _WRITABLE, 4),
    ".lbss": (SHT_NOBITS, _WRITABLE, 4),
    ".tdata": (SHT_PROGBITS, _WRITABLE | SHF_TLS, 4),
    ".tbss": (SHT_NOBITS, _WRITABLE | SHF_TLS, 4),
    ".comment": (SHT_PROGBITS, 0, 1),
    ".preinit_array": (SHT_PREINIT_ARRAY, SHF_ALLOC, 0),
    ".init_array": (SHT_INIT_ARRAY, SHF_ALLOC, 0),
    ".fini_array": (SHT_FINI_ARRAY, SHF_ALLOC, 0),
    ".note": (SHT_NOTE, 0, 4),
}
_TYPES = {
    "progbits": SHT_PROGBITS, "nobits": SHT_NOBITS, "note": SHT_NOTE, "init_array": SHT_INIT_ARRAY,
    "fini_array": SHT_FINI_ARRAY, "preinit_array": SHT_PREINIT_ARRAY,
}  # fmt: skip
_FLAGS = {
    "alloc": (SHF_ALLOC, 0), "noalloc": (0, SHF_ALLOC), "exec": (SHF_EXECINSTR, 0), "noexec": (0, SHF_EXECINSTR),
    "write": (SHF_WRITE, 0), "nowrite": (0, SHF_WRITE), "readonly": (0, SHF_WRITE),
    "tls": (SHF_TLS, 0), "notls": (0, SHF_TLS),
    "merge": (SHF_MERGE, 0), "nomerge": (0, SHF_MERGE), "strings": (SHF_STRINGS, 0), "nostrings": (0, SHF_STRINGS),
}  # fmt: skip
# Size and alignment of the entries; 0 is the size of an address.
_ENTRY_SIZES = {
    "byte": (1, 1), "word": (2, 2), "dword": (4, 4), "qword": (8, 8), "tword": (10, 2), "tbyte": (10, 2),
    "oword": (16, 16), "xword": (16, 16), "yword": (32, 32), "zword": (64, 64), "pointer": (0, 0),
}  # fmt: skip
RESERVED_SECTIONS = frozenset((".shstrtab", ".strtab", ".symtab", ".symtab_shndx"))

# Relocation types by (kind, size in bytes); kinds are abs, signed (an address that the processor sign-extends), rel,
# and what stands behind `wrt`, with "rel " before it where the field counts from the next instruction.
R_386 = {
    ("abs", 4): 1, ("signed", 4): 1, ("rel", 4): 2, ("abs", 2): 20, ("rel", 2): 21, ("abs", 1): 22, ("rel", 1): 23,
    ("signed", 2): 20, ("signed", 1): 22, ("..got", 4): 3, ("rel ..plt", 4): 4, ("..gotoff", 4): 9, ("..gotpc", 4): 10,
    ("..tlsie", 4): 15,
}  # fmt: skip
R_X86_64 = {
    ("abs", 8): 1, ("rel", 4): 2, ("abs", 4): 10, ("signed", 4): 11, ("abs", 2): 12, ("rel", 2): 13, ("abs", 1): 14,
    ("rel", 1): 15, ("rel", 8): 24, ("signed", 2): 12, ("signed", 1): 14, ("signed", 8): 1, ("..got", 4): 3,
    ("rel ..plt", 4): 4, ("rel ..got", 4): 9, ("rel ..gotpc", 4): 9, ("rel ..gottpoff", 4): 22, ("..gotoff", 8): 25,
    ("..gotpc", 4): 26, ("..got", 8): 27, ("rel ..got", 8): 28, ("rel ..gotpc", 8): 28, ("..gotpc", 8): 29,
}  # fmt: skip

# What is of a symbol, not of a section.
_SYMBOLIC = {
    32: frozenset(("..got", "..sym", "..tlsie")),
    64: frozenset(("..got", "..sym", "rel ..got", "rel ..gotpc", "rel ..gottpoff", "rel ..plt")),
}


class Relocation(NamedTuple):
    """A field for the linker: its offset in the section, what it counts from, its type and what is added."""

    offset: int
    target: Section | Symbol | None
    type: int
    addend: int


class Attributes:
    """What `global`, `extern`, `static` and `common` say of a symbol."""

    def __init__(self) -> None:
        self.binding = STB_GLOBAL
        self.type = 0
        self.visibility = 0
        self.size: Any = 0
        self.common: tuple[Any, Any] | None = None
        self.required = False
        self.where: Place | None = None  # the line that says so first


_NOTHING = Attributes()


class Elf:
    """The formats elf32 and elf64.

    Args:
        bits: 32 or 64.
        debug: write line information.
    """

    has_origin = False
    has_symbols = True

    def __init__(self, bits: int, debug: bool = False) -> None:
        self.bits = bits
        self.name = f"elf{bits}"
        self.debug = debug
        self.wide = bits == 64
        self.address_size = bits // 8
        self.table = R_X86_64 if self.wide else R_386
        self.relocations: dict[Section, list[Relocation]] = {}
        self.attributes: dict[str, Attributes] = {}
        self.statics: dict[str, Attributes] = {}
        self.abi = (0, 0)  # what `osabi` says: the operating system's ABI and its version
        self.declared: dict[str, None] = {}  # externals, in order
        self.referenced: set[object] = set()

    # --- Directives ---------------------------------------------------------------------------------------------------

    def new_section(self, section: Section) -> None:
        """Sets what a section's name says."""
        usual = (SHT_PROGBITS, SHF_ALLOC, 1)
        section.type, section.flags, align = KNOWN_SECTIONS.get(section.name, usual)
        section.align = align or self.bits // 8
        section.entry_size = 0 if align else self.bits // 8
        section.nobits = section.type == SHT_NOBITS

    def section_attributes(self, assembler: Assembler, section: Section, tokens: Sequence[str], shape: str) -> None:
        """Reads what stands behind a section's name.

        Raises:
            ParseError, TokenError, ExpressionError: an attribute is wrong.
        """
        if section.name in RESERVED_SECTIONS:
            raise TokenError(f"attempt to redefine reserved section name `{section.name}'", section.name)
        kind = entry_size = natural = align = mask = flags = 0
        at = 0
        while at < len(tokens):
            word, end = tokens[at].lower(), at + 1
            has_value = shape[end : end + 1] in ("=", "*")
            if has_value:
                end += 2
            while end < len(tokens) and shape[end] not in "iIdz":
                end += 1
            value = 1
            if word == "align" and end == at + 1:
                raise TokenError("section align without value specified", tokens[at])
            if word == "align" or (word in _ENTRY_SIZES and has_value):
                value = assembler.evaluate_now(list(tokens[at + 2 : end]), shape[at + 2 : end])
            if word == "align":
                if value < 0 or value & (value - 1):
                    raise TokenError(f"section alignment {value} is not a power of two", tokens[at])
                align = max(align, value)
            elif word in _TYPES:
                kind = _TYPES[word]
            elif word in _FLAGS:
                on, off = _FLAGS[word]
                mask |= on | off
                flags = flags & ~off | on
            elif word in _ENTRY_SIZES:
                size, natural = (n or self.bits // 8 for n in _ENTRY_SIZES[word])
                entry_size = size * value
            else:
                assembler.warn("other", f"unknown section attribute '{tokens[at]}' ignored on declaration of section "
                                        f"`{section.name}'")  # fmt: skip
            at = end
        if kind in (SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY):
            natural = natural or self.bits // 8
            entry_size = entry_size or self.bits // 8
        if not section.declared:
            section.type = kind or section.type
            section.nobits = section.type == SHT_NOBITS
            section.flags = section.flags & ~mask | flags
            section.entry_size = entry_size or section.entry_size
            if tokens:
                section.align = 1
        elif (
            kind not in (0, section.type)
            or section.flags & mask != flags
            or (entry_size and section.entry_size and entry_size != section.entry_size)
        ):
            assembler.warn(
                "other", f"incompatible section attributes ignored on redeclaration of section `{section.name}'"
            )
        section.align = max(section.align or 1, align or natural)
        section.entry_size = section.entry_size or entry_size
        if flags & SHF_MERGE and not section.entry_size:
            section.entry_size = 1
            if not section.flags & SHF_STRINGS:
                message = "section attribute merge specified without an entry size or `strings'"
                raise TokenError(message, section.name)

    def declare(self, assembler: Assembler, kind: str, name: str, tokens: Sequence[str], shape: str) -> None:
        """`global`, `extern`, `required`, `static` or `common` of one symbol.

        Args:
            tokens, shape: what stands behind its name.

        Raises:
            TokenError, ParseError, ExpressionError: the special part is wrong.
        """
        known = self.statics if kind == "static" else self.attributes
        if kind == "static" and not tokens:
            return
        attributes = known.get(name)
        if attributes is None:
            attributes = known[name] = Attributes()
            attributes.where = assembler.place
        attributes.required |= kind == "required"
        if kind == "common":
            self._declare_common(assembler, attributes, name, tokens, shape)
            return
        if kind in ("extern", "required"):
            self.declared.setdefault(name)
            assembler.enter_external(name)
        if not tokens:
            return
        if shape[0] != ":" or len(tokens) < 2:
            raise TokenError(f"`{name}' may have a colon and its type behind it, not `{tokens[0]}'", tokens[0])
        at = 1
        while at < len(tokens):
            word = tokens[at].lower()
            if word in STT:
                attributes.type = STT[word]
            elif word in STV:
                attributes.visibility = STV[word]
            elif word in ("weak", "strong") and kind == "static":
                raise TokenError("weak and strong only apply to global symbols", tokens[at])
            elif word in ("weak", "strong"):
                attributes.binding = STB_WEAK if word == "weak" else STB_GLOBAL
            else:
                attributes.size = assembler.expression(list(tokens[at:]), shape[at:])
                break
            at += 1

    def _declare_common(
        self, assembler: Assembler, attributes: Attributes, name: str, tokens: Sequence[str], shape: str
    ) -> None:
        if not tokens:
            raise TokenError("`common' wants a name and a size", name)
        symbol = assembler.symbols[name]
        if symbol.defined or (symbol.section is not None and symbol.section.external is not None):
            raise TokenError(f"label `{name}' inconsistently redefined", name)
        size, colon, align = shape.partition(":")
        value = assembler.evaluate_now(list(tokens[: len(size)]), size)
        rest = list(tokens[len(size) + 1 :])
        boundary = assembler.evaluate_now(rest, align) if colon else 0
        if colon and (boundary < 1 or boundary & (boundary - 1)):
            raise TokenError(f"alignment constraint `{''.join(rest)}' is not a power of two", rest[0])
        attributes.common = value, boundary
        assembler.enter_external(name, replaceable=False)

    # --- Addresses ----------------------------------------------------------------------------------------------------

    def place(self, assembler: Assembler) -> None:
        """Sections of an object have no addresses yet."""

    def resolve(
        self, value: int | Linear, section: Section, start: int, end: int, at: int, size: int, kind: str
    ) -> int:
        """The number for a field, after noting a relocation where the linker must add to it.

        Args:
            start, end: of the statement in its section. at, size: of the field. kind: abs, signed, rel or seg.

        Raises:
            ExpressionError: no relocation can say this.
        """
        if kind == "seg":
            kind = "abs"
        terms = dict(value.terms) if isinstance(value, Linear) else {}
        const = value.const if isinstance(value, Linear) else value
        wrt = value.wrt if isinstance(value, Linear) else ""
        if not terms:
            if kind == "rel":
                return self._note(section, at, None, "rel", size, const - (end - at))
            return const
        if kind == "rel":
            if terms == {section: 1} and not wrt:
                return const - end
            const -= end - at
        elif terms.get(section) == -1:  # the distance from here: X - $
            del terms[section]
            kind = "rel"
            const += at
            if not terms and not wrt:  # -x
                return self._note(section, at, None, kind, size, const)
        if len(terms) != 1 or 1 not in terms.values() or not isinstance(target := next(iter(terms)), Section):
            raise ExpressionError("expression is not simple or relocatable")
        if not wrt:
            return self._note(section, at, target, kind, size, const)
        relation = f"rel {wrt}" if kind == "rel" else wrt
        if relation in _SYMBOLIC[self.bits]:
            symbol = self._symbol_at(target, value.const, wrt)  # type: ignore[union-attr]
            const -= symbol.offset if isinstance(symbol, Symbol) else 0
            return self._note(section, at, symbol, kind if wrt == "..sym" else relation, size, const)
        if relation == "..gotpc":  # counts from the field
            const += at
        return self._note(section, at, target, relation, size, const)

    def _symbol_at(self, section: Section, offset: int, wrt: str) -> Section | Symbol:
        """The global symbol at a place, or, for ``..sym``, the last one before it; an external one is its section."""
        if section.external is not None:
            if offset and wrt != "..sym":
                raise ExpressionError(f"`wrt {wrt}' wants the symbol itself, not a place behind it", section.name)
            return section
        symbols = [symbol for symbol in self._globals if symbol.section is section and symbol.offset <= offset]
        symbol = max(symbols, key=lambda s: s.offset, default=None)
        if symbol is None or (wrt != "..sym" and symbol.offset != offset):
            raise ExpressionError(f"`wrt {wrt}' wants a global symbol")
        return symbol

    def refer(self, section: Section, at: int, target: Section, size: int, addend: int) -> int:
        """The number for a field that holds an address in another section, after noting the relocation."""
        return self._note(section, at, target, "abs", size, addend)

    @staticmethod
    def is_code(section: Section) -> bool:
        """The section has instructions."""
        return bool(section.flags & SHF_EXECINSTR)

    def _note(
        self, section: Section, at: int, target: Section | Symbol | None, kind: str, size: int, addend: int
    ) -> int:
        number = self.table.get((kind, size))
        if number is None and size == 8 and not self.wide and (number := self.table.get((kind, 4))) is not None:
            self.assembler.warn("zext-reloc", "64-bit unsigned relocation zero-extended from 32 bits")
        if number is None:
            relative, _, wrt = kind.rpartition(" ")
            where = "relative to the next instruction" if relative or kind == "rel" else "for an address"
            what = f"with `wrt {wrt}' " if wrt.startswith("..") else ""
            raise ExpressionError(f"{self.name} has no {8 * size}-bit relocation {what}{where}")
        self.referenced.add(target)
        if section.nobits:  # has no bytes to relocate
            return 0
        self.relocations.setdefault(section, []).append(Relocation(at, target, number, addend))
        return 0 if self.wide else addend

    _globals: Sequence[Symbol] = ()
    assembler: Assembler

    def prepare(self, assembler: Assembler) -> None:
        """Takes note of the global symbols, before the sections' bytes are made."""
        self.assembler = assembler
        self._globals = [symbol for symbol in assembler.definitions if symbol.name in self.attributes]
        for name, attributes in (*self.attributes.items(), *self.statics.items()):
            symbol = assembler.symbols.get(name)
            if symbol is not None and symbol.section is not None:
                self._settle_size(assembler, attributes, symbol.section, symbol.offset)
            elif name not in self.declared and name in self.attributes:  # NASM says nothing
                defined = [known for known, other in assembler.symbols.items() if other.defined]
                message = f"symbol `{name}' is declared global but not defined{did_you_mean(name, defined)}"
                assembler.report(message, "warning", attributes.where, word=name, warning="other")

    @staticmethod
    def _settle_size(assembler: Assembler, attributes: Attributes, section: Section, offset: int) -> None:
        """Makes a number of the size that a symbol's declaration gives it."""
        try:
            size = evaluate(attributes.size, section, offset)
            if size is None:
                raise assembler.undefined_before_use(attributes.size)
            if not isinstance(size, int):
                raise ExpressionError("cannot use relocatable expression as symbol size")
            attributes.size = size
        except ExpressionError as error:
            assembler.report(error.message, place=attributes.where, word=error.name)
            attributes.size = 0

    # --- The file -----------------------------------------------------------------------------------------------------

    def image(self, assembler: Assembler) -> bytes:
        """The object file.

        Raises:
            ExpressionError: a symbol's size has no value.
        """
        sections = list(assembler.named)
        if assembler.first not in sections and assembler.items and not isinstance(assembler.items[0], Switch):
            sections.append(assembler.first)
        if self.debug:
            from asm.output.dwarf import debug_sections

            sections += debug_sections(assembler, self)
        return _File(assembler, self, sections).bytes()


class _Strings:
    """A string table; equal strings are kept apart, as NASM keeps them."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")

    def add(self, text: str) -> int:
        place = len(self.data)
        self.data += text.encode("utf-8", "surrogateescape") + b"\0"
        return place


class _File:
    """Puts an object together."""

    def __init__(self, assembler: Assembler, elf: Elf, sections: list[Section]) -> None:
        self.assembler = assembler
        self.elf = elf
        self.sections = sections
        self.index = {section: number for number, section in enumerate(sections, 1)}
        self.strings = _Strings()
        self.entries: list[bytes] = []
        self.numbers: dict[object, int] = {}
        self.locals = 0

    def _symbol(self, name: int, value: int, size: int, kind: int, binding: int, visibility: int, home: int) -> None:
        info = binding << 4 | kind
        if self.elf.wide:
            mask = (1 << 64) - 1
            self.entries.append(struct.pack("<IBBHQQ", name, info, visibility, home, value & mask, size & mask))
        else:
            mask = (1 << 32) - 1
            self.entries.append(struct.pack("<IIIBBH", name, value & mask, size & mask, info, visibility, home))

    def _home(self, symbol: Symbol) -> int:
        return SHN_ABS if symbol.section is SCALAR else self.index.get(symbol.section, 0)  # type: ignore[arg-type]

    def symbols(self) -> None:
        """Makes the symbol table: the file, sections, local symbols, global symbols."""
        elf, assembler = self.elf, self.assembler
        names: dict[Symbol, int] = {}
        self._symbol(0, 0, 0, 0, 0, 0, 0)
        self._symbol(self.strings.add(assembler.name), 0, 0, STT_FILE, 0, 0, SHN_ABS)
        for section, number in self.index.items():
            self.numbers[section] = len(self.entries)
            self._symbol(0, 0, 0, STT_SECTION, 0, 0, number)
        wanted = [s for s in assembler.definitions if self._is_wanted(s)]
        for symbol in wanted:
            names[symbol] = self.strings.add(self._mangled(symbol.name))
        for symbol in wanted:
            if symbol.name not in elf.attributes:
                said = elf.statics.get(symbol.name, _NOTHING)
                is_tls = symbol.section is not None and symbol.section.flags & SHF_TLS
                kind = STT_TLS if is_tls else said.type
                home = self._home(symbol)
                self._symbol(names[symbol], symbol.offset, said.size, kind, 0, said.visibility, home)
        self.locals = len(self.entries)
        for symbol in wanted:
            if symbol.name in elf.attributes:
                self._global(symbol, names[symbol])

    def _mangled(self, name: str) -> str:
        """A symbol's name with what the options put before and behind it; to NASM a common one counts as local."""
        mangle = self.assembler.mangle
        attributes = self.elf.attributes.get(name)
        kind = "l" if attributes is None or attributes.common else "g"
        return f"{mangle.get(f'{kind}prefix', '')}{name}{mangle.get(f'{kind}suffix', '')}" if mangle else name

    def _is_wanted(self, symbol: Symbol) -> bool:
        if symbol.section is not None and symbol.section.external is not None:
            attributes = self.elf.attributes.get(symbol.name)
            if attributes is None or not (attributes.common or attributes.required):
                return symbol.section in self.elf.referenced
        return not symbol.hidden

    def _global(self, symbol: Symbol, name: int) -> None:
        attributes = self.elf.attributes[symbol.name]
        number = len(self.entries)
        self.numbers[symbol] = number
        if symbol.section is not None and symbol.section.external is not None:
            self.numbers[symbol.section] = number
        kind = attributes.type
        if attributes.common is not None:
            size, align = attributes.common
            self._symbol(name, align or 0, size, kind, STB_GLOBAL, attributes.visibility, SHN_COMMON)
            return
        if symbol.section is not None and symbol.section.flags & SHF_TLS:
            kind = STT_TLS
        home = self._home(symbol)
        self._symbol(name, symbol.offset, attributes.size, kind, attributes.binding, attributes.visibility, home)

    def _relocations(self, section: Section) -> bytes:
        made = bytearray()
        for offset, target, kind, addend in self.elf.relocations[section]:
            symbol = self.numbers.get(target, 0)
            if self.elf.wide:
                made += struct.pack("<QQq", offset, symbol << 32 | kind, addend)
            else:
                made += struct.pack("<II", offset, symbol << 8 | kind)
        return bytes(made)

    def bytes(self) -> bytes:
        """The file's contents."""
        wide = self.elf.wide
        relocated = [section for section in self.sections if section in self.elf.relocations]
        if len(self.sections) + len(relocated) > MAX_SECTIONS:
            raise ExpressionError(f"an object has at most {MAX_SECTIONS} sections, those of relocations included")
        self.symbols()
        names = _Strings()
        # (name, type, flags, data, size, link, info, align, entry size)
        table: list[tuple[int, int, int, bytes, int, int, int, int, int]] = []
        for section in self.sections:
            data = b"" if section.nobits else b"".join(section.parts)
            size = section.size if section.nobits else len(data)
            table.append((names.add(section.name), section.type, section.flags, data, size, 0, 0, section.align or 1,
                          section.entry_size))  # fmt: skip
        count = len(self.sections)
        shstrtab, symtab, strtab = count + 1, count + 2, count + 3
        word = 8 if wide else 4
        heads = [names.add(".shstrtab"), names.add(".symtab"), names.add(".strtab")]
        prefix = ".rela" if wide else ".rel"
        relocation_names = [names.add(prefix + section.name) for section in relocated]
        entries = b"".join(self.entries)
        table.append((heads[0], SHT_STRTAB, 0, bytes(names.data), len(names.data), 0, 0, 1, 0))
        table.append((heads[1], SHT_SYMTAB, 0, entries, len(entries), strtab, self.locals, word, 24 if wide else 16))
        table.append((heads[2], SHT_STRTAB, 0, bytes(self.strings.data), len(self.strings.data), 0, 0, 1, 0))
        for section, name in zip(relocated, relocation_names, strict=True):
            data = self._relocations(section)
            table.append((name, SHT_RELA if wide else SHT_REL, 0, data, len(data), symtab, self.index[section], word,
                          24 if wide else 8))  # fmt: skip
        header_size = 64 if wide else 40
        ident = b"\x7fELF" + bytes((2 if wide else 1, 1, 1, *self.elf.abi)) + bytes(7)
        shape = "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"
        machine = 62 if wide else 3
        head = ident + struct.pack(
            shape, 1, machine, 1, 0, 0, 64, 0, 64 if wide else 52, 0, 0, header_size, len(table) + 1, shstrtab
        )
        offset = 64 + header_size * (len(table) + 1)
        offset += -offset % 16
        headers = bytearray(header_size)
        body = bytearray()
        for name, kind, flags, data, size, link, info, align, entry_size in table:
            headers += struct.pack(
                "<IIQQQQIIQQ" if wide else "<IIIIIIIIII", name, kind, flags, 0, offset + len(body), size, link, info,
                align, entry_size,
            )  # fmt: skip
            body += data + bytes(-len(data) % 16)
        result = head.ljust(64, b"\0") + headers
        return bytes(result + bytes(-len(result) % 16) + body)
