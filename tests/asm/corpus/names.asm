; names in other alphabets, and lines that the C preprocessor numbers
größe:  db      1
.länge: dw      .länge - größe, größe
%define ümlaut 3
        db      ümlaut, 'größe'
%macro  étoile 1
%%ici:  db      %1, %%ici - größe
%endmacro
        étoile  4
%push   контекст
%define %$имя 5
        db      %$имя
%pop
日本:   dw      日本
        mov     al, [größe.länge]
# 20 "other.c"
        db      __LINE__, __FILE__
%if 0
# 30 "another.c" 1 3
%endif
        db      __LINE__, __FILE__
