; The standard packages, and procedures' parameters and local variables.
%use smartalign
        bits 32
        nop
        align 16
        alignmode p6, 64
        nop
        align 16
        align 32
        nop
        align 64
        nop
        alignmode k7
        align 8
        nop
        align 64
        nop
        align 512
        alignmode k8, nojmp
        nop
        align 64
        bits 64
        nop
        align 32
        nop
        alignmode nop, 100
        align 32
        bits 16
        alignmode generic
        nop
        align 8
        nop
        align 16
        nop
        align 512
        alignmode generic, 1000
        times 5 nop
        align 64
        align 4, db 0
        times 3 nop
        align 8, db 0xcc
procedure:
%push frame
%stacksize large
%assign %$localsize 0
%arg i:word, j:dword, k:byte
%local old_ax:word, b:byte, d:dword
        enter %$localsize, 0
        mov ax, [i]
        mov eax, [j]
        mov al, [k]
        mov [old_ax], ax
        mov [b], al
        mov [d], eax
        leave
        retf
%pop
        bits 32
%push frame
%stacksize flat
%assign %$localsize 0
%arg p:dword, q:qword, r:dword
%local s:dword
        enter %$localsize, 0
        mov eax, [p]
        add eax, [q]
        mov [s], eax
        mov eax, [r + 4]
        leave
        ret 16
%pop
%use altreg
        bits 64
        mov r0, r3
        mov r0l, r1l
        mov r9d, r2d

%use masm
bits 32
first   proc near
        mov     ax, word ptr [ebx]
        mov     eax, dword ptr first
        mov     dword ptr gs:first[ebx], 5
        mov     cx, word ptr gs:first
        mov     ecx, fs:5
        fld     tbyte ptr [ebx]
        ret
first   endp
        call    first
