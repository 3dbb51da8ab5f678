"""What names are made of: as NASM has it letters, digits, a few signs and every character beyond ASCII."""

from __future__ import annotations

# Classes of regular expressions, written as what they leave out: a range up to the last character is slow to compile.
_CLASSES = {
    "<start>": r"[^\x00-\x2d\x2f-\x3e\x5b-\x5e`{-\x7f]",  # letters _ . ? @
    "<start$>": r"[^\x00-\x23\x25-\x2d\x2f-\x3e\x5b-\x5e`{-\x7f]",  # and the dollar sign
    "<name>": r"[^\x00-\x22\x24-\x2d\x2f\x3a-\x3e\x5b-\x5e`{-}\x7f]",  # what begins a name, digits, # ~
    "<name$>": r"[^\x00-\x22\x25-\x2d\x2f\x3a-\x3e\x5b-\x5e`{-}\x7f]",
}


def with_names(pattern: str) -> str:
    """A regular expression with its classes of names, ``<start>`` and the like, put in."""
    for word, characters in _CLASSES.items():
        pattern = pattern.replace(word, characters)
    return pattern
