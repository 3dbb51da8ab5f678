; A guest that uses its disk as drivers do, and prints a checksum of all that it saw: data, registers, interrupts. At each
; POINT it writes to port 80h, which a policy may trap: what happens there must not show.

%include "x86.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "image.inc"
%include "console.inc"
%include "acpi_off.inc"

BASE            equ 1F0h
CONTROL         equ 3F6h
BUFFER          equ 100000h
IRQ_BASE        equ 20h

%macro point 0
        out     80h, al
%endmacro
%macro reg 2                            ; register, value
        mov     edx, BASE + %1
        mov     al, %2
        out     dx, al
%endmacro

main:
        lidt    [idt_pointer]
        mov     al, ICW1
        out     PORT_PIC1_COMMAND, al
        out     PORT_PIC2_COMMAND, al
        mov     al, IRQ_BASE
        out     PORT_PIC1_DATA, al
        mov     al, IRQ_BASE + 8
        out     PORT_PIC2_DATA, al
        mov     al, 1 << CASCADE_LINE
        out     PORT_PIC1_DATA, al
        mov     al, CASCADE_LINE
        out     PORT_PIC2_DATA, al
        mov     al, ICW4
        out     PORT_PIC1_DATA, al
        out     PORT_PIC2_DATA, al
        mov     al, ~(1 << CASCADE_LINE) & 0FFh
        out     PORT_PIC1_DATA, al
        mov     al, ~(1 << 6) & 0FFh
        out     PORT_PIC2_DATA, al
        mov     edx, CONTROL
        mov     al, 0
        out     dx, al
        reg     6, 0E0h
        sti

        mov     esi, text_identify
        call    begin
        reg     7, 0ECh
        call    wait_interrupt
        call    read_block
        call    end

; Every word of a block: so many are read, then a point.
        mov     esi, text_read
        call    begin
        mov     dword [word_now], 0
.read:
        call    address
        reg     7, 20h
        mov     ebp, 3
.block:
        call    wait_interrupt
        mov     edi, BUFFER
        mov     edx, BASE
        mov     ecx, [word_now]
        rep insw
        point
        mov     ecx, 256
        sub     ecx, [word_now]
        rep insw
        call    sum_block
        dec     ebp
        jnz     .block
        call    registers
        add     dword [word_now], STEP          ; 1, or another divisor of 256
        cmp     dword [word_now], 257
        jb      .read
        call    end

        mov     esi, text_multiple
        call    begin
        reg     2, 4
        reg     7, 0C6h                 ; SET MULTIPLE MODE
        call    wait_interrupt
        mov     dword [word_now], 0
.multiple:
        call    address
        reg     2, 9
        reg     7, 0C4h
        mov     ebp, 9
.group: mov     ebx, 4
        cmp     ebp, ebx
        jae     .size
        mov     ebx, ebp
.size:
        sub     ebp, ebx
        call    wait_interrupt
        shl     ebx, 8
        mov     edi, BUFFER
        mov     edx, BASE
        mov     ecx, [word_now]
        cmp     ecx, ebx
        jb      .first
        mov     ecx, ebx
.first: sub     ebx, ecx
        rep insw
        point
        mov     ecx, ebx
        rep insw
        call    sum_block
        test    ebp, ebp
        jnz     .group
        call    registers
        add     dword [word_now], 97
        cmp     dword [word_now], 1100
        jb      .multiple
        call    end

        mov     esi, text_write
        call    begin
        mov     dword [word_now], 0
.write:
        call    address
        reg     3, 200
        reg     7, 30h
        call    wait_data
        mov     ebp, 3
.out:
        mov     esi, main               ; the code is data enough
        add     esi, [word_now]
        mov     edx, BASE
        mov     ecx, [word_now]
        rep outsw
        point
        mov     ecx, 256
        sub     ecx, [word_now]
        rep outsw
        call    wait_interrupt
        dec     ebp
        jnz     .out
        call    registers
        call    address                 ; and back
        reg     3, 200
        reg     7, 20h
        mov     ebp, 3
.back:
        call    wait_interrupt
        call    read_block
        dec     ebp
        jnz     .back
        add     dword [word_now], 37
        cmp     dword [word_now], 257
        jb      .write
        call    end

        mov     esi, text_chs
        call    begin
        mov     dword [word_now], 0
