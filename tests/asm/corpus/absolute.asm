; A transient part that the program's own start is reused for: absolute space at an address.
        org     0x100
        jmp     setup
resident:
        dw      variable, table, after
        times   3 db 0x90
setup:
        mov     ax, variable
        mov     [table + 2], ax
        lea     dx, [after]
absolute setup
variable: resw  1
table:  resd    20
after:
section .text
        mov     bx, after - setup
        jmp     setup
absolute 0x41a
segmented: resw 2
section .data
        dw      segmented
