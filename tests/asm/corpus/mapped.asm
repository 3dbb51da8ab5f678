; Sections at load and at run-time addresses of their own, and the map of them.
org 0x7c00
start:  jmp     near after
constant equ 0x1234
        times   3 nop
.local: dw      $
section .data align=16 vstart=0x9000
first:  dw      1, 2, second, third
section .rest follows=.data valign=8 align=32
second: db      1
section .more valign=16
third:  dw      third
section .bss
fourth: resb    10
section .late nobits vfollows=.data
fifth:  resd    1
section .text
after:  mov     ax, fifth
absolute 5
sixth:  resb    1
