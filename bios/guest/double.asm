; The guest with a double fault: the gate of the exception that it causes is not present, so a second exception comes in the
; delivery of the first. SDM Vol. 3, "Interrupt 8: Double Fault Exception".

%include "begin.inc"

guest_main:
        mov     eax, double_fault
        mov     ecx, VECTOR_DF
        call    idt_set
        and     byte [idt + VECTOR_GP * 8 + 5], ~80h    ; the gate's present bit
        mov     esi, text_now
        call    say
        mov     eax, SELECTOR_BEYOND
double_now:
        mov     gs, ax                          ; #GP, then #NP
        mov     esi, text_nothing
        call    say
        jmp     acpi_power_off

; In:       on the stack the error code, which is 0
double_fault:
        pop     eax
        test    eax, eax
        jnz     interrupt_unexpected
        mov     esi, text_taken
        call    say
        jmp     guest_end

SELECTOR_BEYOND equ 0FFF8h              ; beyond the limit of the descriptor table

text_name:
        db      "double    ", 0
text_now:
        db      "causes a double fault", 13, 10, 0
text_taken:
        db      "took the double fault", 13, 10, 0
text_nothing:
        db      "NOTHING happened", 13, 10, 0
