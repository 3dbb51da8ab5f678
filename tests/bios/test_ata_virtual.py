"""The virtual ATA channel of a VM, and the change of hands between a guest and the Service VM.

The oracle is the same guest on the bare machine: what it prints (checksums of what it read, its task file, interrupts)
must be the same, whatever happens to its drive in between.
"""

import random
import re
from pathlib import Path

import pytest

from bios.build import flash
from emu import Disk, Machine
from emu.builtin.policy import policy_nvram
from emu.builtin.service_disk import make_disk, read_hpa
from emu.host.disk import SECTOR

from .conftest import Built
from .service import program
from .vmm import BARE_MEMORY, Vmm, files_of

HERE = Path(__file__).parent
MIB = 1 << 20
MEMORY = 32 * MIB
SERVICE_SECTORS = range(3000, 3002)  # of ata_service.asm
DATA_PORT = [(0x1F0, 0x1F0)]


def guest(built: Built, tmp_path: Path, source: str) -> bytes:
    """A guest that runs `source` as its routine `program`."""
    text = f'%include "{HERE / "ata_guest.inc"}"\nprogram:\n{source}\n        ret\n'
    return program(text, built.folder, tmp_path / "guest.asm", "guest")


def disk(path: Path) -> Path:
    """A disk with something in each sector, and an HPA."""
    make_disk(path, size=4 * MIB, partition=0, dump=MIB)
    data = bytearray(path.read_bytes())
    data[: 2 * MIB] = random.Random(7).randbytes(2 * MIB)
    path.write_bytes(data)
    return path


def told(console: str) -> list[str]:
    """What a guest has found: the lines of `say_all`."""
    return [line for line in console.splitlines() if line.startswith("=")]


def native(built: Built, image: bytes, *disks: Disk) -> list[str]:
    """What a guest finds on the bare machine."""
    rom = flash(built.rom()[-0x20000:], {**files_of(built.rom()), "guest": image})
    with Machine(BARE_MEMORY, "pentium3", firmware=rom, disks=list(disks)) as machine:
        machine.run(seconds=60)
        return told(machine.serial.output.decode())


def virtual(
    built: Built, tmp_path: Path, image: bytes, *disks: Disk, step: int = 1, **fields: object
) -> tuple[list[str], str]:
    """What a guest finds under the VMM, and the console with what the Service OS of ata_service.asm says."""
    source = f"%define STEP {step}\n" + (HERE / "ata_service.asm").read_text()
    service = program(source, built.folder, tmp_path / "service.asm", "vmm")
    rom = flash(built.rom()[-0x20000:], {**files_of(built.rom()), "guest": image, "service": service})
    nvram = policy_nvram(**{"boot": "service", "flags": [], "poll_us": 0, **fields})
    with Machine(MEMORY, firmware=rom, nvram=nvram, disks=list(disks)) as machine:
        machine.run(seconds=120)
        said = machine.serial.output.decode()
    assert "UNEXPECTED" not in said and "BAD" not in said and "DIFFERENT" not in said, said
    return told(said), said


def call_n(routine: str, blocks: int, words: int) -> str:
    """Moves blocks, each once the drive asks for it."""
    return blocks * f"        call    polled\n        mov     ecx, {words}\n        call    {routine}\n"


def command(lba: int, count: int, code: int) -> str:
    """Gives a command."""
    return f"        ata_give {lba}, {count}, {code}\n"


