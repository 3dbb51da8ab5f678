; Symbols of every kind, and each relocation of the Intel 386 supplement that NASM can write.
global start:function (start.end - start), message:data hidden, weakling:function weak
extern puts, unused, tls_variable, _GLOBAL_OFFSET_TABLE_, late
required kept
common buffer 16:4
common plain 64
static_value equ 7

section .text
start:
        push    dword message
        call    puts
        call    start
        jmp     near table
        jz      puts
        mov     eax, [buffer]
        mov     ax, [buffer + 2]
        mov     ecx, static_value
        dw      start
        db      start - start.inner
.inner: mov     eax, [message + 4]
        dd      puts - $, message - $ + 8
        dd      message wrt ..sym
        dd      message wrt ..gotoff
        call    puts wrt ..plt
        mov     eax, [puts wrt ..got]
        mov     eax, [tls_variable wrt ..tlsie]
        times 2 dd message
        call    0x1234
weakling:
        ret
position_independent:
        call    .here
.here:  pop     ebx
        add     ebx, _GLOBAL_OFFSET_TABLE_ + $$ - .here wrt ..gotpc
        lea     eax, [ebx + message wrt ..gotoff]
        mov     eax, [ebx + puts wrt ..got]
        jmp     0x08:.reload
.reload: jmp    dword 0x10:start
late:   jmp     late
.end:
start.end:
section .data align=16
table:  dd      start, puts, message, 5, $$, $ - $$
message: db     'hello', 0
        dw      table
        db      table
section .bss
        resb    10
local:  resd    1
section .rodata progbits alloc noexec nowrite align=8
        dd      local, plain
