; The guest that crashes again: it works for a while, then shuts down by a triple fault; and so each time that it is restarted.

%include "begin.inc"
%include "shutdown.inc"

guest_main:
        call    timer_run
        mov     esi, text_now
        jmp     triple_fault

text_name:
        db      "crashy    ", 0
text_now:
        db      "causes a triple fault", 13, 10, 0
