; The guest with a triple fault.

%include "begin.inc"
%include "shutdown.inc"

guest_main:
        mov     esi, text_now
        jmp     triple_fault

text_name:
        db      "triple    ", 0
text_now:
        db      "causes a triple fault", 13, 10, 0
