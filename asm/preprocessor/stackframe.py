"""``%stacksize``, ``%arg`` and ``%local``: names for a procedure's parameters and local variables."""

from __future__ import annotations

import re

from asm.names import with_names

# Model: bytes in a stack slot, frame register, offset of the first parameter from it.
MODELS = {"flat": (4, "ebp", 8), "flat64": (8, "rbp", 16), "large": (2, "bp", 4), "small": (2, "bp", 6)}
SIZES = {"byte": 1, "word": 2, "dword": 4, "qword": 8, "tword": 10, "oword": 16, "yword": 32, "zword": 64}
VARIABLE = re.compile(with_names(r"\s*(<start><name$>*)\s*:\s*(\w+)\s*"))


class StackFrame:
    """The stack model, and how far parameters and local variables have been laid out in it."""

    def __init__(self) -> None:
        self.choose("flat")

    def choose(self, model: str) -> None:
        """Takes a stack model; parameters and variables begin anew.

        Raises:
            ValueError: there is no such model.
        """
        if model not in MODELS:
            raise ValueError(f"`%stacksize' knows {', '.join(MODELS)}, not `{model}'")
        self.slot, self.register, self.next_argument = MODELS[model]
        self.locals_size = 0

    def arguments(self, text: str) -> list[tuple[str, str]]:
        """Lays out ``name:size, ...`` above the frame; gives each name and the address it stands for.

        Raises:
            ValueError: the list is malformed.
        """
        result = []
        for name, size in _variables(text):
            result.append((name, f"({self.register}+{self.next_argument})"))
            self.next_argument += -(-size // self.slot) * self.slot
        return result

    def variables(self, text: str) -> list[tuple[str, str]]:
        """Lays out ``name:size, ...`` below the frame; gives each name and the address it stands for.

        Raises:
            ValueError: the list is malformed.
        """
        result = []
        for name, size in _variables(text):
            self.locals_size += -(-size // self.slot) * self.slot
            result.append((name, f"({self.register}-{self.locals_size})"))
        return result


def _variables(text: str) -> list[tuple[str, int]]:
    result = []
    for part in text.split(","):
        match = VARIABLE.fullmatch(part)
        if match is None or match.group(2).lower() not in SIZES:
            raise ValueError(f"a name, a colon and a size are wanted, not `{part.strip()}'")
        result.append((match.group(1), SIZES[match.group(2).lower()]))
    return result
