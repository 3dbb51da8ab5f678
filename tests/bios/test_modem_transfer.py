"""Files over the modem line by YMODEM, to a receiver written from the protocol's description, to bad ones, and to `rb`.

The sender runs on the bare machine with its real UART, timer and interrupt controllers, as the Service OS uses its own.
"""

import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from bios.build import flash
from emu import Machine, StopReason
from emu.builtin.policy import policy_nvram
from emu.host.backend import Backend
from emu.host.pace import Pacer
from emu.host.tcp import TcpBackend
from emu.host.ymodem import CAN, NAK, YmodemReceiver

from .conftest import Built
from .service import MEMORY, program, shell
from .test_dump import Core
from .vmm import BARE_MEMORY, files_of

FIRST = bytes(n * 7 & 0xFF for n in range(5000))  # not a multiple of a block
SECOND = b"a short one"
PROGRAM = """
%include "x86.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "image.inc"
%include "console.inc"
%include "acpi_off.inc"
%include "interrupts.inc"
%include "clock.inc"
%include "input.inc"
%include "modem.inc"
%include "ymodem.inc"
%macro file 3
        mov     dword [next], %2
        mov     dword [end], %2 + %3
        mov     esi, %1
        mov     eax, %3
        mov     ebp, part
        call    ymodem_file
%endmacro
main:
        mov     dword [recovery], failed
        mov     [recovery_stack], esp
        call    interrupts_init
        call    modem_open
        jc      .off
        file    name_1, first, FIRST_BYTES
        jc      .close
        file    name_2, second, SECOND_BYTES
        jc      .close
        call    ymodem_finish
        mov     esi, text_all
        call    console_text
.close: call    modem_close
.off:
        mov     esi, text_on
        call    console_text
        jmp     acpi_power_off
failed: hlt
part:
        mov     esi, [next]
        mov     ecx, [end]
        sub     ecx, esi
        cmp     ecx, YM_BLOCK
        jbe     .copy
        mov     ecx, YM_BLOCK
.copy:
        add     [next], ecx
        push    ecx
        rep movsb
        pop     ecx
        ret
next:   dd      0
end:    dd      0
name_1: db      "first.bin", 0
name_2: db      "second.txt", 0
text_all: db    "all sent", 13, 10, 0
text_on: db     "goes on", 13, 10, 0
"""


class Receiver(YmodemReceiver):
    """The other end of the line, which may be disturbed.

    spoil: numbers of blocks, counted from 0 over all that arrive, that are taken as damaged.
    swallow: numbers of answers that get lost.
    """

    def __init__(self, spoil: frozenset[int] = frozenset(), swallow: frozenset[int] = frozenset()) -> None:
        super().__init__()
        self.spoil, self.swallow = spoil, swallow
        self.answers = 0
        self.here = True

    @property
    def connected(self) -> bool:
        return self.here

    def damaged(self, block: bytes) -> bool:
        return self.blocks - 1 in self.spoil or super().damaged(block)

    def answer(self, *codes: int) -> None:
        self.answers += 1
        if self.answers - 1 not in self.swallow:
            super().answer(*codes)


def send(built: Built, tmp_path: Path, peer: Backend) -> tuple[str, float]:
    """What the console says, and the seconds of guest time that the sending took."""
    data = "".join(
        f"{label}: db {', '.join(map(str, content))}\n" for label, content in (("first", FIRST), ("second", SECOND))
    )
    source = f"FIRST_BYTES equ {len(FIRST)}\nSECOND_BYTES equ {len(SECOND)}\n{PROGRAM}{data}"
    image = program(source, built.folder, tmp_path / "sender.asm")
    rom = flash(built.rom()[-0x20000:], {**files_of(built.rom()), "guest": image})
    with Machine(BARE_MEMORY, "pentium3", firmware=rom, modem=peer) as machine:
        machine.run(seconds=5, until=0x10000)
        before = machine.board.clock.cycle
        assert machine.run(seconds=200).reason is StopReason.POWERED_OFF
        console = machine.serial.output.decode()
        return console[console.index("bare machine") :], (machine.board.clock.cycle - before) / machine.board.clock.hz


def test_two_files_arrive(built: Built, tmp_path: Path) -> None:
    peer = Receiver()
    console, _ = send(built, tmp_path, peer)
    assert peer.files == {"first.bin": FIRST, "second.txt": SECOND} and peer.done
    assert "all sent" in console


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_damaged_blocks_and_lost_answers(built: Built, tmp_path: Path, seed: int) -> None:
    peer = Receiver(spoil=frozenset({seed - 1, seed + 1, seed + 2}), swallow=frozenset({seed + 3}))
    console, _ = send(built, tmp_path, peer)
    assert peer.files == {"first.bin": FIRST, "second.txt": SECOND}, console
    assert "all sent" in console


