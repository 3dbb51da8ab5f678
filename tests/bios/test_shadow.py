"""Processors whose VT-x lacks unrestricted guests (nehalem) or EPT as well (prescott), or that have none (pentium3):
VMs that begin in protected mode with paging, and shadow page tables, as vm-contract has it. SDM Vol. 3, "Using VMX to
virtualize memory".
"""

import re
from pathlib import Path

import pytest

from emu import Machine, StopReason

from .conftest import Built
from .vmm import BARE_MEMORY, BOOT, CALL, GUEST, POWER_OFF, SERVICE, TRAP, SoftwareVmm, Vmm, rom_with_guest

MEMORY = 32 << 20
OLD = ["nehalem", "prescott", "pentium3"]
LACKS = {
    "nehalem": {"VMM       no unrestricted guests"},
    "prescott": {"VMM       no unrestricted guests", "VMM       no EPT: VMs run on shadow page tables"},
    "pentium3": {"VMM       no VT-x: VMs run in ring 3 on shadow page tables, by software"},
}


@pytest.mark.parametrize("cpu", OLD)
def test_the_story_is_the_same(built: Built, cpu: str) -> None:
    with Machine(MEMORY, cpu, firmware=built.rom()) as machine:
        stop = machine.run(seconds=30)
        console = machine.serial.output.decode()
        vmm = SoftwareVmm(machine, built.folder) if cpu == "pentium3" else Vmm(machine, built.folder)
        switches = vmm.switches()
    assert stop.reason is StopReason.POWERED_OFF
    assert {text for text in set().union(*LACKS.values()) if text in console} == LACKS[cpu]
    assert "service   VM 1 wrote to protected memory" in console
    assert "address 00200010 linear 00200010" in console
    assert "guest     undisturbed" in console and "guest     ends well" in console
    assert [(one.source, one.target, one.reason) for one in switches] == [
        (-1, SERVICE, BOOT), (SERVICE, GUEST, CALL), (GUEST, SERVICE, TRAP), (SERVICE, GUEST, CALL),
        (GUEST, SERVICE, POWER_OFF),
    ]  # fmt: skip


GUEST_SOURCE = """
%include "x86.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "image.inc"
%include "console.inc"
%include "acpi_off.inc"
main:
"""


def run_guest(built: Built, tmp_path: Path, cpu: str, body: str) -> str:
    """What the console says where the guest is `body`, 32-bit code behind `main:`."""
    source = tmp_path / "guest.asm"
    source.write_text(GUEST_SOURCE + body)
    with Machine(MEMORY, cpu, firmware=rom_with_guest(built.rom(), built.folder, source)) as machine:
        stop = machine.run(seconds=30)
        assert stop.reason is StopReason.POWERED_OFF
        return machine.serial.output.decode()


# A page directory at 20000h and a table at 21000h for the 4 MiB from 40000000h; physical memory from 300000h on.
TABLES = """
DIRECTORY equ 20000h
TABLE     equ 21000h
LINEAR    equ 40000000h
FRAME     equ 300000h
        mov     edi, DIRECTORY
        mov     eax, PAGE_P | PAGE_RW | PAGE_PS
        mov     ecx, 1024
.identity:
        stosd
        add     eax, 400000h
        loop    .identity
        mov     edi, TABLE
        xor     eax, eax
        mov     ecx, 1024
        rep stosd
        mov     dword [DIRECTORY + (LINEAR >> 22) * 4], TABLE | PAGE_P | PAGE_RW | 4
        mov     eax, cr4
        or      eax, CR4_PSE
        mov     cr4, eax
        mov     eax, DIRECTORY
        mov     cr3, eax
        mov     eax, cr0
        or      eax, CR0_PG | CR0_WP
        mov     cr0, eax
        lidt    [idt_pointer]
"""
END = """
        jmp     acpi_power_off
say:                                            ; prints EAX
        pushad
        call    console_hex
        mov     al, " "
        call    console_byte
        popad
        ret
fault:                                          ; prints "F", error code and CR2, and goes on at [resume]
        mov     al, "F"
        call    console_byte
        pop     eax
        call    say
        mov     eax, cr2
        call    say
        mov     eax, [resume]
        mov     [esp], eax
        iretd
double:
        mov     al, "D"
        call    console_byte
        jmp     acpi_power_off
%macro gate 1
        dw      %1 - IMAGE_BASE + (IMAGE_BASE & 0FFFFh), SELECTOR_CODE32, INTERRUPT_GATE, IMAGE_BASE >> 16
%endmacro
        align 8
idt:    times 8 dq 0
        gate    double
        times 5 dq 0
        gate    fault
idt_pointer:
        dw      15 * 8 - 1
        dd      idt
resume: dd      0
"""


