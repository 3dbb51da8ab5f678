; The option ROM of the management modem: sets COM2 up for it, so that the modem can be spoken to from then on.
;
; Entry: a far call to byte 3 in real mode, from the option ROM scan of POST. The image is copied to a multiple of 2 KiB
; between C0000h and EFFFFh and runs there, wherever that is.
;
; The last byte makes the sum of all bytes 0; bios/build.py fills it in.

        bits 16
        org 0

%include "ports.inc"

ROM_UNITS       equ 1                   ; of 512 bytes

        dw      0AA55h
        db      ROM_UNITS
        jmp     near modem_init
        db      "management modem", 0

; COM2 at 115200 baud, 8 data bits, no parity, FIFOs on, if there is one; says so on the console.
; Out:      returns far
; Clobbers: nothing
modem_init:
        pushad
        mov     dx, PORT_COM2 + UART_SCR        ; a UART holds what is written to its scratch register
        mov     al, 5Ah
        out     dx, al
        in      al, dx
        cmp     al, 5Ah
        mov     si, text_none
        jne     .say
        mov     dx, PORT_COM2 + UART_LCR
        mov     al, LCR_DLAB
        out     dx, al
        mov     dx, PORT_COM2 + UART_DATA
        mov     al, 1                           ; divisor 1
        out     dx, al
        mov     dx, PORT_COM2 + UART_IER
        mov     al, 0
        out     dx, al
        mov     dx, PORT_COM2 + UART_LCR
        mov     al, LCR_8N1
        out     dx, al
        mov     dx, PORT_COM2 + UART_IIR
        mov     al, 07h                         ; enable and clear both FIFOs
        out     dx, al
        mov     dx, PORT_COM2 + UART_MCR
        mov     al, 03h                         ; DTR, RTS
        out     dx, al
        mov     si, text_found
.say:
        mov     al, [cs:si]
        inc     si
        test    al, al
        jz      .end
        mov     ah, al
        mov     dx, PORT_COM1 + UART_LSR
.wait:
        in      al, dx
        test    al, LSR_THRE
        jz      .wait
        mov     dx, PORT_COM1 + UART_DATA
        mov     al, ah
        out     dx, al
        jmp     .say
.end:
        popad
        retf

text_found:
        db      "option    management modem on COM2, 115200 baud", 13, 10, 0
text_none:
        db      "option    management modem: no COM2", 13, 10, 0

        times ROM_UNITS * 512 - ($ - $$) db 0
