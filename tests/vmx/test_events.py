"""Exceptions, interrupts, injection, windows, and what is saved about them.

SDM Vol. 3, "Exceptions, Interrupts and VM Exits", "Event Injection", "Information for VM Exits Due to Vectored Events".
"""

from collections.abc import Mapping

import pytest
from vmm import GUEST, GUEST_HANDLERS, GUEST_IDT, GUEST_STACK, GUEST_TABLES, Bench, pin, primary, real_mode, secondary

import emu
from emu.chips.i8259 import I8259

Changes = Mapping[str, int]
INFO = "VM_ENTRY_INTERRUPTION_INFORMATION_FIELD"
VALID, CODE = 1 << 31, 0x800
VNMI = pin("NMI_EXITING", "VIRTUAL_NMIS")


def bitmap(*vectors: int) -> Changes:
    return {"EXCEPTION_BITMAP": sum(1 << vector for vector in vectors)}


EXCEPTIONS: list[tuple[str, int, int, int | None, int]] = [
    # text, vector, type, error code, length of a software exception
    ("xor ecx, ecx\ndiv ecx", 0, 3, None, 0),
    ("int1", 1, 5, None, 1),
    ("int3", 3, 6, None, 1),
    ("mov al, 0x7f\ninc al\ninto", 4, 6, None, 1),
    ("ud2", 6, 3, None, 0),
    ("mov eax, 0x28\nmov ds, eax", 11, 3, 0x28, 0),
    ("mov eax, 0x30\nmov ss, eax", 13, 3, 0x30, 0),
    ("mov eax, [0x400123]", 14, 3, 0, 0),
    ("mov [0x400123], eax", 14, 3, 2, 0),
]


@pytest.mark.parametrize(("text", "vector", "kind", "error", "length"), EXCEPTIONS)
def test_the_exception_bitmap(text: str, vector: int, kind: int, error: int | None, length: int) -> None:
    bench = Bench()
    bench.cpu.memory.write(0x4028, (0x0000_4000_0000_0000 | 0x93 << 40 & ~(0x80 << 40)).to_bytes(8, "little"))
    limit = {"GUEST_GDTR_LIMIT": 0x2F}
    if vector == 11:
        bench.cpu.memory.write(0x4028, (0x13 << 40).to_bytes(8, "little"))
    assert bench.exit(text, bitmap(vector), limit) == "EXCEPTION_OR_NMI"
    info = VALID | kind << 8 | vector | (CODE if error is not None else 0)
    assert bench["VM_EXIT_INTERRUPTION_INFORMATION"] == info
    if error is not None:
        assert bench["VM_EXIT_INTERRUPTION_ERROR_CODE"] == error
    assert bench["IDT_VECTORING_INFORMATION_FIELD"] == 0
    assert bench["GUEST_RFLAGS"] >> 16 & 1 == (kind == 3)  # RF as the frame would have it: a fault's is set
    if length:
        assert bench["VM_EXIT_INSTRUCTION_LENGTH"] == length
    if vector == 14:
        assert bench["EXIT_QUALIFICATION"] == 0x400123 and bench.cpu.cr2 == 0
    # Without the bit the guest's own handler runs.
    other = Bench()
    if vector == 11:
        other.cpu.memory.write(0x4028, (0x13 << 40).to_bytes(8, "little"))
    other.guest(text)
    other.prepare(limit)
    other.enter()
    assert other.guest_vector == vector


@pytest.mark.parametrize(
    ("mask", "match", "exits"), [(0, 0, True), (0, 1, False), (2, 2, True), (2, 0, False), (1, 1, False), (3, 2, True)]
)
def test_page_fault_error_code_mask_and_match(mask: int, match: int, exits: bool) -> None:
    """A write to a page that is not present: error code 2. Where bit 14 is 0 the outcome is the opposite."""
    for bit in (0, 1):
        bench = Bench()
        bench.guest("mov [0x400000], eax")
        bench.prepare(
            {"EXCEPTION_BITMAP": bit << 14, "PAGE_FAULT_ERROR_CODE_MASK": mask, "PAGE_FAULT_ERROR_CODE_MATCH": match}
        )
        bench.enter()
        assert bench.exited is (exits == bool(bit))


def test_int_n_is_not_intercepted() -> None:
    bench = Bench()
    bench.guest("int 6")
    bench.prepare({"EXCEPTION_BITMAP": 0xFFFFFFFF})
    bench.enter()
    assert bench.guest_vector == 6


