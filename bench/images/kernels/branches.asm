; Jumps that depend on data nobody can predict: three a turn, on bits of a linear congruential generator.
kernel:
    mov ebx, 0x12345678
    xor eax, eax
.turn:
    imul ebx, ebx, 1664525
    add ebx, 1013904223
    test ebx, 1 << 20
    jz .second
    add eax, ebx
.second:
    test ebx, 1 << 25
    jnz .third
    xor eax, 0x55
.third:
    cmp ebx, eax
    jl .next
    sub eax, 7
.next:
    dec ecx
    jnz .turn
    ret
