; Sections of the bin format: order, alignment, addresses.
        org 0x1000
        section .data
first:  db 1, 2, 3
        section .text
code:   mov ax, [first]
        mov bx, [buffer]
        mov si, table
        jmp code
        jmp high_code
        section .bss
buffer: resb 10
        resw 3
        alignb 8
after:  resd 1
        section .table align=16
table:  dw code, first, buffer, after, table, tail, high_code, $$
        section .data
        dw $, $$, $ - $$
second: dd second - first
        section .high vstart=0x8000 align=32
high_code: jmp high_code
        call code
        dw high_code, $ - $$
        section .tail follows=.table
tail:   dw tail, section..table.start, section..high.vstart
        section .v vfollows=.high
v:      dw v
        segment .text
        dw $ - $$
        section .fixed start=0x2000
        db 'fixed'
        absolute 0x400
com1:   resw 4
lpt1:   resw 3
equipment: resw 1
        section .text
        mov ax, [equipment]
        mov dx, [com1 + 2]
        section .text
        dw lpt1 - com1
[section .data]
        db 'end'
__SECT__
        db 'still data'
