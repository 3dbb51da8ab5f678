; Multi-line macros.
%macro none 0
        nop
%endmacro
%macro two 2
; a comment, which a listing of what the macro gives leaves out
        db %1, ";", %2  ; like this one
%endmacro
%macro defaults 1-3 7, 8
        db %0, %1, %2, %3
%endmacro
%macro greedy 2+
        db %1
        db %2
%endmacro
%macro any 0-*
        db %0
  %rep %0
        db %1
    %rotate 1
  %endrep
%endmacro
%macro backwards 1-*
  %rep %0
    %rotate -1
        db %1
  %endrep
%endmacro
%macro locals 1
%%again: dec cx
        jnz %%again
%ifidn %1, deep
        jmp %%out
        nop
%%out:
%endif
%endmacro
%imacro anycase 1
        db %1
%endmacro
%macro over 0
        db 100
%endmacro
%macro over 1
        db 101, %1
%endmacro
%macro over 2-3
        db 102, %0
%endmacro
%macro cond 1
        j%+1 %%skip
        j%-1 %%skip
        nop
%%skip:
%endmacro
%macro key 2
key_%1: db %2
%{1}end:
        dw key_%1, %{1}end
%endmacro
%macro labelled 0
        dw $
%endmacro
%macro takes_label 1
%00:    db %1
        dw %00
%endmacro
%macro nested 1
        two %1, %1 + 1
        locals %1
%endmacro
%macro definer 2
%define %1_value %2
%macro make_%1 0
        db foo_value, %0
%endmacro
%endmacro
%macro push 1-*
%rep %0
        push %1
%rotate 1
%endrep
%endmacro
%macro exits 1
        db 1
%if %1
        db 2
%exitmacro
%endif
        db 3
%endmacro
%macro ranges 1-*
        db %{1:2}
        db %{-1:1}
        db %{2:-1}
%endmacro
        none
        two 1, 2
        two {1, 2}, 3
        two "a,b", 'c;d'
        defaults 1
        defaults 1, 2
        defaults 1, 2, 3
        greedy 1, 2, 3, "four"
        any
        any 1
        any 1, 2, 3
        backwards 1, 2, 3
        locals shallow
        locals deep
        ANYcase 5
        over
        over 1
        over 1, 2
        over 1, 2, 3
        cond z
        cond nae
        key alpha, 5
lab:    labelled
lab2    labelled
        dw lab, lab2
own:    takes_label 9
        nested 4
        definer foo, 6
        make_foo
        push ax, bx, cx
        push word 5
        exits 0
        exits 1
        ranges 1, 2, 3
%unmacro over 1
%assign i 0
%rep 10
  %if i == 7
    %exitrep
  %endif
        db i
  %assign j 0
  %rep 3
        db i * j
    %assign j j + 1
  %endrep
  %assign i i + 1
%endrep
%rep 0
 garbage (
%endrep
%macro counted 1
  %assign %%n 0
  %rep %1
    %assign %%n %%n + 1
        db %%n
  %endrep
%endmacro
        counted 4
%macro inner_if 1
 %ifidn %1, a
        db 'a'
 %elifidn %1, b
        db 'b'
 %else
        db '?'
 %endif
%endmacro
        inner_if a
        inner_if b
        inner_if c
%macro retdef 0
%define leaked 42
%endmacro
        retdef
        db leaked
        two 1 , 2 ; a comment, with a comma
%macro  quiet 1.nolist
%rep 2
        mov     ax, %1
%endrep
%endmacro
 named: quiet   5
        quiet   6
