; The guest that hangs: it works for a while, then turns interrupts off and goes round in a loop.

%include "begin.inc"

guest_main:
        call    timer_run
        mov     esi, text_hangs
        call    say
        cli
hang:   jmp     hang

text_name:
        db      "hung      ", 0
text_hangs:
        db      "hangs, with interrupts off", 13, 10, 0