def test_idt_vectoring_information() -> None:
    """A fault during delivery: what was being delivered, with its type and error code."""
    bench = Bench()
    bench.cpu.memory.write(GUEST_IDT + 8 * 6, bytes(8))
    assert bench.exit("ud2", bitmap(13)) == "EXCEPTION_OR_NMI"
    assert bench["VM_EXIT_INTERRUPTION_INFORMATION"] == VALID | CODE | 0x30D
    assert bench["VM_EXIT_INTERRUPTION_ERROR_CODE"] == 6 * 8 + 3
    assert bench["IDT_VECTORING_INFORMATION_FIELD"] == VALID | 0x306
    bench = Bench()
    bench.cpu.memory.write(GUEST_IDT + 8 * 6, bytes(8))
    assert bench.exit("int 6", bitmap(13)) == "EXCEPTION_OR_NMI"
    assert bench["IDT_VECTORING_INFORMATION_FIELD"] == VALID | 0x406 and bench["VM_EXIT_INSTRUCTION_LENGTH"] == 2
    assert bench["VM_EXIT_INTERRUPTION_ERROR_CODE"] == 6 * 8 + 2
    # A double fault that is wanted is like an event that exits at once.
    bench = Bench()
    bench.cpu.memory.write(GUEST_IDT, bytes(8))
    bench.cpu.memory.write(GUEST_IDT + 8 * 13, bytes(8))
    assert bench.exit("xor ecx, ecx\ndiv ecx", bitmap(8)) == "EXCEPTION_OR_NMI"
    assert bench["VM_EXIT_INTERRUPTION_INFORMATION"] == VALID | CODE | 0x308
    assert bench["IDT_VECTORING_INFORMATION_FIELD"] == 0
    # The second of two exceptions that would make a double or a triple fault is asked for first.
    for text in ("xor ecx, ecx\ndiv ecx", "mov eax, [0x400123]"):
        for first in (0, 14):
            bench.cpu.memory.write(GUEST_IDT + 8 * first, bytes(8))
        assert bench.exit(text, bitmap(13)) == "EXCEPTION_OR_NMI"
        assert bench["VM_EXIT_INTERRUPTION_INFORMATION"] == VALID | CODE | 0x30D
        assert bench["IDT_VECTORING_INFORMATION_FIELD"] & ~CODE in (VALID | 0x300, VALID | 0x30E)


def test_an_ept_violation_during_delivery() -> None:
    bench = Bench()
    changes = secondary("ENABLE_EPT") | {"GUEST_IDTR_BASE": 0x300000}
    assert bench.exit("int3", changes) == "EPT_VIOLATION"
    assert bench["IDT_VECTORING_INFORMATION_FIELD"] == VALID | 0x603 and bench["VM_EXIT_INSTRUCTION_LENGTH"] == 1
    assert bench["GUEST_PHYSICAL_ADDRESS"] == 0x300018


INJECTIONS = [
    (0x030, None, 0),  # external interrupt
    (0x202, None, 0),  # NMI
    (0x306, None, 0),
    (0x30D, 0x1234, 0),
    (0x30E, 7, 0),
    (0x421, None, 2),  # INT n
    (0x501, None, 1),  # INT1
    (0x603, None, 1),
    (0x604, None, 1),
]


@pytest.mark.parametrize(("info", "error", "length"), INJECTIONS)
def test_injection(info: int, error: int | None, length: int) -> None:
    """SDM Vol. 3, "Vectored-Event Injection": pushes the RIP after a software event, the error code; asks no bitmap."""
    bench = Bench()
    vector = info & 0xFF
    entry = (GUEST_HANDLERS + vector & 0xFFFF) | 8 << 16 | 0x8E << 40 | (GUEST_HANDLERS >> 16) << 48
    bench.cpu.memory.write(GUEST_IDT + 8 * vector, entry.to_bytes(8, "little"))
    bench.cpu.memory.write(GUEST_HANDLERS + vector, b"\xf4")
    changes = {INFO: VALID | info | (CODE if error is not None else 0), "EXCEPTION_BITMAP": 0xFFFFFFFF}
    changes |= {
        "VM_ENTRY_EXCEPTION_ERROR_CODE": error or 0,
        "VM_ENTRY_INSTRUCTION_LENGTH": length,
        "GUEST_RFLAGS": 0x202,
    }
    assert bench.exit("nop", changes, primary("HLT_EXITING")) == "HLT"
    assert bench["GUEST_RIP"] == GUEST_HANDLERS + vector
    words = 4 if error is not None else 3
    assert bench["GUEST_RSP"] == GUEST_STACK - 4 * words
    frame = [int.from_bytes(bench.cpu.memory.read(bench["GUEST_RSP"] + 4 * n, 4), "little") for n in range(words)]
    if error is not None:
        assert frame.pop(0) == error
    assert frame[0] == GUEST + length and frame[1] == 8 and frame[2] & 0x202 == 0x202
    assert not bench[INFO] & VALID  # cleared by the exit
    assert bool(bench["GUEST_INTERRUPTIBILITY_STATE"] & 8) == (info == 0x202)


