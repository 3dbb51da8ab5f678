; What stands behind `wrt` counts for the whole expression before it.
extern _GLOBAL_OFFSET_TABLE_, puts, variable
global here, there
section .text
        nop
here:   nop
there:  nop
section .other exec
        lea     rbx, [rel _GLOBAL_OFFSET_TABLE_ wrt ..gotpc]
        call    puts wrt ..plt
        call    there wrt ..plt
        lea     rax, [rel there wrt ..got]
        lea     rax, [rel there wrt ..gotpc]
        mov     rax, [rel variable wrt ..gottpoff]
        mov     eax, [there + 2 wrt ..sym]
        mov     rax, there wrt ..sym
        mov     rcx, here wrt ..gotoff
        mov     rax, [rbx + puts wrt ..got]
.got:   mov     ecx, _GLOBAL_OFFSET_TABLE_ + $$ - .got wrt ..gotpc
        dd      here wrt ..sym, there + 2 wrt ..sym, _GLOBAL_OFFSET_TABLE_ wrt ..gotpc
        dq      puts wrt ..got, here + 8 wrt ..gotoff, there wrt ..got
