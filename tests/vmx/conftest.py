"""Makes the helper modules of this folder importable: with pytest's importlib mode it is on no path."""

import sys
from pathlib import Path

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.append(HERE)
