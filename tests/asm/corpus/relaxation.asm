; Jumps on both sides of the borders between their forms, and chains of jumps that push each other apart.
        bits 16
%macro gap 1
        times %1 db 0x90
%endmacro
a:      jmp b
        gap 127
b:      jmp a
        jmp c
        gap 128
c:      jz d
        gap 126
        jnz c
d:      jnz c
        jc e
        jmp e
        jnc e
        gap 122
e:      jmp f
        jmp f
        jmp f
        jmp f
        gap 119
f:
%assign i 0
%rep 60
%assign j (i * 7 + 3) % 60
%assign k (i * 13 + 29) % 60
l%+i:   jmp l%[j]
        jz m%[i]
        gap i & 3
m%+i:   jnz l%[k]
%assign i i + 1
%endrep
        loop g
        gap 100
g:      jcxz g
        call a
        call h
h:      jmp near g
        jmp strict near h
        jmp short h
        jz near h
        times (h - e) / 16 nop
        align 16
n:      jmp n
        jmp word a
        jmp dword a
        bits 32
        jmp a
        jmp word a
        jmp n2
        gap 128
n2:     call word n2
        bits 64
        jmp n2
        call n2
        jz n2
        jrcxz n3
n3:
        bits    32
        jmp     12345                   ; a number is a place outside the section
        jz      0x10
        times   3 call 77

        bits 32
        mov ds, ax
        mov es, eax
        mov ss, [ebx]
        mov eax, ss
        bits 16
        mov ds, ax
        mov es, eax
        mov ax, es
        bits 64
        mov ds, ax
        mov es, eax
        mov fs, rax
        mov rax, fs
        mov gs, qword [rbx]
