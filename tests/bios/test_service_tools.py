"""The Service OS's tools that look at a guest: what they show is what is there, and the guest does not notice."""

import random
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from asm.instructions.disassemble import decode
from asm.instructions.format import format_instruction
from bios.build import flash
from emu import Machine, StopReason

from .conftest import Built
from .service import Shell, program, shell
from .vmm import BARE_MEMORY, GUEST, files_of, rom_with_guest

FLAGS = ((18, "AC"), (17, "VM"), (16, "RF"), (14, "NT"), (11, "OF"), (10, "DF"), (9, "IF"), (8, "TF"), (7, "SF"),
         (6, "ZF"), (4, "AF"), (2, "PF"), (0, "CF"))  # fmt: skip
TOOLS = ["vms", "regs 1", "vmcs 1", "dis 1", "dis 1 10000 50", "d 1 200000", "dp 1 0 512", "stack 1", "chipset 1",
         "acpi 1", "policy", "sensors", "sel", "mem", "help"]  # fmt: skip
# A guest with 4-level-deep frames and PAE paging that maps 40000000h to 300000h and nothing at 50000000h.
PAE_GUEST = """
%include "x86.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "image.inc"
%include "console.inc"
main:
        mov     edi, 20000h             ; page-directory-pointer table, directories, a page table
        mov     ecx, 5000h / 4
        xor     eax, eax
        rep stosd
        mov     dword [20000h], 21000h | PAGE_P
        mov     dword [20008h], 22000h | PAGE_P
        mov     dword [21000h], PAGE_P | PAGE_RW | PAGE_PS                      ; the first 4 MiB to themselves
        mov     dword [21008h], 200000h | PAGE_P | PAGE_RW | PAGE_PS
        mov     dword [22000h], 23000h | PAGE_P | PAGE_RW
        mov     dword [23000h], 300000h | PAGE_P | PAGE_RW
        mov     dword [300FF8h], "edge"
        mov     eax, CR4_PAE
        mov     cr4, eax
        mov     eax, 20000h
        mov     cr3, eax
        mov     eax, cr0
        or      eax, CR0_PG
        mov     cr0, eax
        call    outer
outer_return:
        hlt
outer:
        push    ebp
        mov     ebp, esp
        push    dword 11112222h
        call    inner
inner_return:
        hlt
inner:
        push    ebp
        mov     ebp, esp
        mov     eax, 12345678h
there:
        mov     [200010h], eax          ; the protected page
        cli
        hlt
"""
WALKER = """
%include "x86.inc"
%include "vmcs.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "image.inc"
%include "console.inc"
%include "acpi_off.inc"
%macro vmcall 0
        call    vmcall_instead
%endmacro
%include "walk.inc"
main:
        mov     dword [walk_pages], 700000h
        mov     esi, 300000h            ; cases: CR0, CR3, CR4, EFER, linear address; the answers go behind them
        mov     edi, 380000h
.case:
        cmp     dword [esi + 20], 0     ; the last has no mark
        je      acpi_power_off
        push    edi
        mov     eax, [esi]
        mov     [registers + vm_state.cr0], eax
        mov     eax, [esi + 4]
        mov     [registers + vm_state.cr3], eax
        mov     eax, [esi + 8]
        mov     [registers + vm_state.cr4], eax
        mov     eax, [esi + 12]
        mov     [efer], eax
        mov     ebx, 1
        call    walk_begin
        mov     eax, [esi + 16]
        mov     edx, [esi + 24]
        call    walk
        pop     edi
        jnc     .mapped
        mov     eax, -1
        xor     ecx, ecx
.mapped:
        stosd
        mov     eax, ecx
        stosd
        add     esi, 28
        jmp     .case

; The VMM's calls on our own memory, of which there are 8 MiB.
vmcall_instead:
        cmp     eax, VMCALL_READ_STATE
        je      .state
        cmp     eax, VMCALL_READ_VMCS
        je      .field
        lea     eax, [esi + ecx]
        cmp     esi, 800000h
        jae     .outside
        cmp     eax, 800000h
        ja      .outside
        push    esi
        push    edi
        push    ecx
        rep movsb
        pop     ecx
        pop     edi
        pop     esi
        xor     eax, eax
        ret
.outside:
        mov     eax, STATUS_BAD_ADDRESS
        ret
.state:
        push    esi
        push    ecx
        mov     esi, registers
        mov     ecx, vm_state_size
        rep movsb
        pop     ecx
        pop     esi
        xor     eax, eax
        ret
.field:
        mov     edx, [efer]
        xor     ebx, ebx
        xor     eax, eax
        ret
        align   4
efer:           dd 0
registers:      times vm_state_size db 0
state_buffer:   times vm_state_size db 0
"""


