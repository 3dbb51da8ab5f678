; A Service OS for tests of the disk controller's change of hands: at each event (each STEP-th access to the data register that
; the policy traps) it takes that guest's disk over, reads a sector, writes another, gives the disk back, and lets the guest
; go on. What the guest can see of its devices must be the same before and after.

%include "x86.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "vm_devices.inc"
%include "image.inc"
%include "console.inc"
%include "acpi_off.inc"
%include "ata.inc"

%ifndef STEP
  %define STEP 1
%endif
SERVICE_READS   equ 3000
SERVICE_WRITES  equ 3001

main:
        mov     eax, VMCALL_NEXT_EVENT
        mov     edi, event_buffer
        vmcall
        mov     eax, [event_buffer + event.kind]
        cmp     eax, EVENT_PORT
        je      .port
        cmp     eax, EVENT_POWER_OFF            ; there may be another guest
        je      main
        cmp     eax, EVENT_DISK_FAILED
        jne     .end
        mov     esi, text_failed
        call    console_text
        mov     eax, [event_buffer + event.qualification]
        call    console_hex
        mov     al, " "
        call    console_byte
        mov     eax, [event_buffer + event.address]
        call    console_hex
        call    console_newline
        jmp     .take
.end:
        mov     esi, text_end
        call    console_text
        mov     eax, [changes]
        call    console_decimal
        mov     esi, text_changes
        call    console_text
        jmp     acpi_power_off
.port:
        inc     dword [events]
        mov     eax, [events]
        xor     edx, edx
        mov     ecx, STEP
        div     ecx
        test    edx, edx
        jnz     .on
.take:
        mov     dword [drive], ATA_PRIMARY
        cmp     dword [event_buffer + event.vm], 1
        je      .channel
        mov     dword [drive], ATA_SECONDARY
.channel:
        mov     edi, before
        call    devices
        mov     eax, VMCALL_DISK_TAKE
        mov     ebx, [event_buffer + event.vm]
        vmcall
        call    check
        mov     eax, VMCALL_DISK_TAKE           ; taken already
        vmcall
        cmp     eax, STATUS_BUSY
        jne     bad
        mov     ebx, drive
        call    ata_find
        jc      bad
        mov     eax, SERVICE_READS
        mov     ecx, 1
        mov     edi, sector
        call    ata_read
        jc      bad
        inc     dword [sector]
        mov     eax, SERVICE_WRITES
        mov     ecx, 1
        mov     esi, sector
        call    ata_write
        jc      bad
        call    ata_flush
        jc      bad
        mov     eax, VMCALL_DISK_GIVE
        mov     ebx, [event_buffer + event.vm]
        vmcall
        call    check
        mov     edx, [drive]                    ; the ports are shut again
        add     edx, ATA_STATUS
        in      al, dx
        cmp     al, 0FFh
        jne     bad
        inc     dword [changes]
        mov     edi, after
        call    devices
        mov     esi, before
        mov     edi, after
        mov     ecx, vm_chips_size
        repe cmpsb
        jne     different
.on:
        mov     eax, VMCALL_CONTINUE
        mov     ebx, [event_buffer + event.vm]
        mov     ecx, ACTION_ALLOW
        vmcall
        call    check
        jmp     main

devices:
        mov     eax, VMCALL_READ_DEVICES
        mov     ebx, [event_buffer + event.vm]
        mov     ecx, vm_chips_size
        vmcall
; In: EAX = status
check:
        test    eax, eax
        jnz     bad
        ret
bad:
        push    eax
        mov     esi, text_bad
        call    console_text
        pop     eax
        call    console_hex
        jmp     acpi_power_off
different:
        mov     esi, text_different
        call    console_text
        lea     eax, [edi - 1]
        sub     eax, after
        call    console_hex
        jmp     acpi_power_off

        align 4
drive:          dd ATA_PRIMARY, 0, 0
events:         dd 0
changes:        dd 0
event_buffer:   times event_size db 0
before:         times vm_chips_size db 0
after:          times vm_chips_size db 0
sector:         times 512 db 0
text_failed:
        db      "FAILED ", 0
text_end:
        db      "END ", 0
text_changes:
        db      " changes of hands", 13, 10, 0
text_bad:
        db      "BAD ", 0
text_different:
        db      "DIFFERENT ", 0
