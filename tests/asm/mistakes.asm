; Fifty-odd mistakes, each on a line of its own; NASM rejects these lines and no others.
        bits 16
good:   mov ax, 1
        mvo ax, 1
        mov ax
        mov ax, bx, cx
        mov ax, eax
        mov [bx], 5
        mov ax, [ax]
        mov ax, [bx + bp]
        mov eax, [eax * 3 + ebx + ecx]
        mov eax, [esp * 2]
        mov cs, 5
        add ax, undefined1
        jmp undefined2
        jmp short far_away
        loop far_away
        push
        push al
        pop cs, ax
        int 1, 2
        in ax, bx
        out dx, bl
        shl ax, bx
        lea ax, bx
        mov rax, 1
        mov cr9, ax
        dx 5
        db 1 +
        db 1 + * 2
        db (1 + 2
        dd 5 +
        dw 1, , 2
        dd good / 2
        dw good * 2
        dw 1 / 0
        dw 5 % 0
        dq good & 7
        dd good + good
        mov ax, [good * 2]
good:   nop
.local: nop
.local: nop
        times -1 nop
        times good nop
        times 3
        resb good
        bits 17
        use32 5
        align 3
        foo bar, baz
        mov ax, 'unterminated
        mov ax, [bx
        mov ax, bx]
        mov ax, 12ab
        mov ax, 0x
        mov ax, 109b
        [nonsense 5]
%error a message
%nonsense
%if 1 +
%endif
%endif
%else
%endmacro
        absolute 1 +
%include "no such file"
        incbin "no such file"
        section .text align=3
equ 5
        jmp 1:2:3
        call far good
        mov byte ax, 1
        xchg al, ax
        movzx ax, ax
        bound ax, bx
        ret ax
        jmp [bx]:5
        lock mov ax, bx
after:  mov ax, good
        times 200 nop
far_away:
        hlt