class Stopped:
    """A shell after a guest was stopped, and what the emulator saw of the guest as it was left."""

    def __init__(self, at: Shell) -> None:
        self.at = at
        machine, vmm = at.machine, at.vmm
        block = vmm.symbols["VMM_VMS"] + GUEST * vmm.symbols["VM_SLOT"]
        machine.serial.send(b"go\r")
        while vmm.word("current") != block:  # up to the switch away from the guest: its VMCS is the current one
            machine.cpu.step()
            assert machine.run(seconds=20, until=vmm.symbols["vm_switch"]).reason is StopReason.BREAKPOINT
        self.left = vmm.guest_hash()
        self.vmcs = dict(machine.cpu.vmcs)
        names = ("edi", "esi", "ebp", "esp", "ebx", "edx", "ecx", "eax")
        self.registers = dict(zip(names, struct.unpack("<8I", vmm.vm(GUEST, "gpr", 32)), strict=True))
        self.registers["esp"] = self.vmcs["GUEST_RSP"]
        at.wait()

    def memory(self, address: int, size: int) -> bytes:
        """The guest's memory by physical address."""
        return self.at.machine.memory.read(self.at.vmm.guest_memory()[0] + address, size)

    def seen(self) -> tuple[bytes, ...]:
        """All that belongs to the guest while the Service VM runs: memory, registers and devices, FPU, VMCS region."""
        vmm = self.at.vmm
        first, end = vmm.symbols["vm.gpr"], vmm.symbols["vm_size"]
        region = self.at.machine.memory.read(vmm.vm_word(GUEST, "vmcs"), 4096)
        return self.memory(0, vmm.guest_memory()[1]), vmm.vm(GUEST, "gpr", end - first), region

    def back(self) -> str:
        """Lets the guest go on, and returns its hash at its first VM entry."""
        machine, vmm = self.at.machine, self.at.vmm
        block = vmm.symbols["VMM_VMS"] + GUEST * vmm.symbols["VM_SLOT"]
        machine.serial.send(b"go\r")
        assert machine.run(seconds=20, until=vmm.symbols["vm_switch"]).reason is StopReason.BREAKPOINT
        assert machine.cpu.ebp == block
        assert machine.run(seconds=20, until=vmm.symbols["interrupt_deliver"]).reason is StopReason.BREAKPOINT
        return vmm.guest_hash()


@pytest.fixture(scope="module")
def at(built: Built) -> Iterator[Stopped]:
    """The built-in guest has written to its protected page."""
    with shell(built.rom(), built.folder, after="stay") as opened:
        yield Stopped(opened)


@pytest.mark.parametrize("tool", TOOLS)
def test_undisturbed(at: Stopped, tool: str) -> None:
    before = at.seen()
    assert len(at.at.do(tool)) > 20
    assert at.seen() == before


def test_undisturbed_by_all_tools_and_the_way_back(built: Built) -> None:
    with shell(built.rom(), built.folder, after="stay") as opened:
        at = Stopped(opened)
        for tool in TOOLS:
            opened.do(tool)
        assert at.back() == at.left


