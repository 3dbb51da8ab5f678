"""The preprocessor's other directives: files, messages, macros' calls, contexts, packages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asm.instructions.nops import THRESHOLDS
from asm.pragmas import pragma
from asm.preprocessor import text_directives
from asm.preprocessor.frames import MAX_INCLUDES, DirectiveError, Frame, decode, source_lines
from asm.preprocessor.macros import NAME, Context, pieces, strip_comment
from asm.preprocessor.predefined import USE_PACKAGES
from asm.preprocessor.text_directives import Handler
from asm.tokens import unquote

if TYPE_CHECKING:
    from asm.preprocessor.preprocess import Preprocessor


LINE = re.compile(r"""\s*(\d+)(?:\+(\d+)|(-\d+))?(?:\s+(?:"([^"]*)".*|'([^']*)'.*|(.*)))?""")


def _include(pre: Preprocessor, rest: str) -> None:
    text = pre.expander.expand(strip_comment(rest)).strip()
    name = unquote(text) if text[:1] in ("'", '"', "`") and len(text) > 1 else ""
    if not name:
        raise DirectiveError("`%include' expects a file name")
    if sum(frame.kind == "file" for frame in pre.frames) > MAX_INCLUDES:
        pre.assembler.report(f"includes nested more than {MAX_INCLUDES} deep", "fatal", place=pre.place)
    try:
        with pre.open(name) as file:
            data = file.read()
    except OSError as error:
        raise DirectiveError(f"unable to open include file `{name}': {error.strerror}", text) from None
    pre.push(Frame("file", pre.find(name), source_lines(decode(data)), pre.place))


def _require(pre: Preprocessor, rest: str) -> None:
    """Includes a file that has not been included."""
    if pre.find(_message(pre, rest)) not in (*pre.dependencies, pre.assembler.name):
        _include(pre, rest)


def _message(pre: Preprocessor, rest: str) -> str:
    text = strip_comment(rest).strip()
    text = pre.expander.expand(text) if text[:1] not in ("'", '"', "`") else text
    parts = [piece for piece in pieces(text) if not piece.isspace()]
    return unquote(text) if len(parts) == 1 and text[:1] in ("'", '"', "`") and len(text) > 1 else text


def _said(pre: Preprocessor, directive: str, rest: str) -> str:
    return _message(pre, rest) or f"`%{directive}' without a text"


def _error(pre: Preprocessor, rest: str) -> None:
    pre.assembler.report(_said(pre, "error", rest), place=pre.place)


def _warning(pre: Preprocessor, rest: str) -> None:
    pre.assembler.report(_said(pre, "warning", rest), "warning", place=pre.place, warning="user")


def _fatal(pre: Preprocessor, rest: str) -> None:
    pre.assembler.report(_said(pre, "fatal", rest), "fatal", place=pre.place)


def _rotate(pre: Preprocessor, rest: str) -> None:
    call = next((frame.call for frame in reversed(pre.frames) if frame.call is not None), None)
    if call is None:
        raise DirectiveError("`%rotate' outside of a macro")
    count = pre.evaluate(rest)
    if call.parameters:
        call.rotation = (call.rotation + count) % len(call.parameters)


def _exit(pre: Preprocessor, kind: str) -> None:
    """Leaves the innermost macro or repetition at once."""
    at = next((n for n in range(len(pre.frames) - 1, -1, -1) if pre.frames[n].kind == kind), None)
    if at is None:
        raise DirectiveError(f"`%exit{kind}' not within `%{kind}'")
    pre.truncate_conditions(pre.frames[at].conditions)
    if kind == "rep" and pre.record is not None:  # NASM lists what it passes over
        for frame in reversed(pre.frames[at:]):
            for number in range(frame.number + 1, len(frame.lines) + 1):
                pre.place = (frame, number)
                pre.list_line(frame, frame.lines[number - 1])
    for frame in pre.frames[at:]:
        frame.iterator = iter(())
        frame.remaining = 0


def _context_name(pre: Preprocessor, directive: str, rest: str) -> str:
    name, _, more = pre.expander.expand(strip_comment(rest)).strip().partition(" ")
    pre.trailing(f"`{directive}'", more)
    return name


def _push_context(pre: Preprocessor, rest: str) -> None:
    pre.contexts.append(Context(_context_name(pre, "%push", rest), pre.calls))
    pre.calls += 1


def _pop_context(pre: Preprocessor, rest: str) -> None:
    name = _context_name(pre, "%pop", rest)
    if not pre.contexts:
        raise DirectiveError("`%pop': context stack is already empty")
    if name and pre.contexts[-1].name.lower() != name.lower():
        raise DirectiveError(f"`%pop' in wrong context: {pre.contexts[-1].name}, expected {name}", name)
    pre.contexts.pop()


def _replace_context(pre: Preprocessor, rest: str) -> None:
    if not pre.contexts:
        raise DirectiveError("`%repl': context stack is empty")
    pre.contexts[-1].name = _context_name(pre, "%repl", rest)


