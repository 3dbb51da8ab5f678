; Directives in both their forms, and words that may stand alone.
        [bits 32]
        mov eax, 1
        [BITS 16]
        mov eax, 1
        use32
        mov ax, 1
        USE16
        mov ax, 1
        cpu x64
        global foo, bar
        extern baz
foo:    nop
bar:    nop
        [global foo]
        [section .text]
        default abs
        bits 64
        mov rax, [foo]
        default rel
        mov rax, [foo]
        mov eax, [rel bar]
        mov eax, [abs bar]
        mov eax, [fs:foo]
        lea rsi, [foo + 4]
        cmp dword [foo], 5
        mov byte [foo], 1
        bits 16
        rep
        movsb
        lock
        inc byte [bx]
        es lodsb
        cs mov ax, [bx]
        rep es lodsb
        lock add [es:bx], ax
        a32 lodsb
        o32 ret
        a32 o32 rep movsw
        wait
es_alone: es
        times 3 es lodsb
        float daz
        [warning -other]
        [list -]
        [list +]
        sectalign off
        incbin "labels.asm"
        incbin "labels.asm", 10
        incbin 'labels.asm', 10, 20
        times 2 incbin "labels.asm", 0, 4
%include "preprocessor.asm"
%use altreg
        bits 64
        mov r0l, r1l
        mov r0, r2
        mov r3d, r8d