CONTROL = "        mov edx, ATA_PRIMARY + ATA_CONTROL\n        mov al, {}\n        out dx, al\n"
DEVICE = "        mov edx, ATA_PRIMARY + ATA_DEVICE\n        mov al, {}\n        out dx, al\n"
QUIET = CONTROL.format("ATA_NIEN") + "        mov edi, BUFFER\n"
MULTIPLE = command(0, 4, 0xC6) + "        call polled\n"
SOURCE = "        mov esi, PATTERN\n"
END = "        call polled\n        call say_all\n"
CHS = """        mov edx, ATA_PRIMARY + ATA_COUNT
        mov al, 2
        out dx, al
        inc edx
        mov al, 63
        out dx, al
        inc edx
        mov al, 1
        out dx, al
        inc edx
        mov al, 0
        out dx, al
        inc edx
        mov al, 0A3h
        out dx, al
        inc edx
        mov al, ATA_READ_SECTORS
        out dx, al
"""
# CHECK POWER MODE leaves FFh in the count register: FF02h sectors.
EXT = command(0, 0, 0xE5) + "        call polled\n" + command(500, 2, 0x24)
POLLED = {
    "read": (QUIET + command(100, 1, 0x20) + call_n("words_in", 1, 256) + END, 1),
    "write": (QUIET + SOURCE + command(200, 1, 0x30) + call_n("words_out", 1, 256) + END, 1),
    "read-3": (QUIET + command(100, 3, 0x20) + call_n("words_in", 3, 256) + END, 23),
    "write-3": (QUIET + SOURCE + command(200, 3, 0x30) + call_n("words_out", 3, 256) + END, 23),
    "read-multiple": (
        QUIET + MULTIPLE + command(300, 6, 0xC4) + call_n("words_in", 1, 1024) + call_n("words_in", 1, 512) + END,
        37,
    ),
    "write-multiple": (
        QUIET
        + SOURCE
        + MULTIPLE
        + command(400, 6, 0xC5)
        + call_n("words_out", 1, 1024)
        + call_n("words_out", 1, 512)
        + END,
        37,
    ),
    "identify": (QUIET + MULTIPLE + command(0, 0, 0xEC) + call_n("words_in", 1, 256) + END, 11),
    "chs": (QUIET + CHS + call_n("words_in", 2, 256) + END, 23),
    "ext": (QUIET + EXT + call_n("words_in", 2, 256) + END, 23),
}


@pytest.mark.parametrize("name", POLLED)
def test_the_controller_changes_hands_in_the_middle_of_a_block(built: Built, tmp_path: Path, name: str) -> None:
    """At each word, or each so-many-th, of a command's data the Service VM takes the drive, uses it, gives it back."""
    source, step = POLLED[name]
    image = guest(built, tmp_path, source)
    bare, shared = disk(tmp_path / "bare.img"), disk(tmp_path / "shared.img")
    wanted = native(built, image, Disk(bare))
    found, said = virtual(built, tmp_path, image, Disk(shared), step=step, ports=DATA_PORT)
    assert len(wanted) == 1 and found == wanted, said
    words = 256 * {"read": 1, "write": 1, "identify": 1, "chs": 2, "ext": 2}.get(name, 6 if "multiple" in name else 3)
    assert f"END {words // step} changes of hands" in said
    before, after = bytearray(bare.read_bytes()), bytearray(shared.read_bytes())
    for data in (before, after):
        del data[SERVICE_SECTORS.start * SECTOR : SERVICE_SECTORS.stop * SECTOR]
    assert before == after


AWAITED = "        call awaited\n"
STRING = "        mov edx, ATA_PRIMARY\n        mov ecx, {}\n        rep {}\n"
DRIVER = (
    "        mov edi, BUFFER\n"
    + command(0, 0, 0xEC) + AWAITED + STRING.format(256, "insw")
    + command(0, 8, 0xC6) + AWAITED
    + command(600, 20, 0xC4)
    + "".join(AWAITED + STRING.format(n * 128, "insd") for n in (8, 8, 4))
    + SOURCE + command(700, 20, 0xC5) + "        call polled\n"
    + "".join(STRING.format(n * 256, "outsw") + AWAITED for n in (8, 8, 4))
    + command(0, 0, 0xE7) + AWAITED
    + command(700, 9, 0x40) + AWAITED
    + command(700, 2, 0x20) + 2 * (AWAITED + STRING.format(256, "insw"))
    + "        call say_all\n"
    + "        mov edi, BUFFER\n        mov eax, [interrupts]\n        stosd\n        call say_all\n"
)  # fmt: skip