def test_the_hash_sees_a_byte(built: Built) -> None:
    """What holds the test before: a byte of the guest's that changes in the shell is seen."""
    with shell(built.rom(), built.folder, after="stay") as opened:
        at = Stopped(opened)
        place = opened.vmm.guest_memory()[0] + 0x7FFFFF
        opened.machine.memory.write(place, bytes([opened.machine.memory.read(place, 1)[0] ^ 1]))
        assert at.back() != at.left


def test_regs(at: Stopped) -> None:
    said = at.at.do("regs 1")
    for name, value in at.registers.items():
        assert f"{name.upper()} {value:08X}" in said
    vmcs = at.vmcs
    flags = vmcs["GUEST_RFLAGS"]
    names = "".join(f" {name}" for bit, name in FLAGS if flags >> bit & 1)
    assert f"EIP {vmcs['GUEST_RIP']:08X} EFLAGS {flags:08X}{names}\n" in said
    assert f"CR0 {vmcs['GUEST_CR0']:08X} CR3 {vmcs['GUEST_CR3']:08X} CR4 {vmcs['GUEST_CR4']:08X} DR7 00000400" in said
    for name in ("ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR"):
        parts = [vmcs[f"GUEST_{name}_{part}"] for part in ("SELECTOR", "BASE", "LIMIT", "ACCESS_RIGHTS")]
        assert "{:5}{:04X} base {:08X} limit {:08X} access {:08X}".format(name, *parts) in said
    for name in ("GDTR", "IDTR"):
        assert f"{name} base {vmcs[f'GUEST_{name}_BASE']:08X} limit {vmcs[f'GUEST_{name}_LIMIT']:08X}" in said


def test_vmcs_shows_every_field_that_the_processor_has(at: Stopped) -> None:
    shown = dict(reversed(line.split()) for line in at.at.do("vmcs 1").splitlines())
    names = {name for name in at.vmcs if not name.endswith("_HIGH")}
    absent = names - set(shown)
    assert set(shown) <= names
    for name in absent:
        assert at.at.do(f"vmcs 1 {name}").splitlines()[0] == f"{name}: this processor has no such field"
    # The next VMREAD of a field that there is none of, and the way to the guest, change these.
    for name in set(shown) - {"VM_INSTRUCTION_ERROR", "HOST_RSP"}:
        assert int(shown[name], 16) == at.vmcs[name], name
    assert len(shown) > 100


def test_vmcs_of_a_group_and_of_a_name(at: Stopped) -> None:
    groups = {group: {line.split()[1] for line in at.at.do(f"vmcs 1 {group}").splitlines()}
              for group in ("control", "exit", "guest", "host")}  # fmt: skip
    assert "EXCEPTION_BITMAP" in groups["control"] and "EXIT_QUALIFICATION" in groups["exit"]
    assert "GUEST_RIP" in groups["guest"] and "HOST_RIP" in groups["host"]
    whole = {line.split()[1] for line in at.at.do("vmcs 1").splitlines()}
    assert set.union(*groups.values()) == whole and sum(map(len, groups.values())) == len(whole)
    assert at.at.do("vmcs 1 guest_RIP") == f"        {at.vmcs['GUEST_RIP']:08X} GUEST_RIP\n"
    assert at.at.do("vmcs 1 nothing") == "nothing: in no field's name, and no group (control, exit, guest, host)\n"


def listing(at: Stopped, line: str) -> list[tuple[int, str, str]]:
    """What `dis` shows: address, bytes, text."""
    rows = [re.fullmatch(r"[> ]([0-9A-F]{8}) ([0-9A-F]+)\+? +(.*)", row) for row in at.at.do(line).splitlines()]
    return [(int(row[1], 16), row[2], row[3]) for row in rows if row]


