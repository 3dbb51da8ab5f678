"""The policy in the CMOS RAM: what Python makes of it, and what the firmware makes of that."""

from typing import Any

import pytest

from bios.build import FILES
from emu import BadInput, Machine
from emu.builtin.policy import EXTENDED, FIELDS, decode_policy, guest_files, layout, place, policy_nvram

from .conftest import Built
from .vmm import Vmm

MEMORY = 32 << 20

# For each field a value that is not the default, and one out of its range.
VALUES: dict[str, tuple[Any, Any]] = {
    "boot": ("service", 3),
    "query_seconds": (60, 61),
    "source": ("hpa", 3),
    "time": ("runs", 2),
    "after": ("stop", 4),
    "crash_limit": (255, None),
    "polls": (255, 0),
    "poll_us": (60_000_000, 60_000_001),
    "exceptions": ([0, 13, 31], None),
    "hotkey": (0x57, 0x59),
    "hotkey_serial": (1, 0x20),
    "flags": (["bmc", "shell"], 0x100),
    "guests": (["healthy", "hung", "writer"], ["healthy", 0, "hung"]),
    "vectors": ([0x10, 0xFF], [0x0F]),
    "idle_bytes": (4096, 4097),
    "ports": ([(0, 0), (0x3F8, 0xFFFF)], [(2, 1)]),
    "regions": ([(3, "rx", 0x1000, 0x2FFF), (1, "w", 0x400000, 0x400FFF)], [(1, "w", 0x1001, 0x1FFF)]),
}
WITHOUT_BAD = {"crash_limit", "exceptions"}  # every value of the byte, or of the 32 bits, is one


def policy_seen(built: Built, nvram: bytes) -> tuple[bytes, str]:
    """The policy that the VMM has in force and what the console says."""
    with Machine(MEMORY, firmware=built.rom(), nvram=nvram) as machine:
        vmm = Vmm(machine, built.folder)
        machine.run(seconds=5, until=vmm.symbols["decision"])
        policy = vmm.read("policy_now", layout().symbols["policy_size"])
        return zero_crc(policy), machine.serial.output.decode()


def fields(nvram: bytes) -> bytes:
    """What `policy_seen` should see of it."""
    return zero_crc(nvram[EXTENDED:][: layout().symbols["policy_size"]])


def zero_crc(policy: bytes) -> bytes:
    """The checksum counts when the policy is read, and is kept no further."""
    at, size = place("crc")
    return policy[:at] + bytes(size) + policy[at + size :]


def test_every_field_has_its_values() -> None:
    assert VALUES.keys() == FIELDS.keys()
    offsets = [place(name)[0] for name in FIELDS]
    assert offsets == sorted(offsets)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_comes_back(field: str) -> None:
    good, _ = VALUES[field]
    nvram = policy_nvram(**{field: good})
    assert len(nvram) == 256
    assert decode_policy(nvram) == {**decode_policy(policy_nvram()), field: good}


@pytest.mark.parametrize("field", sorted(FIELDS.keys() - WITHOUT_BAD))
def test_a_field_out_of_its_range(built: Built, field: str) -> None:
    """Python refuses to make it, and to read it; the firmware says so and takes the default."""
    _, bad = VALUES[field]
    with pytest.raises(ValueError, match=f"policy: {field} "):
        policy_nvram(**{field: bad})
    nvram = policy_nvram(checked=False, **{field: bad})
    with pytest.raises(BadInput, match=f"policy: {field} "):
        decode_policy(nvram)
    seen, console = policy_seen(built, nvram)
    assert seen == fields(policy_nvram())
    assert f"VMM       policy: {field} may be " in console


@pytest.mark.parametrize("field", FIELDS)
def test_the_firmware_takes_a_field(built: Built, field: str) -> None:
    good, _ = VALUES[field]
    nvram = policy_nvram(**{field: good})
    seen, console = policy_seen(built, nvram)
    assert seen == fields(nvram)
    assert "the default" not in console


def test_a_bad_checksum(built: Built) -> None:
    nvram = bytearray(policy_nvram(boot="service"))
    nvram[EXTENDED + place("polls")[0]] ^= 2
    with pytest.raises(BadInput, match="checksum is wrong"):
        decode_policy(bytes(nvram))
    seen, console = policy_seen(built, bytes(nvram))
    assert seen == fields(policy_nvram())
    assert "its checksum is wrong" in console


def test_no_policy(built: Built) -> None:
    with pytest.raises(BadInput, match="has no policy"):
        decode_policy(bytes(256))
    with pytest.raises(BadInput, match="255 bytes"):
        decode_policy(bytes(255))
    seen, console = policy_seen(built, bytes(256))
    assert seen == fields(policy_nvram())
    assert "none is stored" in console


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"period": 1}, "no field 'period'; there are: boot, "),
        ({"boot": "servce"}, "boot 'servce' is none of ask, service, native"),
        ({"boot": -1}, "boot is -1, it must be 0 to 2"),
        ({"boot": None}, "boot None is none of"),
        ({"poll_us": 1.5}, "poll_us 1.5 is no whole number"),
        ({"guests": []}, "guests is empty"),
        ({"guests": ["hung"] * 4}, "guests has 4 entries, there is room for 3"),
        ({"ports": [(1, 2)] * 5}, "ports has 5 entries, there is room for 4"),
        ({"ports": [1]}, "ports cannot be"),
        ({"regions": [(4, "w", 0, 4095)]}, "regions has VM 4"),
        ({"regions": [(1, "z", 0, 4095)]}, "regions cannot be"),
        ({"flags": ["loud"]}, "flags 'loud' is none of remote, "),
        ({"exceptions": [32]}, "exceptions is 0x100000000, it must be 0 to 0xffffffff"),
    ],
)
def test_what_python_says(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        policy_nvram(**fields)
    assert message in str(error.value)


def test_guests_are_files_of_the_flash_chip() -> None:
    files = guest_files()
    assert files["writer"] == "guest"
    assert len(files) == layout().symbols["GUEST_KINDS"]
    assert set(FILES) & set(files.values()) >= {"guest"}
