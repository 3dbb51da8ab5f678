"""Assembles the images of bios/ and puts them together in the flash chip: the only thing here that is not assembly."""

import json
import re
import struct
import zlib
from pathlib import Path

import asm
from bios.disassembly import disassembly_include

__all__ = ["build_firmware"]

HERE = Path(__file__).parent
INCLUDE = HERE / "include"
GENERATED = HERE.parent / "build" / "generated"  # vmcs.inc, made of the core's definitions
POST_CODE = re.compile(r"^POST_\w+\s+equ\s+([0-9A-F]+)h\s*;\s*(.+)$", re.MULTILINE)
VMCS_FIELD = re.compile(r"^(\w+)\s+equ\s+(\w+)$", re.MULTILINE)
FLASH_BYTES = re.compile(r"^FLASH_BYTES\s+equ\s+([0-9A-F]+)h$", re.MULTILINE)

# Guests by the names of their files; `guest` is one too.
GUESTS = ("healthy", "aware", "hung", "double", "machine", "triple", "diskfail", "crashy", "hostile")
# What the flash chip holds besides the firmware: the file's name there (at most 12 characters) and its source.
FILES = {
    "option.rom": "optionrom/modem.asm",
    "vmm": "vmm/vmm.asm",
    "vmmsoft": "vmm/software.asm",
    "service": "service/service.asm",
    "guest": "guest/guest.asm",
    **{name: f"guest/{name}.asm" for name in GUESTS},
    "runtime": "runtime/runtime.asm",
}
# What policy.json is made of.
POLICY = """
bits 32
%include "ports.inc"
%include "guests.inc"
%include "crc32.inc"
%include "policy.inc"
files: guest_files
"""
# ROMs of their own, which need no POST: they measure what a switch between worlds costs.
ROMS = {"switch_software": "switch/software.asm", "switch_vmx": "switch/vmx.asm"}
ACPI = ("dsdt", "dsdt_vm")
ACPI_CHECKSUM = 9  # in the header of a table
TABLE = struct.Struct("<8s2I")  # struc flash_table
ENTRY = struct.Struct("<12s3I")  # struc flash_file
FILE_ALIGN = 16


def build_firmware(outdir: Path) -> list[Path]:
    """Writes what is built from bios/ and returns the paths.

    firmware.bin is the built-in ROM, post_codes.json what its POST codes mean, symbols.json the linear addresses of its
    labels, of the VMM's (which begin with vmm_) and of the guests' (guest_ and the file's name); policy.json has the
    layout of the policy in the CMOS RAM, for emu/builtin/policy.py; dsdt.aml and dsdt_vm.aml are the DSDTs of the
    machine and of a virtual machine, for tools that take ACPI tables; the others are of ROMS.
    """
    outdir.mkdir(parents=True, exist_ok=True)
    tables = [build_table(HERE / "acpi" / f"{name}.asm", outdir / f"{name}.aml") for name in ACPI]
    (outdir / "disassembly.inc").write_text(disassembly_include())
    (outdir / "vmcs_names.inc").write_text(vmcs_names())
    files = {name: build_file(source, outdir) for name, source in FILES.items()}
    firmware = asm.assemble_file(HERE / "firmware" / "firmware.asm", include=folders("firmware", outdir))
    image, codes, symbols = (outdir / name for name in ("firmware.bin", "post_codes.json", "symbols.json"))
    image.write_bytes(flash(firmware.binary, files))
    vmm = asm.assemble_file(HERE / FILES["vmm"], include=folders("vmm", outdir))
    labels = firmware.labels | {f"vmm_{name.removeprefix('vmm_')}": address for name, address in vmm.labels.items()}
    for guest in ("guest", *GUESTS):
        program = asm.assemble_file(HERE / FILES[guest], include=folders("guest", outdir))
        labels |= {f"guest_{guest}_{name}": address for name, address in program.labels.items()}
    symbols.write_text(json.dumps(labels, indent=1, sort_keys=True) + "\n")
    policy = outdir / "policy.json"
    policy.write_text(json.dumps(policy_layout(), indent=1) + "\n")
    roms = [outdir / f"{name}.bin" for name in ROMS]
    for rom, source in zip(roms, ROMS.values(), strict=True):
        rom.write_bytes(build_file(source, outdir))
    meanings = {f"{int(code, 16):02X}": meaning for code, meaning in POST_CODE.findall(read("post_codes.inc"))}
    codes.write_text(json.dumps(meanings, indent=1) + "\n")
    return [image, codes, symbols, policy, *tables, *roms]