RF = 1 << 16


@pytest.mark.parametrize("info", [0x030, 0x202, 0x301, 0x306, 0x421, 0x501, 0x603])
@pytest.mark.parametrize("rf", [0, RF])
def test_injection_pushes_rf_as_it_is_and_leaves_the_debug_registers(info: int, rf: int) -> None:
    """SDM Vol. 3, "Details of Vectored-Event Injection"."""
    bench = Bench()
    vector = info & 0xFF
    entry = (GUEST_HANDLERS + vector & 0xFFFF) | 8 << 16 | 0x8E << 40 | (GUEST_HANDLERS >> 16) << 48
    bench.cpu.memory.write(GUEST_IDT + 8 * vector, entry.to_bytes(8, "little"))
    bench.cpu.memory.write(GUEST_HANDLERS + vector, b"\xf4")
    debug = {"+VM_ENTRY_CONTROLS": 4, "+VM_EXIT_CONTROLS": 4, "GUEST_DR7": 0x2400}
    changes = {INFO: VALID | info, "VM_ENTRY_INSTRUCTION_LENGTH": 1, "GUEST_RFLAGS": 0x202 | rf}
    assert bench.exit("nop", changes, debug, primary("HLT_EXITING")) == "HLT"
    assert int.from_bytes(bench.cpu.memory.read(bench["GUEST_RSP"] + 8, 4), "little") & RF == rf
    assert bench["GUEST_DR7"] == 0x2400 and bench.cpu.dr6 == 0xFFFF0FF0
    # An exit during the delivery saves RF as it would have been pushed; of an exception that exits it is set.
    broken = {"GUEST_IDTR_LIMIT": 8 * vector + 3}
    assert bench.exit("nop", changes, debug, broken, bitmap(13)) == "EXCEPTION_OR_NMI"
    assert bench["GUEST_RFLAGS"] & RF and bench["IDT_VECTORING_INFORMATION_FIELD"] == VALID | info
    changes |= secondary("ENABLE_EPT") | {"GUEST_IDTR_BASE": 0x300000}
    assert bench.exit("nop", changes, debug) == "EPT_VIOLATION"
    assert bench["GUEST_RFLAGS"] & RF == rf


@pytest.mark.parametrize("state", [1, 2])
def test_nothing_blocks_where_an_event_is_injected(state: int) -> None:
    """SDM Vol. 3, "Interruptibility State" of VM entry."""
    bench = Bench()
    changes = {INFO: VALID | 0x306, "GUEST_INTERRUPTIBILITY_STATE": state, "GUEST_RFLAGS": 0x202}
    assert bench.exit("nop", changes, bitmap(13), {"GUEST_IDTR_LIMIT": 8}) == "EXCEPTION_OR_NMI"
    assert bench["GUEST_INTERRUPTIBILITY_STATE"] == 0


# Segment 800h of the 8086 program, whose own interrupt handlers are at 9000h.
V86 = {
    f"GUEST_{name}_{what}": value
    for name in ("ES", "CS", "SS", "DS", "FS", "GS")
    for what, value in (("SELECTOR", 0x800), ("BASE", 0x8000), ("LIMIT", 0xFFFF), ("ACCESS_RIGHTS", 0xF3))
}
V86 |= {"GUEST_TR_BASE": 0x9800, "GUEST_RIP": 0x10, "GUEST_RSP": 0x7000, "VM_ENTRY_INSTRUCTION_LENGTH": 2}


