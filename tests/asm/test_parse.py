"""The two ways through the grammar agree: the shape cache, and Lark on the whole line."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lark import Tree, UnexpectedInput

from asm import parse
from asm.preprocessor.frames import source_lines
from asm.tokens import Kinds, parse_number, split, string_bytes

ROOT = Path(__file__).parents[2]
SOURCES = sorted((Path(__file__).parent / "corpus").glob("*.asm")) + sorted((ROOT / "bios").rglob("*.asm"))
BODY = frozenset("IDRBp")


def tokens_of(line: str) -> tuple[list[str], str]:
    tokens = [token for token in split(line) if token]
    kinds = Kinds()
    return tokens, "".join(kinds[token] for token in tokens)


def plain_lines() -> list[str]:
    """The lines of real sources that need no preprocessing and that the grammar knows: no directives."""
    lines = {line for source in SOURCES for line in source_lines(source.read_text()) if "%" not in line}
    return sorted(line for line in lines if line.strip() and not line.strip().startswith((";", "[")))


def subtrees(tree: Any, name: str) -> list[Any]:
    return list(tree.find_data(name)) if isinstance(tree, Tree) else []


def shifted(function: parse.Builder, tokens: list[str]) -> Any:
    return function(tokens, lambda name: ("symbol", name))


def test_instructions_come_out_alike_on_both_paths() -> None:
    compared = 0
    for line in plain_lines():
        tokens, shape = tokens_of(line)
        start = next((n for n, kind in enumerate(shape) if kind in "Ipr"), None)
        if start is None or "T" in shape or (shape[start] == "I" and shape[start + 1 : start + 2] == ":"):
            continue
        if start and shape[:start] not in ("i:", "i"):
            continue
        try:
            tree = parse.parse_directly(shape)
        except UnexpectedInput:
            assert parse.builder("statement", shape[start:]) is None, line
            continue
        instructions = subtrees(tree, "instruction")
        if not instructions:
            continue
        mnemonic = instructions[0].children[0].start_pos
        prefixes = sorted(
            tree.scan_values(lambda t, end=mnemonic: t.type in ("PREFIX", "REG") and t.start_pos < end),
            key=lambda t: t.start_pos,
        )
        direct = parse.build_directly("statement", Tree("statement", [*prefixes, *instructions]))
        cached = parse.builder("statement", shape[start:])
        assert cached is not None, line
        assert shifted(cached, tokens[start:]) == shifted(direct, tokens), line
        compared += 1
    assert compared > 150


def test_a_data_lines_elements_come_out_alike_on_both_paths() -> None:
    compared = 0
    for line in plain_lines():
        tokens, shape = tokens_of(line)
        match = re.match(r"(i:?)?D", shape)
        if match is None:
            continue
        try:
            tree = parse.parse_directly(shape)
        except UnexpectedInput:
            continue  # it calls a macro
        for datum in subtrees(tree, "datum"):
            (node,) = datum.children
            positions = (
                [t.start_pos for t in node.scan_values(lambda _: True)] if isinstance(node, Tree) else [node.start_pos]
            )
            first, last = min(positions), max(positions)
            while shape[first - 1] == "(" and shape[last + 1 : last + 2] == ")":
                first, last = first - 1, last + 1
            if shape[first : last + 1].count("(") != shape[first : last + 1].count(")"):
                continue  # parentheses leave no trace in a tree, so where this element ends cannot be told from it
            cached = parse.builder("expr", shape[first : last + 1])
            assert cached is not None, line
            direct = parse.build_directly("expr", node)
            assert shifted(cached, tokens[first : last + 1]) == shifted(direct, tokens), line
            compared += 1
    assert compared > 200


def test_what_the_cache_refuses_the_whole_line_refuses_too() -> None:
    for line in ("mov ax,, bx", "mov ax, [bx", "add", "mov ax, bx]", "jmp 1:2:3", "db 1 +", "mov (ax", "rep rep ,"):
        tokens, shape = tokens_of(line)
        built = parse.builder("statement", shape)
        if built is None:
            error = parse.explain(tokens, shape)
            assert 0 < error.index <= len(shape)
            assert "expected" in error.message


def test_saved_builders_equal_those_made_from_the_grammar(tmp_path: Path) -> None:
    grammar, shapes = parse.build_grammar_cache(tmp_path)
    assert parse.build_grammar_cache(tmp_path) == [grammar, shapes]
    written = shapes.stat().st_mtime_ns
    parse.build_grammar_cache(tmp_path)
    assert shapes.stat().st_mtime_ns == written
    shapes.write_bytes(b"of another version\n" + shapes.read_bytes())
    parse.build_grammar_cache(tmp_path)
    assert not shapes.read_bytes().startswith(b"of another")


NO_LARK = """
import pathlib, sys
import asm.parse
key = asm.parse._sources_key()  # worked out from the real grammar before the module is pointed at the caches
asm.parse._sources_key = lambda: key
asm.parse.GRAMMAR = pathlib.Path(sys.argv[1], "grammar.lark")
import asm
asm.assemble("org 0x7c00\\nstart: mov ax, [bx + si + 4]\\n jz start\\ndb 1, 2, 'text'\\ntimes 510 - ($ - $$) db 0\\n")
assert "lark" not in sys.modules
"""


def test_an_ordinary_source_needs_no_lark(tmp_path: Path) -> None:
    """In a process of its own, since this one has Lark; with the caches that the build makes."""
    parse.build_grammar_cache(tmp_path)
    command = [sys.executable, "-c", NO_LARK, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10), ("0x1F", 31), ("1fh", 31), ("0h1f", 31), ("$1F", 31), ("0b101", 5), ("101b", 5), ("101y", 5),
        ("17o", 15), ("17q", 15), ("0o17", 15), ("0q17", 15), ("0d19", 19), ("19d", 19), ("0t19", 19), ("19t", 19),
        ("0bh", 11), ("0d1h", 0xD1), ("1_000", 1000), ("0xdead_beef", 0xDEADBEEF), ("0xffffffffffffffff", -1),
        ("0x1_0000_0000_0000_0005", 5), ("9223372036854775808", -(1 << 63)),
    ],
)  # fmt: skip
def test_numbers(text: str, value: int) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize("text", ["12ab", "109b", "0xg", "8o", "0b2", "1f"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parse_number(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'a\\n'", b"a\\n"), ('"it\'s"', b"it's"), ("`a\\n\\t\\\\`", b"a\n\t\\"), ("`\\x41\\101\\0`", b"AA\0"),
        ("`\\u00e9`", b"\xc3\xa9"), ("`\\xff`", b"\xff"), ("`\\``", b"`"), ("''", b""), ("'é'", b"\xc3\xa9"),
    ],
)  # fmt: skip
def test_strings(text: str, value: bytes) -> None:
    assert string_bytes(text) == value


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("mov eax, [ebx + 4] ; text", "Ir,[r+n]"),
        ("label: db 'a;b', \"c'd\"", "i:Ds,s"),
        (".x equ $ - $$", "iEH-S"),
        ("rep movsb", "pI"),
        ("jmp short near_label", "Iji"),
        ("dq 1.5, 1e10, 0x1e+5, 3.", "Df,f,n+n,f"),
        ("a <<< 2 >> 1 <=> 3 // 4 %% 5", "iAnGnWnQnMn"),
        ("$eax: mov $ebx, 1", "i:Ii,n"),
        ("`quo\\`ted`", "s"),
        ("; nothing", ""),
    ],
)
def test_tokens(text: str, shape: str) -> None:
    assert tokens_of(text)[1] == shape
