"""``python -m asm`` is ``emu-asm``."""

import sys

from asm.cli import main

sys.exit(main())
