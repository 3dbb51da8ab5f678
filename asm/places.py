"""``$`` and ``$$`` in absolute space, where they are numbers."""

from __future__ import annotations

from typing import Any

from asm.expression import HERE, START


def without_places(expression: Any) -> Any:
    """The expression with numbers for ``$`` and ``$$``, to ask whether the rest is constant."""
    return at_place(expression, 0)


def at_place(expression: Any, here: int) -> Any:
    """The expression with ``$`` and ``$$`` of absolute space put in."""
    if expression is HERE:
        return here
    if expression is START:
        return 0
    if isinstance(expression, tuple):
        return tuple(at_place(part, here) for part in expression)
    return expression
