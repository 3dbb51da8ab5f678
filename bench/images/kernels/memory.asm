; Read, change, write over 64 KiB, and loads.
kernel:
    mov esi, DATA
    xor edi, edi
    xor eax, eax
.turn:
    add [esi + edi], ecx
    mov ebx, [esi + edi + 4]
    xor [esi + edi], ebx
    add eax, [esi + edi]
    inc dword [esi + edi + 4]
    add edi, 8
    and edi, 0xffff
    dec ecx
    jnz .turn
    ret
