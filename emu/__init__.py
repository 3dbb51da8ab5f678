"""A cycle-level x86 PC in a Python process."""
