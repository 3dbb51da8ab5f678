"""x87 and XMM state as a whole, and when it is not available.

SDM Vol. 1, "Saving and Restoring the x87 FPU's State"; SDM Vol. 2, "FXSAVE", "FXRSTOR"; SDM Vol. 3, "Interrupt 7".
"""

import struct

import pytest

import asm
import emu

CODE, AREA = 0x1000, 0x8000
IMAGE = struct.pack("<HHBxHIHxxIHxxI", 0x037E, 0x3800, 0xA5, 0x7FF, 0x11223344, 8, 0x55667788, 16, 0x1FA0) + bytes(4)
REGISTERS = b"".join(bytes(range(n * 10, n * 10 + 10)) + bytes(6) for n in range(8))
XMM = bytes(range(100, 228))


def run(text: str, bits: int = 32, memory: dict[int, bytes] | None = None, **registers: int) -> emu.Cpu:
    cpu = emu.Cpu(bits=bits, cpu="westmere")
    for address, content in (memory or {}).items():
        cpu.memory.write(address, content)
    cpu.load(CODE, asm.assemble(text + "\nhlt", bits=bits).binary)
    for name, value in registers.items():
        setattr(cpu, name, value)
    assert cpu.run().reason == "halted"
    return cpu


def test_fninit_gives_the_state_after_initialisation() -> None:
    cpu = run(f"fninit\nfnstcw [{AREA}]\nfnstsw ax\nfnstenv [{AREA + 16}]", eax=0xFFFFFFFF)
    assert cpu.memory.read(AREA, 2) == b"\x7f\x03" and cpu.eax == 0xFFFF0000
    assert cpu.memory.read(AREA + 16, 28) == struct.pack("<7I", 0xFFFF037F, 0xFFFF0000, 0xFFFFFFFF, 0, 0, 0, 0xFFFF0000)


def test_after_reset_the_control_word_is_40h_and_all_registers_are_zero() -> None:
    """SDM Vol. 3, "Processor State After Reset", table of the x87 state: tags valid-zero, 5555h."""
    cpu = run(f"fnsave [{AREA}]")
    assert struct.unpack("<3I", cpu.memory.read(AREA, 12)) == (0xFFFF0040, 0xFFFF0000, 0xFFFF5555)
    assert cpu.memory.read(AREA + 28, 80) == bytes(80)


@pytest.mark.parametrize("bits", [32, 64])
def test_fxrstor_and_fxsave_move_the_whole_state(bits: int) -> None:
    xmm = (XMM * 2)[: 128 if bits == 32 else 256]
    image = IMAGE + REGISTERS + xmm + bytes(512 - 160 - len(xmm))
    text = f"fxrstor [{AREA}]\nfxsave [{AREA + 512}]"
    cpu = run(text, bits, {AREA: image, AREA + 512: b"\xcc" * 512}, cr4=0x200)
    saved = cpu.memory.read(AREA + 512, 512)
    # ES and B follow from exceptions that are pending: none here. MXCSR_MASK is FFFFh, the rest stays as it was.
    assert saved[: 160 + len(xmm)] == image[:28] + struct.pack("<I", 0xFFFF) + REGISTERS + xmm
    assert saved[160 + len(xmm) :] == b"\xcc" * (512 - 160 - len(xmm))


def test_fxsave64_has_64_bit_pointers() -> None:
    image = struct.pack("<HHBxHQQI", 0x37F, 0, 0, 1, 1 << 63 | 5, 1 << 62 | 6, 0x1F80) + bytes(480)
    cpu = run(f"fxrstor64 [{AREA}]\nfxsave64 [{AREA + 512}]", 64, {AREA: image})
    assert cpu.memory.read(AREA + 520, 16) == image[8:24]


def test_without_osfxsr_the_xmm_registers_stay_out() -> None:
    """SDM Vol. 3, "Control Registers", OSFXSR: FXSAVE and FXRSTOR may leave out XMM and MXCSR."""
    image = IMAGE + REGISTERS + XMM + bytes(224)
    text = f"fxrstor [{AREA}]\nmov eax, 0x200\nmov cr4, eax\nfxsave [{AREA + 512}]"
    cpu = run(text, memory={AREA: image})
    assert cpu.memory.read(AREA + 512 + 24, 4) == struct.pack("<I", 0x1F80)
    assert cpu.memory.read(AREA + 512 + 160, 128) == bytes(128)


@pytest.mark.parametrize("prefix", ["", "o16 "])
def test_frstor_and_fnsave_move_the_x87_state(prefix: str) -> None:
    fields = (0x27E, 0x1800, 0x9249, 0x1111, 8, 0x2222, 16)
    environment = struct.pack("<7H", *fields) if prefix else struct.pack("<7I", *fields)
    # Register contents that the tags of the image fit: R0 is ST(5) since TOP is 3.
    tags = {1: (0, 0), 2: (1, 0x7FFF), 0: (1 << 63, 0x3FFF)}
    values = [tags.get(0x9249 >> 2 * ((3 + n) % 8) & 3, (0, 0)) for n in range(8)]
    registers = b"".join(struct.pack("<QH", *value) for value in values)
    cpu = run(f"{prefix}frstor [{AREA}]\n{prefix}fnsave [{AREA + 512}]", memory={AREA: environment + registers})
    saved = cpu.memory.read(AREA + 512, len(environment) + 80)
    size = 2 if prefix else 4
    words = [int.from_bytes(saved[n * size : n * size + 2], "little") for n in range(7)]
    assert words == [0x27E, 0x1800, 0x9249, 0x1111, 8, 0x2222, 16]
    assert saved[len(environment) :] == registers


