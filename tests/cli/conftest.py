"""Lets the tests here share roms.py of tests/machine."""

import sys
from pathlib import Path

MACHINE = str(Path(__file__).parents[1] / "machine")
if MACHINE not in sys.path:
    sys.path.append(MACHINE)
