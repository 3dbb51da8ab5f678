"""What the disassembler writes, NASM and our assembler take back to the same bytes."""

import random
from collections.abc import Callable

import pytest

from asm import table
from asm.disassemble import disassemble

NasmLines = Callable[..., list[bytes | None]]
ESCAPES = (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a")


def candidates(bits: int) -> list[bytes]:
    """Byte strings that reach every opcode of the table with every ModRM.mod, reg and rm, and with each prefix."""
    chooser = random.Random(bits)
    tail = bytes(chooser.randrange(256) for _ in range(16))
    rexes = [b"", b"\x48", b"\x45", b"\x4f"] if bits == 64 else [b""]
    prefixes = [b"", b"\x66", b"\x67", b"\xf3", b"\xf2", b"\x2e", b"\x64", b"\xf0", b"\x66\xf3", b"\x66\x67"]
    found: dict[bytes, None] = {}
    opcodes = {
        (form.map, opcode, form.prefix, form.modrm)
        for form in table.load()
        if form.decodes and bits in form.modes
        for opcode in range(form.opcode, form.opcode + (8 if form.plus_register else 1))
    }
    for number, opcode, mandatory, has_modrm in sorted(opcodes):
        escape = ESCAPES[number] + bytes((opcode,))
        fixed = bytes.fromhex(mandatory) if mandatory not in ("", "NP") else b""
        for prefix in prefixes:
            for rex in rexes:
                modrms = range(chooser.randrange(5), 256, 7 if not prefix and not rex else 97) if has_modrm else (0,)
                for modrm in modrms:
                    end = chooser.choice((tail, bytes(16), b"\x7f" * 16, b"\x01\x00\x00\x00" * 4, b"\xff" * 16))
                    if has_modrm:
                        sib = bytes((chooser.randrange(256),))
                        end = bytes((modrm,)) + (sib if modrm & 7 == 4 and modrm < 0xC0 else b"") + end
                    found[(prefix + fixed + rex + escape + end)[:15]] = None
    return list(found)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_back_through_nasm(bits: int, nasm_lines: NasmLines) -> None:
    batches: list[list[tuple[int, bytes, str]]] = [[]]
    address = 0
    for data in candidates(bits):
        if address > 0xE000:  # 16-bit code cannot jump within more
            address = 0
            batches.append([])
        [entry] = disassemble(data, bits, address, count=1)
        batches[-1].append(entry)
        address += len(entry[1])
    wrong = []
    for batch in batches:
        for (_, code, text), theirs in zip(batch, nasm_lines([text for _, _, text in batch], bits), strict=True):
            if theirs != code:
                wrong.append(f"{text}: {code.hex()}, NASM {theirs.hex() if theirs is not None else 'refuses it'}")
    texts = [text for batch in batches for _, _, text in batch]
    assert sum(not text.startswith("db ") for text in texts) > len(texts) // 3
    assert not wrong, f"{len(wrong)} of {len(texts)} differ:\n" + "\n".join(wrong[:30])
