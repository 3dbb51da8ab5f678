; OUT to the POST code port.
kernel:
    xor eax, eax
.turn:
    mov eax, ecx
    out 0x80, al
    dec ecx
    jnz .turn
    ret
