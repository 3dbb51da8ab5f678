"""The stub, driven by a real gdb: registers, memory, breakpoints, watchpoints, stepping, detaching, the guest's end."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

import asm
import emu
from asm.program import Program
from emu.debug.gdb import GdbServer
from emu.debug.registers import layout_for
from emu.debug.remote import Connection, Disconnected, checksum, escape, unescape
from emu.machine import exit_status
from emu.stop import Stop, StopReason

GDB = shutil.which("gdb")

# Real mode at F000:0000, a loop that counts in memory, then protected mode, then power-off by the debug-exit port.
SOURCE = """
        bits 16
        org 0F0000h
start:  xor ax, ax
        mov ds, ax
        mov dword [counter], 0
        mov cx, 5
count:  inc dword [counter]
        loop count
counted:
        cli
        lgdt [cs:gdt_pointer - 0F0000h]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword 8:flat
        align 8
gdt:    dq 0, 00CF9B000000FFFFh, 00CF93000000FFFFh
gdt_pointer:
        dw $ - gdt - 1
        dd gdt
counter equ 600h
        bits 32
flat:   mov ax, 10h
        mov ds, ax
        mov ss, ax
        mov esp, 8000h
        mov ebx, 12345678h
        push ebx
        call leaf
        mov al, 3
        out 0F4h, al
        jmp $
leaf:   add ebx, 1
        ret
        times 0FFF0h - ($ - $$) db 0
        bits 16
        jmp 0F000h:0
        times 10000h - ($ - $$) db 0