def test_dis(at: Stopped) -> None:
    rip = at.vmcs["GUEST_RIP"]
    assert at.at.do("dis 1").startswith(f">{rip:08X} ")
    for line, address, count in (("dis 1", rip, 10), ("dis 1 10100 200", 0x10100, 200)):
        rows = listing(at, line)
        assert len(rows) == count
        for shown, code, text in rows:
            assert shown == address
            data = at.memory(address, 15)
            found = decode(data, 32, address)
            if found:
                assert text == format_instruction(found.form.mnemonic.lower(), found.operands, found.prefixes)
            else:
                assert text.startswith("db ")
            length = found.length if found else 1
            assert code == data[:length].hex().upper()[:16]
            address += length


def test_dis_of_code_in_real_mode(built: Built) -> None:
    with shell(built.rom(), built.folder) as opened:
        assert opened.do("dis 1").startswith(">00010000 EB0A              jmp short 0xc\n")


def test_memory_by_linear_and_by_physical_address(at: Stopped) -> None:
    for line, address, size in (("d 1 10000", 0x10000, 128), ("dp 1 0x10003 33", 0x10003, 33),
                                ("dp 1 7FFFF8h 8", 0x7FFFF8, 8)):  # fmt: skip
        rows = at.at.do(line).splitlines()
        data = b"".join(bytes.fromhex(row[9:57]) for row in rows)
        assert int(rows[0][:8], 16) == address and data == at.memory(address, size)
    assert at.at.do("d 1 10000 9")[58:] == "....PAGEF\n"
    assert at.at.do("dp 1 7ffff8").splitlines()[1] == "00800000 outside the VM's memory"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("dp 1 800000", "00800000 outside the VM's memory\n"),
        ("dp 1 ffffffff", "FFFFFFFF outside the VM's memory\n"),
        ("d 1 ffffffff", "FFFFFFFF not mapped\n"),
        ("d 1 zz", "zz: a number is wanted here\n"),
        ("d 1 0 -1", "-1: a number is wanted here\n"),
        ("d 1 100000000", "100000000: a number is wanted here\n"),
        ("d 1", "usage: d N ADDRESS [BYTES]\n"),
        ("d 9 0", "VM 9: the guests are VM 1 to VM 1\n"),
        ("dis 1 10000 x", "x: a number is wanted here\n"),
        ("dis 1 ffffffff 1", " FFFFFFFF not mapped\n"),
    ],
)
def test_what_cannot_be_shown(at: Stopped, line: str, said: str) -> None:
    assert at.at.do(line) == said


def test_ctrl_c_ends_a_listing(at: Stopped) -> None:
    machine = at.at.machine
    machine.serial.send(b"d 1 0 100000\r")
    at.at.wait("00000200 ")
    machine.serial.send(b"\x03")
    assert at.at.wait().count("\n") < 200


def test_chipset(at: Stopped) -> None:
    """The guest's own chips, as the VMM's block has them."""
    vmm, said = at.at.vmm, at.at.do("chipset 1")
    for name, field in (("20h", "pic1"), ("A0h", "pic2")):
        irr, isr, imr, base = vmm.vm(GUEST, field, 4)
        assert f"PIC {name}: IRR {irr:02X} ISR {isr:02X} IMR {imr:02X} base {base:02X}" in said
    counters = [struct.unpack("<3I", vmm.vm(GUEST, "pit", 200)[n * vmm.symbols["pit_size"] :][:12]) for n in range(3)]
    assert counters[0][2] == 11931
    assert "PIT" + "".join(f" counter {n} mode {mode} reload {reload}"
                           for n, (mode, _, reload) in enumerate(counters)) in said  # fmt: skip
    cmos = vmm.vm(GUEST, "cmos", 64)
    assert "".join(cmos[n : n + 16].hex(" ").upper() + " \n" for n in range(0, 64, 16)) in said
    status, enable, control = (vmm.vm_word(GUEST, f"pm1_{name}") for name in ("sts", "en", "cnt"))
    pm = f"PM1_STS {status:04X} PM1_EN {enable:04X} PM1_CNT {control:04X}\n"
    function = r"^PCI (\w\w\.\d \w{4}:\w{4} class \w{4}) command (\w{4}) status (\w{4})$"
    functions = re.findall(function, said, re.MULTILINE)
    found = re.findall(r"^PCI +(\w\w\.\d \w{4}:\w{4} class \w{4})", at.at.before, re.MULTILINE)  # by POST
    assert [name for name, *_ in functions] == found and len(found) == 4
    board = at.at.machine.board
    for chip, (_, command, status) in zip((board.bridge, board.isa, board.ide, board.pm), functions, strict=True):
        assert (int(command, 16), int(status, 16)) == (chip.read_config(4, 2), chip.read_config(6, 2))
    assert said.endswith(pm) and at.at.do("acpi 1").startswith(pm)


