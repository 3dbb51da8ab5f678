; The guest in which nothing goes wrong: it takes interrupts, computes, reads and writes its disk where it has one, and turns
; itself off. What it writes to the disk is what was there.
;
; Memory that it uses besides the image: 100000h - 13FFFFh work area.

%include "begin.inc"
%include "work.inc"
%include "ata.inc"

WORK            equ 100000h
WORK_BYTES      equ 40000h
ROUNDS          equ 8
SECTORS         equ 8                   ; that are read, written and read again

guest_main:
        call    timer_run
        mov     dword [rounds_left], ROUNDS
        call    work_fill
        call    work_sum
        mov     [sum_before], eax
.round:
        call    work_sum
        cmp     eax, [sum_before]
        mov     esi, text_changed
        jne     .bad
        dec     dword [rounds_left]
        jnz     .round
        mov     esi, text_work
        mov     eax, ROUNDS
        call    say_number
        call    disk_use
        jc      .bad
        call    say
        call    timer_run
        jmp     guest_end
.bad:
        call    say
        jmp     acpi_power_off

; Reads sectors, writes them as they are, and compares them.
; Out:      CF clear: ESI = text that says that it went well, or that there is no disk. CF set: ESI = text that says what not
; Clobbers: all
disk_use:
        mov     ebx, drive
        mov     dword [ebx + ata_drive.base], ATA_PRIMARY
        call    ata_find
        mov     esi, text_no_disk
        jc      .none
        xor     eax, eax
        mov     ecx, SECTORS
        mov     edi, WORK
        call    ata_read
        mov     esi, text_read
        jc      .end
        xor     eax, eax
        mov     ecx, SECTORS
        mov     esi, WORK
        call    ata_write
        mov     esi, text_write
        jc      .end
        call    ata_flush
        mov     esi, text_write
        jc      .end
        xor     eax, eax
        mov     ecx, SECTORS
        mov     edi, WORK + SECTORS * 512
        call    ata_read
        mov     esi, text_read
        jc      .end
        mov     esi, WORK
        mov     edi, WORK + SECTORS * 512
        mov     ecx, SECTORS * 512 / 4
        repe cmpsd
        mov     esi, text_differs
        jne     .bad
        mov     esi, text_disk
.none:
        clc
        ret
.bad:
        stc
.end:   ret

        align 4
rounds_left:    dd 0
sum_before:     dd 0
drive:          times ata_drive_size db 0

text_name:
        db      "healthy   ", 0
text_work:
        db      "rounds of work ", 0
text_changed:
        db      "MEMORY CHANGED", 13, 10, 0
text_no_disk:
        db      "has no disk", 13, 10, 0
text_disk:
        db      "disk: 8 sectors read, written and read again", 13, 10, 0
text_read:
        db      "DISK READ failed", 13, 10, 0
text_write:
        db      "DISK WRITE failed", 13, 10, 0
text_differs:
        db      "DISK: what was read differs from what was written", 13, 10, 0