def read(name: str) -> str:
    """A shared include file."""
    return (INCLUDE / name).read_text()


def folders(name: str, outdir: Path) -> list[str]:
    """Where the sources of a folder of bios/ look for what they include."""
    return [str(folder) for folder in (HERE / name, HERE / "acpi", INCLUDE, GENERATED, outdir)]


def policy_layout() -> dict[str, object]:
    """What include/policy.inc and guests.inc define: constants and offsets, the default policy, the guests' files."""
    program = asm.assemble(POLICY, include=[str(INCLUDE)])
    symbols = {name: value for name, value in program.symbols.items() if name not in program.labels}
    at, files = program.symbols["policy_default"], program.symbols["files"]
    return {
        "symbols": symbols,
        "default": program.binary[at : at + symbols["policy_size"]].hex(),
        "files": [name.rstrip(b"\0").decode() for (name,) in struct.iter_unpack("12s", program.binary[files:])],
    }


def vmcs_names() -> str:
    """vmcs_names.inc: encoding and name of each VMCS field, in the order of vmcs.inc, whose last field is HOST_RIP."""
    lines = ["; Encodings and names of the VMCS fields; made of vmcs.inc.", "vmcs_names:"]
    for name, encoding in VMCS_FIELD.findall((GENERATED / "vmcs.inc").read_text()):
        if not name.endswith("_HIGH"):
            lines.append(f'        dw      {encoding}\n        db      "{name}", 0')
        if name == "HOST_RIP":
            break
    return "\n".join([*lines, "        dw      0FFFFh", ""])


def build_table(source: Path, target: Path) -> Path:
    """Assembles an ACPI table and fills in its checksum."""
    table = bytearray(asm.assemble_file(source, include=folders(source.parent.name, target.parent)).binary)
    table[ACPI_CHECKSUM] = -sum(table) & 0xFF
    target.write_bytes(table)
    return target


def build_file(source: str, outdir: Path) -> bytes:
    """The content of one file of the flash chip."""
    path = HERE / source
    content = bytearray(asm.assemble_file(path, include=folders(path.parent.name, outdir)).binary)
    if path.parent.name == "optionrom":
        content[-1] = -sum(content[:-1]) & 0xFF
    return bytes(content)


def flash(firmware: bytes, files: dict[str, bytes]) -> bytes:
    """The flash chip: file table, files, and the firmware at its end."""
    size = int(FLASH_BYTES.findall(read("flash.inc"))[0], 16)
    table = TABLE.pack(b"FLASHTAB", len(files), 0)
    offset = -(-(len(table) + ENTRY.size * len(files)) // FILE_ALIGN) * FILE_ALIGN
    content = bytearray(b"\xff" * (size - len(firmware)) + firmware)
    for name, data in files.items():
        if offset + len(data) > size - len(firmware):
            raise ValueError(f"{name}: no room in a flash chip of {size} bytes: FLASH_BYTES in include/flash.inc")
        table += ENTRY.pack(name.encode(), offset, len(data), zlib.crc32(data))
        content[offset : offset + len(data)] = data
        offset += -(-len(data) // FILE_ALIGN) * FILE_ALIGN
    content[: len(table)] = table
    return bytes(content)
