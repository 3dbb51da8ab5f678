; What stands behind `wrt` counts for the whole expression before it.
extern _GLOBAL_OFFSET_TABLE_, puts, variable
global here, there
section .text
        nop
here:   nop
near_by: nop
there:  nop
section .other exec
.got:   add     ebx, _GLOBAL_OFFSET_TABLE_ + $$ - .got wrt ..gotpc
        call    puts wrt ..plt
        call    here wrt ..plt
        call    near_by wrt ..plt
        mov     eax, [ebx + there wrt ..got]
        mov     eax, [ebx * 4 + ecx + near_by + 5 wrt ..gotoff]
        lea     eax, [near_by - 4 + ebx wrt ..gotoff]
        mov     eax, [there + 2 wrt ..sym]
        mov     eax, [variable wrt ..tlsie]
        dd      here wrt ..sym, there + 2 wrt ..sym, _GLOBAL_OFFSET_TABLE_ wrt ..gotpc
