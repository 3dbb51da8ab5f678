"""What an operating system's drivers do when they look for a PC's devices, in machine code on the whole board.

The sequences are those of drivers that have met real chips for decades: each step expects what the hardware has, and a
driver that finds something else gives the device up or works around it.
"""

from datetime import datetime
from pathlib import Path

import pytest

import asm
from emu import Disk, Machine, StopReason
from emu.host.backend import Backend

# The common part: interrupt controllers at 20h and 28h with everything masked, a handler for each request that counts
# in COUNTS and ends it, and `want`, which compares AL with a value and ends the run where they differ.
FRAME = """
        bits 16
        org 0
COUNTS  equ 600h                        ; a byte an interrupt request
STATUS  equ 610h                        ; what the handlers have read
BUFFER  equ 1000h
%assign check 0
%macro want 1                           ; AL must be this
        %assign check check + 1
        mov bp, check
        cmp al, %1
        jne near failed
%endmacro
%macro put 2                            ; port, byte
        mov dx, %1
        mov al, %2
        out dx, al
%endmacro
%macro get 1
        mov dx, %1
        in al, dx
%endmacro
%macro configure 2                      ; register of device 1, its address without bit 31; doubleword
        mov dx, 0CF8h
        mov eax, 80000800h | %1
        out dx, eax
        mov dx, 0CFCh
        mov eax, %2
        out dx, eax
%endmacro
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 7000h
        cld
        mov di, COUNTS
        mov cx, 10h
        rep stosw
        mov di, 20h * 4                 ; the vectors
        mov cx, 16
        mov ax, irqs
.vector:
        mov [di], ax
        mov word [di + 2], 0F000h
        add di, 4
        add ax, irqs.next - irqs
        loop .vector
        put 20h, 11h
        put 21h, 20h
        put 21h, 4
        put 21h, 1
        put 0A0h, 11h
        put 0A1h, 28h
        put 0A1h, 2
        put 0A1h, 1
        put 21h, 0FBh
        put 0A1h, 0FFh
BODY
        mov al, 0
        out 0F4h, al
failed: out 0E9h, al                    ; what was read instead
        mov ax, bp
        out 0E9h, al
        mov al, 1
        out 0F4h, al

; Waits AX microseconds, 54,900 at most, by counter 2 in mode 0.
delay:  pusha
        mov cx, 1193                    ; counts in 1000 us
        mul cx
        mov cx, 1000
        div cx
        inc ax
        mov cx, ax
        put 61h, 1
        put 43h, 0B0h
        put 42h, cl
        put 42h, ch
.look:  in al, 61h
        test al, 20h
        jz .look
        popa
        ret

irqs:   push word 0
        jmp near irq
.next:
%assign number 1
%rep 15
        push word number
        jmp near irq
        %assign number number + 1
%endrep
irq:    push bp
        mov bp, sp
        pusha
        mov bx, [bp + 2]
        inc byte [COUNTS + bx]
        mov si, bx
        add si, si
        call [cs:handlers + si]
        mov bx, [bp + 2]
        cmp bx, 8
        jb .master
        mov al, 20h
        out 0A0h, al
.master:
        mov al, 20h
        out 20h, al
        popa
        pop bp
        add sp, 2
        iret
none:   ret
HANDLERS
        times 0FFF0h - ($ - $$) db 0FFh
        jmp 0F000h:0
        times 10000h - ($ - $$) db 0FFh
"""


def run(
    body: str,
    handlers: dict[int, str],
    disk: Path | None = None,
    time: datetime | None = None,
    modem: str | Backend = "null",
) -> Machine:
    """Runs the program to its end, which must be the good one.

    Args:
        body: what it does.
        handlers: what interrupt requests do besides being counted, by number.
        disk: the image of the primary channel's drive 0.
        time: what the clock says at first.
        modem: what COM2 is connected to.
    """
    lines = ["        align 2", "handlers:"]
    lines += [f"        dw {f'irq_{at}' if at in handlers else 'none'}" for at in range(16)]
    lines += [f"irq_{at}:\n{text}\n        ret" for at, text in handlers.items()]
    table = "\n".join(lines)
    source = FRAME.replace("BODY", body).replace("HANDLERS", table)
    machine = Machine(
        memory=2 << 20, cpu="pentium3", firmware=asm.assemble(source).binary, debugcon=0xE9, debug_exit=0xF4,
        disks=[Disk(disk, snapshot=True)] if disk else [], modem=modem,
    )  # fmt: skip
    if time is not None:
        machine.board.rtc.set_time(*time.timetuple()[:6])
    stop = machine.run(seconds=20, timeout=120)
    assert machine.debugcon is not None
    output = machine.debugcon.output
    assert stop.reason is StopReason.DEBUG_EXIT and not output, f"read {output[:1].hex()} at check {output[1:].hex()}"
    return machine


