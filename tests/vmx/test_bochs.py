"""The same guests on Bochs: what the VMM finds in the VMCS after each VM exit, line by line.

Oracle: Bochs 2.7 as Debian packages it. Where it differs the SDM decides, and DIFFERENCES says so.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from test_entry_checks import CONTROLS, GUEST_STATE, HOST, INFO
from test_exits import EXITS
from vmm import FIELDS, assemble, default_fields, pin, primary, real_mode, secondary

import asm
import emu
from emu import definitions

SETTINGS = """
romimage: file=image.rom, address=0xffff0000
vgaromimage: file=display.rom
memory: guest=32, host=32
cpu: model=corei7_haswell_4770, count=1, ips=50000000, reset_on_triple_fault=0
clock: sync=none
display_library: rfb, options="timeout=0"
port_e9_hack: enabled=1
sound: driver=dummy
log: log.txt
"""
BITMAP_PF = {"EXCEPTION_BITMAP": 1 << 14}
MORE: list[tuple[str, list[dict[str, int]]]] = [
    ("ud2", [{"EXCEPTION_BITMAP": 1 << 6}]),
    ("int3", [{"EXCEPTION_BITMAP": 1 << 3}]),
    ("int1", [{"EXCEPTION_BITMAP": 1 << 1}]),
    ("div ecx", [{"EXCEPTION_BITMAP": 1}]),
    ("mov eax, [0x400010]", [BITMAP_PF]),
    ("mov [0x400010], eax", [BITMAP_PF | {"PAGE_FAULT_ERROR_CODE_MASK": 2, "PAGE_FAULT_ERROR_CODE_MATCH": 2}]),
    ("mov eax, [0x300000]", [secondary("ENABLE_EPT")]),
    ("mov [0x300000], eax", [secondary("ENABLE_EPT", "ENABLE_VPID")]),
    ("mov eax, 0x12\nvmcall", [secondary("ENABLE_EPT", "ENABLE_VPID")]),
    ("ud2", [{"GUEST_IDTR_LIMIT": 0}]),
    ("sti\nnop\nnop", [primary("INTERRUPT_WINDOW_EXITING")]),
    ("nop", [primary("INTERRUPT_WINDOW_EXITING"), {"GUEST_RFLAGS": 0x202}]),
    ("nop", [primary("NMI_WINDOW_EXITING"), pin("NMI_EXITING", "VIRTUAL_NMIS")]),
    ("sti\ncpuid", []),
    ("mov eax, ss\nmov ss, eax\ncpuid", []),
    ("nop", [{INFO: 0x80000306, "GUEST_IDTR_LIMIT": 0, "EXCEPTION_BITMAP": 1 << 13}]),
    ("mov ebx, cr0\nmov ecx, cr4\nvmcall", [{"CR0_GUEST_HOST_MASK": 0xFFFFFFFF, "CR0_READ_SHADOW": 0x55,
                                            "CR4_GUEST_HOST_MASK": 0xF0, "CR4_READ_SHADOW": 0xAA}]),
    ("inc eax\ninc eax", [primary("MONITOR_TRAP_FLAG")]),
    ("nop", [{"GUEST_RFLAGS": 0x102, "EXCEPTION_BITMAP": 2}]),
]  # fmt: skip


def guests() -> list[tuple[str, int, list[dict[str, int]]]]:
    """The guests: code, its size, and changes of the default VMCS."""
    found: list[tuple[str, int, list[dict[str, int]]]] = [(text, 32, [dict(changes)]) for text, changes, *_ in EXITS]
    found += [(text, 32, changes) for text, changes in MORE]
    checks = [dict(changes) for changes, *_ in (*CONTROLS, *HOST, *GUEST_STATE)]
    # Bochs stops the emulation at an event of type 7, which its model cannot inject.
    found += [("vmcall", 32, [changes]) for changes in checks if changes.get(INFO, 0) >> 8 & 7 != 7]
    found.append(("mov ax, 0x1234\nvmcall", 16, [real_mode()]))
    found.append(("mov ax, 0x1234\nmov [0x9000], ax\nmov bx, [0x9000]\ncpuid", 16, [real_mode()]))
    return found


def changed(changes: list[dict[str, int]]) -> dict[str, int]:
    """The fields that a guest's changes leave other than the defaults."""
    values = default_fields()
    for change in changes:
        for name, value in change.items():
            plain = name.lstrip("+-")
            old = values.get(plain, 0)
            values[plain] = old | value if name[0] == "+" else old & ~value if name[0] == "-" else value
    usual = default_fields()
    return {name: value for name, value in values.items() if value != usual.get(name, 0)}


def table(label: str, values: dict[str, int]) -> str:
    pairs = []
    for name, value in values.items():
        pairs.append(f"{name}, {value & 0xFFFFFFFF:#x}")
        if FIELDS[name].width == 64:
            pairs.append(f"{name}_HIGH, {value >> 32:#x}")
    return f"{label}: dd {', '.join([*pairs, '-1'])}"


