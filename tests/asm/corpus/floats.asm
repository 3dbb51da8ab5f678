; Floating-point constants in every format, and the directive that rounds them.
%use fp
        db      -0.2, 1.0, 240.0, 1.0e-3
        dw      -0.5, 65504.0, 6.1e-5, 5.9604645e-8, 1e3
        dd      1.2, 1.222_222_222, 0x1p+2, 1.e10, 1.e-10, 0x1.8p-3, 0b1.1p3, 0o7.4p2, $1.8p0, 1e-45, 1e38
        dq      0x1p+32, 1.e+10, 1.e-10, 4.9e-324, 2.2250738585072014e-308, -0.0, 1.7976931348623157e308
        dt      3.141592653589793238462, 1.e+4000, -1e-4940, 0x1.fffffffffffffffep0
        do      1.e+4000, -1.5, 3.141592653589793238462643383279502884
        dd      __?Infinity?__, -__?Infinity?__, __?NaN?__, __?QNaN?__, __?SNaN?__, __Infinity__, +1.5
        dw      __?NaN?__, __?SNaN?__
        dq      __?Infinity?__, -__?NaN?__
        dt      __?Infinity?__, __?SNaN?__, 12_345_678_901_245_678p, -12_345_678_901_245_678p, +0p33, 33p
        do      __?Infinity?__, __?NaN?__
        dd      float32(1.5), float16(0.1), __?float8?__(1.5), __?bfloat16?__(3.14159)
        dq      float64(0.1), float80m(1.5), float128l(0.1), float128h(0.1)
        dw      __?float80e?__(-1.5)
        mov     eax, float32(-2.5)
%define single  __?float32?__(1.5)
        cmp     eax, single
float zero
        dd      1.1, -1.1
        dt      0.1
float near
        dd      1.1
float default
        dd      1.1