def counts(machine: Machine) -> dict[int, int]:
    """The interrupts that came, by request."""
    return {at: count for at, count in enumerate(machine.memory.read(0x600, 16)) if count}


UART_PROBE = """
        ; autoconfig: the interrupt enable register holds four bits
        get 3F9h
        mov bl, al
        put 3F9h, 0
        out 80h, al
        get 3F9h
        want 0
        put 3F9h, 0FFh
        get 3F9h
        want 0Fh
        put 3F9h, 40h                   ; no UART of an XScale
        get 3F9h
        want 0
        mov al, bl
        out dx, al
        ; loopback: RTS and OUT2 come back as CTS and DCD
        put 3FCh, 1Ah
        get 3FEh
        and al, 0F0h
        want 90h
        put 3FCh, 0
        ; which chip: FIFOs that work, no enhanced features register, no scratch in its place
        put 3FBh, 0BFh
        put 3FAh, 0
        put 3FBh, 0
        put 3FAh, 1
        get 3FAh
        shr al, 6
        want 3
        put 3FBh, 80h
        get 3FAh
        and al, 0C0h
        want 0C0h                       ; reads as IIR, not as a register of 0
        put 3FBh, 0E0h
        get 3FAh
        and al, 0C0h
        want 0C0h
        put 3FBh, 0
        put 3FFh, 0A5h
        get 3FFh
        want 0A5h
        ; the size of its FIFO, by loopback at the highest rate
        put 3FAh, 7
        put 3FCh, 10h
        put 3FBh, 83h
        put 3F8h, 1
        put 3F9h, 0
        put 3FBh, 3
        mov cx, 16
        mov al, 0
        mov dx, 3F8h
.fill:  out dx, al
        inc al
        loop .fill
        mov ax, 2000
        call delay
        mov bl, 0
.count: get 3FDh
        test al, 1
        jz .counted
        get 3F8h
        want bl                         ; in their order
        inc bl
        jmp .count
.counted:
        mov al, bl
        want 16
        ; startup: everything cleared, then nothing pending
        put 3FCh, 0
        put 3FAh, 1
        put 3FAh, 7
        put 3FAh, 0
        get 3FDh
        get 3F8h
        get 3FAh
        get 3FEh
        get 3FDh
        want 60h
        get 3FAh
        want 1
        ; enabling the interrupt of an empty transmitter raises it, each time
        put 3F9h, 2
        get 3FAh
        want 2
        put 3F9h, 0
        put 3F9h, 2
        get 3FAh
        want 2
        get 3FAh
        want 1
        put 3F9h, 0
        ; IRQ 4: OUT2 opens it
        put 21h, 0EBh
        sti
        put 3F9h, 2
        nop
        cli
        mov al, [COUNTS + 4]
        want 0
        put 3F9h, 0
        put 3FCh, 0Bh
        sti
        put 3F9h, 2
        nop
        nop
        mov dx, 3F8h
        mov al, 'x'
        out dx, al
        mov ax, 2000
        call delay
        cli
        mov al, [COUNTS + 4]
        want 2                          ; for the empty transmitter, and again after the character
        mov al, [STATUS]
        want 2
"""


def test_a_serial_driver_finds_a_16550a() -> None:
    machine = run(UART_PROBE, {4: "        get 3FAh\n        mov [STATUS], al"})
    assert counts(machine) == {4: 2}
    assert machine.serial.output == b"x"


MODEM_PROBE = """
        put 2FBh, 3
        put 2F9h, 8                     ; the interrupt of the modem's lines alone
        put 2FCh, 0Bh                   ; DTR, RTS, OUT2
        get 2FEh
        get 2FEh
        want 10h                        ; CTS: the modem is there, nobody calls
        put 21h, 0F3h
        sti
.call:  cmp byte [COUNTS + 3], 1
        jb .call
        mov al, [STATUS]
        want 0BAh                       ; DCD, DSR and CTS; DCD and DSR have changed
.end:   cmp byte [COUNTS + 3], 2
        jb .end
        cli
        mov al, [STATUS]
        want 1Ah
"""


