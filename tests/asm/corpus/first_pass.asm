; Statements that are longer in NASM's first pass: jumps over them stay near that would be short enough in the end.
        bits    64
        default rel
%macro  leap 2
        %1
        %1
        %1
        %1
        jl      %%end
        times   %2 nop
%%end:
%endmacro
        leap    {lea rax, [later]}, 122
        leap    {lea rax, [later]}, 124
        leap    {mov eax, [later]}, 124
        leap    {mov rcx, [abs later]}, 124
        leap    {mov eax, [rcx + later - begin]}, 118
        leap    {mov eax, [a32 later]}, 124
        leap    {add rax, later - begin}, 118
        leap    {shl eax, size}, 124
        leap    {rol byte [later], size}, 122
        bits    32
        leap    {mov eax, [ecx + edx + later - $$]}, 118
        leap    {mov eax, [ecx + later - begin]}, 118
        bits    16
        leap    {mov ax, [bx + si + later - $$]}, 122
        leap    {add ax, size}, 122
begin:  dd      1
later:  dd      1
size    equ     4
