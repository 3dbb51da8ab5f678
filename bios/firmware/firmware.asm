; The built-in firmware: a power-on self-test that shows the machine works, and powers it off.
;
; Entry: the processor's reset vector, FFFFFFF0h, in real mode with CS base FFFF0000h; nothing else is assumed.
;
; The image is 128 KiB and ends at 4 GiB; the same bytes lie below 1 MiB, where all of it runs:
;
;   E0000h - EFFFFh   32-bit code and data
;   F0000h - FFFFFh   16-bit code and its data; the reset vector in the last 16 bytes
;
; Memory that it uses (all below 640 KiB but the page tables, which are there too):
;
;   00000h - 003FFh   left alone: the real-mode interrupt table
;   01000h - 017FFh   interrupt descriptor table (idt.inc)
;   02000h - 03FFFh   page directory and the table of the test mapping (paging.inc)
;   04000h - 04FFFh   variables (variables.inc)
;   06000h - 07FFFh   stack, grows down from 8000h
;   08000h - 0FFFFh   the page that the test mapping shows twice, and scratch of the self-check (selfcheck.inc)
;   10000h - 4FFFFh   scratch of the self-check
;
; Each step writes its code to port 80h (post_codes.inc) and a line to COM1.

        bits 16
        org 0E0000h

ROM_BASE        equ 0E0000h
REAL_BASE       equ 0F0000h     ; base of segment F000h, where the 16-bit part runs
REAL_SEGMENT    equ 0F000h
STACK_TOP       equ 8000h

%include "post_codes.inc"
%include "ports.inc"
%include "variables.inc"

; --- 32-bit part -------------------------------------------------------------------------------------------------------
        bits 32
%include "main32.inc"
%include "console.inc"
%include "idt.inc"
%include "paging.inc"
%include "exceptions.inc"
%include "pic.inc"
%include "timer.inc"
%include "selfcheck.inc"
%include "power.inc"

        times REAL_BASE - ROM_BASE - ($ - $$) db 0FFh

; --- 16-bit part -------------------------------------------------------------------------------------------------------
        bits 16
%include "reset.inc"
%include "cmos.inc"
%include "a20.inc"
%include "memory.inc"
%include "serial.inc"
%include "protected.inc"

        times 0FFFF0h - ROM_BASE - ($ - $$) db 0FFh

; The reset vector. The far jump leaves the alias below 4 GiB for the one below 1 MiB.
reset_vector:
        jmp     REAL_SEGMENT:reset - REAL_BASE
        db      "11/23/26"              ; where a PC's firmware keeps its date
        times 100000h - ROM_BASE - ($ - $$) db 0FFh