def test_a_driver_with_interrupts(built: Built, tmp_path: Path) -> None:
    """IDENTIFY, READ and WRITE MULTIPLE, FLUSH, VERIFY, by IRQ 14, REP INSW, INSD and OUTSW: as on the bare machine."""
    image = guest(built, tmp_path, DRIVER)
    bare, shared = disk(tmp_path / "bare.img"), disk(tmp_path / "shared.img")
    wanted = native(built, image, Disk(bare))
    found, said = virtual(built, tmp_path, image, Disk(shared))
    assert len(wanted) == 2 and found == wanted, said
    assert bare.read_bytes() == shared.read_bytes()


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_driver_with_interrupts_whose_drive_changes_hands(built: Built, tmp_path: Path, step: int) -> None:
    """The same with a change of hands before each access to the data register, and each command that is given."""
    image = guest(built, tmp_path, DRIVER)
    bare, shared = disk(tmp_path / "bare.img"), disk(tmp_path / "shared.img")
    wanted = native(built, image, Disk(bare))
    found, said = virtual(built, tmp_path, image, Disk(shared), step=step, ports=[(0x1F0, 0x1F0), (0x1F7, 0x1F7)])
    assert found == wanted, said
    assert "END 0 changes" not in said
    before, after = bytearray(bare.read_bytes()), bytearray(shared.read_bytes())
    for data in (before, after):
        del data[SERVICE_SECTORS.start * SECTOR : SERVICE_SECTORS.stop * SECTOR]
    assert before == after


def test_the_real_drive_is_at_the_same_word(built: Built, tmp_path: Path) -> None:
    """After each give the real drive has its request pending at the word at which the guest is, and no interrupt."""
    image = guest(built, tmp_path, POLLED["read-multiple"][0])
    service = program((HERE / "ata_service.asm").read_text(), built.folder, tmp_path / "service.asm", "vmm")
    rom = flash(built.rom()[-0x20000:], {**files_of(built.rom()), "guest": image, "service": service})
    nvram = policy_nvram(boot="service", flags=[], poll_us=0, ports=DATA_PORT)
    with Machine(MEMORY, firmware=rom, nvram=nvram, disks=[Disk(disk(tmp_path / "disk.img"))]) as machine:
        vmm = Vmm(machine, built.folder)
        positions = []
        for _ in range(12):
            machine.run(seconds=5, until=vmm.symbols["disk_resume"])
            machine.run(seconds=5, until=vmm.symbols["vmm_loop"])
            drive = machine.board.drives[0].save()
            noted = vmm.vm(1, "vata", vmm.symbols["vata_size"])
            words = int.from_bytes(noted[vmm.symbols["vata.words"] :][:4], "little")
            assert drive["position"] == 2 * words and drive["length"] == 4 * SECTOR and drive["multiple"] == 4
            assert drive["status"] == 0x58 and not drive["interrupt"] and drive["remaining"] == 2
            positions.append(words)
    assert positions == list(range(12))


def test_a_failed_write_is_an_event(built: Built, tmp_path: Path) -> None:
    """The Service VM is told, uses the very disk, and the guest finds the error as on the bare machine."""
    source = QUIET + SOURCE + command(200, 3, 0x30) + call_n("words_out", 2, 256) + END
    image = guest(built, tmp_path, source)
    disks = [Disk(disk(tmp_path / f"{number}.img")) for number in range(3)]
    for one in disks:
        one.fail(201, "write_fault")
    wanted = native(built, image, disks[0])
    assert wanted[0].endswith("71"), "DRDY, DF, DSC, ERR"
    found, said = virtual(built, tmp_path, image, disks[1], flags=["disk_failed"])
    assert found == wanted and "FAILED 00047130 000000C9" in said and "END 1 changes" in said, said
    found, said = virtual(built, tmp_path, image, disks[2])
    assert found == wanted and "FAILED" not in said, "the policy does not ask for it"


