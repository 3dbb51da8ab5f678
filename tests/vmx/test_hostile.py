"""VMMs that break every rule: the SDM's error each time, never a crash, never a hang."""

import random
from typing import Any

import pytest
from vmm import (
    EPT,
    FIELDS,
    GUEST,
    MEMORY,
    REGION,
    Bench,
    default_fields,
    pin,
    primary,
    real_mode,
    secondary,
)

import emu

POINTER = 0xB000


class Registers(emu.Device):
    """A device whose registers hold whatever was written last."""

    last = 0xF

    def read(self, address: int, size: int) -> int:
        return self.last & ((1 << 8 * size) - 1)

    def write(self, address: int, value: int, size: int) -> None:
        self.last = value


@pytest.mark.parametrize("kind", ["device", "rom", "nothing"])
def test_a_vmcs_region_that_is_no_memory(kind: str) -> None:
    """Its fields may not come back, but nothing else happens."""
    bench = Bench()
    base = 0xC0000000
    if kind == "device":
        device = Registers(bench.cpu.clock, "registers")
        bench.cpu.bus.map_device(base, 0x1000, device)
    elif kind == "rom":
        rom = emu._core.Memory(0x1000)
        rom.write(0, bench.revision.to_bytes(4, "little"))
        bench.cpu.bus.map_memory(base, rom, flags=emu._core.READ | emu._core.ROM)
    bench.cpu.memory.write(POINTER, base.to_bytes(8, "little"))
    bench.run(f"vmptrld [{POINTER}]")
    if bench.failed:
        assert bench.failed == "VMPTRLD_INCORRECT_REVISION" and kind != "rom"
        return
    bench.run(f"vmlaunch\nvmclear [{POINTER}]\nvmptrld [{POINTER}]\nvmresume")
    assert bench.failed in ("VMRESUME_NONLAUNCHED_VMCS", "ENTRY_INVALID_CONTROL_FIELDS")


@pytest.mark.parametrize("pointer", [0, EPT, 0xFF_FFFF_F000, 0xFEE00000, MEMORY])
def test_ept_that_points_at_itself_or_at_nothing(pointer: int) -> None:
    bench = Bench()
    for level in range(512):
        bench.cpu.memory.write(EPT + 8 * level, (EPT | 7).to_bytes(8, "little"))
    bench.guest("mov eax, [0x5000]\nmov [0x6000], eax\njmp $")
    bench.prepare(secondary("ENABLE_EPT") | {"EPT_POINTER": pointer | 0x1E})
    bench.enter(limit=1000)
    assert bench.exited and bench.reason in ("EPT_VIOLATION", "EPT_MISCONFIGURATION", "TRIPLE_FAULT")


def test_the_guest_runs_on_its_own_ept_and_vmcs() -> None:
    """The guest overwrites both; the next entry goes by what is there."""
    bench = Bench()
    fill = "\nmov edi, {}\nmov ecx, {}\nrep stosd"
    text = "xor eax, eax" + fill.format(EPT, 0x800) + fill.format(REGION + 4, 0x3FF) + "\nvmcall"
    assert bench.exit(text, secondary("ENABLE_EPT", "ENABLE_VPID")) in ("VMCALL", "EPT_VIOLATION")
    bench.cpu.memory.write(POINTER, (EPT | 0x1E).to_bytes(16, "little"))
    bench.run(f"mov eax, 2\ninvept eax, [{POINTER}]")
    bench.set({"GUEST_RIP": GUEST})
    bench.enter(resume=True)
    assert bench.reason == "EPT_VIOLATION"


def test_counts_that_no_area_holds() -> None:
    for field in ("VM_ENTRY_MSR_LOAD_COUNT", "VM_EXIT_MSR_LOAD_COUNT", "VM_EXIT_MSR_STORE_COUNT"):
        bench = Bench()
        # Writing IA32_TSC any number of times would work.
        for entry in range(600):
            bench.cpu.memory.write(0x100000 + 16 * entry, (0x10).to_bytes(16, "little"))
        bench.guest("vmcall")
        bench.prepare({field: 0x00FF_FFFF, field.replace("COUNT", "ADDRESS"): 0x100000})
        stop = bench.enter()
        if field.startswith("VM_ENTRY"):
            assert bench.reason == "failed VM_ENTRY_FAILURE_DUE_TO_MSR_LOADING" and bench["EXIT_QUALIFICATION"] == 513
        else:
            assert stop.reason == "triple_fault"


def test_an_exit_to_nowhere_ends_in_a_triple_fault() -> None:
    bench = Bench()
    bench.guest("vmcall")
    bench.prepare({"HOST_CR3": 0x3F000, "HOST_IDTR_BASE": 0, "HOST_RSP": 0}, host_rip=0x7000)
    assert bench.enter().reason == "triple_fault"