@pytest.mark.parametrize("cpu", ["westmere", *OLD])
def test_faults_rights_accessed_and_dirty(built: Built, tmp_path: Path, cpu: str) -> None:
    """Not present, read only with WP on and off, the bits that the processor sets, INVLPG after a change."""
    body = TABLES + """
        mov     dword [resume], .second         ; not present, read: error code 0
        mov     eax, [LINEAR]
.second:
        mov     dword [resume], .third          ; not present, write: 2
        mov     [LINEAR + 4], eax
.third:
        mov     dword [TABLE], FRAME | PAGE_P   ; read only; A is set by the read
        mov     dword [FRAME], 12345678h
        mov     eax, [LINEAR]
        call    say
        mov     eax, [TABLE]
        call    say
        mov     dword [resume], .fourth         ; write to it: 3
        mov     [LINEAR + 8], eax
.fourth:
        mov     eax, cr0                        ; without WP the supervisor may; D is set
        and     eax, ~CR0_WP
        mov     cr0, eax
        mov     dword [LINEAR + 8], 0ABCDEF01h
        mov     eax, [FRAME + 8]
        call    say
        mov     eax, [TABLE]
        call    say
        mov     eax, cr0
        or      eax, CR0_WP
        mov     cr0, eax
        mov     dword [resume], .fifth
        mov     [LINEAR + 8], eax               ; and now it may not again
.fifth:
        mov     dword [TABLE], FRAME + 1000h | PAGE_P | PAGE_RW         ; another frame, INVLPG
        mov     dword [FRAME + 1000h], 55667788h
        invlpg  [LINEAR]
        mov     eax, [LINEAR]
        call    say
        mov     eax, [TABLE]                    ; accessed, not dirty
        call    say
        mov     dword [LINEAR], 1
        mov     eax, [TABLE]
        call    say
        mov     eax, cr3
        call    say
""" + END
    console = run_guest(built, tmp_path, cpu, body)
    told = " ".join(console[console.rindex("virtual machines") :].split())
    wanted = (
        "F00000000 40000000 F00000002 40000004 12345678 00300021 F00000003 40000008 ABCDEF01 00300061 "
        "F00000003 40000008 55667788 00301023 00301063 00020000"
    )
    assert wanted.replace(" ", "") in told.replace(" ", ""), told


@pytest.mark.parametrize("cpu", ["westmere", *OLD])
def test_a_fault_in_the_delivery_of_a_fault_is_a_double_fault(built: Built, tmp_path: Path, cpu: str) -> None:
    body = TABLES + """
        mov     edi, DIRECTORY + ((LINEAR + 400000h) >> 22) * 4
        mov     dword [edi], 0                  ; a stack that is not there: #DF has none either
        invlpg  [LINEAR + 400000h]
        mov     esp, LINEAR + 400000h + 100h
        mov     eax, [LINEAR]
""" + END
    console = run_guest(built, tmp_path, cpu, body)
    assert "service   VM 1 triple fault" in console


@pytest.mark.parametrize("cpu", OLD)
@pytest.mark.parametrize("bit", ["CR0_PG", "CR0_PG | CR0_PE"])
def test_a_guest_that_leaves_paging_is_stopped_alone(built: Built, tmp_path: Path, cpu: str, bit: str) -> None:
    body = f"        mov eax, cr0\n        and eax, ~({bit})\n        mov cr0, eax\n"
    console = run_guest(built, tmp_path, cpu, body + END)
    assert "service   VM 1 did what the VMM does not know" in console
    assert "service   reason 0000001C" in console


def test_more_pages_than_there_are_tables(built: Built, tmp_path: Path) -> None:
    """Touching a page in each of 200 directory entries asks for more tables than the VM's pool has."""
    body = TABLES + """
        mov     edi, DIRECTORY + (80000000h >> 22) * 4
        mov     ecx, 200
.alias: mov     dword [edi], 00000083h          ; 200 times the first 4 MiB
        add     edi, 4
        loop    .alias
        mov     eax, cr3
        mov     cr3, eax
        mov     ebx, 80000000h + 50000h
        mov     ecx, 200
.touch: inc     dword [ebx]
        add     ebx, 400000h
        loop    .touch
        mov     eax, [50000h]
        call    say
""" + END
    assert "000000C8" in run_guest(built, tmp_path, "prescott", body)


def test_every_write_to_a_protected_page_is_trapped(built: Built, tmp_path: Path) -> None:
    """Two in a row: there is no monitor trap flag on prescott, so the VMM steps by TF, which the guest does not see."""
    body = """
        pushfd
        mov     dword [200000h], 1
        mov     dword [200004h], 2
        pushfd
        pop     eax
        pop     ebx
        xor     ebx, eax
        mov     al, "="
        call    console_byte
        mov     eax, ebx
        call    say
""" + END
    for cpu in ("westmere", *OLD):
        console = run_guest(built, tmp_path, cpu, body)
        assert console.count("service   VM 1 wrote to protected memory") == 2
        assert "=00000000 " in console


def test_random_page_tables_are_as_on_the_bare_machine(built: Built) -> None:
    """20,000 changes and accesses of both privilege levels: the checksum of all that was seen is the bare machine's."""
    source = Path(__file__).with_name("paging_stress.asm")
    rom = rom_with_guest(built.rom(), built.folder, source)
    told = {}
    for cpu in ("bare", "westmere", *OLD):
        memory, model = (BARE_MEMORY, "pentium3") if cpu == "bare" else (MEMORY, cpu)
        with Machine(memory, model, firmware=rom) as machine:
            machine.run(seconds=30)
            console = machine.serial.output.decode()
            assert ("bare machine" in console) == (cpu == "bare")
            told[cpu] = re.findall(r"stress    ([0-9A-F]{8})\r\n([0-9A-F]{8})", console)
    assert int(told["bare"][0][1], 16) > 3000  # faults
    assert all(one == told["bare"] for one in told.values()), told
