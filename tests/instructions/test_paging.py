"""32-bit and PAE paging, and code in pages."""

import pytest
from system import (
    ACCESSED,
    CODE,
    DATA,
    DIRECTORY,
    DIRTY,
    GLOBAL,
    GP,
    LARGE,
    PF,
    PRESENT,
    SS,
    TABLES,
    USER,
    WRITABLE,
    Bench,
    descriptor,
)

import emu

WP = 0x10000
PSE, PAE, PGE = 0x10, 0x20, 0x80
P, WR, US, RSVD = 1, 2, 4, 8  # bits of the error code
PAGE = 0x30000


def paged(cpl: int = 0, faults: str = "raise", cr0: int = 0, cr4: int = 0) -> Bench:
    bench = Bench(faults)
    bench.cpu.cr4 = cr4
    bench.map_pages()
    bench.cpu.cr0 = bench.cpu.cr0 | cr0
    if cpl:
        bench.enter_ring(cpl)
    return bench


# --- access rights: SDM Vol. 3, "Access Rights", "Page-Fault Exceptions" ---


@pytest.mark.parametrize("cpl", [0, 1, 3])
@pytest.mark.parametrize("wp", [0, WP])
@pytest.mark.parametrize("rights", [0, PRESENT, PRESENT | WRITABLE, PRESENT | USER, PRESENT | WRITABLE | USER])
@pytest.mark.parametrize("level", ["table", "directory"])
def test_rights(level: str, rights: int, wp: int, cpl: int) -> None:
    """U/S and R/W of both levels together; supervisor writes obey R/W with CR0.WP alone; CPL 0 to 2 are supervisors."""
    bench = paged(cpl, cr0=wp)
    if level == "table":
        bench.set_page(PAGE, PAGE | rights)
        linear = PAGE
    else:
        linear = 0x400000 + PAGE
        bench.write32(DIRECTORY + 4, TABLES | rights)
    user = cpl == 3
    readable = bool(rights & PRESENT) and (not user or bool(rights & USER))
    writable = readable and (bool(rights & WRITABLE) or (not user and not wp))
    error = (P if rights & PRESENT else 0) | (US if user else 0)
    assert bench.fault(f"mov eax, [{linear}]") == (None if readable else (PF, error))
    assert bench.fault(f"mov [{linear}], eax") == (None if writable else (PF, error | WR))
    assert bench.fault(f"add dword [{linear}], 1") == (None if writable else (PF, error | WR))


def test_cr2_and_frame() -> None:
    """SDM Vol. 3, "Interrupt 14 - Page-Fault Exception": CR2, error code, and the address of the instruction."""
    bench = paged(faults="deliver")
    bench.set_page(PAGE, 0)
    frame = bench.run(f"nop\n mov [{PAGE + 0x123}], al")
    assert (frame.vector, frame.stack[0], frame.stack[1]) == (PF, WR, bench.code + 1)
    assert bench.cpu.cr2 == PAGE + 0x123


def test_fetch_fault() -> None:
    """A missing page of code: CR2 is the address of the instruction; P=0, read, supervisor."""
    bench = paged()
    bench.set_page(PAGE, 0)
    assert bench.fault(f"jmp {PAGE + 8}") is None
    with pytest.raises(emu.CpuFault) as caught:
        bench.cpu.step()
    assert (caught.value.vector, caught.value.error_code, caught.value.address) == (PF, 0, PAGE + 8)
    assert caught.value.rip == PAGE + 8


def test_user_fetch_from_a_supervisor_page() -> None:
    bench = paged(3)
    bench.set_page(PAGE, PAGE | PRESENT)
    assert bench.fault(f"jmp {PAGE}") is None
    assert bench.step() == (PF, P | US)


def test_system_accesses_are_the_supervisors() -> None:
    """SDM Vol. 3, "Access Rights": descriptor tables and TSS are read by the processor itself, whatever the CPL."""
    bench = paged(3)
    for page in (0x1000, 0x2000, 0x3000):
        bench.set_page(page, page | PRESENT | WRITABLE)
    bench.cpu.eax = bench.cpu.ds.selector
    assert bench.fault("mov es, ax") is None
    assert bench.fault("mov eax, [1000h]") == (PF, P | US)


# --- accessed and dirty: SDM Vol. 3, "Accessed and Dirty Flags" ---