def _unmacro(pre: Preprocessor, rest: str, insensitive: bool = False) -> None:
    name, counts = pre.split_name(strip_comment(rest))
    match = re.fullmatch(r"\s*(\d+)(?:-(\d+|\*))?(\+)?\s*", counts)
    if match is None:
        raise DirectiveError("%unmacro wants a name and a number of parameters")
    least = int(match.group(1))
    most = float("inf") if match.group(2) == "*" else int(match.group(2) or least)
    table = pre.multi_insensitive if insensitive else pre.multi
    key = name.lower() if insensitive else name
    left = [m for m in table.get(key, []) if (m.least, m.most, m.greedy) != (least, most, bool(match.group(3)))]
    if left:
        table[key] = left
    elif table.pop(key, None):
        pre.kinds.undefine(name, insensitive)


def _clear(pre: Preprocessor, rest: str) -> None:
    for name in list(pre.expander.macros):
        pre.undefine(name)


def _line(pre: Preprocessor, rest: str) -> None:
    """Says where its own line stands in the source that a program made this one of; the next is an increment on."""
    if pre.frames[-1].kind != "file" or not pre.options.line_directives:
        return
    match = LINE.fullmatch(strip_comment(rest))
    if match is None:
        raise DirectiveError("`%line' wants a line number, maybe an increment, and a file name")
    number, forward, back, *names = match.groups()
    frame = pre.frames[-1]
    name = next((name.strip() for name in names if name), frame.file_of(frame.number))
    frame.marks.append((frame.number, int(number), int(forward or back or 1), name))


def _stacksize(pre: Preprocessor, rest: str) -> None:
    try:
        pre.frame.choose(strip_comment(rest).strip().lower())
    except ValueError as error:
        raise DirectiveError(str(error)) from None


def _arg(pre: Preprocessor, rest: str) -> None:
    try:
        for name, address in pre.frame.arguments(strip_comment(rest)):
            pre.set_text(name, address)
    except ValueError as error:
        raise DirectiveError(str(error)) from None


def _local(pre: Preprocessor, rest: str) -> None:
    before = pre.frame.locals_size
    try:
        for name, address in pre.frame.variables(strip_comment(rest)):
            pre.set_text(name, address)
    except ValueError as error:
        raise DirectiveError(str(error)) from None
    text_directives.assign(pre, f"%$localsize %$localsize + {pre.frame.locals_size - before}")


def _use(pre: Preprocessor, rest: str) -> None:
    name = _message(pre, rest).lower()
    if name not in USE_PACKAGES:
        raise DirectiveError(f"unknown `%use' package: `{name}'", name)
    if name == "smartalign":
        pre.assembler.align_mode = "generic", THRESHOLDS["generic"]
        if not pre.verbatim:
            pre.count_calls(1)  # NASM's package calls alignmode
    pre.used.add(name)
    pre.set_text(f"__?USE_{name.upper()}?__", "")
    text = USE_PACKAGES[name]
    if pre.verbatim and name == "smartalign":
        text = "%imacro alignmode 1-2.nolist\n%endmacro\nalignmode generic"
    elif pre.verbatim and name == "masm":  # a keyword that the assembler itself takes as nothing
        text = re.sub(r"%idefine flat$", "%idefine flat __?masm_flat?__", text, flags=re.MULTILINE)
    if text:
        frame = Frame("file", f"<{name}>", source_lines(text), pre.place)
        frame.lists = False
        pre.push(frame)


def _pragma(pre: Preprocessor, rest: str) -> None:
    """Those that are not the preprocessor's own are a directive to NASM."""
    text = pre.expander.expand(strip_comment(rest)).strip()
    facility, *words = text.split(None, 2) or [""]
    if facility.lower() == "preproc":
        if words[:1] == ["sane_empty_expansion"]:
            pre.sane_empty_expansion = pre.truth("".join(words[1:]))
    elif pre.verbatim and NAME.match(text):
        pre.made.append(f"[pragma {text}]")
    else:
        pre.assembler.place = pre.place
        pragma(pre.assembler, text)


def _depend(pre: Preprocessor, rest: str) -> None:
    """Names a file that the output depends on."""
    pre.dependencies.append(_message(pre, rest))


DIRECTIVES: dict[str, Handler] = {
    **text_directives.DIRECTIVES,
    "include": _include,
    "require": _require,
    "error": _error,
    "warning": _warning,
    "fatal": _fatal,
    "rotate": _rotate,
    "exitrep": lambda pre, rest: _exit(pre, "rep"),
    "exitmacro": lambda pre, rest: _exit(pre, "macro"),
    "push": _push_context,
    "pop": _pop_context,
    "repl": _replace_context,
    "unmacro": _unmacro,
    "unimacro": lambda pre, rest: _unmacro(pre, rest, True),
    "clear": _clear,
    "line": _line,
    "stacksize": _stacksize,
    "arg": _arg,
    "local": _local,
    "use": _use,
    "pragma": _pragma,
    "depend": _depend,
    "null": lambda pre, rest: None,
}


def _orphan(directive: str) -> Handler:
    def handler(pre: Preprocessor, rest: str) -> None:
        raise DirectiveError(f"`%{directive}': no matching `%{directive.removeprefix('end')}'")

    return handler


DIRECTIVES.update({name: _orphan(name) for name in ("endmacro", "endm", "endrep")})
