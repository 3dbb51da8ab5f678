; Attributes of sections that come and go, entries of every size, symbols of every kind, and the ABI's number.
        osabi   9, 1
section .init_array.5 init_array
section .fini_array2 fini_array align=4
section .bytes merge byte
section .words merge word
section .pairs merge dword align=16
section .quads merge qword align=2
section .tens merge tword
section .wide merge oword
section .pointers pointer
section .many word*3
section .text2 strings
section .both strings merge qword readonly
section .again
section .again align=8
section .again align=4 nowrite
section .again exec
section .again word
section .again byte
section .bss
room:   dd      room
        call    outside
section .data align=1
section .data write
extern outside:weak
extern described:function hidden
common shared 8:16
common plain 100
static inner:function hidden (inner.end - inner)
global first:data first.end - first, weakly:weak function
first:  dd      outside - $, described
.end:
weakly: dd      shared, plain + 4
inner:  db      1, 2, 3
.end:
section .narrow
        db      outside, outside - $
        dw      first, outside - $
bits 16
        jmp     outside:first
        jmp     0x10:first
        o32 call outside
bits 64
        mov     ebx, [ebx + outside]
        mov     ebx, [a32 outside]
        mov     rbx, [rbx + outside]
section __LD,__compact-unwind progbits
        dd      first
