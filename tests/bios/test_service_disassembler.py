"""The Service OS's disassembler, against the assembler's own on the same table: random bytes, and all of our code.

There is no difference but one by intent: instructions with a VEX prefix, and INSERTQ with its four operands, are bytes
to the Service OS, since no processor model has them. The assembler's decoder is itself held to NASM, in tests/asm.
"""

import random
from pathlib import Path

import pytest

from asm.instructions.disassemble import decode
from asm.instructions.format import format_instruction
from bios.build import flash
from emu import Machine, StopReason

from .conftest import Built
from .service import program
from .vmm import BARE_MEMORY, files_of

RESULTS = 0x100000  # where the program leaves text, 0, length for each case
PROGRAM = """
%include "x86.inc"
%include "vmcs.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "image.inc"
%include "console.inc"
%include "acpi_off.inc"
%include "disasm.inc"
%include "operand.inc"
%include "operand_memory.inc"
main:
        cmp     dword [left], 0
        je      acpi_power_off
        dec     dword [left]
        mov     esi, [next]
        movzx   ebx, byte [esi]         ; code size, bytes, address, bytes
        movzx   ecx, byte [esi + 1]
        mov     edx, [esi + 2]
        add     esi, 6
        lea     eax, [esi + ecx]
        mov     [next], eax
        call    disassemble
        mov     esi, dis_text
        mov     edi, [result]
.text:
        lodsb
        stosb
        test    al, al
        jnz     .text
        mov     al, cl
        stosb
        mov     [result], edi
        jmp     main
        align   4
result: dd      RESULTS
next:   dd      cases
"""

Case = tuple[int, bytes, int]  # code size, bytes, address


def run(built: Built, tmp_path: Path, cases: list[Case]) -> list[tuple[str, int]]:
    """What the Service OS's disassembler makes of each: text and length. It runs on the bare machine, as a guest."""
    data = "\n".join(
        f"        db {size}, {len(code)}\n        dd {address}\n        db {', '.join(map(str, code))}"
        for size, code, address in cases
    )
    source = f"RESULTS equ {RESULTS:#x}\n{PROGRAM}left: dd {len(cases)}\ncases:\n{data}\n"
    image = program(source, built.folder, tmp_path / "cases.asm")
    rom = built.rom()
    with Machine(BARE_MEMORY, "pentium3", firmware=flash(rom[-0x20000:], {**files_of(rom), "guest": image})) as machine:
        assert machine.run(seconds=20).reason is StopReason.POWERED_OFF
        answer = machine.memory.read(RESULTS, 128 * len(cases))
    made, at = [], 0
    for _ in cases:
        end = answer.index(0, at)
        made.append((answer[at:end].decode(), answer[end + 1]))
        at = end + 2
    return made


def wanted(case: Case) -> tuple[str, int]:
    """What the assembler's decoder makes of it, without looking for a spelling that assembles to the same bytes."""
    size, code, address = case
    found = decode(code, size, address)
    if found is None or found.form.vex or len(found.form.operands) > 3:
        return (f"db {code[0]:#x}" if code[0] > 9 else f"db {code[0]}"), 1
    return format_instruction(found.form.mnemonic.lower(), found.operands, found.prefixes), found.length


def random_case(source: random.Random) -> Case:
    """Bytes that lead deep into the table more often than chance would."""
    size = source.choice((16, 32))
    code = bytearray(source.randbytes(source.choice((15, 15, 15, 3, 5, 20))))
    begin = source.choice(
        (b"", b"", b"\x0f", b"\x0f", b"\x0f\x38", b"\x0f\x3a", b"\x66", b"\x67", b"\xf2", b"\xf3", b"\xf0", b"\x66\x0f",
         b"\xf2\x0f", b"\xf3\x0f", b"\x2e", b"\x64\x67", bytes([source.randrange(0xD8, 0xE0)]))
    )  # fmt: skip
    code[: len(begin)] = begin
    return size, bytes(code), source.getrandbits(size)


@pytest.mark.parametrize("seed", range(2))
def test_random_bytes(built: Built, tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    cases = [random_case(source) for _ in range(5000)]
    expected = [wanted(case) for case in cases]
    known = sum(not text.startswith("db ") for text, _ in expected)
    assert known > len(cases) // 2
    for case, made, right in zip(cases, run(built, tmp_path, cases), expected, strict=True):
        assert made == right, (case[0], case[1].hex(), hex(case[2]))


@pytest.mark.parametrize("name", ["vmm", "guest"])
def test_our_own_code(built: Built, tmp_path: Path, name: str) -> None:
    """From each byte of an image on, as it may be entered anywhere."""
    image = files_of(built.rom())[name]
    cases = [(32, image[at : at + 15], 0x10000 + at) for at in range(min(len(image) - 15, 8000))]
    for case, made in zip(cases, run(built, tmp_path, cases), strict=True):
        assert made == wanted(case), (case[1].hex(), hex(case[2]))


def test_every_row_of_the_table_is_there(built: Built, tmp_path: Path) -> None:
    """Each form of 16- and 32-bit code once, as its row encodes it with a register or memory operand."""
    from asm import table
    from bios.disassembly import known

    cases = []
    for form in filter(known, table.load()):
        prefix = form.mandatory_prefix
        if form.osize == 16:
            prefix += b"\x66"
        if form.asize == 16:
            prefix += b"\x67"
        opcode = (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a")[form.map] + bytes([form.opcode])
        modrm = form.fixed if form.fixed >= 0 else max(form.digit, 0) << 3 | (0xC1 if form.takes_register else 0x01)
        code = prefix + opcode + (bytes([modrm]) if form.modrm else b"")
        suffix = bytes([form.suffix]) if form.suffix >= 0 else b""
        cases.append((32, code + suffix + bytes(8), 0x1234))
    names = {text.split()[0] for text, _ in map(wanted, cases)}
    assert len(names) > 600
    for case, made in zip(cases, run(built, tmp_path, cases), strict=True):
        assert made == wanted(case), case[1].hex()