@pytest.mark.parametrize("iopl", [0, 3])
@pytest.mark.parametrize("vme", [False, True])
@pytest.mark.parametrize("redirected", [False, True])
@pytest.mark.parametrize("event", [0x421, 0x021, 0x603])
def test_injection_into_virtual_8086_mode(event: int, redirected: bool, vme: bool, iopl: int) -> None:
    """SDM Vol. 3, "Details of Vectored-Event Injection": VME redirects software interrupts; IOPL is not asked."""
    bench = Bench()
    vector, write = event & 0xFF, bench.cpu.memory.write
    handler = 0x2B000
    gate = (handler & 0xFFFF) | 8 << 16 | 0xEE << 40 | (handler >> 16) << 48
    write(GUEST_IDT + 8 * vector, gate.to_bytes(8, "little"))
    write(GUEST_TABLES, b"\x87")  # the 8086 program's too
    write(4 * vector, b"\x00\x00\x00\x09")
    for address in (handler, 0x9000):
        write(address, b"\x0f\x01\xc1")
    tss = 0x9800
    write(tss, bytes(0x100))
    write(tss + 4, (GUEST_STACK).to_bytes(4, "little") + (0x10).to_bytes(4, "little"))
    write(tss + 102, (0x88).to_bytes(2, "little"))
    write(tss + 0x68, (b"\0" if redirected else b"\xff") * 32 + b"\xff")
    vif = 1 << 19
    changes = V86 | {"GUEST_TR_LIMIT": 0x88, "GUEST_RFLAGS": 0x20202 | vif | iopl << 12, INFO: VALID | event}
    assert bench.exit("nop", changes, {"+GUEST_CR4": int(vme)}) == "VMCALL"
    if vme and redirected and event == 0x421:
        assert bench["GUEST_CS_SELECTOR"] == 0x900 and bench["GUEST_RIP"] == 0 and bench["GUEST_RSP"] == 0x6FFA
        frame = [int.from_bytes(bench.cpu.memory.read(0x8000 + 0x6FFA + 2 * n, 2), "little") for n in range(3)]
        assert frame == [0x12, 0x800, 0x3202]
        assert bench["GUEST_RFLAGS"] & (vif | 0x200) == (0x200 if iopl < 3 else vif)
    else:
        assert bench["GUEST_CS_SELECTOR"] == 8 and bench["GUEST_RIP"] == handler
        assert bench["GUEST_RSP"] == GUEST_STACK - 36


def test_a_vme_bit_map_that_cannot_be_read_is_an_exit_during_delivery() -> None:
    bench = Bench()
    bench.cpu.memory.write(0x9800 + 102, (0x88).to_bytes(2, "little"))
    changes = V86 | {"GUEST_RFLAGS": 0x20002, INFO: VALID | 0x421, "+GUEST_CR4": 1}
    assert bench.exit("nop", changes, bitmap(13)) == "EXCEPTION_OR_NMI"
    assert bench["VM_EXIT_INTERRUPTION_INFORMATION"] == VALID | CODE | 0x30D
    assert bench["IDT_VECTORING_INFORMATION_FIELD"] == VALID | 0x421 and bench["VM_EXIT_INSTRUCTION_LENGTH"] == 2


def test_a_fault_in_the_delivery_of_an_injected_event() -> None:
    bench = Bench()
    bench.cpu.memory.write(GUEST_IDT + 8 * 6, bytes(8))
    assert bench.exit("nop", bitmap(13), {INFO: VALID | 0x306}) == "EXCEPTION_OR_NMI"
    assert bench["IDT_VECTORING_INFORMATION_FIELD"] == VALID | 0x306
    assert bench["VM_EXIT_INTERRUPTION_INFORMATION"] == VALID | CODE | 0x30D and bench["GUEST_RIP"] == GUEST


@pytest.mark.parametrize(
    ("code", "idt_limit", "vector", "vectoring"),
    [
        ("mov eax, [0xfffe]", 0x3FF, 13, 0),
        ("mov sp, 1\npush eax", 0x3FF, 12, 0),
        ("int 0x21", 0x40, 13, VALID | 0x421),
        ("mov eax, [0xfffe]", 0x2F, 8, 0),  # neither #GP nor the #GP of its delivery has an entry
    ],
)
def test_exceptions_in_real_address_mode_have_no_error_code(
    code: str, idt_limit: int, vector: int, vectoring: int
) -> None:
    """SDM Vol. 3, "Information for VM Exits Due to Vectored Events" and "... During Event Delivery": bit 11 is 0."""
    bench = Bench()
    changes = {"GUEST_IDTR_LIMIT": idt_limit}
    assert bench.exit(code, real_mode(), bitmap(vector), changes, bits=16) == "EXCEPTION_OR_NMI"
    assert bench["VM_EXIT_INTERRUPTION_INFORMATION"] == VALID | 0x300 | vector
    assert bench["IDT_VECTORING_INFORMATION_FIELD"] == vectoring


