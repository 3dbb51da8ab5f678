"""The Service OS's `policy` command: it shows and changes every field; what it stores is what the next boot reads."""

from collections.abc import Iterator

import pytest

from emu.policy import FIELDS, decode_policy

from .conftest import Built
from .service import Shell, shell


@pytest.fixture
def at(built: Built) -> Iterator[Shell]:
    with shell(built.rom(), built.folder) as opened:
        yield opened


def stored(at: Shell) -> dict[str, object]:
    """The policy in the machine's CMOS RAM."""
    return decode_policy(at.machine.board.rtc.nvram)


CHANGES = [
    ("boot native", "boot", "native"),
    ("query_seconds 60", "query_seconds", 60),
    ("source hpa", "source", "hpa"),
    ("time runs", "time", "runs"),
    ("after restart", "after", "restart"),
    ("crash_limit 255", "crash_limit", 255),
    ("polls 0x10", "polls", 16),
    ("poll_us 60000000", "poll_us", 60000000),
    ("idle_bytes 4096", "idle_bytes", 4096),
    ("exceptions 0 14 31", "exceptions", [0, 14, 31]),
    ("exceptions none", "exceptions", []),
    ("vectors 16 255", "vectors", [16, 255]),
    ("ports 60 64 0 ffff", "ports", [(0x60, 0x64), (0, 0xFFFF)]),
    ("regions 1 rw 1000 2fff 2 x 5000 5fff", "regions", [(1, "rw", 0x1000, 0x2FFF), (2, "x", 0x5000, 0x5FFF)]),
    ("regions none", "regions", []),
    ("hotkey 0x57", "hotkey", 0x57),
    ("hotkey_serial 0", "hotkey_serial", 0),
    ("flags shell halted", "flags", ["shell", "halted"]),
    ("flags none", "flags", []),
    ("guests healthy hung triple", "guests", ["healthy", "hung", "triple"]),
]


def test_every_field_is_changed_and_kept(at: Shell) -> None:
    """One machine for all: each change leaves the other fields alone."""
    for line, field, value in CHANGES:
        before = stored(at) if at.do("policy time still") == "" else {}
        assert at.do(f"policy {line}") == "", line
        after = stored(at)
        assert after[field] == value
        assert {name for name in before if before[name] != after[name]} <= {field}
    changed = {field for _, field, _ in CHANGES}
    assert changed == set(FIELDS)


def test_what_is_shown_can_be_typed(at: Shell) -> None:
    """Each value as `policy` shows it, typed back, changes nothing."""
    at.do("policy ports 60 64 3f8 3ff")
    at.do("policy regions 1 rwx 1000 2fff")
    kept = stored(at)
    shown = {line.split()[0]: line[14:].split("  (")[0] for line in at.do("policy").splitlines()}
    assert set(shown) == set(FIELDS)
    for field, value in shown.items():
        assert at.do(f"policy {field} {value}") == ""
        assert at.do(f"policy {field}")[14:].split("  (")[0] == value
    assert stored(at) == kept


def test_default(at: Shell) -> None:
    at.do("policy crash_limit 200")
    assert at.do("policy default") == ""
    assert stored(at)["crash_limit"] == 3 and stored(at)["after"] == "resume"


@pytest.fixture(scope="module")
def unchanged(built: Built) -> Iterator[Shell]:
    """For lines that change nothing."""
    with shell(built.rom(), built.folder) as opened:
        yield opened


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("boot maybe", "boot may be ask, service, native"),
        ("boot ask native", "boot may be ask, service, native"),
        ("query_seconds 61", "query is not 0 to 60 seconds"),
        ("query_seconds 256", "query_seconds may be 0 (for ever) to 60"),
        ("polls 0", "polls is not 1 to 255"),
        ("poll_us 60000001", "poll is not 0 to 60000000 microseconds"),
        ("poll_us 4294967296", "poll_us may be 0 (none) to 60000000 microseconds"),
        ("idle_bytes 0", "idle is not 1 to 4096 bytes"),
        ("idle_bytes 4097", "idle is not 1 to 4096 bytes"),
        ("exceptions 32", "exceptions may be vectors, 0 to 31, or none"),
        ("vectors 15", "a vector is not 10h to FFh"),
        ("vectors 16 17 18", "vectors may be 2 of 16 to 255, or none"),
        ("ports 64 60", "a range of ports ends before it begins"),
        ("ports 64", "ports may be 4 of FIRST LAST, hexadecimal, or none"),
        ("ports 10000 10001", "ports may be 4 of FIRST LAST, hexadecimal, or none"),
        ("regions 1 w 100 1ff", "a region is not whole pages of VM 1 to 3 with an access of 1 to 7"),
        ("regions 4 w 1000 1fff", "a region is not whole pages of VM 1 to 3 with an access of 1 to 7"),
        ("regions 1 q 1000 1fff", "regions may be 4 of VM ACCESS FIRST LAST (r, w, x; whole pages), or none"),
        ("hotkey 0x59", "hotkey is no make code up to 58h, or its byte on the line is not 0 to 1Fh"),
        ("hotkey_serial 32", "hotkey is no make code up to 58h, or its byte on the line is not 0 to 1Fh"),
        ("flags shell sheel", "flags may be remote bmc dump report send_dump shell disk_failed halted, or none"),
        ("guests none", "guests are not numbers of the list, or one is missing before another"),
    ],
)
def test_what_is_refused(unchanged: Shell, line: str, said: str) -> None:
    kept = unchanged.machine.board.rtc.nvram[128:]
    assert unchanged.do(f"policy {line}") == f"policy: {said}\n"
    assert unchanged.machine.board.rtc.nvram[128:] == kept


def test_a_field_that_there_is_none_of(unchanged: Shell) -> None:
    assert unchanged.do("policy colour") == "colour: no field of the policy; `policy` shows them\n"
    assert unchanged.do("policy colour blue") == "colour: no field of the policy; `policy` shows them\n"


def test_a_changed_region_is_in_force_at_once(at: Shell) -> None:
    """The built-in guest writes to 200010h, which nobody protects any more."""
    at.do("policy regions none")
    at.machine.serial.send(b"go\r")
    at.machine.run(seconds=5)
    assert b"wrote to protected memory" not in at.machine.serial.output
    assert b"guest     undisturbed" in at.machine.serial.output
