; Single-line macros and the directives that make them.
%define zero 0
%define inc1(x) ((x) + 1)
%define pair(a, b) a, b
%define nothing
%define chain zero + one
%define one 1
%idefine CaseLess 77
        db zero, inc1(4), pair(2, 3), chain, caseless, CASELESS nothing
%define name other
%xdefine fixed name
%define other 9
%define third name
%undef name
%define name 3
        db fixed, third
%assign n 5
%assign n n * 2 + 1
        db n
%iassign Count 4
        db COUNT
%define str 'hello'
%strlen len str
%substr sub1 str 2
%substr sub2 str 2, 3
%substr sub3 str 2, -1
%substr sub4 str -2 , 3
%strcat cat str, ', ', "world"
%defstr ds zero + something
%deftok dt '1 + 2'
        db len, sub1, sub2, sub3, cat, 0, ds, 0, dt
%define join(a, b) a %+ b
join(la, bel):  db join(1, 2), join(0x, ff)
        dw label
%define concat la%+bel
        dw concat
%define idx 3
        db %[idx]4, 1%[idx]
v%[idx]: dw v3
%define over(a) 1
%define over(a, b) 2
        db over(x), over(x, y)
%define q1 q2
%define q2 q1
q1      equ 6
        db q1
%undef q2
%define greedy(a, b+) b
        db greedy(1, 2, 3)
%define evaluated(=x) x
        db evaluated(1 + 2)
%define quoted(&x) x
        db quoted(a b), 0
%define braces(x) x
        db braces({1, 2})
        db __LINE__
        db __?LINE?__
        db __BITS__, __NASM_MAJOR__
        db __FILE__
%define self_named(x) self_named
self_named(1) equ 3
        db self_named(1)
%ifdef never
%error never defined
%elifndef zero
%error zero not defined
%elif n == 11
        db 'elif'
%else
%error else
%endif
%if 0
 garbage here (
%if 1
 more ]
%else
%endif
%elifdef zero
        db 'elifdef'
%else
        db 'no'
%endif
%ifidn a b, a b
        db 1
%endif
%ifidn abc, ABC
        db 2
%elifidni abc, ABC
        db 3
%endif
%ifnidn zero, 0
        db 4
%else
        db 5
%endif
%ifnum 5
        db 6
%endif
%ifnum -5
        db 7
%endif
%ifnum zero
        db 8
%endif
%ifnnum x
        db 9
%endif
%ifid abc
        db 10
%endif
%ifid 5
        db 11
%elifstr 'x'
        db 12
%endif
%ifempty nothing
        db 13
%endif
%ifnempty zero
        db 14
%endif
%iftoken zero
        db 15
%endif
%iftoken zero zero
        db 16
%endif
%ifndef never
        db 17
%endif
%ifn 0
        db 18
%endif
%ifmacro none
        db 19
%elifnmacro none
        db 20
%endif
%ifenv PATH
        db 21
%endif
%if 1 && (2 > 1) || 0
        db 22
%endif
%ifn zero
        db 23
%elifn one
        db 24
%endif
%push ctx
%define %$local 5
        db %$local
%$label: dw %$label
%push inner
        db %$$local
%$label: dw %$label, %$$label
%ifctx inner
        db 25
%endif
%repl renamed
%ifctx renamed
        db 26
%endif
%pop
        dw %$label
%pop ctx
        mov ax, \
            5
        db 1, \
           2
%define long 1 + \
             2
        db long
%strcat joined "al", 'pha', `\n`
%strcat marks  "it's", '"', `\x015`, `\x01\xff\e`, "é`\"
        db      joined, marks, %strcat('a', `\0`, '7')
