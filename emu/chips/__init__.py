"""The parts of the PC's board, one file a part, named for the part."""
