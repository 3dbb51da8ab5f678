; what is warned of in a class each
    bits 16
    cpu 8086
    pop cs
    cpu 386
    pop cs
    cpu any
    pcommit
    ud0
    bits 32
    o32 call word x
    o16 jmp dword x
x:  dd 1.00000000000000000000000000000000000000000000000000001
    dd 1e-400, 1.0
    dd 1e-45, 0.0
    dd 1e400
%define open 'abc
%warning don't
%define closed 'it"s' ; don't
    mov eax, 'abcde'
    mov eax, 'abcd'
    mov eax, 0x12345678901234567
    dq 99999999999999999999, 18446744073709551615
    db %!no_such_variable
    mov al, 300
