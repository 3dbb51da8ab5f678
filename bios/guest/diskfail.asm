; The guest whose disk write fails: a sector of its disk is bad. It says what the drive says, and looks whether the sectors
; around are as they were.

%include "begin.inc"
%include "ata.inc"

WORK            equ 100000h
BAD_LBA         equ 3000                ; the sector that its disk should have bad
BEFORE          equ 4                   ; sectors before it that are compared

guest_main:
        mov     ebx, drive
        mov     dword [ebx + ata_drive.base], ATA_PRIMARY
        call    ata_find
        mov     esi, text_no_disk
        jc      .end
        mov     eax, BAD_LBA - BEFORE
        mov     ecx, BEFORE
        mov     edi, WORK
        call    ata_read
        mov     esi, text_read
        jc      .end
        mov     eax, BAD_LBA
        mov     ecx, 1
        mov     esi, WORK
        call    ata_write
        jc      .failed
        call    ata_flush
        mov     esi, text_wrote
        jnc     .end
.failed:
        mov     esi, text_failed
        call    say
        mov     eax, [drive + ata_drive.status]
        call    console_hex8
        mov     esi, text_error
        call    console_text
        movzx   eax, byte [drive + ata_drive.status + 1]
        call    console_hex8
        call    console_newline
        mov     eax, BAD_LBA - BEFORE
        mov     ecx, BEFORE
        mov     edi, WORK + BEFORE * 512
        call    ata_read
        mov     esi, text_read
        jc      .end
        mov     esi, WORK
        mov     edi, WORK + BEFORE * 512
        mov     ecx, BEFORE * 512 / 4
        repe cmpsd
        mov     esi, text_differs
        jne     .end
        mov     esi, text_same
        call    say
        jmp     guest_end
.end:
        call    say
        jmp     acpi_power_off

        align 4
drive:          times ata_drive_size db 0

text_name:
        db      "diskfail  ", 0
text_no_disk:
        db      "has no disk", 13, 10, 0
text_read:
        db      "DISK READ failed", 13, 10, 0
text_wrote:
        db      "the write of LBA 3000 did not fail", 13, 10, 0
text_failed:
        db      "write of LBA 3000 failed: status ", 0
text_error:
        db      " error ", 0
text_same:
        db      "reads on as before", 13, 10, 0
text_differs:
        db      "DISK: the sectors before it changed", 13, 10, 0