def test_accessed_and_dirty() -> None:
    bench = paged()
    assert bench.fault(f"mov eax, [{PAGE}]") is None
    assert bench.get_page(PAGE) & (ACCESSED | DIRTY) == ACCESSED
    assert bench.read32(DIRECTORY) & (ACCESSED | DIRTY) == ACCESSED
    assert bench.fault(f"mov [{PAGE}], eax") is None
    assert bench.get_page(PAGE) & (ACCESSED | DIRTY) == ACCESSED | DIRTY
    assert bench.read32(DIRECTORY) & DIRTY == 0


def test_no_dirty_without_a_write() -> None:
    """A write that is refused sets nothing dirty."""
    bench = paged(3)
    bench.set_page(PAGE, PAGE | PRESENT | USER)
    assert bench.fault(f"mov [{PAGE}], eax") == (PF, P | WR | US)
    assert bench.get_page(PAGE) & DIRTY == 0


# --- page crossing ---


@pytest.mark.parametrize(("text", "error"), [
    ("mov eax, [30FFEh]", 0), ("mov [30FFEh], eax", WR), ("add [30FFEh], eax", WR), ("mov ax, [30FFFh]", 0),
    ("push dword [30FFDh]", 0), ("cmpxchg8b [30FFCh]", WR), ("lds eax, [30FFCh]", 0), ("fs movsd", 0),
])  # fmt: skip
def test_second_page_is_missing(text: str, error: int) -> None:
    """An access across pages: the fault names the second page's first byte, and nothing has changed."""
    bench = paged()
    bench.set_page(0x31000, 0)
    bench.write32(0x30FFC, 0x01020304)
    bench.cpu.eax, bench.cpu.esi, bench.cpu.edi = 0xAAAAAAAA, 0x30FFE, 0x20000
    with pytest.raises(emu.CpuFault) as caught:
        bench.place(text)
        bench.cpu.step()
    assert (caught.value.vector, caught.value.error_code, caught.value.address) == (PF, error, 0x31000)
    assert (bench.cpu.eax, bench.cpu.esi, bench.read32(0x30FFC)) == (0xAAAAAAAA, 0x30FFE, 0x01020304)


def test_access_across_pages_that_are_apart() -> None:
    """The two halves go to their own physical pages."""
    bench = paged()
    bench.set_page(0x31000, 0x35000 | PRESENT | WRITABLE)
    bench.cpu.eax = 0x44332211
    assert bench.fault("mov [30FFEh], eax") is None
    assert bench.read16(0x30FFE) == 0x2211
    assert bench.read16(0x35000) == 0x4433
    assert bench.fault("mov ecx, [30FFEh]") is None
    assert bench.cpu.ecx == 0x44332211


def test_push_across_a_missing_page_leaves_esp() -> None:
    bench = paged()
    bench.set_page(0x31000, 0)
    bench.cpu.esp = 0x31002
    assert bench.fault("push eax") == (PF, WR)
    assert bench.cpu.esp == 0x31002


@pytest.mark.parametrize(
    ("code", "missing", "address"), [("enter 8, 0", 0x30000, 0x30FFC), ("enter 1500h, 0", 0x2F000, 0x2FAFC)]
)
def test_enter_pushes_before_it_tries_the_final_stack_pointer(code: str, missing: int, address: int) -> None:
    """SDM Vol. 2, "ENTER", operation."""
    bench = paged()
    bench.set_page(missing, 0)
    bench.cpu.esp = 0x31000
    bench.place(code)
    with pytest.raises(emu.CpuFault) as caught:
        bench.cpu.step()
    assert (caught.value.vector, caught.value.address, bench.cpu.esp) == (PF, address, 0x31000)


# --- TLB: SDM Vol. 3, "Invalidation of TLBs and Paging-Structure Caches" ---


def read_page(bench: Bench, linear: int = PAGE) -> int:
    assert bench.fault(f"mov eax, [{linear}]") is None
    return bench.cpu.eax


def remapped(cr4: int = 0, flags: int = 0) -> Bench:
    """PAGE was read through one mapping; its entry now names another page, and nothing told the processor."""
    bench = paged(cr4=cr4)
    bench.write32(PAGE, 0x11111111)
    bench.write32(0x35000, 0x22222222)
    bench.set_page(PAGE, PAGE | PRESENT | WRITABLE | flags)
    assert read_page(bench) == 0x11111111
    bench.set_page(PAGE, 0x35000 | PRESENT | WRITABLE | flags)
    return bench


def test_invlpg() -> None:
    bench = remapped()
    assert bench.fault(f"invlpg [{PAGE + 0x123}]") is None
    assert read_page(bench) == 0x22222222