"""


@pytest.fixture(scope="module")
def program() -> Program:
    return asm.assemble(SOURCE)


def rom_of(*lines: str) -> str:
    """A ROM of 64 KiB that runs these lines in real-address mode from F000:0000."""
    end = ("times 0FFF0h - ($ - $$) db 0", "jmp 0F000h:0", "times 10000h - ($ - $$) db 0")
    return "\n".join(("bits 16", "org 0F0000h", *lines, *end))


class Session:
    """A machine that serves a debugger on a thread of its own."""

    def __init__(self, rom: bytes | None = None, symbols: dict[str, int] | None = None) -> None:
        """Without a ROM it is the built-in firmware, with its symbols."""
        memory = 64 << 20 if rom is None else 1 << 20
        self.machine = emu.Machine(memory=memory, firmware=rom, debug_exit=0xF4)
        self.server = GdbServer(self.machine, 0, exit_status, self.machine.symbols if rom is None else symbols)
        self.stop: Stop | None = None
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        self.stop = self.server.serve(timeout=60)

    def end(self) -> Stop:
        self.thread.join(60)
        assert self.stop is not None
        self.server.close()
        self.machine.close()
        return self.stop

    @property
    def target(self) -> str:
        """The command that connects gdb."""
        return f"target remote 127.0.0.1:{self.server.port}"

    def start_gdb(self, *commands: str) -> subprocess.Popen[str]:
        """Starts a real gdb that connects and does these commands."""
        if GDB is None:
            pytest.skip("gdb is not installed")
        arguments = [GDB, "-nx", "-batch"]
        for command in ("set confirm off", self.target, *commands):
            arguments += ["-ex", command]
        # A sanitized build preloads a library that gdb cannot live with.
        env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)

    def gdb(self, *commands: str) -> str:
        """Runs these commands in a real gdb that is connected, and returns what it prints."""
        with self.start_gdb(*commands) as process:
            return process.communicate(timeout=60)[0]

    def wait_until_it_runs(self) -> None:
        """Until the debugger has let the machine run."""
        for _ in range(6000):
            if self.machine.cpu.running:
                return
            time.sleep(0.01)
        raise AssertionError("the machine stands")


@pytest.fixture
def session(program: Program) -> Session:
    return Session(program.binary)


def test_gdb_sees_the_reset_vector_and_the_registers(session: Session) -> None:
    out = session.gdb("print/x $eip", "print/x $cs", "print/x $cs_base", "print/x $cr0", "print/x $edx", "kill")
    assert "$1 = 0xfffffff0" in out  # the linear address
    assert "$2 = 0xf000" in out
    assert "$3 = 0xffff0000" in out
    assert "$4 = 0x60000010" in out
    assert "$5 = 0x206c2" in out  # EDX after reset: family, model and stepping
    assert session.end().reason is StopReason.STOPPED


def test_gdb_breaks_in_real_mode_and_reads_and_writes_memory(session: Session, program: Program) -> None:
    count, counted = program.symbols["count"], program.symbols["counted"]
    out = session.gdb(
        f"break *{count:#x}", "continue", "continue", "print/x $eip", "print $ecx", "x/1dw 0x600", "delete",
        "set var *(int *)0x600 = 100", f"break *{counted:#x}", "continue", "x/1dw 0x600", "kill",
    )  # fmt: skip
    assert f"Breakpoint 1, {count:#010x}" in out
    assert f"$1 = {count:#x}" in out
    assert "$2 = 4" in out
    assert "0x600:\t1" in out
    assert "0x600:\t104" in out
    assert session.end().reason is StopReason.STOPPED


def test_gdb_fetches_the_symbols_by_itself(program: Program) -> None:
    session = Session(program.binary, program.symbols)
    out = session.gdb("break leaf", "continue", "x/2i $pc", "info symbol $pc", "print/x &counted", "kill")
    assert "Breakpoint 1, " in out and " in leaf ()" in out
    assert "<leaf>:\tadd" in out
    assert "leaf in section .text" in out
    assert f"= {program.symbols['counted']:#x}" in out
    session.end()


def test_gdb_watches_memory_and_steps(session: Session, program: Program) -> None:
    leaf = program.symbols["leaf"]
    out = session.gdb(
        "watch *(int *)0x600", "continue", "continue", "info watchpoints", "delete", f"hbreak *{leaf:#x}", "continue",
        "stepi", "print/x $ebx", "stepi", "x/2xw $esp", "kill",
    )  # fmt: skip
    assert "New value = 1" in out
    assert "breakpoint already hit 2 times" in out
    assert "$1 = 0x12345679" in out
    assert "0x12345678" in out.rsplit("(gdb)", 1)[-1]
    assert session.end().reason is StopReason.STOPPED


def test_gdb_writes_registers_and_sees_the_guest_end(session: Session, program: Program) -> None:
    out = session.gdb(
        f"break *{program.symbols['leaf']:#x}", "continue", "set $ebx = 7", "stepi", "print $ebx", "continue"
    )
    assert "$1 = 8" in out
    assert "exited with code 07" in out
    assert session.end() == Stop(StopReason.DEBUG_EXIT, 7)


def test_gdb_detaches_and_the_machine_goes_on(session: Session) -> None:
    session.gdb("stepi", "detach")
    assert session.end() == Stop(StopReason.DEBUG_EXIT, 7)


def test_gdb_sees_a_triple_fault_where_it_happened() -> None:
    rom = asm.assemble(rom_of("lidt [cs:none - 0F0000h]", "ud2", "none: dq 0"))
    session = Session(rom.binary)
    out = session.gdb("continue", "print/x $eip", "kill")
    assert "triple fault" in out
    assert "SIGSEGV" in out
    assert session.end().reason is StopReason.STOPPED


def test_gdb_stops_at_reads_and_at_any_access() -> None:
    rom = asm.assemble(rom_of("xor ax, ax", "mov ds, ax", "mov [600h], ax", "r: mov bx, [600h]", "w: mov [600h], cx",
                              "mov bx, [600h]", "e: hlt"))  # fmt: skip
    session = Session(rom.binary)
    out = session.gdb(
        "rwatch *(short *)0x600", "continue", "print/x $eip", "delete", "awatch *(short *)0x600", "continue",
        "print/x $eip", "continue", "print/x $eip", "kill",
    )  # fmt: skip
    assert "Hardware read watchpoint 1" in out and "Hardware access (read/write) watchpoint 2" in out
    write, end = rom.symbols["w"], rom.symbols["e"]
    assert f"$1 = {write:#x}" in out  # the store before it is no read
    assert f"$2 = {write + 4:#x}" in out and f"$3 = {end:#x}" in out
    session.end()


def test_gdb_interrupts_a_running_machine() -> None:
    """Ctrl-C: gdb stops, shows where, steps, and can run on."""
    rom = asm.assemble(rom_of("mov cx, 1234h", "l: inc ax", "jmp l"))
    session = Session(rom.binary)
    with session.start_gdb("continue", "print/x $ecx", "stepi", "print/x $ecx + 1", "kill") as process:
        session.wait_until_it_runs()
        process.send_signal(signal.SIGINT)
        out = process.communicate(timeout=60)[0]
    assert "received signal SIGINT" in out
    assert "$1 = 0x1234" in out and "$2 = 0x1235" in out
    assert session.end().reason is StopReason.STOPPED


def test_gdb_knows_16_bit_code_flags_and_the_x87_unit() -> None:
    rom = asm.assemble(rom_of("s: fninit", "mov ax, 1234h", "add ax, 0EDCCh", "jz far_", "nop",
                              "far_: hlt"))  # fmt: skip
    session = Session(rom.binary, rom.symbols)
    out = session.gdb(
        "stepi", "stepi", "set architecture i8086", "x/i $pc", "stepi", "print/x $ax", "print/x $ah", "stepi",
        "print $eflags", "set $ax = 0x77", "print/x $eax", "set architecture i386", "x/i $pc", "info float", "kill",
    )  # fmt: skip
    assert "mov    $0x1234,%ax" in out
    assert "$1 = 0x1234" in out and "$2 = 0x12" in out
    assert "$3 = [ CF PF AF ZF ]" in out
    assert "$4 = 0x77" in out
    assert "Control Word:        0x037f" in out and "Tag Word:            0xffff" in out
    assert "warning" not in out.replace("warning: File transfers from remote targets can be slow.", "")
    session.end()


def test_gdb_sees_the_sse_registers() -> None:
    """FXRSTOR has loaded them from what is in memory."""
    body = ("xor ax, ax", "mov ds, ax", "mov eax, 200h", "mov cr4, eax", "fninit", "fxsave [1000h]",
            "mov dword [1018h], 1FA0h", "mov dword [10A4h], 40490FDBh", "fxrstor [1000h]", "s: hlt")  # fmt: skip
    rom = asm.assemble(rom_of(*body))
    session = Session(rom.binary, rom.symbols)
    out = session.gdb("break s", "continue", "print $xmm0.v4_float[1]", "print $mxcsr", "info vector", "kill")
    assert "$1 = 3.14159274" in out
    assert "$2 = [ PE IM DM ZM OM UM PM ]" in out
    assert "xmm7 " in out and "xmm8" not in out
    session.end()


def test_a_model_without_sse_has_no_such_registers() -> None:
    description = {name: layout_for(emu.Cpu(cpu=name)).xml for name in ("i386", "pentium3", "westmere")}
    assert [b"xmm" in xml for xml in description.values()] == [False, True, True]


LONG_MODE = """
        bits 16
        org 0F0000h
        xor ax, ax
        mov ds, ax
        mov dword [1000h], 2003h        ; page tables: 2 MiB, mapped to themselves
        mov dword [2000h], 3003h
        mov dword [3000h], 83h
        mov eax, 20h                    ; CR4.PAE
        mov cr4, eax
        mov eax, 1000h
        mov cr3, eax
        mov ecx, 0C0000080h             ; IA32_EFER.LME
        mov eax, 100h
        xor edx, edx
        wrmsr
        lgdt [cs:gdt_pointer - 0F0000h]
        mov eax, cr0
        or eax, 80000001h
