"""The Service OS's `policy` command: it shows and changes every field; what it stores is what the next boot reads."""

from collections.abc import Iterator

import pytest

from emu.builtin.policy import FIELDS, decode_policy, policy_nvram

from .conftest import Built
from .service import Shell, shell
from .test_decision import BAD, GOOD


@pytest.fixture
def at(built: Built) -> Iterator[Shell]:
    with shell(built.rom(), built.folder) as opened:
        yield opened


def stored(at: Shell) -> dict[str, object]:
    """The policy in the machine's CMOS RAM."""
    return decode_policy(at.machine.board.rtc.nvram)


def test_every_field_is_set_as_on_the_set_up_screen(at: Shell) -> None:
    """One machine for all: each change is shown, stored, and leaves the other fields alone."""
    assert GOOD.keys() == FIELDS.keys()
    for field, (typed, value) in GOOD.items():
        before = stored(at)
        said = at.do(f"policy {field} {typed}")
        assert said.count("\n") == 1 and said.startswith(f"{field} ") and " may be " not in said
        assert stored(at) == {**before, field: value}


def test_what_is_shown_can_be_typed(at: Shell) -> None:
    """Each value as `policy` shows it, typed back, changes nothing."""
    at.do("policy ports 60 64 3f8 3ff")
    at.do("policy regions 1 rwx 1000 2fff")
    kept = stored(at)
    shown = {line.split()[0]: line for line in at.do("policy").splitlines()}
    assert set(shown) == set(FIELDS)
    for line in shown.values():
        assert at.do(f"policy {line.split('  (')[0]}") == f"{line}\n"
    assert stored(at) == kept


def test_default(at: Shell) -> None:
    at.do("policy crash_limit 200")
    assert at.do("policy default") == at.do("policy")
    assert stored(at) == decode_policy(policy_nvram())


@pytest.fixture(scope="module")
def unchanged(built: Built) -> Iterator[Shell]:
    """For lines that change nothing."""
    with shell(built.rom(), built.folder) as opened:
        yield opened


@pytest.mark.parametrize("field", BAD)
def test_what_is_refused_as_on_the_set_up_screen(unchanged: Shell, field: str) -> None:
    kept = unchanged.machine.board.rtc.nvram[128:]
    shown = unchanged.do(f"policy {field}")
    for value in filter(None, BAD[field]):
        assert unchanged.do(f"policy {field} {value}") == f"{field} may be {shown.split('  (')[1][:-2]}\n"
    assert unchanged.machine.board.rtc.nvram[128:] == kept
    assert unchanged.do(f"policy {field}") == shown


@pytest.mark.parametrize("line", ["colour", "colour blue", "default 1"])
def test_a_field_that_there_is_none_of(unchanged: Shell, line: str) -> None:
    assert unchanged.do(f"policy {line}") == f"{line.split()[0]}: no field of the policy; `policy` shows them\n"


def test_a_changed_region_is_in_force_at_once(at: Shell) -> None:
    """The built-in guest writes to 200010h, which nobody protects any more."""
    at.do("policy regions none")
    at.machine.serial.send(b"go\r")
    at.machine.run(seconds=5)
    assert b"wrote to protected memory" not in at.machine.serial.output
    assert b"guest     undisturbed" in at.machine.serial.output