class Caller(Backend):
    """Somebody who is connected for a while."""

    looks = 0

    @property
    def connected(self) -> bool:
        self.looks += 1
        return 20 < self.looks < 40


def test_a_modem_driver_hears_of_callers_by_interrupts() -> None:
    machine = run(MODEM_PROBE, {3: "        get 2FEh\n        mov [STATUS], al"}, modem=Caller())
    assert counts(machine) == {3: 2}


KEYBOARD_PROBE = """
%macro command 1
        call input_empty
        put 64h, %1
%endmacro
%macro data 1
        call input_empty
        put 60h, %1
%endmacro
%macro answer 1
        call take
        want %1
%endmacro
        jmp probe
input_empty:                            ; a controller that takes no byte is none
        in al, 64h
        test al, 2
        jnz input_empty
        ret
take:   mov cx, 30000                   ; AL = the next byte, [STATUS] = the status with it
.next:  in al, 64h
        test al, 1
        jnz .there
        push ax
        mov ax, 50
        call delay
        pop ax
        loop .next
        mov bp, 0FFh                    ; nothing came
        jmp failed
.there: mov [STATUS], al
        in al, 60h
        ret
probe:  mov cx, 16                      ; flush
.flush: in al, 64h
        test al, 1
        jz .flushed
        in al, 60h
        loop .flush
.flushed:
        command 0AAh
        answer 55h
        command 20h                     ; the same twice
        call take
        mov bl, al
        command 20h
        answer bl
        in al, 64h
        and al, 10h
        want 10h                        ; not locked by a key
        ; both ports off, translation on
        and bl, ~3
        or bl, 70h
        command 60h
        data bl
        command 20h
        answer bl
        ; the auxiliary port: a byte in a loop comes back as its own
        command 0D3h
        data 5Ah
        answer 5Ah
        mov al, [STATUS]
        and al, 20h
        want 20h
        command 0A7h
        command 20h
        call take
        and al, 20h
        want 20h
        command 0A8h
        command 20h
        call take
        and al, 20h
        want 0
        ; its interrupt
        and bl, ~20h
        or bl, 2
        command 60h
        data bl
        put 0A1h, 0EFh
        sti
        command 0D3h
        data 0A5h
        mov ax, 1000
        call delay
        cli
        mov al, [COUNTS + 12]
        want 1
        mov al, [STATUS + 1]
        want 0A5h
        ; nobody is there: what is sent times out
        and bl, ~2
        command 60h
        data bl
        command 0D4h
        data 0F2h
        answer 0FEh
        mov al, [STATUS]
        and al, 61h
        want 61h
        command 0A7h
        ; the keyboard port: test, switch on, ask who is there
        command 0ABh
        answer 0
        and bl, ~10h
        or bl, 20h
        command 60h
        data bl
        data 0F5h
        answer 0FAh
        data 0F2h
        answer 0FAh
        answer 0ABh
        answer 41h                      ; 83h, translated
        data 0FFh
        answer 0FAh
        answer 0AAh                     ; half a second later
        data 0EDh
        answer 0FAh
        data 2
        answer 0FAh
        data 0F3h
        answer 0FAh
        data 0
        answer 0FAh
        data 0F0h
        answer 0FAh
        data 2
        answer 0FAh
        data 0EEh
        answer 0EEh
        data 0F4h
        answer 0FAh
        ; IRQ 1
        or bl, 1
        command 60h
        data bl
        put 21h, 0F9h
        sti
        data 0EEh
        mov ax, 3000
        call delay
        cli
        mov al, [COUNTS + 1]
        want 1
        mov al, [STATUS + 1]
        want 0EEh
"""


def test_a_keyboard_driver_finds_the_controller_and_the_keyboard() -> None:
    handler = "        in al, 60h\n        mov [STATUS + 1], al"
    machine = run(KEYBOARD_PROBE, {1: handler, 12: handler})
    assert counts(machine) == {1: 1, 12: 1}
    assert machine.board.keyboard.leds == 2