def test_real_mode_images_hold_linear_addresses() -> None:
    environment = struct.pack("<7H", 0x37F, 0, 0xFFFF, 0x2345, 0x1123, 0x6789, 0x4000)
    cpu = run(f"fldenv [{AREA - 0x1000}]\nfnstenv [{AREA - 0x800}]", 16, {AREA - 0x1000: environment})
    assert cpu.memory.read(AREA - 0x800, 14) == environment


FORMS = ["fninit", "fnclex", "fnstsw ax", f"fnstcw [{AREA}]", f"fldcw [{AREA}]", f"fnstenv [{AREA}]",
         f"fldenv [{AREA}]", f"fnsave [{AREA}]", f"frstor [{AREA}]", f"fnstsw [{AREA}]"]  # fmt: skip


def fault(text: str, **registers: int) -> str:
    with pytest.raises(emu.CpuFault) as raised:
        run(text, **registers)
    return raised.value.name


@pytest.mark.parametrize("text", FORMS)
@pytest.mark.parametrize("cr0", [0x15, 0x19])
def test_em_and_ts_make_x87_instructions_nm(text: str, cr0: int) -> None:
    assert fault(text, cr0=cr0) == "#NM"


@pytest.mark.parametrize("model", ["i386", "pentium3", "westmere"])
@pytest.mark.parametrize("text", ["fld1", "fadd st0, st1", f"fistp word [{AREA}]", "db 0xd9, 0xd1"])
def test_em_and_ts_make_every_escape_nm(model: str, text: str) -> None:
    """SDM Vol. 3, "Interrupt 7": by the first byte, D8h to DFh, before what the instruction is; LOCK is #UD."""
    for code, cr0, name in ((text, 0x15, "#NM"), (text, 0x19, "#NM"), (f"db 0xf0\n{text}", 0x15, "#UD")):
        cpu = emu.Cpu(cpu=model)
        cpu.load(CODE, asm.assemble(f"bits 32\n{code}").binary)
        cpu.cr0 = cr0
        with pytest.raises(emu.CpuFault) as raised:
            cpu.step()
        assert raised.value.name == name


@pytest.mark.parametrize("text", [f"fxsave [{AREA}]", f"fxrstor [{AREA}]"])
def test_fx_instructions_check_em_ts_and_alignment_in_this_order(text: str) -> None:
    assert fault(text, cr0=0x1D) == "#UD"
    assert fault(text, cr0=0x19) == "#NM"
    assert fault(text.replace(str(AREA), str(AREA + 8))) == "#GP"


def test_fxrstor_of_reserved_mxcsr_bits_is_gp_and_changes_nothing() -> None:
    image = bytearray(512)
    image[26] = 1
    cpu = emu.Cpu(cpu="westmere")
    cpu.cr4 = 0x200
    cpu.memory.write(AREA, bytes(image))
    cpu.load(CODE, asm.assemble(f"fxrstor [{AREA}]", bits=32).binary)
    before = cpu.save()["fpu"]
    with pytest.raises(emu.CpuFault) as raised:
        cpu.step()
    assert raised.value.name == "#GP" and cpu.save()["fpu"] == before


def test_wait_heeds_mp_with_ts_and_reports_pending_exceptions() -> None:
    """SDM Vol. 2, "WAIT/FWAIT"; SDM Vol. 3, "Interrupt 16": only with CR0.NE."""
    pending = f"fninit\nmov dword [{AREA}], 0\nfnstenv [{AREA + 16}]\nor word [{AREA + 20}], 1\nfldenv [{AREA + 16}]\n"
    assert fault("fwait", cr0=0x1B) == "#NM"
    assert run("fwait", cr0=0x19).cr0 == 0x19
    assert run(pending + "fwait", cr0=0x11).cr0 == 0x11
    assert fault(pending + f"fldcw [{AREA}]\nfwait", cr0=0x31) == "#MF"
    assert run(pending + f"fldcw [{AREA}]\nfnclex\nfwait", cr0=0x31).cr0 == 0x31


def test_the_state_is_saved_with_the_processor() -> None:
    image = IMAGE + REGISTERS + XMM + bytes(224)
    cpu = run(f"fxrstor [{AREA}]", memory={AREA: image}, cr4=0x200)
    state = cpu.save()
    other = emu.Cpu(cpu="westmere")
    other.restore(state)
    assert other.save()["fpu"] == state["fpu"] and state["fpu"]["valid"] == 0xA5
    other.load(CODE, asm.assemble(f"fxsave [{AREA}]\nhlt", bits=32).binary)
    assert other.run().reason == "halted"
    assert other.memory.read(AREA, 28) == image[:28]