def test_mov_cr3_flushes() -> None:
    bench = remapped()
    bench.cpu.ecx = DIRECTORY
    assert bench.fault("mov cr3, ecx") is None
    assert read_page(bench) == 0x22222222


def test_global_pages_outlive_mov_cr3() -> None:
    """SDM Vol. 3, "Global Pages": not MOV to CR3, but INVLPG and a change of CR4.PGE."""
    bench = remapped(PGE, GLOBAL)
    bench.cpu.ecx = DIRECTORY
    assert bench.fault("mov cr3, ecx") is None
    assert read_page(bench) == 0x11111111
    assert bench.fault(f"invlpg [{PAGE}]") is None
    assert read_page(bench) == 0x22222222
    bench = remapped(PGE, GLOBAL)
    assert bench.fault("mov ecx, cr4\n and cl, 7Fh\n mov cr4, ecx", steps=3) is None
    assert read_page(bench) == 0x22222222


def test_global_bit_needs_pge() -> None:
    bench = remapped(0, GLOBAL)
    bench.cpu.ecx = DIRECTORY
    assert bench.fault("mov cr3, ecx") is None
    assert read_page(bench) == 0x22222222


def test_rights_can_be_taken_away_by_invlpg() -> None:
    bench = paged(0, cr0=WP)
    assert bench.fault(f"mov [{PAGE}], eax") is None
    bench.set_page(PAGE, PAGE | PRESENT)
    assert bench.fault(f"invlpg [{PAGE}]") is None
    assert bench.fault(f"mov [{PAGE}], eax") == (PF, P | WR)


def test_rights_can_be_granted_without_invalidation() -> None:
    """SDM Vol. 3, "Recommended Invalidation": more rights need none, since a fault forgets the translation."""
    bench = paged(0, cr0=WP)
    bench.set_page(PAGE, PAGE | PRESENT)
    assert read_page(bench) == 0
    assert bench.fault(f"mov [{PAGE}], eax") == (PF, P | WR)
    bench.set_page(PAGE, PAGE | PRESENT | WRITABLE)
    assert bench.fault(f"mov [{PAGE}], eax") is None


def test_paging_off_and_on() -> None:
    """MOV to CR0 with PG: translations begin and end at once."""
    bench = paged(faults="deliver")
    bench.set_page(PAGE, 0x35000 | PRESENT | WRITABLE)
    bench.write32(PAGE, 0x11111111)
    bench.write32(0x35000, 0x22222222)
    frame = bench.run(
        f"mov ecx, [{PAGE}]\n mov eax, cr0\n btr eax, 31\n mov cr0, eax\n mov edx, [{PAGE}]\n"
        f" bts eax, 31\n mov cr0, eax\n mov ebx, [{PAGE}]\n hlt"
    )
    assert frame.vector is None
    assert (bench.cpu.ecx, bench.cpu.edx, bench.cpu.ebx) == (0x22222222, 0x11111111, 0x22222222)


# --- large pages, reserved bits: SDM Vol. 3, "32-Bit Paging" ---


def test_4_mib_pages() -> None:
    bench = paged(cr4=PSE)
    bench.write32(DIRECTORY + 8, PRESENT | WRITABLE | LARGE)  # 800000h to physical 0
    bench.write32(0x54320, 0x600DCAFE)
    assert read_page(bench, 0x854320) == 0x600DCAFE
    assert bench.fault("mov [854324h], eax") is None
    assert bench.read32(0x54324) == 0x600DCAFE
    assert bench.read32(DIRECTORY + 8) & (ACCESSED | DIRTY) == ACCESSED | DIRTY


def test_large_bit_needs_pse() -> None:
    """Without CR4.PSE the bit is ignored: the entry names a page table."""
    bench = paged()
    bench.write32(DIRECTORY + 8, TABLES | PRESENT | WRITABLE | LARGE)
    bench.write32(0x54320, 0x600DCAFE)
    assert read_page(bench, 0x854320) == 0x600DCAFE


def test_reserved_bit_of_a_large_page() -> None:
    """SDM Vol. 3, "32-Bit Paging": bit 21 of an entry for a 4 MiB page is reserved."""
    bench = paged(cr4=PSE)
    bench.write32(DIRECTORY + 8, PRESENT | WRITABLE | LARGE | 1 << 21)
    assert bench.fault("mov eax, [854320h]") == (PF, P | RSVD)