class Silent(Receiver):
    """Never says anything."""

    def read(self, limit: int) -> bytes:
        return b""


class Leaves(Receiver):
    """Hangs up after the second block."""

    def take(self) -> bool:
        taken = super().take()
        if self.blocks == 2:
            self.here = False
            self.reply.clear()
        return taken


class Refuses(Receiver):
    """NAKs whatever comes."""

    def answer(self, *codes: int) -> None:
        self.reply.append(NAK)


class Floods(Receiver):
    """Begins, and then sends what nobody asked for, as fast as the line goes."""

    def answer(self, *codes: int) -> None:
        pass

    def read(self, limit: int) -> bytes:
        return b"x" * limit if self.blocks else super().read(limit)


class Cancels(Receiver):
    """Cancels in the middle."""

    def answer(self, *codes: int) -> None:
        self.reply += bytes(codes) if self.blocks < 3 else bytes([CAN, CAN])


class Stops(Receiver):
    """Falls silent in the middle."""

    def answer(self, *codes: int) -> None:
        if self.blocks < 3:
            super().answer(*codes)


class Absent(Receiver):
    """Is not there."""

    here = False

    def __init__(self) -> None:
        super().__init__()
        self.here = False


@pytest.mark.parametrize(
    ("peer", "says", "seconds"),
    [
        (Silent, "first.bin: nobody asks for it", 2),
        (Leaves, "first.bin: the peer has hung up", 2),
        (Refuses, "first.bin: refused again and again", 5),
        (Floods, "first.bin: the peer floods the line", 5),
        (Cancels, "first.bin: the peer has cancelled it", 5),
        (Stops, "first.bin: no answer", 60),
        (Absent, "nobody is on the line", 1),
    ],
)
def test_bad_peers(built: Built, tmp_path: Path, peer: type[Receiver], says: str, seconds: int) -> None:
    """One line on the console, within a bounded time, and on it goes."""
    console, took = send(built, tmp_path, peer())
    assert says in console and "all sent" not in console and "goes on" in console
    assert len(re.findall("modem|nobody", console)) <= 2
    assert took < seconds


def test_the_report_of_a_fault_goes_out_as_the_policy_says(built: Built) -> None:
    """Through the Service VM's own COM2: the report is what the console said."""
    peer = Receiver()
    nvram = policy_nvram(boot="service", flags=["report"], after="stop")
    with Machine(MEMORY, "westmere", firmware=built.rom(), nvram=nvram, modem=peer) as machine:
        assert machine.run(seconds=20).reason is StopReason.POWERED_OFF
        said = machine.serial.output.decode()
    assert peer.done and set(peer.files) == {"report.txt"}
    report = peer.files["report.txt"].decode()
    assert report in said and "service   VM 1 wrote to protected memory" in report and "CPU temperature" in report


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("rb") is None, reason="lrzsz is not installed")
def test_a_dump_goes_to_a_real_receiver(built: Built, tmp_path: Path) -> None:
    """`rb` of lrzsz on the modem's TCP port gets the guest's memory."""
    line = TcpBackend(0)
    with shell(built.rom(), built.folder, modem=line) as opened:
        with socket.create_connection(("127.0.0.1", line.port)) as peer:
            receiver = subprocess.Popen(
                ["rb"], cwd=tmp_path, stdin=peer.fileno(), stdout=peer.fileno(), stderr=subprocess.DEVNULL
            )
        try:
            opened.machine.pacer = Pacer(opened.machine.cpu, opened.machine.board.clock.hz)
            opened.machine.run(seconds=0.1)
            opened.machine.serial.send(b"modem 1\r")
            said = opened.wait(seconds=100)
            opened.machine.run(seconds=0.1)
            assert receiver.wait(timeout=60) == 0, said
        finally:
            receiver.kill()
        core = (tmp_path / "dump.core").read_bytes()
        assert f"service   modem: dump.core sent, {len(core)} bytes\r\n" in said
        base, size = opened.vmm.guest_memory()
        memory = opened.machine.memory.read(base, size)
    for page, content in Core(core).physical(len(memory)).items():
        if page < 0xA0000 or page >= 0x100000:
            assert content == memory[page : page + 4096], hex(page)