def image() -> bytes:
    """The ROM: battery.asm with the guests' tables behind it."""
    always = {name: 0 for name, field in FIELDS.items() if not field.read_only and field.needs == "ALWAYS"}
    lines = [definitions.assembler_include(), Path(__file__).with_name("battery.asm").read_text(), "guests:"]
    tables = [table("defaults", always | default_fields())]
    for number, (text, bits, changes) in enumerate(guests()):
        lines.append(f"dd code{number}, fields{number}")
        code = assemble(text + "\nvmcall", bits, 0 if bits == 16 else 0x20000).ljust(128, b"\xf4")
        tables += [f"code{number}: db {', '.join(map(str, code))}", table(f"fields{number}", changed(changes))]
    lines += ["dd 0", *tables, "times 0xFFF0-($-$$) db 0", "bits 16", "jmp 0xF000:0", "times 0x10000-($-$$) db 0"]
    return bytes(asm.assemble("\n".join(lines), bits=16).binary)


def ours(rom: bytes) -> list[str]:
    with emu.Machine(memory=32 << 20, cpu="westmere", firmware=rom, debugcon=0xE9, debug_exit=0xF4) as machine:
        machine.run(instructions=5_000_000)
        assert machine.debugcon is not None
        return bytes(machine.debugcon.output).decode().splitlines()


def theirs(rom: bytes, folder: Path, run_bochs: Callable[[Path, bytes, str], str]) -> list[str]:
    output = run_bochs(folder, rom, SETTINGS)
    return [line for line in output.splitlines() if line[:8].strip("0123456789ABCDEF") == "" and line]


RF = 0x10000
RFLAGS = 9  # place in a line: three registers, then the fields of `report`
# Where Bochs, or the model that it has, does otherwise: code or a changed field, and why.
DIFFERENCES = [
    ("MONITOR_TRAP_FLAG", "not in Bochs' model"),
    ("VM_FUNCTIONS", "a control that Bochs' model has and ours has not"),
    ("EPT_ACCESSED_DIRTY", "a feature that Bochs' model has and ours has not"),
    ("CR4_SMEP", "a bit of CR4 that Bochs' model has and ours has not"),
    ("DEBUGCTL", "Bochs does not check it"),
    ("ERROR_CODE", "bit 15 of an error code is reserved on processors before SGX"),
    ("HLT", "SDM Vol. 3: into HLT only interrupts, NMIs, #DB and #MC are injected; Bochs does not check it"),
    ("VIRTUAL_NMI", "SDM Vol. 3: no virtual NMI is injected while they are blocked; Bochs does not check it"),
    ("PENDING_BS", "SDM Vol. 3: BS must agree with RFLAGS.TF under blocking; Bochs does not check it"),
    ("REAL_CS", "Bochs makes CS of a real-mode guest a data segment"),
]


def differs(guest: tuple[str, int, list[dict[str, int]]]) -> str | None:
    """The key of DIFFERENCES that a guest falls under."""
    _, bits, changes = guest
    all_of = {name: value for change in changes for name, value in change.items()}
    primary_bits = all_of.get("+PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS", 0)
    blocked = all_of.get("GUEST_INTERRUPTIBILITY_STATE", 0)
    tests = {
        "MONITOR_TRAP_FLAG": bool(primary_bits & 1 << 27),
        "VM_FUNCTIONS": all_of.get("SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS") == 1 << 13,
        "EPT_ACCESSED_DIRTY": bool(all_of.get("EPT_POINTER", 0) & 0x40),
        "CR4_SMEP": 1 << 20 in (all_of.get("+HOST_CR4"), all_of.get("+GUEST_CR4")),
        "DEBUGCTL": "GUEST_IA32_DEBUGCTL" in all_of,
        "ERROR_CODE": all_of.get("VM_ENTRY_EXCEPTION_ERROR_CODE") == 0x8000,
        "HLT": all_of.get("GUEST_ACTIVITY_STATE") == 1 and INFO in all_of,
        "VIRTUAL_NMI": blocked == 8 and INFO in all_of,
        "PENDING_BS": blocked == 2
        and (all_of.get("GUEST_PENDING_DEBUG_EXCEPTIONS") == 0x4000 or "GUEST_RFLAGS" in all_of),
        "REAL_CS": bits == 16,
    }
    return next((name for name, is_so in tests.items() if is_so), None)


@pytest.mark.skipif(shutil.which("bochs") is None, reason="the oracle, Debian's package bochs, is not installed")
def test_the_same_guests_on_bochs(tmp_path: Path, run_bochs: Callable[[Path, bytes, str], str]) -> None:
    """RF in the saved flags is left out: Bochs leaves it 0 for faults and EPT violations, where the SDM has 1."""
    rom = image()
    mine, other, all_guests = ours(rom), theirs(rom, tmp_path, run_bochs), guests()
    assert mine[-1].strip() == other[-1].strip() == "E" and len(mine) == len(other) == len(all_guests) + 1 > 150
    used = set()
    for guest, one, two in zip(all_guests, mine, other, strict=False):
        lines = [line.split() for line in (one, two)]
        for line in lines:
            if len(line) > RFLAGS:
                line[RFLAGS] = f"{int(line[RFLAGS], 16) & ~RF:08X}"
        if lines[0] != lines[1]:
            reason = differs(guest)
            assert reason, f"{guest}\n  ours  {one}\n  Bochs {two}"
            used.add(reason)
    assert used == {name for name, _ in DIFFERENCES}
