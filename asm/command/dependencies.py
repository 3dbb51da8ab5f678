"""What -M writes: the rule by which make knows when to assemble again."""

from __future__ import annotations

import re
from collections.abc import Iterable

WIDTH = 62  # of a line, beyond which it is continued


def quoted(name: str, watcom: bool = False) -> str:
    """A file's name as make reads it."""
    if watcom:
        name = re.sub(r'([$#"])', lambda m: '""' if m[1] == '"' else f"${m[1]}", name)
        return f'"{name}"' if re.search(r'[ \t&"]', name) else name
    name = re.sub(r"(\\*)([ \t])", r"\1\1\\\2", name)
    name = name.replace("$", "$$").replace("#", "\\#")
    return re.sub(r"(\\+)$", r"\1\1", name)


def rule(target: str, names: Iterable[str], phony: bool = False, watcom: bool = False) -> str:
    """The rule.

    Args:
        target: as make is to read it. names: of the files. phony: with a rule without commands for each of them.
    """
    files = [quoted(name, watcom) for name in dict.fromkeys(names)]
    text = f"{target} :"
    column = len(text)
    for file in files:
        if column + len(file) > WIDTH and column > 1:
            text += " &\n " if watcom else " \\\n "
            column = 1
        text += f" {file}"
        column += len(file) + 1
    text += "\n\n"
    nothing = "\t%null\n" if watcom else ""
    return text + "".join(f"{file} :\n{nothing}\n" for file in files if phony)
