"""Assembles the images of bios/: the only thing here that is not assembly."""

import json
import re
from pathlib import Path

import asm

__all__ = ["build_firmware"]

HERE = Path(__file__).parent
POST_CODE = re.compile(r"^POST_\w+\s+equ\s+([0-9A-F]+)h\s*;\s*(.+)$", re.MULTILINE)


def build_firmware(outdir: Path) -> list[Path]:
    """Writes firmware.bin, the built-in ROM, and post_codes.json, what its POST codes mean; returns both paths."""
    outdir.mkdir(parents=True, exist_ok=True)
    source = HERE / "firmware" / "firmware.asm"
    image, codes = outdir / "firmware.bin", outdir / "post_codes.json"
    image.write_bytes(asm.assemble_file(source, include=[str(source.parent)]).binary)
    text = (source.parent / "post_codes.inc").read_text()
    meanings = {f"{int(code, 16):02X}": meaning for code, meaning in POST_CODE.findall(text)}
    codes.write_text(json.dumps(meanings, indent=1) + "\n")
    return [image, codes]