def test_invlpg_of_a_large_page() -> None:
    bench = paged(cr4=PSE)
    bench.write32(DIRECTORY + 8, PRESENT | WRITABLE | LARGE)
    bench.write32(0x50000, 1)
    bench.write32(0x60000, 2)
    assert read_page(bench, 0x850000) == 1
    assert read_page(bench, 0x860000) == 2
    bench.write32(DIRECTORY + 8, 0)
    assert bench.fault("invlpg [850000h]") is None
    assert bench.fault("mov eax, [860000h]") == (PF, 0)


# --- PAE: SDM Vol. 3, "PAE Paging" ---


def pae() -> Bench:
    bench = Bench("raise")
    bench.write32(0x50000, 0x51000 | PRESENT, 0, 0, 0, 0, 0, 0, 0)
    bench.write32(0x51000, PRESENT | WRITABLE | USER | LARGE, 0, 0x52000 | PRESENT | WRITABLE | USER, 0)
    bench.write32(0x52000, *(word for page in range(512) for word in (page % 256 << 12 | PRESENT | WRITABLE, 0)))
    bench.cpu.cr4 = PAE
    bench.cpu.cr3 = 0x50000
    bench.cpu.cr0 = bench.cpu.cr0 | 0x80000000
    return bench


def test_pae_translation() -> None:
    bench = pae()
    bench.write32(0x54320, 0x600DCAFE)
    assert read_page(bench, 0x54320) == 0x600DCAFE  # a 2 MiB page
    assert read_page(bench, 0x254320) == 0x600DCAFE  # a table
    assert bench.fault("mov eax, [40000000h]") == (PF, 0)  # no page-directory-pointer-table entry


def test_pae_reserved_bits() -> None:
    bench = pae()
    bench.write32(0x52000 + 0x30 * 8 + 4, 0x80000000)  # XD without EFER.NXE
    assert bench.fault("mov eax, [230000h]") == (PF, P | RSVD)
    bench.write32(0x51000 + 4, 1 << 20)  # above the physical address width
    bench.cpu.cr3 = 0x50000
    bench.write32(0x51000 + 16, 0x52000 | PRESENT | LARGE | 0x2000)
    assert bench.fault("mov eax, [254320h]") is not None


def test_pdptes_are_read_by_mov_cr3_alone() -> None:
    """SDM Vol. 3, "PDPTE Registers": they are loaded by MOV to CR3, which is #GP(0) where reserved bits are set."""
    bench = pae()
    bench.write32(0x50008, 0x51000 | PRESENT)
    assert bench.fault("mov eax, [40054320h]") == (PF, 0)
    bench.cpu.ecx = 0x50000
    assert bench.fault("mov cr3, ecx") is None
    assert bench.fault("mov eax, [40054320h]") is None
    bench.write32(0x50010, 0x51000 | PRESENT | WRITABLE)
    assert bench.fault("mov cr3, ecx") == (GP, 0)


# --- priorities: SDM Vol. 3, "Prioritization of Concurrent Events" ---


def test_segment_checks_come_before_page_faults() -> None:
    bench = paged()
    bench.set_descriptor(0x50, descriptor(0, 0x2FFFF, 0x92, 4))
    bench.cpu.es.load(0x50)
    bench.set_page(PAGE, 0)
    assert bench.fault(f"mov eax, [es:{PAGE}]") == (GP, 0)
    bench.cpu.ss.limit = 0x2FFFF
    bench.cpu.ebp = PAGE
    assert bench.fault("mov eax, [ebp]") == (SS, 0)


def test_page_fault_of_the_gdt() -> None:
    """The descriptor's page is missing: #PF of a supervisor's read, of CPL 3 too."""
    bench = paged(3)
    bench.set_page(0x1000, 0)
    bench.cpu.eax = 0x23
    assert bench.fault("mov es, ax") == (PF, 0)


# --- code: pages and modification ---


def test_instruction_across_pages() -> None:
    """The second part of an instruction comes from wherever the second page is mapped."""
    bench = paged()
    bench.set_page(0x31000, 0x35000 | PRESENT)
    code = b"\xb8\x44\x33\x22\x11"  # MOV EAX, 11223344h
    bench.cpu.memory.write(0x30FFE, code[:2])
    bench.cpu.memory.write(0x35000, code[2:])
    bench.cpu.rip = 0x30FFE
    bench.cpu.step()
    assert (bench.cpu.eax, bench.cpu.rip) == (0x11223344, 0x31003)


