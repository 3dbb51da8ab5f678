; Register arithmetic: eleven instructions, none of which touches memory.
kernel:
    xor eax, eax
    mov ebx, 0x9e3779b9
    xor edx, edx
    mov esi, -1
    xor edi, edi
    xor ebp, ebp
.turn:
    add eax, ebx
    xor ebx, 0x1234567
    sub edx, eax
    and esi, ebx
    or edi, 5
    inc ebp
    lea eax, [eax + ebx * 2 + 1]
    mov ebx, edx
    cmp eax, edi
    dec ecx
    jnz .turn
    add eax, esi
    ret