def test_injection_into_real_address_mode() -> None:
    bench = Bench()
    bench.cpu.memory.write(4 * 0x21, b"\x00\x0d\x00\x00")
    bench.cpu.memory.write(0xD00, b"\xf4")
    changes = {INFO: VALID | 0x421, "VM_ENTRY_INSTRUCTION_LENGTH": 2}
    assert bench.exit("nop", real_mode(), primary("HLT_EXITING"), changes, bits=16) == "HLT"
    assert bench["GUEST_RIP"] == 0xD00 and bench["GUEST_CS_SELECTOR"] == 0
    assert bench.cpu.memory.read(0xFFF0 - 6, 4) == b"\x02\x00\x00\x20"


@pytest.fixture
def wired() -> tuple[Bench, I8259]:
    """A bench with an interrupt controller whose IRQ 0 is vector 30h."""
    bench = Bench()
    pic = I8259(bench.cpu.clock, "pic")
    bench.cpu.bus.map_ports(0x20, 2, pic)
    bench.cpu.interrupt_controller(pic)
    pic.connect("INT", bench.cpu.pins, 0)
    for port, value in ((0x20, 0x13), (0x21, 0x30), (0x21, 1), (0x21, 0xFE)):
        bench.cpu.bus.port_write(port, value)
    return bench, pic


@pytest.mark.parametrize("acknowledge", [False, True])
@pytest.mark.parametrize("flags", [2, 0x202])
def test_external_interrupt_exiting(wired: tuple[Bench, I8259], acknowledge: bool, flags: int) -> None:
    """RFLAGS.IF does not hold the exit off; with "acknowledge interrupt on exit" the vector is saved."""
    bench, pic = wired
    pic.drive(0, 1)
    changes = pin("EXTERNAL_INTERRUPT_EXITING") | {"GUEST_RFLAGS": flags}
    if acknowledge:
        changes |= {"+VM_EXIT_CONTROLS": 1 << 15}
    assert bench.exit("nop\nnop", changes) == "EXTERNAL_INTERRUPT"
    assert bench["VM_EXIT_INTERRUPTION_INFORMATION"] == (VALID | 0x30 if acknowledge else 0)
    assert bench["GUEST_RIP"] == GUEST and bench["GUEST_RFLAGS"] == flags


@pytest.mark.parametrize("acknowledge", [False, True])
def test_an_interrupt_within_a_repeated_instruction_saves_rf(wired: tuple[Bench, I8259], acknowledge: bool) -> None:
    """SDM Vol. 3, "Saving RIP, RSP, RFLAGS, and SSP": as the flags would have been pushed."""
    bench, pic = wired
    bench.cpu.bus.port_write(0x21, 0xFF)
    bench.guest("mov ecx, 10000\nmov edi, 0x24000\nrep stosb")
    changes = pin("EXTERNAL_INTERRUPT_EXITING") | ({"+VM_EXIT_CONTROLS": 1 << 15} if acknowledge else {})
    bench.prepare(changes)
    bench.enter(limit=100)
    pic.drive(0, 1)
    bench.cpu.bus.port_write(0x21, 0xFE)
    bench.cpu.run(instructions=10)
    assert bench.reason == "EXTERNAL_INTERRUPT" and bench["GUEST_RIP"] == GUEST + 10
    assert bench["GUEST_RFLAGS"] & RF


def test_without_it_the_guest_takes_the_interrupt(wired: tuple[Bench, I8259]) -> None:
    bench, pic = wired
    entry = (GUEST_HANDLERS + 0x30 & 0xFFFF) | 8 << 16 | 0x8E << 40 | (GUEST_HANDLERS >> 16) << 48
    bench.cpu.memory.write(GUEST_IDT + 8 * 0x30, entry.to_bytes(8, "little"))
    bench.cpu.memory.write(GUEST_HANDLERS + 0x30, b"\x0f\x01\xc1")
    pic.drive(0, 1)
    assert bench.exit("sti\nnop\nnop\njmp $") == "VMCALL"
    assert bench["GUEST_RIP"] == GUEST_HANDLERS + 0x30


def test_an_interrupt_ends_a_guest_s_halt(wired: tuple[Bench, I8259]) -> None:
    """The activity state that is saved is the one before the exit."""
    bench, pic = wired
    bench.cpu.bus.port_write(0x21, 0xFF)
    bench.guest("hlt")
    bench.prepare(pin("EXTERNAL_INTERRUPT_EXITING"))
    assert bench.enter().reason == "halted" and bench.cpu.vmx_operation == "non-root"
    pic.drive(0, 1)
    bench.cpu.bus.port_write(0x21, 0xFE)
    bench.cpu.run(instructions=10)
    assert bench.reason == "EXTERNAL_INTERRUPT" and bench["GUEST_ACTIVITY_STATE"] == 1


