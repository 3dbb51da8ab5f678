; The guest that knows of the VMM: it sends messages to the Service OS and to another guest, answers theirs, tells the VMM
; that it lives, and uses the runtime services, which the bare machine has as well.
;
; What it says to another guest: VM 1 sends `ping` to VM 2, which answers `pong`. What the Service OS says is answered with the
; same; `end` ends the guest, and so does its time.

%include "begin.inc"
%include "runtime.inc"
%include "services.inc"

LIFE            equ 300                 ; ticks
PING_TICK       equ 10                  ; the other guest has started by then

guest_main:
        call    services_use
        cmp     dword [under_vmm], 0
        je      .alone
        mov     eax, VMCALL_VERSION
        vmcall
        mov     [own_number], ecx
        add     cl, "0"
        mov     [hello_number], cl
        mov     esi, text_number
        mov     eax, [own_number]
        call    say_number
        mov     ebx, 0
        mov     esi, hello
        mov     ecx, HELLO_BYTES
        call    send
        call    timer_start
.tick:
        sti
        hlt
        cli
        mov     eax, VMCALL_HEARTBEAT
        vmcall
        cmp     dword [ticks], PING_TICK
        jne     .look
        cmp     dword [own_number], 1
        jne     .look
        cmp     dword [pinged], 0
        jne     .look
        inc     dword [pinged]
        mov     ebx, 2
        mov     esi, ping
        mov     ecx, 4
        call    send
.look:
        call    receive
        cmp     dword [ended], 0
        jne     .end
        cmp     dword [ticks], LIFE
        jb      .tick
.end:
        call    timer_stop
        jmp     guest_end
.alone:
        mov     esi, text_alone
        call    say
        jmp     guest_end

; Sends a message and says so.
; In:       EBX = VM, ESI = message, ECX = bytes
; Clobbers: EAX, EBX, ECX, EDX, ESI
send:
        mov     eax, VMCALL_SEND
        vmcall
        push    ebx
        test    eax, eax
        mov     esi, text_sent
        jz      .say
        push    eax
        mov     esi, text_status
        pop     eax
        call    say_number
        mov     esi, text_not_sent
.say:
        pop     eax
        jmp     say_number

; Takes a message, if there is one, prints and answers it.
; Clobbers: all
receive:
        mov     eax, VMCALL_RECEIVE
        mov     edi, buffer
        mov     ecx, BUFFER_BYTES
        vmcall
        test    eax, eax
        jnz     .end
        mov     [sender], ebx
        mov     [length], ecx
        mov     esi, text_message
        mov     eax, ebx
        call    say
        mov     eax, [sender]
        call    console_decimal
        mov     al, ":"
        call    console_byte
        mov     al, " "
        call    console_byte
        mov     esi, buffer
        mov     ecx, [length]
        jecxz   .line
.byte:
        lodsb
        cmp     al, " "                         ; whatever it is, it is one line here
        jae     .print
        mov     al, "."
.print:
        push    ecx
        call    console_byte
        pop     ecx
        loop    .byte
.line:
        call    console_newline
        mov     ebx, [sender]
        mov     esi, buffer
        mov     ecx, [length]
        test    ebx, ebx
        jz      .service
        cmp     ecx, 4
        jne     .end
        cmp     dword [esi], "ping"
        jne     .end
        mov     esi, pong
        jmp     send
.service:
        cmp     ecx, 3
        jb      send
        cmp     word [esi], "en"
        jne     send
        cmp     byte [esi + 2], "d"
        jne     send
        inc     dword [ended]
.end:   ret

        align 4
own_number:     dd 0
pinged:         dd 0
ended:          dd 0
sender:         dd 0
length:         dd 0
hello:          db "hello from VM "
hello_number:   db "0"
HELLO_BYTES     equ $ - hello
ping:           db "ping"
pong:           db "pong"
BUFFER_BYTES    equ 256
buffer:         times BUFFER_BYTES db 0

text_name:
        db      "aware     ", 0
text_number:
        db      "is VM ", 0
text_sent:
        db      "sent a message to VM ", 0
text_not_sent:
        db      "could not send to VM ", 0
text_status:
        db      "the VMM answers with status ", 0
text_message:
        db      "message from VM ", 0
text_alone:
        db      "there is nobody to talk to", 13, 10, 0
