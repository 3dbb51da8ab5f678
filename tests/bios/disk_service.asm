; A Service VM that at each trapped port takes the guest's disk controller over, uses the drive as rudely as it may (all of it,
; other modes, a transfer half done) and gives it back.

%include "x86.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "image.inc"
%include "console.inc"
%include "acpi_off.inc"
%include "crc32.inc"
%include "ata.inc"
%include "hpa.inc"

BUFFER          equ 100000h

main:
        mov     dword [drive + ata_drive.base], ATA_PRIMARY
.next:
        mov     eax, VMCALL_NEXT_EVENT
        mov     edi, event_buffer
        vmcall
        test    eax, eax
        jnz     .failed
        mov     eax, [event_buffer + event.kind]
        cmp     eax, EVENT_NO_GUEST
        je      .done
        cmp     eax, EVENT_PORT
        jne     .next
        inc     dword [taken]
        mov     eax, VMCALL_DISK_TAKE
        mov     ebx, 1
        vmcall
        test    eax, eax
        jnz     .failed
        mov     eax, VMCALL_DISK_TAKE           ; once is enough
        mov     ebx, 1
        vmcall
        cmp     eax, STATUS_BUSY
        jne     .failed
        mov     ebx, drive
        call    ata_find
        jc      .failed
        mov     edi, BUFFER
        call    hpa_find                        ; the whole drive shows
        jc      .failed
        mov     eax, [BUFFER + hpa_directory.dump]
        mov     ecx, 3
        mov     esi, BUFFER
        mov     ebx, drive
        call    ata_write
        jc      .failed
        call    ata_flush
        jc      .failed
        mov     eax, 10
        mov     ecx, 5
        mov     edi, BUFFER + 4096
        call    ata_read
        jc      .failed
        test    dword [taken], 1
        jz      .give
        mov     eax, 20                         ; a command that is never finished
        mov     ecx, 2
        mov     edx, ATA_READ_SECTORS
        call    ata_start
.give:
        test    dword [taken], 2                ; CONTINUE gives it back, too
        jz      .continue
        mov     eax, VMCALL_DISK_GIVE
        mov     ebx, 1
        vmcall
        test    eax, eax
        jnz     .failed
.continue:
        mov     eax, VMCALL_CONTINUE
        mov     ebx, 1
        mov     ecx, ACTION_ALLOW
        vmcall
        test    eax, eax
        jz      .next
.failed:
        mov     esi, text_failed
        call    console_text
        call    console_hex
        mov     eax, [drive + ata_drive.status]
        call    console_hex
        call    console_newline
        jmp     acpi_power_off
.done:
        mov     esi, text_taken
        call    console_text
        mov     eax, [taken]
        call    console_decimal
        call    console_newline
        jmp     acpi_power_off

        align 4
drive:          times ata_drive_size db 0
taken:          dd 0
event_buffer:   times event_size db 0
text_failed:    db "takeover  FAILED ", 0
text_taken:     db "takeover  times ", 0
