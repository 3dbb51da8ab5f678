; parameters of which nothing or only blanks are left
%define NOTHING
%macro one 1
        db "one", %0, %1
%endmacro

%macro outer 1-2                ; a comment behind it
        one %2                  ; and one behind what it makes
        db "outer", %0, %1, %2
        one 7                   ; no parameter, and a comment
%endmacro

        outer 1
        outer 2, NOTHING
        outer 3, {}
        outer 4, 5
        one NOTHING
        db __?NASM_VER?__