REFUSED = {
    "set-max-beyond": command(0, 0, 0xF8) + "        call polled\n" + command(8000, 0, 0xF9),
    "set-max-alone": command(100, 0, 0xF9),
    "set-max-lasting": command(0, 0, 0xF8) + "        call polled\n" + command(100, 1, 0xF9),
    "set-max-ext": command(0, 0, 0x27) + "        call polled\n" + command(100, 0, 0x37),
    "security": command(0, 0, 0xF1),
    "microcode": command(0, 0, 0x92),
    "dma": command(0, 1, 0xC8),
    "vendor": command(0, 0, 0x8A),
    "multiple-32": command(0, 32, 0xC6),
}


@pytest.mark.parametrize("name", REFUSED)
def test_commands_that_a_guest_may_not_give(built: Built, tmp_path: Path, name: str) -> None:
    image = guest(built, tmp_path, QUIET + REFUSED[name] + "        call polled\n        call say_registers\n")
    found, said = virtual(built, tmp_path, image, Disk(disk(tmp_path / "disk.img")), flags=["disk_failed"])
    assert len(found) == 1 and found[0][10:12] == "04" and found[0].endswith("51"), said
    assert "FAILED" not in said, "the real drive was not asked"


def test_the_host_protected_area_is_out_of_reach(built: Built, tmp_path: Path) -> None:
    """READ NATIVE MAX tells the guest's own limit; below it SET MAX does what it does; behind it nothing is found."""
    path = disk(tmp_path / "disk.img")
    limit = read_hpa(path).first
    source = QUIET
    for given in (
        command(0, 0, 0xF8), command(limit, 1, 0x20), command(0, 0, 0xF8), command(4999, 0, 0xF9),
        command(5000, 1, 0x20), command(0, 0, 0xF8), command(limit - 1, 0, 0xF9), command(limit - 1, 1, 0x40),
    ):  # fmt: skip
        source += given + "        call polled\n        call say_registers\n"
    found, said = virtual(built, tmp_path, guest(built, tmp_path, source), Disk(path))
    native_max = f"00{limit - 1 & 0xFF:02X}{limit - 1 >> 8:02X}00E050"
    assert [line[10:] for line in found] == [
        "00" + native_max, f"1001{limit & 0xFF:02X}{limit >> 8:02X}00E051", "00" + native_max, "0000871300E050",
        "1001881300E051", "00" + native_max, "00" + native_max, "0000" + native_max[2:],
    ], said  # fmt: skip


def test_a_channel_without_a_drive(built: Built, tmp_path: Path) -> None:
    image = guest(built, tmp_path, "        call say_registers\n")
    found, said = virtual(built, tmp_path, image)
    assert found == ["=00000000 FFFFFFFFFFFFFF"] and found == native(built, image), said


def test_software_reset_and_the_other_drive(built: Built, tmp_path: Path) -> None:
    """A reset in the middle of a block, the drive that is not there, and a command after all that."""
    source = QUIET + command(100, 2, 0x20) + call_n("words_in", 1, 100)
    source += CONTROL.format("ATA_SRST | ATA_NIEN") + CONTROL.format("ATA_NIEN")
    source += "        call polled\n        call say_all\n"
    source += DEVICE.format("0F0h") + "        call say_all\n" + DEVICE.format("0E0h")
    source += command(7, 1, 0x20) + call_n("words_in", 1, 256) + END
    image = guest(built, tmp_path, source)
    wanted = native(built, image, Disk(disk(tmp_path / "bare.img")))
    found, said = virtual(built, tmp_path, image, Disk(disk(tmp_path / "shared.img")), step=41, ports=DATA_PORT)
    assert len(wanted) == 3 and found == wanted, said


