"""What %pragma says: the names of an object's symbols, the listing, the limit of %rep. The rest changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asm.assembler import Assembler

LIMITS = ("passes", "stalled-passes", "macro-levels", "macro-tokens", "mmacros", "rep", "eval", "lines")
_MANGLES = frozenset(f"{who}{what}" for who in ("", "g", "l") for what in ("prefix", "suffix"))


def kind_of_mangling(name: str) -> str:
    """One of ``gprefix``, ``gsuffix``, ``lprefix`` and ``lsuffix`` for what an option or a pragma calls it."""
    name = name.replace("postfix", "suffix")
    return name if name[0] in "gl" else f"g{name}"


def switch_listing(flags: set[str], text: str) -> None:
    """Turns letters of the listing on, or off behind a minus: what -L takes."""
    on = True
    for letter in text:
        if letter in "+-":
            on = letter == "+"
        elif on:
            flags.add(letter)
        else:
            flags.discard(letter)


def pragma(assembler: Assembler, text: str) -> None:
    """Does what a pragma says; one that is unknown is warned of where NASM does."""
    facility, *rest = text.split(None, 2) or [""]
    facility = facility.lower()
    name = rest[0].lower() if rest else ""
    value = rest[1].strip() if len(rest) > 1 else ""
    output = assembler.format.name
    known = False
    if facility in ("output", output, output.rstrip("0123456789")):
        known = name in _MANGLES
        if known:  # the first counts, if it is nothing too
            assembler.mangle.setdefault(kind_of_mangling(name), value)
    elif facility == "list":
        known = name == "options"
        if known:
            switch_listing(assembler.preprocessor.listing_flags, value)
    elif facility == "limit":
        known = name in LIMITS
        if known and not value.isdecimal() and value != "unlimited":
            assembler.warn("pragma-bad", f"invalid limit value: `{value}'")
        elif name == "rep" and value.isdecimal():
            assembler.preprocessor.limits["rep"] = int(value)
    elif facility not in ("asm", "debug"):
        return
    if not name:
        assembler.warn("pragma-bad", f"empty %pragma {facility}")
    elif not known:
        assembler.warn("pragma-unknown", f"unknown %pragma {facility} {name}")