def test_acpi_tables_are_found_as_an_operating_system_does(at: Stopped) -> None:
    lines = at.at.do("acpi 1").splitlines()[1:]
    assert [line.split()[1] for line in lines] == ["RSDP", "RSDT", "FACP", "FACS", "DSDT"]
    assert lines[0].startswith("000F")
    for line in lines[1:]:
        address, name, size, *rest = line.split()
        table = at.memory(int(address, 16), int(size))
        assert table[:4].decode() == name and int.from_bytes(table[4:8], "little") == len(table)
        assert rest == (["bytes"] if name == "FACS" else ["bytes,", "checksum", "right"])
        assert name == "FACS" or sum(table) % 256 == 0


def test_a_spoilt_acpi_table_is_seen(built: Built) -> None:
    with shell(built.rom(), built.folder) as opened:
        address = next(int(line[:8], 16) for line in opened.do("acpi 1").splitlines() if "DSDT" in line)
        place = opened.vmm.guest_memory()[0] + address + 50
        opened.machine.memory.write(place, bytes([opened.machine.memory.read(place, 1)[0] ^ 1]))
        assert re.search(r"DSDT \d+ bytes, CHECKSUM WRONG", opened.do("acpi 1"))
        place = opened.vmm.guest_memory()[0] + next(
            int(line[:8], 16) for line in opened.do("acpi 1").splitlines() if "RSDT" in line
        )
        opened.machine.memory.write(place + 36, b"\xf0\xff\xff\xff")
        assert "FFFFFFF0 outside the VM's memory" in opened.do("acpi 1")


def test_pae_paging_and_the_stack(built: Built, tmp_path: Path) -> None:
    source = tmp_path / "guest.asm"
    source.write_text(PAE_GUEST)
    rom = rom_with_guest(built.rom(), built.folder, source)
    with shell(rom, built.folder, after="stay") as opened:
        opened.machine.serial.send(b"go\r")
        assert "wrote to protected memory" in opened.wait()
        assert opened.do("d 1 40000ff8 16") == (
            "40000FF8 65 64 67 65 00 00 00 00                          edge....\n40001000 not mapped\n"
        )
        assert opened.do("d 1 40000000 4")[:8] == "40000000"
        assert opened.do("d 1 50000000 4") == "50000000 not mapped\n"
        assert opened.do("d 1 40200000 4").startswith("40200000 not mapped")
        said = opened.do("stack 1").splitlines()
        words = [int(word, 16) for row in said[:4] for word in row.split()[1:]]
        code = opened.do("dis 1").splitlines()[0].split()
        inner_return, outer_return = words[1], words[4]
        assert words[0] == int(said[0][:8], 16) + 12 and words[2] == 0x11112222 and code[2] == "mov"
        assert said[4] == f"return addresses by EBP: {inner_return:08X} {outer_return:08X}"


