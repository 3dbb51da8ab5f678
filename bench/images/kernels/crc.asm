; CRC-32, a bit at a time; a turn is a byte.
kernel:
    mov eax, -1
    mov ebx, 0x12345678
.turn:
    imul ebx, ebx, 1664525
    add ebx, 1013904223
    mov edx, ebx
    shr edx, 24
    xor al, dl
    mov edi, 8
.bit:
    shr eax, 1
    jnc .next
    xor eax, 0xedb88320
.next:
    dec edi
    jnz .bit
    dec ecx
    jnz .turn
    ret
