"""Random differential tests of the user-mode integer instructions against the host, in 16-, 32- and 64-bit code.

Oracle: the host itself, through native_runner.c.
"""

import platform
import random
import shutil
import struct
import subprocess
from pathlib import Path

import cases
import pytest

import emu

RUNNER = Path(__file__).with_name("native_runner.c")
REQUEST = struct.Struct("<16QIIIHHBBB16s16s5x")
ANSWER = struct.Struct("<16QQIBBH")
WENT_ON, TAKEN, FAULTED = range(3)
CHUNK = 5000  # cases a test
NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))
# The model that runs code of a size, and what it has of integer instructions; every x86-64 host of the last ten years
# has it too.
COMMON = {"8086", "186", "286", "386", "486", "586", "686", "CX8", "CMOV", "SSE"}
MODELS = {
    16: ("pentium3", COMMON),
    32: ("pentium3", COMMON),
    64: ("westmere", COMMON | {"SSE2", "SSE4_2", "LM", "CX16", "LAHF_LM", "POPCNT"}),
}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        pytest.skip("the oracle is the host processor, and this is no x86-64 Linux host")
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: it compiles native_runner.c")
    program = tmp_path_factory.mktemp("native") / "runner"
    subprocess.run(["gcc", "-O1", "-no-pie", "-o", program, RUNNER], check=True)
    done = subprocess.run([program], input=bytes(cases.POOL_SIZE), capture_output=True, check=False)
    if done.returncode == 3:
        pytest.skip(done.stderr.decode().strip())
    return program


def differences(cpu: emu.Cpu, case: cases.Case, pool: bytes, answer: tuple[int, ...], changes: bytes) -> list[str]:
    """Runs a case on ours and says where it differs from the host's answer."""
    fault_rip, flags, outcome, vector = answer[16:20]
    count = 16 if case.bits == 64 else 8
    base = cases.SEGMENT_BASE if case.bits == 16 else 0
    before = case.memory(pool)
    cpu.memory.write(cases.WINDOW, bytes(before))
    cpu.memory.write(case.address, case.code)
    for name, value in zip(NAMES[:count], case.registers, strict=False):
        setattr(cpu, name, value)
    cpu.rflags = case.flags | 2
    cpu.rip = case.address - base
    got_vector = None
    try:
        cpu.step()
        while cpu.rip == case.address - base and case.repeats:
            cpu.step()
    except emu.CpuFault as fault:
        got_vector = fault.vector
    found = []
    if got_vector != (vector if outcome == FAULTED else None):
        found.append(f"exception {got_vector}, the host's is {vector if outcome == FAULTED else None}")
    next_rip = {WENT_ON: case.address + len(case.code) - base, TAKEN: case.taken - base, FAULTED: fault_rip}[outcome]
    if cpu.rip != next_rip:
        found.append(f"rip {cpu.rip:x}, the host's is {next_rip:x}")
    if outcome != FAULTED and (cpu.rflags ^ flags) & cases.COMPARED_FLAGS & ~case.undefined:
        found.append(f"flags {cpu.rflags:x}, the host's are {flags:x}, undefined {case.undefined:x}")
    for name, value in zip(NAMES[:count], answer, strict=False):
        # Interrupts of 16-bit code may change the upper half of the host's ESP.
        mask = 0xFFFF if case.bits == 16 and name == "rsp" else (1 << max(case.bits, 32)) - 1
        if (getattr(cpu, name) ^ value) & mask:
            found.append(f"{name} {getattr(cpu, name):x}, the host's is {value:x}")
    for offset, value in struct.iter_unpack("<HH", changes):
        before[offset] = value
    if cpu.memory.read(cases.WINDOW, cases.WINDOW_SIZE) != before:
        found.append("memory differs")
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chunks = -(-metafunc.config.getoption("cases") // (CHUNK * len(MODELS)))
    metafunc.parametrize("bits", MODELS)
    metafunc.parametrize("chunk", range(chunks))


def test_integer_forms_against_the_host(runner: Path, bits: int, chunk: int) -> None:
    pool = random.Random("pool").randbytes(cases.POOL_SIZE)
    model, features = MODELS[bits]
    candidates = cases.forms(bits, features.__contains__)
    batch = list(cases.random_cases(f"native {bits} {chunk}", bits, CHUNK, candidates))
    requests = [
        REQUEST.pack(
            *case.registers, case.flags | 0x202, case.address, case.taken, case.pool, case.patch,
            len(case.patch_bytes), bits, len(case.code), case.code, case.patch_bytes,
        )
        for case in batch
    ]  # fmt: skip
    output = subprocess.run([runner], input=pool + b"".join(requests), capture_output=True, check=True).stdout
    cpu = emu.Cpu(bits=bits, cpu=model, memory=1 << 20)
    if bits == 16:
        for segment in (cpu.cs, cpu.ds, cpu.es, cpu.ss):
            segment.selector, segment.base = cases.SEGMENT_BASE >> 4, cases.SEGMENT_BASE
    wrong, at = [], 0
    for case in batch:
        answer = ANSWER.unpack_from(output, at)
        at += ANSWER.size
        size = 4 * answer[-1]
        found = differences(cpu, case, pool, answer, output[at : at + size])
        at += size
        if found:
            wrong.append(f"{case.describe()}\n  " + "\n  ".join(found))
    assert at == len(output)
    assert not wrong, f"{len(wrong)} of {CHUNK} cases differ:\n" + "\n".join(wrong[:5])
