; The built-in firmware: power-on self-test, chipset set-up, ACPI tables, and the boot of the VMM or of a guest.
;
; Entry: the processor's reset vector, FFFFFFF0h, in real mode with CS base FFFF0000h; nothing else is assumed.
;
; The image is the last 128 KiB of the flash chip, which ends at 4 GiB; the same bytes lie below 1 MiB, where all of it
; runs: first in the ROM, then in the RAM behind it (shadow.inc).
;
;   C0000h - DFFFFh   option ROMs, in shadow RAM (optionrom.inc)
;   E0000h - EFFFFh   32-bit code and data
;   F0000h - FFFFFh   16-bit code and its data, the root system description pointer; the reset vector in the last 16 bytes
;
; Memory that it uses:
;
;   00000h - 003FFh   real-mode interrupt table (servicesinit.inc)
;   00400h - 004FFh   BIOS data area
;   01000h - 017FFh   interrupt descriptor table (idt.inc)
;   02000h - 03FFFh   page directory and the table of the test mapping (paging.inc)
;   04000h - 04FFFh   variables (variables.inc)
;   06000h - 07FFFh   stack, grows down from 8000h; the shadow copier at 7000h while there is little on the stack
;   08000h - 0FFFFh   the page that the test mapping shows twice, and scratch of the self-check (selfcheck.inc)
;   10000h - 4FFFFh   scratch of the self-check; then the guest, where it is booted on the bare machine
;   last 64 KiB       ACPI tables (acpi.inc)
;   last 4 MiB        the VMM, where it can run (boot.inc)
;
; Each step writes its code to port 80h (post_codes.inc) and a line to COM1 and, once it is found, the display.

        bits 16
        org 0E0000h

ROM_BASE        equ 0E0000h
REAL_BASE       equ 0F0000h     ; base of segment F000h, where the 16-bit part runs
REAL_SEGMENT    equ 0F000h
STACK_TOP       equ 8000h

%include "x86.inc"
%include "vmcs.inc"
%include "vmx.inc"
%include "ports.inc"
%include "post_codes.inc"
%include "flash.inc"
%include "handoff.inc"
%include "runtime.inc"
%include "variables.inc"

; --- 32-bit part -------------------------------------------------------------------------------------------------------
        bits 32
%include "main32.inc"
%define CONSOLE_SCREEN
%include "console.inc"
%include "idt.inc"
%include "paging.inc"
%include "exceptions.inc"
%include "pic.inc"
%include "timer.inc"
%include "rtc.inc"
%include "checksums.inc"
%include "selfcheck.inc"
%include "screen_text.inc"
%include "screen.inc"
%include "pci.inc"
%include "dram.inc"
%include "crc32.inc"
%include "files.inc"
%include "guests.inc"
%include "policy.inc"
%include "flashcheck.inc"
%include "ata.inc"
%include "hpa.inc"
%include "disk.inc"
%include "acpi.inc"
%include "realcall.inc"
%include "optionrom.inc"
%include "servicesinit.inc"
%include "runtime_place.inc"
%include "runtime_init.inc"
%include "boot.inc"
%include "power.inc"
        times REAL_BASE - ROM_BASE - ($ - $$) db 0FFh

; --- 16-bit part -------------------------------------------------------------------------------------------------------
        bits 16
%include "reset.inc"
%include "cmos.inc"
%include "a20.inc"
%include "shadow.inc"
%include "memory.inc"
%include "serial.inc"
%include "protected.inc"
%include "services.inc"

        align 16, db 0FFh
rsdp:   times 20 db 0FFh        ; filled in by acpi.inc
        times 0FFFF0h - ROM_BASE - ($ - $$) db 0FFh

; The reset vector. The far jump leaves the alias below 4 GiB for the one below 1 MiB.
reset_vector:
        jmp     REAL_SEGMENT:reset - REAL_BASE
        db      "11/24/26"              ; where a PC's firmware keeps its date
        times 100000h - ROM_BASE - ($ - $$) db 0FFh
