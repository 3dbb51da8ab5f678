; The guest with a triple fault: its interrupt table is empty when an exception comes.

%include "begin.inc"

guest_main:
        mov     esi, text_now
        call    say
.sent:                                          ; the line is out before the processor shuts down
        mov     edx, PORT_COM1 + UART_LSR
        in      al, dx
        test    al, LSR_TEMT
        jz      .sent
        lidt    [empty]
triple_now:
        ud2

empty:  dw      0
        dd      0

text_name:
        db      "triple    ", 0
text_now:
        db      "causes a triple fault", 13, 10, 0