ready:  mov cr0, eax
        jmp dword 8:long_code
        align 8
gdt:    dq 0, 00209B0000000000h
gdt_pointer:
        dw $ - gdt - 1
        dd gdt
        bits 64
long_code:
        mov r15, 123456789ABCDEF0h
        mov rax, r15
stay:   mov al, 9
        out 0F4h, al
        times 0FFF0h - ($ - $$) db 0
        bits 16
        jmp 0F000h:0
        times 10000h - ($ - $$) db 0
"""


def test_gdb_learns_of_long_mode_when_it_connects_again() -> None:
    """`disconnect` leaves the machine where it stands; the new connection has the 64-bit registers and symbols."""
    program = asm.assemble(LONG_MODE)
    session = Session(program.binary, program.symbols)
    out = session.gdb(
        "set architecture i386", "break ready", "continue", "stepi", "disconnect", "set architecture auto", "file",
        session.target, "stepi", "x/i $pc", "stepi",
        "print/x $r15", "break stay", "continue", "print/x $rax", "print/x $eax", "continue",
    )  # fmt: skip

    assert "the processor has entered long mode" in out and "`set architecture auto`" in out
    assert "<long_code>:\tmovabs $0x123456789abcdef0,%r15" in out
    assert "$1 = 0x123456789abcdef0" in out and "$2 = 0x123456789abcdef0" in out and "$3 = 0x9abcdef0" in out
    assert " in stay ()" in out
    assert "exited with code 023" in out  # in octal
    assert session.end() == Stop(StopReason.DEBUG_EXIT, 19)


def test_gdb_disconnects_and_another_one_finds_the_machine_where_it_was(session: Session, program: Program) -> None:
    counted = program.symbols["counted"]
    assert f"Breakpoint 1, {counted:#010x}" in session.gdb(f"break *{counted:#x}", "continue", "disconnect")
    out = session.gdb("print/x $eip", "x/1dw 0x600", "continue")
    assert f"$1 = {counted:#x}" in out and "0x600:\t5" in out
    assert "exited with code 07" in out  # no breakpoint of the first one is left
    assert session.end() == Stop(StopReason.DEBUG_EXIT, 7)


def test_gdb_steps_into_interrupt_handlers_and_out_of_them() -> None:
    """One step: an instruction, or the interrupt or exception that comes in its place, whose handler has not begun."""
    rom = asm.assemble(rom_of("xor ax, ax", "mov ds, ax", "mov dword [0], 0F0000000h + handler - 0F0000h",
                              "d: div al", "after: nop", "handler: inc word [2]", "iret"))  # fmt: skip
    session = Session(rom.binary, rom.symbols)
    out = session.gdb("break d", "continue", "stepi", "x/i $pc", "stepi", "stepi", "x/i $pc", "kill")
    assert "=> " + f"{rom.symbols['handler']:#x} <handler>:" in out
    assert "=> " + f"{rom.symbols['d']:#x} <d>:" in out
    session.end()


def test_gdb_steps_across_vm_entry_and_vm_exit() -> None:
    """The built-in VMM: a step of VMLAUNCH ends at the guest's first instruction, one into a VM exit at the VMM's."""
    session = Session()
    out = session.gdb(
        "break vmm_loop", "continue", "delete", "find /b vmm_loop, +80, 0x0f, 0x01, 0xc2", "break *$_", "continue",
        "x/i $pc", "stepi", "print/x $eip", "print/x $cs", "break vmm_vm_exit", "continue", "print/x $cr3", "stepi",
        "print/x $cs", "kill",
    )  # fmt: skip
    assert "vmlaunch" in out
    assert "$1 = 0x10000" in out and "$2 = 0x1000" in out  # the Service VM begins in real mode
    assert " in vmm_vm_exit ()" in out
    assert "$4 = 0x8" in out
    assert session.end().reason is StopReason.STOPPED


def test_monitor_commands(session: Session) -> None:
    out = session.gdb("stepi", "monitor cycles", "monitor phys 0xf0000 4", "monitor nonsense", "kill")
    assert "1 instructions" in out
    assert "0x000f0000: 31 c0 8e d8" in out
    assert "monitor commands:" in out


@pytest.mark.parametrize("command", ["phys x 4", "phys 0 -", "phys -1 4", "phys 0x10000000000000000 4"])
def test_a_monitor_command_with_wrong_numbers_says_so(session: Session, command: str) -> None:
    out = session.gdb(f"monitor {command}", "kill")
    assert f"no physical memory: {command}" in out
    session.end()


# --- the protocol by itself -------------------------------------------------------------------------------------------


@pytest.fixture
def line(session: Session) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", session.server.port), timeout=20) as client:
        yield client
        client.close()
        session.end()


def exchange(client: socket.socket, body: bytes) -> bytes:
    """Sends a packet and returns the body of the answer."""
    client.sendall(b"$" + body + b"#" + checksum(body))
    received = b""
    while b"#" not in received[:-2]:
        data = client.recv(65536)
        assert data, "the stub hung up"
        received += data
    client.sendall(b"+")
    return received.lstrip(b"+")[1:-3]


def test_escapes_round_trip() -> None:
    body = bytes(range(256))
    assert unescape(escape(body)) == body
    assert not set(escape(body)) & set(b"$#*")


@pytest.mark.parametrize(
    ("packet", "answer"),
    [
        (b"p999", b"E01"),
        (b"pzz", b"E01"),
        (b"P0=12", b"OK"),
        (b"Pfff=00", b"E01"),
        (b"m", b"E01"),
        (b"m-1,4", b"E01"),
        (b"M600,2:00", b"E01"),
        (b"M600,1:zz", b"E01"),
        (b"Z9,0,1", b""),
        (b"Z0,zz,1", b"E01"),
        (b"z0,600,1", b"OK"),
        (b"X600,1:a", b""),
        (b"qXfer:features:read:target.xml:0", b"E01"),
        (b"qRcmd,zz", b"E01"),
        (b"qRcmd,", None),
        (b"\xff\xfe", b""),
        (b"vMustReplyEmpty", b""),
        (b"qSearch:memory:f0000;10;\xfa\xfc", b""),
    ],
)
def test_bad_packets_get_an_answer(line: socket.socket, packet: bytes, answer: bytes | None) -> None:
    got = exchange(line, packet)
    if answer is None:
        assert b"monitor commands" in bytes.fromhex(got.decode())
    else:
        assert got == answer
    assert exchange(line, b"?") == b"T05"
    line.sendall(b"$k#6b")


def test_a_wrong_checksum_is_refused_and_asked_for_again(line: socket.socket) -> None:
    line.sendall(b"$?#00")
    assert line.recv(1) == b"-"
    assert exchange(line, b"?") == b"T05"
    line.sendall(b"$k#6b")


def leave(session: Session) -> Stop:
    """A debugger comes and detaches: the machine runs to its end."""
    with socket.create_connection(("127.0.0.1", session.server.port), timeout=20) as client:
        assert exchange(client, b"D") == b"OK"
        return session.end()


def test_a_flood_without_end_is_hung_up_on(session: Session) -> None:
    """And the machine waits for a debugger as before."""
    with socket.create_connection(("127.0.0.1", session.server.port), timeout=20) as client:
        try:
            for _ in range(64):
                client.sendall(b"$" + b"a" * 65536)
        except OSError:
            pass
    assert leave(session) == Stop(StopReason.DEBUG_EXIT, 7)


def test_a_connection_that_breaks_while_the_machine_runs_stops_it() -> None:
    rom = asm.assemble(rom_of("l: inc ax", "jmp l"))
    session = Session(rom.binary)
    with socket.create_connection(("127.0.0.1", session.server.port), timeout=20) as client:
        client.sendall(b"$c#63")
        assert client.recv(1) == b"+"
    with socket.create_connection(("127.0.0.1", session.server.port), timeout=20) as client:
        first = exchange(client, b"qRcmd," + b"cycles".hex().encode())
        assert exchange(client, b"qRcmd," + b"cycles".hex().encode()) == first
        client.sendall(b"+$k#6b")
    session.end()


def test_whoever_sends_no_packet_leaves_a_running_machine_running() -> None:
    rom = asm.assemble(rom_of("l: in al, 80h", "cmp al, 5Ah", "jne l", "out 0F4h, al"))
    session = Session(rom.binary)
    with socket.create_connection(("127.0.0.1", session.server.port), timeout=20) as client:
        assert exchange(client, b"D") == b"OK"
    with socket.create_connection(("127.0.0.1", session.server.port), timeout=20):
        pass
    session.wait_until_it_runs()
    session.machine.stop()  # what ends the run of a machine that nobody is connected to
    assert session.end().reason is StopReason.STOPPED


def test_interrupt_stops_a_running_machine() -> None:
    rom = asm.assemble(rom_of("l: inc ax", "jmp l"))
    session = Session(rom.binary)
    with socket.create_connection(("127.0.0.1", session.server.port), timeout=20) as client:
        client.sendall(b"$c#63")
        assert client.recv(1) == b"+"
        client.sendall(b"\x03")
        assert client.recv(64).startswith(b"$T02")
        client.sendall(b"+$k#6b")
    assert session.end().reason is StopReason.STOPPED


def test_a_port_in_use_is_one_clear_line(session: Session) -> None:
    with pytest.raises(emu.ConfigError, match=rf"TCP port {session.server.port} on 127.0.0.1"):
        GdbServer(session.machine, session.server.port, exit_status)
    with socket.create_connection(("127.0.0.1", session.server.port), timeout=20) as client:
        client.sendall(b"$k#6b")
        session.end()


def test_a_connection_that_breaks_in_a_packet_is_noticed() -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    theirs.sendall(b"$m0,4")
    theirs.close()
    with pytest.raises(Disconnected):
        connection.receive(5)
    connection.close()
