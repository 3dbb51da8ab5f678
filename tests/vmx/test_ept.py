"""Extended page tables, VPID and what is cached. SDM Vol. 3, "The Extended Page Table Mechanism (EPT)", "Caching
Translation Information"."""

import struct
from collections.abc import Mapping

import pytest
from vmm import EPT, GUEST, GUEST_TABLES, Bench, ept_tables, real_mode, secondary

Changes = Mapping[str, int]
EPT_ON = secondary("ENABLE_EPT")
R, W, X, UC, WB = 1, 2, 4, 0 << 3, 6 << 3
PAGE = 0x180000  # a guest-physical page of its own in these tests
LEAF = EPT + 0x3000 + 8 * (PAGE >> 12)
MAPPED = ept_tables(large=False)


def bench_with(leaf: int, place: int = LEAF) -> Bench:
    """A bench whose EPT has pages of 4 KiB, with one entry replaced."""
    bench = Bench()
    for address, content in MAPPED.items():
        bench.cpu.memory.write(address, content)
    bench.cpu.memory.write(place, leaf.to_bytes(8, "little"))
    bench.cpu.memory.write(PAGE, b"\x0f\x01\xc1")  # VMCALL
    return bench


ACCESSES = {"read": f"mov eax, [{PAGE}]", "write": f"mov [{PAGE}], eax", "fetch": f"mov eax, {PAGE}\njmp eax"}
WANTED = {"read": R, "write": W, "fetch": X}


@pytest.mark.parametrize("access", ACCESSES)
@pytest.mark.parametrize("rights", [0, R, X, R | W, R | X, R | W | X])
def test_rights_and_the_qualification_of_violations(access: str, rights: int) -> None:
    bench = bench_with(PAGE | WB | rights if rights else 0)
    reason = bench.exit(ACCESSES[access] + "\nvmcall", EPT_ON)
    if rights & WANTED[access]:
        assert reason == "VMCALL"
        return
    assert reason == "EPT_VIOLATION"
    # The access; what the entries allow; the linear address is valid, and it is the access and not a walk.
    assert bench["EXIT_QUALIFICATION"] == WANTED[access] | rights << 3 | 0x180
    assert bench["GUEST_PHYSICAL_ADDRESS"] == bench["GUEST_LINEAR_ADDRESS"] == PAGE
    assert bench["GUEST_RIP"] == (PAGE if access == "fetch" else GUEST)


def test_a_read_modify_write_is_a_write_and_a_read() -> None:
    bench = bench_with(PAGE | WB | R)
    assert bench.exit(f"inc dword [{PAGE}]", EPT_ON) == "EPT_VIOLATION"
    assert bench["EXIT_QUALIFICATION"] & 2 and bench.cpu.memory.read(PAGE, 3) == b"\x0f\x01\xc1"


def test_rights_are_those_of_every_level() -> None:
    bench = bench_with((EPT + 0x3000) | R, EPT + 0x2000)
    bench.cpu.memory.write(GUEST_TABLES, b"\xa3")  # accessed already
    assert bench.exit("nop", EPT_ON) == "EPT_VIOLATION"
    assert bench["EXIT_QUALIFICATION"] == X | R << 3 | 0x180


@pytest.mark.parametrize("what", ["table", "accessed"])
def test_violations_in_the_walk_of_the_guest_s_tables(what: str) -> None:
    """Bit 8 is clear; setting an accessed flag is a read and a write in one."""
    table = EPT + 0x3000 + 8 * (GUEST_TABLES >> 12)
    bench = bench_with(0 if what == "table" else GUEST_TABLES | WB | R, table)
    assert bench.exit("nop", EPT_ON) == "EPT_VIOLATION"
    assert bench["EXIT_QUALIFICATION"] == (R | 0x80 if what == "table" else R | W | R << 3 | 0x80)
    assert bench["GUEST_PHYSICAL_ADDRESS"] == GUEST_TABLES and bench["GUEST_LINEAR_ADDRESS"] == GUEST


