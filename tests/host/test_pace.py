"""Real time at an interactive console: how long the host sleeps, when, and that the guest sees nothing of it."""

import os
import pty
import sys
from pathlib import Path

import pytest

from emu import Machine, StopReason
from emu.cli import parser
from emu.commands.run import build
from emu.host.pace import Pacer

HZ = 1000

# Twelve waits in HLT of 55 ms, by the 8254, then debug exit.
WAITER = """
        bits 16
        org 0
start:  cli
        xor     ax, ax
        mov     ds, ax
        mov     ss, ax
        mov     sp, 1000h
        mov     word [8 * 4], tick
        mov     [8 * 4 + 2], cs
        mov     al, 11h
        out     20h, al
        mov     al, 8
        out     21h, al
        mov     al, 4
        out     21h, al
        mov     al, 1
        out     21h, al
        mov     al, 0FEh
        out     21h, al
        mov     al, 34h
        out     43h, al
        xor     al, al
        out     40h, al
        out     40h, al
        mov     cx, 12
        sti
.wait:  hlt
        loop    .wait
        mov     al, 0
        out     0F4h, al
        cli
        hlt
tick:   push    ax
        mov     al, 20h
        out     20h, al
        pop     ax
        iret
        times 0FFF0h - ($ - $$) db 0
        jmp     0F000h:start
        times 10000h - ($ - $$) db 0
"""


class Guest:
    """A processor that is where a test says."""

    def __init__(self) -> None:
        self.cycles = 0
        self.halted = False


class Host:
    """A host's clock that goes on only while it sleeps or a test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds


def made() -> tuple[Guest, Host, Pacer]:
    guest, host = Guest(), Host()
    return guest, host, Pacer(guest, HZ, host.clock, host.sleep)


def test_waiting_lasts_its_time() -> None:
    guest, host, pacer = made()
    guest.halted = True
    for _ in range(1000):
        guest.cycles += 2  # 2 ms
        host.now += 0.0001
        pacer.poll()
    assert abs(host.now - 100 - 2) < 0.02
    assert host.slept == pytest.approx(1.9, abs=0.02)


def test_working_is_not_held_back() -> None:
    guest, host, pacer = made()
    for _ in range(100):
        guest.cycles += 1000
        pacer.poll()
    assert host.slept == 0
    guest.halted = True  # and the time that it was ahead by working is not made up for
    guest.cycles += 5
    pacer.poll()
    assert host.slept == 0


def test_a_host_that_is_slower_owes_nothing() -> None:
    guest, host, pacer = made()
    guest.halted = True
    host.now += 5
    pacer.poll()
    guest.cycles += 100
    pacer.poll()
    assert host.slept == pytest.approx(0.1)


def options(*arguments: str) -> object:
    return parser().parse_args(["run", "-q", *arguments])


def paced(monkeypatch: pytest.MonkeyPatch, terminal: bool, *arguments: str) -> bool:
    """Whether `emu run` with these arguments waits in real time, with standard input a terminal or none."""
    parent, child = pty.openpty() if terminal else os.pipe()[::-1]
    with os.fdopen(child, "rb", buffering=0) as stdin, os.fdopen(parent, "wb", buffering=0):
        monkeypatch.setattr(sys, "stdin", stdin)
        with build(options(*arguments)) as machine:  # type: ignore[arg-type]
            return machine.pacer is not None


def test_who_is_paced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert paced(monkeypatch, True)
    assert not paced(monkeypatch, False)
    assert not paced(monkeypatch, True, "--serial", "null")
    assert not paced(monkeypatch, True, "--pace", "off")
    assert paced(monkeypatch, False, "--pace", "on", "--serial", "null")


def test_the_results_are_the_same(tmp_path: Path) -> None:
    source = tmp_path / "wait.asm"
    source.write_text(WAITER)
    host = Host()
    seen = []
    for paced in (False, True):
        with Machine(1 << 20, firmware=source, debug_exit=0xF4) as machine:
            if paced:
                machine.pacer = Pacer(machine.cpu, machine.board.clock.hz, host.clock, host.sleep)
            stop = machine.run(seconds=2)
            hz = machine.board.clock.hz
            seen.append((stop, machine.cycles, machine.instructions, machine.memory.read(0, 1 << 20)))
    assert seen[0] == seen[1] and seen[0][0].reason is StopReason.DEBUG_EXIT
    guest_seconds = seen[0][1] / hz  # it does little else than wait
    assert 0.5 < guest_seconds - 0.02 < host.slept < guest_seconds
