"""What a Python program sees: `asm.assemble`, `asm.assemble_file` and what they give."""

import doctest
import pickle
from pathlib import Path

import pytest

import asm


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(asm).failed == 0


def test_a_program() -> None:
    program = asm.assemble("org 0x100\nstart: mov ax, count\n jmp start\ncount equ 5\nend:\n", filename="a.asm")
    assert program.binary == bytes.fromhex("b80500ebfb")
    assert program.origin == 0x100
    assert program.symbols == {"start": 0x100, "count": 5, "end": 0x105}
    assert program.lines == [(0x100, "a.asm", 2), (0x103, "a.asm", 3)]
    assert program.listing.splitlines()[1] == "     2 00000000 B80500                  start: mov ax, count"
    assert [(s.name, s.base, s.size) for s in program.sections.values()] == [(".text", 0x100, 5)]
    assert "             100               100  start" in program.map


@pytest.mark.parametrize(("bits", "code"), [(16, "66b801000000"), (32, "b801000000"), (64, "b801000000")])
def test_bits(bits: int, code: str) -> None:
    assert asm.assemble("mov eax, 1", bits=bits).binary.hex() == code


def test_wrong_bits() -> None:
    with pytest.raises(ValueError, match="16, 32 or 64, not 8"):
        asm.assemble("nop", bits=8)


def test_defines_and_include(tmp_path: Path) -> None:
    (tmp_path / "part.inc").write_text("db VALUE\n")
    program = asm.assemble(
        '%include "part.inc"\n db OTHER', defines={"VALUE": 7, "OTHER": "VALUE + 1"}, include=[tmp_path]
    )
    assert program.binary == b"\7\10"
    assert program.dependencies == [str(tmp_path / "part.inc")]


@pytest.mark.parametrize("name", ["1x", "", "a b=", "%", 1, "f(x"])
def test_a_name_that_cannot_be_defined(name: str) -> None:
    if name == "a b=":  # the name ends at the space
        assert asm.assemble("db 'a'", defines={name: 1}).binary == b"a"
        return
    with pytest.raises(asm.AsmError, match=r"the macro `.*' of the command line or the call"):
        asm.assemble("nop", defines={name: 1})


def test_errors_can_be_pickled_and_programs_say_what_to_take() -> None:
    with pytest.raises(asm.AsmError) as caught:
        asm.assemble("mov ax\nfoo bar\n")
    there = pickle.loads(pickle.dumps(caught.value))
    assert len(there.errors) == 2 and there.errors == caught.value.errors and str(there) == str(caught.value)
    with pytest.raises(TypeError, match="take what is wanted of it, such as binary, symbols"):
        pickle.dumps(asm.assemble("nop"))


@pytest.mark.parametrize("include", ["directory", b"directory", Path("directory")])
def test_include_is_a_list(include: str) -> None:
    with pytest.raises(TypeError, match="include must be a list of directories"):
        asm.assemble("nop", include=include)


@pytest.mark.parametrize("text", [None, b"nop", ["nop"], 5])
def test_the_source_is_text(text: str) -> None:
    with pytest.raises(TypeError, match="the source must be text"):
        asm.assemble(text)


def test_a_file_is_found_beside_the_source(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"abcdef")
    source = tmp_path / "main.asm"
    source.write_text('incbin "data.bin", 2, 3\n')
    assert asm.assemble_file(source).binary == b"cde"


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        asm.assemble_file(tmp_path / "missing.asm")


def test_macro_lines_map_to_the_macro() -> None:
    program = asm.assemble("%macro two 0\nnop\nhlt\n%endmacro\ntwo\ncli\n", filename="m.asm")
    assert program.lines == [(0, "m.asm", 2), (1, "m.asm", 3), (2, "m.asm", 6)]


def test_two_programs_share_nothing() -> None:
    assert asm.assemble("%define x 1\nx1: db x").binary == b"\1"
    with pytest.raises(asm.AsmError):
        asm.assemble("db x")
    assert asm.assemble("%macro nop 0\n db 1\n%endmacro\nnop").binary == b"\1"
    assert asm.assemble("nop").binary == b"\x90"


def test_sections_of_a_bin_file() -> None:
    source = "org 0x1000\nsection .data\nd: db 1\nsection .bss\nb: resb 4\nsection .text\nt: dw d, b\n"
    program = asm.assemble(source + "section .v vstart=0x8000\nv: db 2\n")
    assert program.symbols == {"d": 0x1004, "b": 0x8004, "t": 0x1000, "v": 0x8000}
    assert program.binary == bytes.fromhex("0410 0480 01 000000 02")


def test_conditions_on_addresses_are_those_of_the_settled_layout() -> None:
    # In the first pass both jumps count as short, so that `end` seems to lie lower than it does.
    source = " jmp end\n jmp end\n times 130 db 0\nend:\n%if $ - $$ == 136\n db 1\n%else\n db 2\n%endif\n"
    assert asm.assemble(source).binary[-1] == 1


def test_recursive_macros() -> None:
    source = "%rmacro down 1\n%if %1 > 0\n db %1\n%assign n %1 - 1\n down n\n%endif\n%endmacro\n down 4\n"
    assert asm.assemble(source).binary == b"\4\3\2\1"


def test_comparison_gives_minus_one_as_the_manual_says() -> None:
    """NASM 2.16.01 gives 0 for 1 <=> 2, against its manual (The Comparison Operators)."""
    assert asm.assemble("db 1 <=> 2, 2 <=> 1, 2 <=> 2").binary == b"\xff\1\0"


def test_the_manuals_examples() -> None:
    manual = Path(__file__).parents[2] / "docs" / "assembler.md"
    assert doctest.testfile(str(manual), module_relative=False).failed == 0
    example = manual.read_text().split("```nasm\n")[1].split("```")[0]
    assert asm.assemble(example).binary.hex() == "050000000000000066678b430466b908000000"