@pytest.mark.parametrize("entry", [
    PAGE | WB | W, PAGE | WB | W | X,  # writable, not readable
    PAGE | R | 2 << 3, PAGE | R | 3 << 3, PAGE | R | 7 << 3,  # memory types that do not exist
    1 << 45 | WB | R,  # past the physical-address width
])  # fmt: skip
def test_misconfigurations(entry: int) -> None:
    bench = bench_with(entry)
    assert bench.exit(f"mov eax, [{PAGE}]", EPT_ON) == "EPT_MISCONFIGURATION"
    assert bench["GUEST_PHYSICAL_ADDRESS"] == PAGE


@pytest.mark.parametrize(("place", "entry"), [
    (EPT, (EPT + 0x1000) | 0x87),  # PML4E with bit 7
    (EPT, (EPT + 0x1000) | 0x0F),  # reserved bits of an entry that refers to a table
    (EPT + 0x1000, (EPT + 0x2000) | 0x0F),
    (EPT + 0x2000, (EPT + 0x3000) | 0x47),
    (EPT + 0x2000, 0x1000 | 0xB7),  # a page of 2 MiB that is not aligned
    (EPT + 0x1000, 0x200000 | 0xB7),  # a page of 1 GiB that is not aligned
])  # fmt: skip
def test_misconfigured_tables(place: int, entry: int) -> None:
    bench = bench_with(entry, place)
    assert bench.exit("nop", EPT_ON) == "EPT_MISCONFIGURATION"


def test_pages_of_2_mib_and_of_1_gib() -> None:
    bench = Bench()
    assert bench.exit(f"mov eax, [{PAGE}]\nvmcall", EPT_ON) == "VMCALL"
    bench.cpu.memory.write(EPT + 0x1000, (0xB7).to_bytes(8, "little"))
    assert bench.exit(f"mov eax, [{PAGE}]\nvmcall", EPT_ON) == "VMCALL"
    # Nehalem has no pages of 1 GiB.
    bench = Bench("nehalem")
    bench.cpu.memory.write(EPT + 0x1000, (0xB7).to_bytes(8, "little"))
    assert bench.exit("nop", EPT_ON) == "EPT_MISCONFIGURATION"


def test_another_page_stands_for_the_guest_s() -> None:
    bench = bench_with((PAGE + 0x1000) | WB | R | W)
    bench.cpu.memory.write(PAGE + 0x1000, b"\x78\x56\x34\x12")
    assert bench.exit(f"mov eax, [{PAGE}]\nmov byte [{PAGE}], 9\nvmcall", EPT_ON) == "VMCALL"
    assert bench.cpu.eax == 0x12345678
    assert bench.cpu.memory.read(PAGE + 0x1000, 1) == b"\x09" and bench.cpu.memory.read(PAGE, 1) == b"\x0f"


def test_paging_off_goes_through_ept() -> None:
    bench = bench_with((PAGE + 0x1000) | WB | R)
    bench.cpu.memory.write(PAGE + 0x1000, b"\x78\x56")
    wide = {"GUEST_DS_LIMIT": 0xFFFFFFFF, "GUEST_DS_ACCESS_RIGHTS": 0x8093}
    assert bench.exit(f"mov esi, {PAGE}\nmov ax, [esi]\nvmcall", real_mode(), wide, bits=16) == "VMCALL"
    assert bench.cpu.eax & 0xFFFF == 0x5678


CHANGE = "mov eax, [0x180000]\nvmcall\nmov eax, [0x180000]\nvmcall"


