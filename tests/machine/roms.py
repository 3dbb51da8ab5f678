"""Small ROMs for tests of the machine."""

import asm

PM1_CNT = 0x604
POWER_OFF = f"mov dx, {PM1_CNT}\nmov ax, 0x2000\nout dx, ax\nhlt\n"


def source(body: str) -> str:
    """The source of a 64 KiB image whose `body` runs at reset, in segment F000h."""
    return f"""bits 16
org 0
start:
{body}
times 0xfff0 - ($ - $$) db 0xff
jmp 0xf000:start
times 0x10000 - ($ - $$) db 0xff
"""


def rom(body: str) -> bytes:
    """The image of that source."""
    return asm.assemble(source(body)).binary


# Everything that a snapshot must catch at work: timer interrupts, a clock that ticks, a line that sends, a repeated
# instruction, stack switches, HLT.
BUSY = """
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7000
        mov word [8 * 4], tick
        mov word [8 * 4 + 2], cs
        mov al, 0x11
        out 0x20, al
        mov al, 8
        out 0x21, al
        mov al, 4
        out 0x21, al
        mov al, 1
        out 0x21, al
        mov al, 0xfe
        out 0x21, al
        mov al, 0x34
        out 0x43, al
        mov al, 199
        out 0x40, al
        mov al, 0
        out 0x40, al
        mov dx, 0x3fb
        mov al, 3
        out dx, al
        xor bx, bx
        sti
again:  mov cx, 50
        mov si, 0x1000
        mov di, si
        inc byte [si]
        inc di
        rep movsb
        mov ss, bx
        mov sp, 0x7000
        sti
        hlt
        mov al, [0x500]
        out 0x80, al
        mov dx, 0x3f8
        out dx, al
        mov al, 0x0a
        out 0x70, al
        in al, 0x71
        add [0x502], al
        rdtsc
        add [0x504], ax
        jmp again
tick:   push ax
        inc word [0x500]
        mov al, 0x20
        out 0x20, al
        pop ax
        iret
"""
