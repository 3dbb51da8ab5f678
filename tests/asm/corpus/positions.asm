; Conditions and numbers that ask where the assembler is.
        bits 16
        jmp end
%if ($ - $$) > 100
%error too large
%endif
        times 20 db 1
%assign used $ - $$
        db used
here:
%if here - $$ == 24
        db 'yes'
%else
        db 'no'
%endif
%assign pad 64 - ($ - $$)
%rep pad
        db 0
%endrep
        times 100 nop
%if ($ - $$) > 120
        nop
%endif
end:    dw used, pad
