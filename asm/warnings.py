"""The classes of warnings: their names, which are on at first, and the switches that -w and [warning] turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# The classes of NASM 2.16, by what they are until a switch is turned.
ON = frozenset((
    "db-empty", "ea-absolute", "ea-dispsize", "float-overflow", "float-toolong", "forward", "label-orphan",
    "number-overflow", "obsolete-nop", "obsolete-removed", "obsolete-valid", "pp-else-elif", "pp-else-else",
    "pp-empty-braces", "pp-environment", "pp-macro-def-case-single", "pp-macro-def-greedy-single",
    "pp-macro-defaults", "pp-macro-params-legacy", "pp-macro-params-multi", "pp-macro-params-single",
    "pp-macro-redef-multi", "pp-open-braces", "pp-open-brackets", "pp-open-string", "pp-rep-negative", "pp-sel-range",
    "pp-trailing", "prefix-bnd", "prefix-hle", "prefix-lock", "prefix-opsize", "prefix-seg", "ptr", "regsize", "user",
    "warn-stack-empty", "zeroing", "zext-reloc", "other",
))  # fmt: skip
OFF = frozenset((
    "float-denorm", "float-underflow", "label-redef", "phase", "pragma-bad", "pragma-empty", "pragma-na",
    "pragma-unknown", "unknown-warning",
))  # fmt: skip
ERROR = frozenset(("label-redef-late", "pp-macro-def-param-single"))
OLD_NAMES = {
    "bad-pragma": "pragma-bad", "unknown-pragma": "pragma-unknown", "not-my-pragma": "pragma-na",
    "environment": "pp-environment", "negative-rep": "pp-rep-negative", "orphan-labels": "label-orphan",
    "bnd": "prefix-bnd", "hle": "prefix-hle", "lock": "prefix-lock",
    **{n.removeprefix("pp-"): n for n in (*ON, *ERROR) if n.startswith("pp-macro-") and "redef" not in n},
}  # fmt: skip
_SPELLINGS = {**{name: name for name in (*ON, *OFF, *ERROR)}, **OLD_NAMES}


class Warnings:
    """The state of every class.

    Args:
        switches: as `switch` takes them, or name to on or off.
    """

    def __init__(self, switches: Iterable[str] | Mapping[str, bool] = ()) -> None:
        self.on = set(ON | ERROR)
        self.errors = set(ERROR)
        self.at_first = frozenset(self.on), frozenset(self.errors)
        if isinstance(switches, Mapping):
            switches = [("+" if on else "-") + name for name, on in switches.items()]
        for text in switches:
            self.switch(text)
        self.at_first = frozenset(self.on), frozenset(self.errors)  # what `*` goes back to

    def switch(self, text: str) -> bool:
        """Turns one switch: ``name``, ``+name``, ``-name``, ``no-name``, ``*name``, each also with ``error=``.

        A name stands for all classes that begin with it and a dash; ``all`` and ``none`` for every one, and ``error``
        for an error of every one.

        Returns:
            Whether the name means anything.
        """
        name = text.strip().lower()
        action = "+"
        if name[:1] in ("+", "-", "*"):
            action, name = name[0], name[1:]
        elif name.startswith("no-"):
            action, name = "-", name[3:]
        elif name == "none":
            action, name = "-", "all"
        is_error = name == "error" or name.startswith("error=")
        if is_error:
            name = name[6:] or "all"
        state, first = (self.errors, 1) if is_error else (self.on, 0)
        chosen = {c for spelling, c in _SPELLINGS.items() if name == "all" or f"{spelling}-".startswith(f"{name}-")}
        if action == "*":
            state -= chosen
            state |= chosen & self.at_first[first]
        elif action == "+":
            state |= chosen
        else:
            state -= chosen
        return bool(chosen)

    def copy(self) -> Warnings:
        """The same state, to come back to."""
        made = Warnings()
        made.on, made.errors, made.at_first = set(self.on), set(self.errors), self.at_first
        return made

    def severity(self, name: str) -> str:
        """What a warning of a class is: ``warning``, ``error``, or nothing."""
        if name not in self.on:
            return ""
        return "error" if name in self.errors else "warning"
