"""From assembled sections to files: flat binary, ELF with DWARF, hexadecimal, and the listing and map beside them."""
