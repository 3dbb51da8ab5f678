"""One instruction: its operands, which row of the table it fits, its bytes, and back from bytes to text."""
