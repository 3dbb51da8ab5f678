; Sections that have a meaning, attributes, and what local labels of macros are called.
%macro local_label 0
%%here: nop
%endmacro
section .note.GNU-stack noalloc noexec nowrite progbits
section .tdata tls
first:  dd      1
section .tbss
second: resd    1
section .rodata
third:  dd      3
        local_label
section .comment
section .init_array
section .fini_array
section .preinit_array
section .strings merge strings progbits alloc
        db      'a', 0
section .constants merge dword align=4
section .foo write
section .bar nobits alloc
section .lbss
section .ldata
section .note
section .note.abc
        dd      1
section .text align=32
        local_label
struc   pair
.a:     resd    1
.b:     resd    1
endstruc
        local_label
        istruc  pair
        at .a, dd 1
        at .b, dd 2
        iend
        local_label
        align   8
        local_label
        align   4, int3
        alignb  4
        local_label
%push   context
%$here: jmp     %$here
        local_label
%pop
        local_label
section .aligned align=64 exec
        align   128
absolute 0x100
low:    resb    4