def reference(memory: bytes, cr0: int, cr3: int, cr4: int, efer: int, linear: int) -> tuple[int, int]:
    """Physical address and bytes to the end of the page by SDM Vol. 3, "Paging"; (FFFFFFFFh, 0): it is not mapped."""
    if not cr0 >> 31:
        return linear & 0xFFFFFFFF, 0x1000 - (linear & 0xFFF)
    missing = (0xFFFFFFFF, 0)
    if not cr4 & 0x20:
        levels, size, table, width = [22, 12], 4, cr3 & ~0xFFF, 10
    elif efer & 0x400:
        levels, size, table, width = [39, 30, 21, 12], 8, cr3 & ~0xFFF, 9
    else:
        levels, size, table, width = [30, 21, 12], 8, cr3 & ~0x1F, 9
    for shift in levels:
        at = table + size * (linear >> shift & ((1 << width) - 1))
        if at + size > len(memory):
            return missing
        entry = int.from_bytes(memory[at : at + size], "little")
        if not entry & 1:
            return missing
        large = shift != 12 and entry & 0x80 and not (size == 4 and not cr4 & 0x10)
        if size == 8 and shift == (39 if efer & 0x400 else 30):
            large = False
        if size == 8 and shift == 30 and efer & 0x400:
            large = bool(entry & 0x80)
        page = entry & 0x000FFFFFFFFFF000 if size == 8 else entry & ~0xFFF
        if size == 4 and large and entry >> 13 & 0xFF:
            return missing  # PSE-36
        if page >> 32:
            return missing
        if shift == 12 or large:
            offset = linear & (1 << shift) - 1
            return page >> shift << shift | offset, (1 << shift) - offset
        table = page
    raise AssertionError


def test_every_paging_mode(built: Built, tmp_path: Path) -> None:
    """The walk alone, on random tables in a bare machine's memory: the VMM offers its guests no 64-bit mode."""
    source = random.Random(4)
    tables = bytearray(0x10000)
    for at in range(0, len(tables), 8):
        page = source.choice([*range(0x200000, 0x210000, 0x1000), 0x400000, 0x600000])
        flags = source.choice((0x63, 0x63, 0x63, 0x63, 0xE3, 0xE3, 0x62))
        high = source.choice((0, 0, 0, 0, 0, 0, 0x80000000, 1))
        second = source.choice([*range(0x200000, 0x210000, 0x1000)]) | 0x63
        struct.pack_into("<II", tables, at, page | flags, high if source.random() < 0.5 else second)
    cases, raw = [], bytearray()
    for _ in range(3000):
        cr0, cr4 = source.choice((0x80000011, 0x80000011, 0x80000011, 0x11)), source.choice((0, 0x10, 0x20, 0x20, 0x30))
        efer = source.choice((0, 0x500)) if cr4 & 0x20 else 0
        cr3 = 0x200000 + source.randrange(16) * 0x1000 + source.choice((0, 0x18))
        linear = source.getrandbits(48 if efer else 32)
        cases.append((cr0, cr3, cr4, efer, linear))
        raw += struct.pack("<7I", cr0, cr3, cr4, efer, linear & 0xFFFFFFFF, 1, linear >> 32)
    image = program(WALKER, built.folder, tmp_path / "walker.asm")
    rom = built.rom()
    with Machine(BARE_MEMORY, "pentium3", firmware=flash(rom[-0x20000:], {**files_of(rom), "guest": image})) as machine:
        machine.run(seconds=20, until=0x10000)
        machine.memory.write(0x200000, bytes(tables))
        machine.memory.write(0x300000, bytes(raw))
        memory = machine.memory.read(0, 8 << 20)
        assert machine.run(seconds=20).reason is StopReason.POWERED_OFF
        answers = machine.memory.read(0x380000, 8 * len(cases))
    right = [reference(memory, *case) for case in cases]
    assert sum(size > 0 for _, size in right) > 500
    for case, answer, wanted in zip(cases, struct.iter_unpack("<II", answers), right, strict=True):
        assert answer == wanted, [hex(part) for part in case]