RTC_PROBE = """
%macro cmos 1                           ; AL = a register
        put 70h, %1
        in al, 71h
%endmacro
%macro set 2
        put 70h, %1
        mov al, %2
        out 71h, al
%endmacro
        ; it works: valid RAM and time, no update for ever, BCD and 24 hours
        cmos 0Dh
        and al, 7Fh
        want 0
        cmos 0Dh
        and al, 80h
        want 80h
        mov cx, 20000
.update:
        cmos 0Ah
        test al, 80h
        jz .steady
        loop .update
        want 0
.steady:
        cmos 0Ah
        and al, 7Fh
        want 26h
        cmos 0Bh
        want 2
        ; a consistent reading: no update while it is taken, the second the same at its end
        cmos 0
        mov bl, al
        cmos 9
        want 26h
        cmos 8
        want 11h
        cmos 7
        want 29h
        cmos 4
        want 23h
        cmos 2
        want 59h
        cmos 0
        want bl
        cmos 32h
        want 20h
        ; interrupts off, and what is pending read away
        set 0Bh, 2
        cmos 0Ch
        ; an alarm two seconds from now, in the next minute, hour and day
        cmos 0
        want 58h
        set 1, 0
        set 3, 0
        set 5, 0
        put 0A1h, 0FEh
        sti
        set 0Bh, 22h
        mov ax, 50000
        mov cx, 54                      ; 2.7 s
.alarm: call delay
        loop .alarm
        cli
        mov al, [COUNTS + 8]
        want 1
        mov al, [STATUS]
        and al, 0A0h
        want 0A0h
        cmos 7
        want 30h
        cmos 4
        want 0
        ; one update-ended interrupt a second
        mov byte [COUNTS + 8], 0
        set 0Bh, 12h
        sti
        mov ax, 50000
        mov cx, 40                      ; 2 s
.uie:   call delay
        loop .uie
        cli
        mov al, [COUNTS + 8]
        want 2
        ; periodic interrupts, 1024 a second, for a fifth of it
        set 0Bh, 2
        cmos 0Ch
        mov byte [COUNTS + 8], 0
        set 0Bh, 42h
        sti
        mov ax, 50000
        mov cx, 4
.pie:   call delay
        loop .pie
        cli
        set 0Bh, 2
        cmos 0Ch
        mov al, [COUNTS + 8]
        mov [STATUS + 1], al
        ; setting the time: SET stops updates, the divider begins anew
        set 0Bh, 82h
        set 0, 30h
        set 2, 15h
        set 4, 12h
        mov ax, 50000
        mov cx, 24
.held:  call delay
        loop .held
        cmos 0
        want 30h
        cmos 0Ah
        and al, 80h
        want 0
        set 0Bh, 2
        mov ax, 50000
        mov cx, 24
.goes:  call delay
        loop .goes
        cmos 0
        want 31h
"""


def test_a_clock_driver_reads_the_time_and_takes_alarms() -> None:
    machine = run(
        RTC_PROBE, {8: "        mov al, 0Ch\n        out 70h, al\n        in al, 71h\n        mov [STATUS], al"},
        time=datetime(2026, 11, 29, 23, 59, 58),
    )  # fmt: skip
    assert 204 <= machine.memory.read(0x611, 1)[0] <= 206  # in 200 ms


