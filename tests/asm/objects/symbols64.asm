; Symbols and the relocations of the AMD64 supplement that NASM can write.
default rel
global start, table
extern puts, other, variable
section .text
start:
        mov     rax, message
        mov     eax, message
        mov     rax, [message]
        mov     rcx, [abs message]
        lea     rdi, [puts]
        call    puts
        call    puts wrt ..plt
        mov     rax, [puts wrt ..got]
        mov     rax, [variable wrt ..gottpoff]
        push    message
        add     rax, message
        mov     qword [message], 5
        cmp     byte [rel message + 3], 5
        movaps  xmm0, [message]
        vblendvps xmm1, xmm2, [message], xmm3
        jz      start
        jz      other
        mov     rax, [rbx + message]
        mov     eax, [rbx * 4 + message]
        mov     rax, [qword abs message]
table:  dq      puts, start, message + 5, $$
        dd      puts, start
        dw      start
        db      start
        dq      table wrt ..sym
        dq      message - $
        dd      message - $ + 4
section .data
message: db     1
