"""The command `emu-asm`: arguments, cache, colour, progress."""
