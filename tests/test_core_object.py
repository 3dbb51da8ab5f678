"""What the compiler made of the core: tail calls are jumps, hot bodies make no call, and nothing is a global variable.

gcc drops a tail call silently, where a local's address escapes or an argument goes on the stack. The guest then grows
the host's stack by a frame an instruction.
"""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import pytest

SPEC = importlib.util.find_spec("emu._core")
pytestmark = [
    pytest.mark.skipif(SPEC is None, reason="emu._core is not built"),
    pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed"),
]

# Functions of the handlers' signature: each goes on to the next instruction instead of returning.
HANDLER = re.compile(r"(exec_\w+?|jump_linked|jump_dynamic|run_cold)(_slow)?(\.cold|\.part\.\d+|\.isra\.\d+)*")
# Bodies for which speed does not hang on a call: the state is saved first, or one call moves a whole string, or the
# call is the instruction's purpose: IN and OUT call the device.
MAY_CALL = re.compile(
    r"exec_(?:in|out)_.*|run_cold|jump_.*|exec_undefined|exec_rep.*|exec_hooked|exec_onward|exec_enter"
)
# run_cold calls the operation of a COLD_BODY, and exec_enter the first handler of all.
MAY_CALL_INDIRECTLY = {"run_cold", "exec_enter"}


class Call(NamedTuple):
    function: str
    target: str  # "*" where it is called through a pointer


def objdump(*flags: str) -> str:
    assert SPEC is not None and SPEC.origin is not None
    done = subprocess.run(["objdump", *flags, SPEC.origin], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def disassembly() -> str:
    text = objdump("-d", "--no-show-raw-insn")
    if "<call_later" in text or "__asan_" in text:
        pytest.skip("this build reaches handlers through the trampoline")
    return text


def functions(disassembly: str) -> Iterator[tuple[str, str]]:
    for block in disassembly.split("\n\n"):
        if match := re.match(r"\n?[0-9a-f]+ <([^>]+)>:\n", block):
            yield match[1], block


def calls(disassembly: str) -> Iterator[Call]:
    for name, block in functions(disassembly):
        if not HANDLER.fullmatch(name) or name.endswith("_operation"):
            continue
        for target in re.findall(r"\tcall\s+(\S+(?: <[^>]+>)?)", block):
            direct = re.search(r"<([^>+@]+)", target)
            yield Call(name, direct[1] if direct else "*")


def test_handlers_are_where_the_table_points(disassembly: str) -> None:
    """The two tests below would pass on an empty listing."""
    names = {name for name, _ in functions(disassembly)}
    assert {"exec_add_r32_r32", "exec_add_m32_r32", "run_cold"} <= names


def test_no_handler_calls_a_handler(disassembly: str) -> None:
    wrong = [
        call
        for call in calls(disassembly)
        if HANDLER.fullmatch(call.target) or (call.target == "*" and call.function not in MAY_CALL_INDIRECTLY)
    ]
    assert wrong == []


def test_hot_bodies_make_no_call(disassembly: str) -> None:
    wrong = [
        call
        for call in calls(disassembly)
        if not MAY_CALL.fullmatch(call.function) and not call.function.endswith(("_slow", ".cold"))
    ]
    assert wrong == []


def test_core_has_no_global_variables() -> None:
    """A process holds many machines."""
    variables = re.findall(r" O \.(?:data|bss)\t[0-9a-f]+ +(?:\.hidden )?(\S+)", objdump("-t"))
    # Cython's module state, and what the C runtime puts into every shared object.
    runtime = re.compile(
        r"__pyx.*|__Pyx.*|main_interpreter_id\.\d+|completed\.\d+|__dso_handle|_DYNAMIC|__TMC_END__|__(a|ub|odr_a)san.*"
    )
    assert [name for name in variables if not runtime.fullmatch(name)] == []
