; The sieve of Eratosthenes over the odd numbers below 16,384; a turn is a whole sieve. Result: primes found.
SIZE equ 8191
kernel:
.turn:
    push ecx
    mov edi, DATA
    mov ecx, SIZE + 1
    mov al, 1
    rep stosb
    xor ebp, ebp
    xor esi, esi
.candidate:
    cmp byte [DATA + esi], 0
    je .next
    inc ebp
    lea edx, [esi + esi + 3]
    lea edi, [esi + edx]
    cmp edi, SIZE
    ja .next
.strike:
    mov byte [DATA + edi], 0
    add edi, edx
    cmp edi, SIZE
    jbe .strike
.next:
    inc esi
    cmp esi, SIZE
    jbe .candidate
    pop ecx
    dec ecx
    jnz .turn
    mov eax, ebp
    ret
