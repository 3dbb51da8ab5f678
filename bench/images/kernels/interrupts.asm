; INT and IRET through an interrupt gate of the same privilege.
IDT equ 0
VECTOR equ 0x40
INTERRUPT_GATE equ 0x8e00
kernel:
    mov word [IDT + VECTOR * 8], handler - $$ + (KERNEL & 0xffff)
    mov [IDT + VECTOR * 8 + 2], cs
    mov word [IDT + VECTOR * 8 + 4], INTERRUPT_GATE
    mov word [IDT + VECTOR * 8 + 6], KERNEL >> 16
    lidt [.register]
    xor eax, eax
.turn:
    int VECTOR
    dec ecx
    jnz .turn
    ret
.register:
    dw (VECTOR + 1) * 8 - 1
    dd IDT

handler:
    inc eax
    iret