def second(bench: Bench, changes: Changes, between: str) -> int:
    """A guest reads the page, exits, the VMM changes the EPT entry and does `between`; what the guest reads next."""
    bench.cpu.memory.write(PAGE + 0x1000, b"\x11\x11\x11\x11")
    assert bench.exit(CHANGE, changes) == "VMCALL"
    bench.cpu.memory.write(0xB000, (EPT | 0x1E).to_bytes(16, "little"))
    bench.cpu.memory.write(0xB010, (1).to_bytes(16, "little"))
    bench.cpu.memory.write(0xB030, (EPT | 0x18).to_bytes(16, "little"))
    new = (PAGE + 0x1000) | WB | R
    bench.run(f"mov dword [{LEAF}], {new}\n{between}")
    bench.set({"GUEST_RIP": bench["GUEST_RIP"] + 3})
    bench.enter(resume=True)
    assert bench.reason == "VMCALL"
    return int(bench.cpu.eax)


def test_vpid_keeps_translations_and_invept_forgets_them() -> None:
    """Without an invalidation the old translation may be used, and is; without VPID a VM entry forgets."""
    old, new = 0x00C1010F, 0x11111111
    tagged = secondary("ENABLE_EPT", "ENABLE_VPID")
    assert second(bench_with(PAGE | WB | R), tagged, "") == old
    assert second(bench_with(PAGE | WB | R), EPT_ON, "") == new
    # INVEPT asks for the address in the EPT pointer; B030h has the same one with another memory type.
    for text in ("mov eax, 1\ninvept eax, [0xb000]", "mov eax, 1\ninvept eax, [0xb030]",
                 "mov eax, 2\ninvept eax, [0xb000]",
                 "mov eax, 1\ninvvpid eax, [0xb010]", "mov eax, 2\ninvvpid eax, [0xb010]"):  # fmt: skip
        assert second(bench_with(PAGE | WB | R), tagged, text) == new, text


@pytest.mark.parametrize("address", [0x180000, 0x181000, 0x580000])
def test_invvpid_of_an_address_forgets_that_one_alone(address: int) -> None:
    """SDM Vol. 2, "INVVPID": the others may be forgotten too, and are not where no page is large, as without
    paging; 580000h shares a slot of the TLB."""
    bench = bench_with(PAGE | WB | R)
    bench.cpu.memory.write(0xB020, struct.pack("<QQ", 1, address))
    expected = 0x11111111 if address == 0x180000 else 0x00C1010F
    tagged = secondary("ENABLE_EPT", "ENABLE_VPID", "UNRESTRICTED_GUEST") | {"GUEST_CR0": 0x31}
    assert second(bench, tagged, "xor eax, eax\ninvvpid eax, [0xb020]") == expected


def test_a_guest_of_many_vpids() -> None:
    """More address spaces than the processor keeps apart: each sees its own memory all the same."""
    bench = Bench()
    for vpid in [*range(1, 21), *range(1, 21)]:
        bench.cpu.memory.write(PAGE, vpid.to_bytes(4, "little"))
        changes = secondary("ENABLE_EPT", "ENABLE_VPID") | {"VIRTUAL_PROCESSOR_IDENTIFIER": vpid}
        assert bench.exit(f"mov eax, [{PAGE}]\nvmcall", changes) == "VMCALL"
        assert bench.cpu.eax == vpid


def test_code_that_the_vmm_writes_is_decoded_anew() -> None:
    bench = Bench()
    changes = secondary("ENABLE_EPT", "ENABLE_VPID")
    assert bench.exit("mov ebx, 1\nvmcall", changes) == "VMCALL" and bench.cpu.ebx == 1
    bench.run(f"mov byte [{GUEST + 1}], 2")
    bench.set({"GUEST_RIP": GUEST})
    bench.enter(resume=True)
    assert bench.reason == "VMCALL" and bench.cpu.ebx == 2


def test_a_debugger_looks_through_ept() -> None:
    bench = bench_with((PAGE + 0x1000) | WB | R)
    bench.guest("jmp $")
    bench.prepare(EPT_ON)
    bench.enter(limit=50)
    assert bench.cpu.vmx_operation == "non-root"
    assert bench.cpu.translate(PAGE) == PAGE + 0x1000 and bench.cpu.translate(0x300000) is None
