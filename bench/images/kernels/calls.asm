; Calls and returns: direct, through a register and through a table.
kernel:
    xor eax, eax
    mov esi, two
.turn:
    call one
    call esi
    mov edx, ecx
    and edx, 3
    call [table + edx * 4]
    dec ecx
    jnz .turn
    ret

one:
    inc eax
    ret
two:
    push ebp
    mov ebp, esp
    add eax, [ebp + 4]
    pop ebp
    ret
three:
    lea eax, [eax + eax * 2]
    ret

align 4
table: dd one, two, three, one
