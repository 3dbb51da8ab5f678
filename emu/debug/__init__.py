"""Looking at a machine: disassembly and symbols. The one package of emu that uses the assembler at run time."""
