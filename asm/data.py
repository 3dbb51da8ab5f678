"""Data in the source: db and its family, dup, floating-point constants, incbin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from asm.expression import ExpressionError
from asm.floats import float_bytes
from asm.ir import MAX_IMAGE, Fixed, Patch
from asm.parse import NUMBERS, TokenError, explain
from asm.tokens import DATA, SIZES, string_bytes, unquote

if TYPE_CHECKING:
    from asm.assembler import Assembler

BLANK = "blank"  # the kind of a field without contents


def data(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    width = DATA[tokens[0].lower()]
    if len(shape) == 1:
        assembler.warn("db-empty", "no operand for data declaration")
        return
    if shape[2::2].strip(",") or len(shape) % 2:
        elements = split_list(tokens, shape, 1)
    elif width == 1 and not shape[1::2].strip("n"):
        values = [NUMBERS[text] for text in tokens[1::2]]
        try:
            assembler.items.append(bytes(values))
            return
        except ValueError:
            elements = [([text], "n") for text in tokens[1::2]]
    else:
        elements = [([text], kind) for text, kind in zip(tokens[1::2], shape[1::2], strict=True)]
    data, patches = _elements(assembler, elements, width)
    assembler.warn_of_cut_numbers(tokens)
    if "ptr" in tokens or "PTR" in tokens:
        assembler.warn_of_ptr()
    if "?" in shape and assembler.section.nobits and not shape[1:].replace("nu", "").strip("?,()"):
        assembler.reserve_bytes(len(data), 1)
        return
    blanks = [patch for patch in patches if patch.kind == BLANK]
    if blanks:
        assembler.blanks[len(assembler.items)] = [(patch.offset, patch.size) for patch in blanks]
        patches = [patch for patch in patches if patch.kind != BLANK]
    assembler.items.append(Fixed(data, tuple(patches)) if patches else data)


def _elements(
    assembler: Assembler, elements: Sequence[tuple[Sequence[str], str]], width: int
) -> tuple[bytes, list[Patch]]:
    """The bytes of a list of data, and the fields in it that have no value yet, those of ``?`` as BLANK."""
    data = bytearray()
    patches: list[Patch] = []
    before = ""
    for tokens, shape in elements:
        if shape == "s":
            string = string_bytes(tokens[0])
            data += string + bytes(-len(string) % width)
        elif shape == "?":
            if before == "?":  # space that goes on
                patches[-1] = patches[-1]._replace(size=patches[-1].size + width)
            else:
                patches.append(Patch(len(data), width, BLANK, 0))
                if not assembler.section.nobits and assembler.absolute is None:
                    assembler.warn_of_zeroing()
            data += bytes(width)
        elif shape in ("f", "-f", "+f"):
            constant_bytes, lost = float_bytes("".join(tokens), width, assembler.rounding, assembler.flush)
            for name, message in lost:
                assembler.warn(name, message)
            data += constant_bytes
        elif (
            len(shape) > 1
            and shape[-2] in "nis)"
            and "u" not in shape
            and (
                shape[-1] in "niH" or (shape[-1] == "s" and len(elements) == 1)  # it drops all that is behind a string
            )
        ):
            # NASM drops one word behind a value that is complete.
            message = f"`{tokens[-1]}' is left out: there is no comma before it"
            assembler.report(message, "warning", word=tokens[-1], warning="other")
            more, fields = _elements(assembler, [(tokens[:-1], shape[:-1])], width)
            patches += [field._replace(offset=field.offset + len(data)) for field in fields]
            data += more
        elif _is_compound(shape):
            more, fields = _compound(assembler, tokens, shape, width)
            patches += [field._replace(offset=field.offset + len(data)) for field in fields]
            data += more
        else:
            value: Any = NUMBERS[tokens[0]] if shape == "n" else assembler.expression(tokens, shape)
            if type(value) is not int:
                constant = assembler.constant(value)
                if constant is None:
                    patches.append(Patch(len(data), width, "abs", value))
                value = constant or 0
            data += _number(assembler, value, width, tokens[0])
        before = shape
        if len(data) > MAX_IMAGE:
            raise ExpressionError(f"data of more than {MAX_IMAGE} bytes")
    return bytes(data), patches


def _number(assembler: Assembler, value: int, width: int, word: str) -> bytes:
    if width > 8:  # NASM has no numbers of that many bits
        raise TokenError(f"integer supplied as {8 * width}-bit data", word)
    mask = (1 << 8 * width) - 1
    if not ~mask <= value <= mask:  # NASM takes -255 for a byte
        name = {1: "byte", 2: "word", 4: "dword"}.get(width, "")
        assembler.warn("number-overflow", f"{name} data exceeds bounds")
    return (value & mask).to_bytes(width, "little")


def _is_compound(shape: str) -> bool:
    """The element is a repetition, a list in parentheses behind a percent sign, or has a size of its own."""
    return "u" in shape or shape[:1] == "z" or shape[:2] == "%("


def _closes_last(shape: str, start: int) -> bool:
    """The parenthesis at `start` is closed by the last one."""
    depth = 0
    for at in range(start, len(shape)):
        depth += (shape[at] == "(") - (shape[at] == ")")
        if not depth:
            return at == len(shape) - 1
    return False


def _compound(assembler: Assembler, tokens: Sequence[str], shape: str, width: int) -> tuple[bytes, list[Patch]]:
    """``count dup element``, ``size element`` or ``%(element, ...)``; they nest."""
    if shape[0] == "z":
        width = SIZES[tokens[0].lower()] // 8
        tokens, shape = tokens[1:], shape[1:]
        if not _is_compound(shape) and shape[:1] == "(" and _closes_last(shape, 0):
            return _elements(assembler, split_list(tokens[:-1], shape[:-1], 1), width)
        return _elements(assembler, [(tokens, shape)], width)
    at = _dup_at(shape)
    if at < 0:
        if shape[0] != "%" or not _closes_last(shape, 1):
            raise explain(["db", *tokens], "D" + shape)
        return _elements(assembler, split_list(tokens[:-1], shape[:-1], 2), width)
    count = assembler.constant(assembler.expression(tokens[:at], shape[:at]))
    if count is None or count < 0:
        raise TokenError("dup needs a constant count that is not negative", tokens[at])
    body_tokens, body_shape = tokens[at + 1 :], shape[at + 1 :]
    if not body_shape:
        raise explain(["db", *tokens], "D" + shape)
    if body_shape[0] == "(" and _closes_last(body_shape, 0):
        parts = split_list(body_tokens[:-1], body_shape[:-1], 1)
    elif body_shape[0] == "(":
        raise explain(["db", *tokens], "D" + shape)
    else:
        parts = [(list(body_tokens), body_shape)]
    data, patches = _elements(assembler, parts, width)
    if count * len(data) > MAX_IMAGE:
        raise ExpressionError(f"data of more than {MAX_IMAGE} bytes")
    if len(patches) == 1 and patches[0].kind == BLANK and patches[0].size == len(data):
        return data * count, [patches[0]._replace(size=count * len(data))] if count else []
    if not assembler.options.listing:
        patches = [patch for patch in patches if patch.kind != BLANK]  # nobody asks; there could be millions
    repeated = [p._replace(offset=p.offset + n * len(data)) for n in range(count if patches else 0) for p in patches]
    return data * count, repeated


def _dup_at(shape: str) -> int:
    """Where the first ``dup`` outside parentheses stands; -1 where there is none."""
    depth = 0
    for at, kind in enumerate(shape):
        depth += (kind == "(") - (kind == ")")
        if kind == "u" and not depth:
            return at
    return -1


def incbin(assembler: Assembler, tokens: Sequence[str], shape: str) -> None:
    parts = split_list(tokens, shape, 1)
    if parts[0][1] != "s" or len(parts) > 3:
        raise explain(tokens, shape)
    values = [assembler.evaluate_now(*part) for part in parts[1:]]
    skip = values[0] if values else 0
    if skip < 0:
        raise ExpressionError(f"incbin cannot begin at a negative offset ({skip})")
    name = unquote(parts[0][0][0])
    try:
        with assembler.preprocessor.open(name) as file:
            file.seek(skip)
            data = file.read(MAX_IMAGE + 1 if len(values) < 2 else min(max(values[1], 0), MAX_IMAGE + 1))
    except OSError as error:
        raise TokenError(f"`incbin': unable to open file `{name}': {error.strerror}", parts[0][0][0]) from None
    if len(data) > MAX_IMAGE:
        raise ExpressionError(f"`incbin' of more than {MAX_IMAGE} bytes")
    assembler.included.add(len(assembler.items))
    assembler.items.append(data)


def split_list(tokens: Sequence[str], shape: str, start: int, most: int = -1) -> list[tuple[list[str], str]]:
    """Splits tokens from `start` on at the commas outside parentheses, at most `most` times."""
    parts = []
    depth = 0
    begin = start
    for index in range(start, len(shape)):
        kind = shape[index]
        if kind in "([{":
            depth += 1
        elif kind in ")]}":
            depth -= 1
        elif kind == "," and depth == 0 and most:
            parts.append((list(tokens[begin:index]), shape[begin:index]))
            begin = index + 1
            most -= 1
    if begin < len(shape) or not parts:
        parts.append((list(tokens[begin:]), shape[begin:]))
    return parts
