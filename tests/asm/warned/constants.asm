; floating-point constants and keywords of other assemblers
        dd __float32__(1.5e400)
        dq __float64__(1.5e400)
        db __float8__(1.0e-9)
        dw __?bfloat16?__(1.0e50)
        dt 1234567890123456789p
%define ptr_count 1
        dd ptr, ptr_count
ptr:    dw 0
%macro environment 1
%define value_of_it %!no_such_variable_%1
%endmacro
        environment 1
        dd 7.0e38, 3.4028235e38
