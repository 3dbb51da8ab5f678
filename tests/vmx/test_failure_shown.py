"""What `emu run` tells whoever writes a VMM of a VM entry that failed: a check of each group, by the SDM's title."""

import json
from pathlib import Path

import pytest
from test_bochs_exits import Scenario, image
from vmm import pin, primary, secondary

from emu.cli import main

INFO = "VM_ENTRY_INTERRUPTION_INFORMATION_FIELD"
PAE = {"+GUEST_CR4": 0x20, "GUEST_CR3": 0x28000}  # where the guest's IDT is: reserved bits in the PDPTEs
AREA = {"VM_ENTRY_MSR_LOAD_COUNT": 1, "VM_ENTRY_MSR_LOAD_ADDRESS": 0x28000}
SHOWN = [
    (pin("VIRTUAL_NMIS"), "PIN_BASED_VM_EXECUTION_CONTROLS is 0x36; NMI exiting 1, or virtual NMIs 0 would pass",
     "VM-Execution Control Fields"),
    (secondary("ENABLE_EPT") | {"EPT_POINTER": 0x60016},
     "EPT_POINTER is 0x60016; bits 5:3 are 3 (four levels) would pass", "VM-Execution Control Fields"),
    (primary("USE_IO_BITMAPS") | {"ADDRESS_OF_IO_BITMAP_B": 1}, "ADDRESS_OF_IO_BITMAP_B is 0x1",
     "VM-Execution Control Fields"),
    ({"VM_EXIT_MSR_STORE_COUNT": 1, "VM_EXIT_MSR_STORE_ADDRESS": 8}, "VM_EXIT_MSR_STORE_ADDRESS is 0x8",
     "VM-Exit Control Fields"),
    ({INFO: 0x80000421}, "VM_ENTRY_INSTRUCTION_LENGTH is 0x0; 1 to 15 would pass", "VM-Entry Control Fields"),
    ({"HOST_CR4": 0x10}, "HOST_CR4 is 0x10", "Checks on Host Control Registers, MSRs, and SSP"),
    ({"HOST_TR_SELECTOR": 0}, "HOST_TR_SELECTOR is 0x0; not 0 would pass",
     "Checks on Host Segment and Descriptor-Table Registers"),
    ({"+VM_ENTRY_CONTROLS": 0x200}, "VM_ENTRY_CONTROLS is 0x13fb; bit 9 zero would pass",
     "Checks Related to Address-Space Size"),
    ({"GUEST_CR0": 0x80000011}, "GUEST_CR0 is 0x80000011",
     "Checks on Guest Control Registers, Debug Registers, and MSRs"),
    ({"GUEST_SS_ACCESS_RIGHTS": 0xC091}, "GUEST_SS_ACCESS_RIGHTS is 0xc091; accessed writable data (3, 7) would pass",
     "Checks on Guest Segment Registers"),
    ({"GUEST_IDTR_LIMIT": 0x10000}, "GUEST_IDTR_LIMIT is 0x10000; bits 31:16 zero would pass",
     "Checks on Guest Descriptor-Table Registers"),
    ({"GUEST_RFLAGS": 0}, "GUEST_RFLAGS is 0x0", "Checks on Guest RIP, RFLAGS, and SSP"),
    ({"GUEST_ACTIVITY_STATE": 4}, "GUEST_ACTIVITY_STATE is 0x4", "Checks on Guest Non-Register State"),
    ({"VMCS_LINK_POINTER": 0}, "VMCS_LINK_POINTER is 0x0", "Checks on Guest Non-Register State"),
    (PAE, "GUEST_CR3 is 0x28000; no reserved bit in a present entry would pass",
     "Checks on Guest Page-Directory-Pointer-Table Entries"),
    (AREA, "VM_ENTRY_MSR_LOAD_ADDRESS is 0x28000", "Loading MSRs"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "says", "section"), SHOWN)
def test_emu_run_prints_the_check_that_failed(
    changes: dict[str, int], says: str, section: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rom, report, trace = tmp_path / "vmm.rom", tmp_path / "report.json", tmp_path / "trace.txt"
    memory = {0x28000: (0xC0000101).to_bytes(8, "little") * 4}
    rom.write_bytes(image([Scenario("one", "vmcall", (changes,), memory)]))
    options = ["--debug-exit", "0xf4", "-m", "4M", "--serial", "null", "--report", str(report), "--trace", str(trace)]
    main(["run", str(rom), "--max-instructions", "100000", *options])
    line = next(line for line in capfd.readouterr().err.splitlines() if line.startswith("VM entry failed"))
    assert says in line and line.endswith(f"(SDM Vol. 3, {section})")
    written = json.loads(report.read_text())["vmx_failure"]
    assert written["section"] == section and f"{written['field']} is {written['value']:#x}" in says
    assert f"---- VM entry failed by {written['check']}" in trace.read_text()