ATA_PROBE = """
        jmp probe
; Waits until the drive is not busy; AL = status.
idle:   mov dx, 3F6h
.next:  in al, dx
        test al, 80h
        jnz .next
        ret
probe:  ; the controller: IDE in legacy mode, bus master or not; both channels opened, PIO mode 4 timings
        mov dx, 0CF8h
        mov eax, 80000908h
        out dx, eax
        get 0CFDh
        want 80h
        get 0CFEh
        want 1
        get 0CFFh
        want 1
        configure 104h, 1
        configure 140h, 0A3078000h | 0A307h ; decode, sample point 3, recovery 1, IORDY, fast for drive 0
        mov dx, 0CFDh
        in al, dx
        and al, 80h
        want 80h
        mov ax, 5000                    ; power-on is long ago when an operating system comes
        call delay
        ; who is on the cable: patterns in the task file
        put 1F6h, 0A0h
        call patterns
        want 1
        put 176h, 0A0h
        mov dx, 172h
        mov al, 55h
        out dx, al
        in al, dx
        cmp al, 55h
        sete al
        want 0                          ; nobody on the other one
        ; soft reset with interrupts off, then the signature
        put 3F6h, 8
        mov ax, 20
        call delay
        put 3F6h, 0Ch
        mov ax, 20
        call delay
        put 3F6h, 8
        mov ax, 2000
        call delay
        call idle
        put 1F6h, 0A0h
        get 1F1h
        want 1
        get 1F2h
        want 1
        get 1F3h
        want 1
        get 1F4h
        want 0
        get 1F5h
        want 0
        get 1F7h
        want 50h
        put 1F6h, 0B0h                  ; a drive 1 that is not there: a status of 0
        get 1F7h
        want 0
        put 1F6h, 0A0h
        ; IDENTIFY DEVICE, polled
        put 3F6h, 0Ah
        put 1F7h, 0ECh
        mov ax, 1
        call delay
        call idle
        and al, 89h
        want 8
        mov dx, 1F0h
        mov di, BUFFER
        mov cx, 256
        rep insw
        call idle
        want 50h
        mov al, [BUFFER + 2 * 49 + 1]   ; LBA, no DMA, IORDY
        and al, 0Bh
        want 0Ah
        mov al, [BUFFER + 2 * 64]       ; PIO modes 3 and 4
        want 3
        mov al, [BUFFER + 2 * 47]
        want 16
        mov al, 0                       ; the checksum
        mov si, BUFFER
        mov cx, 512
.sum:   add al, [si]
        inc si
        loop .sum
        want 0
        ; SET FEATURES: PIO mode 4 with flow control; SET MULTIPLE MODE; both without an interrupt
        put 1F1h, 3
        put 1F2h, 0Ch
        put 1F7h, 0EFh
        call idle
        want 50h
        put 1F2h, 8
        put 1F7h, 0C6h
        call idle
        want 50h
        ; the host protected area: the whole of the disk can be had
        put 1F6h, 40h
        put 1F7h, 27h
        call idle
        want 50h
        get 1F3h
        want (1000 - 1) & 255
        get 1F4h
        want (1000 - 1) >> 8
        ; READ MULTIPLE EXT of twelve sectors from 100 on, by interrupts and doublewords
        put 0A1h, 0BFh
        put 3F6h, 8
        get 1F7h
        put 1F2h, 0
        put 1F3h, 0
        put 1F4h, 0
        put 1F5h, 0
        put 1F2h, 12
        put 1F3h, 100
        put 1F4h, 0
        put 1F5h, 0
        put 1F6h, 0E0h
        mov word [STATUS + 2], BUFFER
        mov word [STATUS + 4], 8 * 128
        sti
        put 1F7h, 29h
.block: cmp byte [COUNTS + 14], 1
        jb .block
        mov word [STATUS + 4], 4 * 128
.second:
        cmp byte [COUNTS + 14], 2
        jb .second
        cli
        call idle
        want 50h
        mov al, [BUFFER]
        want 100
        mov al, [BUFFER + 11 * 512]
        want 111
        mov al, [STATUS]
        want 58h
        ; WRITE SECTORS: no interrupt asks for the first block, one ends the command; FLUSH CACHE
        mov byte [COUNTS + 14], 0
        mov word [STATUS + 4], 0
        put 1F2h, 1
        put 1F3h, 5
        put 1F4h, 0
        put 1F5h, 0
        put 1F6h, 0E0h
        sti
        put 1F7h, 30h
        call idle
        mov al, [COUNTS + 14]
        want 0
        mov si, BUFFER + 3 * 512
        mov dx, 1F0h
        mov cx, 256
        rep outsw
.wrote: cmp byte [COUNTS + 14], 1
        jb .wrote
        put 1F7h, 0E7h
.flushed:
        cmp byte [COUNTS + 14], 2
        jb .flushed
        cli
        mov al, [STATUS]
        want 50h
        jmp done

patterns:                               ; AL = 1 where what is written to the task file comes back
        put 1F2h, 55h
        put 1F3h, 0AAh
        put 1F2h, 0AAh
        put 1F3h, 55h
        put 1F2h, 55h
        put 1F3h, 0AAh
        get 1F2h
        cmp al, 55h
        jne .no
        get 1F3h
        cmp al, 0AAh
.no:    sete al
        ret
done:
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(b"".join(lba.to_bytes(4, "little") * 128 for lba in range(1000)))
    return path


def test_a_disk_driver_finds_the_drive_and_moves_data(image: Path) -> None:
    take = """
        mov dx, 1F7h
        in al, dx
        mov [STATUS], al
        mov cx, [STATUS + 4]
        jcxz .none
        mov dx, 1F0h
        mov di, [STATUS + 2]
        rep insd
        mov [STATUS + 2], di
.none:"""
    machine = run(ATA_PROBE, {14: take}, disk=image)
    assert counts(machine) == {14: 2}
    assert machine.disks[0].read(5, 1) == (103).to_bytes(4, "little") * 128
