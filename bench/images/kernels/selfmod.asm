; A loop that changes an instruction of its own before each turn.
kernel:
    xor eax, eax
.turn:
    mov [.changed + 1], ecx
    nop
.changed:
    add eax, 0x12345678
    dec ecx
    jnz .turn
    ret
