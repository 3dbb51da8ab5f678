"""The names of the output formats, each with the code size that a source starts with."""

from __future__ import annotations

FORMATS = {"bin": 16, "ith": 16, "srec": 16, "elf": 32, "elf32": 32, "elf64": 64}
