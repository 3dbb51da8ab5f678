"""Messages: where they point, what they say, and that one mistake never hides the next."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import asm

MISTAKES = Path(__file__).parent / "mistakes.asm"


def errors_of(text: str, **options: object) -> list[asm.Diagnostic]:
    with pytest.raises(asm.AsmError) as caught:
        asm.assemble(text, filename="test.asm", **options)  # type: ignore[arg-type]
    return caught.value.errors


@pytest.mark.skipif(shutil.which("nasm") is None, reason="nasm is not installed")
def test_the_lines_with_mistakes_are_nasms(tmp_path: Path) -> None:
    """NASM stops at its first pass with errors, so it gets one mistake at a time; we get all of them at once."""
    lines = MISTAKES.read_text().splitlines()
    ours = {error.line for error in errors_of(MISTAKES.read_text())}
    assert len(ours) >= 50
    # A mistake is taken out by a comment; %if and %endif of line 61 go together.
    blanked = [";" if number in ours and number != 62 else line for number, line in enumerate(lines, 1)]
    blanked[61] = ";"
    source = tmp_path / "one.asm"
    rejected = set()
    for number in sorted({*ours, *range(3, len(lines) + 1)} - {62}):
        one = blanked.copy()
        one[number - 1] = lines[number - 1]
        if number == 61:
            one[61] = lines[61]
        source.write_text("\n".join(one) + "\n")
        command = ["nasm", "-f", "bin", "-w-all", "-o", str(tmp_path / "one.bin"), str(source)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        if result.returncode:
            rejected.add(number)
    assert {n: lines[n - 1] for n in ours} == {n: lines[n - 1] for n in rejected}


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("mvo ax, 1", 1, 1, "unknown instruction `mvo'; did you mean"),
        ("\n  foo bar, baz", 2, 3, "unknown instruction `foo'"),
        ("  incc eax", 1, 3, "unknown instruction `incc'; did you mean `inc'"),
        ("  mov ax, undefined", 1, 11, "symbol `undefined' not defined"),
        ("start_here: nop\n jmp start_her", 2, 6, "symbol `start_her' not defined; did you mean `start_here'?"),
        (
            " mov ax, 1 2",
            1,
            12,
            "unexpected `2', expected `,', `:', `?', the end of the line, wrt or an operator; is a comma mis",
        ),
        (" mov ax, [bx", 1, 13, "unexpected end of line, expected"),
        (" mov ax,, 2", 1, 9, "unexpected `,', expected an operand or the end of the line"),
        (" db 1, 2, 3 +", 1, 14, "unexpected end of line"),
        ("x: db (1 + 2, 5", 1, 13, "unexpected `,', expected"),
        (" mov ax, 'abc", 1, 10, "unterminated string"),
        (" mov ax, 12ab", 1, 10, "invalid number `12ab'"),
        ("a: nop\na: nop", 2, 1, "label `a' inconsistently redefined"),
        (" mov ax, eax", 1, 2, "invalid combination of opcode and operands; the nearest forms are: MOV "),
        (" mov [bx], 5", 1, 2, "operation size not specified"),
        (" bits 17", 1, 7, "`17' is not a valid segment size"),
        ("%if 1\n nop", 1, 1, "%if without %endif"),
        ("%endif", 1, 1, "`%endif': no matching `%if'"),
        ("%macro m 0\n nop", 1, 1, "%macro without %endmacro"),
        ("%rep 3\n nop", 1, 1, "%rep without %endrep"),
        ("%defin x 1", 1, 1, "unknown preprocessor directive `%defin'; did you mean `define'"),
        ("%error stop it", 1, 1, "stop it"),
        ("%error 'quoted', twice", 1, 1, "'quoted', twice"),
        (" dw 1 / 0", 1, 2, "division by zero"),
        (" jmp short x\n times 200 nop\nx:", 1, 2, "short jump is out of range"),
        (" times x db 1\nx equ -1", 1, 2, "TIMES value -1 is negative"),
        (" extern e\n dw e", 2, 5, "binary output format does not support external references"),
        (" section .a align=3", 1, 13, "argument to `align' is not a power of two"),
        (" mov eax, [eax + ebx + ecx]", 1, 11, "invalid effective address: it has at most two registers"),
        (" mov ax, [bx + cx]", 1, 10, "invalid effective address: with 16-bit registers it has BX or BP, SI or DI"),
        (" mov eax, [ebx * 16]", 1, 11, "invalid effective address: an index is scaled by 1, 2, 4 or 8"),
        (" mov eax, [ebx - ecx]", 1, 11, "invalid effective address: a register is subtracted"),
        (" MOV EAX, R8D", 1, 11, "invalid operands in non-64-bit mode"),
        ("a: nop\na: nop", 2, 1, "label `a' inconsistently redefined; it is defined at test.asm:1"),
        (
            "%macro m 2-3\n%endmacro\n m 1",
            3,
            2,
            "unknown instruction `m'; the macro of that name takes 2 to 3 parameters",
        ),
        (
            " times 600 nop\n times 510-($-$$) db 0",
            2,
            2,
            "TIMES value -90 is negative: what it fills up to is exceeded",
        ),
        (
            " mov %eax, 1",
            1,
            6,
            "unexpected `%', expected an operand, `:' or the end of the line; registers have no `%'",
        ),
        (" nop # nothing", 1, 6, "unexpected `#'"),
        (" incbin 'test.asm', -1", 1, 2, "incbin cannot begin at a negative offset (-1)"),
        (" jmp far ax", 1, 6, "a far pointer is in memory or a pair of numbers"),
        (" mov ds, 5", 1, 2, "invalid combination of opcode and operands; the nearest forms are: MOV Sreg, r16; "),
        (" mov [bx], [si]", 1, 2, "invalid combination of opcode and operands: only one can be in memory; the nearest"),
        (
            " int 10h int 11h",
            1,
            10,
            "unexpected `int', expected `,', `:' or the end of the line; each statement stands",
        ),
        (" mov ax, word ptr [bx]", 1, 15, "symbol `ptr' not defined; the size stands alone: `word [bx]'"),
        (
            " mov ax, offset x",
            1,
            17,
            "unexpected `x', expected `,', `:', `?', the end of the line, wrt or an operator; a l",
        ),
        (" proc start", 1, 2, "unknown instruction `proc'; labels alone mark"),
        (" {evex} vaddps xmm0, xmm1, xmm2", 1, 2, "unexpected `{', expected a statement; there is no AVX-512 here"),
        (" mov eax, es:[cs:bx]", 1, 15, "instruction has conflicting segment overrides"),
        ("%define f(x) x\n db f(1", 2, 2, "macro call `f' expects terminating `)'"),
        (" times 3 section .data", 1, 10, "this cannot be repeated"),
        (" cpu z80", 1, 6, "cpu wants the name of a processor, not `z80'"),
        (" incbin 'nowhere'", 1, 9, "`incbin': unable to open file `nowhere'"),
        ("%include 'nowhere'", 1, 10, "unable to open include file `nowhere'"),
    ],
)
def test_place_and_message(text: str, line: int, column: int, message: str) -> None:
    errors = errors_of(text)
    assert len(errors) == 1
    assert errors[0].message.startswith(message)
    assert (errors[0].file, errors[0].line, errors[0].column) == ("test.asm", line, column)


def test_the_line_is_shown_with_a_caret_under_the_column() -> None:
    text = str(errors_of("\tmov\tax, nowhere ; a comment")[0])
    assert text.splitlines() == [
        "test.asm:1:10: error: symbol `nowhere' not defined",
        "    \tmov\tax, nowhere ; a comment",
        "    \t   \t    ^",
    ]


def test_a_macros_error_names_the_call_and_the_way_to_it() -> None:
    source = "%macro inner 1\n  mov ax, %1\n%endmacro\n%macro outer 1\n  nop\n  inner %1\n%endmacro\n  outer nowhere\n"
    error = errors_of(source)[0]
    assert (error.line, error.text.strip()) == (8, "outer nowhere")
    assert [(note.line, note.message) for note in error.notes] == [(2, "in macro `inner'"), (6, "in macro `outer'")]
    assert error.notes[0].text.strip() == "mov ax, nowhere"
    assert error.notes[0].text[error.notes[0].column - 1 :].startswith("nowhere")


def test_an_includes_error_names_the_files(tmp_path: Path) -> None:
    (tmp_path / "inner.inc").write_text("\n  bad line here\n")
    (tmp_path / "outer.inc").write_text("%include 'inner.inc'\n")
    main = tmp_path / "main.asm"
    main.write_text("nop\n\n%include 'outer.inc'\n")
    with pytest.raises(asm.AsmError) as caught:
        asm.assemble_file(main)
    (error,) = caught.value.errors
    assert (Path(error.file).name, error.line, error.column) == ("inner.inc", 2, 3)
    places = [(Path(note.file).name, note.line, note.message) for note in error.notes]
    assert places == [("outer.inc", 1, "included from here"), ("main.asm", 3, "included from here")]


def test_a_single_line_macros_error_shows_what_it_expands_to() -> None:
    error = errors_of("%define target nowhere + 1\n  mov ax, target\n")[0]
    assert (error.line, error.text) == (2, "  mov ax, target")
    assert error.notes[0].text == "  mov ax, nowhere + 1"
    assert error.notes[0].column == 11


def test_line_numbers_stay_right_behind_macros_continuations_and_repetitions() -> None:
    source = "%macro m 0\nnop\n%endmacro\nm\n%rep 3\nnop\n%endrep\n db 1, \\\n 2\n  oops 1\n%if 0\n%endif\n  oops 2\n"
    assert [error.line for error in errors_of(source)] == [10, 13]


def test_errors_of_all_passes_come_together_in_the_order_of_lines() -> None:
    source = "  mov ax, undefined1\n  bad one\n  jmp undefined2\n  add ax\n  jmp short there\n times 200 nop\nthere:\n"
    assert sorted(error.line for error in errors_of(source)) == [1, 2, 3, 4, 5]


def test_warnings_have_names_and_can_be_turned_off() -> None:
    program = asm.assemble(" db 256\n resb 1\nalone\n")
    assert [w.warning for w in program.warnings] == ["number-overflow", "zeroing", "label-orphan"]
    quiet = asm.assemble("[warning -zeroing]\n db 1\n resb 1\n[warning +zeroing]\n resb 1\n")
    assert [w.line for w in quiet.warnings] == [5]


def test_an_open_struc_is_a_warning_where_it_begins() -> None:
    (warning,) = asm.assemble(" nop\nstruc s\n.a: resb 1\n").warnings
    assert (warning.line, warning.message) == (2, "struc `s' is not closed")


def test_user_messages() -> None:
    program = asm.assemble("%warning look out\n db 1\n")
    assert [(w.message, w.warning) for w in program.warnings] == [("look out", "user")]
    errors = errors_of("%fatal 'enough'\n bad bad\n")
    assert [(e.severity, e.message) for e in errors] == [("fatal", "enough")]


def test_a_message_names_the_nearest_forms_first() -> None:
    message = errors_of(" out dx, bl")[0].message
    assert re.search(r"forms are: OUT DX, AL", message)
    message = errors_of(" imul ax, bx, cx")[0].message
    assert "IMUL r16, r/m16, " in message


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (" bits", "NASM takes a directive without its operand for a label"),
        (" org", "the same"),
        (" section", "the same"),
        (" align", "the same"),
    ],
)
def test_where_we_are_stricter_than_nasm(text: str, why: str) -> None:
    assert len(errors_of(text)) == 1, why


def test_an_empty_data_line_is_a_warning() -> None:
    program = asm.assemble(" db\n nop")
    assert (program.binary, [w.warning for w in program.warnings]) == (b"\x90", ["db-empty"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alignmode p6", "alignmode wants `%use smartalign'"),
        ("%use smartalign\nalignmode p7", "alignmode knows generic, nop, k7, k8, p6, not `p7'"),
        ("%stacksize huge", "`%stacksize' knows flat, flat64, large, small, not `huge'"),
        ("%arg x", "a name, a colon and a size are wanted, not `x'"),
        ("%local x:word", "`%$localsize': context stack is empty"),
        ("%use nothing", "unknown `%use' package: `nothing'"),
    ],
)
def test_packages_and_stack_frames(text: str, message: str) -> None:
    assert [error.message for error in errors_of(text)] == [message]
