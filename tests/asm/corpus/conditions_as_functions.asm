; %is() and what may stand behind %is, as behind %if; the packages of %use
%define a 1
%macro mm 2
%endmacro
%push ctx
db %is(1), %is(2-2), %isdef(a), %isndef(a), %isdef(b), %isidn(a,a), %isidn(x,y), %isnidn(x,y), %isempty(), %isempty( ), %isnum(5), %isnum(x), %isid(x), %isstr("x"), %istoken(a b), %isctx(ctx), %ismacro(mm), %ismacro(mm 3), %isenv(HOME), %isn(0)
%if %isdef(a) && !%isidn(a,1)
db 77
%endif
%if %isusing(fp)
db 1
%else
db 0
%endif
%use fp
%ifusing fp
db 2
%endif
%ifusing "fp"
db 3
%endif
%ifnusing masm
db 4
%endif
%ifusable nosuch
db 5
%elifusable altreg
db 6
%endif
%ifdef __?USE_FP?__
db 7
%endif
%ifdef __USE_FP__
db 8
%endif
