"""`emu disk`: makes a disk image that the built-in firmware knows, and says what is in one."""

import argparse
from pathlib import Path

from emu.builtin.service_disk import image_with_header, make_disk, read_hpa, service_image
from emu.errors import BadInput, ConfigError
from emu.host.disk import SECTOR
from emu.machine import parse_size

__all__ = ["disk"]


def disk(options: argparse.Namespace) -> int:
    """Makes the image, or lists what is in it."""
    if options.list:
        show(Path(options.image))
        return 0
    path = Path(options.image)
    if path.exists() and not options.force:
        raise ConfigError(f"{path} exists: --force replaces it")
    files = dict(named_file(text) for text in options.file)
    image = service_image() if options.service is None else read(options.service)
    if "partition" in options.boot:
        files["SERVICE.BIN"] = image_with_header(image)
    make_disk(
        path,
        size=parse_size(options.size),
        partition=parse_size(options.partition),
        files=files,
        image=image if "hpa" in options.boot else None,
        dump=parse_size(options.dump),
    )
    return 0


def named_file(text: str) -> tuple[str, bytes]:
    """A file for the partition: NAME=PATH, or PATH, whose last part is the name."""
    name, equals, path = text.partition("=")
    if not equals:
        name, path = Path(text).name, text
    return name, read(path)


def read(path: str) -> bytes:
    """A file of the host."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None


def show(path: Path) -> None:
    """Prints the directory of the Host Protected Area."""
    hpa = read_hpa(path)
    print(f"Host Protected Area  from sector {hpa.first} on")
    print(f"Service OS           {f'sector {hpa.image}, {hpa.image_bytes} bytes' if hpa.image else 'none'}")
    print(f"dump area            {f'sector {hpa.dump}, {hpa.dump_sectors * SECTOR} bytes' if hpa.dump else 'none'}")