VALUES = [0, 1, 2, 3, 4, 7, 8, 0x10, 0x1E, 0xFF, 0x1000, 0x5000, 0xFFFF, 0x20000, 0x60000, 0x7FFFFFFF, 0x80000000,
          0xFFFFFFFF, 1 << 32, 1 << 47, (1 << 64) - 1, (1 << 63) - 1, 0xFEE00000]  # fmt: skip


def shake(bits: int, seed: int, rounds: int) -> dict[str, int]:
    """Entries with random fields; how each ended."""
    chance = random.Random(seed)
    outcomes: dict[str, int] = {}
    bench = Bench(bits=bits)
    bench.guest("\n".join(GUEST_CODE).format(a="rax" if bits == 64 else "eax") + f"\njmp {GUEST}")
    bench.prepare()
    bench.cpu.memory.write(0x10000, b"\x0f\x01\xc2\x0f\x01\xc3\xf4")  # VMLAUNCH, VMRESUME, HLT
    origin = bench.cpu.save(), bench.cpu.memory.save(), bench.cpu.clock.save()
    start = default_fields(bench.bits) | {"HOST_RIP": 0xC000 + 31}
    for _ in range(rounds):
        vmcs: Any = bench.cpu.vmcs
        for name, value in start.items():
            vmcs[name] = value
        for change in chance.choice((
            (), (secondary("ENABLE_EPT"),), (secondary("ENABLE_EPT", "ENABLE_VPID"),), (real_mode(),),
            (primary("USE_IO_BITMAPS", "USE_MSR_BITMAPS", "USE_TPR_SHADOW"),), (pin("NMI_EXITING", "VIRTUAL_NMIS"),),
        )):  # fmt: skip
            for name, value in change.items():
                plain = name.lstrip("+")
                vmcs[plain] = vmcs[plain] | value if name != plain else value
        for name in chance.sample(sorted(FIELDS), chance.randrange(1, 5)):
            if name == "HOST_RIP":
                continue
            width = FIELDS[name].width or 64
            value = chance.choice(VALUES) if chance.random() < 0.6 else chance.getrandbits(64)
            if chance.random() < 0.5:
                value = vmcs[name] ^ 1 << chance.randrange(width)
            vmcs[name] = value & ((1 << width) - 1)
        for base in (EPT, EPT + 0x1000, EPT + 0x2000) if chance.random() < 0.3 else ():
            bench.cpu.memory.write(base, chance.getrandbits(64).to_bytes(8, "little"))
        bench.cpu.rip = 0x10000
        stop = bench.cpu.run(instructions=300, timeout=5)
        ended = bench.cpu.vmx_operation if stop.reason == "limit" else str(stop.reason)
        outcomes[ended] = outcomes.get(ended, 0) + 1
        bench.cpu.memory.load(origin[1])
        bench.cpu.clock.load(origin[2])
        bench.cpu.restore(origin[0])
    return outcomes


GUEST_CODE = ["push {a}", "mov eax, [0x5000]", "in al, 0x80", "mov ecx, 0x10", "rdmsr", "mov {a}, cr0", "mov cr0, {a}",
              "mov {a}, cr3", "mov cr3, {a}", "int 0x20", "cpuid", "pop {a}"]  # fmt: skip


@pytest.mark.parametrize("bits", [32, 64])
def test_random_vmcs_contents(bits: int) -> None:
    """A hundred entries each way; the processor goes on afterwards. `-m slow` and the sanitizers run many more."""
    outcomes = shake(bits, seed=bits, rounds=150)
    assert sum(outcomes.values()) == 150 and len(outcomes) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_many_random_vmcs_contents(seed: int) -> None:
    outcomes = shake(64 if seed & 1 else 32, seed=1000 + seed, rounds=4000)
    assert sum(outcomes.values()) == 4000


def test_a_vmcs_image_of_random_bytes() -> None:
    for seed in range(30):
        bench = Bench()
        chance = random.Random(seed)
        image = bytearray(chance.randbytes(4096))
        image[:12] = bench.revision.to_bytes(4, "little") + bytes(4) + (seed & 1).to_bytes(4, "little")
        bench.cpu.memory.write(POINTER, (0x3000).to_bytes(8, "little"))
        bench.cpu.memory.write(0x3000, bytes(image))
        bench.run(f"vmptrld [{POINTER}]\nvmlaunch\nvmresume")
        assert bench.failed in ("ENTRY_INVALID_CONTROL_FIELDS", "VMRESUME_NONLAUNCHED_VMCS")


def test_a_processor_goes_with_its_timer_running() -> None:
    """The clock outlives it, and the timer's event must not."""
    bench = Bench()
    bench.guest("jmp $")
    bench.prepare(pin("ACTIVATE_VMX_PREEMPTION_TIMER") | {"VMX_PREEMPTION_TIMER_VALUE": 1000})
    bench.enter(limit=20)
    clock = bench.cpu.clock
    assert bench.cpu.vmx_operation == "non-root" and clock.next_event is not None
    del bench
    assert clock.next_event is None
    clock.advance(1_000_000)
