; Labels, local labels, and references in both directions.
        bits 32
main:
.a:     nop
.b      nop
..@special:
        jmp .a
        jmp ..@special
        call other.a
other:  jmp main.b
.a:     loop .a
        jecxz .c
        jcxz .c
.c:     loopne .a, cx
        loope .a, ecx
        mov eax, main.a
        mov eax, [other.c]
        mov ebx, other.c - main.b
$eax:   mov eax, $eax
        jmp $eax
no_colon
        dd no_colon
twice   dd twice, $
        jmp $
        jmp $ + 2
        jmp $$
        jmp short $ + 10
        jmp near $ + 10
        push dword forward
        push forward
        add eax, forward
        add eax, value
        add eax, strict dword value
        add eax, dword value
        add eax, byte value
        sub ebx, forward - main
        mov eax, [ebx + value]
        mov eax, [ebx + forward]
        mov eax, [ebx + forward - main]
        mov [byte ebx + value], al
        mov [dword ebx + value], al
        mov eax, [ebx + big]
        lea esi, [forward + eax * 4 + value]
        imul eax, eax, value
        imul eax, ebx, big
        test eax, value
        int value
        enter big, 0
value   equ 5
big     equ 500
forward: ret value
.end:   ret big
        dd forward.end
?question: db ?question
_under@score#hash~tilde$dollar.dot?: dw _under@score#hash~tilde$dollar.dot?
colon:  equ 7
        dw colon
        mov ax, cs:[bx]
        mov word es:[di + 4], 5
        add ax, 5,
big     equ 500
