"""Builds the extensions, the decode tables, the parser cache and the firmware; metadata is in pyproject.toml."""

import os
import sys
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
os.chdir(ROOT)
sys.path.insert(0, str(ROOT))  # a PEP 517 front end leaves the root off sys.path

from build_support import Build, BuildData, BuildExt, extensions  # noqa: E402 (needs the line above)

setup(
    packages=find_packages(include=["asm", "asm.*", "emu", "emu.*"]),
    package_dir={"": "."},  # an editable install is then one line in a .pth file, which type checkers follow too
    include_package_data=False,  # a wheel holds what package-data lists, not the C sources
    ext_modules=extensions(),
    cmdclass={"build": Build, "build_ext": BuildExt, "build_data": BuildData},
)
