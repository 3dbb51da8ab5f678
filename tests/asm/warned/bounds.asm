; numbers that do not fit their fields
        bits 64
here:   mov rax, dword 0x80000000
        add rcx, 0x80000000
        add rcx, 0xffffffff
        imul rcx, rdx, 0x80000000
        push 0x80000000
        push strict qword 0x80000000
        test rcx, 0x80000000
        mov qword [rcx], 0x80000000
        mov eax, [eax + 0xffffffff]
        mov eax, [rax + 0xffffffff]
        mov eax, [rax + 0x80000000]
        mov eax, [byte rax + 0xff]
        mov eax, [dword rax + 0xff]
        mov eax, [0x80000000]
        mov ecx, [0xffffffff80000000]
        mov ecx, [0x180000000]
        mov ecx, [a32 0x180000000]
        mov ecx, [eax - 0x100000000]
        mov ecx, [eax - 0x100000001]
        mov ecx, [here + 0x80000000]
        mov ecx, [rax + here + 0x80000000]
        mov ecx, [rel here + 0x180000000]
        mov eax, [rax + here + 0x100]
        jmp here + 0x180000000
        call here - 0x80000000
        jmp 0x180000000
        or ax, 0xffffffffffff0000
        or ax, 0xfffffffffffeffff
        or al, 0xffffffffffffff00
        or al, 0xfffffffffffffeff
        lea rax, [rax - 0x80000001]
        lea eax, [byte rax - 0x81]
        enter 0x10000, 0x100
        ret 0x10000
        int 0x100
        out 0x100, al
        bits 32
        mov eax, [eax + 0xffffffff]
        mov eax, [byte eax + 0xff]
        mov eax, [byte eax + 0xffffff80]
        mov eax, [0xffffffff80000000]
        mov eax, [0xfffffffe80000000]
        mov eax, [bx + 0x18000]
        mov eax, [bx + 0xffff]
        mov eax, [bx - 0x8001]
        mov eax, [here + 0xffffffff]
        mov edx, [here + 0x1ffffffff]
        jmp near here + 0x1ffffffff
        add eax, 0xffffffffffffff80
        bits 16
        mov ax, [bx + 0x10000]
        mov ax, [byte bx + 0xff]
        mov ax, [bx - 0xff80]
        mov dx, [0x10000]
        mov dx, [here + 0x1ffff]
        db -200, -300, 256
        dw -40000, -70000