def test_interrupt_window() -> None:
    bench = Bench()
    assert bench.exit("sti\nnop\nnop", primary("INTERRUPT_WINDOW_EXITING")) == "INTERRUPT_WINDOW"
    assert bench["GUEST_RIP"] == GUEST + 2  # the instruction after STI is still held off
    bench = Bench()
    assert bench.exit("nop", primary("INTERRUPT_WINDOW_EXITING"), {"GUEST_RFLAGS": 0x202}) == "INTERRUPT_WINDOW"
    assert bench["GUEST_RIP"] == GUEST


def test_nmi_exiting_and_virtual_nmis() -> None:
    bench = Bench()
    bench.guest("nop\njmp $")
    bench.prepare(pin("NMI_EXITING"))
    bench.cpu.pins.drive(1, 1)
    bench.enter()
    # The NMI was taken by the host, before VMLAUNCH.
    assert bench.vector == 2
    bench = Bench()
    bench.guest("jmp $")
    bench.prepare(pin("NMI_EXITING"))
    bench.enter(limit=100)
    assert bench.cpu.vmx_operation == "non-root"
    bench.cpu.pins.drive(1, 1)
    bench.cpu.run(instructions=100)
    assert bench.reason == "EXCEPTION_OR_NMI" and bench["VM_EXIT_INTERRUPTION_INFORMATION"] == VALID | 0x202


def test_nmi_window() -> None:
    """Opens where virtual-NMI blocking ends: at once, or after IRET."""
    bench = Bench()
    assert bench.exit("nop", VNMI, primary("NMI_WINDOW_EXITING")) == "NMI_WINDOW"
    assert bench["GUEST_RIP"] == GUEST
    bench = Bench()
    blocked = {"GUEST_INTERRUPTIBILITY_STATE": 8}
    text = f"push 2\npush 8\npush {GUEST + 0x40}\niretd\ntimes 0x40-($-$$) nop\nnop"
    assert bench.exit(text, VNMI, primary("NMI_WINDOW_EXITING"), blocked) == "NMI_WINDOW"
    assert bench["GUEST_RIP"] == GUEST + 0x40 and not bench["GUEST_INTERRUPTIBILITY_STATE"] & 8


def test_an_iret_that_faults_after_unblocking_says_so() -> None:
    """SDM Vol. 3, bit 12 of the interruption information: "NMI unblocking due to IRET"."""
    bench = Bench()
    blocked = {"GUEST_INTERRUPTIBILITY_STATE": 8}
    assert bench.exit("mov esp, 0x400000\niretd", VNMI, blocked, bitmap(14)) == "EXCEPTION_OR_NMI"
    assert bench["VM_EXIT_INTERRUPTION_INFORMATION"] == VALID | CODE | 0x1000 | 0x30E


