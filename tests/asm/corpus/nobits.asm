; Sections without contents.
        org 0x100
        section .text
        dw a, b, c, d, e, f
        section .bss
        resb 5
a:      resb 1
        section .b nobits align=16
b:      resb 1
        section .c nobits vstart=0x1000
c:      resb 3
        section .d nobits follows=.c
d:      resb 1
        section .e nobits start=0x2000
e:      resd 1
        section .f nobits
f:      resb 1
        section .data align=8 valign=32
g:      dw g
        section .text
        dw g, section..bss.start