@pytest.mark.parametrize("split", [1, 2, 3, 4])
def test_instruction_into_a_missing_page(split: int) -> None:
    bench = paged()
    bench.set_page(0x31000, 0)
    bench.cpu.memory.write(0x31000 - split, b"\xb8\x44\x33\x22"[:split])
    bench.cpu.rip = 0x31000 - split
    with pytest.raises(emu.CpuFault) as caught:
        bench.cpu.step()
    assert (caught.value.vector, caught.value.address, caught.value.rip) == (PF, 0x31000, 0x31000 - split)


def test_no_fault_for_the_page_behind_an_instruction() -> None:
    """An instruction that ends with its page does not touch the next one."""
    bench = paged()
    bench.set_page(0x31000, 0)
    bench.cpu.memory.write(0x30FFF, b"\x40")
    bench.cpu.rip, bench.cpu.eax = 0x30FFF, 1
    bench.cpu.step()
    assert (bench.cpu.eax, bench.cpu.rip) == (2, 0x31000)


def test_code_modified_ahead_in_its_block() -> None:
    """SDM Vol. 3, "Self-Modifying Code": the store is seen by the very next instruction."""
    bench = Bench()
    bench.run("mov byte [target], 43h\ntarget: inc ecx\n hlt")  # INC ECX becomes INC EBX
    assert (bench.cpu.ecx, bench.cpu.ebx) == (0, 1)


def test_code_modified_in_a_loop() -> None:
    bench = Bench()
    bench.run("mov ecx, 100\n xor eax, eax\nagain: add eax, 1\n inc byte [again + 2]\n loop again\n hlt")
    assert bench.cpu.eax == sum(range(1, 101))


@pytest.mark.parametrize("paging", [False, True])
def test_code_modified_by_a_string_instruction(paging: bool) -> None:
    bench = paged(faults="deliver") if paging else Bench()
    bench.run(
        "xor edx, edx\n mov edi, target\n mov al, 43h\n mov ecx, 4\n cld\n rep stosb\ntarget: times 4 inc edx\n hlt"
    )
    assert (bench.cpu.edx, bench.cpu.ebx) == (0, 4)


def test_code_written_through_another_mapping() -> None:
    """Two linear pages name one physical page; code runs in one and is written in the other."""
    bench = paged(faults="deliver")
    bench.set_page(PAGE, CODE | PRESENT | WRITABLE)
    bench.place(f"call f\n mov byte [{PAGE} + f - {CODE}], 43h\n call f\n hlt\nf: inc ecx\n ret")
    assert bench.go_on().vector is None
    assert (bench.cpu.ecx, bench.cpu.ebx) == (1, 1)


def test_code_of_a_remapped_page() -> None:
    """The same linear address names other code after INVLPG."""
    bench = paged(faults="deliver")
    bench.cpu.memory.write(0x35000, b"\x41\xc3")  # INC ECX, RET
    bench.cpu.memory.write(0x36000, b"\x43\xc3")  # INC EBX, RET
    bench.set_page(PAGE, 0x35000 | PRESENT)
    frame = bench.run(
        f"call {PAGE}\n mov dword [{TABLES + (PAGE >> 12) * 4}], 36001h\n invlpg [{PAGE}]\n call {PAGE}\n hlt"
    )
    assert frame.vector is None
    assert (bench.cpu.ecx, bench.cpu.ebx) == (1, 1)


def test_code_at_two_linear_addresses() -> None:
    """Position-dependent values of one physical page's code follow the linear address that it runs at."""
    bench = paged(faults="deliver")
    bench.cpu.memory.write(0x35000, b"\xe8\0\0\0\0\x58\xc3")  # CALL $+5, POP EAX, RET
    bench.set_page(PAGE, 0x35000 | PRESENT | WRITABLE)
    bench.run(f"call {PAGE}\n mov ecx, eax\n call 35000h\n mov edx, eax\n call {PAGE}\n hlt")
    assert (bench.cpu.ecx, bench.cpu.edx, bench.cpu.eax) == (PAGE + 5, 0x35005, PAGE + 5)


def test_code_changed_from_outside() -> None:
    """What the host writes to memory is executed too."""
    bench = Bench()
    bench.run("inc ecx\n hlt")
    bench.cpu.memory.write(CODE, b"\x43")
    bench.cpu.rip = CODE
    bench.go_on()
    assert (bench.cpu.ecx, bench.cpu.ebx) == (1, 1)
    assert DATA > CODE