def test_pending_debug_exceptions_and_single_step() -> None:
    bench = Bench()
    pending = {"GUEST_PENDING_DEBUG_EXCEPTIONS": 0x4000, "GUEST_RFLAGS": 0x102}
    assert bench.exit("nop\nnop", pending, bitmap(1)) == "EXCEPTION_OR_NMI"
    assert bench["EXIT_QUALIFICATION"] == 0x4000 and bench["GUEST_RIP"] == GUEST and bench.cpu.dr6 == 0xFFFF0FF0
    bench = Bench()
    assert bench.exit("nop\nnop", {"GUEST_RFLAGS": 0x102}, bitmap(1)) == "EXCEPTION_OR_NMI"
    assert bench["EXIT_QUALIFICATION"] == 0x4000 and bench["GUEST_RIP"] == GUEST + 1
    # After MOV SS they wait: an exit in between saves them.
    bench = Bench()
    assert bench.exit("mov eax, ss\nmov ss, eax\ncpuid", {"GUEST_RFLAGS": 0x2}) == "CPUID"
    assert bench["GUEST_INTERRUPTIBILITY_STATE"] == 2 and bench["GUEST_PENDING_DEBUG_EXCEPTIONS"] == 0
    bench = Bench()
    assert bench.exit("mov eax, ss\npush 0x102\npopfd\nmov ss, eax\ncpuid\nnop") == "CPUID"
    assert bench["GUEST_PENDING_DEBUG_EXCEPTIONS"] == 0x4000 and bench["GUEST_INTERRUPTIBILITY_STATE"] == 2
    after = bench["GUEST_RIP"] + 2
    bench.set({"GUEST_RIP": after} | bitmap(1))
    bench.enter(resume=True)  # what was saved passes the checks of VM entry, and the step ends after one instruction
    assert bench.reason == "EXCEPTION_OR_NMI" and bench["GUEST_RIP"] == after + 1
    assert bench["EXIT_QUALIFICATION"] == 0x4000


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({"GUEST_PENDING_DEBUG_EXCEPTIONS": 0x1001}, 1),
        ({"GUEST_PENDING_DEBUG_EXCEPTIONS": 0x4001, "GUEST_RFLAGS": 0x102}, 0x4001),
        ({"GUEST_PENDING_DEBUG_EXCEPTIONS": 1}, None),  # neither a step nor an enabled breakpoint
        ({"GUEST_PENDING_DEBUG_EXCEPTIONS": 0x1001, INFO: VALID | 0x202}, None),
        ({"GUEST_PENDING_DEBUG_EXCEPTIONS": 0x1001, INFO: VALID | 0x306}, None),
        ({"GUEST_PENDING_DEBUG_EXCEPTIONS": 0x1001, INFO: VALID | 0x003, "GUEST_RFLAGS": 0x202}, None),
        ({"GUEST_PENDING_DEBUG_EXCEPTIONS": 0x1001, INFO: VALID | 0x603, "VM_ENTRY_INSTRUCTION_LENGTH": 1}, None),
        ({"GUEST_PENDING_DEBUG_EXCEPTIONS": 0x1001, INFO: VALID | 0x403, "VM_ENTRY_INSTRUCTION_LENGTH": 2}, None),
        (
            {
                "GUEST_PENDING_DEBUG_EXCEPTIONS": 0x1001,
                INFO: VALID | 0x403,
                "VM_ENTRY_INSTRUCTION_LENGTH": 2,
                "GUEST_INTERRUPTIBILITY_STATE": 2,
            },
            1,
        ),
        (
            {
                "GUEST_PENDING_DEBUG_EXCEPTIONS": 0x1001,
                INFO: VALID | 0x603,
                "VM_ENTRY_INSTRUCTION_LENGTH": 1,
                "GUEST_INTERRUPTIBILITY_STATE": 2,
            },
            1,
        ),
        (
            {
                "GUEST_PENDING_DEBUG_EXCEPTIONS": 0x1001,
                INFO: VALID | 0x501,
                "VM_ENTRY_INSTRUCTION_LENGTH": 1,
                "GUEST_INTERRUPTIBILITY_STATE": 2,
            },
            None,
        ),
    ],
)
def test_which_pending_debug_exceptions_vm_entry_delivers(changes: Changes, due: int | None) -> None:
    """SDM Vol. 3, "Delivery of Pending Debug Exceptions after VM Entry": valid ones; none with most injected events."""
    bench = Bench()
    bench.guest("hlt")
    bench.prepare(changes, bitmap(1))
    bench.enter()
    if due is not None:
        assert bench.reason == "EXCEPTION_OR_NMI" and bench["EXIT_QUALIFICATION"] == due
    elif INFO in changes:
        assert bench.guest_vector == changes[INFO] & 0xFF
    else:
        assert not bench.exited and bench.cpu.rip == GUEST + 1


def test_the_preemption_timer() -> None:
    """SDM Vol. 3, "VMX-Preemption Timer": ends a loop and a halt; its value is saved where wanted."""
    timer = pin("ACTIVATE_VMX_PREEMPTION_TIMER")
    for text in ("jmp $", "hlt"):
        bench = Bench()
        assert bench.exit(text, timer | {"VMX_PREEMPTION_TIMER_VALUE": 100}) == "VMX_PREEMPTION_TIMER_EXPIRED"
        assert bench["GUEST_ACTIVITY_STATE"] == (text == "hlt")
        entry, exit_ = bench.cpu.transitions()
        assert 99 * 32 <= exit_.cycle - entry.cycle <= 101 * 32 + 10
    bench = Bench()
    assert bench.exit("nop", timer | {"VMX_PREEMPTION_TIMER_VALUE": 0}) == "VMX_PREEMPTION_TIMER_EXPIRED"
    assert bench["GUEST_RIP"] == GUEST
    bench = Bench()
    save = timer | {"VMX_PREEMPTION_TIMER_VALUE": 1000, "+VM_EXIT_CONTROLS": 1 << 22}
    assert bench.exit("mov ecx, 1000\nagain: loop again\nvmcall", save) == "VMCALL"
    assert 1000 - 5010 // 32 - 1 <= bench["VMX_PREEMPTION_TIMER_VALUE"] <= 1000 - 4900 // 32


