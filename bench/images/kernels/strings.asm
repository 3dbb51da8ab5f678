; REP MOVSD of 4 KiB blocks; each iteration counts as an instruction. A turn is a block.
kernel:
    mov ebx, ecx
    cld
.turn:
    mov esi, DATA
    mov edi, DATA + 0x8000
    mov [esi], ebx
    mov ecx, 1024
    rep movsd
    dec ebx
    jnz .turn
    mov eax, [DATA + 0x8000]
    ret