.chs:
        reg     6, 0A3h                 ; head 3
        reg     2, 3
        reg     3, 62                   ; sector: the transfer goes on with the next head
        reg     4, 5
        reg     5, 0
        reg     7, 20h
        mov     ebp, 3
.chs_block:
        call    wait_interrupt
        mov     edi, BUFFER
        mov     edx, BASE
        mov     ecx, [word_now]
        rep insw
        point
        mov     ecx, 256
        sub     ecx, [word_now]
        rep insw
        call    sum_block
        dec     ebp
        jnz     .chs_block
        call    registers
        add     dword [word_now], 64
        cmp     dword [word_now], 257
        jb      .chs
        reg     6, 0E0h
        call    end

        mov     esi, text_native
        call    begin
        reg     7, 0F8h
        call    wait_interrupt
        point
        call    registers
        reg     7, 0F8h
        call    wait_interrupt
        mov     edx, BASE + 4           ; fewer
        in      al, dx
        dec     al
        out     dx, al
        reg     7, 0F9h
        call    wait_interrupt
        point
        call    registers
        reg     7, 0ECh
        call    wait_interrupt
        call    read_block
        call    end

        mov     esi, text_error
        call    begin
        reg     6, 0EFh                 ; beyond the end
        reg     2, 1
        reg     7, 20h
        call    wait_interrupt
        point
        call    registers
        reg     6, 0E0h
        point
        reg     7, 9Fh                  ; no command
        call    wait_interrupt
        point
        call    registers
        point
        call    registers
        call    end
        jmp     acpi_power_off

begin:
        call    console_text
        mov     dword [sum], 0
        ret
end:
        mov     eax, [sum]
        call    console_hex
        mov     al, " "
        call    console_byte
        mov     eax, [interrupts]
        call    console_decimal
        jmp     console_newline

address:
        reg     2, 3
        reg     3, 70
        reg     4, 1
        reg     5, 0
        reg     6, 0E0h
        ret

; Waits for the interrupt, as long as a driver would, and reads the status.
wait_interrupt:
        mov     ecx, 20000                      ; other interrupts there are none
.look:  cli
        cmp     dword [seen], 0
        jne     .seen
        sti
        hlt
        loop    .look
        mov     esi, text_lost
        call    console_text
.seen:
        sti
        mov     dword [seen], 0
        mov     edx, BASE + 7
        in      al, dx
; Takes AL into the checksum.
take:
        movzx   eax, al
        rol     dword [sum], 3
        xor     [sum], eax
        ret

wait_data:
        mov     edx, CONTROL
.look:  in      al, dx
        test    al, 8
        jz      .look
        ret

read_block:
        mov     edi, BUFFER
        mov     edx, BASE
        mov     ecx, 256
        rep insw
sum_block:                              ; up to EDI
        mov     esi, BUFFER
        mov     eax, [sum]
.next:  cmp     esi, edi
        jae     .end
        rol     eax, 5
        xor     eax, [esi]
        add     esi, 2
        jmp     .next
.end:   mov     [sum], eax
        ret

registers:                              ; error, count, address, device, status
        mov     edx, BASE + 1
.next:  in      al, dx
        call    take
        inc     edx
        cmp     edx, BASE + 8
        jb      .next
        ret

interrupt:
        push    eax
        inc     dword [seen]
        inc     dword [interrupts]
        mov     al, OCW2_EOI
        out     PORT_PIC2_COMMAND, al
        out     PORT_PIC1_COMMAND, al
        pop     eax
        iretd

        align 8
idt:    times IRQ_BASE + 14 dq 0
        dw      interrupt - IMAGE_BASE + (IMAGE_BASE & 0FFFFh), SELECTOR_CODE32, INTERRUPT_GATE, IMAGE_BASE >> 16
idt_pointer:
        dw      (IRQ_BASE + 15) * 8 - 1
        dd      idt
sum:            dd 0
seen:           dd 0
interrupts:     dd 0
word_now:       dd 0
text_identify:  db "disk      identify ", 0
text_read:      db "disk      read ", 0
text_multiple:  db "disk      multiple ", 0
text_write:     db "disk      write ", 0
text_chs:       db "disk      chs ", 0
text_native:    db "disk      native ", 0
text_error:     db "disk      error ", 0
text_lost:      db "LOST ", 0
