; what is particular in a listing: warnings behind the line that they are of, fields that count from here, repetitions
%macro warned 1
        db %1
  %warning in here
        db 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
%endmacro

%macro unlisted 1.nolist
        mov eax, %1
  %warning in here too
        mov ebx, %1
        times 12 nop
%endmacro

%macro local 0
  %push
%$name: warned 3
  %pop
%endmacro

        bits 32
first:  mov eax, [first - $]
        mov ebx, [ebx + first - $]
        mov ecx, first - $
        dd first - $, $ - first
        warned 200
        unlisted 300
        local
%rep 2
        warned 5
%endrep
%rep .nolist 3
        mov edx, 7
  %warning unlisted, too
%endrep
        times 100 jmp ahead
        times 3 jmp first
ahead:  times 3 db 1, 2
        section .bss
        times 0x10 resb 0x20
last:   resb 1
        section .text
        dw last
