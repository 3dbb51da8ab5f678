; Functions of the preprocessor, conversions and constants that are spelt as macros.
        bits 16
%assign x %eval(1 + 2 * 3)
        db x, %strlen("abc"), %substr("hello", 2, 3), %strcat("a", 'b', "c")
%define third %sel(3, 5, 6, 7)
        db third
        db %str(abc + 1), 0, %tok("1 + 2"), %count(a, b, c)
        db %cond(1, 2, 3), %cond(0, 2, 3), %num(255, 4, 16), %num(-5, 3, 10), %num(5, -3, 2), %num(10)
        dw __utf16__("ab"), __?utf16be?__("a")
        dd __utf32__(`a\u263a`)
        mov ax, __utf16__("b")
        mov eax, __float32__(-1.5)
        dd __?float32?__(0.1)
        dq __float64__(1e100), __QNaN__, __SNaN__, -__Infinity__
        dd __Infinity__, -__?Infinity?__, __?NaN?__
        dt __Infinity__
        dw 1.5, -0.25
        dd 0x1p4, 0x1.8p1, 1.0e+5, 1_0.5, 1e5
        dq 0x.8p-1, 0x1.921fb54442d18p+1
        dt 0x1p0
%use ifunc
        db ilog2e(8), ilog2c(9), ilog2w(9), ilog2f(1)
%strlen dates __DATE__
%strlen moments __UTC_TIME__
        db dates, moments
        cpu 286
        jz far_away
        jnbe far_away
        jz short near_by
        jmp far_away
near_by:
        times 200 nop
        jc near_by
        jc far_away
far_away:
        cpu 386
        jz near_by
        cpu x64
