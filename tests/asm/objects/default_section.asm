; Code before any section directive: its section comes last.
extern outside
start:  call    outside
        mov     eax, [data]
section .data
data:   dd      5, start
section .bss
        resb    4