def test_drive_1_is_nobody_s(built: Built, tmp_path: Path) -> None:
    """Where a channel has two drives a guest finds drive 1 missing, as on the bare machine with one drive."""
    other = disk(tmp_path / "other.img")
    before = other.read_bytes()
    source = QUIET + command(100, 1, 0x20) + call_n("words_in", 1, 256)
    source += DEVICE.format("0F0h") + "        call say_all\n"
    for code in (0xEC, 0x30, 0xF8):
        source += f"        mov edx, ATA_PRIMARY + ATA_STATUS\n        mov al, {code}\n        out dx, al\n"
        source += SOURCE + "        mov ecx, 256\n        call words_out\n        call say_all\n"
    source += command(100, 1, 0x20) + call_n("words_in", 1, 256) + END
    image = guest(built, tmp_path, source)
    wanted = native(built, image, Disk(disk(tmp_path / "bare.img")))
    found, said = virtual(built, tmp_path, image, Disk(disk(tmp_path / "shared.img")), Disk(other), ports=DATA_PORT)
    assert len(wanted) == 5 and found == wanted, said
    assert other.read_bytes() == before


@pytest.mark.parametrize("step", [1, 3])
def test_two_guests_each_with_its_own_drive(built: Built, tmp_path: Path, step: int) -> None:
    """Both drive their disks by interrupts at once, while the Service VM takes one or the other and gives it back."""
    program_of = DRIVER.replace("        call say_all\n", "")
    image = guest(built, tmp_path, program_of)
    service = program(
        f"%define STEP {step}\n" + (HERE / "ata_service.asm").read_text(), built.folder, tmp_path / "s.asm", "vmm"
    )
    files = {**files_of(built.rom()), "guest": image, "healthy": image, "service": service}
    paths = [disk(tmp_path / f"{number}.img") for number in range(4)]
    for number, path in enumerate(paths):  # so that they differ
        data = bytearray(path.read_bytes())
        data[600 * SECTOR : 620 * SECTOR] = random.Random(number).randbytes(20 * SECTOR)
        path.write_bytes(data)
    before = [path.read_bytes() for path in paths]
    fields = {"flags": [], "poll_us": 0, "ports": [(0x1F0, 0x1F0), (0x1F7, 0x1F7)], "guests": ["writer", "healthy"]}
    nvram = policy_nvram(boot="service", **fields)
    disks = [Disk(path) for path in paths]
    with Machine(MEMORY, firmware=flash(built.rom()[-0x20000:], files), nvram=nvram, disks=disks) as machine:
        vmm = Vmm(machine, built.folder)
        machine.run(seconds=60)
        said = machine.serial.output.decode("latin-1")
        assert "no guest" not in said and "BAD" not in said and "DIFFERENT" not in said, said[-500:]
        changes = re.findall(r"END (\d+) changes", said)
        assert changes and int(changes[0]) > 20 // step, said[-500:]
        buffers = [machine.memory.read(vmm.guest_memory(number)[0] + 0x300000, 23 * SECTOR) for number in (1, 2)]
        pattern = machine.memory.read(vmm.guest_memory(1)[0] + 0x380000, 20 * SECTOR)
    for buffer, place in zip(buffers, (0, 2), strict=True):
        assert buffer[SECTOR : 21 * SECTOR] == before[place][600 * SECTOR : 620 * SECTOR]
        assert buffer[21 * SECTOR :] == pattern[: 2 * SECTOR]
        after = bytearray(paths[place].read_bytes())
        assert after[700 * SECTOR : 720 * SECTOR] == pattern
        for first, last in ((700, 720), (SERVICE_SECTORS.start, SERVICE_SECTORS.stop)):
            after[first * SECTOR : last * SECTOR] = before[place][first * SECTOR : last * SECTOR]
        assert after == before[place]
    assert [paths[place].read_bytes() for place in (1, 3)] == [before[place] for place in (1, 3)]