def test_a_tss_that_is_too_small_faults_before_the_exit() -> None:
    """SDM Vol. 3, "Treatment of Task Switches": the limit is among the checks that come first."""
    for access, limit, faults in ((0x89, 0x66, True), (0x89, 0x67, False), (0x81, 0x2A, True), (0x81, 0x2B, False)):
        bench = Bench()
        bench.cpu.memory.write(0x4038, (limit | 0x9000 << 16 | access << 40).to_bytes(8, "little"))
        bench.guest("jmp 0x38:0")
        bench.prepare()
        bench.enter()
        assert (bench.guest_vector == 10) is faults and bench.exited is not faults


@pytest.mark.parametrize(("text", "source", "length"), [
    ("call 0x38:0", 0, 7), ("jmp 0x38:0", 2, 7), ("int 7", 3, 2),
])  # fmt: skip
def test_task_switches_exit(text: str, source: int, length: int) -> None:
    """SDM Vol. 3, "Exit Qualification for Task Switch"."""
    bench = Bench()
    bench.cpu.memory.write(0x4038, (0x67 | 0x9000 << 16 | 0x89 << 40).to_bytes(8, "little"))
    bench.cpu.memory.write(GUEST_IDT + 8 * 7, (0x38 << 16 | 0x85 << 40).to_bytes(8, "little"))
    assert bench.exit(text) == "TASK_SWITCH"
    assert bench["EXIT_QUALIFICATION"] == 0x38 | source << 30 and bench["VM_EXIT_INSTRUCTION_LENGTH"] == length
    assert bench["IDT_VECTORING_INFORMATION_FIELD"] == (VALID | 0x407 if source == 3 else 0)
    assert bench["GUEST_TR_SELECTOR"] == 0x20


def test_init_is_an_exit_of_guests_and_blocked_in_root_operation() -> None:
    bench = Bench()
    bench.cpu.pins.drive(3, 1)
    bench.run("nop")
    assert bench.cpu.rip > 0x10000 and bench.cpu.vmx_operation == "root"
    assert bench.exit("nop") == "INIT_SIGNAL"


def test_machine_checks() -> None:
    """SDM Vol. 3, "Machine-Check Architecture": #MC with CR4.MCE, else a shutdown; in a guest an exit either way."""
    cpu = emu.Cpu(cpu="westmere")
    cpu.load(0x1000, b"\x90\xf4")
    cpu.cr4 = 0x40
    cpu.inject_machine_check()
    with pytest.raises(emu.CpuFault) as raised:
        cpu.run()
    assert raised.value.name == "#MC"
    cpu = emu.Cpu(cpu="westmere")
    cpu.load(0x1000, b"\x90\xf4")
    cpu.inject_machine_check()
    assert cpu.run().reason == "triple_fault"
    for changes, reason in (({"+GUEST_CR4": 0x40}, "EXCEPTION_OR_NMI"), ({}, "TRIPLE_FAULT")):
        bench = Bench()
        bench.guest("jmp $")
        bench.prepare(changes, bitmap(18))
        bench.enter(limit=50)
        bench.cpu.inject_machine_check()
        bench.cpu.run(instructions=50)
        assert bench.reason == reason


def test_a_snapshot_holds_vmx() -> None:
    """Saved in the middle of a guest with its timer running; what follows is the same in original and copy."""
    bench = Bench()
    timer = pin("ACTIVATE_VMX_PREEMPTION_TIMER") | {"VMX_PREEMPTION_TIMER_VALUE": 1000}
    bench.guest("again: inc ebx\njmp again")
    bench.prepare(timer, secondary("ENABLE_EPT", "ENABLE_VPID"))
    bench.enter(limit=100)
    assert bench.cpu.vmx_operation == "non-root"
    state, memory, clock = bench.cpu.save(), bench.cpu.memory.save(), bench.cpu.clock.save()
    bench.cpu.run(instructions=100_000)
    assert bench.reason == "VMX_PREEMPTION_TIMER_EXPIRED"
    expected = bench.cpu.save()
    bench.cpu.memory.load(memory)
    bench.cpu.clock.load(clock)
    bench.cpu.restore(state)
    assert bench.cpu.vmx_operation == "non-root"
    bench.cpu.run(instructions=100_000)
    again = bench.cpu.save()
    assert again["vmx"] == expected["vmx"] and again["gpr"] == expected["gpr"] and again["rip"] == expected["rip"]
