; Fibonacci numbers by recursion; a turn is the 12th.
kernel:
    xor ebp, ebp
.turn:
    mov eax, 12
    call fib
    add ebp, eax
    dec ecx
    jnz .turn
    mov eax, ebp
    ret

; In, out: EAX. Clobbers EDX.
fib:
    cmp eax, 2
    jb .done
    push eax
    dec eax
    call fib
    pop edx
    push eax
    lea eax, [edx - 2]
    call fib
    pop edx
    add eax, edx
.done:
    ret
