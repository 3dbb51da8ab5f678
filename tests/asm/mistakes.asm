; A hundred-odd mistakes, each on a line of its own; NASM rejects these lines and no others.
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
        mov ax, word ptr [bx]
        mov ax, offset good
        mov ds, 0x1000
        mov cr0, ax
        mov cr0, 1
        mov ax 5
        mov, ax, 5
        mov [bx], [bx]
        cmp 5, ax
        inc [bx]
        mul ax, bx
        div 5
        movzx eax, ebx
        lgdt good
        ltr 5
        jnz far good
        jmp near 1:2
        jmp [bx], 5
        add near [bx], ax
        bnd mov ax, bx
        repne call good
        rep repe movsb
        lock rep repne movsb
        mov r8d, 5
        mov eax, [rbx]
        mov eax, [bx+ecx]
        mov eax, [ebx*16]
        mov eax, [ebx-ecx]
        mov eax, [ebx+ecx+edx]
        mov eax, es:[cs:bx]
        mov eax, [5:bx]
        mov ax, flags
        mov ax, bx + 5
        vaddps xmm0, ymm1, ymm2
        movaps mm0, xmm1
        fadd st1, st2
        fld eax
        fld [ebx]
        lodsb ax
        enter 5
        loop good, dx
        call far ax, bx
        a32 a16 mov ax, [bx]
        o64 mov eax, ebx
        db hello
        db 0b102
        foo equ bar
1foo:   nop
foo::   nop
eax:    nop
        incbin nofile.bin
        int 10h int 11h
        cli, hlt
        jmp .nolocal
        .model small
        assume cs:code
        proc main
        istruc nowhere
        iend
        push byte
        [foo bar]
        default foo
        float what
        cpu 8085
        %assign
        %endrep
        %includ "x.inc"
        mov ax, [bp+4]h
        mov ax, (5
