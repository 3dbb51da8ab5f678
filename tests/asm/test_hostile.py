"""Sources made to hang, to fill memory or to overrun something: each ends soon, with an error that says why."""

import random
import time
from pathlib import Path

import pytest

import asm
from asm.preprocessor import preprocess

HOSTILE = {
    "recursive rmacro": ("%rmacro m 0\nm\n%endmacro\nm\n", "nested more than"),
    "mutual macros that double": (
        "\n".join(f"%macro m{n} 0\nm{n + 1}\nm{n + 1}\n%endmacro" for n in range(40))
        + "\n%macro m40 0\n%endmacro\nm0\n",
        "make more than",
    ),
    "doubling definitions": (
        "\n".join(f"%define d{n} d{n + 1} d{n + 1}" for n in range(60)) + "\n db d0\n",
        "macro expansion of more than",
    ),
    "deep definitions": ("\n".join(f"%define d{n} (d{n + 1})" for n in range(3000)) + "\n db d0\n", "nested more than"),
    "a billion repetitions": ("%rep 1000000000\nnop\n%endrep\n", "exceeds limit"),
    "nested repetitions": ("%rep 100000\n%rep 100000\n%assign x 1\n%endrep\n%endrep\n", "make more than"),
    "a huge times": (" times 2000000000 db 1\n", "more than a section may hold"),
    "a huge times of a label": ("x: times 2000000000 dw x\n", "more than a section may hold"),
    "a huge times behind a name": (" times y db 1\ny equ 2000000000\n", "more than a section may hold"),
    "a huge resb": (" resb 1000000000000\n", "more than a section may hold"),
    "a huge align": (" nop\n align 0x40000000\n", "more than a section may hold"),
    "a huge dup": (" db 1000000000000 dup (1)\n", "more than"),
    "nested dups": (" db 100000 dup (100000 dup (1, 2))\n", "more than"),
    "a far start": ("section .a start=0x100000000000\n db 1\nsection .b start=0\n db 1\n", "starts too high"),
    "deep parentheses": (" db " + "-(" * 5000 + "x" + ")" * 5000 + "\nx:\n", "nested too deeply"),
    "an equ that runs away": ("a equ b + 1\nb equ a + 1\n times a db 1\n", ""),
    "a contradiction": ("x: times (y - x = 0) db 1\ny: \n", ""),
    "growth without end": ("x: times y - x + 1 db 0\ny:\n", "unable to find valid values"),
    "pasting without end": ("%define a a %+ a\n db a\n", ""),
    "self-pasting": ("%define aa a %+ a\n db aa\n", ""),
    "many errors": ("bad bad\n" * 5000, "unknown instruction"),
    "zero bytes": ("mov ax, \0\0\n", "invalid combination"),
    "only punctuation": ("," * 2000 + "\n", "unexpected"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_ends_soon_with_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "MAX_LINES", 50_000)  # a million takes half a minute to reach
    text, message = HOSTILE[name]
    begin = time.process_time()
    with pytest.raises(asm.AsmError) as caught:
        asm.assemble(text)
    assert time.process_time() - begin < 60
    assert message in caught.value.errors[0].message
    assert len(caught.value.errors) <= 1000


def test_an_include_loop_ends(tmp_path: Path) -> None:
    loop = tmp_path / "loop.asm"
    loop.write_text('%include "loop.asm"\n')
    with pytest.raises(asm.AsmError, match="nested more than"):
        asm.assemble_file(loop)


def test_a_directory_is_no_include_file(tmp_path: Path) -> None:
    main = tmp_path / "main.asm"
    main.write_text(f'%include "{tmp_path}"\n')
    with pytest.raises(asm.AsmError, match="unable to open include file"):
        asm.assemble_file(main)


def test_a_large_bss_costs_nothing() -> None:
    program = asm.assemble("section .bss\nresb 0x100000000\nx: resb 1\n")
    assert program.binary == b""
    assert program.symbols["x"] == 0x100000000


def test_bytes_that_are_no_text_survive_in_strings(tmp_path: Path) -> None:
    source = tmp_path / "latin.asm"
    source.write_bytes(b"db '\xe9\xff\x80' ; \xa0\r\ndb 1\r\n")
    assert asm.assemble_file(source).binary == b"\xe9\xff\x80\x01"


WORDS = r"""
mov add jmp jz rep lock times equ db dw dd resb incbin section align org bits struc endstruc istruc at iend absolute
default cpu global extern eax ax al st0 cr0 es byte dword short far strict rel nosplit seg wrt dup to a16 label
.local ..@odd $eax $ $$ 5 0x10 12ab 1.5 'a' "bc" `\n` ' [ ] ( ) { } , : + - * / % ~ ! ? = < << >>> && || ^^ <=>
%define %macro %endmacro %rep %endrep %if %elif %else %endif %ifdef %assign %xdefine %undef %rotate %exitrep %push
%pop %strlen %substr %include %error %use %line %1 %{1:2} %%x %$y %+ %[ %? %!HOME %eval( %strlen( ; # @ \ é
"""


@pytest.mark.parametrize("seed", range(4))
def test_lines_of_random_tokens_give_errors_not_exceptions(seed: int) -> None:
    pick = random.Random(seed)
    words = WORDS.split()
    for _ in range(400):
        text = "\n".join(" ".join(pick.choices(words, k=pick.randrange(1, 9))) for _ in range(5))
        try:
            assert len(asm.assemble(text, bits=pick.choice((16, 32, 64))).binary) < 1 << 28
        except asm.AsmError as error:
            assert error.errors
            assert all(e.file and str(e) for e in error.errors)
